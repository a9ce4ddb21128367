"""The atlas: what a method weighs a token by, what that weight reads, and where its recorded runs ended (chapter 11).

Every method is one update, ∇J = Σ w_it ∇log π(o_it | ·). It is reinforcement learning in name only where w follows from
the verdicts of its batch, lengths |o| and ratios ρ: then weighted supervised learning makes the same step. Whatever
else a row reads, `reads` names, from the row's own fields.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from rlino_lib.analysis.credit import sampled_tokens
from rlino_lib.analysis.statistics import outcomes
from rlino_lib.analysis.tables import mean_interval
from rlino_lib.errors import RlinoError
from rlino_lib.methods.advantages import advantages
from rlino_lib.methods.catalogue import LABELS, OBJECTIVES
from rlino_lib.methods.credit import Graded, credit
from rlino_lib.methods.loss import Batch, policy_loss
from rlino_lib.methods.objective import Objective
from rlino_lib.methods.preference import PREFERENCES, Preferred, pairs, response_weights
from rlino_lib.methods.token_credit import CREDITS, VALUES
from rlino_lib.records.runs import Run, list_runs

# The groups of runs that are compared with each other (chapters 07 and 10): no pilots, no half of a planned grid.
GROUPS = ("head-to-head", "credit-word_problems", "credit-countdown", "credit-more")
# The paper's two assumptions: a state is the tokens so far, with a deterministic transition, and the terminal reward is
# split evenly over a response's tokens.
ASSUMPTIONS = TRANSITION, EVEN_SPLIT = ("deterministic transition", "even split")


# --- what a weight reads ---------------------------------------------------------------------------------------------


def reads(objective: Objective) -> list[str]:
    """What the weight of a token reads besides verdicts, |o| and ρ, in words; empty where that is all.

    Read off the row's fields. An entropy's gradient is no weight of the token that was drawn, so it counts too.
    """
    o = objective
    rule = CREDITS[o.credit]
    texts = (
        (o.needs_reference, "how likely a reference holds the token"),
        (o.needs_entropies, "the entropy where the token was drawn"),
        (rule.needs == "values", f"values of states: {VALUES.get(o.values or '')}"),
        (rule.needs == "collisions", "the next-token distributions of the group"),
        (rule.of and not rule.needs, "the token's place in its response"),
        (o.unlikely is not None, "how likely the sampler held the token"),
        (o.covariant, "the covariance of likelihood and advantage over the batch"),
        (o.preference and not PREFERENCES[o.preference].paired, "how likely responses are beside other prompts, z₀"),
    )
    return [text for read, text in texts if read]


def without_terms(objective: Objective) -> Objective:
    """The row without the terms that stand beside what a response is credited with: KL, entropy and held tokens."""
    bare = replace(objective.bare, kl_in_reward=0.0)
    return replace(bare, covariant="clip") if objective.covariant == "clip" else bare


def in_name_only(objective: Objective) -> bool:
    """Whether the weights are functions of the batch's verdicts, |o| and ρ alone."""
    return not reads(objective)


def batch_facts(objective: Objective) -> list[str]:
    """What a weight reads of the batch beyond its group: still verdicts, lengths or ratios, in words."""
    paired = objective.preference and PREFERENCES[objective.preference].paired
    texts = (
        (_over_batch(objective), "the verdicts of the other groups"),
        (paired, "which responses are well formed, truncated and longest, for the pairs"),
    )
    return [text for read, text in texts if read]


def _over_batch(o: Objective) -> bool:
    """Whether a group's advantages change with the rewards of another group, or are whitened over all."""
    groups = torch.tensor([[1.0, 0, 0, 0, 1, 0, 0, 0], [1, 0, 0, 0, 1, 1, 0, 0]])  # two batches of two groups
    one, other = (advantages(rewards, 4, o.advantage, **o.options)[:4] for rewards in groups)
    return o.whiten or not torch.equal(one, other)


def drops(objective: Objective) -> str:
    """Which of the paper's two assumptions a row drops: EVEN_SPLIT, or empty.

    That the transition is deterministic is dropped by tasks, whose environment writes, and by no row.
    """
    o = objective
    return EVEN_SPLIT if o.credit != "response" or o.unlikely is not None or o.covariant == "clip" else ""


