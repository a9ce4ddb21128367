"""`rlino bench`: our speed beside transformers' and TRL's, same model, prompts, lengths and threads, in one process.

And the memory of log-probs over a large vocabulary, each way in a separate process, since a peak cannot be reset.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlino_lib.errors import RlinoError
from rlino_lib.paths import base_of
from rlino_lib.policy import decode
from rlino_lib.policy.device import autocast
from rlino_lib.policy.logprobs import last_hidden, token_logprobs
from rlino_lib.policy.models import Policy, count_parameters, load_policy
from rlino_lib.policy.sampling import sample
from rlino_lib.tasks import Countdown, get_task
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.memory import peak_bytes

PROMPTS = 64
GROUP = 8  # samples of each
NEW_TOKENS = 96
MANY_PROBLEMS = 2
MANY_SAMPLES = 1024  # of each
TOKENS = 2048  # two responses of 1,024
PREFIXES = 2000  # different ones
PREFIX_PROBLEMS = 320  # whose responses they begin
CONTINUATIONS = 3  # of each
VOCABULARY = 151_936  # of Qwen2.5


def seconds(*functions: Callable[[], Any], repeats: int = 5) -> list[float]:
    """The median seconds of each function, run in turn so that a drift of the machine touches all; one warm-up each."""
    rounds = [[timed(f)[0] for f in functions] for _ in range(repeats + 1)]
    return [statistics.median(times) for times in zip(*rounds[1:], strict=True)]


def timed(function: Callable[[], Any], device: str = "cpu") -> tuple[float, Any]:
    """The seconds until the device has done all of a function, and the function's result."""
    started = time.perf_counter()
    result = function()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


def decoding_seconds(
    write: Callable[[int], Any], few: int, more: int, device: str = "cpu"
) -> tuple[float, float, float]:
    """Seconds of a step of decoding, of what comes before the first, and of all of `write(more)`, after a warm-up.

    A step takes what `write(more)` takes longer than `write(few)`, for each token more.
    """
    write(few)
    start = min(timed(lambda: write(few), device)[0] for _ in range(2))
    whole, _ = timed(lambda: write(more), device)
    step = (whole - start) / max(1, more - few)
    return step, start - few * step, whole


def four_digits(value: float | None) -> float | None:
    """Four digits of a measured number."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def gemm_peak(n: int = 1024, repeats: int = 9) -> float:
    """The machine's own float32 matrix-multiply rate at these threads, FLOP/s: the best of a few square products."""
    a = torch.randn(n, n)
    b = torch.randn(n, n)
    best = min(timed(lambda: [a @ b for _ in range(5)])[0] for _ in range(repeats))
    return 5 * 2 * n**3 / best


def _row(bench: str, **numbers: Any) -> dict[str, Any]:
    """The JSON row that a bench reports."""
    return {"bench": bench, "threads": torch.get_num_threads(), **numbers}


def generate(policy: Policy, prompts: list[str], group: int, new_tokens: int, precision: str = "fp32") -> None:
    """Sample with transformers' own loop; no response ends before `new_tokens`."""
    inputs = policy.tokenizer(prompts, return_tensors="pt", padding=True).to(policy.model.device)
    with torch.inference_mode(), autocast(precision, policy.model):
        policy.model.generate(
            **inputs, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, num_return_sequences=group, pad_token_id=0,
            max_new_tokens=new_tokens, min_new_tokens=new_tokens,
        )  # fmt: skip


def bench_rollout(repeats: int = 5, seed: int = 0) -> dict[str, Any]:
    """Tokens per second of `sample` and of `model.generate` at 64 prompts × 8 samples × 96 new tokens, EOS ignored."""
    policy = load_policy()
    task = Countdown()
    prompts = [task.prompt(p) for p in task.problems("test", PROMPTS)]
    ours = partial(sample, policy, prompts, GROUP, max_new_tokens=NEW_TOKENS, seed=seed, ignore_eos=True)
    fast, slow = seconds(ours, partial(generate, policy, prompts, GROUP, NEW_TOKENS), repeats=repeats)
    tokens = PROMPTS * GROUP * NEW_TOKENS
    peak = gemm_peak()
    return _row(
        "rollout", tokens=tokens, rlino_tokens_per_s=round(tokens / fast), generate_tokens_per_s=round(tokens / slow),
        ratio=round(slow / fast, 2), gemm_gflops=round(peak / 1e9, 1),
        share_of_gemm_peak=round(2 * count_parameters(policy.model) * tokens / fast / peak, 3),
    )  # fmt: skip


