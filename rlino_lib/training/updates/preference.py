"""The update on preferences: pairs of a batch, and weights that each update reads anew (chapter 11).

A loss of log-ratios is a likelihood with weights: those of its first step are the same for every pair, later ones
depend on how far the policy has moved since it wrote the batch.
"""

import random
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rlino_lib.methods.credit import Graded
from rlino_lib.methods.objective import Objective
from rlino_lib.methods.preference import PREFERENCES, Preferred, pairs, response_weights
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.training.micro_batches import Limit, update_rows
from rlino_lib.training.traces import policy_weighting
from rlino_lib.training.updates.policy_gradient import graded_rows, row_gradients


@dataclass(frozen=True)
class _Round:
    """A batch under the policy that wrote it, for KTO beside one whose responses belong to the prompts before."""

    rollouts: Rollouts
    logprobs: Tensor  # [N, T]
    others: Rollouts | None = None
    other_logprobs: Tensor | None = None  # [N, T]


def preference(trainer: Any, rollouts: Rollouts, rng: random.Random) -> dict[str, Tensor]:
    """The updates of a batch, each on some of its pairs, or on some of its responses where the loss has no pairs.

    Returns the weights of the first of them, times N.
    """
    c, o = trainer.config, trainer.objective
    paired = PREFERENCES[o.preference].paired
    preferred = _preferred(o, rollouts, rng)
    start = _round(trainer, rollouts, paired)
    graded = graded_rows(c, rollouts, None, None)
    trainer.measured["pairs"] = len(preferred.chosen)
    units = range(len(preferred.chosen)) if paired else range(len(rollouts.ids))
    for some in update_rows(list(units), c.epochs, c.minibatches, rng):
        part = _part(preferred, some, paired)
        if len(part.chosen) + len(part.rejected):
            trainer.update(rollouts, partial(_gradients, trainer, start, graded, part))
    n = len(rollouts.ids)
    weights = torch.zeros(n)  # [N]
    if len(preferred.chosen) + len(preferred.rejected):
        weights = n * response_weights(o.preference, weights, rollouts.lengths, preferred, o.preference_beta)
    return policy_weighting(o, weights, torch.ones(n, dtype=torch.bool), rollouts.mask, c.max_new_tokens)


def _preferred(o: Objective, rollouts: Rollouts, rng: random.Random) -> Preferred:
    """The pairs of a batch, or all that is right and all that is wrong."""
    right = rollouts.correct  # [N]
    if not PREFERENCES[o.preference or ""].paired:
        return Preferred(right.nonzero()[:, 0], (~right).nonzero()[:, 0])
    well_formed = [grade.format_ok for grade in rollouts.grades]
    facts = right.tolist(), well_formed, rollouts.truncated.tolist(), rollouts.lengths.tolist()
    return pairs(*facts, rollouts.group_size, o.pairing, rng)


def _part(preferred: Preferred, units: Tensor, paired: bool) -> Preferred:
    """The preferences of an update: pairs by their numbers [M], or responses by their rows [M]."""
    if paired:
        return Preferred(preferred.chosen[units], preferred.rejected[units])
    return Preferred(*(rows[torch.isin(rows, units)] for rows in (preferred.chosen, preferred.rejected)))


def _round(trainer: Any, rollouts: Rollouts, paired: bool) -> _Round:
    exact = trainer.config.precision == "fp32"  # in half precision sampling rounds otherwise
    logprobs = rollouts.logprobs if exact else trainer.all_logprobs(rollouts)  # [N, T]
    if paired:
        return _Round(rollouts, logprobs)
    parts = {name: getattr(rollouts, name).roll(rollouts.group_size, 0) for name in ("ids", "mask", "written")}
    others = replace(rollouts, **parts)
    return _Round(rollouts, logprobs, others, trainer.all_logprobs(others))


def _gradients(
    trainer: Any, start: _Round, graded: Graded, preferred: Preferred, limit: Limit
) -> list[tuple[dict[str, float], float]]:
    """Backward passes over the rows of some preferences, weighed by the policy as it is."""
    o = trainer.objective
    rows = torch.cat([preferred.chosen, preferred.rejected]).unique()  # [M]
    rollouts = start.rollouts
    ratios = torch.zeros(len(rollouts.ids))  # [N]
    ratios[rows] = _log_ratios(trainer, rollouts, start.logprobs, rows, limit)
    z0 = 0.0
    if start.others is not None:
        z0 = max(_log_ratios(trainer, start.others, start.other_logprobs, rows, limit).mean().item(), 0.0)
    weights = response_weights(o.preference, ratios, rollouts.lengths, preferred, o.preference_beta, z0)  # [N]
    for name, side in (("chosen", preferred.chosen), ("rejected", preferred.rejected)):
        trainer.measured[f"log_ratio/{name}"] = ratios[side].mean().item() if len(side) else None
    return row_gradients(trainer, rollouts, graded, len(rows) * weights, rollouts.mask, rows, limit)


def _log_ratios(trainer: Any, rollouts: Rollouts, old: Tensor, rows: Tensor, limit: Limit) -> Tensor:
    """Δ = Σ_t log(π/π_old) of some rows [M] under the policy as it is, [M], without gradient."""
    new = trainer.of_rows(lambda *given: trainer.row_logprobs(trainer.model, *given)[0], rollouts, rows, limit)
    return ((new - old) * rollouts.mask).sum(1)[rows]
