"""One step for all methods: sample, grade, weigh, update (chapters 04 and 05). What keeps the records is `train.py`."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from typing import Any, TypeVar

import torch
import transformers

from rlino_lib.errors import RlinoError, RlinoWarning
from rlino_lib.evaluation.evaluate import (
    base_columns,
    eval_columns,
    evaluate,
    outcome_metrics,
    summarise,
    test_problems,
)
from rlino_lib.methods.catalogue import varied
from rlino_lib.methods.credit import credit
from rlino_lib.methods.loss import micro_share, policy_loss
from rlino_lib.methods.objective import Objective
from rlino_lib.policy.device import autocast, is_out_of_memory, pick_device, policy_precision
from rlino_lib.policy.logprobs import response_logprobs
from rlino_lib.policy.models import Policy, add_lora, load_policy, recompute_layers, reference_context, weights_hash
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.policy.sampling import sample
from rlino_lib.tasks import Problem, get_task
from rlino_lib.training import sft
from rlino_lib.training.config import TrainConfig, run_settings
from rlino_lib.training.staleness import is_probed, probe
from rlino_lib.training.traces import policy_credit, response_rows, supervised_credit

# Methods that train as literal supervised learning: variant and weights of the data set. The rest are objectives, and
# so are these where `objective_settings` changes them: at one update a batch the gradient is the same (chapter 06).
SFT_METHODS = {
    "f_isft_pos": ("pos", "unit"),
    "f_isft_neg": ("neg", "unit"),
    "f_isft_posneg": ("posneg", "group_balanced"),
    "f_isft_posneg_unit": ("posneg", "unit"),
}


def describe(config: TrainConfig, policy: Policy) -> dict[str, Any]:
    """What config.json holds: the settings, with the model by its path in the repository, the weights and versions."""
    return config.recorded() | {
        "model": run_settings(config)["model"],
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


def batch_of_problems(problems: Sequence[Problem], step: int, size: int, seed: int) -> list[Problem]:
    """The problems of a step (from 1): a new seeded order each epoch, the same for every method."""
    places = (divmod(k, len(problems)) for k in range((step - 1) * size, step * size))
    return [problems[epoch_order(len(problems), epoch, seed)[place]] for epoch, place in places]


T = TypeVar("T")


class Trainer:
    """Holds what a step needs; `step()` does one and returns its metrics. `train` drives it and keeps the records."""

    def __init__(self, config: TrainConfig, policy: Policy | None = None) -> None:
        self.objective: Objective = varied(config.method, config.objective_settings)
        self.task = get_task(config.task, **config.task_settings)
        device = pick_device(config.device)
        self.policy = policy or load_policy(config.model, device=device)
        self.problems = self.task.problems("train")
        self.eval_problems = self.task.problems(config.eval_split, config.eval_problems) if config.eval_every else []
        self.config = config = replace(config, precision=policy_precision(config.precision, self.policy.model))
        self.record = describe(config, self.policy)
        torch.manual_seed(config.seed)
        if config.lora_rank:
            settings = {"rank": config.lora_rank, "alpha": config.lora_alpha, "targets": config.targets}
            lora = add_lora(self.policy.model, **settings)
            self.policy = Policy(lora, self.policy.tokenizer)
        self.model = self.policy.model
        self.reference = None
        # LoRA gives its reference by switching the adapters off.
        if (self.objective.needs_reference or config.eval_base) and not config.lora_rank:
            self.reference = load_policy(config.model, device=device).model if policy is None else _copy(policy.model)
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trainable, lr=config.lr, betas=(0.9, 0.95), weight_decay=0.0)
        self.step_done = 0
        self.micro_batch = config.micro_batch  # halved where memory runs out
        self.stop = tuple(getattr(self.task, "stop", ()))  # strings that end a response
        self.probes: list[dict[str, Any]] = []  # of the last step; empty where it was not probed
        self.responses: list[dict[str, Any]] = []  # of the last evaluation, a row each

    def lr_at(self, step: int) -> float:
        """Linear warm-up, then constant or linear to zero; steps count from 1."""
        c = self.config
        warm = min(1.0, step / c.warmup) if c.warmup else 1.0
        return c.lr * warm * ((c.steps - step + 1) / c.steps if c.schedule == "linear" else 1.0)

    def evaluate(self) -> dict[str, float | int | None]:
        """The `eval/…` columns of the policy as it is."""
        rollouts = self._eval_rollouts(self.policy)
        self.responses = list(response_rows(rollouts, self.task, self.step_done, final=False))
        if not self.config.eval_base:
            return eval_columns(rollouts)
        under_base, now = self._logprobs(rollouts, base=True), self._logprobs(self.base_rollouts)
        return eval_columns(rollouts) | base_columns(rollouts, under_base, self.base_rollouts, now)

    def _eval_rollouts(self, policy: Policy) -> Rollouts:
        c = self.config
        rollouts = self._sample(policy, self.eval_problems, c.eval_samples, c.seed)
        return rollouts.grade(self.task, self.eval_problems)

    @cached_property
    def base_rollouts(self) -> Rollouts:
        """What the base answers to the problems of the evaluations."""
        model = self.reference or self.model
        with reference_context(model):
            return self._eval_rollouts(Policy(model, self.policy.tokenizer))

    def test(self) -> dict[str, Any]:
        """The summary of the trained policy on the whole test split."""
        c = self.config
        problems, self.responses = test_problems(self.task), []
        found = evaluate(
            self.policy, self.task, problems, samples=c.test_samples, seed=c.seed, max_new_tokens=c.max_new_tokens,
            temperature=c.temperature, precision=c.precision,
            on_rollouts=lambda r: self.responses.extend(response_rows(r, self.task, self.step_done, final=True)),
        )  # fmt: skip
        return summarise(found)

    def sample(self, step: int) -> Rollouts:
        c = self.config
        batch = batch_of_problems(self.problems, step, c.prompts, c.seed)
        return self._sample(self.policy, batch, c.group_size, c.seed * 1_000_003 + step).grade(self.task, batch)

    def _sample(self, policy: Policy, problems: Sequence[Problem], n: int, seed: int) -> Rollouts:
        c, prompts = self.config, [self.task.prompt(p) for p in problems]
        return sample(
            policy, prompts, n, max_new_tokens=c.max_new_tokens, temperature=c.temperature, seed=seed,
            stop_strings=self.stop, precision=c.precision,
        )  # fmt: skip

    def step(self) -> tuple[dict[str, Any], Rollouts, dict[str, torch.Tensor]]:
        """One batch of samples and its updates; returns metrics, the rollouts, and what each row was weighed by."""
        step = self.step_done + 1
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr_at(step)
        rollouts = self.sample(step)
        self.probes = []
        if self.config.gradient_checkpointing:
            recompute_layers(self.model)
        supervised = self.config.method in SFT_METHODS and not self.config.objective_settings
        update = self._supervised if supervised else self._policy_gradient
        learned, credit = update(rollouts, random.Random(f"minibatches-{self.config.seed}-{step}"))
        self.step_done = step
        n = self.config.prompts * self.config.group_size
        metrics = {"step": step, "samples": step * n, **outcome_metrics(rollouts), **learned, "lr": self.lr_at(step)}
        return metrics, rollouts, credit

    def _policy_gradient(self, rollouts: Rollouts, rng: random.Random) -> tuple[dict, dict]:
        c, o, old = self.config, self.objective, rollouts.logprobs  # old: [N, T]
        if c.precision != "fp32":  # sampling rounds otherwise than training, and a ratio would not start from 1
            old = self._logprobs(rollouts)  # [N, T]
        ref = self._logprobs(rollouts, base=True) if o.needs_reference else None  # [N, T]
        truncated = rollouts.truncated  # [N]
        adv, kept = credit(o, rollouts.rewards, c.group_size, rollouts.mask, old, ref, c.max_new_tokens, truncated)
        order, sums = kept.nonzero()[:, 0].tolist(), Sums()
        for _ in range(c.epochs):
            if c.minibatches > 1:
                rng.shuffle(order)
            for k in range(c.minibatches):
                self._probe(rollouts, len(sums.norms) + 1)
                rows = torch.tensor(sorted(order[k :: c.minibatches]), dtype=torch.long)
                for values, share in self._within_memory(partial(self._gradients, rollouts, rows, adv, old, ref)):
                    sums.add(values, share)
                sums.update(self._optimizer_step())
        return sums.means(), policy_credit(o, adv, kept, rollouts, c.max_new_tokens)

    def _gradients(self, rollouts, rows, adv, old, ref, micro_batch: int) -> list[tuple[dict[str, float], float]]:
        """Backward passes over some rows of the rollouts; what each micro-batch measured, and its share of them."""
        o, cap, found = self.objective, self.config.max_new_tokens, []
        tokens = int(rollouts.mask[rows].sum())
        for part in self._micro_batches(rollouts, rows, adv, micro_batch):
            new, mask = self._response_logprobs(self.model, rollouts, part)  # [B, T']
            cut = (part, slice(0, new.shape[1]))
            loss = policy_loss(
                o, new, old[cut].to(new), None if ref is None else ref[cut].to(new),
                adv[part if adv.ndim == 1 else cut].to(new), mask, cap,
            )  # fmt: skip
            share = micro_share(o, mask, len(rows), tokens)
            (loss.loss * share).backward()
            found.append(({"loss": loss.loss.item(), **loss.metrics}, share))
        return found

    def _micro_batches(
        self, rollouts: Rollouts, rows: torch.Tensor, adv: torch.Tensor, micro_batch: int
    ) -> list[torch.Tensor]:
        """Rows of similar length together. A row of advantage 0 has no gradient at β = 0 and is left out.

        Not so where a micro-batch divides by its own tokens: there every row counts.
        """
        if not self.objective.beta and self.objective.normaliser != "micro_token_mean":
            rows = rows[(adv[rows] if adv.ndim == 1 else adv[rows].any(1)) != 0]
        rows = rows[rollouts.lengths[rows].argsort(stable=True)]
        return list(rows.split(micro_batch)) if len(rows) else []

    def _within_memory(self, compute: Callable[[int], T]) -> T:
        """`compute(micro_batch)`, from the start with half the rows where memory runs out.

        Gradients are those of the sum over micro-batches, whatever their size; half of such a sum, which an exception
        leaves behind, is thrown away.
        """
        while True:
            try:
                return compute(self.micro_batch)
            except RuntimeError as e:
                sized = self.objective.normaliser == "micro_token_mean"  # then it is part of the method
                if not is_out_of_memory(e) or self.micro_batch == 1 or sized:
                    raise
            self.optimizer.zero_grad()
            self.micro_batch //= 2
            said = f"out of memory: from here on a micro-batch has {self.micro_batch} rows"
            warnings.warn(said, RlinoWarning, stacklevel=2)

    def _response_logprobs(self, model, rollouts: Rollouts, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with autocast(self.config.precision, self.model.device):
            return response_logprobs(model, rollouts, rows, self.config.temperature)

    def _logprobs(self, rollouts: Rollouts, base: bool = False) -> torch.Tensor:
        """Log-probs of all responses under the policy as it is, or under the base it started from: [N, T]."""
        out = torch.zeros_like(rollouts.logprobs)  # [N, T]
        model = self.reference or self.model if base else self.model

        def fill(micro_batch: int) -> None:
            for rows in rollouts.lengths.argsort(stable=True).split(micro_batch):
                logprobs, _ = self._response_logprobs(model, rollouts, rows)
                out[rows, : logprobs.shape[1]] = logprobs.to(out)

        with torch.inference_mode(), reference_context(model) if base else nullcontext():
            self._within_memory(fill)
        return out.clone()

    def _supervised(self, rollouts: Rollouts, rng: random.Random) -> tuple[dict, dict]:
        c = self.config
        dataset = sft.build_dataset(rollouts, *SFT_METHODS[c.method])
        n, pad, sums = len(rollouts.ids), self.policy.tokenizer.pad_token_id, Sums()
        for _ in range(c.epochs):
            for batch in sft.minibatches(dataset, c.minibatches, rng):
                self._probe(rollouts, len(sums.norms) + 1)
                stands_for = n * len(batch) / len(dataset)
                compute = partial(sft.accumulate_gradients, self.model, batch, stands_for, pad)
                loss = self._within_memory(partial(compute, temperature=c.temperature, precision=c.precision))
                sums.add({"loss": loss}, 1.0)
                sums.update(self._optimizer_step())
        return sums.means(), supervised_credit(dataset, rollouts)

    def _probe(self, rollouts: Rollouts, update: int) -> None:
        """Measure an update before it is made, on the steps and updates that are probed."""
        c, step = self.config, self.step_done + 1
        if c.probe_every and (step == 1 or step % c.probe_every == 0) and is_probed(update):
            found = probe(
                lambda rows: self._response_logprobs(self.model, rollouts, rows),
                [p for p in self.model.parameters() if p.requires_grad], rollouts, c.micro_batch,
            )  # fmt: skip
            self.probes.append({"step": step, "update": update, **found})

    def _optimizer_step(self) -> float:
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm).item()
        if norm != norm or norm == float("inf"):
            raise RlinoError(f"the gradient is not finite at step {self.step_done + 1}: lower the learning rate")
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        adapters = {n: p.detach() for n, p in self.model.named_parameters() if p.requires_grad}
        return {
            "step": self.step_done,
            "model": adapters if self.config.lora_rank else self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.step_done = state["step"]
        self.model.load_state_dict(state["model"], strict=not self.config.lora_rank)
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])


def _copy(model):
    import copy

    return copy.deepcopy(model).eval().requires_grad_(False)


class Sums:
    """Adds up what micro-batches report into one number an update, then averages over the updates of a step."""

    def __init__(self) -> None:
        self.total: dict[str, float] = {}
        self.norms: list[float] = []

    def add(self, values: dict[str, float], share: float) -> None:
        for k, v in values.items():
            self.total[k] = self.total.get(k, 0.0) + v * share

    def update(self, grad_norm: float) -> None:
        self.norms.append(grad_norm)

    def means(self) -> dict[str, float | None]:
        n = max(len(self.norms), 1)
        found = {k: self.total[k] / n if k in self.total else None for k in ("loss", "kl", "clip_ratio")}
        return found | {"grad_norm": sum(self.norms) / n}
