"""Checkers for the exercises: each takes the reader's function, compares, and names the likely mistake.

A checker prints one line, `✓ …` or `✗ …; likely: …`, and returns whether the function was right. It never raises on the
function's account, so that a chapter runs from top to bottom with its exercises unsolved.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rlino_lib.evaluate import pass_at_k
from rlino_lib.objectives import advantages

# --- one mechanism ---------------------------------------------------------------------------------------------------


def check(
    function: Callable,
    cases: Sequence[tuple],
    expected: Callable | Sequence,
    mistakes: Mapping[str, Callable] | None = None,
    tolerance: float = 1e-6,
    name: str | None = None,
) -> bool:
    """Compare `function(*case)` with what is expected on every case, print one line, return whether all agree.

    `expected` is a right function, or the values in the order of the cases: numbers, lists, arrays or tensors (shapes
    must agree, and values within `tolerance`, absolute or relative), else anything that `==` compares. `mistakes` maps
    words to a wrong function: the first whose results are the reader's is named as the likely mistake.
    """
    ok, verdict = _judge(function, cases, expected, mistakes or {}, tolerance)
    print(f"{'✓' if ok else '✗'} {name or getattr(function, '__name__', 'exercise')}: {verdict}")
    return ok


def _judge(function, cases, expected, mistakes, tolerance) -> tuple[bool, str]:
    if not callable(function):
        return False, f"a function is needed, this is {_show(function)}"
    wanted = [expected(*copy.deepcopy(case)) for case in cases] if callable(expected) else list(expected)
    got = []
    for case in cases:
        try:
            got.append(function(*copy.deepcopy(case)))  # a copy: a function that changes its input fools only itself
        except NotImplementedError:
            got.append(None)
        except Exception as e:
            return False, f"for {_show(case)} raises {type(e).__name__}: {_one_line(str(e))}"
    if all(g is None for g in got):
        return False, "returned nothing yet"
    agree = [_same(g, w, tolerance) for g, w in zip(got, wanted, strict=True)]
    if all(agree):
        return True, f"right on {len(cases)} inputs"
    named = (
        words
        for words, wrong in mistakes.items()
        if all(_same(g, wrong(*copy.deepcopy(c)), tolerance) for g, c in zip(got, cases, strict=True))
    )
    likely = next(named, None) or _guess(got, wanted, tolerance)
    k = agree.index(False)
    verdict = f"for {_show(cases[k])} gives {_show(got[k])}, expected {_show(wanted[k])}"
    return False, verdict + (f"; likely: {likely}" if likely else "")


def _array(value: Any) -> np.ndarray | None:
    """Numbers, however nested, as a float array; None for anything else."""

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.detach().cpu().double().numpy()
        if value is None or isinstance(value, (str, bytes)):  # NumPy would read None as nan and "1" as 1.0
            raise TypeError("not a number")
        return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value

    try:
        return np.asarray(plain(value), dtype=float)
    except Exception:  # whatever a reader's function may return
        return None


def _same(got: Any, wanted: Any, tolerance: float) -> bool:
    a, w = _array(got), _array(wanted)
    if w is None:
        return a is None and isinstance(got, type(wanted)) and bool(got == wanted)
    if a is None or not _fits(a, w):
        return False
    return bool(np.allclose(a.ravel(), w.ravel(), rtol=tolerance, atol=tolerance, equal_nan=True))


def _fits(a: np.ndarray, w: np.ndarray) -> bool:
    return a.shape == w.shape or a.size == w.size == 1


def _guess(got: list, wanted: list, tolerance: float) -> str | None:
    """A likely mistake from the numbers alone: the shape, a nan, one value for all, a factor or an offset."""
    pairs = [(_array(g), _array(w)) for g, w in zip(got, wanted, strict=True)]
    if any(a is None or w is None for a, w in pairs):
        return None
    for a, w in pairs:
        if not _fits(a, w):
            return f"shape {a.shape} where {w.shape} is expected"
    a, w = (np.concatenate([x.ravel() for x in side]) for side in zip(*pairs, strict=True))
    if not np.isfinite(a).all():
        return "nan or infinity: a division by zero, or the log of 0?"
    if np.ptp(a) == 0 and np.ptp(w) > 0:
        return f"the same value for every input, {_show(got[0])}"
    if set(w) <= {0, 1} or np.ptp(w) == 0:  # too little to tell a factor from chance
        return None
    factor, offset, close = a @ w / (w @ w), np.mean(a - w), tolerance * np.abs(a).max()
    if np.allclose(a, factor * w, rtol=0, atol=close):
        known = {-1.0: "the sign is the wrong way round", 0.5: "half the expected value: a factor of 1/2?"}
        return known.get(round(factor, 3), f"{factor:.4g} times the expected value everywhere: a factor?")
    return f"off by {offset:+.4g} everywhere: a constant?" if np.allclose(a, w + offset, rtol=0, atol=close) else None


def _one_line(text: str, width: int = 90) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"


def _show(value: Any) -> str:
    """A value in one short line, floats to four digits."""

    def full(value: Any) -> str:
        value = value.tolist() if isinstance(value, (Tensor, np.ndarray, np.generic)) else value
        if isinstance(value, (list, tuple)):
            inner = ", ".join(map(full, value))
            return f"[{inner}]" if isinstance(value, list) else f"({inner})"
        return f"{value:.4g}" if isinstance(value, float) else repr(value)

    return _one_line(full(value))


# --- chapter 02: tasks with verifiers --------------------------------------------------------------------------------


def check_grader(uses_numbers: Callable[[str, list[int]], bool]) -> bool:
    """`uses_numbers(answer, nums)`: does the answer use each given number exactly once? (Its value is not asked.)"""

    def used(answer: str) -> list[int]:
        return [int(n) for n in re.findall(r"[0-9]+", answer)]

    cases = [(a, [8, 2, 4]) for a in ("( 8 * 4 ) * 2", "(8*4)*2", "8 * 4", "8 * 8 * 4 * 2", "8 * 4 * 2 + 3")]
    cases += [("3 + 3 + 5", [3, 5, 3]), ("3 + 5", [3, 5, 3]), ("3 + 5 + 5", [3, 5, 3])]
    cases += [("19 + 3", [1, 9, 3]), ("12", [1, 2]), ("12 - 1", [1, 12])]
    mistakes = {
        "it compares sets, so that a number used twice passes": lambda a, n: set(used(a)) == set(n),
        "it asks that nothing else was used, not that everything was": lambda a, n: set(used(a)) <= set(n),
        "it asks that everything was used, not that nothing else was": lambda a, n: set(used(a)) >= set(n),
        "it compares in the order written: sort both": lambda a, n: used(a) == n,
        "it reads digits, not numbers": lambda a, n: sorted(re.findall(r"\d", a)) == sorted(re.findall(r"\d", str(n))),
        "it looks for a number as text: there is a 2 in 12": lambda a, n: all(str(k) in a for k in n),
        "it cuts at spaces: `8*4` has none": lambda a, n: sorted(map(int, filter(str.isdigit, a.split()))) == sorted(n),
    }
    return check(uses_numbers, cases, lambda a, n: sorted(used(a)) == sorted(n), mistakes, name="uses_numbers")


def check_leak(key: Callable[[list[int], int], Any]) -> bool:
    """`key(nums, target)`: equal for one problem with its numbers in another order, different for other problems."""

    def compares(key: Callable) -> Callable:
        def same_key(one: tuple, other: tuple) -> bool | None:
            a, b = key(*one), key(*other)
            return None if a is None and b is None else bool(a == b)

        return same_key

    first = ([8, 2, 4], 64)
    cases = [(first, ([2, 4, 8], 64)), (first, ([4, 8, 2], 64)), (first, ([8, 2, 4], 10))]
    cases += [(([10, 9], 19), ([9, 10], 19)), (([2, 2, 4], 16), ([2, 4, 4], 16)), (([3, 8], 24), ([4, 6], 24))]
    cases += [(([1, 12], 13), ([11, 2], 13)), (([1, 12], 13), ([1, 1, 2], 13))]
    mistakes = {
        "it keeps the order of the numbers": compares(lambda n, t: (tuple(n), t)),
        "it leaves out the target": compares(lambda n, t: sorted(n)),
        "a set forgets how often a number is given": compares(lambda n, t: (set(n), t)),
        "the product is the same for different numbers": compares(lambda n, t: (math.prod(n), t)),
        "digits run together: 1 and 12 look like 1, 1 and 2": compares(lambda n, t: ("".join(map(str, sorted(n))), t)),
    }
    return check(compares(key), cases, compares(lambda n, t: (sorted(n), t)), mistakes, name="key(one) == key(other)")


def check_reward(reward: Callable[[bool, bool], float]) -> bool:
    """`reward(correct, has_answer)`: 1 for a right answer, 0.1 for a wrong one, 0 for none."""
    mistakes = {
        "a wrong answer earns nothing: that is the binary reward": lambda c, a: float(c),
        "0.1 comes on top of the 1": lambda c, a: c + 0.1 * a,
        "no answer at all earns 0.1 too": lambda c, a: 1.0 if c else 0.1,
        "it asks for an answer before it asks for a right one": lambda c, a: 0.1 if a else 0.0,
    }
    return check(reward, [(True, True), (False, True), (False, False)], [1.0, 0.1, 0.0], mistakes, name="reward")


# --- chapter 03: a base model to train -------------------------------------------------------------------------------


def check_pass_at_k(estimate: Callable[[int, int, int], float]) -> bool:
    """`estimate(n, c, k)`: the unbiased estimate of pass@k from n samples of which c are right."""
    cases = [(10, 3, 1), (10, 3, 2), (10, 0, 5), (10, 10, 1), (10, 8, 5), (5, 2, 3), (128, 4, 64)]
    mistakes = {
        "1 − (1 − c/n)^k draws with replacement, and is biased low": lambda n, c, k: 1 - (1 - c / n) ** k,
        "that is pass@1, whatever k is": lambda n, c, k: c / n,
        "that is the chance that all k are right": lambda n, c, k: math.comb(c, k) / math.comb(n, k),
        "that is the chance that none of the k is right": lambda n, c, k: math.comb(n - c, k) / math.comb(n, k),
        "k · c/n counts right samples, not the chance of one": lambda n, c, k: k * c / n,
    }
    return check(estimate, cases, pass_at_k, mistakes, name="pass_at_k")


_LOGPROBS = torch.tensor([[-0.5, -1.0, -3.0, -9.0], [-0.25, -2.0, -9.0, -9.0], [-1.0, -0.1, -0.4, -0.7]])  # [N, T]
_MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]]).bool()  # [N, T]


def check_mean_logprob(mean_logprob: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """`mean_logprob(logprobs, mask)`, both [N, T]: the mean over each response's own tokens, [N]."""
    mistakes = {
        "it divides by T, padding included": lambda lp, m: (lp * m).mean(1),
        "a sum over the tokens, not their mean": lambda lp, m: (lp * m).sum(1),
    }
    cases = [(_LOGPROBS, _MASK), (_LOGPROBS[:1], _MASK[:1])]
    return check(mean_logprob, cases, lambda lp, m: (lp * m).sum(1) / m.sum(1), mistakes, 1e-5, name="mean_logprob")


