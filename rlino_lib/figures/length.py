"""Figures of chapters 08 and 08c: growth and its parts, giving up, lengths that a cap hides, budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rlino_lib.analysis.growth import Parts
from rlino_lib.analysis.statistics import median_interval, t_interval
from rlino_lib.errors import RlinoError
from rlino_lib.exact.length_toy import NORMALISERS
from rlino_lib.figures.style import (
    LENGTHS,
    PALETTE,
    Look,
    in_order,
    label,
    mean_and_band,
    new_figure,
    set_ticks,
    shared_legend,
)

# A normaliser has one look in every figure of the chapter.
_LOOKS = (Look(PALETTE[4], (), "o"), Look(PALETTE[2], (5, 1.5), "s"), Look("0.25", (1.5, 1.2), "^"))
NORMALISER_LOOKS = dict(zip(NORMALISERS, _LOOKS, strict=True))
SIDE_LOOKS = {"right": LENGTHS["correct"][1], "wrong": LENGTHS["incorrect"][1]}
PARTS = {
    "selection": ("other problems are wrong", "0.75", "//"),
    "within": ("fewer leave a step out", "0.5", ".."),
    "truncated": ("more are truncated", PALETTE[1], "xx"),
    "longer": ("longer, of the same kind", PALETTE[0], ""),
}


def growth_plot(rows: pd.DataFrame, columns: Sequence[str]) -> Figure:
    """Tokens of growth with their intervals: one panel per name in `columns`, a row per method, a mark per normaliser.

    `rows` has the columns panel, method, normaliser, mean, low and high. Raises RlinoError for no rows.
    """
    if rows.empty:
        raise RlinoError("growth_plot: no rows to draw")
    methods = in_order(rows["method"])
    figure, axes = new_figure(1, len(columns), (3.6 * len(columns) + 1.2, 0.62 * len(methods) + 1.5), sharey=True)
    for axis, name in zip(axes[0], columns, strict=True):
        axis.axvline(0, color="0.4", linewidth=1)
        for shift, (key, text) in zip((-0.22, 0.0, 0.22), NORMALISERS.items(), strict=True):
            form = NORMALISER_LOOKS[key]
            part = rows[(rows["panel"] == name) & (rows["normaliser"] == key)]
            for k, (_, row) in enumerate(part.iterrows()):
                y = methods.index(row["method"]) + shift
                axis.plot([row["low"], row["high"]], [y, y], color=form.colour, linewidth=2)
                mark = {"color": form.colour, "marker": form.marker, "linestyle": "", "markersize": 7}
                axis.plot(row["mean"], y, label=None if k else text, **mark)
        axis.set(title=name, xlabel="growth of the mean length, tokens", ylim=(len(methods) - 0.5, -0.5))
        axis.set_yticks(range(len(methods)), [label(m) for m in methods])
        axis.grid(axis="y", visible=False)
    shared_legend(figure, "bar: 95 % over seeds", 3)
    return figure


def parts_bars(bars: Mapping[str, Parts], title: str = "") -> Figure:
    """The growth of wrong responses as bars whose parts add up to it, a bar for each entry; parts below 0 go left."""
    figure, axes = new_figure(1, 1, (8.6, 0.5 * len(bars) + 1.7))
    axis = axes[0, 0]
    for y, parts in enumerate(bars.values()):
        ends = {True: 0.0, False: 0.0}  # of the parts above 0, and of those below
        for name, (text, colour, hatch) in PARTS.items():
            value = getattr(parts, name)
            bar = {"color": colour, "hatch": hatch, "edgecolor": "white", "height": 0.62}
            axis.barh(y, value, left=ends[value > 0], label=None if y else text, **bar)
            ends[value > 0] += value
        axis.plot([parts.total] * 2, [y - 0.4, y + 0.4], color="black", linewidth=2.5, label="sum" if y == 0 else None)
        axis.annotate(f"{parts.total:+.1f}", (max(ends[True], parts.total), y), (5, 0), va="center",
                      textcoords="offset points", fontsize=9)  # fmt: skip
    axis.axvline(0, color="0.4", linewidth=1)
    axis.set_yticks(range(len(bars)), list(bars))
    axis.set(xlabel="tokens of growth, from the base to the end", ylim=(len(bars) - 0.4, -0.6), title=title)
    axis.margins(x=0.1)
    axis.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", ncol=3)
    return figure


def ratios_figure(ratios: pd.DataFrame, threshold: float | None = None) -> Figure:
    """Ratios of giving up, a dot for every seed, so that two modes are two heaps: a row for each comparison.

    `ratios` has the columns comparison, normaliser (what 1/|o| is compared with), judges (False: exploratory, hollow),
    seed and log_ratio. Below the dots stand the median with the interval of the sign test (thick) and the mean with
    Student's (thin); an interval that is infinite is left out. `threshold` is a ratio to mark. Raises RlinoError for no
    rows.
    """
    if ratios.empty:
        raise RlinoError("ratios_figure: no rows to draw")
    rows = ratios.groupby(["judges", "comparison", "normaliser"], sort=False)["log_ratio"]
    rows = sorted(rows, key=lambda row: not row[0][0])  # what judges comes first
    figure, ((axis,),) = new_figure(1, 1, (8.6, 0.62 * len(rows) + 1.5))
    axis.axvline(1, color="0.4", linewidth=1)
    if threshold is not None:
        axis.axvline(threshold, color="0.4", linewidth=1.5, dashes=(3, 2))
    for y, ((judges, _, normaliser), values) in enumerate(rows):
        form = NORMALISER_LOOKS[normaliser]
        dots = {"marker": form.marker, "markersize": 6, "alpha": 0.8, "linestyle": "", "color": form.colour}
        fill = form.colour if judges else "none"
        axis.plot(np.exp(values), [y - 0.15] * len(values), **dots, markerfacecolor=fill, gid="seeds")
        for shift, middle, ends, width in (
            (0.12, values.median(), median_interval(values), 3.5),
            (0.28, values.mean(), t_interval(values), 1.2),
        ):
            if np.isfinite(ends).all():
                axis.plot(np.exp(ends), [y + shift] * 2, color=form.colour, linewidth=width, solid_capstyle="butt")
            axis.plot(np.exp(middle), y + shift, "|", color="black", markersize=9)
    names = [f"{name}, to {NORMALISERS[key]}{'' if judges else ' (exploratory)'}" for (judges, name, key), _ in rows]
    axis.set_yticks(range(len(rows)), names)
    ticks = [0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5]
    axis.set(xscale="log", xlabel="giving up with 1/|o|, as a ratio", ylim=(len(rows) - 0.4, -0.6))
    low, high = axis.get_xlim()
    set_ticks(axis, [tick for tick in ticks if low <= tick <= high], "{:g}")
    axis.grid(axis="y", visible=False)
    return figure


def paths_figure(paths: pd.DataFrame) -> Figure:
    """Mean length against success along updates: a row of panels for each world, a column for each run.

    `paths` has the columns world, run, side (right or wrong), success (a share) and length; the mark is where it ends.
    """
    worlds = paths.groupby("world", sort=False)
    runs = list(dict.fromkeys(paths["run"]))
    figure, axes = new_figure(len(worlds), len(runs), (11, 5.2), sharey=True)
    for row, (world, part) in zip(axes, worlds, strict=True):
        for axis, (_, lines) in zip(row, part.groupby("run", sort=False), strict=True):
            for side, path in lines.groupby("side"):
                form = SIDE_LOOKS[side]
                axis.plot(100 * path["success"], path["length"], **form.line(label=side, marker=""))
                axis.plot(100 * path["success"].iloc[-1], path["length"].iloc[-1], form.marker, color=form.colour)
            axis.set(xlim=(0, 100), ylim=(1, 10))
        row[0].set_ylabel(f"{world}:\nmean length")
    for axis, run in zip(axes[0], runs, strict=True):
        axis.set_title(run)
    for axis in axes[-1]:
        axis.set_xlabel("right, %")
    shared_legend(figure)
    return figure


def survival_figure(curves: Mapping[str, Mapping[str, tuple[pd.DataFrame, Look]]], cap: float) -> Figure:
    """Shares that are longer than a length, as steps with their intervals (`growth.survival`), a panel for each title.

    The cap is dotted in the first panel; a name that starts with _ is not in the legend.
    """
    figure, axes = new_figure(1, len(curves), (5.3 * len(curves), 3.9), sharey=True)
    for axis, (title, lines) in zip(axes[0], curves.items(), strict=True):
        for name, (curve, form) in lines.items():
            line = form.line(marker="", label=name, drawstyle="steps-post")
            axis.plot(curve.index, 100 * curve["longer"], **line)
            low, high = (100 * curve[end].fillna(curve["longer"]) for end in ("low", "high"))
            axis.fill_between(curve.index, low, high, step="post", color=form.colour, alpha=0.15, linewidth=0)
        axis.set(xlabel="tokens", ylabel="still going on, %", ylim=(0, 102), title=title)
        if lines:
            axis.legend()
    axes[0, 0].axvline(cap, color="0.4", linewidth=1, dashes=(1, 2))
    return figure


def budget_figure(curves: Mapping[str, tuple[pd.DataFrame, Look]]) -> Figure:
    """Success against the attempts allowed (`growth.success_within`): within them (line), and if forced (thin)."""
    figure, ((axis,),) = new_figure(1, 1, (6.8, 4))
    for name, (curve, form) in curves.items():
        axis.plot(curve.index, 100 * curve["within"], **form.line(label=name))
        axis.plot(curve.index, 100 * curve["forced"], **form.line(marker="", linewidth=1))
    axis.set(xlabel="attempts allowed", ylabel="hit the target, %", ylim=(0, None))
    axis.legend()
    return figure


def figure_four(panels: Mapping[str, pd.DataFrame]) -> Figure:
    """The paper's Figure 4 for each source: lengths above, shares below, by step; right solid, wrong dashed.

    Each frame has the columns step, length_correct, length_incorrect and share_correct (percent), one row per step, or
    several (seeds), which are drawn as a band. The axes are each panel's own.
    """
    figure, axes = new_figure(2, len(panels), (4.4 * len(panels), 5.6))
    for column, (title, frame) in zip(axes.T, panels.items(), strict=True):
        sides = [("length_correct", "correct"), ("length_incorrect", "incorrect")]
        for axis, lines in ((column[0], sides), (column[1], [("share_correct", "correct")])):
            for value, key in lines:
                name, form = LENGTHS[key]
                mean_and_band(axis, frame, "step", value, form, label=name)
            axis.set(xlabel="step", ylim=(0, None))
        column[0].set(title=title, ylabel="mean length, tokens")
        column[1].set(ylabel="right, %")
        column[0].legend()
    return figure
