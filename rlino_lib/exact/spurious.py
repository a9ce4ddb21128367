"""What a batch of random rewards does to a policy of two responses, exactly (chapter 11; 2506.10947 has the question).

G responses to one prompt are the prior's favourite, with chance p, or the other one. Each is rewarded by a fair coin,
so advantages mean nothing. All batches are enumerated: k favourites, of which a are rewarded, and b of the others. At
the first update of a batch every ratio is 1 and the logit stays in the mean. Later ones meet the clip, and their own
steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlino_lib.errors import RlinoError
from rlino_lib.methods.advantages import advantages
from rlino_lib.methods.objective import Objective
from rlino_lib.methods.terms import SURROGATES

F64 = torch.float64


def coin_batches(group_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """All batches of G responses up to their order: counts, advantages, log-weights.

    counts [M, 4] of rewarded and unrewarded favourites, rewarded and unrewarded others; advantages [M, 4] of each kind
    by GRPO's rule; the logarithm of how many draws of responses and coins give a batch, each coin at 1/2, [M]. float64.
    """
    rows = [
        (a, k - a, b, group_size - k - b)
        for k in range(group_size + 1)
        for a in range(k + 1)
        for b in range(group_size - k + 1)
    ]
    counts = torch.tensor(rows, dtype=F64)  # [M, 4]
    rewards = torch.tensor([[1.0] * int(a + b) + [0.0] * int(c + d) for a, c, b, d in rows], dtype=F64)  # [M, G]
    by_row = advantages(rewards.flatten(), group_size).reshape(rewards.shape)  # [M, G], the rewarded first
    kinds = torch.stack([by_row[:, 0], by_row[:, -1]] * 2, 1)  # [M, 4]; of an empty kind the number does not count
    ways = torch.lgamma(torch.tensor(group_size + 1.0, dtype=F64)) - torch.lgamma(counts + 1).sum(1)
    return counts, kinds, ways - group_size * math.log(2)


def mean_steps(
    objective: Objective, p: Iterable[float], updates: Iterable[int], lr: float = 0.1, group_size: int = 16
) -> pd.DataFrame:
    """By how much a batch of coin flips moves the favourite's chance on average, for each p and number of updates.

    The policy is one logit θ, p = σ(θ), moved `updates` times by `lr` times the gradient of the objective's surrogate
    with a mean over responses, as SGD does. Columns: `p`, `updates`, `step` (the mean of p after the batch, less p),
    `entropy` (the same of the entropy, nats). Raises RlinoError for a chance outside (0, 1).
    """
    counts, credit, log_ways = coin_batches(group_size)
    favourites = counts[:, :2].sum(1)  # [M]
    rows = []
    for chance in p:
        if not 0 < chance < 1:
            raise RlinoError(f"the favourite's chance must lie between 0 and 1, not {chance}")
        log_odds = math.log(chance / (1 - chance))
        start = torch.full_like(favourites, log_odds)  # [M]
        weight = (log_ways + favourites * math.log(chance) + (group_size - favourites) * math.log1p(-chance)).exp()
        theta, done = start, 0
        for n in sorted(updates):
            for _ in range(n - done):
                theta = theta + lr * _gradient(objective, theta, start, counts, credit)  # [M]
            done = n
            moved = (weight * (theta.sigmoid() - chance)).sum().item()
            narrowed = (weight * (_entropy(theta) - _entropy(start))).sum().item()
            rows.append((chance, n, moved, narrowed))
    return pd.DataFrame(rows, columns=["p", "updates", "step", "entropy"])


def _gradient(objective: Objective, theta: Tensor, start: Tensor, counts: Tensor, credit: Tensor) -> Tensor:
    """The gradient of the surrogate's mean over the responses of each batch in its logit, [M]."""
    at = theta.detach().requires_grad_()  # [M]
    logprobs, old = (_logprobs(x) for x in (at, start))  # [M, 4]
    gain, _ = SURROGATES[objective.surrogate].of(objective, (logprobs - old).exp(), logprobs, credit)  # [M, 4]
    mean = (gain * counts).sum(1) / counts.sum(1)  # [M]
    return torch.autograd.grad(mean.sum(), at)[0]


def _logprobs(theta: Tensor) -> Tensor:
    """Log-probs of the four kinds of responses, [M, 4], of logits [M]."""
    favourite, other = logsigmoid(theta), logsigmoid(-theta)  # [M]
    return torch.stack([favourite, favourite, other, other], 1)


def _entropy(theta: Tensor) -> Tensor:
    """Entropy [M] of the two responses, nats."""
    return -(theta.sigmoid() * logsigmoid(theta) + (-theta).sigmoid() * logsigmoid(-theta))
