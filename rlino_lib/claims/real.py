"""Evidence from public records of real models (chapter 13), with problems or prompts as the sample.

Nothing here is judged over seeds: a record has one. So what is judged is what happened in a record. What the records
say of the claims on methods stands in the ledger, in the field `real` of those claims.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from rlino_lib.analysis import real
from rlino_lib.analysis.real import Estimate, Gains, estimate
from rlino_lib.claims.ledger import Claim, Evidence, Records, evidence
from rlino_lib.claims.verdicts import FAILS, HOLDS, UNDECIDED, verdict_on_all
from rlino_lib.records.real import real_table, visits

AS_RELEASED = ("Rho-1 1B", "Rho-1 7B", "Qwen2.5-3B-Instruct")  # two base models, and one that its makers post-trained
DIFFICULTY = ("gold_steps", "gold_characters", "question_characters")
PROBLEM = ("task", "problem")


@lru_cache(maxsize=1)
def one_run() -> Gains:
    """The bins of the one public run that recorded each visit of each prompt."""
    return real.gains_by_visits(visits())


def _verdict(holds: bool, fails: bool) -> str:
    return HOLDS if holds else FAILS if fails else UNDECIDED


def _above(interval: Estimate, least: float) -> str:
    return _verdict(interval.low >= least, interval.high < least)


def _gaps() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By record, mean length of wrong less right: pooled, and with the problem held; with their resamples."""
    table = real_table("gsm8k")
    gaps = {}
    for name in AS_RELEASED:
        own = table[table["model"] == name]
        gaps[name] = real.length_gap(own, "characters"), real.length_gap(own, "characters", DIFFICULTY)
    tasks = real_table("arithmetic")
    pooled = real.clustered_gap(tasks, "characters", PROBLEM)
    gaps["arithmetic, within"] = pooled, real.mean_of(real.within_gaps(tasks, "characters", PROBLEM))
    return gaps


@evidence
def wrong_is_longer_without_training(claim: Claim, records: Records) -> Evidence:
    """Statistic: mean length of wrong less right responses, problems pooled, in characters, by record.

    Threshold `characters`: of each record it holds where the interval over problems lies above, fails where below.
    """
    gaps = {name: estimate(pooled) for name, (pooled, _) in _gaps().items()}
    verdicts = [_above(gap, claim.threshold["characters"]) for gap in gaps.values()]
    words = "; ".join(f"{name.partition(',')[0]} {gap.words()}" for name, gap in gaps.items())
    return Evidence(verdict_on_all(verdicts), f"characters: {words}")


@evidence
def little_is_left_with_the_problem_held(claim: Claim, records: Records) -> Evidence:
    """Statistic: what is left of the difference with difficulty held, or within problems, less `share` of the pooled.

    Threshold `share`: of each record it holds where the interval of that lies below 0, fails where above.
    """
    gaps = _gaps()
    share = claim.threshold["share"]
    verdicts = {name: _above(estimate(share * pooled - held), 0) for name, (pooled, held) in gaps.items()}
    words = "; ".join(f"{name} {estimate(held).words()}: {verdicts[name]}" for name, (_, held) in gaps.items())
    return Evidence(verdict_on_all(list(verdicts.values())), f"characters that are left, and the verdict: {words}")


@evidence
def gains_in_the_order_of_weights(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: bins of prompts gain in the order of the weights √(p(1−p)) that GRPO gave them.

    Statistic: Spearman's correlation over bins. Threshold `rank`: holds where the interval lies there or above.
    """
    rank = estimate(real.rank_correlations(one_run()))
    return Evidence(_above(rank, claim.threshold["rank"]), f"rank correlation {rank.words(2)}")


@evidence
def gains_know_no_side(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: hard and easy prompts of equal weight gain equally.

    Statistic: gain per weight, hard over easy. Threshold `ratio`: holds where the interval lies in [1/ratio, ratio].
    """
    ratio, low, high = estimate(real.side_ratios(one_run()))
    most = claim.threshold["ratio"]
    verdict = _verdict(1 / most <= low and high <= most, low > most or high < 1 / most)
    return Evidence(verdict, f"{ratio:.2f} [{low:.2f}, {high:.2f}] times as much on the hard side")


@evidence
def log_odds_move_as_weights(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: from the first visits to the last, log-odds move as √(p(1−p)), rather than by the same amount.

    Statistic: the share of resamples in which the weight's path is the nearer one. Threshold `share`: holds at that
    share or more, fails at 1 − share or less.
    """
    nearer = real.nearer(one_run())
    share = claim.threshold["share"]
    verdict = _verdict(nearer >= share, nearer <= 1 - share)
    return Evidence(verdict, f"the weight's path is nearer in {100 * nearer:.0f} % of the resamples")
