"""The update by the gradient of the loss: credit, then the current log-probs, then `policy_loss` (chapter 04)."""

import random
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from rlino_lib.methods.covariance import covariant_tokens
from rlino_lib.methods.credit import Graded, credit, without_likely
from rlino_lib.methods.loss import Batch, micro_share, policy_loss
from rlino_lib.methods.objective import Objective
from rlino_lib.methods.terms import NORMALISERS
from rlino_lib.methods.token_credit import CREDITS
from rlino_lib.policy.device import to_device
from rlino_lib.policy.logprobs import collisions
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.training.config import VERIFIER, TrainConfig
from rlino_lib.training.masks import counted
from rlino_lib.training.micro_batches import Limit, micro_batches, update_rows
from rlino_lib.training.traces import policy_weighting
from rlino_lib.training.values import VALUES


def policy_gradient(
    trainer: Any, rollouts: Rollouts, rng: random.Random, known: Graded | None = None
) -> dict[str, Tensor]:
    """The updates of a batch by a `Trainer`'s objective; returns the advantages [N] and weights [N, T] of its rows.

    `known` are the rows with the values that its credit reads, where the caller has them already.
    """
    c, o = trainer.config, trainer.objective
    rollouts = counted(trainer, rollouts)
    graded = known or replace(graded_batch(trainer, rollouts), **_for_tokens(trainer, rollouts))
    sampled = graded if graded.old_logprobs is not None else replace(graded, old_logprobs=rollouts.logprobs)
    advantages, keep = credit(o, sampled)  # [N] or [N, T], [N]
    mask = without_likely(o, rollouts.mask, rollouts.logprobs)  # [N, T]
    if o.covariant == "kl":
        held = covariant_tokens(o.covariant, o.covariant_share, advantages, sampled.old_logprobs, mask)  # [N, T]
        graded = replace(graded, covariant=held)
    order = keep.nonzero()[:, 0].tolist()
    for rows in update_rows(order, c.epochs, c.minibatches, rng):
        trainer.update(rollouts, partial(row_gradients, trainer, rollouts, graded, advantages, mask, rows))
    return policy_weighting(o, advantages, keep, mask, c.max_new_tokens)


def graded_batch(trainer: Any, rollouts: Rollouts) -> Graded:
    """The rows of a batch with what shapes their rewards: log-probs of the sampling policy and of the reference."""
    old = _old_logprobs(trainer, rollouts)  # [N, T], or None
    ref = trainer.all_logprobs(rollouts, reference=True) if trainer.objective.needs_reference else None  # [N, T]
    return graded_rows(trainer.config, rollouts, old, ref)


def _for_tokens(trainer: Any, rollouts: Rollouts) -> dict[str, Any]:
    """What the objective's credit of tokens reads beside the rows themselves: parts of `Graded`."""
    o = trainer.objective
    if o.values:
        values, steps, sampled = VALUES[o.values](trainer, rollouts)  # [N, T] each
        trainer.measured["value_tokens"] = sampled
        return {"values": values, "steps": steps}
    needs = CREDITS[o.credit].needs == "collisions"
    return {"collisions": trainer.of_distributions(collisions, rollouts)} if needs else {}


def graded_rows(c: TrainConfig, rollouts: Rollouts, old: Tensor | None, ref: Tensor | None) -> Graded:
    """Rewarded rollouts of a run as credit takes them; log-probs [N, T] of the sampling policy and of the reference."""
    correct = None if c.reward == VERIFIER else rollouts.correct  # [N]
    return Graded(
        rollouts.rewards, c.group_size, rollouts.mask, old, ref, c.max_new_tokens, rollouts.truncated, correct
    )


def _old_logprobs(trainer: Any, rollouts: Rollouts) -> Tensor | None:
    """Log-probs [N, T] of the policy before the batch's updates; None where the loss's own are those.

    In half precision sampling rounds otherwise than training, and a ratio would not start from 1: a pass finds them
    anew, where a second update or KL in the reward reads them.
    """
    c, o = trainer.config, trainer.objective
    if c.precision == "fp32":
        return rollouts.logprobs
    read_again = o.ratio != "none" and c.epochs * c.minibatches > 1
    return trainer.all_logprobs(rollouts) if read_again or o.kl_in_reward else None


def row_gradients(
    trainer: Any, rollouts: Rollouts, graded: Graded, advantages: Tensor, counted: Tensor, rows: Tensor, limit: Limit
) -> list[tuple[dict[str, float], float]]:
    """Backward passes over some rows; what each micro-batch measured, and its share of them. counted: [N, T] bool."""
    o = trainer.objective
    tokens = int(counted[rows].sum())
    losses = []
    for part in micro_batches(rollouts, _with_gradient(o, advantages, rows), limit):
        # each [B, T']
        new, _, *entropies = trainer.row_logprobs(trainer.model, rollouts, part, entropies=o.needs_entropies)
        rows_of = (advantages, graded.old_logprobs, graded.ref_logprobs, graded.covariant)
        credited, old, ref, held = (_cut(x, part, new) for x in rows_of)
        mask = to_device(counted[part, : new.shape[1]], new.device)  # [B, T']
        beside = dict(entropies=entropies[0] if entropies else None, covariant=held)
        loss = policy_loss(o, Batch(new, credited, mask, old, ref, graded.max_response_length, **beside))
        share = micro_share(o, counted[part], len(rows), tokens)
        (loss.loss * share).backward()
        losses.append((replace(loss, loss=loss.loss.detach()), share))
    return [({"loss": loss.loss.item(), **loss.metrics}, share) for loss, share in losses]


def _cut(x: Tensor | None, rows: Tensor, like: Tensor) -> Tensor | None:
    """Some rows of a tensor [N] or [N, T], as wide as log-probs [B, T'] at most, and where those are."""
    if x is None:
        return None
    return to_device(x[rows] if x.ndim == 1 else x[rows, : like.shape[1]], like.device).to(like)


def _with_gradient(o: Objective, advantages: Tensor, rows: Tensor) -> Tensor:
    """The rows without those of advantage 0, where nothing else gives such a row a gradient.

    Where a micro-batch divides by its own tokens every row counts.
    """
    if o.beta or o.entropy_bonus or o.covariant == "kl" or NORMALISERS[o.normaliser].by_micro_batch:
        return rows
    by_row = advantages if advantages.ndim == 1 else advantages.any(1)  # [N]
    return rows[by_row[rows] != 0]
