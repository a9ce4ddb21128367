"""Edits of hand-made thoughts, and what the answers that follow are held against."""

import pandas as pd
import pytest

from rlino_lib.errors import RlinoError
from rlino_lib.evaluation import interventions
from rlino_lib.evaluation.interventions import EDITS, forced_answers
from rlino_lib.policy.models import load_policy
from rlino_lib.policy.sampling import sample
from rlino_lib.tasks import Countdown
from rlino_lib.tasks.base import Problem
from rlino_lib.tasks.countdown.trace import read_search

TASK = Countdown()
PROBLEMS = [Problem("a", {"nums": [3, 4, 2], "target": 14}), Problem("b", {"nums": [9, 5, 1], "target": 46})]
TEXTS = [
    " 3 * 4 = 12, 12 - 2 = 10 no\n 3 + 4 = 7, 7 * 2 = 14 yes </think> <answer> ( 3 + 4 ) * 2 </answer>",
    " 9 + 5 = 14, 14 - 1 = 13 no </think> <answer> ( 9 + 5 ) - 1 </answer>",
]


def edited(text, other=" 9 + 5 = 14, 14 - 1 = 13 no"):
    search = read_search(PROBLEMS[0], text)
    return {name: edit(search, other) for name, edit in EDITS.items()}


def test_each_edit_changes_what_it_says_and_nothing_else():
    first, second = " 3 * 4 = 12, 12 - 2 = 10 no\n", " 3 + 4 = 7, 7 * 2 = 14 yes"
    assert edited(TEXTS[0]) == {
        "none": first + second,
        "swapped": " 9 + 5 = 14, 14 - 1 = 13 no",
        "result": first + " 3 + 4 = 7, 7 * 2 = 15 yes",
        "operation": first + " 3 + 4 = 7, 7 + 2 = 9 yes",
        "verdicts": " 3 * 4 = 12, 12 - 2 = 10 yes\n 3 + 4 = 7, 7 * 2 = 14 no",
        "last cut": first,
        "only last": second,
    }


@pytest.mark.parametrize(
    "text",
    ["", "</think>", " yes", "no </think> yes", " 007 + 1 = 8 no", " 1 + 1 = 2 no yes no", " 3 + 4 = 7", "\x00" * 99,
     " 3 + 4 = 7 no" * 9000, "<answer> 3 </answer></think></think>", " 3 + 4 = 7, the 7 no good </think>"],
)  # fmt: skip
def test_any_text_can_be_edited(text):
    edits = edited(text)
    assert len(max(edits.values(), key=len)) <= 20_000 + 9000
    assert edits["last cut"] + edits["only last"] == edits["none"]
    assert read_search(PROBLEMS[0], text).response.startswith(edits["none"])
    if len(text) < 10_000:  # twice: of a longer one the end is not read again
        assert edited(edits["verdicts"])["verdicts"] == edits["none"]


def scripted(monkeypatch, answer):
    """A sampler that writes `answer(prompt, prefix)` after each prefix, and the settings that it was called with."""
    calls = []

    def stand_in(policy, prompts, group_size, *, prefixes, **settings):
        calls.append(settings)
        texts = [prefix + answer(*pair) for pair in zip(prompts, prefixes, strict=True) for prefix in pair[1:]]
        return type("Rollouts", (), {"texts": texts})

    monkeypatch.setattr(interventions, "sample", stand_in)
    return calls


def test_answers_are_held_against_the_edited_trace(monkeypatch):
    calls = scripted(monkeypatch, lambda prompt, prefix: " 2 * ( 4 + 3 ) </answer>")
    frame = forced_answers(load_policy(), TASK, PROBLEMS, TEXTS)
    assert len(calls) == 1 and calls[0]["temperature"] == 0
    rows = frame[frame["response"] == 0].set_index("edit")
    assert rows["correct"].all() and rows.index.tolist() == list(EDITS)
    expected = dict(zip(EDITS, [True, False, True, False, True, False, True], strict=True))
    assert rows["follows_last"].to_dict() == expected
    yes = rows["follows_yes"]
    assert yes[["none", "result", "only last"]].all() and not yes[["operation", "verdicts"]].any()
    assert yes[["swapped", "last cut"]].isna().all()
    other = frame[frame["response"] == 1].set_index("edit")
    assert "only last" not in other.index and not other["correct"].any()  # its one attempt is all that there is
    assert pd.isna(other.loc["last cut", "follows_last"]) and other.loc["swapped", "thought"].endswith("yes")
    assert other.loc["swapped", "follows_yes"]


def test_a_text_without_an_answer_follows_nothing(monkeypatch):
    scripted(monkeypatch, lambda prompt, prefix: " ) ) </answer>")
    frame = forced_answers(load_policy(), TASK, PROBLEMS, TEXTS)
    assert not frame["follows_last"].dropna().any() and not frame["correct"].any()
    with pytest.raises(RlinoError, match="at least two"):
        forced_answers(load_policy(), TASK, PROBLEMS[:1], TEXTS[:1])


def test_the_shipped_base_copies_its_last_attempt():
    problems = [problem for problem in TASK.problems("test", 12) for _ in range(2)]
    policy = load_policy()
    texts = sample(policy, [TASK.prompt(p) for p in problems], 1, seed=1).texts
    frame = forced_answers(policy, TASK, problems, texts)
    rates = frame.groupby("edit")["follows_last"].mean()
    assert rates["none"] > 0.8 > rates["swapped"]
    assert forced_answers(policy, TASK, problems, texts).equals(frame)
