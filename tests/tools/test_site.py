"""The site: built without network and without a warning, loads nothing from outside, and shows what notebooks hold."""

from __future__ import annotations

import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import jupytext
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from rlino_lib.analysis.systems import read_systems
from rlino_lib.errors import RlinoError
from rlino_lib.methods.catalogue import OBJECTIVES
from tools import book
from tools import site as tool

LOADS = {"link", "script", "img", "iframe", "source", "audio", "video", "object", "embed", "input", "image", "use"}


class Page(HTMLParser):
    """What a page loads, where it links to, its ids, its images and the classes of its elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads, self.links, self.images, self.ids, self.classes = [], [], [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = {name: value or "" for name, value in attributes}
        addresses = [values[name] for name in ("src", "href", "data", "xlink:href") if name in values]
        if tag in LOADS:
            self.loads += addresses
        if tag == "a":
            self.links += addresses
        if tag == "img":
            self.images.append(values)
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        self.classes += values.get("class", "").split()


@pytest.fixture(scope="module")
def pages(site) -> dict[str, Page]:
    return {path.name: Page(path.read_text(encoding="utf-8")) for path in sorted(site.glob("*.html"))}


@pytest.fixture(scope="module")
def scripts(root):
    return book.chapters(root / "book")


# ---- the build -------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_it_builds_without_network_within_a_minute_and_without_a_word(site):
    log = (site.parent / "log").read_text(encoding="utf-8")
    assert log.splitlines() == [f"written: {site / 'index.html'}"]
    assert float((site.parent / "seconds").read_text(encoding="utf-8")) < 60


@pytest.mark.slow
def test_every_chapter_has_a_page_that_the_start_page_links(pages, scripts):
    names = [f"{script.stem}.html" for script in scripts]
    assert set(names) <= pages.keys() and set(names) <= set(pages["index.html"].links)
    others = {f"{name}.html" for name in "claims atlas notation questions references explorers".split()}
    assert others <= pages.keys() and others <= set(pages["index.html"].links)


@pytest.mark.slow
def test_nothing_is_loaded_from_outside(site, pages):
    loaded = [(name, address) for name, page in pages.items() for address in page.loads]
    assert len(loaded) > 100 and [pair for pair in loaded if re.match(r"(?i)(https?:)?//", pair[1])] == []
    own = [path for path in site.rglob("*.css")] + [path for path in site.rglob("*.js") if "vendor" not in path.parts]
    for path in own:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"""@import\s+(url\()?["']?(https?:)?//|url\(["']?(https?:)?//""", text), path
    inline = "".join(path.read_text(encoding="utf-8") for path in site.glob("*.html"))
    assert not re.search(r"@import|url\([\"']?https?:|\bfetch\(|XMLHttpRequest|import\(", inline)


@pytest.mark.slow
def test_links_within_the_site_lead_somewhere(site, pages):
    for name, page in pages.items():
        for address in page.links:
            parts = urlsplit(address)
            if parts.scheme in ("http", "https", "mailto"):
                continue
            target = unquote(parts.path) or name
            assert (site / target).exists(), (name, address)
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].ids, (name, address)


@pytest.mark.slow
def test_controls_that_need_a_kernel_are_not_on_a_page(site, pages, root):
    for path in site.glob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert "application/vnd.jupyter.widget" not in text and "LivePlot(" not in text, path.name
    assert not any("jupyter-widgets" in page.classes for page in pages.values())
    for script in book.chapters(root / "book"):
        assert "widgets" not in nbformat.read(site.with_name("site-src") / f"{script.stem}.ipynb", 4).metadata


@pytest.mark.slow
def test_every_image_says_what_it_shows(pages):
    images = [(name, image) for name, page in pages.items() for image in page.images]
    silent = [(n, i["src"][:60]) for n, i in images if len(i.get("alt", "")) < 20 or i["alt"].startswith("_images")]
    assert len(images) > 50 and silent == []


@pytest.mark.slow
def test_formulas_are_drawn_by_the_mathjax_that_comes_with_the_book(site, pages):
    assert any(address.endswith("mathjax/tex-svg.js") or "mathjax/tex-svg.js?" in address
               for address in pages["04_grpo.html"].loads)  # fmt: skip
    folder = site / "_static" / "mathjax"
    assert "Apache License" in (folder / "LICENSE").read_text(encoding="utf-8")
    assert "3.2.2" in (folder / "tex-svg.js").read_text(encoding="utf-8")


@pytest.mark.slow
def test_words_and_symbols_can_be_linked_to_and_searched_for(site, pages, root):
    words = re.findall(r"^\| \*\*(.+?)\*\* \|", (root / "book" / "notation.md").read_text(encoding="utf-8"), re.M)
    ids = pages["notation.html"].ids
    assert len(words) > 40 and {f"term-{word.replace('@', '-').replace(' ', '-')}" for word in words} <= ids
    assert {"rollouts-mask", "rlino-lib-methods-loss-token-weights"} <= ids
    assert "importance ratio" in (site / "searchindex.js").read_text(encoding="utf-8")


@pytest.mark.slow
def test_claims_are_those_of_the_ledger_and_their_table_sorts(site, pages, root):
    names = re.findall(r'^id = "(.+)"', (root / "data" / "claims.toml").read_text(encoding="utf-8"), re.M)
    assert len(names) > 30 and set(names) <= pages["claims.html"].ids
    assert "sortable" in pages["claims.html"].classes
    assert any("sort.js" in address for address in pages["claims.html"].loads)


@pytest.mark.slow
def test_the_atlas_has_every_method_and_every_system_and_its_tables_sort(site, pages):
    text = (site / "atlas.html").read_text(encoding="utf-8")
    shown = {unescape(cell) for cell in re.findall(r"<td[^>]*><p>(.*?)</p></td>", text)}
    assert set(OBJECTIVES) <= shown and pages["atlas.html"].classes.count("sortable") == 3
    assert {f"https://arxiv.org/abs/{system.arxiv}" for system in read_systems()} <= set(pages["atlas.html"].links)
    assert "10_credit_that_is_not_uniform.html#what-it-bought" in pages["atlas.html"].links
    assert "&lt;!--" not in text and "<!-- methods" not in text


@pytest.mark.slow
def test_a_chapter_cites_and_the_references_say_where(site):
    chapter = (site / "06_the_same_gradient.html").read_text(encoding="utf-8")
    assert 'href="references.html#' in chapter and "arxiv.org/abs/2505.18116" not in chapter
    references = (site / "references.html").read_text(encoding="utf-8")
    cited = references.partition('id="cited-in"')[2]
    assert "06_the_same_gradient.html" in cited and "Chen" in cited
    assert {"doi.org/10.48550/arXiv.2404.03683", "doi.org/10.48550/arXiv.2605.11549"} <= set(
        re.findall(r"doi\.org/[\w./]+", references)
    )


@pytest.mark.slow
def test_explorers_and_claims_are_linked_to_where_they_stand(site, pages):
    for name, page in pages.items():
        places = [i for i in page.ids if i.startswith("explorer-")]
        assert len(places) == len(re.findall(r'<section class="rlino-explorer', (site / name).read_text("utf-8"))), name
        assert {f"{name}#{place}" for place in places} <= set(pages["explorers.html"].links)
    assert "claims.html#weighted-sft" in pages["04_grpo.html"].links


# ---- its pieces ------------------------------------------------------------------------------------------------------
def test_every_reference_has_authors_a_year_and_where_it_is(root):
    text = (root / "docs" / "references.bib").read_text(encoding="utf-8")
    entries = re.split(r"(?m)^@misc\{", text)[1:]
    assert len(entries) > 10
    for entry in entries:
        assert all(re.search(rf"^  {field} = ", entry, re.M) for field in ("title", "author", "year")), entry
        number = re.search(r"eprint = \{(.+)\}", entry)
        assert (f"doi = {{10.48550/arXiv.{number[1]}}}" if number else "url = {https://") in entry
    assert len(tool.papers(text)) == text.count("eprint")


@pytest.mark.parametrize(
    ("text", "cited"),
    [
        ("([arXiv 2401.00001](https://arxiv.org/abs/2401.00001))", "({cite:alp}`key`)"),
        ("([arXiv\n2401.00001](https://arxiv.org/abs/2401.00001))", "({cite:alp}`key`)"),
        ("**X** ([2401.00001](https://arxiv.org/abs/2401.00001)) is", "**X** ({cite:alp}`key`) is"),
        (
            "[*A paper*](https://arxiv.org/abs/2401.00001) says",
            "[*A paper*](https://arxiv.org/abs/2401.00001) ({cite:alp}`key`) says",
        ),
        ("[arXiv 2402.9](https://arxiv.org/abs/2402.00009)", "[arXiv 2402.9](https://arxiv.org/abs/2402.00009)"),
    ],
)
def test_links_to_known_papers_become_citations(text, cited):
    assert tool.cite(text, {"2401.00001": "key"}) == cited


@pytest.mark.parametrize(
    ("text", "to", "expected"),
    [
        ("[GRPO](book/04_grpo.ipynb#a)", "", "[GRPO](04_grpo.ipynb#a)"),
        ("[claims](CLAIMS.md)", "", "[claims](claims.md)"),
        ("[code](tools/site.py)", "", "code"),
        ("[code](tools/site.py#L3)", "https://x.org/r", "[code](https://x.org/r/blob/main/tools/site.py#L3)"),
        ("[out](https://x.org) ![a](CLAIMS.md) [up](#top)", "", "[out](https://x.org) ![a](CLAIMS.md) [up](#top)"),
        ("`rows[name](value)`", "", "`rows[name](value)`"),
    ],
)
def test_links_lead_to_pages_to_the_repository_or_nowhere(text, to, expected):
    pages = tool.PAGES | {"book/04_grpo.ipynb": "04_grpo.ipynb"}
    assert tool.relink(text, "README.md", pages, to=to) == expected


def test_links_are_those_of_the_file_that_they_stand_in():
    pages = tool.PAGES | {"book/04_grpo.ipynb": "04_grpo.ipynb"}
    assert tool.relink("[a](../README.md) [b](04_grpo.ipynb)", "book/08_length.ipynb", pages) == (
        "[a](index.md) [b](04_grpo.ipynb)"
    )


@pytest.mark.parametrize(
    ("opened", "words"),
    [
        (
            "<strong>Step 20 · 4 4 → 8 &amp; more</strong> <small>countdown/f_isft_pos-s1</small>",
            "opens on the problem 4 4 → 8 & more, at optimiser step 20 of the recorded run of F-ISFT⁺ on Countdown, "
            "seed 1",
        ),
        ("<strong>Step 200 · 4 4 → 8</strong>", "opens on the problem 4 4 → 8, at optimiser step 200"),
        ("<strong>Step 0 · 4 4 → 8</strong>", "opens on the problem 4 4 → 8"),
        ("", ""),
    ],
)
def test_an_explorer_is_of_a_section_and_opens_on_a_run_a_step_and_a_problem(opened, words):
    page = '<style></style><section class="rlino-explorer x" aria-label="Traces &amp; groups">'
    page += f'<p class="rlino-title">{opened}</p></section>'
    outputs = [new_output("display_data", {"text/html": page}), new_output("display_data", {"text/html": "<p></p>"})]
    cells = [new_markdown_cell("# A chapter\n\n## A section"), new_code_cell(outputs=outputs)]
    assert list(tool.explorers(new_notebook(cells=cells))) == [(1, "Traces & groups", "A section", words)]


def test_the_page_of_explorers_says_what_each_of_them_is(root, scripts):
    notebooks = [nbformat.read(script.with_suffix(".ipynb"), 4) for script in scripts]
    names = {name for notebook in notebooks for _, name, _, _ in tool.explorers(notebook)}
    parts = (root / "docs" / "explorers.md").read_text(encoding="utf-8").split("\n## ")[1:]
    assert {part.partition("\n")[0] for part in parts} == names
    assert all(re.fullmatch(r"(.+)\n\n[^<]{80,}\n\n<!-- \1 -->\s*", part) for part in parts)


def test_a_list_without_its_place_on_a_page_is_an_error(tmp_path):
    (tmp_path / "a.md").write_text("<!-- One -->", encoding="utf-8")
    with pytest.raises(RlinoError, match="a.md has no <!-- Two -->: say there what it is"):
        tool._fill(tmp_path / "a.md", "Two", "- x")


# ---- what chapters tell the site -------------------------------------------------------------------------------------
def test_every_figure_of_a_chapter_has_an_alternative_text(scripts):
    silent = []
    for script in scripts:
        for number, cell in enumerate(tool.with_alt_texts(book.build(script)).cells):
            if any("image/png" in output.get("data", {}) for output in cell.get("outputs", ())):
                alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
                silent += [(script.name, number)] if len(alt) < 40 else []
    assert silent == []


def test_cells_are_marked_by_tags_that_their_readers_know(scripts):
    known = {"nbval-check-output", "nbval-skip", "skip-execution", "raises-exception", "hide-input", "remove-cell"}
    checked = 0
    for script in scripts:
        assert "NBVAL" not in script.read_text(encoding="utf-8"), script.name
        for cell in jupytext.read(script).cells:
            tags = set(cell.metadata.get("tags", ()))
            assert tags <= known, (script.name, tags)
            checked += "nbval-check-output" in tags
    assert checked >= 73


def test_a_cell_with_the_tag_is_compared_when_the_notebook_is_run_again(tmp_path):
    """`make test` runs chapters with `--nbval-lax`, which compares outputs of marked cells alone."""
    for name, tags in (("marked", ["nbval-check-output"]), ("plain", [])):
        cell = new_code_cell("print(1)", outputs=[new_output("stream", name="stdout", text="2\n")], execution_count=1)
        cell.metadata["tags"] = tags
        nbformat.write(new_notebook(cells=[cell]), tmp_path / f"{name}.ipynb")
    options = ["-q", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env"]
    command = [sys.executable, "-m", "pytest", *options, "."]
    report = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    assert "1 failed, 1 passed" in report and "marked.ipynb" in report


def test_a_chapter_without_its_outputs_is_no_page(tmp_path):
    script = tmp_path / "01_name.py"
    script.write_text("# %%\n1\n", encoding="utf-8")
    for content, words in ((None, "01_name.ipynb is missing: make book"), ("<<<<<<< HEAD\n{", "is not a notebook")):
        if content:
            script.with_suffix(".ipynb").write_text(content, encoding="utf-8")
        with pytest.raises(RlinoError, match=words):
            book.build(script, executed=True)
        assert len(book.build(script).cells) == 1  # to be executed


def test_the_site_is_of_executed_chapters(tmp_path, root, monkeypatch):
    """A damaged notebook ends the layout with its name, before anything of it is a page."""
    for name in ("docs", tool.FIGURES, "book"):
        (tmp_path / "root" / name).mkdir(parents=True)
    (tmp_path / "root" / "docs" / "references.bib").write_text("")
    (tmp_path / "root" / "book" / "01_name.py").write_text("# %%\n1\n", encoding="utf-8")
    (tmp_path / "root" / "book" / "01_name.ipynb").write_text("{", encoding="utf-8")
    with pytest.raises(RlinoError, match="01_name.ipynb is not a notebook"):
        tool.lay_out(tmp_path / "root", tmp_path / "pages")
    assert not list((tmp_path / "pages").glob("*.ipynb"))


def test_a_build_empties_what_a_build_made_and_nothing_else(tmp_path):
    folder = tmp_path / "site"
    tool.empty(folder)
    (folder / "index.html").write_text("old")
    tool.empty(folder)
    assert [path.name for path in folder.iterdir()] == [tool.MARK]
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("x")
    for other in (precious, precious / "thesis.tex"):
        with pytest.raises(RlinoError, match="no site of an earlier build"):
            tool.empty(other)
    assert (precious / "thesis.tex").read_text() == "x"
