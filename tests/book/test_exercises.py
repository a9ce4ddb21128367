"""The exercise checkers: right answers pass, each typical wrong answer is named, and nothing a reader writes raises."""

from __future__ import annotations

import math
import re
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from checkers import base_model, grpo, isft, tasks
from checkers import check as exercises
from checkers.check import check
from tests.mistakes import as_function

CHECKERS = {
    name: f
    for module in (tasks, base_model, grpo, isft)
    for name, f in vars(module).items()
    if name.startswith("check_")
}


def verdict_of(capsys, checker, *args, **kwargs) -> tuple[bool, str]:
    """What a checker returned, and the one line that it printed."""
    ok = checker(*args, **kwargs)
    out, err = capsys.readouterr()
    assert out.endswith("\n") and out.count("\n") == 1 and err == "" and type(ok) is bool
    assert out.startswith("✓ " if ok else "✗ ") and len(out) < 420
    return ok, out.strip()


# --- right answers, written as a reader might ------------------------------------------------------------------------


def uses_numbers(answer, nums):
    spaced = "".join(c if c.isdigit() else " " for c in answer)
    left = list(nums)
    for n in map(int, spaced.split()):
        if n not in left:
            return False
        left.remove(n)
    return left == []


def key_sorting_in_place(nums, target):
    nums.sort()
    return f"{nums}={target}"


def pass_at_k(n, c, k):
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def pass_at_k_by_product(n, c, k):
    return 1.0 if n - c < k else 1 - float(np.prod([1 - k / i for i in range(n - c + 1, n + 1)]))


def zscore(rewards, group_size):
    groups = rewards.reshape(-1, group_size)
    return ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-6)).flatten()


def zscore_in_numpy(rewards, group_size):
    groups = rewards.numpy().reshape(-1, group_size)
    return ((groups - groups.mean(1, keepdims=True)) / (groups.std(1, ddof=1, keepdims=True) + 1e-4)).ravel()


def grpo_loss(ratio, advantages, mask):
    total = torch.tensor(0.0, requires_grad=True)
    for i in range(len(ratio)):
        total = total + (ratio[i][mask[i]] * advantages[i]).mean()
    return -total / len(ratio)


def weights(advantages, mask):
    out = torch.zeros(mask.shape)
    for i, row in enumerate(mask):
        out[i, row] = advantages[i] / row.sum() / len(mask)
    return out


def clip(ratio, advantage, eps):
    up = torch.where(ratio > 1 + eps, torch.tensor(1 + eps), ratio) * advantage
    down = torch.where(ratio < 1 - eps, torch.tensor(1 - eps), ratio) * advantage
    return torch.where(advantage > 0, up, down)


def balanced(correct):
    n = {side: correct.count(side) for side in (True, False)}
    if 0 in n.values():
        return np.zeros(len(correct))
    return np.array([(1 if c else -1) / n[c] for c in correct])


def signed_ce(logits, labels, signs):
    return sum(s * F.cross_entropy(x, y, ignore_index=-100) for x, y, s in zip(logits, labels, signs, strict=True))


RIGHT = [
    ("check_grader", uses_numbers),
    ("check_leak", lambda nums, target: (tuple(sorted(nums)), target)),
    ("check_leak", key_sorting_in_place),
    ("check_leak", lambda nums, target: [sorted(nums), target]),
    ("check_pass_at_k", pass_at_k),
    ("check_pass_at_k", pass_at_k_by_product),
    ("check_perplexity", lambda lp: torch.exp(-torch.tensor(lp).double().mean())),
    ("check_perplexity", lambda lp: np.prod(np.exp(lp)) ** (-1 / len(lp))),
    ("check_advantages", zscore),
    ("check_advantages", zscore_in_numpy),
    ("check_grpo_loss", grpo_loss),
    ("check_weights", weights),
    ("check_clip", clip),
    ("check_balanced_weights", balanced),
    ("check_signed_ce", signed_ce),
]


@pytest.mark.parametrize(("checker", "function"), RIGHT)
def test_right_answers_pass(capsys, checker, function):
    ok, line = verdict_of(capsys, CHECKERS[checker], function)
    assert ok and "right on" in line, line


