"""Runs whose credit differs by token: where their values come from, how a critic learns, and going on after a stop."""

import json
from dataclasses import replace

import pytest
import torch

from rlino_lib.cli.rehearsal import rehearse
from rlino_lib.errors import RlinoError
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.policy.logprobs import collisions, of_distributions
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.records.runs import COLUMNS, VALUE_COLUMNS
from rlino_lib.tasks import Countdown, get_task
from rlino_lib.tasks.base import Problem
from rlino_lib.training.checks import check_run
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.grid_file import read_grid
from rlino_lib.training.run import train
from rlino_lib.training.trainer import Trainer
from rlino_lib.training.updates.critic import explained_variance
from rlino_lib.training.values import VALUES, explained

SMALL = TrainConfig(
    method="vineppo", steps=3, prompts=3, group_size=4, eval_every=0, micro_batch=8, max_new_tokens=60, guard="warn",
    objective_settings={"value_samples": 2, "beta": 0.0},
)  # fmt: skip
PPO = replace(SMALL, method="ppo", objective_settings={})


def weights_of(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def goes_on_after_a_stop(config):
    """A run of three steps, and one that is loaded anew after two and draws from torch in between: equal numbers."""
    whole, first, second = (Trainer(config) for _ in range(3))
    torch.manual_seed(config.seed)
    expected = [whole.step()[0] for _ in range(3)][-1]
    torch.manual_seed(config.seed)
    first.step()
    first.step()
    state = first.state()
    torch.rand(100)
    second.load_state(state)
    assert second.step()[0] == expected
    assert torch.equal(weights_of(second.model), weights_of(whole.model))


@pytest.mark.parametrize("task, cap", [("countdown", 60), ("word_problems", 64)])
def test_continuations_value_each_steps_start(task, cap):
    trainer = Trainer(replace(SMALL, task=task, max_new_tokens=cap))
    rollouts = trainer.sample(1)
    values, steps, sampled = VALUES["continuations"](trainer, rollouts)
    assert set((values * 2).unique().tolist()) <= {0.0, 1.0, 2.0} and sampled > 0
    groups = values[:, 0].view(3, 4)
    assert (groups == groups[:, :1]).all()  # the prompt is valued once for its group
    for i, (problem, text) in enumerate(rollouts.rows()):
        ends = trainer.task.step_ends(problem, text)
        assert int(steps[i].max()) <= len(ends) and (steps[i].diff() >= 0).all()
        tokens = rollouts.ids[i]
        for k in range(2, int(steps[i].max()) + 1):  # a step begins after a verdict, or a line
            before = tokens[: int((steps[i] < k).sum())]
            assert trainer.policy.tokenizer.decode(before).endswith((" no\n", " yes", "."))
    assert steps.max() >= 3
    again = VALUES["continuations"](trainer, rollouts)
    assert torch.equal(again.values, values)


def test_exact_values_follow_the_tasks_state():
    task = Countdown()
    problem = Problem("p", {"nums": [3, 7, 2], "target": 42})
    response = " 7 - 3 = 4, 4 + 2 = 6 no\n 3 * 7 = 21, 21 * 2 = 42 yes </think> <answer> 3 * 7 * 2 </answer>"
    ends, values = zip(*task.exact_values(problem, response), strict=True)
    assert [response[:end][-4:] for end in ends[1:]] == [" = 4", " = 6", " no\n", "= 21", "= 42", " yes"]
    start, after_wrong, miss, again, half, hit, claimed = values
    assert hit == claimed == 1 and half > start > after_wrong == miss > 0 and again == start
    words = get_task("word_problems")
    problem = words.problems("test", 1)[0]
    lines = problem.gold.splitlines(keepends=True)
    right = words.exact_values(problem, problem.gold)
    assert [value for _, value in right] == [1.0] * len(lines) and right[1][0] == len(lines[0]) - 1
    wrong = words.exact_values(problem, lines[0] + "She has 1 + 1 = 3 pens.\n" + lines[2])
    assert [value for _, value in wrong] == [1.0, 1.0, 0.0, 0.0]
    for hostile in ("", "\n" * 50, " 1 + 1 = 2" * 500, "#### ####\n<think>", "\x00 7 - 3 = 4, no\n no\n"):
        assert words.exact_values(problem, hostile)[0] == (0, 1.0)
        assert task.exact_values(Problem("p", {"nums": [3, 7, 2], "target": 42}), hostile)[0][0] == 0


def test_a_credit_by_steps_adds_up_to_the_reward_less_the_value_of_the_prompt():
    trainer = Trainer(replace(SMALL, objective_settings=SMALL.objective_settings | {"whiten": False}))
    rollouts = trainer.sample(1)
    values, steps, _ = VALUES["continuations"](trainer, rollouts)
    _, _, weighting = trainer.step()  # the same batch and the same continuations
    credit = weighting["weights"] * rollouts.mask.sum()  # [N, T], of a token mean
    for i in range(12):
        by_step = [credit[i][(steps[i] == k) & rollouts.mask[i]][0] for k in range(1, int(steps[i].max()) + 1)]
        expected = rollouts.rewards[i] - values[i, 0]
        assert sum(by_step).item() == pytest.approx(expected.item(), abs=1e-4)


def test_a_critic_reads_what_stands_before_a_token_and_nothing_after_it():
    trainer = Trainer(PPO)
    rollouts = trainer.sample(1)
    torch.nn.init.normal_(trainer.critic.head.weight)
    values = trainer.critic_values(rollouts)  # [N, T]
    t = 0
    ids = rollouts.ids.clone()
    ids[:, t] = ids[:, t].roll(1)
    other = trainer.critic_values(replace(rollouts, ids=ids))
    torch.testing.assert_close(other[:, : t + 1], values[:, : t + 1], atol=1e-5, rtol=0)
    changed = (ids[:, t] != rollouts.ids[:, t]) & rollouts.written[:, t + 1]
    assert changed.any() and ((other - values)[changed, t + 1].abs() > 1e-4).all()
    assert values[:, 0].view(3, 4).std(1).max() < 1e-5  # before the first token all of a group stand in one state


@pytest.mark.parametrize("trunk", ["copy", "policy"])
def test_a_critic_learns_on_its_own_and_the_policy_waits_for_it(trunk):
    trainer = Trainer(replace(PPO, critic_warmup=2, critic_trunk=trunk, critic_lr=1e-3, critic_epochs=2))
    before, untrained = weights_of(trainer.model), weights_of(trainer.critic)
    losses = []
    for _ in range(2):
        metrics, _, weighting = trainer.step()
        losses.append(metrics["critic/loss"])
        assert not weighting["weights"].any() and metrics["grad_norm"] == 0
    assert torch.equal(weights_of(trainer.model), before) and not torch.equal(weights_of(trainer.critic), untrained)
    shapes = {name for name, _ in trainer.critic.named_parameters()}
    assert (shapes == {"head.weight", "head.bias"}) == (trunk == "policy")
    metrics, _, weighting = trainer.step()
    assert weighting["weights"].any() and not torch.equal(weights_of(trainer.model), before)
    assert metrics["critic/explained_variance"] <= 1 and metrics["value_tokens"] == 0


def test_a_critic_fits_what_it_is_shown():
    trainer = Trainer(replace(PPO, steps=9, critic_warmup=9, critic_lr=3e-3, critic_epochs=40))
    batch = trainer.sample(1)
    trainer.sample = lambda step: batch
    first, second = (trainer.step()[0] for _ in range(2))
    assert second["critic/explained_variance"] > 0.5 > first["critic/explained_variance"]


@pytest.mark.parametrize("shaping", [{"length_cost": 0.5}, {"overlong": 0.9}, {"kl_in_reward": 0.1}], ids=str)
def test_a_critic_learns_the_rewards_that_the_policy_is_credited_with(shaping):
    config = replace(PPO, objective_settings={"whiten": False, "lam": 1.0, "critic_lam": 1.0} | shaping)
    trainer = Trainer(config)
    torch.nn.init.normal_(trainer.model.lm_head.weight, std=0.3)  # away from the reference
    rollouts = trainer.sample(1)
    trainer.sample = lambda step: rollouts
    learned = []
    trainer.update_critic = lambda backward, rollouts: learned.append(backward.args[3]) or 0.0
    values = trainer.critic_values(rollouts)  # [N, T]
    _, _, weighting = trainer.step()
    advantages = weighting["weights"] * rollouts.mask.sum()  # [N, T], of a token mean
    (returns,) = learned  # [N, T]
    inside = rollouts.mask
    assert ((returns - rollouts.rewards[:, None])[inside].abs() > 1e-3).any()
    torch.testing.assert_close((advantages + values)[inside], returns[inside], atol=1e-5, rtol=1e-4)


def test_explained_variance_by_hand():
    returns, mask = torch.tensor([[1.0, 0.0, 9.0]]), torch.tensor([[True, True, False]])
    assert explained_variance(torch.tensor([[1.0, 0.0, 0.0]]), returns, mask) == 1
    assert explained_variance(torch.tensor([[0.5, 0.5, 0.0]]), returns, mask) == 0
    assert explained_variance(torch.tensor([[0.0, 1.0, 0.0]]), returns, mask) == -3
    assert explained_variance(torch.zeros(1, 3), torch.ones(1, 3), mask) is None


@pytest.mark.parametrize("config", [PPO, SMALL, replace(SMALL, method="optimal_baseline", objective_settings={})])
def test_a_run_that_was_stopped_goes_on_to_the_same_numbers(config):
    goes_on_after_a_stop(replace(config, critic_warmup=1 if config is PPO else 0))


def test_a_run_records_what_its_values_took(tmp_path):
    run = train(replace(SMALL, steps=2), tmp_path / "vine")
    assert list(run.metrics.columns) == COLUMNS + VALUE_COLUMNS and (run.metrics["value_tokens"] > 0).all()
    plain = train(replace(SMALL, steps=1, method="rloo", objective_settings={}), tmp_path / "plain")
    assert list(plain.metrics.columns) == COLUMNS and "critic_lr" not in plain.config


def test_collisions_are_those_of_the_whole_distribution():
    trainer = Trainer(replace(SMALL, temperature=0.7))
    rollouts: Rollouts = trainer.sample(1)
    rows = torch.arange(4)
    ours = of_distributions(collisions, trainer.model, rollouts, rows, 0.7)  # [4, T']
    ids, attention = rollouts.sequences()
    s = rollouts.prompt_ids.shape[1]
    positions = (attention[rows].long().cumsum(1) - 1).clamp_min(0)
    logits = trainer.model(ids[rows], attention_mask=attention[rows], position_ids=positions).logits
    plain = (logits[:, s - 1 : -1].detach() / 0.7).softmax(-1).square().sum(-1)[:, : ours.shape[1]]
    where = rollouts.mask[rows, : ours.shape[1]]
    torch.testing.assert_close(ours[where], plain[where], atol=1e-5, rtol=1e-4)


REFUSED = [
    (dict(method="vineppo", task="clean_room"), "draws a lot"),
    (dict(method="spo_chain", task="hidden_target"), "draws a lot"),
    (dict(method="step_verifier", task="hidden_target"), "draws a lot"),
    (dict(method="vineppo", reward="verifier + 0.5*length_bonus"), "values of right answers alone"),
    (dict(method="vineppo", task_settings={"rewards": "format"}), "values of right answers alone"),
    (dict(method="vineppo", objective_settings={"length_cost": 0.1}), "values of right answers alone"),
    (dict(method="step_verifier", task_settings={"restarts": 1.0, "restart_bonus": 0.5}), "values of right answers"),
    (dict(method="dr_grpo", task_settings={"restart_bonus": 0.5}), "set restarts too"),
    (dict(method="grpo", critic_lr=1e-3), "has no critic: leave critic_lr out"),
    (dict(method="vineppo", critic_warmup=1), "has no critic: leave critic_warmup out"),
    (dict(method="ppo", critic_warmup=4), "at most the run's 3 steps, not 4"),
    (dict(method="grpo", objective_settings={"lam": 0.5}), "nothing in it reads lam"),
    (dict(method="ppo", objective_settings={"value_samples": 3}), "nothing in it reads value_samples"),
    (dict(method="vineppo", objective_settings={"value_clip": 0.1}), "nothing in it reads value_clip"),
    (dict(method="vineppo", objective_settings={"value_samples": 10**6 + 1}), "value_samples must be"),
    (dict(method="grpo_no_kl", task_settings={"restarts": 1.0}, max_new_tokens=20), "fill the cap of 20"),
    (dict(method="grpo_no_kl", task_settings={"restart_held_out": 2}, max_new_tokens=20, eval_every=1), "fill the cap"),
]


@pytest.mark.parametrize("settings, words", REFUSED, ids=str)
def test_what_does_not_go_together_is_refused_before_anything_is_written(settings, words, tmp_path):
    with pytest.raises(RlinoError, match=words) as e:
        train(replace(SMALL, **{"objective_settings": {}} | settings), tmp_path / "run")
    assert "\n" not in str(e.value) and not (tmp_path / "run").exists()


def test_a_task_without_steps_or_exact_values_is_named():
    for method, words in (("vineppo", "has no steps"), ("step_verifier", "no exact values")):
        with pytest.raises(RlinoError, match=words):
            check_run(TrainConfig(method=method, task="gsm8k", model="any"))
    check_run(TrainConfig(method="spo_chain", task="gsm8k", model="any"))


def test_what_a_run_refuses_a_grid_and_a_rehearsal_refuse_too(tmp_path):
    settings = {"method": "grpo", "critic_lr": 1e-3}
    (tmp_path / "grid.json").write_text(json.dumps({"base": {}, "seeds": [0], "runs": [{"name": "a", **settings}]}))
    with pytest.raises(RlinoError, match="run a.*: grpo has no critic"):
        read_grid(tmp_path / "grid.json")
    with pytest.raises(RlinoError, match="grpo has no critic"):
        rehearse(TrainConfig(**settings))


def test_values_are_explained_by_what_the_trainer_has():
    trainer = Trainer(SMALL)
    rollouts = trainer.sample(1)
    with pytest.raises(RlinoError, match="reads a critic, and vineppo trains none"):
        explained(trainer, rollouts, {"critic": OBJECTIVES["ppo"]})
    (row, *_) = explained(trainer, rollouts, {"exact": OBJECTIVES["step_verifier"]})
    assert list(row["credits"]) == ["exact"] and not any(row["foreign"])


def test_what_somebody_else_wrote_is_explained_without_credit():
    """An opening of wrong attempts is part of the response that is graded, and no credit is given for it."""
    trainer = Trainer(TrainConfig(task_settings={"restarts": 1.0}, prompts=2, group_size=2, device="cpu"))
    rollouts = trainer.sample(1)
    for k, row in enumerate(explained(trainer, rollouts, {"uniform": OBJECTIVES["dr_grpo"]})):
        opening = rollouts.problems[k // 2].opening
        foreign = sum(row["foreign"])
        assert opening and "".join(row["tokens"]).startswith(opening) and "".join(row["tokens"][:foreign]) == opening
        credits = row["credits"]["uniform"]
        assert credits[:foreign] == [None] * foreign and None not in credits[foreign:]
        assert len(credits) == len(row["tokens"]) == len(row["foreign"])
