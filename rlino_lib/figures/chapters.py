"""What each chapter costs to run, as it was measured when the book was made (chapter 00)."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from rlino_lib.figures.recorded import markdown_table
from rlino_lib.paths import CHAPTER_COSTS


def chapter_costs(path: Path = CHAPTER_COSTS) -> pd.DataFrame:
    """A row per chapter, indexed by its number: `seconds`, `gib` (the kernel's peak), `machine` and `cores`.

    Empty where nothing is recorded.
    """
    rows = json.loads(path.read_text(encoding="utf-8"))["chapters"] if path.exists() else {}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["seconds", "gib", "machine", "cores"])


def badge(seconds: float, gib: float) -> str:
    """A chapter's cost in a few words, rounded up: `2 min · 0.9 GiB`."""
    minutes = "under 1 min" if seconds < 60 else f"{-(-seconds // 60):.0f} min"
    return f"{minutes} · {-(-gib * 10 // 1) / 10:.1f} GiB"


def costs_table(path: Path = CHAPTER_COSTS) -> str:
    """The badges of all chapters as a Markdown table, and below it what they were measured on."""
    costs = chapter_costs(path)
    if costs.empty:
        return "Nothing is recorded yet: `python -m tools.book run --record`"
    rows = [(number, badge(row.seconds, row.gib)) for number, row in costs.iterrows()]
    machines = costs[["machine", "cores"]].drop_duplicates()
    on = " and ".join(f"{row.cores} cores ({row.machine})" for row in machines.itertuples())
    return f"{markdown_table([('chapter', 'time · memory'), *rows], numbers=False)}\n\nMeasured on {on}."
