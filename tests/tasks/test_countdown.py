"""Countdown: the generator, the solver, the grader and the trace reader (chapter 02). Exact: no floats are compared."""

from __future__ import annotations

import ast
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from fractions import Fraction
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlino_lib.errors import RlinoError
from rlino_lib.tasks import Problem, get_task
from rlino_lib.tasks.arithmetic import count_attempts, trace_steps
from rlino_lib.tasks.countdown.game import (
    expression,
    make_problem,
    problem_key,
    reachable,
    solutions,
    split_of,
    steps_from,
)
from rlino_lib.tasks.countdown.grade import (
    MAX_ANSWER,
    check_answer,
    extract_answer,
    grade_countdown,
    problem_from_record,
)
from rlino_lib.tasks.countdown.task import Countdown


def generate(split: str, n: int | None = None, **settings) -> list[Problem]:
    return Countdown(**settings).problems(split, n)


# --- independent means of checking -----------------------------------------------------------------------------------

OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}


def apply(a: Fraction, op: str, b: Fraction) -> Fraction:
    return {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else None}[op]


def value_by_ast(text: str) -> tuple[Fraction, list[int]]:
    """Value and numbers of an expression by Python's own parser; ValueError for all but integers and + − * /."""

    def walk(node: ast.expr) -> Fraction:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            used.append(node.value)
            return Fraction(node.value)
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            value = apply(walk(node.left), OPERATORS[type(node.op)], walk(node.right))
            if value is None:
                raise ValueError("divides by zero")
            return value
        raise ValueError("no expression")

    used: list[int] = []
    return walk(ast.parse(text.strip(), mode="eval").body), used


def right_by_ast(text: str, nums: list[int], target: int) -> bool:
    if not set(text) <= set("0123456789+-*/() "):  # Python reads more than Countdown does: 1_0, 0x1, comments
        return False
    try:
        value, used = value_by_ast(text)
    except (ValueError, SyntaxError):
        return False
    return value == target and sorted(used) == sorted(nums)


def brute_force(values: tuple[Fraction, ...], integers: bool) -> set[Fraction]:
    """All values of all expressions that use every number; only positive integer intermediates where `integers`."""
    if len(values) == 1:
        return set(values)
    results = set()
    for a, b, *rest in permutations(values):
        for op in "+-*/":
            value = apply(a, op, b)
            if value is not None and not (integers and (value <= 0 or value.denominator > 1)):
                results |= brute_force((value, *rest), integers)
    return results


def replay(nums: list[int], steps: tuple) -> int:
    """Play steps on the numbers; fails where a step is wrong, or uses what is not there."""
    left = Counter(nums)
    for a, op, b, result in steps:
        left.subtract([a, b])
        assert min(left.values()) >= 0
        assert result > 0 and apply(Fraction(a), op, Fraction(b)) == result
        left[result] += 1
    (last,) = left.elements()
    return last


# --- generator and solver --------------------------------------------------------------------------------------------

small_nums = st.lists(st.integers(1, 12), min_size=2, max_size=4)


@pytest.mark.parametrize("n_numbers", [2, 3, 4])
def test_generator_is_deterministic_and_prefix_stable(n_numbers):
    n = 30
    first = generate("test", n, n_numbers=n_numbers, seed=3)
    assert first == generate("test", n, n_numbers=n_numbers, seed=3)
    assert first[:10] == generate("test", 10, n_numbers=n_numbers, seed=3)
    assert first != generate("test", n, n_numbers=n_numbers, seed=4)
    assert generate("test", 0, n_numbers=n_numbers) == []


def test_generator_does_not_depend_on_the_hash_seed():
    code = "from rlino_lib.tasks import Countdown; [print(p, p.gold) for p in Countdown().problems('test', 50)]"
    out = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": s}, capture_output=True
        ).stdout
        for s in ("0", "1")
    }
    assert len(out) == 1 and out.pop().count(b"countdown/") == 50


