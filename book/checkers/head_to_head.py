"""Checkers for the exercises of chapter 07, on the mechanism of `exercises.check`, and records of which one lies."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import numpy as np
import scipy.stats

from checkers.check import check
from rlino_lib.analysis.statistics import difference_power, holm, seeds_needed, tost_power
from rlino_lib.errors import RlinoError
from rlino_lib.records.runs import Run

# --- margins, seeds, families, pairs ---------------------------------------------------------------------------------


def check_smallest_margin(smallest: Callable[[list[float], float], float]) -> bool:
    """`smallest(values, alpha)`: the margin above which TOST at α finds these paired differences equivalent to 0."""

    def ends(values: list[float], level: float, ddof: int = 1, root: bool = True) -> tuple[float, float]:
        n = len(values)
        half = scipy.stats.t.ppf(level, n - 1) * np.std(values, ddof=ddof) / (math.sqrt(n) if root else 1)
        return np.mean(values) - half, np.mean(values) + half

    def size(pair: tuple[float, float]) -> float:
        return max(abs(pair[0]), abs(pair[1]))

    def normal(values: list[float], alpha: float) -> float:
        half = scipy.stats.norm.ppf(1 - alpha) * np.std(values, ddof=1) / math.sqrt(len(values))
        return abs(np.mean(values)) + half

    mistakes = {
        "that is the interval of level 1 − α: TOST goes with 1 − 2α, each side has all of α": lambda v, a: size(
            ends(v, 1 - a / 2)
        ),
        "the upper end alone: the lower one may be farther from 0": lambda v, a: ends(v, 1 - a)[1],
        "the end that is nearer to 0: both have to lie inside": lambda v, a: min(map(abs, ends(v, 1 - a))),
        "the population's standard deviation: divide by n − 1": lambda v, a: size(ends(v, 1 - a, ddof=0)),
        "the standard deviation, not the standard error: √n is missing": lambda v, a: size(ends(v, 1 - a, root=False)),
        "a normal quantile: with so few seeds it is Student's t": normal,
        "the mean alone: how sure it is counts as well": lambda v, a: abs(np.mean(v)),
        "the width of the interval: where it lies counts as well": lambda v, a: size(ends(v, 1 - a)) - abs(np.mean(v)),
    }
    cases = [([1.2, -0.4, 0.9, 0.3, -0.1], 0.05), ([-2.0, -1.1, -1.6, -0.2], 0.05), ([0.5, 1.5, 1.0, 2.5, 0.1], 0.1)]
    return check(smallest, cases, lambda v, a: size(ends(v, 1 - a)), mistakes, name="smallest_margin")


def check_plan(plan: Callable[[float, float], int]) -> bool:
    """`plan(sd, margin)`: the fewest seeds at which TOST (α = 0.05) has power 0.8, where the true difference is 0."""

    def least(power: Callable[[int], float], wanted: float = 0.8) -> int:
        return next(n for n in range(2, 10_000) if power(n) >= wanted)

    def formula(sd: float, margin: float, side: float, other: float) -> int:
        return math.ceil((sd / margin * (scipy.stats.norm.ppf(side) + scipy.stats.norm.ppf(other))) ** 2)

    mistakes = {
        "one too many": lambda sd, m: seeds_needed(sd, m) + 1,
        "one too few: power is not yet 0.8": lambda sd, m: seeds_needed(sd, m) - 1,
        "power 0.5: an even chance of a verdict": lambda sd, m: least(lambda n: tost_power(n, sd, m), 0.5),
        "power 0.9: more than was asked": lambda sd, m: least(lambda n: tost_power(n, sd, m), 0.9),
        "both tests at α/2: each has all of α": lambda sd, m: least(lambda n: tost_power(n, sd, m, alpha=0.025)),
        "the normal formula: with few seeds sd has to be estimated, which costs some": lambda sd, m: formula(
            sd, m, 0.95, 0.9
        ),
        "the seeds to *find* a difference as large as the margin": lambda sd, m: least(
            lambda n: difference_power(n, sd, m)
        ),
        "the true difference at half of the margin: it was to be 0": lambda sd, m: seeds_needed(sd, m, m / 2),
        "the variance in place of sd": lambda sd, m: seeds_needed(sd**2, m),
    }
    cases = [(1.5, 3.0), (1.5, 1.0), (2.5, 1.0), (0.8, 0.5)]
    return check(plan, cases, lambda sd, m: seeds_needed(sd, m), mistakes, name="plan")


def check_holm(correct: Callable[[list[float]], list[float]]) -> bool:
    """`correct(p)`: Holm's corrected p values, in the order of the given ones."""

    def step(p: list[float], factor: Callable[[int, int], float], up: bool = False) -> list[float]:
        """Sorted p values times a factor of their rank (from 0) and number; running extremes; in the first order."""
        order, n = np.argsort(p), len(p)
        scaled = np.array([p[i] * factor(rank, n) for rank, i in enumerate(order)])
        run = np.minimum.accumulate(scaled[::-1])[::-1] if up else np.maximum.accumulate(scaled)
        out = np.empty(n)
        out[order] = run.clip(max=1)
        return out.tolist()

    def loose(p: list[float], cap: bool = True) -> list[float]:
        order, n = np.argsort(p), len(p)
        out = np.empty(n)
        out[order] = [p[i] * (n - rank) for rank, i in enumerate(order)]
        return (out.clip(max=1) if cap else out).tolist()

    def uncapped(p: list[float]) -> list[float]:
        order, out = np.argsort(p), np.empty(len(p))
        out[order] = np.maximum.accumulate([p[i] * (len(p) - rank) for rank, i in enumerate(order)])
        return out.tolist()

    mistakes = {
        "all times n: that is Bonferroni, valid and less powerful": lambda p: [min(1.0, x * len(p)) for x in p],
        "the running maximum is missing: a larger p may not end below a smaller one": loose,
        "running maximum and the cap at 1 are missing": lambda p: loose(p, cap=False),
        "they can exceed 1": uncapped,
        "in the order of size: give them back in the order of the input": lambda p: sorted(holm(p).tolist()),
        "from the largest down: that is Hochberg's, which needs an assumption on how the tests depend": lambda p: step(
            p, lambda rank, n: n - rank, up=True
        ),
        "n/rank from the largest down: Benjamini and Hochberg, the rate of false discoveries": lambda p: step(
            p, lambda rank, n: n / (rank + 1), up=True
        ),
        "the smallest takes 1 and the largest n: the wrong way round": lambda p: step(p, lambda rank, n: rank + 1),
        "not corrected": list,
    }
    cases = [([0.01, 0.04, 0.03, 0.005],), ([0.3, 0.02],), ([0.7, 0.6, 0.04],), ([0.04, 0.011, 0.015, 0.9, 0.02],)]
    return check(correct, cases, lambda p: holm(p).tolist(), mistakes, name="holm")


