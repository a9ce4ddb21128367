"""What the claims on length come to, in sentences (chapter 08c): their words follow from verdicts and intervals.

A verdict says on which side of its threshold an interval lies. A reader asks first whether there is any effect at all.
So the words tell both: where the interval lies to the threshold, and where to no effect.
"""

from __future__ import annotations

import math
from statistics import mean

import pandas as pd

from rlino_lib.analysis.giving_up import log_ratios
from rlino_lib.analysis.growth import Parts, parts_of
from rlino_lib.analysis.statistics import median_interval
from rlino_lib.claims.judge import judge
from rlino_lib.claims.ledger import Claim, Records
from rlino_lib.claims.length import judged_giving_up, length_runs, shares_of_fall
from rlino_lib.claims.verdicts import CONDITIONS, FAILS, HOLDS, UNDECIDED, UNTESTED, mean_in_words, verdict_on_all

# What the parts of the growth of wrong responses (`Parts`) say.
PARTS_IN_WORDS = {
    "selection": "other problems are wrong than at first",
    "within": "fewer wrong responses leave a step out",
    "truncated": "more wrong responses are truncated",
    "longer": "wrong responses of the same kind are longer",
}


def lowers_in_words(verdict: str, ratios: pd.Series, share: float) -> str:
    """Whether 1/|o| lowers giving up by the share, from the verdict on it and the log-ratios to a constant, by seed."""
    low, high = (math.exp(end) for end in median_interval(ratios))
    number = f"median ratio to a constant {math.exp(ratios.median()):.2f} [{low:.2f}, {high:.2f}]"
    number = f"({number}, {len(ratios)} seeds)"
    asked = f"by {100 * share:.0f} % or more"
    if verdict == HOLDS:
        return f"Yes. With 1/|o| a search gives up less often than with a constant, {asked} {number}."
    if verdict == FAILS and high < 1:
        return f"Yes, a little. With 1/|o| a search gives up less often than with a constant, but not {asked} {number}."
    if verdict == FAILS and low > 1:
        return f"No, the contrary. With 1/|o| a search gives up more often than with a constant {number}."
    if verdict == FAILS:
        return f"Not to be seen. That 1/|o| lowers giving up {asked} is excluded, and no effect at all is not {number}."
    if high < 1:
        return f"Yes. With 1/|o| a search gives up less often than with a constant; whether {asked} is open {number}."
    return f"Open. That 1/|o| lowers giving up {asked} is not excluded, and no effect at all is not either {number}."


def causes_in_words(verdict: str, shares: pd.Series, share: float) -> str:
    """How much of the fall in giving up 1/|o| causes, from the verdict on the share and the shares of the fall by seed.

    A share is what is absent of the fall with a constant in place of 1/|o|.
    """
    low, high = (100 * end for end in median_interval(shares))
    number = f"{100 * shares.median():.0f} % [{low:.0f}, {high:.0f}] of the fall is absent with a constant"
    number = f"({number}, {len(shares)} seeds)"
    half = f"{100 * share:.0f} %"
    if verdict == HOLDS:
        return f"{half} or more. That much of the fall in giving up from the base is caused by 1/|o| {number}."
    if high < 0:
        return f"None. With a constant giving up falls further from the base than with 1/|o| {number}."
    if verdict == FAILS and low > 0:
        return f"A part, less than {half}. The rest of the fall in giving up is there without 1/|o| {number}."
    if verdict == FAILS:
        return f"Less than {half}, and perhaps none. The fall in giving up is there without 1/|o| {number}."
    if low > 0:
        return f"A part. Whether 1/|o| causes {half} or more of the fall in giving up is open {number}."
    return f"Open. That 1/|o| causes {half} of the fall in giving up is not excluded, and none is not either {number}."


def giving_up_in_words(records: Records) -> dict[str, str]:
    """A sentence for each of the two claims on giving up, by the claim's id; needs the ledger of `records`."""
    sentences = {}
    for name, words in (("caused-giving-up", causes_in_words), ("lowers-giving-up", lowers_in_words)):
        claim = _claim(name, records)
        result = judge(claim, records)
        if result.verdict == UNTESTED:
            sentences[name] = f"No answer here: {result.effect}."
            continue
        runs, rates = judged_giving_up(claim, records)
        ratios = log_ratios(rates["per_response"], rates["constant"])
        values = ratios if words is lowers_in_words else shares_of_fall(runs, rates)[1]
        sentences[name] = words(result.verdict, values, claim.threshold["share"])
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


_EXISTS = {
    HOLDS: "Yes.",
    CONDITIONS: "With conditions.",
    FAILS: "Not as strongly as the ledger asks.",
    UNDECIDED: "Open.",
    UNTESTED: "No answer here.",
}


def _mechanism(records: Records) -> str:
    results = {name: judge(_claim(name, records), records) for name in ("room-sgd", "room-adam", "room-controls-sgd")}
    verdict = verdict_on_all([results[name].verdict for name in ("room-sgd", "room-adam")])
    sgd, adam, controls = (result.effect for result in results.values())
    stay = " (within the margin of no difference)" if results["room-controls-sgd"].verdict == HOLDS else ""
    return (
        f"{_EXISTS[verdict]} In the clean room filler after bad less filler after good is {sgd} by SGD and {adam} with "
        f"Adam under 1/|o|, and by SGD without it: {controls}{stay}."
    )


def _growth_left(records: Records) -> str:
    """The growth of wrong responses under GRPO on Countdown, with a constant in place of 1/|o|."""
    result = judge(_claim("caused-countdown", records), records)
    whole = judge(_claim("survives-countdown", records), records)
    if UNTESTED in (result.verdict, whole.verdict):
        return "There are not enough runs to compare mean lengths."
    left = {HOLDS: "is there", CONDITIONS: "is there in part"}.get(whole.verdict, "is not beyond doubt")
    return f"Growth of the mean length without 1/|o| {left}: {whole.effect}."


def _largest_part(records: Records, task: str, name: str) -> str:
    """Which part of the growth of wrong responses under GRPO with a constant is the largest, with its interval."""
    runs = length_runs(task, "grpo", "constant", records)
    if not runs:
        return f"On {name} there are no runs to take apart."
    parts = [parts_of(run) for run in runs]
    means = Parts(*(mean(values) for values in zip(*parts, strict=True)))
    largest = max(Parts._fields, key=lambda field: getattr(means, field))
    part = mean_in_words(pd.Series([getattr(p, largest) for p in parts]), "tokens")
    total = mean(p.total for p in parts)
    return f"On {name} the largest part without 1/|o| is that {PARTS_IN_WORDS[largest]}: {part}, of {total:+.1f}."


def _bought(records: Records) -> str:
    """Whether longer searches buy accuracy."""
    result = judge(_claim("buys-countdown", records), records)
    words = {HOLDS: "Longer searches buy accuracy", FAILS: "Longer searches buy little accuracy"}
    return f"{words.get(result.verdict, 'Whether longer searches buy accuracy is open')}: {result.effect}."
