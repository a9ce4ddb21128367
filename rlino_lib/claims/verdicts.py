"""The words for a verdict, and how intervals over seeds and verdicts on parts come to one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pandas as pd

from rlino_lib.analysis.statistics import median_interval, t_interval

# Undecided: the planned test settles it neither way. Not testable here: there is no test, for want of runs or seeds.
VERDICTS = ("holds", "holds with conditions", "does not hold here", "undecided", "not testable here")
HOLDS, CONDITIONS, FAILS, UNDECIDED, UNTESTED = VERDICTS


def verdict_above_zero(values: pd.Series, interval: Callable[[pd.Series], tuple[float, float]] = t_interval) -> str:
    """Whether the 95 % interval over seeds lies above 0, below it, or around it: holds, does not hold, undecided.

    `interval` is that of the mean, or `median_interval`. Example: `verdict_above_zero(pd.Series([2.0, 2.5, 3.0]))` is
    "holds".
    """
    low, high = interval(values)
    return HOLDS if low > 0 else FAILS if high < 0 else UNDECIDED


def verdict_on_all(verdicts: Sequence[str]) -> str:
    """The verdict on "all of these": the one that they agree on, else whether it holds of some or fails of some."""
    if len(set(verdicts)) == 1:
        return verdicts[0]
    return CONDITIONS if HOLDS in verdicts or CONDITIONS in verdicts else FAILS if FAILS in verdicts else UNDECIDED


def mean_in_words(values: pd.Series, unit: str = "points", digits: int = 1) -> str:
    """Mean and 95 % interval over seeds: "+2.5 points [+1.3, +3.7] over 3 seeds"."""
    mean, low, high = (f"{x:+.{digits}f}" for x in (values.mean(), *t_interval(values)))
    return f"{mean} {unit} [{low}, {high}] over {len(values)} seeds"


def ratio_in_words(log_ratios: pd.Series) -> str:
    """Median ratio and its interval, then the mean's by Student: "0.62 [0.50, 0.73], mean 0.61 [0.52, 0.72]"."""
    logs = log_ratios.median(), *median_interval(log_ratios), log_ratios.mean(), *t_interval(log_ratios)
    return "{:.2f} [{:.2f}, {:.2f}], mean {:.2f} [{:.2f}, {:.2f}]".format(*map(math.exp, logs))
