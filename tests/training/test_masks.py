"""Masks of the loss: by who wrote a token, by delimiters, and none."""

from dataclasses import replace

import pytest
import torch

from rlino_lib.errors import RlinoError
from rlino_lib.paths import base_of
from rlino_lib.policy.logprobs import response_logprobs
from rlino_lib.policy.models import load_policy
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.tasks import HiddenTarget
from rlino_lib.training.config import LOSS_MASKS, TrainConfig
from rlino_lib.training.masks import MASKS, counted, delimiter_ids, within
from rlino_lib.training.run import train
from rlino_lib.training.trainer import Trainer

SETTINGS = dict(task="hidden_target", steps=2, prompts=4, group_size=8, max_new_tokens=64, eval_every=0, lr=1e-3)


@pytest.fixture(scope="module")
def policy():
    return load_policy(base_of("hidden_target"))


def by_hand(ids, opens, closes):
    inside, out = False, []
    for token in ids:
        inside = inside or token == opens
        out.append(inside)
        inside = inside and token != closes
    return out


def test_what_stands_within_delimiters():
    rows = [
        [3, 1, 5, 2, 4, 4], [1, 2, 1, 5, 5, 2], [1, 1, 2, 2, 5, 1], [2, 5, 1, 5, 5, 5], [5, 5, 5, 5, 5, 5],
        [2, 1, 2, 5, 1, 2],
    ]  # fmt: skip
    assert within(torch.tensor(rows), 1, 2).tolist() == [by_hand(row, 1, 2) for row in rows]


def rollouts_of(policy, texts):
    """Responses in pieces, by turns the policy's and the environment's."""
    rows, owners = [], []
    for pieces in texts:
        ids = [policy.tokenizer(piece, add_special_tokens=False)["input_ids"] for piece in pieces]
        rows.append(torch.tensor([token for part in ids for token in part]))
        owners.append(torch.tensor([k % 2 == 0 for k, part in enumerate(ids) for _ in part]))
    pad = torch.nn.utils.rnn.pad_sequence
    ids, mask = pad(rows, batch_first=True), pad(owners, batch_first=True)
    written = pad([torch.ones(len(row), dtype=torch.bool) for row in rows], batch_first=True)
    prompt = torch.tensor([policy.tokenizer("Numbers 8 2 4 target ? <think>")["input_ids"]])
    zeros = torch.zeros(ids.shape)
    truncated = torch.zeros(len(ids), dtype=torch.bool)
    return Rollouts(
        ["Numbers 8 2 4 target ? <think>"], prompt, prompt > 0, ids, mask, zeros, zeros, truncated, [""] * len(ids),
        len(ids), written=written,
    )  # fmt: skip


def test_the_table(policy):
    assert tuple(MASKS) == LOSS_MASKS and TrainConfig().loss_mask == "policy"
    rollouts = rollouts_of(policy, [(" look", " <target> 24 </target>\n", " 8"), (" <target> 57 </target> 8 +",)])
    ids = delimiter_ids(HiddenTarget(), policy.tokenizer)
    expected = {
        "policy": [[1, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 0]],
        "delimiter": [
            [1, 0, 0, 0, 1, 1],
            [0, 0, 0, 1, 1, 0],
        ],  # the line break leaks, and a forged target is not learned
        "all": [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]],
    }
    for name, rows in expected.items():
        assert MASKS[name](rollouts, ids).int().tolist() == rows, name


@pytest.mark.parametrize("name", LOSS_MASKS)
def test_what_the_loss_sees(policy, name):
    trainer = Trainer(TrainConfig(**SETTINGS, loss_mask=name), policy)
    rollouts = trainer.sample(1)
    assert (rollouts.written & ~rollouts.mask).any()
    seen = counted(trainer, rollouts)
    with torch.no_grad():
        logprobs, _ = response_logprobs(policy.model, rollouts, torch.arange(len(rollouts.ids)))
    assert (seen is rollouts) == (name == "policy")
    assert ((seen.logprobs - logprobs)[seen.mask].abs() < 1e-4).all() and (seen.logprobs[~seen.mask] == 0).all()
    both = seen.mask & rollouts.mask
    assert torch.equal(seen.logprobs[both], rollouts.logprobs[both])  # as sampled


@pytest.mark.parametrize("name", LOSS_MASKS)
def test_a_run_records_who_wrote_what_and_the_weights_of_its_mask(tmp_path, name):
    run = train(TrainConfig(**SETTINGS, loss_mask=name, trace_groups=4), tmp_path / name)
    assert run.config.get("loss_mask", "policy") == name and ("loss_mask" in run.config) == (name != "policy")
    frame = run.rollouts
    looked = frame[frame["foreign"].notna() & (frame["advantage"] != 0)]
    assert len(looked) and frame["foreign"].isna().any()
    for _, row in looked.iterrows():
        at = row["tokens"].index(" look")
        assert row["foreign"][at : at + 6] == [0, 1, 1, 1, 1, 0]
        assert row["length"] == len(row["tokens"]) - sum(row["foreign"])
        weighted = [int(w != 0) for w in row["weights"][at : at + 6]]
        assert weighted == {"policy": [1, 0, 0, 0, 0, 1], "delimiter": [1, 0, 0, 0, 1, 1], "all": [1] * 6}[name]


def test_a_mask_that_is_not_read_is_refused(policy):
    with pytest.raises(RlinoError, match="loss_mask needs update=policy_gradient"):
        Trainer(TrainConfig(**SETTINGS | {"method": "f_isft_posneg", "loss_mask": "all"}), policy)
    with pytest.raises(RlinoError, match="has values at the policy's tokens alone"):
        Trainer(TrainConfig(**SETTINGS | {"method": "vineppo", "loss_mask": "all"}), policy)
    with pytest.raises(RlinoError, match="loss_mask must be one of policy, delimiter, all"):
        TrainConfig(loss_mask="none")
    plain = SETTINGS | {"task": "countdown"}
    with pytest.raises(RlinoError, match="needs a task whose environment writes between delimiters"):
        Trainer(TrainConfig(**plain, loss_mask="delimiter"))
    with pytest.raises(RlinoError, match="the policy writes all of a response to countdown"):
        Trainer(TrainConfig(**plain, loss_mask="all"))
    Trainer(TrainConfig(**plain, loss_mask="all", task_settings={"restarts": 0.5}))
    with pytest.raises(RlinoError, match="between delimiters of one token"):  # the base of Countdown has bytes for them
        Trainer(TrainConfig(**SETTINGS, loss_mask="delimiter"), load_policy())


def test_each_mask_is_another_step():
    weights = {}
    for name in LOSS_MASKS:
        trainer = Trainer(replace(TrainConfig(**SETTINGS), loss_mask=name))
        trainer.step()
        weights[name] = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    assert not torch.equal(weights["policy"], weights["delimiter"])
    assert not torch.equal(weights["delimiter"], weights["all"])
