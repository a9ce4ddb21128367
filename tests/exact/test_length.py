"""The length toy: weights from the library by enumeration, the same from W alone, derived signs, and actual steps."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlino_lib.errors import RlinoError
from rlino_lib.exact.identities import expected_update as over_responses
from rlino_lib.exact.length_toy import (
    METHODS,
    NORMALISERS,
    PARAMETERS,
    LengthToy,
    cap_selection,
    drift,
    drift_of,
    expected_update,
    expected_weights,
    length_identities,
    predicted_update,
    predicted_weights,
    sampled_updates,
    signs,
    tipping_share,
    variant,
)
from rlino_lib.exact.token_mdp import F64, flat_gradient
from rlino_lib.methods.advantages import ADVANTAGES
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.methods.credit import Graded, credit
from rlino_lib.methods.loss import token_weights

CHANGES = {
    "plain": {},
    "cap": dict(truncated_is_wrong=True),
    "hits": dict(hit=0.15),
    "share": dict(p=0.15),
    "mixed": dict(stop_right=0.4, stop_wrong=0.15),
    "all": dict(p=0.3, stop_right=0.4, stop_wrong=0.15, hit=0.1, truncated_is_wrong=True, coupling=0.3),
}
BOTH_SIDES = ("grpo_no_kl", "dr_grpo", "f_isft_posneg", "f_isft_posneg_unit")
chance = st.floats(0.03, 0.97)


def sign(x: float, size: float) -> int:
    """The sign of a number, 0 where it is rounding beside `size`."""
    return 0 if abs(x) < 1e-12 * size else 1 if x > 0 else -1


# --- the toy ---------------------------------------------------------------------------------------------------------


def test_the_responses_are_a_verdict_filler_and_stop():
    toy = LengthToy(p=0.3, stop_right=0.25, stop_wrong=0.5, horizon=4)
    table = toy.mdp.responses(toy.policy)
    table = table[table["probability"] > 0].set_index("response")
    right = {"+·": 0.25, "+−·": 0.1875, "+−−·": 0.140625, "+−−−": 0.421875}
    wrong = {"−·": 0.5, "−−·": 0.25, "−−−·": 0.125, "−−−−": 0.125}
    assert set(table.index) == {*right, *wrong}
    for text, share in right.items():
        assert table.loc[text, "probability"] == pytest.approx(0.3 * share) and table.loc[text, "reward"] == 1
    for text, share in wrong.items():
        assert table.loc[text, "probability"] == pytest.approx(0.7 * share) and table.loc[text, "reward"] == 0


def test_the_changes_change_the_verdict():
    cut = replace(LengthToy(horizon=4), truncated_is_wrong=True)
    rewards = cut.mdp.responses(cut.policy).set_index("response")["reward"]
    assert rewards["+−−·"] == 1 and rewards["+−−−"] == 0
    hits = LengthToy(horizon=4, hit=0.2, stop_wrong=0.25)
    table = hits.mdp.responses(hits.policy).set_index("response")
    assert table.loc["−−+·", "reward"] == 0 + 1  # the last but one place hits, then STOP
    assert table.loc["−+·", "probability"] == pytest.approx(0.5 * 0.75 * 0.2 * 0.25)
    assert table.loc["++·", "probability"] == 0  # what is found needs no second finding


@pytest.mark.parametrize("change", CHANGES)
def test_means_are_those_of_the_mdp(change):
    toy = LengthToy(**CHANGES[change])
    found = toy.means()
    table = toy.mdp.responses(toy.policy)
    for side, rows in (("right", table[table["reward"] == 1]), ("wrong", table[table["reward"] == 0]), ("all", table)):
        by_hand = (rows["length"] * rows["probability"]).sum() / rows["probability"].sum()
        assert found[side][1].item() == pytest.approx(by_hand, abs=1e-12)
    assert found["right"][0].item() == pytest.approx(toy.mdp.J(toy.policy).item(), abs=1e-12)
    table = table[(table["reward"] == 0) & table["response"].str.endswith("·")]
    by_hand = (table["length"] * table["probability"]).sum() / table["probability"].sum()
    assert found["wrong, not truncated"][1].item() == pytest.approx(by_hand, abs=1e-12)


@pytest.mark.parametrize(
    "choice",
    [dict(p=0), dict(p=1.0), dict(stop_right=0), dict(horizon=2), dict(horizon=13), dict(hit=1), dict(coupling=2)],
)
def test_what_it_refuses(choice):
    with pytest.raises(RlinoError, match="the toy needs"):
        LengthToy(**choice)


def test_what_cannot_be_enumerated_or_predicted_is_said():
    for size, groups in ((8, 1), (2, 4), (0, 1), (2, 0)):
        with pytest.raises(RlinoError, match="batches"):
            expected_weights(LengthToy(horizon=12), variant("dr_grpo", "constant"), size, groups)
    for name in ("dapo", "reinforce_pp", "reinforce_pp_baseline", "rloo"):
        for call in (predicted_weights, signs):
            with pytest.raises(RlinoError, match=name):
                call(LengthToy(), OBJECTIVES[name])
    with pytest.raises(RlinoError, match="unknown method"):
        variant("ppo3", "constant")


# --- the enumeration is the library's --------------------------------------------------------------------------------


@pytest.mark.parametrize("name, groups", [("grpo_no_kl", 1), ("psr", 2), ("dapo", 2), ("reinforce_pp", 2), ("rloo", 1)])
def test_weights_by_brute_force_over_ordered_batches(name, groups):
    """Every ordered batch by itself through credit and token_weights: no multisets, no batching of batches."""
    toy, o, g = LengthToy(p=0.3, horizon=3, truncated_is_wrong=True), OBJECTIVES[name], 2
    mdp, p = toy.mdp, toy.mdp.probs(toy.policy).detach()
    rows = (p > 0).nonzero()[:, 0]
    total = torch.zeros(len(p), dtype=F64)
    for batch in itertools.product(rows.tolist(), repeat=g * groups):
        batch = torch.tensor(batch)
        mask, zeros = mdp.mask[batch], torch.zeros(len(batch), 3, dtype=F64)
        earned, keep = credit(o, Graded(mdp.rewards[batch], g, mask, zeros, zeros, 3))
        if keep.any():
            weights = token_weights(o, earned[keep], mask[keep], 3)
            assert torch.equal(weights, weights[:, :1] * mask[keep])  # one weight a response
            total.index_add_(0, batch[keep], p[batch].prod() * weights[:, 0])
    found = expected_weights(toy, o, g, groups)
    assert torch.allclose(found[rows], (total / p)[rows], atol=1e-13)
    assert total.abs().max() > 1e-3


@pytest.mark.parametrize("change", CHANGES)
def test_token_sums_are_those_of_the_identities(change):
    """Against `identities.expected_update`, over all groups of responses of the MDP."""
    toy = LengthToy(**{"horizon": 3} | CHANGES[change])
    for method in METHODS:
        o = variant(method, "token_sum")
        old = toy.step(over_responses(toy.mdp, toy.policy, o.advantage, 2))
        assert (expected_update(toy, o, 2) - old).norm() < 1e-12


@pytest.mark.parametrize("change", CHANGES)
def test_the_mean_of_sampled_updates(change):
    toy = LengthToy(**{"horizon": 4} | CHANGES[change])
    for name, groups in (("grpo_no_kl", 1), ("dapo", 2)):
        shares, updates = sampled_updates(toy, OBJECTIVES[name], 2, groups)
        assert shares.sum().item() == pytest.approx(1, abs=1e-12)
        assert (shares @ updates - expected_update(toy, OBJECTIVES[name], 2, groups)).norm() < 1e-13
        assert updates.std(0).min() > 1e-3


# --- E[ĝ] = ∇E[W] ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group_size", [2, 4])
@pytest.mark.parametrize("change", CHANGES)
def test_identities_hold(change, group_size):
    toy = LengthToy(**{"horizon": 6} | CHANGES[change])
    found = length_identities(toy, group_size)
    assert len(found) == len(METHODS) * (len(NORMALISERS) + 1)
    assert [i for i in found if not i.holds] == []
    assert all(i.left[0].abs() > 1e-3 for i in found)  # none of them says 0 = 0


@pytest.mark.parametrize("groups", [1, 2])
def test_token_means_of_several_groups_are_predicted(groups):
    toy = LengthToy(p=0.3, stop_right=0.4, stop_wrong=0.2, horizon=4)
    for method in METHODS:
        o = variant(method, "token_mean")
        assert (expected_update(toy, o, 2, groups) - predicted_update(toy, o, 2, groups)).norm() < 1e-13


def test_a_token_mean_over_one_response_is_the_mean_over_responses():
    toy = LengthToy(stop_right=0.4)
    for call in (expected_update, predicted_update):
        one, per = (call(toy, variant("f_isft_posneg_unit", n), 1) for n in ("token_mean", "per_response"))
        assert (one - per).norm() < 1e-14 and per[1] > 1e-2


# --- zero, and its exact conditions ----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=10)
@given(chance, chance, chance, st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from(["constant", "token_sum"]))
def test_no_drift_for_weights_that_know_verdicts_alone(p, right, wrong, coupling, normaliser):
    """Every rule of the library, group baseline or batch baseline, at unequal lengths and shares, and any coupling."""
    toy = LengthToy(p, right, wrong, horizon=4, coupling=coupling)
    for rule in ADVANTAGES:
        o = replace(OBJECTIVES["dr_grpo"], name=rule, advantage=rule, normaliser=normaliser)
        groups = 2 if "batch" in rule else 1
        found = drift(toy, o, 2, groups)
        size = expected_weights(toy, o, 2, groups).abs().max().item()
        assert found.update[0] > 0 and size > 0
        assert found.update[1:].abs().max() < 1e-13 * size
        assert found.table["drift"][["right", "wrong", "wrong, not truncated"]].abs().max() < 1e-12 * size


@pytest.mark.parametrize(
    "name, change",
    [
        ("grpo_no_kl", {}),  # a normaliser that knows the length
        ("bnpo", {}),
        ("reinforce_pp", dict(normaliser="constant")),  # a baseline over tokens: long responses weigh more in it
        ("dapo", dict(normaliser="constant", filter=None)),  # lengths in the reward
    ],
)
def test_near_misses_of_zero(name, change):
    found = drift(LengthToy(horizon=5, p=0.3), replace(OBJECTIVES[name], **change), 2)
    assert min(abs(found.table.loc[side, "drift"]) for side in ("right", "wrong")) > 1e-4


@pytest.mark.parametrize("name", ["rloo", "luspo"])
def test_a_ratio_of_the_whole_response_undoes_the_division(name):
    """RLOO's mean over tokens of one ρ_i Â_i, and LUSPO's sum of s_i Â_i, weigh every token alike."""
    found = expected_update(LengthToy(p=0.3, stop_right=0.4), OBJECTIVES[name], 3)
    assert found[0] > 1e-2 and found[1:].abs().max() < 1e-15


def test_a_shared_logit_has_no_drift_where_weights_sum_to_zero():
    """A policy that cannot tell its right responses from its wrong ones, under 1/|o| and the token mean."""
    toy = LengthToy(p=0.2, coupling=1.0)
    for method, normaliser in itertools.product(METHODS, ("per_response", "token_mean")):
        found = drift(toy, variant(method, normaliser), 3)
        balanced = method in ("grpo_no_kl", "dr_grpo", "f_isft_posneg")
        largest = found.table["drift"].abs().max()
        assert largest < 1e-14 if balanced else largest > 1e-3
        assert found.update[0] > 1e-3


# --- signs -----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    *[chance] * 3, st.integers(3, 7), st.booleans(), st.sampled_from([0.0, 0.1, 0.6]), st.sampled_from(METHODS),
    st.sampled_from([*NORMALISERS, "token_sum"]),
)  # fmt: skip
def test_derived_signs(p, right, wrong, horizon, cut, hit, method, normaliser):
    toy, o = LengthToy(p, right, wrong, horizon, cut, hit), variant(method, normaliser)
    update, size = predicted_update(toy, o, 3), predicted_weights(toy, o, 3).abs().max().item()
    assert tuple(sign(u, size) for u in update[1:].tolist()) == signs(toy, o)


@pytest.mark.parametrize("normaliser", ["per_response", "token_mean"])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("method", METHODS)
def test_wrong_responses_drift_longer_and_right_ones_shorter(method, p, normaliser):
    """The paper's argument in the plain toy, by enumeration; for F-ISFT⁺ and F-ISFT⁻ one side alone."""
    table = drift(LengthToy(p=p), variant(method, normaliser)).table
    right, wrong = table.loc["right", "drift"], table.loc["wrong", "drift"]
    assert right == pytest.approx(0, abs=1e-14) if method == "f_isft_neg" else right < -1e-5
    assert wrong == pytest.approx(0, abs=1e-14) if method == "f_isft_pos" else wrong > 1e-5


