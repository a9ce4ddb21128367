"""The search view (chapter 08): a Countdown trace as its tree of attempts, whose nodes are the numbers left.

One response, or all of its group on one tree; the reading is that of `tasks/countdown/trace.py`.
"""

from __future__ import annotations

from typing import Any

from rlino_lib.analysis import attempts as trees
from rlino_lib.analysis.attempts import MOST, Node, Response
from rlino_lib.errors import RlinoError
from rlino_lib.records.traces import Traces, as_traces, is_true, places_of, problem_name, shorten
from rlino_lib.tasks.countdown.game import pieces
from rlino_lib.widgets.inspector import verdict
from rlino_lib.widgets.page import BUDGET, Boxes, Control, Trace, drawing, explorer, frame_table, slot, stepped
from rlino_lib.widgets.tokens import Html, escape_line, notes_html, plain

# --- the tree --------------------------------------------------------------------------------------------------------

ROW = 32  # pixels of a leaf's row
LABEL = 76  # pixels of the level part of an edge, with its label
GAP = 46  # pixels of its sloped part


def _draw(root: Node, ids: dict[tuple, int], group: list[Response]) -> str:
    """The tree of these responses from left to right; each node has its id, and the script its looks."""
    rows = trees.lay_out(root)
    nodes = trees.nodes_of(root)
    numbers = {id(n): n.written.left if n.written else group[0].search.nums for n in nodes}
    left = {k: plain("?" if own is None else " ".join(map(str, own)), 24) for k, own in numbers.items()}
    x = 8.0
    columns = []
    for depth in range(max(n.depth for n in nodes) + 1):
        width = max(7.2 * len(left[id(n)]) + (28 if n.hit else 14) for n in nodes if n.depth == depth)
        columns.append((x, width))
        x += width + GAP + LABEL
    parts = [_box(root, left[id(root)], columns[0], group)]
    for parent, child in trees.walk(root):
        edge = _edge(parent, child, sum(columns[parent.depth]), columns[child.depth][0], len(group) > 1)
        box = _box(child, left[id(child)], columns[child.depth], group)
        parts.append(f'<g data-id="n{ids[child.path]}">{edge}{box}</g>')
    alt = f"tree of {len(root.passed)} attempts with {len(nodes)} nodes; the table has the attempts in words"
    return drawing("".join(parts), x - GAP - LABEL + 250, 40 + ROW * (rows - 1), alt, "tree of attempts")


def _edge(parent: Node, child: Node, left: float, right: float, of_group: bool) -> str:
    """The line to a node with its operation: as wide as it is taken often, dashed where the step is wrong."""
    top, y = 20 + ROW * parent.y, 20 + ROW * child.y
    many = len({s for s, _ in child.passed}) if of_group else len(child.passed)
    width = min(1.2 * many, 12)
    bend = right - LABEL
    look = f'fill="none" stroke="currentColor" stroke-width="{width:.1f}"'
    look += ' stroke-dasharray="5 3"' if child.written.fault else ""
    curve = f"M{left:.0f} {top:.0f}C{left + 26:.0f} {top:.0f} {bend - 26:.0f} {y:.0f} {bend:.0f} {y:.0f}H{right:.0f}"
    words = child.text + (" ✗" if child.written.fault else "") + (f" ×{many}" if many > 1 else "")
    place = f'x="{right - LABEL / 2 - 2:.0f}" y="{y - 4 - width / 2:.0f}" text-anchor="middle"'
    return f'<path d="{curve}" {look}/><text {place}>{escape_line(words, 30)}</text>'


def _box(node: Node, text: str, column: tuple[float, float], group: list[Response]) -> str:
    """A node: green with ✓ where the target alone is left, dashed where a step broke the rules; who ends there."""
    x, width = column
    y = 20 + ROW * node.y
    fault = node.written.fault if node.written else ""
    broken = node.written is not None and (fault or node.written.left is None)
    fill, ink = ("#077a58", "#fff") if node.hit else ("none", "currentColor")
    look = f'fill="{fill}" stroke="#555"' + (' stroke-dasharray="4 2"' if broken else "")
    ended = _ended(node, group)
    return (
        f'<rect x="{x:.0f}" y="{y - 10:.0f}" width="{width:.0f}" height="20" rx="4" {look}/>'
        f'<text x="{x + width / 2:.0f}" y="{y + 4:.0f}" text-anchor="middle" style="fill:{ink}">'
        f"{'✓ ' * node.hit}{escape_line(text)}</text>"
        + (f'<text x="{x + width + 8:.0f}" y="{y + 4:.0f}">{escape_line(ended)}</text>' if ended else "")
        + (f"<title>{escape_line(fault)}</title>" if fault else "")
    )


