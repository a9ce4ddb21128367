"""Data sets from their public homes, with checksums: `rlino fetch` (chapter 02). The repository holds none of them."""

import hashlib
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm.auto import tqdm

from rlino_lib.errors import RlinoError, chosen
from rlino_lib.folders import replacing
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

    Files appear once all of them are whole and their checksums right; one that is there already is left as it is.
    Raises RlinoError where a file cannot be fetched, and OSError where it cannot be written.
    """
    chosen(name, SETS, "data set")
    folder = Path(out).expanduser() if out else data_folder(name)
    if folder.resolve().is_relative_to(REPO):
        raise RlinoError(f"{folder} is inside {REPO}, which holds no data sets: choose another folder")
    advice = f"--from takes a folder that holds the original {' and '.join(SETS[name])}"
    outcomes = {}
    contents = {}
    for file, remote in SETS[name].items():
        try:
            read_file(name, file, folder)
            outcomes[file] = "there already"
        except RlinoError:  # missing, or not the original
            outcomes[file] = "copied" if source else "fetched"
            local = Path(source or "").expanduser()
            contents[file] = read_file(name, file, local, advice) if source else _download(name, remote, progress)
    folder.mkdir(parents=True, exist_ok=True)
    for file, data in contents.items():
        with replacing(folder / file) as part:
            part.write_bytes(data)
    return {"data_set": name, "folder": str(folder), **outcomes}


def _download(name: str, remote: Remote, progress: bool) -> bytes:
    """The whole file, checked; of an answer that does not end no more than one block too many is read."""
    instead = f"fetch it where there is a network, and use `rlino fetch {name} --from DIR`"
    data = bytearray()
    bar = tqdm(total=remote.size, desc=remote.url.rpartition("/")[2], unit="B", unit_scale=True, disable=not progress)
    try:
        with bar, urlopen(Request(remote.url, headers={"User-Agent": "rlino"}), timeout=30) as response:
            while len(data) <= remote.size and (block := response.read(1 << 16)):
                data += block
                bar.update(len(block))
    except HTTPError as e:
        raise RlinoError(f"{remote.url} answers {e.code} {e.reason}: {instead}") from e
    except (OSError, HTTPException) as e:  # no network, no such host, a time-out, a line that breaks
        raise RlinoError(f"cannot fetch {remote.url} ({getattr(e, 'reason', e)}): {instead}") from e
    if len(data) < remote.size:
        raise RlinoError(f"the connection ended at {len(data):,} of {remote.size:,} bytes: try the same command again")
    if hashlib.sha256(data).hexdigest() != remote.sha256:
        raise RlinoError(f"what came from {remote.url} is not the original (its SHA-256 differs)")
    return bytes(data)
