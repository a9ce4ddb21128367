"""Tokens as coloured text: plain HTML with no script and no kernel, for text that may be hostile.

Model output is untrusted. Every character goes through `visible`, which escapes HTML and shows control characters.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Literal

from rlino_lib.errors import RlinoError
from rlino_lib.records.traces import shorten, shortened

Scale = Literal["diverging", "sequential"]

_TIP = 60  # characters of a token that its tooltip repeats


class Html(str):
    """HTML source that a notebook shows as HTML. Its repr is one short line, the same at every run."""

    def _repr_html_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return f"<Html, {len(self):,} characters>"


# --- text ------------------------------------------------------------------------------------------------------------

# A code for control characters (an ESC or a NUL never reaches the page), for what is invisible, and for what turns the
# direction of the text around it; the replacement character for half of a surrogate pair.
_RANGES = (range(32), range(0x7F, 0xA0), range(0x202A, 0x202F), range(0x2066, 0x206A))
_HIDDEN = (*chain(*_RANGES), 0x061C, 0x200B, 0x200E, 0x200F, 0x2028, 0x2029, 0x2060, 0xFEFF)
_VISIBLE: dict[int, str] = {c: f"⟨U+{c:04X}⟩" for c in _HIDDEN} | {9: "⇥\t", 10: "↵\n"}
_VISIBLE |= dict.fromkeys(range(0xD800, 0xE000), "\ufffd")


def plain(text: object, limit: int | None = None) -> str:
    """Any value as one line of text that is safe to show, not escaped: for menus. Shortened to `limit` characters."""
    text = str(text)
    return printable(text if limit is None else shortened(text, limit)).replace("\n", "").replace("\t", "")


def visible(text: object) -> str:
    """Any value as escaped HTML text. Line breaks stay, after a ↵; it belongs in an element that keeps white space."""
    return html.escape(printable(text))


def escape_line(text: object, limit: int | None = None) -> str:
    """`plain`, escaped: for attributes and for lines of prose."""
    return html.escape(plain(text, limit))


def printable(text: object) -> str:
    """Any value as text whose control characters are visible, not escaped; line breaks stay, after a ↵."""
    return str(text).translate(_VISIBLE)


def number(value: object, sign: bool = True) -> str:
    """A number at three significant digits with a real minus sign; a dash for None and NaN."""
    value = _float(value)
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return ("−" if value < 0 else "+" if sign else "") + "∞"
    return f"{value:{'+' if sign and value else ''}.3g}".replace("-", "−")


def _float(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan


# --- colour ----------------------------------------------------------------------------------------------------------

# Blue above 0, orange below, violet for one-sided values. The value sets the opacity, so that small values stay faint
# on light and on dark pages. The text keeps the page's own colour; at full strength its contrast is 5 or more on both.
# Marks of the colour steps; steps, so that the last digit of a value cannot change the page.
ABOVE, BELOW, SIZE = "12345678", "abcdefgh", "ABCDEFGH"
_HUES = {ABOVE: "0,114,178", BELOW: "213,94,0", SIZE: "112,60,190"}
COLOURS = {
    mark: f"rgba({hue},{0.06 + 0.54 * k / len(marks):.2f})"
    for marks, hue in _HUES.items()
    for k, mark in enumerate(marks, 1)
}


def colour_limit(values: Iterable[object]) -> float:
    """The size of the largest finite value, 0 where there is none."""
    return max((abs(v) for v in map(_float, values) if math.isfinite(v)), default=0.0)


def mark_of(value: float, scale: Scale, limit: float) -> str:
    """The mark of a value's colour in COLOURS, a dot for no colour."""
    if math.isnan(value) or limit <= 0:
        return "."
    marks = SIZE if scale == "sequential" else BELOW if value < 0 else ABOVE
    # rounds up, so that what is not 0 shows, but forgives half a percent, so that rounding noise does not
    level = math.ceil(len(marks) * (min(abs(value) / limit, 1.0) - 0.005))
    return f".{marks}"[max(level, 0)]


def colour_style(value: float, scale: Scale, limit: float) -> str:
    """The style of an element for a value, empty for no colour."""
    mark = mark_of(value, scale, limit)
    return f"background-color:{COLOURS[mark]}" if mark in COLOURS else ""


def token_spans(
    tokens: Sequence[str], values: Sequence[object] | None = None, *, scale: Scale = "diverging",
    limit: float | None = None, tips: Sequence[str] = (), foreign: Sequence[float] = (),
) -> str:  # fmt: skip
    """The tokens as HTML without the box around them (see `tokens_html`); below 0 a token is a `u`, so underlined.

    `tips` are second lines of tooltips; `foreign` is 1 for tokens that the policy did not write, which get a dashed
    frame.
    """
    numbers = [] if values is None else [_float(v) for v in values]
    limit = colour_limit(numbers) if limit is None else limit
    spans = []
    for t, text in enumerate(tokens):
        value = numbers[t] if t < len(numbers) else math.nan
        style = colour_style(value, scale, limit)
        tip = f"“{plain(text, _TIP)}”" + (f", {len(text):,} characters" if len(text) > _TIP else "")
        tip += f"\n{tips[t]}" if t < len(tips) else ""
        attributes = f'title="{html.escape(tip)}"' + (f' style="{style}"' if style else "")
        attributes += ' class="rlino-foreign"' if t < len(foreign) and foreign[t] else ""
        name = "u" if style and scale == "diverging" and value < 0 else "span"
        spans.append(f"<{name} {attributes}>{visible(text)}</{name}>")
    return "".join(spans)


