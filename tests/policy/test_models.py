"""Models as a hub has them: loaded whole or refused in one line, adapted, merged, in bfloat16, and short of memory."""

import json
import os
import subprocess
import sys
import threading
import warnings
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlino_lib.cli import main as cli
from rlino_lib.errors import RlinoError, RlinoWarning
from rlino_lib.policy.device import is_out_of_memory, pick_device
from rlino_lib.policy.logprobs import large_head, response_logprobs
from rlino_lib.policy.models import (
    Policy,
    add_lora,
    eos_ids,
    load_policy,
    merged,
    recompute_layers,
    reference_context,
    save_policy,
)
from rlino_lib.policy.sampling import sample
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.run import train
from rlino_lib.training.trainer import Trainer
from rlino_lib.training.updates import UPDATES
from tests.lookalikes import LARGE, lookalike, with_adapters
from tests.policy.test_rollout import UNEVEN, random_model
from tests.training.test_train import SMALL

PROMPTS = ["Question: 1 + 1?\nAnswer:", "Question: how many eggs are 3 eggs and 4 eggs?\nAnswer:"]  # left padding
SLIDING = dict(use_sliding_window=True, sliding_window=6, max_window_layers=0)
MAKES = {
    "qwen2-tied": ("qwen2", {}),
    "qwen2-sliding": ("qwen2", SLIDING | {"vocab_size": 700}),
    "llama-untied": ("llama", {"tie_word_embeddings": False}),
}


@pytest.fixture(params=MAKES.values(), ids=MAKES)
def make(request):
    return request.param


# --- of the same make ------------------------------------------------------------------------------------------------


def test_a_saved_model_comes_back_and_rolls_out(make, tmp_path):
    kind, changes = make
    save_policy(lookalike(kind, 1, **changes), tmp_path)
    policy = load_policy(tmp_path)
    assert policy.tokenizer.pad_token_id == policy.tokenizer.eos_token_id == 0 and eos_ids(policy) == [0, 2]
    assert (large_head(policy.model) is not None) == (changes.get("vocab_size", LARGE) == LARGE)
    policy.model.get_output_embeddings().weight.data[[0, 2]] *= 3  # so that some responses end, by either id
    rollouts = sample(policy, PROMPTS, 16, max_new_tokens=24, temperature=0.9, seed=1)
    ends = torch.isin(rollouts.ids, torch.tensor([0, 2])) & rollouts.mask
    assert torch.equal(ends.any(1), ~rollouts.truncated) and (ends.sum(1) <= 1).all()
    assert rollouts.truncated.any()
    with torch.no_grad():
        full, mask = response_logprobs(policy.model, rollouts, torch.arange(32), 0.9)
    assert torch.equal(mask, rollouts.mask) and (full - rollouts.logprobs)[mask].abs().max() < 2e-5


def test_adapters_off_are_the_reference_exactly_and_rollouts_through_them_those_of_the_merged_model(make, tmp_path):
    kind, changes = make
    policy, base = lookalike(kind, 2, **changes), lookalike(kind, 2, **changes).model.double()
    policy.model.double()  # so that what is equal is so to the last digits that a rollout keeps
    adapted = Policy(with_adapters(policy.model), policy.tokenizer)
    ask = dict(max_new_tokens=16, seed=2)
    through = sample(adapted, PROMPTS, 4, **ask)
    rows = torch.arange(8)
    with torch.no_grad(), reference_context(adapted.model):
        off = response_logprobs(adapted.model, through, rows)[0]
    with torch.no_grad():
        assert torch.equal(off, response_logprobs(base, through, rows)[0])
        assert not torch.allclose(off, response_logprobs(adapted.model, through, rows)[0], atol=1e-2)
    save_policy(Policy(adapted.model, policy.tokenizer), tmp_path)
    assert {f.name for f in tmp_path.glob("*.safetensors")} == {"adapter_model.safetensors"}
    whole = sample(merged(adapted), PROMPTS, 4, **ask)
    assert whole.texts == through.texts and torch.allclose(whole.logprobs, through.logprobs, atol=1e-5)


def test_adapters_are_refused_twice_and_where_no_module_has_their_name():
    with pytest.raises(RlinoError, match="already"):
        add_lora(random_model(lora=True).model)
    with pytest.raises(RlinoError, match="cannot add LoRA adapters: Target modules"):
        add_lora(random_model().model, targets=["no_such_proj"])


