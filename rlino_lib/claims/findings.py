"""What the ledger comes to on one page: five findings, each with its interval and seeds, and a count of verdicts."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from rlino_lib.claims.verdicts import CONDITIONS, FAILS, HOLDS, VERDICTS
from rlino_lib.errors import RlinoError
from rlino_lib.paths import DATA

FINDINGS = DATA / "findings.toml"
# As `verdicts.mean_in_words` writes a mean, or a median, whose seeds are named once for all that stand there.
_NUMBER = re.compile(r"[+-]?[\d.]+(?: %| \w+)? \[[^]]+\](?: over \d+ seeds)?")
_MEDIANS = re.compile(r"medians of (\d+ seeds)")
_SEVERAL = {HOLDS: "hold", CONDITIONS: "hold with conditions", FAILS: "do not hold here"}  # what several claims do


def findings(judged: pd.DataFrame, path: str | Path = FINDINGS) -> list[tuple[str, list[str]]]:
    """Each finding in Markdown, with its numbers, and the chapters that it is from. `judged` is `judge_all()`.

    Raises RlinoError where a verdict is no longer the one that the words were written for, or a number is missing.
    """
    rows = tomllib.loads(Path(path).read_text(encoding="utf-8"))["finding"]
    verdicts = dict(zip(judged["id"], judged["found"], strict=True))
    numbers = {name: _numbers(effect) for name, effect in zip(judged["id"], judged["effect"], strict=True)}
    results = []
    for row in rows:
        for name, verdict in row["verdicts"].items():
            if verdicts.get(name) != verdict:
                raise RlinoError(f"{path}: written for {name}: {verdict}, and it is judged {verdicts.get(name)!r}")
        try:
            text = row["text"].format(**{name: numbers[name] for name in row["verdicts"]})
        except LookupError as e:
            raise RlinoError(f"{path}: no such number in what was found: {e} in {row['text']!r}") from e
        results.append((re.sub(r"-(?=\d)", "−", text).replace("] over ", "], "), row["chapters"]))
    return results


def _numbers(effect: str) -> list[str]:
    """The numbers with intervals in what was found, each with its seeds where they are named."""
    medians = _MEDIANS.search(effect)
    seeds = f" over {medians[1]}" if medians else ""
    return [number if number.endswith("seeds") else number + seeds for number in _NUMBER.findall(effect)]


def findings_list(judged: pd.DataFrame, files: Mapping[str, str] | None = None) -> str:
    """The findings as a numbered list in Markdown, with links to the chapters that `files` has by their numbers."""
    lines = []
    for k, (text, chapters) in enumerate(findings(judged), 1):
        places = [f"[{number}]({files[number]})" if files else number for number in chapters]
        lines.append(f"{k}. {text} *→ {', '.join(places)}*")
    return "\n".join(lines)


def verdict_counts(judged: pd.DataFrame) -> str:
    """How many claims have which verdict, in words: "Of 3 claims 2 hold and 1 is undecided"."""
    counts = judged["found"].value_counts()
    one = {verdict: verdict if verdict in _SEVERAL else f"is {verdict}" for verdict in VERDICTS}
    several = {verdict: _SEVERAL.get(verdict, f"are {verdict}") for verdict in VERDICTS}
    *parts, last = [f"{n} {(one if n == 1 else several)[v]}" for v in VERDICTS if (n := counts.get(v, 0))]
    text = f"Of {len(judged)} claims {', '.join(parts)}{' and ' * bool(parts)}{last}"
    superseded = (judged["superseded_by"] != "").sum()  # each of them is revised as well
    asides = {"superseded": superseded, "under revision": (judged["revision"] != "").sum() - superseded}
    also = " and ".join(f"{n} {what}" for what, n in asides.items() if n)
    return f"{text} (of all {len(judged)}: {also})" if also else text