# --- the box ---------------------------------------------------------------------------------------------------------

STYLE = f"<style>{Path(__file__).with_name('tokens.css').read_text(encoding='utf-8')}</style>"


def box_html(content: str, label: str, kind: str = "", data: str = "") -> str:
    """A scrollable box for tokens, reachable from the keyboard; `label` is any text, the rest is safe."""
    css = f"rlino-trace {kind}".strip()
    return f'<pre class="{css}" tabindex="0" role="group" aria-label="{escape_line(label)}"{data}>{content}</pre>'


def prompt_html(prompt: object) -> str:
    """A prompt: a short one as a line, another one to be opened."""
    text = str(prompt)
    if len(text) <= 80 and "\n" not in text:
        return f"<p>prompt <code>{escape_line(text)}</code></p>"
    return f"<details><summary>Prompt</summary>{box_html(visible(text), 'Prompt')}</details>"


def notes_html(notes: Iterable[str]) -> str:
    """Notes below a box."""
    return "".join(f'<p class="rlino-note">{escape_line(note)}</p>' for note in notes)


def legend_html(values: Iterable[object], scale: Scale, limit: float | None = None, label: str = "value") -> str:
    """One line that says what the colours mean: both ends with their numbers, and the second sign for below 0."""
    numbers = [_float(v) for v in values]
    finite = [v for v in numbers if math.isfinite(v)]
    limit = colour_limit(finite) if limit is None else limit
    name = f"<strong>{escape_line(label)}</strong>"
    if not finite:
        return f'<div class="rlino-legend">{name} has no finite value here: the tokens are not coloured.</div>'
    if limit <= 0 or not any(finite):
        return f'<div class="rlino-legend">{name} is 0 on every token: the tokens are not coloured.</div>'
    beyond = any(abs(v) > limit for v in finite)
    if scale == "sequential":
        end = number(-limit if min(finite) < 0 else limit, sign=False) + (" and beyond" if beyond else "")
        return f'<div class="rlino-legend">{name} 0 {_swatches(SIZE)} {end}</div>'
    low, high = number(-limit), number(limit)
    more = ", stronger ones alike" if beyond else ""
    ramp = f"{low} {_swatches(BELOW[::-1])} 0 {_swatches(ABOVE)} {high}"
    return f'<div class="rlino-legend">{name} {ramp} <span>(<u>underlined</u>: below 0{more})</span></div>'


def _swatches(marks: str) -> str:
    name = "u" if marks[0] in BELOW else "span"
    cells = "".join(f'<{name} style="background-color:{COLOURS[mark]}">&nbsp;&nbsp;</{name}>' for mark in marks[::2])
    return f'<span aria-hidden="true">{cells}</span>'


def tokens_html(
    tokens: Sequence[object], values: Sequence[object] | None = None, *, scale: Scale = "diverging",
    limit: float | None = None, title: str | None = None, label: str = "value", tips: Sequence[str] | None = None,
) -> Html:  # fmt: skip
    """Tokens as text, each coloured by its value, with token and value in a tooltip.

    `values` has one number per token (a list, an array or a tensor on the CPU; None or NaN leaves a token uncoloured).
    The diverging scale shows sign and size, blue above 0, orange and underlined below; the sequential scale shows the
    size alone, for values of one sign such as entropies. `limit` is the size at which the colour is full (the largest
    finite value by default): give several texts the same one to compare them. `label` names the values in the legend
    and the tooltips; `tips` replaces the tooltips' second line. Escapes everything; the same input gives the same text.
    Raises RlinoError for an unknown scale, a limit that is no positive number, or lengths that differ.
    """
    if scale not in ("diverging", "sequential"):
        raise RlinoError(f"unknown colour scale {scale!r}: diverging or sequential")
    if limit is not None and not (math.isfinite(limit) and limit > 0):
        raise RlinoError(f"the colour limit is a positive number, not {limit}")
    for column, what in ((values, "values"), (tips, "tips")):
        if column is not None and len(column) != len(tokens):
            raise RlinoError(f"{len(tokens)} tokens but {len(column)} {what}")
    texts, notes = shorten(tokens)
    tips = [f"{label} {number(v)}" for v in (() if values is None else values)] if tips is None else tips
    spans = token_spans(texts, values, scale=scale, limit=limit, tips=tips)
    caption = f"<figcaption>{escape_line(title)}</figcaption>" if title else ""
    legend = legend_html(values, scale, limit, label) if values is not None else ""
    box = box_html(spans, title or "tokens") + notes_html(notes)
    return Html(f'{STYLE}<figure class="rlino-tokens mathjax_ignore">{caption}{legend}{box}</figure>')
