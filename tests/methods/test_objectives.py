"""Losses: golden values, closed forms, numerical care, formulas, and the weights that `token_weights` shows."""

import math
from dataclasses import fields, replace

import pytest
import torch

from rlino_lib.errors import RlinoError
from rlino_lib.methods.advantages import advantages
from rlino_lib.methods.catalogue import OBJECTIVES, varied
from rlino_lib.methods.loss import Batch, micro_share, policy_loss, token_weights
from rlino_lib.methods.objective import Objective
from rlino_lib.methods.terms import NORMALISERS, RATIOS

F64 = torch.float64
LOSSES = sorted(name for name, o in OBJECTIVES.items() if not o.preference)  # rows whose loss is `policy_loss` alone


def fixture():
    """The golden fixture of four rows: old, new and reference log-probs, mask, rewards."""
    i, t = torch.arange(4, dtype=F64)[:, None], torch.arange(6, dtype=F64)[None]
    old = -0.5 - 0.1 * i - 0.05 * t
    new = old + 0.3 * torch.sin(1 + i + 2 * t)
    ref = old - 0.2 * torch.cos(i + t)
    mask = t < torch.tensor([6, 3, 5, 2])[:, None]
    return old, new, ref, mask, torch.tensor([1.0, 0, 0, 1], dtype=F64)


GOLDEN = [
    ("zscore", "per_response", 0.0, 0.02686765),
    ("zscore", "token_mean", 0.0, 0.00789630),
    ("zscore", "constant", 0.0, 0.00394815),
    ("zscore", "per_response", 0.04, 0.02872965),
    ("zscore", "token_mean", 0.04, 0.00955705),
    ("zscore", "constant", 0.04, 0.00477853),
    ("mean", "per_response", 0.0, 0.01551473),
    ("mean", "token_mean", 0.0, 0.00455972),
    ("mean", "constant", 0.0, 0.00227986),
    ("mean", "per_response", 0.04, 0.01737674),
    ("mean", "token_mean", 0.04, 0.00622047),
    ("mean", "constant", 0.04, 0.00311024),
]


# The other columns: the row whose choices they are (the clip everywhere 0.2/0.28, cispo's cap 5), under both scalings.
FAMILY = [
    ("bnpo", "zscore", 0.00789630),
    ("dapo", "zscore", 0.00789630),
    ("gspo", "zscore", 0.01791632),
    ("luspo", "zscore", 0.00054966),
    ("cispo", "zscore", -0.03172573),
    ("sapo", "zscore", -0.01970752),
    ("bnpo", "mean", 0.00455972),
    ("dapo", "mean", 0.00455972),
    ("gspo", "mean", 0.01034578),
    ("luspo", "mean", 0.00031740),
    ("cispo", "mean", -0.01832003),
    ("sapo", "mean", -0.01138011),
    # Of the readings of RLOO it is this one: ρ_i the product over the response, clipped, a mean over rows.
    ("rloo", "leave_one_out", 0.00026694),
]


@pytest.mark.parametrize("name, rule, expected", FAMILY)
def test_golden_losses_of_the_family(name, rule, expected):
    old, new, _, mask, rewards = fixture()
    objective = OBJECTIVES[name]
    if objective.surrogate == "clip":
        objective = replace(objective, clip_low=0.2, clip_high=0.28)
    found = policy_loss(objective, Batch(new, advantages(rewards, 4, rule), mask, old, max_response_length=8)).loss
    assert found.item() == pytest.approx(expected, abs=5e-9)


def test_the_golden_rloo_is_clipped():
    old, new, _, mask, rewards = fixture()
    adv = advantages(rewards, 4, "leave_one_out")
    free = replace(OBJECTIVES["rloo"], clip_low=None, clip_high=None)
    assert policy_loss(free, Batch(new, adv, mask, old)).loss.item() == pytest.approx(0.00007198, abs=5e-9)


@pytest.mark.parametrize("rule, normaliser, beta, expected", GOLDEN)
def test_golden_losses(rule, normaliser, beta, expected):
    old, new, ref, mask, rewards = fixture()
    objective = Objective("golden", advantage=rule, normaliser=normaliser, beta=beta, clip_low=0.2, clip_high=0.28)
    found = policy_loss(objective, Batch(new, advantages(rewards, 4, rule), mask, old, ref, 8))
    assert found.loss.item() == pytest.approx(expected, abs=5e-9)
    if beta:
        assert found.metrics["kl"] == pytest.approx(0.04151879, abs=5e-9)


