"""The credit explorer (chapter 10): one response several times over, once for each credit, on one scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Sized
from typing import Any

from rlino_lib.errors import RlinoError
from rlino_lib.records.traces import shorten
from rlino_lib.widgets.page import BUDGET, Control, Meter, Slot, Trace, explorer, slot, trace_box
from rlino_lib.widgets.tokens import (
    Html,
    Scale,
    box_html,
    colour_limit,
    escape_line,
    legend_html,
    notes_html,
    number,
    plain,
    visible,
)

Response = Mapping[str, Any]
_FIELDS = ("prompt", "tokens", "reward", "correct", "credits")
# A column, its scale, and its name in menus, legends and tooltips.
_COLOURS: dict[str, tuple[Scale, str, str, str]] = {
    "credits": ("diverging", "advantage", "advantage of a token; above 0 makes it likelier:", "A"),
    "values": ("sequential", "value before the step", "value before the step:", "V before"),
}


def _columns(response: Response, k: int) -> dict[str, dict[str, list[float]]]:
    """Credits and values by name, as numbers, NaN where there is none. Raises RlinoError for what does not fit."""
    if missing := [field for field in _FIELDS if field not in response]:
        raise RlinoError(f"response {k + 1} has no {', '.join(missing)}")
    if not isinstance(response["tokens"], Sequence):
        raise RlinoError(f"response {k + 1}: tokens must be a list of texts")
    columns: dict[str, dict[str, list[float]]] = {}
    for column in _COLOURS:
        columns[column] = {}
        table = response.get(column) or {}
        if not isinstance(table, Mapping) or not all(isinstance(row, Sized) for row in table.values()):
            raise RlinoError(f"response {k + 1}: {column} must be a table of names and a number for each token")
        for name, given in table.items():
            if len(given) != len(response["tokens"]):
                sizes = f"{len(response['tokens'])} tokens but {len(given)} {column}"
                raise RlinoError(f"response {k + 1}, {plain(name, 40)}: {sizes}")
            try:
                columns[column][name] = [math.nan if v is None else float(v) for v in given]
            except (TypeError, ValueError):
                raise RlinoError(f"response {k + 1}, {plain(name, 40)}: {column} that are no numbers") from None
    if not columns["credits"]:
        raise RlinoError(f"response {k + 1} has no credits")
    if nameless := [name for name in columns["values"] if name not in columns["credits"]]:
        raise RlinoError(f"response {k + 1} has values of {plain(nameless[0], 40)}, which is none of its credits")
    return columns


def _facts(values: Sequence[float], tokens: Sequence[object]) -> str:
    """The token with the largest advantage of a row. No sum: that would count a step once for each of its tokens."""
    finite = [(abs(v), t) for t, v in enumerate(values) if math.isfinite(v)]
    if not finite:
        return "no advantages"
    size, top = max(finite, key=lambda pair: (pair[0], -pair[1]))
    if all(v == values[0] for v in values):
        return f"{number(values[0])} on every token" if size else "0 on every token"
    token = escape_line(tokens[top], 40).strip()
    return f"largest {number(values[top])}, token {top + 1}: <code>{token}</code>"


def _rows(
    response: Response, columns: Mapping[str, dict], limits: Mapping[str, float], first: int
) -> tuple[str, list[Trace]]:
    """A response as HTML, a row for each credit, and its traces, which are numbered from `first`."""
    prompt = str(response["prompt"])
    short = len(prompt) <= 80 and "\n" not in prompt
    words = "✓ right" if response["correct"] else "✗ wrong"
    parts = [f"<p><strong>{words}</strong>, reward {number(response['reward'], False)}"]
    parts.append(f"; prompt <code>{escape_line(prompt)}</code></p>" if short else "</p>")
    if not short:
        parts.append(f"<details><summary>Prompt</summary>{box_html(visible(prompt), 'Prompt')}</details>")
    tokens, notes = shorten(response["tokens"], share=len(columns["credits"]))
    traces: list[Trace] = []
    for name, advantages in columns["credits"].items():
        given = {"credits": advantages, "values": columns["values"].get(name, [])}
        looks = {
            column: (given[column][: len(tokens)], scale, limits[column])
            for column, (scale, *_) in _COLOURS.items()
            if given[column]
        }
        parts.append(f"<p><strong>{escape_line(name, 80)}</strong>: {_facts(advantages, response['tokens'])}</p>")
        parts.append(trace_box(first + len(traces), f"Response under {plain(name, 80)}"))
        traces.append(Trace(tokens, looks, {column: tip for column, (*_, tip) in _COLOURS.items()}))
    return "".join(parts) + notes_html(notes), traces


def _legend(column: str, values: Sequence[float], limit: float, opened: bool) -> str:
    scale, _, label, _ = _COLOURS[column]
    text = legend_html(values, scale, limit, label) if values else "No values are given: the tokens are not coloured."
    return f'<div data-legend="{column}"{"" if opened else " hidden"}>{text}</div>'


def credit_explorer(responses: Sequence[Response], budget: int = BUDGET) -> Html:
    """One response at a time, its tokens in a row for each credit, coloured by advantage on one scale for all.

    A response is a mapping with `prompt`, `tokens` [T], `reward`, `correct`, `credits` {name: [T] numbers}, and where
    there are some `values` {the same names: [T] numbers or None}, the value before the step of each token, which
    tooltips and the second colour show. As many responses as `budget` characters have room for; the first always.
    Raises RlinoError for no response, a missing field, and for columns that do not fit the tokens or are no numbers.
    """
    if not responses:
        raise RlinoError("no response to explore: the list is empty")
    columns = [_columns(response, k) for k, response in enumerate(responses)]
    numbers = {
        column: [v for response in columns for values in response[column].values() for v in values]
        for column in _COLOURS
    }
    limits = {column: colour_limit(values) for column, values in numbers.items()}
    pages: dict[tuple[int], str] = {}
    traces: list[Trace] = []
    meter = Meter(budget)
    for k, response in enumerate(responses):
        if k and not meter.room:
            break
        pages[k,], made = _rows(response, columns[k], limits, len(traces))
        traces += made
        meter.add([pages[k,]], made)
    names = {}
    for k in range(len(pages)):
        verdict = "right" if responses[k]["correct"] else "wrong"
        names[k] = f"{k + 1}: {verdict}, {len(responses[k]['tokens']):,} tokens, {plain(responses[k]['prompt'], 40)}"
    controls = [
        Control("response", "Response", names, buttons=True),
        Control("colour", "Colour by", {column: menu for column, (_, menu, *_) in _COLOURS.items()}, act="colour"),
    ]
    legends = "".join(_legend(column, numbers[column], limits[column], column == "credits") for column in _COLOURS)
    rest = len(responses) - len(pages)
    notes = notes_html([f"{rest:,} more responses are left out, for their size."] if rest else [])
    slots = {"rows": Slot(("response",), pages)}
    return explorer("Credit explorer", controls, slots, legends + slot("rows") + notes, traces)
