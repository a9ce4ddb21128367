"""Checkers of chapter 13's exercises: regression to the mean, truncation as an outcome, pooled and within."""

from statistics import mean

from checkers.check import Solution, exercise

_LUCK = [
    [0.0, 0.25, 0.0, 0.25, 0.125],
    [0.0, 0.125, 0.25, 0.25, 0.5],
    [0.5, 0.25, 0.75, 0.5, 0.5],
    [1.0, 0.75, 0.75, 0.625, 0.875],
    [0.0, 0.5, 0.25, 0.0, 0.125, 0.75],
]


@exercise("gain", (_LUCK, 0.0, 0.125), (_LUCK, 0.5, 1.0), (_LUCK, 0.0, 0.0))
def check_gain(visits: list[list[float]], low: float, high: float) -> Solution:
    """`gain(visits, low, high)`: the mean gain of prompts whose share on visits 1 and 3 is from `low` to `high`."""
    taken = [v for v in visits if low <= (v[0] + v[2]) / 2 <= high]

    def gain(start) -> float:
        return mean(v[-1] - start(v) for v in taken)

    inner = [v[-1] - (v[1] + v[3]) / 2 for v in visits if low < (v[0] + v[2]) / 2 < high]
    later = [v[-1] - (v[1] + v[3]) / 2 for v in visits if low <= (v[1] + v[3]) / 2 <= high]
    return gain(lambda v: (v[1] + v[3]) / 2), {
        "the start on the visits that sorted: regression to the mean counts as gain": gain(lambda v: (v[0] + v[2]) / 2),
        "visit 1 as the start: it also sorted": gain(lambda v: v[0]),
        "sorted by visits 2 and 4, which measure the start": mean(later or [0.0]),
        "the prompts at `low` and at `high` belong to it": mean(inner or [0.0]),
        "the share at the end, not the gain": mean(v[-1] for v in taken),
    }


_CUT = (
    ([30, 50, 40, 100, 60], [True, True, False, False, False], [False, False, False, True, False], 200),
    ([20, 80, 80, 10], [True, False, False, False], [False, True, True, False], 300),
    ([20, 40, 70], [True, True, False], [False, False, False], 500),
)  # fmt: skip


@exercise("bounds", *_CUT)
def check_bounds(lengths: list[int], correct: list[bool], truncated: list[bool], longest: int) -> Solution:
    """`bounds(lengths, correct, truncated, longest)`: the least and the largest mean of wrong less right lengths."""
    rows = list(zip(lengths, correct, truncated, strict=True))
    right = mean(n for n, ok, _ in rows if ok)
    least = mean(n for n, ok, _ in rows if not ok) - right
    most = mean(longest if cut else n for n, ok, cut in rows if not ok) - right
    ended = mean(n for n, ok, cut in rows if not (ok or cut)) - right
    everyone = mean(longest for _, ok, _ in rows if not ok) - right
    return (least, most), {
        "truncated responses are dropped, which selects on the outcome": (ended, ended),
        "the lower bound without truncated ones: they have their recorded length at least": (ended, most),
        "only truncated responses can be longer than recorded": (least, everyone),
        "the least first, then the largest": (most, least),
        "wrong less right, not right less wrong": (-most, -least),
    }


_PLAIN = [("a", True, 10), ("a", False, 14), ("b", True, 20), ("b", False, 20), ("b", False, 26), ("c", False, 50)]
_SIMPSON = [
    ("easy", True, 10), ("easy", True, 12), ("easy", True, 11), ("easy", False, 7),
    ("hard", True, 42), ("hard", False, 40), ("hard", False, 38), ("hard", False, 36), ("never", False, 60),
]  # fmt: skip


@exercise("gaps", (_PLAIN,), (_SIMPSON,))
def check_pooled_and_within(responses: list[tuple[str, bool, float]]) -> Solution:
    """`gaps(responses)`: mean length of wrong less right, pooled, and as a mean over problems that have both."""

    def gap(rows) -> float:
        return mean(n for _, ok, n in rows if not ok) - mean(n for _, ok, n in rows if ok)

    problems = [[row for row in responses if row[0] == name] for name in dict.fromkeys(row[0] for row in responses)]
    mixed = [rows for rows in problems if len({ok for _, ok, _ in rows}) == 2]
    pooled, within = gap(responses), mean(map(gap, mixed))
    together = [row for rows in mixed for row in rows]
    weights = [len(rows) for rows in mixed]
    weighted = sum(w * gap(rows) for w, rows in zip(weights, mixed, strict=True)) / sum(weights)
    diluted = within * len(mixed) / len(problems)
    return (pooled, within), {
        "within: mixed problems are pooled again; take each one's own difference first": (pooled, gap(together)),
        "within: a problem counts once, however many responses it has": (pooled, weighted),
        "within: divided by all problems; those of one kind have no difference": (pooled, diluted),
        "within first, then pooled: the other way round": (within, pooled),
    }  # fmt: skip
