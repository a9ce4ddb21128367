"""Settings of a run that do not go together, or that nothing reads. No model is imported: a grid starts soon."""

from functools import cache
from typing import Any, cast

from rlino_lib.errors import RlinoError
from rlino_lib.methods.catalogue import varied
from rlino_lib.methods.objective import Objective
from rlino_lib.methods.preference import PREFERENCES
from rlino_lib.methods.rewards import ONE_OR_ZERO, judges, reward_weights
from rlino_lib.tasks import Task, get_task
from rlino_lib.tasks.base import check_steps, has_context
from rlino_lib.training.config import VERIFIER, TrainConfig

OF_VERDICTS = ("supervised", "preference")  # updates that learn what the verifier accepts
NO_DELIMITERS = "loss_mask=delimiter needs a task whose environment writes between delimiters of one token"


def is_verdict(config: TrainConfig, task: Task) -> bool:
    """Whether a run's reward is the verifier's, and 1 for a right answer and 0 for all else."""
    binary = getattr(task, "rewards", "binary") == "binary" and not getattr(task, "restart_bonus", 0)
    return config.reward == VERIFIER and binary


def check_reward(config: TrainConfig, objective: Objective, task: Task) -> None:
    """Raise RlinoError for unknown rewards, and for one that the method's update does not read, or cannot."""
    named = list(reward_weights(config.reward).items())
    if config.task_settings.get("restart_bonus") and not config.task_settings.get("restarts"):
        raise RlinoError("restart_bonus is of training problems that are restarts: set restarts too")
    if is_verdict(config, task):
        return
    if objective.kind in OF_VERDICTS:
        raise RlinoError(f"{objective.name} learns what the verifier accepts: a reward needs update=policy_gradient")
    if objective.surrogate == "nft" and named not in [[(name, 1.0)] for name in ONE_OR_ZERO]:
        raise RlinoError(f"{objective.name} reads the share of right responses: its reward is to be 1 or 0")


def reads_base(config: TrainConfig) -> bool:
    """Whether a run reads what its base thinks: in its loss, its rewards or its evaluations."""
    objective = varied(config.method, config.objective_settings)
    return objective.needs_reference or "base" in judges(config.reward) or bool(config.eval_base)


def check_critic(config: TrainConfig, objective: Objective) -> None:
    """Raise RlinoError for settings of a critic where the method has none, and for a policy that never trains."""
    names = ("critic_lr", "critic_epochs", "critic_warmup", "critic_trunk")
    changed = [name for name in names if getattr(config, name) != getattr(TrainConfig, name)]
    if changed and objective.kind != "critic":
        raise RlinoError(f"{objective.name} has no critic: leave {changed[0]} out")
    if config.critic_warmup > config.steps:
        raise RlinoError(f"critic_warmup must be at most the run's {config.steps} steps, not {config.critic_warmup}")


def check_mask(config: TrainConfig, objective: Objective, task: Task) -> None:
    """Raise RlinoError for a mask that the method's update does not read, or that the task has no use for."""
    if config.loss_mask == "policy":
        return
    if objective.kind in OF_VERDICTS:
        raise RlinoError(f"{objective.name} learns the policy's tokens: loss_mask needs update=policy_gradient")
    if objective.values:
        raise RlinoError(f"{objective.name} has values at the policy's tokens alone: leave --loss-mask out")
    if config.loss_mask == "delimiter" and not hasattr(task, "delimiters"):
        raise RlinoError(NO_DELIMITERS)
    if not has_context(task):
        raise RlinoError(f"the policy writes all of a response to {task.name}: leave --loss-mask out")


def check_values(config: TrainConfig, objective: Objective, task: Task) -> None:
    """Raise RlinoError where a task has no values of the kind that an objective reads, or none of the run's reward."""
    if objective.values not in ("continuations", "exact"):
        return
    if hasattr(task, "opening"):
        what = "samples continuations" if objective.values == "continuations" else "reads exact values"
        raise RlinoError(f"{objective.name} {what}, and the task {task.name} draws a lot for each response")
    if objective.values == "exact" and not hasattr(task, "exact_values"):
        raise RlinoError(f"the task {task.name} has no exact values: countdown and word_problems have")
    if objective.values == "continuations" and objective.cuts == "steps":
        check_steps(task)
    shaped = objective.kl_in_reward or objective.overlong or objective.length_cost
    if shaped or not is_verdict(config, task):
        raise RlinoError(f"{objective.name} has values of right answers alone: reward 1 for one, and 0 for all else")


def check_preference(config: TrainConfig, objective: Objective) -> None:
    """Raise RlinoError for a loss of preferences without pairs whose batch has one prompt."""
    if objective.preference and not PREFERENCES[objective.preference].paired and config.prompts < 2:
        raise RlinoError(f"{objective.name} reads responses beside the prompts of others, z₀: set prompts to 2 or more")


def check_groups(config: TrainConfig, objective: Objective) -> None:
    """Raise RlinoError where more of each group are to stay than it has."""
    if objective.shortest > config.group_size:
        raise RlinoError(f"{objective.name} keeps the {objective.shortest} shortest of groups of {config.group_size}")


def check_evaluations(config: TrainConfig, task: Task) -> None:
    """Raise RlinoError for evaluations of more problems than there are, or of none that are measured against the base.

    How many there are is not asked of a task whose data may still be to fetch.
    """
    if config.eval_base and not config.eval_every:
        raise RlinoError("eval_base is measured by evaluations: set eval_every too")
    if config.eval_every and not hasattr(task, "folder"):
        _count_problems(cast(Any, task), config.eval_split, config.eval_problems)


@cache
def _count_problems(task: Task, split: str, problems: int) -> None:
    """Raise RlinoError where a split has fewer problems; asked once for the many runs of a grid."""
    task.problems(split, problems)


def check_run(config: TrainConfig) -> None:
    """Raise RlinoError for settings of a run that are not known, do not go together, or that nothing reads."""
    objective = varied(config.method, config.objective_settings)
    task = get_task(config.task, **config.task_settings)
    check_reward(config, objective, task)
    check_preference(config, objective)
    check_critic(config, objective)
    check_mask(config, objective, task)
    check_values(config, objective, task)
    check_groups(config, objective)
    check_evaluations(config, task)
