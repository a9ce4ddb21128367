"""Tasks with verifiers: problems, prompts and graders, by name."""

from __future__ import annotations

from typing import Any

from rlino_lib.errors import RlinoError
from rlino_lib.tasks.base import Grade, Problem, Task
from rlino_lib.tasks.countdown import Countdown
from rlino_lib.tasks.gsm8k import Gsm8k
from rlino_lib.tasks.word_problems import WordProblems

TASKS = {"countdown": Countdown, "word_problems": WordProblems, "gsm8k": Gsm8k}


def get_task(name: str, **settings: Any) -> Task:
    """A task by name; raises RlinoError for a name or a setting that does not exist."""
    if name not in TASKS:
        raise RlinoError(f"unknown task {name!r}: one of {', '.join(TASKS)}")
    try:
        return TASKS[name](**settings)
    except TypeError as e:
        raise RlinoError(f"task {name}: {e}") from e


__all__ = ["Countdown", "Grade", "Gsm8k", "Problem", "Task", "TASKS", "WordProblems", "get_task"]
