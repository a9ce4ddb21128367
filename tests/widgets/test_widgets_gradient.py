"""Weights explorer and gradient microscope: the library's numbers, on pages that are well formed, from safe menus."""

from __future__ import annotations

import math
from html.parser import HTMLParser

import pytest
import torch

from rlino_lib.errors import RlinoError
from rlino_lib.exact.identities import curve, float64_copy
from rlino_lib.methods.advantages import advantages
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.methods.loss import Batch, policy_loss
from rlino_lib.policy.logprobs import response_logprobs
from rlino_lib.policy.models import Policy
from rlino_lib.policy.sampling import sample
from rlino_lib.tasks import Grade
from rlino_lib.widgets import gradient as explorers
from rlino_lib.widgets.gradient import (
    METHODS,
    first_mixed,
    gradient_microscope,
    group_weights,
    microscope_html,
    sample_names,
    score_rows,
    side_curves,
    static_microscope,
    static_weights,
    weights_explorer,
    weights_html,
)
from tests.policy.test_rollout import EVEN, random_model

VERDICTS = [0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 0]
RULES = {"grpo_no_kl": ("zscore", {}), "f_isft_posneg": ("group_balanced", {}), "f_isft_pos": ("positive", {})}
RULES |= {"f_isft_neg": ("negative", {}), "f_isft_posneg_unit": ("signed", {})}


class Page(HTMLParser):
    """Text of the cells; fails where elements do not nest, or an attribute could run a script."""

    def __init__(self, source: str):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.cells, self.text = [], [], [], ""
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert tag != "script" and not any(name.startswith("on") for name, _ in attrs)
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data if self.open[-1:] != ["style"] else ""
        if self.open[-1:] == ["td"]:
            self.cells.append(data)

    def count(self, tag: str) -> int:
        return sum(t == tag for t, _ in self.tags)


def read(text: str) -> float:
    return math.nan if text == "–" else float(text.replace("−", "-"))


# --- the explorer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize("group_size", [2, 5, 8])
def test_sides_are_the_curves_of_the_rule_whatever_the_lengths(method, group_size):
    rule, options = RULES[method]
    by_rule = curve(rule, group_size, **options)
    found = side_curves(method, group_size, (7, 19))
    for side in ("right", "wrong"):
        assert found[side].to_numpy() == pytest.approx(by_rule[side].to_numpy(), abs=1e-12)
    assert found["total"].to_numpy() == pytest.approx((by_rule["right"] + by_rule["wrong"]).to_numpy(), abs=1e-12)


def test_the_normaliser_decides_what_length_does():
    short, long = (group_weights("grpo_no_kl", 8, 2, (12, n)) for n in (12, 48))
    assert long.loc["wrong", "w"] == pytest.approx(short.loc["wrong", "w"] / 4)
    assert long.loc["wrong", "response"] == pytest.approx(short.loc["wrong", "response"])
    short, long = (group_weights("dr_grpo", 8, 2, (12, n)) for n in (12, 48))
    assert long.loc["wrong", "w"] == pytest.approx(short.loc["wrong", "w"])
    assert long.loc["wrong", "response"] == pytest.approx(4 * short.loc["wrong", "response"])
    assert long.loc["wrong", "w"] == pytest.approx(-0.25 / 8 / explorers.CAP)
    rloo = group_weights("rloo", 8, 2)  # its ratio is that of the whole response: a sum over tokens
    assert rloo["w"].tolist() == pytest.approx([6 / 7 / 8, -2 / 7 / 8])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("k", [0, 3, 8])
def test_every_page_is_well_formed_and_has_the_numbers(method, k):
    page, table = Page(weights_html(method, 8, k, 5, 48)), group_weights(method, 8, k, (5, 48))
    assert page.count("svg") == 2 and page.count("table") == 1
    cells = [page.cells[:6], page.cells[6:]]
    for row, (_, numbers) in zip(cells, table.iterrows(), strict=True):
        assert [read(x) for x in row] == pytest.approx(numbers.tolist(), rel=6e-3, nan_ok=True)
    assert ("learns nothing" in page.text) == (not table["side"].any())
    assert all("aria-label" in attrs for tag, attrs in page.tags if tag == "svg")


@pytest.mark.parametrize(
    "choice", [dict(method="ppo"), dict(k=9), dict(k=-1), dict(group_size=1, k=0), dict(right_length=0)]
)
def test_what_cannot_be_shown_is_said(choice):
    for show in (weights_html, weights_explorer):
        with pytest.raises(RlinoError):
            show(**choice)


