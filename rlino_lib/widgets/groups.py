"""One group of traces as HTML, with no kernel and no script: the page of the trace inspector.

A source of traces is a run, a DataFrame of rollouts, or `Traces` (see traces.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from rlino_lib.errors import RlinoError
from rlino_lib.widgets.page import STYLE, folds, section
from rlino_lib.widgets.tokens import (
    MAX_CHARACTERS,
    MAX_COLOURED,
    Html,
    Scale,
    colour_limit,
    escape_line,
    legend_html,
    number,
    token_spans,
    trace_box,
    visible,
)
from rlino_lib.widgets.traces import (
    Row,
    Traces,
    as_traces,
    is_false,
    is_true,
    length_of,
    missing,
    problem_name,
    tokens_of,
    unit_of,
    values_of,
)


class Colour(NamedTuple):
    """A way to colour tokens: the rollouts column, its scale, and its name in menus and legends."""

    column: str | None
    scale: Scale
    menu: str
    label: str


COLOURS = {
    "weights": Colour("weights", "diverging", "weight", "weight w of ∇log π; above 0 makes a token likelier:"),
    "logprobs": Colour("logprobs", "sequential", "log-probability", "log-probability when sampled, nats:"),
    "entropies": Colour("entropies", "sequential", "entropy", "entropy of the next token, nats:"),
    "none": Colour(None, "sequential", "none", "no colour"),
}


def chosen(value: str, known: Iterable[str], what: str) -> str:
    """The value, or RlinoError with the names that exist."""
    known = tuple(known)
    if value not in known:
        raise RlinoError(f"unknown {what} {value!r}: one of {', '.join(known)}")
    return value


# --- what pages of one run and of two share --------------------------------------------------------------------------


def message(text: str) -> Html:
    """A page that says why there is nothing to show."""
    return Html(PAGE_STYLE + section(f"<p>{escape_line(text)}</p>", "Message", "rlino-group"))


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


def token_tips(row: Row) -> list[str]:
    """What is known of each token, as the later lines of its tooltip."""
    tips = [f"token {t + 1}" for t in range(len(tokens_of(row)))]
    for name, column in (("w", "weights"), ("log p", "logprobs"), ("entropy", "entropies")):
        if (values := values_of(row, column)) is not None:
            tips = [f"{tip} · {name} {number(v, column == 'weights')}" for tip, v in zip(tips, values, strict=True)]
    return tips


def colours_of(rows: Iterable[Row], colour: Colour) -> tuple[float, str]:
    """One scale for all these responses: the value of full colour, and a legend (safe HTML).

    Full colour is the largest size, or on one-sided scales the 98th percentile, so that one token cannot fade all.
    """
    values = [v for row in rows for v in values_of(row, colour.column) or ()]
    sizes = [abs(v) for v in values if math.isfinite(v)]
    limit = colour_limit(values)
    if colour.scale == "sequential" and sizes:
        limit = float(np.quantile(sizes, 0.98)) or max(sizes)
    if colour.column and values:
        return limit, legend_html(values, colour.scale, limit, colour.label)
    text = f"No {colour.menu} is recorded here: the tokens are not coloured." if colour.column else ""
    return limit, f'<div class="rlino-legend">{text}</div>' if text else ""


# --- one card --------------------------------------------------------------------------------------------------------

# Words, signs and border styles say what the colours say, so the page also reads in greyscale and aloud.
PAGE_STYLE = (
    STYLE
    + """<style>