def bench_pass_at_k(repeats: int = 5, seed: int = 0) -> dict[str, Any]:
    """Tokens per second of 1,024 samples of each of 2 problems of four numbers, by cap 160, with equal rows merged and
    each by itself; the minutes that 256 such problems would take at that rate; and the peak of this process's memory.
    """
    policy = load_policy()
    task = Countdown(n_numbers=4)
    prompts = [task.prompt(p) for p in task.problems("test", MANY_PROBLEMS)]
    merged = partial(sample, policy, prompts, MANY_SAMPLES, max_new_tokens=160, seed=seed, precision="fp32")

    def alone() -> None:
        with patch.object(decode, "MANY", MANY_SAMPLES + 1):
            merged()

    fast, slow = seconds(merged, alone, repeats=repeats)
    tokens = int(merged().lengths.sum())
    return _row(
        "pass-at-k", problems=MANY_PROBLEMS, samples=MANY_SAMPLES, tokens=tokens, seconds=round(fast, 2),
        tokens_per_s=round(tokens / fast), alone_tokens_per_s=round(tokens / slow), ratio=round(slow / fast, 2),
        instructions=torch.backends.cpu.get_cpu_capability(), peak_mib=round(peak_bytes() / 2**20),
        minutes_of_256_problems=round(256 / MANY_PROBLEMS * fast / 60, 1),
    )  # fmt: skip


def bench_step(repeats: int = 5, seed: int = 0) -> dict[str, Any]:
    """Seconds of one whole GRPO step (sample, grade, update), ours and TRL's, 64 prompts × 8 samples, cap 112."""
    from rlino_lib.training.trainer import Trainer

    config = TrainConfig(method="grpo_no_kl", prompts=PROMPTS, group_size=GROUP, seed=seed, eval_every=0, device="cpu")
    (fast,) = seconds(Trainer(config).step, repeats=repeats)
    slow = trl_seconds(config, repeats)
    return _row("step", rlino_s=round(fast, 3), trl_s=round(slow, 3), ratio=round(slow / fast, 2))


def trl_seconds(config: TrainConfig, repeats: int) -> float:
    """The median seconds of TRL's step with the same settings, after a warm-up, on the CPU or where TRL finds a GPU."""
    try:
        from transformers import PrinterCallback, TrainerCallback
        from trl import GRPOConfig, GRPOTrainer
    except ImportError as e:
        raise RlinoError("`rlino bench step` needs TRL: pip install 'rlino_lib[test]'") from e
    from datasets import Dataset

    task = Countdown()
    policy = load_policy()
    problems = {task.prompt(p): p for p in task.problems("train", config.prompts * (repeats + 2))}
    marks = []

    def reward(prompts, completions, **kwargs):
        return [task.grade(problems[p], c).reward for p, c in zip(prompts, completions, strict=True)]

    class Clock(TrainerCallback):
        def on_step_begin(self, *args, **kwargs):
            marks.append(time.perf_counter())

        on_train_end = on_step_begin

    with tempfile.TemporaryDirectory() as folder:
        settings = GRPOConfig(
            output_dir=folder, per_device_train_batch_size=config.prompts * config.group_size,
            num_generations=config.group_size, beta=0.0, max_completion_length=config.max_new_tokens, temperature=1.0,
            learning_rate=config.lr, loss_type="grpo", max_steps=repeats + 1, bf16=False, report_to=[],
            use_cpu=config.device == "cpu", save_strategy="no", logging_strategy="no", disable_tqdm=True,
            seed=config.seed, gradient_checkpointing=False,
        )  # fmt: skip
        trl = GRPOTrainer(
            model=policy.model, reward_funcs=reward, args=settings, processing_class=policy.tokenizer,
            train_dataset=Dataset.from_dict({"prompt": list(problems)}), callbacks=[Clock()],
        )  # fmt: skip
        trl.remove_callback(PrinterCallback)  # stdout is for our one JSON line
        trl.train()
    return statistics.median(end - start for start, end in pairwise(marks[1:]))


CAPS = {"word_problems": 64, "countdown": 112}  # of the tasks of `bench_credit`, as in the recorded runs
CREDIT_PROMPTS = 32
CREDIT_METHODS: dict[str, dict[str, Any]] = {"grpo_no_kl": {}, "vineppo": {"value_samples": CONTINUATIONS}}


