"""Why recorded responses grow: selection, the cap, attempts, and what is left to the normaliser (chapters 08 and 08c).

Everything is read from records: `Run.responses` (one row per held-out response) and the base's own evaluation
(problems.jsonl, one row per problem, and wrong_lengths.csv.gz where steps can be left out). A truncated response has
exactly the cap's length. A *short* one was not truncated and is too short to have all steps (`least_length` of its
task).
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import ArrayLike

from rlino_lib.errors import RlinoError
from rlino_lib.folders import read_json
from rlino_lib.paths import REPO
from rlino_lib.records.runs import Run
from rlino_lib.tasks import get_task

KINDS = ("right", "wrong", "wrong, not truncated")


def of_kind(responses: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The responses of one kind; raises RlinoError for an unknown kind."""
    if kind not in KINDS:
        raise RlinoError(f"unknown kind of responses {kind!r}: one of {', '.join(KINDS)}")
    if responses["correct"].isna().any():
        raise RlinoError("which responses are right is not known of all of them")
    if kind == "right":
        return responses[responses["correct"]]
    if kind == "wrong, not truncated" and responses["clipped"].isna().any():
        raise RlinoError("which responses were truncated is not known of all of them")
    return responses[~responses["correct"] & ~(responses["clipped"] & (kind != "wrong"))]


def final_responses(run: Run) -> pd.DataFrame:
    """The responses of the test after training; raises RlinoError where the run kept none."""
    return _kept(run, run.responses["final"], "a test")


def first_responses(run: Run) -> pd.DataFrame:
    """The base's responses in the run's own evaluation before training; raises RlinoError where the run kept none."""
    held_out = run.responses.get("held_out", True)  # an imported run has its training samples too
    return _kept(run, (run.responses["step"] == 0) & ~run.responses["final"] & held_out, "its base")


def _kept(run: Run, chosen: pd.Series, whose: str) -> pd.DataFrame:
    if not chosen.any():
        raise RlinoError(f"{run.name} kept no responses of {whose}")
    return run.responses[chosen]


# --- the base --------------------------------------------------------------------------------------------------------


def _evaluation(folder: Path, part: str) -> dict[str, Any]:
    if not folder.is_dir():  # a model from elsewhere
        raise RlinoError(f"the claim compares with the base, and no evaluation of it is recorded in {folder}")
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
    nearly all are: they have not ended. Where the task has a least length of responses that leave no step out, `least`
    is it, and `short` and `tokens_short` are how many wrong samples are shorter and their tokens; NaN and 0 elsewhere.
    Raises RlinoError where the evaluation is missing, or was made with another cap than the run.
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
    frame = pd.DataFrame({
        "rate": table["c"] / table["n"], "attempts": table["attempts"] / table["n"],
        "right": table["c"], "wrong": wrong, "truncated": truncated,
        "tokens_right": table["tokens_correct"], "length": (tokens / wrong).where(wrong > 0),
        "whole": ((tokens - cap * truncated) / (wrong - truncated)).where(wrong > truncated),
    })  # fmt: skip
    return frame.assign(**_short_ones(folder, settings, frame.index))


def _short_ones(folder: Path, settings: dict[str, Any], problems: pd.Index) -> dict[str, pd.Series]:
    """The columns of `base_problems` on responses that leave a step out: none where no lengths are recorded."""
    file = folder / "wrong_lengths.csv.gz"
    none = pd.Series(0, problems)
    if not file.exists():
        return {"least": none.astype(float).replace(0, np.nan), "short": none, "tokens_short": none}
    task: Any = get_task(settings["task"], **settings["task_settings"])  # one with `least_length`
    least = pd.Series({p.id: float(task.least_length(p)) for p in task.problems("test")}).reindex(problems)
    lengths = pd.read_csv(file)
    short = lengths[lengths["length"] < lengths["id"].map(least)]
    short = short.assign(tokens=short["length"] * short["n"]).groupby("id")[["n", "tokens"]].sum()
    short = short.reindex(problems, fill_value=0)
    return {"least": least, "short": short["n"], "tokens_short": short["tokens"]}


def base_length(base: pd.DataFrame, kind: str) -> float:
    """The base's mean length of one kind of responses, tokens."""
    if kind == "right":
        return float(base["tokens_right"].sum() / base["right"].sum())
    counts = base["wrong"] - (base["truncated"] if kind == "wrong, not truncated" else 0)
    lengths = base["whole" if kind == "wrong, not truncated" else "length"]
    return float((lengths.fillna(0) * counts).sum() / counts.sum())


