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
# # 08 · Length
#
# **Do responses grow because of $1/|o|$, because longer ones are better, or because of how lengths are counted?**
#
# **The answer.** All three move a mean length, and a training log alone does not tell which of them did. In expectation
# $1/|o|$ makes wrong responses longer and right ones shorter, as far as the policy can tell the two apart. But attempts
# that may still hit, and a mean whose members change, move it the same way without it.
#
# The paper's argument is short. A token of response $i$ has the weight $\hat A_i / |o_i|$. A long wrong response is
# therefore punished less per token, and a short right one is rewarded more per token. So wrong responses drift
# longer. This chapter moves the argument to a toy in which every expectation is a finite sum, and asks what exactly
# follows and what else looks the same. At its end it looks at lengths in trained models. Chapter 08b builds a task in
# which only $1/|o|$ can move lengths, and chapter 08c makes the runs that the paper does not show, without $1/|o|$, and
# takes the growth apart.

# %%
import math
from dataclasses import replace

import pandas as pd
from IPython.display import display

from rlino_lib.analysis.tables import clean
from rlino_lib.exact.length_toy import NORMALISERS, LengthToy, drift, expected_update, variant
from rlino_lib.figures import ablation as tables
from rlino_lib.figures.recorded import say
from rlino_lib.figures.style import label, style
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.records.runs import list_runs, metrics_frame

style()
pd.set_option("display.max_colwidth", None)

# %% [markdown]
# ## A verdict, filler, and STOP
#
# This is the smallest language model that has a length. Its first token is the verdict: $+$ with chance $p$, otherwise
# $-$. Filler follows. At each position the policy stops with a chance set by a logit: one for responses that began with
# $+$, and one for those that began with $-$. A response that reaches the horizon is *truncated*. Only the verdict is
# rewarded, so length is worth nothing.

# %% tags=["nbval-check-output"]
small = LengthToy(p=0.3, stop_right=0.25, stop_wrong=0.5, horizon=4)
responses = small.mdp.responses(small.policy)
responses[responses["probability"] > 0].sort_values(["reward", "length"]).set_index("response").round(4)

# %% [markdown]
# ### One line
#
# Let every token of a response with verdict $v$ have the weight $W_v(|o|)$. Then the expected update is
#
# $$ \mathbb E\big[W_v(|o|)\, \nabla \log \pi(o)\big] = \nabla\, \mathbb E\big[W_v(|o|)\big], \qquad W \text{ held
# fixed}, $$
#
# because $\pi \nabla \log \pi = \nabla \pi$. So a method climbs its own weights as if they were a reward. There are
# two cases:
#
# - $W_v(|o|) = \hat A_v / |o|$: right responses are rewarded for being short. Wrong ones, where $\hat A < 0$, pay a
#   penalty that shrinks as they get longer.
# - $W_v$ does not depend on $|o|$: length plays no part. The method climbs $c\, \nabla p$ and nothing else.
#
# (In a group method $\hat A_i$ depends on the other responses. Given the verdict of response $i$ it does not depend
# on its *length*, so $\hat A_v$ here is the mean over the others.)
#
# Below, the left side is a sum over all groups of responses, weighted by `credit` and `token_weights`, the code that
# trains in this book. The right side never sees a group. It makes the formula for $W$ the reward of a token MDP, and
# solves the Bellman equation of chapter 01. Under the constant normaliser there is a third expression, $c\, \nabla p
# / L$, with the constants of chapter 06.

# %%
from rlino_lib.exact.identities import table
from rlino_lib.exact.length_toy import length_identities

toy = LengthToy(p=0.3, horizon=6)
claimed = table(length_identities(toy, group_size=3))
assert claimed["holds"].all()
print(f"{len(claimed)} identities, largest gap {claimed['gap'].max():.0e}")
claimed.assign(gap=claimed["gap"].map("{:.0e}".format)).set_index("identity")[["claim", "gap"]].iloc[:8]

# %% [markdown]
# ### The drift
#
# `drift` follows the expected update of groups of four for an infinitely small step. It returns how fast the mean
# length of right and of wrong responses moves, in tokens per unit of learning rate.


