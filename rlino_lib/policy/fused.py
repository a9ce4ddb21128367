"""One decoding step of a small Qwen2 or Llama model on the CPU, in as few operations as it takes (chapter 04).

At a width of 128 the products with the weights take under half of a step's time. Attention takes most of the rest,
since every token reads all keys and values so far, and the many small operations around the products take what is left.
So the weights are laid out once for each batch of rollouts: query, key and value in one matrix, gate and up in another,
the norms' scales and the attention's 1/√D folded into them, and the two halves of a rotary pair side by side, which
makes the rotation one complex product. The key-value heads of a token stand side by side too, so that a row's scores
are one product. The result is that of the model's own forward pass up to float32 rounding; any model, device or setting
that this does not fit is decoded by the model itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import silu
from transformers import PreTrainedModel

from rlino_lib.policy.device import is_small


class FlatLayer:
    """Keys and values of one layer with the heads of a token side by side, each [B, S+T, Hkv·D]."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, length: int) -> None:
        """keys and values [B, Hkv, S+T, D], of which the first `length` places are filled."""
        self.keys = keys.transpose(1, 2).flatten(2)  # [B, S+T, Hkv·D]
        self.values = values.transpose(1, 2).flatten(2)  # [B, S+T, Hkv·D]
        self.length = length

    def append(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Write the keys and values of one more token, each [B, Hkv, D]."""
        self.keys[:, self.length] = keys.flatten(1)
        self.values[:, self.length] = values.flatten(1)
        self.length += 1

    def select(self, rows: torch.Tensor) -> None:
        """Keep some rows of the batch."""
        self.keys = self.keys.index_select(0, rows)
        self.values = self.values.index_select(0, rows)


class FusedDecoder:
    """The decoder of one model for sequences of up to `length` tokens; a snapshot of its weights when it was made."""

    @staticmethod
    def fits(model: PreTrainedModel) -> bool:
        """Whether this is a plain Qwen2 or Llama in float32: no adapter, hook, sliding window or scaled rotation."""
        if type(model).__name__ not in ("Qwen2ForCausalLM", "LlamaForCausalLM") or not is_small(model):
            return False
        if model.device.type != "cpu":
            return False
        config = model.config
        modules = list(model.modules())
        full = all(kind == "full_attention" for kind in getattr(config, "layer_types", None) or [])
        if not full or config.hidden_act != "silu" or config.rope_parameters.get("rope_type", "default") != "default":
            return False
        if any(p.dtype != torch.float32 for p in model.parameters()):
            return False
        if any(m._forward_hooks or m._forward_pre_hooks for m in modules):
            return False
        return not any(type(m) is not nn.Linear for m in modules if hasattr(m, "in_features")) and not any(
            linear.bias is not None
            for layer in model.model.layers
            for linear in (layer.self_attn.o_proj, *layer.mlp.children())
            if isinstance(linear, nn.Linear)
        )

    def __init__(self, model: PreTrainedModel, length: int) -> None:
        config = model.config
        self.heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.dim = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps = config.rms_norm_eps
        self.pairs = torch.arange(self.dim).view(2, -1).t().reshape(-1)  # [D]: 0, D/2, 1, D/2+1, …
        self.layers = [self._fuse(layer) for layer in model.model.layers]
        self.embedding = model.model.embed_tokens.weight  # [V, d]
        self.head = (model.lm_head.weight * model.model.norm.weight).t().contiguous()  # [d, V]
        angles = torch.arange(length)[:, None] * model.model.rotary_emb.inv_freq.float()  # [L, D/2]
        self.rotation = torch.polar(torch.ones_like(angles), angles)  # [L, D/2] complex

    def _fuse(self, layer: nn.Module) -> tuple[torch.Tensor, ...]:
        attention, mlp = layer.self_attn, layer.mlp
        scale = self.dim**-0.5

        def paired(x: torch.Tensor) -> torch.Tensor:
            return x.view(-1, self.dim, *x.shape[1:])[:, self.pairs].reshape(x.shape)

        q, k, v = attention.q_proj, attention.k_proj, attention.v_proj
        bias = [torch.zeros(m.out_features) if m.bias is None else m.bias for m in (q, k, v)]
        qkv = torch.cat([paired(q.weight) * scale, paired(k.weight), v.weight]) * layer.input_layernorm.weight
        gate_up = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]) * layer.post_attention_layernorm.weight
        out, down = attention.o_proj.weight, mlp.down_proj.weight
        return (
            torch.cat([paired(bias[0]) * scale, paired(bias[1]), bias[2]]),  # [(H + 2·Hkv)·D]
            *(w.t().contiguous() for w in (qkv, out, gate_up, down)),  # each [in, out]
        )

    def adopt(self, layers: Sequence) -> list[FlatLayer]:
        """Cache layers that the model's own prefill has filled, in this decoder's layout and order of pairs."""
        for layer in layers:
            layer.keys[:, :, : layer.length] = layer.keys[:, :, : layer.length, self.pairs]
        return [FlatLayer(layer.keys, layer.values, layer.length) for layer in layers]

    def _norm(self, x: torch.Tensor) -> torch.Tensor:
        return x * x.square().mean(-1, keepdim=True).add_(self.eps).rsqrt_()

    def _attend(self, queries: torch.Tensor, layer: FlatLayer, attention: torch.Tensor | None) -> torch.Tensor:
        """Attention of one new token for each row; queries [B, H, D], attention [B, L] or None; returns [B, H·D].

        Each query stands beside zeros where the other key-value heads are. A row then is one product with its keys and
        one with its values, not one for each key-value head: products of this size cost what they read.
        """
        n = len(queries)
        kv = self.kv_heads
        spread = queries.new_zeros(n, kv, self.heads // kv, kv, self.dim)  # [B, Hkv, H/Hkv, Hkv, D]
        own = spread.diagonal(dim1=1, dim2=3)  # [B, H/Hkv, D, Hkv]
        own.copy_(queries.unflatten(1, (kv, -1)).permute(0, 2, 3, 1))
        keys = layer.keys[:, : layer.length]  # [B, L, Hkv·D]
        values = layer.values[:, : layer.length]  # [B, L, Hkv·D]
        scores = torch.bmm(keys, spread.view(n, self.heads, -1).transpose(1, 2)).transpose(1, 2)  # [B, H, L]
        if attention is not None:
            scores.masked_fill_(~attention[:, None], torch.finfo(scores.dtype).min)
        mixed = torch.bmm(scores.softmax(-1), values).view(spread.shape)  # [B, Hkv, H/Hkv, Hkv, D]
        return mixed.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2).reshape(n, -1)  # [B, H·D]

    def step(
        self, tokens: torch.Tensor, positions: torch.Tensor, layers: Sequence[FlatLayer], attention: torch.Tensor | None
    ) -> torch.Tensor:
        """Logits [B, V] after the next tokens [B], positions [B] or [1], attention [B, L] or None."""
        turning = self.heads + self.kv_heads  # queries and keys; values are not rotated
        rotation = self.rotation[positions][:, None]  # [B or 1, 1, D/2]
        x = self.embedding[tokens]  # [B, d]
        for (bias, qkv, out, gate_up, down), layer in zip(self.layers, layers, strict=True):
            states = torch.addmm(bias, self._norm(x), qkv).unflatten(1, (-1, self.dim))  # [B, H + 2·Hkv, D]
            pairs = torch.view_as_complex(states[:, :turning].unflatten(2, (-1, 2)))  # [B, H + Hkv, D/2]
            turned = torch.view_as_real(pairs * rotation).flatten(2)  # [B, H + Hkv, D]
            layer.append(turned[:, self.heads :], states[:, turning:])
            x = torch.addmm(x, self._attend(turned[:, : self.heads], layer, attention), out)  # [B, d]
            gate, up = torch.mm(self._norm(x), gate_up).chunk(2, 1)  # each [B, m]
            x = torch.addmm(x, silu(gate).mul_(up), down)  # [B, d]
        return torch.mm(self._norm(x), self.head)  # [B, V]
