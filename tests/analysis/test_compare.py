"""Comparisons over seeds: intervals, equivalence, Holm, power, and equal budgets, against scipy, R and simulation."""

from itertools import combinations
from math import inf, sqrt

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from rlino_lib.analysis import statistics as c
from rlino_lib.errors import RlinoError
from rlino_lib.records.runs import Run
from rlino_lib.records.writer import RunWriter

# Student's sleep data (1908): hours that ten patients gained with each of two drugs; R's t.test example.
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
SLEEP = np.subtract(FIRST, SECOND)

points = st.integers(-3000, 3000).map(lambda k: k / 100)
samples = st.lists(points, min_size=2, max_size=8)
margins = st.integers(1, 3000).map(lambda k: k / 100)


def frame_of(**methods):
    """A frame of outcomes on one task: method=[value of seed 0, …]."""
    rows = [(m, "countdown", seed, value) for m, values in methods.items() for seed, value in enumerate(values)]
    return pd.DataFrame(rows, columns=["method", "task", "seed", "value"])


# --- runs ------------------------------------------------------------------------------------------------------------


def write_run(
    folder, method="grpo", seed=0, task="countdown", test=0.5, epochs=2, minibatches=3, curve=(0.1, 0.3, 0.2)
):
    """Four steps of 64 samples and 1.5 seconds, evaluated at steps 0, 2 and 4."""
    config = {"method": method, "task": task, "seed": seed, "epochs": epochs, "minibatches": minibatches}
    writer, evaluated = RunWriter(folder, config), dict(zip((0, 2, 4), curve, strict=True))
    for step in range(5):
        writer.metrics({"step": step, "samples": 64 * step, "eval/accuracy": evaluated.get(step)}, seconds=1.5 * step)
    writer.finish({"test": {"pass@1": {"value": test}}} if test is not None else {})
    return Run(folder)


def test_outcomes_are_test_accuracies_in_points(tmp_path):
    runs = [write_run(tmp_path / f"{m}{s}", m, s, test=0.5 + s / 8) for m in ("grpo", "rloo") for s in (0, 1)]
    found = c.outcomes(runs)
    assert list(found.columns) == ["method", "task", "seed", "value"]
    assert found["value"].tolist() == [50, 62.5] * 2 and found["method"].tolist() == ["grpo"] * 2 + ["rloo"] * 2
    early = c.outcomes(runs, value=lambda run: c.curve(run)["accuracy"][1], method=lambda run: run.method + "!")
    assert early["value"].tolist() == [30] * 4 and early["method"][0] == "grpo!"
    with pytest.raises(RlinoError, match="two runs of one method, task and seed: grpo, countdown, 0"):
        c.outcomes([runs[0], runs[0]])
    with pytest.raises(RlinoError, match="no evaluation on the test split"):
        c.outcomes([write_run(tmp_path / "untested", test=None)])
    with pytest.raises(RlinoError, match="no runs"):
        c.outcomes([])


def test_the_first_evaluation_that_reaches_an_accuracy(tmp_path):
    run = write_run(tmp_path / "run")  # 6 updates a step
    assert c.curve(run)["updates"].tolist() == [0, 12, 24] and c.curve(run)["seconds"].tolist() == [0, 3, 6]
    found = c.first_reaching(run, 20)
    assert found == {"step": 2, "samples": 128, "updates": 12, "seconds": 3, "accuracy": pytest.approx(30)}
    assert c.first_reaching(run, 5)["step"] == 0 and c.first_reaching(run, 30.1) is None


# --- pairs -----------------------------------------------------------------------------------------------------------


def test_students_data_give_the_numbers_of_r():
    found = c.compare(c.differences(frame_of(a=FIRST, b=SECOND), "a", "b"), margin=0.5)
    assert (found.n, found.mean) == (10, pytest.approx(-1.58))
    assert (found.low, found.high) == pytest.approx((-2.4598858, -0.7001142), abs=1e-7)
    assert found.p_difference == pytest.approx(0.002833, abs=1e-6) and found.verdict == "different"
    assert SLEEP.min() < found.boot_low < found.mean < found.boot_high < 0


