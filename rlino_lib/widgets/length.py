"""The length explorer (chapter 08): the drift of lengths in the toy as arrows on a ruler, a curve over p, and a table.

All numbers are those of `rlino_lib.exact.length_toy`: exact, by enumeration of all groups.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import pandas as pd

from rlino_lib.exact.length_toy import METHODS as NAMES
from rlino_lib.exact.length_toy import NORMALISERS, PARAMETERS, Drift, LengthToy, drift, variant
from rlino_lib.widgets.explorer import Explorer, explorer
from rlino_lib.widgets.gradient import METHODS
from rlino_lib.widgets.groups import chosen
from rlino_lib.widgets.page import LINES, folds, frame_table, page, sides_svg, svg_html
from rlino_lib.widgets.tokens import Html, number

CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("none", {}),
    "cap": ("a truncated response is wrong", {"truncated_is_wrong": True}),
    "hits": ("later tokens hit with 0.15", {"hit": 0.15}),
    "mixed": ("wrong ones are longer", {"stop_right": 0.4, "stop_wrong": 0.15}),
}
SHARES = tuple(k / 20 for k in range(1, 20))  # p of the slider and of the curve
GROUP = 4  # responses in a group
LONGEST = 10  # tokens; of the slider


def explore_length(
    method: str = "grpo_no_kl",
    normaliser: str = "per_response",
    change: str = "plain",
    p: float = 0.5,
    cap: int = 8,
    coupling: float = 0.0,
) -> tuple[LengthToy, Drift]:
    """The toy and its drift at the choices of the page. Raises RlinoError for unknown choices."""
    chosen(method, NAMES, "method")
    chosen(normaliser, NORMALISERS, "normaliser")
    toy = LengthToy(p=p, horizon=cap, coupling=coupling, **CHANGES[chosen(change, CHANGES, "change")][1])
    return toy, drift(toy, variant(method, normaliser), GROUP)


def drift_curves(p: float = 0.5, **choice: Any) -> pd.DataFrame:
    """The drift of right and of wrong responses per unit of learning rate at every p of the slider, whatever `p` is."""
    return _curves(tuple(sorted(choice.items())))


@lru_cache(maxsize=64)
def _curves(choice: tuple[tuple[str, Any], ...]) -> pd.DataFrame:
    drifts = [explore_length(p=p, **dict(choice))[1].table["drift"] for p in SHARES]
    return pd.DataFrame({side: [float(d[side]) for d in drifts] for side in ("right", "wrong")}, index=SHARES)


def _shifts(result: Drift) -> dict[str, float]:
    """Drifts under a step of length 1 in the logits: how large the steps are is a matter of the learning rate."""
    size = result.update.norm().item() or 1.0
    drifts = (result.table["drift"] / size).items()
    return {str(name): 0.0 if abs(d) < 1e-9 else float(d) for name, d in drifts}


_SIDES = {"right": (LINES[0][0], "●"), "wrong": (LINES[1][0], "▲"), "wrong, not truncated": (LINES[1][0], "△")}


def _arrows_svg(result: Drift, cap: int) -> str:
    """A ruler of tokens, and on it each side's mean length with an arrow: where a step of length 1 takes it."""
    left, width, top = 100, 400, 34
    scale = width / (cap - 1)
    bottom = top + 40 * len(_SIDES) - 14
    parts = []
    for tokens in range(1, cap + 1):
        x = left + scale * (tokens - 1)
        parts.append(f'<path d="M{x:.1f} 18V{bottom}" stroke="#8883"/>')
        parts.append(f'<text x="{x:.1f}" y="12" text-anchor="middle">{tokens}</text>')
    shifts = _shifts(result)
    for y, (name, (colour, mark)) in zip(range(top, bottom, 40), _SIDES.items(), strict=False):
        shift = shifts[name]
        x = left + scale * (result.table.loc[name, "length"] - 1)
        end = x + scale * shift
        parts.append(f'<text x="2" y="{y + 4}">{mark} {html.escape(name)}</text>')
        if abs(end - x) >= 0.5:
            head = math.copysign(min(7, abs(end - x)), end - x)
            parts.append(
                f'<path d="M{x:.1f} {y}H{end:.1f}" stroke="{colour}" stroke-width="4"/>'
                f'<path d="M{end:.1f} {y - 7}l{head:.1f} 7l{-head:.1f} 7z" fill="{colour}"/>'
            )
        fill = "none" if mark == "△" else colour
        dot = f'<circle cx="{x:.1f}" cy="{y}" r="5"' if mark == "●" else f'<path d="M{x - 6:.1f} {y + 5}h12l-6 -11z"'
        parts.append(f'{dot} fill="{fill}" stroke="{colour}" stroke-width="2"/>')
        text = f"{number(shift)} tokens" if shift else "does not move"
        parts.append(f'<text x="{x:.1f}" y="{y + 20}" text-anchor="middle">{text}</text>')
    alt = "mean lengths on a ruler of tokens, with an arrow where they drift; the table has both"
    return svg_html("".join(parts), 530, bottom + 12, alt)