# %%
from rlino_lib.exact.length_toy import METHODS


def drifts(toy: LengthToy, group_size: int = 4) -> pd.DataFrame:
    """The drift of right and of wrong responses under every method and normaliser."""
    rows = {}
    for method in METHODS:
        for normaliser, text in NORMALISERS.items():
            by_side = drift(toy, variant(method, normaliser), group_size).table["drift"]
            rows.setdefault(label(method), {}).update({(side, text): by_side[side] for side in ("right", "wrong")})
    return pd.DataFrame.from_dict(rows, "index").sort_index(axis=1, level=0, sort_remaining=False)


# %% tags=["nbval-check-output"]
plain = LengthToy()
clean(drifts(plain))

# %% [markdown]
# The paper's prediction holds, sign by sign. Under $1/|o|$ wrong responses drift longer and right ones shorter. Under
# the constant normaliser neither moves. Three observations are less expected:
#
# - F-ISFT⁺ never lengthens a wrong response, because wrong responses have no weight. F-ISFT⁻ never shortens a right
#   one. Only methods with both signs do both.
# - The token mean, the default of several frameworks, has the same sign as $1/|o|$. It is weaker, not neutral.
# - In a mean length over *all* responses, the drifts of right and wrong ones may cancel.
#
# A drift is a derivative. Compare it with steps of finite length along the expected update:

# %%
from rlino_lib.exact.length_toy import drift_of

rows = []
for normaliser, text in NORMALISERS.items():
    update = expected_update(plain, variant("grpo_no_kl", normaliser))
    slope = drift_of(plain, update).table["drift"]
    for size in (1e-4, 1.0):
        scale = size / update.norm()
        there = plain.moved(scale * update).means()
        back = plain.moved(-scale * update).means()
        for side in ("right", "wrong"):
            of_steps = ((there[side][1] - back[side][1]) / (2 * scale)).item()
            rows.append((text, size, side, slope[side], of_steps))
clean(pd.DataFrame(rows, columns=["normaliser", "step", "side", "derivative", "of steps"]).set_index("normaliser"), 6)

# %% [markdown]
# Both columns are drifts per expected step. At a step of length $10^{-4}$ in the logits the two agree to all digits. At
# one of length 1 they differ, as a curve differs from its tangent, but the zero of the constant normaliser stays a
# zero.
#
# The controls set the method, the normaliser and $p$ (arrow keys work on all of them). *Change* and *Shared stop
# logit* are explained below.

# %%
from rlino_lib.widgets.length import length_explorer

length_explorer()

# %% [markdown]
# ## What the zero needs
#
# The drift is zero if the weight of a response, given its verdict, does not depend on its length. A baseline may
# violate this condition, and a ratio may restore it. Here are all methods of the library as they are:

# %%
unequal = LengthToy(p=0.3, horizon=5, stop_right=0.4, stop_wrong=0.2)
rows = {}
for name, objective in OBJECTIVES.items():
    if objective.credit != "response" or objective.covariant or objective.preference:  # of chapters 10 and 11
        continue
    by_side = drift(unequal, objective, 2, groups=2).table["drift"]
    rows[name] = [objective.normaliser, objective.ratio, *by_side[["right", "wrong"]]]
family = pd.DataFrame.from_dict(rows, "index", columns=["normaliser", "ratio", "right", "wrong"])
still = family[(family[["right", "wrong"]].abs() < 1e-12).all(axis=1)]
print("no drift:", ", ".join(still.index))
clean(family)

# %% [markdown]
# - **RLOO** prints a mean over tokens and yet does not drift. Its importance ratio is that of the whole response,
#   $\rho_i = \prod_t \rho_{it}$, so every token has the full $\hat A_i$. A $1/|o|$ in the formula is not always a
#   $1/|o|$ in the gradient.
# - **REINFORCE++** standardises over the *tokens* of the batch. A long wrong response contributes many tokens to
#   that mean, so it pulls the baseline towards its own reward. Its own advantage then shrinks. Without $1/|o|$ some
#   drift is therefore left:

