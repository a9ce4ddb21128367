"""Rollouts against `model.generate` and against one full forward pass, over models made at random."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from rlino_lib.errors import RlinoError
from rlino_lib.policy.logprobs import response_logprobs
from rlino_lib.policy.models import Policy, add_lora, load_policy
from rlino_lib.policy.sampling import choose, refuse_infinite, sample
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


@pytest.mark.parametrize(
    "bad",
    [
        {"group_size": 0}, {"group_size": 2.0}, {"max_new_tokens": 0}, {"max_new_tokens": True}, {"temperature": -1},
        {"temperature": math.nan}, {"temperature": math.inf}, {"top_p": 0}, {"top_p": 1.5}, {"top_p": math.nan},
        {"min_p": 2}, {"min_p": -1}, {"top_k": -1}, {"top_k": 0.5}, {"seed": -1}, {"seed": 2**63}, {"max_rows": 0},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(RlinoError, match=f"^{next(iter(bad))} must be "):
        sample(random_model(), EVEN, **bad)


# --- choosing a token ------------------------------------------------------------------------------------------------


def test_choose_follows_the_distribution():
    logits = torch.tensor([[2.0, 0.0, -1.0, float("-inf")]]).expand(40_000, -1)
    u = torch.rand(40_000, generator=torch.Generator().manual_seed(0))
    ids, logprobs, entropy = choose(logits, u, 1.0)
    p = logits[0].softmax(-1)
    assert torch.allclose(torch.bincount(ids, minlength=4) / 40_000, p, atol=0.01)
    assert torch.allclose(logprobs, p.log()[ids])
    assert torch.allclose(entropy[0], -(p[:3] * p[:3].log()).sum())


@settings(deadline=None, max_examples=60)
@given(
    logits=st.lists(st.floats(-30, 30), min_size=2, max_size=12),
    u=st.floats(0, 1, exclude_max=True),
    top_p=st.floats(0.05, 1),
    top_k=st.integers(0, 12),
    min_p=st.floats(0, 0.9),
)
def test_choose_stays_inside_top_k_top_p_and_min_p(logits, u, top_p, top_k, min_p):
    row = torch.tensor([logits])
    ids, logprob, _ = choose(row, torch.tensor([u]), 1.0, top_p=top_p, top_k=top_k, min_p=min_p)
    p = row[0].softmax(-1)
    chosen = p[ids[0]]
    assert abs(logprob.item() - p.log()[ids[0]].item()) < 1e-4  # of the whole distribution, not of what was left
    assert chosen >= min_p * p.max() * (1 - 1e-5)
    assert not top_k or (p > chosen).sum() < top_k
    assert (p[p > chosen]).sum() < top_p + 1e-5


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_a_large_vocabulary_is_drawn_from_in_two_stages_by_the_same_distribution(temperature):
    entries = 20_001  # not a multiple of the parts
    logits = torch.randn(400, entries, generator=torch.Generator().manual_seed(0)) * 4
    logits[:, 5000:9000] = -torch.inf
    u = torch.rand(400, generator=torch.Generator().manual_seed(1))
    u[:2] = torch.tensor([0.0, 1 - 2**-24])
    ids, logprobs, entropies = choose(logits, u, temperature)
    exact = (logits.double() / temperature).log_softmax(-1)
    total = exact.exp().cumsum(-1)
    above = total.gather(1, ids[:, None])[:, 0]
    assert (u < above + 1e-5).all() and (u > above - exact.exp().gather(1, ids[:, None])[:, 0] - 1e-5).all()
    assert torch.isfinite(logprobs).all()
    assert torch.allclose(logprobs.double(), exact.gather(1, ids[:, None])[:, 0], atol=1e-4)
    assert torch.allclose(entropies.double(), -(exact.exp() * exact.clamp_min(-1e4)).sum(-1), atol=1e-4)
    one_stage = choose(logits, u, temperature, top_p=1 - 1e-7)[0]  # which takes the other way
    assert (one_stage == ids).float().mean() > 0.99


def test_greedy_takes_the_largest():
    logits = torch.randn(5, 7)
    assert torch.equal(choose(logits, torch.rand(5), 0)[0], logits.argmax(-1))


@pytest.mark.parametrize("entries", [5, 20_000])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_one_line(wrong, temperature, entries):
    logits = torch.zeros(2, entries)
    logits[1, 3] = wrong
    with pytest.raises(RlinoError, match="not finite: lower the learning rate"):
        refuse_infinite(choose(logits, torch.tensor([0.2, 0.7]), temperature)[2])


def test_a_model_whose_weights_are_lost_is_one_line():
    policy = random_model("qwen2", 1)
    with torch.no_grad():
        policy.model.model.norm.weight.fill_(torch.nan)
    with pytest.raises(RlinoError, match="lower the learning rate"):
        sample(policy, EVEN, 2, max_new_tokens=4)


def test_a_logit_of_minus_infinity_is_a_probability_of_zero():
    logits = torch.tensor([[0.0, -torch.inf, 0.0]])
    for u in (0.0, 0.49, 0.51, 0.999):
        ids, logprobs, entropies = choose(logits, torch.tensor([u]), 1.0)
        assert ids.item() in (0, 2) and abs(logprobs.item() + math.log(2)) < 1e-6
        assert abs(entropies.item() - math.log(2)) < 1e-6
