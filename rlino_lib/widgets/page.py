"""What the explorers share: controls by name over one page of HTML, and the sliders that serve as menus."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets


class Page(widgets.VBox):
    """Controls by name over one HTML view. `choice` is what they say; all of them work from the keyboard."""

    def __init__(self, menus: dict[str, widgets.Widget], name: str) -> None:
        self.menus, self.name, self.view, self._quiet = menus, name, widgets.HTML(), False
        for menu in menus.values():
            menu.style.description_width = "initial"
            menu.observe(self._changed, "value")
        row = widgets.HBox(list(menus.values()), layout={"flex_flow": "row wrap", "grid_gap": "2px 12px"})
        super().__init__([row, self.view])
        self.view.value = str(self._page())

    @property
    def choice(self) -> dict[str, Any]:
        """The arguments with which the page is made."""
        return {name: menu.value for name, menu in self.menus.items()}

    def _page(self) -> str:
        raise NotImplementedError

    def _fit(self, owner: widgets.Widget) -> None:
        """Fit the other controls to the one that changed."""

    def _changed(self, change: dict[str, Any]) -> None:
        if self._quiet:
            return
        self._quiet = True
        try:
            self._fit(change["owner"])
        finally:
            self._quiet = False
        self.view.value = str(self._page())

    def __repr__(self) -> str:
        return f"{self.name}()"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        return super()._repr_mimebundle_(**kwargs) | {"text/html": self.view.value}


_WIDE = {"width": "26em", "flex": "0 0 auto"}


def menu_slider(options: list[tuple[str, Any]], value: Any, description: str) -> widgets.SelectionSlider:
    """A slider over names: JupyterLab takes the arrow keys from a menu, and leaves them to a slider."""
    return widgets.SelectionSlider(options=options, value=value, description=description, layout=_WIDE)


def number_slider(value: int, low: int, high: int, description: str) -> widgets.IntSlider:
    return widgets.IntSlider(value, low, high, description=description, layout=_WIDE)
