"""What a policy makes of the middle of a response: values of prefixes, by sampling how it goes on (chapters 01, 10)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pandas as pd
from scipy.stats import binomtest

from rlino_lib.errors import RlinoError
from rlino_lib.policy.models import Policy
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.policy.sampling import sample
from rlino_lib.tasks import Problem, Task


def continuation_values(
    policy: Policy, task: Task, problem: Problem, response_prefixes: Sequence[str], samples: int = 64, seed: int = 0,
    **settings: Any,
) -> pd.DataFrame:  # fmt: skip
    """`prefix_values` of one problem: one row for each prefix of its responses, without the column `problem`."""
    prefixes = [(problem, prefix) for prefix in response_prefixes]
    return prefix_values(policy, task, prefixes, samples, seed, **settings).drop(columns="problem")


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
    `max_new_tokens` caps the whole response, prefix included, as in training; `sampling` goes to `sample`. Raises
    RlinoError where there is nothing to sample, where a prefix fills the cap, or where a prefix has other tokens alone
    than at the start of a longer one of the same problem: its continuations would then not be continuations of that
    response.
    """
    problems: dict[tuple[str, str], Problem] = {}  # by prompt and prefix
    places = []  # of each pair among them
    for problem, prefix in prefixes:
        problems.setdefault((task.prompt(problem), prefix), problem)
        places.append((task.prompt(problem), prefix))
    if not problems or samples < 1:
        raise RlinoError("values need at least one prefix and one sample of each")
    prompts, texts = zip(*problems, strict=True)
    ids = policy.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    _check_tokens(prompts, texts, ids)
    rollouts = sample(
        policy, prompts, samples, prefixes=texts, seed=seed, max_new_tokens=max_new_tokens, **sampling
    ).grade(task, list(problems.values()))
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
    leaves no token under the cap has no continuation and is left out.
    `rollout_values(policy, task, rollouts, task.attempt_ends)` values all attempts of a batch of Countdown.
    """
    problems = [rollouts.problems[i // rollouts.group_size] for i in range(len(rollouts.texts))]
    places = [
        (i, end)
        for i, (problem, text) in enumerate(zip(problems, rollouts.texts, strict=True))
        for end in cuts(problem, text)
        if len(policy.tokenizer(text[:end], add_special_tokens=False)["input_ids"]) < max_new_tokens
    ]
    pairs = [(problems[i], rollouts.texts[i][:end]) for i, end in places]
    values = prefix_values(policy, task, pairs, samples, seed, max_new_tokens=max_new_tokens, **settings)
    return pd.concat([pd.DataFrame(places, columns=["response", "end"]), values], axis=1)


def _check_tokens(prompts: Sequence[str], texts: Sequence[str], ids: Sequence[Sequence[int]]) -> None:
    """Each text must be cut from the longer ones after the same prompt at a border between tokens."""
    rows = sorted(zip(prompts, texts, ids, strict=True))
    for k, (prompt, text, tokens) in enumerate(rows):
        for other, longer, more in rows[k + 1 :]:  # those that start with a text stand right behind it
            if other != prompt or not longer.startswith(text):
                break
            if more[: len(tokens)] != tokens:
                raise RlinoError(f"the prefix {text[-30:]!r} ends inside a token of the response that it is cut from")
