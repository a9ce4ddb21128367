"""The equalities behind the book, each computed twice (chapters 01 and 06).

An `Identity` has two sides that share no code, and the gap between them. A near miss (`equal` False) is a claim as
well: that they differ. Everything is exact, in float64: sums over all responses or groups, or the gradient of a batch.
"""

import copy
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import Module

from rlino_lib.errors import RlinoError
from rlino_lib.exact.token_mdp import F64, LIMIT, TokenMDP, flat_gradient
from rlino_lib.methods.advantages import advantages
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.methods.loss import Batch, policy_loss, token_weights
from rlino_lib.methods.objective import Objective
from rlino_lib.methods.preference import PREFERENCES, Preferred, response_weights
from rlino_lib.methods.terms import ESTIMATORS
from rlino_lib.policy.logprobs import response_logprobs
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.tasks import Grade
from rlino_lib.training import sft

Gradient = dict[str, Tensor]  # by parameter


@dataclass(frozen=True, repr=False)
class Identity:
    """Two sides, each a tensor or several by name (a gradient by parameter), claimed equal or claimed different.

    Example: `Identity("sum", torch.ones(3).sum(), torch.tensor(3.0)).holds` is True.
    """

    name: str
    left: Tensor | Gradient
    right: Tensor | Gradient
    equal: bool = True
    scale: float = 0.0  # what a difference is measured against where both sides should vanish

    @property
    def gaps(self) -> dict[str, float]:
        """‖left − right‖ over the norm of the larger side, part by part; 0 where both are 0."""
        left, right = ({"": side} if isinstance(side, Tensor) else side for side in (self.left, self.right))
        gaps = {}
        for part in left.keys() | right.keys():
            size = max(self.scale, left[part].norm().item(), right[part].norm().item())
            gaps[part] = (left[part] - right[part]).norm().item() / (size or 1)
        return gaps

    @property
    def gap(self) -> float:
        """The largest of the gaps."""
        return torch.tensor([*self.gaps.values()], dtype=F64).max().item()  # unlike max, keeps NaN

    @property
    def holds(self) -> bool:
        """Whether the claim is true: a gap below 1e-10, or, for a near miss, above 1e-3."""
        return self.gap < 1e-10 if self.equal else self.gap > 1e-3

    def __repr__(self) -> str:
        return f"{self.name}: gap {self.gap:.1e} ({'=' if self.equal else '≠'} {'holds' if self.holds else 'FAILS'})"


def table(identities: Iterable[Identity]) -> pd.DataFrame:
    """One row per identity: name, what is claimed, gap, and whether the claim is true."""
    rows = [(i.name, "=" if i.equal else "≠", i.gap, i.holds) for i in identities]
    return pd.DataFrame(rows, columns=["identity", "claim", "gap", "holds"])


def float64_copy(model: Module) -> Module:
    """A copy that is float64 throughout: the RMS norms of transformers round to float32 whatever the dtype."""
    model = copy.deepcopy(model).double()
    for norm in (m for m in model.modules() if hasattr(m, "variance_epsilon")):
        norm.forward = lambda x, n=norm: torch.nn.functional.rms_norm(x, n.weight.shape, n.weight, n.variance_epsilon)
    return model


def gradients(model, loss: Tensor) -> Gradient:
    """The gradient of a loss by every parameter that is trained, by name."""
    names, params = zip(*((n, p) for n, p in model.named_parameters() if p.requires_grad), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, params, materialize_grads=True), strict=True))


def policy_side(model, rollouts: Rollouts, objective: Objective, advantage: Tensor, old=None, ref=None) -> Gradient:
    """The gradient of `policy_loss` on rollouts with advantages [N]; old and ref [N, T] as it takes them."""
    new, mask = response_logprobs(model, rollouts, torch.arange(len(rollouts.ids)))  # [N, T]
    if objective.beta and ref is None:
        ref = new.detach()  # the first step of a run: the reference is the policy
    return gradients(model, policy_loss(objective, Batch(new, advantage, mask, old, ref)).loss)


