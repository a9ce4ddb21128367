"""The values that credit by tokens needs, of a batch of a run: where each of them comes from (chapter 10)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlino_lib.errors import RlinoError
from rlino_lib.evaluation.values import cut_places, rollout_values, step_ends
from rlino_lib.methods.credit import Graded, credit
from rlino_lib.methods.objective import Objective
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.training.checks import check_values

LIKELY, EVERY = 0.9, 5  # SPO-chain cuts before every fifth token that was less likely (2505.23564, its code)


class BatchValues(NamedTuple):
    """Values of a batch, as `methods.credit.Graded` takes them, and what sampling them took."""

    values: Tensor  # [N, T] float32, V of the state in which a token's step begins
    steps: Tensor | None  # [N, T] int64, the number of its step; None: each token is one
    sampled: int  # tokens


def continuation_values(trainer: Any, rollouts: Rollouts) -> BatchValues:
    """Each step's start valued by K fresh continuations, equal starts once (VinePPO 2410.01679 §4).

    One that reaches the cap counts as it is graded, which is wrong where it has no answer.
    """
    c, o = trainer.config, trainer.objective
    ends = unlikely_ends(trainer, rollouts) if o.cuts == "unlikely" else step_ends(trainer.task, rollouts)
    seed = (c.seed * 1_000_003 + trainer.step_done + 1) ^ 2**40  # draws of their own, as those of the batch by the step
    table = rollout_values(trainer.policy, trainer.task, rollouts, ends, o.value_samples, seed, **c.sampling)
    rows = table[["response", "tokens", "value"]].itertuples(index=False)
    sampled = table.drop_duplicates(["problem", "prefix"])["sampled"].sum()
    return BatchValues(*_spread(rollouts, rows), int(sampled))


def exact_values(trainer: Any, rollouts: Rollouts) -> BatchValues:
    """The exact values of the task's own state."""
    valued = [dict(trainer.task.exact_values(*row)) for row in rollouts.rows()]  # of each response, by end
    places = cut_places(trainer.policy, rollouts, [list(values) for values in valued])
    rows = [
        (i, cut[1], value)
        for i, cuts in enumerate(places)
        for cut, value in zip(cuts, valued[i].values(), strict=True)
        if cut
    ]
    return BatchValues(*_spread(rollouts, rows), 0)


def critic_values(trainer: Any, rollouts: Rollouts) -> BatchValues:
    """What the critic says before each token; raises RlinoError without a critic."""
    if trainer.critic is None:
        raise RlinoError(f"{trainer.objective.name} reads a critic, and {trainer.config.method} trains none")
    return BatchValues(trainer.critic_values(rollouts), None, 0)


VALUES: dict[str, Callable[[Any, Rollouts], BatchValues]] = {
    "continuations": continuation_values,
    "critic": critic_values,
    "exact": exact_values,
}


def credited(trainer: Any, rollouts: Rollouts, objective: Objective) -> tuple[Tensor, BatchValues | None]:
    """The advantages [N] or [N, T] of rollouts by another objective, and the values that it read, if any.

    The policy and the critic are the trainer's.
    """
    other = copy.copy(trainer)
    other.objective = objective
    read = VALUES[objective.values](other, rollouts) if objective.values else None
    graded = Graded(rollouts.rewards, rollouts.group_size, rollouts.mask, rollouts.logprobs)
    if read:
        graded = replace(graded, values=read.values, steps=read.steps)
    return credit(objective, graded).advantages, read


def explained(trainer: Any, rollouts: Rollouts, objectives: Mapping[str, Objective]) -> list[dict[str, Any]]:
    """The credit of each token by several objectives, by name, as `widgets.credit_explorer` takes responses.

    Raises RlinoError where the trainer lacks what an objective reads: a critic, values of its task's steps.
    """
    decode = trainer.policy.tokenizer.decode
    credits: dict[str, Tensor] = {}  # [N, T] each, as are the values
    values: dict[str, Tensor] = {}
    for name, objective in objectives.items():
        check_values(trainer.config, objective, trainer.task)
        advantages, read = credited(trainer, rollouts, objective)  # [N] or [N, T]
        if read:
            values[name] = read.values
        credits[name] = advantages if advantages.ndim == 2 else advantages[:, None] * rollouts.mask
    return [
        {
            "prompt": rollouts.prompts[i // rollouts.group_size],
            "tokens": [decode([t]) for t in rollouts.ids[i][written].tolist()],
            "reward": grade.reward,
            "correct": grade.correct,
            "foreign": (~rollouts.mask[i][written]).int().tolist(),  # |o|
            "credits": {name: _numbers(rows[i], rollouts.mask[i], written) for name, rows in credits.items()},
            "values": {name: _numbers(rows[i], rollouts.mask[i], written) for name, rows in values.items()},
        }
        for i, (grade, written) in enumerate(zip(rollouts.grades, rollouts.written, strict=True))
    ]


def _numbers(row: Tensor, mask: Tensor, written: Tensor) -> list[float | None]:
    """A number for each token of a response [T], None for those that the policy did not write."""
    own = mask[written].tolist()  # |o|
    return [x if counts else None for x, counts in zip(row[written].tolist(), own, strict=True)]


def unlikely_ends(trainer: Any, rollouts: Rollouts) -> list[list[int]]:
    """Where each response is cut by SPO-chain's rule, in characters: its own start, and the unlikely tokens."""
    decode = trainer.policy.tokenizer.decode
    ends = []
    for ids, mask, logprobs in zip(rollouts.ids, rollouts.mask, rollouts.logprobs, strict=True):
        unlikely = (mask & (logprobs.exp() < LIKELY)).nonzero()[:, 0].tolist()
        places = [int(mask.int().argmax()), *unlikely[EVERY - 1 :: EVERY]]
        ends.append([len(decode(ids[:place], skip_special_tokens=True)) for place in dict.fromkeys(places)])
    return ends


def _spread(rollouts: Rollouts, rows: Any) -> tuple[Tensor, Tensor]:
    """Values and numbers of steps [N, T] from rows of (response, tokens before the step, value), in order."""
    values = torch.zeros(rollouts.mask.shape)  # [N, T]
    steps = torch.zeros(rollouts.mask.shape, dtype=torch.long)  # [N, T]
    for i, place, value in rows:
        values[i, place:] = value
        steps[i, place:] += 1
    return values, steps
