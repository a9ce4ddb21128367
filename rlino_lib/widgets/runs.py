"""The run comparer (chapter 07): two runs on the same problem, their curves, their groups and two responses.

A source is a run, a DataFrame of rollouts, or `Traces` (see traces.py). Runs of one seed sample the same problems with
the same random numbers, so that their responses part only where their policies do.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from rlino_lib.errors import RlinoError
from rlino_lib.figures.style import in_order, label
from rlino_lib.widgets.explorer import Explorer, Menus, explorer, refill
from rlino_lib.widgets.groups import (
    COLOURS,
    PAGE_STYLE,
    Colour,
    answer_html,
    chosen,
    colours_of,
    fold_box,
    message,
    reason_html,
    token_tips,
    verdict,
)
from rlino_lib.widgets.page import LINES, frame_table, line_svg, section, svg_html, upright
from rlino_lib.widgets.tokens import Html, escape_line, number, plain, token_spans, trace_box
from rlino_lib.widgets.traces import (
    Row,
    Traces,
    as_traces,
    is_true,
    length_of,
    problem_name,
    tokens_of,
    unit_of,
    values_of,
)

Key = tuple[str, int]  # task and seed: runs of one key see the same problems in the same order
LONGEST = 40_000  # characters of one response that are shown
SIDES = ("A", "B")


class Shared(NamedTuple):
    """A problem that both runs have at a step, and its group in each."""

    problem: str
    a: int
    b: int


def shared_steps(a: Traces, b: Traces) -> list[int]:
    """The recorded steps at which both have a problem in common."""
    return [step for step in a.steps if step in b.steps and shared(a, b, step)]


def shared(a: Traces, b: Traces, step: int) -> list[Shared]:
    """The problems that both have at a step, in the order of the first."""
    pairs = ((a.problem(step, g), g) for g in a.groups(step))
    return [Shared(name, g, other) for name, g in pairs if (other := b.find(step, name)) is not None]


def most_different(a: Traces, b: Traces, step: int) -> int:
    """The place in `shared` of the problem on which the numbers of right responses differ most; the first of these."""
    gaps = [abs(a.count_right(step, s.a) - b.count_right(step, s.b)) for s in shared(a, b, step)]
    return gaps.index(max(gaps))


def same_start(a: Row, b: Row) -> int:
    """For how many tokens two responses agree from the start."""
    one = tokens_of(a)
    other = tokens_of(b)
    places = range(min(len(one), len(other)))
    return next((t for t in places if one[t] != other[t]), len(places))


def run_name(source: Any) -> str:
    """Method and seed of a run, else the name of the source."""
    if isinstance(source, pd.DataFrame):
        return "a frame"
    if (method := getattr(source, "method", None)) is None:
        return str(getattr(source, "name", "") or "a frame")
    seed = getattr(source, "seed", None)
    return f"{label(method)}, seed {'?' if seed is None else seed}"


# --- parts of the page -----------------------------------------------------------------------------------------------

RUNS_STYLE = """<style>
.rlino-two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22em),1fr));gap:.6em}
.rlino-two>div{min-width:0}
.rlino-two mark{background:none;color:inherit;font-weight:700;padding:0 .15em;border-left:3px double currentColor}
</style>"""


def _curve(source: Any) -> pd.Series | None:
    """Held-out accuracy by step, where the source has metrics."""
    try:
        accuracy = source.metrics.dropna(subset=["eval/accuracy"]).set_index("step")["eval/accuracy"]
    except (AttributeError, KeyError, RlinoError):
        return None
    return accuracy if len(accuracy) > 1 else None


def _curves_svg(a: Any, b: Any, step: int) -> str:
    """Both held-out accuracies over training, the step that is shown as a vertical line."""
    curves = [_curve(a), _curve(b)]
    if any(curve is None for curve in curves):
        return ""
    left, right, low, high = 34, 414, 82, 14
    last = max(max(curve.index) for curve in curves)
    top = max(max(curve) for curve in curves) or 1.0
    x_of = lambda at: left + (right - left) * at / last  # noqa: E731
    y_of = lambda share: low - (low - high) * share / top  # noqa: E731
    parts = []
    for share in (0, top):
        parts.append(f'<path d="M{left} {y_of(share):.1f}H420" stroke="#8886"/>')
        parts.append(f'<text x="{left - 4}" y="{y_of(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    for curve, (colour, dash, mark) in zip(curves, LINES, strict=True):
        points = [(x_of(at), y_of(share)) for at, share in curve.items()]
        parts.append(line_svg(points, colour, dash))
        for x, y in points[:: max(1, len(points) // 5)]:
            parts.append(f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">{mark}</text>')
    parts.append(upright(x_of(step), 4, 86))
    parts.append(f'<text x="{min(x_of(step) + 3, 370):.1f}" y="95">step {step}</text>')
    caption = "share right, held out, over training: A solid with circles, B dashed with triangles"
    return f"<p>{caption}</p>{svg_html(''.join(parts), 420, 96, caption)}"


def _group_table(groups: list[list[Row]], sample: int) -> str:
    """Both groups in two lines: a sign and the length for each response; the one that is shown is marked."""
    lines = {}
    for side, rows in zip(SIDES, groups, strict=True):
        cells = [f"{verdict(row)[1][0]}{'✂' * is_true(row['clipped'])} {length_of(row)}" for row in rows]
        lines[side] = dict(enumerate(cells, 1))
        lines[side]["right"] = f"{sum(is_true(row['correct']) for row in rows)} of {len(rows)}"
        lines[side]["mean length"] = f"{np.mean([length_of(row) for row in rows]):.1f}"
    heads = [*range(1, max(map(len, groups)) + 1), "right", "mean length"]
    frame = pd.DataFrame.from_dict(lines, "index").reindex(columns=heads).fillna("").rename_axis("response")
    units = " and ".join(dict.fromkeys(unit_of(row) for rows in groups for row in rows))
    note = f'<p class="rlino-note">✓ right, ✗ wrong, ✂ truncated; {units}.</p>'
    return frame_table(frame, column=sample + 1) + note


def _response(row: Row, title: str, colour: Colour, limit: float, start: int) -> str:
    """One response with its facts under a title of safe HTML; a double bar stands where it parts from the other."""
    tokens = tokens_of(row)
    tips = token_tips(row)
    values = values_of(row, colour.column) or [math.nan] * len(tokens)
    parts, notes = [], []
    for part in (slice(0, start), slice(start, None)):
        spans, shortened = token_spans(
            tokens[part], values[part], scale=colour.scale, limit=limit, tips=tips[part], max_characters=LONGEST
        )
        parts.append(spans)
        notes += shortened
    bar = '<mark title="from here on they differ"></mark>' if start else ""
    facts = [verdict(row)[1] + (", truncated" if is_true(row["clipped"]) else "")]
    facts.append(f"{length_of(row):,} {unit_of(row)}, advantage {number(row['advantage'])}")
    if (logprobs := values_of(row, "logprobs")) is not None:
        facts[-1] += f", log p {number(math.fsum(logprobs))}"
    text = f"{html.escape('; '.join(facts))}<br>answer {answer_html(row)}; grader: {reason_html(row)}"
    box = trace_box(bar.join(parts), notes, f"Response of {title[0]}")
    return f"<div><p><strong>{title}</strong><br>{text}</p>{box}</div>"


def _section(
    sources: tuple[Any, Any], traces: tuple[Traces, Traces], step: int, k: int, sample: int, colour: Colour
) -> str:
    """The page of one problem, without the styles."""
    problem = shared(*traces, step)[k]
    groups = [traces[0].rows(step, problem.a), traces[1].rows(step, problem.b)]
    size = min(map(len, groups))
    if not 0 <= sample < size:
        raise RlinoError(f"sample {sample} of {size}: count from 0")
    rows = [group[sample] for group in groups]
    start = same_start(*rows)
    same = all(start == len(tokens_of(row)) for row in rows)
    limit, legend = colours_of([*groups[0], *groups[1]], colour)
    text = "They are the same, token for token." if same else "They differ from the first token on."
    if start and not same:
        text = f"They agree for {start} token{'s' * (start > 1)}; a double bar stands where they part."
    names = [escape_line(run_name(source)) for source in sources]
    title = f"Step {step} · {escape_line(problem_name(groups[0][0]), 200)}"
    heads = "; ".join(f"{side} = {name}" for side, name in zip(SIDES, names, strict=True))
    boxes = "".join(
        _response(row, f"{side}: {name}", colour, limit, 0 if same else start)
        for row, name, side in zip(rows, names, SIDES, strict=True)
    )
    body = (
        f'<p class="rlino-title"><strong>{title}</strong></p><p>{heads}</p>{_curves_svg(*sources, step)}'
        f"{_group_table(groups, sample)}<p>Response {sample + 1} of each. {text}</p>{legend}"
        f'<div class="rlino-two">{boxes}</div>'
    )
    return section(body, f"Two runs, {title}", "rlino-group rlino-page")


# --- the page --------------------------------------------------------------------------------------------------------


def _together(a: Any, b: Any) -> tuple[tuple[Traces, Traces], list[int], str]:
    """Both sources as traces, the steps that they share, and what to say where there are none."""
    traces = as_traces(a), as_traces(b)
    if text := traces[0].message or traces[1].message:
        return traces, [], text
    steps = shared_steps(*traces)
    return traces, steps, "" if steps else f"{run_name(a)} and {run_name(b)} have no problem in common at any step."


def _check_step(step: int, steps: list[int]) -> None:
    if step not in steps:
        raise RlinoError(f"no common problem at step {step}: there are some at {', '.join(map(str, steps))}")


def runs_html(
    a: Any, b: Any, step: int | None = None, problem: int | None = None, sample: int = 0, colour: str = "weights"
) -> Html:
    """Two runs on the same problem at the same step: curves, both groups, and one response of each side by side.

    `problem` counts the problems that both have at the step; the last such step, and the problem on which the two
    differ most, unless they are given. `colour` as in the inspector, on one scale for both. Two sources without a
    common problem give a message. Raises RlinoError for an unknown step, problem, sample or colour.
    """
    look = COLOURS[chosen(colour, COLOURS, "colour")]
    traces, steps, text = _together(a, b)
    if text:
        return message(text)
    step = steps[-1] if step is None else step
    _check_step(step, steps)
    problem = most_different(*traces, step) if problem is None else problem
    count = len(shared(*traces, step))
    if not 0 <= problem < count:
        raise RlinoError(f"problem {problem} of {count} at step {step}: count from 0")
    return Html(PAGE_STYLE + RUNS_STYLE + _section((a, b), traces, step, problem, sample, look))


def static_runs(a: Any, b: Any, steps: Iterable[int] | None = None, colour: str = "weights") -> Html:
    """The comparer's pages over training without a kernel or a script: a fold for each common step, the last open.

    Each step has the problem on which the two differ most. Raises RlinoError as `runs_html` does.
    """
    look = COLOURS[chosen(colour, COLOURS, "colour")]
    traces, common, text = _together(a, b)
    if text:
        return message(text)
    pages = []
    for step in common if steps is None else steps:
        _check_step(step, common)
        k = most_different(*traces, step)
        problem = traces[0].title(step, shared(*traces, step)[k].a).rsplit(" · ", 1)[0]
        pages.append((f"Step {step} · {problem}", _section((a, b), traces, step, k, 0, look)))
    name = f"{escape_line(run_name(a))} beside {escape_line(run_name(b))}"
    return fold_box(pages, name, RUNS_STYLE, len(pages) - 1)


# --- the comparer ----------------------------------------------------------------------------------------------------

NOTHING = [("none in common", -1)]  # a slider cannot stand at None


def _in_order(key: Key) -> tuple[str, int]:
    return key[0], -1 if key[1] is None else key[1]  # an imported run may not say its seed


class _Pairs:
    """Runs by task and seed, then by method; their rollouts are read when they are chosen, once."""

    def __init__(self, runs: Iterable[Any]) -> None:
        groups: dict[Key, dict[str, Any]] = {}
        for run in runs:
            group = groups.setdefault((run.config["task"], run.seed), {})
            if run.method in group:
                raise RlinoError(f"two runs of {run.method}, {run.config['task']}, seed {run.seed}")
            group[run.method] = run
        self.groups = {key: groups[key] for key in sorted(groups, key=_in_order) if len(groups[key]) > 1}
        self._traces: dict[int, Traces] = {}

    def options(self, key: Key) -> list[tuple[str, str]]:
        """The methods of a task and seed as a menu has them."""
        return [(plain(label(m), 40), m) for m in in_order(self.groups[key])]

    def traces(self, menus: Menus) -> list[Traces]:
        """Those of the two chosen runs."""
        runs = [self.groups[menus["key"].value][menus[side].value] for side in ("a", "b")]
        for run in runs:
            if id(run) not in self._traces:
                self._traces[id(run)] = Traces(run)
        return [self._traces[id(run)] for run in runs]

    def page(self, key: Key, a: str, b: str, step: int, **choice: Any) -> Html:
        """The page of the choices; at step -1 it says that there is nothing in common."""
        runs = self.groups[key][a], self.groups[key][b]
        return runs_html(*runs) if step < 0 else runs_html(*runs, step, **choice)

    def fit(self, menus: Menus, name: str | None) -> None:
        """Fit methods, steps, problems and responses to what was chosen before them."""
        if name in ("colour", "sample"):
            return
        if name in ("key", None):
            for side in ("a", "b"):
                refill(menus[side], self.options(menus["key"].value))
        traces = self.traces(menus)
        before = menus["step"].value
        if name not in ("step", "problem"):
            steps = shared_steps(*traces)
            last = None if before in steps else (steps or [-1])[-1]
            refill(menus["step"], [(str(step), step) for step in steps] or NOTHING, last)
        step = menus["step"].value
        if step < 0:
            for other in ("problem", "sample"):
                refill(menus[other], NOTHING)
            return
        problems = shared(*traces, step)
        if name != "problem":
            same = name in ("a", "b") and step == before  # then the problem stays, too
            counts = [[t.count_right(step, g) for t, g in zip(traces, (s.a, s.b), strict=True)] for s in problems]
            options = [(f"{k + 1}: {one} and {other} right", k) for k, (one, other) in enumerate(counts)]
            refill(menus["problem"], options, None if same else most_different(*traces, step))
        here = problems[menus["problem"].value]
        size = min(len(traces[0].rows(step, here.a)), len(traces[1].rows(step, here.b)))
        refill(menus["sample"], [(str(i + 1), i) for i in range(size)])


def run_comparer(
    runs: Iterable[Any], a: str = "grpo", b: str | None = None, seed: int | None = None, colour: str = "weights"
) -> Explorer:
    """Task, seed, two methods, step, problem, response and colour over `runs_html`, for runs of one task and seed.

    It starts at methods a and b where both are there; rollouts are read when they are chosen. Raises RlinoError where
    no two runs share task and seed, for two runs of one method, task and seed, and for an unknown seed or colour.
    """
    chosen(colour, COLOURS, "colour")
    pairs = _Pairs(runs)
    keys = [key for key in pairs.groups if seed in (None, key[1])]
    if not keys:
        raise RlinoError(f"no two runs share a task and {'a seed' if seed is None else f'seed {seed}'}")
    key = next((k for k in keys if {a, b} - {None} <= set(pairs.groups[k])), keys[0])
    methods = in_order(pairs.groups[key])
    a = a if a in methods else methods[0]
    b = b if b in methods and b != a else next(m for m in methods if m != a)
    return explorer(
        pairs.page,
        name="RunComparer()",
        fit=pairs.fit,
        key=("Runs:", key, [(f"{plain(task, 40)}, seed {seed}", (task, seed)) for task, seed in pairs.groups]),
        a=("A:", a, pairs.options(key)),
        b=("B:", b, pairs.options(key)),
        step=("Step:", -1, NOTHING),
        problem=("Problem:", -1, NOTHING),
        sample=("Response:", -1, NOTHING),
        colour=("Colour by:", colour, [(look.menu, name) for name, look in COLOURS.items()]),
    )
