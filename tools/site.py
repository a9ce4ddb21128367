"""The book as web pages that need no kernel and no network: `python -m tools.site` (make site).

Sphinx does the work, with the settings in `docs/conf.py`. Here what it reads is laid out in `build/site-src`: the pages
of `docs`, the chapters as they were executed, and the repository's own pages with links that fit the site. What it
writes is `build/site`: open `index.html`, no server is needed.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping
from html import unescape
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from sphinx.cmd.build import build_main

from rlino_lib.claims.ledger import read_ledger
from rlino_lib.cli.terminal import Parser, run_program
from rlino_lib.errors import RlinoError
from rlino_lib.figures import atlas
from rlino_lib.figures.ablation import TASKS
from rlino_lib.figures.recorded import markdown_table
from rlino_lib.figures.style import label as label_of
from rlino_lib.folders import write_whole
from rlino_lib.paths import REPO
from rlino_lib.records.runs import load_run, seed_words
from tools.book import build, chapters, number_of, title
from tools.report import address

FIGURES = "data/figures"
DOORS = "[Explorers](explorers.md) · [Atlas](atlas.md)"
# Files of the repository that are pages of the site, or come with it, by their names there.
PAGES = {
    "README.md": "index.md",
    "CLAIMS.md": "claims.md",
    "book/notation.md": "notation.md",
    "data/README.md": "about-data.md",
    "CONTRIBUTING.md": "about-contributing.md",
    "CHANGELOG.md": "about-changes.md",
    "CITATION.cff": "CITATION.cff",
    "LICENSE": "LICENSE",
}
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:)([^)\s#]+)(#[^)\s]*)?\)")
ARXIV = re.compile(r"\[([^\]]*)\]\(https://arxiv\.org/abs/(\d{4}\.\d{4,5})\)")
MARK = ".rlino-site"  # in each folder that a build may empty again
EXPLORER = re.compile(r'<section class="rlino-explorer[^>]*aria-label="([^"]*)"')
OPENED = re.compile(r'<p class="rlino-title"><strong>Step (\d+) · (.*?)</strong>(?: <small>(.*?)</small>)?</p>')


# ---- Markdown --------------------------------------------------------------------------------------------------------
def papers(bibliography: str) -> dict[str, str]:
    """The keys of a BibTeX file's entries by their arXiv number."""
    return {number: key for key, number in re.findall(r"@\w+\{([^,]+),[^@]*?eprint = \{([\d.]+)\}", bibliography)}


def cite(text: str, cited: Mapping[str, str]) -> str:
    """Citations for links to arXiv, {number: key} `cited`; a link with other words than its number stays beside it."""

    def citation(link: re.Match[str]) -> str:
        words, number = link.groups()
        if number not in cited:
            return link[0]
        role = f"{{cite:alp}}`{cited[number]}`"
        return role if words.removeprefix("arXiv").strip() == number else f"{link[0]} ({role})"

    return ARXIV.sub(citation, text)


def relink(text: str, name: str, pages: Mapping[str, str], root: Path = REPO, to: str = "") -> str:
    """The Markdown of the repository's file `name`, with links to pages of the site, {file: page} `pages`.

    A link to a file without a page leads to the repository's address `to`; where that is empty, its words alone stay.
    """

    def moved(link: re.Match[str]) -> str:
        words, target, place = link.groups(default="")
        file = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        if file in pages:
            return f"[{words}]({pages[file]}{place})"
        if not (root / file).exists():  # code that looks like a link
            return link[0]
        return f"[{words}]({to}/blob/main/{file}{place})" if to else words

    return LINK.sub(moved, text)


def glossary(text: str, pages: Mapping[str, str]) -> str:
    """The page of notation with its words as Sphinx's own glossary: they can be linked to, and a search finds them.

    `pages` has the page of a chapter by its number.
    """
    symbols, heading, words = text.partition("## Glossary\n")
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| (.+) \| (\w+) \|$", words, re.M)
    terms = [f"{word}\n  {meaning} ([chapter {number}]({pages[number]}))\n" for word, meaning, number in rows]
    return "\n".join([f"{symbols}{heading}", "````{glossary}", *terms, "````\n"])


def link_claims(text: str, names: Collection[str]) -> str:
    """Markdown in which a claim's name, as code, leads to its row in the table of claims."""
    return re.sub(r"(?<!`)`([\w-]+)`(?!`)", lambda m: f"[{m[0]}](claims.md#{m[1]})" if m[1] in names else m[0], text)


def anchored(text: str) -> str:
    """Markdown whose rows of tables can be linked to, by the first name of code in them: #rollouts-mask."""

    def with_anchor(row: re.Match[str]) -> str:
        name = re.sub(r"[^a-z0-9]+", "-", row[2].lower())
        return f"| []{{#{name}}}{row[1]}`{row[2]}`"

    return re.sub(r"(?m)^\| ([^`\n]*)`([^`\n]+)`", with_anchor, text)


def sortable(text: str, looks: str = "sortable") -> str:
    """Markdown whose tables can be sorted by any column; with "sortable wide" each scrolls in its own window."""
    return re.sub(r"(?m)(^\|.*\n)+", lambda table: f":::{{container}} {looks}\n{table[0]}:::\n", text)


