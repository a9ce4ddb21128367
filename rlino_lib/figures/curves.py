"""Curves over training, the weights of a group, pass@k, and the README's figure. Looks are those of `style`.

Data frames and arrays come in; a matplotlib Figure comes out, or the Axes that were given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from rlino_lib.analysis.pass_at_k import true_pass_at_k
from rlino_lib.errors import RlinoError
from rlino_lib.figures import style
from rlino_lib.figures.style import in_order, label, look, mean_and_band, new_figure, panels, shared_legend

# --- learning curves -------------------------------------------------------------------------------------------------


def seed_curves(axis: Axes, frame: pd.DataFrame, y: str, method: str, **line: Any) -> None:
    """A method's mean over seeds with its band, and a thin line for each seed."""
    rows = frame[frame["method"] == method]
    seeds = rows.dropna(subset=[y]).groupby("seed")
    for _, run in seeds if len(seeds) > 1 else ():
        axis.plot(run["step"], run[y], color=look(method).colour, linewidth=0.7, alpha=0.4)
    mean_and_band(axis, rows, "step", y, look(method), label=label(method), **line)


def prepared(
    frame: pd.DataFrame, columns: Sequence[str], what: str, smooth: int = 1, x: str = "step"
) -> pd.DataFrame:  # fmt: skip
    """The columns to draw in order of steps, or of another `x`, each run smoothed over `smooth` rows.

    Rows without any value are dropped. Raises RlinoError, about the figure `what`, where columns or rows are missing.
    """
    keys = ["method", "seed"]
    columns = list(columns)
    style.need(frame, (*keys, x, *columns), what)
    data = frame[[*keys, x, *columns]].dropna(subset=columns, how="all").sort_values([*keys, x])
    style.need(data, (), what)
    if smooth > 1:
        rolled = data.groupby(keys, dropna=False)[columns].rolling(smooth, min_periods=1).mean()
        data[columns] = rolled.reset_index(level=keys, drop=True)
    return data.reset_index(drop=True)


def grey_others(axis: Axes, data: pd.DataFrame, y: str, method: str) -> None:
    """The means of all methods but one, thin and grey, to stand behind it."""
    means = data[data["method"] != method].groupby(["step", "method"])[y].mean().unstack()
    axis.plot(means.index, means, color="0.75", linewidth=1, zorder=1)


def learning_curves(
    frame: pd.DataFrame, y: str = "eval/accuracy", *, smooth: int = 1, title: str = "", ax: Axes | None = None
) -> Figure | Axes:
    """One metric by step, a line for each method: the mean over seeds, a band, and a thin line for each seed.

    `frame` is `records.metrics_frame(runs)`: columns `method`, `seed`, `step`, `y`; rows where `y` is blank are left
    out. The band runs from the lowest to the highest seed. `smooth` averages each run over that many rows first.
    Raises RlinoError where columns or rows are missing.
    """
    data = prepared(frame, [y], f"learning_curves of {y}", smooth)
    methods = in_order(data["method"])
    figure, ((axis,),) = (None, ((ax,),)) if ax is not None else new_figure(size=(7, 4.4))
    for method in methods:
        seed_curves(axis, data, y, method, markersize=6, markeredgewidth=0.5, markeredgecolor="white")
    seeds = int(data.groupby("method")["seed"].nunique().max())
    ylabel = style.axis_label(y) + (f", mean of {smooth} steps" if smooth > 1 else "")
    axis.set(xlabel=style.axis_label("step"), ylabel=ylabel, title=title)
    text = f"line: mean of {seeds} seeds; {style.BAND}; thin: each seed" if seeds > 1 else None
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncol=min(len(methods), 3), title=text)
    return figure or axis


def curve_panels(
    frame: pd.DataFrame, columns: Mapping[str, str], *, smooth: int = 1, size: tuple[float, float] = (4.6, 3.1),
    **settings: Any,
) -> Figure:  # fmt: skip
    """`learning_curves` of several metrics, {column: title}, two in a row, with one legend."""
    figure, axes = panels(len(columns), 2, size, sharex=True, **settings)
    for axis, (column, title) in zip(axes, columns.items(), strict=True):
        learning_curves(frame, column, smooth=smooth, title=title, ax=axis)
        axis.get_legend().remove()
        axis.set_ylabel(style.axis_label(column))
    shared_legend(figure, f"each point a mean of {smooth} steps; {style.BAND}", 3)
    return figure


