"""The one loss of all methods, −J, and the weight that it gives each token (chapters 04 and 06)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from rlino_lib.errors import RlinoError
from rlino_lib.methods.objective import Objective


@dataclass
class Loss:
    """A scalar `.loss` to minimise and detached `.metrics`, means over tokens: `ratio`, `clip_ratio` (how many were
    clipped), and `kl` (nats, by the objective's estimator) where there are reference log-probs."""

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
    current ones elsewhere (one update a batch); reference log-probs may be None at β = 0. Half precision is computed in
    float32, and so is the loss; the gradient has the dtype of `logprobs`.
    Raises RlinoError for shapes that do not agree or a part that is missing.
    """
    _check_shapes(objective, logprobs, old_logprobs, ref_logprobs, advantages, mask, max_response_length)
    inside, wide = mask.bool(), _widen(logprobs)  # [N, T], [N, T]
    keep = inside.to(wide.dtype)  # [N, T]

    def clean(x: torch.Tensor) -> torch.Tensor:
        """Masked entries may hold anything, NaN included; they must not reach the sum, nor its gradient."""
        return torch.where(inside, x.to(wide.dtype), 0)  # [N, T]

    new = clean(wide)
    weight = clean(advantages if advantages.ndim == 2 else advantages[:, None])
    metrics, ratio = {}, None
    if objective.ratio == "none":
        gain = weight * new  # [N, T]
    else:
        old = new.detach() if old_logprobs is None else clean(old_logprobs)
        ratio = _ratio(objective, new - old, keep)  # [N, T]
        gain, clipped = _surrogate(objective, ratio, new, weight)  # [N, T], [N, T] or None
        if clipped is not None:
            metrics["clip_ratio"] = _token_mean(clipped.to(keep.dtype), keep)
        metrics["ratio"] = _token_mean(ratio, keep)
    if ref_logprobs is not None:
        kl = _kl(objective, clean(ref_logprobs) - new)  # [N, T]
        metrics["kl"] = _token_mean(kl, keep)
        if objective.beta:
            gain = gain - objective.beta * (kl * ratio if objective.kl_correction else kl)
    return Loss(-_aggregate(objective, gain * keep, keep, max_response_length), metrics)


def _widen(logprobs: torch.Tensor) -> torch.Tensor:
    """Half precision as float32 [N, T]. Its gradient is cut to the largest half, or it would come back infinite."""
    if logprobs.dtype not in (torch.float16, torch.bfloat16):
        return logprobs
    wide, limit = logprobs.float(), torch.finfo(logprobs.dtype).max
    if wide.requires_grad:
        wide.register_hook(lambda grad: grad.clamp(-limit, limit))
    return wide


def _ratio(o: Objective, gap: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """ρ [N, T] of log-ratios [N, T] that are 0 where masked; the same along a row at the levels of a response."""
    if o.ratio != "token":
        total = gap.sum(1, keepdim=True)  # [N, 1]
        length = keep.sum(1, keepdim=True).clamp_min(1)  # [N, 1]
        gap = (total / length if o.ratio == "sequence" else total).expand_as(gap)  # [N, T]
    # Past e^20 the ratio says only "far off", and exp would overflow.
    return gap.clamp(-20, 20).exp()  # [N, T]


def _surrogate(
    o: Objective, ratio: torch.Tensor, new: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The gain of every token [N, T], and which were clipped [N, T]; None where nothing can be."""
    if o.surrogate == "sapo":
        tau = torch.where(weight > 0, *weight.new_tensor(o.tau))  # [N, T]; not float32, as of bare numbers
        return torch.sigmoid(tau * (ratio - 1)) * 4 / tau * weight, None
    bounded = ratio if o.clip_bounds == (None, None) else ratio.clamp(*o.clip_bounds)  # [N, T]
    if o.surrogate == "cispo":
        return bounded.detach() * weight * new, bounded != ratio
    gain = (ratio if o.delta is None else ratio.clamp(max=o.delta)) * weight  # [N, T]
    if bounded is ratio:
        return gain, None
    bounded = bounded * weight  # [N, T]
    return torch.minimum(gain, bounded), bounded < gain


def _kl(o: Objective, gap: torch.Tensor) -> torch.Tensor:
    """An estimate of KL(π ‖ ref) at every token, [N, T], from gap = log π_ref − log π."""
    if o.kl == "k1":
        return -gap
    if o.kl == "k2":
        return gap.square() / 2
    return torch.expm1(gap.clamp(-20, 20)) - gap  # ≥ 0; e^x − 1 keeps digits


def _aggregate(o: Objective, gain: torch.Tensor, keep: torch.Tensor, length: int | None) -> torch.Tensor:
    rows = max(len(gain), 1)
    if o.normaliser == "per_response":
        return (gain.sum(1) / keep.sum(1).clamp_min(1)).sum() / rows
    if o.normaliser in ("token_mean", "micro_token_mean"):
        return gain.sum() / keep.sum().clamp_min(1)
    return gain.sum() / (rows * (length if o.normaliser == "constant" else 1))


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
    """What the loss of a micro-batch must be multiplied by so that micro-batches add up to the whole batch's loss.

    `micro_token_mean` has no loss of the whole batch to add up to: it is what it is because of how the rows were cut.
    """
    by_tokens = objective.normaliser == "token_mean"
    return int(mask.sum()) / max(total_tokens, 1) if by_tokens else len(mask) / max(total_rows, 1)


def token_weights(
    objective: Objective, advantages: torch.Tensor, mask: torch.Tensor, max_response_length: int | None = None
) -> torch.Tensor:
    """The weight w_it = ∂J/∂log π(o_it) of every token at ratio 1, [N, T], 0 where masked.

    Taken from `policy_loss` by differentiation, so it cannot differ from what the optimiser used. A KL term in the loss
    is left out: it pulls towards the reference and is no credit.
    """
    logprobs = torch.zeros(mask.shape, dtype=advantages.dtype, device=mask.device, requires_grad=True)  # [N, T]
    with torch.enable_grad():
        loss = policy_loss(replace(objective, beta=0.0), logprobs, None, None, advantages, mask, max_response_length)
        (grad,) = torch.autograd.grad(loss.loss, logprobs)
    return -grad
