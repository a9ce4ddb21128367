"""GSM8K's graders by name, and how numbers are read (chapter 02). No data, no prompts.

`strict` and `flexible` look where verl's look (verl/utils/reward_score/gsm8k.py): at the last `####`, or the last
number, of the last 300 characters. `boxed` reads the last `\\boxed{}` that closes. These three compare by value, and a
task cuts a response at its template's stop strings before they read it: `Question:` ends one at the start of a line.
`strict-match` and `flexible-extract` are lm-evaluation-harness's filters (lm_eval/tasks/gsm8k/gsm8k.yaml), to the
letter: the first `####` or the last number of the whole response, compared as text. They keep the harness's stop
strings too, and so for these two `Question:` ends a response wherever it stands, inside a sentence as well.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from rlino_lib.tasks.base import END_MARKS, REWARD_SCHEMES, Grade, Problem

TAIL = 300  # characters; verl's grader looks no further back, and so the work is bounded on any response
BOXES = 20  # boxes that are tried from the end; one that does not close within `TAIL` characters is passed over

# --- numbers ---------------------------------------------------------------------------------------------------------

_SPACES = " \u00a0\u2009\u202f"  # the last three: no break, thin, and both
_DASHES = "\u2010\u2011\u2012\u2013\ufe63\uff0d"  # hyphens, dashes and wide minus signs that stand for a minus
_SYMBOLS = "$\u20ac\xa3\xa5\u20b9"  # of currencies
_VULGAR = "\xbc-\xbe\u2150-\u215e"  # ½ and the like, each one character
_PLAIN = str.maketrans(dict.fromkeys(_SPACES, " ") | dict.fromkeys(_SYMBOLS, "$") | dict.fromkeys(_DASHES, "-"))
_PLAIN |= {0x2044: "/", 0x2212: "-"}  # the slash and the minus of mathematics
SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SHORT_SCALES = {"k": 10**3, "K": 10**3, "M": 10**6, "bn": 10**9, "B": 10**9}  # right after a digit
_SCALE = rf"(?:[{_SPACES}]?(?i:{'|'.join(SCALES)})s?\b|(?<=[0-9])(?:{'|'.join(_SHORT_SCALES)})\b)"
# Commas in groups of three, or as in 1,00,000; spaces in groups of three.
_WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{2,3})*,[0-9]{3}|[0-9]{1,3}(?: [0-9]{3})+|[0-9]+)"
_NUMBER = re.compile(
    rf"(-?)(?:\$ ?)?(-?)(?:({_WHOLE}) ([0-9]+)/([0-9]+)|({_WHOLE}(?:\.[0-9]*)?|\.[0-9]+)(?:/([0-9]+))?)"
    rf"((?:{_SCALE})*)[ %$.,\n\t]*",
    re.ASCII,
)


def number(text: str) -> Fraction | None:
    """The exact value of a number as people write it; None for any other text.

    A sign of a currency, commas and spaces between thousands, and a `%`, comma or full stop at the end do not count, so
    that `50%` is 50. A comma anywhere else makes no number: `1,5` and `1.000,50` are none. A minus may be Unicode's.
    `1/2` is a half, `1 1/2` and `1½` are three halves, `5 million` and `5M` 5,000,000. Exponents, other words and
    digits of other scripts are no numbers.

    >>> number("$1,234.50"), number("1,5")
    (Fraction(2469, 2), None)
    """
    if len(text) > TAIL:
        return None
    text = re.sub(f"[{_VULGAR}]", lambda m: " " + unicodedata.normalize("NFKC", m[0]), text).translate(_PLAIN)
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        return None
    minus, late_minus, whole, numerator, of, plain, over, scales = match.groups()
    denominator = int(of or over or 1)
    if (minus and late_minus) or not denominator or (whole and int(numerator) >= denominator):
        return None
    digits = re.sub("[, ]", "", whole or plain).rstrip(".")
    value = Fraction(digits) + Fraction(int(numerator), denominator) if whole else Fraction(digits) / denominator
    for word in re.findall(r"[A-Za-z]+", scales):
        value *= _SHORT_SCALES.get(word) or SCALES[word.lower().removesuffix("s")]
    return -value if minus or late_minus else value


_STYLE = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox)\{([^{}]*)\}"), r"\1"
_LATEX = [  # what LaTeX writes otherwise, in the order in which it goes
    (re.compile(r"\^\{(-?[0-9])\}"), r"^\1"),
    _STYLE,
    _STYLE,  # one in another
    (re.compile(r"\\!|\\(?:left|right|displaystyle)(?![A-Za-z])"), ""),
    (re.compile(r"\\[,;: ]|~|\\q?quad(?![A-Za-z])"), " "),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"(?<=[0-9])(?=\\[cdt]?frac)"), " "),  # 1\frac{1}{2} is not 11/2
    (re.compile(r"\\[cdt]?frac *(?:\{([^{}]*)\}|([0-9])) *(?:\{([^{}]*)\}|([0-9]))"), r"\1\2/\3\4"),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"\^\{? *\\circ *\}?|\\degree(?![A-Za-z])"), "\xb0"),
    (re.compile(r"^ *\{([^{}]*)\} *$|\{([A-Za-z ]*)\}"), r"\1\2"),
    (re.compile(r"^ *- +"), "-"),
    (re.compile(r" +"), " "),
]
# A name before the number, with an index or an argument: `x =`, `v_1 =`, `Total:`, `P(A) =`; or a currency.
_NAME = r"(?:\\?[A-Za-z][A-Za-z .']*(?:_\w|_\{\w+\})?(?:\([\w, ]*\))? ?[=:]|(?i:USD|EUR|GBP|INR|Rs\.?))? ?"
# A unit: words, which may have an exponent. Digits elsewhere are another number, and an operator makes a term.
_UNIT = r"(?:[A-Za-z\xb5\xb0\xb2\xb3'\" /.$%\xb7]|\(s\)|(?<=[A-Za-z])(?:-(?=[A-Za-z])|\^-?[0-9]))*"
_BOX_TEXT = re.compile(rf"{_NAME}([-$0-9., %{_VULGAR}]*(?:/(?=[0-9])[0-9]+)?[ %]?(?:{_SCALE})*)({_UNIT})", re.ASCII)
# No unit: words that make another number of the one before them, and the letters of algebra.
_NO_UNIT = re.compile(
    rf"\b(?:(?i:and|or|half|halves|thirds?|tenths?|hundredths?|thousandths?|point|(?:{'|'.join(SCALES)})s?)|[inxyz])\b"
)


def latex_number(text: str) -> Fraction | None:
    """The value of a box: a number, which may be a LaTeX fraction, after a name such as `x =` or before a unit.

    A unit is words, with exponents (`\\text{ km/h}`, `\\text{cm}^2`, `^\\circ`). None for anything else: two numbers,
    a term such as `5 x`, words that make another number (`2 and a half`).
    """
    if len(text) > TAIL:
        return None
    text = text.translate(_PLAIN)
    for pattern, into in _LATEX:
        text = pattern.sub(into, text)
    match = _BOX_TEXT.fullmatch(text.strip())
    return number(match[1]) if match and not _NO_UNIT.search(match[2]) else None


def harness_text(text: str) -> str | None:
    """What lm-evaluation-harness compares, after its `regexes_to_ignore`: `,`, `$`, all up to `#### `, a final `.`."""
    return text.replace(",", "").replace("$", "").rpartition("#### ")[2].removesuffix(".") or None


# --- where the answer stands -----------------------------------------------------------------------------------------

# verl's `-?[0-9.,]+`, and what `number` reads besides, or refuses since it is another number: 1e5, 10^3, 3:30, 1'000.
_SIGN = rf"(?:[-\u2212]|(?<![0-9])[{_DASHES}])"
_DIGITS = rf"(?:[0-9]{{1,3}}(?:[{_SPACES}][0-9]{{3}}(?![0-9]))+[0-9.,]*|[0-9.,]+)"
_PART = rf"(?:/[0-9]+|[{_SPACES}][0-9]+/[0-9]+|[{_SPACES}]?[{_VULGAR}])"
_GLUED = r"(?:[:'\u2019_/][0-9]+|[eE][-+]?[0-9]+|\^\{?-?[0-9]+| ?(?:[*x\xd7\xb7]|\\times) ?10(?:\^|\*\*)\{?-?[0-9]*)"
_CURRENCY = rf"[{_SYMBOLS}][{_SPACES}]?"
_WRITTEN = (
    rf"(?:{_SIGN}?(?:{_CURRENCY})?|{_CURRENCY}{_SIGN})(?:{_DIGITS}{_PART}?|[{_VULGAR}])(?:{_GLUED}|(?:{_SCALE})*)"
)
_STRICT = re.compile(rf"####[\t{_SPACES}]*({_WRITTEN})", re.ASCII)
_ANY = re.compile(_WRITTEN, re.ASCII)
_STRICT_MATCH = re.compile(r"#### (-?[0-9.,]+)", re.ASCII)
_BACKWARDS = re.compile(r"[$0-9.,](?:[$0-9.,]+|(?<=[0-9]))-?", re.ASCII)
_BOX = r"\boxed{"


def extract_strict(response: str) -> str | None:
    """What follows the last `####` that a number follows, as it is written; None where there is none in the tail.

    Words after it are not read, but for `million` and the like: `#### 72 clips` is 72.
    """
    return next(reversed(_STRICT.findall(response[-TAIL:])), None)


def extract_flexible(response: str) -> str | None:
    """The last number in the tail, as it is written. As in verl, `10-3` ends in -3."""
    numbers = reversed(_ANY.findall(response[-TAIL:]))
    return next((text for text in numbers if re.search(f"[0-9{_VULGAR}]", text)), None)


def extract_boxed(response: str) -> str | None:
    """What stands in the last `\\boxed{}` that closes, braces in pairs; bounded work, however many do not."""
    end = len(response)
    for _ in range(BOXES):
        end = response.rfind(_BOX, 0, end)
        if end < 0:
            return None
        first = end + len(_BOX)
        depth = 1
        for i, c in enumerate(response[first : first + TAIL], first):
            depth += (c == "{") - (c == "}")
            if not depth:
                return response[first:i]
    return None


def extract_strict_match(response: str) -> str | None:
    """What follows the first `#### ` that a number follows, anywhere."""
    match = _STRICT_MATCH.search(response)
    return match[1] if match else None


def extract_flexible_extract(response: str) -> str | None:
    """The last match of `(-?[$0-9.,]{2,})|(-?[0-9]+)`, anywhere.

    Matches are whole runs of `[$0-9.,]`, so the last of them is the first of the text read backwards, and what stands
    before it need not be looked at.
    """
    match = _BACKWARDS.search(response[::-1])
    return match[0][::-1] if match else None


# --- grading ---------------------------------------------------------------------------------------------------------


class Grader(NamedTuple):
    """Where the answer stands, how it is read for the comparison, and what it is, in words.

    Before the first string of `stop` a response ends for this grader, whatever the template.
    """

    extract: Callable[[str], str | None]
    read: Callable[[str], Any]
    what: str
    stop: tuple[str, ...] = ()


HARNESS_STOP = ("Question:", *END_MARKS)  # `until` of gsm8k.yaml


GRADERS = {
    "strict": Grader(extract_strict, number, "#### with a number"),
    "flexible": Grader(extract_flexible, number, "number"),
    "boxed": Grader(extract_boxed, latex_number, r"\boxed{} that closes"),
    "strict-match": Grader(extract_strict_match, harness_text, "#### with a number", HARNESS_STOP),
    "flexible-extract": Grader(extract_flexible_extract, harness_text, "number", HARNESS_STOP),
}


def grade_number(gold: int | str, response: str, rewards: str = "binary", grader: str = "strict") -> Grade:
    """Grade one response by a grader of `GRADERS`. Bounded work on any string; never raises because of it.

    `gold` is a number that `number` can read. The two filters of lm-evaluation-harness compare its text.

    >>> grade_number(72, "48 + 24 = 72\\n#### 72 clips").correct
    True
    """
    right, wrong, none = REWARD_SCHEMES[rewards]
    extract, read, what, _ = GRADERS[grader]
    answer = extract(response)
    if answer is None:
        return Grade(none, False, False, None, f"no {what}")
    value = read(answer)
    if value is None:
        return Grade(none, False, False, answer[:TAIL], f"{answer[:20]!r} is not a number")
    correct = value == read(str(gold))
    reason = f"answers {str(value)[:40]}" + ("" if correct else f", not {str(gold)[:40]}")
    return Grade(right if correct else wrong, correct, True, answer[:TAIL], reason, value)


def problem_from_record(record: Mapping[str, Any], task: str = "gsm8k") -> Problem:
    """The problem of one line of `rlino grade`: its `gold`, a number, or GSM8K's own `answer`, a solution with `####`.

    Raises ValueError, in words, for anything else.
    """
    key = next((k for k in ("gold", "answer") if k in record), None)
    if key is None:
        raise ValueError("no key 'gold' or 'answer'")
    if type(record[key]) not in (int, float, str):  # type(): True is an int to isinstance
        raise ValueError(f"{key} is not a number or a string")
    text = str(record[key])
    gold = extract_strict(text) or text.strip()
    if number(gold) is None:
        raise ValueError(f"{key} holds no number")
    return Problem(f"{task}/gold-{gold}", {"answer": gold}, gold)
