"""The recorded runs at a glance, as the README and the chapters show them: a figure and tables in Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rlino_lib.analysis.statistics import final_accuracy, t_interval
from rlino_lib.analysis.tables import spread
from rlino_lib.errors import RlinoError
from rlino_lib.figures.ablation import TASKS
from rlino_lib.figures.curves import figure_readme
from rlino_lib.figures.style import in_order, label, style
from rlino_lib.folders import read_json
from rlino_lib.paths import DEFAULT_BASE
from rlino_lib.records.runs import Run, metrics_frame

BASE = Path(DEFAULT_BASE)
LENGTHS = ("length/correct", "length/incorrect")
OUTCOMES = ("accuracy", "format_ok", "clipped_ratio", *LENGTHS)


def markdown_table(rows: Iterable[Sequence[Any]], numbers: bool = True) -> str:
    """Rows as a Markdown table, the first as its head; columns after the first stand right where they are numbers."""
    head, *body = [[str(cell).replace("|", r"\|") for cell in row] for row in rows]
    lines = [head, [":---"] + ["---:" if numbers else ":---"] * (len(head) - 1), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def say(text: str) -> None:
    """Print a computed sentence, broken into lines."""
    print(textwrap.fill(text, 110))


def outcomes(runs: Sequence[Run], base: Path = BASE) -> pd.DataFrame:
    """How the base (first row, method "base") and each run do on held-out problems.

    Columns: method, seed; accuracy, format_ok and clipped_ratio (shares); length/correct and length/incorrect (tokens,
    NaN where there is no such response). Runs are judged by their test at the end, and the base by its own evaluation
    on the same split. Raises RlinoError where there are no runs, where one has no test, and where they did not start
    from the base in `base`.
    """
    if not runs:
        raise RlinoError("there are no recorded runs here: `make runs` makes them")
    if untested := [run.name for run in runs if "test" not in (run.summary or {})]:
        raise RlinoError(f"{', '.join(untested)}: no test after training, which --test-samples asks for")
    evaluation = evaluation_of(base)
    if {run.config["weights_sha256_16"] for run in runs} != {evaluation["asked"]["weights_sha256_16"]}:
        raise RlinoError(f"the runs did not start from the weights that {base / 'evaluation.json'} is about")
    results = [("base", pd.NA, evaluation["found"]), *((run.method, run.seed, run.summary["test"]) for run in runs)]
    rows = [{"method": method, "seed": seed, "accuracy": own["pass@1"]["value"]} | {c: own[c] for c in OUTCOMES[1:]}
            for method, seed, own in results]  # fmt: skip
    return pd.DataFrame(rows).astype({"seed": "Int64"} | dict.fromkeys(OUTCOMES, float))


def evaluation_of(base: Path) -> dict[str, Any]:
    """What `rlino evaluate` recorded of a base: its settings under "asked", its results under "found"."""
    return read_json(base / "evaluation.json", needs="found")


def measured(runs: Sequence[Run], base: Path = BASE) -> str:
    """On what, and with how many samples, `outcomes` was measured, in words."""
    config = runs[0].config
    test = runs[0].summary["test"]
    samples = f"{test['samples']} (the base: {evaluation_of(base)['found']['samples']})"
    how = f"{test['problems']:,} problems of the test split, samples per problem: {samples}"
    how += f"; temperature {config['temperature']:g}; {config['steps']} optimiser steps"
    return f"Measured on {how}. Curves by step are on the first {config['eval_problems']:,} of these problems."


def results_table(frame: pd.DataFrame) -> str:
    """`outcomes` as a Markdown table, one row per method: mean [lowest, highest seed]."""
    head = ("method", "seeds", "right, %", "length of right, tokens", "length of wrong, tokens", "truncated, %")
    rows: list[tuple] = [head]
    for method in in_order(frame["method"]):
        own = frame[frame["method"] == method]
        cells = [own["accuracy"] * 100, *(own[name] for name in LENGTHS), own["clipped_ratio"] * 100]
        rows.append((label(method), "–" if method == "base" else len(own), *map(spread, cells)))
    return markdown_table(rows)


def ends_table(
    runs: Mapping[str, Mapping[int, Run]], reference: str, columns: Mapping[str, Callable[[Run], float]]
) -> str:
    """Where kinds of runs end, {kind in words: {seed: run}}, and their differences from one of them, in Markdown.

    Test accuracy in points; then `columns`, means over seeds of a number of a run, by title; a dash where a run has
    none, which is NaN. Differences are means over the seeds that both have, with intervals of 95 %.
    """
    rows = [["", "seeds", "right, test, %", f"less {reference}, points, 95 %", *columns]]
    for kind, by_seed in runs.items():
        common = sorted(set(by_seed) & set(runs[reference]))
        gaps = [final_accuracy(by_seed[seed]) - final_accuracy(runs[reference][seed]) for seed in common]
        gap = f"{np.mean(gaps):+.1f} [{{:+.1f}}, {{:+.1f}}]".format(*t_interval(gaps)) if kind != reference else "–"
        ends = [np.mean([number(run) for run in by_seed.values()]) for number in columns.values()]
        right = np.mean([final_accuracy(run) for run in by_seed.values()])
        rows.append([kind, str(len(by_seed)), f"{right:.1f}", gap, *("–" if np.isnan(x) else f"{x:.3g}" for x in ends)])
    return markdown_table(rows)


def recorded_figure(runs: Sequence[Run]) -> Figure:
    """The recorded runs at a glance: share right and lengths by step, a column for each method."""
    style()
    figure = figure_readme(metrics_frame(runs))
    config = runs[0].config
    split = config["eval_split"]
    figure.axes[0].set_ylabel(f"share right, {split} split")
    task = TASKS.get(config["task"], config["task"])
    seeds = len({run.seed for run in runs})
    rates = sorted({run.config["lr"] for run in runs})
    rate = "every method at GRPO's learning rate" if len(rates) == 1 else "learning rates"
    words = (
        f"{task}: {config['eval_problems']:,} problems of the {split} split, {seeds} seed{'s' * (seeds > 1)} a method"
    )
    words += f"\n{rate} of {', '.join(f'{value:g}' for value in rates)}"
    figure.suptitle(words, fontsize="large", fontweight="bold")
    return figure
