"""Credit token by token: what each token of a response is credited with, a table of choices (chapter 10).

Rewards and advantages of responses are [N], everything about tokens is [N, T] and 0 where masked. Tokens that an
environment wrote are masked, and skipped: a value and a sum of later terms carry over them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

Settings = Any  # an `Objective`, of which a rule reads `gamma` and `lam`
Rows = Any  # a `Graded`, of which it reads the mask and what it needs


class TokenCredit(NamedTuple):
    """A choice: its function of settings, advantages [N] and rows, to [N, T]; its formula; the part of rows it needs.

    Where there is no function every token has the advantage of its response.
    """

    of: Callable[[Settings, Tensor, Rows], Tensor] | None
    formula: str = ""
    needs: str | None = None


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, steps: Tensor | None = None, gamma: float = 1.0, lam: float = 1.0
) -> Tensor:
    """Generalised advantage estimates [N, T] of terminal rewards [N] (1506.02438 eq. 16).

    values [N, T]: V of the state in which a token's step begins; steps [N, T] int64 ≥ 0 numbers the steps, all tokens
    of a step share its advantage, and None makes each token a step. A_k = δ_k + γλ A_{k+1} with δ_k = V_{k+1} − V_k,
    γ before V_{k+1}, and for the last step r − V_k. λ = 0 with steps is VinePPO's credit (2410.01679 eq. 5), the
    difference of neighbouring values.
    """
    if steps is None:
        steps = torch.arange(values.shape[1], device=values.device).expand(values.shape)  # [N, T]
    terminal = rewards.to(values.dtype)  # [N], until the last step has had it
    advantage = torch.zeros_like(terminal)  # [N], of the step that was read last, as are the next two
    value = torch.zeros_like(terminal)  # [N]
    step = torch.full_like(steps[:, 0], -1)  # [N]
    result = torch.zeros_like(values)  # [N, T]
    for t in range(values.shape[1] - 1, -1, -1):
        inside = mask[:, t].bool()  # [N]
        ends = inside & (steps[:, t] != step)  # [N], where a step ends with this token
        delta = terminal + gamma * value - values[:, t]  # [N]
        advantage = torch.where(ends, delta + gamma * lam * advantage, advantage)
        value = torch.where(ends, values[:, t], value)
        terminal = torch.where(ends, 0, terminal)
        step = torch.where(ends, steps[:, t], step)
        result[:, t] = torch.where(inside, advantage, 0)
    return result


def decayed(advantages: Tensor, mask: Tensor, lam: float) -> Tensor:
    """Advantages [N] of responses times λ^(|o| − 1 − t) at each token, [N, T] (GRPO-λ, 2510.00194): position alone."""
    places = mask.flip(1).cumsum(1).flip(1)  # [N, T], |o| − t
    return advantages[:, None] * lam ** (places - 1).clamp_min(0) * mask


def optimal_baseline(
    rewards: Tensor, logprobs: Tensor, collisions: Tensor, mask: Tensor, group_size: int
) -> Tensor:  # fmt: skip
    """Rewards [N] less a baseline of each token, [N, T]: the others' rewards, weighted by the size of their gradients.

    collisions [N, T]: Σ_v π(v)² of the distribution that a token was drawn from. ‖∇ log π‖² in the logits is
    1 − 2π + Σπ²; W_it adds it up to token t, and the baseline is Σ_j r_j W_jt / Σ_j W_jt. verl's
    `optimal_token_baseline` has j over the group; here the response itself is left out, so that the gradient stays
    unbiased. A response that has ended keeps its last W. A group of one has no others, and gets 0.
    """
    sizes = (1 - 2 * logprobs.exp() + collisions) * mask  # [N, T]
    weights = sizes.cumsum(1).reshape(-1, group_size, mask.shape[1])  # [P, G, T]
    weighted = weights * rewards.reshape(-1, group_size, 1)  # [P, G, T]
    others = weights.sum(1, keepdim=True) - weights  # [P, G, T]
    total = weighted.sum(1, keepdim=True) - weighted  # [P, G, T]
    plain = (rewards.reshape(-1, group_size).sum(1, keepdim=True) - rewards.reshape(-1, group_size))[..., None]
    baseline = torch.where(others > 0, total / others, plain / max(group_size - 1, 1))  # [P, G, T]
    credit = (rewards[:, None] - baseline.reshape(mask.shape)) * mask  # [N, T]
    return credit if group_size > 1 else torch.zeros_like(credit)


def whitened(advantages: Tensor, mask: Tensor, eps: float = 1e-8) -> Tensor:
    """Advantages [N, T] less their mean over the tokens of the batch, over their sample std; 0 where masked.

    As PPO's and VinePPO's code has it. Advantages without spread are 0.
    """
    inside = mask.bool()  # [N, T]
    tokens = advantages[inside]  # [M]
    if not len(tokens) or bool((tokens == tokens[0]).all()):
        return torch.zeros_like(advantages)
    return torch.where(inside, (advantages - tokens.mean()) / (tokens.std() + eps), 0)


CREDITS = {
    "response": TokenCredit(None),
    "gae": TokenCredit(
        lambda o, a, rows: gae(a, rows.values.to(a), rows.mask, rows.steps, o.gamma, o.lam),
        "Σ_l (γλ)^l δ_{k+l}, k the step of token t, δ_k = γ V_{k+1} − V_k and r_i − V_k for the last",
        "values",
    ),
    "decay": TokenCredit(lambda o, a, rows: decayed(a, rows.mask, o.gamma * o.lam), "(γλ)^(|o_i| − 1 − t) Â_i"),
    "optimal_baseline": TokenCredit(
        lambda o, a, rows: optimal_baseline(
            a, rows.old_logprobs.to(a), rows.collisions.to(a), rows.mask.to(a), rows.group_size
        ),
        "r_i − Σ_j r_j W_jt / Σ_j W_jt over the others, W_jt = Σ_{s ≤ t} (1 − 2π_js + Σ_v π_v²)",
        "collisions",
    ),
}  # fmt: skip

# Where the values of a credit come from; `rlino_lib.training.values` has a function for each.
VALUES = {
    "continuations": "the share of K continuations of a step's start that are right",
    "critic": "a value head, trained on returns",
    "exact": "the value of the task's own state",
}
# Where steps begin; a critic has a value for each token.
CUTS = {
    "steps": "each step of the task",
    "unlikely": "every fifth token that the sampler gave less than 0.9",
    "tokens": "each token",
}
