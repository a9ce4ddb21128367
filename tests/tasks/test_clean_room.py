"""The clean room: verdicts by lot, filler, and what it is worth."""

import statistics

import pytest

from rlino_lib.errors import RlinoError
from rlino_lib.tasks import CleanRoom
from rlino_lib.tasks.base import lots_of


def test_problems_differ_by_a_number_and_splits_share_none():
    task = CleanRoom()
    numbers = {split: {p.data["number"] for p in task.problems(split)} for split in ("train", "validation", "test")}
    assert len(set.union(*numbers.values())) == sum(map(len, numbers.values())) and len(numbers["test"]) >= 1024
    first = task.problems("test", 3)
    assert first == task.problems("test")[:3] != CleanRoom(seed=1).problems("test", 3)
    assert task.prompt(first[0]) == f"Case {first[0].data['number']}:" and len(task.prompt(first[0])) == 11
    with pytest.raises(RlinoError, match="clean_room has"):
        task.problems("test", 10_000)


def test_the_verdict_is_drawn_by_the_rows_own_lot():
    task, (problem,) = CleanRoom(), CleanRoom().problems("test", 1)
    lots = lots_of(task, 20_000, seed=5)
    assert lots == lots_of(task, 20_000, seed=5) and len(set(lots + lots_of(task, 20_000, seed=6))) == 40_000
    openings = [task.opening(problem, lot) for lot in lots]
    assert set(openings) == {" good", " bad"} and abs(statistics.mean(o == " good" for o in openings) - 0.3) < 0.015
    assert {CleanRoom(good=1.0).opening(problem, lot) for lot in lots[:100]} == {" good"}


@pytest.mark.parametrize(
    ("response", "correct", "format_ok", "chance"),
    [
        (" good", True, True, 1.0), (" good um um", True, True, 1.0), (" bad", False, True, 0.0),
        (" bad er er", False, True, 1 - 0.9**2), (" good er", True, True, 1.0),
        (" bad um um um", False, True, 1 - 0.9**3), (" bad um good um", False, False, 1 - 0.9**2),
        ("", False, False, 0.0),
        (" goodum", False, False, 0.0), ("☃ um", False, False, 0.1),
    ],
)  # fmt: skip
def test_a_grade_without_a_lot_has_the_chance_of_the_reward(response, correct, format_ok, chance):
    task, (problem,) = CleanRoom(worth=0.1), CleanRoom().problems("test", 1)
    grade = task.grade(problem, response)
    assert (grade.correct, grade.format_ok) == (correct, format_ok) and grade.reward == pytest.approx(chance)
    assert CleanRoom().grade(problem, response).reward == float(correct)  # filler is worth nothing


@pytest.mark.parametrize("filler", [0, 1, 5, 40])
def test_with_a_lot_the_reward_is_drawn_with_that_chance(filler):
    task, (problem,) = CleanRoom(worth=0.05), CleanRoom().problems("test", 1)
    lots = lots_of(task, 20_000, seed=1)
    bad = [lot for lot in lots if task.opening(problem, lot) == " bad"]
    rewards = [task.grade_by_lot(problem, " bad" + " um" * filler, lot).reward for lot in bad]
    chance = 1 - 0.95**filler
    assert set(rewards) <= {0.0, 1.0} and abs(statistics.mean(rewards) - chance) < 4 * (0.25 / len(bad)) ** 0.5
    good = [lot for lot in lots if task.opening(problem, lot) == " good"]
    assert {task.grade_by_lot(problem, " good", lot).reward for lot in good} == {1.0}
    # More filler never loses a reward, and what it earns does not depend on the verdict's draw.
    longer = [task.grade_by_lot(problem, " bad" + " um" * (filler + 1), lot).reward for lot in bad]
    assert all(a <= b for a, b in zip(rewards, longer, strict=True))