@pytest.mark.parametrize("n_numbers", [3, 4])
def test_test_split_holds_1024_and_every_gold_grades_as_right(n_numbers):
    problems = Countdown(n_numbers=n_numbers).problems("test", 1024)
    assert len({p.id for p in problems}) == 1024
    for p in problems:
        nums, target = p.data["nums"], p.data["target"]
        assert len(nums) == n_numbers and all(1 <= n <= 20 for n in nums) and 10 <= target <= 99
        answer, _, value = p.gold.partition(" = ")
        assert value == str(target) and right_by_ast(answer, nums, target)
        assert Countdown().grade(p, f"<answer> {answer} </answer>").correct


@pytest.mark.parametrize(("n_numbers", "n"), [(2, 36), (3, 150), (4, 12)])
def test_problems_are_solvable_by_brute_force(n_numbers, n):
    for p in generate("test", n, n_numbers=n_numbers, seed=1):
        assert p.data["target"] in brute_force(tuple(map(Fraction, p.data["nums"])), integers=False)


@settings(deadline=None)
@given(st.lists(st.integers(1, 15), min_size=1, max_size=3))
def test_reachable_is_what_brute_force_finds(nums):
    assert reachable(tuple(sorted(nums))) == brute_force(tuple(map(Fraction, nums)), integers=True)


@settings(max_examples=60, deadline=None)
@given(small_nums, st.data())
def test_solutions_have_positive_integer_intermediates_and_round_trip_as_expressions(nums, data):
    target = data.draw(st.sampled_from(sorted(reachable(tuple(sorted(nums))))))
    solved = solutions(nums, target)
    assert solved and len(set(solved)) == len(solved)
    for steps in solved:
        assert replay(nums, steps) == target
        assert check_answer(expression(steps), nums, target) == (True, f"equals {target}")
        assert right_by_ast(expression(steps), nums, target)


@pytest.mark.parametrize(
    ("nums", "steps"),
    [
        ([2, 2, 4, 4], ((2, "+", 2, 4), (4, "*", 4, 16), (16, "+", 4, 20))),  # a result equal to given numbers
        ([2, 2, 2, 2], ((2, "*", 2, 4), (2, "+", 2, 4), (4, "-", 4, 0))),  # equal intermediate values
        ([1, 1, 1, 1], ((1, "*", 1, 1), (1, "*", 1, 1), (1, "+", 1, 2))),
        ([6, 3, 2, 2], ((6, "/", 3, 2), (2, "*", 2, 4), (4, "/", 2, 2))),
    ],
)
def test_expression_with_equal_values(nums, steps):
    assert check_answer(expression(steps), nums, steps[-1][-1])[0]


@settings(deadline=None)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_expression_round_trips_for_any_order_of_steps(nums, rng):
    left, steps = list(nums), []
    while len(left) > 1:
        rng.shuffle(left)
        a, b = left.pop(), left.pop()
        steps.append(rng.choice(list(steps_from(a, b))))
        left.append(steps[-1][3])
    value, used = value_by_ast(expression(steps))
    assert value == left[0] and sorted(used) == sorted(nums)


@settings(deadline=None)
@given(small_nums, st.integers(1, 200), st.randoms(use_true_random=False))
def test_permutations_of_a_problem_are_one_problem_in_one_split(nums, target, rng):
    shuffled = list(nums)
    rng.shuffle(shuffled)
    assert problem_key(shuffled, target) == problem_key(nums, target)
    assert split_of(shuffled, target) == split_of(nums, target)


@settings(max_examples=25, deadline=None)
@given(*[st.tuples(st.integers(2, 3), st.integers(1, 8), st.integers(0, 12), st.integers(0, 99))] * 2)
def test_splits_are_disjoint_whatever_the_seeds_and_ranges(one, other):
    def keys(split, made_by):
        k, lo, width, seed = made_by
        try:
            problems = generate(split, None, n_numbers=k, numbers=(lo, lo + width), seed=seed)
        except RlinoError:  # there is none in these ranges
            return set()
        return {problem_key(**p.data) for p in problems}

    for a, b in (("train", "test"), ("train", "validation"), ("validation", "test")):
        assert not keys(a, one) & keys(b, other)
        assert not keys(a, one) & keys(b, one)


