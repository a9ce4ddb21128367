"""The trace inspector: pick a run, a step and a problem, and read the whole group side by side. It needs no kernel.

A source of traces is a run, a DataFrame of rollouts, or `Traces` (see records/traces.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlino_lib.errors import chosen
from rlino_lib.records.traces import (
    Place,
    Row,
    Traces,
    is_false,
    is_true,
    length_of,
    missing,
    named_traces,
    places_of,
    problem_name,
    shorten,
    tokens_of,
    unit_of,
    values_of,
)
from rlino_lib.widgets.page import BUDGET, Control, Meter, Slot, Trace, explorer, message, slot, to_json, trace_box
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


class Colour(NamedTuple):
    """A way to colour tokens by a column of rollouts: its scale, and its name in menus, legends and tooltips."""

    scale: Scale
    menu: str
    label: str
    tip: str


COLOURS = {
    "weights": Colour("diverging", "weight", "weight w of ∇log π; above 0 makes a token likelier:", "w"),
    "logprobs": Colour("sequential", "log-probability", "log-probability when sampled, nats:", "log p"),
    "entropies": Colour("sequential", "entropy", "entropy of the next token, nats:", "entropy"),
    "none": Colour("sequential", "none", "", ""),
}
FOREIGN = '<div class="rlino-legend"><span class="rlino-foreign">dashed</span>: not written by the policy.</div>'
_TESTS = {
    "all": lambda row: True,
    "right": lambda row: is_true(row["correct"]),
    "wrong": lambda row: is_false(row["correct"]),
    "truncated": lambda row: is_true(row["clipped"]),
}
_KEYS = {
    "sample": lambda row: int(row["sample"]),
    "length": lambda row: length_of(row),
    "advantage": lambda row: 1e9 if missing(row["advantage"]) else -max(-1e9, min(1e9, float(row["advantage"]))),
}
SHOWS = tuple(_TESTS)
SORTS = tuple(_KEYS)

# --- what pages of one run and of two share --------------------------------------------------------------------------


def verdict(row: Row) -> tuple[str, str]:
    """CSS class and words."""
    if is_true(row["correct"]):
        return "right", "✓ right"
    return ("wrong", "✗ wrong") if is_false(row["correct"]) else ("ungraded", "? not graded")


def answer_html(row: Row) -> str:
    """The answer that the grader read."""
    return "<em>none</em>" if missing(row["answer"]) else f"<code>{escape_line(row['answer'], 2000)}</code>"


def reason_html(row: Row) -> str:
    """What the grader says."""
    return "–" if missing(row["reason"]) else escape_line(row["reason"], 2000)


def colour_control(colour: str) -> Control:
    """The menu of colours. Raises RlinoError for an unknown one."""
    names = {name: look.menu for name, look in COLOURS.items()}
    return Control("colour", "Colour by", names, chosen(colour, COLOURS, "colour"), act="colour")


def colours_of(rows: Iterable[Row], colour: str) -> tuple[dict[str, float], str]:
    """One scale for all these responses, {column: value of full colour}, and the legends, `colour`'s to be seen.

    Full colour is the largest size, or on one-sided scales the 98th percentile, so that one token cannot fade all.
    """
    rows = list(rows)
    limits, legends = {}, []
    if any(1 in (values_of(row, "foreign") or ()) for row in rows):
        legends.append(FOREIGN)
    for column, look in COLOURS.items():
        values = [v for row in rows for v in values_of(row, column) or ()]
        sizes = [abs(v) for v in values if math.isfinite(v)]
        limits[column] = colour_limit(values)
        if look.scale == "sequential" and sizes:
            limits[column] = float(np.quantile(sizes, 0.98)) or max(sizes)
        text = f"No {look.menu} is recorded here: the tokens are not coloured." if look.label else ""
        legend = legend_html(values, look.scale, limits[column], look.label) if values else text
        legends.append(f'<div data-legend="{column}"{" hidden" * (column != colour)}>{legend}</div>')
    return limits, "".join(legends)


def trace_of(row: Row, limits: dict[str, float], share: int = 1) -> tuple[Trace, str]:
    """A response as the script shows it, and notes on it (safe HTML); `share` responses share the limits of size."""
    tokens, notes = shorten(tokens_of(row), share=share)
    columns: dict[str, tuple[Sequence[float], Scale, float]] = {}
    for column, limit in limits.items():
        if (values := values_of(row, column)) is not None:
            columns[column] = (values[: len(tokens)], COLOURS[column].scale, limit)
    foreign = (values_of(row, "foreign") or [])[: len(tokens)]
    names = {name: look.tip for name, look in COLOURS.items()}
    return Trace(tokens, columns, names, [f == 1 for f in foreign]), notes_html(notes)


# --- one card --------------------------------------------------------------------------------------------------------


def _facts(pairs: Iterable[tuple[str, str]], kind: str = "facts") -> str:
    """Names and values as a definition list; the values are safe HTML. `kind` is its layout."""
    cells = "".join(f"<div><dt>{escape_line(name)}</dt><dd>{value}</dd></div>" for name, value in pairs)
    return f'<dl class="rlino-{kind}">{cells}</dl>'


def _extent(values: Iterable[float], tolerance: float) -> str:
    """The value where all agree up to a relative tolerance, else the lowest and the highest; a dash for none."""
    finite = sorted(filter(math.isfinite, values))
    if not finite:
        return "–"
    low, high = finite[0], finite[-1]
    same = high - low <= tolerance * max(abs(low), abs(high))
    return number(high) if same else f"{number(low)} … {number(high)}"


def _card(row: Row, trace: int, notes: str, longest: int, show: str) -> str:
    """One response."""
    kind, words = verdict(row)
    sample = int(row["sample"])
    length = length_of(row)
    facts = [("reward", number(row["reward"], False)), ("advantage", number(row["advantage"]))]
    weights = values_of(row, "weights")
    if weights and all(map(math.isfinite, weights)):
        facts += [("w per token", _extent(weights, 1e-4)), ("sum of w", number(math.fsum(weights)))]
    read = [("answer", answer_html(row)), ("grader", reason_html(row))]
    kinds = [name for name, test in _TESTS.items() if test(row)]
    keys = to_json({name: key(row) for name, key in _KEYS.items()}).replace('"', "&quot;")
    box = trace_box(trace, f"Response of sample {sample}")
    cut = ' <span class="rlino-chip">✂ truncated</span>' if is_true(row["clipped"]) else ""
    return (
        f'<article class="rlino-card rlino-{kind}" aria-label="sample {sample}, {words[2:]}" '
        f'data-kind="{" ".join(kinds)}" data-keys="{keys}"{" hidden" * (show not in kinds)}>'
        f'<header><span class="rlino-chip">{words}</span>{cut} <strong>{length:,} {unit_of(row)}</strong>'
        f' <span class="rlino-sample">#{sample}</span></header>'
        f'<div class="rlino-length" aria-hidden="true" style="width:{100 * length / max(longest, 1):.0f}%"></div>'
        f"{_facts(facts, 'numbers')}{_facts(read, 'read')}{box}{notes}</article>"
    )


# --- the group -------------------------------------------------------------------------------------------------------


def _advantages(rows: list[Row]) -> list[float]:
    return [float(row["advantage"]) for row in rows if not missing(row["advantage"])]


def _header(rows: list[Row]) -> str:
    """Gold, how many are right, and the advantages."""
    right = [r for r in rows if is_true(r["correct"])]
    wrong = [r for r in rows if is_false(r["correct"])]
    rewards = np.array([float(r["reward"]) for r in rows if not missing(r["reward"])])
    advantages = _advantages(rows)
    gold = rows[0]["gold"]
    facts = [("gold", "–" if missing(gold) else f"<code>{escape_line(gold, 500)}</code>")]
    facts.append(("right", f"{len(right)} of {len(rows)}"))
    if len(rewards):  # the spread is a sample's, as in advantages
        spread = rewards.std(ddof=len(rewards) > 1)
        facts.append(("reward", f"{number(rewards.mean(), False)} ± {number(spread, False)}"))
    if advantages:
        sides = (("right", right), ("wrong", wrong))
        texts = [f"{name} {_extent(_advantages(side), 1e-6)}" for name, side in sides if side]
        facts.append(("advantage", ", ".join(texts)))
    prompt = "" if missing(rows[0]["prompt"]) else str(rows[0]["prompt"])
    short = len(prompt) <= 80 and "\n" not in prompt
    if prompt and short:
        facts.append(("prompt", f"<code>{escape_line(prompt)}</code>"))
    header = _facts(facts)
    if advantages and not any(advantages):
        header += "<p>Every advantage is 0: from this group the update learns nothing.</p>"
    if prompt and not short:
        header += f"<details><summary>Prompt</summary>{box_html(visible(prompt), 'Prompt')}</details>"
    return header


def _group(traces: Traces, step: int, group: int, first: int, start: dict[str, str]) -> tuple[str, list[Trace]]:
    """A group as HTML and its traces, which are numbered from `first`; colours have one scale for the whole group."""
    rows = sorted(traces.rows(step, group), key=_KEYS[start["sort"]])
    limits, legends = colours_of(rows, start["colour"])
    longest = max(map(length_of, rows))
    made = [trace_of(row, limits, len(rows)) for row in rows]
    cards = "".join(
        _card(row, first + k, notes, longest, start["show"])
        for k, (row, (_, notes)) in enumerate(zip(rows, made, strict=True))
    )
    name = f" <small>{escape_line(traces.name)}</small>" if traces.name else ""
    problem = escape_line(problem_name(rows[0]), 200)
    title = f'<p class="rlino-title"><strong>Step {step} · {problem}</strong>{name}</p>'
    return f'{title}{_header(rows)}{legends}<div class="rlino-cards">{cards}</div>', [trace for trace, _ in made]


def trace_inspector(
    runs: Any,
    *,
    step: int | None = None,
    group: int | None = None,
    steps: Sequence[int] | None = None,
    groups: Iterable[int] | None = None,
    colour: str = "weights",
    show: str = "all",
    sort: str = "sample",
    budget: int = BUDGET,
) -> Html:
    """A page to read recorded or live traces: run, step, problem, then the whole group side by side. No kernel needed.

    `runs` is a run, a list of runs, or a DataFrame of rollouts (or a list with such frames). It starts at `step` and
    `group` of the first run (default: its first step, there the first group with right and wrong responses), with this
    colour (weights, logprobs, entropies or none), filter (all, right, wrong or truncated) and order (sample, length or
    advantage). The page holds all `steps` and `groups` that are given; else as many, spread over training, as
    `budget` characters of data have room for. Another run keeps the nearest step, another step the same problem.
    Raises RlinoError for an empty list, a source without the columns, a step or group that is not recorded, or an
    unknown choice.
    """
    start = {
        "colour": colour, "show": chosen(show, SHOWS, "filter"), "sort": chosen(sort, SORTS, "order"),
    }  # fmt: skip
    colour_control(colour)  # raises for an unknown one
    named = named_traces(runs)
    absent = " ".join(source.message for _, source in named if source.message)
    recorded = [source for _, source in named if source.steps]
    if not recorded:
        return message(absent)
    groups = None if groups is None else list(groups)
    places = places_of(recorded, steps, groups)
    first = recorded[0]
    if step is None or (step not in first.steps and group is None):
        step = first.nearest(step) if steps is None else steps[0]
    if group is None:
        group = first.first_mixed(step) if groups is None or step not in (steps or [step]) else groups[0]
    first.rows(step, group)  # raises where there is no such group
    opened = (0, step, group)
    pages: dict[Place, str] = {}
    made: list[Trace] = []
    meter = Meter(budget)
    given = len(steps or ()) * len(recorded)  # these come first, and are there whatever their size
    for k, place in enumerate([opened, *places]):
        if place in pages or (k > given and not meter.room and groups is None):
            continue
        r, at, g = place
        pages[place], new = _group(recorded[r], at, g, len(made), start)
        made += new
        meter.add([pages[place]], new)
    names = dict(enumerate(plain(name, 80) for name, source in named if source.steps))
    problems = {place: plain(recorded[place[0]].title(*place[1:])) for place in pages}
    return _page(names, problems, pages, made, start | {"absent": absent})


def _page(
    names: dict[int, str], problems: dict[Place, str], pages: dict[Place, str], made: list[Trace], start: dict[str, str]
) -> Html:
    """The explorer over the groups that were made; it opens at the first of them."""
    opened = next(iter(pages))
    steps = {s: str(s) for s in sorted({s for _, s, _ in pages})}
    # the most wanted first: it is where another run or step leads that has not the same problem
    wanted = list(dict.fromkeys(problems.values()))
    controls = [
        Control("run", "Run", names),
        Control("step", "Step", steps, opened[1], buttons=True, nearest=True),
        Control("problem", "Problem", sorted(wanted), wanted[0], buttons=True, first=wanted),
        colour_control(start["colour"]),
        Control("show", "Show", SHOWS, start["show"], act="show"),
        Control("sort", "Sort by", SORTS, start["sort"], act="sort"),
    ]
    views = {(r, step, problems[r, step, g]): page for (r, step, g), page in pages.items()}
    notes = f"<p>{escape_line(start['absent'])}</p>" if start["absent"] else ""
    slots = {"group": Slot(("run", "step", "problem"), views)}
    return explorer("Trace inspector", controls, slots, notes + slot("group"), made)
