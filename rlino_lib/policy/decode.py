"""A model while it decodes (chapter 04): logits after the prompts, then after each further token, over a cache.

What makes it fast: one prefill that all samples of a prompt share, on a CPU one row for all that have written the same
so far where samples are many, a preallocated cache that is written in place, attention that never repeats the key-value
heads, a fused step for small models and on a GPU (`fused.py`), and there the steps as one graph (`graph.py`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import cast

import torch
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, Cache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rlino_lib.errors import RlinoWarning
from rlino_lib.policy.device import is_small
from rlino_lib.policy.fused import FlatLayer, FusedDecoder, misfit
from rlino_lib.policy.graph import CapturedSteps

MANY = 64  # rows of each prompt, from which on those that have written the same so far are one row of the model
DISTINCT = 0.8  # share of the rows that differ, above which it saves less than it costs


def fused_decoder(model: PreTrainedModel, length: int, plain: bool) -> FusedDecoder | None:
    """A snapshot of the model for sequences of up to `length` tokens, or None where the model itself decodes.

    That is so on a CPU where the model is large, of another kind, or its products are in half precision (`plain` is
    False); and on a GPU where it is of another kind, which a warning says, once for each reason.
    """
    on_gpu = in_blocks(model.device)
    if not on_gpu and not (plain and model.device.type == "cpu" and is_small(model)):
        return None
    if reason := misfit(model):
        if on_gpu:
            _warn_of_misfit(reason)
        return None
    return FusedDecoder(model, length, None if plain else torch.bfloat16)


def in_blocks(device: torch.device) -> bool:
    """Whether tokens are written in blocks, by a captured step."""
    return device.type == "cuda"


@cache
def _warn_of_misfit(reason: str) -> None:
    warnings.warn(f"the model itself decodes, which takes several times as long: {reason}", RlinoWarning, stacklevel=4)


class Decoder:
    """The next-token logits of a batch of rows, each of which goes on from one of the prompts."""

    def __init__(
        self, model: PreTrainedModel, fused: FusedDecoder | None, ids: torch.Tensor, mask: torch.Tensor, new_tokens: int
    ) -> None:
        """Prompts ids [P, S] int64, left padded, with mask [P, S] bool; `new_tokens` may follow them."""
        self.model, self.fused = model, fused
        self.ids = ids.to(model.device)  # [P, S]
        self.new_tokens = new_tokens
        self.padded = not bool(mask.all())
        self.mask = mask.to(model.device)  # [P, S], and once prefilled [B, S+new]
        self.length = ids.shape[1]  # tokens that the cache holds of each row
        count = model.config.get_text_config().num_hidden_layers
        self.layers: list[GroupLayer | FlatLayer] = [GroupLayer(self.length) for _ in range(count)]
        self.cache = Cache(layers=self.layers)

    def prefill(self, prompt_rows: torch.Tensor) -> torch.Tensor:
        """Logits [B, V] after the prompts, for rows that go on from `prompt_rows` [B] int64, each in [0, P)."""
        logits, positions = self._read_prompts()  # [P, V], [P, S]
        capacity = self.length + self.new_tokens
        merging = len(prompt_rows) >= MANY * len(self.ids)
        self.merged = prompt_rows if merging else None  # [B], of many samples: the model's row that each row is part of
        rows = torch.arange(len(self.ids), device=self.ids.device) if merging else prompt_rows  # [R], of the model
        if self.fused:
            adapt = partial(self.fused.adapted, rows=rows, length=self.length, capacity=self.length)
            self.layers = [FlatLayer(*adapt(layer), len(prompt_rows), capacity) for layer in self.layers]
            self.cache = None
        else:
            for layer in cast(list[GroupLayer], self.layers):
                layer.select(rows, capacity)
        if self.padded:
            self.mask = pad(self.mask, (0, self.new_tokens), value=True).index_select(0, rows)  # [R, S+new]
        self.position = positions[:, -1].index_select(0, rows)  # [R], of the last token
        return logits.index_select(0, prompt_rows)

    def capture(self, prompt_rows: torch.Tensor, pick: Callable) -> tuple[torch.Tensor, CapturedSteps]:
        """The logits of `prefill`, and in place of `step` what writes blocks of tokens, picked as `pick` does."""
        logits, _ = self._read_prompts()  # [P, V]
        # A step of a small model takes as long for few rows and places as for many; a capture takes many steps' time.
        steps = CapturedSteps(
            self.fused, pick, self.layers, prompt_rows, self.mask, self.new_tokens, grows=not is_small(self.model)
        )
        return logits.index_select(0, prompt_rows), steps

    def _read_prompts(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [P, V] after the prompts, whose keys and values the cache then holds, and the positions [P, S]."""
        positions = (self.mask.long().cumsum(1) - 1).clamp_min(0)  # [P, S]
        logits = self.model(
            input_ids=self.ids,
            attention_mask=self.mask if self.padded else None,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]  # [P, V]
        return logits, positions

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits [B, V] after one more token for each row, tokens [B] int64."""
        if self.merged is not None:
            tokens = self._merge(tokens)  # [R]
        logits = self._step(tokens)  # [R, V]
        return logits if self.merged is None else logits.index_select(0, self.merged)

    def _merge(self, tokens: torch.Tensor) -> torch.Tensor:
        """The tokens of the model's rows [R] for those of all rows [B]: its rows branch where tokens differ."""
        assert self.merged is not None
        size = int(tokens.max()) + 1
        pairs, merged = (self.merged * size + tokens).unique(return_inverse=True)  # [R], [B]
        if len(pairs) > DISTINCT * len(tokens):  # from here on each row is one of the model's
            self._select(self.merged)
            self.merged = None
            return tokens
        before = pairs // size  # [R], the row that each of them was, in order
        again = torch.zeros_like(pairs)  # [R]
        again[1:] = before[1:] == before[:-1]
        order = again.argsort(stable=True)  # [R]; the first branch of each row stays at its place
        self.merged = order.argsort()[merged]  # [B]
        self._select(before[order])
        return (pairs % size)[order]

    def _step(self, tokens: torch.Tensor) -> torch.Tensor:
        """The same for the model's rows, tokens [R] int64."""
        self.position = self.position + 1
        self.length += 1
        # Without padding all rows stand at the same place.
        position = self.position if self.padded else self.position[:1]  # [B] or [1]
        attention = self.mask[:, : self.length] if self.padded else None  # [B, L]
        if self.fused:
            return self.fused.step(tokens, position, self.layers, attention)
        return self.model(
            input_ids=tokens[:, None],
            attention_mask=attention,
            position_ids=position[:, None],
            past_key_values=self.cache,
            use_cache=True,
        ).logits[:, -1]

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with some rows of the batch, [B'] int64, and forget the others."""
        if self.merged is None:
            self._select(rows)
        else:  # what no row is part of is forgotten at the next step
            self.merged = self.merged[rows]

    def _select(self, rows: torch.Tensor) -> None:
        for layer in self.layers:
            layer.select(rows)
        self.position = self.position[rows]
        if self.padded:
            self.mask = self.mask[rows]


# --- the cache -------------------------------------------------------------------------------------------------------


class GroupLayer(CacheLayerMixin):
    """Keys and values of one layer in buffers of full length; an update writes in place and returns a view."""

    is_sliding = False  # masks are made over the whole length, also for models with a sliding window

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.length = 0

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
    """Attention for one new token of each row: two batched products over key-value heads, with no copy of the cache."""
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
def fast_attention(model: PreTrainedModel) -> Iterator[None]:
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
