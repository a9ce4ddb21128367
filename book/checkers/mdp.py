"""Checkers for the exercises of chapter 01, on the mechanism of `exercises.check`."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from checkers.check import check
from rlino_lib.tasks.countdown.mdp import actions, uniform_value


def check_count_responses(count: Callable[[int, int], int]) -> bool:
    """`count(V, H)`: responses over V tokens, one of them EOS, that end at EOS or after H tokens."""
    cases = [(2, 1), (2, 3), (3, 2), (3, 4), (5, 3), (374, 2)]
    mistakes = {
        "V^H counts strings that go on after EOS": lambda v, h: v**h,
        "only responses that fill the horizon: many end before it": lambda v, h: (v - 1) ** (h - 1) * v,
        "responses cut at H, without EOS, are missing": lambda v, h: sum((v - 1) ** k for k in range(h)),
        "only responses cut at H are counted": lambda v, h: (v - 1) ** h,
        "EOS is counted as a token that can be followed": lambda v, h: sum(v**k for k in range(h + 1)),
        "the empty response: EOS alone is counted already": lambda v, h: 1 + sum((v - 1) ** k for k in range(h + 1)),
    }
    return check(count, cases, lambda v, h: sum((v - 1) ** k for k in range(h + 1)), mistakes, name="count_responses")


def check_back_up(back_up: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """`back_up(probs, after)`, both [S, V]: the values [S] of S states from those that their V actions lead to."""
    probs = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], dtype=torch.float64)  # [S, V]
    after = torch.tensor([[0.0, 1.0, 0.5], [0.25, 0.0, 1.0]], dtype=torch.float64)  # [S, V]
    mistakes = {
        "the best action's value: that is V* where V^π was asked": lambda p, a: a.amax(1),
        "all actions count alike: weigh them by the policy": lambda p, a: a.mean(1),
        "a sum over states, not over actions: which dimension?": lambda p, a: (p * a).sum(0),
        "a mean of π · V: the probabilities already sum to 1": lambda p, a: (p * a).mean(1),
        "no sum over the actions yet": lambda p, a: p * a,
        "the value after the likeliest action alone": lambda p, a: a.gather(1, p.argmax(1, keepdim=True))[:, 0],
    }
    cases = [(probs, after), (probs[:1], after[:1]), (probs, 1 - after)]
    return check(back_up, cases, lambda p, a: (p * a).sum(1), mistakes, 1e-9, name="back_up")


def check_step_advantages(step_advantages: Callable[[list[float], float], list[float]]) -> bool:
    """`step_advantages(values, reward)`: V(s_0) … V(s_T−1) and the reward of the end in, A(s_t, a_t) for each t out."""
    cases = [([0.5, 0.25, 0.75], 1.0), ([0.5, 0.25, 0.75], 0.0), ([0.1], 1.0), ([0.2, 0.9, 0.9, 0.4], 1.0)]

    def right(v: list[float], r: float) -> list[float]:
        return [b - a for a, b in zip(v, [*v[1:], r], strict=True)]

    mistakes = {
        "the sign is the wrong way round: what follows minus what was": lambda v, r: [-x for x in right(v, r)],
        "r − V(s_t) for each step: a return minus a baseline, which also counts later steps": lambda v, r: [
            r - x for x in v
        ],
        "uniform credit, (r − V(s_0)) / T": lambda v, r: [(r - v[0]) / len(v)] * len(v),
        "r − V(s_0) at every step: the response's advantage": lambda v, r: [r - v[0]] * len(v),
        "the last step is missing: it leads to the reward": lambda v, r: right(v, r)[:-1],
        "the value after the last token is 0 here, not the reward": lambda v, r: right(v, 0.0),
        "the reward comes on top of the last value: V after the end is 0": lambda v, r: right(v, r + v[-1]),
    }
    return check(step_advantages, cases, right, mistakes, 1e-9, name="step_advantages")


def check_arm_logprob(arm_logprob: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """`arm_logprob(logprobs, mask)`, both [N, T]: log π(o | q) of each whole response, [N]."""
    logprobs = torch.tensor([[-0.5, -1.0, -3.0], [-0.2, -9.0, -9.0], [-0.7, -0.1, -9.0]])  # [N, T], −9 where masked
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]]).bool()  # [N, T]
    mistakes = {
        "padding is summed too: use the mask": lambda lp, m: lp.sum(1),
        "a mean over the tokens: a product of probabilities is a sum of logs": lambda lp, m: (lp * m).sum(1) / m.sum(1),
        "the probability, not its log": lambda lp, m: (lp * m).sum(1).exp(),
        "a product of logs: multiply probabilities, or add logs": lambda lp, m: torch.where(m, lp, 1).prod(1),
        "a sum over responses: which dimension?": lambda lp, m: (lp * m).sum(0),
        "log of a sum of probabilities: they multiply": lambda lp, m: torch.where(m, lp, -torch.inf).logsumexp(1),
    }
    cases = [(logprobs, mask), (logprobs[:2], mask[:2])]
    return check(arm_logprob, cases, lambda lp, m: (lp * m).sum(1), mistakes, 1e-5, name="arm_logprob")


def check_seeing(gain: Callable[[np.ndarray, np.ndarray], float]) -> bool:
    """`gain(p, R)`: what it is worth to see the observation o ~ p [O] before the action, with rewards R [O, A]."""

    def seen(p, r) -> float:
        return float(p @ r.max(1))

    def blind(p, r) -> float:
        return float((p @ r).max())

    coin, skewed = np.array([0.5, 0.5]), np.array([0.7, 0.2, 0.1])
    cases = [(coin, np.eye(2)), (skewed, np.eye(3)), (coin, np.array([[1.0, 0.4], [1.0, 0.0]]))]
    cases += [(skewed, np.array([[0.2, 0.8], [1.0, 0.3], [0.5, 0.5]]))]
    mistakes = {
        "the value with sight: take off the value without": seen,
        "the value without sight, not the difference": blind,
        "the sign: seeing never costs anything": lambda p, r: blind(p, r) - seen(p, r),
        "the best reward of all: the observation is not chosen": lambda p, r: r.max() - blind(p, r),
        "every observation counts alike: weigh them by p": lambda p, r: r.max(1).mean() - r.mean(0).max(),
        "without sight one action is chosen, not one at random": lambda p, r: seen(p, r) - (p @ r).mean(),
    }
    return check(gain, cases, lambda p, r: seen(p, r) - blind(p, r), mistakes, 1e-9, name="worth_of_seeing")


def check_random_play(value: Callable[[tuple[int, ...], int], float]) -> bool:
    """`value(state, target)`: the chance that uniformly drawn operations end at the target (use `actions`)."""

    def wrong(average: Callable, end: Callable = lambda n, t: Fraction(n == t)) -> Callable:
        def of(state, target):
            if len(state) == 1:
                return end(state[0], target)
            return average([(rest, of(rest, target)) for _, rest in actions(state)])

        return lambda state, target: float(of(state, target))

    cases = [((2, 4, 8), 64), ((2, 2, 4), 8), ((3, 5), 15), ((7,), 7), ((1, 1, 2), 2), ((2, 3), 99)]
    mistakes = {
        "the best action's value: that is V*": wrong(lambda found: max(v for _, v in found)),
        "a sum over actions, not their mean": wrong(lambda found: sum(v for _, v in found)),
        "it draws among states: two actions may lead to one state, which is then likelier": wrong(
            lambda found: sum(dict(found).values()) / len(dict(found))
        ),
        "any number on the way may be the target: all numbers have to be used": lambda state, target: _anywhere(
            state, target
        ),
    }
    return check(value, cases, lambda s, t: float(uniform_value(s, t)), mistakes, 1e-9, name="random_play")


def _anywhere(state: tuple[int, ...], target: int) -> float:
    if target in state:
        return 1.0
    after = [_anywhere(rest, target) for _, rest in actions(state)]
    return sum(after) / len(after) if after else 0.0
