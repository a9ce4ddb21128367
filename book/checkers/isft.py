"""Checkers of chapter 05's exercises: filtered iterative SFT."""

import torch
import torch.nn.functional as F
from torch import Tensor

from checkers.check import Solution, exercise


@exercise(
    "balanced_weights", ([True, False, False, False],), ([True, True, False, True, False],), ([True] * 3,),
    ([False] * 4,),
)  # fmt: skip
def check_balanced_weights(correct: list[bool]) -> Solution:
    """`balanced(correct)` for one group: signed weights, each side sums to ±1; all 0 unless the group is mixed."""
    size = len(correct)
    sides = {side: correct.count(side) for side in (True, False)}
    mixed = all(sides.values())
    signs = torch.tensor([1.0 if c else -1.0 for c in correct])
    balanced = torch.tensor([(1 if c else -1) / sides[c] for c in correct])
    return balanced * mixed, {
        "±1 for every response: each side must sum to ±1": signs,
        "a group that is not mixed: weight 0": balanced,
        "±1/G, and in groups that are not mixed too": signs / size,
        "±1/G: divide by the size of the side": signs / size * mixed,
        "±1 in mixed groups: each side must sum to ±1": signs * mixed,
        "wrong responses have a positive weight: they are to become less likely": balanced.abs() * mixed,
    }


_LOGITS = torch.sin(torch.arange(40.0)).reshape(2, 4, 5) * 2
_LABELS = torch.tensor([[-100, 1, 4, 2], [-100, 3, 0, -100]])
_SIGNED = (_LOGITS, _LABELS, torch.tensor([1.0, -1.0])), (_LOGITS, _LABELS, torch.tensor([1.0, 1.0]))


@exercise("signed_ce", *_SIGNED, (_LOGITS[:1], _LABELS[:1], torch.tensor([-1.0])), tolerance=1e-5)
def check_signed_ce(logits: Tensor, labels: Tensor, signs: Tensor) -> Solution:
    """`signed_ce(logits, labels, signs)`, [B, L, V], [B, L] and [B]: Σ_i sign_i · (mean cross-entropy of row i).

    The logits at a place already belong to the label at that place; labels of −100 count nowhere.
    """

    def row_means(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits.transpose(1, 2), labels, reduction="none").sum(1) / (labels != -100).sum(1)

    counts = (labels != -100).sum(1)  # [B]
    means = row_means(logits, labels)  # [B]
    sums = means * counts
    return signs @ means, {
        "the signs are not used": means.sum(),
        "labels of −100 count in the mean": signs @ sums / labels.shape[1],
        "a sum over the tokens of a row, not their mean": signs @ sums,
        "one mean over all tokens": signs @ sums / counts.sum(),
        "a mean over the rows, not their sum": signs @ means / len(signs),
        "the labels are shifted once more": signs @ row_means(logits[:, :-1], labels[:, 1:]),
    }
