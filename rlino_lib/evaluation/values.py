"""What a policy makes of the middle of a response: values of prefixes, by sampling how it goes on (chapters 01, 10)."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from scipy.stats import binomtest

from rlino_lib.errors import RlinoError
from rlino_lib.policy.models import Policy
from rlino_lib.policy.sampling import sample
from rlino_lib.tasks import Problem, Task


def continuation_values(
    policy: Policy,
    task: Task,
    problem: Problem,
    response_prefixes: Sequence[str],
    samples: int = 64,
    seed: int = 0,
    *,
    max_new_tokens: int = 112,
    temperature: float = 1.0,
    level: float = 0.95,
) -> pd.DataFrame:
    """One row a prefix: the share of `samples` continuations that the grader calls right, an estimate of V^π(prefix).

    Columns `prefix`, `tokens` (of the prefix), `n`, `c`, `value` = c / n, and the exact (Clopper-Pearson) interval
    `low` to `high`. `max_new_tokens` caps the whole response, prefix included, as in training. Draws of different
    prefixes are independent. Raises RlinoError where there is nothing to sample, where a prefix fills the cap, or where
    a prefix has other tokens alone than at the start of a longer prefix in the list: its continuations would then not
    be continuations of that response.
    """
    if not response_prefixes or samples < 1:
        raise RlinoError("values need at least one prefix and one sample of each")
    prompt = task.prompt(problem)
    texts = [prompt + prefix for prefix in response_prefixes]
    ids = policy.tokenizer(texts)["input_ids"]
    _check_tokens(texts, ids)
    used = [len(row) - len(policy.tokenizer(prompt)["input_ids"]) for row in ids]
    room = [max_new_tokens - n for n in used]
    if min(room) < 1:
        raise RlinoError(f"a prefix of {max(used)} tokens leaves nothing to sample under a cap of {max_new_tokens}")
    rollouts = sample(policy, texts, samples, max_new_tokens=max(room), temperature=temperature, seed=seed)
    rows = []
    for k, prefix in enumerate(response_prefixes):
        block = slice(k * samples, (k + 1) * samples)
        # Rows share one cap in the sampler: what a row wrote beyond its own is cut before it is graded.
        kept = [row[m][: room[k]] for row, m in zip(rollouts.ids[block], rollouts.mask[block], strict=True)]
        endings = policy.tokenizer.batch_decode(kept, skip_special_tokens=True)
        c = sum(task.grade(problem, prefix + ending).correct for ending in endings)
        interval = binomtest(c, samples).proportion_ci(level, method="exact")
        rows.append((prefix, used[k], samples, c, c / samples, interval.low, interval.high))
    return pd.DataFrame(rows, columns=["prefix", "tokens", "n", "c", "value", "low", "high"])


def _check_tokens(texts: Sequence[str], ids: Sequence[Sequence[int]]) -> None:
    """Each text must be cut from the longer ones in the list at a border between tokens."""
    for text, row in zip(texts, ids, strict=True):
        for longer, tokens in zip(texts, ids, strict=True):
            if longer.startswith(text) and list(tokens[: len(row)]) != list(row):
                raise RlinoError(f"the prefix {text[-30:]!r} ends inside a token of the response that it is cut from")
