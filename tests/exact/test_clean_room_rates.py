"""The clean room's rates: closed forms against sums over all batches, and against sampled gradients of the loss."""

import math
from dataclasses import replace

import pytest
import torch

from rlino_lib.errors import RlinoError
from rlino_lib.exact.clean_room import (
    NORMALISERS,
    Room,
    enumerated_step,
    expected_step,
    mean_gap,
    path,
    rate_for_gap,
    rates,
    score_over_length,
)
from rlino_lib.exact.length_toy import variant
from rlino_lib.exact.token_mdp import F64
from rlino_lib.methods.advantages import advantages
from rlino_lib.methods.loss import Batch, policy_loss

SMALL = [
    Room(0.3, 0.3, cap=3, group_size=2, groups=1),
    Room(0.3, 0.55, good=0.4, cap=2, group_size=2, groups=1, worth=0.2),
    Room(0.6, 0.2, cap=1, group_size=2, groups=2, worth=0.5),
    Room(0.5, 0.5, good=0.5, cap=1, group_size=3, groups=1),
]


@pytest.mark.parametrize("normaliser", NORMALISERS)
@pytest.mark.parametrize("room", SMALL)
def test_the_formula_is_the_sum_over_all_batches(room, normaliser):
    assert torch.allclose(expected_step(room, normaliser), enumerated_step(room, normaliser), rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("ends", [0.02, 0.05, 0.3, 0.9])
def test_the_score_over_the_length_of_a_geometric_length(ends):
    by_sum = math.fsum(ends * (1 - ends) ** (n - 1) * (1 - ends * n) / n for n in range(1, 4000))
    assert score_over_length(ends) == pytest.approx(by_sum, rel=1e-11) and score_over_length(ends) > 0
    capped = [score_over_length(ends, cap) for cap in (1, 5, 50, 4000)]
    assert capped == sorted(capped) and capped[0] == pytest.approx(0, abs=1e-15)  # of one token: no length to choose
    assert capped[-1] == pytest.approx(score_over_length(ends), rel=1e-11)
    by_kind = Room(ends_good=ends, cap=5)
    o = by_kind.outcomes
    assert (o.chance * o.score / o.length)[o.good].sum().item() / 0.3 == pytest.approx(capped[1], rel=1e-11)
    for wrong in (0.0, 1.0):
        with pytest.raises(RlinoError, match="strictly between 0 and 1"):
            score_over_length(wrong)


def test_the_drift_is_zero_under_a_constant_and_of_opposite_sign_under_one_over_length():
    table = rates(Room())
    assert table.loc[NORMALISERS["constant"]].abs().max() < 1e-14
    for text in ("1/|o|", "token mean"):
        assert table.loc[text, "bad"] > 0 > table.loc[text, "good"]
        assert table.loc[text, "bad"] == pytest.approx(-table.loc[text, "good"], rel=1e-9)
    assert table.loc["token mean", "bad − good"] < table.loc["1/|o|", "bad − good"] / 200
    # The mean score over the length times what the advantage is worth: √(k(G − k))/G, k right of 8, over all k.
    odds = [math.comb(8, k) * 0.3**k * 0.7 ** (8 - k) for k in range(9)]
    worth = sum(o * k / 8 * math.sqrt((8 - k) / k) * math.sqrt(7 / 8) for k, o in enumerate(odds) if k)
    step = expected_step(Room(), "per_response")
    assert step[1].item() == pytest.approx(worth * score_over_length(0.05, 96), rel=2e-3)  # std has 1e-4 added


def test_the_token_mean_drifts_less_the_larger_the_batch():
    sizes = [(expected_step(Room(groups=n), "token_mean")[1] * n).item() for n in (2, 8, 32)]
    assert sizes[2] == pytest.approx(sizes[1], rel=0.05) and sizes[0] > 0


def test_worth_lengthens_bad_responses_under_every_normaliser_and_good_ones_under_none():
    for normaliser in NORMALISERS:
        bad = [expected_step(Room(worth=v, groups=4), normaliser)[0].item() for v in (0.0, 0.002, 0.01, 0.05)]
        assert bad == sorted(bad, reverse=True) and bad[-1] < -1e-4  # away from the end
        assert expected_step(Room(worth=0.05, groups=4), normaliser)[1] > -1e-15


def batch_step(room, normaliser, rows):
    """The step of the logits [2] that `policy_loss` makes of one batch: rows [N] int64, each a kind of response."""
    o = room.outcomes
    logits = torch.tensor(room.ends, dtype=F64).logit().requires_grad_()  # [2]
    places = torch.arange(room.cap)  # [H]
    mask = places < o.length[rows, None]  # [N, H]
    ends = (places == o.length[rows, None] - 1) & (o.length > o.filler)[rows, None]  # [N, H]
    own = logits[o.good[rows].long()][:, None]  # [N, 1]
    logprobs = torch.nn.functional.logsigmoid(torch.where(ends, own, -own))  # [N, H]
    objective = variant("grpo_no_kl", normaliser)
    advantage = advantages(o.reward[rows].to(F64), room.group_size, objective.advantage)  # [N]
    loss = policy_loss(objective, Batch(logprobs, advantage, mask, max_response_length=room.cap)).loss
    return -torch.autograd.grad(loss, logits)[0]


def test_sampled_batches_have_the_expected_step():
    """The mean of `policy_loss`'s gradient over random batches, within four standard errors of the formula."""
    room = Room(ends_bad=0.2, ends_good=0.1, cap=20, group_size=4, groups=2, worth=0.02)
    generator = torch.Generator().manual_seed(0)
    for normaliser in NORMALISERS:
        draws = torch.multinomial(room.outcomes.chance, 500 * 8, replacement=True, generator=generator)
        steps = torch.stack([batch_step(room, normaliser, rows) for rows in draws.view(500, -1)])  # [500, 2]
        error = steps.std(0) / math.sqrt(len(steps))
        assert ((steps.mean(0) - expected_step(room, normaliser)).abs() < 4 * error).all()


def test_along_a_path_bad_and_good_part_under_one_over_length_alone():
    apart = path(Room(), "per_response", 20, 1.0)
    still = path(Room(), "constant", 20, 10.0)
    assert apart["bad"].is_monotonic_increasing and apart["good"].is_monotonic_decreasing
    assert (still - still.iloc[0]).drop(columns="step").abs().max().max() < 1e-10
    assert apart.iloc[0, 1:].tolist() == pytest.approx(still.iloc[0, 1:].tolist())


def test_mean_filler_and_its_slope():
    filler, slope = Room(ends_good=0.2).filler()
    step = 1e-6
    moved = Room(ends_good=0.2).moved(torch.full((2,), step, dtype=F64)).filler()[0]
    assert torch.allclose((moved - filler) / step, slope, rtol=1e-4)
    assert filler.tolist() == pytest.approx([(1 - 0.95**96) / 0.05 - 1 + 0.95**96, 4.0], rel=1e-6)


def test_what_is_out_of_range_is_one_clear_line():
    with pytest.raises(RlinoError, match="batches of 32 × 8"):
        enumerated_step(Room(), "constant")
    with pytest.raises(RlinoError, match="normaliser must be one of"):
        expected_step(Room(), "half")
    for wrong in ({"good": 0.0}, {"ends_bad": 1.0}, {"worth": 1.0}, {"cap": 0}):
        with pytest.raises(RlinoError, match="a room needs"):
            replace(Room(), **wrong)


def test_a_rate_is_found_for_a_gap():
    rate = rate_for_gap(Room(), "per_response", 10, 5.0)
    assert mean_gap(Room(), "per_response", 10, rate) == pytest.approx(5.0, rel=1e-4)
    along = path(Room(), "per_response", 10, rate)
    assert mean_gap(Room(), "per_response", 10, rate) == pytest.approx((along["bad"] - along["good"])[:10].mean())
    with pytest.raises(RlinoError, match="no learning rate makes a gap of 5 tokens in 10 steps"):
        rate_for_gap(Room(), "constant", 10, 5.0)
