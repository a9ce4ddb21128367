"""What a method's weights do to the length of responses, exactly, in a toy (chapter 08).

A response is a verdict, filler, and STOP. Its first token is + (right) or − (wrong); then the policy stops or goes on,
by one logit for texts that have a + and one for those that have none. Nothing is rewarded but the verdict, so whatever
happens to lengths is the method's doing. `LengthToy` changes one thing at a time.

All of it rests on one line. Tokens that weigh W_v(|o|), v the verdict of their response, make the expected update
E[W_v(|o|) ∇log π(o)] = ∇E[W_v(|o|)], W held fixed: it climbs W, as if W were the reward. So 1/|o| rewards short right
and long wrong responses, and weights that do not know the length climb the chance of a right response alone (2505.13697
on length; 2503.20783 §3.1). Expectations are sums over all batches, by `credit` and `token_weights`
(`expected_update`), and again from W alone, by the Bellman equation (`predicted_update`).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from rlino_lib.errors import RlinoError, chosen
from rlino_lib.exact.identities import Identity, drift_constant
from rlino_lib.exact.token_mdp import F64, TokenMDP, flat_gradient
from rlino_lib.methods import catalogue, loss, terms
from rlino_lib.methods.advantages import advantages
from rlino_lib.methods.credit import Graded, credit
from rlino_lib.methods.objective import Objective

METHODS = ("grpo_no_kl", "dr_grpo", "f_isft_pos", "f_isft_neg", "f_isft_posneg", "f_isft_posneg_unit")
NORMALISERS = {name: terms.NORMALISERS[name].label for name in ("per_response", "token_mean", "constant")}
PARAMETERS = ("verdict", "stop, right", "stop, wrong")
LIMIT = 50_000  # batches that are enumerated
_OFF = -1000.0  # the logit of a token that cannot be written: exp gives exactly 0


def variant(method: str, normaliser: str) -> Objective:
    """A method of the library under another normaliser. Raises RlinoError for unknown names.

    Example: `variant("dr_grpo", "per_response")`.
    """
    return catalogue.varied(method, {"normaliser": normaliser})


# --- the toy ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=32)
def _mdp(horizon: int, truncated_is_wrong: bool) -> TokenMDP:
    def reward(tokens: Tensor, mask: Tensor) -> Tensor:
        ended = ((tokens == 0) & mask).any(1)  # [N]
        return (tokens == 1).any(1) & (ended | (not truncated_is_wrong))  # [N]

    return TokenMDP(3, horizon, reward, names=("·", "+", "−"))


class StopPolicy(torch.nn.Module):
    """Three logits [3], in the order of PARAMETERS: a + at first; STOP once there is a +; STOP while there is none."""

    right: Tensor  # [S] bool

    def __init__(self, mdp: TokenMDP, chances: tuple[float, float, float], hit: float) -> None:
        super().__init__()
        self.register_buffer("right", (mdp.prefix == 1).any(1))  # [S], whether there is a + in the text
        self.logits = torch.nn.Parameter(torch.tensor(chances, dtype=F64).logit())
        self.hit = (math.log(hit) if hit else _OFF, math.log1p(-hit))  # log chances of a hit and of none

    def forward(self) -> Tensor:
        """Log-probs of STOP, + and − in every state, [S, 3]."""
        yes, no = (torch.nn.functional.logsigmoid(x) for x in (self.logits, -self.logits))  # [3] each
        off = torch.full((), _OFF, dtype=F64)
        first = torch.stack([off, yes[0], no[0]])  # [3]
        right = torch.stack([yes[1], off, no[1]])
        wrong = torch.stack([yes[2], no[2] + self.hit[0], no[2] + self.hit[1]])
        later = torch.where(self.right[1:, None], right, wrong)  # [S − 1, 3]
        return torch.cat([first[None], later])  # [S, 3]


@dataclass(frozen=True)
class LengthToy:
    """The toy at given chances. The defaults are the plain one; each of the last three is a change to it.

    p: the chance of a + at first. stop_right, stop_wrong: the chance of STOP at each later place of a text with and
    without a +. horizon: tokens at most; a response that does not stop is truncated there.
    truncated_is_wrong: a truncated response is wrong whatever its verdict. hit: the chance that a later token of a text
    without a + is one, so that going on is another attempt. coupling κ: how far the two stop logits share their
    parameters: for z = Aθ a step on θ moves z by AAᵀ∇, here [[1, κ], [κ, 1]]∇: 0 apart, 1 a policy that can't tell
    right from wrong.
    Raises RlinoError for chances that are not strictly between 0 and 1, and for other sizes.
    Example: `drift(LengthToy(p=0.3), variant("grpo_no_kl", "per_response")).table`.
    """

    p: float = 0.5
    stop_right: float = 0.25
    stop_wrong: float = 0.25
    horizon: int = 8
    truncated_is_wrong: bool = False
    hit: float = 0.0
    coupling: float = 0.0

    def __post_init__(self) -> None:
        fine = all(0 < c < 1 for c in self.chances) and 3 <= self.horizon <= 12
        if not (fine and 0 <= self.hit < 1 and 0 <= self.coupling <= 1):
            raise RlinoError("the toy needs 0 < p, stop < 1, 3 ≤ horizon ≤ 12, 0 ≤ hit < 1 and 0 ≤ coupling ≤ 1")

    @property
    def chances(self) -> tuple[float, float, float]:
        """The three chances whose logits are trained, in the order of PARAMETERS."""
        return self.p, self.stop_right, self.stop_wrong

    @cached_property
    def mdp(self) -> TokenMDP:
        """All responses, with their verdicts as rewards."""
        return _mdp(self.horizon, self.truncated_is_wrong)

    @cached_property
    def policy(self) -> StopPolicy:
        """The policy over `mdp`."""
        return StopPolicy(self.mdp, self.chances, self.hit)

    @property
    def kinds(self) -> tuple[Tensor, Tensor]:
        """The reward, 0 or 1, and the length of every response, [responses] each."""
        return self.mdp.right.long(), self.mdp.lengths

    @property
    def by_length(self) -> Tensor:
        """The chance of each reward and length, [2, H + 1]."""
        chances = torch.zeros(2, self.horizon + 1, dtype=F64)
        return chances.index_put_(self.kinds, self.mdp.probs(self.policy).detach(), accumulate=True)

    def step(self, gradient: Tensor) -> Tensor:
        """What a step on the shared parameters makes of the logits [..., 3], given the gradient by the logits."""
        return gradient @ torch.tensor([[1, 0, 0], [0, 1, self.coupling], [0, self.coupling, 1]], dtype=F64)

    def moved(self, by: Tensor) -> LengthToy:
        """The toy with `by` [3] added to its logits."""
        chances = (self.policy.logits.detach() + by).sigmoid().tolist()
        return replace(self, **dict(zip(("p", "stop_right", "stop_wrong"), chances, strict=True)))

    def means(self) -> dict[str, Tensor]:
        """Share and mean length, each with gradient, of right, wrong, wrong and not truncated, and all responses."""
        mdp = self.mdp
        probs = mdp.probs(self.policy)  # [N]
        ended = ((mdp.tokens == 0) & mdp.mask).any(1)  # [N]
        sides = {"right": mdp.right, "wrong": ~mdp.right, "wrong, not truncated": ~mdp.right & ended}
        sides["all"] = mdp.lengths > 0
        means = {}
        for name, side in sides.items():
            share = probs @ side.to(F64)
            means[name] = torch.stack([share, (probs * side) @ mdp.lengths.to(F64) / share])
        return means


# --- expected updates: by enumeration of all batches -----------------------------------------------------------------


@lru_cache(maxsize=64)
def _batches(
    cells: tuple[tuple[float, int], ...], objective: Objective, group_size: int, groups: int, cap: int
) -> tuple[Tensor, Tensor, Tensor]:
    """All batches of responses (reward, length), for any policy: members [M, N] as indices, how many orders each has
    [M], and the weights [M, N] of a token of each member."""
    size, c = group_size, len(cells)
    m = math.comb(c + size - 1, size) ** groups if min(size, groups) > 0 else 0
    if not 0 < m <= LIMIT:
        raise RlinoError(f"{c} kinds of response make {m:,} batches of {groups} × {size}: from 1 to {LIMIT:,}")
    group = torch.combinations(torch.arange(c), size, with_replacement=True)  # [groups that differ, G]
    counts = (group[:, :, None] == torch.arange(c)).sum(1)  # [groups that differ, C]
    factorial = torch.tensor([math.factorial(k) for k in range(size + 1)], dtype=F64)
    ways = math.factorial(size) / factorial[counts].prod(1)  # [groups that differ]
    which = torch.cartesian_prod(*[torch.arange(len(group))] * groups).view(-1, groups)  # [M, groups]
    members = group[which].flatten(1)  # [M, N]
    rewards, lengths = torch.tensor(cells, dtype=F64).unbind(1)  # [C] each
    return members, ways[which].prod(1), _weights(rewards[members], lengths[members], objective, size, cap)


def _weights(rewards: Tensor, lengths: Tensor, objective: Objective, group_size: int, cap: int) -> Tensor:
    """The weight of a token of each member of each batch, [M, N], as the library has it: `credit`, `token_weights`.

    A loss over several batches of as many rows and tokens is the mean of their losses, so such batches are weighed in
    one call. The policy is its own reference: KL is 0, and all tokens of a response weigh the same.
    """
    m, n = rewards.shape
    mask = torch.arange(cap) < lengths[:, :, None]  # [M, N, cap]
    at_once = 1 if objective.reward_to_go or "batch" in objective.advantage else m
    advantage = torch.zeros_like(rewards)  # [M, N]
    keep = torch.zeros_like(rewards, dtype=torch.bool)  # [M, N]
    for batch in torch.arange(m).split(at_once):
        flat = mask[batch].flatten(0, 1)  # [B·N, cap]
        zeros = torch.zeros(flat.shape, dtype=F64)
        graded = Graded(rewards[batch].flatten(), group_size, flat, zeros, zeros, cap)
        earned, kept = credit(objective, graded)
        advantage[batch] = (earned[:, 0] if earned.ndim == 2 else earned).view(-1, n)
        keep[batch] = kept.view(-1, n)
    sizes = torch.stack([keep.sum(1), (lengths * keep).sum(1).long()], 1)  # [M, 2], rows and tokens
    kind = sizes.unique(dim=0, return_inverse=True)[1]  # [M]
    weights = torch.zeros_like(rewards)  # [M, N]
    for k in kind[keep.any(1)].unique():
        rows = keep & (kind == k)[:, None]  # [M, N]
        weights[rows] = loss.token_weights(objective, advantage[rows], mask[rows], cap)[:, 0] * (kind == k).sum()
    return weights


def weights_by_enumeration(by_length: Tensor, objective: Objective, group_size: int, groups: int) -> Tensor:
    """N · E[the weight of a token of o_i | o_i], [2, H + 1] by reward and length of o_i, N the batch size.

    `by_length` [2, H + 1]: the chance of each reward, 0 or 1, and length. A sum over all batches of `groups` groups.
    Raises RlinoError where there are more than LIMIT of them.
    """
    cells = by_length.nonzero()  # [C, 2]
    chance = by_length[cells[:, 0], cells[:, 1]]  # [C]
    kinds = tuple(map(tuple, cells.tolist()))
    members, ways, weights = _batches(kinds, objective, group_size, groups, by_length.shape[1] - 1)
    share = (ways * chance[members].prod(1))[:, None] * weights  # [M, N]
    total = torch.zeros_like(chance).index_add_(0, members.flatten(), share.flatten())  # [C]
    return torch.zeros_like(by_length).index_put_((cells[:, 0], cells[:, 1]), total / chance)


def expected_weights(toy: LengthToy, objective: Objective, group_size: int = 4, groups: int = 1) -> Tensor:
    """`weights_by_enumeration` for every response of the toy's MDP, [responses]."""
    return weights_by_enumeration(toy.by_length, objective, group_size, groups)[toy.kinds]