# %% tags=["nbval-check-output"]
for name in ("reinforce_pp", "reinforce_pp_baseline", "dr_grpo"):
    by_side = drift(unequal, replace(OBJECTIVES[name], normaliser="constant"), 2, groups=2).table["drift"]
    print(f"{name:22} constant: right {by_side['right']:+z.4f}, wrong {by_side['wrong']:+z.4f}")

# %% [markdown]
# - **DAPO** has lengths in its reward on purpose, and it leaves groups out.
#
# ## One change at a time
#
# Real runs have other mechanisms than the paper's. Each of the following variants changes one property of the toy.
# First `signs` derives the sign of the push on each stop logit: a logit moves towards STOP where stopping leads to more
# $W$ than going on. Then the sign is computed by enumeration.

# %%
from rlino_lib.exact.length_toy import signs

changes = {
    "plain": plain,
    "a truncated response is wrong": replace(plain, truncated_is_wrong=True),
    "going on may hit (0.15)": replace(plain, hit=0.15),
    "few right (p = 0.15)": replace(plain, p=0.15),
    "wrong ones longer": replace(plain, stop_right=0.4, stop_wrong=0.15),
}
words = {1: "shorter", 0: "–", -1: "longer"}
rows = []
agree = True
for name, changed in changes.items():
    for normaliser, text in NORMALISERS.items():
        objective = variant("grpo_no_kl", normaliser)
        result = drift(changed, objective)
        derived = signs(changed, objective)
        push = [0 if abs(u) < 1e-12 else int(math.copysign(1, u)) for u in result.update[1:].tolist()]
        agree &= push == list(derived)
        lengths = result.table["drift"][["right", "wrong", "wrong, not truncated"]]
        rows.append((name, text, *(words[s] for s in derived), *lengths))
print("derived and found agree on every sign:", agree)
heads = ["change", "normaliser", "stop, right", "stop, wrong", "right", "wrong", "wrong, not truncated"]
clean(pd.DataFrame(rows, columns=heads).set_index(["change", "normaliser"]))

# %% [markdown]
# The columns in words are the derived pushes on the two stop logits. The numbers are drifts of mean lengths. The two
# can differ, because a mean length also moves when the *set* of right responses changes.
#
# ### A cap that makes long responses wrong
#
# Suppose that a truncated response counts as wrong. Going on then risks the reward, so right responses are pushed to
# stop under every normaliser. Nothing pushes the wrong ones. Yet under the constant normaliser the mean length of
# wrong responses moves, while that of the wrong responses that were *not* truncated does not. The parts of the drift
# show why:

# %%
capped = changes["a truncated response is wrong"]
parts = drift(capped, variant("dr_grpo", "constant")).table.loc[["right", "wrong", "wrong, not truncated"]]
clean(parts[["share", "length", "drift", "verdict", "stop, right", "stop, wrong"]], 5)

# %% [markdown]
# There are two kinds of wrong responses: those that began with $-$, and those that began with $+$ and ran into the
# cap. The second kind has the largest possible length. As the policy learns to begin with $+$, the first kind
# becomes rarer, so the share of the second among wrong responses grows. That is *selection*. Learning to stop works
# against it. With $s = (1-q)^{H-1}$ the chance of being truncated, the odds of the two kinds are $p s / (1-p)$. The
# sign of their change is that of
#
# $$ (1-p)(1-s) - s\,(H-1)^2 q^2 . $$

# %%
from rlino_lib.exact.length_toy import cap_selection

rows = []
for p in (0.1, 0.3, 0.5, 0.7, 0.9):
    one = replace(capped, p=p)
    lengths = drift(one, variant("dr_grpo", "constant")).table["drift"]
    rows.append((p, cap_selection(one), lengths["wrong"], lengths["wrong, not truncated"]))
selected = pd.DataFrame(rows, columns=["p", "derived", "wrong", "wrong, not truncated"]).set_index("p")
print("same sign at every p:", ((selected["derived"] > 0) == (selected["wrong"] > 0)).all())
clean(selected)