# --- the weights -----------------------------------------------------------------------------------------------------


class Weights(NamedTuple):
    """The weight w = ∂J/∂log π of a token of a right and of a wrong response."""

    right: float
    wrong: float


NO_WEIGHTS = Weights(math.nan, math.nan)  # where they read more than verdicts, lengths and ratios


def method_weights(
    objective: Objective, right: int, group_size: int = 8, length: int = 40, ratio: float = 1.0, cap: int = 80
) -> Weights | None:
    """The weights in a batch of one group: `right` of its responses are right, each has `length` tokens of ratio ρ.

    By differentiation of the library's own loss, in float64; None where they are no functions of these alone. L is
    `cap`. Of a loss of pairs they are those of the group's pair, and Δ = |o| log ρ; KTO's z₀ is Δ where that is
    positive. Raises RlinoError for a group that is not mixed and for a length, a ratio or a cap out of range.

        method_weights(OBJECTIVES["dr_grpo"], right=2)  # (1 − p)/(N·L) and −p/(N·L) with p = 1/4, N = 8, L = 80
    """
    if not 0 < right < group_size:
        raise RlinoError(f"a group of {group_size} with {right} right is not mixed: give 1 to {group_size - 1}")
    if not (0 < length <= cap and 0 < ratio < math.inf):
        raise RlinoError(f"length {length}, cap {cap} and ratio {ratio:g}: need 0 < length ≤ cap and a ratio above 0")
    if not (in_name_only(objective) or objective.preference):
        return None
    correct = torch.arange(group_size) < right  # [N]
    if objective.preference:
        return _of_preference(objective, correct, length, ratio)
    mask = torch.ones(group_size, length, dtype=torch.bool)  # [N, T]
    whole = torch.zeros_like(correct)  # [N], truncated
    graded = Graded(correct.double(), group_size, mask, max_response_length=cap, truncated=whole, correct=correct)
    credited, keep = credit(objective, graded)  # [N] or [N, T], [N]
    old = torch.zeros(mask.shape, dtype=torch.float64)  # [N, T]
    new = torch.full_like(old, math.log(ratio), requires_grad=True)  # [N, T]
    batch = Batch(new[keep], credited[keep], mask[keep], old[keep], max_response_length=cap)
    (grad,) = torch.autograd.grad(policy_loss(objective, batch).loss, new)  # [N, T]
    return Weights(-grad[0, 0].item() + 0.0, -grad[-1, -1].item() + 0.0)


def _of_preference(o: Objective, correct: Tensor, length: int, ratio: float) -> Weights:
    """The weights that a loss of preferences gives to the first response on each side."""
    n, delta = len(correct), length * math.log(ratio)
    paired = PREFERENCES[o.preference or ""].paired
    preferred = Preferred(correct.nonzero()[:, 0], (~correct).nonzero()[:, 0])
    if paired:
        preferred = pairs(correct.tolist(), [True] * n, [False] * n, [length] * n, n, o.pairing, random.Random(0))
    log_ratios = torch.full((n,), delta, dtype=torch.float64)  # [N]
    lengths = torch.full((n,), length)  # [N]
    z0 = 0.0 if paired else max(delta, 0.0)
    weights = response_weights(o.preference or "", log_ratios, lengths, preferred, o.preference_beta, z0)  # [N]
    return Weights(weights[preferred.chosen[0]].item(), weights[preferred.rejected[0]].item())


# --- where runs ended ------------------------------------------------------------------------------------------------

# Settings that change what a run records and nothing of how it trains; and, with the base, what its samples are.
_RECORDING = {
    "seed", "versions", "checkpoint_every", "trace_every", "trace_groups", "probe_every", "eval_every", "eval_split",
    "eval_problems", "eval_samples", "eval_base", "guard", "device", "model", "update",
}  # fmt: skip
_SAMPLES = ("weights_sha256_16", "samples", "group_size", "max_new_tokens", "temperature", "task_settings", "test")


def compared_runs(groups: Iterable[str] = GROUPS) -> list[Run]:
    """The recorded runs of some groups, in the order of the groups."""
    return [run for group in groups for run in list_runs(group)]


