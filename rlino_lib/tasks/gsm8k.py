"""GSM8K's strict grader: the number after the last `####` (chapter 02)."""

from __future__ import annotations

import re
from fractions import Fraction

from rlino_lib.tasks.base import Grade
from rlino_lib.tasks.countdown import REWARDS

TAIL = 300  # characters; verl's grader looks no further back, and so the work is bounded on any response
_ANSWER = re.compile(r"#### ?(-?\$?[0-9.,]+)", re.ASCII)
_NUMBER = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)", re.ASCII)


def extract_strict(response: str) -> str | None:
    """What follows the last `####` that a number follows, as it is written; None where there is none in the tail."""
    found = _ANSWER.findall(response[-TAIL:])
    return found[-1] if found else None


def number(text: str) -> Fraction | None:
    """The exact value of a number as GSM8K writes it: commas, `$` and a full stop at the end do not count."""
    text = text.replace(",", "").replace("$", "")
    return Fraction(text.rstrip(".")) if len(text) <= TAIL and _NUMBER.fullmatch(text) else None


def strict(gold: int | str, response: str, rewards: str = "binary") -> Grade:
    """Grade one response by the number after its last `####`. Bounded work on any string; never raises on its account.

    The conventions are those of verl's strict grader (verl/utils/reward_score/gsm8k.py), with numbers compared by
    value, so that `72`, `72.0`, `$72` and `72.` are one answer. `gold` is a number that `number` can read.
    """
    right, wrong, none = REWARDS[rewards]
    answer = extract_strict(response)
    value = number(answer) if answer is not None else None
    if value is None:
        reason = "no #### with a number" if answer is None else f"{answer[:20]} after #### is not a number"
        return Grade(none, False, False, answer, reason)
    correct = value == number(str(gold))
    return Grade(
        right if correct else wrong, correct, True, answer, f"answers {value}" + ("" if correct else f", not {gold}")
    )
