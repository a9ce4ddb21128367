"""The script that makes the records of real models: checked by SHA-256, the same bytes each time, and no texts."""

from __future__ import annotations

import gzip
import json
from hashlib import sha256

import pytest

from rlino_lib.paths import DATA
from tools import real


@pytest.fixture
def one_source(tmp_path, monkeypatch):
    """A source with one file, and a list of sources that knows it."""
    folder = tmp_path / "from" / real.ONE_SHOT
    (folder / "data").mkdir(parents=True)
    shares = {"10": [0.0, 0.125, 1.0], "2": [0.5, 0.875, 0.25]}
    files = {real.VISITS: json.dumps(shares).encode(), "LICENSE": b"a licence"}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    known = {name: sha256(data).hexdigest() for name, data in files.items()}
    listed = tmp_path / "sources.json"
    listed.write_text(json.dumps({real.ONE_SHOT: {"commit": "0" * 40, "files": known}}))
    monkeypatch.setattr(real, "SOURCES", listed)
    monkeypatch.setattr(real, "TABLES", {"visits": real.visits})
    return folder


def test_a_table_is_made_with_its_licence_and_the_same_bytes_each_time(one_source, tmp_path):
    made = []
    for name in ("one", "two"):
        real.make(one_source.parent, tmp_path / name)
        made.append((tmp_path / name / "visits.csv.gz").read_bytes())
    assert made[0] == made[1]
    assert gzip.decompress(made[0]).decode() == "prompt,right_of_8\n2,472\n10,018\n"
    assert (tmp_path / "one" / "licenses" / f"{real.ONE_SHOT}.txt").read_text() == "a licence"


def test_another_file_or_none_is_refused_in_one_line(one_source, tmp_path, capsys):
    arguments = ["--from", str(one_source.parent), "--out", str(tmp_path / "out")]
    (one_source / real.VISITS).write_text("{}")
    assert real.main(arguments) == 2 and "is not the file of commit" in capsys.readouterr().err
    (one_source / real.VISITS).unlink()
    assert real.main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_what_is_shipped_is_small_and_listed():
    folder = DATA / "real"
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 3e6
    assert {path.name for path in folder.glob("*.csv.gz")} == {f"{name}.csv.gz" for name in real.TABLES}
    text = (folder / "README.md").read_text(encoding="utf-8")
    for name, source in json.loads((folder / "sources.json").read_text()).items():
        assert source["repository"] in text and source["commit"][:12] in text and source["license"] in text
        assert (folder / "licenses" / f"{name}.txt").exists()
        assert all(len(digest) == 64 for digest in source["files"].values())
