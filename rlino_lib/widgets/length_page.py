"""The drift of lengths in the toy as HTML, with no kernel and no script: arrows on a ruler, a curve over p, a table.

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
from rlino_lib.widgets.gradient_page import BLUE, METHODS, ORANGE, STYLE
from rlino_lib.widgets.groups import chosen
from rlino_lib.widgets.tokens import Html, folds, frame_table, number

CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("none", {}),
    "cap": ("a cut response is wrong", {"cut_is_wrong": True}),
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
    """The toy and its drift at the choices of the page. Raises RlinoError for choices that there are not."""
    chosen(method, NAMES, "method")
    chosen(normaliser, NORMALISERS, "normaliser")
    toy = LengthToy(p=p, horizon=cap, coupling=coupling, **CHANGES[chosen(change, CHANGES, "change")][1])
    return toy, drift(toy, variant(method, normaliser), GROUP)


def drift_curves(p: float = 0.5, **choice: Any) -> pd.DataFrame:
    """The drift of right and of wrong responses per unit of learning rate at every p of the slider, whatever `p` is."""
    return _curves(tuple(sorted(choice.items())))


@lru_cache(maxsize=64)
def _curves(choice: tuple[tuple[str, Any], ...]) -> pd.DataFrame:
    found = [explore_length(p=p, **dict(choice))[1].table["drift"] for p in SHARES]
    return pd.DataFrame({side: [float(d[side]) for d in found] for side in ("right", "wrong")}, index=SHARES)


def _shifts(found: Drift) -> dict[str, float]:
    """Drifts under a step of length 1 in the logits: how large the steps are is a matter of the learning rate."""
    size = found.update.norm().item() or 1.0
    drifts = (found.table["drift"] / size).items()
    return {str(name): 0.0 if abs(d) < 1e-9 else float(d) for name, d in drifts}


_ROWS = {"right": (BLUE, "●"), "wrong": (ORANGE, "▲"), "wrong, not cut": (ORANGE, "△")}


def _arrows_svg(found: Drift, cap: int) -> str:
    """A ruler of tokens, and on it each side's mean length with an arrow: where a step of length 1 takes it."""
    left, width, top = 100, 400, 34
    scale = width / (cap - 1)
    out, bottom = [], top + 40 * len(_ROWS) - 14
    for tokens in range(1, cap + 1):
        x = left + scale * (tokens - 1)
        out.append(f'<path d="M{x:.1f} 18V{bottom}" stroke="#8883"/><text x="{x:.1f}" y="12" text-anchor="middle">')
        out.append(f"{tokens}</text>")
    for k, (name, shift) in enumerate((n, s) for n, s in _shifts(found).items() if n in _ROWS):
        (colour, mark), y = _ROWS[name], top + 40 * k
        x = left + scale * (found.table.loc[name, "length"] - 1)
        end = x + scale * shift
        out.append(f'<text x="2" y="{y + 4}">{mark} {html.escape(name)}</text>')
        if abs(end - x) >= 0.5:
            head = math.copysign(min(7, abs(end - x)), end - x)
            out.append(
                f'<path d="M{x:.1f} {y}H{end:.1f}" stroke="{colour}" stroke-width="4"/>'
                f'<path d="M{end:.1f} {y - 7}l{head:.1f} 7l{-head:.1f} 7z" fill="{colour}"/>'
            )
        fill = "none" if mark == "△" else colour
        dot = f'<circle cx="{x:.1f}" cy="{y}" r="5"' if mark == "●" else f'<path d="M{x - 6:.1f} {y + 5}h12l-6 -11z"'
        out.append(f'{dot} fill="{fill}" stroke="{colour}" stroke-width="2"/>')
        said = "does not move" if not shift else f"{number(shift)} tokens"
        out.append(f'<text x="{x:.1f}" y="{y + 20}" text-anchor="middle">{said}</text>')
    height, said = bottom + 12, "mean lengths on a ruler of tokens, with an arrow where they drift; the table has both"
    box = f'width="530" height="{height}" viewBox="0 0 530 {height}"'
    return f'<svg role="img" aria-label="{said}" {box}>{"".join(out)}</svg>'


