"""The MDP explorer (chapter 01): a token MDP as a drawing, a response through it, and exact credit beside uniform."""

from __future__ import annotations

import html
import itertools
from collections.abc import Callable
from typing import NamedTuple

import pandas as pd
import torch

from rlino_lib.errors import RlinoError
from rlino_lib.exact.token_mdp import TabularPolicy, TokenMDP
from rlino_lib.widgets.page import Control, Slot, chosen, drawing, explorer, frame_table, slot, stepped
from rlino_lib.widgets.tokens import Html, escape_line, number

LARGEST = 48  # responses that a drawing can hold


class Rule(NamedTuple):
    """A reward that a running summary of the text decides, so that states with one summary can be merged."""

    words: str
    step: Callable[[int, int], int]  # (summary, token) → summary; it starts at 0
    right: int  # the summary at EOS of a right response; one that never ends itself is wrong


RULES = {
    "two": Rule("exactly two a", lambda s, token: min(s + (token == 1), 3), 2),
    "even": Rule("an even number of a", lambda s, token: (s + (token == 1)) % 2, 0),
    "string": Rule("aba and nothing else", lambda s, token: s + 1 if (s, token) in ((0, 1), (1, 2), (2, 1)) else -1, 3),
}


class Explored(NamedTuple):
    """An MDP, its summaries, and a policy that depends on nothing but the merged state."""

    mdp: TokenMDP
    classes: torch.Tensor  # [S] the merged state of each string
    policy: TabularPolicy


def explore(vocab: int = 3, horizon: int = 4, reward: str = "two", slip: float = 0.0) -> Explored:
    """The MDP of a rule. Its merged state is (length, summary); strings of one class have one policy and one value.

    Raises RlinoError for an unknown rule, and for more responses than can be drawn.
    """
    rule = RULES[chosen(reward, RULES, "reward")]
    mdp = TokenMDP(vocab, horizon, lambda tokens, mask: torch.zeros(len(tokens)), slip)
    if mdp.n_responses > LARGEST:
        raise RlinoError(f"{mdp.n_responses} responses are too many to draw: at most {LARGEST}")
    summary = [0]
    for parent, token in zip(mdp.parent[1:].tolist(), mdp.last[1:].tolist(), strict=True):
        summary.append(rule.step(summary[parent], token))
    keys = list(zip(mdp.depth.tolist(), summary, strict=True))
    index = {key: k for k, key in enumerate(dict.fromkeys(keys))}
    classes = torch.tensor([index[key] for key in keys])  # [S]
    rows = torch.arange(mdp.n_responses)
    ended = mdp.tokens[rows, mdp.lengths - 1] == 0  # [N]
    mdp.rewards = (ended & (torch.tensor(summary) == rule.right)[mdp.states[rows, mdp.lengths - 1]]).double()  # [N]
    # Of the first hundred seeds, one whose likeliest right response has a token that lowers the chance of success.
    return Explored(mdp, classes, TabularPolicy(mdp, 1.0, seed=50, classes=classes))


# --- the drawing -----------------------------------------------------------------------------------------------------


class Node(NamedTuple):
    """A place in the drawing: its column and value, whether a response ends there, and the strings it stands for."""

    column: int
    value: float
    end: bool
    texts: list[str]


Edge = tuple[int, int]  # the numbers of two nodes


class Graph(NamedTuple):
    """A drawing's nodes, its edges {(from, to): [(token, probability)]}, and the node of each place.

    A place is a state, or S + n for the end of response n.
    """

    nodes: list[Node]
    edges: dict[Edge, list[tuple[str, float]]]
    place: list[int]


def _graph(explored: Explored, merge: bool) -> Graph:
    """In depth-first order, so that a column read downwards has the order of the tree."""
    mdp, policy = explored.mdp, explored.policy
    texts = [t or "the prompt" for t in mdp.tree(policy)["state"]] + mdp.responses(policy)["response"].tolist()
    values = [*mdp.values(policy).V.tolist(), *mdp.rewards.tolist()]
    columns = [*mdp.depth.tolist(), *mdp.lengths.tolist()]
    probs = mdp.token_logprobs(policy).exp().tolist()  # [S, V]
    s = mdp.n_states
    ends = [("end", columns[k], values[k]) if merge else k for k in range(s, len(texts))]
    keys = [*(explored.classes.tolist() if merge else range(s)), *ends]
    nodes: dict[object, Node] = {}
    edges: dict[tuple, list[tuple[str, float]]] = {}
    todo = [0]  # places
    while todo:
        place = todo.pop()
        key = keys[place]
        new = key not in nodes
        nodes.setdefault(key, Node(columns[place], values[place], place >= s, [])).texts.append(texts[place])
        after = mdp.successors[place].tolist() if place < s else []
        for token, target in enumerate(after if new else []):
            edges.setdefault((key, keys[target]), []).append((mdp.names[token], probs[place][token]))
        todo += reversed(after)
    index = {key: k for k, key in enumerate(nodes)}
    numbered = {(index[a], index[b]): tokens for (a, b), tokens in edges.items()}
    return Graph(list(nodes.values()), numbered, [index[key] for key in keys])


