"""Widgets to look at traces and at training with, and their static twins, which need no kernel."""

from rlino_lib.widgets.inspector import inspector_html, static_inspector, trace_inspector
from rlino_lib.widgets.live import LivePlot
from rlino_lib.widgets.mdp import mdp_explorer
from rlino_lib.widgets.mdp_page import static_mdp
from rlino_lib.widgets.runs import run_comparer
from rlino_lib.widgets.search import search_view
from rlino_lib.widgets.search_page import static_search
from rlino_lib.widgets.tokens import tokens_html

__all__ = [
    "LivePlot",
    "inspector_html",
    "mdp_explorer",
    "run_comparer",
    "search_view",
    "static_inspector",
    "static_mdp",
    "static_search",
    "tokens_html",
    "trace_inspector",
]
