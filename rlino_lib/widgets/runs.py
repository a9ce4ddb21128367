"""The run comparer (chapter 07): two runs on the same problem, their curves, their groups and two responses.

A source is a run, a DataFrame of rollouts, or `Traces` (see records/traces.py). Runs of one seed sample the same
problems with the same random numbers, so that their responses part only where their policies do.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from rlino_lib.analysis import pairs
from rlino_lib.errors import RlinoError
from rlino_lib.figures.style import in_order, label
from rlino_lib.records import traces as recorded
from rlino_lib.records.runs import seed_words
from rlino_lib.widgets.inspector import COLOURS, boxed, card, colours_of, verdict
from rlino_lib.widgets.page import BUDGET, Boxes, Control, colour_control, explorer, plot_svg, slot
from rlino_lib.widgets.tokens import Html, escape_line, plain

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
    return f"<p>{caption}</p>{plot_svg(curves, levels, {0: 'step 0', 1: str(last)}, caption, size=(360, 68))}"


def _group_row(rows: list[recorded.Row], sample: int) -> str:
    """A group in a line: a sign and the length for each response, the one that is shown in bold."""
    cells = [f"{verdict(row)[1][0]}{'✂' * recorded.is_true(row['clipped'])} {recorded.length_of(row)}" for row in rows]
    cells[sample] = f"<strong>[{cells[sample]}]</strong>"
    right = sum(recorded.is_true(row["correct"]) for row in rows)
    mean = sum(map(recorded.length_of, rows)) / len(rows)
    return f"{', '.join(cells)}; {right} of {len(rows)} right, mean length {mean:.1f}"


def _start_html(a: recorded.Row, b: recorded.Row) -> str:
    """Where two responses part, in words, and for the script, which draws a bar there."""
    start = pairs.same_start(a, b)
    if all(start == len(recorded.tokens_of(row)) for row in (a, b)):
        return '<p data-part="-1">They are the same, token for token.</p>'
    text = f"They agree for {start} token{'s' * (start > 1)}; a double bar stands where they part."
    text = text if start else "They differ from the first token on."
    return f'<p data-part="{start or -1}">{text}</p>'


# --- the comparer ----------------------------------------------------------------------------------------------------


class _Pages:
    """What the comparer shows, by methods, steps, names of problems and numbers of responses."""

    def __init__(self, traces: Mapping[str, recorded.Traces], boxes: Boxes) -> None:
        self.traces = traces
        self.heads: dict[tuple, str] = {}  # (step, problem)
        self.responses: dict[tuple, str] = {}  # (method, step, problem, response)
        self.starts: dict[tuple, str] = {}  # (a, b, step, problem, response)
        self.boxes = boxes

    def add(self, step: int, name: str, methods: list[str]) -> None:
        """The pages of a problem at a step, for the methods that have it."""
        groups = {m: self.traces[m].rows(step, self.traces[m].find(step, name) or 0) for m in methods}
        every = [row for rows in groups.values() for row in rows]
        limits, legends = colours_of(every, "weights")
        longest = max(map(recorded.length_of, every))
        title = plain(recorded.problem_name(every[0]), 60)
        head = f'<p class="rlino-title"><strong>Step {step} · {escape_line(title)}</strong></p>'
        self.heads[step, title] = head + legends
        pages = []
        for i in range(min(map(len, groups.values()))):
            for m, rows in groups.items():
                box = boxed(rows[i], limits, self.boxes, f"Response of {label(m)}", len(every))
                pages.append(f"<p>{_group_row(rows, i)}</p>{card(rows[i], box, longest)}")
                self.responses[m, step, title, i] = pages[-1]
            for m, n in itertools.product(groups, repeat=2):
                self.starts[m, n, step, title, i] = _start_html(groups[m][i], groups[n][i])
        self.boxes.count(*pages)


def run_comparer(
    runs: Iterable[Any], a: str = "grpo", b: str | None = None, seed: int | None = None, budget: int = BUDGET
) -> Html:
    """Two methods on the same problem at the same step: curves, both groups, and one response of each side by side.

    For runs of one task and seed; the first such of methods a and b, unless `seed` is given. It starts at the last step
    that a and b share, at the problem on which they differ most; it has as many steps, spread over training, as
    `budget` characters of data have room for. Raises RlinoError where no two runs share task and seed, for two runs
    of one method, task and seed, and where the two have no problem in common.
    """
    key, group = pairs.runs_of_a_seed(runs, a, b, seed)
    by_method = {method: group[method] for method in in_order(group)}
    methods = list(by_method)
    a = a if a in methods else methods[0]
    b = b if b in methods and b != a else next(m for m in methods if m != a)
    traces = {m: recorded.as_traces(run) for m, run in by_method.items()}
    common = pairs.shared_steps(traces[a], traces[b])
    if not common:
        text = traces[a].message or traces[b].message
        raise RlinoError(text or f"{label(a)} and {label(b)} have no problem in common at any step")
    pages = _Pages(traces, Boxes(budget))
    steps = common[-1:] + [step for step in recorded.spread(common) if step != common[-1]]
    for step in steps:
        if pages.heads and not pages.boxes.room:
            break
        name = pairs.shared(traces[a], traces[b], step)[pairs.most_different(traces[a], traces[b], step)].problem
        having = [m for m, source in traces.items() if step in source.steps and source.find(step, name) is not None]
        pages.add(step, name, having)
    return _page(key, by_method, pages, (a, b, common[-1]))


def _page(key: pairs.Key, by_method: Mapping[str, Any], pages: _Pages, start: tuple[str, str, int]) -> Html:
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
        colour_control(COLOURS, "weights"),
    ]
    curves = {
        (one, other): _curves_svg(by_method[one], by_method[other])
        for one, other in itertools.product(by_method, repeat=2)
    }
    slots = {
        "head": (("step", "problem"), pages.heads),
        "curves": (("a", "b"), curves),
        "start": (("a", "b", "step", "problem", "response"), pages.starts),
    }
    boxes = []
    for x in ("a", "b"):
        slots[f"name_{x}"] = ((x,), {(m,): f"{x.upper()}: {escape_line(name)}" for m, name in names.items()})
        slots[f"text_{x}"] = ((x, "step", "problem", "response"), pages.responses)
        boxes.append(f"<div><p>{slot(f'name_{x}', 'strong')}</p>{slot(f'text_{x}')}</div>")
    unit = recorded.unit_of(next(iter(pages.traces.values())).frame.iloc[0].to_dict())
    note = f'<p class="rlino-note">✓ right, ✗ wrong, ✂ truncated; {unit}. In brackets the response below.</p>'
    body = f"<p>{escape_line(key[0])}, {seed_words(key[1])}</p>{slot('curves')}{slot('head')}{slot('start')}"
    body += f'<div class="rlino-two">{"".join(boxes)}</div>{note}'
    return explorer("Two runs", controls, slots, body, pages.boxes.traces)