# %% [markdown]
# So up to about half right, wrong responses seem to grow without any $1/|o|$, although none of them has become longer.
# Here this is far less than what $1/|o|$ does, in the first table of this section. A log reveals this if it shows the
# lengths of responses that were not truncated beside the plain mean.
#
# ### Longer is better
#
# Let every further token of a response without a $+$ be another attempt, which hits with chance $h$; $P$ is the chance
# of success, now above $p$. Going on is worth something until there is a hit, and nothing afterwards. Without a
# normaliser $\nabla P$ pushes responses without a hit to go on, and does not move those that have hit. So wrong
# responses get longer with no $1/|o|$ anywhere. Right ones move for two opposing reasons. More of them hit at once, and
# these are short; more of them hit after many attempts, and these are long. In a training log wrong responses then grow
# and right ones hardly move.

# %%
searching = changes["going on may hit (0.15)"]
rows = {}
for method in ("grpo_no_kl", "f_isft_pos", "f_isft_neg"):
    for normaliser in ("per_response", "constant"):
        result = drift(searching, variant(method, normaliser)).table
        rows[label(method), NORMALISERS[normaliser]] = result["per_point"][["right", "wrong"]]
tokens = pd.DataFrame(rows).T
tokens.columns = ["right: tokens per point of success", "wrong"]
tokens.round(4)

# %% [markdown]
# In tokens per point of success gained, so that methods can be compared, all methods now lengthen their wrong
# responses, including F-ISFT⁺. Under the constant normaliser all three are one method, $c\,\nabla P$.
#
# ### Few right responses, and a policy that cannot tell
#
# As long as right and wrong responses have separate stop logits, $p$ never changes the sign of a drift. But how would a
# policy know that it is wrong? Let the two logits share parameters to the degree $\kappa$: a push on one moves the
# other by $\kappa$ times as much. At $\kappa = 1$ the policy cannot tell right from wrong.
#
# - Weights that sum to 0 in every group (GRPO, Dr. GRPO, balanced F-ISFT⁺⁻) push both logits with the same force in
#   opposite directions, and a share $1 - \kappa$ of it remains. So **the normaliser can drive lengths apart only as far
#   as the policy can tell right from wrong.**
# - Unit weights push with $p$ and $1 - p$. Where $p < \kappa / (1 + \kappa)$ the push on wrong responses wins, and the
#   right ones get *longer* too.

# %%
from rlino_lib.exact.length_toy import tipping_share

rows = []
for coupling in (0.0, 0.5, 1.0):
    for method in ("grpo_no_kl", "f_isft_posneg_unit", "f_isft_pos", "f_isft_neg"):
        for p in (0.2, 0.4, 0.8):
            one = replace(plain, p=p, coupling=coupling)
            by_side = drift(one, variant(method, "per_response")).table["drift"]
            rows.append((label(method), coupling, p, by_side["right"], by_side["wrong"]))
shared = pd.DataFrame(rows, columns=["method", "κ", "p", "right", "wrong"])
unit = shared[shared["method"] == label("f_isft_posneg_unit")]
assert ((unit["right"] > 0) == (unit["p"] < unit["κ"].map(tipping_share))).all()
clean(shared.pivot(index=["method", "κ"], columns="p", values=["right", "wrong"]), 3)

# %% [markdown]
# ### The token mean, and groups of mixed length
#
# Now divide by the batch's $\sum|o|$ instead of by $|o_i|$. As a function of its own length a response is still
# weighted by $1/(|o_i| + R)$, where $R$ is the length of all others together. This falls with $|o_i|$, so the signs
# are those of $1/|o|$. But the larger the batch, the less one response changes its own denominator. With one
# response per batch the token mean *is* $1/|o|$. With $N$ responses the push is about $1/N$ of it.

# %% tags=["hide-input"] alt="Line plots on log scales, one for the plain toy and one where wrong responses are longer: the push on STOP under the token mean, as a share of that under 1/|o|, against the responses in the batch, for right and for wrong responses, beside the line 1/N."
from rlino_lib.exact.length_toy import predicted_update
from rlino_lib.figures.curves import line_panels
from rlino_lib.figures.length import SIDE_LOOKS
from rlino_lib.figures.style import Look