def test_problem_keys_do_not_collide():
    assert problem_key([1, 12], 3) != problem_key([11, 2], 3) != problem_key([1, 1, 2], 3)


@pytest.mark.parametrize(
    "bad",
    [
        dict(split="tets"),
        dict(n=10**9),
        dict(n=-1),
        dict(n_numbers=5),
        dict(n_numbers=1),
        dict(numbers=(0, 5)),
        dict(numbers=(6, 5)),
        dict(targets=(0, 5)),
        dict(targets=(9, 5)),
    ],
)
def test_unusable_settings_are_one_line(bad):
    with pytest.raises(RlinoError) as e:
        generate(**{"split": "test", "n_numbers": 2, **bad})
    assert "\n" not in str(e.value)


def test_settings_that_come_back_from_json_work():
    read = json.loads(json.dumps({"n_numbers": 2, "numbers": (1, 9), "targets": (5, 20)}))
    assert get_task("countdown", **read).problems("train") == generate(
        "train", n_numbers=2, numbers=(1, 9), targets=(5, 20)
    )


@pytest.mark.parametrize("bad", [dict(template="x"), dict(rewards="x"), dict(colour="red")])
def test_unknown_settings_of_the_task(bad):
    with pytest.raises(RlinoError):
        get_task("countdown", **bad)


def test_unknown_task():
    with pytest.raises(RlinoError, match="one of countdown"):
        get_task("chess")


def test_problems_that_no_split_would_hold_still_have_a_gold_text():
    assert make_problem([7], 7).gold == "7 = 7"
    assert make_problem([1, 1], 50).gold == "50"
    assert make_problem([1, 2, 3, 4, 5], 15).gold == "15"


def test_prompts():
    p = Problem("x", {"nums": [8, 2, 4], "target": 64})
    assert Countdown().prompt(p) == "Numbers 8 2 4 target 64 <think>"
    long = Countdown(template="r1_zero").prompt(p)
    assert "[8, 2, 4]" in long and "equals 64" in long and long.endswith("<think>")
    assert extract_answer(long) == "(1 + 2) / 3"  # why only the response, never the prompt, may be graded


# --- grader: one case a line -----------------------------------------------------------------------------------------

