"""Log-probs by slices of the vocabulary against all logits at once, alone and inside models that have large heads."""

import math
import warnings

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
)

from rlino_lib.errors import RlinoError
from rlino_lib.policy import logprobs
from rlino_lib.policy.logprobs import large_head, last_hidden, response_logprobs, token_logprobs
from rlino_lib.policy.models import add_lora, reference_context
from rlino_lib.policy.sampling import sample
from tests.policy.test_environment import CASES
from tests.policy.test_rollout import UNEVEN, random_model

IDS = torch.tensor([[5, 6, 7, 8], [9, 1, 0, 3]])


def naive(hidden, weight, ids, temperature=1.0):
    return ((hidden @ weight.t()) / (temperature or 1.0)).log_softmax(-1).gather(-1, ids[..., None])[..., 0]


def inputs(shape=(3, 5), width=7, vocabulary=29, dtype=torch.float64, scale=1.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    hidden = (scale * torch.randn(*shape, width, generator=g, dtype=torch.float64)).to(dtype).requires_grad_()
    weight = torch.randn(vocabulary, width, generator=g, dtype=torch.float64).to(dtype).requires_grad_()
    return hidden, weight, torch.randint(vocabulary, shape, generator=g), torch.randn(shape, generator=g)


def with_gradients(f, hidden, weight, ids, up, *rest):
    found = f(hidden, weight, ids, *rest)
    return found, *torch.autograd.grad((found * up.to(found)).sum(), (hidden, weight))


@pytest.mark.parametrize("chunk", [0, 1, 4, 28, 29, 30, 1000])
@pytest.mark.parametrize("temperature", [1.0, 0.6, 0.0])
def test_slices_give_the_values_and_gradients_of_all_logits(chunk, temperature):
    hidden, weight, ids, up = inputs()
    ours = with_gradients(token_logprobs, hidden, weight, ids, up, temperature, chunk)
    theirs = with_gradients(naive, hidden, weight, ids, up, temperature)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == torch.float64 and (a - b).abs().max() <= 1e-12


def test_gradients_are_those_of_finite_differences():
    hidden, weight, ids, _ = inputs((2, 3), 4, 11)
    assert torch.autograd.gradcheck(lambda h, w: token_logprobs(h, w, ids, 0.7, 4), (hidden, weight))


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_what_is_frozen_gets_no_gradient(frozen, temperature):
    hidden, weight, ids, up = inputs()
    (hidden if frozen == "hidden" else weight).requires_grad_(False)
    for x in (hidden, weight):
        x.grad = None
    (token_logprobs(hidden, weight, ids, temperature, 4) * up).sum().backward()
    free = weight if frozen == "hidden" else hidden
    (expected,) = torch.autograd.grad((naive(hidden, weight, ids, temperature) * up).sum(), free)
    assert (free.grad - expected).abs().max() <= 1e-12
    assert (hidden if frozen == "hidden" else weight).grad is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_types_lose_their_inputs_digits_and_no_more(dtype):
    hidden, weight, ids, up = inputs((4, 8), 64, 3000, dtype)
    found = with_gradients(token_logprobs, hidden, weight, ids, up, 1.0, 256)
    wide = [t.detach().double().requires_grad_() for t in (hidden, weight)]
    exact = with_gradients(naive, *wide, ids, up.double())
    assert found[0].dtype == torch.float32 and found[1].dtype == found[2].dtype == dtype
    assert (found[0] - exact[0]).abs().max() <= 1e-4  # the naive way's logits are rounded to half types: 0.1 off
    assert (naive(hidden, weight, ids).float() - exact[0]).abs().max() > 1e-3
    frozen = token_logprobs(hidden, weight.detach(), ids, 1.0, 256)  # its gradient is found another way
    grads = (*found[1:], torch.autograd.grad((frozen * up).sum(), hidden)[0])
    for a, b in zip(grads, (*exact[1:], exact[1]), strict=True):
        assert a.dtype == dtype and (a.double() - b).norm() <= torch.finfo(dtype).eps * b.norm()


def test_extreme_logits_stay_finite_and_sure_tokens_have_log_prob_zero():
    hidden, weight, ids, up = inputs(dtype=torch.float32, scale=1e4)
    best = (hidden @ weight.t()).argmax(-1)
    found, *grads = with_gradients(token_logprobs, hidden, weight, best, up, 1.0, 4)
    assert all(t.isfinite().all() for t in (found, *grads)) and (found <= 0).all() and (found == 0).any()
    (slope,) = torch.autograd.grad(token_logprobs(hidden, weight.detach(), best, 1.0, 4).sum(), hidden)
    assert slope.isfinite().all()
    assert torch.allclose(token_logprobs(hidden, weight, ids, 1.0, 4), naive(hidden, weight, ids), rtol=1e-5)


def test_no_more_than_a_slice_of_logits_is_ever_made(monkeypatch):
    seen, product = [], logprobs.product
    monkeypatch.setattr(logprobs, "product", lambda *a: seen.append(product(*a)) or seen[-1])
    hidden, weight, ids, up = inputs((4, 4), 8, 5000)
    with_gradients(token_logprobs, hidden, weight, ids, up, 1.0, 100)
    assert max(t.numel() for t in seen) == 16 * 100  # forward and backward; 50 slices each, and its two gradients
    assert len(seen) == 50 * 4


def test_autocast_computes_in_its_type_and_gives_float32_gradients():
    hidden, weight, ids, up = inputs(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, *grads = with_gradients(token_logprobs, hidden, weight, ids, up, 1.0, 4)
    halves = [t.detach().bfloat16().requires_grad_() for t in (hidden, weight)]
    expected = token_logprobs(*halves, ids, 1.0, 4)
    assert torch.equal(found, expected) and all(g.dtype == torch.float32 for g in grads)


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(ids=torch.full((3, 5), 29)), "outside the vocabulary"),
        (dict(ids=torch.full((3, 5), -100)), "outside the vocabulary"),
        (dict(ids=torch.zeros(3, 4, dtype=torch.long)), "are needed"),
        (dict(weight=torch.zeros(29, 8, dtype=torch.float64)), "are needed"),
        (dict(weight=torch.zeros(29, 7)), "one dtype"),
        (dict(temperature=-1.0), "at least 0"),
        (dict(chunk=-1), "at least 0"),
    ],
)
def test_what_does_not_belong_together_is_refused(changes, words):
    hidden, weight, ids, _ = inputs()
    with pytest.raises(RlinoError, match=words):
        token_logprobs(**(dict(hidden=hidden, weight=weight, ids=ids) | changes))


