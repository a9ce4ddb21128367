"""Data sets from their public homes, with checksums: `rlino fetch` (chapter 02). The repository holds none of them."""

import hashlib
import os
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm.auto import tqdm

from rlino_lib.errors import RlinoError, chosen
from rlino_lib.paths import REPO, cache_folder


class Remote(NamedTuple):
    """A file of a data set: where it lives, and what it must be."""

    url: str
    size: int  # bytes
    sha256: str


_GSM8K = (
    "https://raw.githubusercontent.com/openai/grade-school-math/3101c7d5072418e28b9008a6636bde82a006892c"
    "/grade_school_math/data/"
)
SETS = {
    "gsm8k": {
        "train.jsonl": Remote(
            _GSM8K + "train.jsonl", 4_166_206, "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465"
        ),
        "test.jsonl": Remote(
            _GSM8K + "test.jsonl", 749_738, "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14"
        ),
    }
}


def data_folder(name: str) -> Path:
    """Where a data set lives by default: `$RLINO_DATA/name`, or `~/.cache/rlino/name`."""
    return cache_folder() / name


def read_file(name: str, file: str, folder: Path, advice: str = "") -> bytes:
    """The bytes of one file of a data set; raises RlinoError where it is missing, unreadable or not the original."""
    path = folder / file
    advice = advice or f"`rlino fetch {name}` gets the original"
    try:
        data = path.read_bytes()
    except OSError as e:
        raise RlinoError(f"cannot read {path} ({e.strerror}): {advice}") from e
    if hashlib.sha256(data).hexdigest() != SETS[name][file].sha256:
        raise RlinoError(f"{path} is not the original (its SHA-256 differs): {advice}")
    return data


def fetch(
    name: str, out: str | Path | None = None, source: str | Path | None = None, progress: bool = False
) -> dict[str, Any]:
    """Put a data set's files into `out` (default: `data_folder`), from their home or from the folder `source`.

    A file appears under its name only when it is whole and its checksum right; one that is there already is left as it
    is. A download that was interrupted is resumed at the next call; a new folder that stays empty is removed. Raises
    RlinoError where a file cannot be fetched, and OSError where it cannot be written.
    """
    chosen(name, SETS, "data set")
    folder = Path(out).expanduser() if out else data_folder(name)
    if folder.resolve().is_relative_to(REPO):
        raise RlinoError(f"{folder} is inside {REPO}, which holds no data sets: choose another folder")
    advice = f"--from takes a folder that holds the original {' and '.join(SETS[name])}"
    copies = {file: read_file(name, file, Path(source).expanduser(), advice) for file in SETS[name]} if source else {}
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        outcomes = {file: _put(name, file, folder, copies.get(file), progress) for file in SETS[name]}
    finally:
        if is_new and not any(folder.iterdir()):
            folder.rmdir()
    return {"data_set": name, "folder": str(folder), **outcomes}


def _put(name: str, file: str, folder: Path, copy: bytes | None, progress: bool) -> str:
    """Write one file, downloaded where there is no `copy` of it, and say in words what was done."""
    try:
        read_file(name, file, folder)
        return "there already"
    except RlinoError:  # missing, or not the original
        part = folder / f"{file}.tmp"
    if copy is None:
        _download(SETS[name][file], part, name, progress)
    else:
        part.write_bytes(copy)
    os.replace(part, folder / file)
    return "fetched" if copy is None else "copied"


def _download(remote: Remote, part: Path, name: str, progress: bool) -> None:
    """Bring `part` up to the whole file; what there is of it is kept where the connection fails."""
    instead = f"fetch it where there is a network, and use `rlino fetch {name} --from DIR`"
    size = part.stat().st_size if part.exists() else 0
    if size < remote.size:
        try:
            _transfer(remote, part, size, progress)
        except HTTPError as e:
            raise RlinoError(f"{remote.url} answers {e.code} {e.reason}: {instead}") from e
        except (OSError, HTTPException) as e:  # no network, no such host, a time-out, a line that breaks
            raise RlinoError(f"cannot fetch {remote.url} ({getattr(e, 'reason', e)}): {instead}") from e
    size = part.stat().st_size
    if size < remote.size:
        raise RlinoError(f"the connection ended at {size:,} of {remote.size:,} bytes; the same command resumes it")
    if hashlib.sha256(part.read_bytes()).hexdigest() != remote.sha256:
        part.unlink()
        raise RlinoError(f"what came from {remote.url} is not the original (its SHA-256 differs), and is removed")


def _transfer(remote: Remote, part: Path, size: int, progress: bool) -> None:
    """Append to the `size` bytes of `part` what the server has after them; no more than one block too many."""
    headers = {"User-Agent": "rlino"} | ({"Range": f"bytes={size}-"} if size else {})
    with urlopen(Request(remote.url, headers=headers), timeout=30) as response:
        is_partial = response.status == 206
        if is_partial and not response.headers.get("Content-Range", "").startswith(f"bytes {size}-"):
            part.unlink(missing_ok=True)
            raise OSError("the server sent another part than the one requested; the same command starts afresh")
        size = size if is_partial else 0  # a server that knows no ranges sends all of it again
        bar = tqdm(total=remote.size, initial=size, desc=part.stem, unit="B", unit_scale=True, disable=not progress)
        with bar, open(part, "ab" if is_partial else "wb") as f:
            while size <= remote.size and (block := response.read(1 << 16)):
                f.write(block)
                size += len(block)
                bar.update(len(block))
