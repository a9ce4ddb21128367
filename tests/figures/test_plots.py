"""Figures: what is on the axes, that greyscale can tell lines apart, and clear errors. Nothing is shown on a screen."""

from __future__ import annotations

import io

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from rlino_lib.errors import RlinoError
from rlino_lib.figures import curves as plots
from rlino_lib.figures.style import LOOKS, NAMES, look, new_figure, style
from rlino_lib.methods.catalogue import LABELS


def make_metrics(methods=("grpo", "f_isft_pos"), seeds=3, steps=12, every=4) -> pd.DataFrame:
    """A stand-in for recorded metrics: step 0 has only the evaluation, other steps have it now and then."""
    rows = []
    for m, method in enumerate(methods):
        for seed in range(seeds):
            for step in range(steps + 1):
                row = {"run": f"countdown/{method}-s{seed}", "method": method, "seed": seed, "step": step}
                if step:
                    row |= {"reward": 0.1 * m + 0.01 * step + 0.001 * seed, "length/correct": 30.0 + step}
                    row |= {"length/incorrect": 40.0 + step, "length/incorrect_unclipped": 38.0}
                if step % every == 0:
                    row |= {"eval/accuracy": 0.2 + 0.01 * step + 0.01 * seed, "eval/length/correct": 30.0 + m}
                    row |= {"eval/length/incorrect": 45.0 + step + seed, "eval/length/incorrect_unclipped": 39.0}
                rows.append(row)
    return pd.DataFrame(rows)


@pytest.fixture(autouse=True)
def no_figure_is_left_open():
    style()
    yield
    assert plt.get_fignums() == []


def legend_texts(figure: Figure) -> list[str]:
    legend = (figure.legends or [figure.axes[0].get_legend()])[0]
    return [t.get_text() for t in legend.get_texts()] + [legend.get_title().get_text()]


def test_methods_differ_by_more_than_colour():
    assert set(LOOKS) <= set(NAMES) and len(LOOKS) == 14
    for part in ("colour", "dash", "marker"):
        assert len({getattr(each, part) for each in LOOKS.values()}) == len(LOOKS)
    assert look("something_new") == look("something_new")


def test_learning_curves_name_methods_units_and_the_band():
    figure = plots.learning_curves(make_metrics())
    axis = figure.axes[0]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("optimiser steps", "share right, held out")
    assert legend_texts(figure)[:2] == ["GRPO", "F-ISFT⁺"]
    assert legend_texts(figure)[-1] == "line: mean of 3 seeds; band: lowest to highest seed; thin: each seed"
    assert len(axis.collections) == 2  # one band per method
    means = [line for line in axis.lines if len(line.get_xdata()) == 4 and line.get_linewidth() > 1]
    np.testing.assert_allclose(means[0].get_ydata(), [0.21, 0.25, 0.29, 0.33])


def test_the_band_runs_from_the_lowest_to_the_highest_seed():
    axis = plots.learning_curves(make_metrics(("grpo",))).axes[0]
    band = axis.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(0.20) and band[:, 1].max() == pytest.approx(0.34)


def test_learning_curves_on_given_axes_of_one_seed():
    figure, axes = new_figure()
    axis = plots.learning_curves(make_metrics(seeds=1), "reward", smooth=3, title="T", ax=axes[0, 0])
    assert axis is axes[0, 0] and axis.get_title(loc="left") == "T"
    assert axis.get_ylabel() == "mean reward, mean of 3 steps"
    assert axis.get_legend().get_title().get_text() == ""


def test_smoothing_stays_within_a_run():
    data = plots.prepared(make_metrics(seeds=2), ["reward"], "a figure", 2)
    first = data[data["step"] == 1].set_index(["method", "seed"])["reward"]
    assert first["f_isft_pos", 1] == pytest.approx(0.111)


@pytest.mark.parametrize(("source", "column"), [("eval", "eval/length/incorrect"), ("train", "length/incorrect")])
def test_length_curves_have_a_panel_a_method(source, column):
    frame = make_metrics(tuple(LABELS)[:4])
    figure = plots.length_curves(frame, source=source)
    shown = [a for a in figure.axes if a.get_visible()]
    assert [a.get_title(loc="left") for a in shown] == [LABELS[m] for m in tuple(LABELS)[:4]]
    assert legend_texts(figure)[:3] == ["right", "wrong", "wrong, not truncated"]
    wrong = frame[frame["method"] == "grpo"].dropna(subset=[column]).groupby("step")[column].mean()
    np.testing.assert_allclose(shown[0].lines[1].get_ydata(), wrong)
    assert {line.get_linestyle() for line in shown[0].lines} == {"-", "--"} or len(shown[0].lines) == 3


