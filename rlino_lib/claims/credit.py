"""Evidence on credit by tokens (chapter 10): recorded runs of one task, paired by seed; a seed is the unit.

Holm's correction is over all claims of this module.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from rlino_lib.analysis import statistics as stats
from rlino_lib.analysis.credit import accuracy_at, budget_curve, need_columns, share_within
from rlino_lib.claims.families import Gaps, above, difference, equal, paired, tested_by_seed, under
from rlino_lib.claims.ledger import Claim, NotTestable, Records, require_seeds
from rlino_lib.errors import RlinoError
from rlino_lib.folders import asked_and_found, changes
from rlino_lib.methods.catalogue import varied
from rlino_lib.records.runs import Run
from rlino_lib.training.config import RUN_DEFAULTS

GROUP = "credit-{}"  # of a task's runs
# What runs of all methods share, so that they differ in credit alone: settings, and terms of their objectives.
SETTINGS = (
    "task_settings", "reward", "prompts", "group_size", "max_new_tokens", "temperature", "epochs", "minibatches",
)  # fmt: skip
TERMS = ("ratio", "clip_low", "clip_high", "surrogate", "normaliser", "beta", "kl_in_reward", "whiten", "entropy_bonus")
# What runs of one method share beside these.
OF_ONE_METHOD = ("objective_settings", "lr", "steps", "critic_lr", "critic_epochs", "critic_warmup", "critic_trunk")


def credit_runs(task: str, records: Records, *methods: str) -> dict[str, dict[int, Run]]:
    """The recorded runs of some methods on a task, by method and seed.

    Raises NotTestable where two share method and seed, or where runs differ in more than credit, learning rate, number
    of steps and seed: a reader's own need not be one experiment.
    """
    runs: dict[str, dict[int, Run]] = {method: {} for method in methods}
    firsts: dict[str, Run] = {}
    for run in records.runs(GROUP.format(task)):
        if run.config["task"] != task or run.method not in runs:
            continue
        firsts.setdefault(run.method, run)
        for first in (firsts[run.method], *firsts.values()):  # a difference from its own method says more
            if words := _difference(first, run):
                raise NotTestable(f"{first.name} and {run.name} differ in more than credit: {words}")
        same = runs[run.method].setdefault(run.seed or 0, run)
        if same is not run:
            raise NotTestable(f"{same.name} and {run.name} are both {run.method} of seed {run.seed}")
    return runs


def _difference(first: Run, other: Run) -> str:
    """What two runs differ in that is not credit, in words; empty where that is nothing."""
    names = SETTINGS + (OF_ONE_METHOD if first.method == other.method else ())
    kept = []
    for run in (first, other):
        terms = vars(varied(run.method, run.config.get("objective_settings", {})))
        settings = {name: run.config[name] for name in names if name in run.config}
        kept.append(settings | {name: terms[name] for name in TERMS})
    return changes(kept[0], kept[1], RUN_DEFAULTS)


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
