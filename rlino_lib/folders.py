"""The folder of a command's `--out`, and files that are complete even after a kill or on a full disk. Free of torch.

Every command that makes something follows one rule: lock the folder, read what is there, compare its settings with the
new ones, and only then write. Work in an unfinished folder resumes, a complete one is returned as it is, and one with
other settings is refused.
"""

import errno
import gzip
import json
import math
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from rlino_lib.errors import RlinoError, chosen

LOCK = "run.lock"
# What numbers depend on beside the settings: it has to agree where a run goes on, but not where it is complete.
BESIDE = ("weights_sha256_16", "threads", "versions", "update")


# --- one rule for folders --------------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """What a command makes: its name, and how to recognise a folder that holds one."""

    name: str
    read: Callable[[Path], tuple[dict[str, Any] | None, bool]]  # recorded settings or None; whether complete
    writes: tuple[str, ...] = ()  # files and folders that it makes after its record


def asked_and_found(file: Path) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The settings that a record of something measured holds, and what was found; None for what is not there yet."""
    if not file.exists():
        return None, None
    recorded = read_json(file, needs="asked")
    found = recorded.get("found")
    if not isinstance(recorded["asked"], dict) or not isinstance(found, dict | None):
        raise RlinoError(f"{file} is something else than rlino writes: what was asked or found is no table")
    return recorded["asked"], found


def measurement(name: str, writes: tuple[str, ...] = ()) -> Kind:
    """A kind whose record NAME.json holds what was asked and, once it is complete, what was found."""

    def read(folder: Path) -> tuple[dict[str, Any] | None, bool]:
        asked, found = asked_and_found(folder / f"{name}.json")
        return asked, found is not None

    return Kind(name, read, writes)


def held_by(
    path: Path, kind: Kind, settings: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any] | None, bool]:  # fmt: skip
    """What a folder records of its kind, None where that is nothing, and whether it is complete. Writes nothing.

    Raises RlinoError where that has other settings, or where files of another origin would be overwritten.
    """
    recorded, complete = kind.read(path)
    if recorded is not None:
        refuse_other(path, kind, recorded, settings, defaults, complete)
    elif foreign := [name for name in kind.writes if (path / name).exists()]:
        raise RlinoError(f"{path} holds {foreign[0]}, which belongs to no {kind.name}: choose another --out")
    return recorded, complete


@contextmanager
def output_folder(
    path: str | Path, kind: Kind, settings: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> Iterator[bool]:
    """Lock a folder while it is written; yields whether it is complete already, with these settings.

    A complete one is not touched. Settings that either side lacks count as in `defaults`. What a kill left half written
    is removed, and so is a folder that was made here and that nothing was written to. Raises RlinoError where the
    folder holds another of its kind, or files of another origin that would be overwritten, where another process
    is writing it, and where the disk is full.
    """
    path = Path(path)
    if kind.read(path)[1]:  # what is not complete may change while another process writes it
        held_by(path, kind, settings, defaults)
        yield True
        return
    made = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as e:
        raise RlinoError(f"another process is writing {path}") from e
    try:
        recorded, complete = held_by(path, kind, settings, defaults)  # again: others may have ended meanwhile
        for part in path.glob("*.tmp") if recorded is not None else ():
            _remove(part)
        yield complete
    except Exception as e:
        if not _is_disk_full(e):
            raise
        raise RlinoError(f"the disk of {path} is full: make room, and the same command goes on where it stopped") from e
    finally:
        with suppress(OSError):  # Windows removes the file itself
            (path / LOCK).unlink()
        lock.release()
        if made:
            with suppress(OSError):  # something was written
                path.rmdir()


def refuse_other(
    path: Path, kind: Kind, recorded: Mapping[str, Any], settings: Mapping[str, Any],
    defaults: Mapping[str, Any] | None = None, complete: bool = True, whole: bool = False,
) -> None:  # fmt: skip
    """Raise RlinoError where what a folder records differs from the settings."""
    if differences := changes(recorded, settings, defaults, whole):
        state = "complete" if complete else "unfinished"
        raise RlinoError(f"{path} holds another {kind.name}, {state}, with {differences}: choose another --out")


def changes(
    recorded: Mapping[str, Any], settings: Mapping[str, Any], defaults: Mapping[str, Any] | None = None,
    whole: bool = False,
) -> str:  # fmt: skip
    """How recorded settings differ from the given ones, in words; empty where they are the same.

    A setting that is `auto` agrees with whatever a machine made of it, and what numbers depend on beside the settings
    (`BESIDE`) counts only where both sides have it, unless `whole`.
    """
    old = {**(defaults or {}), **recorded}
    new = {**(defaults or {}), **json.loads(json.dumps(settings))}  # tuples are lists, as in what was recorded
    words = []
    for name in (name for name in old | new if old.get(name) != new.get(name)):
        one_sided = name in BESIDE and not (name in old and name in new)
        if whole or not (new.get(name) == "auto" or one_sided):
            before, now = (v if isinstance(v, str) else json.dumps(v) for v in (old.get(name), new.get(name)))
            words.append(f"{name} {before}, not {now}" if len(before + now) <= 80 else f"another {name}")
    return "; ".join(words)


def begun_precision(precision: str, recorded: Mapping[str, Any] | None) -> str:
    """The precision that `auto` meant when the work in a folder began, so that resuming gives the same numbers.

    Raises RlinoError where that is none.
    """
    if recorded is None or precision != "auto":
        return precision
    return chosen(recorded.get("precision", "fp32"), ("auto", "fp32", "bf16"), "precision")


# --- files that are whole or not there -------------------------------------------------------------------------------


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path for a file or folder, which moves to `path` once all is written.

    Nothing of it is left where that fails. The files of an existing folder are replaced one by one.

        with replacing(path) as part:
            part.write_text("whole, or not there")
    """
    part = path / "part.tmp" if path.is_dir() else path.with_name(path.name + ".tmp")
    _remove(part)
    try:
        yield part
        if path.is_dir():
            for file in part.iterdir():
                file.replace(path / file.name)
        else:
            part.replace(path)
    finally:
        _remove(part)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_disk_full(error: BaseException | None) -> bool:
    """Whether a disk or a quota is full; torch, safetensors and tokenizers wrap that in exceptions of their own."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def write_whole(path: Path, text: str) -> None:
    """Write a text so that a kill leaves the old file or the new one, never half of one."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write JSON as `write_whole` writes a text, with `finite` numbers."""
    write_whole(path, json.dumps(finite(value), indent=2, ensure_ascii=False) + "\n")


