"""Advantages and credit: golden values, closed forms, what stays in a group, the order of penalty, KL and filter."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlino_lib.errors import RlinoError
from rlino_lib.methods.advantages import ADVANTAGES, advantages
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.methods.credit import Graded, credit
from rlino_lib.methods.objective import Objective

F64 = torch.float64
BATCH_WIDE = {"batch", "batch_zscore", "group_batch_zscore"}


def test_golden_advantages():
    rewards = torch.tensor([1.0, 0, 0, 1], dtype=F64)
    assert advantages(rewards, 4).abs().tolist() == pytest.approx([0.86587543] * 4, abs=5e-9)
    assert advantages(rewards, 4, "leave_one_out").tolist() == pytest.approx([2 / 3, -2 / 3, -2 / 3, 2 / 3])
    assert advantages(torch.tensor([1.0, 0.0]), 2).tolist() == pytest.approx([0.7070, -0.7070], abs=1e-4)


@pytest.mark.parametrize("g", [2, 3, 5, 8, 16])
def test_closed_forms_of_the_zscore(g):
    for k in range(1, g):
        rewards = torch.tensor([1.0] * k + [0.0] * (g - k), dtype=F64)
        found, p = advantages(rewards, g, eps=0.0), k / g
        factor = math.sqrt((g - 1) / g)  # the sample std is larger than the population's
        assert found[0].item() == pytest.approx(factor * math.sqrt((1 - p) / p), rel=1e-12)
        assert found[-1].item() == pytest.approx(-factor * math.sqrt(p / (1 - p)), rel=1e-12)
        balanced = advantages(rewards, g, "group_balanced")
        curve = g * factor * math.sqrt(p * (1 - p))
        assert torch.allclose(found, curve * balanced, rtol=1e-12)  # GRPO is balanced F-ISFT times its curve


def test_batch_rules_by_hand():
    rewards = torch.tensor([1.0, 0, 0, 0, 1, 1], dtype=F64)  # groups of means 1/2, 0, 1
    std = math.sqrt(0.3)  # three ones of six: 6 · 1/4 / 5
    off = [0.5, -0.5, 0, 0, 0, 0]
    by = {"batch": [x / std for x in off], "batch_zscore": [s * 0.5 / std for s in (1, -1, -1, -1, 1, 1)]}
    by["group_batch_zscore"] = [x / math.sqrt(0.1) for x in off]  # 2 · 1/4 / 5
    for rule, expected in by.items():
        assert advantages(rewards, 2, rule, eps=0.0).tolist() == pytest.approx(expected, rel=1e-12)
        assert advantages(rewards, 2, rule).abs().max() < max(map(abs, expected))  # eps takes a little off


def test_weighted_and_its_options():
    rewards = torch.tensor([1.0, 0.1, 0.0, 1.0])
    assert advantages(rewards, 4, "weighted").tolist() == pytest.approx([0.1, -1, -1, 0.1])
    assert advantages(rewards, 4, "weighted", weight=2.0, threshold=0.05).tolist() == [2, 2, -1, 2]
    assert torch.equal(advantages(rewards, 4, "weighted", weight=1.0), advantages(rewards, 4, "signed"))


groups = st.integers(1, 6).flatmap(
    lambda g: st.tuples(st.just(g), st.lists(st.sampled_from([0.0, 0.1, 1.0]), min_size=g, max_size=5 * g))
)


@settings(deadline=None)
@given(groups, st.sampled_from(sorted(ADVANTAGES)))
def test_advantages_act_within_groups(drawn, rule):
    g, values = drawn
    values = values[: len(values) // g * g]
    rewards = torch.tensor(values, dtype=F64)
    found = advantages(rewards, g, rule)
    assert found.shape == rewards.shape and found.dtype == F64 and found.isfinite().all()
    if rule not in BATCH_WIDE:
        for start in range(0, len(values), g):
            alone = advantages(rewards[start : start + g], g, rule)
            assert torch.allclose(found[start : start + g], alone, rtol=0, atol=1e-12)
    if rule in ("zscore", "mean", "leave_one_out", "group_balanced", "batch", "group_batch_zscore"):
        sums = found.view(-1, g).sum(1)
        assert torch.allclose(sums, torch.zeros_like(sums), atol=1e-9)
    if rule == "batch_zscore":
        assert abs(found.sum().item()) < 1e-9


def test_balanced_sides_sum_to_one():
    found = advantages(torch.tensor([1.0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0], dtype=F64), 4, "group_balanced")
    assert found.tolist() == pytest.approx([1, -1 / 3, -1 / 3, -1 / 3] + [0] * 8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rule", sorted(ADVANTAGES))
def test_edges_stay_finite_and_keep_their_dtype(rule, dtype):
    options = {"eps": 0.0} if rule == "zscore" or "batch" in rule else {}
    for g, values in [(4, [0.1] * 8), (4, [0.0] * 4), (1, [1.0]), (1, [1.0, 0.0, 0.3]), (3, [1.0, 0.0, 0.1])]:
        for chosen in ({}, options):
            found = advantages(torch.tensor(values, dtype=dtype), g, rule, **chosen)
            assert found.dtype == dtype and found.isfinite().all()
    equal = advantages(torch.ones(8, dtype=dtype), 4, rule)
    if rule in COMPARING:
        assert (equal == 0).all() and (advantages(torch.ones(1, dtype=dtype), 1, rule) == 0).all()


COMPARING = sorted(set(ADVANTAGES) - {"reward", "positive", "negative", "signed", "weighted"})


def test_eight_rewards_of_a_tenth_weigh_nothing():
    rewards = torch.full((8,), 0.1)
    assert (rewards - rewards.mean()).abs().max() > 0  # the mean of equal numbers, rounded, is another number
    for rule in COMPARING:
        assert (advantages(rewards, 8, rule) == 0).all() and (advantages(rewards, 4, rule) == 0).all()


@settings(deadline=None)
@given(
    st.sampled_from(COMPARING),
    st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    st.integers(1, 40),
    st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=4),
    st.booleans(),
    st.booleans(),
)
def test_what_has_no_spread_weighs_exactly_nothing(rule, dtype, g, values, one_value, no_eps):
    """Groups of equal rewards; for the rule that looks at the batch alone, batches of them."""
    if one_value or rule == "batch_zscore":
        values = values[:1] * len(values)
    rewards = torch.tensor(values, dtype=dtype).repeat_interleave(g)
    options = {"eps": 0.0} if no_eps and (rule == "zscore" or "batch" in rule) else {}
    assert (advantages(rewards, g, rule, **options) == 0).all()


@settings(deadline=None)
@given(
    st.sampled_from([rule for rule in COMPARING if rule != "batch_zscore"]),
    st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    st.integers(2, 16),
    st.floats(-10, 10),
    st.lists(st.sampled_from([0.0, 0.1, 0.3, 1.0]), min_size=16, max_size=16),
)
def test_a_group_without_spread_weighs_nothing_beside_one_with(rule, dtype, g, value, others):
    rewards = torch.tensor([value] * g + others[:g], dtype=dtype)
    found = advantages(rewards, g, rule)
    assert (found[:g] == 0).all() and found.isfinite().all()
    groups = rewards.view(-1, g)
    silent = (groups == groups[:, :1]).all(1)  # what `frac_reward_zero_std` counts
    assert (found.view(-1, g)[silent] == 0).all()
    if rule != "group_balanced":
        assert (found.view(-1, g)[~silent] != 0).any(1).all()


def test_whole_numbers_and_verdicts_are_rewards_too():
    assert advantages(torch.tensor([True, False]), 2, "mean").tolist() == [0.5, -0.5]
    assert advantages(torch.tensor([1, 0]), 2, "mean").tolist() == [0.5, -0.5]


@pytest.mark.parametrize("bad", [torch.zeros(5), torch.zeros(2, 4)])
def test_rewards_must_fill_groups(bad):
    with pytest.raises(RlinoError, match="whole groups"):
        advantages(bad, 4)
    with pytest.raises(RlinoError, match="unknown advantage"):
        advantages(torch.zeros(4), 4, "no such rule")
    with pytest.raises(RlinoError, match="no option 'eps'"):
        advantages(torch.zeros(4), 4, "mean", eps=1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_rewards_must_be_finite(value):
    rewards = torch.tensor([0.0, 1.0, value, 0.0])
    with pytest.raises(RlinoError, match="reward of row 2"):
        advantages(rewards, 2)
    with pytest.raises(RlinoError, match="reward of row 2"):
        credit(
            OBJECTIVES["reinforce_pp"],
            Graded(rewards, 2, torch.zeros(4, 3).bool(), torch.zeros(4, 3), torch.zeros(4, 3)),
        )


# --- credit ----------------------------------------------------------------------------------------------------------


def responses(lengths, t=10):
    """A mask of given lengths, and log-probs of the sampler and the reference whose difference is 0.1 a token."""
    mask = torch.arange(t) < torch.tensor(lengths)[:, None]
    old = torch.full(mask.shape, -1.0, dtype=F64)
    return mask, torch.where(mask, old, math.nan), torch.where(mask, old - 0.1, math.nan)


def test_credit_without_extras_is_the_advantage():
    rewards, (mask, *_) = torch.tensor([1.0, 0, 0.1, 1, 0, 0], dtype=F64), responses([3, 5, 1, 2, 4, 10])
    for name in ("grpo", "dr_grpo", "gspo", "nsr", "f_isft_posneg"):
        found, keep = credit(OBJECTIVES[name], Graded(rewards, 3, mask))
        assert torch.equal(found, advantages(rewards, 3, OBJECTIVES[name].advantage)) and keep.all()
        assert keep.dtype == torch.bool and keep.shape == (6,)


def test_the_overlong_penalty_comes_before_the_rule():
    mask, *_ = responses([5, 8, 9, 10])
    rewards = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=F64)
    found, keep = credit(
        replace(OBJECTIVES["dapo"], advantage="mean"), Graded(rewards, 4, mask, max_response_length=10)
    )
    less = torch.tensor([1.0, 1.0, 0.5, -1.0], dtype=F64)  # the last fifth of 10 tokens: 8 costs 0, 9 half, 10 all
    assert torch.allclose(found, less - less.mean()) and keep.all()
    with pytest.raises(RlinoError, match="max_response_length"):
        credit(OBJECTIVES["dapo"], Graded(rewards, 4, mask))


def test_the_length_cost_is_in_proportion_and_adds_to_the_penalty():
    mask, *_ = responses([5, 8, 9, 10])
    rewards = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=F64)
    objective = Objective("o", advantage="mean", length_cost=0.2)
    found, keep = credit(objective, Graded(rewards, 4, mask, max_response_length=10))
    less = torch.tensor([0.9, 0.84, 0.82, -0.2], dtype=F64)
    assert torch.allclose(found, less - less.mean()) and keep.all()
    both, _ = credit(replace(objective, overlong=0.2), Graded(rewards, 4, mask, max_response_length=10))
    less -= torch.tensor([0, 0, 0.5, 1.0], dtype=F64)
    assert torch.allclose(both, less - less.mean())
    with pytest.raises(RlinoError, match="max_response_length"):
        credit(objective, Graded(rewards, 4, mask))


@pytest.mark.parametrize("rule", ["zscore", "mean", "group_balanced"])
def test_the_shortest_of_a_group_are_a_group_of_their_own(rule):
    mask, *_ = responses([5, 2, 9, 2, 7, 7, 7, 1])
    rewards = torch.tensor([1.0, 0, 1, 1, 0, 1, 1, 1], dtype=F64)
    found, keep = credit(Objective("o", advantage=rule, shortest=2), Graded(rewards, 4, mask))
    assert keep.tolist() == [False, True, False, True, True, False, False, True]  # of equal ones the first
    assert torch.equal(found[keep], advantages(rewards[keep], 2, rule)) and (found[~keep] == 0).all()
    whole, all_kept = credit(Objective("o", advantage=rule, shortest=4), Graded(rewards, 4, mask))
    assert torch.allclose(whole, advantages(rewards, 4, rule)) and all_kept.all()
    with pytest.raises(RlinoError, match="5 shortest of groups of 4"):
        credit(Objective("o", shortest=5), Graded(rewards, 4, mask))
    with pytest.raises(RlinoError, match="reward_to_go"):
        replace(OBJECTIVES["reinforce_pp"], shortest=2)


def test_whole_leaves_out_what_was_cut():
    mask, *_ = responses([10, 10, 3, 10])
    rewards, cut = torch.tensor([1.0, 0, 0, 0], dtype=F64), torch.tensor([False, True, False, False])
    found, keep = credit(Objective("o", filter="whole"), Graded(rewards, 4, mask, truncated=cut))
    assert keep.tolist() == [True, False, True, True]
    assert torch.equal(found, torch.where(keep, advantages(rewards, 4), 0))  # cut ones still count in the group's mean
    some, few = credit(Objective("o", filter="whole", shortest=3), Graded(rewards, 4, mask, truncated=cut))
    assert few.tolist() == [True, False, True, False] and some[3] == 0
    with pytest.raises(RlinoError, match="give truncated"):
        credit(Objective("o", filter="whole"), Graded(rewards, 4, mask))


def test_filters_judge_the_reward_as_graded_and_zero_what_they_drop():
    mask, *_ = responses([10] * 8)
    rewards = torch.tensor([1.0, 1, 0.1, 0, 1, 0, 0.1, 0.1], dtype=F64)  # all right, all wrong, mixed, all wrong
    kept = {
        "mixed": [0, 0, 0, 0, 1, 1, 0, 0],
        "some_right": [1, 1, 0, 0, 1, 1, 0, 0],
        "right": [1, 1, 0, 0, 1, 0, 0, 0],
    }
    for name, expected in kept.items():
        for rule in ("signed", "zscore"):
            objective = Objective("f", advantage=rule, filter=name, overlong=0.2)  # −1 on every row changes no verdict
            found, keep = credit(objective, Graded(rewards, 2, mask, max_response_length=10))
            assert keep.tolist() == [bool(k) for k in expected]
            assert (found[~keep] == 0).all()


def test_filters_judge_the_verdicts_where_the_reward_is_another():
    mask, *_ = responses([10] * 4)
    rewards = torch.tensor([0.5, 0.0, 0.9, 0.9], dtype=F64)  # a run's own, of one right response
    correct = torch.tensor([True, False, False, False])
    _, by_reward = credit(OBJECTIVES["raft"], Graded(rewards, 2, mask))
    _, by_verdict = credit(OBJECTIVES["raft"], Graded(rewards, 2, mask, correct=correct))
    assert by_reward.tolist() == [False, False, True, True] and by_verdict.tolist() == correct.tolist()


def test_kl_in_the_reward_of_a_response():
    mask, old, ref = responses([3, 5])
    rewards = torch.tensor([1.0, 0.0], dtype=F64)
    found, _ = credit(OBJECTIVES["rloo"], Graded(rewards, 2, mask, old, ref))
    gap = (1 - 0.05 * 0.3) - (0 - 0.05 * 0.5)
    assert found.tolist() == pytest.approx([gap, -gap], rel=1e-12)
    for missing in ((None, ref), (old, None)):
        with pytest.raises(RlinoError, match="old_logprobs and ref_logprobs"):
            credit(OBJECTIVES["rloo"], Graded(rewards, 2, mask, *missing))
    with pytest.raises(RlinoError, match="ref_logprobs is"):
        credit(OBJECTIVES["rloo"], Graded(rewards, 2, mask, old, ref[:, :3]))


def test_reward_to_go_is_a_credit_of_tokens():
    mask, old, ref = responses([3, 2], t=4)
    found, keep = credit(OBJECTIVES["reinforce_pp"], Graded(torch.tensor([1.0, 0.0], dtype=F64), 1, mask, old, ref))
    returns = [1 - 0.003, 1 - 0.002, 1 - 0.001, -0.002, -0.001]  # β · 0.1 for each token that is still to come
    flat = torch.tensor(returns, dtype=F64)
    assert found.shape == mask.shape and keep.all()
    assert torch.allclose(found[mask], (flat - flat.mean()) / (flat.std() + 1e-4), rtol=1e-12)
    assert (found[~mask] == 0).all()
    # Without the KL every token of a row has the same credit, and long rows weigh more in the mean.
    plain, _ = credit(replace(OBJECTIVES["reinforce_pp"], kl_in_reward=0.0), Graded(torch.tensor([1.0, 0.0]), 1, mask))
    assert plain[0, :3].unique().numel() == 1 and plain[0, 0] * 3 == pytest.approx(-plain[1, 0].item() * 2, rel=1e-5)


def test_a_batch_whose_groups_are_all_dropped_has_no_credit():
    mask, *_ = responses([3, 3])
    for name in ("dapo", "reinforce_rej", "raft"):
        found, keep = credit(OBJECTIVES[name], Graded(torch.zeros(2), 2, mask, max_response_length=10))
        assert not keep.any() and not found.any()


def test_which_rows_need_a_reference():
    needy = {name for name, o in OBJECTIVES.items() if o.needs_reference}
    assert needy == {"grpo", "rloo", "reinforce_pp", "reinforce_pp_baseline", "vineppo"}


def test_best_marks_one_response_of_each_group_that_differs():
    rewards = torch.tensor([-3.0, -1.0, -2.0, -1.0, 5.0, 5.0, 5.0, 5.0])
    assert advantages(rewards, 4, "best").tolist() == [0, 1, 0, 0, 0, 0, 0, 0]
