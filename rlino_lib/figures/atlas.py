"""The atlas as tables in Markdown, for chapter 11 and for its page on the site; all text in them is escaped."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import pandas as pd

from rlino_lib.analysis.atlas import atlas, compared_runs, results
from rlino_lib.analysis.systems import System, read_systems
from rlino_lib.figures.ablation import TASKS
from rlino_lib.figures.recorded import markdown_table
from rlino_lib.figures.style import label
from rlino_lib.training.config import RUN_DEFAULTS

RIGHT, GROUP, LENGTH, CAP, RHO = 2, 8, 40, 80, 1.5  # the group that the weights are of, and the ratio off policy


def plain(text: str) -> str:
    """Any text as Markdown that shows it as it is, in one line; a bar is left to `markdown_table`."""
    return re.sub(r"([!-/:-@\[-`{}~])", r"\\\1", " ".join(text.split()))


def signed(value: float) -> str:
    """A weight with its sign and three digits: `−0.54`; a dash where there is none."""
    return "–" if math.isnan(value) else f"{value:+.3g}".replace("-", "−") if value else "0"


def recorded_results() -> pd.DataFrame:
    """`analysis.atlas.results` of the runs that the book compares."""
    return results(compared_runs(), RUN_DEFAULTS)


def atlas_table(frame: pd.DataFrame | None = None, ends: pd.DataFrame | None = None) -> str:
    """Every method in a row: its weights, what else they read, what it drops, where its runs ended and their cost."""
    frame = atlas(RIGHT, GROUP, LENGTH, RHO, CAP) if frame is None else frame
    ends = recorded_results() if ends is None else ends
    tasks = [task for task in TASKS if task in set(ends["task"])]
    head = [
        "method",
        "w⁺",
        "w⁻",
        f"w⁺, ρ = {RHO:g}",
        f"w⁻, ρ = {RHO:g}",
        "what else w reads",
        "verdicts, lengths and ratios alone",
        "drops",
    ]
    head += [f"{TASKS[task]}, {what}" for task in tasks for what in ("right, %", "tokens, millions")]
    rows: list[Sequence[str]] = [head]
    for key, row in frame.iterrows():
        name = plain(str(key))
        weights = [signed(row[column]) for column in ("right", "wrong", "right_off", "wrong_off")]
        batch = row["batch_facts"] and f"of the batch: {row['batch_facts']}"
        words = "; ".join(filter(None, (row["reads"], batch))) or "nothing"
        cells = [name if label(str(key)) == key else f"{plain(label(str(key)))} ({name})", *weights, plain(words)]
        cells += ["yes" if row["in_name_only"] else "no", plain(row["drops"]) or "–"]
        own = ends[ends["method"] == key]
        for task in tasks:
            cells += _ended(own[own["task"] == task])
        rows.append(cells)
    return markdown_table(rows, numbers=False)


def _ended(sets: pd.DataFrame) -> tuple[str, str]:
    """Where the runs of a method ended on a task, one entry a set of settings, and what one of them cost."""
    texts, tokens = [], []
    for row in sets.itertuples():
        own = row.settings and f", with {plain(row.settings)}"
        texts.append(f"{row.mean:.1f} \\[{row.low:.1f}, {row.high:.1f}\\], {row.seeds} seeds{own}")
        tokens.append(f"{row.tokens:.2f}")
    return "; ".join(texts) or "–", "; ".join(tokens) or "–"


def compared_words(ends: pd.DataFrame | None = None) -> str:
    """On which bases and with how many samples the results are, in words."""
    ends = recorded_results() if ends is None else ends
    texts = []
    for task, own in ends.groupby("task", sort=False):
        first = own.iloc[0]
        texts.append(
            f"{TASKS.get(str(task), str(task))}, from the base {plain(first['base'])}: {plain(first['batch'])}"
        )
    words = (
        "The runs of a task start from one base, and their policies learn from equally many responses (steps × "
        "problems × responses, without continuations)"
    )
    return f"{words}. {'. '.join(texts)}. What else a run has, its entry says."


def formulas_table(frame: pd.DataFrame | None = None) -> str:
    """Every method's formula, as the library prints it, and its source."""
    frame = atlas(RIGHT, GROUP, LENGTH, RHO, CAP) if frame is None else frame
    rows = [(plain(str(key)), plain(row["formula"]), plain(row["source"])) for key, row in frame.iterrows()]
    return markdown_table([("method", "formula", "source"), *rows], numbers=False)


def systems_table(files: Mapping[str, str], systems: Sequence[System] | None = None) -> str:
    """The systems of data/systems.toml, each with its chapter; `files` has those there are, by number."""
    facts = "what it changes", "command here", "the system drops", "what of it has no place here"
    rows: list[tuple[str, ...]] = [("system", *facts, "discussed in")]
    for system in read_systems() if systems is None else systems:
        paper = f"{plain(system.name)} ([{system.arxiv}](https://arxiv.org/abs/{system.arxiv}))"
        keys = [("", system.methods), ("reward ", system.rewards), ("on ", system.tasks)]
        trained = "; ".join(what + plain(" + ".join(names)) for what, names in keys if names) if system.methods else "–"
        place = "not yet"
        if system.chapter in files:
            place = f"[{system.chapter}: {plain(system.heading)}]({files[system.chapter]}#{system.anchor})"
        dropped = plain(", ".join(system.drops)) or "–"
        rows.append((paper, plain(system.changes), trained, dropped, plain(system.beyond) or "–", place))
    return markdown_table(rows, numbers=False)


def group_words() -> str:
    """Of which group and on which scale the weights are, in a sentence."""
    return (
        f"The batch is one group of {GROUP} responses, {RIGHT} of them right, of {LENGTH} tokens each, with a cap L of "
        f"{CAP}. The ratio ρ of all tokens is 1, or {RHO:g}. Weights are multiplied by the number of responses and by "
        "their length, so that those of GRPO without KL are its advantages; a loss of pairs has one pair here."
    )


def parts(files: Mapping[str, str]) -> dict[str, str]:
    """What the page of the atlas is filled with, by the names of the places; `files` as `systems_table` has them."""
    frame, ends = atlas(RIGHT, GROUP, LENGTH, RHO, CAP), recorded_results()
    return {
        "group": group_words(), "compared": compared_words(ends), "methods": atlas_table(frame, ends),
        "systems": systems_table(files), "formulas": formulas_table(frame),
    }  # fmt: skip
