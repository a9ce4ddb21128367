"""The law R = −a·e^H + b of accuracy and entropy, fitted early in a run and held against its rest (chapter 11).

2505.22617 fits a and b on the first 15 % of steps, and predicts accuracy from there on by the entropy H; at H = 0 it
has its ceiling b − a. The law is a line in e^H, so least squares are those of a line, with their standard errors. Where
the entropy hardly moves in the fitted part, a is all but free: its standard error and the intervals of predictions say
so. They take residuals as independent, and e^H as known. In training batches it is not: a batch of hard problems has
more entropy and fewer right answers, a slope without any learning. Evaluations are all on the same problems.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import ArrayLike

from rlino_lib.errors import RlinoError, chosen
from rlino_lib.records.runs import Run

# Where entropy and accuracy of a step are read: in its batch, or in an evaluation.
SOURCES = {"training": ("entropy", "accuracy"), "held out": ("eval/entropy", "eval/accuracy")}
SHARE = 0.15  # of the steps, that are fitted (2505.22617 §2)


class EntropyLaw(NamedTuple):
    """A fit to n steps. a and b in points; `a_se` the standard error of a, `sd` that of the residuals, points.

    `centre` and `spread` are the mean of e^H and the sum of its squared deviations. With n = 2 the line has no
    residuals: a_se and sd are infinite.
    """

    a: float
    b: float
    a_se: float
    sd: float
    n: int
    centre: float
    spread: float

    @property
    def ceiling(self) -> float:
        """The law's accuracy at H = 0, points."""
        return self.b - self.a

    def predict(self, entropy: ArrayLike) -> np.ndarray:
        """Accuracy, points, by entropy in nats, of any shape."""
        return self.b - self.a * np.exp(np.asarray(entropy, dtype=float))

    def interval(self, entropy: ArrayLike, steps: int | None = None, level: float = 0.95) -> tuple[float, float]:
        """Student's interval of the law's mean over some steps' entropies [M], in points: (low, high).

        `steps`: of an accuracy that is a mean over so many steps, whose own noise counts too; None: of the line alone.
        """
        if self.n < 3:
            return -math.inf, math.inf
        there = np.exp(np.asarray(entropy, dtype=float)).mean()
        noise = 1 / self.n + (there - self.centre) ** 2 / self.spread + (1 / steps if steps else 0)
        half = scipy.stats.t.ppf((1 + level) / 2, self.n - 2) * self.sd * math.sqrt(noise)
        middle = self.b - self.a * there
        return float(middle - half), float(middle + half)


def fit_entropy_law(entropy: ArrayLike, accuracy: ArrayLike) -> EntropyLaw:
    """Least squares of accuracy [n], points, in entropy [n], nats. Raises RlinoError for fewer than two entropies."""
    x, y = np.exp(np.asarray(entropy, dtype=float)), np.asarray(accuracy, dtype=float)  # [n] each
    if x.shape != y.shape or not np.isfinite([x, y]).all() or len(np.unique(x)) < 2:
        raise RlinoError("a law needs two different entropies or more, and an accuracy for each")
    line = scipy.stats.linregress(x, y)
    spread = float(((x - x.mean()) ** 2).sum())
    a_se = float(line.stderr) if len(x) > 2 else math.inf
    return EntropyLaw(
        -float(line.slope), float(line.intercept), a_se, a_se * math.sqrt(spread), len(x), float(x.mean()), spread
    )


def entropy_accuracy(run: Run, source: str = "training", share: float = SHARE) -> pd.DataFrame:
    """A run's entropy (nats) and accuracy (points) by `step`; `fitted` says which are in the first `share` of steps.

    Raises RlinoError for an unknown source, and where the fitted part has no two entropies, or the rest no two rows.
    """
    columns = list(SOURCES[chosen(source, SOURCES, "source")])
    rows = run.metrics.dropna(subset=columns).sort_values("step")
    table = pd.DataFrame({"step": rows["step"], "entropy": rows[columns[0]], "accuracy": 100 * rows[columns[1]]})
    table = table.assign(fitted=table["step"] <= share * table["step"].max()).reset_index(drop=True)
    entropies = table.loc[table["fitted"], "entropy"].nunique()
    if entropies < 2 or (~table["fitted"]).sum() < 2:
        part = f"the first {100 * share:g} % of steps"
        raise RlinoError(f"{run.name}, {source}, has {entropies} entropies in {part}, of {len(table)} rows in all")
    return table


def entropy_law_table(runs: Iterable[Run], source: str = "training", share: float = SHARE) -> pd.DataFrame:
    """The law of each run's first `share` of steps against its rest, one row per run; numbers in points, H in nats.

    Columns: `run`, `task`, `method`, `seed`; of the fit `n`, `moved` (the largest less the smallest H), `a`, `a_se`,
    `b`, `ceiling` with `ceiling_low` and `ceiling_high` (95 %, of the line). The end is as many steps as were fitted,
    the last: `measured` is their mean accuracy, `predicted` the law's at their entropies with `low` and `high` (95 %,
    the steps' own noise included), `error` predicted less measured, `gain` measured less the mean of the fitted part,
    which is the error of predicting no change. `rmse` is over all steps after the fitted part.
    """
    rows = []
    for run in runs:
        table = entropy_accuracy(run, source, share)
        first, rest = table[table["fitted"]], table[~table["fitted"]]
        end = rest.tail(len(first))
        law = fit_entropy_law(first["entropy"], first["accuracy"])
        measured, predicted = end["accuracy"].mean(), law.predict(end["entropy"]).mean()
        low, high = law.interval(end["entropy"], len(end))
        ceiling_low, ceiling_high = law.interval([0.0])
        rows.append({
            "run": run.name, "task": run.config["task"], "method": run.method, "seed": run.seed,
            "n": law.n, "moved": np.ptp(first["entropy"]), "a": law.a, "a_se": law.a_se, "b": law.b,
            "ceiling": law.ceiling, "ceiling_low": ceiling_low, "ceiling_high": ceiling_high,
            "measured": measured, "predicted": predicted, "low": low, "high": high,
            "error": predicted - measured, "gain": measured - first["accuracy"].mean(),
            "rmse": math.sqrt(((law.predict(rest["entropy"]) - rest["accuracy"]) ** 2).mean()),
        })  # fmt: skip
    return pd.DataFrame(rows)