def test_a_run_of_a_local_model_by_the_command_line(tmp_path, capsys):
    save_policy(lookalike(seed=3, vocab_size=20_000), tmp_path / "base")
    words = ["--model", str(tmp_path / "base"), "--task", "word_problems", "--max-new-tokens", "12", "--device", "cpu"]
    run = ["--lora-rank", "4", "--lora-targets", "q_proj,v_proj", "--lora-alpha", "8", "--precision", "bf16",
           "--gradient-checkpointing", "1", "--steps", "2", "--prompts", "2", "--group-size", "2", "--lr", "0.1",
           "--guard", "warn", "--eval-problems", "4", "--method", "grpo", "--save",
           "--out", str(tmp_path / "run")]  # fmt: skip
    assert cli.main(["train", *words, *run]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["lora_targets"], config["lora_alpha"], config["precision"]) == ("q_proj,v_proj", 8, "bf16")
    adapter = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert {n.split(".")[-3] for n in adapter} == {"q_proj", "v_proj"}
    found = []
    for name in ("adapter", "model"):
        words[1] = str(tmp_path / "run" / name)
        out = tmp_path / name
        assert cli.main(["evaluate", *words, "--problems", "4", "--responses", "--out", str(out)]) == 0
        found.append([json.loads(line) for line in (out / "responses.jsonl").read_text().splitlines()])
    assert [r["response"] for r in found[0]] == [r["response"] for r in found[1]] and len(found[0]) == 4
    capsys.readouterr()
    (tmp_path / "run" / "adapter" / "adapter_model.safetensors").write_bytes(b"half")
    with pytest.raises(RlinoError, match="cannot load a model"):
        load_policy(tmp_path / "run" / "adapter")


# --- what cannot be loaded -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cut", "config", "missing", "shape", "tokenizer", "empty"])
def test_a_damaged_model_gives_one_line(how, tmp_path, capsys):
    save_policy(random_model(seed=1), tmp_path)
    weights, name = tmp_path / "model.safetensors", "model.layers.1.mlp.up_proj.weight"
    if how == "cut":
        weights.write_bytes(weights.read_bytes()[:20_000])
    elif how == "config":
        (tmp_path / "config.json").write_text('{"model_type": ')
    elif how == "tokenizer":
        (tmp_path / "tokenizer.json").unlink()
    elif how == "empty":
        for path in tmp_path.iterdir():
            path.unlink()
    else:  # transformers would go on with random numbers
        state = load_file(weights)
        state = {k: v[:3].clone() if k == name else v for k, v in state.items() if how == "shape" or k != name}
        save_file(state, weights, metadata={"format": "pt"})
    out = str(tmp_path / "run")
    assert cli.main(["train", "--model", str(tmp_path), "--out", out]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and said.out == "" and f"cannot load a model from {tmp_path}: " in said.err
    if how in ("missing", "shape"):
        assert f"1 of its weights, {name} first" in said.err


class NotFound(BaseHTTPRequestHandler):
    """A hub that has no such repository."""

    def do_GET(self):
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


@pytest.mark.parametrize("there", [True, False], ids=["wrong_id", "no_network"])
def test_a_wrong_hub_id_and_no_network_give_one_line_each(there, tmp_path):
    server = HTTPServer(("127.0.0.1", 0), NotFound)
    if there:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    else:
        server.server_close()
    env = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path)}
    env |= dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"), "0")
    command = [sys.executable, "-m", "rlino_lib.cli", "train", "--model", "no/such-model", "--out", str(tmp_path / "r")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    if there:
        server.shutdown()
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
    assert ("not a valid model identifier" if there else "the hub cannot be reached") in done.stderr


@pytest.mark.parametrize("name", ["cuda", "cuda:9", "mps", "tpu", "cpu:x"])
def test_a_device_that_is_not_here_is_refused(name, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: name == "cuda:9")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(name == "cuda:9"))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    words = "must be auto, cpu, mps, cuda" if name in ("tpu", "cpu:x") else f"there is no device '{name}' here"
    for command in ("train", "evaluate"):
        assert cli.main([command, "--device", name, "--out", str(tmp_path / "x")]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and words in said
    assert pick_device("auto") == ("cuda" if name == "cuda:9" else "cpu")


# --- precision and memory --------------------------------------------------------------------------------------------


def test_bf16_parameters_do_not_move_under_adam_at_the_papers_rate_and_float32_ones_do():
    moved = {}
    for dtype in (torch.bfloat16, torch.float32):
        model = load_policy(dtype=dtype).model
        before = [p.detach().clone() for p in model.parameters()]
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, betas=(0.9, 0.95), weight_decay=0.0)
        g = torch.Generator().manual_seed(0)
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=g).to(dtype)
        for _ in range(10):  # ten steps, all in one direction
            optimizer.step()
        steps = torch.cat([(p.detach() - b).flatten().float() for p, b in zip(model.parameters(), before, strict=True)])
        moved[dtype] = (steps != 0).float().mean().item()
        if dtype == torch.float32:
            assert steps.abs().median().item() == pytest.approx(1e-5, rel=0.01)
    assert moved[torch.bfloat16] < 0.05 and moved[torch.float32] > 0.99  # near 0 bfloat16 is fine enough


