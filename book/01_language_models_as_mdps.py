# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: -jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 01 · Language models as MDPs
#
# **What does the MDP of writing contain that a list of graded answers does not?**
#
# **The answer.** States in the middle, and nothing else as long as transitions are deterministic from a known start:
# objective, gradient and optimum are then those of a bandit over whole responses. A noisy environment ends it. What
# states are worth tells which token earned the reward, with the same expected update and less noise. To divide the
# credit by the length of a response is another matter: it changes the gradient. In the ledger: `bandit` holds,
# `deterministic-tool` holds, `noisy-environment` holds, `uniform-credit` does not hold here.
#
# Reinforcement learning is about states, actions, and what an action does to the state. A language model fits this
# scheme as follows. The paper ([arXiv 2505.13697](https://arxiv.org/abs/2505.13697)) names two assumptions in it:
#
# | part | in the LLM-MDP |
# |:---|:---|
# | state $s_t$ | the prompt $q$ and the tokens $o_1 \dots o_{t-1}$ written so far. *Assumption 1: nothing else* |
# | action $a_t$ | the next token $o_t$, one of $V$ |
# | transition | append the token (deterministic) |
# | end | at the token EOS, or after $H$ tokens |
# | reward $r$ | 0 or 1 from a verifier, at the end. *Assumption 2: spread evenly over the tokens* |
#
# From these the paper concludes that the process is a *contextual bandit*: the prompt is the context, a whole
# response is one arm, and there is nothing sequential left to learn.
#
# This chapter makes such processes small enough to enumerate, and checks each statement to the last digit. Then it
# gives Countdown a process of its own, whose states are not texts, and measures on real traces what the even spread
# throws away.

# %%
import math
import re

import pandas as pd
import seaborn as sns
import torch

from rlino_lib.exact.token_mdp import SharedPolicy, TokenMDP
from rlino_lib.figures.style import new_figure, shared_legend, style
from rlino_lib.tasks.countdown.trace import credit_table

style()

# %% [markdown]
# ## A tree by hand
#
# Take three tokens, EOS (written ·), a and b, and at most two of them. A response is right if it has one a and one
# b. The policy is a table with one row for each state:

# %%
policy = {"": {"·": 0.2, "a": 0.5, "b": 0.3}, "a": {"·": 0.5, "a": 0.2, "b": 0.3}, "b": {"·": 0.1, "a": 0.6, "b": 0.3}}


def ended(text):
    return text.endswith("·") or len(text) == 2


def reward(text):
    return float(sorted(text) == ["a", "b"])


# %% [markdown]
# The value of a text is the expected reward of going on from it: at the end the reward, and before it the mean of the
# values one token later, weighted by the policy. That is the Bellman equation, on a tree a recursion:
#
# $$ V(s) = \sum_a \pi(a \mid s)\, V(s a), \qquad Q(s, a) = V(s a), \qquad A(s, a) = V(s a) - V(s) . $$


# %% tags=["nbval-check-output"]
def V(text):
    if ended(text):
        return reward(text)
    return sum(p * V(text + token) for token, p in policy[text].items())


for text in policy:
    print(f"V({text or 'the prompt'}) = {V(text):.2f}   A:", {t: round(V(text + t) - V(text), 2) for t in policy[text]})

# %% [markdown]
# The library's `TokenMDP` enumerates the same tree as tensors, for every state and every response at once:

# %% tags=["nbval-check-output"]
from rlino_lib.exact.token_mdp import TabularPolicy

mdp = TokenMDP(3, 2, lambda tokens, mask: (tokens.sort(1).values == torch.tensor([1, 2])).all(1))
tabular = TabularPolicy(mdp)
tabular.logits.data = torch.tensor([list(row.values()) for row in policy.values()]).double().log()  # [S, V]
values = mdp.values(tabular)
assert max(abs(values.V[k].item() - V(text)) for k, text in enumerate(policy)) < 1e-7  # the table was typed in float32
print(mdp)
mdp.tree(tabular).round(2)

