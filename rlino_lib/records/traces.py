"""Rollouts by step and group, from a recorded run or from a frame made live.

A source of traces is a `Run`, or a DataFrame of rollouts: one row per response, columns as in a run's `rollouts.jsonl`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from rlino_lib.errors import RlinoError
from rlino_lib.methods.catalogue import LABELS
from rlino_lib.records.cells import missing, shortened, whole
from rlino_lib.records.runs import seed_words

Row = dict[str, Any]  # a response with its columns
_DEFAULTS: dict[str, Any] = {"step": 0, "problem_id": "", "data": None, "gold": "", "prompt": "", "reward": math.nan}
_DEFAULTS |= {"advantage": math.nan, "correct": None, "answer": None, "reason": "", "clipped": False}
MAX_COLOURED = 8_000  # tokens of one text that get a colour and a tooltip; what follows is shown as plain text
MAX_CHARACTERS = 2_000_000  # characters of one text that are shown; a longer one says that it was shortened
_LISTS = ("tokens", "logprobs", "entropies", "weights")


class Traces:
    """Rollouts by step and group. A source without any has no steps, and `message` says so.

    Missing columns are filled in: one step, a group for each problem, and nothing to colour by.
    Raises RlinoError for a source of another kind, rows that have neither `tokens` nor `response`, and a row with
    something else where a number is due.
    """

    def __init__(self, source: Any):
        self.name = str(getattr(source, "name", "") or "") if not isinstance(source, pd.DataFrame) else ""
        self.message = ""
        try:
            frame = source if isinstance(source, pd.DataFrame) else source.rollouts
        except (RlinoError, OSError, ValueError) as e:  # ValueError: a damaged line, or text that is no Unicode
            frame = pd.DataFrame()
            self.message = f"The rollouts of {self.name or 'this run'} cannot be read: {e}"
        except AttributeError:
            kind = type(source).__name__
            raise RlinoError(f"traces come from a run or a DataFrame of rollouts, not a {kind}") from None
        self.frame = _complete(frame, self.name or "the frame")
        self._rows = self.frame.groupby(["step", "group"], sort=True).indices if len(self.frame) else {}
        if not self._rows and not self.message:
            self.message = f"{self.name or 'This frame'} has no recorded rollouts."
        self.steps: list[int] = sorted({step for step, _ in self._rows})

    def groups(self, step: int) -> list[int]:
        """The groups recorded at a step."""
        return [g for s, g in self._rows if s == step]

    def rows(self, step: int, group: int) -> list[Row]:
        """A group's responses in the order they were sampled; raises RlinoError where there is no such group."""
        if (step, group) not in self._rows:
            has = f"groups {_some(self.groups(step))}" if step in self.steps else f"steps {_some(self.steps)}"
            raise RlinoError(f"no group {group} at step {step}: {self.name or 'the frame'} has {has}")
        return self.frame.iloc[self._rows[step, group]].to_dict("records")

    def problem(self, step: int, group: int) -> str:
        """The id of a group's problem."""
        return str(self.frame["problem_id"].iloc[self._rows[step, group][0]])

    def find(self, step: int, problem: str) -> int | None:
        """The group at a step that has this problem, None where there is none."""
        return next((g for g in self.groups(step) if self.problem(step, g) == problem), None)

    def nearest(self, step: int | None) -> int:
        """The recorded step closest to this one, the earlier of two; the first for None."""
        return self.steps[0] if step is None else min(self.steps, key=lambda s: (abs(s - step), s))

    def first_mixed(self, step: int) -> int:
        """The first group of a step with both right and wrong responses, else its first group."""
        mixed = (g for g in self.groups(step) if self.count_right(step, g) not in (0, len(self._rows[step, g])))
        return next(mixed, self.groups(step)[0])

    def count_right(self, step: int, group: int) -> int:
        """How many of a group's responses are right."""
        return sum(is_true(c) for c in self.frame["correct"].iloc[self._rows[step, group]])

    def title(self, step: int, group: int) -> str:
        """One line for a menu: the problem, with its group where two have one name, and how many are right."""
        names = {g: shortened(problem_name(self.frame.iloc[self._rows[step, g][0]]), 60) for g in self.groups(step)}
        name = names[group] + f" (group {group})" * (list(names.values()).count(names[group]) > 1)
        right = f"{self.count_right(step, group)} of {len(self._rows[step, group])} right"
        return f"{name} · {right}"