def expected_update(toy: LengthToy, objective: Objective, group_size: int = 4, groups: int = 1) -> Tensor:
    """The expected step of the logits [3] per unit of learning rate, on samples of the policy itself."""
    return toy.step(toy.mdp.expected_update(toy.policy, expected_weights(toy, objective, group_size, groups)))


def sampled_updates(toy: LengthToy, objective: Objective, group_size: int = 4, groups: int = 1) -> list[Tensor]:
    """Every batch's own step: its chance [M] and the step of the logits [M, 3]. The mean is `expected_update`."""
    mdp = toy.mdp
    logprobs = mdp.logprobs(toy.policy).sum(1)  # [responses]
    possible = logprobs.exp() > 0
    logprobs = logprobs[possible]  # [R]
    eye = torch.eye(len(logprobs), dtype=F64)  # [R, R]
    (scores,) = torch.autograd.grad(logprobs, [toy.policy.logits], eye, is_grads_batched=True)  # [R, 3]
    pairs = zip(mdp.rewards[possible].tolist(), mdp.lengths[possible].tolist(), strict=True)
    members, ways, weights = _batches(tuple(pairs), objective, group_size, groups, toy.horizon)
    chance = ways * logprobs.detach().exp()[members].prod(1)  # [M]
    return [chance, toy.step((weights[:, :, None] * scores[members]).sum(1))]