def bench_credit(repeats: int = 5, seed: int = 0) -> dict[str, Any]:
    """Seconds and sampled tokens of one whole step (sample, value, update) of GRPO without KL and of VinePPO with three
    continuations of each step, 32 prompts × 8 responses, and the seconds of valuing 2,000 different prefixes by three
    continuations each: on word problems and on Countdown, with the shipped bases.
    """
    row: dict[str, Any] = {"prompts": CREDIT_PROMPTS, "group_size": GROUP, "value_samples": CONTINUATIONS}
    for task, cap in CAPS.items():
        measured = _credit_steps(task, cap, repeats, seed) | _valuing(task, cap, repeats, seed)
        row |= {f"{task}_{name}": value for name, value in measured.items()}
    return _row("credit", **row)


def _credit_steps(task: str, cap: int, repeats: int, seed: int) -> dict[str, Any]:
    """The median seconds and tokens of a step by each method, after a warm-up, and the ratio of the seconds."""
    from rlino_lib.training.trainer import Trainer

    size: dict[str, Any] = dict(prompts=CREDIT_PROMPTS, group_size=GROUP, max_new_tokens=cap, eval_every=0, seed=seed)
    tokens: dict[str, list[int]] = {method: [] for method in CREDIT_METHODS}

    def step(trainer: Any) -> None:
        metrics, rollouts, _ = trainer.step()
        tokens[trainer.objective.name].append(int(rollouts.lengths.sum()) + metrics.get("value_tokens", 0))

    configs = [TrainConfig(method=m, objective_settings=o, task=task, device="cpu", **size)
               for m, o in CREDIT_METHODS.items()]  # fmt: skip
    durations = seconds(*(partial(step, Trainer(config)) for config in configs), repeats=repeats)
    row: dict[str, Any] = {"ratio": round(durations[1] / durations[0], 2)}
    for method, duration in zip(CREDIT_METHODS, durations, strict=True):
        row |= {f"{method}_s": round(duration, 2), f"{method}_tokens": round(statistics.median(tokens[method][1:]))}
    return row


def _valuing(task: str, cap: int, repeats: int, seed: int) -> dict[str, Any]:
    """The median seconds of valuing different starts of steps of a base's responses, after a warm-up; their tokens."""
    from rlino_lib.evaluation.graded import sample_graded
    from rlino_lib.evaluation.values import cut_places, prefix_values, step_ends

    policy = load_policy(base_of(task))
    own = get_task(task)
    problems = own.problems("train", PREFIX_PROBLEMS)
    rollouts = sample_graded(policy, own, problems, GROUP, seed=seed, max_new_tokens=cap)
    cuts = cut_places(policy, rollouts, step_ends(own, rollouts))
    rows = zip(rollouts.rows(), cuts, strict=True)
    starts = [(problem, text[: cut[0]]) for (problem, text), row in rows for cut in row if cut and cut[1] < cap]
    different = list({(problem.id, start): (problem, start) for problem, start in starts}.values())[:PREFIXES]
    tables = []

    def value() -> None:
        tables.append(prefix_values(policy, own, different, CONTINUATIONS, seed, max_new_tokens=cap))

    (duration,) = seconds(value, repeats=repeats)
    tokens = int(tables[0]["sampled"].sum())
    return {"prefixes": len(different), "values_s": round(duration, 2), "values_tokens": tokens}