# %% [markdown]
# A token's *advantage* is a difference of values, so the advantages along a response telescope. They add up to $r -
# V(q)$, the response's advantage over the expected reward $J = V(q)$. Dividing this amount among the tokens is
# *credit assignment*. Exact credit is one division, and the even spread is another. The column "exact" says which
# token earned it:

# %% tags=["nbval-check-output"]
exact = mdp.credit(tabular, "exact")  # [N, H]
split = mdp.credit(tabular, "split")  # [N, H]
assert torch.allclose(exact.sum(1), mdp.rewards - values.V[0]) and torch.allclose(split.sum(1), exact.sum(1))
responses = mdp.responses(tabular)
for name, weights in (("exact", exact), ("spread", split)):
    responses[[f"{name} {t + 1}" for t in range(2)]] = weights.where(mdp.mask, math.nan).numpy()
responses.round(3)

# %% [markdown]
# *What to look at.* Which token earns the reward, and which loses it? In `ab` the b earns it. In the wrong `b·` the
# first token has positive credit: b was a good start that EOS threw away. The even spread blames b as much as EOS.
#
# ## The policy gradient, two ways
#
# A table has a row for each state. A language model shares its parameters among all states, and so does
# `SharedPolicy`, a small network. Now there are four tokens and up to five of them, and a response is right if it has
# exactly two a and ends by itself. The policy-gradient theorem sums over states,
#
# $$ \nabla J = \sum_s d(s) \sum_a \pi(a \mid s)\, Q(s, a)\, \nabla \log \pi(a \mid s), $$
#
# with $d(s)$ the chance of passing $s$. The bandit sums over whole responses, as arms,
#
# $$ \nabla J = \sum_o \pi(o)\, r(o)\, \nabla \log \pi(o), \qquad \log\pi(o) = \sum_t \log\pi(o_t \mid o_{<t}) . $$


# %% tags=["nbval-check-output"]
def two_a(tokens, mask):
    """Right responses have exactly two a and end in EOS, [N]."""
    return ((tokens == 1).sum(1) == 2) & ((tokens == 0) & mask).any(1)


mdp = TokenMDP(4, 5, two_a)
shared = SharedPolicy(mdp, seed=1)
print(mdp)
print(f"parameters: {sum(p.numel() for p in shared.parameters())}, J = {mdp.J(shared).item():.4f}")

# %% tags=["nbval-check-output"]
bandit = mdp.bandit()
theorem = mdp.gradient(shared)  # [parameters]
by_hand = {
    "J": (mdp.values(shared).V[0] - bandit.J(shared)).abs(),
    "gradient: theorem against autograd": (theorem - mdp.autograd_gradient(shared)).abs().max(),
    "gradient: theorem against bandit": (theorem - bandit.gradient(shared)).abs().max(),
}
for name, gap in by_hand.items():
    assert gap < 1e-12
    print(f"{name}: equal to 1e-12")
best = mdp.optimum()
print(f"best policy {best.closed_loop}, best arm {best.open_loop}: {best.greedy} and {best.arm}")

# %% [markdown]
# So the paper's reading is right: objective, gradient by every parameter, and optimum are those of a bandit over
# responses. The tree shows why. Each state has one history, each end belongs to one response, and only the policy
# decides which end is reached. Choosing tokens one by one, with all earlier ones in view, is choosing a response.
#
# What the bandit lacks is *states in the middle*, and so it has no $V(s)$ and no $A(s, a)$. Does that cost anything?
#
# ## What uniform credit throws away
#
# Here are five ways to assign credit to the tokens of a sampled response. Each has its expected update
# $\mathbb{E}[\sum_t w_t \nabla \log \pi(o_t \mid o_{<t})]$, summed exactly over all responses, and the standard
# deviation of a single response's update. $J$, which two of them subtract, does not depend on the response. With the
# same weight on every token it is a *baseline*: it changes the noise and not the mean.

