"""Rewards of responses: a table, of which a run names a weighted sum (chapters 04 and 08).

The size of the verifier's own reward is the setting `rewards` of a task: `tasks.base.REWARD_SCHEMES`.
"""

import re
from typing import Any

from torch import Tensor

from rlino_lib.errors import RlinoError, chosen
from rlino_lib.methods.terms import Term

# Each from N graded responses to [N]. It may read their `rewards` [N] float32 and verdicts `correct` [N] bool, both the
# verifier's, their `lengths` [N] int64, and the sampler's `logprobs` [N, T] float32; `Rollouts` has them.
REWARDS = {
    "verifier": Term(lambda responses: responses.rewards, "the verifier's reward"),
    "correct": Term(lambda responses: responses.correct.float(), "1 if right, else 0"),
    # RLSP, 2502.06773, rewards length as exploration; as a function of |o| it grows ever more slowly.
    "length_bonus": Term(lambda responses: -1 / responses.lengths.clamp_min(1).float(), "−1/|o_i|"),
    # The self-reward of sharpening, 2412.01951 §2: what the policy itself thinks likely, and no verifier.
    "log_likelihood": Term(lambda responses: responses.logprobs.sum(1), "Σ_t log π_old(o_it)"),
}
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
