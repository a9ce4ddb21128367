"""Judges the claims of a ledger, each by its evidence and against a threshold that was set beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from rlino_lib.claims.ledger import EVIDENCE, LEDGER, Claim, Evidence, NotTestable, Records, read_ledger
from rlino_lib.claims.verdicts import UNTESTED
from rlino_lib.paths import RUNS


def judge(claim: Claim, records: Records) -> Evidence:
    """The evidence for a claim on these records; "not testable here" where they do not suffice."""
    try:
        return EVIDENCE[claim.evidence](claim, records)
    except NotTestable as e:
        return Evidence(UNTESTED, str(e))


def judge_all(path: str | Path = LEDGER, root: str | Path = RUNS) -> pd.DataFrame:
    """One row per claim of the ledger: its fields, the verdict `found`, its `effect`, and the names of its `runs`."""
    records = Records(Path(root), read_ledger(path))
    rows = []
    for claim in records.ledger:
        result = judge(claim, records)
        runs = tuple(run.name for run in result.runs)
        rows.append(vars(claim) | {"found": result.verdict, "effect": result.effect, "runs": runs})
    return pd.DataFrame(rows)


def ledger_rows(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    """`judge_all` as rows of a table for the README and chapter 00, the head first."""
    head = ("claim", "in the paper", "kind", "verdict", "what was found")
    why = frame["revision"].map(lambda words: words and f". *Under revision:* {words}")
    columns = frame[["statement", "paper", "kind", "found"]].assign(effect=frame["effect"] + why)
    return [head, *columns.itertuples(index=False, name=None)]
