"""The built site in a browser: no error, nothing from outside, alternative texts, axe-core, and explorers that move."""

from __future__ import annotations

from pathlib import Path

import pytest
from driving import by_keyboard, by_mouse

from tools.book import chapters

CHAPTERS = [f"{script.stem}.html" for script in chapters(Path(__file__).resolve().parents[2] / "book")]
OTHERS = ["index.html", "claims.html", "explorers.html", "questions.html", "references.html", "search.html"]
SILENT = """() => [...document.querySelectorAll("article img, article svg[role=img]")]
  .filter(image => !image.closest("mjx-container, [aria-hidden=true]"))
  .filter(image => (image.getAttribute(image.localName === "img" ? "alt" : "aria-label") ?? "").length < 20)
  .map(image => image.outerHTML.slice(0, 200))"""

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter(tab, axe, site, name):
    """Contrast is tested where the book has colours of its own: on code, one look at each of its words takes long."""
    tab.goto((site / name).as_uri())
    assert tab.evaluate(SILENT) == []
    assert axe(tab, leave_out="color-contrast") == []
    for k, section in enumerate(tab.locator(".rlino-explorer").all()):
        section.scroll_into_view_if_needed()
        (by_mouse if k % 2 else by_keyboard)(section, tab, most=1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", OTHERS)
def test_another_page(tab, axe, site, name, scheme):
    tab.emulate_media(color_scheme=scheme)
    tab.goto((site / name).as_uri())
    assert tab.locator("html").get_attribute("data-theme") == scheme
    assert tab.evaluate(SILENT) == []
    assert axe(tab) == []


@pytest.mark.parametrize("name", ["01_language_models_as_mdps.html", "04_grpo.html", "08_length.html"])
def test_explorers_are_dark_on_a_dark_page(tab, axe, site, name):
    tab.emulate_media(color_scheme="dark")
    tab.goto((site / name).as_uri())
    grounds = tab.locator(".text_html:has(.rlino-explorer)").evaluate_all(
        "boxes => boxes.map(box => getComputedStyle(box).backgroundColor)"
    )
    assert set(grounds) == {"rgba(0, 0, 0, 0)"}
    assert axe(tab, ".rlino-explorer") == []


@pytest.mark.parametrize("name", ["index.html", "claims.html", "06_the_same_gradient.html", "explorers.html"])
def test_a_phone_scrolls_tables_and_not_the_page(tab, site, name):
    tab.set_viewport_size({"width": 390, "height": 844})
    tab.goto((site / name).as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if name == "claims.html":
        verdict = tab.locator(".sortable tbody tr td:nth-child(2)").first.bounding_box()
        assert verdict["x"] + verdict["width"] <= 390


def test_search_finds_a_word_without_a_server(tab, site):
    tab.goto((site / "search.html").as_uri() + "?q=importance+ratio")
    tab.locator("#search-results a", has_text="Notation").first.wait_for()


def test_claims_are_sorted_by_keyboard(tab, site):
    tab.goto((site / "claims.html").as_uri())
    table = tab.locator(".sortable table").first
    button = table.locator("th button").first
    orders = []
    for key in ("Enter", "Space"):
        button.focus()
        tab.keyboard.press(key)
        orders.append(table.locator("tbody tr td:first-child").all_inner_texts())
    assert orders[0] == orders[1][::-1] and len(set(orders[0])) > 2
