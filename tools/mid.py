"""The base in between (chapter 12), from pretraining to packed records: `tools/mid.sh FOLDER`.

Pretrains the base (`data/base/mid`), evaluates it against what chapter 03 asks of a base, sweeps the learning rate, and
makes the grid `data/runs/mid.json` at the best one. Records of what is complete are packed into FOLDER after each stage
and every half a minute, without weights; `tar -C data -xzf FILE` unpacks one. What is ended by `--until`, by a signal
or by a kill goes on where it stopped when the same command is given again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from rlino_lib.analysis.pass_at_k import pass_at_k
from rlino_lib.cli.main import PROGRAM
from rlino_lib.cli.terminal import Parser, run_program
from rlino_lib.errors import RlinoError
from rlino_lib.folders import read_json, replacing, write_json
from rlino_lib.paths import DATA, DEFAULT_BASE
from rlino_lib.records.runs import Run

# The shipped base, six times as wide: 27 million parameters. With three layers there are few kernel launches, which
# cost more than the products here. A good rate of Adam falls with the width: 2e-3 at 128 would be 3.3e-4 at 768, and √2
# times that at twice the batch. In rehearsals of 240 batches of 32 traces the best of 5e-4, 1e-3 and 2e-3 was 2e-3 at
# width 256 and 1e-3 at 512, from which 768 would have 7e-4.
RECIPE = "--hidden-size 768 --layers 3 --batch-size 256 --steps 2200 --restart 2200 --warmup 100 --lr 7e-4"
EVALUATE = "--split test --samples 64"
PARTS = ("base/mid", "runs/mid-lr", "runs/mid")
# What chapter 03 asks of a base: a measure, and the lowest and highest values that will do (None: shown, not judged).
CRITERIA = {
    "format_ok": (0.95, 1.0),
    "steps_right": (0.97, 1.0),
    "pass@1": (0.15, 0.35),
    "pass@64": (0.85, 1.0),
    "mixed groups of 8": (None, None),
    "clipped_ratio": (None, None),
    "mean_length": (None, None),
}
HEAVY = (".safetensors", ".pt", ".tmp", ".lock", ".log")  # what is not packed
LARGEST = 16 * 2**20  # bytes of a packed file


# --- the base --------------------------------------------------------------------------------------------------------


def measures(base: Path) -> dict[str, float | None]:
    """The measures of a base's evaluation, None for one that it lacks; RlinoError where there is no evaluation."""
    values = read_json(base / "evaluation.json", needs="found")["found"]
    values = {name: v["value"] if name.startswith("pass@") else v for name, v in values.items()}
    rows = pd.read_json(base / "problems.jsonl", lines=True)
    if values["samples"] >= 8:  # of all the groups of 8 that could be drawn, the share with right and wrong responses
        groups = zip(rows["n"], rows["c"], strict=True)
        mixed = [pass_at_k(n, c, 8) + pass_at_k(n, n - c, 8) - 1 for n, c in groups]
        values["mixed groups of 8"] = sum(mixed) / len(mixed)
    return {name: values.get(name) for name in CRITERIA}


def check_base(base: Path) -> pd.DataFrame:
    """Chapter 03's criteria on a base, beside the shipped one; kept in its folder as check.json."""
    own = measures(base)
    shipped = measures(Path(DEFAULT_BASE))
    rows = {}
    for name, (low, high) in CRITERIA.items():
        met = None if low is None else own[name] is not None and low <= own[name] <= high
        rows[name] = {"value": own[name], "shipped": shipped[name], "from": low, "to": high, "met": met}
    write_json(base / "check.json", rows)
    return pd.DataFrame(rows).T


def choose_rate(runs: Path, grid: Path, out: Path) -> float:
    """Write a grid file with the learning rate whose run in `runs` ended most accurate on the validation split.

    Raises RlinoError where there is no complete run to choose by.
    """
    settings = read_json(grid, needs="base")
    swept = [Run(path.parent) for path in sorted(runs.glob("*/summary.json"))]
    found = {run.config["lr"]: float(run.metrics["eval/accuracy"].dropna().iloc[-1]) for run in swept}
    if not found:
        raise RlinoError(f"{runs} holds no complete run to choose a learning rate by")
    settings["base"]["lr"] = max(sorted(found), key=found.get)
    write_json(out, settings)
    return settings["base"]["lr"]


# --- packing ---------------------------------------------------------------------------------------------------------


def pack(root: Path, folder: Path) -> dict[str, int]:
    """Pack the base's records and the complete runs below `root` into `folder`; bytes by file, one for each part.

    A file is whole or not there, also after a kill. Raises RlinoError where one would be too large.
    """
    sizes = {}
    for part in PARTS:
        kept = [path for path in [*sorted((root / part).rglob("*")), root / f"{part}.json"] if _is_kept(path)]
        if kept:
            target = folder / f"{part.replace('/', '-')}.tar.gz"
            with replacing(target) as new:
                with tarfile.open(new, "w:gz") as archive:
                    for path in kept:
                        archive.add(path, str(path.relative_to(root)))
                if (size := new.stat().st_size) > LARGEST:
                    raise RlinoError(f"{target} would have {size:,} bytes, and may have {LARGEST:,}")
            sizes[target.name] = size
    return sizes


