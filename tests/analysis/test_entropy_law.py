"""The entropy law: exact on accuracies that follow it, honest about a fit in which the entropy hardly moves."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from rlino_lib.analysis.entropy_law import entropy_accuracy, entropy_law_table, fit_entropy_law
from rlino_lib.errors import RlinoError
from rlino_lib.records.runs import list_runs


def run_of(entropy, accuracy, name="group/run"):
    metrics = pd.DataFrame({"step": range(len(entropy)), "entropy": entropy, "accuracy": accuracy})
    held_out = metrics["step"] % 10 == 0
    metrics["eval/entropy"] = metrics["entropy"].where(held_out)
    metrics["eval/accuracy"] = metrics["accuracy"].where(held_out)
    return SimpleNamespace(name=name, metrics=metrics, method="grpo", seed=0, config={"task": "countdown"})


def test_a_run_that_follows_the_law_is_predicted():
    entropy = np.linspace(0.5, 0.1, 201)
    for source in ("training", "held out"):
        (row,) = entropy_law_table([run_of(entropy, 0.9 - 0.4 * np.exp(entropy))], source).itertuples()
        assert (row.a, row.b, row.ceiling) == pytest.approx((40, 90, 50), abs=1e-9)
        assert abs(row.error) < 1e-9 and row.rmse < 1e-9 and row.gain > 10
    assert row.n == 4 and row.moved == pytest.approx(0.06)  # evaluations at steps 0, 10, 20 and 30 of 200


@pytest.mark.parametrize(("steps", "covers"), [(None, "the line"), (20, "new steps")])
def test_intervals_cover_as_often_as_they_say(steps, covers):
    draws = np.random.default_rng(3)
    early, late = np.linspace(0.4, 0.35, 30), np.full(20, 0.2)
    hits = 0
    for _ in range(1000):
        law = fit_entropy_law(early, 80 - 30 * np.exp(early) + draws.normal(0, 4, 30))
        low, high = law.interval(late, steps)
        true = 80 - 30 * math.exp(0.2)
        hits += low < (true if steps is None else true + draws.normal(0, 4, 20).mean()) < high
    assert 0.93 < hits / 1000 < 0.97


def test_an_entropy_that_hardly_moves_leaves_the_law_open():
    draws = np.random.default_rng(0)
    noise = draws.normal(0, 3, 30)
    wide, narrow = (np.linspace(0.4, 0.4 - reach, 30) for reach in (0.2, 0.002))
    laws = [fit_entropy_law(entropy, 80 - 30 * np.exp(entropy) + noise) for entropy in (wide, narrow)]
    assert laws[0].sd == pytest.approx(laws[1].sd, rel=0.1) and laws[1].a_se > 50 * laws[0].a_se
    widths = [np.ptp(law.interval([0.0])) for law in laws]
    assert widths[1] > 50 * widths[0]


def test_two_points_have_a_line_and_no_interval():
    law = fit_entropy_law([0.5, 0.4], [30.0, 40.0])
    assert law.predict([0.5, 0.4]).tolist() == pytest.approx([30, 40])
    assert law.a_se == law.sd == math.inf and law.interval([0.0]) == (-math.inf, math.inf)


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(RlinoError, match="two different entropies"):
        fit_entropy_law([0.4, 0.4], [30.0, 40.0])
    with pytest.raises(RlinoError, match="two different entropies"):
        fit_entropy_law([0.4, 0.5], [30.0, math.nan])
    with pytest.raises(RlinoError, match="group/short, training, has 1 entropies"):
        entropy_accuracy(run_of([0.5] * 20, [0.3] * 20, "group/short"))
    with pytest.raises(RlinoError, match="source"):
        entropy_accuracy(run_of([0.5, 0.4, 0.3], [0.3, 0.4, 0.5]), "hearsay")


def test_recorded_runs_have_a_row_each():
    runs = list_runs("countdown")[:3]
    table = entropy_law_table(runs)
    assert table["run"].tolist() == [run.name for run in runs]
    for run, row in zip(runs, table.itertuples(), strict=True):
        last = run.metrics.tail(row.n)
        assert row.measured == pytest.approx(100 * last["accuracy"].mean())
        assert row.predicted == pytest.approx(row.b - row.a * np.exp(last["entropy"]).mean())
        assert row.low < row.predicted < row.high and row.error == row.predicted - row.measured
