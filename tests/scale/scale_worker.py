"""Two processes of `rlino_lib.scale` on CPU, for tests/scale/test_scale.py: one import, then forks, one thread each.

gradients OUT   the first step of methods, beside `rlino_lib.training.run` on the very same responses
sharded OUT     the same with FSDP 2
killed OUT      a whole run in OUT/whole; the same in OUT/killed, killed at its fourth step, and then resumed
"""

import dataclasses
import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from pathlib import Path

import torch

torch.set_num_threads(1)  # before anything is computed: a fork keeps no others

from accelerate.state import AcceleratorState, PartialState  # noqa: E402
from accelerate.utils import DistributedType  # noqa: E402
from torch.distributed.tensor import DTensor  # noqa: E402
from transformers import TrainerCallback  # noqa: E402
from trl import GRPOTrainer  # noqa: E402

from rlino_lib.policy.models import load_policy  # noqa: E402
from rlino_lib.scale import records as scale_records  # noqa: E402
from rlino_lib.scale import run as scale  # noqa: E402
from rlino_lib.training.config import TrainConfig  # noqa: E402
from rlino_lib.training.trainer import Trainer  # noqa: E402

METHODS = ("grpo", "dapo", "rloo", "reinforce_pp", "f_isft_pos")
# 26 responses a process: one group of four stands half on each.
STEP = TrainConfig(steps=1, prompts=13, group_size=4, micro_batch=13, max_new_tokens=48, eval_every=0, clip_norm=1e9,
                   device="cpu")  # fmt: skip
RUN = TrainConfig(method="dapo", steps=5, prompts=4, group_size=4, micro_batch=4, max_new_tokens=32, eval_every=3,
                  eval_problems=5, checkpoint_every=2, trace_every=3, trace_groups=2, lr=1e-3, minibatches=2,
                  guard="warn", device="cpu")  # fmt: skip


def together(target, *args):
    """Run a function in two processes that know of each other; returns their exit codes."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_member, args=(rank, port, target, args)) for rank in (0, 1)]
    for p in processes:
        p.start()
    while any(p.is_alive() for p in processes):
        if any(p.exitcode for p in processes):  # the other one would wait for it
            time.sleep(1)
            for p in processes:
                p.kill()
        time.sleep(0.05)
    return [p.exitcode for p in processes]


def _member(rank, port, target, args):
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ |= {k: str(v) for k, v in names.items()} | {"MASTER_ADDR": "127.0.0.1"}
    target(*args)


# --- gradients -------------------------------------------------------------------------------------------------------


class Grab(TrainerCallback):
    """Keeps the gradient of the first update."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        whole = (p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad for p in model.parameters())
        self.gradient = torch.cat([g.flatten() for g in whole])
        self.sharded = any(isinstance(p, DTensor) for p in model.parameters())


def shard():
    """Have accelerate use FSDP 2 on CPU, which it offers on accelerators alone; torch itself does not mind."""
    os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
                   "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}  # fmt: skip
    before, kinds = AcceleratorState.__init__, PartialState._shared_state

    def init(self, *args, **kwargs):
        if kinds.get("distributed_type") == DistributedType.MULTI_CPU:
            kinds["distributed_type"] = DistributedType.MULTI_GPU
        before(self, *args, **kwargs)
        kinds["distributed_type"] = self.distributed_type

    AcceleratorState.__init__ = init


def away(model):
    """Move a policy off its base, so that there is something between it and the reference."""
    generator = torch.Generator().manual_seed(3)
    for p in model.parameters():
        p.data += 0.01 * torch.randn(p.shape, generator=generator)


def in_one_process(config, rollouts):
    """What `rlino train` makes of responses (its own, if None): those, its gradient, its metrics."""
    local, kept = Trainer(config), {}
    away(local.model)

    def keep(*_):
        kept["gradient"] = torch.cat([p.grad.flatten() for p in local.model.parameters()])
        return kept["gradient"].norm().item()

    local._descend = keep
    if rollouts is not None:
        local.sample = lambda step: rollouts
    metrics, rollouts, _ = local.step()
    return rollouts, kept["gradient"], metrics


def at_scale(config, engine, out, rollouts):
    """The same of the trainer at scale, whose sampler says the very same responses."""
    args = scale.arguments(config, out, engine, {})
    policy = load_policy(config.model)
    away(policy.model)
    trainer = scale.build(config, args, policy, scale_records.Pool(config))
    ids = [row[mask].tolist() for row, mask in zip(rollouts.ids, rollouts.mask, strict=True)]
    n, rank = len(ids) // 2, int(os.environ["RANK"])
    if engine == "grpo":
        GRPOTrainer._generate_single_turn = lambda *args: (ids[rank * n : (rank + 1) * n], None)
    else:
        trainer.sample_ids = lambda prompts, places: rollouts.ids[places]
    measured, grab = {}, Grab()
    trainer.add_callback(grab)
    trainer.recorder.guards.check = lambda step, metrics: measured.update(metrics)
    trainer.train()
    assert measured["step"] == 1 and grab.sharded == ("ACCELERATE_USE_FSDP" in os.environ)
    return grab.gradient, measured


def gradients(out, methods):
    report, rollouts = {}, None
    for method in methods:
        config = dataclasses.replace(STEP, method=method)
        rollouts, expected, metrics = in_one_process(config, rollouts)
        for engine in ("grpo", "sft") if method == "f_isft_pos" else ("grpo",):
            gradient, measured = at_scale(config, engine, out / method / engine, rollouts)
            both = [k for k in metrics if metrics[k] is not None and measured[k] is not None]
            gaps = {k: abs(measured[k] - metrics[k]) for k in both}
            norm = expected.norm().item()
            gap = ((gradient - expected).norm() / expected.norm()).item()
            report[f"{method}/{engine}"] = {"gap": gap, "norm": norm, "gaps": gaps}
    if os.environ["RANK"] == "0":
        (out / "report.json").write_text(json.dumps(report))


# --- a run that is killed --------------------------------------------------------------------------------------------


def die(out):
    def end_step(self, step, end=scale_records.Recorded._end_step):
        end(self, step)
        if step == 4:
            os.kill(os.getpid(), signal.SIGKILL)

    scale_records.Recorded._end_step = end_step
    scale.train(RUN, out)


def resume(out):
    scale.train(RUN, out, save=True)


def killed(out):
    assert together(scale.train, RUN, out / "whole") == [0, 0]
    assert together(die, out / "killed") == [-signal.SIGKILL] * 2
    (out / "left.json").write_text(json.dumps(sorted(p.name for p in (out / "killed" / "trainer").iterdir())))
    (out / "left.csv").write_bytes((out / "killed" / "metrics.csv").read_bytes())
    assert not (out / "killed" / "summary.json").exists()
    assert together(resume, out / "killed") == [0, 0]


if __name__ == "__main__":
    what, folder = sys.argv[1], Path(sys.argv[2])
    if what == "killed":
        killed(folder)
    else:
        if what == "sharded":
            shard()
        assert together(gradients, folder, ("grpo", "f_isft_pos") if what == "sharded" else METHODS) == [0, 0]
