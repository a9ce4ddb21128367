"""Chapter 10b's checkers: right answers by other means pass, and what else holds of these exercises."""

from __future__ import annotations

import torch

from checkers import environment as exercises
from rlino_lib.exact.hidden_target import optimum
from rlino_lib.training.masks import within
from tests.mistakes import assert_right_answers_pass

CHECKERS = {name: f for name, f in vars(exercises).items() if name.startswith("check_")}
RIGHT = {
    "check_loss_mask": lambda writers, ids, opens, closes: torch.tensor([w != "environment" for w in writers]).long(),
    "check_best_use_of_a_look": lambda targets, lies: optimum(targets, lies).closed_loop,
}


def test_right_answers_pass(capsys):
    assert_right_answers_pass(CHECKERS, RIGHT, capsys)


def test_the_mask_by_delimiters_is_named(capsys):
    """What the library has as the rule by delimiters is among the mistakes that the checker knows."""

    def by_delimiters(writers, ids, opens, closes):
        return (~within(torch.tensor([ids]), opens, closes))[0].long().tolist()

    assert not exercises.check_loss_mask(by_delimiters)
    assert "look at who wrote a token" in capsys.readouterr().out
