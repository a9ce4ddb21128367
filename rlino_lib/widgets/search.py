"""The search view (chapter 08): a Countdown trace as its tree of attempts, whose nodes are the numbers left.

One response, or all of its group on one tree; the reading is that of `tasks/countdown/trace.py`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import pandas as pd

from rlino_lib.errors import RlinoError
from rlino_lib.tasks.countdown.game import pieces
from rlino_lib.tasks.countdown.trace import Search, Written, countdown_problem, read_search, unordered
from rlino_lib.widgets.explorer import Explorer, Menus, menus_of, refill
from rlino_lib.widgets.groups import verdict
from rlino_lib.widgets.page import BLUE, STYLE, drawing_html, folds, frame_table, section
from rlino_lib.widgets.tokens import MAX_COLOURED, Html, escape_line, plain, token_spans, trace_box
from rlino_lib.widgets.traces import Row, Traces, as_traces, is_true, problem_name, tokens_of

DEEPEST = 6  # steps of an attempt that are drawn
MOST = 60  # attempts of one response that are drawn and listed: any response can be shown


@dataclass
class Response:
    """A response of the group with its tokens and its reading."""

    sample: int
    row: Row
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


def read_group(rows: Iterable[Row]) -> list[Response]:
    """The responses of a group, read; raises RlinoError where they are not answers to a Countdown problem."""
    responses = []
    for row in rows:
        problem = countdown_problem(row.get("data"))
        tokens = [str(t) for t in tokens_of(row)]
        text = row["response"] if isinstance(row.get("response"), str) else "".join(tokens)
        if len(tokens) < 2 or not "".join(tokens).startswith(text):
            tokens = pieces(text)
        search = read_search(problem, text)
        ends = list(accumulate(map(len, tokens)))
        starts = [attempt.start for attempt in search.attempts]
        begun = [0, *(bisect_left(starts, end) for end in ends)]
        responses.append(Response(int(row["sample"]), row, search, tokens, ends, begun))
    return responses


def is_search(rows: Iterable[Row]) -> bool:
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


def grow(group: Iterable[Response]) -> Node:
    """The tree of the first MOST attempts of each response, DEEPEST steps deep."""
    root = Node(None, 0)
    for response in group:
        for k, attempt in enumerate(response.search.attempts[:MOST], 1):
            node = root
            node.passed.append((response.sample, k))
            for depth, w in enumerate(attempt.steps[:DEEPEST], 1):
                node = node.children.setdefault((unordered(w.step), w.fault), Node(w, depth))
                node.passed.append((response.sample, k))
                node.hit |= attempt.hit == depth
            node.ended.append((response.sample, k))
    return root


def walk(node: Node) -> Iterable[tuple[Node, Node]]:
    """Every edge, (parent, child), in the order of drawing."""
    for child in node.children.values():
        yield node, child
        yield from walk(child)


def nodes_of(root: Node) -> list[Node]:
    """Every node, the root first, in the order of drawing."""
    return [root, *(child for _, child in walk(root))]


def _place(root: Node) -> int:
    """Give every node its row, leaves from the top and a parent in the middle of its children; the number of rows."""
    rows = 0
    for node in reversed(nodes_of(root)):
        if node.children:
            ys = [c.y for c in node.children.values()]
            node.y = (ys[0] + ys[-1]) / 2
        else:
            node.y = -rows
            rows += 1
    for node in nodes_of(root):
        node.y += rows - 1
    return rows


ROW = 32  # pixels of a leaf's row
LABEL = 76  # pixels of the level part of an edge, with its label
GAP = 46  # pixels of its sloped part


class Moment(NamedTuple):
    """What is drawn as happening: `attempt` of the response `now`, `steps` into it."""

    now: Response
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
        text = ", ".join(f"#{k}{' ↻' if j else ''} {verdicts[j]}" for j, k in enumerate(mine[:4]))
        text += " …" if len(mine) > 4 else ""
        if self.overlay and node.ended:
            text = f"{len({s for s, _ in node.ended})} of {self.size}" + (f" ({text})" if text else "")
        return text


def _draw(root: Node, start: tuple[int, ...], moment: Moment, image: bool) -> str:
    """The tree from left to right: the attempt under way is bold, what comes later is faint."""
    rows = _place(root)
    nodes = nodes_of(root)
    left = {id(n): _left(n, start) for n in nodes}
    x = 8.0
    columns = []
    for depth in range(max(n.depth for n in nodes) + 1):
        width = max(7.2 * len(left[id(n)]) + (28 if n.hit else 14) for n in nodes if n.depth == depth)
        columns.append((x, width))
        x += width + GAP + LABEL
    parts = []
    for parent, child in walk(root):
        begin = sum(columns[parent.depth]), 20 + ROW * parent.y
        parts.append(_edge(child, begin, (columns[child.depth][0], 20 + ROW * child.y), moment))
    for n in nodes:
        parts.append(_box(n, left[id(n)], columns[n.depth], 20 + ROW * n.y, moment))
    width = round(x - GAP - LABEL + 250)
    alt = f"tree of {len(root.passed)} attempts with {len(nodes)} nodes; the table has the attempts in words"
    body = SVG_STYLE + "".join(parts)
    return drawing_html(body, width, round(40 + ROW * (rows - 1)), alt, "tree of attempts", image, TREE)


def _left(node: Node, start: tuple[int, ...]) -> str:
    """The numbers left, as a node shows them."""
    left = start if node.written is None else node.written.left
    return plain("?" if left is None else " ".join(map(str, left)), 24)


def _edge(child: Node, begin: tuple[float, float], end: tuple[float, float], moment: Moment) -> str:
    """The line to a node with its operation: as wide as it is taken often, dashed where the step is wrong."""
    px, py = begin
    cx, cy = end
    bold, opacity = moment.look(child)
    many = len({s for s, _ in child.passed}) if moment.overlay else len(child.passed)
    width = min(1.2 * many, 12) + 1.5 * bold
    bend = cx - LABEL
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
    x, width = column
    broken = node.written is not None and bool(node.written.fault or node.written.left is None)
    bold, opacity = moment.look(node) if node.written else (False, 1.0)
    fill, ink = ("#111", "#fff") if node.hit else ("#fff", "#111")
    opacity = 1.0 if node.hit and moment.overlay else opacity
    look = f'fill="{fill}" stroke="{BLUE if bold else "#555"}" stroke-width="{2.5 if bold else 1}"'
    look += ' stroke-dasharray="4 2"' if broken else ""
    tip = f"<title>{escape_line(node.written.fault)}</title>" if broken and node.written.fault else ""
    attempts = moment.ended(node)
    return (
        f'<g opacity="{max(opacity, 0.45)}"><rect x="{x:.0f}" y="{y - 10:.0f}" width="{width:.0f}" height="20" rx="4" '
        f'{look}/><text x="{x + width / 2:.0f}" y="{y + 4:.0f}" text-anchor="middle" style="fill:{ink}">'
        f"{'✓ ' * node.hit}{escape_line(text)}</text>"
        + (f'<text x="{x + width + 8:.0f}" y="{y + 4:.0f}">{escape_line(attempts)}</text>' if attempts else "")
        + f"{tip}</g>"
    )


TREE = "rlino-tree"
SVG_STYLE = f"<style>.{TREE} text{{font:11px sans-serif;fill:currentColor}}</style>"

# --- the words -------------------------------------------------------------------------------------------------------


def attempt_table(response: Response) -> pd.DataFrame:
    """The first MOST attempts of a response in words, a row each, all cells text."""
    search = response.search
    repeats = zip(*(search.repeats(same) for same in ("exact", "order", "results")), strict=True)
    rows = []
    for a, (exact, order, results) in zip(search.attempts[:MOST], repeats, strict=False):
        same = f"#{exact}" if exact else f"#{order}, in another order" if order else ""
        same = same or (f"#{results}, its results" if results else "new")
        word = a.verdict or "none"
        if (a.hit is not None) != (a.verdict == "yes") and a.verdict:
            word += ", but hits" if a.hit is not None else ", but does not hit"
        steps = a.steps[:DEEPEST]
        rows.append(
            {
                "steps": ", ".join("{} {} {} = {}".format(*w.step) for w in steps) + " …" * (len(a.steps) > DEEPEST),
                "hits": "✓" if a.hit is not None else "",
                "verdict": word,
                "repeats": same if a.verdict else "",
                "faults": "; ".join(w.fault for w in steps if w.fault),
                "tokens": str(search.tokens(a.start, a.end)),
            }
        )
    names = ["steps", "hits", "verdict", "repeats", "faults", "tokens"]
    return pd.DataFrame(rows, columns=names, index=pd.Index(range(1, len(rows) + 1), name="attempt"))


def _sentences(response: Response) -> str:
    """The response as a search, in a line or two."""
    search = response.search
    grade = verdict(response.row)[1][2:]
    again = sum(k is not None for k in search.repeats())
    count = len(search.attempts)
    hit = search.first_hit
    lines = [
        f"Response {response.sample}, {grade}: {_count(count, 'attempt')}, {again or 'none'} made before.",
        f"The first hit is attempt {hit}." if hit else "No attempt hits the target.",
    ]
    if hit and hit < count:
        lines.append(f"After it: {_count(count - hit, 'attempt')}.")
    if is_true(response.row["clipped"]):
        lines.append("The response ran into its cap.")
    k = search.answer_attempt
    lines.append("The answer is no attempt's expression." if k is None else f"The answer is what attempt {k} wrote.")
    if search.filler:
        size = sum(len(pieces(text)) for text in search.filler)
        lines.append(f"Filler that is no attempt: {_count(size, 'token')}, from “{plain(search.filler[0], 60)}”.")
    if count > MOST:
        lines.append(f"Only the first {MOST} attempts are shown.")
    return f"<p>{escape_line(' '.join(lines))}</p>"


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _group_sentences(group: list[Response], now: Response, root: Node) -> str:
    """The group in a line: how much of the tree its responses share."""
    attempts = sum(len(s.search.attempts) for s in group)
    paths = [n for n in nodes_of(root) if n.ended]
    shared = sum(len({s for s, _ in n.ended}) > 1 for n in paths)
    hits = sum(s.search.first_hit is not None for s in group)
    return (
        f"<p>{_count(len(group), 'response')}, {_count(attempts, 'attempt')}, {len(paths)} of them different; {shared} "
        f"were made by more than one response; {hits} responses hit the target. An edge is as wide as the responses "
        f"that take it are many, and the attempts named (#) are those of response {now.sample}.</p>"
    )


_KEY = (
    "<p>Boxes hold the numbers left; ✓ on black is the target alone. ✗ and dashes mark a step that is wrong arithmetic "
    "or takes a number that is not left (? where nobody knows what is). #2 is the second attempt, with its verdict; "
    "↻ is one that was made before; × counts how often a step is taken, in a group by how many responses. Blue and "
    "bold is the attempt under way, and what is faint comes later.</p>"
)


def _trace(response: Response, token: int) -> str:
    """The text token by token; what has not been written yet is not there, and the last token is marked."""
    values = [0.0] * len(response.tokens[:token])
    values[-1:] = [1.0] * bool(values)
    tips = [f"token {t + 1}, attempt {response.attempt_at(t + 1) or '–'}" for t in range(min(token, MAX_COLOURED))]
    spans, notes = token_spans(response.tokens[:token], values, scale="sequential", limit=1.0, tips=tips)
    notes = [*notes, f"{token:,} of {len(response.tokens):,} tokens."]
    return trace_box(spans, notes, f"Response {response.sample} up to token {token}")


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
    responses = read_group(traces.rows(step, group))
    now = pick(responses, sample)
    token = len(now.tokens) if token is None else token
    if not 0 <= token <= len(now.tokens):
        raise RlinoError(f"token {token} of a response of {len(now.tokens)} tokens")
    return Html(STYLE + _section(responses, now, f"Step {step}", token, overlay, image))


def locate(source: Any, step: int | None, group: int | None) -> tuple[Traces, int, int | None]:
    """The traces of a source, and the step and the group, the defaults of `search_html` where they are None."""
    traces = as_traces(source)
    if not traces.steps:
        raise RlinoError(traces.message)
    step = traces.steps[0] if step is None else step
    return traces, step, traces.first_mixed(step) if group is None and step in traces.steps else group


def pick(group: list[Response], sample: int | None) -> Response:
    """The response of this number, or the one with the most attempts; raises RlinoError where there is none."""
    if sample is None:
        return max(group, key=lambda s: (len(s.search.attempts), -s.sample))
    by_sample = {response.sample: response for response in group}
    if sample not in by_sample:
        raise RlinoError(f"no response {sample}: the group has {', '.join(map(str, list(by_sample)[:16]))}")
    return by_sample[sample]


def _section(group: list[Response], now: Response, where: str, token: int, overlay: bool, image: bool) -> str:
    attempt = now.attempt_at(token)
    at = now.ends[token - 1] if token else 0
    steps = sum(w.end <= at for w in now.search.attempts[attempt - 1].steps) if attempt else 0
    root = grow(group if overlay else [now])
    under_way = attempt or now.begun[token] + 1  # between attempts all those begun are over
    drawing = _draw(root, now.search.nums, Moment(now, under_way, steps, overlay, len(group)), image)
    shared = _group_sentences(group, now, root) if overlay else ""
    title = f"<p><strong>{where} · {escape_line(problem_name(now.row), 200)}</strong></p>"
    table = frame_table(attempt_table(now), attempt or None)
    body = title + _sentences(now) + shared + drawing + _KEY + _trace(now, token) + table
    return section(body, "Search view", "rlino-page rlino-search")


def static_search(source: Any, step: int | None = None, group: int | None = None) -> Html:
    """A group as folds, with no kernel and no script: the whole group on one tree, then each response, the first open.

    The defaults, and what is raised, are those of `search_html`.
    """
    traces, step, group = locate(source, step, group)
    responses = read_group(traces.rows(step, group))
    where = f"Step {step}"
    now = pick(responses, None)
    pages = [("The whole group", _section(responses, now, where, len(now.tokens), True, True))]
    for s in responses:
        pages.append((sample_name(s), _section(responses, s, where, len(s.tokens), False, True)))
    return Html(STYLE + folds(pages))


def sample_name(response: Response) -> str:
    """A response in a menu: its number, verdict and attempts."""
    return f"{verdict(response.row)[1][0]} #{response.sample}, {len(response.search.attempts)} attempts"


# --- the view --------------------------------------------------------------------------------------------------------


class SearchView(Explorer):
    """Step, problem, response, attempt, token and overlay over `search_html`. Attempt and token move each other."""

    def __init__(self, traces: Traces, step: int, group: int, sample: int | None, overlay: bool) -> None:
        self.traces = traces
        self.group = read_group(traces.rows(step, group))
        menus = menus_of(
            step=("Step:", step, [(str(s), s) for s in traces.steps]),
            group=("Problem:", group, self._problems(step)),
            sample=("Response:", pick(self.group, sample).sample, self._samples()),
            attempt=("Attempt:", 0, range(1)),
            token=("Token:", 0, range(1)),
            overlay=("Tree of:", overlay, [("the response", False), ("its whole group", True)]),
        )
        for name in ("group", "sample"):
            menus[name].layout.width = "35em"  # their words are longer
        super().__init__(partial(search_html, traces), "SearchView()", menus, self._refit, image=True)

    def _problems(self, step: int) -> list[tuple[str, int]]:
        titles = ((self.traces.title(step, g), g) for g in self.traces.groups(step))
        return [(title.replace(" right", " ✓"), g) for title, g in titles]  # a slider's words have little room

    def _samples(self) -> list[tuple[str, int]]:
        return [(sample_name(s), s.sample) for s in self.group]

    @property
    def now(self) -> Response:
        """The response chosen."""
        return pick(self.group, self.menus["sample"].value)

    @property
    def choice(self) -> dict[str, Any]:
        """The arguments with which `search_html` gives what is shown: the attempt follows from the token."""
        return {name: menu.value for name, menu in self.menus.items() if name != "attempt"}

    def _refit(self, menus: Menus, name: str | None) -> None:
        attempt, token = menus["attempt"], menus["token"]
        if name == "step":
            step = menus["step"].value
            refill(menus["group"], self._problems(step), self.traces.first_mixed(step))
        if name in ("step", "group"):
            self.group = read_group(self.traces.rows(menus["step"].value, menus["group"].value))
            refill(menus["sample"], self._samples(), pick(self.group, None).sample)
        if name in (None, "step", "group", "sample"):  # a response is first shown whole
            attempt.max = len(self.now.search.attempts)
            token.max = len(self.now.tokens)
            token.value = token.max
        if name == "attempt":
            token.value = self.now.token_after(attempt.value)
        elif name != "overlay":
            attempt.value = self.now.begun[token.value]


def search_view(
    source: Any,
    *,
    step: int | None = None,
    group: int | None = None,
    sample: int | None = None,
    overlay: bool = False,
) -> SearchView:
    """The search view of a run or a frame of Countdown rollouts; the arguments and errors are `search_html`'s."""
    return SearchView(*locate(source, step, group), sample, overlay)