def _ended(node: Node, group: list[Response]) -> str:
    """The attempts that end at a node, ↻ marks those made before; in a group, how many of its responses have one."""
    if len(group) > 1:
        return f"{len({s for s, _ in node.ended})} of {len(group)}" if node.ended else ""
    own = [k for _, k in node.ended]
    verdicts = [group[0].search.attempts[k - 1].verdict or "no verdict" for k in own]
    text = ", ".join(f"#{k}{' ↻' if j else ''} {verdicts[j]}" for j, k in enumerate(own[:4]))
    return text + (" …" if len(own) > 4 else "")


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


def _words(response: Response, root: Node, ids: dict[tuple, int], boxes: Boxes) -> str:
    """A response's sentences, its text and its table, with what stepping through them needs."""
    attempts = len(response.search.attempts)
    stops = [0, *(response.token_after(k) for k in range(1, attempts + 1))]
    nodes, rows = trees.spans_of(response, root)
    marks = {f"n{ids[path]}": spans for path, spans in nodes.items()} | {f"a{k}": [span] for k, span in rows.items()}
    tokens, notes = shorten(response.tokens)
    box = boxes.add(Trace(tokens), f"Response {response.sample}", "rlino-stepped") + notes_html(notes)
    table = frame_table(trees.attempt_table(response), ids=[f"a{k}" for k in rows])
    return f"<div {stepped(len(response.tokens), marks, stops)}>{_sentences(response)}{box}{table}</div>"


def sample_name(response: Response) -> str:
    """A response in a menu: its number, verdict and attempts."""
    return f"#{response.sample} · {verdict(response.row)[1][0]} {_count(len(response.search.attempts), 'attempt')}"


class _Pages:
    """What the view shows, by steps, problems and responses as they stand in menus."""

    def __init__(self, boxes: Boxes) -> None:
        self.trees: dict[tuple, str] = {}  # (step, problem, response, whether of the group)
        self.words: dict[tuple, str] = {}  # (step, problem, response)
        self.best: list[str] = []  # the response with the most attempts of each group
        self.boxes = boxes

    def add(self, traces: Traces, step: int, group: int) -> None:
        """The pages of a group."""
        title = plain(traces.title(step, group))
        members = trees.read_group(traces.rows(step, group))
        root = trees.grow(members)
        ids = {node.path: k for k, node in enumerate(trees.nodes_of(root))}
        head = f"<p><strong>Step {step} · {escape_line(problem_name(members[0].row), 200)}</strong></p>"
        pages = [head + _group_sentences(members, root) + _draw(root, ids, members) + _KEY]
        for response in members:
            key = step, title, sample_name(response)
            self.words[key] = _words(response, root, ids, self.boxes)
            self.trees[*key, False] = head + _draw(trees.grow([response]), ids, [response]) + _KEY
            self.trees[*key, True] = pages[0]
            pages += [self.trees[*key, False], self.words[key]]
        self.best.append(sample_name(trees.pick(members, None)))
        self.boxes.count(*pages)


def search_view(
    source: Any, step: int | None = None, group: int | None = None, sample: int | None = None, budget: int = BUDGET
) -> Html:
    """A response as its tree of attempts, its text and its attempts, stepped through by token or by attempt.

    `source` is a run or a DataFrame of rollouts of Countdown. It starts at the first step, its first group with right
    and wrong responses, and there the response with the most attempts, unless they are given. Other groups are there
    as far as `budget` characters of data have room for them. Raises RlinoError for what is not recorded, and for
    rollouts of another task.
    """
    traces = as_traces(source)
    if not traces.steps:
        raise RlinoError(traces.message)
    step = traces.steps[0] if step is None else step
    if group is None:
        group = traces.first_mixed(step) if step in traces.steps else 0
    opened = sample_name(trees.pick(trees.read_group(traces.rows(step, group)), sample))
    pages = _Pages(Boxes(budget))
    for place in dict.fromkeys([(step, group), *((at, g) for _, at, g in places_of([traces], None, None))]):
        if pages.words and not pages.boxes.room:
            break
        pages.add(traces, *place)
    steps, problems, names = ({key[k]: None for key in pages.words} for k in range(3))
    by_number = sorted(names, key=lambda name: (int(name[1:].split()[0]), name))
    controls = [
        Control("step", "Step", {s: str(s) for s in sorted(steps)}, step, buttons=True, nearest=True),
        Control("problem", "Problem", sorted(problems), next(iter(problems)), first=list(problems)),
        Control("response", "Response", by_number, opened, buttons=True, first=pages.best),
        Control("tree", "Tree of", {False: "the response", True: "its whole group"}),
        Control("attempt", "Attempt", kind="stop", buttons=True),
        Control("token", "Token", kind="step", buttons=True),
    ]
    by = ("step", "problem", "response", "tree")
    slots = {"tree": (by, pages.trees), "words": (by[:3], pages.words)}
    return explorer("Search view", controls, slots, slot("tree") + slot("words"), pages.boxes.traces)