# %%
kinds = {
    "return": "r on every token",
    "uniform": "r − J on every token",
    "exact": "A(s, a) of the token",
    "reward_split": "r/|o| on every token",
    "split": "(r − J)/|o| on every token",
}
rows = []
for kind, words in kinds.items():
    weights = mdp.credit(shared, kind)  # [N, H]
    update = mdp.expected_update(shared, weights)  # [parameters]
    gap = (update - theorem).norm() / theorem.norm()
    angle = torch.cosine_similarity(update, theorem, dim=0).clamp(max=1).arccos().rad2deg()
    noise = mdp.update_variance(shared, weights) ** 0.5 / update.norm()
    rows.append((words, gap.item(), angle.item(), noise.item()))
columns = ["credit", "distance from ∇J, relative", "angle to ∇J, degrees", "noise of one sample / size of the update"]
costs = pd.DataFrame(rows, columns=columns).set_index("credit")
assert (costs.iloc[:3, 0] < 1e-12).all() and (costs.iloc[3:, 0] > 1e-2).all()
for column, template in zip(columns[1:], ("{:.0e}", "{:.2f}", "{:.1f}"), strict=True):
    costs[column] = costs[column].map(template.format)
costs

# %% [markdown]
# *What to look at.* Which of them have the right direction, and which has the least noise? The first three have the
# same expectation, $\nabla J$ to rounding. Uniform credit is not wrong: what a token does not deserve averages out over
# samples. It is only noisier. The last two divide by $|o|$, as the paper's second assumption and GRPO do, and have
# other directions. Splitting $J$ as well turns the update further: $J/|o|$ depends on the response, and is no baseline.
# (Chapter 08 asks which directions.)
#
# Does the noise matter? Less noise allows larger steps. So train the network with each of the three unbiased kinds at
# several learning rates, one response per update, where noise matters most. Count the updates until half of the
# responses are right. The exact advantages are computed anew at each step, which only a toy allows.


# %%
def updates_until_half(kind: str, seed: int, lr: float, most: int) -> int:
    """Updates of plain gradient ascent, one sampled response each, until J is one half; `most` if it takes more."""
    learner = SharedPolicy(mdp, seed=1)
    rng = torch.Generator().manual_seed(seed)
    for step in range(most):
        logprobs = mdp.logprobs(learner)  # [N, H]
        probs = logprobs.detach().sum(1).exp()  # [N]
        if probs @ mdp.rewards >= 0.5:
            return step
        row = torch.multinomial(probs, 1, replacement=True, generator=rng)  # [1]
        learner.zero_grad()
        (mdp.credit(learner, kind)[row] * logprobs[row]).sum().backward()
        with torch.no_grad():
            for parameter in learner.parameters():
                parameter += lr * parameter.grad
    return most


# %%
RATES = (0.2, 0.3, 0.5)
MOST = 200
waits = pd.DataFrame(
    [
        (kinds[kind], rate, updates_until_half(kind, seed, rate, MOST))
        for kind in ("return", "uniform", "exact")
        for rate in RATES
        for seed in range(8)
    ],
    columns=["credit", "learning rate", "updates"],
)
by_rate = waits.groupby(["credit", "learning rate"], sort=False)["updates"].mean().unstack()
print(f"Means over 8 seeds; a run that is not there after {MOST} updates counts as {MOST}.")
by_rate.round(0)

# %% [markdown]
# *What to look at.* The smallest number of each row. Exact credit tolerates the largest steps, at which the other two
# kinds fail in some seeds. At its own best rate, uniform credit takes longer. So it leaves the direction as it is and
# costs samples, even on responses of five tokens. On hundreds of tokens there is more noise to remove. But then the
# values have to be learnt or sampled, which adds noise of its own (chapter 10).
#
# ## Where the bandit ends
#
# Which part of the set-up did the argument use? The policy alone has to determine the outcome, so it needs
# *deterministic transitions from a known start*. Who writes into the state does not matter.
#
# Let a tool write into it, a calculator or an interpreter. Assumption 1 is gone. But whoever knows the tool can fix
# all tokens beforehand. Below are random games. The policy writes one of three tokens, the tool answers with another
# that depends on everything so far, three times. The reward depends on the whole. An arm is a string of the policy's
# tokens, fixed beforehand; a policy sees the answers as they come. Both optima are found by enumeration. In two
# variants the tool cannot be foreseen: its answer slips to a random token with chance 0.2, or it is one of two tools
# and nobody knows which.