def growth(run: Run, kind: str) -> float:
    """Tokens by which the mean length of one kind grew, from the base to the test after training; NaN without any."""
    return float(of_kind(final_responses(run), kind)["length"].mean() - base_length(base_problems(run), kind))


# --- a sum that closes -----------------------------------------------------------------------------------------------


class Parts(NamedTuple):
    """The growth of the mean length of wrong responses, in tokens, as four parts that add up to it exactly."""

    selection: float  # other problems are wrong now than were at first
    within: float  # fewer responses leave a step out on them: selection within problems
    truncated: float  # more responses are truncated on them
    longer: float  # the others are longer on them than others were

    @property
    def total(self) -> float:
        return sum(self)


def left_out(responses: pd.DataFrame, base: pd.DataFrame) -> pd.Series:
    """Which responses leave a step out: not truncated, and shorter than any with all steps; none of another task's."""
    least = responses["problem_id"].map(base["least"]).astype(float)
    return ~responses["clipped"] & (responses["length"] < least)


def decompose(responses: pd.DataFrame, base: pd.DataFrame, cap: int) -> Parts:
    """From the base to `responses`: what each part adds to the mean length of the wrong ones.

    In between stands what the base would have written on the problems that are wrong now, each counted as often as it
    is wrong now. Wrong responses are of three kinds: truncated, short (a step is left out) and the rest. Let the base's
    have mean length M, shares S and U truncated and short, and mean lengths V and W of the short and of the rest; now s
    and u, v and w. Then `selection` is M less the base's mean, `within` (u − U)(V − W), `truncated` (s − S)(cap − W),
    and `longer` (1 − s − u)(w − W) + u(v − V). Where one of the two sides has no short response, its mean is the
    other's. Problems that the base always solved have no wrong length of it, and M goes without them. Means of a kind
    are over all problems together, so `longer` has in it what the kind's own mix of problems moves.
    Raises RlinoError where no response is wrong and of the rest, or none is on a problem that the base had wrong and
    where it wrote one of the rest.
    """
    wrong = of_kind(responses, "wrong")
    before = base.reindex(wrong["problem_id"])
    before = before[before["wrong"] > 0]
    short = left_out(wrong, base)
    rest = ~wrong["clipped"] & ~short
    if not rest.any() or not (before["wrong"] > before["truncated"] + before["short"]).any():
        raise RlinoError("a decomposition needs wrong responses, neither truncated nor short, of the base and now")
    mean = float(before["length"].mean())
    of_wrong = before[["truncated", "short", "tokens_short"]].div(before["wrong"], axis=0)
    cut_before, short_before, of_short_before = map(float, of_wrong.mean())  # S, U and U · V
    rest_before = (mean - cut_before * cap - of_short_before) / (1 - cut_before - short_before)
    cut_now, short_now, rest_now = (float(kind.mean()) for kind in (wrong["clipped"], short, rest))
    length_now = float(wrong.loc[short, "length"].mean()) if short_now else 0.0
    length_before = of_short_before / short_before if short_before else length_now
    length_now = length_now if short_now else length_before
    return Parts(
        selection=mean - base_length(base, "wrong"),
        within=(short_now - short_before) * (length_before - rest_before),
        truncated=(cut_now - cut_before) * (cap - rest_before),
        longer=rest_now * (float(wrong.loc[rest, "length"].mean()) - rest_before)
        + short_now * (length_now - length_before),
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
    """Mean length of wrong less mean length of right responses, tokens, problem by problem, where there are both.

    Raises RlinoError where imported responses have no length in tokens.
    """
    if responses["length"].isna().any():
        raise RlinoError("lengths in tokens are not known here: assign(length=responses['characters']) has others")
    means = responses.groupby(["problem_id", "correct"])["length"].mean().unstack().reindex(columns=[False, True])
    return (means[False] - means[True]).dropna()


# --- the cap as censoring, and a budget of attempts ------------------------------------------------------------------


def survival(lengths: ArrayLike, ended: ArrayLike, confidence: float = 0.95) -> pd.DataFrame:
    """The share that is longer than each length (the index), by Kaplan and Meier: what did not end is censored.

    Columns: `longer`, and its interval from `low` to `high` (scipy.stats.ecdf). Raises RlinoError where nothing ended.
    """
    lengths = np.asarray(lengths, float)
    if np.isnan(lengths).any() or pd.isna(np.asarray(ended, object)).any():
        raise RlinoError("a length, or whether it has ended, is not known of every response")
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