def gradients(config, policy=None):
    """The gradients of the first step with something to learn, which is not made."""
    trainer = Trainer(config, policy)
    trainer._descend = lambda *_: 0.0
    while not trainer.step()[2]["advantage"].any():
        pass
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
    grads = [p.grad.flatten() for p in trainer.model.parameters() if p.requires_grad]
    return trainer, torch.cat(grads)


@pytest.mark.parametrize("method", ["grpo", "f_isft_posneg"])
def test_bf16_products_give_the_gradient_but_for_rounding_and_the_weights_move(method):
    config = TrainConfig(method=method, **(SMALL | {"lr": 1e-6, "prompts": 12}))
    base = torch.cat([p.detach().flatten() for p in load_policy().model.parameters()])
    trainer = Trainer(replace(config, precision="bf16"))
    while not trainer.step()[2]["advantage"].any():
        pass
    now = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    assert ((now - base) != 0).float().mean() > 0.9
    assert now.dtype == torch.float32
    rollouts, found = trainer.sample(1), []  # the same responses for both
    trainer._descend = lambda *_: 0.0
    for precision in ("fp32", "bf16"):
        trainer.config = replace(config, precision=precision)
        trainer.model.zero_grad()
        UPDATES[trainer.objective.kind](trainer, rollouts, None)
        found.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters()]))
    assert not torch.equal(*found) and torch.cosine_similarity(*found, dim=0) > 0.99


@pytest.mark.parametrize("lora", [0, 4], ids=["full", "lora"])
def test_gradient_checkpointing_keeps_less_and_changes_nothing(lora):
    config = TrainConfig(method="grpo_no_kl", lora_rank=lora, **SMALL)
    trainer, before = gradients(config)
    assert torch.equal(before, gradients(replace(config, gradient_checkpointing=1))[1])
    rollouts, kept = sample(trainer.policy, UNEVEN, 2, max_new_tokens=20), []
    for recompute in (False, True):
        bytes_kept = []
        if recompute:
            recompute_layers(trainer.model)
        with torch.autograd.graph.saved_tensors_hooks(lambda t, b=bytes_kept: b.append(t.nbytes) or t, lambda t: t):
            response_logprobs(trainer.model, rollouts, torch.arange(8))
        kept.append(sum(bytes_kept))
    assert kept[1] < 0.5 * kept[0]
    flags = {type(m).__name__: m.training for m in trainer.model.modules()}
    assert flags["Qwen2DecoderLayer"] and not flags["Qwen2Attention"] and not flags["Qwen2MLP"]
    sample(trainer.policy, UNEVEN, 1, max_new_tokens=4)  # with a cache, which recomputed layers could not have