GIVEN, TARGET = [19, 3, 7], 64  # 19 * 3 + 7


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("19 * 3 + 7", "equals 64"),
        ("7+19*3", "equals 64"),
        ("( ( 7 ) + ( 3 * 19 ) )", "equals 64"),
        ("19\n*\t3 + 7", "equals 64"),
        ("(" * 200 + "19 * 3" + ")" * 200 + " + 7", "equals 64"),
        ("19 * ( 3 + 7 )", "equals 190, not 64"),
        ("7 - 19 * 3", "equals -50, not 64"),
        ("19 / 3 + 7", "equals 40/3, not 64"),
        ("19 * 3 + 7 + 19", "uses 19 twice"),
        ("3 + 3 + 3 * 19 + 7", "uses 3 3 times"),
        ("19 * 3", "does not use 7"),
        ("64", "uses 64, which was not given"),
        ("19 * 3 + 8 - 1", "uses 8, which was not given"),
        ("1 9 * 3 + 7", "has no operator before 9"),
        ("19.0 * 3 + 7", "has '.', which is no number, operator or bracket"),
        ("19,3", "has ',', which is no number, operator or bracket"),
        ("-19 * 3 + 7", "has no number before -"),
        ("+19 * 3 + 7", "has no number before +"),
        ("19 * -3 + 7", "has no number before -"),
        ("7 - (-19) * 3", "has no number before -"),
        ("19 ** 3 + 7", "has no number before *"),
        ("19 // 3 + 7", "has no number before /"),
        ("9**9**9", "has no number before *"),
        ("19 * 3 + 7 = 64", "has '=', which is no number, operator or bracket"),
        ("19 % 3 + 7", "has '%', which is no number, operator or bracket"),
        ("19 × 3 + 7", "has '×', which is no number, operator or bracket"),
        ("19 * 3 − 7", "has '−', which is no number, operator or bracket"),
        ("19 ÷ 3 + 7", "has '÷', which is no number, operator or bracket"),
        ("١٩ * ٣ + ٧", "has '١', which is no number, operator or bracket"),
        ("19 * 3² + 7", "has '²', which is no number, operator or bracket"),
        ("１９ * 3 + 7", "has '１', which is no number, operator or bracket"),
        ("1_9 * 3 + 7", "has '_', which is no number, operator or bracket"),
        ("19 * 3 + 7e0", "has 'e', which is no number, operator or bracket"),
        ("0x13 * 3 + 7", "has 'x', which is no number, operator or bracket"),
        ("019 * 3 + 7", "writes a number as 019"),
        ("19 * 3 + 7 + 00", "writes a number as 00"),
        ("19 * 3 + 7 + 0", "uses 0, which was not given"),
        ("", "is empty"),
        ("   \n ", "is empty"),
        ("()", "has no number before )"),
        ("19 * 3 + 7 ()", "has no operator before ("),
        ("2(3)", "has no operator before ("),
        ("19 (3 + 7)", "has no operator before ("),
        ("(19)(3) + 7", "has no operator before ("),
        ("(19) 3 + 7", "has no operator before 3"),
        ("( 19 * 3 + 7", "leaves a bracket open"),
        ("19 * 3 + 7 )", "closes a bracket that it did not open"),
        (") 19 * 3 + 7 (", "has no number before )"),
        ("( 19 * ) 3 + 7", "has no number before )"),
        ("[19 * 3] + 7", "has '[', which is no number, operator or bracket"),
        ("19 * 3 +", "ends without a number"),
        ("19 *", "ends without a number"),
        ("+", "has no number before +"),
        ("19 * 3\x00 + 7", "has '\\x00', which is no number, operator or bracket"),
        ("19 * 3 + 7\ud800", "has '\\ud800', which is no number, operator or bracket"),
        ("__import__('os')", "has '_', which is no number, operator or bracket"),
        ("nineteen", "has 'n', which is no number, operator or bracket"),
        ("19 * 3 + 7  # right", "has '#', which is no number, operator or bracket"),
        ("(" * 10_000, "answer of 10000 characters, more than 500"),
        ("9" * 400, "uses 99999999999999999999, which was not given"),
    ],
)
def test_reasons(answer, reason):
    got = grade_countdown(GIVEN, TARGET, f"thinking </think> <answer> {answer} </answer>")
    assert (got.reason, got.correct) == (reason, reason == "equals 64")
    assert got.format_ok and got.reward == (1.0 if got.correct else 0.0) and got.answer == answer.strip()[:MAX_ANSWER]


@pytest.mark.parametrize(
    ("nums", "target", "answer", "reason"),
    [
        ([3, 3, 8, 8], 24, "8 / ( 3 - 8 / 3 )", "equals 24"),  # exact: no tolerance is needed for a fraction on the way
        ([3, 3, 8], 24, "8 * 3", "does not use 3 often enough"),
        ([3, 3, 8], 24, "8 * 3 + 3 - 3", "uses 3 3 times, given 2"),
        ([5, 2, 2], 5, "5 / ( 2 - 2 )", "divides by zero"),
        ([5, 2, 2], 0, "( 2 - 2 ) / 5", "equals 0"),
        ([5, 7], -2, "5 - 7", "equals -2"),
        ([8, 4, 2], 1, "8 / 4 / 2", "equals 1"),
        ([8, 4, 2], 2, "8 - 4 - 2", "equals 2"),
        ([8, 4, 2], 16, "8 / 4 * 2", "equals 4, not 16"),
        ([7], 7, "7", "equals 7"),
        ([10**9] * 10, 1, " * ".join(["1000000000"] * 10), f"equals {10**90}, not 1"),
    ],
)
def test_reasons_on_other_numbers(nums, target, answer, reason):
    got = grade_countdown(nums, target, f"<answer>{answer}</answer>")
    assert (got.reason, got.correct) == (reason, reason == f"equals {target}")


