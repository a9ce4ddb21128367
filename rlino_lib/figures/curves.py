"""Figures, with seaborn. Data frames and arrays come in; a matplotlib Figure comes out, or the Axes that were given.

A method has one colour, one dash and one marker in every figure, so that figures also read in greyscale. Figures are
closed for pyplot: a notebook shows one where it is the last value of a cell, and only once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlino_lib.errors import RlinoError

LABELS = {
    "grpo": "GRPO",
    "grpo_no_kl": "GRPO without KL",
    "f_isft_pos": "F-ISFT⁺",
    "f_isft_neg": "F-ISFT⁻",
    "f_isft_posneg": "F-ISFT⁺⁻ balanced",
    "f_isft_posneg_unit": "F-ISFT⁺⁻ unit",
}

AXES = {
    "step": "optimiser steps",
    "samples": "responses sampled",
    "seconds": "seconds",
    "reward": "mean reward",
    "accuracy": "share right, training samples",
    "eval/accuracy": "share right, held out",
    "format_ok": "share in the right format",
    "eval/format_ok": "share in the right format, held out",
    "completions/mean_length": "mean length (tokens)",
    "eval/mean_length": "mean length, held out (tokens)",
    "completions/clipped_ratio": "share cut at the cap",
    "eval/clipped_ratio": "share cut at the cap, held out",
    "frac_reward_zero_std": "share of groups with equal rewards",
    "entropy": "entropy (nats a token)",
    "kl": "KL to the base (nats a token)",
    "grad_norm": "gradient norm",
    "lr": "learning rate",
    "clip_ratio": "share of tokens clipped",
    "logprob/correct": "log-probability, right (nats a response)",
    "logprob/incorrect": "log-probability, wrong (nats a response)",
}


class Look(NamedTuple):
    """How one line is drawn everywhere: colour, dash (points on, points off, …; empty is solid), marker."""

    colour: Any
    dash: tuple[float, ...]
    marker: str


_PALETTE = sns.color_palette("colorblind")
_DASHES = ((), (5, 1.5), (1.5, 1.2), (5, 1.5, 1.5, 1.5), (8, 2), (3, 1.2, 1.2, 1.2, 1.2, 1.2))
_MARKERS = ("o", "s", "^", "v", "D", "P")
_COLOURS = (0, 9, 2, 3, 1, 4)
LOOKS = {m: Look(_PALETTE[c], d, k) for m, c, d, k in zip(LABELS, _COLOURS, _DASHES, _MARKERS, strict=True)} | {
    "base": Look((0.35, 0.35, 0.35), (1, 1), "X")
}
LENGTHS = {
    "correct": ("right", Look(_PALETTE[0], (), "o")),
    "incorrect": ("wrong", Look(_PALETTE[3], (5, 1.5), "^")),
    "incorrect_unclipped": ("wrong, not cut at the cap", Look(_PALETTE[1], (1.5, 1.2), "s")),
}
_GREY = (0.72, 0.72, 0.72)
# Methods that only some chapters record: name and look, the same as in chapter 06.
OTHERS = {"dr_grpo": ("Dr. GRPO", Look("0.15", (1, 1), "X")), "rloo": ("RLOO", Look("0.5", (6, 1, 1, 1), "p"))}


def style() -> None:
    """Set the book's look for every figure that follows: seaborn's white grid, its colour-blind palette."""
    rc = {
        "figure.dpi": 100,
        "savefig.dpi": 100,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": 10,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.fontsize": 9,
        "legend.title_fontsize": 9,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "0.5",
        "grid.color": "0.9",
        "lines.linewidth": 2,
        "lines.markersize": 5,
    }
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind", rc=rc)


def label(method: str) -> str:
    """A method's name as the book writes it."""
    names = LABELS | {name: said for name, (said, _) in OTHERS.items()} | {"base": "base model"}
    return names.get(method, method)


