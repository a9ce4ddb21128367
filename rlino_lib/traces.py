"""What a run keeps of its rollouts: whole groups, token by token, as rows of rollouts.jsonl."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from rlino_lib.rollout import Rollouts


def trace_rows(
    rollouts: Rollouts, credit: Mapping[str, torch.Tensor], step: int, groups: int, tokenizer
) -> Iterator[dict[str, Any]]:
    """One row a response of the first `groups` groups: text, tokens, what the grader said, and each token's weight.

    `credit` holds `advantage` [N] and `weights` [N, T].
    """
    for i in range(min(groups, len(rollouts.prompts)) * rollouts.group_size):
        g = i // rollouts.group_size
        problem, grade, mask = rollouts.problems[g], rollouts.grades[i], rollouts.mask[i]
        yield {
            "step": step,
            "group": g,
            "sample": i % rollouts.group_size,
            "problem_id": problem.id,
            "data": dict(problem.data),
            "gold": problem.gold,
            "prompt": rollouts.prompts[g],
            "response": rollouts.texts[i],
            "tokens": [tokenizer.decode([t]) for t in rollouts.ids[i][mask].tolist()],
            "logprobs": _short(rollouts.logprobs[i][mask]),
            "entropies": _short(rollouts.entropies[i][mask]),
            "weights": _short(credit["weights"][i][mask]),
            "reward": grade.reward,
            "advantage": _short(credit["advantage"][i : i + 1])[0],
            "correct": grade.correct,
            "format_ok": grade.format_ok,
            "answer": grade.answer,
            "reason": grade.reason,
            "length": int(mask.sum()),
            "clipped": bool(rollouts.clipped[i]),
        }


def _short(values: torch.Tensor) -> list[float]:
    return [float(f"{v:.4g}") for v in values.tolist()]
