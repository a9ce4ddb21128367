"""The built site in a browser: no error, nothing from outside, alternative texts, axe-core, and explorers that move."""

from __future__ import annotations

from pathlib import Path

import pytest
from driving import by_keyboard, by_mouse

from tools.book import chapters

CHAPTERS = [f"{script.stem}.html" for script in chapters(Path(__file__).resolve().parents[2] / "book")]
OTHERS = [f"{name}.html" for name in "index claims atlas explorers questions references search".split()]
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


@pytest.mark.parametrize(
    "name", ["index.html", "claims.html", "atlas.html", "06_the_same_gradient.html", "explorers.html"]
)
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


def test_the_atlas_is_sorted_by_number_and_what_is_missing_stays_last(tab, site):
    tab.goto((site / "atlas.html").as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    table = tab.locator(".sortable table").first
    for column in (1, 2, 9):
        for sign in (1, -1):
            table.locator("th button").nth(column).click()
            cells = table.locator(f"tbody tr td:nth-child({column + 1})").all_inner_texts()
            texts = cells[: cells.index("–")]
            numbers = [sign * float(text.replace("−", "-")) for text in texts]
            assert len(texts) > 5 and numbers == sorted(numbers) and set(cells[len(texts) :]) == {"–"}


@pytest.mark.parametrize("size", [(1280, 900), (900, 700), (390, 844)])
def test_the_head_of_the_claims_stays_in_view(tab, site, size):
    tab.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
    tab.goto((site / "claims.html").as_uri())
    table = tab.locator(".sortable table")
    table.locator("tbody tr").nth(30).locator("td").first.evaluate("cell => cell.scrollIntoView({block: 'center'})")
    cell = table.locator("thead th").first
    cell.evaluate("() => new Promise(requestAnimationFrame)")
    seen = """head => { const {left, top, bottom} = head.getBoundingClientRect();
      return head.contains(document.elementFromPoint(left + 9, bottom - 9)) && top >= 0 && bottom < innerHeight; }"""
    assert cell.evaluate(seen)


def test_claims_are_filtered_by_verdict_by_keyboard_and_by_link(tab, site):
    tab.goto((site / "claims.html").as_uri())
    menu = tab.get_by_label("Verdict")
    rows = tab.locator(".sortable tbody tr")
    total = rows.count()
    seen = []
    menu.focus()
    for _ in menu.locator("option").all()[1:]:
        tab.keyboard.press("ArrowDown")
        choice = menu.locator("option:checked").inner_text()
        verdicts = rows.filter(visible=True).locator("td:nth-child(2)").all_inner_texts()
        name = choice.rpartition(" (")[0]
        assert choice == f"{name} ({len(verdicts)})" and all(name in verdict for verdict in verdicts), choice
        seen.append((name, len(verdicts)))
    counts = dict(seen)
    standing = {name: counts.pop(name) for name in ("superseded", "under revision")}
    assert min(standing.values()) > 0 and sum(counts.values()) == total
    tab.evaluate("location.hash = '#weighted-sft'")  # whose row was hidden
    tab.locator("tr:has(#weighted-sft)").wait_for()
    assert rows.filter(visible=True).count() == total and menu.input_value() == ""
    menu.select_option("under revision")
    assert rows.filter(visible=True).count() == standing["under revision"]


def test_without_a_script_the_whole_table_is_there(watch, site):
    with watch(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto((site / "claims.html").as_uri())
        rows = page.locator(".sortable tbody tr")
        assert rows.filter(visible=True).count() == rows.count() > 30
        assert page.locator("td:nth-child(2)", has_text="superseded").count() > 0
