"""Evidence on the relatives of GRPO (chapter 11): preferences, rewards of the model's own, and coins.

Exact, and on recorded runs by seed. Holm's correction is over all tests of this module.
"""

from __future__ import annotations

import torch

from rlino_lib.analysis import statistics as stats
from rlino_lib.claims.bandit import equal_sides, toy
from rlino_lib.claims.families import Gaps, above, each_named, equal, last, pair_named, tested_by_seed, under
from rlino_lib.claims.ledger import Claim, Evidence, Records, evidence
from rlino_lib.claims.verdicts import FAILS, HOLDS
from rlino_lib.exact.identities import TokenLM, first_step_of_dpo, preferences_are_weighted_sft, sample_mdp
from rlino_lib.exact.spurious import mean_steps
from rlino_lib.exact.token_mdp import SharedPolicy
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.methods.preference import Preferred
from rlino_lib.policy.logprobs import response_logprobs
from rlino_lib.records.runs import Run


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

    Statistic: the mean change of the favourite's chance by a batch, of a policy of two actions, by enumeration.
    Thresholds: `gap`, up to which a change of the chance counts as none but for the curvature of σ, `updates` and `lr`.
    """
    updates = int(claim.threshold["updates"])
    table = {}
    for name, method in (("clip", "grpo_no_kl"), ("none", "grpo_no_clip")):
        steps = mean_steps(OBJECTIVES[method], [0.6, 0.9], [1, updates], claim.threshold["lr"])
        table[name] = steps.set_index(["p", "updates"])["step"]
    first = max(abs(steps.xs(1, level="updates")).max() for steps in table.values())
    clipped, plain = (table[name].xs(updates, level="updates") for name in ("clip", "none"))
    ordered = bool(((plain < clipped) & (clipped < 0)).all())
    verdict = HOLDS if first <= claim.threshold["gap"] and ordered else FAILS
    one = f"by one batch, of two actions: one update {first:.1e} at most"
    words = f"{one}; {updates} updates {plain[0.9]:+.2g} without a clip, {clipped[0.9]:+.2g}"
    return Evidence(verdict, f"{words} with one, from 0.9")


def gain(run: Run) -> float:
    """Test accuracy less that of the evaluation before the first update, in points."""
    return stats.final_accuracy(run) - 100 * float(run.metrics["eval/accuracy"].dropna().iloc[0])


@tested_by_seed(equal)
def ends_equal(claim: Claim, records: Records) -> Gaps:
    """Hypothesis: the method ends as accurate as its reference.

    Statistic: the difference in test accuracy, paired by seed. Thresholds `points`, the margin, and `alpha`: TOST, or
    two tests that find it beyond the margin, after Holm's correction.
    """
    return pair_named(claim, records, stats.final_accuracy)


@tested_by_seed(above)
def ends_above(claim: Claim, records: Records) -> Gaps:
    """Hypothesis: the method ends above its reference.

    Statistic: the difference in test accuracy, paired by seed. Threshold `alpha` of a one-sided t-test, after Holm's
    correction: holds where it is found above 0, fails where below.
    """
    return pair_named(claim, records, stats.final_accuracy)


@tested_by_seed(above, "tokens")
def ends_longer(claim: Claim, records: Records) -> Gaps:
    """Hypothesis: the method's held-out responses end longer than its reference's.

    Statistic: the difference of mean lengths in the last evaluation, paired by seed. Threshold `alpha`: as above.
    """
    return pair_named(claim, records, last("eval/mean_length"))


@tested_by_seed(above)
def rises(claim: Claim, records: Records) -> Gaps:
    """Hypothesis: the policy ends above the base that it began as.

    Statistic: test accuracy less that of the evaluation before the first update, by seed. Threshold `alpha`: as above.
    """
    return each_named(claim, records, gain)


@tested_by_seed(under)
def falls(claim: Claim, records: Records) -> Gaps:
    """Hypothesis: the policy ends below the base that it began as.

    Statistic and threshold: as above, to the other side.
    """
    return each_named(claim, records, gain)


@tested_by_seed(equal)
def stays(claim: Claim, records: Records) -> Gaps:
    """Hypothesis: the policy ends where it began.

    Statistic: as above. Thresholds `points` and `alpha`: TOST, or two tests that find it beyond the margin.
    """
    return each_named(claim, records, gain)
