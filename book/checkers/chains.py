"""Checkers of chapter 09b's exercises: graphs of traces, and what a right chain earns."""

import math

from checkers.check import Solution, exercise
from rlino_lib.analysis.trace_graphs import graph_metrics

_GRAPHS = (
    (4, [(0, 1), (0, 2), (1, 3)]),
    (3, [(0, 2), (1, 2)]),
    (5, [(0, 1), (1, 2), (0, 3), (3, 4), (0, 4)]),
    (3, [(0, 1), (0, 2)]),
)


@exercise("branching", *_GRAPHS)
def check_branching(nodes: int, edges: list[tuple[int, int]]) -> Solution:
    """`branching(nodes, edges)`: the share of nodes whose result is used more than once; an edge is (from, to)."""
    right = graph_metrics(nodes, edges)
    mirrored = graph_metrics(nodes, [*edges, *((end, start) for start, end in edges)])
    starts = [start for start, _ in edges]
    return right["branching"], {
        "each edge is counted in both directions: then branching is convergence": mirrored["branching"],
        "that is convergence: edges into a node, not out of it": right["convergence"],
        "a node that is used once does not branch": len(set(starts)) / nodes,
        "a number of nodes, not a share": right["branching"] * nodes,
    }


_GROUPS = (
    ([1, 0, 1, 0], [1, 1, 0, 0]),
    ([1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 1, 0]),
    ([0, 0, 1, 1, 1], [1, 1, 0, 0, 1]),
)


@exercise("mean_advantage", *_GROUPS)
def check_mean_advantage(rewards: list[int], process_right: list[int]) -> Solution:
    """`mean_advantage(rewards, process_right)`: the mean of (r − mean)/std over a group's responses with a right
    process, with the sample's standard deviation."""
    n = len(rewards)
    mean = sum(rewards) / n
    std = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (n - 1))
    chosen = [(r - mean) / std for r, right in zip(rewards, process_right, strict=True) if right]
    alone = [r for r, right in zip(rewards, process_right, strict=True) if right]
    return sum(chosen) / len(chosen), {
        "a sum over these responses, not their mean": sum(chosen),
        "divided by the whole group, not by those with a right process": sum(chosen) / n,
        "the mean is that of the group, not of those with a right process": 0.0,
        "that is their mean reward: the advantage has the group's mean taken off": sum(alone) / len(alone),
        "the standard deviation is the sample's, with n − 1": sum(chosen) / len(chosen) * math.sqrt(n / (n - 1)),
    }
