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

import itertools
import math
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd
import scipy
import torch
from torch import Tensor

from rlino_lib.errors import RlinoError
from rlino_lib.exact.length_toy import NORMALISERS, expected_share, variant
from rlino_lib.exact.token_mdp import F64
from rlino_lib.methods.advantages import advantages
from rlino_lib.methods.loss import Batch, policy_loss

METHOD = "grpo_no_kl"
VERDICTS = ("bad", "good")  # in the order of rewards without worth: 0, 1
LIMIT = 20_000  # batches that are enumerated


def score_over_length(ends: float, cap: int | None = None) -> float:
    """E[score / |o|] of a response that ends with chance `ends` at each token, by the formulas above; no cap: None.

    Raises RlinoError for a chance that is not strictly between 0 and 1. Example: `score_over_length(0.05)` is 0.108.
    """
    if not 0 < ends < 1:
        raise RlinoError(f"a chance of the end is strictly between 0 and 1, not {ends}")
    if cap is None:
        return -ends * math.log(ends) / (1 - ends) - ends
    return ends * math.fsum((1 - ends) ** (n - 1) / n for n in range(1, cap + 1)) - ends


@dataclass(frozen=True)
class Outcomes:
    """The kinds of response, M of them: all [M], in float64 but for the whole numbers."""

    good: Tensor  # bool, the verdict
    reward: Tensor  # 0 or 1
    length: Tensor  # int64, tokens of the policy
    ended: Tensor  # bool, not cut at the cap
    filler: Tensor  # int64, tokens before the end
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

    @property
    def rows(self) -> int:
        """Responses in a batch."""
        return self.group_size * self.groups

    @cached_property
    def outcomes(self) -> Outcomes:
        """Every kind of response with its chance."""
        columns = zip(*itertools.chain(self._of_verdict(False), self._of_verdict(True)), strict=True)
        good, reward, lengths, ends, chance, score = columns
        length = torch.tensor(lengths)
        ended = torch.tensor(ends)
        return Outcomes(
            torch.tensor(good), torch.tensor(reward, dtype=F64), length, ended, length - ended.long(),
            torch.tensor(chance, dtype=F64), torch.tensor(score, dtype=F64),
        )  # fmt: skip

    def _of_verdict(self, good: bool):
        """Rows of `Outcomes`, without filler, after one verdict."""
        q = self.ends[good]
        verdict = self.good if good else 1 - self.good
        kinds = [(n, True, q * (1 - q) ** (n - 1), 1 - q * n) for n in range(1, self.cap + 1)]
        for length, ended, chance, score in [*kinds, (self.cap, False, (1 - q) ** self.cap, -q * self.cap)]:
            earns = 1.0 if good else 1 - (1 - self.worth) ** (length - ended)
            for reward, odds in ((1.0, earns), (0.0, 1 - earns)):
                if odds:
                    yield good, reward, length, ended, verdict * chance * odds, score

    def filler(self) -> Tensor:
        """Mean filler after each verdict, [2], and its derivative by the logit of that verdict, [2]: as [2, 2]."""
        o = self.outcomes
        sides = torch.stack([~o.good, o.good]).to(F64) * o.chance  # [2, M]
        sides = sides / sides.sum(1, keepdim=True)
        tokens = o.filler.to(F64)
        return torch.stack([sides @ tokens, sides @ (tokens * o.score)])  # the score-function identity

    def moved(self, by: Tensor) -> Room:
        """The room with `by` [2] added to the logits of the end."""
        bad, good = (torch.tensor(self.ends, dtype=F64).logit() + by).sigmoid().tolist()
        return replace(self, ends_bad=bad, ends_good=good)


# --- the expected update, by formula ---------------------------------------------------------------------------------


