"""An explorer as one HTML output: the first page as Python renders it, all pages as JSON, and the script that chooses.

Python renders, the script chooses. A page is made of slots; what a slot shows is a fragment of HTML that depends on
some of the controls. Fragments are cut at their tags into parts, so that what they share is stored once. Responses are
stored as tokens, numbers and colour levels; the script writes them as text. Where scripts are stripped the first page
stays, with its drawings as images.

The JSON has `controls`; `slots` {name: {by: names of controls, views: a number}}; `views`, each from a place to the
number of a fragment (a list where every choice has one; a place counts the options of `by`, the last one fastest);
`fragments`, lists of numbers of `parts`; `traces`: tokens, `levels` with one letter per token and column, `values`;
and the `colours` of these letters. `dots` places marks by the controls a, b and k, as `widgets/pass_at_k.py` says.
"""

from __future__ import annotations

import base64
import html
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from rlino_lib.widgets import tokens as written
from rlino_lib.widgets.tokens import Html, Scale, box_html, escape_line, legend_html, mark_of, number, printable

BLUE = "#0173b2"
ORANGE = "#d55e00"
# A curve's colour, dash and sign: greyscale tells them apart as well.
LINES = ((BLUE, "", "●"), (ORANGE, ' stroke-dasharray="6 3"', "▲"))
LEFT, TOP = 60, 14  # the corner of the field of `plot_svg`
Slot = tuple[tuple[str, ...], Mapping[Any, str]]  # a part of the page: some controls, its HTML by tuples of their keys
BUDGET = 400_000  # characters of data in one explorer
_SCRIPT = Path(__file__).with_name("explorer.js").read_text(encoding="utf-8")
STYLE = written.STYLE + f"<style>{Path(__file__).with_name('explorer.css').read_text(encoding='utf-8')}</style>"


# --- an explorer -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Control:
    """A menu or a slider over options, {key: text} or texts that are their own keys; that of key `start` comes first.

    With `act` it changes only looks, at once: colour, show (a filter) or sort, by its keys. A `kind` of step is a
    slider over the tokens of what is shown, and stop one over its attempts; these have no options. Where a choice
    before it takes away what was chosen, it goes to an option of the same name (what stands before " · "), else with
    `nearest` to the one closest by, else to the first of the keys `first`.
    """

    name: str
    label: str
    options: Mapping[Any, str] | Sequence[str] = ()
    start: Any = None  # None: the first
    kind: str = "menu"  # menu, slider, step or stop
    buttons: bool = False  # ‹ and › beside it
    nearest: bool = False
    first: Sequence[Any] = ()
    act: str = ""

    @property
    def keys(self) -> list[Any]:
        """The keys of its options."""
        return list(self.options)

    @property
    def opened(self) -> Any:
        """The key that is chosen first."""
        return self.keys[0] if self.start is None and self.options else self.start

    def data(self) -> dict[str, Any]:
        """What the script needs, which knows options by their numbers."""
        number = self.keys.index
        start = number(self.opened) if self.options else 0
        texts = list(self.options.values()) if isinstance(self.options, Mapping) else self.keys
        fields = vars(self) | {"options": texts, "start": start, "first": list(map(number, self.first))}
        fields["values"] = self.keys if self.act else None
        return {name: value for name, value in fields.items() if value or name == "start"}


@dataclass
class Trace:
    """A response to be shown: its tokens, columns of numbers, and for each colour a level per token.

    `columns` {name: (values [T], scale, limit)}; a column whose values are all the same is stored once.
    """

    tokens: list[str]
    columns: Mapping[str, tuple[Sequence[float], Scale, float]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)  # of columns, in tooltips
    foreign: Sequence[float] = ()  # [T], 1 for each token that the policy did not write; or empty

    def data(self) -> dict[str, Any]:
        """What the script needs, all text made visible."""
        data: dict[str, Any] = {"tokens": [printable(t) for t in self.tokens], "levels": {}, "values": {}}
        for name, (values, scale, limit) in self.columns.items():
            texts = [_short(v, limit) for v in values]
            data["levels"][name] = "".join(mark_of(v, scale, limit) for v in values)
            data["values"][self.names.get(name, name)] = texts[0] if len(set(texts)) == 1 else " ".join(texts)
        if any(self.foreign):
            data["foreign"] = "".join("01"[bool(f)] for f in self.foreign)
        return data

    def spans(self, colour: str | None) -> str:
        """The tokens as HTML, coloured by a column."""
        columns = {name: text.split(" ") for name, text in self.data()["values"].items()}
        tips = []
        for t in range(len(self.tokens)):
            numbers = "".join(f" · {name} {texts[t if len(texts) > 1 else 0]}" for name, texts in columns.items())
            author = " · not the policy's" if t < len(self.foreign) and self.foreign[t] else ""
            tips.append(f"token {t + 1}{author}{numbers.replace('-', '−')}")
        values, scale, limit = self.columns.get(colour or "", (None, "diverging", None))
        return written.token_spans(self.tokens, values, scale=scale, limit=limit, tips=tips, foreign=self.foreign)


