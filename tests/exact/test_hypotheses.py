"""Elimination of hypotheses: chances by enumeration of every response, and what the two objectives learn."""

import itertools
import math

import pytest
import torch

from rlino_lib.errors import RlinoError
from rlino_lib.exact.hypotheses import ALL, REPEATS, STATES, BeliefPolicy, learn, reached, transitions


def test_chances_are_those_of_all_responses():
    """Six tokens: 729 responses one by one, each with its chance, and where each triple is complete in it."""
    chances = BeliefPolicy(seed=3)(1).detach()
    after, length = transitions(), 6
    expected = torch.zeros(length + 1, len(ALL))
    for response in itertools.product(range(3), repeat=length):
        state, chance = 0, 1.0
        for token in response:
            chance *= chances[state, token].item()
            state = after[state, token].item()
        for place, triple in enumerate(ALL):
            ends = [end for end in range(3, length + 1) if response[end - 3 : end] == triple]
            if ends:
                expected[ends[0] :, place] += chance
    torch.testing.assert_close(reached(chances, ALL, length), expected, atol=1e-6, rtol=1e-5)


def test_a_state_knows_what_was_tried():
    state = 0
    for token in (2, 2, 2, 0, 1, 1, 1):
        state = transitions()[state, token].item()
    assert STATES[state] == (0b110, 1, 1)


def test_even_chances_of_one_triple():
    even = torch.full((len(STATES), 3), 1 / 3)
    assert reached(even, REPEATS, 3)[-1].tolist() == pytest.approx([1 / 27] * 3)


@pytest.mark.parametrize("seed", [0, 1])
def test_only_hypotheses_reach_the_held_out_prompt(seed):
    """Both are right on what they trained on; ordinary RL does worse on the held-out prompt than before training."""
    last = {
        prior: learn(prior, steps=60, seed=seed).groupby("step").get_group(60).set_index("prompt")["right"]
        for prior in ("the truth", "three repeats")
    }
    before = learn("the truth", steps=0, seed=seed).set_index("prompt")["right"]
    assert min(right[prompt] for right in last.values() for prompt in (0, 1)) > 0.95
    assert last["the truth"][2] < min(0.05, before[2]) and last["three repeats"][2] > 0.9


def test_an_episode_costs_no_more_than_its_cap():
    table = learn("all 27 triples", steps=20)
    assert table["tokens"].between(3, 24).all() and table["right"].between(0, 1).all()
    assert set(table["step"]) == {0, 20} and math.isfinite(table["tokens"].sum())


def test_what_cannot_be_learned_is_refused():
    with pytest.raises(RlinoError, match="prior"):
        learn("a guess")
    with pytest.raises(RlinoError, match="none can be right"):
        learn("the truth", length=2)