def test_no_tokens_give_no_log_probs():
    hidden, weight, ids, up = inputs((0, 3))
    assert token_logprobs(hidden, weight, ids).shape == (0, 3)


# --- models ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_is_large(monkeypatch):
    monkeypatch.setattr(logprobs, "LARGE", 1)


def model_gradients(model, take):
    model.zero_grad()
    found = take()
    (found * torch.linspace(-1, 1, found.numel(), dtype=found.dtype).view_as(found)).sum().backward()
    return found.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_models_give_the_same_by_either_way(kind, tied, lora, small_is_large):
    model = random_model(kind, 2, lora, tie_word_embeddings=tied).model.double()
    head = large_head(model)
    assert head is model.get_output_embeddings() and (head.weight is model.get_input_embeddings().weight) == tied
    asked = dict(input_ids=IDS, logits_to_keep=3, use_cache=False)
    before, all_logits = model_gradients(
        model, lambda: model(**asked).logits[:, :-1].log_softmax(-1).gather(2, IDS[:, -2:, None])[:, :, 0]
    )
    after, ours = model_gradients(
        model, lambda: token_logprobs(last_hidden(model, head, **asked)[:, :-1], head.weight, IDS[:, -2:], chunk=5)
    )
    assert (before - after).abs().max() <= 1e-12 and ours.keys() == all_logits.keys() and ours
    assert all((ours[n] - all_logits[n]).abs().max() <= 1e-12 for n in ours)
    assert torch.equal(model(**asked).logits, model(**asked).logits) and "forward" not in vars(head)


def test_the_reference_of_a_lora_model_is_the_base(small_is_large):
    base, model = random_model(seed=4).model, random_model(seed=4, lora=True).model
    with torch.inference_mode():  # in which references are computed, and no version is counted
        with reference_context(model):
            there = last_hidden(model, large_head(model), input_ids=IDS)
        assert torch.allclose(there, last_hidden(base, large_head(base), input_ids=IDS), atol=1e-6)
        assert not torch.allclose(there, last_hidden(model, large_head(model), input_ids=IDS), atol=1e-3)


TINY = dict(vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
            num_key_value_heads=2, pad_token_id=0, eos_token_id=1, bos_token_id=2, head_dim=8)  # fmt: skip


@pytest.mark.parametrize(
    "model, config, changes",
    [
        (Gemma2ForCausalLM, Gemma2Config, dict(final_logit_softcapping=30.0)),
        (GraniteForCausalLM, GraniteConfig, dict(logits_scaling=8.0)),
        (CohereForCausalLM, CohereConfig, dict(logit_scale=0.0625)),
    ],
)
def test_models_that_change_their_logits_keep_them_and_say_so_once(model, config, changes, small_is_large):
    policy = model(config(**TINY, **changes)).eval()
    with pytest.warns(UserWarning, match=f"{policy.config.model_type} changes its logits"):
        assert large_head(policy) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert large_head(policy) is None
    assert policy(input_ids=IDS).logits.shape == (2, 4, 40)  # it is as it was


def test_gemma_without_a_cap_is_plain(small_is_large):
    assert large_head(Gemma2ForCausalLM(Gemma2Config(**TINY, final_logit_softcapping=None)).eval()) is not None