def check_perplexity(perplexity: Callable[[list[float]], float]) -> bool:
    """`perplexity(logprobs)`: exp of minus the mean log-probability (nats) of one response's tokens."""
    cases = [([-0.5, -1.0, -3.0],), ([-2.0],), ([0.0, 0.0],), ([-0.1, -0.2, -0.3, -0.4],)]
    mistakes = {
        "minus is missing: that is 1/perplexity": lambda lp: math.exp(np.mean(lp)),
        "a sum over the tokens, not their mean": lambda lp: math.exp(-sum(lp)),
        "the mean of 1/p: take the mean before exp": lambda lp: np.mean(np.exp(-np.array(lp))),
        "exp is missing: that is the mean surprise": lambda lp: -np.mean(lp),
    }
    return check(perplexity, cases, lambda lp: math.exp(-np.mean(lp)), mistakes, name="perplexity")


# --- chapter 04: GRPO ------------------------------------------------------------------------------------------------


def check_advantages(function: Callable[[Tensor, int], Tensor]) -> bool:
    """`function(rewards, group_size)`: (r − mean)/(sample std + 1e-4) within each group, [N]. Any small eps will do."""

    def rule(of_group: Callable[[Tensor], Tensor]) -> Callable:
        return lambda rewards, group_size: torch.cat([of_group(g) for g in rewards.split(group_size)])

    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    cases = [(rewards, 4), (rewards, 6), (rewards[:8], 8), (rewards[:4], 2)]
    mistakes = {
        "the population std, not the sample std": rule(lambda g: (g - g.mean()) / (g.std(correction=0) + 1e-4)),
        "the batch is one group: take mean and std within each group": lambda r, g: (r - r.mean()) / (r.std() + 1e-4),
        "no division by the std": rule(lambda g: g - g.mean()),
        "it divides by the variance, not by the std": rule(lambda g: (g - g.mean()) / (g.var() + 1e-4)),
        "the mean is not taken off": rule(lambda g: g / (g.std() + 1e-4)),
        "0/0 in a group whose rewards are all equal: add a little to the std": rule(lambda g: (g - g.mean()) / g.std()),
    }
    return check(function, cases, advantages, mistakes, tolerance=2e-3, name="advantages")


