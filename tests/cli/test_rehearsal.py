"""A run rehearsed: its parts add up, nothing is downloaded or written, and what it would refuse is refused."""

import json
import math

import pytest
import torch

from rlino_lib.cli import bench, rehearsal
from rlino_lib.cli import main as cli
from rlino_lib.cli.bench import shape_config
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.paths import RUNS
from rlino_lib.training import memory
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.memory import GIB, estimate, update_flops


@pytest.fixture
def small_shapes(monkeypatch):
    """Qwen2.5 in name only: a width of 32."""
    small = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4)
    monkeypatch.setattr(bench, "VOCABULARY", 600)
    for size in ("0.5b", "1.5b"):
        monkeypatch.setitem(bench.SHAPES, size, small)


@pytest.fixture
def clock(monkeypatch):
    """Sampling takes 2 seconds and 0.25 for each token, an update 6."""

    def seconds(function, device):
        returned = function.__self__ if hasattr(function, "__self__") else None
        return (6.0 if returned is not None else 2 + 0.25 * function()), None

    for module in (bench, rehearsal):
        monkeypatch.setattr(module, "timed", seconds)
    monkeypatch.setattr(rehearsal, "sample", lambda *_, max_new_tokens, **__: max_new_tokens)


def rehearsed(capsys, *words):
    assert cli.main(["train", *words, "--dry-run"]) == 0
    out, err = capsys.readouterr()
    (row,) = map(json.loads, out.splitlines())
    return row, err


def test_parts_of_a_step_are_multiplied_to_the_whole(small_shapes, clock):
    config = TrainConfig(
        method="f_isft_pos", model="Qwen/Qwen2.5-0.5B", prompts=300, group_size=8, max_new_tokens=100, steps=10,
        eval_every=4, eval_problems=120, test_samples=2, epochs=2, micro_batch=8, device="cpu",
    )  # fmt: skip
    row = rehearsal.rehearse(config)
    assert row["measured"] == dict(layers=4, sampled=1024, few=8, more=40, updated=16, prompt=256, response=100)
    assert row["sample_s"] == pytest.approx(2400 / 1024 * (2 + 100 * 0.25), rel=1e-3)
    assert row["update_s"] == pytest.approx(2 * 6 * 2400 / 16, rel=1e-3)
    held_out = (1 + 3) * 120 + 2 * 1024
    whole = 10 * row["step_s"] + held_out * row["sample_s"] / 2400
    assert row["step_s"] == pytest.approx(row["sample_s"] + row["update_s"], rel=1e-3)
    assert row["hours"] == pytest.approx(whole / 3600, rel=1e-3)
    assert row["tokens_per_step"] == 240_000


def test_a_large_model_on_a_cpu_is_two_layers_and_the_rest_is_multiplied(small_shapes, clock, monkeypatch):
    monkeypatch.setattr(rehearsal, "SMALL", 0)
    row = rehearsal.rehearse(TrainConfig(model="Qwen/Qwen2.5-1.5B", method="grpo", device="cpu"))
    whole = shape_config("1.5b")
    two = shape_config("1.5b")
    two.num_hidden_layers = 2
    assert row["measured"]["layers"] == 2
    share = update_flops(whole, 1) / update_flops(two, 1)
    assert row["sample_s"] == pytest.approx(share * 512 / 4 * (2 + 112 * 0.25), rel=1e-3) and share > 1.3
    most = update_flops(whole, 512 * 368, 368, head_tokens=512 * 112) / update_flops(two, 128, 32, head_tokens=64)
    assert row["update_s"] == pytest.approx(6 * most, rel=1e-3)


