"""The house: what a room may import stands above it in CONTRIBUTING.md's map, and no two modules import each other."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

# The order of CONTRIBUTING.md's map: a module may import its own room and those before it.
ROOMS = (
    "errors paths settings folders tasks policy methods records analysis evaluation training exact claims figures "
    "widgets cli scale"
).split()
_DOTTED = re.compile(r"rlino_lib(\.\w+)+")


def modules(root: Path) -> dict[str, Path]:
    """The library's modules by their dotted names."""
    paths = {".".join(p.relative_to(root).with_suffix("").parts): p for p in (root / "rlino_lib").rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in paths.items()}


def imports(path: Path, known: set[str]) -> set[str]:
    """The library's modules that a file names: at its top, lazily, for type checkers alone, or as a string."""
    named = set()
    docs = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            docs.add(node.body[0].value)  # prose may name any module
        if isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{path}: a relative import hides which room it is from"
            parts = {f"{node.module}.{a.name}" for a in node.names}
            named |= {part if part in known else node.module for part in parts}
        elif isinstance(node, ast.Import):
            named |= {a.name for a in node.names}
        elif isinstance(node, ast.Constant) and node not in docs and _DOTTED.fullmatch(str(node.value)):
            named.add(node.value)
    return {name for name in named if name in known and name != "rlino_lib"}


@pytest.fixture(scope="module")
def graph(root) -> dict[str, set[str]]:
    paths = modules(root)
    return {name: imports(path, set(paths)) for name, path in paths.items() if name != "rlino_lib"}


def test_no_arrow_points_to_a_room_below(graph):
    room = {name: ROOMS.index(name.split(".")[1]) for name in graph}
    assert [f"{a} imports {b}" for a, others in graph.items() for b in others if room[b] > room[a]] == []


def test_no_modules_import_each_other(graph):
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as e:
        pytest.fail(" → ".join(e.args[1]))


def test_rooms_that_promise_to_know_no_torch_do_not_load_it(graph):
    """Of themselves and all that they import: the settings and the records are read without a model at hand."""
    for start in ("rlino_lib.training.config", "rlino_lib.records", "rlino_lib.tasks", "rlino_lib.cli.options"):
        reached, todo = set(), [start]
        while todo:
            name = todo.pop()
            reached.add(name)
            todo += graph[name] - reached
        for name in reached:
            text = modules(Path(__file__).resolve().parents[1])[name].read_text(encoding="utf-8")
            assert not re.search(r"^(import|from) (torch|transformers)\b", text, re.M), (start, name)


def test_a_circle_and_an_arrow_down_would_be_seen(tmp_path):
    """The reader of imports sees every way in which a module can name another."""
    (tmp_path / "rlino_lib" / "cli").mkdir(parents=True)
    (tmp_path / "rlino_lib" / "cli" / "main.py").write_text("", encoding="utf-8")
    ways = (
        "from rlino_lib.cli import main", "from rlino_lib.cli.main import x", "import rlino_lib.cli.main",
        "def f():\n    from rlino_lib.cli import main", "if TYPE_CHECKING:\n    from rlino_lib.cli.main import x",
        'COMMAND = ("-m", "rlino_lib.cli.main")',
    )  # fmt: skip
    for way in ways:
        path = tmp_path / "rlino_lib" / "paths.py"
        path.write_text(f'"""As `rlino_lib.cli.main` does."""\n{way}\n', encoding="utf-8")
        assert imports(path, set(modules(tmp_path))) == {"rlino_lib.cli.main"}, way


def test_each_room_and_its_order_stand_on_the_map(root):
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    places = [re.search(rf"^  {room}\b", text, re.M) for room in ROOMS]
    assert all(places), [room for room, place in zip(ROOMS, places, strict=True) if not place]
    starts = [place.start() for place in places]
    assert starts == sorted(starts)
    on_disk = {p.name.removesuffix(".py") for p in (root / "rlino_lib").iterdir() if not p.name.startswith("__")}
    assert on_disk == set(ROOMS)
