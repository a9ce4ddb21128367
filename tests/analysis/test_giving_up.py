"""The rate of giving up: which attempts are at risk, what the cap does to it, and how claims are judged by it."""

from __future__ import annotations

import gzip
import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from rlino_lib.analysis.giving_up import GivingUp, false_yes_share, giving_up, log_ratios, share_of_fall
from rlino_lib.analysis.growth import final_responses, first_responses
from rlino_lib.analysis.statistics import median_coverage, median_interval
from rlino_lib.claims.judge import judge
from rlino_lib.claims.ledger import Records, read_ledger
from rlino_lib.claims.length import giving_up_ratios, length_runs
from rlino_lib.claims.length_answers import answers, giving_up_in_words
from rlino_lib.claims.verdicts import FAILS, HOLDS, UNDECIDED, UNTESTED
from rlino_lib.errors import RlinoError
from rlino_lib.tasks import get_task
from rlino_lib.tasks.base import Problem

PROBLEM = Problem("countdown/2-3-4=20", {"nums": [2, 3, 4], "target": 20})
MISS = " 4 + 3 = 7, 7 + 2 = 9"
HIT = " 3 + 2 = 5, 5 * 4 = 20"
RIGHT = " </think> <answer> ( 3 + 2 ) * 4 </answer>"
WRONG = " </think> <answer> ( 4 + 3 ) + 2 </answer>"


def responses(*texts: str, cut: bool = False) -> pd.DataFrame:
    """Texts as a run records them."""
    task = get_task("countdown")
    rows = [
        {"correct": task.grade(PROBLEM, text).correct, "clipped": cut, **task.counts(PROBLEM, text)} for text in texts
    ]
    return pd.DataFrame(rows).astype({"first_hit": float})


@pytest.mark.parametrize(
    ("text", "cut", "failed", "ended", "false_yes"),
    [
        (f"{MISS} no\n{MISS} no{WRONG}", False, 2, 1, 0),  # gives up
        (f"{MISS} no\n{MISS} no\n{HIT} yes{RIGHT}", False, 2, 0, 0),
        (f"{HIT} yes{RIGHT}", False, 0, 0, 0),
        (f"{MISS} no\n{MISS} yes{WRONG}", False, 2, 1, 1),  # a false yes ends it as well
        (f"{MISS} yes\n{MISS} no\n{HIT} yes{RIGHT}", False, 2, 0, 0),  # and where it does not end it, it does not count
        (f"{MISS} no\n{HIT} no\n{MISS} no{WRONG}", False, 1, 0, 0),  # an overlooked hit: nothing after it is at risk
        (f"{MISS} no\n{HIT} no{WRONG}", False, 1, 0, 0),
        (f"{MISS} no\n 3 + 2 = 6, 6 * 4 = 24 yes{RIGHT}", False, 1, 0, 0),  # slips, but the answer is right
        (f"{MISS} no\n{MISS} no\n", True, 1, 0, 0),  # cut: what would have followed the last one is not known
        (f"{MISS} no\n{MISS} no\n 4 + 3 = 7,", True, 2, 0, 0),  # the third had begun
        (f"{MISS} no\n{HIT} no\n{MISS} no\n", True, 1, 0, 0),
        (WRONG, False, 0, 0, 0),  # no attempt at all
        ("", True, 0, 0, 0),
    ],
)
def test_what_is_at_risk(text, cut, failed, ended, false_yes):
    known = responses(f"{MISS} no{WRONG}")  # one failed attempt that ended it: there is always something at risk
    counts = giving_up(pd.concat([known, responses(text, cut=cut)]))
    assert counts == GivingUp(failed + 1, ended + 1, false_yes)
    assert counts.rate == (ended + 1.5) / (failed + 2)


def test_without_failed_attempts_or_counts_there_is_no_rate():
    with pytest.raises(RlinoError, match="failed attempt"):
        giving_up(responses(f"{HIT} yes{RIGHT}"))
    with pytest.raises(RlinoError, match="counted in attempts"):
        giving_up(pd.DataFrame({"correct": [False], "clipped": [False]}))


def simulated(cap: int, gives_up: float, hits: float, n: int = 40_000, seed: int = 0) -> pd.DataFrame:
    """Searches of attempts of 12 tokens with constant rates, their ending of 11 tokens, and the cap."""
    rng = np.random.default_rng(seed)
    begun = (cap - 5) // 12 + 1  # what counts as an attempt has its first step
    hit = rng.geometric(hits, n)
    stop = rng.geometric(gives_up, n)
    hit = np.where((12 * hit <= cap) & (hit <= stop), hit, np.nan)
    last = np.fmin(hit, stop)
    attempts = np.minimum(last, begun)
    tokens = 12 * attempts + 11 * (last <= begun)
    cut = (tokens > cap) | (np.isnan(hit) & (last > begun))
    columns = {"correct": ~np.isnan(hit) & ~cut, "clipped": cut, "attempts": attempts, "first_hit": hit, "false_yes": 0}
    return pd.DataFrame(columns)


