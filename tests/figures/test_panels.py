"""Figures of lines in panels and those of single chapters: what is drawn is what was handed in."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from rlino_lib.analysis.growth import Parts
from rlino_lib.figures import length
from rlino_lib.figures.curves import curve_panels, line_panels
from rlino_lib.figures.seeds import beside_figure, rates_figure, sizes_figure
from rlino_lib.figures.style import LENGTHS, in_order, label, look, mean_and_band, new_figure, panels, style
from tests.figures.test_plots import legend_texts, make_metrics


@pytest.fixture(autouse=True)
def no_figure_is_left_open():
    style()
    yield
    assert plt.get_fignums() == []


def named(axis) -> dict:
    """The lines of some axes that have a name."""
    return {line.get_label(): line for line in axis.lines if not line.get_label().startswith("_")}


def test_mean_and_band_draws_the_mean_between_its_ends():
    frame = pd.DataFrame({"x": [0, 0, 1, 1, 2], "y": [1.0, 3.0, 2.0, 6.0, np.nan]})
    _, ((axis,),) = new_figure()
    assert mean_and_band(axis, frame, "x", "y", look("grpo"), label="name").to_dict() == {0: 2.0, 1: 4.0}
    assert named(axis)["name"].get_ydata().tolist() == [2.0, 4.0]
    ends = axis.collections[0].get_paths()[0].vertices
    assert {tuple(p) for p in ends} >= {(0, 1), (0, 3), (1, 2), (1, 6)}
    assert mean_and_band(axis, frame[4:], "x", "y", look("grpo")).empty and len(axis.lines) == 1


def test_methods_have_one_order():
    assert in_order(["zeta", "f_isft_pos", "rloo", "base", "grpo", "grpo"]) == [
        "base",
        "grpo",
        "rloo",
        "f_isft_pos",
        "zeta",
    ]


def test_panels_hide_what_is_left_of_the_last_row():
    figure, axes = panels(3, 2, (3, 2))
    assert len(axes) == 3 and [a.get_visible() for a in figure.axes] == [True, True, True, False]


def test_lines_stand_in_their_panels():
    lines = {t: [(label(m), look(m), [0, 1], [k, k + 1]) for k, m in enumerate(("grpo", "rloo"))] for t in "ab"}
    figure = line_panels(lines, guides=(0.5, 2), line={"marker": ""}, xlabel="x", ylabel="y")
    first, second = figure.axes
    assert [a.get_title(loc="left") for a in (first, second)] == ["a", "b"]
    assert list(named(first)["RLOO"].get_ydata()) == [1, 2] and named(first)["RLOO"].get_marker() == ""
    assert (first.get_ylabel(), second.get_ylabel(), second.get_xlabel()) == ("y", "", "x")
    guides = [line for line in first.lines if line.get_label().startswith("_")]
    assert list(guides[0].get_xdata()) == [0.5, 0.5] and list(guides[1].get_ydata()) == [2, 2]
    assert legend_texts(figure)[:2] == ["GRPO", "RLOO"]
    assert legend_texts(line_panels(lines, legend="below"))[-1] == "below"


def test_curves_of_several_metrics_share_a_legend():
    figure = curve_panels(make_metrics(), {"reward": "", "eval/accuracy": "held out"}, smooth=2)
    assert [a.get_ylabel() for a in figure.axes] == ["mean reward", "share right, held out"]
    assert legend_texts(figure) == ["GRPO", "F-ISFT⁺", "each point a mean of 2 steps; band: lowest to highest seed"]


def test_rates_have_a_ring_at_the_best():
    rows = [("countdown", m, lr, 10 * k + lr) for k, m in enumerate(("rloo", "grpo")) for lr in (0.1, 1.0)]
    rates = pd.DataFrame(rows, columns=["task", "method", "lr", "accuracy"])
    figure = rates_figure(rates, {"countdown": "Countdown", "word_problems": "none"})
    (axis,) = figure.axes
    assert list(named(axis)) == ["GRPO", "RLOO"] and [t.get_text() for t in axis.get_xticklabels()] == ["0.1", "1"]
    (rings,) = (line for line in axis.lines if line.get_markersize() == 13)
    assert sorted(rings.get_ydata()) == [1.0, 11.0] and set(rings.get_xdata()) == {1.0}


def test_sizes_have_a_panel_for_each_number_of_passes():
    size = [64, 320]
    frame = pd.DataFrame({"samples per iteration": size * 2, "right": [50.0, 40.0, 30.0, 20.0], "passes": [1, 1, 4, 4]})
    frame = frame.assign(method="grpo", seed=0, problems=8, iterations=10, updates=[80, 80, 320, 320])
    figure = sizes_figure(frame, 15.0)
    assert [a.get_title(loc="left") for a in figure.axes] == ["1 pass over each", "4 passes over each"]
    assert named(figure.axes[1])["GRPO"].get_ydata().tolist() == [30.0, 20.0]
    assert [line.get_ydata() for line in figure.axes[0].lines if line.get_label().startswith("_")] == [[15.0, 15.0]]


def test_sources_stand_side_by_side():
    own = pd.DataFrame({"mean": [1.0, -2.0], "low": [0.0, -np.inf], "high": [2.0, np.inf]}, index=["rloo", "dr_grpo"])
    paper = pd.Series([3.0, np.nan], index=["rloo", "f_isft_pos"])
    figure = beside_figure({"ours": ({"mean": own["mean"]}, own), "theirs": ({"model": paper}, None)}, 3.0)
    ours, theirs = figure.axes
    assert [t.get_text() for t in ours.get_yticklabels()] == ["Dr. GRPO", "RLOO", "F-ISFT⁺"]
    assert named(theirs)["model"].get_xdata().tolist() == [3.0] and named(theirs)["model"].get_ydata() == [1]
    spans = [line for line in ours.lines if list(line.get_xdata()) == [0.0, 2.0]]
    assert len(spans) == 1 and len(ours.patches) == 1 and not theirs.patches


def test_the_figures_of_chapter_08():
    path = pd.DataFrame({"success": [0.2, 0.6], "length": [3.0, 5.0]})
    parts = [
        path.assign(world=w, run=r, side=s) for w in ("w1", "w2") for r in ("r1", "r2") for s in ("right", "wrong")
    ]
    figure = length.paths_figure(pd.concat(parts))
    assert [a.get_title(loc="left") for a in figure.axes] == ["r1", "r2", "", ""]
    assert [a.get_xlabel() for a in figure.axes] == ["", "", "right, %", "right, %"]
    assert figure.axes[2].get_ylabel().startswith("w2") and list(named(figure.axes[3])["wrong"].get_xdata()) == [20, 60]
    curve = pd.DataFrame({"longer": [1.0, 0.5], "low": [1.0, 0.4], "high": [1.0, 0.6]}, index=[1, 2])
    shown = {"a": {"base": (curve, look("base")), "_more": (curve, look("grpo"))}, "b": {}}
    figure = length.survival_figure(shown, 112)
    assert list(named(figure.axes[0])["base"].get_ydata()) == [100, 50]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["base"]
    budget = pd.DataFrame({"within": [0.0, 0.5], "forced": [0.0, 0.7]})
    figure = length.budget_figure({"base": (budget, look("base"))})
    assert list(named(figure.axes[0])["base"].get_ydata()) == [0, 50] and len(figure.axes[0].lines) == 2
    steps = {
        "step": [0, 10],
        "length_correct": [30.0, 40.0],
        "length_incorrect": [35.0, 60.0],
        "share_correct": [20, 50],
    }
    figure = length.figure_four({"ours": pd.DataFrame(steps)})
    assert list(named(figure.axes[0])[LENGTHS["incorrect"][0]].get_ydata()) == [35.0, 60.0]


def ratios(name, values, judges, normaliser="constant") -> pd.DataFrame:
    rows = {"comparison": name, "normaliser": normaliser, "judges": judges, "seed": range(len(values))}
    return pd.DataFrame(rows | {"log_ratio": np.log(values)})


def test_every_seed_of_a_ratio_is_drawn_so_that_two_modes_are_two_heaps():
    modes = [0.55, 0.58, 0.6, 0.61, 0.62, 0.63, 3.4, 3.5, 3.6, 3.7]
    old = ratios("old", [0.5, 0.7], judges=False, normaliser="token_mean")
    (axis,) = length.ratios_figure(pd.concat([old, ratios("new", modes, judges=True)]), 0.75).axes
    assert [t.get_text() for t in axis.get_yticklabels()] == ["new, to constant", "old, to token mean (exploratory)"]
    new, exploratory = (line for line in axis.lines if line.get_gid() == "seeds")
    assert new.get_xdata().tolist() == pytest.approx(modes) and set(new.get_ydata()) == {-0.15}
    assert new.get_markerfacecolor() != "none" and exploratory.get_markerfacecolor() == "none"
    spans = [
        list(line.get_xdata()) for line in axis.lines if len(line.get_xdata()) == 2 and line.get_marker() == "None"
    ]
    assert [pytest.approx([0.58, 3.6])] == [span for span in spans if span[0] == pytest.approx(0.58)]  # the median's
    marks = [line.get_xdata()[0] for line in axis.lines if line.get_marker() == "|"]
    assert marks[:2] == pytest.approx([np.sqrt(0.62 * 0.63), np.exp(np.log(modes).mean())])
    assert 0.75 in [line.get_xdata()[0] for line in axis.lines]


def test_bars_have_every_part_and_its_sum():
    (axis,) = length.parts_bars({"": {"a": Parts(1.0, 4.0, 0.0, -2.0), "b": Parts(0.5, 0.0, 9.0, 1.0)}}).axes
    assert sorted(bar.get_width() for bar in axis.patches) == sorted([1.0, 4.0, 0.0, -2.0, 0.5, 0.0, 9.0, 1.0])
    assert [text.get_text() for text in axis.texts] == ["+3.0", "+10.5"]
    assert [bar.get_width() for bar in axis.patches if bar.get_hatch() == length.PARTS["within"][2]] == [4.0, 0.0]
