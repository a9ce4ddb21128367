"""Token MDPs small enough to enumerate, in float64 (chapters 01, 06 and 08).

A state is the string of tokens written so far, an action the next token, a transition appends it; token 0 is EOS, and
a response ends there or at the horizon, where its reward is paid. Every response is enumerated, so values, gradients
and lengths are exact sums, and whatever the book says of sampled updates in expectation can be checked to rounding.

A policy is any module that returns logits [S, V] over all states: `TabularPolicy` or `SharedPolicy`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn.functional import one_hot

from rlino_lib.errors import RlinoError, chosen

LIMIT = 1_000_000  # responses
F64 = torch.float64

Reward = Callable[[Tensor, Tensor], Tensor] | Tensor | Sequence[float]


class Values(NamedTuple):
    """Exact values under a policy: V [S], Q [S, V], A = Q − V [S, V], and the chance of passing each state [S]."""

    V: Tensor
    Q: Tensor
    A: Tensor
    visits: Tensor


class Optimum(NamedTuple):
    """The best expected reward of a policy that sees the state, and of tokens that are fixed beforehand (an arm)."""

    closed_loop: float
    open_loop: float
    arm: str = ""  # of a token MDP: the best fixed tokens, up to EOS
    greedy: str = ""  # of a token MDP: what the policy of dynamic programming writes where nothing interferes

    @property
    def gap(self) -> float:
        """The loss from choosing all tokens beforehand."""
        return self.closed_loop - self.open_loop


class TokenMDP:
    """The LLM-MDP of one prompt, enumerated (2505.13697).

    vocab: V tokens, 0 is EOS. horizon: H tokens at most. reward: a tensor [N] over responses in the order of `tokens`,
    or a function of (tokens [N, H], mask [N, H]) that returns one. slip: the chance that the environment writes a
    token of its own, drawn uniformly, in place of the policy's: above 0 transitions are not deterministic any more.

    Of responses: tokens [N, H] int64 (0 where masked), mask [N, H] bool, lengths [N], rewards [N], and states [N, H],
    the state before each token. Of states: prefix [S, H], the tokens written so far (0 after them), path [S, H], the
    states passed, itself the last, depth [S], parent [S], last [S] its last token, and successors [S, V], the next
    state, or S + n where response n ends. States and responses go from short to long.

    Raises RlinoError where there are more than a million responses, or the rewards do not fit them.
    Example: `TokenMDP(3, 4, lambda tokens, mask: tokens.sum(1) == 3)`.
    """

    def __init__(self, vocab: int, horizon: int, reward: Reward, slip: float = 0.0, names: Sequence[str] = ()) -> None:
        if not (2 <= vocab <= 27 and 1 <= horizon <= 1000 and 0 <= slip <= 1):
            raise RlinoError("a token MDP needs 2 ≤ vocab ≤ 27, horizon from 1 to 1000 and 0 ≤ slip ≤ 1")
        go_on = vocab - 1  # tokens that do not end the response
        sizes = [go_on**t for t in range(horizon)]
        n = sum(sizes[:-1]) + sizes[-1] * vocab
        if n > LIMIT:
            raise RlinoError(f"{vocab} tokens and horizon {horizon} make more than {LIMIT:,} responses: take fewer")
        self.vocab, self.horizon, self.slip = vocab, horizon, slip
        self.names = tuple(names) or ("·", *ascii_lowercase[:go_on])
        self.levels = [slice(sum(sizes[:t]), sum(sizes[: t + 1])) for t in range(horizon)]  # the states of each length
        self.n_states, self.n_responses = sum(sizes), n
        self._enumerate_states(go_on)
        self._enumerate_responses()
        self.rewards = torch.as_tensor(reward(self.tokens, self.mask) if callable(reward) else reward).to(F64)  # [N]
        if self.rewards.shape != (n,) or not self.rewards.isfinite().all():
            raise RlinoError(f"rewards of shape {tuple(self.rewards.shape)}: need {n:,} finite numbers")

    def _enumerate_states(self, go_on: int) -> None:
        s, v, h = self.n_states, self.vocab, self.horizon
        self.depth, self.parent, self.last = (torch.zeros(s, dtype=torch.long) for _ in range(3))  # [S] each
        self.prefix, self.path = (torch.zeros(s, h, dtype=torch.long) for _ in range(2))  # [S, H] each
        self.successors = torch.empty(s, v, dtype=torch.long)  # [S, V]
        for t, level in enumerate(self.levels):
            place = torch.arange(level.stop - level.start)  # [S_t]
            if t:
                parent = self.levels[t - 1].start + place // go_on  # [S_t]
                self.parent[level], self.last[level] = parent, place % go_on + 1
                self.prefix[level], self.path[level] = self.prefix[parent], self.path[parent]
                self.prefix[level, t - 1] = self.last[level]
            self.depth[level] = t
            self.path[level, t] = level.start + place
            if t < h - 1:  # EOS ends response number `state`; another token leads one level down
                self.successors[level, 0] = s + level.start + place
                self.successors[level, 1:] = level.stop + place[:, None] * go_on + torch.arange(go_on)
            else:
                self.successors[level] = s + level.start + place[:, None] * v + torch.arange(v)

    def _enumerate_responses(self) -> None:
        state, token = (self.successors >= self.n_states).nonzero().unbind(1)  # [N] each, where a response ends
        self.lengths = self.depth[state] + 1  # [N]
        self.mask = torch.arange(self.horizon) < self.lengths[:, None]  # [N, H]
        self.states = self.path[state]  # [N, H]
        self.tokens = self.prefix[state].scatter(1, self.depth[state, None], token[:, None])  # [N, H]

    @property
    def right(self) -> Tensor:
        """Responses whose reward is above 0.5, [N] bool."""
        return self.rewards > 0.5

    def __repr__(self) -> str:
        size = f"{self.n_states:,} states, {self.n_responses:,} responses, {int(self.right.sum()):,} right"
        return f"TokenMDP: {self.vocab} tokens, horizon {self.horizon}, slip {self.slip:g}, {size}"

    # --- distributions and values ------------------------------------------------------------------------------------

    def _mix(self, values: Tensor) -> Tensor:
        """Over tokens at dim 1: what the policy's token gets, allowing for slips (of probabilities and values)."""
        return values if not self.slip else (1 - self.slip) * values + self.slip * values.mean(1, keepdim=True)

    def token_logprobs(self, policy: Module) -> Tensor:
        """log p(token | state) for every state, [S, V], with gradient; of the token that is written, slips included."""
        logp = policy().to(F64).log_softmax(-1)
        return self._mix(logp.exp()).log() if self.slip else logp

    def logprobs(self, policy: Module) -> Tensor:
        """Log-probs of the tokens of every response, [N, H], with gradient, 0 where masked."""
        return torch.where(self.mask, self.token_logprobs(policy)[self.states, self.tokens], 0)

    def probs(self, policy: Module) -> Tensor:
        """The probability of every response, [N], with gradient."""
        return self.logprobs(policy).sum(1).exp()

    def J(self, policy: Module) -> Tensor:
        """The expected reward, a scalar with gradient."""
        return self.probs(policy) @ self.rewards

    @torch.no_grad()
    def values(self, policy: Module) -> Values:
        """V, Q, A by the Bellman equation from the longest states to the shortest, and visits from the first on."""
        pi = policy().to(F64).softmax(-1)  # [S, V]
        written = self._mix(pi)  # [S, V]
        after = torch.cat([torch.zeros(self.n_states, dtype=F64), self.rewards])  # [S + N]
        q = torch.zeros_like(pi)  # [S, V]
        visits = torch.zeros(self.n_states, dtype=F64)  # [S]
        for level in reversed(self.levels):
            q[level] = self._mix(after[self.successors[level]])
            after[level] = (pi[level] * q[level]).sum(1)
        visits[0] = 1
        for level in self.levels[1:]:
            visits[level] = visits[self.parent[level]] * written[self.parent[level], self.last[level]]
        v = after[: self.n_states]  # [S]
        return Values(v, q, q - v[:, None], visits)

    # --- gradients ---------------------------------------------------------------------------------------------------

    def gradient(self, policy: Module) -> Tensor:
        """∇J by the policy-gradient theorem, Σ_s d(s) Σ_a π(a|s) Q(s,a) ∇log π(a|s), flat [parameters]."""
        exact = self.values(policy)
        logp = policy().to(F64).log_softmax(-1)  # [S, V]
        weights = exact.visits[:, None] * logp.detach().exp() * exact.Q  # [S, V]
        return flat_gradient((weights * logp).sum(), policy)

    def autograd_gradient(self, policy: Module) -> Tensor:
        """∇J by differentiating the sum over responses, flat [parameters]: the twin of `gradient`."""
        return flat_gradient(self.J(policy), policy)

    def credit(self, policy: Module, kind: str = "exact") -> Tensor:
        """Weights of every token of every response, [N, H], 0 where masked. Kinds, with r the reward of the response:

        `return` r on every token; `uniform` r − J on every token; `reward_split` r/|o|, the paper's assumption 2;
        `split` (r − J)/|o|, which is GRPO's; `exact` A(s_t, a_t). Raises RlinoError for other kinds, and where slips
        hide the actions.
        """
        self._needs_actions()
        exact = self.values(policy)
        advantage = (self.rewards - exact.V[0])[:, None]  # [N, 1]
        kinds = {
            "return": self.rewards[:, None],
            "uniform": advantage,
            "reward_split": self.rewards[:, None] / self.lengths[:, None],
            "split": advantage / self.lengths[:, None],
            "exact": exact.A[self.states, self.tokens],
        }
        return kinds[chosen(kind, kinds, "credit")] * self.mask  # [N, H]

    def expected_update(self, policy: Module, weights: Tensor) -> Tensor:
        """E[Σ_t w_t ∇log π(o_t | o_<t)] over responses drawn from the policy, flat [parameters].

        weights [N, H] or [N], held fixed, as an optimiser holds them. Raises RlinoError where slips hide the actions.
        """
        self._needs_actions()
        logprobs = self.logprobs(policy)  # [N, H]
        p = logprobs.detach().sum(1, keepdim=True).exp()  # [N, 1]
        return flat_gradient((p * weights.detach().view(len(p), -1) * logprobs).sum(), policy)

    def update_variance(self, policy: Module, weights: Tensor) -> float:
        """The variance of one sampled update Σ_t w_t ∇log π(o_t), summed over parameters; arguments as above."""
        mean = self.expected_update(policy, weights)
        logp = self.token_logprobs(policy)  # [S, V]
        rows = torch.eye(logp.numel(), dtype=F64).view(-1, *logp.shape)  # [S·V, S, V]
        parts = torch.autograd.grad(logp, list(policy.parameters()), rows, is_grads_batched=True)
        scores = torch.cat([part.flatten(1) for part in parts], 1)  # [S·V, parameters]
        weights = weights.view(self.n_responses, -1) * self.mask  # [N, H]
        samples = (weights[:, :, None] * scores[self.states * self.vocab + self.tokens]).sum(1)  # [N, parameters]
        return (self.probs(policy).detach() @ samples.square().sum(1) - mean.square().sum()).item()

    def _needs_actions(self) -> None:
        if self.slip:
            raise RlinoError("with slips a response does not say which tokens the policy chose: take slip = 0")

    def arm_values(self) -> Tensor:
        """The expected reward of every string of H tokens fixed beforehand, [V, …, V]; what follows an EOS is idle.

        Without slips an arm is a response, and its value the response's reward. Raises RlinoError past the limit.
        """
        v, h = self.vocab, self.horizon
        if v**h * self.n_responses > 10 * LIMIT:
            raise RlinoError(f"{v} tokens and horizon {h} make too many arms, {v**h:,}: take fewer")
        written = self._mix(torch.eye(v, dtype=F64))  # [V, V], the chance of each token given the arm's
        value = self.rewards[None]  # [1, N], of every arm's first tokens: the reward times the chance of the response
        for t in range(h):
            chance = torch.where(self.mask[:, t], written[:, self.tokens[:, t]], 1)  # [V, N]
            value = (value[:, None] * chance).flatten(0, 1)  # [V^(t + 1), N]
        return value.sum(1).view([v] * h)

    def optimum(self) -> Optimum:
        """The best expected reward with the state in view (dynamic programming) and with an arm chosen beforehand.

        They are equal as long as transitions are deterministic; with slips the arm can't react, and is worse.
        """
        after = torch.cat([torch.zeros(self.n_states, dtype=F64), self.rewards])  # [S + N]
        best = torch.zeros(self.n_states, dtype=torch.long)  # [S]
        for level in reversed(self.levels):
            after[level], best[level] = self._mix(after[self.successors[level]]).max(1)
        state = 0
        greedy = []
        while state < self.n_states:
            greedy.append(int(best[state]))
            state = int(self.successors[state, greedy[-1]])
        arms = self.arm_values()
        arm = [int(i) for i in torch.unravel_index(arms.argmax(), arms.shape)]
        arm = arm[: arm.index(0) + 1] if 0 in arm else arm
        return Optimum(after[0].item(), arms.max().item(), self.text(arm), self.text(greedy))

    def bandit(self) -> Bandit:
        """The same problem with whole responses as arms. Raises RlinoError where slips come between the two."""
        self._needs_actions()
        return Bandit(self.rewards, lambda policy: self.logprobs(policy).sum(1))

    def text(self, tokens: Sequence[int] | Tensor) -> str:
        """Tokens by their names, as one string."""
        return "".join(self.names[int(t)] for t in tokens)

    def responses(self, policy: Module) -> pd.DataFrame:
        """One row per response: text, length, reward and probability."""
        texts = [self.text(row[m]) for row, m in zip(self.tokens, self.mask, strict=True)]
        columns = {"length": self.lengths, "reward": self.rewards, "probability": self.probs(policy).detach()}
        return pd.DataFrame({"response": texts} | {name: column.numpy() for name, column in columns.items()})

    def tree(self, policy: Module) -> pd.DataFrame:
        """One row per state: the string, the chance of passing it, V, and π, Q and A of every token."""
        exact = self.values(policy)
        pi = policy().detach().softmax(-1)
        strings = [self.text(row[row > 0]) for row in self.prefix]
        table = pd.DataFrame({"state": strings, "visits": exact.visits.numpy(), "V": exact.V.numpy()})
        for name, values in (("π", pi), ("Q", exact.Q), ("A", exact.A)):
            table[[f"{name}({token})" for token in self.names]] = values.numpy()
        return table


