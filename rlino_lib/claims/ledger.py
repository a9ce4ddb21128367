"""What a claim is, and what a verdict on it consists of. How claims are judged: `claims.py`, `claims_length.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from rlino_lib.analysis.statistics import t_interval
from rlino_lib.paths import RUNS
from rlino_lib.records.runs import Run, list_runs

KINDS = ("exact", "statistical", "descriptive")
# Undecided: the planned test settles it neither way. Not testable here: there is no test, for want of runs or seeds.
VERDICTS = ("holds", "holds with conditions", "does not hold here", "undecided", "not testable here")
HOLDS, CONDITIONS, FAILS, UNDECIDED, UNTESTED = VERDICTS


@dataclass(frozen=True)
class Claim:
    """One row of the ledger; `verdict` is what is stored, None where nobody has judged it yet."""

    id: str
    statement: str
    paper: str
    kind: str
    evidence: str
    threshold: Mapping[str, float] = field(hash=False)
    verdict: str | None = None
    about: Mapping[str, str] = field(default_factory=dict, hash=False)  # which task and methods it compares
    revision: str = ""  # why the claim or its test is under revision, where it is


@dataclass(frozen=True)
class Evidence:
    """What was found: a verdict, the effect in words with its numbers, and the names of the runs behind it."""

    verdict: str
    effect: str
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Records:
    """What a claim is judged from: recorded runs, and the ledger, for the family that a test belongs to."""

    root: Path
    ledger: Sequence[Claim] = ()
    own: Sequence[Run] | None = None  # the runs of a reader, who need not sort them into groups

    def runs(self, group: str) -> list[Run]:
        """The complete runs of a group; of a reader's own all."""
        return list_runs(group, self.root) if self.own is None else list(self.own)


RECORDED = Records(RUNS)  # the book's own runs


def untested(claim: Claim) -> Evidence:
    """The verdict before as many seeds are recorded as were planned: one on fewer would be one of many looks."""
    return Evidence(UNTESTED, f"fewer than the planned {claim.threshold['seeds']:.0f} seeds are recorded")


def sided(values: pd.Series) -> str:
    """Whether the 95 % interval over seeds lies above 0, below it, or around it: holds, does not hold, undecided."""
    low, high = t_interval(values)
    return HOLDS if low > 0 else FAILS if high < 0 else UNDECIDED


def of_all(verdicts: Sequence[str]) -> str:
    """The verdict on "all of these": the one that they agree on, else whether it holds of some or fails of some."""
    if len(set(verdicts)) == 1:
        return verdicts[0]
    return CONDITIONS if HOLDS in verdicts or CONDITIONS in verdicts else FAILS if FAILS in verdicts else UNDECIDED


def told(values: pd.Series, unit: str = "points") -> str:
    """Mean and 95 % interval over seeds, in words."""
    low, high = t_interval(values)
    return f"{values.mean():+.1f} {unit} [{low:+.1f}, {high:+.1f}] over {len(values)} seeds"
