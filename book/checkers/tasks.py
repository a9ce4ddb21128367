"""Checkers of chapter 02's exercises."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from checkers.check import check

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
