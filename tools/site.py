"""The book as web pages that need no kernel and no network: `python -m tools.site` (make site).

Sphinx does the work, with the settings in `docs/conf.py`. Here the pages are laid out for it in `build/site-src`: the
chapters as they were executed, the pages of `docs`, and those that are made from README.md, `book/notation.md` and the
ledger. The site itself is `build/site`: open `index.html`, no server is needed.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from sphinx.cmd.build import build_main

from rlino_lib.cli.terminal import Parser, run_program
from rlino_lib.errors import RlinoError
from rlino_lib.figures.recorded import claims_table, markdown_table
from rlino_lib.paths import REPO
from tools.book import build, chapters, number_of

FIGURES = "data/figures"
ARXIV = re.compile(r"\[([^\]]*)\]\(https://arxiv\.org/abs/(\d{4}\.\d{4,5})\)")


# ---- chapters --------------------------------------------------------------------------------------------------------
def page(script: Path, cited: dict[str, str]) -> NotebookNode:
    """A chapter's notebook as Sphinx reads it: figures with their alternative texts, links to papers with citations.

    Tags and alternative texts are the script's, outputs the notebook's. `cited` has the key of a paper by its arXiv
    number.
    """
    notebook = build(script)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = cite(cell.source, cited)
        elif "alt" in cell.metadata:
            cell.metadata["mystnb"] = {"image": {"alt": cell.metadata["alt"]}}
    return notebook


def cite(text: str, cited: dict[str, str]) -> str:
    """Markdown with citations of the references for links to arXiv; one that has words of its own keeps them."""

    def citation(link: re.Match[str]) -> str:
        words, number = link.groups()
        if number not in cited:
            return link[0]
        role = f"{{cite:alp}}`{cited[number]}`"
        return role if words.removeprefix("arXiv").strip() == number else f"{link[0]} ({role})"

    return ARXIV.sub(citation, text)


def papers(bibliography: str) -> dict[str, str]:
    """The keys of a BibTeX file's entries by their arXiv number."""
    entries = re.findall(r"^@\w+\{([\w-]+),(.*?)^\}", bibliography, re.M | re.S)
    numbers = {key: re.search(r"^\s*eprint\s*=\s*\{([\d.]+)\}", fields, re.M) for key, fields in entries}
    return {number[1]: key for key, number in numbers.items() if number}


def where_cited(scripts: list[Path], cited: dict[str, str]) -> str:
    """Which chapters cite which of the references, as a table."""
    numbers = {script: {number for _, number in ARXIV.findall(_read(script))} for script in scripts}
    rows = [("paper", "chapters")]
    for number, key in cited.items():
        pages = [f"[{number_of(s)}]({s.stem}.ipynb)" for s in scripts if number in numbers[s]]
        if pages:
            rows.append((f"{{cite:t}}`{key}`", ", ".join(pages)))
    return markdown_table(rows, numbers=False)


# ---- pages made from other files -------------------------------------------------------------------------------------
def start(readme: str, address: str) -> str:
    """The start page: README.md, with links to the site's pages in place of the repository's files."""
    readme = re.sub(r"\]\((?:\.?/)?book/", "](", readme).replace("](CLAIMS.md)", "](claims.md)")
    return re.sub(
        r"(?<!!)\[([^\]]*)\]\((?!https?:|#|[\w-]+\.(?:ipynb|md))([^)]+)\)",
        rf"[\1]({address}/blob/main/\2)" if address else r"\1", readme,
    )  # fmt: skip


def notation(text: str, links: dict[str, str]) -> str:
    """The page of notation with its glossary as Sphinx knows one: each word can be linked to and searched for.

    `links` has the page of a chapter by its number.
    """
    symbols, heading, words = text.partition("## Glossary\n")
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| (.+) \| (\w+) \|$", words, re.M)
    terms = (f"{word}\n  {meaning} ([chapter {number}]({links[number]}))\n" for word, meaning, number in rows)
    return f"{symbols}{heading}\n````{{glossary}}\n{chr(10).join(terms)}````\n"


# ---- the site --------------------------------------------------------------------------------------------------------
def lay_out(root: Path, source: Path, address: str = "") -> None:
    """Write everything that Sphinx reads into the folder `source`, anew."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(root / "docs", source)
    shutil.copytree(root / FIGURES, source / FIGURES)
    scripts = chapters(root / "book")
    cited = papers(_read(source / "references.bib"))
    links = {number_of(script): script.with_suffix(".ipynb").name for script in scripts}
    for script in scripts:
        (source / links[number_of(script)]).write_text(nbformat.writes(page(script, cited)), encoding="utf-8")
    (source / "readme.inc").write_text(start(_read(root / "README.md"), address), encoding="utf-8")
    (source / "notation.md").write_text(notation(_read(root / "book" / "notation.md"), links), encoding="utf-8")
    _fill(source / "claims.md", "claims", claims_table())
    _fill(source / "references.md", "cited", where_cited(scripts, cited))


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _fill(path: Path, place: str, text: str) -> None:
    path.write_text(_read(path).replace(f"<!-- {place} -->", text), encoding="utf-8")


def make(root: Path = REPO, out: Path | None = None) -> Path:
    """Build the site; returns its first page. RlinoError where Sphinx warns of anything."""
    out = out or root / "build" / "site"
    source = out.with_name(f"{out.name}-src")
    os.environ["RLINO_PYPROJECT"] = str(root / "pyproject.toml")
    lay_out(root, source)
    shutil.rmtree(out, ignore_errors=True)
    doctrees = out.with_name(f"{out.name}-doctrees")
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
