"""The clean room: a verdict that somebody else draws, then filler that is worth nothing (chapter 08b).

An environment writes the verdict at the start of each response, ` good` or ` bad`, by lot. The policy reads it, writes
filler (` um` after good, ` er` after bad) and ends. It cannot change the verdict, so there is nothing to learn, and
whatever happens to lengths is the method's doing. `worth` is the dial between this and a task in which longer responses
are better.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from rlino_lib.settings import check, number, setting, whole
from rlino_lib.tasks.base import Grade, Problem, how_many, split_of_key

GOOD, BAD = " good", " bad"
FILLER = {GOOD: " um", BAD: " er"}  # a word for each verdict, so that a policy has to remember which it read
NUMBERS = range(10_000, 30_000)  # of five digits, so that all prompts have as many tokens


@lru_cache(maxsize=8)
def _numbers(split: str, seed: int) -> tuple[int, ...]:
    """The numbers of a split in a seeded order."""
    numbers = [n for n in NUMBERS if split_of_key(str(n)) == split]
    random.Random(f"clean-room-{split}-{seed}").shuffle(numbers)
    return tuple(numbers)


@dataclass(frozen=True)
class CleanRoom:
    """The `Task` and its lots (`TaskWithLots`): settings in, problems, openings and grades out.

    Raises RlinoError for a setting out of range.
    """

    good: float = setting(0.3, "chance that the verdict is good", number(0, 1))
    worth: float = setting(0.0, "chance that a filler token earns the reward after a bad verdict", number(0, 1))
    seed: int = setting(0, "of the order of problems", whole())

    name = "clean_room"

    def __post_init__(self) -> None:
        check(self, f"{self.name}: ")

    def problems(self, split: str, n: int | None = None) -> list[Problem]:
        """The first `n` problems of a split, all where it is None; they differ by a number that means nothing."""
        numbers = _numbers(split, self.seed)
        numbers = numbers[: how_many(n, len(numbers), split, self.name)]
        return [Problem(f"{self.name}/{k}", {"number": k}) for k in numbers]

    def problem_from_record(self, record: Mapping[str, Any]) -> Problem:
        """The problem of a line of `rlino grade`, which needs nothing but the response."""
        return Problem(str(record.get("id", self.name)), {name: record[name] for name in ("number",) if name in record})

    def prompt(self, problem: Problem) -> str:
        """`Case 17042:`."""
        return f"Case {problem.data['number']}:"

    def opening(self, problem: Problem, lot: int) -> str:
        """The verdict, which stands at the start of the response."""
        return GOOD if self._chances(lot)[0] < self.good else BAD

    def grade_by_lot(self, problem: Problem, response: str, lot: int) -> Grade:
        """The grade of a response, with its lot: whether a bad one earns the reward by its filler is drawn too."""
        grade = self.grade(problem, response)
        luck = self._chances(lot)[1]
        return replace(grade, reward=float(luck < grade.reward))

    def grade(self, problem: Problem, response: str) -> Grade:
        """The grade of any string; without a lot the reward is its expectation, the chance of a reward of 1."""
        words = response.split()
        verdict = words[0] if words else ""
        good = f" {verdict}" == GOOD
        filler = sum(f" {word}" in FILLER.values() for word in words[1:])
        fine = f" {verdict}" in FILLER and filler == len(words) - 1
        chance = 1.0 if good else 1 - (1 - self.worth) ** filler
        reason = f"the verdict is {verdict}, and {filler} words of filler" if fine else "no verdict and filler alone"
        return Grade(chance, good, fine, verdict or None, reason, verdict or None)

    def _chances(self, lot: int) -> tuple[float, float]:
        """A lot's two numbers in [0, 1): one for the verdict, one for what filler earns."""
        rng = random.Random(lot)
        return rng.random(), rng.random()
