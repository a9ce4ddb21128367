"""A Countdown response read as steps and verdicts, in three views (chapters 01 and 08).

`read_search`: its attempts, hits and repeats, and what stands between them. `read_trace`: the states that it visits.
`credit_table`: the credit of each piece.
An attempt is one step `a op b = c` or more, closed by a verdict, ` no` or ` yes`; each starts from all the numbers. A
text that writes no verdicts is one attempt. Nothing here needs a model or torch, and any string is accepted: of a
search only the first MAX_READ characters are read, so that the work is bounded whatever a model writes.
"""

import math
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import pandas as pd

from rlino_lib.errors import RlinoError
from rlino_lib.tasks.arithmetic import Event, Step, events
from rlino_lib.tasks.base import Problem
from rlino_lib.tasks.countdown.game import expression, pieces
from rlino_lib.tasks.countdown.grade import MAX_NUMBERS, extract_answer, grade_countdown, problem_from_record, shape
from rlino_lib.tasks.countdown.mdp import State, best_value, searcher_value

MAX_READ = 20_000  # characters of a response; the shipped base writes about 4 characters a token
Same = Literal["exact", "order", "results"]

# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Written:
    """A step as it was written, right or not; `left` are the numbers that the trace itself has left after it."""

    step: Step
    end: int  # in characters of the response
    true: bool  # the arithmetic is right
    missing: int | None  # a number that it takes and that was not left; None where there is none, or nobody knows
    left: State | None  # a wrong result stays as written; None once a number came from nowhere

    @property
    def fault(self) -> str:
        """What is wrong with the step, in words; empty where nothing is."""
        wrong = "" if self.true else "{} {} {} is not {}".format(*self.step)
        missing = "" if self.missing is None else f"{self.missing} is not left"
        return "; ".join(filter(None, (wrong, missing)))


def _write(event: Event, left: State | None) -> Written:
    """The step that follows on `left`."""
    missing = None
    if left is not None:
        a, _, b, result = event.step
        rest = Counter(left)
        rest.subtract((a, b))
        missing = next((n for n in (a, b) if rest[n] < 0), None)
        left = tuple(sorted([*rest.elements(), result])) if missing is None else None
    return Written(event.step, event.end, event.right, missing, left)


def start_of(problem: Problem) -> State:
    """The state that every attempt starts from: all numbers of a Countdown problem, sorted."""
    return tuple(sorted(problem.data["nums"]))


# --- as a search -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attempt:
    """Steps and their verdict; `response[start:end]` is all its text, what stands before its first step included."""

    steps: tuple[Written, ...]
    verdict: str  # no, yes, or empty where the thought ends before one
    start: int
    end: int
    hit: int | None  # after how many of its steps the target alone was left, all of them right; None where never

    @property
    def shape(self) -> str | None:
        """The `shape` of its expression; None where it has more steps than an expression may have."""
        return shape(expression([w.step for w in self.steps])) if len(self.steps) < MAX_NUMBERS else None

    def key(self, same: Same = "order") -> tuple:
        """The key that two attempts share if they count as the same (see `Search.repeats`)."""
        steps = tuple(w.step for w in self.steps)
        if same == "results":
            return tuple(sorted(c for *_, c in steps))
        return steps if same == "exact" else tuple(sorted(map(unordered, steps)))


def unordered(step: Step) -> Step:
    """The step with the larger number first where the order of its numbers does not matter."""
    a, op, b, c = step
    return (max(a, b), op, min(a, b), c) if op in "+*" else step


@dataclass(frozen=True)
class Search:
    """A response as its attempts."""

    nums: State
    target: int
    response: str
    attempts: tuple[Attempt, ...]
    filler: tuple[str, ...]  # what the thought holds besides steps, commas, and the verdicts of attempts
    thought: int  # where the thought ends, in characters
    starts: tuple[int, ...]  # where each token starts (`pieces`: the tokens of the shipped base)

    @property
    def first_hit(self) -> int | None:
        """The first attempt that hits the target, counted from 1; by its arithmetic, whatever its verdict says."""
        return next((k for k, a in enumerate(self.attempts, 1) if a.hit is not None), None)

    def repeats(self, same: Same = "order") -> list[int | None]:
        """For each attempt the number of the first attempt before it that is the same; None for new ones.

        `exact` is the same steps in the same order; `order` ignores the order of the steps, and of numbers that are
        added or multiplied; `results` compares the results alone. Each ignores what the one before it ignores. An
        attempt without a verdict may be incomplete, and is not a repeat.
        """
        first: dict[tuple, int] = {}
        repeated: list[int | None] = []
        for k, attempt in enumerate(self.attempts, 1):
            earlier = first.setdefault(attempt.key(same), k)
            repeated.append(earlier if earlier < k and attempt.verdict else None)
        return repeated

    def tokens(self, start: int, end: int) -> int:
        """How many tokens start from character `start` on and before `end`."""
        return bisect_left(self.starts, end) - bisect_left(self.starts, start)

    @property
    def answer_attempt(self) -> int | None:
        """The last attempt whose expression is the answer, up to the order of what is added or multiplied."""
        answer = shape(extract_answer(self.response) or "")
        for k in range(len(self.attempts), 0, -1) if answer else ():
            if self.attempts[k - 1].shape == answer:
                return k
        return None