def test_every_checker_has_a_right_answer_here():
    assert {name for name, _ in RIGHT} == set(CHECKERS)


# --- wrong answers, written as a reader might ------------------------------------------------------------------------


def no_eps(rewards, group_size):
    g = rewards.view(-1, group_size)
    return ((g - g.mean(1, keepdim=True)) / g.std(1, keepdim=True)).view(-1)


def np_std(rewards, group_size):
    g = rewards.numpy().reshape(-1, group_size)
    return ((g - g.mean(1, keepdims=True)) / (g.std(1, keepdims=True) + 1e-4)).ravel()


def ungrouped(rewards, group_size):
    return (rewards - rewards.mean()) / (rewards.std() + 1e-8)


def signed(correct):
    return [1 if c else -1 for c in correct]


def summed_ce(logits, labels, signs):
    return (signs[:, None] * F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")).sum()


WRONG = [
    ("check_grader", lambda a, n: all(int(t) in n for t in re.split(r"\D+", a) if t), "not that everything was"),
    ("check_grader", lambda a, n: all(str(k) in a for k in n), "there is a 2 in 12"),
    ("check_grader", lambda a, n: True, "the same value for every input, True"),
    ("check_leak", lambda n, t: hash((tuple(n), t)), "keeps the order"),
    ("check_leak", lambda n, t: (frozenset(n), t), "how often"),
    ("check_leak", lambda n, t: tuple(sorted(n)), "leaves out the target"),
    ("check_pass_at_k", lambda n, c, k: 1 - (1 - c / n) ** k, "with replacement"),
    ("check_pass_at_k", lambda n, c, k: c / n, "pass@1"),
    ("check_perplexity", lambda lp: math.exp(sum(lp) / len(lp)), "minus is missing"),
    ("check_perplexity", lambda lp: np.exp(-np.array(lp)).mean(), "mean of 1/p"),
    ("check_advantages", np_std, "the population std"),
    ("check_advantages", no_eps, "0/0"),
    ("check_advantages", ungrouped, "within each group"),
    ("check_advantages", lambda r, g: r - r.view(-1, g).mean(1).repeat_interleave(g), "no division by the std"),
    ("check_advantages", lambda r, g: r.view(-1, g), "shape (3, 4) where (12,) is expected"),
    ("check_grpo_loss", lambda r, a, m: -(r * a[:, None])[m].mean(), "one mean over all tokens"),
    ("check_grpo_loss", lambda r, a, m: -grpo_loss(r, a, m), "the sign is the wrong way round"),
    ("check_grpo_loss", lambda r, a, m: grpo_loss(r, a, m) / 2, "half the expected value: a factor of 1/2?"),
    ("check_grpo_loss", lambda r, a, m: grpo_loss(r, a, m) + 0.5, "off by +0.5 everywhere"),
    ("check_weights", lambda a, m: a[:, None] * m / m.sum(1, keepdim=True), "without 1/N"),
    ("check_weights", lambda a, m: a[:, None] * m / m.sum(), "the token mean"),
    ("check_weights", lambda a, m: -weights(a, m), "the sign is the wrong way round"),
    ("check_clip", lambda r, a, e: r * a, "it never clips"),
    ("check_clip", lambda r, a, e: torch.max(r * a, torch.clip(r, 1 - e, 1 + e) * a), "max where min"),
    ("check_clip", lambda r, a, e: torch.clip(r, 1 - e, 1 + e) * a, "no min"),
    ("check_clip", lambda r, a, e: torch.min(r, torch.clip(r, 1 - e, 1 + e)) * a, "on the wrong side"),
    ("check_balanced_weights", signed, "±1 for every response"),
    ("check_balanced_weights", lambda c: [(1 if x else -1) / c.count(x) for x in c], "not mixed: weight 0"),
    ("check_balanced_weights", lambda c: [s / len(c) for s in signed(c)], "±1/G"),
    ("check_balanced_weights", lambda c: -balanced(c), "the sign is the wrong way round"),
    ("check_signed_ce", lambda x, y, s: signed_ce(x, y, torch.ones(len(s))), "the signs are not used"),
    ("check_signed_ce", lambda x, y, s: -signed_ce(x, y, s), "the sign is the wrong way round"),
    ("check_signed_ce", lambda x, y, s: signed_ce(x, y, s) / len(s), "a mean over the rows"),
    ("check_signed_ce", summed_ce, "a sum over the tokens"),
    ("check_signed_ce", lambda x, y, s: F.cross_entropy(x.transpose(1, 2), y.clamp_min(0)), None),
]  # fmt: skip


@pytest.mark.parametrize(("checker", "function", "words"), WRONG)
def test_typical_wrong_answers_are_named(capsys, checker, function, words):
    ok, line = verdict_of(capsys, CHECKERS[checker], function)
    assert not ok and " gives " in line and ", expected " in line
    assert words in line.partition("; likely: ")[2] if words else "; likely: " not in line, line


def arguments_of(checker, monkeypatch) -> dict:
    """The cases, the expected values and the mistakes that a checker hands to `check`."""

    def catch(function, cases, expected, mistakes=None, tolerance=1e-6, name=None):
        arguments.update(cases=cases, expected=expected, mistakes=mistakes, tolerance=tolerance, name=name)
        return True

    arguments: dict = {}
    with monkeypatch.context() as patch:
        patch.setattr(exercises, "check", catch)
        patch.setattr(sys.modules[checker.__module__], "check", catch, raising=False)
        checker(lambda *_: None)
    return arguments


@pytest.mark.parametrize("checker", CHECKERS)
def test_every_mistake_is_wrong_and_no_two_are_alike(capsys, monkeypatch, checker):
    """A mistake that gives the right values would fail right answers; one that another hides would never be named."""
    args = arguments_of(CHECKERS[checker], monkeypatch)
    assert len(args["mistakes"]) >= 2 and args["name"]
    for words, wrong in args["mistakes"].items():
        ok, line = verdict_of(capsys, check, as_function(wrong), **args)
        assert not ok and line.endswith(f"; likely: {words}")


# --- the one mechanism -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checker", CHECKERS)
def test_unsolved_and_broken_exercises_are_one_line(capsys, checker):
    def unsolved(*args): ...

    def to_do(*args):
        raise NotImplementedError

    def raises(*args):
        raise ValueError("two\nlines   and <b>more</b>" + "x" * 500)

    def recurses(*args):
        return recurses(*args)

    def wrong_number_of_arguments():
        return 1

    for function in (unsolved, to_do):
        assert verdict_of(capsys, CHECKERS[checker], function)[1].endswith(": returned nothing yet")
    assert "raises ValueError: two lines and <b>more</b>" in verdict_of(capsys, CHECKERS[checker], raises)[1]
    assert "raises RecursionError" in verdict_of(capsys, CHECKERS[checker], recurses)[1]
    assert "raises TypeError" in verdict_of(capsys, CHECKERS[checker], wrong_number_of_arguments)[1]


@pytest.mark.parametrize("checker", sorted(set(CHECKERS) - {"check_leak"}))
@pytest.mark.parametrize(
    "value",
    ["text", b"x", "1", {}, {1}, [], [[1], [1, 2]], [None], object(), lambda: 1, ..., "a\nb" * 500]
    + [float("nan"), float("inf"), 10**400, 1j, -1e300]
    + [np.zeros((2, 2)), np.array(["a"]), torch.zeros(0), torch.ones(1, requires_grad=True)],
    ids=lambda v: type(v).__name__,
)  # fmt: skip
def test_whatever_comes_back_is_one_line(capsys, checker, value):
    assert not verdict_of(capsys, CHECKERS[checker], lambda *_: value)[0]


@pytest.mark.parametrize("value", [None, 3, ..., "f", [1, 2]])
def test_what_is_no_function(capsys, value):
    assert verdict_of(capsys, check, value, [(1,)], [1])[1].startswith("✗ exercise: a function is needed, this is ")
    assert not verdict_of(capsys, base_model.check_pass_at_k, value)[0]


def test_the_name_comes_from_the_function(capsys):
    def double(x):
        return 2 * x

    assert verdict_of(capsys, check, double, [(1,), (2,)], [2, 4]) == (True, "✓ double: right on 2 inputs")
    assert verdict_of(capsys, check, double, [(1,), (2,)], lambda x: x)[1] == (
        "✗ double: for (1) gives 2, expected 1; likely: 2 times the expected value everywhere: a factor?"
    )
    assert verdict_of(capsys, check, double, [(1,)], [2], name="other")[1].startswith("✓ other: ")


@pytest.mark.parametrize(
    ("function", "guess"),
    [
        (lambda x: x / 2, "half the expected value: a factor of 1/2?"),
        (lambda x: -x, "the sign is the wrong way round"),
        (lambda x: 3 * x, "3 times the expected value everywhere: a factor?"),
        (lambda x: x + 1.5, "off by +1.5 everywhere: a constant?"),
        (lambda x: x - 1.5, "off by -1.5 everywhere: a constant?"),
        (lambda x: 7.0, "the same value for every input, 7"),
        (lambda x: float("nan"), "nan or infinity: a division by zero, or the log of 0?"),
        (lambda x: [x, x], "shape (2,) where () is expected"),
        (lambda x: x**2 + 3, ""),
    ],
)
def test_guesses_from_the_numbers_alone(capsys, function, guess):
    ok, line = verdict_of(capsys, check, function, [(1.0,), (2.0,), (4.0,)], lambda x: x)
    assert not ok and line.partition("; likely: ")[2] == guess


def test_a_named_mistake_comes_before_a_guess(capsys):
    args = [(1.0,), (2.0,)], lambda x: x, {"it doubles": lambda x: 2 * x}
    assert verdict_of(capsys, check, lambda x: 2 * x, *args)[1].endswith("; likely: it doubles")


def test_values_of_every_kind_compare(capsys):
    kinds = [1, 1.0, True, np.float32(1), np.array(1), np.array([1]), torch.tensor(1.0), torch.tensor([1]), [1]]
    for got in kinds:
        for wanted in kinds:
            assert verdict_of(capsys, check, lambda got=got: got, [()], [wanted])[0]
    rows = [[[1, 2], [3, 4]], ((1, 2), (3, 4)), np.array([[1, 2], [3, 4]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]])]
    rows += [[torch.tensor([1, 2]), torch.tensor([3, 4], requires_grad=False)], [np.array([1, 2]), (3, 4)]]
    for got in rows:
        for wanted in rows:
            assert verdict_of(capsys, check, lambda got=got: got, [()], [wanted])[0]
        assert not verdict_of(capsys, check, lambda got=got: got, [()], [[1, 2, 3, 4]])[0]