RIGHT = "19 * 3 + 7"


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (f"<answer>{RIGHT}</answer>", RIGHT),
        (f"<answer>1</answer> no: <answer> {RIGHT} </answer>", RIGHT),
        (f"<answer> {RIGHT} </answer> no: <answer>1</answer>", "1"),
        (f"<answer> {RIGHT} </answer> and <answer> 1", RIGHT),  # an answer that was never closed is no answer
        (f"<answer> {RIGHT} </answer> </answer>", RIGHT),
        (f"</answer><answer> {RIGHT} </answer>", RIGHT),
        (f"<answer> 1 <answer> {RIGHT} </answer> 2 </answer>", RIGHT),  # nested: the last that opens and closes
        ("<answer></answer>", ""),
        ("<answer> <think> </answer>", "<think>"),
        ("", None),
        (RIGHT, None),
        (f"<answer> {RIGHT}", None),
        (f"{RIGHT} </answer>", None),
        (f"</answer> {RIGHT} <answer>", None),
        (f"<answer> {RIGHT} </answer", None),
        (f"<ANSWER> {RIGHT} </ANSWER>", None),
        (f"<answer > {RIGHT} </answer>", None),
        (f"<answer/> {RIGHT} <answer/>", None),
        (f"&lt;answer&gt; {RIGHT} &lt;/answer&gt;", None),
    ],
)
def test_which_answer_counts(response, answer):
    got = grade_countdown(GIVEN, TARGET, response)
    assert got.answer == answer and got.correct == (answer == RIGHT) and got.format_ok == (answer is not None)
    if answer is None:
        assert got.reason == "no <answer> … </answer>"


@pytest.mark.parametrize(("scheme", "rewards"), [("binary", (1.0, 0.0, 0.0)), ("format", (1.0, 0.1, 0.0))])
def test_reward_schemes(scheme, rewards):
    task, problem = Countdown(rewards=scheme), make_problem(GIVEN, TARGET)
    responses = f"<answer>{RIGHT}</answer>", "<answer>19 + 3</answer>", "no answer"
    assert tuple(task.grade(problem, r).reward for r in responses) == rewards
    assert [task.grade(problem, r).correct for r in responses] == [True, False, False]
    assert [task.grade(problem, r).format_ok for r in responses] == [True, True, False]


def test_a_record_as_a_problem():
    got = problem_from_record({"nums": [7, 2], "target": 9, "response": "", "more": None})
    assert got.data == {"nums": [7, 2], "target": 9} and got.id == "countdown/2-7=9"
    for bad in ({}, {"nums": [1]}, {"target": 1}, {"nums": 1, "target": 1}, {"nums": [], "target": 1}):
        with pytest.raises(ValueError):
            problem_from_record(bad)


# --- grader: any text ------------------------------------------------------------------------------------------------

any_text = st.text(st.characters(exclude_categories=()), max_size=200)  # lone surrogates too
TOKENS = [
    "1",
    "2",
    "3",
    "19",
    "0",
    "02",
    "+",
    "-",
    "*",
    "/",
    "(",
    ")",
    " ",
    "**",
    "//",
    ".",
    "²",
    "−",
    "=",
    "\x00",
    "e",
]
token_soup = st.lists(st.sampled_from(TOKENS), max_size=25).map("".join)
TAGS = ["<answer>", "</answer>", "<answer", "answer>", "</", "<", ">", "<think>", "</think>", *TOKENS]
tag_soup = st.lists(st.sampled_from(TAGS), max_size=25).map("".join)


@settings(max_examples=150, deadline=None)
@given(st.one_of(any_text, tag_soup, any_text.map(lambda t: f"<answer>{t}</answer>")))
def test_no_text_raises(text):
    got = grade_countdown([1, 2, 3], 6, text)
    assert got.reward in (0.0, 1.0) and (got.answer is None) == (not got.format_ok) and got.reason
    trace_steps(text)
    assert count_attempts(text) >= 0


