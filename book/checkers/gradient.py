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


@exercise("constant", (0.5, 2), (0.1, 2), (0.1, 4), (0.5, 4), (0.8, 8), (0.03, 8))
def check_drift_constant(p: float, g: int) -> Solution:
    """`constant(p, G)`: c in E[ĝ] = c·∇p for GRPO with the population std, binary rewards and a sum over tokens."""
    variance = p * (1 - p)
    roots = [math.sqrt(k * (g - k)) for k in range(g + 1)]  # of G² times the variance in a group with k right
    chances = [math.comb(g, k) * p**k * (1 - p) ** (g - k) for k in range(g + 1)]
    mean_root = sum(c * root for c, root in zip(chances, roots, strict=True)) / g
    right = mean_root / variance
    return right, {
        "too small by √((G−1)/G), at G = 2 by 0.707: did you use the sample std?": right * math.sqrt((g - 1) / g),
        "1/√(p(1−p)) is the limit of large groups": 1 / math.sqrt(variance),
        "not yet divided by p(1−p)": mean_root,
        "not yet divided by G": g * right,
        "the constant of r − mean, without the std": (g - 1) / g,
        "the root of the mean, not the mean of the root": math.sqrt((g - 1) / g / variance),
        "a sum over k without its chance: k right responses are binomial": sum(roots) / g / variance,
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


@exercise("format_push", (1, 4, 0.1), (2, 4, 0.1), (3, 4, 0.1), (1, 8, 0.5), (4, 4, 0.1), (0, 4, 0.1))
def check_format_push(m: int, g: int, bonus: float) -> Solution:
    """`push(m, G, bonus)`: GRPO's advantage (population std, no eps) of a formatted response in an all-wrong group.

    m of the G responses have the right format and earn `bonus`, the others earn 0.
    """
    contrast = 0 < m < g
    right = math.sqrt((g - m) / m) if contrast else 0.0
    other = math.sqrt(m / (g - m)) if contrast else 0.0
    return right, {
        "0 in every all-wrong group: with a format reward it still has contrast": 0.0,
        "r − mean, not divided by the std": bonus * (1 - m / g),
        "times the bonus: the std is in proportion to it too, and it cancels": bonus * right,
        "that is with the sample std: the question is about the population std": right * math.sqrt((g - 1) / g),
        "the advantage of an unformatted response": -other,
        "turned over: the rarer the format, the larger its advantage": other,
    }


@exercise("amplification", (0.2, 0.1, 2.0), (0.5, 0.1, 2.0), (0.3, 0.3, 4.0), (0.7, 0.05, 1.5))
def check_amplification(p: float, p_ref: float, beta: float) -> Solution:
    """`step(p, p_ref, beta)`: the next chance of success, with odds p_ref/(1−p_ref) · exp(1/(β√(p(1−p))))."""

    def lifted(start: float, lift: float) -> float:  # the chance whose odds are those of `start` times exp(lift)
        return 1 / (1 + (1 - start) / start * math.exp(-lift))

    root = math.sqrt(p * (1 - p))
    root_ref = math.sqrt(p_ref * (1 - p_ref))
    lift = 1 / (beta * root)
    return lifted(p_ref, lift), {
        "it climbs from p, not from p_ref: the KL term holds on to the reference": lifted(p, lift),
        "the variance, not the standard deviation": lifted(p_ref, lift / root),
        "β is missing, or stands on the wrong side of the fraction": lifted(p_ref, beta / root),
        "the sign in the exponent: success must become likelier": lifted(p_ref, -lift),
        "the odds, not the probability": p_ref / (1 - p_ref) * math.exp(lift),
        "std and reference are swapped: the std is that of the current p": lifted(p, 1 / (beta * root_ref)),
    }
