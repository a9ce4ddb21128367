"""How much a gradient varies at a fixed policy, under several credits of the same responses (chapter 10)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from rlino_lib.errors import RlinoError
from rlino_lib.evaluation.graded import sample_graded
from rlino_lib.folders import measurement
from rlino_lib.methods.catalogue import varied
from rlino_lib.methods.loss import Batch, policy_loss
from rlino_lib.methods.objective import Objective
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.tasks import Problem
from rlino_lib.training.checks import check_values
from rlino_lib.training.trainer import Trainer
from rlino_lib.training.values import credited

# Without whitening, KL and division by lengths the mean gradient of both is ∇p, p the chance of a right response.
CREDITS: dict[str, Objective] = {
    "rloo": varied("rloo", {"ratio": "token", "kl_in_reward": 0.0, "normaliser": "token_sum"}),
    "vineppo": varied("vineppo", {"value_samples": 3, "beta": 0.0, "whiten": False, "normaliser": "token_sum"}),
}
ROWS = 512  # responses that are sampled at a time


GRADIENTS = measurement("gradients", ("gradients.csv",))


class Moments:
    """The mean of vectors [P] that come one by one, and how much they vary, in float64 (Welford 1962)."""

    def __init__(self) -> None:
        self.n = 0
        self.mean: Tensor | float = 0.0  # [P] once there is one
        self.squares = 0.0  # Σ |x − mean|²

    def add(self, x: Tensor) -> None:
        """Take one more vector [P] into account."""
        self.n += 1
        gap = x.double() - self.mean  # [P]
        self.mean = self.mean + gap / self.n  # [P]
        self.squares += (gap @ (x - self.mean)).item()

    @property
    def variance(self) -> float:
        """The unbiased estimate of E|x − E x|², of two vectors or more."""
        return self.squares / (self.n - 1)

    @property
    def squared_mean(self) -> float:
        """The unbiased estimate of |E x|², which may be below 0."""
        return torch.as_tensor(self.mean).square().sum().item() - self.variance / self.n


def measure_gradients(
    trainer: Trainer, problems: Sequence[Problem], credits: Mapping[str, Objective] = CREDITS, groups: int = 12,
    progress: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """How much the gradient of J varies over groups of responses to one problem, a row for each problem and credit.

    The policy stays the trainer's, whose settings give the group's size, cap, temperature and seed. All credits are of
    the same `groups` groups. Columns: `problem`, `credit`, `groups`, `variance` (E|g − E g|² of one group's gradient g,
    unbiased), `signal` (|E g|², unbiased) and `bias` (|E g − E g of the first credit|², unbiased; 0 of the first).
    Raises RlinoError for fewer than 2 groups, for an objective whose gradient is not that of its credit alone, and for
    a task without the values that one reads.
    """
    if groups < 2:
        raise RlinoError("a variance needs at least 2 groups of responses")
    for o in credits.values():
        beside = o.bare != o or o.kl_in_reward or o.preference  # what its credit does not say
        if beside or o.whiten or o.filter or o.unlikely is not None:
            raise RlinoError(f"{o.name}: gradients are compared without KL, entropy bonus, whitening, filter and mask")
        check_values(trainer.config, o, trainer.task)
    trainer = copy.copy(trainer)  # whose steps are counted here, for the seeds
    at_once = max(1, ROWS // (groups * trainer.config.group_size))
    rows = []
    for start in tqdm(range(0, len(problems), at_once), desc="gradients", disable=not progress):
        trainer.step_done = start // at_once
        some = problems[start : start + at_once]
        rollouts = _sample(trainer, some, groups)
        advantages = {name: credited(trainer, rollouts, o)[0] for name, o in credits.items()}
        for k, problem in enumerate(some):
            own = range(k * groups, (k + 1) * groups)
            rows += [{"problem": problem.id} | row for row in _rows(trainer, rollouts, own, credits, advantages)]
    return pd.DataFrame(rows)


def _sample(trainer: Trainer, problems: Sequence[Problem], groups: int) -> Rollouts:
    """Graded responses, `groups` groups to each problem, which stand together.

    Values are shared by equal prefixes of a problem, so each group has a problem of its own name: groups are
    independent, and within one the values are shared as in training.
    """
    c = trainer.config
    named = [replace(problem, id=f"{problem.id}, group {k}") for problem in problems for k in range(groups)]
    seed = c.seed * 1_000_003 + trainer.step_done + 1
    return sample_graded(trainer.policy, trainer.task, named, c.group_size, seed=seed, **c.sampling)


def _rows(
    trainer: Trainer, rollouts: Rollouts, groups: range, credits: Mapping[str, Objective],
    advantages: Mapping[str, Tensor],
) -> list[dict[str, Any]]:  # fmt: skip
    """The rows of one problem, whose groups of the rollouts are given."""
    first = next(iter(credits))
    own = {name: Moments() for name in credits}
    gaps = {name: Moments() for name in credits}
    for group in groups:
        gradients = group_gradients(trainer, rollouts, group, credits, advantages)
        for name, gradient in gradients.items():
            own[name].add(gradient)
            gaps[name].add(gradient - gradients[first])
    return [
        {"credit": name, "groups": m.n, "variance": m.variance, "signal": m.squared_mean,
         "bias": gaps[name].squared_mean}
        for name, m in own.items()
    ]  # fmt: skip


def group_gradients(
    trainer: Trainer, rollouts: Rollouts, group: int, credits: Mapping[str, Objective], advantages: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The gradient of J of one group of graded rollouts by each credit, flat over all weights that train, [P].

    `advantages` are those of all rows by each credit, [N] or [N, T]. It is the gradient that the group's first update
    has before clipping, with the sign of what it maximises.
    """
    weights = [p for p in trainer.model.parameters() if p.requires_grad]
    rows = torch.arange(group * rollouts.group_size, (group + 1) * rollouts.group_size)  # [G]
    logprobs, mask = trainer.row_logprobs(trainer.model, rollouts, rows)  # [G, T'] each
    gradients = {}
    for name, o in credits.items():
        own = advantages[name][rows]  # [G] or [G, T]
        own = (own if own.ndim == 1 else own[:, : logprobs.shape[1]]).to(logprobs)  # [G] or [G, T']
        loss = policy_loss(o, Batch(logprobs, own, mask, max_response_length=trainer.config.max_new_tokens)).loss
        parts = torch.autograd.grad(-loss, weights, retain_graph=True)
        gradients[name] = torch.cat([part.flatten() for part in parts])  # [P]
    return gradients