@pytest.mark.parametrize("cap", [76, 112, 304])
def test_the_rate_does_not_know_the_cap(cap):
    for gives_up, hits in ((0.02, 0.12), (0.4, 0.12)):
        frame = simulated(cap, gives_up, hits)
        counts = giving_up(frame)
        error = math.sqrt(gives_up * (1 - gives_up) / counts.failed)
        assert counts.rate == pytest.approx(gives_up, abs=4 * error)
    assert simulated(76, 0.02, 0.12)["clipped"].mean() > 3 * simulated(304, 0.02, 0.12)["clipped"].mean()


def test_a_cap_at_which_an_attempt_can_go_on_and_not_end_makes_it_low():
    """At 152 tokens: as the docstring says, and by little."""
    assert 0.8 * 0.1 < giving_up(simulated(152, 0.1, 0.05)).rate < 0.1


def test_the_base_by_its_shipped_evaluation_gives_up_as_often_as_in_the_runs_own(root):
    """Where hits are called yes a right response has one hit and its other attempts failed."""
    table = pd.read_json(root / "data" / "base" / "countdown" / "problems.jsonl", lines=True)
    ended = (table["n"] - table["c"] - table["clipped"]).sum()
    shipped = ended / (table["attempts"] - table["c"] - table["clipped"]).sum()
    runs = length_runs("countdown", "grpo")
    own = giving_up(pd.concat([first_responses(run) for run in runs])).rate
    assert own == pytest.approx(shipped, abs=0.02) and 0.36 < shipped < 0.42
    assert all(giving_up(final_responses(run)).rate < 0.1 * own for run in runs)
    counts = giving_up(final_responses(runs[0]))
    assert false_yes_share(runs[:1]) == counts.false_yes / counts.ended > 0.1


# --- intervals of the median -----------------------------------------------------------------------------------------


def test_the_interval_of_the_median_covers_what_it_says():
    assert median_interval(range(1, 11)) == (2, 9)
    assert median_coverage(10) == pytest.approx(1 - 22 / 1024)
    assert median_interval(range(5)) == (-math.inf, math.inf) and median_coverage(5) == 1
    assert median_interval([3, 1, 2, 6, 5, 4]) == (1, 6)
    for n in range(6, 40):
        low, high = median_interval(range(n))
        assert low + high == n - 1 and median_coverage(n) >= 0.95
        assert median_coverage(n) == pytest.approx(1 - 2 * scipy.stats.binom.cdf(low, n, 0.5))
        assert 1 - 2 * scipy.stats.binom.cdf(low + 1, n, 0.5) < 0.95  # one value fewer on either side is too few
    with pytest.raises(RlinoError):
        median_interval([1.0, math.nan])


def test_it_covers_the_median_of_any_distribution():
    """Skewed, with most of it near 0 and a tail of outliers."""
    draws = np.random.default_rng(0).exponential(1, (4000, 10)) ** 3
    covered = np.mean([low <= math.log(2) ** 3 <= high for low, high in map(median_interval, draws)])
    assert covered == pytest.approx(median_coverage(10), abs=4 * math.sqrt(0.02 * 0.98 / 4000))


def test_the_share_of_a_fall():
    seeds = [20, 21]
    lowest = pd.Series([0.01, 0.02], seeds)
    assert share_of_fall(0.4, lowest, lowest).tolist() == [0, 0]
    assert share_of_fall(0.4, lowest, pd.Series(0.4, seeds)).tolist() == pytest.approx([1, 1])
    assert share_of_fall(0.4, lowest, np.sqrt(0.4 * lowest)).tolist() == pytest.approx([0.5, 0.5])
    assert log_ratios(lowest, pd.Series([0.02], [21])).tolist() == [0]  # paired by seed
    with pytest.raises(RlinoError, match="did not fall: seed 21"):
        share_of_fall(0.4, pd.Series([0.01, 0.4], seeds), lowest)


# --- the claims ------------------------------------------------------------------------------------------------------

SEEDS = range(20, 30)


