"""Sharpened or discovered, in three sentences (chapter 09): their words follow from intervals over problems.

Frames have one row per problem, as an evaluation records: id, n, c. Several trained policies, one for each seed, are
averaged problem by problem. The claims in the ledger also ask what holds over seeds; these sentences say what holds of
the policies that are there, and so they can be had for a single one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from rlino_lib.analysis.coverage import discoveries, solved_alone
from rlino_lib.analysis.pass_at_k import difference_interval, paired_difference


def answers(
    base: pd.DataFrame, models: Sequence[pd.DataFrame], again: pd.DataFrame, more: pd.DataFrame | None = None,
    name: str = "the trained policy",
) -> list[str]:  # fmt: skip
    """Whether training sharpened or discovered, and at which k: three sentences.

    `again` is the base sampled once more, which says how many problems chance alone discovers; `more` are further
    samples of the base on the problems that it left unsolved, four times as many in all, or None. Raises RlinoError
    where the problems or their samples differ, or `more` is too little.
    """
    table = paired_difference(models, base)
    samples = f"{len(base)} problems, n = {base['n'].min():,}" + (f", {len(models)} seeds" if len(models) > 1 else "")
    return [_first(table.iloc[0], name, samples), _along(table), _new(base, models, again, more)]


def _first(row: pd.Series, name: str, samples: str) -> str:
    verb = "sharpens" if row["low"] > 0 else "blunts" if row["high"] < 0 else "does not change"
    return (
        f"In one sample {name} is right in {row['pass_at_k']:.1%} where the base is in {row['reference']:.1%}: "
        f"training {verb} the base ({_interval(row)}; {samples})."
    )


def _along(table: pd.DataFrame) -> str:
    """Where the curve is above the base's, where below, and where the two cannot be told apart."""

    def side(row: Any) -> str:
        return "above" if row.low > 0 else "below" if row.high < 0 else "not told apart from"

    words = []
    for where, rows in groupby(table.itertuples(), side):
        ks = [row.k for row in rows]
        span = f"at k = {ks[0]}" if len(ks) == 1 else f"from k = {ks[0]} to {ks[-1]}"
        words.append(f"{span} it is {where} the base's")
    return f"Along the curve of pass@k, {', '.join(words)}; at k = {table['k'].iloc[-1]} {_interval(table.iloc[-1])}."


def _new(
    base: pd.DataFrame, models: Sequence[pd.DataFrame], again: pd.DataFrame, more: pd.DataFrame | None
) -> str:  # fmt: skip
    solved = solved_alone(base, (again, *models)).astype(float)  # [1+S, P]
    excess = solved[1:].mean(0) - solved[0]
    low, high = difference_interval(excess)
    new = f"{100 * solved[1:].mean():.1f} % of the problems are solved by it and not by the base"
    chance = f"as many as {100 * solved[0].mean():.1f} % by the base itself, sampled again"
    interval = f"{100 * excess.mean():+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
    chances = f"{new}, {chance} ({interval})"
    if solved[0].sum() == (base["c"] == 0).sum():
        return f"Discovery has no room: sampled twice, the base solves every problem; {chances}."
    words = f"{'It discovers' if low > 0 else 'No discovery is seen'}: {chances}"
    if more is None:
        return f"{words}; whether the base would solve them with four times the samples was not tried."
    stay = np.mean([discoveries(base, model, more)["stays"].sum() for model in models])
    return f"{words}; {stay:.1f} of {len(base)} problems stay unsolved by four times the samples of the base."


def _interval(row: pd.Series) -> str:
    return "{:+.1f} points [{:+.1f}, {:+.1f}]".format(*100 * row[["difference", "low", "high"]])