def finite(value: Any) -> Any:
    """The same with None for NaN and infinities, which JSON does not have; numbers of numpy as Python's."""
    if isinstance(value, Mapping):
        return {name: finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path, needs: str = "") -> dict[str, Any]:
    """What a JSON file holds; raises RlinoError where it is missing, damaged, or is no object with the key `needs`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise RlinoError(f"{path} is missing: {path.parent} is neither a run folder nor a base's") from e
    except OSError as e:  # a file where a folder should be, or no permission
        raise RlinoError(f"{path} cannot be read: {e.strerror}") from e
    except (ValueError, RecursionError) as e:  # no JSON, or no UTF-8
        raise RlinoError(f"{path} is damaged: {e}") from e
    if not isinstance(value, dict) or (needs and needs not in value):
        raise RlinoError(f"{path} is something else than rlino writes: it has no {needs or 'settings'}")
    return value


def whole_lines(path: Path) -> list[str]:
    """The lines of a text file, gzipped or not, without a last one that a kill left incomplete. Only "\\n" ends a line.

    Raises RlinoError where the file is damaged otherwise.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return data[: data.rfind(b"\n") + 1].decode("utf-8").split("\n")[:-1]
    except (EOFError, ValueError, zlib.error, gzip.BadGzipFile) as e:
        raise RlinoError(f"{path} is damaged: {e}") from e


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of the whole lines of a JSONL file, as `append_jsonl` writes it; RlinoError where one is damaged."""
    try:
        rows = [json.loads(line) for line in whole_lines(path)]
    except (ValueError, RecursionError) as e:
        raise RlinoError(f"{path} is damaged: {e}") from e
    if place := next((k for k, row in enumerate(rows, 1) if not isinstance(row, dict)), 0):
        raise RlinoError(f"{path} is damaged: line {place} is no object")
    return rows


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append objects to a JSONL file, one per line. Half a surrogate pair, which UTF-8 does not have, is escaped.

    What JSON has no form for, a date or bytes of an imported table, is written as its text.
    """
    text = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
    with path.open("ab") as f:
        f.write(text.encode("utf-8", "backslashreplace"))
