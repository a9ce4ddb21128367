"""Turns a TRL trainer into a recorded run: the schedule, the samples, the evaluations and the records of `rlino train`.

Every process sees the responses of all of them, so the numbers of a step, the guard rails and the advantages are the
same everywhere and nothing has to be sent back; the main process alone writes.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from accelerate.utils import gather_object
from torch.nn.utils.rnn import pad_sequence
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel
from trl.distributed import DistributedBackend
from trl.models.utils import unwrap_model_for_generation

from rlino_lib.errors import RlinoError
from rlino_lib.evaluation.evaluate import eval_columns, outcome_metrics, problem_row, summarise, test_problems
from rlino_lib.folders import write_json
from rlino_lib.methods.catalogue import varied
from rlino_lib.policy.models import Policy, eos_ids
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.policy.stopping import StopStrings
from rlino_lib.tasks import Grade, Problem, get_task
from rlino_lib.tasks.base import has_context
from rlino_lib.training import run, traces, trainer
from rlino_lib.training.config import TrainConfig

MARK = "rlino.json"  # written last into a checkpoint: one without it is half a checkpoint


@dataclass
class Row:
    """One graded response, without padding: what processes send each other."""

    place: int  # in the order of the whole batch, groups together
    problem: int  # in the pool
    text: str
    grade: Grade
    truncated: bool  # neither EOS nor a stop string within the cap
    prompt: torch.Tensor  # [S] int64
    ids: torch.Tensor  # [T] int64, EOS included
    own: torch.Tensor  # [T], 1 on the tokens that the policy wrote
    logprobs: torch.Tensor  # [T] float32, nats, of the policy that sampled
    entropies: torch.Tensor  # [T] float32, nats
    reference: torch.Tensor | None = None  # [T] float32, nats, where the objective reads it


class Pool:
    """The problems of a run by one running number: those trained on, then the held-out ones, then the test split."""

    def __init__(self, config: TrainConfig) -> None:
        self.task = get_task(config.task, **config.task_settings)
        self.train = self.task.problems("train")
        held_out = self.task.problems(config.eval_split, config.eval_problems) if config.eval_every else []
        test = test_problems(self.task) if config.test_samples else []
        self.problems: list[Problem] = [*self.train, *held_out, *test]
        self.held_out = range(len(self.train), len(self.train) + len(held_out))
        self.test = range(self.held_out.stop, len(self.problems))
        # Whether responses hold tokens that the policy does not write: of an environment, or an opening.
        self.written_into = has_context(self.task) or any(problem.opening for problem in self.problems)

    def row(self, k: int, place: int = 0) -> dict[str, Any]:
        """A row of a data set: the prompt, and which problem it is of."""
        return {"prompt": self.task.prompt(self.problems[k]), "problem": k, "place": place}

    def batches(self, config: TrainConfig) -> Iterator[int]:
        """The problems of all steps in the order in which `rlino train` has them."""
        for step in range(1, config.steps + 1):
            yield from trainer.batch_of_problems(range(len(self.train)), step, config.prompts, config.seed)


if TYPE_CHECKING:
    from transformers import Trainer as Mixed
else:
    Mixed = object


class Recorded(Mixed):
    """Mixed into a trainer of TRL, whose `roll` samples and grades prompts; everything else of a run is here."""

    lr_scheduler: LambdaLR | None
    lr_at: Any = trainer.Trainer.lr_at  # the schedule of `rlino train`, of self.config

    def bind(self, config: TrainConfig, pool: Pool) -> None:
        """Set what the run is."""
        self.config = config
        self.pool = pool
        self.recorder = run.Recorder(self, self.evaluate_policy)  # the main process gives its own a writer
        self.objective = varied(config.method, config.objective_settings)
        self.updates = config.epochs * config.minibatches  # of a step
        self.sums = trainer.Sums()
        self.rollouts: Rollouts | None = None  # of the step under way, of all processes
        self.responses: list[dict[str, Any]] = []  # of the last evaluation, a row each
        self.started = False  # whether a step was begun
        self.weighting: dict[str, torch.Tensor] = {}  # its rows' advantages and weights, where they are traced

    @property
    def step_done(self) -> int:
        """Completed steps of training."""
        return self.state.global_step // self.updates

    # --- what a trainer has to offer

    def roll(self, inputs: list[dict[str, Any]], samples: int) -> list[Row]:
        """Sample and grade this process's share of a batch; returns the rows of all processes."""
        raise NotImplementedError

    def to_rollouts(self, rows: Iterable[Row], samples: int) -> Rollouts:
        """The rows of whole groups as `Rollouts`, in the order of their places."""
        rows = sorted(rows, key=lambda r: r.place)
        first = rows[::samples]  # P
        pad = self.processing_class.pad_token_id

        def padded(tensors: Iterable[torch.Tensor], value: float = 0.0, side: str = "right") -> torch.Tensor:
            return pad_sequence(list(tensors), batch_first=True, padding_value=value, padding_side=side)

        mask = padded(r.own for r in rows).bool()  # [N, T]
        return Rollouts(
            prompts=[self.pool.task.prompt(self.pool.problems[r.problem]) for r in first],
            prompt_ids=padded((r.prompt for r in first), pad, "left"),  # [P, S]
            prompt_mask=padded((torch.ones_like(r.prompt) for r in first), 0, "left").bool(),  # [P, S]
            ids=padded((r.ids for r in rows), pad),  # [N, T]
            mask=mask,
            logprobs=padded(r.logprobs for r in rows) * mask,  # [N, T]
            entropies=padded(r.entropies for r in rows) * mask,  # [N, T]
            truncated=torch.tensor([r.truncated for r in rows]),  # [N]
            texts=[r.text for r in rows],
            group_size=samples,
            problems=[self.pool.problems[r.problem] for r in first],
            grades=[r.grade for r in rows],
            written=padded(torch.ones_like(r.ids) for r in rows).bool(),  # [N, T]
        )

    @property
    def stop_ids(self) -> list[int]:
        """Every token id that ends a response."""
        return eos_ids(Policy(self.model, self.processing_class))

    def until_stop(self, ids: Sequence[Sequence[int]]) -> tuple[list[list[int]], list[bool]]:
        """Responses up to EOS or the token that completes a stop string of the task, and whether there was neither."""
        stops = StopStrings(self.processing_class, getattr(self.pool.task, "stop", ()), torch.device("cpu"))
        eos = torch.tensor(self.stop_ids)  # [E]

        kept, truncated = [], []
        for row in ids:
            tokens = torch.tensor(row, dtype=torch.long)[:, None]  # [t, 1]
            ends = torch.isin(tokens, eos)  # [t, 1]
            if stops:
                ends |= stops.reached(tokens, torch.ones_like(ends))
            lengths = (ends.nonzero()[:, 0] + 1).tolist()  # up to each end
            kept.append(list(row[: lengths[0]] if lengths else row))
            truncated.append(not lengths)
        return kept, truncated

    def grade(self, texts: Sequence[str], problems: Iterable[int]) -> list[tuple[str, Grade]]:
        """Each text with the verifier's grade of it, as an answer to that problem of the pool."""
        task, pool = self.pool.task, self.pool.problems
        return [(text, task.grade(pool[k], text)) for text, k in zip(texts, problems, strict=True)]

    def gather_rows(
        self, inputs: Sequence[dict[str, Any]], sampled: dict[str, torch.Tensor], graded: Sequence[tuple[str, Grade]],
        truncated: Sequence[bool],
    ) -> list[Row]:  # fmt: skip
        """The rows of all processes, from what this one sampled and graded.

        `sampled` has TRL's names: prompt_ids and prompt_mask [n, S], completion_ids and completion_mask [n, T], where
        there is a reference ref_per_token_logps [n, T], and where others than the policy write tool_mask [n, T].
        """
        prompts, prompt_mask, ids, mask = (
            sampled[k] for k in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
        )
        own = sampled.get("tool_mask", mask)  # [n, T]
        columns = [ids, own, *self.score(self.model, prompts, prompt_mask, ids, mask)]  # [n, T] each
        if (reference := sampled.get("ref_per_token_logps")) is not None:
            columns.append(reference.float())
        rows = []
        for i, (question, (text, grade)) in enumerate(zip(inputs, graded, strict=True)):
            kept = [column[i][mask[i].bool()].cpu() for column in columns]
            prompt = prompts[i][prompt_mask[i].bool()].cpu()
            rows.append(Row(question["place"], question["problem"], text, grade, truncated[i], prompt, *kept))
        return gather_object(rows)

    def score(self, model, prompts: torch.Tensor, prompt_mask: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor):
        """Log-probs and entropies of responses ids [B, T] after prompts [B, S], without gradient: both [B, T]."""
        parts = []
        for k in range(0, len(ids), self.args.per_device_train_batch_size):
            cut = slice(k, k + self.args.per_device_train_batch_size)
            whole = torch.cat([prompts[cut], ids[cut]], 1)  # [b, S+T]
            attention = torch.cat([prompt_mask[cut], mask[cut]], 1)  # [b, S+T]
            labels = whole.masked_fill(attention == 0, -100)  # [b, S+T]
            labels[:, : prompts.shape[1]] = -100
            with torch.no_grad(), self.accelerator.autocast():
                out = model(input_ids=whole, attention_mask=attention, labels=labels, fused_lm_head=True)
            parts.append((out.log_probs[:, -ids.shape[1] :], out.entropy[:, -ids.shape[1] :]))
        return tuple(torch.cat(column).float() for column in zip(*parts, strict=True))  # [B, T], [B, T]

    @contextmanager
    def whole_model(self) -> Iterator[PreTrainedModel]:
        """The model to sample with: without what wraps it, and with all of its weights."""
        with (
            unwrap_model_for_generation(self.model_wrapped, self.accelerator) as model,
            torch.no_grad(),
            DistributedBackend(self.accelerator).summon_full_params(self.model_wrapped, recurse=False),
        ):
            yield model

    def reseed(self, *what: int) -> None:
        """Random numbers of this process that depend on nothing but the seed, what is sampled, and the process."""
        torch.manual_seed(hash((self.config.seed, *what, self.accelerator.process_index)) % 2**63)

    # --- the trainer's own hooks

    def create_scheduler(self, num_training_steps: int, optimizer=None) -> LambdaLR:
        if self.lr_scheduler is None:
            rate = self.config.lr
            self.lr_scheduler = LambdaLR(
                optimizer or self.optimizer, lambda done: self.lr_at(done // self.updates + 1) / rate
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        self.started = True
        if self.state.global_step == 0:
            self.recorder.before_training()
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Called after every update, and once more at the end, without a learning rate."""
        for kept in self._metrics.values():  # TRL's own, which are not used
            kept.clear()
        if "learning_rate" not in logs:
            return
        step, within = divmod(self.state.global_step, self.updates)
        norm = logs.get("grad_norm")
        if norm is None or not math.isfinite(norm):
            raise RlinoError(f"the gradient is not finite at step {step + bool(within)}: lower the learning rate")
        self.sums.norms.append(norm)
        if not within:
            self._end_step(step)

    def _save_checkpoint(self, model, trial) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.recorder.writer:
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            write_json(folder / MARK, {"step": self.step_done, **self.recorder.state()})

    def create_model_card(self, *args, **kwargs) -> None:
        """None: config.json describes the run."""

    def _send_telemetry(self) -> None:
        """None: TRL would report every run to its makers."""

    # --- a step, an evaluation

    def _end_step(self, step: int) -> None:
        c = self.config
        sums = trainer.Sums()
        for own in gather_object([self.sums.total]):
            sums.add(own, 1.0)
        sums.norms, self.sums = self.sums.norms, trainer.Sums()
        metrics = {"step": step, "samples": step * c.prompts * c.group_size, **outcome_metrics(self.rollouts)}
        metrics |= {**sums.means(), "lr": self.lr_at(step)}
        self.recorder.step(metrics, self.rollouts, self.weighting, self.processing_class)

    def evaluate_policy(self) -> dict[str, Any]:
        """The `eval/…` columns of the policy as it is."""
        samples = self.config.eval_samples
        parts = self._held_out(self.pool.held_out, samples, self.step_done)
        rollouts = self.to_rollouts([row for part in parts for row in part], samples)
        self.responses = list(traces.response_rows(rollouts, self.pool.task, self.step_done, final=False))
        return eval_columns(rollouts)

    def test(self) -> dict[str, Any]:
        """The summary of the trained policy on the test split."""
        samples = self.config.test_samples
        problems, self.responses = [], []
        for part in self._held_out(self.pool.test, samples, self.config.steps + 1):
            rollouts = self.to_rollouts(part, samples)
            problems += [problem_row(rollouts, i, self.pool.task) for i in range(len(rollouts.prompts))]
            self.responses += traces.response_rows(rollouts, self.pool.task, self.step_done, final=True)
        return summarise(pd.DataFrame(problems))

    def _held_out(self, problems: range, samples: int, step: int) -> Iterator[list[Row]]:
        """Graded responses to problems of the pool, part by part; each part is about as large as a step's batch."""
        world, rank, size = self.accelerator.num_processes, self.accelerator.process_index, len(problems)
        most = max(1, self.config.prompts * self.config.group_size // (world * samples))  # problems of a process
        was_training = self.model.training
        self.model.eval()
        for start in range(0, size, most * world):
            share = min(most, math.ceil((size - start) / world))
            places = range(start + rank * share, start + (rank + 1) * share)
            mine = [(k, problems[min(k, size - 1)]) for k in places]  # a process without a problem repeats the last
            self.reseed(1, step, start)
            rows = self.roll([self.pool.row(p, k * samples + j) for k, p in mine for j in range(samples)], samples)
            yield [row for row in rows if row.place < size * samples]
        self.model.train(was_training)
