"""How a step moves the entropy of one softmax, exactly and by its covariance (chapter 11; 2505.22617 §3).

Entropy falls where likely actions are the good ones. To first order in the step η the change is −η times a covariance
under π: of log π with π (A − E A) for the policy gradient, and with A for the natural gradient, whose logits move by A.
`entropy_run` follows both along a training without noise. `sampled_run` draws batches, so that Clip-Cov and KL-Cov have
tokens to mark.
"""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from rlino_lib.errors import RlinoError
from rlino_lib.methods.covariance import covariances, covariant_tokens
from rlino_lib.methods.credit import Graded, credit
from rlino_lib.methods.loss import Batch, policy_loss
from rlino_lib.methods.objective import Objective

TOKENS = 1024  # actions of a batch of `sampled_run`


class EntropyStep(NamedTuple):
    """A change of entropy in nats, as it is and to first order."""

    exact: float
    first_order: float


def entropy(logits: Tensor) -> Tensor:
    """The entropy of softmax(logits) over the last dimension, nats."""
    logprobs = logits.log_softmax(-1)
    return -(logprobs.exp() * logprobs).sum(-1)


def push(logits: Tensor, advantages: Tensor, natural: bool = False) -> Tensor:
    """The direction [K] in which a policy gradient, or a natural one, moves logits [K] for advantages [K]."""
    probs = logits.softmax(-1)  # [K]
    centred = advantages - probs @ advantages  # [K]
    return centred if natural else probs * centred


def entropy_step(logits: Tensor, advantages: Tensor, lr: float, natural: bool = False) -> EntropyStep:
    """One exact step of a policy over K actions, its logits [K] and their advantages [K]."""
    logprobs = logits.log_softmax(-1)  # [K]
    probs = logprobs.exp()  # [K]
    moves = push(logits, advantages, natural)  # [K]
    covariance = probs @ (logprobs * moves) - (probs @ logprobs) * (probs @ moves)
    moved = entropy(logits + lr * moves) - entropy(logits)
    return EntropyStep(moved.item(), -lr * covariance.item())


def entropy_run(logits: Tensor, rewards: Tensor, lr: float, steps: int, natural: bool = False) -> pd.DataFrame:
    """A training of exact steps from logits [K] on rewards [K], one row per step.

    Columns: `step` from 1; before it `reward`, the mean under π, and `entropy` (nats); by it `exact` and `first_order`,
    as `entropy_step` has them.
    """
    rows = []
    for step in range(1, steps + 1):
        reward = (logits.softmax(-1) @ rewards).item()
        rows.append((step, reward, entropy(logits).item(), *entropy_step(logits, rewards, lr, natural)))
        logits = logits + lr * push(logits, rewards, natural)
    return pd.DataFrame(rows, columns=["step", "reward", "entropy", *EntropyStep._fields])


def sampled_run(
    objective: Objective, logits: Tensor, rewards: Tensor, lr: float, steps: int, updates: int = 1, seed: int = 0
) -> pd.DataFrame:
    """A training from logits [K] on rewards [K]: each batch is TOKENS actions of π, one group, for `updates` of SGD.

    Columns: `step` from 1; before it `reward` and `entropy`, exact; by it `exact`, the change of entropy; of its batch
    `covariance`, the mean over tokens (methods/covariance.py), `marked`, the share of tokens that Clip-Cov spares or
    KL-Cov holds, and `marked_covariance`, what those add to that mean. KL-Cov's cost has no gradient where the ratio is
    1, so at one update a batch it does nothing. Raises RlinoError for an objective that needs more than log-probs.
    """
    if objective.beta or objective.needs_entropies or (objective.by_token and objective.covariant != "clip"):
        raise RlinoError(f"{objective.name} reads more of a batch than rewards and log-probs")
    rows = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step in range(1, steps + 1):
            reward = (logits.softmax(-1) @ rewards).item()
            moved, batch = _batch_step(objective, logits, rewards, lr, updates)
            change = (entropy(moved) - entropy(logits)).item()
            rows.append((step, reward, entropy(logits).item(), change, *batch))
            logits = moved
    columns = ["step", "reward", "entropy", "exact", "covariance", "marked", "marked_covariance"]
    return pd.DataFrame(rows, columns=columns)


def _batch_step(
    o: Objective, logits: Tensor, rewards: Tensor, lr: float, updates: int
) -> tuple[Tensor, tuple[float, float, float]]:
    """The logits [K] after a batch, and the columns of `sampled_run` on covariances."""
    actions = torch.multinomial(logits.softmax(-1), TOKENS, replacement=True)  # [N]
    mask = torch.ones(TOKENS, 1, dtype=torch.bool)  # [N, 1], responses of one token
    old = logits.log_softmax(-1)[actions, None]  # [N, 1]
    graded = Graded(rewards[actions], TOKENS, mask, old)
    advantages, _ = credit(o, graded)  # [N], or [N, 1] under Clip-Cov
    plain, _ = credit(o.bare, graded)  # [N]
    marked = advantages.reshape(-1, 1) != plain[:, None]  # [N, 1], what Clip-Cov spares
    if o.covariant == "kl":
        marked = covariant_tokens(o.covariant, o.covariant_share, plain, old, mask)
    values = covariances(plain, old, mask)  # [N]
    for _ in range(updates):
        at = logits.detach().requires_grad_()  # [K]
        new = at.log_softmax(-1)[actions, None]  # [N, 1]
        loss = policy_loss(o, Batch(new, advantages, mask, old, covariant=marked)).loss
        logits = logits - lr * torch.autograd.grad(loss, at)[0]
    held = values[marked[:, 0]].sum() / TOKENS
    return logits, (values.mean().item(), marked.double().mean().item(), held.item())
