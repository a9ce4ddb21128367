"""JSONL of any origin, a response a line, with columns named by `--map` or by the book's own names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rlino_lib.records.importers.fields import FIELDS, Column
from rlino_lib.records.importers.files import first_record, json_lines
from rlino_lib.records.importers.source import Imported, Reader, present, responses


def files(source: Path) -> list[Path]:
    """The file, or the JSONL files of a folder by name."""
    if source.is_dir():
        return sorted(path for path in source.iterdir() if path.name.endswith((".jsonl", ".jsonl.gz")))
    return [source] if source.is_file() and first_record(source) else []


def read(paths: Sequence[Path], mapped: Mapping[str, Column], filter_name: str) -> Imported:
    """The responses; a column under the name of a field is that field, unless another is mapped to it."""
    records = [pair for path in paths for pair in json_lines(path)]
    taken = {column.name for column in mapped.values()}
    own = present(records[0][1] if records else {}, {name: name for name in FIELDS if name not in taken})
    columns = {**own, **mapped}
    return Imported(responses(records, columns), columns=columns)


WORDS = "JSONL with a response a line, whose columns --map names: --map response=text,correct=score"
READER = Reader(WORDS, files, read)