# ---- chapters --------------------------------------------------------------------------------------------------------
def explorers(notebook: NotebookNode) -> Iterator[tuple[int, str, str, str]]:
    """The explorers among a notebook's outputs: the number of the cell, what the explorer is called, the section of the
    chapter, and on which run, step and problem it opens, in words (empty where it has none).
    """
    section = ""
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            section = [section, *re.findall(r"(?m)^##+ +(.*)", cell.source)][-1]
        for output in cell.get("outputs", ()):
            page = "".join(output.get("data", {}).get("text/html", ""))
            opened = OPENED.search(page)
            words = _opening(*map(unescape, opened.groups(default=""))) if opened else ""
            yield from ((number, unescape(label), section, words) for label in EXPLORER.findall(page))


def _opening(step: str, problem: str, run: str) -> str:
    """Where an explorer opens, in words; of responses that were sampled in the chapter there is no run."""
    words = f"opens on the problem {problem}" + f", at optimiser step {step}" * (run != "" or step != "0")
    if run:
        config = load_run(run).config
        method, task = label_of(config["method"]), TASKS.get(config["task"], config["task"])
        words += f" of the recorded run of {method} on {task}, {seed_words(config['seed'])}"
    return words


def with_alt_texts(notebook: NotebookNode) -> NotebookNode:
    """The notebook with each cell's `alt` where myst-nb looks for the alternative text of its figures."""
    for cell in notebook.cells:
        if "alt" in cell.metadata:
            cell.metadata["mystnb"] = {"image": {"alt": cell.metadata["alt"]}}
    return notebook


# ---- the site --------------------------------------------------------------------------------------------------------
def empty(folder: Path) -> None:
    """Empty a folder for a build. RlinoError where something is there that no build has made."""
    if folder.exists():
        if not (folder / MARK).is_file() and not (folder.is_dir() and not any(folder.iterdir())):
            raise RlinoError(f"{folder} is there, and no site of an earlier build: choose another folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARK).touch()


def lay_out(root: Path, source: Path, to: str = "") -> None:
    """Write everything that Sphinx reads into the empty folder `source`."""
    shutil.copytree(root / "docs", source, dirs_exist_ok=True)
    shutil.copytree(root / FIGURES, source / FIGURES)
    scripts = chapters(root / "book")
    page_of = {number_of(script): f"{script.stem}.ipynb" for script in scripts}
    pages = {file: page for file, page in PAGES.items() if (root / file).exists()}
    pages |= {f"book/{page}": page for page in page_of.values()}
    cited = papers(_read(source / "references.bib"))
    names = {claim.id for claim in read_ledger()}
    citing = {number: [] for number in cited}
    to_try: dict[str, list[str]] = {}
    for script, page in zip(scripts, page_of.values(), strict=True):
        notebook = with_alt_texts(build(script, executed=True))
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = relink(cell.source, f"book/{page}", pages, root, to)
                for _, number in ARXIV.findall(cell.source):
                    citing.get(number, []).append(f"[{number_of(script)}]({page})")
                cell.source = link_claims(cite(cell.source, cited), names)
        places = list(explorers(notebook))
        anchor = f"explorer-{number_of(script)}"  # one name, one place in the whole site
        for place, label, section, words in places:
            line = (
                f"- Chapter {title(notebook, script)}: [{section}]({page}#{anchor}-{place}){words and f', {words}'}\n"
            )
            to_try.setdefault(label, []).append(line)
        for place, *_ in reversed(places):
            notebook.cells.insert(place, new_markdown_cell(f"[]{{#{anchor}-{place}}}"))
        write_whole(source / page, nbformat.writes(notebook))
    for file, page in pages.items():
        if page in PAGES.values():
            text = relink(_read(root / file), file, pages, root, to)
            text = text.replace("[Site](#run-it)", DOORS)  # the site is where its reader is
            write_whole(source / page.replace("index.md", "readme.inc"), text)
    write_whole(source / "claims.md", sortable(anchored(_read(source / "claims.md"))))
    for place, text in atlas.parts(page_of).items():
        _fill(source / "atlas.md", place, text)
    write_whole(source / "atlas.md", sortable(_read(source / "atlas.md"), "sortable wide"))
    write_whole(source / "notation.md", glossary(anchored(_read(source / "notation.md")), page_of))
    rows = [(f"{{cite:t}}`{cited[n]}`", ", ".join(dict.fromkeys(places))) for n, places in citing.items() if places]
    _fill(source / "references.md", "cited", markdown_table([("paper", "chapters"), *rows], numbers=False))
    for label, lines in to_try.items():
        _fill(source / "explorers.md", label, "".join(lines))


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _fill(path: Path, place: str, text: str) -> None:
    if (comment := f"<!-- {place} -->") not in (page := _read(path)):
        raise RlinoError(f"{path.name} has no {comment}: say there what it is, and put that where the list goes")
    write_whole(path, page.replace(comment, text))


def make(root: Path = REPO, out: Path | None = None) -> Path:
    """Build the site into `out`; returns its first page. RlinoError where Sphinx warns of anything."""
    out = (out or root / "build" / "site").resolve()
    source, doctrees = (out.parent / f"{out.name}-{part}" for part in ("src", "doctrees"))
    for folder in (out, source, doctrees):
        empty(folder)
    lay_out(root, source, address())
    if build_main(["-W", "--keep-going", "-n", "-q", "-d", str(doctrees), str(source), str(out)]):
        raise RlinoError("the site has faults, listed above")
    return out / "index.html"


def main(argv: list[str] | None = None) -> int:
    """Build the site. Exit code 2 where it has faults."""
    return run_program(lambda: _make(argv), "site")


def _make(argv: list[str] | None) -> int:
    parser = Parser(prog="python -m tools.site", description="Build the web pages into build/site.")
    parser.add_argument("--out", type=Path, help="another folder for the pages")
    print("written:", make(out=parser.parse_args(argv).out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
