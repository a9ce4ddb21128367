"""A plot that follows a training run in a notebook, and stays silent in a script."""

from __future__ import annotations

import base64
import html
import io
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from rlino_lib.errors import RlinoError
from rlino_lib.figures.curves import live_panels
from rlino_lib.widgets.tokens import Html

if TYPE_CHECKING:
    from IPython.display import DisplayHandle


class LivePlot:
    """A status line with the time left, and one panel per metric, redrawn at most twice a second while a run trains.

    It is one HTML output that is updated in place, so the saved notebook keeps the last picture. In a script it shows
    nothing but a status line on stderr where that is a terminal. Drawing takes at most a tenth of the time. `metrics`
    has, for each panel, a metric or a tuple of metrics.
    """

    def __init__(
        self, total: int, metrics: Sequence[str | Sequence[str]], *, title: str = "Training",
        clock: Callable[[], float] = time.monotonic,
    ):  # fmt: skip
        self.total = int(total)
        self.title = title
        self.panels = [(m,) if isinstance(m, str) else tuple(m) for m in metrics]
        if self.total < 1 or not self.panels:
            raise RlinoError("a live plot needs at least one step and one metric")
        self._rows: dict[int, dict[str, float]] = {}
        self._clock = clock
        self._began = clock()
        self._next = -math.inf  # when it may draw again
        self._shown = False
        self._output: DisplayHandle | None = None

    def show(self) -> None:
        """Put the plot under the cell that runs. Outside a notebook it does nothing."""
        self._shown = True
        if _in_notebook():
            from IPython.display import display

            self._output = display(self.page(), display_id=True)

    def update(self, step: int, metrics: Mapping[str, object]) -> None:
        """Add one step's metrics; what is no number is left out. Redraws where it is time, and after the last step."""
        numbers = {k: float(v) for k, v in metrics.items() if isinstance(v, int | float) and not isinstance(v, bool)}
        self._rows[int(step)] = self._rows.get(int(step), {}) | numbers
        now = self._clock()
        if not self._shown or (now < self._next and step < self.total):
            return
        if self._output:
            self._output.update(self.page())
        elif sys.stderr.isatty():
            print(f"\r{self.status()}\x1b[K", end="\n" if step >= self.total else "", file=sys.stderr, flush=True)
        done = self._clock()
        self._next = done + max(0.5, 9 * (done - now))

    def page(self) -> Html:
        """The status line and, once there is a step, the picture; the last picture has twice the pixels."""
        step = max(self._rows, default=0)
        text = html.escape(self.status())
        bar = f'<progress max="{self.total}" value="{step}" aria-label="{html.escape(self.title)}"></progress>'
        status = f'<div role="status" style="font-variant-numeric:tabular-nums">{bar}&ensp;{text}</div>'
        if not self._rows:
            return Html(status)
        figure = live_panels(self.history, self.panels, self.total)
        width, height = (round(96 * inches) for inches in figure.get_size_inches())
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=192 if step >= self.total else 96)
        data = base64.b64encode(buffer.getvalue()).decode()
        alt = f"Curves of {html.escape(', '.join(m for p in self.panels for m in p))}. {text}"
        size = f'width="{width}" height="{height}" style="max-width:100%;height:auto"'
        return Html(f'{status}<img alt="{alt}" {size} src="data:image/png;base64,{data}">')

    @property
    def history(self) -> pd.DataFrame:
        """The metrics given to `update`, indexed by step."""
        return pd.DataFrame.from_dict(self._rows, orient="index").sort_index().rename_axis("step")

    def status(self) -> str:
        """Where the run is, its last values, and the time left, as one line."""
        step = max(self._rows, default=0)
        used = self._clock() - self._began
        last = self._rows.get(step, {})
        values = [f"{m} {last[m]:.3g}" for p in self.panels for m in p if math.isfinite(last.get(m, math.nan))]
        spent = f"{_minutes(used)} so far"
        if step >= self.total:
            spent = f"done in {_minutes(used)}"
        elif self._rows:
            spent += f", about {_minutes(used / len(self._rows) * (self.total - step))} left"
        return " · ".join([f"{self.title}: step {step} of {self.total}", *values, spent])


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs this, so that a widget can be shown."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None
