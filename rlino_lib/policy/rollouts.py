"""What sampling returns and everything after it reads: whole groups of responses, padded (chapter 04)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import cast

import torch

from rlino_lib.errors import RlinoError
from rlino_lib.tasks import Grade, Problem, Task
from rlino_lib.tasks.base import TaskWithLots


@dataclass
class Rollouts:
    """Groups of sampled responses: the one structure that passes between sampling, weighting, recording and looking.

    N = P·G rows; the rows of a group stand together. T is the longest response, S the longest prompt. Losses, lengths,
    entropies and log-prob means are over `mask`: the tokens that the policy wrote. Prefixes and what an environment
    wrote belong to the response too, as context of the tokens after them and as part of the text that is graded.
    """

    prompts: list[str]  # P
    prompt_ids: torch.Tensor  # [P, S] int64, left padded
    prompt_mask: torch.Tensor  # [P, S] bool
    ids: torch.Tensor  # [N, T] int64, pad after the end
    mask: torch.Tensor  # [N, T] bool, True on the response tokens that the policy wrote, EOS included
    logprobs: torch.Tensor  # [N, T] float32, nats, under the sampling temperature; 0 where masked
    entropies: torch.Tensor  # [N, T] float32, nats, of the full next-token distribution; 0 where masked
    truncated: torch.Tensor  # [N] bool, neither EOS nor a stop string within the cap
    texts: list[str]  # N, whole responses decoded without special tokens
    group_size: int  # G
    problems: list[Problem] = field(default_factory=list)  # P
    grades: list[Grade] = field(default_factory=list)  # N
    written: torch.Tensor = None  # [N, T] bool, True on all response tokens, whoever wrote them; by default the mask
    certainty: dict[str, torch.Tensor] = field(default_factory=dict)  # [N] float32 by judge, for rewards that read it
    lots: list[int] | None = None  # N, for a task whose openings and rewards are drawn (`TaskWithLots`)

    def __post_init__(self) -> None:
        self.written = self.mask if self.written is None else self.written

    @property
    def lengths(self) -> torch.Tensor:
        """The policy's tokens in each row, EOS included, [N] int64."""
        return self.mask.sum(1)

    @property
    def rewards(self) -> torch.Tensor:
        """The grader's rewards, [N] float32."""
        return torch.tensor([g.reward for g in self.grades])

    @property
    def correct(self) -> torch.Tensor:
        """The grader's verdicts, [N] bool."""
        return torch.tensor([g.correct for g in self.grades])

    def rows(self) -> list[tuple[Problem, str]]:
        """The problem and the text of each response, N of them."""
        return [(self.problems[i // self.group_size], text) for i, text in enumerate(self.texts)]

    def grade(self, task: Task, problems: Sequence[Problem]) -> Rollouts:
        """Fill in problems and grades, and return self. Raises RlinoError unless there is one problem per prompt."""
        if len(problems) != len(self.prompts):
            raise RlinoError(f"{len(problems)} problems for {len(self.prompts)} prompts")
        self.problems = list(problems)
        rows = self.rows()
        if self.lots is None:
            grade = cache(task.grade)  # of many samples of a problem some are the same
            self.grades = [grade(*row) for row in rows]
        else:
            by_lot = cast(TaskWithLots, task).grade_by_lot
            self.grades = [by_lot(*row, lot) for row, lot in zip(rows, self.lots, strict=True)]
        return self

    def sequences(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompt and response in one row: ids [N, S+T] int64, and the attention mask [N, S+T] bool."""
        rows = torch.arange(len(self.ids)) // self.group_size
        ids = torch.cat([self.prompt_ids[rows], self.ids], 1)  # [N, S+T]
        mask = torch.cat([self.prompt_mask[rows], self.written], 1)  # [N, S+T]
        return ids, mask
