"""A run: steps, evaluations, records, guard rails, and a killed one that goes on (chapters 04 and 05)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from rlino_lib.errors import RlinoError
from rlino_lib.folders import begun_precision, output_folder
from rlino_lib.policy.device import is_out_of_memory
from rlino_lib.policy.logprobs import response_logprobs
from rlino_lib.policy.models import Policy, checkpoint_state, merged, save_checkpoint, save_policy
from rlino_lib.records.runs import RUN, Run, RunWriter, complete_run, load_run, read_run
from rlino_lib.training import memory
from rlino_lib.training.config import RUN_DEFAULTS, TrainConfig, run_settings
from rlino_lib.training.guard_rails import Guards
from rlino_lib.training.traces import trace_rows
from rlino_lib.training.trainer import Sums, Trainer, batch_of_problems, describe

__all__ = [
    "COLUMNS", "Sums", "Trainer", "batch_of_problems", "describe", "is_trace_step",
    "response_logprobs", "train",
]  # fmt: skip


def train(
    config: TrainConfig,
    out: str | Path,
    *,
    save: bool = False,
    progress: bool = False,
    on_step: Callable[[int, dict[str, Any]], None] | None = None,
    policy: Policy | None = None,
) -> Run:
    """Run a configuration into a folder and return it. A complete run with these settings is returned as it is.

    An unfinished one goes on from its last checkpoint, to the same numbers as a run that was never stopped. `save`
    keeps the trained model in the folder `model` of the run, adapters merged, and those alone in `adapter`.
    `on_step(step, metrics)` is called after every step. With `progress` a line on stderr says beforehand what memory
    the run needs; where there is less, it does not start unless its guard is `warn`. Raises RlinoError then, where the
    folder holds a run of other settings or is in use, a guard rail stops the run, memory runs out, the disk is full, a
    checkpoint is damaged, or `save` comes too late.
    """
    out = Path(out)
    with output_folder(out, RUN, run_settings(config), RUN_DEFAULTS) as complete:
        if complete:
            return complete_run(out, save)
        config = replace(config, precision=begun_precision(config.precision, read_run(out)[0]))
        if policy is None:
            fits, said = memory.check(config)
            if not fits and config.guard == "stop":
                raise RlinoError(f"{said}; --guard warn tries all the same")
            if said and (progress or not fits):
                print(f"rlino: {said}", file=sys.stderr)
        try:
            trainer = Trainer(config, policy)
            _drive(trainer, RunWriter(out, trainer.record, RUN_DEFAULTS), progress, on_step, save)
        except RuntimeError as e:
            if not is_out_of_memory(e):
                raise
            tries = "a smaller --micro-batch, fewer --prompts, a lower --max-new-tokens or --lora-rank 16"
            raise RlinoError(f"out of memory: try {tries}; a run that differs in these needs another --out") from e
    return load_run(out)


def _drive(trainer: Trainer, writer: RunWriter, progress: bool, on_step: Callable | None, save: bool) -> None:
    """Go on from the checkpoint, if there is one, to the end of the run."""
    config, checkpoint = trainer.config, writer.path / "checkpoint.pt"
    guards, spent, resumed = Guards(config.guard), 0.0, checkpoint.exists()
    if resumed:
        with checkpoint_state(checkpoint) as state:
            trainer.load_state(state["trainer"])
            guards.load_state(state["guards"])
            spent = state["seconds"]
    writer.resume(trainer.step_done if resumed else -1)
    started = time.time() - spent
    if not resumed and config.eval_every:
        writer.metrics(full_row({"step": 0, "samples": 0, **trainer.evaluate()}), time.time() - started)
        writer.responses(trainer.responses)
    bar = tqdm(total=config.steps, initial=trainer.step_done, desc=config.method, unit="step", disable=not progress)
    while trainer.step_done < config.steps:
        metrics, rollouts, credit = trainer.step()
        step = trainer.step_done
        last = step == config.steps
        if config.eval_every and (step % config.eval_every == 0 or last):
            metrics |= trainer.evaluate()
            writer.responses(trainer.responses)
        writer.metrics(full_row(metrics), time.time() - started)
        writer.probes(trainer.probes)
        if is_trace_step(config, step):
            writer.rollouts(trace_rows(rollouts, credit, step, config.trace_groups, trainer.policy.tokenizer))
        message = guards.check(step, metrics)
        if message and progress:
            bar.write(message)
        bar.update()
        bar.set_postfix(accuracy=f"{metrics['accuracy']:.3f}", length=f"{metrics['completions/mean_length']:.0f}")
        if on_step:
            on_step(step, metrics)
        if step % config.checkpoint_every == 0 and not last:
            state = {"trainer": trainer.state(), "guards": guards.state(), "seconds": time.time() - started}
            save_checkpoint(checkpoint, state)
    bar.close()
    summary: dict[str, Any] = {"steps": config.steps, "warnings": guards.messages}
    if config.test_samples:
        summary["test"] = trainer.test()
        writer.responses(trainer.responses)
    summary["seconds"] = round(time.time() - started, 1)
    if save and config.lora_rank:
        save_policy(trainer.policy, writer.path / "adapter")
    if save:
        save_policy(merged(trainer.policy), writer.path / "model")
    writer.finish(summary)
    checkpoint.unlink(missing_ok=True)


# The columns of metrics.csv, the same for every method so that a run's first row can set them.
COLUMNS = (
    "step samples reward accuracy format_ok completions/mean_length completions/clipped_ratio frac_reward_zero_std "
    "entropy kl loss grad_norm lr clip_ratio length/correct length/incorrect length/incorrect_unclipped n_correct "
    "n_incorrect logprob/correct logprob/incorrect eval/accuracy eval/format_ok eval/mean_length eval/clipped_ratio "
    "eval/entropy eval/length/correct eval/length/incorrect eval/length/incorrect_unclipped "
    "eval/kl_base eval/base/correct eval/base/incorrect"
).split()


def full_row(metrics: dict[str, Any]) -> dict[str, Any]:
    """All columns of a row of metrics.csv; None for what was not measured."""
    return {name: metrics.get(name) for name in COLUMNS}


def is_trace_step(config: TrainConfig, step: int) -> bool:
    """Whether whole groups of this step are kept: the first step, then every `trace_every` (a fifth of the run)."""
    every = config.trace_every or max(1, config.steps // 5)
    return config.trace_groups > 0 and (step == 1 or step % every == 0)
