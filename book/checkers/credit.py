"""Checkers of chapter 10's exercises: credit that is not uniform."""

import numpy as np

from checkers.check import Solution, exercise

_VALUES = [0.5, 0.25, 0.75], [0.2, 0.9, 0.9, 0.4], [0.1], [0.3, 0.6]


def _summed(deltas: np.ndarray, lam: float) -> np.ndarray:
    """Of each place, the sum of it and what follows, times λ for each place ahead."""
    ahead = np.arange(len(deltas)) - np.arange(len(deltas))[:, None]  # [T, T]
    return np.where(ahead < 0, 0, float(lam) ** np.maximum(ahead, 0)) @ deltas


@exercise("gae", (1.0, _VALUES[0], 0.5), (0.0, _VALUES[1], 0.9), (1.0, _VALUES[2], 0.5), (1.0, _VALUES[1], 0.0),
          (1.0, _VALUES[3], 1.0))  # fmt: skip
def check_gae(reward: float, values: list[float], lam: float) -> Solution:
    """`gae(reward, values, lam)`: V(s_0) … V(s_T−1) and the reward of the end in, Â(s_t, a_t) for each t out; γ = 1."""
    deltas = np.diff([*values, reward])
    right = _summed(deltas, lam)
    return right, {
        "λ is missing: this is the difference of neighbouring values, as λ = 0 has it": deltas,
        "λ is missing: this is r − V(s_t), as λ = 1 has it": reward - np.array(values),
        "only one step ahead, δ_t + λ δ_t+1: the sum goes on to the end": deltas + lam * np.append(deltas[1:], 0),
        "the sum runs from the front: it goes from the last token back": _summed(deltas[::-1], lam)[::-1],
        "the return, the advantage plus V(s_t): that is the critic's target": right + values,
        "the value after the last token is 0, and the reward comes there": _summed(np.diff([*values, 0.0]), lam),
        "the reward comes at every token, not at the last alone": _summed(np.diff([*values, 0.0]) + reward, lam),
        "δ_t is missing: the sum begins at t + 1": right - deltas,
        "a mean with weights that sum to 1: GAE is a sum": (1 - lam) * right,
    }


@exercise("vine_advantages", *((r, v) for r, v in zip((1.0, 0.0, 1.0, 1.0), _VALUES, strict=True)))
def check_vine_advantages(reward: float, values: list[float]) -> Solution:
    """`vine_advantages(reward, values)`: the values V̂ before each of T steps and the reward in, T advantages out."""
    right = np.diff([*values, reward])
    gap = reward - values[0]
    return right, {
        "r − V̂(s_k) for each step: a return minus a baseline, GAE's λ = 1": reward - np.array(values),
        "r − V̂(s_0) on every step: that is uniform credit": [gap] * len(values),
        "(r − V̂(s_0)) / T on every step: the sum is right, but nothing is assigned": [gap / len(values)] * len(values),
        "the last step is missing: it leads to the reward": right[:-1],
        "after the last step nothing is left to come, and the reward is paid there": np.diff([*values, 0.0]),
        "the first step begins at V̂(s_0), not at 0": np.diff([0.0, *values[1:], reward]),
        "the difference to the step before: V̂(s_k) − V̂(s_k−1) belongs to step k − 1": np.diff([0.0, *values]),
        "the reward comes on top of the last value: V̂ after the end is 0": np.diff([*values, reward + values[-1]]),
    }
