"""The game of Countdown (chapter 02): which numbers lead where, its problems and their splits."""

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import combinations, combinations_with_replacement

from rlino_lib.tasks.arithmetic import Step
from rlino_lib.tasks.base import Problem, split_of_key

# --- solving ---------------------------------------------------------------------------------------------------------


def steps_from(a: int, b: int) -> Iterator[Step]:
    """The steps that two numbers allow: results are positive integers; the larger number stands first in − and ÷."""
    a, b = max(a, b), min(a, b)
    yield a, "+", b, a + b
    yield a, "*", b, a * b
    if a > b:
        yield a, "-", b, a - b
    if b and a % b == 0:
        yield a, "/", b, a // b


@lru_cache(maxsize=2**16)  # what all problems with four numbers need
def reachable(nums: tuple[int, ...]) -> frozenset[int]:
    """All values that use every number of the sorted tuple once, with positive integer intermediates."""
    if len(nums) == 1:
        return frozenset(nums)
    return frozenset().union(*(reachable(rest) for _, rest in actions(nums)))


def actions(nums: Sequence[int]) -> Iterator[tuple[Step, tuple[int, ...]]]:
    """The operations on two of some numbers, and the numbers left, sorted; equal pairs are tried once. None for one."""
    tried = set()
    for i, j in combinations(range(len(nums)), 2):
        pair = frozenset((nums[i], nums[j]))
        if pair not in tried:
            tried.add(pair)
            rest = [*nums[:i], *nums[i + 1 : j], *nums[j + 1 :]]
            for step in steps_from(nums[i], nums[j]):
                yield step, tuple(sorted([*rest, step[3]]))


def solutions(nums: Iterable[int], target: int) -> list[tuple[Step, ...]]:
    """Every sequence of steps that ends at the target with all numbers used (integer intermediates).

    >>> solutions([8, 2], 4)
    [((8, '/', 2, 4),)]
    """
    nums = tuple(sorted(nums))
    if len(nums) == 1:
        return [()] if nums[0] == target else []
    return [
        (step, *tail) for step, rest in actions(nums) if target in reachable(rest) for tail in solutions(rest, target)
    ]


def expression(steps: Sequence[Step]) -> str:
    """Steps as one spaced infix expression; each result stands in where it is next used.

    >>> expression([(19, "*", 3, 57), (57, "+", 7, 64)])
    '( 19 * 3 ) + 7'
    """
    by_result: dict[int, list[str]] = defaultdict(list)  # what has that value, the latest last
    text = ""
    for a, op, b, result in steps:
        left, right = (by_result[n].pop() if by_result[n] else str(n) for n in (a, b))
        text = f"{left} {op} {right}"
        by_result[result].append(f"( {text} )")
    return text


# --- problems --------------------------------------------------------------------------------------------------------


def problem_key(nums: Iterable[int], target: int) -> str:
    """The identity of a problem: its numbers in sorted order and its target."""
    return "-".join(map(str, sorted(nums))) + f"={target}"


def split_of(nums: Iterable[int], target: int) -> str:
    """The split a problem belongs to, by a hash of its key: 10 % test, 5 % validation, the rest train.

    A data set may repeat a problem with its numbers in another order; a split by key cannot leak that way, whatever the
    seed, size or ranges of the sets that are compared.
    """
    return split_of_key(problem_key(nums, target))


def split_of_target(target: int) -> str:
    """The split of a target, for a task that keeps some of them out of training: by a hash of its own."""
    return split_of_key(f"target={target}")


def make_problem(nums: Sequence[int], target: int) -> Problem:
    """A `Problem` with its numbers in the order given; gold is one solution, or says that there is none."""
    solved = solutions(nums, target) if len(nums) <= 4 else []
    gold = f"{expression(solved[0]) or target} = {target}" if solved else str(target)
    return Problem(id=f"countdown/{problem_key(nums, target)}", data={"nums": list(nums), "target": target}, gold=gold)


@lru_cache(maxsize=16)
def keys_of_split(
    split: str, n_numbers: int, numbers: tuple[int, int], targets: tuple[int, int]
) -> tuple[tuple[tuple[int, ...], int], ...]:
    """Every solvable problem of a split as its sorted numbers and its target."""
    return tuple(
        (nums, target)
        for nums in _multisets(*numbers, n_numbers)
        for target in sorted(reachable(nums))
        if targets[0] <= target <= targets[1] and split_of(nums, target) == split
    )


def _multisets(lo: int, hi: int, k: int) -> Sequence[tuple[int, ...]]:
    """All multisets; past 4,000 of them a fixed sample, since four numbers up to 100 would take hours to solve."""
    rng = random.Random(f"multisets-{lo}-{hi}-{k}")
    if (hi - lo) ** k > 2_000_000:
        return sorted({tuple(sorted(rng.randint(lo, hi) for _ in range(k))) for _ in range(4000)})
    every = list(combinations_with_replacement(range(lo, hi + 1), k))
    return every if len(every) <= 4000 else sorted(rng.sample(every, 4000))


_PIECE = re.compile(r" \d{1,2}|\d| ?[^\s\d]+\n?|\s+")


def pieces(text: str) -> list[str]:
    """A trace in numbers, signs and words: the tokens of the shipped base, without its tokenizer (chapter 03)."""
    return _PIECE.findall(text)
