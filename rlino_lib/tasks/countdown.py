"""Countdown: reach a target with each given number used exactly once (chapter 02).

The generator, an exact solver with integer intermediates, and a grader that is safe on any string. The reward
conventions are TinyZero's: the last `<answer>…</answer>` counts.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from itertools import combinations_with_replacement
from typing import Any

from rlino_lib.errors import RlinoError
from rlino_lib.settings import check, interval, one_of, setting, whole
from rlino_lib.tasks.base import END_MARKS, Grade, Problem, Template, up_to_stop

# Prompts are data. `r1_zero` is TinyZero's, for hub models; `compact` is what the shipped base models read, which end
# their responses themselves. Not "</answer>": a model that repeats its instructions while it thinks writes that too,
# and of several answers the last counts.
TEMPLATES = {
    "compact": Template("Numbers {nums} target {target} <think>"),
    "r1_zero": Template(
        "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The "
        "assistant first thinks about the reasoning process in the mind and then provides the user with the answer.\n"
        "User: Using the numbers [{nums_comma}], create an equation that equals {target}. You can use basic arithmetic "
        "operations (+, -, *, /) and each number can only be used once. Show your work in <think> </think> tags. And "
        "return the final answer in <answer> </answer> tags, for example <answer> (1 + 2) / 3 </answer>.\n"
        "Assistant: Let me solve this step by step.\n<think>",
        ("\nUser:", "\nAssistant:", *END_MARKS),
    ),
}

# name -> (an answer that is right, an answer that is wrong, no answer at all)
REWARDS = {"binary": (1.0, 0.0, 0.0), "format": (1.0, 0.1, 0.0)}

SPLITS = ("train", "validation", "test")


# --- solving ---------------------------------------------------------------------------------------------------------

Step = tuple[int, str, int, int]  # a, operation, b, result


def steps_from(a: int, b: int) -> Iterator[Step]:
    """The steps that two numbers allow: results are positive integers; the larger number stands first in − and ÷."""
    a, b = max(a, b), min(a, b)
    yield a, "+", b, a + b
    yield a, "*", b, a * b
    if a > b:
        yield a, "-", b, a - b
    if b and a % b == 0:
        yield a, "/", b, a // b


@lru_cache(maxsize=4096)
def reachable(nums: tuple[int, ...]) -> frozenset[int]:
    """All values that use every number of the sorted tuple once, with positive integer intermediates."""
    if len(nums) == 1:
        return frozenset(nums)
    found: set[int] = set()
    for _, rest in _one_step(nums):
        found |= reachable(rest)
    return frozenset(found)


def _one_step(nums: Sequence[int]) -> Iterator[tuple[Step, tuple[int, ...]]]:
    """Every way to replace two of the numbers by one result; equal pairs are tried once."""
    seen = set()
    for i in range(len(nums)):
        for j in range(i + 1, len(nums)):
            pair = (min(nums[i], nums[j]), max(nums[i], nums[j]))
            if pair in seen:
                continue
            seen.add(pair)
            rest = [n for k, n in enumerate(nums) if k not in (i, j)]
            for step in steps_from(*pair):
                yield step, tuple(sorted([*rest, step[3]]))


def solutions(nums: Iterable[int], target: int) -> list[tuple[Step, ...]]:
    """Every sequence of steps that ends at the target with all numbers used (integer intermediates)."""
    nums = tuple(sorted(nums))
    if len(nums) == 1:
        return [()] if nums[0] == target else []
    return [
        (step, *tail) for step, rest in _one_step(nums) if target in reachable(rest) for tail in solutions(rest, target)
    ]


def expression(steps: Sequence[Step]) -> str:
    """Steps as one spaced infix expression, `( 19 * 3 ) + 7`; each result stands in where it is next used."""
    made: list[tuple[int, str]] = []
    text = ""
    for a, op, b, result in steps:
        left, right = _take(made, a), _take(made, b)
        text = f"{left} {op} {right}"
        made.append((result, f"( {text} )"))
    return text


def _take(made: list[tuple[int, str]], value: int) -> str:
    for k in range(len(made) - 1, -1, -1):
        if made[k][0] == value:
            return made.pop(k)[1]
    return str(value)


# --- problems --------------------------------------------------------------------------------------------------------


def problem_key(nums: Iterable[int], target: int) -> str:
    """The identity of a problem: its numbers in sorted order and its target."""
    return "-".join(map(str, sorted(nums))) + f"={target}"


def split_of(nums: Iterable[int], target: int) -> str:
    """The split a problem belongs to, by a hash of its key: 10 % test, 5 % validation, the rest train.

    A data set may repeat a problem with its numbers in another order; a split by key cannot leak that way, whatever the
    seed, size or ranges of the sets that are compared.
    """
    digest = hashlib.blake2b(problem_key(nums, target).encode(), digest_size=8).digest()
    bucket = int.from_bytes(digest, "big") % 100
    return "test" if bucket < 10 else "validation" if bucket < 15 else "train"


def make_problem(nums: Sequence[int], target: int) -> Problem:
    """A `Problem` with its numbers in the order given; gold is one solution, or says that there is none."""
    found = solutions(nums, target) if len(nums) <= 4 else []
    gold = f"{expression(found[0]) or target} = {target}" if found else str(target)
    return Problem(id=f"countdown/{problem_key(nums, target)}", data={"nums": list(nums), "target": target}, gold=gold)


def generate(
    split: str,
    n: int | None = None,
    *,
    n_numbers: int = 3,
    numbers: tuple[int, int] = (1, 20),
    targets: tuple[int, int] = (10, 99),
    seed: int = 0,
) -> list[Problem]:
    """The first `n` solvable problems of a split in a seeded order (all of them where `n` is None).

    Raises RlinoError for an unknown split, a setting out of range, or where fewer than `n` problems exist.
    """
    if split not in SPLITS:
        raise RlinoError(f"unknown split {split!r}: one of {', '.join(SPLITS)}")
    Countdown(n_numbers=n_numbers, numbers=numbers, targets=targets, seed=seed)  # raises for what is out of range
    order = list(_keys(split, n_numbers, tuple(numbers), tuple(targets)))  # tuples: a config read from JSON has lists
    if n is not None and n < 0:
        raise RlinoError(f"{n} problems were asked for")
    if n is not None and n > len(order):
        raise RlinoError(f"countdown has {len(order)} {split} problems with these ranges, {n} were asked for")
    rng = random.Random(f"{split}-{seed}")
    rng.shuffle(order)
    out = []
    for nums, target in order[:n]:
        shown = list(nums)
        rng.shuffle(shown)
        out.append(make_problem(shown, target))
    return out


@lru_cache(maxsize=16)
def _keys(split: str, n_numbers: int, numbers: tuple[int, int], targets: tuple[int, int]) -> tuple:
    lo, hi = numbers
    return tuple(
        (nums, target)
        for nums in _multisets(lo, hi, n_numbers)
        for target in sorted(reachable(nums))
        if targets[0] <= target <= targets[1] and split_of(nums, target) == split
    )


def _multisets(lo: int, hi: int, k: int) -> Iterator[tuple[int, ...]]:
    """All multisets; past 4,000 of them a fixed sample, since four numbers up to 100 would take hours to solve."""
    found = list(combinations_with_replacement(range(lo, hi + 1), k)) if (hi - lo) ** k <= 2_000_000 else None
    if found is not None and len(found) <= 4000:
        return iter(found)
    rng = random.Random(f"multisets-{lo}-{hi}-{k}")
    if found is not None:
        return iter(sorted(rng.sample(found, 4000)))
    return iter(sorted({tuple(sorted(rng.randint(lo, hi) for _ in range(k))) for _ in range(4000)}))


# --- grading ---------------------------------------------------------------------------------------------------------

MAX_ANSWER = 500  # characters; six numbers with every bracket they could need fit many times over
_TOKEN = re.compile(r"[0-9]+|[+\-*/()]|\s+|.", re.ASCII | re.DOTALL)
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}


class BadExpression(ValueError):
    """Why an answer is not an expression, in words."""


def extract_answer(response: str) -> str | None:
    """The text of the last closed `<answer>…</answer>`, stripped; None where there is none. Linear in the response."""
    start = response.rfind("<answer>", 0, max(response.rfind("</answer>"), 0))
    if start < 0:
        return None
    start += len("<answer>")
    return response[start : response.index("</answer>", start)].strip()


def tokenize(text: str) -> list[str]:
    """An answer's numbers, operators and brackets, without white space; raises BadExpression on anything else."""
    if len(text) > MAX_ANSWER:
        raise BadExpression(f"answer of {len(text)} characters, more than {MAX_ANSWER}")
    tokens = [t for t in _TOKEN.findall(text) if not t.isspace()]
    for t in tokens:
        if not (t.isascii() and (t.isdigit() or t in "+-*/()")):
            raise BadExpression(f"has {t!r}, which is no number, operator or bracket")
        if len(t) > 1 and t[0] == "0":
            raise BadExpression(f"writes a number as {t[:20]}")
    if not tokens:
        raise BadExpression("is empty")
    return tokens


