"""Advantages and losses: golden values, closed forms, and the weights that `token_weights` shows."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlino_lib.errors import RlinoError
from rlino_lib.objectives import (
    ADVANTAGES,
    NORMALISERS,
    OBJECTIVES,
    Objective,
    advantages,
    micro_share,
    policy_loss,
    token_weights,
)

F64 = torch.float64


def fixture():
    """The golden fixture of four rows: old, new and reference log-probs, mask, rewards."""
    i, t = torch.arange(4, dtype=F64)[:, None], torch.arange(6, dtype=F64)[None]
    old = -0.5 - 0.1 * i - 0.05 * t
    new = old + 0.3 * torch.sin(1 + i + 2 * t)
    ref = old - 0.2 * torch.cos(i + t)
    mask = t < torch.tensor([6, 3, 5, 2])[:, None]
    return old, new, ref, mask, torch.tensor([1.0, 0, 0, 1], dtype=F64)


GOLDEN = [
    ("zscore", "per_response", 0.0, 0.02686765),
    ("zscore", "token_mean", 0.0, 0.00789630),
    ("zscore", "constant", 0.0, 0.00394815),
    ("zscore", "per_response", 0.04, 0.02872965),
    ("zscore", "token_mean", 0.04, 0.00955705),
    ("zscore", "constant", 0.04, 0.00477853),
    ("mean", "per_response", 0.0, 0.01551473),
    ("mean", "token_mean", 0.0, 0.00455972),
    ("mean", "constant", 0.0, 0.00227986),
    ("mean", "per_response", 0.04, 0.01737674),
    ("mean", "token_mean", 0.04, 0.00622047),
    ("mean", "constant", 0.04, 0.00311024),
]


@pytest.mark.parametrize("rule, normaliser, beta, expected", GOLDEN)
def test_golden_losses(rule, normaliser, beta, expected):
    old, new, ref, mask, rewards = fixture()
    objective = Objective("golden", advantage=rule, normaliser=normaliser, beta=beta, clip_low=0.2, clip_high=0.28)
    found = policy_loss(objective, new, old, ref, advantages(rewards, 4, rule), mask, 8)
    assert found.loss.item() == pytest.approx(expected, abs=5e-9)
    if beta:
        assert found.metrics["kl"] == pytest.approx(0.04151879, abs=5e-9)


def test_golden_advantages():
    rewards = fixture()[-1]
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


groups = st.integers(1, 6).flatmap(
    lambda g: st.tuples(st.just(g), st.lists(st.sampled_from([0.0, 0.1, 1.0]), min_size=g, max_size=5 * g))
)


@settings(deadline=None)
@given(groups, st.sampled_from(sorted(ADVANTAGES)))
def test_advantages_act_within_groups(drawn, rule):
    g, values = drawn
    values = values[: len(values) // g * g]
    if rule == "leave_one_out" and g == 1:
        return
    rewards = torch.tensor(values, dtype=F64)
    found = advantages(rewards, g, rule)
    assert found.shape == rewards.shape and found.dtype == F64 and found.isfinite().all()
    for start in range(0, len(values), g):
        alone = advantages(rewards[start : start + g], g, rule)
        assert torch.allclose(found[start : start + g], alone, rtol=0, atol=1e-12)
    if rule in ("zscore", "mean", "leave_one_out", "group_balanced"):
        sums = found.view(-1, g).sum(1)
        assert torch.allclose(sums, torch.zeros_like(sums), atol=1e-9)


def test_balanced_sides_sum_to_one():
    found = advantages(torch.tensor([1.0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0], dtype=F64), 4, "group_balanced")
    assert found.tolist() == pytest.approx([1, -1 / 3, -1 / 3, -1 / 3] + [0] * 8)


@pytest.mark.parametrize("bad", [torch.zeros(5), torch.zeros(2, 4)])
def test_rewards_must_fill_groups(bad):
    with pytest.raises(RlinoError, match="whole groups"):
        advantages(bad, 4)
    with pytest.raises(RlinoError, match="unknown advantage"):
        advantages(torch.zeros(4), 4, "no such rule")


def test_the_logged_loss_is_zero_and_the_gradient_is_not():
    old, _, _, mask, rewards = fixture()
    new = old.clone().requires_grad_()
    found = policy_loss(OBJECTIVES["grpo_no_kl"], new, old, None, advantages(rewards, 4), mask)
    found.loss.backward()
    assert abs(found.loss.item()) < 1e-12
    assert new.grad.abs().max() > 0.01


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_token_weights_are_the_gradient_at_ratio_one(name, normaliser):
    old, _, _, mask, rewards = fixture()
    objective = replace(OBJECTIVES[name], normaliser=normaliser)
    adv = advantages(rewards, 4, objective.advantage)
    new = old.clone().requires_grad_()
    # At the reference itself k3 has no gradient, so β may stay.
    policy_loss(objective, new, old, old, adv, mask, 8).loss.backward()
    weights = token_weights(objective, adv, mask, 8)
    assert torch.allclose(weights, -new.grad, rtol=1e-12, atol=1e-15)
    assert (weights[~mask] == 0).all()
    norm = {"per_response": mask.sum(1, keepdim=True) * 4, "token_mean": mask.sum(), "constant": torch.tensor(32)}
    assert torch.allclose(weights, adv[:, None] * mask / norm[normaliser], rtol=1e-12)


@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_micro_batches_add_up(normaliser):
    old, new, ref, mask, rewards = fixture()
    objective = Objective("m", normaliser=normaliser, beta=0.04)
    adv = advantages(rewards, 4)
    whole = policy_loss(objective, new, old, ref, adv, mask, 8).loss
    parts = 0.0
    for rows in ([0, 3], [1], [2]):
        loss = policy_loss(objective, new[rows], old[rows], ref[rows], adv[rows], mask[rows], 8).loss
        parts += loss * micro_share(objective, mask[rows], 4, int(mask.sum()))
    assert parts.item() == pytest.approx(whole.item(), rel=1e-12)


def test_clipping_stops_the_gradient_on_the_far_side_alone():
    objective = OBJECTIVES["grpo_no_kl"]
    for ratio, adv, moves in [(1.5, 1.0, False), (1.5, -1.0, True), (0.5, 1.0, True), (0.5, -1.0, False)]:
        new = torch.tensor([[math.log(ratio)]], dtype=F64, requires_grad=True)
        old = torch.zeros(1, 1, dtype=F64)
        loss = policy_loss(objective, new, old, None, torch.tensor([adv], dtype=F64), torch.ones(1, 1).bool())
        loss.loss.backward()
        assert (new.grad.abs().item() > 0) == moves, (ratio, adv)
        assert loss.metrics["clip_ratio"] == (0.0 if moves else 1.0)


def test_masked_entries_may_hold_anything():
    old, new, ref, mask, rewards = fixture()
    dirty = [torch.where(mask, x, torch.tensor(float("nan"), dtype=F64)) for x in (new, old, ref)]
    adv = advantages(rewards, 4)
    clean = policy_loss(OBJECTIVES["grpo"], new, old, ref, adv, mask).loss
    leaf = dirty[0].requires_grad_()
    found = policy_loss(OBJECTIVES["grpo"], leaf, dirty[1], dirty[2], adv, mask).loss
    found.backward()
    assert found.item() == pytest.approx(clean.item(), rel=1e-12)
    assert leaf.grad.isfinite().all()


def test_empty_responses_and_far_ratios_stay_finite():
    mask = torch.tensor([[True, True], [False, False]])
    new = torch.tensor([[0.0, -200.0], [0.0, 0.0]], requires_grad=True)
    old = torch.tensor([[-100.0, 0.0], [0.0, 0.0]])
    for name in OBJECTIVES:
        loss = policy_loss(OBJECTIVES[name], new, old, old, torch.tensor([1.0, -1.0]), mask).loss
        loss.backward()
        assert loss.isfinite() and new.grad.isfinite().all()


def test_missing_parts_are_named():
    old, new, ref, mask, rewards = fixture()
    adv = advantages(rewards, 4)
    for objective, args, words in [
        (OBJECTIVES["grpo"], (new, old, None, adv, mask), "reference"),
        (Objective("c", normaliser="constant"), (new, old, ref, adv, mask), "max_response_length"),
        (OBJECTIVES["grpo"], (new, old[:2], ref, adv, mask), "old_logprobs"),
        (OBJECTIVES["grpo"], (new, old, ref, adv[:2], mask), "advantages"),
    ]:
        with pytest.raises(RlinoError, match=words):
            policy_loss(objective, *args)
    with pytest.raises(RlinoError, match="not one of"):
        Objective("x", normaliser="no such")


def test_every_objective_prints_as_its_formula():
    text = repr(OBJECTIVES["grpo"])
    assert "min(ρ_it Â_i, clip(ρ_it, 0.8, 1.2) Â_i)" in text and "0.04 k3_it" in text and "1/|o_i|" in text
    assert "k3" not in repr(OBJECTIVES["grpo_no_kl"])
    assert "log π" in repr(OBJECTIVES["f_isft_pos"])
    assert len({repr(o) for o in OBJECTIVES.values()}) == len(OBJECTIVES)
