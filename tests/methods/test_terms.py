"""The tables of the loss: every choice has its formula, and the entropy bonus its gradient and its effect."""

import math
from dataclasses import replace

import pytest
import torch

from rlino_lib.errors import RlinoError
from rlino_lib.exact.identities import nft_loss
from rlino_lib.methods.advantages import ADVANTAGES, FILTERS, advantages
from rlino_lib.methods.catalogue import OBJECTIVES, varied
from rlino_lib.methods.loss import Batch, policy_loss, token_weights
from rlino_lib.methods.objective import KINDS, Objective
from rlino_lib.methods.rewards import REWARDS
from rlino_lib.methods.terms import ESTIMATORS, NORMALISERS
from rlino_lib.policy.logprobs import response_logprobs
from rlino_lib.policy.sampling import sample
from rlino_lib.training import sft
from rlino_lib.training.updates import UPDATES
from tests.policy.test_rollout import UNEVEN, random_model

F64 = torch.float64


def test_every_choice_has_a_formula():
    for table in (ADVANTAGES, FILTERS, REWARDS, ESTIMATORS, NORMALISERS):
        assert all(choice.formula for choice in table.values())
        assert len({choice.formula for choice in table.values()}) == len(table)


def test_a_normaliser_that_knows_lengths_weighs_tokens_by_them():
    mask = torch.arange(6) < torch.tensor([[2], [6]])  # [N, T]
    for name, normaliser in NORMALISERS.items():
        weights = {}
        for short in (2, 3):
            mask[0] = torch.arange(6) < short
            objective = Objective("o", normaliser=name)
            weights[short] = token_weights(objective, torch.ones(2, dtype=F64), mask, 6)[0, 0].item()
        assert (weights[2] != weights[3]) == normaliser.knows_length


# --- kinds of update -------------------------------------------------------------------------------------------------


def test_each_kind_of_update_has_a_function_and_each_rule_of_a_data_set_a_data_set():
    assert tuple(UPDATES) == KINDS
    supervised = {o.advantage for o in OBJECTIVES.values() if o.kind == "supervised"}
    assert supervised == set(sft.DATASETS)
    assert {name for name, o in OBJECTIVES.items() if o.kind == "supervised"} == {
        "f_isft_pos", "f_isft_neg", "f_isft_posneg", "f_isft_posneg_unit"
    }  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"normaliser": "constant"}, {"ratio": "token"}, {"beta": 0.1}, {"length_cost": 0.1}, {"filter": "mixed"},
        {"shortest": 2}, {"options": {"threshold": 0.2}}, {"entropy_bonus": 0.1}, {"advantage": "mean"},
        {"update": "policy_gradient"},
    ],
    ids=str,
)  # fmt: skip
def test_what_supervised_learning_cannot_express_is_a_policy_gradient(changes):
    assert varied("f_isft_pos", changes).kind == "policy_gradient"
    if "update" not in changes:
        with pytest.raises(RlinoError, match="an update by supervised cannot"):
            varied("f_isft_pos", changes | {"update": "supervised"})


def test_what_changes_nothing_stays_supervised():
    for changes in ({}, {"normaliser": "per_response"}, {"clip_low": None}, {"advantage": "signed"}):
        assert varied("f_isft_pos", changes).kind == "supervised"
    with pytest.raises(RlinoError, match="an update by supervised cannot"):
        varied("grpo", {"update": "supervised"})


