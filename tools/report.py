"""What the repository says of itself: model cards, the README's figure and computed parts, the page of claims.

`python -m tools.report` writes them again, after a new base, new runs, a new claim or a new chapter.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import jupytext
import pandas as pd

from rlino_lib.claims.findings import findings_list, verdict_counts
from rlino_lib.claims.judge import judge_all, ledger_rows
from rlino_lib.cli.terminal import run_program
from rlino_lib.errors import RlinoError
from rlino_lib.figures.recorded import evaluation_of, markdown_table, recorded_figure
from rlino_lib.folders import read_json, write_whole
from rlino_lib.paths import BASES, REPO, pyproject
from rlino_lib.records.runs import Run, list_runs
from rlino_lib.tasks import get_task
from rlino_lib.tasks.word_problems.task import LARGEST
from rlino_lib.training.config import Recipe
from tools import book

GROUP = "countdown"  # the recorded methods that the README shows
FIGURE = REPO / "data" / "figures" / "recorded_runs.png"
MAKE_TIMES = REPO / "data" / "bench" / "make.json"
TARGETS = ("site", "book", "test")


def fill(text: str, name: str, body: str) -> str:
    """`text` with what stands between `<!-- name -->` and `<!-- /name -->` replaced; RlinoError unless there is one."""
    block = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.S)
    text, count = block.subn(lambda m: f"{m[1]}\n{body}\n\n{m[2]}", text)
    if count != 1:
        raise RlinoError(f"{count} blocks `<!-- {name} --> … <!-- /{name} -->`, there should be one")
    return text


# --- chapters --------------------------------------------------------------------------------------------------------

WORDS_PER_MINUTE = 150  # of technical prose, equations read


@dataclass(frozen=True)
class Chapter:
    """A chapter as its script has it: what its first cell says, and how long it is."""

    script: Path

    @cached_property
    def prose(self) -> list[str]:
        """The source of its Markdown cells."""
        return [cell.source for cell in jupytext.read(self.script).cells if cell.cell_type == "markdown"]

    @property
    def number(self) -> str:
        """08, or 08b."""
        return book.number_of(self.script)

    @property
    def title(self) -> str:
        """The first heading, without the number and what follows a comma."""
        heading = re.search(r"^# +(?:\w+ · )?([^,\n]+)", self.prose[0], re.M)
        return heading[1] if heading else self.script.stem

    @property
    def question(self) -> str:
        """The first words in bold type of the first cell: what the chapter asks. RlinoError where there are none."""
        return self._opening(r"\*\*(?!The answer)(.+?)\*\*", "question in bold type")

    @property
    def answer(self) -> str:
        """What stands after "**The answer.**" in the first cell, up to the next paragraph. RlinoError without one."""
        return self._opening(r"\*\*The answer\.\*\*\s+(.+?)(?:\n\n|\Z)", "paragraph **The answer.**")

    @property
    def minutes(self) -> int:
        """To read its prose, at `WORDS_PER_MINUTE` and in steps of five; code and solutions are not counted."""
        text = re.sub(r"<details>.*?</details>", "", "\n\n".join(self.prose), flags=re.S)
        return 5 * max(1, round(words(text) / WORDS_PER_MINUTE / 5))

    def _opening(self, pattern: str, what: str) -> str:
        match = re.search(pattern, self.prose[0], re.S)
        if not match:
            raise RlinoError(f"{self.script.name}: the first cell has no {what}")
        return " ".join(match[1].split())


def chapters(folder: Path = REPO / "book") -> list[Chapter]:
    """All chapters in order."""
    return [Chapter(script) for script in book.chapters(folder)]


def chapter_files() -> dict[str, str]:
    """The notebooks of the chapters by number, as links in the repository's own pages have them."""
    return {chapter.number: f"book/{chapter.script.stem}.ipynb" for chapter in chapters()}


def words(text: str) -> int:
    """The words of Markdown: what holds a letter or a digit, between spaces; comments are not counted."""
    return len(re.findall(r"\S*[^\W_]\S*", re.sub(r"<!--.*?-->", "", text, flags=re.S)))


