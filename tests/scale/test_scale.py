"""The trainer at scale on one process: its loss is `policy_loss`, its settings and records are those of any run."""

import csv
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from rlino_lib.errors import RlinoError
from rlino_lib.methods.catalogue import OBJECTIVES, varied
from rlino_lib.methods.credit import Graded, credit, without_likely
from rlino_lib.methods.loss import Batch, policy_loss
from rlino_lib.paths import base_of
from rlino_lib.policy.models import load_policy
from rlino_lib.records.runs import COLUMNS, load_run
from rlino_lib.tasks import Grade
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.presets import find_preset
from rlino_lib.training.run import train as local_train
from rlino_lib.training.sft import Example, accumulate_gradients, sft_loss
from rlino_lib.training.trainer import Sums, batch_of_problems

pytest.importorskip("trl", minversion="1.16")
from types import SimpleNamespace  # noqa: E402

from trl import GRPOTrainer, SFTTrainer  # noqa: E402

from rlino_lib.cli.options import train_config  # noqa: E402
from rlino_lib.scale import run as scale  # noqa: E402
from rlino_lib.scale.records import MARK, Pool, Recorded, Row  # noqa: E402
from rlino_lib.scale.sft import IsftTrainer  # noqa: E402
from tests.methods.test_trl_parity import trainer as stand_in  # noqa: E402

F64 = torch.float64
EXACT = dict(rtol=1e-12, atol=1e-14)
REFUSED = {
    name: "credit of tokens by " + o.credit if o.credit != "response" else "pairs" if o.preference else "covariances"
    for name, o in OBJECTIVES.items()
    if o.credit != "response" or o.preference or o.covariant
}
CARRIED = sorted(set(OBJECTIVES) - set(REFUSED))
SMALL = TrainConfig(steps=2, prompts=4, group_size=4, micro_batch=8, max_new_tokens=48, eval_every=1, eval_problems=6,
                    trace_groups=2, lr=1e-3, guard="warn", device="cpu")  # fmt: skip


# --- the loss, in float64, through TRL's own sampling, scoring, shuffling and cutting --------------------------------


def bare(name, groups, size, t, accumulate, updates, seed=0, holes=False, **choices):
    """An `ObjectiveTrainer` without a model: log-probs, responses and verdicts are made up, the rest is TRL's.

    With `holes` an environment wrote some of the tokens.
    """
    g, n = torch.Generator().manual_seed(seed), groups * size
    old, ref = (-3 * torch.rand(2, n, t, generator=g)).double()  # values of float32
    new = (old + 0.3 * (2 * torch.rand(n, t, generator=g, dtype=F64) - 1)).requires_grad_()
    lengths = torch.randint(1, t + 1, (n,), generator=g).tolist()
    lengths[0] = t
    right = (torch.rand(n, generator=g) < 0.4).tolist()
    right[:size], right[size : 2 * size] = [True] + [False] * (size - 1), [False] * size  # a mixed group, a wrong one
    tables = {"policy": new, "the reference": ref}

    def logps(model, ids, attention, width, **_):
        rows = ids[:, -width] - 1  # every token of response i is i + 1
        values = tables.get(model if isinstance(model, str) else "", old)[rows][:, :width]
        return values, -values, None

    config = TrainConfig(method=name, prompts=groups, group_size=size, minibatches=updates, max_new_tokens=t + 1,
                         objective_settings=choices)  # fmt: skip
    o = varied(name, choices)
    self = object.__new__(scale.ObjectiveTrainer)
    self.bind(config, SimpleNamespace(task=SimpleNamespace(prompt=str), problems=range(n)))
    vars(self).update(vars(stand_in(beta=o.beta or o.kl_in_reward, scale_rewards="none", loss_type="grpo")))
    vars(self.args).update(
        steps_per_generation=accumulate * updates, gradient_accumulation_steps=accumulate, report_to=[],
        per_device_train_batch_size=n // (accumulate * updates),
    )  # fmt: skip
    self.num_generations, self._step, self._buffered_inputs, self.state = size, 0, None, SimpleNamespace(global_step=0)
    self.processing_class = SimpleNamespace(pad_token_id=0, eos_token_id=99)
    self.model.generation_config = SimpleNamespace(eos_token_id=99)
    ids = [[i + 1] * lengths[i] for i in range(n)]
    mask = torch.arange(t) < torch.tensor(lengths)[:, None]  # [N, T]
    own = mask & (torch.rand(n, t, generator=g) < 0.6) if holes else mask  # [N, T]
    by_policy = [row[:length].long().tolist() for row, length in zip(own, lengths, strict=True)] if holes else None
    self._generate = lambda prompts: ([[1]] * n, ids, by_policy, ["text"] * n, None, {}, None, None)
    self.graded, self.truncated = [("text", Grade(float(r), r, True, None, "")) for r in right], [False] * n
    self._calculate_rewards = lambda *args: torch.tensor(right).float()[:, None]
    self.score = lambda model, prompts, prompt_mask, ids, mask: (old[ids[:, 0] - 1].float(), old[ids[:, 0] - 1].float())
    self._get_per_token_logps_and_entropies = logps
    cut = torch.ones(n, dtype=torch.bool)  # no response has an EOS
    adv, keep = credit(o, Graded(torch.tensor(right).float(), size, own, old.float(), ref.float(), t + 1, cut))
    return self, new, old, ref, without_likely(o, own, old.float()), adv, keep


