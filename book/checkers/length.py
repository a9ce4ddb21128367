"""Checkers of chapter 08's exercises: length."""

import math
from collections.abc import Callable

import numpy as np

from checkers.check import Solution, exercise
from rlino_lib.analysis.growth import survival

# Factors of a token's weight, as functions of the length of its response: what stands in place of 1/|o|.
FACTORS: dict[str, Callable[[int], float]] = {
    "1/|o|": lambda n: 1 / n,
    "constant": lambda n: 0.1,
    "1/√|o|": lambda n: 1 / math.sqrt(n),
    "|o|": lambda n: n,
    "1/(|o| + 100)": lambda n: 1 / (n + 100),
    "log(1 + |o|)": lambda n: math.log1p(n),
}


@exercise("drift", *(([factor(n) for n in range(1, 9)],) for factor in FACTORS.values()))
def check_drift(weights: list[float]) -> Solution:
    """`drift(weights)`: where wrong responses go, given the factor of a token's weight at length 1, 2, 3, …

    1 if they drift longer, −1 if shorter, 0 if they stay. The factors rise, fall or stay throughout.
    """
    right = np.sign(weights[0] - weights[-1])
    totals = np.sign(weights[-1] * len(weights) - weights[0])
    return int(right), {
        "that is the drift of right responses: a penalty is escaped where a bonus is sought": -right,
        "the same for all: only a factor that depends on the length can tell lengths apart": 1,
        "the total of a response's tokens: ∇log π already adds them up, W is the weight of one token": totals,
        "none ever: 1/|o| is a factor that falls": 0,
    }


_RECORDS = (
    ([2, 3, 4, 6], [True, False, True, True]),
    ([5, 5, 8, 12, 12, 12], [True, True, True, False, False, False]),
    ([1, 2, 2, 3, 7, 7, 9], [True, False, True, True, False, True, True]),
)


@exercise("longer", *_RECORDS)
def check_survival(lengths: list[int], ended: list[bool]) -> Solution:
    """`longer(lengths, ended)`: by Kaplan and Meier, the share longer than each distinct length, in rising order."""
    at = np.unique(lengths)[:, None]  # [D, 1], beside all responses [N]
    ends = ((lengths == at) & ended).sum(1)  # [D]
    longer = lengths > at  # [D, N]
    missed = np.cumprod(1 - ends / (longer.sum(1) + 1))
    right = survival(lengths, ended)["longer"].tolist()
    return right, {
        "a truncated response counts as one that ended there: how long it would be is not known": longer.mean(1),
        "truncated responses are left out: those are the long ones": longer[:, ended].mean(1),
        "at risk are all responses that are at least this long, those that end here too": missed,
        "divided by all responses: only those at risk count at each step": np.cumprod(1 - ends / len(lengths)),
        "the share that is *not* longer": 1 - np.array(right),
    }
