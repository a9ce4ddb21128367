"""Restarts: problems whose responses begin with wrong attempts that the policy did not write (chapter 10b).

Satori (2502.02508) lets half of its training start from an earlier trajectory that went wrong, cut back and followed by
a token that asks for another try; here the wrong prefix is one or two attempts, each called ` no`. Every token after it
is the policy's, so that this is a contextual bandit as before, over richer contexts: an opening (`Problem.opening`) is
context, outside the mask, and part of the text that is graded. Satori cuts the policy's own trajectories; these
attempts are drawn as the base's demonstrator draws its own. They are the same whatever the policy is, so that all runs
have the same contexts.

All responses to a problem have the same opening, by the problem and not by lot: the mean of a group is then an estimate
of the value of one state, the one restarted from, which is what a baseline should be. So with one reward for a right
answer a bonus for a repair cancels where rewards are standardised in their group (GRPO). It multiplies the weight of a
restarted problem where they are only centred (Dr. GRPO, RLOO), and moves the baseline where that is the batch's.
"""

import math
import random
from dataclasses import replace
from itertools import count
from typing import Any

from rlino_lib.errors import RlinoError
from rlino_lib.tasks.arithmetic import Step
from rlino_lib.tasks.base import Grade, Problem
from rlino_lib.tasks.countdown.mdp import attempt_text, random_attempt

MOST_ATTEMPTS = 2  # that a wrong prefix has
TRIES = 100  # of small numbers; then larger ones are allowed, for problems whose small results all hit the target


def restarted(problem: Problem, share: float = 1.0, attempts: int | None = None) -> Problem:
    """The problem with wrong attempts as the `opening` of its data, for a `share` of all problems; else as it is.

    attempts: 1 or 2; one of them, with equal chances, where it is None. Everything depends on the problem's id alone:
    one attempt is the first of two, and the problems of a share are among those of a larger one.
    """
    rng = random.Random(f"restart-{problem.id}")
    place = rng.random()
    length = attempts or rng.randint(1, MOST_ATTEMPTS)
    if place >= share:
        return problem
    rng = random.Random(f"attempts-{problem.id}")
    opening = "".join(attempt_text(wrong_attempt(problem, rng)) for _ in range(length))
    return replace(problem, data={**problem.data, "opening": opening})


def check_split(task: Any, split: str) -> None:
    """Raise RlinoError for a setting of restarts that the problems of a split do not read."""
    for name in ("restart_held_out",) if split == "train" else ("restarts", "restart_bonus"):
        if getattr(task, name, 0):
            readers = "held-out" if split == "train" else "training"
            raise RlinoError(f"{name} is of {readers} problems: leave it out on the split {split}")


def wrong_attempt(problem: Problem, rng: random.Random) -> tuple[Step, ...]:
    """A legal attempt that uses every number and does not end at the target, drawn as the demonstrator draws one."""
    nums, target = sorted(problem.data["nums"]), problem.data["target"]
    attempts = (random_attempt(nums, rng, 999 if k < TRIES else math.inf) for k in count())
    # It ends: of the last two numbers, sum and product are two results unless both are 2, and 2 / 2 = 1.
    return next(steps for steps in attempts if steps[-1][3] != target)


def with_bonus(grade: Grade, problem: Problem, bonus: float) -> Grade:
    """The grade with `bonus` added to its reward where a response from a wrong restart ends right.

    Satori takes as much away where a right restart ends wrong; no restart here is right.
    """
    return replace(grade, reward=grade.reward + bonus) if bonus and problem.opening and grade.correct else grade
