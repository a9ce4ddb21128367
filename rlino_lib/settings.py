"""Type, range and help of each setting, declared once, beside its field. Free of torch.

    steps: int = setting(200, "batches of samples", whole(1))

`check` holds every field of a settings class against its declaration; the command line reads its options, their help
and their defaults from the same place. NaN and infinity are never allowed, and a bool is not a number.
"""

import argparse
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from rlino_lib.errors import RlinoError

LARGEST = 2**31 - 1


@dataclass(frozen=True)
class Allowed:
    """The values allowed: in words, as a test, and how to read one from the command line."""

    words: str
    holds: Callable[[Any], bool]
    read: Callable[[str], Any] = str

    def check(self, name: str, value: Any) -> None:
        """Raise RlinoError, in one line that names the setting, the value and what is allowed."""
        if not self.holds(value):
            raise RlinoError(f"{name} must be {self.words}, not {_short(value)}")

    def parse(self, text: str) -> Any:
        """Parse a word from the command line: the `type` of an option."""
        try:
            value = self.read(text)
        except ValueError:
            value = text
        if not self.holds(value):
            raise argparse.ArgumentTypeError(f"must be {self.words}, not {_short(text)}")
        return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


# --- kinds of values -------------------------------------------------------------------------------------------------


def whole(least: int = 0, most: int = LARGEST, multiple: int = 1) -> Allowed:
    """Whole numbers from `least` to `most`."""
    words = "a whole number " + (f"of at least {least}" if most == LARGEST else f"from {least} to {most}")
    words += f" and a multiple of {multiple}" if multiple > 1 else ""
    return Allowed(words, lambda v: type(v) is int and least <= v <= most and v % multiple == 0, int)


def number(least: float | None = None, most: float | None = None, above: float | None = None) -> Allowed:
    """Finite numbers, whole ones among them: from `least`, or above `above`, to `most`."""
    bounds = [f"{w} {b:g}" for w, b in (("of at least", least), ("above", above), ("at most", most)) if b is not None]
    low = -math.inf if least is None else least
    high = math.inf if most is None else most

    def holds(value: Any) -> bool:
        plain = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        return plain and low <= value <= high and (above is None or value > above)

    if None not in (least, most):
        bounds = [f"from {least:g} to {most:g}"]
    return Allowed(f"a number {' and '.join(bounds)}" if bounds else "a finite number", holds, float)


def interval(least: int, most: int = LARGEST) -> Allowed:
    """Two whole numbers from `least` to `most`, the smaller first; a list where they were read from JSON."""

    def holds(value: Any) -> bool:
        pair = isinstance(value, list | tuple) and len(value) == 2 and all(type(v) is int for v in value)
        return pair and least <= value[0] <= value[1] <= most

    return Allowed(f"two whole numbers from {least} to {most}, the smaller first", holds)


def one_of(names: Collection[str]) -> Allowed:
    """One of some words; names that a dictionary gains later are allowed too."""
    words = ", ".join(name or repr(name) for name in names)
    return Allowed(f"one of {words}", lambda v: isinstance(v, str) and v in names)


def text(words: str, pattern: str = r"[^\x00-\x1f\x7f]*") -> Allowed:
    """A string that matches a pattern, and can be written as UTF-8."""

    def holds(value: Any) -> bool:
        return isinstance(value, str) and bool(re.fullmatch(pattern, value)) and not re.search("[\ud800-\udfff]", value)

    return Allowed(words, holds)


def nothing_or(allowed: Allowed) -> Allowed:
    """The same, or None: null in JSON."""
    return Allowed(f"{allowed.words}, or null", lambda v: v is None or allowed.holds(v), allowed.read)


def zero_or(allowed: Allowed) -> Allowed:
    """The same, or 0."""
    zero = number(0, 0)
    return Allowed(f"0 or {allowed.words}", lambda v: zero.holds(v) or allowed.holds(v), allowed.read)


