"""Rewards of responses: a table, of which a run names a weighted sum (chapters 04 and 08).

The size of the verifier's own reward is the setting `rewards` of a task: `tasks.base.REWARD_SCHEMES`.
"""

import re
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from rlino_lib.errors import RlinoError, chosen
from rlino_lib.methods.terms import Term


def _of_majority(responses: Any) -> Tensor:
    """1 on the responses of each group whose answer is its most frequent one, the first of several; [N] float32.

    Answers are the same where the task's grader takes them for the same; what it cannot read is no vote.
    """
    size = responses.group_size
    values = [grade.value for grade in responses.grades]
    agrees: list[bool] = []
    for start in range(0, len(values), size):
        group = values[start : start + size]
        votes = Counter(value for value in group if value is not None)
        winner = votes.most_common(1)[0][0] if votes else None
        agrees += [value is not None and value == winner for value in group]
    return torch.tensor(agrees).float()


# Each from N graded responses to [N]. It may read their `rewards` [N] float32, their `grades` and verdicts `correct`
# [N] bool, all the verifier's, their `lengths` [N] int64, the sampler's `logprobs` and `entropies` [N, T] float32, and
# `certainty` [N] of a judge; `Rollouts` has them.
REWARDS = {
    "verifier": Term(lambda responses: responses.rewards, "the verifier's reward"),
    "correct": Term(lambda responses: responses.correct.float(), "1 if right, else 0"),
    # RLSP, 2502.06773, rewards length as exploration; as a function of |o| it grows ever more slowly.
    "length_bonus": Term(lambda responses: -1 / responses.lengths.clamp_min(1).float(), "−1/|o_i|"),
    # The self-reward of sharpening, 2412.01951 §2: what the policy itself thinks likely, and no verifier.
    "log_likelihood": Term(lambda responses: responses.logprobs.sum(1), "Σ_t log π_old(o_it)"),
    # RENT, 2505.22660.
    "negative_entropy": Term(
        lambda responses: -responses.entropies.sum(1) / responses.lengths.clamp_min(1), "−1/|o_i| Σ_t H_it"
    ),
    # Intuitor, 2505.19590 eq. 3, U uniform over the vocabulary: judged by the policy as it is, or by the base for good.
    "self_certainty": Term(lambda responses: responses.certainty["policy"], "1/|o_i| Σ_t KL(U ‖ π_old)_it"),
    "base_certainty": Term(lambda responses: responses.certainty["base"], "1/|o_i| Σ_t KL(U ‖ ref)_it"),
    "majority": Term(_of_majority, "1 if the answer is its group's most frequent one, else 0"),  # TTRL, 2504.16084
    "format": Term(
        lambda responses: torch.tensor([grade.format_ok for grade in responses.grades]).float(),
        "1 if well formed, else 0",
    ),
    # 2506.10947; drawn by torch's own generator, whose state is part of a checkpoint.
    "random": Term(lambda responses: torch.randint(2, (len(responses.grades),)).float(), "a fair coin, 0 or 1"),
}
ONE_OR_ZERO = ("correct", "majority", "format", "random")  # rewards that are 1 or 0, whatever the verifier's are
# Whose certainty a reward reads, for those that read one.
JUDGES = {"self_certainty": "policy", "base_certainty": "base"}
_TERM = re.compile(r"([+-]?)(?:(\d+(?:\.\d*)?|\.\d+)\*)?([a-z]\w*)")


def reward_weights(reward: str) -> dict[str, float]:
    """The weights in a sum of rewards: {"verifier": 1.0, "length_bonus": 0.5} of "verifier + 0.5*length_bonus".

    Raises RlinoError for a malformed sum and for unknown rewards.
    """
    terms = [_TERM.fullmatch(part) for part in re.findall(r"[+-]?[^+-]*", reward.replace(" ", "")) if part]
    if not terms or not all(terms):
        raise RlinoError(f"a reward is a sum such as verifier + 0.5*length_bonus, not {reward!r}")
    weights: dict[str, float] = {}
    for sign, factor, name in (term.groups() for term in terms):
        chosen(name, REWARDS, "reward")
        weights[name] = weights.get(name, 0.0) + float(f"{sign}{factor or 1}")
    return weights


def judges(reward: str) -> list[str]:
    """Whose certainty a sum of rewards reads, of "policy" and "base". Raises RlinoError as `reward_weights` does."""
    return [JUDGES[name] for name in reward_weights(reward) if name in JUDGES]


def reward_of(reward: str, responses: Any) -> Tensor:
    """The sum of rewards that `reward` names, [N] float32: `reward_of("verifier + 0.5*length_bonus", rollouts)`.

    Raises RlinoError as `reward_weights` does.
    """
    return sum(weight * REWARDS[name].of(responses) for name, weight in reward_weights(reward).items())


def overlong_penalty(lengths: Tensor, max_response_length: int, share: float) -> Tensor:
    """DAPO's soft punishment [N] (2503.14476 eq. 13) of response lengths [N]: 0 up to L_max − L_c, then down to −1.

    L_c is `share` of L_max (the paper: 4096 of 20480). float64.
    """
    buffer = share * max_response_length
    return ((max_response_length - buffer - lengths.double()) / buffer).clamp(-1, 0)  # [N]
