"""The file of systems: what is in it is well formed, and exists in the library and in the book."""

from __future__ import annotations

import dataclasses
import re

import pytest

from rlino_lib.analysis.atlas import ASSUMPTIONS, drops
from rlino_lib.analysis.systems import System, read_systems
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.methods.rewards import REWARDS
from rlino_lib.tasks import TASKS

SYSTEMS = read_systems()
each_system = pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.id)
FORMS = {
    "id": r"[a-z0-9-]+", "name": r"\S.*", "arxiv": r"\d{4}\.\d{4,5}", "changes": r"[A-Z].*\.", "chapter": r"\d\d[a-z]?",
    "heading": r"\S.*", "beyond": r"([A-Z].*\.)?",
}  # fmt: skip
LISTS = {"methods": OBJECTIVES, "rewards": REWARDS, "tasks": TASKS, "drops": ASSUMPTIONS}


def test_every_system_that_readers_ask_about_is_in_the_file_once():
    numbers = [system.arxiv for system in SYSTEMS]
    assert set(numbers) >= {
        "2410.01679", "2503.12854", "2502.06773", "2502.02508", "2503.05592", "2308.13542", "2507.18391", "2505.19590",
        "2505.20561", "2505.13890", "2506.04723", "2504.13837", "2503.24376", "2503.16188",
    }  # fmt: skip
    assert len(set(numbers)) == len({system.id for system in SYSTEMS}) == len(SYSTEMS)


@each_system
def test_a_field_has_its_form_and_names_what_the_library_has(system):
    assert set(FORMS) | set(LISTS) == {field.name for field in dataclasses.fields(System)}
    for name, form in FORMS.items():
        assert re.fullmatch(form, getattr(system, name)), name
    for name, known in LISTS.items():
        values = getattr(system, name)
        assert isinstance(values, tuple) and set(values) <= set(known), name


@each_system
def test_what_its_rows_drop_the_system_drops(system):
    assert {dropped for method in system.methods if (dropped := drops(OBJECTIVES[method]))} <= set(system.drops)


@each_system
def test_the_place_that_tests_a_system_exists(system, root):
    (script,) = (root / "book").glob(f"{system.chapter}_*.py")
    headings = re.findall(r"(?m)^# #+ (.+)$", script.read_text(encoding="utf-8"))
    assert system.heading in headings


def test_a_system_without_a_language_model_has_no_row_that_trains_it():
    assert {system.id for system in SYSTEMS if not system.methods} == {"lagr-seq", "barl", "mapping-the-minds"}


def test_an_anchor_is_that_of_the_site():
    assert dataclasses.replace(SYSTEMS[0], heading="Does it help?").anchor == "does-it-help"
    assert dataclasses.replace(SYSTEMS[0], heading="4 What a KL term estimates, and more").anchor == (
        "4-what-a-kl-term-estimates-and-more"
    )
