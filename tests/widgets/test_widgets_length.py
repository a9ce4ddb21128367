"""The length explorer: its numbers are the toy's, its arrows point as they say, its sliders keep to what exists."""

from __future__ import annotations

import re

import pytest

from rlino_lib.errors import RlinoError
from rlino_lib.exact.length_toy import METHODS, NORMALISERS, LengthToy, drift, variant
from rlino_lib.widgets.length import (
    CHANGES,
    SHARES,
    VIEWS,
    _shifts,
    drift_curves,
    explore_length,
    length_explorer,
    length_html,
    static_length,
)
from tests.widgets.test_widgets_gradient import Page, read

HEAD = re.compile(r'<path d="M[\d.]+ [\d.]+l(-?[\d.]+) 7l')  # of an arrow: how far its tip is to the right


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_the_table_has_the_exact_numbers(normaliser, change):
    page = Page(length_html(normaliser=normaliser, change=change, p=0.3, cap=6, coupling=0.25))
    toy = LengthToy(p=0.3, horizon=6, coupling=0.25, **CHANGES[change][1])
    table = drift(toy, variant("grpo_no_kl", normaliser), 4).table
    assert page.count("svg") == 2 and page.count("table") == 1 and len(page.cells) == table.size
    assert [read(x) for x in page.cells] == pytest.approx(table.to_numpy().flatten().tolist(), rel=6e-3, abs=1e-9)
    assert all("aria-label" in attrs for tag, attrs in page.tags if tag == "svg")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("choice", [{}, {"coupling": 1.0, "p": 0.2}, {"change": "cap"}, {"change": "hits", "cap": 10}])
def test_arrows_point_where_the_drift_goes(method, choice):
    source = length_html(method=method, **choice)
    shifts = _shifts(explore_length(method=method, **choice)[1])
    drawn = [s for name, s in shifts.items() if name != "all" and abs(s) * 400 / (choice.get("cap", 8) - 1) >= 0.5]
    heads = [float(x) for x in HEAD.findall(source)]
    assert [h > 0 for h in heads] == [s > 0 for s in drawn] and 0 not in heads
    assert source.count("does not move") == sum(not s for name, s in shifts.items() if name != "all")


@pytest.mark.parametrize("method", METHODS)
def test_the_constant_normaliser_has_no_arrow(method):
    page = length_html(method=method, normaliser="constant")
    assert not HEAD.findall(page) and page.count("does not move") == 3 and "nothing to climb" in page
    assert HEAD.findall(length_html(method=method)) and "nothing to climb" not in length_html(method=method)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("p, cap, coupling", [(0.05, 3, 1.0), (0.95, 3, 1.0), (0.05, 10, 1.0), (0.95, 10, 0.0)])
def test_arrows_stay_on_the_ruler(change, p, cap, coupling):
    """At the corners of the sliders: the page does not clip them."""
    source = length_html(method="f_isft_posneg_unit", change=change, p=p, cap=cap, coupling=coupling)
    ends = [float(x) for x in re.findall(r'd="M[\d.]+ \d+H([\d.]+)" stroke="#', source)]
    assert ends and all(100 <= x <= 500 for x in ends)


def test_curves_are_the_drifts_at_every_share():
    found = drift_curves(method="dr_grpo", p=0.7)
    assert tuple(found.index) == SHARES and found.equals(drift_curves(method="dr_grpo", p=0.1))
    for p in (0.1, 0.5):
        table = explore_length("dr_grpo", p=p)[1].table
        assert found.loc[p].tolist() == table["drift"][["right", "wrong"]].tolist()
    assert found["wrong"].min() > 0 > found["right"].max()


@pytest.mark.parametrize(
    "choice",
    [dict(method="ppo"), dict(method="rloo"), dict(normaliser="token_sum"), dict(change="x"), dict(p=0.0), dict(cap=2)]
    + [dict(cap=13), dict(coupling=1.5)],
)
def test_what_cannot_be_shown_is_said(choice):
    for show in (length_html, length_explorer):
        with pytest.raises(RlinoError):
            show(**choice)


def test_the_sliders_make_the_page():
    explorer = length_explorer(p=0.33, cap=5)
    assert explorer.view.value == str(length_html(**explorer.choice)) and explorer.choice["p"] == 0.33
    for name, value in dict(
        method="f_isft_neg", normaliser="constant", change="hits", p=0.2, cap=6, coupling=1.0
    ).items():
        explorer.menus[name].value = value
        assert explorer.choice[name] == value and explorer.view.value == str(length_html(**explorer.choice))
    assert repr(explorer) == "LengthExplorer()"
    assert explorer._repr_mimebundle_()["text/html"] == explorer.view.value
    kinds = {type(menu).__name__ for menu in explorer.menus.values()}
    assert kinds <= {"SelectionSlider", "IntSlider"}  # they take the arrow keys


def test_static_pages_are_the_same_pages():
    found = static_length()
    assert all(str(length_html(**choice)) in found for choice in VIEWS.values())
    assert Page(found).count("details") == len(VIEWS) and found.count("<details open>") == 1
    evil = static_length({"<script>alert(1)</script>": {"cap": 4}})
    assert "<script>" not in evil and "alert(1)" in Page(evil).text
