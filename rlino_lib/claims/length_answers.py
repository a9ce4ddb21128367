"""What the claims on length come to, in sentences (chapter 08c): their words follow from verdicts and intervals.

A verdict says on which side of its threshold an interval lies. A reader asks first whether there is any effect at all.
So the words tell both: where the interval lies to the threshold, and where to no effect.
"""

from __future__ import annotations

import math

import pandas as pd

from rlino_lib.analysis.giving_up import log_ratios
from rlino_lib.analysis.growth import parts_of
from rlino_lib.analysis.statistics import median_interval
from rlino_lib.claims import verdicts
from rlino_lib.claims.judge import judge
from rlino_lib.claims.ledger import Claim, Records
from rlino_lib.claims.length import judged_giving_up, length_runs, shares_of_fall
from rlino_lib.claims.verdicts import FAILS, HOLDS, UNDECIDED, UNTESTED, mean_in_words, verdict_above_zero

# What the parts of the growth of wrong responses (`Parts`) say.
PARTS_IN_WORDS = {
    "selection": "other problems are wrong than at first",
    "within": "fewer wrong responses leave a step out",
    "truncated": "more wrong responses are truncated",
    "longer": "wrong responses of the same kind are longer",
}


# Sentences on giving up by a claim's verdict, and by that on any effect at all; {share} is the claim's threshold. Where
# the claim holds there is an effect, and the contrary of one refutes it.
_WITH_IT = "With 1/|o| a search gives up less often than with a constant"
GIVING_UP = {
    "caused-giving-up": {
        (HOLDS, HOLDS): "{share} or more. That much of the fall in giving up from the base is caused by 1/|o|",
        (FAILS, HOLDS): "A part, less than {share}. The rest of the fall in giving up is there without 1/|o|",
        (FAILS, UNDECIDED): "Less than {share}, and perhaps none. The fall in giving up is there without 1/|o|",
        (FAILS, FAILS): "None. With a constant giving up falls further from the base than with 1/|o|",
        (UNDECIDED, HOLDS): "A part. Whether 1/|o| causes {share} or more of the fall in giving up is open",
        (UNDECIDED, UNDECIDED): "Open. That 1/|o| causes {share} of the fall in giving up is not excluded, and none is "
        "not either",
    },
    "lowers-giving-up": {
        (HOLDS, HOLDS): f"Yes. {_WITH_IT}, by {{share}} or more",
        (FAILS, HOLDS): f"Yes, a little. {_WITH_IT}, but not by {{share}} or more",
        (FAILS, UNDECIDED): "Not to be seen. That 1/|o| lowers giving up by {share} or more is excluded, and no effect "
        "at all is not",
        (FAILS, FAILS): "No, the contrary. With 1/|o| a search gives up more often than with a constant",
        (UNDECIDED, HOLDS): f"Yes. {_WITH_IT}; whether by {{share}} or more is open",
        (UNDECIDED, UNDECIDED): "Open. That 1/|o| lowers giving up by {share} or more is not excluded, and no effect "
        "at all is not either",
    },
}


def giving_up_in_words(records: Records) -> dict[str, str]:
    """A sentence for each of the two claims on giving up, by the claim's id; needs the ledger of `records`."""
    sentences = {}
    for name, words in GIVING_UP.items():
        claim = _claim(name, records)
        result = judge(claim, records)
        if result.verdict == UNTESTED:
            sentences[name] = f"No answer here: {result.effect}."
            continue
        runs, rates = judged_giving_up(claim, records)
        if name == "caused-giving-up":
            effects = shares_of_fall(runs, rates)[1]
            ends = (100 * x for x in (effects.median(), *median_interval(effects)))
            number = "{:.0f} % [{:.0f}, {:.0f}] of the fall is absent with a constant".format(*ends)
        else:
            effects = log_ratios(rates["constant"], rates["per_response"])
            ratios = -effects
            ends = (math.exp(x) for x in (ratios.median(), *median_interval(ratios)))
            number = "median ratio to a constant {:.2f} [{:.2f}, {:.2f}]".format(*ends)
        sentence = words[result.verdict, verdict_above_zero(effects, median_interval)]
        share = f"{100 * claim.threshold['share']:.0f} %"
        sentences[name] = f"{sentence.format(share=share)} ({number}, {len(effects)} seeds)."
    return sentences


def _claim(name: str, records: Records) -> Claim:
    (claim,) = (claim for claim in records.ledger if claim.id == name)
    return claim


def answers(records: Records) -> dict[str, str]:
    """The four questions of the chapters on length and the answers that the records give; needs their ledger."""
    giving_up = giving_up_in_words(records)
    return {
        "Does the mechanism exist?": _mechanism(records),
        "Is it there in search?": giving_up["lowers-giving-up"],
        "How much of the growth is it?": f"{giving_up['caused-giving-up']} {_growth_left(records)}",
        "What is the rest?": f"{_largest_part(records, 'countdown', 'Countdown')} {_bought(records)} "
        f"{_largest_part(records, 'word_problems', 'the word problems')}",
    }


def _mechanism(records: Records) -> str:
    results = {name: judge(_claim(name, records), records) for name in ("room-sgd", "room-adam", "room-controls-sgd")}
    verdict = verdicts.verdict_on_all([results[name].verdict for name in ("room-sgd", "room-adam")])
    sgd, adam, controls = (result.effect for result in results.values())
    words = ("Yes.", "With conditions.", "Not as strongly as the ledger asks.", "Open.", "No answer here.")
    exists = dict(zip(verdicts.VERDICTS, words, strict=True))
    stay = " (within the margin of no difference)" if results["room-controls-sgd"].verdict == HOLDS else ""
    return (
        f"{exists[verdict]} In the clean room filler after bad less filler after good is {sgd} by SGD and {adam} with "
        f"Adam under 1/|o|, and by SGD without it: {controls}{stay}."
    )


def _growth_left(records: Records) -> str:
    """The growth of wrong responses under GRPO on Countdown, with a constant in place of 1/|o|."""
    result = judge(_claim("caused-countdown", records), records)
    whole = judge(_claim("survives-countdown", records), records)
    if UNTESTED in (result.verdict, whole.verdict):
        return "There are not enough runs to compare mean lengths."
    left = {HOLDS: "is there", verdicts.CONDITIONS: "is there in part"}.get(whole.verdict, "is not beyond doubt")
    return f"Growth of the mean length without 1/|o| {left}: {whole.effect}."


def _largest_part(records: Records, task: str, name: str) -> str:
    """Which part of the growth of wrong responses under GRPO with a constant is the largest, with its interval."""
    runs = length_runs(task, "grpo", "constant", records)
    if not runs:
        return f"On {name} there are no runs to take apart."
    parts = pd.DataFrame([parts_of(run) for run in runs])  # [seeds, parts]
    largest = parts.mean().idxmax()
    part = mean_in_words(parts[largest], "tokens")
    total = parts.sum(axis=1).mean()
    return f"On {name} the largest part without 1/|o| is that {PARTS_IN_WORDS[largest]}: {part}, of {total:+.1f}."


def _bought(records: Records) -> str:
    """Whether longer searches buy accuracy."""
    result = judge(_claim("buys-countdown", records), records)
    words = {HOLDS: "Longer searches buy accuracy", FAILS: "Longer searches buy little accuracy"}
    return f"{words.get(result.verdict, 'Whether longer searches buy accuracy is open')}: {result.effect}."
