"""What a cell of a record holds: nothing, a whole number, or text that is too long to show. Free of torch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd


def missing(value: object) -> bool:
    """None, NaN or pandas' NA in a cell."""
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def whole(value: Any) -> int:
    """A whole number of 0 or more, as a step is. Raises ValueError for anything else."""
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not 0 <= value < 2**53 or value != int(value):
        raise ValueError("a whole number of 0 or more")
    return int(value)


def shortened(text: str, limit: int) -> str:
    """A text of at most `limit` characters; … stands for what is left out."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
