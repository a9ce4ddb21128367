"""Evidence on "GRPO is supervised learning" (chapter 06): exact at one update per batch, from records at several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from rlino_lib.analysis.statistics import final_accuracy, t_interval, updates_per_step
from rlino_lib.claims.bandit import equal_sides, toy
from rlino_lib.claims.ledger import RECORDED, Claim, Evidence, NotTestable, Records, evidence
from rlino_lib.claims.verdicts import CONDITIONS, FAILS, HOLDS
from rlino_lib.exact.identities import Identity, TokenLM, curve_identities, grpo_is_weighted_sft, sample_mdp
from rlino_lib.exact.token_mdp import SharedPolicy
from rlino_lib.records.runs import Run

# --- one update per batch --------------------------------------------------------------------------------------------


def _toy_identities() -> list[Identity]:
    mdp = toy()
    policy = SharedPolicy(mdp, seed=0)
    return grpo_is_weighted_sft(TokenLM(mdp, policy), sample_mdp(mdp, policy, prompts=16, group_size=8))


@evidence
def grpo_is_sft_weighted_by_advantage(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: at one update per batch GRPO's gradient is that of cross-entropy weighted by the advantage.

    Statistic: the largest relative gap between the two, with and without the KL term. Threshold `gap`: holds up to it.
    """
    return equal_sides(claim, _toy_identities()[:2])