def short_of_memory(model, rows, monkeypatch, when=lambda: True):
    forward = model.forward

    def limited(*args, input_ids=None, **kwargs):
        if when() and len(input_ids) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(*args, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(model, "forward", limited)


@pytest.mark.parametrize("rows, told", [(8, 1), (3, 3), (1, 4)])
def test_sampling_goes_on_with_fewer_rows_when_memory_runs_out(rows, told, monkeypatch):
    policy = random_model(seed=2, hidden_act="gelu")  # decoded by the model itself
    expected = sample(policy, UNEVEN, 4, max_new_tokens=16, seed=9)
    short_of_memory(policy.model, rows, monkeypatch)
    with pytest.warns(RlinoWarning, match="responses are decoded at a time") as said:
        found = sample(policy, UNEVEN, 4, max_new_tokens=16, seed=9)
    assert found.texts == expected.texts and torch.equal(found.mask, expected.mask)
    assert torch.allclose(found.logprobs, expected.logprobs, atol=1e-5)
    assert len([w for w in said if w.category is RlinoWarning]) == told
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is remembered
        assert sample(policy, UNEVEN, 4, max_new_tokens=16, seed=9).texts == expected.texts


def test_no_memory_for_one_response_is_one_line(monkeypatch):
    policy = random_model(hidden_act="gelu")
    short_of_memory(policy.model, 0, monkeypatch)
    with pytest.raises(RlinoError, match="no memory for one response"), pytest.warns(RlinoWarning):
        sample(policy, UNEVEN, 2, max_new_tokens=4)


@pytest.mark.parametrize("method", ["grpo", "f_isft_posneg"])
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_an_update_starts_again_with_a_smaller_micro_batch(method, where, monkeypatch):
    config = TrainConfig(method=method, **(SMALL | {"prompts": 12}))
    _, expected = gradients(replace(config, micro_batch=4))
    policy, once = load_policy(), []
    if where == "forward":
        short_of_memory(policy.model, 4, monkeypatch, torch.is_grad_enabled)
    else:  # later layers have their gradients by the time that the first layer's is to be found

        def full(grad):
            if not once:
                once.append(1)
                raise torch.OutOfMemoryError("CUDA out of memory.")

        policy.model.model.layers[0].self_attn.q_proj.weight.register_hook(full)
    with pytest.warns(RlinoWarning, match="from here on a micro-batch has 4 rows"):
        trainer, found = gradients(config, policy)
    assert trainer.micro_batch == 4 and torch.allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_memory_that_does_not_suffice_at_all_is_one_line(monkeypatch, tmp_path):
    def none_left(self):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(Trainer, "step", none_left)
    with pytest.raises(RlinoError, match="^out of memory: try "):
        train(TrainConfig(**(SMALL | {"eval_every": 0})), tmp_path / "run")
    assert is_out_of_memory(torch.OutOfMemoryError("x")) and not is_out_of_memory(RuntimeError("shape"))


def test_a_run_of_adapters_resumes_from_adapters_alone(tmp_path):
    config = TrainConfig(method="grpo", lora_rank=4, checkpoint_every=1, **(SMALL | {"eval_every": 0, "lr": 1e-2}))
    whole = train(config, tmp_path / "whole")

    def stop(step, metrics):
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "stopped", on_step=stop)
    path = tmp_path / "stopped" / "checkpoint.pt"
    state = torch.load(path, weights_only=True)["trainer"]
    assert state["model"] and all("lora_" in name for name in state["model"])
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(RlinoError, match="checkpoint.pt is damaged: delete it"):
        train(config, tmp_path / "stopped")
    path.write_bytes(good)
    train(config, tmp_path / "stopped")
    assert (tmp_path / "stopped" / "metrics.csv").read_bytes() == (whole.path / "metrics.csv").read_bytes()


def test_settings_younger_than_the_first_runs_are_recorded_where_they_are_set():
    plain, set_ = TrainConfig().recorded(), TrainConfig(lora_rank=4, lora_alpha=8, precision="bf16").recorded()
    assert set(set_) - set(plain) == {"lora_alpha", "precision"} and "gradient_checkpointing" not in set_


def test_a_micro_batch_that_is_part_of_the_method_is_left_as_it_is(monkeypatch):
    policy = load_policy()
    short_of_memory(policy.model, 4, monkeypatch, torch.is_grad_enabled)
    trainer = Trainer(TrainConfig(method="bnpo", **(SMALL | {"prompts": 12})), policy)
    with pytest.raises(torch.OutOfMemoryError):
        for _ in range(5):
            trainer.step()
    assert trainer.micro_batch == 8


def test_a_run_folder_in_place_of_its_model_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"method": "grpo"}', encoding="utf-8")
    (tmp_path / "metrics.csv").write_text("step\n", encoding="utf-8")
    with pytest.raises(RlinoError, match="it is a run folder; its model is in .*model, where --save"):
        load_policy(tmp_path)
