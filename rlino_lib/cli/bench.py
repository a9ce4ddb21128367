"""`rlino bench`: our speed beside transformers' and TRL's, same model, prompts, lengths and threads, in one process.

And the memory of log-probs over a large vocabulary, each way in a process of its own, since a peak cannot be lowered.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlino_lib.errors import RlinoError
from rlino_lib.policy.device import autocast, pick_device
from rlino_lib.policy.logprobs import last_hidden, token_logprobs
from rlino_lib.policy.models import Policy, count_parameters, load_policy
from rlino_lib.policy.sampling import sample
from rlino_lib.tasks import Countdown
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.memory import peak_bytes

PROMPTS, GROUP, NEW_TOKENS = 64, 8, 96
TOKENS, VOCABULARY = 2048, 151_936  # two responses of 1,024 tokens, and Qwen2.5's vocabulary


def seconds(*functions: Callable[[], Any], repeats: int = 5) -> list[float]:
    """The median seconds of each function, run in turn so that a drift of the machine touches all; one warm-up each."""
    times: list[list[float]] = [[] for _ in functions]
    for repeat in range(repeats + 1):
        for f, found in zip(functions, times, strict=True):
            started = time.perf_counter()
            f()
            if repeat:
                found.append(time.perf_counter() - started)
    return [statistics.median(found) for found in times]


def gemm_peak(n: int = 1024, repeats: int = 9) -> float:
    """The machine's own float32 matrix-multiply rate at these threads, FLOP/s: the best of a few square products."""
    a, b = torch.randn(n, n), torch.randn(n, n)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        for _ in range(5):
            a @ b
        best = min(best, (time.perf_counter() - started) / 5)
    return 2 * n**3 / best


def bench_rollout(repeats: int = 5, seed: int = 0) -> dict[str, Any]:
    """Tokens a second of `sample` and of `model.generate` at 64 prompts × 8 samples × 96 new tokens, EOS ignored."""
    policy, task = load_policy(), Countdown()
    prompts = [task.prompt(p) for p in task.problems("test", PROMPTS)]
    inputs = policy.tokenizer(prompts, return_tensors="pt", padding=True)

    def generate() -> None:
        with torch.inference_mode():
            policy.model.generate(
                **inputs, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, num_return_sequences=GROUP,
                max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS,
            )  # fmt: skip

    def ours() -> None:
        sample(policy, prompts, GROUP, max_new_tokens=NEW_TOKENS, seed=seed, ignore_eos=True)

    fast, slow = seconds(ours, generate, repeats=repeats)
    tokens, peak = PROMPTS * GROUP * NEW_TOKENS, gemm_peak()
    return {
        "bench": "rollout",
        "tokens": tokens,
        "threads": torch.get_num_threads(),
        "rlino_tokens_per_s": round(tokens / fast),
        "generate_tokens_per_s": round(tokens / slow),
        "ratio": round(slow / fast, 2),
        "gemm_gflops": round(peak / 1e9, 1),
        "share_of_gemm_peak": round(2 * count_parameters(policy.model) * tokens / fast / peak, 3),
    }