def _complete(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """A copy with every column that the rendering reads, and a plain index."""
    if not len(frame):
        return pd.DataFrame(columns=["step", "group"])
    if not {"tokens", "response"} & set(frame.columns):
        raise RlinoError("rollouts need a column `tokens` or `response`")
    _refuse_texts(frame, name)
    frame = frame.reset_index(drop=True).copy()
    for name, value in (_DEFAULTS | dict.fromkeys(_LISTS)).items():
        if name not in frame:
            frame[name] = pd.Series([value] * len(frame), dtype=object if value is None else None)
    if "group" not in frame:
        frame["group"] = frame.groupby("step")["problem_id"].transform(_numbered)
    if "sample" not in frame:
        frame["sample"] = frame.groupby(["step", "group"]).cumcount()
    return frame.astype({"step": int, "group": int})


def _numbered(ids: pd.Series) -> np.ndarray:
    """Equal ids as equal numbers from 0, [N]; an id may be anything that JSON has."""
    return pd.factorize(np.array([str(name) for name in ids], dtype=object))[0]


def _refuse_texts(frame: pd.DataFrame, name: str) -> None:
    """Raise RlinoError, with the row, where a number is due and something else stands."""
    if not frame.columns.is_unique:
        raise RlinoError(f"the rollouts of {name} have a column twice")
    for column in frame.columns.intersection(list(_DUE)):
        for place, value in enumerate(frame[column], 1):
            if missing(value) and column not in _PLACES:
                continue
            try:
                _DUE[column](value)
            except ValueError as e:
                words = f"{column} is to be {e}, not {shortened(ascii(value), 60)}"
                raise RlinoError(f"the rollouts of {name}, response {place}: {words}") from None


def _real(value: Any) -> None:
    if not isinstance(value, Real) or (isinstance(value, int) and abs(value) >= 2**1000):
        raise ValueError("a number")


_PLACES = ("step", "group", "sample")
# By column, what raises ValueError with what is due where its values are something else.
_DUE: dict[str, Callable[[Any], Any]] = dict.fromkeys((*_PLACES, "length"), whole)
_DUE |= dict.fromkeys(("reward", "advantage"), _real)


def _some(values: list[int]) -> str:
    """The first few of a list of numbers, for an error message."""
    return ", ".join(map(str, values[:8])) + (", …" if len(values) > 8 else "")


def is_true(value: object) -> bool:
    return isinstance(value, bool | np.bool_) and bool(value)


def is_false(value: object) -> bool:
    return isinstance(value, bool | np.bool_) and not value


def problem_name(row: Any) -> str:
    """A problem in a few words: the numbers and the target where it has them, else its question or its id."""
    data = row["data"] if isinstance(row["data"], dict) else {}
    if "nums" in data and "target" in data and isinstance(data["nums"], list | tuple):
        return f"{' '.join(map(str, data['nums']))} → {data['target']}"
    return str(data.get("question") or row["problem_id"] or "problem")


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple | np.ndarray) and len(value) > 0


def tokens_of(row: Row) -> list[object]:
    return list(row["tokens"]) if _is_list(row["tokens"]) else [row.get("response", "")]


def values_of(row: Row, column: str) -> list[float] | None:
    """A per-token column of one response; None where it is absent, has another length, or holds what is no number."""
    values = row.get(column)
    if not _is_list(values) or len(values) != len(tokens_of(row)):
        return None
    try:
        return [math.nan if v is None else float(v) for v in values]
    except (TypeError, ValueError, OverflowError):
        return None


def length_of(row: Row) -> int:
    """The length in tokens; in characters where no tokens are recorded, of an imported response (`unit_of`)."""
    if not missing(row.get("length")):
        return int(row["length"])
    return len(tokens_of(row)) if unit_of(row) == "tokens" else len(str(row.get("response") or ""))


