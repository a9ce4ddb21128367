"""Pages to look at traces and at training with. They choose and step without a kernel; only the live plot has one."""

from rlino_lib.widgets.credit import credit_explorer
from rlino_lib.widgets.inspector import trace_inspector
from rlino_lib.widgets.live import LivePlot
from rlino_lib.widgets.mdp import mdp_explorer
from rlino_lib.widgets.pass_at_k import pass_at_k_explorer, sharpening_page
from rlino_lib.widgets.runs import run_comparer
from rlino_lib.widgets.search import search_view
from rlino_lib.widgets.tokens import tokens_html

__all__ = [
    "LivePlot",
    "credit_explorer",
    "mdp_explorer",
    "pass_at_k_explorer",
    "run_comparer",
    "search_view",
    "sharpening_page",
    "tokens_html",
    "trace_inspector",
]
