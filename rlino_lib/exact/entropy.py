"""How a step moves the entropy of one softmax, exactly and by its covariance (chapter 11; 2505.22617 §3).

Entropy falls where likely actions are the good ones. To first order in the step η the change is −η times a covariance
under π: of log π with π (A − E A) for the policy gradient, and with A for the natural gradient, whose logits move by A.
`entropy_run` follows both along a training without noise.
"""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd
from torch import Tensor


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