def list_of(allowed: Allowed, least: int = 0, length: int | None = None) -> Allowed:
    """A list of such values: at least so many, or exactly."""
    count = f" of {length} values" if length else f" of {least} or more values" if least else ""

    def holds(value: Any) -> bool:
        fits = isinstance(value, list | tuple) and len(value) >= least and length in (None, len(value))
        return fits and all(map(allowed.holds, value))

    return Allowed(f"a list{count}, each {allowed.words}", holds)


TABLE = Allowed(
    "a table of names and values", lambda v: isinstance(v, Mapping) and all(isinstance(name, str) for name in v)
)
FLAG = Allowed("true or false", lambda v: isinstance(v, bool))


# --- settings classes ------------------------------------------------------------------------------------------------


def setting(default: Any, help: str, allowed: Allowed, **more: Any) -> Any:
    """A field of a settings class: its default (or a function that makes it), its help, and what it may be."""
    how = "default_factory" if callable(default) else "default"
    return field(**{how: default}, metadata={"help": help, "allowed": allowed}, **more)


def check(settings: Any, of: str = "") -> None:
    """Raise RlinoError for the first field whose value is not allowed; `of` goes before its name."""
    for f in (f for f in fields(settings) if f.init):
        f.metadata["allowed"].check(f"{of}{f.name}", getattr(settings, f.name))


def check_names(names: Collection[str], known: Collection[str], of: str) -> None:
    """Raise RlinoError for the first name that is none of the known settings."""
    if unknown := [name for name in names if name not in known]:
        raise RlinoError(f"{of} has no setting {_short(unknown[0])}: one of {', '.join(known)}")


def as_tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as read from JSON or TOML, with its lists as the tuples that they are."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}


# --- JSON ------------------------------------------------------------------------------------------------------------


def strict_json(text: str) -> Any:
    """A JSON value; raises ValueError for NaN, infinities and numbers beyond a float, and for a key given twice.

    `json.loads` takes the first three, and of a key the last; it refuses whole numbers of thousands of digits.
    """
    try:
        return json.loads(text, object_pairs_hook=each_key_once, parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"holds {text[:80]}, which is no finite number")
    return value


def each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object from its pairs, as json's `object_pairs_hook`; ValueError for a key given twice."""
    table = dict(pairs)
    if len(table) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"has the key {_short(twice)} twice")
    return table


# --- what several settings classes have ------------------------------------------------------------------------------

COUNT = whole(1)
GROUP = 1024  # samples of a problem that are drawn together: more are drawn in parts of one size
SWITCH = whole(0, 1)
SEED = whole(0, 2**32 - 1)  # numpy takes no more; the seeds of single steps are larger, and torch takes those
THREADS = whole(0, 1024)
BATCH = whole(1, 10**6)
RATE = number(above=0, most=1000)
TEMPERATURE = number(0.001, 1000)  # logits divided by less are beyond float32
TOP_P = number(above=0, most=1)
MODEL = text("a folder or a hub id, in UTF-8", r"(?!-)[^\x00-\x1f\x7f]*")
SPLIT = one_of(("train", "validation", "test"))
DEVICE = text("auto, cpu, mps, cuda, or cuda:N", r"auto|cpu|mps|cuda(:\d{1,3})?")
PRECISION = one_of(("auto", "fp32", "bf16"))
PRECISION_HELP = "of the products: fp32, or bf16 with autocast; auto: the faster one on this machine"


def equal_parts(samples: int) -> tuple[int, int]:
    """In how many parts samples of a problem are drawn, and of what size; RlinoError where they do not divide so."""
    COUNT.check("samples", samples)
    parts = math.ceil(samples / GROUP)
    size = samples // parts
    if size * parts < samples:
        raise RlinoError(f"more than {GROUP} samples are drawn in equal parts: {(size + 1) * parts}, not {samples}")
    return parts, size