# --- lines in panels -------------------------------------------------------------------------------------------------

Line = tuple[str, style.Look, Any, Any]  # name, look, x and y


def line_panels(
    lines: Mapping[str, Sequence[Line]], *, size: tuple[float, float] = (4.5, 3.4), legend: str | None = None,
    guides: tuple[float | None, float | None] = (None, None), line: Mapping[str, Any] | None = None,
    sharey: bool = True, **settings: Any,
) -> Figure:  # fmt: skip
    """Lines in panels side by side, {title: [(name, look, x, y)]}, with a thin line at x and at y of `guides`.

    `legend` is the title of one legend below (may be ""); without it the first panel has its own. `line` has further
    arguments of `Axes.plot`, `settings` those of `Axes.set`.
    """
    figure, axes = panels(len(lines), len(lines), size, sharey=sharey)
    for axis, (title, own) in zip(axes, lines.items(), strict=True):
        for name, form, x, y in own:
            axis.plot(x, y, **form.line(label=name) | dict(line or {}))
        for draw, at in zip((axis.axvline, axis.axhline), guides, strict=True):
            if at is not None:
                draw(at, color="0.5", linewidth=1)
        axis.set(title=title, **settings)
    if sharey:
        for axis in axes[1:]:
            axis.set_ylabel("")
    if legend is None:
        axes[0].legend()
    else:
        shared_legend(figure, legend or None)
    return figure


# --- lengths ---------------------------------------------------------------------------------------------------------


def live_panels(history: pd.DataFrame, columns: Sequence[Sequence[str]], total: int) -> Figure:
    """A run of `total` steps as far as it has come: a panel for each group of columns, and their last values."""
    width = 3.9 * len(columns)
    figure, axes = new_figure(1, len(columns), (width, 2.6), layout=None)
    # margins in inches: laying out anew at each redraw would cost more than the drawing
    figure.subplots_adjust(0.62 / width, 0.5 / 2.6, 1 - 0.12 / width, 0.9, wspace=0.28)
    looks = list(style.LOOKS.values())
    for axis, names in zip(axes[0], columns, strict=True):
        for k, name in enumerate(names):
            kind = name.rpartition("/")[2]
            text, form = style.LENGTHS.get(kind, (style.axis_label(name), looks[k % len(looks)]))
            values = history[name].dropna() if name in history else pd.Series(dtype=float)
            axis.plot(values.index, values, **form.line(label=text, marker=""))
            if len(values):
                last = {"color": form.colour, "markersize": 5, "clip_on": False}
                axis.plot(values.index[-1:], values.iloc[-1:], form.marker, **last)
        axis.set(xlim=(0, total), xlabel=style.axis_label("step"), ylabel=style.axis_label(names[0]))
        if len(names) > 1:
            axis.set_ylabel("mean length (tokens)" if all("length" in n for n in names) else "")
            axis.legend(loc="lower left", bbox_to_anchor=(0, 0.97), ncol=len(names), fontsize=8)
    return figure


def length_curves(
    frame: pd.DataFrame, *, source: str | None = None, smooth: int = 1, columns: int = 3,
    kinds: Sequence[str] = tuple(style.LENGTHS),
) -> Figure:  # fmt: skip
    """Mean response length by step, a panel for each method: right, wrong, and wrong but not truncated.

    `source` is "eval" (held-out problems, the default where they are recorded) or "train" (the training samples).
    Lines are means over seeds, bands run from the lowest to the highest seed. Imported runs may have lengths in
    characters alone, and then these are drawn. Raises RlinoError as `learning_curves`, and for both units together.
    """
    prefix, unit = _lengths(frame, source, kinds)
    wanted = {kind: f"{prefix}/{kind}" for kind in kinds if f"{prefix}/{kind}" in frame or unit == "tokens"}
    data = prepared(frame, list(wanted.values()), "length_curves", smooth)
    methods = in_order(data["method"])
    figure, axes = panels(len(methods), columns, (3.4, 2.7), sharex=True, sharey=True)
    for axis, method in zip(axes, methods, strict=True):
        style.length_bands(axis, data[data["method"] == method], wanted)
        axis.set_title(label(method))
    axes[0].set_ylim(bottom=0)  # once all is drawn: it fixes the top of all panels too
    plt.setp(axes[-columns:], xlabel=style.axis_label("step"))
    what = "held-out problems" if prefix.startswith("eval") else "training samples"
    shared_legend(figure, f"{what}; {style.BAND}", 3)
    figure.supylabel(f"mean length ({unit} per response)", fontsize=10)
    return figure


