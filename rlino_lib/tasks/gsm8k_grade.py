"""GSM8K's graders by name, and how numbers are read (chapter 02). No data, no prompts.

`strict` and `flexible` look where verl's look (verl/utils/reward_score/gsm8k.py): at the last `####`, or the last
number, of the last 300 characters. `boxed` reads the last `\\boxed{}` that closes. These three compare by value.
`strict-match` and `flexible-extract` are lm-evaluation-harness's filters (lm_eval/tasks/gsm8k/gsm8k.yaml), to the
letter: the first `####` or the last number of the whole response, compared as text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from rlino_lib.tasks.base import Grade
from rlino_lib.tasks.countdown import REWARDS

TAIL = 300  # characters; verl's grader looks no further back, and so the work is bounded on any response
BOXES = 20  # boxes that are tried from the end; one that does not close within `TAIL` characters is passed over

# --- numbers ---------------------------------------------------------------------------------------------------------

_NUMBER = re.compile(r"(-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))(?:/([0-9]+))?", re.ASCII)
_THOUSANDS = re.compile(r"(?<=[0-9])[ \u00a0\u2009\u202f](?=[0-9]{3}(?![0-9]))", re.ASCII)
_IGNORED = str.maketrans({"$": "", ",": "", "\u2212": "-"})  # the last is the minus sign of typesetters


def number(text: str) -> Fraction | None:
    """The exact value of a number as people write it; None for any other text.

    `$`, commas, spaces around it or between thousands, and a `%` or full stop at the end do not count, so that `50%`
    is 50. A minus may be Unicode's. `1/2` is a half. Exponents, words and digits of other scripts are no numbers.
    """
    if len(text) > TAIL:
        return None
    found = _NUMBER.fullmatch(_THOUSANDS.sub("", text.translate(_IGNORED).rstrip(" %.\n\t")).strip())
    if found is None or (found[2] and not int(found[2])):
        return None
    return Fraction(found[1].rstrip(".")) / int(found[2] or 1)


_LATEX = [  # what stands around a number in a box, in the order in which it goes
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\{([^{}]*)\}"), r"\1"),
    (re.compile(r"(?<![0-9])\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}"), r"\1/\2"),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"\\[,;:! ]"), " "),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"[A-Za-z ]+$"), ""),  # a unit
]


def latex_number(text: str) -> Fraction | None:
    """The value of a box: a number, which may be a LaTeX fraction and may have a unit after it; else None."""
    if len(text) > TAIL:
        return None
    for pattern, into in _LATEX:
        text = pattern.sub(into, text)
    return number(text)


def harness_text(text: str) -> str | None:
    """What lm-evaluation-harness compares, after its `regexes_to_ignore`: `,`, `$`, all up to `#### `, a final `.`."""
    return text.replace(",", "").replace("$", "").rpartition("#### ")[2].removesuffix(".") or None


# --- where the answer stands -----------------------------------------------------------------------------------------

# verl's `-?[0-9.,]+`, and what `number` reads besides.
_WRITTEN = r"(?:[-\u2212]?\$?|\$[-\u2212])[0-9.,]+(?:/[0-9]+)?"
_STRICT = re.compile(rf"####[ \t]*({_WRITTEN})", re.ASCII)
_ANY = re.compile(_WRITTEN, re.ASCII)
_STRICT_MATCH = re.compile(r"#### (-?[0-9.,]+)", re.ASCII)
_BACKWARDS = re.compile(r"[$0-9.,](?:[$0-9.,]+|(?<=[0-9]))-?", re.ASCII)
_BOX = r"\boxed{"


def extract_strict(response: str) -> str | None:
    """What follows the last `####` that a number follows, as it is written; None where there is none in the tail."""
    found = _STRICT.findall(response[-TAIL:])
    return found[-1] if found else None


def extract_flexible(response: str) -> str | None:
    """The last number in the tail, as it is written. As in verl, `10-3` ends in -3."""
    found = [text for text in _ANY.findall(response[-TAIL:]) if text.strip("$.,-\u2212")]
    return found[-1] if found else None


def extract_boxed(response: str) -> str | None:
    """What stands in the last `\\boxed{}` that closes, braces in pairs; bounded work, however many do not."""
    end = len(response)
    for _ in range(BOXES):
        end = response.rfind(_BOX, 0, end)
        if end < 0:
            return None
        first, depth = end + len(_BOX), 1
        for i, c in enumerate(response[first : first + TAIL], first):
            depth += (c == "{") - (c == "}")
            if not depth:
                return response[first:i]
    return None


def extract_strict_match(response: str) -> str | None:
    """What follows the first `#### ` that a number follows, anywhere."""
    found = _STRICT_MATCH.search(response)
    return found[1] if found else None


def extract_flexible_extract(response: str) -> str | None:
    """The last match of `(-?[$0-9.,]{2,})|(-?[0-9]+)`, anywhere.

    Matches are whole runs of `[$0-9.,]`, so the last of them is the first of the text read backwards, and what stands
    before it need not be looked at.
    """
    found = _BACKWARDS.search(response[::-1])
    return found[0][::-1] if found else None


# --- grading ---------------------------------------------------------------------------------------------------------


class Grader(NamedTuple):
    """Where the answer stands, how it is read for the comparison, and what it is, in words."""

    extract: Callable[[str], str | None]
    read: Callable[[str], Any]
    what: str


GRADERS = {
    "strict": Grader(extract_strict, number, "#### with a number"),
    "flexible": Grader(extract_flexible, number, "number"),
    "boxed": Grader(extract_boxed, latex_number, r"\boxed{} that closes"),
    "strict-match": Grader(extract_strict_match, harness_text, "#### with a number"),
    "flexible-extract": Grader(extract_flexible_extract, harness_text, "number"),
}


def grade(gold: int | str, response: str, rewards: str = "binary", grader: str = "strict") -> Grade:
    """Grade one response by a grader of `GRADERS`. Bounded work on any string; never raises on its account.

    `gold` is a number that `number` can read. The two filters of lm-evaluation-harness compare its text.
    """
    right, wrong, none = REWARDS[rewards]
    extract, read, what = GRADERS[grader]
    answer = extract(response)
    value = read(answer) if answer is not None else None
    if value is None:
        reason = f"no {what}" if answer is None else f"{answer[:20]!r} is not a number"
        return Grade(none, False, False, answer and answer[:TAIL], reason)
    correct = value == read(str(gold))
    said = f"answers {str(value)[:40]}" + ("" if correct else f", not {str(gold)[:40]}")
    return Grade(right if correct else wrong, correct, True, answer[:TAIL], said)


def strict(gold: int | str, response: str, rewards: str = "binary") -> Grade:
    """Grade one response by the number after its last `####`."""
    return grade(gold, response, rewards)


def gold_from_record(record: Mapping[str, Any]) -> str:
    """The gold of one line of `rlino grade`: its `gold`, a number, or GSM8K's own `answer`, a solution with `####`.

    Raises ValueError, in words, for anything else.
    """
    key = next((k for k in ("gold", "answer") if k in record), None)
    if key is None:
        raise ValueError("no key 'gold' or 'answer'")
    if type(record[key]) not in (int, float, str):  # type(): True is an int to isinstance
        raise ValueError(f"{key} is not a number or a string")
    text = str(record[key])
    text = extract_strict(text) or text.strip()
    if number(text) is None:
        raise ValueError(f"{key} holds no number")
    return text
