"""Checkers of chapter 03's exercises: a base model to train."""

import math

import numpy as np
import torch
from torch import Tensor

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


_LOGPROBS = torch.tensor([[-0.5, -1.0, -3.0, -9.0], [-0.25, -2.0, -9.0, -9.0], [-1.0, -0.1, -0.4, -0.7]])  # [N, T]
MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]]).bool()  # [N, T]


@exercise("mean_logprob", (_LOGPROBS, MASK), (_LOGPROBS[:1], MASK[:1]), tolerance=1e-5)
def check_mean_logprob(logprobs: Tensor, mask: Tensor) -> Solution:
    """`mean_logprob(logprobs, mask)`, both [N, T]: the mean over each response's own tokens, [N]."""
    total = (logprobs * mask).sum(1)  # [N]
    return total / mask.sum(1), {
        "it divides by T, padding included": total / mask.shape[1],
        "a sum over the tokens, not their mean": total,
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
