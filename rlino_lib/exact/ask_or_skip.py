"""When to ask a language model: a bandit beside it, and no LLM-MDP (chapter 11; LaGR-SEQ 2308.13542).

A solver extends a partial solution one step at a time. A frozen language model, asked after n steps, completes it
rightly with a chance q_n that grows with n. A second learner chooses by n alone: ask, for +1 if the completion is right
and −1 if it is wrong, or skip, for 0. No weight of the model moves and no token is an action: it is a contextual bandit
with N contexts and two arms, whose optimum asks where q_n > 1/2.

With a discount γ > 0 later questions count too. A right answer ends the episode, a wrong one does not, so asking gains
on skipping where q_n > 1/(2 − γ V_{n+1}): it waits where a later question is surer. The released code names a γ of 0.95
for this learner and leaves it out of its update.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.stats

from rlino_lib.analysis.statistics import t_interval
from rlino_lib.errors import RlinoError

SKIP, ASK = 0, 1


def completion_chances(steps: int = 8, half: float = 4.0, slope: float = 1.0) -> np.ndarray:
    """q_n [steps] for n = 0, 1, … solved steps: logistic in n, 1/2 at `half`."""
    return 1 / (1 + np.exp(-slope * (np.arange(steps) - half)))


def optimum(chances: np.ndarray, gamma: float = 0.0) -> pd.DataFrame:
    """The exact values of both arms by n, backwards from the last: columns `n`, `chance`, `ask`, `skip`, `asks`.

    `threshold` is the chance from which on asking is better, 1/2 at γ = 0. Raises RlinoError for chances [N] outside
    0–1 and a γ outside 0–1.
    """
    _check(chances, gamma)
    value, rows = 0.0, []
    for n in reversed(range(len(chances))):
        chance = float(chances[n])
        skip = gamma * value
        ask = 2 * chance - 1 + (1 - chance) * skip
        rows.append((n, chance, ask, skip, ask > skip, 1 / (2 - skip)))
        value = max(ask, skip)
    return pd.DataFrame(rows[::-1], columns=["n", "chance", "ask", "skip", "asks", "threshold"])


def q_learning(
    chances: np.ndarray,
    gamma: float = 0.0,
    episodes: int = 1000,
    seeds: int = 100,
    lr: float = 0.1,
    epsilon: float = 0.1,
    seed: int = 0,
) -> pd.DataFrame:
    """Tabular Q-learning of the same, `seeds` learners side by side, ε-greedy and skipping where both arms are equal.

    One row per n: `n`, `ask`, `skip` (mean Q over learners), `ask_low`, `ask_high` (Student's 95 % interval of the mean
    of `ask`), `asks` (the share of learners that ask), `asks_low`, `asks_high` (Wilson's 95 % interval). At a constant
    rate α a Q keeps a spread of √(α/(2−α)) of its target's. Raises RlinoError as `optimum` does.
    """
    _check(chances, gamma)
    draws = np.random.default_rng(seed)
    size = len(chances)
    q = np.zeros((seeds, size + 1, 2))  # [S, N + 1, 2]; after the last step nothing follows
    everyone = np.arange(seeds)
    for _ in range(episodes):
        going = np.ones(seeds, bool)  # [S], learners that have no right answer yet
        for n in range(size):
            greedy = (q[:, n, ASK] > q[:, n, SKIP]).astype(int)  # [S]
            arm = np.where(draws.random(seeds) < epsilon, draws.integers(2, size=seeds), greedy)  # [S]
            right = (arm == ASK) & (draws.random(seeds) < chances[n])  # [S]
            reward = np.where(arm == ASK, np.where(right, 1.0, -1.0), 0.0)  # [S]
            target = reward + gamma * np.where(right, 0.0, q[:, n + 1].max(1))  # [S]
            error = np.where(going, target - q[everyone, n, arm], 0.0)  # [S]
            q[everyone, n, arm] += lr * error
            going &= ~right
    return pd.DataFrame([_row(n, q[:, n]) for n in range(size)])


def _row(n: int, values: np.ndarray) -> dict[str, float]:
    """A row of `q_learning`, of the values [S, 2] of one n."""
    asks = values[:, ASK] > values[:, SKIP]  # [S]
    wilson = scipy.stats.binomtest(int(asks.sum()), len(asks)).proportion_ci(method="wilson")
    low, high = t_interval(values[:, ASK])
    return {
        "n": n, "ask": values[:, ASK].mean(), "ask_low": low, "ask_high": high, "skip": values[:, SKIP].mean(),
        "asks": asks.mean(), "asks_low": wilson.low, "asks_high": wilson.high,
    }  # fmt: skip


def _check(chances: np.ndarray, gamma: float) -> None:
    if np.ndim(chances) != 1 or not len(chances) or not ((chances >= 0) & (chances <= 1)).all() or not 0 <= gamma <= 1:
        raise RlinoError("chances of a right completion, at least one, and a discount lie between 0 and 1")
