"""From rewards to advantages (chapters 04 and 05): one rule per method, all on rewards in groups [P, G].

A rule sees the whole batch, so it may normalise over groups or over everything. What comes before a rule (penalties on
the reward) and after it (filters) stands here too; `credit` puts them in order.
"""

import inspect
from collections.abc import Mapping

import torch

from rlino_lib.errors import RlinoError, chosen
from rlino_lib.methods.terms import Term


def advantages(rewards: torch.Tensor, group_size: int, rule: str = "zscore", **options: float) -> torch.Tensor:
    """Advantages [N] of rewards [N] whose groups of `group_size` rows stand together; the dtype is kept.

    Rules: `zscore` (r − mean)/(std + eps) with the sample std and eps=1e-4, as TRL has it (GRPO, 2402.03300 eq. 3);
    `mean` r − mean (Dr. GRPO, 2503.20783); `leave_one_out` (RLOO, 2402.14740); `batch` (r − group mean)/(batch std +
    eps), TRL's scale_rewards="batch"; `batch_zscore` mean and std of the batch (REINFORCE++, 2501.03262), and
    `group_batch_zscore` the same after the group mean is off (REINFORCE++ with baseline). On rewards above
    `threshold`=0.5, the F-ISFT family: `positive` 1 on right responses, `negative` −1 on wrong ones, `signed` ±1,
    `weighted` `weight`=0.1 on right and −1 on wrong ones (W-REINFORCE, 2506.01347), `group_balanced` 1/k on the k right
    and −1/(G−k) on the wrong ones of mixed groups, 0 elsewhere. `best`: 1 on the response of each
    group with the highest reward, the first of several (best of N, 2412.01951), 0 on the others.
    `reward`: r itself, for a credit that has baselines of its own (chapter 10), and for REINFORCE without one.
    A group of one, a group of equal rewards, and for rules over the batch a batch of equal rewards get exactly 0 by
    every rule that compares. Half precision is computed in float32. Raises RlinoError for an unknown rule or option,
    rewards that do not fill whole groups, or are not finite.

        advantages(torch.tensor([1.0, 0.0, 0.0, 1.0]), group_size=4, rule="mean")  # tensor([0.5, -0.5, -0.5, 0.5])
    """
    check_rule(rule, options)
    check_rewards(rewards, group_size)
    narrow = rewards.dtype in (torch.float16, torch.bfloat16)
    wide = rewards.float() if narrow or not rewards.is_floating_point() else rewards  # [N]
    relative = ADVANTAGES[rule].of(wide.reshape(-1, group_size), **options).reshape(-1)  # [N]
    return relative.to(rewards.dtype) if narrow else relative


def check_rule(rule: str, options: Mapping[str, float]) -> None:
    """Raise RlinoError for an unknown rule, or an option that the rule does not have."""
    known = list(inspect.signature(ADVANTAGES[chosen(rule, ADVANTAGES, "advantage rule")].of).parameters)[1:]
    for name in options:
        if name not in known:
            raise RlinoError(f"advantage rule {rule} has no option {name!r}: {', '.join(known) or 'it has none'}")


def check_rewards(rewards: torch.Tensor, group_size: int) -> None:
    """Raise RlinoError for rewards that are not [N] of whole groups, or not finite."""
    if rewards.ndim != 1 or group_size < 1 or len(rewards) % group_size:
        raise RlinoError(f"rewards of shape {tuple(rewards.shape)} are not whole groups of {group_size}")
    if not rewards.isfinite().all():
        row = int((~rewards.isfinite()).nonzero()[0])
        raise RlinoError(f"the reward of row {row} is {rewards[row].item()}: rewards must be finite")


# --- the rules: groups [P, G] in, [P, G] out -------------------------------------------------------------------------


def _off(r: torch.Tensor) -> torch.Tensor:
    # The mean of equal numbers is not always the number: of eight 0.1 in float32 it is off by 7e-9, of which a division
    # by the spread + 1e-4 makes 7e-5, and Adam's first step a whole step.
    equal = (r == r[:, :1]).all(1, keepdim=True)  # [P, 1]
    return torch.where(equal, 0, r - r.mean(1, keepdim=True))  # [P, G]