def test_values_that_are_no_numbers_compare_as_they_are(capsys):
    for value in ("text", {"a": 1}, {1, 2}, ["a", "b"], None):
        assert verdict_of(capsys, check, lambda value=value: value, [(), ()], [value, value])[0] == (value is not None)
        assert not verdict_of(capsys, check, lambda: np.array([1, 2]), [()], [value])[0]
        assert not verdict_of(capsys, check, lambda: "other", [()], [value])[0]


def test_a_value_missing_for_one_input_is_not_nothing_yet(capsys):
    line = verdict_of(capsys, check, lambda x: x if x > 1 else None, [(1,), (2,)], [1, 2])[1]
    assert "for (1) gives None, expected 1" in line


def test_a_function_that_changes_its_input_spoils_nothing(capsys):
    def sorts(nums):
        nums.sort()
        return nums[0]

    cases = [([3, 1, 2],)]
    for _ in range(2):
        assert verdict_of(capsys, check, sorts, cases, min)[0]
    assert cases == [([3, 1, 2],)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=5))
def test_the_tolerance(values):
    assert exercises._judge(lambda x: x * (1 + 1e-8) + 1e-8, [(v,) for v in values], values, {}, 1e-6)[0]
    assert not exercises._judge(
        lambda x: x * 1.01 + 0.01 * (x >= 0), [(abs(v),) for v in values], [abs(v) for v in values], {}, 1e-6
    )[0]
