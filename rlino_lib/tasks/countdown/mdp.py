"""Countdown as a Markov decision process (chapter 01): states are the numbers left, actions are operations.

A language model's state is the text so far. The task's own state forgets how it was reached, so many texts share one
state, and its values can be computed exactly. Nothing here needs a model or torch.
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import combinations

from rlino_lib.errors import RlinoError
from rlino_lib.tasks.arithmetic import Step
from rlino_lib.tasks.countdown.game import actions, reachable, steps_from

State = tuple[int, ...]  # the numbers left, sorted

# --- exact values ----------------------------------------------------------------------------------------------------


def best_value(state: State, target: int) -> int:
    """V* of an attempt: 1 where the target can still be reached with every number used, else 0."""
    return int(target in reachable(state))


@lru_cache(maxsize=200_000)
def uniform_value(state: State, target: int) -> Fraction:
    """The chance that operations drawn uniformly from `actions` end at the target; exact, by dynamic programming."""
    if len(state) == 1:
        return Fraction(state[0] == target)
    after = [uniform_value(rest, target) for _, rest in actions(state)]
    return sum(after, Fraction()) / len(after)


def guess_probability(nums: Sequence[int], target: int, largest: int = 999) -> Fraction:
    """The chance that one attempt at random ends at the target; exact, by dynamic programming.

    The attempt is that of the base's demonstrator (chapter 03): two of the numbers left, each pair alike, then one of
    the steps that they allow with a result up to `largest`. `uniform_value` draws from pairs and steps at once, equal
    pairs once. Plain expressions are another guesser: 192 over three numbers and 7,680 over four, with any values on
    the way. Most of these are no legal attempt, so that it is right half as often on three numbers, and a third as
    often on four.
    """
    return _guess(tuple(sorted(nums)), target, largest)


@lru_cache(maxsize=200_000)
def _guess(state: State, target: int, largest: int) -> Fraction:
    if len(state) == 1:
        return Fraction(state[0] == target)
    chances = []
    for i, j in combinations(range(len(state)), 2):
        rest = [*state[:i], *state[i + 1 : j], *state[j + 1 :]]
        results = [step[3] for step in steps_from(state[i], state[j]) if step[3] <= largest]
        after = (_guess(tuple(sorted([*rest, result])), target, largest) for result in results)
        chances.append(sum(after, Fraction()) / len(results))
    return sum(chances, Fraction()) / len(chances)


def searcher_value(state: State | None, start: State, target: int, again: float) -> float:
    """The value of the uniform policy where a failed attempt is followed by another one with probability `again`.

    V(s) = v(s) + (1 − v(s)) · again · V(start), with v the value of one attempt; `state` None is an attempt that broke
    the rules (v = 0). Raises RlinoError unless 0 ≤ again < 1.
    """
    if not 0 <= again < 1:
        raise RlinoError(f"the chance of another attempt is at least 0 and below 1, not {again}")
    first = float(uniform_value(start, target))
    of_start = first / (1 - again * (1 - first)) if first else 0.0
    v = float(uniform_value(state, target)) if state is not None else 0.0
    return v + (1 - v) * again * of_start


# --- how many states -------------------------------------------------------------------------------------------------


def attempts(state: State) -> Iterator[tuple[Step, ...]]:
    """Every complete attempt: the sequences of operations until one number is left."""
    for step, rest in actions(state):
        for tail in attempts(rest) if len(rest) > 1 else ((),):
            yield (step, *tail)


def random_attempt(nums: Sequence[int], rng: random.Random, largest: float = 999) -> tuple[Step, ...]:
    """One way to use every number at random: two of those left, then a step that they allow with a result up to
    `largest`; any of them where none is so small.
    """
    remaining = list(nums)
    steps: list[Step] = []
    while len(remaining) > 1:
        a, b = (remaining.pop(rng.randrange(len(remaining))) for _ in range(2))
        allowed = list(steps_from(a, b))
        steps.append(rng.choice([s for s in allowed if s[3] <= largest] or allowed))
        remaining.append(steps[-1][3])
    return tuple(steps)


def attempt_text(steps: Sequence[Step], verdict: str = " no\n") -> str:
    """An attempt as the shipped base writes it: ` 8 * 4 = 32, 32 * 2 = 64 no`."""
    return ",".join(f" {a} {op} {b} = {c}" for a, op, b, c in steps) + verdict


def ways(start: State) -> Counter[State]:
    """The states reachable from `start`, each with the number of operation sequences that lead to it."""
    total = layer = Counter({start: 1})
    while layer:
        after: Counter[State] = Counter()
        for state, n in layer.items():
            for _, rest in actions(state):
                after[rest] += n
        total = total + after
        layer = after
    return total
