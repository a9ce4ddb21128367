"""The book as it is committed, and the machinery that runs it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from rlino_lib.errors import RlinoError
from rlino_lib.figures.chapters import chapter_costs
from tools import book

BOOK = Path(__file__).resolve().parents[2] / "book"
CHAPTERS = sorted(BOOK.glob("[0-9][0-9]*_*.py"))
each_chapter = pytest.mark.parametrize("script", CHAPTERS, ids=lambda path: path.stem)


# ---- the chapters ----------------------------------------------------------------------------------------------------
@each_chapter
def test_notebook_holds_the_script_executed_without_errors(script):
    """Valid, and with the name of a plain kernel."""
    assert book.sync_pair(script) == []
    assert json.loads(script.with_suffix(".ipynb").read_text("utf-8"))["metadata"]["kernelspec"]["name"] == "python3"


@each_chapter
def test_no_warning_is_among_the_outputs(script):
    """A warning is for whoever runs a cell; in a book it is noise, with a path of the machine that ran it."""
    notebook = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    outputs = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    assert not [out.text for out in outputs if out.output_type == "stream" and out.name == "stderr"]


def test_every_notebook_has_its_script():
    assert {path.stem for path in BOOK.glob("*.ipynb")} == {path.stem for path in BOOK.glob("*.py")}


@each_chapter
def test_script_is_plain_python(script):
    """No magic, which only a kernel reads. What the cells do is tested in the notebook, which holds the same ones."""
    compile(script.read_text(encoding="utf-8"), script, "exec")


@pytest.mark.slow
def test_a_script_runs_as_plain_python():
    """The quickest one: all of them run in notebooks, which hold the same cells."""
    (script,) = book.chapters(BOOK, chapter_costs()["seconds"].idxmin())
    env = {**os.environ, "MPLBACKEND": "Agg", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, script]
    result = subprocess.run(command, env=env, cwd=BOOK.parent, capture_output=True, text=True)
    assert result.returncode == 0, f"{result.stdout[-2000:]}\n{result.stderr[-4000:]}"


# ---- the machinery, on a chapter of three cells ----------------------------------------------------------------------
TOY = """# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 04 · A toy, from two cells

# %% tags=["first"]
import sys

from IPython.display import display
from ipywidgets import HTML, Dropdown, Stack, VBox, jslink

print(sys.executable)

# %%
pages = Stack([HTML("one"), HTML("two")], selected_index=0)
choice = Dropdown(options=["one", "two"])
jslink((choice, "index"), (pages, "selected_index"))
display(VBox([choice, pages]))

# %% tags=["raises-exception"]
1 / 0

# %% tags=["nbval-skip", "skip-execution"]
raise SystemExit
"""


@pytest.fixture
def toy(tmp_path):
    script = tmp_path / "04_toy.py"
    script.write_text(TOY)
    return script


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The toy's script and notebook, made once."""
    script = tmp_path_factory.mktemp("book") / "04_toy.py"
    script.write_text(TOY)
    assert book.main(["run", "--book", str(script.parent)]) == 0
    return script


