"""Countdown's task MDP: values against brute force, counts against tries, and traces read as states."""

from __future__ import annotations

import random
from collections import Counter
from fractions import Fraction
from functools import cache
from itertools import combinations, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlino_lib.errors import RlinoError
from rlino_lib.evaluation.values import continuation_values
from rlino_lib.policy.models import load_policy
from rlino_lib.tasks import Countdown
from rlino_lib.tasks.countdown.game import make_problem, pieces, reachable, solutions, steps_from
from rlino_lib.tasks.countdown.mdp import (
    actions,
    attempts,
    best_value,
    guess_probability,
    searcher_value,
    uniform_value,
    ways,
)
from rlino_lib.tasks.countdown.trace import credit_table, read_trace
from rlino_lib.training.pretraining.demonstrators import Demonstrator

PROBLEM = make_problem([8, 2, 4], 64)
RIGHT = " 8 * 4 = 32, 32 * 2 = 64 yes </think> <answer> ( 8 * 4 ) * 2 </answer>"
LONG = " 8 - 2 = 6, 6 * 4 = 24 no\n 8 + 4 = 13, 12 * 2 = 24 no\n" + RIGHT
GIVES_UP = " 8 + 2 = 10, 10 * 4 = 40 no </think> <answer> ( 8 + 2 ) * 4 </answer>"

states = st.lists(st.integers(1, 20), min_size=1, max_size=3).map(lambda s: tuple(sorted(s)))


# --- values ----------------------------------------------------------------------------------------------------------


def play(state, rng) -> int:
    while len(state) > 1:
        state = rng.choice([rest for _, rest in actions(state)])
    return state[0]


@settings(max_examples=40, deadline=None)
@given(states, st.integers(1, 99))
def test_values_agree_with_all_attempts_written_out(state, target):
    def chance(state) -> Fraction:  # the tree without merging: every history has its own node
        if len(state) == 1:
            return Fraction(state[0] == target)
        tree = [chance(rest) for _, rest in actions(state)]
        return sum(tree, Fraction()) / len(tree)

    assert uniform_value(state, target) == chance(state)
    assert best_value(state, target) == bool(solutions(state, target)) == (chance(state) > 0)


def test_the_uniform_value_is_what_random_play_earns():
    rng, n = random.Random(0), 4000
    hits = sum(play((2, 4, 8), rng) == 64 for _ in range(n))
    p = float(uniform_value((2, 4, 8), 64))
    assert 0 < p < 0.2 and abs(hits / n - p) < 4 * (p * (1 - p) / n) ** 0.5


def test_another_attempt_satisfies_the_bellman_equation():
    start, target, again = (2, 4, 8), 64, 0.75
    v0 = searcher_value(start, start, target, again)
    first = float(uniform_value(start, target))
    assert v0 == pytest.approx(first + (1 - first) * again * v0, abs=1e-14)
    assert searcher_value(None, start, target, again) == pytest.approx(again * v0, abs=1e-14)
    assert searcher_value((64,), start, target, again) == 1.0
    assert searcher_value(start, start, target, 0.0) == first
    assert searcher_value((1, 1), (1, 1), 99, again) == 0.0  # out of reach, however often one tries
    for bad in (-0.1, 1.0):
        with pytest.raises(RlinoError, match="chance of another attempt"):
            searcher_value(start, start, target, bad)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=3), st.integers(1, 99))
def test_a_guess_is_right_as_often_as_all_attempts_of_the_demonstrator_say(nums, target):
    """Every ordered choice of two numbers, and every step: the attempt's own tree, which merges nothing."""

    def chance(left) -> Fraction:
        if len(left) == 1:
            return Fraction(left[0] == target)
        total = Fraction()
        for i, j in product(range(len(left)), repeat=2):
            if i != j:
                steps = [s for s in steps_from(left[i], left[j]) if s[3] <= Demonstrator.largest]
                rest = [n for k, n in enumerate(left) if k not in (i, j)]
                total += sum((chance([*rest, s[3]]) for s in steps), Fraction()) / len(steps)
        return total / (len(left) * (len(left) - 1))

    assert guess_probability(nums, target) == chance(nums)


def test_a_guess_is_the_demonstrators_attempt():
    nums, target = (3, 5, 7, 19), 41
    rng = random.Random(0)
    hits = sum(Demonstrator().attempt(nums, rng)[-1][3] == target for _ in range(20_000))
    p = float(guess_probability(nums, target))
    assert 0.001 < p < 0.1 and abs(hits / 20_000 - p) < 4 * (p / 20_000) ** 0.5