.rlino-group{line-height:1.45;font-size:13px;margin:.2em 4px .6em 0}
.rlino-group p{margin:0 0 .3em}
.rlino-group p.rlino-title{font-size:1.2em;margin:.1em 0 .3em}
.rlino-title small{font-size:.8em;opacity:.75;margin-left:.5em}
.rlino-group dl.rlino-facts{display:flex;flex-wrap:wrap;gap:.1em 1.4em;margin:0 0 .35em;padding:0}
.rlino-facts>div{display:block;flex:0 0 auto;max-width:100%}
.rlino-group .rlino-facts dt,.rlino-group .rlino-facts dd{display:inline;float:none;width:auto;margin:0;padding:0}
.rlino-group .rlino-facts dt{font-weight:400;opacity:.75;margin-right:.45em;white-space:nowrap}
.rlino-group .rlino-facts dd{font-weight:600;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.rlino-group dd,.rlino-group strong,.rlino-group code{unicode-bidi:isolate}
.rlino-card dl.rlino-numbers{display:grid;grid-template-columns:repeat(4,auto);gap:0 .5em;justify-content:space-between}
.rlino-group .rlino-numbers dt,.rlino-group .rlino-numbers dd{display:block;margin:0}
.rlino-card .rlino-numbers dd{font-size:.95em;white-space:nowrap}
.rlino-card .rlino-numbers dt{font-size:.82em;line-height:1.2}
.rlino-card dl.rlino-words{display:block}
.rlino-group.rlino-group code{background:none;color:inherit;padding:0;font-size:.95em;white-space:pre-wrap}
.rlino-cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,20em),1fr));gap:.55em;margin-top:.45em}
.rlino-card{border:1px solid #8886;border-left:4px solid #888;border-radius:5px;padding:.45em .55em;min-width:0}
.rlino-card.rlino-right{border-left-color:#0a8f68}
.rlino-card.rlino-wrong{border-left:4px dotted #d4611f}
.rlino-card header{display:flex;flex-wrap:wrap;gap:.2em .45em;align-items:center;margin-bottom:.3em;font-size:.92em}
.rlino-chip{border-radius:3px;padding:0 .3em;font-weight:600;background:#e3e3e3;color:#111}
.rlino-right .rlino-chip:first-child{background:#c5e8da;color:#073b2b}
.rlino-wrong .rlino-chip:first-child{background:#fbdcc8;color:#5b1d02}
.rlino-card header>span:last-child{margin-left:auto;opacity:.75}
.rlino-length{height:3px;background:#8883;margin:0 0 .4em;border-radius:2px}
.rlino-length>div{height:3px;background:#888;border-radius:2px}
.rlino-group details{margin:0 0 .35em}
.rlino-group summary{cursor:pointer}
.rlino-group summary:focus-visible{outline:2px solid #1f77d0}
</style>"""
)


def _facts(pairs: Iterable[tuple[str, str]], kind: str = "line") -> str:
    """Names and values as a definition list; the values are HTML. `kind` is its layout."""
    cells = "".join(f"<div><dt>{escape_line(name)}</dt><dd>{value}</dd></div>" for name, value in pairs)
    return f'<dl class="rlino-facts rlino-{kind}">{cells}</dl>'


def _extent(values: Iterable[float], tolerance: float) -> str:
    """The value where all agree up to a relative tolerance, else the lowest and the highest; a dash for none."""
    finite = sorted(filter(math.isfinite, values))
    if not finite:
        return "–"
    low, high = finite[0], finite[-1]
    same = high - low <= tolerance * max(abs(low), abs(high))
    return number(high) if same else f"{number(low)} … {number(high)}"


def _weight_fact(row: Row) -> list[tuple[str, str]]:
    """The weight of a token, where all of them have one, and the sum over the response."""
    weights = values_of(row, "weights")
    if weights is None or not all(map(math.isfinite, weights)):
        return []
    return [("w per token", _extent(weights, 1e-4)), ("sum of w", number(math.fsum(weights)))]


def _card(row: Row, colour: Colour, limit: float, longest: int, share: int) -> str:
    """One response. `limit` is the group's colour limit, `share` the number of cards that share the budgets."""
    kind, words = verdict(row)
    values = values_of(row, colour.column)
    spans, notes = token_spans(
        tokens_of(row),
        values,
        scale=colour.scale,
        limit=limit,
        tips=token_tips(row),
        max_coloured=max(100, MAX_COLOURED // share),
        max_characters=max(10_000, MAX_CHARACTERS // share),
    )
    if colour.column and values is None:
        notes.insert(0, f"No {colour.menu} recorded for each token of this response.")
    sample = int(row["sample"])
    length = length_of(row)
    clipped = '<span class="rlino-chip">✂ clipped</span> ' if is_true(row["clipped"]) else ""
    facts = [("reward", number(row["reward"], False)), ("advantage", number(row["advantage"])), *_weight_fact(row)]
    return (
        f'<article class="rlino-card rlino-{kind}" aria-label="sample {sample}, {words[2:]}">'
        f'<header><span class="rlino-chip">{words}</span> {clipped}<strong>{length:,} {unit_of(row)}</strong>'
        f' <span>#{sample}</span></header><div class="rlino-length" aria-hidden="true">'
        f'<div style="width:{100 * length / max(longest, 1):.0f}%"></div></div>'
        f"{_facts(facts, 'numbers')}{_facts([('answer', answer_html(row)), ('grader', reason_html(row))], 'words')}"
        f"{trace_box(spans, notes, f'Response of sample {sample}')}</article>"
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
    if len(rewards):
        facts.append(("reward", f"{number(rewards.mean(), False)} ± {number(rewards.std(), False)}"))
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
        header += f"<details><summary>Prompt</summary>{trace_box(visible(prompt), (), 'Prompt')}</details>"
    return header


_TESTS = {
    "all": lambda row: True,
    "right": lambda row: is_true(row["correct"]),
    "wrong": lambda row: is_false(row["correct"]),
    "clipped": lambda row: is_true(row["clipped"]),
}
_KEYS = {
    "sample": lambda row: 0,
    "length": length_of,
    "advantage": lambda row: -float(row["advantage"]) if not missing(row["advantage"]) else math.inf,
}
SHOWS = tuple(_TESTS)
SORTS = tuple(_KEYS)


def _section(
    traces: Traces, step: int, group: int, colour: Colour, show: str, sort: str = "sample", titled: bool = True
) -> str:
    """A group as a section, without the styles. Colours are scaled over the whole group, whatever the filter keeps."""
    rows = traces.rows(step, group)
    limit, legend = colours_of(rows, colour)
    kept = sorted(filter(_TESTS[show], rows), key=_KEYS[sort])
    longest = max(map(length_of, rows))
    cards = "".join(_card(r, colour, limit, longest, len(kept)) for r in kept)
    count = "" if show == "all" else f'<p class="rlino-note">Shown: {show}, {len(kept)} of {len(rows)} responses.</p>'
    problem = escape_line(problem_name(rows[0]), 200)
    name = f" <small>{escape_line(traces.name)}</small>" if traces.name else ""
    title = f'<p class="rlino-title"><strong>Step {step} · {problem}</strong>{name}</p>' if titled else ""
    body = f'{title}{_header(rows)}{legend}{count}<div class="rlino-cards">{cards}</div>'
    return section(body, f"Step {step}, problem {problem}", "rlino-group")


def inspector_html(
    source: Any,
    step: int | None = None,
    group: int | None = None,
    colour: str = "weights",
    show: str = "all",
    sort: str = "sample",
) -> Html:
    """One whole group side by side, as HTML that needs no kernel: the inspector shows the same page.

    `source` is a run or a DataFrame of rollouts. The step is the first one and the group the first that has both right
    and wrong responses, unless they are given. `colour` is weights, logprobs, entropies or none; `show` is all, right,
    wrong or clipped; `sort` is sample, length or advantage. A source without rollouts gives a message.
    Raises RlinoError for a step or a group that is not recorded, or an unknown choice.
    """
    look = COLOURS[chosen(colour, COLOURS, "colour")]
    chosen(show, SHOWS, "filter")
    chosen(sort, SORTS, "order")
    traces = as_traces(source)
    if not traces.steps:
        return message(traces.message)
    step = traces.steps[0] if step is None else step
    if group is None and step in traces.steps:
        group = traces.first_mixed(step)
    return Html(PAGE_STYLE + _section(traces, step, group, look, show, sort))


def static_inspector(
    source: Any,
    steps: Iterable[int] | None = None,
    groups: Iterable[int] | None = None,
    colour: str = "weights",
    show: str = "all",
) -> Html:
    """Several groups to flip through without a kernel or a script: one fold each, the first open.

    The steps are the first, the middle and the last, unless they are given; `groups` are the groups of each of these
    steps (by default the first that has both right and wrong responses). Raises RlinoError as `inspector_html` does.
    """
    look = COLOURS[chosen(colour, COLOURS, "colour")]
    chosen(show, SHOWS, "filter")
    traces = as_traces(source)
    if not traces.steps:
        return message(traces.message)
    if steps is None:
        steps = sorted({traces.steps[0], traces.steps[(len(traces.steps) - 1) // 2], traces.steps[-1]})
    groups = None if groups is None else list(groups)
    pages = []
    for step in steps:
        if step not in traces.steps:
            traces.rows(step, 0)  # raises, and says which steps there are
        for group in [traces.first_mixed(step)] if groups is None else groups:
            part = _section(traces, step, group, look, show, titled=False)
            pages.append((f"Step {step} · {traces.title(step, group)}", part))
    label = f"Traces of {escape_line(traces.name)}" if traces.name else "Traces"
    return fold_box(pages, label, f'<p class="rlino-title"><strong>{label}</strong></p>')


def fold_box(pages: list[tuple[str, str]], label: str, head: str = "", opened: int = 0) -> Html:
    """Folds in one box; `label` and `head` are safe HTML."""
    box = f'<div class="rlino-group mathjax_ignore" role="group" aria-label="{label}">'
    return Html(f"{PAGE_STYLE}{box}{head}{folds(pages, opened)}</div>")
