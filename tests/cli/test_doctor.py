"""`rlino doctor` on machines where something is off, each faked."""

import json
import shutil
import subprocess
import sys
from collections import namedtuple
from importlib import metadata

import psutil
import pytest
import torch

from rlino_lib import paths
from rlino_lib.cli import doctor, main
from rlino_lib.errors import RlinoError
from rlino_lib.training import grid
from tools import book, report


def run(capsys):
    """The exit code, the JSON, and the lines of the report by name."""
    code = main.main(["doctor"])
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    lines = err.splitlines()
    assert lines[-1].startswith("can the book run here?")
    return code, json.loads(out), {line[6:19].strip(): line for line in lines[:-1]}


def test_the_book_runs_here(capsys):
    code, result, lines = run(capsys)
    assert (code, result["runs"], result["failed"]) == (0, True, [])
    assert {"Python", "torch", "cores", "bf16 unit", "memory", "GPU", "cache", "Chromium"} <= lines.keys()
    assert result["checks"].keys() == lines.keys()


def test_an_old_package_and_a_missing_one(capsys, monkeypatch):
    real = metadata.version

    def version(name):
        if name == "scipy":
            raise metadata.PackageNotFoundError(name)
        return {"numpy": "1.26.4"}.get(name) or real(name)

    monkeypatch.setattr(metadata, "version", version)
    code, result, lines = run(capsys)
    assert (code, result["failed"]) == (2, ["numpy", "scipy"])
    assert lines["numpy"].startswith("FAILS") and "pip install 'numpy>=" in lines["numpy"]
    assert "missing: python -m pip install 'scipy>=" in lines["scipy"]


def test_it_runs_where_no_package_is_installed(root):
    """In a bare interpreter, without the folder of installed packages."""
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(root)!r})\n"
               "from rlino_lib.cli import doctor\nsys.exit(doctor.main(None))"]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2, result.stderr
    assert "packages" in json.loads(result.stdout)["failed"] and "requirements.lock" in result.stderr
    assert "Traceback" not in result.stderr


DAMAGED = ("[project", "\xff", "[tool]", "project = 3", '[project]\nversion = "1"\nrequires-python = ">=3.11"\n', None)


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_pyproject_is_one_line_to_all_who_read_it(text, tmp_path, monkeypatch, capsys):
    if text is not None:
        (tmp_path / "pyproject.toml").write_text(text, encoding="latin-1")
    monkeypatch.setattr(paths.pyproject, "__defaults__", (tmp_path,))
    assert main.main(["doctor"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and str(tmp_path / "pyproject.toml") in err
    for read in (report.address, lambda: book.requirements(tmp_path)):
        with pytest.raises(RlinoError, match="pyproject.toml is missing or damaged"):
            read()


def test_an_old_python():
    check = doctor.python(">=3.99")
    assert check.fails and "PYTHON=" in check.mend
    assert not doctor.python(">=3.11").mend


def test_one_core_is_slow_but_enough(monkeypatch):
    monkeypatch.setattr(grid, "usable_cores", lambda: 1)
    check = doctor.cores()
    assert check.mend and not check.fails and str(check).startswith("note ")


def test_little_memory(monkeypatch, tmp_path):
    costs = tmp_path / "chapters.json"
    costs.write_text('{"chapters": {"00": {"gib": 0.5}, "06": {"gib": 2.0}}}')
    monkeypatch.setattr(doctor, "CHAPTER_COSTS", costs)
    Memory = namedtuple("Memory", "available")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(2**30))
    assert doctor.memory().fails and "1.0 GiB free, 2.0 needed" in str(doctor.memory())
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(3 * 2**30))
    assert not doctor.memory().mend


def test_a_gpu_that_torch_does_not_see(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi" if name == "nvidia-smi" else None)
    check = doctor.gpu()
    assert check.mend and not check.fails
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert not doctor.gpu().mend


def test_folders_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    """A file stands where a folder should be, which stops even root."""
    (tmp_path / "file").write_text("")
    assert doctor.writable("this folder", tmp_path / "file").fails
    assert not doctor.writable("this folder", tmp_path / "not" / "yet").mend
    monkeypatch.setenv("RLINO_DATA", str(tmp_path / "file"))
    code, result, lines = run(capsys)
    assert code == 0 and lines["cache"].startswith("note") and "RLINO_DATA" in lines["cache"]
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]  # it leaves nothing behind


def test_base_models_that_did_not_come_along(tmp_path, monkeypatch):
    (tmp_path / "model.safetensors").write_text("version https://git-lfs...")
    monkeypatch.setattr(doctor, "BASES", {"countdown": str(tmp_path)})
    assert doctor.models().fails and "countdown" in doctor.models().value


@pytest.mark.parametrize("place", ["path", "playwright", None])
def test_chromium_is_optional(place, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/chromium" if place == "path" else None)
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    if place == "playwright":
        (tmp_path / "chromium-1200").mkdir()
    check = doctor.chromium()
    assert not check.fails and bool(check.mend) == (place is None)
