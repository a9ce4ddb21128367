"""Where the book's files are."""

import os
import tomllib
from pathlib import Path
from typing import Any

from rlino_lib.errors import RlinoError

REPO = Path(__file__).resolve().parent.parent
DATA = REPO / "data"
RUNS = DATA / "runs"
CHAPTER_COSTS = DATA / "bench" / "chapters.json"  # written by `python -m tools.book run --record`
# The bases that ship with their tasks.
BASES = {task: str(DATA / "base" / task) for task in ("countdown", "word_problems", "clean_room", "hidden_target")}
DEFAULT_BASE = BASES["countdown"]


def pyproject(root: Path = REPO) -> dict[str, Any]:
    """The tables of a checkout's pyproject.toml, `project` among them; RlinoError where it is missing or damaged."""
    path = root / "pyproject.toml"
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        _ = [tables["project"][name] for name in ("version", "requires-python", "dependencies")]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise RlinoError(f"{path} is missing or damaged ({type(e).__name__}: {e}): git checkout -- {path.name}") from e
    return tables


def base_of(task: str) -> str:
    """The folder of the base that ships with a task; raises RlinoError where there is none."""
    if task not in BASES:
        raise RlinoError(
            f"unknown task {task!r}, or one without a shipped base ({', '.join(BASES)} have one): name a model"
        )
    return BASES[task]


def cache_folder() -> Path:
    """Where data sets live that the repository does not hold: `$RLINO_DATA`, or `~/.cache/rlino`."""
    home = os.environ.get("RLINO_DATA")
    return Path(os.path.expanduser(home or "~/.cache/rlino"))  # which stays as it is where nobody knows a home
