"""Checkers of chapter 12's exercises: at scale."""

import math

import numpy as np

from checkers.check import Solution, exercise


@exercise("cache", (24, 2, 64, 8, 1024), (3, 2, 32, 512, 112), (28, 4, 128, 1, 10))
def check_cache(layers: int, kv_heads: int, head_dim: int, responses: int, tokens: int) -> Solution:
    """`cache(layers, kv_heads, head_dim, responses, tokens)`: bytes of keys and values in float32."""
    numbers = layers * kv_heads * head_dim * responses * tokens  # of keys alone
    return 8 * numbers, {
        "half: keys alone or values alone, or two bytes a number, as in bfloat16": 4 * numbers,
        "numbers, not bytes: a float32 has four": 2 * numbers,
        "of one layer: every layer keeps its own": 8 * numbers // layers,
        "of one response": 8 * numbers // responses,
    }


@exercise("smallest", (0.02,), (1.0,), (3.7,), (0.0009,))
def check_spacing(weight: float) -> Solution:
    """`smallest(weight)`: from a positive weight to the next larger one in bfloat16."""
    power = 2.0 ** math.floor(math.log2(weight))
    return power * 2**-7, {
        "8 bits after the leading one: bfloat16 stores 7": power * 2**-8,
        "the spacing of float16, which has 10 bits after the leading one": power * 2**-10,
        "the spacing of float32, which has 23 bits after the leading one": power * 2**-23,
        "the spacing at 1: neighbours of a small number are closer": 2**-7,
        "in proportion to the weight itself: between two powers of two the spacing is the same": weight * 2**-7,
    }


@exercise("mean", ([0.5, 0.1], [1000, 200]), ([2.0, 1.0, 4.0], [1, 2, 5]), ([0.3], [7]))
def check_weighted(losses: list[float], tokens: list[int]) -> Solution:
    """`mean(losses, tokens)`: the mean over all tokens, from each process's own mean."""
    total = np.dot(losses, tokens)
    return total / sum(tokens), {
        "the mean of the means: a process with few tokens counts too much": np.mean(losses),
        "the sum over tokens, not yet divided by their number": total,
        "divided by the processes: a mean over tokens divides by the tokens of all": total / len(tokens),
        "weighed by one over the tokens": np.average(losses, weights=1 / np.array(tokens)),
    }
