"""Recorded groups as UNIPO's canonical JSON, and back (github.com/poloclub/unipo, arXiv 2605.11549).

UNIPO is an explorer of training runs in a browser. One file is a run: `header` and `entries`, one for each update. The
fields that we write and rely on, by the annotated `docs/canonical_schema.json` of its repository:

- header: algorithm, totalSteps, task, dataset, reward_strategy, model_name, hparams (names are free)
- an entry: step, is_first_step_after_rollout_phase, metrics (policy_objective and reward are required), prompts
- a prompt: prompt, responses, the whole group
- a response: id, reward, advantage, response_text, response_length, tokens
- tokens: ids and strings (required), old_log_probs, advantages, and ours: entropies and weights

Our files do not keep token ids, so ids are the places of tokens in the response. What UNIPO has no field for (verdict,
answer, reason, gold, data, problem) stands in `rlino` beside a response, and readers that do not know it pass over it.
All of it is text that a model may have written: nothing here is evaluated.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from rlino_lib.errors import RlinoError

COLUMNS = {"logprobs": "old_log_probs", "entropies": "entropies", "weights": "weights"}  # ours → theirs, per token
KEPT = ("problem_id", "data", "gold", "correct", "format_ok", "answer", "reason", "clipped")
LARGEST = 500_000_000  # bytes of a file that is read


def to_unipo(run: Any, path: str | Path | None = None) -> dict[str, Any]:
    """The recorded groups of a run as one object in UNIPO's schema, written to `path` where it is given.

    `run` has `method`, `config`, `metrics` and `rollouts`, as a `Run` has. The objective at ratio 1 is the sum of the
    weights of all tokens of the recorded groups. Raises RlinoError for a run without rollouts.

    >>> to_unipo(load_run("countdown/grpo-s0"), "grpo.json")
    """
    rollouts = run.rollouts
    if not len(rollouts):
        raise RlinoError(f"{getattr(run, 'name', 'this run')} has no recorded rollouts")
    if missing := [name for name in ("tokens", "reward") if name not in rollouts]:
        lacks = " and no ".join(missing)
        raise RlinoError(f"{getattr(run, 'name', 'this run')} has no {lacks}, which UNIPO's schema asks for")
    config = dict(run.config)
    metrics = run.metrics.set_index("step") if len(run.metrics) else pd.DataFrame()
    entries = []
    for step, rows in rollouts.groupby("step", sort=True):
        numbers = {k: v for k, v in (metrics.loc[step] if step in metrics.index else {}).items() if _finite(v)}
        numbers |= {"reward": float(rows["reward"].mean()), "policy_objective": _total(rows)}
        prompts = [
            {"prompt": str(group["prompt"].iloc[0]), "responses": [_response(row) for row in group.to_dict("records")]}
            for _, group in rows.groupby("group", sort=True)
        ]
        entry = {"step": int(step), "is_first_step_after_rollout_phase": True, "metrics": numbers, "prompts": prompts}
        entries.append(entry)
    header = {
        "task": str(config.get("task", "")), "dataset": str(config.get("task", "")), "reward_strategy": "verifier",
        "algorithm": run.method, "totalSteps": int(config.get("steps", entries[-1]["step"])),
        "model_name": str(config.get("model", "")), "hparams": config,
    }  # fmt: skip
    unipo = _plain({"header": header, "entries": entries})
    if path is not None:
        Path(path).write_text(json.dumps(unipo, ensure_ascii=True, allow_nan=False), encoding="utf-8")
    return unipo


def _response(row: Mapping[str, Any]) -> dict[str, Any]:
    strings = [str(token) for token in row["tokens"]]
    tokens: dict[str, Any] = {"ids": list(range(len(strings))), "strings": strings}
    tokens["advantages"] = [row.get("advantage")] * len(strings)
    tokens |= {theirs: list(row[ours]) for ours, theirs in COLUMNS.items() if isinstance(row.get(ours), list)}
    return {
        "id": f"step{row['step']}_p{row['group']}_sample{row['sample']}", "reward": row["reward"],
        "advantage": row.get("advantage"), "response_text": row.get("response", "".join(strings)),
        "response_length": len(strings), "tokens": tokens, "rlino": {name: row[name] for name in KEPT if name in row},
    }  # fmt: skip


def _total(rows: pd.DataFrame) -> float:
    weights = rows["weights"] if "weights" in rows else []
    return math.fsum(w for row in weights if isinstance(row, list) for w in row if _finite(w))


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _plain(value: Any) -> Any:
    """What JSON can hold: numbers of other libraries as numbers, NaN as null, half a surrogate pair as a mark."""
    if isinstance(value, Mapping):
        return {str(name): _plain(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return value if isinstance(value, int | bool) or value is None else str(value)


def from_unipo(source: str | Path | Mapping[str, Any]) -> pd.DataFrame:
    """A file in UNIPO's schema, or its object, as a frame of rollouts, such as `trace_inspector` takes.

    A JSONL file has the header in its first line and an entry in each of the others. Columns that a file has not are
    None or absent. Raises RlinoError, in one line, for what is no such file.
    """
    name = "the object" if isinstance(source, Mapping) else str(source)
    unipo = source if isinstance(source, Mapping) else _read(Path(source))
    rows = []
    try:
        for entry in unipo["entries"]:
            for group, prompt in enumerate(entry["prompts"]):
                for sample, response in enumerate(prompt["responses"]):
                    rows.append(_row(int(entry["step"]), group, sample, str(prompt["prompt"]), response))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as e:
        text = f"no field {e}" if isinstance(e, KeyError) else str(e)
        raise RlinoError(f"{name} does not follow UNIPO's schema: {text.splitlines()[0][:200]}") from None
    if not rows:
        raise RlinoError(f"{name} has no responses")
    with pd.option_context("mode.string_storage", "python"):  # Arrow's has no half surrogate pairs
        return pd.DataFrame(rows)


def _row(step: int, group: int, sample: int, prompt: str, response: Mapping[str, Any]) -> dict[str, Any]:
    tokens = response["tokens"]
    strings = [str(text) for text in tokens["strings"]]
    row: dict[str, Any] = {"step": step, "group": group, "sample": sample, "problem_id": prompt, "prompt": prompt}
    row |= {"response": str(response.get("response_text", "".join(strings))), "tokens": strings}
    for ours, theirs in COLUMNS.items():
        values = tokens.get(theirs, tokens.get("log_probs") if ours == "logprobs" else None)
        if values is not None and len(values) == len(strings):
            row[ours] = [math.nan if v is None else float(v) for v in values]
    for name in ("reward", "advantage"):
        row[name] = math.nan if response.get(name) is None else float(response[name])
    row["length"] = len(strings)
    kept = response.get("rlino", {})
    return row | {name: kept[name] for name in KEPT if name in kept}


def _read(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > LARGEST:
            raise RlinoError(f"{path} is larger than {LARGEST:,} bytes")
        text = path.read_text(encoding="utf-8")
        try:
            unipo = json.loads(text)
        except ValueError:
            header, *entries = [json.loads(line) for line in text.splitlines() if line.strip()]
            unipo = {"header": header, "entries": entries}
    except (OSError, ValueError, RecursionError) as e:
        raise RlinoError(f"{path} cannot be read as JSON: {str(e).splitlines()[0][:200]}") from None
    if not isinstance(unipo, dict):
        raise RlinoError(f"{path} does not follow UNIPO's schema: no object with header and entries")
    return unipo
