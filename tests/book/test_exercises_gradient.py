"""Chapter 06's checkers: right answers pass, and each typical wrong answer is named."""

from __future__ import annotations

import math
import re

import pytest
import torch

from checkers import gradient as exercises_gradient
from rlino_lib.exact.identities import amplification as library_amplification
from rlino_lib.exact.identities import drift_constant
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


def constant(p, G):
    return drift_constant("zscore", G, p, eps=0.0) * math.sqrt(G / (G - 1))


def kl_weight(d, kind):
    logp = torch.tensor(-1.0, dtype=F64, requires_grad=True)
    gap = (-1.0 + d) - logp
    value = {"k1": -gap, "k2": gap**2 / 2, "k3": gap.exp() - 1 - gap}[kind]
    return torch.autograd.grad(value, logp)[0].item()


def format_push(m, G, bonus):
    a = advantages(group(m, G, high=bonus), G, eps=0.0) * math.sqrt(G / (G - 1))
    return a[0].item() if m else 0


def amplification(p, p_ref, beta):
    """One step of the exact iteration over two responses, started from a policy whose chance of success is p."""
    policy, ref = (torch.tensor([x, 1 - x], dtype=F64) for x in (p, p_ref))
    gap = torch.tensor([1.0, 0.0], dtype=F64) - p
    tilted = ref * (gap / (policy @ gap.square()).sqrt() / beta).exp()
    return tilted[0] / tilted.sum()


RIGHT = {
    "check_group_pull": pull,
    "check_stale_weight": stale_weight,
    "check_drift_constant": constant,
    "check_kl_weight": kl_weight,
    "check_format_push": format_push,
    "check_amplification": amplification,
}


def test_every_checker_is_tested():
    assert set(RIGHT) == set(CHECKERS) == {name for name, *_ in WRONG}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_pass(capsys, name):
    assert verdict_of(capsys, CHECKERS[name], RIGHT[name])[0]


def test_amplification_is_the_library_s_recurrence():
    ref = torch.tensor([0.1, 0.9], dtype=F64)
    identity = library_amplification(ref, torch.tensor([True, False]), beta=2.0, eps=0.0, steps=3)
    p = 0.1
    for one, other in zip(identity.left, identity.right, strict=True):
        p = float(amplification(p, 0.1, 2.0))
        assert p == pytest.approx(one.item(), abs=1e-12) == pytest.approx(other.item(), abs=1e-12)


# --- wrong answers, each with a word that must be in the verdict -----------------------------------------------------


def root(p):
    return (p * (1 - p)) ** 0.5


def up(odds, lift):
    odds = odds * math.exp(lift)
    return odds / (1 + odds)


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
    ("check_drift_constant", lambda p, G: drift_constant("zscore", G, p, eps=0.0), "sample std"),
    ("check_drift_constant", lambda p, G: 1 / root(p), "limit"),
    ("check_drift_constant", lambda p, G: constant(p, G) / 2, "half"),
    ("check_drift_constant", lambda p, G: constant(p, G) * p * (1 - p), "p\\(1−p\\)"),
    ("check_drift_constant", lambda p, G: constant(p, G) * G, "divided by G"),
    ("check_drift_constant", lambda p, G: 1 - 1 / G, "without the std"),
    ("check_drift_constant", lambda p, G: (G * (G - 1)) ** 0.5 / (G * root(p)), "root of the mean"),
    (
        "check_drift_constant",
        lambda p, G: sum((k * (G - k)) ** 0.5 for k in range(G)) / (G * p * (1 - p)),
        "binomial",
    ),
    ("check_kl_weight", lambda d, kind: -kl_weight(d, kind), "by d"),
    ("check_kl_weight", kinds(lambda d: -d, lambda d: d**2 / 2, lambda d: math.exp(d) - d - 1), "themselves"),
    ("check_kl_weight", lambda d, kind: 0 if kind == "k1" else kl_weight(d, kind), "not constant"),
    ("check_kl_weight", kinds(lambda d: 1, lambda d: -d, lambda d: -math.exp(d)), "term"),
    ("check_kl_weight", kinds(lambda d: 1, lambda d: -d, lambda d: -d), "near d = 0"),
    ("check_kl_weight", lambda d, kind: (1 + (kind == "k2")) * kl_weight(d, kind), "half"),
    ("check_format_push", lambda m, G, b: 0, "still has contrast"),
    ("check_format_push", lambda m, G, b: b - b * m / G, "not divided"),
    ("check_format_push", lambda m, G, b: b * format_push(m, G, b), "cancels"),
    ("check_format_push", lambda m, G, b: format_push(m, G, b) * ((G - 1) / G) ** 0.5, "sample std"),
    ("check_format_push", lambda m, G, b: -((m / (G - m)) ** 0.5) if m < G else 0, "unformatted"),
    ("check_format_push", lambda m, G, b: (m / (G - m)) ** 0.5 if m < G else 0, "turned over"),
    ("check_amplification", lambda p, ref, b: up(p / (1 - p), 1 / b / root(p)), "holds on"),
    ("check_amplification", lambda p, ref, b: up(ref / (1 - ref), 1 / b / p / (1 - p)), "variance"),
    ("check_amplification", lambda p, ref, b: up(ref / (1 - ref), b / root(p)), "β"),
    ("check_amplification", lambda p, ref, b: up(ref / (1 - ref), -1 / b / root(p)), "sign"),
    ("check_amplification", lambda p, ref, b: ref / (1 - ref) * math.exp(1 / b / root(p)), "odds"),
    ("check_amplification", lambda p, ref, b: up(p / (1 - p), 1 / b / root(ref)), "swapped"),
]


@pytest.mark.parametrize("name, function, word", WRONG)
def test_wrong_answers_are_named(capsys, name, function, word):
    ok, line = verdict_of(capsys, CHECKERS[name], function)
    assert not ok and "likely: " in line and re.search(word, line.split("likely: ")[1])


@pytest.mark.parametrize("name", CHECKERS)
@pytest.mark.parametrize("function", [lambda *a: None, lambda *a: 1 / 0, lambda: 1, "text"])
def test_what_is_no_answer_is_said_and_not_raised(capsys, name, function):
    assert not verdict_of(capsys, CHECKERS[name], function)[0]
