"""Figures of chapter 09b: what follows an edited thought, what hints buy, and what the base makes of it all.

Frames are made of the tables of `rlino chains` by `analysis.chains`; "base" is the model before training.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
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
    mean.
    """
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
            form = look(method)
            values = 100 * rows["mean"]
            ends = 100 * rows[["low", "high"]].iloc[0] if len(rows) == 1 else (np.nan, np.nan)
            if len(rows) > 1:
                axis.plot(values, [y] * len(rows), "o", color=form.colour, markersize=4, alpha=0.5)
            interval(axis, y, values.mean(), list(ends), form, label(method))
    style.shared_legend(figure, "bar, of a single policy: 95 % over problems; small dots: seeds, about their mean")
    return figure


def hints_figure(frame: pd.DataFrame) -> Figure:
    """What each hint adds to the share right, in points, with intervals over problems.

    `frame` is `against` of the shares of each policy, seeds together, with its `method`: hint, mean, low, high.
    """
    methods = in_order(frame["method"])
    rows = pd.concat(frame[(frame["hint"] == hint) & (frame["method"] == m)] for hint in HINTS for m in methods)
    marks = pd.DataFrame({"name": rows["hint"].map(HINTS), "kind": rows["method"].map(label)})
    marks[["value", "low", "high"]] = 100 * rows[["mean", "low", "high"]]
    figure, ((axis,),) = new_figure(size=(7.4, 3.2))
    intervals(axis, marks, {label(method): look(method) for method in methods})
    axis.set_xlabel("points gained over no hint")
    style.shared_legend(figure, "bar: 95 % over problems, in pairs")
    return figure


def likelihood_figure(values: Mapping[str, pd.Series]) -> Figure:
    """The log-probs per token, in nats, that the base gives to the responses to each problem: the share of problems
    with no more than that, a line for each policy.

    `values` are by problem, under "base" those of its own responses at temperature 1, under COLDER at the temperature
    at which they are as long, else under a method's name.
    """
    own = {
        "base": ("base at temperature 1", look("base")),
        COLDER: ("base at the temperature of equal length", Look("0.15", (8, 2), "D")),
    }
    figure, ((axis,),) = new_figure(size=(7, 4))
    for name, series in values.items():
        words, form = own.get(name, (label(name), look(name)))
        ordered = np.sort(series.dropna())
        share = 100 * np.arange(1, len(ordered) + 1) / len(ordered)
        every = {"markevery": max(1, len(ordered) // 8), "drawstyle": "steps-post"}
        mean = f"{ordered.mean():.3f}".replace("-", "−")
        axis.plot(ordered, share, **form.line(label=f"{words}: {mean}", **every))
    axis.set(xlabel="log-probability under the base (nats per token)", ylabel="% of problems at or below it")
    style.shared_legend(figure, "beside each name: the mean over problems", 2)
    return figure


def tokens_figure(frame: pd.DataFrame, bars: str) -> Figure:
    """Accuracy against the tokens of a sample: a point with its interval for each row. `bars` says what these are over.

    Columns: name (a method, "base", or another), tokens, accuracy, low, high (shares), and where wanted `note`, the
    words beside the point.
    """
    figure, ((axis,),) = new_figure(size=(7.4, 4.4))
    for name in in_order(frame["name"]):
        rows = frame[frame["name"] == name]
        form = look(name)
        axis.vlines(rows["tokens"], 100 * rows["low"], 100 * rows["high"], color=form.colour, linewidth=1.5)
        points = {"marker": form.marker, "linestyle": "", "markersize": 8, "color": form.colour}
        axis.plot(rows["tokens"], 100 * rows["accuracy"], label=label(name), **points)  # no line: nothing lies between
        for row in rows.dropna().itertuples() if "note" in rows else ():
            at = (row.tokens, 100 * row.accuracy)
            axis.annotate(row.note, at, (7, -13), textcoords="offset points", fontsize=9, color="0.3")
    axis.set(xlabel="mean length of a sample (tokens)", ylabel="% right in one sample")
    axis.set(xlim=(0, 1.07 * frame["tokens"].max()), ylim=(0, None))
    style.shared_legend(figure, bars)
    return figure
