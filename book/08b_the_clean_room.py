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
# Chapter 08 takes the growth of responses in two tasks apart. In both tasks length is work: a longer search finds more,
# and a solution with all its steps is right more often. If no effect of $1/|o|$ is seen there, it may be absent, or
# hidden, or the experiment may be unable to show it. An experiment that has never shown an effect needs a positive
# control: a case in which the effect must appear. This chapter builds one. First the rates are derived exactly. Then
# the same rates are looked for in a trained model. At the end a dial leads back to a task in which length is worth
# something.

# %%
import tempfile
from pathlib import Path

import pandas as pd
from IPython.display import display

from rlino_lib.analysis.tables import clean
from rlino_lib.claims.clean_room import STEPS, filler, gaps, room_runs
from rlino_lib.evaluation.graded import sample_graded
from rlino_lib.exact.clean_room import Room, enumerated_step, expected_step, path, rates, score_over_length
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
# Every response has a lot of its own, drawn from the seed of the run, the step and its place in the batch. So the
# responses of one group differ in their verdicts.

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
many = sample_graded(base, half, half.problems("validation", 256), 8, seed=2, max_new_tokens=97)
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

# %%
# NBVAL_CHECK_OUTPUT
for q in (0.02, 0.05, 0.2):
    print(f"q = {q}: E[score / |o|] = {score_over_length(q):.5f}, under the cap {score_over_length(q, 96):.5f}")

# %%
small = Room(ends_bad=0.3, ends_good=0.5, cap=3, group_size=2, groups=1)
rows = {}
for name, text in NORMALISERS.items():
    formula, by_enumeration = expected_step(small, name), enumerated_step(small, name)
    rows[text] = [*formula.tolist(), (formula - by_enumeration).abs().max().item()]
checked = pd.DataFrame.from_dict(rows, "index", columns=["logit after bad", "logit after good", "gap to enumeration"])
assert (checked["gap to enumeration"] < 1e-14).all()
checked.assign(**{"gap to enumeration": checked["gap to enumeration"].map("{:.0e}".format)}).round(5)

# %% [markdown]
# And the rates of the room that the runs below have: 32 groups of 8, $q = 0.05$, a cap of 96 tokens. A rate is in
# tokens of mean filler per unit of learning rate, at plain gradient ascent.

# %%
room = Room()
table = rates(room)
display(clean(table, 4))
ratio = table.loc["1/|o|", "bad − good"] / table.loc["token mean", "bad − good"]
say(f"The token mean moves the two apart {ratio:.0f} times more slowly than 1/|o|, in a batch of {room.rows}.")

# %% [markdown]
# So after bad filler grows, and after good it shrinks, under $1/|o|$ alone. If the policy follows these rates for many
# steps, the two part completely:

# %%
exact = [path(room, name, 40, rate=1.0).assign(normaliser=name, seed=0) for name in ("per_response", "constant")]
filler_figure(pd.concat(exact), titles={name: f"exact: {NORMALISERS[name]}" for name in ("per_response", "constant")})

# %% [markdown]
# ## The model, live
#
# The same two normalisers, a few steps of the model. A model has no logit for each verdict. It has to find out in its
# weights that the verdict matters, and all of its responses share most of these weights. So the two curves may also
# move *together*. This is a random walk: the noise of a batch pushes the chance of the end up or down, for good and bad
# alike.

# %%
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.run import train

shared = dict(method="grpo_no_kl", task="clean_room", prompts=16, group_size=8, max_new_tokens=97)
shared |= dict(steps=40, lr=1e-3, eval_every=0, trace_groups=0, guard="warn", device="cpu", precision="fp32")
live = []
with tempfile.TemporaryDirectory() as folder:
    for name in ("per_response", "constant"):
        settings = {} if name == "per_response" else {"normaliser": name}
        run = train(TrainConfig(objective_settings=settings, seed=11, **shared), Path(folder) / name)
        live.append(filler([run]))
filler_figure(pd.concat(live), smooth=4)

# %% [markdown]
# *What to look at.* Not whether a curve rises: both curves of a panel do that together. Look at the space between the
# two. One seed and a few steps are an illustration, and no evidence.
#
# ## The recorded runs
#
# GRPO without KL under each normaliser, with Adam over ten seeds, and with plain gradient steps with momentum over
# five: Adam divides by the size of recent gradients, and might create a drift of its own. Rates and thresholds were
# fixed beforehand, from pilot runs on other seeds (`data/claims.toml`). The grids:
#
# ```sh
# rlino grid data/runs/clean-room.json
# rlino grid data/runs/clean-room-sgd.json
# rlino grid data/runs/clean-room-dial.json
# ```

# %%
every = room_runs()
plain = [run for run in every if not run.config["task_settings"]]
with_adam = [run for run in plain if run.config.get("optimizer", "adamw") == "adamw"]
if with_adam:
    display(filler_figure(filler(with_adam), smooth=5))
else:
    print("No runs are recorded yet: rlino grid data/runs/clean-room.json")

# %% [markdown]
# The statistic of a run is its *gap*: mean filler after bad less mean filler after good, averaged over the steps. What
# all responses of a run share cancels in it.