@settings(max_examples=40, deadline=None)
@given(samples, margins)
def test_tests_and_intervals_are_those_of_scipy(d, margin):
    found = c.compare(d, margin)
    if np.ptp(d) == 0:
        assert (found.low, found.high, found.tost_low, found.boot_high) == pytest.approx((d[0],) * 4)
        return
    zeros = np.zeros(len(d))
    with np.errstate(all="ignore"):
        above, below = (
            scipy.stats.ttest_rel(d, zeros + bound, alternative=side).pvalue
            for bound, side in ((-margin, "greater"), (margin, "less"))
        )
        both = scipy.stats.ttest_rel(d, zeros)
    assert found.p_tost == pytest.approx(max(above, below)) and found.p_difference == pytest.approx(both.pvalue)
    for level, interval in ((0.95, (found.low, found.high)), (0.90, (found.tost_low, found.tost_high))):
        assert interval == pytest.approx(tuple(both.confidence_interval(level)))
    assert min(d) - 1e-9 <= found.boot_low <= found.boot_high <= max(d) + 1e-9
    assert found.verdict in c.VERDICTS


@given(samples, margins)
def test_a_verdict_is_where_the_intervals_lie(d, margin):
    found = c.compare(d, margin)
    edges = (found.low, found.high, found.tost_low - margin, found.tost_low + margin, found.tost_high - margin)
    if min(map(abs, edges)) < 1e-9:  # on an edge, rounding decides
        return
    inside, off_zero = -margin < found.tost_low and found.tost_high < margin, not found.low < 0 < found.high
    said = {(1, 0): "equivalent", (0, 1): "different", (1, 1): "different but within the margin", (0, 0): "undecided"}
    assert found.verdict == said[inside, off_zero]


@given(samples, margins, st.sampled_from([0.125, 2.0, 64.0]))
def test_scale_side_and_margin(d, margin, scale):
    found, d = c.compare(d, margin), np.array(d)
    scaled, swapped = c.compare(scale * d, scale * margin), c.compare(-d, margin)
    assert vars(swapped)["verdict"] == found.verdict == scaled.verdict
    for name in ("p_tost", "p_difference"):
        assert vars(scaled)[name] == pytest.approx(vars(found)[name])
        assert vars(swapped)[name] == pytest.approx(vars(found)[name])
    assert (scaled.mean, scaled.tost_low) == pytest.approx((scale * found.mean, scale * found.tost_low))
    assert (swapped.mean, swapped.low, swapped.high) == pytest.approx((-found.mean, -found.high, -found.low))
    assert c.tost(d, 1.5 * margin) <= found.p_tost + 1e-12


def test_each_verdict_has_its_case():
    cases = {
        "equivalent": [0.2, -0.3, 0.1, -0.1, 0.2], "different": [9.0, 8.5, 9.5, 9.2, 8.8],
        "different but within the margin": [1.0, 1.2, 0.9, 1.1, 0.8], "undecided": [8.0, -7.0, 3.0, -4.0, 1.0],
    }  # fmt: skip
    assert {name: c.compare(d, 3.0).verdict for name, d in cases.items()} == {name: name for name in cases}


def test_differences_that_all_agree_are_certain():
    same, off, edge = (c.compare([x] * 4, 3.0) for x in (0.0, 1.0, 3.0))
    assert (same.verdict, same.p_difference, same.p_tost) == ("equivalent", 1, 0)
    assert (off.verdict, off.p_difference, off.p_tost) == ("different but within the margin", 0, 0)
    assert (edge.verdict, edge.p_tost) == ("different", 1)


def test_one_seed_decides_nothing():
    found = c.compare([0.0], 3.0)
    assert (found.verdict, found.p_tost, found.p_difference) == ("undecided", 1, 1)
    assert (found.low, found.high, found.boot_low, found.tost_high) == (-inf, inf, -inf, inf)