def expected_step(room: Room, normaliser: str) -> Tensor:
    """The expected step of the logits of the end, [2] by verdict, per unit of learning rate (plain gradient ascent).

    Of the other responses in a group k earn a reward, and k is binomial; the advantage depends on k and on the own
    reward alone. What it is multiplied by, 1/(N|o|), 1/(N·L) or 1/(|o| + R), is averaged over R, the tokens of all
    others: a sum of independent lengths, whose distribution is a product of polynomials.
    """
    if normaliser not in NORMALISERS:
        raise RlinoError(f"no rates under {normaliser!r}: one of {', '.join(NORMALISERS)}")
    o, g = room.outcomes, room.group_size
    own = torch.arange(room.cap + 1, dtype=F64).clamp_min(1)  # [H + 1]; there is no length 0
    rewarded = o.reward == 1
    chance = (o.chance * rewarded).sum().item()
    by_length = [_by_length(o, ~rewarded, room.cap), _by_length(o, rewarded, room.cap)]  # [H + 1] each, sums to 1
    anybody = (1 - chance) * by_length[0] + chance * by_length[1]  # [H + 1]
    step = torch.zeros(2, dtype=F64)
    for k in range(g):
        odds = math.comb(g - 1, k) * chance**k * (1 - chance) ** (g - 1 - k)
        others = [(by_length[1], k), (by_length[0], g - 1 - k), (anybody, room.rows - g)]
        share = expected_share(normaliser, own, others, room.rows, room.cap)  # [H + 1], by the own length
        for reward in (0, 1):
            group = (torch.arange(g) < k + reward).to(F64)  # [G], those with a reward first
            advantage = advantages(group, g, variant(METHOD, normaliser).advantage)[reward - 1]
            push = (o.reward == reward) * o.chance * o.score * share[o.length]  # [M]
            by_verdict = torch.stack([push[~o.good].sum(), push[o.good].sum()])  # [2]
            step += room.rows * odds * advantage * by_verdict
    return step


def _by_length(o: Outcomes, where: Tensor, cap: int) -> Tensor:
    """The distribution of lengths among some kinds of response, [H + 1]."""
    chances = torch.zeros(cap + 1, dtype=F64).index_add_(0, o.length[where], o.chance[where])
    return chances / chances.sum()


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


# --- the same, by enumeration of all batches -------------------------------------------------------------------------


def enumerated_step(room: Room, normaliser: str) -> Tensor:
    """`expected_step` as the mean gradient of `policy_loss` over all batches, each with its chance: [2].

    Raises RlinoError where there are more than LIMIT batches.
    """
    o, n = room.outcomes, room.rows
    kinds = len(o.chance)
    if kinds**n > LIMIT:
        raise RlinoError(f"{kinds} kinds of response make {kinds**n:,} batches of {n}: at most {LIMIT:,}")
    total = torch.zeros(2, dtype=F64)
    for members in itertools.product(range(kinds), repeat=n):
        rows = torch.tensor(members)  # [N]
        total += o.chance[rows].prod() * batch_step(room, normaliser, rows)
    return total


def batch_step(room: Room, normaliser: str, rows: Tensor) -> Tensor:
    """The step of the logits [2] that `policy_loss` makes of one batch: rows [N] int64, each a kind of response."""
    o = room.outcomes
    logits = torch.tensor(room.ends, dtype=F64).logit().requires_grad_()  # [2]
    places = torch.arange(room.cap)  # [H]
    mask = places < o.length[rows, None]  # [N, H]
    ends = (places == o.length[rows, None] - 1) & o.ended[rows, None]  # [N, H]
    own = logits[o.good[rows].long()][:, None]  # [N, 1]
    logprobs = torch.nn.functional.logsigmoid(torch.where(ends, own, -own))  # [N, H]
    objective = variant(METHOD, normaliser)
    advantage = advantages(o.reward[rows], room.group_size, objective.advantage)  # [N]
    loss = policy_loss(objective, Batch(logprobs, advantage, mask, max_response_length=room.cap)).loss
    (gradient,) = torch.autograd.grad(loss, logits)
    return -gradient