@dataclass(frozen=True)
class Bandit:
    """Whole responses as arms of a bandit: their rewards [N], and their log-probs [N] under a policy. No states."""

    rewards: Tensor
    logprobs: Callable[[Module], Tensor]

    def J(self, policy: Module) -> Tensor:
        """The expected reward, a scalar with gradient."""
        return self.logprobs(policy).exp() @ self.rewards

    def gradient(self, policy: Module) -> Tensor:
        """∇J = Σ_arms p r ∇log p, flat [parameters]: the score of a whole response, times its reward."""
        logp = self.logprobs(policy)  # [N]
        return flat_gradient((logp.detach().exp() * self.rewards * logp).sum(), policy)


# --- an environment that writes -------------------------------------------------------------------------------------


def tool_game(seed: int, slip: float = 0.0, hidden: int = 1, tokens: int = 3, turns: int = 3) -> Tensor:
    """A random game with a tool: what every course of it pays, its reward times its chance under the tool.

    The policy writes one of V = `tokens`, the tool answers with another that depends on all that stands there, and so
    on for so many turns; the reward in [0, 1) depends on the whole. With chance `slip` an answer is drawn uniformly in
    place of the tool's own. With `hidden` above 1 it is one of so many tools that answers throughout, drawn at the
    start and not shown. Returns float64 [V, …, V], 2·turns axes: a token, its answer, a token, its answer, and so on.
    """
    rng = torch.Generator().manual_seed(seed)
    rewards = torch.rand([tokens] * (2 * turns), generator=rng, dtype=F64)  # [V, …]
    paid = torch.zeros_like(rewards)
    for _ in range(hidden):
        chance = torch.ones((), dtype=F64)
        for turn in range(turns):
            answers = torch.randint(tokens, [tokens] * (2 * turn + 1), generator=rng)  # [V, …]
            written = (1 - slip) * one_hot(answers, tokens) + slip / tokens  # [V, …, V]
            chance = chance[..., None, None] * written  # [V, …, V]
        paid += chance * rewards / hidden
    return paid


