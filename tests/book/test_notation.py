"""The page of notation: the names of the code that it lists exist, and chapters have the words that they introduce."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import jupytext
import pytest

BOOK = Path(__file__).resolve().parents[2] / "book"
PAGE = (BOOK / "notation.md").read_text(encoding="utf-8")
CODE = re.compile(r"`([A-Za-z_][\w.]*)`")
NAMES = sorted(set(CODE.findall(PAGE)))
GLOSSARY = re.findall(r"^\| \*\*(.+?)\*\* \|.*\| (\d\d[a-z]?) \|$", PAGE, re.M)


def resolve(path: str) -> None:
    """Follow a dotted path from its module; fields of dataclasses count. Raises LookupError where it leads nowhere."""
    parts = path.split(".")
    for k in range(len(parts), 0, -1):
        module = ".".join(parts[:k])
        try:
            value = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if not module.startswith(error.name or " "):
                raise
            continue
        for part in parts[k:]:
            if part in getattr(value, "__dataclass_fields__", {}):
                value = value.__dataclass_fields__[part]
            elif hasattr(value, part):
                value = getattr(value, part)
            else:
                raise LookupError(f"{path}: {part}")
        return
    raise LookupError(path)


def full(name: str) -> str:
    """A name with its module; the page gives the path of each class once, and its bare name from then on."""
    first, _, rest = name.partition(".")
    paths = [path for path in NAMES if path.startswith("rlino_lib.") and path.endswith(f".{first}")]
    if first == "rlino_lib" or not paths:
        return name
    return f"{paths[0]}.{rest}".rstrip(".")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_the_code_exists(name):
    resolve(full(name))


@pytest.mark.parametrize(
    "name",
    ["rlino_lib.methods.loss.no_such_loss", "rlino_lib.no_such_room", "Rollouts.no_such_field", "NoSuchClass.mask"],
)
def test_a_name_that_does_not_exist_is_found(name):
    with pytest.raises(LookupError):
        resolve(full(name))


def test_every_row_of_the_symbols_names_code():
    rows = [row for row in PAGE.partition("## Glossary")[0].splitlines() if row.startswith("| ")][2:]
    assert len(rows) > 25 and [row for row in rows if not CODE.search(row)] == []


def prose(number: str) -> str:
    (chapter,) = BOOK.glob(f"{number}_*.py")
    return " ".join(cell.source for cell in jupytext.read(chapter).cells if cell.cell_type == "markdown").lower()


def test_the_glossary_is_in_order_and_has_no_word_twice():
    words = [word.lower() for word, _ in GLOSSARY]
    assert len(words) > 40 and words == sorted(set(words))
    assert len(words) == PAGE.partition("## Glossary")[2].count("\n| **")


@pytest.mark.parametrize(("word", "chapter"), GLOSSARY)
def test_a_chapter_has_the_word_that_it_introduces(word, chapter):
    text = " ".join(prose(chapter).split())
    assert re.search(rf"(?<!\w){re.escape(word.lower())}", text)


def test_the_first_chapter_links_the_page():
    assert "](notation.md)" in prose("00")
