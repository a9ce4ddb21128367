"""Credits on toys: unbiased where they claim it, variances against enumeration, and what was simulated before."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from rlino_lib.errors import RlinoError
from rlino_lib.exact.credit_toy import (
    CREDITS,
    Toy,
    chain,
    credit_table,
    estimate,
    fitted_search,
    group_sd,
    search,
    states_of_group,
)
from rlino_lib.exact.token_mdp import F64, SharedPolicy, TabularPolicy, TokenMDP

TOYS = {
    "hard chain": chain(3, 0.4),
    "easy chain": chain(3, 0.75),
    "long chain": chain(8, 0.9),
    "search": fitted_search(2.31, 0.158),
    "short search": search(0.3, 0.7, 3),
    "search that decides": fitted_search(2.31, 0.158, decides=True),
}
UNBIASED = [("reinforce", {}), ("rloo", {}), ("rloo", {"group": 2}), ("exact", {})]
UNBIASED += [("vine", {"k": k}) for k in (1, 2, 3, 9, 1000)]


def odd_ones(tokens, mask):
    return tokens.sum(1) % 2 == 1


def mdps():
    for vocab, horizon, seed in ((2, 3, 0), (3, 2, 1)):
        mdp = TokenMDP(vocab, horizon, odd_ones)
        for policy in (TabularPolicy(mdp, 1.0, seed), SharedPolicy(mdp, seed=seed)):
            yield mdp, policy


def of_token_mdp(mdp: TokenMDP, policy) -> Toy:
    """The toy of a token MDP, a step being a token."""
    logp = mdp.token_logprobs(policy)  # [S, V]
    rows = torch.eye(logp.numel(), dtype=F64).view(-1, *logp.shape)  # [S·V, S, V]
    parts = torch.autograd.grad(logp, list(policy.parameters()), rows, is_grads_batched=True)
    by_token = torch.cat([part.flatten(1) for part in parts], 1)  # [S·V, P]
    scores = by_token[mdp.states * mdp.vocab + mdp.tokens] * mdp.mask[..., None]  # [N, H, P]
    return Toy(mdp.probs(policy).detach(), mdp.rewards, mdp.states, mdp.mask, scores, mdp.values(policy).V)


def vine_by_enumeration(toy: Toy, k: int, own: bool = False):
    """VinePPO over all values that k continuations of each state can give, and all responses.

    Returns mean and variance of one response's estimate, and the covariance of two that share their values. With `own`
    the response counts among the continuations of its states: V̂ knows the step that it is a baseline for.
    """
    total, square, shared = torch.zeros_like(toy.gradient), 0.0, 0.0
    for right in itertools.product(range(k + 1), repeat=len(toy.values)):
        counts = torch.tensor(right, dtype=F64)  # [S]
        ways = math.prod(math.comb(k, c) for c in right)
        chance = ways * (toy.values**counts * (1 - toy.values) ** (k - counts)).prod()
        v = (counts[toy.states] + toy.rewards[:, None]) / (k + 1) if own else counts[toy.states] / k  # [N, T]
        after = torch.where(toy.last, toy.rewards[:, None], v.roll(-1, 1))  # [N, T]
        terms = ((after - v)[..., None] * toy.scores).sum(1)  # [N, P]
        mean = toy.probs @ terms  # [P], given the values
        total = total + chance * mean
        square += (chance * (toy.probs @ terms.square().sum(1))).item()
        shared += (chance * mean.square().sum()).item()
    size = total.square().sum().item()
    return total, square - size, shared - size


# --- the toys --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TOYS)
def test_a_toy_lists_all_responses_and_values_agree_with_them(name):
    toy = TOYS[name]
    assert toy.probs.sum().item() == pytest.approx(1, abs=1e-12)
    assert toy.values[0].item() == pytest.approx(toy.p, abs=1e-12)
    for state in range(len(toy.values)):  # the value of a state is the mean reward of the responses that pass it
        passed = ((toy.states == state) & toy.mask).any(1)
        if (reach := toy.probs[passed].sum()) > 1e-6:
            mean = toy.probs[passed] @ toy.rewards[passed] / reach
            assert mean.item() == pytest.approx(toy.values[state].item(), abs=1e-9)
    assert (toy.probs @ toy.scores.flatten(1)).abs().max() < 1e-12  # a score has mean 0


def test_gradients_by_hand():
    assert chain(3, 0.4).gradient.tolist() == pytest.approx([0.4**3 * 0.6] * 3, abs=1e-15)
    step = 1e-5
    up, down = (search(1 / (1 + math.exp(-x)), 0.6, 5).p for x in (-1 + step, -1 - step))
    hit = 1 / (1 + math.exp(1))
    up_again, down_again = (search(hit, 1 / (1 + math.exp(-x)), 5).p for x in (0.5 + step, 0.5 - step))
    slopes = search(hit, 1 / (1 + math.exp(-0.5)), 5, decides=True).gradient.tolist()
    assert slopes[1] == pytest.approx((up_again - down_again) / (2 * step), rel=1e-8)
    assert search(hit, 0.6, 5).gradient.item() == pytest.approx((up - down) / (2 * step), rel=1e-8)


def test_a_search_is_fitted():
    toy = TOYS["search"]
    assert (toy.p, (toy.probs @ toy.mask.sum(1).to(F64)).item()) == pytest.approx((0.158, 2.31), abs=1e-12)
    assert toy.values[1].item() == pytest.approx(toy.p, abs=1e-12)  # a miss leaves the value where it was
    assert estimate(toy, "exact").mean.item() == pytest.approx(toy.gradient.item(), abs=1e-12)


@pytest.mark.parametrize(
    "make", [lambda: chain(0, 0.5), lambda: chain(13, 0.5), lambda: chain(3, 1.0), lambda: search(0, 0.5),
             lambda: search(0.1, 1.0), lambda: search(0.1, 0.5, 0), lambda: fitted_search(1.0, 0.5),
             lambda: fitted_search(2, 0.0), lambda: fitted_search(9, 0.5), lambda: estimate(chain(2, 0.5), "vine", k=0),
             lambda: estimate(chain(2, 0.5), "rloo", group=1), lambda: estimate(chain(2, 0.5), "best"),
             lambda: credit_table({"a": chain(2, 0.5)}, ks=(0,)),
             lambda: credit_table({"a": replace(chain(2, 0.5), rewards=torch.zeros(4, dtype=F64))})]
)  # fmt: skip
def test_what_is_no_toy_is_refused(make):
    with pytest.raises(RlinoError):
        make()


# --- means -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TOYS)
@pytest.mark.parametrize("credit, options", UNBIASED)
def test_these_are_unbiased(name, credit, options):
    toy = TOYS[name]
    assert (estimate(toy, credit, **options).mean - toy.gradient).norm() <= 1e-12


def test_on_token_mdps_the_gradient_is_that_of_the_theorem():
    for mdp, policy in mdps():
        toy = of_token_mdp(mdp, policy)
        for credit, options in UNBIASED:
            assert (estimate(toy, credit, **options).mean - mdp.gradient(policy)).norm() <= 1e-12
        for kind, credit in (("return", "reinforce"), ("exact", "exact")):
            known = mdp.update_variance(policy, mdp.credit(policy, kind))
            assert estimate(toy, credit).variance == pytest.approx(known, abs=1e-12)


@pytest.mark.parametrize("k", [1, 2])
def test_vine_is_unbiased_over_all_continuations(k):
    """Values that do not know the step: E ĝ = ∇p, with values of its own for each response and with shared ones."""
    for mdp, policy in mdps():
        toy = of_token_mdp(mdp, policy)
        mean, variance, _ = vine_by_enumeration(toy, k)
        truth = mdp.gradient(policy)
        assert (mean - truth).norm() <= 1e-12
        assert variance == pytest.approx(estimate(toy, "vine", k=k).variance, abs=1e-12)
        biased, *_ = vine_by_enumeration(toy, k, own=True)
        assert (biased - truth).norm() > 0.05 * truth.norm()  # the response among its own continuations


def test_shared_values_keep_two_responses_unbiased_and_correlate_them():
    """Both responses of a pair, and every table of values that they share, in plain Python."""
    mdp = TokenMDP(2, 2, odd_ones)
    policy = TabularPolicy(mdp, 1.0, 3)
    toy = of_token_mdp(mdp, policy)
    v = toy.values.tolist()
    mean, product = torch.zeros_like(toy.gradient), 0.0
    for table in itertools.product((0, 1), repeat=len(v)):  # K = 1
        chance = math.prod(x if c else 1 - x for c, x in zip(table, v, strict=True))
        for i, j in itertools.product(range(mdp.n_responses), repeat=2):
            sides = []
            for n in (i, j):
                length = int(mdp.lengths[n])
                at = [table[s] for s in mdp.states[n, :length].tolist()] + [mdp.rewards[n].item()]
                sides.append(sum((at[t + 1] - at[t]) * toy.scores[n, t] for t in range(length)))
            weight = chance * (toy.probs[i] * toy.probs[j]).item()
            mean = mean + weight * (sides[0] + sides[1]) / 2
            product += weight * (sides[0] @ sides[1]).item()
    assert (mean - mdp.gradient(policy)).norm() <= 1e-12
    *_, covariance = vine_by_enumeration(toy, 1)
    assert covariance == pytest.approx(product - toy.gradient.square().sum().item(), abs=1e-12) and covariance > 1e-3


# --- variances -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("toy", [chain(2, 0.4), search(0.3, 0.7, 2)], ids=["chain", "search"])
def test_rloo_over_all_groups(toy):
    """One response's variance, and the covariance of two in a group, by listing all groups of three."""
    size = 3
    rewards, sums = toy.rewards.tolist(), toy.scores.sum(1)
    first, square, product = torch.zeros_like(toy.gradient), 0.0, 0.0
    for group in itertools.product(range(len(rewards)), repeat=size):
        weight = math.prod(toy.probs[i].item() for i in group)
        total = sum(rewards[i] for i in group)
        terms = [(rewards[i] - (total - rewards[i]) / (size - 1)) * sums[i] for i in group]
        first = first + weight * terms[0]
        square += weight * terms[0].square().sum().item()
        product += weight * (terms[0] @ terms[1]).item()
    g2 = toy.gradient.square().sum().item()
    found = estimate(toy, "rloo", group=size)
    assert (first - found.mean).norm() < 1e-12
    assert found.variance == pytest.approx(square - g2, abs=1e-12)
    assert product - g2 == pytest.approx(g2 / (size - 1) ** 2, abs=1e-12)


