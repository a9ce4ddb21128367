"""Chapter 12's checkers: right answers by other means pass."""

from __future__ import annotations

import torch

from checkers import scale as exercises_scale
from tests.mistakes import assert_right_answers_pass

CHECKERS = {name: f for name, f in vars(exercises_scale).items() if name.startswith("check_")}


def cache(layers, kv_heads, head_dim, responses, tokens):
    one = torch.empty(kv_heads, tokens, head_dim, device="meta")
    return sum(2 * one.numel() * one.element_size() * responses for _ in range(layers))


def smallest(weight):
    """By trying: the first power of two that takes the weight, rounded down to bfloat16, to its neighbour."""
    bits = torch.tensor(weight, dtype=torch.float32).view(torch.int32) & ~0xFFFF
    low, high = bits.view(torch.float32), (bits + 0x10000).view(torch.float32)
    return (high - low).item()


def mean(losses, tokens):
    values = torch.cat([torch.full((n,), x, dtype=torch.float64) for x, n in zip(losses, tokens, strict=True)])
    return values.mean().item()


RIGHT = {"check_cache": cache, "check_spacing": smallest, "check_weighted": mean}


def test_right_answers_pass(capsys):
    assert_right_answers_pass(CHECKERS, RIGHT, capsys)
