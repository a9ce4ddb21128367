"""One of several processes of a test of `rlino_lib.scale`, started by torch.distributed.run.

gradients OUT        the first step of methods, beside `rlino_lib.train` on the very same responses
die OUT              a whole run in OUT/whole, and the same in OUT/killed, ended without a word at its fourth step
resume OUT           go on in OUT/killed
"""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

import torch

torch.set_num_threads(1)  # before anything is computed

from transformers import TrainerCallback  # noqa: E402

from rlino_lib import scale, scale_records  # noqa: E402
from rlino_lib.config import TrainConfig  # noqa: E402
from rlino_lib.models import load_policy  # noqa: E402
from rlino_lib.train import Trainer  # noqa: E402

RANK, WORLD = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
METHODS = ("grpo", "dapo", "rloo", "reinforce_pp", "f_isft_pos")
STEP = TrainConfig(steps=1, prompts=12, group_size=4, micro_batch=6, max_new_tokens=60, eval_every=0, clip_norm=1e9,
                   device="cpu")  # fmt: skip
RUN = TrainConfig(method="dapo", steps=6, prompts=4, group_size=4, micro_batch=4, max_new_tokens=48, eval_every=3,
                  eval_problems=5, checkpoint_every=2, trace_every=3, trace_groups=2, lr=1e-3, minibatches=2, guard="warn",
                  device="cpu")  # fmt: skip


class Grab(TrainerCallback):
    """Keeps the gradient of the first update."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        self.gradient = torch.cat([p.grad.flatten() for p in model.parameters()])


def away(model):
    """Move a policy off its base, so that there is something between it and the reference."""
    generator = torch.Generator().manual_seed(3)
    for p in model.parameters():
        p.data += 0.01 * torch.randn(p.shape, generator=generator)


def in_one_process(config):
    """What `rlino train` makes of the first step: its responses, its gradient, its metrics."""
    local, kept = Trainer(config), {}
    away(local.model)

    def keep():
        kept["gradient"] = torch.cat([p.grad.flatten() for p in local.model.parameters()])
        return kept["gradient"].norm().item()

    local._optimizer_step = keep
    metrics, rollouts, _ = local.step()
    return rollouts, kept["gradient"], metrics


def at_scale(config, engine, out, rollouts):
    """The same of the trainer at scale, whose sampler says the very same responses."""
    args = scale.arguments(config, out, engine, {})
    policy = load_policy(config.model)
    away(policy.model)
    trainer = scale.build(config, args, policy, scale_records.Pool(config), None)
    ids = [row[mask].tolist() for row, mask in zip(rollouts.ids, rollouts.mask, strict=True)]
    n = len(ids) // WORLD
    if engine == "grpo":
        trainer._generate_single_turn = lambda *args: (ids[RANK * n : (RANK + 1) * n], None)
    else:
        trainer.sample_ids = lambda prompts, places: rollouts.ids[places]
    found, grab = {}, Grab()
    trainer.add_callback(grab)
    trainer._end_step = lambda step, end=trainer._end_step: (found.update(trainer.sums.total), end(step))
    trainer.guards.check = lambda step, metrics: found.update(metrics)
    trainer.train()
    assert found["step"] == 1
    return grab.gradient, found


def gradients(out):
    report = {}
    for method in METHODS:
        config = dataclasses.replace(STEP, method=method)
        rollouts, expected, metrics = in_one_process(config)
        for engine in ("grpo", "sft") if method == "f_isft_pos" else ("grpo",):
            found, seen = at_scale(config, engine, out / method / engine, rollouts)
            gaps = {k: abs(seen[k] - metrics[k]) for k in metrics if metrics[k] is not None and seen[k] is not None}
            report[f"{method}/{engine}"] = {
                "gap": ((found - expected).norm() / expected.norm()).item(), "norm": expected.norm().item(),
                "kept": sum(v is not None for v in seen.values()), "gaps": gaps,
            }  # fmt: skip
    if RANK == 0:
        (out / "report.json").write_text(json.dumps(report))


def die(out):
    scale.train(RUN, out / "whole")

    def end_step(self, step, end=scale_records.Recorded._end_step):
        end(self, step)
        if step == 4:
            os.kill(os.getpid(), signal.SIGKILL)

    scale_records.Recorded._end_step = end_step
    scale.train(RUN, out / "killed")


if __name__ == "__main__":
    what, folder = sys.argv[1], Path(sys.argv[2])
    if what == "resume":
        scale.train(RUN, folder / "killed", resume=True, save=True)
    else:
        {"gradients": gradients, "die": die}[what](folder)
