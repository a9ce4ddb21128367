"""The memory that a run will need, estimated from its settings before any weight is loaded (chapter 12).

Parameters are counted exactly, on a model without storage. Activations are counted tensor by tensor for the decoder
layer of Qwen2 and Llama as transformers writes it; other models come near it.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from rlino_lib.errors import RlinoError
from rlino_lib.methods.catalogue import varied
from rlino_lib.policy import logprobs, models
from rlino_lib.policy.device import gains_from_bf16, is_out_of_memory, pick_device, pick_precision
from rlino_lib.training.checks import reads_base
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.micro_batches import by_tokens, most_rows

FLOAT, HALF = 4, 2  # bytes; weights are float32 whatever the file holds (device.py says why)
MAX_ROWS = 1024  # responses that `sample` decodes at a time
PROMPT_TOKENS = 256  # where the length of the prompts is not given
MOST_TOKENS = 2**17  # of a micro-batch that is chosen here; more make no GPU faster
SHARE = 0.5  # of the memory left that such a micro-batch may take: estimates are not exact, and allocators leave gaps
GIB = 2**30


@dataclass(frozen=True)
class Estimate:
    """Bytes by purpose. Sampling and the update never use memory at the same time."""

    weights: int  # with what bf16 products take: a copy of them in half the bytes
    reference: int  # a frozen copy of the weights
    optimizer: int  # Adam's two moments
    gradients: int
    activations: int  # of one micro-batch, the head's logits among them
    cache: int  # of sampling: keys, values, the prompts' pass and the logits of one step
    tokens: int = 0  # no bytes: what one micro-batch holds, padding included

    @property
    def update(self) -> int:
        """The peak of an update, permanent memory included."""
        return self.weights + self.reference + self.optimizer + self.gradients + self.activations

    @property
    def total(self) -> int:
        """The peak of the run."""
        return self.update - self.gradients - self.activations + max(self.gradients + self.activations, self.cache)


def _counts(model: PreTrainedConfig, config: TrainConfig) -> tuple[int, int]:
    """Parameters in all, and those that train."""
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(model)
        built = models.add_lora(built, rank=config.lora_rank, targets=config.targets) if config.lora_rank else built
    return models.count_parameters(built), sum(p.numel() for p in built.parameters() if p.requires_grad)


def _kv_widths(c: PreTrainedConfig) -> tuple[int, int]:
    """Numbers per token in a layer's queries, and in its keys (or its values)."""
    dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    heads = getattr(c, "num_key_value_heads", None) or c.num_attention_heads
    return dim * c.num_attention_heads, dim * heads


def _layer_bytes(c: PreTrainedConfig, bf16: bool) -> int:
    """Bytes that one decoder layer keeps for its backward pass, per token.

    Each norm keeps its input, the input normalised, and its output; attention q, k and v after the rotation, k and v
    once more where they are repeated over the heads of a group, and its output in two layouts; the MLP the gate before
    and after its activation, the other half, and their product. With bf16 products norms and rotations stay float32
    and are copied into the products' type; the rest is in it.
    """
    q, kv = _kv_widths(c)
    attention = 3 * q + 2 * kv + (2 * q if kv < q else 0)
    norms = 2 * 3 * c.hidden_size
    products = attention + 4 * c.intermediate_size
    if bf16:
        return FLOAT * norms + HALF * (2 * c.hidden_size + products + q + kv)
    return FLOAT * (norms + products)


