"""Evidence on "it is only a bandit" (chapter 01): exact, by enumeration in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from rlino_lib.claims.ledger import Claim, Evidence, Records, evidence
from rlino_lib.claims.verdicts import FAILS, HOLDS
from rlino_lib.exact.identities import Identity
from rlino_lib.exact.token_mdp import SharedPolicy, TokenMDP, best_of_tool_game, tool_game


def toy(slip: float = 0.0) -> TokenMDP:
    """Three tokens and EOS, up to four of them; right is to begin and end alike, in two tokens or more."""

    def reward(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        words = (tokens > 0).sum(1)  # [N], tokens before EOS
        last = tokens.gather(1, (words - 1).clamp_min(0)[:, None])[:, 0]  # [N]
        return ((words >= 2) & (tokens[:, 0] == last)).double()

    return TokenMDP(4, 4, reward, slip=slip)


def equal_sides(claim: Claim, identities: Sequence[Identity]) -> Evidence:
    """Whether both sides of every identity agree up to the claim's threshold for a relative gap."""
    worst = max(identities, key=lambda identity: identity.gap)
    bound = claim.threshold["gap"]
    if worst.gap > bound:
        return Evidence(FAILS, f"relative gap {worst.gap:.1g} ({worst.name})")
    # No digits of a gap that is all rounding: they differ from machine to machine.
    return Evidence(HOLDS, f"both sides computed in float64: relative gap below {bound:.0e}")


@evidence
def same_problem(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: the token MDP and the bandit whose arms are whole responses are one problem.

    Statistic: the largest relative gap between their objectives, gradients and optima.
    Threshold `gap`: the claim holds up to it.
    """
    mdp = toy()
    policy = SharedPolicy(mdp, seed=0)
    arms = mdp.bandit()
    closed_loop, open_loop = torch.tensor([*mdp.optimum()[:2]], dtype=torch.float64)
    sides = [
        ("objective", mdp.J(policy).detach(), arms.J(policy).detach()),
        ("gradient", mdp.gradient(policy), arms.gradient(policy)),
        ("optimum", closed_loop, open_loop),
    ]
    return equal_sides(claim, [Identity(*side) for side in sides])


def arm_losses(games: float, **world: Any) -> list[float]:
    """How far the best arm falls short of the best policy in each of `games` random games with a tool."""
    return [best_of_tool_game(tool_game(seed, **world)).gap for seed in range(int(games))]


@evidence
def deterministic_tool_costs_nothing(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: a deterministic tool that writes into the state leaves the best arm as good as the best policy.

    Statistic: the largest loss of the best arm over `games` random games. Threshold `gap`: the claim holds up to it.
    """
    games, bound = claim.threshold["games"], claim.threshold["gap"]
    worst = max(arm_losses(games))
    effect = f"by enumeration in float64, in {games:.0f} random games with a tool that answers every token"
    if worst > bound:
        return Evidence(FAILS, f"{effect}: the best arm loses up to {worst:.1g}")
    return Evidence(HOLDS, f"{effect}: best policy and best arm differ by less than {bound:.0e}")


@evidence
def noise_makes_arms_worse(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: where transitions are random, or the start is hidden, the best arm is worse than the best policy.

    Statistic: its loss where tokens slip, and its mean loss over `games` random games with a tool that slips, and with
    one of two tools, unseen. Threshold `loss`: the claim holds if all three are above it.
    """
    games = claim.threshold["games"]
    slips = toy(slip=0.2).optimum()
    noisy = sum(arm_losses(games, slip=0.2)) / games
    hidden = sum(arm_losses(games, hidden=2)) / games
    holds = min(slips.gap, noisy, hidden) > claim.threshold["loss"]
    effect = f"best reward with the state in view {slips.closed_loop:.3f}, chosen beforehand {slips.open_loop:.3f}"
    effect = f"{effect}, where a token slips with chance 0.2; mean loss of the best arm over {games:.0f} random games "
    effect = f"{effect}{noisy:.3f} with a tool that slips with chance 0.2, {hidden:.3f} with one of two tools, unseen"
    return Evidence(HOLDS if holds else FAILS, effect)


@evidence
def splitting_keeps_the_gradient(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: splitting the reward evenly over the tokens, 1/|o|, leaves the expected gradient unchanged.

    Statistic: the relative gap between the two gradients at one length. Threshold `gap`: the claim holds up to it. The
    cosine where a baseline is split as well is for comparison, and decides nothing.
    """
    mdp = toy()
    policy = SharedPolicy(mdp, seed=0)
    kinds = "return", "reward_split", "split"
    whole, split, with_baseline = (mdp.expected_update(policy, mdp.credit(policy, kind)) for kind in kinds)
    gap = Identity("split", split / split.norm(), whole / whole.norm()).gap
    cosines = [torch.cosine_similarity(whole, other, dim=0).item() for other in (split, with_baseline)]
    verdict = HOLDS if gap <= claim.threshold["gap"] else FAILS
    effect = f"cosine of the two expected gradients {cosines[0]:.3f}, {cosines[1]:.3f} where a baseline is split too"
    return Evidence(verdict, f"{effect}; lengths put to one scale")
