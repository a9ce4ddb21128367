# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
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
# # 08b · The clean room
#
# **Does $1/|o|$ make wrong responses longer where nothing else can?**
#
# **The answer.** Yes. Exact rates say so, and in every recorded run with $1/|o|$ the responses of a small model after a
# bad verdict grow away from those after a good one. By SGD they stay together without $1/|o|$. Where filler is worth
# something, bad responses also grow without it, and growth alone no longer tells the cause.
#
# Chapter 08 shows that the drift exists in expectation, and chapter 08c takes the growth of responses in two tasks
# apart. In both tasks length is work: a longer search finds more, and a solution with all its steps is right more
# often. If little of $1/|o|$ is seen there, the effect may be absent, or hidden, or the experiment may be unable to
# show it. An experiment that has never shown an effect needs a positive
# control: a case in which the effect must appear. This chapter builds one. First the rates are derived exactly. Then
# the same rates are looked for in a trained model. At the end a dial leads back to a task in which length is worth
# something.

# %%
import tempfile
from pathlib import Path

import pandas as pd
from IPython.display import display

from rlino_lib.analysis.tables import clean
from rlino_lib.claims.clean_room import STEPS, filler, gaps, room_runs, setting_of
from rlino_lib.evaluation.graded import sample_graded
from rlino_lib.exact import clean_room as exact
from rlino_lib.exact.clean_room import Room, mean_gap, rate_for_gap, rates
from rlino_lib.exact.length_toy import NORMALISERS
from rlino_lib.figures.clean_room import dial_figure, filler_figure, gap_figure
from rlino_lib.figures.recorded import say
from rlino_lib.figures.style import style

style()
pd.set_option("display.max_colwidth", None)

# %% [markdown]
# ## A task in which only length can change
#
# The prompt is a number that means nothing. An environment then writes the verdict, ` good` or ` bad`, by lot: good
# with probability 0.3. The verdict is a token outside the mask, so the policy is not trained on it. After it the policy
# writes filler any number of times, ` um` after good and ` er` after bad, and ends. The reward is 1 after good and 0
# after bad.
#
# Two properties make this a control:
#
# - The policy *reads* the verdict, so its behaviour after good and after bad can differ. The word of its filler shows
#   that it does.
# - The policy cannot *change* the verdict, so there is nothing to learn, and wrong responses do not die out.
#
# Every response has a random draw of its own, its *lot*, made from the seed of the run, the step and the place in the
# batch. So the responses of one group differ in their verdicts.

# %%
from rlino_lib.paths import base_of
from rlino_lib.policy.models import load_policy
from rlino_lib.tasks import CleanRoom

task = CleanRoom()
base = load_policy(base_of("clean_room"))
group = sample_graded(base, task, task.problems("validation", 1), 8, seed=1, max_new_tokens=97)
facts = {"prompt": group.prompts[0], "response": group.texts, "tokens of the policy": group.lengths.tolist()}
pd.DataFrame(facts | {"reward": group.rewards.tolist()})

# %% [markdown]
# The base model is small: two layers of width 32. It was trained on filler of geometric length: after each token the
# response ends with chance 0.05, whatever the verdict. Is its filler really independent of the verdict?

# %%
half = CleanRoom(good=0.5)
many = sample_graded(base, half, half.problems("validation", 512), 8, seed=2, max_new_tokens=97)
lengths = {"good": many.lengths[many.correct].double(), "bad": many.lengths[~many.correct].double()}
error = sum(side.var().item() / len(side) for side in lengths.values()) ** 0.5
difference = lengths["bad"].mean().item() - lengths["good"].mean().item()
say(
    f"The base: {lengths['good'].mean():.1f} tokens after good, {lengths['bad'].mean():.1f} after bad. The difference "
    f"is {difference:+.2f}, with a standard error of {error:.2f} over {len(many.lengths)} responses."
)