# The start of a step, at the end of a response that ran into its cap.
_BEGUN = re.compile(r"[\s,]*(?:[0-9]{1,9}(?: [+\-*/]?(?: [0-9]{0,9}(?: =? ?)?)?)?)?")
_SEPARATORS = " ,\t\r\n"


def read_search(problem: Problem, response: str) -> Search:
    """The attempts of a response to a Countdown problem; never raises because of the response.

    The thought ends at `</think>`, or with the response. Steps are those of `trace_steps` in it; verdicts are those of
    `count_attempts` in it, less those that follow no step, which are filler.
    """
    start = start_of(problem)
    target = problem.data["target"]
    text = response[:MAX_READ]
    thought, closed, _ = text.partition("</think>")
    thought = thought.removesuffix(" ") if closed else thought  # the space belongs to the token that closes it
    attempts: list[Attempt] = []
    steps: list[Written] = []  # of the attempt under way
    gaps: list[str] = []
    begun = end = 0  # where the attempt under way begins, and where the last event ends
    for event in events(thought):
        gaps.append(thought[end : event.start])
        end = event.end
        if event.step:
            steps.append(_write(event, steps[-1].left if steps else start))
        elif steps:
            attempts.append(_attempt(steps, event.verdict.strip(), begun, end, target))
            steps = []
            begun = end
        else:
            gaps.append(event.verdict)
    if steps:
        attempts.append(_attempt(steps, "", begun, len(thought), target))
    gaps.append("" if not closed and _BEGUN.fullmatch(thought, end) else thought[end:])
    filler = tuple(stripped for gap in gaps if (stripped := gap.strip(_SEPARATORS)))
    token_starts = tuple(accumulate(map(len, pieces(text)), initial=0))[:-1]
    return Search(start, target, response, tuple(attempts), filler, len(thought), token_starts)


def _attempt(steps: list[Written], verdict: str, start: int, end: int, target: int) -> Attempt:
    alone = next((k for k, w in enumerate(steps, 1) if w.left == (target,)), None)
    hit = alone if alone and all(w.true for w in steps[:alone]) else None
    return Attempt(tuple(steps), verdict, start, end, hit)


def chain_is_right(problem: Problem, response: str) -> bool:
    """Whether a response is right by its own chain: CoT-pass@k counts such samples (2506.14245).

    Every equation holds, every verdict is the truth about its attempt, and the answer is right and the expression of an
    attempt that is called yes. What would stand past MAX_READ is not read, and then the chain does not count as right.
    """
    if len(response) > MAX_READ or not grade_countdown(problem.data["nums"], problem.data["target"], response).correct:
        return False
    search = read_search(problem, response)
    answered = search.answer_attempt
    return _is_true(search) and answered is not None and search.attempts[answered - 1].verdict == "yes"


def process_is_right(problem: Problem, response: str) -> bool:
    """Whether the thought is right whatever the answer: each equation holds and takes numbers that are left, and each
    verdict is the truth about its attempt. An empty thought is right. What would stand past MAX_READ is not read, and
    then the thought does not count as right."""
    search = read_search(problem, response)
    kept = all(w.missing is None for a in search.attempts for w in a.steps)
    return len(response) <= MAX_READ and kept and _is_true(search)


def _is_true(search: Search) -> bool:
    """Whether every equation holds and every verdict is the truth about its attempt."""
    honest = all((a.verdict == "yes") == (a.hit is not None) for a in search.attempts if a.verdict)
    return honest and all(w.true for a in search.attempts for w in a.steps)


# --- counting --------------------------------------------------------------------------------------------------------


def search_counts(problem: Problem, response: str) -> dict[str, int | None]:
    """What a run records of a held-out response, counted as a search.

    `attempts`; `first_hit`, the first attempt that hits the target, None where none does; `repeats_order` as in
    `Search.repeats`; hits `overlooked`, that are called no, and `false_yes`, a yes without a hit; what follows the
    first hit in the thought, in attempts and in tokens; tokens of all attempts; `filler`, in tokens.
    All are of the policy's own attempts: those of a problem's `opening`, which all are wrong and called no, are not
    counted, and only an attempt of the policy's that is the same as one of them is a repeat.
    """
    s = read_search(problem, response)
    given = sum(a.end <= len(problem.opening) for a in s.attempts) if response.startswith(problem.opening) else 0
    own = s.attempts[given:]
    hit = next((k for k, a in enumerate(own, 1) if a.hit is not None), None)
    after = own[hit - 1].end if hit else s.thought
    return {
        "attempts": len(own),
        "first_hit": hit,
        "repeats_order": sum(k is not None for k in s.repeats()[given:]),
        "overlooked": sum(a.hit is not None and a.verdict == "no" for a in own),
        "false_yes": sum(a.hit is None and a.verdict == "yes" for a in own),
        "attempts_after_hit": len(own) - hit if hit else 0,
        "tokens_after_hit": s.tokens(after, s.thought),
        "tokens_attempts": sum(s.tokens(a.start, a.end) for a in own),
        "filler": sum(len(pieces(text)) for text in s.filler),
    }