def test_more_continuations_lead_to_exact_values():
    for toy in TOYS.values():
        sds = [estimate(toy, "vine", k=k).sd for k in (1, 3, 9, 10**9)]
        assert sds == sorted(sds, reverse=True)
        assert sds[-1] == pytest.approx(estimate(toy, "exact").sd, rel=1e-6)


# Simulated on 40,000 to 200,000 responses, given to three digits: RLOO, VinePPO at K = 1, 3, 9, exact values.
SIMULATED = {
    "hard chain": (0.254, 0.286, 0.189, 0.142, 0.111),
    "easy chain": (0.314, 0.438, 0.336, 0.294, 0.271),
    "long chain": (0.386, 0.533, 0.451, 0.421, 0.405),
    "search": (0.259, 0.316, 0.294, 0.286, 0.282),
}


@pytest.mark.parametrize("name", SIMULATED)
def test_simulations_agree(name):
    """2 %: twice the standard error of the sd of 40,000 samples of which one in sixteen is not near 0."""
    toy = TOYS[name]
    exact = [estimate(toy, "rloo").sd, *(estimate(toy, "vine", k=k).sd for k in (1, 3, 9)), estimate(toy, "exact").sd]
    assert exact == pytest.approx(SIMULATED[name], rel=0.02)


def test_where_there_is_nothing_to_assign_exact_values_do_not_help():
    assert estimate(TOYS["search"], "exact").sd > estimate(TOYS["search"], "rloo").sd
    decides = TOYS["search that decides"]  # giving up is a step that loses the value: here there is credit to assign
    assert estimate(decides, "exact").sd < estimate(decides, "vine", k=3).sd < estimate(decides, "rloo").sd
    assert estimate(TOYS["hard chain"], "exact").sd < 0.5 * estimate(TOYS["hard chain"], "rloo").sd


