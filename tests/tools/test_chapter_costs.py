"""What the chapters cost: measured while they run, kept in one file, and shown as badges."""

import json
import os
import sys
from types import SimpleNamespace

import pytest

from rlino_lib.figures.chapters import badge, chapter_costs, costs_table
from rlino_lib.paths import CHAPTER_COSTS
from tools import book, costs

MIB = 2**20


def test_a_run_is_measured(tmp_path, capsys):
    """A cell that holds 300 MiB for a moment shows in the kernel's peak."""
    (tmp_path / "04_toy.py").write_text("# %%\nx = bytearray(300 * 2**20)\nx[::4096] = b'1' * len(x[::4096])\ndel x\n")
    recorded = tmp_path / "chapters.json"
    assert book.run(tmp_path, recorded=recorded, keep=True) == 0
    row = json.loads(recorded.read_text())["chapters"]["04"]
    assert 0 < row["seconds"] < 60 and 300 / 1024 < row["gib"] < 1 and row["cores"] >= 1 and row["machine"]
    assert f"{row['gib']:.1f} GiB" in capsys.readouterr().out


def test_only_record_writes(tmp_path, monkeypatch):
    (tmp_path / "04_toy.py").write_text("# %%\n1\n")
    monkeypatch.setattr(book, "CHAPTER_COSTS", tmp_path / "chapters.json")
    monkeypatch.setattr(book, "execute", lambda *_: 2**30)
    assert book.main(["run", "--keep", "--book", str(tmp_path)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["04_toy.py"]
    assert book.main(["run", "--keep", "--record", "--book", str(tmp_path)]) == 0
    assert list(chapter_costs(tmp_path / "chapters.json").index) == ["04"]


def test_rows_are_kept_in_order(tmp_path):
    path = tmp_path / "chapters.json"
    for number in ("08b", "00", "08", "00"):
        costs.record(number, 59.94 if number == "00" else 61, 1.01 * 2**30, path)
    assert list(chapter_costs(path).index) == ["00", "08", "08b"]
    table = costs_table(path)
    assert "| 00 | under 1 min · 1.1 GiB |" in table and "| 08b | 2 min · 1.1 GiB |" in table and "Measured on" in table
    assert json.loads(path.read_text())["bench"] == "chapters"  # as every file of data/bench says what it is


def test_a_badge_rounds_up():
    assert badge(60, 1.0) == "1 min · 1.0 GiB"
    assert badge(61, 1.01) == "2 min · 1.1 GiB"


def test_nothing_recorded(tmp_path):
    assert chapter_costs(tmp_path / "none.json").empty
    assert "Nothing is recorded" in costs_table(tmp_path / "none.json")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux records another process's peak")
def test_the_peak_of_a_process_is_not_what_it_holds_now():
    block = bytearray(200 * MIB)
    block[::4096] = b"1" * len(block[::4096])
    del block
    assert costs.peak_of(os.getpid()) > 200 * MIB
    meter = costs.Meter(SimpleNamespace(provisioner=SimpleNamespace(pid=2**22 + 1)))  # no such process
    meter.look()
    assert meter.peak == 0


def test_each_chapter_has_a_cost():
    """Those that are recorded are those that there are; a new chapter is measured by `--record --only NN`."""
    if not CHAPTER_COSTS.exists():
        pytest.skip("nothing is recorded: python -m tools.book run --record")
    assert set(chapter_costs().index) == {book.number_of(script) for script in book.chapters(book.REPO / "book")}
