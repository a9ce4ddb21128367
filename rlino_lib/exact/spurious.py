"""What random rewards do to a policy: of two responses exactly, of more by simulation (chapter 11; 2506.10947).

G responses to one prompt are the prior's favourite, with chance p, or the other one. Each is rewarded by a fair coin,
so advantages mean nothing. All batches are enumerated: k favourites, of which a are rewarded, and b of the others. At
the first update of a batch every ratio is 1 and the logit stays in the mean. Later ones meet the clip, and their own
steps. Whole trainings are more than can be enumerated: `coin_trainings` draws them, many side by side.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlino_lib.errors import RlinoError
from rlino_lib.methods.advantages import advantages
from rlino_lib.methods.objective import Objective
from rlino_lib.methods.terms import SURROGATES

F64 = torch.float64
ACTIONS, GROUP = 8, 16  # of `coin_trainings`


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


def coin_trainings(
    objectives: Mapping[str, Objective],
    top: float,
    updates: Iterable[int],
    steps: int = 400,
    repeats: int = 400,
    lr: float = 0.1,
    seed: int = 0,
) -> pd.DataFrame:
    """Trainings on random rewards of one softmax over ACTIONS actions, GROUP responses a batch, `repeats` side by side.

    At the start the top action has chance `top` and the others share the rest. Each batch is drawn anew, rewarded by
    fair coins, and gives so many `updates` of SGD on the objective's surrogate, a mean over responses. One row per
    objective (its key), number of updates and step, from 0 in tenths of the training: `top`, the mean chance of the top
    action; `logit`, the mean of its logit less the others' mean, less what it was at the start; `entropy` (nats); and
    the standard error of each over repeats, `top_se`, `logit_se`, `entropy_se`. At one update the mean logit stays
    where it is, and the mean chance moves by O(lr²) a step, as a curve of the logits. Raises RlinoError for a chance
    outside (0, 1), and for less than two trainings, which have no standard error.
    """
    if repeats < 2:
        raise RlinoError(f"a standard error needs two trainings or more, not {repeats}")
    if not 0 < top < 1:
        raise RlinoError(f"the top action's chance must lie between 0 and 1, not {top}")
    start = torch.full((ACTIONS,), (1 - top) / (ACTIONS - 1), dtype=F64).index_fill(0, torch.tensor(0), top).log()
    rows = []
    for (name, objective), count in itertools.product(objectives.items(), updates):
        draws = torch.Generator().manual_seed(seed)
        logits = start.repeat(repeats, 1)  # [R, K]
        for step in range(steps + 1):
            if step % max(steps // 10, 1) == 0 or step == steps:
                rows.append((name, count, step, *_summary(logits, start)))
            if step < steps:
                logits = _coin_batch(objective, logits, count, lr, draws)
    columns = [f"{column}{end}" for column in ("top", "logit", "entropy") for end in ("", "_se")]
    return pd.DataFrame(rows, columns=["objective", "updates", "step", *columns])


def _coin_batch(objective: Objective, logits: Tensor, updates: int, lr: float, draws: torch.Generator) -> Tensor:
    """The logits [R, K] of each training after one batch of its own."""
    actions = torch.multinomial(logits.softmax(-1), GROUP, replacement=True, generator=draws)  # [R, G]
    coins = torch.randint(2, actions.shape, generator=draws).to(F64)  # [R, G]
    credit = advantages(coins.flatten(), GROUP).reshape(coins.shape)  # [R, G]
    old = logits.log_softmax(-1).gather(1, actions)  # [R, G]
    for _ in range(updates):
        at = logits.detach().requires_grad_()  # [R, K]
        logprobs = at.log_softmax(-1).gather(1, actions)  # [R, G]
        gain, _ = SURROGATES[objective.surrogate].of(objective, (logprobs - old).exp(), logprobs, credit)  # [R, G]
        logits = logits + lr * torch.autograd.grad(gain.mean(1).sum(), at)[0]
    return logits


def _summary(logits: Tensor, start: Tensor) -> list[float]:
    """The columns of `coin_trainings`: means over repeats and their standard errors."""
    above = logits[:, 0] - logits[:, 1:].mean(1) - (start[0] - start[1])  # [R]
    probs = logits.softmax(-1)  # [R, K]
    entropy = -(probs * logits.log_softmax(-1)).sum(1)  # [R]
    columns = torch.stack([probs[:, 0], above, entropy])  # [3, R]
    errors = columns.std(1) / math.sqrt(len(logits))  # [3]
    return torch.stack([columns.mean(1), errors], 1).flatten().tolist()


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
