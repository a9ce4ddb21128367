"""Credit: shaped rewards, then a rule, then the rows that stay (chapters 04, 05 and 11)."""

from __future__ import annotations

import torch

from rlino_lib.errors import RlinoError
from rlino_lib.methods.advantages import FILTERS, advantages, check_rewards
from rlino_lib.methods.objective import Objective
from rlino_lib.methods.rewards import overlong_penalty


def credit(
    objective: Objective,
    rewards: torch.Tensor,
    group_size: int,
    mask: torch.Tensor,
    old_logprobs: torch.Tensor | None = None,
    ref_logprobs: torch.Tensor | None = None,
    max_response_length: int | None = None,
    clipped: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What each response earned and whether it stays: advantages [N], or [N, T] with `reward_to_go`, and keep [N] bool.

    In this order: overlong penalty and length cost (over the cap `max_response_length`), KL in the reward, advantage
    rule (among the `shortest` of each group where that is set, as in GFPO, 2508.09726; of two of one length the first),
    filter. rewards [N], groups together; mask, old_logprobs (the sampler's) and ref_logprobs (the reference's) [N, T];
    clipped [N], which rows were cut at the cap. Filters judge the reward as graded, right above the rule's `threshold`
    (0.5). Rows that are not kept have advantage 0, and the caller must leave them out of the loss: N and Σ|o| of the
    formula count kept rows. The batch is then smaller; DAPO's dynamic sampling would draw more prompts until it is
    full.
    Raises RlinoError for rewards that are not finite or do not fill groups, shapes that do not agree, a missing part.
    """
    check_rewards(rewards, group_size)
    for name, tensor in (("mask", mask), ("old_logprobs", old_logprobs), ("ref_logprobs", ref_logprobs)):
        if tensor is not None and (tensor.shape != mask.shape or len(tensor) != len(rewards)):
            raise RlinoError(
                f"{name} is {tuple(tensor.shape)} for {len(rewards)} rewards and a mask {tuple(mask.shape)}"
            )
    o, earned = objective, rewards
    keep = torch.ones(len(rewards), dtype=torch.bool, device=rewards.device)  # [N]
    if o.overlong or o.length_cost:
        if not max_response_length:
            raise RlinoError(f"{o.name} punishes length: give max_response_length")
        cost = o.length_cost / max_response_length * mask.sum(1).double()  # [N]
        if o.overlong:
            cost = cost - overlong_penalty(mask.sum(1), max_response_length, o.overlong)  # [N]
        earned = earned - cost.to(earned.dtype)  # [N]
    if o.kl_in_reward:
        if old_logprobs is None or ref_logprobs is None:
            raise RlinoError(f"{o.name} has KL in its reward: give old_logprobs and ref_logprobs")
        k1 = torch.where(mask.bool(), old_logprobs - ref_logprobs, 0).to(earned.dtype)  # [N, T]
        to_go = k1.flip(1).cumsum(1).flip(1) if o.reward_to_go else k1.sum(1)  # [N, T] or [N]
        earned = (earned[:, None] if o.reward_to_go else earned) - o.kl_in_reward * to_go  # [N, T] or [N]
    if o.reward_to_go:
        earned = earned.reshape(len(rewards), -1).expand(mask.shape)  # [N, T]
        found = torch.zeros_like(earned)  # [N, T]
        found[mask.bool()] = advantages(earned[mask.bool()], 1, o.advantage, **o.options)  # every token a sample
    elif o.shortest:
        found, keep = _of_shortest(o, earned, mask.sum(1), group_size)  # [N], [N]
    else:
        found = advantages(earned, group_size, o.advantage, **o.options)  # [N]
    return _filtered(o, found, keep, rewards, group_size, clipped)


def _of_shortest(
    o: Objective, earned: torch.Tensor, lengths: torch.Tensor, group_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages [N] among the shortest of each group, 0 elsewhere, and which rows those are [N]."""
    if o.shortest > group_size:
        raise RlinoError(f"{o.name} keeps the {o.shortest} shortest of groups of {group_size}")
    places = lengths.reshape(-1, group_size).argsort(dim=1, stable=True)[:, : o.shortest]  # [P, K]
    rows = earned.reshape(-1, group_size).gather(1, places).reshape(-1)  # [P·K]
    found = torch.zeros_like(earned).reshape(-1, group_size)  # [P, G]
    found.scatter_(1, places, advantages(rows, o.shortest, o.advantage, **o.options).reshape(places.shape))
    keep = torch.zeros_like(found, dtype=torch.bool).scatter_(1, places, True)  # [P, G]
    return found.reshape(-1), keep.reshape(-1)


def _filtered(
    o: Objective, found: torch.Tensor, keep: torch.Tensor, rewards: torch.Tensor, group_size: int, clipped
) -> tuple[torch.Tensor, torch.Tensor]:
    """The advantages with 0 where a row does not stay, and which rows do [N]."""
    if o.filter is None:
        return found, keep
    if o.filter == "whole" and clipped is None:
        raise RlinoError(f"{o.name} leaves out what was cut at the cap: give clipped")
    right = rewards > o.options.get("threshold", 0.5)  # [N]
    cut = torch.zeros_like(right) if clipped is None else clipped.to(right.device)  # [N]
    keep = keep & FILTERS[o.filter](*(t.reshape(-1, group_size) for t in (right, cut))).reshape(-1)  # [N]
    return torch.where(keep if found.ndim == 1 else keep[:, None], found, 0), keep
