"""The credit explorer (chapter 10): one response several times over, once for each credit, on one scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rlino_lib.errors import RlinoError
from rlino_lib.records.traces import shorten
from rlino_lib.widgets.inspector import FOREIGN, verdict
from rlino_lib.widgets.page import BUDGET, Boxes, Colour, Control, Trace, colour_control, explorer, scales_of, slot
from rlino_lib.widgets.tokens import Html, escape_line, notes_html, number, plain, prompt_html

Response = Mapping[str, Any]
Columns = dict[str, dict[str, list[float]]]  # credits and values by name
_FIELDS = ("prompt", "tokens", "reward", "correct", "credits")
_COLOURS = {
    "credits": Colour("diverging", "advantage", "advantage of a token; above 0 makes it likelier:", "A"),
    "values": Colour("sequential", "value before the step", "value before the step:", "V before"),
}


def _columns(response: Response, k: int) -> Columns:
    """Credits and values by name, as numbers, NaN where there is none. Raises RlinoError for what does not fit."""
    where = f"response {k + 1}"
    if absent := [field for field in _FIELDS if field not in response]:
        raise RlinoError(f"{where} has no {', '.join(absent)}")
    if not isinstance(response["tokens"], Sequence):
        raise RlinoError(f"{where}: tokens must be a list of texts")
    columns: Columns = {column: {} for column in _COLOURS}
    for column, named in columns.items():
        table = response.get(column) or {}
        if not isinstance(table, Mapping):
            raise RlinoError(f"{where}: {column} must be a table of names and a number for each token")
        for name, numbers in table.items():
            try:
                named[name] = [math.nan if v is None else float(v) for v in numbers]
            except (TypeError, ValueError):
                raise RlinoError(f"{where}, {plain(name, 40)}: {column} that are no numbers") from None
            if len(named[name]) != len(response["tokens"]):
                sizes = f"{len(response['tokens'])} tokens but {len(named[name])} {column}"
                raise RlinoError(f"{where}, {plain(name, 40)}: {sizes}")
    foreign = response.get("foreign") or ()
    if len(foreign) not in (0, len(response["tokens"])):
        raise RlinoError(f"{where}: {len(response['tokens'])} tokens but {len(foreign)} marks of who wrote them")
    if not columns["credits"]:
        raise RlinoError(f"{where} has no credits")
    if nameless := [name for name in columns["values"] if name not in columns["credits"]]:
        raise RlinoError(f"{where} has values of {plain(nameless[0], 40)}, which is none of its credits")
    return columns


def _facts(values: Sequence[float], tokens: Sequence[object]) -> str:
    """The token with the largest advantage of a row. No sum: that would count a step once for each of its tokens."""
    finite = {t: abs(v) for t, v in enumerate(values) if math.isfinite(v)}
    if not finite:
        return "no advantages"
    top = max(finite, key=finite.__getitem__)
    if len({values[t] for t in finite}) == 1:
        return f"{number(values[top])} on every token"
    return f"largest {number(values[top])}, token {top + 1}: <code>{escape_line(tokens[top], 40).strip()}</code>"


def _rows(response: Response, columns: Columns, limits: Mapping[str, float], boxes: Boxes) -> str:
    """A response as HTML, a row for each credit."""
    parts = [f"<p><strong>{verdict(response)[1]}</strong>, reward {number(response['reward'], False)}</p>"]
    parts.append(prompt_html(response["prompt"]))
    tokens, notes = shorten(response["tokens"], share=len(columns["credits"]))
    tips = {column: look.tip for column, look in _COLOURS.items()}
    for name, advantages in columns["credits"].items():
        known = {column: columns[column][name] for column in _COLOURS if name in columns[column]}
        looks = {column: (v[: len(tokens)], _COLOURS[column].scale, limits[column]) for column, v in known.items()}
        parts.append(f"<p><strong>{escape_line(name, 80)}</strong>: {_facts(advantages, response['tokens'])}</p>")
        trace = Trace(tokens, looks, tips, list(response.get("foreign") or ())[: len(tokens)])
        parts.append(boxes.add(trace, f"Response under {plain(name, 80)}"))
    return "".join(parts) + notes_html(notes)


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
    numbers = {c: [v for own in columns for values in own[c].values() for v in values] for c in _COLOURS}
    limits, legends = scales_of(_COLOURS, numbers, "credits")
    legends = FOREIGN * any(any(response.get("foreign") or ()) for response in responses) + legends
    pages: dict[tuple[int], str] = {}
    names: dict[int, str] = {}
    boxes = Boxes(budget)
    for k, response in enumerate(responses):
        if k and not boxes.room:
            break
        pages[k,] = _rows(response, columns[k], limits, boxes)
        boxes.count(pages[k,])
        size = f"{len(response['tokens']):,} tokens"
        names[k] = f"{k + 1}: {verdict(response)[1][2:]}, {size}, {plain(response['prompt'], 40)}"
    controls = [Control("response", "Response", names, buttons=True), colour_control(_COLOURS, "credits")]
    rest = len(responses) - len(pages)
    notes = notes_html([f"{rest:,} more responses are left out, for their size."] if rest else [])
    slots = {"rows": (("response",), pages)}
    return explorer("Credit explorer", controls, slots, legends + slot("rows") + notes, boxes.traces)
