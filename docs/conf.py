"""Sphinx's settings for the site. `python -m tools.site` copies this folder beside the chapters, and builds there."""

from rlino_lib.paths import pyproject
from tools.report import address

ADDRESS = address()  # of the repository, or empty

project = "RL in Name Only?"
author = "the authors of RL in Name Only?, an executable book"
release = pyproject()["project"]["version"]
copyright = "the authors; MIT License"
language = "en"

extensions = ["myst_nb", "sphinx.ext.mathjax", "sphinx_copybutton", "sphinxcontrib.bibtex"]
exclude_patterns = ["_static"]
nitpicky = True

# ---- notebooks: what they hold is what is shown; a view that needs a kernel gives way to HTML ------------------------
nb_execution_mode = "off"
nb_ipywidgets_js = {}
nb_mime_priority_overrides = [
    ("html", "text/html", 0),
    ("html", "application/vnd.jupyter.widget-view+json", None),
]
nb_merge_streams = True
nb_render_markdown_format = "myst"  # tables too, in what a cell prints
myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
copybutton_selector = "div.cell_input pre, div.highlight-sh pre"

# ---- mathematics and references --------------------------------------------------------------------------------------
mathjax_path = "mathjax/tex-svg.js"
mathjax3_config = {"svg": {"fontCache": "global"}}
bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"
bibtex_default_style = "plain"


def setup(app):
    """docutils calls citations a list, and gives its items another role: a screen reader is told of no list instead."""

    def without_role(app, pagename, templatename, context, doctree):
        listed = '<div role="list" class="citation-list">'
        context["body"] = context.get("body", "").replace(listed, listed.replace('role="list" ', ""))

    app.connect("html-page-context", without_role)


# ---- the pages -------------------------------------------------------------------------------------------------------
html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["sort.js"]
html_show_search_summary = False  # summaries are fetched, which a page opened from a folder may not do
html_show_sphinx = False
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_theme_options = {
    "home_page_in_toc": True,
    "navbar_persistent": [],  # the side bar has a search field already
    "show_toc_level": 2,
    "use_download_button": True,
    "use_fullscreen_button": False,
    **({"repository_url": ADDRESS, "use_repository_button": True} if ADDRESS else {}),
}
