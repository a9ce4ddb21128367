"""Checkers of chapter 04's exercises: GRPO."""

import torch
from torch import Tensor

from checkers.check import Solution, exercise
from rlino_lib.methods.advantages import advantages

_REWARDS = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0])


@exercise("advantages", (_REWARDS, 4), (_REWARDS, 6), (_REWARDS[:8], 8), (_REWARDS[:4], 2), tolerance=2e-3)
def check_advantages(rewards: Tensor, group_size: int) -> Solution:
    """`function(rewards, group_size)`: (r − mean)/(sample std + 1e-4) within each group, [N]. Any small eps will do."""
    groups = rewards.reshape(-1, group_size)
    std = groups.std(1, keepdim=True)
    gap = groups - groups.mean(1, keepdim=True)  # [P, G]
    population = groups.std(1, correction=0, keepdim=True)
    one_group = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
    return advantages(rewards, group_size), {
        "the population std, not the sample std": (gap / (population + 1e-4)).flatten(),
        "the batch is one group: take mean and std within each group": one_group,
        "no division by the std": gap.flatten(),
        "it divides by the variance, not by the std": (gap / (std**2 + 1e-4)).flatten(),
        "the mean is not subtracted": (groups / (std + 1e-4)).flatten(),
        "0/0 in a group whose rewards are all equal: add a little to the std": (gap / std).flatten(),
    }


_MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]]).bool()  # [N, T]
_RATIO = torch.tensor([[1.0, 1.2, 0.9, 9.0], [1.4, 0.8, 9.0, 9.0], [0.7, 1.0, 1.3, 1.1]])  # [N, T], 9 where masked
_ADVANTAGE = torch.tensor([1.2, -0.6, -0.5])  # [N]


@exercise("grpo_loss", (_RATIO, _ADVANTAGE, _MASK), (_RATIO[:2], _ADVANTAGE[:2], _MASK[:2]), tolerance=1e-5)
def check_grpo_loss(ratio: Tensor, advantage: Tensor, mask: Tensor) -> Solution:
    """`grpo_loss(ratio, advantages, mask)`, [N, T], [N], [N, T]: −1/N Σ_i 1/|o_i| Σ_t ρ_it Â_i, no clip, no KL."""
    all_gains = ratio * advantage[:, None]  # [N, T], with padding
    gains = all_gains * mask
    lengths = mask.sum(1)  # [N]
    right = -(gains.sum(1) / lengths).mean()
    return right, {
        "one mean over all tokens: average each response first": -gains.sum() / mask.sum(),
        "it divides by T, padding included": -gains.mean(),
        "padding is summed too: use the mask": -(all_gains.sum(1) / lengths).mean(),
        "a sum over each response's tokens, without 1/|o_i|": -gains.sum(1).mean(),
        "a sum over responses, without 1/N": right * len(ratio),
    }


@exercise("weights", (_ADVANTAGE, _MASK), (_ADVANTAGE[:2], _MASK[:2]), tolerance=1e-5)
def check_weights(advantage: Tensor, mask: Tensor) -> Solution:
    """`weights(advantages, mask)`, [N] and [N, T]: the weight Â_i/(|o_i| N) of every token, 0 on padding, [N, T]."""
    n = len(advantage)
    signed = advantage[:, None] * mask  # [N, T]
    lengths = mask.sum(1, keepdim=True)  # [N, 1]
    return signed / lengths / n, {
        "without 1/N": signed / lengths,
        "without 1/|o_i|": signed / n,
        "it divides by all tokens of the batch: that is the token mean": signed / mask.sum(),
        "it divides by T, padding included": signed / mask.numel(),
        "padding has weight": (advantage[:, None] / lengths / n).expand(mask.shape),
    }


RATIOS = torch.tensor([0.5, 0.9, 1.0, 1.15, 1.5, 0.5, 0.9, 1.0, 1.15, 1.5], dtype=torch.float64)
SIGNED = torch.tensor([1.0] * 5 + [-2.0] * 5, dtype=torch.float64)


@exercise("clip", (RATIOS, SIGNED, 0.2), (RATIOS, SIGNED, 0.1), tolerance=1e-5)
def check_clip(ratio: Tensor, advantage: Tensor, eps: float) -> Solution:
    """`clipped(ratio, advantage, eps)`, tensors of one shape: min(ρÂ, clip(ρ, 1 − ε, 1 + ε)Â) of every element."""
    gain = ratio * advantage
    clipped_gain = ratio.clamp(1 - eps, 1 + eps) * advantage
    return torch.minimum(gain, clipped_gain), {
        "max where min is needed": torch.maximum(gain, clipped_gain),
        "it never clips": gain,
        "no min with ρÂ: steps back into the band lose their gradient": clipped_gain,
        "for Â < 0 it clips on the wrong side: multiply by Â before the min": ratio.clamp(max=1 + eps) * advantage,
        "it clips ρÂ, not ρ": torch.minimum(gain, gain.clamp(1 - eps, 1 + eps)),
    }