# %% [markdown]
# ## The rates, before any model
#
# Take the smallest policy that fits: after each verdict one logit $z$, and at each token the chance $q = \sigma(z)$ of
# the end. A response of $n$ tokens, the end among them, has the log-probability $(n-1)\log(1-q) + \log q$. Its
# derivative by $z$ is its *score*:
#
# $$ \frac{\partial \log \pi(o)}{\partial z} = (1 - q) - q\,(n-1) = 1 - qn . $$
#
# A score has expectation 0, because the mean of $n$ is $1/q$. Short responses have positive scores, and long ones
# negative scores.
#
# A method multiplies the score of each response by its advantage and by what the normaliser makes of it. In the clean
# room the advantage depends on the verdicts of the group and on no length. That leaves three cases.
#
# - **Constant.** The factor is $1/(N L)$. The expected update is the advantage times the mean score: zero, after good
#   and after bad.
# - **$1/|o|$.** The factor is $1/(N n)$. What counts is the mean of the score over the length. For a geometric length
#   without a cap
#
# $$ \mathbb E\Big[\frac{1 - qn}{n}\Big] = q \sum_{n \ge 1} \frac{(1-q)^{n-1}}{n} - q = \frac{-q \ln q}{1-q} - q \; > 0
# . $$
#
# - **Token mean.** The factor is $1/(n + R)$, where $R$ are the tokens of all other responses in the batch. The
#   response's own length is one part in $N$ of this sum. So the update is not zero, but it is smaller by a factor of
#   about $N$.
#
# Under $1/|o|$ responses with a positive advantage therefore end sooner, and those with a negative advantage later.
# First the formula, with and without the cap of 96 tokens, and then a check of all three cases: the mean gradient of
# `policy_loss` over *all* batches of a room that is small enough.

# %% tags=["nbval-check-output"]
for q in (0.02, 0.05, 0.2):
    free, capped = exact.score_over_length(q), exact.score_over_length(q, 96)
    print(f"q = {q}: E[score / |o|] = {free:.5f}, under the cap {capped:.5f}")

# %%
small = Room(ends_bad=0.3, ends_good=0.5, cap=3, group_size=2, groups=1)
rows = {}
for name, text in NORMALISERS.items():
    formula, by_enumeration = exact.expected_step(small, name), exact.enumerated_step(small, name)
    rows[text] = [*formula.tolist(), (formula - by_enumeration).abs().max().item()]
checked = pd.DataFrame.from_dict(rows, "index", columns=["logit after bad", "logit after good", "gap to enumeration"])
assert (checked["gap to enumeration"] < 1e-14).all()
clean(checked.assign(**{"gap to enumeration": checked["gap to enumeration"].map("{:.0e}".format)}), 5)

# %% [markdown]
# And the rates of the room that the runs below have: 32 groups of 8, $q = 0.05$, a cap of 96 tokens. A rate is in
# tokens of mean filler per unit of learning rate, at plain gradient ascent.

# %%
room = Room()
table = rates(room)
display(clean(table, 4))
ratio = table.loc["1/|o|", "bad − good"] / table.loc["token mean", "bad − good"]
size = room.groups * room.group_size
say(f"The token mean moves the two apart {ratio:.0f} times more slowly than 1/|o|, in a batch of {size}.")

# %% [markdown]
# So after bad filler grows, and after good it shrinks, under $1/|o|$ alone. If the policy follows these rates for many
# steps, the two part completely:

# %% alt="Two line plots of the exact path, one for 1/|o| and one for a constant: mean filler by update after a bad and after a good verdict."
titles = {name: f"exact: {NORMALISERS[name]}" for name in ("per_response", "constant")}
paths = [exact.path(room, name, 40, rate=1.0).assign(normaliser=name, seed=0) for name in titles]
filler_figure(pd.concat(paths), titles=titles)

# %% [markdown]
# ## The model, live
#
# The same two normalisers, a few steps of the model. A model has no logit for each verdict. It has to find out in its
# weights what a verdict means for the end, and all of its responses share these weights. So the two curves may also
# move *together*: the noise of a batch pushes the chance of the end up or down, for good and bad alike.

# %% alt="Two line plots of the live runs, one for 1/|o| and one for a constant: mean filler by step after a bad and after a good verdict."
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.run import train

