"""Checkers for the exercises of chapter 08, on the mechanism of `exercises.check`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from checkers.check import check
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


def check_drift(drift: Callable[[Sequence[float]], int]) -> bool:
    """`drift(weights)`: where wrong responses go, given the factor of a token's weight at length 1, 2, 3, …

    1 if they drift longer, −1 if shorter, 0 if they stay. The factors rise, fall or stay throughout.
    """

    def sign(factors: Sequence[float]) -> int:
        gap = factors[0] - factors[-1]
        return (gap > 0) - (gap < 0)

    def total(factors: Sequence[float]) -> int:  # of the response: length times the weight of a token
        return -sign([n * f for n, f in enumerate(factors, 1)])

    mistakes = {
        "that is the drift of right responses: a penalty is escaped where a bonus is sought": lambda f: -sign(f),
        "the same for all: only a factor that depends on the length can tell lengths apart": lambda f: 1,
        "the total of a response's tokens: ∇log π already adds them up, W is the weight of one token": total,
        "none ever: 1/|o| is a factor that falls": lambda f: 0,
    }
    cases = [([f(n) for n in range(1, 9)],) for f in FACTORS.values()]
    return check(drift, cases, sign, mistakes, name="drift")


def check_survival(longer: Callable[[Sequence[int], Sequence[bool]], list[float]]) -> bool:
    """`longer(lengths, ended)`: by Kaplan and Meier, the share longer than each distinct length, in rising order."""

    def kaplan(lengths: Sequence[int], ended: Sequence[bool]) -> list[float]:
        return survival(lengths, ended)["longer"].tolist()

    def share(lengths: Sequence[int], ended: Sequence[bool], cut: bool = True) -> list[float]:
        kept = [n for n, e in zip(lengths, ended, strict=True) if cut or e]
        return [sum(n > at for n in kept) / len(kept) for at in sorted(set(lengths))]

    def at_risk(lengths: Sequence[int], ended: Sequence[bool], late: int = 0) -> list[float]:
        found, left = [], 1.0
        for at in sorted(set(lengths)):
            n = len(lengths) if late else sum(x > at for x in lengths) + 1
            left *= 1 - sum(x == at and e for x, e in zip(lengths, ended, strict=True)) / n
            found.append(left)
        return found

    mistakes = {
        "a cut response counts as one that ended there: what it would have had is not known": share,
        "cut responses left out: those are the long ones": lambda x, e: share(x, e, cut=False),
        "at risk are all that have not ended or been cut before, those of this length too": at_risk,
        "divided by all responses: only those at risk count at each step": lambda x, e: at_risk(x, e, late=1),
        "the share that is *not* longer": lambda x, e: [1 - s for s in kaplan(x, e)],
    }
    cases = [
        ([2, 3, 4, 6], [True, False, True, True]),
        ([5, 5, 8, 12, 12, 12], [True, True, True, False, False, False]),
        ([1, 2, 2, 3, 7, 7, 9], [True, False, True, True, False, True, True]),
    ]
    return check(longer, cases, kaplan, mistakes, name="longer")


def check_parts(parts: Callable[..., tuple[float, float, float]]) -> bool:
    """`parts(start, between, now, cap)`: selection, cut and longer, which add up to the growth.

    `start` is the base's mean length; `between` and `now` are pairs: the share that is cut, and the mean of the rest.
    """
    Pair = tuple[float, float]

    def mean(pair: Pair, cap: float) -> float:
        return pair[0] * cap + (1 - pair[0]) * pair[1]

    def true(start: float, between: Pair, now: Pair, cap: float) -> tuple[float, float, float]:
        (share, rest), (s, w) = between, now
        return mean(between, cap) - start, (s - share) * (cap - rest), (1 - s) * (w - rest)

    def swapped(start: float, between: Pair, now: Pair, cap: float) -> tuple[float, float, float]:
        (share, rest), (s, w) = between, now
        return mean(between, cap) - start, (s - share) * (cap - rest), (1 - share) * (w - rest)

    def by_cap(start: float, between: Pair, now: Pair, cap: float) -> tuple[float, float, float]:
        selection, _, longer = true(start, between, now, cap)
        return selection, (now[0] - between[0]) * cap, longer

    def without(start: float, between: Pair, now: Pair, cap: float) -> tuple[float, float, float]:
        return between[1] - start, *true(start, between, now, cap)[1:]

    mistakes = {
        "the sum does not close: weigh `longer` with the share that is not cut now": swapped,
        "a response that is cut has become longer by the cap less what it would have been": by_cap,
        "selection compares means over all wrong responses, cut ones too": without,
        "selection is what the base would write now less what it wrote": lambda *a: (-true(*a)[0], *true(*a)[1:]),
    }
    cases = [(40.0, (0.1, 38.0), (0.4, 55.0), 112.0), (30.0, (0.0, 35.0), (0.0, 35.0), 64.0),
             (50.0, (0.2, 45.0), (0.1, 30.0), 100.0)]  # fmt: skip
    return check(parts, cases, true, mistakes, name="parts")


def check_regrade(regrade: Callable[[Sequence[tuple[int, str]], int, int], bool]) -> bool:
    """`regrade(attempts, target, k)`: whether a solver that checks its own attempts is right within k of them.

    An attempt is its result and the verdict that the response gave it, "yes" or "no".
    """
    Attempts = Sequence[tuple[int, str]]

    def true(attempts: Attempts, target: int, k: int) -> bool:
        return any(result == target for result, _ in attempts[:k])

    mistakes = {
        "the response's own verdict: an overlooked hit is a hit, and a false yes is none": lambda a, t, k: any(
            verdict == "yes" for _, verdict in a[:k]
        ),
        "a hit counts only where it was noticed": lambda a, t, k: any(r == t and v == "yes" for r, v in a[:k]),
        "a hit after the budget is spent is too late": lambda a, t, k: true(a, t, len(a)),
        "the last attempt of the budget alone": lambda a, t, k: bool(a[:k]) and a[:k][-1][0] == t,
        "one attempt too many": lambda a, t, k: true(a, t, k + 1),
    }
    cases = [
        ([(12, "no"), (24, "no"), (30, "no")], 24, 3),
        ([(12, "no"), (20, "yes")], 24, 2),
        ([(12, "no"), (24, "yes")], 24, 1),
        ([(24, "yes"), (9, "no")], 24, 2),
        ([(1, "no"), (2, "no"), (24, "yes")], 24, 1),
        ([], 24, 3),
        ([(1, "no"), (24, "yes")], 24, 2),
    ]
    return check(regrade, cases, true, mistakes, name="regrade")
