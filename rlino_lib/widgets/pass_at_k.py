"""The pass@k explorer (chapter 09): two models on the same problems, their curves, and a dot for each problem.

All numbers are those of `analysis`. The script places the dots by their data: the `names` of problems, `chances` in
thousandths by model, k and problem, `moves` by A and B, and `width`, the pixels from 0 to 1, on scales of square roots.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from rlino_lib.analysis.coverage import Comparison, compare_models, coverage
from rlino_lib.claims.sharpening import counts
from rlino_lib.claims.sharpening_answers import answers
from rlino_lib.errors import RlinoError
from rlino_lib.figures.sharpening import cells_figure, changes_figure, pass_at_k_figure
from rlino_lib.figures.style import label
from rlino_lib.folders import asked_and_found
from rlino_lib.widgets.page import BLUE, LEFT, LINES, ORANGE, TOP, Control, explorer, plot_svg, slot
from rlino_lib.widgets.tokens import Html, escape_line, plain

_SIZE = (270, 270)  # pixels from 0 to 1
_TICKS = {math.sqrt(p): f"{p:.0%}" for p in (0, 0.01, 0.1, 0.25, 0.5, 1)}
_SHAPES = ("M-3 0a3 3 0 1 0 6 0a3 3 0 1 0 -6 0z", "M-5 4h10l-5 -9z", "M-5 -4h10l-5 9z")  # alike, B higher, B lower
_LOOKS = [{"d": shape, "fill": colour} for shape, colour in zip(_SHAPES, ("#888", BLUE, ORANGE), strict=True)]


def _path(xs: Iterable[float], ys: Iterable[float], look: str) -> str:
    """A line through places from 0 to 1 in the field of a drawing."""
    points = (f"{LEFT + _SIZE[0] * x:.1f} {TOP + _SIZE[1] * (1 - y):.1f}" for x, y in zip(xs, ys, strict=True))
    return f'<path d="M{"L".join(points)}" {look}/>'


def _curves(compared: Comparison) -> dict[tuple, str]:
    """pass@k against k of two models, by A, B and the k that is marked."""
    places = np.linspace(0, 1, len(compared.ks))
    top = min(1.0, math.ceil(5 * max(table["high"].max() for table in compared.tables.values())) / 5)
    levels = {y: f"{y:.0%}" for y in np.linspace(0, top, 5)}
    ticks = dict(zip(places, map(str, compared.ks), strict=True))
    look = 'fill="none" stroke="currentColor" stroke-dasharray="1 3" stroke-width="2"'
    guess = "" if compared.guess is None else _path(places, np.minimum(compared.guess / top, 1), look)
    alt = "pass@k of A and of B against k with 95 % intervals; the text has the numbers at the chosen k"
    pages = {}
    for a, b in compared.pairs:
        curves = pd.DataFrame({name: compared.tables[name]["pass_at_k"].to_numpy() for name in (a, b)}, places)
        under = guess
        for name, (colour, _, _) in zip((a, b), LINES, strict=True):
            edges = np.concatenate([compared.tables[name]["low"], compared.tables[name]["high"][::-1]]) / top  # [2K]
            under += _path([*places, *places[::-1]], edges, f'fill="{colour}" fill-opacity=".15"')
        for x, k in zip(places, compared.ks, strict=True):
            mark = _path([x, x], [0, 1], 'stroke="currentColor" stroke-dasharray="4 3"')
            pages[a, b, k] = plot_svg(curves, levels, ticks, alt, "pass@k against k", _SIZE, under + mark)
    return pages


def _dots_svg(names: Sequence[str], chances: np.ndarray, moves: str) -> str:
    """All problems as dots, at their chances under two models, [2, P]."""
    parts = []
    for i, (name, (x, y)) in enumerate(zip(names, _SIZE[0] * np.sqrt(chances.T), strict=True)):
        look = " ".join(f'{key}="{value}"' for key, value in _LOOKS[int(moves[i])].items())
        radius = 5 * math.sqrt(0.618 * i % 1)  # a little apart, so that equal ones are seen
        apart = f"translate({radius * math.cos(2.4 * i):.1f} {radius * math.sin(2.4 * i):.1f})"
        path = f'<path transform="translate({x:.1f} -{y:.1f})" {look}/>'
        parts.append(f'<g transform="{apart}">{path}<title>{escape_line(name)}</title></g>')
    diagonal = _path([0, 1], [0, 1], 'stroke="currentColor" stroke-opacity=".5"')
    ring = '<circle data-ring="" r="9" fill="none" stroke="currentColor" stroke-width="2"/>'
    marks = f'<g data-dots="" fill-opacity=".65">{"".join(parts)}</g>{ring}'
    under = f'{diagonal}<g transform="translate({LEFT} {TOP + _SIZE[0]})">{marks}</g>'
    alt = "a dot for each problem: its pass@k by A to the right, by B upwards; the menu of problems reads each out"
    return plot_svg(pd.DataFrame(), _TICKS, _TICKS, alt, "pass@k by A → and by B ↑", _SIZE, under)


def _words(names: tuple[str, str], row: pd.Series, compared: Comparison) -> str:
    """The means of both at the k of a row, their difference, how many problems they solve, and what moved."""
    lines = []
    for side, name, (_, _, sign) in zip("AB", names, LINES, strict=True):
        own = compared.tables[name].set_index("k").loc[row["k"]]
        share = f"<strong>{own['pass_at_k']:.1%}</strong> [{own['low']:.1%}, {own['high']:.1%}]"
        lines.append(f"{sign} {side}, {escape_line(label(name), 40)}: pass@{row['k']:.0f} = {share}")
    gap, low, high = (f"{100 * row[name]:+.1f}".replace("-", "−") for name in ("difference", "low", "high"))
    _, of, moves = compared.pairs[names]
    lines += [
        f"B − A: <strong>{gap}</strong> points [{low}, {high}]",
        f"Of {of['problems']:,} problems, with {of['n']:,} samples of each, both solve {of['both']}, A alone "
        f"{of['base_only']}, B alone {of['model_only']}, and neither {of['neither']}.",
        f"By more than two standard errors, B's pass@1 is higher on {moves.count('1')} problems (▲) and lower "
        f"on {moves.count('2')} (▼).",
    ]
    return "".join(f"<p>{line}</p>" for line in lines)


def pass_at_k_explorer(
    frames: Mapping[str, pd.DataFrame], problems: Mapping[str, str] | None = None, floor: Sequence[float] | None = None
) -> Html:
    """pass@k of two models by k: curves with intervals over problems, a dot for each problem, and the numbers in words.

    `frames` {method or name: a row for each problem with id, n and c}, of which the first two come first; `problems`
    has texts by id, in place of the ids; `floor` [P] are a guesser's chances, whose curve is dotted. k are the powers
    of two that the samples suffice for. Raises RlinoError as `compare_models` does.
    """
    compared = compare_models(frames, floor)
    start = len(compared.ks) // 2  # the number of the k that comes first
    names = list(compared.tables)
    texts = [plain((problems or {}).get(i, i)) for i in frames[names[0]]["id"]]
    moves = [[compared.pairs[a, b].moves if a != b else "" for b in names] for a in names]
    chances = np.rint(1000 * compared.chances).astype(int).tolist()
    dots = {"names": texts, "chances": chances, "moves": moves, "looks": _LOOKS, "width": _SIZE[0]}
    models = {name: plain(label(name), 40) for name in names}
    controls = [
        Control("a", "A", models, names[0]),
        Control("b", "B", models, names[1]),
        Control("k", "Samples", {k: f"k = {k}" for k in compared.ks}, compared.ks[start], "slider"),
        Control("problem", "Problem", {i: plain(text, 60) for i, text in enumerate(texts)}, buttons=True),
    ]
    by = ("a", "b", "k")
    words = {(*two, row["k"]): _words(two, row, compared) for two in compared.pairs
             for _, row in compared.pairs[two].gaps.iterrows()}  # fmt: skip
    dots_svg = _dots_svg(texts, compared.chances[:2, start], moves[0][1])
    slots = {"words": (by, words), "curves": (by, _curves(compared)), "dots": ((), {(): dots_svg})}
    note = f"Bands: 95 % over problems. {'Dotted: a guesser. ' if floor is not None else ''}Upright: the chosen k."
    right = '<p data-dot="" aria-live="polite"></p><p>Dots stand up to 5 pixels off, so that equal ones are seen.</p>'
    halves = f"<div>{slot('curves')}<p>{note}</p></div><div>{slot('dots')}{right}</div>"
    body = f'{slot("words")}<div class="rlino-two">{halves}</div>'
    return explorer("Pass@k explorer", controls, slots, body, dots=dots)


def _check_sampling(folders: Sequence[str | Path]) -> None:
    """Raises RlinoError unless evaluations were sampled alike, the first two from different seeds."""
    settings = [asked_and_found(Path(folder) / "evaluation.json")[0] or {} for folder in folders]
    for name in ("task", "task_settings", "split", "samples", "max_new_tokens", "temperature", "top_p"):
        if any(one.get(name) != settings[0].get(name) for one in settings if one):
            raise RlinoError(f"evaluations are compared that have the same {name}")
    if settings[0] and settings[0].get("seed") == settings[1].get("seed"):
        raise RlinoError("the base is sampled again with another seed: rlino evaluate --seed 1")


def sharpening_page(base: str | Path, again: str | Path, models: Mapping[str, Sequence[str | Path]]) -> None:
    """Chapter 09's page of any model: three sentences, curves, cells, what moved, and the explorer.

    Folders of `rlino evaluate` on the same problems: of the base, of the base with another seed, and of each model by
    name, one for each seed. Raises RlinoError for a folder without a complete evaluation, and where the problems
    differ, how they were sampled, or the base's two draws do not.
    """
    if {"base", "base_again"} & set(models) or not all(map(len, models.values())):
        raise RlinoError("a model has a name of its own, other than base and base_again, and a folder for each seed")
    _check_sampling([base, again, *(folder for folders in models.values() for folder in folders)])
    first, second = (counts(Path(folder)) for folder in (base, again))
    frames = {name: [counts(Path(folder)) for folder in folders] for name, folders in models.items()}
    for name, own in frames.items():
        display(Markdown(" ".join(answers(first, own, second, name=escape_line(name)))))
    singles = {"base_again": second} | {name: own[0] for name, own in frames.items()}
    cells = {name: coverage(first, {name: frame}).loc[name] for name, frame in singles.items()}
    display(pass_at_k_figure(first, {"base_again": [second], **frames}))
    display(cells_figure(pd.DataFrame(cells).T), changes_figure(first, singles))
    display(pass_at_k_explorer({"base": first, **singles}))
