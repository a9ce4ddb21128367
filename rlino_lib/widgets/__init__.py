"""Widgets to look at traces and at training with, and their static twins, which need no kernel."""

from rlino_lib.widgets.explorer import explorer
from rlino_lib.widgets.groups import inspector_html, static_inspector
from rlino_lib.widgets.inspector import trace_inspector
from rlino_lib.widgets.live import LivePlot
from rlino_lib.widgets.mdp import mdp_explorer, static_mdp
from rlino_lib.widgets.runs import run_comparer, static_runs
from rlino_lib.widgets.search import search_view, static_search
from rlino_lib.widgets.tokens import tokens_html

__all__ = [
    "LivePlot", "explorer", "inspector_html", "mdp_explorer", "run_comparer", "search_view", "static_inspector",
    "static_mdp", "static_runs", "static_search", "tokens_html", "trace_inspector",
]  # fmt: skip
