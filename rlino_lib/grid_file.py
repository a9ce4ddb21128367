"""The file of a grid: from one JSON file to the names, settings and commands of many runs.

The file has "base" (settings of every run), "seeds", and the runs: one by one in "runs": [{"name": …, settings}, …], or
as the product of "axes": {"task": ["countdown", …], "method": […]}. An axis is a list of values of one setting, or has
names for several settings: {"batch": {"sgd": {"prompts": 64}, "whole": {"prompts": 512, "epochs": 8}}}. In "set", each
{"where": {"method": "grpo", "task": […]}, "lr": 2e-4} changes settings of the runs that it matches. "jobs" is the
number of runs at a time. A setting beside those of TrainConfig is "threads", a run's CPU threads (1).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from rlino_lib.config import TrainConfig
from rlino_lib.errors import RlinoError

Settings = dict[str, Any]


def read_file(file: str | Path) -> dict[str, Any]:
    """A grid file as it is, with what it may leave out filled in. Raises RlinoError where it is none."""
    try:
        grid = json.loads(Path(file).read_text(encoding="utf-8"))
        grid = {"base": {}, "runs": [], "axes": {}, "set": [], "jobs": 0, **grid}
    except (OSError, ValueError, TypeError) as e:
        raise RlinoError(f"{file} is no grid file: {type(e).__name__}: {e}") from e
    if wrong := set(grid) - {"base", "seeds", "runs", "axes", "set", "jobs"}:
        raise RlinoError(f"{file} is no grid file: it has {', '.join(map(repr, sorted(wrong)))}")
    if type(grid["jobs"]) is not int:
        raise RlinoError(f"{file} is no grid file: jobs is a number, not {grid['jobs']!r}")
    return grid


def read_grid(file: str | Path) -> list[tuple[str, Settings]]:
    """The runs of a grid file, by name and settings; seeds outermost, so that early ends still compare methods.

    Raises RlinoError for a file that is not as the head of this module says, for a setting that does not exist, for two
    runs of one name, and for an entry of "set" that matches no run or changes what a run is named after.
    """
    grid = read_file(file)
    try:
        return _expand(grid)
    except (KeyError, TypeError, AttributeError, RlinoError) as e:
        what = "" if isinstance(e, RlinoError) else f"{type(e).__name__}: "
        raise RlinoError(f"{file} is no grid file: {what}{e}") from e


def _expand(grid: Mapping[str, Any]) -> list[tuple[str, Settings]]:
    found: dict[str, Settings] = {}
    unused = [entry["where"] for entry in grid["set"]]
    for seed in grid["seeds"]:
        for name, labels, own in [*_listed(grid["runs"]), *_crossed(grid["axes"])]:
            name, settings = f"{name}-s{seed}", {**grid["base"], **own, "seed": seed}
            facts = {**vars(TrainConfig()), **settings, **labels}
            for entry in grid["set"]:
                changes = {k: v for k, v in entry.items() if k != "where"}
                if all(facts.get(k) in (v if isinstance(v, list) else [v]) for k, v in entry["where"].items()):
                    if named := {"seed", *labels} & set(changes):
                        raise RlinoError(f'"set" changes {", ".join(named)}, which runs are named after')
                    settings |= changes
                    unused = [where for where in unused if where != entry["where"]]
            if name in found or not re.fullmatch(r"[\w.+-]+", name):
                raise RlinoError(f"{name!r} is no name for a folder, or names two runs")
            TrainConfig(**{k: v for k, v in settings.items() if k != "threads"})  # raises where a setting is wrong,
            command_line(settings, Path(name))  # and so does this where one cannot be said
            found[name] = settings
    if unused or not found:
        raise RlinoError(f'"set" matches no run with {unused[0]}' if unused else "it has no runs")
    return list(found.items())


def _listed(runs: Iterable[Settings]) -> list[tuple[str, Settings, Settings]]:
    """Of each run its name, what else "where" can ask for, and its settings."""
    return [(run["name"], {"name": run["name"]}, {k: v for k, v in run.items() if k != "name"}) for run in runs]


def _crossed(axes: Mapping[str, Any]) -> Iterator[tuple[str, Settings, Settings]]:
    """The same for every combination of the axes: `countdown-grpo-lr0.0001` from two words and a number."""
    choices = []
    for axis, values in axes.items():
        named = values if isinstance(values, dict) else {value: {axis: value} for value in values}
        choices.append([(axis, label, settings) for label, settings in named.items()])
    for picked in product(*choices) if choices else ():
        name = "-".join(label if isinstance(label, str) else f"{axis}{label}" for axis, label, _ in picked)
        yield name, {axis: label for axis, label, _ in picked}, {k: v for *_, own in picked for k, v in own.items()}


def command_line(settings: Settings, out: Path) -> list[str]:
    """The command that makes one run; the one that a chapter prints."""
    words = ["train"]
    for name, value in settings.items():
        if name in ("task_settings", "objective_settings"):
            flag = f"--{name.removesuffix('_settings')}-set"
            words += [w for k, v in value.items() for w in (flag, f"{k}={json.dumps(v)}")]
        elif name != "threads":
            words += [f"--{name.replace('_', '-')}", str(value)]
    return [*words, "--threads", str(settings.get("threads", 1)), "--resume", "--out", str(out)]
