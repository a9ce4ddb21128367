"""Tasks with verifiers: problems, prompts and graders, by name."""

from dataclasses import fields
from typing import Any

from rlino_lib.errors import chosen
from rlino_lib.settings import check_names
from rlino_lib.tasks.base import Grade, Problem, Task
from rlino_lib.tasks.clean_room import CleanRoom
from rlino_lib.tasks.countdown.hidden import HiddenTarget
from rlino_lib.tasks.countdown.task import Countdown
from rlino_lib.tasks.gsm8k.task import Gsm8k
from rlino_lib.tasks.word_problems.task import WordProblems

TASKS: dict[str, Any] = {task.name: task for task in (Countdown, WordProblems, Gsm8k, CleanRoom, HiddenTarget)}


def get_task(name: str, /, **settings: Any) -> Task:
    """A task by name; raises RlinoError for a name or a setting that does not exist, or for a value out of range."""
    chosen(name, TASKS, "task")
    check_names(settings, [f.name for f in fields(TASKS[name])], f"task {name}")
    return TASKS[name](**settings)


__all__ = [
    "CleanRoom", "Countdown", "Grade", "Gsm8k", "HiddenTarget", "Problem", "Task", "TASKS", "WordProblems", "get_task",
]  # fmt: skip