@cache
def forms(nums):
    """The values of all plain expressions over the numbers, with their counts; None after a division by 0."""
    if len(nums) == 1:
        return Counter({Fraction(nums[0]): 1})
    values = Counter()
    places = range(len(nums))
    for left in (c for r in range(1, len(nums)) for c in combinations(places, r)):
        sides = forms(tuple(nums[i] for i in left)), forms(tuple(nums[i] for i in places if i not in left))
        for (a, n), (b, m) in product(*(side.items() for side in sides)):
            both = a is not None and b is not None
            for value in (a + b, a - b, a * b, a / b if b else None) if both else [None] * 4:
                values[value] += n * m
    return values


@pytest.mark.parametrize(("n_numbers", "count", "problems", "times"), [(3, 192, 200, 2), (4, 7680, 20, 3)])
def test_a_guess_at_attempts_against_one_at_plain_expressions(n_numbers, count, problems, times):
    """Over random problems of the task's ranges."""
    rng = random.Random(0)
    attempts_right = expressions_right = 0.0
    for _ in range(problems):
        nums = tuple(sorted(rng.randint(1, 20) for _ in range(n_numbers)))
        target = rng.choice([n for n in sorted(reachable(nums)) if 10 <= n <= 99])
        values = forms(nums)
        assert values.total() == count and values[target] > 0
        attempts_right += float(guess_probability(nums, target))
        expressions_right += values[target] / count
    assert attempts_right / expressions_right == pytest.approx(times, rel=0.25)


# --- counts ----------------------------------------------------------------------------------------------------------


def test_states_count_every_history_once():
    histories = {steps[:k] for steps in attempts((1, 3, 7)) for k in range(len(steps) + 1)}
    assert ways((2, 3)) == {(2, 3): 1, (5,): 1, (6,): 1, (1,): 1}  # 3 / 2 is no integer
    assert sum(ways((1, 3, 7)).values()) == len(histories) > len(ways((1, 3, 7)))
    ends = sum(n for state, n in ways((1, 3, 7)).items() if len(state) == 1)
    assert ends == len(list(attempts((1, 3, 7))))


# --- traces ----------------------------------------------------------------------------------------------------------


def test_a_trace_is_its_states():
    visits = read_trace(PROBLEM, LONG)
    assert [v.what for v in visits] == [
        "start",
        "step",
        "step",
        "no",
        "step",
        "step",
        "no",
        "step",
        "step",
        "yes",
        "answer",
    ]
    assert [v.state for v in visits[:5]] == [(2, 4, 8), (4, 6), (24,), (2, 4, 8), None]
    assert visits[4].fault == "8 + 4 is not 13" and visits[5].state is None and visits[5].fault == ""
    assert visits[6].state == (2, 4, 8) and visits[-1].correct is True
    assert "".join(v.text for v in visits) == LONG and [LONG[: v.end] for v in visits][-1] == LONG


@pytest.mark.parametrize(
    "response, fault",
    [
        (" 8 + 8 = 16", "8 is not there to be used"),
        (" 9 + 2 = 11", "9 is not there to be used"),
        (" 8 * 4 = 33", "8 * 4 is not 33"),
        (" 8 / 4 = 3", "8 / 4 is not 3"),
        (" 2 - 8 = 6", "2 - 8 is not 6"),
    ],
)
def test_a_broken_rule_is_named(response, fault):
    step = read_trace(PROBLEM, response)[1]
    assert (step.state, step.fault) == (None, fault)


def test_the_number_made_is_there_and_the_numbers_used_are_gone():
    assert read_trace(PROBLEM, " 8 - 2 = 6, 6 + 4 = 10")[2].state == (10,)
    assert read_trace(PROBLEM, " 8 - 2 = 6, 8 + 4 = 12")[2].state is None
    assert read_trace(make_problem([5, 5, 2], 10), " 5 - 5 = 0, 2 - 0 = 2")[2].state == (2,)  # a 0 is legal to write


def test_giving_up_differs_from_starting_over():
    kinds = [v.what for v in read_trace(PROBLEM, GIVES_UP)]
    assert kinds == ["start", "step", "step", "gives up", "answer"]
    assert [v.what for v in read_trace(PROBLEM, " 8 + 2 = 10 no\n 8")] == ["start", "step", "no", "cut"]


