"""The checkers of chapters 11 and 11b: right answers by other means pass, and agree with the library."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from checkers import relatives as exercises
from rlino_lib.exact.entropy import entropy_step
from rlino_lib.methods.preference import Preferred, response_weights
from rlino_lib.methods.rewards import REWARDS
from tests.mistakes import assert_right_answers_pass

F64 = torch.float64
CHECKERS = {name: f for name, f in vars(exercises).items() if name.startswith("check_")}


def dpo_weights(chosen, rejected, beta):
    pair = Preferred(torch.tensor([0]), torch.tensor([1]))
    moved, lengths = torch.tensor([chosen, rejected], dtype=F64), torch.tensor([10, 10])
    return response_weights("dpo", moved, lengths, pair, beta)


def majority(answers):
    grades = [SimpleNamespace(value=answer) for answer in answers]
    return REWARDS["majority"].of(SimpleNamespace(grades=grades, group_size=len(answers)))


def entropy_slope(probs, rewards):
    """By a finite difference of the library's own step."""
    logits, rewards = torch.tensor(probs, dtype=F64).log(), torch.tensor(rewards, dtype=F64)
    return entropy_step(logits, rewards, 1e-4, natural=True).exact / 1e-4


def hypotheses_value(values, priors, observed, predicted, beta):
    total = 0.0
    for value, prior, own in zip(values, priors, predicted, strict=True):
        weight = torch.tensor(prior, dtype=F64)
        for seen, foreseen in zip(observed, own, strict=True):
            weight = weight * torch.exp(torch.tensor(-beta * abs(seen - foreseen), dtype=F64))
        total += value * weight.item()
    return total


def slope(probs, rewards):
    p, r = torch.tensor(probs, dtype=F64), torch.tensor(rewards, dtype=F64)
    return -(p * (p.log() - p @ p.log()) * (r - p @ r)).sum().item()


RIGHT = {
    "check_dpo_weights": dpo_weights,
    "check_majority_rewards": majority,
    "check_entropy_slope": slope,
    "check_hypotheses_value": hypotheses_value,
}


def test_right_answers_pass(capsys):
    assert_right_answers_pass(CHECKERS, RIGHT, capsys)


@pytest.mark.parametrize("case", exercises._POLICIES)
def test_the_slope_of_entropy_is_that_of_a_small_step(case):
    assert entropy_slope(*case) == pytest.approx(slope(*case), abs=1e-4)