# --- the same from W alone -------------------------------------------------------------------------------------------


def _check_plain(o: Objective) -> None:
    shaped = o.filter or o.shortest or o.overlong or o.length_cost
    if "batch" in o.advantage or o.reward_to_go or shaped or o.ratio == "trajectory":
        raise RlinoError(f"{o.name}: its weights are not an advantage by the group's verdicts times a normaliser")


def predicted_weights(toy: LengthToy, objective: Objective, group_size: int = 4, groups: int = 1) -> Tensor:
    """`expected_weights` without a batch: N · W_v(|o|), [responses], for advantages from verdicts of the group alone.

    Raises RlinoError for what has no such form.
    """
    _check_plain(objective)
    return weights_by_length(toy.by_length, objective, group_size, groups)[toy.kinds]


def weights_by_length(by_length: Tensor, objective: Objective, group_size: int, groups: int) -> Tensor:
    """N · W_v(n), the expected weight of a token of a response of n tokens, [2, H + 1], of binary rewards 0 and 1.

    `by_length` [2, H + 1]: the chance of each reward and length. With j of the G − 1 others right, P(j) binomial and R
    the tokens of all others: W = Σ_j P(j) Â_v(j) E[1/(|o| + R)] for the token mean, where R is a sum of independent
    lengths and its distribution a product of polynomials; 1/(N|o|) and 1/(N·L) in place of the last factor for the
    other normalisers.
    """
    g, n, cap = group_size, group_size * groups, by_length.shape[1] - 1
    own = torch.arange(cap + 1, dtype=F64).clamp_min(1)  # [H + 1]; there is no length 0
    given = by_length / by_length.sum(1, keepdim=True)  # [2, H + 1]
    chance = by_length[1].sum()
    weights = torch.zeros_like(by_length)
    for j in range(g):
        odds = math.comb(g - 1, j) * chance**j * (1 - chance) ** (g - 1 - j)
        others = [(given[1], j), (given[0], g - 1 - j), (by_length.sum(0), n - g)]
        share = _expected_share(objective.normaliser, own, others, n)  # [H + 1]
        for side in (0, 1):
            group = (torch.arange(g) < j + side).to(F64)  # [G], right first
            weights[side] += odds * advantages(group, g, objective.advantage)[side - 1] * share * n
    return weights


