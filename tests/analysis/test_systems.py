"""The file of systems: what is in it exists in the library and in the book, and a fault is one line that names it."""

from __future__ import annotations

import re

import pytest

from rlino_lib.analysis.systems import SYSTEMS, System, read_systems
from rlino_lib.errors import RlinoError

ROW = {
    "id": "a", "name": "A", "arxiv": "2501.00001", "changes": "Trains on what is right.", "chapter": "10",
    "heading": "Does it help?",
}  # fmt: skip


def toml(row: dict) -> str:
    lines = [f"{name} = {list(value) if isinstance(value, tuple) else value!r}" for name, value in row.items()]
    return "\n".join(["[[system]]", *lines])


@pytest.fixture
def read(tmp_path):
    def of(*rows: dict) -> list[System]:
        path = tmp_path / "systems.toml"
        path.write_text("\n".join(map(toml, rows)), encoding="utf-8")
        return read_systems(path)

    return of


def test_every_system_that_readers_ask_about_is_in_the_file():
    numbers = {system.arxiv for system in read_systems()}
    assert numbers >= {
        "2410.01679", "2503.12854", "2502.06773", "2502.02508", "2503.05592", "2308.13542", "2507.18391", "2505.19590",
        "2505.20561", "2505.13890", "2506.04723", "2504.13837", "2503.24376", "2503.16188",
    }  # fmt: skip


@pytest.mark.parametrize("system", read_systems(), ids=lambda system: system.id)
def test_the_place_that_tests_a_system_exists(system, root):
    """Chapters 11 and 11b are looked up once they are there."""
    scripts = list((root / "book").glob(f"{system.chapter}_*.py"))
    assert len(scripts) == 1 or (system.chapter in ("11", "11b") and not scripts)
    for script in scripts:
        headings = re.findall(r"(?m)^# #+ (.+)$", script.read_text(encoding="utf-8"))
        assert system.heading in headings


def test_a_system_without_a_language_model_has_no_row_that_trains_it():
    assert {system.id for system in read_systems() if not system.methods} == {"lagr-seq", "barl", "mapping-the-minds"}


def test_an_anchor_is_that_of_the_site(read):
    assert read(ROW)[0].anchor == "does-it-help"
    assert read(ROW | {"heading": "4 What a KL term estimates, and more"})[0].anchor == (
        "4-what-a-kl-term-estimates-and-more"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": "No Id"}, "system No Id: id is 'No Id'"),
        ({"arxiv": "https://arxiv.org/abs/2501.00001"}, "system a: arxiv is 'https"),
        ({"arxiv": 2501.1}, "system a: arxiv is 2501.1"),
        ({"changes": "no sentence"}, "system a: changes is 'no sentence'"),
        ({"chapter": "7"}, "system a: chapter is '7'"),
        ({"heading": ""}, "system a: heading is ''"),
        ({"beyond": "a fragment"}, "system a: beyond is 'a fragment'"),
        ({"methods": ("gpro",)}, "system a: methods has 'gpro', which is none of grpo, "),
        ({"methods": "grpo"}, "system a: methods has 'grpo', which is none of grpo, "),
        ({"rewards": ("money",)}, "system a: rewards has 'money', which is none of verifier, "),
        ({"tasks": ("chess",)}, "system a: tasks has 'chess', which is none of countdown, "),
        ({"drops": ("all",)}, "drops has 'all', which is none of deterministic transition, even split"),
        ({"methods": ("vineppo",)}, "its row vineppo drops the even split, and drops does not say so"),
        ({"colour": "red"}, "is not a list of systems: .*colour"),
    ],
)
def test_a_fault_is_named(read, change, words):
    with pytest.raises(RlinoError, match=words):
        read(ROW | change)


def test_a_missing_field_a_repeated_row_and_no_file_are_faults(read, tmp_path):
    with pytest.raises(RlinoError, match="is not a list of systems: .*heading"):
        read({name: value for name, value in ROW.items() if name != "heading"})
    with pytest.raises(RlinoError, match="two systems with the id a"):
        read(ROW, ROW | {"arxiv": "2501.00002"})
    with pytest.raises(RlinoError, match="two systems with the arxiv 2501.00001"):
        read(ROW, ROW | {"id": "b"})
    for name, text in (
        ("none.toml", None),
        ("broken.toml", "[[system"),
        ("other.toml", "[[claim]]"),
        ("x.toml", "system = [1]"),
    ):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(RlinoError, match=f"{name} is not a list of systems"):
            read_systems(tmp_path / name)
    assert SYSTEMS.name == "systems.toml"
