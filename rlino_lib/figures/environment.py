"""Figures of chapter 10b: what reading an environment is worth, what masks of the loss do, and restarts."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from rlino_lib.analysis.statistics import t_interval
from rlino_lib.figures.style import (
    MARKS,
    PALETTE,
    Look,
    intervals,
    mean_and_band,
    new_figure,
    panels,
    shared_legend,
)

MASK_LOOKS = {
    "policy": ("the policy's tokens", Look(PALETTE[0], (), "o")),
    "delimiter": ("all but what stands between delimiters", Look(PALETTE[2], (5, 1.5), "s")),
    "all": ("all tokens", Look(PALETTE[3], (1.5, 1.2), "^")),
}
START_LOOKS = {
    "scratch": ("no restarts", Look("0.4", (), "o")),
    "restarts": ("restarts", Look(PALETTE[0], (), "s")),
    "restarts-bonus": ("restarts and a bonus", Look(PALETTE[1], (), "^")),
}


def optima_figure(best: pd.DataFrame, trained: pd.DataFrame) -> Figure:
    """The best policy that reads a look and the best response fixed beforehand, against how often the look lies.

    `best` is a table of `exact.hidden_target.optima`. `trained` has lies, mask and accuracy (a share) of trained
    policies, a row for each seed: their means are marks, each with the range over seeds.
    """
    figure, ((axis,),) = new_figure(size=(6.4, 4.2))
    rows = best[best["tool"] == "look"].sort_values("lies")
    axis.plot(rows["lies"], 100 * rows["policy"], color="0.15", label="the best policy that reads it")
    axis.plot(rows["lies"], 100 * rows["response"], color="0.15", linestyle="--", label="the best fixed response")
    for place, (mask, (name, form)) in enumerate(MASK_LOOKS.items()):
        accuracy = 100 * trained[trained["mask"] == mask].groupby("lies")["accuracy"].agg(["mean", "min", "max"])
        if len(accuracy):
            x = accuracy.index + 0.012 * (place - 1)  # side by side
            axis.vlines(x, accuracy["min"], accuracy["max"], color=form.colour, linewidth=1.5)
            axis.plot(x, accuracy["mean"], form.marker, color=form.colour, label=f"trained, loss over {name}")
    axis.set(xlabel="s, the chance of a lie", ylabel="right (%)", ylim=(0, 103))
    shared_legend(figure, columns=1)
    return figure


_ROWS = {
    "accuracy": "right, held out (%)",
    "environment_logprob": "log π of the environment's\ntokens (nats per token)",
}


def masks_figure(frame: pd.DataFrame) -> Figure:
    """Held-out accuracy, and the log-probability of the environment's tokens, in training under each mask.

    `frame` has mask, lies, seed, step, accuracy (points) and environment_logprob (nats per token). A column for each
    chance of a lie; the mean over seeds, and the range.
    """
    lies = sorted(frame["lies"].unique())
    many = len(lies) > 1
    sides = {"sharey": "row"} if many else {}
    figure, axes = panels(len(_ROWS) * len(lies), len(lies) if many else 2, (4.4, 3.0), **sides)
    for row, (column, words) in enumerate(_ROWS.items()):
        for s, axis in zip(lies, axes[row * len(lies) :], strict=False):
            for mask, (name, form) in MASK_LOOKS.items():
                part = frame[(frame["mask"] == mask) & (frame["lies"] == s)]
                mean_and_band(axis, part, "step", column, form, label=f"loss over {name}", markersize=4)
            axis.set(xlabel="optimiser steps", title="the look never lies" if s == 0 else f"it lies with chance {s:g}")
        axes[row * len(lies)].set_ylabel(words)
    shared_legend(figure, columns=1)
    return figure


def repair_figure(frame: pd.DataFrame, base: Mapping[str, float]) -> Figure:
    """Accuracy from each start under each kind of training: means over seeds and their 95 % intervals.

    `frame` has training (a key of START_LOOKS), start (in words), seed and accuracy (points); `base` {start: points},
    the untrained model's.
    """
    rows = [
        (start, START_LOOKS[training][0], part.mean(), *t_interval(part))
        for (start, training), part in frame.groupby(["start", "training"], sort=False)["accuracy"]
    ]
    looks = {name: form for name, form in START_LOOKS.values()}
    starts = list(dict.fromkeys(frame["start"]))
    figure, ((axis,),) = new_figure(size=(7, 3.2))
    for place, start in enumerate(starts):
        axis.plot([base[start]] * 2, [place - 0.4, place + 0.4], color="0.6", linestyle=":", label="the base")
    intervals(axis, pd.DataFrame(rows, columns=MARKS), looks, starts, at=None)
    axis.set(xlabel="right (%), 95 % over seeds")
    shared_legend(figure)
    return figure