def _sentences(toy: LengthToy, result: Drift) -> str:
    """The drift in words, from the numbers."""
    words = {1: "get longer", 0: "keep their length", -1: "get shorter"}
    shifts = _shifts(result)
    side = {n: words[(shifts[n] > 0) - (shifts[n] < 0)] for n in _SIDES}
    gain = 100 * result.gain / (result.update.norm().item() or 1.0)
    lines = [
        f"Right responses {side['right']}; wrong ones {side['wrong']}; wrong ones that are not truncated "
        f"{side['wrong, not truncated']}.",
        f"An arrow is the drift under a step of length 1, at which success gains {number(gain)} points.",
    ]
    if not any(shifts.values()):
        lines.append("These weights do not know the length, and the length buys no reward: there is nothing to climb.")
    elif toy.coupling:
        lines.append(f"A share of {toy.coupling:g} of each stop logit's push also moves the other one.")
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def length_html(**choice: Any) -> Html:
    """The drift at one choice (arguments of `explore_length`): arrows, the curve over p, the parts by parameter.

    The parts of a drift add up to it: through the verdict (who is right, and so who is among the wrong), and through
    each stop logit. Raises RlinoError as `explore_length` does.
    """
    toy, result = explore_length(**choice)
    method = choice.get("method", "grpo_no_kl")
    normaliser = choice.get("normaliser", "per_response")
    table = result.table.copy()
    columns = ["drift", *PARAMETERS]
    table[columns] = table[columns].where(table[columns].abs() > 1e-12, 0.0)
    table["per_point"] = table["per_point"].where(table["drift"] != 0, 0.0)
    words = table.map(number)
    words[["share", "length"]] = table[["share", "length"]].map("{:.3f}".format)
    words.columns = [
        "share", "mean length", "drift", *(f"through {name}" for name in PARAMETERS), "tokens per point of success"
    ]  # fmt: skip
    title = f"{METHODS[method]}, normaliser {NORMALISERS[normaliser]}, p = {toy.p:g}, cap {toy.horizon}"
    title += f", change: {CHANGES[choice.get('change', 'plain')][0]}"
    formula = f"<p><code>{html.escape(repr(variant(method, normaliser)))}</code></p>"
    caption = "drift per unit of learning rate: ● right; ▲ wrong"
    alt = "the drift of the mean length of right and of wrong responses against p; the table has the chosen p"
    curve = sides_svg(drift_curves(**choice), toy.p, caption, alt)
    pictures = f'<div class="rlino-pair">{_arrows_svg(result, toy.horizon)}{curve}</div>'
    body = f"<p><strong>{html.escape(title)}</strong></p>{formula}{pictures}"
    return page(body + _sentences(toy, result) + frame_table(words), "Length toy")


VIEWS: dict[str, dict[str, Any]] = {
    "GRPO: 1/|o|": {},
    "The same, token mean of the group": {"normaliser": "token_mean"},
    "The same, constant": {"normaliser": "constant"},
    "F-ISFT⁺⁻ unit at p = 0.2, one stop logit for both": {"method": "f_isft_posneg_unit", "p": 0.2, "coupling": 1.0},
    "Constant, a truncated response is wrong": {"normaliser": "constant", "change": "cap"},
    "Constant, going on may hit": {"normaliser": "constant", "change": "hits"},
}


def static_length(views: Mapping[str, Mapping[str, Any]] = VIEWS) -> Html:
    """Several pages as folds, the first open, with no kernel: {title: arguments of `length_html`}."""
    return folds((title, length_html(**choice)) for title, choice in views.items())


def length_explorer(
    method: str = "grpo_no_kl",
    normaliser: str = "per_response",
    change: str = "plain",
    p: float = 0.5,
    cap: int = 8,
    coupling: float = 0.0,
) -> Explorer:
    """Sliders over `length_html`, at the choices given. Raises RlinoError as `explore_length` does."""
    explore_length(method, normaliser, change, p, cap, coupling)  # raises for what cannot be shown
    couplings = sorted({0.0, 0.25, 0.5, 0.75, 1.0, coupling})
    return explorer(
        length_html,
        name="LengthExplorer()",
        method=("Method:", method, [(METHODS[m], m) for m in NAMES]),
        normaliser=("Normaliser:", normaliser, [(text, n) for n, text in NORMALISERS.items()]),
        change=("Change:", change, [(text, c) for c, (text, _) in CHANGES.items()]),
        p=("Chance of right, p:", p, [(f"{share:g}", share) for share in sorted({*SHARES, p})]),
        cap=("Cap, tokens:", cap, range(3, max(LONGEST, cap) + 1)),
        coupling=("Shared stop logit:", coupling, [(f"{c:g}", c) for c in couplings]),
    )
