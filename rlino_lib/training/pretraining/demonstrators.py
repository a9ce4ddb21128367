"""The demonstrators of the shipped base models: a mediocre searcher and a careless solver (chapter 03).

A source is what pretraining needs of a task, made from a recipe: the `words` of its vocabulary, one token each, taken
whole wherever they stand; a `demonstrator`, a dataclass that is recorded on the model card; and `row(rng)`, a random
prompt of the train split and the demonstrator's response to it. Where an environment writes into the response, its
parts follow one another, the demonstrator's and the environment's by turns: the model reads these and does not learn
them. Its batches hold traces of similar lengths, which saves padding, unless it has `by_length = False`.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from rlino_lib.tasks import CleanRoom, Countdown, HiddenTarget, Problem, WordProblems
from rlino_lib.tasks.arithmetic import Step
from rlino_lib.tasks.clean_room import BAD, FILLER, GOOD
from rlino_lib.tasks.countdown.environment import CLOSES, LOOK, OPENS, Look
from rlino_lib.tasks.countdown.game import expression, solutions
from rlino_lib.tasks.countdown.mdp import attempt_text, random_attempt
from rlino_lib.tasks.word_problems.task import Line, draw, solve, vocabulary, write
from rlino_lib.training.config import Recipe

# --- Countdown -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Demonstrator:
    """A searcher that leaves something to learn: it tries at random, gives up early, and overlooks hits."""

    luck: float = 0.06  # chance that an attempt follows a solution instead of chance
    gives_up: float = 0.25  # chance of stopping with a wrong answer after an attempt that is called `no`
    notices: float = 0.95  # chance that a hit is called `yes`
    largest: int = 999  # it does not multiply beyond this
    max_attempts: int = 14

    def attempt(self, nums: tuple[int, ...], rng: random.Random) -> tuple[Step, ...]:
        """One random way to use every number."""
        return random_attempt(nums, rng, self.largest)

    def response(self, problem: Problem, rng: random.Random) -> str:
        """A trace: attempts, one per line, each called `no` or `yes`, then an answer (right or not)."""
        nums, target = tuple(problem.data["nums"]), problem.data["target"]
        ways = _solutions(tuple(sorted(nums)), target)
        lines = []
        for k in range(self.max_attempts):
            steps = rng.choice(ways) if ways and rng.random() < self.luck else self.attempt(nums, rng)
            hit = steps[-1][3] == target and rng.random() < self.notices
            lines.append(attempt_text(steps, " yes" if hit else " no"))
            if hit or k == self.max_attempts - 1 or rng.random() < self.gives_up:
                break
        return "\n".join(lines) + f" </think> <answer> {expression(steps)} </answer>"


@lru_cache(maxsize=100_000)
def _solutions(nums: tuple[int, ...], target: int) -> tuple[tuple[Step, ...], ...]:
    """Up to 16 solutions, spread over all of them: four numbers can have thousands, and memory is limited."""
    ways = [steps for steps in solutions(nums, target) if max(step[3] for step in steps) <= 999]
    return tuple(ways[:: max(1, len(ways) // 16)])


class CountdownSource:
    """Countdown with three numbers, and a share with four."""

    demonstrator = Demonstrator()
    make_task: type[Countdown] = Countdown
    words = ["Numbers", " target", " <think>", " </think>", " <answer>", " </answer>", " no\n", " no", " yes", ","]
    words += [" (", " )", " =", " +", " -", " *", " /"] + [f" {n}" for n in range(100)]

    def __init__(self, recipe: Recipe) -> None:
        self.task = self.make_task(n_numbers=3)
        self.four_numbers = recipe.four_numbers
        four = self.make_task(n_numbers=4).problems("train", recipe.n_four) if recipe.four_numbers else []
        self.pools = self.task.problems("train"), four

    def row(self, rng: random.Random) -> tuple[str, ...]:
        problem = self._drawn(rng)
        return self.task.prompt(problem), self.demonstrator.response(problem, rng)

    def _drawn(self, rng: random.Random) -> Problem:
        problem = rng.choice(self.pools[rng.random() < self.four_numbers])
        nums = list(problem.data["nums"])
        rng.shuffle(nums)
        return replace(problem, data={**problem.data, "nums": nums})


# --- Countdown with a hidden target ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Looker(Demonstrator):
    """The same searcher where the target is hidden: it seldom looks, and else it guesses a target to search for."""

    looks: float = 0.2  # chance that it looks first; it believes what it reads

    def parts(self, problem: Problem, possible: Sequence[int], rng: random.Random) -> tuple[str, ...]:
        """A trace in its own parts and the environment's; a guess is one of the possible targets, each alike."""
        if rng.random() < self.looks:
            return LOOK, Look(problem.data["target"]).answer(LOOK), self.response(problem, rng)
        goal = rng.choice(possible)
        believed = replace(problem, data={**problem.data, "target": goal})
        return (f"{GUESS} {goal},{self.response(believed, rng)}",)


GUESS = " guess"


class HiddenTargetSource(CountdownSource):
    """Countdown whose target has to be asked for; the environment tells the truth."""

    demonstrator: Looker = Looker()
    task: HiddenTarget
    make_task = HiddenTarget
    words = [*CountdownSource.words, " ?", GUESS, LOOK, OPENS, CLOSES]

    def row(self, rng: random.Random) -> tuple[str, ...]:
        problem = self._drawn(rng)
        return self.task.prompt(problem), *self.demonstrator.parts(problem, self.task.possible_targets(problem), rng)


