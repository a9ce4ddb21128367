"""What a method makes of a batch at ratio 1, and of one group in four numbers: p, G and the lengths of both sides."""

import math

import torch
from torch import Tensor

from rlino_lib.errors import chosen
from rlino_lib.methods.catalogue import LABELS, OBJECTIVES
from rlino_lib.methods.credit import Graded, credit
from rlino_lib.methods.loss import token_weights

# Methods whose weights follow from one group alone, by their names in menus.
METHODS = {name: text for name, text in LABELS.items() if name != "grpo" and OBJECTIVES[name].credit == "response"}
CAP = 64  # the L of 1/(N·L)
F64 = torch.float64


def batch_weights(method: str, rewards: Tensor, group_size: int, mask: Tensor, cap: int) -> tuple[Tensor, Tensor]:
    """Advantages [N] and weights [N, T] of a batch at ratio 1, in float64; 0 on rows that the method leaves out.

    rewards [N], groups together; mask [N, T]; `cap` the length L. The policy is its own reference, so that KL is 0.
    Raises RlinoError for a method that is not among METHODS.
    """
    objective = OBJECTIVES[chosen(method, METHODS, "method")]
    same = torch.zeros(mask.shape, dtype=F64)  # [N, T]
    advantage, keep = credit(objective, Graded(rewards.to(F64), group_size, mask, same, same, cap))  # [N], [N]
    weights = torch.zeros(mask.shape, dtype=F64)  # [N, T]
    if keep.any():
        weights[keep] = token_weights(objective, advantage[keep], mask[keep], cap)
    return advantage, weights


Side = dict[str, float]


def sides_of(method: str, group_size: int, k: int, lengths: tuple[int, int]) -> dict[str, Side]:
    right = torch.arange(group_size) < k  # [G]
    mask = torch.arange(max(lengths)) < torch.where(right, *lengths)[:, None]  # [G, T]
    advantage, weights = batch_weights(method, right.to(F64), group_size, mask, CAP)  # [G], [G, T]
    sums = weights.sum(1).tolist()
    first, advantages = weights[:, 0].tolist(), advantage.tolist()
    sides = {}
    for side, count, tokens, i in (("right", k, lengths[0], 0), ("wrong", group_size - k, lengths[1], -1)):
        row = {"count": count, "tokens": tokens, "advantage": advantages[i], "w": first[i], "response": sums[i]}
        if not count:
            row |= dict.fromkeys(("advantage", "w", "response"), math.nan)
        sides[side] = row | {"side": sum(sums[:k] if side == "right" else sums[k:])}
    return sides
