"""Which problems two models can solve, and whose chances rose or fell (chapter 09: sharpening or discovery).

Frames have one row per problem: `id`, `n` samples, `c` right ones. The tables have a row for each of several models
against the same base. One of these should be the base sampled again: what its row shows is the noise of n samples.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.optimize
from numpy.typing import ArrayLike

from rlino_lib.analysis import pass_at_k
from rlino_lib.analysis.pass_at_k import OVERSAMPLING, paired, paired_difference, pass_at_k_table
from rlino_lib.errors import RlinoError

CELLS = ("both", "base_only", "model_only", "neither")


# --- which problems are solved ---------------------------------------------------------------------------------------


def cell_counts(by_base: np.ndarray, by_model: np.ndarray) -> dict[str, int]:
    """How many of what is marked [N] bool by the base and by the model stand in each of CELLS."""
    cells = (by_base & by_model, by_base & ~by_model, ~by_base & by_model, ~by_base & ~by_model)
    return {name: int(cell.sum()) for name, cell in zip(CELLS, cells, strict=True)}


def _solved(base: pd.DataFrame, model: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Which problems the base and a model solve, [P] bool each, in the base's order: those with a right sample.

    Raises RlinoError where the problems or their numbers of samples differ: with more samples more is solved.
    """
    pairs = paired(base, model)
    if (pairs[["n", "n_reference"]] != pairs["n"].iloc[0]).any(axis=None):
        raise RlinoError("what two models solve is compared at one number of samples of each problem")
    return (pairs["c"] > 0).to_numpy(), (pairs["c_reference"] > 0).to_numpy()


def coverage(base: pd.DataFrame, models: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """How many problems the base and each model solve, a row for each model: CELLS, problems, and n samples of each.

    A problem is solved where c > 0. Raises RlinoError where the problems or their numbers of samples differ: with more
    samples more is solved. `coverage(base, {"trained": a, "base again": b})`.
    """
    size = {"problems": len(base), "n": int(base["n"].iloc[0])}
    rows = {name: cell_counts(*_solved(base, frame)) | size for name, frame in models.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*CELLS, "problems", "n"])


def solved_alone(base: pd.DataFrame, frames: Sequence[pd.DataFrame]) -> np.ndarray:
    """Which problems each model solves and the base does not, [M, P] bool, in the base's order of problems.

    Raises RlinoError where the problems or their numbers of samples differ: with more samples more is solved.
    """
    return np.stack([by_model & ~by_base for by_base, by_model in (_solved(base, frame) for frame in frames)])


def leash(cells: pd.DataFrame) -> pd.DataFrame:
    """The rates of "The Invisible Leash" (2507.14843) of each row of `coverage`: srr, ndr, sds, nscr.

    With P preserved (both), S shrunk (the base alone) and E expanded (the model alone): support retention
    SRR = P/(P+S), net discovery NDR = E/(P+E), their harmonic mean SDS = 2PE/(P²+2PE+ES), and net support change
    NSCR = (E−S)/(P+E+S). NaN where nothing is counted. The paper's P, S and E are of completions; here of problems.
    """
    p, s, e = (cells[name].astype(float) for name in CELLS[:3])
    rates = {
        "srr": p / (p + s),
        "ndr": e / (p + e),
        "sds": 2 * p * e / (p * p + 2 * p * e + e * s),
        "nscr": (e - s) / (p + e + s),
    }
    return pd.DataFrame(rates)


def discoveries(base: pd.DataFrame, model: pd.DataFrame, more: pd.DataFrame) -> pd.DataFrame:
    """The problems that the model solves and the base does not, and what more samples of the base say of them, by id.

    `more` holds further evaluations of the base, drawn with other seeds, on these problems or on more; a problem's rows
    add up. Columns: `p`, the model's share; `n` and `c` of the base in all; `bound`, the largest chance of the base's
    that n failures leave possible at 95 %; `stays`, whether the base still has none. Raises RlinoError where the base
    has fewer than four times its samples on one of the problems.
    """
    pairs = paired(model, base)
    table = pairs[(pairs["c"] > 0) & (pairs["c_reference"] == 0)]
    further = more.groupby("id")[["n", "c"]].sum().reindex(table.index, fill_value=0)
    n = table["n_reference"] + further["n"]
    short = n.index[n < OVERSAMPLING * table["n_reference"]]
    if len(short):
        raise RlinoError(
            f"{len(short)} problems need {OVERSAMPLING} times as many samples of the base, such as {short[0]}: "
            "evaluate it again with --unsolved-by and another seed"
        )
    stays = further["c"] == 0
    bound = n.map(pass_at_k.unsolved_bound).where(stays)
    return pd.DataFrame({"p": table["c"] / table["n"], "n": n, "c": further["c"], "bound": bound, "stays": stays})


# --- whose chances moved ---------------------------------------------------------------------------------------------


def changes(frame: pd.DataFrame, base: pd.DataFrame) -> pd.Series:
    """The change of each problem's c/n against the base in pooled binomial standard errors, by id; 0 where neither or
    both always succeed. Raises RlinoError where the problems differ."""
    pairs = paired(frame, base)
    n, c, n_base, c_base = (pairs[name] for name in ("n", "c", "n_reference", "c_reference"))
    pooled = (c + c_base) / (n + n_base)
    error = (pooled * (1 - pooled) * (1 / n + 1 / n_base)) ** 0.5
    return ((c / n - c_base / n_base) / error.where(error > 0, 1.0)).rename("z")


