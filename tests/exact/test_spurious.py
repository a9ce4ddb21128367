"""Random rewards: every batch of two responses is counted once, and what the clip can and cannot do."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from rlino_lib.errors import RlinoError
from rlino_lib.exact.spurious import coin_batches, coin_trainings, mean_steps
from rlino_lib.methods.advantages import advantages
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.methods.loss import Batch, policy_loss

CLIPPED, UNCLIPPED = OBJECTIVES["grpo_no_kl"], OBJECTIVES["grpo_no_clip"]


def test_all_batches_are_counted():
    for group_size in (2, 5, 16):
        counts, credit, log_ways = coin_batches(group_size)
        assert (counts.sum(1) == group_size).all() and len(counts) == math.comb(group_size + 3, 3)
        assert (log_ways.exp() * 2.0**-group_size).sum().item() == pytest.approx(1, abs=1e-12)  # at p = 1/2
        torch.testing.assert_close((counts * credit).sum(1), torch.zeros(len(counts), dtype=torch.float64))


def test_one_batch_by_enumeration():
    """Groups of three: the mean step after two updates, over all 8 × 8 draws of responses and coins one by one."""
    p, lr, mean = 0.8, 0.5, 0.0
    for drawn, coins in itertools.product(itertools.product([1, 0], repeat=3), repeat=2):
        credit = advantages(torch.tensor(coins, dtype=torch.float64), 3)  # [3]
        first = torch.tensor(drawn, dtype=torch.float64)  # [3]
        start = theta = torch.tensor(math.log(p / (1 - p)), dtype=torch.float64)
        for _ in range(2):
            at = theta.detach().requires_grad_()
            old, new = (first * x.sigmoid() + (1 - first) * (-x).sigmoid() for x in (start, at))  # [3]
            ratio = new / old
            gain = torch.minimum(ratio * credit, ratio.clamp(0.8, 1.2) * credit).mean()
            theta = theta + lr * torch.autograd.grad(gain, at)[0]
        chance = math.prod(p if x else 1 - p for x in drawn) / 8
        mean += chance * (theta.sigmoid().item() - p)
    (found,) = mean_steps(CLIPPED, [p], [2], lr, 3)["step"]
    assert found == pytest.approx(mean, abs=1e-12)


def test_one_update_is_a_fair_game_in_the_logit():
    """The mean logit stays where it is, with or without a clip; at p = 1/2 so does the mean chance."""
    for objective in (CLIPPED, UNCLIPPED):
        assert mean_steps(objective, [0.5], [1, 4, 16])["step"].abs().max() < 1e-15
    one, other = (mean_steps(o, [0.6, 0.9], [1]) for o in (CLIPPED, UNCLIPPED))
    assert one.equals(other) and one["step"].abs().max() < 1e-3


def test_the_clip_only_undoes_drift():
    """Without it the favourite loses, with it it loses less, and it never gains."""
    chances, updates = [0.6, 0.75, 0.9], [4, 16]
    loose, tight = (mean_steps(o, chances, updates)["step"] for o in (UNCLIPPED, CLIPPED))
    assert (loose < 0).all() and (tight < 0).all() and (tight >= loose).all()
    never = replace(CLIPPED, clip_low=1.0, clip_high=1e9)
    assert mean_steps(never, chances, updates)["step"].equals(loose)


def test_a_chance_that_is_none():
    with pytest.raises(RlinoError, match="between 0 and 1"):
        mean_steps(CLIPPED, [1.0], [1])
    with pytest.raises(RlinoError, match="between 0 and 1"):
        coin_trainings(BOTH, 0.0, [1])
    with pytest.raises(RlinoError, match="two trainings"):
        coin_trainings(BOTH, 0.5, [1], repeats=1)


BOTH = {"clip": CLIPPED, "no clip": UNCLIPPED}


def at_the_end(top, updates, **settings):
    table = coin_trainings(BOTH, top, [updates], **settings)
    return table[table["step"] == table["step"].max()].set_index("objective")


@pytest.mark.parametrize("top", [0.6, 0.9])
def test_a_training_of_single_updates_stays_where_it_is(top):
    """With a clip or not: the logit's mean is its start's, but for the draws; the chance moves by O(lr²)."""
    last = at_the_end(top, 1, steps=200)
    assert last.loc["clip"].equals(last.loc["no clip"])
    row = last.loc["clip"]
    assert abs(row["logit"]) < 3 * row["logit_se"] < 0.05
    assert abs(row["top"] - top) < 3 * row["top_se"] + 200 * 0.1**2 / 16 / 8  # |½ tr(p'' Cov)| < lr²/(8G) a step


def test_many_updates_leave_the_prior_and_the_clip_keeps_some_of_it():
    last = at_the_end(0.9, 16, steps=100, repeats=200)
    clip, loose = last.loc["clip"], last.loc["no clip"]
    apart = 3 * math.hypot(clip["top_se"], loose["top_se"])
    assert loose["top"] + apart < clip["top"] < 0.9 - 3 * clip["top_se"]


def test_a_batch_of_a_training_is_the_gradient_of_the_policys_own_loss():
    """Two trainings, one batch of two updates: the logits by `policy_loss`, drawn by the same generator."""
    draws = torch.Generator().manual_seed(5)
    start = torch.tensor([0.6] + [0.4 / 7] * 7, dtype=torch.float64).log()
    drawn = torch.multinomial(start.exp().repeat(2, 1), 16, replacement=True, generator=draws)  # [2, 16]
    coins = torch.randint(2, (2, 16), generator=draws).double()  # [2, 16]
    ends = []
    for actions, rewards in zip(drawn, coins, strict=True):
        old, logits = start[actions], start
        for _ in range(2):
            at = logits.detach().requires_grad_()
            logprobs = at.log_softmax(-1)[actions][:, None]  # [16, 1]
            batch = Batch(logprobs, advantages(rewards, 16), torch.ones(16, 1), old_logprobs=old[:, None])
            logits = logits - 0.1 * torch.autograd.grad(policy_loss(CLIPPED, batch).loss, at)[0]
        ends.append(logits.softmax(-1)[0].item())
    table = coin_trainings({"clip": CLIPPED}, 0.6, [2], steps=1, repeats=2, seed=5)
    assert table["top"].tolist() == pytest.approx([0.6, sum(ends) / 2], abs=1e-12)