def test_at_five_seeds_the_t_interval_covers_as_it_says_and_the_bootstrap_does_not():
    rng, times, hits = np.random.default_rng(2), 400, np.zeros(2)
    for _ in range(times):
        found = c.compare(rng.normal(0, 1, 5), 3.0)
        hits += (found.low <= 0 <= found.high, found.boot_low <= 0 <= found.boot_high)
    assert hits[0] / times == pytest.approx(0.95, abs=0.035) and 0.7 < hits[1] / times < 0.9


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda: c.differences(frame_of(a=[1, 2, 3], b=[1, 2]), "a", "b"), "only one of them has seed 2"),
        (lambda: c.differences(frame_of(a=[1], b=[1]), "a", "x"), "no run of 'x': there are a, b"),
        (lambda: c.differences(frame_of(a=[1], b=[1]).assign(task=["p", "q"]), "a", "b"), "one task at a time"),
        (lambda: c.compare([], 3.0), "at least one"),
        (lambda: c.compare([1.0, float("nan")], 3.0), "finite"),
        (lambda: c.compare([1.0, 2.0], 0.0), "above 0"),
        (lambda: c.tost_power(1, 1.0, 3.0), "n ≥ 2"),
        (lambda: c.difference_power(5, 0.0, 3.0), "sd > 0"),
        (lambda: c.seeds_needed(1.0, 3.0, alpha=0.5), "alpha"),
        (lambda: c.seeds_needed(1.0, 3.0, power=1.0), "power"),
        (lambda: c.seeds_needed(1.0, 3.0, tests=0), "one test or more"),
    ],
)
def test_what_cannot_be_compared_is_named(ask, says):
    with pytest.raises(RlinoError, match=says):
        ask()


# --- families --------------------------------------------------------------------------------------------------------


def test_holm_gives_the_published_values_of_r():
    """Raw and corrected values of R's multtest, as statsmodels' own tests hold them."""
    raw = [0.001, 0.002, 0.003, 0.004, 0.005, 0.05, 0.06, 0.07, 0.08, 0.09]
    assert c.holm(raw) == pytest.approx([0.01, 0.018, 0.024, 0.028, 0.03] + 5 * [0.25])
    assert c.holm([0.012, 0.004, 0.008, 0.002, 0.010, 0.006]) == pytest.approx(
        [0.024, 0.02, 0.024, 0.012, 0.024, 0.024]
    )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(p):
    """A hypothesis is rejected where Bonferroni rejects every intersection that it is part of."""
    places = range(len(p))
    sets = [s for size in range(1, len(p) + 1) for s in combinations(places, size)]
    closed = [max(min(1.0, len(s) * min(p[j] for j in s)) for s in sets if i in s) for i in places]
    assert c.holm(p) == pytest.approx(closed)


# --- power -----------------------------------------------------------------------------------------------------------


def simulated(n, sd, margin, difference, alpha, runs=20_000):
    """The shares of simulated experiments that find equivalence, and a difference."""
    d = np.random.default_rng(n).normal(difference, sd, (runs, n))
    mean, se = d.mean(1), d.std(1, ddof=1) / sqrt(n)
    inside = abs(mean) + scipy.stats.t.ppf(1 - alpha, n - 1) * se < margin
    return inside.mean(), (abs(mean) > scipy.stats.t.ppf(1 - alpha / 2, n - 1) * se).mean()


@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize(
    ("n", "sd", "difference"),
    [(2, 1.0, 0.0), (3, 2.0, 0.5), (5, 2.0, 1.0), (8, 4.0, 0.0), (20, 3.0, -2.0), (5, 2.0, 5.0)],
)
def test_power_is_what_simulation_finds(n, sd, difference, alpha):
    equivalent, different = simulated(n, sd, 3.0, difference, alpha)
    within = 4 * sqrt(0.25 / 20_000)  # four standard errors, at their widest
    assert c.tost_power(n, sd, 3.0, difference, alpha) == pytest.approx(equivalent, abs=within)
    if difference:
        assert c.difference_power(n, sd, difference, alpha) == pytest.approx(different, abs=within)


def test_an_effect_of_many_standard_errors_is_found_for_certain():
    """Where scipy's noncentral t has no number for the empty tail."""
    found = [c.difference_power(n, 0.5, 6.0) for n in (2, 3, 8, 12, 40)]
    assert 0.8 < found[0] < found[1] <= 1 and found[2:] == pytest.approx([1.0] * 3)


