"""Countdown's restarts: wrong prefixes that are legal, the same for every run, and not the policy's."""

import random
import statistics

import pytest
import torch

from rlino_lib.errors import RlinoError
from rlino_lib.methods.advantages import advantages
from rlino_lib.tasks import Countdown
from rlino_lib.tasks.base import Problem
from rlino_lib.tasks.countdown.game import make_problem
from rlino_lib.tasks.countdown.mdp import attempt_text, attempts, random_attempt
from rlino_lib.tasks.countdown.restarts import check_split, restarted, wrong_attempt
from rlino_lib.tasks.countdown.trace import process_is_right, read_search

PROBLEM = make_problem([8, 2, 4], 64)
MISS = " 8 - 2 = 6, 6 * 4 = 24 no\n"
OTHER = " 8 + 2 = 10, 10 + 4 = 14 no\n"
HIT = " 8 * 4 = 32, 32 * 2 = 64 yes"
ANSWER = " </think> <answer> ( 8 * 4 ) * 2 </answer>"
RESTARTED = Problem(PROBLEM.id, {**PROBLEM.data, "opening": MISS}, PROBLEM.gold)


@pytest.mark.parametrize("n_numbers", [2, 3, 4])
def test_a_wrong_prefix_is_one_or_two_legal_attempts_that_do_not_hit_and_are_called_no(n_numbers):
    problems = Countdown(n_numbers=n_numbers, restarts=1).problems("train", 200)
    lengths = []
    for problem in problems:
        search = read_search(problem, problem.opening)
        legal = set(attempts(tuple(sorted(problem.data["nums"]))))
        texts = ["".join(attempt_text(steps)) for steps in legal]
        assert search.first_hit is None and process_is_right(problem, problem.opening) and not search.filler
        for attempt in search.attempts:
            assert attempt.verdict == "no" and len(attempt.steps) == n_numbers - 1
            assert attempt_text([w.step for w in attempt.steps]) in texts
        assert "".join(problem.opening[a.start : a.end] for a in search.attempts) == problem.opening
        lengths.append(len(search.attempts))
    assert set(lengths) == {1, 2} and abs(statistics.mean(lengths) - 1.5) < 0.12


def test_a_share_of_the_training_problems_restarts_and_the_held_out_ones_start_from_scratch():
    plain = Countdown().problems("train", 2000)
    half, all_of_them = (Countdown(restarts=share).problems("train", 2000) for share in (0.5, 1.0))
    assert [p.id for p in half] == [p.id for p in plain] and not any(p.opening for p in plain)
    assert abs(statistics.mean(bool(p.opening) for p in half) - 0.5) < 0.04
    assert all(a.opening in ("", b.opening) for a, b in zip(half, all_of_them, strict=True))
    assert [p.data["nums"] for p in half] == [p.data["nums"] for p in plain]
    for split in ("validation", "test"):
        assert Countdown(restarts=1).problems(split, 50) == Countdown().problems(split, 50)


def test_restarts_that_a_split_does_not_read_are_named():
    check_split(Countdown(restarts=1), "train")
    check_split(Countdown(restart_held_out=1), "test")
    for settings, split, words in (
        ({"restarts": 0.5}, "test", "restarts is of training problems"),
        ({"restart_bonus": 0.5}, "validation", "restart_bonus is of training problems"),
        ({"restart_held_out": 1}, "train", "restart_held_out is of held-out problems"),
    ):
        with pytest.raises(RlinoError, match=words):
            check_split(Countdown(**settings), split)


def test_held_out_problems_restart_from_as_many_attempts_as_are_set():
    one, two = (Countdown(restart_held_out=k).problems("test", 100) for k in (1, 2))
    for a, b in zip(one, two, strict=True):
        assert a.opening.count(" no\n") == 1 and b.opening.count(" no\n") == 2 and b.opening.startswith(a.opening)
    assert not any(p.opening for p in Countdown(restart_held_out=2).problems("train", 50))


def test_a_prefix_depends_on_the_problem_alone():
    again = make_problem([4, 8, 2], 64)
    assert restarted(PROBLEM).opening == restarted(again).opening != ""
    orders = [{p.id: p.opening for p in Countdown(restarts=0.5, seed=seed).problems("train")} for seed in (0, 1)]
    assert orders[0] == orders[1]


