"""Two runs on the same problem as HTML, with no kernel and no script: their curves, their groups, and two responses.

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
from rlino_lib.figures.curves import label
from rlino_lib.widgets.groups import CARD_STYLE, COLOURS, Colour, chosen
from rlino_lib.widgets.tokens import STYLE, Html, colour_limit, escape_line, legend_html, number, token_spans, trace_box
from rlino_lib.widgets.traces import Traces, as_traces, is_true, length_of, missing, problem_name, tokens_of, values_of

Row = dict[str, Any]
LONGEST = 40_000  # characters of one response that are shown


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
    one, other = tokens_of(a), tokens_of(b)
    places = range(min(len(one), len(other)))
    return next((t for t in places if one[t] != other[t]), len(places))


def run_name(source: Any) -> str:
    """Method and seed of a run, else the name of the source."""
    if (method := getattr(source, "method", None)) is None:
        return str(getattr(source, "name", "") or "a frame") if not isinstance(source, pd.DataFrame) else "a frame"
    return f"{label(method)}, seed {getattr(source, 'seed', '?')}"


# --- parts of the page -----------------------------------------------------------------------------------------------

RUNS_STYLE = """<style>
.rlino-runs .rlino-two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22em),1fr));gap:.6em}
.rlino-runs .rlino-two>div{min-width:0}
.rlino-runs svg{display:block;max-width:100%;height:auto;margin:.2em 0}
.rlino-runs svg text{font-size:11px;fill:currentColor}
.rlino-runs .rlino-wide{overflow-x:auto}
.rlino-runs table{border-collapse:collapse;margin:.2em 0 .5em;font-variant-numeric:tabular-nums}
.rlino-runs th,.rlino-runs td{padding:.1em .5em;text-align:right;border-bottom:1px solid #8884;white-space:nowrap}
.rlino-runs th:first-child{text-align:left}
.rlino-runs .rlino-now{font-weight:700;outline:1px solid currentColor}
.rlino-runs mark{background:none;color:inherit;font-weight:700;padding:0 .15em;border-left:3px double currentColor}
</style>"""
LOOKS = (("A", "#0173b2", "", "●"), ("B", "#d55e00", ' stroke-dasharray="6 3"', "▲"))
WIDTH, HEIGHT, LEFT = 420, 96, 34


def _curve(source: Any) -> pd.Series | None:
    """Held-out accuracy by step, where the source has metrics."""
    try:
        metrics = source.metrics
        found = metrics.dropna(subset=["eval/accuracy"]).set_index("step")["eval/accuracy"]
    except (AttributeError, KeyError, RlinoError):
        return None
    return found if len(found) > 1 else None


def _curves_svg(a: Any, b: Any, step: int) -> str:
    """Both held-out accuracies over training, the step that is shown as a vertical line."""
    curves = [_curve(a), _curve(b)]
    if any(c is None for c in curves):
        return ""
    last, top = max(max(c.index) for c in curves), max(max(c) for c in curves) or 1.0
    out = []
    for share in (0, top):
        y = HEIGHT - 14 - (HEIGHT - 28) * share / top
        out.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH}" stroke="#8886"/>')
        out.append(f'<text x="{LEFT - 4}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    for curve, (_, colour, dash, mark) in zip(curves, LOOKS, strict=True):
        at = [(LEFT + (WIDTH - LEFT - 6) * s / last, HEIGHT - 14 - (HEIGHT - 28) * v / top) for s, v in curve.items()]
        line = "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
        out.append(f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        out += [
            f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">{mark}</text>'
            for x, y in at[:: max(1, len(at) // 5)]
        ]
    here = LEFT + (WIDTH - LEFT - 6) * step / last
    out.append(
        f'<path d="M{here:.1f} 4V{HEIGHT - 10}" stroke="currentColor" stroke-width="1.5" stroke-dasharray="2 2"/>'
    )
    out.append(f'<text x="{min(here + 3, WIDTH - 50):.1f}" y="{HEIGHT - 1}">step {step}</text>')
    said = "share right, held out, over training: A solid with circles, B dashed with triangles"
    box = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    return f'<p>{said}</p><svg role="img" aria-label="{said}" {box}>{"".join(out)}</svg>'


def _verdict(row: Row) -> str:
    """A sign and words for a response: right, wrong, or wrong because it was cut."""
    cut = ", cut at the cap" if is_true(row["clipped"]) else ""
    return f"✓ right{cut}" if is_true(row["correct"]) else f"✗ wrong{cut}"


def _group_table(groups: tuple[list[Row], list[Row]], sample: int) -> str:
    """Both groups in two lines: a sign and the length for each response; the one that is shown is marked."""
    size = max(map(len, groups))
    now = ' class="rlino-now" aria-current="true"'
    heads = "".join(f'<th scope="col"{now if i == sample else ""}>{i + 1}</th>' for i in range(size))
    lines = []
    for rows, (side, *_) in zip(groups, LOOKS, strict=True):
        cells = [f"{'✓' if is_true(r['correct']) else '✗'}{'✂' * is_true(r['clipped'])} {length_of(r)}" for r in rows]
        cells = "".join(
            f"<td{now if i == sample else ''}>{c}</td>" for i, c in enumerate(cells + [""] * (size - len(rows)))
        )
        right = sum(is_true(r["correct"]) for r in rows)
        mean = np.mean([length_of(r) for r in rows])
        cells += f"<td>{right} of {len(rows)}</td><td>{mean:.1f}</td>"
        lines.append(f'<tr><th scope="row">{side}</th>{cells}</tr>')
    head = f'<tr><th scope="col">response</th>{heads}<th scope="col">right</th><th scope="col">mean length</th></tr>'
    body = f"<table><thead>{head}</thead><tbody>{''.join(lines)}</tbody></table>"
    return f'<div class="rlino-wide">{body}</div><p class="rlino-note">✓ right, ✗ wrong, ✂ cut at the cap; tokens.</p>'


def _limit(rows: Iterable[Row], colour: Colour) -> float:
    """Full colour for both runs: the largest size, or on one-sided scales the 98th percentile."""
    values = [v for r in rows for v in values_of(r, colour.column) or () if math.isfinite(v)]
    return (
        colour_limit(values) if colour.scale == "diverging" or not values else float(np.quantile(np.abs(values), 0.98))
    )


def _tips(row: Row) -> list[str]:
    names = (("w", "weights"), ("log p", "logprobs"), ("entropy", "entropies"))
    columns = [(name, values) for name, column in names if (values := values_of(row, column)) is not None]
    return [
        " · ".join([f"token {t + 1}", *(f"{name} {number(values[t], name == 'w')}" for name, values in columns)])
        for t in range(len(tokens_of(row)))
    ]


def _response(row: Row, side: str, name: str, colour: Colour, limit: float, start: int) -> str:
    """One response with its facts; a double bar stands where it parts from the other."""
    tokens, tips = tokens_of(row), _tips(row)
    values = values_of(row, colour.column) or [math.nan] * len(tokens)
    parts, notes = [], []
    for cut in (slice(0, start), slice(start, None)):
        spans, said = token_spans(
            tokens[cut], values[cut], scale=colour.scale, limit=limit or None, tips=tips[cut], max_characters=LONGEST
        )
        parts.append(spans)
        notes += said
    bar = '<mark title="from here on they differ"></mark>' if start else ""
    facts = [f"{length_of(row):,} tokens", f"advantage {number(row['advantage'])}"]
    if (logprobs := values_of(row, "logprobs")) is not None:
        facts.append(f"log p {number(math.fsum(logprobs))}")
    answer = "none" if missing(row["answer"]) else escape_line(row["answer"], 500)
    reason = "–" if missing(row["reason"]) else escape_line(row["reason"], 500)
    title = f"<strong>{side}: {escape_line(name)}</strong>"
    words = f"{_verdict(row)}; {html.escape(', '.join(facts))}<br>answer <code>{answer}</code>; grader: {reason}"
    return f"<div><p>{title}<br>{words}</p>{trace_box(bar.join(parts), notes, f'Response of {side}')}</div>"


def _message(text: str) -> Html:
    return Html(f'{CARD_STYLE}<section class="rlino-group mathjax_ignore"><p>{escape_line(text)}</p></section>')


def _section(
    sources: tuple[Any, Any], traces: tuple[Traces, Traces], step: int, k: int, sample: int, look: Colour
) -> str:
    """The page of one problem, without the styles."""
    (a, b), problem = traces, shared(*traces, step)[k]
    groups = (a.rows(step, problem.a), b.rows(step, problem.b))
    if not 0 <= sample < min(map(len, groups)):
        raise RlinoError(f"sample {sample} of {min(map(len, groups))}: count from 0")
    rows = [group[sample] for group in groups]
    start, lengths = same_start(*rows), [len(tokens_of(r)) for r in rows]
    agree = start == lengths[0] == lengths[1]
    limit = _limit([*groups[0], *groups[1]], look)
    values = [v for group in groups for r in group for v in values_of(r, look.column) or ()]
    legend = legend_html(values, look.scale, limit or None, look.label) if look.column and values else ""
    names = [run_name(source) for source in sources]
    said = "They are the same, token for token." if agree else "They differ from the first token on."
    if start and not agree:
        said = f"They agree for {start} token{'s' * (start > 1)}; a double bar stands where they part."
    title = f"Step {step} · {escape_line(problem_name(groups[0][0]), 200)}"
    heads = "; ".join(f"{side} = {escape_line(name)}" for (side, *_), name in zip(LOOKS, names, strict=True))
    shown = "".join(
        _response(row, side, name, look, limit, 0 if agree else start)
        for row, name, (side, *_) in zip(rows, names, LOOKS, strict=True)
    )
    return (
        f'<section class="rlino-group rlino-runs mathjax_ignore" aria-label="Two runs, {title}">'
        f'<p class="rlino-title"><strong>{title}</strong></p><p>{heads}</p>{_curves_svg(*sources, step)}'
        f"{_group_table(groups, sample)}<p>Response {sample + 1} of each. {said}</p>{legend}"
        f'<div class="rlino-two">{shown}</div></section>'
    )


# --- the page --------------------------------------------------------------------------------------------------------


def _together(a: Any, b: Any) -> tuple[tuple[Traces, Traces], list[int], str]:
    """Both sources as traces, the steps that they share, and what to say where there are none."""
    traces = as_traces(a), as_traces(b)
    if said := traces[0].message or traces[1].message:
        return traces, [], said
    steps = shared_steps(*traces)
    return traces, steps, "" if steps else f"{run_name(a)} and {run_name(b)} have no problem in common at any step."


def runs_html(
    a: Any, b: Any, step: int | None = None, problem: int | None = None, sample: int = 0, colour: str = "weights"
) -> Html:
    """Two runs on the same problem at the same step: curves, both groups, and one response of each side by side.

    `problem` counts the problems that both have at the step; the last such step, and the problem on which the two
    differ most, unless they are given. `colour` as in the inspector, on one scale for both. Two sources that have
    nothing in common give a message. Raises RlinoError for a step, a problem, a sample or a colour that there is not.
    """
    look = COLOURS[chosen(colour, COLOURS, "colour")]
    traces, steps, message = _together(a, b)
    if message:
        return _message(message)
    step = steps[-1] if step is None else step
    if step not in steps:
        raise RlinoError(f"no common problem at step {step}: there are some at {', '.join(map(str, steps))}")
    problem = most_different(*traces, step) if problem is None else problem
    if not 0 <= problem < len(shared(*traces, step)):
        raise RlinoError(f"problem {problem} of {len(shared(*traces, step))} at step {step}: count from 0")
    return Html(STYLE + CARD_STYLE + RUNS_STYLE + _section((a, b), traces, step, problem, sample, look))


def static_runs(a: Any, b: Any, steps: Iterable[int] | None = None, colour: str = "weights") -> Html:
    """The comparer's pages over training without a kernel or a script: a fold for each common step, the last open.

    Each step has the problem on which the two differ most. Raises RlinoError as `runs_html` does.
    """
    look = COLOURS[chosen(colour, COLOURS, "colour")]
    traces, common, message = _together(a, b)
    if message:
        return _message(message)
    steps = common if steps is None else list(steps)
    if unknown := [step for step in steps if step not in common]:
        raise RlinoError(f"no common problem at step {unknown[0]}: there are some at {', '.join(map(str, common))}")
    out = []
    for step in steps:
        k = most_different(*traces, step)
        title = escape_line(traces[0].title(step, shared(*traces, step)[k].a).rsplit(" · ", 1)[0])
        opened = " open" if step == steps[-1] else ""
        page = _section((a, b), traces, step, k, 0, look)
        out.append(f"<details{opened}><summary><strong>Step {step} · {title}</strong></summary>{page}</details>")
    name = f"{escape_line(run_name(a))} beside {escape_line(run_name(b))}"
    box = f'<div class="rlino-group mathjax_ignore" role="group" aria-label="{name}">{"".join(out)}</div>'
    return Html(STYLE + CARD_STYLE + RUNS_STYLE + box)
