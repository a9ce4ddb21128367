"""The settings of a base model and of a run. Free of torch, so that the command line can show them at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from rlino_lib.errors import RlinoError

DATA = Path(__file__).resolve().parent.parent / "data"
BASES = {task: str(DATA / "base" / task) for task in ("countdown", "word_problems")}  # the shipped base of each task
DEFAULT_BASE = BASES["countdown"]


def base_of(task: str) -> str:
    """The folder of the base that ships with a task; raises RlinoError where there is none."""
    if task not in BASES:
        raise RlinoError(
            f"unknown task {task!r}, or one without a shipped base ({', '.join(BASES)} have one): name a model"
        )
    return BASES[task]


@dataclass(frozen=True)
class Recipe:
    """Everything that a base model depends on, besides the library's own code."""

    steps: int = 4400
    restart: int = 2600  # the step at which the optimizer starts afresh, with half the rate, for a second cosine
    batch_size: int = 128
    lr: float = 2e-3
    warmup: int = 50
    weight_decay: float = 0.01
    four_numbers: float = 0.10  # share of problems with four numbers; the rest have three
    n_four: int = 10_000
    seed: int = 0
    hidden_size: int = 128
    layers: int = 3
    task: str = "countdown"  # whose problems and demonstrator: countdown, word_problems, or joint, a row of either
    merges: int = 0  # most byte pairs to learn from such rows, as large models do; 0: a token for each word of the task


@dataclass(frozen=True)
class TrainConfig:
    """A run, whole: the same configuration and thread count give the same numbers."""

    method: str = "grpo"  # a key of rlino_lib.objectives.OBJECTIVES: f_isft_… trains as supervised learning
    objective_settings: dict[str, Any] = field(default_factory=dict)  # changes to the method's row, by its fields
    task: str = "countdown"  # the task's name
    task_settings: dict[str, Any] = field(default_factory=dict)
    model: str = ""  # a folder or a hub id; empty: the base that ships with the task
    seed: int = 0  # of the order of problems and of the sampling
    steps: int = 200  # batches of samples
    prompts: int = 64  # problems a step
    group_size: int = 8  # responses a problem
    max_new_tokens: int = 112  # the cap on a response
    temperature: float = 1.0  # of the sampling
    lr: float = 1e-4  # of AdamW
    schedule: str = "constant"  # of the learning rate: constant, or linear to zero
    warmup: int = 0  # steps
    clip_norm: float = 1.0  # of the gradient
    epochs: int = 1  # passes over each batch of samples
    minibatches: int = 1  # updates a pass
    micro_batch: int = 32  # rows of one forward and backward pass; larger ones leave the CPU's caches
    lora_rank: int = 0  # 0: full fine-tuning
    lora_alpha: int = 32  # adapters count alpha/rank times
    lora_targets: str = "all-linear"  # the modules with adapters, by the ends of their names: q_proj,v_proj
    eval_every: int = 20  # steps; 0: never
    eval_split: str = "validation"  # train, validation or test
    eval_problems: int = 512  # the first so many of the split
    eval_samples: int = 1  # a problem
    eval_base: int = 0  # 1: evaluations also measure the KL to the base, and how likely its responses have become
    checkpoint_every: int = 20  # steps
    trace_every: int = 0  # steps from one sample of whole groups to the next; 0: five times over the run
    trace_groups: int = 5  # groups kept each time
    probe_every: int = 0  # steps from one measurement of stale samples to the next (chapter 06); 0: never
    test_samples: int = 0  # samples a problem on the whole test split once training has ended; 0: no such evaluation
    guard: str = "stop"  # when a run trains nothing, or should not fit into memory: "stop", or "warn" and go on
    device: str = "auto"  # cpu, cuda or mps; auto: a GPU where there is one
    precision: str = "fp32"  # of the products: fp32, or bf16 with autocast; weights and Adam stay float32
    gradient_checkpointing: int = 0  # 1: a layer's activations are computed again, not kept; slower by a third

    # Settings that the first recorded runs did not know.
    LATER: ClassVar = ("objective_settings", "lora_alpha", "lora_targets", "precision", "gradient_checkpointing")

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", self.model or base_of(self.task))
        least = {"steps": 1, "prompts": 1, "group_size": 1, "epochs": 1, "minibatches": 1, "micro_batch": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise RlinoError(f"{name} must be at least {low}, not {getattr(self, name)}")
        if self.schedule not in ("constant", "linear") or self.guard not in ("stop", "warn") or self.lr <= 0:
            raise RlinoError("schedule is constant or linear, guard is stop or warn, lr is above 0")
        if self.precision not in ("fp32", "bf16") or self.lora_rank < 0 or self.lora_alpha <= 0:
            raise RlinoError("precision is fp32 or bf16, lora_rank is at least 0, lora_alpha is above 0")

    @property
    def targets(self) -> str | list[str]:
        """`lora_targets` as peft takes them."""
        return self.lora_targets if self.lora_targets == "all-linear" else self.lora_targets.split(",")

    def recorded(self) -> dict[str, Any]:
        """What a run's config.json holds of them: fields younger than the first runs only where they are set."""
        default = {name: getattr(TrainConfig(), name) for name in self.LATER}
        return {k: v for k, v in asdict(self).items() if k not in default or v != default[k]}
