"""Run folders: what a run writes, and how chapters read it back as DataFrames.

A folder holds config.json, metrics.csv (reproducible to the last digit), timing.csv (which is not), sampled whole
groups in rollouts.jsonl(.gz), a row for each held-out response in responses.csv(.gz), and summary.json, which is
written last: a folder without it is not complete.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from rlino_lib.errors import RlinoError
from rlino_lib.folders import (
    Kind,
    append_jsonl,
    read_json,
    read_jsonl,
    refuse_other,
    replacing,
    whole_lines,
    write_json,
)
from rlino_lib.paths import RUNS


class Run:
    """One run folder, read lazily."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config: dict = read_json(self.path / "config.json")
        summary = self.path / "summary.json"
        self.summary: dict | None = read_json(summary) if summary.exists() else None

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
    def seed(self) -> int:
        return self.config["seed"]

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row per step; `eval/…` columns are filled on evaluation steps, of which step 0 is the base."""
        return _read_csv(self.path / "metrics.csv")

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

        Raises RlinoError where the run kept none.
        """
        frame = _read_csv(self.path / "responses.csv.gz")
        for name in ("final", "correct", "clipped"):
            frame[name] = frame[name].astype(bool)
        return frame

    @cached_property
    def rollouts(self) -> pd.DataFrame:
        """Sampled whole groups, one row per response (empty where none were kept)."""
        paths = [self.path / name for name in ("rollouts.jsonl.gz", "rollouts.jsonl")]
        rows = next((read_jsonl(path) for path in paths if path.exists()), [])
        with pd.option_context("mode.string_storage", "python"):  # Arrow's has no half surrogate pairs
            return pd.DataFrame(rows)


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(io.StringIO("\n".join(whole_lines(path))))
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
_FILES = (*TABLES, *PACKED, *(f"{name}.gz" for name in PACKED), "summary.json", "checkpoint.pt", "model", "adapter")
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


class RunWriter:
    """Writes a run folder. Everything up to a checkpoint's step survives a kill; the rest is written again."""

    def __init__(self, path: str | Path, config: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> None:
        """Start writing a folder, or resume; the caller holds it (`output_folder`).

        A setting that a record does not name counts as in `defaults`. Raises RlinoError where the folder holds a run of
        another configuration, or of one that started from other weights, with other threads or other versions: its
        numbers would differ from those of an uninterrupted run.
        """
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        recorded, complete = read_run(self.path)
        if recorded is not None:
            refuse_other(self.path, RUN, recorded, config, defaults or {}, complete, whole=True)
        else:
            write_json(self.path / "config.json", config)

    def resume(self, step: int) -> None:
        """Discard what was written after `step`, the step of the checkpoint that training goes on from."""
        for plain in (self.path / name for name in PACKED):
            packed = plain.with_name(f"{plain.name}.gz")
            if packed.exists():  # the kill came while the run was being finished
                if not plain.exists():
                    with replacing(plain) as part:
                        part.write_bytes(gzip.decompress(packed.read_bytes()))
                packed.unlink()
        for path in (self.path / name for name in TABLES):
            if path.exists():
                rows = list(csv.reader(whole_lines(path)))
                kept = [r for r in rows[1:] if len(r) == len(rows[0]) and r[0].isdigit() and int(r[0]) <= step]
                with replacing(path) as part:
                    _append_csv(part, [*rows[:1], *kept])
        path = self.path / "rollouts.jsonl"
        if path.exists():
            kept = [row for row in read_jsonl(path) if row["step"] <= step]
            with replacing(path) as part:
                append_jsonl(part, kept)

    def metrics(self, row: Mapping[str, Any], seconds: float) -> None:
        """Append one step: its metrics, and its time beside them."""
        self._append("metrics.csv", {k: _short(v) for k, v in row.items()})
        self._append("timing.csv", {"step": row["step"], "seconds": round(seconds, 2)})

    def probes(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append what the probed updates of a step measured."""
        for row in rows:
            self._append("probes.csv", {k: _short(v) for k, v in row.items()})

    def responses(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append what is kept of the held-out responses of an evaluation."""
        self._append("responses.csv", *({k: _short(v) for k, v in row.items()} for row in rows))

    def _append(self, name: str, *rows: Mapping[str, Any]) -> None:
        path = self.path / name
        if rows:
            head = [] if path.exists() and path.stat().st_size else [list(rows[0])]
            _append_csv(path, [*head, *(row.values() for row in rows)])

    def rollouts(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append sampled responses, one JSON object per line."""
        append_jsonl(self.path / "rollouts.jsonl", rows)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Pack what is large and write the summary: from here on the run is complete."""
        for plain in (self.path / name for name in PACKED):
            if plain.exists():
                with replacing(plain.with_name(f"{plain.name}.gz")) as part, part.open("wb") as raw:
                    with gzip.GzipFile(plain.name, "wb", mtime=0, fileobj=raw) as f:
                        f.write(plain.read_bytes())
                plain.unlink()
        write_json(self.path / "summary.json", {"complete": True, **summary})


def _short(value: Any) -> Any:
    """Seven significant digits, blank for None: enough for any plot, and half the file."""
    return "" if value is None else f"{value:.7g}" if isinstance(value, float) else value


def _append_csv(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    with path.open("a", encoding="utf-8", newline="") as f:
        csv.writer(f, lineterminator="\n").writerows(rows)
