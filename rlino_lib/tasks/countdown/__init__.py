"""Countdown (chapter 02): reach a target from some numbers. A chapter calls its functions by `countdown.NAME`."""

from rlino_lib.tasks.arithmetic import count_attempts, trace_steps
from rlino_lib.tasks.base import REWARDS, SPLITS
from rlino_lib.tasks.countdown.game import (
    expression,
    make_problem,
    problem_key,
    reachable,
    solutions,
    split_of,
    steps_from,
)
from rlino_lib.tasks.countdown.grade import BadExpression, evaluate_postfix, extract_answer, grade, to_postfix, tokenize

__all__ = [
    "BadExpression", "REWARDS", "SPLITS", "count_attempts", "evaluate_postfix", "expression", "extract_answer", "grade",
    "make_problem", "problem_key", "reachable", "solutions", "split_of", "steps_from", "to_postfix", "tokenize",
    "trace_steps",
]  # fmt: skip
