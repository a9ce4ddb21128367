"""What a GPU has to compute as a CPU does, or nearly, and what only a GPU has: graphs and memory of its own.

`python -m pytest tests/gpu` sees a GPU; in the whole suite GPUs are hidden (`tests/conftest.py`), and what needs none
runs on the CPU. Tolerances stand beside what they are for, and were set before anything was measured.
"""

from __future__ import annotations

import copy
import gc
import signal
import subprocess
import sys
import warnings

import pandas as pd
import pytest
import torch
from transformers import Qwen2ForCausalLM

from rlino_lib.errors import RlinoWarning
from rlino_lib.policy import decode, graph
from rlino_lib.policy import device as policy_device
from rlino_lib.policy.device import autocast
from rlino_lib.policy.logprobs import response_logprobs
from rlino_lib.policy.models import Policy, load_policy
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.policy.sampling import sample
from rlino_lib.tasks.countdown.environment import Calculator
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.memory import estimate
from rlino_lib.training.run import train
from rlino_lib.training.trainer import Trainer
from tests.lookalikes import lookalike
from tests.policy.test_rollout import EVEN, TOKENIZER, UNEVEN, random_model
from tests.training.test_memory import FACTOR, middling

GPU = (
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU in sight (python -m pytest tests/gpu)"),
)
needs_gpu = pytest.mark.parametrize("device", [pytest.param("cuda", marks=GPU)])
on_each = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=GPU)])


def moved(policy: Policy, device: str) -> Policy:
    return Policy(copy.deepcopy(policy.model).to(device), policy.tokenizer)


@pytest.fixture
def nothing_is_tiny(monkeypatch):
    """In bf16 a GPU casts these models too, as it does larger ones."""
    monkeypatch.setattr(policy_device, "TINY", 0)


@pytest.fixture
def nothing_is_small(monkeypatch):
    """Rows leave the batch and the capacity grows, as with larger models."""
    monkeypatch.setattr(decode, "is_small", lambda model: False)


# --- sampling --------------------------------------------------------------------------------------------------------


@on_each
@pytest.mark.parametrize("prompts", [EVEN, UNEVEN], ids=["even", "padded"])
@pytest.mark.parametrize("shape", [{}, {"kind": "llama"}, {"lora": True}, {"tie_word_embeddings": False}], ids=str)
def test_greedy_is_generate_token_for_token(shape, prompts, device):
    policy = moved(random_model(seed=1, **shape), device)
    inputs = TOKENIZER(prompts, return_tensors="pt", padding=True).to(device)
    with torch.inference_mode():
        theirs = policy.model.generate(**inputs, do_sample=False, max_new_tokens=40, pad_token_id=0).cpu()
    ours = sample(policy, prompts, 2, max_new_tokens=40, temperature=0)
    for row, mask, expected in zip(ours.ids[::2], ours.mask[::2], theirs, strict=True):
        assert row[mask].tolist() == expected[inputs["input_ids"].shape[1] :][: int(mask.sum())].tolist()
    assert torch.equal(ours.ids[::2], ours.ids[1::2])


