"""Whether a Countdown answer is right (chapter 02), for any string and in bounded time."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from rlino_lib.tasks.base import REWARD_SCHEMES, Grade, Problem
from rlino_lib.tasks.countdown.game import problem_key

# --- grading ---------------------------------------------------------------------------------------------------------

MAX_ANSWER = 500  # characters; six numbers with every bracket they could need fit many times over
_TOKEN = re.compile(r"[0-9]+|[+\-*/()]|\s+|.", re.ASCII | re.DOTALL)
_PRECEDENCE = {"(": 0, ")": 1, "+": 2, "-": 2, "*": 3, "/": 3}  # what binds at least as strongly is done first


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


def to_postfix(answer: str) -> list[str]:
    """The tokens of an answer with each operator after its operands; raises BadExpression where it is no expression.

    Shunting-yard: no recursion, so brackets cannot overflow a stack. Only binary operators exist.

    >>> to_postfix("( 8 - 2 ) * 4")
    ['8', '2', '-', '4', '*']
    """
    out: list[str] = []
    stack: list[str] = []  # operators and brackets whose right side is not complete
    want_number = True
    for t in tokenize(answer):
        if t.isdigit() or t == "(":
            if not want_number:
                raise BadExpression(f"has no operator before {t}")
            (out if t.isdigit() else stack).append(t)
            want_number = t == "("
        elif want_number:
            raise BadExpression(f"has no number before {t}")
        else:
            while stack and _PRECEDENCE[stack[-1]] >= _PRECEDENCE[t]:
                out.append(stack.pop())
            if t == ")" and not stack:
                raise BadExpression("closes a bracket that it did not open")
            if t == ")":
                stack.pop()
            else:
                stack.append(t)
            want_number = t != ")"
    if want_number:
        raise BadExpression("ends without a number")
    if "(" in stack:
        raise BadExpression("leaves a bracket open")
    return out + stack[::-1]


def evaluate_postfix(postfix: Sequence[str]) -> Fraction:
    """The exact value; raises BadExpression on a division by zero. Call it once the numbers are known to be few."""
    return _reduce(postfix, Fraction, _apply)


def _apply(a: Fraction, op: str, b: Fraction) -> Fraction:
    if op == "/" and b == 0:
        raise BadExpression("divides by zero")
    return a + b if op == "+" else a - b if op == "-" else a * b if op == "*" else a / b


def shape(text: str) -> str | None:
    """An expression in prefix form, the same for all orders of what is added or multiplied; None where it is none."""

    def prefix(a: str, op: str, b: str) -> str:
        a, b = sorted((a, b)) if op in "+*" else (a, b)
        return f"({op} {a} {b})"

    try:
        return _reduce(to_postfix(text), str, prefix)
    except BadExpression:
        return None


def _reduce(postfix: Sequence[str], number: Callable[[str], Any], join: Callable[[Any, str, Any], Any]) -> Any:
    """The value of a postfix expression when `number` reads its numbers and `join(a, op, b)` its operations."""
    stack: list[Any] = []
    for token in postfix:
        if token.isdigit():
            stack.append(number(token))
        else:
            b, a = stack.pop(), stack.pop()
            stack.append(join(a, token, b))
    return stack[0]


def usage_fault(used: Sequence[str], given: Sequence[int]) -> str | None:
    """Why the numbers used are not exactly the numbers given, in words; None where they are."""
    available = Counter(map(str, given))
    uses = Counter(used)
    for n, k in uses.items():
        if n not in available:
            return f"uses {n[:20]}, which was not given"
        if k > available[n]:
            times = "twice" if k == 2 else f"{k} times"
            return f"uses {n} {times}" + (f", given {available[n]}" if available[n] > 1 else "")
    missing = next(iter(available - uses), None)
    return missing and f"does not use {missing}" + (" often enough" if uses[missing] else "")


def check_answer(answer: str, nums: Sequence[int], target: int) -> tuple[bool, str]:
    """Whether an answer is right, and why, in words."""
    value, reason = _valued(answer, nums, target)
    return value == target, reason


def _valued(answer: str, nums: Sequence[int], target: int) -> tuple[Fraction | None, str]:
    """The value of an answer, None where it is none to these numbers, and why it is right or wrong, in words."""
    try:
        postfix = to_postfix(answer)
        fault = usage_fault([t for t in postfix if t.isdigit()], nums)
        if fault:
            return None, fault
        value = evaluate_postfix(postfix)
    except BadExpression as e:
        return None, str(e)
    return value, f"equals {value}" + ("" if value == target else f", not {target}")


MAX_NUMBERS, MAX_NUMBER = 10, 10**9  # what a record may hold, so that grading a hostile file stays bounded


def problem_from_record(record: Mapping[str, Any]) -> Problem:
    """The problem of one line of `rlino grade`: `nums`, 1 to 10 integers from 1 to 10⁹, and `target`, an integer.

    Raises ValueError, in words, for anything else. It does not search for a solution: `gold` is empty, and there may be
    none.
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


def grade_countdown(nums: Sequence[int], target: int, response: str, rewards: str = "binary") -> Grade:
    """Grade one response (chapter 02). Bounded work on any string; never raises because of the response.

    >>> grade_countdown([8, 2, 4], 64, "so <answer> 8 * ( 4 + 4 ) </answer>").reason
    'uses 4 twice'
    """
    right, wrong, none = REWARD_SCHEMES[rewards]
    answer = extract_answer(response)
    if answer is None:
        return Grade(none, False, False, None, "no <answer> … </answer>")
    value, reason = _valued(answer, nums, target)
    correct = value == target
    return Grade(right if correct else wrong, correct, True, answer[:MAX_ANSWER], reason, value)
