"""The pass@k explorer (chapter 09): two models on the same problems, their curves, and a dot for each problem.

All numbers come from `analysis.pass_at_k` and `analysis.coverage`. The script only puts the dots where `dots` says:
`chances` in thousandths by model, k and problem, `marks` by A, B and problem, which are numbers of `looks`, the `names`
of problems and the `width` in pixels of 0 to 1, on which the square root of a chance is laid off.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from rlino_lib.analysis.coverage import changes, coverage
from rlino_lib.analysis.pass_at_k import estimates, paired_difference, pass_at_k_table, true_pass_at_k
from rlino_lib.errors import RlinoError
from rlino_lib.figures.style import label
from rlino_lib.widgets.page import BLUE, LINES, ORANGE, Control, Slot, explorer, slot, svg_html
from rlino_lib.widgets.tokens import Html, escape_line, plain

_LEFT, _TOP, _WIDTH, _HEIGHT = 50, 16, 270, 270  # of a drawing's field
_TICKS = (0, 0.01, 0.1, 0.25, 0.5, 1)  # of chances, on a scale of square roots
_LOOKS = (  # of a dot where B's chance is like A's, higher and lower by more than two standard errors
    {"d": "M-3 0a3 3 0 1 0 6 0a3 3 0 1 0 -6 0z", "fill": "#888"},
    {"d": "M-5 4h10l-5 -9z", "fill": BLUE},
    {"d": "M-5 -4h10l-5 9z", "fill": ORANGE},
)


# --- drawings --------------------------------------------------------------------------------------------------------


def _text(x: float, y: float, text: object, anchor: str = "middle") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{text}</text>'


def _framed(body: str, xs: Mapping[float, str], ys: Mapping[float, str], words: tuple[str, str], alt: str) -> str:
    """A field with ticks, their places from 0 to 1, and what its axes are."""
    parts = []
    for place, text in xs.items():
        x = _LEFT + _WIDTH * place
        parts.append(f'<path d="M{x:.1f} {_TOP}v{_HEIGHT}" stroke="#8883"/>' + _text(x, _TOP + _HEIGHT + 16, text))
    for place, text in ys.items():
        y = _TOP + _HEIGHT * (1 - place)
        parts.append(f'<path d="M{_LEFT} {y:.1f}h{_WIDTH}" stroke="#8883"/>' + _text(_LEFT - 5, y + 4, text, "end"))
    parts += [_text(_LEFT + _WIDTH / 2, _TOP + _HEIGHT + 34, words[0]), _text(2, 10, words[1], "start"), body]
    return svg_html("".join(parts), _LEFT + _WIDTH + 16, _TOP + _HEIGHT + 40, alt)


def _line(places: Sequence[float], values: ArrayLike, top: float) -> str:
    """Points of a path."""
    heights = _TOP + _HEIGHT * (1 - np.asarray(values) / top)
    return "L".join(f"{_LEFT + _WIDTH * x:.1f} {y:.1f}" for x, y in zip(places, heights, strict=True))


def _curve(table: pd.DataFrame, places: Sequence[float], top: float, side: int) -> str:
    """A curve with its interval, as that of A (side 0) or of B (side 1)."""
    colour, dash, sign = LINES[side]
    band = f"M{_line(places, table['low'], top)}L{_line(places[::-1], table['high'][::-1], top)}z"
    line = _line(places, table["pass_at_k"], top)
    dot = "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0 -6 0" if sign == "●" else "m0 -4l4 7h-8z"
    return (
        f'<path d="{band}" fill="{colour}" fill-opacity=".15"/>'
        f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'
        f'<path d="{"".join(f"M{point}{dot}" for point in line.split("L"))}" fill="{colour}"/>'
    )


def _curves(tables: Mapping[str, pd.DataFrame], floor: np.ndarray | None) -> dict[tuple, str]:
    """pass@k against k of two models, by A, B and the k that is marked."""
    ks = next(iter(tables.values()))["k"].tolist()
    places = [i / max(1, len(ks) - 1) for i in range(len(ks))]
    top = min(1.0, math.ceil(10 * max(table["high"].max() for table in tables.values())) / 10)
    guess = ""
    if floor is not None:
        line = _line(places, np.minimum(floor, top), top)
        guess = f'<path d="M{line}" fill="none" stroke="currentColor" stroke-dasharray="1 3" stroke-width="2"/>'
    sides = {(name, side): _curve(table, places, top, side) for name, table in tables.items() for side in (0, 1)}
    xs = dict(zip(places, map(str, ks), strict=True))
    ys = {share / top: f"{share:.0%}" for share in np.arange(0, top + 1e-9, 0.2 if top > 0.5 else 0.1)}
    words = ("k, samples of a problem", "pass@k")
    alt = "pass@k of A and of B against k with 95 % intervals; the text has the numbers at the chosen k"
    drawn = {}
    for (a, b), (x, k) in itertools.product(itertools.permutations(tables, 2), zip(places, ks, strict=True)):
        mark = f'<path d="M{_LEFT + _WIDTH * x:.1f} {_TOP}v{_HEIGHT}" stroke="currentColor" stroke-dasharray="4 3"/>'
        drawn[a, b, k] = _framed(guess + mark + sides[a, 0] + sides[b, 1], xs, ys, words, alt)
    return drawn


def _dots_svg(dots: Mapping[str, Any], k: int) -> str:
    """All problems as dots, at the chances of the first two models at the k of this number."""
    parts = []
    place = ""
    for i, name in enumerate(dots["names"]):
        x, y = (_WIDTH * math.sqrt(dots["chances"][side][k][i] / 1000) for side in (0, 1))
        look = " ".join(f'{key}="{value}"' for key, value in _LOOKS[int(dots["marks"][0][1][i])].items())
        radius = 5 * math.sqrt(0.618 * i % 1)  # a little apart, so that equal ones are seen
        apart = f"translate({radius * math.cos(2.4 * i):.1f} {radius * math.sin(2.4 * i):.1f})"
        moved = f"translate({x:.1f} -{y:.1f})"
        parts.append(f'<g transform="{apart}"><path transform="{moved}" {look}/><title>{escape_line(name)}</title></g>')
        place = place or apart + moved
    ring = f'<circle data-ring="" transform="{place}" r="9" fill="none" stroke="currentColor" stroke-width="2"/>'
    body = (
        f'<path d="M{_LEFT} {_TOP + _HEIGHT}l{_WIDTH} -{_HEIGHT}" stroke="currentColor" stroke-opacity=".5"/>'
        f'<g transform="translate({_LEFT} {_TOP + _HEIGHT})"><g data-dots="" fill-opacity=".65">{"".join(parts)}</g>'
        f"{ring}</g>"
    )
    ticks = {math.sqrt(p): f"{p:.0%}" for p in _TICKS}
    alt = "a dot for each problem: its pass@k by A to the right, by B upwards; the menu of problems reads each out"
    return _framed(body, ticks, ticks, ("pass@k of a problem by A", "by B"), alt)


# --- words -----------------------------------------------------------------------------------------------------------


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")


def _words(a: str, b: str, row: pd.Series, tables: Mapping[str, pd.DataFrame]) -> str:
    """The means of both at a k, and their difference, which `row` has."""
    lines = []
    for side, name in zip("AB", (a, b), strict=True):
        own = tables[name].set_index("k").loc[row["k"]]
        sign = LINES["AB".index(side)][2]
        share = f"<strong>{own['pass_at_k']:.1%}</strong> [{own['low']:.1%}, {own['high']:.1%}]"
        lines.append(f"{sign} {side}, {escape_line(label(name), 40)}: pass@{row['k']:.0f} = {share}")
    ends = f"[{_points(row['low'])}, {_points(row['high'])}]"
    lines.append(f"B − A: <strong>{_points(row['difference'])}</strong> points {ends}")
    return "".join(f"<p>{line}</p>" for line in lines)


def _cells(row: pd.Series, marks: str) -> str:
    """How many problems A and B solve, and how many chances moved: `row` has B against A as its base."""
    return (
        f"<p>Of {row['problems']:,} problems, with {row['n']:,} samples of each, both solve {row['both']}, A alone "
        f"{row['base_only']}, B alone {row['model_only']}, and neither {row['neither']}.</p>"
        f"<p>By more than two standard errors, B's pass@1 is higher on {marks.count('1')} problems (▲) and lower on "
        f"{marks.count('2')} (▼).</p>"
    )


# --- the explorer ----------------------------------------------------------------------------------------------------


def _compared(frames: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The frames in the order of the first one's problems; raises RlinoError where they cannot be compared."""
    if len(frames) < 2:
        raise RlinoError("the pass@k explorer compares at least two models")
    ids = next(iter(frames.values()))["id"]
    sizes = {int(n) for frame in frames.values() for n in frame["n"].unique()}
    if len(sizes) > 1 or min(sizes, default=0) < 4:
        raise RlinoError(
            f"the pass@k explorer needs one number of samples of each problem, 4 or more, not {sorted(sizes)}"
        )
    if any(sorted(frame["id"]) != sorted(ids) or not ids.is_unique for frame in frames.values()):
        raise RlinoError("models are compared on the same problems, each of them once")
    return {name: frame.set_index("id").loc[ids].reset_index() for name, frame in frames.items()}


