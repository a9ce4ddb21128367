"""Graphs of hand-made traces, the trap of mirrored edges, and right against wrong at equal attempts."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlino_lib.analysis.trace_graphs import (
    METRICS,
    graph_frame,
    graph_metrics,
    graph_sums,
    matched_gaps,
    trace_graph,
)
from rlino_lib.errors import RlinoError
from rlino_lib.tasks.base import Problem
from rlino_lib.tasks.countdown.trace import MAX_READ, read_search

DATA = {"nums": [3, 4, 2, 5], "target": 60}
PROBLEM = Problem("p", DATA)
# Two attempts go on from 3 + 4, written in two orders; 14 is reached from 3 + 4 and from 5 + 2.
TRACE = (
    " 3 + 4 = 7, 7 * 2 = 14, 14 - 5 = 9 no\n 4 + 3 = 7, 7 - 2 = 5, 5 * 5 = 25 no\n 5 + 2 = 7, 2 * 7 = 14 no </think>"
)


def graph(text):
    nodes, edges = trace_graph(read_search(PROBLEM, text))
    names = ["{}{}{}".format(*node) for node in nodes]
    return names, {(names[i], names[j]) for i, j in edges}


def test_an_equation_written_again_is_one_node_and_an_edge_is_a_use_of_its_result():
    names, edges = graph(TRACE)
    assert names == ["4+3", "7*2", "14-5", "7-2", "5*5", "5+2"]
    chain = {("4+3", "7*2"), ("7*2", "14-5"), ("4+3", "7-2"), ("7-2", "5*5"), ("5+2", "7*2")}
    assert edges == chain
    metrics = graph_metrics(6, [(names.index(a), names.index(b)) for a, b in edges])
    expected = {"nodes": 6, "density": 5 / 30, "branching": 1 / 6, "convergence": 1 / 6, "linearity": 5 / 6}
    assert metrics == pytest.approx(expected)


def test_two_results_join_and_a_result_is_used_once():
    assert graph(" 3 + 4 = 7, 5 - 2 = 3, 7 * 3 = 21 no")[1] == {("4+3", "7*3"), ("5-2", "7*3")}
    assert graph(" 3 + 4 = 7, 7 + 7 = 14 no")[1] == {("4+3", "7+7")}  # the second 7 has no source
    assert graph(" 5 * 1 = 5, 5 * 1 = 5 no")[1] == set()  # no edge to itself
    assert graph(" 3 + 4 = 7 no\n 7 * 2 = 14 no")[1] == set()  # an attempt starts from the problem's numbers


def test_mirrored_edges_make_branching_and_convergence_one_number():
    nodes, edges = trace_graph(read_search(PROBLEM, " 3 + 4 = 7, 5 - 2 = 3, 7 * 3 = 21 no"))
    true = graph_metrics(len(nodes), edges)
    mirrored = graph_metrics(len(nodes), edges | {(b, a) for a, b in edges})
    assert true["branching"] == 0 and true["convergence"] == 1 / 3
    assert mirrored["branching"] == mirrored["convergence"] == 1 / 3
    assert mirrored["density"] == 2 * true["density"]


@given(st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6)).filter(lambda e: e[0] < e[1])))
def test_on_any_graph_the_mirrored_metrics_hide_the_direction(edges):
    mirrored = graph_metrics(7, edges | {(b, a) for a, b in edges})
    assert mirrored["branching"] == mirrored["convergence"]
    degrees = np.bincount([n for e in edges for n in e], minlength=7)
    assert graph_metrics(7, edges)["linearity"] == pytest.approx(1 - (degrees > 2).mean())


@pytest.mark.parametrize(
    "text", ["", "</think>", " yes no", "9 + 9 = 18, " * 9000, " 1 + 1 = 2,\x00 2 * 2 = 4 no" * 3000]
)
def test_any_text_has_a_graph_in_bounded_work(text):
    search = read_search(PROBLEM, text)
    nodes, edges = trace_graph(search)
    assert len(nodes) <= MAX_READ and len(edges) <= 2 * len(nodes)
    metrics = graph_metrics(len(nodes), edges)
    assert math.isnan(metrics["density"]) == (len(nodes) < 2) and math.isnan(metrics["branching"]) == (not nodes)


def test_a_frame_of_rollouts_is_measured_row_by_row():
    frame = pd.DataFrame({"data": [DATA, DATA], "response": [TRACE, ""], "attempts": [9, 9]}, index=[5, 7])
    measured = graph_frame(frame)
    assert measured.index.tolist() == [5, 7] and measured["attempts"].tolist() == [3, 0]
    assert measured.loc[5, list(METRICS)].tolist() == pytest.approx([6, 1 / 6, 1 / 6, 1 / 6, 5 / 6])
    with pytest.raises(RlinoError, match="Countdown rollouts"):
        graph_frame(frame.assign(data=[{}, {}]))


def test_right_against_wrong_at_equal_attempts_takes_out_what_attempts_explain():
    """A measure that is the number of attempts differs overall, and not at equal attempts."""
    rng = np.random.default_rng(0)
    rows = [
        {"problem": p, "attempts": (a := int(rng.integers(1, 4))), "correct": rng.random() < a / 4, "nodes": 2.0 * a}
        for p in range(30)
        for _ in range(40)
    ]
    frame = pd.DataFrame(rows)
    sums = graph_sums(frame, ["nodes"])
    alone, matched = (matched_gaps(sums, "nodes", within) for within in ((), ("attempts",)))
    assert alone.mean() > 0.5 and len(alone) == 30
    assert len(matched) and (matched == 0).all()
    assert matched_gaps(graph_sums(frame.assign(correct=True), ["nodes"]), "nodes").empty


def test_strata_have_the_weights_of_least_variance():
    cells = [(1, True, [3.0, 5.0]), (1, False, [1.0]), (2, True, [9.0]), (2, False, [8.0, 8.0, 8.0]), (3, True, [99.0])]
    rows = [dict(problem="p", attempts=a, correct=c, nodes=v) for a, c, values in cells for v in values]
    gaps = matched_gaps(graph_sums(pd.DataFrame(rows), ["nodes"]), "nodes")
    assert gaps.to_dict() == {"p": pytest.approx((3 * 2 / 3 + 1 * 3 / 4) / (2 / 3 + 3 / 4))}


def test_responses_without_a_value_leave_no_trace_in_the_sums():
    """The density of one equation is none: it is neither 0 nor counted, and a stratum without another has no gap."""
    rows = [("p", 1, True, math.nan), ("p", 1, True, 0.5), ("p", 1, False, 0.2), ("q", 1, True, math.nan),
            ("q", 1, False, 0.1)]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["problem", "attempts", "correct", "density"])
    assert matched_gaps(graph_sums(frame, ["density"]), "density").to_dict() == {"p": pytest.approx(0.3)}
