"""Figures of chapter 13: public records of real models, each beside the book's own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlino_lib.analysis.real import CURVES, Gains, Truncation, fit_times, moved, truncation
from rlino_lib.figures.length import SIDE_LOOKS
from rlino_lib.figures.style import PALETTE, Look, intervals, new_figure, shared_legend

# How a difference of lengths is taken: over all problems, with difficulty held, or within problems.
KIND_LOOKS = {
    "pooled": Look("0.25", (), "o"),
    "difficulty held": Look(PALETTE[0], (), "s"),
    "within problems": Look(PALETTE[2], (), "^"),
}
_LOOKS = Look(PALETTE[4]), Look(PALETTE[2], (5, 1.5)), Look(PALETTE[1], (1.5, 1.2))
CURVE_LOOKS = dict(zip(CURVES, _LOOKS, strict=True))
GROUPS = {"none right": ("0.35", "//"), "mixed": (PALETTE[0], ""), "all right": ("0.8", "..")}


def gap_figure(panels: Mapping[str, pd.DataFrame]) -> Figure:
    """Differences with intervals, a panel for each title: a row for each name, a mark for each kind in KIND_LOOKS.

    Frames have the columns name, kind, value, low and high, in percent of the mean length of right responses.
    """
    rows = [frame["name"].nunique() for frame in panels.values()]
    figure, axes = new_figure(len(panels), 1, (8.2, 0.48 * sum(rows) + 1.9), height_ratios=rows, sharex=True)
    for axis, (title, frame) in zip(axes[:, 0], panels.items(), strict=True):
        intervals(axis, frame, KIND_LOOKS)
        axis.set_title(title)
    axes[-1, 0].set_xlabel("wrong − right, % of the mean length of right responses")
    shared_legend(figure, "bar: 95 % over problems", 3)
    return figure


def truncation_figure(panels: Mapping[str, tuple[pd.DataFrame, int]]) -> Figure:
    """Where lengths lie, a panel for each title: frames with correct, truncated and length, and the cap in tokens."""
    figure, axes = new_figure(1, len(panels), (3.9 * len(panels) + 0.4, 3.3), sharey=True)
    for axis, (title, (frame, cap)) in zip(axes[0], panels.items(), strict=True):
        edges = np.linspace(0, cap, 25)
        for side, chosen in (("right", frame["correct"]), ("wrong", ~frame["correct"])):
            form = SIDE_LOOKS[side]
            counts, _ = np.histogram(frame.loc[chosen, "length"], edges)
            axis.stairs(100 * counts / len(frame), edges, color=form.colour, fill=True, alpha=0.35, label=side)
            axis.stairs(100 * counts / len(frame), edges, color=form.colour, linewidth=1.5)
        _mark_means(axis, truncation(frame["correct"], frame["truncated"], frame["length"]))
        axis.set(title=title, xlabel=f"length, tokens (cap {cap:,})")
    axes[0, 0].set_ylabel("% of responses")
    shared_legend(figure, "triangle: mean; hollow: wrong ones that were not truncated", 2)
    return figure


def _mark_means(axis: Axes, means: Truncation) -> None:
    """The means at the foot of a panel."""
    settings: dict[str, Any] = {"markersize": 8, "clip_on": False, "zorder": 5, "transform": axis.get_xaxis_transform()}
    right, wrong = (SIDE_LOOKS[side].colour for side in ("right", "wrong"))
    for at, edge, fill in ((means.right, right, right), (means.wrong, wrong, wrong), (means.whole, wrong, "white")):
        axis.plot(at, 0.02, "^", markeredgecolor=edge, markerfacecolor=fill, **settings)


def log_figure(panels: Mapping[str, pd.DataFrame]) -> Figure:
    """Share right and, below it, mean length by step, for each title; frames have step, right, tokens, seed if several.

    Lengths are relative to their mean over the first tenth of the run; curves are means over 20 rows or a tenth.
    """
    columns = min(4, len(panels))
    blocks = math.ceil(len(panels) / columns)
    figure, axes = new_figure(2 * blocks, columns, (2.45 * columns + 0.6, 3.6 * blocks), sharey=False)
    for k, (title, frame) in enumerate(panels.items()):
        above, below = axes[2 * (k // columns) : 2 * (k // columns) + 2, k % columns]
        runs = [part for _, part in frame.groupby("seed")] if "seed" in frame else [frame]
        width = 2 if len(runs) == 1 else 0.8
        for part in runs:
            tenth = max(2, len(part) // 10)
            means = part[["right", "tokens"]].rolling(min(20, tenth), min_periods=1).mean()
            lengths = means["tokens"] / part["tokens"].iloc[:tenth].mean()
            above.plot(part["step"], means["right"], color=PALETTE[0], linewidth=width)
            below.plot(part["step"], lengths, "--", color=PALETTE[1], linewidth=width)
        above.set_title(title, fontsize=10)
        above.set(ylim=(0, 1), xticklabels=[])
        below.set(xlabel="steps", yscale="log", ylim=(0.5, 5))
        below.axhline(1, color="0.4", linewidth=1)
        below.set_yticks([0.5, 1, 2, 4], ["0.5", "1", "2", "4"])
        below.minorticks_off()
        if k % columns == 0:
            above.set_ylabel("share right")
            below.set_ylabel("length, start = 1")
    for axis in axes.flat:
        axis.set_visible(axis.has_data())
    return figure


def difference_figure(rows: pd.DataFrame) -> Figure:
    """Differences in accuracy with intervals, a row each: name, over ("problems" or "seeds"), value, low and high."""
    figure, ((axis,),) = new_figure(1, 1, (8.2, 0.45 * len(rows) + 1.5))
    looks = {"95 % over problems": Look(PALETTE[0], (), "o"), "95 % over seeds": Look(PALETTE[1], (), "s")}
    intervals(axis, rows.assign(kind="95 % over " + rows["over"]), looks)
    axis.set_xlabel("accuracy, GRPO − the other, points")
    shared_legend(figure)
    return figure


def signal_figure(by_visit: pd.DataFrame, others: Mapping[str, pd.Series]) -> Figure:
    """Shares of groups by visit as bands; and over the part of a run that has passed, the share that has no signal.

    `by_visit` is from `signal_by_visit`; `others` has for each name the share of groups with equal rewards, by step.
    """
    figure, ((left, right),) = new_figure(1, 2, (9.4, 3.5))
    colours, hatches = zip(*GROUPS.values(), strict=True)
    bands = left.stackplot(by_visit.index, by_visit[[*GROUPS]].T, colors=colours, labels=list(GROUPS), alpha=0.85)
    for band, hatch in zip(bands, hatches, strict=True):
        band.set(hatch=hatch, edgecolor="white", linewidth=0.3)
    left.set(title="Qwen2.5-Math-1.5B", xlabel="visit of a prompt", ylabel="share of groups")
    left.set(xlim=(by_visit.index[0], by_visit.index[-1]), ylim=(0, 1))
    own = {"Qwen2.5-Math-1.5B": 1 - by_visit["mixed"]} | dict(others)
    looks = Look("0.15", (), "o"), Look(PALETTE[0], (5, 1.5), "s"), Look(PALETTE[1], (1.5, 1.2), "^"), Look(PALETTE[2])
    for (name, share), form in zip(own.items(), looks, strict=False):
        mean = share.rolling(max(1, len(share) // 8)).mean()
        right.plot(np.linspace(0, 1, len(share)), mean, **form.line(label=name, markevery=max(1, len(share) // 6)))
    right.set(title="groups without signal", xlabel="part of the run", ylabel="share", ylim=(0, 1))
    left.legend(loc="lower left", frameon=True)
    right.legend()
    return figure


def gains_figure(gains: Mapping[str, Gains]) -> Figure:
    """Gains above and moves of log-odds below, by the share right at the start, and where three curves would lead.

    A column for each title. Each curve has the one time that fits its ends best; bars are 95 % over prompts.
    """
    figure, axes = new_figure(2, len(gains), (4.3 * len(gains) + 0.4, 6.2), sharex=True, sharey="row")
    grid = np.linspace(0.004, 0.996, 249)
    for (above, below), (title, one) in zip(axes.T, gains.items(), strict=True):
        table = one.table(10)
        for curve, form in CURVE_LOOKS.items():
            time = fit_times(one.sample, curve)[0][0]
            end = moved(grid, time, curve)
            above.plot(grid, end - grid, **form.line(label=f"pushed by {curve}" if curve != "all alike" else curve))
            below.plot(grid, np.log(end / (1 - end) * (1 - grid) / grid), **form.line())
        for axis, name, ends in ((above, "gain", ""), (below, "log-odds", "log-odds/")):
            axis.vlines(table["start"], table[f"{ends}low"], table[f"{ends}high"], color="black", linewidth=1.5)
            axis.plot(table["start"], table[name], "o", color="black", label="bins" if axis is above else None)
            axis.axhline(0, color="0.4", linewidth=1)
        above.set_title(title)
        below.set_xlabel("share right at the start")
    axes[0, 0].set_ylabel("gain in the share right")
    axes[1, 0].set_ylabel("gain in log-odds")
    shared_legend(figure)
    return figure
