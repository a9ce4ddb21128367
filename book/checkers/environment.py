"""Checkers of chapter 10b's exercises: an environment that writes into the state."""

import numpy as np

from checkers.check import Solution, exercise

_POLICY, _ENVIRONMENT = "policy", "environment"
_RESPONSES = (
    ([_POLICY, _ENVIRONMENT, _ENVIRONMENT, _POLICY], [5, 8, 9, 3], 8, 9),
    ([_POLICY, _POLICY, _POLICY, _POLICY, _POLICY], [8, 4, 9, 6, 7], 8, 9),  # the policy writes delimiters itself
    ([_POLICY, _ENVIRONMENT, _ENVIRONMENT, _ENVIRONMENT, _ENVIRONMENT], [2, 8, 7, 9, 6], 8, 9),  # a line break after it
)


@exercise("loss_mask", *_RESPONSES)
def check_loss_mask(writers: list[str], ids: list[int], opens: int, closes: int) -> Solution:
    """`loss_mask(writers, ids, opens, closes)`: of each of T tokens, 1 if the loss is to count it and else 0.

    `writers` says "policy" or "environment" of each token, `ids` which token it is, `opens` and `closes` are the ids of
    the environment's delimiters.
    """
    right = [int(writer == _POLICY) for writer in writers]
    inside, between = [], False
    for token in ids:
        between = between or token == opens
        inside.append(between)
        between = between and token != closes
    strictly = [within and token not in (opens, closes) for within, token in zip(inside, ids, strict=True)]
    return right, {
        "all but what stands between delimiters: look at who wrote a token, not at what it is": [
            int(not within) for within in inside
        ],
        "all but what stands strictly between delimiters, and these count": [int(not within) for within in strictly],
        "the other way round: these are the environment's tokens": [1 - kept for kept in right],
        "every token counts": [1] * len(ids),
        "delimiters that the policy wrote are its own choice": [
            int(kept and token not in (opens, closes)) for kept, token in zip(right, ids, strict=True)
        ],
    }


@exercise("best_use_of_a_look", (2, 0.0), (5, 0.2), (5, 0.9), (3, 2 / 3), (2, 1.0))
def check_best_use_of_a_look(targets: int, lies: float) -> Solution:
    """`best_use_of_a_look(targets, lies)`: the best chance to name one of so many equally likely targets, after a look.

    With chance `lies` the look shows one of the other targets, equally likely too.
    """
    trust, distrust = 1 - lies, lies / (targets - 1)
    fixed = 1 / targets
    return max(trust, distrust), {
        "a look that lies often enough is best read as a hint at the others": trust,
        "1/R is what a response fixed beforehand gets: it does not read the look": fixed,
        "the larger of trust and ignoring it: against a liar there is something better still": max(trust, fixed),
        "a lie is spread over the R − 1 other targets, and one of them has to be named": max(trust, lies),
        "a lie is spread over the R − 1 others, not over all R": max(trust, lies / targets),
        "each policy has one answer to each look: take the better one, not a mean of both": np.mean([trust, distrust]),
    }
