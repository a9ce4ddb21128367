"""The length explorer: its numbers are the toy's, its arrows point as they say, its sliders keep to what exists."""

from __future__ import annotations

import re

import pytest

from rlino_lib.errors import RlinoError
from rlino_lib.exact.length_toy import CHANGES, METHODS, NORMALISERS, LengthToy, drift, explore_length, variant
from rlino_lib.widgets.length import COUPLINGS, SHARES, _arrows_svg, length_explorer
from tests.widgets.test_widgets import Explored, Page
from tests.widgets.test_widgets_gradient import read

HEAD = re.compile(r'<path d="M[\d.]+ [\d.]+l(-?[\d.]+) 7l')  # of an arrow: how far its tip is to the right


@pytest.fixture(scope="module")
def found():
    return Explored(length_explorer(cap=4))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_the_table_has_the_exact_numbers(found, normaliser, change):
    choice = {"normaliser": list(NORMALISERS).index(normaliser), "change": list(CHANGES).index(change)}
    page = Page(found.page("page", **choice, p=SHARES.index(0.2)))
    toy = LengthToy(p=0.2, horizon=4, **CHANGES[change][1])
    table = drift(toy, variant("grpo_no_kl", normaliser), 4).table
    assert page.count("svg") == 1 and page.count("table") == 1 and len(page.cells) == table.size
    assert [read(x) for x in page.cells] == pytest.approx(table.to_numpy().flatten().tolist(), rel=6e-3, abs=1e-9)
    assert all("aria-label" in attrs for tag, attrs in page.elements if tag == "svg")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("choice", [{}, {"coupling": 1.0, "p": 0.2}, {"change": "cap"}, {"change": "hits", "cap": 10}])
def test_arrows_point_where_the_drift_goes(method, choice):
    result = explore_length(method=method, **choice)[1]
    source = _arrows_svg(result, choice.get("cap", 8))
    shifts = result.shifts
    drawn = [s for name, s in shifts.items() if name != "all" and abs(s) * 400 / (choice.get("cap", 8) - 1) >= 0.5]
    heads = [float(x) for x in HEAD.findall(source)]
    assert [h > 0 for h in heads] == [s > 0 for s in drawn] and 0 not in heads
    assert source.count("does not move") == sum(not s for name, s in shifts.items() if name != "all")


@pytest.mark.parametrize("method", range(len(METHODS)))
def test_the_constant_normaliser_has_no_arrow(found, method):
    page = found.page("page", method=method, normaliser=list(NORMALISERS).index("constant"))
    assert not HEAD.findall(page) and page.count("does not move") == 3 and "nothing to climb" in page
    own = found.page("page", method=method)
    assert HEAD.findall(own) and "nothing to climb" not in own
    assert "constant" not in found.page("formula", method=method)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("p, cap, coupling", [(0.05, 3, 1.0), (0.95, 3, 1.0), (0.05, 10, 1.0), (0.95, 10, 0.0)])
def test_arrows_stay_on_the_ruler(change, p, cap, coupling):
    """At the corners: the page does not clip them."""
    result = explore_length("f_isft_posneg_unit", change=change, p=p, cap=cap, coupling=coupling)[1]
    ends = [float(x) for x in re.findall(r'd="M[\d.]+ \d+H([\d.]+)" stroke="#', _arrows_svg(result, cap))]
    assert ends and all(100 <= x <= 500 for x in ends)


def test_a_shared_stop_logit_is_there_for_the_plain_toy_alone(found):
    shared = COUPLINGS.index(1.0)
    unit = METHODS.index("f_isft_posneg_unit")
    assert "moves the other one" in found.page("page", method=unit, coupling=shared, p=SHARES.index(0.2))
    assert all(found.page("page", coupling=shared, change=k) is None for k in range(1, len(CHANGES)))
    assert found.page("curve", coupling=shared) != found.page("curve") and "<svg" in found.page("curve")
    assert found.controls["p"]["kind"] == "slider" and len(found.html) < 450_000


@pytest.mark.parametrize("cap", [2, 13])
def test_a_cap_that_cannot_be_enumerated_is_refused(cap):
    with pytest.raises(RlinoError):
        length_explorer(cap)
