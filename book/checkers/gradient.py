"""Checkers for the exercises of chapter 06, on the mechanism of `exercises.check`."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from checkers.check import check


def check_group_pull(pull: Callable[[int, int], float]) -> bool:
    """`pull(k, G)`: Σ Â_i / G over the k right responses of a group of G, GRPO with the sample std, without the eps."""

    def right(k: int, g: int) -> float:
        return math.sqrt((g - 1) / g * k / g * (1 - k / g))

    mistakes = {
        "that is with the population std: the sample std is larger by √(G/(G−1))": lambda k, g: math.sqrt(
            k / g * (1 - k / g)
        ),
        "√(G/(G−1)) the wrong way round: a larger std makes smaller advantages": lambda k, g: (
            math.sqrt(g / (g - 1) * k / g * (1 - k / g)) if g > 1 else 0
        ),
        "p(1−p): that is r − mean without the std, Dr. GRPO": lambda k, g: k / g * (1 - k / g),
        "the sum over the right responses, not yet divided by G": lambda k, g: g * right(k, g),
        "the advantage of one right response: there are k of them": lambda k, g: right(k, g) * g / k if k else 0.0,
        "the pull on the wrong side: the sign": lambda k, g: -right(k, g),
    }
    cases = [(1, 2), (1, 4), (2, 4), (3, 8), (7, 8), (8, 8), (0, 8)]
    return check(pull, cases, right, mistakes, name="pull")


def check_stale_weight(weight: Callable[[Tensor, Tensor, float], Tensor]) -> bool:
    """`weight(ratio, advantage, eps)`: ∂/∂log π of min(ρÂ, clip(ρ, 1 − ε, 1 + ε)Â), tensors of one shape."""

    def stopped(r: Tensor, a: Tensor, e: float) -> Tensor:
        return ((a > 0) & (r > 1 + e)) | ((a < 0) & (r < 1 - e))

    ratio = torch.tensor([0.5, 0.9, 1.0, 1.15, 1.5, 0.5, 0.9, 1.0, 1.15, 1.5], dtype=torch.float64)
    advantage = torch.tensor([1.0] * 5 + [-2.0] * 5, dtype=torch.float64)
    mistakes = {
        "ρ is missing: ∇ρ = ρ ∇log π, which is ∇log π at ρ = 1 alone": lambda r, a, e: a * ~stopped(r, a, e),
        "0 everywhere outside the band: tokens that moved the wrong way keep their gradient": lambda r, a, e: (
            r * a * ((r - 1).abs() <= e)
        ),
        "it never clips": lambda r, a, e: r * a,
        "clip(ρ)Â where the clip bites: there the objective is constant, its gradient 0": lambda r, a, e: torch.minimum(
            r * a, r.clamp(1 - e, 1 + e) * a
        ),
        "clip(ρ)Â on every token: that is the weight of CISPO": lambda r, a, e: r.clamp(1 - e, 1 + e) * a,
        "the sides are swapped: Â > 0 stops above 1 + ε": lambda r, a, e: r * a * ~stopped(r, -a, e),
        "plain weighted likelihood: the ratio is not used": lambda r, a, e: a,
    }
    cases = [(ratio, advantage, 0.2), (ratio, advantage, 0.1)]
    return check(weight, cases, lambda r, a, e: r * a * ~stopped(r, a, e), mistakes, 1e-9, name="stale_weight")


def check_drift_constant(constant: Callable[[float, int], float]) -> bool:
    """`constant(p, G)`: c in E[ĝ] = c·∇p for GRPO with the population std, binary rewards and a sum over tokens."""

    def mean_root(p: float, g: int) -> float:
        return sum(math.comb(g, k) * p**k * (1 - p) ** (g - k) * math.sqrt(k * (g - k)) for k in range(g + 1))

    def right(p: float, g: int) -> float:
        return mean_root(p, g) / (g * p * (1 - p))

    mistakes = {
        "too small by √((G−1)/G), at G = 2 by 0.707: did you use the sample std?": lambda p, g: (
            right(p, g) * math.sqrt((g - 1) / g)
        ),
        "1/√(p(1−p)) is the limit of large groups": lambda p, g: 1 / math.sqrt(p * (1 - p)),
        "half of it: a right response pushes p up, and a wrong one does so too": lambda p, g: right(p, g) / 2,
        "not yet divided by p(1−p)": lambda p, g: mean_root(p, g) / g,
        "not yet divided by G": lambda p, g: g * right(p, g),
        "the constant of r − mean, without the std": lambda p, g: (g - 1) / g,
        "the root of the mean, not the mean of the root": lambda p, g: (
            math.sqrt(g * (g - 1) * p * (1 - p)) / (g * p * (1 - p))
        ),
        "a sum over k without its chance: k right responses are binomial": lambda p, g: (
            sum(math.sqrt(k * (g - k)) for k in range(g + 1)) / (g * p * (1 - p))
        ),
    }
    cases = [(0.5, 2), (0.1, 2), (0.1, 4), (0.5, 4), (0.8, 8), (0.03, 8)]
    return check(constant, cases, right, mistakes, 1e-6, name="constant")


def check_kl_weight(weight: Callable[[float, str], float]) -> bool:
    """`weight(d, kind)`: the derivative of k1, k2 or k3 by log π, with d = log ref − log π of the sampled token."""

    def table(k1: Callable, k2: Callable, k3: Callable) -> Callable[[float, str], float]:
        return lambda d, kind: {"k1": k1, "k2": k2, "k3": k3}[kind](d)

    one, values = lambda d: 1.0, (lambda d: -d, lambda d: d * d / 2, lambda d: math.expm1(d) - d)
    mistakes = {
        "the derivative by d: one of log π has a minus": table(lambda d: -1.0, lambda d: d, math.expm1),
        "the estimates themselves, not their derivatives": table(*values),
        "k1 is not constant: it is log π − log ref": table(lambda d: 0.0, lambda d: -d, lambda d: -math.expm1(d)),
        "k3 = e^d − d − 1: a term of its derivative is missing": table(one, lambda d: -d, lambda d: -math.exp(d)),
        "for k3 the weight of k2: they agree near d = 0 alone": table(one, lambda d: -d, lambda d: -d),
        "k2 is d²/2: without the half its derivative is twice as large": table(
            one, lambda d: -2 * d, lambda d: -math.expm1(d)
        ),
    }
    cases = [(d, kind) for kind in ("k1", "k2", "k3") for d in (0.0, 0.7, -0.4, 2.0)]
    return check(weight, cases, table(one, lambda d: -d, lambda d: -math.expm1(d)), mistakes, name="kl_weight")


def check_format_push(push: Callable[[int, int, float], float]) -> bool:
    """`push(m, G, bonus)`: GRPO's advantage (population std, no eps) of a formatted response in an all-wrong group.

    m of the G responses have the right format and earn `bonus`, the others earn 0.
    """

    def right(m: int, g: int, bonus: float) -> float:
        return math.sqrt((g - m) / m) if 0 < m < g else 0.0

    mistakes = {
        "0 in every all-wrong group: with a format reward it still has contrast": lambda m, g, b: 0.0,
        "r − mean, not divided by the std": lambda m, g, b: b * (1 - m / g),
        "times the bonus: the std is in proportion to it too, and it cancels": lambda m, g, b: b * right(m, g, b),
        "that is with the sample std: the population std was asked": lambda m, g, b: (
            right(m, g, b) * math.sqrt((g - 1) / g)
        ),
        "the advantage of an unformatted response": lambda m, g, b: -math.sqrt(m / (g - m)) if 0 < m < g else 0.0,
        "turned over: the rarer the format, the larger its advantage": lambda m, g, b: (
            math.sqrt(m / (g - m)) if 0 < m < g else 0.0
        ),
    }
    cases = [(1, 4, 0.1), (2, 4, 0.1), (3, 4, 0.1), (1, 8, 0.5), (4, 4, 0.1), (0, 4, 0.1)]
    return check(push, cases, right, mistakes, name="format_push")


def check_amplification(step: Callable[[float, float, float], float]) -> bool:
    """`step(p, p_ref, beta)`: the next chance of success, with odds p_ref/(1−p_ref) · exp(1/(β√(p(1−p))))."""

    def logistic(odds: float) -> float:
        return odds / (1 + odds)

    def rule(start: Callable, lift: Callable) -> Callable[[float, float, float], float]:
        return lambda p, ref, b: logistic(start(p, ref) / (1 - start(p, ref)) * math.exp(lift(p, b)))

    def root(p: float) -> float:
        return math.sqrt(p * (1 - p))

    mistakes = {
        "it climbs from p, not from p_ref: the KL term holds on to the reference": rule(
            lambda p, ref: p, lambda p, b: 1 / (b * root(p))
        ),
        "the variance, not the standard deviation": rule(lambda p, ref: ref, lambda p, b: 1 / (b * p * (1 - p))),
        "β is missing, or stands on the wrong side of the fraction": rule(lambda p, ref: ref, lambda p, b: b / root(p)),
        "the sign in the exponent: success must become likelier": rule(
            lambda p, ref: ref, lambda p, b: -1 / (b * root(p))
        ),
        "the odds, not the probability": lambda p, ref, b: ref / (1 - ref) * math.exp(1 / (b * root(p))),
        "std and reference are swapped: the std is that of the current p": lambda p, ref, b: logistic(
            p / (1 - p) * math.exp(1 / (b * root(ref)))
        ),
    }
    cases = [(0.2, 0.1, 2.0), (0.5, 0.1, 2.0), (0.3, 0.3, 4.0), (0.7, 0.05, 1.5)]
    expected = rule(lambda p, ref: ref, lambda p, b: 1 / (b * root(p)))
    return check(step, cases, expected, mistakes, name="amplification")
