"""The fused decoding step is the model's own: same logits, same texts; and it knows what it doesn't fit."""

import pytest
import torch
from test_rollout import EVEN, UNEVEN, random_model

from rlino_lib.policy import sampling as rollout
from rlino_lib.policy.device import is_small
from rlino_lib.policy.fused import FusedDecoder
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
    "theta": dict(kind="qwen2", rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0}),
}


@pytest.mark.parametrize("prompts", [EVEN, UNEVEN], ids=["even", "padded"])
@pytest.mark.parametrize("shape", SHAPES)
def test_texts_and_logprobs_are_those_of_the_models_own_step(shape, prompts, monkeypatch):
    policy = random_model(seed=2, **SHAPES[shape])
    assert FusedDecoder.fits(policy.model)
    settings = dict(group_size=3, max_new_tokens=40, seed=4)
    fused = sample(policy, prompts, **settings)
    monkeypatch.setattr(FusedDecoder, "fits", staticmethod(lambda model: False))
    own = sample(policy, prompts, **settings)
    assert torch.equal(fused.ids, own.ids) and torch.equal(fused.mask, own.mask)
    assert (fused.logprobs - own.logprobs).abs().max() < 1e-5
    assert (fused.entropies - own.entropies).abs().max() < 1e-4


def test_a_snapshot_of_the_weights_is_taken_anew_for_each_sample():
    policy = random_model(seed=1)
    before = sample(policy, EVEN, 1, max_new_tokens=20, temperature=0)
    with torch.no_grad():
        for p in policy.model.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    after = sample(policy, EVEN, 1, max_new_tokens=20, temperature=0)
    assert before.texts != after.texts


def unfit():
    yield "adapter", random_model(lora=True).model
    yield "float64", random_model().model.double()
    yield "activation", random_model(hidden_act="gelu").model
    yield "sliding window", random_model(use_sliding_window=True, sliding_window=6, max_window_layers=0).model
    scaled = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0}
    yield "scaled rotation", random_model(kind="llama", rope_parameters=scaled).model
    yield "bias in the MLP", random_model(kind="llama", mlp_bias=True).model
    yield "bias of the output projection", random_model(kind="llama", attention_bias=True).model
    hooked = random_model().model
    hooked.model.layers[0].register_forward_hook(lambda *args: None)
    yield "hook", hooked


@pytest.mark.parametrize(("why", "model"), [pytest.param(*case, id=case[0]) for case in unfit()])
def test_what_it_does_not_fit_is_left_to_the_model(why, model):
    assert not FusedDecoder.fits(model)
    assert is_small(model)


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
