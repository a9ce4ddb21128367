"""Run folders, and how chapters read them back as DataFrames; `writer.py` writes them.

A folder holds config.json, metrics.csv (reproducible to the last digit), timing.csv (which is not), sampled whole
groups in rollouts.jsonl(.gz), a row for each held-out response in responses.csv(.gz), and summary.json, which is
written last: a folder without it is not complete.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from rlino_lib.errors import RlinoError
from rlino_lib.folders import Kind, read_json, read_jsonl, whole_lines
from rlino_lib.paths import RUNS

# The columns of metrics.csv, the same for every method so that a run's first row can set them.
COLUMNS = (
    "step samples reward accuracy format_ok completions/mean_length completions/clipped_ratio frac_reward_zero_std "
    "entropy kl loss grad_norm lr clip_ratio length/correct length/incorrect length/incorrect_unclipped n_correct "
    "n_incorrect logprob/correct logprob/incorrect eval/accuracy eval/format_ok eval/mean_length eval/clipped_ratio "
    "eval/entropy eval/length/correct eval/length/incorrect eval/length/incorrect_unclipped "
    "eval/kl_base eval/base/correct eval/base/incorrect"
).split()
# Beside them, of a run whose credit reads values: tokens sampled for these, and how its critic fares.
VALUE_COLUMNS = ["value_tokens", "critic/loss", "critic/explained_variance"]
# Of a run whose task has an environment: the share of held-out responses into which it wrote, and the mean
# log-probability, nats, that the policy gives to a token of its.
ENVIRONMENT_COLUMNS = ["eval/consulted", "eval/environment_logprob"]
# Of a run on preferences: pairs of a batch, and at its last update the mean of log π/π_old, nats, on both sides.
PREFERENCE_COLUMNS = ["pairs", "log_ratio/chosen", "log_ratio/rejected"]
CRITIC = "critic.safetensors"  # the weights of a run's critic, beside its folder `model`
UNKNOWN = "unknown"  # the method, the task or the model of an imported run, where nothing says it


def seed_words(seed: int | None) -> str:
    """A seed in a title or a menu; an imported run may not say it."""
    return f"seed {'?' if seed is None else seed}"


class Settings(dict):
    """Recorded settings; one that is not there, as of an imported run, raises RlinoError."""

    def __init__(self, values: dict[str, Any], run: str) -> None:
        super().__init__(values)
        self.run = run

    def __missing__(self, name: str) -> Any:
        raise RlinoError(f"{self.run} {'was imported, and ' * ('imported_from' in self)}does not record {name}")

    def __or__(self, other: Any) -> Any:  # of a dict and a dict it would be a dict
        return Settings({**self, **other}, self.run)


# What these settings are in every run that has them.
_KINDS: dict[str, Any] = {"seed": int | None, "task_settings": dict, "objective_settings": dict}
_KINDS |= dict.fromkeys(("method", "task", "model", "reward"), str)


class Run:
    """One run folder, read lazily; `rlino import` makes one of another library's files, with much that is not known.

    Raises RlinoError where its settings or its summary are missing or damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        file = self.path / "config.json"
        self.config: dict = Settings(read_json(file), self.name)
        for name, kind in _KINDS.items():
            if name in self.config and not isinstance(self.config[name], kind):
                raise RlinoError(f"{file} is damaged: {name} is {self.config[name]!r}"[:300])
        summary = self.path / "summary.json"
        self.summary: dict | None = read_json(summary) if summary.exists() else None
        if not _is_summary(self.summary or {}):
            raise RlinoError(f"{summary} is damaged: its test or its seconds are no numbers")

    def __repr__(self) -> str:
        return f"Run({self.name}{'' if self.complete else ', not complete'})"

    @property
    def name(self) -> str:
        """Group and folder, `countdown/grpo-s0`."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def complete(self) -> bool:
        return bool(self.summary and self.summary.get("complete"))

    @property
    def method(self) -> str:
        return self.config["method"]

    @property
    def seed(self) -> int | None:
        """None where an imported run does not say it."""
        return self.config["seed"]

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row per step; `eval/…` columns are filled on evaluation steps, of which step 0 is the base.

        Raises RlinoError where they are missing or damaged, and where a complete run has lost its last ones.
        """
        frame = _read_csv(self.path / "metrics.csv")
        numbers = frame.apply(pd.to_numeric, errors="coerce")
        steps = (self.summary or {}).get("steps") if self.complete else None
        whole = "step" in frame and not (isinstance(steps, int) and not numbers["step"].max() >= steps)
        if not whole or (numbers.isna() & frame.notna()).any(axis=None):
            raise RlinoError(f"{self.path / 'metrics.csv'} is damaged: it is no table of all steps")
        return frame

    @cached_property
    def timing(self) -> pd.DataFrame:
        """Seconds of wall clock from the start of the run, by step."""
        return _read_csv(self.path / "timing.csv")

    @cached_property
    def probes(self) -> pd.DataFrame:
        """One row per probed update (`probe_every` of the run's settings), by step and update from 1."""
        return _read_csv(self.path / "probes.csv")

    @cached_property
    def responses(self) -> pd.DataFrame:
        """One row per held-out response: those of the evaluations, and (`final`) of the test after training.

        An imported run has all its responses here; `held_out` says which are, and `characters` how long they are where
        `length`, in tokens, is not known. Raises RlinoError where the run kept none.
        """
        ids = {"dtype": {"problem_id": "str"}, "keep_default_na": False, "na_values": [""]}  # "01" and "NA" are ids too
        frame = _read_csv(self.path / "responses.csv.gz", **ids)
        for name in {"final", "held_out", "correct", "clipped"} & set(frame):
            frame[name] = frame[name].astype("boolean" if frame[name].isna().any() else bool)
        return frame

    @cached_property
    def rollouts(self) -> pd.DataFrame:
        """Sampled whole groups, one row per response (empty where none were kept)."""
        paths = [self.path / name for name in ("rollouts.jsonl.gz", "rollouts.jsonl")]
        rows = next((read_jsonl(path) for path in paths if path.exists()), [])
        with pd.option_context("mode.string_storage", "python"):  # Arrow's has no half surrogate pairs
            return pd.DataFrame(rows)