# --- the table -------------------------------------------------------------------------------------------------------


def test_the_table_has_every_credit_and_what_it_costs():
    frame = credit_table({name: TOYS[name] for name in SIMULATED}, ks=(1, 3))
    assert set(frame["credit"]) == set(CREDITS) and len(frame) == 4 * (len(CREDITS) + 1)
    rloo = frame[frame["credit"] == "rloo"]
    assert (rloo["ratio"] == 1).all() and (rloo["cost"] == 1).all() and rloo["K"].isna().all()
    vine = frame[frame["credit"] == "vine"]
    assert vine["K"].tolist() == [1, 3] * 4
    row = vine[(vine["toy"] == "search") & (vine["K"] == 3)].iloc[0]
    assert row["cost"] < 1 + 3 * 2.31 / 2  # the first attempt of all eight begins at one state
    assert row["ratio_at_equal_samples"] == pytest.approx(row["ratio"] * math.sqrt(row["cost"]))
    assert (vine["ratio_at_equal_samples"] > 1).all()  # at equal samples uniform credit wins on these toys


def test_states_of_a_group_are_counted_once():
    """Of two steps: both begin at the first state, and the second is at one of two, right or lost."""
    right = 0.3
    assert states_of_group(chain(2, right)) == pytest.approx(1 + (1 - right**8) + (1 - (1 - right) ** 8))
    assert states_of_group(chain(2, right), 1) == pytest.approx(2)


@pytest.mark.parametrize("name", ["hard chain", "short search"])
@pytest.mark.parametrize("k", [1, 3])
def test_a_group_that_shares_its_values_varies_as_enumerated(name, k):
    toy = TOYS[name]
    _, variance, shared = vine_by_enumeration(toy, k)
    assert estimate(toy, "vine", k=k).shared == pytest.approx(shared, abs=1e-12) and shared > 1e-4
    assert group_sd(toy, "vine", k=k) ** 2 == pytest.approx((variance + 7 * shared) / 8, abs=1e-12)
    assert group_sd(toy, "exact") ** 2 == pytest.approx(estimate(toy, "exact").variance / 8)