@on_each
@pytest.mark.parametrize("packed", [False, True], ids=["left padded", "packed"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["qwen2", "llama", "large vocabulary"])
def test_logprobs_are_those_of_one_full_forward_pass(kind, precision, packed, device, nothing_is_tiny):
    policy = moved(lookalike() if kind == "large vocabulary" else random_model(kind, 3), device)
    rollouts = sample(policy, UNEVEN, 8, max_new_tokens=40, seed=5, precision=precision)
    with torch.no_grad(), autocast(precision, policy.model):
        whole, mask = response_logprobs(policy.model, rollouts, torch.arange(len(rollouts.ids)), packed=packed)
    gaps = (whole.cpu() - rollouts.logprobs)[mask.cpu()].abs()
    if precision == "fp32":
        assert gaps.max() < 1e-4
    else:  # 8 bits, and the two round at other places
        assert gaps.mean() < 0.05 and gaps.max() < 1


class Echo:
    """An environment that answers often: after a sign or an even digit, with some of the text so far."""

    after = ("+", "2", "4", "=")

    def answer(self, text: str) -> str:
        return f" {len(text) % 100}, {text[-1]}" if text[-1:] in self.after else ""


PREFIXES = ["", " 3 + 7 = 10", " 8", " 1 - 1"]
CASES = {
    "plain": dict(),
    "end of text ignored": dict(ignore_eos=True),
    "stop strings": dict(stop_strings=("9", "+ 1", ") ")),
    "prefixes": dict(prefixes=PREFIXES),
    "calculator": dict(environment=Calculator()),
    "answers everywhere": dict(environment=Echo(), prefixes=PREFIXES),
    "top-p": dict(top_p=0.7),
    "top-k and min-p": dict(top_k=7, min_p=0.05),
    "few rows at a time": dict(max_rows=5),
    "temperature": dict(temperature=0.6),
}


@needs_gpu
@pytest.mark.parametrize("case", CASES)
def test_texts_are_those_of_the_cpu(case, device):
    """From the same random numbers, but for a number so near the border between two tokens that rounding moves it.

    A row has 60 numbers and each 400 borders, which rounding moves by some 1e-7: about one case in ten has such a row.
    """
    policy = random_model(seed=5)
    settings = dict(max_new_tokens=60, seed=2) | CASES[case]
    expected, sampled = (sample(p, UNEVEN, 6, **settings) for p in (policy, moved(policy, device)))
    width = min(expected.ids.shape[1], sampled.ids.shape[1])  # rows that do not part are no longer
    apart = (sampled.ids[:, :width] - expected.ids[:, :width]).abs()  # [N, T]
    parted = apart.any(1)  # [N]
    at_first = apart.gather(1, (apart > 0).long().argmax(1, keepdim=True))[parted]
    assert parted.sum() <= 1 and (at_first == 1).all(), (parted.nonzero(), at_first)
    for name in ("ids", "mask", "written"):
        assert torch.equal(getattr(sampled, name)[~parted, :width], getattr(expected, name)[~parted, :width]), name
    assert torch.equal(sampled.truncated[~parted], expected.truncated[~parted])
    assert all(a == b for a, b, other in zip(sampled.texts, expected.texts, parted, strict=True) if not other)
    assert (sampled.logprobs[:, :width] - expected.logprobs[:, :width])[~parted].abs().max() < 1e-4
    assert (sampled.entropies[:, :width] - expected.entropies[:, :width])[~parted].abs().max() < 1e-3


@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("prompts", [EVEN, UNEVEN], ids=["even", "padded"])
def test_a_captured_step_is_the_step(prompts, precision, device, nothing_is_tiny, nothing_is_small, monkeypatch):
    """Rows leave and the capacity grows on the way, each of which captures anew."""
    policy = moved(random_model(seed=4, max_position_embeddings=512), device)
    settings = dict(max_new_tokens=300, seed=3, precision=precision)
    captured = sample(policy, prompts, 16, **settings)
    captures = []

    def eager(steps, tokens):
        captures.append(steps)
        return steps._step

    monkeypatch.setattr(graph.CapturedSteps, "_captured", eager)
    plain = sample(policy, prompts, 16, **settings)
    assert len(captures) > 2
    assert torch.equal(captured.ids, plain.ids) and torch.equal(captured.mask, plain.mask)
    assert (captured.logprobs - plain.logprobs).abs().max() < 1e-5


@needs_gpu
@pytest.mark.parametrize("case", ["plain", "stop strings", "prefixes"])
def test_rows_that_leave_and_capacity_that_grows_change_no_text(case, device, nothing_is_small):
    policy = random_model(seed=5, max_position_embeddings=512)
    settings = dict(max_new_tokens=200, seed=6) | CASES[case]
    expected, found = (sample(p, UNEVEN, 8, **settings) for p in (policy, moved(policy, device)))
    assert len(set(expected.lengths.tolist())) > 4  # they leave one after the other
    assert found.texts == expected.texts


# --- updating --------------------------------------------------------------------------------------------------------

STEP = dict(prompts=8, group_size=8, max_new_tokens=80, micro_batch=16, eval_every=0, lr=1e-3, guard="warn")


def step_on(device: str, rollouts: Rollouts, state: dict | None = None, **settings):
    """The metrics of one step on given responses, the trained parameters [n] before and after it, and the state
    before."""
    trainer = Trainer(TrainConfig(device=device, **STEP, **settings))
    if state:
        trainer.load_state(state)
    state = copy.deepcopy(trainer.state())
    trainer.sample = lambda step: rollouts

    def weights() -> torch.Tensor:
        return torch.cat([p.detach().cpu().flatten() for p in trainer.model.parameters() if p.requires_grad])

    before = weights()
    metrics, _, _ = trainer.step()
    return metrics, before, weights(), state


@pytest.fixture(scope="module")
def graded() -> Rollouts:
    rollouts = Trainer(TrainConfig(device="cpu", **STEP)).sample(1)
    share = rollouts.correct.view(-1, 8).double().mean(1)  # [P]
    assert ((share > 0) & (share < 1)).any()  # there is something to learn
    return rollouts


@needs_gpu
@pytest.mark.parametrize("rank", [0, 4], ids=["full", "lora"])
@pytest.mark.parametrize("method", ["grpo", "f_isft_posneg"])
def test_a_step_is_the_cpus_to_rounding(method, rank, graded, device):
    settings = dict(method=method, lora_rank=rank, precision="fp32")
    expected, before, after, state = step_on("cpu", graded, **settings)
    found, start, end, _ = step_on(device, graded, state, **settings)
    assert torch.equal(before, start)
    assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-3) and expected["grad_norm"] > 0
    assert found["loss"] == pytest.approx(expected["loss"], abs=1e-5)
    # Adam's first step is lr times a sign, which rounding can turn only where the gradient is next to nothing.
    assert (end - after).abs().mean() < 0.05 * (after - before).abs().mean()