batch_sizes = (1, 2, 4, 8, 16, 32, 64)  # in groups of four
lines = {}
for name in ("plain", "wrong ones longer"):
    per_response = predicted_update(changes[name], variant("grpo_no_kl", "per_response"))
    mean = variant("grpo_no_kl", "token_mean")
    shares = [predicted_update(changes[name], mean, 4, groups) / per_response for groups in batch_sizes]
    sizes = [4 * groups for groups in batch_sizes]
    lines[name] = [(s, SIDE_LOOKS[s], sizes, [x[k].item() for x in shares]) for k, s in ((1, "right"), (2, "wrong"))]
    lines[name].append(("1/N", Look("0.5", (3, 2)), [4, 256], [1 / 4, 1 / 256]))
settings = {"xscale": "log", "yscale": "log", "xlabel": "responses in the batch"}
line_panels(lines, size=(4, 2.9), legend="", ylabel="push on STOP, as a share of 1/|o|'s", **settings)

# %% [markdown]
# *What to look at.* Does the push fall as $1/N$, and equally for both logits?
#
# *What was seen.* On the left, both logits lie on one line
# near $1/N$. On the right, where wrong responses are longer, the token mean weakens the push on them less than the push
# on the short ones: $1/(|o| + R)$ has nearly the same slope for both, while $1/|o|$ is flat where responses are long.
# So "token mean" describes a method only together with the size of the batch, or of the micro-batch over which it is
# taken.
#
# ## Many steps
#
# To see where a drift leads, follow the expected update step by step, still without sampling. Advantages shrink as
# groups become all right, so all movement ends. Upper row: the plain toy, whose lengths are worth nothing. Lower row:
# later tokens may hit. The stop logits share half of each push ($\kappa = 1/2$).


# %%
def follow(toy: LengthToy, method: str, normaliser: str, steps: int = 120, lr: float = 1.0) -> pd.DataFrame:
    """Mean lengths and success along expected updates of groups of four."""
    objective = variant(method, normaliser)
    rows = []
    for step in range(steps + 1):
        means = toy.means()
        success = means["right"][0].item()
        rows += [(step, success, side, means[side][1].item()) for side in ("right", "wrong")]
        toy = toy.moved(lr * expected_update(toy, objective))
    return pd.DataFrame(rows, columns=["step", "success", "side", "length"])


start = LengthToy(p=0.2, horizon=10, coupling=0.5)
starts = {"plain": start, "later tokens may hit": replace(start, hit=0.1)}
paths = []
for world, begin in starts.items():
    for method in ("grpo_no_kl", "f_isft_pos"):
        for normaliser in ("per_response", "constant"):
            path = follow(begin, method, normaliser)
            paths.append(path.assign(world=world, run=f"{label(method)}, {NORMALISERS[normaliser]}"))
paths = pd.concat(paths, ignore_index=True)

# %% alt="Grid of line plots: mean length against the share right along many updates, a row for each world of the toy and a column for each run, for right and for wrong responses."
from rlino_lib.figures.length import paths_figure

paths_figure(paths)

# %% [markdown]
# *What to look at.* Which panel of the lower row looks like the paper's figure of GRPO, where both grow, and wrong
# responses much more? And which like its F-ISFT⁺, where wrong responses stay flat? The changes from the first to the
# last step, and the runs in which both kinds grew, the wrong ones more:

# %%
ends = paths.groupby(["world", "run", "side"], sort=False)["length"].agg(["first", "last"])
ends["change"] = ends["last"] - ends["first"]
grown = ends["change"].unstack("side")
both = grown[(grown["right"] > 1e-6) & (grown["wrong"] > grown["right"])]
print("both grew, wrong ones more:", "; ".join(f"{run} ({world})" for world, run in both.index))
clean(grown, 2)

# %% [markdown]
# *What was seen.* In the upper row only $1/|o|$ moves anything: under the constant normaliser success is learnt at
# constant length. In the lower row the shape of the paper's GRPO appears under the *constant* normaliser, where length
# is worth something. No panel of the lower row keeps wrong responses flat.
#
# ## Is a zero a zero?
#
# The zero is a property of the *expected* update, and of steps that are the update times a learning rate. Optimisers
# take other steps. `sampled_updates` lists the update of every possible group with its chance, so the expectation of
# any function of it is again a sum. Below are three such functions under the constant normaliser: the update itself,
# the update clipped to a norm as trainers do it, and its signs, which are Adam's first step.

