"""Countdown responses read as searches: hand-made traces with their counts, identities on any text, recorded traces."""

from __future__ import annotations

import time
from typing import NamedTuple

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rlino_lib.errors import RlinoError
from rlino_lib.records.runs import load_run
from rlino_lib.tasks import Countdown
from rlino_lib.tasks.arithmetic import count_attempts, trace_steps
from rlino_lib.tasks.base import Problem
from rlino_lib.tasks.countdown.game import expression, make_problem, pieces
from rlino_lib.tasks.countdown.grade import grade_countdown, shape
from rlino_lib.tasks.countdown.mdp import attempt_text, attempts
from rlino_lib.tasks.countdown.trace import (
    MAX_READ,
    chain_is_right,
    countdown_problem,
    process_is_right,
    read_search,
    read_trace,
    search_counts,
    success_by_attempt,
)

NUMS, TARGET = [8, 2, 4], 64
PROBLEM = make_problem(NUMS, TARGET)
MISS, HIT = " 8 - 2 = 6, 6 * 4 = 24", " 8 * 4 = 32, 32 * 2 = 64"
END = " </think> <answer> ( 8 * 4 ) * 2 </answer>"


def frame(*responses: str) -> pd.DataFrame:
    rows = [search_counts(PROBLEM, response) for response in responses]
    return pd.DataFrame(rows, columns=list(search_counts(PROBLEM, ""))).astype({"first_hit": "Int64"})


def row(response: str, problem: Problem = PROBLEM) -> dict:
    """The recorded counts of a response, and others that follow from its reading."""
    search = read_search(problem, response)
    steps = [w for a in search.attempts for w in a.steps]
    return search_counts(problem, response) | {
        "closed": sum(bool(a.verdict) for a in search.attempts),
        "hits": sum(a.hit is not None for a in search.attempts),
        "repeats_exact": sum(k is not None for k in search.repeats("exact")),
        "repeats_results": sum(k is not None for k in search.repeats("results")),
        "steps": len(steps),
        "steps_wrong": sum(not w.true for w in steps),
        "steps_missing": sum(w.missing is not None for w in steps),
        "tokens": len(search.starts),
        "answer_attempt": search.answer_attempt,
    }


# --- hand-made traces ------------------------------------------------------------------------------------------------


def test_a_trace_is_a_list_of_attempts():
    search = read_search(PROBLEM, f"{MISS} no\n{HIT} yes{END}")
    first, second = search.attempts
    assert [w.step for w in first.steps] == [(8, "-", 2, 6), (6, "*", 4, 24)]
    assert [w.left for w in first.steps] == [(4, 6), (24,)] and [w.left for w in second.steps] == [(2, 32), (64,)]
    assert (first.verdict, first.hit, second.verdict, second.hit) == ("no", None, "yes", 2)
    assert search.response[first.start : first.end] == f"{MISS} no\n"
    assert search.response[second.start : second.end] == f"{HIT} yes"
    assert search.first_hit == 2 == search.answer_attempt and search.filler == ()


GOLDEN = {
    f"{MISS} no\n{HIT} yes{END}": dict(
        attempts=2, closed=2, first_hit=2, hits=1, overlooked=0, false_yes=0, repeats_results=0, steps=4, steps_wrong=0,
        steps_missing=0, tokens=34, tokens_attempts=24, attempts_after_hit=0,
        tokens_after_hit=0, filler=0, answer_attempt=2,
    ),
    f"{HIT} no\n{MISS} no\n{MISS} yes </think> <answer> 4 * ( 8 - 2 ) </answer>": dict(
        attempts=3, first_hit=1, hits=1, overlooked=1, false_yes=1, repeats_exact=1, attempts_after_hit=2,
        tokens_after_hit=24, answer_attempt=3,
    ),
    f"{MISS} no\n 8 - 2 = 6, 4 * 6 = 24 no\n 4 * 8 = 32, 2 * 32 = 64 no\n 2 * 4 = 8, 8 * 8 = 64 yes": dict(
        attempts=4, first_hit=3, hits=2, overlooked=1, repeats_exact=0, repeats_order=1, repeats_results=1,
        attempts_after_hit=1, answer_attempt=None,
    ),
    " 8 + 4 = 13, 13 * 2 = 26 no\n 8 + 8 = 16, 99 + 1 = 101 no\n 8 * 4 = 32": dict(
        attempts=3, closed=2, first_hit=None, steps=5, steps_wrong=2, steps_missing=1, filler=0,
    ),
    " Let me see , 8 * 4 = 32 , so 32 * 2 = 64 yes hooray </think>": dict(
        attempts=1, first_hit=1, steps=2, filler=5, tokens_after_hit=1,
    ),
    " no no\n yes": dict(attempts=0, closed=0, first_hit=None, filler=3, tokens_attempts=0),
    f"{HIT} </think> <answer> 8 * 4 * 2 </answer>": dict(attempts=1, closed=0, first_hit=1, answer_attempt=1),
    f"{HIT} yes </think> {MISS} no <answer> 64 </answer>": dict(attempts=1, steps=2, answer_attempt=None),
    "": dict(attempts=0, steps=0, tokens=0, filler=0, answer_attempt=None),
}  # fmt: skip


