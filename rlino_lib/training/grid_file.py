"""The file of a grid: from one JSON file to the names, settings and commands of many runs.

The file has "base" (settings of every run), "seeds", and the runs: one by one in "runs": [{"name": …, settings}, …], or
as the product of "axes": {"task": ["countdown", …], "method": […]}. An axis is a list of values of one setting, or has
names for several settings: {"batch": {"sgd": {"prompts": 64}, "whole": {"prompts": 512, "epochs": 8}}}. In "set", each
{"where": {"method": "grpo", "task": […]}, "lr": 2e-4} changes settings of the runs that it matches. "jobs" is the
number of runs at a time. Settings beside those of TrainConfig are "threads", a run's CPU threads (1), and "save",
whether it keeps the trained model.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

from rlino_lib.errors import RlinoError
from rlino_lib.settings import FLAG, SEED, TABLE, check, check_names, list_of, setting, strict_json, whole
from rlino_lib.training.config import TrainConfig

Settings = dict[str, Any]
THREADS = whole(1, 1024)  # of a run, which shares the machine with others: never torch's own choice
OF_COMMAND = ("threads", "save")  # settings of a run's command alone
SETTINGS = (*(f.name for f in fields(TrainConfig) if f.name != "seed"), *OF_COMMAND)


@dataclass(frozen=True)
class GridFile:
    """A grid file as it is; raises RlinoError for a part that is not of its kind."""

    seeds: list[int] = setting(list, "each makes a run of everything else", list_of(SEED, least=1))
    base: Settings = setting(dict, "settings of every run", TABLE)
    runs: list[Settings] = setting(list, "a name and settings each", list_of(TABLE))
    axes: dict[str, Any] = setting(dict, "their product makes runs", TABLE)
    set: list[Settings] = setting(list, "changes to the runs that an entry matches", list_of(TABLE))
    jobs: int = setting(0, "runs at a time; 0: as many as fit the machine", whole())

    def __post_init__(self) -> None:
        check(self)


def read_file(file: str | Path) -> dict[str, Any]:
    """A grid file as it is, with what it may leave out filled in. Raises RlinoError for any other file."""
    try:
        grid = strict_json(Path(file).read_text(encoding="utf-8-sig"))
        TABLE.check("it", grid)
        check_names(grid, [f.name for f in fields(GridFile)], "it")
        return vars(GridFile(**grid))
    except (OSError, ValueError, RlinoError) as e:
        raise RlinoError(f"{file} is not a grid file: {e}") from e


def read_grid(file: str | Path) -> list[tuple[str, Settings]]:
    """The runs of a grid file, by name and settings; seeds outermost, so that early ends still compare methods.

    Raises RlinoError for a file of another form than this module's docstring gives, for an unknown setting, method or
    task, for a wrong value, for names that would share a folder, and for an entry of "set" that matches no run or
    changes what a run is named after.
    """
    grid = read_file(file)
    try:
        return _expand(grid)
    except RlinoError as e:
        raise RlinoError(f"{file} is not a grid file: {e}") from e


def _expand(grid: Mapping[str, Any]) -> list[tuple[str, Settings]]:
    runs: dict[str, Settings] = {}
    rules = [_rule(entry) for entry in grid["set"]]
    unused = [where for where, _ in rules]
    for seed in grid["seeds"]:
        for stem, labels, own in [*_listed(grid["runs"]), *_crossed(grid["axes"])]:
            name = f"{stem}-s{seed}"
            settings = {**grid["base"], **own}
            facts = {**vars(TrainConfig()), **settings, "seed": seed, **labels}
            for where, changes in rules:
                if all(facts.get(key) in (v if isinstance(v, list) else [v]) for key, v in where.items()):
                    if named := {"seed", *labels} & set(changes):
                        raise RlinoError(f'"set" changes {", ".join(named)}, which runs are named after')
                    settings |= changes
                    unused = [other for other in unused if other != where]
            _check_name(name, runs)
            runs[name] = _checked(name, settings, seed)
    if unused or not runs:
        raise RlinoError(f'"set" matches no run with {unused[0]}' if unused else "it has no runs")
    return list(runs.items())


def _rule(entry: Settings) -> tuple[dict[str, Any], Settings]:
    """An entry of "set": which runs it matches, and what it changes of them."""
    if "where" not in entry:
        raise RlinoError(f'an entry of "set" has no "where": {json.dumps(entry)[:80]}')
    TABLE.check('"where"', entry["where"])
    return entry["where"], {name: value for name, value in entry.items() if name != "where"}


def _check_name(name: str, runs: Iterable[str]) -> None:
    """Raise RlinoError unless a run's name makes a folder of its own, also where upper and lower case are the same."""
    if name in runs or not re.fullmatch(r"\w[\w.+-]*", name):
        raise RlinoError(f"{name!r} is not a name for a folder, or names two runs")
    if alike := [other for other in runs if other.casefold() == name.casefold()]:
        raise RlinoError(f"{alike[0]!r} and {name!r} differ in case alone, and are one folder on many disks")