# %%
import torch

from rlino_lib.exact.length_toy import sampled_updates

rows = []
short = LengthToy(horizon=4, stop_right=0.5, stop_wrong=0.5)
for groups in (1, 2, 3):
    chance, updates = sampled_updates(short, variant("grpo_no_kl", "constant"), 2, groups)
    updates = torch.where(updates.abs() < 1e-12, 0, updates)  # [M, 3]
    norm = updates.norm(dim=1, keepdim=True)  # [M, 1]
    limit = chance @ norm[:, 0]  # the mean norm
    cut = torch.where(norm > limit, updates * limit / norm.clamp_min(1e-300), updates)
    for name, step in {"update": updates, "cut to its mean norm": cut, "signs": updates.sign()}.items():
        mean = chance @ step  # [3]
        rows.append((2 * groups, name, *(mean[1:] / mean[0]).tolist()))
heads = ["responses in the batch", "step", "stop, right", "stop, wrong"]
clean(pd.DataFrame(rows, columns=heads).set_index(["step", "responses in the batch"]).sort_index())

# %% [markdown]
# (Steps of the stop logits relative to that of the verdict; above 0 is towards STOP.) The scores of a stop logit are
# skewed. Most responses are short and push a little; a few are long and push hard the other way; the mean is 0.
# Clipping and signs shrink the rare large pushes more than the common small ones, so the mean is no longer 0. What
# remains has the signs of the paper's argument, with no normaliser at all. The effect fades with the batch, as sums of
# many responses lose their skew. Where most responses reach the cap, the skew has the other sign, and so has the effect
# (set both stop chances to 0.1). Whether it matters in a real run is an empirical question, and one more reason to
# compare runs rather than formulas.
#
# Noise alone also moves a mean length, in second order of the learning rate, because $\mathbb E[|o|]$ is a curved
# function of a logit. The sign is that of the curvature. It is the same for right and wrong, and the cap reverses
# it. In tokens, divided by the mean square of the steps:

# %%
rows = []
for stop in (0.5, 0.25, 0.1):
    one = LengthToy(stop_right=stop, stop_wrong=stop)
    chance, updates = sampled_updates(one, variant("dr_grpo", "constant"), 2)
    scale = 0.01 / (chance @ updates.square().sum(1)).sqrt()  # steps of length 0.01 in the mean square
    moved = [one.moved(scale * u).means() for u in updates]
    for side in ("right", "wrong"):
        before = one.means()[side][1]
        after = chance @ torch.stack([means[side][1] for means in moved])
        rows.append((stop, side, before.item(), (after - before).item() / 0.01**2))
clean(pd.DataFrame(rows, columns=["chance of STOP", "side", "mean length", "by noise"]).set_index("chance of STOP"))

# %% [markdown]
# ## What the toy predicts for a trained model
#
# 1. Replacing $1/|o|$ by a constant removes a drift of wrong responses upwards and of right ones downwards. A token
#    mean over a large batch does nearly the same. If lengths still grow, the cause is another.
# 2. Under F-ISFT⁺ the normaliser does not lengthen wrong responses; with a shared logit it shortens them. If they
#    lengthen, the cause is reward or selection.
# 3. Growth by selection under a cap shows in the mean of all wrong responses, and not in that of the ones that were
#    not truncated.
# 4. Growth that buys success appears under the constant normaliser too, and for every method.
# 5. $1/|o|$ under weights that sum to zero does not lengthen right responses as long as both kinds are equally long.
#    Growth of right responses suggests that length is worth something, or that weights on hard problems are
#    unbalanced.

# %% [markdown]
# ## A short run, live
#
# Twelve steps of GRPO on Countdown, under a minute. Which of the three lengths move?

# %%
import tempfile
from pathlib import Path

from rlino_lib.training.config import TrainConfig
from rlino_lib.training.run import train

