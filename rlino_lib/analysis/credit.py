"""What credit by tokens costs, and how good its values are, from recorded runs (chapter 10)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rlino_lib.analysis.statistics import curve
from rlino_lib.errors import RlinoError
from rlino_lib.records.runs import Run

WITHIN = 0.1  # how close a value counts as right (VinePPO, 2410.01679 §7)


def sampled_tokens(run: Run) -> pd.Series:
    """Tokens sampled for training up to each step, by step: responses, and the continuations that value their steps."""
    m = run.metrics
    responses = (m["completions/mean_length"] * m["samples"].diff()).fillna(0.0)
    values = m["value_tokens"].fillna(0.0) if "value_tokens" in m else 0.0
    return (responses + values).cumsum().set_axis(m["step"])


def budget_curve(run: Run) -> pd.DataFrame:
    """`curve` with a column `tokens`: those sampled for training by then. Raises RlinoError without evaluations."""
    evaluations = curve(run)
    if evaluations.empty:
        raise RlinoError(f"{run.name} has no evaluations: train it with --eval-every N")
    return evaluations.assign(tokens=evaluations["step"].map(sampled_tokens(run)))


def accuracy_at_tokens(run: Run, tokens: float) -> float:
    """Held-out accuracy in points when a run had sampled so many tokens, on the line between two evaluations.

    Raises RlinoError where the run had not sampled so many when it ended, and for less than none.
    """
    evaluations = budget_curve(run)
    if not tokens >= 0:
        raise RlinoError(f"tokens sampled must be a number of at least 0, not {tokens}")
    if tokens > evaluations["tokens"].iloc[-1]:
        raise RlinoError(f"{run.name} sampled {evaluations['tokens'].iloc[-1]:,.0f} tokens, not {tokens:,.0f}")
    return float(np.interp(tokens, evaluations["tokens"], evaluations["accuracy"]))


def value_errors(values: pd.DataFrame) -> pd.DataFrame:
    """How far each estimate of `rlino values` lies from the truth, by its name and by place in the response.

    One row per estimate and number of steps before it: `estimate`, `step`, `states`, `within` (the share within 0.1),
    `error` (the mean distance). Raises RlinoError for another table.
    """
    need_columns(values, "truth", "step")
    rows = []
    for name in estimates(values):
        error = (values[name] - values["truth"]).abs()
        by_step = pd.DataFrame({"step": values["step"], "error": error}).groupby("step")["error"]
        for step, errors in by_step:
            rows.append((name, step, len(errors), (errors <= WITHIN).mean(), errors.mean()))
    return pd.DataFrame(rows, columns=["estimate", "step", "states", "within", "error"])


def estimates(values: pd.DataFrame) -> list[str]:
    """The columns of a table of values that estimate the truth: `critic` where there is one, and `k1`, `k3`, …"""
    return [name for name in values if name == "critic" or (name[0] == "k" and name[1:].isdigit())]


def need_columns(values: pd.DataFrame, *names: str) -> None:
    """Raise RlinoError where a table of values lacks columns."""
    if missing := [name for name in names if name not in values]:
        raise RlinoError(f"a table of `rlino values` needs the columns {', '.join(missing)}")


def share_within(values: pd.DataFrame, estimate: str) -> float:
    """The share of states, in points, whose estimate lies within 0.1 of the truth; RlinoError without its column."""
    need_columns(values, "truth", estimate)
    return 100 * float(((values[estimate] - values["truth"]).abs() <= WITHIN).mean())


def best_of_next(values: pd.DataFrame, estimate: str) -> float:
    """How often, in points, an estimate picks the best of a prompt's different next steps, ties shared.

    Over prompts whose next steps differ in truth; picking by chance is right once in so many as there are. Raises
    RlinoError where there are none, or columns are missing.
    """
    need_columns(values, "problem", "prefix", "step", "truth", estimate)
    firsts = values[values["step"] == 1].drop_duplicates(["problem", "prefix"])
    shares = []
    for _, group in firsts.groupby("problem"):
        if group["truth"].nunique() > 1:
            picked = group[group[estimate] == group[estimate].max()]
            shares.append((picked["truth"] == group["truth"].max()).mean())
    if not shares:
        raise RlinoError("no prompt has next steps of different value")
    return 100 * float(np.mean(shares))