def sft_side(model, rollouts: Rollouts, weights: Tensor) -> Gradient:
    """The gradient of `sft_loss` with signed weights [N] on the rollouts; rows of weight 0 are left out."""
    rows = weights.nonzero()[:, 0].tolist()
    if not rows:
        raise RlinoError("no example has a weight: every group is all right or all wrong")
    examples = [sft.example_of(rollouts, row) for row in rows]
    inputs, labels, _ = sft.collate(examples, 0)  # the weights of collate are float32
    return gradients(model, sft.sft_loss(model, inputs, labels, weights[rows]) / len(rollouts.ids))


def grpo_is_weighted_sft(model, rollouts: Rollouts) -> list[Identity]:
    """At one update per batch (ρ = 1), parameter by parameter. Take the model through `float64_copy` first."""
    g = rollouts.group_size
    right = rollouts.correct.to(F64)  # [N]
    grpo = advantages(rollouts.rewards.to(F64), g)  # [N]
    exact = advantages(right, g, eps=0.0)  # [N]
    signed = advantages(right, g, "group_balanced")  # [N]
    balanced = torch.zeros_like(right)  # [N]
    for example in sft.build_dataset(rollouts):
        balanced[example.row] = example.sign * example.weight
    p = right.view(-1, g).mean(1).repeat_interleave(g)  # [N]
    prompt_weight = ((g - 1) * g) ** 0.5 * (p * (1 - p)).sqrt()  # [N]: G·√(p(1−p)), and √((G−1)/G) for the sample std
    by_advantage = sft_side(model, rollouts, grpo)
    rows = [
        ("GRPO = SFT weighted by Â", "grpo_no_kl", grpo, by_advantage),
        ("GRPO with KL to itself = SFT weighted by Â", "grpo", grpo, by_advantage),
        ("GRPO = F-ISFT⁺⁻ × √(p(1−p))", "grpo_no_kl", exact, sft_side(model, rollouts, prompt_weight * balanced)),
        ("Objective F-ISFT⁺⁻ = its data set", "f_isft_posneg", signed, sft_side(model, rollouts, balanced)),
    ]
    return [Identity(name, policy_side(model, rollouts, OBJECTIVES[o], a), side) for name, o, a, side in rows]


def preferences_are_weighted_sft(
    model, rollouts: Rollouts, rows: Preferred, old: Tensor, beta: float = 0.1
) -> list[Identity]:
    """Losses of preferences are supervised learning, each response weighed by how far the policy has moved on it.

    old [N, T]: log-probs of the policy that wrote the batch. Take the model through `float64_copy` first.
    """

    def log_ratios() -> Tensor:
        new, mask = response_logprobs(model, rollouts, torch.arange(len(rollouts.ids)))  # [N, T]
        return ((new - old) * mask).sum(1)  # [N]

    identities = []
    scale = rollouts.lengths * len(rollouts.ids)  # [N]; a data set divides by both
    for name, loss in PREFERENCES.items():
        weights = response_weights(name, log_ratios(), rollouts.lengths, rows, beta)  # [N]
        literal = gradients(model, loss.of(log_ratios(), rollouts.lengths, rows, beta, 0.0))
        identities.append(Identity(f"{name} = weighted SFT", literal, sft_side(model, rollouts, scale * weights)))
    return identities


def first_step_of_dpo(model, rollouts: Rollouts, rows: Preferred, beta: float = 0.1) -> Identity:
    """DPO where the policy is still the one that wrote the batch: unit F-ISFT⁺⁻ on the pairs, without 1/|o|."""
    signs = torch.zeros(len(rollouts.ids), dtype=F64)  # [N]
    signs[rows.chosen] += 1
    signs[rows.rejected] -= 1
    unit = replace(OBJECTIVES["f_isft_posneg_unit"], normaliser="token_sum")
    share = beta / 2 * len(rollouts.ids) / len(rows.chosen)
    new, mask = response_logprobs(model, rollouts, torch.arange(len(rollouts.ids)))  # [N, T]
    ratios = ((new - new.detach()) * mask).sum(1)  # [N]
    dpo = gradients(model, PREFERENCES["dpo"].of(ratios, rollouts.lengths, rows, beta, 0.0))
    return Identity("DPO's first step = unit F-ISFT⁺⁻ × β/2", dpo, policy_side(model, rollouts, unit, share * signs))