def _short(value: float, limit: float) -> str:
    """Three digits; 0 for what is too small for its colour by far."""
    return "–" if math.isnan(value) else "0" if abs(value) < 1e-4 * limit else f"{value:.3g}".replace("inf", "∞")


class Colour(NamedTuple):
    """A way to colour tokens by a column: its scale, and its name in menus, legends and tooltips."""

    scale: Scale
    menu: str
    label: str = ""
    tip: str = ""


def colour_control(colours: Mapping[str, Colour], colour: str) -> Control:
    """The menu of colours, of which `colour` comes first."""
    return Control("colour", "Colour by", {name: look.menu for name, look in colours.items()}, colour, act="colour")


def scales_of(
    colours: Mapping[str, Colour], values: Mapping[str, Sequence[float]], colour: str
) -> tuple[dict[str, float], str]:
    """The value of full colour for each column of `values`, and the legends, `colour`'s to be seen.

    Full colour is the largest size, or on one-sided scales the 98th percentile, so that one token cannot fade all.
    """
    limits, legends = {}, []
    for column, look in colours.items():
        sizes = [abs(v) for v in values[column] if math.isfinite(v)]
        limits[column] = max(sizes, default=0.0)
        if look.scale == "sequential" and sizes:
            limits[column] = float(np.quantile(sizes, 0.98)) or limits[column]
        legend = f"No {look.menu} is recorded here: the tokens are not coloured." if look.label else ""
        if values[column]:
            legend = legend_html(values[column], look.scale, limits[column], look.label)
        legends.append(f'<div data-legend="{column}"{" hidden" * (column != colour)}>{legend}</div>')
    return limits, "".join(legends)


def slot(name: str, tag: str = "div") -> str:
    """The place of a slot in a page."""
    return f'<{tag} data-slot="{name}"></{tag}>'


def explorer(
    label: str, controls: Sequence[Control], slots: Mapping[str, Slot], body: str, traces: Sequence[Trace] = (),
    dots: Mapping[str, Any] | None = None,
) -> Html:  # fmt: skip
    """An explorer as one HTML output: the first page, all pages as JSON, and the script.

    `body` is safe HTML with the places of the slots; `label` is any text. Slots of the same pages share their data.
    """
    data = _exported(controls, slots) | {"colours": written.COLOURS, "dots": dots}
    data["traces"] = [trace.data() for trace in traces]
    start = {c.name: c.opened for c in controls}
    for name, (by, pages) in slots.items():
        place = f'data-slot="{name}">'
        body = body.replace(place, place + pages[tuple(start[c] for c in by)])
    body = _still(body, traces, next((c.opened for c in controls if c.act == "colour"), None))
    note = "This is the first choice. In a trusted notebook and on the book's pages there are controls here."
    return Html(
        f'{STYLE}<section class="rlino-explorer mathjax_ignore" aria-label="{escape_line(label)}">'
        f'<p class="rlino-static">{note}</p>{body}'
        f'<script type="application/json">{to_json(data)}</script><script>{_SCRIPT}</script></section>'
    )