def check_pairing(errors: Callable[[list[float], list[float]], tuple[float, float]]) -> bool:
    """`errors(a, b)`: standard errors of mean(a) − mean(b), paired by place, and as if a and b were unrelated."""

    def both(a: Sequence[float], b: Sequence[float], ddof: int = 1) -> tuple[float, float]:
        n, gap = len(a), np.subtract(a, b)
        apart = math.sqrt((np.var(a, ddof=ddof) + np.var(b, ddof=ddof)) / n)
        return float(np.std(gap, ddof=ddof)) / math.sqrt(n), apart

    def mean_error(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
        n = len(a)
        return both(a, b)[0], (np.std(a, ddof=1) + np.std(b, ddof=1)) / math.sqrt(n)

    mistakes = {
        "swapped: the paired one comes first": lambda a, b: both(a, b)[::-1],
        "the populations' standard deviations: divide by n − 1": lambda a, b: both(a, b, ddof=0),
        "standard deviations, not standard errors: √n is missing": lambda a, b: tuple(
            math.sqrt(len(a)) * x for x in both(a, b)
        ),
        "apart from each other, variances add up, standard deviations do not": mean_error,
        "the variance of a sum of 2n values: each mean has its own n": lambda a, b: (
            both(a, b)[0], both(a, b)[1] / math.sqrt(2)
        ),
        "both from the differences: without pairs there are none": lambda a, b: (both(a, b)[0],) * 2,
        "both as if unpaired": lambda a, b: (both(a, b)[1],) * 2,
    }  # fmt: skip
    cases = [([52.0, 55.0, 51.0, 58.0], [50.5, 54.0, 50.0, 55.5]), ([40.0, 42.0, 41.0], [41.5, 40.0, 42.5])]
    cases += [([30.0, 35.0, 33.0, 38.0, 31.0], [33.0, 30.0, 36.0, 31.0, 35.0])]
    return check(errors, cases, both, mistakes, name="errors")


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
    twin.config, twin.summary = copy.deepcopy(run.config), copy.deepcopy(run.summary)
    twin.__dict__["metrics"] = run.metrics.copy()
    twin.__dict__ |= changes
    return twin


def _raised_test(runs: list[Run], k: int) -> Run:
    """A better test result, to three digits; the lengths beside it stay."""
    summary = copy.deepcopy(runs[k].summary)
    summary["test"]["pass@1"]["value"] = round(min(0.95, summary["test"]["pass@1"]["value"] + 0.08), 3)
    return altered(runs[k], summary=summary)


def _raised_step(runs: list[Run], k: int) -> Run:
    """The accuracies of some steps raised, the counts beside them not."""
    metrics = runs[k].metrics.copy()
    late = metrics.index[-10:]
    metrics.loc[late, ["accuracy", "reward"]] = (metrics.loc[late, ["accuracy", "reward"]] + 0.1).clip(upper=1)
    return altered(runs[k], metrics=metrics)


def _dropped_steps(runs: list[Run], k: int) -> Run:
    """A few of the worst steps left out."""
    metrics = runs[k].metrics
    worst = metrics["accuracy"].iloc[len(metrics) // 2 :].nsmallest(5).index
    return altered(runs[k], metrics=metrics.drop(index=worst))


def _copied_seed(runs: list[Run], k: int) -> Run:
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
    told = [altered(run) for run in runs]
    told[place] = LIES[lie](list(runs), place)
    return Suspects(told, lie)


def _breaks(run: Run, lie: str) -> bool:
    """Whether a run's own record contradicts itself in this way ("copy" takes two)."""
    metrics, test = run.metrics, (run.summary or {}).get("test", {})
    rows = metrics.dropna(subset=["accuracy"])
    if lie == "test":
        share, lengths = test["pass@1"]["value"], (test.get("length/correct"), test.get("length/incorrect"))
        mean = sum(w * (n or 0.0) for w, n in zip((share, 1 - share), lengths, strict=True))
        return abs(mean - test["mean_length"]) > 1e-6 * test["mean_length"]
    if lie == "step":
        return bool(
            (rows["accuracy"] - rows["n_correct"] / (rows["n_correct"] + rows["n_incorrect"])).abs().max() > 1e-6
        )
    return len(rows) != run.summary["steps"]


def find_liar(runs: Sequence[Run], checks: Sequence[str] = tuple(LIES)) -> str | None:
    """The name of the run whose record contradicts itself, or repeats another's; None where nothing is found."""
    for run in runs:
        if any(_breaks(run, lie) for lie in checks if lie != "copy"):
            return run.name
    for k, run in enumerate(runs if "copy" in checks else ()):
        if any(run.metrics.equals(other.metrics) for other in runs[:k]):
            return run.name
    return None


def check_liar(liar: Callable[[list[Run]], str], runs: Sequence[Run]) -> bool:
    """`liar(runs)`: the name of the run whose record cannot be true, in each of four sets made from these runs.

    Of two runs that are one, name the later in the list. Raises RlinoError as `suspects` does.
    """
    last = len(runs) - 1
    cases = [(suspects(runs, lie, place),) for lie, place in zip(LIES, (last, 0, last // 2, last), strict=True)]

    def by(key: Callable[[Run], float]) -> Callable[[list[Run]], str]:
        return lambda found: max(found, key=key).name

    def tested(run: Run) -> float:
        return run.summary["test"]["pass@1"]["value"]

    misses = {
        "test": "it does not look into the summary: share right and the three lengths belong together",
        "step": "it does not hold the accuracy of a step against its own counts",
        "dropped": "it does not count the steps",
        "copy": "it looks at one run at a time: two seeds cannot have the same metrics to the last digit",
    }
    mistakes = {words: lambda r, lie=lie: find_liar(r, [x for x in LIES if x != lie]) for lie, words in misses.items()}
    mistakes |= {
        "the best run: surprising is not inconsistent": by(tested),
        "the worst run: surprising is not inconsistent": by(lambda run: -tested(run)),
        "always the first": lambda r: r[0].name,
        "always the last": lambda r: r[-1].name,
    }
    return check(liar, cases, find_liar, mistakes, name="liar")
