"""Up to many GPUs: an `Objective` inside TRL's trainer, so that accelerate, FSDP, DeepSpeed, vLLM come with it.

    accelerate launch --config_file data/accelerate/eight_gpus_fsdp.yaml -m rlino_lib.scale --method grpo --out runs/big

takes the options of `rlino train` and leaves the same run folder. A step has the same N = prompts · group_size
responses whatever the number of processes, to the same problems in the same order, with the same loss and so the same
gradient; the texts differ, since each process draws its own. Advantages are `advantages.credit` of the responses of all
processes, the loss is `objectives.policy_loss`, and every normaliser counts the whole update: all processes and all
micro-batches of it. TRL's own choices (loss_type, scale_rewards, epsilon…) have no effect.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rlino_lib.cli.main import run_result
from rlino_lib.cli.options import FOLDER, TRAIN_SETTINGS, add_options, name_values, set_threads, train_config
from rlino_lib.cli.terminal import Parser, run_program
from rlino_lib.errors import RlinoError, chosen
from rlino_lib.folders import finite, output_folder, read_json, replacing
from rlino_lib.methods.catalogue import varied
from rlino_lib.methods.rewards import judges
from rlino_lib.policy.models import Policy, load_policy, merged, save_policy
from rlino_lib.records import runs, writer
from rlino_lib.settings import THREADS
from rlino_lib.tasks import get_task
from rlino_lib.training import memory
from rlino_lib.training.checks import check_critic, check_evaluations, check_groups, check_reward
from rlino_lib.training.config import RUN_DEFAULTS, TrainConfig, run_settings
from rlino_lib.training.trainer import describe

try:
    import accelerate
    import trl
    from accelerate import PartialState
    from accelerate.utils import DistributedType, broadcast_object_list
    from datasets import Dataset
    from trl import GRPOConfig, SFTConfig

    from rlino_lib.scale.grpo import ObjectiveTrainer
    from rlino_lib.scale.records import MARK, Pool, Recorded
    from rlino_lib.scale.sft import IsftTrainer
except ImportError as e:
    raise RlinoError(f"training at scale needs TRL 1.16 or newer ({e}): pip install 'rlino_lib[scale]'") from e

ENGINES = ("grpo", "sft")
# How settings of TRL and transformers begin that may be given beside the run's own: how the engine runs. All recorded.
PASSED_ON = (
    "use_vllm", "vllm_", "use_transformers_continuous_batching", "transformers_continuous_batching_config",
    "generation_kwargs", "cache_implementation", "ds3_gather_for_generation", "cast_lm_head_to_fp32", "optim", "tf32",
    "torch_compile", "ddp_", "fsdp", "deepspeed", "gradient_checkpointing_kwargs", "torch_empty_cache_steps",
)  # fmt: skip


# --- settings --------------------------------------------------------------------------------------------------------


def cut(config: TrainConfig, world: int) -> tuple[int, int]:
    """How a step's N responses are split: rows per micro-batch (at most `micro_batch`), micro-batches per update.

    Raises RlinoError where they do not divide evenly over `world` processes and the updates of a pass.
    """
    n = config.prompts * config.group_size
    rows, rest = divmod(n, world * config.minibatches)
    if rest or not rows:
        raise RlinoError(
            f"{n} responses per step do not divide over {world} processes and {config.minibatches} updates: "
            "choose other --prompts, --group-size or --minibatches"
        )
    micro = max(m for m in range(1, min(config.micro_batch, rows) + 1) if rows % m == 0)
    return micro, rows // micro


def check(config: TrainConfig, engine: str, trl_settings: dict[str, Any]) -> None:
    """Raise RlinoError for settings that a run at scale does not support."""
    objective = varied(config.method, config.objective_settings)
    task = get_task(config.task, **config.task_settings)
    check_reward(config, objective, task)
    check_critic(config, objective)
    check_groups(config, objective)
    check_evaluations(config, task)
    chosen(engine, ENGINES, "engine")
    literal = (config.method, config.objective_settings, config.epochs * config.minibatches) == ("f_isft_pos", {}, 1)
    local = [name for name in ("eval_base", "probe_every") if getattr(config, name)]
    unknown = [name for name in trl_settings if not name.startswith(PASSED_ON)]
    by = objective.credit
    alone = engine == "sft" and not literal
    refusals = (
        (alone, "the engine sft carries f_isft_pos as it is, with one update per step: leave --engine out"),
        (config.group_size < 2, "TRL samples at least 2 responses per problem"),
        (local, f"{', '.join(local)} is measured by `rlino train` alone: leave it out at scale"),
        (by != "response", f"credit of tokens by {by} is computed by `rlino train` alone: choose another method"),
        (objective.preference, "pairs of responses are made by `rlino train` alone: choose another method"),
        (objective.covariant, "covariances of tokens are read by `rlino train` alone: choose another method"),
        (judges(config.reward), "a model's certainty is read by `rlino train` alone: choose another reward"),
        (config.loss_mask != "policy", "TRL's loss counts the policy's tokens: leave --loss-mask out"),
        (config.optimizer != "adamw", "a run at scale trains with AdamW: leave --optimizer out"),
        (config.device not in ("auto", "cpu"), "accelerate chooses the device: leave --device out, or give cpu"),
        (config.micro_tokens, "TRL cuts by rows: give --micro-batch in place of --micro-tokens"),
        (unknown, f"--trl does not take {', '.join(unknown)}, which the run decides or no objective reads"),
    )
    if message := next((message for refused, message in refusals if refused), ""):
        raise RlinoError(message)


def arguments(config: TrainConfig, out: Path, engine: str, trl_settings: dict[str, Any], progress: bool = False):
    """A `GRPOConfig` or `SFTConfig` for a run."""
    check(config, engine, trl_settings)
    c = config
    o = varied(config.method, config.objective_settings)
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
    ) | trl_settings  # fmt: skip
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
    """The trainer of a run, before its first step.

    Raises RlinoError where TRL refuses (no vLLM, say). Where a task's environment or openings write into responses,
    these are `sample_graded`'s (`ObjectiveTrainer.sample_own`), which needs the whole model on each process: the
    engine sft, vLLM and sharded weights are refused.
    """
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
        trainer = (ObjectiveTrainer if grpo else IsftTrainer)(
            config, pool, model=policy.model, args=args, train_dataset=data, processing_class=policy.tokenizer,
            peft_config=lora,
        )  # fmt: skip
    except (ImportError, ValueError) as e:
        raise RlinoError(f"TRL cannot start this run: {str(e).splitlines()[0]}") from e
    sharded = trainer.accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
    if pool.written_into and (not grpo or args.use_vllm or sharded):
        raise RlinoError(
            "the task's environment or openings write into responses: that needs the engine grpo, without vLLM and "
            "without sharded weights"
        )
    return trainer


# --- the run ---------------------------------------------------------------------------------------------------------


def train(
    config: TrainConfig, out: str | Path, *, engine: str = "grpo", save: bool = False,
    trl_settings: dict[str, Any] | None = None, progress: bool = False,
) -> runs.Run:  # fmt: skip
    """Run a configuration on all processes into a folder that they share, and return it, as `training.run.train`.

    engine: "grpo" for every method, or "sft" for f_isft_pos as TRL's `SFTTrainer`. `trl_settings` are settings of TRL
    (`PASSED_ON`). Where the launcher sets bf16, so does the run. Raises RlinoError on every process alike.
    """
    out = Path(out)
    half = os.environ.get("ACCELERATE_MIXED_PRECISION") == "bf16"
    if half or config.precision == "auto":
        config = replace(config, precision="bf16" if half else "fp32")
    args = arguments(config, out, engine, trl_settings or {}, progress)
    if args.n_gpu > 1:  # transformers would spread each micro-batch over them, and an update would have other rows
        raise RlinoError(f"one process sees {args.n_gpu} GPUs: start one for each, with accelerate launch")
    state = PartialState()
    if state.device.type == "cpu":  # and not cpu:1, onto which transformers 5.17 loads and torch cannot
        args._setup_devices = torch.device("cpu")
    place = {"scale": {"engine": engine, "processes": state.num_processes, "trl": trl_settings or {}}}
    with ExitStack() as held:
        folder = output_folder(out, runs.RUN, run_settings(config) | place, RUN_DEFAULTS)
        if _everywhere(state, lambda: held.enter_context(folder)):
            _everywhere(state, lambda: bool(runs.complete_run(out, save)))
            return runs.load_run(out)
        pool = Pool(config)
        policy = load_policy(config.model)
        record = _everywhere(state, lambda: describe(config, policy)) | place
        record["versions"] |= {"trl": trl.__version__, "accelerate": accelerate.__version__}
        trainer = build(config, args, policy, pool)

        def begin() -> None:
            trainer.recorder.writer = writer.RunWriter(out, record, RUN_DEFAULTS | {"update": record["update"]})

        _everywhere(state, begin)
        options = "a smaller --micro-batch, --gradient-checkpointing 1, more processes or a lower --max-new-tokens"
        with memory.out_of_memory_advice(options):
            _drive(trainer, state, out, save)
    return runs.load_run(out)


def _everywhere(state: PartialState, action: Callable[[], Any]) -> Any:
    """What an action of the main process returns, on every process; its RlinoError or OSError is raised on all."""
    message: list[Any] = [None, None]  # result, error
    if state.is_main_process:
        try:
            message[0] = action()
        except (RlinoError, OSError) as e:
            message[1] = str(e)
    broadcast_object_list(message)
    if message[1]:
        raise RlinoError(message[1])
    return message[0]


def last_checkpoint(out: Path) -> Path | None:
    """The last complete checkpoint of a run folder."""
    marks = sorted((out / "trainer").glob(f"checkpoint-*/{MARK}"), key=lambda p: int(p.parent.name.split("-")[1]))
    return marks[-1].parent if marks else None


def _drive(trainer: Recorded, state: PartialState, out: Path, save: bool) -> None:
    """Resume from the last complete checkpoint, if there is one, and train to the end of the run."""
    recorder = trainer.recorder
    checkpoint = _everywhere(state, lambda: last_checkpoint(out))
    mark: dict[str, Any] = read_json(checkpoint / MARK) if checkpoint else {"step": -1}
    if checkpoint:
        recorder.load_state(mark)
    _everywhere(state, lambda: recorder.writer.resume(mark["step"], mark.get("rows")))
    if recorder.writer:
        for half in (p for p in (out / "trainer").glob("checkpoint-*") if not (p / MARK).exists()):
            shutil.rmtree(half)
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except Exception as e:  # of JSON, a tensor file or a state that does not fit
        if not checkpoint or trainer.started:
            raise
        raise RlinoError(f"{checkpoint} is damaged: delete it, and the run starts from the one before") from e
    summary = recorder.summary()
    if save:
        _save(trainer, out)
    state.wait_for_everyone()
    if recorder.writer:
        recorder.writer.finish(summary)
        shutil.rmtree(out / "trainer", ignore_errors=True)
    state.wait_for_everyone()


def _save(trainer: Recorded, out: Path) -> None:
    """The trained model in the folder `model` of the run, adapters merged (and kept in `adapter`)."""
    lora = bool(trainer.config.lora_rank)
    main = trainer.recorder.writer is not None
    folder = out / ("adapter" if lora else "model")
    if main:
        shutil.rmtree(folder, ignore_errors=True)
    with replacing(folder) if main else nullcontext(folder.with_name(f"{folder.name}.tmp")) as part:
        trainer.save_model(str(part))
        trainer.accelerator.wait_for_everyone()
        if main:
            (part / "training_args.bin").unlink(missing_ok=True)  # a pickle, and config.json has all of it
    if lora and main:
        from peft import PeftModel

        base = load_policy(trainer.config.model)
        adapted = PeftModel.from_pretrained(base.model, out / "adapter")
        save_policy(merged(Policy(adapted, base.tokenizer)), out / "model")


# --- the command -----------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """The options of `rlino train`, and a few more."""
    p = Parser(
        prog="accelerate launch -m rlino_lib.scale", description="Train on the GPUs that accelerate is configured for.",
        epilog="example:\naccelerate launch --config_file data/accelerate/eight_gpus_fsdp.yaml -m rlino_lib.scale "
        "--preset paper-gsm8k-1.5b --micro-batch 4 --trl use_vllm=true --trl vllm_mode=colocate --out runs/q",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("--out", type=FOLDER.parse, required=True, help="folder to write, which all processes see")
    p.add_argument("--threads", type=THREADS.parse, default=0, help="CPU threads of each process (default: torch's)")
    p.add_argument("--engine", default="grpo", help="grpo (every method) or sft (f_isft_pos as TRL's SFTTrainer)")
    p.add_argument(
        "--trl", action="append", default=[], metavar="NAME=VALUE", help="a setting of TRL, as use_vllm=true"
    )
    add_options(p, TRAIN_SETTINGS)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run one process of the command; the main one prints a line of JSON. Returns the exit code."""
    return run_program(lambda: _run(argv), silent=os.environ.get("LOCAL_RANK", "0") != "0")


def _run(argv: Sequence[str] | None) -> int:
    args = parser().parse_args(argv)
    set_threads(args.threads)
    run = train(
        train_config(args), args.out, engine=args.engine, save=args.save, progress=sys.stderr.isatty(),
        trl_settings=name_values(args.trl, "--trl"),
    )  # fmt: skip
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps(finite(run_result(run))))
    return 0
