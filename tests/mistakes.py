"""What the tests of a chapter's checkers share: each listed mistake is named as itself, and nonsense is one line."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

from checkers import check as mechanism


def as_function(wrong: Callable | Sequence) -> Callable:
    """A listed mistake as a reader's function: where it is listed by its values, one for each case in turn."""
    values = None if callable(wrong) else iter(wrong)
    return (lambda *case: next(values)) if values else wrong


def listed_mistakes(checker, monkeypatch) -> dict[str, Callable]:
    """The mistakes that a checker lists, by the words for them."""
    listed = {}

    def spy(function, cases, expected, mistakes, *more):
        listed.update({words: as_function(wrong) for words, wrong in mistakes.items()})
        return True

    with monkeypatch.context() as patched:
        patched.setattr(mechanism, "check", spy)
        checker(None)
    return listed


def assert_mistakes_are_named(checker, capsys, monkeypatch) -> None:
    mistakes = listed_mistakes(checker, monkeypatch)
    assert mistakes
    for words, wrong in mistakes.items():
        assert not checker(wrong), words
        line = capsys.readouterr().out
        assert line.startswith("✗ ") and words in line, line


def assert_nonsense_is_one_line(checkers, capsys) -> None:
    for checker in checkers:
        for function in (None, lambda *a: ..., lambda *a: 1 / 0):
            assert not checker(function)
            out = capsys.readouterr().out
            assert out.count("\n") == 1 and "Traceback" not in out


def assert_right_answers_pass(checkers, right, capsys) -> None:
    """Each checker, by name, takes the right answer that is listed under its name, and there is one for each."""
    assert set(right) == set(checkers)
    for name, checker in checkers.items():
        assert checker(right[name]), capsys.readouterr().out
        assert capsys.readouterr().out.startswith("✓ ")


def assert_checkers_say_what_they_want(checkers) -> None:
    assert all(inspect.getdoc(checker).startswith("`") for checker in checkers)