@pytest.mark.parametrize("response", GOLDEN)
def test_counts_of_hand_made_traces(response):
    counts = row(response)
    for name, value in GOLDEN[response].items():
        assert pd.isna(counts[name]) if value is None else counts[name] == value, name


def test_what_counts_as_a_repeat():
    lines = [
        " 8 + 2 = 10, 10 * 4 = 40 no\n",
        " 8 + 2 = 10, 10 * 4 = 40 no\n",  # the same steps
        " 2 + 8 = 10, 4 * 10 = 40 no\n",  # in another order
        " 4 - 2 = 2, 8 * 2 = 16 no\n",
        " 4 / 2 = 2, 8 * 2 = 16 no\n",  # other steps, the same results
        " 8 - 2 = 6, 6 - 4 = 2 no\n",
        " 2 - 8 = 6, 4 - 6 = 2 no\n",  # where the order matters
        " 8 + 2 = 10, 10 * 4 = 40",  # cut before its verdict
    ]
    search = read_search(PROBLEM, "".join(lines))
    assert search.repeats("exact") == [None, 1, None, None, None, None, None, None]
    assert search.repeats("order") == [None, 1, 1, None, None, None, None, None]
    assert search.repeats("results") == [None, 1, 1, None, 4, None, 6, None]
    other = read_search(make_problem([1, 2, 3, 4], 10), " 1 + 2 = 3, 3 + 4 = 7 no\n 4 + 3 = 7, 2 + 1 = 3 no\n")
    assert other.repeats() == [None, 1] and other.repeats("exact") == [None, None]


@pytest.mark.parametrize(
    "response, faults",
    [
        (" 8 + 8 = 16, 16 + 9 = 25", ["8 is not left", ""]),  # after that nobody knows what is left
        (" 8 * 4 = 33, 33 - 2 = 31", ["8 * 4 is not 33", ""]),  # a wrong result can be used as it was written
        (" 8 * 4 = 33, 32 * 2 = 64", ["8 * 4 is not 33", "32 is not left"]),
        (" 9 * 4 = 33", ["9 * 4 is not 33; 9 is not left"]),
        (" 8 / 4 = 2, 2 - 2 = 0", ["", ""]),
        (f"{HIT}, 64 + 2 = 66", ["", "", "2 is not left"]),
    ],
)
def test_faults_are_named(response, faults):
    (attempt,) = read_search(PROBLEM, response + " no").attempts
    assert [w.fault for w in attempt.steps] == faults


def test_a_hit_breaks_no_rule():
    for response in (" 8 * 8 = 64 yes", " 8 * 4 = 64 yes", " 8 * 4 = 32, 32 + 32 = 64 yes", " 30 + 34 = 64 yes"):
        assert pd.isna(row(response)["first_hit"])
    assert read_search(PROBLEM, f"{HIT}, 64 + 2 = 66 no").attempts[0].hit == 2


def test_the_answer_is_compared_up_to_order():
    for answer in ("( 8 * 4 ) * 2", "2 * ( 4 * 8 )", "8*4*2"):
        assert row(f"{HIT} yes\n{MISS} no </think> <answer> {answer} </answer>")["answer_attempt"] == 1
    for answer in ("8 * ( 4 * 2 )", "64", "8 * 4", "( 8 * 4 * 2", ""):
        assert pd.isna(row(f"{HIT} yes </think> <answer> {answer} </answer>")["answer_attempt"])
    assert shape("( 8 - 2 ) * 4") == shape("4 * (8-2)") != shape("4 * ( 2 - 8 )")


# --- truncation ------------------------------------------------------------------------------------------------------