def moved(base: pd.DataFrame, models: Mapping[str, pd.DataFrame], errors: float = 2.0) -> pd.DataFrame:
    """The share of problems whose chance fell, and rose, by more than `errors` standard errors: a row for each model.

    Tilting towards the reward (`tilted`) lowers no problem's chance. What falls beyond the row of the base sampled
    again has another cause: problems that interfere with one another, or training on finite samples.
    """
    z = {name: changes(frame, base) for name, frame in models.items()}
    rows = {name: [(v < -errors).mean(), (v > errors).mean(), len(v)] for name, v in z.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["fell", "rose", "problems"])


def tilted(p: ArrayLike, beta: float) -> np.ndarray:
    """The chance of success of π* ∝ π_ref·e^{r/β} where π_ref has p and r is 0 or 1: p·e^{1/β}/(1 + p(e^{1/β} − 1)).

    π* is the optimum of E[r] − β·KL(π‖π_ref). For β > 0 no p falls, and 0 and 1 stay; β = ∞ changes nothing, and a
    negative β tilts away from the reward. Raises RlinoError for β = 0, where no optimum exists.
    """
    if beta == 0:
        raise RlinoError("a tilt needs a β other than 0: the smaller it is, the stronger")
    p = np.asarray(p, dtype=float)
    return _with_odds(p, 1 / beta)


def _with_odds(p: np.ndarray, log_factor: float) -> np.ndarray:
    """p with its odds multiplied by e^log_factor; written so that nothing overflows."""
    if log_factor < 0:
        return 1 - _with_odds(1 - p, -log_factor)
    other = (1 - p) * math.exp(-log_factor)
    return np.divide(p, p + other, out=np.zeros_like(p), where=p > 0)


def fitted_tilt(base: pd.DataFrame, model: pd.DataFrame) -> float:
    """The one β by which tilting the base's shares c/n gives the model's mean pass@1; negative where that is lower.

    The shares stand for the chances, so a problem with c = 0 stays at 0. Raises RlinoError where no tilt gives it: the
    model's mean is not between the shares of problems that the base always and that it ever solves.
    """
    pairs = paired(model, base)
    p = (pairs["c_reference"] / pairs["n_reference"]).to_numpy(float)
    target = float((pairs["c"] / pairs["n"]).mean())
    if not (p == 1).mean() < target < (p > 0).mean():
        raise RlinoError(f"no tilt of the base has pass@1 {target:.3f}: it lies between {(p == 1).mean():.3f} and "
                         f"{(p > 0).mean():.3f}, both excluded")  # fmt: skip
    log_factor = float(scipy.optimize.brentq(lambda x: _with_odds(p, x).mean() - target, -700, 700))
    return 1 / log_factor if log_factor else math.inf


# --- each against each other -----------------------------------------------------------------------------------------


class Versus(NamedTuple):
    """A model against another one, which stands for the base, on the same problems."""

    gaps: pd.DataFrame  # `paired_difference` at every k
    cells: pd.Series  # its row of `coverage`
    moves: str  # a digit for each problem: 1 where its chance is higher by two standard errors, 2 lower, else 0


class Comparison(NamedTuple):
    """Models on the same problems: the powers of two that the samples suffice for, and what there is at each."""

    ks: list[int]
    tables: dict[str, pd.DataFrame]  # `pass_at_k_table` of each model
    chances: np.ndarray  # pass@k by model, k and problem: [M, K, P]
    pairs: dict[tuple[str, str], Versus]  # by the name of the one that stands for the base, and of the other
    guess: np.ndarray | None  # the mean pass@k of a guesser: [K]


def compare_models(frames: Mapping[str, pd.DataFrame], floor: Sequence[float] | None = None) -> Comparison:
    """Each model against each other one, with the problems in the order of the first; `floor` [P]: a guesser's chances.

    Raises RlinoError for fewer than two, for problems that differ or stand twice, where the numbers of samples differ
    or are below 4, which suffice for no k, and for a floor of other problems.
    """
    frames = _aligned(frames)
    tables = {name: pass_at_k_table(frame) for name, frame in frames.items()}
    ks = next(iter(tables.values()))["k"].tolist()
    chances = np.stack([pass_at_k.estimates(frame["n"], frame["c"], ks).T for frame in frames.values()])  # [M, K, P]
    if floor is not None and np.shape(floor) != chances.shape[2:]:
        raise RlinoError(f"the floor has a chance for each of the {chances.shape[2]} problems")
    pairs = {}
    for a, b in itertools.combinations(frames, 2):
        gaps = paired_difference(frames[b], frames[a])
        mirrored = gaps.assign(
            pass_at_k=gaps["reference"], reference=gaps["pass_at_k"], difference=-gaps["difference"],
            low=-gaps["high"], high=-gaps["low"],
        )  # fmt: skip
        for one, other, rows in ((a, b, gaps), (b, a, mirrored)):
            cells = coverage(frames[one], {other: frames[other]}).iloc[0]
            z = changes(frames[other], frames[one])
            pairs[one, other] = Versus(rows, cells, "".join(np.select([z > 2, z < -2], ["1", "2"], "0")))
    guess = None if floor is None else pass_at_k.true_pass_at_k(floor, ks).mean(0)  # [K]
    return Comparison(ks, tables, chances, pairs, guess)


def _aligned(frames: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    if len(frames) < 2:
        raise RlinoError("at least two models are needed, to be compared")
    sizes = sorted({int(n) for frame in frames.values() for n in frame["n"].unique()})
    if len(sizes) != 1 or sizes[0] < OVERSAMPLING:
        raise RlinoError(
            f"models are compared at one number of samples of each problem, {OVERSAMPLING} or more, not {sizes}"
        )
    first = next(iter(frames.values()))["id"]
    if any(sorted(frame["id"]) != sorted(first) or not first.is_unique for frame in frames.values()):
        raise RlinoError("models are compared on the same problems, each of them once")
    return {name: frame.set_index("id").loc[first].reset_index() for name, frame in frames.items()}
