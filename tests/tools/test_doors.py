"""The doors to the book: a container, Colab, hosted tests and hooks, each as far as it can be tried here."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from types import ModuleType

import jupytext
import pytest
import yaml

SMALL_TORCH = "-m uv pip install --python .venv/bin/python --torch-backend=cpu"


def targets(root: Path) -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), re.M))


# ---- a container -----------------------------------------------------------------------------------------------------
@pytest.fixture
def container(root):
    return json.loads((root / ".devcontainer" / "devcontainer.json").read_text())


def test_the_container_opens_the_first_chapter(container, root):
    [opened] = container["customizations"]["codespaces"]["openFiles"]
    assert (root / opened).exists() and opened in container["postAttachCommand"]
    assert re.search(r"/python:3\.1[12]", container["image"])
    assert SMALL_TORCH in container["postCreateCommand"]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_containers_commands_are_scripts_that_run(container, root, tmp_path):
    """With a `make` that only notes what it is asked for: an environment takes gigabytes."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(root / "requirements.lock", tmp_path)
    scripts = {"make": 'echo "make $*"', ".venv/bin/rlino": 'echo "rlino $*"', "code": "echo $*", "python3": "true"}
    scripts[".venv/bin/python"] = 'echo "python $*"'
    for path, text in scripts.items():
        (tmp_path / path).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / path).chmod(0o755)
    env = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    commands = [container["postCreateCommand"], container["postAttachCommand"]]
    printed = [subprocess.check_output(["sh", "-ec", c], cwd=tmp_path, env=env, text=True) for c in commands]
    *_, small, ready, doctor = printed[0].splitlines()
    assert re.fullmatch(rf"python {SMALL_TORCH} torch==[\d.]+", small)
    assert (ready, doctor) == ("make ready", "rlino doctor") and "ready" in targets(root)
    assert printed[1].splitlines()[-1] == "book/00_start_here.ipynb"


# ---- Colab -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def colab_cell(root):
    """The first code cell of chapter 00."""
    cells = jupytext.read(root / "book" / "00_start_here.py").cells
    return next(cell.source for cell in cells if cell.cell_type == "code")


def address(cell: str, new: str) -> str:
    cell, count = re.subn(r'^ADDRESS = ".*?"', f'ADDRESS = "{new}"', cell, flags=re.M)
    assert count == 1
    return cell


def test_the_cell_knows_the_repositorys_address(colab_cell, root):
    setting = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["rlino"]["address"]
    assert f'ADDRESS = "{setting}"' in colab_cell


def test_the_cell_does_nothing_outside_colab(colab_cell, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    exec(address(colab_cell, "nowhere"), {})
    assert sys.path == before and Path.cwd() == tmp_path and not list(tmp_path.iterdir())


def test_without_an_address_it_says_so(colab_cell, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    with pytest.raises(AssertionError, match="clone it by hand"):
        exec(address(colab_cell, ""), {})


@pytest.mark.slow
def test_the_cell_installs_the_book_in_a_clean_environment(colab_cell, root, tmp_path):
    """As on Colab, whose packages are there before: ours stand in for them, and so nothing is downloaded."""
    if subprocess.run(["git", "-C", root, "rev-parse"], capture_output=True).returncode:
        pytest.skip("this is no git checkout, so that there is nothing to clone")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "venv"], cwd=tmp_path, check=True)
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = subprocess.check_output(where, text=True).strip()
    Path(packages, "packages.pth").write_text(sysconfig.get_path("purelib"))
    script = "import sys, types\nsys.modules['google.colab'] = types.ModuleType('google.colab')\n"
    script += address(colab_cell, root.as_uri())
    script += "\nimport rlino_lib\nfrom rlino_lib.tasks import get_task\nprint(rlino_lib.__file__, os.getcwd())"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env |= {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}  # 0: no isolation
    result = subprocess.run([python, "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    clone = (tmp_path / "rlino").resolve()
    assert result.stdout.split()[-2:] == [str(clone / "rlino_lib" / "__init__.py"), str(clone / "book")]
    here = subprocess.run([python, "-c", "import rlino_lib; print(rlino_lib.__file__)"], cwd=tmp_path, env=env,
                          capture_output=True, text=True)  # fmt: skip
    assert here.stdout.strip() == str(clone / "rlino_lib" / "__init__.py")  # in the next session, without the cell


# ---- hosted tests and hooks ------------------------------------------------------------------------------------------
def test_the_workflow_runs_make_test_on_both_pythons(root):
    workflow = yaml.safe_load((root / ".github" / "workflows" / "test.yml").read_text())
    job = workflow["jobs"]["test"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12"]
    [command] = [step["run"] for step in job["steps"] if "run" in step]
    assert command.splitlines()[-1] == "make test" and SMALL_TORCH in command
    setup = next(step["with"] for step in job["steps"] if "setup-python" in step.get("uses", ""))
    assert setup["python-version"] == "${{ matrix.python }}"
    assert (root / setup["cache-dependency-path"]).exists()


def test_the_hooks_are_programs_of_the_environment(root):
    hooks = yaml.safe_load((root / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]  # nothing is fetched
    entries = {hook["id"]: hook for hook in hooks[0]["hooks"]}
    assert {"ruff", "notebooks", "types"} <= entries.keys()
    for hook in entries.values():
        assert hook["language"] == "system" and hook["entry"].startswith("python -m "), hook
    assert re.match(entries["notebooks"]["files"], "book/00_start_here.ipynb")
    assert not re.match(entries["types"]["files"], "tests/tools/test_doors.py")


def test_the_targets_of_those_who_carry_the_work_on(root):
    assert {"types", "test-oldest"} <= targets(root)
    help = subprocess.run(["make"], cwd=root, capture_output=True, text=True).stdout
    assert "make test-oldest\t" in help and "make types\t" in help
