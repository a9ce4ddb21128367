"""The same experiment at two sizes of the base: runs, where they end, and the ledger's verdicts (chapter 12).

The runs of the base in between, in the group `mid`, have the settings of the shipped base's head-to-head runs on
Countdown but for the learning rate and the precision, bfloat16. GRPO with a constant normaliser is beside them, as in
the group `length`.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from rlino_lib.analysis.giving_up import giving_up_rates
from rlino_lib.analysis.growth import base_accuracy, growth
from rlino_lib.analysis.statistics import final_accuracy
from rlino_lib.analysis.tables import mean_interval
from rlino_lib.claims.head_to_head import duels, is_plain
from rlino_lib.claims.judge import judge
from rlino_lib.claims.ledger import Records, read_ledger
from rlino_lib.claims.length import length_runs
from rlino_lib.claims.yours import judge_yours
from rlino_lib.errors import RlinoError
from rlino_lib.folders import read_json
from rlino_lib.paths import REPO, RUNS
from rlino_lib.records.runs import Run, list_runs

TASK = "countdown"
SEEDS = 5  # planned in data/runs/mid.json
ACCURACY = "share right, test split, %"
GROWTH = "GRPO: growth of wrong responses, tokens"
GIVING_UP = "GRPO: giving up after a failure, %"
_COLUMNS = ["size", "panel", "row", "mean", "low", "high", "seeds"]


def size_of(run: Run) -> str:
    """The size of a run's base by its card: "0.8 million"."""
    return f"{read_json(REPO / run.config['model'] / 'card.json', needs='parameters')['parameters'] / 1e6:.1f} million"


def runs_by_size(root: str | Path = RUNS) -> dict[str, list[Run]]:
    """The runs of both sizes by name of the size, the smaller first: methods and seeds that the larger has.

    Raises RlinoError where none of the larger base's is recorded.
    """
    mid = [run for run in list_runs("mid", root) if is_plain(run)]
    if not mid:
        raise RlinoError(f"{root} has no runs of the base in between: tools/mid.sh makes them")
    kinds = {(run.method, run.seed) for run in mid}
    small = [run for run in duels(TASK, Records(Path(root))) if (run.method, run.seed) in kinds]
    return {size_of(runs[0]): runs for runs in (small, mid) if runs}


def values_by_size(root: str | Path = RUNS) -> pd.DataFrame:
    """Where each run of both sizes ends. Raises RlinoError as `runs_by_size`.

    Columns: size; panel: ACCURACY, whose `row` is a method or the base, or GROWTH and GIVING_UP, whose `row` is a
    normaliser (growth is that from the base to the test after training); seed, None for the base; value.
    """
    rows: list[tuple] = []
    for size, runs in runs_by_size(root).items():
        rows.append((size, ACCURACY, "base", None, base_accuracy(runs[0])))
        rows += [(size, ACCURACY, run.method, run.seed, final_accuracy(run)) for run in runs]
        records = Records(Path(root), own=list_runs("mid", root) if runs[0].path.parent.name == "mid" else None)
        for normaliser in ("per_response", "constant"):
            own = length_runs(TASK, "grpo", normaliser, records)
            rows += [(size, GROWTH, normaliser, run.seed, growth(run, "wrong")) for run in own]
            rows += [(size, GIVING_UP, normaliser, seed, 100 * rate) for seed, rate in giving_up_rates(own).items()]
    return pd.DataFrame(rows, columns=["size", "panel", "row", "seed", "value"])


def ends_by_size(values: pd.DataFrame) -> pd.DataFrame:
    """Means of `values_by_size` with 95 % t-intervals over seeds, infinite for one run and for the base.

    Columns: size, panel, row, mean, low, high, seeds.
    """
    rows = [(*key, *mean_interval(own), len(own)) for key, own in values.groupby(_COLUMNS[:3], sort=False)["value"]]
    return pd.DataFrame(rows, columns=_COLUMNS)


def gaps_by_size(values: pd.DataFrame) -> pd.DataFrame:
    """Differences in `values_by_size`, paired by seed, of methods to GRPO and of the constant to 1/|o|.

    Columns as of `ends_by_size`.
    """
    rows = []
    for (size, panel), own in values.dropna().groupby(_COLUMNS[:2], sort=False):
        ends = own.pivot(index="seed", columns="row", values="value")  # [seeds, rows]
        reference = "grpo" if panel == ACCURACY else "per_response"
        for row in ends.columns.drop(reference, errors="ignore") if reference in ends else ():
            gaps = (ends[row] - ends[reference]).dropna()
            if len(gaps):
                rows.append((size, panel, row, *mean_interval(gaps), len(gaps)))
    return pd.DataFrame(rows, columns=_COLUMNS)


def verdicts_by_size(root: str | Path = RUNS) -> pd.DataFrame:
    """The ledger's claims that the larger base's runs bear on: for each size its verdict and what was found.

    The thresholds are the ledger's, but for the planned seeds, of which the larger has SEEDS. Index: statements.
    Raises RlinoError as `runs_by_size`.
    """
    small, mid = (size_of(runs[0]) for runs in runs_by_size(root).values())
    yours = judge_yours(Path(root) / "mid", seeds=SEEDS).set_index("id")
    records = Records(Path(root), read_ledger())
    book = {claim.id: judge(claim, records) for claim in records.ledger if claim.id in yours.index}
    rows = [(book[row.Index].verdict, book[row.Index].effect, row.verdict, row.effect) for row in yours.itertuples()]
    columns = [small, f"{small}: found", mid, f"{mid}: found"]
    return pd.DataFrame(rows, columns=columns).set_axis(yours["statement"])
