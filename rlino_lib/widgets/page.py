"""The parts that all pages share: styles, sections, messages, folds, tables and drawings. No kernel, no script."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable

import pandas as pd

from rlino_lib.widgets.tokens import STYLE as TOKEN_STYLE
from rlino_lib.widgets.tokens import Html, escape_line, number

BLUE = "#0173b2"
ORANGE = "#d55e00"
# A curve's name, colour, dash and sign: greyscale tells them apart as well.
LINES = ((BLUE, "", "●"), (ORANGE, ' stroke-dasharray="6 3"', "▲"))

STYLE = (
    TOKEN_STYLE
    + """<style>
.rlino-page{font-size:13px;line-height:1.45;margin:.3em 0}
.rlino-page p{margin:.25em 0;max-width:62em;overflow-wrap:anywhere}
.rlino-page table{border-collapse:collapse;margin:.3em 0;font-variant-numeric:tabular-nums}
.rlino-page th,.rlino-page td{padding:.1em .7em;text-align:right;border-bottom:1px solid #8884}
.rlino-page th:first-child,.rlino-page td:first-child,.rlino-search th,.rlino-search td{text-align:left}
.rlino-page .rlino-now{font-weight:700;outline:1px solid currentColor}
.rlino-wide{overflow-x:auto}
.rlino-pair{display:flex;flex-wrap:wrap;gap:.4em 2em;align-items:flex-start}
.rlino-plot{display:block;max-width:100%;height:auto;margin:.2em 0}
.rlino-plot text{font-size:11px;fill:currentColor}
.rlino-graph{overflow:auto;max-height:46em;margin:.4em 0}
.rlino-graph:focus-visible{outline:2px solid #1f77d0}
.rlino-graph svg,.rlino-graph img{display:block;max-width:none}
</style>"""
)


def section(body: str, label: str, kind: str = "rlino-page") -> str:
    """A part of a page by its class; `body` and `label` are safe HTML."""
    return f'<section class="{kind} mathjax_ignore" aria-label="{label}">{body}</section>'


def page(body: str, label: str, kind: str = "rlino-page") -> Html:
    """A section with the styles that it needs; `body` and `label` are safe HTML."""
    return Html(STYLE + section(body, label, kind))


def folds(pages: Iterable[tuple[str, str]], opened: int = 0) -> Html:
    """Titles (any text) and pages (safe HTML) as folds, one of them open."""
    parts = [
        f"<details{' open' if k == opened else ''}><summary><strong>{escape_line(title)}</strong></summary>"
        f"{content}</details>"
        for k, (title, content) in enumerate(pages)
    ]
    return Html("".join(parts))


def frame_table(
    frame: pd.DataFrame, now: object = None, *, column: object = None, index: bool = True, current: str = "true"
) -> str:
    """A frame of text as a table whose first column is its index, unless `index` is False.

    The row `now` and the column `column` are marked; `current` says what as (the values of aria-current).
    """

    def cell(tag: str, text: object, marked: bool = False) -> str:
        return f"<{tag}{mark if marked else ''}>{html.escape(str(text))}</{tag.split()[0]}>"

    mark = f' class="rlino-now" aria-current="{current}"'
    corner = cell('th scope="col"', frame.index.name or "") if index else ""
    head = corner + "".join(cell('th scope="col"', name, name == column) for name in frame.columns)
    rows = []
    for name, values in zip(frame.index, frame.to_numpy(), strict=True):
        line = cell('th scope="row"', name) if index else ""
        line += "".join(cell("td", value, c == column) for c, value in zip(frame.columns, values, strict=True))
        rows.append(f"<tr{mark if name == now else ''}>{line}</tr>")
    body = "".join(rows)
    return f'<div class="rlino-wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


# --- drawings --------------------------------------------------------------------------------------------------------


def svg_html(body: str, width: int, height: int, alt: str, css: str = "rlino-plot") -> str:
    """An SVG drawing of `width` × `height` pixels; `body` is safe SVG, `alt` describes it, `css` is its class."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{css}" role="img" aria-label="{alt}" width="{width}" '
        f'height="{height}" viewBox="0 0 {width} {height}">{body}</svg>'
    )


def drawing_html(body: str, width: int, height: int, alt: str, what: str, image: bool, css: str) -> str:
    """An SVG drawing in a box that scrolls by keyboard. As an `image` it also shows where a page strips SVG.

    `what` names the box; the other arguments are those of `svg_html`.
    """
    drawing = svg_html(body, width, height, alt, css)
    if image:
        data = base64.b64encode(drawing.encode()).decode()
        drawing = f'<img alt="Drawing, {alt}" style="background:#fff" src="data:image/svg+xml;base64,{data}">'
    return f'<div class="rlino-graph" tabindex="0" role="group" aria-label="{what}, scrollable">{drawing}</div>'


def upright(x: float, top: float, bottom: float) -> str:
    """A dotted vertical line, for what is chosen."""
    return f'<path d="M{x:.1f} {top}V{bottom}" stroke="currentColor" stroke-width="1.5" stroke-dasharray="2 2"/>'


def line_svg(points: list[tuple[float, float]], colour: str, dash: str) -> str:
    """A line through points."""
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'


def sides_svg(curves: pd.DataFrame, p: float, caption: str, alt: str) -> str:
    """The columns right and wrong against p, the index: solid with circles, dashed with triangles; p is marked."""
    top = float(curves[["right", "wrong"]].abs().max(axis=None))
    flat = top < 1e-9
    left, width, zero, reach = 60, 250, 94, 80
    parts = []
    for y, text in ((zero - reach, number(top)), (zero, "0"), (zero + reach, number(-top))):
        parts.append(f'<path d="M{left} {y}H{left + width}" stroke="#8886"/>')
        if y == zero or not flat:
            parts.append(f'<text x="{left - 5}" y="{y + 4}" text-anchor="end">{text}</text>')
    parts.append(upright(left + width * p, zero - reach - 4, zero + reach + 6))
    for side, (colour, dash, sign) in zip(("right", "wrong"), LINES, strict=True):
        shares = curves.index[:: max(1, len(curves) // 10)]
        place = {x: (left + width * x, zero - (0 if flat else reach * y / top)) for x, y in curves[side].items()}
        parts.append(line_svg(list(place.values()), colour, dash))
        for share in shares:
            x, y = place[share]
            size = 5 if share == p else 3
            dot = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}"'
            if sign == "▲":
                dot = f'<path d="M{x:.1f} {y - size:.1f}l{size} {1.8 * size:.1f}h{-2 * size}z"'
            parts.append(f'{dot} fill="{colour}"/>')
    parts.append(
        f'<text x="{left}" y="196">p = 0</text><text x="{left + width}" y="196" text-anchor="end">1</text>'
        f'<text x="{left + width / 2}" y="214" text-anchor="middle">{caption}</text>'
    )
    return svg_html("".join(parts), left + width + 16, 222, alt)
