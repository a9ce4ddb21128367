"""The benchmarks run and report both sides; what they report is for `rlino bench`, never for a test."""

import json
import platform

import pytest
import torch
from transformers import Qwen2ForCausalLM

from rlino_lib.cli import bench, bench_gpu, options
from rlino_lib.cli import main as cli
from rlino_lib.errors import RlinoError


def test_seconds_takes_functions_in_turn_after_a_warm_up():
    calls = []
    medians = bench.seconds(lambda: calls.append("a"), lambda: calls.append("b"), repeats=2)
    assert calls == ["a", "b"] * 3 and len(medians) == 2 and all(t >= 0 for t in medians)


def test_the_gemm_peak_is_a_rate():
    assert bench.gemm_peak(64, 2) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name, sides", [("rollout", ("rlino_tokens_per_s", "generate_tokens_per_s")),
                                         ("step", ("rlino_s", "trl_s"))])  # fmt: skip
def test_a_bench_reports_both_sides_and_their_ratio(name, sides, monkeypatch):
    monkeypatch.setattr(bench, "PROMPTS", 2)
    monkeypatch.setattr(bench, "GROUP", 2)
    monkeypatch.setattr(bench, "NEW_TOKENS", 8)
    row = bench.BENCHES[name](repeats=1)
    assert all(row[side] > 0 for side in sides) and row["ratio"] > 0
    assert row["threads"] == torch.get_num_threads()


def test_the_bench_of_many_samples_measures_with_and_without_merging(monkeypatch):
    from rlino_lib.policy import decode

    monkeypatch.setattr(bench, "MANY_PROBLEMS", 1)
    monkeypatch.setattr(bench, "MANY_SAMPLES", decode.MANY)
    merging = []
    prefill = decode.Decoder.prefill
    monkeypatch.setattr(
        decode.Decoder, "prefill", lambda self, rows: (prefill(self, rows), merging.append(self.merged is not None))[0]
    )
    row = bench.bench_pass_at_k(repeats=1)
    assert merging == [True, False, True, False, True]
    assert (row["problems"], row["samples"]) == (1, decode.MANY) and 0 < row["tokens"] <= 160 * decode.MANY
    assert row["tokens_per_s"] == pytest.approx(row["ratio"] * row["alone_tokens_per_s"], rel=0.1)
    assert row["minutes_of_256_problems"] == pytest.approx(256 * row["seconds"] / 60, rel=0.1, abs=0.1)
    assert row["peak_mib"] > 0 and row["instructions"] and row["threads"] == torch.get_num_threads()


@pytest.mark.slow
def test_the_bench_of_credit_measures_steps_and_values_on_both_tasks(monkeypatch):
    for name, value in (("CREDIT_PROMPTS", 2), ("GROUP", 4), ("PREFIXES", 5), ("PREFIX_PROBLEMS", 3)):
        monkeypatch.setattr(bench, name, value)
    row = bench.bench_credit(repeats=1)
    assert (row["prompts"], row["group_size"], row["value_samples"]) == (2, 4, 3)
    for task, cap in bench.CAPS.items():
        one, other = row[f"{task}_grpo_no_kl_s"], row[f"{task}_vineppo_s"]
        assert 0 < one < other and row[f"{task}_ratio"] == pytest.approx(other / one, rel=0.1)
        assert 0 < row[f"{task}_grpo_no_kl_tokens"] <= 8 * cap < row[f"{task}_vineppo_tokens"] + 8 * cap
        assert row[f"{task}_prefixes"] == 5 and row[f"{task}_values_s"] > 0
        assert 15 <= row[f"{task}_values_tokens"] <= 15 * cap
    assert row["threads"] == torch.get_num_threads()


def test_prefixes_that_are_valued_are_different_and_each_is_valued_three_times(monkeypatch):
    from rlino_lib.evaluation import values

    valued = []
    monkeypatch.setattr(
        values, "prefix_values", lambda policy, task, pairs, samples, seed, **more: valued.append((pairs, samples))
    )
    monkeypatch.setattr(bench, "seconds", lambda value, repeats: [value()])
    monkeypatch.setattr(bench, "PREFIX_PROBLEMS", 4)
    with pytest.raises(TypeError):  # nothing was sampled
        bench._valuing("word_problems", 64, 1, 0)
    ((pairs, samples),) = valued
    keys = [(problem.id, start) for problem, start in pairs]
    assert samples == 3 and len(set(keys)) == len(keys) > 4 and keys.count((pairs[0][0].id, "")) == 1


