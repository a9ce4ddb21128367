"""Each identity of the book, and that the near misses do miss."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlino_lib.errors import RlinoError
from rlino_lib.exact.identities import (
    CURVES,
    Identity,
    TokenLM,
    amplification,
    curve,
    curve_identities,
    curves,
    drift_constant,
    drift_identities,
    expected_update,
    first_step_of_dpo,
    float64_copy,
    grpo_is_weighted_sft,
    kl_identities,
    nft_identities,
    nft_loss,
    policy_side,
    preferences_are_weighted_sft,
    right_wrong_fit,
    sample_mdp,
    sft_side,
    table,
    what_survives,
)
from rlino_lib.exact.token_mdp import F64, SharedPolicy, TabularPolicy, TokenMDP
from rlino_lib.methods.advantages import advantages
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.methods.preference import PREFERENCES, Preferred
from rlino_lib.policy.logprobs import response_logprobs
from rlino_lib.policy.models import load_policy
from rlino_lib.policy.sampling import sample
from rlino_lib.tasks import Countdown, Grade
from tests.policy.test_rollout import EVEN, UNEVEN, random_model


def toy(horizon: int = 3) -> TokenMDP:
    return TokenMDP(3, horizon, lambda tokens, mask: tokens.sum(1) == 3)


def all_hold(identities: list[Identity]) -> None:
    failed = [i for i in identities if not i.holds]
    assert identities and not failed, failed


# --- an identity -----------------------------------------------------------------------------------------------------


def test_a_gap_is_relative_by_part_and_never_hides_nan():
    one, two = torch.ones(4, dtype=F64), 2 * torch.ones(4, dtype=F64)
    assert Identity("", one, two).gap == pytest.approx(0.5) and not Identity("", one, two).holds
    assert Identity("", one, two, equal=False).holds and not Identity("", one, one, equal=False).holds
    assert Identity("", 1e-9 * one, 0 * one).gap == 1 and Identity("", 1e-9 * one, 0 * one, scale=2).gap == 1e-9
    assert Identity("", 0 * one, 0 * one).gap == 0
    parts = Identity("", {"a": one, "b": one}, {"a": one, "b": two})
    assert parts.gaps == {"a": 0, "b": pytest.approx(0.5)} and parts.gap == pytest.approx(0.5)
    for broken in (
        Identity("", {"a": one, "b": one * math.nan}, {"a": one, "b": one}),
        Identity("", one, math.nan * one),
    ):
        assert math.isnan(broken.gap) and not broken.holds
    with pytest.raises(KeyError):
        _ = Identity("", {"a": one}, {"b": one}).gap
    assert "holds" in repr(Identity("x", one, one)) and "FAILS" in repr(Identity("x", one, two))
    assert table([Identity("x", one, one)]).iloc[0].tolist() == ["x", "=", 0.0, True]


# --- GRPO is weighted SFT --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group_size", [2, 4, 7])
def test_on_the_enumerable_policy(group_size):
    mdp = toy()
    policy = SharedPolicy(mdp, seed=1)
    rollouts = sample_mdp(mdp, policy, 8, group_size)
    model = TokenLM(mdp, policy)
    assert 0 < rollouts.correct.sum() < len(rollouts.ids)
    logprobs, mask = response_logprobs(model, rollouts, torch.arange(len(rollouts.ids)))
    assert torch.allclose(logprobs * mask, rollouts.logprobs, atol=1e-12)  # two ways to the same numbers
    all_hold(grpo_is_weighted_sft(model, rollouts))


def test_rollouts_of_an_mdp_are_responses_of_it():
    mdp = toy()
    rollouts = sample_mdp(mdp, TabularPolicy(mdp), prompts=5, group_size=8)
    assert len(rollouts.texts) == 40 and rollouts.prompt_ids.shape == (5, 1)
    truncated = [len(text) == 3 and not text.endswith("·") for text in rollouts.texts]
    assert rollouts.truncated.tolist() == truncated and 0 < sum(truncated) < 40
    for text, reward in zip(rollouts.texts, rollouts.rewards.tolist(), strict=True):
        assert reward == (sum("·ab".index(token) for token in text) == 3)


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@pytest.mark.parametrize("prompts", [EVEN * 2, UNEVEN], ids=["even", "padded"])
def test_on_random_transformers(kind, prompts):
    policy = random_model(kind, seed=5)
    rollouts = sample(policy, prompts, 4, max_new_tokens=12, seed=1)
    verdicts = [1, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0]
    rollouts.grades = [Grade(float(v), bool(v), True, None, "by decree") for v in verdicts]
    found = grpo_is_weighted_sft(float64_copy(policy.model), rollouts)
    all_hold(found)
    assert found[0].left.keys() == dict(policy.model.named_parameters()).keys()
    assert all(part.norm() > 0 for name, part in found[0].left.items() if "k_proj.bias" not in name)


def test_on_the_shipped_base_with_rollouts_of_its_own():
    policy, task = load_policy(), Countdown()
    problems = task.problems("train")[:4]
    rollouts = sample(policy, [task.prompt(p) for p in problems], 4, max_new_tokens=64, seed=9).grade(task, problems)
    k = rollouts.correct.view(4, 4).sum(1)
    assert len({x for x in k.tolist() if 0 < x < 4}) > 1  # groups of several p, so that the curve shows
    found = grpo_is_weighted_sft(float64_copy(policy.model), rollouts)
    all_hold(found)
    grpo, rounded = advantages(rollouts.rewards.to(F64), 4), policy.model.double()  # its norms still round to float32
    sides = policy_side(rounded, rollouts, OBJECTIVES["grpo_no_kl"], grpo), sft_side(rounded, rollouts, grpo)
    assert Identity("", *sides).gap > 100 * found[0].gap


def test_stale_samples_and_rewards_that_are_not_binary_part_the_two():
    mdp = TokenMDP(3, 3, lambda tokens, mask: (tokens.sum(1) == 3) + 0.1 * (tokens[:, 0] == 2))
    policy, older = SharedPolicy(mdp, seed=1), SharedPolicy(mdp, seed=2)
    rollouts, model = sample_mdp(mdp, older, 8, 4), TokenLM(mdp, policy)
    by_name = {i.name[:12]: i for i in grpo_is_weighted_sft(model, rollouts)}
    assert by_name["GRPO = SFT w"].holds  # whatever the rewards are
    assert not by_name["GRPO with KL"].gap > 1e-10
    grpo = advantages(rollouts.rewards.to(F64), 4)
    stale = policy_side(model, rollouts, OBJECTIVES["grpo_no_kl"], grpo, old=rollouts.logprobs)
    assert Identity("stale", stale, sft_side(model, rollouts, grpo), equal=False).holds
    binary = advantages(rollouts.correct.to(F64), 4)
    mixed_format = Identity("ternary", sft_side(model, rollouts, grpo), sft_side(model, rollouts, binary), equal=False)
    assert mixed_format.holds
    with pytest.raises(RlinoError, match="no example has a weight"):
        sft_side(model, rollouts, 0 * grpo)


# --- curves ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group_size", [2, 3, 8, 16])
def test_curves_and_advantages_follow_their_formulas(group_size):
    all_hold(curve_identities(group_size))


def test_the_curves_that_the_book_names():
    g = 8
    grpo, dr_grpo, rloo = (curve(r, g, **o) for r, o in (("zscore", {"eps": 0.0}), ("mean", {}), ("leave_one_out", {})))
    p = grpo["p"]
    population = (g / (g - 1)) ** 0.5
    assert (population * grpo["right"] - (p * (1 - p)) ** 0.5).abs().max() < 1e-15
    assert (dr_grpo["right"] - p * (1 - p)).abs().max() < 1e-15 and (
        rloo["right"] / (8 / 7) - dr_grpo["right"]
    ).abs().max() < 1e-15
    assert curve("positive", g)["right"].equals(p)
    assert curve("zscore", 2)["right"][1] == pytest.approx(0.7070 / 2, abs=1e-5)  # TRL's ±0.7070 at G = 2
    assert curve("weighted", g)["right"].tolist() == pytest.approx((0.1 * p).tolist())


@pytest.mark.parametrize("rule", ["batch", "batch_zscore", "group_batch_zscore"])
def test_a_rule_that_looks_at_the_batch_has_no_curve(rule):
    with pytest.raises(RlinoError, match="whole batch"):
        curve(rule, 4)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 8), st.data())
def test_two_numbers_a_group_say_all_on_binary_rewards(group_size, data):
    """Σ Â_i s_i of any vectors s_i is what the curve gives to the two sides' mean vectors."""
    rewards = torch.tensor(data.draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=group_size, max_size=group_size)))
    scores = torch.randn(group_size, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    for rule in (*CURVES, "weighted"):
        row = curve(rule, group_size).iloc[int(rewards.sum())]
        found = advantages(rewards.to(F64), group_size, rule) @ scores / group_size
        expected = torch.zeros(3, dtype=F64)
        for side, mask in (("right", rewards > 0), ("wrong", rewards == 0)):
            if mask.any():
                expected += row[side] * scores[mask].mean(0)
        assert torch.allclose(found, expected, atol=1e-12)


def test_the_figure_has_every_curve():
    found = curves(4)
    assert set(found["rule"]) == set(CURVES) and len(found) == len(CURVES) * 2 * 5
    assert (found["weight"] - found["formula"]).abs().max() < 1e-15


def test_what_a_third_reward_breaks():
    ternary = torch.tensor([0, 0.1, 0, 0.1, 1, 0, 0.1, 0, 1, 0, 1, 0, 0, 0, 0, 0])
    fit = right_wrong_fit(ternary, 4)
    assert fit["k"].tolist() == [0, 1, 2, 0] and fit["residual"].tolist() == pytest.approx([1, 0.0094, 0, 0], abs=1e-4)
    assert fit["wrong"][0] == pytest.approx(0, abs=1e-9) and fit["size"][0] > 0.8  # all wrong, and it pushes
    assert right_wrong_fit(ternary, 4, "group_balanced")["size"].tolist() == pytest.approx([0, 0.5, 0.5, 0])
    found = what_survives().set_index(["rewards", "rule"])
    for rule in CURVES:
        sees_rewards = rule in ("zscore", "mean", "leave_one_out")
        assert found.loc[("binary", rule), "residual"] < 1e-20
        for scheme in ("ternary", "dense"):
            assert (found.loc[(scheme, rule), "residual"] > 1e-3) == sees_rewards
        assert found.loc[("ternary", rule), "all_wrong_push"] == (
            14 / 16 if sees_rewards else float(rule in ("negative", "signed"))
        )


# --- expected updates ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group_size", [2, 3, 4])
def test_expected_updates_over_all_groups(group_size):
    mdp = toy(2)
    all_hold(drift_identities(mdp, SharedPolicy(mdp, seed=3), group_size))


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 16), st.floats(0.02, 0.98))
def test_constants(g, p):
    population = (g / (g - 1)) ** 0.5
    chance = [math.comb(g, k) * p**k * (1 - p) ** (g - k) for k in range(g + 1)]
    forms = {
        "leave_one_out": 1.0,
        "mean": (g - 1) / g,
        "positive": 1.0,  # with nothing taken off, right answers alone already climb p
        "negative": 1.0,
        "signed": 2.0,
        "group_balanced": (1 - p**g - (1 - p) ** g) / (g * p * (1 - p)),
    }
    for rule, form in forms.items():
        assert drift_constant(rule, g, p) == pytest.approx(form, rel=1e-9)
    spread = sum(c * math.sqrt(k * (g - k)) for k, c in enumerate(chance)) / (g * p * (1 - p))
    found = population * drift_constant("zscore", g, p, eps=0.0)
    assert found == pytest.approx(spread, rel=1e-9)
    if g == 2:
        assert found == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_a_large_group_climbs_the_arcsine(p):
    assert drift_constant("zscore", 400, p, eps=0.0) == pytest.approx(1 / math.sqrt(p * (1 - p)), rel=0.01)