def test_wrong_attempts_are_those_of_chance_that_miss():
    """Each kind as often as among the demonstrator's attempts, given that it misses."""
    rng, n = random.Random(0), 20_000
    nums, target = sorted(PROBLEM.data["nums"]), PROBLEM.data["target"]
    of_chance = [a for _ in range(n) if (a := random_attempt(nums, rng))[-1][3] != target]
    wrong = [wrong_attempt(PROBLEM, rng) for _ in range(n)]
    for kind in {a[-1][3] for a in of_chance}:
        shares = [sum(a[-1][3] == kind for a in sample) / len(sample) for sample in (of_chance, wrong)]
        assert abs(shares[0] - shares[1]) < 0.02


def test_an_attempt_that_misses_exists_where_small_results_all_hit():
    problem = make_problem([1000, 1], 999)  # of 1001, 1000 and 999 the last alone is small
    assert wrong_attempt(problem, random.Random(0))[-1][3] in (1000, 1001)


# --- what is graded and counted --------------------------------------------------------------------------------------


def test_the_bonus_is_for_a_right_answer_after_a_wrong_restart_alone():
    task = Countdown(restart_bonus=0.5)
    for problem, response, reward in (
        (RESTARTED, MISS + HIT + ANSWER, 1.5),
        (RESTARTED, MISS + " </think> <answer> ( 8 - 2 ) * 4 </answer>", 0.0),
        (RESTARTED, MISS, 0.0),
        (PROBLEM, MISS + HIT + ANSWER, 1.0),  # a wrong attempt of its own
    ):
        grade = task.grade(problem, response)
        assert grade.reward == reward and grade.correct == (reward > 0)
    assert Countdown().grade(RESTARTED, MISS + HIT + ANSWER).reward == 1.0


def test_the_bonus_cancels_in_a_standardised_group_and_scales_a_centred_one():
    plain = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    options = {"eps": 0.0}
    torch.testing.assert_close(
        advantages(1.5 * plain, 5, "zscore", **options), advantages(plain, 5, "zscore", **options), rtol=1e-14, atol=0
    )
    torch.testing.assert_close(
        advantages(1.5 * plain, 5, "mean"), 1.5 * advantages(plain, 5, "mean"), rtol=1e-14, atol=1e-16
    )


def test_counts_are_of_the_policys_own_attempts():
    task = Countdown()
    own = task.counts(RESTARTED, MISS + OTHER + HIT + ANSWER)
    assert own == task.counts(PROBLEM, OTHER + HIT + ANSWER)
    assert (own["attempts"], own["first_hit"], own["repeats_order"], own["overlooked"]) == (2, 2, 0, 0)
    again = task.counts(RESTARTED, MISS + MISS + HIT + ANSWER)  # the wrong attempt of the prefix once more
    assert (again["attempts"], again["first_hit"], again["repeats_order"]) == (2, 2, 1)
    assert task.counts(RESTARTED, MISS)["attempts"] == 0 and task.counts(RESTARTED, MISS)["first_hit"] is None
    assert task.counts(RESTARTED, HIT)["first_hit"] == 1  # a text that does not begin with the prefix


def test_a_chain_may_begin_with_a_wrong_prefix_and_is_split_in_the_policys_own_part():
    task = Countdown()
    response = MISS + OTHER + HIT + ANSWER
    assert task.chain_right(RESTARTED, response)
    ends = [len(MISS), len(MISS + OTHER), len(MISS + OTHER + HIT)]
    assert task.step_ends(RESTARTED, response) == ends[:-1]
    assert task.step_ends(PROBLEM, response) == [0, *ends[:-1]]
    assert task.step_ends(RESTARTED, MISS) == [len(MISS)]


def test_the_exact_values_of_a_restart_begin_where_the_policy_does():
    """With the value that the same place has in a response that the policy wrote alone."""
    task, response = Countdown(), MISS + OTHER + HIT + ANSWER
    restart, whole = (dict(task.exact_values(problem, response)) for problem in (RESTARTED, PROBLEM))
    assert min(restart) == len(MISS)
    assert restart == {end: value for end, value in whole.items() if end >= len(MISS)} | {len(MISS): restart[len(MISS)]}
    assert 0 < restart[len(MISS)] == whole[0]  # back at all the numbers


def test_a_restart_goes_on_from_a_thought():
    for setting in ({"restarts": 0.5}, {"restart_held_out": 1}):
        with pytest.raises(RlinoError, match="^countdown: a restart goes on from a thought") as e:
            Countdown(thinking=False, **setting)
        assert "\n" not in str(e.value)