def _expected_share(normaliser: str, own: Tensor, others: list[tuple[Tensor, int]], n: int) -> Tensor:
    """What an advantage is multiplied by for each length `own` [H + 1], in expectation over the others' lengths.

    `others`: chances by length [H + 1], and how many responses have them; n responses in all.
    """
    cap = len(own) - 1
    if normaliser == "per_response":
        return 1 / (n * own)
    if not terms.NORMALISERS[normaliser].knows_length:
        return own**0 / (n * (cap if normaliser == "constant" else 1))
    size = n * cap + 1  # most tokens of all others, and none
    spectrum = torch.ones(size // 2 + 1, dtype=torch.complex128)
    for chances, count in others:
        spectrum = spectrum * torch.fft.rfft(chances, size) ** count
    total = torch.fft.irfft(spectrum, size)  # [size], the chances of R = 0, 1, …
    return (1 / (own[:, None] + torch.arange(size))) @ total


def predicted_update(toy: LengthToy, objective: Objective, group_size: int = 4, groups: int = 1) -> Tensor:
    """`expected_update` as the gradient of E[W]: an MDP whose reward is W, by its Bellman equation. [3]."""
    climbed = TokenMDP(3, toy.horizon, predicted_weights(toy, objective, group_size, groups))
    return toy.step(climbed.gradient(toy.policy))


def length_identities(toy: LengthToy, group_size: int = 3) -> list[Identity]:
    """Both computations for every method and normaliser; under the constant one also c ∇P/L, c as `drift_constant`."""
    p = toy.mdp.J(toy.policy).item()
    identities = []
    for method, (normaliser, text) in itertools.product(METHODS, NORMALISERS.items()):
        o = variant(method, normaliser)
        update = expected_update(toy, o, group_size)  # [3]
        sides = {"∇E[W]": predicted_update(toy, o, group_size)}
        if normaliser == "constant":
            c = drift_constant(o.advantage, group_size, p)
            sides["c ∇P / L"] = toy.step(c / toy.horizon * toy.mdp.gradient(toy.policy))
        for name, side in sides.items():
            identities.append(Identity(f"{method}, {text}: all batches = {name}", update, side))
    return identities


# --- drifts and signs ------------------------------------------------------------------------------------------------


class Drift(NamedTuple):
    """The expected step [3] per unit of learning rate, what it does to the chance of a right response, and to lengths.

    table: rows right, wrong, wrong and not truncated, all; columns share, length, drift =
    dE[length | row]/d(learning rate), its parts by parameter, which add up to it, and per_point: tokens for each point
    of success gained.
    """

    update: Tensor
    gain: float
    table: pd.DataFrame

    @property
    def shifts(self) -> dict[str, float]:
        """Drifts under a step of length 1 in the logits: how large the steps are is a matter of the learning rate."""
        drifts = (self.table["drift"] / self.length).items()
        return {str(name): 0.0 if abs(d) < 1e-9 else float(d) for name, d in drifts}

    @property
    def length(self) -> float:
        """The length of the step in the logits, 1 where it is 0."""
        return self.update.norm().item() or 1.0


def drift(toy: LengthToy, objective: Objective, group_size: int = 4, groups: int = 1) -> Drift:
    """How lengths move under an infinitely small expected step; NaN for a side that has no responses."""
    return drift_of(toy, expected_update(toy, objective, group_size, groups))


def drift_of(toy: LengthToy, update: Tensor) -> Drift:
    """The drift under a given step of the logits [3]."""
    gain = (flat_gradient(toy.mdp.J(toy.policy), toy.policy) @ update).item()
    heads = ["share", "length", "drift", *PARAMETERS, "per_point"]
    rows = {}
    for name, (share, length) in toy.means().items():
        parts = (flat_gradient(length, toy.policy) * update).tolist()
        rows[name] = [share.item(), length.item(), sum(parts), *parts, sum(parts) / (100 * gain or math.nan)]
    return Drift(update, gain, pd.DataFrame.from_dict(rows, "index", columns=heads))


def signs(toy: LengthToy, objective: Objective) -> tuple[int, int]:
    """The signs of the expected steps of the stop logits (right, wrong) at κ = 0, derived; + is towards STOP, shorter.

    A stop logit moves by Σ_s d(s) q(1−q) (W where the response stops at s − E[W] where it goes on), so:
    *Plain.* The verdict stands, and W_v is compared with W_v of later ends: 0 where W does not know the length. Where
    |W| falls with |o|: + for W⁺ > 0, − for W⁻ < 0. The token mean's E[1/(|o| + R)] falls, however mixed the others are.
    *Cap.* A right text that goes on may be truncated, so it loses W⁺ or gets W⁻: +, under every normaliser. Wrong: as
    plain.
    *Hits.* A wrong text that goes on may become right: −, under every normaliser. One with a + stays right: as plain.
    *Share.* p scales W⁺ and W⁻ by chances, and turns no sign. Raises RlinoError as `predicted_weights` does.
    """
    _check_plain(objective)
    up, down = advantages(torch.tensor([1.0, 0.0], dtype=F64), 2, objective.advantage).tolist()
    falls = terms.NORMALISERS[objective.normaliser].knows_length
    return int(toy.truncated_is_wrong or (falls and up > 0)), -int(toy.hit > 0 or (falls and down < 0))


def tipping_share(coupling: float) -> float:
    """The share p below which unit weights under 1/|o| lengthen even right responses, at equal stops: κ/(1 + κ).

    With e = dE[1/|o|]/dz > 0 the stop logits are pushed by p e and −(1−p) e, so the right one steps by
    (p − κ(1−p)) e. Weights that sum to 0 in every group push by ±C e, and step by ±(1−κ) C e: no tipping, 0 at κ = 1.
    """
    return coupling / (1 + coupling)


def cap_selection(toy: LengthToy) -> float:
    """How wrong responses seem to grow under a cap, a flat W and κ = 0, where no text with a − changes: its sign.

    P = p(1−s), s = (1−q)^(H−1) the chance of truncation. A step c∇P is c p(1−p)(1−s) of the verdict and c p s (H−1) q
    of the stop. Wrong responses are truncated ones, the longest, at odds p s/(1−p) to the others. The logarithm of
    these odds gains the first less (H−1) q times the second, c p [(1−p)(1−s) − s (H−1)² q²]: selection against less
    truncation.
    """
    steps = toy.horizon - 1
    s = (1 - toy.stop_right) ** steps
    return (1 - toy.p) * (1 - s) - s * (steps * toy.stop_right) ** 2


# --- choices by name -------------------------------------------------------------------------------------------------

CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("none", {}),
    "cap": ("a truncated response is wrong", {"truncated_is_wrong": True}),
    "hits": ("later tokens hit with 0.15", {"hit": 0.15}),
    "mixed": ("wrong ones are longer", {"stop_right": 0.4, "stop_wrong": 0.15}),
}
GROUP = 4  # responses in a group


def explore_length(
    method: str = "grpo_no_kl", normaliser: str = "per_response", change: str = "plain",
    p: float = 0.5, cap: int = 8, coupling: float = 0.0,
) -> tuple[LengthToy, Drift]:  # fmt: skip
    """A toy and its drift by the names of the choices. Raises RlinoError for unknown choices."""
    chosen(method, METHODS, "method")
    chosen(normaliser, NORMALISERS, "normaliser")
    toy = LengthToy(p=p, horizon=cap, coupling=coupling, **CHANGES[chosen(change, CHANGES, "change")][1])
    return toy, drift(toy, variant(method, normaliser), GROUP)
