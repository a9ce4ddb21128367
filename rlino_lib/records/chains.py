"""What `rlino chains` keeps of a policy's thoughts: tables of counts and sums by problem (chapter 09b)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from rlino_lib.errors import RlinoError
from rlino_lib.folders import measurement

# The columns of each table; those of `graphs` and what follows n in it are `trace_graphs.graph_sums`.
TABLES = {
    "process": ("problem", "n", "process", "correct", "both", "tokens"),
    "graphs": ("problem", "attempts", "correct"),
    # `closed`: of the responses with an attempt those that closed their own thought, before the cap cut it
    "forced": ("problem", "edit", "n", "correct", "follows_last", "has_last", "follows_yes", "has_yes",
               "follows_closed", "closed"),
    "hints": ("problem", "hint", "n", "c"),
    "likelihood": ("problem", "side", "temperature", "n", "tokens", "logprob"),
}  # fmt: skip

MEASUREMENT = measurement("measurement", tuple(f"{name}.csv" for name in TABLES))


def read_chains(folder: str | Path) -> dict[str, pd.DataFrame]:
    """The TABLES of a complete measurement, by name; raises RlinoError where there is none, or where it is damaged."""
    folder = Path(folder)
    if not MEASUREMENT.read(folder)[1]:
        raise RlinoError(f"{folder} holds no complete measurement: rlino chains --out {folder}")
    return {name: read_table(folder, name) for name in TABLES}


def read_table(folder: Path, name: str) -> pd.DataFrame:
    """One of the TABLES; raises RlinoError where it is missing, damaged or lacks a column or a number of responses."""
    file = folder / f"{name}.csv"
    try:
        table = pd.read_csv(file)
        words = ["problem", "edit", "hint", "side", "temperature"]
        counts = table[list(TABLES[name])].drop(columns=words, errors="ignore").astype(float)
    except (OSError, ValueError, KeyError) as e:  # not there, no table, or without these columns
        raise RlinoError(f"{file} is missing or damaged: {e}") from e
    if table.empty or counts.isna().any(axis=None):
        raise RlinoError(f"{file} is damaged: numbers are missing")
    return table