@pytest.mark.parametrize("how", ["in_place", "hook", "lora_head", "bias"])
def test_heads_that_are_not_plain_are_found(how, small_is_large):
    model = random_model(tie_word_embeddings=False).model
    if how == "in_place":  # as models do that forbid some tokens
        forward = model.forward

        def masked(*args, **kwargs):
            out = forward(*args, **kwargs)
            out.logits[..., 3] = -math.inf
            return out

        model.forward = masked
    elif how == "hook":
        model.lm_head.register_forward_hook(lambda module, inputs, output: output / 2)
    elif how == "lora_head":
        model = add_lora(model, rank=2, targets=["lm_head"])
    else:
        model.lm_head.bias = torch.nn.Parameter(torch.zeros(model.config.vocab_size))
    with pytest.warns(UserWarning, match="all logits"):
        assert large_head(model) is None


def test_small_vocabularies_keep_the_way_of_the_recorded_runs():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert large_head(random_model().model) is None


def test_a_head_is_put_back_when_the_model_fails(small_is_large):
    model = random_model().model
    head = large_head(model)
    with pytest.raises(IndexError):
        last_hidden(model, head, input_ids=torch.full((1, 2), 10**6))
    assert "forward" not in vars(head)


# --- rows padded on the right ----------------------------------------------------------------------------------------


def weighted(found, mask):
    """A scalar of what the policy wrote, each token with a weight of its own."""
    weights = torch.linspace(-1, 2, mask.numel(), dtype=torch.float64).view(mask.shape)
    return sum(((1 + k) * torch.where(mask, x, 0) * weights).sum() for k, x in enumerate(found))


@pytest.mark.parametrize("entropies", [False, True], ids=["log-probs", "entropies"])
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@pytest.mark.parametrize("case", ["plain", "both"])  # the policy's tokens alone, and prefixes and an environment too
def test_rows_padded_on_the_right_give_the_same(case, kind, lora, large, entropies, monkeypatch):
    monkeypatch.setattr(logprobs, "LARGE", 1 if large else logprobs.LARGE)
    policy = random_model(kind, 3, lora)
    environment, prefixes = CASES[case] if case in CASES else (None, ())
    rollouts = sample(policy, UNEVEN, 4, max_new_tokens=25, seed=4, prefixes=prefixes, environment=environment)
    assert case == "plain" or (rollouts.written & ~rollouts.mask).any()
    model = policy.model.double()
    for rows in (torch.arange(len(rollouts.ids)), torch.tensor([9, 2, 14]), torch.tensor([5])):
        taken = []
        for packed in (False, True):
            model.zero_grad()
            chosen, mask, *spread = response_logprobs(model, rollouts, rows, 0.7, entropies, packed)
            weighted((chosen, *spread), mask).backward()
            grads = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
            taken.append((mask, grads, [torch.where(mask, x, 0) for x in (chosen, *spread)]))
        (mask, grads, values), (their_mask, their_grads, their_values) = taken
        assert torch.equal(mask, their_mask) and len(values) == len(their_values) == 1 + entropies
        assert (chosen[~mask] == 0).all()
        assert grads.norm() > 0 and (grads - their_grads).norm() <= 1e-10 * grads.norm()
        assert all((a - b).abs().max() <= 1e-10 for a, b in zip(values, their_values, strict=True))


def test_rows_padded_on_the_right_bring_no_mask_and_read_no_padding(monkeypatch):
    """Their attention may take a causal kernel, and their head reads the policy's tokens alone."""
    monkeypatch.setattr(logprobs, "LARGE", 1)
    policy = random_model(seed=3)
    rollouts = sample(policy, UNEVEN, 4, max_new_tokens=25, seed=4)
    seen, forward, take = [], policy.model.forward, logprobs.token_logprobs
    policy.model.forward = lambda **inputs: seen.append(inputs) or forward(**inputs)
    monkeypatch.setattr(logprobs, "token_logprobs", lambda hidden, *rest: seen.append(hidden) or take(hidden, *rest))
    logprobs.large_head(policy.model)  # whose first answer takes a pass
    seen.clear()
    rows = torch.arange(len(rollouts.ids))
    response_logprobs(policy.model, rollouts, rows, packed=True)
    inputs, hidden = seen
    assert "attention_mask" not in inputs and "position_ids" not in inputs
    _, attention = rollouts.sequences()
    assert inputs["input_ids"].shape[1] == attention.sum(1).max() and len(hidden) == rollouts.mask.sum()


def test_an_id_outside_the_vocabulary_is_not_a_number_where_nobody_looks():
    """A GPU's ids are not looked at before the pass."""
    hidden, weight, ids, _ = inputs()
    ids[1, 2] = 29
    found = logprobs._TokenLogprobs.apply(hidden.flatten(0, 1), weight, ids.flatten(), 1.0, 4, torch.float64)
    assert found.isnan().nonzero().tolist() == [[7]]


def test_slices_are_larger_on_a_gpu():
    assert logprobs.tile_size("cuda:0") > logprobs.tile_size("cpu") == logprobs.tile_size("mps") == 2**22
