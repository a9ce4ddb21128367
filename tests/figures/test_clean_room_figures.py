"""The figures of chapter 08b hold the numbers that they are given."""

import numpy as np
import pandas as pd
import pytest

from rlino_lib.exact.length_toy import NORMALISERS
from rlino_lib.figures.clean_room import dial_figure, filler_figure, gap_figure


def filler(names=("per_response", "constant"), seeds=3, steps=12):
    rows = [(n, s, k, 20.0 - k, 20.0 + k + s) for n in names for s in range(seeds) for k in range(1, steps + 1)]
    return pd.DataFrame(rows, columns=["normaliser", "seed", "step", "good", "bad"])


def test_each_seed_is_a_thin_line_and_the_mean_a_thick_one():
    figure = filler_figure(filler())
    titles = [axis.get_title("left") + axis.get_title() for axis in figure.axes if axis.get_visible()]
    assert titles == ["1/|o|", "constant"]
    widths = [line.get_linewidth() for line in figure.axes[0].lines]
    assert len(widths) == 2 * (3 + 1) and sum(w < 1 for w in widths) == 6
    bad = max(figure.axes[0].lines, key=lambda line: (line.get_linewidth(), line.get_ydata()[-1]))
    assert np.allclose(bad.get_ydata(), [21.0 + k for k in range(1, 13)])


def test_smoothing_is_a_mean_of_the_steps_before():
    lines = filler_figure(filler(seeds=1), smooth=4).axes[0].lines
    assert lines[0].get_ydata()[-1] == pytest.approx(20 + (9 + 10 + 11 + 12) / 4)


def test_every_gap_is_drawn_beside_its_interval():
    frame = pd.DataFrame([(n, s, 5.0 * k + s) for k, n in enumerate(NORMALISERS) for s in range(4)],
                         columns=["normaliser", "seed", "gap"])  # fmt: skip
    figure = gap_figure({"one": frame, "two": frame[frame["normaliser"] != "constant"]})
    points = [line.get_xdata() for line in figure.axes[0].lines if len(line.get_xdata()) == 4]
    assert [list(x) for x in points] == [[5.0 * k + s for s in range(4)] for k in range(3)]
    assert len(figure.axes[1].lines) == 1 + 2 * 3


def test_the_dial_has_a_place_for_each_worth_and_the_prediction():
    worths = (0.0, 0.002, 0.05)
    rows = [(n, v, s, 100 * v + s) for n in ("per_response", "constant") for v in worths for s in range(2)]
    frame = pd.DataFrame(rows, columns=["normaliser", "worth", "seed", "gap"])
    axis = dial_figure(frame, frame.drop(columns="seed").drop_duplicates(["normaliser", "worth"])).axes[0]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["0", "0.002", "0.05"]
    (mean, *_) = [line for line in axis.lines if line.get_label() == "1/|o|"]
    assert list(mean.get_xdata()) == [0, 1, 2] and np.allclose(mean.get_ydata(), [0.5, 0.7, 5.5])
    assert sum(line.get_color() == "black" for line in axis.lines) == 2
