"""Chapter 08b's checkers: right answers by other means pass, and every listed mistake is named as itself."""

from __future__ import annotations

import pytest
import torch

from checkers import clean_room as exercises
from rlino_lib.exact.clean_room import Room
from tests.mistakes import (
    assert_checkers_say_what_they_want,
    assert_mistakes_are_named,
    assert_nonsense_is_one_line,
    assert_right_answers_pass,
)

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


@pytest.mark.parametrize("name", sorted(CHECKERS))
def test_mistakes_are_named(name, capsys, monkeypatch):
    assert_mistakes_are_named(CHECKERS[name], capsys, monkeypatch)


def test_nothing_and_nonsense_are_one_line(capsys):
    assert_nonsense_is_one_line(CHECKERS.values(), capsys)


def test_checkers_say_what_they_want():
    assert_checkers_say_what_they_want(CHECKERS.values())
