"""Planned tests and their families: two p values for each claim, for it and for its contrary, after Holm's correction.

Evidence of this kind is a function of a claim and records to what it measures and the runs behind it: gaps by seed in
chapters 07, 10 and 10b, parts of a claim in chapters 09 and 09b.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from rlino_lib.analysis import statistics as stats
from rlino_lib.claims.ledger import Claim, Evidence, NotTestable, Records, evidence, require_seeds
from rlino_lib.claims.verdicts import FAILS, HOLDS, UNDECIDED, mean_in_words
from rlino_lib.records.runs import Run

ALPHA = 0.025  # where a claim names none: that an interval of 95 % lies beyond the threshold on one side

Measure = Callable[[Claim, Records], tuple[Any, list[Run]]]
PValues = Callable[[Claim, Any], tuple[float, float]]
Gaps = tuple[pd.Series, list[Run]]  # by seed, and the runs behind them
TESTS: dict[str, tuple[Measure, PValues]] = {}  # by the name of the evidence


class Result(NamedTuple):
    """A test after Holm's correction over its family."""

    p: np.ndarray  # [2], for the claim and for its contrary
    still_open: np.ndarray  # [2], how many tests of the family do not pass, of either kind
    verdict: str

    def p_in_words(self) -> str:
        """The p value that settles the claim; both where neither does."""
        claim, contrary = self.p
        either = f"p = {claim:.2g}, of the contrary {contrary:.2g}"
        words = {HOLDS: f"p = {claim:.2g}", FAILS: f"p = {contrary:.2g} of the contrary"}
        return f"{words.get(self.verdict, either)}, after Holm"


def tested(p_values: PValues, words: Callable[[Claim, Any, Result], str], own_family: bool = False) -> Callable:
    """Registers what measures something as evidence that tests it; only a test that passes settles a claim, either way.

    `words` are the effect. The family are the claims that are tested by the same module, or by the same evidence alone
    with `own_family`. What is not testable yet counts as 1.
    """

    def register(measure: Measure) -> Measure:
        module = measure.__module__.rpartition(".")[2]
        name = f"{module}.{measure.__name__}"
        TESTS[name] = measure, p_values
        family = f"{name}." if own_family else f"{module}."

        @evidence
        @wraps(measure)
        def judge(claim: Claim, records: Records) -> Evidence:
            values, runs = measure(claim, records)
            records.tests[claim] = p_values(claim, values)
            claims = [c for c in records.ledger if c.evidence in TESTS and f"{c.evidence}.".startswith(family)]
            result = _result(claim, claims or [claim], records)
            return Evidence(result.verdict, words(claim, values, result), runs)

        return measure

    return register


def _result(claim: Claim, family: list[Claim], records: Records) -> Result:
    for other in family:
        if other not in records.tests:
            measure, p_values = TESTS[other.evidence]
            try:
                records.tests[other] = p_values(other, measure(other, records)[0])
            except NotTestable:
                records.tests[other] = 1.0, 1.0
    corrected = np.apply_along_axis(stats.holm, 0, [records.tests[other] for other in family])
    own = corrected[[other.id for other in family].index(claim.id)]
    alpha = claim.threshold.get("alpha", ALPHA)
    verdict = HOLDS if own[0] < alpha else FAILS if own[1] < alpha else UNDECIDED
    return Result(own, (corrected >= alpha).sum(0), verdict)


# --- gaps by seed ----------------------------------------------------------------------------------------------------


def paired(
    claim: Claim, runs: Mapping[int, Run], reference: Mapping[int, Run], number: Callable[[Run, Run], float]
) -> Gaps:
    """`number` of a run and its reference, both by seed, for the seeds that both have.

    Raises NotTestable before the planned seeds are there.
    """
    seeds = sorted(set(runs) & set(reference))
    require_seeds(claim, len(seeds))
    gaps = pd.Series({seed: number(runs[seed], reference[seed]) for seed in seeds})
    return gaps, [by_seed[seed] for seed in seeds for by_seed in (runs, reference)]


def runs_named(group: str, name: str, records: Records) -> dict[int, Run]:
    """The runs of a grid whose folder is NAME-s<seed>, by seed."""
    return {run.seed or 0: run for run in records.runs(group) if run.path.name == f"{name}-s{run.seed}"}


def each_named(claim: Claim, records: Records, number: Callable[[Run], float]) -> Gaps:
    """`number` of each run that the claim is about, by its `group` and `name`; NotTestable as `paired`."""
    runs = runs_named(claim.about["group"], claim.about["name"], records)
    require_seeds(claim, len(runs))
    return pd.Series({seed: number(run) for seed, run in runs.items()}), list(runs.values())


def pair_named(claim: Claim, records: Records, number: Callable[[Run], float]) -> Gaps:
    """What the runs of the claim's `name` have more of than those of its `reference`, in one `group`, as `paired`."""
    runs, reference = (runs_named(claim.about["group"], claim.about[which], records) for which in ("name", "reference"))
    return paired(claim, runs, reference, difference(number))


def difference(of: Callable[[Run], float]) -> Callable[[Run, Run], float]:
    """What a run has more of than its reference."""
    return lambda run, reference: of(run) - of(reference)


def last(column: str) -> Callable[[Run], float]:
    """The value of a column of a run's metrics in its last evaluation."""
    return lambda run: float(run.metrics[column].dropna().iloc[-1])


def above(_: Claim, gaps: pd.Series) -> tuple[float, float]:
    """One-sided t-tests that the mean is above 0, and below it."""
    return stats.t_test(gaps, alternative="greater"), stats.t_test(gaps, alternative="less")


def under(claim: Claim, gaps: pd.Series) -> tuple[float, float]:
    """The contrary of `above`."""
    return above(claim, gaps)[::-1]


def equal(claim: Claim, gaps: pd.Series) -> tuple[float, float]:
    """TOST that the mean is within the claim's `points`, and the test that it is beyond them."""
    margin = claim.threshold["points"]
    return stats.tost(gaps, margin), stats.beyond(gaps, margin)


def tested_by_seed(p_values: PValues, unit: str = "points", digits: int = 1) -> Callable:
    """`tested` for gaps by seed, in these units; the family are the claims of the module."""

    def words(_: Claim, gaps: pd.Series, result: Result) -> str:
        return f"{mean_in_words(gaps, unit, digits)}; {result.p_in_words()}"

    return tested(p_values, words)
