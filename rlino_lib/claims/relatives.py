"""Evidence on the relatives of GRPO (chapters 11 and 11b): preferences, inner and random rewards, entropy, exploration.

Runs are paired by seed with those of a reference; Holm's correction is over all tests of this module.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import torch

from rlino_lib.analysis import statistics as stats
from rlino_lib.claims.bandit import equal_sides, toy
from rlino_lib.claims.environment import runs_named
from rlino_lib.claims.families import Gaps, above, difference, equal, paired, tested_by_seed, under
from rlino_lib.claims.ledger import Claim, Evidence, Records, evidence, require_seeds
from rlino_lib.claims.verdicts import FAILS, HOLDS
from rlino_lib.exact.hypotheses import HELD_OUT, learn
from rlino_lib.exact.identities import TokenLM, first_step_of_dpo, preferences_are_weighted_sft, sample_mdp
from rlino_lib.exact.spurious import mean_steps
from rlino_lib.exact.token_mdp import SharedPolicy
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.methods.preference import Preferred
from rlino_lib.policy.logprobs import response_logprobs
from rlino_lib.records.runs import Run

# --- exact -----------------------------------------------------------------------------------------------------------


@evidence
def preferences_are_sft(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: the gradient of DPO, IPO and KTO is that of cross-entropy weighted by a function of the log-ratios,
    and DPO's first step that of unit F-ISFT⁺⁻ without 1/|o|.

    Statistic: the largest relative gap, under another reference and under the policy itself. Threshold `gap`.
    """
    mdp = toy()
    model = TokenLM(mdp, SharedPolicy(mdp, seed=0))
    rollouts = sample_mdp(mdp, SharedPolicy(mdp, seed=1), prompts=16, group_size=8)  # which is the reference
    right = rollouts.correct.view(16, 8)
    mixed = [k for k in range(16) if 0 < right[k].sum() < 8]
    sides = ([8 * k + int(rows[k].int().argmax()) for k in mixed] for rows in (right, ~right))
    rows = Preferred(*map(torch.tensor, sides))
    new, _ = response_logprobs(model, rollouts, torch.arange(len(rollouts.ids)))
    identities = preferences_are_weighted_sft(model, rollouts, rows, rollouts.logprobs.to(new))
    return equal_sides(claim, [first_step_of_dpo(model, rollouts, rows), *identities])


@evidence
def coins_move_nothing_at_one_update(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: at one update a batch, random rewards leave a policy where it is, in the mean; at several, the
    unclipped surrogate moves it away from its favourite, and the clip takes part of that back.

    Statistic: the mean change of the favourite's logit and chance, by enumeration. Thresholds: `gap`, up to which a
    change of the chance counts as none but for the curvature of σ, and `updates`.
    """
    updates = claim.threshold["updates"]
    table = {
        name: mean_steps(OBJECTIVES[method], [0.6, 0.9], [1, updates]).set_index(["p", "updates"])["step"]
        for name, method in (("clip", "grpo_no_kl"), ("none", "grpo_no_clip"))
    }
    first = max(abs(steps.xs(1, level="updates")).max() for steps in table.values())
    clipped, plain = (table[name].xs(updates, level="updates") for name in ("clip", "none"))
    ordered = bool(((plain < clipped) & (clipped < 0)).all())
    verdict = HOLDS if first <= claim.threshold["gap"] and ordered else FAILS
    words = f"one update: {first:.1e} at most; {updates} updates: {plain[0.9]:+.4f} without a clip, {clipped[0.9]:+.4f}"
    return Evidence(verdict, f"{words} with one, from 0.9")


@evidence
def elimination_is_learned(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: on the held-out prompt ordinary RL fails, and BARL's objective does not.

    Statistic: the exact chance of success there after training, the worst of three seeds for BARL, the best for
    ordinary RL. Thresholds `most` for ordinary RL and `least` for BARL.
    """
    ends = {}
    for prior in ("the truth", "three repeats"):
        tables = [learn(prior, seed=seed) for seed in range(3)]
        ends[prior] = [t[(t["prompt"] == HELD_OUT) & (t["step"] == t["step"].max())]["right"].item() for t in tables]
    ordinary, barl = max(ends["the truth"]), min(ends["three repeats"])
    verdict = HOLDS if ordinary <= claim.threshold["most"] and barl >= claim.threshold["least"] else FAILS
    return Evidence(verdict, f"held out: {ordinary:.0%} at most, and {barl:.0%} at least")


# --- recorded runs ---------------------------------------------------------------------------------------------------


def _pair(claim: Claim, records: Records, of: Callable[[Run], float]) -> Gaps:
    about = claim.about
    group = about["group"]
    reference = runs_named(about.get("reference_group", group), about["reference"], records)
    return paired(claim, runs_named(group, about["name"], records), reference, difference(of))


def _of_each(claim: Claim, records: Records, number: Callable[[Run], float]) -> Gaps:
    runs = runs_named(claim.about["group"], claim.about["name"], records)
    require_seeds(claim, len(runs))
    return pd.Series({seed: number(run) for seed, run in runs.items()}), list(runs.values())


def final(column: str) -> Callable[[Run], float]:
    """The last evaluation's value of a column of a run's metrics."""
    return lambda run: float(run.metrics[column].dropna().iloc[-1])


def gain(run: Run) -> float:
    """Test accuracy less that of the evaluation before the first update, in points."""
    return stats.final_accuracy(run) - 100 * float(run.metrics["eval/accuracy"].dropna().iloc[0])


@tested_by_seed(equal)
def ends_equal(claim: Claim, records: Records) -> Gaps:
    """Hypothesis: the method ends as accurate as its reference.

    Statistic: the difference in test accuracy, paired by seed. Thresholds `points`, the margin, and `alpha`: TOST, or
    two tests that find it beyond the margin, after Holm's correction.
    """
    return _pair(claim, records, stats.final_accuracy)


@tested_by_seed(above)
def ends_above(claim: Claim, records: Records) -> Gaps:
    """Hypothesis: the method ends above its reference.

    Statistic: the difference in test accuracy, paired by seed. Threshold `alpha` of a one-sided t-test, after Holm's
    correction: holds where it is found above 0, fails where below.
    """
    return _pair(claim, records, stats.final_accuracy)


@tested_by_seed(above, "tokens")
def ends_longer(claim: Claim, records: Records) -> Gaps:
    """Hypothesis: the method's held-out responses end longer than its reference's.

    Statistic: the difference of mean lengths in the last evaluation, paired by seed. Threshold `alpha`: as above.
    """
    return _pair(claim, records, final("eval/mean_length"))


@tested_by_seed(above, "nats", digits=2)
def keeps_more_entropy(claim: Claim, records: Records) -> Gaps:
    """Hypothesis: the method's held-out responses end with more entropy per token than its reference's.

    Statistic: the difference in the last evaluation, paired by seed. Threshold `alpha`: as above.
    """
    return _pair(claim, records, final("eval/entropy"))


@tested_by_seed(under)
def ends_below_its_base(claim: Claim, records: Records) -> Gaps:
    """Hypothesis: the policy ends below the base that it began as.

    Statistic: test accuracy less that of the first evaluation, by seed. Threshold `alpha`: holds where a one-sided
    t-test finds it below 0, fails where above.
    """
    return _of_each(claim, records, gain)


@tested_by_seed(equal)
def stays_at_its_base(claim: Claim, records: Records) -> Gaps:
    """Hypothesis: the policy ends where it began.

    Statistic: test accuracy less that of the first evaluation, by seed. Thresholds `points` and `alpha`: TOST.
    """
    return _of_each(claim, records, gain)
