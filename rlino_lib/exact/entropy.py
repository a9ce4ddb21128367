"""How a step moves the entropy of one softmax, exactly and by its covariance (chapter 11; 2505.22617 §3).

Entropy falls where likely actions are the good ones. To first order in the step η the change is −η times a covariance
under π: of log π with π (A − E A) for the policy gradient, and with A for the natural gradient, whose logits move by A.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class EntropyStep(NamedTuple):
    """A change of entropy in nats, as it is and to first order."""

    exact: float
    first_order: float


def entropy(logits: Tensor) -> Tensor:
    """The entropy of softmax(logits) over the last dimension, nats."""
    logprobs = logits.log_softmax(-1)
    return -(logprobs.exp() * logprobs).sum(-1)


def entropy_step(logits: Tensor, advantages: Tensor, lr: float, natural: bool = False) -> EntropyStep:
    """One exact step of a policy over K actions, its logits [K] and their advantages [K]."""
    logprobs = logits.log_softmax(-1)  # [K]
    probs = logprobs.exp()  # [K]
    centred = advantages - probs @ advantages  # [K]
    push = centred if natural else probs * centred  # [K]
    covariance = probs @ (logprobs * push) - (probs @ logprobs) * (probs @ push)
    moved = entropy(logits + lr * push) - entropy(logits)
    return EntropyStep(moved.item(), -lr * covariance.item())