def losses(self, n):
    """Rows and losses of a step's micro-batches."""
    batch = [{"prompt": "a prompt", "problem": 0, "place": 0}] * n
    for _ in range(self.args.steps_per_generation):
        inputs = self._prepare_inputs(batch)
        yield inputs["completion_ids"][:, 0] - 1, self._compute_loss("policy", inputs), inputs
        self._step += 1


@pytest.mark.parametrize("holes", [False, True], ids=["", "environment"])
@pytest.mark.parametrize("updates", [1, 2])
@pytest.mark.parametrize("name", CARRIED)
def test_the_loss_and_its_gradient_are_those_of_policy_loss(name, updates, holes):
    """Every named objective. A micro-batch's token mean is the update's only where the update is one micro-batch."""
    accumulate = 1 if OBJECTIVES[name].normaliser == "micro_token_mean" else 3
    self, new, old, ref, mask, adv, keep = bare(name, 6, 4, 7, accumulate, updates, updates, holes)
    parts = list(losses(self, 24))
    assert sorted(torch.cat([rows for rows, _, _ in parts]).tolist()) == list(range(24))
    for k in range(updates):
        part = parts[k * accumulate : (k + 1) * accumulate]
        rows = torch.cat([rows for rows, _, _ in part])
        rows = rows[keep[rows]]
        loss = sum(loss for _, loss, _ in part)
        behaviour = None if updates == 1 else old[rows]  # at one update the policy is the one that sampled
        args = (new[rows], adv[rows], mask[rows], behaviour, ref[rows], 8, -new[rows])
        expected = policy_loss(OBJECTIVES[name], Batch(*args)).loss
        torch.testing.assert_close(loss, expected, **EXACT)
        gradients = [torch.autograd.grad(x, new, retain_graph=True)[0] for x in (loss, expected)]
        torch.testing.assert_close(*gradients, **EXACT)
        assert gradients[1].any()


@pytest.mark.parametrize(
    "choices",
    [
        {"normaliser": "constant"},
        {"normaliser": "token_mean"},
        {"length_cost": 0.5},
        {"shortest": 2},
        {"unlikely": 0.3},
    ],
    ids=str,
)
def test_settings_of_the_objective_are_carried(choices):
    self, new, _, ref, _, adv, keep = made = bare("grpo_no_kl", 6, 4, 7, 3, 1, **choices)
    o, mask = varied("grpo_no_kl", choices), made[4]
    assert self.objective == o
    total = sum(loss for _, loss, _ in losses(self, 24))
    expected = policy_loss(o, Batch(new[keep], adv[keep], mask[keep], max_response_length=8)).loss
    torch.testing.assert_close(total, expected, **EXACT)


