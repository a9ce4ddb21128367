"""Chapter 13's analysis: against numbers computed by another hand, and on data whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from rlino_lib.analysis import real
from rlino_lib.analysis.growth import base_length, base_problems
from rlino_lib.errors import RlinoError
from rlino_lib.records.real import TABLES, real_table, sources, visits

DIFFICULTY = ["gold_steps", "gold_characters", "question_characters"]
PROBLEM = ["task", "problem"]
# Computed independently from the source files, by another hand: rounded, intervals by another bootstrap.
GSM8K = {
    "Rho-1 1B": ((89, 57, 122), (20, -11, 50)),
    "Rho-1 7B": ((96, 60, 139), (46, 9, 85)),
    "Qwen2.5-3B-Instruct": ((218, 168, 270), (129, 78, 183)),
}


def agrees(found: real.Estimate, expected: tuple[float, float, float], edge: float) -> bool:
    """The value to rounding, the ends of the interval to what bootstraps differ by."""
    return abs(found.value - expected[0]) <= 0.5 and np.allclose(found[1:], expected[1:], atol=edge)


# ---- against the other hand ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("model", GSM8K)
def test_wrong_is_longer_pooled_and_with_difficulty_held(model):
    frame = real_table("gsm8k").query("model == @model")
    assert len(frame) == 1319
    pooled, held = GSM8K[model]
    assert agrees(real.estimate(real.length_gap(frame, "characters")), pooled, 4)
    assert agrees(real.estimate(real.length_gap(frame, "characters", DIFFICULTY)), held, 4)


def test_the_arithmetic_tasks_are_those_of_the_file():
    """The other hand had 21 tasks, 425 mixed problems, pooled +128, within +1.7 [−26, 33]; this file has 15 tasks."""
    frame = real_table("arithmetic")
    within = real.within_gaps(frame, "characters", PROBLEM)
    assert (frame["task"].nunique(), len(frame), len(within)) == (15, 4500, 290)
    pooled = real.estimate(real.clustered_gap(frame, "characters", PROBLEM))
    inside = real.estimate(real.mean_of(within))
    assert pooled.low > 70 and inside.low < 0 < inside.high < pooled.low
    assert inside.low < 1.7 < inside.high and -26 < inside.value < 33


def test_truncation_is_nine_tenths_of_it():
    frame = real_table("countdown").query("model == 'GRPO'")
    cut = real.truncation(frame["correct"], frame["truncated"], frame["tokens"])
    assert (round(cut.wrong), round(cut.right), round(cut.whole)) == (976, 225, 306)
    assert (cut.truncated, cut.wrongs) == (263, 282)
    shares = [cut.share]
    for runs in real.own_runs().values():
        own = pd.concat([run.responses[run.responses["final"]] for run in runs])
        shares.append(real.truncation(own["correct"], own["clipped"], own["length"]).share)
    assert all(0.85 < share < 0.95 for share in shares) and len(shares) == 3


def test_logs_by_quarter():
    logs = real_table("countdown_logs")
    own = real.by_quarter(logs[logs["run"] == "grpo"], ["accuracy", "tokens"])
    assert own["accuracy"].iloc[[0, -1]].round(2).tolist() == [0.68, 0.79]
    assert own["tokens"].iloc[[0, -1]].round().tolist() == [457, 395]
    trl = logs[logs["run"] == "grpo_trl"]
    assert len(trl) == 49
    parts = [trl.iloc[:12], trl.iloc[36:48]]  # as the other hand cut it: four times twelve, the last row left out
    assert [round(part["tokens"].mean()) for part in parts] == [449, 399]
    assert np.allclose([part["accuracy"].mean() for part in parts], [0.75, 0.83], atol=0.0051)


def test_length_grows_while_the_reward_falls():
    log = real_table("math_logs").query("run == 'no_kl'").set_index("step")
    early, late = log.loc[51:100].mean(numeric_only=True), log.loc[201:300].mean(numeric_only=True)
    assert (round(early["tokens"]), round(late["tokens"])) == (440, 705)
    assert (round(early["reward"], 2), round(late["reward"], 2)) == (0.74, 0.34)
    assert (round(early["entropy"], 2), round(late["entropy"], 1)) == (0.14, 4.2)
    assert real_table("math_logs").groupby("run")["step"].apply(lambda steps: steps.is_unique).all()


def test_grpo_beside_filtered_sft():
    models = dict(list(real_table("countdown").groupby("model")))
    shares = {name: round(frame["correct"].mean(), 3) for name, frame in models.items()}
    assert shares == {"Qwen3-0.6B": 0.0, "SFT": 0.352, "RFT": 0.376, "GRPO": 0.436}
    gap = real.paired(models["GRPO"], models["RFT"])
    assert gap.value == pytest.approx(6.0) and np.allclose(gap[1:], (2.2, 9.8), atol=0.5)


def test_signal_by_visit():
    table = real.signal_by_visit(visits())
    assert len(table) == 44 and np.allclose(table.sum(axis=1), 1)
    assert table.iloc[0].round(3).tolist() == [0.363, 0.561, 0.076]
    assert table.iloc[-1].round(3).tolist() == [0.276, 0.503, 0.221]


def test_gains_of_three_bins_as_they_were_known():
    """The other hand measured the start on visits 2 and 4, and the end on the last five of the first 44."""
    shares = np.array([v[:44] for v in visits()])
    place = real.bin_of(shares[:, [0, 2, 4]].mean(1))
    for name, start, end in (("none", 0.015, 0.029), ("to 1/3", 0.24, 0.44), ("to 5/8", 0.48, 0.73)):
        own = shares[place == real.BINS.index(name)]
        assert own[:, [1, 3]].mean() == pytest.approx(start, abs=0.005)
        assert own[:, -5:].mean() == pytest.approx(end, abs=0.005)


# ---- the records -----------------------------------------------------------------------------------------------------
def test_the_records_are_small_and_whole():
    assert sum(map(len, visits())) == 64_000 and {len(v) for v in visits()} <= set(range(44, 58))
    assert all(0 <= share <= 1 for v in visits() for share in v)
    assert len(sources()) == 5 and set(sources()["license"]) == {"MIT", "Apache-2.0"}
    for name in TABLES:
        assert not real_table(name).empty
    with pytest.raises(RlinoError, match="unknown table"):
        real_table("../secrets")


def test_a_table_that_is_changed_does_not_change_the_next():
    frame = real_table("gsm8k")
    frame["correct"] = False
    assert real_table("gsm8k")["correct"].any()


# ---- on data whose answer is known -----------------------------------------------------------------------------------
def test_difficulty_that_makes_the_whole_gap_is_held():
    rng = np.random.default_rng(0)
    hard = rng.normal(size=2000)
    frame = pd.DataFrame({"hard": hard, "correct": rng.random(2000) < expit(-2 * hard)})
    frame["length"] = 100 + 30 * hard + rng.normal(0, 5, 2000)
    pooled, held = (real.estimate(real.length_gap(frame, "length", names)) for names in ((), ("hard",)))
    assert pooled.low > 20 and held.low < 0 < held.high and held.high - held.low < 2
    right, wrong = (frame.loc[frame["correct"] == side, "length"].mean() for side in (True, False))
    assert pooled.value == pytest.approx(wrong - right)


def test_pooled_and_within_can_have_opposite_signs():
    rows = [("easy", 0, True, 10), ("easy", 0, True, 11), ("easy", 0, False, 7)]
    rows += [("hard", 0, True, 42), ("hard", 0, False, 40), ("hard", 0, False, 38), ("never", 0, False, 60)]
    frame = pd.DataFrame(rows, columns=["task", "problem", "correct", "length"])
    within = real.within_gaps(frame, "length", PROBLEM)
    assert within.tolist() == [-3.5, -3.0]
    assert real.clustered_gap(frame, "length", PROBLEM)[0] == pytest.approx(36.25 - 21)


def test_a_base_of_the_book_has_both_gaps():
    (own, between) = real.own_runs().values()
    base = base_problems(own[0])
    found = real.base_gaps(base)
    assert found["pooled"].value == pytest.approx(base_length(base, "wrong") - base_length(base, "right"))
    assert 0 < found["within"].low < found["within"].value < found["pooled"].value
    assert (len(own), len(between)) == (5, 5)


def test_moving_along_a_curve():
    z = np.array([-2.0, 0.0, 1.5])
    assert np.allclose(logit(real.moved(expit(z), 0.7, real.ALIKE)), z + 0.7, atol=1e-6)
    for curve, weight in ((real.WEIGHT, lambda p: np.sqrt(p * (1 - p))), ("p(1−p)", lambda p: p * (1 - p))):
        step = 1e-3
        p = expit(z)
        speed = (logit(real.moved(p, step, curve)) - logit(real.moved(p, -step, curve))) / (2 * step)
        assert np.allclose(speed, weight(p), rtol=1e-3), curve


@pytest.mark.parametrize("curve", [real.WEIGHT, real.ALIKE])
def test_the_curve_that_moved_the_prompts_is_the_nearer_one(curve):
    rng = np.random.default_rng(1)
    p = expit(rng.normal(0, 2.5, 1200))
    after = real.moved(p, 2.0 if curve == real.WEIGHT else 1.0, curve)
    made = [[*(rng.binomial(8, q, 6) / 8), *(rng.binomial(8, r, 38) / 8)] for q, r in zip(p, after, strict=True)]
    found = real.gains_by_visits(made)
    share = real.nearer(found)
    assert share > 0.9 if curve == real.WEIGHT else share < 0.1
    assert real.rank_correlations(found)[0] > 0.7  # of both: an inverted U of gains does not tell them apart


def test_without_learning_bins_gain_nothing_though_luck_sorted_them():
    rng = np.random.default_rng(2)
    p = expit(rng.normal(0, 2.5, 2000))
    made = [list(rng.binomial(8, q, 44) / 8) for q in p]
    table = real.gains_by_visits(made).table()
    assert table["gain"].abs().max() < 0.03
    sorted_by = np.array([v[:6] for v in made])[:, [0, 2, 4]].mean(1)
    end = np.array([np.mean(v[-6:]) for v in made])
    naive = pd.Series(end - sorted_by).groupby(real.bin_of(sorted_by)).mean()
    assert naive.iloc[0] > 0.01 and naive.iloc[-1] < -0.01  # regression to the mean


def test_bins_are_those_of_the_ledger():
    names = [real.BINS[b] for b in real.bin_of(np.arange(25) / 24)]
    counts = {name: names.count(name) for name in real.BINS}
    assert list(counts.values()) == [1, 3, 5, 7, 5, 3, 1]


def test_halves_of_a_count_are_two_samples():
    right = np.random.default_rng(0).binomial(64, 0.3, 4000)
    one, other = real.halves(right, 64)
    assert np.allclose(32 * (one + other), right)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.06 and one.mean() == pytest.approx(0.3, abs=0.01)


def test_an_estimate_needs_a_resample():
    with pytest.raises(RlinoError, match="no resample"):
        real.estimate(np.array([1.0, np.nan]))
    assert real.Estimate(89.2, 57, 121.6).words() == "+89 [+57, +122]"
