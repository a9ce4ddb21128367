"""The update of filtered iterative SFT: a data set of right and wrong responses, and cross-entropy (chapter 05)."""

import random
from functools import partial
from typing import Any

from torch import Tensor

from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.training import sft
from rlino_lib.training.micro_batches import Limit
from rlino_lib.training.traces import supervised_weighting


def supervised(trainer: Any, rollouts: Rollouts, rng: random.Random) -> dict[str, Tensor]:
    """The updates of a `Trainer` on the data set that its objective's rule makes of a batch; returns its rows' weights.

    The verifier's verdicts make the data set, whatever the reward is.
    """
    c = trainer.config
    dataset = sft.build_dataset(rollouts, *sft.DATASETS[trainer.objective.advantage])
    for _ in range(c.epochs):
        for batch in sft.minibatches(dataset, c.minibatches, rng):
            stands_for = len(rollouts.ids) * len(batch) / len(dataset)
            trainer.update(rollouts, partial(_gradients, trainer, batch, stands_for))
    return supervised_weighting(dataset, rollouts)


def _gradients(
    trainer: Any, batch: list[sft.Example], stands_for: float, limit: Limit
) -> list[tuple[dict[str, float], float]]:
    """Backward passes over a mini-batch; what it measured, of which it is all."""
    c = trainer.config
    pad = trainer.policy.tokenizer.pad_token_id
    loss = sft.accumulate_gradients(
        trainer.model, batch, stands_for, pad, limit, temperature=c.temperature, precision=c.precision
    )
    return [({"loss": loss}, 1.0)]
