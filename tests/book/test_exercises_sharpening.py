"""The checkers of chapter 09: right answers by other means pass."""

from __future__ import annotations

import math

from checkers import sharpening
from rlino_lib.analysis.pass_at_k import pass_at_k
from tests.mistakes import assert_right_answers_pass

CHECKERS = {name: f for name, f in vars(sharpening).items() if name.startswith("check_")}


def bias(n, p, k):
    """Against the unbiased estimate, whose mean is the true one."""
    chances = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    return sum(w * (1 - (1 - c / n) ** k - pass_at_k(n, c, k)) for c, w in enumerate(chances))


def deviation(n, p):
    """Over the binomial of how many are right; the estimate of pass@n is whether any is."""
    chances = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    estimates = [pass_at_k(n, c, n) for c in range(n + 1)]
    mean = sum(w * x for w, x in zip(chances, estimates, strict=True))
    return math.sqrt(sum(w * (x - mean) ** 2 for w, x in zip(chances, estimates, strict=True)))


def chance_discoveries(p, n):
    return sum(2 * (1 - x) ** n - 2 * (1 - x) ** (2 * n) for x in p) / 2


def tilt(p, beta):
    odds = math.exp(1 / beta) * p / (1 - p) if p < 1 else math.inf
    return odds / (1 + odds) if p < 1 else 1.0


RIGHT = {
    "check_bias": bias,
    "check_deviation": deviation,
    "check_chance_discoveries": chance_discoveries,
    "check_tilt": tilt,
}


def test_right_answers_pass(capsys):
    assert_right_answers_pass(CHECKERS, RIGHT, capsys)
