"""Probes measure and do not train; fresh samples have ratio 1, and stale ones drift away from it."""

import dataclasses

import pytest
import torch

from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.records.runs import load_run
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.run import train
from rlino_lib.training.staleness import is_probed
from rlino_lib.training.trainer import Trainer

SMALL = TrainConfig(
    method="grpo_no_kl", steps=2, prompts=6, group_size=4, epochs=4, lr=1e-3, eval_every=0, max_new_tokens=60,
    probe_every=1, trace_groups=0, guard="warn",
)  # fmt: skip


def test_updates_are_probed_at_powers_of_two():
    assert [u for u in range(1, 40) if is_probed(u)] == [1, 2, 4, 8, 16, 32]


@pytest.mark.parametrize("method", ["grpo_no_kl", "f_isft_posneg"])
def test_a_probe_changes_nothing(method):
    found = []
    for every in (0, 1):
        trainer = Trainer(dataclasses.replace(SMALL, method=method, probe_every=every))
        trainer.step()
        trainer.step()
        found.append(torch.cat([p.flatten() for p in trainer.model.parameters()]))
        assert bool(trainer.probes) == bool(every)
    assert torch.equal(*found)


def test_fresh_samples_have_ratio_one_and_stale_ones_drift():
    trainer = Trainer(SMALL)
    while not trainer.probes or trainer.probes[0]["kl/sampler"] is None:  # a step with a mixed group
        trainer.step()
    first, *_, last = trainer.probes
    assert [p["update"] for p in trainer.probes] == [1, 2, 4]
    assert first["ratio/q01"] == pytest.approx(1, abs=1e-4) and first["ratio/q99"] == pytest.approx(1, abs=1e-4)
    assert first["cosine/plain"] == pytest.approx(1, abs=1e-6) and first["norm_ratio/plain"] == pytest.approx(
        1, abs=1e-4
    )
    assert first["clip_ratio"] == first["ratio/outside"] == 0 and first["kl/sampler"] == pytest.approx(0, abs=1e-6)
    assert last["ratio/q01"] < 0.99 and last["ratio/q99"] > 1.001
    assert last["kl/sampler"] > 10 * abs(first["kl/sampler"]) and last["cosine/plain"] < first["cosine/plain"]


def test_probes_are_recorded_and_survive_a_kill(tmp_path):
    config = dataclasses.replace(SMALL, steps=4, checkpoint_every=2)
    whole = train(config, tmp_path / "whole").probes
    assert whole["step"].unique().tolist() == [1, 2, 3, 4]

    class Killed(Exception):
        pass

    def stop(step, metrics):
        if step == 3:
            raise Killed

    with pytest.raises(Killed):
        train(config, tmp_path / "killed", on_step=stop)
    train(config, tmp_path / "killed")
    assert (tmp_path / "killed/probes.csv").read_bytes() == (tmp_path / "whole/probes.csv").read_bytes()
    assert load_run(tmp_path / "killed").probes.equals(whole)


@pytest.mark.parametrize("method", sorted(OBJECTIVES))
def test_every_named_objective_trains_with_several_updates_a_batch(method):
    trainer = Trainer(dataclasses.replace(SMALL, method=method, epochs=2, minibatches=2, probe_every=0))
    before = torch.cat([p.detach().flatten().clone() for p in trainer.model.parameters()])
    for _ in range(3):
        metrics, rollouts, credit = trainer.step()
    assert credit["weights"].shape == rollouts.mask.shape and credit["advantage"].shape == (24,)
    assert credit["weights"].isfinite().all() and (credit["weights"][~rollouts.mask] == 0).all()
    after = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    assert after.isfinite().all() and not torch.equal(before, after)
    assert metrics["grad_norm"] is not None
