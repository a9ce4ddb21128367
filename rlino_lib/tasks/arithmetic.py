"""Arithmetic as traces write it: the steps and verdicts of any text, in order (chapters 02 and 03)."""

import re
from collections.abc import Iterator
from typing import NamedTuple

Step = tuple[int, str, int, int]  # a, operation, b, result

# Not from the middle of a longer number, a decimal or a chain such as `8 - 2 + 3 = 9`.
_STEP = re.compile(
    r"(?<![0-9.])(?<![0-9)] [+\-*/] )([0-9]{1,9}) ([+\-*/]) ([0-9]{1,9}) = ([0-9]{1,9})(?![0-9]|\.[0-9])"
)
_VERDICT = re.compile(r" no\b\n?| yes\b")
_EVENT = re.compile(rf"{_STEP.pattern}|({_VERDICT.pattern})")


class Event(NamedTuple):
    """A step `a op b = c`, or a verdict; `text[start:end]` is how it is written."""

    start: int  # in characters of the text
    end: int
    step: Step | None  # None for a verdict
    right: bool  # whether the step's arithmetic is
    verdict: str  # ` no`, ` no` with a line break, or ` yes`; empty for a step


def events(text: str) -> Iterator[Event]:
    """The steps of `trace_steps` and the verdicts of `count_attempts`, in order; linear in any text."""
    for match in _EVENT.finditer(text):
        *numbers, verdict = match.groups()
        step, right = (None, False) if verdict else _checked(*numbers)
        yield Event(*match.span(), step, right, verdict or "")


def _checked(a: str, op: str, b: str, result: str) -> tuple[Step, bool]:
    """A step, and whether its arithmetic is right."""
    step = int(a), op, int(b), int(result)
    return step, calculate(*step[:3]) == step[3]


def calculate(a: int, op: str, b: int) -> int | None:
    """The result of one operation, exact; None for a division that does not come out whole, or by 0.

    >>> calculate(8, "/", 4), calculate(8, "/", 3)
    (2, None)
    """
    if op == "/":
        return a // b if b and a % b == 0 else None
    return {"+": a + b, "-": a - b, "*": a * b}[op]


def trace_steps(response: str) -> list[tuple[Step, bool]]:
    """Every written step `a op b = c` of a trace, with whether its arithmetic is right.

    >>> trace_steps(" 8 - 2 = 6, 6 * 4 = 25 no")
    [((8, '-', 2, 6), True), ((6, '*', 4, 25), False)]
    """
    return [_checked(*step) for step in _STEP.findall(response)]


def count_attempts(response: str) -> int:
    """How many attempts a compact trace makes: each ends in a verdict, `no` or `yes`."""
    return len(_VERDICT.findall(response))


def trace_counts(response: str) -> dict[str, int]:
    """What an evaluation counts of a trace: arithmetic steps written, how many of them are right, and attempts."""
    right = [right for _, right in trace_steps(response)]
    return {"steps": len(right), "steps_right": sum(right), "attempts": count_attempts(response)}