def _lengths(frame: pd.DataFrame, source: str | None, kinds: Sequence[str]) -> tuple[str, str]:
    """Where a frame has lengths of these kinds ("eval/length", say), and their unit; RlinoError for two units."""
    prefixes = {"eval": ("eval/",), "train": ("",)}.get(source or "", ("eval/", ""))
    for prefix in prefixes:
        tokens, characters = (
            frame.reindex(columns=[f"{prefix}{unit}/{kind}" for kind in kinds]).notna().any(axis=1)
            for unit in ("length", "characters")
        )
        if tokens.any() and (characters & ~tokens).any():
            raise RlinoError("length_curves: some lengths are in tokens, others in characters: draw them apart")
        if tokens.any() or characters.any():
            unit = "length" if tokens.any() else "characters"
            return f"{prefix}{unit}", style.UNITS[unit]
    return f"{prefixes[-1]}length", style.UNITS["length"]


# --- weights ---------------------------------------------------------------------------------------------------------


def weights_bars(weights: Any, mask: Any, names: Sequence[str]) -> Figure:
    """The weight of every token of a group: one row per response, one bar per token, up where it becomes likelier.

    `weights` is [G, T], `mask` [G, T] true on response tokens, as arrays or CPU tensors; `names` labels the rows. A
    bar's area is the push on its token, and Σw on the right is the push on the whole response. Raises RlinoError for
    shapes that differ.
    """
    weights, mask = np.asarray(weights, dtype=float), np.asarray(mask).astype(bool)
    if weights.shape != mask.shape or weights.ndim != 2:
        raise RlinoError(f"weights {weights.shape} and mask {mask.shape} should be the same [G, T]")
    count, length = weights.shape
    weights = np.where(mask & np.isfinite(weights), weights, 0.0)
    reach = float(np.abs(weights).max()) or 1.0
    figure, axes = new_figure(count, 1, (8, 0.6 * count + 0.7), sharex=True)
    for axis, own, at, name in zip(axes[:, 0], weights, map(np.flatnonzero, mask), names, strict=True):
        _bars(axis, own, at)
        axis.set(ylim=(-1.1 * reach, 1.1 * reach), xlim=(-0.7, length - 0.3), yticks=[])
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
        axis.grid(False)
        sns.despine(ax=axis, left=True, bottom=True)
        total = f"Σw {own.sum():+.3g}".replace("-", "−")
        axis.annotate(total, (1.01, 0.5), xycoords="axes fraction", va="center", fontsize=9, annotation_clip=False)
    axes[0, 0].set_title(f"weight of each token; full height is ±{reach:.3g}")
    axes[-1, 0].set_xlabel("token of the response")
    return figure


def _bars(axis: Axes, values: np.ndarray, at: np.ndarray) -> None:
    """Bars up and down from a line through the tokens of the response; many tokens become one outline per sign."""
    for sign, colour, hatch in ((values > 0, style.PALETTE[0], ""), (values < 0, style.PALETTE[1], "////")):
        bar = {"color": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0}
        if len(values) > 40:
            axis.stairs(np.where(sign, values, 0), np.arange(len(values) + 1) - 0.5, fill=True, **bar)
        else:
            axis.bar(np.flatnonzero(sign), values[sign], width=0.9, **bar)
    if len(at):
        axis.plot([at.min() - 0.45, at.max() + 0.45], [0, 0], color="0.35", linewidth=1)