def record(root, rates: dict[str, list[float]]) -> Records:
    """Runs of GRPO without KL whose responses give up at these rates, by normaliser, a seed each; the base at 0.4."""
    for (normaliser, by_seed), (k, seed) in itertools.product(rates.items(), enumerate(SEEDS)):
        folder = root / "giving-up" / f"{normaliser}-s{seed}"
        folder.mkdir(parents=True)
        changed = {} if normaliser == "per_response" else {"objective_settings": {"normaliser": normaliser}}
        config = {"task": "countdown", "method": "grpo_no_kl", "seed": seed, "max_new_tokens": 112, **changed}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "summary.json").write_text(json.dumps({"complete": True}))
        lines = ["step,final,problem_id,sample,correct,clipped,length,attempts,first_hit,false_yes\n"]
        for final, rate in ((0, 0.4), (1, by_seed[k])):
            ended = round(10_000 * rate)  # of 10,000 failed attempts, the others in responses that hit
            lines += [f"{150 * final},{final},p,0,0,0,35,1,,0\n"] * ended
            lines += [f"{150 * final},{final},p,0,1,0,{12 * (10_001 - ended)},{10_001 - ended},{10_001 - ended},0\n"]
        with gzip.open(folder / "responses.csv.gz", "wt", compresslevel=1) as f:
            f.writelines(lines)
    return Records(root, read_ledger())


def verdicts(root, rates) -> dict[str, tuple[str, str]]:
    records = record(root, rates)
    found = {c.id: judge(c, records) for c in records.ledger if c.id.endswith("giving-up")}
    assert all(len(result.runs) == 30 or result.verdict == UNTESTED for result in found.values())
    return {name: (result.verdict, result.effect) for name, result in found.items()}


LOW, HIGH = [0.004 + 0.0002 * k for k in range(10)], [0.1 + 0.002 * k for k in range(10)]


@pytest.mark.parametrize(
    ("one", "constant", "caused", "lowers"),
    [
        (LOW, HIGH, HOLDS, HOLDS),  # log(HIGH / LOW) is 70 % of the fall
        (HIGH, LOW, FAILS, FAILS),  # the same with the normalisers swapped
        (LOW, [1.7 * x for x in LOW], FAILS, HOLDS),
        (LOW, LOW, FAILS, FAILS),
        (LOW, [x * (1.2 if k < 3 else 1.7) for k, x in enumerate(LOW)], FAILS, UNDECIDED),
        (LOW, [x * (0.1 if k < 1 else 1.7) for k, x in enumerate(LOW)], FAILS, HOLDS),  # one run near 0 decides nothing
        (LOW, [x * (0.1 if k < 2 else 1.7) for k, x in enumerate(LOW)], FAILS, UNDECIDED),
    ],
)
def test_the_claims_on_giving_up(one, constant, caused, lowers, tmp_path):
    found = verdicts(tmp_path, {"per_response": one, "constant": constant, "token_mean": one})
    assert found["caused-giving-up"][0] == caused and found["lowers-giving-up"][0] == lowers
    assert "10 seeds, their intervals at 97.9 %" in found["lowers-giving-up"][1]
    assert "with a token mean 1.00 [1.00, 1.00]" in found["lowers-giving-up"][1]
    assert found["lowers-giving-up"][1].endswith("0 % with a constant follow a false yes")
    assert "falls from 40.0 %" in found["caused-giving-up"][1]


def test_the_token_mean_decides_nothing(tmp_path):
    found = verdicts(tmp_path, {"per_response": LOW, "constant": LOW, "token_mean": HIGH})
    assert {verdict for verdict, _ in found.values()} == {FAILS}


def test_nothing_is_judged_by_the_runs_that_the_threshold_was_chosen_from(tmp_path):
    records = record(tmp_path, {"per_response": LOW, "constant": HIGH, "token_mean": LOW})
    (tmp_path / "giving-up").rename(tmp_path / "length")
    found = {judge(c, records).verdict for c in records.ledger if c.id.endswith("giving-up")}
    assert found == {UNTESTED}


def test_without_a_fall_there_is_no_share_of_it(tmp_path):
    found = verdicts(tmp_path, {"per_response": [0.5] * 10, "constant": HIGH, "token_mean": LOW})
    assert found["caused-giving-up"][0] == UNTESTED and "did not fall" in found["caused-giving-up"][1]


def test_the_power_that_the_ledger_states():
    def power(ratio: float, spread: float) -> float:
        below = scipy.stats.norm.cdf((math.log(0.75) - math.log(ratio)) / spread)  # one seed
        return float(scipy.stats.binom.sf(8, 10, below))

    assert power(0.47, 0.33) == pytest.approx(0.8, abs=0.03) and power(0.59, 0.33) == pytest.approx(0.28, abs=0.02)
    assert power(0.65, 0.1) == pytest.approx(0.8, abs=0.03)


