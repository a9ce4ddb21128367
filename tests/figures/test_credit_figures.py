"""The figure of chapter 10's toys holds the numbers of the table."""

import numpy as np
import pandas as pd
import pytest

from rlino_lib.errors import RlinoError
from rlino_lib.exact.credit_toy import CREDITS, chain, credit_table, fitted_search
from rlino_lib.figures.credit import credit_figure, sd_figure, value_errors_figure


def test_a_panel_for_each_toy_with_its_lines():
    frame = credit_table({"hard": chain(2, 0.3), "search": fitted_search(2, 0.2)}, ks=(1, 4))
    figure = credit_figure(frame)
    axes = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title("left") + axis.get_title() for axis in axes] == ["hard", "search"]
    for axis, (_, part) in zip(axes, frame.groupby("toy", sort=False), strict=True):
        lines = {line.get_label(): np.asarray(line.get_ydata(), dtype=float) for line in axis.lines}
        vine = part[part["credit"] == "vine"]
        assert np.allclose(lines["VinePPO, per response"], vine["ratio"])
        (equal,) = [y for name, y in lines.items() if "sampled" in name]
        assert np.allclose(equal, vine["ratio_at_equal_samples"])
        assert set(lines[CREDITS["rloo"].label]) == {1.0}
        (exact,) = part.loc[part["credit"] == "exact", "ratio"]
        assert np.allclose(lines[CREDITS["exact"].label], exact)
        looks = {(line.get_linestyle(), str(line._unscaled_dash_pattern), line.get_marker()) for line in axis.lines}
        assert len(looks) == len(axis.lines)  # told apart without colour


def test_a_frame_without_the_columns_is_refused():
    with pytest.raises(RlinoError, match="needs the columns toy"):
        credit_figure(credit_table({"hard": chain(2, 0.3)}).drop(columns="toy"))
    with pytest.raises(RlinoError, match="of VinePPO: no rows"):
        credit_figure(credit_table({"hard": chain(2, 0.3)}).query("credit != 'vine'"))
    values = pd.DataFrame({"seed": 0, "estimate": ["k1", "critic"], "step": [0, 1], "within": [0.5, 0.6]})
    assert len(value_errors_figure(values).axes) == 1
    for frame, most in ((values, 0), (values.assign(estimate="k5"), 4), (values.head(0), 4)):
        with pytest.raises(RlinoError, match="no rows to draw"):
            value_errors_figure(frame, most)


def test_ratios_of_sds_stand_in_a_row_for_each_difficulty_with_a_mark_for_each_task():
    rows = [("word_problems", "easy", 1.2, 1.0, 1.4), ("word_problems", "hard", 0.8, 0.7, 0.95),
            ("countdown", "hard", 1.1, 0.9, 1.3)]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["task", "difficulty", "ratio", "low", "high"])
    figure = sd_figure(frame)
    (axis,) = figure.axes
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["hard: ≤ 10 % right", "easy: ≥ 50 % right"]
    marks = [(line.get_xdata()[0], round(float(line.get_ydata()[0])), line.get_label()) for line in axis.lines
             if line.get_marker() not in ("", "None")]  # fmt: skip
    assert marks == [(1.2, 1, "word problems"), (0.8, 0, "word problems"), (1.1, 0, "countdown")]
    bars = [tuple(line.get_xdata()) for line in axis.lines if len(line.get_xdata()) == 2]
    assert bars[0] == (1.0, 1.0) and set(bars[1:]) == {row[3:] for row in rows}
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"word problems", "countdown"}
    with pytest.raises(RlinoError, match="needs the columns ratio"):
        sd_figure(frame.drop(columns="ratio"))