def unit_of(row: Row) -> str:
    """What `length_of` counts."""
    return "tokens" if _is_list(row["tokens"]) or not missing(row.get("length")) else "characters"


def as_traces(source: Any) -> Traces:
    """A source of traces as `Traces`; raises RlinoError for anything else."""
    return source if isinstance(source, Traces) else Traces(source)


def named_traces(runs: Any) -> list[tuple[str, Traces]]:
    """A source, or each of a list of them, with its name. Raises RlinoError for an empty list."""
    sources = list(runs) if isinstance(runs, Sequence) and not isinstance(runs, str) else [runs]
    if not sources:
        raise RlinoError("no run to inspect: the list is empty")
    return list(zip(_names(sources), map(as_traces, sources), strict=True))


def _names(sources: Sequence[Any]) -> list[str]:
    """A name for each source: method and seed, with the run's name where that is not enough to tell."""
    names = []
    full = [str(getattr(source, "name", "")) for source in sources]
    for k, source in enumerate(sources):
        if isinstance(source, pd.DataFrame):
            names.append(f"frame {k + 1}")
        elif (method := getattr(source, "method", None)) is not None:
            names.append(f"{LABELS.get(method, method)}, {seed_words(getattr(source, 'seed', None))}")
        else:
            names.append(full[k] or f"run {k + 1}")
    twice = [names.count(name) > 1 for name in names]
    return [f"{name} ({text})" if text and more else name for name, text, more in zip(names, full, twice, strict=True)]


def shorten(
    tokens: Sequence[object], max_coloured: int = MAX_COLOURED, max_characters: int = MAX_CHARACTERS, share: int = 1
) -> tuple[list[str], list[str]]:
    """The tokens as text, those beyond `max_coloured` joined to one, and notes on what was joined or left out.

    `share` texts share these limits, down to 100 tokens and 10,000 characters.
    """
    max_coloured = max(min(100, max_coloured), max_coloured // share)
    max_characters = max(min(10_000, max_characters), max_characters // share)
    texts = [str(token) for token in tokens]
    ends = [0, *accumulate(map(len, texts))]
    coloured = min(bisect_right(ends, max_characters) - 1, max_coloured)
    rest = "".join(texts)[ends[coloured] : max_characters]
    notes = []
    if coloured < len(texts):
        notes.append(f"Only the first {coloured:,} of {len(texts):,} tokens have colours and tooltips.")
    if ends[-1] > max_characters:
        notes.append(f"Shortened: the first {max_characters:,} of {ends[-1]:,} characters are shown.")
    return texts[:coloured] + [rest] * bool(rest), notes


# --- which groups ----------------------------------------------------------------------------------------------------


def spread(values: Sequence[int]) -> Iterator[int]:
    """The values in an order of which every beginning is spread out: the ends, the middle, the quarters, …"""
    done: set[int] = set()
    parts = 1
    while len(done) < len(values):
        for k in range(parts + 1):
            place = round(k * (len(values) - 1) / parts)
            if place not in done:
                done.add(place)
                yield values[place]
        parts *= 2


Place = tuple[int, int, int]  # run, step, group


def places_of(traces: list[Traces], steps: Sequence[int] | None, groups: Sequence[int] | None) -> list[Place]:
    """The groups to be shown, the most wanted first: of each run and step the first mixed group, then the others."""
    for step in steps or ():
        traces[0].rows(step, next(iter(traces[0].groups(step)), 0))  # raises where there is none
    ranked = []
    for r, source in enumerate(traces):
        wanted = spread(source.steps) if steps is None else [s for s in steps if s in source.steps]
        for j, step in enumerate(wanted):
            order = list(groups or ())
            for group in order:
                source.rows(step, group)  # raises where there is no such group
            if groups is None:
                first = source.first_mixed(step)
                order = [first, *(g for g in source.groups(step) if g != first)]
            ranked += [(max(i, j // 3), j, r, (r, step, g)) for i, g in enumerate(order)]
    return [place for *_, place in sorted(ranked)]
