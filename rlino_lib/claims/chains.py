"""Evidence on what the tokens of a thought mean (chapter 09b): the measurements of `rlino chains`, before and after.

The tests are those of `sharpening`: over seeds and over problems, with Holm's correction over the claims of this
module. A problem without such responses says nothing.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np
import pandas as pd

from rlino_lib.analysis.chains import covariances, pass_at_budgets, shares
from rlino_lib.analysis.trace_graphs import matched_gaps
from rlino_lib.claims import sharpening
from rlino_lib.claims.ledger import Claim, NotTestable, Records, require_seeds
from rlino_lib.claims.sharpening import Part, counts, is_evaluated, judged_by_parts, within
from rlino_lib.errors import RlinoError
from rlino_lib.records.chains import MEASUREMENT, read_chains
from rlino_lib.records.runs import Run

FOLDER = "chains"  # of a measurement, in the folder of a run or of the base's evaluations
DIRECT = "direct"  # the group of the runs without thinking
THINKING = "head-to-head"
TASK = "countdown"

Tables = dict[str, pd.DataFrame]
_read = lru_cache(maxsize=64)(read_chains)  # all claims of the family are judged for each of them


def measured(claim: Claim, records: Records) -> tuple[Tables, list[Tables], list[Run]]:
    """The tables of the base, those of each run of the claim's method, by seed, and these runs.

    NotTestable before the planned seeds and the base are measured; RlinoError where one is of other problems.
    """
    runs = [run for run in records.runs(sharpening.GROUP) if run.method == claim.about["method"]]
    runs = sorted((run for run in runs if MEASUREMENT.read(run.path / FOLDER)[1]), key=lambda run: run.seed or 0)
    require_seeds(claim, len(runs))
    if not MEASUREMENT.read(sharpening.BASE / FOLDER)[1]:
        raise NotTestable("the thoughts of the base are not measured")
    base, *models = (_read(folder / FOLDER) for folder in (sharpening.BASE, *(run.path for run in runs)))
    if any(not tables["process"]["problem"].equals(base["process"]["problem"]) for tables in models):
        raise RlinoError("a measurement of thoughts is of other problems than the base's")
    return base, models, runs


def _by(tables: Tables, name: str, measure: str, by: str) -> pd.DataFrame:
    """A share of a table, a row for each problem that was measured and a column for each value of `by`."""
    wide = shares(tables[name]).pivot(index="problem", columns=by, values=measure)
    return wide.reindex(tables["process"]["problem"])


# --- do answers follow the trace? ------------------------------------------------------------------------------------


@judged_by_parts
def answers_follow_the_last_attempt(claim: Claim, records: Records) -> tuple[list[Part], list[Run]]:
    """Hypothesis: with the last operation changed the answer is that of the last attempt `share` times as often as
    unedited, or more; and with its result false by 1 the accuracy moves by less than `points`."""
    _, models, runs = measured(claim, records)
    follows = [_by(tables, "forced", "follows_last", "edit") for tables in models]
    right = [_by(tables, "forced", "correct", "edit") for tables in models]
    kept = 100 * np.stack([f["operation"] - claim.threshold["share"] * f["none"] for f in follows])
    moved = 100 * np.stack([r["result"] - r["none"] for r in right])
    first = Part("follows the changed operation, less the share", kept, 0.0, +1)
    return [first, *within("accuracy with a false result", moved, claim.threshold["points"], "points", 1)], runs


@judged_by_parts
def followed_as_before(claim: Claim, records: Records) -> tuple[list[Part], list[Run]]:
    """Hypothesis: unedited, the answer is that of the last attempt as often as the base's is, to `points`."""
    base, models, runs = measured(claim, records)
    before, *after = (_by(tables, "forced", "follows_last", "edit")["none"] for tables in (base, *models))
    gap = 100 * np.stack([a - before for a in after])
    return within("follows the last attempt", gap, claim.threshold["points"], "points", 1), runs