_RATIO = torch.tensor([[1.0, 1.2, 0.9, 9.0], [1.4, 0.8, 9.0, 9.0], [0.7, 1.0, 1.3, 1.1]])  # [N, T], 9 where masked
_ADVANTAGE = torch.tensor([1.2, -0.6, -0.5])  # [N]
_CASES = [(_RATIO, _ADVANTAGE, _MASK), (_RATIO[:2], _ADVANTAGE[:2], _MASK[:2])]


def check_grpo_loss(grpo_loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> bool:
    """`grpo_loss(ratio, advantages, mask)`, [N, T], [N], [N, T]: −1/N Σ_i 1/|o_i| Σ_t ρ_it Â_i, no clip, no KL."""

    def gains(r: Tensor, a: Tensor, m: Tensor) -> Tensor:
        return r * a[:, None] * m  # [N, T]

    def right(r: Tensor, a: Tensor, m: Tensor) -> Tensor:
        return -(gains(r, a, m).sum(1) / m.sum(1)).mean()

    mistakes = {
        "one mean over all tokens: average each response first": lambda r, a, m: -gains(r, a, m).sum() / m.sum(),
        "it divides by T, padding included": lambda r, a, m: -gains(r, a, m).mean(),
        "padding is summed too: use the mask": lambda r, a, m: -(gains(r, a, m | True).sum(1) / m.sum(1)).mean(),
        "a sum over each response's tokens, without 1/|o_i|": lambda r, a, m: -gains(r, a, m).sum(1).mean(),
        "a sum over responses, without 1/N": lambda r, a, m: right(r, a, m) * len(r),
    }
    return check(grpo_loss, _CASES, right, mistakes, 1e-5, name="grpo_loss")


def check_weights(weights: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """`weights(advantages, mask)`, [N] and [N, T]: the weight Â_i/(|o_i| N) of every token, 0 on padding, [N, T]."""

    def right(a: Tensor, m: Tensor) -> Tensor:
        return a[:, None] * m / m.sum(1, keepdim=True) / len(a)

    mistakes = {
        "without 1/N": lambda a, m: right(a, m) * len(a),
        "without 1/|o_i|": lambda a, m: a[:, None] * m / len(a),
        "it divides by all tokens of the batch: that is the token mean": lambda a, m: a[:, None] * m / m.sum(),
        "it divides by T, padding included": lambda a, m: a[:, None] * m / m.numel(),
        "padding has weight": lambda a, m: (a / m.sum(1) / len(a))[:, None].expand(m.shape),
    }
    return check(weights, [case[1:] for case in _CASES], right, mistakes, 1e-5, name="weights")


def check_kl_k3(k3: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """`k3(logprobs, ref_logprobs)`: exp(ref − new) − (ref − new) − 1 of every token, in the shape that came in."""
    new = torch.tensor([[-0.5, -1.0, -3.0], [-0.2, -2.0, -0.7]])
    ref = torch.tensor([[-0.9, -0.4, -3.0], [-1.2, -1.5, -0.6]])
    mistakes = {
        "that is k1, new − ref": lambda n, r: n - r,
        "that is k2, half the square": lambda n, r: (r - n) ** 2 / 2,
        "reversed: the reference comes first, ref − new": lambda n, r: torch.exp(n - r) - (n - r) - 1,
        "the sign of the middle term": lambda n, r: torch.exp(r - n) + (r - n) - 1,
    }
    cases = [(new, ref), (new[0], ref[0])]
    return check(k3, cases, lambda n, r: torch.exp(r - n) - (r - n) - 1, mistakes, 1e-5, name="k3")


def check_clip(clipped: Callable[[Tensor, Tensor, float], Tensor]) -> bool:
    """`clipped(ratio, advantage, eps)`, tensors of one shape: min(ρÂ, clip(ρ, 1 − ε, 1 + ε)Â) of every element."""

    def right(r: Tensor, a: Tensor, e: float) -> Tensor:
        return torch.minimum(r * a, r.clamp(1 - e, 1 + e) * a)

    ratio = torch.tensor([0.5, 0.9, 1.0, 1.15, 1.5, 0.5, 0.9, 1.0, 1.15, 1.5])
    advantage = torch.tensor([1.0] * 5 + [-2.0] * 5)
    mistakes = {
        "max where min was asked": lambda r, a, e: torch.maximum(r * a, r.clamp(1 - e, 1 + e) * a),
        "it never clips": lambda r, a, e: r * a,
        "no min with ρÂ: steps back into the band lose their gradient": lambda r, a, e: r.clamp(1 - e, 1 + e) * a,
        "for Â < 0 it clips on the wrong side: multiply by Â before the min": lambda r, a, e: r.clamp(max=1 + e) * a,
        "it clips ρÂ, not ρ": lambda r, a, e: torch.minimum(r * a, (r * a).clamp(1 - e, 1 + e)),
    }
    return check(clipped, [(ratio, advantage, 0.2), (ratio, advantage, 0.1)], right, mistakes, 1e-5, name="clip")


# --- chapter 05: filtered iterative SFT ------------------------------------------------------------------------------


def check_balanced_weights(balanced: Callable[[list[bool]], list[float]]) -> bool:
    """`balanced(correct)` for one group: signed weights, each side sums to ±1; all 0 unless the group is mixed."""

    def right(correct: list[bool]) -> list[float]:
        k, wrong = sum(correct), len(correct) - sum(correct)
        return [(1 / k if c else -1 / wrong) if k and wrong else 0.0 for c in correct]

    cases = [([True, False, False, False],), ([True, True, False, True, False],), ([True] * 3,), ([False] * 4,)]
    mistakes = {
        "±1 for every response: each side must sum to ±1": lambda c: [1 if x else -1 for x in c],
        "a group that is not mixed: weight 0": lambda c: [1 / sum(c) if x else -1 / (len(c) - sum(c)) for x in c],
        "±1/G, and in groups that are not mixed too": lambda c: [(1 if x else -1) / len(c) for x in c],
        "±1/G: divide by the size of the side": lambda c: [(1 if x else -1) / len(c) * any(right(c)) for x in c],
        "±1 in mixed groups: each side must sum to ±1": lambda c: [(1 if x else -1) * any(right(c)) for x in c],
        "wrong responses have a positive weight: they are to become less likely": lambda c: [abs(w) for w in right(c)],
    }
    return check(balanced, cases, right, mistakes, name="balanced_weights")


def check_signed_ce(signed_ce: Callable[[Tensor, Tensor, Tensor], Tensor]) -> bool:
    """`signed_ce(logits, labels, signs)`, [B, L, V], [B, L] and [B]: Σ_i sign_i · (mean cross-entropy of row i).

    The logits at a place already belong to the label at that place; labels of −100 count nowhere.
    """

    def total(logits, labels, signs, reduce: Callable) -> Tensor:
        ce = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")  # [B, L], 0 at −100
        return (signs * reduce(ce, labels != -100)).sum()

    def mean(ce: Tensor, keep: Tensor) -> Tensor:
        return ce.sum(1) / keep.sum(1)

    logits = torch.sin(torch.arange(40.0)).reshape(2, 4, 5) * 2
    labels = torch.tensor([[-100, 1, 4, 2], [-100, 3, 0, -100]])
    cases = [(logits, labels, torch.tensor([1.0, -1.0])), (logits, labels, torch.tensor([1.0, 1.0]))]
    cases += [(logits[:1], labels[:1], torch.tensor([-1.0]))]
    mistakes = {
        "the signs are not used": lambda x, y, s: total(x, y, torch.ones_like(s), mean),
        "labels of −100 count in the mean": lambda x, y, s: total(x, y, s, lambda ce, keep: ce.mean(1)),
        "a sum over the tokens of a row, not their mean": lambda x, y, s: total(x, y, s, lambda ce, keep: ce.sum(1)),
        "one mean over all tokens": lambda x, y, s: total(x, y, s, lambda ce, keep: ce.sum(1) / keep.sum()),
        "a mean over the rows, not their sum": lambda x, y, s: total(x, y, s, mean) / len(s),
        "the labels are shifted once more": lambda x, y, s: total(x[:, :-1], y[:, 1:], s, mean),
    }
    return check(signed_ce, cases, lambda x, y, s: total(x, y, s, mean), mistakes, 1e-5, name="signed_ce")


def check_collapse_condition(total_push: Callable[[int, int, str], float]) -> bool:
    """`total_push(n_right, n_wrong, rule)`: the sum of a group's weights under "unit" (±1) or "group_balanced".

    Below 0 the group pushes the likelihood of what was sampled down in total, and training may collapse.
    """
    cases = [(n, 8 - n, rule) for rule in ("unit", "group_balanced") for n in (0, 1, 4, 7, 8)]
    mistakes = {
        "unit weights under both rules": lambda k, w, rule: k - w,
        "the mean weight, not the sum": lambda k, w, rule: (k - w) / (k + w) if rule == "unit" else 0,
        "wrong responses count too, with a minus": lambda k, w, rule: k if rule == "unit" else 0,
        "unmixed groups have balanced weights of 0": lambda k, w, rule: k - w if rule == "unit" else (k > 0) - (w > 0),
    }
    return check(total_push, cases, [-8, -6, 0, 6, 8] + [0] * 5, mistakes, name="total_push")
