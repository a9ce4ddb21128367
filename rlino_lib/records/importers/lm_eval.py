"""lm-evaluation-harness: `samples_TASK_DATE.jsonl` of `--log_samples`, with `results_DATE.json` beside it.

A file has a line for each document and filter; the filters grade the same response, so one of them is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rlino_lib.errors import RlinoError
from rlino_lib.records.importers.fields import Column, all_verdicts, text
from rlino_lib.records.importers.files import Record, first_record, json_file, json_lines, parsed
from rlino_lib.records.importers.source import Imported, Reader

_SAMPLES = re.compile(r"samples_(.+)_(\d{4}-\d\d-\d\dT.+)\.jsonl(\.gz)?")
_ABOUT = {"doc_id", "doc", "target", "filter", "metrics", "doc_hash", "prompt_hash", "target_hash"}  # no metrics
_OURS = {name: Column(name) for name in ("prompt", "response", "gold", "answer", "problem_id")}


def files(source: Path) -> list[Path]:
    """A file of samples, or the samples of all tasks in a folder, at any depth."""
    paths = [source] if source.is_file() else sorted(source.rglob("samples_*.jsonl*"))
    named = (path for path in paths if path.suffix in (".jsonl", ".gz", ".json"))
    return [path for path in named if {"doc_id", "doc", "resps"} <= set(first_record(path))]


def read(paths: Sequence[Path], mapped: Mapping[str, Column], filter_name: str) -> Imported:
    """The responses to one task with the verdicts of one filter; without repeats, as a verdict is of a document."""
    if len(paths) > 1:
        several = ", ".join(path.name for path in paths[:5])
        raise RlinoError(f"{len(paths)} files of samples ({several}): import each into a folder of its own")
    path = paths[0]
    lines = list(json_lines(path))
    filters = list(dict.fromkeys(_filter(record) for _, record in lines))
    chosen = filter_name or filters[0]
    if chosen not in filters:
        raise RlinoError(f"{path} has no filter {chosen!r}: there are {', '.join(map(repr, filters))}")
    lines = [(where, record) for where, record in lines if _filter(record) == chosen]
    config = _settings(path, [record for _, record in lines])
    records = [(where, _plain(where, record, config.get("task", "document"))) for where, record in lines]
    plain = [record for _, record in records]
    columns = dict(_OURS)
    listed = plain[0].get("metrics")
    names = listed if isinstance(listed, list) else plain[0]
    graders = [name for name in map(str, names) if name not in _ABOUT | set(_OURS) and all_verdicts(plain, name)]
    if graders and all(isinstance(record["response"], str) for record in plain):
        columns["correct"] = Column(graders[0])
    config |= {"filter": chosen} if chosen else {}
    imported = Imported(columns={**columns, **mapped}, config=config)
    imported.take(records)
    imported.take_beside("data", "doc", dict)
    return imported


def _filter(record: Record) -> str:
    name = record.get("filter")
    return name if isinstance(name, str) else ""


def _texts(where: str, record: Record) -> list[str]:
    """The responses to a document; RlinoError where there are none, as of multiple choice."""
    several = record.get("resps")
    if isinstance(several, list) and len(several) == 1:
        several = several[0] if isinstance(several[0], list) else several
        if several and all(isinstance(response, str) for response in several):
            return several
    raise RlinoError(f"{where}: resps holds no text of one request: only tasks that generate have responses to import")


def _plain(where: str, record: Record, task: str) -> Record:
    """A record with its parts by name: metrics, filter and document stay as they are."""
    texts = _texts(where, record)
    answers = record.get("filtered_resps")
    kept = {name: value for name, value in record.items() if name not in ("resps", "filtered_resps", "arguments")}
    return kept | {
        "prompt": _prompt(record.get("arguments")),
        "response": texts[0] if len(texts) == 1 else texts,
        "answer": answers[0] if isinstance(answers, list) and len(answers) == 1 else answers,
        "gold": record.get("target"),
        "problem_id": f"{task}/{record['doc_id']}" if "doc_id" in record else None,
    }


def _argument(arguments: Any, k: int) -> Any:
    """An argument of the first request: of `{"gen_args_0": {"arg_0": …}}`, or of a list of lists."""
    first: Any = arguments.get("gen_args_0") if isinstance(arguments, dict) else None
    if isinstance(first, dict):
        return first.get(f"arg_{k}")
    first = arguments[0] if isinstance(arguments, list) and arguments else None
    return first[k] if isinstance(first, list) and len(first) > k else None


def _prompt(arguments: Any) -> str | None:
    """The prompt as text; with a chat template it may be the JSON of a conversation, in a list of one."""
    prompt = _argument(arguments, 0)
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        prompt = prompt[0]
        if prompt.startswith('[{"role"'):
            with suppress(RlinoError, ValueError):
                return text(parsed(prompt.encode("utf-8", "replace"), ""))
    with suppress(ValueError):
        return text(prompt)
    return None


def _settings(path: Path, records: Sequence[Record]) -> dict[str, Any]:
    """The task by the file's name, the cap where all requests have the same, and the model of the results beside it."""
    config: dict[str, Any] = {}
    settings = [_argument(record.get("arguments"), 1) for record in records]
    caps = [one.get("max_gen_toks") if isinstance(one, dict) else None for one in settings]
    if type(caps[0]) is int and caps[0] > 0 and caps == caps[:1] * len(caps):
        config["max_new_tokens"] = caps[0]
    if match := _SAMPLES.fullmatch(path.name):
        config["task"] = match[1]
        results = path.with_name(f"results_{match[2]}.json")
        if results.is_file() and isinstance(name := json_file(results).get("model_name"), str) and name:
            config["model"] = name
    return config


READER = Reader(
    "lm-evaluation-harness's samples_TASK_DATE.jsonl of --log_samples (doc_id, doc, resps), or its folder", files, read,
    split="test",
)  # fmt: skip
