"""Tasks with verifiers: problems, prompts and graders, by name."""

from __future__ import annotations

from typing import Any

from rlino_lib.errors import RlinoError
from rlino_lib.tasks.base import Grade, Problem, Task
from rlino_lib.tasks.countdown import Countdown

TASKS = {"countdown": Countdown}


def get_task(name: str, **settings: Any) -> Task:
    """A task by name; raises RlinoError for a name or a setting that does not exist."""
    if name not in TASKS:
        raise RlinoError(f"unknown task {name!r}: one of {', '.join(TASKS)}")
    try:
        return TASKS[name](**settings)
    except TypeError as e:
        raise RlinoError(f"task {name}: {e}") from e


__all__ = ["Countdown", "Grade", "Problem", "Task", "TASKS", "get_task"]
