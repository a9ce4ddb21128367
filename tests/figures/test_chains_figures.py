"""The figures of chapter 09b hold the numbers that they are given."""

import numpy as np
import pandas as pd

from rlino_lib.figures import chains
from tests.figures.test_plots import legend_texts


def points(axis):
    """The places of all marks of some axes, rounded."""
    return {
        tuple(np.round(xy, 2)) for line in axis.lines for xy in zip(line.get_xdata(), line.get_ydata(), strict=True)
    }


def edits(seeds=(0, 1)):
    rows = [("base", 0, edit, measure, 0.5, 0.4, 0.6) for edit in ("none", "result") for measure in chains.MEASURES]
    rows += [("grpo", seed, "result", "follows_last", 0.2 + 0.2 * seed, 0.1, 0.9) for seed in seeds]
    return pd.DataFrame(rows, columns=["method", "seed", "edit", "measure", "mean", "low", "high"])


def test_seeds_are_dots_about_their_mean_and_one_policy_has_its_interval():
    figure = chains.edits_figure(edits())
    follows, closed, right = figure.axes
    assert [tick.get_text() for tick in follows.get_yticklabels()] == ["unedited", "last result false by 1"]
    assert points(follows) == {(x, -0.14) for x in (40, 50, 60)} | {(x, 0.86) for x in (40, 50, 60)} | {
        (x, 1.14) for x in (20, 30, 40)
    }
    assert points(closed) == points(right) == {(x, y) for x in (40, 50, 60) for y in (-0.14, 0.86)}
    assert legend_texts(figure)[:2] == ["base model", "GRPO"]
    some = edits()[edits()["measure"] != "follows_closed"]
    assert len(chains.edits_figure(some).axes) == 2
    assert points(chains.edits_figure(edits(seeds=(1,))).axes[0]) >= {(10, 1.14), (40, 1.14), (90, 1.14)}


def test_gains_of_hints_stand_in_points_beside_the_bases():
    rows = [(method, hint, gain, gain - 0.01, gain + 0.02)
            for method, more in (("grpo", 0.1), ("base", 0.0))
            for hint, gain in (("half", 0.2 + more), ("plan", 0.1 + more))]  # fmt: skip
    (axis,) = chains.hints_figure(pd.DataFrame(rows, columns=["method", "hint", "mean", "low", "high"])).axes
    assert [t.get_text() for t in axis.get_yticklabels()] == [chains.HINTS["plan"], chains.HINTS["half"]]
    marks = {
        line.get_label(): line for line in axis.lines[1:] if line.get_ydata()[0] > 0.5 and len(line.get_xdata()) == 1
    }
    assert {name: round(line.get_xdata()[0]) for name, line in marks.items()} == {"base model": 20, "GRPO": 30}
    assert (29, 1.12) in points(axis) and (32, 1.12) in points(axis)


def test_log_probs_rise_from_the_first_problem_to_all():
    values = {"base": pd.Series([-0.3, -0.1, np.nan]), chains.COLDER: pd.Series([-0.2]), "grpo": pd.Series([-0.4])}
    (axis,) = chains.likelihood_figure(values).axes
    assert points(axis) == {(-0.3, 50), (-0.1, 100), (-0.2, 100), (-0.4, 100)}
    names = legend_texts(axis.figure)
    bases = ["base at temperature 1: −0.200", "base at the temperature of equal length: −0.200"]
    assert names[:3] == [*bases, "GRPO: −0.400"]


def test_samples_stand_at_their_length_and_accuracy():
    rows = [("base", 70.0, 0.1, 0.05, 0.2, "T 0.3"), ("base", 60.0, 0.05, 0.02, 0.1, "T 1"),
            ("without thinking", 11.0, 0.02, 0.0, 0.03, None)]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["name", "tokens", "accuracy", "low", "high", "note"])
    (axis,) = chains.tokens_figure(frame, "bar").axes
    lines = {line.get_label(): line for line in axis.lines}
    base = lines["base model"]
    assert base.get_xdata().tolist() == [70, 60] and base.get_ydata().tolist() == [10, 5]
    assert base.get_linestyle() == "None"
    assert [(t.get_text(), t.xy) for t in axis.texts] == [("T 0.3", (70, 10)), ("T 1", (60, 5))]
    segments = [s.tolist() for c in axis.collections for s in c.get_segments()]
    assert [[70, 5], [70, 20]] in segments and [[11, 0], [11, 3]] in segments
    (axis,) = chains.tokens_figure(frame.drop(columns="note"), "bar: over seeds").axes
    assert not axis.texts and axis.figure.legends[0].get_title().get_text() == "bar: over seeds"
