"""Credit by tokens: every method's weights on four responses by hand, sums that must hold, and what is refused."""

from dataclasses import replace
from fractions import Fraction as F

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlino_lib.errors import RlinoError
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.methods.credit import Graded, credit, without_likely
from rlino_lib.methods.loss import token_weights, value_loss
from rlino_lib.methods.token_credit import decayed, gae, optimal_baseline, whitened

F64 = torch.float64


def tensor(rows):
    """Rows of fractions as float64, short ones filled with 0."""
    width = max(map(len, rows))
    return torch.tensor([[float(x) for x in row] + [0.0] * (width - len(row)) for row in rows], dtype=F64)


# Two groups of two, right and wrong each; the second response of the first group has two steps of two tokens.
REWARDS = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=F64)
MASK = tensor([[1, 1], [1, 1, 1, 1], [1, 1, 1], [1]])
STEPS = torch.tensor([[1, 1, 0, 0], [1, 1, 2, 2], [1, 1, 2, 0], [1, 0, 0, 0]])
VALUES = tensor([[F(1, 4), F(1, 4)], [F(1, 4), F(1, 4), F(1, 2), F(1, 2)], [F(1, 3)] * 2 + [F(2, 3)], [F(1, 3)]])
# Probabilities of the tokens, and Σ π² of their distributions.
PROBS = tensor([[F(1, 2), F(19, 20)], [F(1, 2), F(1, 4), F(1, 2), F(19, 20)], [F(1, 4)] * 3, [F(1, 2)]])
COLLISIONS = tensor([[F(1, 2), F(9, 10)], [F(1, 2), F(1, 4), F(1, 2), F(9, 10)], [F(1, 4)] * 3, [F(1, 2)]])
GRADED = Graded(REWARDS, 2, MASK, PROBS.clamp_min(1e-9).log(), values=VALUES, steps=STEPS, collisions=COLLISIONS)

# Differences of neighbouring values, and of the reward and the last one.
DIFFERENCES = tensor([[F(3, 4)] * 2, [F(1, 4)] * 2 + [F(-1, 2)] * 2, [F(1, 3)] * 2 + [F(-2, 3)], [F(2, 3)]])
# The same with each token as a step and λ = 1/2: A_t = δ_t + A_{t+1}/2.
HALF = tensor(
    [
        [F(3, 8), F(3, 4)],
        [F(1, 16), F(1, 8), F(-1, 4), F(-1, 2)],  # δ = 0, 1/4, 0, −1/2
        [F(0), F(0), F(-2, 3)],  # δ = 0, 1/3, −2/3
        [F(2, 3)],
    ]
)
SIGNS = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=F64)[:, None]
LAMBDA = tensor([[0.99, 1], [0.99**3, 0.99**2, 0.99, 1], [0.99**2, 0.99, 1], [1]])


def by_tokens(advantages):
    return advantages / MASK.sum()  # a token mean


def zscore():
    return 0.5 / (0.5 * 2**0.5 + 1e-4)  # of rewards 1 and 0, with the sample std


# Σ_{s ≤ t} (1 − 2π + Σπ²): 1/2 and 1/2 at both first tokens of the first group; the other's rewards are 0 or 1.
OTHERS = tensor([[0, 0], [1, 1, 1, 1], [1, 1, 1], [0]])

