"""What is known of a response, by the book's names, and how a record of another library becomes one.

`Columns` says which column of a record holds which field: `--map response=text,correct=score>=1`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rlino_lib.errors import RlinoError
from rlino_lib.records.importers.files import Record
from rlino_lib.records.runs import COLUMNS

Row = dict[str, Any]  # a response by the names of FIELDS


# --- values ----------------------------------------------------------------------------------------------------------


def text(value: Any) -> str:
    """A text, or the messages of a conversation as one; raises ValueError for anything else.

    The single message of an assistant is its text; of several each has its role before it.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(m, dict) and "role" in m for m in value):
        parts = [(str(m["role"]), _content(m.get("content"))) for m in value]
        if [role for role, _ in parts] == ["assistant"]:
            return parts[0][1]
        return "\n".join(f"{role}: {content}" for role, content in parts)
    raise ValueError("a text")


def _content(value: Any) -> str:
    if isinstance(value, list):  # parts, of which some may be images
        return "".join(str(p.get("text") or "") for p in value if isinstance(p, dict))
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


def short_text(value: Any) -> str:
    """A text, or any other value as JSON: an answer or a gold may be a number."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def number(value: Any) -> float | None:
    """A finite number; NaN is none. Raises ValueError for anything else."""
    if not isinstance(value, int | float) or abs(value) > 1e300:  # a whole number may be beyond any float
        if not (isinstance(value, float) and math.isnan(value)):
            raise ValueError("a finite number")
    return None if value != value else float(value)


def whole(value: Any) -> int | None:
    """A whole number of 0 or more; NaN is none. Raises ValueError for anything else."""
    if value != value:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53 or value != int(value):
        raise ValueError("a whole number of 0 or more")
    return int(value)


def place(value: Any) -> int:
    """A whole number of 0 or more, as a step is. Raises ValueError for anything else, and NaN."""
    if (number := whole(value)) is None:
        raise ValueError("a whole number of 0 or more")
    return number


def verdict(value: Any) -> bool | None:
    """Right or wrong: true or false, 1 or 0; NaN is neither. Raises ValueError for anything else."""
    if isinstance(value, int | float):
        if value in (0, 1):
            return bool(value)
        if value != value:
            return None
    raise ValueError("true or false, 1 or 0 (or a threshold: NAME=COLUMN>=0.5)")


def texts(value: Any) -> list[str]:
    """A list of texts."""
    if not isinstance(value, list):
        raise ValueError("a list of texts")
    return [text(v) for v in value]


def numbers(value: Any) -> list[float | None]:
    """A list of numbers."""
    if not isinstance(value, list):
        raise ValueError("a list of numbers")
    return [None if v is None else number(v) for v in value]


class Field(NamedTuple):
    """A field of a response: its name in run folders, and what its values are."""

    name: str
    read: Callable[[Any], Any]  # raises ValueError with what was expected


# By the names that `--map` takes. A run folder calls truncated responses clipped, as TRL does.
FIELDS: dict[str, Field] = {
    "response": Field("response", text), "prompt": Field("prompt", text), "question": Field("question", short_text),
    "problem_id": Field("problem_id", short_text), "step": Field("step", place), "gold": Field("gold", short_text),
    "answer": Field("answer", short_text), "reason": Field("reason", short_text), "reward": Field("reward", number),
    "advantage": Field("advantage", number), "correct": Field("correct", verdict),
    "truncated": Field("clipped", verdict), "format_ok": Field("format_ok", verdict),
    "length": Field("length", whole), "tokens": Field("tokens", texts), "logprobs": Field("logprobs", numbers),
    "entropies": Field("entropies", numbers), "weights": Field("weights", numbers),
}  # fmt: skip
_NEEDED = ("response", "step")
_OF_TOKENS = ("logprobs", "entropies", "weights")
_OF_SAMPLES = ("correct", "truncated", "format_ok", "reward", "advantage", "length", "answer", "reason")

# --- columns ---------------------------------------------------------------------------------------------------------

_TEST = re.compile(r"(.+?)(>=|>)(.+)")


@dataclass(frozen=True)
class Column:
    """A column of a record, `name` or `a.b` inside an object, and a threshold that makes a number a verdict."""

    name: str
    sign: str = ""
    threshold: float = 0.0

    def __str__(self) -> str:
        return f"{self.name}{self.sign}{self.threshold:g}" if self.sign else self.name

    def of(self, record: Record) -> Any:
        """The value in a record, None where it has none; raises KeyError where the record has no such column."""
        if self.name in record:
            return record[self.name]
        value: Any = record
        for part in self.name.split("."):
            if not isinstance(value, dict):
                raise KeyError(self.name)
            value = value[part]
        return value

    def judged(self, value: Any) -> Any:
        """The value, held against the threshold where there is one."""
        if not self.sign or value is None:
            return value
        value = number(value)
        if value is None:
            return None
        return value >= self.threshold if self.sign == ">=" else value > self.threshold


Columns = Mapping[str, Column]  # by field


def read_map(words: Iterable[str]) -> dict[str, Column]:
    """The columns that `--map` names: FIELD=COLUMN, separated by commas, FIELD of a response or a metric.

    Raises RlinoError for another form. Example: `read_map(["response=text,correct=score>=1"])`.
    """
    columns: dict[str, Column] = {}
    for pair in (pair for word in words for pair in word.split(",")):
        field, equals, name = pair.partition("=")
        if not equals or not name or field not in (*FIELDS, *COLUMNS):
            known = f"{', '.join(FIELDS)}, or a metric such as eval/accuracy"
            raise RlinoError(f"--map takes FIELD=COLUMN, FIELD one of {known}, not {pair!r}")
        if field in columns:
            raise RlinoError(f"--map names a column for {field} twice")
        match = _TEST.fullmatch(name)
        try:
            columns[field] = Column(match[1], match[2], _finite(match[3])) if match else Column(name)
        except ValueError as e:
            raise RlinoError(f"--map {pair!r}: {match[3] if match else ''!r} is no number") from e
    return columns


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or "_" in text:
        raise ValueError(text)
    return value


def rows_of(records: Iterable[tuple[str, Record]], columns: Columns, not_finite: Counter[str]) -> Iterator[Row]:
    """Each response of the records by the names of run folders, its other columns under `source`.

    A list of texts is that many responses, and columns that are lists of the same length go with them. NaN stays
    empty, and is counted by column. Raises RlinoError, with the line, where a column is missing or holds anything else.
    """
    columns = {field: column for field, column in columns.items() if field in FIELDS}  # and not of metrics
    used = {column.name for column in columns.values()}
    nameless = not {"problem_id", "prompt"} & set(columns)  # then a record is a problem
    for k, (where, record) in enumerate(records, 1):
        values = {}
        for field, column in columns.items():
            try:
                values[field] = column.of(record)
            except KeyError:
                known = ", ".join(map(repr, list(record)[:12])) or "none"
                raise RlinoError(f"{where} has no {column.name!r} for {field}: its columns are {known}") from None
        shared: Row = {"source": rest} if (rest := {n: v for n, v in record.items() if n not in used}) else {}
        if nameless:
            shared["problem_id"] = f"record-{k}"
        several = values.get("response")
        if not (isinstance(several, list) and several and all(isinstance(v, str) for v in several)):
            yield _row(where, values, columns, not_finite) | shared
            continue
        for i, response in enumerate(several):
            own = {f: values[f][i] for f in _OF_SAMPLES if _is_list(values.get(f), len(several))}
            yield _row(where, values | own | {"response": response}, columns, not_finite) | shared


def _is_list(value: Any, size: int) -> bool:
    return isinstance(value, list) and len(value) == size


def _row(where: str, values: Mapping[str, Any], columns: Columns, not_finite: Counter[str]) -> Row:
    row: Row = {}
    for field, value in values.items():
        name, read = FIELDS[field]
        try:
            value = columns[field].judged(value)
            row[name] = None if value is None and field not in _NEEDED else read(value)
        except ValueError as e:
            held = json.dumps(value, default=str)
            held = held if len(held) <= 60 else f"{held[:57]}…"
            raise RlinoError(f"{where}: {field} ({columns[field]}) is to be {e}, not {held}") from None
        if row[name] is None and values[field] is not None:
            not_finite[columns[field].name] += 1
    if row.get("tokens") is not None:
        if row.get("length") is None:
            row["length"] = len(row["tokens"])
        for name in _OF_TOKENS:
            if row.get(name) is not None and len(row[name]) != len(row["tokens"]):
                raise RlinoError(f"{where}: {len(row['tokens'])} tokens but {len(row[name])} {name}")
    if (question := row.pop("question", None)) is not None:
        row["data"] = {"question": question}
    return row


def all_verdicts(records: Sequence[Record], name: str) -> bool:
    """Whether a column holds verdicts alone: true or false, 1 or 0, and at least one."""
    values = [record.get(name) for record in records]
    return any(v is not None for v in values) and all(
        v is None or (isinstance(v, int | float) and v in (0, 1)) for v in values
    )


def identify(rows: Sequence[Row]) -> None:
    """Number the responses: `problem_id`, `group` within a step, and `sample` within a group.

    A problem without an id is told apart by its prompt; a response without a prompt is of a problem of its own.
    """
    groups: dict[tuple[int, str], int] = {}
    in_step: Counter[int] = Counter()
    sizes: Counter[tuple[int, str]] = Counter()
    for place, row in enumerate(rows, 1):
        step = row.setdefault("step", 0)
        name = row.get("problem_id")
        if name is None:
            prompt = row.get("prompt")
            name = f"response-{place}" if prompt is None else f"prompt-{hash_words(prompt)}"
        elif len(name) > 100 or not name.isprintable() or not name.strip():
            name = f"problem-{hash_words(name)}"
        key = step, name
        if key not in groups:
            groups[key] = in_step[step]
            in_step[step] += 1
        row |= {"problem_id": name, "group": groups[key], "sample": sizes[key]}
        sizes[key] += 1


def hash_words(words: str) -> str:
    """Twelve hex digits of SHA-256, also of text that is no valid Unicode."""
    return hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()[:12]