def train_config(settings: Settings) -> TrainConfig:
    """The configuration that a run of a grid trains with."""
    return TrainConfig(**{name: value for name, value in settings.items() if name not in OF_COMMAND})


def _checked(name: str, settings: Settings, seed: int) -> Settings:
    """The settings with their seed; raises RlinoError, naming run and setting, for what the run itself would refuse."""
    from rlino_lib.training.checks import check_run  # torch takes seconds to import

    try:
        check_names(settings, SETTINGS, "a run")
        THREADS.check("threads", settings.get("threads", 1))
        FLAG.check("save", settings.get("save", False))
        if settings.get("model") == "":
            raise RlinoError("model is empty: leave it out for the base that ships with the task")
        settings = {**settings, "seed": seed}
        check_run(train_config(settings))
    except RlinoError as e:
        raise RlinoError(f"run {name}: {e}") from e
    return settings


def _listed(runs: Iterable[Settings]) -> list[tuple[str, Settings, Settings]]:
    """The name of each run, the labels that "where" can match besides settings, and its settings."""
    if nameless := [run for run in runs if not isinstance(run.get("name"), str)]:
        raise RlinoError(f'"name" of a run must be a word, and is not in {json.dumps(nameless[0])[:80]}')
    return [(run["name"], {"name": run["name"]}, {k: v for k, v in run.items() if k != "name"}) for run in runs]


def _crossed(axes: Mapping[str, Any]) -> Iterator[tuple[str, Settings, Settings]]:
    """The same for every combination of the axes: `countdown-grpo-lr0.0001` from two words and a number."""
    choices = []
    for axis, values in axes.items():
        _check_axis(axis, values)
        named = values if isinstance(values, dict) else {value: {axis: value} for value in values}
        choices.append([(axis, label, settings) for label, settings in named.items()])
    for combination in product(*choices) if choices else ():
        name = "-".join(label if isinstance(label, str) else f"{axis}{label}" for axis, label, _ in combination)
        own = [pair for *_, settings in combination for pair in settings.items()]
        if len(dict(own)) < len(own):
            raise RlinoError(f"two axes of {name!r} change the same setting: {', '.join(k for k, _ in own)}")
        yield name, {axis: label for axis, label, _ in combination}, dict(own)


def _check_axis(axis: str, values: Any) -> None:
    """Raise RlinoError unless an axis is a list of different words or of different numbers, or a table of tables."""
    named = isinstance(values, dict)
    members = list(values.values()) if named else values
    uniform = ({dict},) if named else ({str}, {int, float})
    if not isinstance(members, list) or not any({type(v) for v in members} <= types for types in uniform):
        allowed = "a list of words or a list of numbers, or a table of names and settings"
        raise RlinoError(f"axis {axis!r} must be {allowed}, not {json.dumps(values)[:80]}")
    if not named and len(set(values)) < len(values):
        raise RlinoError(f"axis {axis!r} has a value twice, which names two runs: {json.dumps(values)[:80]}")


def command_line(settings: Settings, out: Path) -> list[str]:
    """The command that makes one run; the one that a chapter prints."""
    words = ["train"]
    for name, value in settings.items():
        if name in ("task_settings", "objective_settings"):
            flag = f"--{name.removesuffix('_settings')}-set"
            words += [w for k, v in value.items() for w in (flag, f"{k}={json.dumps(v)}")]
        elif name not in OF_COMMAND:
            words += [f"--{name.replace('_', '-')}", str(value)]
    words += ["--save"] * settings.get("save", False)
    return [*words, "--threads", str(settings.get("threads", 1)), "--out", str(out)]
