"""GSM8K: graders one case a line, the harness's filters against their definition, prompts, splits, an evaluation."""

import hashlib
import io
import json
import os
import random
import re
import time
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from rlino_lib.cli import grade as grading
from rlino_lib.cli import main as cli
from rlino_lib.errors import RlinoError
from rlino_lib.evaluation import graded as graded_responses
from rlino_lib.policy.models import Policy, save_policy, small_config
from rlino_lib.tasks import Gsm8k, Problem, fetch, get_task
from rlino_lib.tasks.gsm8k.grade import (
    BOXES,
    GRADERS,
    TAIL,
    extract_boxed,
    extract_flexible,
    extract_flexible_extract,
    extract_strict,
    extract_strict_match,
    grade_number,
    latex_number,
    number,
)
from rlino_lib.tasks.gsm8k.task import TEMPLATES, VALIDATION

# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("72", 72),
        ("$5", 5),
        ("$ 5", 5),
        ("-$5", -5),
        ("$-5", -5),
        ("1,000", 1000),
        ("12,345,678", 12345678),
        ("1 000", 1000),
        ("12\u202f345\u00a0678", 12345678),
        ("  72\n", 72),
        ("7.", 7),
        ("7 .", 7),
        ("18.0", 18),
        ("18.50", Fraction(37, 2)),
        (".5", Fraction(1, 2)),
        ("1/2", Fraction(1, 2)),
        ("-3/4.", Fraction(-3, 4)),
        ("50%", 50),
        ("12.5 %", Fraction(25, 2)),
        ("-7", -7),
        ("\u22127", -7),
        ("\u2212$1,234.50", Fraction(-2469, 2)),
        ("-0", 0),
        ("007", 7),
        ("\u20135", -5),
        ("\uff0d5", -5),
        ("\u20ac5", 5),
        ("\xa3 1,200", 1200),
        ("5 $", 5),
        ("1\xa0000", 1000),
        ("1 000 000.5", Fraction(2000001, 2)),
        ("1,00,000", 100000),
        ("1,234.50", Fraction(2469, 2)),
        ("1 1/2", Fraction(3, 2)),
        ("-1 1/2", Fraction(-3, 2)),
        ("1\xbd", Fraction(3, 2)),
        ("\xbc", Fraction(1, 4)),
        ("1\u20442", Fraction(1, 2)),
        ("5 million", 5_000_000),
        ("$2.5 Billion", 2_500_000_000),
        ("3 hundred thousand", 300_000),
        ("5k", 5000),
        ("$5M.", 5_000_000),
        ("72,", 72),
    ],
)
def test_numbers(text, value):
    assert number(text) == value


NO_NUMBER = ["", "-", ".", "%", "$", "1e5", "1_000", "１２", "--1", "- 1", "1/0", "1/", "/2", "1/2/3", "1 00"]
NO_NUMBER += ["1.000,50", "1,5", "1,50", "1,0000", "5, 7", "3, 500", "5$3", "10^3", "3:30", "1'000", "-$-5", "1 3/2"]
NO_NUMBER += ["5 millions of", "5 millionaires", "1/2 1/2", "1,2,3", "5 k", "1\xbd\xbd"]


