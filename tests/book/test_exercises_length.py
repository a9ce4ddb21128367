"""Checkers of chapters 08 and 08c: right answers by other means pass."""

from __future__ import annotations

from checkers import length as exercises_length
from checkers import missing_run
from checkers.length import FACTORS
from rlino_lib.exact.length_toy import LengthToy
from tests.mistakes import assert_right_answers_pass

BOTH = vars(exercises_length) | vars(missing_run)
CHECKERS = {name: f for name, f in BOTH.items() if name.startswith("check_")}


def kaplan(lengths, ended):
    """The product over steps, in the other order: from the hazard of each length."""
    out, left = [], 1.0
    for at in sorted(set(lengths)):
        risk = sum(n >= at for n in lengths)
        left *= 1 - sum(n == at and e for n, e in zip(lengths, ended, strict=True)) / risk
        out.append(left)
    return out


def by_toy(weights):
    """The drift of wrong responses in the toy, whose horizon is as long as the list: the reward W = −factor."""
    toy = LengthToy(horizon=len(weights))
    mdp = toy.mdp
    lengths = mdp.lengths
    factors = mdp.rewards.new_tensor(weights)[lengths - 1]
    update = mdp.expected_update(toy.policy, -factors * ~mdp.right)
    return 0 if update[2].abs() < 1e-12 else int(update[2] < 0) - int(update[2] > 0)


def parts(start, between, now, cap):
    there = between[0] * cap + (1 - between[0]) * between[1]
    end = now[0] * cap + (1 - now[0]) * now[1]
    longer = (1 - now[0]) * (now[1] - between[1])
    return there - start, end - there - longer, longer


def regrade(attempts, target, k):
    for i, (result, _) in enumerate(attempts):
        if result == target:
            return i < k
    return False


RIGHT = {"check_drift": by_toy, "check_survival": kaplan, "check_parts": parts, "check_regrade": regrade}


def test_right_answers_pass(capsys):
    assert_right_answers_pass(CHECKERS, RIGHT, capsys)


def test_the_shown_factors_drift_as_the_toy_says():
    drifts = {name: by_toy([f(n) for n in range(1, 9)]) for name, f in FACTORS.items()}
    assert drifts["1/|o|"] == 1 and drifts["constant"] == 0 and drifts["|o|"] == -1
    assert set(drifts.values()) == {-1, 0, 1}
