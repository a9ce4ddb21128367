"""Where a response ends: with EOS, or with the token that completes a stop string (chapter 02)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from rlino_lib.policy.models import Policy, eos_ids

_COMPLETING: WeakKeyDictionary[PreTrainedTokenizerBase, dict[tuple[str, ...], torch.Tensor]] = WeakKeyDictionary()


class StopStrings:
    """Finds the rows whose newest token completes a stop string; texts are decoded for few rows.

    A token can complete one only if it contains it, or starts with an end of it. Those tokens are listed once per
    tokenizer, and only the rows that have just sampled one are decoded, as far back as a stop string reaches.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, strings: Sequence[str], device: torch.device) -> None:
        self.tokenizer = tokenizer
        self.strings = tuple(s for s in strings if s)
        by_strings = _COMPLETING.setdefault(tokenizer, {})
        if self.strings not in by_strings:
            by_strings[self.strings] = self._completing()
        self.completing = by_strings[self.strings].to(device)  # [tokens] bool
        self.reach = 1 + max((len(s.encode()) for s in self.strings), default=0)  # a token is a byte at least

    def __bool__(self) -> bool:
        return bool(self.strings)

    def _decode(self, ids: Sequence) -> list[str]:
        return self.tokenizer.batch_decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def _completing(self) -> torch.Tensor:
        ends = tuple(s[k:] for s in self.strings for k in range(len(s)))
        # Some tokenizers drop a space before a token's text, and a token can be part of a character.
        anything = any(s[-1].isspace() for s in self.strings)
        parts = any(not s.isascii() for s in self.strings)
        texts = self._decode([[i] for i in range(len(self.tokenizer))]) if self.strings else []
        completing = [
            anything or not t or t.startswith(ends) or any(s in t for s in self.strings) or (parts and "\ufffd" in t)
            for t in texts
        ]
        return torch.tensor(completing, dtype=torch.bool)

    def reached(self, ids: torch.Tensor, alive: torch.Tensor) -> torch.Tensor:
        """Where rows end with one of their newest k tokens, [k, B] bool, should they not have ended before.

        ids [t, B] int64: the last tokens of each row, the newest k and before them as many as a stop string reaches;
        −1 stands for no token. alive [k, B] bool: tokens elsewhere are not read.
        """
        newest = ids[len(ids) - len(alive) :]  # [k, B]
        inside = newest < len(self.completing)  # a model may have more entries than its tokenizer
        near = alive & inside & self.completing[newest.where(inside, 0)]  # [k, B]
        ends = torch.zeros_like(alive)
        if near.any():
            places = near.nonzero()  # [n, 2]
            last = places[:, 0] + len(ids) - len(alive)  # [n]
            before = (last[:, None] + torch.arange(1 - self.reach, 1, device=ids.device)).clamp_min(-1)  # [n, reach]
            windows = ids[before.clamp_min(0), places[:, 1:]].where(before >= 0, -1)  # [n, reach]
            texts = self._decode([[i for i in row if i >= 0] for row in windows.tolist()])
            ends[near] = torch.tensor([any(s in t for s in self.strings) for t in texts], device=ids.device)
        return ends


class Ends(NamedTuple):
    """What ends a response."""

    ids: torch.Tensor  # [E] int64, tokens that do
    strings: StopStrings

    @classmethod
    def of(cls, policy: Policy, stop_strings: Sequence[str], ignored: bool = False) -> Ends:
        """EOS and some strings, or nothing if they are `ignored`."""
        device = policy.model.device
        ids = torch.tensor([] if ignored else eos_ids(policy), dtype=torch.long, device=device)
        return cls(ids, StopStrings(policy.tokenizer, () if ignored else stop_strings, device))
