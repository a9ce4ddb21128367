"""One decoding step of a small Qwen2 or Llama model on the CPU, in as few operations as it takes (chapter 04).

At a width of 128 the products take half the time of a step and the many small operations around them the other half.
So the weights are laid out once for each batch of rollouts: query, key and value in one matrix, gate and up in another,
the norms' scales and the attention's 1/√d folded into them, and the two halves of a rotary pair side by side, which
makes the rotation one complex product. The result is that of the model's own forward pass up to float32 rounding; any
model, device or setting that this does not fit is decoded by the model itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import silu
from transformers import PreTrainedModel

SMALL = 50_000_000  # parameters; above, the products dominate and there is nothing to win


def is_small(model: nn.Module) -> bool:
    """Whether the model is small and on the CPU, where overheads and not products set the pace."""
    first = next(model.parameters())
    return first.device.type == "cpu" and sum(p.numel() for p in model.parameters()) <= SMALL


class FusedDecoder:
    """The decoder of one model for sequences of up to `length` tokens; a snapshot of its weights when it was made."""

    @staticmethod
    def fits(model: PreTrainedModel) -> bool:
        """Whether this is a plain Qwen2 or Llama in float32: no adapter, hook, sliding window or scaled rotation."""
        if type(model).__name__ not in ("Qwen2ForCausalLM", "LlamaForCausalLM") or not is_small(model):
            return False
        config, modules = model.config, list(model.modules())
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
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.dim = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps = config.rms_norm_eps
        self.pairs = torch.arange(self.dim).view(2, -1).t().reshape(-1)  # [D]: 0, D/2, 1, D/2+1, …
        self.layers = [self._fuse(layer) for layer in model.model.layers]
        self.embedding = model.model.embed_tokens.weight  # [V, d]
        self.head = (model.lm_head.weight * model.model.norm.weight).t().contiguous()  # [d, V]
        angles = torch.arange(length)[:, None] * model.model.rotary_emb.inv_freq.float()  # [L, D/2]
        self.rotation = torch.polar(torch.ones_like(angles), angles)  # [L, D/2] complex

    def _fuse(self, layer: nn.Module) -> tuple[torch.Tensor, ...]:
        attention, mlp, scale = layer.self_attn, layer.mlp, self.dim**-0.5

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

    def adopt(self, layers: Sequence) -> None:
        """Take over cache layers that the model's own prefill has filled: keys in this decoder's order of pairs."""
        for layer in layers:
            layer.keys[:, :, : layer.length] = layer.keys[:, :, : layer.length, self.pairs]

    def _norm(self, x: torch.Tensor) -> torch.Tensor:
        return x * x.square().mean(-1, keepdim=True).add_(self.eps).rsqrt_()

    def step(
        self, tokens: torch.Tensor, positions: torch.Tensor, layers: Sequence, attention: torch.Tensor | None
    ) -> torch.Tensor:
        """Logits [B, V] after one more token a row; tokens [B], positions [B] or [1], attention [B, L] or None."""
        heads, kv, dim = self.heads, self.kv_heads, self.dim
        rotation = self.rotation[positions][:, None]  # [B or 1, 1, D/2]
        x = self.embedding[tokens]  # [B, d]
        for (bias, qkv, out, gate_up, down), layer in zip(self.layers, layers, strict=True):
            states = torch.addmm(bias, self._norm(x), qkv).unflatten(1, (-1, dim))  # [B, H + 2·Hkv, D]
            pairs = torch.view_as_complex(states[:, : heads + kv].unflatten(2, (-1, 2)))  # [B, H + Hkv, D/2]
            turned = torch.view_as_real(pairs * rotation).flatten(2)  # [B, H + Hkv, D]
            keys, values = layer.update(turned[:, heads:, None], states[:, heads + kv :, None])  # [B, Hkv, L, D]
            scores = torch.matmul(turned[:, :heads].unflatten(1, (kv, -1)), keys.transpose(2, 3))  # [B, Hkv, H/Hkv, L]
            if attention is not None:
                scores.masked_fill_(~attention[:, None, None], torch.finfo(scores.dtype).min)
            x = torch.addmm(x, torch.matmul(scores.softmax(-1), values).view(len(x), -1), out)  # [B, d]
            gate, up = torch.mm(self._norm(x), gate_up).chunk(2, 1)  # each [B, m]
            x = torch.addmm(x, silu(gate).mul_(up), down)  # [B, d]
        return torch.mm(self._norm(x), self.head)  # [B, V]
