"""The run comparer: two runs, the same problem, their responses side by side over training (chapter 07).

Its page is `runs_html`, so what needs a kernel here is only the choosing; `static_runs` is the twin without one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rlino_lib.errors import RlinoError
from rlino_lib.figures.curves import label
from rlino_lib.figures.seeds import in_order
from rlino_lib.widgets.groups import COLOURS, chosen
from rlino_lib.widgets.page import Page, menu_slider
from rlino_lib.widgets.runs_page import Shared, most_different, runs_html, shared, shared_steps, static_runs
from rlino_lib.widgets.tokens import plain
from rlino_lib.widgets.traces import Traces

__all__ = ["RunComparer", "run_comparer", "runs_html", "static_runs"]

Key = tuple[str, int]  # task and seed: runs of one key see the same problems in the same order
NOTHING = [("none in common", -1)]  # a slider cannot stand at None


class RunComparer(Page):
    """Task and seed, two methods, step, problem, response, colour over `runs_html`. Rollouts are read when chosen."""

    def __init__(self, runs: Mapping[Key, Mapping[str, Any]], key: Key, a: str, b: str, colour: str) -> None:
        self.runs, self._traces = runs, {}
        keys = [(f"{plain(task, 40)}, seed {seed}", (task, seed)) for task, seed in runs]
        colours = [(look.menu, name) for name, look in COLOURS.items()]
        menus = {
            "key": menu_slider(keys, key, "Runs:"),
            "a": menu_slider(self._methods(key), a, "A:"),
            "b": menu_slider(self._methods(key), b, "B:"),
            "step": menu_slider(NOTHING, -1, "Step:"),
            "problem": menu_slider(NOTHING, -1, "Problem:"),
            "sample": menu_slider(NOTHING, -1, "Response:"),
            "colour": menu_slider(colours, colour, "Colour by:"),
        }
        self.menus = menus
        self._fit(menus["key"])
        super().__init__(menus, "RunComparer")

    def _methods(self, key: Key) -> list[tuple[str, str]]:
        return [(plain(label(m), 40), m) for m in in_order(self.runs[key])]

    def _pair(self) -> tuple[Any, Any]:
        """The two chosen runs."""
        here = self.runs[self.menus["key"].value]
        return here[self.menus["a"].value], here[self.menus["b"].value]

    def _both(self) -> tuple[Traces, Traces]:
        """Their traces, read once."""
        for run in self._pair():
            self._traces.setdefault(id(run), Traces(run))
        a, b = (self._traces[id(run)] for run in self._pair())
        return a, b

    def _page(self) -> str:
        choice = self.choice
        if choice["step"] < 0:
            return runs_html(*self._pair())  # a message
        return runs_html(*self._pair(), choice["step"], choice["problem"], choice["sample"], choice["colour"])

    def _fit(self, owner: Any) -> None:
        m = self.menus
        if owner is m["colour"] or owner is m["sample"]:
            return
        if owner is m["key"]:
            for side in ("a", "b"):
                _refill(m[side], self._methods(m["key"].value))
        traces, before = self._both(), m["step"].value
        if owner in (m["key"], m["a"], m["b"]):
            _refill(m["step"], [(str(s), s) for s in shared_steps(*traces)], last=True)
        if (step := m["step"].value) < 0:
            _refill(m["problem"], []), _refill(m["sample"], [])
            return
        problems = shared(*traces, step)
        if owner is not m["problem"]:
            same = owner in (m["a"], m["b"]) and step == before  # then the problem stays, too
            names = [(f"{k + 1}: {_counts(*traces, step, s)}", k) for k, s in enumerate(problems)]
            _refill(m["problem"], names, None if same else most_different(*traces, step))
        here = problems[m["problem"].value]
        size = min(len(traces[0].rows(step, here.a)), len(traces[1].rows(step, here.b)))
        _refill(m["sample"], [(str(i + 1), i) for i in range(size)])


def _counts(a: Traces, b: Traces, step: int, here: Shared) -> str:
    """How many responses to a problem are right in each run; the page has the problem itself."""
    return f"{a.count_right(step, here.a)} and {b.count_right(step, here.b)} right"


def _refill(menu: Any, options: list[tuple[str, Any]], start: Any = None, last: bool = False) -> None:
    """New options, at the value shown before where it is among them, unless there is another to start with."""
    options, before = options or NOTHING, menu.value
    values = [value for _, value in options]
    fallback = values[-1] if last else values[0]
    menu.options = options
    menu.value = start if start is not None else before if before in values else fallback


def run_comparer(
    runs: Iterable[Any], a: str = "grpo", b: str | None = None, seed: int | None = None, colour: str = "weights"
) -> RunComparer:
    """The comparer over runs that share task and seed; it starts at methods a and b where both are there.

    Raises RlinoError where no two runs share task and seed, for two runs of one method, task and seed, for a seed or a
    colour that there is not.
    """
    chosen(colour, COLOURS, "colour")
    found: dict[Key, dict[str, Any]] = {}
    for run in runs:
        here = found.setdefault((run.config["task"], run.seed), {})
        if run.method in here:
            raise RlinoError(f"two runs of {run.method}, {run.config['task']}, seed {run.seed}")
        here[run.method] = run
    found = {key: found[key] for key in sorted(found) if len(found[key]) > 1}
    keys = [key for key in found if seed in (None, key[1])]
    if not keys:
        raise RlinoError(f"no two runs share a task and {'a seed' if seed is None else f'seed {seed}'}")
    key = next((k for k in keys if {a, b} - {None} <= set(found[k])), keys[0])
    methods = in_order(found[key])
    a = a if a in methods else methods[0]
    b = b if b in methods and b != a else next(m for m in methods if m != a)
    return RunComparer(found, key, a, b, colour)
