"""Rewards that a model gives itself: how they order responses, and where they lead (chapter 11; 2505.19590).

Self-certainty KL(U ‖ π) and negative entropy −H read the distributions along a response, its log-probability the tokens
that were drawn. Near uniform the first two agree to second order. Far from it self-certainty has no bound, as one
token's probability goes to 0, and entropy lies between 0 and log V. None reads whether the answer is right, and the
optimum of each is deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from rlino_lib.errors import RlinoError, chosen
from rlino_lib.exact.entropy import entropy
from rlino_lib.policy.logprobs import certainty

F64 = torch.float64


class Response(NamedTuple):
    """T tokens, and the distributions over V tokens that they were drawn from, as T rows."""

    distributions: Sequence[Sequence[float]]
    tokens: Sequence[int]


PEAKED = (0.85, 0.05, 0.05, 0.05)
NARROW = (0.5 - 1e-6, 0.5 - 1e-6, 1e-6, 1e-6)
EVEN = (0.25,) * 4
FLATTER = (0.7, 0.1, 0.1, 0.1)
# Two responses each, of which the rewards do not prefer the same one.
DISAGREEMENTS = {
    "two tokens all but ruled out": (Response([NARROW], [0]), Response([PEAKED], [0])),
    "an unlikely token": (Response([PEAKED], [1]), Response([EVEN], [0])),
    "six tokens or one": (Response([PEAKED] * 6, [0] * 6), Response([FLATTER], [0])),
}


def own_rewards(response: Response) -> dict[str, float]:
    """A response's rewards by their names in `methods/rewards.py`, in nats: two are means over tokens, one a sum.

    Raises RlinoError where rows are no distributions of positive chances, or tokens do not match them.
    """
    rows = torch.tensor(response.distributions, dtype=F64)  # [T, V]
    tokens = torch.tensor(response.tokens)  # [T]
    if rows.ndim != 2 or (rows <= 0).any() or (rows.sum(1) - 1).abs().max() > 1e-9 or len(tokens) != len(rows):
        raise RlinoError("a response is rows of positive chances that add up to 1, and a token for each row")
    logprobs = rows.log()  # [T, V]
    return {
        "self_certainty": certainty(logprobs).mean().item(),
        "negative_entropy": -entropy(logprobs).mean().item(),
        "log_likelihood": logprobs.gather(1, tokens[:, None]).sum().item(),
    }


def disagreements() -> pd.DataFrame:
    """The rewards of both responses of each of DISAGREEMENTS: `example`, `response` (first, second), the rewards."""
    rows = [
        {"example": name, "response": place, **own_rewards(response)}
        for name, pair in DISAGREEMENTS.items()
        for place, response in zip(("first", "second"), pair, strict=True)
    ]
    return pd.DataFrame(rows)


# What is climbed, of log-probs [K] of the actions and the right one. A likelihood that rewards its own draws has no
# gradient through the reward, and E[log π ∇log π] = −∇H. The majority of many draws is the most likely action.
CLIMBED: dict[str, Callable[[Tensor, int], Tensor]] = {
    "self_certainty": lambda logprobs, right: certainty(logprobs),
    "negative_entropy": lambda logprobs, right: -entropy(logprobs),
    "log_likelihood": lambda logprobs, right: logprobs.exp() @ logprobs.detach(),
    "majority": lambda logprobs, right: logprobs.max().exp(),
    "truth": lambda logprobs, right: logprobs[right].exp(),
}


def ascend(reward: str, start: Sequence[float], right: int, lr: float = 1.0, steps: int = 200) -> pd.DataFrame:
    """Exact ascent of one of CLIMBED by the logits of one softmax, from chances `start` [K], `right` the right action.

    One row per step from 0: `step`, `right` (the right action's chance), `top` (the highest chance), `entropy` (nats).
    Under all but the truth what is most likely at the start ends alone. Raises RlinoError for an unknown reward, and a
    start that is no distribution of positive chances.
    """
    objective = CLIMBED[chosen(reward, CLIMBED, "reward")]
    own_rewards(Response([start], [right]))
    logits = torch.tensor(start, dtype=F64).log()  # [K]
    rows = []
    for step in range(steps + 1):
        probs = logits.softmax(-1)  # [K]
        rows.append((step, probs[right].item(), probs.max().item(), entropy(logits).item()))
        at = logits.detach().requires_grad_()  # [K]
        logits = logits + lr * torch.autograd.grad(objective(at.log_softmax(-1), right), at)[0]
    return pd.DataFrame(rows, columns=["step", "right", "top", "entropy"])
