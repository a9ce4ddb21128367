"""What credit by tokens costs, and how good its values are, from recorded runs (chapter 10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

from rlino_lib.analysis.statistics import curve
from rlino_lib.errors import RlinoError
from rlino_lib.records.runs import Run

WITHIN = 0.1  # how close a value counts as right (VinePPO, 2410.01679 §7)
HARD, EASY = 0.1, 0.5  # the shares of right samples up to which a problem is hard, and from which on it is easy
DIFFICULTIES = ("hard", "middle", "easy")
LEAST = 8  # problems of a difficulty, for an interval over them


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


def accuracy_at(run: Run, budget: str, amount: float) -> float:
    """Held-out accuracy in points when a run had spent so much of a budget, on the line between two evaluations.

    `budget` is a column of `budget_curve`: tokens, updates. Raises RlinoError where the run had not spent so much when
    it ended.
    """
    evaluations = budget_curve(run)
    spent = evaluations[budget]
    if amount > spent.iloc[-1]:
        raise RlinoError(f"{run.name} took {spent.iloc[-1]:,.0f} {budget}, not {amount:,.0f}")
    return float(np.interp(amount, spent, evaluations["accuracy"]))


def value_errors(values: pd.DataFrame) -> pd.DataFrame:
    """How far each estimate of `rlino values` lies from the truth, by its name and by place in the response.

    One row per estimate and number of steps before it: `estimate`, `step`, `states`, `within` (the share within 0.1),
    `error` (the mean distance). Raises RlinoError for another table.
    """
    need_columns(values, "truth", "step")
    rows = []
    for name in estimates(values):
        by_step = (values[name] - values["truth"]).abs().groupby(values["step"])
        rows += [(name, step, len(errors), (errors <= WITHIN).mean(), errors.mean()) for step, errors in by_step]
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


# --- how much a gradient varies --------------------------------------------------------------------------------------


def difficulty(p: float) -> str:
    """How hard a problem is of whose samples a share `p` is right: hard up to 0.1, easy from 0.5 on, else middle."""
    return DIFFICULTIES[0] if p <= HARD else DIFFICULTIES[2] if p >= EASY else DIFFICULTIES[1]


def by_difficulty(rows: Sequence[Mapping[str, Any]], most: int) -> pd.DataFrame:
    """The first `most` problems of each difficulty, by the rows of an evaluation (`problems.jsonl`).

    Columns: `problem` (its id), `p` (the share of its samples that was right), `difficulty`. One of which there are
    fewer than LEAST problems is left out; raises RlinoError where none is left.
    """
    table = pd.DataFrame([(row["id"], row["c"] / row["n"]) for row in rows], columns=["problem", "p"])
    table["difficulty"] = table["p"].map(difficulty)
    enough = table.groupby("difficulty")["p"].transform("size") >= LEAST
    if not enough.any():
        raise RlinoError(f"the evaluation has fewer than {LEAST} problems of each difficulty")
    return table[enough].groupby("difficulty").head(most).reset_index(drop=True)


def sd_ratios(gradients: pd.DataFrame, credit: str = "vineppo", reference: str = "rloo") -> pd.DataFrame:
    """How much a gradient varies by a credit, over what it does by the reference, for each difficulty.

    `gradients` is the table of `rlino gradients`. Columns: `difficulty`, `problems`, `p` (their mean), `sd` and
    `reference` (the root of the mean variance within a problem), `ratio` = sd / reference and its 95 % interval `low`
    to `high`, `bias` (the mean of |E g − E g of the reference|² over that of |E g of the reference|²), `bias_low` and
    `bias_high`. Intervals are bootstraps over problems (BCa). A difficulty at which the reference never varies is left
    out.
    """
    rows = []
    for name in (d for d in DIFFICULTIES if d in set(gradients["difficulty"])):
        part = gradients[gradients["difficulty"] == name].pivot(index="problem", columns="credit")
        variance, base, signal = (part[c].to_numpy() for c in (("variance", credit), ("variance", reference),
                                                               ("signal", reference)))  # fmt: skip
        if not base.any():
            continue
        ratios = *np.sqrt(_ratio_of_means(variance, base)), *_ratio_of_means(part["bias", credit].to_numpy(), signal)
        rows.append((name, len(part), part["p", reference].mean(), *np.sqrt([variance.mean(), base.mean()]), *ratios))
    columns = "difficulty problems p sd reference ratio low high bias bias_low bias_high".split()
    return pd.DataFrame(rows, columns=columns)


def _ratio_of_means(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """The mean of a [P] over that of b [P], and its 95 % bootstrap interval (BCa) over pairs."""

    def ratio(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        return a.mean(axis) / b.mean(axis)

    rng = np.random.default_rng(0)
    low, high = scipy.stats.bootstrap((a, b), ratio, paired=True, rng=rng).confidence_interval
    return float(ratio(a, b)), float(low), float(high)
