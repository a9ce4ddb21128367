"""Filtered iterative SFT: its data sets, and its loss as plain cross-entropy."""

import random

import pytest
import torch
import torch.nn.functional as F

from rlino_lib.errors import RlinoError
from rlino_lib.methods.advantages import advantages
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.methods.loss import Batch, policy_loss
from rlino_lib.policy import logprobs
from rlino_lib.policy.logprobs import response_logprobs
from rlino_lib.policy.models import Policy
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.policy.sampling import sample
from rlino_lib.tasks import Grade
from rlino_lib.training import sft
from rlino_lib.training.micro_batches import Limit
from tests.policy.test_rollout import EVEN, UNEVEN, random_model


def graded(policy: Policy, prompts, verdicts) -> Rollouts:
    """Rollouts with verdicts by decree."""
    rollouts = sample(policy, prompts, len(verdicts) // len(prompts), max_new_tokens=12, seed=1)
    rollouts.grades = [Grade(float(v), bool(v), True, None, "by decree") for v in verdicts]
    return rollouts


VERDICTS = [1, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    "variant, weights, expected",
    [
        ("pos", "unit", [1, 0, 0, 0, 1, 1, 1, 1]),
        ("neg", "unit", [0, -1, -1, -1, 0, 0, 0, 0]),
        ("posneg", "unit", [1, -1, -1, -1, 1, 1, 1, 1]),
        ("posneg", "group_balanced", [1, -1 / 3, -1 / 3, -1 / 3, 0, 0, 0, 0]),
        ("pos", "group_balanced", [1, 0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_the_data_set_holds_what_the_variant_says(variant, weights, expected):
    rollouts = graded(random_model(), EVEN, VERDICTS)
    found = [0.0] * 8
    for e in sft.build_dataset(rollouts, variant, weights):
        found[e.row] = e.sign * e.weight
        g = e.row // 4
        assert list(e.prompt_ids) == rollouts.prompt_ids[g][rollouts.prompt_mask[g]].tolist()
        assert list(e.response_ids) == rollouts.ids[e.row][rollouts.mask[e.row]].tolist()
    assert found == pytest.approx(expected)


def test_names_and_grades_are_checked():
    rollouts = graded(random_model(), EVEN, VERDICTS)
    with pytest.raises(RlinoError, match="variants"):
        sft.build_dataset(rollouts, "both")
    rollouts.grades = []
    with pytest.raises(RlinoError, match="grade"):
        sft.build_dataset(rollouts)


def test_the_loss_is_signed_mean_cross_entropy():
    policy = random_model(seed=3)
    dataset = sft.build_dataset(graded(policy, UNEVEN, [1, 0] * 4), "posneg", "unit")
    loss = sft.sft_loss(policy.model, *sft.collate(dataset, 0))
    by_hand = 0.0
    for e in dataset:
        ids = torch.tensor([e.prompt_ids + e.response_ids])
        logits = policy.model(input_ids=ids).logits[0, len(e.prompt_ids) - 1 : -1]
        by_hand += e.sign * e.weight * F.cross_entropy(logits, torch.tensor(e.response_ids)).item()
    assert loss.item() == pytest.approx(by_hand, abs=1e-5)


@pytest.mark.parametrize("tied, temperature", [(False, 1.0), (True, 1.0), (True, 0.6)])
def test_the_loss_of_a_large_vocabulary_is_the_same(tied, temperature, monkeypatch):
    policy = random_model(seed=3, tie_word_embeddings=tied)
    policy.model.double()
    batch = sft.collate(sft.build_dataset(graded(policy, UNEVEN, [1, 0] * 4), "posneg", "unit"), 0)
    found = []
    for large in (logprobs.LARGE, 1):
        monkeypatch.setattr(logprobs, "LARGE", large)
        assert (logprobs.large_head(policy.model) is not None) == (large == 1)
        policy.model.zero_grad()
        loss = sft.sft_loss(policy.model, *batch, temperature)
        loss.backward()
        found.append(torch.cat([loss.detach()[None], *(p.grad.flatten() for p in policy.model.parameters())]))
    assert found[0].dtype == torch.float64 and (found[0] - found[1]).abs().max() <= 1e-12


def test_labels_cover_responses_alone():
    examples = [sft.Example((5, 6, 7), (8, 9), 1, 1.0), sft.Example((5,), (8, 9, 1), -1, 0.5)]
    inputs, labels, weights = sft.collate(examples, 0)
    assert inputs.tolist() == [[5, 6, 7, 8, 9], [5, 8, 9, 1, 0]]
    assert labels.tolist() == [[-100, -100, -100, 8, 9], [-100, 8, 9, 1, -100]]
    assert weights.tolist() == [1.0, -0.5]


def test_minibatches_hold_every_example_once():
    examples = [sft.Example((1,), (i,), 1, 1.0, i) for i in range(10)]
    parts = list(sft.minibatches(examples, 3, random.Random(0)))
    assert sorted(e.row for part in parts for e in part) == list(range(10)) and len(parts) == 3
    assert next(sft.minibatches(examples, 1, random.Random(0))) == examples
    assert list(sft.minibatches([], 2, random.Random(0))) == []


@pytest.mark.parametrize("method", sorted(name for name, o in OBJECTIVES.items() if o.update == "supervised"))
@pytest.mark.parametrize("prompts, t", [(EVEN * 2, 1.0), (UNEVEN, 1.0), (UNEVEN, 0.6)], ids=["even", "padded", "cool"])
def test_supervised_and_policy_gradients_agree(method, prompts, t):
    """The two code bases share no loss; on the same samples their gradients are the same."""
    policy = random_model(seed=5)
    policy.model.double()
    rollouts = graded(policy, prompts, [1, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0])
    params = [p for p in policy.model.parameters() if p.requires_grad]
    dataset = sft.build_dataset(rollouts, *sft.DATASETS[OBJECTIVES[method].advantage])
    sft.accumulate_gradients(policy.model, dataset, 16, 0, Limit(3), t)
    supervised = [p.grad.clone() for p in params]
    policy.model.zero_grad()
    adv = advantages(rollouts.rewards.double(), 4, OBJECTIVES[method].advantage)
    ids, mask = rollouts.sequences()
    positions = (mask.long().cumsum(1) - 1).clamp_min(0)
    logits = policy.model(input_ids=ids, attention_mask=mask, position_ids=positions).logits  # float64 throughout
    s = rollouts.prompt_ids.shape[1]
    new = (logits[:, s - 1 : -1] / t).log_softmax(-1).gather(2, ids[:, s:, None])[:, :, 0]
    policy_loss(OBJECTIVES[method], Batch(new, adv, rollouts.mask)).loss.backward()
    for a, p in zip(supervised, params, strict=True):
        assert (a - p.grad).norm() <= 1e-6 * p.grad.norm() + 1e-12  # sft_loss casts logits to float32


def test_group_balanced_sft_is_grpo_on_one_group():
    """With one group, GRPO's gradient is a positive multiple of balanced F-ISFT⁺⁻'s."""
    policy = random_model(seed=6)
    rollouts = graded(policy, EVEN[:1], [1, 0, 0, 1, 0, 0, 0, 0])
    sft.accumulate_gradients(policy.model, sft.build_dataset(rollouts), 8, 0)
    supervised = torch.cat([p.grad.flatten() for p in policy.model.parameters()])
    policy.model.zero_grad()
    new, mask = response_logprobs(policy.model, rollouts, torch.arange(8))
    policy_loss(OBJECTIVES["grpo_no_kl"], Batch(new, advantages(rollouts.rewards, 8), mask)).loss.backward()
    grpo = torch.cat([p.grad.flatten() for p in policy.model.parameters()])
    assert F.cosine_similarity(supervised, grpo, dim=0) > 1 - 1e-6
    factor = 8 * (7 / 8) ** 0.5 * (0.25 * 0.75) ** 0.5
    assert (grpo.norm() / supervised.norm()).item() == pytest.approx(factor, rel=1e-3)
