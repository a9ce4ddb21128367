"""One policy's responses under another: are they what the base would have written at a lower temperature? (Chapter 09)

Yue et al. (2504.13837, §4.1) compare perplexities of two problems' responses under the base. A sharper policy writes
what is likely anyway, so the comparison to make is with samples of the base at the temperature of the same entropy.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import scipy.optimize
import torch

from rlino_lib.analysis.coverage import cell_counts
from rlino_lib.errors import RlinoError
from rlino_lib.policy.logprobs import response_logprobs
from rlino_lib.policy.models import Policy
from rlino_lib.policy.rollouts import Rollouts


class NoTemperature(RlinoError):
    """No temperature of a policy gives what was to be matched."""


def responses_under(policy: Policy, rollouts: Rollouts, *, temperature: float = 1.0, rows: int = 256) -> pd.DataFrame:
    """The log-probs of graded rollouts under a policy, whoever sampled them: a row for each response.

    `problem`, `response`, `correct`, `tokens` (the writer's, its end included), `logprob` = log π(o | q) in nats,
    `per_token` = logprob/tokens, and `perplexity` = exp(−per_token), as Yue et al. have it. `rows` at a time.
    """
    sums = []
    with torch.inference_mode():
        for part in torch.arange(len(rollouts.ids)).split(rows):  # [B]
            logprobs, mask = response_logprobs(policy.model, rollouts, part, temperature)  # [B, T'] each
            sums.append(torch.where(mask, logprobs, 0).double().sum(1).cpu())
    size = rollouts.group_size
    frame = pd.DataFrame(
        {
            "problem": [rollouts.problems[i // size].id for i in range(len(rollouts.ids))],
            "response": rollouts.texts,
            "correct": rollouts.correct.numpy(),
            "tokens": rollouts.lengths.numpy(),
            "logprob": torch.cat(sums).numpy(),
        }
    )
    per_token = frame["logprob"] / frame["tokens"]
    return frame.assign(per_token=per_token, perplexity=np.exp(-per_token))


def matching_samples(
    samples_at: Callable[[float], Rollouts], statistic: Callable[[Rollouts], float], target: float,
    between: tuple[float, float],
) -> tuple[float, Rollouts]:  # fmt: skip
    """The temperature, to 0.01, at which a policy's samples have `target` for a statistic, and the samples there.

    `samples_at` gives the samples at a temperature, best with the same random numbers at each. A search that is sampled
    at a lower temperature can go on for longer, and its tokens be as uncertain on average: where the statistic is flat
    in the temperature, or turns, the match says little, and one that is not, such as the mean length, is the one to
    take. Raises NoTemperature where none between the two gives the target.
    """
    tried: dict[float, tuple[float, Rollouts]] = {}  # the root finder asks for both ends again

    def gap(temperature: float) -> float:
        if temperature not in tried:
            rollouts = samples_at(temperature)
            tried[temperature] = statistic(rollouts) - target, rollouts
        return tried[temperature][0]

    ends = [gap(temperature) for temperature in between]
    if ends[0] * ends[1] > 0:
        values = " to ".join(f"{end + target:.3f}" for end in ends)
        raise NoTemperature(f"temperatures from {between[0]} to {between[1]} give {values}, not {target:.3f}")
    scipy.optimize.brentq(gap, *between, xtol=0.01)
    best = min(tried, key=lambda temperature: abs(gap(temperature)))
    return best, tried[best][1]


def support(under_base: pd.DataFrame, under_model: pd.DataFrame, epsilon: float) -> pd.Series:
    """How many right completions have a probability above ε under the base and under the model, after "The Invisible
    Leash" (2507.14843): both (preserved), base_only (shrunk), model_only (expanded), neither, completions.

    Both frames are `responses_under` of the same rollouts, best those of base and model together; equal responses to a
    problem count once. Raises RlinoError where the rows are not of the same responses.
    """
    keys = ["problem", "response"]
    if not under_base[keys].reset_index(drop=True).equals(under_model[keys].reset_index(drop=True)):
        raise RlinoError("support is compared on the same responses in the same order")
    first = under_base["correct"].to_numpy(bool) & ~under_base.duplicated(keys).to_numpy()
    base, model = (frame["logprob"].to_numpy()[first] > np.log(epsilon) for frame in (under_base, under_model))
    return pd.Series(cell_counts(base, model) | {"completions": int(first.sum())})
