"""Runs on preferences: weights read anew by each update, KTO's z₀, going on after a stop, and what is refused."""

import random
from dataclasses import replace

import pytest
import torch

from rlino_lib.errors import RlinoError
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.methods.preference import PREFERENCES, Preferred, response_weights
from rlino_lib.policy.logprobs import certainty
from rlino_lib.records.runs import COLUMNS, PREFERENCE_COLUMNS
from rlino_lib.training.checks import check_run
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.micro_batches import update_rows
from rlino_lib.training.run import train
from rlino_lib.training.trainer import Trainer
from rlino_lib.training.updates.preference import _part, _preferred, _round
from tests.training.test_credit_updates import goes_on_after_a_stop, weights_of

SMALL = TrainConfig(
    method="iterative_dpo", steps=3, prompts=6, group_size=4, minibatches=2, eval_every=0, micro_batch=8,
    max_new_tokens=60, guard="warn",
)  # fmt: skip
NAMES = ["iterative_dpo", "ipo", "kto"]


@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_the_gradient_of_the_loss_itself(name):
    """Both updates of a step against autograd through log σ and its relatives, by plain SGD."""
    config = replace(SMALL, method=name, optimizer="sgd", momentum=0.0, lr=1e-3, clip_norm=1e9)
    trainer, plain = Trainer(config), Trainer(config)
    start = weights_of(plain.model)
    rollouts = plain.sample(1)
    rng = random.Random(f"minibatches-{config.seed}-1")
    o = plain.objective
    rule = PREFERENCES[o.preference]
    preferred = _preferred(o, rollouts, rng)
    everything = torch.arange(len(rollouts.ids))
    old = plain.all_logprobs(rollouts)
    others = _round(plain, rollouts, rule.paired)
    units = range(len(preferred.chosen) if rule.paired else len(rollouts.ids))
    for some in update_rows(list(units), 1, 2, rng):
        part = _part(preferred, some, rule.paired)
        new = plain.row_logprobs(plain.model, rollouts, everything)[0]
        z0 = 0.0
        if name == "kto":
            moved = plain.all_logprobs(others.others) - others.other_logprobs
            z0 = max((moved * others.others.mask).sum(1)[some].mean().item(), 0.0)
        ratios = ((new - old) * rollouts.mask).sum(1)
        rule.of(ratios, rollouts.lengths, part, o.preference_beta, z0).backward()
        plain.optimizer.step()
        plain.optimizer.zero_grad()
    trainer.step()
    moved = weights_of(plain.model) - start
    assert moved.abs().max() > 1e-6
    torch.testing.assert_close(weights_of(trainer.model) - start, moved, atol=1e-6, rtol=1e-3)


def test_what_is_recorded_is_the_first_updates_weight():
    trainer = Trainer(replace(SMALL, minibatches=1))
    metrics, rollouts, weighting = trainer.step()
    n, pairs = len(rollouts.ids), metrics["pairs"]
    weights = weighting["weights"][rollouts.mask].unique()
    expected = torch.tensor([-0.05 / pairs, 0.0, 0.05 / pairs])  # β/2 over the pairs, the same on every token
    torch.testing.assert_close(weights, expected)
    assert weighting["advantage"].abs().max() == pytest.approx(n * 0.05 / pairs)
    assert metrics["log_ratio/chosen"] == pytest.approx(0, abs=1e-4)  # one update, and it reads them before it


def test_a_second_update_sees_how_far_the_first_one_went():
    trainer = Trainer(replace(SMALL, minibatches=1, epochs=4, lr=3e-4))
    metrics, _, _ = trainer.step()
    assert metrics["log_ratio/chosen"] - metrics["log_ratio/rejected"] > 1


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_was_stopped_goes_on_to_the_same_numbers(name):
    goes_on_after_a_stop(replace(SMALL, method=name))


def test_a_batch_without_pairs_trains_nothing():
    trainer = Trainer(SMALL)
    before = weights_of(trainer.model)
    batch = trainer.sample(1)
    batch.grades = [replace(grade, correct=True, format_ok=True) for grade in batch.grades]
    trainer.sample = lambda step: batch
    metrics, _, weighting = trainer.step()
    assert metrics["pairs"] == 0 and metrics["grad_norm"] == 0 and not weighting["weights"].any()
    assert torch.equal(weights_of(trainer.model), before)


def test_a_run_records_its_pairs(tmp_path):
    run = train(replace(SMALL, steps=2), tmp_path / "run")
    assert list(run.metrics.columns) == COLUMNS + PREFERENCE_COLUMNS
    assert (run.metrics["pairs"] <= 6).all() and run.config["update"] == "preference"


