"""A Countdown trace as its tree of attempts, with no kernel and no script: nodes are the numbers left.

One response, or all of its group on one tree; the reading is that of `tasks/countdown_search.py`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

import pandas as pd

from rlino_lib.errors import RlinoError
from rlino_lib.tasks.countdown.game import pieces
from rlino_lib.tasks.countdown.trace import Search, Written, countdown_problem, read_search, unordered
from rlino_lib.widgets.tokens import (
    MAX_COLOURED,
    STYLE,
    Html,
    drawing_html,
    escape_line,
    folds,
    frame_table,
    plain,
    token_spans,
    trace_box,
)
from rlino_lib.widgets.traces import Traces, as_traces, is_false, is_true, problem_name, tokens_of

DEEPEST = 6  # steps of an attempt that are drawn
MOST = 60  # attempts of one response that are drawn and listed: any response can be shown
BLUE = "#0173b2"


@dataclass
class Shown:
    """A response of the group with its tokens and its reading."""

    sample: int
    row: dict[str, Any]
    search: Search
    tokens: list[str]  # as recorded where they spell the response, else its pieces
    ends: list[int]  # where each token ends, in characters of the response

    begun: list[int]  # how many attempts have begun after 0, 1, 2, … tokens

    def attempt_at(self, token: int) -> int:
        """The attempt that is under way after `token` tokens, from 1; 0 before the first and after the last."""
        k = self.begun[token]
        return k if k and self.ends[token - 1] <= self.search.attempts[k - 1].end else 0

    def token_after(self, attempt: int) -> int:
        """How many tokens there are up to the end of an attempt; 0 for attempt 0."""
        return bisect_right(self.ends, self.search.attempts[attempt - 1].end) if attempt else 0


def read_group(rows: Iterable[dict[str, Any]]) -> list[Shown]:
    """The responses of a group, read; raises RlinoError where they are not answers to a Countdown problem."""
    out = []
    for row in rows:
        problem, tokens = countdown_problem(row.get("data")), [str(t) for t in tokens_of(row)]
        text = row["response"] if isinstance(row.get("response"), str) else "".join(tokens)
        if len(tokens) < 2 or not "".join(tokens).startswith(text):
            tokens = pieces(text)
        found, ends = read_search(problem, text), list(accumulate(map(len, tokens)))
        starts = [a.start for a in found.attempts]
        begun = [0, *(bisect_left(starts, end) for end in ends)]
        out.append(Shown(int(row["sample"]), row, found, tokens, ends, begun))
    return out


def is_search(rows: Iterable[dict[str, Any]]) -> bool:
    """Whether all rows of a group are answers to a Countdown problem."""
    try:
        return all(countdown_problem(row.get("data")) for row in rows)
    except RlinoError:
        return False


# --- the tree --------------------------------------------------------------------------------------------------------


@dataclass
class Node:
    """Where the attempts stand after the same steps; the order of numbers that are added or multiplied is forgotten."""

    written: Written | None  # the step that leads here; None at the root
    depth: int
    children: dict[tuple, Node] = field(default_factory=dict)
    passed: list[tuple[int, int]] = field(default_factory=list)  # (sample, attempt) that come through
    ended: list[tuple[int, int]] = field(default_factory=list)  # those that end here
    hit: bool = False
    y: float = 0.0

    @property
    def text(self) -> str:
        """The operation that leads here."""
        return "{} {} {}".format(*unordered(self.written.step)) if self.written else ""


def grow(group: Iterable[Shown]) -> Node:
    """The tree of the first MOST attempts of each response, DEEPEST steps deep."""
    root = Node(None, 0)
    for shown in group:
        for k, attempt in enumerate(shown.search.attempts[:MOST], 1):
            node = root
            node.passed.append((shown.sample, k))
            for depth, w in enumerate(attempt.steps[:DEEPEST], 1):
                node = node.children.setdefault((unordered(w.step), w.fault), Node(w, depth))
                node.passed.append((shown.sample, k))
                node.hit |= attempt.hit == depth
            node.ended.append((shown.sample, k))
    return root


def walk(node: Node) -> Iterable[tuple[Node, Node]]:
    """Every edge, (parent, child), in the order of drawing."""
    for child in node.children.values():
        yield node, child
        yield from walk(child)


def _place(root: Node) -> int:
    """Give every node its row, leaves from the top and a parent in the middle of its children; the number of rows."""
    rows = 0
    for node in reversed([root, *(child for _, child in walk(root))]):
        if node.children:
            ys = [c.y for c in node.children.values()]
            node.y = (ys[0] + ys[-1]) / 2
        else:
            node.y, rows = -rows, rows + 1
    for node in [root, *(child for _, child in walk(root))]:
        node.y += rows - 1
    return rows


ROW, LABEL, GAP = 32, 76, 46  # pixels: of a leaf's row, of the level part of an edge with its label, of the sloped part


class Moment(NamedTuple):
    """What is drawn as happening: `attempt` of the response `now`, `steps` into it."""

    now: Shown
    attempt: int
    steps: int
    overlay: bool
    size: int  # responses on the tree

    def look(self, node: Node) -> tuple[bool, float]:
        """Whether the attempt under way has come through the node, and how strongly it is drawn."""
        mine = [k for s, k in node.passed if s == self.now.sample]
        if self.attempt in mine and node.depth <= self.steps:
            return True, 1.0
        return False, 1.0 if any(k < self.attempt for k in mine) else 0.5 if self.overlay else 0.25

    def ended(self, node: Node) -> str:
        """The attempts that end at a node; ↻ marks those that were made before."""
        mine = [k for s, k in node.ended if s == self.now.sample]
        verdicts = [self.now.search.attempts[k - 1].verdict or "no verdict" for k in mine]
        said = ", ".join(f"#{k}{' ↻' if j else ''} {verdicts[j]}" for j, k in enumerate(mine[:4]))
        said += " …" if len(mine) > 4 else ""
        if self.overlay and node.ended:
            said = f"{len({s for s, _ in node.ended})} of {self.size}" + (f" ({said})" if said else "")
        return said


def _draw(root: Node, start: tuple[int, ...], moment: Moment, image: bool) -> str:
    """The tree from left to right: the attempt under way is bold, what comes later is faint."""
    rows, nodes = _place(root), [root, *(child for _, child in walk(root))]
    left = {id(n): _left(n, start) for n in nodes}
    x, columns = 8.0, []
    for depth in range(max(n.depth for n in nodes) + 1):
        width = max(7.2 * len(left[id(n)]) + (28 if n.hit else 14) for n in nodes if n.depth == depth)
        columns.append((x, width))
        x += width + GAP + LABEL
    out = []
    for parent, child in walk(root):
        begin = sum(columns[parent.depth]), 20 + ROW * parent.y
        out.append(_edge(child, begin, (columns[child.depth][0], 20 + ROW * child.y), moment))
    for n in nodes:
        out.append(_box(n, left[id(n)], columns[n.depth], 20 + ROW * n.y, moment))
    width, height = x - GAP - LABEL + 250, 40 + ROW * (rows - 1)
    alt = f"tree of {len(root.passed)} attempts with {len(nodes)} nodes; the table has the attempts in words"
    return drawing_html(SVG_STYLE + "".join(out), round(width), round(height), alt, "tree of attempts", image, TREE)


def _left(node: Node, start: tuple[int, ...]) -> str:
    """The numbers left, as a node shows them."""
    left = start if node.written is None else node.written.left
    return plain("?" if left is None else " ".join(map(str, left)), 24)


def _edge(child: Node, begin: tuple[float, float], end: tuple[float, float], moment: Moment) -> str:
    """The line to a node with its operation: as wide as it is taken often, dashed where the step is wrong."""
    (px, py), (cx, cy), (bold, opacity) = begin, end, moment.look(child)
    many = len({s for s, _ in child.passed}) if moment.overlay else len(child.passed)
    width, bend = min(1.2 * many, 12) + 1.5 * bold, cx - LABEL
    look = f'stroke="{BLUE if bold else "currentColor"}" stroke-width="{width:.1f}" opacity="{opacity}"'
    look += ' stroke-dasharray="5 3"' if child.written.fault else ""
    curve = f"M{px:.0f} {py:.0f}C{px + 26:.0f} {py:.0f} {bend - 26:.0f} {cy:.0f} {bend:.0f} {cy:.0f}H{cx:.0f}"
    words = child.text + (" ✗" if child.written.fault else "") + (f" ×{many}" if many > 1 else "")
    place = f'x="{cx - LABEL / 2 - 2:.0f}" y="{cy - 4 - width / 2:.0f}" text-anchor="middle"'
    weight = ' style="font-weight:700"' if bold else ""
    label = f'<text {place} opacity="{max(opacity, 0.55)}"{weight}>{escape_line(words, 30)}</text>'
    return f'<path d="{curve}" fill="none" {look}/>{label}'


def _box(node: Node, text: str, column: tuple[float, float], y: float, moment: Moment) -> str:
    """A node: black with ✓ where the target alone is left, dashed where a step broke the rules; who ends there."""
    (x, width), broken = column, node.written is not None and bool(node.written.fault or node.written.left is None)
    bold, opacity = moment.look(node) if node.written else (False, 1.0)
    fill, ink = ("#111", "#fff") if node.hit else ("#fff", "#111")
    opacity = 1.0 if node.hit and moment.overlay else opacity
    look = f'fill="{fill}" stroke="{BLUE if bold else "#555"}" stroke-width="{2.5 if bold else 1}"'
    look += ' stroke-dasharray="4 2"' if broken else ""
    tip = f"<title>{escape_line(node.written.fault)}</title>" if broken and node.written.fault else ""
    says = moment.ended(node)
    return (
        f'<g opacity="{max(opacity, 0.45)}"><rect x="{x:.0f}" y="{y - 10:.0f}" width="{width:.0f}" height="20" rx="4" '
        f'{look}/><text x="{x + width / 2:.0f}" y="{y + 4:.0f}" text-anchor="middle" style="fill:{ink}">'
        f"{'✓ ' * node.hit}{escape_line(text)}</text>"
        + (f'<text x="{x + width + 8:.0f}" y="{y + 4:.0f}">{escape_line(says)}</text>' if says else "")
        + f"{tip}</g>"
    )


TREE = "rlino-tree"
SVG_STYLE = f"<style>.{TREE} text{{font:11px sans-serif;fill:currentColor}}</style>"
PAGE_STYLE = """<style>
.rlino-search{font-size:13px;line-height:1.45;margin:.3em 0}
.rlino-search p{margin:.25em 0;max-width:62em;overflow-wrap:anywhere}
.rlino-search .rlino-graph{overflow:auto;max-height:46em;margin:.4em 0}
.rlino-graph:focus-visible{outline:2px solid #1f77d0}
.rlino-search svg,.rlino-search img{display:block;max-width:none}
.rlino-search table{border-collapse:collapse;margin:.3em 0;font-variant-numeric:tabular-nums}
.rlino-search th,.rlino-search td{padding:.1em .7em;text-align:left;border-bottom:1px solid #8884}
.rlino-search tr.rlino-now{font-weight:700;outline:1px solid currentColor}
.rlino-wide{overflow-x:auto}
</style>"""

# --- the words -------------------------------------------------------------------------------------------------------


def attempt_table(shown: Shown) -> pd.DataFrame:
    """The first MOST attempts of a response in words, a row each, all cells text."""
    found = shown.search
    exact, order, results = (found.repeats(same) for same in ("exact", "order", "results"))
    rows = []
    for k, a in enumerate(found.attempts[:MOST], 1):
        steps = ", ".join("{} {} {} = {}".format(*w.step) for w in a.steps[:DEEPEST])
        j = k - 1
        same = f"#{exact[j]}" if exact[j] else f"#{order[j]}, in another order" if order[j] else ""
        same = same or (f"#{results[j]}, its results" if results[j] else "new")
        verdict = a.verdict or "none"
        if (a.hit is not None) != (a.verdict == "yes") and a.verdict:
            verdict += ", but hits" if a.hit is not None else ", but does not hit"
        rows.append(
            {
                "steps": steps + (" …" if len(a.steps) > DEEPEST else ""),
                "hits": "✓" if a.hit is not None else "",
                "verdict": verdict,
                "repeats": "" if not a.verdict else same,
                "faults": "; ".join(w.fault for w in a.steps[:DEEPEST] if w.fault),
                "tokens": str(found.tokens(a.start, a.end)),
            }
        )
    names = ["steps", "hits", "verdict", "repeats", "faults", "tokens"]
    return pd.DataFrame(rows, columns=names, index=pd.Index(range(1, len(rows) + 1), name="attempt"))


def _says(shown: Shown) -> str:
    """The response as a search, in a line or two."""
    found, row = shown.search, shown.row
    grade = "right" if is_true(row["correct"]) else "wrong" if is_false(row["correct"]) else "not graded"
    again = sum(k is not None for k in found.repeats())
    said = [
        f"Response {shown.sample}, {grade}: {_count(len(found.attempts), 'attempt')}, {again or 'none'} made before."
    ]
    hit = found.first_hit
    said.append(f"The first hit is attempt {hit}." if hit else "No attempt hits the target.")
    if hit and hit < len(found.attempts):
        said.append(f"After it: {_count(len(found.attempts) - hit, 'attempt')}.")
    if is_true(row["clipped"]):
        said.append("The response ran into its cap.")
    k = found.answer_attempt
    said.append("The answer is no attempt's expression." if k is None else f"The answer is what attempt {k} wrote.")
    if found.filler:
        size = sum(len(pieces(text)) for text in found.filler)
        said.append(f"Filler that is no attempt: {_count(size, 'token')}, from “{plain(found.filler[0], 60)}”.")
    if len(found.attempts) > MOST:
        said.append(f"Only the first {MOST} attempts are shown.")
    return f"<p>{escape_line(' '.join(said))}</p>"


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _overlay_says(group: list[Shown], now: Shown, root: Node) -> str:
    """The group in a line: how much of the tree its responses share."""
    made = sum(len(s.search.attempts) for s in group)
    paths = [n for n in (root, *(c for _, c in walk(root))) if n.ended]
    shared = sum(len({s for s, _ in n.ended}) > 1 for n in paths)
    hits = sum(s.search.first_hit is not None for s in group)
    said = (
        f"{_count(len(group), 'response')}, {_count(made, 'attempt')}, {len(paths)} of them different; {shared} were "
    )
    said += f"made by more than one response; {hits} responses hit the target. An edge is as wide as the responses "
    said += f"that take it are many, and the attempts named (#) are those of response {now.sample}."
    return f"<p>{said}</p>"


_KEY = (
    "<p>Boxes hold the numbers left; ✓ on black is the target alone. ✗ and dashes mark a step that is wrong arithmetic "
    "or takes a number that is not left (? where nobody knows what is). #2 is the second attempt, with its verdict; "
    "↻ is one that was made before; × counts how often a step is taken, in a group by how many responses. Blue and "
    "bold is the attempt under way, and what is faint comes later.</p>"
)


def _trace(shown: Shown, token: int) -> str:
    """The text token by token; what has not been written yet is not there, and the last token is marked."""
    values = [0.0] * len(shown.tokens[:token])
    values[-1:] = [1.0] * bool(values)
    tips = [f"token {t + 1}, attempt {shown.attempt_at(t + 1) or '–'}" for t in range(min(token, MAX_COLOURED))]
    spans, notes = token_spans(shown.tokens[:token], values, scale="sequential", limit=1.0, tips=tips)
    notes = [*notes, f"{token:,} of {len(shown.tokens):,} tokens."]
    return trace_box(spans, notes, f"Response {shown.sample} up to token {token}")


def search_html(
    source: Any,
    step: int | None = None,
    group: int | None = None,
    sample: int | None = None,
    token: int | None = None,
    overlay: bool = False,
    image: bool = False,
) -> Html:
    """A response as its tree of attempts up to `token` tokens (default: all), its text so far, and its attempts.

    `source` is a run or a DataFrame of rollouts of Countdown. Defaults: the first step, its first group with right and
    wrong responses, and there the response with the most attempts. `overlay` draws the attempts of all responses of the
    group on one tree. `image` draws for pages that strip SVG. Raises RlinoError for what is not recorded, for a token
    that the response does not have, and for rollouts of another task.
    """
    traces, step, group = locate(source, step, group)
    shown = read_group(traces.rows(step, group))
    now = pick(shown, sample)
    token = len(now.tokens) if token is None else token
    if not 0 <= token <= len(now.tokens):
        raise RlinoError(f"token {token} of a response of {len(now.tokens)} tokens")
    return Html(STYLE + PAGE_STYLE + _page(shown, now, f"Step {step}", token, overlay, image))


def locate(source: Any, step: int | None, group: int | None) -> tuple[Traces, int, int | None]:
    """The traces of a source, and the step and the group, the defaults of `search_html` where they are None."""
    traces = as_traces(source)
    if not traces.steps:
        raise RlinoError(traces.message)
    step = traces.steps[0] if step is None else step
    return traces, step, traces.first_mixed(step) if group is None and step in traces.steps else group


def pick(group: list[Shown], sample: int | None) -> Shown:
    """The response of this number, or the one with the most attempts; raises RlinoError where there is none."""
    if sample is None:
        return max(group, key=lambda s: (len(s.search.attempts), -s.sample))
    found = [s for s in group if s.sample == sample]
    if not found:
        raise RlinoError(f"no response {sample}: the group has {', '.join(str(s.sample) for s in group[:16])}")
    return found[0]


def _page(group: list[Shown], now: Shown, where: str, token: int, overlay: bool, image: bool) -> str:
    attempt = now.attempt_at(token)
    at = now.ends[token - 1] if token else 0
    steps = sum(w.end <= at for w in now.search.attempts[attempt - 1].steps) if attempt else 0
    root = grow(group if overlay else [now])
    under_way = attempt or now.begun[token] + 1  # between attempts all those begun are over
    drawn = _draw(root, now.search.nums, Moment(now, under_way, steps, overlay, len(group)), image)
    more = _overlay_says(group, now, root) if overlay else ""
    title = f"<p><strong>{where} · {escape_line(problem_name(now.row), 200)}</strong></p>"
    table = frame_table(attempt_table(now), attempt or None)
    body = title + _says(now) + more + drawn + _KEY + _trace(now, token) + table
    return f'<section class="rlino-search mathjax_ignore" aria-label="Search view">{body}</section>'


def static_search(source: Any, step: int | None = None, group: int | None = None) -> Html:
    """A group as folds, with no kernel and no script: the whole group on one tree, then each response, the first open.

    The defaults, and what is raised, are those of `search_html`.
    """
    traces, step, group = locate(source, step, group)
    shown = read_group(traces.rows(step, group))
    where, now = f"Step {step}", pick(shown, None)
    pages = [("The whole group", _page(shown, now, where, len(now.tokens), True, True))]
    for s in shown:
        pages.append((sample_name(s), _page(shown, s, where, len(s.tokens), False, True)))
    return Html(STYLE + PAGE_STYLE + folds(pages))


def sample_name(shown: Shown) -> str:
    """A response in a menu: its number, verdict and attempts."""
    mark = "✓" if is_true(shown.row["correct"]) else "✗" if is_false(shown.row["correct"]) else "?"
    return f"{mark} #{shown.sample}, {len(shown.search.attempts)} attempts"
