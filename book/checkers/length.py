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
    right = survival(lengths, ended)["longer"].tolist()
    return right, {
        "a truncated response counts as one that ended there: how long it would be is not known": longer.mean(1),
        "truncated responses are left out: those are the long ones": longer[:, ended].mean(1),
        "at risk are all responses that are at least this long, those that end here too": np.cumprod(
            1 - ends / (longer.sum(1) + 1)
        ),
        "divided by all responses: only those at risk count at each step": np.cumprod(1 - ends / len(lengths)),
        "the share that is *not* longer": 1 - np.array(right),
    }


_GROWTH = (40.0, (0.1, 38.0), (0.4, 55.0), 112.0), (30.0, (0.0, 35.0), (0.0, 35.0), 64.0)


@exercise("parts", *_GROWTH, (50.0, (0.2, 45.0), (0.1, 30.0), 100.0))
def check_parts(start: float, between: tuple[float, float], now: tuple[float, float], cap: float) -> Solution:
    """`parts(start, between, now, cap)`: selection, truncated and longer, which add up to the growth.

    `start` is the base's mean length; `between` and `now` are pairs: the truncated share, and the mean of the rest.
    """
    share, rest = between
    share_now, rest_now = now
    selection = share * cap + (1 - share) * rest - start
    truncated = (share_now - share) * (cap - rest)
    longer = (1 - share_now) * (rest_now - rest)
    return (selection, truncated, longer), {
        "the sum does not close: weigh `longer` with the share that is not truncated now": (
            selection, truncated, (1 - share) * (rest_now - rest)
        ),
        "a truncated response has grown by the cap less the length that it would have had": (
            selection, (share_now - share) * cap, longer
        ),
        "selection compares means over all wrong responses, truncated ones too": (rest - start, truncated, longer),
        "selection is what the base would write now less what it wrote": (-selection, truncated, longer),
    }  # fmt: skip


_ATTEMPTS = (
    ([(12, "no"), (24, "no"), (30, "no")], 24, 3),
    ([(12, "no"), (20, "yes")], 24, 2),
    ([(12, "no"), (24, "yes")], 24, 1),
    ([(24, "yes"), (9, "no")], 24, 2),
    ([(1, "no"), (2, "no"), (24, "yes")], 24, 1),
    ([], 24, 3),
    ([(1, "no"), (24, "yes")], 24, 2),
)


@exercise("regrade", *_ATTEMPTS)
def check_regrade(attempts: list[tuple[int, str]], target: int, k: int) -> Solution:
    """`regrade(attempts, target, k)`: whether a solver that checks its own attempts is right within k of them.

    An attempt is its result and the verdict that the response gave it, "yes" or "no".
    """
    results = [result for result, _ in attempts]
    noticed = [result for result, verdict in attempts[:k] if verdict == "yes"]
    return target in results[:k], {
        "the response's own verdict: an overlooked hit is a hit, and a false yes is none": bool(noticed),
        "a hit counts only where it was noticed": target in noticed,
        "a hit after the budget is spent is too late": target in results,
        "the last attempt of the budget alone": target in results[:k][-1:],
        "one attempt too many": target in results[: k + 1],
    }
