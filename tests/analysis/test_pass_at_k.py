"""pass@k against its definition, its error against the binomial, and intervals by simulation."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from rlino_lib.analysis.pass_at_k import (
    estimates,
    mean_interval,
    paired_difference,
    pass_at_k,
    pass_at_k_table,
    true_pass_at_k,
    unsolved_bound,
)
from rlino_lib.analysis.statistics import bootstrap_interval
from rlino_lib.errors import RlinoError


@given(st.integers(1, 8), st.data())
def test_it_is_the_share_of_choices_with_a_right_sample(n, data):
    c = data.draw(st.integers(0, n))
    k = data.draw(st.integers(1, n))
    choices = list(combinations(range(n), k))  # samples below c are right
    assert pass_at_k(n, c, k) == pytest.approx(sum(min(choice) < c for choice in choices) / len(choices))


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 0), (4, 2, 5)])
def test_counts_that_cannot_be_are_refused(n, c, k):
    with pytest.raises(RlinoError, match="pass@k needs"):
        pass_at_k(n, c, k)


def expectation(n, p, values):
    return float(scipy.stats.binom.pmf(np.arange(n + 1), n, p) @ values)


@given(st.integers(1, 300), st.sampled_from([0.0, 1e-6, 1.0]) | st.floats(1e-3, 0.999), st.data())
def test_its_expectation_over_the_samples_is_the_truth(n, p, data):
    k = data.draw(st.integers(1, n))
    every = estimates(n, np.arange(n + 1), [k])[:, 0]
    assert expectation(n, p, every) == pytest.approx(true_pass_at_k(p, [k])[0], abs=1e-10)
    assert (np.diff(every) >= 0).all() and every[0] == 0 and every[n] == 1


@pytest.mark.parametrize(("n", "k", "bias"), [(64, 64, -0.14), (1024, 64, -0.010)])
def test_the_plug_in_is_biased_down_by_as_much_as_is_stated(n, k, bias):
    plug_in = true_pass_at_k(np.arange(n + 1) / n, [k])[:, 0]
    error = expectation(n, 0.01, plug_in) - true_pass_at_k(0.01, [k])[0]
    assert error == pytest.approx(bias, abs=0.5 * 10 ** -len(str(bias).split(".")[1]))


def test_estimates_of_many_problems_are_those_of_each():
    table = estimates([8, 8, 4], [0, 3, 4], [1, 4])
    assert table.tolist() == [[pass_at_k(n, c, k) for k in (1, 4)] for n, c in ((8, 0), (8, 3), (4, 4))]
    assert estimates(8, [0, 3], [2]).shape == (2, 1)


def test_none_right_bounds_the_chance():
    assert [round(100 * unsolved_bound(n), 2) for n in (64, 256, 1024)] == [4.57, 1.16, 0.29]
    assert (1 - unsolved_bound(100)) ** 100 == pytest.approx(0.05)


# --- curves ----------------------------------------------------------------------------------------------------------


def counts(p, n, rng):
    return pd.DataFrame({"id": np.arange(len(p)).astype(str), "n": n, "c": rng.binomial(n, p)})


def test_a_table_holds_the_means_and_bootstrap_intervals_over_problems():
    frame = counts(np.linspace(0.02, 0.6, 40), 32, np.random.default_rng(0))
    table = pass_at_k_table(frame)
    assert table["k"].tolist() == [1, 2, 4, 8] and list(table) == ["k", "pass_at_k", "low", "high"]
    for row in table.itertuples():
        values = [pass_at_k(32, c, row.k) for c in frame["c"]]
        assert row.pass_at_k == pytest.approx(np.mean(values)) and (row.low, row.high) == bootstrap_interval(values)


def test_too_few_samples_for_k_are_refused_unless_asked_for():
    frame = counts(np.full(20, 0.3), 64, np.random.default_rng(0))
    assert pass_at_k_table(frame, [16])["k"].tolist() == [16]
    with pytest.raises(RlinoError, match=r"pass@32 needs 128 samples of each problem \(4·k\), not 64"):
        pass_at_k_table(frame, [1, 32])
    assert pass_at_k_table(frame, oversampling=1)["k"].max() == 64
    with pytest.raises(RlinoError, match="pass@128 needs 128"):
        pass_at_k_table(frame, [128], oversampling=1)
    with pytest.raises(RlinoError, match="pass@64"):
        paired_difference(frame, frame, [64])


def test_intervals_over_problems_cover_the_truth():
    """Problems drawn anew with their chances, samples drawn in each: both parts of the error are in the interval."""
    rng = np.random.default_rng(1)
    ks = [1, 4, 16]
    truth = true_pass_at_k(rng.beta(0.5, 4, 200_000), ks).mean(0)
    inside = np.zeros(3)
    for _ in range(100):
        table = pass_at_k_table(counts(rng.beta(0.5, 4, 50), 64, rng), ks)
        inside += (table["low"] <= truth) & (truth <= table["high"])
    assert (inside >= 87).all() and inside.mean() <= 99


@pytest.mark.parametrize("rate", [0.002, 0.01, 0.99, 0.998])
def test_intervals_cover_rates_near_0_and_1(rate):
    """A bootstrap alone would hold these rates in fewer than two of three samples of problems."""
    rng = np.random.default_rng(2)
    samples = [(rng.random(100) < rate).astype(float) for _ in range(300)]
    inside = [low <= rate <= high for low, high in map(mean_interval, samples)]
    assert np.mean(inside) >= 0.93
    assert mean_interval(np.ones(100)) == pytest.approx((0.025**0.01, 1))
    assert mean_interval(np.zeros(100)) == pytest.approx((0, 1 - 0.025**0.01))
    low, high = mean_interval(np.full(100, 0.01) + 0.001 * rng.random(100))
    assert 0.01 < low < high < 0.011  # a small share of every problem is no rate near 0


# --- in pairs --------------------------------------------------------------------------------------------------------


def test_pairs_are_resampled_together():
    """Problems differ far more than the two models do: in pairs the difference is seen, apart it is not."""
    rng = np.random.default_rng(3)
    p = rng.uniform(0.1, 0.8, 60)
    before, after = counts(p, 1024, rng), counts(p + 0.05, 1024, rng)
    row = paired_difference(after, before.sample(frac=1, random_state=0), [1]).iloc[0]
    assert row["difference"] == pytest.approx(row["pass_at_k"] - row["reference"])
    assert 0.04 < row["low"] < row["difference"] < row["high"] < 0.06  # of 60 small gains none carries the sum
    apart = [pass_at_k_table(f, [1]).iloc[0] for f in (before, after)]
    assert apart[1]["low"] < apart[0]["high"]


def test_of_several_seeds_the_mean_of_each_problem_is_compared():
    rng = np.random.default_rng(4)
    p = rng.uniform(0.1, 0.8, 40)
    base, *seeds = (counts(q, 256, rng) for q in (p, p + 0.02, p + 0.06))
    together = paired_difference([seeds[0], seeds[1].sample(frac=1, random_state=0)], base, [1, 8])
    apart = [paired_difference(seed, base, [1, 8]) for seed in seeds]
    assert together["difference"].tolist() == pytest.approx(sum(t["difference"] for t in apart).div(2).tolist())
    mean = [(pass_at_k(256, a, 8) + pass_at_k(256, b, 8)) / 2 - pass_at_k(256, c, 8)
            for a, b, c in zip(seeds[0]["c"], seeds[1]["c"], base["c"], strict=True)]  # fmt: skip
    assert tuple(together.loc[1, ["low", "high"]]) == pytest.approx(bootstrap_interval(mean))


def test_a_difference_of_few_problems_is_not_a_point():
    frame = counts(np.ones(50), 16, np.random.default_rng(0))
    row = paired_difference(frame, frame, [1]).iloc[0]
    assert row["difference"] == 0 and row["low"] == -row["high"] and 0.05 < row["high"] < 0.1
    lost = frame.assign(c=frame["c"].where(frame["id"] != "3", 0))
    row = paired_difference(lost, frame, [1]).iloc[0]
    assert row["difference"] == -0.02 and row["low"] < -0.02 < row["high"] and row["high"] > 0


def test_pairs_need_the_same_problems():
    frame = counts(np.full(3, 0.5), 16, np.random.default_rng(0))
    for other in (frame[:2], frame.replace("2", "x"), pd.concat([frame, frame[:1]])):
        with pytest.raises(RlinoError, match="the same problems"):
            paired_difference(frame, other, [1])
