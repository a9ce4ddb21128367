"""Pages to look at traces and at training with. They choose and step without a kernel; only the live plot has one."""

from rlino_lib.widgets.credit import credit_explorer as credit_explorer
from rlino_lib.widgets.inspector import trace_inspector as trace_inspector
from rlino_lib.widgets.live import LivePlot as LivePlot
from rlino_lib.widgets.mdp import mdp_explorer as mdp_explorer
from rlino_lib.widgets.pass_at_k import pass_at_k_explorer as pass_at_k_explorer
from rlino_lib.widgets.pass_at_k import sharpening_page as sharpening_page
from rlino_lib.widgets.runs import run_comparer as run_comparer
from rlino_lib.widgets.search import search_view as search_view
from rlino_lib.widgets.tokens import tokens_html as tokens_html
