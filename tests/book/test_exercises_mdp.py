"""Chapter 01's checkers: right answers pass, and each typical wrong answer is named."""

from __future__ import annotations

import re

import numpy as np
import pytest

from checkers import mdp as exercises_mdp
from rlino_lib.tasks.countdown.mdp import actions

CHECKERS = {name: f for name, f in vars(exercises_mdp).items() if name.startswith("check_")}


def verdict_of(capsys, checker, function) -> tuple[bool, str]:
    """What a checker returned, and the one line that it printed."""
    ok = checker(function)
    out, err = capsys.readouterr()
    assert out.endswith("\n") and out.count("\n") == 1 and err == "" and type(ok) is bool
    assert out.startswith("✓ " if ok else "✗ ") and len(out) < 420
    return ok, out.strip()


# --- right answers, written as a reader might ------------------------------------------------------------------------


def count_by_listing(V, H):
    if V > 50:  # the closed form of the same series
        return ((V - 1) ** (H + 1) - 1) // (V - 2)
    done, open_ = 0, 1
    for _ in range(H):
        done, open_ = done + open_, open_ * (V - 1)
    return done + open_


def step_advantages(values, reward):
    return np.diff(values + [reward])


def worth_of_seeing(p, R):
    with_sight = sum(p[o] * max(R[o]) for o in range(len(p)))
    without = max(sum(p[o] * R[o][a] for o in range(len(p))) for a in range(len(R[0])))
    return with_sight - without


def random_play(state, target):
    if len(state) == 1:
        return 1.0 if state[0] == target else 0.0
    values = [random_play(rest, target) for _, rest in actions(state)]
    return np.mean(values)


RIGHT = {
    "check_count_responses": count_by_listing,
    "check_step_advantages": step_advantages,
    "check_seeing": worth_of_seeing,
    "check_random_play": random_play,
}


def test_every_checker_is_tested():
    assert set(RIGHT) == set(CHECKERS) == {name for name, *_ in WRONG}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_pass(capsys, name):
    assert verdict_of(capsys, CHECKERS[name], RIGHT[name])[0]


# --- wrong answers, each with a word that must be in the verdict -----------------------------------------------------


def until_found(state, target):
    if target in state:
        return 1
    values = [until_found(rest, target) for _, rest in actions(state)]
    return sum(values) / len(values) if values else 0


def states_not_actions(state, target):
    if len(state) == 1:
        return float(state[0] == target)
    rests = {rest for _, rest in actions(state)}
    return sum(states_not_actions(rest, target) for rest in rests) / len(rests)


def best(state, target):
    return float(state[0] == target) if len(state) == 1 else max(best(rest, target) for _, rest in actions(state))


def total(state, target):
    return float(state[0] == target) if len(state) == 1 else sum(total(rest, target) for _, rest in actions(state))


WRONG = [
    ("check_count_responses", lambda V, H: V**H, "go on after EOS"),
    ("check_count_responses", lambda V, H: V * (V - 1) ** (H - 1), "end before it"),
    ("check_count_responses", lambda V, H: sum((V - 1) ** (t - 1) for t in range(1, H + 1)), "are missing"),
    ("check_count_responses", lambda V, H: (V - 1) ** H, "only responses truncated"),
    ("check_count_responses", lambda V, H: sum(V**t for t in range(H + 1)), "can be followed"),
    ("check_count_responses", lambda V, H: 1 + count_by_listing(V, H), "counted already"),
    ("check_step_advantages", lambda v, r: [a - b for a, b in zip(v, [*v[1:], r], strict=True)], "sign"),
    ("check_step_advantages", lambda v, r: [r - x for x in v], "baseline"),
    ("check_step_advantages", lambda v, r: [(r - v[0]) / len(v) for _ in v], "uniform credit"),
    ("check_step_advantages", lambda v, r: [r - v[0] for _ in v], "response's advantage"),
    ("check_step_advantages", lambda v, r: np.diff(v), "last step is missing"),
    ("check_step_advantages", lambda v, r: np.diff([*v, 0]), "not the reward"),
    ("check_step_advantages", lambda v, r: [*np.diff(v), r], "on top"),
    ("check_seeing", lambda p, R: (p * R.max(1)).sum(), "take off"),
    ("check_seeing", lambda p, R: (p @ R).max(), "without sight, not"),
    ("check_seeing", lambda p, R: (p @ R).max() - p @ R.max(1), "sign"),
    ("check_seeing", lambda p, R: R.max() - (p @ R).max(), "not chosen"),
    ("check_seeing", lambda p, R: R.max(1).mean() - R.mean(0).max(), "weigh them by p"),
    ("check_seeing", lambda p, R: p @ R.max(1) - (p @ R).mean(), "one at random"),
    ("check_random_play", best, "V\\*"),
    ("check_random_play", total, "sum over actions"),
    ("check_random_play", states_not_actions, "draws among states"),
    ("check_random_play", until_found, "all numbers have to be used"),
]


@pytest.mark.parametrize("name, function, words", WRONG)
def test_typical_mistakes_are_named(capsys, name, function, words):
    ok, line = verdict_of(capsys, CHECKERS[name], function)
    assert not ok and "likely" in line and re.search(words, line), line


@pytest.mark.parametrize("name", CHECKERS)
@pytest.mark.parametrize("function", [lambda *args: ..., lambda *args: None, lambda *args: "no", lambda: 1, 3])
def test_nothing_raises(capsys, name, function):
    assert not verdict_of(capsys, CHECKERS[name], function)[0]