def _drawing(graph: Graph, merge: bool) -> str:
    """The graph from left to right; the script makes the path of the response bold, as far as it has come."""
    columns: dict[int, list[int]] = {}
    for k, node in sorted(enumerate(graph.nodes), key=lambda item: merge and not item[1].end):  # merged: ends on top
        columns.setdefault(node.column, []).append(k)
    height = max(60, (46 if merge else 21) * max(map(len, columns.values())))
    gap = 150
    at: dict[int, tuple[int, int]] = {}
    for column, members in columns.items():
        at |= {k: (34 + gap * column, round(12 + height * (j + 0.5) / len(members))) for j, k in enumerate(members)}
    along = 0.28 if merge else 0.72  # where on an edge its words stand
    edges = [_edge(at[a], at[b], tokens, along, f"e{a}_{b}") for (a, b), tokens in graph.edges.items()]
    dots = [_dot(node, at[k], f"d{k}") for k, node in enumerate(graph.nodes)]
    alt = f"{len(graph.nodes)} nodes; the table has the path in words"
    return drawing("".join(edges + dots), 60 + gap * max(columns), height + 24, alt, "drawing of the MDP")


def _edge(
    start: tuple[int, int], end: tuple[int, int], tokens: list[tuple[str, float]], along: float, name: str
) -> str:
    """A line as wide as its tokens are likely, and the tokens with their probability at a share `along` of it."""
    share = sum(p for _, p in tokens)
    label = html.escape(f"{', '.join(t for t, _ in tokens)} {share:.2f}")
    x, y = (a + along * (b - a) for a, b in zip(start, end, strict=True))
    line = (
        f'<path d="M{start[0]} {start[1]}L{end[0]} {end[1]}" stroke="currentColor" stroke-width="{1 + 3 * share:.1f}"/>'
    )
    return f'<g data-id="{name}">{line}<text x="{x:.0f}" y="{y - 2:.0f}" text-anchor="middle">{label}</text></g>'


def _dot(node: Node, at: tuple[int, int], name: str) -> str:
    """A circle, or a square at an end; darker where a right end is likelier."""
    x, y = at
    shade = round(255 - 155 * node.value)
    tip = f"V = {node.value:.3f}: {', '.join(node.texts[:12])}{' …' if len(node.texts) > 12 else ''}"
    shape = f'rect x="{x - 9}" y="{y - 9}" width="18" height="18"' if node.end else f'circle cx="{x}" cy="{y}" r="10"'
    value = f"{node.value:.0f}" if node.end else f"{node.value:.2f}".removeprefix("0")
    text = f'<text x="{x}" y="{y + 3}" text-anchor="middle" style="fill:#000;font-size:9px">{value}</text>'
    shape = f'<{shape} fill="rgb({shade},{shade},{shade})" stroke="currentColor"/>'
    return f'<g data-id="{name}" style="opacity:1">{shape}{text}<title>{html.escape(tip)}</title></g>'


def _marks(explored: Explored, graph: Graph, response: int) -> dict[str, list[tuple[int, int]]]:
    """When a response is at a node, has passed an edge, and has written a row of the table."""
    mdp = explored.mdp
    length = int(mdp.lengths[response])
    path = [graph.place[k] for k in [*mdp.states[response, :length].tolist(), mdp.n_states + response]]
    marks: dict[str, list[tuple[int, int]]] = {}
    for t, node in enumerate(path):
        marks.setdefault(f"d{node}", []).append((t, t))
        if t:
            marks[f"e{path[t - 1]}_{node}"] = [(t, length)]
            marks[f"t{t}"] = [(t, t)]
    return marks


# --- the words -------------------------------------------------------------------------------------------------------


def _table(explored: Explored, response: int) -> str:
    """The response token by token: probabilities under policy and environment, and credit in three ways."""
    mdp, policy = explored.mdp, explored.policy
    length = int(mdp.lengths[response])
    tokens = mdp.tokens[response, :length].tolist()
    states = mdp.states[response, :length].tolist()
    probs = mdp.token_logprobs(policy).exp()[states, tokens].tolist()
    values = mdp.values(policy).V.tolist()
    before = [values[s] for s in states]
    columns = {
        "token": [mdp.names[token] for token in tokens],
        "probability": map("{:.3f}".format, probs),
        "V before": map("{:.3f}".format, before),
        "V after": map("{:.3f}".format, [*before[1:], float(mdp.rewards[response])]),
    }
    kinds = {"A, exact": "exact", "r − J, uniform": "uniform", "(r − J)/|o|, split": "split"}
    for head, kind in ({} if mdp.slip else kinds).items():
        columns[head] = map(number, mdp.credit(policy, kind)[response, :length].tolist())
    index = pd.Index(range(1, length + 1), name="t")
    frame = pd.DataFrame({name: list(cells) for name, cells in columns.items()}, index=index)
    return frame_table(frame, ids=[f"t{t}" for t in index])


