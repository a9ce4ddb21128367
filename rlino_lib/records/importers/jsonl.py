"""JSONL of any origin: a response a line, or a step's metrics, named by `--map` or by the book's own names.

A run folder's own rollouts.jsonl(.gz) is such a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rlino_lib.errors import RlinoError
from rlino_lib.records.importers.fields import FIELDS, Column, name_in_run
from rlino_lib.records.importers.files import Record, first_record, json_lines
from rlino_lib.records.importers.source import Imported, Reader, present
from rlino_lib.records.runs import COLUMNS


def files(source: Path) -> list[Path]:
    """The file, or the JSONL files of a folder by name."""
    if source.is_dir():
        return sorted(path for path in source.iterdir() if path.name.endswith((".jsonl", ".jsonl.gz")))
    return [source] if source.is_file() and first_record(source) else []


def read(paths: Sequence[Path], mapped: Mapping[str, Column], filter_name: str) -> Imported:
    """The responses and the metrics; a column under the name of a field is that field, unless another is mapped to it.

    So is one under its name in run folders, a table `data` is the problem, and a list `foreign` says of each token
    whether somebody else wrote it than the policy.

    A file has metrics where its first line has a step, no response, and numbers alone, or something else in place of a
    metric's (or `--map` names metrics).
    """
    imported = Imported(columns=dict(mapped))
    records: list[tuple[str, Record]] = []
    for path in paths:
        lines = list(json_lines(path))
        if lines and _has_metrics(lines[0][1], mapped):
            response = mapped.get("response", Column("response")).name
            if mixed := next((where for where, record in lines if response in record), None):
                raise RlinoError(f"{mixed}: a response after a line of metrics: give each kind a file of its own")
            step = mapped.get("step", Column("step")).name
            for where, record in lines:
                imported.log(record.pop(step, None), record, where)
        else:
            records += lines
    if records or not imported.logged or "response" in mapped:
        taken = {column.name for column in mapped.values()}
        free = [name for name in FIELDS if name not in taken]
        first = records[0][1] if records else {}
        own = present(first, {name: name_in_run(name) for name in free}) | present(first, {name: name for name in free})
        imported.columns = {**own, **mapped}
        imported.take(records)
        imported.take_beside("data", "data", dict)
        imported.take_beside("foreign", "foreign", list)
    return imported


def _has_metrics(record: Record, mapped: Mapping[str, Column]) -> bool:
    metrics = {*COLUMNS, *(column.name for field, column in mapped.items() if field in COLUMNS)}
    plain = all(value is None or isinstance(value, int | float) or name in metrics for name, value in record.items())
    named = any(name not in FIELDS for name in mapped)
    step, response = (mapped.get(name, Column(name)).name for name in ("step", "response"))
    return step in record and response not in record and (plain or named)


READER = Reader(
    "JSONL with a response or a step's metrics a line, whose columns --map names: --map response=text,correct=score",
    files, read,
)  # fmt: skip
