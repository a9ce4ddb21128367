"""Checkers of chapter 07's exercises, and records of which one lies."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import norm, t

from checkers.check import Solution, check, exercise
from rlino_lib.analysis.statistics import difference_power, holm, seeds_needed, tost_power
from rlino_lib.errors import RlinoError
from rlino_lib.records.runs import Run

# --- margins, seeds, families ----------------------------------------------------------------------------------------

_DIFFERENCES = ([1.2, -0.4, 0.9, 0.3, -0.1], 0.05), ([-2.0, -1.1, -1.6, -0.2], 0.05), ([0.5, 1.5, 1.0, 2.5, 0.1], 0.1)


@exercise("smallest_margin", *_DIFFERENCES)
def check_smallest_margin(values: list[float], alpha: float) -> Solution:
    """`smallest(values, alpha)`: the margin above which TOST at α finds these paired differences equivalent to 0."""
    n = len(values)
    mean = np.mean(values)
    away = abs(mean)
    error = np.std(values, ddof=1) / math.sqrt(n)
    half = error * t.ppf(1 - alpha, n - 1)  # of the interval of level 1 − 2α
    wide = error * t.ppf(1 - alpha / 2, n - 1)
    return away + half, {
        "that is the interval of level 1 − α: TOST goes with 1 − 2α, each side has all of α": away + wide,
        "the upper end alone: the lower one may be farther from 0": mean + half,
        "the end that is nearer to 0: both have to lie inside": min(abs(mean - half), abs(mean + half)),
        "the population's standard deviation: divide by n − 1": away + half * math.sqrt((n - 1) / n),
        "the standard deviation, not the standard error: √n is missing": away + half * math.sqrt(n),
        "a normal quantile: with so few seeds it is Student's t": away + error * norm.ppf(1 - alpha),
        "the mean alone: how sure it is counts as well": away,
        "the width of the interval: where it lies counts as well": half,
    }


def _least(power: Callable[[int], float], target: float = 0.8) -> int:
    return next(n for n in range(2, 10_000) if power(n) >= target)


@exercise("plan", (1.5, 3.0), (1.5, 1.0), (2.5, 1.0), (0.8, 0.5))
def check_plan(sd: float, margin: float) -> Solution:
    """`plan(sd, margin)`: the fewest seeds at which TOST (α = 0.05) has power 0.8, where the true difference is 0."""
    right = seeds_needed(sd, margin)
    normal = math.ceil((sd / margin * (norm.ppf(0.95) + norm.ppf(0.9))) ** 2)
    to_find = _least(lambda n: difference_power(n, sd, margin))
    return right, {
        "one too many": right + 1,
        "one too few: power is not yet 0.8": right - 1,
        "power 0.5: an even chance of a verdict": _least(lambda n: tost_power(n, sd, margin), 0.5),
        "power 0.9: more than was asked for": _least(lambda n: tost_power(n, sd, margin), 0.9),
        "both tests at α/2: each has all of α": _least(lambda n: tost_power(n, sd, margin, alpha=0.025)),
        "the normal formula: with few seeds sd has to be estimated, which costs some": normal,
        "the seeds to *find* a difference as large as the margin": to_find,
        "the true difference at half of the margin: it was to be 0": seeds_needed(sd, margin, margin / 2),
        "the variance in place of sd": seeds_needed(sd**2, margin),
    }


@exercise("holm", ([0.01, 0.04, 0.03, 0.005],), ([0.3, 0.02],), ([0.7, 0.6, 0.04],), ([0.04, 0.011, 0.015, 0.9, 0.02],))
def check_holm(p: list[float]) -> Solution:
    """`correct(p)`: Holm's corrected p values, in the order of the given ones."""
    n = len(p)
    rank = np.argsort(np.argsort(p))  # of each p value, from 0
    rising = np.sort(p)
    steps = rising * np.arange(n, 0, -1)  # times the hypotheses that are left
    running = np.maximum.accumulate(steps)

    def from_the_largest(scaled: np.ndarray) -> np.ndarray:
        return np.minimum.accumulate(scaled[::-1])[::-1].clip(max=1)[rank]

    hochberg = from_the_largest(steps)
    benjamini = from_the_largest(rising * n / np.arange(1, n + 1))
    backwards = np.maximum.accumulate(rising * np.arange(1, n + 1)).clip(max=1)
    return holm(p).tolist(), {
        "all times n: that is Bonferroni, valid and less powerful": np.minimum(1, n * np.array(p)),
        "the running maximum is missing: a larger p may not end below a smaller one": steps.clip(max=1)[rank],
        "running maximum and the cap at 1 are missing": steps[rank],
        "they can exceed 1": running[rank],
        "in the order of size: give them back in the order of the input": running.clip(max=1),
        "from the largest down: that is Hochberg's, which needs an assumption on how the tests depend": hochberg,
        "n/rank from the largest down: Benjamini and Hochberg, the rate of false discoveries": benjamini,
        "the smallest takes 1 and the largest n: the wrong way round": backwards[rank],
        "not corrected": p,
    }


# --- the run that lied -----------------------------------------------------------------------------------------------


