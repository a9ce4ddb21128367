"""Choosing a token, which is the same however tokens are written, and the settings of sampling."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlino_lib.errors import RlinoError
from rlino_lib.policy.sampling import choose, refuse_infinite, sample
from tests.policy.test_rollout import EVEN, random_model


@pytest.mark.parametrize(
    "bad",
    [
        {"group_size": 0}, {"group_size": 2.0}, {"max_new_tokens": 0}, {"max_new_tokens": True}, {"temperature": -1},
        {"temperature": math.nan}, {"temperature": math.inf}, {"top_p": 0}, {"top_p": 1.5}, {"top_p": math.nan},
        {"min_p": 2}, {"min_p": -1}, {"top_k": -1}, {"top_k": 0.5}, {"seed": -1}, {"seed": 2**63}, {"max_rows": 0},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(RlinoError, match=f"^{next(iter(bad))} must be "):
        sample(random_model(), EVEN, **bad)


def test_choose_follows_the_distribution():
    logits = torch.tensor([[2.0, 0.0, -1.0, float("-inf")]]).expand(40_000, -1)
    u = torch.rand(40_000, generator=torch.Generator().manual_seed(0))
    ids, logprobs, entropy = choose(logits, u, 1.0)
    p = logits[0].softmax(-1)
    assert torch.allclose(torch.bincount(ids, minlength=4) / 40_000, p, atol=0.01)
    assert torch.allclose(logprobs, p.log()[ids])
    assert torch.allclose(entropy[0], -(p[:3] * p[:3].log()).sum())


@settings(deadline=None, max_examples=40)
@given(
    logits=st.lists(st.floats(-30, 30), min_size=2, max_size=12),
    u=st.floats(0, 1, exclude_max=True),
    top_p=st.floats(0.05, 1),
    top_k=st.integers(0, 12),
    min_p=st.floats(0, 0.9),
)
def test_choose_stays_inside_top_k_top_p_and_min_p(logits, u, top_p, top_k, min_p):
    row = torch.tensor([logits])
    ids, logprob, _ = choose(row, torch.tensor([u]), 1.0, top_p=top_p, top_k=top_k, min_p=min_p)
    p = row[0].softmax(-1)
    chosen = p[ids[0]]
    likelier = p[p > chosen * (1 + 1e-6)]  # logits that differ by less have the same probability, up to rounding
    assert abs(logprob.item() - p.log()[ids[0]].item()) < 1e-4  # of the whole distribution, not of what was left
    assert chosen >= min_p * p.max() * (1 - 1e-5)
    assert not top_k or len(likelier) < top_k
    assert likelier.sum() < top_p + 1e-5


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_a_large_vocabulary_is_drawn_from_in_two_stages_by_the_same_distribution(temperature):
    entries = 20_001  # not a multiple of the parts
    logits = torch.randn(400, entries, generator=torch.Generator().manual_seed(0)) * 4
    logits[:, 5000:9000] = -torch.inf
    u = torch.rand(400, generator=torch.Generator().manual_seed(1))
    u[:2] = torch.tensor([0.0, 1 - 2**-24])
    ids, logprobs, entropies = choose(logits, u, temperature)
    exact = (logits.double() / temperature).log_softmax(-1)
    total = exact.exp().cumsum(-1)
    above = total.gather(1, ids[:, None])[:, 0]
    assert (u < above + 1e-5).all() and (u > above - exact.exp().gather(1, ids[:, None])[:, 0] - 1e-5).all()
    assert torch.isfinite(logprobs).all()
    assert torch.allclose(logprobs.double(), exact.gather(1, ids[:, None])[:, 0], atol=1e-4)
    assert torch.allclose(entropies.double(), -(exact.exp() * exact.clamp_min(-1e4)).sum(-1), atol=1e-4)
    one_stage = choose(logits, u, temperature, top_p=1 - 1e-7)[0]  # which takes the other way
    assert (one_stage == ids).float().mean() > 0.99


def test_greedy_takes_the_largest():
    logits = torch.randn(5, 7)
    assert torch.equal(choose(logits, torch.rand(5), 0)[0], logits.argmax(-1))


@pytest.mark.parametrize("entries", [5, 20_000])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_one_line(wrong, temperature, entries):
    logits = torch.zeros(2, entries)
    logits[1, 3] = wrong
    with pytest.raises(RlinoError, match="not finite: lower the learning rate"):
        refuse_infinite(choose(logits, torch.tensor([0.2, 0.7]), temperature)[2])


def test_a_logit_of_minus_infinity_is_a_probability_of_zero():
    logits = torch.tensor([[0.0, -torch.inf, 0.0]])
    for u in (0.0, 0.49, 0.51, 0.999):
        ids, logprobs, entropies = choose(logits, torch.tensor([u]), 1.0)
        assert ids.item() in (0, 2) and abs(logprobs.item() + math.log(2)) < 1e-6
        assert abs(entropies.item() - math.log(2)) < 1e-6
