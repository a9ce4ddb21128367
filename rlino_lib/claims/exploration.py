"""Evidence on entropy and exploration (chapter 11b): BARL's task of elimination exactly, and recorded runs by seed.

Holm's correction is over all tests of this module.
"""

from __future__ import annotations

from rlino_lib.analysis import statistics as stats
from rlino_lib.claims.families import Gaps, above, equal, last, pair_named, tested_by_seed
from rlino_lib.claims.ledger import Claim, Evidence, Records, evidence
from rlino_lib.claims.verdicts import FAILS, HOLDS
from rlino_lib.exact.hypotheses import HELD_OUT, learn


@evidence
def elimination_is_learned(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: on the held-out prompt ordinary RL fails, and BARL's objective does not.

    Statistic: the exact chance of success there after training, the worst of three seeds for BARL, the best for
    ordinary RL. Thresholds `most` for ordinary RL and `least` for BARL.
    """
    ends = {}
    for prior in ("the truth", "three repeats"):
        tables = [learn(prior, steps=60, seed=seed) for seed in range(3)]
        ends[prior] = [t[(t["prompt"] == HELD_OUT) & (t["step"] == t["step"].max())]["right"].item() for t in tables]
    ordinary, barl = max(ends["the truth"]), min(ends["three repeats"])
    verdict = HOLDS if ordinary <= claim.threshold["most"] and barl >= claim.threshold["least"] else FAILS
    words = (
        f"right on it, exactly, over 3 seeds: ordinary RL {ordinary:.0%} at most, three hypotheses {barl:.0%} at least"
    )
    return Evidence(verdict, words)


@tested_by_seed(above)
def ends_above(claim: Claim, records: Records) -> Gaps:
    """Hypothesis: the method ends above its reference.

    Statistic: the difference in test accuracy, paired by seed. Threshold `alpha` of a one-sided t-test, after Holm's
    correction: holds where it is found above 0, fails where below.
    """
    return pair_named(claim, records, stats.final_accuracy)


@tested_by_seed(equal)
def ends_equal(claim: Claim, records: Records) -> Gaps:
    """Hypothesis: the method ends as accurate as its reference.

    Statistic: as above. Thresholds `points`, the margin, and `alpha`: TOST, or two tests that find it beyond that.
    """
    return pair_named(claim, records, stats.final_accuracy)


@tested_by_seed(above, "nats per token", digits=2)
def keeps_more_entropy(claim: Claim, records: Records) -> Gaps:
    """Hypothesis: the method's held-out responses end with more entropy than its reference's.

    Statistic: the difference in the last evaluation, nats per token, paired by seed. Threshold `alpha`: as above.
    """
    return pair_named(claim, records, last("eval/entropy"))


@tested_by_seed(above, "tokens")
def ends_longer(claim: Claim, records: Records) -> Gaps:
    """Hypothesis: the method's held-out responses end longer than its reference's.

    Statistic: the difference of mean lengths in the last evaluation, paired by seed. Threshold `alpha`: as above.
    """
    return pair_named(claim, records, last("eval/mean_length"))
