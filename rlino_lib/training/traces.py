"""The records of rollouts in a run: whole groups token by token, and one row of counts per held-out response."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from rlino_lib.methods.loss import token_weights
from rlino_lib.methods.objective import Objective
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.tasks import Problem, Task
from rlino_lib.training.sft import Example


def trace_rows(
    rollouts: Rollouts, weighting: Mapping[str, torch.Tensor], step: int, groups: int, tokenizer
) -> Iterator[dict[str, Any]]:
    """One row per response of the first `groups` groups: text, tokens, the grader's verdict, and each token's weight.

    `weighting` holds `advantage` [N] and `weights` [N, T]. `foreign` says of each token whether somebody else wrote it
    than the policy; it is there where a response has such tokens.
    """
    for i in range(min(groups, len(rollouts.prompts)) * rollouts.group_size):
        g = i // rollouts.group_size
        problem = rollouts.problems[g]
        grade = rollouts.grades[i]
        written = rollouts.written[i]  # [T]
        foreign = (~rollouts.mask[i][written]).int().tolist()  # |o|
        yield {
            "step": step,
            "group": g,
            "sample": i % rollouts.group_size,
            "problem_id": problem.id,
            "data": dict(problem.data),
            "gold": problem.gold,
            "prompt": rollouts.prompts[g],
            "response": rollouts.texts[i],
            "tokens": [tokenizer.decode([t]) for t in rollouts.ids[i][written].tolist()],
            "logprobs": _short(rollouts.logprobs[i][written]),
            "entropies": _short(rollouts.entropies[i][written]),
            "weights": _short(weighting["weights"][i][written]),
            "reward": grade.reward,
            "advantage": _short(weighting["advantage"][i : i + 1])[0],
            **{name: getattr(grade, name) for name in ("correct", "format_ok", "answer", "reason")},
            "length": int(rollouts.lengths[i]),
            "clipped": bool(rollouts.truncated[i]),
            **({"foreign": foreign} if any(foreign) else {}),
        }


def policy_weighting(
    objective: Objective, advantages: torch.Tensor, keep: torch.Tensor, mask: torch.Tensor, cap: int
) -> dict[str, torch.Tensor]:
    """The weight of each row in an update by an objective, in the form that `trace_rows` takes.

    advantages [N], or [N, T] for credit per token, of which each row's mean is kept; keep [N], the rows of the update;
    mask [N, T], the tokens that its loss counts.
    """
    weights = torch.zeros(mask.shape)  # [N, T]
    weights[keep] = token_weights(objective, advantages[keep], mask[keep], cap)
    if advantages.ndim == 2:
        advantages = (advantages * mask).sum(1) / mask.sum(1).clamp_min(1)  # [N]
    return {"advantage": advantages, "weights": weights}


def supervised_weighting(dataset: Iterable[Example], rollouts: Rollouts) -> dict[str, torch.Tensor]:
    """The same for an update on a data set of examples; 0 for sampled rows that are not in it."""
    signed = torch.zeros(len(rollouts.ids))  # [N]
    for e in dataset:
        signed[e.row] = e.sign * e.weight
    per_token = signed[:, None] * rollouts.mask / rollouts.lengths[:, None] / len(signed)  # [N, T]
    return {"advantage": signed, "weights": per_token}


def response_rows(rollouts: Rollouts, task: Task, step: int, final: bool) -> Iterator[dict[str, Any]]:
    """One row of numbers per held-out response: its problem, whether right or truncated, its length, the task's counts.

    `final` marks the test after training, as against an evaluation during it.
    """
    counts: Callable[[Problem, str], dict] = getattr(task, "counts", lambda problem, text: {})
    facts = zip(rollouts.texts, rollouts.grades, rollouts.truncated.tolist(), rollouts.lengths.tolist(), strict=True)
    for i, (text, grade, truncated, length) in enumerate(facts):
        problem = rollouts.problems[i // rollouts.group_size]
        yield {
            "step": step,
            "final": int(final),
            "problem_id": problem.id,
            "sample": i % rollouts.group_size,
            "correct": int(grade.correct),
            "clipped": int(truncated),
            "length": length,
            **counts(problem, text),
        }


def _short(values: torch.Tensor) -> list[float]:
    return [float(f"{v:.4g}") for v in values.tolist()]
