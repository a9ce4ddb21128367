"""What a normaliser does to filler in the clean room, exactly (chapter 08b).

The verdict of a response is drawn: good with chance p. The policy then ends it with a chance of q at each token, one
logit z for responses that are good and one for those that are bad: q = σ(z). A response of n tokens, its end among
them, has the score ∂log π/∂z = 1 − qn, and one that is cut at the cap of H tokens −qH. A score has mean 0. So a weight
that does not depend on the response's own length leaves z where it is. Under 1/|o| what counts is

    E[score / |o|] = q Σ_{n ≤ H} (1 − q)^(n − 1) / n − q,    and without a cap −q ln q / (1 − q) − q,

which is above 0: good responses, of positive advantage, end sooner, and bad ones later. The token mean divides by the
tokens of the whole batch, of which a response's own are one part in N, and so is what is left of the effect.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import pandas as pd
import scipy
import torch
from torch import Tensor

from rlino_lib.errors import RlinoError
from rlino_lib.exact.length_toy import NORMALISERS, variant, weights_by_enumeration, weights_by_length
from rlino_lib.exact.token_mdp import F64
from rlino_lib.methods.objective import Objective

METHOD = "grpo_no_kl"
VERDICTS = ("bad", "good")  # in the order of rewards without worth: 0, 1


def score_over_length(ends: float, cap: int | None = None) -> float:
    """E[score / |o|] of a response that ends with chance `ends` at each token, by the formulas above; no cap: None.

    Raises RlinoError for a chance that is not strictly between 0 and 1. Example: `score_over_length(0.05)` is 0.108.
    """
    if not 0 < ends < 1:
        raise RlinoError(f"a chance of the end is strictly between 0 and 1, not {ends}")
    if cap is None:
        return -ends * math.log(ends) / (1 - ends) - ends
    return ends * math.fsum((1 - ends) ** (n - 1) / n for n in range(1, cap + 1)) - ends


class Outcomes(NamedTuple):
    """The kinds of response, M of them: all [M], in float64 but for the whole numbers."""

    good: Tensor  # bool, the verdict
    reward: Tensor  # int64, 0 or 1
    length: Tensor  # int64, tokens of the policy
    filler: Tensor  # tokens before the end
    chance: Tensor
    score: Tensor  # the derivative of the log-prob by the logit of its own verdict


@dataclass(frozen=True)
class Room:
    """The clean room at given chances; the defaults are the base's and those of the recorded runs.

    ends_bad, ends_good: the chance of the end at each token. good: that of a good verdict. worth v: after a bad verdict
    n tokens of filler earn the reward with chance 1 − (1 − v)^n. cap: the policy's tokens at most; groups of
    group_size responses make the batch. Raises RlinoError for chances that are not strictly between 0 and 1.
    """

    ends_bad: float = 0.05
    ends_good: float = 0.05
    good: float = 0.3
    worth: float = 0.0
    cap: int = 96
    group_size: int = 8
    groups: int = 32

    def __post_init__(self) -> None:
        inside = all(0 < chance < 1 for chance in (*self.ends, self.good))
        if not (inside and 0 <= self.worth < 1 and min(self.cap, self.group_size, self.groups) > 0):
            raise RlinoError("a room needs 0 < ends, good < 1, 0 ≤ worth < 1, and at least one token, row and group")

    @property
    def ends(self) -> tuple[float, float]:
        """The chances of the end by verdict, in the order of VERDICTS."""
        return self.ends_bad, self.ends_good

    @cached_property
    def outcomes(self) -> Outcomes:
        """Every kind of response that has a chance."""
        filler = torch.arange(self.cap + 1, dtype=F64)  # [H + 1]; the last is of a response that is cut
        ended = (filler < self.cap).to(F64)  # [H + 1]
        length = filler + ended  # [H + 1]
        kinds = []
        for good, (q, verdict) in enumerate(zip(self.ends, (1 - self.good, self.good), strict=True)):
            chance = verdict * q**ended * (1 - q) ** filler  # [H + 1]
            earns = filler**0 if good else 1 - (1 - self.worth) ** filler  # [H + 1]
            for reward, odds in enumerate((1 - earns, earns)):
                facts = (torch.full_like(length, fact) for fact in (good, reward))  # [H + 1] each
                kinds.append(torch.stack([*facts, length, filler, chance * odds, ended - q * length]))  # [6, H + 1]
        every = torch.cat(kinds, 1)  # [6, 4·(H + 1)]
        good, reward, length, *others = every[:, every[4] > 0]  # [M] each
        return Outcomes(good.bool(), reward.long(), length.long(), *others)

    def filler(self) -> Tensor:
        """Mean filler after each verdict, [2], and its derivative by the logit of that verdict, [2]: as [2, 2]."""
        o = self.outcomes
        sides = torch.stack([~o.good, o.good]).to(F64) * o.chance  # [2, M]
        sides = sides / sides.sum(1, keepdim=True)
        return torch.stack([sides @ o.filler, sides @ (o.filler * o.score)])  # the score-function identity

    def moved(self, by: Tensor) -> Room:
        """The room with `by` [2] added to the logits of the end."""
        bad, good = (torch.tensor(self.ends, dtype=F64).logit() + by).sigmoid().tolist()
        return replace(self, ends_bad=bad, ends_good=good)


# --- the expected update, by formula and by enumeration of all batches -----------------------------------------------


def expected_step(room: Room, normaliser: str) -> Tensor:
    """The expected step of the logits of the end, [2] by verdict, per unit of learning rate (plain gradient ascent)."""
    return _step(room, normaliser, weights_by_length)


def enumerated_step(room: Room, normaliser: str) -> Tensor:
    """The same from the library's own weights of all batches. Raises RlinoError where there are too many of them."""
    return _step(room, normaliser, weights_by_enumeration)


