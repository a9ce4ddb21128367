"""Rollouts against `model.generate` and against one full forward pass, over models made at random."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from rlino_lib.errors import RlinoError
from rlino_lib.policy.logprobs import response_logprobs
from rlino_lib.policy.models import Policy, add_lora, load_policy
from rlino_lib.policy.sampling import sample
from rlino_lib.tasks import Countdown
from rlino_lib.training.pretraining.pretrain import build_tokenizer

TOKENIZER = build_tokenizer()
EVEN = ["Numbers 3 7 19 target 64 <think>", "Numbers 1 2 3 target 36 <think>"]
UNEVEN = [*EVEN, "Numbers 8 2 target 16 <think>", "Numbers 123 4 5 target 99 <think> 1"]


def random_model(kind="qwen2", seed=0, lora=False, **changes):
    settings = dict(
        vocab_size=len(TOKENIZER), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, eos_token_id=1, pad_token_id=0, bos_token_id=None,
        initializer_range=0.2,
    )  # fmt: skip
    config, cls = (Qwen2Config, Qwen2ForCausalLM) if kind == "qwen2" else (LlamaConfig, LlamaForCausalLM)
    torch.manual_seed(seed)
    model = cls(config(**(settings | changes))).eval()
    for p in model.parameters():
        if p.dim() == 1:  # fresh norms are 1 and fresh biases 0, which would hide what is done with them
            torch.nn.init.normal_(p, mean=p.data.mean().item(), std=0.3)
    if lora:
        model = add_lora(model, rank=4)
        for name, p in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.3)
        model.eval()
    return Policy(model, TOKENIZER)


def generate_greedy(policy, prompts, n):
    inputs = TOKENIZER(prompts, return_tensors="pt", padding=True)
    with torch.inference_mode():
        out = policy.model.generate(**inputs, do_sample=False, max_new_tokens=n, pad_token_id=0)
    return out[:, inputs["input_ids"].shape[1] :]


@pytest.mark.parametrize("prompts", [EVEN, UNEVEN], ids=["even", "padded"])
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_greedy_is_generate_token_for_token(kind, lora, prompts):
    for seed in range(3):
        policy = random_model(kind, seed, lora)
        theirs = generate_greedy(policy, prompts, 24)
        ours = sample(policy, prompts, 2, max_new_tokens=24, temperature=0)
        for row, mask, expected in zip(ours.ids[::2], ours.mask[::2], theirs, strict=True):
            assert row[mask].tolist() == expected[: int(mask.sum())].tolist()
            assert mask.all() or row[mask][-1] == 1  # it stopped at EOS, or not at all
        assert torch.equal(ours.ids[::2], ours.ids[1::2])


def test_sliding_window_and_untied_heads_of_different_sizes():
    changes = dict(use_sliding_window=True, sliding_window=6, max_window_layers=0, num_key_value_heads=1)
    policy = random_model("qwen2", 1, **changes)
    theirs = generate_greedy(policy, UNEVEN, 20)
    ours = sample(policy, UNEVEN, 1, max_new_tokens=20, temperature=0)
    for row, mask, expected in zip(ours.ids, ours.mask, theirs, strict=True):
        assert row[mask].tolist() == expected[: int(mask.sum())].tolist()


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("prompts", [EVEN, UNEVEN], ids=["even", "padded"])
@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_logprobs_are_those_of_one_full_forward_pass(kind, prompts, temperature):
    policy = random_model(kind, 3)
    rollouts = sample(policy, prompts, 4, max_new_tokens=30, temperature=temperature, seed=5)
    with torch.no_grad():
        full, mask = response_logprobs(policy.model, rollouts, torch.arange(len(rollouts.ids)), temperature)
    assert torch.equal(mask, rollouts.mask)
    assert (full - rollouts.logprobs)[mask].abs().max() < 1e-5
    assert (rollouts.logprobs[~mask] == 0).all() and (rollouts.entropies[~mask] == 0).all()


def test_logprobs_of_the_shipped_base():
    policy, task = load_policy(), Countdown()
    rollouts = sample(policy, [task.prompt(p) for p in task.problems("test", 8)], 4, seed=3)
    with torch.no_grad():
        full, mask = response_logprobs(policy.model, rollouts, torch.arange(32))
    assert (full - rollouts.logprobs)[mask].abs().max() < 1e-5


def test_a_row_does_not_depend_on_its_neighbours():
    policy = random_model(seed=2)
    alone = [sample(policy, UNEVEN, 4, max_new_tokens=20, seed=9, max_rows=rows).texts for rows in (4, 8, 64)]
    assert alone[0] == alone[1] == alone[2]
    assert sample(policy, UNEVEN, 4, max_new_tokens=20, seed=10).texts != alone[0]


def test_finished_rows_end_and_truncated_rows_say_so():
    policy = random_model(seed=4)
    rollouts = sample(policy, EVEN, 64, max_new_tokens=40, seed=1)
    ends = (rollouts.ids == 1) & rollouts.mask
    assert torch.equal(ends.any(1), ~rollouts.truncated)
    assert (ends.sum(1) <= 1).all()
    assert (rollouts.lengths[rollouts.truncated] == 40).all()
    ended = ~rollouts.truncated
    assert ended.any()  # or this test says nothing
    assert (rollouts.ids.gather(1, rollouts.lengths[:, None] - 1)[ended] == 1).all()


def test_the_model_is_left_as_it_was():
    policy = random_model()
    policy.model.train()
    before = policy.model.config._attn_implementation
    sample(policy, EVEN, 1, max_new_tokens=3)
    assert policy.model.training and policy.model.config._attn_implementation == before


def test_grading_fills_rewards_and_refuses_other_problems():
    task, policy = Countdown(), random_model()
    problems = task.problems("test", 3)
    rollouts = sample(policy, [task.prompt(p) for p in problems], 2, max_new_tokens=5)
    assert rollouts.grade(task, problems).rewards.tolist() == [0.0] * 6
    with pytest.raises(RlinoError, match="problems"):
        rollouts.grade(task, problems[:2])


def test_a_model_whose_weights_are_lost_is_one_line():
    policy = random_model("qwen2", 1)
    with torch.no_grad():
        policy.model.model.norm.weight.fill_(torch.nan)
    with pytest.raises(RlinoError, match="lower the learning rate"):
        sample(policy, EVEN, 2, max_new_tokens=4)