class Cut(NamedTuple):
    """A response cut after some attempts, and what a solver makes of it that answers with its first hit."""

    text: str
    attempts: int
    answer: str | None  # the expression of the first hit; None where there is none
    right: bool


def cut_after(problem: Problem, response: str, k: int) -> Cut:
    """The response up to the end of its k-th attempt (all of it where it makes fewer), graded as a budget of k.

    The rule: the solver checks each attempt itself and answers with the steps of the first one that hits, which is to
    say that only numbers that were left were taken, all arithmetic is right, and the target alone remains. It is right
    if there is a hit among the first k attempts, and wrong otherwise. Verdicts and the response's own answer do not
    count: an overlooked hit is one, a false yes is none, and an answer that no attempt reached is wrong.
    """
    search = read_search(problem, response)
    made = search.attempts[:k]
    text = response if k > len(search.attempts) else response[: made[-1].end if made else 0]
    hit = next((attempt for attempt in made if attempt.hit), None)
    answer = expression([w.step for w in hit.steps[: hit.hit]]) if hit else None
    return Cut(text, len(made), answer, hit is not None)


def test_truncation_is_a_budget():
    response = f"{MISS} no\n{HIT} no\n{MISS} no{' </think> <answer> ( 8 - 2 ) * 4 </answer>'}"
    assert cut_after(PROBLEM, response, 0) == ("", 0, None, False)
    assert cut_after(PROBLEM, response, 1) == (f"{MISS} no\n", 1, None, False)
    assert cut_after(PROBLEM, response, 2) == (f"{MISS} no\n{HIT} no\n", 2, "( 8 * 4 ) * 2", True)
    assert cut_after(PROBLEM, response, 9) == (response, 3, "( 8 * 4 ) * 2", True)
    assert not cut_after(PROBLEM, f"{MISS} yes{END}", 9).right  # the answer came from nowhere


def test_success_by_attempt():
    table = success_by_attempt(frame(f"{HIT} yes", f"{MISS} no\n{HIT} no\n{HIT} yes", f"{MISS} no\n{MISS} no\n", ""), 3)
    assert table.index.tolist() == [1, 2, 3] and table["reached"].tolist() == [3, 2, 0]
    assert table["hits"].tolist() == [1, 1, 0] and table["within"].tolist() == [0.25, 0.5, 0.5]
    assert table["rate"].tolist()[:2] == [1 / 3, 1 / 2] and pd.isna(table["rate"][3])
    assert success_by_attempt(frame(""), 2)["within"].tolist() == [0, 0]
    with pytest.raises(RlinoError, match="no responses"):
        success_by_attempt(frame(), 2)


# --- any text --------------------------------------------------------------------------------------------------------

BITS = [" 8 * 4 = 32", " 32 * 2 = 64", " 8 - 2 = 6", " 6 * 4 = 24", " 4 * 8 = 32", " 8 + 4 = 13", " 9 + 9 = 18", ","]
BITS += [
    " no\n",
    " no",
    " yes",
    "\n",
    " 4 *",
    " hm",
    "8",
    " </think>",
    " <answer>",
    " ( 8 * 4 ) * 2",
    " </answer>",
    " =",
    "٨",
]
soup = st.lists(st.sampled_from(BITS), max_size=40).map("".join)
lawful = st.lists(
    st.tuples(st.sampled_from(sorted(attempts((2, 4, 8)))), st.sampled_from([" no\n", " yes\n"])), max_size=12
).map(lambda made: "".join(attempt_text(steps, verdict) for steps, verdict in made))
any_response = st.one_of(soup, lawful, st.text(max_size=60), st.text("0123456789 +-*/=noyes\n,", max_size=60))


