"""The MDP explorer: its numbers are the MDP's, its page is well formed, and its menus keep within what exists."""

from __future__ import annotations

import itertools
import json

import pytest
import torch

from rlino_lib.errors import RlinoError
from rlino_lib.exact import ruled_mdp
from rlino_lib.exact.ruled_mdp import RULES, Rule, default_response, explore
from rlino_lib.widgets import mdp
from rlino_lib.widgets.mdp import SIZES, mdp_explorer
from tests.widgets.test_widgets import Explored, Page


@pytest.fixture(scope="module")
def found():
    return Explored(mdp_explorer())


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


def test_the_table_has_the_exact_numbers(found):
    toy = explore()
    n = default_response(toy)
    page = Page(found.page("table"))
    length = int(toy.mdp.lengths[n])
    rows = [page.cells[k : k + 7] for k in range(0, len(page.cells), 7)]
    assert len(rows) == length == 4
    read = lambda text: float(text.replace("−", "-"))  # noqa: E731
    for column, kind in ((4, "exact"), (5, "uniform"), (6, "split")):
        exact = toy.mdp.credit(toy.policy, kind)[n]
        assert [read(r[column]) for r in rows] == pytest.approx(exact.tolist(), rel=6e-3)
    assert all(read(r[4]) == pytest.approx(read(r[3]) - read(r[2]), abs=2e-3) for r in rows)
    assert min(read(r[4]) for r in rows) < 0 < min(read(r[5]) for r in rows)  # a step that hurt, and uniform praise


def test_merging_draws_fewer_nodes_with_the_same_values(found):
    apart, merged = Page(found.page("drawing")), Page(found.page("drawing", merge=1))
    toy = explore()
    assert apart.count("circle") == toy.mdp.n_states and apart.count("rect") == toy.mdp.n_responses
    assert merged.count("circle") == len(toy.classes.unique()) and merged.count("rect") < apart.count("rect")
    assert Page(found.page("table")).cells == Page(found.page("table", merge=1)).cells


def test_slips_hide_the_actions_and_cost_the_arm(found):
    assert "A, exact" not in found.page("table", slip=1) and "A, exact" in found.page("table")
    words = found.page("words", slip=1)
    best = explore(slip=0.2).mdp.optimum()
    assert "an arm no longer names a response" in words
    assert best.gap > 0.05 and f"{best.gap:.3f} more" in words and "no more" in found.page("words")


@pytest.mark.parametrize("merge", [0, 1])
def test_stepping_follows_the_path(found, merge):
    (attributes,) = [a for _, a in Page(found.page("table", merge=merge)).elements if "data-marks" in a]
    marks, last = json.loads(attributes["data-marks"]), int(attributes["data-steps"])
    ids = {a["data-id"] for _, a in Page(found.page("drawing", merge=merge)).elements if "data-id" in a}
    assert {name for name in marks if name[0] != "t"} <= ids and last == 4
    for step in range(last + 1):
        now = [name for name, spans in marks.items() if any(a <= step <= b for a, b in spans)]
        assert sum(name[0] == "d" for name in now) == 1 and sum(name[0] == "e" for name in now) == step


def test_every_choice_has_its_responses(found):
    sizes = found.controls["size"]["options"]
    assert sizes == [f"V = {v}, H = {h}" for v, h in SIZES]
    for k, (v, h) in enumerate(SIZES):
        for slip, merge in itertools.product(range(2), range(2)):
            responses = range(len(found.controls["response"]["options"]))
            pages = [found.page("table", size=k, slip=slip, merge=merge, response=n) for n in responses]
            assert sum(page is not None for page in pages) == explore(v, h).mdp.n_responses


def test_the_page_is_reachable_by_keyboard_and_small(found):
    assert len(found.html) < 450_000
    assert found.first.count("img") == 1 and all(a["alt"] for tag, a in found.first.elements if tag == "img")
    assert found.first.having(class_="rlino-graph")[0]["tabindex"] == "0"


def test_names_are_escaped_and_the_page_is_the_same_at_every_call(monkeypatch):
    real = ruled_mdp.TokenMDP
    monkeypatch.setattr(ruled_mdp, "TokenMDP", lambda *a: real(*a, names=("·", "<b>", '"&')[: a[0]]))
    monkeypatch.setitem(RULES, "evil", Rule("<img src=x onerror=alert(1)>", lambda s, t: 0, 0))
    monkeypatch.setattr(mdp, "SIZES", ((3, 2),))
    monkeypatch.setattr(mdp, "START", ((3, 2), "evil", 0.0))
    found = Explored(mdp_explorer())
    assert found.first.count("b") == 0 and "<b>" in Page(found.page("drawing")).text and mdp_explorer() == found.html


def test_what_cannot_be_shown_is_said():
    with pytest.raises(RlinoError, match="too many to draw"):
        explore(vocab=5, horizon=5)
    with pytest.raises(RlinoError, match="unknown reward 'three': one of two"):
        explore(reward="three")