@pytest.mark.parametrize("name", ["grpo", "reinforce_pp", "dapo"])
def test_trls_own_loss_reads_the_environments_tokens_and_credit_per_token_as_ours(name):
    """`GRPOTrainer._compute_loss` on the batch of `ObjectiveTrainer`: advantages [b], or [b, T], and `tool_mask`."""
    o = OBJECTIVES[name]
    self, new, _, _, own, adv, keep = bare(name, 6, 4, 7, 1, 1, holes=True)
    ((rows, loss, inputs),) = losses(self, 24)
    assert inputs["advantages"].ndim == 1 + o.reward_to_go and not torch.equal(
        own[rows], inputs["completion_mask"].bool()
    )
    self.loss_type, self.epsilon_high = "dapo" if o.normaliser == "token_mean" else "grpo", o.clip_high
    part = {k: v[keep[rows]] if torch.is_tensor(v) and v.ndim and len(v) == 24 else v for k, v in inputs.items()}
    part["num_items_in_batch"] = own[keep].sum()
    self.beta = o.beta
    stays = self._get_per_token_logps_and_entropies
    self._get_per_token_logps_and_entropies = lambda *args, compute_entropy, **_: stays(*args)
    theirs = GRPOTrainer._compute_loss(self, "policy", part)
    torch.testing.assert_close(loss, theirs, **EXACT)
    gradients = [torch.autograd.grad(x, new, retain_graph=True)[0] for x in (loss, theirs)]
    torch.testing.assert_close(*gradients, **EXACT)
    assert gradients[0].any() and not gradients[0][~own].any()


def test_the_weights_of_an_inexact_sampler_go_in_as_advantages_of_tokens():
    self, new, _, ref, mask, adv, _ = bare("grpo", 6, 4, 7, 1, 1)
    ((rows, _, inputs),) = losses(self, 24)
    ratio = 0.5 + torch.rand(24, 7, dtype=F64, generator=torch.Generator().manual_seed(1))
    for given in (ratio, ratio[:, :1]):  # vLLM's correction is one of tokens or of responses
        loss = self._compute_loss("policy", inputs | {"importance_sampling_ratio": given})
        weights = adv[rows][:, None].double() * given.expand(24, 7)
        expected = policy_loss(OBJECTIVES["grpo"], Batch(new[rows], weights, mask[rows], ref_logprobs=ref[rows])).loss
        torch.testing.assert_close(loss, expected, **EXACT)


def test_what_is_logged_is_what_was_minimised():
    self, *_ = bare("dapo", 6, 4, 7, 3, 1)
    minimised = sum(loss.item() for _, loss, _ in losses(self, 24))
    assert self.sums.total["loss"] == pytest.approx(minimised, rel=1e-12)


# --- F-ISFT as supervised learning -----------------------------------------------------------------------------------


def sft_trainer(tmp_path, **changes):
    config = dataclasses.replace(SMALL, method="f_isft_pos", eval_every=0, **changes)
    args = scale.arguments(config, tmp_path, "sft", {})
    return scale.build(config, args, load_policy(), Pool(config))


