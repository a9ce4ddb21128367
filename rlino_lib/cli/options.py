"""Options that several commands share, and settings that only the command line has."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlino_lib.errors import RlinoError
from rlino_lib.settings import (
    COUNT,
    DEVICE,
    MODEL,
    PRECISION,
    PRECISION_HELP,
    SEED,
    SPLIT,
    TEMPERATURE,
    TOP_P,
    Allowed,
    as_tuples,
    check,
    setting,
    strict_json,
    text,
    whole,
    zero_or,
)
from rlino_lib.tasks import TASKS
from rlino_lib.training.config import TASK

if TYPE_CHECKING:
    pass



@dataclass(frozen=True)
class EvaluateConfig:
    """The options of `rlino evaluate` that have a value, but for the task's own settings."""

    task: str = setting("countdown", f"the task: {', '.join(TASKS)}", TASK)
    model: str = setting("", "folder or hub id; the default is the base that ships with the task", MODEL)
    split: str = setting("test", "train, validation or test", SPLIT)
    problems: int = setting(1024, "the first N of the split; 0: all", whole())
    samples: int = setting(1, "samples a problem", COUNT)
    max_new_tokens: int = setting(112, "the cap on a response", COUNT)
    temperature: float = setting(1.0, "of the sampling; 0: greedy", zero_or(TEMPERATURE))
    top_p: float = setting(1.0, "sample from the likeliest tokens with this share of the probability", TOP_P)
    device: str = setting("auto", "cpu, cuda or mps; auto: a GPU where there is one", DEVICE)
    precision: str = setting("auto", PRECISION_HELP, PRECISION)
    seed: int = setting(0, "of the sampling", SEED)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class BenchConfig:
    """The options of `rlino bench`."""

    repeats: int = setting(5, "measurements, of which the median counts", COUNT)
    seed: int = setting(0, "of the sampling", SEED)

    def __post_init__(self) -> None:
        check(self)


_NAME = text("")
FOLDER = Allowed(
    "a folder, there or not yet, with a name in UTF-8",
    lambda v: _NAME.holds(v) and (Path(v).is_dir() or not os.path.lexists(v)),
)
A_FOLDER = Allowed("a folder", lambda v: Path(v).is_dir())
A_FILE = Allowed("a file in a folder that is there", lambda v: Path(v).parent.is_dir() and not Path(v).is_dir())


def name_values(pairs: list[str], flag: str) -> dict[str, Any]:
    """What `flag` was given as NAME=VALUE pairs, values read as JSON where they are.

    Raises RlinoError for a pair without `=`, and for a value that is JSON but for NaN, an infinity or a repeated key.
    """
    if bad := [p for p in pairs if "=" not in p]:
        raise RlinoError(f"{flag} takes name=value, not {bad[0]!r}")
    return {k: _value(f"{flag} {k}", v) for k, v in (p.split("=", 1) for p in pairs)}


def _value(name: str, text: str) -> Any:
    try:
        return strict_json(text)
    except json.JSONDecodeError:
        return text
    except ValueError as e:
        raise RlinoError(f"{name} {e}") from e


def task_settings(pairs: list[str], flag: str = "--task-set") -> dict[str, Any]:
    """The settings of a task (or of what else `flag` sets) from NAME=VALUE pairs, lists as tuples."""
    return as_tuples(name_values(pairs, flag))


def _add_fields(parser: argparse.ArgumentParser, cls: type, skip: tuple[str, ...] = (), filled: bool = False) -> None:
    """An option for each field of a settings class, with the field's own help, default and range.

    Unless the defaults are to be `filled` in, an option that is not given leaves nothing behind, so that a preset can
    say what holds in its place.
    """
    for f in dataclasses.fields(cls):
        if f.name in skip:
            continue
        _option(parser, f.name, f.metadata["allowed"], f.default if filled else argparse.SUPPRESS, f.metadata["help"]
                + (f" (default: {f.default})" if f.default != "" else ""))


def _option(parser: argparse.ArgumentParser, name: str, allowed: Allowed, default: Any, help: str) -> None:
    flag = f"--{name.replace('_', '-')}"
    parser.add_argument(flag, type=allowed.parse, default=default, help=help.replace("%", "%%"))


def _fields(args: argparse.Namespace, cls: type) -> dict[str, Any]:
    return {f.name: getattr(args, f.name) for f in dataclasses.fields(cls) if hasattr(args, f.name)}