@pytest.mark.parametrize("words", [[], ["--lora"], ["--method", "f_isft_posneg"]], ids=["grpo", "lora", "f_isft"])
@pytest.mark.parametrize("preset", ["paper-gsm8k-0.5b", "paper-countdown-1.5b"])
def test_a_cell_of_the_table_without_its_weights_or_its_data(
    preset, words, small_shapes, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RLINO_DATA", str(tmp_path / "nothing"))
    settings = ["--preset", preset, "--prompts", "4", "--max-new-tokens", "24", "--micro-batch", "2", *words]
    row, err = rehearsed(capsys, *settings)
    assert row["fits"] and row["step_s"] > 0 and row["hours"] > 0 and row["steps"] == 240
    config = cli.options.train_config(cli.build_parser().parse_args(["train", *settings]))
    needed = estimate(shape_config("0.5b"), config)
    assert row["memory_gib"]["total"] == pytest.approx(needed.total / GIB, abs=0.006)
    assert "computed from 4 of 4 layers" in err and "memory: about" in err
    assert not list(tmp_path.iterdir())


def test_a_local_model_is_rehearsed_with_its_own_prompts(capsys):
    row, _ = rehearsed(capsys, "--prompts", "4", "--group-size", "2", "--max-new-tokens", "20")
    assert row["parameters"] == 786_816 and 5 < row["prompt_tokens"] < 20
    assert row["measured"]["prompt"] == row["prompt_tokens"]


@pytest.mark.parametrize("method", sorted(OBJECTIVES))
def test_every_method_has_something_to_learn_from_random_responses(method, small_shapes, monkeypatch):
    norms = []

    def step(function, device):
        result = function()
        norms.extend([result[0]["grad_norm"]] if isinstance(result, tuple) else [])
        return 1.0, result

    monkeypatch.setattr(rehearsal, "timed", step)
    rehearsal.rehearse(
        TrainConfig(method=method, model="Qwen/Qwen2.5-0.5B", prompts=2, group_size=2, max_new_tokens=8, device="cpu")
    )
    assert len(norms) == 2 and all(math.isfinite(n) and n > 0 for n in norms)


def test_what_does_not_fit_is_said_with_advice_and_not_tried(small_shapes, monkeypatch, capsys):
    for module in (rehearsal, memory):
        monkeypatch.setattr(module, "free_bytes", lambda device="auto": 1000)
    row, err = rehearsed(capsys, "--preset", "paper-countdown-0.5b")
    assert not row["fits"] and row["step_s"] is None and row["hours"] is None
    assert "an update does not fit; no micro-batch fits" in err and "too little memory to measure a step here" in err


@pytest.mark.parametrize(
    "words, message",
    [
        (["--preset", "paper-chess", "--dry-run"], "unknown preset 'paper-chess': one of paper-gsm8k-0.5b, "),
        (["--preset", "paper-gsm8k-0.5b"], "the following arguments are required: --out"),
        (["--model", "no/such-model", "--dry-run"], "no/such-model has no configuration here to rehearse"),
        (["--method", "grppo", "--dry-run"], "grppo"),
        (["--method", "f_isft_pos", "--reward", "length_bonus", "--dry-run"], "a reward needs update=policy_gradient"),
        (["--preset", "paper-gsm8k-0.5b", "--task", "countdown", "--dry-run"], "countdown: template must be one of"),
        (["--minibatches", "600", "--dry-run"], "minibatches must be at most the 512 responses"),
        (["--objective-set", "shortest=9", "--dry-run"], "grpo keeps the 9 shortest of groups of 8"),
        (["--eval-problems", "1000000", "--dry-run"], "validation problems, 1000000 were asked for"),
        (["--test-samples", "1025", "--dry-run"], "drawn in equal parts: 1026, not 1025"),
        (["--out", str(RUNS / "countdown" / "grpo-s0"), "--dry-run"], "holds another run, complete, with "),
    ],
)
def test_what_the_run_would_refuse_is_refused_in_one_line(words, message, capsys):
    assert cli.main(["train", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and message in err


def test_an_unknown_preset_is_one_line_that_lists_them(capsys):
    assert cli.main(["presets", "paper-chess"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("rlino: unknown preset 'paper-chess': one of ") and err.count("\n") == 1


def test_responses_are_random_and_half_of_each_group_is_right():
    part = rehearsal.Part(layers=1, sampled=1, few=1, more=1, updated=6, prompt=5, response=7)
    rollouts = rehearsal._random_rollouts(50, part)
    assert rollouts.ids.shape == (6, 7) and rollouts.prompt_ids.shape == (3, 5) and int(rollouts.ids.max()) < 50
    assert rollouts.correct.view(3, 2).sum(1).tolist() == [1, 1, 1]
    assert torch.equal(rollouts.lengths, torch.full((6,), 7))
