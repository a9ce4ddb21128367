"""The checkers of chapter 09b: right answers by other means pass."""

from __future__ import annotations

import itertools

import pandas as pd

from checkers import chains
from rlino_lib.analysis.chains import chain_advantages
from tests.mistakes import assert_right_answers_pass

CHECKERS = {name: f for name, f in vars(chains).items() if name.startswith("check_")}


def branching(nodes, edges):
    pairs = itertools.combinations(edges, 2)
    return len({a for (a, _), (b, _) in pairs if a == b}) / nodes


def mean_advantage(rewards, process_right):
    """By the formula of 2506.14245, with the two conditional rewards."""
    frame = pd.DataFrame({"group": 0, "reward": rewards, "chain_right": process_right})
    return chain_advantages(frame, eps=0.0)["right"].item()


RIGHT = {"check_branching": branching, "check_mean_advantage": mean_advantage}


def test_right_answers_pass(capsys):
    assert_right_answers_pass(CHECKERS, RIGHT, capsys)