def bench_step(repeats: int = 5, seed: int = 0) -> dict[str, Any]:
    """Seconds of one whole GRPO step (sample, grade, update), ours and TRL's, 64 prompts × 8 samples, cap 112."""
    try:
        from transformers import PrinterCallback, TrainerCallback
        from trl import GRPOConfig, GRPOTrainer
    except ImportError as e:
        raise RlinoError("`rlino bench step` needs TRL: pip install 'rlino_lib[test]'") from e
    from datasets import Dataset

    from rlino_lib.training.trainer import Trainer

    config = TrainConfig(method="grpo_no_kl", prompts=PROMPTS, group_size=GROUP, seed=seed, eval_every=0)
    ours = Trainer(config)
    (fast,) = seconds(ours.step, repeats=repeats)

    task, policy = Countdown(), load_policy()
    problems = {task.prompt(p): p for p in task.problems("train", PROMPTS * (repeats + 2))}

    def reward(prompts, completions, **kwargs):
        return [task.grade(problems[p], c).reward for p, c in zip(prompts, completions, strict=True)]

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.marks = []

        def on_step_begin(self, *args, **kwargs):
            self.marks.append(time.perf_counter())

        def on_train_end(self, *args, **kwargs):
            self.marks.append(time.perf_counter())

    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        settings = GRPOConfig(
            output_dir=folder, per_device_train_batch_size=PROMPTS * GROUP, num_generations=GROUP, beta=0.0,
            max_completion_length=config.max_new_tokens, temperature=1.0, learning_rate=config.lr, loss_type="grpo",
            max_steps=repeats + 1, use_cpu=True, bf16=False, report_to=[], save_strategy="no", logging_strategy="no",
            disable_tqdm=True, seed=seed, gradient_checkpointing=False,
        )  # fmt: skip
        trl = GRPOTrainer(
            model=policy.model, reward_funcs=reward, args=settings, processing_class=policy.tokenizer,
            train_dataset=Dataset.from_dict({"prompt": list(problems)}), callbacks=[clock],
        )  # fmt: skip
        trl.remove_callback(PrinterCallback)  # stdout is for our one JSON line
        trl.train()
    slow = statistics.median(b - a for a, b in zip(clock.marks[1:-1], clock.marks[2:], strict=True))
    return {
        "bench": "step",
        "threads": torch.get_num_threads(),
        "rlino_s": round(fast, 3),
        "trl_s": round(slow, 3),
        "ratio": round(slow / fast, 2),
    }


