"""Evidence on an environment that writes, and on restarts (chapter 10b): exact, and recorded runs paired by seed.

Holm's correction is over all tests of this module.
"""

from __future__ import annotations

from pathlib import Path

from rlino_lib.analysis import statistics as stats
from rlino_lib.claims.families import Gaps, above, each_named, last, pair_named, tested_by_seed
from rlino_lib.claims.ledger import Claim, Evidence, NotTestable, Records, evidence
from rlino_lib.claims.verdicts import FAILS, HOLDS
from rlino_lib.exact.hidden_target import optima
from rlino_lib.folders import asked_and_found
from rlino_lib.records.runs import Run
from rlino_lib.tasks import HiddenTarget


@evidence
def closed_loop_is_better(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: the best policy that reads what is written beats the best response fixed beforehand.

    Statistic: the mean gap over all test problems, by enumeration, in points, of a look that lies with chance `lies`
    and of a calculator. Threshold `points`: holds where the look's is at least that and the calculator's is 0.
    """
    table = optima(HiddenTarget().problems("test"), [claim.threshold["lies"]]).set_index("tool")
    look, calculator = 100 * table["gap"]["look"], 100 * table["gap"]["calculator"]
    verdict = HOLDS if look >= claim.threshold["points"] and calculator == 0 else FAILS
    best, fixed = 100 * table["policy"]["look"], 100 * table["response"]["look"]
    return Evidence(verdict, f"{best:.1f} % against {fixed:.1f} % with a look; with a calculator they are equal")


def repair_rate(run: Run, attempts: int) -> float:
    """Accuracy in points from wrong prefixes of so many attempts, by `rlino evaluate` in the run's `repair-N`."""
    result = asked_and_found(Path(run.path) / f"repair-{attempts}" / "evaluation.json")[1]
    if result is None:
        raise NotTestable(f"{run.name} has no evaluation from wrong attempts: repair-{attempts}")
    return 100 * result["pass@1"]["value"]


@tested_by_seed(above)
def trained_beats_the_fixed(claim: Claim, records: Records) -> Gaps:
    """Hypothesis: the trained policy ends above the best response fixed beforehand.

    Statistic: test accuracy less that response's exact chance, by seed. Threshold `alpha` of a one-sided t-test, after
    Holm's correction: holds where it is found above 0, fails where below.
    """
    gaps, runs = each_named(claim, records, stats.final_accuracy)
    return gaps - 100 * optima(HiddenTarget().problems("test"), [0.0], ["look"])["response"].item(), runs


@tested_by_seed(above)
def mask_by_writer_ends_above(claim: Claim, records: Records) -> Gaps:
    """Hypothesis: a loss that counts the policy's tokens alone ends above one that counts others.

    Statistic: the difference in test accuracy, paired by seed. Threshold `alpha`: as above.
    """
    return pair_named(claim, records, stats.final_accuracy)


@tested_by_seed(above, "nats per token", digits=2)
def unmasked_learns_the_environment(claim: Claim, records: Records) -> Gaps:
    """Hypothesis: a loss that counts all tokens moves the log-probability of the environment's further up.

    Statistic: its rise in training, nats per token, paired by seed. Threshold `alpha`: as above.
    """

    def rise(run: Run) -> float:
        column = run.metrics["eval/environment_logprob"].dropna()
        return float(column.iloc[-1] - column.iloc[0])

    return pair_named(claim, records, rise)


@tested_by_seed(above)
def learns_to_look(claim: Claim, records: Records) -> Gaps:
    """Hypothesis: with the answer's reward alone, no first stage for the format, the policy learns to ask.

    Statistic: the share of held-out responses that look at the end, less the threshold `points`. `alpha`: as above.
    """
    gaps, runs = each_named(claim, records, lambda run: 100 * last("eval/consulted")(run))
    return gaps - claim.threshold["points"], runs


@tested_by_seed(above)
def restarts_repair(claim: Claim, records: Records) -> Gaps:
    """Hypothesis: training that restarts from wrong attempts raises accuracy from there more than from scratch.

    Statistic: the mean repair rate from one and from two wrong attempts less accuracy from scratch, against the same of
    runs without restarts, paired by seed. Threshold `alpha`: as above.
    """
    return pair_named(claim, records, lambda r: (repair_rate(r, 1) + repair_rate(r, 2)) / 2 - stats.final_accuracy(r))