@pytest.mark.slow
def test_the_memory_bench_measures_each_way_in_a_fresh_process(monkeypatch):
    monkeypatch.setattr(bench, "TOKENS", 512)
    monkeypatch.setattr(bench, "VOCABULARY", 100_000)
    monkeypatch.setitem(bench.SHAPES, "0.5b", dict(hidden_size=64, intermediate_size=64, num_hidden_layers=1,
                                                   num_attention_heads=4))  # fmt: skip
    row = bench.bench_memory(repeats=1)
    logits = 4 * 512 * 100_000 / 2**20  # MiB
    assert 2.5 * logits < row["naive_mib"] < 8 * logits and row["memory_ratio"] < 0.25
    assert row["gradients_mib"] <= row["chunked_mib"] < logits
    for of in ("head", "frozen", "model"):
        assert row[f"{of}_naive_s"] > 0 and row[f"{of}_chunked_s"] > 0 and row[f"{of}_time_ratio"] > 0


@pytest.mark.slow
def test_the_shape_bench_steps_a_random_model_and_compares_its_estimate(monkeypatch):
    monkeypatch.setitem(bench.SHAPES, "tiny", dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                                                   num_attention_heads=4))  # fmt: skip
    row = bench._shape_steps("tiny", 1, torch.get_num_threads(), 0)
    assert row["parameters"] == sum(p.numel() for p in Qwen2ForCausalLM(bench.shape_config("tiny")).parameters())
    assert row["step_s"] > row["update_s"] > 0 and row["ratio"] > 0 and 0 < row["estimate_gib"] < 1
    with pytest.raises(RlinoError, match="one of 0.5b, 1.5b"):
        bench.shape_config("72b")
    with torch.device("meta"):  # the published sizes, embeddings counted once
        sizes = {name: Qwen2ForCausalLM(bench.shape_config(name)).num_parameters() for name in ("0.5b", "1.5b")}
    assert sizes == {"0.5b": 494_032_768, "1.5b": 1_543_714_304}


def test_the_command_says_on_what_machine_it_measured(monkeypatch, capsys):
    monkeypatch.setitem(bench.BENCHES, "rollout", lambda **settings: {"bench": "rollout"} | settings)
    assert cli.main(["bench", "rollout", "--repeats", "2"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["bench"] == "rollout" and row["repeats"] == 2 and row["machine"].startswith(platform.machine())


def test_the_command_takes_every_bench():
    (_, settings), *_ = options.BENCH
    assert set(settings["choices"]) == {*bench.BENCHES, "gpu"}


# --- bench gpu -------------------------------------------------------------------------------------------------------

TINY = bench_gpu.tiny()
ENGINES = {"trl_base_s"}  # which is measured where it is installed


@pytest.fixture
def no_engines(monkeypatch):
    monkeypatch.setattr(bench_gpu, "MEASUREMENTS", [m for m in bench_gpu.MEASUREMENTS if not m[2]])


@pytest.mark.slow
def test_the_bench_of_a_gpu_measures_everything_and_says_so_as_it_goes(no_engines, monkeypatch, capsys):
    monkeypatch.setattr(bench_gpu, "pick_device", lambda: "cpu")
    assert cli.main(["bench", "gpu"]) == 0
    out, err = capsys.readouterr()
    (row,) = map(json.loads, out.splitlines())
    assert (row["bench"], row["device"], row["torch"]) == ("gpu", "cpu", torch.__version__) and row["machine"]
    measured = {name for name in bench_gpu.NUMBERS if row[name] is not None}
    assert measured == set(bench_gpu.NUMBERS) - ENGINES
    assert all(row[name] > 0 for name in measured if not name.endswith("_ms"))  # a difference of two may be anything
    same = bench_gpu.GpuBench(TINY, "cpu", 0)
    prompts = same.policy.tokenizer(same.prompts)["input_ids"]
    assert row["update_tokens"] == TINY.rows * TINY.new_tokens + TINY.group * sum(map(len, prompts))
    lines = err.splitlines()
    said = [lines.index(next(line for line in lines if f"{name} " in line)) for name in measured]
    assert len(set(said)) == len(bench_gpu.MEASUREMENTS)


def test_repeats_are_refused_where_nothing_is_repeated(monkeypatch, capsys):
    monkeypatch.setattr(bench_gpu, "bench_gpu", lambda **settings: settings)
    assert cli.main(["bench", "gpu", "--repeats", "5"]) == 2
    assert "measures once, within its minute: leave it out" in capsys.readouterr().err
    assert cli.main(["bench", "gpu", "--seed", "3"]) == 0 and json.loads(capsys.readouterr().out)["seed"] == 3


def test_no_measurement_is_begun_once_the_time_is_spent(capsys):
    row = bench_gpu.bench_gpu(budget=0)
    assert all(row[name] is None for name in bench_gpu.NUMBERS)
    left_out = [line for line in capsys.readouterr().err.splitlines() if "left out after" in line]
    assert left_out[0].endswith("decoding of all rows") and len(left_out) >= 5
