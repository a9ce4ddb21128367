"""The figures of chapter 09 hold the numbers that the library computes, and tell kinds apart by more than colour."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from rlino_lib.analysis.coverage import coverage, fitted_tilt, tilted
from rlino_lib.analysis.pass_at_k import paired_difference, pass_at_k_table
from rlino_lib.errors import RlinoError
from rlino_lib.figures.sharpening import cells_figure, changes_figure, pass_at_k_figure
from tests.figures.test_plots import legend_texts

KS = [1, 2, 4, 8, 16]


def frame_of(counts, n=64):
    return pd.DataFrame({"id": [str(i) for i in range(len(counts))], "n": n, "c": counts})


BASE = frame_of([0, 0, 1, 2, 3, 5, 8, 13, 64, 40, 7, 30])
GRPO = [frame_of([0, 2, 0, 2, 30, 5, 20, 40, 64, 20, 0, 31]), frame_of([1, 0, 0, 9, 25, 8, 24, 33, 64, 27, 0, 40])]
AGAIN = frame_of([1, 0, 0, 3, 2, 6, 9, 12, 64, 41, 6, 28])


def test_curves_are_means_over_seeds_and_differences_have_bars_over_problems():
    figure = pass_at_k_figure(BASE, {"grpo": GRPO, "base_again": [AGAIN]}, floor=[0.01] * 12)
    top, bottom = figure.axes
    base, again, grpo, *seeds, guess = top.lines
    assert base.get_ydata().tolist() == pytest.approx(pass_at_k_table(BASE)["pass_at_k"].tolist())
    each = [pass_at_k_table(frame)["pass_at_k"] for frame in GRPO]
    assert grpo.get_ydata().tolist() == pytest.approx(sum(each).div(2).tolist())
    assert [line.get_ydata().tolist() for line in seeds] == [pytest.approx(one.tolist()) for one in each]
    assert guess.get_ydata().tolist() == pytest.approx([1 - 0.99**k for k in KS])
    table = paired_difference(GRPO, BASE, KS)
    (line,) = [line for line in bottom.lines if line.get_color() == grpo.get_color()]
    assert line.get_ydata().tolist() == pytest.approx((100 * table["difference"]).tolist())
    ends = np.array(bottom.collections[1].get_segments())[:, :, 1]  # after those of the base again
    assert ends == pytest.approx(100 * table[["low", "high"]].to_numpy())
    assert legend_texts(figure)[:3] == ["base model", "base again", "GRPO"]
    assert (
        bottom.get_xlabel() == "k, samples per problem" and [t.get_text() for t in bottom.get_xticklabels()][-1] == "16"
    )


def test_what_rose_and_fell_has_its_own_mark_beside_the_tilted_base():
    figure = changes_figure(BASE, {"base_again": AGAIN, "grpo": GRPO[0]})
    again, grpo = figure.axes
    marks = {line.get_label(): line for line in grpo.lines}
    assert [marks[kind].get_marker() for kind in ("neither", "rose", "fell")] == ["o", "^", "v"]
    assert {marks[kind].get_linestyle() for kind in ("neither", "rose", "fell")} == {"None"}  # problems are no course
    assert sorted(marks["rose"].get_ydata()) == pytest.approx([20 / 64, 30 / 64, 40 / 64])
    assert sorted(marks["fell"].get_xdata()) == pytest.approx([7 / 64, 40 / 64])
    curve = marks["the base, tilted"]
    beta = fitted_tilt(BASE, GRPO[0])
    assert curve.get_ydata().tolist() == pytest.approx(tilted(curve.get_xdata(), beta).tolist())
    assert grpo.texts[0].get_text() == f"3 rose, 2 fell\n1/β = {1 / beta:.2f}"
    assert again.texts[0].get_text().startswith("0 rose, 0 fell")
    assert [axis.get_title("left") + axis.get_title() for axis in figure.axes] == ["base again", "GRPO"]


def test_kinds_without_problems_take_no_room_from_the_panels():
    figure = changes_figure(BASE, {"base": BASE, "base_again": AGAIN})
    figure.draw_without_rendering()
    assert min(axis.get_position().width for axis in figure.axes) > 0.3
    assert figure.axes[0].texts[0].get_text() == "0 rose, 0 fell\n1/β = 0.00"  # the same samples


def test_a_model_that_no_tilt_makes_has_no_curve():
    figure = changes_figure(BASE, {"nsr": frame_of([0] * 12)})
    assert "the base, tilted" not in [line.get_label() for line in figure.axes[0].lines]
    assert "β" not in figure.axes[0].texts[0].get_text()
    with pytest.raises(RlinoError, match="same problems"):
        changes_figure(BASE, {"nsr": GRPO[0][1:]})


def test_cells_are_stacked_to_all_problems():
    cells = coverage(BASE, {"base_again": AGAIN, "grpo": GRPO[0]})
    figure = cells_figure(cells)
    axis = figure.axes[0]
    kinds = ["base_only", "both", "model_only", "neither"]
    widths = [[bar.get_width() for bar in bars] for bars in axis.containers]
    assert widths == [pytest.approx((100 * cells[kind] / 12).tolist()) for kind in kinds]
    assert [bars[1].get_x() for bars in axis.containers] == pytest.approx([0, *np.cumsum([w[1] for w in widths])[:-1]])
    assert [t.get_text() for t in axis.get_yticklabels()] == ["base again", "GRPO"]
    assert [text.get_text() for text in axis.texts[-2:]] == [f"alone {width:.1f}" for width in widths[2]]
    assert legend_texts(figure) == ["the base alone", "both", "the model alone", "neither", "solved by"]
    looks = [(to_rgb(bars[0].get_facecolor()), bars[0].get_hatch()) for bars in axis.containers]
    assert len(set(looks)) == 4 and looks[0][1] != looks[2][1]
