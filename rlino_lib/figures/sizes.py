"""The same experiment at two sizes of the base, side by side (chapter 12)."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from rlino_lib.errors import RlinoError
from rlino_lib.exact.length_toy import NORMALISERS
from rlino_lib.figures.curves import learning_curves
from rlino_lib.figures.style import PALETTE, Look, in_order, label, new_figure, panels, shared_legend

_LOOKS = (Look("0.45", (), "s"), Look(PALETTE[0], (), "o"), Look(PALETTE[3], (), "^"))


def curves_by_size(frames: Mapping[str, pd.DataFrame], y: str = "eval/accuracy") -> Figure:
    """One metric by step, a panel for each size and a line for each method: {size: `records.metrics_frame`}."""
    figure, axes = panels(len(frames), len(frames), (4.6, 3.3), sharey=True)
    for axis, (size, frame) in zip(axes, frames.items(), strict=True):
        learning_curves(frame, y, title=f"{size} parameters", ax=axis)
        axis.get_legend().remove()
    shared_legend(figure, "line: mean over seeds; band: lowest to highest seed; thin: each seed")
    return figure


def ends_figure(rows: pd.DataFrame) -> Figure:
    """Where runs end: a panel for each measure, a row for each method or normaliser, a mark and interval for each size.

    `rows` is `claims.sizes.ends_by_size`. An interval of one seed is infinitely wide, and not drawn. Raises RlinoError
    for no rows.
    """
    if rows.empty:
        raise RlinoError("ends_figure: no rows to draw")
    measures = list(dict.fromkeys(rows["panel"]))
    looks = dict(zip(dict.fromkeys(rows["size"]), _LOOKS, strict=False))
    figure, axes = new_figure(1, len(measures), (3.9 * len(measures), 3.4))
    for axis, measure in zip(axes[0], measures, strict=True):
        part = rows[rows["panel"] == measure]
        names = in_order(part["row"])
        for shift, (size, form) in zip((-0.15, 0.15, 0.3), looks.items(), strict=False):
            own = part[part["size"] == size].set_index("row")
            at = [names.index(name) + shift for name in own.index]
            finite = own["high"] - own["low"] < float("inf")
            half = (own["high"] - own["mean"]).where(finite, 0.0)
            axis.errorbar(
                own["mean"], at, xerr=half, fmt=form.marker, color=form.colour, label=f"{size} parameters", capsize=3
            )
        axis.set(xlabel=measure, ylim=(len(names) - 0.5, -0.5))
        axis.set_yticks(range(len(names)), [NORMALISERS.get(name) or label(name) for name in names])
        axis.grid(axis="y", visible=False)
    shared_legend(figure, "bar: 95 % t-interval over seeds")
    return figure
