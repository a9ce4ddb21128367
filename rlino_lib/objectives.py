"""Every method as one update, ∇J = Σ w_it ∇log π(o_it | ·), with its own rule for the weights w (chapters 04 and 06).

An `Objective` is a row of named choices: advantage × ratio × normaliser × KL. `policy_loss` is the only loss; what it
does at ratio 1 is `token_weights`, computed from it, so that the weight a reader sees is the weight that was used.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rlino_lib.errors import RlinoError

# --- advantages ------------------------------------------------------------------------------------------------------


def advantages(rewards: torch.Tensor, group_size: int, rule: str = "zscore", **options: float) -> torch.Tensor:
    """Advantages [N] of rewards [N] whose groups of `group_size` rows stand together; the dtype is kept.

    Rules: `zscore` (r − mean)/(std + eps) with the sample std and eps=1e-4, as TRL has it (GRPO, 2402.03300 eq. 3);
    `mean` r − mean (Dr. GRPO); `leave_one_out` (RLOO); and the F-ISFT family on rewards above `threshold`=0.5:
    `positive` 1 on right responses, `negative` −1 on wrong ones, `signed` ±1, `group_balanced` 1/k on the k right and
    −1/(G−k) on the wrong ones of mixed groups, 0 elsewhere.
    Raises RlinoError for an unknown rule or rewards that do not fill whole groups.
    """
    if rule not in ADVANTAGES:
        raise RlinoError(f"unknown advantage rule {rule!r}: one of {', '.join(ADVANTAGES)}")
    if rewards.ndim != 1 or group_size < 1 or len(rewards) % group_size:
        raise RlinoError(f"rewards of shape {tuple(rewards.shape)} are not whole groups of {group_size}")
    groups = rewards.view(-1, group_size)  # [P, G]
    return ADVANTAGES[rule](groups, **options).reshape(-1)  # [N]


def _zscore(r: torch.Tensor, eps: float = 1e-4) -> torch.Tensor:
    if r.shape[1] == 1:  # one sample has no spread, and no advantage over its group
        return torch.zeros_like(r)
    return (r - r.mean(1, keepdim=True)) / (r.std(1, keepdim=True) + eps)  # [P, G]


def _mean(r: torch.Tensor) -> torch.Tensor:
    return r - r.mean(1, keepdim=True)  # [P, G]


def _leave_one_out(r: torch.Tensor) -> torch.Tensor:
    g = r.shape[1]
    if g == 1:
        raise RlinoError("leave_one_out needs at least two samples a group")
    return (r - r.mean(1, keepdim=True)) * g / (g - 1)  # [P, G]


def _right(r: torch.Tensor, threshold: float) -> torch.Tensor:
    return (r > threshold).to(r.dtype)  # [P, G]


def _positive(r: torch.Tensor, threshold: float = 0.5) -> torch.Tensor:
    return _right(r, threshold)


def _negative(r: torch.Tensor, threshold: float = 0.5) -> torch.Tensor:
    return _right(r, threshold) - 1


def _signed(r: torch.Tensor, threshold: float = 0.5) -> torch.Tensor:
    return 2 * _right(r, threshold) - 1


def _group_balanced(r: torch.Tensor, threshold: float = 0.5) -> torch.Tensor:
    right = _right(r, threshold)  # [P, G]
    k = right.sum(1, keepdim=True)  # [P, 1]
    wrong, n_wrong = 1 - right, r.shape[1] - k
    mixed = (k > 0) & (n_wrong > 0)
    return torch.where(mixed, right / k.clamp_min(1) - wrong / n_wrong.clamp_min(1), 0)  # [P, G]


ADVANTAGES = {
    "zscore": _zscore,
    "mean": _mean,
    "leave_one_out": _leave_one_out,
    "positive": _positive,
    "negative": _negative,
    "signed": _signed,
    "group_balanced": _group_balanced,
}

# How each rule prints in an objective's formula.
_ADVANTAGE_TEXT = {
    "zscore": "(r_i − mean r) / (std r + 1e-4)",
    "mean": "r_i − mean r",
    "leave_one_out": "r_i − mean of the others' r",
    "positive": "1 if right, else 0",
    "negative": "0 if right, else −1",
    "signed": "1 if right, else −1",
    "group_balanced": "1/k if right, −1/(G−k) if wrong, k of G right, mixed groups only",
}


# --- objectives ------------------------------------------------------------------------------------------------------

RATIOS = ("none", "token")
NORMALISERS = ("per_response", "token_mean", "constant")


@dataclass(frozen=True, repr=False)
class Objective:
    """A method as a row of choices; prints as its formula. Vary one with `dataclasses.replace`."""

    name: str
    advantage: str = "zscore"
    ratio: str = "token"  # "none": plain log-likelihood, as supervised learning has it
    clip_low: float | None = 0.2  # the ratio is clipped to [1 − clip_low, 1 + clip_high]; None for no clip
    clip_high: float | None = 0.2
    normaliser: str = "per_response"  # 1/|o_i| · 1/N; "token_mean" 1/Σ|o|; "constant" 1/(N·L)
    beta: float = 0.0  # weight of the k3 estimate of KL(π ‖ ref)

    def __post_init__(self) -> None:
        for value, known in ((self.advantage, ADVANTAGES), (self.ratio, RATIOS), (self.normaliser, NORMALISERS)):
            if value not in known:
                raise RlinoError(f"objective {self.name}: {value!r} is not one of {', '.join(known)}")

    def __repr__(self) -> str:
        gain = "Â_i log π(o_it)"
        if self.ratio == "token":
            gain = "ρ_it Â_i"
            if self.clip_low is not None or self.clip_high is not None:
                low = "0" if self.clip_low is None else f"{1 - self.clip_low:g}"
                high = "∞" if self.clip_high is None else f"{1 + self.clip_high:g}"
                gain = f"min(ρ_it Â_i, clip(ρ_it, {low}, {high}) Â_i)"
        inner = f"[ {gain} − {self.beta:g} k3_it ]" if self.beta else gain
        front = {"per_response": "1/N Σ_i 1/|o_i| Σ_t", "token_mean": "1/Σ|o| Σ_i Σ_t", "constant": "1/(N·L) Σ_i Σ_t"}
        return f"{self.name}: J = {front[self.normaliser]} {inner},  Â_i = {_ADVANTAGE_TEXT[self.advantage]}"


def _f_isft(name: str, advantage: str) -> Objective:
    return Objective(name, advantage=advantage, ratio="none", clip_low=None, clip_high=None)


GRPO = Objective("grpo", beta=0.04)  # DeepSeekMath's recipe (2402.03300 eq. 3)
GRPO_NO_KL = Objective("grpo_no_kl")  # the paper's GRPO-wo-KL
F_ISFT_POS = _f_isft("f_isft_pos", "positive")
F_ISFT_NEG = _f_isft("f_isft_neg", "negative")
F_ISFT_POSNEG = _f_isft("f_isft_posneg", "group_balanced")
F_ISFT_POSNEG_UNIT = _f_isft("f_isft_posneg_unit", "signed")

OBJECTIVES: dict[str, Objective] = {
    o.name: o for o in (GRPO, GRPO_NO_KL, F_ISFT_POS, F_ISFT_NEG, F_ISFT_POSNEG, F_ISFT_POSNEG_UNIT)
}


# --- the loss --------------------------------------------------------------------------------------------------------


@dataclass
class Loss:
    """A scalar `.loss` to minimise and detached `.metrics`: `kl` (nats a token), `clip_ratio` and `ratio` (means)."""

    loss: torch.Tensor
    metrics: dict[str, float]


def policy_loss(
    objective: Objective,
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor | None,
    ref_logprobs: torch.Tensor | None,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    max_response_length: int | None = None,
) -> Loss:
    """−J of an objective (chapter 04; GRPO is 2402.03300 eq. 3, at one update a batch eq. 21).

    logprobs, old_logprobs (the sampler's), ref_logprobs (the reference's): [N, T], nats, gradient through the first
    alone; advantages [N], or [N, T] for credit that is not uniform; mask [N, T], true on response tokens. Only the
    constant normaliser reads `max_response_length`. Old log-probs may be None at ratio "none", and stand for the
    current ones elsewhere (one update a batch); reference log-probs may be None at β = 0.
    Raises RlinoError for shapes that do not agree or a part that is missing.
    """
    _check_shapes(objective, logprobs, old_logprobs, ref_logprobs, advantages, mask, max_response_length)
    keep = mask.to(logprobs.dtype)  # [N, T]
    # Masked entries may hold anything, NaN included; they must not reach the sum, nor its gradient.
    logprobs = torch.where(mask.bool(), logprobs, 0)  # [N, T]
    weight = advantages if advantages.ndim == 2 else advantages[:, None]  # [N, T] or [N, 1]
    metrics = {}
    if objective.ratio == "none":
        gain = weight * logprobs  # [N, T]
    else:
        old = logprobs.detach() if old_logprobs is None else torch.where(mask.bool(), old_logprobs, 0)
        # Past e^20 the ratio says only "far off", and exp would overflow.
        ratio = (logprobs - old).clamp(-20, 20).exp()  # [N, T]
        low = None if objective.clip_low is None else 1 - objective.clip_low
        high = None if objective.clip_high is None else 1 + objective.clip_high
        gain = ratio * weight  # [N, T]
        if low is not None or high is not None:
            clipped = ratio.clamp(low, high) * weight  # [N, T]
            metrics["clip_ratio"] = _token_mean((clipped < gain).to(keep.dtype), keep)
            gain = torch.minimum(gain, clipped)
        metrics["ratio"] = _token_mean(ratio, keep)
    if objective.beta:
        gap = torch.where(mask.bool(), ref_logprobs, 0) - logprobs  # [N, T]
        k3 = torch.expm1(gap.clamp(-20, 20)) - gap  # [N, T], ≥ 0, its mean estimates KL(π ‖ ref); e^x − 1 keeps digits
        metrics["kl"] = _token_mean(k3, keep)
        gain = gain - objective.beta * k3
    return Loss(-_aggregate(objective, gain * keep, keep, max_response_length), metrics)


def _aggregate(objective: Objective, gain: torch.Tensor, keep: torch.Tensor, length: int | None) -> torch.Tensor:
    if objective.normaliser == "per_response":
        return (gain.sum(1) / keep.sum(1).clamp_min(1)).mean()
    if objective.normaliser == "token_mean":
        return gain.sum() / keep.sum().clamp_min(1)
    return gain.sum() / (len(gain) * length)


def _token_mean(values: torch.Tensor, keep: torch.Tensor) -> float:
    return (values.detach() * keep).sum().item() / max(keep.sum().item(), 1)


def _check_shapes(objective, logprobs, old, ref, advantages, mask, length) -> None:
    n = logprobs.shape
    for name, tensor in (("old_logprobs", old), ("ref_logprobs", ref), ("mask", mask)):
        if tensor is not None and tensor.shape != n:
            raise RlinoError(f"{name} is {tuple(tensor.shape)}, log-probs are {tuple(n)}")
    if advantages.shape not in (n, n[:1]):
        raise RlinoError(f"advantages are {tuple(advantages.shape)}, log-probs are {tuple(n)}")
    if objective.beta and ref is None:
        raise RlinoError(f"{objective.name} has β = {objective.beta:g} and no reference log-probs")
    if objective.normaliser == "constant" and not length:
        raise RlinoError(f"{objective.name} divides by a constant length: give max_response_length")


def micro_share(objective: Objective, mask: torch.Tensor, total_rows: int, total_tokens: int) -> float:
    """What the loss of a micro-batch must be multiplied by so that micro-batches add up to the whole batch's loss."""
    return int(mask.sum()) / max(total_tokens, 1) if objective.normaliser == "token_mean" else len(mask) / total_rows


def token_weights(
    objective: Objective, advantages: torch.Tensor, mask: torch.Tensor, max_response_length: int | None = None
) -> torch.Tensor:
    """The weight w_it = ∂J/∂log π(o_it) of every token at ratio 1, [N, T], 0 where masked.

    Taken from `policy_loss` by differentiation, so it cannot differ from what the optimiser used. The KL term is left
    out: it pulls towards the reference and is no credit.
    """
    from dataclasses import replace

    logprobs = torch.zeros(mask.shape, dtype=advantages.dtype, requires_grad=True)  # [N, T]
    with torch.enable_grad():
        loss = policy_loss(replace(objective, beta=0.0), logprobs, None, None, advantages, mask, max_response_length)
        (grad,) = torch.autograd.grad(loss.loss, logprobs)
    return -grad