@pytest.mark.parametrize("text", [*NO_NUMBER, "1 0000", "7.2.0", "9" * (TAIL + 1), "nan", "seven", "7 or 8", "\ud800"])
def test_what_is_no_number(text):
    assert number(text) is None


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=3))
def test_numbers_are_exact(value):
    written = f"{value:,f}"
    for text in (written, written.replace(",", " "), written.replace("-", "\u2212"), f"{written}0%", f" ${written}."):
        assert number(text) == Fraction(value)
    assert grade_number(str(value), f"#### {value:,f}").correct


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("72", 72),
        (" 72 ", 72),
        (r"\$72.00", 72),
        (r"1{,}000", 1000),
        (r"1\,000", 1000),
        (r"1,\!000", 1000),
        (r"50\%", 50),
        (r"\frac{1}{2}", Fraction(1, 2)),
        (r"-\dfrac{3}{4}", Fraction(-3, 4)),
        (r"72 \text{ dollars}", 72),
        (r"\text{72}", 72),
        ("72 square feet", 72),
        (r"1\frac{1}{2}", Fraction(3, 2)),  # not 11/2
        ("10^3", None),
        (r"\frac{1}{0}", None),
        ("x = 5", 5),
        ("", None),
        (r"\text{none}", None),
        ("{" * TAIL + "1", None),
        (r"60\text{ km/h}", 60),
        (r"5\text{ cm}^2", 5),
        (r"5\text{ cm}^{2}", 5),
        (r"5~\text{apples}", 5),
        (r"5\,\mathrm{m\,s^{-1}}", 5),
        (r"60\frac{\text{km}}{\text{h}}", 60),
        (r"\$5/\text{hour}", 5),
        (r"72^\circ", 72),
        (r"72^{\circ}\text{C}", 72),
        (r"-5\text{ degrees}", -5),
        ("\u22125\\text{ m}", -5),
        ("- 5", -5),
        (r"50\text{ percent}", 50),
        (r"5\text{ dollars}", 5),
        (r"\text{USD } 5", 5),
        (r"3\text{ apple(s)}", 3),
        (r"\textbf{\text{72}}", 72),
        ("{72}", 72),
        ("x = 72", 72),
        (r"v_{1} = 5\text{ m/s}", 5),
        (r"\theta = 30^\circ", 30),
        (r"P(A) = \frac{1}{3}", Fraction(1, 3)),
        (r"\text{Total: } 72", 72),
        (r"5\text{ million}", 5_000_000),
        (r"5\text{ million dollars}", 5_000_000),
        ("5k", 5000),
        ("1,000", 1000),
        (r"1{,}000\text{ m}", 1000),
        ("1\u202f000", 1000),
        (r"\frac12", Fraction(1, 2)),
        (r"-\frac12", Fraction(-1, 2)),
        (r"\frac{1}2", Fraction(1, 2)),
        (r"3\frac12\text{ cups}", Fraction(7, 2)),
        (r"\frac{1,000}{2}", 500),
        ("5\xbd", Fraction(11, 2)),
        ("2 dozen", 2),  # as an answer to "How many dozen?"
        (r"5\text{ million and a half}", None),
        (r"2\text{ and a half}", None),
        (r"2\text{ hours }30\text{ minutes}", None),
        (r"5, 7", None),
        (r"3,\ 500", None),
        (r"5\text{ or }7", None),
        (r"x = 5, y = 7", None),
        (r"x = 5\text{ or }x = 7", None),
        ("1.000,50", None),
        ("1,50", None),
        ("5x", None),
        ("2x^2", None),
        ("5 - x", None),
        ("5-7", None),
        (r"5\pi", None),
        (r"5\times 10^3", None),
        ("3:30", None),
        (r"\text{minus }5", None),
        (r"12\text{ hundredths}", None),
    ],
)
def test_numbers_in_a_box(text, value):
    assert latex_number(text) == value


# --- graders: one case a line ----------------------------------------------------------------------------------------

NONE = "no #### with a number"