# %% tags=["nbval-check-output"]
from rlino_lib.exact.token_mdp import best_of_tool_game, tool_game

worlds = {"a deterministic tool": {}, "a tool that slips": {"slip": 0.2}, "one of two tools, unseen": {"hidden": 2}}
losses = {name: pd.Series([best_of_tool_game(tool_game(k, **w)).gap for k in range(200)]) for name, w in worlds.items()}
assert (losses["a deterministic tool"] == 0).all()  # to the last bit
pd.DataFrame(
    {
        name: {"games": len(loss), "games in which the best arm is worse": (loss > 1e-12).sum(),
               "mean loss": f"{loss.mean():.3f}", "largest loss": f"{loss.max():.3f}"}
        for name, loss in losses.items()
    }
).T  # fmt: skip

# %% [markdown]
# With a deterministic tool the best arm is as good as the best policy, in every game. With noise or a hidden start it
# is worse. So the paper needs less than it assumes: a model that calls a deterministic tool is a bandit too. And the
# reduction proves more than the paper wants. Nothing in it is about language. By the same argument *every*
# deterministic episodic process is a bandit over whole courses of action, a maze as well. Yet a maze is sequential. A
# bandit with exponentially many arms is a way to write the problem down. States in the middle are a way not to try the
# arms one by one.
#
# The same for noise in the writing itself: with chance `slip` the environment replaces the policy's token by one
# drawn uniformly. This stands for what cannot be foreseen, such as the reply of a user or a search result.

# %% alt="Line plot: expected reward against the chance that the environment writes the token, from 0 to 1. One line for the best policy, which sees the state, and one for the best arm, fixed beforehand. They start together and part as the chance grows."
from rlino_lib.exact.ruled_mdp import explore

slips = torch.linspace(0, 1, 21).tolist()
optima = [TokenMDP(3, 4, explore().mdp.rewards, slip=slip).optimum() for slip in slips]
gaps = pd.DataFrame(index=slips)
gaps["best policy, sees the state"] = [best.closed_loop for best in optima]
gaps["best arm, fixed beforehand"] = [best.open_loop for best in optima]
figure, axes = new_figure(1, 1, (6.6, 3.2))
sns.lineplot(gaps, ax=axes[0, 0])
axes[0, 0].set(xlabel="chance that the environment writes the token", ylabel="expected reward", ylim=(0, 1.02))
figure

# %% tags=["nbval-check-output"]
difference = gaps.iloc[:, 0] - gaps.iloc[:, 1]
assert difference.iloc[0] == 0 and difference.iloc[-1] < 1e-12
print(f"largest difference: {difference.max():.3f}, at a slip of {difference.idxmax():.2f}; none at 0 and none at 1")

# %% [markdown]
# At 0 the two are equal, at 1 nobody has a choice, and in between the bandit's best is worse: a policy can react to
# what happened, and an arm cannot. So the paper's statement is about a *setting* in which everything that happens can
# be foreseen. Single-turn text is one, and text with deterministic tools is another. A conversation is not, unless the
# partner is deterministic and known. It is not a statement about language models.
#
# A second way to leave the setting changes no optimum: let different texts be *one* state. In the explorer a response
# is right if it has exactly two a, so a state is fully described by its length and its number of a's. Choose *merged*
# states: the tree folds up and the values stay. What one response teaches about a state now holds for every text that
# leads there. Then try slips, and step through a response with the token slider.

# %%
from rlino_lib.widgets import mdp_explorer

mdp_explorer()

# %% [markdown]
# ## Countdown has a process of its own
#
# Countdown (chapter 02) asks to reach a target with every number used once. Its own process has little to do with
# tokens. A *state* is the multiset of numbers left. An *action* takes two of them and puts the result of an
# operation back. The model writes operations as text, and an attempt is a chain of them; ` no` at the end of a line
# starts over from all numbers.

# %% tags=["nbval-check-output"]
from rlino_lib.tasks.countdown.mdp import actions, best_value, uniform_value, ways

