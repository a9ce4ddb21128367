"""`rlino train --dry-run`: the memory and the time of a run, rehearsed at random weights of its model's shape.

Nothing is downloaded but a model's configuration, and nothing of Qwen2.5's sizes. Memory is the estimate that every run
makes beforehand. Seconds are measured on a part of a step and multiplied by what a whole step has more of.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig

from rlino_lib.cli.bench import SHAPES, decoding_seconds, four_digits, shape_config, timed
from rlino_lib.errors import RlinoError
from rlino_lib.evaluation.evaluate import TEST_PROBLEMS
from rlino_lib.methods.catalogue import unread, varied
from rlino_lib.policy.device import SMALL, machine, pick_device
from rlino_lib.policy.models import Policy, count_parameters, hub_options, load_policy
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.policy.sampling import sample
from rlino_lib.tasks import Grade, get_task
from rlino_lib.training.checks import check_run
from rlino_lib.training.config import VERIFIER, TrainConfig
from rlino_lib.training.memory import GIB, MAX_ROWS, PROMPT_TOKENS, advice, estimate, free_bytes, update_flops
from rlino_lib.training.trainer import Trainer

PARTS = ("weights", "reference", "optimizer", "gradients", "activations", "cache")
GSM8K_TEST = 1319


@dataclass(frozen=True)
class Part:
    """The part of a step that is measured: layers of the model, rows, and tokens of prompts and responses."""

    layers: int
    sampled: int  # rows of `sample`
    few: int  # tokens that it writes, and more of them: their difference is that of steps of decoding
    more: int
    updated: int  # rows of an update
    prompt: int
    response: int  # tokens of a row of the update


def architecture(name: str) -> PreTrainedConfig:
    """The shape of a model, without its weights. Raises RlinoError where there is none."""
    size = name.removeprefix("Qwen/Qwen2.5-").lower()
    if size in SHAPES and not Path(name).exists():
        return shape_config(size)
    try:
        return AutoConfig.from_pretrained(name, **hub_options(name)).get_text_config()
    except Exception as e:  # the hub, the disk and the parsers below each raise their own kinds
        known = ", ".join(f"Qwen/Qwen2.5-{size.upper()}" for size in SHAPES)
        raise RlinoError(f"{name} has no configuration here to rehearse; without one: {known}") from e


def part_of(config: TrainConfig, layers: int, large: bool, on_gpu: bool, prompt_tokens: int) -> Part:
    """What is measured of a step: a whole batch of rows for some tokens, or of a large model on a CPU next to nothing.

    `prompt_tokens` is the length of a prompt.
    """
    responses, cap = config.prompts * config.group_size, config.max_new_tokens
    if large and not on_gpu:
        return Part(2, 4, 1, min(5, cap), 4, 16, 16)
    rows = 2 * min(max(config.micro_batch, 2), max(responses // 2, 2))
    sampled = min(config.prompts, max(1, MAX_ROWS // config.group_size)) * config.group_size
    return Part(layers, sampled, min(8, cap), min(40, cap), rows, prompt_tokens, cap)


def prompt_length(config: TrainConfig) -> int:
    """Tokens of the longest of a run's first prompts, where tokenizer and problems are at hand; else an assumption."""
    if not Path(config.model).exists():
        return PROMPT_TOKENS
    try:
        task = get_task(config.task, **config.task_settings)
        tokenizer = AutoTokenizer.from_pretrained(config.model)
        return max(len(tokenizer(task.prompt(p))["input_ids"]) for p in task.problems("train", 64))
    except Exception:  # of a tokenizer that is not there or a data set that was not fetched
        return PROMPT_TOKENS


def rehearse(config: TrainConfig) -> dict[str, Any]:
    """What a run with these settings needs, printed on stderr and returned: GiB by purpose, tokens and seconds of a
    step, hours of the whole. Responses are taken to be as long as the cap allows.

    Raises RlinoError for settings that the run would refuse, and where the model's shape is not known.
    """
    check_run(config)
    device = pick_device(config.device)
    shape = architecture(config.model)
    prompt_tokens = prompt_length(config)
    needed, free = estimate(shape, config, prompt_tokens), free_bytes(config.device)
    fits = needed.update <= free
    responses = config.prompts * config.group_size
    with torch.device("meta"):
        parameters = count_parameters(AutoModelForCausalLM.from_config(shape))
    result: dict[str, Any] = {
        "model": config.model, "parameters": parameters, "device": device, "machine": machine(),
        "memory_gib": {part: round(getattr(needed, part) / GIB, 2) for part in (*PARTS, "update", "total")},
        "free_gib": round(free / GIB, 2), "fits": fits, "responses": responses,
        "tokens_per_step": responses * config.max_new_tokens, "prompt_tokens": prompt_tokens, "steps": config.steps,
    }  # fmt: skip
    memory = ", ".join(f"{part} {size:.1f}" for part, size in result["memory_gib"].items() if part in PARTS)
    _say(f"{config.model}: {parameters:,} parameters at random weights, on {device}")
    _say(f"memory: about {needed.total / GIB:.1f} GiB at most at once of {free / GIB:.1f} free ({memory})")
    _say(f"a step: {responses} responses, at most {result['tokens_per_step']:,} tokens")
    if not fits:
        _say(f"an update does not fit; {advice(shape, config, free, prompt_tokens)}")
    large, on_gpu = parameters > SMALL, device.startswith("cuda")
    part = part_of(config, shape.num_hidden_layers, large, on_gpu, prompt_tokens)
    reduced = type(shape).from_dict(shape.to_dict() | _fewer(shape, part.layers))
    short = replace(_shortened(config, part), device=device)
    if estimate(reduced, short, part.prompt).update > free_bytes(config.device):
        _say("too little memory to measure a step here")
        return result | dict.fromkeys(("sample_s", "update_s", "step_s", "hours", "measured"))
    return result | _seconds(config, shape, reduced, short, part, prompt_tokens)


