"""What a reader of a format returns, and what it is told: the two ends that `into_run` joins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rlino_lib.errors import RlinoError
from rlino_lib.records.cells import whole
from rlino_lib.records.importers.fields import Column, Row, rows_of
from rlino_lib.records.importers.files import Record


@dataclass
class Imported:
    """What files say of a run."""

    rows: list[Row] = field(default_factory=list)  # a response each, by the names of run folders
    logged: dict[int, dict[str, float]] = field(default_factory=dict)  # by step
    columns: dict[str, Column] = field(default_factory=dict)  # which column holds which field
    config: dict[str, Any] = field(default_factory=dict)  # settings that the files name: model, task, max_new_tokens
    summary: dict[str, Any] = field(default_factory=dict)
    unclear: frozenset[int] = frozenset()  # steps whose responses may be training samples or not
    not_finite: Counter[str] = field(default_factory=Counter)  # NaN, and what is beyond any float, by column
    no_number: Counter[str] = field(default_factory=Counter)  # what else a log has in place of a number, by column

    def log(self, step: Any, record: Any, where: str) -> None:
        """Add the numbers of a logged record, by names that print; what is none is counted, unless it is null.

        Raises RlinoError, with the place, for a record without a step or that is no table.
        """
        try:
            numbers = self.logged.setdefault(whole(step), {})
            values = record.items()
        except (ValueError, AttributeError):
            raise RlinoError(
                f"{where}: a line of metrics has a step, a whole number of 0 or more, and a table"
            ) from None
        for name, value in values:
            name = "".join(c if c.isprintable() else "\ufffd" for c in name) or "\ufffd"
            if not isinstance(value, int | float):
                self.no_number[name] += value is not None
            elif abs(value) <= 1e300:
                numbers[name] = int(value) if abs(value) < 2**53 and value == int(value) else float(value)
            else:
                self.not_finite[name] += 1

    def ends(self, planned: int, reached: int = 0) -> None:
        """Mark the run as not complete where neither its log nor its last step came to the planned number of steps."""
        if max(reached, *self.logged, 0) < planned:
            self.summary |= {"complete": False, "planned_steps": planned}

    def take(self, records: Sequence[tuple[str, Record]]) -> None:
        """Read responses, by `columns`. Raises RlinoError where there is none, or no column is the response."""
        if not records:
            raise RlinoError("there is no response to import: every file is empty")
        where, record = records[0]
        if "response" not in self.columns:
            names = ", ".join(map(repr, list(record)[:12]))
            raise RlinoError(f"{where}: which of its columns is the response? --map response=COLUMN, one of {names}")
        self.rows = list(rows_of(records, self.columns, self.not_finite))

    def take_beside(self, name: str, column: str, kind: type) -> None:
        """What rows have under a name that is no field, from a column of theirs, where that holds a value of a kind."""
        for row in self.rows:
            if name not in row and isinstance(row.get("source", {}).get(column), kind):
                row[name] = row["source"].pop(column)


class Reader(NamedTuple):
    """A format: how to recognise it, its files in a source, how to read them, and what it is in words."""

    words: str  # what was expected, for an error
    files: Callable[[Path], list[Path]]  # of a source, a file or a folder: those that this reads; empty for others
    read: Callable[[Sequence[Path], Mapping[str, Column], str], Imported]  # files, --map, --filter
    split: str = "train"  # what its responses are unless the command says so


def present(record: Record, columns: Mapping[str, str]) -> dict[str, Column]:
    """Of the columns that a format has, those that a record has."""
    return {name: Column(column) for name, column in columns.items() if column in record}
