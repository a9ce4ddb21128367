"""`rlino bench gpu`: what a card makes of a model of Qwen2.5-0.5B's shape within a minute, printed as it is measured.

On a CPU a tiny model goes through the same measurements. That shows that they run, and nothing about a card.
"""

from __future__ import annotations

import copy
import importlib.util
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlino_lib.cli.bench import decoding_seconds, four_digits, generate, shape_config, timed, trl_seconds
from rlino_lib.policy.device import pick_device
from rlino_lib.policy.models import Policy, count_parameters, load_policy
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.policy.sampling import sample
from rlino_lib.tasks import get_task
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.memory import GIB, estimate, free_bytes, peak_bytes, update_flops
from rlino_lib.training.trainer import Trainer

BUDGET = 55.0  # seconds, after which no other measurement is begun
CHARACTERS = 100  # of a prompt: a byte each, since the tokenizer of the base has no other words for them


@dataclass(frozen=True)
class Load:
    """A model at random weights, and how much it writes. The seconds of a step of decoding are those by which samples
    of `new_tokens` take longer than samples of `few`."""

    shape: Qwen2Config
    prompts: int
    group: int
    new_tokens: int
    few: int
    generated: int  # tokens that `model.generate` writes, which takes long
    precision: str
    base_tokens: int  # the cap on the responses of the 0.8 M base

    @property
    def rows(self) -> int:
        """Responses of a step."""
        return self.prompts * self.group


def on_a_card() -> Load:
    """What is measured on a GPU."""
    return Load(shape_config("0.5b"), 64, 8, new_tokens=128, few=16, generated=24, precision="bf16", base_tokens=112)


