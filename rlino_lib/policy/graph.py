"""Decoding on a GPU: a step and the choice of its token, captured once and replayed (chapter 12).

A decoding step of half a billion parameters is some 400 kernels of a few microseconds each, and starting them one by
one from Python takes ten times as long as they do. A CUDA graph starts them all at once. It wants that nothing about a
step changes but the numbers in its tensors: so keys and values lie in buffers of fixed capacity, the place of the next
token is itself a tensor, and a mask hides what is not written yet. Where rows leave or the capacity grows a new graph
is captured, which takes some milliseconds. Tokens come in blocks, since looking at each would wait for the GPU.

Without a GPU the same step runs uncaptured, which is how it is tested.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch.nn.functional import pad

from rlino_lib.policy.device import is_out_of_memory
from rlino_lib.policy.fused import FusedDecoder
from rlino_lib.policy.logprobs import product

BLOCK = 16  # tokens of each row between two looks
GROWTH = 128  # places by which the capacity of the cache grows; attention reads it whole


class StaticLayer:
    """Keys and values of one layer, [B, Hkv, L, D], written at a place that is a tensor [1] shared by all layers."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, place: torch.Tensor) -> None:
        self.keys, self.values, self.place = keys, values, place

    def append(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Write the keys and values of one more token, each [B, Hkv, D]."""
        self.keys.index_copy_(2, self.place, keys[:, :, None])
        self.values.index_copy_(2, self.place, values[:, :, None])

    def attend(self, queries: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
        """Attention of one new token for each row; queries [B, H, D]; returns [B, H·D].

        `attention` [B or 1, 1, L] float32 is added to the scores. The heads of a group stand where a sequence would, so
        that keys and values are read once. Two products and a softmax: for one token a row, the fused kernels of
        `scaled_dot_product_attention` that take a mask are several times slower.
        """
        n, kv, places, _ = self.keys.shape
        grouped = queries.unflatten(1, (kv, -1)).flatten(0, 1)  # [B·Hkv, H/Hkv, D]
        scores = product(grouped, self.keys.flatten(0, 1).transpose(1, 2), torch.float32)  # [B·Hkv, H/Hkv, L] float32
        scores = scores.view(n, -1, places) + attention  # [B, H, L]
        weights = scores.softmax(-1).to(queries.dtype).view(n * kv, -1, places)  # [B·Hkv, H/Hkv, L]
        return torch.bmm(weights, self.values.flatten(0, 1)).view(n, -1)  # [B, H·D]

    def move(self, rows: torch.Tensor | None, capacity: int) -> None:
        """Keep some rows of the batch, or all, in buffers of another capacity, at least the present one."""
        for name in ("keys", "values"):
            old = getattr(self, name)
            old = old if rows is None else old.index_select(0, rows)
            setattr(self, name, pad(old, (0, 0, 0, capacity - old.shape[2])))


class CapturedSteps:
    """Rows of a batch under way on a GPU: `run` writes the next tokens of all of them."""

    def __init__(
        self, fused: FusedDecoder, pick: Callable, prompts: Sequence[Any], prompt_rows: torch.Tensor,
        mask: torch.Tensor, new_tokens: int, grows: bool,
    ) -> None:  # fmt: skip
        """prompts: cache layers with `keys` and `values` [P, Hkv, S, D] of a prefill; mask [P, S] bool; prompt_rows [B]
        int64: the prompt that each row goes on from. `new_tokens` may follow. The capacity either `grows` with need, or
        is enough for all from the start.

        `pick` is as `sampling.respond` takes it, and must not wait for the GPU.
        """
        self.fused, self.pick, self.grows = fused, pick, grows
        device = mask.device
        rows = len(prompt_rows)
        self.length = mask.shape[1]  # places that are filled
        visible = pad(mask, (0, _rounded(self.length + new_tokens, BLOCK) - self.length), value=True)  # [P, L]
        self.even = bool(mask.all())
        self.visible = visible[:1] if self.even else visible[prompt_rows]  # [B or 1, L], all but padding of prompts
        self.position = mask.sum(1)[prompt_rows]  # [B], of the next token among those of its row
        self.place = torch.zeros(1, dtype=torch.long, device=device)  # [1], of the next token in the cache
        self.index = torch.zeros(1, dtype=torch.long, device=device)  # [1], of the next token in its block
        self.tokens = torch.zeros(rows, dtype=torch.long, device=device)  # [B], the newest of each row
        self.uniform = torch.zeros(BLOCK, rows, device=device)  # [BLOCK, B]
        self.block = [torch.zeros(BLOCK, rows, dtype=kind, device=device) for kind in (torch.long, *[torch.float] * 2)]
        self.captures = device.type == "cuda"
        self.replay: Callable[[], None] | None = None
        self.capacity = 0
        self._make_room()
        self.layers = [
            StaticLayer(*fused.adapted(layer, prompt_rows, self.length, self.capacity), self.place) for layer in prompts
        ]

    def run(self, tokens: torch.Tensor, uniform: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The k tokens after `tokens` [B], their log-probs and entropies, each [k, B], good until the next run.

        uniform [k, B] in [0, 1), with k at most BLOCK.
        """
        k = len(uniform)
        tokens = tokens.clone()  # they may stand in the block that is written anew
        if self._make_room(k):
            for layer in self.layers:
                layer.move(None, self.capacity)
        self.uniform[:k] = uniform
        if self.replay is None:
            self.replay = self._captured(tokens)
        self._start(tokens)
        for _ in range(k):
            self.replay()
        self.length += k
        return tuple(values[:k] for values in self.block)

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with some rows of the batch, [B'] int64, and forget the others."""
        for layer in self.layers:
            layer.move(rows, self.capacity)
        self.position, self.tokens = self.position[rows], self.tokens[rows]
        self.uniform, *self.block = (x[:, rows] for x in (self.uniform, *self.block))
        if not self.even:
            self.visible = self.visible[rows]
        self.replay = None

    def _make_room(self, tokens: int = 1) -> bool:
        """Let the capacity grow, and return True, where `tokens` more would not fit."""
        if self.length + tokens <= self.capacity:
            return False
        longest = self.visible.shape[1]
        self.capacity = min(_rounded(self.length + tokens, GROWTH), longest) if self.grows else longest
        self.replay = None
        return True

    def _start(self, tokens: torch.Tensor) -> None:
        self.tokens.copy_(tokens)
        self.place.fill_(self.length)
        self.index.zero_()

    def _step(self) -> None:
        """One token for each row. Only numbers in tensors change from step to step, never a shape or an address."""
        slots = torch.arange(self.capacity, device=self.place.device)  # [L]
        readable = self.visible[:, : self.capacity] & (slots <= self.place)  # [B or 1, L]
        attention = torch.zeros_like(readable, dtype=torch.float32).masked_fill_(~readable, -torch.inf)
        logits = self.fused.step(self.tokens, self.position, self.layers, attention[:, None])  # [B, V]
        picked = self.pick(logits, self.uniform.index_select(0, self.index)[0])  # each [B]
        self.tokens.copy_(picked[0])
        for values, new in zip(self.block, picked, strict=True):
            values.index_copy_(0, self.index, new[None])
        for counter in (self.place, self.index, self.position):
            counter += 1

    def _captured(self, tokens: torch.Tensor) -> Callable[[], None]:
        """The step as a graph to replay, or on a CPU the step itself."""
        if not self.captures:
            return self._step
        position = self.position.clone()
        side = _side_stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # kernels are loaded and workspaces made by a step that counts for nothing
            self._start(tokens)
            self._step()
        torch.cuda.current_stream().wait_stream(side)
        self.position.copy_(position)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph) if self.grows else _captured_in_kept_memory(graph):
                self._step()
        except RuntimeError as error:  # what spoils a capture is behind the error that ends it
            if is_out_of_memory(error) or (error.__context__ and is_out_of_memory(error.__context__)):
                raise torch.OutOfMemoryError("out of memory while a step was captured") from error
            raise
        return graph.replay


@cache
def _side_stream() -> torch.cuda.Stream:
    """The stream on which steps are tried and captured: always the same, since free memory belongs to a stream."""
    return torch.cuda.Stream()


_NEWEST: list[torch.cuda.CUDAGraph] = []  # the last graph of a small model: as long as it lives, so does its memory


@contextmanager
def _captured_in_kept_memory(graph: torch.cuda.CUDAGraph) -> Iterator[None]:
    """Capture into the memory that the last such graph had, which is not replayed any more.

    `torch.cuda.graph` gives all free memory back to the driver first and takes it anew. A large model needs that room;
    for a small one it takes longer than its rollouts, and runs that share a card wait for one another.
    """
    pool = (_NEWEST[0].pool(),) if _NEWEST else ()
    with torch.cuda.stream(_side_stream()):
        graph.capture_begin(*pool)
        try:
            yield
        finally:
            graph.capture_end()
    _NEWEST[:] = [graph]


def _rounded(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
