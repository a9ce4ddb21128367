"""The trace inspector: pick a run, a step and a problem, and read the whole group side by side.

Its HTML is `inspector_html`, or for Countdown the search view, so what needs a kernel here is only the choosing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ipywidgets as widgets
import pandas as pd

from rlino_lib.errors import RlinoError
from rlino_lib.figures.curves import label
from rlino_lib.widgets.groups import COLOURS, SHOWS, SORTS, chosen, inspector_html, static_inspector
from rlino_lib.widgets.search_page import is_search, search_html
from rlino_lib.widgets.tokens import plain
from rlino_lib.widgets.traces import Traces

__all__ = ["TraceInspector", "inspector_html", "static_inspector", "trace_inspector"]


class TraceInspector(widgets.VBox):
    """Menus over one HTML view. `view.value` is `inspector_html` of the choices; `choice` is what they are.

    Countdown's groups can also be seen as one tree of attempts (`search_view` steps through a single response).

    Where a notebook is read without its kernel, the saved output is the HTML of the choices made when it was shown.
    """

    def __init__(self, runs: Any, *, step: int | None, group: int | None, colour: str, show: str):
        self._sources = list(runs) if isinstance(runs, Sequence) else [runs]
        if not self._sources:
            raise RlinoError("no run to inspect: the list is empty")
        self._traces: dict[int, Traces] = {}
        self._quiet = False
        self._seen: tuple[int | None, str | None] = (step, None)  # the last step and problem shown
        self._make_menus(colour, show)
        self.view = widgets.HTML(layout=widgets.Layout(width="auto"))
        wrap = widgets.Layout(flex_flow="row wrap", align_items="center", grid_gap="2px 12px", width="100%")
        where = [self.step_menu, self.previous, self.next, self.group_menu]
        if len(self._sources) > 1:
            where.insert(0, self.run_menu)
        how = [self.form_menu, self.colour_menu, self.show_menu, self.sort_menu]
        super().__init__([widgets.HBox(where, layout=wrap), widgets.HBox(how, layout=wrap), self.view])
        with self._silent():
            self._fill_steps()
            self._fill_groups()
            if group is not None:
                self._set_group(group)
        self._render()

    def _make_menus(self, colour: str, show: str) -> None:
        menu = {"style": {"description_width": "initial"}}
        width = lambda w: widgets.Layout(width=w, max_width="100%")  # noqa: E731
        colours = [(c.menu, key) for key, c in COLOURS.items()]
        names = _run_names(self._sources)
        self.run_menu = widgets.Dropdown(options=names, description="Run:", layout=width("21em"), **menu)
        self.step_menu = widgets.Dropdown(description="Step:", layout=width("8.5em"), **menu)
        self.previous = widgets.Button(description="‹ Previous", tooltip="Previous step", layout=width("7em"))
        self.next = widgets.Button(description="Next ›", tooltip="Next step", layout=width("7em"))
        self.group_menu = widgets.Dropdown(description="Problem:", layout=width("23em"), **menu)
        self.colour_menu = widgets.Dropdown(
            options=colours, value=colour, description="Colour by:", layout=width("16em"), **menu
        )
        self.sort_menu = widgets.Dropdown(options=SORTS, description="Sort by:", layout=width("13em"), **menu)
        self.show_menu = widgets.Dropdown(options=SHOWS, value=show, description="Show:", layout=width("11em"), **menu)
        forms = [("responses", False), ("tree of attempts", True)]
        self.form_menu = widgets.Dropdown(options=forms, description="View:", layout=width("13em"), **menu)
        where = (self.run_menu, self.step_menu, self.group_menu)
        for each in (*where, self.form_menu, self.colour_menu, self.sort_menu, self.show_menu):
            each.observe(self._changed, "value")
        self.previous.on_click(lambda _: self._move(-1))
        self.next.on_click(lambda _: self._move(+1))

    @property
    def traces(self) -> Traces:
        """The traces of the chosen run, read when it is first chosen."""
        k = self.run_menu.value
        if k not in self._traces:
            self._traces[k] = Traces(self._sources[k])
        return self._traces[k]

    @property
    def choice(self) -> dict[str, Any]:
        """The arguments with which `inspector_html` gives what is shown."""
        menus = {"step": self.step_menu, "group": self.group_menu, "colour": self.colour_menu}
        menus |= {"show": self.show_menu, "sort": self.sort_menu}
        return {name: menu.value for name, menu in menus.items()}

    @contextmanager
    def _silent(self) -> Iterator[None]:
        """Menus are filled here without drawing at every change."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _changed(self, change: dict[str, Any]) -> None:
        if self._quiet:
            return
        with self._silent():
            if change["owner"] is self.run_menu:
                self._fill_steps()
            if change["owner"] in (self.run_menu, self.step_menu):
                self._fill_groups()
        self._render()

    def _move(self, by: int) -> None:
        k = (self.step_menu.index or 0) + by
        if 0 <= k < len(self.step_menu.options):
            self.step_menu.index = k

    def _fill_steps(self) -> None:
        """The steps of the chosen run, at the one nearest to the step shown before."""
        steps = self.traces.steps
        self.step_menu.options = steps
        self.step_menu.value = self.traces.nearest(self._seen[0]) if steps else None

    def _fill_groups(self) -> None:
        """The problems of the chosen step, at the one shown before where it is among them."""
        step = self.step_menu.value
        if step is None:
            self.group_menu.options = []
            return
        self.group_menu.options = [(self.traces.title(step, g), g) for g in self.traces.groups(step)]
        same = self.traces.find(step, self._seen[1]) if self._seen[1] is not None else None
        self.group_menu.value = self.traces.first_mixed(step) if same is None else same

    def _set_group(self, group: int) -> None:
        step = self.step_menu.value
        if step is not None:
            self.traces.rows(step, group)  # raises where there is none
            self.group_menu.value = group

    def _render(self) -> None:
        choice, some = self.choice, bool(self.traces.steps)
        for menu in (self.step_menu, self.group_menu):
            menu.disabled = not some
        self.previous.disabled = not some or self.step_menu.index == 0
        self.next.disabled = not some or self.step_menu.index == len(self.step_menu.options) - 1
        tree = some and is_search(self.traces.rows(choice["step"], choice["group"]))
        with self._silent():
            self.form_menu.disabled = not tree
            self.form_menu.value = self.form_menu.value and tree
        for menu in (self.colour_menu, self.sort_menu, self.show_menu):
            menu.disabled = self.form_menu.value
        if some:
            self._seen = (choice["step"], self.traces.problem(choice["step"], choice["group"]))
        self.view.value = self._page()

    def _page(self, image: bool = False) -> str:
        choice = self.choice
        if self.form_menu.value:
            return str(search_html(self.traces, choice["step"], choice["group"], overlay=True, image=image))
        return str(inspector_html(self.traces, **choice))

    def __repr__(self) -> str:
        n = len(self._sources)
        return f"TraceInspector({n} source{'s' if n > 1 else ''} of traces)"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        return super()._repr_mimebundle_(**kwargs) | {"text/html": self._page(image=True)}


