"""Two runs side by side: which share task and seed, the problems that both have, and where two responses part.

Runs of one seed sample the same problems with the same random numbers, so that their responses part only where their
policies do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import pandas as pd

from rlino_lib.errors import RlinoError
from rlino_lib.records.traces import Row, Traces, tokens_of

Key = tuple[str, int | None]  # task and seed: runs of one key see the same problems in the same order


class Shared(NamedTuple):
    """A problem that both runs have at a step, and its group in each."""

    problem: str
    a: int
    b: int


def shared_steps(a: Traces, b: Traces) -> list[int]:
    """The recorded steps at which both have a problem in common."""
    return [step for step in a.steps if step in b.steps and shared(a, b, step)]


def shared(a: Traces, b: Traces, step: int) -> list[Shared]:
    """The problems that both have at a step, in the order of the first."""
    pairs = ((a.problem(step, g), g) for g in a.groups(step))
    return [Shared(name, g, other) for name, g in pairs if (other := b.find(step, name)) is not None]


def most_different(a: Traces, b: Traces, step: int) -> int:
    """The place in `shared` of the problem on which the numbers of right responses differ most; the first of these."""
    gaps = [abs(a.count_right(step, s.a) - b.count_right(step, s.b)) for s in shared(a, b, step)]
    return gaps.index(max(gaps))


def same_start(a: Row, b: Row) -> int:
    """For how many tokens two responses agree from the start."""
    one = tokens_of(a)
    other = tokens_of(b)
    places = range(min(len(one), len(other)))
    return next((t for t in places if one[t] != other[t]), len(places))


def runs_of_a_seed(runs: Iterable[Any], a: str, b: str | None, seed: int | None) -> tuple[Key, dict[str, Any]]:
    """The task and seed of which there are two runs, preferably of a and b, and its runs by method."""
    groups: dict[Key, dict[str, Any]] = {}
    for run in runs:
        group = groups.setdefault((run.config["task"], run.seed), {})
        if run.method in group:
            raise RlinoError(f"two runs of {run.method}, {run.config['task']}, seed {run.seed}")
        group[run.method] = run
    in_order = sorted(groups, key=lambda key: (key[0], -1 if key[1] is None else key[1]))  # None: an import's seed
    keys = [key for key in in_order if len(groups[key]) > 1 and seed in (None, key[1])]
    if not keys:
        raise RlinoError(f"no two runs share a task and {'a seed' if seed is None else f'seed {seed}'}")
    key = next((k for k in keys if {a, b} - {None} <= set(groups[k])), keys[0])
    return key, groups[key]


def held_out_accuracy(source: Any) -> pd.Series | None:
    """A run's held-out accuracy by step; None for fewer than two, or a source without metrics."""
    try:
        accuracy = source.metrics.dropna(subset=["eval/accuracy"]).set_index("step")["eval/accuracy"]
    except (AttributeError, KeyError, RlinoError):
        return None
    return accuracy if len(accuracy) > 1 else None