def test_run_writes_outputs_and_widget_state(made):
    notebook = nbformat.read(made.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(notebook)
    heading, first, widget, raises, skipped = notebook.cells
    assert first.metadata.tags == ["first"]
    assert first.outputs[0].text.strip() == sys.executable  # the kernel is the Python that runs this
    states = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    assert widget.outputs[0].data["application/vnd.jupyter.widget-view+json"]["model_id"] in states
    assert raises.outputs[0].ename == "ZeroDivisionError"
    assert skipped.execution_count is None
    assert book.sync(made.parent) == []


def test_run_twice_gives_the_same_bytes(made, capsys):
    before = made.with_suffix(".ipynb").read_bytes()
    assert book.main(["run", "--book", str(made.parent), "--only", "4"]) == 0
    assert made.with_suffix(".ipynb").read_bytes() == before
    line, end = capsys.readouterr().out.splitlines()
    assert line.startswith("04 A toy, from two cells …") and line.endswith(" s ok")
    assert "1 chapter in" in end and "make lab" in end


def test_keep_writes_nothing(toy, monkeypatch):
    monkeypatch.setattr(book, "execute", lambda *_: 2**30)
    assert book.main(["run", "--book", str(toy.parent), "--keep"]) == 0
    assert [path.name for path in toy.parent.iterdir()] == ["04_toy.py"]


def test_run_stops_at_the_first_failure(toy, capsys):
    toy.write_text("# %%\nx = 'fine'\n\n# %%\nraise ValueError('boom')\n")
    notebook = toy.with_suffix(".ipynb")
    notebook.write_text("as it was")
    (toy.parent / "05_never.py").write_text("# %%\nopen('ran', 'w')\n")
    assert book.main(["run", "--book", str(toy.parent), "--jobs", "1"]) == 1
    out = capsys.readouterr().out
    assert "FAILED in cell 2" in out and "raise ValueError('boom')" in out and "ValueError: boom" in out
    assert "make lab" in out and "\x1b" not in out
    assert notebook.read_text() == "as it was" and not (toy.parent / "ran").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_a_killed_run_ends_with_one_line(toy):
    toy.write_text("# %%\nimport os, pathlib, time\npathlib.Path('started').touch()\ntime.sleep(60)\n")
    command = [sys.executable, "-m", "tools.book", "run", "--book", str(toy.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (toy.parent / "started").exists():
            time.sleep(0.1)
        process.terminate()
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err.split()) == (130, ["interrupted"]) and "Traceback" not in out
    assert not toy.with_suffix(".ipynb").exists()


def test_chapters_run_side_by_side(toy, capfd):
    """Each waits for the other, so that one at a time would never end."""
    wait = "while not pathlib.Path({!r}).exists():\n    time.sleep(0.1)\n"
    for number, other in (("04", "05"), ("05", "04")):
        text = f"# %%\nimport pathlib, time\npathlib.Path({number!r}).touch()\n{wait.format(other)}"
        (toy.parent / f"{number}_toy.py").write_text(text)
    assert book.main(["run", "--book", str(toy.parent), "--jobs", "2"]) == 0
    head, *lines, end = capfd.readouterr().out.splitlines()
    assert head.startswith("2 chapters, 2 at a time") and end.startswith("2 chapters in ") and "make lab" in end
    assert sorted(line[:6] for line in lines) == ["04 04_", "05 05_"] and all(line.endswith(" s ok") for line in lines)
    assert book.sync(toy.parent) == []


def test_a_failure_ends_the_chapters_beside_it(toy, capfd):
    toy.write_text("# %%\nraise ValueError('boom')\n")
    (toy.parent / "05_slow.py").write_text("# %%\nimport time\ntime.sleep(600)\n")
    (toy.parent / "06_never.py").write_text("# %%\nopen('ran', 'w')\n")
    assert book.main(["run", "--book", str(toy.parent), "--jobs", "2"]) == 1
    out = capfd.readouterr().out
    assert "FAILED in cell 1" in out and "ValueError: boom" in out and "3 chapters in" not in out
    assert not list(toy.parent.glob("*.ipynb")) and not (toy.parent / "ran").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_a_kill_ends_the_chapters_side_by_side(toy):
    for number in ("04", "05"):
        text = (
            f"# %%\nimport os, pathlib, time\npathlib.Path('{number}').write_text(str(os.getpid()))\ntime.sleep(600)\n"
        )
        (toy.parent / f"{number}_toy.py").write_text(text)
    command = [sys.executable, "-m", "tools.book", "run", "--book", str(toy.parent), "--jobs", "2"]
    kernels = [toy.parent / number for number in ("04", "05")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not all(path.exists() and path.read_text() for path in kernels):
            time.sleep(0.1)
        process.terminate()
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err.split()) == (130, ["interrupted"]) and "Traceback" not in out
    assert not any(psutil.pid_exists(int(path.read_text())) for path in kernels)


def test_run_reports_a_dead_kernel(toy, capsys):
    toy.write_text("# %%\nimport os\nos._exit(3)\n")
    assert book.main(["run", "--book", str(toy.parent)]) == 1
    out = capsys.readouterr().out
    assert "os._exit(3)" in out and "Kernel died" in out


def test_cell_ids_stay_when_a_cell_changes(made, toy):
    toy.with_suffix(".ipynb").write_bytes(made.with_suffix(".ipynb").read_bytes())
    before = [cell.id for cell in book.build(toy).cells]
    toy.write_text(TOY.replace("print(sys.executable)", "print(sys.version)"))
    after = book.build(toy)
    assert [cell.id for cell in after.cells] == before
    assert after.cells[1].source.endswith("print(sys.version)")


V4 = '"nbformat": 4, "nbformat_minor": 5'


@pytest.mark.parametrize(
    "content",
    [
        "<<<<<<< ours\n{}\n=======\n{}\n>>>>>>> theirs\n",
        "", "{}", "[]", "3", '"x"', "null", "[" * 100_000, '{"nbformat": "x"}', '{"nbformat": 99}', "{" + V4 + "}",
        '{"cells": 3, "metadata": {}, ' + V4 + "}",
        '{"cells": [3], "metadata": {}, ' + V4 + "}",
        '{"cells": [{}], "metadata": {}, ' + V4 + "}",
        '{"cells": [{"cell_type": "code", "source": 3}], "metadata": {}, ' + V4 + "}",
        '{"nbformat": 3, "worksheets": []}',
    ],
)  # fmt: skip
def test_what_is_no_notebook_is_named_and_made_anew(toy, content, capsys):
    toy.with_suffix(".ipynb").write_text(content)
    assert len(book.build(toy).cells) == 5
    assert book.main(["sync", "--book", str(toy.parent)]) == 1
    out, err = capsys.readouterr()
    assert out == "04_toy.ipynb is not a notebook (a merge conflict?): make book\n" and err == ""


@pytest.mark.parametrize("command", ["sync", "run"])
def test_a_script_or_notebook_that_cannot_be_read_is_one_line(toy, command, capsys):
    notebook, path = book.build(toy), toy.with_suffix(".ipynb")
    path.mkdir()
    assert book.main([command, "--book", str(toy.parent)]) == 2
    path.rmdir()
    nbformat.write(notebook, path)
    toy.write_bytes(b"# \xff\n")
    assert book.main([command, "--book", str(toy.parent)]) == 2
    folder, script = capsys.readouterr().err.splitlines()
    assert folder.startswith("error: ") and "directory" in folder
    assert script.startswith(f"error: {toy} is not UTF-8: ")


@pytest.mark.parametrize("argv", [["runn"], ["sync", "--only", ""], ["sync", "--book="], []])
def test_a_wrong_call_is_one_line(argv, capsys):
    assert book.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.parametrize("text", ["[", "[project]\nname = 3\n", '[project]\ndependencies = ["!"]\n'])
def test_a_damaged_pyproject_is_one_line(text, tmp_path):
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(RlinoError, match="pyproject.toml is missing or damaged"):
        book.requirements(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda nb: nb.cells[1].update(source="1"), "04_toy.ipynb differs from 04_toy.py, from cell 2 on"),
        (lambda nb: nb.cells.pop(), "differs from 04_toy.py, from cell 5 on"),
        (lambda nb: nb.cells[1].metadata.pop("tags"), "differs from 04_toy.py, from cell 2 on"),
        (lambda nb: nb.cells[1].update(execution_count=None), "cell 2: never executed"),
        (lambda nb: nb.cells[2].update(outputs=nb.cells[3].outputs), "cell 3: ZeroDivisionError: division by zero"),
    ],
)
def test_sync_finds(made, toy, change, message):
    notebook = nbformat.read(made.with_suffix(".ipynb"), as_version=4)
    change(notebook)
    nbformat.write(notebook, toy.with_suffix(".ipynb"))
    (problem,) = book.sync(toy.parent)
    assert message in problem
    assert book.main(["sync", "--book", str(toy.parent)]) == 1


