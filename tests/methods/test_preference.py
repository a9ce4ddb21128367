"""Preference losses against TRL's own code, weights by hand, and which pairs are made."""

import random
from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlino_lib.errors import RlinoError
from rlino_lib.methods.advantages import advantages
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.methods.loss import token_weights
from rlino_lib.methods.preference import PREFERENCES, Preferred, pairs, response_weights

pytest.importorskip("trl")
from trl.trainer.dpo_trainer import DPOTrainer  # noqa: E402
from trl.trainer.kto_trainer import KTOTrainer  # noqa: E402

F64 = torch.float64
LENGTHS = torch.tensor([2, 5, 3, 4, 1, 5])
PAIRS = Preferred(torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5]))


def logprobs(seed):
    """Log-probs [6, 5] of tokens, 0 where masked, and the mask."""
    mask = torch.arange(5) < LENGTHS[:, None]
    drawn = torch.rand(6, 5, dtype=F64, generator=torch.Generator().manual_seed(seed))
    return drawn.log() * mask, mask


def trainer(**settings):
    """What TRL's losses read of a trainer that has the reference's log-probs already."""
    accelerator = SimpleNamespace(device=torch.device("cpu"), gather_for_metrics=lambda x: x, gather=lambda x: x)
    plain = dict(
        model=SimpleNamespace(training=True), accelerator=accelerator, aux_loss_enabled=False, ld_alpha=None,
        precompute_ref_logps=True, f_divergence_type="reverse_kl", loss_weights=[1.0], label_smoothing=0.0,
        use_weighting=False, _metrics={"train": defaultdict(list)}, _total_train_tokens=0, _tp_size=1,
        desirable_weight=1.0, undesirable_weight=1.0, loss_type="kto", calculate_KL=True,
    )  # fmt: skip
    return SimpleNamespace(**(plain | settings))


class Model:
    """Answers every call with the log-probs that were put in."""

    training = True

    def __init__(self, logprobs):
        self.logprobs = logprobs

    def __call__(self, **inputs):
        zeros = torch.zeros_like(self.logprobs)
        return SimpleNamespace(log_probs=self.logprobs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())


def inputs(mask):
    whole = torch.cat([torch.zeros(len(mask), 1, dtype=torch.long), mask.long()], 1)  # a prompt of one token
    return {"input_ids": whole, "attention_mask": torch.ones_like(whole), "completion_mask": whole}


def trl_gradient(name, new, ref, mask, beta, z0):
    """∂loss/∂log π of TRL's loss, [6, 5]."""
    new = new.clone().requires_grad_()
    sums = ref.sum(1)
    if name == "kto":
        stub = trainer(beta=beta, _compute_kl_logps=lambda model, batch: torch.full((6,), z0, dtype=F64))
        label = torch.tensor([True] * 3 + [False] * 3)
        batch = inputs(mask) | {"label": label, "ref_logps": sums, "ref_KL_logps": torch.zeros(6, dtype=F64)}
        loss = KTOTrainer._compute_loss(stub, Model(new), batch, False)
    else:
        stub = trainer(beta=beta, loss_types=[{"dpo": "sigmoid"}.get(name, name)])
        batch = inputs(mask) | {"ref_chosen_logps": sums[:3], "ref_rejected_logps": sums[3:]}
        loss = DPOTrainer._compute_loss(stub, Model(new), batch, False)
    return torch.autograd.grad(loss, new)[0]


@pytest.mark.parametrize("name", PREFERENCES)
@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_weights_are_the_gradient_of_trls_loss(name, beta):
    (new, mask), (ref, _), z0 = logprobs(0), logprobs(1), 0.3
    weights = response_weights(name, (new - ref).sum(1), LENGTHS, PAIRS, beta, z0)
    expected = -trl_gradient(name, new, ref, mask, beta, z0)
    torch.testing.assert_close(weights[:, None] * mask, expected * mask, atol=1e-9, rtol=1e-9)
    assert weights.abs().min() > 0


def test_weights_at_the_start_of_a_round_by_hand():
    """Four responses in two pairs, β = 0.1, all log-ratios 0."""
    rows = Preferred(torch.tensor([0, 3]), torch.tensor([1, 2]))
    zero, lengths = torch.zeros(4, dtype=F64), torch.tensor([2, 4, 3, 1])
    by_hand = {
        "dpo": [0.025, -0.025, -0.025, 0.025],  # β/2 over two pairs
        "ipo": [2.5, -1.25, -5 / 3, 5.0],  # 2 · 1/(2β) over two pairs and |o|
        "kto": [0.00625, -0.00625, -0.00625, 0.00625],  # β σ′(0) over four responses
    }
    for name, expected in by_hand.items():
        weights = response_weights(name, zero, lengths, rows, 0.1)
        torch.testing.assert_close(weights, torch.tensor(expected, dtype=F64), atol=1e-12, rtol=0)


