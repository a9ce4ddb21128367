"""The checkers of chapters 09 and 09b: right answers by other means pass."""

from __future__ import annotations

import itertools
import math

import pandas as pd

from checkers import chains, sharpening
from rlino_lib.analysis.chains import chain_advantages
from rlino_lib.analysis.pass_at_k import pass_at_k, variance
from tests.mistakes import assert_right_answers_pass

CHECKERS = {
    name: f for part in (sharpening, chains) for name, f in vars(part).items() if name.startswith("check_")
}  # fmt: skip


def bias(n, p, k):
    """Against the unbiased estimate, whose mean is the true one."""
    chances = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    return sum(w * (1 - (1 - c / n) ** k - pass_at_k(n, c, k)) for c, w in enumerate(chances))


def chance_discoveries(p, n):
    return sum(2 * (1 - x) ** n - 2 * (1 - x) ** (2 * n) for x in p) / 2


def tilt(p, beta):
    odds = math.exp(1 / beta) * p / (1 - p) if p < 1 else math.inf
    return odds / (1 + odds) if p < 1 else 1.0


def branching(nodes, edges):
    pairs = itertools.combinations(edges, 2)
    return len({a for (a, _), (b, _) in pairs if a == b}) / nodes


def mean_advantage(rewards, chain_right):
    """By the formula of 2506.14245, with the two conditional rewards."""
    frame = pd.DataFrame({"group": 0, "reward": rewards, "chain_right": chain_right})
    return chain_advantages(frame, eps=0.0)["right"].item()


RIGHT = {
    "check_bias": bias,
    "check_deviation": lambda n, p: math.sqrt(variance(n, p, n)),
    "check_chance_discoveries": chance_discoveries,
    "check_tilt": tilt,
    "check_branching": branching,
    "check_mean_advantage": mean_advantage,
}


def test_right_answers_pass(capsys):
    assert_right_answers_pass(CHECKERS, RIGHT, capsys)
