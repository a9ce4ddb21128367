"""One decoding step of a Qwen2 or Llama model in as few operations as it takes (chapter 04).

At a width of 128 on a CPU the products with the weights take under half of a step's time, and on a GPU a step of a
model under a billion parameters is mostly the starting of kernels. So the weights are laid out once for each batch of
rollouts: query, key and value in one matrix, gate and up in another, adapters added in, the norms' scales and the
attention's 1/√D folded into them, and the two halves of a rotary pair side by side, which makes the rotation one
complex product. The result is that of the model's own forward pass up to rounding; any model, device or setting that
this does not fit is decoded by the model itself.

The step is the same on both devices. What differs is where keys and values lie: `FlatLayer` for a CPU, where the
scores of a row are one product, and `graph.StaticLayer` for a GPU, at addresses that do not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad, rms_norm, silu
from transformers import PreTrainedModel

FAMILIES = ("Qwen2ForCausalLM", "LlamaForCausalLM")
TYPES = ({torch.float32}, {torch.float32, torch.bfloat16})  # of weights, on a CPU and on a GPU


class FlatLayer:
    """Keys and values of one layer with the heads of a token side by side, each [≥ B, S+T, Hkv·D]."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, room: int, capacity: int) -> None:
        """keys and values [B, Hkv, S, D] of the tokens so far; there is room for `capacity` tokens of `room` rows."""
        self.rows, self.kv_heads, self.length, dim = keys.shape
        self.keys = keys.new_empty(room, capacity, self.kv_heads * dim)  # [≥ B, S+T, Hkv·D]
        self.values = torch.empty_like(self.keys)
        self.keys[: self.rows, : self.length] = keys.transpose(1, 2).flatten(2)
        self.values[: self.rows, : self.length] = values.transpose(1, 2).flatten(2)

    def append(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Write the keys and values of one more token, each [B, Hkv, D]."""
        self.keys[: self.rows, self.length] = keys.flatten(1)
        self.values[: self.rows, self.length] = values.flatten(1)
        self.length += 1

    def batch_select_indices(self, rows: torch.Tensor) -> None:
        """Keep, move or repeat rows of the batch, as many as there is room for; what stays at its place is not read.

        Its name is that of the layers of transformers' caches.
        """
        self.rows = len(rows)
        moved = (rows != torch.arange(len(rows), device=rows.device)).nonzero()[:, 0]
        for states in (self.keys[:, : self.length], self.values[:, : self.length]):
            states[moved] = states[rows[moved]]

    def attend(self, queries: torch.Tensor, attention: torch.Tensor | None) -> torch.Tensor:
        """Attention of one new token for each row; queries [B, H, D], attention [B, L] or None; returns [B, H·D].

        Each query stands beside zeros where the other key-value heads are. A row then is one product with its keys and
        one with its values, not one for each key-value head: products of this size cost what they read.
        """
        n, heads, dim = queries.shape
        kv = self.kv_heads
        spread = queries.new_zeros(n, kv, heads // kv, kv, dim)  # [B, Hkv, H/Hkv, Hkv, D]
        own = spread.diagonal(dim1=1, dim2=3)  # [B, H/Hkv, D, Hkv]
        own.copy_(queries.unflatten(1, (kv, -1)).permute(0, 2, 3, 1))
        keys = self.keys[: self.rows, : self.length]  # [B, L, Hkv·D]
        values = self.values[: self.rows, : self.length]  # [B, L, Hkv·D]
        scores = torch.bmm(keys, spread.view(n, heads, -1).transpose(1, 2)).transpose(1, 2)  # [B, H, L]
        if attention is not None:
            scores.masked_fill_(~attention[:, None], torch.finfo(scores.dtype).min)
        mixed = torch.bmm(scores.softmax(-1), values).view(spread.shape)  # [B, Hkv, H/Hkv, Hkv, D]
        return mixed.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2).reshape(n, -1)  # [B, H·D]


# --- what it fits ----------------------------------------------------------------------------------------------------


def misfit(model: PreTrainedModel) -> str:
    """Why the fused step cannot stand in for a model, or "": it is a plain Qwen2 or Llama, adapters of LoRA allowed."""
    inner = base_model(model)
    name = type(inner).__name__
    if name not in FAMILIES:
        return f"it is a {name}"
    config = inner.config
    if any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or []):
        return "its attention has a window"
    if config.hidden_act != "silu" or config.rope_parameters.get("rope_type", "default") != "default":
        return "its activation or its rotation is of another kind"
    if not {p.dtype for p in inner.parameters()} <= TYPES[model.device.type == "cuda"]:
        return "its weights are of another floating-point type"
    if any(m._forward_hooks or m._forward_pre_hooks for m in model.modules()):
        return "it has hooks"
    linears = {name: m for name, m in inner.model.layers.named_modules() if name.endswith("_proj")}
    if not all(map(_is_linear, (*linears.values(), inner.lm_head))):
        return "a linear layer of it is of another kind"
    if any(m.bias is not None for name, m in linears.items() if not name.endswith(("q_proj", "k_proj", "v_proj"))):
        return "an output projection or an MLP of it has a bias"
    return ""


def base_model(model: PreTrainedModel) -> PreTrainedModel:
    """The model inside its adapters, or the model."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _is_linear(module: Any) -> bool:
    """Whether `_weight` knows the layer: linear as it is, or with adapters of LoRA that add to its weight alone."""
    if type(module) is nn.Linear:
        return True
    if type(module).__module__ != "peft.tuners.lora.layer" or type(module).__name__ != "Linear" or module.merged:
        return False
    biased = any(getattr(b, "bias", None) is not None for b in module.lora_B.values())
    return type(module.get_base_layer()) is nn.Linear and not (biased or any(module.use_dora.values()))


def _weight(module: Any) -> torch.Tensor:
    """The weight of a linear layer, [out, in], its adapters' product added where they are switched on."""
    if type(module) is nn.Linear:
        return module.weight
    weight = module.get_base_layer().weight
    if module.disable_adapters:
        return weight
    return weight + sum(module.get_delta_weight(name) for name in module.active_adapters).to(weight)


# --- the step --------------------------------------------------------------------------------------------------------


class FusedDecoder:
    """The decoder of one model for sequences of up to `length` tokens; a snapshot of its weights when it was made."""

    def __init__(self, model: PreTrainedModel, length: int, dtype: torch.dtype | None = None) -> None:
        """`dtype` of the snapshot, by default that of the weights. Norms and rotations are computed in float32."""
        inner = base_model(model)
        config = inner.config
        self.dtype = dtype or inner.dtype
        self.heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.dim = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps = config.rms_norm_eps
        self.pairs = torch.arange(self.dim).view(2, -1).t().reshape(-1).to(model.device)  # [D]: 0, D/2, 1, D/2+1, …
        self.layers = [self._fuse(layer) for layer in inner.model.layers]
        self.embedding = inner.model.embed_tokens.weight.to(self.dtype)  # [V, d]
        self.head = self._laid_out(inner.lm_head.weight, inner.model.norm)  # [d, V]
        angles = torch.arange(length, device=model.device)[:, None] * inner.model.rotary_emb.inv_freq.float()
        self.rotation = torch.polar(torch.ones_like(angles), angles)  # [L, D/2] complex

    def _laid_out(self, weight: torch.Tensor, norm: Any = None) -> torch.Tensor:
        """A weight [out, in] as [in, out], with the scale of the norm before it."""
        weight = weight if norm is None else weight.float() * norm.weight.float()
        return weight.t().to(self.dtype).contiguous()

    def _fuse(self, layer: Any) -> tuple[torch.Tensor, ...]:
        attention, mlp = layer.self_attn, layer.mlp
        scale = self.dim**-0.5

        def paired(x: torch.Tensor) -> torch.Tensor:
            return x.view(-1, self.dim, *x.shape[1:])[:, self.pairs].reshape(x.shape)

        three = (attention.q_proj, attention.k_proj, attention.v_proj)
        q, k, v = (_weight(m) for m in three)  # each [out, d]
        bias = [w.new_zeros(len(w)) if m.bias is None else m.bias for m, w in zip(three, (q, k, v), strict=True)]
        qkv = torch.cat([paired(q) * scale, paired(k), v])  # [(H + 2·Hkv)·D, d]
        gate_up = torch.cat([_weight(mlp.gate_proj), _weight(mlp.up_proj)])  # [2m, d]
        return (
            torch.cat([paired(bias[0]) * scale, paired(bias[1]), bias[2]]).to(self.dtype),  # [(H + 2·Hkv)·D]
            self._laid_out(qkv, layer.input_layernorm),  # each [in, out]
            self._laid_out(_weight(attention.o_proj)),
            self._laid_out(gate_up, layer.post_attention_layernorm),
            self._laid_out(_weight(mlp.down_proj)),
        )

    def adapted(self, layer: Any, rows: torch.Tensor, length: int, capacity: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a layer that the model's own prefill has filled, in this decoder's type and order.

        `layer` holds [P, Hkv, ≥ length, D]. Returns [B, Hkv, capacity, D] for rows [B] int64 of it, each in [0, P).
        """
        keys, values = (x[:, :, :length].index_select(0, rows).to(self.dtype) for x in (layer.keys, layer.values))
        room = (0, 0, 0, capacity - length)
        return pad(keys[..., self.pairs], room), pad(values, room)

    def _norm(self, x: torch.Tensor) -> torch.Tensor:
        if x.is_cuda:  # one kernel
            return rms_norm(x, x.shape[-1:], eps=self.eps)
        x = x.float()
        return (x * x.square().mean(-1, keepdim=True).add_(self.eps).rsqrt_()).to(self.dtype)

    def step(
        self, tokens: torch.Tensor, positions: torch.Tensor, layers: Sequence, attention: torch.Tensor | None
    ) -> torch.Tensor:
        """Logits [B, V] after the next tokens [B], at positions [B] or [1]; `attention` is for the layers."""
        turning = self.heads + self.kv_heads  # queries and keys; values are not rotated
        rotation = self.rotation[positions][:, None]  # [B or 1, 1, D/2]
        x = self.embedding[tokens]  # [B, d]
        for (bias, qkv, out, gate_up, down), layer in zip(self.layers, layers, strict=True):
            states = torch.addmm(bias, self._norm(x), qkv).unflatten(1, (-1, self.dim))  # [B, H + 2·Hkv, D]
            pairs = torch.view_as_complex(states[:, :turning].float().unflatten(2, (-1, 2)))  # [B, H + Hkv, D/2]
            turned = torch.view_as_real(pairs * rotation).flatten(2).to(self.dtype)  # [B, H + Hkv, D]
            layer.append(turned[:, self.heads :], states[:, turning:])
            x = torch.addmm(x, layer.attend(turned[:, : self.heads], attention), out)  # [B, d]
            gate, up = torch.mm(self._norm(x), gate_up).chunk(2, 1)  # each [B, m]
            x = torch.addmm(x, silu(gate).mul_(up), down)  # [B, d]
        return torch.mm(self._norm(x), self.head)  # [B, V]
