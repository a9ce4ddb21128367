"""Policies: load one from a folder or a hub id, wrap it in LoRA, save it; checkpoints; the small bases' layout."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import constants
from huggingface_hub.utils import get_session
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, Qwen2Config
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from rlino_lib.errors import RlinoError
from rlino_lib.folders import replacing
from rlino_lib.paths import DEFAULT_BASE

transformers_logging.disable_progress_bar()  # "Loading weights" says nothing about a model of a few megabytes


class Policy(NamedTuple):
    """A causal language model and the tokenizer that belongs to it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def small_config(vocab_size: int, **changes) -> Qwen2Config:
    """The shipped bases: Qwen-2's architecture at 0.8 million parameters (chapter 03)."""
    settings = dict(
        vocab_size=vocab_size, hidden_size=128, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True, use_cache=True,
    )  # fmt: skip
    return Qwen2Config(**(settings | changes))


def load_policy(
    name: str | Path = DEFAULT_BASE, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Policy:
    """Load a policy from a local folder or a hub id; of a folder of LoRA adapters, with its base, the two merged.

    float32 by default on purpose: bfloat16 parameters do not move under Adam at a learning rate of 1e-6. Raises
    RlinoError where there is no such model, or where it cannot be read or is incomplete. `load_policy()` is the base of
    Countdown.
    """
    options = hub_options(name)
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(str(name), **options)
            model = _read_model(str(name), dtype, options).to(device).eval()
    except RlinoError:
        raise
    except Exception as e:  # the hub, the disk and the parsers below each raise their own kinds
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        if (Path(name) / "metrics.csv").exists():
            reason = f"it is a run folder; its model is in {Path(name) / 'model'}, where --save has kept it"
        elif options:
            reason = "it is no folder, the hub cannot be reached, and nothing of it was downloaded before"
        raise RlinoError(f"cannot load a model from {name}: {reason}") from e
    size = len(tokenizer)
    rows = model.get_input_embeddings().weight.shape[0]
    if not tokenizer("1").input_ids or size > rows:
        raise RlinoError(f"cannot load a model from {name}: its tokenizer ({size} tokens) is not the model's ({rows})")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return Policy(model, tokenizer)


def _read_model(name: str, dtype: torch.dtype, options: dict[str, Any]) -> PreTrainedModel:
    adapter = Path(name) / "adapter_config.json"
    if adapter.is_file():
        from peft import PeftModel

        base = load_policy(json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"], dtype=dtype)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Found missing adapter keys")
            return PeftModel.from_pretrained(base.model, name).merge_and_unload()
    model, loading = AutoModelForCausalLM.from_pretrained(
        name, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **options
    )
    # transformers would go on with random numbers in their place
    if absent := sorted({*loading["missing_keys"], *(k[0] for k in loading["mismatched_keys"])}):
        raise RlinoError(
            f"cannot load a model from {name}: {len(absent)} of its weights, {absent[0]} first, are not in it"
        )
    return model


def hub_options(name: str | Path) -> dict[str, Any]:
    """Arguments of `from_pretrained`: local files alone where the hub is needed and does not answer.

    transformers would try it for a minute.
    """
    if Path(name).exists():
        return {}
    try:
        get_session().head(constants.ENDPOINT, timeout=10)
    except Exception:  # whatever keeps the hub from answering, such as a setting that forbids it
        return {"local_files_only": True}
    return {}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' reports on what it read: an error says what matters in one line."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def save_policy(policy: Policy, folder: str | Path) -> None:
    """Write a model (safetensors) and its tokenizer in Hugging Face's layout; of a LoRA model the adapters alone.

    Where that fails, nothing of it is left.
    """
    # Of a LoRA model peft would ask the hub whether its base's vocabulary has changed, and it has not.
    adapters = {"save_embedding_layers": False} if hasattr(policy.model, "peft_config") else {}
    with replacing(Path(folder)) as part:
        policy.model.save_pretrained(str(part), **adapters)
        policy.tokenizer.save_pretrained(str(part))


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write what a run resumes from after a kill, in place of the previous checkpoint."""
    with replacing(path) as part, part.open("wb") as f:  # of a path torch would not say that the disk is full
        torch.save(state, f)


@contextmanager
def checkpoint_state(path: Path) -> Iterator[dict[str, Any]]:
    """What `save_checkpoint` wrote; raises RlinoError where it is damaged, or does not fit inside the block."""
    try:
        yield torch.load(path, weights_only=True, map_location="cpu")
    except Exception as e:  # of a zip file, a pickle, a tensor, or of the state that it does not fit
        raise RlinoError(f"{path} is damaged: delete it, and the run starts anew") from e


def add_lora(
    model: PreTrainedModel, *, rank: int = 16, alpha: int = 32, targets: str | list[str] = "all-linear"
) -> PreTrainedModel:
    """Wrap a model in LoRA adapters, on the modules whose names end in one of the targets.

    Raises RlinoError where it has them already (wrapping twice stacks them), or has no such modules.
    """
    from peft import LoraConfig, PeftModel, get_peft_model

    if isinstance(model, PeftModel):
        raise RlinoError("the model has LoRA adapters already")
    try:
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, task_type="CAUSAL_LM")
        with warnings.catch_warnings():  # peft asks the model by a name that transformers has given up
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            return get_peft_model(model, config).train(model.training)
    except ValueError as e:
        raise RlinoError(f"cannot add LoRA adapters: {str(e).splitlines()[0]}") from e


def recompute_layers(model: torch.nn.Module) -> None:
    """Gradient checkpointing while the model trains: of each layer only the input is kept for the gradient.

    Each layer's own flag is set, and dropout inside stays off. Raises RlinoError where the model has no such layers.
    """
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise RlinoError(f"{type(model).__name__} does not know gradient checkpointing")
    for layer in layers:
        layer.gradient_checkpointing = layer.training = True
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)


def merged(policy: Policy) -> Policy:
    """The policy with its adapters merged into the weights, permanently; a policy without any is returned as it is."""
    if not hasattr(policy.model, "merge_and_unload"):
        return policy
    return Policy(policy.model.merge_and_unload(), policy.tokenizer)


def reference_context(model: PreTrainedModel) -> AbstractContextManager:
    """Inside it, a LoRA model computes as the model it was before training: a reference at no memory cost."""
    return model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()


def eos_ids(policy: Policy) -> list[int]:
    """Every token id that ends a response: the tokenizer's, and the generation config's, which may list many."""
    configured = policy.model.generation_config.eos_token_id  # one id, a list of them, or None
    ids = configured if isinstance(configured, list) else [configured]
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
