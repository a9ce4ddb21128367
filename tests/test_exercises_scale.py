"""Chapter 12's checkers: right answers by other means pass, and every listed mistake is named as itself."""

from __future__ import annotations

import pytest
import torch

from rlino_lib import exercises_scale

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
    assert set(RIGHT) == set(CHECKERS)
    for name, checker in CHECKERS.items():
        assert checker(RIGHT[name]), capsys.readouterr().out
        assert capsys.readouterr().out.startswith("✓ ")


@pytest.mark.parametrize("name", sorted(CHECKERS))
def test_mistakes_are_named(name, capsys, monkeypatch):
    found = {}

    def spy(function, cases, truth, mistakes, **kwargs):
        found.update(mistakes=mistakes, cases=cases)
        return True

    with monkeypatch.context() as patched:
        patched.setattr(exercises_scale, "check", spy)
        CHECKERS[name](None)
    assert found["mistakes"]
    for words, wrong in found["mistakes"].items():
        assert not CHECKERS[name](wrong), words
        said = capsys.readouterr().out
        assert said.startswith("✗ ") and words in said, said


def test_nothing_and_nonsense_are_one_line(capsys):
    for checker in CHECKERS.values():
        for function in (None, lambda *a: ..., lambda *a: 1 / 0):
            assert not checker(function)
            out = capsys.readouterr().out
            assert out.count("\n") == 1 and "Traceback" not in out
