"""Checkers of chapter 06's exercises: the same gradient."""

import math

import torch
from torch import Tensor

from checkers.check import Solution, exercise
from checkers.grpo import RATIOS, SIGNED


@exercise("pull", (1, 2), (1, 4), (2, 4), (3, 8), (7, 8), (8, 8), (0, 8))
def check_group_pull(k: int, g: int) -> Solution:
    """`pull(k, G)`: Σ Â_i / G over the k right responses of a group of G, GRPO with the sample std, without the eps."""
    variance = k / g * (1 - k / g)
    root = math.sqrt(variance)
    right = root * math.sqrt((g - 1) / g)
    return right, {
        "that is with the population std: the sample std is larger by √(G/(G−1))": root,
        "√(G/(G−1)) the wrong way round: a larger std makes smaller advantages": root * math.sqrt(g / (g - 1)),
        "p(1−p): that is r − mean without the std, Dr. GRPO": variance,
        "the sum over the right responses, not yet divided by G": g * right,
        "the advantage of one right response: there are k of them": right * g / k if k else 0.0,
    }


@exercise("stale_weight", (RATIOS, SIGNED, 0.2), (RATIOS, SIGNED, 0.1), tolerance=1e-9)
def check_stale_weight(ratio: Tensor, advantage: Tensor, eps: float) -> Solution:
    """`weight(ratio, advantage, eps)`: ∂/∂log π of min(ρÂ, clip(ρ, 1 − ε, 1 + ε)Â), tensors of one shape."""
    above = ratio > 1 + eps
    below = ratio < 1 - eps
    stopped = torch.where(advantage > 0, above, below)
    gain = ratio * advantage
    clipped_gain = ratio.clamp(1 - eps, 1 + eps) * advantage
    inside = (ratio - 1).abs() <= eps
    return gain * ~stopped, {
        "ρ is missing: ∇ρ = ρ ∇log π, which is ∇log π at ρ = 1 alone": advantage * ~stopped,
        "0 everywhere outside the band: tokens that moved the wrong way keep their gradient": gain * inside,
        "it never clips": gain,
        "clip(ρ)Â where the clip bites: there the objective is constant, its gradient 0": gain.minimum(clipped_gain),
        "clip(ρ)Â on every token: that is the weight of CISPO": clipped_gain,
        "the sides are swapped: Â > 0 stops above 1 + ε": gain * ~torch.where(advantage < 0, above, below),
        "plain weighted likelihood: the ratio is not used": advantage,
    }


@exercise("kl_weight", *((d, kind) for kind in ("k1", "k2", "k3") for d in (0.0, 0.7, -0.4, 2.0)))
def check_kl_weight(d: float, kind: str) -> Solution:
    """`weight(d, kind)`: the derivative of k1, k2 or k3 by log π, with d = log ref − log π of the sampled token."""
    k = int(kind[1]) - 1
    right = (1.0, -d, -math.expm1(d))
    return right[k], {
        "the derivative by d: one of log π has a minus": -right[k],
        "the estimates themselves, not their derivatives": (-d, d * d / 2, math.expm1(d) - d)[k],
        "k1 is not constant: it is log π − log ref": (0.0, *right[1:])[k],
        "k3 = e^d − d − 1: a term of its derivative is missing": (*right[:2], -math.exp(d))[k],
        "for k3 the weight of k2: they agree near d = 0 alone": (*right[:2], -d)[k],
        "k2 is d²/2: without the half its derivative is twice as large": (1.0, -2 * d, right[2])[k],
    }
