"""The same experiment at two sizes of the base, side by side (chapter 12)."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from rlino_lib.exact.length_toy import NORMALISERS
from rlino_lib.figures import style
from rlino_lib.figures.curves import learning_curves
from rlino_lib.figures.style import PALETTE, Look, label, new_figure, panels, shared_legend

_LOOKS = (Look("0.45", (), "s"), Look(PALETTE[0], (), "o"), Look(PALETTE[3], (), "^"))


def curves_by_size(frames: Mapping[str, pd.DataFrame]) -> Figure:
    """Accuracy by step, a panel for each size and a line for each method: {size: `records.metrics_frame`}."""
    figure, axes = panels(len(frames), len(frames), (4.6, 3.3), sharey=True)
    for axis, (size, frame) in zip(axes, frames.items(), strict=True):
        learning_curves(frame, title=f"{size} parameters", ax=axis)
        axis.get_legend().remove()
    shared_legend(figure, f"line: mean over seeds; {style.BAND}; thin: each seed")
    return figure


def ends_figure(rows: pd.DataFrame) -> Figure:
    """Where runs end: a panel for each measure, a row for each method or normaliser, a mark and interval for each size.

    `rows` is `claims.sizes.ends_by_size`. An interval of one seed is infinitely wide, and not drawn.
    """
    rows = rows.rename(columns={"mean": "value"}).assign(kind=rows["size"] + " parameters")
    looks = dict(zip(dict.fromkeys(rows["kind"]), _LOOKS, strict=False))
    measures = rows.groupby("panel", sort=False)
    figure, axes = new_figure(1, len(measures), (3.9 * len(measures), 3.4))
    for axis, (measure, part) in zip(axes[0], measures, strict=True):
        names = {row: NORMALISERS.get(row) or label(row) for row in style.in_order(part["row"])}
        style.intervals(axis, part.assign(name=part["row"].map(names)), looks, names.values(), at=None)
        axis.set_xlabel(measure)
    shared_legend(figure, "bar: 95 % t-interval over seeds")
    return figure
