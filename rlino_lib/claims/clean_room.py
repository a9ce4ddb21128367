"""Evidence from the clean room (chapter 08b): filler after a verdict that the policy reads and cannot move.

Statistic of a run: its gap, the mean over its first `steps` steps of mean filler after bad less mean filler after good
verdicts, in tokens. What all responses of a run share, a common drift, is not in it. A seed is the unit.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from rlino_lib.analysis import statistics as stats
from rlino_lib.claims.ledger import RECORDED, Claim, Evidence, NotTestable, Records, evidence, on_common_seeds
from rlino_lib.claims.length import normaliser_of
from rlino_lib.claims.verdicts import FAILS, HOLDS, UNDECIDED, mean_in_words, verdict_above_zero, verdict_on_all
from rlino_lib.exact.length_toy import NORMALISERS
from rlino_lib.records.runs import Run

GROUPS = ("clean-room", "clean-room-sgd", "clean-room-dial")
KEYS = ["optimizer", "normaliser", "worth", "seed"]  # what tells runs apart
STEPS = 60
CONTROLS = ("token_mean", "constant")


def setting_of(run: Run) -> tuple[str, str, float]:
    """What sets a run of the clean room apart: its optimizer, its normaliser, and what a filler token is worth."""
    config = run.config
    return config.get("optimizer", "adamw"), normaliser_of(run), config["task_settings"].get("worth", 0.0)


def filler(runs: Iterable[Run]) -> pd.DataFrame:
    """Mean filler at each step of runs, in tokens: columns optimizer, normaliser, worth, seed, step, good and bad.

    A response's own end is not filler. One that is cut at the cap has none, and is taken to be shorter by a token.
    """
    frames = []
    for run in runs:
        rows = run.metrics[run.metrics["step"] > 0]
        sides = {"good": rows["length/correct"] - 1, "bad": rows["length/incorrect"] - 1}
        facts = dict(zip(KEYS, (*setting_of(run), run.seed), strict=True))
        frames.append(pd.DataFrame(facts | {"step": rows["step"]} | sides))
    return pd.concat(frames, ignore_index=True)


def gaps(runs: Iterable[Run], steps: int = STEPS) -> pd.DataFrame:
    """The gap of each run: columns optimizer, normaliser, worth, seed and gap, in tokens."""
    frame = filler(runs)
    frame = frame[frame["step"] <= steps].assign(gap=frame["bad"] - frame["good"])
    return frame.groupby(KEYS, sort=False)["gap"].mean().reset_index()


def room_runs(records: Records = RECORDED) -> list[Run]:
    """All recorded runs of the clean room, each setting and seed once."""
    runs = [run for group in GROUPS for run in records.runs(group) if run.config["task"] == "clean_room"]
    return list({(*setting_of(run), run.seed): run for run in runs}.values())


def _planned(
    claim: Claim, records: Records, normalisers: Iterable[str], worth: float = 0.0
) -> tuple[dict[str, pd.Series], list[Run]]:
    """By normaliser the gaps by seed, of the seeds that all have, and their runs; NotTestable before all are there."""
    settings = [(claim.about["optimizer"], name, worth) for name in normalisers]
    rows = ([run for run in room_runs(records) if setting_of(run) == setting] for setting in settings)
    runs = sum(on_common_seeds(claim, *rows), [])
    if any(run.config["steps"] < claim.threshold["steps"] for run in runs):
        raise NotTestable("some runs ended before the steps that count")
    table = gaps(runs, int(claim.threshold["steps"]))
    by_seed = {name: part.set_index("seed")["gap"].sort_index() for name, part in table.groupby("normaliser")}
    return by_seed, runs


@evidence
def mechanism_exists(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: 1/|o| alone makes responses of negative advantage longer than those of positive advantage.

    Statistic: the gap under 1/|o|. Threshold `tokens`: holds where its 95 % interval lies above, fails where below.
    """
    by_seed, runs = _planned(claim, records, ["per_response"])
    values = by_seed["per_response"]
    return Evidence(verdict_above_zero(values - claim.threshold["tokens"]), mean_in_words(values, "tokens"), runs)


@evidence
def controls_stay(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: under the token mean and under a constant the two stay equal, whatever drift they share.

    Statistic: the gap under each. Threshold `tokens`: of each normaliser the claim holds where the 90 % interval lies
    within ± that (two one-sided tests at 5 %), fails where the 95 % interval lies outside, and is undecided otherwise.
    """
    by_seed, runs = _planned(claim, records, CONTROLS)
    margin = claim.threshold["tokens"]
    verdicts = [_within(by_seed[name], margin) for name in CONTROLS]
    effects = [f"{NORMALISERS[name]} {mean_in_words(by_seed[name], 'tokens')}" for name in CONTROLS]
    return Evidence(verdict_on_all(verdicts), "; ".join(effects), runs)


def _within(values: pd.Series, margin: float) -> str:
    """Whether a mean over seeds is within ±margin: holds, does not hold, undecided."""
    if stats.tost(values, margin) < 0.05:
        return HOLDS
    return FAILS if stats.beyond(values, margin) < 0.05 else UNDECIDED


@evidence
def worth_hides_the_mechanism(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: where filler is worth something, bad responses grow for that reason too, without 1/|o|.

    Statistic: the gap under 1/|o| and under a constant, paired by seed, where a token is worth `worth`.
    Threshold `share`: holds where a constant has that share of the gap under 1/|o| or more.
    """
    pair = ["per_response", "constant"]
    by_seed, runs = _planned(claim, records, pair, claim.threshold["worth"])
    one, other = (by_seed[name] for name in pair)
    effect = f"1/|o| {mean_in_words(one, 'tokens')}, constant {mean_in_words(other, 'tokens')}"
    return Evidence(verdict_above_zero(other - claim.threshold["share"] * one), effect, runs)
