"""Chapter 06's checkers: right answers pass, and each typical wrong answer is named."""

from __future__ import annotations

import math
import re

import pytest
import torch

from checkers import gradient as exercises_gradient
from rlino_lib.methods.advantages import advantages

CHECKERS = {name: f for name, f in vars(exercises_gradient).items() if name.startswith("check_")}
F64 = torch.float64


def verdict_of(capsys, checker, function) -> tuple[bool, str]:
    """What a checker returned, and the one line that it printed."""
    ok = checker(function)
    out, err = capsys.readouterr()
    assert out.endswith("\n") and out.count("\n") == 1 and err == "" and type(ok) is bool
    assert out.startswith("✓ " if ok else "✗ ") and len(out) < 420
    return ok, out.strip()


# --- right answers, from the library rather than from formulas -------------------------------------------------------


def group(k, G, low=0.0, high=1.0):
    return torch.tensor([high] * k + [low] * (G - k), dtype=F64)


def pull(k, G):
    return float(advantages(group(k, G), G, eps=0.0)[:k].sum() / G)


def stale_weight(ratio, advantage, eps):
    log_ratio = ratio.log().requires_grad_()
    gain = torch.minimum(log_ratio.exp() * advantage, log_ratio.exp().clamp(1 - eps, 1 + eps) * advantage)
    return torch.autograd.grad(gain.sum(), log_ratio)[0]


def kl_weight(d, kind):
    logp = torch.tensor(-1.0, dtype=F64, requires_grad=True)
    gap = (-1.0 + d) - logp
    value = {"k1": -gap, "k2": gap**2 / 2, "k3": gap.exp() - 1 - gap}[kind]
    return torch.autograd.grad(value, logp)[0].item()


RIGHT = {
    "check_group_pull": pull,
    "check_stale_weight": stale_weight,
    "check_kl_weight": kl_weight,
}


def test_every_checker_is_tested():
    assert set(RIGHT) == set(CHECKERS) == {name for name, *_ in WRONG}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_pass(capsys, name):
    assert verdict_of(capsys, CHECKERS[name], RIGHT[name])[0]


# --- wrong answers, each with a word that must be in the verdict -----------------------------------------------------


def root(p):
    return (p * (1 - p)) ** 0.5


def kinds(k1, k2, k3):
    return lambda d, kind: {"k1": k1, "k2": k2, "k3": k3}[kind](d)


WRONG = [
    ("check_group_pull", lambda k, G: root(k / G), "population std"),
    ("check_group_pull", lambda k, G: (G / (G - 1)) ** 0.5 * root(k / G), "wrong way round"),
    ("check_group_pull", lambda k, G: k * (G - k) / G**2, "Dr. GRPO"),
    ("check_group_pull", lambda k, G: pull(k, G) * G, "not yet divided by G"),
    ("check_group_pull", lambda k, G: float(advantages(group(k, G), G, eps=0.0)[0]) if k else 0.0, "k of them"),
    ("check_group_pull", lambda k, G: -pull(k, G), "sign"),
    ("check_stale_weight", lambda r, a, e: a * (stale_weight(r, a, e) != 0), "ρ is missing"),
    ("check_stale_weight", lambda r, a, e: torch.where((r - 1).abs() <= e, r * a, 0), "wrong way"),
    ("check_stale_weight", lambda r, a, e: a * r, "never clips"),
    ("check_stale_weight", lambda r, a, e: torch.minimum(a * r, a * r.clamp(1 - e, 1 + e)), "constant"),
    ("check_stale_weight", lambda r, a, e: a * r.clamp(1 - e, 1 + e), "CISPO"),
    ("check_stale_weight", lambda r, a, e: a * r * (stale_weight(r, -a, e) != 0), "swapped"),
    ("check_stale_weight", lambda r, a, e: a, "likelihood"),
    ("check_kl_weight", lambda d, kind: -kl_weight(d, kind), "by d"),
    ("check_kl_weight", kinds(lambda d: -d, lambda d: d**2 / 2, lambda d: math.exp(d) - d - 1), "themselves"),
    ("check_kl_weight", lambda d, kind: 0 if kind == "k1" else kl_weight(d, kind), "not constant"),
    ("check_kl_weight", kinds(lambda d: 1, lambda d: -d, lambda d: -math.exp(d)), "term"),
    ("check_kl_weight", kinds(lambda d: 1, lambda d: -d, lambda d: -d), "near d = 0"),
    ("check_kl_weight", lambda d, kind: (1 + (kind == "k2")) * kl_weight(d, kind), "half"),
]


@pytest.mark.parametrize("name, function, word", WRONG)
def test_wrong_answers_are_named(capsys, name, function, word):
    ok, line = verdict_of(capsys, CHECKERS[name], function)
    assert not ok and "likely: " in line and re.search(word, line.split("likely: ")[1])


@pytest.mark.parametrize("name", CHECKERS)
@pytest.mark.parametrize("function", [lambda *a: None, lambda *a: 1 / 0, lambda: 1, "text"])
def test_what_is_no_answer_is_said_and_not_raised(capsys, name, function):
    assert not verdict_of(capsys, CHECKERS[name], function)[0]
