"""Chapter 10's checkers: right answers by other means pass, and what else holds of these exercises."""

from __future__ import annotations

import pytest
import torch

from checkers import credit as exercises
from rlino_lib.exact.credit_toy import chain
from tests.mistakes import assert_right_answers_pass

CHECKERS = {name: f for name, f in vars(exercises).items() if name.startswith("check_")}


def gae(reward, values, lam):
    """Backwards, as trainers do it."""
    advantages, running, after = [], 0.0, reward
    for value in reversed(values):
        running = after - value + lam * running
        advantages.insert(0, running)
        after = value
    return advantages


def vine_advantages(reward, values):
    return torch.tensor([*values[1:], reward]) - torch.tensor(values)


RIGHT = {"check_gae": gae, "check_vine_advantages": vine_advantages}


def test_right_answers_pass(capsys):
    assert_right_answers_pass(CHECKERS, RIGHT, capsys)


@pytest.mark.parametrize("lam", [0.0, 0.4, 1.0])
def test_the_right_answer_leaves_the_gradient_of_the_toy_unbiased(lam):
    """The mean of the exercise's GAE over every response of a chain, with the chain's exact values."""
    toy = chain(3, 0.4)
    mean = torch.zeros_like(toy.gradient)
    for n in range(len(toy.probs)):
        values = toy.values[toy.states[n]].tolist()
        weights = torch.tensor(gae(toy.rewards[n].item(), values, lam), dtype=torch.float64)
        mean += toy.probs[n] * (weights @ toy.scores[n])
    assert (mean - toy.gradient).norm() < 1e-12  # exact values leave the gradient unbiased, whatever λ is
