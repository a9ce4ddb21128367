"""What the repository says of its records: the bases' model cards, the README's figure and its computed tables.

`python -m tools.report` writes them again, after a new base or new runs.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import pandas as pd

from rlino_lib.cli.terminal import run_program
from rlino_lib.errors import RlinoError
from rlino_lib.figures.recorded import (
    claims_table,
    evaluation_of,
    markdown_table,
    measured,
    outcomes,
    recorded_figure,
    results_table,
)
from rlino_lib.folders import read_json, write_whole
from rlino_lib.paths import BASES, DEFAULT_BASE, REPO
from rlino_lib.records.runs import Run, list_runs
from rlino_lib.tasks import get_task
from rlino_lib.tasks.word_problems.task import LARGEST
from rlino_lib.training.config import Recipe

GROUP = "countdown"  # the recorded methods that the README shows
FIGURE = REPO / "data" / "figures" / "recorded_runs.png"
BASE = Path(DEFAULT_BASE)


def fill(text: str, name: str, body: str) -> str:
    """`text` with what stands between `<!-- name -->` and `<!-- /name -->` replaced; RlinoError unless there is one."""
    block = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.S)
    text, count = block.subn(lambda m: f"{m[1]}\n{body}\n\n{m[2]}", text)
    if count != 1:
        raise RlinoError(f"{count} blocks `<!-- {name} --> … <!-- /{name} -->`, there should be one")
    return text


def readme(text: str, runs: Sequence[Run] | None = None, base: Path = BASE) -> str:
    """The README's text with its computed tables made anew."""
    runs = runs or list_runs(GROUP)
    text = fill(text, "table:claims", claims_table())
    return fill(text, "table:results", f"{results_table(outcomes(runs, base))}\n\n{measured(runs, base)}")


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
    evaluation = evaluation_of(folder)
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
    write_whole(path, card_text(folder))
    return path


def main() -> int:
    """Write the cards, the figure and the README's tables. Exit code 2 where a record is missing."""
    return run_program(_write, "report")


def _write() -> int:
    path = REPO / "README.md"
    cards = [write_card(folder) for folder in BASES.values()]
    write_figure()
    write_whole(path, readme(path.read_text(encoding="utf-8")))
    print("written:", *(written.relative_to(REPO) for written in (*cards, FIGURE, path)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