def to_postfix(tokens: Sequence[str]) -> list[str]:
    """Shunting-yard: no recursion, so brackets cannot overflow a stack. Only binary operators exist."""
    out, stack = [], []
    want_number = True
    for t in tokens:
        if t.isdigit() or t == "(":
            if not want_number:
                raise BadExpression(f"has no operator before {t}")
            (out if t.isdigit() else stack).append(t)
            want_number = t == "("
        elif want_number:
            raise BadExpression(f"has no number before {t}")
        elif t == ")":
            while stack and stack[-1] != "(":
                out.append(stack.pop())
            if not stack:
                raise BadExpression("closes a bracket that it did not open")
            stack.pop()
        else:
            while stack and stack[-1] != "(" and _PRECEDENCE[stack[-1]] >= _PRECEDENCE[t]:
                out.append(stack.pop())
            stack.append(t)
            want_number = True
    if want_number:
        raise BadExpression("ends without a number")
    if "(" in stack:
        raise BadExpression("leaves a bracket open")
    return out + stack[::-1]


def evaluate_postfix(postfix: Sequence[str]) -> Fraction:
    """The exact value; raises BadExpression on a division by zero. Call it once the numbers are known to be few."""
    stack: list[Fraction] = []
    for t in postfix:
        if t.isdigit():
            stack.append(Fraction(int(t)))
            continue
        b, a = stack.pop(), stack.pop()
        if t == "/" and b == 0:
            raise BadExpression("divides by zero")
        stack.append(a + b if t == "+" else a - b if t == "-" else a * b if t == "*" else a / b)
    return stack[0]