def _step(room: Room, normaliser: str, weights_of: Callable[[Tensor, Objective, int, int], Tensor]) -> Tensor:
    """The sum over kinds of response of chance, score and expected weight, [2] by verdict."""
    o = room.outcomes
    by_length = torch.zeros(2, room.cap + 1, dtype=F64)  # [2, H + 1]
    by_length.index_put_((o.reward, o.length), o.chance, accumulate=True)
    weights = weights_of(by_length, variant(METHOD, normaliser), room.group_size, room.groups)  # [2, H + 1]
    push = o.chance * o.score * weights[o.reward, o.length]  # [M]
    return torch.stack([push[~o.good].sum(), push[o.good].sum()])


def rates(room: Room) -> pd.DataFrame:
    """How fast mean filler moves under each normaliser (the index), in tokens per unit of learning rate.

    Columns: bad, good, and "bad − good". The constant divides by the cap, and so is slower by about the cap over the
    mean length: compare signs, and sizes within a row.
    """
    slope = room.filler()[1]  # [2]
    rows = {text: (expected_step(room, name) * slope).tolist() for name, text in NORMALISERS.items()}
    table = pd.DataFrame.from_dict(rows, "index", columns=list(VERDICTS))
    return table.assign(**{"bad − good": table["bad"] - table["good"]})


def path(room: Room, normaliser: str, steps: int, rate: float) -> pd.DataFrame:
    """Mean filler after each verdict along expected updates: columns step, bad and good, from step 0 on."""
    rows = []
    for step in range(steps + 1):
        rows.append((step, *room.filler()[0].tolist()))
        room = room.moved(rate * expected_step(room, normaliser))
    return pd.DataFrame(rows, columns=["step", *VERDICTS])


def mean_gap(room: Room, normaliser: str, steps: int, rate: float) -> float:
    """Mean filler after bad less after good, averaged over the policies that `steps` batches come from."""
    policies = path(room, normaliser, steps - 1, rate)
    return float((policies["bad"] - policies["good"]).mean())


def rate_for_gap(room: Room, normaliser: str, steps: int, gap: float) -> float:
    """The learning rate at which `mean_gap` is `gap` tokens. Raises RlinoError where none up to 10 reaches it."""
    try:
        return float(
            scipy.optimize.brentq(lambda rate: mean_gap(room, normaliser, steps, rate) - gap, 0, 10, rtol=1e-6)
        )
    except ValueError as e:
        raise RlinoError(f"no learning rate makes a gap of {gap:g} tokens in {steps} steps") from e