class TokenLM(Module):
    """A policy over a token MDP in the shape of a causal language model, behind a prompt of one token."""

    device = torch.device("cpu")

    def __init__(self, mdp: TokenMDP, policy: Module) -> None:
        super().__init__()
        self.mdp, self.policy = mdp, policy

    def forward(self, input_ids: Tensor, logits_to_keep: int = 0, **_) -> SimpleNamespace:
        ended = self.mdp.n_states
        table = torch.cat([self.policy(), torch.zeros(1, self.mdp.vocab, dtype=F64)])  # [S + 1, V]
        after = torch.cat([self.mdp.successors, torch.full((1, self.mdp.vocab), ended)]).clamp_max(ended)  # [S + 1, V]
        states = [torch.zeros(len(input_ids), dtype=torch.long)]
        for token in input_ids[:, 1:].unbind(1):
            states.append(after[states[-1], token])
        return SimpleNamespace(logits=table[torch.stack(states, 1)][:, -logits_to_keep:])  # [B, L', V]


def sample_mdp(mdp: TokenMDP, policy: Module, prompts: int = 4, group_size: int = 4, seed: int = 0) -> Rollouts:
    """Rollouts of a token MDP, for whatever takes a language model's; `TokenLM` is the model they belong to."""
    rng = torch.Generator().manual_seed(seed)
    probs = mdp.probs(policy).detach()  # [responses]
    rows = torch.multinomial(probs, prompts * group_size, replacement=True, generator=rng)  # [N]
    width = int(mdp.lengths[rows].max())
    ids, mask = mdp.tokens[rows, :width], mdp.mask[rows, :width]  # [N, T]
    old = mdp.logprobs(policy).detach()[rows, :width]  # [N, T]
    ended = ((ids == 0) & mask).any(1)  # [N]
    prompt = torch.zeros(prompts, 1).long()  # [P, 1]
    texts = [mdp.text(row[m]) for row, m in zip(ids, mask, strict=True)]
    grades = [Grade(reward, reward > 0.5, True, None, "") for reward in mdp.rewards[rows].tolist()]
    return Rollouts([""] * prompts, prompt, prompt == 0, ids, mask, old, 0 * old, ~ended, texts, group_size, [], grades)


def curve(rule: str, group_size: int, **options: float) -> pd.DataFrame:
    """Total weight on right and on wrong responses of a group, Σ Â_i / G, for every number k right of G; from the code.

    On binary rewards the curve determines the rule. Columns: k, p = k/G, right, wrong. Raises RlinoError for a rule
    that looks past its group. Example: `curve("leave_one_out", 8)`.
    """
    groups = (torch.arange(group_size) < torch.arange(group_size + 1)[:, None]).to(F64)  # [G + 1, G], the first k right
    at_once = right_wrong_fit(groups.flatten(), group_size, rule, **options)
    alone = pd.concat([right_wrong_fit(group, group_size, rule, **options) for group in groups], ignore_index=True)
    if not np.allclose(at_once, alone, rtol=1e-5, atol=1e-12):
        raise RlinoError(f"{rule} looks at the whole batch: it has no curve of its own")
    return at_once.assign(p=at_once["k"] / group_size)[["k", "p", "right", "wrong"]]


_BOTH = torch.tensor([[1.0], [-1.0]], dtype=F64)  # [2, 1], right and wrong weigh the same
# The same by formula: p [G + 1] and G to weights [2, G + 1]. `zscore` is with the sample std and without eps.
CURVES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "zscore": lambda p, g: _BOTH * ((g - 1) / g) ** 0.5 * (p * (1 - p)).sqrt(),
    "mean": lambda p, g: _BOTH * p * (1 - p),
    "leave_one_out": lambda p, g: _BOTH * p * (1 - p) * g / (g - 1),
    "group_balanced": lambda p, g: _BOTH * ((p > 0) & (p < 1)) / g,
    "positive": lambda p, g: torch.stack([p, 0 * p]),
    "negative": lambda p, g: torch.stack([0 * p, p - 1]),
    "signed": lambda p, g: torch.stack([p, p - 1]),
}


