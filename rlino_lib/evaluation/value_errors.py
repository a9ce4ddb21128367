"""Estimates of values beside the truth: a critic, few continuations, many continuations (chapter 10)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch

from rlino_lib.errors import RlinoError
from rlino_lib.evaluation.graded import sample_graded
from rlino_lib.evaluation.values import rollout_values, step_ends
from rlino_lib.folders import measurement
from rlino_lib.policy.critic import Critic
from rlino_lib.policy.models import Policy
from rlino_lib.records.runs import CRITIC, Run
from rlino_lib.tasks import Problem, Task
from rlino_lib.tasks.base import check_steps

TRUTH, KS = 256, (1, 3, 9)
ROWS = 64  # responses that a critic reads at a time


VALUES = measurement("values", ("values.csv",))


def check_measurable(run: Run, task: Task) -> None:
    """Raise RlinoError where a run is not complete, lacks its model or its critic, or has a task without steps."""
    check_steps(task)
    if not run.complete:
        raise RlinoError(f"{run.path} is not complete: its policy is still to be trained")
    for part in ["model", *[CRITIC] * (run.config.get("update") == "critic")]:
        if not (run.path / part).exists():
            raise RlinoError(f"{run.path} has no {part}, which `rlino train --save` keeps")


def measure_values(
    policy: Policy, critic: Critic | None, task: Task, problems: Sequence[Problem], samples: int = 5, seed: int = 0,
    **sampling: Any,
) -> pd.DataFrame:  # fmt: skip
    """The values of the starts of all steps of `samples` responses to each problem, one row for each.

    Columns: `problem`, `prefix`, `step` (how many come before), `tokens`, `truth` (of 256 continuations), `k1`, `k3`,
    `k9` (of so many other ones), and `critic`, where there is one. Equal prefixes have equal rows.
    """
    rollouts = sample_graded(policy, task, problems, samples, seed=seed, **sampling)
    ends = step_ends(task, rollouts)
    counts = {"truth": TRUTH} | {f"k{k}": k for k in KS}
    tables = [
        rollout_values(policy, task, rollouts, ends, k, seed + i, **sampling) for i, k in enumerate(counts.values(), 1)
    ]
    table = tables[0][["response", "problem", "prefix", "tokens"]].copy()
    table.insert(3, "step", table.groupby("response").cumcount())
    for name, other in zip(counts, tables, strict=True):
        table[name] = other["value"]
    if critic is not None:
        with torch.inference_mode():
            parts = [critic(rollouts, rows) for rows in torch.arange(len(rollouts.ids)).split(ROWS)]
        row, place = table["response"].tolist(), table["tokens"].tolist()
        table["critic"] = [parts[i // ROWS][i % ROWS, t].item() for i, t in zip(row, place, strict=True)]
    return table.drop(columns="response")
