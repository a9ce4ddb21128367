"""A token MDP as HTML, with no kernel and no script: its drawing, and a response through it with its credit."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from rlino_lib.errors import RlinoError
from rlino_lib.exact.token_mdp import TabularPolicy, TokenMDP
from rlino_lib.widgets.groups import chosen
from rlino_lib.widgets.tokens import Html, drawing_html, escape_line, number

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


def _graph(found: Explored, merge: bool) -> tuple[dict, dict, list]:
    """Nodes {key: (column, value, is an end, its strings)}, edges {(from, to): [(token, probability)]}, a key a place.

    A place is a state, or S + n for the end of response n. In depth-first order, so that a column read downwards has
    the order of the tree.
    """
    mdp, policy = found.mdp, found.policy
    texts = [t or "the prompt" for t in mdp.tree(policy)["state"]] + mdp.responses(policy)["response"].tolist()
    values = [*mdp.values(policy).V.tolist(), *mdp.rewards.tolist()]
    columns = [*mdp.depth.tolist(), *mdp.lengths.tolist()]
    written, s = mdp.token_logprobs(policy).exp().tolist(), mdp.n_states  # [S, V]
    ends = [("end", columns[k], values[k]) if merge else k for k in range(s, len(texts))]
    keys = [*(found.classes.tolist() if merge else range(s)), *ends]
    nodes, edges, todo = {}, {}, [0]
    while todo:
        place = todo.pop()
        new = keys[place] not in nodes
        nodes.setdefault(keys[place], (columns[place], values[place], place >= s, []))[3].append(texts[place])
        after = mdp.successors[place].tolist() if place < s else []
        for token, target in enumerate(after if new else []):
            edges.setdefault((keys[place], keys[target]), []).append((mdp.names[token], written[place][token]))
        todo += reversed(after)
    return nodes, edges, keys


def _drawing(found: Explored, merge: bool, path: Sequence[int], step: int, image: bool) -> str:
    """The graph from left to right; `path` are the places of the response, drawn bold up to `step`.

    As an image it has no tooltips and not the page's colours, but a notebook that is not trusted shows it too.
    """
    nodes, edges, keys = _graph(found, merge)
    columns: dict[int, list] = {}
    for key, node in sorted(nodes.items(), key=lambda item: merge and not item[1][2]):  # merged: ends on top
        columns.setdefault(node[0], []).append(key)
    height, gap, at = max(60, (46 if merge else 21) * max(map(len, columns.values()))), 150, {}
    for column, members in columns.items():
        at |= {k: (34 + gap * column, round(12 + height * (j + 0.5) / len(members))) for j, k in enumerate(members)}
    walked = [keys[place] for place in path]
    bold, here = set(zip(walked[:step], walked[1 : step + 1], strict=True)), walked[step]
    lines, out = [], []
    for (a, b), tokens in edges.items():
        (x, y), (u, v) = at[a], at[b]
        share, place = sum(p for _, p in tokens), 0.28 if merge else 0.72
        label = html.escape(f"{', '.join(t for t, _ in tokens)} {share:.2f}")
        look, weight = ('opacity="1"', ' font-weight="700"') if (a, b) in bold else ('opacity="0.3"', "")
        lines.append(f'<path d="M{x} {y}L{u} {v}" stroke="currentColor" stroke-width="{1 + 3 * share:.1f}" {look}/>')
        where = f'x="{x + place * (u - x):.0f}" y="{y + place * (v - y) - 2:.0f}"'
        out.append(f'<text {where} text-anchor="middle" class="rlino-edge"{weight}>{label}</text>')
    for key, (_, value, end, names) in nodes.items():
        (x, y), shade = at[key], round(255 - 155 * value)  # darker where a right end is likelier
        tip = html.escape(f"V = {value:.3f}: {', '.join(names[:12])}{' …' if len(names) > 12 else ''}")
        shape = f'rect x="{x - 9}" y="{y - 9}" width="18" height="18"' if end else f'circle cx="{x}" cy="{y}" r="10"'
        look = f'fill="rgb({shade},{shade},{shade})" stroke="currentColor" stroke-width="{4 if key == here else 1}"'
        text = f"{value:.0f}" if end else f"{value:.2f}".removeprefix("0")
        text = f'<text x="{x}" y="{y + 3}" text-anchor="middle" class="rlino-value">{text}</text>'
        out.append(f"<g><{shape} {look}/>{text}<title>{tip}</title></g>")
    width, height = 60 + gap * max(columns), height + 24
    alt = f"{len(nodes)} nodes; the table has the path in words"
    return drawing_html(SVG_STYLE + "".join(lines + out), width, height, alt, "drawing of the MDP", image)


SVG_STYLE = """<style>
.rlino-edge{font-size:10px;font-family:sans-serif;fill:currentColor;paint-order:stroke;
stroke:var(--jp-layout-color0,#fff);stroke-width:3px}
.rlino-value{font-size:9px;font-family:sans-serif;fill:#000}
</style>"""
STYLE = """<style>
.rlino-mdp{font-size:13px;line-height:1.45;margin:.3em 0}
.rlino-mdp p{margin:.25em 0;max-width:60em}
.rlino-graph{overflow:auto;max-height:46em}
.rlino-graph:focus-visible{outline:2px solid #1f77d0}
.rlino-graph svg,.rlino-graph img{display:block;max-width:none}
.rlino-mdp table{border-collapse:collapse;margin:.3em 0}
.rlino-mdp th,.rlino-mdp td{padding:.1em .7em;text-align:right;border-bottom:1px solid #8884}
.rlino-mdp tr.rlino-now{font-weight:700;outline:1px solid currentColor}
</style>"""

# --- the words -------------------------------------------------------------------------------------------------------


def _table(found: Explored, response: int, step: int) -> str:
    """The response token by token: what policy and environment made of it, and credit in three ways."""
    mdp, policy = found.mdp, found.policy
    length, tokens = int(mdp.lengths[response]), mdp.tokens[response].tolist()
    states, steps = mdp.states[response].tolist(), range(int(mdp.lengths[response]))
    probs, values = mdp.token_logprobs(policy).exp(), mdp.values(policy).V.tolist()
    after = [values[s] for s in states[1:length]] + [float(mdp.rewards[response])]
    columns = {
        "t": [str(t + 1) for t in steps],
        "token": [mdp.names[tokens[t]] for t in steps],
        "probability": [f"{probs[states[t], tokens[t]]:.3f}" for t in steps],
        "V before": [f"{values[states[t]]:.3f}" for t in steps],
        "V after": [f"{v:.3f}" for v in after],
    }
    kinds = {"A, exact": "exact", "r − J, uniform": "uniform", "(r − J)/|o|, split": "split"}
    for head, kind in ({} if mdp.slip else kinds).items():
        columns[head] = [number(w) for w in mdp.credit(policy, kind)[response, :length].tolist()]
    rows = zip(*columns.values(), strict=True)
    lines = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    now = ' class="rlino-now" aria-current="step"'
    body = "".join(f"<tr{now if t + 1 == step else ''}>{line}</tr>" for t, line in enumerate(lines))
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _says(found: Explored, merge: bool) -> str:
    """What the choices mean for the bandit argument, in numbers."""
    mdp, best = found.mdp, found.mdp.optimum()
    right, merged = int(mdp.right.sum()), len(found.classes.unique())
    said = [f"J = {mdp.J(found.policy):.3f}: {mdp.n_states} strings, {mdp.n_responses} responses, {right} right."]
    said += [
        f"Merged, the {mdp.n_states} strings are {merged} states, each with one value whichever string led there: what "
        "one response teaches of a state holds for all that pass it. A list of arms has nothing to share."
        if merge
        else "Each state has one history, and each end one response: to choose an end is to choose an arm."
    ]
    more = "no more" if best.gap < 1e-12 else f"{best.gap:.3f} more"
    said += [
        f"Best arm, all tokens fixed beforehand: {best.open_loop:.3f}. Best policy, which sees the state: "
        f"{best.closed_loop:.3f}, {more}."
    ]
    slips = "With slips transitions are not deterministic any more, and an arm no longer names a response."
    return "".join(f"<p>{html.escape(line)}</p>" for line in [*said, *[slips] * bool(mdp.slip)])


def default_response(found: Explored) -> int:
    """The likeliest right response, or the likeliest one where none is right."""
    return int((found.mdp.probs(found.policy).detach() + found.mdp.rewards).argmax())


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
    found = explore(vocab, horizon, reward, slip)
    mdp, response = found.mdp, default_response(found) if response is None else response
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
    body = _drawing(found, merge, path, step, image) + title + _table(found, response, step) + _says(found, merge)
    return Html(f'{STYLE}<section class="rlino-mdp mathjax_ignore" aria-label="MDP explorer">{body}</section>')


VIEWS = {"As strings": {}, "The same, merged": {"merge": True}, "Merged, with slips": {"merge": True, "slip": 0.2}}


def static_mdp(views: Mapping[str, Mapping[str, Any]] = VIEWS) -> Html:
    """Several pages as folds, the first open, with no kernel and no script: {title: arguments of `mdp_html`}."""
    pages = [(f"<summary><strong>{escape_line(t)}</strong></summary>", mdp_html(**views[t], image=True)) for t in views]
    return Html("".join(f"<details{'' if k else ' open'}>{t}{page}</details>" for k, (t, page) in enumerate(pages)))
