"""Guard rails: a run that trains nothing reports it in one clear line instead of running on in silence (chapter 04)."""

from collections.abc import Mapping
from typing import Any

import torch

from rlino_lib.errors import RlinoError
from rlino_lib.methods.advantages import advantages
from rlino_lib.methods.objective import Objective
from rlino_lib.training.config import VERIFIER

# What must not hold for `PATIENCE` consecutive steps, and what it usually means.
PATIENCE = 10
CONTRAST = "no group had contrast"
RULES = {
    "every reward was 0": (
        lambda m: m["reward"] == 0 and m["accuracy"] == 0,
        "the grader accepts no answer (a prompt template that does not fit the model?), or the policy broke",
    ),
    CONTRAST: (
        lambda m: m["frac_reward_zero_std"] == 1,
        "the rewards of each group were equal, and the method learns from differences within groups: "
        "choose other problems or more samples per group",
    ),
    "every response was truncated": (
        lambda m: m["completions/clipped_ratio"] == 1,
        "raise --max-new-tokens, or see whether the model ever ends a response",
    ),
}


def needs_contrast(objective: Objective, reward: str) -> bool:
    """Whether no response has a weight by its reward where the rewards of each group are equal.

    KL does not count: it pulls back to the reference, whatever the rewards.
    """
    groups = torch.tensor([0.0, 0.0, 1.0, 1.0])  # [N], two groups without contrast
    compares = not advantages(groups, 2, objective.advantage, **objective.options).any()
    compares |= objective.credit == "optimal_baseline"  # which has the rule `reward`
    beside = objective.overlong or objective.length_cost or objective.entropy_bonus
    mixed = objective.filter == "mixed" and reward == VERIFIER  # verdicts differ only where rewards do
    return mixed or bool(compares and not beside)


class Guards:
    """Counts how long each rule has held; `check` raises ("stop") or returns a message once ("warn").

    Without `contrast`, for a method that does not need it, groups may be without it.
    """

    def __init__(self, action: str = "stop", contrast: bool = True) -> None:
        self.action = action
        self.rules = {name: rule for name, rule in RULES.items() if contrast or name != CONTRAST}
        self.held = dict.fromkeys(RULES, 0)
        self.messages: list[str] = []

    def check(self, step: int, metrics: Mapping[str, Any]) -> str | None:
        """Look at one step's metrics; raises RlinoError where a rule has held too long and the action is "stop"."""
        loss = metrics.get("loss")
        if loss is not None and loss != loss:
            raise RlinoError(f"the loss is not a number at step {step}: lower the learning rate")
        for name, (holds, advice) in self.rules.items():
            self.held[name] = self.held[name] + 1 if holds(metrics) else 0
            if self.held[name] == PATIENCE:
                message = f"{name} for {PATIENCE} steps, up to step {step}: {advice}"
                if self.action == "stop":
                    raise RlinoError(message)
                self.messages.append(message)
                return message
        return None

    def state(self) -> dict[str, Any]:
        return {"held": dict(self.held), "messages": list(self.messages)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.held |= state["held"]  # which an earlier version kept under other names
        self.messages = list(state["messages"])