def test_ternary_rewards_have_no_such_constant():
    mdp = TokenMDP(3, 2, lambda tokens, mask: (tokens.sum(1) == 3) + 0.1 * (tokens[:, 0] == 2) * (tokens[:, 1] == 0))
    policy = SharedPolicy(mdp, seed=3)
    update, gradient = expected_update(mdp, policy, "zscore", 3), mdp.gradient(policy)
    assert torch.nn.functional.cosine_similarity(update, gradient, dim=0) < 0.99
    linear = expected_update(mdp, policy, "leave_one_out", 3)  # linear in the rewards, and so unbiased still
    assert Identity("", linear, gradient).holds
    with pytest.raises(RlinoError, match="groups of 9"):
        expected_update(mdp, policy, "mean", 9)


# --- estimators of the KL --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [SharedPolicy, lambda mdp, seed: TabularPolicy(mdp, 1.0, seed)], ids=["shared", "table"]
)
def test_estimators_of_the_kl(make):
    mdp = toy()
    found = kl_identities(mdp, make(mdp, seed=1), make(mdp, seed=4))
    all_hold(found)
    assert sum(i.equal for i in found) == 10


# --- neighbours ------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 6), st.integers(0, 999))
def test_nft_on_policy(group_size, seed):
    rng = torch.Generator().manual_seed(seed)
    n = 3 * group_size
    mask = torch.arange(5) < torch.randint(1, 6, (n, 1), generator=rng)
    right = torch.rand(n, generator=rng) < 0.4
    right[:2] = torch.tensor([True, False])
    printed = nft_identities(mask, right, group_size)[2]
    all_hold(nft_identities(mask, right, group_size)[:2])
    share = right.view(-1, group_size).to(F64).mean(1)
    # √x = x where x is 1: where half of every mixed group is right, the printed form can't be told from the other.
    assert printed.holds or all(p in (0, 0.5, 1) for p in share.tolist())


