"""The update of PPO: the policy by its critic's credit, then the critic on the returns (chapter 10)."""

import random
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rlino_lib.methods.credit import shaped_rewards
from rlino_lib.methods.loss import value_loss
from rlino_lib.methods.token_credit import gae
from rlino_lib.policy.device import to_device
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.training.micro_batches import Limit, micro_batches, update_rows
from rlino_lib.training.traces import policy_weighting
from rlino_lib.training.updates.policy_gradient import graded_batch, policy_gradient


def critic(trainer: Any, rollouts: Rollouts, rng: random.Random) -> dict[str, Tensor]:
    """The updates of a batch; while the critic warms up the policy stays as it is, and its rows weigh nothing.

    Both read the values from before the batch's updates, so that their order does not matter, and both the rewards
    with what shapes them: a critic of others would be no baseline of the policy's.
    """
    c, o = trainer.config, trainer.objective
    old = trainer.critic_values(rollouts)  # [N, T]
    graded = graded_batch(trainer, rollouts)
    rewards = shaped_rewards(o, graded)  # [N]
    returns = gae(rewards, old, rollouts.mask, gamma=o.gamma, lam=o.critic_lam) + old  # [N, T]
    trainer.measured["critic/explained_variance"] = explained_variance(old, returns, rollouts.mask)
    if trainer.step_done < c.critic_warmup:
        nothing = torch.zeros(rollouts.mask.shape)  # [N, T]
        keep = torch.ones(len(nothing), dtype=torch.bool)  # [N]
        weighting = policy_weighting(o, nothing, keep, rollouts.mask, c.max_new_tokens)
    else:
        weighting = policy_gradient(trainer, rollouts, rng, replace(graded, values=old))
        trainer.measured["value_tokens"] = 0
    trainer.measured["critic/loss"] = _learn(trainer, rollouts, old, returns, rng)
    return weighting


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float | None:
    """1 − Var(returns − values) / Var(returns) over tokens, all [N, T]; None where all returns are one number."""
    inside = mask.bool()  # [N, T]
    target = returns[inside].double()  # [M]
    spread = target.var(correction=0).item() if len(target) else 0.0
    errors = target - values[inside].double()  # [M]
    return 1 - errors.var(correction=0).item() / spread if spread > 1e-12 else None


def _learn(trainer: Any, rollouts: Rollouts, old: Tensor, returns: Tensor, rng: random.Random) -> float:
    """The critic's own updates, `critic_epochs` passes over the batch in the run's mini-batches; their mean loss."""
    c = trainer.config
    losses = [
        trainer.update_critic(partial(_backward, trainer, rollouts, old, returns, rows), rollouts)
        for rows in update_rows(list(range(len(old))), c.critic_epochs, c.minibatches, rng)
    ]
    return sum(losses) / len(losses)


def _backward(trainer: Any, rollouts: Rollouts, old: Tensor, returns: Tensor, rows: Tensor, limit: Limit) -> float:
    """Backward passes of the critic over some rows; the loss of them all."""
    tokens = int(rollouts.mask[rows].sum())
    total = 0.0
    for part in micro_batches(rollouts, rows, limit):
        values = trainer.row_values(rollouts, part)  # [B, T']
        before, goal, mask = (
            to_device(x[part, : values.shape[1]], values.device) for x in (old, returns, rollouts.mask)
        )  # each [B, T']
        loss = value_loss(values.float(), before, goal, mask, trainer.objective.value_clip)
        share = int(rollouts.mask[part].sum()) / max(tokens, 1)
        (loss * share).backward()
        total += loss.item() * share
    return total