def test_the_logged_loss_is_zero_and_the_gradient_is_not():
    old, _, _, mask, rewards = fixture()
    new = old.clone().requires_grad_()
    found = policy_loss(OBJECTIVES["grpo_no_kl"], Batch(new, advantages(rewards, 4), mask, old))
    found.loss.backward()
    assert abs(found.loss.item()) < 1e-12
    assert new.grad.abs().max() > 0.01


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_token_weights_are_the_gradient_at_ratio_one(name, normaliser):
    old, _, _, mask, rewards = fixture()
    objective = replace(OBJECTIVES[name], normaliser=normaliser)
    adv = advantages(rewards, 4, objective.advantage)
    new = old.clone().requires_grad_()
    # At the reference itself k3 has no gradient, so β may stay.
    policy_loss(objective, Batch(new, adv, mask, old, old, 8, -old, mask)).loss.backward()
    weights = token_weights(objective, adv, mask, 8)
    assert torch.allclose(weights, -new.grad, rtol=1e-12, atol=1e-15)
    assert (weights[~mask] == 0).all()
    lengths = mask.sum(1, keepdim=True)  # [N, 1]
    norm = {"per_response": lengths * 4, "constant": 32, "token_sum": 4}.get(normaliser, mask.sum())
    each = lengths if objective.ratio == "trajectory" else 1  # every token moves ρ_i, and every token's gain has it
    assert torch.allclose(weights, adv[:, None] * mask * each / norm, rtol=1e-12)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("normaliser", sorted(set(NORMALISERS) - {"micro_token_mean"}))
def test_micro_batches_add_up(normaliser, ratio):
    old, new, ref, mask, rewards = fixture()
    objective = Objective("m", normaliser=normaliser, ratio=ratio, beta=0.04)
    adv = advantages(rewards, 4)
    whole = policy_loss(objective, Batch(new, adv, mask, old, ref, 8)).loss
    parts = 0.0
    for rows in ([0, 3], [1], [2]):
        loss = policy_loss(objective, Batch(new[rows], adv[rows], mask[rows], old[rows], ref[rows], 8)).loss
        parts += loss * micro_share(objective, mask[rows], 4, int(mask.sum()))
    assert parts.item() == pytest.approx(whole.item(), rel=1e-12)


def test_a_token_mean_of_micro_batches_depends_on_how_they_are_cut():
    old, new, _, mask, rewards = fixture()
    objective, adv, found = OBJECTIVES["bnpo"], advantages(rewards, 4), []
    for cuts in ([[0, 1], [2, 3]], [[0, 2], [1, 3]]):
        loss = [policy_loss(objective, Batch(new[r], adv[r], mask[r], old[r])).loss for r in cuts]
        shares = [micro_share(objective, mask[r], 4, int(mask.sum())) for r in cuts]
        assert shares == [0.5, 0.5]
        found.append(sum(x.item() for x in loss) / 2)
    assert abs(found[0] - found[1]) > 1e-3


def test_clipping_stops_the_gradient_on_the_far_side_alone():
    objective = OBJECTIVES["grpo_no_kl"]
    for ratio, adv, moves in [(1.5, 1.0, False), (1.5, -1.0, True), (0.5, 1.0, True), (0.5, -1.0, False)]:
        new = torch.tensor([[math.log(ratio)]], dtype=F64, requires_grad=True)
        old = torch.zeros(1, 1, dtype=F64)
        loss = policy_loss(objective, Batch(new, torch.tensor([adv], dtype=F64), torch.ones(1, 1).bool(), old))
        loss.loss.backward()
        assert (new.grad.abs().item() > 0) == moves, (ratio, adv)
        assert loss.metrics["clip_ratio"] == (0.0 if moves else 1.0)


