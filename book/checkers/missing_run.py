"""Checkers of chapter 08c's exercises: the run that was missing."""

from checkers.check import Solution, exercise

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
    loose = (1 - share) * (rest_now - rest)
    return (selection, truncated, longer), {
        "the sum does not close: weigh `longer` by the share that is not truncated now": (selection, truncated, loose),
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
