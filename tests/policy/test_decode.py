"""The fused decoding step is the model's own: same logits, same texts; and it knows what it doesn't fit."""

import pytest
import torch
from test_rollout import EVEN, UNEVEN, random_model

from rlino_lib.errors import RlinoWarning
from rlino_lib.policy import decode, graph
from rlino_lib.policy import sampling as rollout
from rlino_lib.policy.fused import misfit
from rlino_lib.policy.models import load_policy
from rlino_lib.policy.sampling import sample
from rlino_lib.tasks import Countdown

SHAPES = {
    "qwen2": dict(kind="qwen2"),
    "llama": dict(kind="llama"),
    "llama-all-heads": dict(kind="llama", num_key_value_heads=4),
    "one-kv-head": dict(kind="qwen2", num_key_value_heads=1),
    "untied": dict(kind="qwen2", tie_word_embeddings=False),
    "head-dim": dict(kind="llama", head_dim=16),
    "lora": dict(kind="qwen2", lora=True),
    "theta": dict(kind="qwen2", rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0}),
}


@pytest.mark.parametrize("prompts", [EVEN, UNEVEN], ids=["even", "padded"])
@pytest.mark.parametrize("shape", SHAPES)
def test_texts_and_logprobs_are_those_of_the_models_own_step(shape, prompts, monkeypatch):
    policy = random_model(seed=2, **SHAPES[shape])
    assert not misfit(policy.model)
    settings = dict(group_size=3, max_new_tokens=40, seed=4)
    fused = sample(policy, prompts, **settings)
    monkeypatch.setattr(rollout, "fused_decoder", lambda *args: None)
    own = sample(policy, prompts, **settings)
    assert torch.equal(fused.ids, own.ids) and torch.equal(fused.mask, own.mask)
    # Adapters are added to the weights here, to their products there; float64 is 1.4e-4 from what they are here.
    rounding = 2e-4 if shape == "lora" else 1e-5
    assert (fused.logprobs - own.logprobs).abs().max() < rounding
    assert (fused.entropies - own.entropies).abs().max() < 1e-4


def test_a_snapshot_of_the_weights_is_taken_anew_for_each_sample():
    policy = random_model(seed=1)
    before = sample(policy, EVEN, 1, max_new_tokens=20, temperature=0)
    with torch.no_grad():
        for p in policy.model.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    after = sample(policy, EVEN, 1, max_new_tokens=20, temperature=0)
    assert before.texts != after.texts


@pytest.mark.parametrize("prompts", [EVEN, UNEVEN], ids=["even", "padded"])
def test_a_small_model_keeps_its_rows_and_has_room_from_the_start(prompts, monkeypatch):
    """As a GPU has it, with blocks of their true size; the other tests of blocks have short ones and little room."""
    policy = random_model(seed=2)
    policy.model.generation_config.eos_token_id = list(range(30, 90))  # so that all rows end before the cap
    settings = dict(group_size=6, max_new_tokens=50, seed=4)
    token_by_token = sample(policy, prompts, **settings)
    monkeypatch.undo()
    for module in (decode, rollout):
        monkeypatch.setattr(module, "in_blocks", lambda device: True)
    monkeypatch.setattr(graph.CapturedSteps, "keep", lambda *args: pytest.fail("rows left"))
    monkeypatch.setattr(graph.StaticLayer, "move", lambda *args: pytest.fail("the cache grew"))
    in_blocks = sample(policy, prompts, **settings)
    assert torch.equal(in_blocks.ids, token_by_token.ids) and in_blocks.texts == token_by_token.texts
    assert in_blocks.mask.any(0).all()  # no columns after the end of the longest
    assert torch.allclose(in_blocks.logprobs, token_by_token.logprobs, atol=1e-5)


def test_a_step_of_a_graph_is_captured_again_only_when_rows_leave_or_the_cache_grows(monkeypatch, in_blocks):
    captures = []
    captured = graph.CapturedSteps._captured
    monkeypatch.setattr(
        graph.CapturedSteps, "_captured", lambda s, t: captures.append((len(t), s.capacity)) or captured(s, t)
    )
    policy = random_model(seed=2)
    policy.model.generation_config.eos_token_id = list(range(40, 50))  # so that rows end, here and there
    sample(policy, EVEN, 30, max_new_tokens=60, seed=4)
    rows, capacities = zip(*captures, strict=True) if in_blocks else ((), ())
    assert captures == sorted(set(captures), key=lambda c: (c[1], -c[0]))
    assert not in_blocks or (len(set(rows)) > 2 and len(set(capacities)) > 2)
    assert in_blocks or not captures


def test_a_gpu_says_once_why_a_model_decodes_by_itself(monkeypatch):
    monkeypatch.setattr(decode, "in_blocks", lambda device: True)
    decode._warn_of_misfit.cache_clear()
    policy = random_model(hidden_act="gelu")
    with pytest.warns(RlinoWarning, match="the model itself decodes.*: its activation or its rotation") as caught:
        texts = [sample(policy, EVEN, 1, max_new_tokens=8).texts for _ in range(2)]
    assert len(caught) == 1 and texts[0] == texts[1]


def test_several_threads_sample_what_one_does(monkeypatch):
    policy, task = load_policy(), Countdown()
    prompts = [task.prompt(p) for p in task.problems("test", 12)]
    one = sample(policy, prompts, 4, seed=3)
    threads = torch.get_num_threads()
    monkeypatch.setattr(rollout, "ROWS_PER_WORKER", 8)
    try:
        torch.set_num_threads(3)
        three = sample(policy, prompts, 4, seed=3)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert one.texts == three.texts
    assert torch.allclose(one.logprobs, three.logprobs, atol=1e-4)
