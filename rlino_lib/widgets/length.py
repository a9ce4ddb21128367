"""The length explorer (chapter 08): the drift of lengths in the toy as arrows on a ruler, a curve over p, and a table.

All numbers are those of `rlino_lib.exact.length_toy`: exact, by enumeration of all groups.
"""

from __future__ import annotations

import html
import itertools
import math

import pandas as pd

from rlino_lib.exact.length_toy import CHANGES, NORMALISERS, PARAMETERS, Drift, LengthToy, explore_length, variant
from rlino_lib.exact.length_toy import METHODS as NAMES
from rlino_lib.methods.catalogue import LABELS
from rlino_lib.widgets.page import LINES, Control, explorer, frame_table, sides_svg, slot, svg_html
from rlino_lib.widgets.tokens import Html, number

SHARES = (0.1, 0.2, 0.5, 0.8, 0.9)  # p of the slider and of the curve
COUPLINGS = (0.0, 1.0)


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
    shifts = result.shifts
    for y, (name, (colour, mark)) in zip(range(top, bottom, 40), _SIDES.items(), strict=False):
        shift = shifts[name]
        x = left + scale * (result.table.loc[name, "length"] - 1)
        end = x + scale * shift
        parts.append(f'<text x="2" y="{y + 4}">{mark} {html.escape(name)}</text>')
        if abs(end - x) >= 0.5:
            head = math.copysign(min(7, abs(end - x)), end - x)
            parts.append(f'<path d="M{x:.1f} {y}H{end:.1f}" stroke="{colour}" stroke-width="4"/>')
            parts.append(f'<path d="M{end:.1f} {y - 7}l{head:.1f} 7l{-head:.1f} 7z" fill="{colour}"/>')
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
    shifts = result.shifts
    side = {n: words[(shifts[n] > 0) - (shifts[n] < 0)] for n in _SIDES}
    gain = 100 * result.gain / result.length
    lines = [
        f"Right responses {side['right']}; wrong ones {side['wrong']}; wrong ones that are not truncated "
        f"{side['wrong, not truncated']}.",
        f"An arrow is the drift, scaled from the expected step to one of length 1 in the logits, which "
        f"gains {number(gain)} points of success.",
    ]
    if not any(shifts.values()):
        lines.append("These weights do not know the length, and the length buys no reward: there is nothing to climb.")
    elif toy.coupling:
        lines.append(f"A share of {toy.coupling:g} of each stop logit's push also moves the other one.")
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def _table(result: Drift) -> str:
    """The drift and its parts: through the verdict (who is right, so who is among the wrong) and each stop logit."""
    table = result.table.copy()
    columns = ["drift", *PARAMETERS]
    table[columns] = table[columns].where(table[columns].abs() > 1e-12, 0.0)
    table["per_point"] = table["per_point"].where(table["drift"] != 0, 0.0)
    words = table.map(number)
    words[["share", "length"]] = table[["share", "length"]].map("{:.3f}".format)
    words = words.rename(columns={"length": "mean length", "per_point": "tokens per point of success"})
    words = words.rename(columns={name: f"through {name}" for name in PARAMETERS})
    return frame_table(words)


def length_explorer(cap: int = 8) -> Html:
    """The drift of lengths in the toy: arrows, a curve over p, the parts by parameter.

    The cap is the same on all pages, and a shared stop logit is there for the plain toy alone. Raises RlinoError for
    a cap that the toy cannot enumerate.
    """
    controls = [
        Control("method", "Method", {m: LABELS[m] for m in NAMES}, "grpo_no_kl"),
        Control("normaliser", "Normaliser", NORMALISERS, "per_response"),
        Control("change", "Change", {name: text for name, (text, _) in CHANGES.items()}, "plain"),
        Control("coupling", "Shared stop logit", {c: f"{c:g}" for c in COUPLINGS}),
        Control("p", "Chance of right", {share: f"p = {share:g}" for share in SHARES}, 0.5, "slider"),
    ]
    by = tuple(control.name for control in controls)
    pages: dict[tuple, str] = {}
    curves: dict[tuple, str] = {}
    caption = "drift per unit of learning rate against p: ● right; ▲ wrong"
    alt = "the drift of the mean length of right and of wrong responses against p; the table has the chosen p"
    for place in itertools.product(NAMES, NORMALISERS, CHANGES, COUPLINGS):
        choice = dict(zip(by, place, strict=False)) | {"cap": cap}
        if choice["coupling"] and choice["change"] != "plain":
            continue
        rows = {}
        for share in SHARES:
            toy, result = explore_length(**choice, p=share)
            rows[share] = result.table["drift"][["right", "wrong"]]
            pages[*place, share] = _arrows_svg(result, toy.horizon) + _sentences(toy, result) + _table(result)
        curve = pd.DataFrame(rows).T
        curves[place] = sides_svg(curve, caption, alt)
    formulas = {at: f"<code>{html.escape(repr(variant(*at)))}</code>" for at in itertools.product(NAMES, NORMALISERS)}
    slots = {"formula": (("method", "normaliser"), formulas), "page": (by, pages), "curve": (by[:-1], curves)}
    return explorer("Length toy", controls, slots, slot("formula", "p") + slot("page") + slot("curve"))
