"""The terms of the loss, each a table of choices: a name, what it computes, how it prints (chapters 04 and 08).

Tensors are [N, T], 0 where masked; `mask` is as numbers. A new choice is a row here and at most one function.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Term(NamedTuple):
    """A choice: what it computes, and its formula."""

    of: Callable[..., Any]
    formula: str


# What |log ρ| has to exceed to say that the policy has moved. In exact arithmetic ρ = 1 at the first update of a batch;
# in float32 sampling and training round differently, and |log ρ| of the shipped bases is up to 1e-5. One update at
# their rates moves a token that was not certain by some 1e-3 to 1e-2. What has a kink at ρ = 1 reads the sign of log ρ,
# however small that is, and would train on rounding.
ROUNDING = 1e-4


# --- ratios: log π − log π_old and the mask → ρ ----------------------------------------------------------------------


class Ratio(NamedTuple):
    """A level of the importance ratio: its function, its symbol, and what the symbol stands for."""

    of: Callable[[Tensor, Tensor], Tensor | None]
    symbol: str = ""
    formula: str = ""


def _exp(log_ratio: Tensor) -> Tensor:
    return log_ratio.clamp(-20, 20).exp()  # past e^20 the ratio says only "far off", and exp would overflow


def _of_sequence(log_ratio: Tensor, mask: Tensor) -> Tensor:
    lengths = mask.sum(1, keepdim=True).clamp_min(1)  # [N, 1]
    return _exp((log_ratio.sum(1, keepdim=True) / lengths).expand_as(log_ratio))


RATIOS = {
    "none": Ratio(lambda log_ratio, mask: None),
    "token": Ratio(lambda log_ratio, mask: _exp(log_ratio), "ρ_it"),
    "sequence": Ratio(_of_sequence, "s_i", "s_i = (Π_t ρ_it)^(1/|o_i|)"),
    "trajectory": Ratio(
        lambda log_ratio, mask: _exp(log_ratio.sum(1, keepdim=True).expand_as(log_ratio)), "ρ_i", "ρ_i = Π_t ρ_it"
    ),
}


# --- surrogates: ρ, log π and Â → the gain of each token, and where the clip took the gradient (None where it cannot) -


Settings = Any  # an `Objective`, of which a surrogate reads `clip_bounds`, `delta` and `tau`


class Surrogate(NamedTuple):
    """A gain: its function, and its formula for given settings, symbol of the ratio and symbol of the advantage."""

    of: Callable[[Settings, Tensor | None, Tensor, Tensor], tuple[Tensor, Tensor | None]]
    formula: Callable[[Settings, str, str], str]


def _clip(o: Settings, ratio: Tensor, logprobs: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor | None]:
    gain = (ratio if o.delta is None else ratio.clamp(max=o.delta)) * advantages
    if o.clip_bounds == (None, None):
        return gain, None
    bounded = ratio.clamp(*o.clip_bounds) * advantages
    return torch.minimum(gain, bounded), bounded < gain


def _clip_text(o: Settings, rho: str, credit: str) -> str:
    plain = f"{rho} {credit}" if o.delta is None else f"min({rho}, {o.delta:g}) {credit}"
    return plain if o.clip_bounds == (None, None) else f"min({plain}, {_bounded(o, rho)} {credit})"


def _bounded(o: Settings, rho: str) -> str:
    low, high = o.clip_bounds
    return f"clip({rho}, {low or 0:g}, {'∞' if high is None else f'{high:g}'})"


def _cispo(o: Settings, ratio: Tensor, logprobs: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
    bounded = ratio if o.clip_bounds == (None, None) else ratio.clamp(*o.clip_bounds)
    return bounded.detach() * advantages * logprobs, bounded != ratio


def _cispo_text(o: Settings, rho: str, credit: str) -> str:
    low, high = o.clip_bounds
    capped = rho if high is None else f"min({rho}, {high:g})"
    return f"sg[{capped if low is None else _bounded(o, rho)}] {credit} log π(o_it)"


def _sapo(o: Settings, ratio: Tensor, logprobs: Tensor, advantages: Tensor) -> tuple[Tensor, None]:
    right, wrong = advantages.new_tensor(o.tau)  # not float32, as of bare numbers
    tau = torch.where(advantages > 0, right, wrong)
    return torch.sigmoid(tau * (ratio - 1)) * 4 / tau * advantages, None


def _nft(o: Settings, ratio: Tensor, logprobs: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
    share = advantages.abs().clamp_max(0.98)  # [N, T], of right responses in the group where a wrong one stands
    implicit = (1 - share * ratio) / (1 - share)  # [N, T], π⁻/π_old
    bounded = implicit.detach().clamp_min(1)  # [N, T]
    negative = bounded.log() + (implicit - implicit.detach()) / bounded  # [N, T]; the gradient passes the bound
    wrong = advantages < 0
    gain = torch.where(wrong, (1 - share) * negative, advantages * ratio.log())
    return gain, wrong & (ratio > 1 + ROUNDING)  # where π⁻/π_old is below 1, by more than rounding


SURROGATES = {
    "clip": Surrogate(_clip, _clip_text),
    "cispo": Surrogate(_cispo, _cispo_text),
    # As its code: an advantage r_i − mean r makes of a group's share right its prompt's weight 1 − r.
    "nft": Surrogate(
        _nft,
        lambda o, rho, credit: f"({credit} log {rho} if right, else (1 − r) log max((1 − r {rho})/(1 − r), 1))",
    ),
    "sapo": Surrogate(_sapo, lambda o, rho, credit: f"4/τ σ(τ({rho} − 1)) {credit}"),
}
LIKELIHOOD = Surrogate(  # where there is no ratio
    lambda o, ratio, logprobs, advantages: (advantages * logprobs, None),
    lambda o, rho, credit: f"{credit} log π(o_it)",
)


# --- estimators of KL(π ‖ ref) at every token, of gap = log π_ref − log π ---------------------------------------------

ESTIMATORS = {
    "k1": Term(lambda gap: -gap, "log(π/ref)"),
    "k2": Term(lambda gap: gap.square() / 2, "log²(π/ref) / 2"),
    # ≥ 0; e^x − 1 keeps digits
    "k3": Term(lambda gap: torch.expm1(gap.clamp(-20, 20)) - gap, "ref/π − 1 − log(ref/π)"),
}


# --- normalisers: terms of tokens, the mask, the cap L → J ------------------------------------------------------------


class Normaliser(NamedTuple):
    """What the sum over tokens is divided by, and everything that the library knows of it."""

    of: Callable[[Tensor, Tensor, int | None], Tensor]
    formula: str  # in front of a term of tokens
    by_row: str  # in front of a term that is the same along a row
    label: str  # in tables and figures
    needs_cap: bool = False  # whether it divides by L
    knows_length: bool = True  # whether the weight of a token depends on lengths
    counts_tokens: bool = False  # whether a micro-batch's share of an update is one of tokens, and not of rows
    by_micro_batch: bool = False  # whether a micro-batch is divided by its own tokens, so that its size matters


def _rows(mask: Tensor) -> int:
    return max(len(mask), 1)


def _token_mean(terms: Tensor, mask: Tensor, cap: int | None) -> Tensor:
    return terms.sum() / mask.sum().clamp_min(1)


NORMALISERS = {
    "per_response": Normaliser(
        lambda terms, mask, cap: (terms.sum(1) / mask.sum(1).clamp_min(1)).sum() / _rows(mask), "1/N Σ_i 1/|o_i| Σ_t",
        "1/N Σ_i", "1/|o|",
    ),
    "micro_token_mean": Normaliser(
        _token_mean, "Σ_m N_m/N 1/Σ_m|o| Σ_{i in m} Σ_t", "Σ_m N_m/N 1/Σ_m|o| Σ_{i in m} |o_i|",
        "token mean of a micro-batch", by_micro_batch=True,
    ),
    "token_mean": Normaliser(
        _token_mean, "1/Σ|o| Σ_i Σ_t", "1/Σ|o| Σ_i |o_i|", "token mean", counts_tokens=True
    ),
    "constant": Normaliser(
        lambda terms, mask, cap: terms.sum() / (_rows(mask) * cap), "1/(N·L) Σ_i Σ_t", "1/(N·L) Σ_i |o_i|", "constant",
        needs_cap=True, knows_length=False,
    ),
    "token_sum": Normaliser(
        lambda terms, mask, cap: terms.sum() / _rows(mask), "1/N Σ_i Σ_t", "1/N Σ_i |o_i|", "token sum",
        knows_length=False,
    ),
}  # fmt: skip
