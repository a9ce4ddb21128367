"""TRL: `trainer_state.json`, and the Parquet files that `log_completions=True` writes, one for each logged step.

The log has numbers of all steps since the one before; the file of a step has the responses of its last batch. Their
lengths in tokens are not recorded, so what is known of a response is its characters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rlino_lib.errors import RlinoError
from rlino_lib.records.importers.fields import Column, all_verdicts
from rlino_lib.records.importers.files import Record, json_file, numbered, parquet_rows
from rlino_lib.records.importers.source import Imported, Reader, present

STATE = "trainer_state.json"
RENAMED = {"learning_rate": "lr", "completion_length": "completions/mean_length",
           "clip_ratio/region_mean": "clip_ratio", "eval_completions/mean_length": "eval/mean_length",
           "eval_entropy": "eval/entropy", "eval_completions/clipped_ratio": "eval/clipped_ratio"}  # fmt: skip
_OURS = {"prompt": "prompt", "response": "completion", "step": "step", "advantage": "advantage"}
_GRADERS = ("accuracy_reward", "reasoning_accuracy_reward")  # TRL's own verifiers


def files(source: Path) -> list[Path]:
    """The last state of a run's folder, or of a checkpoint, and its completions in the order of steps."""
    if source.is_file():
        return [source] if source.name == STATE or source.suffix == ".parquet" else []
    states = [source / STATE] if (source / STATE).is_file() else []
    if not states:
        checkpoints = [p for p in source.glob("checkpoint-*") if p.name[11:].isdecimal() and (p / STATE).is_file()]
        states = [p / STATE for p in sorted(checkpoints, key=lambda p: int(p.name[11:]))[-1:]]
    folder = source / "completions"
    return states + numbered(folder if folder.is_dir() else source, r"completions_(\d+)\.parquet")


def read(paths: Sequence[Path], mapped: Mapping[str, Column], filter_name: str) -> Imported:
    """The log by step, the summary, and the responses with their rewards."""
    states = [path for path in paths if path.suffix == ".json"]
    tables = [path for path in paths if path.suffix == ".parquet"]
    if len(states) > 1:
        raise RlinoError(f"{states[0]} and {states[1]} are of two runs, or of one twice: import one of them")
    imported = Imported(columns=dict(mapped))
    for path in states:
        _read_state(path, imported)
    if tables:
        _read_responses(tables, imported)
    _name_accuracy(imported)
    return imported


def _read_responses(tables: Sequence[Path], imported: Imported) -> None:
    records = [pair for path in tables for pair in parquet_rows(path)]
    if not records:
        raise RlinoError(f"{tables[0]} has no rows")
    plain = [record for _, record in records]
    rewards = _reward_columns(plain[0], imported)
    columns = present(plain[0], _OURS)
    if len(rewards) > 1 and _is_plain_sum(rewards, imported):
        columns["reward"] = Column(" + ".join(rewards))
        for record in plain:
            known = [v for name in rewards if isinstance(v := record.get(name), int | float) and v == v]
            record[columns["reward"].name] = sum(known) if known else None
    elif len(rewards) == 1:
        columns["reward"] = Column(rewards[0])
    graders = rewards if len(rewards) == 1 else [name for name in _GRADERS if name in rewards]
    if graders and all_verdicts(plain, graders[0]):
        columns["correct"] = Column(graders[0])
    imported.columns = columns | imported.columns
    imported.take(records)


def _read_state(path: Path, imported: Imported) -> None:
    state = json_file(path)
    history = state.get("log_history")
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        raise RlinoError(f"{path} is no {STATE} of transformers: it has no list log_history")
    for entry in history:
        numbers = {RENAMED.get(name, name): value for name, value in entry.items() if name != "step"}
        imported.log(entry.get("step"), numbers, f"{path}, log_history")
    last = max(imported.logged, default=0)
    reached, planned = (n if type(n := state.get(name)) is int else 0 for name in ("global_step", "max_steps"))
    if "train_runtime" in imported.logged.get(last, {}):  # the trainer came to its end, be it an early one
        imported.summary["seconds"] = imported.logged[last]["train_runtime"]
    else:
        imported.ends(planned, reached)
    # An evaluation writes its responses over those of its step: the file may hold either, or some of both.
    imported.unclear = frozenset(entry["step"] for entry in history if any(k.startswith("eval_") for k in entry))


def _name_accuracy(imported: Imported) -> None:
    """The logged mean of the reward that says who is right is the accuracy, of training samples and of evaluations."""
    grader = imported.columns.get("correct")
    if grader and not grader.sign:
        for numbers in imported.logged.values():
            for prefix, name in (("", "accuracy"), ("eval_", "eval/accuracy")):
                for logged in (f"{prefix}rewards/{grader.name}", f"{prefix}rewards/{grader.name}/mean"):
                    if logged in numbers:
                        numbers[name] = numbers[logged]


def _reward_columns(record: Record, imported: Imported) -> list[str]:
    """The columns of reward functions: those in the log, or without one a single column of numbers."""
    logged = {name.split("/")[1] for numbers in imported.logged.values() for name in numbers if name[:8] == "rewards/"}
    if logged:
        return [name for name in record if name in logged]
    other = [name for name, value in record.items() if name not in _OURS.values() and isinstance(value, int | float)]
    return other if len(other) == 1 else []


def _is_plain_sum(names: Sequence[str], imported: Imported) -> bool:
    """Whether the log shows that the reward is the sum of the functions' rewards, unweighted."""
    gaps = []
    for numbers in imported.logged.values():
        logged = (numbers.get(f"rewards/{name}/mean", numbers.get(f"rewards/{name}")) for name in names)
        means = [mean for mean in logged if mean is not None]
        if "reward" in numbers and len(means) == len(names):
            gaps.append(abs(numbers["reward"] - sum(means)))
    return bool(gaps) and max(gaps) < 1e-4


READER = Reader(
    f"a folder of a TRL run ({STATE}, or checkpoints with it, or completions/completions_*.parquet) or one of these "
    "files", files, read,
)  # fmt: skip
