"""Tables of coverage by hand, the leash's rates by their definitions, and the theorem on tilting."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rlino_lib.analysis.coverage import (
    changes,
    compare_models,
    coverage,
    discoveries,
    fitted_tilt,
    leash,
    moved,
    tilted,
)
from rlino_lib.errors import RlinoError


def frame_of(c, n=100):
    return pd.DataFrame({"id": [f"p{k}" for k in range(len(c))], "n": n, "c": c})


BASE = frame_of([5, 3, 0, 0, 1])
MODEL = frame_of([90, 0, 2, 0, 50])


def test_the_four_cells():
    again = frame_of([4, 3, 0, 0, 0])
    table = coverage(BASE, {"trained": MODEL, "base again": again})
    assert table.loc["trained"].tolist() == [2, 1, 1, 1, 5, 100]
    assert table.loc["base again"].tolist() == [2, 1, 0, 2, 5, 100]
    with pytest.raises(RlinoError, match="one number of samples"):
        coverage(BASE, {"trained": frame_of([1] * 5, n=200)})
    with pytest.raises(RlinoError, match="the same problems"):
        coverage(BASE, {"trained": MODEL[:3]})


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30))
def test_the_leash_by_its_definitions(pairs):
    base, model = (frame_of(list(c), n=4) for c in zip(*pairs, strict=True))
    cells = coverage(base, {"m": model})
    assert cells.loc["m", ["both", "base_only", "model_only", "neither"]].sum() == len(pairs)
    rates = leash(cells).loc["m"]
    p, s, e = (int(cells.loc["m", name]) for name in ("both", "base_only", "model_only"))
    assert (p + s > 0) == (not math.isnan(rates["srr"])) and (p + e > 0) == (not math.isnan(rates["ndr"]))
    assume(p and e)
    harmonic = 2 / (1 / rates["srr"] + 1 / rates["ndr"])
    assert rates["sds"] == pytest.approx(harmonic) and 0 < rates["srr"] <= 1 and 0 < rates["ndr"] <= 1
    mirrored = leash(coverage(model, {"b": base})).loc["b"]
    assert mirrored["nscr"] == -rates["nscr"] and mirrored["srr"] == pytest.approx(1 - rates["ndr"])


def test_a_discovery_stays_unsolved_with_four_times_the_samples():
    more = pd.concat([frame_of([0, 0, 0, 9, 0], n=150)] * 2)  # two further evaluations
    table = discoveries(BASE, MODEL, more)
    assert table.index.tolist() == ["p2"]
    row = table.iloc[0]
    assert (row["p"], row["n"], row["c"], row["stays"]) == (0.02, 400, 0, True)
    assert (1 - row["bound"]) ** 400 == pytest.approx(0.05)
    solved = discoveries(BASE, MODEL, frame_of([0, 0, 1, 0, 0], n=300)).iloc[0]
    assert not solved["stays"] and math.isnan(solved["bound"])
    for few in (more[:5], more[more["id"] != "p2"]):
        with pytest.raises(RlinoError, match="1 problems need 4 times as many samples of the base, such as p2"):
            discoveries(BASE, MODEL, few)


def test_changes_in_pooled_standard_errors():
    z = changes(frame_of([30, 0, 100, 50]), frame_of([20, 0, 100, 100], n=100))
    assert z["p0"] == pytest.approx(0.1 / math.sqrt(0.25 * 0.75 * 2 / 100))
    assert z["p1"] == z["p2"] == 0 and z["p3"] < -8
    table = moved(BASE, {"trained": MODEL, "same": BASE})
    assert table.loc["trained"].tolist() == [0, 0.4, 5] and table.loc["same"].tolist() == [0, 0, 5]


def test_of_the_base_sampled_again_one_in_twenty_moves():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.1, 0.9, 4000)
    base, again = (frame_of(rng.binomial(256, p), n=256) for _ in range(2))
    row = moved(base, {"again": again}).loc["again"]
    assert row["fell"] + row["rose"] == pytest.approx(0.0455, abs=0.012)


# --- tilting ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(1e-4, 1e6))
def test_ideal_tilting_lowers_no_problems_chance(ps, beta):
    p = np.array(ps)
    after = tilted(p, beta)
    assert (after >= p * (1 - 1e-15)).all() and (after <= 1).all()
    assert (after[p == 0] == 0).all() and (after[p == 1] == 1).all()
    assert (np.diff(after[np.argsort(p)]) >= -1e-15).all()  # nor does it change their order


@given(st.floats(0.001, 0.999), st.floats(0.05, 20))
def test_the_tilt_is_the_optimum_of_reward_and_kl(p, beta):
    """Of a policy that succeeds with chance q: q − β·KL(q‖p), and by the formula with the exponential."""
    q = float(tilted(p, beta))
    w = math.exp(1 / beta)
    assert q == pytest.approx(p * w / (1 + p * (w - 1)), rel=1e-9)

    def value(q):
        return q - beta * (q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p)))

    assume(1e-9 < q < 1 - 1e-9)
    assert all(value(q) >= value(other) - 1e-12 for other in (q * 0.99, q + (1 - q) * 0.01, p))


@given(st.lists(st.integers(1, 99), min_size=2, max_size=10), st.floats(0.2, 50), st.sampled_from([-1, 1]))
def test_the_tilt_of_a_model_is_fitted_to_its_mean(counts, size, sign):
    base = frame_of(counts)
    exact = tilted(base["c"] / 100, sign * size)
    model = frame_of(np.round(1e9 * exact).astype(int), n=10**9)
    beta = fitted_tilt(base, model)
    assert 1 / beta == pytest.approx(sign / size, abs=1e-5)
    assert tilted(base["c"] / 100, beta).mean() == pytest.approx((model["c"] / model["n"]).mean())


def test_no_tilt_solves_what_has_no_chance():
    base = frame_of([0, 50])
    assert fitted_tilt(base, base) == math.inf and tilted([0, 0.5], math.inf).tolist() == [0, 0.5]
    with pytest.raises(RlinoError, match="no tilt of the base"):
        fitted_tilt(base, frame_of([50, 60]))
    with pytest.raises(RlinoError, match="β other than 0"):
        tilted(0.5, 0)


# --- each against each other -----------------------------------------------------------------------------------------


def test_each_model_is_compared_with_each_other_one_both_ways():
    frames = {"a": frame_of([0, 10, 60]), "b": frame_of([0, 50, 20])[::-1], "c": frame_of([1, 10, 60])}
    compared = compare_models(frames, floor=[0, 0.5, 1])
    assert compared.ks == [1, 2, 4, 8, 16] and set(compared.pairs) == {(a, b) for a in "abc" for b in "abc" if a != b}
    assert compared.chances[:, 0] == pytest.approx(np.array([[0, 0.1, 0.6], [0, 0.5, 0.2], [0.01, 0.1, 0.6]]))
    there, back = compared.pairs["a", "b"], compared.pairs["b", "a"]
    assert (there.moves, back.moves, compared.pairs["a", "c"].moves) == ("012", "021", "000")
    assert there.gaps["difference"].tolist() == (-back.gaps["difference"]).tolist()
    assert there.gaps[["low", "high"]].to_numpy().tolist() == (-back.gaps[["high", "low"]]).to_numpy().tolist()
    assert compared.pairs["a", "c"].cells["model_only"] == 1 == compared.pairs["c", "a"].cells["base_only"]
    assert compared.guess.tolist() == pytest.approx([(1 - 0.5**k + 1) / 3 for k in compared.ks])
