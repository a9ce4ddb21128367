"""Evidence on why responses grow (chapter 08c). A seed is the unit; a verdict needs the planned seeds.

Each claim is judged by a 95 % interval over seeds, Student's, and that of the median for giving up: where it does not
exclude either answer, the claim is undecided.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial

import pandas as pd

from rlino_lib.analysis import growth as grown
from rlino_lib.analysis.giving_up import false_yes_share, giving_up, giving_up_rates, log_ratios, share_of_fall
from rlino_lib.analysis.growth import base_problems, final_responses, first_responses, growth, parts_of
from rlino_lib.analysis.statistics import median_coverage, median_interval
from rlino_lib.claims import verdicts
from rlino_lib.claims.ledger import RECORDED, Claim, Evidence, NotTestable, Records, evidence, on_common_seeds
from rlino_lib.claims.verdicts import FAILS, HOLDS, mean_in_words, ratio_in_words, verdict_above_zero
from rlino_lib.errors import RlinoError
from rlino_lib.exact.length_toy import NORMALISERS
from rlino_lib.methods.catalogue import LABELS, OBJECTIVES
from rlino_lib.records.runs import UNKNOWN, Run


def normaliser_of(run: Run) -> str:
    """The normaliser that a run was trained with; unknown for a method that is not in the catalogue."""
    row = OBJECTIVES.get(run.method)  # an imported run may have any method
    return run.config.get("objective_settings", {}).get("normaliser", row.normaliser if row else UNKNOWN)


def length_runs(task: str, method: str, normaliser: str = "per_response", records: Records = RECORDED) -> list[Run]:
    """Runs of (task, method, normaliser) that kept their responses, by seed, with no other objective setting changed.

    For 1/|o| head-to-head runs are preferred to length runs with the same seed. Runs with another cap than their base's
    evaluation do not count: their lengths cannot be compared with it.
    """
    runs = [*records.runs("head-to-head"), *records.runs("length")]

    def one_cap(run: Run) -> bool:
        cap = grown.base_cap(run)  # of an imported run neither need be known
        return cap is None or run.config["max_new_tokens"] == cap

    return _runs_of(task, method, normaliser, runs, one_cap)


def giving_up_runs(task: str, method: str, normaliser: str = "per_response", records: Records = RECORDED) -> list[Run]:
    """The same of the runs that were made to judge giving up, on seeds that no other run has."""
    return _runs_of(task, method, normaliser, records.runs("giving-up"))


def _runs_of(
    task: str, method: str, normaliser: str, runs: Iterable[Run], fits: Callable[[Run], bool] = lambda run: True
) -> list[Run]:
    """Of these runs those of a row of the ablation that kept their responses and fit, the first of each seed."""
    by_seed: dict[int, Run] = {}
    for run in runs:
        row = run.config["task"], run.method, normaliser_of(run)
        plain = set(run.config.get("objective_settings", {})) <= {"normaliser"}  # the method's row but for that
        kept = (run.path / "responses.csv.gz").exists()
        if row == (task, method, normaliser) and plain and kept and fits(run):
            by_seed.setdefault(run.seed, run)
    return [by_seed[seed] for seed in sorted(by_seed)]


def _planned_runs(
    claim: Claim, records: Records, *normalisers: str, runs_of: Callable[..., list[Run]] = length_runs
) -> list[list[Run]]:
    """The runs of each normaliser on the seeds that all have; NotTestable before the planned seeds are there."""
    pair = claim.about["task"], claim.about["method"]
    return on_common_seeds(claim, *(runs_of(*pair, name, records) for name in normalisers))


def _growths(runs: list[Run], side: str) -> pd.Series:
    """The growth of each run; NotTestable where one has no responses of that side, so that no seed vanishes."""
    growths = pd.Series([growth(run, side) for run in runs])
    if growths.isna().any():
        missing = ", ".join(str(run.seed) for run, empty in zip(runs, growths.isna(), strict=True) if empty)
        raise NotTestable(f"no responses that are {side}, of the base or after training: seed {missing}")
    return growths


def _growth_evidence(claim: Claim, runs: list[Run]) -> Evidence:
    """Whether responses of `kind` grow by the threshold `share` of the base's mean length, or more."""
    side = claim.about["kind"]  # of `growth.KINDS`; neither `Claim.kind` nor `Objective.kind`
    start = grown.base_length(base_problems(runs[0]), side)
    growths = _growths(runs, side)
    verdict = verdict_above_zero(growths - claim.threshold["share"] * start)
    return Evidence(verdict, f"{mean_in_words(growths, 'tokens')}, from {start:.1f}", runs)


