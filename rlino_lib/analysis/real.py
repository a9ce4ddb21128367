"""What public records of real models say (chapter 13): lengths by verdict, signal, and gains by difficulty.

Problems or prompts are the sample here, where the book's own runs have seeds. An interval over the problems of one run
says what the trained model does on other problems, and nothing of what another seed would have done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import expit, logit

from rlino_lib.analysis.growth import base_problems, final_responses
from rlino_lib.errors import RlinoError
from rlino_lib.records.runs import Run, list_runs


class Estimate(NamedTuple):
    """A number and its 95 % bootstrap interval, the percentiles over resamples of problems."""

    value: float
    low: float
    high: float

    def over(self, scale: float) -> Estimate:
        """All three divided by a positive number."""
        return Estimate(*(x / scale for x in self))

    def words(self, digits: int = 0) -> str:
        """`+89 [+58, +121]`."""
        return "{:+.{d}f} [{:+.{d}f}, {:+.{d}f}]".format(*self, d=digits)


@lru_cache(maxsize=8)
def _resamples(n: int) -> np.ndarray:
    """How often each of n items is in each resample, [resamples, n]; the first row has each once: the sample itself."""
    counts = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=2000)
    return np.vstack([np.ones(n, int), counts])


def estimate(values: np.ndarray) -> Estimate:
    """From a statistic of the sample and of its resamples, [1 + resamples], without those where it is not defined."""
    rest = values[1:][np.isfinite(values[1:])]
    if not len(rest):
        raise RlinoError("the statistic is defined on no resample")
    return Estimate(float(values[0]), *(float(x) for x in np.percentile(rest, [2.5, 97.5])))


# --- wrong is longer -------------------------------------------------------------------------------------------------


def length_gap(frame: pd.DataFrame, length: str, held: Sequence[str] = ()) -> np.ndarray:
    """Mean length of wrong less right responses, and the same of each resample of rows, [1 + resamples].

    One response a problem. With `held`, columns that say how hard a problem is: the coefficient of "wrong" in a least
    squares fit of the length on them all. Without any it is the plain difference of means.
    """
    columns = [np.ones(len(frame)), ~frame["correct"].to_numpy(bool), *(frame[name] for name in held)]
    x = np.column_stack([np.asarray(c, float) for c in columns])
    x[:, 2:] = (x[:, 2:] - x[:, 2:].mean(0)) / x[:, 2:].std(0)
    counts = _resamples(len(frame)).astype(float)
    gram = np.einsum("rn,ni,nj->rij", counts, x, x, optimize=True)
    return np.linalg.solve(gram, (counts @ (x * frame[[length]].to_numpy(float)))[..., None])[:, 1, 0]


def within_gaps(frame: pd.DataFrame, length: str, problem: Sequence[str]) -> pd.Series:
    """Mean length of wrong less right responses in each problem that has both: several responses a problem."""
    means = frame.groupby([*problem, "correct"])[length].mean().unstack().reindex(columns=[False, True])
    return (means[False] - means[True]).dropna()


def clustered_gap(frame: pd.DataFrame, length: str, problem: Sequence[str]) -> np.ndarray:
    """The plain difference of means, pooled over problems, where whole problems are resampled, [1 + resamples]."""
    sums = frame.assign(n=1).groupby([*problem, "correct"])[[length, "n"]].sum().unstack(fill_value=0)
    counts = _resamples(len(sums)).astype(float)
    with np.errstate(invalid="ignore"):  # a resample of few problems may have none of one side
        wrong, right = (counts @ sums[length, side] / (counts @ sums["n", side]) for side in (False, True))
    return np.asarray(wrong - right)


def mean_of(values: ArrayLike) -> np.ndarray:
    """The mean of values, one a problem, and of each resample of them, [1 + resamples]."""
    x = np.asarray(values, float)
    return _resamples(len(x)) @ x / len(x)


def base_gaps(problems: pd.DataFrame) -> dict[str, Estimate]:
    """ "pooled" and "within" of one of the book's bases, from `analysis.growth.base_problems`, in tokens."""
    counts = _resamples(len(problems)).astype(float)
    wrong_tokens = (problems["length"].fillna(0) * problems["wrong"]).to_numpy()
    wrong = counts @ wrong_tokens / (counts @ problems["wrong"].to_numpy())
    right = counts @ problems["tokens_right"].to_numpy() / (counts @ problems["right"].to_numpy())
    inside = (problems["length"] - problems["tokens_right"] / problems["right"].where(problems["right"] > 0)).dropna()
    return {"pooled": estimate(wrong - right), "within": estimate(mean_of(inside))}


class Truncation(NamedTuple):
    """Mean lengths of right and wrong responses, and of those wrong ones that were not truncated."""

    right: float
    wrong: float
    whole: float
    truncated: int  # of the wrong ones
    wrongs: int

    @property
    def share(self) -> float:
        """The share of "wrong is longer" that is gone where truncated responses are left out."""
        return 1 - (self.whole - self.right) / (self.wrong - self.right)