settings = dict(steps=12, prompts=16, lr=3e-4, eval_every=0, trace_groups=0, device="cpu", precision="fp32", seed=3)
with tempfile.TemporaryDirectory() as folder:
    live = train(TrainConfig(method="grpo", task="countdown", **settings), Path(folder) / "run").metrics
names = {
    "length/correct": "right", "length/incorrect": "wrong", "length/incorrect_unclipped": "wrong, not truncated",
    "completions/clipped_ratio": "share truncated", "reward": "share right",
}  # fmt: skip
thirds = live[live["step"] > 0].groupby((live["step"] - 1) // 4)[list(names)].mean().rename(columns=names)
thirds.set_axis(["steps 1–4", "5–8", "9–12"]).round(2)

# %%
first, last = thirds.iloc[0], thirds.iloc[-1]
moved = ", ".join(f"{name} {last[name] - first[name]:+.1f}" for name in ("right", "wrong", "wrong, not truncated"))
say(f"From the first four steps to the last four, in tokens: {moved}; truncated {first['share truncated']:.0%}, then "
    f"{last['share truncated']:.0%}; right {first['share right']:.0%}, then {last['share right']:.0%}.")  # fmt: skip

# %% [markdown]
# One seed and twelve steps show that lengths move at once, and not why. Everything that the toy told apart happens
# here together.
#
# ## A cap that hides lengths
#
# A truncated response is wrong and as long as the cap. So a mean over wrong responses contains the cap, and a mean over
# those not truncated leaves out the ones that would have been longest. Neither is the mean length without a cap. Treat
# the cap as censoring instead, as a survival analysis does (Kaplan and Meier): a response that is still going on at the
# cap is longer than the cap, and nobody knows by how much. Below are the recorded runs of GRPO on Countdown; the base
# is that of their own evaluations before training.

# %% alt="Two step plots with intervals: the share of responses longer than a length against that length. Left the base and GRPO under three normalisers with one cap, right runs with other caps."
from rlino_lib.analysis.growth import first_responses
from rlino_lib.figures.length import survival_figure

ablation = tables.recorded_ablation()
with_it = ablation["countdown", "grpo", "per_response"]
caps = list_runs("length-cap")
of_base = pd.concat([first_responses(run) for run in with_it])
survival_figure(tables.censored_lengths(of_base, ablation, caps), 112)

# %% [markdown]
# *What to look at.* Where does each curve stand when it reaches the cap? A high value means that the length is not
# known: any mean below it is a statement about the cap. On the right each line ends at its own cap.

# %%
by_cap = tables.by_cap([*with_it, *ablation["countdown", "grpo", "constant"], *caps])
whole = by_cap.groupby(["normaliser", "cap"])
display(whole.mean().drop(columns="seed").assign(seeds=whole["seed"].count()).round(1))
for n, part in by_cap.groupby("normaliser"):
    of_caps = part.groupby("cap")[["truncated, %", "wrong"]].mean()
    low_cap, high_cap = of_caps.iloc[0], of_caps.iloc[-1]
    say(
        f"{n}: from cap {low_cap.name} to {high_cap.name} the share of truncated responses falls from "
        f"{low_cap['truncated, %']:.0f} % to {high_cap['truncated, %']:.0f} %, and the mean length of wrong responses "
        f"rises from {low_cap['wrong']:.0f} to {high_cap['wrong']:.0f} tokens."
    )

# %% [markdown]
# *What was seen.* At the cap of the main runs, 112 tokens, more than a third of all responses have an unknown length.
# Under a larger cap the same method shows more growth and fewer truncated responses. So growth by truncation is real
# growth of unknown size, and no artefact of counting. What $1/|o|$ does at each cap is a question for chapter 08c.

# %% [markdown]
# ## Figure 4, beside ours
#
# The paper's figure, digitised (`data/paper/figure4.csv`, to about ±5), beside our runs. Model, cap and axes differ, so
# compare the shapes and not the levels. (The lengths of the word problems do not start at 0.)

# %% alt="Columns for the paper and for this book's runs, against optimiser steps. Above: mean lengths of right (solid) and of wrong responses (dashed). Below: the shares of right and of wrong ones."
from rlino_lib.figures.length import figure_four
from rlino_lib.paths import DATA

theirs = pd.read_csv(DATA / "paper" / "figure4.csv")
theirs["share_correct"] = 100 * theirs["n_correct"] / (theirs["n_correct"] + theirs["n_incorrect"])
panels = {"paper: Countdown, 1.5B, GRPO": theirs}
for task_name in tables.TASKS:
    runs = [r for r in list_runs("head-to-head") if r.method == "grpo" and r.config["task"] == task_name]
    ours = metrics_frame(runs).dropna(subset=["eval/accuracy"])
    ours = ours.rename(columns={"eval/length/correct": "length_correct", "eval/length/incorrect": "length_incorrect"})
    ours["share_correct"] = 100 * ours["eval/accuracy"]
    panels[f"ours: {tables.TASKS[task_name]}, GRPO, {len(runs)} seeds"] = ours
figure_four(panels)

# %%
size = runs[0].config["eval_problems"]
say(f"Our curves are measured on the first {size} problems of the test split, and tables on more.")
for name, frame in panels.items():
    by = frame.groupby("step")[["length_correct", "length_incorrect", "share_correct"]].mean()
    first, last = by.iloc[0], by.iloc[-1]
    low = by["length_incorrect"].min()
    dip = "dips first" if low < 0.95 * first["length_incorrect"] else "does not dip first"
    say(
        f"{name}: right, %, from {first['share_correct']:.0f} to {last['share_correct']:.0f}; right responses × "
        f"{last['length_correct'] / first['length_correct']:.1f} in length, wrong ones × "
        f"{last['length_incorrect'] / first['length_incorrect']:.1f}; the length of wrong ones {dip} "
        f"(lowest {low:.0f}, start {first['length_incorrect']:.0f})."
    )

# %% [markdown]
# *What was seen.* In all three, wrong responses grow more than right ones, and most on Countdown. The dip at the start
# of the paper's wrong responses is not in our runs. That wrong ones grow is what $1/|o|$ predicts. That right ones grow
# too is the shape of the toy in which later tokens may hit, under a constant.
#
# ## Exercises
#
# **1. Which way?** `my_drift(weights)`: `weights[n − 1]` takes the place of $1/|o|$ in a response of $n$ tokens. It
# rises, falls or stays constant. Where do *wrong* responses drift: 1 longer, −1 shorter, 0 nowhere?


# %%
from checkers.length import check_drift, check_survival


def my_drift(weights): ...


_ = check_drift(my_drift)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_drift(weights):
#     gap = weights[0] - weights[-1]
#     return (gap > 0) - (gap < 0)
# ```
#
# The reward that a wrong response climbs is $-f(|o|)$. Where $f$ falls, a long response is punished less.
#
# </details>
#
# **2. Kaplan and Meier by hand.** `my_survival(lengths, ended)`: for each distinct length, in rising order, the
# share of responses that would be longer if none were truncated. At each length the share is multiplied by one minus
# the part of those still at risk that end there. A response is at risk at a length if it is at least that long.


# %%
def my_survival(lengths, ended): ...


_ = check_survival(my_survival)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_survival(lengths, ended):
#     shares, left = [], 1.0
#     for at in sorted(set(lengths)):
#         at_risk = sum(n >= at for n in lengths)
#         left *= 1 - sum(n == at and e for n, e in zip(lengths, ended)) / at_risk
#         shares.append(left)
#     return shares
# ```
#
# </details>
#
# ## Summary
#
# - In expectation $1/|o|$ does what the paper says: wrong responses drift longer and right ones shorter, as far as
#   the policy can tell the two apart. A weight that does not depend on the length of its response gives no drift.
# - A mean length of wrong responses moves for at least four reasons, and the normaliser is one of them: other responses
#   are wrong than before, a cap cuts more of them, and going on may pay.
# - A mean over truncated responses has the cap in it, and so has a mean without them.
#
# Answered next:
#
# - Does a trained model follow the drift where nothing else moves lengths? Chapter 08b.
# - What is left of it where length is work, and what is the rest? Chapter 08c.
