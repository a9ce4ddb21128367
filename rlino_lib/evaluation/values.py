"""Values of prefixes of a response under a policy, estimated by sampling continuations (chapter 01)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pandas as pd
from scipy.stats import binomtest

from rlino_lib.errors import RlinoError
from rlino_lib.evaluation.graded import sample_graded
from rlino_lib.policy.models import Policy
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.tasks import Problem, Task


def continuation_values(
    policy: Policy, task: Task, problem: Problem, response_prefixes: Sequence[str], samples: int = 64, seed: int = 0,
    **settings: Any,
) -> pd.DataFrame:  # fmt: skip
    """`prefix_values` of prefixes of one response: a row for each, without the column `problem`.

    Raises RlinoError too where a prefix alone is tokenised otherwise than at the start of a longer one in the list: its
    continuations would then not be continuations of that response.
    """
    longer = [(text, other) for text in response_prefixes for other in response_prefixes if other.startswith(text)]
    _check_cuts(policy, longer)
    pairs = [(problem, prefix) for prefix in response_prefixes]
    return prefix_values(policy, task, pairs, samples, seed, **settings).drop(columns="problem")


def prefix_values(
    policy: Policy,
    task: Task,
    prefixes: Iterable[tuple[Problem, str]],
    samples: int = 64,
    seed: int = 0,
    *,
    max_new_tokens: int = 112,
    level: float = 0.95,
    **sampling: Any,
) -> pd.DataFrame:
    """The share of `samples` continuations of each prefix that the grader calls right, an estimate of V^π(prefix).

    `prefixes` are pairs of a problem and the start of a response to it, and each has a row: `problem` (its id),
    `prefix`, `tokens` (of the prefix), `n`, `c`, `value` = c / n, and the exact (Clopper-Pearson) interval `low` to
    `high`. Equal pairs are sampled once and share their draws; draws of different ones are independent.
    `max_new_tokens` caps the whole response, prefix included, as in training, and the task's environment writes into
    it too: it answers a prefix that ends where it is consulted, and no place within one. Of a task with lots each
    continuation has its own, whatever the lot of the response that a prefix is cut from: what chance has written into
    the prefix stands, and the value is a mean over what it has yet to decide. `sampling` goes to `sample_graded`.
    Raises RlinoError where there is nothing to sample, or where a prefix
    fills the cap.
    """
    problems: dict[tuple[str, str], Problem] = {}  # by prompt and prefix
    places = []  # of each pair among them
    for problem, prefix in prefixes:
        problems.setdefault((task.prompt(problem), prefix), problem)
        places.append((task.prompt(problem), prefix))
    if not problems or samples < 1:
        raise RlinoError("values need at least one prefix and one sample of each")
    texts = [prefix for _, prefix in problems]
    ids = _tokens(policy, texts)
    settings = {"prefixes": texts, "max_new_tokens": max_new_tokens} | sampling
    rollouts = sample_graded(policy, task, list(problems.values()), samples, seed=seed, **settings)
    right = rollouts.correct.view(-1, samples).sum(1).tolist()
    rows = {}
    for pair, tokens, c in zip(problems, ids, right, strict=True):
        interval = binomtest(c, samples).proportion_ci(level, method="exact")
        numbers = len(tokens), samples, c, c / samples, interval.low, interval.high
        rows[pair] = problems[pair].id, pair[1], *numbers
    columns = ["problem", "prefix", "tokens", "n", "c", "value", "low", "high"]
    return pd.DataFrame([rows[pair] for pair in places], columns=columns)


def rollout_values(
    policy: Policy,
    task: Task,
    rollouts: Rollouts,
    cuts: Callable[[Problem, str], Sequence[int]],
    samples: int = 16,
    seed: int = 0,
    *,
    max_new_tokens: int = 112,
    **settings: Any,
) -> pd.DataFrame:
    """`prefix_values` of all responses of graded rollouts, cut where `cuts(problem, response)` says, in characters.

    Columns `response` (its row in the rollouts) and `end` (of the prefix, in characters) stand before those of
    `prefix_values`. What the responses to a problem share, the empty prefix above all, is sampled once. A prefix that
    leaves no token under the cap has no continuation and is left out. Raises RlinoError for a cut inside a token.
    `rollout_values(policy, task, rollouts, task.attempt_ends)` values all attempts of a batch of Countdown.
    """
    problems = [rollouts.problems[i // rollouts.group_size] for i in range(len(rollouts.texts))]
    places = [(i, end) for i, text in enumerate(rollouts.texts) for end in cuts(problems[i], text)]
    used = _tokens(policy, [rollouts.texts[i][:end] for i, end in places])
    places = [place for place, tokens in zip(places, used, strict=True) if len(tokens) < max_new_tokens]
    _check_cuts(policy, [(rollouts.texts[i][:end], rollouts.texts[i]) for i, end in places])
    pairs = [(problems[i], rollouts.texts[i][:end]) for i, end in places]
    values = prefix_values(policy, task, pairs, samples, seed, max_new_tokens=max_new_tokens, **settings)
    return pd.concat([pd.DataFrame(places, columns=["response", "end"]), values], axis=1)


def _tokens(policy: Policy, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of each text alone."""
    return policy.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []


def _check_cuts(policy: Policy, cuts: Sequence[tuple[str, str]]) -> None:
    """Each of the texts must be cut from the longer one beside it at a border between tokens."""
    parts, wholes = (_tokens(policy, texts) for texts in (zip(*cuts, strict=True) if cuts else ((), ())))
    for (text, _), part, whole in zip(cuts, parts, wholes, strict=True):
        if whole[: len(part)] != part:
            raise RlinoError(f"the prefix {text[-30:]!r} ends inside a token of the response that it is cut from")
