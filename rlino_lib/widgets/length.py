"""The length toy's explorer: sliders over the page of `length_page.py` (chapter 08).

What needs a kernel here is only the choosing; `static_length` is the twin without one.
"""

from __future__ import annotations

from rlino_lib.exact.length_toy import METHODS as NAMES
from rlino_lib.exact.length_toy import NORMALISERS
from rlino_lib.widgets.gradient_page import METHODS
from rlino_lib.widgets.length_page import CHANGES, LONGEST, SHARES, explore_length, length_html, static_length
from rlino_lib.widgets.page import Page, menu_slider, number_slider

__all__ = ["LengthExplorer", "length_explorer", "length_html", "static_length"]


class LengthExplorer(Page):
    """Method, normaliser, change, p, cap and coupling over `length_html`."""

    def _page(self) -> str:
        return length_html(**self.choice)


def length_explorer(
    method: str = "grpo_no_kl",
    normaliser: str = "per_response",
    change: str = "plain",
    p: float = 0.5,
    cap: int = 8,
    coupling: float = 0.0,
) -> LengthExplorer:
    """The explorer at the choices given. Raises RlinoError as `explore_length` does."""
    explore_length(method, normaliser, change, p, cap, coupling)  # raises for what cannot be shown
    shares, couplings = sorted({*SHARES, p}), sorted({0.0, 0.25, 0.5, 0.75, 1.0, coupling})
    menus = {
        "method": menu_slider([(METHODS[m], m) for m in NAMES], method, "Method:"),
        "normaliser": menu_slider([(text, n) for n, text in NORMALISERS.items()], normaliser, "Normaliser:"),
        "change": menu_slider([(text, c) for c, (text, _) in CHANGES.items()], change, "Change:"),
        "p": menu_slider([(f"{s:g}", s) for s in shares], p, "Chance of right, p:"),
        "cap": number_slider(cap, 3, max(LONGEST, cap), "Cap, tokens:"),
        "coupling": menu_slider([(f"{c:g}", c) for c in couplings], coupling, "Shared stop logit:"),
    }
    return LengthExplorer(menus, "LengthExplorer")
