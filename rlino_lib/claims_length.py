"""How the ledger's claims on length are judged (chapter 08). A seed is the unit; a verdict needs the planned seeds.

Where an interval over seeds leaves both answers open, a claim is "not testable here" and says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd

from rlino_lib.causes import Kind, base_length, base_problems, decompose, final_responses, growth
from rlino_lib.compare import t_interval
from rlino_lib.ledger import CONDITIONS, FAILS, HOLDS, RECORDED, UNTESTED, Claim, Evidence, Records, told, untested
from rlino_lib.objectives import OBJECTIVES
from rlino_lib.records import Run


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


def _sided(values: pd.Series) -> str:
    """Whether an interval over seeds is above 0, below, or around it."""
    low, high = t_interval(values)
    return HOLDS if low > 0 else FAILS if high < 0 else UNTESTED


def _grew(runs: list[Run], kind: Kind, share: float) -> tuple[str, str]:
    """Whether responses of a kind have grown by a share of the base's length or more; and the words."""
    found, start = _growths(runs, kind), base_length(base_problems(runs[0]), kind)
    verdict = _sided(found - share * start)
    return verdict, f"{told(found, 'tokens')}, from {start:.1f}"


def grows(claim: Claim, records: Records) -> Evidence:
    """Responses of `kind` grow by the share of the threshold or more."""
    rows = _rows(claim, records, "per_response")
    if rows is None:
        return untested(claim)
    verdict, words = _grew(rows[0], claim.about["kind"], claim.threshold["share"])
    return Evidence(verdict, words, _names(rows))


def flat(claim: Claim, records: Records) -> Evidence:
    """They do not."""
    found = grows(claim, records)
    return Evidence({HOLDS: FAILS, FAILS: HOLDS}.get(found.verdict, found.verdict), found.effect, found.runs)


def right_little(claim: Claim, records: Records) -> Evidence:
    """Right responses grow by less than a share of what wrong ones grow by."""
    rows = _rows(claim, records, "per_response")
    if rows is None:
        return untested(claim)
    right, wrong = (_growths(rows[0], kind) for kind in ("right", "wrong"))
    effect = f"right {told(right, 'tokens')}, wrong {told(wrong, 'tokens')}"
    return Evidence(_sided(claim.threshold["share"] * wrong - right), effect, _names(rows))


def caused(claim: Claim, records: Records) -> Evidence:
    """Without 1/|o| (constant) at most a share of the growth of wrong responses that were not cut is left."""
    rows = _rows(claim, records, "per_response", "constant")
    if rows is None:
        return untested(claim)
    with_it, without = (_growths(runs, claim.about["kind"]) for runs in rows)
    effect = f"with 1/|o| {told(with_it, 'tokens')}, constant {told(without, 'tokens')}"
    return Evidence(_sided(claim.threshold["share"] * with_it - without), effect, _names(rows))


def survives(claim: Claim, records: Records) -> Evidence:
    """Wrong responses also grow under the token mean and the constant normaliser."""
    rows = _rows(claim, records, "token_mean", "constant")
    if rows is None:
        return untested(claim)
    found = [_grew(runs, claim.about["kind"], claim.threshold["share"]) for runs in rows]
    verdicts = [verdict for verdict, _ in found]
    same = verdicts[0] if verdicts[0] == verdicts[1] else CONDITIONS if HOLDS in verdicts else UNTESTED
    return Evidence(same, f"token mean {found[0][1]}; constant {found[1][1]}", _names(rows))


def _part(of: str) -> Callable[[Claim, Records], Evidence]:
    def judge(claim: Claim, records: Records) -> Evidence:
        rows = _rows(claim, records, "per_response")
        if rows is None:
            return untested(claim)
        cap = rows[0][0].config["max_new_tokens"]
        parts = [decompose(final_responses(run), base_problems(run), cap) for run in rows[0]]
        part, whole = pd.Series([getattr(p, of) for p in parts]), pd.Series([p.total for p in parts])
        effect = f"{told(part, 'tokens')}, of {told(whole, 'tokens')}"
        return Evidence(_sided(part - claim.threshold["share"] * whole), effect, _names(rows))

    judge.__doc__ = f"The part `{of}` of the growth of wrong responses is at least a share of it."
    return judge


is_selection, is_cut = _part("selection"), _part("cut")
is_selection.__name__, is_cut.__name__ = "is_selection", "is_cut"


def buys(claim: Claim, records: Records) -> Evidence:
    """At least a share of the gain in accuracy are right responses that first hit after more attempts than the base
    makes on average."""
    rows = _rows(claim, records, "per_response")
    if rows is None:
        return untested(claim)
    base = base_problems(rows[0][0])
    allowed, start = math.ceil(base["attempts"].mean()), base["rate"].mean()
    gains, late = [], []
    for run in rows[0]:
        found = final_responses(run)
        gains.append(100 * (found["correct"].mean() - start))
        late.append(100 * (found["correct"] & (found["first_hit"] > allowed)).mean())
    gain, bought = pd.Series(gains), pd.Series(late)
    effect = f"{told(bought)} hit after attempt {allowed}, of a gain of {told(gain)}"
    return Evidence(_sided(bought - claim.threshold["share"] * gain), effect, _names(rows))


LENGTH_EVIDENCE = (grows, flat, right_little, caused, survives, is_selection, is_cut, buys)
