"""The responses of a batch during sampling: tokens so far, who wrote them, which rows go on (chapter 04)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from rlino_lib.policy.stopping import Ends, StopStrings
from rlino_lib.tasks.base import Environment


class Draft:
    """Responses under way: B of N rows are still in the batch. Each row's text begins with its prefix, often empty.

    Time comes first in the buffers, so that a step writes one row of them. It counts from the start of the longest
    prefix, of W tokens, and all prefixes end together; what stands before a shorter one is −1. What a row writes after
    its end, until it leaves the batch, is not part of its text.
    """

    def __init__(
        self, prefixes: torch.Tensor, limits: torch.Tensor, pad: int, ends: Ends, replies: Replies | None = None
    ) -> None:
        """prefixes [N, W] int64, −1 left of the shorter ones; limits [N]: the tokens that may follow a row's prefix."""
        device = ends.ids.device
        n, self.window = prefixes.shape
        steps = int(limits.max())
        whole = self.window + steps
        self.pad, self.ends, self.replies = pad, ends, replies
        self.ids = torch.full((whole, n), pad, device=device)  # [W+T, N]
        self.logprobs = torch.zeros(whole, n, device=device)  # [W+T, N]
        self.entropies = torch.zeros(whole, n, device=device)  # [W+T, N]
        self.written = torch.zeros(whole, n, dtype=torch.bool, device=device)  # [W+T, N], part of the row's text
        self.foreign = torch.zeros(whole, n, dtype=torch.bool, device=device)  # [W+T, N], not the policy's
        self.truncated = torch.zeros(n, dtype=torch.bool, device=device)  # [N]
        self.rows = torch.arange(n, device=device)  # [B], which of the N rows each row of the batch is
        self.alive = torch.ones(n, dtype=torch.bool, device=device)  # [B], those that have not ended
        self.newest = self.rows  # [B], the newest token of each; none so far
        self.left = n  # of them
        self.time = self.window
        self.limits = (self.window + limits).to(device) if int(limits.min()) < steps else None  # [N], in time
        if self.window:
            self.ids[: self.window] = prefixes.t()
            self.written[: self.window] = prefixes.t() >= 0
            self.foreign[: self.window] = True
            if replies:
                self._ask(self.written[self.window - 1])

    def add(self, tokens: torch.Tensor, logprobs: torch.Tensor, entropies: torch.Tensor) -> None:
        """Write the next k tokens of each row, arguments [k, B], and see which rows end with one of them.

        An environment's token may stand in place of one; it reads each token of the policy, and then k is 1.
        """
        rows = self.rows
        k = len(tokens)
        span = slice(self.time, self.time + k)
        if self.replies:
            tokens, self.foreign[span, rows] = self.replies.put_in(rows, tokens)
        self.ids[span, rows] = tokens
        self.logprobs[span, rows] = logprobs
        self.entropies[span, rows] = entropies
        self.newest = tokens[-1]
        self.time += k
        stops = self._ends(tokens)  # [k, B]
        full = None  # [k, B], where a row is at its limit and does not end
        if self.limits is not None:
            times = torch.arange(self.time - k + 1, self.time + 1, device=rows.device)  # [k]
            full = (self.limits[rows] <= times[:, None]) & ~stops
            stops = stops | full
        alive = self.alive & (stops.cumsum(0) == stops)  # [k, B], before each of the tokens
        self.written[span, rows] = alive
        if full is not None:
            self.truncated[rows] |= (full & alive).any(0)
        self.alive = alive[-1] & ~stops[-1]
        self.left = int(self.alive.sum())
        if self.replies:
            own = self.alive & ~self.foreign[self.time - 1, rows]  # [B]
            self._ask(self.replies.triggers.reached(self._tail(self.replies.triggers, k), own[None])[0])

    def _ends(self, tokens: torch.Tensor) -> torch.Tensor:
        """Where a row would end that goes on until then, for its newest tokens [k, B]: [k, B] bool."""
        ends = (tokens[..., None] == self.ends.ids).any(-1)
        if self.ends.strings:
            ends |= self.ends.strings.reached(self._tail(self.ends.strings, len(tokens)), self.alive & ~ends)
        return ends

    def _tail(self, strings: StopStrings, k: int) -> torch.Tensor:
        """The newest k tokens of each row and those before that a stop string reaches, [≤ reach + k − 1, B]."""
        return self.ids[max(0, self.time - k + 1 - strings.reach) : self.time, self.rows]

    def _ask(self, where: torch.Tensor) -> None:
        """Let the environment read some rows of the batch, [B] bool."""
        for row in self.rows[where].tolist():
            end = len(self.ids) if self.limits is None else int(self.limits[row])
            text = self.ids[: self.time, row][self.written[: self.time, row]]
            self.replies.ask(row, text, limit=end - self.time - 1)

    def is_over(self) -> bool:
        """Whether every row has ended or reached the cap."""
        return not self.left or self.time == len(self.ids)

    def leave(self) -> torch.Tensor | None:
        """Take the rows that have ended out of the batch: [B'], the places of those that go on.

        The last rows fill the places of those that leave, so that few have to be moved. None while they are few.
        """
        if self.left > 0.95 * len(self.alive):
            return None
        keep = torch.arange(self.left, device=self.rows.device)  # [B']
        keep[~self.alive[: self.left]] = self.left + self.alive[self.left :].nonzero()[:, 0]
        self.rows, self.newest, self.alive = self.rows[keep], self.newest[keep], self.alive[keep]
        return keep

    def columns(self) -> tuple[torch.Tensor, ...]:
        """ids, mask, written, log-probs and entropies of `Rollouts`, each [N, T], and truncated [N], on the CPU."""
        self.truncated[self.rows] |= self.alive
        self.time = 1 + int(self.written.any(1).nonzero()[-1])  # the last block may go on after all rows have ended
        written = self.written[: self.time]  # [W+T, N]
        mask = written & ~self.foreign[: self.time]  # [W+T, N]
        filled = [
            values[: self.time].masked_fill(~where, fill)
            for values, where, fill in (
                (self.ids, written, self.pad), (self.logprobs, mask, 0.0), (self.entropies, mask, 0.0)
            )
        ]  # fmt: skip
        columns = [filled[0], mask, written, *filled[1:]]
        if self.window:  # rows begin where their prefixes do, and what stands before them goes to their end
            first = written.int().argmax(0)  # [N]
            longest = torch.arange(int(written.sum(0).max()), device=first.device)  # [T]
            place = (first + longest[:, None]) % self.time  # [T, N]
            columns = [column.gather(0, place) for column in columns]
        return *(column.t().cpu() for column in columns), self.truncated.cpu()


