"""Figures of chapter 11 on entropy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from rlino_lib.analysis.entropy_law import SHARE, entropy_accuracy, fit_entropy_law
from rlino_lib.errors import RlinoError
from rlino_lib.figures.style import PALETTE, Look, label, new_figure, shared_legend
from rlino_lib.records.runs import Run, seed_words

_RUNS = (Look(PALETTE[0], (), "o"), Look(PALETTE[1], (), "s"), Look(PALETTE[2], (), "^"), Look(PALETTE[4], (), "D"))


def entropy_law_figure(runs: Sequence[Run], source: str = "training", share: float = SHARE) -> Figure:
    """Accuracy against entropy, a point per step, and each run's law: full where it was fitted, dashed elsewhere.

    Points of the first `share` of steps, which are fitted, are full. The two large marks are means over as many steps
    at the end: measured (full) and predicted (empty), joined by a line, which is the error. Raises RlinoError for no
    run, for more than four, and as `entropy_accuracy` does.
    """
    if not 0 < len(runs) <= len(_RUNS):
        raise RlinoError(f"the figure of the entropy law has room for 1 to {len(_RUNS)} runs, not {len(runs)}")
    figure, ((axis,),) = new_figure(1, 1, (6.6, 4.4))
    for run, form in zip(runs, _RUNS, strict=False):
        table = entropy_accuracy(run, source, share)
        first, rest = table[table["fitted"]], table[~table["fitted"]]
        law = fit_entropy_law(first["entropy"], first["accuracy"])
        name = f"{run.config['task'].replace('_', ' ')}, {label(run.method)}, {seed_words(run.seed)}"
        axis.plot(first["entropy"], first["accuracy"], form.marker, color=form.colour, markersize=4, label=name)
        empty = {"markerfacecolor": "none", "alpha": 0.35, "markersize": 4}
        axis.plot(rest["entropy"], rest["accuracy"], form.marker, color=form.colour, **empty)
        for part, line in ((table, (4, 2)), (first, (None, None))):
            at = np.linspace(part["entropy"].min(), part["entropy"].max(), 50)
            axis.plot(at, law.predict(at), color=form.colour, dashes=line)
        end = rest.tail(len(first))
        there = end["entropy"].mean()
        ends = [end["accuracy"].mean(), law.predict(end["entropy"]).mean()]
        axis.plot([there, there], ends, color="black", linewidth=1, zorder=3)
        for value, fill in zip(ends, (form.colour, "white"), strict=True):
            axis.plot(there, value, form.marker, color=form.colour, markerfacecolor=fill, markersize=10,
                      markeredgecolor="black", zorder=4)  # fmt: skip
    axis.set_ylim(0, 100)  # a law with no hold may lead anywhere
    axis.set(xlabel="entropy (nats per token)", ylabel=f"right, {source} (%)")
    steps = f"small: steps, full in the first {100 * share:g} %, which are fitted"
    shared_legend(figure, f"{steps}; large: the end, measured (full), predicted", 1)
    return figure
