"""Countdown: reach a target with each given number used exactly once (chapter 02).

The generator, an exact solver with integer intermediates, and a grader that is safe on any string. The reward
conventions are TinyZero's: the last `<answer>…</answer>` counts.
"""

import random
from dataclasses import dataclass, replace

from rlino_lib.errors import RlinoError
from rlino_lib.settings import FLAG, interval, number, one_of, setting, whole
from rlino_lib.tasks.base import END_MARKS, REWARD_SCHEMES, Grade, Problem, SettingsTask, Template, how_many, up_to_stop
from rlino_lib.tasks.countdown.environment import Calculator
from rlino_lib.tasks.countdown.game import keys_of_split, make_problem, split_of_target
from rlino_lib.tasks.countdown.grade import grade_countdown, problem_from_record
from rlino_lib.tasks.countdown.restarts import MOST_ATTEMPTS, restarted, with_bonus

# Prompts are data. `r1_zero` is TinyZero's, for hub models; `compact` is what the shipped base models read, which end
# their responses themselves. Not "</answer>": a model that repeats its instructions while it thinks writes that too,
# and of several answers the last counts.
TEMPLATES = {
    "compact": Template("Numbers {nums} target {target} <think>"),
    "r1_zero": Template(
        "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The "
        "assistant first thinks about the reasoning process in the mind and then provides the user with the answer.\n"
        "User: Using the numbers [{nums_comma}], create an equation that equals {target}. You can use basic arithmetic "
        "operations (+, -, *, /) and each number can only be used once. Show your work in <think> </think> tags. And "
        "return the final answer in <answer> </answer> tags, for example <answer> (1 + 2) / 3 </answer>.\n"
        "Assistant: Let me solve this step by step.\n<think>",
        ("\nUser:", "\nAssistant:", *END_MARKS),
    ),
}


TRIES_AGAIN = 0.6  # the chance that another attempt follows a miss, about that of the shipped base
NO_THOUGHT = " </think> <answer>"  # after a prompt that opens the thought: what is left to write is the answer