def curves(group_size: int = 8, rules: Sequence[str] = tuple(CURVES)) -> pd.DataFrame:
    """All curves in long form, for one figure: rule, k, p, side, weight (of the code), formula."""
    frames = []
    for rule in rules:
        weights = curve(rule, group_size, **({"eps": 0.0} if rule == "zscore" else {}))
        formulas = CURVES[rule](torch.tensor(weights["p"]), group_size)  # [2, G + 1]
        for side, formula in zip(("right", "wrong"), formulas.numpy(), strict=True):
            frames.append(weights[["k", "p"]].assign(rule=rule, side=side, weight=weights[side], formula=formula))
    return pd.concat(frames, ignore_index=True)


def curve_identities(group_size: int = 8) -> list[Identity]:
    """Every curve against its formula, and the advantages behind GRPO's."""
    both = curves(group_size).groupby("rule", sort=False)[["weight", "formula"]]
    columns = ((rule, torch.tensor(sides.to_numpy())) for rule, sides in both)
    of_rules = [Identity(f"curve of {rule}", sides[:, 0], sides[:, 1]) for rule, sides in columns]
    g = group_size
    k = torch.arange(1, g, dtype=F64)  # [G − 1], mixed groups
    p = k / g
    std = (k * (g - k) / (g * (g - 1))).sqrt()  # the sample std
    groups = (torch.arange(g) < k[:, None]).to(F64).flatten()  # [(G − 1)·G], right ones first
    ends = {eps: advantages(groups, g, eps=eps).view(-1, g)[:, [0, -1]] for eps in (0.0, 1e-4)}  # Â⁺ and Â⁻, [G − 1, 2]
    population = ((g - 1) / g) ** 0.5 * torch.stack([((1 - p) / p).sqrt(), -(p / (1 - p)).sqrt()], 1)
    with_eps = torch.stack([1 - p, -p], 1) / (std + 1e-4)[:, None]
    return [
        *of_rules,
        Identity("Â⁺ = √((1−p)/p), Â⁻ = −√(p/(1−p)), both times √((G−1)/G)", ends[0.0], population),
        Identity("TRL: Â⁺ = (1−p)/(std + 1e-4), Â⁻ = −p/(std + 1e-4)", ends[1e-4], with_eps),
    ]


def right_wrong_fit(rewards: Tensor, group_size: int, rule: str = "zscore", **options: float) -> pd.DataFrame:
    """How far advantages are one number for right (reward above 0.5) and one for wrong responses, group by group.

    rewards [N]. Columns: k right; right, wrong, size: Σ Â_i / G of each side, and Σ |Â_i| / G; residual: the share of
    Σ Â_i² that two numbers leave: 0 on binary rewards, 1 where an all-wrong group still pushes.
    """
    weights = advantages(rewards.to(F64), group_size, rule, **options).view(-1, group_size)  # [P, G]
    right = (rewards > 0.5).view(-1, group_size).to(F64)  # [P, G]
    fit = torch.zeros_like(weights)  # [P, G]
    for side in (right, 1 - right):
        fit += side * (weights * side).sum(1, keepdim=True) / side.sum(1, keepdim=True).clamp_min(1)
    total = weights.square().sum(1)  # [P]
    residual = torch.where(total > 0, (weights - fit).square().sum(1) / total, 0)  # [P]
    sums = {"right": (weights * right).mean(1), "wrong": (weights * (1 - right)).mean(1), "size": weights.abs().mean(1)}
    return pd.DataFrame({"k": right.sum(1).long(), **sums, "residual": residual})


def what_survives(group_size: int = 4, rules: Sequence[str] = tuple(CURVES)) -> pd.DataFrame:
    """By reward scheme and rule, over every possible group: is a rule still a curve over k?

    residual: the worst of `right_wrong_fit` over mixed groups; all_wrong_push: the share of all-wrong groups that push.
    """
    schemes = {"binary": (0.0, 1.0), "ternary": (0.0, 0.1, 1.0), "dense": (0.0, 0.25, 0.5, 0.75, 1.0)}
    rows = []
    for (scheme, levels), rule in itertools.product(schemes.items(), rules):
        groups = torch.tensor(list(itertools.product(levels, repeat=group_size)), dtype=F64)  # [all groups, G]
        fit = right_wrong_fit(groups.flatten(), group_size, rule)
        pushes = (fit["size"] > 1e-9)[fit["k"] == 0].mean()
        rows.append((scheme, rule, fit["residual"][fit["k"].between(1, group_size - 1)].max(), pushes))
    return pd.DataFrame(rows, columns=["rewards", "rule", "residual", "all_wrong_push"])