def test_isft_is_a_mean_over_responses_where_sfttrainer_has_one_over_tokens(tmp_path):
    trainer = sft_trainer(tmp_path)
    assert isinstance(trainer, SFTTrainer)
    model, prompt, trainer.compute_loss_func = trainer.model, (5, 6, 7), None  # TRL's own loss, whatever its version

    def gradient(loss):
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])

    for lengths, same in (((4, 4, 4), True), ((2, 5, 11), False)):
        examples = [Example(prompt, tuple(range(8, 8 + k)), 1, 1.0) for k in lengths]
        batch = trainer._collate(examples, None, "cpu")
        ours = gradient(trainer.compute_loss(model, dict(batch), num_items_in_batch=10))
        literal = gradient(sft_loss(model, batch["input_ids"], batch["labels"], torch.ones(3)) / 10)
        assert (ours - literal).norm() < 1e-5 * literal.norm()
        theirs = dict(batch) | {"attention_mask": torch.ones_like(batch["input_ids"])}
        theirs = gradient(SFTTrainer.compute_loss(trainer, model, theirs, num_items_in_batch=sum(lengths)))
        gap = (theirs * 3 / 10 - ours).norm() / ours.norm()  # three accepted of ten sampled
        assert (gap < 1e-5) == same and (same or gap > 0.05), gap


def test_isft_at_another_temperature_learns_what_was_sampled_from(tmp_path):
    trainer = sft_trainer(tmp_path, temperature=0.6)
    batch = trainer._collate([Example((5, 6), (8, 9, 10), 1, 1.0)], None, "cpu")
    loss = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=1).item()
    tensors = (batch["input_ids"], batch["labels"], torch.ones(1))
    literal = [sft_loss(trainer.model, *tensors, t).item() for t in (0.6, 1.0)]
    assert loss == pytest.approx(literal[0], rel=1e-5) and abs(literal[0] - literal[1]) > 0.01


def test_a_process_without_an_accepted_response_takes_part_and_counts_nothing(tmp_path):
    trainer = sft_trainer(tmp_path)
    batch = trainer._collate([], Example((0,), (0,), 1, 1.0), "cpu")
    loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=10)
    loss.backward()
    assert loss.item() == 0 and all(p.grad is not None and not p.grad.any() for p in trainer.model.parameters())
    assert accumulate_gradients(trainer.model, [], 10, 0) == 0


# --- records ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["grpo", "sft"])
def test_a_run_is_recorded_as_any_other(engine, tmp_path, monkeypatch):
    config = dataclasses.replace(SMALL, method="f_isft_pos", lora_rank=0 if engine == "sft" else 4)
    ids, trained = torch.arange(5, 25)[None], []

    def save(trainer, out, save=scale._save):
        trained.append(trainer.model.eval()(input_ids=ids).logits.detach())
        save(trainer, out)

    monkeypatch.setattr(scale, "_save", save)
    run = scale.train(config, tmp_path / "run", engine=engine, save=True)
    assert run.complete and run.config["scale"] == {"engine": engine, "processes": 1, "trl": {}}
    assert list(run.metrics.columns) == COLUMNS and run.metrics["step"].tolist() == [0, 1, 2]
    assert run.metrics["eval/accuracy"].notna().all() and run.metrics["samples"].tolist() == [0, 16, 32]
    held_out = run.responses
    assert held_out.groupby("step").size().tolist() == [6, 6, 6]
    accuracy = held_out.groupby("step")["correct"].mean()
    assert accuracy.tolist() == pytest.approx(run.metrics["eval/accuracy"].tolist())
    rows = run.rollouts
    assert len(rows) == 2 * 2 * 4 and set(rows["step"]) == {1, 2}
    assert all(len(w) == n == len(t) for w, n, t in zip(rows["weights"], rows["length"], rows["tokens"], strict=True))
    assert [sum(w) > 0 for w in rows["weights"]] == rows["correct"].tolist()
    problems = batch_of_problems(Pool(config).train, 1, 4, 0)[:2]  # the problems of `rlino train`, in its order
    assert list(dict.fromkeys(rows[rows["step"] == 1]["problem_id"])) == [p.id for p in problems]
    assert not (tmp_path / "run" / "trainer").exists() and not list((tmp_path / "run").rglob("*.bin"))
    saved, base = (p.model(input_ids=ids).logits for p in (load_policy(tmp_path / "run" / "model"), load_policy()))
    assert torch.allclose(saved, trained[0], atol=1e-4) and not torch.allclose(saved, base, atol=1e-2)
    assert scale.train(config, tmp_path / "run", engine=engine).metrics.equals(run.metrics)  # complete: as it is
    assert load_run(tmp_path / "run").complete and not (tmp_path / "run" / "run.lock").exists()
    with pytest.raises(RlinoError, match="another run, complete, with seed 0, not 8: choose another --out"):
        scale.train(dataclasses.replace(config, seed=8), tmp_path / "run", engine=engine)
    with pytest.raises(RlinoError, match="another run, complete, with .*scale"):
        local_train(config, tmp_path / "run")


