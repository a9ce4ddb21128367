"""The exception that the command line turns into a single line on stderr and exit code 2, and a warning like it."""

from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


class RlinoError(Exception):
    """An error that the user can fix: a bad option, a bad file, a run that trains nothing."""


class RlinoWarning(UserWarning):
    """Something that the user should know; the command line goes on after a single line on stderr."""


def chosen(value: T, known: Iterable[T], what: str) -> T:
    """The value, or RlinoError with the names that exist."""
    known = tuple(known)
    if value not in known:
        raise RlinoError(f"unknown {what} {value!r}: one of {', '.join(map(str, known))}")
    return value
