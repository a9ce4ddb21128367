"""Arithmetic as traces write it, step by step (chapters 02 and 03)."""

from __future__ import annotations

import re

Step = tuple[int, str, int, int]  # a, operation, b, result

# Not from the middle of a longer number, a decimal or a chain such as `8 - 2 + 3 = 9`.
_STEP = re.compile(
    r"(?<![0-9.])(?<![0-9)] [+\-*/] )([0-9]{1,9}) ([+\-*/]) ([0-9]{1,9}) = ([0-9]{1,9})(?![0-9]|\.[0-9])"
)


def trace_steps(response: str) -> list[tuple[Step, bool]]:
    """Every written step `a op b = c` of a trace, with whether its arithmetic is right."""
    found = []
    for a, op, b, c in _STEP.findall(response):
        a, b, c = int(a), int(b), int(c)
        right = {"+": a + b == c, "-": a - b == c, "*": a * b == c, "/": b != 0 and a == b * c}[op]
        found.append(((a, op, b, c), right))
    return found


def count_attempts(response: str) -> int:
    """How many attempts a compact trace makes: each ends in a verdict, `no` or `yes`."""
    return len(re.findall(r" (?:no|yes)\b", response))


def trace_counts(response: str) -> dict[str, int]:
    """What an evaluation counts of a trace: arithmetic steps written, how many of them are right, and attempts."""
    right = [true for _, true in trace_steps(response)]
    return {"steps": len(right), "steps_right": sum(right), "attempts": count_attempts(response)}