SIGNS = {  # change: of the drift of right and wrong responses' stop parts under 1/|o|, and under the constant
    "plain": ((-1, 1), (0, 0)),
    "share": ((-1, 1), (0, 0)),
    "mixed": ((-1, 1), (0, 0)),
    "cap": ((-1, 1), (-1, 0)),
    "hits": ((-1, 1), (0, 1)),
}


@pytest.mark.parametrize("method", BOTH_SIDES)
@pytest.mark.parametrize("change", SIGNS)
def test_one_change_at_a_time(change, method):
    toy = LengthToy(**CHANGES[change])
    for normaliser, wanted in zip(("per_response", "constant"), SIGNS[change], strict=True):
        o = variant(method, normaliser)
        assert signs(toy, o) == (-wanted[0], -wanted[1])
        table = drift(toy, o, 3).table
        found = table.loc["right", "stop, right"], table.loc["wrong", "stop, wrong"]
        assert tuple(sign(x, 1) for x in found) == wanted


@pytest.mark.parametrize("change", ["plain", "share", "mixed", "cap", "hits"])
def test_constant_weights_climb_the_closed_form_of_success(change):
    toy = LengthToy(**CHANGES[change])
    logits = toy.policy.logits.detach().clone().requires_grad_()
    p, right, wrong = logits.sigmoid()
    n, x = toy.horizon - 1, (1 - wrong) * (1 - toy.hit)
    late = (1 - p) * toy.hit * (1 - wrong) * (1 - x**n) / (1 - x)
    success = p * (1 - (1 - right) ** n) if toy.truncated_is_wrong else p + late
    assert success.item() == pytest.approx(toy.mdp.J(toy.policy).item(), abs=1e-14)
    (climb,) = torch.autograd.grad(success, logits)
    update = expected_update(toy, variant("f_isft_posneg_unit", "constant"))  # c = 2, L the horizon
    assert (update - 2 / toy.horizon * climb).norm() < 1e-14


