"""How the rows of an update are cut into micro-batches: by rows, or by the tokens that a pass holds (chapter 12).

On a CPU a pass has a number of rows, `micro_batch`. On a GPU it has a number of tokens, so that short rows fill the
card as well as long ones do.

Each sample of a group computes its prompt anew. With prompts of 100 tokens, responses of 200 and groups of 8, one pass
over the prompt for all of them would save 700 of a group's 2,400 tokens. But the group would have to stay together, and
its longest response would pad the others: by some 620 tokens where lengths spread evenly from 100 to 300, while rows of
the whole batch, sorted by length, are hardly padded. Attention in two parts, to the prompt and within the response,
would lose the fast causal kernel besides. It would pay where prompts are much longer than responses.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlino_lib.errors import RlinoError
from rlino_lib.methods.catalogue import varied
from rlino_lib.methods.terms import NORMALISERS
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.training.config import TrainConfig


@dataclass(frozen=True)
class Limit:
    """What one forward and backward pass may hold; 0: any number. A single row passes whatever its length is."""

    rows: int = 0
    tokens: int = 0  # padding included: rows × the longest of them, prompt and response

    def cut(self, lengths: Sequence[int]) -> Iterator[slice]:
        """Rows of these lengths in runs of neighbours, each as long as the limit allows; sorted rows waste least."""
        start, longest = 0, 0
        for place, length in enumerate(lengths):
            longest = max(longest, length)
            rows = place - start + 1
            if rows > 1 and (rows > (self.rows or rows) or rows * longest > (self.tokens or rows * longest)):
                yield slice(start, place)
                start, longest = place, length
        if lengths:
            yield slice(start, len(lengths))

    def most_tokens(self, lengths: Sequence[int]) -> int:
        """The most tokens that a pass over such rows can hold."""
        return min(self.tokens, max(lengths) * min(self.rows or len(lengths), len(lengths)))


def by_tokens(config: TrainConfig, device: str) -> bool:
    """Whether a run's micro-batches are cut by tokens. Not where they are part of the method.

    Raises RlinoError where the tokens of one are set none the less.
    """
    name = varied(config.method, config.objective_settings).normaliser
    if config.micro_tokens and NORMALISERS[name].by_micro_batch:
        raise RlinoError(f"the normaliser {name} divides by a micro-batch of rows: --micro-batch, not --micro-tokens")
    given = config.micro_tokens > 0 or device.startswith("cuda")
    return given and not NORMALISERS[name].by_micro_batch


def most_rows(config: TrainConfig) -> int:
    """The most rows of a micro-batch that is cut by tokens: as many as were set, where tokens were not; else 0, any."""
    is_set = config.micro_batch != TrainConfig.micro_batch and not config.micro_tokens
    return config.micro_batch if is_set else 0


def update_rows(order: list[int], epochs: int, minibatches: int, rng: random.Random) -> Iterator[Tensor]:
    """The rows [M] of each update of a batch: passes over `order`, shuffled in place where there are mini-batches."""
    for _ in range(epochs):
        if minibatches > 1:
            rng.shuffle(order)
        for k in range(minibatches):
            yield torch.tensor(sorted(order[k::minibatches]), dtype=torch.long)


def pass_lengths(rollouts: Rollouts) -> Tensor:
    """Tokens of each row, prompt and response, [N] int64."""
    return rollouts.prompt_mask.sum(1).repeat_interleave(rollouts.group_size) + rollouts.written.sum(1)


def micro_batches(rollouts: Rollouts, rows: Tensor, limit: Limit) -> list[Tensor]:
    """Some rows [M] of the rollouts, those of similar length together, cut as the limit has it."""
    lengths = pass_lengths(rollouts) if limit.tokens else rollouts.lengths  # [N]
    rows = rows[lengths[rows].argsort(stable=True)]  # [M]
    return [rows[part] for part in limit.cut(lengths[rows].tolist())]