def _all_logits(hidden: torch.Tensor, weight: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Log-probs [N] as small models take them, from logits [N, V]; a function, so that its names free them in time."""
    logits = hidden @ weight.t()  # [N, V]
    return (logits / 1.0).log_softmax(-1).gather(1, ids[:, None])[:, 0]  # [N]


def _alone(function: Callable[..., Any], *args: Any) -> Any:
    """The result of a function in a separate process, so that its peak of memory is measured alone."""
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if forks else "spawn")
    context.set_forkserver_preload([__name__])  # torch is loaded once, and not by each process
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args).result()


WAYS = {"naive": _all_logits, "chunked": token_logprobs}
THROUGH = ("head", "frozen", "model")  # the head, a frozen one as under LoRA, the whole model with its head


def _pass(way: str, through: str, config: Qwen2Config, tokens: int, threads: int, seed: int) -> tuple[int, float]:
    """The bytes by which one pass forward and backward raises this process's peak, and its seconds."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)

    def inputs(tokens: int, hidden: int, vocabulary: int) -> tuple[torch.Tensor, ...]:
        weight = torch.randn(vocabulary, hidden, requires_grad=through == "head")
        return torch.randn(tokens, hidden, requires_grad=True), weight, torch.randint(vocabulary, (tokens,))

    WAYS[way](*inputs(64, 64, 64)).sum().backward()  # what the libraries allocate once
    model = Qwen2ForCausalLM(config) if through == "model" else None
    ids = torch.randint(config.vocab_size, (2, tokens // 2))  # [2, T], of the model alone
    arguments = () if model else inputs(tokens, config.hidden_size, config.vocab_size)
    before = peak_bytes()
    started = time.perf_counter()
    if model:
        hidden = last_hidden(model, model.lm_head, input_ids=ids, use_cache=False).flatten(0, 1)  # [2*T, H]
        arguments = hidden, model.lm_head.weight, ids.flatten()
    WAYS[way](*arguments).sum().backward()
    return peak_bytes() - before, time.perf_counter() - started


def bench_memory(repeats: int = 5, seed: int = 0) -> dict[str, Any]:
    """Peak memory and seconds of log-probs, forward and backward, from all logits at once and from slices of them.

    The peak is that of the head alone, above its inputs; the gradients of the hidden states and the weight, which both
    need, are in it. The seconds are those of the head, of a frozen head and of the whole model around it.
    """
    config = shape_config("0.5b")
    passes: dict[tuple[str, str], list[tuple[int, float]]] = {(t, w): [] for t in THROUGH for w in WAYS}
    for _ in range(repeats):  # in turn, so that a drift of the machine touches both
        for (through, way), measured in passes.items():
            measured.append(_alone(_pass, way, through, config, TOKENS, torch.get_num_threads(), seed))
    peak = {way: statistics.median(rise for rise, _ in passes["head", way]) for way in WAYS}
    row = _row(
        "memory", tokens=TOKENS, vocabulary=VOCABULARY,
        **{f"{way}_mib": round(peak[way] / 2**20) for way in WAYS},
        gradients_mib=round(4 * (TOKENS + VOCABULARY) * config.hidden_size / 2**20),
        memory_ratio=round(peak["chunked"] / peak["naive"], 3),
    )  # fmt: skip
    for through in THROUGH:
        durations = {way: statistics.median(s for _, s in passes[through, way]) for way in WAYS}
        row |= {f"{through}_{way}_s": round(durations[way], 2) for way in WAYS}
        row[f"{through}_time_ratio"] = round(durations["chunked"] / durations["naive"], 2)
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


def _shape_steps(name: str, repeats: int, threads: int, seed: int) -> dict[str, Any]:
    """What `bench_shape` reports, measured in this process."""
    from rlino_lib.training.memory import GIB, estimate
    from rlino_lib.training.trainer import Trainer

    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    size: dict[str, Any] = dict(prompts=2, group_size=4, max_new_tokens=32, micro_batch=2, precision="fp32")
    config = TrainConfig(method="nsr", eval_every=0, seed=seed, guard="warn", device="cpu", **size)
    policy = Policy(Qwen2ForCausalLM(shape_config(name)).eval(), load_policy().tokenizer)
    trainer = Trainer(config, policy)
    prompts = [trainer.task.prompt(p) for p in trainer.problems[: config.prompts]]
    length = policy.tokenizer(prompts, return_tensors="pt", padding=True)["input_ids"].shape[1]
    theirs = partial(generate, policy, prompts, config.group_size, config.max_new_tokens, config.precision)
    step, sampling, slow = seconds(trainer.step, lambda: trainer.sample(1), theirs, repeats=repeats)
    responses = config.prompts * config.group_size
    tokens = responses * config.max_new_tokens
    return {
        "parameters": count_parameters(policy.model), "device": config.device, "precision": config.precision,
        "responses": responses, "new_tokens": config.max_new_tokens, "step_s": round(step, 2),
        "update_s": round(step - sampling, 2), "rlino_tokens_per_s": round(tokens / sampling, 1),
        "generate_tokens_per_s": round(tokens / slow, 1), "ratio": round(slow / sampling, 2),
        "estimate_gib": round(estimate(policy.model.config, config, length).total / GIB, 2),
        "peak_gib": round(peak_bytes() / GIB, 2),
    }  # fmt: skip


def bench_shape(name: str, repeats: int = 5, seed: int = 0) -> dict[str, Any]:
    """A random model of the shape of Qwen2.5-0.5B or 1.5B: seconds of a step and of its update, tokens per second
    beside transformers' generation, and peak memory beside the estimate; in a process of its own.

    On a CPU, with 2 prompts × 4 samples of 32 tokens in float32; `rlino bench gpu` measures a card. The peak is that of
    the process, the interpreter and its libraries in it.
    """
    return _row(f"shape-{name}", **_alone(_shape_steps, name, repeats, torch.get_num_threads(), seed))


BENCHES = {"rollout": bench_rollout, "pass-at-k": bench_pass_at_k, "step": bench_step, "credit": bench_credit}
BENCHES |= {"memory": bench_memory} | {f"shape-{name}": partial(bench_shape, name) for name in SHAPES}
