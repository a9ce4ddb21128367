"""Sampling groups of responses (chapter 04): prefill each prompt once, decode all its samples together.

What makes it fast at small sizes: one prefill shared by the G samples of a prompt, a preallocated cache that is written
in place, attention that never repeats the key-value heads, finished responses leaving the batch, one uniform number a
token drawn beforehand in place of a multinomial call, a fused step (`decode.py`), and a share of the rows for each
thread in place of a share of each product. A row's randomness is its own, so that its text does not depend on which
rows sit beside it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch.nn.functional import scaled_dot_product_attention
from tqdm.auto import tqdm
from transformers import AttentionInterface, AttentionMaskInterface, Cache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rlino_lib.errors import RlinoError, RlinoWarning
from rlino_lib.policy.decode import FusedDecoder
from rlino_lib.policy.device import autocast, is_out_of_memory, is_small, policy_precision
from rlino_lib.policy.models import Policy, eos_ids
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.policy.stopping import StopStrings
from rlino_lib.settings import BATCH, COUNT, TEMPERATURE, TOP_P, check, number, setting, whole, zero_or


@dataclass(frozen=True)
class SampleConfig:
    """What `rlino_lib.policy.sampling.sample` holds its numbers against."""

    group_size: int = setting(8, "responses a prompt", BATCH)
    max_new_tokens: int = setting(112, "the cap on a response", COUNT)
    temperature: float = setting(1.0, "divides the logits; 0: greedy", zero_or(TEMPERATURE))
    top_p: float = setting(1.0, "keep the likeliest tokens with this share of the probability", TOP_P)
    top_k: int = setting(0, "keep so many of the likeliest tokens; 0: all", whole())
    min_p: float = setting(0.0, "keep tokens with at least this share of the likeliest's probability", number(0, 1))
    seed: int = setting(0, "of the draws; a run makes one of its own seed and the step", whole(0, 2**63 - 1))
    max_rows: int = setting(1024, "rows decoded at a time", COUNT)

    def __post_init__(self) -> None:
        check(self)


ROWS_A_WORKER = 128  # fewer rows a thread, and Python's own work between the products weighs more than a second core
_ROOM: WeakKeyDictionary[torch.nn.Module, int] = WeakKeyDictionary()  # rows that a model could decode at a time


# --- the cache -------------------------------------------------------------------------------------------------------


class _GroupLayer(CacheLayerMixin):
    """Keys and values of one layer in buffers of full length; an update writes in place and returns a view."""

    is_sliding = False  # masks are made over the whole length, also for models with a sliding window

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity, self.length = capacity, 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        n, heads, _, dim = key_states.shape
        self.keys = key_states.new_empty(n, heads, self.capacity, dim)  # [N, Hkv, S+T, D]
        self.values = value_states.new_empty(n, heads, self.capacity, value_states.shape[-1])
        self.is_initialized = True

    def update(self, key_states, value_states, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[2]
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def select(self, rows: torch.Tensor, capacity: int | None = None) -> None:
        """Keep (or repeat) rows of the batch; with `capacity`, move to buffers of another length."""
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_empty(len(rows), old.shape[1], capacity or self.capacity, old.shape[3])
            new[:, :, : self.length] = old[:, :, : self.length].index_select(0, rows)
            setattr(self, name, new)
        self.capacity = capacity or self.capacity

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return self.capacity

    get_max_cache_shape = get_max_length  # its name in older releases


def _grouped_attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs):
    """Attention for one new token a row: two batched products over key-value heads, with no copy of the cache."""
    n, heads, q_len, dim = query.shape
    if q_len > 1 or heads % key.shape[1]:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
    if key.device.type != "cpu":  # a GPU's fused kernel knows grouped heads itself
        out = scaled_dot_product_attention(query, key, value, attention_mask, scale=scaling, enable_gqa=True)
        return out.transpose(1, 2), None
    scaling = dim**-0.5 if scaling is None else scaling
    q = (query * scaling).view(n, key.shape[1], -1, dim)  # [N, Hkv, H/Hkv, D]
    scores = torch.matmul(q, key.transpose(2, 3))  # [N, Hkv, H/Hkv, L]
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    out = torch.matmul(scores.softmax(-1), value)  # [N, Hkv, H/Hkv, D]
    return out.view(n, 1, heads, -1), None


AttentionInterface.register("rlino_grouped", _grouped_attention)
AttentionMaskInterface.register("rlino_grouped", sdpa_mask)


@contextmanager
def _fast_attention(model: PreTrainedModel) -> Iterator[None]:
    """Decode with grouped attention where the model lets its attention be chosen; leave it as it was afterwards."""
    config = model.config.get_text_config()
    before = config._attn_implementation
    if before in ("eager", "sdpa") and not getattr(config, "attn_logit_softcapping", None):
        config._attn_implementation = "rlino_grouped"
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        config._attn_implementation = before
        model.train(was_training)


# --- choosing a token ------------------------------------------------------------------------------------------------


def _filter(logprobs: torch.Tensor, top_p: float, top_k: int, min_p: float) -> torch.Tensor:
    """Log-probs with what top-k, top-p and min-p exclude at −inf (not renormalised), [N, V]."""
    if top_k:
        kth = logprobs.topk(min(top_k, logprobs.shape[-1]), -1).values[:, -1:]  # [N, 1]
        logprobs = logprobs.masked_fill(logprobs < kth, -torch.inf)
    if min_p:
        least = logprobs.amax(-1, keepdim=True) + math.log(min_p)  # [N, 1]
        logprobs = logprobs.masked_fill(logprobs < least, -torch.inf)
    if top_p < 1:
        ordered, index = logprobs.sort(-1, descending=True)  # [N, V]
        p = ordered.softmax(-1)
        out = p.cumsum(-1) - p >= top_p  # the first token always stays
        logprobs = logprobs.masked_fill(out.scatter(-1, index, out), -torch.inf)
    return logprobs


def choose(
    logits: torch.Tensor, u: torch.Tensor, temperature: float, top_p: float = 1.0, top_k: int = 0, min_p: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sample by inverting the cumulative distribution at u.

    logits [N, V]; u [N] uniform in [0, 1). Returns ids, log-probs and entropies, each [N]; the log-prob is the policy's
    at this temperature, before top-p and its kin, which is what a ratio needs. Temperature 0 is greedy, and then the
    log-prob is that of temperature 1. Raises RlinoError where logits are NaN or infinite.
    """
    scaled = logits.float() if temperature in (0, 1) else logits.float() / temperature  # [N, V]
    logprobs = scaled.log_softmax(-1)  # [N, V]
    probs = logprobs.exp()  # [N, V]
    entropy = -torch.linalg.vecdot(probs, logprobs.clamp_min(-1e4))  # [N]; the clamp keeps 0 · −inf from being NaN
    if not bool(entropy.isfinite().all()):
        raise RlinoError("the model's logits are not finite: lower the learning rate, or check the weights")
    if not temperature:
        ids = logits.argmax(-1)  # [N]
    else:
        if top_k or min_p or top_p < 1:
            probs = _filter(logprobs, top_p, top_k, min_p).exp()  # [N, V]
        total = probs.cumsum(-1)  # [N, V]
        # `right` picks the first entry strictly above u·total, so an entry of probability 0 is never chosen; rounding
        # can lift u·total to the total itself, above which there is none, hence the float just below it.
        whole = total[:, -1:]  # [N, 1]
        below = torch.minimum(u[:, None] * whole, torch.nextafter(whole, torch.zeros_like(whole)))  # [N, 1]
        ids = torch.searchsorted(total, below, right=True)[:, 0]  # [N]
    return ids, logprobs.gather(1, ids[:, None])[:, 0], entropy


