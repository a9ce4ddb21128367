"""Guard rails: a run that trains nothing reports it in one clear line instead of running on in silence (chapter 04)."""

from collections.abc import Mapping
from typing import Any

from rlino_lib.errors import RlinoError

# What must not hold for `PATIENCE` consecutive steps, and what it usually means.
PATIENCE = 10
RULES = {
    "every reward was 0": (
        lambda m: m["reward"] == 0,
        "the grader accepts no answer (a prompt template that does not fit the model?), or the policy broke",
    ),
    "no group was mixed": (
        lambda m: m["frac_reward_zero_std"] == 1,
        "all groups were all right or all wrong, and a group without contrast has no gradient: "
        "choose other problems or more samples per group",
    ),
    "every response was truncated": (
        lambda m: m["completions/clipped_ratio"] == 1,
        "raise --max-new-tokens, or see whether the model ever ends a response",
    ),
}


class Guards:
    """Counts how long each rule has held; `check` raises ("stop") or returns a message once ("warn")."""

    def __init__(self, action: str = "stop") -> None:
        self.action = action
        self.held = dict.fromkeys(RULES, 0)
        self.messages: list[str] = []

    def check(self, step: int, metrics: Mapping[str, Any]) -> str | None:
        """Look at one step's metrics; raises RlinoError where a rule has held too long and the action is "stop"."""
        loss = metrics.get("loss")
        if loss is not None and loss != loss:
            raise RlinoError(f"the loss is not a number at step {step}: lower the learning rate")
        for name, (holds, advice) in RULES.items():
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
        self.held = dict(state["held"])
        self.messages = list(state["messages"])
