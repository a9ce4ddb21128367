"""The import itself: which format it is, and a run folder of what the files say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlino_lib.errors import RlinoError
from rlino_lib.folders import output_folder
from rlino_lib.records.importers import jsonl, lm_eval, trl, verl
from rlino_lib.records.importers.fields import FIELDS, Column, hash_words, identify, name_in_run
from rlino_lib.records.importers.files import check_sizes, digest, json_lines
from rlino_lib.records.importers.measures import metrics_rows, tested
from rlino_lib.records.importers.source import Imported, Reader
from rlino_lib.records.runs import COLUMNS, PACKED, RUN, TABLES, UNKNOWN, Run, load_run
from rlino_lib.records.writer import RunWriter

FORMATS: dict[str, Reader] = {
    "trl": trl.READER, "verl": verl.READER, "lm-eval": lm_eval.READER, "jsonl": jsonl.READER,
}  # fmt: skip
MOST_COLUMNS = 2_000  # of the metrics
# A row for each response in responses.csv, by the names there.
RESPONSE = ("step", "final", "held_out", "problem_id", "sample", "correct", "clipped", "length", "characters", "reward")


def import_run(
    sources: Sequence[str | Path], out: str | Path, *, kind: str = "", columns: Mapping[str, Column] | None = None,
    split: str = "", filter_name: str = "", settings: Mapping[str, Any] | None = None,
) -> tuple[Run, dict[str, Any]]:  # fmt: skip
    """Read files of another library into a run folder; returns the run, and what is known of it and what is not.

    kind: a name in FORMATS; without it the format is recognised. `columns` as `fields.read_map` returns them. split:
    what the responses are of: train, validation or test (of which the last step is the test after training). `settings`
    has method, task, model, seed and max_new_tokens, each where it is known. All is read before anything is written; a
    complete import of the same files with the same settings is left as it is, and one of a run that stopped early is
    not complete. Raises RlinoError for files of another format, with what was expected, for damaged ones or one that is
    given twice, and for a folder of another run or inside a source.

        import_run(["outputs/my-trl-run"], "runs/mine", settings={"method": "grpo", "seed": 0})
    """
    out = Path(out)
    for source in map(Path, sources):
        if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
            raise RlinoError(f"{out} is inside {source}, which is read: choose another --out")
    kind, files = _files([Path(source) for source in sources], kind)
    if filter_name and kind != "lm-eval":
        raise RlinoError(f"--filter is of lm-evaluation-harness alone, and {files[0]} is read as {kind}")
    mapped = dict(columns or {})
    imported = FORMATS[kind].read(files, mapped, filter_name)
    _name_metrics(imported, mapped)
    identify(imported.rows)
    if not imported.rows and not imported.logged:
        raise RlinoError(f"{files[0]} holds no step and no response: expected {FORMATS[kind].words}")
    stepless = bool(imported.rows) and "step" not in imported.columns
    split = split or ("test" if kind == "jsonl" and stepless else FORMATS[kind].split)
    config = {"method": UNKNOWN, "task": UNKNOWN, "model": UNKNOWN, "seed": None} | imported.config
    config |= {name: value for name, value in (settings or {}).items() if value not in ("", None)}
    config |= {
        "imported_from": kind, "split": split, "source_sha256_16": digest(files),
        "map": {name: str(column) for name, column in mapped.items()},
    }  # fmt: skip
    _complete(imported, split)
    with output_folder(out, RUN, config) as complete:
        if not complete:
            imported.summary["source"] = [path.name for path in files]
            _write(out, config, imported, stepless)
    run = load_run(out)
    return run, _report(run, imported)


def _files(sources: Sequence[Path], kind: str) -> tuple[str, list[Path]]:
    """The format of the sources, and their files."""
    for source in sources:
        if not (source.is_file() or source.is_dir()):
            raise RlinoError(f"{source} is missing, or neither a file nor a folder")
    formats = {kind: FORMATS[kind]} if kind else FORMATS
    for name, reader in formats.items():
        by_source = [reader.files(source) for source in sources]
        if all(by_source):
            files = [path for paths in by_source for path in paths]
            check_sizes(files)
            if twice := [path for path, n in Counter(path.resolve() for path in files).items() if n > 1]:
                raise RlinoError(f"{twice[0]} is given twice: name each file once")
            return name, files
    if empty := [source for source in sources if source.is_file() and not source.stat().st_size]:
        raise RlinoError(f"{empty[0]} is empty")
    words = ", ".join(map(str, sources))
    if all(any(reader.files(source) for reader in formats.values()) for source in sources):
        raise RlinoError(f"{words} are of different formats: import one run at a time")
    expected = "; ".join(reader.words for reader in formats.values())
    beginnings = "".join(map(_beginning, sources))
    raise RlinoError(f"{words}: not of a format that is known here{beginnings}: expected {expected}")


def _beginning(source: Path) -> str:
    """How a file begins, in brackets: the columns of its first line, or why that cannot be read."""
    if not source.is_file():
        return ""
    try:
        keys = ", ".join(map(repr, list(next((record for _, record in json_lines(source)), {}))[:12]))
    except RlinoError as e:
        return f" ({e})"
    return f" (its first line has {keys})" if keys else ""


def _name_metrics(imported: Imported, mapped: Mapping[str, Column]) -> None:
    """Give metrics the names that `--map` has for them; RlinoError for one that is nowhere in the log."""
    for metric, column in mapped.items():
        steps = [numbers for numbers in imported.logged.values() if column.name in numbers]
        if metric not in FIELDS and not steps:
            raise RlinoError(f"no step of the log has {column.name!r} for {metric}")
        for numbers in steps if metric in COLUMNS and metric != "step" else ():
            numbers[metric] = numbers[column.name]


def _complete(imported: Imported, split: str) -> None:
    """Fill in what the command says of all responses, and what a text says of itself."""
    rows = imported.rows
    lengths = sum(row.get("length") is not None for row in rows)
    if 0 < lengths < len(rows):
        raise RlinoError(f"{lengths} of {len(rows)} responses have a length in tokens: all of them need one, or none")
    last = max((row["step"] for row in rows), default=0)
    for row in rows:
        row["held_out"] = None if row["step"] in imported.unclear and split == "train" else split != "train"
        row["final"] = split == "test" and row["step"] == last
        row["characters"] = len(row["response"])


def _write(out: Path, config: Mapping[str, Any], imported: Imported, stepless: bool) -> None:
    """Write the folder: the settings first, the summary last. What a killed import left is written again."""
    for name in (*TABLES, *PACKED, *(f"{name}.gz" for name in PACKED)):
        (out / name).unlink(missing_ok=True)
    by_step = [] if stepless else imported.rows
    training = [row for row in by_step if row["held_out"] is False]
    metrics = metrics_rows(imported.logged, training, [row for row in by_step if row["held_out"]])
    names = list(dict.fromkeys([*COLUMNS, *(name for row in metrics for name in row)]))
    if len(names) > MOST_COLUMNS:
        raise RlinoError(f"{len(names):,} names of metrics: at most {MOST_COLUMNS:,} can be imported")
    writer = RunWriter(out, config)
    writer.head(names)
    for row in metrics:
        writer.metrics({name: row.get(name) for name in names})
    table = [{name: row.get(name) for name in RESPONSE} for row in imported.rows]
    writer.responses([{k: int(v) if isinstance(v, bool) else v for k, v in row.items()} for row in table])
    if imported.rows:
        writer.rollouts({name: value for name, value in row.items() if value is not None} for row in imported.rows)
    summary = {"steps": max(imported.logged, default=None), **imported.summary}
    final = [row for row in imported.rows if row["final"]]
    if test := tested(final):
        summary |= {"test": test, "problems_sha256": hash_words(" ".join(sorted({row["problem_id"] for row in final})))}
    writer.finish(summary)


def _report(run: Run, imported: Imported) -> dict[str, Any]:
    """What a command prints: how much there is, which column was read as what, and what is not known."""
    rows = imported.rows
    empty = [name for name in ("method", "task", "model") if run.config[name] == UNKNOWN]
    empty += ["seed"] * (run.seed is None)
    if rows:
        known = {field for field in FIELDS if any(row.get(name_in_run(field)) is not None for row in rows)}
        empty += [name for name in ("correct", "truncated", "length", "reward") if name not in known]
    unclear = sum(row["held_out"] is None for row in rows)
    return {
        "run": str(run.path), "format": run.config["imported_from"], "steps": len(run.metrics),
        "responses": len(rows), "split": run.config["split"],
        "columns": {name: str(column) for name, column in imported.columns.items()}, "unknown": empty,
        "no numbers": _no_numbers(imported), "complete": run.complete,
    } | ({"training or held out": unclear} if unclear else {})  # fmt: skip


def _no_numbers(imported: Imported) -> dict[str, int]:
    """How many values were left empty as no numbers, by column: of a log's texts, those in place of a metric."""
    metrics = {*COLUMNS, *(name for numbers in imported.logged.values() for name in numbers), *imported.not_finite}
    metrics |= {column.name for field, column in imported.columns.items() if field in COLUMNS}
    counts = imported.not_finite + Counter({n: k for n, k in imported.no_number.items() if n in metrics})
    return dict(sorted(counts.items()))
