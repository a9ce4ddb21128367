"""What a chapter gives to its reader: one name for one model, exercises whose solutions pass, and answers that hold.

A chapter takes long; an exercise needs a few of its cells. `needed` finds them: for every name that a cell uses, the
last cell before it that binds the name, and so on. The last, as in the notebook: what a chapter has overwritten by then
is what its reader gets.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import jupytext
import matplotlib
import pytest

from checkers.head_to_head import find_liar

BOOK = Path(__file__).resolve().parents[2] / "book"
CHAPTERS = sorted(BOOK.glob("[0-9][0-9]*_*.py"))
MODELS = {"load_policy", "from_pretrained", "SharedPolicy", "TabularPolicy", "float64_copy", "add_lora", "merged"}


# ---- names -----------------------------------------------------------------------------------------------------------
def bound(node: ast.AST) -> Iterator[tuple[str, ast.AST | None]]:
    """Every name that a piece of code binds where it stands, with the value if it is assigned one."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
            yield child.name, child
        elif isinstance(child, (ast.Import, ast.ImportFrom)):
            yield from ((name.asname or name.name.split(".")[0], child) for name in child.names)
        elif isinstance(child, ast.Assign):
            yield from (pair for target in child.targets for pair in targets(target, child.value))
            yield from bound(child.value)
        elif isinstance(child, (ast.For, ast.comprehension, ast.AugAssign, ast.AnnAssign, ast.NamedExpr)):
            local = isinstance(child, ast.comprehension)  # lives in its comprehension alone
            yield from () if local else targets(child.target, getattr(child, "value", None))
            yield from bound(child)
        elif isinstance(child, ast.withitem) and child.optional_vars:
            yield from targets(child.optional_vars, child.context_expr)
        elif not isinstance(child, ast.Lambda):
            yield from bound(child)


def targets(target: ast.AST, value: ast.AST | None) -> Iterator[tuple[str, ast.AST | None]]:
    if isinstance(target, (ast.Tuple, ast.List)):
        values = value.elts if isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == len(target.elts) else ()
        for k, part in enumerate(target.elts):
            yield from targets(part, values[k] if values else None)
    elif isinstance(target, ast.Name):
        yield target.id, value


def makes_a_model(value: ast.AST | None) -> bool:
    """Whether a value is a call that loads or makes a model (methods of it, such as `.eval()`, included)."""
    while isinstance(value, ast.Call):
        if getattr(value.func, "id", getattr(value.func, "attr", "")) in MODELS:
            return True
        value = getattr(value.func, "value", None)
    return False


def renamed_models(source: str) -> dict[str, set[str]]:
    """Names that stand for a model and at another place for something else: the name, and all that it is bound to."""
    meanings: dict[str, set[str]] = {}
    models = set()
    for name, value in bound(ast.parse(source)):
        meanings.setdefault(name, set()).add(ast.unparse(value) if value is not None else "unknown")
        if makes_a_model(value):
            models.add(name)
    return {name: meanings[name] for name in models if len(meanings[name]) > 1}


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_name_of_a_model_is_not_given_to_another(chapter):
    assert renamed_models(chapter.read_text(encoding="utf-8")) == {}


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("policy = load_policy()\nfor f in folders:\n    game, policy = task(f), load_policy(f)", {"policy"}),
        ("policy = load_policy()\nwith there() as policy:\n    pass", {"policy"}),
        ("model = Auto.from_pretrained(x).eval()\nmodel = 3", {"model"}),
        ("def learn():\n    policy = 1\npolicy = load_policy()\nrows = [policy for policy in rows]", set()),
        ("policy = load_policy()\ntrain(policy)\npolicy = load_policy()", set()),  # the same one, fresh again
        ("base = 3\nbase = 4", set()),
    ],
)
def test_a_name_that_changes_its_model_is_found(source, names):
    assert set(renamed_models(source)) == names


# ---- cells -----------------------------------------------------------------------------------------------------------
def code_cells(chapter: Path) -> list[str]:
    return [cell.source for cell in jupytext.read(chapter).cells if cell.cell_type == "code"]


def used(source: str) -> set[str]:
    """Names that a cell reads and does not have of itself, but for those of Python.

    Of itself: it binds them on an earlier line, or they live in a comprehension or are a function's arguments. Too few
    names would be a NameError, and too many only cost time.
    """
    tree = list(ast.walk(ast.parse(source)))
    reads, writes = {}, {}
    for node in tree:
        if isinstance(node, ast.Name):
            lines = reads if isinstance(node.ctx, ast.Load) else writes
            lines[node.id] = min(node.lineno, lines.get(node.id, node.lineno))
    local = {node.arg for node in tree if isinstance(node, ast.arg)}
    local |= {name for node in tree if isinstance(node, ast.comprehension) for name, _ in targets(node.target, None)}
    own = {name for name, line in reads.items() if writes.get(name, line) < line}
    return set(reads) - own - local - set(vars(builtins))


def needed(cells: list[str], place: int) -> list[int]:
    """The cells, in order, that have to run before the one at `place` so that every name it uses has its value."""
    binds = [{name for name, _ in bound(ast.parse(cell))} for cell in cells]
    want = [place]
    places = {place}
    while want:
        at = want.pop()
        for name in used(cells[at]):
            before = [k for k in range(at) if name in binds[k]]
            if before and before[-1] not in places:
                places.add(before[-1])
                want.append(before[-1])
    return sorted(places)


