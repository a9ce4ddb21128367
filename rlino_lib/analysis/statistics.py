"""Comparing methods over seeds: paired differences, equivalence, families of tests, power (chapter 07).

A seed is the unit: runs of one seed see the same problems in the same order, so methods are compared seed by seed.
Accuracies are in points (0–100) here, and so are differences and margins. scipy does the work; torch is not needed.
"""

from __future__ import annotations

import warnings
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf, isnan, sqrt

import numpy as np
import pandas as pd
import scipy.integrate
import scipy.stats
from numpy.typing import ArrayLike

from rlino_lib.errors import RlinoError
from rlino_lib.records.runs import Run

VERDICTS = ("equivalent", "different", "different but within the margin", "undecided")
EQUIVALENT, DIFFERENT, WITHIN, UNDECIDED = VERDICTS
MOST_SEEDS = 100_000  # where `seeds_needed` gives up


# --- what runs scored ------------------------------------------------------------------------------------------------


def final_accuracy(run: Run) -> float:
    """Accuracy on the whole test split after training, in points; raises RlinoError for a run without that test."""
    if "test" not in (run.summary or {}):
        raise RlinoError(f"{run.name} has no evaluation on the test split: train it with --test-samples N")
    return 100 * run.summary["test"]["pass@1"]["value"]


def outcomes(
    runs: Iterable[Run],
    value: Callable[[Run], float] = final_accuracy,
    method: Callable[[Run], str] = lambda run: run.method,
) -> pd.DataFrame:
    """One row per run: method, task, seed and value (points); `method` may tell more apart than the method's name does.

    Raises RlinoError where there are no runs, and where two runs share method, task and seed.
    Example: `outcomes(list_runs("head-to-head"))`.
    """
    rows = [(method(run), run.config["task"], run.seed, value(run)) for run in runs]
    frame = pd.DataFrame(rows, columns=["method", "task", "seed", "value"])
    if frame.empty:
        raise RlinoError("there are no runs to compare")
    repeated = frame[frame.duplicated(["method", "task", "seed"])]
    if not repeated.empty:
        raise RlinoError("two runs of one method, task and seed: {}, {}, {}".format(*repeated.iloc[0][:3]))
    return frame


def curve(run: Run) -> pd.DataFrame:
    """A run's evaluations in order: step, samples, updates (of the weights), seconds, accuracy (points)."""
    rows = run.metrics.dropna(subset="eval/accuracy").reset_index(drop=True)
    return rows[["step", "samples"]].assign(
        updates=rows["step"] * updates_per_step(run),
        seconds=rows["step"].map(run.timing.set_index("step")["seconds"]),
        accuracy=100 * rows["eval/accuracy"],
    )


def updates_per_step(run: Run) -> int:
    """Optimiser updates per batch of samples."""
    return run.config["epochs"] * run.config["minibatches"]


def first_reaching(run: Run, accuracy: float) -> dict[str, float] | None:
    """The row of `curve` at the first evaluation of `accuracy` points or more, as a dict; None where there is none.

    Seconds are wall clock from the start of the run, evaluations included.
    """
    evaluations = curve(run)
    reached = evaluations[evaluations["accuracy"] >= accuracy]
    return None if reached.empty else reached.iloc[0].to_dict()


# --- two methods -----------------------------------------------------------------------------------------------------


def differences(frame: pd.DataFrame, method: str, reference: str) -> pd.Series:
    """method − reference in points, by seed, from the rows of one task in a frame of `outcomes`.

    Raises RlinoError for an unknown method, rows of several tasks, and a seed that only one of the two methods has.
    Example: `differences(outcomes(runs), "dr_grpo", "grpo").mean()`.
    """
    if frame["task"].nunique() > 1:
        raise RlinoError(f"one task at a time, not {', '.join(frame['task'].unique())}")
    for name in (method, reference):
        if name not in set(frame["method"]):
            raise RlinoError(f"no run of {name!r}: there are {', '.join(frame['method'].unique())}")
    values, baseline = (frame[frame["method"] == name].set_index("seed")["value"] for name in (method, reference))
    unpaired = values.index.symmetric_difference(baseline.index)
    if len(unpaired):
        seeds = ", ".join(map(str, unpaired))
        raise RlinoError(f"{method} and {reference} are not paired: only one of them has seed {seeds}")
    return (values - baseline).sort_index()


