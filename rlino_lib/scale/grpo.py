"""An `Objective` inside TRL's `GRPOTrainer`: its advantages, its loss, and nothing else of it changed (chapter 12)."""

from typing import Any

import torch
from trl import GRPOTrainer

from rlino_lib.evaluation.graded import sample_graded
from rlino_lib.methods.credit import credit, without_likely
from rlino_lib.methods.loss import Batch, micro_share, policy_loss
from rlino_lib.policy.models import Policy
from rlino_lib.scale.records import Pool, Recorded, Row
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.traces import policy_weighting
from rlino_lib.training.trainer import rewarded
from rlino_lib.training.updates.policy_gradient import graded_rows


def counted(inputs: dict[str, Any]) -> torch.Tensor:
    """The tokens that the loss counts, [b, T] of 0 and 1: those that the policy wrote, and that are unlikely enough."""
    mask = inputs["completion_mask"]
    return mask * inputs["tool_mask"] if "tool_mask" in inputs else mask


class ObjectiveTrainer(Recorded, GRPOTrainer):
    """TRL's `GRPOTrainer` with the advantages and the loss of an `Objective`."""

    def __init__(self, config: TrainConfig, pool: Pool, **settings: Any) -> None:
        self.bind(config, pool)
        self.graded: list[tuple[str, Any]] = []  # text and grade of this process's last responses
        self.truncated: list[bool] = []  # which of them reached the cap
        self.rows: list[Row] = []  # of the last responses of all processes
        self.problem_places: list[int] = []  # the problems that this process samples, in the pool
        super().__init__(reward_funcs=[self.reward], **settings)
        if pool.written_into:
            self.rollout_func = self.sample_own  # set here: TRL's own argument warns that it may change

    def reward(self, completions: list[str], problem: list[int], **_: Any) -> list[float]:
        """The task's verifier as a reward function of TRL."""
        if not self.pool.written_into:
            self.graded = self.grade(completions, problem)
        return [grade.reward for _, grade in self.graded]

    def sample_own(self, prompts: list[str], _: Any) -> dict[str, list[list]]:
        """The `rollout_func` of a task that writes into its responses: those of `sample_graded`, in place of TRL's own.

        TRL reads `env_mask`, 1 on the policy's tokens and 0 on those of an environment or an opening, and calls it
        `tool_mask` from there on. Each process draws its own responses, every one a group of its own.
        """
        c = self.config
        problems = [self.pool.problems[k] for k in self.problem_places]
        with self.whole_model() as model:
            rollouts = sample_graded(
                Policy(model, self.processing_class), self.pool.task, problems, 1, seed=torch.initial_seed(),
                max_new_tokens=c.max_new_tokens, temperature=c.temperature, precision=c.precision,
            )  # fmt: skip
        self.graded = list(zip(rollouts.texts, rollouts.grades, strict=True))
        self.truncated = rollouts.truncated.tolist()

        def rows(values: torch.Tensor, inside: torch.Tensor) -> list[list]:
            return [row[where].tolist() for row, where in zip(values, inside, strict=True)]

        written = rollouts.written  # [n, T]
        return {
            "prompt_ids": rows(rollouts.prompt_ids, rollouts.prompt_mask),
            "completion_ids": rows(rollouts.ids, written),
            "logprobs": rows(rollouts.logprobs, written),
            "env_mask": rows(rollouts.mask.long(), written),
        }

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> tuple[list[list[int]], list | None]:
        """TRL samples up to EOS or the cap; what follows a stop string of the task is removed."""
        ids, logprobs = super()._generate_single_turn(*args, **kwargs)
        ids, self.truncated = self.until_stop(ids)
        return ids, logprobs and [kept[: len(row)] for kept, row in zip(logprobs, ids, strict=True)]

    def roll(self, inputs: list[dict[str, Any]], samples: int) -> list[Row]:
        self.num_generations_eval = samples
        self._generate_and_score_completions(inputs)
        return self.rows

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL samples and scores; the advantages [n], or [n, T], and which rows stay [n] are the objective's."""
        step = self.step_done + 1
        self.problem_places = [row["problem"] for row in inputs]
        if self.model.training:
            self.reseed(0, step)
        out = super()._generate_and_score_completions(inputs)
        self.rows = self.gather_rows(inputs, out, self.graded, self.truncated)
        if not self.model.training:
            return out
        c, o = self.config, self.objective
        n, width = out["completion_ids"].shape
        for place, row in enumerate(self.rows):  # TRL hands out whole groups in the order of the processes
            row.place = place
        rollouts = self.rollouts = rewarded(self.to_rollouts(self.rows, c.group_size), c.reward)
        ref = None
        if o.needs_reference:
            ref = torch.zeros_like(rollouts.logprobs)  # [N, T]
            ref[rollouts.written] = torch.cat([row.reference for row in self.rows])
        adv, keep = credit(o, graded_rows(c, rollouts, rollouts.logprobs, ref))  # [N] or [N, T], [N]
        mask = without_likely(o, rollouts.mask, rollouts.logprobs)  # [N, T]
        if self.recorder.keeps_groups(step):
            self.weighting = policy_weighting(o, adv, keep, mask, c.max_new_tokens)
        mine = slice(self.accelerator.process_index * n, (self.accelerator.process_index + 1) * n)
        if o.unlikely is not None:
            out["tool_mask"] = mask[mine, :width].to(out["completion_mask"])
        adv = adv[mine] if adv.ndim == 1 else adv[mine, :width]
        return out | {"advantages": adv.to(out["advantages"]), "keep": keep[mine].to(out["advantages"].device)}

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        """TRL cuts new samples into micro-batches; each receives what its update counts over all processes."""
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if self._buffered_inputs is not before:
            size = self.args.gradient_accumulation_steps
            for k in range(0, len(self._buffered_inputs), size):
                update = self._buffered_inputs[k : k + size]
                mine = sum(torch.stack([b["keep"].sum(), counted(b)[b["keep"]].sum()]) for b in update)
                rows, tokens = self.accelerator.reduce(mine, "sum").tolist()
                for b in update:
                    b |= {"update_rows": rows, "update_tokens": tokens}
        return inputs

    def _compute_loss(self, model, inputs: dict[str, Any]) -> torch.Tensor:
        """The micro-batch's part of the update's loss, times the processes, over which gradients are averaged."""
        ids, mask, keep = inputs["completion_ids"], counted(inputs), inputs["keep"]
        whole = torch.cat([inputs["prompt_ids"], ids], 1)  # [b, S+T]
        attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)  # [b, S+T]
        new, entropies, _ = self._get_per_token_logps_and_entropies(
            model, whole, attention, ids.shape[1], compute_entropy=self.objective.needs_entropies
        )  # [b, T], [b, T] or None
        adv = inputs["advantages"]  # [b] or [b, T]
        if "importance_sampling_ratio" in inputs:  # of vLLM, which samples with rounding of its own
            adv = (adv if adv.ndim == 2 else adv[:, None]) * inputs["importance_sampling_ratio"]  # [b, T] or [b, 1]
            adv = adv.expand(new.shape)  # [b, T]
        old, ref = inputs.get("old_per_token_logps"), inputs.get("ref_per_token_logps")  # old is None at one update
        old, ref, entropies = (None if t is None else t[keep] for t in (old, ref, entropies))  # [k, T]
        batch = Batch(new[keep], adv[keep], mask[keep].bool(), old, ref, self.config.max_new_tokens, entropies)
        loss = policy_loss(self.objective, batch)
        share = micro_share(self.objective, mask[keep], inputs["update_rows"], inputs["update_tokens"])
        self.sums.add({"loss": loss.loss.item(), **loss.metrics}, share)
        return loss.loss * share * self.accelerator.num_processes
