"""How the shipped base models were made: next-token training on the traces of mediocre demonstrators (chapter 03)."""

import math
import platform
import random
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import AddedToken, pre_tokenizers
from tqdm.auto import tqdm
from transformers import Qwen2ForCausalLM, Qwen2Tokenizer

from rlino_lib.errors import RlinoError
from rlino_lib.folders import Kind, begun_precision, output_folder, read_json, replacing, write_json
from rlino_lib.policy import models
from rlino_lib.policy.device import autocast, pick_device, pick_precision
from rlino_lib.training.config import Recipe
from rlino_lib.training.pretraining.batches import batches, default_workers
from rlino_lib.training.pretraining.demonstrators import SOURCES
from rlino_lib.training.sft import IGNORE

# --- the tokenizer ---------------------------------------------------------------------------------------------------


def _bytes() -> Qwen2Tokenizer:
    pad, end = "<|pad|>", "<|endoftext|>"
    vocab = {token: i for i, token in enumerate([pad, end, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    return Qwen2Tokenizer(
        vocab=vocab, merges=[], eos_token=end, unk_token=end, pad_token=pad, padding_side="left",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def build_tokenizer(task: str = "countdown") -> Qwen2Tokenizer:
    """Qwen-2's own tokenizer class over bytes, without merges, with one added token per integer and per word of a task.

    The words are taken whole wherever they stand, so a person can read a trace token by token. A larger number takes
    one more token per digit (154 is ` 15|4` to Countdown's), any other text falls apart into bytes: nothing is unknown.
    AutoTokenizer gives every Qwen-2 model this class, whatever the folder asks for: the base has to work with it.
    """
    tokenizer = _bytes()
    tokenizer.add_tokens([AddedToken(w, normalized=False) for w in SOURCES[task].words])
    return tokenizer


def learn_tokenizer(recipe: Recipe, rows: int = 20_000) -> Qwen2Tokenizer:
    """The same class with byte pairs learned from rows as the recipe trains on, at most its number of merges."""
    source, rng = SOURCES[recipe.task](recipe), random.Random(f"tokenizer-{recipe.seed}")
    texts = ("".join(source.row(rng)) for _ in range(rows))
    empty = _bytes()
    return empty.train_new_from_iterator(texts, vocab_size=len(empty) + recipe.merges, show_progress=False)


# --- training --------------------------------------------------------------------------------------------------------


def lr_at(step: int, recipe: Recipe) -> float:
    """Linear warm-up and a cosine to zero, twice: up to the restart, and from there at half the rate."""
    begin, end, peak = 0, min(recipe.restart, recipe.steps), recipe.lr
    if step >= recipe.restart:
        begin, end, peak = recipe.restart, recipe.steps, recipe.lr / 2
    warm = min(1.0, (step - begin + 1) / recipe.warmup)
    return peak * warm * 0.5 * (1 + math.cos(math.pi * (step - begin) / (end - begin)))


def read_base(folder: Path) -> tuple[dict[str, Any] | None, bool]:
    """The recipe that a folder records of a base model, and whether the base is complete.

    Raises RlinoError where the folder holds some other model, or a run.
    """
    card = folder / "card.json"
    if card.exists():
        recorded = read_json(card, needs="recipe")
        return recorded["recipe"], "weights_sha256_16" in recorded
    if (folder / "config.json").exists():
        raise RlinoError(f"{folder} holds another model, or a run: choose another --out")
    return None, False


BASE = Kind("base", read_base, ("model.safetensors", "tokenizer.json", "loss.csv"))


def pretrain(
    recipe: Recipe, out: str | Path, *, device: str = "auto", workers: int | None = None, progress: bool = True,
    save_every: int = 200,
) -> dict:  # fmt: skip
    """Train a base model and write it with its card; a killed run started again with the same arguments goes on.

    `workers` processes make the traces, which do not depend on it (None: `default_workers`).
    Returns the card's numbers, those of a complete base of this recipe too. Raises RlinoError where `out` holds one of
    another recipe or is in use, a checkpoint is damaged, the disk is full, the device is missing, or the loss is no
    longer finite.
    """
    out = Path(out)
    younger = asdict(Recipe()) | {"precision": "bf16"}  # which every base had until it was recorded
    with output_folder(out, BASE, asdict(recipe), younger) as complete:
        if complete and not (out / "model.safetensors").exists():
            raise RlinoError(f"{out} holds the card of a base without its weights: choose another --out")
        if not complete:
            device = pick_device(device)
            precision = begun_precision(recipe.precision, read_base(out)[0])
            recipe = replace(recipe, precision=pick_precision(precision, device, gains=True))
            _pretrain(recipe, out, device, workers, progress, save_every)
        return read_json(out / "card.json")


def _model(recipe: Recipe, tokenizer: Qwen2Tokenizer, device: str) -> Qwen2ForCausalLM:
    config = models.small_config(
        len(tokenizer), hidden_size=recipe.hidden_size, intermediate_size=4 * recipe.hidden_size,
        num_hidden_layers=recipe.layers, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    # On a CPU, at this size, eager attention is faster than the fused one in bfloat16, and as fast in float32.
    attention = "eager" if device == "cpu" else "sdpa"
    return Qwen2ForCausalLM._from_config(config, attn_implementation=attention).to(device).train()


def _grown(recipe: Recipe, tokenizer: Qwen2Tokenizer, device: str) -> Qwen2ForCausalLM:
    """The base that the recipe starts from, with a row of random weights for each word that it does not have.

    Raises RlinoError where it has other words than the first of the task's, or another size.
    """
    known = models.load_policy(recipe.start, device=device)
    model = cast(Qwen2ForCausalLM, known.model)
    sizes = model.config.hidden_size, model.config.num_hidden_layers
    words = tokenizer.get_vocab()
    if sizes != (recipe.hidden_size, recipe.layers) or any(
        words.get(w) != i for w, i in known.tokenizer.get_vocab().items()
    ):
        raise RlinoError(f"{recipe.start} has another size or other words than the recipe: it cannot start from there")
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return model.train()


def _pretrain(recipe: Recipe, out: Path, device: str, workers: int | None, progress: bool, save_every: int) -> None:
    torch.manual_seed(recipe.seed)
    tokenizer = learn_tokenizer(recipe) if recipe.merges else build_tokenizer(recipe.task)
    model = (_grown if recipe.start else _model)(recipe, tokenizer, device)
    gpu = device.startswith("cuda")
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.lr, betas=(0.9, 0.98), weight_decay=recipe.weight_decay, fused=gpu or None
    )
    write_json(out / "card.json", {"recipe": asdict(recipe)})
    checkpoint = out / "checkpoint.pt"
    record: dict[str, Any] = {"step": 0, "tokens": 0, "seconds": 0.0, "curve": []}  # of which a checkpoint keeps all
    if checkpoint.exists():
        with models.checkpoint_state(checkpoint) as state:
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            record = {name: state[name] for name in record}
    began = time.time() - record["seconds"]
    bar = tqdm(total=recipe.steps, initial=record["step"], desc="pretrain", disable=not progress)
    workers = default_workers(device) if workers is None else workers
    data = batches(recipe, tokenizer, record["step"], workers=workers, pin=gpu)
    for step in range(record["step"], recipe.steps):
        batch = next(data)  # [2, B, T]
        if step == recipe.restart:
            optimizer.state.clear()
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, recipe)
        loss = _loss(model, batch, recipe.precision, device)
        last = step + 1 == recipe.steps
        saves = (step + 1) % save_every == 0 and not last
        # To look at a loss a GPU has to be waited for; one that is not finite stays so.
        if not gpu or step % 50 == 0 or saves or last:
            _check_finite(loss, step)
        _update(model, optimizer, loss)
        record["step"] = step + 1
        record["tokens"] += int((batch[1] != IGNORE).sum())
        record["seconds"] = time.time() - began
        bar.update()
        if step % 50 == 0 or last:
            record["curve"].append((step, loss.item()))
            bar.set_postfix(loss=f"{loss.item():.3f}")
        if saves:
            weights = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            models.save_checkpoint(checkpoint, {"recipe": asdict(recipe), **weights, **record})
    bar.close()
    _finish(out, recipe, models.Policy(model.cpu().eval(), tokenizer), record)
    checkpoint.unlink(missing_ok=True)


def _loss(model: Qwen2ForCausalLM, batch: torch.Tensor, precision: str, device: str) -> torch.Tensor:
    """The mean cross-entropy of a batch's labels; padding stands to the right, so no mask is needed.

    Without a cache transformers would look for packed sequences, and wait for the GPU at each step to see that there
    are none.
    """
    inputs, labels = batch.to(device, non_blocking=True)  # [B, T] each
    with autocast(precision, model):
        return model(input_ids=inputs, labels=labels, use_cache=True).loss


def _check_finite(loss: torch.Tensor, step: int) -> None:
    if not torch.isfinite(loss):
        raise RlinoError(f"the loss is {loss.item()} at step {step}: lower the learning rate")


def _update(model: Qwen2ForCausalLM, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def _finish(out: Path, recipe: Recipe, policy: models.Policy, record: dict[str, Any]) -> None:
    """Write the base with its curve, and the card last: from here on it is complete."""
    models.save_policy(policy, out)
    curve = record["curve"]
    with replacing(out / "loss.csv") as part:
        part.write_text("step,loss\n" + "".join(f"{s},{v:.5f}\n" for s, v in curve), encoding="utf-8")
    card = {
        "recipe": asdict(recipe),
        "demonstrator": asdict(SOURCES[recipe.task].demonstrator),
        "parameters": models.count_parameters(policy.model),
        "response_tokens": record["tokens"],
        "seconds": round(record["seconds"]),
        "threads": torch.get_num_threads(),
        "final_loss": round(sum(v for _, v in curve[-5:]) / len(curve[-5:]), 4),
        "weights_sha256_16": models.weights_hash(policy.model),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    write_json(out / "card.json", card)
