"""Which tokens of a response the loss counts, where an environment writes into it (chapter 10b).

`policy`: those that the policy wrote, as Search-R1 (2503.09516) has it. `delimiter`: all but what stands between two
delimiters, these included, whoever wrote it: R1-Searcher's rule (2503.05592, `openrlhf/models/loss.py` of its code).
What the environment writes outside of its delimiters counts then, and what the policy writes within them does not.
`all`: every token of the response.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from rlino_lib.errors import RlinoError
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.tasks import Task
from rlino_lib.training.checks import NO_DELIMITERS


def within(ids: Tensor, opens: int, closes: int) -> Tensor:
    """Tokens from an opening delimiter to the next closing one, both included, or to the end: [N, T] bool.

    ids [N, T] int64.
    """
    place = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)  # [N, T]
    opened = torch.where(ids == opens, place, -1).cummax(1).values  # [N, T], the last opening up to here
    closed = torch.where(ids == closes, place, -1).cummax(1).values  # [N, T]
    before = torch.nn.functional.pad(closed[:, :-1], (1, 0), value=-1)  # [N, T], the last closing before here
    return opened > before


MASKS: dict[str, Callable[[Rollouts, tuple[int, int]], Tensor]] = {  # of rollouts and the delimiters' ids: [N, T] bool
    "policy": lambda rollouts, delimiters: rollouts.mask,
    "delimiter": lambda rollouts, delimiters: rollouts.written & ~within(rollouts.ids, *delimiters),
    "all": lambda rollouts, delimiters: rollouts.written,
}


def delimiter_ids(task: Task, tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """The ids of a task's `delimiters`; raises RlinoError where it has none, or one of several tokens."""
    texts = getattr(task, "delimiters", ())
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    if len(ids) != 2 or any(len(tokens) != 1 for tokens in ids):
        raise RlinoError(NO_DELIMITERS)
    return ids[0][0], ids[1][0]


def counted(trainer: Any, rollouts: Rollouts) -> Rollouts:
    """The rollouts as a `Trainer`'s loss sees them: `mask` is what counts.

    Where that is more than the policy's tokens, a pass of the policy as it is finds the log-probs of the others.
    """
    name = trainer.config.loss_mask
    ids = delimiter_ids(trainer.task, trainer.policy.tokenizer) if name == "delimiter" else (-1, -1)
    mask = MASKS[name](rollouts, ids)  # [N, T]
    if torch.equal(mask, rollouts.mask):
        return rollouts
    seen = replace(rollouts, mask=mask)
    foreign = mask & ~rollouts.mask  # [N, T]
    others = trainer.all_logprobs(seen) if foreign.any() else rollouts.logprobs  # [N, T]
    return replace(seen, logprobs=torch.where(foreign, others, rollouts.logprobs) * mask)
