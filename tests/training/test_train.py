"""The training loop on the shipped base: every method, records, guard rails, and a SIGKILL that leaves no trace."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from rlino_lib.errors import RlinoError
from rlino_lib.methods.catalogue import OBJECTIVES, varied
from rlino_lib.methods.credit import Graded, credit
from rlino_lib.policy import logprobs
from rlino_lib.policy.logprobs import response_logprobs
from rlino_lib.policy.models import load_policy
from rlino_lib.policy.sampling import sample
from rlino_lib.records.runs import Run
from rlino_lib.training import guard_rails, memory
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.guard_rails import PATIENCE, Guards, needs_contrast
from rlino_lib.training.run import train
from rlino_lib.training.trainer import Trainer, batch_of_problems

SMALL = dict(steps=3, prompts=6, group_size=4, eval_every=2, eval_problems=8, micro_batch=8, max_new_tokens=80)


@pytest.mark.parametrize("method", sorted(OBJECTIVES))
def test_every_method_trains_and_records(method, tmp_path):
    base = torch.cat([p.flatten() for p in load_policy().model.parameters()])
    trainer = Trainer(TrainConfig(method=method, **SMALL))
    while not (moved := trainer.step())[2]["advantage"].any():  # a step on which there is something to learn
        pass
    weights, mask = moved[2]["weights"], moved[1].mask
    assert weights.shape == mask.shape and (weights[~mask] == 0).all() and weights.any()
    after = torch.cat([p.flatten() for p in trainer.model.parameters()])
    assert not torch.equal(base, after)

    run = train(TrainConfig(method=method, **SMALL), tmp_path / "run")
    assert run.complete and run.method == method
    assert run.metrics["step"].tolist() == [0, 1, 2, 3]
    assert run.metrics["eval/accuracy"].notna().tolist() == [True, False, True, True]
    assert run.metrics["kl"].notna().any() == OBJECTIVES[method].needs_reference
    rows = run.rollouts
    assert set(rows["step"]) == {1, 2, 3} and len(rows) == 3 * 5 * 4
    assert all(len(w) == n == len(t) for w, n, t in zip(rows["weights"], rows["length"], rows["tokens"], strict=True))
    assert rows["response"][0] == "".join(rows["tokens"][0]).replace("<|endoftext|>", "")
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_micro_batch_size_does_not_change_a_step():
    found = []
    for size in (3, 64):
        trainer = Trainer(TrainConfig(method="grpo", **(SMALL | {"micro_batch": size})))
        trainer.step()
        trainer.step()
        found.append(torch.cat([p.flatten() for p in trainer.model.parameters()]))
    assert torch.allclose(found[0], found[1], atol=1e-5)


@pytest.mark.parametrize("rank", [0, 4], ids=["full", "lora"])
def test_a_saved_model_is_the_trained_policy(rank, tmp_path):
    config = TrainConfig(method="grpo_no_kl", lora_rank=rank, **(SMALL | {"lr": 1e-2}))
    train(config, tmp_path / "run", save=True)
    saved, base = load_policy(tmp_path / "run" / "model"), load_policy()
    prompts = ["Numbers 3 7 19 target 64 <think>"]
    trainer = Trainer(config)
    for _ in range(config.steps):
        trainer.step()
    trained, again, before = (sample(p, prompts, 4, seed=1) for p in (trainer.policy, saved, base))
    assert again.texts == trained.texts
    assert torch.allclose(again.logprobs, trained.logprobs, atol=1e-4)
    assert not torch.allclose(again.logprobs[:, :5], before.logprobs[:, :5], atol=1e-2)
    train(config, tmp_path / "run", save=True)  # complete, and has its model
    (tmp_path / "run" / "model").rename(tmp_path / "elsewhere")
    with pytest.raises(RlinoError, match="without its model"):
        train(config, tmp_path / "run", save=True)


def test_lora_trains_adapters_alone_and_keeps_its_reference():
    trainer = Trainer(TrainConfig(method="grpo", lora_rank=4, **(SMALL | {"lr": 1e-2})))
    for _ in range(2):
        metrics, _, _ = trainer.step()
    assert metrics["kl"] > 0  # the adapters moved, and the reference did not
    base = load_policy().model.state_dict()
    for name, p in trainer.model.get_base_model().named_parameters():
        if "lora" not in name:
            assert torch.equal(p, base[name.replace(".base_layer", "")])


@pytest.mark.parametrize("rank", [0, 4], ids=["full", "lora"])
def test_evaluations_measure_what_became_of_the_base(rank):
    trainer = Trainer(TrainConfig(method="f_isft_pos", lora_rank=rank, eval_base=1, **(SMALL | {"lr": 1e-2})))
    own, before = trainer.base_rollouts, trainer.evaluate()
    assert abs(before["eval/kl_base"]) < 1e-3  # nats a response: the policy is the base
    for name, rows in (("correct", own.correct), ("incorrect", ~own.correct)):
        told = (own.logprobs * own.mask).sum(1)[rows].mean().item()
        assert before[f"eval/base/{name}"] == pytest.approx(told, abs=1e-3)
    for _ in range(3):
        trainer.step()
    after = trainer.evaluate()
    assert after["eval/kl_base"] > 0.1 and torch.equal(trainer.base_rollouts.ids, own.ids)
    assert after["eval/base/incorrect"] != pytest.approx(before["eval/base/incorrect"], abs=0.1)
    with torch.inference_mode():  # the KL is that of the sampled responses, under the two models
        rollouts, base = trainer._eval_rollouts(trainer.policy), load_policy().model
        rows = torch.arange(len(rollouts.ids))
        gaps = [response_logprobs(m, rollouts, rows)[0] for m in (trainer.model, base)]
        told = ((gaps[0] - gaps[1]) * rollouts.mask[:, : gaps[0].shape[1]]).sum(1).mean()
    assert after["eval/kl_base"] == pytest.approx(told.item(), abs=1e-3)


def test_settings_of_the_objective_change_the_update_and_only_they():
    def weights(**settings):
        trainer = Trainer(TrainConfig(**(SMALL | {"eval_every": 0}), **settings))
        while not (found := trainer.step())[2]["weights"].any():
            pass
        return found[1], found[2]["weights"], trainer

    rollouts, plain, _ = weights(method="f_isft_pos")
    _, same, trainer = weights(method="f_isft_pos", objective_settings={"normaliser": "per_response"})
    assert torch.allclose(plain, same) and trainer.objective == OBJECTIVES["f_isft_pos"]
    _, constant, trainer = weights(method="f_isft_pos", objective_settings={"normaliser": "constant"})
    length = rollouts.lengths[:, None]  # [N, 1]
    assert torch.allclose(constant, plain * length / SMALL["max_new_tokens"]) and not torch.allclose(constant, plain)
    _, mean, _ = weights(method="f_isft_pos", objective_settings={"normaliser": "token_mean"})
    assert torch.allclose(mean, plain * length * len(length) / length.sum())
    with pytest.raises(RlinoError, match="no setting 'lenght_cost'"):
        Trainer(TrainConfig(method="grpo", objective_settings={"lenght_cost": 1.0}))
    with pytest.raises(RlinoError, match="must be one of per_response"):
        Trainer(TrainConfig(method="grpo", objective_settings={"normaliser": "none"}))
    with pytest.raises(RlinoError, match="shortest must be a whole number"):
        Trainer(TrainConfig(method="grpo", objective_settings={"shortest": "two"}))


def test_a_literal_update_and_its_objective_make_the_same_step():
    """Supervised learning in so many words, and the objective that `objective_settings` turns it into."""
    found = []
    for settings in ({}, {"update": "policy_gradient"}):
        config = TrainConfig(method="f_isft_posneg", objective_settings=settings, **(SMALL | {"eval_every": 0}))
        trainer = Trainer(config)
        for _ in range(2):
            trainer.step()
        found.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert torch.allclose(*found, atol=2e-5)


def test_a_default_setting_that_older_runs_did_not_know_is_not_recorded(tmp_path):
    run = train(TrainConfig(**(SMALL | {"steps": 1, "eval_every": 0})), tmp_path / "a")
    assert "objective_settings" not in run.config
    changed = {"objective_settings": {"length_cost": 0.1}}
    other = train(TrainConfig(**(SMALL | {"steps": 1, "eval_every": 0}), **changed), tmp_path / "b")
    assert other.config["objective_settings"] == {"length_cost": 0.1}
    (tmp_path / "b" / "summary.json").unlink()
    with pytest.raises(RlinoError, match=r'with objective_settings {"length_cost": 0.1}, not {}'):
        train(TrainConfig(**(SMALL | {"steps": 1, "eval_every": 0})), tmp_path / "b")


def test_several_updates_a_batch_leave_ratio_one():
    trainer = Trainer(TrainConfig(method="grpo_no_kl", epochs=3, minibatches=2, **(SMALL | {"lr": 3e-3})))
    found = [trainer.step()[0]["clip_ratio"] for _ in range(3)]
    assert max(x for x in found if x is not None) > 0


def test_an_epoch_serves_every_problem_once_and_methods_share_the_order():
    problems = list(range(10))
    seen = [p for step in (1, 2, 3, 4, 5) for p in batch_of_problems(problems, step, 4, seed=1)]
    assert sorted(seen[:10]) == problems and sorted(seen[10:]) == problems and seen[:10] != seen[10:]
    assert batch_of_problems(problems, 2, 4, seed=2) != batch_of_problems(problems, 2, 4, seed=1)


@pytest.mark.parametrize("method, temperature", [("grpo", 0.7), ("grpo_no_kl", 1.0), ("f_isft_posneg", 1.0)])
@pytest.mark.parametrize("rank", [0, 4], ids=["full", "lora"])
def test_an_update_is_the_same_with_and_without_all_logits(method, temperature, rank, monkeypatch):
    found = []
    for large in (logprobs.LARGE, 1):
        monkeypatch.setattr(logprobs, "LARGE", large)
        policy = load_policy(dtype=torch.float64)
        trainer = Trainer(TrainConfig(method=method, temperature=temperature, lora_rank=rank, **SMALL), policy)
        trainer.optimizer.zero_grad = lambda: None  # gradients, not weights: Adam's first step is but their sign
        while not (step := trainer.step())[2]["advantage"].any():  # a step on which there is something to learn
            pass
        assert (logprobs.large_head(trainer.model) is not None) == (large == 1)
        grads = [p.grad.flatten() for p in trainer.model.parameters() if p.requires_grad and p.grad is not None]
        found.append((step[0]["loss"], step[0]["grad_norm"], torch.cat(grads)))
    (loss, norm, before), (other_loss, other_norm, after) = found
    assert before.any() and (other_loss, other_norm) == pytest.approx((loss, norm), rel=1e-6, abs=1e-9)
    assert (before - after).norm() <= 1e-6 * before.norm()  # the norms, and what is kept of rollouts, are float32


def test_a_run_that_does_not_fit_does_not_start_unless_it_is_told_to(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**20)
    config = TrainConfig(**(SMALL | {"steps": 1, "eval_every": 0}))
    with pytest.raises(RlinoError, match=r"^needs about 0\.\d GiB, 0\.0 free; .*--guard warn"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert train(replace(config, guard="warn"), tmp_path / "run").complete
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("rlino: needs about") and "0.0 free; " in said


def start(folder, *extra):
    words = ["--method", "grpo_no_kl", "--steps", "8", "--prompts", "6", "--group-size", "4", "--eval-every", "4",
             "--eval-problems", "8", "--checkpoint-every", "2", "--trace-every", "3", "--lr", "1e-3",
             "--max-new-tokens", "80", "--threads", "1", "--eval-base", "1"]  # fmt: skip
    command = [sys.executable, "-m", "rlino_lib.cli", "train", *words, "--out", str(folder), *extra]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ}, text=True)


@pytest.mark.parametrize("extra", [(), ("--task-set", "restarts=0.5", "--task-set", "restart_bonus=0.5")], ids=str)
def test_a_run_that_is_killed_at_any_moment_goes_on_to_the_same_numbers(extra, tmp_path):
    whole, kills, moment = start(tmp_path / "whole", *extra), 0, random.Random(os.getpid())
    metrics = tmp_path / "killed" / "metrics.csv"
    for rows in (0, 3, 6):  # at the start, amid the first steps, and between two checkpoints
        killed = start(tmp_path / "killed", *extra)
        end = time.time() + 60
        while killed.poll() is None and time.time() < end:
            if metrics.exists() and metrics.read_bytes().count(b"\n") >= rows:
                time.sleep(moment.uniform(0, 0.2))
                break
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        kills += not Run(tmp_path / "killed").complete
    assert kills  # or they came too late to test anything
    resumed = start(tmp_path / "killed", *extra)
    out, err = resumed.communicate()
    assert resumed.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["complete"]
    assert whole.wait() == 0
    for name in ("metrics.csv", "rollouts.jsonl.gz", "responses.csv.gz", "config.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_run_that_has_lost_rows_does_not_go_on(tmp_path):
    config = TrainConfig(method="grpo_no_kl", **(SMALL | {"prompts": 2, "eval_every": 0, "checkpoint_every": 2}))
    run = tmp_path / "run"

    def stop(step, metrics):
        if step == config.steps:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, run, on_step=stop)
    whole = (run / "metrics.csv").read_bytes()
    (run / "metrics.csv").unlink()
    with pytest.raises(RlinoError, match=rf"has 0 rows up to step 2, not the 2 .*: delete {run}, and the run starts"):
        train(config, run)
    (run / "metrics.csv").write_bytes(whole + b"4,0.")  # the torn last line of a kill
    assert train(config, run).metrics["step"].tolist() == [1, 2, 3]


def test_a_run_keeps_a_row_of_every_held_out_response(tmp_path):
    config = TrainConfig(**(SMALL | {"steps": 2, "eval_every": 1, "eval_problems": 8, "test_samples": 1}))
    run = train(config, tmp_path / "run")
    during, after = (run.responses[run.responses["final"] == final] for final in (False, True))
    measured = run.metrics.set_index("step")
    assert during.groupby("step").size().tolist() == [8, 8, 8]
    for column, name in (("correct", "accuracy"), ("clipped", "clipped_ratio"), ("length", "mean_length")):
        found = during.groupby("step")[column].mean()
        assert found.tolist() == pytest.approx(measured.loc[found.index, f"eval/{name}"].tolist(), rel=1e-6)
    test = run.summary["test"]
    assert len(after) == after["problem_id"].nunique() == test["problems"] and set(after["step"]) == {2}
    assert after["correct"].mean() == pytest.approx(test["pass@1"]["value"])
    assert after["length"].mean() == pytest.approx(test["mean_length"])
    assert after["clipped"].mean() == pytest.approx(test["clipped_ratio"])
    assert after["attempts"].mean() == pytest.approx(test["attempts_per_response"], rel=0.05)  # a last one, unfinished


def test_a_folder_of_another_run_is_refused(tmp_path):
    train(TrainConfig(**(SMALL | {"steps": 1, "eval_every": 0})), tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    with pytest.raises(RlinoError, match="unfinished, with lr 0.0001, not 5e-05: choose another --out"):
        train(TrainConfig(lr=5e-5, **(SMALL | {"steps": 1, "eval_every": 0})), tmp_path / "run")


def healthy(**changes):
    usual = {"reward": 0.5, "accuracy": 0.5, "frac_reward_zero_std": 0.2, "completions/clipped_ratio": 0.1, "loss": 0.0}
    return usual | changes


@pytest.mark.parametrize(
    "bad, words",
    [
        ({"reward": 0.0, "accuracy": 0.0}, "every reward was 0"),
        ({"frac_reward_zero_std": 1.0}, "no group had contrast"),
        ({"completions/clipped_ratio": 1.0}, "every response was truncated"),
    ],
)
def test_guard_rails_speak_once_and_after_patience(bad, words):
    guards = Guards("stop")
    for step in range(1, PATIENCE):
        assert guards.check(step, healthy(**bad)) is None
    guards.check(PATIENCE, healthy())  # a good step sets the count back
    for step in range(1, PATIENCE):
        guards.check(step, healthy(**bad))
    with pytest.raises(RlinoError, match=words):
        guards.check(PATIENCE, healthy(**bad))
    warner = Guards("warn")
    said = [warner.check(step, healthy(**bad)) for step in range(1, 3 * PATIENCE)]
    assert sum(m is not None for m in said) == 1 and words in warner.messages[0]


# Methods that train on groups of equal rewards: without a baseline of their group, or by what stands beside it.
WITHOUT_CONTRAST = {
    "grpo_entropy", "reinforce_pp", "ppo", "vc_ppo", "vineppo", "spo_chain", "step_verifier", "iterative_dpo", "ipo",
    "kto", "raft", "raft_pp", "psr", "nsr", "w_reinforce", "f_isft_pos", "f_isft_neg", "f_isft_posneg_unit",
}  # fmt: skip


@pytest.mark.parametrize("method", sorted(OBJECTIVES))
def test_contrast_is_watched_where_a_methods_weights_depend_on_it(method):
    o = OBJECTIVES[method]
    needed = needs_contrast(o, "verifier")
    assert needed == (method not in WITHOUT_CONTRAST)
    if not o.preference and not o.entropy_bonus:  # then the weights are those of the method's own credit
        rewards = torch.tensor([0.0, 0.0, 1.0, 1.0])  # two groups
        tokens = dict.fromkeys(("old_logprobs", "ref_logprobs", "values"), torch.full((4, 2), -0.5))
        mask = torch.ones(4, 2, dtype=torch.bool)
        advantages, _ = credit(o, Graded(rewards, 2, mask, max_response_length=9, collisions=mask * 0.5, **tokens))
        assert bool(advantages.any()) != needed
    guards = Guards("warn", needed)
    said = [guards.check(step, healthy(frac_reward_zero_std=1.0)) for step in range(1, 2 * PATIENCE)]
    assert any(said) == needed


@pytest.mark.parametrize(
    "method, settings, reward, needed",
    [
        ("ppo", {"filter": "mixed"}, "verifier", True),
        ("dapo", {}, "format", False),  # whose verdicts may differ where the format does not, and lengths cost
        ("dapo", {"filter": None}, "verifier", False),
        ("dr_grpo", {"length_cost": 0.1}, "verifier", False),
        ("grpo", {}, "majority", True),
        ("rloo", {"advantage": "reward"}, "verifier", False),
    ],
)
def test_contrast_is_needed_by_choices_and_not_by_names(method, settings, reward, needed):
    assert needs_contrast(varied(method, settings), reward) == needed


def test_rewards_of_0_are_no_failure_where_answers_are_right():
    guards = Guards("stop", contrast=False)  # the reward format - correct, say
    assert not any(guards.check(step, healthy(reward=0.0)) for step in range(1, 2 * PATIENCE))


def test_a_critic_trains_on_groups_of_one(tmp_path, monkeypatch):
    monkeypatch.setattr(guard_rails, "PATIENCE", 2)
    settings = SMALL | {"prompts": 12, "group_size": 1, "eval_every": 0}
    assert train(TrainConfig(method="ppo", **settings), tmp_path / "ppo").complete
    with pytest.raises(RlinoError, match="no group had contrast for 2 steps, up to step 2: .* differences within"):
        train(TrainConfig(method="grpo", **settings), tmp_path / "grpo")


def test_a_loss_that_is_no_number_stops_at_once():
    with pytest.raises(RlinoError, match="not a number"):
        Guards("warn").check(1, healthy(loss=float("nan")))


def test_a_run_that_trains_nothing_stops_with_one_line(tmp_path):
    # The prompt template of other models: the small base has never seen it and earns nothing.
    config = TrainConfig(task_settings={"template": "r1_zero"}, **(SMALL | {"steps": 30, "eval_every": 0}))
    with pytest.raises(RlinoError, match="every reward was 0|no group had contrast|every response was truncated"):
        train(config, tmp_path / "run")
    assert not Run(tmp_path / "run").complete


def test_the_optimizer_is_a_choice_that_older_records_do_not_name(tmp_path):
    trainer = Trainer(TrainConfig(**SMALL, optimizer="sgd", momentum=0.5, lr=0.1))
    assert isinstance(trainer.optimizer, torch.optim.SGD) and trainer.optimizer.param_groups[0]["momentum"] == 0.5
    assert isinstance(Trainer(TrainConfig(**SMALL)).optimizer, torch.optim.AdamW)
    assert not {"optimizer", "momentum"} & set(TrainConfig().recorded())
    assert TrainConfig(optimizer="sgd").recorded()["optimizer"] == "sgd"
    with pytest.raises(RlinoError, match="momentum is of sgd"):
        TrainConfig(momentum=0.5)
    with pytest.raises(RlinoError, match="optimizer must be one of adamw, sgd"):
        TrainConfig(optimizer="lion")
    run = train(TrainConfig(**SMALL, optimizer="sgd", lr=0.1), tmp_path / "run")
    assert run.config["optimizer"] == "sgd" and run.metrics["grad_norm"].iloc[1:].gt(0).all()