def _sentences(explored: Explored, merge: bool) -> str:
    """The consequences of the choices for the bandit argument, in numbers."""
    mdp = explored.mdp
    best = mdp.optimum()
    right = int(mdp.right.sum())
    merged = len(explored.classes.unique())
    more = "no more" if best.gap < 1e-12 else f"{best.gap:.3f} more"
    lines = [
        f"J = {mdp.J(explored.policy):.3f}: {mdp.n_states} strings, {mdp.n_responses} responses, {right} right.",
        f"Merged, the {mdp.n_states} strings are {merged} states, each with one value whichever string led there: what "
        "one response teaches of a state holds for all that pass it. A list of arms has nothing to share."
        if merge
        else "Each state has one history, and each end one response: to choose an end is to choose an arm.",
        f"Best arm, all tokens fixed beforehand: {best.open_loop:.3f}. Best policy, which sees the state: "
        f"{best.closed_loop:.3f}, {more}.",
    ]
    if mdp.slip:
        lines.append("With slips transitions are not deterministic any more, and an arm no longer names a response.")
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def default_response(explored: Explored) -> int:
    """The likeliest right response, or the likeliest one where none is right."""
    return int((explored.mdp.probs(explored.policy).detach() + explored.mdp.rewards).argmax())


SIZES = ((2, 4), (3, 3), (3, 4))  # tokens of the vocabulary, and the longest response
SLIPS = (0.0, 0.2)


def _response_html(explored: Explored, graph: Graph, response: int) -> str:
    """A response, its verdict and its table, with what stepping through it needs."""
    mdp = explored.mdp
    length = int(mdp.lengths[response])
    text = escape_line(mdp.text(mdp.tokens[response, :length]))
    title = f"<p><strong>{text}</strong>, {'right' if mdp.right[response] else 'wrong'} (· is EOS)</p>"
    return f"<div {stepped(length, _marks(explored, graph, response))}>{title}{_table(explored, response)}</div>"


def mdp_explorer(vocab: int = 3, horizon: int = 4, reward: str = "two", merge: bool = False, slip: float = 0.0) -> Html:
    """One MDP as a drawing, with a response through it token by token, and its table of values and credit.

    Circles are states with their value, squares are ends with their reward; an edge has its tokens and their
    probability, slips included. It starts at these choices. Raises RlinoError as `explore` does.
    """
    explore(vocab, horizon, reward, slip)  # raises for what cannot be shown
    sizes = sorted({*SIZES, (vocab, horizon)})
    slips = sorted({*SLIPS, slip})
    drawings, sentences, tables = {}, {}, {}
    texts: dict[str, int] = {}  # of responses, as the menu has them
    best = []
    for place in itertools.product(range(len(sizes)), range(len(RULES)), range(len(slips))):
        size, rule, k = place
        explored = explore(*sizes[size], list(RULES)[rule], slips[k])
        graphs = {merged: _graph(explored, merged) for merged in (False, True)}
        rows = zip(explored.mdp.responses(explored.policy)["response"], explored.mdp.right.tolist(), strict=True)
        names = [texts.setdefault(f"{text} · {'right' if right else 'wrong'}", len(texts)) for text, right in rows]
        best.append(names[default_response(explored)])
        for merged in (False, True):
            drawings[*place, merged] = _drawing(graphs[merged], merged)
            sentences[*place, merged] = _sentences(explored, merged)
            for n, name in enumerate(names):
                tables[*place, merged, name] = _response_html(explored, graphs[merged], n)
    start = (sizes.index((vocab, horizon)), list(RULES).index(reward), slips.index(slip))
    opened = best[list(itertools.product(range(len(sizes)), range(len(RULES)), range(len(slips)))).index(start)]
    controls = [
        Control("size", "Size", [f"V = {v}, H = {h}" for v, h in sizes], start[0]),
        Control("reward", "Right", [rule.words for rule in RULES.values()], start[1]),
        Control("slip", "Slips", [f"{s:.0%}" for s in slips], start[2]),
        Control("merge", "States", ["one for each text", "merged"], int(merge)),
        Control("response", "Response", list(texts), opened, first=list(dict.fromkeys(best)), buttons=True),
        Control("token", "Token", kind="step", buttons=True),
    ]
    by = ("size", "reward", "slip", "merge")
    slots = {
        "drawing": Slot(by, drawings), "table": Slot((*by, "response"), tables), "words": Slot(by, sentences),
    }  # fmt: skip
    return explorer("MDP explorer", controls, slots, slot("drawing") + slot("table") + slot("words"))