WRITTEN = {
    "calculator": {"task_settings": {"calculator": True}},
    "no_thought": {"task_settings": {"thinking": False}},
    "restarts": {"task_settings": {"restarts": 0.6, "restart_bonus": 0.5, "restart_held_out": 1}},
    "clean_room": {"task": "clean_room", "model": base_of("clean_room"), "max_new_tokens": 97},
    "hidden_target": {"task": "hidden_target", "model": base_of("hidden_target"), "task_settings": {"lies": 0.5}},
}


@pytest.mark.parametrize("settings", WRITTEN.values(), ids=WRITTEN)
def test_a_task_that_writes_into_responses_makes_the_step_of_rlino_train(settings, tmp_path, monkeypatch):
    """From the same seed of the sampler: the same responses, grades, credit, loss and weights."""
    config = dataclasses.replace(
        SMALL, **({"method": "grpo", "steps": 1, "eval_every": 0, "trace_groups": 4} | settings)
    )
    local = local_train(config, tmp_path / "local")
    monkeypatch.setattr(torch, "initial_seed", lambda: config.seed * 1_000_003 + 1)
    run = scale.train(config, tmp_path / "scale")
    ours, theirs = local.rollouts, run.rollouts
    for name in ("response", "reward", "correct", "length", "clipped", "tokens"):
        assert ours[name].tolist() == theirs[name].tolist(), name
    assert ours["weights"].explode().tolist() == pytest.approx(theirs["weights"].explode().tolist(), rel=1e-3)
    assert [len(tokens) for tokens in ours["tokens"]] != ours["length"].tolist()  # somebody else wrote some
    for name in ("reward", "accuracy", "completions/mean_length", "entropy", "loss", "kl", "grad_norm"):
        values = [frame.metrics[name].iloc[-1] for frame in (local, run)]
        assert values[0] == pytest.approx(values[1], rel=1e-3, abs=1e-6), name


def test_held_out_responses_of_such_a_task_are_evaluated(tmp_path):
    settings = {"restarts": 0.5, "restart_held_out": 2}
    run = scale.train(dataclasses.replace(SMALL, steps=1, task_settings=settings), tmp_path / "run")
    assert run.metrics["eval/accuracy"].notna().all() and (run.responses["length"] < 48 - 2 * 10).all()


def test_a_damaged_checkpoint_is_one_clear_line_and_the_one_before_serves(tmp_path, monkeypatch):
    config = dataclasses.replace(SMALL, eval_every=0, checkpoint_every=1, test_samples=1)
    monkeypatch.setattr(Recorded, "test", lambda self: (_ for _ in ()).throw(RlinoError("no light")))
    with pytest.raises(RlinoError, match="no light"):
        scale.train(config, tmp_path / "run")
    monkeypatch.setattr(Recorded, "test", lambda self: {"pass@1": {"value": 0}})
    last = scale.last_checkpoint(tmp_path / "run")
    weights = last / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(RlinoError, match="checkpoint-2 is damaged"):
        scale.train(config, tmp_path / "run")
    shutil.rmtree(last)
    run = scale.train(config, tmp_path / "run")
    assert run.complete and run.summary["test"] == {"pass@1": {"value": 0}} and run.metrics["step"].tolist() == [1, 2]
    with pytest.raises(RlinoError, match="another --out"):
        scale.train(config, tmp_path / "run", save=True)


