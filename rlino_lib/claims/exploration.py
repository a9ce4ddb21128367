"""Evidence on exploration (chapter 11b): BARL's task of elimination, exactly."""

from __future__ import annotations

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
