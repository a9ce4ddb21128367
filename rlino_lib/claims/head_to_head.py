"""Evidence on methods against each other and against the base (chapter 07). A seed is the unit."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from rlino_lib.analysis import statistics as stats
from rlino_lib.analysis.growth import base_accuracy
from rlino_lib.claims.families import Gaps, Result, equal, tested, under
from rlino_lib.claims.ledger import Claim, Evidence, NotTestable, Records, evidence, on_common_seeds, require_seeds
from rlino_lib.claims.verdicts import UNDECIDED, mean_in_words, verdict_above_zero, verdict_on_all
from rlino_lib.records.runs import Run


def duels(task: str, records: Records, groups: Iterable[str] = ("head-to-head",)) -> list[Run]:
    """The recorded runs of all methods on a task, each at its own best learning rate.

    Runs whose objective is not that of their method's row, such as those with another normaliser, do not count.
    """
    runs = (run for group in groups for run in records.runs(group))
    return [run for run in runs if run.config["task"] == task and is_plain(run)]


def is_plain(run: Run) -> bool:
    """Whether a run's objective is that of its method's row in the catalogue."""
    return not run.config.get("objective_settings")


# --- families of tests on paired differences -------------------------------------------------------------------------


def paired_gaps(claim: Claim, records: Records) -> Gaps:
    """Method − reference in points by seed, and the runs behind; NotTestable before the planned seeds are there.

    `groups` of the claim names the groups of runs, where they are not those of the head to head.
    """
    pair = [claim.about["method"], claim.about["reference"]]
    groups = claim.about.get("groups", "head-to-head").split()
    runs = duels(claim.about["task"], records, groups)
    runs = sum(on_common_seeds(claim, *([run for run in runs if run.method == method] for method in pair)), [])
    return stats.differences(stats.outcomes(runs), *pair), runs


def _within_or_beyond(claim: Claim, gaps: pd.Series, result: Result) -> str:
    margin, alpha = claim.threshold["points"], claim.threshold["alpha"]
    within, beyond = result.p
    effect = f"{mean_in_words(gaps)}; within ±{margin:g}: p = {within:.2g}, beyond: p = {beyond:.2g} after Holm"
    if result.verdict != UNDECIDED:
        return effect
    tests = int(result.still_open[0 if abs(gaps.mean()) < margin else 1])
    more = stats.seeds_needed(gaps.std(), margin, gaps.mean(), alpha=alpha, tests=tests)
    return f"{effect}; about {more or 'too many'} seeds would settle it"


@tested(equal, _within_or_beyond, own_family=True)
def equivalent(claim: Claim, records: Records) -> Gaps:
    """Hypothesis: the method ends equally accurate as the reference.

    Statistic: their difference in test accuracy, paired by seed. Thresholds `points`, the margin, and `alpha`: the
    claim holds where TOST rejects a difference beyond the margin, and fails where two one-sided tests of `alpha`/2 find
    it beyond, each after Holm's correction.
    """
    return paired_gaps(claim, records)


@tested(equal, _within_or_beyond, own_family=True)
def equivalent_again(claim: Claim, records: Records) -> Gaps:
    """As `equivalent`, on seeds of their own, and a family of its own.

    Hypothesis, statistic and thresholds are those above; Holm's correction is over what is asked again.
    """
    return paired_gaps(claim, records)


def _below_or_above(_: Claim, gaps: pd.Series, result: Result) -> str:
    return "{}; below: p = {:.2g}, above: p = {:.2g} after Holm".format(mean_in_words(gaps), *result.p)


@tested(under, _below_or_above, own_family=True)
def below(claim: Claim, records: Records) -> Gaps:
    """Hypothesis: the method ends below the reference.

    Statistic: their difference in test accuracy, paired by seed. Threshold `alpha`: the claim holds where a one-sided
    t-test finds it below 0, and fails where one finds it above, each after Holm's correction.
    """
    return paired_gaps(claim, records)


# --- against the base ------------------------------------------------------------------------------------------------


def _by_rate(claim: Claim, records: Records) -> dict[float, list[Run]]:
    """The runs of a claim's method by learning rate: those head to head, each method at its own, and those in which
    all methods have GRPO's (chapters 04 and 05). One run at a rate says nothing of seeds, and is left out."""
    pool = {run.path: run for group in ("head-to-head", "countdown") for run in records.runs(group)}
    by_rate: dict[float, list[Run]] = {}
    for run in pool.values():
        if (run.config["task"], run.method) == (claim.about["task"], claim.about["method"]) and is_plain(run):
            by_rate.setdefault(run.config["lr"], []).append(run)
    return {rate: runs for rate, runs in sorted(by_rate.items()) if len(runs) > 1}


@evidence
def below_the_base_at_every_rate(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: the method ends below its base at every learning rate that was run.

    Statistic: the gain in test accuracy from base to end, at each learning rate. Threshold: 0; the claim holds where
    the 95 % t-interval over seeds lies below it, fails where above. Where it holds at some rates alone it has
    conditions; where it holds at none and fails at one, "every" is refuted.
    """
    by_rate = _by_rate(claim, records)
    require_seeds(claim, max(map(len, by_rate.values()), default=0))
    rates_of_grpo = {run.config["lr"] for run in duels(claim.about["task"], records) if run.method == "grpo"}
    results = []
    words = []
    for rate, runs in by_rate.items():
        gains = pd.Series([stats.final_accuracy(run) - base_accuracy(run) for run in runs])
        results.append(verdict_above_zero(-gains))
        whose = ", GRPO's own," if rate in rates_of_grpo else ""
        words.append(f"at a learning rate of {rate:g}{whose} {mean_in_words(gains)} from the base: {results[-1]}")
    return Evidence(verdict_on_all(results), "; ".join(words), sum(by_rate.values(), []))


@evidence
def right_answers_likelier_wrong_ones_less(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: the base's own right answers become likelier in training, and its wrong ones less likely.

    Statistic: the change of the log-likelihood of each kind from the first evaluation to the last, nats per response.
    Threshold: 0; each half holds or fails where the 95 % t-interval over seeds lies on one side of it.
    """
    runs = [run for run in duels(claim.about["task"], records) if run.method == claim.about["method"]]
    require_seeds(claim, len(runs))
    changes = {}
    for side in ("correct", "incorrect"):
        recorded = [run.metrics[f"eval/base/{side}"].dropna() for run in runs]
        if not all(map(len, recorded)):
            raise NotTestable("not every run records how likely the base's own responses are: train with --eval-base 1")
        changes[side] = pd.Series([column.iloc[-1] - column.iloc[0] for column in recorded])
    right, wrong = ("{:+.1f} [{:+.1f}, {:+.1f}]".format(c.mean(), *stats.t_interval(c)) for c in changes.values())
    halves = [verdict_above_zero(changes["correct"]), verdict_above_zero(-changes["incorrect"])]
    verdict = verdict_on_all(halves)
    return Evidence(verdict, f"nats a response, over {len(runs)} seeds: right {right}, wrong {wrong}", runs)
