"""Token MDPs small enough to be drawn, whose reward a running summary of the text decides, and their graphs."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from rlino_lib.errors import RlinoError, chosen
from rlino_lib.exact.token_mdp import TabularPolicy, TokenMDP

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


class Node(NamedTuple):
    """A place in the drawing: its column and value, whether a response ends there, and the strings it stands for."""

    column: int
    value: float
    end: bool
    texts: list[str]


class Graph(NamedTuple):
    """A drawing's nodes, its edges {(from, to): [(token, probability)]}, and the node of each place.

    A place is a state, or S + n for the end of response n.
    """

    nodes: list[Node]
    edges: dict[tuple[int, int], list[tuple[str, float]]]  # by the numbers of two nodes
    place: list[int]


def graph_of(explored: Explored, merge: bool) -> Graph:
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


def default_response(explored: Explored) -> int:
    """The likeliest right response, or the likeliest one where none is right."""
    return int((explored.mdp.probs(explored.policy).detach() + explored.mdp.rewards).argmax())