def best_of_tool_game(paid: Tensor) -> Optimum:
    """Both optima of a `tool_game`: from the last answer back to the first token, and over all arms."""
    arms = paid.sum(tuple(range(1, paid.ndim, 2)))  # [V, …, V], an axis a turn
    while paid.ndim:
        paid = paid.sum(-1).amax(-1)  # over the tool's answers, then the best token
    return Optimum(paid.item(), arms.max().item())


# --- policies --------------------------------------------------------------------------------------------------------


class TabularPolicy(Module):
    """One logit vector per state, uniform at first, or normal with `scale` from a seed.

    With classes [S] int64, states of one class share their logits: a policy that can't tell them apart.
    """

    classes: Tensor

    def __init__(self, mdp: TokenMDP, scale: float = 0.0, seed: int = 0, classes: Tensor | None = None) -> None:
        super().__init__()
        classes = torch.arange(mdp.n_states) if classes is None else classes
        self.register_buffer("classes", classes)
        rng = torch.Generator().manual_seed(seed)
        self.logits = Parameter(scale * torch.randn(int(classes.max()) + 1, mdp.vocab, generator=rng, dtype=F64))

    def forward(self) -> Tensor:
        return self.logits[self.classes]  # [S, V]


class SharedPolicy(Module):
    """A small network that all states share, as a language model's do.

    An embedding for each token at each place and one for the length are summed; a tanh layer and a head follow.
    """

    features: Tensor  # [S, H·V + H]
    embed: Parameter
    hidden: Parameter
    head: Parameter

    def __init__(self, mdp: TokenMDP, width: int = 8, seed: int = 0, scale: float = 1.0) -> None:
        super().__init__()
        tokens = one_hot(mdp.prefix, mdp.vocab) * (mdp.prefix > 0)[..., None]  # [S, H, V]
        features = torch.cat([tokens.flatten(1), one_hot(mdp.depth, mdp.horizon)], 1)  # [S, H·V + H]
        self.register_buffer("features", features.to(F64))
        rng = torch.Generator().manual_seed(seed)
        shapes = {"embed": (self.features.shape[1], width), "hidden": (width, width), "head": (width, mdp.vocab)}
        for name, shape in shapes.items():
            start = torch.randn(*shape, generator=rng, dtype=F64) * scale / (1 if name == "embed" else shape[0] ** 0.5)
            setattr(self, name, Parameter(start))

    def forward(self) -> Tensor:
        return torch.tanh(self.features @ self.embed @ self.hidden) @ self.head  # [S, V]


def flat_gradient(scalar: Tensor, policy: Module) -> Tensor:
    """The gradient of a scalar by all parameters of a policy, in one row [parameters]."""
    parts = torch.autograd.grad(scalar, list(policy.parameters()), retain_graph=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in parts])