# --- pass@k ----------------------------------------------------------------------------------------------------------


def pass_at_k_curve(
    frame: pd.DataFrame, *, interval: str = "interval", floor: ArrayLike | None = None, ax: Axes | None = None
) -> Figure | Axes:
    """pass@k against k on a log2 axis, a line for each method with its interval as a band.

    `frame` has the columns `k` and `pass_at_k` (a share), and where known `low` and `high` (the interval), `method`
    ("base" for the model before training) and `seed`: the line is then the mean over seeds, and each seed is thin.
    `interval` says in the legend what the band is ("95 % bootstrap interval"). `floor` [P] are a guesser's chances on
    the problems, whose curve is dashed. Raises RlinoError where columns or rows are missing.
    """
    style.need(frame, ("k", "pass_at_k"), "pass_at_k_curve")
    data = pd.DataFrame({"method": "base", "seed": 0}, frame.index).assign(**frame)
    figure, ((axis,),) = (None, ((ax,),)) if ax is not None else new_figure(size=(6.4, 4.2))
    notes = []
    for method in in_order(data["method"]):
        rows = data[data["method"] == method].sort_values("k")
        form = look(method)
        seeds = rows.pivot(index="k", columns="seed", values="pass_at_k")
        axis.plot(seeds.index, seeds.mean(axis=1), **form.line(label=label(method)))
        if seeds.shape[1] > 1:
            axis.plot(seeds.index, seeds, color=form.colour, linewidth=0.7, alpha=0.5)
            notes = ["thin: each seed"]
        elif {"low", "high"} <= set(rows.columns):
            axis.fill_between(rows["k"], rows["low"], rows["high"], color=form.colour, alpha=0.15, linewidth=0)
    if {"low", "high"} <= set(data.columns):
        notes.append(f"band: {interval}")
    if floor is not None:
        ks = sorted(data["k"].unique())
        guess = true_pass_at_k(floor, ks).mean(0)  # [K]
        axis.plot(ks, guess, color="black", linewidth=1.2, dashes=(4, 3), label="a guesser")
    axis.set_xscale("log", base=2)
    style.set_ticks(axis, data["k"], "{:g}")
    axis.set(xlabel="k, samples per problem", ylabel="pass@k (share of problems solved)")
    axis.legend(title="; ".join(notes) or None)
    return figure or axis


# --- the README's figure ---------------------------------------------------------------------------------------------


def figure_readme(frame: pd.DataFrame) -> Figure:
    """The recorded runs at a glance, a column for each method: test accuracy above, length of right and wrong below.

    `frame` is `records.metrics_frame(runs)` of runs evaluated on the test split. The other methods' accuracies stand
    in grey behind each. Raises RlinoError where columns or rows are missing.
    """
    kinds = {kind: f"eval/length/{kind}" for kind in ("correct", "incorrect")}
    data = prepared(frame, ["eval/accuracy", *kinds.values()], "figure_readme")
    methods = in_order(data["method"])
    size = (1.15 * len(methods) + 1.0, 5.4)  # narrow, so that the text stays readable at a README's width
    figure, axes = new_figure(2, len(methods), size, sharex=True, sharey="row", gridspec_kw={"height_ratios": (1.2, 1)})
    for (top, bottom), method in zip(axes.T, methods, strict=True):
        own = data[data["method"] == method]
        grey_others(top, data, "eval/accuracy", method)
        seed_curves(top, own, "eval/accuracy", method, marker="")
        top.set(title=label(method).replace(" ", "\n", 1), ylim=(0, 1))
        style.length_bands(bottom, own, kinds)
        bottom.set(xlabel=style.axis_label("step"))
    axes[1, 0].set_ylim(bottom=0)  # once all is drawn: it fixes the top of all panels too
    axes[0, 0].set_ylabel("share right, test split")
    axes[1, 0].set_ylabel("mean length (tokens)")
    seeds = int(data.groupby("method")["seed"].nunique().max())
    title = f"line: mean of {seeds} seeds; {style.BAND}; grey: the other methods"
    handles, names = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles, [f"{n} responses" for n in names], loc="outside lower center", ncol=2, title=title)
    return figure
