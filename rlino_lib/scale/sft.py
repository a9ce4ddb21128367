"""F-ISFT⁺ at scale as the supervised learning that it is: TRL's `SFTTrainer` on the policy's own right responses.

Before every update the policy answers the batch's problems, the right answers become the data set of that update
(`sft.build_dataset`, prompts labelled −100), and `SFTTrainer` learns it. Its own loss is a mean over tokens,

    Σ_i Σ_t −log π(o_it) / Σ_i |o_i|        over the accepted responses i of all processes and micro-batches,

where F-ISFT as `sft.py` has it, and as the paper's gradient needs it, is a mean over responses of means over tokens,

    1/N Σ_i 1/|o_i| Σ_t −log π(o_it)        N counting the sampled responses, accepted or not.

The two agree up to the factor N / accepted where all accepted responses are equally long, and differ otherwise: a token
mean weighs a response by its length, and takes a step as large from one accepted response as from a hundred. So the
loss is overridden, and only that; the model's forward, its fused head and the update stay TRL's.
"""

from typing import Any

import torch
from torch.utils.data import SequentialSampler
from transformers import GenerationConfig
from trl import SFTTrainer
from trl.trainer.utils import add_fused_lm_head

from rlino_lib.scale.records import Pool, Recorded, Row
from rlino_lib.training import sft
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.traces import supervised_weighting


class IsftTrainer(Recorded, SFTTrainer):
    """TRL's `SFTTrainer` whose data set is sampled, graded and filtered anew before each update."""

    loss_is_scaled_for_ga = True  # compute_loss divides by the whole update itself

    def __init__(self, config: TrainConfig, pool: Pool, **settings: Any) -> None:
        self.bind(config, pool)
        super().__init__(data_collator=lambda rows: rows, **settings)
        if config.temperature != 1:  # the likelihood is that of what was sampled from, as `sft.py` has it
            model = self.model.get_base_model() if config.lora_rank else self.model
            add_fused_lm_head(model, temperature=config.temperature, outputs=("log_probs", "entropy", "is_top1"))

    def _get_train_sampler(self, train_dataset=None) -> SequentialSampler:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    def get_batch_samples(self, epoch_iterator, num_batches: int, device) -> tuple[list[dict[str, torch.Tensor]], int]:
        """Take an update's prompts, and hand out its accepted responses in as many micro-batches, with N."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        c, step = self.config, self.state.global_step + 1
        self.model.eval()
        self.reseed(0, step)
        rows = self.roll([row for batch in batches for row in batch], c.group_size)
        self.model.train()
        rollouts = self.rollouts = self.to_rollouts(rows, c.group_size)
        accepted = sft.build_dataset(rollouts, "pos", "unit")
        self.weighting = supervised_weighting(accepted, rollouts)
        mine = accepted[self.accelerator.process_index :: self.accelerator.num_processes]
        spare = sft.Example((self.processing_class.pad_token_id,), (self.processing_class.pad_token_id,), 1, 1.0)
        return [self._collate(mine[k::num_batches], spare, device) for k in range(num_batches)], len(rows)

    def _collate(self, examples: list[sft.Example], spare: sft.Example, device) -> dict[str, torch.Tensor]:
        """Inputs and labels [b, L]; without an example, a row that counts nothing: every process has to take part."""
        inputs, labels, _ = sft.collate(examples or [spare], self.processing_class.pad_token_id)
        return {"input_ids": inputs.to(device), "labels": (labels if examples else labels.fill_(sft.IGNORE)).to(device)}

    def compute_loss(self, model, inputs, return_outputs: bool = False, num_items_in_batch: int | None = None):
        """1/N Σ_i of the mean cross-entropy of response i, times the processes, over which gradients are averaged."""
        out = model(**inputs, fused_lm_head=True)
        mean = -out.log_probs.sum(1) / out.label_mask.sum(1).clamp(min=1)  # [b]
        loss = mean.sum() / num_items_in_batch
        self.sums.add({"loss": loss.item()}, 1.0)
        return loss * self.accelerator.num_processes

    def sample_ids(self, prompts: dict[str, torch.Tensor], places: list[int]) -> torch.Tensor:
        """Responses [n, T] to left padded prompts [n, S]; `places` are those of the rows in the whole batch."""
        c, pad = self.config, self.processing_class.pad_token_id
        sampling = GenerationConfig(
            max_new_tokens=c.max_new_tokens, do_sample=True, temperature=c.temperature, top_k=0, top_p=1.0,
            pad_token_id=pad, eos_token_id=self.stop_ids,
        )  # fmt: skip
        with self.whole_model() as model:
            return model.generate(**prompts, generation_config=sampling)[:, prompts["input_ids"].shape[1] :]

    def roll(self, inputs: list[dict[str, Any]], samples: int) -> list[Row]:
        tokenizer, device = self.processing_class, self.accelerator.device
        prompts = tokenizer([row["prompt"] for row in inputs], return_tensors="pt", padding=True, padding_side="left")
        prompts = {k: prompts[k].to(device) for k in ("input_ids", "attention_mask")}  # [n, S]
        ids = self.sample_ids(prompts, [row["place"] for row in inputs])  # [n, T]
        kept, truncated = self.until_stop(ids.tolist())
        lengths = torch.tensor([len(row) for row in kept], device=device)  # [n]
        mask = (torch.arange(ids.shape[1], device=device) < lengths[:, None]).long()  # [n, T]
        sampled = {"prompt_ids": prompts["input_ids"], "prompt_mask": prompts["attention_mask"]}
        sampled |= {"completion_ids": ids, "completion_mask": mask}
        texts = tokenizer.batch_decode(kept, skip_special_tokens=True)
        graded = self.grade(texts, [row["problem"] for row in inputs])
        return self.gather_rows(inputs, sampled, graded, truncated)