@settings(max_examples=100, deadline=None)
@given(any_response)
@example("no")
@example(" no no\n yes")
def test_counts_add_up(text):
    search, counts = read_search(PROBLEM, text), row(text)
    thought = text.partition("</think>")[0]
    assert counts["steps"] == sum(len(a.steps) for a in search.attempts) == len(trace_steps(thought))
    assert counts["steps_wrong"] == sum(not right for _, right in trace_steps(thought))
    alone = sum(count_attempts(" " + f) for f in search.filler if f in ("no", "yes"))
    unclosed = count_attempts(thought) - counts["closed"]
    assert 0 <= unclosed <= alone  # a verdict that follows no step is filler; so is the word without its space
    assert counts["attempts"] - counts["closed"] in (0, 1) and all(a.verdict for a in search.attempts[:-1])
    edges = [(a.start, a.end) for a in search.attempts]
    assert all(e == s for (_, e), (s, _) in zip(edges, edges[1:], strict=False)) and (not edges or edges[0][0] == 0)
    outside = search.tokens(edges[-1][1] if edges else 0, len(text))
    assert counts["tokens"] == counts["tokens_attempts"] + outside == len(pieces(text))
    exact, order, results = (search.repeats(same) for same in ("exact", "order", "results"))
    for j, (a, b, c) in enumerate(zip(exact, order, results, strict=True), 1):
        assert (a is None or b is not None) and (b is None or c is not None)
        assert all(k is None or k < j for k in (a, b, c))
    assert counts["hits"] >= counts["overlooked"] and (counts["hits"] > 0) == pd.notna(counts["first_hit"])
    assert counts["filler"] <= 2 * len(text)


@settings(max_examples=100, deadline=None)
@given(any_response)
def test_truncation_is_monotone_and_its_answers_are_right(text):
    counts = row(text)
    cuts = [cut_after(PROBLEM, text, k) for k in range(counts["attempts"] + 2)]
    for k, (cut, more) in enumerate(zip(cuts, cuts[1:], strict=False)):
        assert more.text.startswith(cut.text) and more.right >= cut.right and more.attempts >= cut.attempts
        assert cut.right == (pd.notna(counts["first_hit"]) and counts["first_hit"] <= k)
        assert row(cut.text)["attempts"] == cut.attempts == min(k, counts["attempts"])
    assert cuts[-1].text == text
    for cut in cuts:
        assert (cut.answer is not None) == cut.right
        assert not cut.right or grade_countdown(NUMS, TARGET, f"<answer> {cut.answer} </answer>").correct


@settings(max_examples=100, deadline=None)
@given(lawful)
def test_lawful_attempts_end_where_the_process_does(text):
    """Against the reading of chapter 01: where every line is an attempt, both see the same states."""
    states = [v.state for v in read_trace(PROBLEM, text) if v.what == "step"]
    wanted = {j: w.left for j, w in enumerate(w for a in read_search(PROBLEM, text).attempts for w in a.steps)}
    first_yes = text.split(" yes")[0]  # after a yes, chapter 01 does not start over
    n = len(trace_steps(first_yes))
    assert [wanted[j] for j in range(n)] == states[:n]
    assert row(text)["steps_missing"] == row(text)["steps_wrong"] == row(text)["filler"] == 0


FLOODS = {
    "steps": "8 - 2 = 6, " * 200_000,
    "attempts": " 8 * 4 = 32, 32 * 2 = 65 no\n" * 80_000,
    "one-step attempts": " 1 + 1 = 2 no\n" * 150_000 + "<answer> 1 + 1 </answer>",
    "verdicts": " no" * 700_000,
    "digits": "7" * 2_000_000,
    "spaces": " " * 2_000_000,
    "words": "so " * 700_000,
    "letters": "a" * 2_000_000,
    "answers": "<answer>" + "1+" * 249 + "1</answer>",
    "brackets": "<answer>" * 250_000,
}


@pytest.mark.parametrize("kind", FLOODS)
def test_megabytes_of_anything_are_bounded_work(kind):
    """A guard against hangs: a response is read up to MAX_READ characters, whatever its length."""
    start = time.process_time()
    counts = row(FLOODS[kind])
    assert time.process_time() - start < 1.0
    assert counts["tokens"] <= MAX_READ


# --- recorded traces -------------------------------------------------------------------------------------------------


def test_what_is_no_countdown_rollout_is_said():
    for data in ({}, None, {"nums": [1, "2"], "target": 3}, {"nums": [1, 2]}, {"question": "How many?"}):
        with pytest.raises(RlinoError, match="read from Countdown rollouts"):
            countdown_problem(data)


@pytest.fixture(scope="module")
def recorded() -> pd.DataFrame:
    """Recorded traces, those of the first step written by the shipped base as it is."""
    return load_run("countdown/grpo-s0").rollouts


