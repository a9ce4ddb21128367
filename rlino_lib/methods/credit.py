"""Credit: shaped rewards, then a rule, then the rows that stay (chapters 04 and 05)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rlino_lib.errors import RlinoError
from rlino_lib.methods.advantages import FILTERS, advantages, check_rewards
from rlino_lib.methods.covariance import covariant_tokens
from rlino_lib.methods.objective import Objective
from rlino_lib.methods.rewards import overlong_penalty
from rlino_lib.methods.token_credit import CREDITS, whitened


@dataclass(frozen=True)
class Graded:
    """The input of credit: N rewarded responses whose groups of `group_size` rows stand together."""

    rewards: Tensor  # [N]
    group_size: int
    mask: Tensor  # [N, T] true on response tokens
    old_logprobs: Tensor | None = None  # [N, T] the sampler's; read by KL in the reward, as is the next
    ref_logprobs: Tensor | None = None  # [N, T] the reference's
    max_response_length: int | None = None  # a run's max_new_tokens; read by overlong penalty and length cost
    truncated: Tensor | None = None  # [N] which rows reached the cap; read by the filter `whole`
    correct: Tensor | None = None  # [N] bool, the verifier's verdicts; None: where the reward is above the threshold
    values: Tensor | None = None  # [N, T] V of the state in which a token's step begins; read by the credit `gae`
    steps: Tensor | None = None  # [N, T] int64, the number of a token's step; None: each token is one
    collisions: Tensor | None = None  # [N, T] Σ_v π(v)² where a token was drawn; read by `optimal_baseline`
    covariant: Tensor | None = None  # [N, T] bool, the tokens that KL-Cov holds; read by the loss

    @property
    def lengths(self) -> Tensor:
        """Response tokens of each row, [N] int64."""
        return self.mask.sum(1)


class Credit(NamedTuple):
    """The advantage of each response, and whether it stays. Rows that are not kept have advantage 0."""

    advantages: Tensor  # [N], or [N, T] where credit is by token
    keep: Tensor  # [N] bool


def credit(objective: Objective, graded: Graded) -> Credit:
    """The advantage of each response and whether it stays: `advantages, keep = credit(OBJECTIVES["dapo"], graded)`.

    In this order: overlong penalty and length cost (over the cap), KL in the reward, advantage rule (among the
    `shortest` of each group where that is set, as in GFPO, 2508.09726; of two of one length the first), credit of
    tokens, whitening, Clip-Cov's draw, filter. Filters read which responses are `correct`; where that is not given,
    those whose reward, before any penalty, is above the rule's `threshold` (0.5). The caller must leave rows that are
    not kept out of the loss: N and Σ|o| of the formula count kept rows. The batch is then smaller; DAPO's dynamic
    sampling would draw more prompts until it is full.
    Raises RlinoError for rewards that are not finite or do not fill groups, shapes that do not agree, a missing part.
    """
    _check(objective, graded)
    shaped = shaped_rewards(objective, graded)  # [N] or [N, T]
    by_response = _advantages(objective, graded, shaped)
    return _filtered(objective, graded, by_response._replace(advantages=_by_token(objective, graded, by_response)))


def _check(o: Objective, g: Graded) -> None:
    check_rewards(g.rewards, g.group_size)
    for name in ("mask", "old_logprobs", "ref_logprobs", "values", "steps", "collisions"):
        tensor = getattr(g, name)
        if tensor is not None and (tensor.shape != g.mask.shape or len(tensor) != len(g.rewards)):
            sizes = f"{len(g.rewards)} rewards and a mask {tuple(g.mask.shape)}"
            raise RlinoError(f"{name} is {tuple(tensor.shape)} for {sizes}")
    if (o.overlong or o.length_cost) and not g.max_response_length:
        raise RlinoError(f"{o.name} punishes length: give max_response_length")
    if o.kl_in_reward and (g.old_logprobs is None or g.ref_logprobs is None):
        raise RlinoError(f"{o.name} has KL in its reward: give old_logprobs and ref_logprobs")
    if (needs := CREDITS[o.credit].needs) and getattr(g, needs) is None:
        raise RlinoError(f"{o.name} credits tokens by {o.credit}: give {needs}")
    if o.credit == "optimal_baseline" and g.old_logprobs is None:
        raise RlinoError(f"{o.name} weighs the others by their gradients: give old_logprobs")
    if o.covariant == "clip" and g.old_logprobs is None:
        raise RlinoError(f"{o.name} spares tokens of high covariance: give old_logprobs")
    if o.shortest > g.group_size:
        raise RlinoError(f"{o.name} keeps the {o.shortest} shortest of groups of {g.group_size}")
    if o.filter == "whole" and g.truncated is None:
        raise RlinoError(f"{o.name} leaves out truncated responses: give truncated")


def shaped_rewards(o: Objective, g: Graded) -> Tensor:
    """Rewards less penalties, [N]; with `reward_to_go` those of each token and what follows it, [N, T]."""
    rewards = g.rewards
    if o.overlong or o.length_cost:
        cost = o.length_cost / g.max_response_length * g.lengths.double()  # [N]
        if o.overlong:
            cost = cost - overlong_penalty(g.lengths, g.max_response_length, o.overlong)  # [N]
        rewards = rewards - cost.to(rewards.dtype)  # [N]
    if o.reward_to_go:
        rewards = rewards[:, None].expand(g.mask.shape)  # [N, T]
    if o.kl_in_reward:
        k1 = torch.where(g.mask.bool(), g.old_logprobs - g.ref_logprobs, 0).to(rewards.dtype)  # [N, T]
        rewards = rewards - o.kl_in_reward * (k1.flip(1).cumsum(1).flip(1) if o.reward_to_go else k1.sum(1))
    return rewards


def _advantages(o: Objective, g: Graded, shaped: Tensor) -> Credit:
    """The objective's rule: over every token of the batch, within whole groups, or among the shortest of each."""
    keep = torch.ones_like(g.rewards, dtype=torch.bool)  # [N]
    result = torch.zeros_like(shaped)  # [N] or [N, T]
    if o.reward_to_go:
        inside = g.mask.bool()  # [N, T]
        result[inside] = advantages(shaped[inside], 1, o.advantage, **o.options)  # every token a sample
    elif o.shortest:
        places = g.lengths.reshape(-1, g.group_size).argsort(dim=1, stable=True)[:, : o.shortest]  # [P, K]
        starts = torch.arange(0, len(shaped), g.group_size, device=places.device)[:, None]  # [P, 1]
        rows = (starts + places).reshape(-1)  # [P·K]
        result[rows] = advantages(shaped[rows], o.shortest, o.advantage, **o.options)
        keep = torch.zeros_like(keep).index_fill(0, rows, True)
    else:
        result = advantages(shaped, g.group_size, o.advantage, **o.options)  # [N]
    return Credit(result, keep)


