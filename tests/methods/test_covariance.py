"""Tokens of high covariance: which they are, what Clip-Cov and KL-Cov do to them, and entropy by advantage."""

from dataclasses import replace

import pytest
import torch

from rlino_lib.errors import RlinoError
from rlino_lib.methods.catalogue import OBJECTIVES, varied
from rlino_lib.methods.covariance import HIGH, LOW, covariances, covariant_tokens
from rlino_lib.methods.credit import Graded, credit
from rlino_lib.methods.loss import Batch, policy_loss, token_weights

F64 = torch.float64
# Two groups of two, one right in each; log-probs of the sampler.
MASK = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 0]], dtype=torch.bool)
OLD = torch.tensor([[-0.5, -4.0, 0.0], [-1.0, -3.0, -0.1], [-6.0, 0.0, 0.0], [-0.2, -0.4, 0.0]], dtype=F64)
REWARDS = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=F64)
GRADED = Graded(REWARDS, 2, MASK, OLD, max_response_length=8)


def test_covariances_by_hand():
    advantages = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=F64)
    values = covariances(advantages, OLD, MASK)  # of 8 tokens: Â has the mean 0, log π has −15.2/8 = −1.9
    expected = torch.tensor([1.4, -2.1, -0.9, 1.1, -1.8, 4.1, 1.7, 1.5], dtype=F64)
    torch.testing.assert_close(values, expected)
    assert values.mean() == pytest.approx(0.625)  # the covariance itself
    by_token = advantages[:, None].expand(MASK.shape)
    assert torch.equal(covariances(by_token, OLD, MASK), values)


def test_what_is_marked():
    advantages = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=F64)
    highest = covariant_tokens("kl", 0.25, advantages, OLD, MASK)  # 2 of 8: 4.1 and 1.7
    assert highest.nonzero().tolist() == [[2, 0], [3, 0]]
    assert covariant_tokens("kl", 0.0, advantages, OLD, MASK).sum() == 1  # at least one
    eligible = {(0, 0), (1, 1), (2, 0), (3, 0), (3, 1)}  # from 1 to 5
    drawn = [covariant_tokens("clip", 0.25, advantages, OLD, MASK) for _ in range(100)]
    assert all(marks.sum() == 2 for marks in drawn)
    assert {tuple(place) for marks in drawn for place in marks.nonzero().tolist()} == eligible
    narrow = covariant_tokens("clip", 0.25, advantages / 10, OLD, MASK)  # none reaches 1
    assert not narrow.any() and (LOW, HIGH) == (1, 5)
    assert covariant_tokens("kl", 0.5, advantages[:0], OLD[:0], MASK[:0]).shape == (0, 3)


def test_clip_cov_takes_the_credit_of_what_it_draws_and_divides_by_all():
    objective = varied("clip_cov", {"covariant_share": 0.25, "options": {"eps": 0.0}})
    advantages, keep = credit(objective, GRADED)
    assert advantages.shape == MASK.shape and keep.all()
    plain = credit(replace(objective, covariant=None), GRADED).advantages  # [N]
    zero = MASK & (advantages == 0)
    assert zero.sum() == 2
    weights = token_weights(objective, advantages, MASK)
    expected = torch.where(zero, 0, plain[:, None] * MASK / 8)  # a token mean over all 8
    torch.testing.assert_close(weights, expected)


def test_kl_cov_pulls_what_it_holds_back_to_the_sampler():
    objective = varied("kl_cov", {"covariant_share": 0.25})
    advantages = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=F64)
    held = covariant_tokens("kl", 0.25, advantages, OLD, MASK)
    new = (OLD + 0.1 * MASK).requires_grad_()
    policy_loss(objective, Batch(new, advantages, MASK, OLD, covariant=held)).loss.backward()
    ratio = torch.tensor(0.1, dtype=F64).exp()
    expected = -(ratio * advantages[:, None] * MASK - held.to(F64)) / 8
    torch.testing.assert_close(new.grad, expected)
    for off in (0.0, 1e-5, -1e-5):  # at the first update of a batch it has no effect, and none of rounding
        at_start = (OLD + off).requires_grad_()
        policy_loss(objective, Batch(at_start, advantages, MASK, OLD, covariant=held)).loss.backward()
        torch.testing.assert_close(-at_start.grad, token_weights(objective, advantages, MASK), rtol=1e-4, atol=0)


def test_ibro_weighs_entropies_by_advantages():
    objective = OBJECTIVES["ibro"]
    advantages = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=F64)
    entropies = torch.ones(MASK.shape, dtype=F64, requires_grad=True)
    loss = policy_loss(objective, Batch(OLD, advantages, MASK, OLD, entropies=entropies)).loss
    plain = policy_loss(OBJECTIVES["grpo_no_kl"], Batch(OLD, advantages, MASK, OLD)).loss
    loss.backward()
    expected = -0.005 * advantages[:, None] * MASK / MASK.sum(1, keepdim=True) / 4
    torch.testing.assert_close(entropies.grad, expected)
    assert loss.item() == pytest.approx(plain.item(), abs=1e-15)  # Σ Â H of equal entropies is 0


def test_missing_parts_are_named():
    zero = torch.zeros(4, dtype=F64)
    with pytest.raises(RlinoError, match="clip_cov spares tokens of high covariance: give old_logprobs"):
        credit(OBJECTIVES["clip_cov"], replace(GRADED, old_logprobs=None))
    with pytest.raises(RlinoError, match="kl_cov holds tokens of high covariance: give covariant"):
        policy_loss(OBJECTIVES["kl_cov"], Batch(OLD, zero, MASK, OLD))
    with pytest.raises(RlinoError, match="ibro has an entropy bonus: give entropies"):
        policy_loss(OBJECTIVES["ibro"], Batch(OLD, zero, MASK, OLD))
    with pytest.raises(RlinoError, match="nothing in it reads covariant_share"):
        varied("grpo", {"covariant_share": 0.1})
