"""Checkers of chapter 03's exercises: a base model to train."""

import math

import numpy as np

from checkers.check import Solution, exercise
from rlino_lib.analysis.pass_at_k import pass_at_k


@exercise("pass_at_k", (10, 3, 1), (10, 3, 2), (10, 0, 5), (10, 10, 1), (10, 8, 5), (5, 2, 3), (128, 4, 64))
def check_pass_at_k(n: int, c: int, k: int) -> Solution:
    """`estimate(n, c, k)`: the unbiased estimate of pass@k from n samples of which c are right."""
    return pass_at_k(n, c, k), {
        "1 − (1 − c/n)^k draws with replacement, and is biased low": 1 - (1 - c / n) ** k,
        "that is pass@1, whatever k is": c / n,
        "that is the chance that all k are right": math.comb(c, k) / math.comb(n, k),
        "that is the chance that none of the k is right": math.comb(n - c, k) / math.comb(n, k),
        "k · c/n counts right samples, not the chance of one": k * c / n,
    }


@exercise("perplexity", ([-0.5, -1.0, -3.0],), ([-2.0],), ([0.0, 0.0],), ([-0.1, -0.2, -0.3, -0.4],))
def check_perplexity(logprobs: list[float]) -> Solution:
    """`perplexity(logprobs)`: exp of minus the mean log-probability (nats) of one response's tokens."""
    mean = np.mean(logprobs)
    return math.exp(-mean), {
        "minus is missing: that is 1/perplexity": math.exp(mean),
        "a sum over the tokens, not their mean": math.exp(-sum(logprobs)),
        "the mean of 1/p: take the mean before exp": np.mean(np.exp(-np.array(logprobs))),
        "exp is missing: that is the mean surprise": -mean,
    }
