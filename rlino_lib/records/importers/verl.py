"""verl: its console ("step:1 - actor/entropy:0.5 - …"), its file logger's JSONL ({"step": 1, "data": {…}}), and the
rollouts that `trainer.rollout_data_dir` and `trainer.validation_data_dir` keep, N.jsonl for step N.

The console may have Ray's prefix and colours before a line, and a progress bar on it; a run that went on from a
checkpoint has steps twice, and of these the last counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rlino_lib.errors import RlinoError
from rlino_lib.records.importers.fields import Column, all_verdicts
from rlino_lib.records.importers.files import first_record, json_lines, lines, numbered
from rlino_lib.records.importers.source import Imported, Reader, present

# The verifier's score, without a KL penalty, is the reward here; verl's own names stay beside these.
NAMES = {"critic/score/mean": "reward", "response_length/mean": "completions/mean_length",
         "response_length/clip_ratio": "completions/clipped_ratio", "actor/entropy": "entropy",
         "actor/entropy_loss": "entropy", "actor/kl_loss": "kl", "actor/grad_norm": "grad_norm", "actor/lr": "lr",
         "actor/pg_clipfrac": "clip_ratio"}  # fmt: skip
_OURS = {"prompt": "input", "response": "output", "gold": "gts", "step": "step", "reward": "score"}
_STEP = re.compile(r"(?:^|(?<=[\s\])]))step:(\d{1,15}) - (.+)")  # at the start, or after Ray's prefix or a bar
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_METRIC = re.compile(r"(.+):(?:np\.\w+\()?([-+\d.eE]+|nan|[-+]?inf)\)?")
_PLANNED = re.compile(rb"Total training steps: (\d{1,15})\b")
_VALIDATION = re.compile(r"val-core/.+/acc/mean@\d+")
_LONGEST = 500  # characters of a metric: what is longer is none


def files(source: Path) -> list[Path]:
    """A console's text, a JSONL file of metrics or of rollouts, or a folder of such rollouts."""
    if source.is_dir():
        dumps = numbered(source, r"(\d+)\.jsonl")
        first = next(filter(first_record, dumps), None)  # of a step without samples the file is empty
        return dumps if first and _kind(first) == "rollouts" else []
    return [source] if source.is_file() and _kind(source) else []


def _kind(path: Path) -> str:
    """What a file holds: console, metrics, rollouts, or nothing of these."""
    record = first_record(path)
    if {"input", "output", "score"} <= set(record):
        return "rollouts"
    if isinstance(record.get("data"), dict) and "step" in record and "response" not in record:  # as in a run folder
        return "metrics"
    with suppress(RlinoError):
        return "console" if not record and any(True for _ in _console(path)) else ""
    return ""


def read(paths: Sequence[Path], mapped: Mapping[str, Column], filter_name: str) -> Imported:
    """The metrics of each step and the rollouts, where there are any."""
    imported = Imported()
    planned = 0
    dumps = []
    for path in paths:
        kind = _kind(path)
        if kind == "rollouts":
            dumps.append(path)
        elif kind == "console":
            planned = max(planned, _planned(path))
            for step, numbers in _console(path):
                imported.log(step, numbers, str(path))
        else:
            for where, record in json_lines(path):
                imported.log(record.get("step"), record.get("data"), where)
    imported.ends(planned)
    _name(imported.logged)
    if dumps:
        records = [pair for path in dumps for pair in json_lines(path)]
        plain = [record for _, record in records]
        columns = present(plain[0], _OURS)
        graders = [name for name in ("acc", "score") if all_verdicts(plain, name)]
        if graders:
            columns["correct"] = Column(graders[0])
        imported.columns = {**columns, **mapped}
        imported.take(records)
    return imported


def _console(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """The metrics of each line that has them. A last line without its end may lack digits, and is left out."""
    for _, line in lines(path):
        if b"step:" not in line or not line.endswith(b"\n"):
            continue
        match = _STEP.search(_COLOURS.sub("", line.decode("utf-8", "replace").rstrip()))
        if not match:
            continue
        numbers: dict[str, Any] = {}
        for part in match[2].split(" - "):
            if len(part) < _LONGEST and (metric := _METRIC.fullmatch(part.strip())):
                with suppress(ValueError):
                    numbers[metric[1]] = float(metric[2])
        if numbers:
            yield int(match[1]), numbers


def _planned(path: Path) -> int:
    """The number of steps that a console announces, 0 where it does not."""
    return max((int(match[1]) for _, line in lines(path) if (match := _PLANNED.search(line))), default=0)


def _name(logged: Mapping[int, dict[str, float]]) -> None:
    """Add the book's names. An accuracy of validation counts where there is one of a single data set."""
    accuracies = {name for numbers in logged.values() for name in numbers if _VALIDATION.fullmatch(name)}
    names = NAMES | (dict.fromkeys(accuracies, "eval/accuracy") if len(accuracies) == 1 else {})
    for numbers in logged.values():
        numbers |= {ours: numbers[theirs] for theirs, ours in names.items() if theirs in numbers}


READER = Reader(
    "verl's console log (lines with step:N - name:value), the JSONL of its file logger, or rollouts N.jsonl with "
    "input, output and score, or a folder of these", files, read,
)  # fmt: skip