def drift_constant(rule: str, group_size: int, p: float, **options: float) -> float:
    """c in E[ĝ] = c·∇p: binary reward, chance p of a right response, token sums, one update per batch.

    From the rule's curve: a right response has E[∇log π] = ∇p/p, a wrong one −∇p/(1−p).
    Example: `drift_constant("leave_one_out", 8, p=0.3)` is 1.
    """
    weights = curve(rule, group_size, **options)
    k = torch.tensor(weights["k"].to_numpy(), dtype=F64)
    chance = torch.distributions.Binomial(group_size, torch.tensor(p, dtype=F64)).log_prob(k).exp()  # [G + 1]
    return float(chance.numpy() @ (weights["right"] / p - weights["wrong"] / (1 - p)))


def expected_update(mdp: TokenMDP, policy: Module, rule: str, group_size: int, **options: float) -> Tensor:
    """E[1/G Σ_i Â_i ∇log π(o_i)] over ALL groups of responses, flat [parameters]; RlinoError past a million groups."""
    g = group_size
    n = mdp.n_responses
    if n**g > LIMIT:
        raise RlinoError(f"{n} responses make {n**g:,} groups of {g}, more than {LIMIT:,}: take fewer")
    groups = torch.cartesian_prod(*[torch.arange(n)] * g).view(-1, g)  # [N^G, G]
    advantage = advantages(mdp.rewards[groups].flatten(), g, rule, **options).view(-1, g)  # [N^G, G]
    chance = mdp.probs(policy).detach()[groups].prod(1, keepdim=True) / g  # [N^G, 1]
    weights = torch.zeros(n, dtype=F64).index_add_(0, groups.flatten(), (chance * advantage).flatten())  # [N]
    return flat_gradient(weights @ mdp.logprobs(policy).sum(1), policy)


def drift_identities(mdp: TokenMDP, policy: Module, group_size: int = 3) -> list[Identity]:
    """E[ĝ] over all groups against c·∇p, for every rule with a curve. The rewards of the MDP must be binary."""
    p = mdp.J(policy).item()
    gradient = mdp.gradient(policy)
    identities = []
    for rule in CURVES:
        update = expected_update(mdp, policy, rule, group_size)
        identities.append(Identity(f"{rule}: E[ĝ] = c ∇p", update, drift_constant(rule, group_size, p) * gradient))
    return identities


def kl_identities(mdp: TokenMDP, policy: Module, ref: Module) -> list[Identity]:
    """What k1, k2 and k3 estimate, and what their gradients do with the samples held fixed.

    As values k1 and k3 agree, in token sums and in whole sequences. As gradients, sequences give that of the KL between
    responses; token sums give that of each state's KL with the visits held fixed, which is another vector.
    """
    logp, logr = mdp.token_logprobs(policy), mdp.token_logprobs(ref).detach()  # [S, V]
    gaps = mdp.logprobs(ref).detach() - mdp.logprobs(policy)  # [N, H], log ref − log π
    seq = mdp.logprobs(policy).sum(1)  # [N]
    seq_ref = mdp.logprobs(ref).detach().sum(1)  # [N]
    visits = mdp.values(policy).visits[:, None]  # [S, 1]
    forward, backward, here = "KL(π‖ref)", "KL(ref‖π)", " at each state"
    kl = {
        forward: (seq.exp() * (seq - seq_ref)).sum(),
        backward: (seq_ref.exp() * (seq_ref - seq)).sum(),
        forward + here: (visits * logp.exp() * (logp - logr)).sum(),
        backward + here: (visits * logr.exp() * (logr - logp)).sum(),
    }
    slope = {name: flat_gradient(x, policy) for name, x in kl.items()}
    slope["0"] = 0 * slope[forward]
    size = slope[forward].norm().item()
    identities = []
    for (k, (f, _)), level in itertools.product(ESTIMATORS.items(), ("token sums", "sequences")):
        whole = level == "sequences"
        estimate = seq.detach().exp() @ (f(gaps.sum(1)) if whole else f(gaps).sum(1))  # []
        value = Identity(f"{level}: E[{k}], {forward}", estimate.detach(), kl[forward + here].detach(), k != "k2")
        identities.append(value)
        grad = flat_gradient(estimate, policy)
        claims = {"k1": {"0": True}, "k2": {forward: whole, forward + here: not whole}}
        claims["k3"] = {backward: whole, backward + here: not whole, forward: False}
        for name, equal in claims[k].items():
            text = f"{level}: E[∇{k}], ∇{name}".replace("∇0", "0")
            identities.append(Identity(text, grad, slope[name], equal, size))
    return identities


