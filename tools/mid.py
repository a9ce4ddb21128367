"""The base in between (chapter 12), from pretraining to its runs: `tools/mid.sh`.

Pretrains the base (`data/base/mid`), evaluates it against what chapter 03 asks of a base, sweeps the learning rate, and
makes the grid `data/runs/mid.json` at the best one, ten runs at a time: chapter 12 says how they share a card. What is
ended by a signal or by a kill goes on where it stopped when the same command is given again, as each command of `rlino`
does.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd

from rlino_lib.analysis.pass_at_k import pass_at_k
from rlino_lib.cli.main import PROGRAM
from rlino_lib.cli.terminal import Parser, run_program
from rlino_lib.errors import RlinoError
from rlino_lib.folders import read_json, write_json
from rlino_lib.paths import DATA, DEFAULT_BASE
from rlino_lib.records.runs import Run

# The shipped base, six times as wide: 27 million parameters. With three layers there are few kernel launches, which
# cost more than the products here. A good rate of Adam falls with the width: 2e-3 at 128 would be 3.3e-4 at 768, and √2
# times that at twice the batch. In rehearsals of 240 batches of 32 traces the best of 5e-4, 1e-3 and 2e-3 was 2e-3 at
# width 256 and 1e-3 at 512, from which 768 would have 7e-4.
RECIPE = "--hidden-size 768 --layers 3 --batch-size 256 --steps 2200 --restart 2200 --warmup 100 --lr 7e-4"
EVALUATE = "--split test --samples 64"
# What chapter 03 asks of a base: a measure, and the lowest and highest values that will do (None: shown, not judged).
CRITERIA = {
    "format_ok": (0.95, 1.0), "steps_right": (0.97, 1.0), "pass@1": (0.15, 0.35), "pass@64": (0.85, 1.0),
    "mixed groups of 8": (None, None), "clipped_ratio": (None, None), "mean_length": (None, None),
}  # fmt: skip


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
    accuracy = {run.config["lr"]: float(run.metrics["eval/accuracy"].dropna().iloc[-1]) for run in swept}
    if not accuracy:
        raise RlinoError(f"{runs} holds no complete run to choose a learning rate by")
    settings["base"]["lr"] = max(sorted(accuracy), key=accuracy.get)
    write_json(out, settings)
    return settings["base"]["lr"]


# --- all of it -------------------------------------------------------------------------------------------------------


def rlino(*words: str) -> None:
    """A command of `rlino`, its line of results on stderr; RlinoError where it fails."""
    print(f"rlino {shlex.join(words)}", file=sys.stderr, flush=True)
    try:
        code = subprocess.run([*PROGRAM, *words], stdout=sys.stderr.fileno()).returncode
    except KeyboardInterrupt:  # it ends with the command, which goes on from its last checkpoint
        code = 130
    if code:
        raise RlinoError(f"{words[0]} ended with exit code {code}; the same command goes on where it stopped")


def make(out: Path, grids: Path, recipe: str, evaluation: str) -> float:
    """All of it; returns the learning rate. Raises RlinoError where a command fails."""
    base = out / "base" / "mid"
    sweep = out / "runs" / "mid-lr"
    runs = out / "runs" / "mid"
    if (base / "evaluation.json").exists() and not (base / "model.safetensors").exists():
        records = f"{base} {sweep} {runs}"
        raise RlinoError(f"{base} has the records of a base without its weights; to make your own: rm -r {records}")
    runs.parent.mkdir(parents=True, exist_ok=True)
    rlino("pretrain", *shlex.split(recipe), "--out", str(base))
    rlino("evaluate", "--model", str(base), *shlex.split(evaluation), "--out", str(base))
    print(f"chapter 03 asks of a base:\n{check_base(base).to_string()}", file=sys.stderr)
    rlino("grid", str(grids / "mid-lr.json"), "--out", str(sweep))
    rate = choose_rate(sweep, grids / "mid.json", runs.with_suffix(".json"))
    rlino("grid", str(runs.with_suffix(".json")), "--out", str(runs))
    return rate


def main(argv: list[str] | None = None) -> int:
    """The script; returns the exit code."""
    parser = Parser(prog="mid.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DATA, help="folder of base/mid and runs/mid (default: data)")
    parser.add_argument("--grids", type=Path, default=DATA / "runs", help="folder of mid.json and mid-lr.json")
    parser.add_argument("--recipe", default=RECIPE, help="options of `rlino pretrain` (default: %(default)s)")
    parser.add_argument("--evaluate", default=EVALUATE, help="options of `rlino evaluate` (default: %(default)s)")

    def run() -> int:
        args = parser.parse_args(argv)
        print(json.dumps({"lr": make(args.out, args.grids, args.recipe, args.evaluate)}))
        return 0

    return run_program(run, "mid")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the command at work ends, too
    sys.exit(main())
