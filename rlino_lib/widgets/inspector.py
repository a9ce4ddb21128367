"""The trace inspector: pick a run, a step and a problem, and read the whole group side by side. It needs no kernel.

A source of traces is a run, a DataFrame of rollouts, or `Traces` (see records/traces.py).
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rlino_lib.errors import chosen
from rlino_lib.records import traces as recorded
from rlino_lib.widgets.page import (
    BUDGET,
    Boxes,
    Colour,
    Control,
    Trace,
    colour_control,
    explorer,
    message,
    scales_of,
    slot,
)
from rlino_lib.widgets.tokens import Html, escape_line, notes_html, number, plain, prompt_html

COLOURS = {
    "weights": Colour("diverging", "weight", "weight w of ∇log π; above 0 makes a token likelier:", "w"),
    "logprobs": Colour("sequential", "log-probability", "log-probability when sampled, nats:", "log p"),
    "entropies": Colour("sequential", "entropy", "entropy of the next token, nats:", "entropy"),
    "none": Colour("sequential", "none"),
}
FOREIGN = '<div class="rlino-legend"><span class="rlino-foreign">dashed</span>: not written by the policy.</div>'
_TESTS = {
    "all": lambda row: True,
    "right": lambda row: recorded.is_true(row["correct"]),
    "wrong": lambda row: recorded.is_false(row["correct"]),
    "truncated": lambda row: recorded.is_true(row["clipped"]),
}
_KEYS = {
    "sample": lambda row: int(row["sample"]),
    "length": lambda row: recorded.length_of(row),
    "advantage": lambda row: (
        1e9 if recorded.missing(row["advantage"]) else -max(-1e9, min(1e9, float(row["advantage"])))
    ),
}

# --- what pages of one run and of two share --------------------------------------------------------------------------


def verdict(row: Mapping[str, Any]) -> tuple[str, str]:
    """CSS class and words."""
    if recorded.is_true(row["correct"]):
        return "right", "✓ right"
    return ("wrong", "✗ wrong") if recorded.is_false(row["correct"]) else ("ungraded", "? not graded")


def colours_of(rows: Iterable[recorded.Row], colour: str) -> tuple[dict[str, float], str]:
    """One scale for all these responses, {column: value of full colour}, and the legends, `colour`'s to be seen."""
    rows = list(rows)
    values = {column: [v for row in rows for v in recorded.values_of(row, column) or ()] for column in COLOURS}
    limits, legends = scales_of(COLOURS, values, colour)
    return limits, FOREIGN * any(1 in (recorded.values_of(row, "foreign") or ()) for row in rows) + legends


def boxed(row: recorded.Row, limits: dict[str, float], boxes: Boxes, label: str, share: int = 1) -> str:
    """A response in its box, with notes; `share` responses share the limits of size."""
    tokens, notes = recorded.shorten(recorded.tokens_of(row), share=share)
    known = {column: values for column in limits if (values := recorded.values_of(row, column)) is not None}
    columns = {name: (values[: len(tokens)], COLOURS[name].scale, limits[name]) for name, values in known.items()}
    foreign = [f == 1 for f in recorded.values_of(row, "foreign") or []][: len(tokens)]
    trace = Trace(tokens, columns, {name: look.tip for name, look in COLOURS.items()}, foreign)
    return boxes.add(trace, label) + notes_html(notes)


# --- one card --------------------------------------------------------------------------------------------------------


def _facts(pairs: Iterable[tuple[str, str]], kind: str = "facts") -> str:
    """Names and values as a definition list; the values are safe HTML. `kind` is its layout."""
    cells = "".join(f"<div><dt>{escape_line(name)}</dt><dd>{value}</dd></div>" for name, value in pairs)
    return f'<dl class="rlino-{kind}">{cells}</dl>'


def _extent(values: Iterable[float]) -> str:
    """The value where all agree up to rounding, else the lowest and the highest; a dash for none."""
    finite = [v for v in values if math.isfinite(v)]
    low, high = min(finite, default=math.nan), max(finite, default=math.nan)
    apart = high - low > 1e-4 * max(abs(low), abs(high))
    return f"{number(low)} … {number(high)}" if apart else number(high)


def card(row: recorded.Row, box: str, longest: int) -> str:
    """One response of a group, above its box and its notes; the bar of its length is a share of the `longest`."""
    kind, words = verdict(row)
    sample = int(row["sample"])
    length = recorded.length_of(row)
    facts = [("reward", number(row["reward"], False)), ("advantage", number(row["advantage"]))]
    weights, logprobs = (recorded.values_of(row, column) or [math.nan] for column in ("weights", "logprobs"))
    if all(map(math.isfinite, weights)):
        facts += [("w per token", _extent(weights)), ("sum of w", number(math.fsum(weights)))]
    if all(map(math.isfinite, logprobs)):
        facts.append(("log p", number(math.fsum(logprobs))))
    answer, reason = (None if recorded.missing(row[c]) else escape_line(row[c], 2000) for c in ("answer", "reason"))
    read = [("answer", "<em>none</em>" if answer is None else f"<code>{answer}</code>"), ("grader", reason or "–")]
    kinds = [name for name, test in _TESTS.items() if test(row)]
    keys = html.escape(json.dumps({name: key(row) for name, key in _KEYS.items()}))
    cut = ' <span class="rlino-chip">✂ truncated</span>' if recorded.is_true(row["clipped"]) else ""
    return (
        f'<article class="rlino-card rlino-{kind}" aria-label="sample {sample}, {words[2:]}" '
        f'data-kind="{" ".join(kinds)}" data-keys="{keys}">'
        f'<header><span class="rlino-chip">{words}</span>{cut} <strong>{length:,} {recorded.unit_of(row)}</strong>'
        f' <span class="rlino-sample">#{sample}</span></header>'
        f'<div class="rlino-length" aria-hidden="true" style="width:{100 * length / max(longest, 1):.0f}%"></div>'
        f"{_facts(facts, 'numbers')}{_facts(read, 'read')}{box}</article>"
    )