@on_each
@pytest.mark.parametrize("rank", [0, 4], ids=["full", "lora"])
@pytest.mark.parametrize("checkpointing", [0, 1])
def test_a_step_in_bf16_is_near_that_in_fp32(rank, checkpointing, graded, device, nothing_is_tiny):
    settings = dict(method="grpo_no_kl", lora_rank=rank, gradient_checkpointing=checkpointing)
    expected, before, _, state = step_on("cpu", graded, precision="fp32", **settings)
    found, _, end, _ = step_on(device, graded, state, precision="bf16", **settings)
    assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=0.15)
    assert 0 < (end - before).abs().max() < 1.1 * STEP["lr"]


KILLED = """
import os, signal, sys
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.run import train

def kill(step, metrics):
    if step == 5:
        os.kill(os.getpid(), signal.SIGKILL)

train(TrainConfig(**{settings}), sys.argv[1], on_step=kill)
"""


@needs_gpu
def test_a_run_that_is_killed_goes_on_to_the_same_metrics(device, tmp_path):
    settings = STEP | dict(
        method="grpo", steps=6, checkpoint_every=3, eval_every=3, eval_problems=16, device=device, lr=1e-4
    )
    program = KILLED.replace("{settings}", repr(settings))
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path / "killed")], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (tmp_path / "killed" / "checkpoint.pt").exists()
    config = TrainConfig(**settings)
    found, expected = (train(config, tmp_path / name).metrics for name in ("killed", "whole"))
    assert found["step"].tolist() == list(range(7))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-4, atol=1e-7)


# --- memory ----------------------------------------------------------------------------------------------------------


def trainer_of(config, device: str, **settings) -> Trainer:
    """A trainer of a random model of that architecture, made where it will compute."""
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen2ForCausalLM(config).eval()
    return Trainer(TrainConfig(device=device, guard="warn", **settings), Policy(model, load_policy().tokenizer))


def peak_of(work) -> int:
    """The most bytes of tensors that were alive on the GPU at a time beyond what is there now."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    return torch.cuda.max_memory_allocated() - before


@needs_gpu
@pytest.mark.parametrize(
    "settings",
    [
        dict(method="nsr", precision="fp32"),
        dict(method="nsr", precision="bf16", gradient_checkpointing=1),
        dict(method="nsr", precision="bf16", lora_rank=8),
        dict(method="grpo", precision="bf16", reward="length_bonus"),
    ],
    ids=["fp32", "bf16 and checkpointing", "lora", "reference"],
)
def test_a_run_takes_what_was_estimated(settings, device):
    """Within the factor that the CPU's estimates are held to, the sampling in it."""
    config = middling(vocab_size=32_000, hidden_size=768, intermediate_size=3072, num_hidden_layers=8)
    whole = dict(prompts=8, group_size=8, micro_batch=32, max_new_tokens=160, eval_every=0) | settings

    def run() -> None:
        trainer = trainer_of(config, device, **whole)
        for _ in range(2):
            trainer.step()

    peak = peak_of(run)
    estimated = estimate(config, TrainConfig(device=device, **whole), prompt_tokens=16).total
    assert peak / FACTOR <= estimated <= peak * FACTOR, (estimated / 2**20, peak / 2**20)


@needs_gpu
def test_where_memory_runs_out_the_work_is_halved(device, graded):
    """With 60 % of what an update took, it is made in smaller parts and is the same update."""
    config = middling(vocab_size=8000, hidden_size=512, intermediate_size=2048)
    found = []

    def step() -> None:
        trainer = trainer_of(config, device, method="grpo_no_kl", prompts=8, group_size=8, micro_batch=64, eval_every=0)
        trainer.sample = lambda step: graded
        found.append(trainer.step()[0]["grad_norm"])

    with warnings.catch_warnings():
        warnings.simplefilter("error", RlinoWarning)
        peak = peak_of(step)
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 0.6 * peak) / total)
    try:
        with pytest.warns(RlinoWarning, match="out of memory: from here on"):
            step()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert found[1] == pytest.approx(found[0], rel=1e-3) and found[0] > 0


# --- TRL's trainer ---------------------------------------------------------------------------------------------------


@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_engine_of_trl_takes_five_steps(precision, device, tmp_path):
    pytest.importorskip("trl")
    from rlino_lib.scale.run import train as at_scale

    settings = STEP | dict(method="grpo", steps=5, precision=precision, eval_every=5, eval_problems=16)
    runs = []
    peak = peak_of(lambda: runs.append(at_scale(TrainConfig(**settings), tmp_path / "run")))
    (run,) = runs
    assert peak > 2**20  # it computed on the GPU
    assert run.complete and run.metrics["step"].tolist() == list(range(6))
    assert run.metrics[["reward", "loss", "grad_norm", "kl"]][1:].notna().all(axis=None)
    assert run.metrics["eval/accuracy"].notna().tolist() == [True, *[False] * 4, True]
