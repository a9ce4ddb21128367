"""What a run writes into its folder while it goes, and forgets again when it goes on from a checkpoint."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlino_lib.errors import RlinoError
from rlino_lib.folders import append_jsonl, read_jsonl, refuse_other, replacing, whole_lines, write_json
from rlino_lib.records.runs import PACKED, RUN, TABLES, read_run


class RunWriter:
    """Writes a run folder. Everything up to a checkpoint's step survives a kill; the rest is written again."""

    def __init__(self, path: str | Path, config: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> None:
        """Begin to write a folder, or go on; the caller holds it (`output_folder`).

        A setting that a record does not name counts as in `defaults`. Raises RlinoError where the folder holds a run of
        another configuration, or of one that started from other weights, with other threads or other versions: its
        numbers would not be those of a run that was never stopped.
        """
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        recorded, complete = read_run(self.path)
        if recorded is not None:
            refuse_other(self.path, RUN, recorded, config, defaults or {}, complete, whole=True)
        else:
            write_json(self.path / "config.json", config)
        self.rows: Counter[str] = Counter()  # in each file, which a checkpoint remembers

    def resume(self, step: int, rows: Mapping[str, int] | None = None) -> None:
        """Forget what was written after `step`, the step of the checkpoint that training goes on from.

        `rows` is what `rows` of the writer was then, where the checkpoint says it. Raises RlinoError where a file has
        another number of rows up to that step: the record of the run would never be whole.
        """
        for plain in (self.path / name for name in PACKED):
            packed = plain.with_name(f"{plain.name}.gz")
            if packed.exists():  # the kill came while the run was being finished
                if not plain.exists():
                    with replacing(plain) as part:
                        part.write_bytes(gzip.decompress(packed.read_bytes()))
                packed.unlink()
        for path in (self.path / name for name in TABLES):
            if path.exists():
                table = list(csv.reader(whole_lines(path)))
                kept = [r for r in table[1:] if len(r) == len(table[0]) and r[0].isdigit() and int(r[0]) <= step]
                with replacing(path) as part:
                    _append_csv(part, [*table[:1], *kept])
                self.rows[path.name] = len(kept)
        path = self.path / "rollouts.jsonl"
        if path.exists():
            rollouts = [row for row in read_jsonl(path) if type(row.get("step")) is int and row["step"] <= step]
            with replacing(path) as part:
                append_jsonl(part, rollouts)
            self.rows[path.name] = len(rollouts)
        if other := [name for name, count in (rows or {}).items() if self.rows[name] != count]:
            counts = f"{self.rows[other[0]]} rows up to step {step}, not the {rows[other[0]]} that it had"
            raise RlinoError(f"{self.path / other[0]} has {counts}: delete {self.path}, and the run starts anew")

    def head(self, columns: Iterable[str]) -> None:
        """Begin the metrics with their columns, for a run that may have no steps."""
        _append_csv(self.path / "metrics.csv", [columns])

    def metrics(self, row: Mapping[str, Any], seconds: float | None = None) -> None:
        """Append one step: its metrics, and its time beside them where it is known."""
        self._append("metrics.csv", {k: _short(v) for k, v in row.items()})
        if seconds is not None:
            self._append("timing.csv", {"step": row["step"], "seconds": round(seconds, 2)})

    def probes(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append what the probed updates of a step measured."""
        for row in rows:
            self._append("probes.csv", {k: _short(v) for k, v in row.items()})

    def responses(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append what is kept of the held-out responses of an evaluation."""
        self._append("responses.csv", *({k: _short(v) for k, v in row.items()} for row in rows))

    def _append(self, name: str, *rows: Mapping[str, Any]) -> None:
        path = self.path / name
        if rows:
            head = [] if path.exists() and path.stat().st_size else [list(rows[0])]
            _append_csv(path, [*head, *(row.values() for row in rows)])
            self.rows[name] += len(rows)

    def rollouts(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append sampled responses, one JSON object a line."""
        rows = list(rows)
        append_jsonl(self.path / "rollouts.jsonl", rows)
        self.rows["rollouts.jsonl"] += len(rows)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Pack what is large and write the summary: from here on the run is complete."""
        for plain in (self.path / name for name in PACKED):
            if plain.exists():
                with replacing(plain.with_name(f"{plain.name}.gz")) as part, part.open("wb") as raw:
                    with gzip.GzipFile(plain.name, "wb", mtime=0, fileobj=raw) as f:
                        f.write(plain.read_bytes())
                plain.unlink()
        write_json(self.path / "summary.json", {"complete": True, **summary})


def _short(value: Any) -> Any:
    """Seven significant digits, blank for None: enough for any plot, and half the file."""
    return "" if value is None else f"{value:.7g}" if isinstance(value, float) else value


def _append_csv(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    with path.open("a", encoding="utf-8", newline="") as f:
        csv.writer(f, lineterminator="\n").writerows(rows)
