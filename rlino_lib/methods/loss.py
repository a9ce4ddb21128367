"""The one loss of all methods, −J, and the weight that it gives each token (chapters 04 and 06)."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rlino_lib.errors import RlinoError
from rlino_lib.methods.covariance import distance
from rlino_lib.methods.objective import Objective
from rlino_lib.methods.terms import ESTIMATORS, NORMALISERS, RATIOS


@dataclass(frozen=True)
class Batch:
    """What a loss sees of N responses, padded to T tokens; gradient flows through `logprobs` and `entropies` alone.

    The first three are always needed: `Batch(logprobs, advantages, mask)`. Masked entries may hold anything.
    """

    logprobs: Tensor  # [N, T] nats, of the current policy, under the sampling temperature
    advantages: Tensor  # [N], or [N, T] for credit that is not uniform
    mask: Tensor  # [N, T] true on response tokens
    old_logprobs: Tensor | None = None  # [N, T] the sampler's; None: the current ones, as at one update per batch
    ref_logprobs: Tensor | None = None  # [N, T] the reference's; read where β > 0
    max_response_length: int | None = None  # the cap L, a run's max_new_tokens; read by the constant normaliser
    entropies: Tensor | None = None  # [N, T] nats, of the full next-token distribution; read by an entropy bonus
    covariant: Tensor | None = None  # [N, T] true on the tokens that KL-Cov holds


@dataclass
class Loss:
    """A scalar `.loss` to minimise and `.metrics`, means over tokens: `ratio`, `clip_ratio` (the share of
    tokens whose ratio lies outside the clip range; of the surrogate `clip`, on the side that loses the gradient), `kl`
    (nats, by the objective's estimator) and `entropy` (nats) where the batch has what they need.

    Metrics are read when they are asked for: reading waits for a GPU, and a loop over micro-batches should not."""

    loss: Tensor
    sums: dict[str, tuple[Tensor, Tensor]]  # over tokens, and how many, detached

    @cached_property
    def metrics(self) -> dict[str, float]:
        return {name: total.item() / max(tokens.item(), 1) for name, (total, tokens) in self.sums.items()}


def policy_loss(objective: Objective, batch: Batch) -> Loss:
    """−J of an objective on a batch (chapter 04; GRPO is 2402.03300 eq. 3, at one update per batch eq. 21).

        policy_loss(OBJECTIVES["dr_grpo"], Batch(logprobs, advantages, mask, max_response_length=512)).loss.backward()

    Half precision is computed in float32, and so is the loss; the gradient has the dtype of `logprobs`.
    Raises RlinoError for shapes that do not agree or a part that the objective needs and the batch lacks.
    """
    o, b = objective, _prepared(objective, batch)
    ratio = RATIOS[o.ratio].of(b.logprobs - b.old_logprobs, b.mask)  # ρ [N, T], or None
    gain, clipped = o.gain.of(o, ratio, b.logprobs, b.advantages)  # [N, T], [N, T] or None
    kl = None if b.ref_logprobs is None else ESTIMATORS[o.kl].of(b.ref_logprobs - b.logprobs)  # [N, T]
    if o.beta:
        gain = gain - o.beta * (kl * ratio if o.kl_correction else kl)
    if o.entropy_bonus:
        gain = gain + o.entropy_bonus * b.entropies
    if o.entropy_by_advantage:
        gain = gain + o.entropy_by_advantage * b.advantages * b.entropies
    if o.covariant == "kl":
        gain = gain - o.covariant_cost * distance(b.logprobs - b.old_logprobs) * b.covariant
    loss = -NORMALISERS[o.normaliser].of(gain * b.mask, b.mask, b.max_response_length)  # []
    measured = {"clip_ratio": clipped, "ratio": ratio, "kl": kl, "entropy": b.entropies}
    return Loss(loss, {name: _token_sum(x, b.mask) for name, x in measured.items() if x is not None})


def _prepared(objective: Objective, batch: Batch) -> Batch:
    """The batch as the formula takes it: checked, every tensor [N, T] in the dtype of the loss and 0 where masked."""
    _check(objective, batch)
    inside = batch.mask.bool()  # [N, T]
    wide = _widen(batch.logprobs)  # [N, T]

    def clean(x: Tensor | None) -> Tensor | None:
        """Masked entries, NaN perhaps, must not reach the sum, nor its gradient."""
        return None if x is None else torch.where(inside, x.to(wide.dtype), 0)  # [N, T]

    logprobs = clean(wide)
    old = logprobs.detach() if batch.old_logprobs is None else clean(batch.old_logprobs)
    beside = [clean(x) for x in (batch.ref_logprobs, batch.entropies, batch.covariant)]
    advantages = clean(batch.advantages if batch.advantages.ndim == 2 else batch.advantages[:, None])
    ref, *rest = beside
    return Batch(logprobs, advantages, inside.to(wide.dtype), old, ref, batch.max_response_length, *rest)


def _widen(logprobs: Tensor) -> Tensor:
    """Half precision as float32 [N, T]. Gradients are clamped to the largest finite float16/bfloat16 value."""
    if logprobs.dtype not in (torch.float16, torch.bfloat16):
        return logprobs
    wide = logprobs.float()
    limit = torch.finfo(logprobs.dtype).max
    if wide.requires_grad:
        wide.register_hook(lambda grad: grad.clamp(-limit, limit))
    return wide


def _check(o: Objective, batch: Batch) -> None:
    shape = batch.logprobs.shape
    for name in ("old_logprobs", "ref_logprobs", "entropies", "covariant", "mask"):
        tensor = getattr(batch, name)
        if tensor is not None and tensor.shape != shape:
            raise RlinoError(f"{name} is {tuple(tensor.shape)}, log-probs are {tuple(shape)}")
    if batch.advantages.shape not in (shape, shape[:1]):
        raise RlinoError(f"advantages are {tuple(batch.advantages.shape)}, log-probs are {tuple(shape)}")
    if o.beta and batch.ref_logprobs is None:
        raise RlinoError(f"{o.name} has β = {o.beta:g} and no reference log-probs")
    if o.needs_entropies and batch.entropies is None:
        raise RlinoError(f"{o.name} has an entropy bonus: give entropies")
    if o.covariant == "kl" and batch.covariant is None:
        raise RlinoError(f"{o.name} holds tokens of high covariance: give covariant")
    if NORMALISERS[o.normaliser].needs_cap and not batch.max_response_length:
        raise RlinoError(f"{o.name} divides by a constant length: give max_response_length")


def _token_sum(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return (values.detach() * mask).sum(), mask.sum()


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float | None = None
) -> Tensor:  # fmt: skip
    """Half the mean square of values less returns over tokens, all [N, T]: what a critic minimises, a scalar.

    With a `clip` each token counts the larger of that and of the value moved at most `clip` from its old one
    (PPO's code, and TRL's).
    """
    inside = mask.bool()  # [N, T]
    errors = (values - returns).square()  # [N, T]
    if clip is not None:
        bounded = old_values + (values - old_values).clamp(-clip, clip)  # [N, T]
        errors = torch.maximum(errors, (bounded - returns).square())
    return 0.5 * torch.where(inside, errors, 0).sum() / inside.sum().clamp_min(1)


def micro_share(objective: Objective, mask: Tensor, total_rows: int, total_tokens: int) -> float:
    """What the loss of a micro-batch must be multiplied by so that micro-batches add up to the whole batch's loss.

    `micro_token_mean` has no loss of the whole batch to add up to: its value depends on how the rows are split.
    """
    if NORMALISERS[objective.normaliser].counts_tokens:
        return int(mask.sum()) / max(total_tokens, 1)
    return len(mask) / max(total_rows, 1)


def token_weights(
    objective: Objective, advantages: Tensor, mask: Tensor, max_response_length: int | None = None
) -> Tensor:
    """The weight w_it = ∂J/∂log π(o_it) of every token at ratio 1, [N, T], 0 where masked.

    Taken from `policy_loss` by differentiation, with the whole batch as one update; mini-batches and gradient clipping
    rescale it. What stands beside the gain is left out: KL pulls towards the reference, and an entropy's gradient is no
    weight of the token that was drawn.
    """
    logprobs = torch.zeros(mask.shape, dtype=advantages.dtype, device=mask.device, requires_grad=True)  # [N, T]
    with torch.enable_grad():
        batch = Batch(logprobs, advantages, mask, max_response_length=max_response_length)
        (grad,) = torch.autograd.grad(policy_loss(objective.bare, batch).loss, logprobs)
    return -grad
