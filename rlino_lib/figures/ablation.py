"""The ablation of chapters 08 and 08c in tables and sentences: three normalisers, four methods, two tasks, caps."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from rlino_lib.analysis import growth as grown
from rlino_lib.analysis.growth import KINDS, Parts, final_responses, growth, parts_of
from rlino_lib.analysis.statistics import curve, final_accuracy
from rlino_lib.analysis.tables import common, in_brackets, mean_interval, means_of, pooled
from rlino_lib.claims.ledger import RECORDED, Records
from rlino_lib.claims.length import length_runs, normaliser_of
from rlino_lib.exact.length_toy import NORMALISERS, LengthToy, drift, variant
from rlino_lib.figures.length import NORMALISER_LOOKS, PARTS
from rlino_lib.figures.style import Look, label, look
from rlino_lib.methods.catalogue import LABELS
from rlino_lib.records.runs import Run

METHODS = ("grpo", "f_isft_posneg", "f_isft_pos", "f_isft_neg")
TASKS = {"countdown": "Countdown", "word_problems": "word problems"}
Ablation = Mapping[tuple[str, str, str], Sequence[Run]]  # by task, method and normaliser


def recorded_ablation(records: Records = RECORDED) -> dict[tuple[str, str, str], list[Run]]:
    """The recorded runs of every task, method and normaliser, a list by seed for each."""
    keys = [(task, method, name) for task in TASKS for method in METHODS for name in NORMALISERS]
    return {key: length_runs(*key, records) for key in keys}


def seeds_table(runs: Ablation) -> pd.DataFrame:
    """How many seeds each task, method and normaliser has."""
    counts = pd.Series({key: len(own) for key, own in runs.items()}).unstack()
    counts.index = pd.MultiIndex.from_tuples([(TASKS[t], label(m)) for t, m in counts.index], names=["task", "method"])
    return counts[list(NORMALISERS)].rename(columns=NORMALISERS).rename_axis(columns="seeds")


# --- growth and the difference that the normaliser makes -------------------------------------------------------------


def growths(runs: Ablation) -> pd.DataFrame:
    """The growth of each kind of responses in each run, tokens: task, method, normaliser, responses, seed, growth."""
    rows = [(*key, kind, run.seed, growth(run, kind)) for key, own in runs.items() for run in own for kind in KINDS]
    frame = pd.DataFrame(rows, columns=["task", "method", "normaliser", "responses", "seed", "growth"])
    return frame.dropna(subset="growth").reset_index(drop=True)


def growth_gaps(frame: pd.DataFrame) -> pd.DataFrame:
    """What 1/|o| adds to the growths: task, method, responses, the other normaliser, and `gaps`, a series by seed."""
    rows = []
    for key, part in frame.groupby(["task", "method", "responses"], sort=False):
        by = part.pivot(index="seed", columns="normaliser", values="growth")
        gaps = {other: (by["per_response"] - by[other]).dropna() for other in ("token_mean", "constant")}
        rows += [(*key, other, own) for other, own in gaps.items() if len(own) > 1]
    return pd.DataFrame(rows, columns=["task", "method", "responses", "1/|o| less", "gaps"])


def gaps_table(gaps: pd.DataFrame) -> pd.DataFrame:
    """`growth_gaps` as a table of means with their intervals, in tokens."""
    named = gaps.assign(tokens=gaps["gaps"].map(in_brackets))
    named = named.replace({"task": TASKS, "method": LABELS, "1/|o| less": NORMALISERS})
    return named.pivot(index=["task", "method"], columns=["responses", "1/|o| less"], values="tokens")


def gaps_in_words(gaps: pd.DataFrame) -> str:
    """How many differences have an interval without 0, and which is the largest."""
    ends = pd.DataFrame(gaps["gaps"].map(mean_interval).tolist(), index=gaps.index)  # mean, low, high
    clear = ends[1] * ends[2] > 0
    top = gaps.loc[ends[0].abs().idxmax()]
    return (
        f"{clear.sum()} of {len(gaps)} differences have an interval that excludes 0. The largest is "
        f"{in_brackets(top['gaps'])} tokens ({label(top['method'])} on {TASKS[top['task']]}, {top['responses']}, "
        f"1/|o| less {NORMALISERS[top['1/|o| less']]})."
    )


def predicted_signs(gaps: pd.DataFrame) -> pd.DataFrame:
    """Where the plain toy predicts a sign of 1/|o| less constant: the sign, the difference, and how they compare."""
    rows = []
    for row in gaps[(gaps["1/|o| less"] == "constant") & (gaps["responses"] != "wrong")].itertuples():
        side = row.responses.split(",")[0]
        method = "grpo_no_kl" if row.method == "grpo" else row.method  # the toy has no base to be held to
        push = drift(LengthToy(), variant(method, "per_response")).table["drift"][side]
        if abs(push) < 1e-12:
            continue
        _, low, high = mean_interval(row.gaps)
        outcome = "open" if low <= 0 <= high else "as predicted" if low * push > 0 else "opposite"
        word = "longer" if push > 0 else "shorter"
        rows.append((TASKS[row.task], label(row.method), row.responses, word, in_brackets(row.gaps), outcome))
    heads = ["task", "method", "responses", "1/|o| should make them", "difference, tokens", "so"]
    return pd.DataFrame(rows, columns=heads).set_index(["task", "method"])


# --- caps ------------------------------------------------------------------------------------------------------------


def by_cap(runs: Iterable[Run]) -> pd.DataFrame:
    """A row for each run: cap, normaliser, seed, its means after training and the mean length of wrong ones before."""
    rows = []
    for run in runs:
        start = run.metrics["eval/length/incorrect"][run.metrics["eval/accuracy"].notna()].iloc[0]
        key = {"cap": run.config["max_new_tokens"], "normaliser": NORMALISERS[normaliser_of(run)], "seed": run.seed}
        rows.append(key | means_of(run) | {"wrong at the start": start})
    return pd.DataFrame(rows)


def cap_effects(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """What 1/|o| does at each cap, from a frame of `by_cap`: a table, and how much growth is left with a constant."""
    rows = {}
    left = []
    for cap, part in frame.groupby("cap"):
        sides = (part[part["normaliser"] == NORMALISERS[n]].set_index("seed") for n in ("per_response", "constant"))
        one, other = common(*sides)
        gains = [side["wrong"] - side["wrong at the start"] for side in (one, other)]
        left.append(f"{100 * gains[1].mean() / gains[0].mean():.0f} % at cap {cap}")
        less = [in_brackets(one[c] - other[c]) for c in ("wrong", "wrong, not truncated", "right, %")]
        rows[cap] = [len(one), *map(in_brackets, gains), *less]
    heads = ["seeds", "growth with 1/|o|", "with a constant", "1/|o| less constant: wrong", "wrong, not truncated"]
    table = pd.DataFrame.from_dict(rows, "index", columns=[*heads, "right, points"]).rename_axis("cap")
    return table, f"Of the growth with 1/|o|, left with a constant: {', '.join(left)}."


# --- attempts --------------------------------------------------------------------------------------------------------

_COUNTS = {
    "attempts": "attempts", "tokens_per_attempt": "tokens per attempt", "repeats_order": "repeated attempts",
    "attempts_after_hit": "attempts after the first hit", "tokens_after_hit": "tokens after it",
    "overlooked": "hits called no", "false_yes": "misses called yes", "filler": "tokens that are no attempt",
}  # fmt: skip


def attempts_table(frames: Mapping[str, Sequence[pd.DataFrame]]) -> pd.DataFrame:
    """Countdown responses as searches, means over the frames (runs) of each name."""
    means = {name: pd.DataFrame(map(grown.attempt_counts, own)).mean() for name, own in frames.items()}
    return pd.DataFrame(means).T[list(_COUNTS)].rename(columns=_COUNTS)


def searches(base: pd.DataFrame, runs: Ablation, methods: Sequence[str] = METHODS) -> dict[str, list[pd.DataFrame]]:
    """The responses of the base, and of the ends of the runs on Countdown, by name: "GRPO, 1/|o|", a frame a run."""
    frames = {"base": [base]}
    for method, (name, text) in itertools.product(methods, NORMALISERS.items()):
        if own := runs["countdown", method, name]:
            frames[f"{label(method)}, {text}"] = [final_responses(run) for run in own]
    return frames


def attempts_by_step(runs: Iterable[Run]) -> pd.DataFrame:
    """Attempts per response and the share of them that is repeated, at each evaluation, as means over runs."""
    rows = []
    for run in runs:
        for step, part in run.responses[~run.responses["final"]].groupby("step"):
            repeated = part["repeats_order"].sum() / part["attempts"].sum()
            rows.append((step, part["attempts"].mean(), repeated))
    return pd.DataFrame(rows, columns=["step", "attempts", "repeated"]).groupby("step").mean()


# --- parts of the growth ---------------------------------------------------------------------------------------------


def mean_parts(runs: Ablation, task: str, methods: Sequence[str]) -> dict[str, Parts]:
    """The parts of the growth of wrong responses, a mean over the runs of each method and normaliser, by name."""
    bars = {}
    for method, (name, text) in itertools.product(methods, NORMALISERS.items()):
        own = map(parts_of, runs[task, method, name])
        bars[f"{label(method)}, {text}"] = Parts(*map(statistics.mean, zip(*own, strict=True)))
    return bars


def largest_gap(runs: Iterable[Run]) -> float:
    """By how much the parts of a run miss its growth at most, in tokens: rounding errors."""
    return max(abs(parts_of(run).total - growth(run, "wrong")) for run in runs)


def parts_by_seed(runs: Sequence[Run]) -> pd.DataFrame:
    """The parts of the growth of wrong responses, the growth of both kinds (tokens) and accuracy (%): a row a seed."""
    rows = {}
    for run in runs:
        parts = parts_of(run)
        rows[run.seed] = {f"wrong ones: {text}": getattr(parts, name) for name, (text, *_) in PARTS.items()}
        rows[run.seed] |= {"wrong ones: growth": parts.total, "right ones: growth": growth(run, "right")}
        rows[run.seed] |= {"right, %": final_accuracy(run)}
    return pd.DataFrame.from_dict(rows, "index")


def parts_table(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """`parts_by_seed` of runs with 1/|o| beside that of runs with a constant, on common seeds, and what 1/|o| does."""
    one, other = common(one, other)
    rows = {}
    for name in one:
        sign = "" if "%" in name else "+"
        rows[name] = in_brackets(one[name], sign), in_brackets(other[name], sign), in_brackets(one[name] - other[name])
    return pd.DataFrame.from_dict(rows, "index", columns=["with 1/|o|", "with a constant", "what 1/|o| does"])


def parts_in_words(frame: pd.DataFrame) -> str:
    """The shares of the growth of wrong responses, from a frame of `parts_by_seed`."""
    whole = frame["wrong ones: growth"].mean()
    names = [name for name in frame if name.startswith("wrong ones") and not name.endswith("growth")]
    return ", ".join(f"{name.partition(': ')[2]} {100 * frame[name].mean() / whole:.0f} %" for name in names)


def left_out_in_words(runs: Sequence[Run]) -> str:
    """How many wrong responses to the word problems leave a step out, of the base and after training, and lengths."""
    base = grown.base_problems(runs[0])
    wrong = grown.of_kind(pooled(runs), "wrong")
    short = grown.left_out(wrong, base)
    return (
        f"a step is left out in {100 * base['short'].sum() / base['wrong'].sum():.0f} % of the base's wrong responses "
        f"({base['tokens_short'].sum() / base['short'].sum():.1f} tokens each) and in {100 * short.mean():.0f} % of "
        f"those after training ({wrong.loc[short, 'length'].mean():.1f} tokens; the others "
        f"{wrong.loc[~short, 'length'].mean():.1f})"
    )


# --- rates and remedies ----------------------------------------------------------------------------------------------

_REMEDIES = {
    "dr_grpo": "Dr. GRPO", "overlong": "soft penalty near the cap", "length_cost": "cost of length",
    "whole": "without truncated responses", "shortest": "the four shortest",
}  # fmt: skip
NO_REMEDY = "1/|o|, nothing else"


def rates_table(runs: Iterable[Run]) -> pd.DataFrame:
    """Accuracy on the validation problems at the last evaluation, %: normaliser and seed by learning rate."""
    rows = [(NORMALISERS[normaliser_of(r)], r.config["lr"], r.seed, curve(r)["accuracy"].iloc[-1]) for r in runs]
    frame = pd.DataFrame(rows, columns=["normaliser", "rate", "seed", "right, %"])
    return frame.pivot(index=["normaliser", "seed"], columns="rate", values="right, %")


def remedies_table(records: Records = RECORDED) -> pd.DataFrame:
    """Accuracy, lengths, truncation and attempts under each remedy on Countdown, as means over seeds."""
    remedies = records.runs("length-remedies")
    seeds = {run.seed for run in remedies}
    plain = length_runs("countdown", "grpo_no_kl", records=records)
    groups = {NO_REMEDY: [run for run in plain if run.seed in seeds]}
    for run in remedies:
        groups.setdefault(_REMEDIES[run.path.name.rsplit("-", 1)[0]], []).append(run)
    rows = [{"seeds": len(runs), **pd.DataFrame(map(means_of, runs)).mean()} for runs in groups.values()]
    table = pd.DataFrame(rows, index=list(groups)).rename(columns={"right": "right ones", "wrong": "wrong ones"})
    return table[["seeds", "right, %", "length", "right ones", "wrong ones", "truncated, %", "attempts"]]


# --- lengths behind a cap --------------------------------------------------------------------------------------------


def censored_lengths(base: pd.DataFrame, runs: Ablation, others: Sequence[Run]) -> dict[str, dict]:
    """Two panels of `survival_figure`: GRPO on Countdown under each normaliser beside the base, and at `others`' caps.

    A name that starts with _ is one that the legend has already.
    """
    first = {"base": _still_going(base, look("base"))}
    second = {}
    caps = sorted({run.config["max_new_tokens"] for run in others})
    for name, text in NORMALISERS.items():
        form = NORMALISER_LOOKS[name]
        first[f"GRPO, {text}"] = _still_going(pooled(runs["countdown", "grpo", name]), form)
        for cap in caps:
            if own := [run for run in others if (run.config["max_new_tokens"], normaliser_of(run)) == (cap, name)]:
                key = f"GRPO, {text}" if cap == caps[0] else f"_{name} {cap}"
                second[key] = _still_going(pooled(own), form)
    cap = runs["countdown", "grpo", "per_response"][0].config["max_new_tokens"]
    return {f"cap {cap}, three normalisers": first, f"caps {', '.join(map(str, caps))}": second}


def _still_going(responses: pd.DataFrame, form: Look) -> tuple[pd.DataFrame, Look]:
    return grown.survival(responses["length"], ~responses["clipped"]), form