@pytest.mark.parametrize("response", [RIGHT, LONG, GIVES_UP, "", " 8 * 4 = 32, 32 * 2 = 64 no\n", "<answer>8</answer>"])
@pytest.mark.parametrize("again", [0.0, 0.75])
def test_credits_add_up_to_reward_minus_value(response, again):
    table, reward = credit_table(PROBLEM, response, again=again), float(response.endswith(RIGHT))
    assert table["credit (best)"].sum() == reward - 1
    start = searcher_value((2, 4, 8), (2, 4, 8), 64, again)
    assert table["credit (uniform)"].sum() == pytest.approx(reward - start, abs=1e-12)


def test_credit_falls_on_the_step_that_decides():
    table = credit_table(PROBLEM, LONG)
    assert table["credit (best)"].tolist() == [0, -1, 0, 1, -1, 0, 1, 0, 0, 0, 0]
    overlooked = credit_table(PROBLEM, " 8 * 4 = 32, 32 * 2 = 64 no\n 8 + 4 = 12, 12 + 2 = 14 no </think>", again=0.5)
    assert overlooked["credit (uniform)"][3] < -0.5  # a hit that is called a miss
    assert overlooked["credit (uniform)"][6] < 0  # giving up takes away the chance of another attempt
    slip = credit_table(PROBLEM, " 8 * 4 = 32, 32 * 2 = 64 yes </think> <answer> ( 8 * 4 ) + 2 </answer>")
    assert slip["credit (best)"].iloc[-1] == -1  # found, and then written down wrongly


def test_only_a_few_numbers_are_solved():
    problem = Countdown().problem_from_record({"nums": [1, 2, 3, 4, 5, 6], "target": 7})
    with pytest.raises(RlinoError, match="at most five numbers"):
        credit_table(problem, "")


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="0123456789 +-*/=,.noyes\n<>/think()", max_size=120))
def test_any_text_is_read(text):
    visits = read_trace(PROBLEM, text)
    assert "".join(v.text for v in visits) == text and visits[-1].correct is False
    assert len(credit_table(PROBLEM, text)) == len(visits)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_the_demonstrator_never_leaves_the_task(seed):
    rng = random.Random(seed)
    problem = rng.choice(Countdown().problems("train", 50))
    visits = read_trace(problem, Demonstrator().response(problem, rng))
    assert all(v.state is not None and (v.correct is not None or not v.fault) for v in visits)
    tail = next(v.what for v in reversed(visits[:-1]))
    assert tail in ("yes", "gives up") and (visits[-1].correct == (tail == "yes")) | (tail == "gives up")


# --- values of a policy ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def policy():
    torch.set_num_threads(1)
    return load_policy()


def test_the_pieces_are_the_tokens_of_the_base(policy):
    """Up to 99 a number is one token; larger ones take a token more for each further digit."""
    rng, trace = random.Random(1), []
    for problem in Countdown().problems("train", 20):
        trace.append(Demonstrator().response(problem, rng))
    for text in (LONG, GIVES_UP, *trace):
        assert pieces(text) == [policy.tokenizer.decode([t]) for t in policy.tokenizer(text)["input_ids"]]


def test_prefixes_near_the_end_have_values_near_the_grade(policy):
    task = Countdown()
    good, bad = RIGHT.removesuffix(" </answer>"), GIVES_UP.removesuffix(" </answer>")
    values = continuation_values(policy, task, PROBLEM, ["", good, bad], samples=16, seed=1)
    assert values["value"].tolist()[1:] == [1.0, 0.0] and values["n"].tolist() == [16] * 3
    assert (values["low"] <= values["value"]).all() and (values["value"] <= values["high"]).all()
    assert values["low"][1] == pytest.approx(0.025 ** (1 / 16)) and values["high"][1] == 1.0
    again = continuation_values(policy, task, PROBLEM, ["", good, bad], samples=16, seed=1)
    assert again.equals(values)


def test_the_cap_holds_for_the_whole_response(policy):
    good = RIGHT.removesuffix(" </answer>")
    tokens = len(policy.tokenizer(good)["input_ids"])
    values = lambda cap: continuation_values(  # noqa: E731
        policy, Countdown(), PROBLEM, ["", good], samples=8, max_new_tokens=cap
    )
    assert values(tokens + 1)["value"][1] == 1.0  # the closing tag is one token
    with pytest.raises(RlinoError, match="leaves nothing to sample"):
        values(tokens)


def test_a_prefix_ends_between_tokens(policy):
    with pytest.raises(RlinoError, match="inside a token"):
        continuation_values(policy, Countdown(), PROBLEM, [" 1", " 12 + 2"], samples=2)
    with pytest.raises(RlinoError, match="at least one prefix"):
        continuation_values(policy, Countdown(), PROBLEM, [])
