"""What the tests of a chapter's checkers share: each listed mistake is named as itself, and nonsense is one line."""

from __future__ import annotations


def listed_mistakes(module, checker, monkeypatch) -> dict:
    """The mistakes that a checker lists, by the words for them."""
    found = {}

    def spy(function, cases, truth, mistakes, **kwargs):
        found.update(mistakes)
        return True

    with monkeypatch.context() as patched:
        patched.setattr(module, "check", spy)
        checker(None)
    return found


def assert_mistakes_are_named(module, checker, capsys, monkeypatch) -> None:
    mistakes = listed_mistakes(module, checker, monkeypatch)
    assert mistakes
    for words, wrong in mistakes.items():
        assert not checker(wrong), words
        said = capsys.readouterr().out
        assert said.startswith("✗ ") and words in said, said


def assert_nonsense_is_one_line(checkers, capsys) -> None:
    for checker in checkers:
        for function in (None, lambda *a: ..., lambda *a: 1 / 0):
            assert not checker(function)
            out = capsys.readouterr().out
            assert out.count("\n") == 1 and "Traceback" not in out
