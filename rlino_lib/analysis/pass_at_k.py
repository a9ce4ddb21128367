"""pass@k from counts (chapters 03 and 07)."""

from __future__ import annotations

import numpy as np

from rlino_lib.errors import RlinoError


def pass_at_k(n: int, c: int, k: int) -> float:
    """The unbiased estimate of pass@k from n samples of which c are right: 1 − C(n−c, k)/C(n, k).

    Written as the product that does not overflow (Chen et al. 2021); raises RlinoError unless 0 ≤ c ≤ n and 1 ≤ k ≤ n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise RlinoError(f"pass@k needs 0 ≤ c ≤ n and 1 ≤ k ≤ n, not n={n}, c={c}, k={k}")
    if n - c < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1)))
