"""Figures of chapter 05: what signed weights add up to, where iterations end, and differences to GRPO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from rlino_lib.figures.style import Look, label, look, new_figure


def weights_figure(weights: pd.DataFrame, p: np.ndarray, totals: Mapping[str, np.ndarray], base: float) -> Figure:
    """The weight of one response by how many of its group are right, and the sum of a group's by the share right, p.

    `weights` is indexed by the number right and has the columns `unit: right`, `unit: wrong` and the same of
    balanced; `totals` has the sums of a method at each p; `base` is the share of the base.
    """
    figure, axes = new_figure(1, 2, (9.4, 3.7))
    one, group = axes[0]
    for name, method in (("unit", "f_isft_posneg_unit"), ("balanced", "f_isft_posneg")):
        for side, mark, dash in (("right", "o", ()), ("wrong", "X", (4, 1.5))):
            line = Look(look(method).colour, dash, mark).line(label=f"{name}, {side}", markersize=6)
            one.plot(weights.index, weights[f"{name}: {side}"], markeredgecolor="white", **line)
    one.set(xlabel=weights.index.name, ylabel="signed weight of one response", title="one response")
    for method, total in totals.items():
        group.plot(p, total, **look(method).line(label=label(method), marker=""))
    group.axvline(base, color="0.5", linewidth=1)
    group.annotate("the base", (base, group.dataLim.y0), xytext=(4, 2), textcoords="offset points", fontsize=9)
    group.set(xlabel="share right, p", ylabel="expected sum of a group's weights", title="a group of eight")
    for axis in (one, group):
        axis.legend(loc="upper left", bbox_to_anchor=(0, -0.2), ncol=2)
    return figure


def ends_figure(ends: Mapping[str, np.ndarray], starts: Sequence[float], eases: Sequence[float]) -> Figure:
    """Where each method ends, shares right [starts, eases], as a heat map."""
    figure, axes = new_figure(1, len(ends), (11.5, 3.4), sharey=True)
    for k, (axis, (method, shares)) in enumerate(zip(axes[0], ends.items(), strict=True)):
        frame = pd.DataFrame(shares, index=[f"{s:.1%}" for s in starts], columns=eases)
        bar = {"cbar": k == len(ends) - 1, "cbar_kws": {"label": "share right at the end"}}
        sns.heatmap(frame, vmin=0, vmax=1, cmap="viridis", ax=axis, **bar)
        axis.set(title=label(method), xlabel="ease of the skill", ylabel="" if k else "share right at the start")
    return figure


def cosines_figure(frame: pd.DataFrame) -> Figure:
    """Cosines, the second column, as points in a row for each name in the first."""
    figure, ((axis,),) = new_figure(size=(6.4, 2.2))
    name, value = frame.columns
    sns.stripplot(frame, y=name, x=value, hue=name, size=5, ax=axis)
    axis.axvline(0, color="0.35", linewidth=1)
    axis.set(ylabel="", xlim=(-1, 1))
    return figure
