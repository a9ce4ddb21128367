"""What pretraining reads: traces in batches of similar lengths, made here or by worker processes."""

import ctypes
import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import Qwen2Tokenizer

from rlino_lib.training.config import Recipe
from rlino_lib.training.grid import usable_cores
from rlino_lib.training.pretraining.demonstrators import SOURCES
from rlino_lib.training.sft import Example, collate

BLOCK = 32  # batches whose traces are sampled together and sorted by length


class Blocks(Dataset):
    """The batches of a recipe, a block at a time; each is seeded by its place, so any process makes the same."""

    def __init__(self, recipe: Recipe, tokenizer: Qwen2Tokenizer) -> None:
        self.recipe = recipe
        self.tokenizer = tokenizer
        self.source = SOURCES[recipe.task](recipe)

    def __len__(self) -> int:
        return -(-self.recipe.steps // BLOCK)

    def __getitem__(self, block: int) -> tuple[np.ndarray, list[int]]:
        """All batches end to end, int64, and their widths: an array passes through a pipe, and fills no shared memory.

        A batch of width T is [2, batch_size, T]: input ids, and labels that are IGNORE outside the response.
        """
        size = self.recipe.batch_size
        rng = random.Random(f"pretrain-{self.recipe.seed}-{block}")
        rows = [self.source.row(rng) for _ in range(BLOCK * size)]
        encode = self.tokenizer.backend_tokenizer.encode_batch
        starts = [len(e.ids) for e in encode([row[0] for row in rows])]
        ids = [[*e.ids, self.tokenizer.eos_token_id] for e in encode(["".join(row) for row in rows])]
        by_length = getattr(self.source, "by_length", True)
        order = sorted(range(len(rows)), key=lambda i: len(ids[i])) if by_length else range(len(rows))
        chunks = [order[i : i + size] for i in range(0, len(rows), size)]
        rng.shuffle(chunks)
        batches = []
        for chunk in chunks:
            parts = ((tuple(ids[i][: starts[i]]), tuple(ids[i][starts[i] :]), self._context(rows[i])) for i in chunk)
            traces = [Example(prompt, own, 1, 1.0, context=context) for prompt, own, context in parts]
            batches.append(torch.stack(collate(traces, self.tokenizer.pad_token_id)[:2]))  # [2, B, T]
        return torch.cat([b.flatten() for b in batches]).numpy(), [b.shape[2] for b in batches]

    def _context(self, row: Sequence[str]) -> tuple[int, ...]:
        """The places in a row's response of what the environment wrote: every second part after the prompt."""
        if len(row) <= 2:
            return ()
        ends = [len(e.ids) for e in self.tokenizer.backend_tokenizer.encode_batch(list(accumulate(row)))]
        spans = zip(ends[1::2], ends[2::2], strict=False)
        return tuple(place - ends[0] for start, end in spans for place in range(start, end))


def batches(
    recipe: Recipe, tokenizer: Qwen2Tokenizer, start: int = 0, *, workers: int = 0, pin: bool = False
) -> Iterator[torch.Tensor]:
    """Input ids and labels of each step from `start` on, [2, batch_size, T] int64: a trace per row, padded right.

    The loss is on the response, whose labels are not IGNORE. The last block is whole, so more may come than the
    recipe's steps. `workers` processes make them (0: this one), the same ones whatever their number. `pin` puts them
    into pinned memory, from which a GPU copies while it computes.
    """
    blocks = Blocks(recipe, tokenizer)
    first = start // BLOCK
    for flat, widths in _loaded(blocks, range(first, len(blocks)), workers):
        whole = torch.from_numpy(flat)  # [sum over batches of 2·B·T]
        whole = whole.pin_memory() if pin else whole
        parts = whole.split([2 * recipe.batch_size * width for width in widths])
        for part, width in list(zip(parts, widths, strict=True))[max(0, start - BLOCK * first) :]:
            yield part.view(2, recipe.batch_size, width)  # [2, B, T]
        first += 1


def _loaded(blocks: Blocks, places: range, workers: int) -> DataLoader:
    """The blocks of these places in their order."""
    workers = min(workers, len(places))
    settings: dict[str, Any] = {}
    if workers:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # or it warns of the fork; a worker has one core
        fork = "fork" in multiprocessing.get_all_start_methods()
        settings = {"multiprocessing_context": "fork" if fork else None, "worker_init_fn": _end_with_parent}
    # A generator of its own leaves torch's alone; `tuple` leaves arrays arrays.
    return DataLoader(
        blocks, batch_size=None, sampler=places, num_workers=workers, collate_fn=tuple, generator=torch.Generator(),
        **settings,
    )  # fmt: skip


def _end_with_parent(_: int) -> None:
    """A worker that outlives a killed run would keep its folder locked."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def default_workers(device: str) -> int:
    """None on a CPU, whose cores train; for a GPU a process a core but for two, at most 14."""
    if not device.startswith("cuda"):
        return 0
    return min(14, max(0, usable_cores() - 2))
