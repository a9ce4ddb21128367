"""Numbers of imported responses: a row of metrics for each step, and what an evaluation comes to.

Lengths are in tokens where the source says them, and in characters under names of their own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from rlino_lib.records.importers.fields import Row

LENGTHS = {"length": "length", "characters": "characters"}  # where metrics have the lengths, by unit
KINDS = ("correct", "incorrect", "incorrect_unclipped")
# Of the metrics of training samples, those that an evaluation has too, and their names there.
EVALUATED = {name: f"eval/{name.removeprefix('completions/')}" for name in (
    "accuracy", "format_ok", "completions/mean_length", "completions/clipped_ratio",
    *(f"{unit}/{kind}" for unit in LENGTHS for kind in KINDS),
)}  # fmt: skip


def by_step(rows: Iterable[Row]) -> dict[int, list[Row]]:
    """The responses of each step."""
    steps: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        steps[row["step"]].append(row)
    return steps


def share(rows: Sequence[Row], name: str) -> float | None:
    """The share of responses with a property; None unless it is known of each."""
    known = [value for row in rows if (value := row.get(name)) is not None]
    return fmean(known) if rows and len(known) == len(rows) else None


def measured(rows: Sequence[Row]) -> dict[str, float | int | None]:
    """The metrics of a step's responses that are known, under their names in the metrics file."""
    sides = {"correct": [r for r in rows if r.get("correct")], "incorrect": [r for r in rows if not r.get("correct")]}
    graded = share(rows, "correct") is not None
    numbers: dict[str, float | int | None] = {
        "reward": share(rows, "reward"), "accuracy": share(rows, "correct"), "format_ok": share(rows, "format_ok"),
        "completions/mean_length": share(rows, "length"), "completions/clipped_ratio": share(rows, "clipped"),
        "characters/mean": share(rows, "characters"), "frac_reward_zero_std": _flat_groups(rows),
    }  # fmt: skip
    if graded:
        if share(rows, "clipped") is not None:
            sides["incorrect_unclipped"] = [row for row in sides["incorrect"] if not row["clipped"]]
        numbers |= {f"{unit}/{kind}": share(side, unit) for unit in LENGTHS for kind, side in sides.items()}
        numbers |= {"n_correct": len(sides["correct"]), "n_incorrect": len(sides["incorrect"])}
    return {name: value for name, value in numbers.items() if value is not None}


def _flat_groups(rows: Sequence[Row]) -> float | None:
    """The share of groups with equal rewards, where there are groups and each reward is known."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["group"]].append(row.get("reward"))
    if any(None in rewards for rewards in groups.values()) or min(map(len, groups.values()), default=0) < 2:
        return None
    return fmean(len(set(rewards)) == 1 for rewards in groups.values())


def tested(rows: Sequence[Row]) -> dict[str, Any] | None:
    """The summary of a test, as `rlino evaluate` has it, without intervals; None unless every response is graded."""
    numbers = measured(rows)
    if "accuracy" not in numbers:
        return None
    problems: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        problems[row["problem_id"]].append(row["correct"])
    sizes = {len(samples) for samples in problems.values()}
    names = {"format_ok": "format_ok", "clipped_ratio": "completions/clipped_ratio"}
    names |= {"mean_length": "completions/mean_length"} | {f"{u}/{k}": f"{u}/{k}" for u in LENGTHS for k in KINDS[:2]}
    return {
        "problems": len(problems),
        "samples": sizes.pop() if len(sizes) == 1 else None,
        "pass@1": {"value": fmean(map(fmean, problems.values()))},
        **{name: numbers.get(metric) for name, metric in names.items()},
    }


def metrics_rows(
    logged: Mapping[int, Mapping[str, float]], training: Iterable[Row], held_out: Iterable[Row]
) -> list[dict[str, Any]]:
    """A row for each step, in order: what was logged, and where that is silent what the responses come to."""
    steps: dict[int, dict[str, Any]] = {step: dict(columns) for step, columns in logged.items()}
    for step, rows in by_step(training).items():
        steps[step] = measured(rows) | steps.get(step, {})
    for step, rows in by_step(held_out).items():
        numbers = measured(rows)
        evaluation = {name: numbers[metric] for metric, name in EVALUATED.items() if metric in numbers}
        steps[step] = evaluation | steps.get(step, {})
    return [{"step": step} | steps[step] | {"step": step} for step in sorted(steps)]