def test_the_first_step_of_a_round_is_unit_f_isft():
    """DPO at π = ref: F-ISFT⁺⁻ with weight β and no 1/|o|, on the responses of the pairs."""
    mask = (torch.arange(5) < LENGTHS[:, None]).to(F64)
    unit = replace(OBJECTIVES["f_isft_posneg_unit"], normaliser="token_sum")
    rewards = torch.tensor([1.0] * 3 + [0.0] * 3, dtype=F64)
    literal = token_weights(unit, advantages(rewards, 6, unit.advantage), mask)
    dpo = response_weights("dpo", torch.zeros(6, dtype=F64), LENGTHS, PAIRS, 0.1)
    torch.testing.assert_close(dpo[:, None] * mask, 0.1 * literal, atol=1e-15, rtol=0)


def test_a_pair_that_is_told_apart_weighs_nothing():
    ratios = torch.tensor([400.0, 1, 1, -400.0, 1, 1], dtype=F64)
    weights = response_weights("dpo", ratios, LENGTHS, PAIRS, 0.1)
    assert weights[0] == pytest.approx(0, abs=1e-12) and weights[3] == pytest.approx(0, abs=1e-12)
    assert weights[1] == pytest.approx(0.1 / 2 / 3)


def test_what_is_no_pair_is_refused():
    zero = torch.zeros(6)
    with pytest.raises(RlinoError, match="1 chosen and 2 rejected"):
        response_weights("dpo", zero, LENGTHS, Preferred(torch.tensor([0]), torch.tensor([1, 2])), 0.1)
    with pytest.raises(RlinoError, match="0 chosen and 0 rejected"):
        response_weights("kto", zero, LENGTHS, Preferred(torch.tensor([]).long(), torch.tensor([]).long()), 0.1)
    with pytest.raises(RlinoError, match="preference"):
        response_weights("simpo", zero, LENGTHS, PAIRS, 0.1)


# A group of four for each letter: r right, R right and truncated, w wrong, W wrong and truncated, m malformed.
GROUPS = {
    "rrww": ({0, 1}, {2, 3}), "rrmw": ({0, 1}, {2}), "wwww": ({0, 1, 2, 3}, {0, 1, 2, 3}), "wmmw": ({0, 3}, {1, 2}),
    "Rwww": ({1, 2, 3}, {1, 2, 3}), "rWWW": ({0}, {1, 2, 3}), "WWWm": None, "rrrr": None, "mmmm": None, "RRRR": None,
    "rrRR": None,
}  # fmt: skip


def made(letters, choice="random", lengths=(1, 2, 3, 4), seed=0):
    facts = ([c in "rR" for c in letters], [c != "m" for c in letters], [c in "RWm" for c in letters])
    return pairs(*facts, list(lengths) * (len(letters) // 4), 4, choice, random.Random(seed))


@pytest.mark.parametrize("letters", GROUPS)
def test_which_pairs_can_be_made(letters):
    drawn = [made(letters, seed=seed) for seed in range(60)]
    if GROUPS[letters] is None:
        assert all(len(rows.chosen) == 0 for rows in drawn)
        return
    chosen, rejected = GROUPS[letters]
    assert {rows.chosen.item() for rows in drawn} == chosen
    assert {rows.rejected.item() for rows in drawn} == rejected
    assert all(rows.chosen.item() != rows.rejected.item() for rows in drawn)


@settings(deadline=None)
@given(st.text("rRwWm", min_size=4, max_size=4), st.permutations([1, 2, 3, 4]))
def test_the_choice_by_length(letters, lengths):
    """The longest and the shortest are chosen among the same candidates, and one that is right where there is any."""
    longest, shortest = (made(letters, choice, lengths).chosen.tolist() for choice in ("longest", "shortest"))
    assert len(longest) == len(shortest)
    for i, j in zip(longest, shortest, strict=True):
        assert letters[i] == letters[j] in "rw" and lengths[i] >= lengths[j]
        assert letters[i] == "r" or "r" not in letters
        same = [length for c, length in zip(letters, lengths, strict=True) if c == letters[i]]
        assert (lengths[i], lengths[j]) == (max(same), min(same))


def test_pairs_stay_in_their_group():
    rows = made("rwwwwwrwrrrr")
    assert (rows.chosen // 4).tolist() == (rows.rejected // 4).tolist() == [0, 1]
    assert rows.chosen.tolist() == [0, 6]
