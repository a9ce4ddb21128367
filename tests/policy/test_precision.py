"""Precision: chosen by what the machine can do, alike in pretraining, training, evaluating and sampling."""

import json
import os
import subprocess
import sys
import types
import warnings
from dataclasses import replace

import pytest
import torch
from transformers import Qwen2Config

from rlino_lib.cli import main as cli
from rlino_lib.errors import RlinoError, RlinoWarning
from rlino_lib.policy import device
from rlino_lib.policy.device import casts, gains_from_bf16, pick_precision, policy_precision
from rlino_lib.policy.models import load_policy
from rlino_lib.policy.sampling import sample
from rlino_lib.records.runs import load_run
from rlino_lib.tasks import Countdown
from rlino_lib.training.config import Recipe, TrainConfig
from rlino_lib.training.memory import estimate
from rlino_lib.training.pretraining.pretrain import pretrain
from rlino_lib.training.run import train
from rlino_lib.training.trainer import Trainer

SHORT = dict(method="grpo_no_kl", prompts=2, group_size=4, eval_every=0, micro_batch=4, max_new_tokens=40, guard="warn")
TINY = Recipe(steps=2, restart=1, batch_size=4, hidden_size=16, layers=1)


@pytest.fixture(params=[True, False], ids=["bf16 unit", "no bf16 unit"])
def unit(request, monkeypatch):
    """A machine with and one without instructions for bfloat16."""
    monkeypatch.setattr(device, "has_bf16", lambda place: request.param)
    device._warn_of_cost.cache_clear()
    return request.param


@pytest.fixture
def everything_is_large(monkeypatch):
    monkeypatch.setattr(device, "SMALL", 0)


def test_auto_is_bf16_only_where_the_machine_has_it_and_the_work_gains(unit):
    assert pick_precision("auto", "cpu", gains=True) == ("bf16" if unit else "fp32")
    assert pick_precision("auto", "cpu", gains=False) == "fp32"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_another_choice_holds_and_one_line_says_what_it_costs(unit, precision):
    faster = "bf16" if unit else "fp32"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert pick_precision(precision, "cpu", gains=True) == precision
        assert pick_precision(precision, "cpu", gains=True) == precision
    assert [str(w.message) for w in caught] == [f"products in {precision} are slower here than in {faster}"] * (
        precision != faster
    )
    assert all(w.category is RlinoWarning for w in caught)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "auto"])
def test_an_estimate_computes_nothing_and_warns_of_no_cost(unit, precision):
    with warnings.catch_warnings():
        warnings.simplefilter("error", RlinoWarning)
        needed = estimate(Qwen2Config(hidden_size=896, num_hidden_layers=24), TrainConfig(precision=precision))
    assert needed.update > 0


def test_a_processor_that_is_told_to_be_an_older_one_is_believed():
    program = "from rlino_lib.policy.device import has_bf16; print(has_bf16('cpu'))"
    older = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    answer = subprocess.run([sys.executable, "-c", program], env=older, capture_output=True, text=True)
    assert answer.stdout == "False\n"


def test_bf16_needs_the_instructions_and_not_only_a_library_that_takes_it(monkeypatch):
    monkeypatch.setattr(device.platform, "machine", lambda: "x86_64")
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    assert not device.has_bf16("cpu")
    assert not device.has_bf16("mps")


def test_a_base_is_made_in_it_and_its_card_says_so(unit, tmp_path):
    used = "bf16" if unit else "fp32"
    assert pretrain(TINY, tmp_path / "auto", progress=False)["recipe"]["precision"] == used
    same = pretrain(replace(TINY, precision=used), tmp_path / "named", progress=False)
    card = json.loads((tmp_path / "auto" / "card.json").read_text(encoding="utf-8"))
    assert card["recipe"]["precision"] == used and card["weights_sha256_16"] == same["weights_sha256_16"]
    other = "fp32" if unit else "bf16"
    assert pretrain(TINY, tmp_path / "auto", progress=False) == card  # `auto` agrees with what there is
    with pytest.raises(RlinoError, match=f"precision {used}, not {other}"):
        pretrain(replace(TINY, precision=other), tmp_path / "auto", progress=False)


def test_a_small_policy_is_trained_in_fp32_and_a_large_one_in_what_is_faster(unit, tmp_path, monkeypatch):
    config = TrainConfig(steps=1, **SHORT)
    assert train(config, tmp_path / "small").config["precision"] == "fp32"
    monkeypatch.setattr(device, "SMALL", 0)
    assert train(config, tmp_path / "large").config["precision"] == ("bf16" if unit else "fp32")


def test_an_evaluation_records_it(unit, everything_is_large, tmp_path):
    words = ["evaluate", "--problems", "2", "--max-new-tokens", "20", "--out", str(tmp_path / "e")]
    assert cli.main(words) == 0
    recorded = json.loads((tmp_path / "e" / "evaluation.json").read_text(encoding="utf-8"))
    assert recorded["asked"]["precision"] == ("bf16" if unit else "fp32")


def test_samples_are_taken_in_it(unit, everything_is_large):
    policy, task = load_policy(), Countdown()
    prompts = [task.prompt(p) for p in task.problems("test", 4)]
    by_name = {name: sample(policy, prompts, 2, precision=name).logprobs for name in ("auto", "fp32", "bf16")}
    same, other = ("bf16", "fp32") if unit else ("fp32", "bf16")
    assert torch.equal(by_name["auto"], by_name[same])
    assert by_name["auto"].shape != by_name[other].shape or not torch.equal(by_name["auto"], by_name[other])


def test_what_was_begun_on_one_machine_goes_on_in_its_precision_on_another(everything_is_large, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def stop(step, metrics):
        if step == 2:
            raise Stop

    monkeypatch.setattr(device, "has_bf16", lambda place: True)
    config = TrainConfig(steps=3, checkpoint_every=1, **SHORT)
    with pytest.raises(Stop):
        train(config, tmp_path / "run", on_step=stop)
    monkeypatch.setattr(device, "has_bf16", lambda place: False)
    run = train(config, tmp_path / "run")
    assert run.complete and load_run(tmp_path / "run").config["precision"] == "bf16"


def test_a_trainer_has_no_auto_left(unit):
    assert Trainer(TrainConfig(**SHORT)).config.precision == policy_precision("auto", load_policy().model)


@pytest.mark.parametrize(("kind", "parameters", "gains"), [
    ("cpu", 800_000, False), ("cpu", 30_000_000, False), ("cpu", 500_000_000, True),
    ("cuda", 800_000, False), ("cuda", 30_000_000, True), ("cuda", 500_000_000, True),
])  # fmt: skip
def test_a_gpu_casts_what_is_large_enough_to_gain(kind, parameters, gains, monkeypatch):
    """A meta tensor stands in for the weights: nothing is computed."""
    assert gains_from_bf16(parameters, kind) == gains
    monkeypatch.setattr(device, "count_parameters", lambda model: parameters)
    model = torch.nn.Linear(1, 1)
    monkeypatch.setattr(model, "parameters", lambda: iter([types.SimpleNamespace(device=torch.device(kind))]))
    assert not casts("fp32", model)
    assert casts("bf16", model) == (
        gains or kind == "cpu"
    )  # on a CPU what was asked for is done, and a line says its cost
