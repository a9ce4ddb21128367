"""The public records of real models in `data/real/`, as data frames; `data/real/README.md` says what each is."""

from __future__ import annotations

from functools import lru_cache

import pandas as pd

from rlino_lib.errors import RlinoError
from rlino_lib.folders import read_json
from rlino_lib.paths import DATA

REAL = DATA / "real"
TABLES = ("gsm8k", "arithmetic", "countdown", "countdown_logs", "math_logs", "visits")
_FLAGS = ("correct", "answered", "format_ok")
_TEXTS = {"right_of_8": str, "numbers": str, "answer": str, "error": str}


def real_table(name: str) -> pd.DataFrame:
    """A table of `data/real/` by its name: `real_table("gsm8k")`. Raises RlinoError for another name."""
    if name not in TABLES:
        raise RlinoError(f"unknown table {name!r}: there are {', '.join(TABLES)}")
    return _read(name).copy()


@lru_cache(maxsize=len(TABLES))
def _read(name: str) -> pd.DataFrame:
    frame = pd.read_csv(REAL / f"{name}.csv.gz", dtype=_TEXTS)
    for column in frame.columns.intersection(list(_TEXTS)):
        frame[column] = frame[column].fillna("")
    flags = [*_FLAGS, *(["truncated"] if name == "countdown" else [])]
    return frame.astype({column: bool for column in frame.columns.intersection(flags)})


def sources() -> pd.DataFrame:
    """Where the tables are from: repository, commit and licence, a row for each source."""
    known = read_json(REAL / "sources.json")
    return pd.DataFrame([{k: v[k] for k in ("repository", "commit", "license")} for v in known.values()])


def visits() -> list[list[float]]:
    """The share right of 8 rollouts at each visit of each prompt, in their order: one list a prompt."""
    return [[int(digit) / 8 for digit in text] for text in real_table("visits")["right_of_8"]]
