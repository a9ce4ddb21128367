"""Reading files of other origin, within bounds: lines, JSON, Parquet. What is wrong raises RlinoError."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from rlino_lib.errors import RlinoError, RlinoWarning
from rlino_lib.settings import each_key_once

MOST_BYTES = 2**30  # of all files of an import, and of each once unpacked: what memory has to hold
LONGEST_LINE = 2**26
Record = dict[str, Any]  # a line or a row as its file has it


def check_sizes(files: Sequence[Path]) -> None:
    """Raise RlinoError where the files are too large together, or one cannot be read."""
    try:
        total = sum(path.stat().st_size for path in files)
    except OSError as e:
        raise RlinoError(f"{e.filename} cannot be read: {e.strerror}") from e
    if total > MOST_BYTES:
        raise _too_large(f"{len(files)} files" if len(files) > 1 else str(files[0]))


def _too_large(what: str) -> RlinoError:
    return RlinoError(f"{what}: more than {MOST_BYTES >> 20:,} MiB to read: import a part of it, such as fewer steps")


def digest(files: Iterable[Path]) -> str:
    """The first 16 hex digits of the SHA-256 of the files, one after the other."""
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as f:
            total.update(hashlib.file_digest(f, "sha256").digest())
    return total.hexdigest()[:16]


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, gzipped or not, with their numbers from 1, and a bar on a terminal."""
    read = 0
    bar = tqdm(total=path.stat().st_size, unit="B", unit_scale=True, desc=path.name, disable=None, leave=False)
    try:
        with bar, gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as f:
            for number, line in enumerate(iter(lambda: f.readline(LONGEST_LINE + 1), b""), 1):
                read += len(line)
                if len(line) > LONGEST_LINE:
                    raise RlinoError(f"{path}, line {number} is longer than {LONGEST_LINE >> 20} MiB")
                if read > MOST_BYTES:
                    raise _too_large(str(path))
                bar.update(len(line))
                yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as e:
        raise RlinoError(f"{path} is damaged: {e}") from e
    except OSError as e:
        raise RlinoError(f"{path} cannot be read: {e.strerror}") from e


def parsed(text: bytes, where: str) -> Any:
    """A JSON value, NaN and infinities among its numbers as some libraries write them; RlinoError where it is none."""
    try:
        return json.loads(text.decode("utf-8-sig"), object_pairs_hook=each_key_once)
    except UnicodeDecodeError as e:
        raise RlinoError(f"{where}: not UTF-8 at byte {e.start + 1}") from e
    except json.JSONDecodeError as e:
        raise RlinoError(f"{where}: not JSON: {e.msg.removesuffix(' at')} at character {e.pos + 1}") from e
    except (ValueError, RecursionError) as e:  # a key twice, thousands of digits or of brackets
        raise RlinoError(f"{where}: not JSON that can be read: {str(e)[:100]}") from e


def json_lines(path: Path) -> Iterator[tuple[str, Record]]:
    """Where each object of a JSONL file stands ("FILE, line 3"), and the object. Blank lines are ignored.

    A last line without its end, which a killed program leaves, is left out with a warning where it is no JSON.
    """
    for number, line in lines(path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = parsed(line, where)
        except RlinoError:
            if line.endswith(b"\n") or number == 1:
                raise
            warnings.warn(f"{where}, the last, is incomplete and was left out", RlinoWarning, stacklevel=2)
            return
        if not isinstance(record, dict):
            raise RlinoError(f"{where}: not an object")
        yield where, record


def first_record(path: Path) -> Record:
    """The first object of a JSONL file, to recognise it by its keys; empty for a file that does not begin with one."""
    with suppress(RlinoError), warnings.catch_warnings(action="ignore"):
        return next((record for _, record in json_lines(path)), {})
    return {}


def json_file(path: Path) -> Record:
    """The object that a JSON file holds."""
    value = parsed(b"".join(line for _, line in lines(path)), str(path))
    if not isinstance(value, dict):
        raise RlinoError(f"{path}: not an object")
    return value


def parquet_rows(path: Path) -> Iterator[tuple[str, Record]]:
    """Where each row of a Parquet file stands ("FILE, row 3"), and the row, as plain Python values."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as e:
        raise RlinoError(f"{path} is Parquet, and reading it needs pyarrow: pip install pyarrow") from e
    read = number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            if twice := [name for name, count in Counter(file.schema_arrow.names).items() if count > 1]:
                raise RlinoError(f"{path} has the column {twice[0]!r} twice")
            for batch in file.iter_batches(batch_size=256):
                read += batch.nbytes
                if read > MOST_BYTES:
                    raise _too_large(str(path))
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as e:  # no UTF-8, or no date of Python's
        raise RlinoError(f"{path} is damaged, or no Parquet: {str(e).splitlines()[0]}") from e


def numbered(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder whose whole name matches a pattern, in the order of the number in its first group."""
    matches = ((re.fullmatch(pattern, path.name), path) for path in folder.iterdir() if path.is_file())
    return [path for _, path in sorted((int(match[1]), path) for match, path in matches if match)]
