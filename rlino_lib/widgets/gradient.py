"""The weights explorer and the gradient microscope: menus over the pages of `gradient_page.py` (chapter 06).

What needs a kernel here is only the choosing; `static_weights` and `static_microscope` are the twins without one.
"""

from __future__ import annotations

import ipywidgets as widgets

from rlino_lib.widgets.gradient_page import (
    LONGEST,
    METHODS,
    Scores,
    first_mixed,
    microscope_html,
    sample_names,
    score_rows,
    static_microscope,
    static_weights,
    weights_html,
)
from rlino_lib.widgets.page import Page, menu_slider, number_slider

__all__ = [
    "GradientMicroscope", "Scores", "WeightsExplorer", "gradient_microscope", "microscope_html", "score_rows",
    "static_microscope", "static_weights", "weights_explorer", "weights_html",
]  # fmt: skip


def _methods(value: str, description: str) -> widgets.SelectionSlider:
    return menu_slider([(name, method) for method, name in METHODS.items()], value, description)


class WeightsExplorer(Page):
    """Method, group size, number right and two lengths over `weights_html`."""

    def _page(self) -> str:
        return weights_html(**self.choice)

    def _fit(self, owner: widgets.Widget) -> None:
        if owner is self.menus["group_size"]:
            self.menus["k"].max = owner.value  # a k past it moves with it


def weights_explorer(
    method: str = "grpo_no_kl", group_size: int = 8, k: int = 2, right_length: int = 12, wrong_length: int = 24
) -> WeightsExplorer:
    """The explorer at the choices given. Raises RlinoError as `weights_html` does."""
    weights_html(method, group_size, k, right_length, wrong_length)  # raises for what cannot be shown
    menus = {
        "method": _methods(method, "Method:"),
        "group_size": number_slider(group_size, 2, max(16, group_size), "Group:"),
        "k": number_slider(k, 0, group_size, "Right:"),
        "right_length": number_slider(right_length, 1, LONGEST, "Tokens, right:"),
        "wrong_length": number_slider(wrong_length, 1, LONGEST, "Tokens, wrong:"),
    }
    return WeightsExplorer(menus, "WeightsExplorer")


class GradientMicroscope(Page):
    """Two methods, a group and one of its responses over `microscope_html`."""

    def __init__(self, scores: Scores, menus: dict[str, widgets.Widget]) -> None:
        self.scores = scores
        super().__init__(menus, "GradientMicroscope")

    def _page(self) -> str:
        return microscope_html(self.scores, **self.choice)

    def _fit(self, owner: widgets.Widget) -> None:
        if owner is self.menus["group"]:
            self.menus["sample"].options = _samples(self.scores, owner.value)
            self.menus["sample"].value = 0


def _samples(scores: Scores, group: int) -> list[tuple[str, int]]:
    return [(name.removesuffix(" tokens"), j) for j, name in enumerate(sample_names(scores, group))]


def gradient_microscope(
    scores: Scores, a: str = "grpo_no_kl", b: str = "f_isft_posneg", group: int | None = None
) -> GradientMicroscope:
    """The microscope at the choices given. Raises RlinoError as `microscope_html` does."""
    group = first_mixed(scores) if group is None else group
    microscope_html(scores, a, b, group)  # raises for what cannot be shown
    size = scores.rollouts.group_size
    right = scores.rollouts.correct.view(-1, size).sum(1).tolist()
    menus = {
        "a": _methods(a, "A:"),
        "b": _methods(b, "B:"),
        "group": menu_slider([(f"{j + 1}: {k} of {size} right", j) for j, k in enumerate(right)], group, "Group:"),
        "sample": menu_slider(_samples(scores, group), 0, "Response:"),
    }
    return GradientMicroscope(scores, menus)
