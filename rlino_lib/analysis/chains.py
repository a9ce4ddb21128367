"""What is measured of chains of thought, problem by problem, and what a right chain earns (chapter 09).

Frames have a row for each response, or each problem and variant, and a column `problem`. Intervals are over problems:
the responses to a problem are not independent of one another, so their mean counts once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from rlino_lib.analysis.pass_at_k import pass_at_k
from rlino_lib.analysis.statistics import bootstrap_interval
from rlino_lib.errors import RlinoError


def mean_row(values: pd.Series) -> dict[str, float]:
    """The mean of problems' values with a BCa bootstrap interval over problems: mean, low, high, problems."""
    values = values.dropna().astype(float)
    low, high = bootstrap_interval(values) if len(values) else (np.nan, np.nan)
    return {"mean": float(values.mean()), "low": low, "high": high, "problems": len(values)}


def over_problems(frame: pd.DataFrame, measures: Sequence[str], by: str) -> pd.DataFrame:
    """`mean_row` of each measure (a column) for each value of `by`, in the order of the frame; missing values are left
    out."""
    rows = []
    for name, part in frame.groupby(by, sort=False):
        for measure in measures:
            values = part.groupby("problem")[measure].mean()
            rows.append({by: name, "measure": measure, **mean_row(values)})
    return pd.DataFrame(rows)


def against(frame: pd.DataFrame, measure: str, by: str, reference: str) -> pd.DataFrame:
    """The measure for each other value of `by` minus that of `reference`, paired by problem: `mean_row`s.

    A problem without both is left out. Raises RlinoError where the frame has no row of the reference.
    """
    means = frame.groupby([by, "problem"], sort=False)[measure].mean().unstack(0)
    if reference not in means:
        raise RlinoError(f"there is no {reference!r} to compare with: {by} has {', '.join(map(str, means))}")
    others = [name for name in means if name != reference]
    return pd.DataFrame([{by: name, **mean_row(means[name] - means[reference])} for name in others])


# --- what `rlino chains` records -------------------------------------------------------------------------------------

# What each count or sum of `records.chains` is a share, or a mean, of.
_PER = {
    "process": "n", "both": "n", "correct": "n", "c": "n", "follows_last": "has_last", "follows_yes": "has_yes",
    "follows_closed": "closed", "logprob": "tokens",
}  # fmt: skip


def shares(table: pd.DataFrame) -> pd.DataFrame:
    """A recorded table with shares in place of its counts, and log-probs per token (nats); NaN for a share of nothing.

    Its rows are what `over_problems` and `against` take: `against(shares(hints), "c", "hint", "none")`. Tables of
    several policies, concatenated, are averaged problem by problem.
    """
    pairs = {name: per for name, per in _PER.items() if {name, per} <= set(table)}
    return table.assign(**{name: table[name] / table[per].where(table[per] > 0) for name, per in pairs.items()})


def covariances(process: pd.DataFrame) -> pd.Series:
    """The covariance of a right process and a right answer over the responses to each problem, by problem; unbiased.

    In a group of responses the sign of it is that of α − β in `chain_advantages`. NaN for one response alone.
    """
    n = process["n"]
    both, one, other = (shares(process)[name] for name in ("both", "process", "correct"))
    return ((both - one * other) * (n / (n - 1).where(n > 1))).set_axis(process["problem"])


def totals(tables: Mapping[str, pd.DataFrame]) -> dict[str, float | int | None]:
    """A measurement of chains at a glance, over all responses: their number, accuracy, mean length in tokens, how often
    the process is right and the last attempt followed, and the temperature at which the base is as long (None: none).
    """
    process, forced, likelihood = (tables[name] for name in ("process", "forced", "likelihood"))
    n = process["n"].sum()
    unedited = forced[forced["edit"] == "none"][["follows_last", "has_last"]].sum()
    base = likelihood.loc[likelihood["side"] == "base", "temperature"]
    return {
        "problems": len(process),
        "responses": int(n),
        "accuracy": float(process["correct"].sum() / n),
        "mean_length": float(process["tokens"].sum() / n),
        "process_right": float(process["process"].sum() / n),
        "follows_last": float(unedited["follows_last"] / max(1, unedited["has_last"])),
        "temperature": float(base.iloc[0]) if len(base) else None,
    }


# --- what a right chain earns ----------------------------------------------------------------------------------------


def chain_advantages(rollouts: pd.DataFrame, group: str | list[str] = "group", eps: float = 1e-4) -> pd.DataFrame:
    """The mean of GRPO's advantages over right and over wrong chains, from counts: a row for each group of rollouts.

    With p_c the share of right chains (column `chain_right`), α and β the mean reward of right and of wrong chains, and
    σ the group's standard deviation + eps, these are E[A | right] = (1 − p_c)(α − β)/σ and E[A | wrong] =
    −p_c(α − β)/σ. So the sign of α − β alone decides, which is the theorem of 2506.14245, here for finite groups. A
    flag that asks for a right answer too makes α = 1 and the theorem empty; one of equations and verdicts alone does
    not. Columns: n, p_c, alpha, beta, sigma, right, wrong; NaN for a side without responses. The batch's mean over
    right chains is that of `right` with weights n·p_c, over wrong ones that of `wrong` with n·(1 − p_c).
    """
    frame = rollouts.assign(chain_right=rollouts["chain_right"].astype(bool), reward=rollouts["reward"].astype(float))
    groups = frame.groupby(group)
    table = pd.DataFrame({"n": groups.size(), "p_c": groups["chain_right"].mean()})
    for name, side in (("alpha", frame["chain_right"]), ("beta", ~frame["chain_right"])):
        table[name] = frame[side].groupby(group)["reward"].mean()
    table["sigma"] = groups["reward"].std().fillna(0.0) + eps  # of a sample, as in `advantages` and TRL
    gap = (table["alpha"] - table["beta"]).fillna(0.0)  # one side alone is the mean itself
    unit = (gap / table["sigma"]).where(gap != 0, 0.0)
    table["right"] = ((1 - table["p_c"]) * unit).where(table["p_c"] > 0)
    table["wrong"] = (-table["p_c"] * unit).where(table["p_c"] < 1)
    return table


# --- what thinking costs ---------------------------------------------------------------------------------------------


def pass_at_budgets(
    modes: Mapping[str, pd.DataFrame], budgets: Sequence[float], oversampling: float = 4
) -> pd.DataFrame:
    """pass@k where each mode spends the same tokens on a problem, as NoThinking (2504.09858) compares: k = ⌊budget/mean
    tokens of a sample⌋.

    `modes` are evaluations by name, one row for each problem: id, n, c, and `tokens`, the sum over its samples of the
    tokens that the policy wrote (prompts and prefills are not counted). A row for each problem, mode and budget:
    problem, mode, budget, k, value. Budgets that are less than a sample, or for which n < oversampling·k, have none.
    `over_problems` and `against` sum it up, one budget at a time.
    """
    rows = []
    for name, frame in modes.items():
        mean_tokens = frame["tokens"].sum() / frame["n"].sum()
        most = frame["n"].min() / oversampling
        for budget in budgets:
            k = int(budget // mean_tokens)
            for row in frame.itertuples() if 1 <= k <= most else ():
                rows.append((row.id, name, budget, k, pass_at_k(row.n, row.c, k)))
    return pd.DataFrame(rows, columns=["problem", "mode", "budget", "k", "value"])
