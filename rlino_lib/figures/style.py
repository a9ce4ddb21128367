"""How figures look: one palette, one look for each method, names of columns with their units, and parts of figures.

A method has one colour, one dash and one marker in every figure, so that figures also read in greyscale. Figures are
closed for pyplot: a notebook shows one where it is the last value of a cell, and only once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlino_lib.errors import RlinoError
from rlino_lib.methods.catalogue import LABELS

AXES = {
    "step": "optimiser steps",
    "reward": "mean reward",
    "accuracy": "share right, training samples",
    "eval/accuracy": "share right, held out",
    "format_ok": "share in the right format",
    "eval/format_ok": "share in the right format, held out",
    "completions/mean_length": "mean length (tokens)",
    "eval/mean_length": "mean length, held out (tokens)",
    "completions/clipped_ratio": "share truncated",
    "eval/clipped_ratio": "share truncated, held out",
    "frac_reward_zero_std": "share of groups with equal rewards",
    "entropy": "entropy (nats per token)",
    "kl": "KL to the base (nats per token)",
    "grad_norm": "gradient norm",
    "lr": "learning rate",
    "clip_ratio": "share of tokens clipped",
    "logprob/correct": "log-probability, right (nats per response)",
    "logprob/incorrect": "log-probability, wrong (nats per response)",
}


class Look(NamedTuple):
    """How one line is drawn everywhere: colour, dash (points on, points off, …; empty is solid), marker."""

    colour: Any
    dash: tuple[float, ...] = ()
    marker: str = ""

    def line(self, **settings: Any) -> dict[str, Any]:
        """The arguments of `Axes.plot` for a line with this look, and others."""
        return {"color": self.colour, "dashes": self.dash or (None, None), "marker": self.marker} | settings


PALETTE = sns.color_palette("colorblind")
_DASHES = ((), (5, 1.5), (1.5, 1.2), (5, 1.5, 1.5, 1.5), (8, 2), (3, 1.2, 1.2, 1.2, 1.2, 1.2))
_MARKERS = "os^vDP"
_COLOURS = {"grpo": 0, "grpo_no_kl": 9, "f_isft_pos": 2, "f_isft_neg": 3, "f_isft_posneg": 1, "f_isft_posneg_unit": 4}
LOOKS = {m: Look(PALETTE[c], d, k) for (m, c), d, k in zip(_COLOURS.items(), _DASHES, _MARKERS, strict=True)}
LOOKS |= {
    "dr_grpo": Look("0.15", (1, 1), "X"),
    "rloo": Look("0.5", (6, 1, 1, 1), "p"),
    "vineppo": Look("#0b6e4f", (7, 1.5, 1.5, 1.5), "d"),
    "vc_ppo": Look("#a0522d", (2, 1), ">"),
    "nsr": Look(PALETTE[5], (3, 1), "<"),
    "best_of_group": Look("#5b2a6e", (2, 2, 6, 2), "h"),
    "base": Look((0.35, 0.35, 0.35), (1, 2), "*"),
    "base_again": Look((0.6, 0.6, 0.6), (1, 4), "8"),
}
NAMES = {"base": "base model", "base_again": "base again", **LABELS}
NAMES |= {"nsr": "NSR", "best_of_group": "SFT on best of group", "grpo_no_clip": "GRPO without clip"}
LENGTHS = {
    "correct": ("right", Look(PALETTE[0], (), "o")),
    "incorrect": ("wrong", Look(PALETTE[3], (5, 1.5), "^")),
    "incorrect_unclipped": ("wrong, not truncated", Look(PALETTE[1], (1.5, 1.2), "s")),
}
BAND = "band: lowest to highest seed"
MARKS = ["name", "kind", "value", "low", "high"]  # the columns of `intervals`
UNITS = {"length": "tokens", "characters": "characters"}  # of lengths in metrics, by where they stand


def style() -> None:
    """Set the book's look for every figure that follows: seaborn's white grid, its colour-blind palette."""
    rc = {
        "figure.dpi": 100, "savefig.dpi": 100, "lines.linewidth": 2, "lines.markersize": 5,
        "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.labelsize": 10,
        "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.fontsize": 9, "legend.title_fontsize": 9,
        "legend.frameon": False, "axes.spines.top": False, "axes.spines.right": False,
        "axes.edgecolor": "0.5", "grid.color": "0.9",
    }  # fmt: skip
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind", rc=rc)


def label(method: str) -> str:
    """A method's name as the book writes it."""
    return NAMES.get(method, method)


def in_order(methods: Iterable[str]) -> list[str]:
    """Methods in the order of NAMES, which is the catalogue's after the base, others after them by name."""
    order = list(NAMES)
    return sorted(set(methods), key=lambda m: (order.index(m) if m in order else len(order), m))