def t_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean, (low, high); infinitely wide for one value, which says nothing of its spread.

    Raises RlinoError for no values, or one that is not finite. Example: `t_interval([1.9, -0.6, 1.1, 2.4, 0.2])`.
    """
    values = _finite(values)
    if len(values) == 1:
        return -inf, inf
    half = scipy.stats.t.ppf((1 + level) / 2, len(values) - 1) * scipy.stats.sem(values)
    return float(values.mean() - half), float(values.mean() + half)


def median_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """The interval of the median between two order statistics, (low, high), that the sign test does not reject.

    Exact wherever seeds are independent, whatever their distribution: with two modes it is still right, where
    Student's and the signed-rank interval ask for one symmetric hill. It is as narrow as the level allows; what it
    covers in fact says `median_coverage`. Infinitely wide below six values at 95 %. Raises RlinoError as `t_interval`
    does. Example: `median_interval([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])` is (2, 9).
    """
    values = np.sort(_finite(values))
    k = _left_out(len(values), level)
    return (-inf, inf) if k < 0 else (float(values[k]), float(values[-1 - k]))


def median_coverage(n: int, level: float = 0.95) -> float:
    """The chance that `median_interval` of n values covers the median: at least the level, 0.979 for ten at 95 %."""
    k = _left_out(n, level)
    return 1.0 if k < 0 else 1 - 2 * float(scipy.stats.binom.cdf(k, n, 0.5))


def _left_out(n: int, level: float) -> int:
    """How many values at either end an interval of the median may leave out; −1 where even all are too few."""
    return int(scipy.stats.binom.ppf((1 - level) / 2, n, 0.5)) - 1


def bootstrap_interval(
    values: ArrayLike, statistic: Callable = np.mean, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """A BCa bootstrap interval by scipy, (low, high); a point where all values agree (there is nothing to resample)."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2 or np.ptp(values) <= 1e-12 * np.abs(values).max():  # equal but for rounding
        point = float(statistic(values))
        return point, point
    result = scipy.stats.bootstrap((values,), statistic, confidence_level=level, rng=np.random.default_rng(seed))
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def t_test(values: ArrayLike, mean: float = 0.0, alternative: str = "two-sided") -> float:
    """The p value of scipy's one-sample t-test; 1 where it has none: for one value, or where all equal `mean`."""
    with warnings.catch_warnings(action="ignore"):  # on too few values, and on values that all agree
        p = float(scipy.stats.ttest_1samp(_finite(values), mean, alternative=alternative).pvalue)
    return 1.0 if isnan(p) else p


