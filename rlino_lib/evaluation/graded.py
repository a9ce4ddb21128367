"""Responses to a task's problems, graded: the one place where a task says how it is sampled (chapters 03 and 04)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from rlino_lib.errors import RlinoError
from rlino_lib.policy.models import Policy
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.policy.sampling import sample
from rlino_lib.tasks import Problem, Task
from rlino_lib.tasks.base import TaskWithLots, lots_of


def check_openings(policy: Policy, task: Task, problems: Sequence[Problem], cap: int) -> None:
    """Raise RlinoError where what responses to the problems open with fills the cap of `cap` tokens."""
    texts = {_opening(task, problem) for problem in problems}
    tokens = policy.tokenizer(sorted(texts), add_special_tokens=False)["input_ids"] if any(texts) else []
    if (longest := max(map(len, tokens), default=0)) >= cap:
        raise RlinoError(f"responses open with up to {longest} tokens, which fill the cap of {cap}: raise it")


def _opening(task: Task, problem: Problem) -> str:
    """What the responses to a problem open with, of a task with lots the one with lot 0."""
    if hasattr(task, "opening"):
        return cast(TaskWithLots, task).opening(problem, 0)
    return problem.opening or getattr(task, "opening_text", "")


def sample_graded(
    policy: Policy, task: Task, problems: Sequence[Problem], group_size: int, *, seed: int = 0, **sampling: Any
) -> Rollouts:
    """`group_size` responses to each problem, graded: a task's stop strings end them, its environment writes into them.

    A task's `opening_text` opens all responses, or a problem's own `opening` those to it. Where a task has lots
    (`TaskWithLots`), each response has its own, by its place and the seed: the task writes its opening, and its
    environment and its grade may depend on it. `sampling` goes to `sample`, and its settings go before the task's own.
    """
    settings: dict[str, Any] = {
        "stop_strings": tuple(getattr(task, "stop", ())),
        "environment": getattr(task, "environment", None),
    }
    lots = lots_of(task, len(problems) * group_size, seed)
    if lots is None:
        openings = [_opening(task, problem) for problem in problems]
        if any(openings):
            settings["prefixes"] = openings
    else:
        rows = [(problems[i // group_size], lot) for i, lot in enumerate(lots)]
        settings["prefixes"] = [cast(TaskWithLots, task).opening(*row) for row in rows]
        if environment_of := getattr(task, "environment_of", None):
            settings["environment"] = [environment_of(*row) for row in rows]
    prompts = [task.prompt(problem) for problem in problems]
    rollouts = sample(policy, prompts, group_size, seed=seed, **settings | sampling)
    rollouts.lots = lots
    return rollouts.grade(task, problems)
