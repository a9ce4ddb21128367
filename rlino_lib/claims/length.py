"""How the ledger's claims on length are judged (chapter 08). A seed is the unit; a verdict needs the planned seeds.

Where an interval over seeds leaves both answers open, a claim is undecided.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps

import pandas as pd

from rlino_lib.analysis.growth import (
    Kind,
    base_length,
    base_problems,
    final_responses,
    first_responses,
    growth,
    parts_of,
)
from rlino_lib.claims.ledger import FAILS, HOLDS, RECORDED, Claim, Evidence, Records, of_all, sided, told, untested
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.records.runs import Run

Judge = Callable[[Claim, Records], Evidence]


def normaliser_of(run: Run) -> str:
    """The normaliser that a run was trained with."""
    return run.config.get("objective_settings", {}).get("normaliser", OBJECTIVES[run.method].normaliser)


def length_runs(task: str, method: str, normaliser: str = "per_response", records: Records = RECORDED) -> list[Run]:
    """The recorded runs of a row of the ablation that kept their responses, by seed.

    The rows of 1/|o| come from the head-to-head grid where it made them. Runs of another cap do not count.
    """
    found = {}
    for run in [*records.runs("head-to-head"), *records.runs("length")]:
        row = run.config["task"], run.method, normaliser_of(run)
        plain = set(run.config.get("objective_settings", {})) <= {"normaliser"}
        if row == (task, method, normaliser) and plain and (run.path / "responses.csv.gz").exists():
            found.setdefault(run.seed, run)
    return [found[seed] for seed in sorted(found)]


def _rows(claim: Claim, records: Records, *normalisers: str) -> list[list[Run]] | None:
    """The runs of each normaliser on the seeds that all have; None before the planned seeds are there."""
    about = claim.about
    found = [length_runs(about["task"], about["method"], n, records) for n in normalisers]
    common = set.intersection(*({run.seed for run in runs} for runs in found))
    if len(common) < claim.threshold["seeds"]:
        return None
    return [[run for run in runs if run.seed in common] for runs in found]


def _names(rows: list[list[Run]]) -> tuple[str, ...]:
    return tuple(run.name for runs in rows for run in runs)


def _growths(runs: list[Run], kind: Kind) -> pd.Series:
    return pd.Series([growth(run, kind) for run in runs]).dropna()


def _grew(runs: list[Run], kind: Kind, share: float) -> tuple[str, str]:
    """Whether responses of a kind have grown by a share of the base's length or more; and the words."""
    found, start = _growths(runs, kind), base_length(base_problems(runs[0]), kind)
    verdict = sided(found - share * start)
    return verdict, f"{told(found, 'tokens')}, from {start:.1f}"


def _needs(*normalisers: str) -> Callable[[Callable[..., tuple[str, str]]], Judge]:
    """Makes evidence of a function from a claim and the runs of these normalisers to a verdict and the words for it."""

    def wrap(judge: Callable[..., tuple[str, str]]) -> Judge:
        @wraps(judge)
        def evidence(claim: Claim, records: Records) -> Evidence:
            rows = _rows(claim, records, *normalisers)
            return untested(claim) if rows is None else Evidence(*judge(claim, *rows), _names(rows))

        return evidence

    return wrap


@_needs("per_response")
def grows(claim: Claim, runs: list[Run]) -> tuple[str, str]:
    """Responses of `kind` grow by the share of the threshold or more."""
    return _grew(runs, claim.about["kind"], claim.threshold["share"])


def flat(claim: Claim, records: Records) -> Evidence:
    """They do not."""
    found = grows(claim, records)
    return Evidence({HOLDS: FAILS, FAILS: HOLDS}.get(found.verdict, found.verdict), found.effect, found.runs)


@_needs("per_response")
def right_little(claim: Claim, runs: list[Run]) -> tuple[str, str]:
    """Right responses grow by less than a share of what wrong ones grow by."""
    right, wrong = (_growths(runs, kind) for kind in ("right", "wrong"))
    effect = f"right {told(right, 'tokens')}, wrong {told(wrong, 'tokens')}"
    return sided(claim.threshold["share"] * wrong - right), effect


@_needs("per_response", "constant")
def caused(claim: Claim, *rows: list[Run]) -> tuple[str, str]:
    """Without 1/|o| (constant) at most a share of the growth of wrong responses that were not cut is left."""
    with_it, without = (_growths(runs, claim.about["kind"]) for runs in rows)
    effect = f"with 1/|o| {told(with_it, 'tokens')}, constant {told(without, 'tokens')}"
    return sided(claim.threshold["share"] * with_it - without), effect


@_needs("token_mean", "constant")
def survives(claim: Claim, *rows: list[Run]) -> tuple[str, str]:
    """Wrong responses also grow under the token mean and the constant normaliser."""
    found = [_grew(runs, claim.about["kind"], claim.threshold["share"]) for runs in rows]
    return of_all([verdict for verdict, _ in found]), f"token mean {found[0][1]}; constant {found[1][1]}"


def _part(claim: Claim, runs: list[Run], of: str) -> tuple[str, str]:
    parts = [parts_of(run) for run in runs]
    part, whole = pd.Series([getattr(p, of) for p in parts]), pd.Series([p.total for p in parts])
    effect = f"{told(part, 'tokens')}, of {told(whole, 'tokens')}"
    return sided(part - claim.threshold["share"] * whole), effect


@_needs("per_response")
def is_selection(claim: Claim, runs: list[Run]) -> tuple[str, str]:
    """The part `selection` of the growth of wrong responses is at least a share of it."""
    return _part(claim, runs, "selection")


@_needs("per_response")
def is_cut(claim: Claim, runs: list[Run]) -> tuple[str, str]:
    """The part `cut` of the growth of wrong responses is at least a share of it."""
    return _part(claim, runs, "cut")


@_needs("per_response")
def buys(claim: Claim, runs: list[Run]) -> tuple[str, str]:
    """At least a share of the gain in accuracy are right responses that first hit after more attempts than the base
    makes on average, beyond those of them that the base had already (in each run's own evaluation before training)."""
    base = base_problems(runs[0])
    allowed, start = math.ceil(base["attempts"].mean()), base["rate"].mean()
    gain = pd.Series([100 * (final_responses(run)["correct"].mean() - start) for run in runs])
    late = pd.Series([_late_hits(final_responses(run), allowed) for run in runs])
    before = pd.Series([_late_hits(first_responses(run), allowed) for run in runs])
    bought = late - before
    effect = f"{told(bought)} more hit after attempt {allowed} than the base's {before.mean():.1f}"
    effect = f"{effect}, of a gain of {told(gain)}"
    return sided(bought - claim.threshold["share"] * gain), effect


def _late_hits(responses: pd.DataFrame, allowed: int) -> float:
    """Points of responses that are right and hit the target only after so many attempts."""
    return 100 * float((responses["correct"] & (responses["first_hit"] > allowed)).mean())


LENGTH_EVIDENCE = (grows, flat, right_little, caused, survives, is_selection, is_cut, buys)