def _exported(controls: Sequence[Control], slots: Mapping[str, Slot]) -> dict[str, Any]:
    """What the script needs, without traces."""
    fragments: dict[str, int] = {}
    views: dict[int, list[int] | dict[int, int]] = {}
    keys = {c.name: c.keys for c in controls}
    for by, pages in slots.values():
        places = list(itertools.product(*(keys[c] for c in by)))
        numbers = {k: fragments.setdefault(pages[at], len(fragments)) for k, at in enumerate(places) if at in pages}
        views[id(pages)] = list(numbers.values()) if len(numbers) == len(places) else numbers
    parts: dict[str, int] = {}
    numbers_of = [[parts.setdefault(part, len(parts)) for part in parts_of(page)] for page in fragments]
    order = list(views)
    return {
        "controls": [control.data() for control in controls],
        "slots": {name: {"by": by, "views": order.index(id(pages))} for name, (by, pages) in slots.items()},
        "views": list(views.values()),
        "fragments": numbers_of,
        "parts": list(parts),
    }


def parts_of(page: str) -> list[str]:
    """A page cut at its opening tags."""
    return re.split("(?=<[a-z])", page)


class Boxes:
    """The traces of an explorer, each in its box, and how much of a budget of characters its data use, about."""

    def __init__(self, budget: int = BUDGET) -> None:
        self.traces: list[Trace] = []
        self.left = float(budget)
        self.last = 0.0  # what the last group used
        self._size = 0  # of the traces since then
        self._parts: set[str] = set()

    def add(self, trace: Trace, label: str, kind: str = "") -> str:
        """The box for a trace; `label` is any text."""
        self.traces.append(trace)
        self._size += len(to_json(trace.data()))
        return box_html("", label, kind, f' data-trace="{len(self.traces) - 1}"')

    def count(self, *pages: str) -> None:
        """Count a group: its pages, whose parts are stored once, and the traces since the last one."""
        self.last, self._size = float(self._size), 0
        for parts in map(parts_of, set(pages)):
            self.last += 5 * len(parts) + sum(len(part) + 6 for part in set(parts) - self._parts)
            self._parts.update(parts)
        self.left -= self.last

    @property
    def room(self) -> bool:
        """Whether there is room for another group like the last one."""
        return self.left >= self.last


def to_json(data: Any) -> str:
    """JSON that cannot end the script element that holds it."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _still(body: str, traces: Sequence[Trace], colour: str | None) -> str:
    """A page as it stands without the script: tokens written, all steps done, drawings as images."""
    body = re.sub(r'data-trace="(\d+)">', lambda m: m[0] + traces[int(m[1])].spans(colour), body)
    marks = re.search(r'data-steps="(\d+)"[^>]* data-marks="([^"]*)"', body)
    if marks:
        last, spans = int(marks[1]), json.loads(html.unescape(marks[2]))
        body = re.sub(r'(data-id="(\w+)")', lambda m: m[1] + _state(spans.get(m[2], []), last), body)

    def image(match: re.Match[str]) -> str:
        data = base64.b64encode(match[0].encode()).decode()
        alt = re.findall('aria-label="([^"]*)"', match[0])
        return f'<img alt="{alt[0]}" style="background:#fff" src="data:image/svg+xml;base64,{data}">'

    return re.sub(r"<svg\b.*?</svg>", image, body, flags=re.DOTALL)


def _state(spans: Sequence[Sequence[int]], token: int) -> str:
    begun = any(start <= token for start, _ in spans)
    now = any(start <= token <= end for start, end in spans)
    return ' class="rlino-now"' if now else "" if begun else ' class="rlino-later"'


def stepped(last: int, marks: Mapping[str, Sequence[tuple[int, int]]], stops: Sequence[int] = ()) -> str:
    """The attributes of an element that is stepped through: `marks` say from and to which token an id is under way."""
    texts = [html.escape(json.dumps(value, separators=(",", ":"))) for value in (marks, stops)]
    return f'data-steps="{last}" data-marks="{texts[0]}" data-stops="{texts[1]}"'


def message(text: str) -> Html:
    """A page that says why there is nothing to show."""
    body = f"<p>{escape_line(text)}</p>"
    return Html(f'{STYLE}<section class="rlino-page mathjax_ignore" aria-label="Message">{body}</section>')


def frame_table(frame: pd.DataFrame, ids: Sequence[str] = (), styles: pd.DataFrame | None = None) -> str:
    """A frame of text as a table whose first column is its index; `ids` of rows are for stepping, `styles` of cells."""
    rows = []
    for k, (name, *cells) in enumerate(frame.itertuples(name=None)):
        mark = f' data-id="{ids[k]}"' if ids else ""
        looks = [""] * len(cells) if styles is None else map(' style="{}"'.format, styles.iloc[k])
        row = "".join(f"<td{look}>{html.escape(str(cell))}</td>" for look, cell in zip(looks, cells, strict=True))
        rows.append(f'<tr{mark}><th scope="row">{html.escape(str(name))}</th>{row}</tr>')
    heads = (html.escape(str(name)) for name in (frame.index.name or "", *frame.columns))
    return wide("".join(f'<th scope="col">{head}</th>' for head in heads), "".join(rows))


def wide(head: str, rows: str) -> str:
    """A table from the HTML of its head and its rows, in a box that can be scrolled from the keyboard too."""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="rlino-wide" tabindex="0" role="group" aria-label="Table">{table}</div>'


# In the drawing itself, so that it holds in an image too.
_SVG_STYLE = """<style>
.rlino-plot text{font:11px sans-serif;fill:currentColor}.rlino-plot .rlino-later{opacity:.3}
.rlino-plot .rlino-now :is(path,rect,circle){stroke:#0173b2;stroke-width:3}.rlino-plot .rlino-now text{font-weight:700}
</style>"""


def svg_html(body: str, width: float, height: float, alt: str) -> str:
    """An SVG drawing of `width` × `height` pixels; `body` is safe SVG and `alt` safe text that describes it."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="rlino-plot" role="img" aria-label="{alt}" width="{width:.0f}" '
        f'height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">{_SVG_STYLE}{body}</svg>'
    )