def tiny() -> Load:
    """What goes through the same measurements elsewhere."""
    config = Qwen2Config(
        vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    return Load(config, 4, 2, new_tokens=8, few=2, generated=4, precision="fp32", base_tokens=8)


class GpuBench:
    """The measurements, each of which returns its numbers; `numbers` holds those of all so far."""

    def __init__(self, load: Load, device: str, seed: int) -> None:
        self.load, self.device, self.seed = load, device, seed
        self.numbers: dict[str, Any] = {}
        self.free = free_bytes(device)  # before anything is loaded
        torch.manual_seed(seed)
        with torch.device(device):
            model = Qwen2ForCausalLM(load.shape).eval()
        self.policy = Policy(model, load_policy().tokenizer)
        self.task = get_task("word_problems")
        self.problems = self.task.problems("train", load.prompts)
        self.prompts = [self.task.prompt(p)[:CHARACTERS] for p in self.problems]
        self.config = TrainConfig(
            method="nsr", prompts=load.prompts, group_size=load.group, max_new_tokens=load.new_tokens, eval_every=0,
            precision=load.precision, device=device, seed=seed, guard="warn",
        )  # fmt: skip
        self.trainer: Trainer | None = None  # made by the first update
        self.rollouts: Rollouts | None = None

    def seconds(self, function: Callable[[], Any]) -> tuple[float, Any]:
        """The seconds of a function on the card, and its result."""
        return timed(function, self.device)

    def sample(self, prompts: int, new_tokens: int) -> Rollouts:
        """Graded responses of exactly `new_tokens` to the first of the prompts."""
        return sample(
            self.policy, self.prompts[:prompts], self.load.group, max_new_tokens=new_tokens, seed=self.seed,
            precision=self.load.precision, ignore_eos=True,
        ).grade(self.task, self.problems[:prompts])  # fmt: skip

    # --- what is measured, the most important first

    def sampling(self) -> dict[str, float]:
        """decoding of all rows"""

        def write(tokens: int) -> None:
            self.rollouts = self.sample(self.load.prompts, tokens)

        step, start, whole = decoding_seconds(write, self.load.few, self.load.new_tokens, self.device)
        speed = self.load.rows * self.load.new_tokens / whole
        return {"decode_ms": 1e3 * step, "prefill_ms": 1e3 * start, "sample_s": whole, "tokens_per_s": speed}

    def generate(self) -> dict[str, float]:
        """transformers' own loop with weights in bfloat16, the whole of it computed from a part"""
        n, part = self.load.new_tokens, self.load.generated
        model = copy.deepcopy(self.policy.model)
        half = Policy(model.to(torch.bfloat16) if self.load.precision == "bf16" else model, self.policy.tokenizer)
        some = partial(generate, half, self.prompts, self.load.group)
        step, _, whole = decoding_seconds(some, max(1, part // 4), part, self.device)
        seconds = whole + (n - part) * step
        return {
            "generate_ms": 1e3 * step, "generate_tokens_per_s": self.load.rows * n / seconds,
            "ratio": seconds / self.numbers["sample_s"],
        }  # fmt: skip

    def update(self) -> dict[str, float]:
        """an update on all rows, log-probs of the old policy included"""
        self.trainer = Trainer(self.config, self.policy)
        self._step(self.rollouts)  # a warm-up, which makes Adam's moments and takes memory for good
        seconds, _ = self._step(self.rollouts)
        tokens = int(self.rollouts.sequences()[1].sum())
        written = int(self.rollouts.mask.sum())
        flops = update_flops(self.load.shape, tokens, tokens / self.load.rows, head_tokens=written)
        return {"update_s": seconds, "update_tokens": tokens, "update_tflops": flops / seconds / 1e12}

    def step(self) -> dict[str, float]:
        """a whole step, and the most memory in use meanwhile"""
        if self.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
        seconds, _ = self._step(None)
        peak = torch.cuda.max_memory_allocated() if self.device.startswith("cuda") else peak_bytes()
        length = self.rollouts.prompt_ids.shape[1]
        estimated = estimate(self.load.shape, self.config, length, self.free).total
        return {"step_s": seconds, "peak_gib": peak / GIB, "estimate_gib": estimated / GIB}

    def base(self) -> dict[str, float]:
        """a step of GRPO on the shipped base, in float32, in bfloat16, and on two threads of the CPU"""
        numbers = {f"base_{precision}_s": self._base(self.device, precision) for precision in ("fp32", "bf16")}
        before = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            return numbers | {"base_cpu_s": self._base("cpu", "fp32")}
        finally:
            torch.set_num_threads(before)

    def trl(self) -> dict[str, float]:
        """a step of TRL's trainer on the shipped base"""
        return {"trl_base_s": trl_seconds(self._base_config(self.device, "fp32"), repeats=1)}

    # --- parts of them

    def _step(self, rollouts: Rollouts | None) -> tuple[float, Any]:
        """The seconds of a step of the trainer on given responses, or on new ones."""
        load = self.load
        # In place of the method, so that a step takes these.
        self.trainer.sample = lambda step: rollouts or self.sample(load.prompts, load.new_tokens)  # type: ignore[method-assign]
        return self.seconds(self.trainer.step)

    def _base_config(self, device: str, precision: str) -> TrainConfig:
        return TrainConfig(
            method="grpo_no_kl", prompts=self.load.prompts, group_size=self.load.group, eval_every=0, guard="warn",
            max_new_tokens=self.load.base_tokens, device=device, precision=precision, seed=self.seed,
        )  # fmt: skip

    def _base(self, device: str, precision: str) -> float:
        """The seconds of a step of the shipped base after a warm-up."""
        trainer = Trainer(self._base_config(device, precision))
        self.seconds(trainer.step)
        return min(self.seconds(trainer.step)[0] for _ in range(2))


# Each measurement, the seconds that it may take on a card, and the package that it needs.
MEASUREMENTS = (
    ("sampling", 10, ""), ("update", 12, ""), ("generate", 6, ""), ("step", 6, ""), ("base", 18, ""),
    ("trl", 20, "trl"),
)  # fmt: skip
# What each of them reports.
NUMBERS = (
    "decode_ms", "prefill_ms", "sample_s", "tokens_per_s", "generate_ms", "generate_tokens_per_s", "ratio", "update_s",
    "update_tokens", "update_tflops", "step_s", "peak_gib", "estimate_gib", "base_fp32_s", "base_bf16_s", "base_cpu_s",
    "trl_base_s",
)  # fmt: skip


def bench_gpu(seed: int = 0, budget: float = BUDGET) -> dict[str, Any]:
    """One model of Qwen2.5-0.5B's shape at random weights, 64 prompts × 8 samples × 128 tokens, in bfloat16.

    Each measurement is printed on stderr when it is there. The most important ones come first, and what might not end
    within `budget` seconds is left out. The result has every number by its unit, null where it was not measured:
    milliseconds of a decoding step of all rows and of what comes before the first (prompts, capture), tokens per
    second, their ratio to `model.generate`, seconds and model TFLOP/s of an update, seconds of a whole step, its peak
    memory beside the estimate, and seconds of a step of the shipped base.
    """
    began = time.perf_counter()
    device = pick_device()
    load = on_a_card() if device.startswith("cuda") else tiny()
    print(f"gpu: a model of random weights on {device}, {load.rows} rows", file=sys.stderr, flush=True)
    if not device.startswith("cuda"):
        print("  no card here: this shows that the measurements run, and its numbers mean nothing", file=sys.stderr)
    bench = GpuBench(load, device, seed)
    for name, needs, package in MEASUREMENTS:
        if package and not importlib.util.find_spec(package):
            continue
        measure = getattr(bench, name)
        spent = time.perf_counter() - began
        if spent + (needs if device.startswith("cuda") else 0) > budget:
            print(f"  left out after {spent:.0f} s: {measure.__doc__}", file=sys.stderr, flush=True)
            continue
        numbers = measure()
        bench.numbers |= numbers
        words = ", ".join(f"{key} {value:,.4g}" for key, value in numbers.items())
        print(f"  {measure.__doc__}: {words}", file=sys.stderr, flush=True)
    return {
        "bench": "gpu", "device": device, "torch": torch.__version__, "threads": torch.get_num_threads(),
        "parameters": count_parameters(bench.policy.model), "precision": load.precision, "prompts": load.prompts,
        "group_size": load.group, "new_tokens": load.new_tokens, "seconds": round(time.perf_counter() - began, 1),
        **{key: four_digits(bench.numbers.get(key)) for key in NUMBERS},
    }  # fmt: skip
