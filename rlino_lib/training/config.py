"""The settings of a base model and of a run. Free of torch, so that the command line can show them at once."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from rlino_lib import settings
from rlino_lib.errors import RlinoError
from rlino_lib.folders import read_json
from rlino_lib.paths import BASES, REPO, base_of
from rlino_lib.settings import COUNT, SEED, SWITCH, TABLE, number, one_of, setting, text, whole
from rlino_lib.tasks import TASKS

TASK = one_of(TASKS)
VERIFIER = "verifier"  # the reward that is the verifier's own
LOSS_MASKS = ("policy", "delimiter", "all")  # `rlino_lib.training.masks` has a function for each


@dataclass(frozen=True)
class Recipe:
    """Everything that a base model depends on, besides the library's own code. Raises RlinoError for a wrong value."""

    steps: int = setting(4400, "batches", COUNT)
    restart: int = setting(2600, "the step at which Adam restarts, at half the rate, for a second cosine", COUNT)
    batch_size: int = setting(128, "traces per step", settings.BATCH)
    lr: float = setting(2e-3, "the highest learning rate of AdamW", settings.RATE)
    warmup: int = setting(50, "steps from rate 0 to the highest, twice", COUNT)
    weight_decay: float = setting(0.01, "of AdamW", number(0))
    four_numbers: float = setting(0.10, "share of problems with four numbers; the rest have three", number(0, 1))
    n_four: int = setting(10_000, "how many problems with four numbers there are to draw from", COUNT)
    seed: int = setting(0, "seed of the weights and the traces", SEED)
    hidden_size: int = setting(128, "width of the model, which has four heads", whole(8, multiple=8))
    layers: int = setting(3, "decoder layers of the model", COUNT)
    task: str = setting(
        "countdown", "a task with a base, or joint: Countdown or word problems, at random", one_of((*BASES, "joint"))
    )
    merges: int = setting(0, "most byte pairs to learn, as large models do; 0: a token per word of the task", whole())
    precision: str = setting("auto", settings.PRECISION_HELP, settings.PRECISION)
    start: str = setting("", "a base to go on from, of its size, whose words the task adds to", settings.MODEL)

    def __post_init__(self) -> None:
        settings.check(self)