shared = dict(method="grpo_no_kl", task="clean_room", prompts=32, group_size=8, max_new_tokens=97, optimizer="sgd")
shared |= dict(steps=20, eval_every=0, trace_groups=0, guard="warn", device="cpu", precision="fp32", seed=11)
RATES = {"per_response": 1e-3, "constant": 5e-3}  # a constant of 97 where a response has 20 tokens: five times the rate
live = []
with tempfile.TemporaryDirectory() as folder:
    for name, lr in RATES.items():
        config = TrainConfig(objective_settings={"normaliser": name}, lr=lr, **shared)
        live.append(filler([train(config, Path(folder) / name)]))
filler_figure(pd.concat(live), smooth=2)

# %% [markdown]
# *What to look at.* Not whether a curve rises or falls: both curves of a panel may do that together. Look at the space
# between the two.

# %%
for name, frame in zip(RATES, live, strict=True):
    space = frame["bad"] - frame["good"]
    say(f"{NORMALISERS[name]}: bad − good {space.iloc[:5].mean():+.1f} tokens in the first five steps, "
        f"{space.iloc[-5:].mean():+.1f} in the last five.")  # fmt: skip

# %% [markdown]
# One seed and a few steps are an illustration, and no evidence.
#
# ## The recorded runs
#
# GRPO without KL under three normalisers: by SGD with momentum over five seeds, and by Adam over ten. Learning rates
# and thresholds were fixed before the runs, from pilots on other seeds (see the comment in `data/claims.toml`).
#
# ```sh
# rlino grid data/runs/clean-room-sgd.json
# rlino grid data/runs/clean-room.json
# rlino grid data/runs/clean-room-dial.json
# ```

# %% alt="For each optimiser, a line plot for each normaliser: mean filler by step after a bad and after a good verdict, each seed thin and their mean thick."
OPTIMIZERS = {"sgd": "SGD with momentum", "adamw": "Adam"}
recorded = {text: [] for text in OPTIMIZERS.values()}
dialled = []
for run in room_runs():
    optimizer, _, worth = setting_of(run)
    (dialled if worth else recorded[OPTIMIZERS[optimizer]]).append(run)
for text, runs in recorded.items():
    if runs:
        figure = filler_figure(filler(runs), smooth=5)
        figure.suptitle(text, fontsize=11)
        display(figure)
    else:
        print(f"No runs by {text} are recorded yet.")

# %% [markdown]
# The statistic of a run is its *gap*: mean filler after bad less mean filler after good, averaged over its 60 steps.
# What all responses of a run share cancels in it.

# %% alt="Dot plots, a panel for each optimiser: by how much wrong responses outgrow right ones in every run, by normaliser, with the mean over seeds and its 95 % interval."
tables = {text: gaps(runs) for text, runs in recorded.items() if runs}
if tables:
    display(gap_figure(tables))

# %%
from rlino_lib.claims.verdicts import mean_in_words

for text, table in tables.items():
    by = table.groupby("normaliser")["gap"]
    listed = "; ".join(
        f"{NORMALISERS[n]} {mean_in_words(by.get_group(n), 'tokens')}" for n in NORMALISERS if n in by.groups
    )
    say(f"{text}, bad − good: {listed}.")
    ends = by.agg(["min", "max"])
    listed = "; ".join(f"{NORMALISERS[n]} {ends.loc[n, 'min']:+.1f} to {ends.loc[n, 'max']:+.1f}" for n in ends.index)
    say(f"{text}, single runs, in tokens: {listed}.")

# %% [markdown]
# *What was seen.* Under $1/|o|$ the curves part in every run, and in the direction that the rates say: longer after
# bad, shorter after good. By SGD they stay together under the token mean and under the constant, in every run.
#
# ### What Adam makes of noise
#
# With Adam single runs have gaps of some tokens under the other normalisers as well. Does Adam create a drift? Under a
# constant the expected gradient is zero, and what a batch has is noise. Adam divides a gradient by its recent size. So
# it makes noise as large a step as it would make of a signal, and the logits walk at random. The policy of two logits
# shows how far. It is simulated below on many seeds, at rates at which $1/|o|$ has a similar gap.

