"""The MDP explorer (chapter 01): a token MDP as a drawing, a response through it, and exact credit beside uniform."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import ipywidgets as widgets
import pandas as pd
import torch

from rlino_lib.errors import RlinoError
from rlino_lib.exact.token_mdp import TabularPolicy, TokenMDP
from rlino_lib.widgets.explorer import Explorer, Menus, explorer, refill
from rlino_lib.widgets.groups import chosen
from rlino_lib.widgets.page import drawing_html, folds, frame_table, page
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


def _graph(explored: Explored, merge: bool) -> tuple[dict, dict, list]:
    """Nodes {key: Node}, edges {(from, to): [(token, probability)]}, and the key of each place.

    A place is a state, or S + n for the end of response n. In depth-first order, so that a column read downwards has
    the order of the tree.
    """
    mdp, policy = explored.mdp, explored.policy
    texts = [t or "the prompt" for t in mdp.tree(policy)["state"]] + mdp.responses(policy)["response"].tolist()
    values = [*mdp.values(policy).V.tolist(), *mdp.rewards.tolist()]
    columns = [*mdp.depth.tolist(), *mdp.lengths.tolist()]
    probs = mdp.token_logprobs(policy).exp().tolist()  # [S, V]
    s = mdp.n_states
    ends = [("end", columns[k], values[k]) if merge else k for k in range(s, len(texts))]
    keys = [*(explored.classes.tolist() if merge else range(s)), *ends]
    nodes, edges = {}, {}
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
    return nodes, edges, keys


def _drawing(explored: Explored, merge: bool, path: Sequence[int], step: int, image: bool) -> str:
    """The graph from left to right; `path` are the places of the response, drawn bold up to `step`.

    As an image it has no tooltips and not the page's colours, but a notebook that is not trusted shows it too.
    """
    nodes, edges, keys = _graph(explored, merge)
    columns: dict[int, list] = {}
    for key, node in sorted(nodes.items(), key=lambda item: merge and not item[1].end):  # merged: ends on top
        columns.setdefault(node.column, []).append(key)
    height = max(60, (46 if merge else 21) * max(map(len, columns.values())))
    gap = 150
    at = {}
    for column, members in columns.items():
        at |= {k: (34 + gap * column, round(12 + height * (j + 0.5) / len(members))) for j, k in enumerate(members)}
    walked = [keys[place] for place in path]
    bold = set(zip(walked[:step], walked[1 : step + 1], strict=True))
    along = 0.28 if merge else 0.72  # where on an edge its words stand
    edge_parts = [_edge(at[a], at[b], tokens, along, (a, b) in bold) for (a, b), tokens in edges.items()]
    lines, words = zip(*edge_parts, strict=True)
    dots = [_dot(node, at[key], key == walked[step]) for key, node in nodes.items()]
    alt = f"{len(nodes)} nodes; the table has the path in words"
    body = SVG_STYLE + "".join([*lines, *words, *dots])
    return drawing_html(body, 60 + gap * max(columns), height + 24, alt, "drawing of the MDP", image, "rlino-mdp")


def _edge(
    start: tuple[int, int], end: tuple[int, int], tokens: list[tuple[str, float]], along: float, bold: bool
) -> tuple[str, str]:
    """A line as wide as its tokens are likely, and the tokens with their probability at a share `along` of it."""
    share = sum(p for _, p in tokens)
    look = f'stroke="currentColor" stroke-width="{1 + 3 * share:.1f}" opacity="{1 if bold else 0.3}"'
    label = html.escape(f"{', '.join(t for t, _ in tokens)} {share:.2f}")
    x, y = (a + along * (b - a) for a, b in zip(start, end, strict=True))
    place = f'x="{x:.0f}" y="{y - 2:.0f}" text-anchor="middle"'
    weight = ' font-weight="700"' if bold else ""
    line = f'<path d="M{start[0]} {start[1]}L{end[0]} {end[1]}" {look}/>'
    return line, f'<text {place} class="rlino-edge"{weight}>{label}</text>'


def _dot(node: Node, at: tuple[int, int], here: bool) -> str:
    """A circle, or a square at an end; darker where a right end is likelier."""
    x, y = at
    shade = round(255 - 155 * node.value)
    tip = f"V = {node.value:.3f}: {', '.join(node.texts[:12])}{' …' if len(node.texts) > 12 else ''}"
    shape = f'rect x="{x - 9}" y="{y - 9}" width="18" height="18"' if node.end else f'circle cx="{x}" cy="{y}" r="10"'
    look = f'fill="rgb({shade},{shade},{shade})" stroke="currentColor" stroke-width="{4 if here else 1}"'
    value = f"{node.value:.0f}" if node.end else f"{node.value:.2f}".removeprefix("0")
    text = f'<text x="{x}" y="{y + 3}" text-anchor="middle" class="rlino-value">{value}</text>'
    return f"<g><{shape} {look}/>{text}<title>{html.escape(tip)}</title></g>"


SVG_STYLE = """<style>
.rlino-edge{font-size:10px;font-family:sans-serif;fill:currentColor;paint-order:stroke;
stroke:var(--jp-layout-color0,#fff);stroke-width:3px}
.rlino-value{font-size:9px;font-family:sans-serif;fill:#000}
</style>"""
# --- the words -------------------------------------------------------------------------------------------------------


def _table(explored: Explored, response: int, step: int) -> str:
    """The response token by token: probabilities under policy and environment, and credit in three ways."""
    mdp, policy = explored.mdp, explored.policy
    length = int(mdp.lengths[response])
    tokens = mdp.tokens[response, :length].tolist()
    states = mdp.states[response, :length].tolist()
    probs = mdp.token_logprobs(policy).exp()[states, tokens].tolist()
    values = mdp.values(policy).V.tolist()
    before = [values[s] for s in states]
    columns = {
        "t": range(1, length + 1),
        "token": [mdp.names[token] for token in tokens],
        "probability": map("{:.3f}".format, probs),
        "V before": map("{:.3f}".format, before),
        "V after": map("{:.3f}".format, [*before[1:], float(mdp.rewards[response])]),
    }
    kinds = {"A, exact": "exact", "r − J, uniform": "uniform", "(r − J)/|o|, split": "split"}
    for head, kind in ({} if mdp.slip else kinds).items():
        columns[head] = map(number, mdp.credit(policy, kind)[response, :length].tolist())
    frame = pd.DataFrame({name: list(cells) for name, cells in columns.items()}, index=range(1, length + 1))
    return frame_table(frame, step, index=False, current="step")


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


def mdp_html(
    vocab: int = 3,
    horizon: int = 4,
    reward: str = "two",
    merge: bool = False,
    slip: float = 0.0,
    response: int | None = None,
    step: int | None = None,
    image: bool = False,
) -> Html:
    """The drawing of one MDP with a response through it (index `response`, up to token `step`), and its table.

    Circles are states with their value, squares are ends with their reward; an edge has its tokens and their
    probability, slips included. `image` draws for pages that strip SVG. Raises RlinoError as `explore` does, and for a
    response or a step that does not exist.
    """
    explored = explore(vocab, horizon, reward, slip)
    mdp = explored.mdp
    response = default_response(explored) if response is None else response
    if not 0 <= response < mdp.n_responses:
        raise RlinoError(f"response {response} of {mdp.n_responses}: count from 0")
    length = int(mdp.lengths[response])
    step = length if step is None else step
    if not 0 <= step <= length:
        raise RlinoError(f"step {step} of a response of {length} tokens")
    path = [*mdp.states[response, :length].tolist(), mdp.n_states + response]
    text = escape_line(mdp.text(mdp.tokens[response, :length]))
    verdict = f"{'right' if mdp.right[response] else 'wrong'} (rule: {html.escape(RULES[reward].words)}; · is EOS)"
    title = f"<p><strong>{text}</strong>, {verdict}</p>"
    body = _drawing(explored, merge, path, step, image) + title + _table(explored, response, step)
    return page(body + _sentences(explored, merge), "MDP explorer")


VIEWS = {"As strings": {}, "The same, merged": {"merge": True}, "Merged, with slips": {"merge": True, "slip": 0.2}}


def static_mdp(views: Mapping[str, Mapping[str, Any]] = VIEWS) -> Html:
    """Several pages as folds, the first open, with no kernel and no script: {title: arguments of `mdp_html`}."""
    return folds((title, mdp_html(**choice, image=True)) for title, choice in views.items())


def mdp_explorer(
    vocab: int = 3, horizon: int = 4, reward: str = "two", merge: bool = False, slip: float = 0.0
) -> Explorer:
    """Menus over `mdp_html`, at the choices given. Raises RlinoError as `explore` does."""
    explore(vocab, horizon, reward, slip)  # raises for what cannot be shown
    sizes = {(v, h) for v in (2, 3, 4, 5) for h in (2, 3, 4, 5) if sum((v - 1) ** t for t in range(h + 1)) <= LARGEST}
    sizes = [(f"V = {v}, H = {h}", (v, h)) for v, h in sorted(sizes | {(vocab, horizon)})]
    rules = [(rule.words, name) for name, rule in RULES.items()]
    slips = [(f"{s:.0%}", s) for s in sorted({0.0, 0.1, 0.2, 0.5, slip})]

    def fit(menus: Menus, name: str | None) -> None:
        if name in ("merge", "step"):
            return
        explored = explore(*menus["size"].value, menus["reward"].value, menus["slip"].value)
        response = menus["response"].value if name == "response" else default_response(explored)
        rows = zip(explored.mdp.responses(explored.policy)["response"], explored.mdp.right.tolist(), strict=True)
        texts = [(f"{text} {'right' if right else 'wrong'}", k) for k, (text, right) in enumerate(rows)]
        refill(menus["response"], texts, response)
        menus["step"].max = menus["step"].value = int(explored.mdp.lengths[response])

    def choose(values: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(("vocab", "horizon"), values.pop("size"), strict=True)) | values

    return explorer(
        mdp_html,
        name="MDPExplorer()",
        fit=fit,
        choose=choose,
        image=True,
        size=widgets.Dropdown(options=sizes, value=(vocab, horizon), description="Size:"),
        reward=widgets.Dropdown(options=rules, value=reward, description="Right:"),
        slip=widgets.Dropdown(options=slips, value=slip, description="Slips:"),
        merge=widgets.Checkbox(value=merge, description="merge states", indent=False),
        response=widgets.Dropdown(description="Response:"),
        step=widgets.IntSlider(description="Token:", min=0),
    )