def usage_fault(used: Sequence[str], given: Sequence[int]) -> str | None:
    """Why the numbers used are not exactly the numbers given, in words; None where they are."""
    have = Counter(str(n) for n in given)
    count = Counter(used)
    for n, k in count.items():
        if n not in have:
            return f"uses {n[:20]}, which was not given"
        if k > have[n]:
            return f"uses {n} {'twice' if k == 2 else f'{k} times'}" + (f", given {have[n]}" if have[n] > 1 else "")
    missing = [n for n, k in have.items() if count[n] < k]
    return f"does not use {missing[0]}" + (" often enough" if count[missing[0]] else "") if missing else None


def check_answer(answer: str, nums: Sequence[int], target: int) -> tuple[bool, str]:
    """Whether an answer is right, and why, in words."""
    try:
        tokens = tokenize(answer)
        postfix = to_postfix(tokens)
        fault = usage_fault([t for t in tokens if t.isdigit()], nums)
        if fault:
            return False, fault
        value = evaluate_postfix(postfix)
    except BadExpression as e:
        return False, str(e)
    return value == target, f"equals {value}" + ("" if value == target else f", not {target}")


MAX_NUMBERS, MAX_NUMBER = 10, 10**9  # what a record may hold, so that grading a hostile file stays bounded