@pytest.mark.parametrize(
    ("response", "reason", "correct"),
    [
        ("#### 72", "answers 72", True),
        ("She sold 48 / 2 = 24.\n#### 72\n", "answers 72", True),
        ("#### 72.", "answers 72", True),
        ("#### 72.0", "answers 72", True),
        ("#### $72", "answers 72", True),
        ("#### 72 dollars", "answers 72", True),
        ("#### 72%", "answers 72", True),
        ("#### 144/2", "answers 72", True),
        ("####72", "answers 72", True),
        ("####  72", "answers 72", True),
        ("#### 71\n#### 72", "answers 72", True),
        ("#### 72\n#### 71", "answers 71, not 72", False),
        ("#### 72\n#### none", "answers 72", True),
        ("#### \u20ac72", "answers 72", True),
        ("#### $ 72", "answers 72", True),
        ("####\xa072", "answers 72", True),
        ("#### 72 24", "answers 72", True),  # as in verl: the first number after the mark
        ("#### 72 000", "answers 72000, not 72", False),
        ("#### 72\u202f000 euros", "answers 72000, not 72", False),
        ("#### 72 million", "answers 72000000, not 72", False),
        ("#### 72 millionaires", "answers 72", True),
        ("#### 72k", "answers 72000, not 72", False),
        ("#### 72km", "answers 72", True),
        ("#### 72 1/2", "answers 145/2, not 72", False),
        ("#### 72\xbd", "answers 145/2, not 72", False),
        ("#### \u201372", "answers -72, not 72", False),
        ("#### 72e3", "'72e3' is not a number", False),
        ("#### 72^2", "'72^2' is not a number", False),
        ("#### 72 * 10^3", "'72 * 10^3' is not a number", False),
        ("#### 72 \xd7 10^3", "'72 \xd7 10^3' is not a number", False),
        ("#### 72:30", "'72:30' is not a number", False),
        ("#### 72'000", '"72\'000" is not a number', False),
        ("#### 72/1/2", "'72/1/2' is not a number", False),
        ("#### 72.000,50", "'72.000,50' is not a number", False),
        ("#### 7,2", "'7,2' is not a number", False),
        ("#### 7,200", "answers 7200, not 72", False),
        ("#### -72", "answers -72, not 72", False),
        ("#### \u221272", "answers -72, not 72", False),
        ("#### 72.5", "answers 145/2, not 72", False),
        ("#### 7.2.0", "'7.2.0' is not a number", False),
        ("#### .", "'.' is not a number", False),
        ("#### ,,", "',,' is not a number", False),
        ("72", NONE, False),
        ("### 72", NONE, False),
        ("#### seventy-two", NONE, False),
        ("#### ٧٢", NONE, False),
        ("####\n72", NONE, False),
        ("", NONE, False),
        ("#### 72" + "x" * TAIL, NONE, False),
    ],
)
def test_strict(response, reason, correct):
    got = grade_number(72, response)
    assert (got.reason, got.correct) == (reason, correct)
    assert got.format_ok == reason.startswith("answers") and got.reward == float(correct)


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("So it is 72.", "72."),
        ("It is $1,200.50 in all", "$1,200.50"),
        ("It is 72, so she is right.", "72,"),
        ("72 apples, or so, I think ...", "72"),  # verl's own takes the last comma or dots for an answer here
        ("10-3", "-3"),  # verl's too
        ("half of it: 1/2", "1/2"),
        ("\u22125 degrees", "\u22125"),
        ("\u20135 degrees", "\u20135"),
        ("from 5\u201310", "10"),
        ("about 12 500 in all", "12 500"),
        ("1 1/2 cups", "1 1/2"),
        ("\xbd of it", "\xbd"),
        ("5 million in all", "5 million"),
        ("It is 72" + "x" * TAIL, None),
        ("none", None),
        ("", None),
    ],
)
def test_the_last_number(response, answer):
    assert extract_flexible(response) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"so \boxed{72}.", "72"),
        (r"\boxed{71}, no: \boxed{72}", "72"),
        (r"\boxed{\frac{1}{2}} as said", r"\frac{1}{2}"),
        (r"\boxed{72} and \boxed{71", "72"),  # one that does not close is none
        (r"\boxed{\boxed{72}}", "72"),
        (r"\boxed{}", ""),
        (r"\boxed{72", None),
        (r"boxed{72}", None),
        (r"\boxed 72", None),
        ("", None),
        (r"\boxed{72}" + "x" * 10_000, "72"),
        (r"\boxed{" + "x" * TAIL + "}", None),
        (r"\boxed{72}" + r"\boxed{" * (BOXES - 1), "72"),
        (r"\boxed{72}" + r"\boxed{" * BOXES, None),
    ],
)
def test_the_last_box(response, answer):
    assert extract_boxed(response) == answer


@pytest.mark.parametrize(
    ("response", "right_under"),
    [
        ("#### 1,800", {"strict", "flexible", "strict-match", "flexible-extract"}),
        ("#### 1800.", {"strict", "flexible", "strict-match", "flexible-extract"}),
        ("#### 1800..", {"strict", "flexible"}),  # the harness drops one full stop
        ("#### 1800.0", {"strict", "flexible"}),  # the harness compares text
        ("#### $1800", {"strict", "flexible", "flexible-extract"}),  # and its strict pattern has no $
        ("It is 1800", {"flexible", "flexible-extract"}),
        ("It is 1800. \\boxed{1{,}800}", {"boxed"}),
        ("#### 1800\n#### 5", {"strict-match"}),  # the first, not the last
        ("#### 5\n#### 1800", {"strict", "flexible", "flexible-extract"}),
        ("#### 1800" + " x" * TAIL, {"strict-match", "flexible-extract"}),
        ("It is 1800, I think.", {"flexible", "flexible-extract"}),
        ("It is 1800 ... yes", {"flexible"}),  # the harness takes the dots
    ],
)
def test_graders_disagree(response, right_under):
    assert {name for name in GRADERS if grade_number("1,800", response, grader=name).correct} == right_under


