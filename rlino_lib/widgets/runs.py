"""The run comparer (chapter 07): two runs on the same problem, their curves, their groups and two responses.

A source is a run, a DataFrame of rollouts, or `Traces` (see records/traces.py). Runs of one seed sample the same
problems with the same random numbers, so that their responses part only where their policies do.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from rlino_lib.analysis import pairs
from rlino_lib.errors import RlinoError
from rlino_lib.figures.style import in_order, label
from rlino_lib.records.runs import seed_words
from rlino_lib.records.traces import (
    Row,
    Traces,
    as_traces,
    is_true,
    length_of,
    problem_name,
    spread,
    tokens_of,
    unit_of,
    values_of,
)
from rlino_lib.widgets.inspector import answer_html, colour_control, colours_of, reason_html, trace_of, verdict
from rlino_lib.widgets.page import BUDGET, Control, Meter, Slot, Trace, explorer, plot_svg, slot, trace_box
from rlino_lib.widgets.tokens import Html, escape_line, number, plain

SIDES = ("A", "B")


# --- parts of the page -----------------------------------------------------------------------------------------------


def _curves_svg(a: Any, b: Any) -> str:
    """Both held-out accuracies over training."""
    one = pairs.held_out_accuracy(a)
    other = pairs.held_out_accuracy(b)
    if one is None or other is None:
        return ""
    curves = pd.DataFrame({"A": one, "B": other})
    top = float(curves.max(axis=None)) or 1.0
    last = curves.index.max()
    curves.index = curves.index / last
    caption = "share right, held out, over training: A solid with circles, B dashed with triangles"
    levels = {top: f"{top:.0%}", 0.0: "0%"}
    return f"<p>{caption}</p>{plot_svg(curves, levels, ('step 0', str(last)), caption, size=(360, 68))}"


def _group_row(rows: list[Row], sample: int) -> str:
    """A group in a line: a sign and the length for each response, the one that is shown in bold."""
    cells = [f"{verdict(row)[1][0]}{'✂' * is_true(row['clipped'])} {length_of(row)}" for row in rows]
    cells[sample] = f"<strong>[{cells[sample]}]</strong>"
    right = sum(is_true(row["correct"]) for row in rows)
    mean = sum(map(length_of, rows)) / len(rows)
    return f"{', '.join(cells)}; {right} of {len(rows)} right, mean length {mean:.1f}"


def _response(row: Row, side: str, group: str, trace: int, notes: str) -> str:
    """One response with its facts, below its group."""
    facts = [verdict(row)[1] + (", truncated" if is_true(row["clipped"]) else "")]
    facts.append(f"{length_of(row):,} {unit_of(row)}, advantage {number(row['advantage'])}")
    if (logprobs := values_of(row, "logprobs")) is not None:
        facts[-1] += f", log p {number(math.fsum(logprobs))}"
    text = f"{html.escape('; '.join(facts))}<br>answer {answer_html(row)}; grader: {reason_html(row)}"
    return f"<p>{group}</p><p>{text}</p>{trace_box(trace, f'Response of {side}')}{notes}"


def _start_html(a: Row, b: Row) -> str:
    """Where two responses part, in words, and for the script, which draws a bar there."""
    start = pairs.same_start(a, b)
    if all(start == len(tokens_of(row)) for row in (a, b)):
        return '<p data-part="-1">They are the same, token for token.</p>'
    text = f"They agree for {start} token{'s' * (start > 1)}; a double bar stands where they part."
    text = text if start else "They differ from the first token on."
    return f'<p data-part="{start or -1}">{text}</p>'


# --- the comparer ----------------------------------------------------------------------------------------------------


class _Pages:
    """What the comparer shows, by methods, steps, names of problems and numbers of responses."""

    def __init__(self, traces: Mapping[str, Traces], colour: str) -> None:
        self.traces = traces
        self.colour = colour
        self.heads: dict[tuple, str] = {}  # (step, problem)
        self.responses: dict[tuple, str] = {}  # (method, step, problem, response)
        self.starts: dict[tuple, str] = {}  # (a, b, step, problem, response)
        self.made: list[Trace] = []

    def add(self, step: int, name: str, methods: list[str]) -> tuple[list[str], list[Trace]]:
        """The pages of a problem at a step, for the methods that have it; what is new."""
        groups = {m: self.traces[m].rows(step, self.traces[m].find(step, name) or 0) for m in methods}
        every = [row for rows in groups.values() for row in rows]
        limits, legends = colours_of(every, self.colour)
        title = plain(problem_name(every[0]), 60)
        head = f'<p class="rlino-title"><strong>Step {step} · {escape_line(title)}</strong></p>'
        self.heads[step, title] = head + legends
        size = min(map(len, groups.values()))
        first = len(self.made)
        pages = []
        for (m, rows), i in itertools.product(groups.items(), range(size)):
            trace, notes = trace_of(rows[i], limits, len(every))
            pages.append(_response(rows[i], label(m), _group_row(rows, i), len(self.made), notes))
            self.responses[m, step, title, i] = pages[-1]
            self.made.append(trace)
        for (m, rows), (n, others), i in itertools.product(groups.items(), groups.items(), range(size)):
            self.starts[m, n, step, title, i] = _start_html(rows[i], others[i])
        return pages, self.made[first:]


def run_comparer(
    runs: Iterable[Any],
    a: str = "grpo",
    b: str | None = None,
    seed: int | None = None,
    colour: str = "weights",
    budget: int = BUDGET,
) -> Html:
    """Two methods on the same problem at the same step: curves, both groups, and one response of each side by side.

    For runs of one task and seed; the first such of methods a and b, unless `seed` is given. It starts at the last step
    that a and b share, at the problem on which they differ most; it has as many steps, spread over training, as
    `budget` characters of data have room for. Raises RlinoError where no two runs share task and seed, for two runs
    of one method, task and seed, where the two have no problem in common, and for an unknown colour.
    """
    colours = colour_control(colour)
    key, group = pairs.runs_of_a_seed(runs, a, b, seed)
    by_method = {method: group[method] for method in in_order(group)}
    methods = list(by_method)
    a = a if a in methods else methods[0]
    b = b if b in methods and b != a else next(m for m in methods if m != a)
    traces = {m: as_traces(run) for m, run in by_method.items()}
    common = pairs.shared_steps(traces[a], traces[b])
    if not common:
        text = traces[a].message or traces[b].message
        raise RlinoError(text or f"{label(a)} and {label(b)} have no problem in common at any step")
    pages = _Pages(traces, colour)
    steps = common[-1:] + [step for step in spread(common) if step != common[-1]]
    meter = Meter(budget)
    for step in steps:
        if pages.made and not meter.room:
            break
        names = pairs.shared(traces[a], traces[b], step)
        worst = pairs.most_different(traces[a], traces[b], step)
        name = names[worst].problem
        having = [m for m, source in traces.items() if step in source.steps and source.find(step, name) is not None]
        meter.add(*pages.add(step, name, having))
    return _page(key, by_method, pages, (a, b, common[-1]), colours)


def _page(
    key: pairs.Key, by_method: Mapping[str, Any], pages: _Pages, start: tuple[str, str, int], colours: Control
) -> Html:
    """The explorer over the pages that were made."""
    names = {m: plain(label(m), 40) for m in by_method}
    steps = sorted({step for step, _ in pages.heads})
    problems = list(dict.fromkeys(problem for _, problem in pages.heads))
    size = 1 + max(place[-1] for place in pages.responses)
    controls = [
        Control("a", "A", names, start[0], buttons=True),
        Control("b", "B", names, start[1], buttons=True),
        Control("step", "Step", {s: str(s) for s in steps}, start[2], buttons=True, nearest=True),
        Control("problem", "Problem", problems),
        Control("response", "Response", {k: str(k + 1) for k in range(size)}, buttons=True),
        colours,
    ]
    curves = {
        (one, other): _curves_svg(by_method[one], by_method[other])
        for one, other in itertools.product(by_method, repeat=2)
    }
    slots = {
        "head": Slot(("step", "problem"), pages.heads),
        "curves": Slot(("a", "b"), curves),
        "start": Slot(("a", "b", "step", "problem", "response"), pages.starts),
    }
    boxes = []
    for x in ("a", "b"):
        slots[f"name_{x}"] = Slot((x,), {(m,): f"{x.upper()}: {escape_line(name)}" for m, name in names.items()})
        slots[f"text_{x}"] = Slot((x, "step", "problem", "response"), pages.responses)
        boxes.append(f"<div><p>{slot(f'name_{x}', 'strong')}</p>{slot(f'text_{x}')}</div>")
    unit = unit_of(next(iter(pages.traces.values())).frame.iloc[0].to_dict())
    note = f'<p class="rlino-note">✓ right, ✗ wrong, ✂ truncated; {unit}. In brackets the response below.</p>'
    title = f"<p>{escape_line(key[0])}, {seed_words(key[1])}</p>"
    body = f"{title}{slot('curves')}{slot('head')}{slot('start')}"
    return explorer(
        "Two runs", controls, slots, f'{body}<div class="rlino-two">{"".join(boxes)}</div>{note}', pages.made
    )