def run(cells: list[str], place: int, own: str | None = None) -> dict:
    """The names after a cell, or after `own` code in its place, and the cells that it needs."""
    matplotlib.use("Agg")
    cells = cells if own is None else [*cells[:place], own, *cells[place + 1 :]]
    names: dict = {"__name__": "chapter"}
    with contextlib.redirect_stdout(io.StringIO()):
        for k in needed(cells, place):
            exec(compile(cells[k], f"cell {k}", "exec"), names)
    return names


def test_a_slice_takes_the_last_value_before_and_nothing_that_is_not_used():
    cells = ["a = 1", "b = a + 1", "a = 10", "raise ValueError", "c = a + b", "a = 100"]
    assert needed(cells, 4) == [0, 1, 2, 4] and run(cells, 4)["c"] == 12
    assert run(cells, 4, "c = a - b")["c"] == 8
    assert used("x = 1\ny = x + z\nw = w + 1\nf = lambda a: a\nr = [k for k in range(n)]") == {"z", "w", "n"}


# ---- exercises -------------------------------------------------------------------------------------------------------
CHECKER = re.compile(r"check_\w+\(")


def exercises(chapter: Path) -> list[tuple[int, list[int], str]]:
    """Number, places of its code cells among all of the chapter's, and its folded answer, of every exercise."""
    rows = []
    places = []
    number = 0
    answer = ""
    k = -1
    on = False

    def close() -> None:
        if number:
            rows.append((number, list(places), answer))

    for cell in jupytext.read(chapter).cells:
        if cell.cell_type == "code":
            k += 1
            if on and number:
                places.append(k)
            continue
        text = cell.source.split("\n## Summary")[0]
        on = on or "## Exercises" in text
        for piece in re.split(r"^(?=\*\*\d+\. )", text, flags=re.M) if on else ():
            if start := re.match(r"\*\*(\d+)\. ", piece):
                close()
                number = int(start[1])
                places = []
                answer = ""
            if fold := re.search(r"<details>.*?</summary>(.*?)</details>", piece, re.S):
                answer += fold[1]
        if "\n## Summary" in cell.source:
            break
    close()
    return rows


ALL = [(chapter, *exercise) for chapter in CHAPTERS for exercise in exercises(chapter)]


def solution(answer: str) -> str:
    (code,) = re.findall(r"```python\n(def .*?)```", answer, re.S) or [""]
    return code


CHECKED = [
    pytest.param(chapter, place, solution(answer), id=f"{chapter.stem.partition('_')[0]}-{number}")
    for chapter, number, places, answer in ALL
    for place in places
    if CHECKER.search(code_cells(chapter)[place])
]


def test_exercises_are_found():
    """As many as the headings say, and each with a folded answer."""
    for chapter in CHAPTERS:
        text = chapter.read_text(encoding="utf-8").partition("## Exercises")[2]
        numbers = [int(n) for n in re.findall(r"^# \*\*(\d+)\. ", text, re.M)]
        assert [number for number, *_ in exercises(chapter)] == numbers == list(range(1, len(numbers) + 1))
    assert not [(chapter.stem, number) for chapter, number, _, answer in ALL if len(answer) < 20]
    assert len(CHECKED) > 30


@pytest.mark.parametrize(("chapter", "place", "own"), CHECKED)
def test_a_folded_solution_passes_its_checker(chapter, place, own):
    """And what stands there before it is written does not."""
    cell = code_cells(chapter)[place]
    (check,) = [line for line in cell.splitlines() if CHECKER.search(line)]
    names = run(code_cells(chapter), place, f"{cell}\nunsolved = {check.partition(' = ')[2]}\n{own}\n{check}\n")
    assert not names["unsolved"] and names[check.partition(" = ")[0]] is True


# Exercises whose cells compute something by themselves: words of the folded answer, and what the cells' values must be
# for these words to be true.
ANSWERS = {
    ("02", 3): ("The draft stops at the first answer", lambda v: v["pays"] and not v["grade"].correct),
    ("02", 4): ("In none, up to the $10^{-4}$", lambda v: len(v["binary"]) > 10 and v["change"] < 1e-3),
    ("03", 3): ("more. Two things", lambda v: v["answer"] == "more" and v["low"] > 0),
    ("07", 3): ("has a raised test result", lambda v: find_liar(v["one"], ["test"]) == v["one"][1].name),
    ("07", 5): (
        "Looking once keeps to α, looking after every seed does not by far",
        lambda v: v["once"].mean() < 1.3 * v["alpha"] and v["stopped"].mean() > 2 * v["alpha"],
    ),
}
GIVEN = {
    (chapter.stem.partition("_")[0], number): (chapter, places, answer)
    for chapter, number, places, answer in ALL
    if any(not CHECKER.search(code_cells(chapter)[place]) for place in places)
}


def test_every_exercise_with_given_cells_has_its_answer_here():
    assert set(GIVEN) == set(ANSWERS)


@pytest.mark.slow
@pytest.mark.parametrize("key", ANSWERS, ids=lambda key: f"{key[0]}-{key[1]}")
def test_the_answer_says_what_the_given_cells_compute(key):
    chapter, places, answer = GIVEN[key]
    words, true = ANSWERS[key]
    assert words in " ".join(answer.split())
    (place,) = [k for k in places if not CHECKER.search(code_cells(chapter)[k])][-1:]
    cell = code_cells(chapter)[place]
    for line in re.findall(r"```python\n(my_\w+.*)\n```", answer):  # what the reader was to write in the first line
        cell = f"{line}\n{cell.partition(chr(10))[2]}"
    assert true(run(code_cells(chapter), place, cell))
