"""Figures that compare methods over seeds and tasks, and the table behind the forest plot (chapter 07).

Frames come in as `statistics.outcomes` and `records.metrics_frame` make them; looks are those of `style`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlino_lib.analysis.statistics import compare
from rlino_lib.analysis.tables import paired_differences
from rlino_lib.errors import RlinoError
from rlino_lib.figures import style
from rlino_lib.figures.curves import grey_others, line_panels, prepared
from rlino_lib.figures.style import in_order, label, look, method_bands, new_figure, panels, shared_legend

BAND = f"line: mean over seeds; {style.BAND}"


def paired_rows(frame: pd.DataFrame, reference: str, margin: float, alpha: float = 0.05) -> pd.DataFrame:
    """Every other method against the reference on the seeds that both have: one row per task and method.

    Columns: task, method, and those of `Comparison`, with nothing corrected for the number of rows: `verdict`
    is that of a row alone. A method without a seed in common with the reference is left out. Raises RlinoError where
    no method is left.
    """
    rows = []
    for task, part in frame.groupby("task", sort=False):
        for method in in_order(set(part["method"]) - {reference}):
            gaps = paired_differences(frame, task, method, reference)
            if len(gaps):
                rows.append({"task": task, "method": method} | vars(compare(gaps, margin, alpha)))
    if not rows:
        raise RlinoError(f"no method has a seed in common with {reference!r}")
    return pd.DataFrame(rows)


# --- the forest plot -------------------------------------------------------------------------------------------------


def forest_plot(
    rows: pd.DataFrame, margin: float, reference: str = "grpo", names: Mapping[str, str] | None = None
) -> Figure:
    """Differences to the reference with the margin of equivalence: two panels per task, one row per method.

    `rows` is `paired_rows`; the thick line is the interval of TOST (level 1 − 2α), the thin one that of level 1 − α. A
    filled marker is a row whose column `whole` is true, or where there is no such column: as many seeds as were
    planned. The right panel is the same within three margins, with an arrow for what lies beyond. `names` replaces the
    tasks in the titles. Raises RlinoError for no rows.
    """
    style.need(rows, (), "forest_plot")
    tasks = list(dict.fromkeys(rows["task"]))
    heights = [rows["task"].eq(task).sum() + 1.2 for task in tasks]
    size = (10.4, 0.42 * sum(heights) + 0.9 * len(tasks))
    figure, axes = new_figure(len(tasks), 2, size, gridspec_kw={"height_ratios": heights})
    for task, (left, right) in zip(tasks, axes, strict=True):
        part = rows[rows["task"] == task].set_index("method")
        part = part.loc[in_order(part.index)]
        ends = part[["low", "high", "mean"]].where(part[["low", "high", "mean"]].abs() < math.inf)
        low = min(ends.min(axis=None), -1.5 * margin)
        high = max(ends.max(axis=None), 1.5 * margin)
        room = 0.05 * (high - low)
        for axis, edges in ((left, (low - room, high + room)), (right, (-3 * margin, 3 * margin))):
            _forest(axis, part, margin, *edges)
            axis.set_xlabel(f"points above {label(reference)}")
        left.set_title((names or {}).get(task, task))
        left.set_yticks(range(len(part)), [f"{label(m)}, {n}" for m, n in part["n"].items()])
        right.set_title(f"the same within ±{3 * margin:g}")
    marks = "thick: the interval of TOST; thin: the usual one; grey: the margin; hollow: fewer seeds than planned"
    figure.supxlabel(f"after a name: seeds; {marks}", fontsize=9)
    return figure


def _forest(axis: Axes, part: pd.DataFrame, margin: float, left: float, right: float) -> None:
    """One panel from left to right: one row per method from top to bottom."""
    axis.axvspan(-margin, margin, color="0.9", zorder=0)
    style.named_rows(axis, [""] * len(part))
    for edge in (-margin, margin):
        axis.axvline(edge, color="0.4", linewidth=1, dashes=(4, 2), zorder=1)
    for y, (method, row) in enumerate(part.iterrows()):
        form = look(method)
        mean = row["mean"]
        for low, high, width in ((row["low"], row["high"], 1.2), (row["tost_low"], row["tost_high"], 4)):
            ends = [min(max(x, left), right) for x in (low, high)]
            axis.plot(ends, [y, y], color=form.colour, linewidth=width, solid_capstyle="butt", zorder=2)
        mark = {"color": form.colour, "markersize": 8, "markeredgewidth": 1.5, "zorder": 3}
        if left <= mean <= right:
            fill = form.colour if row.get("whole", True) else "white"
            axis.plot(mean, y, form.marker, markerfacecolor=fill, **mark)
            continue
        side, edge = ("<", left) if mean < left else (">", right)  # beyond the panel: an arrow, and its number
        axis.plot(edge * 0.96, y, side, **mark)
        text = f"{mean:+.1f}".replace("-", "−")
        axis.annotate(text, (edge * 0.87, y), ha="left" if mean < left else "right", va="center", fontsize=9)
    axis.set_xlim(left, right)


# --- curves ----------------------------------------------------------------------------------------------------------


def method_panels(frame: pd.DataFrame) -> Figure:
    """Held-out accuracy by step, a panel for each method: its mean and band, the other methods' means in grey behind.

    The horizontal line is the base, the mean of the first row. Raises RlinoError where accuracy is nowhere recorded.
    """
    y = "eval/accuracy"
    data = prepared(frame, [y], "method_panels")
    methods = in_order(data["method"])
    figure, axes = panels(len(methods), 4, (2.5, 2.2), sharex=True, sharey=True)
    for axis, method in zip(axes, methods, strict=True):
        grey_others(axis, data, y, method)
        axis.axhline(data.loc[data["step"] == data["step"].min(), y].mean(), color="0.5", linewidth=1, dashes=(1, 2))
        own = data[data["method"] == method]
        method_bands(axis, own, "step", y, markersize=6, linewidth=1.8)
        seeds = own["seed"].nunique()
        axis.set_title(f"{label(method)}, {seeds} seed{'s' * (seeds > 1)}")
    notes = f"{BAND}; grey: the other methods; dotted: the base"
    figure.supxlabel(f"{style.axis_label('step')}   ({notes})", fontsize=9)
    figure.supylabel(style.axis_label(y), fontsize=10)
    return figure


def measure_panels(frame: pd.DataFrame, measures: Mapping[str, str], *, columns: int = 3, x: str = "step") -> Figure:
    """Metrics by step (or another `x`), a panel each with all methods: {column: title}; without those never recorded.

    Raises RlinoError where no metric is recorded.
    """
    known = [c for c in measures if c in frame and frame[c].notna().any()]
    data = prepared(frame, known, "measure_panels", x=x)
    figure, axes = panels(len(known), columns, (3.4, 2.7), sharex=True)
    figure.set_figheight(figure.get_figheight() + 0.5)  # room for the legend
    for axis, column in zip(axes, known, strict=True):
        method_bands(axis, data, x, column, markersize=6, linewidth=1.8)
        axis.set_title(measures[column])
    shared_legend(figure, f"{style.axis_label(x)}; {BAND}")
    return figure


def rates_figure(rates: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Accuracy, %, by learning rate: one panel per recorded task, one line per method, a ring at its best rate.

    `rates` has the columns task, method, lr and accuracy; `names` are the titles of the tasks.
    """
    tasks = [task for task in names if (rates["task"] == task).any()]
    lines = {}
    for task in tasks:
        part = rates[rates["task"] == task].sort_values("lr").groupby("method")
        own = {method: part.get_group(method) for method in in_order(part.groups)}
        lines[names[task]] = [(label(m), look(m), rows["lr"], rows["accuracy"]) for m, rows in own.items()]
    settings: dict[str, Any] = {"xscale": "log", "xlabel": "learning rate", "ylabel": "share right, validation, %"}
    figure = line_panels(lines, size=(4.6, 3.8), legend="ring: the best", sharey=False, **settings)
    for axis, task in zip(figure.axes, tasks, strict=True):
        part = rates[rates["task"] == task]
        best = part.loc[part.groupby("method")["accuracy"].idxmax()]
        axis.plot(best["lr"], best["accuracy"], "o", color="0.2", markerfacecolor="none", markersize=13)
        style.set_ticks(axis, part["lr"], "{:g}")
    return figure