def _cache_floats(c: PreTrainedConfig, problems: int, samples: int, prompt_tokens: int, new_tokens: int) -> int:
    """Floats that sampling holds: keys and values, then the prompts' pass or one step's logits."""
    prompts = max(1, min(problems, MAX_ROWS // samples))  # that are decoded at a time
    rows = prompts * samples
    _, kv = _kv_widths(c)
    prefill = prompts * prompt_tokens * (3 * c.intermediate_size + 4 * c.hidden_size)
    # a step has the logits, the log-probs, the probabilities, their running sum, and one more on the way
    return 2 * kv * c.num_hidden_layers * rows * (prompt_tokens + new_tokens) + max(prefill, 5 * rows * c.vocab_size)


def _token_bytes(c: PreTrainedConfig, config: TrainConfig, bf16: bool) -> int:
    """Bytes that the layers of a pass keep, per token."""
    layer = _layer_bytes(c, bf16)
    whole = layer if config.gradient_checkpointing else layer * c.num_hidden_layers
    return whole + FLOAT * c.hidden_size * (3 + (c.num_hidden_layers if config.gradient_checkpointing else 0))


def _head_bytes(c: PreTrainedConfig, device: str, tokens: int) -> int:
    """Bytes of the logits of so many tokens; of a large vocabulary those of one slice, however many there are."""
    return FLOAT * (2 * logprobs.tile_size(device) if c.vocab_size >= logprobs.LARGE else 3 * c.vocab_size * tokens)


def _casts(config: TrainConfig, parameters: int, device: str) -> bool:
    """Whether a run of a model of that size has products in bfloat16; without a warning, since none is computed."""
    gains = gains_from_bf16(parameters, device)
    return (pick_precision("auto", device, gains) if config.precision == "auto" else config.precision) == "bf16"


def _token_budget(c: PreTrainedConfig, config: TrainConfig, bf16: bool, device: str, left: int) -> int:
    """The tokens of a micro-batch where `left` bytes are left for it: a power of two, so that a little more or less
    free memory does not change how rows are cut."""
    constant = _head_bytes(c, device, 0)
    one = _token_bytes(c, config, bf16) + _head_bytes(c, device, 1) - constant
    allowed = max(1, int((SHARE * left - constant) / one))
    return min(MOST_TOKENS, 2 ** (allowed.bit_length() - 1))


def estimate(
    model: PreTrainedConfig, config: TrainConfig, prompt_tokens: int = PROMPT_TOKENS, free: int | None = None
) -> Estimate:
    """The memory of a run of this model with these settings, responses as long as the cap allows.

    `prompt_tokens` is the length of the longest prompt. On a GPU micro-batches are those that the free memory allows,
    where nothing is loaded yet: `free` bytes, by default as many as are free now. What the interpreter and its
    libraries take, half a gigabyte or so, is not in it, nor what an allocator keeps of blocks that were freed.
    """
    c = model.get_text_config()
    t = config
    total, trained = _counts(model, t)
    device = pick_device(t.device)
    bf16 = _casts(t, total, device)
    objective = varied(t.method, t.objective_settings)
    frozen_copy = reads_base(t) and not t.lora_rank
    head = 0 if c.tie_word_embeddings else c.vocab_size * c.hidden_size
    copied = total - head if objective.kind == "critic" and t.critic_trunk == "copy" else 0  # the critic's trunk
    embedding = c.vocab_size * c.hidden_size if trained == total else 0
    # Beside the sum of gradients stand the newest of the head and, where it is tied, the embedding's to be added to it.
    newest = embedding * (2 if c.tie_word_embeddings else 1)
    batches = [(t.prompts, t.group_size), *([(t.eval_problems, t.eval_samples)] if t.eval_every else [])]
    cache = max(_cache_floats(c, *batch, prompt_tokens, t.max_new_tokens) for batch in batches)
    permanent = Estimate(
        weights=(FLOAT + HALF * bf16) * (total + copied),
        reference=FLOAT * total * bool(frozen_copy),
        optimizer=FLOAT * 2 * (trained + copied),
        gradients=FLOAT * max(trained + newest, copied),  # policy and critic learn one after the other
        activations=0,
        cache=FLOAT * cache,
    )
    row = prompt_tokens + t.max_new_tokens
    rows = t.prompts * t.group_size
    if by_tokens(t, device):
        left = (free_bytes(device) if free is None else free) - permanent.update
        budget = t.micro_tokens or _token_budget(c, t, bf16, device, left)
        tokens = min(max(budget, row), row * min(most_rows(t) or rows, rows))
        read = tokens  # by the head; how long prompts are beside their responses is not known here
    else:
        tokens = row * min(t.micro_batch, rows)
        read = t.max_new_tokens * min(t.micro_batch, rows)
    activations = tokens * _token_bytes(c, t, bf16) + _head_bytes(c, device, read)
    return replace(permanent, activations=activations, tokens=tokens)


def micro_tokens(model: PreTrainedModel, config: TrainConfig) -> int:
    """The tokens of a micro-batch of a run whose model, and reference where it has one, is loaded and nothing else.

    0 where micro-batches are cut by rows.
    """
    device = str(model.device)
    if not by_tokens(config, device):
        return 0
    if config.micro_tokens:
        return config.micro_tokens
    config = replace(config, device=device)
    total = models.count_parameters(model)
    bf16 = _casts(config, total, device)
    needed = estimate(model.config, config, free=0)
    later = needed.optimizer + needed.gradients + HALF * bf16 * total
    return _token_budget(model.config.get_text_config(), config, bf16, device, free_bytes(device) - later)


def update_flops(model: PreTrainedConfig, tokens: int, length: float = 0, head_tokens: int | None = None) -> float:
    """Floating-point operations of a forward and a backward pass of full fine-tuning, as the formulas have them.

    `tokens` pass through the layers, in rows of `length` tokens (0: attention is left out), and `head_tokens` through
    the head (None: all). Each weight of a product counts 2 forward and 4 backward for each token, and attention over a
    whole row 12 · layers · width of the queries · length (2204.02311, appendix B). What gradient checkpointing computes
    again is not in it, nor that a causal kernel leaves out half of the pairs.
    """
    c = model.get_text_config()
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(model)
    head = c.vocab_size * c.hidden_size
    body = sum(m.weight.numel() for m in built.modules() if isinstance(m, torch.nn.Linear)) - head
    q, _ = _kv_widths(c)
    products = 6 * (body * tokens + head * (tokens if head_tokens is None else head_tokens))
    return products + 12 * c.num_hidden_layers * q * length * tokens


def free_bytes(device: str = "auto") -> int:
    """Memory free for a run: the GPU's, or the machine's, which an Apple GPU shares."""
    if (device := pick_device(device)).startswith("cuda"):
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # which torch uses again
        return torch.cuda.mem_get_info(device)[0] + cached
    return psutil.virtual_memory().available


def peak_bytes() -> int:
    """The peak memory of this process so far in bytes, on Linux and macOS."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux hands a parent's peak on to its children in `getrusage`, but not here
        lines = status.read_text(encoding="utf-8", errors="replace").split("\n")
        return 1024 * next(int(line.split()[1]) for line in lines if "VmHWM" in line)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def advice(model: PreTrainedConfig, config: TrainConfig, free: int, prompt_tokens: int = PROMPT_TOKENS) -> str:
    """The mildest change with which an update fits: a smaller micro-batch, which most methods do not depend on, first.

    Then gradient checkpointing, which only costs time, then LoRA. A micro-batch that follows from the free memory is as
    small as it can be.
    """
    name = "micro_tokens" if config.micro_tokens else "micro_batch"
    given = getattr(config, name)
    powers = (2**k for k in range(given.bit_length(), -1, -1))
    automatic = by_tokens(config, pick_device(config.device)) and not config.micro_tokens
    sizes = [given, *(size for size in powers if size < given and not automatic)]
    lora = {} if config.lora_rank else {"lora_rank": 16}
    for extra in ({}, {"gradient_checkpointing": 1}, lora, lora | {"gradient_checkpointing": 1}):
        for size in sizes:
            changed = {k: v for k, v in (extra | {name: size}).items() if getattr(config, k) != v}
            if estimate(model, replace(config, **changed), prompt_tokens, free).update <= free:
                return "try " + " ".join(f"--{name.replace('_', '-')} {value}" for name, value in changed.items())
    return "no micro-batch fits, with LoRA or without: try a smaller model or a lower --max-new-tokens"


def check(config: TrainConfig, prompt_tokens: int = PROMPT_TOKENS) -> tuple[bool, str]:
    """Whether a run's updates fit into the free memory, and a line with both numbers, or advice.

    Sampling always fits: it decodes fewer responses at a time where it has to. Where the model cannot be read or
    counted the line is empty, and loading the model raises the reason. Raises RlinoError for an unknown device.
    """
    free = free_bytes(config.device)
    try:
        model = AutoConfig.from_pretrained(config.model, **models.hub_options(config.model))
        needed = estimate(model, config, prompt_tokens, free)
    except Exception:  # the hub, the disk, the parsers and unusual models below each raise their own kinds
        return True, ""
    message = f"needs about {needed.total / GIB:.1f} GiB, {free / GIB:.1f} free"
    if needed.update > free:
        return False, f"{message}; {advice(model, config, free, prompt_tokens)}"
    return True, message if needed.total <= free else f"{message}; fewer responses will be sampled at a time"


@contextmanager
def out_of_memory_advice(options: str) -> Iterator[None]:
    """Raise RlinoError for running out of memory inside it; `options` are those of the command that need less."""
    try:
        yield
    except RuntimeError as e:
        if not is_out_of_memory(e):
            raise
        raise RlinoError(f"out of memory: try {options}; a run that differs in these needs another --out") from e
