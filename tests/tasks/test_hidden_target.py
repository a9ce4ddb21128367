"""Countdown with a hidden target: what the environment writes, to whom it lies, and what the grader reads."""

from collections import Counter

import pytest

from rlino_lib.errors import RlinoError
from rlino_lib.tasks import HiddenTarget, get_task
from rlino_lib.tasks.base import hash_of, lots_of
from rlino_lib.tasks.countdown.environment import Look
from rlino_lib.tasks.countdown.game import make_problem

PROBLEM = make_problem([8, 2, 4], 24)
LOTS = [hash_of(f"test-{k}") for k in range(2000)]
RIGHT = " look <target> 24 </target>\n 8 - 2 = 6, 6 * 4 = 24 yes </think> <answer> ( 8 - 2 ) * 4 </answer>"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" look", " <target> 24 </target>\n"), (" 8 * 2 = 16 no\n look", " <target> 24 </target>\n"),
        (" look <target> 24 </target>\n", ""), (" look <target> 24 </target>\n 8 - 2", ""),
        (" look <target> 24 </target>\n look", " <target> 24 </target>\n"),
        (" look <target> 57 </target>\n look", " <target> 57 </target>\n"),  # a text keeps the target that it has
        (" look <target>", " 24 </target>\n"), (" look <target> 24 </target>", "\n"), (" look <target> 5", ""),
        ("", ""), (" looking", ""), (" guess 24,", ""), (" look 24", ""), (" <target> 24 </target>\n", ""),
    ],
)  # fmt: skip
def test_what_is_written_after_a_text(text, answer):
    assert Look(24).answer(text) == answer


def test_hostile_text_is_read_in_linear_time():
    for text in (" look" * 200_000, " look <target> " * 100_000, " look <target> " + "9" * 10**6):
        assert " <target> 24 </target>\n".endswith(Look(24).answer(text))


def test_the_prompt_hides_the_target_and_the_grader_knows_it():
    task = HiddenTarget(lies=1.0)
    assert task.prompt(PROBLEM) == "Numbers 8 2 4 target ? <think>"
    assert "?" in HiddenTarget(template="r1_zero").prompt(PROBLEM) and "24" not in task.prompt(PROBLEM)
    assert task.grade(PROBLEM, RIGHT).correct
    assert all(task.grade_by_lot(PROBLEM, RIGHT.replace("> 24", "> 10"), lot).correct for lot in LOTS[:20])
    assert not task.grade(PROBLEM, RIGHT.replace("- 2 )", "+ 2 )")).correct


@pytest.mark.parametrize("lies", [0.0, 0.2, 1.0])
def test_lies_are_drawn_by_lot_alike_among_the_other_targets(lies):
    task = HiddenTarget(lies=lies)
    written = Counter(task.environment_of(PROBLEM, lot).answer(" look").split()[1] for lot in LOTS)
    others = [str(t) for t in task.possible_targets(PROBLEM) if t != 24]
    assert len(others) > 5 and set(written) <= {"24", *others}
    assert written["24"] / len(LOTS) == pytest.approx(1 - lies, abs=0.03)
    assert all(written[t] / len(LOTS) == pytest.approx(lies / len(others), abs=0.025) for t in others)
    again = task.environment_of(PROBLEM, LOTS[0]).answer(" look")
    assert again == task.environment_of(PROBLEM, LOTS[0]).answer(" look")


def test_where_one_target_is_possible_there_is_no_lie():
    task = HiddenTarget(lies=1.0, targets=(24, 24))
    assert {task.environment_of(PROBLEM, lot).answer(" look") for lot in LOTS[:50]} == {" <target> 24 </target>\n"}


def test_it_has_lots_and_the_problems_of_countdown():
    task = HiddenTarget()
    assert len(set(lots_of(task, 8, 0))) == 8 and task.opening(PROBLEM, 3) == ""
    assert task.problems("test", 5) == get_task("countdown").problems("test", 5)


def test_a_calculator_beside_it_is_refused():
    with pytest.raises(RlinoError, match="hidden_target: there is no calculator"):
        HiddenTarget(calculator=True)
