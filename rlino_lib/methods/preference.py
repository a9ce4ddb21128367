"""Preferences among a policy's own responses, as weights of whole responses (chapter 11): DPO, IPO and KTO.

Each is a loss of the log-ratios Δ_i = Σ_t log(π/ref)_it, where ref is the policy before the round. So its gradient is
a weighted log-likelihood, Σ_i w_i Σ_t ∇log π(o_it) with w_i = −∂loss/∂Δ_i, the same on every token of a response.
At Δ = 0 the weights of DPO are ±β/2 over the number of pairs, whatever the pair. The losses agree with TRL's own code
(tests/methods/test_preference.py).
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlino_lib.errors import RlinoError, chosen


@dataclass(frozen=True)
class Preferred:
    """Which of N responses are chosen and which are rejected; of the paired losses the k-th of both are a pair."""

    chosen: Tensor  # [M] int64
    rejected: Tensor  # [M] int64; [M'] where they are no pairs


class Preference(NamedTuple):
    """A loss of log-ratios [N], lengths [N], `Preferred`, β and KTO's z₀; what it maximises; whether it is of pairs."""

    of: Callable[[Tensor, Tensor, Preferred, float, float], Tensor]
    formula: str
    paired: bool = True


def _dpo(log_ratios: Tensor, lengths: Tensor, rows: Preferred, beta: float, z0: float) -> Tensor:
    return -logsigmoid(beta * (log_ratios[rows.chosen] - log_ratios[rows.rejected])).mean()


def _ipo(log_ratios: Tensor, lengths: Tensor, rows: Preferred, beta: float, z0: float) -> Tensor:
    by_token = log_ratios / lengths.clamp_min(1)  # [N]
    return (by_token[rows.chosen] - by_token[rows.rejected] - 1 / (2 * beta)).square().mean()


def _kto(log_ratios: Tensor, lengths: Tensor, rows: Preferred, beta: float, z0: float) -> Tensor:
    above = torch.sigmoid(beta * (log_ratios[rows.chosen] - z0))  # [M]
    below = torch.sigmoid(beta * (z0 - log_ratios[rows.rejected]))  # [M']
    return (1 - torch.cat([above, below])).mean()


PREFERENCES = {
    "dpo": Preference(_dpo, "1/M Σ_pairs log σ(β (Δ⁺ − Δ⁻))"),  # 2305.18290 eq. 7
    "ipo": Preference(_ipo, "−1/M Σ_pairs (Δ⁺/|o⁺| − Δ⁻/|o⁻| − 1/(2β))²"),  # 2310.12036 eq. 17, by token as in TRL
    "kto": Preference(_kto, "1/N Σ_i σ(±β (Δ_i − z₀)), + if right", paired=False),  # 2402.01306 eq. 7, both λ = 1
}


def response_weights(
    name: str, log_ratios: Tensor, lengths: Tensor, rows: Preferred, beta: float, z0: float = 0.0
) -> Tensor:
    """The weight w_i = −∂loss/∂Δ_i of every token of response i, [N] in the dtype of the log-ratios [N].

    lengths [N] are the policy's tokens in each; `z0` is KTO's estimate of KL(π ‖ ref), at least 0. Raises RlinoError
    for an unknown loss, no rows, and numbers of chosen and rejected rows that are no pairs.
    """
    loss = PREFERENCES[chosen(name, PREFERENCES, "preference")]
    if not len(rows.chosen) + len(rows.rejected) or (loss.paired and len(rows.chosen) != len(rows.rejected)):
        raise RlinoError(f"{name} of {len(rows.chosen)} chosen and {len(rows.rejected)} rejected responses")
    at = log_ratios.detach().clone().requires_grad_()  # [N]
    with torch.enable_grad():
        (grad,) = torch.autograd.grad(loss.of(at, lengths, rows, beta, z0), at)
    return -grad


# --- which responses are chosen --------------------------------------------------------------------------------------

# Of the candidates' rows and all lengths, the one that is chosen.
CHOICES: dict[str, Callable[[list[int], Sequence[int], random.Random], int]] = {
    "longest": lambda rows, lengths, rng: max(rows, key=lambda i: lengths[i]),
    "shortest": lambda rows, lengths, rng: min(rows, key=lambda i: lengths[i]),
    "random": lambda rows, lengths, rng: rng.choice(rows),
}


def pairs(
    correct: Sequence[bool], well_formed: Sequence[bool], truncated: Sequence[bool], lengths: Sequence[int],
    group_size: int, choice: str, rng: random.Random,
) -> Preferred:  # fmt: skip
    """At most one pair of each group of N responses, as the code of iterative DPO makes them (2503.12854).

    Chosen is one that is right and not truncated, by the `choice` of CHOICES; where there is none, a wrong one that is
    well formed, so that a prompt that is wrong throughout still trains. Rejected is one at random: of those that are
    not well formed; where there are none of the wrong ones.
    """
    pick = CHOICES[chosen(choice, CHOICES, "choice of pairs")]
    table: list[tuple[int, int]] = []
    for start in range(0, len(correct), group_size):
        rows = range(start, start + group_size)
        wrong = [i for i in rows if well_formed[i] and not correct[i]]
        whole_right = [i for i in rows if correct[i] and not truncated[i]]
        candidates = whole_right or [i for i in wrong if not truncated[i]]
        if not candidates:
            continue
        best = pick(candidates, lengths, rng)
        others = [i for i in rows if not well_formed[i] and not correct[i]] or [i for i in wrong if i != best]
        if others:
            table.append((best, rng.choice(others)))
    rows_of_pairs = torch.tensor(table, dtype=torch.long).reshape(-1, 2)  # [M, 2]
    return Preferred(rows_of_pairs[:, 0], rows_of_pairs[:, 1])
