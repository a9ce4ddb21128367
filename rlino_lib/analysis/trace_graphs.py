"""Countdown traces as graphs of their equations, and how graphs of right responses differ (chapter 09).

"Mapping the Minds" (2505.13890) lets a model cut a trace into steps and label their edges. Here both are read: a node
is an equation of the response, and an edge i → j says that j takes the result of i as an operand. An equation that is
written again, in another attempt or with the numbers of a sum or product in another order, is the same node, as the
paper's clusters are. So a node branches where several attempts go on from it, and joins where several lead to it; with
a node for each writing no result could be used twice. All edges go forward: the use is written after the result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from rlino_lib.tasks.arithmetic import Step
from rlino_lib.tasks.countdown.trace import Search, countdown_problem, read_search, unordered

METRICS = ("nodes", "density", "branching", "convergence", "linearity")


def trace_graph(search: Search) -> tuple[list[Step], set[tuple[int, int]]]:
    """The distinct equations of a response in the order of their first writing, and the edges between them.

    An operand is the latest result of its value that the attempt has not used yet, else a number of the problem. No
    edge leads from a node to itself. Linear in what `read_search` reads.
    """
    nodes: dict[Step, int] = {}
    edges = set()
    for attempt in search.attempts:
        unused: dict[int, list[int]] = {}  # nodes by their results
        for step in (unordered(written.step) for written in attempt.steps):
            node = nodes.setdefault(step, len(nodes))
            sources = [unused[operand].pop() for operand in step[::2] if unused.get(operand)]
            edges |= {(source, node) for source in sources if source != node}
            unused.setdefault(step[3], []).append(node)
    return list(nodes), edges


def graph_metrics(nodes: int, edges: Iterable[tuple[int, int]]) -> dict[str, float]:
    """Density |E|/(N(N−1)); the share of nodes that branch (out-degree above 1) and that join (`convergence`, in-degree
    above 1); linearity, 1 minus the share of a degree above 2. From 2505.13890; NaN where nothing is divided by.

    Edges are counted as they are given: with each mirrored, as in the paper's released code, density doubles, and a
    node's in- and out-degree agree, so that branching and convergence are one number.
    """
    edges = list(edges)
    outgoing = Counter(source for source, _ in edges)
    incoming = Counter(target for _, target in edges)

    def share(degrees: Counter, above: int) -> float:
        return sum(degree > above for degree in degrees.values()) / nodes if nodes else np.nan

    density = len(edges) / (nodes * (nodes - 1)) if nodes > 1 else np.nan
    shares = share(outgoing, 1), share(incoming, 1), 1 - share(outgoing + incoming, 2)
    return dict(zip(METRICS, (nodes, density, *shares), strict=True))


def graph_frame(rollouts: pd.DataFrame) -> pd.DataFrame:
    """The frame of rollouts (columns `data` and `response`) with `attempts` and the METRICS of each response.

    Raises RlinoError where a row is no answer to a Countdown problem.
    """
    rows = []
    for data, response in zip(rollouts["data"], rollouts["response"], strict=True):
        search = read_search(countdown_problem(data), str(response))
        nodes, edges = trace_graph(search)
        rows.append({"attempts": len(search.attempts), **graph_metrics(len(nodes), edges)})
    measured = pd.DataFrame(rows, index=rollouts.index, columns=["attempts", *METRICS])
    return rollouts.drop(columns=measured.columns, errors="ignore").join(measured)


def graph_sums(frame: pd.DataFrame, measures: Sequence[str] = METRICS) -> pd.DataFrame:
    """What `matched_gaps` needs of responses (columns `problem`, `attempts`, `correct` and the measures), summed.

    A row for all responses to a problem with equal attempts and one verdict: the sum of each measure under its name,
    and `n_…`, how many of them have a value.
    """
    groups = frame.astype({"correct": bool}).groupby(["problem", "attempts", "correct"], sort=False)[list(measures)]
    return groups.sum().join(groups.count().add_prefix("n_")).reset_index()


def matched_gaps(sums: pd.DataFrame, measure: str, within: Sequence[str] = ("attempts",)) -> pd.Series:
    """The measure of right less that of wrong responses to the same problem that agree in the columns `within`, by
    problem.

    `sums` is `graph_sums`; with nothing in `within` all responses to a problem are compared. A problem's difference is
    the mean over its strata with weights r·w/(r + w), for r right and w wrong responses, the least-variance weights. A
    problem without both in some stratum has none.
    """
    columns = [measure, f"n_{measure}"]
    cells = sums.groupby(["problem", *within, "correct"])[columns].sum().unstack()
    cells = cells.reindex(columns=pd.MultiIndex.from_product([columns, [False, True]]))
    sizes = cells[columns[1]].fillna(0)
    weights = sizes.prod(axis=1) / sizes.sum(axis=1)
    means = cells[measure] / sizes
    parts = pd.DataFrame({"gap": (means[True] - means[False]) * weights, "weight": weights})[weights > 0]
    totals = parts.groupby("problem").sum()
    return totals["gap"] / totals["weight"]
