"""Countdown as a decision process of its own (chapter 01): states are the numbers left, actions are operations.

A language model's state is the text so far. The task's own state forgets how it was reached, so many texts share one
state, and its values can be computed exactly. Nothing here needs a model or torch.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import pandas as pd

from rlino_lib.errors import RlinoError
from rlino_lib.tasks.base import Problem
from rlino_lib.tasks.countdown import _STEP, Step, _one_step, grade, reachable

State = tuple[int, ...]  # the numbers left, sorted

# --- exact values ----------------------------------------------------------------------------------------------------


def actions(state: State) -> Iterator[tuple[Step, State]]:
    """The operations a state allows and the state that each leads to; none where one number is left."""
    return _one_step(state)


def best_value(state: State, target: int) -> int:
    """V* of an attempt: 1 where the target can still be reached with every number used, else 0."""
    return int(target in reachable(state))


@lru_cache(maxsize=200_000)
def uniform_value(state: State, target: int) -> Fraction:
    """The chance that operations drawn uniformly from `actions` end at the target; exact, by dynamic programming."""
    if len(state) == 1:
        return Fraction(state[0] == target)
    after = [uniform_value(rest, target) for _, rest in actions(state)]
    return sum(after, Fraction()) / len(after)


def searcher_value(state: State | None, start: State, target: int, again: float) -> float:
    """The value of the uniform policy where a failed attempt is followed by another one with probability `again`.

    V(s) = v(s) + (1 − v(s)) · again · V(start), with v the value of one attempt; `state` None is an attempt that broke
    the rules (v = 0). Raises RlinoError unless 0 ≤ again < 1.
    """
    if not 0 <= again < 1:
        raise RlinoError(f"the chance of another attempt is at least 0 and below 1, not {again}")
    first = float(uniform_value(start, target))
    of_start = first / (1 - again * (1 - first)) if first else 0.0
    v = float(uniform_value(state, target)) if state is not None else 0.0
    return v + (1 - v) * again * of_start


# --- how many states -------------------------------------------------------------------------------------------------


class StateCounts(NamedTuple):
    """States that can be met within some attempts, the root included, in three views of the same process."""

    strings: int  # token strings: the state of a language model
    histories: int  # sequences of operations
    merged: int  # multisets of numbers left: the state of the task


_PIECE = re.compile(r" \d{1,2}|\d| ?[^\s\d]+\n?|\s+")


def pieces(text: str) -> list[str]:
    """A trace in numbers, signs and words: the tokens of the shipped base, without its tokenizer (chapter 03)."""
    return _PIECE.findall(text)


def attempts(state: State) -> Iterator[tuple[Step, ...]]:
    """Every complete attempt: the sequences of operations until one number is left."""
    for step, rest in actions(state):
        for tail in attempts(rest) if len(rest) > 1 else ((),):
            yield (step, *tail)


def attempt_text(steps: Sequence[Step], verdict: str = " no\n") -> str:
    """An attempt as the shipped base writes it: ` 8 * 4 = 32, 32 * 2 = 64 no`."""
    return ",".join(f" {a} {op} {b} = {c}" for a, op, b, c in steps) + verdict


def ways(start: State) -> Counter[State]:
    """The states reachable from `start`, each with the number of operation sequences that lead to it."""
    found: Counter[State] = Counter({start: 1})
    layer = Counter(found)
    while layer := _next_layer(layer):
        found += layer
    return found


def _next_layer(layer: Counter[State]) -> Counter[State]:
    after: Counter[State] = Counter()
    for state, n in layer.items():
        for _, rest in actions(state):
            after[rest] += n
    return after


def count_states(
    nums: Sequence[int], n_attempts: int = 1, split: Callable[[str], Sequence[object]] = pieces
) -> StateCounts:
    """States met in up to `n_attempts` attempts from `nums`, each closed by the token ` no` and a line break.

    `split` cuts a text into tokens. A string remembers every attempt before it, so the counts of attempts multiply; the
    merged state returns to where it began, so its count stays. Only legal steps count, written larger number first: a
    model's own strings are far more. Raises RlinoError for fewer than two numbers or no attempt.
    """
    start = tuple(sorted(nums))
    if len(start) < 2 or n_attempts < 1:
        raise RlinoError("counting states needs at least two numbers and one attempt")
    strings, histories, complete = set(), set(), 0
    for steps in attempts(start):
        complete += 1
        tokens = tuple(split(attempt_text(steps)))
        strings.update(tokens[:k] for k in range(1, len(tokens) + 1))
        histories.update(steps[:k] for k in range(1, len(steps) + 1))
    # Attempt j + 1 hangs below each of the complete^j ways in which the attempts before it can have gone.
    below = sum(complete**j for j in range(n_attempts))
    return StateCounts(1 + len(strings) * below, 1 + len(histories) * below, len(ways(start)))


# --- reading a trace -------------------------------------------------------------------------------------------------

_EVENT = re.compile(rf"(?P<step>{_STEP.pattern})|(?P<no> no\b(?P<again>\n?))|(?P<yes> yes\b)")


@dataclass(frozen=True)
class Visit:
    """Where the task stands after a piece of a trace: `response[:end]` is what has been written by then."""

    what: str  # start, step, no (and starts over), gives up, yes, answer, cut (ended without an answer)
    end: int  # in characters
    text: str  # what was written since the visit before
    state: State | None  # None once an attempt has broken the rules
    fault: str  # why it has, in words; empty otherwise
    correct: bool | None = None  # the grader's verdict; None before the end


def _apply(state: State | None, step: Step) -> tuple[State | None, str]:
    """The state after a written step, or None and the rule that it breaks."""
    if state is None:
        return None, ""  # already broken, and said so
    a, op, b, c = step
    left = Counter(state)
    left.subtract([a, b])
    if min(left.values()) < 0:
        missing = next(n for n in (a, b) if left[n] < 0)
        return None, f"{missing} is not there to be used"
    if not {"+": a + b == c, "-": a - b == c, "*": a * b == c, "/": b != 0 and a == b * c}[op]:
        return None, f"{a} {op} {b} is not {c}"
    return tuple(sorted([*left.elements(), c])), ""


def read_trace(problem: Problem, response: str) -> list[Visit]:
    """A trace as the states that it visits, from all numbers to the grader's verdict.

    An attempt is a chain of steps; ` no` with a line break starts over from all numbers, ` no` without one gives up,
    ` yes` is the claim of a hit, and the answer ends the trace with its grade, whatever the state was. Text that is
    none of these belongs to the visit after it. Any string will do.
    """
    start = tuple(sorted(problem.data["nums"]))
    verdict = grade(problem.data["nums"], problem.data["target"], response)
    visits, state = [Visit("start", 0, "", start, "")], start
    thought = response.partition("</think>")[0]
    for m in _EVENT.finditer(thought):
        fault, what = "", "yes"
        if m["step"]:
            a, op, b, c = m.group(2, 3, 4, 5)
            (state, fault), what = _apply(state, (int(a), op, int(b), int(c))), "step"
        elif m["no"]:
            what = "no" if m["again"] else "gives up"
            state = start if m["again"] else state
        visits.append(Visit(what, m.end(), response[visits[-1].end : m.end()], state, fault))
    what = "answer" if verdict.format_ok else "cut"
    visits.append(Visit(what, len(response), response[visits[-1].end :], state, verdict.reason, verdict.correct))
    return visits


def credit_table(
    problem: Problem,
    response: str,
    advantage: float = 1.0,
    again: float = 0.0,
    split: Callable[[str], Sequence[object]] = pieces,
) -> pd.DataFrame:
    """One row a visit: exact values of the state, the credit V(s′) − V(s) of what was written, and the uniform split.

    `best` is 1 where the attempt under way can still succeed, `uniform` is `searcher_value` with `again`; both are the
    grade at the end, so each column of credits sums to the reward minus its value at the start. `tokens` counts what
    was written by `split`, and `uniform split` is the share advantage · tokens / |o| of the response's advantage.
    Raises RlinoError for more than five numbers, whose states are too many to solve.
    """
    start, target = tuple(sorted(problem.data["nums"])), problem.data["target"]
    if len(start) > 5:
        raise RlinoError(f"exact values are for at most five numbers, not {len(start)}")
    visits = read_trace(problem, response)
    rows = []
    for v in visits:
        best = best_value(v.state, target) if v.state is not None else 0
        closed = v.what in ("yes", "gives up")  # no further attempt will follow
        uniform = searcher_value(v.state, start, target, 0.0 if closed else again)
        if v.correct is not None:
            best, uniform = int(v.correct), float(v.correct)
        rows.append((v.what, v.text, v.state, v.fault, v.end, len(split(v.text)), best, uniform))
    names = ["what", "text", "state", "fault", "end", "tokens", "best", "uniform"]
    frame = pd.DataFrame(rows, columns=names)
    frame["credit (best)"] = frame["best"].diff().fillna(0).astype(int)
    frame["credit (uniform)"] = frame["uniform"].diff().fillna(0.0)
    frame["uniform split"] = advantage * frame["tokens"] / max(1, frame["tokens"].sum())
    return frame
