"""Evidence on sharpening and discovery (chapter 09): the same test problems, sampled often before and after training.

D(k) of a trained policy is its pass@k less that of its base, in points. What is claimed of runs in general has to hold
over seeds and over problems, so a test takes the larger of two p values: Student's over one number for each seed, and a
bootstrap's over problems, of the mean over seeds. Holm's correction is over all claims of a module.
"""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from rlino_lib.analysis import coverage, pass_at_k
from rlino_lib.analysis import statistics as stats
from rlino_lib.claims.families import Result, tested
from rlino_lib.claims.ledger import Claim, NotTestable, Records, on_common_seeds
from rlino_lib.errors import RlinoError
from rlino_lib.folders import asked_and_found, read_jsonl
from rlino_lib.paths import BASES
from rlino_lib.records.runs import Run

GROUP = "sharpening"
BASE = Path(BASES["countdown"]) / "four"
LARGEST_K = 256


class Part(NamedTuple):
    """One inequality of a claim: the mean of `values` lies above the threshold (side +1), or below it (−1)."""

    name: str
    values: np.ndarray  # [S, P], of S seeds and P problems, in `unit`; NaN where a problem says nothing
    threshold: float
    side: int
    unit: str = "points"
    digits: int = 1

    @property
    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each seed over its problems [S], and of each problem that says something over seeds [at most P].

        Raises NotTestable where a seed has no such problem.
        """
        known = ~np.isnan(self.values)
        if not known.any(1).all():
            raise NotTestable(f"{self.name}: a seed has no problem that says anything")
        return np.nanmean(self.values, 1), np.nanmean(self.values[:, known.any(0)], 0)

    def p(self, side: int) -> float:
        """The p value of a test that the mean lies beyond the threshold on a side. Values that are of no single problem
        (P = 1) are beyond it or not, and their test is over seeds alone."""
        alternative = "greater" if side > 0 else "less"
        seeds, problems = self.means
        over_seeds = stats.t_test(seeds, self.threshold, alternative)
        return max(over_seeds, stats.bootstrap_p(problems, self.threshold, alternative))

    def words(self) -> str:
        """Mean, interval over seeds, and interval over problems where there are several."""
        seeds, problems = self.means
        intervals = [(stats.t_interval(seeds), f"{len(seeds)} seeds")]
        if len(problems) > 1:
            intervals.append((stats.bootstrap_interval(problems), f"{len(problems)} problems"))
        d = self.digits
        over = ", ".join(f"[{low:+.{d}f}, {high:+.{d}f}] over {what}" for (low, high), what in intervals)
        mean = f"{seeds.mean():+.{d}f} {self.unit}".rstrip()
        return f"{self.name} {mean} {over}"


def within(name: str, values: np.ndarray, margin: float, unit: str = "points", digits: int = 1) -> list[Part]:
    """The parts of an equivalence: the mean above −margin, and below it."""
    return [Part(name, values, -side * margin, side, unit, digits) for side in (+1, -1)]


def _p_values(_: Claim, parts: list[Part]) -> tuple[float, float]:
    """Of all parts, and of the contrary of some: as many looks as parts."""
    contrary = min(part.p(-part.side) for part in parts)
    return max(part.p(part.side) for part in parts), min(1.0, len(parts) * contrary)


def _words(_: Claim, parts: list[Part], result: Result) -> str:
    words = "; ".join(dict.fromkeys(part.words() for part in parts))  # an equivalence has two parts
    return f"{words}; {result.p_in_words()}"


# Evidence that consists of parts: it holds where all do, and does not hold here where one does not.
judged_by_parts = tested(_p_values, _words)


# --- records ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)  # all claims of the family are judged for each of them
def counts(folder: Path) -> pd.DataFrame:
    """The recorded counts of an evaluation, a row for each problem; raises NotTestable where it is not complete, and
    RlinoError where it is damaged."""
    if not is_evaluated(folder):
        raise NotTestable(f"no complete evaluation is recorded in {folder.parent.name}/{folder.name}")
    rows = read_jsonl(folder / "problems.jsonl")
    if not rows or any({"id", "n", "c"} - set(row) for row in rows):
        raise RlinoError(f"{folder}/problems.jsonl lacks rows, or has one without id, n or c")
    return pd.DataFrame(rows)


def is_evaluated(folder: Path) -> bool:
    """Whether a folder holds a complete evaluation."""
    return asked_and_found(folder / "evaluation.json")[1] is not None


def evaluated(claim: Claim, records: Records, *roles: str) -> tuple[list[list[pd.DataFrame]], list[Run]]:
    """The counts at temperature 1 of the runs of each method that the claim names in a role, on the seeds that all
    have, in their order, and these runs; NotTestable before the planned seeds are there."""
    runs = sorted((r for r in records.runs(GROUP) if is_evaluated(r.path / "t1")), key=lambda run: run.seed or 0)
    rows = on_common_seeds(claim, *([run for run in runs if run.method == claim.about[role]] for role in roles))
    return [[counts(run.path / "t1") for run in row] for row in rows], sum(rows, [])


def gains(frames: list[pd.DataFrame], k: int, column: str = "c") -> np.ndarray:
    """D(k) of each seed and problem, [S, P], in points; `column` "cc" asks for the chain as well.

    Raises RlinoError where the problems are not those of the base, in their order.
    """
    base = counts(BASE / "t1")
    if any(not frame["id"].equals(base["id"]) for frame in frames):
        raise RlinoError("an evaluation is of other problems than the base's")
    chances = [pass_at_k.estimates(f["n"], f[column], [k])[:, 0] for f in (base, *frames)]
    return 100 * (np.stack(chances[1:]) - chances[0])


# --- evidence --------------------------------------------------------------------------------------------------------


@judged_by_parts
def curves_cross(claim: Claim, records: Records) -> tuple[list[Part], list[Run]]:
    """Hypothesis: the method is above its base in one sample, by `first`, and below it in 256, by `last` points."""
    (frames,), runs = evaluated(claim, records, "method")
    first = Part("D(1)", gains(frames, 1), claim.threshold["first"], +1)
    return [first, Part(f"D({LARGEST_K})", gains(frames, LARGEST_K), -claim.threshold["last"], -1)], runs


@judged_by_parts
def discovers_more_than_chance(claim: Claim, records: Records) -> tuple[list[Part], list[Run]]:
    """Hypothesis: it solves problems that the base does not, `share` points more than the base sampled again does; and
    so many that four times the samples of the base still leave unsolved."""
    (frames,), runs = evaluated(claim, records, "method")
    base, again, more = (counts(BASE / name) for name in ("t1", "t1-again", "t1-unsolved"))
    solved = 100.0 * coverage.solved_alone(base, (again, *frames))  # [1+S, P]
    stays = np.stack([base["id"].isin(coverage.discoveries(base, f, more).query("stays").index) for f in frames])
    share = claim.threshold["share"]
    return [
        Part("beyond chance", solved[1:] - solved[0], share, +1),
        Part("unsolved at 4n", 100.0 * stays, share, +1),
    ], runs


@judged_by_parts
def chances_fall(claim: Claim, records: Records) -> tuple[list[Part], list[Run]]:
    """Hypothesis: more problems' chances fall, by two standard errors, than in the base sampled again, by `share`."""
    (frames,), runs = evaluated(claim, records, "method")
    base, again = counts(BASE / "t1"), counts(BASE / "t1-again")
    fell = np.stack([coverage.changes(f, base).loc[base["id"]] < -2 for f in (again, *frames)])
    return [Part("fell", 100.0 * fell[1:] - 100.0 * fell[0], claim.threshold["share"], +1)], runs


