"""Hints that begin a right solution, and word problems step by step."""

import pytest

from rlino_lib.analysis.chains import against
from rlino_lib.errors import RlinoError
from rlino_lib.evaluation.skills import HINTS, hint_values, hinted_solution, sub_problems
from rlino_lib.paths import base_of
from rlino_lib.policy.models import load_policy
from rlino_lib.tasks import Countdown, WordProblems
from rlino_lib.tasks.base import Problem
from rlino_lib.tasks.countdown.game import solutions

TASK = Countdown(n_numbers=4)


def test_hints_begin_one_solution_of_the_problem():
    problem = TASK.problems("test", 1)[0]
    way = hinted_solution(problem)
    assert way in solutions(problem.data["nums"], problem.data["target"]) and way == hinted_solution(problem)
    first, second, _ = (" {} {} {} = {}".format(*step) for step in way)
    texts = {name: hint(way) for name, hint in HINTS.items()}
    assert texts == {"none": "", "plan": " {} {}".format(*way[0]), "fact": first, "half": f"{first},{second}"}
    with pytest.raises(RlinoError, match="no solution"):
        hinted_solution(Problem("p", {"nums": [1, 1], "target": 99}))


def test_more_of_a_solution_helps_more_and_the_cap_counts_it():
    problems = TASK.problems("test", 24)
    frame = hint_values(load_policy(), TASK, problems, samples=8, max_new_tokens=60)
    assert frame.groupby("hint", sort=False).size().to_dict() == dict.fromkeys(HINTS, 24)
    gains = against(frame, "value", "hint", "none").set_index("hint")["mean"]
    assert gains["half"] > gains["fact"] > 0 and gains["half"] > 0.2
    with pytest.raises(RlinoError, match="leaves nothing to sample"):
        hint_values(load_policy(), TASK, problems[:2], samples=1, max_new_tokens=4)


def test_a_policy_with_all_steps_before_is_asked_for_the_next():
    task = WordProblems()
    problems = task.problems("test", 24)
    policy = load_policy(base_of("word_problems"))
    table = sub_problems(policy, task, problems, samples=8)
    assert table["problem"].tolist() == [problem.id for problem in problems]
    assert table["steps"].tolist() == [problem.gold.count("\n") for problem in problems]
    assert table[["accuracy", "all_steps"]].stack().between(0, 1).all()
    assert 0.1 < table["all_steps"].mean() < 0.9 and abs(table["all_steps"].mean() - table["accuracy"].mean()) < 0.2
