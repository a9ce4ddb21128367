"""Forest plot and curves over seeds: the numbers that are drawn, signs that greyscale keeps, and clear errors."""

from __future__ import annotations

import math

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from rlino_lib.analysis.statistics import compare, differences
from rlino_lib.errors import RlinoError
from rlino_lib.figures.seeds import forest_plot, measure_panels, method_panels, paired_rows
from rlino_lib.figures.style import in_order, label, look, style
from tests.figures.test_plots import make_metrics

GRPO = (50.0, 52.0, 51.0, 55.0, 49.0)


@pytest.fixture(autouse=True)
def no_figure_is_left_open():
    style()
    yield
    assert plt.get_fignums() == []


def scored(task="countdown", **methods):
    """A frame of outcomes: one value per seed, from seed 0."""
    rows = [(m, task, seed, value) for m, values in methods.items() for seed, value in enumerate(values)]
    return pd.DataFrame(rows, columns=["method", "task", "seed", "value"])


def test_rows_are_paired_on_the_seeds_that_both_have():
    frame = scored(grpo=GRPO, rloo=(49.0, 53.5, 50.0), f_isft_neg=(3.0,) * 5)
    rows = paired_rows(frame, "grpo", 3.0).set_index("method")
    assert rows.loc["rloo"].drop("task").to_dict() == vars(compare([-1.0, 1.5, -1.0], 3.0))
    assert rows["n"].to_dict() == {"rloo": 3, "f_isft_neg": 5} and set(rows["task"]) == {"countdown"}


def test_with_equal_seeds_the_numbers_are_those_of_the_library():
    frame = pd.concat([scored(t, grpo=GRPO, rloo=(49, 53, 50, 54, 50)) for t in ("countdown", "word_problems")])
    for task, row in paired_rows(frame, "grpo", 3.0).set_index("task").iterrows():
        gaps = differences(frame[frame["task"] == task], "rloo", "grpo")
        assert row.to_dict() == {"method": "rloo"} | vars(compare(gaps, 3.0))


def test_methods_without_a_common_seed_are_left_out():
    frame = scored(grpo=GRPO[:2], rloo=(1.0, 2.0))
    alone = pd.DataFrame([("f_isft_pos", "countdown", 7, 1.0)], columns=frame.columns)
    assert paired_rows(pd.concat([frame, alone]), "grpo", 3.0)["method"].tolist() == ["rloo"]
    for some in (alone, frame[frame["method"] == "grpo"], frame[:0]):
        with pytest.raises(RlinoError, match="no method has a seed in common"):
            paired_rows(some, "grpo", 3.0)


def test_a_row_stands_where_its_numbers_are():
    frame = scored(grpo=GRPO, f_isft_posneg=(49.5, 52.5, 51.5, 54.0, 49.0), f_isft_neg=(3.0, 8.0, 1.0, 5.0, 2.0))
    rows = paired_rows(frame, "grpo", 3.0).assign(whole=[True, False])
    figure = forest_plot(rows, 3.0, names={"countdown": "Countdown"})
    left, right = figure.axes
    assert [t.get_text() for t in left.get_yticklabels()] == [f"{label(m)}, 5" for m in rows["method"]]
    assert left.get_title(loc="left") == "Countdown" and right.get_xlim() == (-9, 9)
    edges = {line.get_xdata()[0] for line in left.lines if list(line.get_ydata()) == [0, 1]}
    assert edges == {-3.0, 0.0, 3.0}
    for y, (_, row) in enumerate(rows.iterrows()):
        spans = [tuple(line.get_xdata()) for line in left.lines if list(line.get_ydata()) == [y, y]]
        assert spans == [(row["low"], row["high"]), (row["tost_low"], row["tost_high"])]
        (mark,) = (line for line in left.lines if list(line.get_ydata()) == [y])
        assert mark.get_xdata()[0] == row["mean"] and mark.get_marker() == look(row["method"]).marker
        assert (mark.get_markerfacecolor() == "white") != row["whole"]
    arrows = [line for line in right.lines if line.get_marker() == "<"]
    assert len(arrows) == 1 and [t.get_text() for t in right.texts] == [
        f"{rows.set_index('method').loc['f_isft_neg', 'mean']:+.1f}".replace("-", "−")
    ]


def test_one_seed_is_a_point_with_a_line_through_all():
    rows = paired_rows(scored(grpo=GRPO[:1], rloo=(52.0,)), "grpo", 3.0)
    figure = forest_plot(rows, 3.0)
    assert math.isinf(rows["low"][0]) and all(map(math.isfinite, figure.axes[0].get_xlim()))
    figure.canvas.draw()
    with pytest.raises(RlinoError, match="no rows"):
        forest_plot(rows[:0], 3.0)


def test_panels_have_one_method_each():
    methods = ("rloo", "grpo", "f_isft_neg", "dr_grpo", "f_isft_pos")
    figure = method_panels(make_metrics(methods))
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert [a.get_title(loc="left") for a in shown] == [f"{label(m)}, 3 seeds" for m in in_order(methods)]
    assert all(len([line for line in a.lines if line.get_color() == "0.75"]) == 4 for a in shown)
    own = [line for line in shown[0].lines if line.get_label() == "GRPO"]
    assert list(own[0].get_ydata()) == pytest.approx([0.21, 0.25, 0.29, 0.33])  # the mean of three seeds
    figure.canvas.draw()


def test_measures_leave_out_what_is_not_recorded():
    frame = make_metrics(("grpo", "rloo")).assign(empty=None)
    named = {"eval/accuracy": "right", "empty": "nothing", "absent": "nothing", "reward": "reward"}
    figure = measure_panels(frame.assign(updates=2 * frame["step"]), named, x="updates")
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert [a.get_title(loc="left") for a in shown] == ["right", "reward"]
    assert shown[1].lines[0].get_xdata().max() == 2 * frame["step"].max()
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["GRPO", "RLOO"]


def test_lines_differ_by_more_than_colour():
    known = [
        look(m) for m in in_order(["grpo", "grpo_no_kl", "dr_grpo", "rloo", "f_isft_posneg", "f_isft_posneg_unit"])
    ]
    known += [look("f_isft_pos"), look("f_isft_neg")]
    for part in ("colour", "dash", "marker"):
        assert len({getattr(each, part) for each in known}) == len(known)


def test_nothing_to_draw_is_said():
    with pytest.raises(RlinoError, match="method_panels needs the columns eval/accuracy"):
        method_panels(make_metrics().drop(columns="eval/accuracy"))
    with pytest.raises(RlinoError, match="measure_panels: no rows"):
        measure_panels(make_metrics(), {"absent": "x"})
