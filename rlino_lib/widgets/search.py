"""The search view (chapter 08): a Countdown trace as its tree of attempts, whose nodes are the numbers left.

One response, or all of its group on one tree; the reading is that of `tasks/countdown/trace.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlino_lib.analysis import attempts as trees
from rlino_lib.analysis.attempts import MOST, Node, Response
from rlino_lib.errors import RlinoError
from rlino_lib.records.traces import as_traces, is_true, places_of, problem_name, shorten
from rlino_lib.tasks.countdown.game import pieces
from rlino_lib.widgets.inspector import verdict
from rlino_lib.widgets.page import (
    BUDGET,
    Control,
    Meter,
    Slot,
    Trace,
    drawing,
    explorer,
    frame_table,
    slot,
    stepped,
    trace_box,
)
from rlino_lib.widgets.tokens import Html, escape_line, notes_html, plain

# --- the tree --------------------------------------------------------------------------------------------------------

ROW = 32  # pixels of a leaf's row
LABEL = 76  # pixels of the level part of an edge, with its label
GAP = 46  # pixels of its sloped part


def _draw(root: Node, start: tuple[int, ...], ids: dict[tuple, int], of: Response | int) -> str:
    """The tree from left to right, of one response or of so many; each node has its id, and the script its looks."""
    rows = trees.lay_out(root)
    nodes = trees.nodes_of(root)
    left = {id(n): _left(n, start) for n in nodes}
    x = 8.0
    columns = []
    for depth in range(max(n.depth for n in nodes) + 1):
        width = max(7.2 * len(left[id(n)]) + (28 if n.hit else 14) for n in nodes if n.depth == depth)
        columns.append((x, width))
        x += width + GAP + LABEL
    parts = [_box(root, left[id(root)], columns[0], 20 + ROW * root.y, of)]
    for parent, child in trees.walk(root):
        begin = sum(columns[parent.depth]), 20 + ROW * parent.y
        y = 20 + ROW * child.y
        edge = _edge(child, begin, (columns[child.depth][0], y), of)
        box = _box(child, left[id(child)], columns[child.depth], y, of)
        parts.append(f'<g data-id="n{ids[child.path]}">{edge}{box}</g>')
    alt = f"tree of {len(root.passed)} attempts with {len(nodes)} nodes; the table has the attempts in words"
    return drawing("".join(parts), x - GAP - LABEL + 250, 40 + ROW * (rows - 1), alt, "tree of attempts")


def _left(node: Node, start: tuple[int, ...]) -> str:
    """The numbers left, as a node shows them."""
    left = start if node.written is None else node.written.left
    return plain("?" if left is None else " ".join(map(str, left)), 24)


def _edge(child: Node, begin: tuple[float, float], end: tuple[float, float], of: Response | int) -> str:
    """The line to a node with its operation: as wide as it is taken often, dashed where the step is wrong."""
    px, py = begin
    cx, cy = end
    many = len({s for s, _ in child.passed}) if isinstance(of, int) else len(child.passed)
    width = min(1.2 * many, 12)
    bend = cx - LABEL
    look = f'fill="none" stroke="currentColor" stroke-width="{width:.1f}"'
    look += ' stroke-dasharray="5 3"' if child.written.fault else ""
    curve = f"M{px:.0f} {py:.0f}C{px + 26:.0f} {py:.0f} {bend - 26:.0f} {cy:.0f} {bend:.0f} {cy:.0f}H{cx:.0f}"
    words = child.text + (" ✗" if child.written.fault else "") + (f" ×{many}" if many > 1 else "")
    place = f'x="{cx - LABEL / 2 - 2:.0f}" y="{cy - 4 - width / 2:.0f}" text-anchor="middle"'
    return f'<path d="{curve}" {look}/><text {place}>{escape_line(words, 30)}</text>'


def _box(node: Node, text: str, column: tuple[float, float], y: float, of: Response | int) -> str:
    """A node: green with ✓ where the target alone is left, dashed where a step broke the rules; who ends there."""
    x, width = column
    broken = node.written is not None and bool(node.written.fault or node.written.left is None)
    fill, ink = ("#077a58", "#fff") if node.hit else ("none", "currentColor")
    look = f'fill="{fill}" stroke="#555"' + ' stroke-dasharray="4 2"' * broken
    tip = f"<title>{escape_line(node.written.fault)}</title>" if broken and node.written.fault else ""
    ended = _ended(node, of)
    return (
        f'<rect x="{x:.0f}" y="{y - 10:.0f}" width="{width:.0f}" height="20" rx="4" {look}/>'
        f'<text x="{x + width / 2:.0f}" y="{y + 4:.0f}" text-anchor="middle" style="fill:{ink}">'
        f"{'✓ ' * node.hit}{escape_line(text)}</text>"
        + (f'<text x="{x + width + 8:.0f}" y="{y + 4:.0f}">{escape_line(ended)}</text>' if ended else "")
        + tip
    )


def _ended(node: Node, of: Response | int) -> str:
    """The attempts that end at a node, ↻ marks those made before; in a group, how many of its responses have one."""
    if isinstance(of, int):
        return f"{len({s for s, _ in node.ended})} of {of}" if node.ended else ""
    mine = [k for _, k in node.ended]
    verdicts = [of.search.attempts[k - 1].verdict or "no verdict" for k in mine]
    text = ", ".join(f"#{k}{' ↻' if j else ''} {verdicts[j]}" for j, k in enumerate(mine[:4]))
    return text + (" …" if len(mine) > 4 else "")


# --- the words -------------------------------------------------------------------------------------------------------


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


def _group_sentences(group: list[Response], root: Node) -> str:
    """The group in a line: how much of the tree its responses share."""
    attempts = sum(len(s.search.attempts) for s in group)
    paths = [n for n in trees.nodes_of(root) if n.ended]
    shared = sum(len({s for s, _ in n.ended}) > 1 for n in paths)
    hits = sum(s.search.first_hit is not None for s in group)
    return (
        f"<p>The group: {_count(len(group), 'response')}, {_count(attempts, 'attempt')}, {len(paths)} of them "
        f"different; {shared} were made by more than one response; {hits} responses hit the target.</p>"
    )


_KEY = (
    "<p>Boxes hold the numbers left; ✓ on green is the target alone. ✗ and dashes mark a step that is wrong arithmetic "
    "or takes a number that is not left (? where nobody knows what is). #2 is the second attempt, with its verdict; "
    "↻ is one that was made before; × counts how often a step is taken, in a group by how many responses. Blue and "
    "bold is the attempt under way, and what is faint comes later or is another response's.</p>"
)

# --- the view --------------------------------------------------------------------------------------------------------


def _words(response: Response, root: Node, ids: dict[tuple, int], trace: int, notes: list[str]) -> str:
    """A response's sentences, its text and its table, with what stepping through them needs."""
    attempts = len(response.search.attempts)
    stops = [0, *(response.token_after(k) for k in range(1, attempts + 1))]
    nodes, rows = trees.spans_of(response, root)
    marks = {f"n{ids[path]}": spans for path, spans in nodes.items()} | {f"a{k}": [span] for k, span in rows.items()}
    attributes = stepped(len(response.tokens), marks, stops)
    box = trace_box(trace, f"Response {response.sample}", "rlino-stepped")
    table = frame_table(trees.attempt_table(response), ids=[f"a{k}" for k in rows])
    return f"<div {attributes}>{_sentences(response)}{box}{notes_html(notes)}{table}</div>"


