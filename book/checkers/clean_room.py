"""Checkers of chapter 08b's exercises: the clean room."""

from checkers.check import Solution, exercise

_WEIGHTS = ([1.0, 1 / 2, 1 / 3, 1 / 4], [0.25, 0.25, 0.25, 0.25], [1.0, 2.0, 3.0], [1.0, 0.5, 0.5, 0.25, 0.1, 0.1])


@exercise("rate", *((weights, q) for weights in _WEIGHTS for q in (0.1, 0.4)))
def check_rate(weights: list[float], q: float) -> Solution:
    """`rate(weights, q)`: the mean of score times weight, of a geometric length with a cap of `len(weights)` tokens."""
    cap = len(weights)
    places = range(1, cap + 1)
    chances = [q * (1 - q) ** (n - 1) for n in places]
    scores = [1 - q * n for n in places]
    ended = sum(p * s * w for p, s, w in zip(chances, scores, weights, strict=True))
    cut = (1 - q) ** cap
    mean_weight = sum(p * w for p, w in zip(chances, weights, strict=True)) + cut * weights[-1]
    equal_chances = sum(s * w for s, w in zip(scores, weights, strict=True)) / cap
    return ended - cut * q * cap * weights[-1], {
        "responses that are cut are left out: they have a score and a weight, too": ended,
        "a response that is cut has no end: its score is −qH, not 1 − qH": ended + cut * (1 - q * cap) * weights[-1],
        "the mean of the weights: it lacks the score": mean_weight,
        "a mean over lengths with equal chances: short responses are more frequent": equal_chances,
    }


_MOVES = ((18.9, 18.9), (30.0, 12.0)), ((20.0, 19.0), (41.0, 38.0)), ((20.0, 19.0), (9.0, 4.5))


@exercise("parts", *_MOVES)
def check_together(start: tuple[float, float], end: tuple[float, float]) -> Solution:
    """`parts(start, end)`: the drift that bad and good share, and how far they moved apart, of (bad, good) pairs."""
    bad, good = (now - before for now, before in zip(end, start, strict=True))
    return ((bad + good) / 2, bad - good), {
        "the gap at the end: take off what there was at the start": ((bad + good) / 2, end[0] - end[1]),
        "bad less good, not good less bad": ((bad + good) / 2, good - bad),
        "the sum of the changes: the drift is their mean": (bad + good, bad - good),
        "means at the end: a drift is a change": (sum(end) / 2, bad - good),
    }
