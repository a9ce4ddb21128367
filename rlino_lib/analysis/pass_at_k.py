"""pass@k from counts: estimates, their errors, curves and paired differences (chapters 03, 07 and 09).

A frame here has one row per problem, with columns `id`, `n` (samples) and `c` (right ones), as an evaluation records.
CoT-pass@k (2506.14245), which counts right answers by right chains, is pass@k of `frame.assign(c=frame["cc"])`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import ArrayLike

from rlino_lib.analysis.statistics import bootstrap_interval
from rlino_lib.errors import RlinoError

OVERSAMPLING = 4  # samples of a problem for each of the largest k
FEW = 5  # problems; where a mean, or its distance from 1, hangs on fewer, its interval is exact and not bootstrapped


# --- one problem -----------------------------------------------------------------------------------------------------


def pass_at_k(n: int, c: int, k: int) -> float:
    """The unbiased estimate of pass@k from n samples of which c are right: 1 − C(n−c, k)/C(n, k).

    Written as the product that does not overflow (Chen et al. 2021); raises RlinoError unless 0 ≤ c ≤ n and 1 ≤ k ≤ n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise RlinoError(f"pass@k needs 0 ≤ c ≤ n and 1 ≤ k ≤ n, not n={n}, c={c}, k={k}")
    if n - c < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1)))


def estimates(n: ArrayLike, c: ArrayLike, ks: Sequence[int]) -> np.ndarray:
    """`pass_at_k` of problems with n samples and c right ones, each [P] or one number, at every k: [P, K] float64."""
    return np.vectorize(pass_at_k, otypes=[float])(np.asarray(n)[..., None], np.asarray(c)[..., None], ks)


def true_pass_at_k(p: ArrayLike, ks: Sequence[int]) -> np.ndarray:
    """1 − (1 − p)^k for problems with known chances p [P], such as a guesser's, at every k: [P, K] float64."""
    return 1 - (1 - np.asarray(p, dtype=float)[..., None]) ** np.asarray(ks)


def unsolved_bound(n: int, level: float = 0.95) -> float:
    """The largest p that n samples with none right leave possible: 1 − (1 − level)^(1/n), about 3/n at 95 %."""
    return float(1 - (1 - level) ** (1 / n))


# --- many problems ---------------------------------------------------------------------------------------------------


def pass_at_k_table(
    frame: pd.DataFrame, ks: Sequence[int] | None = None, *, oversampling: float = OVERSAMPLING
) -> pd.DataFrame:
    """The mean of pass@k over problems with an interval: columns k, pass_at_k, low, high, as the figure takes them.

    `ks` are by default the powers of two that the samples suffice for. The interval is a BCa bootstrap over problems: a
    problem's c moves with it, so that the spread between problems and the error within each are both in it. Near 0 and
    1 it is exact (`mean_interval`). Raises RlinoError where a problem has fewer samples than `oversampling`·k: at k = n
    a problem's estimate is 0 or 1. `oversampling=1` allows that.
    """
    ks = _check_ks(ks, int(frame["n"].min()), oversampling)
    values = estimates(frame["n"], frame["c"], ks)  # [P, K]
    table = pd.DataFrame({"k": ks, "pass_at_k": values.mean(0)})
    return table.assign(**_ends(map(mean_interval, values.T)))