def truncation(correct: pd.Series, truncated: pd.Series, length: pd.Series) -> Truncation:
    """`Truncation` of responses: their verdicts, whether they reached the cap, and their lengths."""
    wrong = ~correct
    whole = length[wrong & ~truncated].mean()
    right = float(length[correct].mean())
    cut = int((wrong & truncated).sum())
    return Truncation(right, float(length[wrong].mean()), float(whole), cut, int(wrong.sum()))


# --- logs ------------------------------------------------------------------------------------------------------------


def by_quarter(log: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Means of columns over four parts of a log of (nearly) equal length, the index 1 to 4."""
    parts = np.array_split(np.arange(len(log)), 4)
    return pd.DataFrame([log.iloc[part][list(columns)].mean() for part in parts], index=pd.RangeIndex(1, 5))


def paired(one: pd.DataFrame, other: pd.DataFrame) -> Estimate:
    """Share right of one model less another's on the same problems, which are resampled; in points."""
    both = one.set_index("problem")["correct"].astype(int)
    gaps = both - other.set_index("problem")["correct"].astype(int).reindex(both.index)
    return estimate(100 * mean_of(gaps))


def signal_by_visit(visits: Sequence[Sequence[float]]) -> pd.DataFrame:
    """The share of groups with no right rollout, with some, and with all right: a row for each visit from 1.

    Only as many visits as every prompt has, so that a row is over the same prompts.
    """
    shares = np.array([v[: min(map(len, visits))] for v in visits])
    columns = {"none right": shares == 0, "mixed": (shares > 0) & (shares < 1), "all right": shares == 1}
    frame = pd.DataFrame({name: held.mean(0) for name, held in columns.items()})
    return frame.set_index(pd.RangeIndex(1, len(frame) + 1, name="visit"))


# --- gains by difficulty ---------------------------------------------------------------------------------------------

# Bins by the share right on visits that measure nothing else: of 24 none, 1–3, 4–8, 9–15, 16–20, 21–23, all.
EDGES = (0.0, 1 / 8, 1 / 3, 5 / 8, 5 / 6, 1.0)
BINS = ("none", "to 1/8", "to 1/3", "to 5/8", "to 5/6", "below 1", "all")
HARD = ("to 1/8", "to 1/3")
EASY = ("to 5/6", "below 1")
# A push of log-odds z at rate w(p) moves F(z) = ∫ dz / w at rate 1.
CURVES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "√(p(1−p))": lambda z: 4 * np.sinh(z / 2),
    "p(1−p)": lambda z: 2 * z + 2 * np.sinh(z),
    "all alike": lambda z: z,
}
WEIGHT = "√(p(1−p))"
ALIKE = "all alike"
_GRID = np.linspace(-16, 16, 3201)
_TIMES = np.linspace(0, 16, 401)


def bin_of(share: ArrayLike) -> np.ndarray:
    """The place in BINS of each share."""
    p = np.asarray(share, float)
    return np.where(p > 1 - 1e-9, len(BINS) - 1, np.searchsorted(np.array(EDGES) + 1e-9, p))


def moved(start: np.ndarray, time: float, curve: str) -> np.ndarray:
    """The share that a share comes to when its log-odds are pushed for a time at the rate that a curve names.

    `moved(0.5, 1.0, "all alike")` is expit(1).
    """
    towards = CURVES[curve]
    z = logit(np.clip(start, 1e-6, 1 - 1e-6))
    return expit(np.interp(towards(z) + time, towards(_GRID), _GRID))


class Gains(NamedTuple):
    """Bins of prompts in a sample (row 0) and in its resamples: [1 + resamples, bins], NaN where a bin is empty."""

    prompts: np.ndarray
    start: np.ndarray
    end: np.ndarray
    weight: np.ndarray

    @property
    def gain(self) -> np.ndarray:
        return self.end - self.start

    @property
    def sample(self) -> Gains:
        """Without the resamples."""
        return Gains(*(part[:1] for part in self))

    def table(self, least: int = 10) -> pd.DataFrame:
        """The bins with so many prompts or more: prompts, start, end, gain and its interval, weight, and log-odds."""
        rows = []
        for b in np.flatnonzero(self.prompts[0] >= least):
            gain = estimate(self.gain[:, b])
            with np.errstate(invalid="ignore"):  # no log-odds in a resample where all are right
                moved_by = estimate(logit(self.end[:, b]) - logit(self.start[:, b]))
            cells = (int(self.prompts[0, b]), self.start[0, b], self.end[0, b], *gain, self.weight[0, b], *moved_by)
            rows.append((BINS[b], *cells))
        names = "bin prompts start end gain low high weight log-odds log-odds/low log-odds/high"
        return pd.DataFrame(rows, columns=names.split()).set_index("bin")