def _all_logits(hidden: torch.Tensor, weight: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Log-probs [N] as small models take them, from logits [N, V]; a function, so that its names free them in time."""
    logits = hidden @ weight.t()  # [N, V]
    return (logits / 1.0).log_softmax(-1).gather(1, ids[:, None])[:, 0]  # [N]


def _alone(function: Callable[..., Any], *args: Any) -> Any:
    """What a function returns in a process of its own, whose peak of memory is its own too."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def _pass(way: str, of: str, config: Qwen2Config, tokens: int, threads: int, seed: int) -> tuple[int, float]:
    """The bytes by which one pass forward and backward raises this process's peak, and its seconds.

    `of` says through what: the `head`, a `frozen` head (as under LoRA), or the whole `model`, its head included.
    """
    take = {"naive": _all_logits, "chunked": token_logprobs}[way]
    torch.set_num_threads(threads)
    torch.manual_seed(seed)

    def inputs(tokens: int, hidden: int, vocabulary: int) -> tuple[torch.Tensor, ...]:
        weight = torch.randn(vocabulary, hidden, requires_grad=of == "head")
        return torch.randn(tokens, hidden, requires_grad=True), weight, torch.randint(vocabulary, (tokens,))

    take(*inputs(64, 64, 64)).sum().backward()  # what the libraries take once
    model = Qwen2ForCausalLM(config) if of == "model" else None
    ids = torch.randint(config.vocab_size, (2, tokens // 2))  # [2, T], of the model alone
    given = () if model else inputs(tokens, config.hidden_size, config.vocab_size)
    before, started = peak_bytes(), time.perf_counter()
    if model:
        hidden = last_hidden(model, model.lm_head, input_ids=ids, use_cache=False).flatten(0, 1)  # [2*T, H]
        given = hidden, model.lm_head.weight, ids.flatten()
    take(*given).sum().backward()
    return peak_bytes() - before, time.perf_counter() - started


def bench_memory(repeats: int = 5, seed: int = 0) -> dict[str, Any]:
    """Peak memory and seconds of log-probs, forward and backward, from all logits at once and from slices of them.

    The peak is that of the head alone, above its inputs; the gradients of the hidden states and the weight, which both
    need, are in it. The seconds are those of the head, of a frozen head and of the whole model around it.
    """
    config = shape_config("0.5b")
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for _ in range(repeats):  # in turn, so that a drift of the machine touches both
        for of in ("head", "frozen", "model"):
            for way in ("naive", "chunked"):
                measured = _alone(_pass, way, of, config, TOKENS, torch.get_num_threads(), seed)
                found.setdefault((of, way), []).append(measured)
    peak = {way: statistics.median(p for p, _ in found["head", way]) for way in ("naive", "chunked")}
    taken = {key: statistics.median(s for _, s in passes) for key, passes in found.items()}
    row: dict[str, Any] = {
        "bench": "memory",
        "tokens": TOKENS,
        "vocabulary": VOCABULARY,
        "threads": torch.get_num_threads(),
        **{f"{way}_mib": round(peak[way] / 2**20) for way in peak},
        "gradients_mib": round(4 * (TOKENS + VOCABULARY) * config.hidden_size / 2**20),
        "memory_ratio": round(peak["chunked"] / peak["naive"], 3),
    }
    for of in ("head", "frozen", "model"):
        row |= {f"{of}_{way}_s": round(taken[of, way], 2) for way in peak}
        row[f"{of}_time_ratio"] = round(taken[of, "chunked"] / taken[of, "naive"], 2)
    return row


# Shapes of Qwen2.5's base models, as their config.json gives them; their weights are random here.
SHAPES: dict[str, dict[str, Any]] = {
    "0.5b": dict(hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14),
    "1.5b": dict(hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12),
}


def shape_config(name: str) -> Qwen2Config:
    """The configuration of a model of one of the SHAPES; raises RlinoError for another name."""
    if name not in SHAPES:
        raise RlinoError(f"unknown shape {name!r}: one of {', '.join(SHAPES)}")
    return Qwen2Config(**SHAPES[name], num_key_value_heads=2, vocab_size=VOCABULARY, tie_word_embeddings=True,
                       max_position_embeddings=32_768, eos_token_id=1, pad_token_id=0)  # fmt: skip


def _shape_steps(name: str, steps: int, threads: int, seed: int) -> dict[str, Any]:
    """What `bench_shape` reports, measured in this process."""
    from rlino_lib.training.memory import GIB, estimate
    from rlino_lib.training.trainer import Trainer

    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    device = pick_device()
    on_gpu = device.startswith("cuda")
    prompts, group = (64, 8) if on_gpu else (2, 4)
    config = TrainConfig(
        method="nsr", prompts=prompts, group_size=group, max_new_tokens=256 if on_gpu else 32, eval_every=0, seed=seed,
        micro_batch=8 if on_gpu else 2, precision="bf16" if on_gpu else "fp32", guard="warn",
    )  # fmt: skip
    policy = Policy(Qwen2ForCausalLM(shape_config(name)).to(device).eval(), load_policy().tokenizer)
    trainer, tokens = Trainer(config, policy), prompts * group * config.max_new_tokens
    asked = trainer.policy.tokenizer([trainer.task.prompt(p) for p in trainer.problems[:prompts]], return_tensors="pt")
    length = asked["input_ids"].shape[1]

    def generate() -> None:
        with torch.inference_mode(), autocast(config.precision, device):
            policy.model.generate(
                **asked.to(device), do_sample=True, top_k=0, num_return_sequences=group, pad_token_id=0,
                max_new_tokens=config.max_new_tokens, min_new_tokens=config.max_new_tokens,
            )  # fmt: skip

    step, drawn, slow = seconds(trainer.step, lambda: trainer.sample(1), generate, repeats=steps)
    peak = torch.cuda.max_memory_allocated() if on_gpu else peak_bytes()
    return {
        "parameters": count_parameters(policy.model), "device": device, "precision": config.precision,
        "responses": prompts * group, "new_tokens": config.max_new_tokens, "step_s": round(step, 2),
        "update_s": round(step - drawn, 2), "rlino_tokens_per_s": round(tokens / drawn, 1),
        "generate_tokens_per_s": round(tokens / slow, 1), "ratio": round(slow / drawn, 2),
        "estimate_gib": round(estimate(policy.model.config, config, length).total / GIB, 2),
        "peak_gib": round(peak / GIB, 2),
    }  # fmt: skip


def bench_shape(name: str, repeats: int = 5, seed: int = 0) -> dict[str, Any]:
    """A random model of the shape of Qwen2.5-0.5B or 1.5B: seconds of a step and of its update, tokens a second beside
    transformers' generation, and peak memory beside the estimate; in a process of its own.

    On a GPU 64 prompts × 8 samples of 256 tokens in bfloat16, on a CPU 2 × 4 of 32 in float32. On a CPU the peak is
    that of the process, the interpreter and its libraries in it.
    """
    found = _alone(_shape_steps, name, repeats, torch.get_num_threads(), seed)
    return {"bench": f"shape-{name}", "threads": torch.get_num_threads(), **found}


BENCHES = {"rollout": bench_rollout, "step": bench_step, "memory": bench_memory}
BENCHES |= {f"shape-{name}": partial(bench_shape, name) for name in SHAPES}