def test_at_the_margin_equivalence_is_found_as_often_as_alpha_says_and_no_more():
    rng, times = np.random.default_rng(1), 1000
    hits = sum(c.tost(rng.normal(3.0, 1.0, 6), margin=3.0) < 0.05 for _ in range(times))
    assert hits / times == pytest.approx(0.05, abs=3 * sqrt(0.05 * 0.95 / times))
    assert c.tost_power(6, 1.0, 3.0, 3.0) == pytest.approx(0.05, abs=1e-3)
    assert all(c.tost_power(n, sd, 3.0, 3.0) <= 0.05 for n in (2, 5, 30) for sd in (0.1, 1.0, 10.0))


@given(st.integers(2, 200), st.floats(0.5, 5), st.floats(0.01, 0.2))
@settings(deadline=None)
def test_a_wide_margin_leaves_one_side_and_the_noncentral_t(n, sd, alpha):
    """Far from one bound the two tests are one, whose power has a closed form."""
    far, gap = 1e4, 1.5
    t, shift = scipy.stats.t.ppf(1 - alpha, n - 1), gap * sqrt(n) / sd
    one_sided = scipy.stats.nct.sf(t, n - 1, shift)
    assert c.tost_power(n, sd, far, far - gap, alpha) == pytest.approx(one_sided, abs=1e-7)


def test_the_least_number_of_seeds_is_the_least():
    for sd, margin, difference in ((2.0, 3.0, 0.0), (2.0, 3.0, 1.0), (2.0, 1.0, 0.0), (5.0, 3.0, 2.0)):
        n = c.seeds_needed(sd, margin, difference)
        assert c.tost_power(n, sd, margin, difference) >= 0.8 > c.tost_power(n - 1, sd, margin, difference)
    n = c.seeds_needed(2.0, 3.0, 5.0)  # beyond the margin, that it is beyond it is to be found
    assert c.difference_power(n, 2.0, 5.0 - 3.0) >= 0.8 > c.difference_power(n - 1, 2.0, 5.0 - 3.0)
    assert c.seeds_needed(2.0, 3.0, -1.0) == c.seeds_needed(2.0, 3.0, 1.0)
    assert c.seeds_needed(2.0, 1.0) > c.seeds_needed(2.0, 3.0)
    assert c.seeds_needed(2.0, 3.0, 3.0) is None and c.seeds_needed(1e6, 3.0) is None


def test_a_family_needs_more_seeds_than_a_test_alone():
    """Holm's correction leaves α/3 to the first of three tests that have not passed."""
    assert c.seeds_needed(2.0, 3.0, 1.0, tests=3) == c.seeds_needed(2.0, 3.0, 1.0, alpha=0.05 / 3)
    assert c.seeds_needed(2.0, 3.0, 1.0, tests=3) > c.seeds_needed(2.0, 3.0, 1.0)


@given(samples, margins)
def test_beyond_the_margin_is_an_interval_that_lies_outside(d, margin):
    found, alpha = c.beyond(d, margin), 0.05
    low, high = c.t_interval(d, 1 - alpha)
    if np.ptp(d) == 0 or min(abs(low - margin), abs(high + margin)) < 1e-9:
        return
    assert (found < alpha) == (low > margin or high < -margin)
    assert not (found < alpha and c.tost(d, margin) < alpha)


def test_within_and_beyond_the_margin_is_not_all_there_is():
    assert c.beyond([4.1, 5.9, 3.8, 5.2, 6.6], 3.0) < 0.05 and c.beyond([-4.1, -5.9, -3.8, -5.2, -6.6], 3.0) < 0.05
    different = [4.0, 2.0, 4.5, 2.5, 3.5]  # from 0 for certain, and perhaps not by more than the margin
    assert c.t_test(different) < 0.01 and c.beyond(different, 3.0) > 0.3 and c.tost(different, 3.0) > 0.3
    assert c.beyond([4.0], 3.0) == 1
