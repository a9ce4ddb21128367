"""Tokens whose likelihood goes with their advantage: few, and most of what a step takes from the entropy (chapter 11).

The covariance of a token is (Â_it − mean Â)(log π_old(o_it) − mean log π_old), means over the tokens of the batch. Both
rules are those of the entropy mechanism's code (2505.22617 §4), which takes micro-batches where this takes the batch.
"""

import torch
from torch import Tensor
from torch.nn.functional import hardshrink

from rlino_lib.methods.terms import ROUNDING, Term

LOW, HIGH = 1.0, 5.0  # the covariances among which Clip-Cov draws


def _some_high(values: Tensor, count: int) -> Tensor:
    eligible = ((values > LOW) & (values < HIGH)).nonzero()[:, 0]  # [K]
    return eligible[torch.randperm(len(eligible))[:count]]


# Which of M covariances are marked, from them [M] and a number: their places.
COVARIANT = {
    "clip": Term(_some_high, "no credit for {share:g} of the tokens, drawn among those of covariance 1 to 5"),
    "kl": Term(lambda values, count: values.topk(count).indices, "the {share:g} of tokens of highest covariance"),
}


def distance(log_ratio: Tensor) -> Tensor:
    """|log ρ| at every token, [N, T], which KL-Cov charges: 0, with slope 0, where that is no more than `ROUNDING`.

    Its code has the plain |log ρ|, whose slope is the sign of log ρ: at ρ = 1 that of rounding.
    """
    return hardshrink(log_ratio, ROUNDING).abs()


def covariances(advantages: Tensor, logprobs: Tensor, mask: Tensor) -> Tensor:
    """The covariance of each of the mask's M tokens, [M], in their order.

    advantages [N] or [N, T]; logprobs and mask [N, T].
    """
    inside = mask.bool()  # [N, T]
    by_token = advantages if advantages.ndim == 2 else advantages[:, None].expand(mask.shape)  # [N, T]
    credit, likely = by_token[inside], logprobs[inside]  # [M] each
    return (credit - credit.mean()) * (likely - likely.mean())


def covariant_tokens(kind: str, share: float, advantages: Tensor, logprobs: Tensor, mask: Tensor) -> Tensor:
    """Where a token is marked by a rule of COVARIANT, [N, T] bool: `share` of the M tokens, but at least one.

    Clip-Cov draws by torch's own generator.
    """
    inside = mask.bool()  # [N, T]
    values = covariances(advantages, logprobs, inside)  # [M]
    marked = torch.zeros_like(values, dtype=torch.bool)  # [M]
    if len(values):
        marked[COVARIANT[kind].of(values, max(int(share * len(values)), 1))] = True
    return torch.zeros_like(inside).masked_scatter(inside, marked)