@dataclass(frozen=True)
class Countdown(SettingsTask):
    """The `Task`: settings in, problems, prompts and grades out. Raises RlinoError for a setting out of range."""

    n_numbers: int = setting(3, "numbers of a problem", whole(2, 4))
    numbers: tuple[int, int] = setting((1, 20), "from the smallest to the largest of them", interval(1))
    targets: tuple[int, int] = setting((10, 99), "from the smallest to the largest target", interval(1))
    template: str = setting("compact", "the form of a prompt", one_of(TEMPLATES))
    rewards: str = setting("binary", "what an answer earns", one_of(REWARD_SCHEMES))
    seed: int = setting(0, "of the order of problems", whole())
    calculator: bool = setting(False, "whether the result of a step is written for the policy", FLAG)
    new_targets: bool = setting(False, "whether some targets are kept out of training, for held-out problems", FLAG)
    thinking: bool = setting(True, "whether the policy writes a thought; else all responses open with the answer", FLAG)
    restarts: float = setting(0.0, "share of the training problems that go on from wrong attempts", number(0, 1))
    restart_bonus: float = setting(0.0, "added to the reward of a right answer to one of these", number(0, 1))
    restart_held_out: int = setting(0, "wrong attempts that all held-out problems go on from", whole(0, MOST_ATTEMPTS))

    name = "countdown"
    templates = TEMPLATES
    problem_from_record = staticmethod(problem_from_record)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.thinking and (self.restarts or self.restart_held_out):
            raise RlinoError("countdown: a restart goes on from a thought, which thinking=false leaves out")

    @property
    def environment(self) -> Calculator | None:
        """What writes into a response while it is sampled."""
        return Calculator() if self.calculator else None

    @property
    def opening_text(self) -> str:
        """What every response opens with, which the policy does not write: without thinking, an empty thought.

        NoThinking (2504.09858) prefills it, No-Thinking-RL (CLS-RL, 2503.16188) trains without one.
        """
        return "" if self.thinking else NO_THOUGHT

    def problems(self, split: str, n: int | None = None) -> list[Problem]:
        """The first `n` solvable problems of a split in a seeded order, all of them where `n` is None.

        Raises RlinoError for an unknown split, where fewer than `n` problems exist, and where all are none.
        """
        keys = list(keys_of_split(split, self.n_numbers, tuple(self.numbers), tuple(self.targets)))  # JSON has lists
        rng = random.Random(f"{split}-{self.seed}")
        rng.shuffle(keys)
        if self.new_targets:
            known, new = ([key for key in keys if split_of_target(key[1]) == where] for where in ("train", split))
            # Every second held-out problem has a new target, so that any prefix holds half of each kind.
            keys = known if split == "train" else [key for pair in zip(known, new, strict=False) for key in pair]
        n_problems = how_many(n, len(keys), split, "countdown with these ranges")
        if not keys and n is None:
            ranges = ", ".join(f"{name}={getattr(self, name)}" for name in ("n_numbers", "numbers", "targets"))
            raise RlinoError(f"countdown has no {split} problem with {ranges}")
        problems = []
        for key, target in keys[:n_problems]:
            nums = list(key)
            rng.shuffle(nums)
            problem = make_problem(nums, target)
            if self.new_targets:
                kind = "problem" if split_of_target(target) == "train" else "target"
                problem = replace(problem, data={**problem.data, "kind": kind})
            problems.append(problem)
        if split == "train" and self.restarts:
            return [restarted(problem, self.restarts) for problem in problems]
        if split != "train" and self.restart_held_out:
            return [restarted(problem, attempts=self.restart_held_out) for problem in problems]
        return problems

    def prompt(self, problem: Problem) -> str:
        nums = [str(n) for n in problem.data["nums"]]
        return TEMPLATES[self.template].text.format(
            nums=" ".join(nums), nums_comma=", ".join(nums), target=problem.data["target"]
        )

    def grade(self, problem: Problem, response: str) -> Grade:
        response = up_to_stop(response, self.stop)
        grade = grade_countdown(problem.data["nums"], problem.data["target"], response, self.rewards)
        return with_bonus(grade, problem, self.restart_bonus)

    def counts(self, problem: Problem, response: str) -> dict[str, int | None]:
        """The counts of a response as a search (chapter 08c)."""
        from rlino_lib.tasks.countdown.trace import search_counts

        return search_counts(problem, up_to_stop(response, self.stop))

    def chain_right(self, problem: Problem, response: str) -> bool:
        """Whether every step and verdict of a response is right, and its answer follows from them (chapter 09)."""
        from rlino_lib.tasks.countdown.trace import chain_is_right

        return chain_is_right(problem, up_to_stop(response, self.stop))

    def step_ends(self, problem: Problem, response: str) -> list[int]:
        """Where a response may be split, in characters: where the policy's own text starts, and after each attempt of
        its own that has a verdict and is not the last.

        A line break that follows belongs to the verdict, as in the base's tokens.
        """
        from rlino_lib.tasks.countdown.trace import read_search

        attempts = read_search(problem, up_to_stop(response, self.stop)).attempts[:-1]
        ends = (a.end + response.startswith("\n", a.end) for a in attempts if a.verdict)
        start = len(problem.opening or self.opening_text)
        return [start, *(end for end in ends if end > start)]

    def exact_values(self, problem: Problem, response: str) -> list[tuple[int, float]]:
        """The exact value of the task's state after each step and verdict, and where it stands, in characters.

        It is that of a policy that draws its steps uniformly and tries again with probability `TRIES_AGAIN`
        (`trace.credit_table`), which the shipped base was made to imitate. The states of an opening stand where the
        policy's own text starts, and the last of them counts.
        """
        from rlino_lib.tasks.countdown.trace import credit_table

        table = credit_table(problem, up_to_stop(response, self.stop), again=TRIES_AGAIN)[:-1]  # without the grade
        starts = table["end"].clip(lower=len(problem.opening or self.opening_text)).tolist()
        return list(zip(starts, table["uniform"].tolist(), strict=True))