# --- graders against their definition --------------------------------------------------------------------------------


def harness(response, gold, pattern, place):
    """lm-evaluation-harness: RegexFilter, take_first, and exact_match with its `regexes_to_ignore`."""
    matches = re.compile(pattern).findall(response)
    answer = "[invalid]"
    if matches:
        answer = matches[place]
        answer = next(m for m in answer if m) if isinstance(answer, tuple) else answer
        answer = answer.strip()
    for ignored in (",", r"\$", r"(?s).*#### ", r"\.$"):
        answer, gold = re.sub(ignored, "", answer), re.sub(ignored, "", gold)
    return answer.lower() == gold.lower()


def verl(response, method):
    """verl's extract_solution."""
    response = response[-300:]
    if method == "strict":
        numbers = re.findall(r"#### (\-?[0-9\.\,]+)", response)
        return numbers[-1] if numbers else None
    answer = None
    for answer in reversed(re.findall(r"(\-?[0-9\.\,]+)", response)):  # noqa: B007
        if answer not in ("", "."):
            break
    return answer


HARNESS = {
    "strict-match": (r"#### (\-?[0-9\.\,]+)", 0),
    "flexible-extract": (r"(-?[$0-9.,]{2,})|(-?[0-9]+)", -1),
}
PIECES = [
    "#### ",
    "#",
    "7",
    "72",
    "1,800",
    ".",
    ",",
    "-",
    "$",
    " ",
    "\n",
    "a",
    "Total",
    "\u2212",
    "٣",
    "/2",
    "%",
    "\ud800",
]
soup = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)
verl_soup = st.lists(st.sampled_from(["#### ", "7", "72", ".", ",", "-", "a", "\n", " b", "1.5"]), max_size=30)


@settings(max_examples=150, deadline=None)
@given(st.one_of(soup, st.text(max_size=60)), st.sampled_from(["7", "72", "1,800", "-7", "x\n#### 72"]))
def test_the_harness_to_the_letter(response, gold):
    for name, (pattern, place) in HARNESS.items():
        gold_text = gold.rpartition("#### ")[2]
        assert grade_number(gold_text, response, grader=name).correct == harness(response, gold, pattern, place)
    matches = re.findall(HARNESS["flexible-extract"][0], response)
    assert extract_flexible_extract(response) == (matches[-1][0] or matches[-1][1] if matches else None)
    first = re.search(HARNESS["strict-match"][0], response)
    assert extract_strict_match(response) == (first and first[1])


@settings(max_examples=150, deadline=None)
@given(verl_soup.map("".join), st.integers(0, 320))
def test_what_verl_finds_is_found(response, padding):
    response += "x" * padding
    assert extract_strict(response) == verl(response, "strict")
    theirs = verl(response, "flexible")
    if theirs and any(c.isdigit() for c in theirs):
        assert extract_flexible(response) == theirs


@settings(max_examples=100, deadline=None)
@given(st.one_of(soup, st.text(st.characters(exclude_categories=()), max_size=100)))
def test_any_string_has_a_grade(text):
    for name in GRADERS:
        for response in (text, f"\\boxed{{{text}}}", f"#### {text}"):
            got = grade_number("72", response, grader=name)
            assert got.reward == float(got.correct) and got.reason and (got.format_ok or not got.correct)
    assert (extract_strict(text) is None) <= (not grade_number(1, text).format_ok)


