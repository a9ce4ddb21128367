"""Checkers of chapter 04's exercises."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from checkers.base import _MASK
from checkers.check import check
from rlino_lib.methods.advantages import advantages

# --- chapter 04: GRPO ------------------------------------------------------------------------------------------------


def check_advantages(function: Callable[[Tensor, int], Tensor]) -> bool:
    """`function(rewards, group_size)`: (r − mean)/(sample std + 1e-4) within each group, [N]. Any small eps will do."""

    def rule(of_group: Callable[[Tensor], Tensor]) -> Callable:
        return lambda rewards, group_size: torch.cat([of_group(g) for g in rewards.split(group_size)])

    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    cases = [(rewards, 4), (rewards, 6), (rewards[:8], 8), (rewards[:4], 2)]
    mistakes = {
        "the population std, not the sample std": rule(lambda g: (g - g.mean()) / (g.std(correction=0) + 1e-4)),
        "the batch is one group: take mean and std within each group": lambda r, g: (r - r.mean()) / (r.std() + 1e-4),
        "no division by the std": rule(lambda g: g - g.mean()),
        "it divides by the variance, not by the std": rule(lambda g: (g - g.mean()) / (g.var() + 1e-4)),
        "the mean is not taken off": rule(lambda g: g / (g.std() + 1e-4)),
        "0/0 in a group whose rewards are all equal: add a little to the std": rule(lambda g: (g - g.mean()) / g.std()),
    }
    return check(function, cases, advantages, mistakes, tolerance=2e-3, name="advantages")


_RATIO = torch.tensor([[1.0, 1.2, 0.9, 9.0], [1.4, 0.8, 9.0, 9.0], [0.7, 1.0, 1.3, 1.1]])  # [N, T], 9 where masked
_ADVANTAGE = torch.tensor([1.2, -0.6, -0.5])  # [N]
_CASES = [(_RATIO, _ADVANTAGE, _MASK), (_RATIO[:2], _ADVANTAGE[:2], _MASK[:2])]


def check_grpo_loss(grpo_loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> bool:
    """`grpo_loss(ratio, advantages, mask)`, [N, T], [N], [N, T]: −1/N Σ_i 1/|o_i| Σ_t ρ_it Â_i, no clip, no KL."""

    def gains(r: Tensor, a: Tensor, m: Tensor) -> Tensor:
        return r * a[:, None] * m  # [N, T]

    def right(r: Tensor, a: Tensor, m: Tensor) -> Tensor:
        return -(gains(r, a, m).sum(1) / m.sum(1)).mean()

    mistakes = {
        "one mean over all tokens: average each response first": lambda r, a, m: -gains(r, a, m).sum() / m.sum(),
        "it divides by T, padding included": lambda r, a, m: -gains(r, a, m).mean(),
        "padding is summed too: use the mask": lambda r, a, m: -(gains(r, a, m | True).sum(1) / m.sum(1)).mean(),
        "a sum over each response's tokens, without 1/|o_i|": lambda r, a, m: -gains(r, a, m).sum(1).mean(),
        "a sum over responses, without 1/N": lambda r, a, m: right(r, a, m) * len(r),
    }
    return check(grpo_loss, _CASES, right, mistakes, 1e-5, name="grpo_loss")


def check_weights(weights: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """`weights(advantages, mask)`, [N] and [N, T]: the weight Â_i/(|o_i| N) of every token, 0 on padding, [N, T]."""

    def right(a: Tensor, m: Tensor) -> Tensor:
        return a[:, None] * m / m.sum(1, keepdim=True) / len(a)

    mistakes = {
        "without 1/N": lambda a, m: right(a, m) * len(a),
        "without 1/|o_i|": lambda a, m: a[:, None] * m / len(a),
        "it divides by all tokens of the batch: that is the token mean": lambda a, m: a[:, None] * m / m.sum(),
        "it divides by T, padding included": lambda a, m: a[:, None] * m / m.numel(),
        "padding has weight": lambda a, m: (a / m.sum(1) / len(a))[:, None].expand(m.shape),
    }
    return check(weights, [case[1:] for case in _CASES], right, mistakes, 1e-5, name="weights")


def check_kl_k3(k3: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """`k3(logprobs, ref_logprobs)`: exp(ref − new) − (ref − new) − 1 of every token, in the shape that came in."""
    new = torch.tensor([[-0.5, -1.0, -3.0], [-0.2, -2.0, -0.7]])
    ref = torch.tensor([[-0.9, -0.4, -3.0], [-1.2, -1.5, -0.6]])
    mistakes = {
        "that is k1, new − ref": lambda n, r: n - r,
        "that is k2, half the square": lambda n, r: (r - n) ** 2 / 2,
        "reversed: the reference comes first, ref − new": lambda n, r: torch.exp(n - r) - (n - r) - 1,
        "the sign of the middle term": lambda n, r: torch.exp(r - n) + (r - n) - 1,
    }
    cases = [(new, ref), (new[0], ref[0])]
    return check(k3, cases, lambda n, r: torch.exp(r - n) - (r - n) - 1, mistakes, 1e-5, name="k3")


def check_clip(clipped: Callable[[Tensor, Tensor, float], Tensor]) -> bool:
    """`clipped(ratio, advantage, eps)`, tensors of one shape: min(ρÂ, clip(ρ, 1 − ε, 1 + ε)Â) of every element."""

    def right(r: Tensor, a: Tensor, e: float) -> Tensor:
        return torch.minimum(r * a, r.clamp(1 - e, 1 + e) * a)

    ratio = torch.tensor([0.5, 0.9, 1.0, 1.15, 1.5, 0.5, 0.9, 1.0, 1.15, 1.5])
    advantage = torch.tensor([1.0] * 5 + [-2.0] * 5)
    mistakes = {
        "max where min was asked": lambda r, a, e: torch.maximum(r * a, r.clamp(1 - e, 1 + e) * a),
        "it never clips": lambda r, a, e: r * a,
        "no min with ρÂ: steps back into the band lose their gradient": lambda r, a, e: r.clamp(1 - e, 1 + e) * a,
        "for Â < 0 it clips on the wrong side: multiply by Â before the min": lambda r, a, e: r.clamp(max=1 + e) * a,
        "it clips ρÂ, not ρ": lambda r, a, e: torch.minimum(r * a, (r * a).clamp(1 - e, 1 + e)),
    }
    return check(clipped, [(ratio, advantage, 0.2), (ratio, advantage, 0.1)], right, mistakes, 1e-5, name="clip")
