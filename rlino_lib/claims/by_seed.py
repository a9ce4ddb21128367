"""Claims whose unit is a seed: gaps paired by seed, and verdicts by two tests within a family (chapters 10 and 10b).

A claim's test gives two p values, for it and for its contrary; Holm's correction is over all claims of one table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd

from rlino_lib.analysis import statistics as stats
from rlino_lib.claims.ledger import Claim, Evidence, Records, require_seeds, verdict_in_family
from rlino_lib.claims.verdicts import mean_in_words
from rlino_lib.records.runs import Run

Gaps = tuple[pd.Series, list[Run]]  # by seed, and the runs behind them
PValues = Callable[[Claim, pd.Series], tuple[float, float]]
Tests = Mapping[str, tuple[Callable[[Claim, Records], Gaps], PValues]]  # by the name of the evidence


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


def difference(of: Callable[[Run], float]) -> Callable[[Run, Run], float]:
    """What a run has more of than its reference."""
    return lambda run, reference: of(run) - of(reference)


def above(_: Claim, gaps: pd.Series) -> tuple[float, float]:
    """One-sided t-tests that the mean is above 0, and below it."""
    return stats.t_test(gaps, alternative="greater"), stats.t_test(gaps, alternative="less")


def equal(claim: Claim, gaps: pd.Series) -> tuple[float, float]:
    """TOST that the mean is within the claim's `points`, and the test that it is beyond them."""
    margin = claim.threshold["points"]
    return stats.tost(gaps, margin), stats.beyond(gaps, margin)


def judged(claim: Claim, records: Records, tests: Tests, unit: str = "points", digits: int = 1) -> Evidence:
    """The verdict on a claim by its test, corrected over the ledger's claims of the same table of tests."""
    gaps, runs = tests[claim.evidence][0](claim, records)

    def p_values(other: Claim) -> tuple[float, float]:
        gaps_of, test = tests[other.evidence]
        return test(other, gaps_of(other, records)[0])

    family = [c for c in records.ledger if c.evidence in tests]
    own, _, verdict = verdict_in_family(claim, family, p_values)
    words = mean_in_words(gaps, unit, digits)
    return Evidence(verdict, f"{words}; p = {own[0]:.2g}, against it {own[1]:.2g}, after Holm", runs)
