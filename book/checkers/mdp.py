"""Checkers of chapter 01's exercises: language models as MDPs."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np

from checkers.check import Solution, exercise
from rlino_lib.tasks.countdown.mdp import actions, uniform_value


@exercise("count_responses", (2, 1), (2, 3), (3, 2), (3, 4), (5, 3), (374, 2))
def check_count_responses(v: int, h: int) -> Solution:
    """`count(V, H)`: responses over V tokens, one of them EOS, that end at EOS or after H tokens."""
    ended = sum((v - 1) ** t for t in range(h))
    cut = (v - 1) ** h
    return ended + cut, {
        "V^H counts strings that go on after EOS": v**h,
        "only responses that fill the horizon: many end before it": (v - 1) ** (h - 1) * v,
        "responses truncated at H, without EOS, are missing": ended,
        "only responses truncated at H are counted": cut,
        "EOS is counted as a token that can be followed": sum(v**t for t in range(h + 1)),
        "the empty response: EOS alone is counted already": 1 + ended + cut,
    }


_STEPS = ([0.5, 0.25, 0.75], 1.0), ([0.5, 0.25, 0.75], 0.0), ([0.1], 1.0), ([0.2, 0.9, 0.9, 0.4], 1.0)


@exercise("step_advantages", *_STEPS, tolerance=1e-9)
def check_step_advantages(values: list[float], reward: float) -> Solution:
    """`step_advantages(values, reward)`: V(s_0) … V(s_T−1) and the reward of the end in, A(s_t, a_t) for each t out."""
    right = np.diff([*values, reward])
    gap = reward - values[0]
    n = len(values)
    return right, {
        "r − V(s_t) for each step: a return minus a baseline, which also counts later steps": reward - np.array(values),
        "uniform credit, (r − V(s_0)) / T": [gap / n] * n,
        "r − V(s_0) at every step: the response's advantage": [gap] * n,
        "the last step is missing: it leads to the reward": right[:-1],
        "the value after the last token is 0 here, not the reward": np.diff([*values, 0.0]),
        "the reward comes on top of the last value: V after the end is 0": np.diff([*values, reward + values[-1]]),
    }


_COIN = np.array([0.5, 0.5])
_SKEWED = np.array([0.7, 0.2, 0.1])
_GAMES = (_COIN, np.eye(2)), (_SKEWED, np.eye(3)), (_COIN, np.array([[1.0, 0.4], [1.0, 0.0]]))


@exercise("worth_of_seeing", *_GAMES, (_SKEWED, np.array([[0.2, 0.8], [1.0, 0.3], [0.5, 0.5]])), tolerance=1e-9)
def check_seeing(p: np.ndarray, rewards: np.ndarray) -> Solution:
    """`gain(p, R)`: what it is worth to see the observation o ~ p [O] before the action, with rewards R [O, A]."""
    with_sight = p @ rewards.max(1)
    without = (p @ rewards).max()
    return with_sight - without, {
        "the value with sight: take off the value without": with_sight,
        "the value without sight, not the difference": without,
        "the best reward of all: the observation is not chosen": rewards.max() - without,
        "every observation counts alike: weigh them by p": rewards.max(1).mean() - rewards.mean(0).max(),
        "without sight one action is chosen, not one at random": with_sight - (p @ rewards).mean(),
    }


def _play(state: tuple[int, ...], target: int, value: Callable[[list[tuple]], Fraction]) -> Fraction:
    """The value of a state from what its actions lead to, pairs of a state and its value."""
    if len(state) == 1:
        return Fraction(state[0] == target)
    return value([(rest, _play(rest, target, value)) for _, rest in actions(state)])


def _anywhere(state: tuple[int, ...], target: int) -> float:
    if target in state:
        return 1.0
    after = [_anywhere(rest, target) for _, rest in actions(state)]
    return sum(after) / len(after) if after else 0.0


@exercise("random_play", ((2, 4, 8), 64), ((2, 2, 4), 8), ((3, 5), 15), ((7,), 7), ((1, 1, 2), 2), ((2, 3), 99),
          tolerance=1e-9)  # fmt: skip
def check_random_play(state: tuple[int, ...], target: int) -> Solution:
    """`value(state, target)`: the chance that uniformly drawn operations end at the target (use `actions`)."""
    over_states = _play(state, target, lambda after: sum(dict(after).values()) / len(dict(after)))
    return float(uniform_value(state, target)), {
        "the best action's value: that is V*": _play(state, target, lambda after: max(v for _, v in after)),
        "a sum over actions, not their mean": _play(state, target, lambda after: sum(v for _, v in after)),
        "it draws among states: two actions may lead to one state, which is then likelier": over_states,
        "any number on the way may be the target: all numbers have to be used": _anywhere(state, target),
    }
