"""Checkers of chapter 05's exercises."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from checkers.check import check

# --- chapter 05: filtered iterative SFT ------------------------------------------------------------------------------


def check_balanced_weights(balanced: Callable[[list[bool]], list[float]]) -> bool:
    """`balanced(correct)` for one group: signed weights, each side sums to ±1; all 0 unless the group is mixed."""

    def right(correct: list[bool]) -> list[float]:
        k, wrong = sum(correct), len(correct) - sum(correct)
        return [(1 / k if c else -1 / wrong) if k and wrong else 0.0 for c in correct]

    cases = [([True, False, False, False],), ([True, True, False, True, False],), ([True] * 3,), ([False] * 4,)]
    mistakes = {
        "±1 for every response: each side must sum to ±1": lambda c: [1 if x else -1 for x in c],
        "a group that is not mixed: weight 0": lambda c: [1 / sum(c) if x else -1 / (len(c) - sum(c)) for x in c],
        "±1/G, and in groups that are not mixed too": lambda c: [(1 if x else -1) / len(c) for x in c],
        "±1/G: divide by the size of the side": lambda c: [(1 if x else -1) / len(c) * any(right(c)) for x in c],
        "±1 in mixed groups: each side must sum to ±1": lambda c: [(1 if x else -1) * any(right(c)) for x in c],
        "wrong responses have a positive weight: they are to become less likely": lambda c: [abs(w) for w in right(c)],
    }
    return check(balanced, cases, right, mistakes, name="balanced_weights")


def check_signed_ce(signed_ce: Callable[[Tensor, Tensor, Tensor], Tensor]) -> bool:
    """`signed_ce(logits, labels, signs)`, [B, L, V], [B, L] and [B]: Σ_i sign_i · (mean cross-entropy of row i).

    The logits at a place already belong to the label at that place; labels of −100 count nowhere.
    """

    def total(logits, labels, signs, reduce: Callable) -> Tensor:
        ce = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")  # [B, L], 0 at −100
        return (signs * reduce(ce, labels != -100)).sum()

    def mean(ce: Tensor, keep: Tensor) -> Tensor:
        return ce.sum(1) / keep.sum(1)

    logits = torch.sin(torch.arange(40.0)).reshape(2, 4, 5) * 2
    labels = torch.tensor([[-100, 1, 4, 2], [-100, 3, 0, -100]])
    cases = [(logits, labels, torch.tensor([1.0, -1.0])), (logits, labels, torch.tensor([1.0, 1.0]))]
    cases += [(logits[:1], labels[:1], torch.tensor([-1.0]))]
    mistakes = {
        "the signs are not used": lambda x, y, s: total(x, y, torch.ones_like(s), mean),
        "labels of −100 count in the mean": lambda x, y, s: total(x, y, s, lambda ce, keep: ce.mean(1)),
        "a sum over the tokens of a row, not their mean": lambda x, y, s: total(x, y, s, lambda ce, keep: ce.sum(1)),
        "one mean over all tokens": lambda x, y, s: total(x, y, s, lambda ce, keep: ce.sum(1) / keep.sum()),
        "a mean over the rows, not their sum": lambda x, y, s: total(x, y, s, mean) / len(s),
        "the labels are shifted once more": lambda x, y, s: total(x[:, :-1], y[:, 1:], s, mean),
    }
    return check(signed_ce, cases, lambda x, y, s: total(x, y, s, mean), mistakes, 1e-5, name="signed_ce")


def check_collapse_condition(total_push: Callable[[int, int, str], float]) -> bool:
    """`total_push(n_right, n_wrong, rule)`: the sum of a group's weights under "unit" (±1) or "group_balanced".

    Below 0 the group pushes the likelihood of what was sampled down in total, and training may collapse.
    """
    cases = [(n, 8 - n, rule) for rule in ("unit", "group_balanced") for n in (0, 1, 4, 7, 8)]
    mistakes = {
        "unit weights under both rules": lambda k, w, rule: k - w,
        "the mean weight, not the sum": lambda k, w, rule: (k - w) / (k + w) if rule == "unit" else 0,
        "wrong responses count too, with a minus": lambda k, w, rule: k if rule == "unit" else 0,
        "unmixed groups have balanced weights of 0": lambda k, w, rule: k - w if rule == "unit" else (k > 0) - (w > 0),
    }
    return check(total_push, cases, [-8, -6, 0, 6, 8] + [0] * 5, mistakes, name="total_push")
