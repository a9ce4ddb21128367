"""What every task offers: problems, prompts, a grader, `REWARD_SCHEMES`. Nothing here depends on models or torch.

The reward that a run trains on is named in another table, `methods.rewards.REWARDS`.
"""

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from rlino_lib.errors import RlinoError, chosen
from rlino_lib.settings import check
from rlino_lib.tasks.arithmetic import trace_counts


@dataclass(frozen=True)
class Problem:
    """One question with a checkable answer.

    `id` identifies it (the same problem has the same id in every run), `data` is what the grader needs, and `gold`
    stands beside the model's answer where a reader looks at it.
    """

    id: str
    data: Mapping[str, Any] = field(hash=False)
    gold: str = ""

    @property
    def opening(self) -> str:
        """What all responses to it begin with, which the policy does not write: the `opening` of its data, if any."""
        return self.data.get("opening", "")


@dataclass(frozen=True)
class Grade:
    """A verifier's verdict on one response.

    `reward` is what training sees; `correct` and `format_ok` are facts about the response that do not depend on the
    reward scheme; `answer` is what was parsed (None when nothing was); `reason` says why, in words. `value` is the
    answer as the grader compares it, the same for "3" and "3.0"; None where it cannot read one. It is not recorded.
    """

    reward: float
    correct: bool
    format_ok: bool
    answer: str | None
    reason: str
    value: Hashable = None


class Task(Protocol):
    """A source of problems with a verifier (chapter 02).

    It may also have `stop: tuple[str, ...]`, the strings that end a response: sampling stops at the first that is
    complete, and `grade` reads up to it (`up_to_stop`). And it may have `counts(problem, response) -> dict[str, int |
    None]`: what else a run should record of held-out responses, under the same names for each, for any string and in
    bounded time. `trace_counts(response) -> dict[str, int]` counts arithmetic in a trace, for an evaluation to add up.
    `chain_right(problem, response) -> bool` says whether what leads to a right answer is right as well, for CoT-pass@k.
    `environment: Environment | None` writes into the responses of its training and its evaluations, between the two
    strings `delimiters` where it has them, and `opening_text: str` opens all of them: context for the policy, part of
    the text that is graded. So does a problem's own `opening`, of the responses to it.
    """

    name: str

    def problems(self, split: str, n: int | None = None) -> list[Problem]:
        """The first `n` problems of "train", "validation" or "test", the same ones at every call."""
        ...

    def problem_from_record(self, record: Mapping[str, Any]) -> Problem:
        """The problem that one line of `rlino grade` asks about; raises ValueError, with the reason, if none."""
        ...

    def prompt(self, problem: Problem) -> str:
        """The text that the policy continues."""
        ...

    def grade(self, problem: Problem, response: str) -> Grade:
        """The grade of any string, in bounded time; never raises."""
        ...


class TaskWithLots(Task, Protocol):
    """A task in which chance has a part that the policy neither sees nor moves: each response has a lot of its own.

    `evaluation.graded.sample_graded` draws the lots (`lots_of`), by place in the batch and the seed of its sampling.
    It may also have `environment_of(problem, lot) -> Environment`: what writes into the response with this lot, which
    may know the problem better than the prompt says it.
    """

    def opening(self, problem: Problem, lot: int) -> str:
        """What stands at the start of the response with this lot: context for the policy, and no token of its own."""
        ...

    def grade_by_lot(self, problem: Problem, response: str, lot: int) -> Grade:
        """The grade of any string with this lot; `grade` has none to go by."""
        ...


class Environment(Protocol):
    """What writes into a response while it is being sampled: a calculator, a tool, a game (`sample(environment=…)`).

    It is consulted after each of the strings in `after`, at the end of a prefix, and where responses have environments
    of their own after the strings of the others: it answers by the text alone. The same text must get the same answer,
    in bounded time. A new one stands beside its task (`tasks/countdown/environment.py`), and the task offers it as its
    `environment`, or one for each response by `environment_of`.
    """

    after: tuple[str, ...]

    def answer(self, text: str) -> str:
        """What it writes after the response's text so far, its prefix included; "" where it writes nothing."""
        ...