@settings(deadline=None, max_examples=25)
@given(chance, chance, chance, st.integers(3, 10))
def test_wrong_responses_seem_to_grow_by_selection_under_a_cap(p, right, wrong, horizon):
    toy = LengthToy(p, right, wrong, horizon, truncated_is_wrong=True)
    table = drift_of(toy, predicted_update(toy, variant("dr_grpo", "constant"), 2)).table
    assert abs(table.loc["wrong, not truncated", "drift"]) < 1e-13 and abs(table.loc["wrong", "stop, wrong"]) < 1e-13
    predicted = cap_selection(toy)
    if abs(predicted) > 1e-6 and abs(table.loc["wrong", "drift"]) > 1e-12:
        assert sign(predicted, 1) == sign(table.loc["wrong", "drift"], 1)
    assert table.loc["right", "drift"] < 0


def test_selection_under_a_cap_has_both_signs():
    hard, easy = (LengthToy(p=p, truncated_is_wrong=True) for p in (0.2, 0.8))
    assert cap_selection(hard) > 0.2 and cap_selection(easy) < -0.2
    o = variant("dr_grpo", "constant")
    assert drift(hard, o).table.loc["wrong", "drift"] > 1e-4 and drift(easy, o).table.loc["wrong", "drift"] < -1e-4


