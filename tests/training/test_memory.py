"""The estimate of a run's memory: exact where it counts, near where it reckons, and clear where a run does not fit."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlino_lib.policy.device import autocast
from rlino_lib.policy.logprobs import response_logprobs
from rlino_lib.policy.models import Policy, add_lora, count_parameters, recompute_layers
from rlino_lib.training import memory
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.memory import GIB, Estimate, advice, check, estimate, update_flops
from tests.policy.test_rollout import TOKENIZER

FACTOR = 1.5  # how far an estimate may be from what is measured, either way
QWEN_05B = Qwen2Config(
    vocab_size=151_936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
    num_key_value_heads=2, tie_word_embeddings=True,
)  # fmt: skip


def middling(**changes) -> Qwen2Config:
    settings = dict(
        vocab_size=8000, hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, eos_token_id=1, pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    return Qwen2Config(**(settings | changes))


def updates(config: Qwen2Config, rows: int, prompt: int, new: int, train: TrainConfig) -> int:
    """Bytes by which two whole updates raise the peak of a fresh process."""
    from rlino_lib.policy.rollouts import Rollouts

    torch.manual_seed(0)
    (torch.randn(64, 64, requires_grad=True) @ torch.randn(64, 64)).sum().backward()  # what libraries take once
    before = memory.peak_bytes()
    model = Qwen2ForCausalLM(config).eval()
    model = add_lora(model, rank=train.lora_rank) if train.lora_rank else model
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    ids, mask = torch.randint(config.vocab_size, (rows, new)), torch.ones(rows, new, dtype=torch.bool)
    prompts, all_of_it = torch.randint(config.vocab_size, (rows, prompt)), torch.ones(rows, prompt, dtype=torch.bool)
    zeros = torch.zeros(rows, new)
    rollouts = Rollouts(["?"] * rows, prompts, all_of_it, ids, mask, zeros, zeros, ~mask[:, 0], [""] * rows, 1)
    for _ in range(2):
        if train.gradient_checkpointing:
            recompute_layers(model)
        with autocast(train.precision, model):
            logprobs = response_logprobs(model, rollouts, torch.arange(rows))[0]
        logprobs.sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return memory.peak_bytes() - before


def sampling(config: Qwen2Config, prompts: int, group: int, new: int) -> int:
    """Bytes by which sampling raises the peak of a fresh process."""
    from rlino_lib.policy.sampling import sample

    before = memory.peak_bytes()
    policy = Policy(Qwen2ForCausalLM(config).eval(), TOKENIZER)
    sample(policy, ["Numbers 3 7 19 target 64 <think>"] * prompts, group, max_new_tokens=new, ignore_eos=True)
    return memory.peak_bytes() - before


def measured(monkeypatch, function, *arguments) -> int:
    # Otherwise glibc keeps blocks of this size that were freed, half as much again as is alive in the case of LoRA.
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1000000")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes, settings",
    [
        ({}, {}),
        ({"vocab_size": 32_000, "tie_word_embeddings": False}, {}),
        ({"vocab_size": 32_000}, {}),
        ({}, {"lora_rank": 8}),
        ({"vocab_size": 32_000}, {"precision": "bf16"}),
        ({"vocab_size": 32_000}, {"gradient_checkpointing": 1}),
    ],
    ids=["all_logits", "large_untied", "large_tied", "lora", "bf16", "checkpointing"],
)
def test_an_update_takes_what_was_estimated(changes, settings, monkeypatch):
    config = middling(**changes)
    train = TrainConfig(
        method="grpo_no_kl", prompts=1, group_size=16, micro_batch=16, max_new_tokens=96, eval_every=0, **settings
    )
    estimated, peak = (
        estimate(config, train, prompt_tokens=32).total,
        measured(monkeypatch, updates, config, 16, 32, 96, train),
    )
    assert peak / FACTOR <= estimated <= peak * FACTOR, (estimated / 2**20, peak / 2**20)


def test_a_critic_with_a_trunk_of_its_own_is_counted():
    config, settings = middling(), dict(prompts=1, group_size=16, max_new_tokens=96, eval_every=0)
    plain, shared, own = (
        estimate(config, TrainConfig(**settings, **more))
        for more in ({"method": "grpo_no_kl"}, {"method": "ppo", "critic_trunk": "policy"}, {"method": "ppo"})
    )
    assert shared == plain
    assert (own.weights, own.optimizer, own.gradients) == (2 * plain.weights, 2 * plain.optimizer, plain.gradients)


@pytest.mark.slow
def test_sampling_takes_what_was_estimated(monkeypatch):
    config = middling(vocab_size=len(TOKENIZER), num_key_value_heads=4, intermediate_size=512)
    train = TrainConfig(prompts=32, group_size=8, micro_batch=1, max_new_tokens=120, eval_every=0)
    peak, part = measured(monkeypatch, sampling, config, 32, 8, 120), estimate(config, train, prompt_tokens=9)
    estimated = part.weights + part.cache
    assert peak / FACTOR <= estimated <= peak * FACTOR, (estimated / 2**20, peak / 2**20)


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_counted_exactly(tied):
    config = middling(tie_word_embeddings=tied)
    model, part = Qwen2ForCausalLM(config), estimate(config, TrainConfig(method="grpo"))
    assert part.weights == part.reference == 4 * count_parameters(model) and part.optimizer == 2 * part.weights
    lora = estimate(config, TrainConfig(method="grpo", lora_rank=8))
    model = add_lora(model, rank=8)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert (lora.weights, lora.reference) == (4 * count_parameters(model), 0)
    assert (lora.optimizer, lora.gradients) == (8 * trained, 4 * trained)


def test_only_what_needs_a_reference_has_one():
    config = middling()
    needs = {m: estimate(config, TrainConfig(method=m)).reference > 0 for m in ("grpo", "grpo_no_kl", "f_isft_pos")}
    assert needs == {"grpo": True, "grpo_no_kl": False, "f_isft_pos": False}
    assert estimate(config, TrainConfig(method="f_isft_pos", eval_base=1)).reference > 0


def test_the_estimate_grows_with_what_it_should():
    one = estimate(QWEN_05B, TrainConfig(method="grpo_no_kl", precision="fp32", micro_batch=8))
    two = estimate(QWEN_05B, TrainConfig(method="grpo_no_kl", precision="fp32", micro_batch=16))
    assert two.activations > 1.9 * one.activations and two.weights == one.weights == 4 * 494_032_768
    longer = estimate(QWEN_05B, TrainConfig(method="grpo_no_kl", precision="fp32", micro_batch=8, max_new_tokens=480))
    assert longer.cache > one.cache and longer.activations > one.activations
    assert Estimate(1, 2, 3, 4, 5, 6).total == 1 + 2 + 3 + 9 == Estimate(1, 2, 3, 4, 5, 10).update
    assert Estimate(1, 2, 3, 4, 5, 10).total == 16


@pytest.mark.parametrize("tied", [True, False])
def test_operations_of_an_update_are_those_that_torch_counts(tied):
    config = middling(tie_word_embeddings=tied, attn_implementation="eager")  # whose products are all counted
    model = Qwen2ForCausalLM(config)
    ids = torch.randint(config.vocab_size, (3, 40))
    for kept in (40, 10):
        with FlopCounterMode(display=False) as counter:
            model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits.sum().backward()
        counted = update_flops(config, tokens=120, length=40, head_tokens=3 * kept)
        assert counter.get_total_flops() == pytest.approx(counted, rel=1e-4)
    assert update_flops(config, 120) == update_flops(config, 120, head_tokens=120) < update_flops(config, 120, 40)


def test_a_micro_batch_has_no_more_rows_than_a_step():
    step = dict(method="grpo_no_kl", prompts=2, group_size=2, precision="fp32")
    whole, larger = (estimate(QWEN_05B, TrainConfig(micro_batch=rows, **step)) for rows in (4, 64))
    assert whole == larger


def test_advice_names_the_mildest_change_that_fits():
    train = TrainConfig(method="grpo_no_kl", precision="fp32", prompts=16, group_size=8, micro_batch=32, eval_every=0)
    whole, one, kept = (
        estimate(QWEN_05B, replace(train, **c)).update
        for c in ({}, {"micro_batch": 1}, {"micro_batch": 1, "gradient_checkpointing": 1})
    )
    assert kept < one < whole
    assert advice(QWEN_05B, train, whole - 1) == "try --micro-batch 16"
    assert estimate(QWEN_05B, replace(train, micro_batch=16)).update < whole
    assert advice(QWEN_05B, train, one - 1).startswith("try --gradient-checkpointing 1 --micro-batch ")
    assert advice(QWEN_05B, train, kept - 1).startswith("try --lora-rank 16 --micro-batch ")
    assert "a smaller model" in advice(QWEN_05B, train, GIB)


def test_bf16_products_and_gradient_checkpointing_take_less():
    train = TrainConfig(method="grpo_no_kl", precision="fp32", micro_batch=16, max_new_tokens=512)
    plain, half, kept = (
        estimate(QWEN_05B, replace(train, **c)) for c in ({}, {"precision": "bf16"}, {"gradient_checkpointing": 1})
    )
    assert half.weights == 1.5 * plain.weights and half.optimizer == plain.optimizer
    assert 0.5 < half.activations / plain.activations < 0.8 and kept.activations < 0.15 * plain.activations


def test_one_line_says_what_is_needed_and_what_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 24 * GIB)
    QWEN_05B.save_pretrained(tmp_path / "model")
    train = TrainConfig(model=str(tmp_path / "model"), method="grpo_no_kl", prompts=8, eval_every=0, micro_batch=2)
    fits, message = check(train)
    needed = estimate(QWEN_05B, train).total / GIB
    assert fits and message == f"needs about {needed:.1f} GiB, 24.0 free" and 6 < needed < 24
    fits, message = check(replace(train, micro_batch=64))
    assert not fits and "24.0 free; try --micro-batch" in message and "\n" not in message
    fits, message = check(replace(train, prompts=128, max_new_tokens=2048, micro_batch=1))
    assert fits and message.endswith("24.0 free; fewer responses will be sampled at a time")


@pytest.fixture
def on_a_gpu(monkeypatch):
    """The rules of a GPU with 24 GiB free, without one."""
    monkeypatch.setattr(memory, "pick_device", lambda name="auto": "cuda")
    monkeypatch.setattr(memory, "pick_precision", lambda precision, device, gains: precision)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 24 * GIB)


LONG = TrainConfig(method="grpo_no_kl", prompts=64, precision="bf16", max_new_tokens=1024, eval_every=0)


def test_a_gpu_is_given_the_tokens_that_its_memory_allows(on_a_gpu):
    row = memory.PROMPT_TOKENS + 1024
    for model, config in (
        (QWEN_05B, LONG),
        (QWEN_05B, replace(LONG, gradient_checkpointing=1)),
        (QWEN_05B, replace(LONG, lora_rank=8)),
        (middling(), LONG),
    ):
        found = estimate(model, config)
        left = 24 * GIB - (found.update - found.activations)
        assert row <= found.tokens <= min(memory.MOST_TOKENS, 512 * row)
        assert found.activations <= max(
            memory.SHARE * left, estimate(model, replace(config, micro_tokens=1)).activations
        )
        if row < found.tokens < memory.MOST_TOKENS:  # a power of two, and the next would be too many
            assert found.tokens.bit_count() == 1
            twice = estimate(model, replace(config, micro_tokens=2 * found.tokens))
            assert twice.tokens == 2 * found.tokens and twice.activations > memory.SHARE * left
    more = [estimate(QWEN_05B, LONG, free=n * GIB).tokens for n in (24, 48, 80)]
    assert more[0] < more[1] <= more[2] and estimate(middling(), LONG, free=80 * GIB).tokens == memory.MOST_TOKENS
    assert estimate(QWEN_05B, replace(LONG, micro_batch=2), free=80 * GIB).tokens == 2 * row
    assert estimate(QWEN_05B, replace(LONG, method="bnpo", micro_batch=3), free=80 * GIB).tokens == 3 * row
    assert estimate(QWEN_05B, replace(LONG, prompts=1, group_size=2), free=80 * GIB).tokens == 2 * row


def test_tokens_may_be_given_on_any_device():
    row = memory.PROMPT_TOKENS + 1024
    config = replace(LONG, device="cpu", precision="fp32")
    by_rows, by_tokens = (
        estimate(QWEN_05B, replace(config, **c)) for c in ({"micro_batch": 4}, {"micro_tokens": 4 * row})
    )
    assert by_rows == by_tokens and by_rows.tokens == 4 * row
    assert estimate(QWEN_05B, replace(config, micro_tokens=1)).tokens == row
    assert estimate(QWEN_05B, replace(config, micro_tokens=10**6, prompts=1, group_size=2)).tokens == 2 * row


def test_on_a_gpu_a_run_does_not_fit_where_one_row_does_not(on_a_gpu, monkeypatch, tmp_path):
    QWEN_05B.save_pretrained(tmp_path / "model")
    config = replace(LONG, model=str(tmp_path / "model"))
    one = estimate(QWEN_05B, replace(config, micro_tokens=1)).update
    kept = estimate(QWEN_05B, replace(config, micro_tokens=1, gradient_checkpointing=1)).update
    assert kept < one
    for free, advised in ((one, None), (one - 1, "try --gradient-checkpointing 1"), (kept - 1, "try --lora-rank 16")):
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=free: free)
        fits, message = check(config)
        assert fits == (advised is None) and (fits or message.partition("; ")[2].startswith(advised))
        assert "micro" not in message
    monkeypatch.setattr(memory, "free_bytes", lambda device: one)
    fits, message = check(replace(config, micro_tokens=2**14))
    assert not fits and "try --micro-tokens 1024" in message


@pytest.mark.parametrize("changes", [{}, {"lora_rank": 8}, {"precision": "bf16"}], ids=["full", "lora", "bf16"])
def test_a_loaded_model_has_the_tokens_that_were_estimated_before(changes, monkeypatch):
    """What is loaded by then is no longer free, and what comes later still is."""
    monkeypatch.setattr(memory, "by_tokens", lambda config, device: True)
    config = replace(LONG, **({"device": "cpu", "precision": "fp32", "max_new_tokens": 64} | changes))
    model = Qwen2ForCausalLM(middling())
    model = add_lora(model, rank=8) if config.lora_rank else model
    for free in (GIB, 4 * GIB):
        loaded = 4 * count_parameters(model)
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=free, loaded=loaded: free - loaded)
        found = memory.micro_tokens(model, config)
        assert 320 < found == estimate(middling(), config, free=free).tokens < memory.MOST_TOKENS
    assert memory.micro_tokens(model, replace(config, micro_tokens=77)) == 77


def test_a_model_that_cannot_be_read_is_left_to_its_loader(tmp_path):
    assert check(TrainConfig(model=str(tmp_path / "none"))) == (True, "")
    (tmp_path / "config.json").write_text('{"model_type": "qwen2", "hidden_size": "wide"}')
    assert check(TrainConfig(model=str(tmp_path))) == (True, "")


def test_free_memory_is_counted():
    assert memory.free_bytes("cpu") > 0 and memory.peak_bytes() > 2**24