def look(method: str) -> Look:
    """A method's colour, dash and marker; a new name gets one that depends only on the name."""
    k = sum(map(ord, method))
    return LOOKS.get(method) or Look(PALETTE[k % 10], _DASHES[k % len(_DASHES)], _MARKERS[k // 7 % len(_MARKERS)])


def axis_label(name: str) -> str:
    """A column's name as an axis label, with its unit."""
    if name in AXES:
        return AXES[name]
    stem, _, kind = name.rpartition("/")
    if stem.endswith(tuple(UNITS)) and kind in LENGTHS:
        return f"length, {LENGTHS[kind][0]} ({UNITS[stem.rpartition('/')[2]]})"
    return name.replace("_", " ")


def new_figure(rows: int = 1, cols: int = 1, size: tuple[float, float] = (7, 4), **settings: Any) -> tuple[Figure, Any]:
    """A figure that pyplot no longer holds, so that a notebook does not show it a second time."""
    figure, axes = plt.subplots(rows, cols, figsize=size, squeeze=False, **{"layout": "constrained"} | settings)
    plt.close(figure)
    return figure, axes


def panels(count: int, columns: int, size: tuple[float, float], **settings: Any) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels of `size` inches each, in rows of at most `columns`, and their axes."""
    cols = min(columns, count)
    rows = math.ceil(count / cols)
    figure, axes = new_figure(rows, cols, (size[0] * cols + 0.5, size[1] * rows + 0.6), **settings)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    for axis in axes.flat[:count]:
        axis.tick_params(labelbottom=True)
    return figure, list(axes.flat[:count])


def shared_legend(figure: Figure, title: str | None = None, columns: int = 4) -> None:
    """One legend for all axes of a figure, with each name once."""
    pairs = [pair for axis in figure.axes for pair in zip(*axis.get_legend_handles_labels(), strict=True)]
    named = {name: handle for handle, name in reversed(pairs)}
    names = list(dict.fromkeys(name for _, name in pairs))
    figure.legend([named[name] for name in names], names, loc="outside lower center", ncol=columns, title=title)


def set_ticks(axis: Axes, values: Iterable[float], form: str, **settings: Any) -> None:
    """A tick at each value of the x axis and nowhere else; `form` is its format."""
    ticks = sorted(set(values))
    axis.set_xticks(ticks, [form.format(tick) for tick in ticks], **settings)
    axis.minorticks_off()


def need(frame: pd.DataFrame, columns: Iterable[str], what: str) -> None:
    """Raises RlinoError where a frame that a figure is drawn from lacks columns, or has no rows."""
    if missing := [c for c in columns if c not in frame.columns]:
        raise RlinoError(f"{what} needs the columns {', '.join(missing)}")
    if frame.empty:
        raise RlinoError(f"{what}: no rows to draw")


def mean_and_band(axis: Axes, frame: pd.DataFrame, x: str, y: str, form: Look, **line: Any) -> pd.Series:
    """The mean of `y` at each `x` as a line with about eight marks, and a band from the lowest value to the highest.

    `line` has further arguments of `Axes.plot`. Returns the means, empty where no row has a value.
    """
    values = frame.dropna(subset=[y]).groupby(x)[y]
    mean = values.mean()
    if not mean.empty:
        axis.fill_between(mean.index, values.min(), values.max(), color=form.colour, alpha=0.15, linewidth=0)
        axis.plot(mean.index, mean, **form.line(markevery=max(1, len(mean) // 8)) | line)
    return mean


def method_bands(axis: Axes, frame: pd.DataFrame, x: str, y: str, **line: Any) -> None:
    """`mean_and_band` of each method of a frame, in the order and looks of the book."""
    for method in in_order(frame["method"]):
        mean_and_band(axis, frame[frame["method"] == method], x, y, look(method), label=label(method), **line)


def length_bands(axis: Axes, frame: pd.DataFrame, columns: Mapping[str, str], x: str = "step") -> None:
    """`mean_and_band` of columns of lengths, {a kind of LENGTHS: its column}."""
    for kind, column in columns.items():
        mean_and_band(axis, frame, x, column, LENGTHS[kind][1], label=LENGTHS[kind][0])


def named_rows(axis: Axes, names: Iterable[str], at: float | None = 0.0) -> None:
    """Rows named from top to bottom in place of a y axis, and an upright line `at` a value."""
    names = list(names)
    if at is not None:
        axis.axvline(at, color="0.4", linewidth=1)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)


def interval(axis: Axes, y: float, value: float, ends: Sequence[float], form: Look, name: str = "") -> None:
    """A mark at a value and a bar between the ends of its interval, unless that is infinitely wide."""
    if math.isfinite(ends[1] - ends[0]):
        axis.plot(ends, [y, y], color=form.colour, linewidth=2)
    axis.plot(value, y, form.marker, color=form.colour, markersize=7, label=name)


def intervals(
    axis: Axes, rows: pd.DataFrame, looks: Mapping[str, Look], names: Iterable[str] = (), at: float | None = 0.0
) -> None:
    """A row for each name, and in it a mark with its interval for each kind.

    `rows` has the columns MARKS, a kind being one of `looks`; `names` is their order, if not that of `rows`.
    """
    names = list(names or dict.fromkeys(rows["name"]))
    named_rows(axis, names, at)
    places = rows.groupby("name").cumcount() - (rows.groupby("name")["kind"].transform("count") - 1) / 2
    for place, row in zip(places, rows.itertuples(), strict=True):
        y = names.index(row.name) + 0.24 * place
        interval(axis, y, row.value, (row.low, row.high), looks[row.kind], row.kind)
