"""A reader's own runs against the ledger (chapter 12): the same evidence, model by model, beside the book's."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rlino_lib.analysis.statistics import differences, final_accuracy, outcomes
from rlino_lib.claims.judge import EVIDENCE, LEDGER, read_ledger
from rlino_lib.claims.ledger import UNTESTED, Claim, Evidence, Records
from rlino_lib.errors import RlinoError
from rlino_lib.paths import RUNS
from rlino_lib.records.runs import Run

# The tasks whose runs a claim on a task of the book is about: the word problems stand in for GSM8K.
STANDS_FOR = {"countdown": ("countdown",), "word_problems": ("word_problems", "gsm8k")}


def find_runs(folder: str | Path) -> list[Run]:
    """All complete runs in a folder, however deep; raises RlinoError where there is none."""
    runs = [Run(path.parent) for path in sorted(Path(folder).rglob("config.json")) if _is_run(path.parent)]
    if not (complete := [run for run in runs if run.complete]):
        raise RlinoError(f"{folder} holds no complete run: `rlino train --out {folder}/NAME` makes one")
    return complete


def _is_run(folder: Path) -> bool:
    """Whether a config.json is a run's, and not that of the model beside it."""
    return (folder / "metrics.csv").exists()


def judge_yours(folder: str | Path, path: str | Path = LEDGER) -> pd.DataFrame:
    """The claims that runs in a folder bear on: a row for each claim, model and task.

    Columns: id, statement, model, task, `verdict` and `effect`. A claim needs as many seeds as for the book's own runs;
    with fewer it is not testable here, and `effect` says what there is so far. With enough it may be undecided.
    Raises RlinoError where the folder holds no complete run.
    """
    runs, ledger, rows = find_runs(folder), read_ledger(path), []
    kinds = dict.fromkeys((run.config["model"], run.config["task"]) for run in runs)
    for claim in (c for c in ledger if c.about):
        for model, task in kinds:
            if task in STANDS_FOR.get(claim.about["task"], ()):
                own = [_as(run, claim.about["task"]) for run in runs
                       if (run.config["model"], run.config["task"]) == (model, task)]  # fmt: skip
                if any(run.method == claim.about["method"] for run in own):
                    found = _judged(claim, own, ledger)
                    rows.append((claim.id, claim.statement, model, task, found.verdict, found.effect))
    return pd.DataFrame(rows, columns=["id", "statement", "model", "task", "verdict", "effect"])


def _as(run: Run, task: str) -> Run:
    """The run under the task that a claim names."""
    other = copy.copy(run)
    other.config = run.config | {"task": task}
    return other


def _judged(claim: Claim, own: Sequence[Run], ledger: Sequence[Claim]) -> Evidence:
    try:
        found = EVIDENCE[claim.evidence](claim, Records(RUNS, ledger, own))
        so_far = _so_far(claim, own) if found.verdict == UNTESTED else ""
    except RlinoError as e:  # a run without its test, or a base without its evaluation
        return Evidence(UNTESTED, str(e))
    return Evidence(found.verdict, f"{found.effect}{so_far}", found.runs)


def _so_far(claim: Claim, own: Sequence[Run]) -> str:
    """What too few seeds say."""
    reference = claim.about.get("reference")
    mine = [run for run in own if run.method in (claim.about["method"], reference)]
    common = set.intersection(*({r.seed for r in mine if r.method == m} for m in {r.method for r in mine}))
    mine = [run for run in mine if run.seed in common]
    if reference and len({run.method for run in mine}) == 2:
        gaps = differences(outcomes(mine), claim.about["method"], reference)
        return f"; so far {gaps.mean():+.1f} points (seeds: {len(gaps)})"
    scores = [final_accuracy(run) for run in mine if run.method == claim.about["method"]]
    return f"; so far {sum(scores) / len(scores):.1f} % right (seeds: {len(scores)})" if scores else ""
