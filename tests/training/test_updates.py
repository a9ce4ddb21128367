"""A run by its rows: what it is rewarded for, how its step is made, and an entropy bonus that reaches the weights."""

import sys
from dataclasses import replace

import pytest
import torch

from rlino_lib.errors import RlinoError
from rlino_lib.methods.credit import credit
from rlino_lib.methods.rewards import reward_of
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.run import train
from rlino_lib.training.trainer import Trainer

SMALL = TrainConfig(
    method="grpo_no_kl", steps=1, prompts=6, group_size=4, eval_every=0, micro_batch=8, max_new_tokens=60, guard="warn"
)  # fmt: skip


def test_a_run_is_rewarded_for_length_and_records_the_verifiers_accuracy(tmp_path):
    reward = "verifier + 0.5*length_bonus"
    plain, bonus = (Trainer(replace(SMALL, reward=r)) for r in ("verifier", reward))
    before, rollouts, _ = plain.step()
    after, rewarded, credit = bonus.step()
    assert rewarded.texts == rollouts.texts and torch.equal(rewarded.correct, rollouts.correct)
    assert after["accuracy"] == before["accuracy"] == rollouts.correct.double().mean().item()
    torch.testing.assert_close(rewarded.rewards, reward_of(reward, rollouts))
    assert after["reward"] == pytest.approx(rewarded.rewards.mean().item()) and after["reward"] < before["reward"]
    longest = rewarded.lengths.view(6, 4).argmax(1)  # of a group without a right response the longest earns most
    earned = credit["advantage"].view(6, 4)
    wrong = (~rewarded.correct).view(6, 4).all(1) & (rollouts.rewards.view(6, 4).std(1) == 0)
    assert wrong.any() and (earned.argmax(1) == longest)[wrong].all()
    run = train(replace(SMALL, reward=reward), tmp_path / "run")
    assert run.config["reward"] == reward and "reward" not in plain.record
    assert run.rollouts["reward"].tolist() == pytest.approx(rewarded.rewards[:20].tolist(), rel=1e-4)


def test_a_filter_judges_verdicts_whatever_the_reward_is(monkeypatch):
    """Half the verifier's reward is never above the threshold of 0.5."""
    kept = []
    module = sys.modules["rlino_lib.training.updates.policy_gradient"]  # the package has a function of that name
    monkeypatch.setattr(module, "credit", lambda o, g: kept.append(credit(o, g)) or kept[-1])
    for reward in ("verifier", "0.5*verifier"):
        _, rollouts, _ = Trainer(replace(SMALL, method="raft", reward=reward)).step()
        assert kept[-1].keep.any() and torch.equal(kept[-1].keep, rollouts.correct)


def test_a_task_with_an_environment_trains_on_the_policys_tokens_alone(tmp_path):
    settings = {"calculator": True}
    config = replace(SMALL, steps=2, task_settings=settings, eval_every=2, eval_problems=4, test_samples=1)
    trainer = Trainer(config)
    for rollouts, metrics in ((r, m) for m, r, _ in (trainer.step(), trainer.step())):
        foreign = rollouts.written & ~rollouts.mask
        texts = [trainer.policy.tokenizer.decode(ids[where]) for ids, where in zip(rollouts.ids, foreign, strict=True)]
        assert foreign.any() and "".join(texts).replace(" ", "").isdigit()
        assert (rollouts.logprobs[foreign] == 0).all()
        assert metrics["completions/mean_length"] == rollouts.mask.sum(1).double().mean()
    held_out = trainer._eval_rollouts(trainer.policy)
    assert (held_out.written & ~held_out.mask).any()
    run = train(config, tmp_path / "run")
    assert run.config["task_settings"] == settings
    first = run.rollouts.iloc[0]
    assert first["length"] < len(first["tokens"]) and 0.0 in first["weights"]


def test_an_unknown_reward_and_one_that_is_not_read_stop_before_anything_is_written(tmp_path):
    for changes, words in (
        ({"reward": "verifier + no_such"}, "unknown reward 'no_such'"),
        ({"method": "f_isft_pos", "reward": "correct"}, "f_isft_pos learns what the verifier accepts"),
        ({"method": "f_isft_pos", "task_settings": {"rewards": "format"}}, "learns what the verifier accepts"),
    ):
        with pytest.raises(RlinoError, match=words):
            train(replace(SMALL, **changes), tmp_path / "run")
        assert not (tmp_path / "run").exists()
    other = {"update": "policy_gradient"}
    assert Trainer(replace(SMALL, method="f_isft_pos", reward="correct", objective_settings=other))


def test_the_kind_of_update_is_recorded_where_it_is_chosen(tmp_path):
    chosen = {"update": "policy_gradient"}
    run = train(replace(SMALL, method="f_isft_pos", objective_settings=chosen), tmp_path / "run")
    assert run.config["objective_settings"] == chosen
    (tmp_path / "run" / "summary.json").unlink()
    with pytest.raises(RlinoError, match=r'with objective_settings {"update": "policy_gradient"}, not {}'):
        train(replace(SMALL, method="f_isft_pos"), tmp_path / "run")


def test_kl_cov_at_one_update_a_batch_holds_nothing():
    """The sampler's log-probs differ from the loss's by rounding: a step is what it is without the cost."""
    moved = []
    for cost in (1.0, 0.0):
        settings = {"covariant_share": 0.5, "covariant_cost": cost}
        trainer = Trainer(replace(SMALL, method="kl_cov", objective_settings=settings))
        trainer.step()
        moved.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert torch.equal(*moved)


def test_an_entropy_bonus_raises_the_entropy_of_a_policy():
    """From one base on the same problems: after four steps the policy with the bonus is less certain."""
    entropies = {}
    for bonus in (0.0, 1.0):
        settings = {"entropy_bonus": bonus}
        config = replace(SMALL, method="grpo_entropy", steps=5, lr=1e-3, objective_settings=settings)
        trainer = Trainer(config)
        rows = [trainer.step()[0] for _ in range(5)]
        entropies[bonus] = [row["entropy"] for row in rows]
    assert entropies[1.0][0] == entropies[0.0][0]  # the same samples of the same base
    assert entropies[1.0][-1] > entropies[0.0][-1] + 0.05