@settings(max_examples=100, deadline=None)
@given(st.one_of(token_soup, any_text), st.sampled_from([[1], [1, 2], [1, 2, 3], [2, 2], [19, 3, 2]]))
def test_no_text_is_right_unless_python_agrees(text, nums):
    try:
        target = int(value_by_ast(text)[0])
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        target = 6
    assert check_answer(text.strip(), nums, target)[0] == right_by_ast(text, nums, target)


SHAPES = ["{} {} {}", "({}{}{})", "( {} {} {} )"]  # bracketed or not: Python's parser says what the text means
valid_expressions = st.recursive(
    st.integers(1, 25).map(str),
    lambda part: st.builds(str.format, st.sampled_from(SHAPES), part, st.sampled_from("+-*/"), part),
    max_leaves=7,
)


@settings(max_examples=150, deadline=None)
@given(valid_expressions, st.integers(-3, 3), st.randoms(use_true_random=False))
def test_the_grader_agrees_with_python_on_valid_expressions(text, off, rng):
    used = [int(t) for t in "".join(c if c.isdigit() else " " for c in text).split()]
    try:
        value, used_by_ast = value_by_ast(text)
    except ValueError:
        assert check_answer(text, used, 1) == (False, "divides by zero")
        return
    assert used == used_by_ast
    rng.shuffle(used)
    if value.denominator == 1:
        assert check_answer(text, used, int(value)) == (True, f"equals {value}")
    target = int(value) + off
    assert check_answer(text, used, target)[0] == (value == target)
    assert not check_answer(text, [*used, 26], target)[0]
    assert not check_answer(text, used[1:], target)[0]


MB = 1_000_000
FLOODS = {
    "answer tags": "<answer>" * 100_000,
    "closing tags": "</answer>" * 100_000,
    "pairs": "<answer></answer>" * 60_000,
    "opens then closes": "<answer>" * 60_000 + "</answer>" * 60_000,
    "closes then opens": "</answer>" * 60_000 + "<answer>" * 60_000,
    "half tags": "<answer" * 140_000 + "</answer" * 10,
    "less-than": "<" * MB,
    "digits": "7" * MB,
    "digits in an answer": "<answer>" + "7" * MB + "</answer>",
    "open brackets": "<answer>" + "(" * 500_000 + "</answer>",
    "open brackets, not closed": "<answer>" + "(" * 500_000,
    "brackets": "<answer>" + "(" * 500_000 + ")" * 500_000 + "</answer>",
    "minus": "<answer>" + "-" * MB + "</answer>",
    "spaces": " " * MB,
    "spaces in an answer": "<answer>" + " " * MB + "x </answer>",
    "newlines": "\n" * MB,
    "power": "<answer>" + "9**" * 330_000 + "9</answer>",
    "null bytes": "<answer>" + "\x00" * MB + "</answer>",
    "surrogates": "\ud800" * MB,
    "steps": "8 - 2 = 6, " * 90_000,
    "steps that never end": "8 - 2 =" * 120_000,
    "steps without a result": "8 - " * 250_000,
    "equals": " = " * 330_000,
    "verdicts": " no" * 330_000,
    "almost verdicts": " n" * 500_000,
    "nonono": "no" * 500_000,
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_megabyte_of_anything_is_bounded_work(kind):
    """The one timed test, a guard against hangs: work that grows with the square of the input takes minutes here."""
    text = FLOODS[kind]
    start = time.process_time()
    got = grade_countdown(GIVEN, TARGET, text)
    took = [time.process_time() - start]
    assert not got.correct and len(got.reason) < 200 and len(got.answer or "") <= MAX_ANSWER
    start = time.process_time()
    steps, attempts = trace_steps(text), count_attempts(text)
    took.append(time.process_time() - start)
    assert max(took) < 1.0
    assert len(steps) == (90_000 if kind == "steps" else 0)
    assert attempts == (330_000 if kind == "verdicts" else 0)


# --- reading traces --------------------------------------------------------------------------------------------------

TRACE = " 8 - 2 = 6, 6 * 4 = 24 no\n 8 * 4 = 32, 32 * 2 = 64 yes </think> <answer> ( 8 * 4 ) * 2 </answer>"


def test_trace_of_the_base_model():
    assert trace_steps(TRACE) == [
        ((8, "-", 2, 6), True),
        ((6, "*", 4, 24), True),
        ((8, "*", 4, 32), True),
        ((32, "*", 2, 64), True),
    ]
    assert count_attempts(TRACE) == 2


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("8 - 2 = 7", [((8, "-", 2, 7), False)]),
        ("9 / 3 = 3", [((9, "/", 3, 3), True)]),
        ("9 / 2 = 4", [((9, "/", 2, 4), False)]),
        ("9 / 0 = 9", [((9, "/", 0, 9), False)]),
        ("0 / 0 = 0", [((0, "/", 0, 0), False)]),
        ("0 / 5 = 0", [((0, "/", 5, 0), True)]),
        ("- 8 + 2 = 10", [((8, "+", 2, 10), True)]),  # a bullet, not a sign
        ("(8 + 2 = 10)", [((8, "+", 2, 10), True)]),
        ("So 8 + 2 = 10. Next", [((8, "+", 2, 10), True)]),
        ("8 + 2 = 10\n8 - 2 = 6", [((8, "+", 2, 10), True), ((8, "-", 2, 6), True)]),
        ("2 - 8 = -6", []),
        ("8+2=10", []),
        ("8 - 2 + 3 = 9", []),  # the end of a chain is no step of its own
        ("(8 - 2) * 4 = 24", []),
        ("1.5 + 2 = 3.5", []),
        ("1.5 + 2 = 7", []),
        ("1234567890 + 1 = 5", []),
        ("1 + 2 = 3.5", []),
        ("1234567890 + 1 = 1234567891", []),
        ("1 + 1 = 1234567890", []),
        ("٨ - 2 = 6", []),
        ("8 - 2 =", []),
        ("= 6", []),
        ("", []),
    ],
)
def test_steps_of_other_texts(text, steps):
    assert trace_steps(text) == steps