def _run_names(sources: Sequence[Any]) -> list[tuple[str, int]]:
    """A name in the menu for each source: method and seed, with the run's name where that is not enough to tell."""
    names = []
    for k, source in enumerate(sources):
        if isinstance(source, pd.DataFrame):
            names.append(f"frame {k + 1}")
            continue
        method = getattr(source, "method", None)
        seed = getattr(source, "seed", None)
        made = f"{label(method)}, seed {seed}" if method is not None else ""
        names.append(made or str(getattr(source, "name", f"run {k + 1}")))
    if len(set(names)) < len(names):
        full = [str(getattr(s, "name", "")) for s in sources]
        names = [f"{n} ({f})" if f and names.count(n) > 1 else n for n, f in zip(names, full, strict=True)]
    return [(plain(n, 80), k) for k, n in enumerate(names)]


def trace_inspector(
    runs: Any, *, step: int | None = None, group: int | None = None, colour: str = "weights", show: str = "all"
) -> TraceInspector:
    """A widget to read recorded or live traces: run, step, problem, then the whole group side by side.

    `runs` is a run, a list of runs, or a DataFrame of rollouts (or a list with such frames). A run's rollouts are read
    when it is first chosen. Choosing another run keeps the nearest step, and the same problem where both have it; the
    arguments say where to start, as in `inspector_html`.
    Raises RlinoError for an empty list, a source without the columns, or an unknown choice.
    """
    chosen(colour, COLOURS, "colour"), chosen(show, SHOWS, "filter")
    return TraceInspector(runs, step=step, group=group, colour=colour, show=show)
