"""Checkers of chapter 03's exercises."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from checkers.check import check
from rlino_lib.analysis.pass_at_k import pass_at_k

# --- chapter 03: a base model to train -------------------------------------------------------------------------------


def check_pass_at_k(estimate: Callable[[int, int, int], float]) -> bool:
    """`estimate(n, c, k)`: the unbiased estimate of pass@k from n samples of which c are right."""
    cases = [(10, 3, 1), (10, 3, 2), (10, 0, 5), (10, 10, 1), (10, 8, 5), (5, 2, 3), (128, 4, 64)]
    mistakes = {
        "1 − (1 − c/n)^k draws with replacement, and is biased low": lambda n, c, k: 1 - (1 - c / n) ** k,
        "that is pass@1, whatever k is": lambda n, c, k: c / n,
        "that is the chance that all k are right": lambda n, c, k: math.comb(c, k) / math.comb(n, k),
        "that is the chance that none of the k is right": lambda n, c, k: math.comb(n - c, k) / math.comb(n, k),
        "k · c/n counts right samples, not the chance of one": lambda n, c, k: k * c / n,
    }
    return check(estimate, cases, pass_at_k, mistakes, name="pass_at_k")


_LOGPROBS = torch.tensor([[-0.5, -1.0, -3.0, -9.0], [-0.25, -2.0, -9.0, -9.0], [-1.0, -0.1, -0.4, -0.7]])  # [N, T]
_MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]]).bool()  # [N, T]


def check_mean_logprob(mean_logprob: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """`mean_logprob(logprobs, mask)`, both [N, T]: the mean over each response's own tokens, [N]."""
    mistakes = {
        "it divides by T, padding included": lambda lp, m: (lp * m).mean(1),
        "a sum over the tokens, not their mean": lambda lp, m: (lp * m).sum(1),
    }
    cases = [(_LOGPROBS, _MASK), (_LOGPROBS[:1], _MASK[:1])]
    return check(mean_logprob, cases, lambda lp, m: (lp * m).sum(1) / m.sum(1), mistakes, 1e-5, name="mean_logprob")


def check_perplexity(perplexity: Callable[[list[float]], float]) -> bool:
    """`perplexity(logprobs)`: exp of minus the mean log-probability (nats) of one response's tokens."""
    cases = [([-0.5, -1.0, -3.0],), ([-2.0],), ([0.0, 0.0],), ([-0.1, -0.2, -0.3, -0.4],)]
    mistakes = {
        "minus is missing: that is 1/perplexity": lambda lp: math.exp(np.mean(lp)),
        "a sum over the tokens, not their mean": lambda lp: math.exp(-sum(lp)),
        "the mean of 1/p: take the mean before exp": lambda lp: np.mean(np.exp(-np.array(lp))),
        "exp is missing: that is the mean surprise": lambda lp: -np.mean(lp),
    }
    return check(perplexity, cases, lambda lp: math.exp(-np.mean(lp)), mistakes, name="perplexity")