REFUSED = [
    (dict(reward="random"), "a reward needs update=policy_gradient"),
    (dict(objective_settings={"normaliser": "constant"}), "weighs whole responses"),
    (dict(objective_settings={"preference": None}), "a preference is update=preference"),
    (dict(method="grpo", objective_settings={"pairing": "random"}), "nothing in it reads pairing"),
    (dict(method="kto", objective_settings={"pairing": "random"}), "nothing in it reads pairing"),
    (dict(objective_settings={"shortest": 2}), "nothing in it reads shortest"),
    (dict(objective_settings={"filter": "mixed"}), "nothing in it reads filter"),
    (dict(objective_settings={"kl_in_reward": 0.1}), "nothing in it reads kl_in_reward"),
    (dict(method="kto", objective_settings={"beta": 0.1}), "nothing in it reads beta"),
    (dict(task="hidden_target", loss_mask="all"), "loss_mask needs update=policy_gradient"),
    (dict(method="ipo", objective_settings={"kl_in_reward": 0.1}), "nothing in it reads kl_in_reward"),
    (dict(task_settings={"rewards": "format"}), "a reward needs update=policy_gradient"),
    (dict(task_settings={"restarts": 0.5, "restart_bonus": 0.5}), "a reward needs update=policy_gradient"),
    (dict(method="kto", prompts=1), "kto reads responses beside the prompts of others, z₀: set prompts to 2 or more"),
    (dict(method="nft", reward="self_certainty"), "nft reads the share of right responses: its reward is to be 1 or 0"),
    (dict(method="nft", reward="0.5*correct"), "its reward is to be 1 or 0"),
    (dict(method="nft", reward="correct + format"), "its reward is to be 1 or 0"),
    (dict(method="nft", task_settings={"rewards": "format"}), "its reward is to be 1 or 0"),
    (dict(method="nft", objective_settings={"overlong": 0.2}), "off advantage=mean, and no other"),
]


@pytest.mark.parametrize("settings, words", REFUSED, ids=str)
def test_what_does_not_go_together_is_refused(settings, words):
    with pytest.raises(RlinoError, match=words):
        check_run(replace(SMALL, **settings))


def test_rewards_of_1_and_0_are_nfts_too_and_pairs_need_no_second_prompt():
    for reward in ("verifier", "correct", "majority", "format", "random"):
        check_run(replace(SMALL, method="nft", reward=reward))
    check_run(replace(SMALL, prompts=1))


# --- rewards from the model itself -----------------------------------------------------------------------------------


def test_certainty_by_hand_and_by_the_policy():
    half = torch.tensor([0.5, 0.25, 0.25]).log()
    expected = sum(1 / 3 * (torch.tensor(1 / 3) / p).log() for p in (0.5, 0.25, 0.25))
    assert certainty(half).item() == pytest.approx(expected.item(), abs=1e-6)
    assert certainty(torch.zeros(4).log_softmax(0)).item() == pytest.approx(0, abs=1e-6)
    trainer = Trainer(replace(SMALL, method="grpo_no_kl", reward="self_certainty", minibatches=1))
    rollouts = trainer.sample(1)
    assert (rollouts.rewards > 0).all() and torch.equal(rollouts.rewards, rollouts.certainty["policy"])
    assert rollouts.correct.any() and not rollouts.correct.all()  # verdicts stay the verifier's


def test_the_bases_certainty_stays_that_of_the_base():
    config = replace(SMALL, method="grpo_no_kl", reward="base_certainty", minibatches=1, lr=1e-3)
    trainer = Trainer(config)
    assert trainer.reference is not None
    first = trainer.sample(1)
    trainer.step()
    again = trainer.of_distributions(certainty, first, reference=True)
    now = trainer.of_distributions(certainty, first)
    torch.testing.assert_close((again * first.mask).sum(1) / first.lengths, first.certainty["base"])
    assert (now - again)[first.mask].abs().max() > 1e-3


@pytest.mark.parametrize("reward", ["self_certainty", "base_certainty", "negative_entropy", "majority", "random"])
def test_a_rewarded_run_goes_on_to_the_same_numbers(reward):
    goes_on_after_a_stop(replace(SMALL, method="grpo_no_kl", reward=reward))


def test_weights_of_the_rows_are_those_of_their_losses():
    zero, lengths = torch.zeros(2), torch.tensor([3, 4])
    pair = Preferred(torch.tensor([0]), torch.tensor([1]))
    by_hand = {"iterative_dpo": [0.05, -0.05], "ipo": [10 / 3, -2.5], "kto": [0.0125, -0.0125]}
    for name, expected in by_hand.items():
        o = OBJECTIVES[name]
        weights = response_weights(o.preference, zero, lengths, pair, o.preference_beta)
        torch.testing.assert_close(weights, torch.tensor(expected))
