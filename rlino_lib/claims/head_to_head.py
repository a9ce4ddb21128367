"""Evidence on methods against each other and against the base (chapter 07). A seed is the unit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import pandas as pd

from rlino_lib.analysis.growth import base_accuracy
from rlino_lib.analysis.statistics import (
    beyond,
    differences,
    final_accuracy,
    holm,
    outcomes,
    seeds_needed,
    t_interval,
    t_test,
    tost,
)
from rlino_lib.claims.ledger import (
    CONDITIONS,
    FAILS,
    HOLDS,
    RECORDED,
    UNDECIDED,
    Claim,
    Evidence,
    NotTestable,
    Records,
    evidence,
    mean_in_words,
    require_seeds,
    verdict_above_zero,
    verdict_on_all,
)
from rlino_lib.records.runs import Run


def duels(task: str, records: Records = RECORDED) -> list[Run]:
    """The recorded runs of all methods on a task, each at its own best learning rate."""
    return [run for run in records.runs("head-to-head") if run.config["task"] == task]


# --- families of tests on paired differences -------------------------------------------------------------------------


def paired_gaps(claim: Claim, records: Records) -> tuple[pd.Series, list[Run]]:
    """Method − reference in points by seed, and the runs behind; NotTestable before the planned seeds are there."""
    pair = [claim.about["method"], claim.about["reference"]]
    runs = [run for run in duels(claim.about["task"], records) if run.method in pair]
    common = set.intersection(*({run.seed for run in runs if run.method == method} for method in pair))
    require_seeds(claim, len(common))
    runs = [run for run in runs if run.seed in common]
    return differences(outcomes(runs), *pair), runs


class FamilyTest(NamedTuple):
    """A claim's two tests, for it and for the contrary, after Holm's correction over all claims of that evidence."""

    gaps: pd.Series  # in points, by seed
    runs: list[Run]
    p_for: float
    p_against: float
    open_for: int  # how many tests of the family do not pass, the claim's own among them if it does not
    open_against: int
    verdict: str  # only a test that passes settles a claim, either way


def family_test(claim: Claim, records: Records, *tests: Callable[[Claim, pd.Series], float]) -> FamilyTest:
    """Both `tests` give a p value, for the claim and for the contrary; of claims that are not testable yet it is 1."""
    family = [c for c in records.ledger if c.evidence == claim.evidence] or [claim]
    p_values = np.ones((len(family), 2))
    for row, other in zip(p_values, family, strict=True):
        with suppress(NotTestable):
            gaps, _ = paired_gaps(other, records)
            row[:] = [test(other, gaps) for test in tests]
    corrected = np.apply_along_axis(holm, 0, p_values)  # [claims, 2]
    p_for, p_against = corrected[[other.id for other in family].index(claim.id)].tolist()
    alpha = claim.threshold["alpha"]
    verdict = HOLDS if p_for < alpha else FAILS if p_against < alpha else UNDECIDED
    still_open = (corrected >= alpha).sum(0).tolist()
    return FamilyTest(*paired_gaps(claim, records), p_for, p_against, *still_open, verdict)


@evidence
def equivalent(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: the method ends equally accurate as the reference.

    Statistic: their difference in test accuracy, paired by seed. Thresholds `points`, the margin, and `alpha`: the
    claim holds where TOST rejects a difference beyond the margin, and fails where two one-sided tests of `alpha`/2 find
    it beyond, each after Holm's correction.
    """
    margin, alpha = claim.threshold["points"], claim.threshold["alpha"]
    test = family_test(
        claim,
        records,
        lambda other, gaps: tost(gaps, other.threshold["points"]),
        lambda other, gaps: beyond(gaps, other.threshold["points"]),
    )
    effect = f"{mean_in_words(test.gaps)}; within ±{margin:g}: p = {test.p_for:.2g}, "
    effect = f"{effect}beyond: p = {test.p_against:.2g} after Holm"
    if test.verdict == UNDECIDED:
        mean = test.gaps.mean()
        tests = test.open_for if abs(mean) < margin else test.open_against
        more = seeds_needed(test.gaps.std(), margin, mean, alpha=alpha, tests=tests)
        effect = f"{effect}; about {more or 'too many'} seeds would settle it"
    return Evidence(test.verdict, effect, test.runs)


@evidence
def below(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: the method ends below the reference.

    Statistic: their difference in test accuracy, paired by seed. Threshold `alpha`: the claim holds where a one-sided
    t-test finds it below 0, and fails where one finds it above, each after Holm's correction.
    """
    test = family_test(
        claim,
        records,
        lambda other, gaps: t_test(gaps, alternative="less"),
        lambda other, gaps: t_test(gaps, alternative="greater"),
    )
    effect = f"{mean_in_words(test.gaps)}; below: p = {test.p_for:.2g}, above: p = {test.p_against:.2g} after Holm"
    return Evidence(test.verdict, effect, test.runs)


# --- against the base ------------------------------------------------------------------------------------------------


def _by_rate(claim: Claim, records: Records) -> dict[float, list[Run]]:
    """The runs of a claim's method by learning rate: those head to head, each method at its own, and those in which
    all methods have GRPO's (chapters 04 and 05). One run at a rate says nothing of seeds, and is left out."""
    pool = {run.path: run for group in ("head-to-head", "countdown") for run in records.runs(group)}
    by_rate: dict[float, list[Run]] = {}
    for run in pool.values():
        if (run.config["task"], run.method) == (claim.about["task"], claim.about["method"]):
            by_rate.setdefault(run.config["lr"], []).append(run)
    return {rate: runs for rate, runs in sorted(by_rate.items()) if len(runs) > 1}


@evidence
def below_the_base_at_every_rate(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: the method ends below its base at every learning rate that was run.

    Statistic: the gain in test accuracy from base to end, at each learning rate. Threshold: 0; the claim holds where
    the 95 % t-interval over seeds lies below it, fails where above. Where rates disagree it holds with conditions.
    """
    by_rate = _by_rate(claim, records)
    require_seeds(claim, max(map(len, by_rate.values()), default=0))
    rates_of_grpo = {run.config["lr"] for run in duels(claim.about["task"], records) if run.method == "grpo"}
    verdicts = []
    words = []
    for rate, runs in by_rate.items():
        gains = pd.Series([final_accuracy(run) - base_accuracy(run) for run in runs])
        verdicts.append(verdict_above_zero(-gains))
        whose = ", GRPO's own," if rate in rates_of_grpo else ""
        words.append(f"at a learning rate of {rate:g}{whose} {mean_in_words(gains)} from the base: {verdicts[-1]}")
    verdict = verdicts[0] if len(set(verdicts)) == 1 else CONDITIONS
    return Evidence(verdict, "; ".join(words), sum(by_rate.values(), []))


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
        changes[side] = pd.Series([column.iloc[-1] - column.iloc[0] for column in recorded])
    right, wrong = ("{:+.1f} [{:+.1f}, {:+.1f}]".format(c.mean(), *t_interval(c)) for c in changes.values())
    verdict = verdict_on_all([verdict_above_zero(changes["correct"]), verdict_above_zero(-changes["incorrect"])])
    return Evidence(verdict, f"nats a response, over {len(runs)} seeds: right {right}, wrong {wrong}", runs)