def problem_from_record(record: Mapping[str, Any]) -> Problem:
    """The problem of one line of `rlino grade`: `nums`, 1 to 10 integers from 1 to 10⁹, and `target`, an integer.

    Raises ValueError, in words, for anything else. It doesn't solve: `gold` is empty, and no solution need exist.
    """
    for key in ("nums", "target"):
        if key not in record:
            raise ValueError(f"no key {key!r}")
    nums, target = record["nums"], record["target"]
    if not (isinstance(nums, list) and 1 <= len(nums) <= MAX_NUMBERS):
        raise ValueError(f"nums is not a list of 1 to {MAX_NUMBERS} integers")
    if not all(type(n) is int and 1 <= n <= MAX_NUMBER for n in nums):  # type(): True is an int to isinstance
        raise ValueError(f"nums holds something else than integers from 1 to {MAX_NUMBER}")
    if type(target) is not int or abs(target) > MAX_NUMBER:
        raise ValueError(f"target is not an integer of at most {MAX_NUMBER} in size")
    return Problem(id=f"countdown/{problem_key(nums, target)}", data={"nums": nums, "target": target})


def grade(nums: Sequence[int], target: int, response: str, rewards: str = "binary") -> Grade:
    """Grade one response (chapter 02). Bounded work on any string; never raises on the response's account."""
    right, wrong, none = REWARDS[rewards]
    answer = extract_answer(response)
    if answer is None:
        return Grade(none, False, False, None, "no <answer> … </answer>")
    correct, reason = check_answer(answer, nums, target)
    return Grade(right if correct else wrong, correct, True, answer[:MAX_ANSWER], reason)


@dataclass(frozen=True)
class Countdown:
    """The `Task`: settings in, problems, prompts and grades out. Raises RlinoError for a setting out of range."""

    n_numbers: int = setting(3, "numbers of a problem", whole(2, 4))
    numbers: tuple[int, int] = setting((1, 20), "from the smallest to the largest of them", interval(1))
    targets: tuple[int, int] = setting((10, 99), "from the smallest to the largest target", interval(1))
    template: str = setting("compact", "the form of a prompt", one_of(TEMPLATES))
    rewards: str = setting("binary", "what an answer earns", one_of(REWARDS))
    seed: int = setting(0, "of the order of problems", whole())
    name: str = field(default="countdown", init=False)

    def __post_init__(self) -> None:
        check(self, f"{self.name}: ")

    @property
    def stop(self) -> tuple[str, ...]:
        """The strings before the first of which a response ends."""
        return TEMPLATES[self.template].stop

    def problems(self, split: str, n: int | None = None) -> list[Problem]:
        ranges = {"n_numbers": self.n_numbers, "numbers": self.numbers, "targets": self.targets}
        made = generate(split, n, **ranges, seed=self.seed)
        if not made and n is None:
            given = ", ".join(f"{name}={value}" for name, value in ranges.items())
            raise RlinoError(f"countdown has no {split} problem with {given}")
        return made

    def problem_from_record(self, record: Mapping[str, Any]) -> Problem:
        return problem_from_record(record)

    def prompt(self, problem: Problem) -> str:
        nums = [str(n) for n in problem.data["nums"]]
        return TEMPLATES[self.template].text.format(
            nums=" ".join(nums), nums_comma=", ".join(nums), target=problem.data["target"]
        )

    def grade(self, problem: Problem, response: str) -> Grade:
        return grade(problem.data["nums"], problem.data["target"], up_to_stop(response, self.stop), self.rewards)

    def counts(self, problem: Problem, response: str) -> dict[str, int | None]:
        """What a response is as a search (chapter 08)."""
        from rlino_lib.tasks.countdown_search import search_counts

        return search_counts(problem, up_to_stop(response, self.stop))


# --- reading traces --------------------------------------------------------------------------------------------------

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