def _curve_svg(curves: pd.DataFrame, p: float) -> str:
    """The drift of both sides over p: right solid with circles, wrong dashed with triangles, p as a vertical line."""
    top = max(float(curves.abs().max().max()), 1e-12)
    flat = top < 1e-9
    out = []
    for y, text in ((18, "" if flat else number(top)), (84, "0"), (150, "" if flat else number(-top))):
        out.append(f'<path d="M60 {y}H300" stroke="#8886"/><text x="55" y="{y + 4}" text-anchor="end">{text}</text>')
    here = 60 + 240 * p
    out.append(f'<path d="M{here:.1f} 12V156" stroke="currentColor" stroke-width="1.5" stroke-dasharray="2 2"/>')
    for side, colour, dash in (("right", BLUE, ""), ("wrong", ORANGE, ' stroke-dasharray="6 3"')):
        points = [(60 + 240 * x, 84 - (0 if flat else 66 * v / top)) for x, v in curves[side].items()]
        line = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        out.append(f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        for x, y in points[::2]:
            dot = (
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"'
                if not dash
                else f'<path d="M{x - 4:.1f} {y + 3:.1f}h8l-4 -7z"'
            )
            out.append(f'{dot} fill="{colour}"/>')
    out.append(
        '<text x="60" y="172">p = 0</text><text x="300" y="172" text-anchor="end">1</text>'
        '<text x="180" y="190" text-anchor="middle">drift a unit of learning rate: ● right; ▲ wrong</text>'
    )
    said = "the drift of the mean length of right and of wrong responses against p; the table has the chosen p"
    return f'<svg role="img" aria-label="{said}" width="320" height="198" viewBox="0 0 320 198">{"".join(out)}</svg>'


def _says(toy: LengthToy, found: Drift) -> str:
    """The drift in words, from the numbers."""
    words = {1: "get longer", 0: "keep their length", -1: "get shorter"}
    shifts = _shifts(found)
    side = {n: words[(shifts[n] > 0) - (shifts[n] < 0)] for n in _ROWS}
    lines = [f"Right responses {side['right']}; wrong ones {side['wrong']}; wrong ones that are not cut "]
    lines[0] += f"{side['wrong, not cut']}."
    gain = 100 * found.gain / (found.update.norm().item() or 1.0)
    lines.append(f"An arrow is the drift under a step of length 1, at which success gains {number(gain)} points.")
    clean = not any(shifts.values())
    if clean:
        lines.append("These weights do not know the length, and the length buys no reward: there is nothing to climb.")
    elif toy.coupling:
        lines.append(f"A share of {toy.coupling:g} of each stop logit's push also moves the other one.")
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def length_html(**choice: Any) -> Html:
    """The drift at one choice (arguments of `explore_length`): arrows, the curve over p, the parts by parameter.

    The parts of a drift add up to it: through the verdict (who is right, and so who is among the wrong), and through
    each stop logit. Raises RlinoError as `explore_length` does.
    """
    toy, found = explore_length(**choice)
    method, normaliser = choice.get("method", "grpo_no_kl"), choice.get("normaliser", "per_response")
    table = found.table.copy()
    columns = ["drift", *PARAMETERS]
    table[columns] = table[columns].where(table[columns].abs() > 1e-12, 0.0)
    words = table.map(number).assign(
        share=table["share"].map("{:.3f}".format), length=table["length"].map("{:.3f}".format)
    )
    heads = ["share", "mean length", "drift", *(f"through {name}" for name in PARAMETERS), "tokens a point of success"]
    words.columns = heads
    words[heads[-1]] = [number(d if t else 0.0) for d, t in zip(table["per_point"], table["drift"], strict=True)]
    title = f"{METHODS[method]}, normaliser {NORMALISERS[normaliser]}, p = {toy.p:g}, cap {toy.horizon}"
    title += f", change: {CHANGES[choice.get('change', 'plain')][0]}"
    formula = f"<p><code>{html.escape(repr(variant(method, normaliser)))}</code></p>"
    pictures = (
        f'<div class="rlino-pair">{_arrows_svg(found, toy.horizon)}{_curve_svg(drift_curves(**choice), toy.p)}</div>'
    )
    body = f"<p><strong>{html.escape(title)}</strong></p>{formula}{pictures}{_says(toy, found)}{frame_table(words)}"
    return Html(f'{STYLE}<section class="rlino-weights mathjax_ignore" aria-label="Length toy">{body}</section>')


VIEWS: dict[str, dict[str, Any]] = {
    "GRPO: 1/|o|": {},
    "The same, token mean of the group": {"normaliser": "token_mean"},
    "The same, constant": {"normaliser": "constant"},
    "F-ISFT⁺⁻ unit at p = 0.2, one stop logit for both": {"method": "f_isft_posneg_unit", "p": 0.2, "coupling": 1.0},
    "Constant, a cut response is wrong": {"normaliser": "constant", "change": "cap"},
    "Constant, going on may hit": {"normaliser": "constant", "change": "hits"},
}


def static_length(views: Mapping[str, Mapping[str, Any]] = VIEWS) -> Html:
    """Several pages as folds, the first open, with no kernel: {title: arguments of `length_html`}."""
    return folds((title, length_html(**choice)) for title, choice in views.items())
