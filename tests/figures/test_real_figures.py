"""The figures of chapter 13 hold the numbers that they are given."""

import numpy as np
import pandas as pd
import pytest

from rlino_lib.analysis.real import gains_by_visits
from rlino_lib.figures import real


def axes_of(figure):
    return [axis for axis in figure.axes if axis.get_visible()]


def test_every_gap_has_its_mark_and_its_bar():
    rows = [("one", "pooled", 20.0, 10.0, 30.0), ("one", "within problems", 2.0, -3.0, 7.0)]
    frame = pd.DataFrame(rows, columns=["name", "kind", "value", "low", "high"])
    above, below = axes_of(real.gap_figure({"records": frame, "bases": frame.assign(name="two")}))
    spans = [tuple(line.get_xdata()) for line in above.lines if len(line.get_xdata()) == 2]
    assert (10.0, 30.0) in spans and (-3.0, 7.0) in spans
    assert [tick.get_text() for tick in below.get_yticklabels()] == ["two"]


def test_bars_of_lengths_add_up_to_all_responses():
    frame = pd.DataFrame({"length": [10, 20, 100, 100], "correct": [True, False, False, True]})
    frame["truncated"] = frame["length"] == 100
    (axis,) = axes_of(real.truncation_figure({"one": (frame, 100)}))
    filled = [patch for patch in axis.patches if patch.get_label() in ("right", "wrong")]
    assert sum(patch.get_data().values.sum() for patch in filled) == pytest.approx(100)


def test_lengths_of_logs_start_at_one():
    log = pd.DataFrame({"step": range(1, 101), "right": 0.5, "tokens": [40.0] * 50 + [80.0] * 50})
    above, below = axes_of(real.log_figure({"one": log}))
    assert set(above.lines[0].get_ydata()) == {0.5}
    ends = [line.get_ydata() for line in below.lines if len(line.get_ydata()) == 100][0]
    assert (ends[0], ends[-1]) == (1.0, 2.0)


def test_a_difference_over_problems_looks_unlike_one_over_seeds():
    rows = [("a", "problems", 6.0, 2.0, 10.0), ("b", "seeds", 3.0, 1.0, 5.0)]
    figure = real.difference_figure(pd.DataFrame(rows, columns=["name", "over", "value", "low", "high"]))
    (axis,) = axes_of(figure)
    marks = [line for line in axis.lines if line.get_label().startswith("95 %")]
    assert [line.get_xdata()[0] for line in marks] == [6.0, 3.0]
    assert len({line.get_marker() for line in marks}) == 2


def test_bands_of_signal_fill_the_whole():
    frame = pd.DataFrame({"none right": [0.4, 0.3], "mixed": [0.5, 0.5], "all right": [0.1, 0.2]}, index=[1, 2])
    left, right = axes_of(real.signal_figure(frame, {"other": pd.Series([0.2, 0.3])}))
    assert max(band.get_paths()[0].vertices[:, 1].max() for band in left.collections) == pytest.approx(1)
    assert np.allclose(right.lines[0].get_ydata(), [0.5, 0.5])


def test_gains_are_drawn_at_their_starts():
    rng = np.random.default_rng(0)
    visits = [list(rng.binomial(8, q, 44) / 8) for q in rng.random(300)]
    found = gains_by_visits(visits)
    above, below = axes_of(real.gains_figure({"one": found}))
    table = found.table()
    (points,) = [line for line in above.lines if line.get_label() == "bins"]
    assert np.allclose(points.get_xdata(), table["start"]) and np.allclose(points.get_ydata(), table["gain"])