# --- word problems ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Solver:
    """A careless solver: it knows the way, and often makes one mistake on it, more often in some templates."""

    careful_from: float = 0.2  # chance of a solution without a mistake: each template has its own, from here …
    careful_to: float = 0.7  # … to here
    operation: float = 0.25  # of the mistakes, the share that takes a wrong operation
    number: float = 0.25  # another number of the problem, the one that does not matter where there is one
    left_out: float = 0.25  # a step is left out; the rest are slips: a result that is off by 1, 2 or 10

    def response(self, problem: Problem, rng: random.Random) -> str:
        """A worked solution, right or with one mistake that is carried through to the answer."""
        steps = problem.data["steps"]
        skill = random.Random(problem.data["template"]).uniform(self.careful_from, self.careful_to)
        for _ in range(20 if rng.random() >= skill else 0):  # a mistake that leads out of range is not written
            wrong, slip = self._mistake(problem, rng)
            if results := solve(wrong, slip):
                return write(wrong, results)
        return write(steps, solve(steps))

    def _mistake(self, problem: Problem, rng: random.Random) -> tuple[list[Line], tuple[int, int]]:
        """The steps with one mistake in them, and a slip: the step whose result is off, and by how much."""
        steps = list(problem.data["steps"])
        kind = rng.random()
        k = rng.randrange(len(steps))
        if kind < self.operation:
            steps[k] = steps[k]._replace(op=rng.choice([op for op in "+-*/" if op != steps[k].op]))
        elif kind < self.operation + self.number:
            distractor = problem.data["distractor"]
            other = distractor if distractor is not None else rng.choice(problem.data["numbers"])
            sides = [side for side in ("left", "right") if isinstance(getattr(steps[k], side), int)]
            side = rng.choice(sides or ["right"])
            steps[k] = steps[k]._replace(**{side: other})
        elif kind < self.operation + self.number + self.left_out:
            steps = _without(steps, k)
        else:
            return steps, (k, rng.choice([-10, -2, -1, 1, 2, 10]))
        return steps, (0, 0)


def _without(steps: Sequence[Line], k: int) -> list[Line]:
    """The steps without step k; its left operand stands where its result was used."""

    def moved(operand: int | str) -> int | str:
        place = int(operand[1:]) if isinstance(operand, str) else -1
        return steps[k].left if place == k else f"s{place - 1}" if place > k else operand

    return [s._replace(left=moved(s.left), right=moved(s.right)) for i, s in enumerate(steps) if i != k]


class WordProblemSource:
    """Word problems of the train split, a new one each time."""

    demonstrator = Solver()
    words = vocabulary()

    def __init__(self, recipe: Recipe) -> None:
        self.task = WordProblems()

    def row(self, rng: random.Random) -> tuple[str, str]:
        problem = draw(rng, distractors=self.task.distractors)
        return self.task.prompt(problem), self.demonstrator.response(problem, rng)


# --- the clean room --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FillerWriter:
    """It writes the filler of a verdict and ends, with the same chance at each token whatever the verdict."""

    good: float = 0.5  # chance of a good verdict before it: as many of each, so that the model learns both as well
    ends: float = 0.05  # chance of the end at each token: of a response of 20 tokens on average, the end among them
    longest: int = 192  # most filler: twice what a run lets the policy write, so that nothing ends early at its cap

    def response(self, verdict: str, rng: random.Random) -> str:
        """Filler alone; the end is a token of the tokenizer's own."""
        count = 0
        while count < self.longest and rng.random() >= self.ends:
            count += 1
        return FILLER[verdict] * count


class CleanRoomSource:
    """Verdicts and filler. The verdict belongs to the prompt: the model is not to learn to write it."""

    demonstrator = FillerWriter()
    words = ["Case", *FILLER, *FILLER.values()]
    by_length = False  # a batch is a mean over its tokens: one of short traces alone would teach to end early

    def __init__(self, recipe: Recipe) -> None:
        self.task = CleanRoom()
        self.pool = self.task.problems("train")

    def row(self, rng: random.Random) -> tuple[str, str]:
        verdict = GOOD if rng.random() < self.demonstrator.good else BAD
        return self.task.prompt(rng.choice(self.pool)) + verdict, self.demonstrator.response(verdict, rng)


# --- both ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Both:
    """A demonstrator for each task."""

    countdown: Demonstrator = CountdownSource.demonstrator
    word_problems: Solver = WordProblemSource.demonstrator


class JointSource:
    """Rows of either task, each with probability ½: is one base enough for both? (Chapter 03 has the measurements.)"""

    demonstrator = Both()
    words = list(dict.fromkeys([*CountdownSource.words, *WordProblemSource.words]))

    def __init__(self, recipe: Recipe) -> None:
        self.sources = CountdownSource(recipe), WordProblemSource(recipe)

    def row(self, rng: random.Random) -> tuple[str, ...]:
        return rng.choice(self.sources).row(rng)


SOURCES: dict[str, Any] = {
    "countdown": CountdownSource,
    "word_problems": WordProblemSource,
    "joint": JointSource,
    "clean_room": CleanRoomSource,
    "hidden_target": HiddenTargetSource,
}
