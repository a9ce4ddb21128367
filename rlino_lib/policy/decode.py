"""A model while it decodes (chapter 04): logits after the prompts, then after each further token, over a cache.

What makes it fast: one prefill that all samples of a prompt share, on a CPU one row for all that have written the same
so far where samples are many, a fused step for small models and on a GPU (`fused.py`), and there the steps as one graph
(`graph.py`). Any other model decodes by itself, over the cache of transformers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import DynamicCache, PreTrainedModel

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
        # Without a configuration it holds the whole length, also of a model with a sliding window.
        self.cache: DynamicCache | None = DynamicCache()
        self.layers: list[Any] = []  # those of the cache, and of a fused step its own

    def prefill(self, prompt_rows: torch.Tensor) -> torch.Tensor:
        """Logits [B, V] after the prompts, for rows that go on from `prompt_rows` [B] int64, each in [0, P)."""
        logits, positions = self._read_prompts()  # [P, V], [P, S]
        merging = len(prompt_rows) >= MANY * len(self.ids)
        self.merged = prompt_rows if merging else None  # [B], of many samples: the model's row that each row is part of
        rows = torch.arange(len(self.ids), device=self.ids.device) if merging else prompt_rows  # [R], of the model
        if self.fused:
            room = len(prompt_rows), self.length + self.new_tokens
            adapted = (self.fused.adapted(layer, rows, self.length, self.length) for layer in self.layers)
            self.layers = [FlatLayer(keys, values, *room) for keys, values in adapted]
            self.cache = None
        else:
            self._select_layers(rows)
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
        logits = self._own_logits(self.ids, self.mask if self.padded else None, positions)  # [P, V]
        self.layers = self.cache.layers
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
        return self._own_logits(tokens[:, None], attention, position[:, None])

    def _own_logits(self, ids: torch.Tensor, mask: torch.Tensor | None, positions: torch.Tensor) -> torch.Tensor:
        """The model's logits [B, V] after some tokens [B, t], whose keys and values the cache then holds."""
        context = dict(attention_mask=mask, position_ids=positions, past_key_values=self.cache, use_cache=True)
        return self.model(input_ids=ids, **context, logits_to_keep=1).logits[:, -1]

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with some rows of the batch, [B'] int64, and forget the others."""
        if self.merged is None:
            self._select(rows)
        else:  # what no row is part of is forgotten at the next step
            self.merged = self.merged[rows]

    def _select(self, rows: torch.Tensor) -> None:
        self._select_layers(rows)
        self.position = self.position[rows]
        if self.padded:
            self.mask = self.mask[rows]

    def _select_layers(self, rows: torch.Tensor) -> None:
        for layer in self.layers:
            layer.batch_select_indices(rows)


@contextmanager
def fast_attention(model: PreTrainedModel) -> Iterator[None]:
    """Decode with torch's own attention where the model lets it be chosen; leave the model as it was afterwards."""
    config = model.config.get_text_config()
    before = config._attn_implementation
    if before in ("eager", "sdpa") and not getattr(config, "attn_logit_softcapping", None):
        config._attn_implementation = "sdpa"
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        config._attn_implementation = before
        model.train(was_training)