def _by_token(o: Objective, g: Graded, by_response: Credit) -> Tensor:
    """The advantages of tokens [N, T] where the objective has them, else those of responses, [N]."""
    advantages, keep = by_response  # [N] or [N, T], [N]
    if not o.by_token:
        return advantages
    inside = g.mask.bool()  # [N, T]
    if (rule := CREDITS[o.credit].of) is not None:
        advantages = rule(o, advantages, g)  # [N, T]
    elif advantages.ndim == 1:
        advantages = torch.where(inside, advantages[:, None], 0)  # [N, T]
    if o.whiten:
        advantages = whitened(advantages, without_likely(o, inside & keep[:, None], g.old_logprobs))
    if o.covariant == "clip":
        spared = covariant_tokens(o.covariant, o.covariant_share, advantages, g.old_logprobs, inside)  # [N, T]
        advantages = torch.where(spared, 0, advantages)
    return advantages


def without_likely(o: Objective, mask: Tensor, old_logprobs: Tensor | None) -> Tensor:
    """A mask [N, T] without the tokens that were too likely for the objective: bool, of its `unlikely` alone.

    SPO's mask (2505.23564): a token that was nearly certain has no say. Raises RlinoError without the log-probs.
    """
    if o.unlikely is None:
        return mask
    if old_logprobs is None:
        raise RlinoError(f"{o.name} leaves out likely tokens: give old_logprobs")
    return mask.bool() & (old_logprobs.exp() < o.unlikely)


def _filtered(o: Objective, g: Graded, unfiltered: Credit) -> Credit:
    """The credit without the rows that the filter leaves out."""
    if o.filter is None:
        return unfiltered
    above = g.rewards > o.options.get("threshold", 0.5)  # [N]
    correct = above if g.correct is None else g.correct.to(above)  # [N]
    truncated = torch.zeros_like(correct) if g.truncated is None else g.truncated.to(correct.device)  # [N]
    groups = (x.reshape(-1, g.group_size) for x in (correct, truncated))  # [P, G] each
    keep = unfiltered.keep & FILTERS[o.filter].of(*groups).reshape(-1)  # [N]
    by_row = keep if unfiltered.advantages.ndim == 1 else keep[:, None]
    return Credit(torch.where(by_row, unfiltered.advantages, 0), keep)