def pass_at_k_explorer(
    frames: Mapping[str, pd.DataFrame],
    problems: Mapping[str, str] | None = None,
    floor: ArrayLike | None = None,
) -> Html:
    """pass@k of two models by k: curves with intervals over problems, a dot for each problem, and the numbers in words.

    `frames` {method or name: a row for each problem with id, n and c}, of which the first two come first; `problems`
    has texts by id, in place of the ids; `floor` [P] are a guesser's chances, whose curve is dotted. k are the powers
    of two that the samples suffice for. Raises RlinoError for fewer than two models, for problems that differ, for
    numbers of samples that differ or are below 4, and for a floor of other problems.
    """
    frames = _compared(frames)
    names = list(frames)
    ids = frames[names[0]]["id"].tolist()
    if floor is not None and np.shape(floor) != (len(ids),):
        raise RlinoError(f"the floor has a chance for each of the {len(ids)} problems")
    tables = {name: pass_at_k_table(frame) for name, frame in frames.items()}
    ks = tables[names[0]]["k"].tolist()
    chances = [np.rint(1000 * estimates(f["n"], f["c"], ks)).astype(int).T.tolist() for f in frames.values()]
    words: dict[tuple, str] = {}
    cells: dict[tuple, str] = {}
    marks = [["0" * len(ids)] * len(names) for _ in names]
    for a, b in itertools.combinations(names, 2):
        gaps = paired_difference(frames[b], frames[a])
        mirrored = gaps.assign(difference=-gaps["difference"], low=-gaps["high"], high=-gaps["low"])
        for one, other, table in ((a, b, gaps), (b, a, mirrored)):
            z = changes(frames[other], frames[one])[ids]
            marked = "".join(np.select([z > 2, z < -2], ["1", "2"], "0"))
            marks[names.index(one)][names.index(other)] = marked
            cells[one, other] = _cells(coverage(frames[one], {other: frames[other]}).iloc[0], marked)
            words |= {(one, other, row["k"]): _words(one, other, row, tables) for _, row in table.iterrows()}
    texts = [plain((problems or {}).get(i, i)) for i in ids]
    dots = {"names": texts, "chances": chances, "marks": marks, "looks": _LOOKS, "width": _WIDTH}
    guess = None if floor is None else true_pass_at_k(floor, ks).mean(0)
    models = {name: plain(label(name), 40) for name in names}
    start = len(ks) // 2
    controls = [
        Control("a", "A", models, names[0]),
        Control("b", "B", models, names[1]),
        Control("k", "Samples", {k: f"k = {k}" for k in ks}, ks[start], "slider"),
        Control("problem", "Problem", {i: plain(text, 60) for i, text in enumerate(texts)}, buttons=True),
    ]
    first = ", ".join(f"{s} {chances[i][start][0] / 10:g}%" for i, s in enumerate("AB"))
    slots = {
        "words": Slot(("a", "b", "k"), words),
        "cells": Slot(("a", "b"), cells),
        "curves": Slot(("a", "b", "k"), _curves(tables, guess)),
        "dots": Slot((), {(): _dots_svg(dots, start)}),
    }
    note = "Bands: 95 % over problems." + (" Dotted: a guesser." if guess is not None else "")
    left = f"<div>{slot('curves')}<p>{note} Upright: the chosen k.</p></div>"
    chosen = f'<span data-dot="">{escape_line(texts[0])}: {first}</span>'
    apart = "<p>Dots stand up to 5 pixels off, so that equal ones are seen.</p>"
    right = f'<div>{slot("dots")}<p aria-live="polite">○ {chosen}</p>{apart}</div>'
    body = f'{slot("words")}{slot("cells")}<div class="rlino-two">{left}{right}</div>'
    return explorer("Pass@k explorer", controls, slots, body, dots=dots)