start = (2, 4, 8)
target = 64
merged = ways(start)
print(f"{len(merged)} states for {sum(merged.values())} chains of operations (the empty one included)")
most = max(merged, key=merged.get)
print(f"the state {most} is reached by {merged[most]} different chains")

# %% [markdown]
# The state forgets how it was reached, and that makes it useful: what follows does not depend on it. A text forgets
# nothing, not even failed attempts. So every further attempt multiplies the number of texts, and adds no task state.
#
# ### Exact values
#
# With so few states, dynamic programming gives exact values. $V^*(s)$ is 1 where the target can still be reached and 0
# where it cannot. The *uniform* value is the chance that operations chosen at random get there.

# %% tags=["nbval-check-output"]
moves = [
    (f"{a} {op} {b} = {c}", ", ".join(map(str, rest)), best_value(rest, target), float(uniform_value(rest, target)))
    for (a, op, b, c), rest in actions(start)
]
moves = pd.DataFrame(moves, columns=["first operation", "numbers left", "V*", "uniform"])
print(f"uniform value before the first operation: {float(uniform_value(start, target)):.3f}")
moves.sort_values(["uniform", "V*"], ascending=False).set_index("first operation").round(3)

# %% [markdown]
# The last column minus the printed value is the true advantage of an operation, for a player who then goes on at
# random. Most first operations lose the attempt at once. A response of one attempt that ends wrong was decided there,
# and the even spread punishes every token after it as much.
#
# ## Real traces
#
# The base of chapter 03 samples sixteen responses to each of sixteen problems. `read_trace` turns a response into
# the task states that it visits. An attempt with an arithmetic error, or with a number that is not available,
# reaches no valid state from there on.

# %%
from rlino_lib.policy.models import load_policy
from rlino_lib.policy.sampling import sample
from rlino_lib.tasks import Countdown
from rlino_lib.tasks.countdown.trace import read_trace

