"""What is known of a response, by the book's names, and how a record of another library becomes one.

`Columns` says which column of a record holds which field: `--map response=text,correct=score>=1`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlino_lib.errors import RlinoError
from rlino_lib.records.cells import missing, shortened, whole
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
    return "" if value is None else short_text(value)


def short_text(value: Any) -> str:
    """A text, or any other value as JSON: an answer or a gold may be a number."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def number(value: Any) -> float:
    """A finite number. Raises ValueError for anything else."""
    if not isinstance(value, int | float) or not abs(value) <= 1e300:  # a whole number may be beyond any float
        raise ValueError("a finite number")
    return float(value)


def verdict(value: Any) -> bool:
    """Right or wrong: true or false, 1 or 0. Raises ValueError for anything else."""
    if not isinstance(value, int | float) or value not in (0, 1):
        raise ValueError("true or false, 1 or 0 (or a threshold: NAME=COLUMN>=0.5)")
    return bool(value)


def list_of(read: Callable[[Any], Any], words: str) -> Callable[[Any], list[Any]]:
    """What reads a list of values."""

    def read_list(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise ValueError(f"a list of {words}")
        return list(map(read, value))

    return read_list


_OF_TOKENS = ("logprobs", "entropies", "weights")
_OF_SAMPLES = ("correct", "truncated", "format_ok", "reward", "advantage", "length", "answer", "reason")
_NEEDED = ("response", "step")
# By the names that `--map` takes: what reads a value, and raises ValueError with what was expected.
FIELDS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("response", "prompt"), text),
    **dict.fromkeys(("question", "problem_id", "gold", "answer", "reason"), short_text),
    **dict.fromkeys(("reward", "advantage"), number),
    **dict.fromkeys(("correct", "truncated", "format_ok"), verdict),
    **dict.fromkeys(("step", "length"), whole),
    "tokens": list_of(text, "texts"),
    **dict.fromkeys(_OF_TOKENS, list_of(lambda value: None if missing(value) else number(value), "numbers")),
}


def name_in_run(field: str) -> str:
    """The name of a field in run folders, where truncated responses are clipped, as TRL calls them."""
    return "clipped" if field == "truncated" else field


# --- columns ---------------------------------------------------------------------------------------------------------


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
        if not self.sign:
            return value
        return number(value) >= self.threshold if self.sign == ">=" else number(value) > self.threshold


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
        name, *test = re.split("(>=|>)", name, maxsplit=1)
        sign, threshold = test or ("", "0")
        try:
            columns[field] = Column(name, sign, number(float(threshold)))
        except ValueError as e:
            raise RlinoError(f"--map {pair!r}: {threshold!r} is no number") from e
    return columns


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
        lists = {f: v for f, v in values.items() if f in _OF_SAMPLES and isinstance(v, list) and len(v) == len(several)}
        for i, response in enumerate(several):
            own = {"response": response} | {f: v[i] for f, v in lists.items()}
            yield _row(where, values | own, columns, not_finite) | shared


def _row(where: str, values: Mapping[str, Any], columns: Columns, not_finite: Counter[str]) -> Row:
    row: Row = {}
    for field, value in values.items():
        column, name = columns[field], name_in_run(field)
        row[name] = None
        if missing(value) and field not in _NEEDED:
            not_finite.update([column.name] * (value is not None))
            continue
        try:
            row[name] = FIELDS[field](column.judged(value))
        except ValueError as e:
            held = shortened(json.dumps(value, default=str), 60)
            raise RlinoError(f"{where}: {field} ({column}) is to be {e}, not {held}") from None
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
    values = [value for record in records if (value := record.get(name)) is not None]
    return bool(values) and all(isinstance(value, int | float) and value in (0, 1) for value in values)


def identify(rows: Sequence[Row]) -> None:
    """Number the responses: `problem_id`, `group` within a step, and `sample` within a group.

    A problem without an id is told apart by its prompt; a response without a prompt is of a problem of its own.
    """
    groups: dict[int, dict[str, int]] = defaultdict(dict)  # by step and problem
    sizes: Counter[tuple[int, str]] = Counter()
    for place, row in enumerate(rows, 1):
        step, name, prompt = row.setdefault("step", 0), row.get("problem_id"), row.get("prompt")
        if name is None:
            name = f"response-{place}" if prompt is None else f"prompt-{hash_words(prompt)}"
        elif len(name) > 100 or not name.isprintable() or not name.strip():
            name = f"problem-{hash_words(name)}"
        group = groups[step].setdefault(name, len(groups[step]))
        row |= {"problem_id": name, "group": group, "sample": sizes[step, name]}
        sizes[step, name] += 1


def hash_words(words: str) -> str:
    """Twelve hex digits of SHA-256, also of text that is no valid Unicode."""
    return hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()[:12]