def drawing(body: str, width: float, height: float, alt: str, what: str) -> str:
    """An SVG drawing in a box that scrolls by keyboard; `what` names the box, the rest is as in `svg_html`."""
    box = f'<div class="rlino-graph" tabindex="0" role="group" aria-label="{what}, scrollable">'
    return f"{box}{svg_html(body, width, height, alt)}</div>"


def plot_svg(
    curves: pd.DataFrame, levels: Mapping[float, str], ticks: Mapping[float, str], alt: str, caption: str = "",
    size: tuple[int, int] = (250, 160), under: str = "",
) -> str:  # fmt: skip
    """Columns against the index, from 0 to 1, as lines with signs in the looks of LINES; NaN is left out.

    `levels` are the heights that are ruled, with their names; the lowest and the highest are `size` apart. `ticks` are
    ruled from 0 to 1. All texts are safe, as is the SVG `under` the lines, from (LEFT, TOP) on.
    """
    width, height = size
    high, low = max(levels), min(levels)
    end = TOP + height + 22
    parts = []
    for x, text in ticks.items():
        at = LEFT + width * x
        parts.append(f'<path d="M{at:.1f} {TOP}v{height}" stroke="#8883"/>')
        parts.append(f'<text x="{at:.1f}" y="{end}" text-anchor="middle">{text}</text>')
    for level, text in levels.items():
        y = TOP + height * (high - level) / (high - low)
        parts.append(f'<path d="M{LEFT} {y:.0f}h{width}" stroke="#8886"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.0f}" text-anchor="end">{text}</text>')
    parts.append(under)
    for (_, column), (colour, dash, sign) in zip(curves.items(), LINES, strict=False):
        heights = TOP + height * (high - column.dropna()) / (high - low)
        line = [f"{LEFT + width * x:.0f} {y:.1f}" for x, y in heights.items()]
        parts.append(f'<path d="M{"L".join(line)}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        dot = "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0 -6 0" if sign == "●" else "m0 -4l4 7h-8z"
        dots = "".join(f"M{point}{dot}" for point in line[:: max(1, len(line) // 8)])
        parts.append(f'<path d="{dots}" fill="{colour}"/>')
    parts.append(f'<text x="{LEFT + width / 2}" y="{end + 18}" text-anchor="middle">{caption}</text>')
    return svg_html("".join(parts), LEFT + width + 30, end + (26 if caption else 6), alt)


def sides_svg(curves: pd.DataFrame, caption: str, alt: str) -> str:
    """The columns right and wrong against p, the index: solid with circles, dashed with triangles."""
    top = float(curves.abs().max(axis=None))
    levels = {top: number(top), 0.0: "0", -top: number(-top)} if top >= 1e-9 else {1.0: "", 0.0: "0", -1.0: ""}
    return plot_svg(curves[["right", "wrong"]], levels, {0: "p = 0", 1: "1"}, alt, caption)