def test_masked_entries_may_hold_anything():
    old, new, ref, mask, rewards = fixture()
    dirty = [torch.where(mask, x, torch.tensor(float("nan"), dtype=F64)) for x in (new, old, ref)]
    adv = advantages(rewards, 4)
    clean = policy_loss(OBJECTIVES["grpo"], Batch(new, adv, mask, old, ref)).loss
    leaf = dirty[0].requires_grad_()
    found = policy_loss(OBJECTIVES["grpo"], Batch(leaf, adv, mask, dirty[1], dirty[2])).loss
    found.backward()
    assert found.item() == pytest.approx(clean.item(), rel=1e-12)
    assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_everything_stays_finite(name, dtype):
    """Log-ratios of ±100 in every combination with the sign of the advantage, empty rows, NaN under the mask."""
    nan = float("nan")
    new = torch.tensor([[0.0, -100], [-100, 0], [-100, -100], [0, 0], [nan, nan], [-1, nan]] * 2, dtype=dtype)
    old = torch.tensor([[-100.0, 0], [0, -100], [0, 0], [-100, -100], [nan, nan], [-1, nan]] * 2, dtype=dtype)
    mask, adv = ~new.isnan(), torch.tensor([1.0] * 6 + [-1] * 6, dtype=dtype)
    new.requires_grad_()
    variants = [OBJECTIVES[name], replace(OBJECTIVES[name], ratio="none", surrogate="clip", beta=0.5)]
    for ratio in ("token", "sequence", "trajectory"):
        for delta in (None, 3.0):
            variants.append(replace(OBJECTIVES[name], ratio=ratio, beta=0.5, delta=delta, kl_correction=True))
    for objective in variants:
        for reference in (old, new.detach()):
            found = policy_loss(objective, Batch(new, adv, mask, old, reference, 4, -old, mask))
            (grad,) = torch.autograd.grad(found.loss, new)
            assert found.loss.isfinite() and grad.isfinite().all() and grad.dtype == dtype
            assert (grad[~mask] == 0).all()
            assert all(math.isfinite(v) for v in found.metrics.values())


@pytest.mark.parametrize("name", LOSSES)
def test_rounding_of_the_ratio_moves_no_weight(name):
    """ρ = 1 but for float32's rounding, which differs between sampling and training: the weights are float64's."""
    g = torch.Generator().manual_seed(0)
    old, ref, entropies = (-3 * torch.rand(8, 6, generator=g) for _ in range(3))
    off = 1e-5 * (2 * torch.rand(8, 6, generator=g) - 1)
    mask, adv = torch.ones(8, 6).bool(), torch.tensor([0.5, -0.5] * 4)

    def weights(new, *parts):
        new = new.clone().requires_grad_()
        credit, before, reference, spread = (part.to(new.dtype) for part in (adv, *parts))
        found = policy_loss(OBJECTIVES[name], Batch(new, credit, mask, before, reference, 6, spread, mask))
        return torch.autograd.grad(found.loss, new)[0], found.metrics.get("clip_ratio", 0.0)

    exact, none_clipped = weights(old.double(), old, ref, entropies)
    rounded, clipped = weights(old + off, old, ref, entropies)
    torch.testing.assert_close(rounded.double(), exact, rtol=1e-3, atol=0)
    assert clipped == none_clipped == 0


def test_half_precision_has_the_loss_of_float32():
    old, new, ref, mask, rewards = fixture()
    for dtype in (torch.bfloat16, torch.float16):
        narrow = [x.to(dtype) for x in (new, old, ref, -new)]  # the last in the place of entropies
        for objective in map(OBJECTIVES.__getitem__, LOSSES):
            found, wide = (
                policy_loss(objective, Batch(x[0], advantages(rewards, 4), mask, x[1], x[2], 8, x[3], mask)).loss
                for x in (narrow, [x.float() for x in narrow])
            )
            assert found.dtype == torch.float32 and torch.equal(found, wide)


def test_no_rows_and_no_tokens_are_a_loss_of_zero():
    for objective in OBJECTIVES.values():
        for n, t in ((0, 3), (2, 0)):
            new = torch.zeros(n, t, requires_grad=True)
            now = new.detach()
            loss = policy_loss(objective, Batch(new, torch.ones(n), torch.ones(n, t).bool(), now, now, 4, now, now))
            loss.loss.backward()
            assert loss.loss.item() == 0