def results(runs: Iterable[Run], defaults: Mapping[str, Any]) -> pd.DataFrame:
    """Where runs ended: a row for each set of runs that differ in their seed alone.

    Columns: method, task, base (its folder's name), batch ("150 × 8 × 8": steps, problems, responses of each), lr,
    settings (what else differs from the task's first run, in words), seeds, mean, low, high (test accuracy in points
    and its 95 % t-interval), tokens (millions that a run samples for training, continuations included). Runs without a
    test, imported ones, whose settings are not known, and those with another base, group size, cap, temperature or test
    than the first run of their task, or another number of samples that the policy learned from, are left out.
    `defaults` are the values of settings that are younger than a run. Raises RlinoError for two runs of one seed in a
    set.
    """
    first: dict[str, dict[str, Any]] = {}
    sets: dict[str, list[Run]] = {}
    for run in runs:
        if "test" not in (run.summary or {}) or "imported_from" in run.config:
            continue
        settings = _settings(run, defaults)
        reference = first.setdefault(run.config["task"], settings)
        if all(settings.get(name) == reference.get(name) for name in _SAMPLES):
            sets.setdefault(json.dumps(settings, sort_keys=True, default=str), []).append(run)
    rows = [_row(own, first[own[0].config["task"]], defaults) for own in sets.values()]
    return pd.DataFrame(rows, columns=_COLUMNS)


_COLUMNS = "method task base batch lr settings seeds mean low high tokens".split()


def _settings(run: Run, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Everything of a run but its seed that its result depends on.

    `samples` is how many responses the policy learned from, and `test` says on what it was tested.
    """
    test = run.summary["test"] if run.summary else {}
    settings = {name: value for name, value in ({**defaults, **run.config}).items() if name not in _RECORDING}
    samples = (settings["steps"] - settings["critic_warmup"]) * settings["prompts"] * settings["group_size"]
    return settings | {"samples": samples, "test": [test["problems"], test["samples"]]}


def _row(runs: list[Run], reference: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[Any, ...]:
    c = runs[0].config
    settings = _settings(runs[0], defaults)
    names = [name for name in {**reference, **settings} if name not in ("method", "lr")]  # a run at scale has one more
    own = {name: settings.get(name) for name in names if settings.get(name) != reference.get(name)}
    words = ", ".join(f"{name}={value}" for name, value in (own | own.pop("objective_settings", {})).items())
    ends = outcomes(runs)["value"]
    tokens = [sampled_tokens(run).iloc[-1] / 1e6 for run in runs]
    batch = f"{c['steps']} × {c['prompts']} × {c['group_size']}"
    cost = sum(tokens) / len(tokens)
    base = c["model"].rpartition("/")[2]
    return c["method"], c["task"], base, batch, c["lr"], words, len(runs), *mean_interval(list(ends)), cost


# --- the table -------------------------------------------------------------------------------------------------------


def atlas(
    right: int = 2, group_size: int = 8, length: int = 40, off_policy: float = 1.5, cap: int = 80
) -> pd.DataFrame:
    """A row for each method of the catalogue, by its key, in the order of LABELS and then of the catalogue.

    Columns: label, formula, source; `right` and `wrong`, weights of `method_weights` at ρ = 1, and `right_off` and
    `wrong_off` at ρ = `off_policy`, of the row `without_terms` and times N·|o|, so that GRPO's are its advantages, NaN
    where they read more; reads and batch_facts (words), in_name_only (bool), drops.
    """
    keys = [*LABELS, *(key for key in OBJECTIVES if key not in LABELS)]
    rows = {}
    for key in keys:
        o = OBJECTIVES[key]
        scaled: dict[str, float] = {}
        for suffix, ratio in (("", 1.0), ("_off", off_policy)):
            weights = method_weights(without_terms(o), right, group_size, length, ratio, cap) or NO_WEIGHTS
            scaled |= {name + suffix: group_size * length * w for name, w in weights._asdict().items()}
        words = {"reads": "; ".join(reads(o)), "batch_facts": "; ".join(batch_facts(o))}
        text = repr(o).removeprefix(f"{key}: ")
        facts = {"label": LABELS.get(key, key), "formula": text, "source": o.source}
        rows[key] = facts | scaled | words | {"in_name_only": in_name_only(o), "drops": drops(o)}
    return pd.DataFrame.from_dict(rows, orient="index")
