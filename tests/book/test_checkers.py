"""What holds of every chapter's checkers: each listed mistake is named as itself, and nonsense is one line."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import checkers
from tests.mistakes import (
    assert_checkers_say_what_they_want,
    assert_mistakes_are_named,
    assert_nonsense_is_one_line,
)

CHECKERS = {
    f"{module.name}.{name}": function
    for module in pkgutil.iter_modules(checkers.__path__)
    for name, function in vars(importlib.import_module(f"checkers.{module.name}")).items()
    if name.startswith("check_")
}


OF_RUNS = "head_to_head.check_liar"  # takes runs beside a function: see test_exercises_duel.py
OF_PROMPTS = "tasks.check_leak"  # lists no mistakes: see test_exercises.py


@pytest.mark.parametrize("name", sorted(set(CHECKERS) - {OF_RUNS, OF_PROMPTS}))
def test_mistakes_are_named(name, capsys, monkeypatch):
    assert_mistakes_are_named(CHECKERS[name], capsys, monkeypatch)


@pytest.mark.parametrize("name", sorted(set(CHECKERS) - {OF_RUNS}))
def test_nothing_and_nonsense_are_one_line(name, capsys):
    assert_nonsense_is_one_line([CHECKERS[name]], capsys)


@pytest.mark.parametrize("name", sorted(CHECKERS))
def test_a_checker_says_what_it_wants(name):
    assert_checkers_say_what_they_want([CHECKERS[name]])