# --- sampling --------------------------------------------------------------------------------------------------------


def sample(
    policy: Policy,
    prompts: Sequence[str],
    group_size: int = 8,
    *,
    max_new_tokens: int = 112,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
    seed: int = 0,
    max_rows: int = 1024,
    stop_strings: Sequence[str] = (),
    ignore_eos: bool = False,
    precision: str = "auto",
    progress: bool = False,
) -> Rollouts:
    """Sample `group_size` responses to each prompt (temperature 0 is greedy).

    A response ends with EOS, or with the token that completes one of `stop_strings`, both part of it. `max_rows` bounds
    the rows decoded at a time; texts do not depend on it beyond float rounding. Where memory runs out it is halved, for
    good, and a warning says so. `ignore_eos` goes on to the cap, for measuring. `precision` of the products: auto,
    fp32 or bf16 (`device.policy_precision`). Raises RlinoError where there is nothing to sample, a setting is out of
    range, logits are not finite, or there is no memory for one response.
    """
    SampleConfig(group_size, max_new_tokens, temperature, top_p, top_k, min_p, seed, max_rows)  # refuses a wrong one
    if not prompts:
        raise RlinoError("sampling needs at least one prompt")
    u = torch.rand(len(prompts) * group_size, max_new_tokens, generator=torch.Generator().manual_seed(seed))
    encoded = policy.tokenizer(list(prompts), return_tensors="pt", padding=True, padding_side="left")
    prompt_ids, prompt_mask = encoded["input_ids"], encoded["attention_mask"].bool()  # [P, S]
    stop = [] if ignore_eos else eos_ids(policy)
    stops = StopStrings(policy.tokenizer, () if ignore_eos else stop_strings, policy.model.device)
    knobs = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p}
    threads = torch.get_num_threads()
    device, precision = policy.model.device, policy_precision(precision, policy.model)
    plain = precision == "fp32" and not torch.is_autocast_enabled(device.type)  # autocast is a thread's own setting
    alone = not plain or device.type != "cpu" or not is_small(policy.model)
    workers = 1 if alone else min(threads, max(1, len(u) // ROWS_A_WORKER))
    per_chunk = max(1, min(max_rows, math.ceil(len(u) / workers)) // group_size) * group_size
    with torch.inference_mode(), _fast_attention(policy.model), autocast(precision, device):
        fits = plain and FusedDecoder.fits(policy.model)
        fused = FusedDecoder(policy.model, prompt_ids.shape[1] + max_new_tokens) if fits else None

        def decode(rows: range) -> tuple[torch.Tensor, ...]:
            first, last = rows[0] // group_size, rows[-1] // group_size + 1
            groups = torch.arange(rows.start, rows.stop) // group_size - first  # [B], the prompt of each row
            asked = prompt_ids[first:last], prompt_mask[first:last], groups, u[rows.start : rows.stop]
            with torch.inference_mode():  # a thread's own setting
                return _decode(policy, fused, *asked, stop, stops, knobs)

        chunks = [range(k, min(k + per_chunk, len(u))) for k in range(0, len(u), per_chunk)]
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads // workers,)) as pool:
            todo = (pool.map if workers > 1 else map)(lambda c: _within_memory(policy, decode, c, group_size), chunks)
            done = tqdm(todo, total=len(chunks), desc="rollouts", disable=not progress)
            parts = [part for found in done for part in found]
    width = max(part[0].shape[1] for part in parts)
    *columns, ended = zip(*parts, strict=True)
    ids, mask, logprobs, entropies = (
        torch.cat([torch.nn.functional.pad(t, (0, width - t.shape[1]), value=fill) for t in column])
        for column, fill in zip(columns, (policy.tokenizer.pad_token_id, False, 0.0, 0.0), strict=True)
    )  # each [N, T]
    return Rollouts(
        prompts=list(prompts),
        prompt_ids=prompt_ids,
        prompt_mask=prompt_mask,
        ids=ids,
        mask=mask,
        logprobs=logprobs,
        entropies=entropies,
        truncated=~torch.cat(ended),
        texts=policy.tokenizer.batch_decode(
            [row[m] for row, m in zip(ids, mask, strict=True)], skip_special_tokens=True
        ),
        group_size=group_size,
    )


def _within_memory(policy: Policy, decode, rows: range, group_size: int) -> list[tuple[torch.Tensor, ...]]:
    """`decode(rows)`, in halves where memory runs out: whole groups as long as they fit."""
    room = _ROOM.get(policy.model, len(rows))
    if len(rows) <= room:
        try:
            return [decode(rows)]
        except RuntimeError as e:
            if not is_out_of_memory(e):
                raise
            if len(rows) == 1:
                raise RlinoError("no memory for one response: lower --max-new-tokens, or take a smaller model") from e
        half = len(rows) // 2
        room = _ROOM[policy.model] = half - half % group_size or half
        warnings.warn(f"out of memory: from here on {room} responses are decoded at a time", RlinoWarning, stacklevel=2)
    parts = (rows[k : k + room] for k in range(0, len(rows), room))
    return [found for part in parts for found in _within_memory(policy, decode, part, group_size)]


def _decode(policy, fused, prompt_ids, prompt_mask, groups, u, stop, stops, knobs) -> tuple[torch.Tensor, ...]:
    """Prefill [P, S], then decode a row for each of `groups` [B], which names its prompt.

    Returns ids, mask, log-probs, entropies, each [B, T], and whether each row ended [B], on the CPU.
    """
    model, device = policy.model, policy.model.device
    n, max_new = u.shape
    s = prompt_ids.shape[1]
    padded = not bool(prompt_mask.all())
    attention = prompt_mask.to(device) if padded else None
    positions = (prompt_mask.long().cumsum(1) - 1).clamp_min(0).to(device)  # [P, S]
    layers = [_GroupLayer(s) for _ in range(model.config.get_text_config().num_hidden_layers)]
    cache = Cache(layers=layers)
    out = model(
        input_ids=prompt_ids.to(device),
        attention_mask=attention,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    groups = groups.to(device)
    for layer in layers:
        layer.select(groups, s + max_new)
    if fused:
        layers = fused.adopt(layers)
    logits = out.logits[:, -1].index_select(0, groups)  # [N, V]
    last = positions[:, -1].index_select(0, groups)  # [N], position of the last token
    if padded:
        attention = torch.nn.functional.pad(attention, (0, max_new), value=True).index_select(0, groups)  # [N, S+T]
    u = u.t().to(device)  # [T, N]
    stop_ids = torch.tensor(stop, device=device)
    # Time comes first, so that a step writes one row. What a row writes after its end is cut off by its length.
    ids = torch.full((max_new, n), policy.tokenizer.pad_token_id, device=device)  # [T, N]
    logprobs = torch.zeros(max_new, n, device=device)  # [T, N]
    entropies = torch.zeros(max_new, n, device=device)  # [T, N]
    lengths = torch.zeros(n, dtype=torch.long, device=device)  # [N]
    ended = torch.zeros(n, dtype=torch.bool, device=device)  # [N]
    rows = torch.arange(n, device=device)  # [B], which row of the result each row of the batch is
    alive = torch.ones(n, dtype=torch.bool, device=device)  # [B]
    for t in range(max_new):
        with torch.autocast(device.type, enabled=False):  # which would round entropies
            token, logprob, entropy = choose(logits, u[t, rows], **knobs)  # [B]
        ids[t, rows], logprobs[t, rows], entropies[t, rows] = token, logprob, entropy
        lengths[rows] += alive
        if stop:
            alive = alive & (token[:, None] != stop_ids).all(1)
        if stops:
            alive = alive & ~stops.reached(ids[max(0, t + 1 - stops.reach) : t + 1, rows].t(), alive)
        left = int(alive.sum())
        if not left or t == max_new - 1:
            break
        if left <= 0.85 * len(alive):  # leaving costs a copy of the cache, so several leave together
            keep, ended[rows] = alive.nonzero()[:, 0], ~alive
            for layer in layers:
                layer.select(keep)
            rows, last, token, alive = rows[keep], last[keep], token[keep], alive[keep]
            attention = attention[keep] if padded else None
        at = last + t + 1 if padded else torch.tensor([s + t], device=device)  # [B] or [1]
        seen = attention[:, : s + t + 1] if padded else None  # [B, L]
        if fused:
            logits = fused.step(token, at, layers, seen)  # [B, V]
        else:
            logits = model(
                input_ids=token[:, None],
                attention_mask=seen,
                position_ids=at[:, None],
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1]  # [B, V]
    ended[rows] = ~alive
    mask = torch.arange(t + 1, device=device) < lengths[:, None]  # [N, T]
    columns = ((ids, policy.tokenizer.pad_token_id), (logprobs, 0.0), (entropies, 0.0))
    ids, logprobs, entropies = (x[: t + 1].t().masked_fill(~mask, fill).cpu() for x, fill in columns)  # each [N, T]
    return ids, mask.cpu(), logprobs, entropies, ended.cpu()
