"""Checkers of chapter 02's exercises: tasks with verifiers."""

import math
import re
from collections.abc import Callable
from typing import Any

from checkers.check import Solution, check, exercise

_ANSWERS = "( 8 * 4 ) * 2", "(8*4)*2", "8 * 4", "8 * 8 * 4 * 2", "8 * 4 * 2 + 3"
_MORE = ("3 + 3 + 5", [3, 5, 3]), ("3 + 5", [3, 5, 3]), ("3 + 5 + 5", [3, 5, 3]), ("19 + 3", [1, 9, 3])


@exercise("uses_numbers", *((answer, [8, 2, 4]) for answer in _ANSWERS), *_MORE, ("12", [1, 2]), ("12 - 1", [1, 12]))
def check_grader(answer: str, nums: list[int]) -> Solution:
    """`uses_numbers(answer, nums)`: does the answer use each given number exactly once? (Its value is not asked.)"""
    used = [int(n) for n in re.findall(r"[0-9]+", answer)]
    digits = re.findall(r"\d", answer)
    spaced = [int(word) for word in answer.split() if word.isdigit()]
    return sorted(used) == sorted(nums), {
        "it compares sets, so that a number used twice passes": set(used) == set(nums),
        "it asks that nothing else was used, not that everything was": set(used) <= set(nums),
        "it asks that everything was used, not that nothing else was": set(used) >= set(nums),
        "it compares in the order written: sort both": used == nums,
        "it reads digits, not numbers": sorted(digits) == sorted(re.findall(r"\d", str(nums))),
        "it looks for a number as text: there is a 2 in 12": all(str(n) in answer for n in nums),
        "it cuts at spaces: `8*4` has none": sorted(spaced) == sorted(nums),
    }


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
    keys = {
        "it keeps the order of the numbers": lambda n, t: (tuple(n), t),
        "it leaves out the target": lambda n, t: sorted(n),
        "a set forgets how often a number is given": lambda n, t: (set(n), t),
        "the product is the same for different numbers": lambda n, t: (math.prod(n), t),
        "digits run together: 1 and 12 look like 1, 1 and 2": lambda n, t: ("".join(map(str, sorted(n))), t),
    }
    mistakes = {words: compares(wrong) for words, wrong in keys.items()}
    return check(compares(key), cases, compares(lambda n, t: (sorted(n), t)), mistakes, name="key(one) == key(other)")
