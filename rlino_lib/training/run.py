"""A run: steps, evaluations, records, guard rails, and resuming after a kill (chapters 04 and 05)."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from rlino_lib.errors import RlinoError
from rlino_lib.folders import begun_precision, output_folder
from rlino_lib.methods.catalogue import varied
from rlino_lib.policy.critic import save_critic
from rlino_lib.policy.models import Policy, checkpoint_state, merged, save_checkpoint, save_policy
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.records import runs
from rlino_lib.records.runs import RUN, Run
from rlino_lib.records.writer import RunWriter
from rlino_lib.tasks import get_task
from rlino_lib.tasks.base import has_environment
from rlino_lib.training import memory
from rlino_lib.training.config import RUN_DEFAULTS, TrainConfig, run_settings
from rlino_lib.training.guard_rails import Guards, needs_contrast
from rlino_lib.training.traces import trace_rows
from rlino_lib.training.trainer import Trainer


def train(
    config: TrainConfig, out: str | Path, *, save: bool = False, progress: bool = False,
    on_step: Callable[[int, dict[str, Any]], None] | None = None, policy: Policy | None = None,
) -> Run:  # fmt: skip
    """Run a configuration into a folder and return it. A complete run with these settings is returned as it is.

    An unfinished one resumes from its last checkpoint and gives the same numbers as an uninterrupted run. `save` keeps
    the trained model in the folder `model` of the run, adapters merged, and those alone in `adapter`, and a critic's
    weights beside them.
    `on_step(step, metrics)` is called after every step. With `progress` a line on stderr states beforehand what memory
    the run needs; with less memory it does not start unless its guard is `warn`. Raises RlinoError then, where the
    folder holds a run of other settings or is in use, a guard rail stops the run, memory runs out, the disk is full, a
    checkpoint is damaged, a run that goes on has lost rows, or `save` comes too late.
    """
    out = Path(out)
    with output_folder(out, RUN, run_settings(config), RUN_DEFAULTS) as complete:
        if complete:
            return runs.complete_run(out, save)
        config = replace(config, precision=begun_precision(config.precision, runs.read_run(out)[0]))
        if policy is None:
            _check_memory(config, progress)
        options = "a smaller --micro-batch, fewer --prompts, a lower --max-new-tokens or --lora-rank 16"
        with memory.out_of_memory_advice(options):
            trainer = Trainer(config, policy)
            writer = RunWriter(out, trainer.record, RUN_DEFAULTS | {"update": trainer.record["update"]})
            _drive(trainer, writer, progress, on_step, save)
    return runs.load_run(out)


def _check_memory(config: TrainConfig, progress: bool) -> None:
    """Raise RlinoError where the run does not fit and its guard is `stop`; otherwise print what it needs."""
    fits, message = memory.check(config)
    if not fits and config.guard == "stop":
        raise RlinoError(f"{message}; --guard warn tries all the same")
    if message and (progress or not fits):
        print(f"rlino: {message}", file=sys.stderr)


def _drive(trainer: Trainer, writer: RunWriter, progress: bool, on_step: Callable | None, save: bool) -> None:
    """Go on from the checkpoint, if there is one, to the end of the run."""
    config = trainer.config
    checkpoint = writer.path / "checkpoint.pt"
    recorder = Recorder(trainer, trainer.evaluate, writer)
    if checkpoint.exists():
        with checkpoint_state(checkpoint) as state:
            trainer.load_state(state["trainer"])
            recorder.load_state(state)
        writer.resume(trainer.step_done, state.get("rows"))
    else:
        writer.resume(-1)
        recorder.before_training()
    bar = tqdm(total=config.steps, initial=trainer.step_done, desc=config.method, unit="step", disable=not progress)
    while trainer.step_done < config.steps:
        metrics, rollouts, weighting = trainer.step()
        writer.probes(trainer.probes)
        message = recorder.step(metrics, rollouts, weighting, trainer.policy.tokenizer)
        if message and progress:
            bar.write(message)
        bar.update()
        bar.set_postfix(accuracy=f"{metrics['accuracy']:.3f}", length=f"{metrics['completions/mean_length']:.0f}")
        if on_step:
            on_step(trainer.step_done, metrics)
        if trainer.step_done % config.checkpoint_every == 0 and trainer.step_done < config.steps:
            save_checkpoint(checkpoint, {"trainer": trainer.state(), **recorder.state()})
    bar.close()
    summary = recorder.summary()
    if save and config.lora_rank:
        save_policy(trainer.policy, writer.path / "adapter")
    if save:
        save_policy(merged(trainer.policy), writer.path / "model")
    if save and trainer.critic:
        save_critic(trainer.critic, writer.path / runs.CRITIC)
    writer.finish(summary)
    checkpoint.unlink(missing_ok=True)


class Recorder:
    """Records a run, whichever trainer makes it: metrics, evaluations, whole groups, guard rails, seconds.

    `evaluate` returns the `eval/…` columns of its policy, `test()` the summary of the test, and both
    leave a row per held-out response in `responses`. Among several processes the main one alone has a writer.
    """

    def __init__(self, trainer: Any, evaluate: Callable[[], dict[str, Any]], writer: RunWriter | None = None) -> None:
        self.trainer = trainer
        self.config: TrainConfig = trainer.config
        self.evaluate = evaluate
        self.writer = writer
        objective = varied(self.config.method, self.config.objective_settings)
        writes = has_environment(get_task(self.config.task, **self.config.task_settings))
        groups = (
            (objective.values, runs.VALUE_COLUMNS),
            (objective.preference, runs.PREFERENCE_COLUMNS),
            (writes, runs.ENVIRONMENT_COLUMNS),
        )
        self.columns = runs.COLUMNS + [name for used, names in groups if used for name in names]
        self.guards = Guards(self.config.guard, needs_contrast(objective, self.config.reward))
        self.began = time.time()

    @property
    def seconds(self) -> float:
        """Of training so far, those before a kill too."""
        return time.time() - self.began

    def before_training(self) -> None:
        """Record an evaluation of the base as step 0."""
        if self.config.eval_every:
            self._metrics({"step": 0, "samples": 0, **self._measured(self.evaluate)})

    def step(
        self, metrics: dict[str, Any], rollouts: Rollouts, weighting: Mapping[str, torch.Tensor], tokenizer
    ) -> str | None:
        """Record a step, evaluated where it is time, and return a guard rail's warning, or None.

        `weighting` is as `trace_rows` takes it. Raises RlinoError where a guard rail stops the run.
        """
        c = self.config
        step = metrics["step"]
        if c.eval_every and (step % c.eval_every == 0 or step == c.steps):
            metrics |= self._measured(self.evaluate)
        self._metrics(metrics)
        if self.keeps_groups(step):
            self.writer.rollouts(trace_rows(rollouts, weighting, step, c.trace_groups, tokenizer))
        return self.guards.check(step, metrics)

    def keeps_groups(self, step: int) -> bool:
        """Whether whole groups of this step are kept: the first step, then every `trace_every` (a fifth of the run)."""
        every = self.config.trace_every or max(1, self.config.steps // 5)
        return self.writer is not None and self.config.trace_groups > 0 and (step == 1 or step % every == 0)

    def _metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write a row with the run's columns, None for what was not measured."""
        if self.writer:
            self.writer.metrics({name: metrics.get(name) for name in self.columns}, self.seconds)

    def _measured(self, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The numbers of an evaluation or of the test; the held-out responses are written."""
        numbers = measure()
        if self.writer:
            self.writer.responses(self.trainer.responses)
        return numbers

    def summary(self) -> dict[str, Any]:
        """What summary.json holds of a run whose training has ended, with its test where the settings ask for one."""
        summary: dict[str, Any] = {"steps": self.config.steps, "warnings": self.guards.messages}
        if self.config.test_samples:
            summary["test"] = self._measured(self.trainer.test)
        return summary | {"seconds": round(self.seconds, 1)}

    def state(self) -> dict[str, Any]:
        """The part of a checkpoint that is not the trainer's own state."""
        rows = dict(self.writer.rows) if self.writer else {}
        return {"guards": self.guards.state(), "seconds": self.seconds, "rows": rows}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from the `state` of a run that was killed."""
        self.guards.load_state(state["guards"])
        self.began = time.time() - state["seconds"]
