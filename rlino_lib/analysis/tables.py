"""Numbers as chapters print them: intervals in words, rows that two tables share, and the paper's table."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from rlino_lib.analysis.growth import KINDS, final_responses, of_kind
from rlino_lib.analysis.statistics import final_accuracy, t_interval
from rlino_lib.paths import DATA
from rlino_lib.records.runs import Run

# The paper's names of methods, and ours: it does not say which weights its positives and negatives have.
PAPER = {
    "GRPO": ["grpo"],
    "GRPO-wo-KL": ["grpo_no_kl"],
    "F-ISFT+": ["f_isft_pos"],
    "F-ISFT-": ["f_isft_neg"],
    "F-ISFT+-": ["f_isft_posneg", "f_isft_posneg_unit"],
}


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean and its 95 % t-interval, of infinite width for one value."""
    return float(pd.Series(values).mean()), *t_interval(values)


def in_brackets(values: Sequence[float], sign: str = "+") -> str:
    """Mean and 95 % t-interval: `+1.2 [+0.4, +2.0]`; with sign "" the plus signs go."""
    return "{:{s}.1f} [{:{s}.1f}, {:{s}.1f}]".format(*mean_interval(values), s=sign)


def span(low: float, high: float) -> str:
    """An interval in words, `+0.4 to +2.0`; a dash where a single difference leaves it infinite."""
    return f"{low:+.1f} to {high:+.1f}" if math.isfinite(low) else "–"


def spread(values: pd.Series) -> str:
    """Mean and range over seeds, `51.2 [49.0, 55.0]`; a dash for none."""
    values = values.dropna()
    ends = f" [{values.min():.1f}, {values.max():.1f}]" if len(values) > 1 else ""
    return f"{values.mean():.1f}{ends}" if len(values) else "–"


def common(one: pd.DataFrame | pd.Series, other: pd.DataFrame | pd.Series) -> tuple:
    """The rows of two frames or series whose index (the seed) is in both."""
    return one.align(other, join="inner", axis=0)


def paired_differences(frame: pd.DataFrame, task: str, method: str, reference: str = "grpo") -> pd.Series:
    """Method − reference on a task by seed, from a frame of `outcomes`, on the seeds that both have; empty for none."""
    values = frame[frame["task"] == task].pivot(index="seed", columns="method", values="value")
    values = values.reindex(columns=[method, reference])
    return (values[method] - values[reference]).dropna()


def pooled(runs: Sequence[Run]) -> pd.DataFrame:
    """The responses of all runs in their tests after training."""
    return pd.concat([final_responses(run) for run in runs])


def means_of(run: Run) -> dict[str, float]:
    """Summary of a run's test after training: shares in percent, mean lengths in tokens, attempts per response."""
    responses = final_responses(run)
    lengths: dict[str, float] = {kind: of_kind(responses, kind)["length"].mean() for kind in KINDS}
    shares = {"right, %": final_accuracy(run), "truncated, %": 100 * responses["clipped"].mean()}
    return {**shares, "length": responses["length"].mean(), **lengths, "attempts": responses["attempts"].mean()}


def clean(frame: pd.DataFrame, digits: int = 4) -> pd.DataFrame:
    """Numbers rounded, and 0 in place of rounding errors and of −0; what is missing stays so."""
    frame = frame.copy()
    for k in range(frame.shape[1]):
        if pd.api.types.is_float_dtype(frame.dtypes.iloc[k]):
            column = frame.iloc[:, k]
            frame.isetitem(k, column.mask(column.abs() <= 1e-12, 0.0).round(digits) + 0.0)
    return frame


def paper_results() -> pd.DataFrame:
    """The share right, %, that the paper reports: a row for each method that the book has, columns (task, model)."""
    table = pd.read_csv(DATA / "paper" / "results.csv")
    rows = table.assign(key=table["method"].map(PAPER)).dropna(subset=["key"]).explode("key")
    return rows.pivot(index="key", columns=["task", "model"], values="accuracy_percent")