@lru_cache(maxsize=2)
def _shares(n: int, resamples: int, seed: int) -> np.ndarray:
    """What share of each resample each of n values is: [resamples, n]. Many tests are on as many values."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), resamples) / n


def bootstrap_p(values: ArrayLike, mean: float, alternative: str, resamples: int = 9999, seed: int = 0) -> float:
    """The p value of a percentile bootstrap that the mean of values [P] is above, or below, a number.

    The share of resampled means on the other side of it, itself included, and never 0: (1 + count)/(1 + resamples).
    """
    values = np.asarray(values, dtype=float)
    means = _shares(len(values), resamples, seed) @ values  # [resamples]
    contrary = means <= mean if alternative == "greater" else means >= mean
    return float((1 + contrary.sum()) / (1 + resamples))


def tost(values: ArrayLike, margin: float) -> float:
    """The p value of two one-sided t-tests, that the mean is above −margin and that it is below +margin: the larger.

    p < α exactly where the t-interval of level 1 − 2α lies inside ±margin (Schuirmann 1987). Raises RlinoError for a
    margin of 0 or less. Example: `tost([0.2, -0.3, 0.1, -0.1, 0.2], margin=3.0)` is far below 0.05.
    """
    if margin <= 0:
        raise RlinoError(f"an equivalence margin is above 0, not {margin}")
    return max(t_test(values, -margin, "greater"), t_test(values, margin, "less"))


def beyond(values: Sequence[float], margin: float) -> float:
    """The p value that the mean is farther from 0 than the margin: twice the smaller of two one-sided t-tests.

    p < α exactly where the t-interval of level 1 − α lies outside ±margin.
    Example: `beyond([9.0, 8.5, 9.5, 9.2, 8.8], margin=3.0)` is far below 0.05.
    """
    return min(1.0, 2 * min(t_test(values, margin, "greater"), t_test(values, -margin, "less")))


def verdict(p_tost: float, p_difference: float, alpha: float = 0.05) -> str:
    """The joint verdict of the tests of equivalence and of a difference, from their p values: one of VERDICTS."""
    if p_tost < alpha:
        return WITHIN if p_difference < alpha else EQUIVALENT
    return DIFFERENT if p_difference < alpha else UNDECIDED


@dataclass(frozen=True)
class Comparison:
    """A method against a reference over n seeds, in points.

    Low and high are of the t-interval of level 1 − α, `boot_…` of the bootstrap's; `tost_…` of the t-interval of level
    1 − 2α, which belongs to TOST.
    """

    n: int
    mean: float
    low: float
    high: float
    boot_low: float
    boot_high: float
    tost_low: float
    tost_high: float
    p_difference: float
    p_tost: float
    verdict: str


def compare(values: ArrayLike, margin: float, alpha: float = 0.05) -> Comparison:
    """The analysis of paired differences [seeds]: the mean, t- and bootstrap intervals, both tests, and the verdict.

    With a handful of seeds go by the t-interval: the bootstrap cannot see beyond the values that it has, and is too
    narrow then. One difference leaves every interval infinite and the verdict undecided. Raises RlinoError for none,
    for one that is not finite, and for a margin of 0 or less. Example: `compare([9, 8, 9], margin=3.0).verdict`.
    """
    values = _finite(values)
    p_difference = t_test(values)
    p_tost = tost(values, margin)
    boot = bootstrap_interval(values, level=1 - alpha) if len(values) > 1 else (-inf, inf)
    return Comparison(
        len(values), float(values.mean()), *t_interval(values, 1 - alpha), *boot, *t_interval(values, 1 - 2 * alpha),
        p_difference, p_tost, verdict(p_tost, p_difference, alpha),
    )  # fmt: skip


def _finite(values: ArrayLike) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if not len(values) or not np.isfinite(values).all():
        raise RlinoError(f"differences are finite numbers, at least one: not {values.tolist()}")
    return values


# --- a family of tests -----------------------------------------------------------------------------------------------


def holm(p: ArrayLike) -> np.ndarray:
    """Holm's step-down correction: what is below α afterwards may be rejected at α over the whole family.

    Example: `holm([0.01, 0.04])` is [0.02, 0.04].
    """
    p = np.asarray(p, dtype=float)
    order = p.argsort()
    corrected = np.empty(len(p))
    corrected[order] = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))).clip(max=1)
    return corrected


# --- how many seeds would settle it ----------------------------------------------------------------------------------


def tost_power(n: int, sd: float, margin: float, difference: float = 0.0, alpha: float = 0.05) -> float:
    """The chance that TOST over n seeds finds equivalence, where differences are normal with this mean and sd, points.

    Exact (Phillips 1990, Owen's Q). The sample's sd is u·sd with u ~ χ/√ν, independent of its mean m, and the test
    passes where |m| < margin − t·u·sd/√n. So: the chance of that for each u, integrated over the density of u.
    Raises RlinoError unless n ≥ 2, sd > 0 and 0 < alpha < 0.5. Example: `tost_power(n=10, sd=2.0, margin=3.0)`.
    """
    _check_power(n, sd, alpha)
    se = sd / sqrt(n)
    t = scipy.stats.t.ppf(1 - alpha, n - 1)
    spread = scipy.stats.chi(n - 1, scale=1 / sqrt(n - 1))  # u

    def passes(u: np.ndarray) -> np.ndarray:
        room = margin - t * u * se
        inside = scipy.stats.norm.cdf((room - difference) / se) - scipy.stats.norm.cdf((-room - difference) / se)
        return inside * spread.pdf(u)

    low, high = spread.ppf([1e-14, 1 - 1e-14])
    high = min(high, margin / (t * se))  # beyond it there is no room left
    return float(scipy.integrate.fixed_quad(passes, low, high, n=200)[0]) if low < high else 0.0


def difference_power(n: int, sd: float, difference: float, alpha: float = 0.05) -> float:
    """The chance that the two-sided t-test over n seeds finds a difference.

    By the noncentral F distribution of t²: scipy's noncentral t returns NaN where a tail is almost empty. Raises
    RlinoError as `tost_power` does. Example: `difference_power(n=10, sd=2.0, difference=3.0)`.
    """
    _check_power(n, sd, alpha)
    t = scipy.stats.t.ppf(1 - alpha / 2, n - 1)
    shift = difference * sqrt(n) / sd
    return float(scipy.stats.ncf.sf(t**2, 1, n - 1, shift**2))


def seeds_needed(
    sd: float, margin: float, difference: float = 0.0, power: float = 0.8, alpha: float = 0.05, tests: int = 1
) -> int | None:
    """The least number of seeds at which the test that should succeed does so with this power.

    That is TOST where the true difference is inside ±margin, and `beyond` where it is outside; None on the margin
    itself, and where MOST_SEEDS are not enough. `tests` counts those of the family that have not succeeded yet, this
    one included: under Holm's correction the next of them needs p < alpha / tests. Raises RlinoError for a power
    outside 0–1 and for fewer than one test. Example: `seeds_needed(sd=2.0, margin=3.0, difference=1.0)`.
    """
    if not 0 < power < 1 or tests < 1:
        raise RlinoError(f"power is between 0 and 1, and there is one test or more: not {power} and {tests}")
    alpha = alpha / tests
    if abs(difference) == margin:
        return None

    def chance(n: int) -> float:
        if abs(difference) < margin:
            return tost_power(n, sd, margin, difference, alpha)
        return difference_power(n, sd, abs(difference) - margin, alpha)

    n = 2 + bisect_left(range(2, MOST_SEEDS), power, key=chance)  # power grows with n, but for its first few percent
    return n if n < MOST_SEEDS else None


def _check_power(n: int, sd: float, alpha: float) -> None:
    if n < 2 or sd <= 0 or not 0 < alpha < 0.5:
        raise RlinoError(f"power needs n ≥ 2, sd > 0 and 0 < alpha < 0.5, not {n}, {sd} and {alpha}")
