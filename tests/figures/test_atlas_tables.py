"""The atlas as Markdown: what stands in it, and that no text in it is read as Markdown or HTML."""

from __future__ import annotations

import dataclasses

import pytest
from markdown_it import MarkdownIt

from rlino_lib.analysis.atlas import atlas
from rlino_lib.analysis.systems import read_systems
from rlino_lib.figures import atlas as tool
from rlino_lib.methods.catalogue import OBJECTIVES

HOSTILE = '<script>alert(1)</script> ![x](y) [z](javascript:w) `a` **b** $c$ {d}`e` <!-- f --> a|b \\| \n\n# g &lt; "'


def cells(markdown: str) -> list[list[str]]:
    """The text of each cell of a table, as it is shown; raises where anything but text and links stands in one."""
    rows: list[list[str]] = []
    for token in MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown):
        assert token.type.split("_")[0] in ("table", "thead", "tbody", "tr", "th", "td", "inline"), token.type
        if token.type == "tr_open":
            rows.append([])
        if token.type == "inline":
            kinds = {child.type for child in token.children}
            assert kinds <= {"text", "text_special", "link_open", "link_close"}, (kinds, token.content)
            rows[-1].append("".join(child.content for child in token.children))
    return rows


@pytest.fixture(scope="module")
def frame():
    return atlas()


@pytest.fixture(scope="module")
def ends():
    return tool.recorded_results()


def test_a_row_for_each_method_and_a_cell_for_each_column(frame, ends):
    head, *rows = cells(tool.atlas_table(frame, ends))
    assert len(rows) == len(OBJECTIVES) and {len(row) for row in rows} == {len(head)} and all(map(all, rows))
    by_name = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    grpo, unit = by_name["GRPO without KL (grpo_no_kl)"], by_name["F-ISFT⁺⁻ unit (f_isft_posneg_unit)"]
    assert (unit["w⁺"], unit["w⁻"], unit["verdicts, lengths and ratios alone"], unit["what else w reads"]) == (
        "+1",
        "−1",
        "yes",
        "nothing",
    )
    assert grpo["w⁺, ρ = 1.5"] == "0" and "10 seeds" in grpo["Countdown, right, %"]
    assert by_name["VinePPO (vineppo)"]["drops"] == "even split"
    assert {row["verdicts, lengths and ratios alone"] for row in by_name.values()} == {"yes", "no"}


def test_formulas_are_what_the_library_prints(frame):
    _, *rows = cells(tool.formulas_table(frame))
    assert {f"{name}: {formula}" for name, formula, _ in rows} == {
        " ".join(repr(o).split()) for o in OBJECTIVES.values()
    }


def test_a_system_links_to_its_paper_and_to_the_chapter_that_is_there():
    text = tool.systems_table({"10": "10_credit.ipynb"})
    _, *rows = cells(text)
    assert len(rows) == len(read_systems())
    assert "[10: What it bought](10_credit.ipynb#what-it-bought)" in text
    assert "(https://arxiv.org/abs/2410.01679)" in text and "11_" not in text


def test_hostile_text_is_shown_as_it_is(frame, ends):
    shown = " ".join(HOSTILE.split())
    bad = frame.iloc[:1].assign(reads=HOSTILE, source=HOSTILE, formula=HOSTILE, drops=HOSTILE).set_axis([HOSTILE])
    row = cells(tool.atlas_table(bad, ends.iloc[:1].assign(method=HOSTILE, settings=HOSTILE)))[1]
    assert row[0] == shown and row[5] == row[7] == shown and row[8].endswith(f", with {shown}")
    assert cells(tool.formulas_table(bad))[1] == [shown] * 3
    system = dataclasses.replace(read_systems()[0], name=HOSTILE, changes=HOSTILE, beyond=HOSTILE, heading=HOSTILE)
    row = cells(tool.systems_table({"10": "10.html"}, [system]))[1]
    assert row[0] == f"{shown} (2410.01679)" and row[1] == row[4] == shown and row[5].startswith(f"10: {shown}")
    assert cells(tool.systems_table({}, [system]))[1][5] == "not yet"


def test_weights_in_words():
    assert [tool.signed(x) for x in (0.0, 1.0, -0.53994, 64.79, float("nan"))] == ["0", "+1", "−0.54", "+64.8", "–"]


def test_the_page_has_a_place_for_each_part_and_says_what_runs_are_compared(root, ends):
    parts = tool.parts({})
    page = (root / "docs" / "atlas.md").read_text(encoding="utf-8")
    assert all(page.count(f"<!-- {name} -->") == 1 for name in parts) and page.count("<!--") == len(parts)
    assert "Countdown, from the base countdown: 150 × 8 × 8. word problems, from the base" in parts["compared"]
    assert "8 responses, 2 of them right, of 40 tokens" in parts["group"]
