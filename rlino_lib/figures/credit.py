"""Figures of chapter 10: how much a gradient varies under different credits, what they buy, and how good values are."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from rlino_lib.analysis.credit import DIFFICULTIES, EASY, HARD, WITHIN
from rlino_lib.exact.credit_toy import CREDITS
from rlino_lib.figures import style
from rlino_lib.figures.style import LOOKS, PALETTE, Look, mean_and_band, method_bands, panels, shared_legend

_VINE = {
    "ratio": ("VinePPO, per response", LOOKS["vineppo"]._replace(dash=(), marker="o")),
    "ratio_at_equal_samples": (
        "VinePPO, at as many sampled responses as RLOO", LOOKS["vineppo"]._replace(dash=(5, 1.5), marker="^")
    ),
}  # fmt: skip
_LEVELS = {"rloo": LOOKS["rloo"], "exact": Look(PALETTE[2], (1.5, 1.2)), "reinforce": Look(PALETTE[4], (4, 4))}


def credit_figure(frame: pd.DataFrame) -> Figure:
    """The sd of the gradient over RLOO's against the continuations K of each state, a panel for each toy.

    `frame` is a `credit_table`. RLOO, exact values and no baseline have no K, and are level lines.
    """
    figure, axes = panels(frame["toy"].nunique(), 4, (2.9, 3.2), sharey=True)
    for axis, (toy, part) in zip(axes, frame.groupby("toy", sort=False), strict=True):
        for credit, form in _LEVELS.items():
            for ratio in part.loc[part["credit"] == credit, "ratio"]:
                axis.axhline(ratio, **form.line(label=CREDITS[credit].label, marker=""))
        vine = part[part["credit"] == "vine"]
        for column, (name, form) in _VINE.items():
            axis.plot(vine["K"], vine[column], **form.line(label=name))
        axis.set(title=toy, xscale="log", yscale="log", xlabel="continuations per state, K")
        style.set_ticks(axis, vine["K"], "{:g}")
        axis.set_xlim(vine["K"].min() * 0.8, vine["K"].max() * 1.25)
    ticks = [0.25, 0.5, 1, 2, 4, 8]
    axes[0].set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes[0].yaxis.minorticks_off()
    axes[0].set_ylabel("sd of a group's gradient, RLOO = 1")
    shared_legend(figure, columns=3)
    return figure


_BUDGETS = {"updates": ("updates of the policy", 1), "tokens": ("tokens sampled (millions)", 1e6)}


def budgets_figure(frame: pd.DataFrame) -> Figure:
    """Accuracy on test problems against updates and tokens sampled: a row for each task, mean and range over seeds.

    `frame` has columns task, method, seed, step, updates, tokens and accuracy (points). Recorded seconds are no budget:
    runs share their machine with others.
    """
    tasks = frame.groupby("task", sort=False)
    figure, axes = panels(len(_BUDGETS) * len(tasks), len(_BUDGETS), (4.4, 3.1))
    for row, (task, part) in enumerate(tasks):
        own = axes[len(_BUDGETS) * row :]
        for axis, (budget, (words, unit)) in zip(own, _BUDGETS.items(), strict=False):
            x = part.groupby(["method", "step"])[budget].transform("mean") / unit
            method_bands(axis, part.assign(x=x), "x", "accuracy")
            axis.set_xlabel(words)
        own[0].set(title=task.replace("_", " "), ylabel="right, test (%)")
    shared_legend(figure, style.BAND)
    return figure


_ESTIMATES = {
    "k9": ("9 continuations", LOOKS["vineppo"]._replace(dash=(), marker="D")),
    "k3": ("3 continuations", Look(PALETTE[2], (5, 1.5), "o")),
    "k1": ("1 continuation", Look(PALETTE[8], (1.5, 1.2), "s")),
    "critic": ("critic", LOOKS["vc_ppo"]),
}


def value_errors_figure(frame: pd.DataFrame, most: int = 4) -> Figure:
    """The share of states whose estimate lies within 0.1 of the value, by steps before it: mean and range over seeds.

    `frame` is `analysis.credit.value_errors` of each run with a column seed; places after `most` steps are left out.
    """
    shares = frame[frame["step"] < most]
    shares = shares.assign(within=100 * shares["within"])
    figure, (axis,) = panels(1, 1, (5.6, 3.6))
    for estimate, (name, form) in _ESTIMATES.items():
        mean_and_band(axis, shares[shares["estimate"] == estimate], "step", "within", form, label=name)
    axis.set(xlabel="steps before the state", ylabel=f"within {WITHIN:g} of the value (%)", ylim=(0, 100))
    style.set_ticks(axis, shares["step"], "{:.0f}")
    shared_legend(figure, style.BAND)
    return figure


_CLASSES = dict(zip(DIFFICULTIES, (f"hard: ≤ {100 * HARD:g} % right", "middle", f"easy: ≥ {100 * EASY:g} % right"),
                    strict=True))  # fmt: skip
_TASKS = (Look(PALETTE[0], (), "o"), Look(PALETTE[1], (), "s"), Look(PALETTE[2], (), "^"), Look(PALETTE[4], (), "D"))


def sd_figure(frame: pd.DataFrame) -> Figure:
    """The sd of a gradient by VinePPO's credit over RLOO's, with intervals: a row by difficulty, a mark for each task.

    `frame` is `analysis.credit.sd_ratios` of each task with a column `task`. The upright line is where both are equal.
    """
    names = [name for difficulty, name in _CLASSES.items() if difficulty in set(frame["difficulty"])]
    rows = frame.assign(name=frame["difficulty"].map(_CLASSES), kind=frame["task"].str.replace("_", " "))
    looks = dict(zip(rows["kind"].unique(), _TASKS, strict=False))
    figure, (axis,) = panels(1, 1, (5.6, 2.4))
    style.intervals(axis, rows.rename(columns={"ratio": "value"}), looks, names, at=1.0)
    axis.set(xlabel="sd of the gradient, VinePPO over RLOO")
    shared_legend(figure, "bar: 95 % over problems")
    return figure