def _is_kept(path: Path) -> bool:
    """Files but for weights; of runs those of complete ones."""
    complete = not (path.parent / "metrics.csv").exists() or (path.parent / "summary.json").exists()
    return path.is_file() and complete and path.suffix not in HEAVY


# --- stages ----------------------------------------------------------------------------------------------------------


class Stages:
    """Runs commands of `rlino` until the time is up or a signal comes, and packs as they go."""

    def __init__(self, root: Path, folder: Path, seconds: float) -> None:
        self.root = root
        self.folder = folder
        self.began = time.monotonic()
        self.end = self.began + seconds
        self.stopped = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def _stop(self, *_: Any) -> None:
        self.stopped = True

    def over(self) -> bool:
        """Whether nothing new may start."""
        return self.stopped or time.monotonic() >= self.end

    def run(self, commands: Mapping[str, Sequence[str]]) -> None:
        """Run commands beside each other. Raises RlinoError where one fails, and where there is no time for all."""
        jobs = {} if self.over() else {name: self._start(name, words) for name, words in commands.items()}
        try:
            self._wait(jobs)
        finally:
            codes = {name: self._ended(job) for name, job in jobs.items()}
        for name, code in codes.items():
            self.say(f"{name}: exit code {code}")
        pack(self.root, self.folder)
        if failed := [name for name, code in codes.items() if code and not self.over()]:
            raise RlinoError(f"{', '.join(failed)} failed")
        if any(codes.values()) or not jobs:
            raise RlinoError(f"no time left for {', '.join(commands)}; the same command goes on where it stopped")

    def _wait(self, jobs: Mapping[str, subprocess.Popen]) -> None:
        """Until all have ended or nothing new may start."""
        packed = time.monotonic()
        while not self.over() and any(job.poll() is None for job in jobs.values()):
            time.sleep(0.1)
            if time.monotonic() > packed + 30:
                with suppress(OSError):  # a file that was just replaced
                    pack(self.root, self.folder)
                packed = time.monotonic()

    def _start(self, name: str, words: Sequence[str]) -> subprocess.Popen:
        with (self.folder / f"{name}.json").open("w") as result:
            return subprocess.Popen([*PROGRAM, *words], stdout=result)

    def _ended(self, job: subprocess.Popen) -> int:
        """The exit code of a process, which is ended where it is still at work."""
        if job.poll() is None:
            job.terminate()
        try:
            return job.wait(20)
        except subprocess.TimeoutExpired:
            job.kill()
            return job.wait()

    def say(self, line: str) -> None:
        """A line with the seconds so far, on stderr and in stages.txt."""
        line = f"{time.monotonic() - self.began:6.1f} s  {line}"
        print(line, file=sys.stderr, flush=True)
        with (self.folder / "stages.txt").open("a") as log:
            log.write(f"{line}\n")


def make(folder: Path, out: Path, grids: Path, recipe: str, evaluation: str, seconds: float) -> dict[str, Any]:
    """All of it; returns bytes by packed file. Raises RlinoError where a stage fails, or is ended before it is done."""
    base = out / "base" / "mid"
    if (base / "evaluation.json").exists() and not (base / "model.safetensors").exists():
        records = " ".join(str(out / part) for part in PARTS)
        raise RlinoError(f"{base} has the records of a base without its weights; to make your own: rm -r {records}")
    try:
        for path in (folder, base.parent, out / "runs"):
            path.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise RlinoError(f"cannot make the folder {path}: {e.strerror}") from e
    stages = Stages(out, folder, seconds)
    stages.run({"pretrain": ["pretrain", *shlex.split(recipe), "--out", str(base)]})
    evaluate = ["evaluate", "--model", str(base), *shlex.split(evaluation), "--out", str(base)]
    sweep = ["grid", str(grids / "mid-lr.json"), "--out", str(out / "runs" / "mid-lr")]
    stages.run({"evaluate": evaluate, "sweep": sweep})
    table = check_base(base)
    stages.say(f"chapter 03 asks of a base:\n{table.to_string()}")
    grid = out / "runs" / "mid.json"
    stages.say(f"learning rate {choose_rate(out / 'runs' / 'mid-lr', grids / 'mid.json', grid):g}")
    stages.run({"grid": ["grid", str(grid), "--out", str(out / "runs" / "mid")]})
    return pack(out, folder)


def _seconds(text: str) -> float:
    if not (seconds := float(text)) > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return seconds


def main(argv: list[str] | None = None) -> int:
    """The script; returns the exit code."""
    parser = Parser(prog="mid.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for the packed records")
    parser.add_argument(
        "--until", type=float, default=1e9, metavar="SECONDS", help="end what is running after these, within another 30"
    )
    parser.add_argument("--out", type=Path, default=DATA, help="folder of base/mid and runs/mid (default: data)")
    parser.add_argument("--grids", type=Path, default=DATA / "runs", help="folder of mid.json and mid-lr.json")
    parser.add_argument("--recipe", default=RECIPE, help="options of `rlino pretrain` (default: %(default)s)")
    parser.add_argument("--evaluate", default=EVALUATE, help="options of `rlino evaluate` (default: %(default)s)")

    def run() -> int:
        args = parser.parse_args(argv)
        sizes = make(args.folder, args.out, args.grids, args.recipe, args.evaluate, args.until)
        print(json.dumps(sizes))
        return 0

    return run_program(run, "mid")


if __name__ == "__main__":
    sys.exit(main())