# --- does it pay to be right on the way? -----------------------------------------------------------------------------


@judged_by_parts
def a_right_process_pays(claim: Claim, records: Records) -> tuple[list[Part], list[Run]]:
    """Hypothesis: within a problem right processes and right answers have a covariance above `covariance`."""
    _, models, runs = measured(claim, records)
    values = np.stack([covariances(tables["process"]) for tables in models])
    return [Part("covariance", values, claim.threshold["covariance"], +1, "", 4)], runs


@judged_by_parts
def facts_over_plans(claim: Claim, records: Records) -> tuple[list[Part], list[Run]]:
    """Hypothesis: a right first equation helps more than its operator does, by more than it does in the base, and
    `points`."""
    base, models, runs = measured(claim, records)
    hints = [_by(tables, "hints", "c", "hint") for tables in (base, *models)]
    before, *after = (100 * (table["fact"] - table["plan"]) for table in hints)
    gap = np.stack([a - before for a in after])
    return [Part("fact less plan, less the base's", gap, claim.threshold["points"], +1)], runs


@judged_by_parts
def graphs_are_equal_at_equal_attempts(claim: Claim, records: Records) -> tuple[list[Part], list[Run]]:
    """Hypothesis: right and wrong responses with equally many attempts have graphs of one density and one share of
    nodes that branch, each to `margin`."""
    _, models, runs = measured(claim, records)
    parts = []
    for measure in ("density", "branching"):
        gaps = [matched_gaps(t["graphs"], measure).reindex(t["process"]["problem"]) for t in models]
        parts += within(measure, np.stack(gaps), claim.threshold["margin"], "", 3)
    return parts, runs


# --- what else would have written it? --------------------------------------------------------------------------------


@judged_by_parts
def as_likely_as_a_colder_base(claim: Claim, records: Records) -> tuple[list[Part], list[Run]]:
    """Hypothesis: under the base its responses are as likely per token as the base's own at the temperature at which
    these are as long, to `nats`."""
    _, models, runs = measured(claim, records)
    sides = [_by(tables, "likelihood", "logprob", "side") for tables in models]
    if any("base" not in side for side in sides):
        raise NotTestable("no temperature of the base gives the length of each trained policy's responses")
    gap = np.stack([side["model"] - side["base"] for side in sides])
    return within("log-probability per token", gap, claim.threshold["nats"], "nats", 3), runs


@judged_by_parts
def thinking_pays(claim: Claim, records: Records) -> tuple[list[Part], list[Run]]:
    """Hypothesis: trained without thinking, as many samples as take the tokens of one response with it solve `points`
    less of the problems than that response does.

    With thinking that is the last evaluation of each run, one response to each of its test problems, which have to be
    as many as those without.
    """
    method = claim.about["method"]
    direct, thinking = (
        {run.seed: run for run in records.runs(group) if (run.method, run.config["task"]) == (method, TASK)}
        for group in (DIRECT, THINKING)
    )
    seeds = sorted(seed for seed in set(direct) & set(thinking) if is_evaluated(direct[seed].path / "t1"))
    require_seeds(claim, len(seeds))
    gaps = []
    for seed in seeds:
        last = thinking[seed].metrics.dropna(subset="eval/accuracy").iloc[-1]
        frame = counts(direct[seed].path / "t1")
        if len(frame) != thinking[seed].config["eval_problems"] or thinking[seed].config["eval_split"] != "test":
            raise RlinoError(f"{thinking[seed].name} was evaluated on other problems than {direct[seed].name}")
        solved = pass_at_budgets({"direct": frame}, [last["eval/mean_length"]])["value"]
        if solved.empty:
            raise NotTestable(f"{direct[seed].name} has too few samples for the tokens of one thought")
        gaps.append([100 * (last["eval/accuracy"] - solved.mean())])
    runs = [group[seed] for seed, group in product(seeds, (direct, thinking))]
    return [Part("with thinking less without", np.array(gaps), claim.threshold["points"], +1)], runs
