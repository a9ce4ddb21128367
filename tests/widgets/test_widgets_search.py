"""The search view: its tree has the attempts of the reading, its page is safe, its sliders make the page."""

from __future__ import annotations

import base64
import re
from xml.etree import ElementTree

import pandas as pd
import pytest

from rlino_lib.errors import RlinoError
from rlino_lib.records.runs import list_runs
from rlino_lib.widgets import inspector_html, trace_inspector
from rlino_lib.widgets.search import (
    MOST,
    attempt_table,
    grow,
    read_group,
    search_html,
    search_view,
    static_search,
    walk,
)
from tests.widgets.test_widgets_gradient import Page as Checked

MISS, HIT, ODD = " 8 - 2 = 6, 6 * 4 = 24", " 8 * 4 = 32, 32 * 2 = 64", " 8 * 4 = 33, 32 + 2 = 34"
LONG = (
    f"{MISS} no\n{ODD} no\n{MISS} no\n 4 * 8 = 32, 32 / 2 = 16 no\n{HIT} yes </think> <answer> ( 8 * 4 ) * 2 </answer>"
)
GIVES_UP = f"{MISS} no </think> <answer> ( 8 - 2 ) * 4 </answer>"
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\x00\u202e"


class Page(Checked):
    """An image has no end."""

    def handle_starttag(self, tag, attrs):
        super().handle_starttag(tag, attrs)
        if tag == "img":
            self.open.pop()


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
    page = search_html(FRAME, overlay=True)
    assert "3 responses, 8 attempts, 4 of them different; 2 were made by more than one response" in page
    assert "3 of 3 (#1 no, #3 ↻ no)" in page and "2 of 3 (#5 yes)" in page


def test_nodes_and_repeats_are_drawn():
    source = search_html(FRAME, sample=0)
    page = Page(source)
    assert page.count("svg") == 1 and page.count("rect") == 8  # the root and seven places
    assert source.count('fill="#111"') == 1 and source.count("✓ 64") == 1 and "#1 no, #3 ↻ no" in source
    assert source.count(" ✗</text>") == 2 and "8 * 4 is not 33" in source and "32 is not left" in source
    assert "8 - 2 ×2" in source and ">?<" in source


def test_the_table_says_it_in_words():
    (only,) = shown(FRAME[:1])
    table = attempt_table(only)
    assert table["steps"].tolist()[0] == "8 - 2 = 6, 6 * 4 = 24" and table["hits"].tolist() == ["", "", "", "", "✓"]
    assert table["repeats"].tolist() == ["new", "new", "#1", "new", "new"]
    assert table["faults"].tolist()[1] == "8 * 4 is not 33; 32 is not left"
    cells = Page(search_html(FRAME, sample=0)).cells
    assert cells == [text for text in table.to_numpy().flatten() if text]
    other = attempt_table(shown(FRAME[2:3])[0])
    assert other["verdict"].tolist() == ["no, but hits", "no"]
    assert "but does not hit" in attempt_table(shown(rollouts(f"{MISS} yes"))[0])["verdict"][1]


# --- stepping --------------------------------------------------------------------------------------------------------


def test_the_trace_grows_token_by_token():
    (only,) = shown(FRAME[:1])
    total = len(only.tokens)
    assert "".join(only.tokens) == LONG and only.attempt_at(0) == 0 == only.attempt_at(total)
    under_way = [only.attempt_at(t) for t in range(total + 1)]
    assert under_way[1 : only.token_after(5) + 1] == sorted(under_way[1 : only.token_after(5) + 1])
    assert set(under_way) == {0, 1, 2, 3, 4, 5} and only.begun == sorted(only.begun) and only.begun[-1] == 5
    for k in range(1, 6):
        t = only.token_after(k)
        assert only.attempt_at(t) == k and LONG[: only.ends[t - 1]].count(" no\n") + (k == 5) == k
        source = search_html(FRAME, sample=0, token=t)
        assert source.count('aria-current="true"') == 1 and source.count('stroke-width="2.5"') == 2
        assert source.count('opacity="0.25"') > 0 or k >= 4
    whole = search_html(FRAME, sample=0)
    assert 'opacity="0.25"' not in whole and 'aria-current="true"' not in whole
    assert search_html(FRAME, sample=0, token=0).count("<path") == search_html(FRAME, sample=0, token=0).count(
        'opacity="0.25"'
    )
    half = search_html(FRAME, sample=0, token=7)  # one step of two
    written = re.search(r"<pre[^>]*>(.*?)</pre>", half, re.DOTALL)[1]
    assert half.count('stroke-width="2.5"') == 1 and re.sub("<[^>]*>", "", written) == " 8 - 2 = 6, 6"


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
    for source in (search_html(FRAME, group=1, sample=1), static_search(FRAME, group=1)):
        page = Page(source)
        assert "<script" not in source and "<img src=x" not in source and "alert(1)" in page.text
        assert "\x00" not in source and "\u202e" not in source
    name = rollouts(LONG).assign(problem_id=EVIL, data=[{"nums": [8, 2, 4], "target": 64, "question": EVIL}])
    assert "<script" not in search_html(name)


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
    frame = rollouts(text, GIVES_UP)
    for sample in (0, 1):
        for overlay in (False, True):
            page = Page(search_html(frame, sample=sample, overlay=overlay))
            assert page.count("svg") == 1 and page.count("rect") <= 1 + 6 * (MOST + 2)
    assert ("Only the first 60 attempts" in search_html(frame, sample=0)) == (text.count("no\n") > 60)