class Suspects(list):
    """Runs of which one lies. Its repr does not say which."""

    def __init__(self, runs: Sequence[Run], name: str) -> None:
        super().__init__(runs)
        self.name = name

    def __repr__(self) -> str:
        return f"suspects({self.name!r})"

    def __deepcopy__(self, memo: dict) -> Suspects:
        return Suspects([altered(run) for run in self], self.name)


def altered(run: Run, **changes: object) -> Run:
    """A copy of a run in memory with another config, summary or metrics; the folder stays as it is."""
    twin = copy.copy(run)
    own = {"config": copy.deepcopy(run.config), "summary": copy.deepcopy(run.summary), "metrics": run.metrics.copy()}
    twin.__dict__ |= own | changes
    return twin


def _raised_test(runs: Sequence[Run], k: int) -> Run:
    """A better test result, to three digits; the lengths beside it stay."""
    twin = altered(runs[k])
    result = twin.summary["test"]["pass@1"]
    result["value"] = round(min(0.95, result["value"] + 0.08), 3)
    return twin


def _raised_step(runs: Sequence[Run], k: int) -> Run:
    """The accuracies of some steps raised, the counts beside them not."""
    twin = altered(runs[k])
    late = twin.metrics.index[-10:], ["accuracy", "reward"]
    twin.metrics.loc[late] = (twin.metrics.loc[late] + 0.1).clip(upper=1)
    return twin


def _dropped_steps(runs: Sequence[Run], k: int) -> Run:
    """A few of the worst steps left out."""
    metrics = runs[k].metrics
    worst = metrics["accuracy"].iloc[len(metrics) // 2 :].nsmallest(5).index
    return altered(runs[k], metrics=metrics.drop(index=worst))


def _copied_seed(runs: Sequence[Run], k: int) -> Run:
    """Another run of the same method once more, under this run's seed."""
    other = next((r for r in runs if r.method == runs[k].method and r.seed != runs[k].seed), None)
    if other is None:
        raise RlinoError(f"suspects need two seeds of {runs[k].method}")
    return altered(runs[k], summary=copy.deepcopy(other.summary), metrics=other.metrics.copy())


LIES = {"test": _raised_test, "step": _raised_step, "dropped": _dropped_steps, "copy": _copied_seed}


def suspects(runs: Sequence[Run], lie: str, place: int = 1) -> Suspects:
    """Copies in memory of these runs, one of which (at `place`) tells one of LIES.

    Raises RlinoError for another lie, and for runs too few or too alike to tell it.
    """
    if lie not in LIES or not 0 <= place < len(runs):
        raise RlinoError(f"no lie {lie!r} at {place}: one of {', '.join(LIES)}, at 0 to {len(runs) - 1}")
    copies = [altered(run) for run in runs]
    copies[place] = LIES[lie](runs, place)
    return Suspects(copies, lie)


def _contradicts_itself(run: Run, lie: str) -> bool:
    """Whether a run's own record contradicts itself in this way ("copy" takes two)."""
    steps = run.metrics.dropna(subset=["accuracy"])
    if lie == "test":
        test = run.summary["test"]
        share = test["pass@1"]["value"]
        lengths = [test.get(f"length/{side}") or 0.0 for side in ("correct", "incorrect")]
        return abs(np.dot((share, 1 - share), lengths) - test["mean_length"]) > 1e-6 * test["mean_length"]
    if lie == "step":
        counted = steps["n_correct"] / (steps["n_correct"] + steps["n_incorrect"])
        return bool((steps["accuracy"] - counted).abs().max() > 1e-6)
    return len(steps) != run.summary["steps"]


def find_liar(runs: Sequence[Run], checks: Sequence[str] = tuple(LIES)) -> str | None:
    """The name of the run whose record contradicts itself, or repeats another's; None where there is none."""
    for run in runs:
        if any(_contradicts_itself(run, lie) for lie in checks if lie != "copy"):
            return run.name
    for k, run in enumerate(runs if "copy" in checks else ()):
        if any(run.metrics.equals(other.metrics) for other in runs[:k]):
            return run.name
    return None


_OVERLOOKED = {
    "test": "it does not look into the summary: share right and the three lengths belong together",
    "step": "it does not hold the accuracy of a step against its own counts",
    "dropped": "it does not count the steps",
    "copy": "it looks at one run at a time: two seeds cannot have the same metrics to the last digit",
}


def check_liar(liar: Callable[[list[Run]], str], runs: Sequence[Run]) -> bool:
    """`liar(runs)`: the name of the run whose record cannot be true, in each of four sets made from these runs.

    Of two runs that are one, name the later in the list. Raises RlinoError as `suspects` does.
    """
    last = len(runs) - 1
    cases = [(suspects(runs, lie, place),) for lie, place in zip(LIES, (last, 0, last // 2, last), strict=True)]

    def tested(run: Run) -> float:
        return run.summary["test"]["pass@1"]["value"]

    mistakes = {
        words: lambda r, lie=lie: find_liar(r, [x for x in LIES if x != lie]) for lie, words in _OVERLOOKED.items()
    } | {
        "the best run: surprising is not inconsistent": lambda r: max(r, key=tested).name,
        "the worst run: surprising is not inconsistent": lambda r: min(r, key=tested).name,
        "always the first": lambda r: r[0].name,
        "always the last": lambda r: r[-1].name,
    }
    return check(liar, cases, find_liar, mistakes, name="liar")
