"""Countdown with a hidden target: the policy has to ask for it (chapter 10b).

The prompt has ` ?` in place of the target. Where the policy writes ` look` the environment writes the target, or with
chance `lies` another one that the numbers reach. So no response fixed beforehand is the best one, which is what breaks
the bandit: `rlino_lib.exact.hidden_target` has both optima.
"""

import random
from dataclasses import dataclass

from rlino_lib.errors import RlinoError
from rlino_lib.settings import number, setting
from rlino_lib.tasks.base import Grade, Problem
from rlino_lib.tasks.countdown.environment import CLOSES, OPENS, Look
from rlino_lib.tasks.countdown.game import reachable
from rlino_lib.tasks.countdown.task import TEMPLATES, Countdown


@dataclass(frozen=True)
class HiddenTarget(Countdown):
    """Countdown's settings, and how often the environment lies; graded against the true target.

    A `TaskWithLots`: whether the environment lies to a response, and with which target, is the response's lot. Raises
    RlinoError for a setting out of range, and for a calculator, which would be a second environment.
    """

    lies: float = setting(0.0, "chance that another target is written, drawn from those in reach", number(0, 1))

    name = "hidden_target"
    delimiters = (OPENS, CLOSES)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.calculator:
            raise RlinoError(f"{self.name}: there is no calculator beside the environment that writes the target")

    def prompt(self, problem: Problem) -> str:
        """`Numbers 8 2 4 target ? <think>`."""
        nums = [str(n) for n in problem.data["nums"]]
        return TEMPLATES[self.template].text.format(nums=" ".join(nums), nums_comma=", ".join(nums), target="?")

    def possible_targets(self, problem: Problem) -> list[int]:
        """The targets that a problem's numbers reach within the task's range, in order."""
        low, high = self.targets
        return sorted(t for t in reachable(tuple(sorted(problem.data["nums"]))) if low <= t <= high)

    def environment_of(self, problem: Problem, lot: int) -> Look:
        """What writes into the response with this lot: the true target, or a lie where another one is possible."""
        target = problem.data["target"]
        others = [t for t in self.possible_targets(problem) if t != target]
        rng = random.Random(lot)
        return Look(rng.choice(others) if others and rng.random() < self.lies else target)

    def opening(self, problem: Problem, lot: int) -> str:
        """What the responses to a problem open with."""
        return problem.opening or self.opening_text

    def grade_by_lot(self, problem: Problem, response: str, lot: int) -> Grade:
        """The grade, whatever the environment has written."""
        return self.grade(problem, response)