def test_missing_parts_are_named():
    old, new, ref, mask, rewards = fixture()
    adv = advantages(rewards, 4)
    for objective, args, words in [
        (OBJECTIVES["grpo"], (new, adv, mask, old), "reference"),
        (Objective("c", normaliser="constant"), (new, adv, mask, old, ref), "max_response_length"),
        (OBJECTIVES["grpo"], (new, adv, mask, old[:2], ref), "old_logprobs"),
        (OBJECTIVES["grpo"], (new, adv[:2], mask, old, ref), "advantages"),
        (OBJECTIVES["grpo_entropy"], (new, adv, mask, old), "entropies"),
    ]:
        with pytest.raises(RlinoError, match=words):
            policy_loss(objective, Batch(*args))
    with pytest.raises(RlinoError, match="must be one of"):
        Objective("x", normaliser="no such")


def test_choices_that_do_not_go_together_are_refused():
    for changes, words in [
        (dict(ratio="none", surrogate="sapo"), "need a ratio"),
        (dict(ratio="none", delta=2.0), "need a ratio"),
        (dict(reward_to_go=True), "batch_zscore"),
        (dict(options={"weight": 0.1}), "no option 'weight'"),
        (dict(filter="all"), "must be one of"),
        (dict(kl="k4"), "must be one of"),
        (dict(clip_low=0.0), "clip_low must be a number from 0.0001 to 1"),  # these would clip by rounding alone
        (dict(clip_high=0.0), "clip_high must be a number of at least 0.0001"),
        (dict(delta=1.0), "delta must be a number of at least 1.0001"),
        (dict(value_clip=0.0), "value_clip must be a number of at least 0.0001"),
    ]:
        with pytest.raises(RlinoError, match=words):
            Objective("x", **changes)


# Another value of each choice that a row may have, beside a preference's own.
OTHER = dict(
    advantage="mean", options={"eps": 0.1}, ratio="token", clip_low=0.1, clip_high=0.1, delta=2.0, surrogate="cispo",
    tau=[2.0, 3.0], normaliser="constant", beta=0.1, kl="k1", kl_correction=True, kl_in_reward=0.1, reward_to_go=True,
    entropy_bonus=0.1, entropy_by_advantage=0.1, covariant="kl", covariant_share=0.1, covariant_cost=2.0,
    filter="whole", shortest=1, overlong=0.1, length_cost=0.1, credit="decay", values="exact", cuts="tokens",
    value_samples=2, gamma=0.5, lam=0.5, critic_lam=0.5, value_clip=0.1, whiten=True, unlikely=0.5,
    update="policy_gradient",
)  # fmt: skip
OWN = {"name", "source", "preference", "preference_beta", "pairing"}
IDLE = {  # by method, the changes that nothing in it reads, and those that do not go with it
    **dict.fromkeys(("iterative_dpo", "ipo", "kto"), set(OTHER)),
    "nft": {"clip_low", "clip_high", "tau", "whiten", "kl_in_reward", "overlong", "length_cost", "credit", "options"},
    "sapo": {"clip_low", "clip_high"},
    "grpo": {"tau", "lam", "gamma", "covariant_cost", "value_clip"},
    "grpo_no_kl": {"kl", "kl_correction"},
    "raft": {"clip_low", "clip_high", "delta", "surrogate"},
}


@pytest.mark.parametrize("name", IDLE)
def test_a_change_that_nothing_reads_is_refused(name):
    assert set(OTHER) | OWN == {field.name for field in fields(Objective)}
    row = OBJECTIVES[name]
    for choice in IDLE[name]:
        value = OTHER[choice]
        if getattr(row, choice) != value:
            with pytest.raises(RlinoError, match=f"objective {name}: |advantage rule"):
                varied(name, {choice: value})
        assert varied(name, {choice: getattr(row, choice)}) == row  # what the row has already is no change


def test_what_varies_a_row_is_part_of_its_formula():
    assert varied("grpo_no_kl", {"beta": 0.1, "kl": "k1", "kl_correction": True}).kl == "k1"  # of one another
    assert varied("grpo", {"advantage": "batch_zscore", "reward_to_go": True}).reward_to_go
    assert varied("nft", {"normaliser": "token_mean", "beta": 0.1, "filter": None}).beta
    with pytest.raises(RlinoError, match="nothing in it reads clip_low: leave it out"):
        varied("grpo", {"surrogate": "sapo", "clip_low": None})