def test_rows_become_rollouts_in_the_order_of_their_places():
    problems = SimpleNamespace(task=SimpleNamespace(prompt=str), problems=["p0", "p1"])
    lengths, grade = [2, 3, 1, 2], Grade(1.0, True, True, None, "")
    rows = [
        Row(i, i // 2, f"text {i}", grade, i == 0, torch.arange(1, 2 + i // 2), torch.tensor([7] * (n - 1) + [9]),
            torch.ones(n), torch.full((n,), -0.5), torch.full((n,), 0.25))
        for i, n in enumerate(lengths)
    ]  # fmt: skip
    trainer = SimpleNamespace(pool=problems, processing_class=SimpleNamespace(pad_token_id=0))
    found = Recorded.to_rollouts(trainer, [rows[2], rows[0], rows[3], rows[1]], 2)
    assert found.texts == ["text 0", "text 1", "text 2", "text 3"] and found.prompts == ["p0", "p1"]
    assert found.prompt_ids.tolist() == [[0, 1], [1, 2]] and found.prompt_mask.tolist() == [[False, True], [True, True]]
    assert found.lengths.tolist() == lengths and found.truncated.tolist() == [True, False, False, False]
    assert found.logprobs.sum(1).tolist() == [-1.0, -1.5, -0.5, -1.0] and found.ids[2].tolist() == [9, 0, 0]


# --- settings --------------------------------------------------------------------------------------------------------


def test_a_step_is_the_same_responses_over_any_number_of_processes(tmp_path):
    config = TrainConfig(method="dapo", prompts=64, group_size=8, micro_batch=24, minibatches=2, epochs=2, device="cpu")
    for world in (1, 2, 4, 8, 16):
        micro, accumulate = scale.cut(config, world)
        assert micro <= 24 and micro * accumulate * world * 2 == 512
    args = scale.arguments(config, tmp_path, "grpo", {"vllm_mode": "colocate"})
    assert args.generation_batch_size == 512 and args.num_iterations == 2 and args.max_steps == 200 * 4
    assert args.vllm_mode == "colocate" and not args.bf16
    assert scale.arguments(dataclasses.replace(config, precision="bf16"), tmp_path, "grpo", {}).bf16
    with pytest.raises(RlinoError, match="do not divide over 3 processes"):
        scale.cut(config, 3)


@pytest.mark.parametrize(
    "changes, engine, given, words",
    [
        ({"method": "trpo"}, "grpo", {}, "unknown method 'trpo'"),
        ({}, "verl", {}, "unknown engine 'verl'"),
        ({}, "sft", {}, "carries f_isft_pos as it is"),
        ({"objective_settings": {"normaliser": "none"}}, "grpo", {}, "must be one of per_response"),
        ({"method": "f_isft_pos", "epochs": 2}, "sft", {}, "one update per step"),
        ({"temperature": 0.0}, "grpo", {}, "temperature must be a number from 0.001 to 1000"),
        ({"group_size": 1}, "grpo", {}, "at least 2 responses"),
        ({"objective_settings": {"shortest": 9}}, "grpo", {}, "the 9 shortest of groups of"),
        ({"eval_base": 1}, "grpo", {}, "eval_base is measured by"),
        ({"probe_every": 5}, "grpo", {}, "probe_every is measured by"),
        ({"method": "f_isft_pos", "task_settings": {"calculator": True}}, "sft", {}, "that needs the engine grpo"),
        ({"method": "f_isft_pos", "task_settings": {"restarts": 0.5}}, "sft", {}, "environment or openings write into"),
        ({"device": "cuda:1"}, "grpo", {}, "accelerate chooses the device"),
        ({"loss_mask": "all"}, "grpo", {}, "counts the policy's tokens: leave --loss-mask out"),
        ({"micro_tokens": 4096}, "grpo", {}, "TRL cuts by rows: give --micro-batch"),
        ({}, "grpo", {"loss_type": "dapo"}, "does not take loss_type"),
        ({}, "grpo", {"use_vllm": True}, "TRL cannot start this run: vLLM is not available"),
        ({"lora_rank": 4, "lora_targets": "nonsense"}, "grpo", {}, "TRL cannot start this run: Target modules"),
        ({}, "grpo", {"vllm_nonsense": 1}, "TRL does not take these settings"),
        ({"prompts": 3, "group_size": 5, "minibatches": 2}, "grpo", {}, "do not divide"),
    ],
)
def test_what_cannot_be_carried_is_one_clear_line(changes, engine, given, words, tmp_path):
    with pytest.raises(RlinoError, match=words) as e:
        scale.train(dataclasses.replace(SMALL, **changes), tmp_path / "run", engine=engine, trl_settings=given)
    assert "\n" not in str(e.value) and not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize("name, words", REFUSED.items())
