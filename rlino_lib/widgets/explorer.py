"""One explorer for every page: controls by name over the HTML of a function.

Only choosing needs a kernel: each page has a static twin that needs none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

Menus = dict[str, widgets.Widget]
Control = widgets.Widget | tuple[str, Any, "range | list[tuple[str, Any]]"]
_WIDE = {"width": "26em", "flex": "0 0 auto"}


class Explorer(widgets.VBox):
    """Controls by name (`menus`) over one HTML `view`; `choice` holds their values. All work from the keyboard.

    Where a notebook is read without its kernel, the saved output is the page of the choices made when it was shown.
    """

    def __init__(
        self,
        render: Callable[..., str],
        name: str,
        menus: Menus,
        fit: Callable[[Menus, str | None], None] | None = None,
        choose: Callable[[dict[str, Any]], dict[str, Any]] = dict,
        image: bool = False,
    ) -> None:
        self.menus = menus
        self.view = widgets.HTML()
        self._render = render
        self._name = name
        self._fit = fit
        self._choose = choose
        self._image = image
        self._quiet = False
        for menu in menus.values():
            menu.style.description_width = "initial"
            menu.observe(self._changed, "value")
        super().__init__([row_of(*menus.values()), self.view])
        self._update(None)

    @property
    def choice(self) -> dict[str, Any]:
        """The arguments with which the page is made."""
        return self._choose({name: menu.value for name, menu in self.menus.items()})

    def _page(self, **settings: Any) -> str:
        return str(self._render(**self.choice, **settings))

    def _changed(self, change: dict[str, Any]) -> None:
        if not self._quiet:
            self._update(next(name for name, menu in self.menus.items() if menu is change["owner"]))

    def _update(self, name: str | None) -> None:
        """Fit the other controls to the one that changed, then draw once."""
        self._quiet = True
        try:
            if self._fit:
                self._fit(self.menus, name)
        finally:
            self._quiet = False
        self.view.value = self._page()

    def __repr__(self) -> str:
        return self._name

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        saved = self._page(image=True) if self._image else self.view.value  # untrusted notebooks strip SVG
        return super()._repr_mimebundle_(**kwargs) | {"text/html": saved}


def explorer(
    render: Callable[..., str],
    *,
    name: str = "Explorer()",
    fit: Callable[[Menus, str | None], None] | None = None,
    choose: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    image: bool = False,
    **controls: Control,
) -> Explorer:
    """Controls over the HTML of `render`, which is called with their values by name.

    A control is (description, value, options), where options are a range or a list of (text, value), or a widget.
    `fit(menus, name)` fits the other controls to the one that changed, None at the start; `choose` turns the values
    into the arguments; with `image` the saved page is that of `render(..., image=True)`. `name` is the repr.

    >>> explorer(weights_html, method=("Method:", "rloo", [("RLOO", "rloo")]), k=("Right:", 2, range(9)))
    """
    return Explorer(render, name, menus_of(**controls), fit, choose, image)


def menus_of(**controls: Control) -> Menus:
    """The widgets of controls, as `explorer` takes them."""
    return {key: _widget(*control) if isinstance(control, tuple) else control for key, control in controls.items()}


def _widget(description: str, value: Any, options: range | list[tuple[str, Any]]) -> widgets.Widget:
    """A slider, over names too: JupyterLab takes the arrow keys from a menu, and leaves them to a slider."""
    if isinstance(options, range):
        return widgets.IntSlider(value, options[0], options[-1], description=description, layout=_WIDE)
    return widgets.SelectionSlider(options=options, value=value, description=description, layout=_WIDE)


def row_of(*controls: widgets.Widget) -> widgets.HBox:
    """Controls side by side, in several lines where they need them."""
    layout = {"flex_flow": "row wrap", "align_items": "center", "grid_gap": "2px 12px", "width": "100%"}
    return widgets.HBox(list(controls), layout=layout)


def refill(menu: widgets.Widget, options: list[tuple[str, Any]], start: Any = None) -> None:
    """New options, at `start` where it is given, else at the value shown before where it is among them, else first."""
    before = menu.value
    values = [value for _, value in options]
    menu.options = options
    menu.value = start if start is not None else before if before in values else values[0]
