"""Up to many GPUs: an `Objective` inside TRL's trainer, so that accelerate, FSDP, DeepSpeed, vLLM come with it.

    accelerate launch --config_file data/accelerate/eight_gpus_fsdp.yaml -m rlino_lib.scale --method grpo --out runs/big

takes the options of `rlino train` and leaves the same run folder. A step is the same N = prompts · group_size responses
over however many processes there are, to the same problems in the same order, with the same loss and so the same
gradient; the texts differ, since each process draws its own. Advantages are `advantages.credit` of the responses of all
processes, the loss is `objectives.policy_loss`, and every normaliser counts the whole update: all processes and all
micro-batches of it. What TRL does otherwise (loss_type, scale_rewards, epsilon…) is not asked.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rlino_lib.cli import main as cli
from rlino_lib.cli.terminal import Parser, run_program
from rlino_lib.errors import RlinoError
from rlino_lib.folders import output_folder, read_json
from rlino_lib.methods.catalogue import varied
from rlino_lib.policy.device import is_out_of_memory
from rlino_lib.policy.models import Policy, load_policy, merged, save_policy
from rlino_lib.records.runs import RUN, Run, RunWriter, complete_run, load_run
from rlino_lib.settings import THREADS
from rlino_lib.training.config import RUN_DEFAULTS, TrainConfig, run_settings
from rlino_lib.training.trainer import check_reward, describe

try:
    import accelerate
    import trl
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list
    from datasets import Dataset
    from trl import GRPOConfig, SFTConfig

    from rlino_lib.scale.grpo import ObjectiveTrainer
    from rlino_lib.scale.records import MARK, Pool, Recorded
    from rlino_lib.scale.sft import IsftTrainer
except ImportError as e:
    raise RlinoError(f"training at scale needs TRL 1.16 or newer ({e}): pip install 'rlino_lib[scale]'") from e

ENGINES = ("grpo", "sft")
# Settings of TRL and transformers that may be given beside the run's own: how the engine runs. They are recorded.
PASSED_ON = (
    "use_vllm", "vllm_", "use_transformers_continuous_batching", "transformers_continuous_batching_config",
    "generation_kwargs", "cache_implementation", "ds3_gather_for_generation", "cast_lm_head_to_fp32", "optim", "tf32",
    "torch_compile", "ddp_", "fsdp", "deepspeed", "gradient_checkpointing_kwargs", "torch_empty_cache_steps",
)  # fmt: skip


# --- settings --------------------------------------------------------------------------------------------------------


def cut(config: TrainConfig, world: int) -> tuple[int, int]:
    """How the N responses of a step are cut: rows of a micro-batch (at most `micro_batch`), micro-batches of an update.

    Raises RlinoError where they do not divide evenly over `world` processes and the updates of a pass.
    """
    n = config.prompts * config.group_size
    rows, rest = divmod(n, world * config.minibatches)
    if rest or not rows:
        raise RlinoError(
            f"{n} responses a step do not divide over {world} processes and {config.minibatches} updates: "
            "choose other --prompts, --group-size or --minibatches"
        )
    micro = max(m for m in range(1, min(config.micro_batch, rows) + 1) if rows % m == 0)
    return micro, rows // micro


def check(config: TrainConfig, engine: str, given: dict[str, Any]) -> None:
    """Raise RlinoError for what a run at scale cannot carry."""
    check_reward(config)
    if engine not in ENGINES:
        raise RlinoError(f"unknown engine {engine!r}: one of {', '.join(ENGINES)}")
    once = config.epochs * config.minibatches == 1 and not config.objective_settings
    if engine == "sft" and not (config.method == "f_isft_pos" and once):
        raise RlinoError("the engine sft carries f_isft_pos as it is, with one update a step: leave --engine out")
    if config.group_size < 2:
        raise RlinoError("TRL samples at least 2 responses a problem")
    for name in ("eval_base", "probe_every"):
        if getattr(config, name):
            raise RlinoError(f"{name} is measured by `rlino train` alone: leave it out at scale")
    if config.device not in ("auto", "cpu"):
        raise RlinoError("accelerate chooses the device: leave --device out, or give cpu")
    unknown = [k for k in given if not any(k == p or (p[-1] == "_" and k.startswith(p)) for p in PASSED_ON)]
    if unknown:
        raise RlinoError(f"--trl does not take {unknown[0]}, which the run decides or no objective reads")


def arguments(config: TrainConfig, out: Path, engine: str, given: dict[str, Any], progress: bool = False):
    """A `GRPOConfig` or `SFTConfig` for a run."""
    check(config, engine, given)
    c, o = config, varied(config.method, config.objective_settings)
    micro, accumulate = cut(c, int(os.environ.get("WORLD_SIZE", 1)))
    updates = c.epochs * c.minibatches
    common = dict(
        output_dir=str(out / "trainer"), seed=c.seed, max_steps=c.steps * updates, learning_rate=c.lr, adam_beta2=0.95,
        weight_decay=0.0, max_grad_norm=c.clip_norm, per_device_train_batch_size=micro,
        gradient_accumulation_steps=accumulate, logging_steps=1, logging_nan_inf_filter=False, report_to="none",
        save_steps=c.checkpoint_every * updates, save_total_limit=2, disable_tqdm=not progress,
        remove_unused_columns=False, ddp_find_unused_parameters=False,
        gradient_checkpointing=bool(c.gradient_checkpointing), bf16=c.precision == "bf16",
        use_cpu=c.device == "cpu" or not (torch.cuda.is_available() or torch.backends.mps.is_available()),
    ) | given  # fmt: skip
    try:
        if engine == "sft":
            return SFTConfig(**common, dataset_kwargs={"skip_prepare_dataset": True}, max_length=None)
        return GRPOConfig(
            **common, num_generations=c.group_size, max_completion_length=c.max_new_tokens, temperature=c.temperature,
            num_iterations=c.epochs, steps_per_generation=accumulate * c.minibatches, shuffle_dataset=False,
            beta=o.beta or o.kl_in_reward, per_device_eval_batch_size=micro, disable_dropout=True, scale_rewards="none",
            loss_type="grpo", router_aux_loss_coef=0.0,
        )  # fmt: skip
    except (TypeError, ValueError) as e:
        raise RlinoError(f"TRL does not take these settings: {e}") from e


def build(config: TrainConfig, args: GRPOConfig | SFTConfig, policy: Policy, pool: Pool) -> Recorded:
    """The trainer of a run, before its first step. Raises RlinoError where TRL refuses (no vLLM, say)."""
    lora = None
    if config.lora_rank:
        from peft import LoraConfig

        rank, alpha, targets = config.lora_rank, config.lora_alpha, config.targets
        lora = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, task_type="CAUSAL_LM")
    grpo = isinstance(args, GRPOConfig)
    order = [k for k in pool.batches(config) for _ in range(1 if grpo else config.group_size)]
    batch = config.prompts * config.group_size
    data = Dataset.from_list([pool.row(k, 0 if grpo else i % batch) for i, k in enumerate(order)])
    try:
        return (ObjectiveTrainer if grpo else IsftTrainer)(
            config, pool, model=policy.model, args=args, train_dataset=data, processing_class=policy.tokenizer,
            peft_config=lora,
        )  # fmt: skip
    except (ImportError, ValueError) as e:
        raise RlinoError(f"TRL cannot start this run: {str(e).splitlines()[0]}") from e


# --- the run ---------------------------------------------------------------------------------------------------------


def train(
    config: TrainConfig,
    out: str | Path,
    *,
    engine: str = "grpo",
    save: bool = False,
    given: dict[str, Any] | None = None,
    progress: bool = False,
) -> Run:
    """Run a configuration on all processes into a folder that they share, and return it, as `training.run.train`.

    engine: "grpo" for every method, or "sft" for f_isft_pos as TRL's `SFTTrainer`. `given` are settings of TRL
    (`PASSED_ON`). Where the launcher says bf16, so does the run. Raises RlinoError on every process alike.
    """
    out = Path(out)
    half = os.environ.get("ACCELERATE_MIXED_PRECISION") == "bf16"
    if half or config.precision == "auto":
        config = replace(config, precision="bf16" if half else "fp32")
    args = arguments(config, out, engine, given or {}, progress)
    state, writers = PartialState(), []
    if state.device.type == "cpu":  # and not cpu:1, onto which transformers 5.17 loads and torch cannot
        args._setup_devices = torch.device("cpu")
    where = _where(engine, given or {})
    with ExitStack() as held:
        folder = output_folder(out, RUN, run_settings(config) | where, RUN_DEFAULTS)
        if _told(state, lambda: held.enter_context(folder)):
            _told(state, lambda: bool(complete_run(out, save)))
            return load_run(out)
        pool, policy = Pool(config), load_policy(config.model)
        record = _record(config, policy) | where if state.is_main_process else {}
        trainer = build(config, args, policy, pool)
        _told(state, lambda: writers.append(RunWriter(out, record, RUN_DEFAULTS)))
        trainer.writer = writers[0] if writers else None
        try:
            _drive(trainer, state, out, save)
        except RuntimeError as e:
            if not is_out_of_memory(e):
                raise
            tries = "a smaller --micro-batch, --gradient-checkpointing 1, more processes or a lower --max-new-tokens"
            raise RlinoError(f"out of memory: try {tries}; a run that differs in these needs another --out") from e
    return load_run(out)


def _where(engine: str, given: dict[str, Any]) -> dict[str, Any]:
    """What config.json holds beside that of `rlino train`: where the run is made."""
    return {"scale": {"engine": engine, "processes": PartialState().num_processes, "trl": given}}


def _record(config: TrainConfig, policy: Policy) -> dict[str, Any]:
    """What config.json holds as that of `rlino train` does, with the versions of the engine too."""
    record = describe(config, policy)
    record["versions"] |= {"trl": trl.__version__, "accelerate": accelerate.__version__}
    return record


def _told(state: PartialState, ask: Callable[[], Any]) -> Any:
    """What the main process finds, on every process; its RlinoError or OSError is raised on all of them."""
    said: list[Any] = [None, None]
    if state.is_main_process:
        try:
            said[0] = ask()
        except (RlinoError, OSError) as e:
            said[1] = str(e)
    broadcast_object_list(said)
    if said[1]:
        raise RlinoError(said[1])
    return said[0]


def last_checkpoint(out: Path) -> Path | None:
    """The last whole checkpoint of a run folder."""
    marks = sorted((out / "trainer").glob(f"checkpoint-*/{MARK}"), key=lambda p: int(p.parent.name.split("-")[1]))
    return marks[-1].parent if marks else None


def _drive(trainer: Recorded, state: PartialState, out: Path, save: bool) -> None:
    config = trainer.config
    checkpoint = _told(state, lambda: last_checkpoint(out))
    step = -1
    if checkpoint:
        mark = read_json(checkpoint / MARK)
        step = mark["step"]
        trainer.guards.load_state(mark["guards"])
        trainer.began -= mark["seconds"]
    if trainer.writer:
        trainer.writer.resume(step)
        for half in (p for p in (out / "trainer").glob("checkpoint-*") if not (p / MARK).exists()):
            shutil.rmtree(half)
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except Exception as e:  # of JSON, a tensor file or a state that does not fit
        if not checkpoint or trainer.started:
            raise
        raise RlinoError(f"{checkpoint} is damaged: delete it, and the run starts from the one before") from e
    summary: dict[str, Any] = {"steps": config.steps, "warnings": trainer.guards.messages}
    if config.test_samples:
        summary["test"] = trainer.test()
    summary["seconds"] = round(trainer.seconds, 1)
    if save:
        _save(trainer, out)
    state.wait_for_everyone()
    if trainer.writer:
        trainer.writer.finish(summary)
        shutil.rmtree(out / "trainer", ignore_errors=True)
    state.wait_for_everyone()


def _save(trainer: Recorded, out: Path) -> None:
    """The trained model in the folder `model` of the run, adapters merged (and kept in `adapter`)."""
    lora = bool(trainer.config.lora_rank)
    folder = out / ("adapter" if lora else "model")
    part = folder.with_name(f"{folder.name}.tmp")
    try:
        trainer.save_model(str(part))
        trainer.accelerator.wait_for_everyone()
        if trainer.writer:
            (part / "training_args.bin").unlink(missing_ok=True)  # a pickle, and config.json says it all
            shutil.rmtree(folder, ignore_errors=True)
            part.replace(folder)
    finally:
        if trainer.writer:
            shutil.rmtree(part, ignore_errors=True)
    if lora and trainer.writer:
        from peft import PeftModel

        base = load_policy(trainer.config.model)
        adapted = PeftModel.from_pretrained(base.model, out / "adapter")
        save_policy(merged(Policy(adapted, base.tokenizer)), out / "model")


# --- the command -----------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """The options of `rlino train`, and a few of its own."""
    p = Parser(
        prog="accelerate launch -m rlino_lib.scale", description="Train on as many GPUs as accelerate is told of.",
        epilog="example:\naccelerate launch --config_file data/accelerate/eight_gpus_fsdp.yaml -m rlino_lib.scale "
        "--preset paper-gsm8k-1.5b --trl use_vllm=true --trl vllm_mode=colocate --out runs/q",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("--out", type=cli.FOLDER.parse, required=True, help="folder to write, which all processes see")
    p.add_argument("--threads", type=THREADS.parse, default=0, help="CPU threads of each process (default: torch's)")
    p.add_argument("--engine", default="grpo", help="grpo (every method) or sft (f_isft_pos as TRL's SFTTrainer)")
    p.add_argument(
        "--trl", action="append", default=[], metavar="NAME=VALUE", help="a setting of TRL, as use_vllm=true"
    )
    cli._train_arguments(p)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run one process of the command; the main one prints a line of JSON. Returns the exit code."""
    main_process = os.environ.get("LOCAL_RANK", "0") == "0"
    return run_program(lambda: _run(argv, main_process), silent=not main_process)


def _run(argv: Sequence[str] | None, main_process: bool) -> int:
    args = parser().parse_args(argv)
    cli._threads(args.threads)
    given = cli.name_values(args.trl, "--trl")
    run = train(
        cli.train_config(args), args.out, engine=args.engine, save=args.save, given=given,
        progress=sys.stderr.isatty() and main_process,
    )  # fmt: skip
    if main_process and os.environ.get("RANK", "0") == "0":
        print(json.dumps(cli.run_result(run), default=float))
    return 0
