"""Figures of chapter 09b: what follows an edited thought, what hints buy, and what the base makes of it all.

Frames are made of the tables of `rlino chains` by `analysis.chains`; "base" is the model before training.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlino_lib.figures import style
from rlino_lib.figures.style import Look, in_order, interval, intervals, label, look, named_rows, new_figure

EDITS = {
    "none": "unedited",
    "operation": "last operation changed",
    "result": "last result false by 1",
    "verdicts": "every verdict flipped",
    "last cut": "last attempt cut",
    "only last": "last attempt alone",
    "swapped": "another problem's thought",
}
MEASURES = {
    "follows_last": "answer is the last attempt's",
    "follows_closed": "… after thoughts that the cap left whole",
    "correct": "answer is right",
}
HINTS = {"plan": "first number and operator", "fact": "first equation", "half": "half of the equations"}
COLDER = "colder"  # the base at the temperature at which its responses are as long


def edits_figure(frame: pd.DataFrame) -> Figure:
    """By edit, how often the answer is the edited thought's last attempt, and how often it is right, in percent.

    `frame` is `over_problems` of the shares of each policy, with its `method` and `seed`; each of MEASURES that it has
    is a panel. A method with one seed has its interval over problems, one with several a dot for each seed, and their
    mean. Raises RlinoError where columns or rows are missing.
    """
    style.need(frame, ("method", "seed", "edit", "measure", "mean", "low", "high"), "edits_figure")
    edits = [edit for edit in EDITS if edit in set(frame["edit"])]
    methods = in_order(frame["method"])
    measures = [measure for measure in MEASURES if measure in set(frame["measure"])]
    figure, axes = new_figure(1, len(measures), (3.6 * len(measures) + 2, 0.5 * len(edits) + 1.5), sharey=True)
    for axis, measure in zip(axes[0], measures, strict=True):
        named_rows(axis, map(EDITS.__getitem__, edits), None)
        axis.set(title=MEASURES[measure], xlabel="% of answers, mean over problems")
        chosen = frame[(frame["measure"] == measure) & frame["mean"].notna()]
        for (edit, method), rows in chosen.groupby(["edit", "method"]):
            y = edits.index(edit) + 0.28 * (methods.index(method) - (len(methods) - 1) / 2)
            _mark(axis, y, rows, method)
    style.shared_legend(figure, "bar, of a single policy: 95 % over problems; small dots: seeds, about their mean")
    return figure


def _mark(axis: Axes, y: float, rows: pd.DataFrame, method: str) -> None:
    """One method in one row of a panel."""
    form = look(method)
    values = 100 * rows["mean"]
    ends = 100 * rows[["low", "high"]].iloc[0] if len(rows) == 1 else (np.nan, np.nan)
    if len(rows) > 1:
        axis.plot(values, [y] * len(rows), "o", color=form.colour, markersize=4, alpha=0.5)
    interval(axis, y, values.mean(), list(ends), form, label(method))


def hints_figure(frame: pd.DataFrame) -> Figure:
    """What each hint adds to the share right, in points, with intervals over problems.

    `frame` is `against` of the shares of each policy, seeds together, with its `method`: hint, mean, low, high. Raises
    RlinoError where columns or rows are missing.
    """
    style.need(frame, ("method", "hint", "mean", "low", "high"), "hints_figure")
    methods = in_order(frame["method"])
    parts = [frame[(frame["hint"] == hint) & (frame["method"] == m)] for hint in HINTS for m in methods]
    rows = pd.concat(parts)
    marks = pd.DataFrame({"name": rows["hint"].map(HINTS), "kind": rows["method"].map(label)})
    marks[["value", "low", "high"]] = 100 * rows[["mean", "low", "high"]]
    figure, axes = new_figure(size=(7.4, 3.2))
    intervals(axes[0, 0], marks, {label(method): look(method) for method in methods})
    axes[0, 0].set_xlabel("points gained over no hint")
    style.shared_legend(figure, "bar: 95 % over problems, in pairs")
    return figure


def likelihood_figure(values: Mapping[str, pd.Series]) -> Figure:
    """The log-probs per token, in nats, that the base gives to the responses to each problem: the share of problems
    with no more than that, a line for each policy.

    `values` are by problem, under "base" those of its own responses at temperature 1, under COLDER at the temperature
    at which they are as long, else under a method's name. Raises RlinoError where there are none.
    """
    style.need(pd.DataFrame(values), (), "likelihood_figure")
    own = {
        "base": ("base at temperature 1", look("base")),
        COLDER: ("base at the temperature of equal length", Look("0.15", (8, 2), "D")),
    }
    figure, axes = new_figure(size=(7, 4))
    for name, series in values.items():
        words, form = own.get(name, (label(name), look(name)))
        ordered = np.sort(series.dropna())
        share = 100 * np.arange(1, len(ordered) + 1) / len(ordered)
        every = {"markevery": max(1, len(ordered) // 8), "drawstyle": "steps-post"}
        mean = f"{ordered.mean():.3f}".replace("-", "−")
        axes[0, 0].plot(ordered, share, **form.line(label=f"{words}: {mean}", **every))
    axes[0, 0].set(xlabel="log-probability under the base (nats per token)", ylabel="% of problems at or below it")
    style.shared_legend(figure, "beside each name: the mean over problems", 2)
    return figure


def tokens_figure(frame: pd.DataFrame, bars: str = "bar: 95 % over problems") -> Figure:
    """Accuracy against the tokens of a sample: a point with its interval for each row. `bars` says what these are over.

    Columns: name (a method, "base", or another), tokens, accuracy, low, high (shares), and where wanted `note`, the
    words beside the point. Raises RlinoError where columns or rows are missing.
    """
    style.need(frame, ("name", "tokens", "accuracy", "low", "high"), "tokens_figure")
    figure, axes = new_figure(size=(7.4, 4.4))
    axis = axes[0, 0]
    for name in in_order(frame["name"]):
        rows = frame[frame["name"] == name]
        form = look(name)
        axis.vlines(rows["tokens"], 100 * rows["low"], 100 * rows["high"], color=form.colour, linewidth=1.5)
        points = {"marker": form.marker, "linestyle": "", "markersize": 8, "color": form.colour}
        axis.plot(rows["tokens"], 100 * rows["accuracy"], label=label(name), **points)  # no line: nothing lies between
        for row in rows.dropna().itertuples() if "note" in rows else ():
            at = (row.tokens, 100 * row.accuracy)
            axis.annotate(row.note, at, (7, -13), textcoords="offset points", fontsize=9, color="0.3")
    axis.set(xlabel="mean length of a sample (tokens)", ylabel="% right in one sample", ylim=(0, None))
    axis.set_xlim(0, 1.07 * frame["tokens"].max())
    style.shared_legend(figure, bars)
    return figure