class Replies:
    """The answers of environments, written one token at a time in place of the policy's samples."""

    def __init__(
        self, environments: Sequence[Environment], tokenizer: PreTrainedTokenizerBase, device: torch.device
    ) -> None:
        """environments: N, that of each row; all are consulted after what any of them is consulted after."""
        self.environments, self.tokenizer = environments, tokenizer
        after = dict.fromkeys(text for environment in environments for text in environment.after)
        self.triggers = StopStrings(tokenizer, tuple(after), device)
        self.waiting: dict[int, list[int]] = {}  # row -> tokens that are still to be written

    def ask(self, row: int, ids: torch.Tensor, limit: int) -> None:
        """Show a row's environment what the row has written, ids [t]; at most `limit` tokens of its answer are kept."""
        answer = self.environments[row].answer(self.tokenizer.decode(ids, skip_special_tokens=True))
        if answer:
            self.waiting[row] = self.tokenizer(answer, add_special_tokens=False)["input_ids"][:limit]

    def put_in(self, rows: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens [1, B] with answers in place of some, and which those are, [1, B] bool; rows [B] int64."""
        replaced = [bool(self.waiting.get(row)) for row in rows.tolist()]
        ids = [self.waiting[row].pop(0) for row, here in zip(rows.tolist(), replaced, strict=True) if here]
        where = torch.tensor([replaced], device=tokens.device)  # [1, B]
        return tokens.masked_scatter(where, torch.tensor(ids, dtype=tokens.dtype, device=tokens.device)), where