@judged_by_parts
def without_a_verifier(claim: Claim, records: Records) -> tuple[list[Part], list[Run]]:
    """Hypothesis: the method, which no verifier guides, has at least `share` of the reference's D(1), seed by seed."""
    (own, theirs), runs = evaluated(claim, records, "method", "reference")
    gap = gains(own, 1) - claim.threshold["share"] * gains(theirs, 1)
    return [Part("gain less the share", gap, 0.0, +1)], runs


@judged_by_parts
def a_colder_base(claim: Claim, records: Records) -> tuple[list[Part], list[Run]]:
    """Hypothesis: the base at its best lower temperature has at least `share` of the reference's D(1)."""
    (theirs,), runs = evaluated(claim, records, "reference")
    cold = gains([counts(BASE / "cold")], 1)
    return [Part("gain less the share", cold - claim.threshold["share"] * gains(theirs, 1), 0.0, +1)], runs


@judged_by_parts
def right_chains_part_the_curves(claim: Claim, records: Records) -> tuple[list[Part], list[Run]]:
    """Hypothesis: D(256) is `points` or more of right answers by right chains, and less of right answers alone."""
    (frames,), runs = evaluated(claim, records, "method")
    points = claim.threshold["points"]
    with_chain = Part(f"D({LARGEST_K}) with chains", gains(frames, LARGEST_K, column="cc"), points, +1)
    return [with_chain, Part(f"D({LARGEST_K})", gains(frames, LARGEST_K), points, -1)], runs


@judged_by_parts
def keeps_more(claim: Claim, records: Records) -> tuple[list[Part], list[Run]]:
    """Hypothesis: the method's D(256) is above the reference's by `points`."""
    (own, theirs), runs = evaluated(claim, records, "method", "reference")
    gap = gains(own, LARGEST_K) - gains(theirs, LARGEST_K)
    return [Part(f"difference of D({LARGEST_K})", gap, claim.threshold["points"], +1)], runs


@judged_by_parts
def same_curve(claim: Claim, records: Records) -> tuple[list[Part], list[Run]]:
    """Hypothesis: method and reference differ by less than `points` in one sample and in 256: an equivalence."""
    (own, theirs), runs = evaluated(claim, records, "method", "reference")
    parts = []
    for k in (1, LARGEST_K):
        parts += within(f"difference of D({k})", gains(own, k) - gains(theirs, k), claim.threshold["points"])
    return parts, runs