def test_kl_estimators():
    """k1, k2, k3 by their definitions, and where a clip of the ratio leaves the correction alone."""
    old, new, ref, mask, rewards = fixture()
    d = new - ref
    values = {"k1": d, "k2": d**2 / 2, "k3": torch.exp(-d) + d - 1}
    for kl, value in values.items():
        for correction in (False, True):
            objective = Objective("kl", beta=0.5, kl=kl, kl_correction=correction, normaliser="token_sum")
            adv = torch.zeros(4, dtype=F64)
            found = policy_loss(objective, Batch(new, adv, mask, old, ref))
            factor = torch.exp(new - old) if correction else 1.0
            assert found.loss.item() == pytest.approx((0.5 * value * factor * mask).sum().item() / 4, rel=1e-12)
            assert found.metrics["kl"] == pytest.approx((value * mask).sum().item() / mask.sum().item(), rel=1e-12)


def test_delta_caps_what_the_clip_leaves_free():
    new = torch.tensor([[math.log(9.0)]], dtype=F64, requires_grad=True)
    old, adv, mask = torch.zeros(1, 1, dtype=F64), torch.tensor([-1.0], dtype=F64), torch.ones(1, 1).bool()
    free = policy_loss(OBJECTIVES["grpo_no_kl"], Batch(new, adv, mask, old)).loss
    capped = policy_loss(replace(OBJECTIVES["grpo_no_kl"], delta=4.0), Batch(new, adv, mask, old)).loss
    assert (free.item(), capped.item()) == pytest.approx((9.0, 4.0))
    assert torch.autograd.grad(capped, new)[0].item() == 0


def test_every_objective_prints_as_its_formula():
    text = repr(OBJECTIVES["grpo"])
    assert "min(ρ_it Â_i, clip(ρ_it, 0.8, 1.2) Â_i)" in text and "0.04 k3_it" in text and "1/|o_i|" in text
    assert "k3" not in repr(OBJECTIVES["grpo_no_kl"])
    assert "log π" in repr(OBJECTIVES["f_isft_pos"])
    formulas = [repr(o).split(": ", 1)[1] for o in OBJECTIVES.values()]
    assert len(set(formulas)) == len(formulas)  # without their names
    assert all(o.source for o in OBJECTIVES.values())


@pytest.mark.parametrize(
    "changes, text",
    [
        (dict(ratio="sequence"), "J = 1/N Σ_i min(s_i Â_i, clip(s_i, 0.8, 1.2) Â_i),"),
        (dict(ratio="sequence", beta=0.1), "1/N Σ_i 1/|o_i| Σ_t [ min(s_i Â_i, clip(s_i, 0.8, 1.2) Â_i) − 0.1 k3_it ]"),
        (dict(ratio="trajectory", normaliser="token_sum"), "J = 1/N Σ_i |o_i| min(ρ_i Â_i,"),
        (dict(delta=4.0), "min(min(ρ_it, 4) Â_i, clip(ρ_it, 0.8, 1.2) Â_i)"),
        (dict(clip_low=None), "clip(ρ_it, 0, 1.2)"),
        (dict(clip_high=None), "clip(ρ_it, 0.8, ∞)"),
        (dict(surrogate="cispo"), "sg[clip(ρ_it, 0.8, 1.2)] Â_i log π(o_it)"),
        (dict(surrogate="cispo", clip_low=None, clip_high=None), "sg[ρ_it] Â_i log π(o_it)"),
        (dict(surrogate="sapo"), "4/τ σ(τ(ρ_it − 1)) Â_i,"),
        (dict(beta=0.1, kl="k1", kl_correction=True), "− 0.1 ρ_it k1_it ]"),
        (dict(normaliser="micro_token_mean"), "J = Σ_m N_m/N 1/Σ_m|o| Σ_{i in m} Σ_t min("),
        (dict(advantage="weighted", options={"weight": 0.5}), "else −1 (weight = 0.5)"),
    ],
)  # fmt: skip
def test_formulas_follow_the_choices(changes, text):
    assert text in repr(Objective("x", **changes))
