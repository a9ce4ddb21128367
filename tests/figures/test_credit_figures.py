"""The figure of chapter 10's toys holds the numbers of the table."""

import numpy as np
import pandas as pd
import pytest

from rlino_lib.exact.credit_toy import CREDITS, chain, credit_table, fitted_search
from rlino_lib.figures.credit import budgets_figure, credit_figure, sd_figure, value_errors_figure


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


def test_values_and_budgets_are_means_over_seeds():
    rows = [(estimate, seed, step, 0.1 * step + 0.2 * seed) for estimate in ("k1", "critic") for seed in (0, 1)
            for step in (0, 1, 9)]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["estimate", "seed", "step", "within"])
    (axis,) = value_errors_figure(frame).axes
    lines = {line.get_label(): line.get_ydata().tolist() for line in axis.lines}
    assert lines == {"1 continuation": pytest.approx([10, 20]), "critic": pytest.approx([10, 20])}
    rows = [("countdown", "rloo", seed, step, step, 1e6 * (step + seed), 10.0 * step + seed) for seed in (0, 1)
            for step in (0, 1)]  # fmt: skip
    names = ["task", "method", "seed", "step", "updates", "tokens", "accuracy"]
    updates, tokens = budgets_figure(pd.DataFrame(rows, columns=names)).axes
    assert updates.lines[0].get_xdata().tolist() == [0, 1] and tokens.lines[0].get_xdata().tolist() == [0.5, 1.5]
    assert updates.lines[0].get_ydata().tolist() == tokens.lines[0].get_ydata().tolist() == [0.5, 10.5]


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
