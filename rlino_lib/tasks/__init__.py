"""Tasks with verifiers: problems, prompts and graders, by name."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from rlino_lib.errors import RlinoError
from rlino_lib.tasks.base import Grade, Problem, Task
from rlino_lib.tasks.clean_room import CleanRoom
from rlino_lib.tasks.countdown.task import Countdown
from rlino_lib.tasks.gsm8k.task import Gsm8k
from rlino_lib.tasks.word_problems.task import WordProblems

TASKS = {
    "countdown": Countdown,
    "word_problems": WordProblems,
    "gsm8k": Gsm8k,
    "clean_room": CleanRoom,
}


def get_task(name: str, /, **settings: Any) -> Task:
    """A task by name; raises RlinoError for a name or a setting that does not exist, or for a value out of range."""
    if name not in TASKS:
        raise RlinoError(f"unknown task {name!r}: one of {', '.join(TASKS)}")
    known = [f.name for f in fields(TASKS[name])]
    for key in settings:
        if key not in known:
            raise RlinoError(f"task {name} has no setting {key[:60]!r}: one of {', '.join(known)}")
    return TASKS[name](**settings)


__all__ = ["CleanRoom", "Countdown", "Grade", "Gsm8k", "Problem", "Task", "TASKS", "WordProblems", "get_task"]
