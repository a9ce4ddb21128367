"""Systems that readers ask about, beside the catalogue's methods: `data/systems.toml`, checked (chapter 11)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlino_lib.analysis.atlas import ASSUMPTIONS, drops
from rlino_lib.errors import RlinoError
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.methods.rewards import REWARDS
from rlino_lib.paths import DATA
from rlino_lib.tasks import TASKS

SYSTEMS = DATA / "systems.toml"
_LISTS = {"methods": tuple(OBJECTIVES), "rewards": tuple(REWARDS), "tasks": tuple(TASKS), "drops": ASSUMPTIONS}
_FORMS = {
    "id": r"[a-z0-9-]+", "name": r"\S.*", "arxiv": r"\d{4}\.\d{4,5}", "changes": r"[A-Z].*\.", "chapter": r"\d\d[a-z]?",
    "heading": r"\S.*", "beyond": r"([A-Z].*\.)?",
}  # fmt: skip


@dataclass(frozen=True)
class System:
    """A row of the file: a published system, and where this book tests what it changes."""

    id: str
    name: str
    arxiv: str  # the paper's number
    changes: str  # against GRPO, in a plain sentence
    chapter: str  # where that is tested: 09b
    heading: str  # and under which heading
    methods: tuple[str, ...] = ()  # rows of the catalogue that train it here
    rewards: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()  # of ASSUMPTIONS
    beyond: str = ""  # what of it is no decision process of a language model, where something is

    @property
    def anchor(self) -> str:
        """The heading as the site's link to it has it."""
        return re.sub(r"[^\w -]", "", self.heading.strip().lower()).replace(" ", "-")


def read_systems(path: str | Path = SYSTEMS) -> list[System]:
    """The systems in their order. Raises RlinoError for a malformed file or row, and names the row and the field."""
    try:
        rows = tomllib.loads(Path(path).read_text(encoding="utf-8"))["system"]
        systems = [System(**_tuples(row)) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise RlinoError(f"{path} is not a list of systems: {e}") from e
    for system in systems:
        _check(system)
    for name in ("id", "arxiv"):
        values = [getattr(system, name) for system in systems]
        if repeated := [value for value in values if values.count(value) > 1]:
            raise RlinoError(f"{path} has two systems with the {name} {repeated[0]}")
    return systems


def _tuples(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}


def _check(system: System) -> None:
    """Raise RlinoError for a field of another form, a key that the library lacks, or a row's assumption left out."""
    for name, form in _FORMS.items():
        value = getattr(system, name)
        if not isinstance(value, str) or not re.fullmatch(form, value):
            raise RlinoError(f"system {system.id}: {name} is {value!r}, which is not of the form {form}")
    for name, known in _LISTS.items():
        values = getattr(system, name)
        if not isinstance(values, tuple) or (unknown := [value for value in values if value not in known]):
            wrong = unknown[0] if isinstance(values, tuple) else values
            raise RlinoError(f"system {system.id}: {name} has {wrong!r}, which is none of {', '.join(known)}")
    for method in system.methods:
        if (dropped := drops(OBJECTIVES[method])) and dropped not in system.drops:
            raise RlinoError(f"system {system.id}: its row {method} drops the {dropped}, and drops does not say so")