@dataclass(frozen=True)
class TrainConfig:
    """A run, whole: the same configuration and thread count give the same numbers. Raises RlinoError for a wrong value.

    `method`, `reward` and the settings of the objective and of the task are checked by `rlino_lib.methods` and
    `rlino_lib.tasks.get_task`, before a run writes anything.
    """

    method: str = setting(
        "grpo", "a key of rlino_lib.methods.catalogue.OBJECTIVES: f_isft_… trains as supervised learning",
        text("a method's name", r"\w+"),
    )  # fmt: skip
    objective_settings: dict[str, Any] = setting(dict, "changes to the method's row, by its fields", TABLE)
    reward: str = setting(
        VERIFIER, "what a response is rewarded for: a sum over rlino_lib.methods.rewards.REWARDS, with weights",
        text("a sum of rewards such as verifier + 0.5*length_bonus", r"[\w.*+ -]+"),
    )  # fmt: skip
    task: str = setting("countdown", f"the task: {', '.join(TASKS)}", TASK)
    task_settings: dict[str, Any] = setting(dict, "changes to the task, by its fields", TABLE)
    model: str = setting("", "a folder or a hub id; the default is the base that ships with the task", settings.MODEL)
    seed: int = setting(0, "seed of the order of problems and of the sampling", SEED)
    steps: int = setting(200, "batches of samples", COUNT)
    prompts: int = setting(64, "problems per step", settings.BATCH)
    group_size: int = setting(8, "responses per problem", settings.BATCH)
    max_new_tokens: int = setting(112, "most tokens of a response", COUNT)
    temperature: float = setting(1.0, "temperature of the sampling", settings.TEMPERATURE)
    lr: float = setting(1e-4, "learning rate", settings.RATE)
    optimizer: str = setting("adamw", "adamw, or sgd: with momentum", one_of(("adamw", "sgd")))
    momentum: float = setting(0.9, "of sgd", number(0, 0.999))
    schedule: str = setting(
        "constant", "learning rate: constant, or linear: times (steps − step + 1)/steps, from step 1 on",
        one_of(("constant", "linear")),
    )  # fmt: skip
    warmup: int = setting(0, "steps over which the rate rises linearly, the first at 1/warmup of it", whole())
    clip_norm: float = setting(1.0, "largest norm of the gradient; larger ones are scaled down to it", number(above=0))
    epochs: int = setting(1, "passes over each batch of samples", COUNT)
    minibatches: int = setting(1, "updates per pass", COUNT)
    micro_batch: int = setting(32, "responses per forward and backward pass; more outgrow the CPU's caches", COUNT)
    micro_tokens: int = setting(
        0, "tokens per forward and backward pass, padding included, in place of micro_batch; 0: on a GPU as its free "
        "memory allows, in at most micro_batch rows where that is not its default; elsewhere micro_batch rows", whole(),
    )  # fmt: skip
    critic_lr: float = setting(5e-4, "learning rate of a critic, where the method has one", settings.RATE)
    critic_epochs: int = setting(1, "passes of the critic over each batch", COUNT)
    critic_warmup: int = setting(0, "steps in which the critic alone learns", whole())
    critic_trunk: str = setting(
        "copy", "what a critic's head reads: copy, one of the policy's, or policy", one_of(("copy", "policy"))
    )
    lora_rank: int = setting(0, "rank of the LoRA adapters; 0: full fine-tuning", whole())
    lora_alpha: int = setting(32, "adapters are scaled by alpha/rank", COUNT)
    lora_targets: str = setting(
        "all-linear", "the modules with adapters, by the ends of their names: q_proj,v_proj",
        text("all-linear, or names of modules with commas between them", r"all-linear|[\w.]+(,[\w.]+)*"),
    )  # fmt: skip
    eval_every: int = setting(20, "steps between evaluations; 0: none", whole())
    eval_split: str = setting("validation", "split of the evaluations: train, validation or test", settings.SPLIT)
    eval_problems: int = setting(512, "how many problems of that split, the first ones", COUNT)
    eval_samples: int = setting(1, "samples per problem in evaluations", COUNT)
    eval_base: int = setting(0, "1: evaluations also measure the KL to the base and the fate of its responses", SWITCH)
    checkpoint_every: int = setting(20, "steps between checkpoints", COUNT)
    trace_every: int = setting(0, "steps between samples of whole groups; 0: five samples per run", whole())
    trace_groups: int = setting(5, "whole groups kept each time", whole())
    probe_every: int = setting(0, "steps between measurements of stale samples (chapter 06); 0: none", whole())
    loss_mask: str = setting(
        "policy", "the tokens that the loss counts: the policy's, all outside the environment's delimiters, or all",
        one_of(LOSS_MASKS),
    )  # fmt: skip
    test_samples: int = setting(0, "samples per problem on the whole test split after training; 0: none", whole())
    guard: str = setting(
        "stop", 'when a run trains nothing or may not fit into memory: "stop", or "warn"', one_of(("stop", "warn"))
    )
    device: str = setting("auto", "cpu, cuda or mps; auto: a GPU where there is one", settings.DEVICE)
    precision: str = setting("auto", f"{settings.PRECISION_HELP}; weights and Adam stay float32", settings.PRECISION)
    gradient_checkpointing: int = setting(0, "1: activations are recomputed, not kept; a third slower", SWITCH)

    # Settings that are younger than the first recorded runs.
    LATER: ClassVar = (
        "objective_settings", "reward", "lora_alpha", "lora_targets", "precision", "gradient_checkpointing",
        "micro_tokens", "optimizer", "momentum", "critic_lr", "critic_epochs", "critic_warmup", "critic_trunk",
        "loss_mask",
    )  # fmt: skip

    def __post_init__(self) -> None:
        settings.check(self)
        if self.minibatches > (n := self.prompts * self.group_size):
            raise RlinoError(f"minibatches must be at most the {n} responses of a step, not {self.minibatches}")
        if not self.lora_rank and (self.lora_alpha, self.lora_targets) != (32, "all-linear"):
            raise RlinoError("lora_alpha and lora_targets need adapters: set lora_rank too, or give --lora")
        if self.optimizer != "sgd" and self.momentum != TrainConfig.momentum:
            raise RlinoError("momentum is of sgd: set optimizer too")
        if self.test_samples:
            settings.equal_parts(self.test_samples)
        object.__setattr__(self, "model", self.model or base_of(self.task))

    @property
    def targets(self) -> str | list[str]:
        """`lora_targets` as peft takes them."""
        return self.lora_targets if self.lora_targets == "all-linear" else self.lora_targets.split(",")

    @property
    def sampling(self) -> dict[str, Any]:
        """What `sample` takes of these settings."""
        return {name: getattr(self, name) for name in ("max_new_tokens", "temperature", "precision")}

    def recorded(self) -> dict[str, Any]:
        """What config.json holds of these settings: those younger than the first runs only where they are set."""
        default = {name: getattr(TrainConfig(), name) for name in self.LATER}
        return {k: v for k, v in asdict(self).items() if k not in default or v != default[k]}


def run_settings(config: TrainConfig) -> dict[str, Any]:
    """Every setting of a run as its config.json records it, with the model by its path in the repository.

    The hash of the model's weights is added where a card beside the model states it.
    """
    path = Path(config.model).resolve()
    model = str(path.relative_to(REPO)) if path.is_relative_to(REPO) else config.model
    card = read_json(path / "card.json") if (path / "card.json").exists() else {}
    return asdict(config) | {"model": model} | {name: card[name] for name in ("weights_sha256_16",) if name in card}


# The values that settings younger than a recorded run had in it: precision was fp32 until it was recorded.
RUN_DEFAULTS = {name: value for name, value in asdict(TrainConfig()).items() if name != "model"} | {"precision": "fp32"}