def test_the_image_is_the_drawing():
    source = search_html(FRAME, sample=0, image=True)
    data = base64.b64decode(re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', source)[1]).decode()
    assert data in search_html(FRAME, sample=0) and ElementTree.fromstring(data).tag.endswith("svg")
    assert Page(source).count("svg") == 0 and Page(source).count("img") == 1


def test_the_static_twin_has_every_response():
    page = Page(static_search(FRAME))
    assert page.count("details") == page.count("img") == page.count("table") == 4
    assert sum("open" in attrs for tag, attrs in page.tags if tag == "details") == 1
    assert all(attrs["alt"] for tag, attrs in page.tags if tag == "img")
    assert sum(attrs.get("tabindex") == "0" for _, attrs in page.tags) == 8  # each drawing and each trace
    assert static_search(FRAME) == static_search(FRAME) and repr(static_search(FRAME)).startswith("<Html, ")


# --- the widget ------------------------------------------------------------------------------------------------------


def test_the_sliders_make_the_page():
    view = search_view(FRAME, sample=0)
    menus = view.menus
    assert view.view.value == search_html(FRAME, **view.choice) == search_html(FRAME, sample=0)
    assert {type(m).__name__ for m in menus.values()} == {"SelectionSlider", "IntSlider"}  # they take the arrow keys
    menus["attempt"].value = 2
    assert menus["token"].value == view.now.token_after(2) and menus["attempt"].value == 2
    assert view.view.value == search_html(FRAME, sample=0, step=1, group=0, token=menus["token"].value)
    menus["token"].value = 3
    assert menus["attempt"].value == 1
    for name, value in (("overlay", True), ("sample", 2), ("group", 1), ("step", 2)):
        menus[name].value = value
        assert view.choice[name] == value and view.view.value == search_html(FRAME, **view.choice)
        assert menus["token"].value == menus["token"].max == len(view.now.tokens) or name == "overlay"
    assert view.choice["group"] == 0 and menus["attempt"].max == 5
    assert repr(view) == "SearchView()"
    assert view._repr_mimebundle_()["text/html"] == search_html(FRAME, **view.choice, image=True)


def test_what_cannot_be_shown_is_said():
    for call in (search_html, search_view):
        with pytest.raises(RlinoError, match="no response 9: the group has 0, 1, 2"):
            call(FRAME, sample=9)
        with pytest.raises(RlinoError, match="no group 7 at step 1"):
            call(FRAME, group=7)
        with pytest.raises(RlinoError, match="read from Countdown rollouts"):
            call(FRAME.assign(data=[{"question": "How many?"}] * len(FRAME)))
        with pytest.raises(RlinoError, match="no recorded rollouts"):
            call(FRAME[:0])
    with pytest.raises(RlinoError, match="token 500 of a response of"):
        search_html(FRAME, token=500)


# --- in the trace inspector ------------------------------------------------------------------------------------------


def test_the_inspector_shows_a_group_as_its_tree_where_it_is_a_search():
    run = next(run for run in list_runs("countdown") if len(run.rollouts))
    inspector = trace_inspector(run)
    responses = inspector.view.value
    inspector.menus["form"].value = True
    assert inspector.view.value == str(search_html(run, **where(inspector), overlay=True)) != responses
    assert inspector.menus["colour"].disabled and "<svg" not in inspector._repr_mimebundle_()["text/html"]
    inspector.menus["step"].index = 1
    assert inspector.view.value == str(search_html(run, **where(inspector), overlay=True))
    inspector.menus["form"].value = False
    assert inspector.view.value == str(inspector_html(run, **inspector.choice))

    other = run.rollouts[:8].assign(data=[{"question": "?"}] * 8)
    both = trace_inspector([run, other])
    both.menus["form"].value = True
    both.menus["run"].index = 1  # no search: the menu goes back by itself
    assert both.menus["form"].disabled and not both.menus["form"].value
    assert both.view.value == str(inspector_html(other, **both.choice))
    both.menus["run"].index = 0
    assert not both.menus["form"].disabled


def where(inspector) -> dict:
    return {name: inspector.choice[name] for name in ("step", "group")}
