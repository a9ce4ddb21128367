"""The search view: its tree has the attempts of the reading, its page is safe, its sliders make the page."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest

from rlino_lib.analysis.attempts import MOST, attempt_table, grow, read_group, walk
from rlino_lib.errors import RlinoError
from rlino_lib.widgets import search_view
from tests.widgets.test_widgets import Explored, Page

MISS, HIT, ODD = " 8 - 2 = 6, 6 * 4 = 24", " 8 * 4 = 32, 32 * 2 = 64", " 8 * 4 = 33, 32 + 2 = 34"
LONG = (
    f"{MISS} no\n{ODD} no\n{MISS} no\n 4 * 8 = 32, 32 / 2 = 16 no\n{HIT} yes </think> <answer> ( 8 * 4 ) * 2 </answer>"
)
GIVES_UP = f"{MISS} no </think> <answer> ( 8 - 2 ) * 4 </answer>"
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\x00\u202e"


def rollouts(*responses: str, nums=(8, 2, 4), target=64, **columns) -> pd.DataFrame:
    rows = {"response": responses, "correct": ["</answer>" in r and "yes" in r for r in responses]}
    frame = pd.DataFrame(rows).assign(step=1, group=0, clipped=False, problem_id="countdown/2-4-8=64", **columns)
    return frame.assign(data=[{"nums": list(nums), "target": target}] * len(frame))


FRAME = rollouts(LONG, GIVES_UP, f"{HIT} no\n{MISS} no\n 8 * 4 =")
FRAME = pd.concat([FRAME, FRAME.assign(step=2), rollouts(GIVES_UP, EVIL).assign(group=1)], ignore_index=True)


def shown(frame: pd.DataFrame):
    return read_group(frame.assign(sample=range(len(frame)), tokens=None).to_dict("records"))


# --- the tree --------------------------------------------------------------------------------------------------------


def test_the_tree_has_the_attempts():
    (only,) = shown(FRAME[:1])
    root = grow([only])
    edges = {(child.depth, child.text): child for _, child in walk(root)}
    assert list(edges) == [(1, "8 - 2"), (2, "6 * 4"), (1, "8 * 4"), (2, "32 + 2"), (2, "32 / 2"), (2, "32 * 2")]
    assert [len(n.passed) for n in (root, *edges.values())] == [
        5,
        2,
        2,
        2,
        1,
        1,
        1,
    ]  # 8 * 4 is a node for 32 and for 33
    assert edges[2, "6 * 4"].ended == [(0, 1), (0, 3)] and edges[2, "32 * 2"].ended == [(0, 5)]
    assert [e for e, n in edges.items() if n.hit] == [(2, "32 * 2")]
    assert sum(n.written.fault != "" for _, n in walk(root)) == 2


def test_the_group_shares_one_tree():
    group = shown(FRAME[:3])
    root = grow(group)
    ends = [n for n in (root, *(c for _, c in walk(root))) if n.ended]
    assert sum(len(n.ended) for n in ends) == sum(len(s.search.attempts) for s in group) == 8
    page = Explored(search_view(FRAME)).page("tree", tree=1)
    assert "3 responses, 8 attempts, 4 of them different; 2 were made by more than one response" in page
    assert page.count(">3 of 3<") == 1 and page.count(">2 of 3<") == 1


def test_nodes_and_repeats_are_drawn():
    source = Explored(search_view(FRAME, sample=0)).page("tree")
    page = Page(source)
    assert page.count("svg") == 1 and page.count("rect") == 8  # the root and seven places
    assert source.count('fill="#077a58"') == 1 and source.count("✓ 64") == 1 and "#1 no, #3 ↻ no" in source
    assert source.count(" ✗</text>") == 2 and "8 * 4 is not 33" in source and "32 is not left" in source
    assert "8 - 2 ×2" in source and ">?<" in source


def test_the_table_says_it_in_words():
    (only,) = shown(FRAME[:1])
    table = attempt_table(only)
    assert table["steps"].tolist()[0] == "8 - 2 = 6, 6 * 4 = 24" and table["hits"].tolist() == ["", "", "", "", "✓"]
    assert table["repeats"].tolist() == ["new", "new", "#1", "new", "new"]
    assert table["faults"].tolist()[1] == "8 * 4 is not 33; 32 is not left"
    cells = Page(Explored(search_view(FRAME, sample=0)).page("words")).cells
    assert cells == [text for text in table.to_numpy().flatten() if text]
    other = attempt_table(shown(FRAME[2:3])[0])
    assert other["verdict"].tolist() == ["no, but hits", "no"]
    assert "but does not hit" in attempt_table(shown(rollouts(f"{MISS} yes"))[0])["verdict"][1]


# --- stepping --------------------------------------------------------------------------------------------------------


def test_the_trace_grows_token_by_token():
    (only,) = shown(FRAME[:1])
    found = Explored(search_view(FRAME, sample=0))
    (steps,) = [a for _, a in Page(found.page("words")).elements if "data-marks" in a]
    marks, stops = json.loads(steps["data-marks"]), json.loads(steps["data-stops"])
    total = len(only.tokens)
    assert "".join(only.tokens) == LONG and int(steps["data-steps"]) == total
    assert stops == [0, *(only.token_after(k) for k in range(1, 6))] and only.begun[-1] == 5
    for tree in (0, 1):  # the tree of the response and that of its group have the same names of nodes
        ids = {a["data-id"] for _, a in Page(found.page("tree", tree=tree)).elements if "data-id" in a}
        assert {name for name in marks if name[0] == "n"} <= ids

    def now(token, kind):
        return [name for name, spans in marks.items() if name[0] == kind and any(a <= token <= b for a, b in spans)]

    def later(token):
        return [n for n, spans in marks.items() if n[0] == "n" and not any(a <= token for a, _ in spans)]

    for k in range(1, 6):
        assert now(stops[k], "a") == [f"a{k}"] and len(now(stops[k], "n")) == 2
        assert LONG[: only.ends[stops[k] - 1]].count(" no\n") + (k == 5) == k
    assert now(total, "a") == now(total, "n") == later(total) == [] and len(later(0)) == 7
    assert len(now(7, "n")) == 1  # one step of two
    assert all(bool(later(stops[k])) == (k < 5) for k in range(1, 6))


def test_recorded_tokens_are_used_where_they_spell_the_response():
    text = GIVES_UP
    recorded = [text[:7], text[7:], "<|endoftext|>"]
    frame = rollouts(text).assign(tokens=[recorded], sample=0)
    assert read_group(frame.to_dict("records"))[0].tokens == recorded
    frame = frame.assign(tokens=[["other", "words"]])
    assert "".join(read_group(frame.to_dict("records"))[0].tokens) == text
    only = frame.drop(columns="response").assign(tokens=[recorded])
    assert len(read_group(only.to_dict("records"))[0].search.attempts) == 1


# --- the page --------------------------------------------------------------------------------------------------------


def test_hostile_text_is_escaped():
    found = Explored(search_view(FRAME, group=1, sample=1))
    assert "alert(1)" in found.first.text and "\x00" not in found.html and "\u202e" not in found.html
    name = rollouts(LONG).assign(problem_id=EVIL, data=[{"nums": [8, 2, 4], "target": 64, "question": EVIL}])
    Explored(search_view(name))


@pytest.mark.parametrize(
    "text",
    [
        " 1 + 1 = 2 no\n" * 5_000,
        " 1 + 1 = 2," * 5_000,
        "no " * 5_000,
        "",
        " ",
        "8",
        " 999999999 * 999999999 = 999999999 no",
    ]
    + ["".join(f" {k} + 1 = {k + 2} no\n" for k in range(2000))],
)
def test_any_response_can_be_shown(text):
    found = Explored(search_view(rollouts(text, GIVES_UP), sample=0))
    for tree in (0, 1):
        page = Page(found.page("tree", tree=tree))
        assert page.count("svg") == 1 and page.count("rect") <= 1 + 6 * (MOST + 2)
    assert ("Only the first 60 attempts" in found.page("words")) == (text.count("no\n") > 60)


def test_every_response_and_group_can_be_chosen():
    found = Explored(search_view(FRAME))
    assert found.controls["step"]["options"] == ["1", "2"]
    names = found.controls["response"]["options"]
    assert "#0 · ✓ 5 attempts" in names and "#1 · ✗ 1 attempt" in names
    pages = [
        found.page("words", step=s, problem=p, response=r)
        for s in range(2)
        for p in range(len(found.controls["problem"]["options"]))
        for r in range(len(names))
    ]
    assert sum(page is not None for page in pages) == len(FRAME)
    assert found.first.count("img") == 1 and all(a["alt"] for tag, a in found.first.elements if tag == "img")
    assert sum(a.get("tabindex") == "0" for _, a in found.first.elements) == 3  # drawing, trace and table
    assert [c["kind"] for c in found.controls.values()][-2:] == ["stop", "step"] and search_view(FRAME) == found.html
    assert re.findall("#(.)", names[found.controls["response"]["start"]]) == ["0"]  # it has the most attempts


def test_what_cannot_be_shown_is_said():
    with pytest.raises(RlinoError, match="no response 9: the group has 0, 1, 2"):
        search_view(FRAME, sample=9)
    with pytest.raises(RlinoError, match="no group 7 at step 1"):
        search_view(FRAME, group=7)
    with pytest.raises(RlinoError, match="read from Countdown rollouts"):
        search_view(FRAME.assign(data=[{"question": "How many?"}] * len(FRAME)))
    with pytest.raises(RlinoError, match="no recorded rollouts"):
        search_view(FRAME[:0])