def test_nft_takes_the_negative_policy_at_its_word():
    old = torch.tensor([[0.5], [0.5]], dtype=F64).log()
    new = torch.tensor([[0.6], [0.7]], dtype=F64).log()
    right, mask = torch.tensor([True, False]), torch.ones(2, 1, dtype=torch.bool)
    negative = (0.5 - 0.5 * 0.7) / 0.5  # (π_old − r π⁺)/(1 − r) at r = 1/2
    by_hand = -(math.log(0.6 / 0.5) + math.log(negative / 0.5)) / 2
    assert nft_loss(new, old, mask, right, 2, torch.ones_like).item() == pytest.approx(by_hand, abs=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.floats(0.3, 5), st.floats(1e-4, 0.1), st.integers(0, 99))
def test_success_is_amplified_as_the_recurrence_says(beta, eps, seed):
    mdp = toy()
    ref = mdp.probs(SharedPolicy(mdp, seed=seed)).detach()
    found = amplification(ref, mdp.right, beta, eps)
    all_hold([found])
    assert (found.right > ref[mdp.right].sum()).all()


@pytest.mark.parametrize("prompts", [EVEN * 2, UNEVEN], ids=["even", "padded"])
def test_preferences_are_weighted_sft_wherever_the_policy_stands(prompts):
    policy = random_model("qwen2", seed=5)
    rollouts = sample(policy, prompts, 4, max_new_tokens=12, seed=1)
    pairs = Preferred(torch.tensor([0, 5, 9]), torch.tensor([2, 4, 10]))
    model = float64_copy(policy.model)
    now, mask = response_logprobs(model, rollouts, torch.arange(len(rollouts.ids)))
    moved = now.detach() + 2 * torch.sin(torch.arange(now.numel(), dtype=F64)).view(now.shape)
    for old in (now.detach(), moved):
        found = preferences_are_weighted_sft(model, rollouts, pairs, old)
        assert [identity.name for identity in found] == [f"{name} = weighted SFT" for name in PREFERENCES]
        all_hold(found)
    first = first_step_of_dpo(model, rollouts, pairs)
    all_hold([first])
    assert sum(part.norm() for part in first.left.values()) > 0
    later = preferences_are_weighted_sft(model, rollouts, pairs, moved)[0].left
    assert Identity("a second step is another", later, first.right, equal=False).holds
