"""Figures of chapters 08 and 08c: growth and its parts, giving up, lengths that a cap hides, budgets."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlino_lib.analysis.growth import Parts
from rlino_lib.analysis.statistics import median_interval, t_interval
from rlino_lib.analysis.tables import mean_interval
from rlino_lib.exact.length_toy import NORMALISERS
from rlino_lib.figures import style
from rlino_lib.figures.style import LENGTHS, PALETTE, Look, length_bands, new_figure, shared_legend

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


def growth_curves(panels: Mapping[str, Mapping[str, pd.DataFrame]]) -> Figure:
    """Mean lengths by step: a row of panels for each task, a column for each normaliser, lines for each kind.

    Frames are `records.metrics_frame` of one method: seed, step and the columns eval/length/…. Only axes on which
    lengths at least double start at 0, as little could be seen on the others.
    """
    columns = max(map(len, panels.values()))
    size = (3.5 * columns + 0.5, 2.6 * len(panels) + 0.6)
    figure, axes = new_figure(len(panels), columns, size, sharex=True, sharey="row")
    for row, (task, own) in zip(axes, panels.items(), strict=True):
        for axis, (name, frame) in zip(row, own.items(), strict=False):
            length_bands(axis, frame, {kind: f"eval/length/{kind}" for kind in LENGTHS})
            axis.set_title(f"{task}, {name}")
        _from_zero(row[0])
        row[0].set_ylabel("mean length, tokens")
    plt.setp(axes[-1], xlabel=style.axis_label("step"))
    shared_legend(figure, "held-out problems; band: lowest to highest seed", 3)
    return figure


def _from_zero(axis: Axes) -> None:
    """Let an axis of lengths start at 0, except where all of them are close together."""
    low, high = axis.get_ylim()
    if high > 2 * low:
        axis.set_ylim(0, high)


def growth_plot(growths: pd.DataFrame, tasks: Mapping[str, str]) -> Figure:
    """Tokens of growth, means with their intervals: rows of panels by task, columns by kind of responses.

    In a panel stands a row for each method and a mark for each normaliser. `growths` has the columns task, method,
    normaliser, responses and growth, a row for each run (`figures.ablation.growths`); `tasks` are names of tasks.
    """
    methods = style.in_order(growths["method"])
    kinds = list(dict.fromkeys(growths["responses"]))
    size = (3.4 * len(kinds) + 1.2, (0.5 * len(methods) + 0.8) * len(tasks) + 0.7)
    figure, axes = new_figure(len(tasks), len(kinds), size, sharex="row", sharey=True)
    looks = {text: NORMALISER_LOOKS[name] for name, text in NORMALISERS.items()}
    for row, (task, text) in zip(axes, tasks.items(), strict=True):
        for axis, kind in zip(row, kinds, strict=True):
            own = growths[(growths["task"] == task) & (growths["responses"] == kind)].groupby(["normaliser", "method"])
            means = {key: mean_interval(own.get_group(key)["growth"]) for key in itertools.product(NORMALISERS, methods)
                     if key in own.groups}  # fmt: skip
            marks = [(style.label(method), NORMALISERS[name], *ends) for (name, method), ends in means.items()]
            style.intervals(axis, pd.DataFrame(marks, columns=style.MARKS), looks, map(style.label, methods))
            axis.set_title(f"{text}: {kind}")
    plt.setp(axes[-1], xlabel="growth of the mean length, tokens")
    shared_legend(figure, "bar: 95 % over seeds", 3)
    return figure


def parts_bars(panels: Mapping[str, Mapping[str, Parts]]) -> Figure:
    """The growth of wrong responses as bars whose parts add up to it, parts below 0 to the left: a panel a title."""
    counts = [len(bars) for bars in panels.values()]
    size = (8.6, 0.42 * sum(counts) + 0.9 * len(panels) + 0.7)
    figure, axes = new_figure(len(panels), 1, size, height_ratios=counts)
    for axis, (title, bars) in zip(axes[:, 0], panels.items(), strict=True):
        for y, parts in enumerate(bars.values()):
            _stacked(axis, y, parts)
        style.named_rows(axis, bars)
        axis.set_title(title)
        axis.margins(x=0.1)
    axes[-1, 0].set_xlabel("tokens of growth, from the base to the end")
    shared_legend(figure, None, 3)
    return figure


def _stacked(axis: Axes, y: int, parts: Parts) -> None:
    """One bar of parts, with the sum as a black line and a number."""
    ends = {True: 0.0, False: 0.0}  # of the parts above 0, and of those below
    for name, (text, colour, hatch) in PARTS.items():
        value = getattr(parts, name)
        bar = {"color": colour, "hatch": hatch, "edgecolor": "white", "height": 0.62}
        axis.barh(y, value, left=ends[value > 0], label=text, **bar)
        ends[value > 0] += value
    axis.plot([parts.total] * 2, [y - 0.4, y + 0.4], color="black", linewidth=2.5, label="sum")
    place: dict[str, Any] = {"xytext": (5, 0), "textcoords": "offset points", "va": "center", "fontsize": 9}
    axis.annotate(f"{parts.total:+.1f}", (max(ends[True], parts.total), y), **place)


def ratios_figure(ratios: pd.DataFrame, threshold: float) -> Figure:
    """Ratios of giving up, a dot for every seed, so that two modes are two heaps: a row for each comparison.

    `ratios` has the columns comparison, normaliser (what 1/|o| is compared with), judges (False: exploratory, hollow),
    seed and log_ratio. Below the dots stand the median with the interval of the sign test (thick) and the mean with
    Student's (thin); an interval that is infinite is left out. `threshold` is a ratio to mark.
    """
    rows = ratios.groupby(["judges", "comparison", "normaliser"], sort=False)["log_ratio"]
    rows = sorted(rows, key=lambda row: not row[0][0])  # what judges comes first
    figure, ((axis,),) = new_figure(1, 1, (8.6, 0.62 * len(rows) + 1.5))
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
    style.named_rows(axis, names, at=1)
    ticks = pd.Series([0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5])
    axis.set(xscale="log", xlabel="rate of giving up with 1/|o|, over the rate without it")
    style.set_ticks(axis, ticks[ticks.between(*axis.get_xlim())], "{:g}")
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
    plt.setp(axes[-1], xlabel="right, %")
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
        axis.set(xlabel="length, tokens", ylim=(0, 102), title=title)
    axes[0, 0].set_ylabel("still going on, %")
    axes[0, 0].axvline(cap, color="0.4", linewidth=1, dashes=(1, 2))
    shared_legend(figure, "dotted, upright: the cap; band: 95 %")
    return figure


def budget_figure(curves: Mapping[str, tuple[pd.DataFrame, Look]]) -> Figure:
    """Success against the attempts allowed (`growth.success_within`): within them (line), and if forced (thin)."""
    figure, ((axis,),) = new_figure(1, 1, (6.8, 4))
    for name, (curve, form) in curves.items():
        axis.plot(curve.index, 100 * curve["within"], **form.line(label=name))
        axis.plot(curve.index, 100 * curve["forced"], **form.line(marker="", linewidth=1))
    axis.set(xlabel="attempts allowed", ylabel="hit the target, %", ylim=(0, None))
    axis.legend(title="thin: if none gave up")
    return figure


def figure_four(panels: Mapping[str, pd.DataFrame]) -> Figure:
    """The paper's Figure 4 for each source: lengths above, shares below, by step; right solid, wrong dashed.

    Each frame has the columns step, length_correct, length_incorrect and share_correct (percent), one row per step, or
    several (seeds), which are drawn as a band. The axes are each panel's own: lengths that are all close together do
    not start at 0.
    """
    figure, axes = new_figure(2, len(panels), (4.4 * len(panels), 5.6))
    for (above, below), (title, frame) in zip(axes.T, panels.items(), strict=True):
        length_bands(above, frame, {"correct": "length_correct", "incorrect": "length_incorrect"})
        length_bands(below, frame, {"correct": "share_correct"})
        _from_zero(above)
        above.set(title=title, xlabel="step", ylabel="mean length, tokens")
        below.set(xlabel="step", ylabel="right, %", ylim=(0, None))
        above.legend()
    return figure
