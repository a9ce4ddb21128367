"""The MDP explorer (chapter 01): a token MDP as a drawing, a response through it, and exact credit beside uniform."""

from __future__ import annotations

import html
import itertools

import pandas as pd

from rlino_lib.exact.ruled_mdp import RULES, Explored, Graph, Node, default_response, explore, graph_of
from rlino_lib.widgets.page import Control, Slot, drawing, explorer, frame_table, slot, stepped
from rlino_lib.widgets.tokens import Html, escape_line, number

# --- the drawing -----------------------------------------------------------------------------------------------------


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
    edges = [f'<g data-id="e{a}_{b}">{_edge(at[a], at[b], t, along)}</g>' for (a, b), t in graph.edges.items()]
    dots = [f'<g data-id="d{k}" style="opacity:1">{_dot(node, *at[k])}</g>' for k, node in enumerate(graph.nodes)]
    alt = f"{len(graph.nodes)} nodes; the table has the path in words"
    return drawing("".join(edges + dots), 60 + gap * max(columns), height + 24, alt, "drawing of the MDP")


def _edge(start: tuple[int, int], end: tuple[int, int], tokens: list[tuple[str, float]], along: float) -> str:
    """A line as wide as its tokens are likely, and the tokens with their probability at a share `along` of it."""
    share = sum(p for _, p in tokens)
    label = html.escape(f"{', '.join(t for t, _ in tokens)} {share:.2f}")
    x, y = (a + along * (b - a) for a, b in zip(start, end, strict=True))
    look = f'stroke="currentColor" stroke-width="{1 + 3 * share:.1f}"'
    line = f'<path d="M{start[0]} {start[1]}L{end[0]} {end[1]}" {look}/>'
    return f'{line}<text x="{x:.0f}" y="{y - 2:.0f}" text-anchor="middle">{label}</text>'


def _dot(node: Node, x: int, y: int) -> str:
    """A circle, or a square at an end; darker where a right end is likelier."""
    shade = round(255 - 155 * node.value)
    tip = f"V = {node.value:.3f}: {', '.join(node.texts[:12])}{' …' if len(node.texts) > 12 else ''}"
    shape = f'rect x="{x - 9}" y="{y - 9}" width="18" height="18"' if node.end else f'circle cx="{x}" cy="{y}" r="10"'
    value = f"{node.value:.0f}" if node.end else f"{node.value:.2f}".removeprefix("0")
    text = f'<text x="{x}" y="{y + 3}" text-anchor="middle" style="fill:#000;font-size:9px">{value}</text>'
    shape = f'<{shape} fill="rgb({shade},{shade},{shade})" stroke="currentColor"/>'
    return f"{shape}{text}<title>{html.escape(tip)}</title>"


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


_CREDITS = {"A, exact": "exact", "r − J, uniform": "uniform", "(r − J)/|o|, split": "split"}


def _tables(explored: Explored) -> list[str]:
    """Each response token by token: probabilities under policy and environment, and credit in three ways."""
    mdp, policy = explored.mdp, explored.policy
    probs = mdp.token_logprobs(policy).exp()  # [S, V]
    values = mdp.values(policy).V  # [S]
    credits = {} if mdp.slip else {head: mdp.credit(policy, kind) for head, kind in _CREDITS.items()}  # [N, T]
    tables = []
    for n, length in enumerate(mdp.lengths.tolist()):
        tokens, states = mdp.tokens[n, :length], mdp.states[n, :length]
        before = values[states].tolist()
        rows = {
            "probability": map("{:.3f}".format, probs[states, tokens].tolist()),
            "V before": map("{:.3f}".format, before),
            "V after": map("{:.3f}".format, [*before[1:], float(mdp.rewards[n])]),
            **{head: map(number, credit[n, :length].tolist()) for head, credit in credits.items()},
        }
        index = pd.Index(range(1, length + 1), name="t")
        frame = pd.DataFrame({"token": [mdp.names[t] for t in tokens]} | {h: [*c] for h, c in rows.items()}, index)
        tables.append(frame_table(frame, ids=[f"t{t}" for t in index]))
    return tables


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


SIZES = ((2, 4), (3, 3), (3, 4))  # tokens of the vocabulary, and the longest response
SLIPS = (0.0, 0.2)
START = (3, 4), "two", 0.0  # size, rule and slip that come first


def _response_html(explored: Explored, graph: Graph, response: int, table: str) -> str:
    """A response, its verdict and its table, with what stepping through it needs."""
    mdp = explored.mdp
    length = int(mdp.lengths[response])
    text = escape_line(mdp.text(mdp.tokens[response, :length]))
    title = f"<p><strong>{text}</strong>, {'right' if mdp.right[response] else 'wrong'} (· is EOS)</p>"
    return f"<div {stepped(length, _marks(explored, graph, response))}>{title}{table}</div>"


def mdp_explorer() -> Html:
    """One MDP as a drawing, with a response through it token by token, and its table of values and credit.

    Circles are states with their value, squares are ends with their reward; an edge has its tokens and their
    probability, slips included.
    """
    drawings, sentences, responses = {}, {}, {}
    best: dict[tuple, str] = {}  # the response that is opened first
    texts: dict[str, None] = {}  # of responses, as the menu has them
    for place in itertools.product(SIZES, RULES, SLIPS):
        explored = explore(*place[0], *place[1:])
        rows = zip(explored.mdp.responses(explored.policy)["response"], explored.mdp.right.tolist(), strict=True)
        names = [f"{text} · {'right' if right else 'wrong'}" for text, right in rows]
        texts |= dict.fromkeys(names)
        best[place] = names[default_response(explored)]
        tables = _tables(explored)
        for merged in (False, True):
            graph = graph_of(explored, merged)
            drawings[*place, merged] = _drawing(graph, merged)
            sentences[*place, merged] = _sentences(explored, merged)
            for n, name in enumerate(names):
                responses[*place, merged, name] = _response_html(explored, graph, n, tables[n])
    first = list(dict.fromkeys(best.values()))
    controls = [
        Control("size", "Size", {(v, h): f"V = {v}, H = {h}" for v, h in SIZES}, START[0]),
        Control("reward", "Right", {name: rule.words for name, rule in RULES.items()}, START[1]),
        Control("slip", "Slips", {s: f"{s:.0%}" for s in SLIPS}, START[2]),
        Control("merge", "States", {False: "one for each text", True: "merged"}),
        Control("response", "Response", list(texts), best[START], first=first, buttons=True),
        Control("token", "Token", kind="step", buttons=True),
    ]
    by = ("size", "reward", "slip", "merge")
    slots: dict[str, Slot] = {"drawing": (by, drawings), "words": (by, sentences)}
    slots["table"] = ((*by, "response"), responses)
    return explorer("MDP explorer", controls, slots, slot("drawing") + slot("table") + slot("words"))
