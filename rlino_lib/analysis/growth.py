"""Why recorded responses grow: selection, the cap, attempts, and what is left to the normaliser (chapter 08).

Everything is read from records: `Run.responses` (one row per held-out response) and the base's own evaluation
(problems.jsonl, one row per problem). A truncated response has exactly the cap's length.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import scipy.stats

from rlino_lib.errors import RlinoError
from rlino_lib.folders import read_json
from rlino_lib.paths import REPO
from rlino_lib.records.runs import Run

Kind = Literal["right", "wrong", "wrong, not truncated"]
KINDS: tuple[Kind, ...] = ("right", "wrong", "wrong, not truncated")


def of_kind(responses: pd.DataFrame, kind: Kind) -> pd.DataFrame:
    """The responses of one kind; raises RlinoError for an unknown kind."""
    if kind not in KINDS:
        raise RlinoError(f"unknown kind of responses {kind!r}: one of {', '.join(KINDS)}")
    if kind == "right":
        return responses[responses["correct"]]
    return responses[~responses["correct"] & ~(responses["clipped"] & (kind != "wrong"))]


def final_responses(run: Run) -> pd.DataFrame:
    """The responses of the test after training; raises RlinoError where the run kept none."""
    return _kept(run, run.responses["final"], "a test")


def first_responses(run: Run) -> pd.DataFrame:
    """The base's responses in the run's own evaluation before training; raises RlinoError where the run kept none."""
    return _kept(run, (run.responses["step"] == 0) & ~run.responses["final"], "its base")


def _kept(run: Run, chosen: pd.Series, whose: str) -> pd.DataFrame:
    if not chosen.any():
        raise RlinoError(f"{run.name} kept no responses of {whose}")
    return run.responses[chosen]


# --- the base --------------------------------------------------------------------------------------------------------


def _evaluation(folder: Path, part: str) -> dict[str, Any]:
    return read_json(folder / "evaluation.json", needs=part)[part]


def base_accuracy(run: Run) -> float:
    """Accuracy of a run's base on the test split, in points, from the evaluation that is shipped with it.

    Raises RlinoError where that is missing or damaged.
    """
    return 100 * _evaluation(REPO / run.config["model"], "found")["pass@1"]["value"]


def base_cap(run: Run) -> int | None:
    """The cap of the evaluation that is shipped with a run's base, in tokens; None where there is none."""
    try:
        return _evaluation(REPO / run.config["model"], "asked")["max_new_tokens"]
    except RlinoError:
        return None


def base_problems(run: Run) -> pd.DataFrame:
    """What a run's base does on each test problem (the index), from the evaluation that is shipped with the base.

    Columns: `rate`, the share right; `attempts` per response; `right`, `wrong` and `truncated`, how many samples are
    right, wrong and truncated; `tokens_right`, of all the right; and mean lengths in tokens, `length` of the wrong,
    `whole` of the wrong that were not truncated (NaN where there are none). Truncated responses count as wrong, as
    nearly all are: they have not ended. Raises RlinoError where the evaluation is missing, or was made with another
    cap than the run.
    """
    return _base_problems(REPO / run.config["model"], run.config["max_new_tokens"])


@lru_cache(maxsize=16)
def _base_problems(folder: Path, cap: int) -> pd.DataFrame:
    settings = _evaluation(folder, "asked")
    if settings["max_new_tokens"] != cap or settings["split"] != "test":
        raise RlinoError(f"{folder} was not evaluated on the test split with a cap of {cap}")
    try:
        table = pd.read_json(folder / "problems.jsonl", lines=True).set_index("id")
    except (OSError, ValueError, KeyError) as e:
        raise RlinoError(f"{folder} has no record of its problems: {e}") from e
    truncated = table["clipped"]
    wrong = table["n"] - table["c"]
    tokens = table["tokens"] - table["tokens_correct"]
    return pd.DataFrame({
        "rate": table["c"] / table["n"], "attempts": table["attempts"] / table["n"],
        "right": table["c"], "wrong": wrong, "truncated": truncated,
        "tokens_right": table["tokens_correct"], "length": (tokens / wrong).where(wrong > 0),
        "whole": ((tokens - cap * truncated) / (wrong - truncated)).where(wrong > truncated),
    })  # fmt: skip


def base_length(base: pd.DataFrame, kind: Kind) -> float:
    """The base's mean length of one kind of responses, tokens."""
    if kind == "right":
        return float(base["tokens_right"].sum() / base["right"].sum())
    counts = base["wrong"] - (base["truncated"] if kind == "wrong, not truncated" else 0)
    lengths = base["whole" if kind == "wrong, not truncated" else "length"]
    return float((lengths.fillna(0) * counts).sum() / counts.sum())


def growth(run: Run, kind: Kind) -> float:
    """Tokens by which the mean length of one kind grew, from the base to the test after training; NaN without any."""
    return float(of_kind(final_responses(run), kind)["length"].mean() - base_length(base_problems(run), kind))


# --- a sum that closes -----------------------------------------------------------------------------------------------


class Parts(NamedTuple):
    """The growth of the mean length of wrong responses, in tokens, as three parts that add up to it exactly."""

    selection: float  # other problems are wrong now than were at first
    truncated: float  # more responses are truncated on them
    longer: float  # those that are not truncated are longer on them

    @property
    def total(self) -> float:
        return sum(self)


