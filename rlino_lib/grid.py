"""Many recorded runs from one JSON file: one process and one thread a run, complete runs skipped, killed ones resumed.

The file: {"base": {settings of every run}, "runs": [{"name": ..., settings}, ...], "seeds": [0, 1, 2]}.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from rlino_lib.errors import RlinoError
from rlino_lib.records import Run


def read_grid(file: str | Path) -> list[tuple[str, dict[str, Any]]]:
    """The runs of a grid file, by name and settings; seeds outermost, so that early ends still compare methods."""
    try:
        grid = json.loads(Path(file).read_text(encoding="utf-8"))
        return [
            (f"{run['name']}-s{seed}", {**grid["base"], **{k: v for k, v in run.items() if k != "name"}, "seed": seed})
            for seed in grid["seeds"]
            for run in grid["runs"]
        ]
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as e:
        raise RlinoError(f"{file} is no grid file: {type(e).__name__}: {e}") from e


def command_line(settings: dict[str, Any], out: Path) -> list[str]:
    """The command that makes one run; the one that a chapter prints."""
    words = ["train"]
    for name, value in settings.items():
        if name == "task_settings":
            words += [w for k, v in value.items() for w in ("--task-set", f"{k}={json.dumps(v)}")]
        else:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return [*words, "--threads", "1", "--resume", "--out", str(out)]


def _state(folder: Path) -> str:
    if not (folder / "config.json").exists():
        return "to do"
    return "complete" if Run(folder).complete else "started"


def run_grid(
    file: str | Path, *, jobs: int = 2, dry_run: bool = False, out: str | Path | None = None
) -> dict[str, Any]:
    """Run what is not complete, `jobs` at a time; a failed run is named at the end and stops no other.

    Returns the counts and the failures; raises RlinoError for an unreadable file, and after a grid with failures.
    """
    folder = Path(out) if out else Path(file).with_suffix("")
    runs = read_grid(file)
    if dry_run:
        for name, _ in runs:
            print(f"{name:40} {_state(folder / name)}", file=sys.stderr)
        return {"runs": len(runs), "complete": sum(_state(folder / name) == "complete" for name, _ in runs)}
    todo = [(name, settings) for name, settings in runs if _state(folder / name) != "complete"]
    folder.mkdir(parents=True, exist_ok=True)
    active: dict[str, tuple[subprocess.Popen, Any]] = {}
    failures: dict[str, str] = {}
    bar = tqdm(total=len(runs), initial=len(runs) - len(todo), desc="grid", unit="run", disable=not sys.stderr.isatty())
    while todo or active:
        while todo and len(active) < max(jobs, 1):
            name, settings = todo.pop(0)
            active[name] = _start(name, settings, folder)
        time.sleep(1)
        for name, (process, log) in list(active.items()):
            if process.poll() is None:
                continue
            log.close()
            del active[name]
            bar.update()
            log_path = folder / f"{name}.log"
            if process.returncode:
                lines = log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                failures[name] = lines[-1] if lines else f"exit code {process.returncode}"
            else:
                log_path.unlink()
    bar.close()
    if failures:
        raise RlinoError("; ".join(f"{name}: {why}" for name, why in failures.items()))
    return {"runs": len(runs), "complete": len(runs)}


def _start(name: str, settings: dict[str, Any], folder: Path) -> tuple[subprocess.Popen, Any]:
    log = (folder / f"{name}.log").open("w", encoding="utf-8")
    command = [sys.executable, "-m", "rlino_lib.cli", *command_line(settings, folder / name)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=log, stderr=log, env=env), log