# --- the group -------------------------------------------------------------------------------------------------------


def _advantages(rows: list[recorded.Row]) -> list[float]:
    return [float(row["advantage"]) for row in rows if not recorded.missing(row["advantage"])]


def _header(rows: list[recorded.Row]) -> str:
    """Gold, how many are right, and the advantages."""
    right = [r for r in rows if recorded.is_true(r["correct"])]
    wrong = [r for r in rows if recorded.is_false(r["correct"])]
    rewards = np.array([float(r["reward"]) for r in rows if not recorded.missing(r["reward"])])
    advantages = _advantages(rows)
    gold = rows[0]["gold"]
    facts = [("gold", "–" if recorded.missing(gold) else f"<code>{escape_line(gold, 500)}</code>")]
    facts.append(("right", f"{len(right)} of {len(rows)}"))
    if len(rewards):  # the deviation is a sample's, as in advantages
        deviation = rewards.std(ddof=len(rewards) > 1)
        facts.append(("reward", f"{number(rewards.mean(), False)} ± {number(deviation, False)}"))
    if advantages:
        sides = (("right", right), ("wrong", wrong))
        texts = [f"{name} {_extent(_advantages(side))}" for name, side in sides if side]
        facts.append(("advantage", ", ".join(texts)))
    header = _facts(facts)
    if advantages and not any(advantages):
        header += "<p>Every advantage is 0: from this group the update learns nothing.</p>"
    prompt = rows[0]["prompt"]
    return header if recorded.missing(prompt) or prompt == "" else header + prompt_html(prompt)


def _group(traces: recorded.Traces, step: int, group: int, boxes: Boxes, colour: str) -> str:
    """A group as HTML; colours have one scale for the whole group."""
    rows = traces.rows(step, group)
    limits, legends = colours_of(rows, colour)
    longest = max(map(recorded.length_of, rows))
    made = [boxed(row, limits, boxes, f"Response of sample {row['sample']:.0f}", len(rows)) for row in rows]
    cards = "".join(card(row, box, longest) for row, box in zip(rows, made, strict=True))
    name = f" <small>{escape_line(traces.name)}</small>" if traces.name else ""
    title = f"<strong>Step {step} · {escape_line(recorded.problem_name(rows[0]), 200)}</strong>{name}"
    return f'<p class="rlino-title">{title}</p>{_header(rows)}{legends}<div class="rlino-cards">{cards}</div>'


def trace_inspector(
    runs: Any, step: int | None = None, group: int | None = None, *, steps: Sequence[int] | None = None,
    groups: Iterable[int] | None = None, colour: str = "weights", budget: int = BUDGET,
) -> Html:  # fmt: skip
    """A page to read recorded or live traces: run, step, problem, then the whole group side by side. No kernel needed.

    `runs` is a run, a list of runs, or a DataFrame of rollouts (or a list with such frames). It starts at `step` and
    `group` of the first run (default: its first step, there the first group with right and wrong responses), with this
    colour (weights, logprobs, entropies or none); menus filter and sort the responses. The page holds all `steps` and
    `groups` that are given; else as many, spread over training, as `budget` characters of data have room for. Another
    run keeps the nearest step, another step the same problem. Raises RlinoError for an empty list, a source without
    the columns, a step or group that is not recorded, or an unknown colour.
    """
    chosen(colour, COLOURS, "colour")
    named = recorded.named_traces(runs)
    absent = " ".join(source.message for _, source in named if source.message)
    sources = [source for _, source in named if source.steps]
    if not sources:
        return message(absent)
    groups = None if groups is None else list(groups)
    places = recorded.places_of(sources, steps, groups)
    first = sources[0]
    if step is None or (step not in first.steps and group is None):
        step = first.nearest(step) if steps is None else steps[0]
    if group is None:
        group = first.first_mixed(step) if groups is None or step not in (steps or [step]) else groups[0]
    pages: dict[recorded.Place, str] = {}
    boxes = Boxes(budget)
    given = len(steps or ()) * len(sources)  # these come first, and are there whatever their size
    for k, place in enumerate([(0, step, group), *places]):
        if place not in pages and (k <= given or boxes.room or groups is not None):
            pages[place] = _group(sources[place[0]], *place[1:], boxes, colour)
            boxes.count(pages[place])
    names = dict(enumerate(plain(name, 80) for name, source in named if source.steps))
    problems = {place: plain(sources[place[0]].title(*place[1:])) for place in pages}
    # the most wanted first: it is where another run or step leads that has not the same problem
    wanted = list(dict.fromkeys(problems.values()))
    numbers = {at: str(at) for at in sorted({at for _, at, _ in pages})}
    controls = [
        Control("run", "Run", names),
        Control("step", "Step", numbers, step, buttons=True, nearest=True),
        Control("problem", "Problem", sorted(wanted), wanted[0], buttons=True, first=wanted),
        colour_control(COLOURS, colour),
        Control("show", "Show", list(_TESTS), act="show"),
        Control("sort", "Sort by", list(_KEYS), act="sort"),
    ]
    views = {(r, at, problems[r, at, g]): page for (r, at, g), page in pages.items()}
    notes = f"<p>{escape_line(absent)}</p>" if absent else ""
    slots = {"group": (("run", "step", "problem"), views)}
    return explorer("Trace inspector", controls, slots, notes + slot("group"), boxes.traces)