def test_what_trl_does_not_carry_is_refused_by_its_name(name, words):
    with pytest.raises(RlinoError, match=f"^{words}.* by `rlino train` alone: choose another method"):
        scale.check(dataclasses.replace(SMALL, method=name), "grpo", {})


def test_a_reward_that_a_model_gives_is_refused():
    with pytest.raises(RlinoError, match="a model's certainty is read by `rlino train` alone"):
        scale.check(dataclasses.replace(SMALL, method="grpo_no_kl", reward="self_certainty"), "grpo", {})


def test_sharded_weights_do_not_sample_what_somebody_else_writes_into(tmp_path, monkeypatch):
    config = dataclasses.replace(SMALL, task_settings={"thinking": False})
    kept = SimpleNamespace(accelerator=SimpleNamespace(distributed_type="FSDP"))
    monkeypatch.setattr(scale, "ObjectiveTrainer", lambda *args, **settings: kept)
    for task_settings, refused in (({"thinking": False}, True), ({}, False)):
        config = dataclasses.replace(SMALL, task_settings=task_settings)
        args = scale.arguments(config, tmp_path, "grpo", {})
        with pytest.raises(RlinoError, match="without sharded weights$") if refused else nullcontext():
            assert scale.build(config, args, load_policy(), Pool(config)) is kept