def chapters_table() -> str:
    """The chapters as a Markdown table: number, title with link, question, minutes to read."""
    rows = [("", "chapter", "question", "minutes")]
    for chapter in chapters():
        link = f"[{chapter.title}](book/{chapter.script.stem}.ipynb)"
        question = chapter.question.replace("$", "")
        rows.append((chapter.number, link, question, chapter.minutes))
    head, _, *lines = markdown_table(rows).split("\n")
    return "\n".join([head, "| :--- | :--- | :--- | ---: |", *lines])


def times_table(path: Path = MAKE_TIMES) -> str:
    """What `make site`, `make book` and `make test` take as a Markdown table, from the seconds that are recorded."""
    record = read_json(path, needs="rows")
    head = (f"{record['cores']} cores", *(f"`make {target}`" for target in TARGETS))
    rows = [(name, *(_time(row.get(target)) for target in TARGETS)) for name, row in record["rows"].items()]
    return markdown_table([head, *rows])


def _time(seconds: float | None) -> str:
    """Seconds, or from a minute on minutes, in words; a dash where nothing was measured."""
    if seconds is None:
        return "–"
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.0f} min"


# --- the front page and the page of claims ---------------------------------------------------------------------------


def address() -> str:
    """The repository's address, `[tool.rlino] address` in pyproject.toml; empty where it has none yet."""
    return pyproject().get("tool", {}).get("rlino", {}).get("address", "").rstrip("/")


def links(where: str) -> str:
    """The README's line of links; what needs the repository's address is left out where that is empty."""
    parts = ["[Site](#run-it)", "[paper](https://arxiv.org/abs/2505.13697)", "[claims](CLAIMS.md)"]
    parts += ["[cite](CITATION.cff)", "[changes](CHANGELOG.md)", "[contribute](CONTRIBUTING.md)"]
    if where:
        workflow = f"{where}/actions/workflows/test.yml"
        parts += [f"[repository]({where})", f"[![tests]({workflow}/badge.svg)]({workflow})"]
    return " · ".join(parts)


def readme(text: str, judged: pd.DataFrame) -> str:
    """The README's text with its computed parts made anew; `judged` is what `judge_all` returned."""
    text = fill(text, "links", links(address()))
    text = fill(text, "findings", findings_list(judged, chapter_files()))
    text = fill(text, "verdicts", f"{verdict_counts(judged)}: [all of them](CLAIMS.md).")
    text = fill(text, "times", times_table())
    return fill(text, "chapters", chapters_table())


def claims_page(judged: pd.DataFrame) -> str:
    """CLAIMS.md: how to read the ledger, the counts of verdicts, and a row for each claim."""
    template = (REPO / "tools" / "claims.md").read_text(encoding="utf-8")
    table = markdown_table(ledger_rows(judged, chapter_files()), numbers=False)
    return template.format(counts=verdict_counts(judged), table=table)


def write_figure(path: Path = FIGURE, runs: Sequence[Run] | None = None) -> None:
    """The README's figure, as a PNG."""
    recorded_figure(runs or list_runs(GROUP)).savefig(path, dpi=150, metadata={"Software": None})


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


def card_text(folder: Path) -> str:
    """The model card (README.md) of a base, from its card.json, loss.csv, evaluation.json and files."""
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


def main() -> int:
    """Write the cards, the figure, the README's parts and CLAIMS.md. Exit code 2 where a record is missing."""
    return run_program(_write, "report")


def _write() -> int:
    judged = judge_all()
    front = REPO / "README.md"
    pages = {Path(folder) / "README.md": card_text(Path(folder)) for folder in BASES.values()}
    pages |= {front: readme(front.read_text(encoding="utf-8"), judged), REPO / "CLAIMS.md": claims_page(judged)}
    for path, text in pages.items():
        write_whole(path, text)
    write_figure()
    print("written:", *(path.relative_to(REPO) for path in (*pages, FIGURE)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
