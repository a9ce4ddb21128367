"""Log-probs of the tokens of a large vocabulary without their [B, T, V] logits (chapter 12).

At a vocabulary of 151,936 the logits of 32 responses of 256 tokens take 5 GB, and log-softmax and its gradient take as
much again, each. The head is therefore applied to a slice of the vocabulary at a time: one slice of logits is alive,
its share of log Σ exp is added to a running one, and the gradient makes the slices anew. Slices of the vocabulary, not
of the tokens, because each then owns its rows of the weight's gradient, which is written once and never added up.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from rlino_lib.errors import RlinoError, RlinoWarning
from rlino_lib.policy.device import to_device
from rlino_lib.policy.rollouts import Rollouts

LARGE = 16_384  # entries of a vocabulary; below, all logits at once are small, and every recorded run had them so
# Logits alive at once where `chunk` does not say. A GPU is fast where products are large.
TILE = 2**22
GPU_TILE = 2**27


def product(a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """a @ b, of matrices or batches of them, added up and returned in `dtype`; half types are not rounded between."""
    with torch.autocast(a.device.type, enabled=False):  # which would choose the type itself
        if a.is_cuda and b.dtype != dtype:  # tensor cores take half types and add them up in float32
            multiply = torch.bmm if a.ndim == 3 else torch.mm
            return multiply(a.to(b.dtype), b, out_dtype=dtype)
        return a.to(dtype) @ b.to(dtype)


class _TokenLogprobs(torch.autograd.Function):
    """hidden [N, H], weight [V, H], ids [N] → log-probs [N] in `dtype`; `chunk` entries of the vocabulary at a time."""

    @staticmethod
    def _tiles(hidden, weight, ids, scale, chunk, dtype):
        """Slice by slice: its rows of the weight, its logits [N, c], where each id stands in it, and whether."""
        for low in range(0, len(weight), chunk):
            part = weight[low : low + chunk]  # [c, H]
            tile = product(hidden, part.t(), dtype)  # [N, c]
            if scale != 1:
                tile *= scale
            at = (ids - low)[:, None]  # [N, 1]
            yield slice(low, low + chunk), tile, at.clamp(0, len(part) - 1), (at >= 0) & (at < len(part))

    @staticmethod
    def forward(ctx, hidden, weight, ids, scale, chunk, dtype):
        total = hidden.new_full((len(hidden), 1), -torch.inf, dtype=dtype)  # [N, 1], log Σ exp of the slices so far
        chosen = torch.full_like(total, torch.nan)  # [N, 1]; an id outside the vocabulary keeps it
        # Under LoRA the weight is frozen. The gradient then is one row per token, and is computed on the way.
        at_once = ctx.needs_input_grad[:2] == (True, False)
        mean = torch.zeros_like(hidden, dtype=dtype) if at_once else None  # [N, H], of the weight's rows so far
        for place, tile, at, inside in _TokenLogprobs._tiles(hidden, weight, ids, scale, chunk, dtype):
            chosen = torch.where(inside, tile.gather(1, at), chosen)
            most = tile.amax(1, keepdim=True)  # [N, 1]
            tile.sub_(most).exp_()
            before = total
            total = torch.logaddexp(before, tile.sum(1, keepdim=True).log_().add_(most))
            if at_once:
                mean.mul_((before - total).exp()).addcmul_(product(tile, weight[place], dtype), (most - total).exp())
        ctx.settings = scale, chunk, dtype, hidden.dtype, at_once
        ctx.save_for_backward(*((weight[ids] - mean,) if at_once else (hidden, weight, ids, total)))
        return (chosen - total)[:, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        scale, chunk, dtype, kind, at_once = ctx.settings
        grad = grad[:, None] * scale  # [N, 1]
        if at_once:
            (slope,) = ctx.saved_tensors  # [N, H]
            return (slope * grad).to(kind), None, None, None, None, None
        hidden, weight, ids, total = ctx.saved_tensors
        to_hidden = torch.zeros_like(hidden, dtype=dtype) if ctx.needs_input_grad[0] else None  # [N, H]
        to_weight = torch.empty_like(weight)  # [V, H]
        for place, tile, at, inside in _TokenLogprobs._tiles(hidden, weight, ids, scale, chunk, dtype):
            # ∂ log π(id) / ∂ logits = onehot(id) − softmax
            tile.sub_(total).exp_().mul_(-grad).scatter_add_(1, at, torch.where(inside, grad, 0.0))  # [N, c]
            tile = tile.to(weight.dtype) if tile.is_cuda else tile  # once for both products
            if to_hidden is not None:
                to_hidden += product(tile, weight[place], dtype)
            to_weight[place] = product(tile.t(), hidden, dtype)
        return None if to_hidden is None else to_hidden.to(kind), to_weight, None, None, None, None


def tile_size(device: str) -> int:
    """Logits that are alive at once on a device."""
    return GPU_TILE if device.startswith("cuda") else TILE


def token_logprobs(
    hidden: torch.Tensor, weight: torch.Tensor, ids: torch.Tensor, temperature: float = 1.0, chunk: int = 0
) -> torch.Tensor:
    """log softmax(hidden · weightᵀ / temperature) at the ids, with its gradient to hidden and weight.

    hidden [..., H], weight [V, H], ids [...] int64; returns [...], float32 or, of float64, float64. The same numbers as
    all logits and `log_softmax` give, up to the order of additions, in the memory of N × `chunk` logits (0: as many
    entries as make 4 million logits, on a GPU 134 million, and at least 256). Temperature 0 (greedy) counts as 1, as in
    sampling. It can be differentiated once. Raises RlinoError where shapes or dtypes do not belong together or an id is
    out of range. On a GPU such an id has the log-prob NaN: to look at the ids would be to wait for them.
    """
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind) and hidden.dtype != torch.float64:  # what nn.Linear would do
        hidden, weight = (t.to(torch.get_autocast_dtype(kind)) for t in (hidden, weight))
    if weight.ndim != 2 or hidden.shape != (*ids.shape, weight.shape[1]) or hidden.dtype != weight.dtype:
        shapes = f"{list(hidden.shape)}, {list(weight.shape)} and {list(ids.shape)}"
        raise RlinoError(f"hidden [..., H], weight [V, H] of one dtype and ids [...] are needed, not {shapes}")
    if temperature < 0 or chunk < 0:
        raise RlinoError("log-probs need a temperature and a chunk of at least 0")
    if not ids.is_cuda and ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < len(weight):
        raise RlinoError(f"a token id is outside the vocabulary of {len(weight)}")
    rows = hidden.reshape(-1, weight.shape[1])  # [N, H]
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    chunk = chunk or max(256, tile_size(kind) // max(len(rows), 1))
    logprobs = _TokenLogprobs.apply(rows, weight, ids.reshape(-1), 1.0 / (temperature or 1.0), chunk, dtype)  # [N]
    return logprobs.view(ids.shape)


# --- the model's side ------------------------------------------------------------------------------------------------

_FIT: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()  # heads that were tried, and whether they fit


def last_hidden(model: nn.Module, head: nn.Module, **inputs) -> torch.Tensor:
    """What the model hands to its head, [B, T, H]: its own forward pass with the head left out.

    Adapters, hooks and `logits_to_keep` thus do what they always do.
    """
    head.forward = lambda hidden: hidden  # of this one module; `nn.Module` calls it in place of its class's
    try:
        return model(**inputs).logits
    finally:
        del head.forward


def _hands_on(model: nn.Module, head: nn.Module) -> bool:
    """Whether the model returns what its head gives it as it is: no scale, cap or mask on the logits."""
    inputs: list[Any] = []

    def keep(hidden: torch.Tensor) -> torch.Tensor:
        inputs.extend((hidden, hidden._version))
        return hidden

    head.forward = keep
    try:
        with torch.inference_mode(False), torch.no_grad():
            token = torch.zeros(1, 1, dtype=torch.long, device=next(head.parameters()).device)
            returned = model(input_ids=token, use_cache=False).logits
    except (RuntimeError, IndexError, ValueError):  # it expects V numbers for each token
        return False
    finally:
        del head.forward
    return bool(inputs) and returned is inputs[0] and returned._version == inputs[1]  # nor was it changed in place


def large_head(model: Any) -> nn.Linear | None:
    """The head of a model whose log-probs should be taken by `last_hidden` and `token_logprobs`, else None.

    That is a bare linear layer over a large vocabulary whose output the model returns unchanged. Models that scale or
    cap their logits (Gemma 2, Granite, Cohere), or adapt or quantise the head, keep all logits; a warning says so once.
    The answer comes from one pass over one token, the first time.
    """
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    weight = getattr(head, "weight", None)
    if weight is None or len(weight) < LARGE:
        return None
    if head not in _FIT:
        bare = type(head) is nn.Linear and head.bias is None and weight.is_floating_point()
        bare = bare and "forward" not in vars(head) and not (head._forward_hooks or head._forward_pre_hooks)
        _FIT[head] = bare and _hands_on(model, head)
        if not _FIT[head]:
            reason = f"{model.config.model_type} changes its logits, or has no plain head"
            warnings.warn(f"{reason}: its log-probs take the memory of all logits", RlinoWarning, stacklevel=2)
    return head if _FIT[head] else None


def response_logprobs(
    model, rollouts: Rollouts, rows: torch.Tensor, temperature: float = 1.0, entropies: bool = False,
    packed: bool = False,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """Log-probs of the responses of some rows, with gradient, and their mask: both [B, T'], T' the longest of them.

    All tokens of a response are read, and the mask is true on those that the policy wrote. With `entropies` a third:
    those of the full next-token distributions, nats [B, T'], with gradient. Over a large vocabulary log-probs are taken
    without all logits at once, where the model allows it; entropies need all logits.

    Rows are padded on the left, as they were sampled. `packed` ones, for a GPU, are padded on the right, so that
    attention needs no mask and takes its fast kernel, and the head reads the policy's tokens alone: where the mask is
    false the results are 0. They agree with the others to rounding.
    """
    take = _packed_logprobs if packed else _padded_logprobs
    return take(model, rollouts, rows, temperature, entropies)


def padded_inputs(rollouts: Rollouts, rows: torch.Tensor, device: torch.device) -> tuple[dict[str, Any], int]:
    """A model's inputs for some rows, prompts padded on the left, responses on the right; and T', the longest."""
    ids, attention = rollouts.sequences()
    width = int(rollouts.written[rows].sum(1).max())
    s = rollouts.prompt_ids.shape[1]
    ids = ids[rows, : s + width].to(device)  # [B, S+T']
    attention = attention[rows, : s + width].to(device)  # [B, S+T']
    padded = not bool(attention[:, :s].all())  # without left padding causal attention needs no mask, and is faster so
    positions = (attention.long().cumsum(1) - 1).clamp_min(0) if padded else None
    mask = attention if padded else None
    return dict(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False), width


def of_distributions(
    of: Callable[[torch.Tensor], torch.Tensor], model, rollouts: Rollouts, rows: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """A number of the distribution that each token of some rows was drawn from, [B, T'] float32, without gradient.

    `of` makes it of log-probs [B, T', V]: `collisions` or `certainty`.
    """
    inputs, width = padded_inputs(rollouts, rows, model.device)
    with torch.inference_mode():
        logits = model(**inputs, logits_to_keep=width + 1).logits[:, :-1]  # [B, T', V]
        return of((logits.float() / (temperature or 1.0)).log_softmax(-1))


def collisions(logprobs: torch.Tensor) -> torch.Tensor:
    """Σ_v π(v)² [...] of log-probs [..., V]: the chance that two draws agree.

    With it ‖∇ log π‖² in the logits is 1 − 2π + Σ_v π(v)².
    """
    return logprobs.exp().square().sum(-1)


def certainty(logprobs: torch.Tensor) -> torch.Tensor:
    """KL(U ‖ π) [...] in nats of log-probs [..., V], U uniform: Intuitor's self-certainty of a token (2505.19590)."""
    return -logprobs.mean(-1) - math.log(logprobs.shape[-1])


def _padded_logprobs(
    model, rollouts: Rollouts, rows: torch.Tensor, temperature: float, entropies: bool
) -> tuple[torch.Tensor, ...]:
    """`response_logprobs` of rows padded on the left."""
    inputs, width = padded_inputs(rollouts, rows, model.device)
    ids = inputs["input_ids"]  # [B, S+T']
    mask = rollouts.mask[rows, :width].to(model.device)  # [B, T']
    inputs["logits_to_keep"] = width + 1  # each token's logits stand one place before it
    if not entropies and (head := large_head(model)) is not None:
        hidden = last_hidden(model, head, **inputs)[:, :-1]  # [B, T', H]
        return token_logprobs(hidden, head.weight, ids[:, -width:], temperature), mask  # [B, T'], [B, T']
    logits = model(**inputs).logits[:, :-1]  # [B, T', V]
    chosen, *spread = _of_logits(logits, ids[:, -width:], temperature, entropies)  # [B, T'] each
    return chosen, mask, *spread


def _packed_logprobs(
    model, rollouts: Rollouts, rows: torch.Tensor, temperature: float, entropies: bool
) -> tuple[torch.Tensor, ...]:
    """`response_logprobs` of rows padded on the right. Everything that is an index is found on the CPU."""
    device = model.device
    groups = rows // rollouts.group_size  # [B]
    mask = rollouts.mask[rows, : int(rollouts.written[rows].sum(1).max())]  # [B, T']
    starts = rollouts.prompt_mask[groups].sum(1)  # [B], where responses begin
    pieces = zip(groups.tolist(), rows.tolist(), strict=True)
    whole = [
        torch.cat([rollouts.prompt_ids[g][rollouts.prompt_mask[g]], rollouts.ids[i][rollouts.written[i]]])
        for g, i in pieces
    ]
    ids = torch.nn.utils.rnn.pad_sequence(whole, batch_first=True)  # [B, L]
    # Each token's logits stand one place before it; those before the end of the shortest prompt are not made.
    first = int(starts.min()) - 1
    kept = ids.shape[1] - first  # K
    row, at = mask.nonzero(as_tuple=True)  # [M] each, the policy's tokens
    column = starts[row] + at  # [M]
    targets = to_device(ids[row, column], device)  # [M]
    places = to_device(row * kept + column - 1 - first, device)  # [M], among B·K
    results = to_device(row * mask.shape[1] + at, device)  # [M], among B·T'
    inputs = dict(input_ids=to_device(ids, device), use_cache=False, logits_to_keep=kept)
    if not entropies and (head := large_head(model)) is not None:
        hidden = last_hidden(model, head, **inputs).flatten(0, 1).index_select(0, places)  # [M, H]
        of_tokens: tuple[torch.Tensor, ...] = (token_logprobs(hidden, head.weight, targets, temperature),)  # [M]
    else:
        logits = model(**inputs).logits.flatten(0, 1).index_select(0, places)  # [M, V]
        of_tokens = _of_logits(logits, targets, temperature, entropies)  # [M] each
    chosen, *spread = (x.new_zeros(mask.numel()).index_copy(0, results, x).view(mask.shape) for x in of_tokens)
    return chosen, to_device(mask, device), *spread  # [B, T'] each


def _of_logits(
    logits: torch.Tensor, ids: torch.Tensor, temperature: float, entropies: bool
) -> tuple[torch.Tensor, ...]:
    """Log-probs [...] of the ids [...] from logits [..., V], and where they are asked for the entropies [...]."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # half types are too coarse, float64 stays
    logprobs = (logits / (temperature or 1.0)).log_softmax(-1)  # [..., V]
    chosen = logprobs.gather(-1, ids[..., None])[..., 0]  # [...]
    return (chosen, -(logprobs.exp() * logprobs).sum(-1)) if entropies else (chosen,)
