"""The pass@k explorer (chapter 09): two models on the same problems, their curves, and a dot for each problem.

All numbers are those of `analysis`. The script places the dots by their data: the `names` of problems, `chances` in
thousandths by model, k and problem, `moves` by A and B, and `width`, the pixels from 0 to 1, on scales of square roots.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rlino_lib.analysis.coverage import Versus, aligned, each_against_each
from rlino_lib.analysis.pass_at_k import estimates, pass_at_k_table, true_pass_at_k
from rlino_lib.errors import RlinoError
from rlino_lib.figures.style import label
from rlino_lib.widgets.page import BLUE, LEFT, LINES, ORANGE, TOP, Control, Slot, explorer, plot_svg, slot
from rlino_lib.widgets.tokens import Html, escape_line, plain

_SIZE = 270  # pixels from 0 to 1
_TICKS = {math.sqrt(p): f"{p:.0%}" for p in (0, 0.01, 0.1, 0.25, 0.5, 1)}
_LOOKS = (  # of a dot where B's chance is like A's, higher, and lower
    {"d": "M-3 0a3 3 0 1 0 6 0a3 3 0 1 0 -6 0z", "fill": "#888"},
    {"d": "M-5 4h10l-5 -9z", "fill": BLUE},
    {"d": "M-5 -4h10l-5 9z", "fill": ORANGE},
)


def _path(xs: Iterable[float], ys: Iterable[float], look: str) -> str:
    """A line through places from 0 to 1 in the field of a drawing."""
    points = (f"{LEFT + _SIZE * x:.1f} {TOP + _SIZE * (1 - y):.1f}" for x, y in zip(xs, ys, strict=True))
    return f'<path d="M{"L".join(points)}" {look}/>'


def _ticks(ticks: Mapping[float, str]) -> str:
    """Upright rules with their names below."""
    text = f'<text y="{TOP + _SIZE + 16}" text-anchor="middle"'
    rules = ((_path([x, x], [0, 1], 'stroke="#8883"'), LEFT + _SIZE * x, name) for x, name in ticks.items())
    return "".join(f'{rule}{text} x="{x:.1f}">{name}</text>' for rule, x, name in rules)


def _curves(tables: Mapping[str, pd.DataFrame], guess: Sequence[float] | None) -> dict[tuple, str]:
    """pass@k against k of two models, by A, B and the k that is marked."""
    ks = next(iter(tables.values()))["k"].tolist()
    places = np.linspace(0, 1, len(ks))
    top = min(1.0, math.ceil(5 * max(table["high"].max() for table in tables.values())) / 5)
    levels = {y: f"{y:.0%}" for y in np.linspace(0, top, 5)}
    under = _ticks(dict(zip(places, map(str, ks), strict=True)))
    if guess is not None:
        under += _path(places, np.minimum(guess, top) / top, 'fill="none" stroke="currentColor" stroke-dasharray="1 3"')
    alt = "pass@k of A and of B against k with 95 % intervals; the text has the numbers at the chosen k"
    pages = {}
    for a, b in itertools.permutations(tables, 2):
        curves = pd.DataFrame({name: tables[name]["pass_at_k"].to_numpy() for name in (a, b)}, places)
        below = under
        for name, (colour, _, _) in zip((a, b), LINES, strict=True):
            edges = np.concatenate([tables[name]["low"], tables[name]["high"][::-1]]) / top  # [2K]
            below += _path([*places, *places[::-1]], edges, f'fill="{colour}" fill-opacity=".15"')
        for x, k in zip(places, ks, strict=True):
            mark = _path([x, x], [0, 1], 'stroke="currentColor" stroke-dasharray="4 3"')
            pages[a, b, k] = plot_svg(curves, levels, ("", ""), alt, "pass@k against k", (_SIZE, _SIZE), below + mark)
    return pages


def _dots_svg(dots: Mapping[str, Any], k: int) -> str:
    """All problems as dots, at the chances of the first two models at the k of this number."""
    parts = []
    for i, name in enumerate(dots["names"]):
        x, y = (_SIZE * math.sqrt(dots["chances"][side][k][i] / 1000) for side in (0, 1))
        look = " ".join(f'{key}="{value}"' for key, value in _LOOKS[int(dots["moves"][0][1][i])].items())
        radius = 5 * math.sqrt(0.618 * i % 1)  # a little apart, so that equal ones are seen
        apart = f"translate({radius * math.cos(2.4 * i):.1f} {radius * math.sin(2.4 * i):.1f})"
        path = f'<path transform="translate({x:.1f} -{y:.1f})" {look}/>'
        parts.append(f'<g transform="{apart}">{path}<title>{escape_line(name)}</title></g>')
    under = _ticks(_TICKS) + _path([0, 1], [0, 1], 'stroke="currentColor" stroke-opacity=".5"')
    ring = '<circle data-ring="" r="9" fill="none" stroke="currentColor" stroke-width="2"/>'
    marks = f'<g data-dots="" fill-opacity=".65">{"".join(parts)}</g>{ring}'
    under += f'<g transform="translate({LEFT} {TOP + _SIZE})">{marks}</g>'
    alt = "a dot for each problem: its pass@k by A to the right, by B upwards; the menu of problems reads each out"
    return plot_svg(pd.DataFrame(), _TICKS, ("", ""), alt, "pass@k by A → and by B ↑", (_SIZE, _SIZE), under)


def _words(names: tuple[str, str], versus: Versus, row: pd.Series, tables: Mapping[str, pd.DataFrame]) -> str:
    """The means of both at the k of a row, their difference, how many problems they solve, and what moved."""
    lines = []
    for side, name, (_, _, sign) in zip("AB", names, LINES, strict=True):
        own = tables[name].set_index("k").loc[row["k"]]
        share = f"<strong>{own['pass_at_k']:.1%}</strong> [{own['low']:.1%}, {own['high']:.1%}]"
        lines.append(f"{sign} {side}, {escape_line(label(name), 40)}: pass@{row['k']:.0f} = {share}")
    gap, low, high = (f"{100 * row[name]:+.1f}".replace("-", "−") for name in ("difference", "low", "high"))
    of = versus.cells
    lines += [
        f"B − A: <strong>{gap}</strong> points [{low}, {high}]",
        f"Of {of['problems']:,} problems, with {of['n']:,} samples of each, both solve {of['both']}, A alone "
        f"{of['base_only']}, B alone {of['model_only']}, and neither {of['neither']}.",
        f"By more than two standard errors, B's pass@1 is higher on {versus.moves.count('1')} problems (▲) and lower "
        f"on {versus.moves.count('2')} (▼).",
    ]
    return "".join(f"<p>{line}</p>" for line in lines)


def pass_at_k_explorer(
    frames: Mapping[str, pd.DataFrame], problems: Mapping[str, str] | None = None, floor: Sequence[float] | None = None
) -> Html:
    """pass@k of two models by k: curves with intervals over problems, a dot for each problem, and the numbers in words.

    `frames` {method or name: a row for each problem with id, n and c}, of which the first two come first; `problems`
    has texts by id, in place of the ids; `floor` [P] are a guesser's chances, whose curve is dotted. k are the powers
    of two that the samples suffice for. Raises RlinoError for a floor of other problems, and as `each_against_each`.
    """
    frames = aligned(frames)
    names = list(frames)
    texts = [plain((problems or {}).get(i, i)) for i in frames[names[0]]["id"]]
    if floor is not None and np.shape(floor) != (len(texts),):
        raise RlinoError(f"the floor has a chance for each of the {len(texts)} problems")
    tables = {name: pass_at_k_table(frame) for name, frame in frames.items()}
    ks = tables[names[0]]["k"].tolist()
    pairs = each_against_each(frames)
    words = {(*two, row["k"]): _words(two, v, row, tables) for two, v in pairs.items() for _, row in v.gaps.iterrows()}
    moves = [[pairs[a, b].moves if a != b else "" for b in names] for a in names]
    chances = [np.rint(1000 * estimates(f["n"], f["c"], ks)).astype(int).T.tolist() for f in frames.values()]
    dots = {"names": texts, "chances": chances, "moves": moves, "looks": _LOOKS, "width": _SIZE}
    models = {name: plain(label(name), 40) for name in names}
    controls = [
        Control("a", "A", models, names[0]),
        Control("b", "B", models, names[1]),
        Control("k", "Samples", {k: f"k = {k}" for k in ks}, ks[len(ks) // 2], "slider"),
        Control("problem", "Problem", {i: plain(text, 60) for i, text in enumerate(texts)}, buttons=True),
    ]
    slots = {
        "words": Slot(("a", "b", "k"), words),
        "curves": Slot(("a", "b", "k"), _curves(tables, None if floor is None else true_pass_at_k(floor, ks).mean(0))),
        "dots": Slot((), {(): _dots_svg(dots, len(ks) // 2)}),
    }
    note = f"Bands: 95 % over problems. {'Dotted: a guesser. ' if floor is not None else ''}Upright: the chosen k."
    right = '<p data-dot="" aria-live="polite"></p><p>Dots stand up to 5 pixels off, so that equal ones are seen.</p>'
    halves = f"<div>{slot('curves')}<p>{note}</p></div><div>{slot('dots')}{right}</div>"
    return explorer(
        "Pass@k explorer", controls, slots, f'{slot("words")}<div class="rlino-two">{halves}</div>', dots=dots
    )
