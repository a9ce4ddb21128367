"""Every method as one update, ∇J = Σ w_it ∇log π(o_it | ·), with its own rule for the weights w (chapters 04, 06, 11).

An `Objective` is a row of named choices: advantage × ratio × surrogate × normaliser × KL × filter. `credit` turns
rewards into advantages (`advantages.py`); `policy_loss` is the only loss; what it does at ratio 1 is `token_weights`,
computed from it, so that the weight a reader sees is the weight that was used. The losses agree with TRL's own code
(tests/methods/test_trl_parity.py); where they differ on purpose, `DIFFERENCES` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rlino_lib.errors import RlinoError
from rlino_lib.methods.advantages import ADVANTAGE_TEXT, ADVANTAGES, FILTER_TEXT, FILTERS, check_rule
from rlino_lib.settings import FLAG, TABLE, check, list_of, nothing_or, number, one_of, setting, text, whole

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
    def clip_bounds(self) -> tuple[float | None, float | None]:
        """Between what ρ is clipped; None where it is not."""
        low, high = self.clip_low, self.clip_high
        return None if low is None else 1 - low, None if high is None else 1 + high

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
    low, high = o.clip_bounds
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
