"""What credit that is not uniform bought, at what price, and when an LLM's MDP is no bandit, in three sentences.

Chapters 10 and 10b. Their words follow from 95 % intervals over the seeds that are recorded, and from enumeration. The
claims in the ledger ask the same by planned tests, corrected for their number.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from rlino_lib.analysis import statistics as stats
from rlino_lib.analysis.credit import sampled_tokens
from rlino_lib.claims.credit import above_at_tokens, credit_runs
from rlino_lib.claims.families import difference
from rlino_lib.claims.ledger import Records
from rlino_lib.claims.verdicts import FAILS, HOLDS, UNDECIDED, mean_in_words, verdict_above_zero
from rlino_lib.errors import RlinoError
from rlino_lib.exact.hidden_target import optima
from rlino_lib.records.runs import Run
from rlino_lib.tasks import HiddenTarget

TASKS = ("word_problems", "countdown")
Pairs = list[tuple[Run, Run]]  # VinePPO's run and RLOO's of the same seed


def answers(records: Records, lies: float = 0.2) -> list[str]:
    """What credit by steps bought, what it cost, and when the MDP is no bandit: three sentences.

    `lies` is the chance of a lie that the third one names. Raises RlinoError where no task has two seeds of VinePPO and
    RLOO.
    """
    pairs = {task: runs for task in TASKS if len(runs := _pairs(task, records)) > 1}
    if not pairs:
        raise RlinoError("no task has two seeds of VinePPO and of RLOO on record: rlino grid data/runs/credit-….json")
    return [_bought(pairs), _price(pairs), _no_bandit(lies)]


def _pairs(task: str, records: Records) -> Pairs:
    vine, rloo = credit_runs(task, records, "vineppo", "rloo").values()
    return [(vine[seed], rloo[seed]) for seed in sorted(set(vine) & set(rloo))]


def _gaps(pairs: Pairs, number: Callable[[Run, Run], float]) -> pd.Series:
    return pd.Series([number(vine, rloo) for vine, rloo in pairs])


def _bought(pairs: dict[str, Pairs]) -> str:
    sides = {HOLDS: "above RLOO", FAILS: "below RLOO", UNDECIDED: "where RLOO does, as far as can be told"}
    words = []
    for task, runs in pairs.items():
        gaps = _gaps(runs, difference(stats.final_accuracy))
        words.append(f"on {task.replace('_', ' ')} {sides[verdict_above_zero(gaps)]} ({mean_in_words(gaps)})")
    return f"After as many updates, VinePPO ends {', and '.join(words)}."


def _price(pairs: dict[str, Pairs]) -> str:
    sides = {HOLDS: "ahead", FAILS: "behind", UNDECIDED: "not told apart from it"}
    words = []
    for task, runs in pairs.items():
        times = _gaps(runs, lambda vine, rloo: sampled_tokens(vine).iloc[-1] / sampled_tokens(rloo).iloc[-1]).mean()
        gaps = -_gaps(runs, lambda vine, rloo: above_at_tokens(rloo, vine))
        where = f"where it is {sides[verdict_above_zero(gaps)]} at equal tokens ({mean_in_words(gaps)})"
        words.append(f"{times:.1f} times as many tokens on {task.replace('_', ' ')}, {where}")
    return f"It samples {', and '.join(words)}."


def _no_bandit(lies: float) -> str:
    best = optima(HiddenTarget().problems("test"), [0.0, lies]).set_index(["tool", "lies"])
    look, liar, tool = (best.loc[row] for row in (("look", 0.0), ("look", lies), ("calculator", 0.0)))
    return (
        "An LLM's MDP is no bandit where something writes into the text what no response could know beforehand: the "
        f"best policy that reads a look is right in {look['policy']:.0%}, or {liar['policy']:.0%} where {lies:.0%} of "
        f"the looks lie, and the best fixed response in {look['response']:.1%}, while a calculator adds "
        f"{100 * tool['gap']:.0f} points."
    )
