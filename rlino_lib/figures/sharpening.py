"""Figures of chapter 09: pass@k before and after training, whose chances moved, and which problems are solved.

An evaluation is a frame with a row for each problem: id, n samples, c right. Models are named by their methods; one of
them should be "base_again", the base sampled again, which shows the noise of n samples.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from rlino_lib.analysis.coverage import changes, fitted_tilt, tilted
from rlino_lib.analysis.pass_at_k import estimates, paired, paired_difference, pass_at_k_table
from rlino_lib.errors import RlinoError
from rlino_lib.figures.curves import pass_at_k_curve
from rlino_lib.figures.style import PALETTE, Look, in_order, label, look, named_rows, new_figure, panels, shared_legend

_MOVES = {
    "neither": Look("0.55", marker="o"),
    "rose": Look(PALETTE[0], marker="^"),
    "fell": Look(PALETTE[3], marker="v"),
}
_SOLVED = {  # words, colour and hatch, in an order in which what one alone solves begins at one place in all rows
    "base_only": ("the base alone", "#f3b183", "//"),
    "both": ("both", "0.88", ""),
    "model_only": ("the model alone", "#8fbfe0", ".."),
    "neither": ("neither", "white", ""),
}
_PAPER = {"boxstyle": "round,pad=.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}  # behind a number


def pass_at_k_figure(
    base: pd.DataFrame, models: Mapping[str, Sequence[pd.DataFrame]], floor: ArrayLike | None = None
) -> Figure:
    """pass@k of the base and of each model above, and D(k), what a model has more than the base, below.

    `models` {method: an evaluation of each seed}; `floor` [P] are a guesser's chances. Bars at D(k) are 95 % intervals
    over problems of the mean over seeds. k are the powers of two that the samples suffice for. Raises RlinoError where
    the problems differ.
    """
    ks = pass_at_k_table(base)["k"].tolist()
    rows = []
    for method, frames in {"base": [base], **models}.items():
        for seed, frame in enumerate(frames):
            values = estimates(frame["n"], frame["c"], ks).mean(0)  # [K]
            rows.append(pd.DataFrame({"method": method, "seed": seed, "k": ks, "pass_at_k": values}))
    figure, ((top,), (bottom,)) = new_figure(2, 1, (7, 7), sharex=True, gridspec_kw={"height_ratios": (1.3, 1)})
    pass_at_k_curve(pd.concat(rows), floor=floor, ax=top)
    top.get_legend().remove()
    top.set(xlabel="", title="pass@k")
    methods = in_order(models)
    for place, method in enumerate(methods):
        table = paired_difference(models[method], base, ks)
        x = table["k"] * 2 ** (0.09 * (place - (len(methods) - 1) / 2))  # side by side
        form = look(method)
        bottom.plot(x, 100 * table["difference"], **form.line())
        bottom.vlines(x, 100 * table["low"], 100 * table["high"], color=form.colour, linewidth=1.2)
    bottom.axhline(0, color="0.4", linewidth=1)
    bottom.set(xlabel="k, samples per problem", ylabel="points", title="D(k): pass@k above the base")
    bottom.tick_params(labelbottom=True)
    shared_legend(figure, "thin: each seed; bars: 95 % over problems, of the mean over seeds", 3)
    return figure


def changes_figure(base: pd.DataFrame, models: Mapping[str, pd.DataFrame]) -> Figure:
    """Each problem's chance, c/n, under the base and under a model, on scales of square roots: a panel for each model.

    What fell or rose by more than two standard errors has a mark of its own. The line is the base tilted towards
    the reward (`coverage.tilted`) as far as gives the model's mean, where one tilt does. Raises RlinoError where the
    problems differ.
    """
    figure, axes = panels(len(models), 3, (3.4, 3.5))
    line = np.linspace(0, 1, 201) ** 2
    ticks = (0, 0.01, 0.1, 0.25, 0.5, 1)
    for axis, (method, frame) in zip(axes, models.items(), strict=True):
        pairs = paired(frame, base)
        z = changes(frame, base)
        kinds = np.select([z > 2, z < -2], ["rose", "fell"], "neither")
        for kind, form in _MOVES.items():
            of_kind = pairs[kinds == kind]
            x, y = of_kind["c_reference"] / of_kind["n_reference"], of_kind["c"] / of_kind["n"]
            mark = {"color": form.colour, "markersize": 4.5, "alpha": 0.6, "clip_on": False, "in_layout": False}
            axis.plot(x, y, form.marker, label=kind, **mark)
        axis.plot([0, 1], [0, 1], color="0.6", linewidth=1)
        words = f"{(kinds == 'rose').sum()} rose, {(kinds == 'fell').sum()} fell"
        with contextlib.suppress(RlinoError):
            beta = fitted_tilt(base, frame)
            axis.plot(line, tilted(line, beta), color="black", linewidth=1.5, dashes=(4, 2), label="the base, tilted")
            words += f"\n1/β = {round(1 / beta, 2) + 0.0:.2f}".replace("-", "−")  # 0 where nothing moved
        axis.annotate(words, (0.97, 0.04), xycoords="axes fraction", ha="right", va="bottom", fontsize=9)
        for side in (axis.set_xscale, axis.set_yscale):
            side("function", functions=(lambda p: np.sqrt(np.maximum(p, 0)), np.square))
        for set_ticks in (axis.set_xticks, axis.set_yticks):
            set_ticks(ticks, [f"{100 * tick:g}" for tick in ticks])
        axis.set(title=label(method), xlabel="right under the base, %", xlim=(0, 1), ylim=(0, 1))
    axes[0].set_ylabel("right under the model, %")
    shared_legend(figure, "rose, fell: by more than 2 standard errors")
    return figure


def cells_figure(cells: pd.DataFrame) -> Figure:
    """The shares of problems that the base and each model solve: a stacked bar for each row of `coverage.coverage`.

    Beside each bar stands what the model solves alone, in %. Rows may be means over seeds.
    """
    figure, ((axis,),) = new_figure(1, 1, (8.4, 0.45 * len(cells) + 1.5))
    named_rows(axis, map(label, cells.index), at=None)
    left = np.zeros(len(cells))
    for cell, (text, colour, hatch) in _SOLVED.items():
        width = 100 * (cells[cell] / cells["problems"]).to_numpy(float)
        bars = axis.barh(range(len(cells)), width, 0.7, left, label=text, color=colour, hatch=hatch, edgecolor="0.4")
        texts = [f"{share:.1f}" if share > 4 else "" for share in width]  # a narrower bar has no room for it
        axis.bar_label(bars, texts, label_type="center", fontsize=8, bbox=_PAPER)
        left += width
    for row, share in enumerate(100 * cells["model_only"] / cells["problems"]):
        axis.text(1.01, row, f"alone {share:.1f}", transform=axis.get_yaxis_transform(), va="center", fontsize=8)
    axis.set(xlabel=f"problems, %, solved in {cells['n'].iloc[0]:,.0f} samples", xlim=(0, 100))
    shared_legend(figure, "solved by")
    return figure
