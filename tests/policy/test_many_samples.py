"""Many samples of a prompt: rows that have written the same so far are one row of the model, and texts stay the same.

That they do with prefixes, environments and stop strings too is seen in the other tests of sampling, which also run
with rows merged.
"""

import pytest
import torch
from test_rollout import EVEN, random_model

from rlino_lib.policy import decode
from rlino_lib.policy.fused import FusedDecoder
from rlino_lib.policy.models import load_policy
from rlino_lib.policy.sampling import sample
from rlino_lib.tasks import Countdown


@pytest.fixture
def rows_of_steps(monkeypatch):
    """The rows of each fused step on a CPU, as they come."""
    rows = []
    step = FusedDecoder.step

    def counted(self, tokens, *rest):
        rows.append(len(tokens))
        return step(self, tokens, *rest)

    monkeypatch.setattr(FusedDecoder, "step", counted)
    return rows


@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_many_samples_are_the_same_with_rows_merged(temperature, rows_of_steps, monkeypatch):
    policy, task = load_policy(), Countdown(n_numbers=4)
    prompts = [task.prompt(p) for p in task.problems("test", 2)]
    settings = dict(max_new_tokens=60, seed=3, temperature=temperature)
    merged = sample(policy, prompts, decode.MANY, **settings)
    fewer = rows_of_steps.copy()
    rows_of_steps.clear()
    monkeypatch.setattr(decode, "MANY", 10**9)
    alone = sample(policy, prompts, len(merged.ids) // 2, **settings)
    assert torch.equal(merged.ids, alone.ids) and torch.equal(merged.mask, alone.mask)
    assert torch.allclose(merged.logprobs, alone.logprobs, atol=1e-5)
    assert torch.allclose(merged.entropies, alone.entropies, atol=1e-5)
    assert len(fewer) == len(rows_of_steps) and all(a <= b for a, b in zip(fewer, rows_of_steps, strict=True))
    if temperature:  # rows differ soon, and then each is decoded by itself
        assert fewer[0] < 0.5 * rows_of_steps[0] and fewer[-10:] == rows_of_steps[-10:]
    else:
        assert max(fewer) == 2


def test_rows_of_small_groups_are_not_merged(rows_of_steps):
    """As in training, whose numbers then are the same to the last digit whatever merging does."""
    sample(load_policy(), EVEN, decode.MANY - 1, max_new_tokens=3, temperature=0, ignore_eos=True)
    assert rows_of_steps == [2 * (decode.MANY - 1)] * 2


def test_no_more_rows_than_that_at_a_time_of_one_group_too(rows_of_steps):
    policy = random_model(seed=2)
    settings = dict(max_new_tokens=12, seed=3, ignore_eos=True)
    parts = sample(policy, EVEN[:1], 50, max_rows=20, **settings)
    assert rows_of_steps == [20] * 11 + [20] * 11 + [10] * 11
    assert parts.texts == sample(policy, EVEN[:1], 50, **settings).texts