G = 16
task = Countdown()
base = load_policy()
problems = task.problems("validation", 16)
rollouts = sample(base, [task.prompt(p) for p in problems], G, seed=0).grade(task, problems)
visits = [v for i, text in enumerate(rollouts.texts) for v in read_trace(problems[i // G], text)]
what = pd.Series([v.what for v in visits]).value_counts()
steps = [v for v in visits if v.what == "step"]
faults = sum(bool(v.fault) for v in steps)
again = what["no"] / (what["no"] + what["gives up"])
print(f"{len(rollouts.texts)} responses, {rollouts.correct.double().mean():.1%} right, {len(steps):,} steps written,")
print(f"{faults} of them break a rule of the task. After a miss it tries again in {again:.1%} of cases.")

# %% [markdown]
# The last number completes a second exact model: a player who chooses operations uniformly and, after a miss, tries
# again with that chance. Its value of a state is $v(s) + (1 - v(s)) \cdot \text{again} \cdot V(\text{start})$, with
# $v$ the uniform value of one attempt. Two responses to one problem, a right one and a wrong one, each with at least
# two attempts:


# %%
def is_fit(i: int) -> bool:
    """Whether a response has two to four attempts and was not truncated."""
    return 2 <= len(re.findall(r" (?:no|yes)\b", rollouts.texts[i])) <= 4 and not rollouts.truncated[i]


def pick(group: int) -> list[int]:
    """The first right and the first wrong response of a group that are fit, or fewer."""
    first = {bool(rollouts.correct[i]): i for i in reversed(range(G * group, G * group + G)) if is_fit(i)}
    return [first[c] for c in (True, False) if c in first]


chosen = next(pick(g) for g in range(len(problems)) if len(pick(g)) == 2)
print(task.prompt(problems[chosen[0] // G]))
for i in chosen:
    print(f"\n[{'right' if rollouts.correct[i] else 'wrong'}]\n{rollouts.texts[i]}")

# %% [markdown]
# ### The base's own chances
#
# Exact values belong to a model of the player. Those of the base itself can be measured: let the base go on many times
# from the response up to some step, and count how often it ends right. That is a *Monte-Carlo value*, an unbiased
# estimate of $V^\pi$ of that text, with an exact 95 % interval (Clopper-Pearson).

# %%
from rlino_lib.evaluation.values import continuation_values


def with_values(i: int, samples: int, seed: int) -> pd.DataFrame:
    """The credit table of a response, with Monte-Carlo values of all its prefixes; the grade at its end."""
    table = credit_table(problems[i // G], rollouts.texts[i], again=again)
    prefixes = [rollouts.texts[i][:end] for end in table["end"][:-1]]
    estimates = continuation_values(base, task, problems[i // G], prefixes, samples=samples, seed=seed)
    table[["sampled", "low", "high"]] = estimates[["value", "low", "high"]].reindex(table.index)
    table.loc[table.index[-1], ["sampled", "low", "high"]] = float(rollouts.correct[i])
    table["credit (sampled)"] = table["sampled"].diff()
    # Newcombe's interval for a difference of two independent shares, from the interval of each.
    p, low, high = (table[c] for c in ("sampled", "low", "high"))
    table["credit low"] = p.diff() - ((p - low) ** 2 + (high - p).shift() ** 2) ** 0.5
    table["credit high"] = p.diff() + ((high - p) ** 2 + (p - low).shift() ** 2) ** 0.5
    table["spread"] = (p.iloc[-1] - p.iloc[0]) * table["tokens"] / table["tokens"].sum()
    return table.assign(response=i, right=bool(rollouts.correct[i]))


tables = [with_values(i, samples=128, seed=7 + i) for i in chosen]

# %% tags=["hide-input"] alt="Two columns, a right and a wrong response, along their steps. Above: the value of the text so far, as a best case, for a uniform player, and as sampled from the base with error bars. Below: bars of credit, the sampled change of value beside the same credit spread over the tokens."
figure, axes = new_figure(2, 2, (10, 6.6), sharex="col", sharey="row")
for (above, below), table in zip(axes.T, tables, strict=True):
    x = table.index
    errors = [(table["sampled"] - table["low"]).clip(lower=0), (table["high"] - table["sampled"]).clip(lower=0)]
    above.plot(x, table["best"], color="0.75", drawstyle="steps-post", label="can this attempt succeed?")
    above.plot(x, table["uniform"], color="0.35", linestyle="--", label="uniform player, exact")
    above.errorbar(x, table["sampled"], errors, color="C0", fmt="o", capsize=3, label="the base, sampled")
    above.set_title("right response" if table["right"].any() else "wrong response")
    below.bar(x - 0.2, table["credit (sampled)"].fillna(0), 0.4, color="C0", label="V(s′) − V(s), sampled")
    below.bar(x + 0.2, table["spread"], 0.4, color="0.8", hatch="//", label="spread over the tokens")
    steps = table["text"].str.replace(r"^,|\s", "", regex=True)
    below.set_xticks(x, steps.where(table["what"].isin(["step", "no"]), table["what"]), rotation=60, ha="right")
axes[0, 0].set_ylabel("value of the text so far")
axes[1, 0].set_ylabel("credit")
shared_legend(figure, columns=3)
figure

# %% [markdown]
# *What to look at.* Above: does the sampled value of the base follow the dashed line of a player who chooses at random?
# Mostly it does. Below: both kinds of bars have the same sum, $r - V(q)$. The measured credit sits on a few pieces,
# with both signs within one response: operations that changed the odds, the `no` that starts over, and giving up. The
# spread has one sign, and is larger where there are more tokens.

# %%
for table in tables:
    up, down = (table["credit low"] > 0).sum(), (table["credit high"] < 0).sum()
    against = (table["credit (sampled)"] * table["spread"] < 0).sum()
    print(f"{'right' if table['right'].any() else 'wrong'} response, {len(table) - 1} pieces:")
    print(f"  the 95 % interval of the credit lies above 0 at {up} and below 0 at {down} of them;")
    print(f"  at {against} the measured credit and its even spread have opposite signs")

# %% [markdown]
# Is the base more than a random player, within an attempt? One more response of ten problems, with fewer samples each:

# %%
survey = []
for g in range(len(problems)):
    rows = [i for i in range(G * g, G * g + G) if i not in chosen and is_fit(i)]
    if rows and len(survey) < 10:
        survey.append(with_values(rows[0], samples=32, seed=1000 + g))
survey = pd.concat(survey, ignore_index=True)
inside = survey[~survey["what"].isin(["answer", "yes", "gives up"])]
error = inside["sampled"] - inside["uniform"]
covered = ((inside["low"] <= inside["uniform"]) & (inside["uniform"] <= inside["high"])).mean()
print(f"{len(inside)} texts; correlation of the two values: {inside['sampled'].corr(inside['uniform']):.2f}")
print(f"mean difference, base minus uniform player: {error.mean():+.3f}")
print(f"the uniform player's value lies in the base's 95 % interval at {covered:.0%} of the texts")

# %% [markdown]
# Hardly: as far as 32 samples a text can tell, its chances are those of the random player. They depend on the numbers
# left and the target, and no effect of the history in its context is seen.
#
# ### Where the credit is
#
# If the uniform player is a fair model, its exact values give the credit of *every* piece of all responses without
# any further samples:

# %%
every = pd.concat(
    credit_table(problems[i // G], text, again=again).iloc[1:].assign(right=bool(rollouts.correct[i]), response=i)
    for i, text in enumerate(rollouts.texts)
    if not rollouts.truncated[i]
)
names = {
    "step": "an operation", "no": "a miss, starts over", "yes": "says yes", "gives up": "a miss, gives up",
    "answer": "the answer",
}  # fmt: skip
every["size"] = every["credit (uniform)"].abs()
every["piece"] = every["what"].map(names)
every["of"] = every["right"].map({True: "right", False: "wrong"})
parts = every.groupby(["of", "piece"])[["tokens", "size"]].sum()
parts = (parts / parts.groupby("of").transform("sum")).set_axis(["share of tokens", "share of |credit|"], axis=1)
parts["mean credit"] = every.groupby(["of", "piece"])["credit (uniform)"].mean()
parts.round(3)

# %%
sizes = every.groupby("response")["size"].agg(["sum", "max"])
net = every.groupby("response")["credit (uniform)"].sum().abs()
active = sizes["sum"] > 0
idle = every.loc[every["size"] < 1e-9, "tokens"].sum() / every["tokens"].sum()
print(f"{idle:.0%} of all tokens belong to pieces that change the odds by nothing at all;")
print(f"the largest single piece holds {(sizes['max'] / sizes['sum'])[active].mean():.0%} of a response's |credit|;")
print(f"the net amount that the even spread sees is {(net / sizes['sum'])[active].mean():.0%} of the |credit| moved.")

# %% [markdown]
# *What to look at.* Which pieces have many tokens, and which have the credit? The operations have most of both. Giving
# up has few tokens and a larger part of the credit of wrong responses. The answer has a good part of the tokens and
# close to none of the credit: once the attempt is made, copying it out decides nothing. Within a response credit of
# both signs cancels; the last printed line says how much is left for uniform credit.
#
# ## What the paper says, and what was found here
#
# The paper says that under its two assumptions the LLM-MDP is a contextual bandit, and that the updates then amount
# to supervised learning on graded answers.
#
# - *Assumption 1* is enough for the bandit, and more than is needed. What is needed are deterministic transitions from
#   a known start. Where the environment is noisy or hidden, the best arm falls short of the best policy.
# - So the reduction holds for every deterministic episodic process. It cannot be what sets the training of language
#   models apart.
# - *Assumption 2* combines two statements. The same weight on every token changes no expected update; it adds noise.
#   The division by $|o|$ does change the expected update.
# - A bandit is not yet supervised learning. The data follow the policy; chapters 05 and 06 take that step.
# - The formulation has no states in the middle, but the *task* does. Countdown has a few dozen, and the base's
#   chances follow them. The information is there; the usual credit does not use it.
#
# ## Exercises
#
# Each checker runs your function on a few inputs, compares, and names the likely mistake.
#
# **1. Counting arms.** `count_responses(V, H)`: how many responses are there over $V$ tokens, one of them EOS, if a
# response ends at EOS or after $H$ tokens? For the explorer's $V = 3$, $H = 4$ it is 31.

# %%
from checkers.mdp import check_count_responses, check_random_play, check_seeing, check_step_advantages


def count_responses(V, H): ...


_ = check_count_responses(count_responses)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def count_responses(V, H):
#     return sum((V - 1) ** k for k in range(H + 1))
# ```
#
# $(V-1)^{k}$ responses have $k$ tokens before EOS, for $k < H$, and $(V-1)^H$ are truncated. For the base and its
# cap, `len(str(count_responses(len(base.tokenizer), 112)))` is the number of *digits* of the number of arms. Such a
# bandit can be learnt only because its arms share parameters.
#
# </details>
#
# **2. Credit per step.** `step_advantages(values, reward)`: a list of $V(s_0) \dots V(s_{T-1})$ and the reward of the
# end in, the list of $A(s_t, a_t)$ out. What do they add up to?


# %%
def step_advantages(values, reward): ...


_ = check_step_advantages(step_advantages)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def step_advantages(values, reward):
#     after = [*values[1:], reward]
#     return [b - a for a, b in zip(values, after)]
# ```
#
# They add up to $r - V(s_0)$. Another common choice, $r - V(s_t)$, has the same expected update. It also counts the
# luck of later tokens, which is noise here.
#
# </details>
#
# **3. The value of an observation.** An environment shows an observation $o \sim p$. Then an action is chosen, with
# reward `R[o, a]`. `worth_of_seeing(p, R)`, arrays [O] and [O, A]: the expected reward of the best policy that sees
# $o$ minus that of the best action fixed beforehand.


# %%
def worth_of_seeing(p, R): ...


_ = check_seeing(worth_of_seeing)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def worth_of_seeing(p, R):
#     return p @ R.max(1) - (p @ R).max()
# ```
#
# It is never negative, and it is 0 where one action is best under every observation. This is the gap of the figure
# with the slips, for a single step.
#
# </details>
#
# **4. Random play.** `random_play(state, target)`: the chance that operations chosen uniformly from
# `actions(state)`, which yields pairs of an operation and the state after it, end at the target. A state is a sorted
# tuple.


# %%
def random_play(state, target): ...


_ = check_random_play(random_play)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def random_play(state, target):
#     if len(state) == 1:
#         return float(state[0] == target)
#     after = [random_play(rest, target) for _, rest in actions(state)]
#     return sum(after) / len(after)
# ```
#
# Two operations may lead to the same state. Merging states does not merge actions: that state is then reached twice
# as often.
#
# </details>
#
# ## Summary
#
# - The LLM-MDP is a tree: states are texts, each with one history. Its values are defined by the Bellman equation,
#   and advantages along a response add up to $r - V(q)$.
# - The library enumerates small ones (`TokenMDP`), solves Countdown's own (`best_value`, `uniform_value`), and
#   estimates a policy's values in the middle of a response by sampling (`continuation_values`).
#
# Claims settled here:
#
# - **A contextual bandit** (`bandit`). In single-turn text with a reward at the end, objective, gradient and optimum
#   equal those of a bandit over responses, to machine precision.
# - **Deterministic transitions, not assumption 1** (`deterministic-tool`). With a deterministic tool that writes into
#   the state, the best arm is still as good as the best policy: it follows from the argument, and 200 random games
#   agree.
# - **A noisy or hidden environment ends it** (`noisy-environment`). There the best arm is worse than the best policy,
#   at every slip strictly between 0 and 1 that was tried, and on average over random games.
# - **Uniform credit** (`uniform-credit`, does not hold here). Dividing by $|o|$ changes the expected update. One weight
#   on all tokens does not: it adds noise, which slows training in the toy, where each kind of credit has the best of
#   three rates.
# - **What it throws away.** In Countdown the odds move at few places and with both signs within one response:
#   measured with intervals on traces of one base, and by the uniform player's values for all responses.
#
# Chapters 08 to 08c ask what the division by $|o|$ does to lengths, and chapter 10 whether credit per step makes
# training better when its values have to be estimated.
