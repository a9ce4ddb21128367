"""Policies: load one from a folder or a hub id, wrap it in LoRA, save it; and the configuration of the small bases."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, Qwen2Config
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from rlino_lib.config import DEFAULT_BASE
from rlino_lib.errors import RlinoError

transformers_logging.disable_progress_bar()  # "Loading weights" says nothing about a model of a few megabytes


class Policy(NamedTuple):
    """A causal language model and the tokenizer that belongs to it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def small_config(vocab_size: int, **changes) -> Qwen2Config:
    """The shipped bases: Qwen-2's architecture at 0.8 million parameters (chapter 03)."""
    settings = dict(
        vocab_size=vocab_size,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        use_cache=True,
    )
    return Qwen2Config(**(settings | changes))


def load_policy(
    name: str | Path = DEFAULT_BASE, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Policy:
    """Load a policy from a local folder or a hub id.

    float32 by default on purpose: bfloat16 parameters do not move under Adam at a learning rate of 1e-6.
    Raises RlinoError where there is no such model, or it cannot be read.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(name))
        model = AutoModelForCausalLM.from_pretrained(str(name), dtype=dtype)
    except Exception as e:  # the hub, the disk and the parsers below each raise their own kinds
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise RlinoError(f"cannot load a model from {name}: {reason}") from e
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return Policy(model.to(device).eval(), tokenizer)


def save_policy(policy: Policy, folder: str | Path) -> None:
    """Write a model (safetensors) and its tokenizer in Hugging Face's layout."""
    policy.model.save_pretrained(str(folder))
    policy.tokenizer.save_pretrained(str(folder))


def add_lora(
    model: PreTrainedModel, *, rank: int = 16, alpha: int = 32, targets: str | list[str] = "all-linear"
) -> PreTrainedModel:
    """Wrap a model in LoRA adapters; raises RlinoError where it has them already (wrapping twice stacks them)."""
    from peft import LoraConfig, PeftModel, get_peft_model

    if isinstance(model, PeftModel):
        raise RlinoError("the model has LoRA adapters already")
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, task_type="CAUSAL_LM"))


def merged(policy: Policy) -> Policy:
    """The policy with its adapters added to the weights, for good; a policy without any is returned as it is."""
    if not hasattr(policy.model, "merge_and_unload"):
        return policy
    return Policy(policy.model.merge_and_unload(), policy.tokenizer)


def reference_context(model: PreTrainedModel) -> AbstractContextManager:
    """Inside it, a LoRA model computes as the model it was before training: a reference at no memory cost."""
    return model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()


def eos_ids(policy: Policy) -> list[int]:
    """Every token id that ends a response: the tokenizer's, and the generation config's, which may list many."""
    found = policy.model.generation_config.eos_token_id
    ids = [found] if isinstance(found, int) else list(found or [])
    return sorted({*ids, policy.tokenizer.eos_token_id} - {None})


def count_parameters(model: torch.nn.Module) -> int:
    """Parameters, tied ones once."""
    return sum(p.numel() for p in model.parameters())


def weights_hash(model: torch.nn.Module) -> str:
    """A short SHA-256 of all weights, for cards and run folders."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
