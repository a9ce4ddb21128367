"""Checkers for the exercises: each takes the reader's function, compares, and names the likely mistake.

A checker prints one line, `✓ …` or `✗ …; likely: …`, and returns whether the function was right. It never raises on the
function's account, so that a chapter runs from top to bottom with its exercises unsolved.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

Solution = tuple[Any, dict[str, Any]]  # for one case: the right value, and by its words what each mistake makes of it

# --- one mechanism ---------------------------------------------------------------------------------------------------


def exercise(name: str, *cases: tuple, tolerance: float = 1e-6) -> Callable:
    """Make a checker of a function that solves one case; the checker keeps its name and docstring.

    @exercise("double", (1,), (4,))
    def check_double(x: int) -> Solution:
        return 2 * x, {"a square, not twice the number": x * x}
    """

    def checker_of(solve: Callable[..., Solution]) -> Callable[[Callable], bool]:
        @functools.wraps(solve)
        def checker(function: Callable) -> bool:
            solved = [solve(*copy.deepcopy(case)) for case in cases]
            mistakes = {words: [wrong[words] for _, wrong in solved] for words in solved[0][1]}
            return check(function, cases, [right for right, _ in solved], mistakes, tolerance, name)

        del checker.__wrapped__, checker.__annotations__  # a reader calls it with a function, not with a case
        return checker

    return checker_of


def check(
    function: Callable, cases: Sequence[tuple], expected: Callable | Sequence,
    mistakes: Mapping[str, Callable | Sequence] | None = None, tolerance: float = 1e-6, name: str | None = None,
) -> bool:  # fmt: skip
    """Compare `function(*case)` with what is expected on every case, print one line, return whether all agree.

    `expected` is a right function, or the values in the order of the cases: numbers, lists, arrays or tensors (shapes
    must agree, and values within `tolerance`, absolute or relative), else anything that `==` compares. `mistakes` maps
    words to a wrong function, or its values: the first whose results are the reader's is named as the likely mistake.
    """
    ok, verdict = _judge(function, cases, expected, mistakes or {}, tolerance)
    print(f"{'✓' if ok else '✗'} {name or getattr(function, '__name__', 'exercise')}: {verdict}")
    return ok


def _judge(function, cases, expected, mistakes, tolerance) -> tuple[bool, str]:
    if not callable(function):
        return False, f"a function is needed, this is {_show(function)}"
    right = _values(expected, cases)
    got = []
    for case in cases:
        try:
            got.append(function(*copy.deepcopy(case)))  # a copy: a function that changes its input fools only itself
        except NotImplementedError:
            got.append(None)
        except Exception as e:
            return False, f"for {_show(case)} raises {type(e).__name__}: {_one_line(str(e))}"
    if all(g is None for g in got):
        return False, "returned nothing yet"
    same = functools.partial(_same, tolerance=tolerance)
    agree = list(map(same, got, right))
    if all(agree):
        return True, f"right on {len(cases)} inputs"
    named = (words for words, wrong in mistakes.items() if all(map(same, got, _values(wrong, cases))))
    likely = next(named, None) or _guess(got, right, tolerance)
    k = agree.index(False)
    verdict = f"for {_show(cases[k])} gives {_show(got[k])}, expected {_show(right[k])}"
    return False, verdict + (f"; likely: {likely}" if likely else "")


def _values(rule: Callable | Sequence, cases: Sequence[tuple]) -> list:
    return [rule(*copy.deepcopy(case)) for case in cases] if callable(rule) else list(rule)


def _array(value: Any) -> np.ndarray | None:
    """Numbers, however nested, as a float array; None for anything else."""

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.detach().cpu().double().numpy()
        if value is None or isinstance(value, (str, bytes)):  # NumPy would read None as nan and "1" as 1.0
            raise TypeError("not a number")
        return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value

    try:
        return np.asarray(plain(value), dtype=float)
    except Exception:  # whatever a reader's function may return
        return None


def _same(got: Any, right: Any, tolerance: float) -> bool:
    a, w = (_array(value) for value in (got, right))
    if w is None:
        return a is None and isinstance(got, type(right)) and bool(got == right)
    if a is None or not _fits(a, w):
        return False
    return bool(np.allclose(a.ravel(), w.ravel(), rtol=tolerance, atol=tolerance, equal_nan=True))


def _fits(a: np.ndarray, w: np.ndarray) -> bool:
    return a.shape == w.shape or a.size == w.size == 1


def _guess(got: list, right: list, tolerance: float) -> str | None:
    """A likely mistake from the numbers alone: the shape, a nan, one value for all, a factor or an offset."""
    pairs = [(_array(g), _array(w)) for g, w in zip(got, right, strict=True)]
    if any(a is None or w is None for a, w in pairs):
        return None
    for a, w in pairs:
        if not _fits(a, w):
            return f"shape {a.shape} where {w.shape} is expected"
    a, w = (np.concatenate([x.ravel() for x in side]) for side in zip(*pairs, strict=True))
    if not np.isfinite(a).all():
        return "nan or infinity: a division by zero, or the log of 0?"
    if np.ptp(a) == 0 and np.ptp(w) > 0:
        return f"the same value for every input, {_show(got[0])}"
    if set(w) <= {0, 1} or np.ptp(w) == 0:  # too little to tell a factor from chance
        return None
    factor = a @ w / (w @ w)
    offset = np.mean(a - w)
    close = functools.partial(np.allclose, a, rtol=0, atol=tolerance * np.abs(a).max())
    if close(factor * w):
        known = {-1.0: "the sign is the wrong way round", 0.5: "half the expected value: a factor of 1/2?"}
        return known.get(round(factor, 3), f"{factor:.4g} times the expected value everywhere: a factor?")
    return f"off by {offset:+.4g} everywhere: a constant?" if close(w + offset) else None


def _one_line(text: str, width: int = 90) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"


def _show(value: Any) -> str:
    """A value in one short line, floats to four digits."""

    def full(value: Any) -> str:
        value = value.tolist() if isinstance(value, (Tensor, np.ndarray, np.generic)) else value
        if isinstance(value, (list, tuple)):
            inner = ", ".join(map(full, value))
            return f"[{inner}]" if isinstance(value, list) else f"({inner})"
        return f"{value:.4g}" if isinstance(value, float) else repr(value)

    return _one_line(full(value))
