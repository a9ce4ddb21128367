"""A task whose held-out prompt asks for elimination, and BARL's objective on it, exactly (chapter 11).

A prompt is one of three tokens. A response over the same alphabet is right as soon as the prompt's token stands in it
three times in a row, and the episode ends; after T tokens it has failed. Prompts 0 and 1 train, prompt 2 is held out.
BARL (2505.20561) weighs an action by its values under several hypotheses of the answer, as far as what was tried so far
has not ruled them out. Here that is the chance of reaching each hypothesis's triple, summed with the prior's weights: a
triple that was reached without ending the episode is ruled out, and pays no second time. Ordinary RL has the truth for
its only hypothesis. The policy sees the prompt, its last two tokens and which repeats it has tried. These are few
states, so that chances are sums over them, and the gradient has no noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from rlino_lib.errors import RlinoError, chosen

TOKENS, NONE = 3, 3  # in place of a token that is not there yet
TRAINED, HELD_OUT = (0, 1), 2
Triple = tuple[int, int, int]
REPEATS: list[Triple] = [(token,) * 3 for token in range(TOKENS)]
ALL: list[Triple] = [(a, b, c) for a in range(TOKENS) for b in range(TOKENS) for c in range(TOKENS)]
# The hypotheses for a prompt, equally likely.
PRIORS: dict[str, Callable[[int], Sequence[Triple]]] = {
    "the truth": lambda prompt: [REPEATS[prompt]],
    "three repeats": lambda prompt: REPEATS,
    "all 27 triples": lambda prompt: ALL,
}
# What a policy knows: the repeats tried, as bits, and the last two tokens. The first is the start.
STATES = [(0, NONE, NONE)] + [
    (tried, before, last) for tried in range(2**TOKENS) for before in (NONE, *range(TOKENS)) for last in range(TOKENS)
]


@cache
def transitions() -> Tensor:
    """The state after each token, [S, 3] int64."""
    place = {state: k for k, state in enumerate(STATES)}
    rows = []
    for tried, before, last in STATES:
        after = [tried | (1 << token if before == last == token else 0) for token in range(TOKENS)]
        rows.append([place[bits, last, token] for token, bits in enumerate(after)])
    return torch.tensor(rows)


class BeliefPolicy(nn.Module):
    """Two layers from the prompt, the last two tokens and the repeats tried to the next token."""

    def __init__(self, width: int = 32, seed: int = 0) -> None:
        super().__init__()
        states = torch.tensor(STATES)  # [S, 3]
        bits = states[:, :1].bitwise_right_shift(torch.arange(TOKENS)) % 2  # [S, 3]
        tokens = one_hot(states[:, 1:], TOKENS + 1).flatten(1)  # [S, 8]
        self.features = torch.cat([bits, tokens], 1).float()  # [S, 11]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            inputs = TOKENS + self.features.shape[1]
            self.net = nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, TOKENS))

    def forward(self, prompt: int) -> Tensor:
        """The chances of the next token in each state, [S, 3]."""
        asked = one_hot(torch.tensor(prompt), TOKENS).float().expand(len(STATES), -1)  # [S, 3]
        return self.net(torch.cat([asked, self.features], 1)).softmax(-1)


def reached(chances: Tensor, triples: Sequence[Triple], length: int) -> Tensor:
    """The chance that each of H triples is complete after t tokens, [T+1, H], by next-token chances [S, 3]."""
    states, after = torch.tensor(STATES), transitions()  # [S, 3] each
    wanted = torch.tensor(triples)  # [H, 3]
    begun = (states[None, :, 1:] == wanted[:, None, :2]).all(-1)  # [H, S]
    completes = begun[..., None] & (torch.arange(TOKENS) == wanted[:, None, 2:])  # [H, S, 3]
    waiting = torch.zeros(len(triples), len(STATES))  # [H, S], not complete so far, and where
    waiting[:, 0] = 1
    done = [torch.zeros(len(triples))]
    for _ in range(length):
        flow = waiting[..., None] * chances  # [H, S, 3]
        done.append(done[-1] + (flow * completes).sum((1, 2)))
        rest = (flow * ~completes).flatten(1)  # [H, S·3]
        waiting = torch.zeros_like(waiting).index_add(1, after.flatten(), rest)
    return torch.stack(done)


def learn(prior: str, steps: int = 120, lr: float = 1e-2, length: int = 24, seed: int = 0) -> pd.DataFrame:
    """Train by the exact gradient of the chance of reaching a hypothesis's triple, a mean over hypotheses (Adam).

    Columns: `step`, `prompt`, `held_out`, `right` (the exact chance within `length` tokens), `tokens` (of an episode,
    which ends at success, mean). Raises RlinoError for an unknown prior.
    """
    hypotheses = PRIORS[chosen(prior, PRIORS, "prior")]
    if steps < 0 or length < 3:
        raise RlinoError(f"{steps} steps on responses of {length} tokens: none can be right")
    policy = BeliefPolicy(seed=seed)
    optimizer = torch.optim.Adam(policy.parameters(), lr)
    rows = []
    for step in range(steps + 1):
        if step % 20 == 0 or step == steps:
            rows += [(step, prompt, prompt == HELD_OUT, *_success(policy, prompt, length)) for prompt in range(TOKENS)]
        chances = [reached(policy(prompt), hypotheses(prompt), length)[-1] for prompt in TRAINED]  # [H] each
        optimizer.zero_grad()
        (-torch.stack([chance.mean() for chance in chances]).mean()).backward()
        optimizer.step()
    return pd.DataFrame(rows, columns=["step", "prompt", "held_out", "right", "tokens"])


def _success(policy: BeliefPolicy, prompt: int, length: int) -> tuple[float, float]:
    """The chance of being right in time, and the mean number of tokens until then or the end."""
    with torch.no_grad():
        done = reached(policy(prompt), [REPEATS[prompt]], length)[:, 0]  # [T+1]
    return done[-1].item(), (1 - done[:-1]).sum().item()
