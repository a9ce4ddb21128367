"""A reader's own runs against the ledger (chapter 12): the same evidence, model by model, beside the book's."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rlino_lib.analysis.statistics import outcomes
from rlino_lib.analysis.tables import paired_differences
from rlino_lib.claims.head_to_head import is_plain
from rlino_lib.claims.judge import judge
from rlino_lib.claims.ledger import LEDGER, Claim, Evidence, Records, read_ledger
from rlino_lib.claims.verdicts import UNTESTED
from rlino_lib.errors import RlinoError
from rlino_lib.paths import DATA, RUNS
from rlino_lib.records.runs import UNKNOWN, Run
from rlino_lib.training.config import VERIFIER

COLUMNS = ["id", "statement", "model", "task", "verdict", "effect", "paper"]
AT_SCALE = "at the paper's scale"
# The tasks whose runs a claim on a task of the book is about: the word problems stand in for GSM8K.
STANDS_FOR = {"countdown": ("countdown",), "word_problems": ("word_problems", "gsm8k")}


def find_runs(folder: str | Path) -> list[Run]:
    """All complete runs in a folder, at any depth; raises RlinoError where there is none."""
    metrics = (path.with_name("metrics.csv") for path in sorted(Path(folder).rglob("config.json")))
    runs = [Run(path.parent) for path in metrics if path.exists()]  # a saved model has a config.json too
    complete = [run for run in runs if run.complete]
    if not complete:
        raise RlinoError(f"{folder} holds no complete run: `rlino train --out {folder}/NAME` makes one")
    return complete


def judge_yours(folder: str | Path, path: str | Path = LEDGER, seeds: float = math.inf) -> pd.DataFrame:
    """The claims that runs in a folder bear on: one row per claim, model and task.

    Columns: id, statement, model, task, `verdict` and `effect`, and `paper`: which model of the paper's table it is, or
    "". A model with adapters is another one than the model itself. A claim needs as many seeds as for the book's own
    runs, or `seeds` where that many were planned before the runs were made. With fewer it is not testable here, and
    `effect` says what there is so far. With enough it may be undecided. Runs that are rewarded for anything but the
    verifier's answer count for no claim.
    Raises RlinoError where the folder holds no complete run.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in find_runs(folder):
        if not _of_the_verifier(run):
            continue
        adapters = " with LoRA" if run.config.get("lora_rank") else ""
        groups.setdefault((run.config["model"] + adapters, run.config["task"]), []).append(run)
    # What names groups of runs asks something again of the book's own grids, by other seeds.
    ledger = [_planned(claim, seeds) for claim in read_ledger(path) if "groups" not in claim.about]
    rows = []
    for claim in ledger:
        for (model, task), runs in groups.items():
            comparable = task in STANDS_FOR.get(claim.about.get("task"), ())
            if comparable and any(run.method == claim.about["method"] for run in runs):
                result = _judge(claim, [_as(run, claim.about["task"]) for run in runs], ledger)
                paper = paper_model(model, task)
                rows.append((claim.id, claim.statement, model, task, result.verdict, result.effect, paper))
    return pd.DataFrame(rows, columns=COLUMNS)


def paper_model(model: str, task: str) -> str:
    """The model of the paper's table that a hub id, or a folder named like one, stands for in runs on a task; or ""."""
    table = pd.read_csv(DATA / "paper" / "results.csv")
    names = table.loc[table["task"] == task, "model"].unique()
    name = model.removesuffix(" with LoRA").rstrip("/").rpartition("/")[2].lower()
    return next((known for known in names if known.lower() == name), "")


def beside_the_book(judged: pd.DataFrame, yours: pd.DataFrame) -> pd.DataFrame:
    """The ledger with a reader's verdicts: a row per claim on a task, by its statement.

    Columns: the paper's words, the book's verdict, those "at the paper's scale" (of runs of the paper's models on its
    tasks, a dash where there are none), and one for each other model and task. `judged` is as `judge_all` returns it,
    `yours` as `judge_yours` does, or empty.
    """
    about = judged[judged["about"].astype(bool)].set_index("id")
    verdicts = about[["statement", "paper", "found"]].set_axis(["", "in the paper", "the book"], axis=1)
    at_scale = yours[yours["paper"] != ""]
    words = at_scale["paper"].str.cat(at_scale["model"].map(lambda name: " with LoRA" * name.endswith(" with LoRA")))
    cells = words.str.cat(at_scale["verdict"], sep=": ").groupby(at_scale["id"]).agg("; ".join)
    verdicts[AT_SCALE] = cells.reindex(about.index, fill_value="–")
    for (model, task), own in yours[yours["paper"] == ""].groupby(["model", "task"]):
        verdicts[f"yours: {model}, {task}"] = own.set_index("id")["verdict"].reindex(about.index, fill_value="–")
    return verdicts.set_index("")


