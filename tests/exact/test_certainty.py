"""Rewards of a model's own: what they order differently, and that each ends on one action, right or wrong."""

import itertools

import numpy as np
import pytest
import torch

from rlino_lib.errors import RlinoError
from rlino_lib.exact.certainty import CLIMBED, Response, ascend, disagreements, own_rewards
from rlino_lib.methods.rewards import REWARDS

START = (0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05)


def test_every_two_rewards_disagree_on_some_pair():
    table = disagreements()
    names = table.columns[2:].tolist()
    assert set(names) <= set(REWARDS)
    first, second = (table[table["response"] == place].set_index("example")[names] for place in ("first", "second"))
    prefers = np.sign(first - second)  # [examples, 3]
    for one, other in itertools.combinations(names, 2):
        assert (prefers[one] * prefers[other] < 0).any(), (one, other)


def test_rewards_by_hand():
    rewards = own_rewards(Response([(0.5, 0.5), (0.25, 0.75)], [0, 1]))
    half, quarter, rest = (np.log(p) for p in (0.5, 0.25, 0.75))
    assert rewards["log_likelihood"] == pytest.approx(half + rest)
    assert rewards["negative_entropy"] == pytest.approx((half + 0.25 * quarter + 0.75 * rest) / 2)
    assert rewards["self_certainty"] == pytest.approx((-half - (quarter + rest) / 2) / 2 - np.log(2))


def test_near_uniform_certainty_and_entropy_agree_to_second_order():
    """KL(U ‖ π) less log V − H is of third order: half the step leaves an eighth."""
    tilt = torch.tensor([2.0, -1, -1, 0], dtype=torch.float64)
    gaps = []
    for size in (0.01, 0.005):
        rewards = own_rewards(Response([(0.25 * (1 + size * tilt)).tolist()], [0]))
        gaps.append(rewards["self_certainty"] - (np.log(4) + rewards["negative_entropy"]))
    assert gaps[0] / gaps[1] == pytest.approx(8, rel=0.05)


def test_a_likelihood_that_rewards_its_own_draws_is_the_negative_entropy():
    one, other = (ascend(reward, START, 1, steps=50) for reward in ("log_likelihood", "negative_entropy"))
    assert np.allclose(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("reward", CLIMBED)
def test_each_ends_on_one_action_whether_right_or_wrong(reward):
    """The start's most likely action takes all, so the right one wins where it is that; the truth finds it anywhere."""
    from_right, from_wrong = (ascend(reward, START, right).iloc[-1] for right in (0, 1))
    assert from_right["top"] > 0.99 and from_wrong["top"] > 0.99
    assert from_right["right"] > 0.99
    assert from_wrong["right"] > 0.99 if reward == "truth" else from_wrong["right"] < 0.01


@pytest.mark.parametrize("reward", ["self_certainty", "negative_entropy", "log_likelihood"])
def test_nothing_moves_from_uniform(reward):
    table = ascend(reward, (0.125,) * 8, 3, steps=20)
    assert np.allclose(table["right"], 0.125)


def test_what_is_no_distribution_is_refused():
    for bad in (Response([(0.5, 0.6)], [0]), Response([(1.0, 0.0)], [0]), Response([(0.5, 0.5)], [0, 1])):
        with pytest.raises(RlinoError, match="add up to 1"):
            own_rewards(bad)
    with pytest.raises(RlinoError, match="reward"):
        ascend("a hunch", START, 0)
