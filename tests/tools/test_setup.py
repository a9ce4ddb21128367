"""The set-up: the pins agree, bounds are loose, and the Makefile finds a Python or says in one line what it needs."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from rlino_lib.errors import RlinoError
from tools import book

FILES = ("pyproject.toml", "requirements.lock", "environment.yml")
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def copy(tmp_path, root):
    """A folder with copies of the three files that must agree, and the Makefile."""
    for name in (*FILES, "Makefile"):
        shutil.copy(root / name, tmp_path)
    return tmp_path


def edit(path, pattern, new):
    text, count = re.subn(pattern, new, path.read_text(), count=1, flags=re.M)
    assert count == 1
    path.write_text(text)


# ---- pins ------------------------------------------------------------------------------------------------------------
def test_lock_environment_and_pyproject_agree():
    assert book.check() == []


@pytest.mark.parametrize(
    ("name", "pattern", "new", "message"),
    [
        ("environment.yml", r"torch==.*", "torch==2.12.0", "environment.yml has other lines than requirements.lock"),
        ("environment.yml", r"^ +- tqdm==.*\n", "", "environment.yml has other lines"),
        ("environment.yml", r"-e \.\[.*\]", "-e .", "environment.yml has other lines"),
        ("requirements.lock", r"^seaborn==.*\n", "", "pyproject.toml asks for seaborn.* has none"),
        ("requirements.lock", r"^numpy==.*", "numpy==1.26.0", "asks for numpy>=2.0, requirements.lock has 1.26.0"),
        ("requirements.lock", r"^torch==.*", r"\g<0>+cpu", r"not an exact pin: torch==.*\+cpu"),
        ("requirements.lock", r"^scipy==.*", "scipy @ file:///tmp/scipy.whl", "not an exact pin: scipy @"),
        ("requirements.lock", r"^pandas==", "pandas>=", "not an exact pin: pandas>="),
        ("pyproject.toml", r'"tqdm>=.*",', '"tqdm>=99",', "asks for tqdm>=99"),
    ],
)
def test_check_finds(copy, name, pattern, new, message):
    assert book.check(copy) == []
    edit(copy / name, pattern, new)
    assert any(re.search(message, problem) for problem in book.check(copy)), book.check(copy)


def test_environment_is_what_conda_reads(root):
    environment = yaml.safe_load((root / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    *conda, pip = environment["dependencies"]
    assert conda == ["python=3.11", "pip"] and pip["pip"][-1] == "-e .[test,site,browser]"
    pins, _ = book.read_pins(root)
    assert len(pip["pip"]) == len(pins) + 1


def test_bounds_admit_an_older_torch_and_transformers(root):
    older = {"torch": "2.11.0", "transformers": "5.17.0", "tokenizers": "0.23.2", "safetensors": "0.8.0"}
    allowed = {r.name: r.specifier.contains(older[r.name]) for r in book.requirements(root) if r.name in older}
    assert allowed == dict.fromkeys(older, True)


def test_lock_pins_what_a_requirement_pulls_in():
    pins = book.installed([Requirement("pytest-xdist>=3"), Requirement("nothing; python_version < '3'")])
    assert {"pytest-xdist", "pytest", "execnet", "pluggy"} <= pins.keys()
    assert "nothing" not in pins and not any("+" in version for version in pins.values())
    with pytest.raises(RlinoError, match="no-such-package-here is not installed"):
        book.installed([Requirement("no-such-package-here")])


def test_lock_writes_files_that_agree(copy, monkeypatch):
    pins, _ = book.read_pins(copy)
    monkeypatch.setattr(book, "installed", lambda wanted: {**pins, "torch": "2.99.0"})
    assert book.lock(copy) == len(pins)
    assert book.check(copy) == []
    assert "torch==2.99.0" in (copy / "environment.yml").read_text()


def test_nothing_names_a_registry(root):
    for name in (*FILES, "Makefile", ".ci/run"):
        lines = (root / name).read_text().splitlines()
        assert not [line for line in lines if "://" in line and not line.startswith("address = ")], name


# ---- the Makefile ----------------------------------------------------------------------------------------------------
def make(folder: Path, *arguments: str, path: Path | None = None, **env: str) -> subprocess.CompletedProcess:
    """`make` in a bare environment. With `path`, the only commands are the ones in that folder, and make itself."""
    if path:
        (path / "make").symlink_to(shutil.which("make"))
    env = {"PATH": str(path or os.environ["PATH"]), "LC_ALL": "C", **env}
    return subprocess.run(["make", *arguments], cwd=folder, env=env, capture_output=True, text=True)


def fake_python(path: Path, name: str, version: str) -> None:
    """A command that answers as a Python of this version would, and does nothing else."""
    new_enough = tuple(map(int, version.split("."))) >= (3, 11)
    path.mkdir(exist_ok=True)
    (path / name).write_text(f"#!/bin/sh\necho {version}\nexit {0 if new_enough else 1}\n")
    (path / name).chmod(0o755)


@needs_make
@pytest.mark.parametrize(("version", "found"), [(None, "none"), ("3.9.2", "3.9.2")])
@pytest.mark.parametrize("target", ["book", "lab", "test", "runs", "lock"])
def test_one_line_when_no_python_will_do(copy, target, version, found):
    commands = copy / "commands"
    commands.mkdir()
    if version:
        fake_python(commands, "python3", version)
    result = make(copy, target, path=commands)
    assert result.returncode == 2 and result.stdout == ""
    (line,) = result.stderr.splitlines()
    needs = f"needs Python 3.11 or newer; found {found}. Set PYTHON=/path/to/python3.11"
    assert f"RL in Name Only? {needs}" in line


@needs_make
def test_a_newer_python_is_found_behind_an_old_python3(copy):
    commands = copy / "commands"
    fake_python(commands, "python3", "3.9.2")
    fake_python(commands, "python3.12", "3.12.1")
    assert '"python3.12" -m venv --clear .venv' in make(copy, "-n", "book", path=commands).stdout


@needs_make
def test_python_can_be_set_and_is_checked_too(copy):
    commands = copy / "commands"
    fake_python(commands, "mine", "3.13.0")
    fake_python(commands, "old", "3.10.4")
    mine = make(copy, "-n", "book", f"PYTHON={commands}/mine", path=commands, VIRTUAL_ENV="/some/env")
    assert f'"{commands}/mine" -m venv' in mine.stdout
    old = make(copy, "-n", "book", f"PYTHON={commands}/old")
    assert "found 3.10.4." in old.stderr and old.returncode == 2


@needs_make
@pytest.mark.parametrize(
    ("kind", "env"),
    [("VIRTUAL_ENV", {}), ("CONDA_PREFIX", {"CONDA_DEFAULT_ENV": "rlino"})],
)
def test_an_active_environment_is_used(copy, kind, env):
    active = copy / "an env"
    active.mkdir()
    fake_python(active / "bin", "python", "3.12.0")
    lines = make(copy, "-n", "book", **{kind: str(active)}, **env).stdout
    assert f'"{active}/bin/python" -m tools.book run' in lines and "-m venv" not in lines


@needs_make
@pytest.mark.parametrize(
    "env", [{"CONDA_PREFIX": "/opt/conda", "CONDA_DEFAULT_ENV": "base"}, {"VIRTUAL_ENV": "{copy}/.venv"}, {}]
)
def test_conda_base_is_left_alone(copy, env):
    env = {name: value.format(copy=copy.resolve()) for name, value in env.items()}
    lines = make(copy, "-n", "book", **env).stdout
    assert "-m venv --clear .venv" in lines and f'"{copy.resolve()}/.venv/bin/python" -m pip install' in lines


@needs_make
def test_a_changed_lock_installs_again(copy):
    commands = copy / ".venv/bin"
    commands.mkdir(parents=True)
    fake_python(commands, "python", "3.12.0")
    (copy / ".venv/.installed").touch()
    for name in ("requirements.lock", "pyproject.toml"):
        os.utime(copy / name, (1, 1))
    assert "pip install" not in make(copy, "-n", "book").stdout
    os.utime(copy / "requirements.lock")
    os.utime(copy / ".venv/.installed", (2, 2))
    assert "pip install  -r requirements.lock" in make(copy, "-n", "book").stdout
    assert "pip install -q -r requirements.lock" in make(copy, "-n", "book", "PIP_ARGS=-q").stdout


@needs_make
def test_clean_leaves_the_data(copy):
    kept = ["data/runs/countdown/grpo-s0/checkpoint.pt", "data/base/x.safetensors", "runs/mine/metrics.csv"]
    gone = ["runs/mine/checkpoint.pt", "rlino_lib/__pycache__/x.pyc", ".venv/bin/python", ".pytest_cache/x"]
    for name in kept + gone:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).touch()
    assert make(copy, "clean").returncode == 0
    assert all((copy / name).exists() for name in kept)
    assert not any((copy / name).exists() for name in gone)


@needs_make
def test_help_names_the_targets(copy):
    listed = make(copy).stdout
    assert all(f"make {target}\t" in listed for target in ("book", "lab", "test", "runs", "clean", "lock"))