def _fewer(shape: PreTrainedConfig, layers: int) -> dict[str, Any]:
    """The settings that a shape with so many layers has in place of its own."""
    kinds = getattr(shape, "layer_types", None)
    return {"num_hidden_layers": layers} | ({"layer_types": kinds[:layers]} if kinds else {})


# Of a method whose values come from the task or from continuations: credit that random responses have.
_WITHOUT_VALUES = {"credit": "response", "values": None, "cuts": "steps", "advantage": "mean", "unlikely": None}


def _shortened(config: TrainConfig, part: Part) -> TrainConfig:
    """The run's settings for the part that is measured; its task plays no role, as its responses are random.

    What values take that continuations sample is left out.
    """
    if varied(config.method, config.objective_settings).values in ("continuations", "exact"):
        settings = config.objective_settings | _WITHOUT_VALUES
        idle = unread(config.method, settings)
        config = replace(config, objective_settings={k: v for k, v in settings.items() if k not in idle})
    return replace(
        config, model="", task="countdown", task_settings={}, prompts=part.updated // 2, group_size=2, steps=1,
        max_new_tokens=part.response, epochs=1, minibatches=1, eval_every=0, eval_base=0, probe_every=0, test_samples=0,
        reward=VERIFIER, guard="warn", critic_warmup=0, loss_mask="policy",
    )  # fmt: skip


def _seconds(
    config: TrainConfig, shape: PreTrainedConfig, reduced: PreTrainedConfig, short: TrainConfig, part: Part,
    prompt_tokens: int,
) -> dict[str, Any]:  # fmt: skip
    """Seconds of the sampling and of the update, measured on the part and multiplied, and hours of the run."""
    torch.manual_seed(config.seed)
    with torch.device(short.device):
        model = AutoModelForCausalLM.from_config(reduced, dtype=torch.float32).eval()
    policy = Policy(model, load_policy().tokenizer)
    responses, cap = config.prompts * config.group_size, config.max_new_tokens
    step, start = _decoding(policy, config, part)
    products = update_flops(shape, 1) / update_flops(reduced, 1)
    rows = responses / part.sampled
    sampling = rows * products * (start + cap * step)

    trainer = Trainer(short, policy)
    rollouts = _random_rollouts(shape.vocab_size, part)
    trainer.sample = lambda step: rollouts  # type: ignore[method-assign]
    whole = (timed(trainer.step, short.device)[0] for _ in range(2))
    measured = list(whole)[-1]  # the first one makes Adam's moments
    width, length = part.prompt + part.response, prompt_tokens + cap
    flops = update_flops(reduced, part.updated * width, width, head_tokens=part.updated * part.response)
    all_flops = update_flops(shape, responses * length, length, head_tokens=responses * cap)
    update = config.epochs * measured * all_flops / flops

    seconds = config.steps * (sampling + update) + _held_out(config) * sampling / responses
    _say(
        f"computed from {part.layers} of {shape.num_hidden_layers} layers, {part.sampled} rows of {part.more} tokens "
        f"sampled and {part.updated} rows of {width} updated here: {sampling:,.1f} s to sample and {update:,.1f} s to "
        f"update, {sampling + update:,.1f} s a step, {seconds / 3600:,.1f} hours for {config.steps} steps"
    )
    numbers = {"sample_s": sampling, "update_s": update, "step_s": sampling + update, "hours": seconds / 3600}
    return {name: four_digits(value) for name, value in numbers.items()} | {"measured": vars(part)}


def _decoding(policy: Policy, config: TrainConfig, part: Part) -> tuple[float, float]:
    """Seconds of a step of decoding of the part's rows, and of what comes before the first."""
    prompts = ["n" * part.prompt] * max(1, part.sampled // config.group_size)  # a byte is a token

    def write(tokens: int) -> Rollouts:
        return sample(
            policy, prompts, part.sampled // len(prompts), max_new_tokens=tokens, temperature=config.temperature,
            precision=config.precision, ignore_eos=True,
        )  # fmt: skip

    step, start, whole = decoding_seconds(write, part.few, part.more, str(policy.model.device))
    return max(step, whole / part.more / 10), max(0.0, start)  # however noisy, above 0


def _random_rollouts(vocabulary: int, part: Part) -> Rollouts:
    """Pairs of random responses, of which one is taken for right, so that every method has something to learn."""
    n = part.updated
    ids = torch.randint(vocabulary, (n, part.response))  # [N, T]
    every = torch.ones(n, part.response, dtype=torch.bool)  # [N, T]
    likely = torch.full((n, part.response), -math.log(vocabulary))  # [N, T]
    prompts = torch.randint(vocabulary, (n // 2, part.prompt))  # [P, S]
    return Rollouts(
        [""] * (n // 2), prompts, torch.ones_like(prompts, dtype=torch.bool), ids, every, likely, -likely,
        torch.zeros(n, dtype=torch.bool), [""] * n, 2,
        grades=[Grade(float(i % 2), bool(i % 2), True, None, "") for i in range(n)],
    )  # fmt: skip


def _held_out(config: TrainConfig) -> int:
    """Responses of all evaluations of a run and of its test."""
    evaluations = 1 + math.ceil(config.steps / config.eval_every) if config.eval_every else 0
    problems = GSM8K_TEST if config.task == "gsm8k" else TEST_PROBLEMS
    return evaluations * config.eval_problems * config.eval_samples + config.test_samples * problems


def _say(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)