def nft_loss(logprobs: Tensor, old: Tensor, mask: Tensor, right: Tensor, group_size: int, omega: Callable) -> Tensor:
    """NFT's loss (2505.18116): log π⁺ on right responses and log π⁻ on wrong ones, π⁻ = (π_old − r π⁺)/(1−r).

    logprobs, old, mask [N, T]; right [N] bool; r the share right of a group; `omega` weighs a group by r. Groups that
    are all right or all wrong are left out.
    """
    r = right.to(F64).view(-1, group_size).mean(1).repeat_interleave(group_size)[:, None]  # [N, 1]
    mixed = (r > 0) & (r < 1)
    r = torch.where(mixed, r, 0.5)
    ratio = (logprobs - old).exp()  # [N, T]
    negative = ((1 - r * ratio) / (1 - r)).clamp_min(1e-8)  # [N, T], π⁻/π_old; nothing keeps it above 0
    gain = torch.where(right[:, None], ratio.log(), negative.log())  # [N, T]
    weight = mixed * omega(r) * mask / mask.sum(1, keepdim=True)  # [N, T]
    return -(weight * gain).sum() / len(mask)


def nft_identities(mask: Tensor, right: Tensor, group_size: int) -> list[Identity]:
    """NFT's weight of every token on-policy, for three ω, against GRPO's (population std) and Dr. GRPO's."""
    g = group_size
    rewards = right.to(F64)  # [N]
    zscore = advantages(rewards, g, eps=0.0) * (g / (g - 1)) ** 0.5  # [N]
    mean = advantages(rewards, g, "mean")  # [N]
    cases = {
        "√((1−r)/r), GRPO": (lambda r: ((1 - r) / r).sqrt(), zscore),
        "1 − r, Dr. GRPO": (lambda r: 1 - r, mean),
        "(1−r)/r, GRPO": (lambda r: (1 - r) / r, zscore),
    }
    logprobs = torch.full(mask.shape, -1.0, dtype=F64, requires_grad=True)  # [N, T]
    identities = []
    for name, (omega, advantage) in cases.items():
        (grad,) = torch.autograd.grad(nft_loss(logprobs, logprobs.detach(), mask, right, g, omega), logprobs)
        weights = token_weights(OBJECTIVES["grpo_no_kl"], advantage, mask)  # [N, T]
        identities.append(Identity(f"NFT with ω = {name}", -grad, weights, equal=not name.startswith("(")))
    return identities


def amplification(ref: Tensor, right: Tensor, beta: float = 1.0, eps: float = 1e-4, steps: int = 20) -> Identity:
    """The chance of success under GRPO to its KL-regularised optimum, again and again (2503.06639). ref, right [N].

    Left: the recurrence in p. Right: the policy over responses, π_n ∝ ref · exp(Â/β), Â standardised under π_{n−1}.
    """
    reward = right.to(F64)  # [N]
    p_ref = p = ref @ reward
    policy = ref
    recurrence = []
    exact = []
    for _ in range(steps):
        p = 1 / (1 + (1 - p_ref) / p_ref * torch.exp(-1 / (beta * (p * (1 - p) + eps).sqrt())))
        gap = reward - policy @ reward  # [N]
        policy = (ref.log() + gap / (policy @ gap.square() + eps).sqrt() / beta).softmax(0)  # [N]
        recurrence.append(p)
        exact.append(policy @ reward)
    name = "success amplification: recurrence = optimum over responses"
    return Identity(name, torch.stack(recurrence), torch.stack(exact))