def sizes_figure(runs: pd.DataFrame, base: float) -> Figure:
    """Accuracy, %, by samples per iteration: one panel per number of passes, one line per method and mini-batch size.

    `runs` has one row per run with the columns method, seed, problems, `samples per iteration`, iterations, passes,
    updates and right; the dotted line is the base.
    """
    passes = sorted(runs["passes"].unique())
    figure, axes = panels(len(passes), len(passes), (4.4, 3.6), sharey=True, sharex=True)
    for axis, times in zip(axes, passes, strict=True):
        own = runs[runs["passes"] == times]
        for _, part in own.groupby(own["updates"] / own["iterations"] / own["problems"]):
            method_bands(axis, part, "samples per iteration", "right")
        axis.axhline(base, color="0.5", linewidth=1, dashes=(1, 2))
        title = f"{times} pass{'es' if times > 1 else ''} over each"
        axis.set(xscale="log", xlabel="samples per iteration", title=title)
        style.set_ticks(axis, runs["samples per iteration"], "{:,}", rotation=30)
    axes[0].set_ylabel("share right, test split, %")
    shared_legend(figure, f"{BAND}; dotted: the base")
    return figure


def beside_figure(
    sources: Mapping[str, tuple[Mapping[str, pd.Series], pd.DataFrame | None]], margin: float = 0.0
) -> Figure:
    """Points above GRPO in several sources, a panel each: {title: ({name: points by method}, intervals or None)}.

    Intervals have the columns low and high by method, and the margin behind them in grey.
    """
    methods = in_order(m for series, _ in sources.values() for values in series.values() for m in values.index)
    figure, axes = panels(len(sources), 2, (5.9, 3.1))
    for axis, (title, (series, intervals)) in zip(axes, sources.items(), strict=True):
        for (name, values), mark in zip(series.items(), "osD^vP", strict=False):
            values = values.dropna()
            axis.plot(values, [methods.index(m) for m in values.index], mark, color="0.25", label=name, alpha=0.85)
        if intervals is not None:
            for method, row in intervals[intervals["low"] > -math.inf].iterrows():
                axis.plot([row["low"], row["high"]], [methods.index(method)] * 2, color="0.25", linewidth=1.5)
            axis.axvspan(-margin, margin, color="0.92", zorder=0)
        style.named_rows(axis, map(label, methods))
        axis.set(title=title, xlabel="points above GRPO on this scale")
        axis.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
    return figure
