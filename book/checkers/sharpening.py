"""Checkers of chapter 09's exercises: pass@k and its errors, coverage, and tilting."""

import math

import numpy as np
import scipy.stats

from checkers.check import Solution, exercise
from rlino_lib.analysis.coverage import tilted


@exercise("bias", (64, 0.01, 64), (16, 0.05, 8), (8, 0.5, 4), (32, 0.02, 4))
def check_bias(n: int, p: float, k: int) -> Solution:
    """`bias(n, p, k)`: the expected value of 1 − (1 − c/n)^k less the true pass@k, where each of n samples has p."""
    counts = np.arange(n + 1)
    chances = scipy.stats.binom.pmf(counts, n, p)
    plug_in = 1 - (1 - counts / n) ** k
    expected = float(chances @ plug_in)
    true = 1 - (1 - p) ** k
    return expected - true, {
        "true less expected: the bias is the other way round": true - expected,
        "that is the expected value itself: take off the true pass@k": expected,
        "counts have binomial chances, not equal ones": float(plug_in.mean()) - true,
        "that puts the mean count into the formula, and the mean of a formula is another": 0.0,
    }


@exercise("deviation", (64, 0.01), (16, 0.05), (4, 0.5), (1024, 0.0005))
def check_deviation(n: int, p: float) -> Solution:
    """`deviation(n, p)`: the standard deviation of the unbiased estimate of pass@n from n samples, of one problem."""
    solved = 1 - (1 - p) ** n
    return math.sqrt(solved * (1 - solved)), {
        "that is the variance: take its root": solved * (1 - solved),
        "that is the deviation of pass@1; at k = n the estimate is whether any sample is right": math.sqrt(
            p * (1 - p) / n
        ),
        "that is the chance that the estimate is 1": solved,
        "one problem has one estimate: there is no division by n": math.sqrt(solved * (1 - solved) / n),
    }


_CHANCES = ([0.0, 0.001, 0.01, 0.5], 64), ([0.02] * 5, 64), ([0.001, 0.003], 1024), ([1.0, 0.0, 0.1], 4)


@exercise("chance_discoveries", *_CHANCES)
def check_chance_discoveries(p: list[float], n: int) -> Solution:
    """`chance_discoveries(p, n)`: of problems with chances `p`, how many to expect that n samples leave unsolved and n
    more of the same model solve."""
    missed = (1 - np.array(p)) ** n
    return float((missed * (1 - missed)).sum()), {
        "those that either of the two solves alone: twice as many": float(2 * (missed * (1 - missed)).sum()),
        "those that are unsolved at first: not all of them are solved later": float(missed.sum()),
        "a share of the problems, not their number": float((missed * (1 - missed)).mean()),
        "those that 2n samples solve: the first n have to fail": float((1 - missed**2).sum()),
    }


@exercise("tilt", (0.02, 1.0), (0.5, 0.5), (0.0, 0.1), (1.0, 2.0), (0.9, 3.0))
def check_tilt(p: float, beta: float) -> Solution:
    """`tilt(p, beta)`: the chance of a right answer under π ∝ π_base·exp(r/beta), where it is p under π_base."""
    factor = math.exp(1 / beta)
    return float(tilted(p, beta)), {
        "the sum of all probabilities is no longer 1: divide by it": p * factor,
        "β stands in the denominator: r/β": p * math.exp(beta) / (1 + p * (math.exp(beta) - 1)),
        "that favours wrong answers": p / (p + (1 - p) * factor),
        "wrong answers keep their weight of 1 − p, not 1": p * factor / (p * factor + 1),
    }