def decompose(responses: pd.DataFrame, base: pd.DataFrame, cap: int) -> Parts:
    """From the base to `responses`: what each part adds to the mean length of the wrong ones.

    In between stands what the base would have written on the problems that are wrong now, each counted as often as it
    is wrong now: with mean length M, a share S truncated, and mean length W of the rest. Let s and w be that share and
    that mean now. Then `selection` is M less the base's mean, `truncated` (s − S)(cap − W), `longer` (1 − s)(w − W).
    Problems that the base always solved have no wrong length of it, and M goes without them.
    Raises RlinoError where no response is wrong, or all are truncated, or none is on a problem that the base had wrong.
    """
    wrong = of_kind(responses, "wrong")
    before = base.reindex(wrong["problem_id"])
    before = before[before["wrong"] > 0]
    if before.empty or wrong["clipped"].all():
        raise RlinoError("a decomposition needs wrong, not truncated responses to problems that the base had wrong")
    mean = float(before["length"].mean())
    share_before = float((before["truncated"] / before["wrong"]).mean())
    rest_before = (mean - share_before * cap) / (1 - share_before)  # truncated ones have the cap's length
    share_now = float(wrong["clipped"].mean())
    rest_now = float(wrong.loc[~wrong["clipped"], "length"].mean())
    return Parts(
        selection=mean - base_length(base, "wrong"),
        truncated=(share_now - share_before) * (cap - rest_before),
        longer=(1 - share_now) * (rest_now - rest_before),
    )


def parts_of(run: Run) -> Parts:
    """`decompose` of a run's own test after training, from its own base, at its own cap."""
    return decompose(final_responses(run), base_problems(run), run.config["max_new_tokens"])


def by_rate(responses: pd.DataFrame, base: pd.DataFrame, bins: int = 5) -> pd.DataFrame:
    """Wrong responses by how often the base solved their problem, `bins` groups of equally many problems.

    Columns: `problems`; `base` and `now`, the mean length of wrong responses; `wrong`, how many there are now, and
    their `share` of all that are wrong.
    """
    stratum = pd.qcut(base["rate"].rank(method="first"), bins, labels=False)
    wrong = of_kind(responses, "wrong")
    rows = []
    for k, part in base.groupby(stratum):
        lengths = wrong.loc[wrong["problem_id"].map(stratum) == k, "length"]
        name = f"{100 * part['rate'].min():.0f}–{100 * part['rate'].max():.0f} %"
        share = len(lengths) / max(len(wrong), 1)
        rows.append((name, len(part), base_length(part, "wrong"), lengths.mean(), len(lengths), share))
    columns = ["solved by the base", "problems", "base", "now", "wrong", "share"]
    return pd.DataFrame(rows, columns=columns).set_index("solved by the base")


def paired_lengths(responses: pd.DataFrame) -> pd.Series:
    """Mean length of wrong less mean length of right responses, problem by problem, where there are both."""
    means = responses.groupby(["problem_id", "correct"])["length"].mean().unstack()
    means = means.reindex(columns=[False, True])
    return (means[False] - means[True]).dropna()


# --- the cap as censoring, and a budget of attempts ------------------------------------------------------------------


def survival(lengths: Sequence[float], ended: Sequence[bool], confidence: float = 0.95) -> pd.DataFrame:
    """The share that is longer than each length (the index), by Kaplan and Meier: what did not end is censored.

    Columns: `longer`, and its interval from `low` to `high` (scipy.stats.ecdf). Raises RlinoError where nothing ended.
    """
    lengths = np.asarray(lengths, float)
    ended = np.asarray(ended, bool)
    if not ended.any():
        raise RlinoError("no response has ended: there is nothing to estimate")
    curve = scipy.stats.ecdf(scipy.stats.CensoredData(uncensored=lengths[ended], right=lengths[~ended])).sf
    with warnings.catch_warnings():  # there is no interval where all are longer or none is, and it is NaN there
        warnings.filterwarnings("ignore", "The confidence interval is undefined", RuntimeWarning)
        interval = curve.confidence_interval(confidence)
    columns = {"longer": curve.probabilities, "low": interval.low.probabilities, "high": interval.high.probabilities}
    return pd.DataFrame(columns, index=pd.Index(curve.quantiles, name="length"))


def success_within(responses: pd.DataFrame, budget: int) -> pd.DataFrame:
    """Countdown's success against the number of attempts k that are allowed, for k from 0 to `budget`.

    `within`: the share of responses that hit the target with one of their first k attempts, the success of a solver
    that checks its attempts and is stopped after k. `forced`: the same if no response gave up before k, by Kaplan and
    Meier, with giving up (or the cap) as censoring: right if those that stop would have hit as often as those that go
    on.
    """
    hit = responses["first_hit"]
    allowed = pd.RangeIndex(budget + 1, name="attempts allowed")
    within = [float((hit <= k).mean()) for k in allowed]
    missing = pd.Series(1.0, index=[0.0])  # the share that still misses after so many attempts
    if hit.notna().any():
        longer = survival(hit.fillna(responses["attempts"]), hit.notna())["longer"]
        missing = longer.combine_first(missing)
    forced = 1 - missing.reindex(allowed.astype(float), method="ffill")
    return pd.DataFrame({"within": within, "forced": forced.to_numpy()}, index=allowed)


def attempt_counts(responses: pd.DataFrame) -> pd.Series:
    """Means over Countdown responses of their counts as searches, and tokens per attempt."""
    names = ["attempts", "repeats_order", "attempts_after_hit", "tokens_after_hit", "overlooked", "false_yes", "filler"]
    means = responses[names].mean()
    attempts = responses["attempts"].sum()
    means["tokens_per_attempt"] = responses["tokens_attempts"].sum() / attempts if attempts else np.nan
    return means