@pytest.mark.parametrize(
    ("text", "n"),
    [("", 0), (" no", 1), (" yes", 1), ("no", 0), (" now know nothing yesterday", 0), (" no no\n yes", 3), (" NO", 0)],
)
def test_attempts_of_other_texts(text, n):
    assert count_attempts(text) == n


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 999), st.integers(1, 999), st.booleans()), max_size=20))
def test_written_steps_are_read_back(pairs):
    rng = random.Random(0)
    made, lines = [], []
    for a, b, right in pairs:
        step = rng.choice(list(steps_from(a, b)))
        step = step if right else (*step[:3], step[3] + 1)
        made.append((step, right))
        lines.append(" {} {} {} = {} no".format(*step))
    assert trace_steps("\n".join(lines)) == made
    assert count_attempts("\n".join(lines)) == len(pairs)


def test_new_targets_are_kept_out_of_training_and_stand_in_every_second_held_out_problem():
    task = Countdown(n_numbers=4, new_targets=True)
    trained = {p.data["target"] for p in task.problems("train", 1000)}
    assert {p.data["kind"] for p in task.problems("train", 100)} == {"problem"}
    for split in ("validation", "test"):
        held_out = task.problems(split, 100)
        assert [p.data["kind"] for p in held_out] == ["problem", "target"] * 50
        for problem in held_out:
            assert (problem.data["target"] in trained) == (problem.data["kind"] == "problem")
            nums, target = problem.data["nums"], problem.data["target"]
            assert split_of(nums, target) == split  # a new target does not let a problem of training in
    assert {p.id for p in task.problems("test", 20)} < {p.id for p in task.problems("test", 40)}


def test_without_thinking_the_answer_is_all_that_is_left_to_write():
    task = Countdown(thinking=False)
    problem = task.problems("test", 1)[0]
    assert task.prompt(problem) == Countdown().prompt(problem) and Countdown().opening_text == ""
    response = task.opening_text + f" {problem.gold.split(' = ')[0]} </answer>"
    assert task.grade(problem, response).correct
    assert task.step_ends(problem, response) == [len(task.opening_text)]
    assert Countdown().step_ends(problem, "") == [0]
