"""Every method as one update, ∇J = Σ w_it ∇log π(o_it | ·), with its own rule for the weights w (chapters 04, 06, 11).

An `Objective` is a row of named choices: advantage × ratio × surrogate × normaliser × KL × filter. `credit` turns
rewards into advantages (`advantages.py`); `policy_loss` is the only loss; what it does at ratio 1 is `token_weights`,
computed from it, so that the weight a reader sees is the weight that was used. The losses agree with TRL's own code
(tests/test_trl_parity.py); where they differ on purpose, `DIFFERENCES` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch

from rlino_lib.advantages import ADVANTAGE_TEXT, ADVANTAGES, FILTER_TEXT, FILTERS, advantages, check_rule, credit
from rlino_lib.errors import RlinoError
from rlino_lib.settings import (
    FLAG,
    TABLE,
    as_tuples,
    check,
    check_names,
    list_of,
    nothing_or,
    number,
    one_of,
    setting,
    text,
    whole,
)

__all__ = [
    "ADVANTAGES", "DIFFERENCES", "OBJECTIVES", "Loss", "Objective", "advantages", "credit", "micro_share",
    "policy_loss", "token_weights", "varied",
]  # fmt: skip

RATIOS = ("none", "token", "sequence", "trajectory")
SURROGATES = ("clip", "cispo", "sapo")
NORMALISERS = ("per_response", "micro_token_mean", "token_mean", "constant", "token_sum")
ESTIMATORS = ("k1", "k2", "k3")
# What the options of the rules of `advantages` may be.
OPTIONS = {"eps": number(0), "threshold": number(), "weight": number(0)}


@dataclass(frozen=True, repr=False)
class Objective:
    """A method as a row of choices; prints as its formula. Vary one with `dataclasses.replace`.

    Raises RlinoError for choices that there are not, or that do not go together.
    """

    name: str = field(metadata={"help": "what the method is called", "allowed": text("a name")})
    advantage: str = setting("zscore", "what a response is credited with: a rule of `advantages`", one_of(ADVANTAGES))
    options: Mapping[str, float] = setting(dict, "options of that rule", TABLE, hash=False)
    ratio: str = setting(
        "token", 'ρ: "none" (plain log-likelihood, as supervised learning has it), "token" ρ_it = π/π_old of the '
        'token, "sequence" s_i = exp(mean_t log ρ_it), "trajectory" ρ_i = Π_t ρ_it', one_of(RATIOS),
    )  # fmt: skip
    clip_low: float | None = setting(0.2, "ρ is clipped below 1 − clip_low; None: no clip", nothing_or(number(0, 1)))
    clip_high: float | None = setting(0.2, "ρ is clipped above 1 + clip_high; None: no clip", nothing_or(number(0)))
    delta: float | None = setting(
        None, "a cap on ρ before the min, for negative advantages", nothing_or(number(above=0))
    )
    surrogate: str = setting(
        "clip", '"clip", "cispo" sg[clip(ρ)] Â log π, or "sapo" 4/τ σ(τ(ρ − 1)) Â', one_of(SURROGATES)
    )
    tau: tuple[float, float] = setting(
        (1.0, 1.05), "sapo's τ where Â > 0, and elsewhere", list_of(number(above=0), length=2)
    )
    normaliser: str = setting(
        "per_response", '"per_response" 1/N Σ_i 1/|o_i|; "token_mean" 1/Σ|o|, "micro_token_mean" the same in each '
        'micro-batch; "constant" 1/(N·L); "token_sum" 1/N', one_of(NORMALISERS),
    )  # fmt: skip
    beta: float = setting(0.0, "the weight β of KL(π ‖ ref) in the loss", number(0))
    kl: str = setting("k3", "the estimator of that KL", one_of(ESTIMATORS))
    kl_correction: bool = setting(False, "whether that KL is multiplied by ρ", FLAG)
    kl_in_reward: float = setting(0.0, "the weight of k1 taken off the reward", number(0))
    reward_to_go: bool = setting(False, "whether it is taken off from each token on, or whole", FLAG)
    filter: str | None = setting(None, "which rows stay: a key of `advantages.FILTERS`", nothing_or(one_of(FILTERS)))
    shortest: int = setting(0, "so many of the shortest of each group stay; 0: all", whole())
    overlong: float = setting(0.0, "the share of the cap L over which the reward falls by 1", number(0, 1))
    length_cost: float = setting(0.0, "what is off a reward at length L", number(0))
    source: str = setting(
        "", "the paper, its equation, and where the settings come from", text("words"), compare=False
    )

    def __post_init__(self) -> None:
        check(self, f"objective {self.name}: ")
        check_rule(self.advantage, self.options)
        for name, value in self.options.items():
            OPTIONS[name].check(f"objective {self.name}: option {name}", value)
        if self.ratio == "none" and (self.surrogate != "clip" or self.delta is not None or self.kl_correction):
            raise RlinoError(f"objective {self.name}: cispo, sapo, delta and kl_correction need a ratio")
        if self.reward_to_go and self.advantage != "batch_zscore":
            raise RlinoError(f"objective {self.name}: reward_to_go is a credit of tokens, and needs batch_zscore")
        if self.shortest and self.reward_to_go:
            raise RlinoError(f"objective {self.name}: shortest counts responses, and does not go with reward_to_go")

    @property
    def needs_reference(self) -> bool:
        """Whether reference log-probs are read, in the loss or in the reward."""
        return bool(self.beta or self.kl_in_reward)

    def __repr__(self) -> str:
        by_row = self.ratio in ("sequence", "trajectory") and self.surrogate != "cispo"
        front = _FRONT_ROW if by_row and not self.beta and not self.reward_to_go else _FRONT
        inner = f"[ {_gain_text(self)} − {_kl_text(self)} ]" if self.beta else _gain_text(self)
        return f"{self.name}: J = {front[self.normaliser]} {inner},  {_credit_text(self)}"


# --- how it prints ---------------------------------------------------------------------------------------------------

_FRONT = {
    "per_response": "1/N Σ_i 1/|o_i| Σ_t",
    "micro_token_mean": "Σ_m N_m/N 1/Σ_m|o| Σ_{i in m} Σ_t",
    "token_mean": "1/Σ|o| Σ_i Σ_t",
    "constant": "1/(N·L) Σ_i Σ_t",
    "token_sum": "1/N Σ_i Σ_t",
}
_FRONT_ROW = {  # the same where the term under Σ_t does not depend on t
    "per_response": "1/N Σ_i",
    "micro_token_mean": "Σ_m N_m/N 1/Σ_m|o| Σ_{i in m} |o_i|",
    "token_mean": "1/Σ|o| Σ_i |o_i|",
    "constant": "1/(N·L) Σ_i |o_i|",
    "token_sum": "1/N Σ_i |o_i|",
}
_RHO = {"none": "", "token": "ρ_it", "sequence": "s_i", "trajectory": "ρ_i"}
_RHO_TEXT = {"sequence": "s_i = (Π_t ρ_it)^(1/|o_i|)", "trajectory": "ρ_i = Π_t ρ_it"}


def _gain_text(o: Objective) -> str:
    rho, credit = _RHO[o.ratio], "Â_it" if o.reward_to_go else "Â_i"
    low, high = _bounds(o)
    if o.ratio == "none":
        return f"{credit} log π(o_it)"
    if o.surrogate == "sapo":
        return f"4/τ σ(τ({rho} − 1)) {credit}"
    if o.surrogate == "cispo" and low is None:
        return f"sg[{rho if high is None else f'min({rho}, {high:g})'}] {credit} log π(o_it)"
    clip = f"clip({rho}, {low or 0:g}, {'∞' if high is None else f'{high:g}'})"
    if o.surrogate == "cispo":
        return f"sg[{clip}] {credit} log π(o_it)"
    plain = f"{rho} {credit}" if o.delta is None else f"min({rho}, {o.delta:g}) {credit}"
    return plain if low is None and high is None else f"min({plain}, {clip} {credit})"


def _kl_text(o: Objective) -> str:
    return f"{o.beta:g} {_RHO[o.ratio] + ' ' if o.kl_correction else ''}{o.kl}_it"


def _credit_text(o: Objective) -> str:
    text = [f"Â_i = {ADVANTAGE_TEXT[o.advantage]}"]
    if o.reward_to_go:
        text = ["Â_it = (R_it − mean R) / (std R + 1e-4) over the tokens of the batch"]
    if o.options:
        text[0] += f" ({', '.join(f'{k} = {v:g}' for k, v in o.options.items())})"
    if o.reward_to_go:
        text += [f"R_it = r_i − {o.kl_in_reward:g} Σ_{{s ≥ t}} log(π_old/ref)_is"]
    elif o.kl_in_reward:
        text += [f"r_i less {o.kl_in_reward:g} Σ_t log(π_old/ref)_it"]
    if o.overlong:
        text += [f"r_i less up to 1 over the last {o.overlong:g} L"]
    if o.length_cost:
        text += [f"r_i less {o.length_cost:g} |o_i|/L"]
    if o.shortest:
        text += [f"of each group the {o.shortest} shortest alone"]
    if o.filter:
        text += [f"only {FILTER_TEXT[o.filter]}"]
    if o.ratio in _RHO_TEXT:
        text += [_RHO_TEXT[o.ratio]]
    if o.surrogate == "sapo":
        text += [f"τ = {o.tau[0]:g} if Â > 0, else {o.tau[1]:g}"]
    return ",  ".join(text)


# --- the named methods -----------------------------------------------------------------------------------------------

_NO_CLIP = dict(clip_low=None, clip_high=None)
_SFT = dict(ratio="none", **_NO_CLIP)
_F_ISFT = "2505.13697: filtered iterative supervised fine-tuning"
_MINIMAL = "2504.11343 §2; batches of "
_NSR = "2506.01347 §2; ratio, clip and token mean as its code on verl has them"

_ROWS = (
    Objective("grpo", beta=0.04, source="DeepSeekMath 2402.03300 eq. 3, with its β"),
    Objective("grpo_no_kl", source="2402.03300 eq. 3 at β = 0; GRPO-wo-KL of 2505.13697"),
    Objective("grpo_no_clip", **_NO_CLIP, source="2402.03300 eq. 3 at β = 0 without the min"),
    Objective("clip_higher", clip_high=0.28, source="DAPO 2503.14476 §3.1, the wider upper clip alone"),
    Objective("bnpo", normaliser="micro_token_mean", source="TRL's loss_type bnpo: a token mean of each micro-batch"),
    Objective("dr_grpo", advantage="mean", normaliser="constant", source="2503.20783 §3.2; β = 0"),
    Objective(
        "dapo", clip_high=0.28, normaliser="token_mean", filter="mixed", overlong=0.2,
        source="2503.14476 eq. 8, penalty eq. 13 with its 4096 of 20480 tokens",
    ),
    Objective(
        "luspo", ratio="sequence", clip_low=2e-3, clip_high=2.5e-3, normaliser="token_sum",
        source="2602.05261; clip of its §5.1",
    ),
    Objective("gspo", ratio="sequence", clip_low=3e-4, clip_high=4e-4, source="2507.18071 eq. 5 and 7; clip of §5.1"),
    Objective(
        "cispo", surrogate="cispo", clip_low=None, clip_high=4.0, normaliser="token_mean",
        source="MiniMax-M1 2506.13585; the cap of 5 is that of ScaleRL, 2510.13786",
    ),
    Objective("sapo", surrogate="sapo", **_NO_CLIP, source="2511.20347; τ as there"),
    Objective(
        "rloo", advantage="leave_one_out", ratio="trajectory", kl_in_reward=0.05,
        source="2402.14740; ratio, clip 0.2 and β = 0.05 as TRL's RLOOTrainer has them",
    ),
    Objective(
        "reinforce_pp", advantage="batch_zscore", kl_in_reward=0.01, reward_to_go=True,
        source="2501.03262; β = 0.01 as OpenRLHF's script has it",
    ),
    Objective(
        "reinforce_pp_baseline", advantage="group_batch_zscore", beta=1e-3, kl="k2",
        source="2501.03262, the variant with baseline; k2 and β = 0.001 as OpenRLHF's script has them",
    ),
    Objective("raft", advantage="positive", **_SFT, filter="right", source=_MINIMAL + "right responses"),
    Objective("raft_pp", advantage="positive", filter="right", source=_MINIMAL + "right responses, ratio and clip"),
    Objective("reinforce_rej", advantage="signed", filter="mixed", source=_MINIMAL + "mixed groups; rewards ±1"),
    Objective("psr", advantage="positive", normaliser="token_mean", source=_NSR),
    Objective("nsr", advantage="negative", normaliser="token_mean", source=_NSR),
    Objective("w_reinforce", advantage="weighted", options={"weight": 0.1}, normaliser="token_mean", source=_NSR),
    Objective("f_isft_pos", advantage="positive", **_SFT, source=_F_ISFT),
    Objective("f_isft_neg", advantage="negative", **_SFT, source=_F_ISFT),
    Objective("f_isft_posneg", advantage="group_balanced", **_SFT, source=_F_ISFT + ", both sides balanced"),
    Objective("f_isft_posneg_unit", advantage="signed", **_SFT, source=_F_ISFT + ", both sides, weight 1"),
)  # fmt: skip

OBJECTIVES: dict[str, Objective] = {o.name: o for o in _ROWS}
GRPO, GRPO_NO_KL = OBJECTIVES["grpo"], OBJECTIVES["grpo_no_kl"]


def varied(name: str, settings: Mapping[str, Any]) -> Objective:
    """A named method with some of its choices changed; raises RlinoError where the name or a choice does not exist."""
    if name not in OBJECTIVES:
        raise RlinoError(f"unknown method {name!r}: one of {', '.join(OBJECTIVES)}")
    check_names(settings, [f.name for f in fields(Objective) if f.name not in ("name", "source")], "an objective")
    return replace(OBJECTIVES[name], **as_tuples(settings))


# Where the library differs from TRL 1.16 on purpose: what, TRL, here, why.
DIFFERENCES: tuple[tuple[str, str, str, str], ...] = (
    ("far log-ratios", "exp of any log-ratio", "cut at ±20 first, no gradient beyond", "exp overflows float32 past 88"),
    ("KL times the ratio", "on by default", "off unless kl_correction", "the papers' k3 has no such factor"),
    ("token mean, several updates a batch", "tokens of the whole batch over the updates", "tokens of each update",
     "an update is a mean of its own tokens"),
    ("temperatures of sapo", "rounded to float32", "in the dtype of the loss", "float64 stays float64"),
    ("correction of the sample std", "G/(G − 1) rounded to float32", "in the dtype of the rewards", "as above"),
    ("cap of cispo", "epsilon_high is the cap", "the cap is 1 + clip_high", "one meaning of clip_high in every row"),
    ("KL estimator", "k3; RLOO k1", "k1, k2 or k3", "REINFORCE++ with baseline has k2"),
    ("accumulation", "each loss over the number of micro-batches", "times micro_share", "exact for unequal ones too"),
    ("rewards that are not finite", "None counts as advantage 0", "an error", "our graders always answer"),
    ("all rewards of a group equal", "rounding of their mean over 1e-4", "exactly 0", "Adam makes a step of any size"),
    ("empty responses in RLOO", "count with ρ = 1", "count 0", "no token, no gradient: the loss moves alone"),
    ("half precision", "as the model computes", "log-probs widened to float32", "sums and exp need the digits"),
    ("mixed groups only", "not offered", "filter, without refilling the batch", "DAPO samples until it is full"),
)  # fmt: skip


# --- the loss --------------------------------------------------------------------------------------------------------


@dataclass
class Loss:
    """A scalar `.loss` to minimise and detached `.metrics`, means over tokens: `ratio`, `clip_ratio` (how many were
    clipped), and `kl` (nats, by the objective's estimator) where there are reference log-probs."""

    loss: torch.Tensor
    metrics: dict[str, float]


def policy_loss(
    objective: Objective,
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor | None,
    ref_logprobs: torch.Tensor | None,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    max_response_length: int | None = None,
) -> Loss:
    """−J of an objective (chapter 04; GRPO is 2402.03300 eq. 3, at one update a batch eq. 21).

    logprobs, old_logprobs (the sampler's), ref_logprobs (the reference's): [N, T], nats, gradient through the first
    alone; advantages [N], or [N, T] for credit that is not uniform; mask [N, T], true on response tokens. Only the
    constant normaliser reads `max_response_length`. Old log-probs may be None at ratio "none", and stand for the
    current ones elsewhere (one update a batch); reference log-probs may be None at β = 0. Half precision is computed in
    float32, and so is the loss; the gradient has the dtype of `logprobs`.
    Raises RlinoError for shapes that do not agree or a part that is missing.
    """
    _check_shapes(objective, logprobs, old_logprobs, ref_logprobs, advantages, mask, max_response_length)
    inside, wide = mask.bool(), _widen(logprobs)  # [N, T], [N, T]
    keep = inside.to(wide.dtype)  # [N, T]

    def clean(x: torch.Tensor) -> torch.Tensor:
        """Masked entries may hold anything, NaN included; they must not reach the sum, nor its gradient."""
        return torch.where(inside, x.to(wide.dtype), 0)  # [N, T]

    new = clean(wide)
    weight = clean(advantages if advantages.ndim == 2 else advantages[:, None])
    metrics, ratio = {}, None
    if objective.ratio == "none":
        gain = weight * new  # [N, T]
    else:
        old = new.detach() if old_logprobs is None else clean(old_logprobs)
        ratio = _ratio(objective, new - old, keep)  # [N, T]
        gain, clipped = _surrogate(objective, ratio, new, weight)  # [N, T], [N, T] or None
        if clipped is not None:
            metrics["clip_ratio"] = _token_mean(clipped.to(keep.dtype), keep)
        metrics["ratio"] = _token_mean(ratio, keep)
    if ref_logprobs is not None:
        kl = _kl(objective, clean(ref_logprobs) - new)  # [N, T]
        metrics["kl"] = _token_mean(kl, keep)
        if objective.beta:
            gain = gain - objective.beta * (kl * ratio if objective.kl_correction else kl)
    return Loss(-_aggregate(objective, gain * keep, keep, max_response_length), metrics)


def _widen(logprobs: torch.Tensor) -> torch.Tensor:
    """Half precision as float32 [N, T]. Its gradient is cut to the largest half, or it would come back infinite."""
    if logprobs.dtype not in (torch.float16, torch.bfloat16):
        return logprobs
    wide, limit = logprobs.float(), torch.finfo(logprobs.dtype).max
    if wide.requires_grad:
        wide.register_hook(lambda grad: grad.clamp(-limit, limit))
    return wide


def _ratio(o: Objective, gap: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """ρ [N, T] of log-ratios [N, T] that are 0 where masked; the same along a row at the levels of a response."""
    if o.ratio != "token":
        total = gap.sum(1, keepdim=True)  # [N, 1]
        length = keep.sum(1, keepdim=True).clamp_min(1)  # [N, 1]
        gap = (total / length if o.ratio == "sequence" else total).expand_as(gap)  # [N, T]
    # Past e^20 the ratio says only "far off", and exp would overflow.
    return gap.clamp(-20, 20).exp()  # [N, T]


def _bounds(o: Objective) -> tuple[float | None, float | None]:
    return None if o.clip_low is None else 1 - o.clip_low, None if o.clip_high is None else 1 + o.clip_high


def _surrogate(
    o: Objective, ratio: torch.Tensor, new: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The gain of every token [N, T], and which were clipped [N, T]; None where nothing can be."""
    if o.surrogate == "sapo":
        tau = torch.where(weight > 0, *weight.new_tensor(o.tau))  # [N, T]; not float32, as of bare numbers
        return torch.sigmoid(tau * (ratio - 1)) * 4 / tau * weight, None
    bounded = ratio if _bounds(o) == (None, None) else ratio.clamp(*_bounds(o))  # [N, T]
    if o.surrogate == "cispo":
        return bounded.detach() * weight * new, bounded != ratio
    gain = (ratio if o.delta is None else ratio.clamp(max=o.delta)) * weight  # [N, T]
    if bounded is ratio:
        return gain, None
    bounded = bounded * weight  # [N, T]
    return torch.minimum(gain, bounded), bounded < gain


def _kl(o: Objective, gap: torch.Tensor) -> torch.Tensor:
    """An estimate of KL(π ‖ ref) at every token, [N, T], from gap = log π_ref − log π."""
    if o.kl == "k1":
        return -gap
    if o.kl == "k2":
        return gap.square() / 2
    return torch.expm1(gap.clamp(-20, 20)) - gap  # ≥ 0; e^x − 1 keeps digits


def _aggregate(o: Objective, gain: torch.Tensor, keep: torch.Tensor, length: int | None) -> torch.Tensor:
    rows = max(len(gain), 1)
    if o.normaliser == "per_response":
        return (gain.sum(1) / keep.sum(1).clamp_min(1)).sum() / rows
    if o.normaliser in ("token_mean", "micro_token_mean"):
        return gain.sum() / keep.sum().clamp_min(1)
    return gain.sum() / (rows * (length if o.normaliser == "constant" else 1))


def _token_mean(values: torch.Tensor, keep: torch.Tensor) -> float:
    return (values.detach() * keep).sum().item() / max(keep.sum().item(), 1)


def _check_shapes(objective, logprobs, old, ref, advantages, mask, length) -> None:
    n = logprobs.shape
    for name, tensor in (("old_logprobs", old), ("ref_logprobs", ref), ("mask", mask)):
        if tensor is not None and tensor.shape != n:
            raise RlinoError(f"{name} is {tuple(tensor.shape)}, log-probs are {tuple(n)}")
    if advantages.shape not in (n, n[:1]):
        raise RlinoError(f"advantages are {tuple(advantages.shape)}, log-probs are {tuple(n)}")
    if objective.beta and ref is None:
        raise RlinoError(f"{objective.name} has β = {objective.beta:g} and no reference log-probs")
    if objective.normaliser == "constant" and not length:
        raise RlinoError(f"{objective.name} divides by a constant length: give max_response_length")


def micro_share(objective: Objective, mask: torch.Tensor, total_rows: int, total_tokens: int) -> float:
    """What the loss of a micro-batch must be multiplied by so that micro-batches add up to the whole batch's loss.

    `micro_token_mean` has no loss of the whole batch to add up to: it is what it is because of how the rows were cut.
    """
    by_tokens = objective.normaliser == "token_mean"
    return int(mask.sum()) / max(total_tokens, 1) if by_tokens else len(mask) / max(total_rows, 1)


def token_weights(
    objective: Objective, advantages: torch.Tensor, mask: torch.Tensor, max_response_length: int | None = None
) -> torch.Tensor:
    """The weight w_it = ∂J/∂log π(o_it) of every token at ratio 1, [N, T], 0 where masked.

    Taken from `policy_loss` by differentiation, so it cannot differ from what the optimiser used. A KL term in the loss
    is left out: it pulls towards the reference and is no credit.
    """
    logprobs = torch.zeros(mask.shape, dtype=advantages.dtype, device=mask.device, requires_grad=True)  # [N, T]
    with torch.enable_grad():
        loss = policy_loss(replace(objective, beta=0.0), logprobs, None, None, advantages, mask, max_response_length)
        (grad,) = torch.autograd.grad(loss.loss, logprobs)
    return -grad
