"""The scores ∇log π of sampled responses: what it takes to compare the gradients of any two methods."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlino_lib.errors import RlinoError
from rlino_lib.methods.groups import batch_weights
from rlino_lib.policy.logprobs import response_logprobs
from rlino_lib.policy.models import Policy
from rlino_lib.policy.rollouts import Rollouts


@dataclass(frozen=True)
class Scores:
    """Sampled groups with the scalar products of their scores: gram [N, N] float64, ∇log π(o_i) · ∇log π(o_j).

    A method that gives every token of a response one weight has the gradient Σ_i w_i ∇log π(o_i), so `gram` is all it
    takes to compare the gradients of any two. tokens: N lists of text; cap: the length L at which responses are
    truncated.
    """

    rollouts: Rollouts
    tokens: list[list[str]]
    gram: Tensor
    cap: int

    def __repr__(self) -> str:
        return f"Scores({len(self.rollouts.prompts)} groups of {self.rollouts.group_size})"

    def weights(self, method: str) -> Tensor:
        """The weight of a token of each response, [N] float64. Raises RlinoError for a method that has none."""
        r = self.rollouts
        return batch_weights(method, r.rewards, r.group_size, r.mask, self.cap)[1][:, 0]

    def product(self, a: Tensor, b: Tensor, rows: slice = slice(None)) -> float:
        """The scalar product of two gradients Σ_i w_i ∇log π(o_i), from their weights [N], over some rows."""
        return (a[rows] @ self.gram[rows, rows] @ b[rows]).item()

    def factor(self, a: Tensor, b: Tensor) -> float:
        """The number by which b's gradient is as long as a's on the batch; 1 where one is 0."""
        squares = self.product(a, a), self.product(b, b)
        return (squares[0] / squares[1]) ** 0.5 if min(squares) > 0 else 1.0

    def cosine(self, a: Tensor, b: Tensor, rows: slice = slice(None)) -> float:
        """The cosine of two gradients; nan where one is 0."""
        size = self.product(a, a, rows) * self.product(b, b, rows)
        return self.product(a, b, rows) / size**0.5 if size > 0 else float("nan")


def score_rows(policy: Policy, rollouts: Rollouts, cap: int) -> Scores:
    """One backward pass for each sampled response; `cap` is the length at which they are truncated.

    Raises RlinoError for responses that were not graded.
    """
    if len(rollouts.grades) != len(rollouts.ids):
        raise RlinoError("grade the rollouts before comparing methods on them")
    params = [p for p in policy.model.parameters() if p.requires_grad]
    scores = []
    for row in range(len(rollouts.ids)):
        logprobs, mask = response_logprobs(policy.model, rollouts, torch.tensor([row]))  # [1, T'] each
        gradients = torch.autograd.grad((logprobs * mask).sum(), params, materialize_grads=True)
        scores.append(torch.cat([g.flatten() for g in gradients]).double())
    matrix = torch.stack(scores)  # [N, parameters]
    tokens = [
        [policy.tokenizer.decode([t]) for t in ids[written].tolist()]
        for ids, written in zip(rollouts.ids, rollouts.mask, strict=True)
    ]
    return Scores(rollouts, tokens, (matrix @ matrix.T).cpu(), cap)


def sample_names(scores: Scores, group: int) -> list[str]:
    """A line for each response of a group: its number from 1, the verdict, its length."""
    r = scores.rollouts
    rows = rows_of(scores, group)
    responses = zip(r.correct[rows].tolist(), r.lengths[rows].tolist(), strict=True)
    return [f"{j + 1}: {'right' if right else 'wrong'}, {n} tokens" for j, (right, n) in enumerate(responses)]


def first_mixed(scores: Scores) -> int:
    """The first group with right and wrong responses, or group 0."""
    k = scores.rollouts.correct.view(-1, scores.rollouts.group_size).sum(1)  # [P]
    mixed = ((k > 0) & (k < scores.rollouts.group_size)).nonzero()
    return int(mixed[0]) if len(mixed) else 0


def rows_of(scores: Scores, group: int) -> slice:
    if not 0 <= group < len(scores.rollouts.prompts):
        raise RlinoError(f"group {group} of {len(scores.rollouts.prompts)}: count from 0")
    g = scores.rollouts.group_size
    return slice(group * g, (group + 1) * g)