def sample_name(response: Response) -> str:
    """A response in a menu: its number, verdict and attempts."""
    return f"#{response.sample} · {verdict(response.row)[1][0]} {_count(len(response.search.attempts), 'attempt')}"


def search_view(
    source: Any,
    *,
    step: int | None = None,
    group: int | None = None,
    sample: int | None = None,
    overlay: bool = False,
    budget: int = BUDGET,
) -> Html:
    """A response as its tree of attempts, its text and its attempts, stepped through by token or by attempt.

    `source` is a run or a DataFrame of rollouts of Countdown. It starts at the first step, its first group with right
    and wrong responses, and there the response with the most attempts, unless they are given. `overlay` starts with the
    attempts of all responses of the group on one tree. Other groups are there as far as `budget` characters of data
    have room for them. Raises RlinoError for what is not recorded, and for rollouts of another task.
    """
    traces = as_traces(source)
    if not traces.steps:
        raise RlinoError(traces.message)
    step = traces.steps[0] if step is None else step
    if group is None:
        group = traces.first_mixed(step) if step in traces.steps else 0
    responses = trees.read_group(traces.rows(step, group))
    now = trees.pick(responses, sample)
    pages: dict[tuple, str] = {}  # (step, problem, response, whether of the group)
    texts: dict[tuple, str] = {}  # (step, problem, response)
    made: list[Trace] = []
    best: list[str] = []  # the response with the most attempts of each group
    meter = Meter(budget)
    done: set[tuple[int, int]] = set()
    for _, at, g in [(0, step, group), *places_of([traces], None, None)]:
        if (at, g) in done or (done and not meter.room):
            continue
        done.add((at, g))
        title = plain(traces.title(at, g))
        members = trees.read_group(traces.rows(at, g))
        root = trees.grow(members)
        ids = {node.path: k for k, node in enumerate(trees.nodes_of(root))}
        whole = _group_sentences(members, root) + _draw(root, members[0].search.nums, ids, len(members)) + _KEY
        head = f"<p><strong>Step {at} · {escape_line(problem_name(members[0].row), 200)}</strong></p>"
        written = [head + whole]
        first = len(made)
        for response in members:
            key = at, title, sample_name(response)
            own = _draw(trees.grow([response]), response.search.nums, ids, response) + _KEY
            tokens, notes = shorten(response.tokens)
            made.append(Trace(tokens))
            texts[key] = _words(response, root, ids, len(made) - 1, notes)
            pages[*key, False] = head + own
            pages[*key, True] = head + whole
            written += [own, texts[key]]
        best.append(sample_name(trees.pick(members, None)))
        meter.add(written, made[first:])
    opened = step, plain(traces.title(step, group)), sample_name(now)
    return _page(pages, texts, made, best, (*opened, overlay))


def _page(
    pages: dict[tuple, str], texts: dict[tuple, str], made: Sequence[Trace], best: Sequence[str], start: tuple
) -> Html:
    """The explorer over trees and texts by what stands in menus."""
    steps, problems, names = ({key[k]: None for key in texts} for k in range(3))
    by_number = sorted(names, key=lambda name: (int(name[1:].split()[0]), name))
    controls = [
        Control("step", "Step", {s: str(s) for s in sorted(steps)}, start[0], buttons=True, nearest=True),
        Control("problem", "Problem", sorted(problems), start[1], first=list(problems)),
        Control("response", "Response", by_number, start[2], buttons=True, first=best),
        Control("tree", "Tree of", {False: "the response", True: "its whole group"}, start[3]),
        Control("attempt", "Attempt", kind="stop", buttons=True),
        Control("token", "Token", kind="step", buttons=True),
    ]
    by = ("step", "problem", "response", "tree")
    slots = {"tree": Slot(by, pages), "words": Slot(by[:3], texts)}
    return explorer("Search view", controls, slots, slot("tree") + slot("words"), made, "rlino-search")
