"""The variance of one response's gradient under different credits, exactly, in toys (chapter 10).

An estimate of ∇p is ĝ = Σ_t w_t ∇log π(step t), a sum over steps, without whitening. `chain` and `search` list every
response of a problem of many steps, `of_token_mdp` those of a token MDP. What is random in the weights besides the
response, baselines and sampled values, has known variances. So mean and variance of ĝ are sums, not simulations.
VinePPO is 2410.01679, RLOO 2402.14740, GAE 1506.02438, the decay that of GRPO-λ, 2510.00194.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import one_hot

from rlino_lib.errors import RlinoError, chosen
from rlino_lib.exact.token_mdp import F64, TokenMDP
from rlino_lib.settings import check_names, list_of, number, whole

GROUP = 8  # responses of a prompt
LIMIT = 100_000  # tables of sampled values that are enumerated


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
    def steps(self) -> float:
        """The mean number of steps, each of which begins at a state that may be valued."""
        return (self.probs @ self.mask.sum(1).to(F64)).item()

    @property
    def last(self) -> Tensor:
        """The last step of each response, [N, T] bool."""
        return torch.arange(self.mask.shape[1]) == self.mask.sum(1, keepdim=True) - 1


def _is_chance(x: float) -> bool:
    """Whether x is a number in (0, 1)."""
    return number(above=0, most=1).holds(x) and x < 1


# --- toys ------------------------------------------------------------------------------------------------------------


def chain(n: int, s: float, goes_on: bool = True) -> Toy:
    """n steps, each right with chance s, whose logit is a parameter; one mistake is fatal, and pays 0.

    A response does not know of its mistake and writes on to the end, unless `goes_on` is False. States: t, and n + t
    after a mistake. Raises RlinoError for n outside 1 … 12 or s outside (0, 1).
    """
    if not whole(1, 12).holds(n) or not _is_chance(s):
        raise RlinoError("a chain has from 1 to 12 steps, each right with a chance between 0 and 1")
    right = torch.cartesian_prod(*[torch.tensor([1, 0])] * n).view(-1, n).bool()  # [2^n, n]
    lost = (~right).cumsum(1) - (~right).long() > 0  # [2^n, n], before the step
    mask = ~lost | goes_on  # [2^n, n]
    chance = torch.tensor([1 - s, s], dtype=F64)[right.long()]  # [2^n, n]
    scores = torch.diag_embed((right.to(F64) - s) * mask)  # [2^n, n, n]
    values = torch.cat([torch.tensor(s, dtype=F64) ** torch.arange(n, 0, -1), torch.zeros(n, dtype=F64)])  # [2n]
    return Toy(chance.prod(1), right.all(1).to(F64), torch.arange(n) + n * lost, mask, scores, values)


def search(hit: float, again: float, most: int = 40, decides: bool = False) -> Toy:
    """Attempts that hit with chance `hit`, whose logit is the parameter; after a miss another with chance `again`.

    It has no memory: a miss leaves the value where it was, up to the limit of `most` attempts. A step is an attempt
    and what is decided after it. With `decides` the logit of `again` is a second parameter: giving up costs the value.
    Raises RlinoError for chances outside (0, 1), or `most` outside 1 … 200.
    """
    if not _is_chance(hit) or not _is_chance(again) or not whole(1, 200).holds(most):
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
    if not number(above=1, most=5).holds(attempts) or not _is_chance(p):
        raise RlinoError("a search is fitted to more than 1 attempt, 5 at most, and a chance between 0 and 1")
    hit = p / attempts  # every attempt adds it to p
    most = math.ceil(40 / -math.log1p(-1 / attempts))  # what is beyond has a chance of e⁻⁴⁰
    return search(hit, (1 - 1 / attempts) / (1 - hit), most, decides)


def of_token_mdp(mdp: TokenMDP, policy: Module) -> Toy:
    """The toy of a token MDP, a step being a token. Raises RlinoError for rewards that are not 0 or 1, and slips."""
    if mdp.slip or not ((mdp.rewards == 0) | (mdp.rewards == 1)).all():
        raise RlinoError("credit is compared on rewards of 0 and 1, without slips")
    logp = mdp.token_logprobs(policy)  # [S, V]
    rows = torch.eye(logp.numel(), dtype=F64).view(-1, *logp.shape)  # [S·V, S, V]
    parts = torch.autograd.grad(logp, list(policy.parameters()), rows, is_grads_batched=True)
    by_token = torch.cat([part.flatten(1) for part in parts], 1)  # [S·V, P]
    scores = by_token[mdp.states * mdp.vocab + mdp.tokens] * mdp.mask[..., None]  # [N, H, P]
    return Toy(mdp.probs(policy).detach(), mdp.rewards, mdp.states, mdp.mask, scores, mdp.values(policy).V)


# --- credits ---------------------------------------------------------------------------------------------------------


class Weights(NamedTuple):
    """Weights of steps: their means given the response, and J sources of noise, independent of it and of mean 0."""

    mean: Tensor  # [N, T]
    loadings: Tensor  # [N, T, J], what a source adds to the weight, per unit
    noise: Tensor  # [J], the variance of each source


def _uniform(toy: Toy, group: int = GROUP, decay: float = 1.0, baseline: bool = True) -> Weights:
    """R − b on every step, b the mean reward of the group's others, times `decay` for each step to the end."""
    to_end = toy.mask.sum(1, keepdim=True) - 1 - torch.arange(toy.mask.shape[1])  # [N, T]
    share = toy.mask * decay ** to_end.clamp(min=0).to(F64)  # [N, T]
    mean = (toy.rewards - toy.p * baseline)[:, None] * share  # [N, T]
    noise = torch.tensor([baseline * toy.p * (1 - toy.p) / (group - 1)], dtype=F64)  # [1]
    return Weights(mean, -share[..., None], noise)


