"""What a claim is and what a verdict on it consists of; `data/claims.toml` holds statements, thresholds and verdicts.

A piece of evidence is a function of a claim and of records, in a module of this folder for each subject. The ledger
names it by module and function: `length.longer_responses_buy_accuracy`. `judge.py` judges claims by it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rlino_lib.claims.verdicts import VERDICTS
from rlino_lib.errors import RlinoError
from rlino_lib.paths import REPO, RUNS
from rlino_lib.records.runs import Run, list_runs

LEDGER = REPO / "data" / "claims.toml"
KINDS = ("exact", "statistical", "descriptive")
# The chapter of a claim, or of the module of its evidence.
CHAPTERS = {
    "weighted-sft": "04", "closed-form": "04", "bandit": "01", "gradient": "06", "head_to_head": "07",
    "clean_room": "08b", "length": "08c", "real": "13", "sharpening": "09", "chains": "09b",
    "credit": "10", "environment": "10b", "relatives": "11", "exploration": "11b",
}  # fmt: skip
SUPPORTS, AGAINST, NO_VERDICT, SILENT = "supports", "speaks against", "no verdict", "silent"


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
    revision: str = ""  # why the claim or its test is under revision or superseded, where it is
    superseded_by: str = ""  # the claim that is to be read in its place
    real: Mapping[str, str] = field(default_factory=dict, hash=False)  # says, record, takes: public records, chapter 13

    @property
    def chapter(self) -> str:
        """The chapter that derives and judges it: 08c; empty for evidence that is not the book's."""
        return CHAPTERS.get(self.id) or CHAPTERS.get(self.evidence.partition(".")[0], "")

    @property
    def standing(self) -> str:
        """Why the verdict is not the last word, in words: "superseded by NAME: …" or "under revision: …", or empty."""
        what = f"superseded by {self.superseded_by}" if self.superseded_by else "under revision"
        return self.revision and f"{what}: {self.revision}"

    @property
    def real_models(self) -> str:
        """What public records of real models say of it, in words; "silent" where there is none.

        "No verdict" comes with what a verdict would take: one run with one seed is none.
        """
        if not self.real:
            return SILENT
        takes = f"; a verdict takes {self.real['takes']}" if "takes" in self.real else ""
        return f"{self.real['says']} ({self.real['record']}){takes}"


@dataclass(frozen=True)
class Evidence:
    """The result of a piece of evidence: a verdict, the effect in words with its numbers, and the runs behind it."""

    verdict: str
    effect: str
    runs: Sequence[Run] = ()


@dataclass(frozen=True)
class Records:
    """What a claim is judged from: recorded runs, and the ledger, for the family that a test belongs to."""

    root: Path
    ledger: Sequence[Claim] = ()
    own: Sequence[Run] | None = None  # the runs of a reader, who need not sort them into groups
    tests: dict[Claim, tuple[float, float]] = field(default_factory=dict, repr=False)  # p values, each computed once

    def runs(self, group: str) -> list[Run]:
        """The complete runs of a group; of a reader's own all."""
        return list_runs(group, self.root) if self.own is None else list(self.own)


RECORDED = Records(RUNS)  # the book's own runs


class NotTestable(RlinoError):
    """There is no test of a claim, for want of runs or seeds: the message says which."""


def require_seeds(claim: Claim, seeds: int) -> None:
    """Raises NotTestable before the planned seeds are recorded: a verdict on fewer would be one of many looks."""
    if seeds < claim.threshold["seeds"]:
        raise NotTestable(f"fewer than the planned {claim.threshold['seeds']:.0f} seeds are recorded")


def on_common_seeds(claim: Claim, *rows: Sequence[Run]) -> list[list[Run]]:
    """Of each row of runs those whose seeds all rows have; raises NotTestable as `require_seeds` does."""
    common = set.intersection(*({run.seed for run in runs} for runs in rows))
    require_seeds(claim, len(common))
    return [[run for run in runs if run.seed in common] for runs in rows]


# --- evidence --------------------------------------------------------------------------------------------------------

Function = Callable[[Claim, Records], Evidence]
EVIDENCE: dict[str, Function] = {}  # by module and name


def evidence(function: Function) -> Function:
    """Registers a function under the name that the ledger uses. It raises NotTestable where records do not suffice."""
    EVIDENCE[f"{function.__module__.rpartition('.')[2]}.{function.__name__}"] = function
    return function


def read_ledger(path: str | Path = LEDGER) -> list[Claim]:
    """The claims in their order. Raises RlinoError for a malformed file or row."""
    try:
        rows = tomllib.loads(Path(path).read_text(encoding="utf-8"))["claim"]
        claims = [Claim(**row) for row in rows]
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as e:
        raise RlinoError(f"{path} is not a ledger: {e}") from e
    ids = {c.id for c in claims}
    if len(ids) < len(claims):
        raise RlinoError(f"{path} has two claims with the same id")
    for c in claims:
        if c.kind not in KINDS or c.evidence not in EVIDENCE or c.verdict not in (None, *VERDICTS):
            raise RlinoError(f"claim {c.id}: unknown kind {c.kind!r}, evidence {c.evidence!r} or verdict {c.verdict!r}")
        known = {"says", "record"} | ({"takes"} if c.real.get("says") == NO_VERDICT else set())
        if c.real and (set(c.real) != known or c.real["says"] not in (SUPPORTS, AGAINST, NO_VERDICT)):
            raise RlinoError(f"claim {c.id}: {dict(c.real)} is not what records of real models may say")
        if c.superseded_by and (c.superseded_by not in ids or not c.revision):
            raise RlinoError(f"claim {c.id}: superseded by {c.superseded_by!r}, which is no claim, or without a reason")
    return claims