def test_length_curves_take_the_evaluation_where_there_is_one():
    assert "held-out" in legend_texts(plots.length_curves(make_metrics()))[-1]
    frame = make_metrics()
    frame = frame[[c for c in frame.columns if not c.startswith("eval/")]]
    assert "training" in legend_texts(plots.length_curves(frame))[-1]


def test_weights_bars_go_up_and_down_and_sum():
    weights = np.array([[0.1, 0.1, 0.1], [-0.2, -0.2, 9.0]])
    mask = np.array([[1, 1, 1], [1, 1, 0]], bool)
    figure = plots.weights_bars(weights, mask, ["✓", "✗"])
    texts = [[t.get_text() for t in axis.texts] for axis in figure.axes]
    assert texts == [["Σw +0.3"], ["Σw −0.4"]]
    heights = [[p.get_height() for p in axis.patches] for axis in figure.axes]
    np.testing.assert_allclose(heights[0], [0.1] * 3)
    np.testing.assert_allclose(heights[1], [-0.2] * 2)
    assert all(p.get_hatch() for p in figure.axes[1].patches)
    figure.savefig(io.BytesIO(), format="png")


def test_weights_bars_of_long_responses_zero_and_nan():
    figure = plots.weights_bars(np.full((2, 200), 0.01), np.ones((2, 200)), "ab")
    assert "Σw +2" in [t.get_text() for t in figure.axes[0].texts]
    plots.weights_bars([[0.0, np.nan]], [[1, 1]], "a")
    with pytest.raises(RlinoError):
        plots.weights_bars([[1.0, 2.0]], [[True]], "a")


def test_pass_at_k_has_a_log2_axis_and_a_band():
    k = [1, 2, 4, 8]
    frame = pd.DataFrame({"k": k, "pass_at_k": [0.2, 0.4, 0.6, 0.8]})
    assert legend_texts(plots.pass_at_k_curve(frame))[0] == "base model"
    frame = pd.concat([frame.assign(method=m, low=0.1, high=0.9) for m in ("grpo", "base")])
    figure = plots.pass_at_k_curve(frame, interval="95 % bootstrap interval")
    axis = figure.axes[0]
    assert axis.get_xscale() == "log" and [t.get_text() for t in axis.get_xticklabels()] == ["1", "2", "4", "8"]
    assert legend_texts(figure) == ["base model", "GRPO", "band: 95 % bootstrap interval"]
    assert len(axis.collections) == 2


def test_pass_at_k_of_several_seeds_is_their_mean_above_a_guesser():
    rows = [("nsr", seed, k, 0.1 * k + 0.02 * seed) for seed in range(2) for k in (1, 2, 4)]
    frame = pd.DataFrame(rows, columns=["method", "seed", "k", "pass_at_k"])
    figure = plots.pass_at_k_curve(frame, floor=[0.0, 0.5])
    mean, *seeds, guess = figure.axes[0].lines
    assert mean.get_ydata().tolist() == pytest.approx([0.11, 0.21, 0.41]) and mean.get_linewidth() > 1
    assert [line.get_ydata()[0] for line in seeds] == pytest.approx([0.1, 0.12])
    assert guess.get_ydata().tolist() == pytest.approx([0.25, 0.375, 0.46875])
    assert legend_texts(figure) == ["NSR", "a guesser", "thin: each seed"]


def test_the_readme_figure_has_a_column_a_method():
    figure = plots.figure_readme(make_metrics(("f_isft_pos", "grpo", "f_isft_posneg")))
    assert len(figure.axes) == 6
    assert figure.axes[0].get_title(loc="left") == "GRPO"
    assert figure.axes[0].get_ylabel() == "share right, test split"
    assert legend_texts(figure)[:2] == ["right responses", "wrong responses"]


@pytest.mark.parametrize(
    "draw", [plots.learning_curves, plots.length_curves, plots.figure_readme, plots.pass_at_k_curve]
)
def test_frames_that_cannot_be_drawn_are_refused(draw):
    with pytest.raises(RlinoError, match="needs the columns"):
        draw(pd.DataFrame({"step": [1]}))
    frame = make_metrics().assign(k=1, pass_at_k=0.5)
    with pytest.raises(RlinoError, match="no rows"):
        draw(frame.iloc[:0])


def test_a_metric_that_was_never_recorded_is_refused():
    with pytest.raises(RlinoError, match="no rows"):
        plots.learning_curves(make_metrics().assign(kl=np.nan), "kl")