def test_the_sliders_keep_within_the_group():
    explorer = weights_explorer(group_size=8, k=7)
    explorer.menus["group_size"].value = 4
    assert explorer.menus["k"].max == 4 and explorer.choice["k"] == 4
    assert explorer.view.value == str(weights_html(**explorer.choice))
    explorer.menus["k"].value = 0
    explorer.menus["method"].value = "f_isft_neg"
    assert explorer.view.value == str(weights_html("f_isft_neg", 4, 0)) and repr(explorer) == "WeightsExplorer()"
    assert explorer._repr_mimebundle_()["text/html"] == explorer.view.value


def test_static_weights_are_the_same_pages():
    found = str(static_weights(["grpo_no_kl", "dr_grpo"], k=3))
    assert str(weights_html("grpo_no_kl", k=3)) in found and str(weights_html("dr_grpo", k=3)) in found
    assert Page(found).count("details") == 2 and found.count("<details open>") == 1
    with pytest.raises(RlinoError):
        static_weights(["ppo"])


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


@pytest.mark.parametrize("pair", [("grpo_no_kl", "dapo"), ("w_reinforce", "grpo_no_kl"), ("f_isft_neg", "rloo")])
@pytest.mark.parametrize("group", [0, 1, 2])
def test_a_microscope_page_has_the_weights(scored, pair, group):
    _, scores = scored
    page = Page(microscope_html(scores, *pair, group, sample=1))
    wa, wb = (scores.weights(m) for m in pair)
    factor = (scores.product(wa, wa) / scores.product(wb, wb)) ** 0.5
    rows = slice(4 * group, 4 * group + 4)
    wanted = (1000 * torch.stack([wa, factor * wb, wa - factor * wb], 1)[rows]).flatten().tolist()
    assert [read(x) for x in page.cells] == pytest.approx(wanted, rel=6e-3, abs=1e-6)
    assert page.count("pre") == 3
    assert all(attrs.get("tabindex") == "0" for tag, attrs in page.tags if tag == "pre")


def test_hostile_text_stays_text(scored):
    _, scores = scored
    evil = "<script>alert(1)</script>"
    scores.rollouts.prompts[1], kept = evil, scores.rollouts.prompts[1]
    scores.tokens[4], tokens = [evil, *scores.tokens[4][1:]], scores.tokens[4]
    try:
        page = Page(microscope_html(scores, group=1))  # the parser fails on a script
        assert page.text.count("alert(1)") >= 2
        gradient_microscope(scores)
    finally:
        scores.rollouts.prompts[1], scores.tokens[4] = kept, tokens


@pytest.mark.parametrize("choice", [dict(a="ppo"), dict(b="grpo"), dict(group=3), dict(group=-1)])
def test_what_the_microscope_cannot_show_is_said(scored, choice):
    _, scores = scored
    for show in (microscope_html, gradient_microscope):
        with pytest.raises(RlinoError):
            show(scores, **choice)
    with pytest.raises(RlinoError):
        microscope_html(scores, sample=4)


def test_ungraded_responses_are_refused(scored):
    policy, _ = scored
    with pytest.raises(RlinoError, match="grade"):
        score_rows(policy, sample(policy, EVEN[:1], 2, max_new_tokens=4), cap=4)


def test_the_menus_follow_the_group(scored):
    _, scores = scored
    widget = gradient_microscope(scores)
    assert widget.choice == {"a": "grpo_no_kl", "b": "f_isft_posneg", "group": 1, "sample": 0}
    widget.menus["sample"].value = 3
    assert widget.view.value == str(microscope_html(scores, group=1, sample=3))
    widget.menus["group"].value = 2
    assert widget.choice["sample"] == 0 and [f"{n} tokens" for n, _ in widget.menus["sample"].options] == sample_names(
        scores, 2
    )
    widget.menus["b"].value = "dapo"
    assert widget.view.value == str(microscope_html(scores, b="dapo", group=2))
    assert repr(widget) == "GradientMicroscope()" and "1 of 4 right" in widget.menus["group"].options[1][0]


def test_static_microscope_is_the_same_pages(scored):
    _, scores = scored
    found = str(static_microscope(scores, [("grpo_no_kl", "dapo")]))
    assert str(microscope_html(scores, b="dapo")) in found and Page(found).count("details") == 1
