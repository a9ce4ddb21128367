"""Evidence on credit by tokens (chapter 10): recorded runs of one task, paired by seed; a seed is the unit.

A claim's test gives two p values, for it and for its contrary, and Holm's correction is over all claims of this module.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from rlino_lib.analysis import statistics as stats
from rlino_lib.analysis.credit import accuracy_at_tokens, budget_curve, share_within
from rlino_lib.claims.ledger import Claim, Evidence, Records, evidence, require_seeds, verdict_in_family
from rlino_lib.claims.verdicts import mean_in_words
from rlino_lib.errors import RlinoError
from rlino_lib.folders import asked_and_found
from rlino_lib.records.runs import Run

GROUP = "credit-{}"  # of a task's runs
Gaps = tuple[pd.Series, list[Run]]  # in points by seed, and the runs behind them
Test = tuple[Callable[[Claim, Records], Gaps], Callable[[Claim, pd.Series], tuple[float, float]]]


def credit_runs(task: str, records: Records, *methods: str) -> dict[str, dict[int, Run]]:
    """The recorded runs of some methods on a task, by method and seed."""
    runs: dict[str, dict[int, Run]] = {method: {} for method in methods}
    for run in records.runs(GROUP.format(task)):
        if run.config["task"] == task and run.method in runs:
            runs[run.method][run.seed or 0] = run
    return runs


def _paired(claim: Claim, records: Records, number: Callable[[Run, Run], float]) -> Gaps:
    """`number` of the method's run and the reference's, by the seeds that both have."""
    pair = claim.about["method"], claim.about["reference"]
    method, reference = credit_runs(claim.about["task"], records, *pair).values()
    seeds = sorted(set(method) & set(reference))
    require_seeds(claim, len(seeds))
    runs = [by_seed[seed] for seed in seeds for by_seed in (method, reference)]
    return pd.Series({seed: number(method[seed], reference[seed]) for seed in seeds}), runs


def _final(claim: Claim, records: Records) -> Gaps:
    return _paired(claim, records, lambda m, r: stats.final_accuracy(m) - stats.final_accuracy(r))


def _at_equal_tokens(claim: Claim, records: Records) -> Gaps:
    """The method at its end, less the reference when it had sampled as many tokens, both on the evaluations."""

    def number(method: Run, reference: Run) -> float:
        end = budget_curve(method).iloc[-1]
        return end["accuracy"] - accuracy_at_tokens(reference, end["tokens"])

    return _paired(claim, records, number)


def _within(claim: Claim, records: Records) -> Gaps:
    """The critic's share of states within 0.1 of the truth, less that of few continuations."""
    runs = credit_runs(claim.about["task"], records, claim.about["method"])[claim.about["method"]]
    tables = {seed: values_of(run) for seed, run in runs.items() if is_measured(run)}
    require_seeds(claim, len(tables))
    few = claim.about["reference"]
    gaps = {seed: share_within(table, "critic") - share_within(table, few) for seed, table in tables.items()}
    return pd.Series(gaps), [runs[seed] for seed in tables]


def is_measured(run: Run) -> bool:
    """Whether `rlino values` has measured a run's policy and critic, and ended."""
    return asked_and_found(run.path / "values" / "values.json")[1] is not None


def values_of(run: Run) -> pd.DataFrame:
    """The table of `rlino values` for a run."""
    try:
        return pd.read_csv(run.path / "values" / "values.csv")
    except (OSError, ValueError) as e:
        raise RlinoError(f"{run.path / 'values' / 'values.csv'} is missing or damaged: {e}") from e


def _above(_: Claim, gaps: pd.Series) -> tuple[float, float]:
    return stats.t_test(gaps, alternative="greater"), stats.t_test(gaps, alternative="less")


def _equal(claim: Claim, gaps: pd.Series) -> tuple[float, float]:
    margin = claim.threshold["points"]
    return stats.tost(gaps, margin), stats.beyond(gaps, margin)


def _below(claim: Claim, gaps: pd.Series) -> tuple[float, float]:
    return _above(claim, gaps)[::-1]


TESTS: dict[str, Test] = {
    "credit.ends_above": (_final, _above),
    "credit.ends_equal": (_final, _equal),
    "credit.above_at_equal_tokens": (_at_equal_tokens, _above),
    "credit.critic_is_poorer": (_within, _below),
}


def _judged(claim: Claim, records: Records) -> Evidence:
    gaps, runs = TESTS[claim.evidence][0](claim, records)

    def p_values(other: Claim) -> tuple[float, float]:
        differences, test = TESTS[other.evidence]
        return test(other, differences(other, records)[0])

    family = [c for c in records.ledger if c.evidence in TESTS]
    own, _, verdict = verdict_in_family(claim, family, p_values)
    return Evidence(verdict, f"{mean_in_words(gaps)}; p = {own[0]:.2g}, against it {own[1]:.2g}, after Holm", runs)


@evidence
def ends_above(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: the method ends above the reference after equally many updates of the policy.

    Statistic: their difference in test accuracy, paired by seed. Threshold `alpha`: the claim holds where a one-sided
    t-test finds it above 0, and fails where one finds it below, each after Holm's correction.
    """
    return _judged(claim, records)


@evidence
def ends_equal(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: the method ends as accurate as the reference after equally many updates.

    Statistic: as above. Thresholds `points`, the margin, and `alpha`: the claim holds where TOST rejects a difference
    beyond the margin, and fails where two one-sided tests of `alpha`/2 find it beyond, each after Holm's correction.
    """
    return _judged(claim, records)


@evidence
def above_at_equal_tokens(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: the method at its end is above the reference when that had sampled as many tokens.

    Statistic: the difference in held-out accuracy, the reference's on the line between two evaluations, paired by seed.
    Threshold `alpha`: as for the end.
    """
    return _judged(claim, records)


@evidence
def critic_is_poorer(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: the critic of a trained policy is within 0.1 of the truth in fewer states than few continuations are.

    Statistic: the difference of the two shares, in points, by seed; the truth is 256 continuations. Threshold `alpha`:
    the claim holds where a one-sided t-test finds it below 0, and fails where one finds it above, after Holm.
    """
    return _judged(claim, records)