# --- prompts and where a response to them ends -----------------------------------------------------------------------


@dataclass(frozen=True)
class Template:
    """A prompt as data: `text` with slots in braces, and the strings before the first of which a response to it ends.

    A base model that has answered goes on, often with a next question of its own. So what begins a turn of the prompt
    ends a response: "\nQuestion:", with the line break, since inside a sentence the word ends nothing.
    """

    text: str
    stop: tuple[str, ...] = ()


# What ends a text for the tokenizers of other families; lm-evaluation-harness stops GSM8K's responses at these too.
END_MARKS = ("</s>", "<|im_end|>")


def up_to_stop(response: str, stop: Sequence[str]) -> str:
    """What stands before the first stop string; linear in the response.

    The start of a response counts as the start of a line, so "\nQuestion:" also ends one that begins with "Question:".
    """
    text = "\n" + response
    places = [place for s in stop if (place := text.find(s)) >= 0]
    return response[: max(min(places) - 1, 0)] if places else response


# --- splits ----------------------------------------------------------------------------------------------------------

SPLITS = ("train", "validation", "test")


def has_environment(task: Task) -> bool:
    """Whether something writes into a task's responses while they are sampled."""
    return hasattr(task, "environment_of") or getattr(task, "environment", None) is not None


def has_context(task: Task) -> bool:
    """Whether a task's training responses may hold text that the policy does not write."""
    opened = hasattr(task, "opening") or bool(getattr(task, "opening_text", "") or getattr(task, "restarts", 0))
    return has_environment(task) or opened


def check_steps(task: Task) -> None:
    """Raise RlinoError for a task that has no steps."""
    if not hasattr(task, "step_ends"):
        raise RlinoError(f"the task {task.name} has no steps: a credit by steps needs countdown or word_problems")


def lots_of(task: Task, count: int, seed: int) -> list[int] | None:
    """The lot of each of `count` responses, a number from 0 to 2⁶⁴ − 1; None for a task without lots."""
    return [hash_of(f"lot-{seed}-{row}") for row in range(count)] if hasattr(task, "opening") else None


def hash_of(key: str) -> int:
    """A number from 0 to 2⁶⁴ − 1 that depends on the key alone, whatever the machine and the seed."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")


def split_of_key(key: str) -> str:
    """The split that a problem belongs to, by the hash of its key: 10 % test, 5 % validation, the rest train."""
    bucket = hash_of(key) % 100
    return "test" if bucket < 10 else "validation" if bucket < 15 else "train"


def how_many(n: int | None, size: int, split: str, task: str) -> int:
    """`n`, or all `size` problems of a split where it is None.

    Raises RlinoError for an unknown split, or where it has fewer than `n` problems.
    """
    chosen(split, SPLITS, "split")
    n_problems = size if n is None else n
    if not 0 <= n_problems <= size:
        raise RlinoError(f"{task} has {size} {split} problems, {n} were asked for")
    return n_problems


# --- what the tasks of this book share -------------------------------------------------------------------------------

# What a verifier gives, a task's setting `rewards`: name -> (a right answer, a wrong one, no answer at all)
REWARD_SCHEMES = {"binary": (1.0, 0.0, 0.0), "format": (1.0, 0.1, 0.0)}


class SettingsTask:
    """The base of a task that is a frozen dataclass of settings: `template`, a name of `templates`, is one of them."""

    name: ClassVar[str]
    templates: ClassVar[Mapping[str, Template]]
    template: str

    trace_counts = staticmethod(trace_counts)

    def __post_init__(self) -> None:
        check(self, f"{self.name}: ")

    @property
    def stop(self) -> tuple[str, ...]:
        """The strings before the first of which a response ends."""
        return self.templates[self.template].stop
