"""The explorer that all pages share: controls by name, one drawing a change, and what is saved."""

from __future__ import annotations

import ipywidgets as widgets
import pandas as pd

from rlino_lib.widgets import explorer
from rlino_lib.widgets.explorer import refill
from rlino_lib.widgets.page import folds, frame_table, sides_svg
from tests.widgets.test_widgets import HOSTILE, Page


def shout(word: str, times: int, image: bool = False) -> str:
    return f"{'image ' * image}{word * times}"


def test_controls_are_arguments_by_name():
    view = explorer(shout, word=("Word:", "b", [("first", "a"), ("second", "b")]), times=("Times:", 2, range(1, 4)))
    assert view.choice == {"word": "b", "times": 2} and view.view.value == "bb" and repr(view) == "Explorer()"
    assert (view.menus["times"].min, view.menus["times"].max) == (1, 3)
    view.menus["word"].value = "a"
    assert view.view.value == "aa" == view._repr_mimebundle_()["text/html"]


def test_other_controls_are_fitted_before_one_drawing():
    drawings, changed = [], []

    def fit(menus, name):
        changed.append(name)
        if name == "word":
            refill(menus["times"], [("one", 1)])

    times = widgets.Dropdown(options=[("one", 1), ("two", 2)], value=2)
    view = explorer(shout, fit=fit, word=("Word:", "a", [("a", "a"), ("b", "b")]), times=times)
    view.view.observe(lambda change: drawings.append(change["new"]), "value")
    view.menus["word"].value = "b"
    assert changed == [None, "word"] and drawings == ["b"]


def test_the_saved_page_may_be_an_image_and_choices_may_be_turned_into_arguments():
    settings = {"choose": lambda values: {"word": values["w"], "times": 3}, "image": True, "name": "Shout()"}
    view = explorer(shout, **settings, w=("Word:", "a", [("a", "a")]))
    assert view.view.value == "aaa" and view._repr_mimebundle_()["text/html"] == "image aaa"
    assert repr(view) == "Shout()"


def test_a_refilled_menu_keeps_its_value_where_it_can():
    menu = widgets.Dropdown(options=[("a", 1), ("b", 2)], value=2)
    refill(menu, [("b", 2), ("c", 3)])
    assert menu.value == 2
    refill(menu, [("c", 3), ("d", 4)])
    assert menu.value == 3
    refill(menu, [("c", 3), ("d", 4)], 4)
    assert menu.value == 4


def test_tables_and_folds_escape_every_text():
    for text in HOSTILE[:6]:
        frame = pd.DataFrame({text: [text]}, index=pd.Index([text], name=text))
        page = Page(frame_table(frame) + folds([(text, "")]))
        assert {tag for tag, _ in page.elements} <= {
            "div", "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "strong",
        }  # fmt: skip
        assert page.text.count(text) == 5


def test_a_table_marks_a_row_and_a_column():
    frame = pd.DataFrame([["a", "b"], ["c", "d"]], columns=[1, 2], index=["x", "y"])
    assert '<tr class="rlino-now" aria-current="true"><th scope="row">y</th>' in frame_table(frame, "y")
    marked = frame_table(frame, column=2)
    assert [marked.count(f'aria-current="true">{text}<') for text in ("2", "b", "d", "a")] == [1, 1, 1, 0]
    assert 'scope="row"' not in frame_table(frame, index=False)


def test_curves_are_drawn_where_their_numbers_are():
    curves = pd.DataFrame({"right": [0.0, 1.0], "wrong": [0.0, -0.5]}, index=[0.0, 1.0])
    source = sides_svg(curves, 1.0, "caption", "alt")
    assert "M60.0 94.0L310.0 14.0" in source and "M60.0 94.0L310.0 134.0" in source and ">+1<" in source
    assert 'cx="310.0" cy="14.0" r="5"' in source and 'cx="60.0" cy="94.0" r="3"' in source
    assert ">0<" in sides_svg(curves * 0, 0.5, "", "") and ">+" not in sides_svg(curves * 0, 0.5, "", "")