@evidence
def advantages_are_functions_of_the_share_right(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: with binary rewards the advantages are functions of the share right alone.

    Statistic: the largest relative gap to their formulas, for groups of 2 to 16. Threshold `gap`: holds up to it.
    """
    return equal_sides(claim, [i for group in (2, 3, 5, 8, 16) for i in curve_identities(group)[-2:]])


@evidence
def grpo_is_balanced_f_isft(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: GRPO is balanced F-ISFT⁺⁻ with a weight of √(p(1−p)) on each prompt.

    Statistic: the relative gap between their gradients on one batch. Threshold `gap`: the claim holds up to it.
    """
    return equal_sides(claim, _toy_identities()[-1:])


# --- several updates per batch, from records -------------------------------------------------------------------------


def stale_runs(records: Records = RECORDED) -> list[Run]:
    """The recorded runs with several updates per batch of samples."""
    return [run for run in records.runs("staleness") if (run.path / "probes.csv").exists()]


def last_update(runs: Sequence[Run]) -> pd.DataFrame:
    """By updates per batch (the index): what a batch's last update measured, the mean over probed steps, then runs.

    Columns: cosine, of the run's gradient and that of balanced F-ISFT⁺⁻; clipped, the share of tokens.
    """
    rows = []
    for run in runs:
        updates = updates_per_step(run)
        last = run.probes[run.probes["update"] == updates]
        rows.append((updates, last["cosine/f_isft"].mean(), last["clip_ratio"].mean()))
    return pd.DataFrame(rows, columns=["updates", "cosine", "clipped"]).groupby("updates").mean()


def accuracy_gap(runs: Sequence[Run], method: str, reference: str) -> pd.DataFrame:
    """By updates per batch (the index): the mean difference of test accuracy in points, paired by seed.

    Columns: points, low and high (its 95 % t-interval), seeds.
    """
    rows = [(run.method, updates_per_step(run), run.seed, final_accuracy(run)) for run in runs]
    frame = pd.DataFrame(rows, columns=["method", "updates", "seed", "accuracy"])
    wide = frame.pivot(index=["updates", "seed"], columns="method", values="accuracy")
    gaps = (wide[method] - wide[reference]).dropna().groupby(level="updates")
    by_updates = {updates: (gap.mean(), *t_interval(gap), len(gap)) for updates, gap in gaps}
    return pd.DataFrame.from_dict(by_updates, "index", columns=["points", "low", "high", "seeds"])


def where_it_ends(runs: Sequence[Run], threshold: Mapping[str, float]) -> pd.DataFrame:
    """What tells GRPO from balanced F-ISFT⁺⁻ at each number of updates per batch (the index), and whether it does.

    Columns: cosine and clipped as in `last_update`, for GRPO's runs; points, low, high and seeds as in `accuracy_gap`;
    and "cosine ends", "clipped ends", "accuracy ends": whether each is beyond its threshold.
    "accuracy open": it is not, but the interval does not lie within the threshold either, so the question is open. A
    mean leaves out what no run of it could measure: a policy without any mixed group has no gradient to compare.
    """
    table = last_update([run for run in runs if run.method == "grpo_no_kl"])
    table = table.join(accuracy_gap(runs, "grpo_no_kl", "f_isft_posneg"))
    margin = threshold["points"]
    excludes_0 = (table["low"] > 0) | (table["high"] < 0)
    within = (table["low"] > -margin) & (table["high"] < margin)
    table["cosine ends"] = table["cosine"] < threshold["cosine"]
    table["clipped ends"] = table["clipped"] > threshold["clipped"]
    table["accuracy ends"] = (table["points"].abs() > margin) & excludes_0
    table["accuracy open"] = ~table["accuracy ends"] & ~within
    return table


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def _by_updates(passed: pd.Series, effect: str, runs: Sequence[Run]) -> Evidence:
    """The verdict on a claim that holds or not at each number of updates per batch (the index of `passed`, sorted)."""
    failed = passed.index[~passed]
    if failed.empty:
        return Evidence(HOLDS, f"up to {passed.index[-1]} updates per batch; {effect}", runs)
    verdict = FAILS if failed[0] == passed.index[0] else CONDITIONS
    held = f"it holds at {_listed(passed.index[passed])} and " if passed.any() else ""
    return Evidence(verdict, f"{held}not at {_listed(failed)} updates per batch; {effect}", runs)


@evidence
def ratio_stays_in_the_clip_range(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: the importance ratio stays inside the clip range, at any number of updates per batch.

    Statistic: the share of tokens clipped at a batch's last update, the mean over GRPO's runs without KL.
    Threshold `clipped`: the claim holds at each number of updates per batch at which the share is not above it.
    """
    runs = [run for run in stale_runs(records) if run.method == "grpo_no_kl"]
    if not runs:
        raise NotTestable("no recorded runs")
    clipped = last_update(runs)["clipped"]
    shares = ", ".join(f"{updates}: {100 * share:.1f} %" for updates, share in clipped.items())
    return _by_updates(clipped <= claim.threshold["clipped"], f"clipped by updates per batch {shares}", runs)


@evidence
def grpo_stays_balanced_f_isft(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: GRPO still does what balanced F-ISFT⁺⁻ does at several updates per batch of samples.

    Statistics: the cosine of their gradients and the share clipped at a batch's last update; the difference in
    accuracy, paired by seed. Thresholds `cosine`, `clipped` and `points`: the claim fails where the cosine is below,
    the share above, or the difference beyond its own with a 95 % interval that excludes 0.
    """
    runs = [run for run in stale_runs(records) if run.method in ("grpo_no_kl", "f_isft_posneg")]
    if len({run.method for run in runs}) < 2:
        raise NotTestable("no recorded runs of both methods")
    table = where_it_ends(runs, claim.threshold)
    ends = table[["cosine ends", "clipped ends", "accuracy ends"]]
    undecided = table.index[table["accuracy open"]]
    crossed = [f"{name.removesuffix(' ends')} at {_listed(hit.index[hit])}" for name, hit in ends.items() if hit.any()]
    effect = f"the bound was crossed by {', by '.join(crossed)}" if crossed else "no bound was crossed"
    if len(undecided):
        effect += f"; accuracy undecided at {_listed(undecided)}: its interval reaches beyond the margin"
    return _by_updates(~ends.any(axis=1), effect, runs)
