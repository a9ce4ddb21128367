"""Weights explorer and gradient microscope: the library's numbers, on pages that are well formed, from safe menus."""

from __future__ import annotations

import math
import re

import pandas as pd
import pytest
import torch

from rlino_lib.errors import RlinoError
from rlino_lib.evaluation.scores import first_mixed, sample_names, score_rows
from rlino_lib.exact.identities import curve, float64_copy
from rlino_lib.methods.advantages import advantages
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.methods.groups import CAP, METHODS, sides_of
from rlino_lib.methods.loss import Batch, policy_loss
from rlino_lib.policy.logprobs import response_logprobs
from rlino_lib.policy.models import Policy
from rlino_lib.policy.sampling import sample
from rlino_lib.tasks import Grade
from rlino_lib.widgets.gradient import GROUPS, LENGTHS, SHARES, gradient_microscope, weights_explorer
from tests.policy.test_rollout import EVEN, random_model
from tests.widgets.test_widgets import Explored, Page

VERDICTS = [0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 0]
RULES = {"grpo_no_kl": ("zscore", {}), "f_isft_posneg": ("group_balanced", {}), "f_isft_pos": ("positive", {})}
RULES |= {"f_isft_neg": ("negative", {}), "f_isft_posneg_unit": ("signed", {})}


def group_weights(method: str, group_size: int = 8, k: int = 2, lengths: tuple[int, int] = (12, 24)) -> pd.DataFrame:
    """A group of which k are right, as two rows, right and wrong, all responses of a side equally long."""
    return pd.DataFrame.from_dict(sides_of(method, group_size, k, lengths), "index")


def read(text: str) -> float:
    return math.nan if text == "–" else float(text.replace("−", "-"))


# --- the explorer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize("group_size", [2, 5, 8])
def test_sides_are_the_curves_of_the_rule_whatever_the_lengths(method, group_size):
    rule, options = RULES[method]
    by_rule = curve(rule, group_size, **options)
    sides = [group_weights(method, group_size, k, (7, 19))["side"] for k in range(group_size + 1)]
    for side in ("right", "wrong"):
        assert [s[side] for s in sides] == pytest.approx(by_rule[side].tolist(), abs=1e-12)


def test_the_normaliser_decides_what_length_does():
    short, long = (group_weights("grpo_no_kl", 8, 2, (12, n)) for n in (12, 48))
    assert long.loc["wrong", "w"] == pytest.approx(short.loc["wrong", "w"] / 4)
    assert long.loc["wrong", "response"] == pytest.approx(short.loc["wrong", "response"])
    short, long = (group_weights("dr_grpo", 8, 2, (12, n)) for n in (12, 48))
    assert long.loc["wrong", "w"] == pytest.approx(short.loc["wrong", "w"])
    assert long.loc["wrong", "response"] == pytest.approx(4 * short.loc["wrong", "response"])
    assert long.loc["wrong", "w"] == pytest.approx(-0.25 / 8 / CAP)
    rloo = group_weights("rloo", 8, 2)  # its ratio is that of the whole response: a sum over tokens
    assert rloo["w"].tolist() == pytest.approx([6 / 7 / 8, -2 / 7 / 8])


@pytest.fixture(scope="module")
def weights():
    return Explored(weights_explorer(methods=["grpo_no_kl", "dr_grpo", "dapo", "f_isft_neg"]))


@pytest.mark.parametrize("method", ["grpo_no_kl", "dr_grpo", "dapo", "f_isft_neg"])
@pytest.mark.parametrize("k, right, wrong", [(0, 0, 2), (3, 1, 1), (8, 2, 0)])
def test_every_choice_has_the_numbers(weights, method, k, right, wrong):
    table = group_weights(method, 8, k, (LENGTHS[right], LENGTHS[wrong]))
    m = weights.option("a", METHODS[method])
    choice = {"size": GROUPS.index(8), "p": SHARES.index(k / 8), "right": right, "wrong": wrong}
    for side in ("right", "wrong"):
        for letter in ("a", "b"):  # both sides of the page show the same of a method
            page = Page(f"<table><tr>{weights.page(f'{side}_{letter}', **{letter: m}, **choice)}</tr></table>")
            assert [read(x) for x in page.cells[-6:]] == pytest.approx(table.loc[side].tolist(), rel=6e-3, nan_ok=True)
    assert ("learns nothing" in weights.page("all_a", a=m, **choice)) == (not table["side"].any())
    svg = Page(weights.page("curve_a", a=m, **choice))
    assert svg.count("svg") == 1 and METHODS[method] in svg.having(class_="rlino-plot")[0]["aria-label"]


def test_the_bars_are_as_wide_as_a_response_and_as_high_as_a_weight(weights):
    def bars(method):
        m, p = weights.option("a", METHODS[method]), SHARES.index(0.25)
        pages = [weights.page("wrong_a", a=m, size=2, p=p, right=0, wrong=w) for w in range(3)]
        return [tuple(map(int, re.search(r"width:(\d+)px;height:(\d+)px", page).groups())) for page in pages]

    grpo, dr_grpo = bars("grpo_no_kl"), bars("dr_grpo")
    assert [w for w, _ in grpo] == [3 * n for n in LENGTHS] == [w for w, _ in dr_grpo]
    assert grpo[0][1] > grpo[1][1] > grpo[2][1] and len({h for _, h in dr_grpo}) == 1