def _differences(toy: Toy, errors: Tensor | float = 0.0, noise: Tensor | None = None, lam: float = 0.0) -> Weights:
    """GAE of V + errors [S] + noise, of these variances [S]: Σ_u λ^(u−t) δ_u, δ the difference of neighbouring values.

    The value after the last step is the reward.
    """
    at = one_hot(toy.states, len(toy.values)).to(F64) * toy.mask[..., None]  # [N, T, S]
    after = torch.cat([at[:, 1:], torch.zeros_like(at[:, :1])], 1)  # [N, T, S]
    places = torch.arange(toy.mask.shape[1], dtype=F64)
    ahead = places - places[:, None]  # [T, T]
    sums = torch.where(ahead < 0, 0, lam ** ahead.clamp(min=0))  # [T, T]
    loadings = torch.einsum("tu,nus->nts", sums, after - at) * toy.mask[..., None]  # [N, T, S]
    paid = (toy.last * toy.rewards[:, None]) @ sums.T * toy.mask  # [N, T]
    noise = torch.zeros_like(toy.values) if noise is None else noise
    return Weights(paid + loadings @ (toy.values + errors), loadings, noise)


def _vine(toy: Toy, k: int = 9) -> Weights:
    return _differences(toy, noise=toy.values * (1 - toy.values) / k)


def _critic(toy: Toy, blind: float = 0.5, lam: float = 0.0, errors: Tensor | float = 0.0) -> Weights:
    return _differences(toy, blind * (toy.p - toy.values) + errors, lam=lam)


class Choice(NamedTuple):
    """A rule for the weights of steps, its formula, and its name in tables and figures."""

    of: Callable[..., Weights]
    formula: str
    label: str