def paired_difference(
    frame: pd.DataFrame | Sequence[pd.DataFrame], reference: pd.DataFrame, ks: Sequence[int] | None = None, *,
    oversampling: float = OVERSAMPLING,
) -> pd.DataFrame:  # fmt: skip
    """pass@k of one frame minus that of another on the same problems: columns k, pass_at_k, reference, difference, low,
    high. Of several frames, one a seed, it is the mean over them of each problem's pass@k.

    Problems are resampled in pairs; over further seeds the interval says nothing. Where the difference hangs on fewer
    than `FEW` problems, it joins the exact ones of the gains and of the losses. Raises RlinoError as `pass_at_k_table`
    does, and where the problems are not the same.
    """
    frames = [frame] if isinstance(frame, pd.DataFrame) else frame
    pairs = [paired(one, reference).loc[reference["id"]] for one in frames]
    ks = _check_ks(ks, int(min(pair[["n", "n_reference"]].min().min() for pair in pairs)), oversampling)
    values = np.mean([estimates(pair["n"], pair["c"], ks) for pair in pairs], axis=0)  # [P, K]
    baseline = estimates(reference["n"], reference["c"], ks)  # [P, K]
    differences = values - baseline
    means = {"k": ks, "pass_at_k": values.mean(0), "reference": baseline.mean(0), "difference": differences.mean(0)}
    return pd.DataFrame(means).assign(**_ends(map(difference_interval, differences.T)))


def paired(frame: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """n and c of both on the same problems, by id: columns n, c, n_reference, c_reference.

    Raises RlinoError where a problem is missing from one of them or stands twice in one.
    """
    one, other = (f.set_index("id")[["n", "c"]] for f in (frame, reference))
    if not (one.index.is_unique and other.index.is_unique) or len(one.index.symmetric_difference(other.index)):
        raise RlinoError("two evaluations are compared on the same problems, each of them once")
    return one.join(other.add_suffix("_reference"))


def mean_interval(values: ArrayLike) -> tuple[float, float]:
    """The 95 % interval for the mean of problems' values in [0, 1], (low, high).

    A bootstrap sees no spread where all problems are at 0 or at 1, and too little where almost all are. There Clopper
    and Pearson's holds: of all variables in [0, 1] with one mean, the one of 0 and 1 alone spreads most.
    """
    values = np.asarray(values, dtype=float)
    if min(_carriers(values), _carriers(1 - values)) >= FEW:
        return bootstrap_interval(values)
    return _exact_interval(float(values.sum()), len(values), 0.95)


def difference_interval(differences: np.ndarray) -> tuple[float, float]:
    """Of the mean of paired differences [P] of shares: as `mean_interval`, of gains and losses where few carry it."""
    if _carriers(differences) >= FEW:
        return bootstrap_interval(differences)
    gains, losses = (float(np.maximum(side, 0).sum()) for side in (differences, -differences))
    # Both hold together with at least 95 %.
    (low, high), (least, most) = (_exact_interval(side, len(differences), 0.975) for side in (gains, losses))
    return low - most, high - least


def _carriers(values: np.ndarray) -> float:
    """How many problems carry a sum: (Σ|x|)²/Σx², the count of those that are not 0 where these are alike."""
    squares = float(values @ values)
    return float(np.abs(values).sum() ** 2 / squares) if squares else 0.0


def _exact_interval(successes: float, n: int, level: float) -> tuple[float, float]:
    """Clopper and Pearson's, by the beta distribution, which takes parts of a success as well."""
    tail = (1 - level) / 2
    low = scipy.stats.beta.ppf(tail, successes, n - successes + 1) if successes > 0 else 0.0
    high = scipy.stats.beta.ppf(1 - tail, successes + 1, n - successes) if successes < n else 1.0
    return float(low), float(high)


def _check_ks(ks: Sequence[int] | None, n: int, oversampling: float) -> list[int]:
    if ks is None:
        ks = [2**i for i in range(n.bit_length()) if oversampling * 2**i <= n]
    most = max(ks, default=1)
    if n < oversampling * most:
        raise RlinoError(
            f"pass@{most} needs {oversampling * most:g} samples of each problem ({oversampling:g}·k), not {n}: take "
            "more samples or a smaller k, or give oversampling=1 for estimates with large errors"
        )
    return list(ks)


def _ends(intervals: Iterable[tuple[float, float]]) -> dict[str, tuple[float, ...]]:
    return dict(zip(("low", "high"), zip(*intervals, strict=True), strict=True))