def _is_summary(summary: dict[str, Any]) -> bool:
    """Whether the numbers that are read of every run are such, where they are there."""
    try:
        numbers = [summary["test"]["pass@1"]["value"]] if "test" in summary else []
    except (KeyError, TypeError):
        return False
    return all(isinstance(number, int | float) for number in [*numbers, summary.get("seconds", 0)])


def _read_csv(path: Path, **settings: Any) -> pd.DataFrame:
    try:
        return pd.read_csv(io.StringIO("\n".join(whole_lines(path))), **settings)
    except (OSError, ValueError) as e:  # not there, empty, or no table
        raise RlinoError(f"{path} is missing or empty") from e


def load_run(name: str | Path) -> Run:
    """A run by its path, or by its name below data/runs: `load_run("countdown/grpo-s0").metrics`.

    Raises RlinoError where there is none.
    """
    path = Path(name)
    return Run(path if (path / "config.json").exists() else RUNS / name)


def read_run(folder: Path) -> tuple[dict[str, Any] | None, bool]:
    """The configuration that a folder records of a run, None where there is none; and whether the run is complete."""
    if not (folder / "config.json").exists():
        return None, False
    read_json(folder / "config.json", needs="method")
    run = Run(folder)
    return run.config, run.complete


TABLES = ("metrics.csv", "timing.csv", "probes.csv", "responses.csv")
PACKED = ("rollouts.jsonl", "responses.csv")  # large files, gzipped once a run is complete
_KEPT = ("summary.json", "checkpoint.pt", "model", "adapter", CRITIC)
_FILES = (*TABLES, *PACKED, *(f"{name}.gz" for name in PACKED), *_KEPT)
RUN = Kind("run", read_run, _FILES)


def complete_run(folder: Path, save: bool) -> Run:
    """A run that is complete; raises RlinoError where it lacks the model that `save` asks for."""
    if save and not (folder / "model").exists():
        raise RlinoError(f"{folder} holds a complete run without its model: choose another --out")
    return Run(folder)


def list_runs(group: str | None = None, root: str | Path = RUNS, complete: bool = True) -> list[Run]:
    """All runs of a group (of every group where None) in the order of their names; by default the complete ones.

    `list_runs("countdown")` is those that the README shows.
    """
    runs = [Run(path.parent) for path in sorted(Path(root).glob(f"{group or '*'}/*/config.json"))]
    return [run for run in runs if run.complete or not complete]


def metrics_frame(runs: Iterable[Run]) -> pd.DataFrame:
    """The metrics of many runs in one frame, with `run`, `method` and `seed` columns in front.

    Raises RlinoError where there are no runs.
    """
    frames = [run.metrics.assign(run=run.name, method=run.method, seed=run.seed) for run in runs]
    if not frames:
        raise RlinoError("there are no recorded runs here: `make runs` makes them")
    frame = pd.concat(frames, ignore_index=True)
    first = ["run", "method", "seed"]
    return frame[first + [c for c in frame.columns if c not in first]]
