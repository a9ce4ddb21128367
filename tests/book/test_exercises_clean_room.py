"""Chapter 08b's checkers: right answers by other means pass."""

from __future__ import annotations

import torch

from checkers import clean_room as exercises
from rlino_lib.exact.clean_room import Room
from tests.mistakes import assert_right_answers_pass

CHECKERS = {name: f for name, f in vars(exercises).items() if name.startswith("check_")}


def by_room(weights, q):
    """From the kinds of response of a room after good verdicts."""
    o = Room(ends_good=q, cap=len(weights)).outcomes
    share = o.chance[o.good] / o.chance[o.good].sum()
    return (share * o.score[o.good] * torch.tensor(weights, dtype=share.dtype)[o.length[o.good] - 1]).sum().item()


def together(start, end):
    (bad, good), (bad_now, good_now) = start, end
    return (bad_now + good_now - bad - good) / 2, (bad_now - good_now) - (bad - good)


RIGHT = {"check_rate": by_room, "check_together": together}


def test_right_answers_pass(capsys):
    assert_right_answers_pass(CHECKERS, RIGHT, capsys)