CREDITS = {
    "reinforce": Choice(lambda toy: _uniform(toy, baseline=False), "R", "no baseline"),
    "rloo": Choice(lambda toy, group=GROUP: _uniform(toy, group), "R − mean of the others", "RLOO"),
    "decay": Choice(lambda toy, group=GROUP, decay=0.9: _uniform(toy, group, decay), "RLOO's · λ^(T−1−t)", "decay"),
    "vine": Choice(_vine, "V̂(s′) − V̂(s), V̂ the mean of k continuations", "VinePPO"),
    "exact": Choice(lambda toy: _differences(toy), "V(s′) − V(s)", "exact values"),
    "gae": Choice(lambda toy, lam=0.95: _differences(toy, lam=lam), "Σ λ^(u−t) (V(s′) − V(s))", "GAE, exact values"),
    "critic": Choice(_critic, "GAE of V + blind · (p − V) + errors", "critic, half blind"),
}


# What the options of rules may be; `errors` may be a tensor [S] too.
OPTIONS = {
    "group": whole(2), "k": whole(1), "decay": number(0, 1), "lam": number(0, 1), "blind": number(0, 1),
    "errors": number(),
}  # fmt: skip


class Estimate(NamedTuple):
    """One response's estimate of ∇p: its mean [P], and its variance summed over parameters.

    `shared` is its covariance with that of another response that shares its values, wherever their states are equal.
    """

    mean: Tensor
    variance: float
    shared: float = 0.0

    @property
    def sd(self) -> float:
        """The root of the variance."""
        return math.sqrt(self.variance)


def estimate(toy: Toy, credit: str, **options: float | Tensor) -> Estimate:
    """Mean and variance of one response's estimate under a credit of CREDITS, whose options are those of its rule.

    Options: `group` of rloo and decay, `decay`, `k` of vine, `lam` of gae and critic, and of critic `blind`, the share
    by which its values are drawn to p, and `errors`, a number or a tensor [S] that is added to them.
    Under RLOO the terms of a group of G have covariance |∇p|²/(G−1)², which is not in the variance of one.
    Raises RlinoError for another credit, or an option that it does not have or that is out of range. Example:
    `estimate(chain(3, 0.4), "vine", k=3).sd`.
    """
    rule = CREDITS[chosen(credit, CREDITS, "credit")].of
    check_names(options, [*inspect.signature(rule).parameters][1:], f"the credit {credit}")
    for name, value in options.items():
        if not (isinstance(value, Tensor) and name == "errors" and value.shape == toy.values.shape):
            OPTIONS[name].check(f"the credit {credit}: {name}", value)
    mean, loadings, noise = rule(toy, **options)
    own = torch.einsum("nt,ntp->np", mean, toy.scores)  # [N, P]
    by_source = torch.einsum("ntj,ntp->njp", loadings, toy.scores)  # [N, J, P]
    square = own.square().sum(1) + by_source.square().sum(2) @ noise  # [N]
    total = toy.probs @ own  # [P]
    shared = torch.einsum("n,njp->jp", toy.probs, by_source).square().sum(1) @ noise
    return Estimate(total, (toy.probs @ square - total.square().sum()).item(), shared.item())


def group_sd(toy: Toy, credit: str, group: int = GROUP, **options: float | Tensor) -> float:
    """The sd of the mean estimate of a group of G responses, which share their values wherever their states are equal.

    Under RLOO two of them have covariance |∇p|²/(G−1)² instead, since each is in the other's baseline. Raises
    RlinoError as `estimate` does, and for a credit that decays.
    """
    one = estimate(toy, credit, **options | ({"group": group} if credit == "rloo" else {}))
    if credit == "decay":
        raise RlinoError("the variance of a group is not known here for a credit that decays")
    covariance = toy.gradient.square().sum().item() / (group - 1) ** 2 if credit == "rloo" else one.shared
    return math.sqrt((one.variance + (group - 1) * covariance) / group)


