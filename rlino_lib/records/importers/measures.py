"""Numbers of imported responses: a row of metrics for each step, and what an evaluation comes to.

Lengths are in tokens where the source says them, and in characters under names of their own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from rlino_lib.records.importers.fields import Row

UNITS = ("length", "characters")  # of lengths: tokens, where they are known, and characters
SIDES = ("correct", "incorrect", "incorrect_unclipped")
# Of the metrics of training samples, those that an evaluation has too, and their names there.
EVALUATED = {name: f"eval/{name.removeprefix('completions/')}" for name in (
    "accuracy", "format_ok", "completions/mean_length", "completions/clipped_ratio",
    *(f"{unit}/{side}" for unit in UNITS for side in SIDES),
)}  # fmt: skip


def grouped(rows: Iterable[Row], name: str) -> dict[Any, list[Row]]:
    """The responses by what they have under a name: a step, a problem, a group."""
    groups = defaultdict(list)
    for row in rows:
        groups[row[name]].append(row)
    return groups


def share(rows: Sequence[Row], name: str) -> float | None:
    """The share of responses with a property; None unless it is known of each."""
    known = [value for row in rows if (value := row.get(name)) is not None]
    return fmean(known) if rows and len(known) == len(rows) else None


def measured(rows: Sequence[Row]) -> dict[str, float | int | None]:
    """The metrics of a step's responses that are known, under their names in the metrics file."""
    numbers: dict[str, float | int | None] = {
        "reward": share(rows, "reward"), "accuracy": share(rows, "correct"), "format_ok": share(rows, "format_ok"),
        "completions/mean_length": share(rows, "length"), "completions/clipped_ratio": share(rows, "clipped"),
        "characters/mean": share(rows, "characters"), "frac_reward_zero_std": _flat_groups(rows),
    }  # fmt: skip
    if numbers["accuracy"] is not None:
        right, wrong = ([row for row in rows if row["correct"] == side] for side in (True, False))
        sides = {"correct": right, "incorrect": wrong}
        if numbers["completions/clipped_ratio"] is not None:
            sides["incorrect_unclipped"] = [row for row in wrong if not row["clipped"]]
        numbers |= {f"{unit}/{name}": share(side, unit) for unit in UNITS for name, side in sides.items()}
        numbers |= {"n_correct": len(right), "n_incorrect": len(wrong)}
    return {name: value for name, value in numbers.items() if value is not None}


def _flat_groups(rows: Sequence[Row]) -> float | None:
    """The share of groups with equal rewards, where there are groups and each reward is known."""
    groups = [[row.get("reward") for row in group] for group in grouped(rows, "group").values()]
    if any(None in rewards for rewards in groups) or min(map(len, groups), default=0) < 2:
        return None
    return fmean(len(set(rewards)) == 1 for rewards in groups)


def tested(rows: Sequence[Row]) -> dict[str, Any] | None:
    """The summary of a test, as `rlino evaluate` has it, without intervals; None unless every response is graded."""
    numbers = measured(rows)
    if "accuracy" not in numbers:
        return None
    problems = [[row["correct"] for row in samples] for samples in grouped(rows, "problem_id").values()]
    sizes = {len(samples) for samples in problems}
    lengths = [f"{unit}/{side}" for unit in UNITS for side in SIDES[:2]]
    names = ["format_ok", "completions/clipped_ratio", "completions/mean_length", *lengths]
    return {
        "problems": len(problems),
        "samples": sizes.pop() if len(sizes) == 1 else None,
        "pass@1": {"value": fmean(map(fmean, problems))},
        **{name.removeprefix("completions/"): numbers.get(name) for name in names},
    }


def metrics_rows(
    logged: Mapping[int, Mapping[str, float]], training: Iterable[Row], held_out: Iterable[Row]
) -> list[dict[str, Any]]:
    """A row for each step, in order: what was logged, and where that is silent what the responses come to."""
    steps: dict[int, dict[str, Any]] = {step: dict(columns) for step, columns in logged.items()}
    for step, rows in grouped(training, "step").items():
        steps[step] = measured(rows) | steps.get(step, {})
    for step, rows in grouped(held_out, "step").items():
        numbers = measured(rows)
        evaluation = {name: numbers[metric] for metric, name in EVALUATED.items() if metric in numbers}
        steps[step] = evaluation | steps.get(step, {})
    return [steps[step] | {"step": step} for step in sorted(steps)]
