"""Checkers for the exercises of chapter 12, on the mechanism of `exercises.check`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from checkers.check import check


def check_cache(cache: Callable[[int, int, int, int, int], float]) -> bool:
    """`cache(layers, kv_heads, head_dim, responses, tokens)`: bytes of keys and values in float32."""
    mistakes = {
        "half: keys alone or values alone, or two bytes a number, as in bfloat16": lambda *a: 4 * math.prod(a),
        "numbers, not bytes: a float32 has four": lambda *a: 2 * math.prod(a),
        "of one layer: every layer keeps its own": lambda layers, *a: 8 * math.prod(a),
        "of one response": lambda layers, heads, dim, responses, tokens: 8 * layers * heads * dim * tokens,
    }
    cases = [(24, 2, 64, 8, 1024), (3, 2, 32, 512, 112), (28, 4, 128, 1, 10)]
    return check(cache, cases, lambda *a: 8 * math.prod(a), mistakes, name="cache")


def check_spacing(smallest: Callable[[float], float]) -> bool:
    """`smallest(weight)`: from a positive weight to the next larger one in bfloat16."""

    def gap(weight: float, bits: int = 7) -> float:
        return 2.0 ** (math.floor(math.log2(weight)) - bits)

    mistakes = {
        "8 bits after the leading one: bfloat16 stores 7": lambda w: gap(w, 8),
        "the spacing of float16, which has 10 bits after the leading one": lambda w: gap(w, 10),
        "the spacing of float32, which has 23 bits after the leading one": lambda w: gap(w, 23),
        "the spacing at 1: neighbours of a small number are closer": lambda w: 2.0**-7,
        "in proportion to the weight itself: between two powers of two the spacing is the same": lambda w: w * 2.0**-7,
    }
    return check(smallest, [(0.02,), (1.0,), (3.7,), (0.0009,)], gap, mistakes, name="smallest")


def check_weighted(mean: Callable[[Sequence[float], Sequence[int]], float]) -> bool:
    """`mean(losses, tokens)`: the mean over all tokens, from each process's own mean."""

    def true(losses: Sequence[float], tokens: Sequence[int]) -> float:
        return sum(n * x for n, x in zip(tokens, losses, strict=True)) / sum(tokens)

    mistakes = {
        "the mean of the means: a process with few tokens counts too much": lambda x, n: sum(x) / len(x),
        "the sum over tokens, not yet divided by their number": lambda x, n: true(x, n) * sum(n),
        "divided by the processes: the tokens of all is what a mean over tokens divides by": lambda x, n: (
            true(x, n) * sum(n) / len(n)
        ),
        "weighed by one over the tokens": lambda x, n: true(x, [1 / k for k in n]),
    }
    cases = [([0.5, 0.1], [1000, 200]), ([2.0, 1.0, 4.0], [1, 2, 5]), ([0.3], [7])]
    return check(mean, cases, true, mistakes, name="mean")