def test_recorded_traces(recorded):
    rows = zip(recorded["data"], recorded["response"], strict=True)
    searches = pd.DataFrame([row(text, countdown_problem(data)) for data, text in rows], index=recorded.index)
    searches = searches.join(recorded[["correct", "clipped", "length"]])
    texts = recorded["response"].str.partition("</think>")[0]
    assert searches["steps"].tolist() == [len(trace_steps(t)) for t in texts]
    assert searches["steps_wrong"].tolist() == [sum(not right for _, right in trace_steps(t)) for t in texts]
    plain = searches[searches["filler"] == 0]  # nothing but attempts: every verdict closes one
    assert len(plain) > 0.9 * len(searches)
    assert plain["closed"].tolist() == [count_attempts(t) for t in recorded.loc[plain.index, "response"]]
    whole = plain[~plain["clipped"]]
    assert len(whole) > 100 and (whole["attempts"] == whole["closed"]).all()
    assert (whole["tokens"] == whole["length"] - 1).all()  # the recorded length counts the token that ends a response
    hit = whole["first_hit"].notna()
    assert hit[whole["correct"]].all() and 0 < hit.sum() < len(whole)  # nobody is right without a hit
    claimed = whole["answer_attempt"] == whole["first_hit"]  # NaN, which is none, equals nothing
    assert (whole["correct"] | ~claimed).all()  # who answers with the hit is right


def test_recorded_states_are_those_of_chapter_01(recorded):
    """Up to the first fault of an attempt; after it this reading goes on with what was written."""
    seen = 0
    for data, text in zip(recorded["data"], recorded["response"], strict=True):
        problem = make_problem(data["nums"], data["target"])
        steps = [v for v in read_trace(problem, text) if v.what == "step"]
        wanted = [w for a in read_search(problem, text).attempts for w in a.steps]
        for v, w in zip(steps, wanted, strict=True):
            assert v.end == w.end and (v.state is None or v.state == w.left) and (not v.fault or w.fault)
            seen += v.state is not None
    assert seen > 1000


# --- right chains ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "right"),
    [
        (f"{HIT} yes{END}", True),
        (f"{MISS} no\n{HIT} yes{END}", True),
        (f"{HIT} yes </think> <answer> 2 * ( 4 * 8 ) </answer>", True),  # the order of what is multiplied is free
        (f"{HIT} yes </think> <answer> 2 * 4 * 8 + 0 </answer>", False),  # a wrong answer
        (f"{HIT} yes </think> <answer> ( 4 * 2 ) * 8 </answer>", False),  # right, and of no attempt
        (f"{MISS} no\n{HIT} no{END}", False),  # its attempt is called no
        (f"{HIT} no\n{HIT} yes{END}", False),  # a wrong verdict before
        (f"{MISS} yes\n{HIT} yes{END}", False),
        (f" 8 - 2 = 7, 7 * 4 = 28 no\n{HIT} yes{END}", False),  # a wrong equation before
        (f" 8 * 4 = 33, 33 * 2 = 64 yes{END}", False),  # right by two slips
        (f" 8 * 8 = 64 yes\n{HIT} yes{END}", False),  # no hit: there is one 8
        (f"{HIT}{END}", False),  # not called anything
        (" <answer> ( 8 * 4 ) * 2 </answer>", False),  # no chain at all
        (f"{HIT} yes", False),
        (f"{MISS} no\n" * 1000 + f"{HIT} yes{END}", False),  # too long to be read to its end
    ],
)
def test_a_right_answer_by_a_right_chain(response, right):
    assert chain_is_right(PROBLEM, response) == right == Countdown().chain_right(PROBLEM, response)


@settings(max_examples=30)
@given(st.text(alphabet="8241 +-*/=,\n", max_size=40) | st.text(max_size=40))
def test_a_chain_is_not_better_than_its_answer(text):
    for response in (text, text + END, f"{HIT} yes{text}{END}"):
        assert chain_is_right(PROBLEM, response) <= grade_countdown(NUMS, TARGET, response).correct


@pytest.mark.parametrize(
    ("response", "right"),
    [
        (f"{HIT} yes{END}", True),
        (f"{MISS} no{END}", True),  # the answer is not asked for
        (f"{MISS} no </think> <answer> 1 </answer>", True),
        ("", True),
        (f"{MISS} no\n{HIT} no{END}", False),  # a hit overlooked
        (f"{MISS} yes{END}", False),
        (f" 8 - 2 = 7, 7 * 4 = 28 no{END}", False),  # a wrong equation
        (f" 8 * 8 = 64, 64 - 2 = 62 no{END}", False),  # there is one 8
        (f"{MISS} no\n" * 1000 + f"{HIT} yes{END}", False),
    ],
)
def test_a_process_is_right_whatever_its_answer(response, right):
    assert process_is_right(PROBLEM, response) == right