# %%
import torch


def simulated(normaliser: str, adam: bool, rate: float, steps: int = STEPS, seeds: int = 100) -> torch.Tensor:
    """The gap of each of many simulated runs of the policy with two logits, [seeds]."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.full((seeds, 2), room.ends_bad).logit().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=rate, betas=(0.9, 0.95)) if adam else torch.optim.SGD([logits], lr=rate)
    total = torch.zeros(seeds)
    for _ in range(steps):
        good = torch.rand(seeds, room.groups, room.group_size, generator=rng) < room.good
        bad_q, good_q = logits.detach().sigmoid().view(seeds, 2, 1, 1).unbind(1)
        q = torch.where(good, good_q, bad_q)
        drawn = (torch.rand(good.shape, generator=rng).log() / (1 - q).log()).floor() + 1  # geometric
        n = drawn.clamp_max(room.cap)
        score = torch.where(drawn > room.cap, -q * room.cap, 1 - q * n)
        reward = good.float()
        advantage = (reward - reward.mean(2, keepdim=True)) / (reward.std(2, keepdim=True) + 1e-4)
        tokens = {"per_response": size * n, "constant": size * room.cap, "token_mean": n.sum((1, 2), True)}
        push = advantage * score / tokens[normaliser]
        logits.grad = -torch.stack([(push * ~good).sum((1, 2)), (push * good).sum((1, 2))], 1)
        optimizer.step()
        total += (n * ~good).sum((1, 2)) / (~good).sum((1, 2)) - (n * good).sum((1, 2)) / good.sum((1, 2))
    return total / steps


rows = {}
for name, text in NORMALISERS.items():
    for optimizer, rate in (("SGD", 1.44 if name == "constant" else 0.3), ("Adam", 0.015)):
        ends = simulated(name, optimizer == "Adam", rate)
        rows[optimizer, text] = [ends.mean().item(), ends.std().item()]
simulations = pd.DataFrame.from_dict(rows, "index", columns=["mean gap", "standard deviation over seeds"])
simulations.index = pd.MultiIndex.from_tuples(simulations.index)
simulations.sort_index(level=0, sort_remaining=False, ascending=False).round(1)

# %% [markdown]
# By SGD a gap without $1/|o|$ is a fraction of a token. With Adam it is some tokens in single runs, in either
# direction, and its mean is near zero. So one run with Adam shows neither that the mechanism is there nor that it is
# not. That takes seeds, and an interval.
#
# ## A dial: filler that is worth something
#
# The task has a setting `worth`. After a bad verdict, $n$ tokens of filler earn the reward with chance $1-(1-v)^n$. The
# draw belongs to the row, and the policy does not see it. At $v = 0$ filler is worth nothing. With a larger $v$ the
# task is like a search: each token is another attempt. Now there are two causes for long bad responses.
#
# The exact rates predict how the two add up. They have one free number, the learning rate of the two logits. It is set
# so that the gap under $1/|o|$ at $v = 0$ is that of the runs by SGD. All else follows: the constant, and every other
# $v$.

# %%
WORTHS = (0.0, 0.002, 0.01, 0.05)
sgd = tables.get(OPTIMIZERS["sgd"])
measured = sgd.loc[sgd["normaliser"] == "per_response", "gap"].mean() if sgd is not None else 13.0
rate = rate_for_gap(room, "per_response", STEPS, measured)
scale = {"per_response": 1.0, "constant": 5 * room.cap / 97}  # the runs' rates, and a cap without the verdict
predicted = pd.DataFrame(
    [(n, v, mean_gap(Room(worth=v), n, STEPS, rate * by)) for n, by in scale.items() for v in WORTHS],
    columns=["normaliser", "worth", "gap"],
)
predicted.pivot(index="worth", columns="normaliser", values="gap")[list(scale)].rename(columns=NORMALISERS).round(1)

# %% alt="Line plot: by how much wrong responses outgrow right ones against what a filler token is worth, one line for each normaliser, with every seed, the means, and what was predicted."
if dialled and sgd is not None:
    table = pd.concat([sgd[sgd["normaliser"].isin(scale)], gaps(dialled)])
    display(dial_figure(table, predicted))
    for v, part in table.groupby("worth"):
        by = part.groupby("normaliser")["gap"]
        share = by.mean()["constant"] / by.mean()["per_response"]
        listed = "; ".join(f"{NORMALISERS[n]} {mean_in_words(by.get_group(n), 'tokens')}" for n in scale)
        say(f"Worth {v:g}: {listed}; without 1/|o| there is {100 * share:.0f} % of the gap.")
else:
    print("No runs of the dial are recorded yet.")

# %% [markdown]
# *What was seen.* The more filler is worth, the more bad responses grow without $1/|o|$. The effect of $1/|o|$ does not
# go away, but it is no longer the only one: a growth of wrong responses alone does not tell which of the two it is.
#
# ## What follows for chapter 08c
#
# The mechanism of $1/|o|$ exists, and this book's code shows it where it must be. So where chapter 08c sees little of
# it, neither theory nor code is at fault. Whether its statistics could have seen it is another question, and that
# chapter has to answer it for each of them. In a search every further attempt is worth something. That is the right end
# of the dial, where bad responses also grow without $1/|o|$.
#
# The ledger's rows on the clean room, as judged from the runs above:

# %%
from rlino_lib.claims.judge import judge_all

judged = judge_all(evidence="clean_room.")
table = judged[["id", "statement", "found", "effect"]].set_axis(["", "claim", "verdict", "what was found"], axis=1)
table.set_index("")

# %% [markdown]
# ## Exercises
#
# **1. The rate.** `my_rate(weights, q)`: the mean of the score times its weight, for a response that ends with chance
# $q$ at each token and is cut after as many tokens as there are weights. `weights[n − 1]` is the weight of a response
# of $n$ tokens. A response that is cut has the length of the cap and no end: its score is $-qH$, with $H$ the cap.


# %%
from checkers.clean_room import check_rate, check_together


def my_rate(weights, q): ...


_ = check_rate(my_rate)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_rate(weights, q):
#     cap = len(weights)
#     ended = sum(q * (1 - q) ** (n - 1) * (1 - q * n) * weights[n - 1] for n in range(1, cap + 1))
#     return ended - (1 - q) ** cap * q * cap * weights[-1]
# ```
#
# With constant weights it is 0, with or without a cap. With weights that fall it is above 0.
#
# </details>
#
# **2. Together and apart.** `my_parts(start, end)`: `start` and `end` are pairs, mean filler after bad and after good
# verdicts. Return the drift that the two share, which is the mean of their changes, and how far they moved apart.


# %%
def my_parts(start, end): ...


_ = check_together(my_parts)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_parts(start, end):
#     bad, good = (now - before for now, before in zip(end, start))
#     return (bad + good) / 2, bad - good
# ```
#
# </details>
#
# **3. A question.** Somebody builds the same control with the verdict at the *end* of the response, written by the
# environment after the filler. What would 1/|o| do there, and why is it no control?
#
# <details><summary>Answer</summary>
#
# While it writes filler the policy then does not know the verdict. There is one chance of the end for both. The pushes
# of good and of bad responses on it have the same size and opposite signs, and cancel: the advantages of a group sum to
# zero, and length says nothing of the verdict. No normaliser would show a drift, though $1/|o|$ is in the gradient of
# each response. The normaliser can drive lengths apart only as far as the policy can tell right from wrong.
#
# </details>
#
# ## Summary
#
# - A score has mean 0. So weights that do not depend on a response's own length leave its expected length alone.
#   $1/|o|$ does depend on it, and pushes responses of negative advantage to be longer and those of positive advantage
#   to be shorter.
# - All responses of a model share parameters. What they share wanders under every normaliser. The gap between bad and
#   good is free of that. Adam enlarges noise where there is no signal: single runs then have gaps without a cause.
# - Where filler is worth something, bad responses grow under every normaliser too.
#
# As judged above:

# %%
for row in judged.itertuples():
    say(f"{row.id}: {row.found}. {row.statement} Found: {row.effect}.")
