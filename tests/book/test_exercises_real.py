"""Chapter 13's checkers: right answers by other means pass."""

from __future__ import annotations

import numpy as np
import pandas as pd

from checkers import real as exercises
from rlino_lib.analysis.real import within_gaps
from rlino_lib.records.real import real_table
from tests.mistakes import assert_right_answers_pass

CHECKERS = {name: f for name, f in vars(exercises).items() if name.startswith("check_")}


def gain(visits, low, high):
    sorts = np.array([v[:4] for v in visits])
    held = (sorts[:, [0, 2]].mean(1) >= low) & (sorts[:, [0, 2]].mean(1) <= high)
    return (np.array([v[-1] for v in visits]) - sorts[:, [1, 3]].mean(1))[held].mean()


def bounds(lengths, correct, truncated, longest):
    lengths = np.array(lengths, float)
    correct = np.array(correct)
    right = lengths[correct].mean()
    ends = np.where(truncated, longest, lengths)
    return [lengths[~correct].mean() - right, ends[~correct].mean() - right]


def gaps(responses):
    frame = pd.DataFrame(responses, columns=["problem", "correct", "length"])
    by_side = frame.groupby("correct")["length"].mean()
    return by_side[False] - by_side[True], within_gaps(frame, "length", ["problem"]).mean()


RIGHT = {"check_gain": gain, "check_bounds": bounds, "check_pooled_and_within": gaps}


def test_right_answers_pass(capsys):
    assert_right_answers_pass(CHECKERS, RIGHT, capsys)


def test_dropping_truncated_responses_leaves_the_bounds():
    """What the solution of exercise 2 says of the Countdown record."""
    frame = real_table("countdown").query("model == 'GRPO'")
    kept = frame[~frame["truncated"]]
    dropped = kept.loc[~kept["correct"], "tokens"].mean() - kept.loc[kept["correct"], "tokens"].mean()
    least, most = bounds(frame["tokens"], frame["correct"], frame["truncated"], 4096)
    assert dropped < least < most


def test_the_second_case_is_simpsons_paradox():
    pooled, within = gaps(exercises._SIMPSON)
    assert pooled > 0 > within
