"""Judges the claims of a ledger, each by its evidence and against a threshold that was set beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from rlino_lib.claims.ledger import EVIDENCE, LEDGER, Claim, Evidence, NotTestable, Records, read_ledger
from rlino_lib.claims.verdicts import UNTESTED
from rlino_lib.errors import RlinoError
from rlino_lib.paths import RUNS


def judge(claim: Claim, records: Records) -> Evidence:
    """The evidence for a claim on these records; "not testable here" where they do not suffice."""
    try:
        return EVIDENCE[claim.evidence](claim, records)
    except NotTestable as e:
        return Evidence(UNTESTED, str(e))


def judge_all(path: str | Path = LEDGER, root: str | Path = RUNS, evidence: str = "") -> pd.DataFrame:
    """One row per claim of the ledger, or of those whose evidence's name begins so: `judge_all(evidence="chains.")`.

    Columns: its fields, `chapter`, `standing` and `real_models`; the verdict `found`, its `effect`, and its `runs`.
    Raises RlinoError where no claim's does, and for a ledger that cannot be read.
    """
    records = Records(Path(root), read_ledger(path))
    claims = [claim for claim in records.ledger if claim.evidence.startswith(evidence)]
    if evidence and not claims:
        raise RlinoError(f"the ledger has no claim whose evidence's name begins with {evidence!r}")
    rows = []
    for claim in claims:
        result = judge(claim, records)
        runs = tuple(run.name for run in result.runs)
        words = {"chapter": claim.chapter, "real_models": claim.real_models, "standing": claim.standing}
        rows.append(vars(claim) | words | {"found": result.verdict, "effect": result.effect, "runs": runs})
    return pd.DataFrame(rows)


def ledger_rows(frame: pd.DataFrame, files: Mapping[str, str]) -> list[tuple[Any, ...]]:
    """`judge_all` as rows of a table for CLAIMS.md and chapter 00, the head first.

    A claim's chapter links to its file in `files`, {number: file}, where that has one. After the verdict stands whether
    it is under revision or superseded, and the reason after what was found.
    """
    head = ("claim", "verdict", "chapter", "name", "what was found", "in the paper", "kind", "real models")
    parts = frame["standing"].str.partition(":")  # "under revision", and the reason
    revised = frame["standing"] != ""
    columns = frame.assign(
        id="`" + frame["id"] + "`",
        effect=frame["effect"] + (". *" + parts[0].str.capitalize() + ":*" + parts[2]).where(revised, ""),
        found=frame["found"] + (", *" + parts[0] + "*").where(revised, ""),
        chapter=frame["chapter"].map(lambda number: f"[{number}]({files[number]})" if number in files else number),
    )
    columns = columns[["statement", "found", "chapter", "id", "effect", "paper", "kind", "real_models"]]
    return [head, *columns.itertuples(index=False, name=None)]
