"""Systems that readers ask about, beside the catalogue's methods: `data/systems.toml` (chapter 11b).

The file is the book's own: what it may hold is tested, in `tests/analysis/test_systems.py`, and not checked here.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass

from rlino_lib.paths import DATA
from rlino_lib.settings import as_tuples

SYSTEMS = DATA / "systems.toml"


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
    drops: tuple[str, ...] = ()  # of the atlas's ASSUMPTIONS
    beyond: str = ""  # what of it is no decision process of a language model, where something is

    @property
    def anchor(self) -> str:
        """The heading as the site's link to it has it."""
        return re.sub(r"[^\w -]", "", self.heading.strip().lower()).replace(" ", "-")


def read_systems() -> list[System]:
    """The systems in their order."""
    rows = tomllib.loads(SYSTEMS.read_text(encoding="utf-8"))["system"]
    return [System(**as_tuples(row)) for row in rows]
