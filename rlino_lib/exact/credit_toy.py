"""The variance of one response's gradient under different credits, exactly, in toys (chapter 10).

An estimate of ∇p is ĝ = Σ_t w_t ∇log π(step t), a sum over steps, without whitening. `chain` and `search` list every
response of a problem of many steps. What is random in the weights besides the response, baselines and sampled values,
has known variances. So mean and variance of ĝ are sums, not simulations. VinePPO is 2410.01679, RLOO 2402.14740.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from rlino_lib.errors import RlinoError, chosen
from rlino_lib.exact.token_mdp import F64

GROUP = 8  # responses of a prompt


@dataclass(frozen=True, eq=False)
class Toy:
    """All N responses of a problem, of at most T steps, under a policy of P parameters; there are S states."""

    probs: Tensor  # [N]
    rewards: Tensor  # [N], 0 or 1
    states: Tensor  # [N, T] int64, before each step
    mask: Tensor  # [N, T] bool
    scores: Tensor  # [N, T, P], ∇log π of each step, 0 where masked
    values: Tensor  # [S], the exact value of each state

    @property
    def p(self) -> float:
        """The chance of a right response."""
        return (self.probs @ self.rewards).item()

    @property
    def gradient(self) -> Tensor:
        """∇p [P]."""
        return (self.probs * self.rewards) @ self.scores.sum(1)

    @property
    def last(self) -> Tensor:
        """The last step of each response, [N, T] bool."""
        return torch.arange(self.mask.shape[1]) == self.mask.sum(1, keepdim=True) - 1


# --- toys ------------------------------------------------------------------------------------------------------------


def chain(n: int, s: float) -> Toy:
    """n steps, each right with chance s, whose logit is a parameter; one mistake is fatal, and pays 0.

    A response does not know of its mistake and writes on to the end. States: t, and n + t after a mistake. Raises
    RlinoError for n outside 1 … 12 or s outside (0, 1).
    """
    if not (1 <= n <= 12 and 0 < s < 1):
        raise RlinoError("a chain has from 1 to 12 steps, each right with a chance between 0 and 1")
    right = torch.cartesian_prod(*[torch.tensor([1, 0])] * n).view(-1, n).bool()  # [2^n, n]
    lost = (~right).cumsum(1) - (~right).long() > 0  # [2^n, n], before the step
    chance = torch.tensor([1 - s, s], dtype=F64)[right.long()]  # [2^n, n]
    scores = torch.diag_embed(right.to(F64) - s)  # [2^n, n, n]
    values = torch.cat([torch.tensor(s, dtype=F64) ** torch.arange(n, 0, -1), torch.zeros(n, dtype=F64)])  # [2n]
    states = torch.arange(n) + n * lost  # [2^n, n]
    return Toy(chance.prod(1), right.all(1).to(F64), states, torch.ones_like(lost), scores, values)


def search(hit: float, again: float, most: int = 40, decides: bool = False) -> Toy:
    """Attempts that hit with chance `hit`, whose logit is the parameter; after a miss another with chance `again`.

    It has no memory: a miss leaves the value where it was, up to the limit of `most` attempts. A step is an attempt
    and what is decided after it. With `decides` the logit of `again` is a second parameter: giving up costs the value.
    Raises RlinoError for chances outside (0, 1), or `most` outside 1 … 200.
    """
    if not (0 < hit < 1 and 0 < again < 1 and 1 <= most <= 200):
        raise RlinoError("a search needs 0 < hit, again < 1 and from 1 to 200 attempts")
    on = ((1 - hit) * again) ** torch.arange(most, dtype=F64)  # [M], the chance of each attempt
    stop = torch.full_like(on, (1 - hit) * (1 - again))  # [M]
    stop[-1] = 1 - hit
    place = torch.arange(most)
    ends = torch.eye(most).bool()  # [M, M]
    hits = torch.cat([ends, ends & False])  # [2M, M], those that hit at last, then those that stop
    stops = torch.cat([ends & False, ends & (place < most - 1)])  # [2M, M], at the limit nothing is decided
    mask = (place <= place[:, None]).repeat(2, 1)  # [2M, M]
    goes_on = mask & ~ends.repeat(2, 1)  # [2M, M]
    decision = goes_on.to(F64) - again * (goes_on | stops).to(F64)  # [2M, M]
    scores = torch.stack([(hits.to(F64) - hit) * mask, decision], 2)  # [2M, M, 2]
    values = hit * on.cumsum(0).flip(0)  # [M]
    states = place.expand(mask.shape)  # [2M, M]
    probs = torch.cat([on * hit, on * stop])  # [2M]
    return Toy(probs, hits.any(1).to(F64), states, mask, scores[..., : 1 + decides], values)


def fitted_search(attempts: float, p: float, decides: bool = False) -> Toy:
    """The search with so many attempts a response on average, and this chance of a right response.

    Raises RlinoError where there is none: more than 1 attempt, and 0 < p < 1.
    """
    if not (1 < attempts <= 5 and 0 < p < 1):
        raise RlinoError("a search is fitted to more than 1 attempt, 5 at most, and a chance between 0 and 1")
    hit = p / attempts  # every attempt adds it to p
    most = math.ceil(40 / -math.log1p(-1 / attempts))  # what is beyond has a chance of e⁻⁴⁰
    return search(hit, (1 - 1 / attempts) / (1 - hit), most, decides)


# --- credits ---------------------------------------------------------------------------------------------------------


class Weights(NamedTuple):
    """Weights of steps: their means given the response, and J sources of noise, independent of it and of mean 0."""

    mean: Tensor  # [N, T]
    loadings: Tensor  # [N, T, J], what a source adds to the weight, per unit
    noise: Tensor  # [J], the variance of each source


def _uniform(toy: Toy, baseline: float, noise: float) -> Weights:
    """R − b on every step, b of this mean and variance."""
    inside = toy.mask.to(F64)  # [N, T]
    mean = (toy.rewards - baseline)[:, None] * inside  # [N, T]
    return Weights(mean, -inside[..., None], torch.tensor([noise], dtype=F64))


def _differences(toy: Toy, noise: Tensor) -> Weights:
    """V(s′) − V(s), of values with this noise [S]; the value after the last step is the reward."""
    before = one_hot(toy.states, len(toy.values)).to(F64) * toy.mask[..., None]  # [N, T, S]
    after = torch.cat([before[:, 1:], torch.zeros_like(before[:, :1])], 1)  # [N, T, S]
    loadings = after - before  # [N, T, S]
    return Weights(toy.last * toy.rewards[:, None] + loadings @ toy.values, loadings, noise)


class Choice(NamedTuple):
    """A rule for the weights of steps, from a toy, continuations k and group size, and its name in figures."""

    of: Callable[[Toy, int, int], Weights]
    label: str


CREDITS = {
    "reinforce": Choice(lambda toy, k, g: _uniform(toy, 0.0, 0.0), "no baseline"),  # R
    "rloo": Choice(lambda toy, k, g: _uniform(toy, toy.p, toy.p * (1 - toy.p) / (g - 1)), "RLOO"),
    "vine": Choice(lambda toy, k, g: _differences(toy, toy.values * (1 - toy.values) / k), "VinePPO"),
    "exact": Choice(lambda toy, k, g: _differences(toy, 0 * toy.values), "exact values"),
}


class Estimate(NamedTuple):
    """One response's estimate of ∇p: its mean [P], and its variance summed over parameters.

    `shared` is its covariance with that of another response that shares its values, wherever their states are equal.
    """

    mean: Tensor
    variance: float
    shared: float

    @property
    def sd(self) -> float:
        """The root of the variance."""
        return math.sqrt(self.variance)


def estimate(toy: Toy, credit: str, k: int = 9, group: int = GROUP) -> Estimate:
    """Mean and variance of one response's estimate under a credit of CREDITS.

    k: continuations of each state, for `vine`; group: the responses G of a prompt, whose others' mean reward is the
    baseline of `rloo`. There the terms of a group have covariance |∇p|²/(G−1)², which is not in the variance of one.
    Raises RlinoError for another credit, no continuations or a group of one. Example:
    `estimate(chain(3, 0.4), "vine", k=3).sd`.
    """
    if k < 1 or group < 2:
        raise RlinoError("a credit needs a continuation or more, and groups of two or more")
    mean, loadings, noise = CREDITS[chosen(credit, CREDITS, "credit")].of(toy, k, group)
    own = torch.einsum("nt,ntp->np", mean, toy.scores)  # [N, P]
    by_source = torch.einsum("ntj,ntp->njp", loadings, toy.scores)  # [N, J, P]
    square = own.square().sum(1) + by_source.square().sum(2) @ noise  # [N]
    total = toy.probs @ own  # [P]
    shared = torch.einsum("n,njp->jp", toy.probs, by_source).square().sum(1) @ noise
    return Estimate(total, (toy.probs @ square - total.square().sum()).item(), shared.item())


def group_sd(toy: Toy, credit: str, k: int = 9, group: int = GROUP) -> float:
    """The sd of the mean estimate of a group of G responses, which share their values wherever their states are equal.

    Under RLOO two of them have covariance |∇p|²/(G−1)² instead, since each is in the other's baseline. Raises
    RlinoError as `estimate` does.
    """
    one = estimate(toy, credit, k, group)
    covariance = toy.gradient.square().sum().item() / (group - 1) ** 2 if credit == "rloo" else one.shared
    return math.sqrt((one.variance + (group - 1) * covariance) / group)


def states_of_group(toy: Toy, group: int = GROUP) -> float:
    """How many different states a group of G responses visits on average: those whose values it needs."""
    at = one_hot(toy.states, len(toy.values)) * toy.mask[..., None]  # [N, T, S]
    visits = toy.probs @ at.amax(1).to(F64)  # [S]
    return (1 - (1 - visits) ** group).sum().item()


def credit_table(toys: Mapping[str, Toy], ks: Sequence[int] = (1, 3, 9)) -> pd.DataFrame:
    """Every credit on every toy, a row each, of groups of 8 responses that share their values.

    Columns: toy, credit, K (continuations a state, NaN for other credits), `ratio`, the sd of a group's estimate over
    RLOO's (`group_sd`), `cost` in sampled responses for one, equal states being valued once and a continuation being a
    response, and `ratio_at_equal_samples`, to the sd of RLOO with as many sampled responses: ratio·√cost. Raises
    RlinoError for no continuations, and for a toy whose responses all earn the same.
    """
    rows = []
    for title, toy in toys.items():
        base = group_sd(toy, "rloo")
        if not base:
            raise RlinoError(f"the toy {title} has nothing to learn: all its responses earn the same")
        states = states_of_group(toy) / GROUP  # for each response
        for credit, k in [*((name, None) for name in CREDITS if name != "vine"), *(("vine", k) for k in ks)]:
            ratio = group_sd(toy, credit, 1 if k is None else k) / base
            cost = 1 + (k or 0) * states
            rows.append((title, credit, k, ratio, cost, ratio * cost**0.5))
    return pd.DataFrame(rows, columns=["toy", "credit", "K", "ratio", "cost", "ratio_at_equal_samples"])
