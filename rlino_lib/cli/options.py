"""The options of every command as rows, and what they say."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from rlino_lib import settings
from rlino_lib.errors import RlinoError
from rlino_lib.settings import Allowed, as_tuples, strict_json
from rlino_lib.tasks import TASKS
from rlino_lib.training.config import TASK, Recipe, TrainConfig
from rlino_lib.training.presets import find_preset

# --- what an option may be -------------------------------------------------------------------------------------------

_NAME = settings.text("")
_KNOWN = settings.text("a name in UTF-8", r"[^\x00-\x1f\x7f]{0,200}")
FOLDER = Allowed(
    "a folder, there or not yet, with a name in UTF-8",
    lambda v: _NAME.holds(v) and (Path(v).is_dir() or not os.path.lexists(v)),
)
A_FOLDER = Allowed("a folder", lambda v: Path(v).is_dir())
A_FILE = Allowed("a file in a folder that is there", lambda v: Path(v).parent.is_dir() and not Path(v).is_dir())

# --- options as rows -------------------------------------------------------------------------------------------------

Option = tuple[tuple[str, ...], dict[str, Any]]  # what argparse's add_argument takes


def option(*flags: str, allowed: Allowed | None = None, **keywords: Any) -> Option:
    """An option, or an argument without a flag; `allowed` says what its value may be."""
    return flags, keywords | ({"type": allowed.parse} if allowed else {})


def valued(flag: str, default: Any, words: str, allowed: Allowed) -> Option:
    """An option with a default, which its help says."""
    words += f" (default: {default})" if default != "" else ""
    return option(flag, allowed=allowed, default=default, help=words.replace("%", "%%"))


def field_options(cls: type, skip: Collection[str] = ()) -> list[Option]:
    """An option for each field of a settings class, with the field's own help, default and range.

    One that is not given is absent from the result, so that a preset can supply its value.
    """
    options = []
    for f in (f for f in dataclasses.fields(cls) if f.name not in skip):
        flags, row = valued(f"--{f.name.replace('_', '-')}", f.default, f.metadata["help"], f.metadata["allowed"])
        options.append((flags, row | {"default": argparse.SUPPRESS}))
    return options


def fields_of(args: argparse.Namespace, cls: type) -> dict[str, Any]:
    """The fields of a settings class that the command line gives."""
    return {f.name: getattr(args, f.name) for f in dataclasses.fields(cls) if hasattr(args, f.name)}


def add_options(parser: argparse.ArgumentParser, options: Iterable[Option]) -> None:
    """Add the rows to a parser."""
    for flags, keywords in options:
        parser.add_argument(*flags, **keywords)


# --- the options of each command -------------------------------------------------------------------------------------

_THREADS = option("--threads", allowed=settings.THREADS, default=0, help="CPU threads (default: torch's)")
_OUT_HELP = "folder to write; a killed command started again goes on in it"
_RUN = (option("--out", allowed=FOLDER, required=True, help=_OUT_HELP), _THREADS)
_DEVICE = option("--device", allowed=settings.DEVICE, default="auto", help="cpu, cuda or mps (default: a GPU, if any)")
_NO_SEED = option("--seed", allowed=settings.SEED, default=0, help="without effect: nothing is drawn at random")
_TASK_SET = option("--task-set", action="append", default=[], metavar="NAME=VALUE",
                   help="a setting of the task, such as grader=boxed for gsm8k")  # fmt: skip

GRADE = (
    option("file", metavar="FILE", help="JSONL of responses; - reads stdin"),
    option("--task", choices=list(TASKS), default="countdown", help="whose grader (default: %(default)s)"),
    option("--rewards", choices=["binary", "format"], default="binary",
           help="binary: right 1, else 0; format: right 1, a wrong answer 0.1, no answer 0 (default: %(default)s)"),
    _TASK_SET,
    option("--out", type=Path, help="write the graded lines here, whole or not at all (default: stdout)"),
    _NO_SEED,
)  # fmt: skip
PRETRAIN = (
    *_RUN, *field_options(Recipe), _DEVICE,
    option("--workers", allowed=settings.whole(),
           help="processes that make the traces, which do not depend on it (default: 0; on a GPU up to 14)"),
)  # fmt: skip
TRAIN_SETTINGS = (
    *field_options(TrainConfig, skip=("task_settings", "objective_settings")),
    option("--preset", default="", metavar="NAME", help="start from these settings (`rlino presets` lists them)"),
    option("--lora", action="store_true", help="train adapters alone, of rank 16 unless --lora-rank says otherwise"),
    _TASK_SET,
    option("--objective-set", action="append", default=[], metavar="NAME=VALUE",
           help="a change to the method: normaliser=constant"),
    option("--resume", action="store_true", help="without effect: a killed run goes on anyway"),
    option("--save", action="store_true", help="keep the trained model, in --out/model"),
)  # fmt: skip
TRAIN = (
    option("--out", allowed=FOLDER, help=_OUT_HELP), _THREADS, *TRAIN_SETTINGS,
    option("--dry-run", action="store_true",
           help="print the memory and time of the run, measured on a part of a step at random weights; write nothing"),
)  # fmt: skip
_MODEL = valued("--model", "", "folder or hub id; the default is the base that ships with the task", settings.MODEL)
_SAMPLING = (
    _DEVICE, valued("--precision", "auto", settings.PRECISION_HELP, settings.PRECISION),
    valued("--seed", 0, "of the sampling", settings.SEED),
)  # fmt: skip
EVALUATE = (
    *_RUN, valued("--task", "countdown", f"the task: {', '.join(TASKS)}", TASK), _TASK_SET, _MODEL, *_SAMPLING,
    valued("--split", "test", "train, validation or test", settings.SPLIT),
    valued("--problems", 1024, "the first N of the split; 0: all", settings.whole()),
    valued("--samples", 1, "samples per problem", settings.COUNT),
    valued("--max-new-tokens", 112, "the cap on a response", settings.COUNT),
    valued("--temperature", 1.0, "of the sampling; 0: greedy", settings.zero_or(settings.TEMPERATURE)),
    valued("--top-p", 1.0, "sample from the likeliest tokens with this share of the probability", settings.TOP_P),
    option("--shots", allowed=settings.whole(),
           help="worked examples in the prompt, as --task-set shots=N (gsm8k: 0 to 8)"),
    option("--unsolved-by", allowed=A_FOLDER, metavar="DIR",
           help="of these problems only those of which the evaluation in DIR has no right sample"),
    option("--responses", action="store_true", help="keep the texts too, for `rlino grade`"),
)  # fmt: skip
FOUR_NUMBERS = {"n_numbers": 4, "new_targets": True}  # the task of `rlino chains`, as in chapter 09's runs
CHAINS = (
    *_RUN, _TASK_SET, _MODEL, *_SAMPLING,
    valued("--task", "countdown", "countdown alone, whose thoughts can be read", settings.one_of(("countdown",))),
    valued("--split", "validation", "train, validation or test", settings.SPLIT),
    valued("--problems", 128, "the first N of the split", settings.whole(2)),
    valued("--samples", 32, "samples per problem", settings.COUNT),
    valued("--max-new-tokens", 160, "the cap on a response", settings.COUNT),
)  # fmt: skip
FORMATS = ("trl", "verl", "lm-eval", "jsonl")  # as in records.importers, which takes its time to load
IMPORT = (
    option("sources", nargs="+", metavar="SOURCE", help="a file or a folder; several of one run, of one format"),
    option("--out", allowed=FOLDER, required=True, help="run folder to write"),
    option("--format", choices=FORMATS, default="", help="what wrote the files (default: recognised)"),
    option("--map", action="append", default=[], metavar="FIELD=COLUMN",
           help="which column holds which field, several separated by commas"),
    option("--split", choices=("train", "validation", "test"), default="",
           help="what the responses are of: training, evaluations during it, or the test after it (default: train; "
           "test for lm-eval, and for JSONL without steps)"),
    option("--filter", default="", help="of lm-eval: whose verdicts are read (default: the first in the file)"),
    option("--method", allowed=_KNOWN, default="", help="the run's method, as of `rlino train`, or another"),
    option("--task", allowed=_KNOWN, default="", help=f"the run's task: {', '.join(TASKS)}, or another"),
    option("--model", allowed=_KNOWN, default="", help="the model that it started from, by its hub id"),
    option("--seed", allowed=settings.SEED, help="the run's seed"),
    option("--max-new-tokens", allowed=settings.COUNT, help="the cap on its responses, in tokens"),
)  # fmt: skip
VALUES = (
    option("run", help="a run that --save has kept: its policy, and its critic where it has one"),
    option("--out", help="a folder for the values (default: values, in the run's)"),
    valued("--problems", 64, "test problems, the first ones", settings.COUNT),
    valued("--samples", 5, "responses to each", settings.BATCH),
    valued("--seed", 0, "of the draws", settings.SEED),
    _DEVICE,
)  # fmt: skip
GRADIENTS = (
    *_RUN,
    option("evaluation", allowed=A_FOLDER, help="folder of an evaluation with enough samples of each problem"),
    option("--model", allowed=settings.MODEL, default="", help="its policy (default: the task's base)"),
    valued("--problems", 24, "problems of each difficulty", settings.whole(8)),
    valued("--groups", 12, "groups of 8 responses to each", settings.whole(2)),
    valued("--seed", 1, "of the draws, another than the evaluation's", settings.SEED),
    _DEVICE,
)  # fmt: skip
GRID = (
    option("file"),
    option("--jobs", allowed=settings.whole(), default=0,
           help="runs at a time (default: what the file says, or the machine)"),
    option("--out", allowed=FOLDER, help="folder for the runs (default: beside the file, named like it)"),
    option("--dry-run", action="store_true", help="list the runs, their state and the time left; start none"),
)  # fmt: skip
FETCH = (
    option("what", choices=("gsm8k",)),
    option("--from", dest="source", metavar="DIR", help="copy the files from here, instead of downloading them"),
    option("--out", allowed=FOLDER, help="folder for the files (default: $RLINO_DATA/gsm8k, or ~/.cache/rlino/gsm8k)"),
    _NO_SEED,
)
BENCH = (
    option("what", choices=("rollout", "pass-at-k", "step", "credit", "memory", "shape-0.5b", "shape-1.5b", "gpu")),
    option("--repeats", allowed=settings.COUNT, help="measurements, of which the median counts (default: 5)"),
    valued("--seed", 0, "of the sampling", settings.SEED), _THREADS,
)  # fmt: skip
PRESETS = (option("name", nargs="?", default=""),)
CLAIMS = (
    option("--runs", help="folder of recorded runs (default: data/runs)"),
    option("--yours", metavar="DIR", help="judge the runs in a folder of your own in their place, by model"),
    option("--out", allowed=A_FILE, help="a JSON file for the claims with their evidence"),
)


# --- what options say ------------------------------------------------------------------------------------------------


def name_values(pairs: Iterable[str], flag: str) -> dict[str, Any]:
    """What `flag` was given as NAME=VALUE pairs, values read as JSON where they are.

    Raises RlinoError for a pair without `=`, a name given twice, and for a value that would be JSON except for NaN, an
    infinity or a repeated key.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise RlinoError(f"{flag} takes name=value, not {pair!r}")
        if name in values:
            raise RlinoError(f"{flag} sets {name} twice")
        try:
            values[name] = strict_json(value)
        except json.JSONDecodeError:
            values[name] = value
        except ValueError as e:
            raise RlinoError(f"{flag} {name} {e}") from e
    return values


def task_settings(pairs: Iterable[str], flag: str = "--task-set") -> dict[str, Any]:
    """The settings of a task (or of what else `flag` sets) from NAME=VALUE pairs, lists as tuples."""
    return as_tuples(name_values(pairs, flag))


def train_config(args: argparse.Namespace) -> TrainConfig:
    """The settings of a run: those that were given, then those of the preset, then the defaults."""
    options = fields_of(args, TrainConfig)
    if args.lora and options.setdefault("lora_rank", 16) == 0:
        raise RlinoError("--lora trains adapters, and --lora-rank 0 has none")
    preset = find_preset(args.preset).settings if args.preset else {}
    options["task_settings"] = {**preset.get("task_settings", {}), **task_settings(args.task_set)}
    options["objective_settings"] = task_settings(args.objective_set, "--objective-set")
    return TrainConfig(**{**preset, **options})


def set_threads(n: int) -> None:
    """Compute on n CPU threads; 0 leaves torch's own number."""
    if n:
        import torch

        torch.set_num_threads(n)