def _of_the_verifier(run: Run) -> bool:
    return run.config.get("reward", VERIFIER) == VERIFIER


def silent(folder: str | Path, path: str | Path = LEDGER) -> list[str]:
    """The runs in a folder that no claim is about, each in a line that says what it would take."""
    about = [(claim.about["method"], claim.about.get("reference"), STANDS_FOR.get(claim.about.get("task"), ()))
             for claim in read_ledger(path) if "method" in claim.about]  # fmt: skip
    lines = []
    for run in find_runs(folder):
        task = run.config["task"]
        if not _of_the_verifier(run):
            lines.append(f"{run.name}: no claim on a reader's runs is about the reward {run.config['reward']}")
        elif not any(run.method in pair and task in tasks for *pair, tasks in about):
            how = ": `rlino import --method … --task …` names them" if UNKNOWN in (run.method, task) else ""
            lines.append(f"{run.name}: no claim is about the method {run.method} on the task {task}{how}")
    return lines


def _planned(claim: Claim, seeds: float) -> Claim:
    """The claim with at most that many planned seeds."""
    fewer = {name: min(value, seeds) for name, value in claim.threshold.items() if name == "seeds"}
    return dataclasses.replace(claim, threshold={**claim.threshold, **fewer})


def _as(run: Run, task: str) -> Run:
    """The run under the task that a claim names."""
    relabelled = copy.copy(run)
    relabelled.config = run.config | {"task": task}
    return relabelled


def _judge(claim: Claim, runs: Sequence[Run], ledger: Sequence[Claim]) -> Evidence:
    pair = claim.about["method"], claim.about.get("reference")
    if reason := _incomparable([run for run in runs if run.method in pair]):
        return Evidence(UNTESTED, reason)
    runs = [run for run in runs if run.seed is not None]
    try:
        result = judge(claim, Records(RUNS, ledger, runs))
        so_far = _so_far(claim, runs, ledger) if result.verdict == UNTESTED else ""
    except RlinoError as e:  # a run without its test, or a base without its evaluation
        return Evidence(UNTESTED, str(e))
    return Evidence(result.verdict, f"{result.effect}{so_far}", result.runs)


def _incomparable(runs: Sequence[Run]) -> str:
    """Why runs are no seeds of one experiment, or nothing: no seed, a file that is several, other problems."""
    sources: dict[object, Run] = {}
    for run in runs:
        if run.seed is None:
            return f"{run.name} does not say its seed: `rlino import --seed N` does"
        source = run.config.get("source_sha256_16", run.path)
        if (same := sources.setdefault(source, run)) is not run:
            return f"{same.name} and {run.name} are imports of the same files"
    tasks = {json.dumps(run.config.get("task_settings") or {}, sort_keys=True): run.name for run in runs}
    if len(tasks) > 1:
        return "{} and {} have different task settings".format(*tasks.values())
    tests = {run.summary["problems_sha256"]: run.name for run in runs if "problems_sha256" in run.summary}
    return f"{' and '.join([*tests.values()][:2])} were tested on different problems" if len(tests) > 1 else ""


def _so_far(claim: Claim, runs: Sequence[Run], ledger: Sequence[Claim]) -> str:
    """What too few seeds say, in the quantity that the claim is about: a difference of methods, or its evidence's."""
    method, task, reference = (claim.about.get(name, "") for name in ("method", "task", "reference"))
    if not reference:
        result = judge(_planned(claim, 1), Records(RUNS, ledger, runs))
        return "" if result.verdict == UNTESTED else f"; so far {result.effect}"
    compared = [run for run in runs if run.method in (method, reference) and is_plain(run)]
    gaps = paired_differences(outcomes(compared), task, method, reference)
    return f"; so far {gaps.mean():+.1f} points (seeds: {len(gaps)})" if len(gaps) else ""
