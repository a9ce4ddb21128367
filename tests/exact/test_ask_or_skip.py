"""Ask or skip: exact values against every choice of arms, and Q-learning against them."""

import itertools

import numpy as np
import pytest

from rlino_lib.errors import RlinoError
from rlino_lib.exact.ask_or_skip import completion_chances, optimum, q_learning

CHANCES = completion_chances(6, half=2.5)


def value(asks, chances, gamma):
    """The discounted return of a fixed choice by n, forwards."""
    total, reaches, weight = 0.0, 1.0, 1.0
    for ask, chance in zip(asks, chances, strict=True):
        if ask:
            total += weight * reaches * (2 * chance - 1)
            reaches *= 1 - chance
        weight *= gamma
    return total


@pytest.mark.parametrize("gamma", [0.5, 0.95, 1.0])
def test_the_optimum_is_the_best_of_all_choices(gamma):
    every = list(itertools.product([False, True], repeat=len(CHANCES)))
    best = max(every, key=lambda asks: value(asks, CHANCES, gamma))
    table = optimum(CHANCES, gamma)
    assert tuple(table["asks"]) == best
    assert table.loc[0, ["ask", "skip"]].max() == pytest.approx(value(best, CHANCES, gamma))


def test_without_a_discounted_future_one_step_suffices():
    """γ = 0: an arm's value is its own reward, and asking is right where q > 1/2; γ only ever waits for longer."""
    table = optimum(CHANCES)
    assert np.allclose(table["ask"], 2 * CHANCES - 1) and (table["skip"] == 0).all()
    assert (table["asks"] == (CHANCES > 0.5)).all() and (table["threshold"] == 0.5).all()
    later = optimum(CHANCES, 0.95)
    assert (later["asks"] == (CHANCES > later["threshold"])).all() and (later["threshold"] >= 0.5).all()
    assert (later["asks"] <= table["asks"]).all() and later["asks"].sum() < table["asks"].sum()


@pytest.mark.parametrize("gamma", [0.0, 0.95])
def test_q_learning_finds_what_is_clear(gamma):
    """Where one arm is better by more than the spread of a Q at a constant rate, nearly all learners choose it."""
    exact, learned = optimum(CHANCES, gamma), q_learning(CHANCES, gamma, episodes=1500, seeds=60, epsilon=0.3)
    clear = (exact["ask"] - exact["skip"]).abs() > 0.6
    assert clear.sum() >= 3
    right = np.where(exact["asks"], learned["asks"], 1 - learned["asks"])
    assert (right[clear] > 0.9).all()
    assert (learned["ask_low"] <= learned["ask"]).all() and (learned["ask"] <= learned["ask_high"]).all()
    assert (learned["asks_low"] <= learned["asks"]).all() and (learned["asks"] <= learned["asks_high"]).all()


def test_learners_repeat_by_seed():
    one, again, other = (q_learning(CHANCES, episodes=20, seeds=5, seed=seed) for seed in (1, 1, 2))
    assert one.equals(again) and not one.equals(other)


def test_chances_are_chances():
    with pytest.raises(RlinoError, match="between 0 and 1"):
        optimum(np.array([0.2, 1.2]))
    with pytest.raises(RlinoError, match="between 0 and 1"):
        q_learning(CHANCES, gamma=1.5)
