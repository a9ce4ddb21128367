"""The live plot: when it draws, what it says, and what a saved notebook keeps of it."""

from __future__ import annotations

import math

import nbformat
import pytest

from rlino_lib.errors import RlinoError
from rlino_lib.figures.curves import live_panels
from rlino_lib.widgets import LivePlot
from tools.book import execute


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def pages(monkeypatch):
    """As if a kernel ran the test: every page that the one output of a notebook has shown, in order."""
    shown: list[str] = []

    class Handle:
        update = staticmethod(shown.append)

    def display(page: str, display_id: bool) -> Handle:
        assert display_id and not shown
        shown.append(page)
        return Handle()

    monkeypatch.setattr("rlino_lib.widgets.live._in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", display)
    return shown


def test_a_live_plot_is_redrawn_at_most_twice_a_second(pages):
    clock = Clock()
    plot = LivePlot(100, ["reward", ("length/correct", "length/incorrect")], clock=clock)
    plot.show()
    for step in range(1, 7):
        clock.now += 0.25
        plot.update(step, {"reward": step / 100, "length/correct": 20.0, "length/incorrect": math.nan, "name": "x"})
    assert ["<img" in page for page in pages] == [False, True, True, True]
    assert "step 5 of 100 · reward 0.05" in pages[-1] and "data:image/png;base64," in pages[-1]
    assert 'alt="Curves of reward, length/correct, length/incorrect. Training: step 5 of 100' in pages[-1]
    assert plot.status() == "Training: step 6 of 100 · reward 0.06 · length/correct 20 · 0:01 so far, about 0:23 left"
    assert list(plot.history.columns) == ["reward", "length/correct", "length/incorrect"]


def test_the_last_step_is_always_drawn_and_a_title_is_text(pages):
    plot = LivePlot(2, ["reward"], title="<b>", clock=Clock())
    plot.show()
    plot.update(1, {"reward": 0.0})
    plot.update(2, {"reward": 1.0})
    assert "&lt;b&gt;: step 2 of 2 · reward 1 · done in 0:00" in pages[-1]
    assert not any("<b>" in page for page in pages)


def test_a_live_plot_in_a_script_draws_nothing(monkeypatch, capsys):
    plot = LivePlot(3, ["reward", "entropy"])
    monkeypatch.setattr(plot, "page", lambda: pytest.fail("drawn without a notebook"))
    plot.show()
    for step in (1, 2, 3):
        plot.update(step, {"reward": 0.5})
    assert capsys.readouterr() == ("", "")
    assert [len(a.lines) for a in live_panels(plot.history, plot.panels, 3).axes] == [2, 1]


def test_a_live_plot_needs_something_to_plot():
    for arguments in ((0, ["reward"]), (10, [])):
        with pytest.raises(RlinoError):
            LivePlot(*arguments)


def test_a_saved_notebook_keeps_the_last_picture(root, tmp_path, monkeypatch):
    """Also where the run goes on in a later cell, and with no state of any widget beside it."""
    monkeypatch.setenv("PYTHONPATH", str(root))
    start = "from rlino_lib.widgets import LivePlot\nplot = LivePlot(2, ['reward'])\nplot.show()"
    sources = [start + "\nplot.update(1, {'reward': 0.25})", "plot.update(2, {'reward': 0.5})"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    execute(notebook, tmp_path)
    [output] = notebook.cells[0].outputs
    assert notebook.cells[1].outputs == [] and "widgets" not in notebook.metadata
    assert "step 2 of 2 · reward 0.5" in output.data["text/html"]
    assert output.data["text/html"].count('src="data:image/png;base64,') == 1