def countdown_problem(data: object) -> Problem:
    """The problem that a rollout's `data` describes; raises RlinoError where that is no Countdown problem."""
    try:
        return problem_from_record(data if isinstance(data, Mapping) else {})
    except ValueError as e:
        raise RlinoError(f"a search is read from Countdown rollouts: {e}") from e


def success_by_attempt(frame: pd.DataFrame, attempts: int) -> pd.DataFrame:
    """Success attempt by attempt, from `search_counts` as a frame: one row for each k from 1 to `attempts`.

    `reached` counts the responses that make a k-th attempt with no hit before it, `hits` those that hit with it, `rate`
    is the share hits/reached; `within` is the share of all responses that hit within
    k attempts, whatever their verdicts and their own answers say.
    Raises RlinoError for an empty frame.
    """
    if frame.empty:
        raise RlinoError("no responses to count attempts of")
    budget = pd.RangeIndex(1, attempts + 1, name="attempt")
    first = frame["first_hit"].to_numpy(float, na_value=math.inf)
    reached = [int(((frame["attempts"] >= k) & (first >= k)).sum()) for k in budget]
    hits = [int((first == k).sum()) for k in budget]
    table = pd.DataFrame({"reached": reached, "hits": hits}, index=budget)
    return table.assign(rate=table["hits"] / table["reached"], within=table["hits"].cumsum() / len(frame))


# --- as a path through the task's states -----------------------------------------------------------------------------

_WHAT = {" no\n": "no", " no": "gives up", " yes": "yes", "": "step"}  # by the verdict of an event


@dataclass(frozen=True)
class Visit:
    """Where the task stands after a piece of a trace: `response[:end]` is what has been written by then."""

    what: str  # start, step, no (and starts over), gives up, yes, answer, cut (ended without an answer)
    end: int  # in characters
    text: str  # what was written since the visit before
    state: State | None  # None once an attempt has broken the rules
    fault: str  # why it has, in words; empty otherwise
    correct: bool | None = None  # the grader's verdict; None before the end


def read_trace(problem: Problem, response: str) -> list[Visit]:
    """A trace as the states that it visits, from all numbers to the grader's verdict.

    An attempt is a chain of steps; ` no` with a line break starts over from all numbers, ` no` without one gives up,
    ` yes` is the claim of a hit, and the answer ends the trace with its grade, whatever the state was. Text that is
    none of these belongs to the visit after it. It accepts any string.
    """
    state = start_of(problem)
    visits = [Visit("start", 0, "", state, "")]
    for event in events(response.partition("</think>")[0]):
        what = _WHAT[event.verdict]
        fault = ""
        if event.step and state is not None:  # what follows a broken rule breaks none
            step = _write(event, state)
            fault = step.fault if step.missing is None else f"{step.missing} is not there to be used"
            state = None if fault else step.left
        elif what == "no":
            state = start_of(problem)
        visits.append(Visit(what, event.end, response[visits[-1].end : event.end], state, fault))
    grade = grade_countdown(problem.data["nums"], problem.data["target"], response)
    what = "answer" if grade.format_ok else "cut"
    rest = response[visits[-1].end :]
    return [*visits, Visit(what, len(response), rest, state, grade.reason, grade.correct)]


def credit_table(problem: Problem, response: str, again: float = 0.0) -> pd.DataFrame:
    """One row per visit: exact values of the state, and the credit V(s′) − V(s) of what was written.

    `best` is 1 where the attempt under way can still succeed, `uniform` is `searcher_value` with `again`; both are the
    grade at the end, so each column of credits sums to the reward minus its value at the start. `tokens` counts what
    was written (`pieces`). Raises RlinoError for more than five numbers, whose states are too many to solve.
    """
    start = start_of(problem)
    target = problem.data["target"]
    if len(start) > 5:
        raise RlinoError(f"exact values are for at most five numbers, not {len(start)}")

    def values(visit: Visit) -> tuple[int, float]:
        if visit.correct is not None:
            return int(visit.correct), float(visit.correct)
        best = 0 if visit.state is None else best_value(visit.state, target)
        closed = visit.what in ("yes", "gives up")  # no further attempt will follow
        return best, searcher_value(visit.state, start, target, 0.0 if closed else again)

    visits = read_trace(problem, response)
    frame = pd.DataFrame(visits)[["what", "text", "state", "fault", "end"]]
    frame["tokens"] = [len(pieces(visit.text)) for visit in visits]
    frame["best"], frame["uniform"] = zip(*map(values, visits), strict=True)
    frame["credit (best)"] = frame["best"].diff().fillna(0).astype(int)
    frame["credit (uniform)"] = frame["uniform"].diff().fillna(0.0)
    return frame
