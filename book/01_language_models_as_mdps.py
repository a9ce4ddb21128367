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
# **The answer.** Nothing, as long as the policy alone writes and the reward comes at the end: objective, gradient
# and optimum are those of a bandit over whole responses. What this takes is deterministic transitions from a known
# start, and a noisy environment ends it. To divide the credit by the length of a response is another matter: it
# changes the gradient. In the ledger: `bandit` holds, `deterministic-tool` holds, `noisy-environment` holds,
# `uniform-credit` does not hold here.
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
# This chapter makes such processes small enough to enumerate, so that every statement can be checked to the last
# digit. Then it gives Countdown a process of its own, whose states are not texts. Real traces show what the even
# spread throws away.

# %%
import math
import re

import pandas as pd
import seaborn as sns
import torch

from rlino_lib.exact.token_mdp import SharedPolicy, TokenMDP
from rlino_lib.figures.style import new_figure, style
from rlino_lib.tasks.countdown.trace import credit_table
from rlino_lib.widgets import tokens_html

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
# The value of a text is the expected reward of going on from it. At the end it is the reward. Before, it is the mean
# of the values one token later, weighted by the policy. That is the Bellman equation, and on a tree it is a
# recursion:
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
# *What to look at.* Which token earns the reward, and which loses it? In `ba` the first token takes the smaller
# part. In the wrong `b·` it has positive credit: b was a good start that EOS threw away. The even spread blames b as
# much as EOS.
#
# ## The policy gradient, two ways
#
# A table has a row for each state. A language model shares its parameters among all states, and so does
# `SharedPolicy`, a network of a few hundred numbers. With four tokens and up to five of them there are a few hundred
# responses. A response is right if it has exactly two a and ends by itself. The policy-gradient theorem sums over
# states,
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
# So the paper's reading is right in the strong sense: objective, gradient by every parameter, and optimum are those
# of a bandit over responses. The tree shows why. Each state has one history, each end belongs to one response, and
# only the policy decides which end is reached. Choosing tokens one by one, with all earlier ones in view, is
# choosing a response. (Which of these the argument really needs is asked further down.)
#
# What the bandit lacks is *states in the middle*, and so it has no $V(s)$ and no $A(s, a)$. Does that cost anything?
#
# ## What uniform credit throws away
#
# Here are four ways to assign credit to the tokens of a sampled response. Each has its expected update
# $\mathbb{E}[\sum_t w_t \nabla \log \pi(o_t \mid o_{<t})]$, summed exactly over all responses, and the standard
# deviation of a single response's update. The $J$ that two of them subtract is a *baseline*: it does not depend on
# the response.