def test_two_methods_stand_side_by_side(weights):
    text = weights.first.text
    assert f"A: {METHODS['grpo_no_kl']}" in text and f"B: {METHODS['dr_grpo']}" in text and "Σ" in text
    assert [c["kind"] for c in weights.controls.values() if c["name"] in ("p", "right", "wrong")] == ["slider"] * 3
    assert all(weights.page("right_a", size=0, p=p) is None for p in range(9) if p % 4)  # a group of 2 has three shares


def test_what_cannot_be_shown_is_said():
    with pytest.raises(RlinoError, match="unknown method 'x'"):
        weights_explorer(["x"])


def test_a_method_that_is_not_there_is_refused():
    with pytest.raises(RlinoError, match="unknown method 'ppo': one of grpo_no_kl, "):
        group_weights("ppo")


# --- the microscope --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scored():
    policy = random_model("qwen2", seed=5)
    policy = Policy(float64_copy(policy.model), policy.tokenizer)
    rollouts = sample(policy, (EVEN * 3)[:3], 4, max_new_tokens=12, seed=1)
    rollouts.grades = [Grade(float(v), bool(v), True, None, "by decree") for v in VERDICTS]
    return policy, score_rows(policy, rollouts, cap=12)


def gradient(policy, rollouts, method, rows):
    """The gradient of a method's loss on the batch, of some rows alone: without Scores."""
    objective = OBJECTIVES[method]
    logprobs, mask = response_logprobs(policy.model, rollouts, torch.arange(len(rollouts.ids)))
    adv = advantages(rollouts.rewards.double(), rollouts.group_size, objective.advantage)
    adv = torch.where(torch.isin(torch.arange(len(adv)), torch.arange(len(adv))[rows]), adv, 0)
    loss = policy_loss(objective, Batch(logprobs, adv, mask, max_response_length=12)).loss
    params = list(policy.model.parameters())
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, params, materialize_grads=True)])


@pytest.mark.parametrize("a, b", [("grpo_no_kl", "f_isft_posneg"), ("dr_grpo", "f_isft_pos"), ("f_isft_neg", "rloo")])
@pytest.mark.parametrize("rows", [slice(None), slice(4, 8)])
def test_cosines_are_those_of_the_gradients(scored, a, b, rows):
    policy, scores = scored
    wa, wb = scores.weights(a), scores.weights(b)
    ga, gb = (gradient(policy, scores.rollouts, m, rows) for m in (a, b))
    assert scores.cosine(wa, wb, rows) == pytest.approx(torch.cosine_similarity(ga, gb, dim=0).item(), abs=1e-9)
    assert scores.product(wa, wb, rows) == pytest.approx((ga @ gb).item(), rel=1e-6)


def test_grpo_and_balanced_differ_by_one_number_a_group(scored):
    _, scores = scored
    a, b = scores.weights("grpo_no_kl"), scores.weights("f_isft_posneg")
    for group in (slice(4, 8), slice(8, 12)):
        assert scores.cosine(a, b, group) == pytest.approx(1, abs=1e-12)
        assert (a[group] / b[group]).std() < 1e-12
    assert math.isnan(scores.cosine(a, b, slice(0, 4))) and not a[:4].any()  # all wrong
    assert first_mixed(scores) == 1


@pytest.mark.parametrize("pair", [("grpo_no_kl", "dapo"), ("dr_grpo", "grpo_no_kl"), ("grpo_no_kl", "rloo")])
@pytest.mark.parametrize("group", [0, 1, 2])
def test_a_microscope_page_has_the_weights(scored, pair, group):
    _, scores = scored
    found = Explored(gradient_microscope(scores, *pair))
    choice = {name: found.option(name, METHODS[m]) for name, m in zip("ab", pair, strict=True)}
    page = Page(found.page("pair", **choice, group=group))
    wa, wb = (scores.weights(m) for m in pair)
    factor = (scores.product(wa, wa) / scores.product(wb, wb)) ** 0.5
    rows = slice(4 * group, 4 * group + 4)
    wanted = (1000 * torch.stack([wa, factor * wb, wa - factor * wb], 1)[rows]).flatten().tolist()
    assert [read(x) for x in page.cells] == pytest.approx(wanted, rel=6e-3, abs=1e-6)
    for k in range(4):
        text = found.page("text", group=group, response=k)
        assert sample_names(scores, group)[k] in text and len(found.tokens(text)) == 1
    assert "1 of 4 right" in found.controls["group"]["options"][1] and found.controls["group"]["start"] == 1


def test_hostile_text_stays_text(scored):
    _, scores = scored
    evil = "<script>alert(1)</script>"
    scores.rollouts.prompts[1], kept = evil, scores.rollouts.prompts[1]
    scores.tokens[4], tokens = [evil, *scores.tokens[4][1:]], scores.tokens[4]
    try:
        found = Explored(gradient_microscope(scores))
        assert found.first.text.count("alert(1)") == 2 and found.tokens(found.page("text"))[0][0] == evil
    finally:
        scores.rollouts.prompts[1], scores.tokens[4] = kept, tokens


@pytest.mark.parametrize("choice", [dict(a="ppo"), dict(b="grpo"), dict(firsts=["x"])])
def test_what_the_microscope_cannot_show_is_said(scored, choice):
    _, scores = scored
    with pytest.raises(RlinoError):
        gradient_microscope(scores, **choice)


def test_ungraded_responses_are_refused(scored):
    policy, _ = scored
    with pytest.raises(RlinoError, match="grade"):
        score_rows(policy, sample(policy, EVEN[:1], 2, max_new_tokens=4), cap=4)