def _over(gap: torch.Tensor, std: torch.Tensor, eps: float) -> torch.Tensor:
    return torch.where(gap == 0, 0, gap / (std + eps))  # [P, G], 0 and not 0/0 where nothing differs and eps is 0


def _batch_std(r: torch.Tensor) -> torch.Tensor:
    return r.std() if r.numel() > 1 else r.new_zeros(())  # []


def _zscore(r: torch.Tensor, eps: float = 1e-4) -> torch.Tensor:
    if r.shape[1] == 1:  # one sample has no spread, and no advantage over its group
        return torch.zeros_like(r)
    return _over(_off(r), r.std(1, keepdim=True), eps)


def _batch_zscore(r: torch.Tensor, eps: float = 1e-4) -> torch.Tensor:
    gap = torch.where((r == r[:1, :1]).all(), 0, r - r.mean())  # [P, G], exactly 0 as in `_off`
    return _over(gap, _batch_std(r), eps)


def _group_batch_zscore(r: torch.Tensor, eps: float = 1e-4) -> torch.Tensor:
    off = _off(r)  # [P, G]; its batch mean is 0 but for rounding, which a group without spread must not be given
    return _over(off, _batch_std(off), eps)


def _right(r: torch.Tensor, threshold: float = 0.5) -> torch.Tensor:
    return (r > threshold).to(r.dtype)  # [P, G]


def _group_balanced(r: torch.Tensor, threshold: float = 0.5) -> torch.Tensor:
    right = _right(r, threshold)  # [P, G]
    k = right.sum(1, keepdim=True)  # [P, 1]
    n_wrong = r.shape[1] - k  # [P, 1]
    mixed = (k > 0) & (n_wrong > 0)
    return torch.where(mixed, right / k.clamp_min(1) - (1 - right) / n_wrong.clamp_min(1), 0)  # [P, G]


def _best(r: torch.Tensor) -> torch.Tensor:
    first = torch.zeros_like(r).scatter_(1, r.argmax(1, keepdim=True), 1)  # [P, G]
    return torch.where((r == r[:, :1]).all(1, keepdim=True), 0, first)


ADVANTAGES = {
    "reward": Term(lambda r: r, "r_i"),
    "zscore": Term(_zscore, "(r_i − mean r) / (std r + 1e-4)"),
    "mean": Term(_off, "r_i − mean r"),
    # One sample has no others, and gets 0.
    "leave_one_out": Term(lambda r: _off(r) * r.shape[1] / max(r.shape[1] - 1, 1), "r_i − mean of the others' r"),
    "batch": Term(lambda r, eps=1e-4: _over(_off(r), _batch_std(r), eps), "(r_i − mean r) / (batch std r + 1e-4)"),
    "batch_zscore": Term(_batch_zscore, "(r_i − batch mean r) / (batch std r + 1e-4)"),
    "group_batch_zscore": Term(_group_batch_zscore, "(d_i − batch mean d) / (batch std d + 1e-4), d_i = r_i − mean r"),
    "positive": Term(_right, "1 if right, else 0"),
    "negative": Term(lambda r, threshold=0.5: _right(r, threshold) - 1, "0 if right, else −1"),
    "signed": Term(lambda r, threshold=0.5: 2 * _right(r, threshold) - 1, "1 if right, else −1"),
    "weighted": Term(
        lambda r, weight=0.1, threshold=0.5: torch.where(r > threshold, weight, -1.0).to(r.dtype),
        "weight if right, else −1",
    ),
    "group_balanced": Term(_group_balanced, "1/k if right, −1/(G−k) if wrong, k of G right, mixed groups only"),
    "best": Term(_best, "1 if r_i is the highest of its group, else 0"),
}


def _some(rows: torch.Tensor) -> torch.Tensor:
    return rows.any(1, keepdim=True).expand_as(rows)  # [P, G]


# Which rows stay, from what is right and what was truncated at the cap, both [P, G], to [P, G].
FILTERS = {
    "mixed": Term(lambda right, truncated: _some(right) & _some(~right), "groups that are not all right or all wrong"),
    "some_right": Term(lambda right, truncated: _some(right), "groups that are not all wrong"),
    "right": Term(lambda right, truncated: right, "right responses"),
    "whole": Term(lambda right, truncated: ~truncated, "responses that were not truncated"),
}
