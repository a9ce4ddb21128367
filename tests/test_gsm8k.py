"""GSM8K's strict grader: one case a line."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlino_lib.tasks.gsm8k import TAIL, extract_strict, number, strict


@pytest.mark.parametrize(
    ("response", "reason", "correct"),
    [
        ("#### 72", "answers 72", True),
        ("She sold 48 / 2 = 24.\n#### 72\n", "answers 72", True),
        ("#### 72.", "answers 72", True),
        ("#### 72.0", "answers 72", True),
        ("#### $72", "answers 72", True),
        ("#### 72 dollars", "answers 72", True),
        ("####72", "answers 72", True),
        ("#### 71\n#### 72", "answers 72", True),
        ("#### 72\n#### 71", "answers 71, not 72", False),
        ("#### 72\n#### none", "answers 72", True),
        ("#### 7,200", "answers 7200, not 72", False),
        ("#### -72", "answers -72, not 72", False),
        ("#### 72.5", "answers 145/2, not 72", False),
        ("#### 7.2.0", "7.2.0 after #### is not a number", False),
        ("#### .", ". after #### is not a number", False),
        ("#### ,,", ",, after #### is not a number", False),
        ("72", "no #### with a number", False),
        ("### 72", "no #### with a number", False),
        ("#### seventy-two", "no #### with a number", False),
        ("#### ٧٢", "no #### with a number", False),
        ("####\n72", "no #### with a number", False),
        ("", "no #### with a number", False),
        ("#### 72" + "x" * TAIL, "no #### with a number", False),
    ],
)
def test_reasons(response, reason, correct):
    got = strict(72, response)
    assert (got.reason, got.correct) == (reason, correct)
    assert got.format_ok == reason.startswith("answers") and got.reward == float(correct)


@pytest.mark.parametrize(
    ("text", "value"),
    [("72", 72), ("1,000", 1000), ("$5", 5), ("-$5", -5), ("7.", 7), (".5", Fraction(1, 2)), ("-0", 0), ("007", 7)],
)
def test_numbers(text, value):
    assert number(text) == value


@pytest.mark.parametrize("text", ["", "-", ".", "1e5", "1/2", "1_000", "１２", "--1", "9" * 5000, "nan"])
def test_what_is_no_number(text):
    assert number(text) is None


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=3))
def test_numbers_are_exact(value):
    assert number(f"{value:,f}") == Fraction(value)
    assert strict(str(value), f"#### {value:,f}").correct


@given(st.text())
def test_any_string_has_a_grade(text):
    assert (extract_strict(text) is None) <= (not strict(1, text).format_ok)
