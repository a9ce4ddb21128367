"""Countdown traces as trees of attempts, whose nodes are the numbers left: one response, or a group on one tree.

The reading is that of `tasks/countdown/trace.py`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate

import pandas as pd

from rlino_lib.errors import RlinoError
from rlino_lib.records.traces import Row, tokens_of
from rlino_lib.tasks.countdown.game import pieces
from rlino_lib.tasks.countdown.trace import Search, Written, countdown_problem, read_search, unordered

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


@dataclass
class Node:
    """Where the attempts stand after the same steps; the order of numbers that are added or multiplied is forgotten."""

    written: Written | None  # the step that leads here; None at the root
    path: tuple = ()  # the keys of the steps that lead here
    children: dict[tuple, Node] = field(default_factory=dict)
    passed: list[tuple[int, int]] = field(default_factory=list)  # (sample, attempt) that come through
    ended: list[tuple[int, int]] = field(default_factory=list)  # those that end here
    hit: bool = False
    y: float = 0.0

    @property
    def depth(self) -> int:
        """How many steps lead here."""
        return len(self.path)

    @property
    def text(self) -> str:
        """The operation that leads here."""
        return "{} {} {}".format(*unordered(self.written.step)) if self.written else ""


def grow(group: Iterable[Response]) -> Node:
    """The tree of the first MOST attempts of each response, DEEPEST steps deep."""
    root = Node(None)
    for response in group:
        for k, attempt in enumerate(response.search.attempts[:MOST], 1):
            node = root
            node.passed.append((response.sample, k))
            for depth, w in enumerate(attempt.steps[:DEEPEST], 1):
                key = unordered(w.step), w.fault
                node = node.children.setdefault(key, Node(w, (*node.path, key)))
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


def lay_out(root: Node) -> int:
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


Span = tuple[int, int]  # from and to a number of tokens, both included


def spans_of(response: Response, root: Node) -> tuple[dict[tuple, list[Span]], dict[int, Span]]:
    """When each node of the tree, by its path, and each attempt, by its number, is under way in a response."""
    nodes: dict[tuple, list[Span]] = {}
    for node in nodes_of(root)[1:]:
        for sample, k in node.passed:
            if sample == response.sample:
                written = response.search.attempts[k - 1].steps[node.depth - 1].end
                span = bisect_left(response.ends, written) + 1, response.token_after(k)
                nodes.setdefault(node.path, []).append(span)
    count = min(len(response.search.attempts), MOST)
    return nodes, {k: (bisect_left(response.begun, k), response.token_after(k)) for k in range(1, count + 1)}


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
        words = ", ".join("{} {} {} = {}".format(*w.step) for w in steps) + " …" * (len(a.steps) > DEEPEST)
        hits = "✓" if a.hit is not None else ""
        faults = "; ".join(w.fault for w in steps if w.fault)
        rows.append((words, hits, word, same if a.verdict else "", faults, str(search.tokens(a.start, a.end))))
    names = ["steps", "hits", "verdict", "repeats", "faults", "tokens"]
    return pd.DataFrame(rows, columns=names, index=pd.Index(range(1, len(rows) + 1), name="attempt"))


def pick(group: list[Response], sample: int | None) -> Response:
    """The response of this number, or the one with the most attempts; raises RlinoError where there is none."""
    if sample is None:
        return max(group, key=lambda s: (len(s.search.attempts), -s.sample))
    by_sample = {response.sample: response for response in group}
    if sample not in by_sample:
        raise RlinoError(f"no response {sample}: the group has {', '.join(map(str, list(by_sample)[:16]))}")
    return by_sample[sample]
