"""Rewards as rows: weighted sums by name, and a run that is rewarded for length beside the verifier."""

from types import SimpleNamespace

import pytest
import torch

from rlino_lib.errors import RlinoError
from rlino_lib.methods.rewards import judges, reward_of, reward_weights
from rlino_lib.tasks import Problem, get_task

RESPONSES = SimpleNamespace(
    rewards=torch.tensor([1.0, 0.1, 0.0]),
    correct=torch.tensor([True, False, False]),
    lengths=torch.tensor([4, 2, 10]),
    logprobs=torch.tensor([[-0.5, -0.25], [-2.0, 0.0], [-1.0, -3.0]]),
    entropies=torch.tensor([[1.0, 1.0], [0.5, 0.0], [2.0, 3.0]]),
    certainty={"policy": torch.tensor([3.0, 2.0, 1.0]), "base": torch.tensor([1.0, 1.5, 2.0])},
    grades=[SimpleNamespace(value=a, format_ok=a is not None) for a in ("7", None, "7")],
    group_size=3,
)


@pytest.mark.parametrize(
    "reward, expected",
    [
        ("verifier", [1.0, 0.1, 0.0]),
        ("correct", [1.0, 0.0, 0.0]),
        ("length_bonus", [-0.25, -0.5, -0.1]),
        ("log_likelihood", [-0.75, -2.0, -4.0]),
        ("verifier + 0.5*length_bonus", [0.875, -0.15, -0.05]),
        ("2*correct-length_bonus", [2.25, 0.5, 0.1]),
        ("-correct + .5 * correct", [-0.5, 0.0, 0.0]),
        ("negative_entropy", [-0.5, -0.25, -0.5]),
        ("self_certainty", [3.0, 2.0, 1.0]),
        ("base_certainty", [1.0, 1.5, 2.0]),
        ("majority", [1.0, 0.0, 1.0]),
        ("format - self_certainty", [-2.0, -2.0, 0.0]),
    ],
)
def test_a_reward_is_a_weighted_sum_of_rows(reward, expected):
    assert reward_of(reward, RESPONSES).tolist() == pytest.approx(expected)


def test_the_length_bonus_of_the_shortest_responses():
    """A response without tokens counts as one token, and not as infinitely bad."""
    shortest = SimpleNamespace(lengths=torch.tensor([0, 1, 2]))
    assert reward_of("length_bonus", shortest).tolist() == [-1.0, -1.0, -0.5]


@pytest.mark.parametrize(
    "reward", ["", "+", "verifier +", "0.5", "0.5 verifier", "verifier*2", "1e3*verifier", "nan*x"]
)
def test_what_is_no_sum_of_rewards_is_refused(reward):
    with pytest.raises(RlinoError, match="a reward is a sum such as verifier"):
        reward_weights(reward)


def test_an_unknown_reward_is_named():
    with pytest.raises(RlinoError, match="unknown reward 'verifer': one of verifier, correct, length_bonus"):
        reward_weights("verifer + 0.5*length_bonus")


def test_the_majority_is_each_groups_own_and_needs_an_answer():
    def majority(*answers):
        grades = [SimpleNamespace(value=answer) for answer in answers]
        return reward_of("majority", SimpleNamespace(grades=grades, group_size=4)).tolist()

    assert majority("1", "2", "2", None, "1", "1", None, None) == [0, 1, 1, 0, 1, 1, 0, 0]
    assert majority(None, None, None, None) == [0, 0, 0, 0]
    assert majority("3", "4", "4", "3") == [1, 0, 0, 1]  # of two answers as frequent the first


@pytest.mark.parametrize(
    "task, data, answers, expected",
    [
        ("word_problems", {"answer": 5}, ["#### 1,000", "#### 3", "#### 1000.0", "#### 3"], [1, 0, 1, 0]),
        ("gsm8k", {"answer": "5"}, ["#### 1e5", "#### 7", "#### 1e5", "no number", "####"], [0, 1, 0, 0, 0]),
        (
            "countdown", {"nums": [2, 3, 5], "target": 11},
            [f"<answer> {a} </answer>" for a in ("2 * 3 + 5", "(2*3)+5", "2 + 3 + 5", "9 + 9", "9 + 9", "9 + 9")],
            [1, 1, 0, 0, 0, 0],
        ),
        ("clean_room", {"number": 1}, ["good um", "bad er", "bad er er"], [0, 1, 1]),
    ],
)  # fmt: skip
def test_votes_are_of_values_as_the_tasks_grader_reads_them(task, data, answers, expected):
    grades = [get_task(task).grade(Problem("", data), answer) for answer in answers]
    assert reward_of("majority", SimpleNamespace(grades=grades, group_size=len(grades))).tolist() == expected


def test_coins_are_fair_and_torchs_own():
    many = SimpleNamespace(grades=[None] * 10_000)
    torch.manual_seed(1)
    first = reward_of("random", many)
    torch.manual_seed(1)
    assert torch.equal(first, reward_of("random", many)) and set(first.tolist()) == {0.0, 1.0}
    assert abs(first.mean() - 0.5) < 0.02


def test_whose_certainty_is_read():
    assert judges("verifier + 0.1*self_certainty") == ["policy"] and judges("base_certainty") == ["base"]
    assert judges("random + format") == []
