"""What the repository says of its records: the bases' model cards, the README's figure and its computed tables.

`python -m tools.report` writes them again, after a new base or new runs.
"""

from __future__ import annotations

import re
import sys
import textwrap
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from rlino_lib.claims.judge import judge_all, ledger_rows
from rlino_lib.cli.terminal import run_program
from rlino_lib.errors import RlinoError
from rlino_lib.figures.curves import LABELS, figure_readme, label, style
from rlino_lib.folders import read_json, write_text
from rlino_lib.paths import BASES, DEFAULT_BASE, REPO
from rlino_lib.records.runs import Run, list_runs, metrics_frame
from rlino_lib.tasks import get_task
from rlino_lib.tasks.word_problems.task import LARGEST
from rlino_lib.training.config import Recipe

GROUP = "countdown"  # the recorded methods that the README shows
FIGURE = REPO / "data" / "figures" / "recorded_runs.png"
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


def tested(runs: Sequence[Run]) -> bool:
    """Whether every run was evaluated once more on the whole test split when training had ended."""
    return all("test" in (run.summary or {}) for run in runs)


def outcomes(runs: Sequence[Run], base: Path = BASE) -> pd.DataFrame:
    """How the base (first row, method "base") and each run do on held-out problems.

    Columns: method, seed; accuracy, format_ok and clipped_ratio (shares); length/correct and length/incorrect (tokens,
    NaN where there is no such response). Runs are judged by their test at the end, and the base by its own evaluation
    on the same split; where a run has no such test, all are judged by evaluations during training: the last, and that
    of step 0.
    Raises RlinoError where there are no runs, or they did not start from the base in `base`.
    """
    if not runs:
        raise RlinoError("there are no recorded runs here: `make runs` makes them")
    if tested(runs):
        evaluation = _evaluation(base)
        if {run.config["weights_sha256_16"] for run in runs} != {evaluation["asked"]["weights_sha256_16"]}:
            raise RlinoError(f"the runs did not start from the weights that {base / 'evaluation.json'} is about")
        start = _outcome(evaluation["found"])
        ends = [_outcome(run.summary["test"]) for run in runs]
    else:
        columns = {f"eval/{name}": name for name in OUTCOMES}
        evaluated = [run.metrics[list(columns)].rename(columns=columns).dropna(subset="accuracy") for run in runs]
        start = pd.DataFrame([frame.iloc[0] for frame in evaluated]).mean().to_dict()
        ends = [frame.iloc[-1].to_dict() for frame in evaluated]
    rows = [{"method": "base", "seed": pd.NA, **start}]
    rows += [{"method": run.method, "seed": run.seed, **end} for run, end in zip(runs, ends, strict=True)]
    return pd.DataFrame(rows).astype({"seed": "Int64"} | dict.fromkeys(OUTCOMES, float))


def _evaluation(base: Path) -> dict[str, Any]:
    """What `rlino evaluate` recorded of a base: its settings under "asked", its results under "found"."""
    return read_json(base / "evaluation.json", needs="found")


def _outcome(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {"accuracy": summary["pass@1"]["value"]} | {name: summary[name] for name in OUTCOMES[1:]}


def measured(runs: Sequence[Run], base: Path = BASE) -> str:
    """On what, and with how many samples, `outcomes` was measured, in words."""
    config = runs[0].config
    problems, split, samples = (config[f"eval_{k}"] for k in ("problems", "split", "samples"))
    if tested(runs):
        test = runs[0].summary["test"]
        problems = test["problems"]
        split = "test"
        samples = f"{test['samples']} (the base: {_evaluation(base)['found']['samples']})"
    how = f"{problems:,} problems of the {split} split, samples per problem: {samples}"
    how += f"; temperature {config['temperature']:g}; {config['steps']} optimiser steps"
    return f"Measured on {how}. Curves by step are on the first {config['eval_problems']:,} of these problems."


def results_table(frame: pd.DataFrame) -> str:
    """`outcomes` as a Markdown table, one row per method: mean [lowest, highest seed]."""
    rows = [("method", "seeds", "right, %", "length of right, tokens", "length of wrong, tokens", "truncated, %")]
    for method in [m for m in ("base", *LABELS) if (frame["method"] == m).any()]:
        own = frame[frame["method"] == method]
        cells = [own["accuracy"] * 100, *(own[name] for name in LENGTHS), own["clipped_ratio"] * 100]
        rows.append((label(method), "–" if method == "base" else len(own), *map(_spread, cells)))
    return markdown_table(rows)


def _spread(values: pd.Series) -> str:
    values = values.dropna()
    ends = f" [{values.min():.1f}, {values.max():.1f}]" if len(values) > 1 else ""
    return "–" if values.empty else f"{values.mean():.1f}{ends}"


def fill(text: str, name: str, body: str) -> str:
    """`text` with what stands between `<!-- name -->` and `<!-- /name -->` replaced; RlinoError unless there is one."""
    block = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.S)
    text, count = block.subn(lambda m: f"{m[1]}\n{body}\n\n{m[2]}", text)
    if count != 1:
        raise RlinoError(f"{count} blocks `<!-- {name} --> … <!-- /{name} -->`, there should be one")
    return text