# %%
kinds = {
    "return": "r on every token",
    "uniform": "r − J on every token",
    "exact": "A(s, a) of the token",
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
assert (costs.iloc[:3, 0] < 1e-12).all() and costs.iloc[3, 0] > 1e-2
for column, template in zip(columns[1:], ("{:.0e}", "{:.2f}", "{:.1f}"), strict=True):
    costs[column] = costs[column].map(template.format)
costs

# %% [markdown]
# *What to look at.* Which of them have the right direction, and which has the least noise? The first three have the
# same expectation, $\nabla J$ to rounding. Uniform credit is not wrong: what a token does not deserve averages out
# over samples. It is only noisier, and knowing the values removes part of the noise. The fourth divides by $|o|$, as
# the paper's second assumption and GRPO do. It is *not* $\nabla J$ in any expectation; it points elsewhere (chapter
# 08 asks where).
#
# Does the noise matter? Train the network on sampled responses, four per step, with each of the three unbiased
# kinds. The exact advantages are recomputed from the policy at each step, which only a toy allows.


# %%
def learn(
    kind: str, seed: int, *, steps: int = 160, batch: int = 4, lr: float = 0.1, until: float = 1.0
) -> list[float]:
    """J before each step of plain gradient ascent on sampled responses, and after the last; up to J = `until`."""
    learner = SharedPolicy(mdp, seed=1)
    rng = torch.Generator().manual_seed(seed)
    curve = []
    for _ in range(steps + 1):
        logprobs = mdp.logprobs(learner)  # [N, H]
        probs = logprobs.detach().sum(1).exp()  # [N]
        curve.append((probs @ mdp.rewards).item())
        if curve[-1] >= until:
            break
        rows = torch.multinomial(probs, batch, replacement=True, generator=rng)  # [batch]
        weights = mdp.credit(learner, kind)[rows]  # [batch, H]
        learner.zero_grad()
        (-(weights * logprobs[rows]).sum() / batch).backward()
        with torch.no_grad():
            for parameter in learner.parameters():
                parameter -= lr * parameter.grad
    return curve


seeds = range(8)
curves = pd.DataFrame(
    [
        (kinds[kind], seed, 5 * k, value)
        for kind in ("return", "uniform", "exact")
        for seed in seeds
        for k, value in enumerate(learn(kind, seed)[::5])
    ],
    columns=["credit", "seed", "step", "J"],
)

# %% tags=["hide-input"] alt="Line plot: exact expected reward against updates, one line for each way of giving credit, with a band from the lowest to the highest seed."
figure, axes = new_figure(1, 1, (6.6, 3.4))
axis = axes[0, 0]
sns.lineplot(
    curves, x="step", y="J", hue="credit", style="credit", errorbar=("pi", 100), markers=True, markevery=8, ax=axis
)
axis.set(xlabel="updates (4 responses each)", ylabel="expected reward J, exact", ylim=(0, 1))
axis.set_title(f"mean of {len(seeds)} seeds; band: lowest to highest")
figure

# %%
half = curves[curves["J"] >= 0.5].groupby(["credit", "seed"], sort=False)["step"].min().groupby("credit", sort=False)
waits = half.agg(["mean", "min", "max", "count"]).rename(columns={"count": "seeds that got there"})
overlap = waits["min"].max() <= waits["max"].min()
print("updates until half of the responses are right; the ranges", "overlap" if overlap else "do not all overlap")
waits.round(1)

# %% [markdown]
# *What to look at.* How far apart are the lines, compared with the width of the bands? All three have the same
# expected update, learning rate and number of samples, and at this *one* rate, which suits no kind of credit in
# particular, the ranges of the seeds overlap. But less noise allows larger steps. So give each kind a choice of
# rates, with one response per step, where noise matters most. Count the updates until half of the responses are
# right:

# %%
RATES = (0.2, 0.3, 0.5)
MOST = 200
waits = pd.DataFrame(
    [
        (kinds[kind], rate, min(len(learn(kind, seed, steps=MOST, batch=1, lr=rate, until=0.5)) - 1, MOST))
        for kind in ("return", "uniform", "exact")
        for rate in RATES
        for seed in seeds
    ],
    columns=["credit", "learning rate", "updates"],
)
by_rate = waits.groupby(["credit", "learning rate"], sort=False)["updates"].mean().unstack()
for credit, row in by_rate.iterrows():
    print(f"{credit}: fastest at {row.idxmin():g}, {row.min():.0f} updates")
print(f"Means over {len(seeds)} seeds; a run that is not there after {MOST} updates counts as {MOST}.")
by_rate.round(0)

# %% [markdown]
# *What to look at.* The smallest number of each row. Exact credit tolerates the larger steps, at which the other two
# kinds fail in some seeds. This is the benefit of its smaller noise: at the best rate of each, uniform credit takes
# longer. (The best of three is chosen on the same seeds, so the distances are a little flattered.) So uniform credit
# leaves the direction as it is and costs samples, even on responses of five tokens. On hundreds of tokens there is
# more noise to remove. But then the values have to be learnt or sampled, which adds noise of its own (chapter 10,
# planned).
#
# ## Where the bandit ends
#
# Which part of the set-up did the argument use? The paper names assumption 1, that the state is nothing but the
# policy's own tokens. The argument needs less. The policy alone has to determine the outcome, so it needs
# *deterministic transitions from a known start*. Who writes into the state does not matter.
#
# Let a tool write into it, a calculator or an interpreter. Assumption 1 is gone. But whoever knows the tool knows
# its answers beforehand, and can fix all tokens beforehand. Below are random games. The policy writes one of three
# tokens, the tool answers with another that depends on everything so far, and so on three times. The reward depends
# on the whole. An arm is now a string of the policy's tokens, fixed beforehand. A policy sees the answers as they
# come. Both optima are found by enumeration, in float64. In two variants the tool cannot be known beforehand. Its
# answer slips, that is, a random token replaces it with chance 0.2; or it is one of two tools, and nobody knows
# which.

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
# With a deterministic tool the best arm is as good as the best policy, in every game. With noise or a hidden start
# it is worse. This has two consequences.
#
# - The paper needs less than it assumes. A model that calls a deterministic tool is a bandit too.
# - The reduction proves more than the paper wants. Nothing in it is about language. A maze with a known start, a
#   puzzle, a game against a fixed program: by the same argument *every* deterministic episodic process is a bandit
#   over whole courses of action. Yet a maze is sequential. A bandit with exponentially many arms is a way to write
#   the problem down. States in the middle are a way not to try the arms one by one.
#
# The same for noise in the writing itself: with chance `slip` the environment replaces the policy's token by one
# drawn uniformly. This stands for what cannot be foreseen, such as the reply of a user or a search result. A policy
# that sees the state can react to what happened; an arm cannot.

# %% alt="Line plot: expected reward against the chance that the environment writes the token, from 0 to 1. One line for the best policy, which sees the state, and one for the best arm, fixed beforehand. They start together and part as the chance grows."
from rlino_lib.exact.ruled_mdp import explore

toy = explore().mdp
rows = []
for slip in torch.linspace(0, 1, 21).tolist():
    best = TokenMDP(3, 4, toy.rewards, slip=slip).optimum()
    rows += [
        (slip, "best policy, sees the state", best.closed_loop),
        (slip, "best arm, fixed beforehand", best.open_loop),
    ]
gaps = pd.DataFrame(rows, columns=["slip", "chosen", "reward"])
figure, axes = new_figure(1, 1, (6.6, 3.2))
sns.lineplot(gaps, x="slip", y="reward", hue="chosen", style="chosen", ax=axes[0, 0])
axes[0, 0].set(xlabel="chance that the environment writes the token", ylabel="expected reward", ylim=(0, 1.02))
axes[0, 0].get_legend().set_title(None)
figure

# %% tags=["nbval-check-output"]
by_slip = gaps.pivot(index="slip", columns="chosen", values="reward")
difference = by_slip.iloc[:, 1] - by_slip.iloc[:, 0]
assert difference.iloc[0] == 0 and difference.iloc[-1] < 1e-12
print(f"largest difference: {difference.max():.3f}, at a slip of {difference.idxmax():.2f}; none at 0 and none at 1")

# %% [markdown]
# At 0 the two are equal, at 1 nobody has a choice, and in between the bandit's best is strictly worse. So the
# paper's statement is about a *setting* in which everything that happens can be foreseen. Single-turn text is one,
# and text with deterministic tools is another. A conversation is not, unless the partner is deterministic and known.
# It is not a statement about language models.
#
# There is a second way to leave the setting, which changes no optimum: let different texts be *one* state. In the
# explorer a response is right if it has exactly two a, so a state is fully described by its length and its number of
# a's. Choose *merged* states: the tree folds up and the values stay. What one response teaches about a state now holds
# for every text that leads there. Then try slips, and step through a response with the token slider.

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
from rlino_lib.tasks.countdown.game import make_problem
from rlino_lib.tasks.countdown.mdp import actions, best_value, count_states, uniform_value, ways

problem = make_problem([8, 2, 4], 64)
start = (2, 4, 8)
target = 64
merged = ways(start)
print(f"{len(merged)} states for {sum(merged.values())} chains of operations (the empty one included)")
shared_by_most = max(merged, key=merged.get)
print(f"the state {shared_by_most} is reached by {merged[shared_by_most]} different chains")

# %% [markdown]
# The state forgets how it was reached, and that makes it useful: what follows does not depend on it. A text state
# forgets nothing, not even failed attempts, so every attempt multiplies the number of texts. Counted on legal steps
# only, in the one way in which the base writes them:

# %%
examples = {"3 numbers": (2, 4, 8), "4 numbers": (3, 7, 8, 19)}
rows = []
for name, nums in examples.items():
    for k in range(1, 6):
        counts = count_states(nums, k)
        rows.append((name, k, counts.strings, counts.histories, counts.merged))
sizes = pd.DataFrame(rows, columns=["problem", "attempts", "token strings", "chains of operations", "task states"])
sizes[sizes["attempts"].isin([1, 2, 5])].set_index(["problem", "attempts"]).map("{:,}".format)

# %% tags=["hide-input"] alt="Two line plots on a log scale, for problems with 3 and 4 numbers: the number of states against the attempts in a response, one line for each way of counting states."
figure, axes = new_figure(1, 2, (8.4, 3.2), sharey=True)
long = sizes.melt(["problem", "attempts"], var_name="states counted as", value_name="states")
for axis, (name, part) in zip(axes[0], long.groupby("problem"), strict=True):
    sns.lineplot(
        part, x="attempts", y="states", hue="states counted as", style="states counted as", markers=True, ax=axis,
        legend=name == "4 numbers",
    )  # fmt: skip
    axis.set(yscale="log", xlabel="attempts in the response, at most", ylabel="number of states", xticks=range(1, 6))
    axis.set_title(f"{name}: {', '.join(map(str, examples[name]))}")
sns.move_legend(axes[0, 1], "upper left", title=None)
figure

# %% [markdown]
# *What to look at.* How does the number of states grow with the attempts? The scale is logarithmic: every attempt
# multiplies the number of texts by a constant. The number of task states does not grow at all.
#
# ### Exact values
#
# With so few states, dynamic programming gives values in closed form. $V^*(s)$ is 1 where the target can still be
# reached and 0 where it cannot. The *uniform* value is the chance that operations chosen at random get there.

# %% alt="Horizontal bars, one for each first operation on 8, 2, 4 towards 64: the chance that random operations then reach 64. Each bar says whether 64 can still be reached. A dashed line marks the chance before the first operation."
moves = [
    (f"{a} {op} {b} = {c}", ", ".join(map(str, rest)), best_value(rest, target), float(uniform_value(rest, target)))
    for (a, op, b, c), rest in actions(start)
]
moves = pd.DataFrame(moves, columns=["first operation", "numbers left", "V*", "uniform"])
moves = moves.sort_values(["uniform", "V*"], ascending=False)
figure, axes = new_figure(1, 1, (6.6, 3.2))
axis = axes[0, 0]
sns.barplot(moves, x="uniform", y="first operation", color="0.6", ax=axis)
before = float(uniform_value(start, target))
for k, (value, best) in enumerate(zip(moves["uniform"], moves["V*"], strict=True)):
    words = "can still be reached" if best else "out of reach"
    axis.text(max(value, before) + 0.005, k, words, va="center", fontsize=8)
axis.axvline(before, color="0.1", linestyle="--", linewidth=1)
axis.set(xlabel="chance that random operations then reach 64 (dashed: before the first one)", ylabel="", xlim=(0, 0.5))
axis.set_title("8, 2, 4 → 64: what a first operation is worth")
figure

# %% [markdown]
# Each bar minus the dashed line is the true advantage of that operation, for a player who then goes on at random.
# Most first operations lose the game at once. A response that contains one of them and ends wrong was decided there,
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
# $v$ the uniform value of one attempt. (With free attempts $V^*$ would be 1 until the response gives up, whatever it
# did before. The 0 or 1 above is about the attempt under way.)
#
# Two responses to one problem, a right one and a wrong one, each with at least two attempts:


# %%
def attempts_in(i: int) -> int:
    return len(re.findall(r" (?:no|yes)\b", rollouts.texts[i]))


def pick(group: int) -> list[int]:
    """The first right and the first wrong response of a group that are long enough and not truncated, or fewer."""
    rows = [i for i in range(G * group, G * group + G) if 2 <= attempts_in(i) <= 4 and not rollouts.truncated[i]]
    first = {bool(rollouts.correct[i]): i for i in reversed(rows)}
    return [first[c] for c in (True, False) if c in first]


chosen = next(pick(g) for g in range(len(problems)) if len(pick(g)) == 2)
problem = problems[chosen[0] // G]
print(task.prompt(problem))
for i in chosen:
    print(f"\n[{'right' if rollouts.correct[i] else 'wrong'}]\n{rollouts.texts[i]}")

# %% [markdown]
# ### The base's own chances
#
# Exact values belong to a model of the player. Those of the base itself can be measured: write the response up to
# some step, let the base go on from there many times, and count how often it ends right. That is a Monte-Carlo
# value, an unbiased estimate of $V^\pi$ of that text, and its interval is exact (Clopper-Pearson, 95 %).


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
for column, table in enumerate(tables):
    x = range(len(table))
    above, below = axes[:, column]
    errors = [(table["sampled"] - table["low"]).clip(lower=0), (table["high"] - table["sampled"]).clip(lower=0)]
    above.plot(x, table["best"], color="0.75", marker="s", drawstyle="steps-post", label="can this attempt succeed?")
    above.plot(x, table["uniform"], color="0.35", linestyle="--", label="uniform player, exact")
    above.errorbar(x, table["sampled"], errors, color="C0", fmt="o", capsize=3, label="the base, sampled")
    above.set(ylabel="value of the text so far", ylim=(-0.05, 1.05))
    above.set_title("right response" if table["right"].any() else "wrong response")
    names = [re.sub(r"^,|\s", "", t)[:12] or "↵" for t in table["text"]]
    own = {"start", "answer", "gives up"}
    names = [w if w in own else n for n, w in zip(names, table["what"], strict=True)]
    below.bar([k - 0.2 for k in x], table["credit (sampled)"].fillna(0), 0.4, color="C0", label="V(s′) − V(s), sampled")
    below.bar([k + 0.2 for k in x], table["spread"], 0.4, color="0.8", hatch="//", label="spread over the tokens")
    below.axhline(0, color="0.4", linewidth=1)
    below.set(ylabel="credit", xticks=list(x))
    below.set_xticklabels(names, rotation=60, ha="right", fontsize=8)
handles = [pair for axis in axes[:, 0] for pair in zip(*axis.get_legend_handles_labels(), strict=True)]
figure.legend(*zip(*handles, strict=True), loc="outside lower center", ncol=3)
figure

# %% [markdown]
# *What to look at.* Above: does the sampled value of the base follow the dashed line of a player who chooses at
# random? Mostly it does. Below: both kinds of bars have the same sum, $r - V(q)$. The true credit sits on the few
# operations that changed the odds, with both signs within one response. The spread has one sign, and is larger where
# there are more tokens.

# %%
for table in tables:
    up, down = (table["credit low"] > 0).sum(), (table["credit high"] < 0).sum()
    against = (table["credit (sampled)"] * table["spread"] < 0).sum()
    print(f"{'right' if table['right'].any() else 'wrong'} response, {len(table) - 1} pieces:")
    print(f"  the 95 % interval of the credit lies above 0 at {up} and below 0 at {down} of them;")
    print(f"  at {against} the measured credit and its even spread have opposite signs")

# %% [markdown]
# The same as text: the credit of each piece, true on the first line, spread evenly on the second.

# %%
table = tables[0]
limit = table["credit (sampled)"].abs().max()
tokens_html(
    table["text"].tolist(), table["credit (sampled)"].fillna(0).tolist(), limit=limit, title="V(s′) − V(s), sampled",
    label="credit",
)  # fmt: skip

# %%
tokens_html(
    table["text"].tolist(),
    table["spread"].tolist(),
    limit=limit,
    title="spread over the tokens",
    label="credit of the piece",
)

# %% [markdown]
# ### More traces
#
# One more response of each problem, with fewer samples each: within an attempt, is the base more than a random
# player?

# %%
survey = []
for g in range(len(problems)):
    rows = [
        i for i in range(G * g, G * g + G) if 2 <= attempts_in(i) <= 3 and not rollouts.truncated[i] and i not in chosen
    ]
    if rows and len(survey) < 10:
        survey.append(with_values(rows[0], samples=32, seed=1000 + g))
survey = pd.concat(survey, ignore_index=True)
inside = survey[~survey["what"].isin(["answer", "yes", "gives up"])]

# %% tags=["hide-input"] alt="Scatter plot with a diagonal: the value of a text as sampled from the base against its exact value for a uniform player; marks tell the prompt, texts after an operation and texts after a miss apart."
labels = {"start": "the prompt", "step": "after an operation", "no": "after a miss, starting over"}
figure, axes = new_figure(1, 1, (5.2, 4.4))
sns.scatterplot(
    inside.assign(place=inside["what"].map(labels)), x="uniform", y="sampled", hue="place", style="place", ax=axes[0, 0]
)
axes[0, 0].plot([0, 1], [0, 1], color="0.6", linewidth=1)
axes[0, 0].set(xlabel="value for the uniform player, exact", ylabel="value for the base, sampled")
axes[0, 0].get_legend().set_title(None)
axes[0, 0].set_title(f"{len(inside)} texts of {survey['response'].nunique()} responses")
figure

# %%
error = inside["sampled"] - inside["uniform"]
covered = ((inside["low"] <= inside["uniform"]) & (inside["uniform"] <= inside["high"])).mean()
print(f"correlation of the two values: {inside['sampled'].corr(inside['uniform']):.2f}")
print(f"mean difference, base minus uniform player: {error.mean():+.3f}")
print(f"the uniform player's value lies in the base's 95 % interval at {covered:.0%} of {len(inside)} texts")

# %% [markdown]
# *What to look at.* Do the points follow the line? The base's state is a text of dozens of tokens; the exact value
# uses only the numbers left. The correlation above says that the two agree closely. So the model has learnt a policy
# that depends on the task's state, and the history in its context hardly matters for success. Where points are off
# the line, the base chooses its operations otherwise than uniformly, as its demonstrator did (chapter 03), or runs
# into its length cap.
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
    "step": "an operation",
    "no": "a miss, starts over",
    "yes": "says yes",
    "gives up": "a miss, gives up",
    "answer": "the answer",
}
every["size"] = every["credit (uniform)"].abs()
parts = every[every["what"] != "cut"].groupby(["right", "what"], sort=False).agg(
    tokens=("tokens", "sum"), size=("size", "sum"), credit=("credit (uniform)", "mean")
)  # fmt: skip
parts["share of tokens"] = parts["tokens"] / parts.groupby("right")["tokens"].transform("sum")
parts["share of |credit|"] = parts["size"] / parts.groupby("right")["size"].transform("sum")
parts = parts.rename(index={True: "right", False: "wrong"}, level=0).rename(index=names, level=1)
parts.index.names = ["response", "piece"]
parts = parts.rename(columns={"credit": "mean credit"})[["share of tokens", "share of |credit|", "mean credit"]]
parts.sort_index(level=0, sort_remaining=False).round(3)

# %%
per_response = every.groupby("response").agg(right=("right", "first"), size=("size", "sum"), largest=("size", "max"))
per_response["net"] = every.groupby("response")["credit (uniform)"].sum().abs()
active = per_response[per_response["size"] > 0]
idle = every.loc[every["size"] < 1e-9, "tokens"].sum() / every["tokens"].sum()
print(f"{idle:.0%} of all tokens belong to pieces that change the odds by nothing at all;")
print(f"the largest single piece holds {(active['largest'] / active['size']).mean():.0%} of a response's |credit|;")
print(
    f"the net amount that the even spread sees is {(active['net'] / active['size']).mean():.0%} of the |credit| moved."
)

# %% [markdown]
# *What to look at.* Which pieces have many tokens, and which have the credit? The answer has a good part of the
# tokens and close to none of the credit: once the attempt is made, copying it out decides nothing. The last printed
# line is the loss in one number. Within a response credit of both signs cancels, and only the rest reaches uniform
# credit.
#
# ## What the paper says, and what was found here
#
# The paper says that under its two assumptions the LLM-MDP is a contextual bandit, and that the updates then amount
# to supervised learning on graded answers.
#
# - *Assumption 1* is enough for the bandit. Where the state is the concatenation of the policy's own tokens, value,
#   gradient and optimum are the bandit's, to machine precision. But the assumption is not needed. What is needed are
#   deterministic transitions from a known start. A tool may write as long as it is deterministic. Where the
#   environment is noisy or hidden, the best arm falls short of the best policy.
# - So the reduction holds for every deterministic episodic process, a maze as well as a text. It proves more than
#   the paper wants, since it cannot be what sets the training of language models apart.
# - *Assumption 2* combines two statements. The same weight on every token changes no expected update; it adds noise.
#   The division by $|o|$ does change the expected update. They are best kept apart.
# - A bandit is not yet supervised learning. The weights depend on the policy's own samples, and the data follow the
#   policy; chapters 05 and 06 take that step.
# - The formulation has no states in the middle, but the *task* does. Countdown has a handful, and the base's chances
#   follow them. The information is there; the usual credit does not use it.
#
# ## Exercises
#
# Each checker runs your function on a few inputs, compares, and names the likely mistake.
#
# **1. Counting arms.** `count_responses(V, H)`: how many responses are there over $V$ tokens, one of them EOS, if a
# response ends at EOS or after $H$ tokens? For the explorer's $V = 3$, $H = 4$ it is 31.


# %%
from checkers.mdp import (
    check_arm_logprob,
    check_back_up,
    check_count_responses,
    check_random_play,
    check_seeing,
    check_step_advantages,
)


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
# **2. The Bellman equation.** `back_up(probs, after)`: the policy's probabilities and the values that each action
# leads to, both [S, V], in; the values of the states, [S], out.


# %%
def back_up(probs, after): ...


_ = check_back_up(back_up)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def back_up(probs, after):
#     return (probs * after).sum(1)  # [S]
# ```
#
# </details>
#
# **3. Credit per step.** `step_advantages(values, reward)`: a list of $V(s_0) \dots V(s_{T-1})$ and the reward of the
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
# **4. The arm's log-probability.** `arm_logprob(logprobs, mask)`, both [N, T]: $\log \pi(o \mid q)$ of each whole
# response, [N]. Entries where the mask is false are padding: finite, and without meaning.


# %%
def arm_logprob(logprobs, mask): ...


_ = check_arm_logprob(arm_logprob)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def arm_logprob(logprobs, mask):
#     return (logprobs * mask).sum(1)  # [N]
# ```
#
# </details>
#
# **5. The value of an observation.** An environment shows an observation $o \sim p$. Then an action is chosen, with
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
# **6. Random play.** `random_play(state, target)`: the chance that operations chosen uniformly from
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
# - **A contextual bandit.** In single-turn text with a reward at the end, objective, gradient and optimum equal
#   those of a bandit over responses. *Holds*, to machine precision, and by construction.
# - **Deterministic transitions, not assumption 1.** With a deterministic tool that writes into the state, the best
#   arm is still as good as the best policy. *Holds*: it follows from the argument above, and 200 random games agree,
#   with a loss of exactly 0. So the reduction is one of every deterministic episodic process.
# - **A noisy or hidden environment ends it.** There the best arm is worse than the best policy. *Holds* in the toy,
#   at every slip strictly between 0 and 1 that was tried, and on average over random games.
# - **Uniform credit.** One weight on all tokens leaves the expected update at $\nabla J$ and adds noise. Dividing by
#   $|o|$ changes the expected update. *Holds*: equal to rounding, and different by the angle in the table. The noise
#   slowed training in the toy where each kind of credit had its best rate; at one small rate for all it could not be
#   seen.
# - **What it throws away.** In Countdown the odds move at few places and with both signs within one response.
#   *Measured* on traces of one base, with intervals.
#
# Open:
#
# - Whether credit per step makes training better when its values have to be estimated (chapter 10, planned).
#
# Chapters 08 to 08c answer what the division by $|o|$ does to lengths.