def states_of_group(toy: Toy, group: int = GROUP) -> float:
    """How many different states a group of G responses visits on average: those whose values it needs."""
    at = one_hot(toy.states, len(toy.values)) * toy.mask[..., None]  # [N, T, S]
    visits = toy.probs @ at.amax(1).to(F64)  # [S]
    return (1 - (1 - visits) ** group).sum().item()


# --- VinePPO, all continuations enumerated ---------------------------------------------------------------------------


def vine_by_enumeration(toy: Toy, k: int, own: bool = False) -> tuple[Estimate, float]:
    """VinePPO over all values that k continuations of each state can give, and all responses.

    Returns the estimate of one response, and the covariance of two responses that share their values, as VinePPO's
    do where their prefixes are equal. With `own` the response counts among the continuations of its states: then
    V̂ knows the step that it is a baseline for. Raises RlinoError where there are too many tables of values, or no k.
    """
    whole(1).check("k", k)
    if (k + 1) ** len(toy.values) > LIMIT:
        raise RlinoError(f"{k} continuations of {len(toy.values)} states make more than {LIMIT:,} tables: take fewer")
    total, square, shared = torch.zeros_like(toy.gradient), 0.0, 0.0
    for right in itertools.product(range(k + 1), repeat=len(toy.values)):
        counts = torch.tensor(right, dtype=F64)  # [S]
        ways = math.prod(math.comb(k, c) for c in right)
        chance = ways * (toy.values**counts * (1 - toy.values) ** (k - counts)).prod()
        v = (counts[toy.states] + toy.rewards[:, None]) / (k + 1) if own else counts[toy.states] / k  # [N, T]
        after = torch.where(toy.last, toy.rewards[:, None], v.roll(-1, 1))  # [N, T]
        terms = ((after - v)[..., None] * toy.scores).sum(1)  # [N, P]
        mean = toy.probs @ terms  # [P], given the values
        total = total + chance * mean
        square += (chance * (toy.probs @ terms.square().sum(1))).item()
        shared += (chance * mean.square().sum()).item()
    size = total.square().sum().item()
    return Estimate(total, square - size), shared - size


# --- tables ----------------------------------------------------------------------------------------------------------


def credit_table(toys: Mapping[str, Toy], ks: Sequence[int] = (1, 3, 9), rollout: float = 1.0) -> pd.DataFrame:
    """Every credit but a decaying one on every toy, a row each, of groups of 8 responses that share their values.

    Columns: toy, credit, K (continuations a state, NaN for other credits), p, mean steps, `sd` of a group's estimate
    (`group_sd`), `ratio` to RLOO's, `bias` |E ĝ − ∇p| over |∇p|, `cost` in sampled responses for one, equal states
    being valued once and a continuation being `rollout` of a response, and `ratio_at_equal_samples`, to the sd of RLOO
    with as many sampled responses: ratio·√cost. Raises RlinoError for settings out of range, and for a toy whose
    responses all earn the same.
    """
    list_of(whole(1), 1).check("ks", ks)
    number(0).check("rollout", rollout)
    rows = []
    for title, toy in toys.items():
        base = group_sd(toy, "rloo")
        if not base:
            raise RlinoError(f"the toy {title} has nothing to learn: all its responses earn the same")
        states = states_of_group(toy) / GROUP  # for each response
        names = [name for name in CREDITS if name != "decay"]
        for credit, k in [(name, k) for name in names for k in (ks if name == "vine" else (0,))]:
            options = {"k": k} if k else {}
            bias = ((estimate(toy, credit, **options).mean - toy.gradient).norm() / toy.gradient.norm()).item()
            sd, cost = group_sd(toy, credit, **options), 1 + rollout * k * states
            sizes = {"sd": sd, "ratio": sd / base, "bias": bias, "cost": cost}
            sizes["ratio_at_equal_samples"] = sd / base * cost**0.5
            rows.append({"toy": title, "credit": credit, "K": k or math.nan, "p": toy.p, "steps": toy.steps} | sizes)
    return pd.DataFrame(rows)
