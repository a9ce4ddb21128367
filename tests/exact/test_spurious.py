"""Random rewards on a policy of two responses: every batch is counted once, and what the clip can and cannot do."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from rlino_lib.errors import RlinoError
from rlino_lib.exact.spurious import coin_batches, mean_steps
from rlino_lib.methods.advantages import advantages
from rlino_lib.methods.catalogue import OBJECTIVES

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
