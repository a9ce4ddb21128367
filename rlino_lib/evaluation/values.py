"""Values of prefixes of a response under a policy, estimated by sampling continuations (chapters 01 and 10)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import pandas as pd
from scipy.stats import beta

from rlino_lib.errors import RlinoError
from rlino_lib.evaluation.graded import sample_graded
from rlino_lib.policy.models import Policy
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.tasks import Problem, Task
from rlino_lib.tasks.base import check_steps

DEFAULT_CAP = 112  # tokens of a response, as in `sample`


def continuation_values(
    policy: Policy, task: Task, problem: Problem, response_prefixes: Sequence[str], samples: int = 64, seed: int = 0,
    **settings: Any,
) -> pd.DataFrame:  # fmt: skip
    """`prefix_values` of prefixes of one response: a row for each, without the column `problem`.

    Raises RlinoError too where a prefix alone is tokenised otherwise than at the start of a longer one in the list: its
    continuations would then not be continuations of that response.
    """
    ids = _tokens(policy, response_prefixes)
    for (text, part), (longer, whole) in product(zip(response_prefixes, ids, strict=True), repeat=2):
        if longer.startswith(text) and whole[: len(part)] != part:
            raise RlinoError(f"the prefix {text[-30:]!r} ends inside a token of the response that it is cut from")
    pairs = [(problem, prefix) for prefix in response_prefixes]
    return prefix_values(policy, task, pairs, samples, seed, **settings).drop(columns="problem")


def prefix_values(
    policy: Policy, task: Task, prefixes: Iterable[tuple[Problem, str]], samples: int = 64, seed: int = 0, *,
    max_new_tokens: int = DEFAULT_CAP, **sampling: Any,
) -> pd.DataFrame:  # fmt: skip
    """The share of `samples` continuations of each prefix that the grader calls right, an estimate of V^π(prefix).

    `prefixes` are pairs of a problem and the start of a response to it, and each has a row: `problem` (its id),
    `prefix`, `tokens` (of the prefix), `n`, `c`, `value` = c / n, its exact 95 % (Clopper-Pearson) interval `low` to
    `high`, and `sampled`, the tokens that its continuations took. Equal pairs are sampled once and share their draws;
    draws of different ones are independent. `max_new_tokens` caps the whole response, prefix included, as in training,
    and the task's environment writes into it too: it answers a prefix that ends where it is consulted, and no place
    within one. Of a task with lots each continuation has its own, whatever the lot of the response that a prefix is cut
    from: what chance has written into the prefix stands, and the value is a mean over what it has yet to decide.
    `sampling` goes to `sample_graded`. Raises RlinoError where there is nothing to sample, or where a prefix fills the
    cap.
    """
    # One prompt may stand for several problems, where it hides what sets them apart.
    pairs = [(problem, prefix, (problem.id, task.prompt(problem))) for problem, prefix in prefixes]
    places = {key: k for k, key in enumerate(dict.fromkeys((key, prefix) for _, prefix, key in pairs))}
    if not places or samples < 1:
        raise RlinoError("values need at least one prefix and one sample of each")
    first = {(key, prefix): problem for problem, prefix, key in reversed(pairs)}
    texts = [prefix for _, prefix in places]
    sampling = {"prefixes": texts, "max_new_tokens": max_new_tokens} | sampling
    rollouts = sample_graded(policy, task, [first[place] for place in places], samples, seed=seed, **sampling)
    c = rollouts.correct.view(-1, samples).sum(1).numpy()  # [U], of the U different pairs
    unique = pd.DataFrame(
        {"tokens": list(map(len, _tokens(policy, texts))), "n": samples, "c": c, "value": c / samples}
    )
    unique["low"] = beta.ppf(0.025, c, samples - c + 1)  # NaN, and so 0, where c is 0
    unique["high"] = beta.ppf(0.975, c + 1, samples - c)
    unique = unique.fillna({"low": 0.0, "high": 1.0})
    unique["sampled"] = rollouts.lengths.view(-1, samples).sum(1).numpy()
    table = unique.iloc[[places[key, prefix] for _, prefix, key in pairs]].reset_index(drop=True)
    table.insert(0, "problem", [problem.id for problem, _, _ in pairs])
    table.insert(1, "prefix", [prefix for _, prefix, _ in pairs])
    return table


def rollout_values(
    policy: Policy, task: Task, rollouts: Rollouts, ends: Sequence[Sequence[int]], samples: int = 16, seed: int = 0,
    **settings: Any,
) -> pd.DataFrame:  # fmt: skip
    """`prefix_values` of the starts of graded responses, cut where `ends` says: of each response, in characters.

    Columns `response` (its row in the rollouts) and `end` (of the prefix, in characters) stand before those of
    `prefix_values`. What the responses to a problem share, the empty prefix above all, is sampled once. A cut inside a
    token moves to its end. A prefix that leaves no token under the cap has no continuation and is left out.
    `rollout_values(policy, task, rollouts, step_ends(task, rollouts))` values all steps of a batch.
    """
    cap = settings.get("max_new_tokens", DEFAULT_CAP)
    cuts = [[cut for cut in row if cut and cut[1] < cap] for row in cut_places(policy, rollouts, ends)]
    rows = [(i, end) for i, row in enumerate(cuts) for end, _ in dict.fromkeys(row)]
    pairs = [(rollouts.problems[i // rollouts.group_size], rollouts.texts[i][:end]) for i, end in rows]
    values = prefix_values(policy, task, pairs, samples, seed, **settings)
    return pd.concat([pd.DataFrame(rows, columns=["response", "end"]), values], axis=1)


def step_ends(task: Any, rollouts: Rollouts) -> list[list[int]]:
    """Where the steps of graded responses begin and end, by the task's `step_ends`, in characters: a list for each.

    Raises RlinoError for a task that has no steps.
    """
    check_steps(task)
    return [task.step_ends(*row) for row in rollouts.rows()]


def cut_places(
    policy: Policy, rollouts: Rollouts, ends: Sequence[Sequence[int]]
) -> list[list[tuple[int, int] | None]]:  # fmt: skip
    """Where responses can be cut nearest to `ends`: of each place, in characters, the end of the token that reaches it,
    and the tokens up to there. None where the text up to there alone would be other tokens, or there is no such token.
    """
    encoded = policy.tokenizer(rollouts.texts, add_special_tokens=False, return_offsets_mapping=True)
    borders = [[0, *(end for _, end in row)] for row in encoded["offset_mapping"]]
    cuts = [(i, min(bisect_left(borders[i], end), len(borders[i]) - 1)) for i, row in enumerate(ends) for end in row]
    parts = iter(_tokens(policy, [rollouts.texts[i][: borders[i][tokens]] for i, tokens in cuts]))
    places = iter(cuts)
    whole = [ids[where].tolist() for ids, where in zip(rollouts.ids, rollouts.written, strict=True)]

    def place() -> tuple[int, int] | None:
        (i, tokens), part = next(places), next(parts)
        return (borders[i][tokens], tokens) if whole[i][:tokens] == part else None

    return [[place() for _ in row] for row in ends]


def _tokens(policy: Policy, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of each text alone."""
    return policy.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