@pytest.mark.parametrize("coupling", [0.25, 0.5, 1.0])
def test_right_responses_grow_below_the_tipping_share(coupling):
    tip = tipping_share(coupling)
    assert tip == pytest.approx({0.25: 0.2, 0.5: 1 / 3, 1.0: 0.5}[coupling])
    for method in ("f_isft_posneg_unit", "grpo_no_kl"):
        o = variant(method, "per_response")
        below, at, above = (drift(LengthToy(p=p, coupling=coupling), o, 3).table for p in (tip - 0.05, tip, tip + 0.05))
        if method == "grpo_no_kl":  # weights that sum to 0
            assert all(t.loc["right", "drift"] < 1e-14 for t in (below, at, above))
        else:
            assert below.loc["right", "drift"] > 1e-4 and above.loc["right", "drift"] < -1e-4
            assert abs(at.loc["right", "drift"]) < 1e-14


@settings(deadline=None, max_examples=20)
@given(chance, chance, chance, st.integers(3, 7))
def test_a_token_mean_pushes_the_longer_side_relatively_harder(p, right, wrong, horizon):
    """1/(|o| + R) falls alike for both sides, 1/|o| less for the longer one; so their ratio favours the longer one."""
    if abs(right - wrong) < 0.02:
        return
    toy = LengthToy(p, right, wrong, horizon)
    mean, per = (predicted_update(toy, variant("grpo_no_kl", n), 3) for n in ("token_mean", "per_response"))
    ratio = mean / per
    assert (ratio[2] > ratio[1]) == (wrong < right)


