"""The hidden target, exactly: what looking is worth, and what a loss that counts the environment adds (chapter 10b)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product

import pandas as pd
import torch
from torch import Tensor
from torch.nn import Module

from rlino_lib.errors import RlinoError
from rlino_lib.exact.identities import policy_side
from rlino_lib.exact.token_mdp import F64, Optimum, best_of_tool_game
from rlino_lib.methods.advantages import advantages
from rlino_lib.methods.loss import token_weights
from rlino_lib.methods.objective import Objective
from rlino_lib.policy.logprobs import response_logprobs
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.settings import number
from rlino_lib.tasks import HiddenTarget, Problem
from rlino_lib.training.masks import MASKS

# --- what looking is worth -------------------------------------------------------------------------------------------


def look(targets: int, lies: float) -> Tensor:
    """The chance of each target to be written, given the true one: [true, written] float64.

    `lies` is the chance of another one, each alike. A single target leaves nothing to lie with.
    """
    truth = torch.eye(targets, dtype=F64)  # [R, R]
    return truth if targets == 1 else (1 - lies) * truth + lies / (targets - 1) * (1 - truth)


def calculator(targets: int, lies: float) -> Tensor:
    """The same of a calculator, whose result depends on what it is asked alone: [true, written], one column of ones."""
    written = torch.zeros(targets, targets, dtype=F64)  # [R, R]
    written[:, 0] = 1
    return written


TOOLS: dict[str, Callable[[int, float], Tensor]] = {"look": look, "calculator": calculator}


@lru_cache(maxsize=256)
def optimum(targets: int, lies: float = 0.0, tool: str = "look") -> Optimum:
    """The best policy that reads what the tool writes, and the best response fixed beforehand, by enumeration.

    `targets` are the R ≥ 1 targets in reach, each the true one with chance 1/R, as it is for a problem drawn from all
    splits. A response ends with an expression, so that it hits one of them. Where a look is worth nothing it is left
    out at no loss, so that one course of the game is enough: look, answer.
    """
    # What a course pays, reward times chance: of the answer that is the true target alone.
    paid = TOOLS[tool](targets, lies).t() / targets  # [written, answer]
    return best_of_tool_game(paid[None, :, :, None])


def optima(problems: Sequence[Problem], lies: Sequence[float], tools: Sequence[str] = tuple(TOOLS)) -> pd.DataFrame:
    """A row for each tool and chance of a lie: means over problems of both optima, and their `gap`.

    Columns `tool`, `lies`, `policy` (the best one that reads what is written), `response` (the best one fixed
    beforehand) and `gap`. The targets in reach are those of the task's usual ranges. Raises RlinoError without
    problems, and for a chance outside [0, 1].
    """
    for s in lies:
        number(0, 1).check("lies", s)
    if not problems:
        raise RlinoError("the optima are means over problems, and there are none")
    sizes = [len(HiddenTarget().possible_targets(problem)) for problem in problems]
    rows = []
    for tool, s in product(tools, lies):
        policy, response = pd.DataFrame([optimum(targets, s, tool)[:2] for targets in sizes]).mean()
        rows.append((tool, s, policy, response, policy - response))
    return pd.DataFrame(rows, columns=["tool", "lies", "policy", "response", "gap"])


# --- what an unmasked token of the environment adds ------------------------------------------------------------------


def environment_term(written: Tensor, policy: Tensor, advantage: Tensor) -> Tensor:
    """What a token that the environment draws adds to the gradient of J in its logits, in expectation: P∘A − π·E_P[A].

    written [V], the environment's distribution P; policy [V], the model's π; advantage [V], the mean one after each
    token. Zero where π = P and the advantage is the same whatever is written.
    """
    return written * advantage - policy * (written @ advantage)


def masks_compared(
    model: Module, rollouts: Rollouts, objective: Objective, delimiters: tuple[int, int]
) -> pd.DataFrame:
    """The gradients of one batch under each mask of the loss, against that of the policy's own tokens.

    Columns `mask`; `cosine` of the two gradients and `norm`, the ratio of their sizes; `foreign`, the share of Σ|w| on
    tokens that the policy did not write; `own`, the share of the policy's tokens that count. `delimiters` are the two
    ids. The advantages are the same, by the objective's rule, and the update is the first of a batch. Take the model
    through `float64_copy` first.
    """
    new, _ = response_logprobs(model, rollouts, torch.arange(len(rollouts.ids)))  # [N, T]
    credit = advantages(rollouts.rewards.to(F64), rollouts.group_size, objective.advantage)  # [N]
    plain = objective.bare
    gradients = {}
    shares = {}
    for name, rule in MASKS.items():
        mask = rule(rollouts, delimiters)  # [N, T]
        by_parameter = policy_side(model, replace(rollouts, mask=mask), plain, credit, new.detach())
        gradients[name] = torch.cat([part.flatten() for part in by_parameter.values()])  # [parameters]
        sizes = token_weights(plain, credit, mask, rollouts.ids.shape[1]).abs()  # [N, T]
        foreign = sizes[~rollouts.mask].sum() / sizes.sum()
        shares[name] = foreign.item(), (mask & rollouts.mask).sum().item() / rollouts.mask.sum().item()
    base = gradients["policy"]
    rows = [
        (name, torch.cosine_similarity(g, base, dim=0).item(), (g.norm() / base.norm()).item(), *shares[name])
        for name, g in gradients.items()
    ]
    return pd.DataFrame(rows, columns=["mask", "cosine", "norm", "foreign", "own"])
