"""Checkers of the exercises of chapters 11 and 11b: preferences, a group's majority, entropy, hypotheses."""

from collections import Counter

import numpy as np

from checkers.check import Solution, exercise


def _sigmoid(x: float) -> float:
    return 1 / (1 + np.exp(-x))


@exercise("dpo_weights", (0.0, 0.0, 0.1), (3.0, -5.0, 0.1), (-4.0, 6.0, 0.5), (2.0, 1.0, 1.0))
def check_dpo_weights(chosen: float, rejected: float, beta: float) -> Solution:
    """`dpo_weights(chosen, rejected, beta)`: the weights of ∇log π of a chosen and of a rejected response under DPO.

    `chosen` and `rejected` are their Δ, how far the policy has moved on them since the round began, in nats.
    """

    def weights(slope: float) -> list[float]:
        return [slope, -slope]

    margin = beta * (chosen - rejected)
    return weights(beta * _sigmoid(-margin)), {
        "the weight of the first step: later ones depend on Δ": weights(beta / 2),
        "a pair that is told apart weighs less, not more: σ(−βΔ)": weights(beta * _sigmoid(margin)),
        "the slope of the loss has a factor β": weights(_sigmoid(-margin)),
        "β stands inside of σ too": weights(beta * _sigmoid(rejected - chosen)),
        "the rejected response is pushed down": [beta * _sigmoid(-margin)] * 2,
        "this is the loss, not its slope": weights(-np.log(_sigmoid(margin))),
        "each side by its own Δ: the weight is of the pair": [
            beta * _sigmoid(-beta * chosen), -beta * _sigmoid(beta * rejected)
        ],
    }  # fmt: skip


_GROUPS = ((["7", "9", "7", None],), ([None, None, None, "4"],), ([None, None],), (["1", "2", "2", "1", "2"],))


@exercise("majority_rewards", *_GROUPS)
def check_majority_rewards(answers: list[str | None]) -> Solution:
    """`majority_rewards(answers)`: for each response of a group 1 if its answer is the most frequent one, else 0.

    An answer is None where a response has none: that is no vote.
    """
    votes = Counter(answer for answer in answers if answer is not None)
    winner = max(votes, key=lambda answer: votes[answer]) if votes else None
    with_none = Counter(answers).most_common(1)[0][0]
    half = {answer for answer, count in votes.items() if 2 * count > len(answers)}
    return [int(answer is not None and answer == winner) for answer in answers], {
        "no answer is no vote": [int(answer == with_none) for answer in answers],
        "where nobody has an answer nobody is rewarded": [int(answer == winner) for answer in answers],
        "the most frequent answer needs no half of the votes": [int(answer in half) for answer in answers],
        "a vote and not a count: 1 for the most frequent answer": [
            votes[answer] if answer else 0 for answer in answers
        ],
        "a share of votes and not a vote": [votes[answer] / len(answers) if answer else 0 for answer in answers],
    }


_POLICIES = (
    ([0.7, 0.2, 0.1], [1.0, 0.0, 0.0]),
    ([0.7, 0.2, 0.1], [0.0, 0.0, 1.0]),
    ([0.25, 0.25, 0.25, 0.25], [0.3, 0.1, 0.9, 0.0]),
)


def _covariance(p: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    return float(p @ (x * y) - (p @ x) * (p @ y))


@exercise("entropy_slope", *_POLICIES)
def check_entropy_slope(probs: list[float], rewards: list[float]) -> Solution:
    """`entropy_slope(probs, rewards)`: the change of a softmax's entropy per unit of a small natural-gradient step.

    It is −Cov(log π, r) over actions that are drawn from π.
    """
    p, r = np.array(probs), np.array(rewards)
    log = np.log(p)
    moves = p * (r - p @ r)
    return -_covariance(p, log, r), {
        "where likely actions are good, entropy falls: the sign": _covariance(p, log, r),
        "actions are drawn from π: the means are weighted by it": -float(np.cov(log, r, ddof=0)[0, 1]),
        "log π and not π": -_covariance(p, p, r),
        "that is the policy gradient's, with π A in place of r": -_covariance(p, log, moves),
        "a covariance takes the product of the means off": -float(p @ (log * r)),
    }


_BELIEFS = (
    ([1.0, 0.0], [0.5, 0.5], [0.0], [[1.0], [0.0]], 1.0),
    ([0.2, 0.6, 0.9], [0.5, 0.3, 0.2], [0.0, 1.0], [[0.0, 0.0], [0.5, 1.0], [0.0, 1.0]], 1.5),
    ([0.2, 0.7], [0.5, 0.5], [], [[], []], 1.0),
)


@exercise("hypotheses_value", *_BELIEFS)
def check_hypotheses_value(
    values: list[float], priors: list[float], observed: list[float], predicted: list[list[float]], beta: float
) -> Solution:
    """`hypotheses_value(values, priors, observed, predicted, beta)`: BARL's weight of an action.

    `values[i]` is the action's value if hypothesis i is true, `priors[i]` its chance beforehand, `observed` the rewards
    r_t so far and `predicted[i]` what i would have had there: Σ_i Q_i · prior_i · Π_t exp(−β |r_t − r_it|).
    """
    q, prior = np.array(values), np.array(priors)
    gaps = np.array([np.abs(np.array(observed) - np.array(own)).sum() for own in predicted])
    credence = np.exp(-beta * gaps)
    belief = prior * credence / (prior * credence).sum()
    by_mean = np.exp(-beta * gaps / max(len(observed), 1))
    return float(q @ (prior * credence)), {
        "what was observed does not enter: a hypothesis that erred counts less": float(q @ prior),
        "every hypothesis as likely as any other beforehand": float(q @ credence),
        "credences are not normalised: where all err, all count less": float(q @ belief),
        "β multiplies the gaps": float(q @ (prior * np.exp(-gaps))),
        "a hypothesis that erred is less likely, not ruled out": float(q @ (prior * (gaps == 0))),
        "a product over the steps so far, not their mean": float(q @ (prior * by_mean)),
    }