def gains(chosen: ArrayLike, start: ArrayLike, end: ArrayLike, weight: ArrayLike) -> Gains:
    """Bins by `chosen`, of prompts with these shares at the start and the end and these weights.

    `chosen` must come from other samples than `start` and `end`: a prompt that was lucky in what sorts it is not as
    lucky again, and would seem to fall (regression to the mean).
    """
    place = bin_of(chosen)
    counts = _resamples(len(place)).astype(float)
    held = np.eye(len(BINS))[place]  # [prompts, bins]
    prompts = counts @ held
    with np.errstate(invalid="ignore", divide="ignore"):
        means = [counts @ (held * np.asarray(x, float)[:, None]) / prompts for x in (start, end, weight)]
    return Gains(prompts, *means)


def gains_by_visits(visits: Sequence[Sequence[float]]) -> Gains:
    """The bins that the ledger names: by visits 1, 3 and 5; start and weight on 2, 4 and 6; end on the last six."""
    early = np.array([v[:6] for v in visits])
    sorted_by = early[:, [0, 2, 4]].mean(1)
    measured = early[:, [1, 3, 5]]
    weight = np.sqrt(measured * (1 - measured)).mean(1)
    return gains(sorted_by, measured.mean(1), [np.mean(v[-6:]) for v in visits], weight)


def rank_correlations(bins: Gains) -> np.ndarray:
    """Spearman's correlation, over bins, of weight and gain, [1 + resamples]."""
    ranks = [np.argsort(np.argsort(x, axis=1), axis=1).astype(float) for x in (bins.weight, bins.gain)]
    centred = [r - r.mean(1, keepdims=True) for r in ranks]
    return (centred[0] * centred[1]).sum(1) / np.sqrt((centred[0] ** 2).sum(1) * (centred[1] ** 2).sum(1))


def side_ratios(bins: Gains) -> np.ndarray:
    """Gain per weight of hard prompts over that of easy ones, 1 where the gain knows no side of p, [1 + resamples]."""
    sides = []
    for names in (HARD, EASY):
        at = [BINS.index(name) for name in names]
        sides.append((bins.prompts * bins.gain)[:, at].sum(1) / (bins.prompts * bins.weight)[:, at].sum(1))
    return sides[0] / sides[1]


def fit_times(bins: Gains, curve: str) -> tuple[np.ndarray, np.ndarray]:
    """For the sample and each resample the time along a curve that is nearest to the ends, and its squared distance.

    Bins count by their prompts; empty ones do not. Both [1 + resamples].
    """
    here = bins.prompts > 0
    start = np.where(here, bins.start, 0.5)
    best = np.full(len(start), np.inf)
    when = np.zeros(len(start))
    for time in _TIMES:
        miss = (bins.prompts * np.where(here, moved(start, time, curve) - bins.end, 0) ** 2).sum(1)
        when = np.where(miss < best, time, when)
        best = np.minimum(miss, best)
    return when, best / bins.prompts.sum(1)


def along(bins: Gains, curve: str) -> Gains:
    """The sample with the ends to which a curve leads its bins, by the time that fits the measured ends best."""
    sample = bins.sample
    time = fit_times(sample, curve)[0][0]
    return sample._replace(end=moved(sample.start, time, curve))


def nearer(bins: Gains) -> float:
    """The share of resamples in which the path along the weight's curve comes nearer to the ends than all alike."""
    weight, alike = (fit_times(bins, curve)[1][1:] for curve in (WEIGHT, ALIKE))
    return float((weight < alike).mean())


def halves(right: ArrayLike, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Shares right in two random halves of n samples of which so many were right, by problem.

    Samples of a problem are exchangeable, so a count can be split without knowing which of them were right.
    """
    counts = np.asarray(right, int)
    first = np.random.default_rng(0).hypergeometric(counts, n - counts, n // 2)
    return first / (n // 2), (counts - first) / (n - n // 2)


# --- the book's own, beside ------------------------------------------------------------------------------------------

OWN = {"the book’s, 0.8 M": ("head-to-head", "countdown-grpo-s"), "in between, 27 M": ("mid", "grpo-s")}


def own_runs() -> dict[str, list[Run]]:
    """The book's runs of GRPO on Countdown that kept their responses, of its own model and of the base in between."""
    own = {}
    for title, (group, start) in OWN.items():
        runs = [run for run in list_runs(group) if run.path.name.startswith(start)]
        own[title] = [run for run in runs if (run.path / "responses.csv.gz").exists()]
    return own


def own_gains(runs: Sequence[Run]) -> Gains:
    """The bins of the book's test problems, sorted by a half of the base's samples and measured on the other half.

    The end is the mean over runs of the test after training. These problems were not trained on.
    """
    base = base_problems(runs[0])
    one, other = halves(base["right"], int((base["right"] + base["wrong"]).iloc[0]))
    ends = [final_responses(run).groupby("problem_id")["correct"].mean() for run in runs]
    end = pd.concat(ends, axis=1).mean(axis=1).reindex(base.index)
    return gains(one, other, end, np.sqrt(other * (1 - other)))
