"""The MDP explorer: its numbers are the MDP's, its page is well formed, and its menus keep within what exists."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
import torch

from rlino_lib.errors import RlinoError
from rlino_lib.widgets import mdp as mdp_page
from rlino_lib.widgets.mdp import RULES, Rule, default_response, explore, mdp_explorer, mdp_html, static_mdp


class Page(HTMLParser):
    """Elements and text; fails where elements do not nest, or an attribute could run a script."""

    def __init__(self, source: str):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.cells = [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert tag != "script" and not any(name.startswith("on") for name, _ in attrs)
        self.elements.append((tag, dict(attrs)))
        if tag != "img":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["td"]:
            self.cells.append(data)

    def count(self, tag: str) -> int:
        return sum(t == tag for t, _ in self.elements)


@pytest.mark.parametrize("reward", RULES)
@pytest.mark.parametrize("slip", [0.0, 0.2])
def test_merged_states_agree_on_policy_and_value(reward, slip):
    found = explore(reward=reward, slip=slip)
    values, logits = found.mdp.values(found.policy), found.policy()
    for k in found.classes.unique():
        of_class = found.classes == k
        for each in (values.V, values.Q, logits):
            assert torch.allclose(each[of_class], each[of_class][:1], atol=1e-12, rtol=0)
    assert len(found.classes.unique()) < found.mdp.n_states and found.mdp.right.any() and not found.mdp.right.all()


@pytest.mark.parametrize(
    "reward, right",
    [
        ("two", {"aa·", "aab·", "aba·", "baa·"}),
        ("string", {"aba·"}),
        ("even", {"·", "b·", "aa·", "bb·", "aab·", "aba·", "baa·", "bbb·"}),
    ],
)
def test_the_rules_mean_what_they_say(reward, right):
    found = explore(reward=reward)
    table = found.mdp.responses(found.policy)
    assert set(table["response"][table["reward"] == 1]) == right


def test_the_table_has_the_exact_numbers():
    found = explore()
    n = default_response(found)
    page = Page(mdp_html(response=n))
    length = int(found.mdp.lengths[n])
    rows = [page.cells[k : k + 8] for k in range(0, len(page.cells), 8)]
    assert len(rows) == length and [r[0] for r in rows] == ["1", "2", "3", "4"]
    read = lambda text: float(text.replace("−", "-"))  # noqa: E731
    for column, kind in ((5, "exact"), (6, "uniform"), (7, "split")):
        exact = found.mdp.credit(found.policy, kind)[n]
        assert [read(r[column]) for r in rows] == pytest.approx(exact.tolist(), rel=6e-3)
    assert all(read(r[5]) == pytest.approx(read(r[4]) - read(r[3]), abs=2e-3) for r in rows)
    assert min(read(r[5]) for r in rows) < 0 < min(read(r[6]) for r in rows)  # a step that hurt, and uniform praise


def test_merging_draws_fewer_nodes_with_the_same_values():
    apart, merged = Page(mdp_html()), Page(mdp_html(merge=True))
    found = explore()
    assert apart.count("circle") == found.mdp.n_states and apart.count("rect") == found.mdp.n_responses
    assert merged.count("circle") == len(found.classes.unique()) and merged.count("rect") < apart.count("rect")
    assert apart.cells == merged.cells


def test_slips_hide_the_actions_and_cost_the_arm():
    page = mdp_html(slip=0.2)
    assert "A, exact" not in page and "an arm no longer names a response" in page
    best = explore(slip=0.2).mdp.optimum()
    assert best.gap > 0.05 and f"{best.gap:.3f} more" in page and "no more" in mdp_html()


@pytest.mark.parametrize("step", [0, 2, 4])
def test_one_place_is_marked(step):
    for merge in (False, True):
        source = mdp_html(step=step, merge=merge)
        assert source.count('stroke-width="4"/>') == 1 and source.count('aria-current="step"') == (step > 0)
        assert source.count('opacity="1"') == step


def test_the_page_is_the_same_at_every_call_and_reachable_by_keyboard():
    assert mdp_html() == mdp_html() and repr(mdp_html()).startswith("<Html, ")
    page = Page(static_mdp())
    assert page.count("details") == page.count("img") == page.count("table") == 3 and page.count("svg") == 0
    assert all(attrs["alt"] for tag, attrs in page.elements if tag == "img")
    assert sum("open" in attrs for tag, attrs in page.elements if tag == "details") == 1
    assert sum(attrs.get("tabindex") == "0" for _, attrs in page.elements) == 3


def test_names_are_escaped(monkeypatch):
    evil = "<img src=x onerror=alert(1)>"
    monkeypatch.setitem(RULES, "evil", Rule(evil, lambda s, t: 0, 0))
    for source in (mdp_html(reward="evil"), static_mdp({evil: {}})):
        assert evil not in source and "&lt;img" in source and Page(source).open == []
    real = mdp_page.TokenMDP
    monkeypatch.setattr(mdp_page, "TokenMDP", lambda *a: real(*a, names=("·", "<b>", '"&')))
    assert Page(mdp_html()).count("b") == 0


def test_the_widget_shows_the_page_of_its_choices():
    widget = mdp_explorer()
    menus = widget.menus
    assert widget.view.value == mdp_html(**widget.choice) == mdp_html()
    menus["merge"].value, menus["step"].value = True, 1
    assert widget.view.value == mdp_html(merge=True, step=1)
    menus["response"].value = 0
    assert menus["step"].max == menus["step"].value == 1 and widget.view.value == mdp_html(merge=True, response=0)
    for name in ("size", "reward", "slip"):
        for _, value in menus[name].options:
            menus[name].value = value
            assert widget.view.value == mdp_html(**widget.choice)
    assert repr(widget) == "MDPExplorer()" and widget._repr_mimebundle_()["text/html"] == mdp_html(
        **widget.choice, image=True
    )


def test_the_image_is_the_drawing():
    source = mdp_html(merge=True, image=True)
    data = base64.b64decode(re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', source)[1]).decode()
    assert data in mdp_html(merge=True) and ElementTree.fromstring(data).tag.endswith("svg")


def test_what_cannot_be_shown_is_said():
    for call in (mdp_html, mdp_explorer):
        with pytest.raises(RlinoError, match="too many to draw"):
            call(vocab=5, horizon=5)
        with pytest.raises(RlinoError, match="unknown reward 'three': one of two"):
            call(reward="three")
    with pytest.raises(RlinoError, match="response 31 of 31"):
        mdp_html(response=31)
    with pytest.raises(RlinoError, match="step 2 of a response of 1"):
        mdp_html(response=0, step=2)
    assert re.search("0 right", mdp_html(vocab=2, horizon=2, reward="string"))
