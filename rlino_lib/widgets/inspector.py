"""The trace inspector: pick a run, a step and a problem, and read the whole group side by side.

Its HTML is `inspector_html`, or for Countdown the search view, so only choosing needs a kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets
import pandas as pd

from rlino_lib.errors import RlinoError
from rlino_lib.figures.style import label
from rlino_lib.widgets.explorer import Explorer, Menus, row_of
from rlino_lib.widgets.groups import COLOURS, SHOWS, SORTS, chosen, inspector_html
from rlino_lib.widgets.search import is_search, search_html
from rlino_lib.widgets.tokens import plain
from rlino_lib.widgets.traces import Traces


def _menu(description: str, width: str, **settings: Any) -> widgets.Dropdown:
    return widgets.Dropdown(description=description, layout={"width": width, "max_width": "100%"}, **settings)


class TraceInspector(Explorer):
    """Menus over one HTML view. `view.value` is `inspector_html` of the choices, which are in `choice`.

    Countdown's groups can also be seen as one tree of attempts (`search_view` steps through a single response).
    """

    def __init__(self, runs: Any, *, step: int | None, group: int | None, colour: str, show: str):
        self._sources = list(runs) if isinstance(runs, Sequence) else [runs]
        if not self._sources:
            raise RlinoError("no run to inspect: the list is empty")
        self._traces: dict[int, Traces] = {}
        self._last: tuple[int | None, str | None] = (step, None)  # the last step and problem shown
        self._start = group
        menus = {
            "run": _menu("Run:", "21em", options=_run_names(self._sources)),
            "step": _menu("Step:", "8.5em"),
            "group": _menu("Problem:", "23em"),
            "form": _menu("View:", "13em", options=[("responses", False), ("tree of attempts", True)]),
            "colour": _menu("Colour by:", "16em", options=[(c.menu, k) for k, c in COLOURS.items()], value=colour),
            "show": _menu("Show:", "11em", options=SHOWS, value=show),
            "sort": _menu("Sort by:", "13em", options=SORTS),
        }
        self.previous = widgets.Button(description="‹ Previous", tooltip="Previous step", layout={"width": "7em"})
        self.next = widgets.Button(description="Next ›", tooltip="Next step", layout={"width": "7em"})
        self.previous.on_click(lambda _: self._move(-1))
        self.next.on_click(lambda _: self._move(+1))
        count = len(self._sources)
        name = f"TraceInspector({count} source{'s' if count > 1 else ''} of traces)"
        super().__init__(self._html, name, menus, self._refit, image=True)
        where = [menus["step"], self.previous, self.next, menus["group"]]
        how = [menus[key] for key in ("form", "colour", "show", "sort")]
        self.children = [row_of(*[menus["run"]] * (count > 1), *where), row_of(*how), self.view]

    @property
    def traces(self) -> Traces:
        """The traces of the chosen run, read when it is first chosen."""
        k = self.menus["run"].value
        if k not in self._traces:
            self._traces[k] = Traces(self._sources[k])
        return self._traces[k]

    @property
    def choice(self) -> dict[str, Any]:
        """The arguments with which `inspector_html` gives what is shown."""
        return {name: menu.value for name, menu in self.menus.items() if name not in ("run", "form")}

    def _html(self, image: bool = False, **choice: Any) -> str:
        if self.menus["form"].value:
            return search_html(self.traces, choice["step"], choice["group"], overlay=True, image=image)
        return inspector_html(self.traces, **choice)

    def _move(self, by: int) -> None:
        menu = self.menus["step"]
        k = (menu.index or 0) + by
        if 0 <= k < len(menu.options):
            menu.index = k

    def _refit(self, menus: Menus, name: str | None) -> None:
        """Another run keeps the nearest step, another step the same problem where it is among the new ones."""
        traces, step_menu, group_menu = self.traces, menus["step"], menus["group"]
        recorded = bool(traces.steps)
        if name in (None, "run"):
            step_menu.options = traces.steps
            step_menu.value = traces.nearest(self._last[0]) if recorded else None
        step = step_menu.value
        if name in (None, "run", "step"):
            group_menu.options = [(traces.title(step, g), g) for g in traces.groups(step)] if recorded else []
            if recorded:
                same = traces.find(step, self._last[1]) if self._last[1] is not None else None
                group_menu.value = traces.first_mixed(step) if same is None else same
        if name is None and self._start is not None and recorded:
            traces.rows(step, self._start)  # raises where there is no such group
            group_menu.value = self._start
        if recorded:
            self._last = step, traces.problem(step, group_menu.value)
        self._enable(recorded, recorded and is_search(traces.rows(step, group_menu.value)))

    def _enable(self, recorded: bool, tree: bool) -> None:
        """Controls that have nothing to choose from are greyed."""
        menus = self.menus
        menus["form"].disabled = not tree
        menus["form"].value = menus["form"].value and tree
        for key in ("step", "group"):
            menus[key].disabled = not recorded
        for key in ("colour", "sort", "show"):
            menus[key].disabled = menus["form"].value
        self.previous.disabled = not recorded or menus["step"].index == 0
        self.next.disabled = not recorded or menus["step"].index == len(menus["step"].options) - 1


def _run_names(sources: Sequence[Any]) -> list[tuple[str, int]]:
    """A name in the menu for each source: method and seed, with the run's name where that is not enough to tell."""
    names = []
    full = [str(getattr(source, "name", "")) for source in sources]
    for k, source in enumerate(sources):
        if isinstance(source, pd.DataFrame):
            names.append(f"frame {k + 1}")
        elif (method := getattr(source, "method", None)) is not None:
            seed = getattr(source, "seed", None)  # an imported run may not say it
            names.append(label(method) + ("" if seed is None else f", seed {seed}"))
        else:
            names.append(full[k] or f"run {k + 1}")
    return [
        (plain(f"{name} ({text})" if text and names.count(name) > 1 else name, 80), k)
        for k, (name, text) in enumerate(zip(names, full, strict=True))
    ]


def trace_inspector(
    runs: Any, *, step: int | None = None, group: int | None = None, colour: str = "weights", show: str = "all"
) -> TraceInspector:
    """A widget to read recorded or live traces: run, step, problem, then the whole group side by side.

    `runs` is a run, a list of runs, or a DataFrame of rollouts (or a list with such frames). A run's rollouts are read
    when it is first chosen. Choosing another run keeps the nearest step, and the same problem where both have it; the
    arguments say where to start, as in `inspector_html`.
    Raises RlinoError for an empty list, a source without the columns, or an unknown choice.
    """
    chosen(colour, COLOURS, "colour")
    chosen(show, SHOWS, "filter")
    return TraceInspector(runs, step=step, group=group, colour=colour, show=show)