def test_sync_finds_what_is_missing(toy):
    (toy.parent / "09_orphan.ipynb").write_text("{}")
    assert book.sync(toy.parent) == ["04_toy.ipynb is missing: make book", "09_orphan.ipynb has no script 09_orphan.py"]


def test_no_chapter_is_a_mistake(tmp_path, capsys):
    with pytest.raises(RlinoError, match="no chapter NN_"):
        book.chapters(tmp_path)
    assert book.main(["run", "--book", str(tmp_path), "--only", "3"]) == 2
    assert capsys.readouterr().err.startswith("error: no chapter 03_*.py in ")


def test_a_chapter_that_continues_another_has_its_number_and_a_letter(tmp_path):
    for name in ("08_length", "08b_clean", "12_scale"):
        (tmp_path / f"{name}.py").write_text("", encoding="utf-8")
    found = {only: [path.stem for path in book.chapters(tmp_path, only)] for only in (None, "8", "08", "8b", "08b")}
    assert found.pop(None) == ["08_length", "08b_clean", "12_scale"]
    assert list(found.values()) == [["08_length"], ["08_length"], ["08b_clean"], ["08b_clean"]]
    cell = nbformat.v4.new_markdown_cell("# 08b · The clean room")
    assert book.title(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "08b_clean.py") == "08b The clean room"


@pytest.mark.parametrize("heading", ["# 04 · The same", "# The same"])
def test_title_has_the_number_once(tmp_path, heading):
    cell = nbformat.v4.new_markdown_cell(heading)
    assert book.title(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "04_x.py") == "04 The same"