def test_the_ratios_of_a_figure_are_those_that_judge_and_the_exploratory_ones_apart(tmp_path):
    records = record(tmp_path, {"per_response": LOW, "constant": HIGH, "token_mean": [2 * x for x in LOW]})
    new = giving_up_ratios(records).query("judges").set_index(["normaliser", "seed"])["log_ratio"]
    assert len(new) == 20 and set(new["constant"].index) == set(SEEDS)
    assert np.exp(new["token_mean"]).tolist() == pytest.approx([0.5] * 10, rel=0.01)
    old = giving_up_ratios().query("not judges")
    assert not set(old["seed"]) & set(SEEDS) and old.groupby(["comparison", "normaliser"]).size().eq(5).all()
    medians = np.exp(old.groupby(["comparison", "normaliser"])["log_ratio"].median())
    control = medians.loc[["F-ISFT⁺"]]  # under which wrong responses have no weight
    assert (control > 0.95).all() and (medians.drop("F-ISFT⁺", level=0) < 0.7).all()
    assert np.exp(old["log_ratio"]).max() > 3  # in some runs the other one is far lower


# --- the sentences ---------------------------------------------------------------------------------------------------


def sentences(root, rates) -> dict[str, str]:
    return giving_up_in_words(record(root, rates))


@pytest.mark.parametrize(
    ("one", "constant", "caused", "lowers"),
    [
        (LOW, HIGH, "50 % or more.", "Yes. With 1/|o| a search gives up less often than with a constant, by 25 % or"),
        (HIGH, LOW, "None. With a constant giving up falls further", "No, the contrary. With 1/|o| a search gives up"),
        (LOW, [1.7 * x for x in LOW], "A part, less than 50 %.", "Yes. With 1/|o|"),
        (LOW, LOW, "Less than 50 %, and perhaps none.", "Not to be seen."),
        (LOW, [1.1 * x for x in LOW], "A part, less than 50 %.", "Yes, a little."),
        (
            LOW,
            [x * (1.2 if k < 3 else 1.7) for k, x in enumerate(LOW)],
            "A part, less than 50 %.",
            "Yes. With 1/|o| a search gives up less often than with a constant; whether by 25 % or more is open",
        ),
        (LOW, [x * (0.1 if k < 2 else 1.7) for k, x in enumerate(LOW)], "Less than 50 %, and perhaps none.", "Open."),
        (
            LOW,
            [x * (2 if k < 4 else 30) for k, x in enumerate(LOW)],
            "A part. Whether 1/|o| causes 50 % or more",
            "Yes.",
        ),
        (LOW, [x * (0.9 if k < 4 else 30) for k, x in enumerate(LOW)], "Open. That 1/|o| causes 50 %", "Open."),
    ],
)
def test_the_words_follow_from_verdict_and_interval(one, constant, caused, lowers, tmp_path):
    words = sentences(tmp_path, {"per_response": one, "constant": constant, "token_mean": one})
    assert words["caused-giving-up"].startswith(caused) and words["lowers-giving-up"].startswith(lowers)
    assert all("10 seeds" in sentence and "[" in sentence for sentence in words.values())


def test_two_swapped_normalisers_change_the_words(tmp_path):
    rates = {"per_response": LOW, "constant": HIGH, "token_mean": LOW}
    right = sentences(tmp_path / "right", rates)
    swapped = sentences(tmp_path / "swapped", rates | {"per_response": HIGH, "constant": LOW})
    assert all(right[name].partition("(")[0] != swapped[name].partition("(")[0] for name in right)


def test_without_runs_or_a_fall_the_sentence_says_why(tmp_path):
    assert set(giving_up_in_words(Records(tmp_path, read_ledger())).values()) == {
        "No answer here: fewer than the planned 10 seeds are recorded."
    }
    words = sentences(tmp_path, {"per_response": [0.5] * 10, "constant": HIGH, "token_mean": LOW})
    assert words["caused-giving-up"].startswith("No answer here: giving up did not fall: seed 20")


def test_the_four_answers_have_seeds_and_intervals(root, tmp_path):
    """On the recorded runs, beside which giving up has whatever runs there are."""
    found = answers(Records(root / "data" / "runs", read_ledger()))
    assert list(found) == [
        "Does the mechanism exist?", "Is it there in search?", "How much of the growth is it?", "What is the rest?",
    ]  # fmt: skip
    exists, _, much, rest = found.values()
    assert exists.startswith("Yes. In the clean room") and "over 5 seeds by SGD" in exists
    assert "over 10 seeds with Adam" in exists and "(within the margin of no difference)" in exists
    assert "Growth of the mean length without 1/|o| is there: token mean" in much and "over 5 seeds" in much
    assert "On Countdown the largest part without 1/|o| is that more wrong responses are truncated" in rest
    assert "Longer searches buy accuracy" in rest and "fewer wrong responses leave a step out" in rest
    nothing = answers(Records(tmp_path, read_ledger()))
    assert nothing["Does the mechanism exist?"].startswith("No answer here.")
    assert "there are no runs to take apart" in nothing["What is the rest?"]