def claims_table() -> str:
    """The ledger as a Markdown table, judged anew."""
    return markdown_table(ledger_rows(judge_all()), numbers=False)


def readme(text: str, runs: Sequence[Run] | None = None, base: Path = BASE) -> str:
    """The README's text with its computed tables made anew."""
    runs = runs or list_runs(GROUP)
    text = fill(text, "table:claims", claims_table())
    return fill(text, "table:results", f"{results_table(outcomes(runs, base))}\n\n{measured(runs, base)}")


def recorded_figure(runs: Sequence[Run]) -> Figure:
    """The recorded runs at a glance: share right and lengths by step, a column for each method."""
    style()
    figure = figure_readme(metrics_frame(runs))
    figure.axes[0].set_ylabel(f"share right, {runs[0].config['eval_split']} split")
    return figure


def write_figure(path: Path = FIGURE, runs: Sequence[Run] | None = None) -> None:
    """The README's figure, as a PNG."""
    figure = recorded_figure(runs or list_runs(GROUP))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, metadata={"Software": None})


# --- the model card --------------------------------------------------------------------------------------------------

_BEHAVIOUR = {  # key in an evaluation: what it is called, and by how much it is multiplied
    "format_ok": ("responses with an answer in the right format, %", 100),
    "clipped_ratio": ("responses truncated at the cap, %", 100),
    "steps_right": ("written steps whose arithmetic is right, %", 100),
    "attempts_per_response": ("attempts per response", 1),
    "mean_length": ("length of responses, tokens", 1),
    "length/correct": ("length of right responses, tokens", 1),
    "length/incorrect": ("length of wrong responses, tokens", 1),
}


_KINDS = {"numbers": "seen templates with new numbers", "template": "unseen templates"}  # of held-out word problems


def card_text(folder: str | Path = BASE) -> str:
    """The model card (README.md) of a base, from its card.json, loss.csv, evaluation.json and files."""
    folder = Path(folder)
    card = read_json(folder / "card.json")
    evaluation = _evaluation(folder)
    settings = evaluation["asked"]
    results = evaluation["found"]
    loss = pd.read_csv(folder / "loss.csv")
    loss = loss.iloc[sorted({round(k * (len(loss) - 1) / 7) for k in range(8)})]
    changed = [f" --{k.replace('_', '-')} {v}" for k, v in card["recipe"].items() if asdict(Recipe())[k] != v]
    passes = [(k, *(f"{100 * v[end]:.1f}" for end in ("value", "low", "high")))
              for k, v in results.items() if k.startswith("pass@")]  # fmt: skip
    # A solution of a word problem makes no attempts.
    means = [(name, f"{by * results[k]:.1f}") for k, (name, by) in _BEHAVIOUR.items()
             if results.get(k) is not None and (k, results[k]) != ("attempts_per_response", 0)]  # fmt: skip
    means += [(f"right, {_KINDS.get(k, k)}, %", f"{100 * v:.1f}") for k, v in results.get("by_kind", {}).items()]
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*config.json"), folder / "tokenizer.json"])
    hashes = [(f"`{f.name}`", f"{f.stat().st_size:,}", f"`{sha256(f.read_bytes()).hexdigest()}`") for f in files]
    task = get_task(settings["task"], **settings["task_settings"])
    words = tomllib.loads((REPO / "tools" / "cards.toml").read_text(encoding="utf-8"))[settings["task"]]
    words = {name: text.format(task=task, largest=LARGEST) for name, text in words.items()}
    return (REPO / "tools" / "card.md").read_text(encoding="utf-8").format(
        **{"card": card, "asked": settings, "found": results, "words": words},
        minutes=card["seconds"] / 60,
        threads=f"{card['threads']} thread{'s' * (card['threads'] > 1)}",
        flags="".join(changed),
        recipe=markdown_table([("setting", "value"), *card["recipe"].items()]),
        demonstrator=markdown_table([("setting", "value"), *card["demonstrator"].items()]),
        loss=markdown_table([("step", "loss"), *((f"{s:.0f}", f"{v:.4f}") for s, v in loss.to_numpy())]),
        passes=markdown_table([("", "%", "95 % interval from", "to"), *passes]),
        behaviour=markdown_table([("", "mean"), *means]),
        files=markdown_table([("file", "bytes", "SHA-256"), *hashes]),
    )  # fmt: skip


def write_card(folder: str | Path = BASE) -> Path:
    """Write the model card of a base beside its weights; returns its path."""
    path = Path(folder) / "README.md"
    write_text(path, card_text(folder))
    return path


def main() -> int:
    """Write the cards, the figure and the README's tables. Exit code 2 where a record is missing."""
    return run_program(_write, "report")


def _write() -> int:
    path = REPO / "README.md"
    cards = [write_card(folder) for folder in BASES.values()]
    write_figure()
    write_text(path, readme(path.read_text(encoding="utf-8")))
    print("written:", *(written.relative_to(REPO) for written in (*cards, FIGURE, path)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
