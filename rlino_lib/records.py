"""Run folders: what a run writes, and how chapters read it back as DataFrames. Knows nothing of torch.

A folder holds config.json, metrics.csv (reproducible to the last digit), timing.csv (which is not), sampled whole
groups in rollouts.jsonl(.gz), a row for each held-out response in responses.csv(.gz), and summary.json, written last:
a folder without it is not complete and says so.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from rlino_lib.errors import RlinoError

REPO = Path(__file__).resolve().parent.parent
RUNS = REPO / "data" / "runs"


class Run:
    """One run folder, read lazily."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config: dict = _read_json(self.path / "config.json")
        summary = self.path / "summary.json"
        self.summary: dict | None = _read_json(summary) if summary.exists() else None

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
        """One row a step; `eval/…` columns are filled on evaluation steps, of which step 0 is the base."""
        return _read_csv(self.path / "metrics.csv")

    @cached_property
    def timing(self) -> pd.DataFrame:
        """Seconds of wall clock from the start of the run, by step."""
        return _read_csv(self.path / "timing.csv")

    @cached_property
    def probes(self) -> pd.DataFrame:
        """One row a probed update (`probe_every` of the run's settings), by step and update from 1."""
        return _read_csv(self.path / "probes.csv")

    @cached_property
    def responses(self) -> pd.DataFrame:
        """One row a held-out response: those of the evaluations, and (`final`) of the test after training.

        Raises RlinoError where the run kept none.
        """
        frame = _read_csv(self.path / "responses.csv.gz")
        for name in ("final", "correct", "clipped"):
            frame[name] = frame[name].astype(bool)
        return frame

    @cached_property
    def rollouts(self) -> pd.DataFrame:
        """Sampled whole groups, one response a row (empty where none were kept)."""
        for name in ("rollouts.jsonl.gz", "rollouts.jsonl"):
            path = self.path / name
            if path.exists():
                opener = gzip.open if name.endswith(".gz") else open
                with opener(path, "rt", encoding="utf-8") as f:
                    return pd.DataFrame([json.loads(line) for line in f])
        return pd.DataFrame()


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise RlinoError(f"{path.parent} is no run folder: it has no {path.name}") from e
    except json.JSONDecodeError as e:
        raise RlinoError(f"{path} is damaged: {e}") from e


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except (FileNotFoundError, pd.errors.EmptyDataError) as e:
        raise RlinoError(f"{path} is missing or empty") from e


def load_run(name: str | Path) -> Run:
    """A run by its path, or by its name below data/runs; raises RlinoError where there is none."""
    path = Path(name)
    return Run(path if (path / "config.json").exists() else RUNS / name)


def is_done(out: Path, resume: bool, save: bool) -> bool:
    """Whether a run folder is complete already. Raises RlinoError where it is, without the model that `save` asks for,
    and where it holds an unfinished run that `resume` does not let go on."""
    if (out / "summary.json").exists():
        if save and not (out / "model").exists():
            raise RlinoError(f"{out} holds a complete run without its model: choose another --out")
        return True
    if (out / "config.json").exists() and not resume:
        raise RlinoError(f"{out} holds an unfinished run: add --resume to go on, or choose another --out")
    return False


def list_runs(group: str | None = None, root: str | Path = RUNS, complete: bool = True) -> list[Run]:
    """All runs of a group (of every group where None) in the order of their names; by default the complete ones."""
    found = sorted(Path(root).glob(f"{group or '*'}/*/config.json"))
    runs = [Run(path.parent) for path in found]
    return [run for run in runs if run.complete or not complete]


def metrics_frame(runs: Iterable[Run]) -> pd.DataFrame:
    """The metrics of many runs in one frame, with `run`, `method` and `seed` columns in front."""
    frames = [run.metrics.assign(run=run.name, method=run.method, seed=run.seed) for run in runs]
    if not frames:
        raise RlinoError("there are no recorded runs here: `make runs` makes them")
    frame = pd.concat(frames, ignore_index=True)
    first = ["run", "method", "seed"]
    return frame[first + [c for c in frame.columns if c not in first]]


class RunWriter:
    """Writes a run folder. Everything up to a checkpoint's step survives a kill; the rest is written again."""

    def __init__(self, path: str | Path, config: Mapping[str, Any]) -> None:
        """Open a folder for writing; raises RlinoError where it holds a run of another configuration, or is in use."""
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.path / "run.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout as e:
            raise RlinoError(f"another process is writing {self.path}") from e
        config = json.loads(json.dumps(config))
        if (self.path / "config.json").exists():
            old = _read_json(self.path / "config.json")
            changed = [k for k in old | config if old.get(k) != config.get(k)]
            if changed:
                self.close()
                raise RlinoError(f"{self.path} holds a run with another {', '.join(changed)}: choose another --out")
        write_json(self.path / "config.json", config)

    def resume(self, step: int) -> None:
        """Forget what was written after `step`, the step of the checkpoint that training goes on from."""
        for name in ("metrics.csv", "timing.csv", "probes.csv", "responses.csv"):
            path = self.path / name
            if path.exists():
                rows = list(csv.reader(path.open(encoding="utf-8", newline="")))
                # A kill can leave half a line behind: such a line is short, or its step is no number.
                good = [r for r in rows[1:] if len(r) == len(rows[0]) and r[0].isdigit() and int(r[0]) <= step]
                _write_rows(path, [rows[0], *good])
        path = self.path / "rollouts.jsonl"
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
            path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

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
        if not rows:
            return
        new = not path.exists()
        with path.open("a", encoding="utf-8", newline="") as f:
            writer = csv.writer(f, lineterminator="\n")
            if new:
                writer.writerow(rows[0])
            writer.writerows(row.values() for row in rows)

    def rollouts(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append sampled responses, one JSON object a line."""
        with (self.path / "rollouts.jsonl").open("a", encoding="utf-8") as f:
            f.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Pack what is large and write the summary: from here on the run is complete."""
        for name in ("rollouts.jsonl", "responses.csv"):
            plain = self.path / name
            if plain.exists():
                with gzip.GzipFile(plain.with_name(f"{name}.gz"), "wb", mtime=0) as f:
                    f.write(plain.read_bytes())
                plain.unlink()
        write_json(self.path / "summary.json", {"complete": True, **summary})
        (self.path / "run.lock").unlink(missing_ok=True)

    def close(self) -> None:
        """Let others write here; the end of the process does the same, however it ends."""
        self._lock.release()


def _short(value: Any) -> Any:
    """Seven significant digits, blank for None: enough for any plot, and half the file."""
    return "" if value is None else f"{value:.7g}" if isinstance(value, float) else value


def _write_rows(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as f:
        csv.writer(f, lineterminator="\n").writerows(rows)


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a kill leaves the old file or the new one, never half of one."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)
