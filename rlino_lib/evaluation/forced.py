"""A Countdown search that may not give up: what a model would find if it went on (chapter 08c)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from rlino_lib.policy.models import Policy
from rlino_lib.policy.sampling import sample
from rlino_lib.tasks.base import Problem
from rlino_lib.tasks.countdown.task import Countdown
from rlino_lib.tasks.countdown.trace import read_search


def forced_hits(policy: Policy, task: Countdown, problems: Sequence[Problem], attempts: int) -> pd.Series:
    """The attempt that hits first when none may give up before `attempts`, for each problem; infinite for none.

    Where the policy would close its thought without a hit, its last attempt is followed by a new line in place of the
    end. A search that makes no attempt at all is left.
    """
    texts = [""] * len(problems)
    hits = [math.inf] * len(problems)
    open_rows = list(range(len(problems)))
    for _ in range(attempts):
        prompts = [task.prompt(problems[i]) + texts[i] for i in open_rows]
        rollouts = sample(policy, prompts, 1, max_new_tokens=64, seed=sum(map(len, texts)))
        left = []
        for i, text in zip(open_rows, rollouts.texts, strict=True):
            whole = read_search(problems[i], texts[i] + text)
            made = [a for a in whole.attempts if a.verdict][:attempts]
            hits[i] = next((k for k, a in enumerate(made, 1) if a.hit is not None), math.inf)
            texts[i] = whole.response[: made[-1].end].rstrip("\n") + "\n" if made else texts[i]
            if hits[i] == math.inf and 0 < len(made) < attempts:
                left.append(i)
        open_rows = left
        if not open_rows:
            break
    return pd.Series(hits)
