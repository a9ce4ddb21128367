"""The snapshot of a model that a fused step decodes with: how exact it is, and what it does not fit."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from test_rollout import random_model

from rlino_lib.policy.decode import Decoder
from rlino_lib.policy.device import is_small
from rlino_lib.policy.fused import FusedDecoder, misfit


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_a_snapshot_in_half_precision_is_the_model_in_half_precision(kind):
    policy = random_model(kind, seed=3)
    ids = torch.tensor([[7, 9, 30, 41], [8, 12, 33, 40]])  # [P, S]
    mask = torch.ones_like(ids, dtype=torch.bool)
    tokens = torch.tensor([50, 51])
    with torch.inference_mode():
        exact = policy.model(torch.cat([ids, tokens[:, None]], 1)).logits[:, -1]  # [P, V]
        half = random_model(kind, seed=3).model.bfloat16()(torch.cat([ids, tokens[:, None]], 1)).logits[:, -1].float()
        fused = FusedDecoder(policy.model, 16, torch.bfloat16)
        decoder = Decoder(policy.model, fused, ids, mask, 4)
        decoder.prefill(torch.arange(2))
        ours = decoder.step(tokens)
    assert ours.dtype == torch.bfloat16
    assert (ours.float() - exact).norm() < 1.5 * (half - exact).norm()  # no further from float32 than the model itself
    assert (ours.float() - exact).norm() < 0.05 * exact.norm()


def unfit():
    adapted = random_model(lora=True).model
    adapted.merge_adapter()
    yield "merged adapter", adapted
    yield (
        "adapter with a bias",
        get_peft_model(random_model().model, LoraConfig(lora_bias=True, init_lora_weights=False)),
    )
    yield "adapter with magnitudes", get_peft_model(random_model().model, LoraConfig(use_dora=True))
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
    assert misfit(model)
    assert is_small(model)