@evidence
def responses_grow(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: responses of `kind` grow.

    Statistic: the growth of their mean length, from the base's evaluation to the test after training.
    Threshold `share`: the claim holds where they grow by that share of the base's mean length or more.
    """
    (runs,) = _planned_runs(claim, records, "per_response")
    return _growth_evidence(claim, runs)


@evidence
def responses_do_not_grow(claim: Claim, records: Records) -> Evidence:
    """The contrary of `responses_grow`, with its statistic: holds where they grow by less than the `share`."""
    grow = responses_grow(claim, records)
    return Evidence({HOLDS: FAILS, FAILS: HOLDS}.get(grow.verdict, grow.verdict), grow.effect, grow.runs)


@evidence
def right_responses_grow_little(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: right responses grow far less than wrong ones.

    Statistic: the growths of their mean lengths. Threshold `share`: holds where right ones grow by less than that share
    of what wrong ones grow by.
    """
    (runs,) = _planned_runs(claim, records, "per_response")
    right = _growths(runs, "right")
    wrong = _growths(runs, "wrong")
    effect = f"right {mean_in_words(right, 'tokens')}, wrong {mean_in_words(wrong, 'tokens')}"
    return Evidence(verdict_above_zero(claim.threshold["share"] * wrong - right), effect, runs)


@evidence
def normaliser_causes_growth(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: 1/|o| makes responses of `kind` grow.

    Statistic: the growth of their mean length, with 1/|o| and with a constant in its place, paired by seed.
    Threshold `share`: holds where no more than that share of the growth is left without 1/|o|.
    """
    rows = _planned_runs(claim, records, "per_response", "constant")
    with_it, without = (_growths(runs, claim.about["kind"]) for runs in rows)
    effect = f"with 1/|o| {mean_in_words(with_it, 'tokens')}, constant {mean_in_words(without, 'tokens')}"
    return Evidence(verdict_above_zero(claim.threshold["share"] * with_it - without), effect, sum(rows, []))


@evidence
def growth_survives_other_normalisers(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: responses of `kind` also grow under the token mean and under the constant normaliser.

    Statistic and threshold `share`: as for `responses_grow`, under each. Where the two verdicts differ, the claim holds
    with the condition that the effect names.
    """
    rows = _planned_runs(claim, records, "token_mean", "constant")
    results = dict(zip(("token mean", "constant"), (_growth_evidence(claim, runs) for runs in rows), strict=True))
    verdict = verdicts.verdict_on_all([result.verdict for result in results.values()])
    effect = "; ".join(f"{name} {result.effect}" for name, result in results.items())
    if verdict == verdicts.CONDITIONS:
        effect += "; " + ", ".join(f"{result.verdict} under {name}" for name, result in results.items())
    return Evidence(verdict, effect, sum(rows, []))


def judged_giving_up(claim: Claim, records: Records) -> tuple[list[Run], dict[str, pd.Series]]:
    """The planned runs of all three normalisers, those of 1/|o| first, and the rate of giving up by seed of each.

    Raises NotTestable before the planned seeds are recorded.
    """
    rows = _planned_runs(claim, records, *NORMALISERS, runs_of=giving_up_runs)
    return sum(rows, []), {name: giving_up_rates(runs) for name, runs in zip(NORMALISERS, rows, strict=True)}


def shares_of_fall(runs: list[Run], rates: dict[str, pd.Series]) -> tuple[float, pd.Series]:
    """The base's rate of giving up, and of its fall under 1/|o| the share that is absent with a constant, by seed.

    The base's rate is that of the evaluations before training of the runs with 1/|o|, together. Raises NotTestable
    where giving up did not fall.
    """
    base = giving_up(pd.concat([first_responses(run) for run in runs[: len(rates["per_response"])]])).rate
    try:
        return base, share_of_fall(base, rates["per_response"], rates["constant"])
    except RlinoError as e:
        raise NotTestable(str(e)) from e


def giving_up_ratios(records: Records = RECORDED) -> pd.DataFrame:
    """The log-ratio of giving up with 1/|o| to that without, of every seed of every pair of recorded Countdown runs.

    Columns: comparison, normaliser (the other one), judges (whether the claims are judged by it; else it is
    exploratory: thresholds were chosen after it was known), seed, log_ratio. Pairs are of one method and one cap.
    """
    rows = []
    pairs = [("GRPO without KL", True, lambda name: giving_up_runs("countdown", "grpo_no_kl", name, records))]
    for method in ("grpo", "f_isft_posneg", "f_isft_neg", "f_isft_pos"):
        pairs.append((LABELS[method], False, partial(length_runs, "countdown", method, records=records)))
    caps = records.runs("length-cap")
    for cap in sorted({run.config["max_new_tokens"] for run in caps}):
        of_cap = [run for run in caps if run.config["max_new_tokens"] == cap]
        pairs.append((f"{LABELS['grpo']}, cap {cap}", False, partial(_runs_of, "countdown", "grpo", runs=of_cap)))
    for comparison, judges, runs_of in pairs:
        rates = {name: giving_up_rates(runs_of(name)) for name in NORMALISERS}
        for name in ("constant", "token_mean"):
            ratios = log_ratios(rates["per_response"], rates[name])
            rows += [(comparison, name, judges, seed, ratio) for seed, ratio in ratios.items()]
    return pd.DataFrame(rows, columns=["comparison", "normaliser", "judges", "seed", "log_ratio"])


@evidence
def normaliser_causes_fall_in_giving_up(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: responses give up less often after training because of 1/|o|.

    Statistic: how much of the fall from the base, under 1/|o|, is absent under a constant (`share_of_fall`), paired by
    seed, as the median over seeds. The base's rate is that of the runs' own evaluations before training, together.
    Threshold `share`: holds where the median's interval lies above that share of the fall. A median, because a run that
    ends near 0 has a logarithm without bounds, and because runs may have two modes.
    """
    runs, rates = judged_giving_up(claim, records)
    (with_it, constant, _), medians = _medians(rates)
    base, shares = shares_of_fall(runs, rates)
    absent = "{:.0f} % [{:.0f}, {:.0f}]".format(*(100 * x for x in (shares.median(), *median_interval(shares))))
    effect = (
        f"giving up falls from {100 * base:.1f} % to {with_it} with 1/|o| and to {constant} with a constant, where "
        f"{absent} of the fall is absent, as a logarithm; {medians}"
    )
    return Evidence(verdict_above_zero(shares - claim.threshold["share"], median_interval), effect, runs)


@evidence
def normaliser_lowers_giving_up(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: responses give up less often with 1/|o| than without it.

    Statistic: the log-ratio of the rates of giving up, 1/|o| to a constant, paired by seed, as the median over seeds.
    Threshold `share`: holds where the median's interval says that 1/|o| takes away that share or more. The constant
    decides, because under it the expected drift is 0, and a token mean keeps some of the drift; the ratio to the token
    mean stands beside it, and so do the means.
    """
    runs, rates = judged_giving_up(claim, records)
    (with_it, constant, token_mean), medians = _medians(rates)
    planned = len(rates["per_response"])
    errors = "{:.0f} % of these endings with 1/|o| and {:.0f} % with a constant follow a false yes".format(
        *(100 * false_yes_share(some) for some in (runs[:planned], runs[-planned:]))
    )
    to = {name: log_ratios(rates["per_response"], rates[name]) for name in ("constant", "token_mean")}
    verdict = verdict_above_zero(math.log(1 - claim.threshold["share"]) - to["constant"], median_interval)
    effect = (
        f"giving up {with_it} with 1/|o|, ratio to {constant} with a constant {ratio_in_words(to['constant'])}, to "
        f"{token_mean} with a token mean {ratio_in_words(to['token_mean'])}; {medians}; {errors}"
    )
    return Evidence(verdict, effect, runs)


def _medians(rates: dict[str, pd.Series]) -> tuple[list[str], str]:
    """The median rate of each normaliser in words, and what medians these are."""
    seeds = len(rates["per_response"])
    words = [f"{100 * rates[name].median():.2f} %" for name in ("per_response", "constant", "token_mean")]
    return words, f"medians of {seeds} seeds, their intervals at {100 * median_coverage(seeds):.1f} %"


def _part_evidence(claim: Claim, records: Records, *names: str) -> Evidence:
    """Whether parts of the growth of wrong responses (fields of `Parts`) are the threshold `share` of it or more."""
    (runs,) = _planned_runs(claim, records, "per_response")
    parts = pd.DataFrame([parts_of(run) for run in runs])  # [seeds, parts]
    part, whole = parts[list(names)].sum(axis=1), parts.sum(axis=1)
    effect = f"{mean_in_words(part, 'tokens')}, of {mean_in_words(whole, 'tokens')}"
    if "within" in names and parts["within"].any():  # a task in which a step can be left out
        effect += f"; within problems {mean_in_words(parts['within'], 'tokens')}"
    return Evidence(verdict_above_zero(part - claim.threshold["share"] * whole), effect, runs)


@evidence
def growth_is_selection(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: wrong responses seem to grow because others are wrong than at first.

    Statistic: the parts `selection` (other problems) and `within` (other responses to them: fewer leave a step out) of
    `analysis.growth.decompose`, together. Threshold `share`: holds from that share of the growth on.
    """
    return _part_evidence(claim, records, "selection", "within")


@evidence
def growth_is_truncation(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: wrong responses grow because more of them are truncated at the cap.

    Statistic: the part `truncated` of `analysis.growth.decompose`. Threshold `share`: holds from that share of the
    growth on.
    """
    return _part_evidence(claim, records, "truncated")


@evidence
def longer_responses_buy_accuracy(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: longer searches are where the gain in accuracy comes from.

    Statistic: points of responses that are right and first hit after more attempts than the base makes on average,
    beyond those that the base had already (in each run's own evaluation before training).
    Threshold `share`: holds where these are that share of the gain in accuracy or more.

    The effect names these points; what is hit is the target, after as many attempts as the base of the first run makes
    on average in the evaluation shipped with it, rounded up. Next to them stand the points of the runs' own bases.
    """
    (runs,) = _planned_runs(claim, records, "per_response")
    base = base_problems(runs[0])
    start = base["rate"].mean()
    attempts = math.ceil(base["attempts"].mean())
    gain = pd.Series([100 * (final_responses(run)["correct"].mean() - start) for run in runs])
    before = pd.Series([_late_hits(first_responses(run), attempts) for run in runs])
    bought = pd.Series([_late_hits(final_responses(run), attempts) for run in runs]) - before
    effect = f"{mean_in_words(bought)} more hit after attempt {attempts} than the base's {before.mean():.1f}"
    effect = f"{effect}, of a gain of {mean_in_words(gain)}"
    return Evidence(verdict_above_zero(bought - claim.threshold["share"] * gain), effect, runs)


def _late_hits(responses: pd.DataFrame, attempts: int) -> float:
    """Points of responses that are right and hit the target only after so many attempts."""
    return 100 * float((responses["correct"] & (responses["first_hit"] > attempts)).mean())
