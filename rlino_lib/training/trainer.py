"""One step for all methods: sample, grade, weigh, update (chapters 04 and 05). Records are kept by `run.py`."""

import copy
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from typing import Any, TypeVar

import torch
import transformers

from rlino_lib.errors import RlinoError
from rlino_lib.evaluation import evaluate as held_out
from rlino_lib.evaluation.evaluate import outcome_metrics
from rlino_lib.evaluation.graded import check_openings, sample_graded
from rlino_lib.methods.catalogue import varied
from rlino_lib.methods.rewards import judges, reward_of
from rlino_lib.methods.terms import NORMALISERS
from rlino_lib.policy.critic import Critic
from rlino_lib.policy.device import autocast, pick_device, policy_precision, to_device, within_memory
from rlino_lib.policy.logprobs import certainty, of_distributions, response_logprobs
from rlino_lib.policy.models import Policy, add_lora, load_policy, recompute_layers, reference_context, weights_hash
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.tasks import get_task
from rlino_lib.tasks.base import has_environment
from rlino_lib.training import memory
from rlino_lib.training.checks import check_run, reads_base
from rlino_lib.training.config import VERIFIER, TrainConfig, run_settings
from rlino_lib.training.masks import delimiter_ids
from rlino_lib.training.micro_batches import Limit, micro_batches, most_rows, pass_lengths
from rlino_lib.training.staleness import is_probed, probe
from rlino_lib.training.traces import response_rows
from rlino_lib.training.updates import UPDATES

T = TypeVar("T")


def rewarded(rollouts: Rollouts, reward: str) -> Rollouts:
    """Put the run's rewards into the grades of rollouts, in place; verdicts stay the verifier's."""
    if reward != VERIFIER:
        rewards = reward_of(reward, rollouts).tolist()
        rollouts.grades = [replace(grade, reward=r) for grade, r in zip(rollouts.grades, rewards, strict=True)]
    return rollouts


