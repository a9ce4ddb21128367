"""What a policy lacks: plans, facts or sub-problems (chapter 09), after "Beyond Accuracy" (SPARKLE, 2506.04723)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from rlino_lib.errors import RlinoError
from rlino_lib.evaluation.graded import sample_graded
from rlino_lib.evaluation.values import prefix_values
from rlino_lib.policy.models import Policy
from rlino_lib.tasks import Problem, Task
from rlino_lib.tasks.arithmetic import Step, trace_steps
from rlino_lib.tasks.base import hash_of
from rlino_lib.tasks.countdown.game import solutions
from rlino_lib.tasks.countdown.mdp import attempt_text

# From a solution to how a response begins.
HINTS: dict[str, Callable[[Sequence[Step]], str]] = {
    "none": lambda steps: "",
    "plan": lambda steps: " {} {}".format(*steps[0]),  # a number and what is done with it
    "fact": lambda steps: attempt_text(steps[:1], ""),  # a right first equation
    "half": lambda steps: attempt_text(steps[: (len(steps) + 1) // 2], ""),  # of the equations, rounded up
}


def hinted_solution(problem: Problem) -> tuple[Step, ...]:
    """The solution that hints are of: one of all, by a hash of the problem; raises RlinoError where there is none."""
    ways = solutions(problem.data["nums"], problem.data["target"])
    if not ways:
        raise RlinoError(f"{problem.id} has no solution to hint at")
    return ways[hash_of(f"hint-{problem.id}") % len(ways)]


def hint_values(
    policy: Policy, task: Task, problems: Sequence[Problem], samples: int = 16, seed: int = 0, **settings: Any
) -> pd.DataFrame:
    """The share right of responses to Countdown that begin with each of HINTS: `prefix_values` with a column `hint`.

    The cap of `settings`, `max_new_tokens`, counts the hint. The gain of each hint is
    `against(frame, "value", "hint", "none")`. With three numbers half a solution is its first equation.
    """
    ways = {problem.id: hinted_solution(problem) for problem in problems}
    pairs = [(problem, hint(ways[problem.id])) for hint in HINTS.values() for problem in problems]
    frame = prefix_values(policy, task, pairs, samples, seed, **settings)
    frame.insert(1, "hint", [hint for hint in HINTS for _ in problems])
    return frame


def sub_problems(
    policy: Policy, task: Task, problems: Sequence[Problem], samples: int = 16, seed: int = 0, **settings: Any
) -> pd.DataFrame:
    """Word problems step by step: whether the policy, given all steps before, gets each next one right.

    A row for each problem: `steps`, `accuracy` (the share of whole responses that are right, from the start), and
    `all_steps`, the estimate that every step succeeds: the product over steps of the share of samples whose next
    equation holds and has the solution's result. Its mean is SPARKLE's sub-problem success rate, unbiased as the steps'
    samples are independent. A right solution in another order counts as right for `accuracy` alone.
    """
    starts: list[tuple[Problem, int, str]] = []  # a problem, the steps that are given, and the text of these
    for problem in problems:
        lines = problem.gold.split("\n")[:-1]  # the last holds the answer
        starts += [(problem, k, " " * (k > 0) + "\n".join(lines[:k])) for k in range(len(lines))]
    prompts = [problem for problem, *_ in starts]
    prefixes = [prefix for *_, prefix in starts]
    rollouts = sample_graded(policy, task, prompts, samples, seed=seed, **{"prefixes": prefixes} | settings)
    rows = []
    for i, text in enumerate(rollouts.texts):
        problem, k, _ = starts[i // samples]
        result = trace_steps(problem.gold)[k][0][3]
        right = any(holds and step[3] == result for step, holds in trace_steps(text)[k : k + 1])
        rows.append((problem.id, k, right, rollouts.grades[i].correct if k == 0 else None))
    frame = pd.DataFrame(rows, columns=["problem", "step", "right", "correct"])
    rates = frame.groupby(["problem", "step"], sort=False)["right"].mean().groupby("problem", sort=False)
    whole = frame[frame["step"] == 0].groupby("problem", sort=False)["correct"]
    table = {"steps": rates.size(), "accuracy": whole.mean().astype(float), "all_steps": rates.prod()}
    return pd.DataFrame(table).reset_index()