# --- the entropy bonus -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_the_bonus_is_a_mean_of_entropies_like_that_of_the_gain(normaliser):
    mask = torch.arange(5) < torch.tensor([[2], [5]])  # [N, T]
    new = torch.full((2, 5), -1.0, dtype=F64)
    entropies = torch.where(mask, torch.rand(2, 5, dtype=F64), math.nan).requires_grad_()
    objective = Objective("o", normaliser=normaliser, entropy_bonus=0.3)
    found = policy_loss(objective, Batch(new, torch.zeros(2), mask, max_response_length=7, entropies=entropies))
    weights = token_weights(replace(objective, advantage="mean"), torch.ones(2, dtype=F64), mask, 7)  # [N, T]
    assert found.loss.item() == pytest.approx(-0.3 * (weights * entropies.nan_to_num()).sum().item(), rel=1e-12)
    (gradient,) = torch.autograd.grad(found.loss, entropies)
    assert torch.allclose(gradient, -0.3 * weights, rtol=1e-12) and (gradient[~mask] == 0).all()
    assert found.metrics["entropy"] == pytest.approx(entropies[mask].mean().item(), rel=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_gradient_of_scored_entropies_is_that_of_the_whole_distribution(temperature):
    """Against the entropies of `torch.distributions` from all logits, in float64."""
    policy = random_model(seed=4)
    model = policy.model.double()
    rollouts = sample(policy, UNEVEN, 2, max_new_tokens=6, seed=1)
    rows = torch.arange(len(rollouts.ids))
    ids, mask = rollouts.sequences()
    positions = (mask.long().cumsum(1) - 1).clamp_min(0)
    start = rollouts.prompt_ids.shape[1]

    def by_hand():
        logits = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, start - 1 : -1]
        return torch.distributions.Categorical(logits=logits / temperature).entropy()  # [N, T]

    logprobs, inside, entropies = response_logprobs(model, rollouts, rows, temperature, entropies=True)
    torch.testing.assert_close(entropies[inside], by_hand()[inside])
    assert torch.equal(logprobs, response_logprobs(model, rollouts, rows, temperature)[0])
    objective = replace(OBJECTIVES["grpo_entropy"], entropy_bonus=0.5)
    advantages = torch.zeros(len(rows), dtype=F64)
    batch = Batch(logprobs, advantages, inside, entropies=entropies)
    parameters = list(model.parameters())
    gradient = torch.autograd.grad(policy_loss(objective, batch).loss, parameters)
    expected = torch.autograd.grad(-0.5 * ((by_hand() * inside).sum(1) / inside.sum(1)).mean(), parameters)
    for found, by_distribution in zip(gradient, expected, strict=True):
        assert found.any() and (found - by_distribution).norm() <= 1e-9 * by_distribution.norm()


def test_the_bonus_raises_the_entropy_of_a_bandit():
    """Two arms, of which one is right: under the bonus the policy stops short of certainty, at the logit a / η."""
    ends = {}
    for bonus in (0.0, 0.5):
        logit = torch.zeros((), dtype=F64, requires_grad=True)
        objective = Objective("bandit", ratio="none", clip_low=None, clip_high=None, entropy_bonus=bonus)
        for _ in range(400):
            logprobs = torch.stack([logit, 0 * logit]).log_softmax(0)  # [2]
            entropy = -(logprobs.exp() * logprobs).sum()
            # Both arms, each weighed by its chance and its advantage: the expected step.
            earned = logprobs.detach().exp() * torch.tensor([1.0, 0.0], dtype=F64) * 2
            batch = Batch(logprobs[:, None], earned, torch.ones(2, 1), entropies=entropy.expand(2, 1))
            (gradient,) = torch.autograd.grad(policy_loss(objective, batch).loss, logit)
            with torch.no_grad():
                logit -= gradient
        ends[bonus] = entropy.item(), logit.item()
    assert ends[0.0][0] < 0.05 < ends[0.5][0]
    assert ends[0.5][1] == pytest.approx(2.0, rel=1e-3)  # π* ∝ exp(r / η)


# --- NFT -------------------------------------------------------------------------------------------------------------


def test_nft_is_its_papers_loss_where_its_bound_does_not_act():
    """Responses whose wrong ones have become less likely: ω = 1 − r of `nft_loss`, times |o|/L for the normaliser."""
    mask = torch.ones(4, 3, dtype=torch.bool)
    right = torch.tensor([True, False, False, False])
    old = torch.full((4, 3), -1.0, dtype=F64)
    new = (old + torch.tensor([0.3, -0.1, -0.2, -0.4])[:, None]).requires_grad_()
    ours = policy_loss(OBJECTIVES["nft"], Batch(new, advantages(right.to(F64), 4, "mean"), mask, old, None, 3)).loss
    paper = nft_loss(new, old, mask, right, 4, lambda r: 1 - r)
    torch.testing.assert_close(*(torch.autograd.grad(loss, new)[0] for loss in (ours, paper)))
    assert ours.item() == pytest.approx(paper.item(), abs=1e-12)


def test_nft_bounds_the_push_on_a_wrong_token_that_grew():
    """r = 1/2 and ρ = 3/2: π⁻/π_old = 1/2 counts as 1, and the gradient is −r ρ, not −r ρ / (1/2)."""
    new = torch.tensor([[1.5], [1.5]], dtype=F64).log().requires_grad_()
    credit = torch.tensor([0.5, -0.5], dtype=F64)
    ones = torch.ones(2, 1, dtype=torch.bool)
    loss = policy_loss(OBJECTIVES["nft"], Batch(new, credit, ones, torch.zeros(2, 1, dtype=F64), None, 1))
    (grad,) = torch.autograd.grad(loss.loss, new)
    torch.testing.assert_close(grad[:, 0], torch.tensor([-0.25, 0.375], dtype=F64))
    assert loss.metrics["clip_ratio"] == 0.5


def test_nft_reads_the_share_right_off_its_own_advantage():
    with pytest.raises(RlinoError, match="advantage=mean"):
        replace(OBJECTIVES["nft"], advantage="zscore")
