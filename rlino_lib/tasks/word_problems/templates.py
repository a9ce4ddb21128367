"""The sentences that word problems are put together from (chapter 02), read from `sentences.toml`, which says how."""

import re
import tomllib
from pathlib import Path
from typing import NamedTuple

_SENTENCES = tomllib.loads(Path(__file__).with_name("sentences.toml").read_text(encoding="utf-8"))
_RANGE = re.compile(r"\{(\w):(\d+)-(\d+)\}")  # a number that is drawn
_LINE = re.compile(r"(.*)\[(\w)=(\w+)([-+*/])(\w+)\](.*)")


class Piece(NamedTuple):
    """A sentence, the lines of the solution that it calls for, and the range of each number that it draws."""

    text: str
    lines: tuple[tuple[str, ...], ...]  # of each: before, variable, left, op, right, after
    ranges: dict[str, tuple[int, int]]


def _piece(text: str, *lines: str) -> Piece:
    ranges = {slot: (int(least), int(most)) for slot, least, most in _RANGE.findall(text)}
    return Piece(_RANGE.sub(r"{\1}", text), tuple(_LINE.fullmatch(line).groups() for line in lines), ranges)


# name: the pronoun as subject and as object
PEOPLE = {name: tuple(pair.split()) for pair, names in _SENTENCES["people"].items() for name in names}
FILLERS: dict[str, list[str]] = _SENTENCES["fillers"]
DISTRACTORS: list[str] = _SENTENCES["distractors"]
FAMILIES = {
    family: {part: {name: _piece(*texts) for name, texts in group.items()} for part, group in parts.items()}
    for family, parts in _SENTENCES["families"].items()
}
FAMILIES["three"] = FAMILIES["two"] | FAMILIES["three"]
