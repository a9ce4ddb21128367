"""The tables of chapter 08c hold the numbers of the runs that they are about."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from rlino_lib.analysis.growth import KINDS, final_responses, growth, parts_of
from rlino_lib.exact.length_toy import NORMALISERS
from rlino_lib.figures import ablation as tables
from rlino_lib.figures import length as figures
from rlino_lib.figures.style import style
from rlino_lib.records.runs import list_runs, metrics_frame


@pytest.fixture(autouse=True)
def looks():
    style()


@pytest.fixture(scope="module")
def runs():
    return tables.recorded_ablation()


@pytest.fixture(scope="module")
def growths(runs):
    return tables.growths({key: own for key, own in runs.items() if key[1] == "grpo"})


def test_every_row_of_the_ablation_has_its_planned_seeds(runs):
    table = tables.seeds_table(runs)
    assert list(table) == list(NORMALISERS.values()) and len(table) == 8
    assert (table.loc["Countdown"] == 5).all(axis=None) and (table >= 3).all(axis=None)


def test_growths_and_their_differences_are_those_of_the_runs(runs, growths):
    one, other = (runs["countdown", "grpo", name][0] for name in ("per_response", "constant"))
    assert one.seed == other.seed
    gaps = tables.growth_gaps(growths)
    row = gaps[(gaps["task"] == "countdown") & (gaps["responses"] == "wrong") & (gaps["1/|o| less"] == "constant")]
    assert row["gaps"].iloc[0][one.seed] == pytest.approx(growth(one, "wrong") - growth(other, "wrong"))
    assert tables.gaps_table(gaps).shape == (2, 6)
    swapped = growths.replace({"normaliser": {"per_response": "constant", "constant": "per_response"}})
    back = tables.growth_gaps(swapped)
    row = back[(back["task"] == "countdown") & (back["responses"] == "wrong") & (back["1/|o| less"] == "constant")]
    assert row["gaps"].iloc[0][one.seed] == pytest.approx(growth(other, "wrong") - growth(one, "wrong"))
    assert tables.gaps_in_words(gaps) != tables.gaps_in_words(back)


def test_a_predicted_sign_is_compared_with_the_interval():
    gaps = pd.DataFrame({"task": "countdown", "method": "grpo", "responses": ["right", "wrong, not truncated"]})
    up = pd.Series([2.0, 2.1, 2.2])
    table = tables.predicted_signs(gaps.assign(**{"1/|o| less": "constant", "gaps": [up, up]}))
    assert table["1/|o| should make them"].tolist() == ["shorter", "longer"]
    assert table["so"].tolist() == ["opposite", "as predicted"]
    table = tables.predicted_signs(gaps.assign(**{"1/|o| less": "constant", "gaps": [up - 2.1, up]}))
    assert table["so"].tolist() == ["open", "as predicted"]


def test_caps_are_compared_within_a_seed(runs):
    frame = pd.DataFrame({
        "cap": 76, "normaliser": ["1/|o|", "1/|o|", "constant", "constant"], "seed": [1, 2, 2, 1],
        "wrong": [60.0, 70.0, 65.0, 50.0], "wrong, not truncated": 40.0, "right, %": 50.0, "wrong at the start": 40.0,
    })  # fmt: skip
    table, words = tables.cap_effects(frame)
    assert table.loc[76, "seeds"] == 2 and table.loc[76, "1/|o| less constant: wrong"].startswith("+7.5 [")
    assert words == "Of the growth with 1/|o|, left with a constant: 70 % at cap 76."
    rows = tables.by_cap(runs["countdown", "grpo", "constant"])
    assert set(rows["cap"]) == {112} and set(rows["normaliser"]) == {"constant"} and len(rows) == 5


def test_attempts_are_counted_by_name_and_by_step(runs):
    base = final_responses(runs["countdown", "grpo", "constant"][0])
    frames = tables.searches(base, runs, ["grpo"])
    assert list(frames) == ["base", "GRPO, 1/|o|", "GRPO, token mean", "GRPO, constant"]
    table = tables.attempts_table({"base": frames["base"], "twice": [base, base]})
    assert table.loc["base"].equals(table.loc["twice"].rename("base"))
    assert table.loc["base", "attempts"] == pytest.approx(base["attempts"].mean())
    trail = tables.attempts_by_step(runs["countdown", "grpo", "constant"][:1])
    assert trail.index[0] == 0 and trail["attempts"].iloc[-1] > trail["attempts"].iloc[0]


def test_the_parts_are_those_of_the_runs_and_close(runs):
    own = runs["word_problems", "grpo", "constant"]
    frame = tables.parts_by_seed(own)
    assert list(frame.index) == [run.seed for run in own]
    assert frame.iloc[0, :4].sum() == pytest.approx(frame["wrong ones: growth"].iloc[0])
    assert tables.largest_gap(own) < 1e-9
    bars = tables.mean_parts(runs, "word_problems", ["grpo"])
    assert bars["GRPO, constant"].within == pytest.approx(np.mean([parts_of(run).within for run in own]))
    table = tables.parts_table(frame, frame - 1)
    assert set(table["what 1/|o| does"]) == {"+1.0 [+1.0, +1.0]"}
    assert "fewer leave a step out" in tables.parts_in_words(frame)
    assert "after training" in tables.left_out_in_words(own)


def test_rates_and_remedies_have_their_seeds():
    table = tables.rates_table(list_runs("length-rates"))
    assert table.shape == (2, 4) and {name for name, _ in table.index} == {"constant"}
    remedies = tables.remedies_table()
    assert remedies.index[0] == tables.NO_REMEDY and len(remedies) == 6 and (remedies["seeds"] == 3).all()


# --- the figures of these tables -------------------------------------------------------------------------------------


def test_growth_is_drawn_as_a_mark_for_each_normaliser(growths):
    figure = figures.growth_plot(growths, tables.TASKS)
    assert len(figure.axes) == 2 * len(KINDS) and plt.get_fignums() == []
    axis = figure.axes[1]
    assert axis.get_title(loc="left") == "Countdown: wrong"
    marks = {line.get_label(): line.get_xdata()[0] for line in axis.lines if line.get_label() in NORMALISERS.values()}
    part = growths[(growths["task"] == "countdown") & (growths["responses"] == "wrong")]
    means = part.groupby("normaliser")["growth"].mean().rename(index=NORMALISERS)
    assert marks == pytest.approx(means.to_dict())


def test_lengths_that_are_close_together_do_not_start_at_zero(runs):
    panels = {
        text: {NORMALISERS[n]: metrics_frame(runs[task, "grpo", n]) for n in NORMALISERS}
        for task, text in tables.TASKS.items()
    }
    figure = figures.growth_curves(panels)
    assert figure.axes[0].get_ylim()[0] == 0 and figure.axes[3].get_ylim()[0] > 25
    assert figure.axes[4].get_title(loc="left") == "word problems, token mean"
