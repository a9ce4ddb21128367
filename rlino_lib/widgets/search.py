"""The search view: sliders over the page of `search_page.py` (chapter 08).

What needs a kernel here is only the choosing; `static_search` is the twin without one.
"""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets

from rlino_lib.widgets.page import Page, menu_slider, number_slider
from rlino_lib.widgets.search_page import Shown, locate, pick, read_group, sample_name, search_html, static_search
from rlino_lib.widgets.traces import Traces

__all__ = ["SearchView", "search_html", "search_view", "static_search"]


class SearchView(Page):
    """Step, problem, response, attempt, token and overlay over `search_html`. Attempt and token move each other."""

    def __init__(self, traces: Traces, step: int, group: int, sample: int | None, overlay: bool) -> None:
        self.traces = traces
        self.group = read_group(traces.rows(step, group))
        now = pick(self.group, sample)
        views = [("the response", False), ("its whole group", True)]
        self.menus = {
            "step": menu_slider([(str(s), s) for s in traces.steps], step, "Step:"),
            "group": menu_slider(self._problems(step), group, "Problem:"),
            "sample": menu_slider(self._samples(), now.sample, "Response:"),
            "attempt": number_slider(0, 0, 0, "Attempt:"),
            "token": number_slider(0, 0, 0, "Token:"),
            "overlay": menu_slider(views, overlay, "Tree of:"),
        }
        for name in ("group", "sample"):
            self.menus[name].layout.width = "35em"  # their words are longer
        self._fit_tokens()
        super().__init__(self.menus, "SearchView")

    def _problems(self, step: int) -> list[tuple[str, int]]:
        titles = ((self.traces.title(step, g), g) for g in self.traces.groups(step))
        return [(title.replace(" right", " ✓"), g) for title, g in titles]  # a slider's words have little room

    def _samples(self) -> list[tuple[str, int]]:
        return [(sample_name(s), s.sample) for s in self.group]

    @property
    def now(self) -> Shown:
        """The response chosen."""
        return pick(self.group, self.menus["sample"].value)

    @property
    def choice(self) -> dict[str, Any]:
        """The arguments with which `search_html` gives what is shown: the attempt follows from the token."""
        return {name: value for name, value in super().choice.items() if name != "attempt"}

    def _fit(self, owner: widgets.Widget) -> None:
        menus = self.menus
        if owner is menus["step"]:
            step = menus["step"].value
            menus["group"].options = self._problems(step)
            menus["group"].value = self.traces.first_mixed(step)
        if owner in (menus["step"], menus["group"]):
            self.group = read_group(self.traces.rows(menus["step"].value, menus["group"].value))
            menus["sample"].options = self._samples()
            menus["sample"].value = pick(self.group, None).sample
        if owner in (menus["step"], menus["group"], menus["sample"]):
            self._fit_tokens()
        if owner is menus["attempt"]:
            menus["token"].value = self.now.token_after(menus["attempt"].value)
        if owner is menus["token"]:
            menus["attempt"].value = self.now.begun[menus["token"].value]

    def _fit_tokens(self) -> None:
        """A response is first shown whole."""
        now, attempt, token = self.now, self.menus["attempt"], self.menus["token"]
        attempt.max, token.max = len(now.search.attempts), len(now.tokens)
        token.value = len(now.tokens)
        attempt.value = now.begun[token.value]

    def _page(self) -> str:
        return search_html(self.traces, **self.choice)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        image = str(search_html(self.traces, **self.choice, image=True))  # a notebook that is not trusted strips SVG
        return super()._repr_mimebundle_(**kwargs) | {"text/html": image}


def search_view(
    source: Any,
    *,
    step: int | None = None,
    group: int | None = None,
    sample: int | None = None,
    overlay: bool = False,
) -> SearchView:
    """The search view of a run or a frame of Countdown rollouts; the arguments and errors are `search_html`'s."""
    return SearchView(*locate(source, step, group), sample, overlay)