BY_HAND = {
    "vineppo": (dict(whiten=False, beta=0.0), by_tokens(DIFFERENCES)),
    "step_verifier": ({}, by_tokens(DIFFERENCES)),
    "ppo": (dict(whiten=False, lam=0.5), by_tokens(HALF)),
    "vc_ppo": (dict(whiten=False, lam=0.5), by_tokens(HALF)),
    "grpo_lambda": ({}, SIGNS * zscore() * LAMBDA / MASK.sum(1, keepdim=True) / 4),
    "optimal_baseline": ({}, by_tokens((REWARDS[:, None] - OTHERS) * MASK)),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_weights_of_four_responses_by_hand(name):
    settings, expected = BY_HAND[name]
    objective = replace(OBJECTIVES[name], **settings)
    steps = None if objective.cuts == "tokens" else STEPS
    advantages, keep = credit(objective, replace(GRADED, steps=steps))
    assert keep.all()
    torch.testing.assert_close(token_weights(objective, advantages, MASK, 4), expected, atol=1e-12, rtol=0)


def test_spo_leaves_out_what_was_nearly_certain():
    """Two tokens of 0.95 are out of the loss, of its token mean and of the whitening."""
    spo = OBJECTIVES["spo_chain"]
    mask = without_likely(spo, MASK, GRADED.old_logprobs)
    assert mask.sum() == 8 and not mask[0, 1] and not mask[1, 3]
    advantages, _ = credit(spo, GRADED)
    kept = [F(3, 4), F(1, 4), F(1, 4), F(-1, 2), F(1, 3), F(1, 3), F(-2, 3), F(2, 3)]
    mean = sum(kept) / 8
    std = float(sum((x - mean) ** 2 for x in kept) / 7) ** 0.5
    expected = torch.tensor([(float(x - mean)) / (std + 1e-8) / 8 for x in kept], dtype=F64)
    weights = token_weights(spo, advantages, mask, 4)
    torch.testing.assert_close(weights[mask], expected, atol=1e-12, rtol=0)
    assert (weights[~mask] == 0).all()


def test_the_optimal_baseline_weighs_the_others_by_their_gradients():
    """Three responses of one token: rewards 1, 0, 1, gradients of size 1/2, 1, 3/2."""
    probs, collision = torch.tensor([[0.5], [0.25], [0.1]], dtype=F64), torch.tensor([[0.5], [0.5], [0.7]], dtype=F64)
    rewards = torch.tensor([1.0, 0.0, 1.0], dtype=F64)
    found = optimal_baseline(rewards, probs.log(), collision, torch.ones(3, 1, dtype=F64), 3)
    expected = [1 - 1.5 / 2.5, 0 - (0.5 + 1.5) / 2.0, 1 - 0.5 / 1.5]
    torch.testing.assert_close(found[:, 0], torch.tensor(expected, dtype=F64), atol=1e-12, rtol=0)
    assert (optimal_baseline(rewards, probs.log(), collision, torch.ones(3, 1, dtype=F64), 1) == 0).all()


rows = st.integers(1, 6).flatmap(
    lambda n: st.tuples(
        st.lists(st.floats(-2, 2), min_size=n, max_size=n), st.lists(st.booleans(), min_size=n, max_size=n)
    )
)


@settings(deadline=None)
@given(rows, st.floats(-2, 2), st.floats(0, 1), st.data())
def test_differences_of_values_redistribute_the_reward(row, reward, lam, data):
    """At λ = 0 credits of steps add up to r − V of the start; at λ = 1 each step has r − V of its own start.

    Tokens that somebody else wrote have none, and change nothing.
    """
    starts, foreign = row
    sizes = data.draw(st.lists(st.integers(1, 3), min_size=len(starts), max_size=len(starts)))
    values = torch.tensor([v for v, n in zip(starts, sizes, strict=True) for _ in range(n)], dtype=F64)[None]
    steps = torch.tensor([k for k, n in enumerate(sizes) for _ in range(n)])[None]
    r, mask = torch.tensor([reward], dtype=F64), torch.ones_like(values)
    first = [sum(sizes[:k]) for k in range(len(sizes))]
    differences = gae(r, values, mask, steps, lam=0.0)[0, first]
    assert differences.sum().item() == pytest.approx(reward - starts[0], abs=1e-9)
    torch.testing.assert_close(gae(r, values, mask, steps, lam=1.0), (reward - values) * mask, atol=1e-9, rtol=0)
    # A foreign token at any place, whatever its value is.
    place = data.draw(st.integers(0, values.shape[1]))
    wide = [torch.cat([x[:, :place], x.new_full((1, 1), fill), x[:, place:]], 1) for x, fill in
            ((values, 99.0), (mask, 0.0), (steps, 0))]  # fmt: skip
    with_foreign = gae(r, *wide, lam=lam)
    assert with_foreign[0, place] == 0
    without = torch.cat([with_foreign[:, :place], with_foreign[:, place + 1 :]], 1)
    torch.testing.assert_close(without, gae(r, values, mask, steps, lam=lam))


def test_position_alone_and_whitening():
    mask = tensor([[1, 0, 1, 1], [1, 1]])
    found = decayed(torch.tensor([2.0, -1.0], dtype=F64), mask, 0.5)
    torch.testing.assert_close(found, tensor([[0.5, 0, 1, 2], [-0.5, -1]]))
    white = whitened(found, mask)
    inside = white[mask.bool()]
    assert inside.mean().abs() < 1e-12 and inside.std() == pytest.approx(1, abs=1e-7) and (white[mask == 0] == 0).all()
    assert (whitened(torch.ones(2, 4, dtype=F64), mask) == 0).all()


def test_the_value_loss_counts_the_larger_error():
    values, old = torch.tensor([[0.9, 0.5]]), torch.tensor([[0.5, 0.5]])
    returns, mask = torch.tensor([[1.0, 9.0]]), torch.tensor([[True, False]])
    assert value_loss(values, old, returns, mask).item() == pytest.approx(0.5 * 0.1**2)
    assert value_loss(values, old, returns, mask, clip=0.2).item() == pytest.approx(0.5 * 0.3**2)


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(credit="gae", advantage="reward"), "values go with the credit gae"),
        (dict(values="exact"), "values go with the credit gae"),
        (dict(credit="gae", values="exact"), "advantage=reward"),
        (dict(credit="gae", values="exact", advantage="reward", update="critic"), "a critic is"),
        (dict(credit="gae", values="critic", advantage="reward", cuts="tokens"), "a critic is"),
        (dict(credit="decay", advantage="batch_zscore", reward_to_go=True), "reward_to_go"),
        (dict(credit="nothing"), "one of"),
        (dict(unlikely=1.5), "from 0 to 1"),
        (dict(cuts="unlikely"), "needs values=continuations"),
        (dict(credit="gae", values="exact", advantage="reward", cuts="unlikely"), "needs values=continuations"),
    ],
)
def test_credits_that_do_not_go_together_are_refused(changes, words):
    with pytest.raises(RlinoError, match=words):
        replace(OBJECTIVES["grpo_no_kl"], **changes)


def test_a_missing_part_is_named():
    for name, part in (("vineppo", "values"), ("optimal_baseline", "collisions")):
        with pytest.raises(RlinoError, match=f"give {part}"):
            credit(replace(OBJECTIVES[name], whiten=False), replace(GRADED, **{part: None}))
    with pytest.raises(RlinoError, match="give old_logprobs"):
        credit(OBJECTIVES["spo_chain"], replace(GRADED, old_logprobs=None))