def test_one_process_does_not_spread_its_micro_batches_over_several_gpus(tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "arguments", lambda *given: SimpleNamespace(n_gpu=2))
    with pytest.raises(RlinoError, match="one process sees 2 GPUs: start one for each, with accelerate launch"):
        scale.train(SMALL, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_command_has_the_options_of_train_and_exits_with_2(tmp_path, capsys):
    words = ["--method", "rloo", "--task", "word_problems", "--task-set", "kinds=3", "--lora-rank", "8", "--out", "x"]
    config = train_config(scale.parser().parse_args(words))
    assert (config.method, config.task, config.lora_rank) == ("rloo", "word_problems", 8)
    assert config.task_settings == {"kinds": 3}
    config = train_config(scale.parser().parse_args(["--preset", "paper-gsm8k-0.5b", "--out", "x"]))
    assert config == TrainConfig(**find_preset("paper-gsm8k-0.5b").settings)
    for world in (1, 8, 16):  # a preset runs as it is with each of the configurations for accelerate
        assert scale.cut(config, world)
    assert scale.main(["--method", "nonsense", "--out", str(tmp_path / "run")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "unknown method" in err
    assert scale.main(["--no-such-option", "--out", str(tmp_path / "run")]) == 2  # one line, without the usage
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "--no-such-option" in err
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text("{}")
    assert scale.main(["--device", "cpu", "--out", str(tmp_path / "half")]) == 2
    assert "config.json is something else than rlino writes" in capsys.readouterr().err


def test_a_response_ends_where_a_stop_string_is_complete():
    tokenizer = load_policy().tokenizer
    self = object.__new__(scale.ObjectiveTrainer)
    self.processing_class, end = tokenizer, tokenizer.eos_token_id
    self.model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=end))
    self.pool = SimpleNamespace(task=SimpleNamespace(stop=("</answer>", "19 = 2")))
    texts = ["3 + 19 = 22 and more", "<answer> 1 </answer> Numbers", "none of them"]
    ids = [tokenizer(text).input_ids for text in texts] + [[5, end, 6]]
    kept, truncated = self.until_stop(ids)
    assert truncated == [False, False, True, False] and kept[2] == ids[2] and kept[3] == [5, end]
    assert [tokenizer.decode(row).replace(" ", "") for row in kept[:2]] == ["3+19=22", "<answer>1</answer>"]
    self.pool.task.stop = ()
    assert self.until_stop(ids) == ([*ids[:3], [5, end]], [True, True, True, False])


def test_half_a_checkpoint_is_none(tmp_path):
    for step in (2, 10):
        (tmp_path / "trainer" / f"checkpoint-{step}").mkdir(parents=True)
    assert scale.last_checkpoint(tmp_path) is None
    for step in (2, 10):
        (tmp_path / "trainer" / f"checkpoint-{step}" / MARK).write_text(json.dumps({}))
    assert scale.last_checkpoint(tmp_path).name == "checkpoint-10"


def test_a_gradient_that_is_not_finite_stops_the_run():
    self = object.__new__(IsftTrainer)
    self._metrics, self.state, self.updates, self.sums = {}, SimpleNamespace(global_step=3), 1, Sums()
    with pytest.raises(RlinoError, match="not finite at step 3"):
        Recorded.log(self, {"learning_rate": 1.0, "grad_norm": float("nan")})
    Recorded.log(self, {"train_runtime": 1.0})  # what the trainer says at its end
    assert GRPOTrainer.log is not scale.ObjectiveTrainer.log


# --- two processes, on CPU -------------------------------------------------------------------------------------------


def run_worker(what, folder):
    """tests/scale/scale_worker.py: it forks two processes of one thread each, which talk to each other through gloo."""
    command = [sys.executable, str(Path(__file__).with_name("scale_worker.py")), what, str(folder)]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("how", ["gradients", "sharded"])
def test_two_processes_give_the_gradient_of_one(how, tmp_path):
    """On the same responses, of `rlino train`: replicated (DDP), and with FSDP 2, which shards the weights."""
    run_worker(how, tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert "f_isft_pos/sft" in report and "grpo/grpo" in report
    for name, comparison in report.items():
        assert comparison["gap"] < 1e-4 and comparison["norm"] > 1e-2, (name, comparison)
        # The KL is logged as a token mean of each micro-batch, and the micro-batches are others.
        assert all(gap < (0.01 if k == "kl" else 1e-3) for k, gap in comparison["gaps"].items()), (name, comparison)
        assert {"loss", "accuracy", "logprob/correct", "entropy", "grad_norm", "lr"} <= set(comparison["gaps"]), name


def test_a_killed_run_of_two_processes_resumes_to_the_same_numbers(tmp_path):
    run_worker("killed", tmp_path)
    left = list(csv.DictReader((tmp_path / "left.csv").open()))
    assert [row["step"] for row in left] == ["0", "1", "2", "3", "4"]  # killed after step 4, before its checkpoint
    assert json.loads((tmp_path / "left.json").read_text()) == ["checkpoint-4"]  # of step 2: two updates a step
    killed = load_run(tmp_path / "killed")
    assert killed.complete and killed.config["scale"]["processes"] == 2
    assert killed.responses.groupby("step").size().tolist() == [5, 5, 5]  # problems that do not divide by two
    for name in ("metrics.csv", "rollouts.jsonl.gz", "responses.csv.gz", "config.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert (tmp_path / "killed" / "model" / "model.safetensors").exists()
