"""The MDP explorer: a token MDP as a drawing, a response through it step by step, and exact credit beside uniform.

Its page is `mdp_html`, so what needs a kernel here is only the choosing; `static_mdp` is the twin without one.
"""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets

from rlino_lib.widgets.mdp_page import LARGEST, RULES, default_response, explore, mdp_html, static_mdp

__all__ = ["MDPExplorer", "mdp_explorer", "mdp_html", "static_mdp"]


class MDPExplorer(widgets.VBox):
    """Menus over `mdp_html`; `view.value` is the page, `choice` its arguments. All controls work from the keyboard."""

    def __init__(self, vocab: int, horizon: int, reward: str, merge: bool, slip: float) -> None:
        explore(vocab, horizon, reward, slip)  # raises for what cannot be shown
        self.view, self._quiet = widgets.HTML(), False
        sizes = {
            (v, h) for v in (2, 3, 4, 5) for h in (2, 3, 4, 5) if sum((v - 1) ** t for t in range(h + 1)) <= LARGEST
        }
        sizes = [(f"V = {v}, H = {h}", (v, h)) for v, h in sorted(sizes | {(vocab, horizon)})]
        rules = [(rule.words, name) for name, rule in RULES.items()]
        slips = [(f"{s:.0%}", s) for s in sorted({0.0, 0.1, 0.2, 0.5, slip})]
        self.menus = {
            "size": widgets.Dropdown(options=sizes, value=(vocab, horizon), description="Size:"),
            "reward": widgets.Dropdown(options=rules, value=reward, description="Right:"),
            "slip": widgets.Dropdown(options=slips, value=slip, description="Slips:"),
            "merge": widgets.Checkbox(value=merge, description="merge states", indent=False),
            "response": widgets.Dropdown(description="Response:"),
            "step": widgets.IntSlider(description="Token:", min=0),
        }
        super().__init__([widgets.HBox(list(self.menus.values()), layout={"flex_flow": "row wrap"}), self.view])
        for menu in self.menus.values():
            menu.observe(self._changed, "value")
        self._fill()

    @property
    def choice(self) -> dict[str, Any]:
        """The arguments with which `mdp_html` gives what is shown."""
        values = {name: menu.value for name, menu in self.menus.items()}
        return dict(zip(("vocab", "horizon"), values.pop("size"), strict=True)) | values

    def _changed(self, change: dict[str, Any]) -> None:
        if self._quiet:
            return
        if change["owner"] in (self.menus["merge"], self.menus["step"]):
            self.view.value = str(mdp_html(**self.choice))
        else:
            self._fill(change["new"] if change["owner"] is self.menus["response"] else None)

    def _fill(self, response: int | None = None) -> None:
        """Fit the lists of responses and steps to the MDP, without drawing at every change."""
        found = explore(*self.menus["size"].value, self.menus["reward"].value, self.menus["slip"].value)
        response = default_response(found) if response is None else response
        rows = zip(found.mdp.responses(found.policy)["response"], found.mdp.right.tolist(), strict=True)
        self._quiet = True
        self.menus["response"].options = [(f"{t} {'right' if r else 'wrong'}", k) for k, (t, r) in enumerate(rows)]
        self.menus["response"].value = response
        self.menus["step"].max = self.menus["step"].value = int(found.mdp.lengths[response])
        self._quiet = False
        self.view.value = str(mdp_html(**self.choice))

    def __repr__(self) -> str:
        return "MDPExplorer()"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        return super()._repr_mimebundle_(**kwargs) | {"text/html": str(mdp_html(**self.choice, image=True))}


def mdp_explorer(
    vocab: int = 3, horizon: int = 4, reward: str = "two", merge: bool = False, slip: float = 0.0
) -> MDPExplorer:
    """The explorer, at the choices given. Raises RlinoError as `explore` does."""
    return MDPExplorer(vocab, horizon, reward, merge, slip)