# %%
OPTIMIZERS = {"adamw": "Adam", "sgd": "SGD with momentum"}
if plain:
    table = gaps(plain)
    parts = {text: table[table["optimizer"] == name] for name, text in OPTIMIZERS.items()}
    display(gap_figure({text: part for text, part in parts.items() if len(part)}))

# %%
from rlino_lib.claims.verdicts import mean_in_words

if plain:
    for text, part in parts.items():
        said = [
            f"{NORMALISERS[name]} {mean_in_words(of['gap'], 'tokens')}"
            for name, of in part.groupby("normaliser", sort=False)
        ]
        say(f"{text}, bad − good over steps 1 to {STEPS}: {'; '.join(said)}.")
    frame = filler(with_adam)
    frame["drift"] = (frame["bad"] + frame["good"]) / 2
    by_run = frame.pivot_table(index=["normaliser", "seed"], columns="step", values="drift")
    shared_drift = by_run[STEPS - 9 : STEPS].mean(axis=1) - by_run[1:10].mean(axis=1)
    for name, of in shared_drift.groupby("normaliser", sort=False):
        say(
            f"{NORMALISERS[name]}: what good and bad share moves by {of.min():+.0f} to {of.max():+.0f} tokens from the "
            "first ten steps to the last ten, from one seed to another."
        )

# %% [markdown]
# *What was seen.* Under $1/|o|$ the two curves part, as the rates say. Under the token mean and under the constant they
# stay together, while both of them wander. So a run can grow long, or short, under any normaliser, with no help from
# $1/|o|$: a mean length alone says nothing about the mechanism. The difference between responses of negative and of
# positive advantage does.
#
# ## A dial: filler that is worth something
#
# The task has a setting `worth`. After a bad verdict, $n$ tokens of filler earn the reward with chance $1-(1-v)^n$. The
# draw belongs to the row, and the policy does not see it. At $v = 0$ filler is worth nothing. With a larger $v$ it is
# like a search: each token is another attempt. Now there are two causes for long bad responses. First the exact rates:

# %%
WORTHS = (0.0, 0.002, 0.01, 0.05)
rows = {}
for v in WORTHS:
    by = rates(Room(worth=v))["bad − good"]
    scaled = by["constant"] * room.cap / (1 + room.filler()[0][0].item())  # the constant in tokens of a mean response
    rows[v] = [by["1/|o|"], by["token mean"], scaled, scaled / by["1/|o|"]]
heads = ["1/|o|", "token mean", "constant, at the mean length", "share without 1/|o|"]
clean(pd.DataFrame.from_dict(rows, "index", columns=heads).rename_axis("worth"), 3)

# %% [markdown]
# (The constant divides by the cap. In this table it is scaled to divide by the base's mean length, as the token mean
# does.) With growing worth bad responses also grow without $1/|o|$. In the last column stands how much of the gap does
# not come from $1/|o|$. The recorded runs:

# %%
dial = [run for run in every if run.config.get("optimizer", "adamw") == "adamw"]
table = gaps(dial) if dial else pd.DataFrame(columns=["normaliser", "worth", "seed", "gap"])
table = table[table["normaliser"] != "token_mean"]
if table["worth"].nunique() > 1:
    seeds = set(table.loc[table["worth"] > 0, "seed"])
    table = table[table["seed"].isin(seeds)]
    display(dial_figure(table))
    means = table.pivot_table(index="worth", columns="normaliser", values="gap")
    for v, row in means.iterrows():
        say(
            f"Worth {v:g}: bad − good is {row['per_response']:+.1f} tokens with 1/|o|, {row['constant']:+.1f} with a "
            f"constant, over {len(seeds)} seeds."
        )
else:
    print("No runs of the dial are recorded yet: rlino grid data/runs/clean-room-dial.json")

# %% [markdown]
# ## What follows for chapter 08
#
# The mechanism of $1/|o|$ exists, and this book's code shows it where it must be. So where chapter 08 sees little of
# it, the experiment was able to see it. In a search every further attempt is worth something. That is the right end of
# the dial, where bad responses also grow without $1/|o|$.
#
# The ledger's rows on the clean room, as judged from the runs above:

# %%
from rlino_lib.claims.judge import judge
from rlino_lib.claims.ledger import RECORDED, read_ledger

claims = [claim for claim in read_ledger() if claim.evidence.startswith("clean_room.")]
judged = {claim.id: judge(claim, RECORDED) for claim in claims}
rows = [(c.id, c.statement, judged[c.id].verdict, judged[c.id].effect) for c in claims]
pd.DataFrame(rows, columns=["", "claim", "verdict", "what was found"]).set_index("")

# %% [markdown]
# ## Exercises
#
# **1. The rate.** `my_rate(weights, q)`: the mean of the score times its weight, for a response that ends with chance
# $q$ at each token and is cut after as many tokens as there are weights. `weights[n − 1]` is the weight of a response
# of $n$ tokens. A response that is cut has the length of the cap and no end: its score is $-qH$.


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
#   good is free of that.
# - Where filler is worth something, bad responses grow under every normaliser too.
#
# As judged above:

# %%
for c in claims:
    say(f"{c.id}: {judged[c.id].verdict}. {c.statement} Found: {judged[c.id].effect}.")