def look(method: str) -> Look:
    """A method's colour, dash and marker; a name that is new gets one that depends on nothing but the name."""
    if method in OTHERS:
        return OTHERS[method][1]
    k = sum(map(ord, method))
    return LOOKS.get(method) or Look(_PALETTE[k % 10], _DASHES[k % len(_DASHES)], _MARKERS[k // 7 % len(_MARKERS)])


def axis_label(name: str) -> str:
    """A column's name as an axis label, with its unit."""
    if name in AXES:
        return AXES[name]
    stem, _, kind = name.rpartition("/")
    if stem.endswith("length") and kind in LENGTHS:
        return f"length, {LENGTHS[kind][0]} (tokens)"
    return name.replace("_", " ")


def new_figure(rows: int = 1, cols: int = 1, size: tuple[float, float] = (7, 4), **settings: Any) -> tuple[Figure, Any]:
    """A figure that pyplot no longer holds, so that a notebook does not show it a second time."""
    figure, axes = plt.subplots(rows, cols, figsize=size, squeeze=False, **{"layout": "constrained"} | settings)
    plt.close(figure)
    return figure, axes


def _need(frame: pd.DataFrame, columns: Iterable[str], what: str) -> None:
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        raise RlinoError(f"{what} needs the columns {', '.join(missing)}")
    if frame.empty:
        raise RlinoError(f"{what}: no rows to draw")


def _methods(frame: pd.DataFrame) -> list[str]:
    """The methods of a frame in the book's order, others after them by name."""
    order = ["base", *LABELS, *OTHERS]
    return sorted(frame["method"].unique(), key=lambda m: (order.index(m) if m in order else len(order), m))


def _legend_below(axis: Axes, count: int) -> None:
    """Move a legend under the axes, in columns, where it covers no data."""
    sns.move_legend(axis, "upper center", bbox_to_anchor=(0.5, -0.16), ncol=min(count, 3), title=None)


# --- learning curves -------------------------------------------------------------------------------------------------

BANDS = {"range": (("pi", 100), "lowest to highest seed"), "ci": (("ci", 95), "95 % interval of the mean")}


def _band(axis: Axes, frame: pd.DataFrame, x: str, y: str, methods: Sequence[str], band: str, markers: bool) -> None:
    """The mean over seeds with its band, and a thin line for each seed."""
    looks = {m: look(m) for m in methods}
    shared = {"data": frame, "x": x, "y": y, "hue": "method", "hue_order": methods, "ax": axis}
    shared |= {"palette": {m: k.colour for m, k in looks.items()}}
    if frame.groupby("method")["seed"].nunique().max() > 1:
        sns.lineplot(**shared, units="seed", estimator=None, linewidth=0.7, alpha=0.4, legend=False)
    points = frame[x].nunique()
    sns.lineplot(
        **shared,
        style="method",
        style_order=methods,
        dashes={m: k.dash or "" for m, k in looks.items()},
        markers={m: k.marker for m, k in looks.items()} if markers else False,
        markevery=max(1, points // 12),
        markersize=6,
        markeredgewidth=0.5,
        errorbar=BANDS[band][0],
        seed=0,
        err_kws={"alpha": 0.15, "linewidth": 0},
    )


def learning_curves(
    frame: pd.DataFrame,
    y: str = "eval/accuracy",
    *,
    x: str = "step",
    methods: Sequence[str] | None = None,
    band: str = "range",
    smooth: int = 1,
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """One metric against the step, a line for each method: the mean over seeds, a band, and a thin line a seed.

    `frame` is `records.metrics_frame(runs)`: columns `method`, `seed`, `x`, `y`; rows where `y` is blank are left out.
    `band` is "range" (lowest to highest seed) or "ci" (95 % bootstrap interval of the mean); the legend says which.
    `smooth` averages each run over that many rows first. Raises RlinoError where columns or rows are missing.
    """
    _need(frame, ("method", "seed", x, y), "learning_curves")
    if band not in BANDS:
        raise RlinoError(f"unknown band {band!r}: one of {', '.join(BANDS)}")
    data = _prepared(frame, x, [y], smooth)
    _need(data, (), f"learning_curves of {y}")
    methods = [m for m in methods or _methods(data) if (data["method"] == m).any()]
    data = data[data["method"].isin(methods)]
    figure, axis = (None, ax) if ax is not None else _single((7, 4.4))
    _band(axis, data, x, y, methods, band, markers=True)
    seeds = int(data.groupby("method")["seed"].nunique().max())
    axis.set(xlabel=axis_label(x), ylabel=axis_label(y) + (f", mean of {smooth} steps" if smooth > 1 else ""))
    axis.set_title(title or "")
    handles, names = axis.get_legend_handles_labels()
    axis.legend(handles, [label(n) for n in names])
    _legend_below(axis, len(methods))
    if seeds > 1:
        said = f"line: mean of {seeds} seeds; band: {BANDS[band][1]}; thin: each seed"
        axis.get_legend().set_title(said, prop={"size": 9})
    return figure or axis


def _single(size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure, axes = new_figure(size=size)
    return figure, axes[0, 0]


def _prepared(frame: pd.DataFrame, x: str, columns: Sequence[str], smooth: int) -> pd.DataFrame:
    """The columns to draw in order of `x`, each run smoothed, rows without any value dropped."""
    keys = ["method", "seed"]
    data = frame[[*keys, x, *columns]].dropna(subset=list(columns), how="all").sort_values([*keys, x])
    if smooth > 1:
        rolled = data.groupby(keys)[list(columns)].rolling(smooth, min_periods=1).mean()
        data[list(columns)] = rolled.reset_index(level=keys, drop=True)
    return data.reset_index(drop=True)


# --- lengths ---------------------------------------------------------------------------------------------------------


def _length_panel(axis: Axes, data: pd.DataFrame, columns: Mapping[str, str], x: str = "step") -> None:
    """Length lines of one method; `columns` maps a kind in LENGTHS to its column."""
    for kind, column in columns.items():
        name, drawn = LENGTHS[kind]
        rows = data.dropna(subset=[column])
        if rows.empty:
            continue
        by = rows.groupby(x)[column]
        mean, low, high = by.mean(), by.min(), by.max()
        shown = {"color": drawn.colour, "marker": drawn.marker, "markevery": max(1, len(mean) // 10)}
        axis.fill_between(mean.index, low, high, color=drawn.colour, alpha=0.15, linewidth=0)
        axis.plot(mean.index, mean, label=name, dashes=drawn.dash or (None, None), **shown)


def length_curves(
    frame: pd.DataFrame,
    *,
    source: str | None = None,
    smooth: int = 1,
    columns: int = 3,
    kinds: Sequence[str] = tuple(LENGTHS),
) -> Figure:
    """Mean response length by step, a panel for each method: right, wrong, and wrong but not cut at the cap.

    `source` is "eval" (held-out problems, the default where they are recorded) or "train" (the training samples).
    Lines are means over seeds, bands run from the lowest to the highest seed. Raises RlinoError as `learning_curves`.
    """
    if source is None:
        source = "eval" if "eval/length/correct" in frame.columns else "train"
    prefix = "eval/length/" if source == "eval" else "length/"
    wanted = {kind: prefix + kind for kind in kinds}
    _need(frame, ("method", "seed", "step", *wanted.values()), "length_curves")
    data = _prepared(frame, "step", list(wanted.values()), smooth)
    _need(data, (), "length_curves")
    methods = _methods(data)
    cols = min(columns, len(methods))
    rows = math.ceil(len(methods) / cols)
    figure, axes = new_figure(rows, cols, (3.4 * cols + 0.4, 2.7 * rows + 0.5), sharex=True, sharey=True)
    for axis, method in zip(axes.flat, methods, strict=False):
        _length_panel(axis, data[data["method"] == method], wanted)
        axis.set_title(label(method))
    axes.flat[0].set_ylim(bottom=0)  # once all is drawn: it fixes the top of all panels too
    for axis in axes.flat[len(methods) :]:
        axis.set_visible(False)
    for axis in axes.flat[max(0, len(methods) - cols) : len(methods)]:
        axis.set_xlabel(axis_label("step"))
        axis.tick_params(labelbottom=True)
    handles, names = axes.flat[0].get_legend_handles_labels()
    what = "held-out problems" if source == "eval" else "training samples"
    figure.legend(handles, names, loc="outside lower center", ncol=3, title=f"{what}; band: lowest to highest seed")
    figure.supylabel("mean length (tokens a response)", fontsize=10)
    return figure


# --- weights ---------------------------------------------------------------------------------------------------------


def weights_bars(
    weights: Any,
    mask: Any = None,
    tokens: Sequence[Sequence[str]] | None = None,
    *,
    names: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """The weight of every token of a group: one row a response, one bar a token, up for likelier, down for less likely.

    `weights` is [G, T], `mask` [G, T] true on response tokens (all, where None), as arrays or CPU tensors; `tokens` are
    G lists of texts, written under the bars where at most 32 tokens fit; `names` labels the rows. A bar's area is the
    push on its token, and Σw on the right is the push on the whole response. Raises RlinoError for shapes that differ.
    """
    weights = np.atleast_2d(np.asarray(weights, dtype=float))
    mask = np.ones(weights.shape, bool) if mask is None else np.atleast_2d(np.asarray(mask)).astype(bool)
    if weights.shape != mask.shape or weights.ndim != 2 or not weights.size:
        raise RlinoError(f"weights {weights.shape} and mask {mask.shape} should be the same [G, T], not empty")
    count, length = weights.shape
    finite = np.where(mask & np.isfinite(weights), weights, 0.0)
    reach = float(np.abs(finite).max()) or 1.0
    written = tokens is not None and length <= 32
    figure, axes = new_figure(count, 1, (8, 0.6 * count + 0.7), sharex=True)
    for i, axis in enumerate(axes[:, 0]):
        at = np.flatnonzero(mask[i])
        _bars(axis, finite[i], at)
        axis.set(ylim=(-1.1 * reach, 1.1 * reach), xlim=(-0.7, length - 0.3), yticks=[])
        axis.set_ylabel(names[i] if names else f"{i + 1}", rotation=0, ha="right", va="center")
        axis.grid(False)
        sns.despine(ax=axis, left=True, bottom=True)
        total = f"Σw {finite[i].sum():+.3g}".replace("-", "−")
        axis.annotate(total, (1.01, 0.5), xycoords="axes fraction", va="center", fontsize=9, annotation_clip=False)
        if written:
            _write_tokens(axis, tokens[i], finite[i], at)
            axis.tick_params(labelbottom=False)
    axes[0, 0].set_title(title or f"weight of each token; full height is ±{reach:.3g}")
    if not written:
        axes[-1, 0].set_xlabel("token of the response")
    return figure


def _bars(axis: Axes, values: np.ndarray, at: np.ndarray) -> None:
    """Bars up and down from a line through the tokens of the response; many tokens become one outline a sign."""
    for sign, colour, hatch in ((values > 0, _PALETTE[0], ""), (values < 0, _PALETTE[1], "////")):
        shown = {"color": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0}
        if len(values) > 40:
            axis.stairs(np.where(sign, values, 0), np.arange(len(values) + 1) - 0.5, fill=True, **shown)
        else:
            axis.bar(np.flatnonzero(sign), values[sign], width=0.9, **shown)
    if len(at):
        axis.plot([at.min() - 0.45, at.max() + 0.45], [0, 0], color="0.35", linewidth=1)


def _write_tokens(axis: Axes, tokens: Sequence[str], values: np.ndarray, at: np.ndarray) -> None:
    """Each token on the side of the line where its bar is not."""
    for t, token in zip(at, tokens, strict=False):
        side = -1 if values[t] >= 0 else 1
        text = str(token).strip().replace("$", r"\$") or "␣"
        place = {"ha": "center", "va": "top" if side < 0 else "bottom", "fontsize": 8}
        axis.annotate(text, (t, 0), xytext=(0, 3 * side), textcoords="offset points", **place)


# --- pass@k ----------------------------------------------------------------------------------------------------------


def pass_at_k_curve(
    frame: pd.DataFrame, *, interval: str = "interval", title: str | None = None, ax: Axes | None = None
) -> Figure | Axes:
    """pass@k against k on a log2 axis, a line for each method with its interval as a band.

    `frame` has the columns `k` and `pass_at_k` (a share), and where known `low` and `high` (the interval) and `method`
    ("base" for the model before training). `interval` says in the legend what the band is ("95 % bootstrap interval").
    Raises RlinoError where columns or rows are missing.
    """
    _need(frame, ("k", "pass_at_k"), "pass_at_k_curve")
    data = frame if "method" in frame.columns else frame.assign(method="base")
    figure, axis = (None, ax) if ax is not None else _single((6.4, 4.2))
    for method in _methods(data):
        rows, drawn = data[data["method"] == method].sort_values("k"), look(method)
        shown = {"color": drawn.colour, "marker": drawn.marker, "dashes": drawn.dash or (None, None)}
        axis.plot(rows["k"], rows["pass_at_k"], label=label(method), **shown)
        if {"low", "high"} <= set(rows.columns):
            axis.fill_between(rows["k"], rows["low"], rows["high"], color=drawn.colour, alpha=0.15, linewidth=0)
    axis.set_xscale("log", base=2)
    ticks = sorted(data["k"].unique())
    axis.set_xticks(ticks, [f"{k:g}" for k in ticks], minor=False)
    axis.set(xlabel="k, samples a problem", ylabel="pass@k (share of problems solved)", title=title or "")
    axis.legend(title=f"band: {interval}" if {"low", "high"} <= set(data.columns) else None)
    return figure or axis


# --- the README's figure ---------------------------------------------------------------------------------------------


def figure_readme(frame: pd.DataFrame, methods: Sequence[str] | None = None) -> Figure:
    """The recorded runs at a glance, a column for each method: test accuracy above, length of right and wrong below.

    `frame` is `records.metrics_frame(runs)` of runs evaluated on the test split. The other methods' accuracies stand
    in grey behind each. Raises RlinoError where columns or rows are missing.
    """
    kinds = {kind: f"eval/length/{kind}" for kind in ("correct", "incorrect")}
    _need(frame, ("method", "seed", "step", "eval/accuracy", *kinds.values()), "figure_readme")
    data = _prepared(frame, "step", ["eval/accuracy", *kinds.values()], 1)
    _need(data, (), "figure_readme")
    methods = [m for m in methods or _methods(data) if (data["method"] == m).any()]
    size = (1.45 * len(methods) + 1.2, 4.6)  # narrow, so that the text stays readable at a README's width
    figure, axes = new_figure(2, len(methods), size, sharex=True, sharey="row", gridspec_kw={"height_ratios": (1.2, 1)})
    means = data.groupby(["method", "step"])["eval/accuracy"].mean()
    for (top, bottom), method in zip(axes.T, methods, strict=True):
        own = data[data["method"] == method]
        for other in (m for m in methods if m != method):
            top.plot(means[other].index, means[other], color=_GREY, linewidth=1, zorder=1)
        _band(top, own, "step", "eval/accuracy", [method], "range", markers=False)
        top.get_legend().remove()
        top.set(title=label(method).replace(" ", "\n", 1), ylim=(0, 1))
        _length_panel(bottom, own, kinds)
        top.set(xlabel="", ylabel="")
        bottom.set(xlabel=axis_label("step"))
    axes[1, 0].set_ylim(bottom=0)  # once all is drawn: it fixes the top of all panels too
    axes[0, 0].set_ylabel("share right, test split")
    axes[1, 0].set_ylabel("mean length (tokens)")
    handles, names = axes[1, 0].get_legend_handles_labels()
    seeds = int(data.groupby("method")["seed"].nunique().max())
    said = f"line: mean of {seeds} seeds; band: lowest to highest seed; grey: the other methods"
    figure.legend(handles, [f"{n} responses" for n in names], loc="outside lower center", ncol=2, title=said)
    return figure