MB = 1_000_000
FLOODS = {
    "boxes": "\\boxed{" * 150_000,
    "almost boxes": "\\boxe" * 200_000,
    "nested braces": "\\boxed{" + "{" * 500_000 + "}" * 500_000,
    "open braces": "\\boxed{" + "{" * MB,
    "fractions in a box": "\\boxed{" + "\\frac{" * 150_000 + "}",
    "digits": "7" * MB,
    "digits in a box": "\\boxed{" + "7" * MB + "}",
    "digits after ####": "#### " + "7" * MB,
    "numbers": "1 " * 500_000,
    "lone signs": "$ " * 500_000,
    "hashes": "#" * MB,
    "####": "#### " * 200_000,
    "#### and spaces": "####" + " " * MB,
    "answers": "#### 7 " * 150_000,
    "minus": "-" * MB,
    "commas": "," * MB,
    "backslashes": "\\" * MB,
    "spaces": " " * MB,
    "surrogates": "\ud800" * MB,
    "almost stops": "Question" * 125_000,
    "stops inside lines": " \nQuestion" * 100_000,
    "signs in a box": "\\boxed{" + "% " * (TAIL // 2 - 2) + "!}",
    "words in a box": "\\boxed{" + "a" * (TAIL - 4) + "!}",
    "a unit in a box": "\\boxed{5" + " m^2" * 70 + "!}",
    "a name in a box": "\\boxed{" + "a ." * 90 + "= !}",
    "fractions that close": "\\boxed{" + "\\frac11" * 35 + "!}",
    "styles in a box": "\\boxed{" + "\\text{" * 35 + "}" * 35 + "}",
    "thousands": "1 000" * 200_000,
    "spaced thousands": "#### " + " 000" * 250_000,
    "millions": "#### 1" + " million" * 120_000,
    "dashes": "\u2013" * MB,
    "vulgar fractions": "\xbd" * MB,
    "stops": "Question:" * 110_000,
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_megabyte_of_anything_is_bounded_work(kind):
    """A guard against hangs: work that grows with the square of the input takes minutes here."""
    problem, text = Problem("x", {"answer": "72"}), FLOODS[kind]
    for name in GRADERS:
        start = time.process_time()
        got = Gsm8k(grader=name).grade(problem, text)
        assert time.process_time() - start < 0.5
        assert not got.correct and len(got.reason) < 200 and len(got.answer or "") <= TAIL


# --- the task, on data made here -------------------------------------------------------------------------------------


def rows(n, seed):
    rng = random.Random(seed)
    for i in range(n):
        a, b = rng.randint(2, 99), rng.randint(900, 2000)
        question = f"Ann has {a} {{nuts}}\u2028and number {seed}-{i} has {b}. How many is that?"
        yield {"question": question, "answer": f"It is {a}+{b} = <<{a}+{b}={a + b}>>{a + b}.\n#### {a + b:,}"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of GSM8K's layout with 600 and 20 problems, whose checksums pass for the real ones."""
    made = tmp_path / "gsm8k"
    made.mkdir()
    known = {}
    for seed, (file, n) in enumerate({"train.jsonl": 600, "test.jsonl": 20}.items()):
        data = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows(n, seed)).encode()
        (made / file).write_bytes(data)
        known[file] = fetch.Remote("http://127.0.0.1:9/", len(data), hashlib.sha256(data).hexdigest())
    monkeypatch.setitem(fetch.SETS, "gsm8k", known)
    monkeypatch.setenv("RLINO_DATA", str(tmp_path))
    return made


def test_splits(folder):
    task = Gsm8k()
    problems = {split: task.problems(split) for split in ("train", "validation", "test")}
    assert {k: len(v) for k, v in problems.items()} == {"train": 600 - VALIDATION, "validation": VALIDATION, "test": 20}
    ids = [p.id for part in problems.values() for p in part]
    assert len(set(ids)) == 620 and problems == {k: Gsm8k(folder=str(folder)).problems(k) for k in problems}
    assert [p.id for p in problems["test"]] == [f"gsm8k/test/{i}" for i in range(20)]
    examples = [p.id for p in problems["train"][:9]]
    assert examples == [f"gsm8k/train/{i}" for i in range(9)]  # worked examples stay in train
    assert task.problems("validation", 5) == problems["validation"][:5] and task.problems("test", 0) == []
    for part in problems.values():
        assert all(p.gold.endswith(f"#### {p.data['answer']}") and task.grade(p, p.gold).correct for p in part)
    for bad in (("test", 21), ("test", -1), ("exam", None)):
        with pytest.raises(RlinoError):
            task.problems(*bad)


def test_missing_and_altered_data_are_one_line_that_names_the_command(folder):
    (folder / "test.jsonl").write_bytes((folder / "test.jsonl").read_bytes() + b"\n")
    with pytest.raises(RlinoError, match="test.jsonl is not the original.*`rlino fetch gsm8k`"):
        Gsm8k().problems("test")
    for task in (Gsm8k(folder=str(folder / "none")), Gsm8k(folder="/dev/null")):
        with pytest.raises(RlinoError, match="cannot read .*train.jsonl .*`rlino fetch gsm8k`") as e:
            task.problems("train")
        assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "bad",
    [{"template": "x"}, {"grader": "x"}, {"rewards": "x"}, {"shots": 9}, {"shots": -1}, {"shots": "4"}, {"colour": 1}],
)
def test_settings_that_do_not_exist(bad):
    with pytest.raises(RlinoError, match="gsm8k"):
        get_task("gsm8k", **bad)


def test_prompts(folder):
    task = Gsm8k()
    problem, (one, two) = task.problems("test", 1)[0], task.problems("train", 2)
    q = problem.data["question"]
    assert task.prompt(problem) == f"Question: {q}\nAnswer:"
    assert Gsm8k(shots=2).prompt(problem) == (
        f"Question: {one.data['question']}\nAnswer: {one.gold}\n\n"
        f"Question: {two.data['question']}\nAnswer: {two.gold}\n\nQuestion: {q}\nAnswer:"
    )
    instruction = "Please reason step by step, and put your final answer within \\boxed{}."
    assert Gsm8k(template="boxed").prompt(problem) == f"Question: {q}\n{instruction}\nAnswer:"
    prompt = Gsm8k(template="boxed", shots=1).prompt(problem)
    assert f"The answer is \\boxed{{{one.data['answer']}}}.\n\nQuestion" in prompt and "####" not in prompt


def test_worked_examples_are_of_train_and_never_the_question_itself(folder):
    texts = {p.id: p.data["question"] for p in Gsm8k().problems("train")}
    held_out = [p for split in ("validation", "test") for p in Gsm8k().problems(split)]
    for shots in range(9):
        task = Gsm8k(shots=shots)
        for problem in [*task.problems("train", 12), *task.problems("test", 3)]:
            prompt = task.prompt(problem)
            examples = [i for i, text in texts.items() if text in prompt and i != problem.id]
            pool = [f"gsm8k/train/{i}" for i in range(9) if f"gsm8k/train/{i}" != problem.id]
            assert examples == pool[:shots] and problem.gold not in prompt
            assert prompt.count(problem.data["question"]) == 1
            assert not any(p.data["question"] in prompt for p in held_out if p.id != problem.id)


QWEN_CHAT = """{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == "user" or message.role == "assistant" %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""  # of Qwen-2.5's instruct models, without its tools


def tiny_policy():
    """A Qwen-2 of two layers at random, with a byte-level BPE of 400 pieces and ChatML's special tokens."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([r["question"] + r["answer"] for r in rows(50, 7)], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token=special[0], pad_token=special[0], additional_special_tokens=special[1:]
    )
    tokenizer.chat_template = QWEN_CHAT
    torch.manual_seed(0)
    config = small_config(
        len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, max_position_embeddings=2048,
        eos_token_id=[0, 2], pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    return Policy(Qwen2ForCausalLM(config).eval(), tokenizer)


def test_the_chat_prompt_is_what_the_chat_template_makes(folder):
    tokenizer = tiny_policy().tokenizer
    problem = Gsm8k().problems("test", 1)[0]
    for shots in (0, 1, 3):
        task = Gsm8k(template="qwen_chat", shots=shots)
        turns = [
            {"role": "system", "content": "Please reason step by step, and put your final answer within \\boxed{}."}
        ]
        for p in task.problems("train", shots):
            answer = p.gold.partition("#### ")[0] + f"The answer is \\boxed{{{p.data['answer']}}}."
            turns += [{"role": "user", "content": p.data["question"]}, {"role": "assistant", "content": answer}]
        turns += [{"role": "user", "content": problem.data["question"]}]
        assert task.prompt(problem) == tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert tokenizer(task.prompt(problem))["input_ids"].count(1) == len(turns) + 1


def test_a_response_ends_at_a_stop_string():
    problem = Problem("x", {"answer": "72"})
    runs_on = "so\n#### 72\n\nQuestion: and if not?\nAnswer: #### 5"
    assert Gsm8k().grade(problem, runs_on).correct and not grade_number(72, runs_on).correct
    assert not Gsm8k().grade(problem, "Question: #### 72").format_ok
    assert Gsm8k().grade(problem, "#### 72</s>#### 5 Question: #### 6").correct  # the first of them
    assert Gsm8k(template="qwen_chat").grade(problem, "\\boxed{72}<|im_end|>\n\\boxed{1}").correct
    for name, template in TEMPLATES.items():
        mark = Gsm8k(template=name).stop[0].strip()
        assert template.grader in GRADERS and mark in template.text  # what begins or ends a turn of the prompt


@pytest.mark.parametrize(("scheme", "rewards"), [("binary", (1.0, 0.0, 0.0)), ("format", (1.0, 0.1, 0.0))])
def test_reward_schemes(scheme, rewards):
    task, problem = Gsm8k(rewards=scheme), Problem("x", {"answer": "72"})
    assert tuple(task.grade(problem, r).reward for r in ("#### 72", "#### 7", "72")) == rewards


# --- the commands ----------------------------------------------------------------------------------------------------


def graded(*records, **settings):
    lines = [json.dumps(r).encode() for r in records]
    return list(grading.grade_stream(lines, "gsm8k", settings=settings))


def test_lines_of_a_file():
    right = [{"gold": 72}, {"gold": "72"}, {"gold": 72.0}, {"gold": "$72"}, {"answer": "so <<1+1=2>>2\n#### 72"}]
    assert all(line.correct for line in graded(*({**r, "response": "#### 72"} for r in right)))
    faults = [{}, {"gold": None}, {"gold": True}, {"gold": "none"}, {"answer": ["72"]}, {"gold": "1e5"}, {"answer": ""}]
    for line in graded(*({**r, "response": "#### 72"} for r in faults)):
        assert line.fault and len(line.fault) < 100
    for grader, correct in {"strict": False, "flexible": True, "boxed": False, "flexible-extract": True}.items():
        assert graded({"gold": 72, "response": "It is 72"}, grader=grader)[0].correct == correct


def test_grading_a_file_by_a_named_grader(tmp_path, capsys):
    path = tmp_path / "answers.jsonl"
    path.write_text('{"gold": 72, "response": "It is 72"}\n{"answer": "#### 7", "response": "#### 7"}\n')
    assert cli.main(["grade", "--task", "gsm8k", str(path)]) == 0
    assert [json.loads(line)["correct"] for line in capsys.readouterr().out.splitlines()] == [False, True]
    assert cli.main(["grade", "--task", "gsm8k", "--task-set", "grader=flexible", str(path)]) == 0
    assert [json.loads(line)["correct"] for line in capsys.readouterr().out.splitlines()] == [True, True]
    for bad in ("grader=loose", "grader", "colour=red", "name=x"):
        assert cli.main(["grade", "--task", "gsm8k", "--task-set", bad, str(path)]) == 2
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1 and captured.out == ""


def test_an_evaluation_with_shots_goes_on_where_it_was_killed(folder, tmp_path, capsys, monkeypatch):
    seen = []

    def spy(policy, prompts, *args, **settings):
        seen.append(prompts)
        return real(policy, prompts, *args, **settings)

    real = graded_responses.sample
    monkeypatch.setattr(graded_responses, "sample", spy)
    save_policy(tiny_policy(), tmp_path / "model")
    argv = ["evaluate", "--task", "gsm8k", "--model", str(tmp_path / "model"), "--split", "validation"]
    argv += ["--problems", "70", "--samples", "2", "--max-new-tokens", "6", "--out", str(tmp_path / "e")]
    assert cli.main([*argv, "--shots", "4"]) == 0
    summary = json.loads(capsys.readouterr().out)
    lines = (tmp_path / "e" / "problems.jsonl").read_text().splitlines()
    problems = Gsm8k().problems("validation", 70)
    assert [json.loads(line)["id"] for line in lines] == [p.id for p in problems]
    assert sum(seen, []) == [Gsm8k(shots=4).prompt(p) for p in problems] and [len(s) for s in seen] == [64, 6]
    assert summary["problems"] == 70 and summary["samples"] == 2 and summary["mean_length"] > 1
    (tmp_path / "e" / "problems.jsonl").write_text("\n".join(lines[:66]) + '\n{"id": "ha')
    before = json.loads((tmp_path / "e" / "evaluation.json").read_text(encoding="utf-8"))
    (tmp_path / "e" / "evaluation.json").write_text(json.dumps({"asked": before["asked"]}))
    assert cli.main([*argv, "--task-set", "shots=4"]) == 0  # the same thing said otherwise
    assert json.loads(capsys.readouterr().out) == summary and [len(s) for s in seen] == [64, 6, 6]
    assert (tmp_path / "e" / "problems.jsonl").read_text().splitlines() == lines
    for more, words in ((["--shots", "2"], "another evaluation"), (["--shots", "9"], "0 to 8"), ([], "another")):
        assert cli.main([*argv, *more]) == 2
        assert words in capsys.readouterr().err
    assert cli.main(["evaluate", "--shots", "2", "--out", str(tmp_path / "c")]) == 2  # Countdown has none
    assert "shots" in capsys.readouterr().err


# --- the real data, where they are -----------------------------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[2]
PLACES = [Path(os.environ.get("RLINO_DATA", "none")) / "gsm8k", ROOT.parent / "shared" / "data" / "gsm8k"]
REAL = next((p for p in PLACES if (p / "train.jsonl").exists()), None)
needs_data = pytest.mark.skipif(REAL is None, reason="GSM8K is not here: `rlino fetch gsm8k`, or set RLINO_DATA")


@needs_data
def test_every_gold_solution_is_right():
    task = Gsm8k(folder=str(REAL))
    every = {split: task.problems(split) for split in ("train", "validation", "test")}
    assert {k: len(v) for k, v in every.items()} == {"train": 7473 - VALIDATION, "validation": VALIDATION, "test": 1319}
    every = [p for part in every.values() for p in part]
    assert len({p.data["question"] for p in every}) == 8792
    for name in ("strict", "flexible", "strict-match", "flexible-extract"):
        assert all(grade_number(p.data["answer"], p.gold, grader=name).correct for p in every)
    for name, (pattern, place) in HARNESS.items():  # and wrong golds are told from them
        for p, other in zip(every[:500], every[1:501], strict=True):
            got = grade_number(other.data["answer"], p.gold, grader=name).correct
            assert got == harness(p.gold, other.gold, pattern, place)
    boxed = Gsm8k(template="boxed", shots=8, folder=str(REAL))
    for form in ("%s", "$%s$", "\\$%s", "%s\\text{ km/h}", "x = %s", "\\text{%s}", "%s.00", "%s\\%%", "\\frac{%s}{1}"):
        assert all(boxed.grade(p, f"it is \\boxed{{{form % p.data['answer']}}}").correct for p in every), form
    every = [p for p in every if p.data["answer"] != "0"]  # no million is 0 too
    for form in ("%s\\text{ million}", "%s, 5", "5%s", "%s\\text{ or }5", "%s^2", "%s:30"):
        assert not any(boxed.grade(p, f"\\boxed{{{form % p.data['answer']}}}").correct for p in every), form


@needs_data
def test_gold_solutions_as_a_file():
    lines = (REAL / "test.jsonl").read_bytes().splitlines()
    records = [json.loads(line) for line in lines]
    source = io.BytesIO(b"".join(json.dumps({**r, "response": r["answer"]}).encode() + b"\n" for r in records))
    graded = list(grading.grade_stream(source, "gsm8k"))
    assert len(graded) == 1319 and all(line.correct for line in graded)


@pytest.mark.parametrize(("text", "value"), [("1 3/4", Fraction(7, 4)), ("1 4/4", None), ("1 5/4", None), ("4/4", 1)])
def test_the_fraction_of_a_mixed_number_is_below_one(text, value):
    """`1 4/4` is more likely two numbers than two."""
    assert number(text) == value
