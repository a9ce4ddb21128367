"""Figures of chapter 08b: filler after good and bad verdicts, their gap by normaliser, and the gap along the dial."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from rlino_lib.analysis.statistics import t_interval
from rlino_lib.exact.length_toy import NORMALISERS
from rlino_lib.figures.length import NORMALISER_LOOKS, SIDE_LOOKS
from rlino_lib.figures.style import interval, named_rows, new_figure, panels, shared_legend

_SIDES = {"bad": SIDE_LOOKS["wrong"], "good": SIDE_LOOKS["right"]}


def filler_figure(frame: pd.DataFrame, smooth: int = 1, titles: Mapping[str, str] = NORMALISERS) -> Figure:
    """Mean filler by step after bad and after good verdicts, a panel for each normaliser: each seed thin, their mean.

    `frame` has the columns normaliser, seed, step, good and bad; `smooth` averages over so many steps.
    """
    names = [name for name in titles if (frame["normaliser"] == name).any()]
    figure, axes = panels(len(names), 3, (3.7, 3.2), sharey=True)
    for axis, name in zip(axes, names, strict=True):
        part = frame[frame["normaliser"] == name]
        for side, form in _SIDES.items():
            each = part.pivot(index="step", columns="seed", values=side).rolling(smooth, min_periods=1).mean()
            axis.plot(each.index, each, color=form.colour, linewidth=0.6, alpha=0.5)
            line = form.line(label=f"after {side}", markevery=max(1, len(each) // 8))
            axis.plot(each.index, each.mean(axis=1), **line)
        axis.set(title=titles[name], xlabel="optimiser steps", ylim=(0, None))
    axes[0].set_ylabel("mean filler, tokens")
    shared_legend(figure, f"thin: each seed; each point a mean of {smooth} steps" if smooth > 1 else "thin: each seed")
    return figure


def gap_figure(groups: Mapping[str, pd.DataFrame]) -> Figure:
    """The gap of every run, by normaliser, with the mean and its 95 % t-interval over seeds: a panel for each title.

    Frames have the columns normaliser, seed and gap, tokens.
    """
    figure, axes = new_figure(1, len(groups), (4.2 * len(groups) + 1, 3.2), sharey=True)
    for axis, (title, frame) in zip(axes[0], groups.items(), strict=True):
        named_rows(axis, NORMALISERS.values())
        for y, (name, form) in enumerate(NORMALISER_LOOKS.items()):
            values = frame.loc[frame["normaliser"] == name, "gap"]
            if len(values):
                axis.plot(values, [y - 0.18] * len(values), form.marker, color=form.colour, markersize=4, alpha=0.6)
                interval(axis, y + 0.18, values.mean(), t_interval(values), form)
        axis.set(title=title, xlabel="filler after bad − after good, tokens")
    return figure


def dial_figure(frame: pd.DataFrame, predicted: pd.DataFrame) -> Figure:
    """The gap against what a filler token is worth, by normaliser: every seed, the means, and what was predicted.

    `frame` has the columns normaliser, worth, seed and gap, tokens; `predicted` the same without seed.
    """
    figure, ((axis,),) = new_figure(1, 1, (6.6, 3.8))
    worths = sorted(frame["worth"].unique())  # evenly spaced: 0 has no place on a log axis
    for name, part in frame.groupby("normaliser", sort=False):
        form = NORMALISER_LOOKS[name]
        axis.plot(part["worth"].map(worths.index), part["gap"], form.marker, color=form.colour, markersize=4, alpha=0.5)
        mean = part.groupby("worth")["gap"].mean()
        axis.plot(mean.index.map(worths.index), mean, **form.line(label=NORMALISERS[name]))
        line = predicted[predicted["normaliser"] == name]
        axis.plot(line["worth"].map(worths.index), line["gap"], color="black", linewidth=1)
    axis.axhline(0, color="0.4", linewidth=1)
    axis.set_xticks(range(len(worths)), [f"{v:g}" for v in worths])
    axis.set(xlabel="worth of a filler token after bad", ylabel="filler after bad − after good, tokens")
    axis.legend(title="small: each seed; thin: by the exact rates")
    return figure
