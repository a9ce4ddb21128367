"""Evidence on credit by tokens (chapter 10): recorded runs of one task, paired by seed; a seed is the unit.

Holm's correction is over all claims of this module.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from rlino_lib.analysis import statistics as stats
from rlino_lib.analysis.credit import accuracy_at, budget_curve, need_columns, share_within
from rlino_lib.claims.families import Gaps, above, difference, equal, paired, tested_by_seed, under
from rlino_lib.claims.ledger import Claim, Records, require_seeds
from rlino_lib.errors import RlinoError
from rlino_lib.folders import asked_and_found
from rlino_lib.records.runs import Run

GROUP = "credit-{}"  # of a task's runs


def credit_runs(task: str, records: Records, *methods: str) -> dict[str, dict[int, Run]]:
    """The recorded runs of some methods on a task, by method and seed."""
    runs: dict[str, dict[int, Run]] = {method: {} for method in methods}
    for run in records.runs(GROUP.format(task)):
        if run.config["task"] == task and run.method in runs:
            runs[run.method][run.seed or 0] = run
    return runs


def _pair(claim: Claim, records: Records, number: Callable[[Run, Run], float]) -> Gaps:
    pair = claim.about["method"], claim.about["reference"]
    runs, reference = credit_runs(claim.about["task"], records, *pair).values()
    return paired(claim, runs, reference, number)


def above_at_tokens(run: Run, reference: Run) -> float:
    """A run at its end, less its reference when that had sampled as many tokens, in points, both on the evaluations."""
    end = budget_curve(run).iloc[-1]
    return end["accuracy"] - accuracy_at(reference, "tokens", end["tokens"])


def is_measured(run: Run) -> bool:
    """Whether `rlino values` has measured a run's policy and critic, and ended."""
    return asked_and_found(run.path / "values" / "values.json")[1] is not None


def values_of(run: Run) -> pd.DataFrame:
    """The table of `rlino values` for a run; raises RlinoError where it is missing or damaged."""
    try:
        values = pd.read_csv(run.path / "values" / "values.csv")
        need_columns(values, "problem", "prefix", "step", "truth")
    except (OSError, ValueError, RlinoError) as e:
        raise RlinoError(f"{run.path / 'values' / 'values.csv'} is missing or damaged: {e}") from e
    return values


@tested_by_seed(above)
def ends_above(claim: Claim, records: Records) -> Gaps:
    """Hypothesis: the method ends above the reference after equally many updates of the policy.

    Statistic: their difference in test accuracy, paired by seed. Threshold `alpha`: the claim holds where a one-sided
    t-test finds it above 0, and fails where one finds it below, each after Holm's correction.
    """
    return _pair(claim, records, difference(stats.final_accuracy))


@tested_by_seed(equal)
def ends_equal(claim: Claim, records: Records) -> Gaps:
    """Hypothesis: the method ends as accurate as the reference after equally many updates.

    Statistic: as above. Thresholds `points`, the margin, and `alpha`: the claim holds where TOST rejects a difference
    beyond the margin, and fails where two one-sided tests of `alpha`/2 find it beyond, each after Holm's correction.
    """
    return _pair(claim, records, difference(stats.final_accuracy))


@tested_by_seed(above)
def above_at_equal_tokens(claim: Claim, records: Records) -> Gaps:
    """Hypothesis: the method at its end is above the reference when that had sampled as many tokens.

    Statistic: the difference in held-out accuracy, the reference's on the line between two evaluations, paired by seed.
    Threshold `alpha`: as for the end.
    """
    return _pair(claim, records, above_at_tokens)


@tested_by_seed(under)
def critic_is_poorer(claim: Claim, records: Records) -> Gaps:
    """Hypothesis: the critic of a trained policy is within 0.1 of the truth in fewer states than few continuations are.

    Statistic: the difference of the two shares, in points, by seed; the truth is 256 continuations. Threshold `alpha`:
    the claim holds where a one-sided t-test finds it below 0, and fails where one finds it above, after Holm.
    """
    few = claim.about["reference"]
    measured = credit_runs(claim.about["task"], records, claim.about["method"])[claim.about["method"]]
    runs = {seed: run for seed, run in measured.items() if is_measured(run)}
    require_seeds(claim, len(runs))
    tables = {seed: values_of(run) for seed, run in runs.items()}
    gaps = {seed: share_within(table, "critic") - share_within(table, few) for seed, table in tables.items()}
    return pd.Series(gaps), list(runs.values())