def describe(config: TrainConfig, policy: Policy) -> dict[str, Any]:
    """What config.json holds: the settings, the model by its path in the repository, the kind of update, the weights
    and versions."""
    return config.recorded() | {
        "model": run_settings(config)["model"],
        "update": varied(config.method, config.objective_settings).kind,
        "weights_sha256_16": weights_hash(policy.model),
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


@lru_cache(maxsize=4)
def epoch_order(n: int, epoch: int, seed: int) -> list[int]:
    """The order of n problems in one epoch."""
    order = list(range(n))
    random.Random(f"order-{seed}-{epoch}").shuffle(order)
    return order


def batch_of_problems(problems: Sequence[T], step: int, size: int, seed: int) -> list[T]:
    """The problems of a step (from 1): a new seeded order each epoch, the same for every method."""
    places = (divmod(k, len(problems)) for k in range((step - 1) * size, step * size))
    return [problems[epoch_order(len(problems), epoch, seed)[place]] for epoch, place in places]


def _adamw(weights: list[torch.nn.Parameter], c: TrainConfig) -> torch.optim.AdamW:
    fused = weights[0].is_cuda or None  # one kernel for all weights; on a CPU as every recorded run had it
    return torch.optim.AdamW(weights, lr=c.lr, betas=(0.9, 0.95), weight_decay=0.0, fused=fused)


OPTIMIZERS: dict[str, Callable[[list[torch.nn.Parameter], TrainConfig], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "sgd": lambda weights, c: torch.optim.SGD(weights, lr=c.lr, momentum=c.momentum),
}


class Trainer:
    """Holds what a step needs; `step()` does one and returns its metrics. `train` drives it and keeps the records."""

    # --- loading

    def __init__(self, config: TrainConfig, policy: Policy | None = None) -> None:
        check_run(config)
        self.objective = varied(config.method, config.objective_settings)
        self.task = get_task(config.task, **config.task_settings)
        self.policy = policy or load_policy(config.model, device=pick_device(config.device))
        self.problems = self.task.problems("train")
        self.eval_problems = self.task.problems(config.eval_split, config.eval_problems) if config.eval_every else []
        self.config = config = replace(config, precision=policy_precision(config.precision, self.policy.model))
        if config.loss_mask == "delimiter":
            delimiter_ids(self.task, self.policy.tokenizer)  # raises where the tokenizer does not suit it
        tested = held_out.test_problems(self.task) if config.test_samples else []
        problems = [*self.problems, *self.eval_problems, *tested]
        check_openings(self.policy, self.task, problems, config.max_new_tokens)
        self.record = describe(config, self.policy)
        torch.manual_seed(config.seed)
        self.reference = self._load_reference(from_disk=policy is None)
        self.critic = Critic(self.policy.model, config.critic_trunk) if self.objective.kind == "critic" else None
        if rank := config.lora_rank:
            adapted = add_lora(self.policy.model, rank=rank, alpha=config.lora_alpha, targets=config.targets)
            self.policy = Policy(adapted, self.policy.tokenizer)
        self.model = self.policy.model
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = OPTIMIZERS[config.optimizer](trainable, config)
        if self.critic:
            rate = replace(config, lr=config.critic_lr)
            self.critic_optimizer = OPTIMIZERS[config.optimizer](list(self.critic.parameters()), rate)
        self.step_done = 0
        self.micro_batch = config.micro_batch  # halved where memory runs out, as is the next
        self.micro_tokens = memory.micro_tokens(self.model, config)  # 0: micro-batches are cut by rows
        self.sums = Sums()  # of the updates of the last step
        self.measured: dict[str, float | None] = {}  # of the last step, by what its credit of tokens needed
        self.probes: list[dict[str, Any]] = []  # of the last step; empty where it was not probed
        self.responses: list[dict[str, Any]] = []  # of the last evaluation, a row each

    def _load_reference(self, from_disk: bool) -> torch.nn.Module | None:
        """A second model where one is needed: the policy's, from disk or copied. With LoRA there is none: its reference
        is the policy with the adapters off."""
        c = self.config
        if c.lora_rank or not reads_base(c):
            return None
        if from_disk:
            return load_policy(c.model, device=pick_device(c.device)).model
        return copy.deepcopy(self.policy.model).eval().requires_grad_(False)

    # --- sampling

    def sample(self, step: int) -> Rollouts:
        """The graded and rewarded responses of a step."""
        c = self.config
        batch = batch_of_problems(self.problems, step, c.prompts, c.seed)
        seed = c.seed * 1_000_003 + step
        rollouts = sample_graded(self.policy, self.task, batch, c.group_size, seed=seed, **c.sampling)
        for judge in judges(c.reward):
            by_token = self.of_distributions(certainty, rollouts, reference=judge == "base")  # [N, T]
            rollouts.certainty[judge] = (by_token * rollouts.mask).sum(1) / rollouts.lengths.clamp_min(1)
        return rewarded(rollouts, c.reward)

    # --- updating

    def step(self) -> tuple[dict[str, Any], Rollouts, dict[str, torch.Tensor]]:
        """One batch of samples and its updates; returns metrics, the rollouts, and by name the advantage [N] and the
        weights [N, T] of their rows, as `trace_rows` takes them."""
        step = self.step_done + 1
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr_at(step)
        rollouts = self.sample(step)
        self.sums, self.probes, self.measured = Sums(), [], {}
        if self.config.gradient_checkpointing:
            recompute_layers(self.model)
        rng = random.Random(f"minibatches-{self.config.seed}-{step}")
        weighting = UPDATES[self.objective.kind](self, rollouts, rng)
        self.step_done = step
        samples = step * self.config.prompts * self.config.group_size
        metrics = {"step": step, "samples": samples, **outcome_metrics(rollouts), **self.sums.means(), **self.measured}
        return metrics | {"lr": self.lr_at(step)}, rollouts, weighting

    def lr_at(self, step: int) -> float:
        """`lr` times step/warmup, at most 1, and if linear times (steps − step + 1)/steps; steps count from 1.

        The decay multiplies the warm-up from step 1 on, so the peak is below `lr`; the last step's rate is not 0.
        """
        c = self.config
        warm = min(1.0, step / c.warmup) if c.warmup else 1.0
        return c.lr * warm * ((c.steps - step + 1) / c.steps if c.schedule == "linear" else 1.0)

    def update(self, rollouts: Rollouts, gradients: Callable[[Limit], list[tuple[dict[str, float], float]]]) -> None:
        """One step of the optimizer, measured before it where it is probed.

        `gradients(limit)` makes the backward passes; of each it returns what it measured, and its share of the update.
        Gradients do not depend on how rows are cut (except for `micro_token_mean`).
        """
        self._probe(rollouts, update=len(self.sums.norms) + 1)
        for values, share in self._within_memory(gradients, rollouts):
            self.sums.add(values, share)
        self.sums.norms.append(self._descend(self.model, self.optimizer))

    def _within_memory(self, compute: Callable[[Limit], Any], rollouts: Rollouts) -> Any:
        """`compute(limit)`, and from here on with half the rows or tokens where memory runs out."""
        undo = self._forget_gradients
        if NORMALISERS[self.objective.normaliser].by_micro_batch:  # then the size is part of the method
            return compute(Limit(self.micro_batch))
        if not self.micro_tokens:
            warning = "a micro-batch has {} rows"
            result, self.micro_batch = within_memory(lambda n: compute(Limit(n)), self.micro_batch, warning, undo)
            return result
        rows = most_rows(self.config)
        lengths = pass_lengths(rollouts).tolist()
        longest = max(lengths)  # a pass of one row is the least
        most = Limit(rows, self.micro_tokens).most_tokens(lengths)
        result, tokens = within_memory(
            lambda n: compute(Limit(rows, n)), most, "a micro-batch has {} tokens", undo,
            halve=lambda n: max(n // 2, longest), least=longest,
        )  # fmt: skip
        if tokens < most:
            self.micro_tokens = tokens
        return result

    def _forget_gradients(self) -> None:
        self.optimizer.zero_grad()
        if self.critic:
            self.critic_optimizer.zero_grad()

    def update_critic(self, backward: Callable[[Limit], float], rollouts: Rollouts) -> float:
        """One step of the critic's optimizer; `backward(limit)` makes the backward passes and returns the loss."""
        loss = self._within_memory(backward, rollouts)
        self._descend(self.critic, self.critic_optimizer)
        return loss

    def _descend(self, module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> float:
        """A step of an optimizer, its gradient clipped; returns the norm from before."""
        norm = torch.nn.utils.clip_grad_norm_(module.parameters(), self.config.clip_norm).item()
        if norm != norm or norm == float("inf"):
            raise RlinoError(f"the gradient is not finite at step {self.step_done + 1}: lower the learning rate")
        optimizer.step()
        optimizer.zero_grad()
        return norm

    def row_logprobs(self, model, rollouts: Rollouts, rows: torch.Tensor, **more: bool) -> tuple[torch.Tensor, ...]:
        """`response_logprobs` of some rows, at the run's temperature and precision."""
        packed = self.model.device.type == "cuda" or self.micro_tokens > 0
        with autocast(self.config.precision, model):
            return response_logprobs(model, rollouts, rows, self.config.temperature, packed=packed, **more)

    def row_values(self, rollouts: Rollouts, rows: torch.Tensor) -> torch.Tensor:
        """The critic's values of some rows, [B, T'], at the run's precision."""
        with autocast(self.config.precision, self.model):
            return self.critic(rollouts, rows)

    def of_distributions(
        self, of: Callable[[torch.Tensor], torch.Tensor], rollouts: Rollouts, reference: bool = False
    ) -> torch.Tensor:
        """`logprobs.of_distributions` of all rows, [N, T], at the run's temperature and precision."""

        def rows_of(model: Any, r: Rollouts, rows: torch.Tensor) -> torch.Tensor:
            with autocast(self.config.precision, model):
                return of_distributions(of, model, r, rows, self.config.temperature)

        return self._by_model(rows_of, rollouts, reference)

    def all_logprobs(self, rollouts: Rollouts, reference: bool = False) -> torch.Tensor:
        """Log-probs of all rows under the policy as it is, or under the reference, which it started from: [N, T]."""
        return self._by_model(lambda *given: self.row_logprobs(*given)[0], rollouts, reference)

    def _by_model(self, compute: Callable[..., torch.Tensor], rollouts: Rollouts, reference: bool) -> torch.Tensor:
        """`of_all_rows` of what a model makes of some rows: the policy as it is, or the reference."""
        model = (self.reference or self.model) if reference else self.model
        with reference_context(model) if reference else nullcontext():
            return self.of_all_rows(partial(compute, model), rollouts)

    def critic_values(self, rollouts: Rollouts) -> torch.Tensor:
        """The critic's values of all rows, [N, T] float32, of the state before each token."""
        return self.of_all_rows(self.row_values, rollouts)

    def of_all_rows(self, compute: Callable[..., torch.Tensor], rollouts: Rollouts) -> torch.Tensor:
        """What `compute` makes of some rows, [B, T'], for all of them without gradient: [N, T] on the CPU."""
        everything = torch.arange(len(rollouts.ids))  # [N]
        return self._within_memory(partial(self.of_rows, compute, rollouts, everything), rollouts)

    def of_rows(
        self, compute: Callable[..., torch.Tensor], rollouts: Rollouts, rows: torch.Tensor, limit: Limit
    ) -> torch.Tensor:
        """The same for some rows [M], as many at a time as the limit allows; 0 in all others."""
        out = torch.zeros_like(rollouts.logprobs, device=self.model.device)  # [N, T]
        with torch.inference_mode():
            for part in micro_batches(rollouts, rows, limit):
                values = compute(rollouts, part)  # [B, T']
                out[to_device(part, out.device), : values.shape[1]] = values.to(out)
        return out.cpu().clone()

    def _probe(self, rollouts: Rollouts, update: int) -> None:
        """Measure an update before it is made, on the steps and updates that are probed."""
        c, step = self.config, self.step_done + 1
        if c.probe_every and (step == 1 or step % c.probe_every == 0) and is_probed(update):
            trainable = [p for p in self.model.parameters() if p.requires_grad]
            logprobs = partial(self.row_logprobs, self.model, rollouts)
            measured = probe(logprobs, trainable, rollouts, c.micro_batch)
            self.probes.append({"step": step, "update": update, **measured})

    # --- evaluating

    def evaluate(self) -> dict[str, float | int | None]:
        """The `eval/…` columns of the policy as it is."""
        rollouts = self._eval_rollouts(self.policy)
        self.responses = list(response_rows(rollouts, self.task, self.step_done, final=False))
        columns = held_out.eval_columns(rollouts) | self._of_environment(rollouts)
        if not self.config.eval_base:
            return columns
        under_base = self.all_logprobs(rollouts, reference=True)  # [N, T]
        now = self.all_logprobs(self.base_rollouts)  # [M, T]
        return columns | held_out.base_columns(rollouts, under_base, self.base_rollouts, now)

    def _of_environment(self, rollouts: Rollouts) -> dict[str, float | None]:
        """The columns of what an environment wrote; of a task that has one."""
        if not has_environment(self.task):
            return {}
        foreign = rollouts.written & ~rollouts.mask  # [N, T]
        logprobs = self.all_logprobs(replace(rollouts, mask=foreign))[foreign]  # [M]
        mean = logprobs.double().mean().item() if len(logprobs) else None
        return {"eval/consulted": foreign.any(1).double().mean().item(), "eval/environment_logprob": mean}

    def _eval_rollouts(self, policy: Policy) -> Rollouts:
        c = self.config
        return sample_graded(policy, self.task, self.eval_problems, c.eval_samples, seed=c.seed, **c.sampling)

    @cached_property
    def base_rollouts(self) -> Rollouts:
        """What the base answers to the problems of the evaluations."""
        model = self.reference or self.model
        with reference_context(model):
            return self._eval_rollouts(Policy(model, self.policy.tokenizer))

    def test(self) -> dict[str, Any]:
        """The summary of the trained policy on the whole test split."""
        c = self.config
        self.responses = []
        frame = held_out.evaluate(
            self.policy, self.task, held_out.test_problems(self.task), samples=c.test_samples, seed=c.seed,
            on_rollouts=lambda r: self.responses.extend(response_rows(r, self.task, self.step_done, final=True)),
            **c.sampling,
        )  # fmt: skip
        return held_out.summarise(frame)

    # --- checkpointing

    def state(self) -> dict[str, Any]:
        """Everything that resuming a run needs."""
        adapters = {n: p.detach() for n, p in self.model.named_parameters() if p.requires_grad}
        critic = {}
        if self.critic:
            critic = {"critic": self.critic.state_dict(), "critic_optimizer": self.critic_optimizer.state_dict()}
        return {
            "step": self.step_done,
            "model": adapters if self.config.lora_rank else self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "micro_tokens": self.micro_tokens,  # free memory may be another when a run resumes, and its rounding
            "rng": torch.get_rng_state(),
            **critic,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.step_done = state["step"]
        self.model.load_state_dict(state["model"], strict=not self.config.lora_rank)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.critic:
            self.critic.load_state_dict(state["critic"])
            self.critic_optimizer.load_state_dict(state["critic_optimizer"])
        if self.micro_tokens:
            self.micro_tokens = state.get("micro_tokens") or self.micro_tokens
        torch.set_rng_state(state["rng"])


class Sums:
    """Adds up what micro-batches report into one number per update, then averages over the updates of a step."""

    def __init__(self) -> None:
        self.total: dict[str, float] = defaultdict(float)
        self.norms: list[float] = []  # of the gradient, one an update

    def add(self, values: dict[str, float], share: float) -> None:
        for k, v in values.items():
            self.total[k] += v * share

    def means(self) -> dict[str, float | None]:
        n = max(len(self.norms), 1)
        means = {k: self.total[k] / n if k in self.total else None for k in ("loss", "kl", "clip_ratio")}
        return means | {"grad_norm": sum(self.norms) / n}