def test_the_token_mean_fades_with_the_batch():
    """N = G·groups responses: relative to 1/|o| the push falls as 1/N, the climb of the verdict does not."""
    toy = LengthToy(stop_right=0.4, stop_wrong=0.2)
    per = predicted_update(toy, variant("grpo_no_kl", "per_response"))
    ratio = {n: predicted_update(toy, variant("grpo_no_kl", "token_mean"), 4, n) / per for n in (1, 4, 16, 64)}
    for few, many in itertools.pairwise(ratio):
        assert (ratio[few][1:] / ratio[many][1:]).tolist() == pytest.approx([4, 4], rel=0.1)
    assert 0.5 < ratio[64][0] < 1.5


# --- actual steps ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normaliser", NORMALISERS)
@pytest.mark.parametrize("change", CHANGES)
def test_an_actual_step_moves_lengths_as_predicted(change, normaliser):
    """Central differences of E[length | side] and of success over toys whose logits were moved along the update."""
    toy, eta = LengthToy(**{"horizon": 6} | CHANGES[change]), 1e-4
    for method in METHODS:
        update = expected_update(toy, variant(method, normaliser), 3)
        scale = eta / update.norm()
        there, back = (toy.moved(s * scale * update) for s in (1, -1))
        found, a, b = drift_of(toy, update), there.means(), back.means()
        for side, row in found.table.iterrows():
            slope = ((a[side][1] - b[side][1]) / (2 * scale)).item()
            assert row["drift"] == pytest.approx(slope, rel=1e-6, abs=1e-8)
            assert row[list(PARAMETERS)].sum() == pytest.approx(row["drift"], abs=1e-15)
            assert row["per_point"] == pytest.approx(row["drift"] / (100 * found.gain), abs=1e-15)
        success = ((a["right"][0] - b["right"][0]) / (2 * scale)).item()
        assert found.gain == pytest.approx(success, rel=1e-6)


def test_finite_steps_change_only_what_they_should():
    """A step of length 1 under the constant normaliser: more right ones, and not a token more or less."""
    toy = LengthToy(p=0.3)
    update = expected_update(toy, variant("grpo_no_kl", "constant"))
    after, before = toy.moved(update / update.norm()).means(), toy.means()
    assert after["right"][0] - before["right"][0] > 0.1
    for side in ("right", "wrong", "wrong, not truncated"):
        assert after[side][1].item() == pytest.approx(before[side][1].item(), abs=1e-13)


def test_a_coupled_step_is_a_step_on_shared_parameters():
    """z = Aθ with AAᵀ = [[1, κ], [κ, 1]]: the step that `step` makes of a gradient, from autograd through A."""
    toy = LengthToy(p=0.3, stop_right=0.4, coupling=0.6)
    root = torch.linalg.cholesky(torch.tensor([[1, 0, 0], [0, 1, 0.6], [0, 0.6, 1]], dtype=F64))
    gradient = flat_gradient(toy.means()["wrong"][1], toy.policy)
    theta = torch.linalg.solve(root, toy.policy.logits.detach()).requires_grad_()
    (shared,) = torch.autograd.grad((root @ theta) @ gradient, theta)
    assert (root @ shared - toy.step(gradient)).norm() < 1e-14
    moved = toy.moved(torch.tensor([0.0, 1.0, 0.0]))
    assert math.log(moved.stop_right / (1 - moved.stop_right)) == pytest.approx(math.log(0.4 / 0.6) + 1)


def test_the_zero_is_of_plain_steps():
    """Expected steps are 0 under the constant normaliser; those of their signs, as Adam's nearly are, are not."""
    shares, updates = sampled_updates(LengthToy(), variant("grpo_no_kl", "constant"), 3)
    updates = torch.where(updates.abs() < 1e-12, 0, updates)
    assert (shares @ updates)[1:].abs().max() < 1e-14
    by_sign = shares @ updates.sign()
    assert by_sign[1] > 0.1 and by_sign[2] < -0.1
    assert by_sign[1].item() == pytest.approx(-by_sign[2].item(), abs=1e-12)
