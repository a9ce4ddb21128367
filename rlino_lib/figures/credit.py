"""Figures of chapter 10: how much one response's gradient varies under different credits, on exact toys."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from rlino_lib.exact.credit_toy import CREDITS
from rlino_lib.figures.style import PALETTE, Look, look, need, panels, set_ticks, shared_legend

_VINE = {
    "ratio": ("VinePPO, a response", Look(PALETTE[0], (), "o")),
    "at_equal_samples": ("VinePPO, at as many sampled responses as RLOO", Look(PALETTE[1], (5, 1.5), "^")),
}
_LEVELS = {
    "rloo": look("rloo"),
    "exact": Look(PALETTE[2], (1.5, 1.2)),
    "reinforce": Look(PALETTE[4], (4, 4)),
}


def credit_figure(frame: pd.DataFrame, columns: int = 4) -> Figure:
    """The sd of the gradient over RLOO's against the continuations K of each state, a panel for each toy.

    `frame` is a `credit_table`. RLOO, exact values and no baseline have no K, and are level lines.
    """
    need(frame, ("toy", "credit", "K", "ratio", "cost"), "the figure of credits")
    figure, axes = panels(frame["toy"].nunique(), columns, (2.9, 3.2), sharey=True)
    for axis, (toy, part) in zip(axes, frame.groupby("toy", sort=False), strict=True):
        for credit, form in _LEVELS.items():
            for ratio in part.loc[part["credit"] == credit, "ratio"]:
                axis.axhline(ratio, **form.line(label=CREDITS[credit].label, marker=""))
        vine = part[part["credit"] == "vine"].assign(at_equal_samples=lambda rows: rows["ratio"] * rows["cost"] ** 0.5)
        for column, (name, form) in _VINE.items():
            axis.plot(vine["K"], vine[column], **form.line(label=name))
        axis.set(title=toy, xscale="log", yscale="log", xlabel="continuations a state, K")
        set_ticks(axis, vine["K"], "{:g}")
        axis.set_xlim(vine["K"].min() * 0.8, vine["K"].max() * 1.25)
    ticks = [0.25, 0.5, 1, 2, 4, 8]
    axes[0].set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes[0].yaxis.minorticks_off()
    axes[0].set_ylabel("sd of the gradient, RLOO = 1")
    shared_legend(figure, columns=3)
    return figure
