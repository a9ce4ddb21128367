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
# **Do responses grow because the reward is split by $1/|o|$, because longer ones are better, or because of how
# lengths are counted?**
#
# The paper's argument is short. A token of response $i$ has the weight $\hat A_i / |o_i|$. A long wrong response is
# therefore punished less per token, and a short right one is rewarded more per token. So wrong responses drift
# longer. The first part of this chapter moves the argument to a toy in which every expectation is a finite sum, and
# asks what exactly follows and what else looks the same. The second part runs the experiment that the paper does not
# show, with and without $1/|o|$, and takes the growth apart.

# %%
import math
import statistics
from dataclasses import replace

import pandas as pd
from IPython.display import display

from rlino_lib.analysis.growth import KINDS, final_responses, growth
from rlino_lib.analysis.tables import clean, common, in_brackets, mean_interval, means_of, pooled
from rlino_lib.exact.length_toy import NORMALISERS, LengthToy, drift, expected_update, variant
from rlino_lib.figures.length import NORMALISER_LOOKS
from rlino_lib.figures.recorded import say
from rlino_lib.figures.style import label, look, style
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.records.runs import list_runs

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
# At a step of length $10^{-4}$ the two agree to all digits. At a step of length 1 they differ, as a curve differs from
# its tangent, but the zero of the constant normaliser stays a zero.
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
# So on hard problems wrong responses seem to grow without any $1/|o|$, although none of them has become longer. A log
# reveals this if it shows the lengths of responses that were not truncated beside the plain mean.
#
# ### Longer is better
#
# Let every further token of a response without a $+$ be another attempt, which hits with chance $h$. Going on is worth
# something until there is a hit, and nothing afterwards. Without a normaliser $\nabla P$ pushes responses without a hit
# to go on, and does not move those that have hit. So wrong responses get longer with no $1/|o|$ anywhere. Right ones
# move for two opposing reasons. More of them hit at once, and these are short; more of them hit after many attempts,
# and these are long. In a training log wrong responses then grow and right ones hardly move, as in the paper's figure.

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

# %%
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
# *What to look at.* Does the push fall as $1/N$, and equally for both logits? On the left, both logits lie on one line
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

# %%
from rlino_lib.figures.length import paths_figure

paths_figure(paths)

# %% [markdown]
# *What to look at.* Which panel of the lower row looks like the paper's figure of GRPO, where wrong responses grow
# much and right ones a little? And which like its F-ISFT⁺, where wrong responses stay flat? The changes from the
# first to the last step, and the runs in which both kinds grew, the wrong ones more:

# %%
ends = paths.groupby(["world", "run", "side"], sort=False)["length"].agg(["first", "last"])
ends["change"] = ends["last"] - ends["first"]
grown = ends["change"].unstack("side")
both = grown[(grown["right"] > 1e-6) & (grown["wrong"] > grown["right"])]
print("both grew, wrong ones more:", "; ".join(f"{run} ({world})" for world, run in both.index))
clean(grown, 2)

# %% [markdown]
# In the upper row only $1/|o|$ moves anything: under the constant normaliser success is learnt at constant length.
# In the lower row the shape of the paper's GRPO appears under the *constant* normaliser, where length is worth
# something. No panel of the lower row keeps wrong responses flat.
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
# remains has the signs of the paper's argument, with no normaliser at all. The effect fades with the batch, as sums
# of many responses lose their skew, and it needs policies that mostly stop well before the cap, since a cap removes
# the long tail. Whether it matters in a real run is an empirical question, and one more reason to compare runs
# rather than formulas.
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
# ## The run that was missing
#
# Now the trained model. The paper shows lengths under $1/|o|$ alone, so it cannot say what $1/|o|$ does. Here is the
# ablation: three normalisers under four methods, everything else the same, on the same problems in the same order. One
# caveat: the learning rates are those that suit the methods under $1/|o|$ (chapter 07). They were not chosen anew for
# each normaliser, and a sweep further down asks whether that matters. The ledger said what would count as evidence for
# which cause before these runs were made.
#
# One more thing differs. GRPO's KL term, k3 of every token, stands inside the bracket that the normaliser divides:

# %% tags=["nbval-check-output"]
for normaliser in ("per_response", "constant"):
    print(replace(OBJECTIVES["grpo"], normaliser=normaliser))

# %% [markdown]
# So under GRPO the ablation changes *two* normalisers at once, that of the gain and that of the KL. With $1/|o|$ a
# token of a long response is held to the base less than one of a short response; with a constant it is not. The
# difference between two such runs belongs to both. The F-ISFT rows have no KL term. GRPO without KL under all three
# normalisers separates the two: the grid `giving-up`, which judges two claims of the ledger.
#
# **Some conclusions of this part are superseded or under revision.** The runs and the numbers stand.
#
# - *The statistic that decides `caused`.* The mean length of wrong responses that were not truncated depends on the
#   cap, and over seeds it has two modes. An interval that includes 0 can hide an effect there. The share of failed
#   attempts after which a response gives up does not depend on the cap, and takes its place. At least half of
#   the growth is left without $1/|o|$: this still stands. That $1/|o|$ has no effect does not follow.
# - *The cause of the growth on the word problems.* Selection happens between problems and also *within* a problem: see
#   "Cause two". Counted together they are most of the growth, and the normaliser has next to nothing left to do there.
# - *The meaning of "truncation"* is under revision. Truncation hides growth. It is not an artefact of counting: see
#   "Cause three".

# %%
from rlino_lib.claims.judge import judge
from rlino_lib.claims.ledger import read_ledger
from rlino_lib.claims.length import length_runs, normaliser_of
from rlino_lib.paths import RUNS

ROWS = ("grpo", "f_isft_posneg", "f_isft_pos", "f_isft_neg")
TASKS = {"countdown": "Countdown", "word_problems": "word problems"}
ledger = [c for c in read_ledger() if c.evidence.startswith("length.")]
ablation = {
    (task, method, normaliser): length_runs(task, method, normaliser)
    for task in TASKS for method in ROWS for normaliser in NORMALISERS
}  # fmt: skip
for group in ("length", "length-more", "length-cap", "giving-up", "length-rates", "length-remedies"):
    if (RUNS / f"{group}.json").exists():
        print(f"rlino grid data/runs/{group}.json{' --out data/runs/length' if group == 'length-more' else ''}")
print("(The rows of 1/|o| are those runs of the head-to-head grid that kept a row of every held-out response.)")
counts = pd.Series({key: len(runs) for key, runs in ablation.items()}).unstack()
counts.index = pd.MultiIndex.from_tuples([(TASKS[t], label(m)) for t, m in counts.index], names=["task", "method"])
counts[list(NORMALISERS)].rename(columns=NORMALISERS).rename_axis(columns="seeds")

# %%
plan = pd.DataFrame(
    {"claim": c.statement, "share": c.threshold["share"], "planned seeds": f"{c.threshold['seeds']:.0f}"}
    for c in ledger
)
plan.index = [c.id for c in ledger]
plan

# %%
from rlino_lib.figures.curves import length_curves
from rlino_lib.records.runs import metrics_frame

present = [task for task in TASKS if all(ablation[task, "grpo", n] for n in NORMALISERS)]
for task in TASKS:
    if task not in present:
        print(f"The ablation of GRPO on {TASKS[task]} is not complete: the cells below go without it.")

for task in present:
    frames = {NORMALISERS[n]: metrics_frame([run for m in ROWS for run in ablation[task, m, n]]) for n in NORMALISERS}
    for name, frame in frames.items():
        figure = length_curves(frame, source="eval", columns=4)
        figure.suptitle(f"{TASKS[task]}, {name}", fontsize=11)
        display(figure)

# %% [markdown]
# *What to look at.* One figure per task and normaliser. Compare the same panel from figure to figure, and the red line,
# which includes truncated responses, with the orange one, which does not.

# %%
for task_name in present:
    for n in NORMALISERS:
        grew = {kind: statistics.mean(growth(run, kind) for run in ablation[task_name, "grpo", n]) for kind in KINDS}
        listed = ", ".join(f"{kind} {tokens:+.1f}" for kind, tokens in grew.items())
        say(f"GRPO on {TASKS[task_name]}, {NORMALISERS[n]}, growth in tokens: {listed}.")

# %% [markdown]
# Wrong responses grow under every normaliser. On Countdown most of that growth disappears once truncated responses
# are left out. On the word problems, where the cap is out of reach, the red and the orange line are one.
#
# ### The difference that the normaliser makes

# %%
from rlino_lib.figures.length import growth_plot

grown = pd.DataFrame(
    (task, kind, method, normaliser, *mean_interval(values), len(values))
    for (task, method, normaliser), runs in ablation.items() if runs
    for kind in KINDS
    if (values := [g for run in runs if not math.isnan(g := growth(run, kind))])
)  # fmt: skip
if len(grown):
    grown.columns = ["task", "panel", "method", "normaliser", "mean", "low", "high", "seeds"]
    for task in present:
        figure = growth_plot(grown[grown["task"] == task], KINDS)
        figure.suptitle(TASKS[task], fontsize=11)
        display(figure)

# %% [markdown]
# *What to look at.* Within a row, the distance between the marks is the effect of the normaliser. The distance of
# all three from 0 is the effect of something else. The paper's claim is about the first. Seed by seed:

# %%
rows = []
for task in present:
    for method in ROWS:
        for kind in KINDS:
            by = {n: pd.Series({r.seed: growth(r, kind) for r in ablation[task, method, n]}) for n in NORMALISERS}
            for n in ("token_mean", "constant"):
                one, other = common(by["per_response"], by[n])
                if len(one) > 1:
                    rows.append((task, method, kind, n, one - other))
gaps = pd.DataFrame(rows, columns=["task", "method", "responses", "1/|o| less", "gaps"])
if len(gaps):
    named = gaps.assign(
        tokens=gaps["gaps"].map(in_brackets), task=gaps["task"].map(TASKS), method=gaps["method"].map(label)
    )
    named["1/|o| less"] = named["1/|o| less"].map(NORMALISERS)
    display(named.pivot(index=["task", "method"], columns=["responses", "1/|o| less"], values="tokens"))

# %%
ends_of_gaps = gaps["gaps"].map(mean_interval)
clear = gaps[ends_of_gaps.map(lambda interval_of: interval_of[1] * interval_of[2] > 0)]
top = gaps.loc[ends_of_gaps.map(lambda interval_of: abs(interval_of[0])).idxmax()]
say(
    f"{len(clear)} of {len(gaps)} differences have an interval that excludes 0. The largest is "
    f"{in_brackets(top['gaps'])} tokens ({label(top['method'])} on {TASKS[top['task']]}, {top['responses']}, "
    f"1/|o| less {NORMALISERS[top['1/|o| less']]})."
)

# %% [markdown]
# The effect of the normaliser is clearest under F-ISFT⁻, the method that only punishes. Under GRPO it is small, in
# these means, beside the growth that all normalisers share.
#
# The toy predicts the sign of some of these differences: of right responses where these are trained on, and of wrong
# ones where they are. Below, its plain form, in which length is worth nothing, is compared with the trained model,
# leaving truncated responses out. (The toy has no KL term. The runs of GRPO have one, whose normaliser changed too.)

# %%
rows = []
for row in gaps[(gaps["1/|o| less"] == "constant") & (gaps["responses"] != "wrong")].itertuples():
    side = row.responses.split(",")[0]
    method = "grpo_no_kl" if row.method == "grpo" else row.method  # the toy has no base to be held to
    push = drift(plain, variant(method, "per_response")).table["drift"][side]
    if abs(push) < 1e-12:
        continue
    _, low, high = mean_interval(row.gaps)
    outcome = "open" if low <= 0 <= high else "as predicted" if low * push > 0 else "opposite"
    word = "longer" if push > 0 else "shorter"
    rows.append((TASKS[row.task], label(row.method), row.responses, word, in_brackets(row.gaps), outcome))
heads = ["task", "method", "responses", "1/|o| should make them", "found, tokens", "so"]
toy_signs = pd.DataFrame(rows, columns=heads)
display(toy_signs.set_index(["task", "method"]))
counts = ", ".join(f"{word}: {n}" for word, n in toy_signs["so"].value_counts().items())
say(f"Signs predicted: {len(toy_signs)}; {counts}.")

# %% [markdown]
# ## What the length is made of
#
# A Countdown trace is a list of attempts, so its length can be counted as work. Here is one response of a trained model
# as a search. A node holds the numbers that are left, an edge is an operation, and a path from the left is an attempt.
# Step through it by attempt or by token, or see the whole group on one tree.

# %%
from rlino_lib.widgets import search_view

late = [run for run in ablation["countdown", "grpo", "per_response"] if len(run.rollouts)]
example = late[0] if late else list_runs("countdown")[0]
steps = sorted(set(example.rollouts["step"]))
search_view(example, step=steps[-1])

# %% [markdown]
# *What to look at.* Are late attempts new ones, or repetitions? Does the response stop at its first hit? Here are
# the same questions as numbers for all held-out responses: the base, sampled here, against the ends of the recorded
# runs.

# %%
from rlino_lib.analysis.growth import attempt_counts
from rlino_lib.evaluation.evaluate import evaluate
from rlino_lib.policy.models import load_policy
from rlino_lib.tasks import get_task
from rlino_lib.training.traces import response_rows

task = get_task("countdown")
policy = load_policy()
problems = task.problems("test", 512)
sampled = []
evaluate(policy, task, problems, samples=4, max_new_tokens=112,
         on_rollouts=lambda r: sampled.extend(response_rows(r, task, 0, final=True)))  # fmt: skip
of_base = pd.DataFrame(sampled).astype({"correct": bool, "clipped": bool, "first_hit": float})
ends = {"base": [of_base]}
for method in ROWS:
    for n in NORMALISERS:
        if runs := ablation["countdown", method, n]:
            ends[f"{label(method)}, {NORMALISERS[n]}"] = [final_responses(run) for run in runs]
means = pd.DataFrame({name: pd.DataFrame(map(attempt_counts, frames)).mean() for name, frames in ends.items()}).T
heads = {
    "attempts": "attempts", "tokens_per_attempt": "tokens per attempt", "repeats_order": "repeated attempts",
    "attempts_after_hit": "attempts after the first hit", "tokens_after_hit": "tokens after it",
    "overlooked": "hits called no", "false_yes": "misses called yes", "filler": "tokens that are no attempt",
}  # fmt: skip
means[list(heads)].rename(columns=heads).round(2)

# %%
if late:
    by_step = []
    for run in late:
        rows = run.responses[~run.responses["final"]]
        for step, part in rows.groupby("step"):
            by_step.append((step, run.seed, len(part), part["attempts"].mean(), part["repeats_order"].mean(),
                            (part["repeats_order"].sum() / part["attempts"].sum())))  # fmt: skip
    trail = pd.DataFrame(by_step, columns=["step", "seed", "n", "attempts", "repeated", "share repeated"])
    first, last = (trail[trail["step"] == end].mean() for end in (trail["step"].min(), trail["step"].max()))
    print(
        f"GRPO, 1/|o|, means over {len(late)} seeds: from {first['attempts']:.1f} to {last['attempts']:.1f} attempts "
        f"per response, of which repeated {first['share repeated']:.0%} and {last['share repeated']:.0%}."
    )

# %%
of_grpo = means.loc[f"{label('grpo')}, {NORMALISERS['per_response']}"]
say(
    f"After GRPO with 1/|o| a response makes {of_grpo['attempts']:.1f} attempts instead of "
    f"{means.loc['base', 'attempts']:.1f}. {of_grpo['repeats_order'] / of_grpo['attempts']:.0%} of them repeat an "
    f"earlier one, and {of_grpo['attempts_after_hit']:.2f} of them come after the first hit."
)

# %% [markdown]
# So most attempts are new, and a response stops at its first hit. It is longer because it tries more often: an attempt
# takes as many tokens as before.
#
# ## Cause one: length that is worth something
#
# How much of the success needs the length? Count a response as right if there is a hit among its first k attempts. That
# is the success of a solver that checks its own attempts and is stopped after k (thick lines). The thin lines estimate
# the success if no response gave up before k, with giving up and the cap as censoring, in the way of Kaplan and Meier.

# %%
from rlino_lib.analysis.growth import success_within
from rlino_lib.figures.length import budget_figure

BUDGET = 10
curves = {"base": (success_within(of_base, BUDGET), look("base"))}
for n in NORMALISERS:
    if runs := ablation["countdown", "grpo", n]:
        curves[f"GRPO, {NORMALISERS[n]}"] = (success_within(pooled(runs), BUDGET), NORMALISER_LOOKS[n])
budget_figure(curves)

# %%
from rlino_lib.tasks.countdown.trace import success_by_attempt

table = pd.DataFrame({name: 100 * curve["within"] for name, (curve, _) in curves.items()})
rates = {}
for name, frames in {"base": [of_base], **{k: v for k, v in ends.items() if k.startswith("GRPO")}}.items():
    frame = success_by_attempt(pd.concat(frames), BUDGET)
    rates[name] = (100 * frame["rate"]).round(1)
display(table.round(1).rename_axis("hit within so many attempts, %"))
pd.DataFrame(rates).rename_axis("of those that make this attempt without a hit before, % that hit")

# %% [markdown]
# *What to look at.* Success can rise for two reasons: better attempts (the line is steeper from the first attempt
# on) or more attempts (the line is the same, and one follows it further). The lower table separates them: better
# attempts raise the hit rate of each attempt.

# %%
names_of = list(rates)[:2]
listed = " and ".join(f"{name} {rates[name].loc[1]:.1f} % ({table[name].iloc[-1]:.1f} %)" for name in names_of)
say(f"Hit rate of the first attempt, and in brackets of the response within {BUDGET} attempts: {listed}.")

# %% [markdown]
# Both happen. The first attempt becomes better, but most of the gain appears only when several attempts are allowed.
#
# The thin line assumes that responses which give up would have hit as often as those that go on. With a model at
# hand we can test this. Below, the base may not stop: where it would close its thought without a hit, the last
# attempt is followed by a new line in place of the end, up to k attempts.


# %%
from rlino_lib.policy.sampling import sample
from rlino_lib.tasks.countdown.trace import read_search


def forced(policy, problems, attempts: int) -> pd.Series:
    """The attempt that hits first when none may give up before `attempts`; infinite where none of them does."""
    texts = [""] * len(problems)
    hits = [math.inf] * len(problems)
    open_rows = list(range(len(problems)))
    for _ in range(attempts):
        prompts = [task.prompt(problems[i]) + texts[i] for i in open_rows]
        rollouts = sample(policy, prompts, 1, max_new_tokens=64, seed=sum(map(len, texts)))
        left = []
        for i, text in zip(open_rows, rollouts.texts, strict=True):
            whole = read_search(problems[i], texts[i] + text)
            made = [a for a in whole.attempts if a.verdict][:attempts]
            hits[i] = next((k for k, a in enumerate(made, 1) if a.hit is not None), math.inf)
            texts[i] = whole.response[: made[-1].end].rstrip("\n") + "\n" if made else texts[i]
            if hits[i] == math.inf and 0 < len(made) < attempts:
                left.append(i)
        open_rows = left
        if not open_rows:
            break
    return pd.Series(hits)


few = 6
kept = [run for run in late if (run.path / "model").exists()]
searchers = {"base": (policy, of_base)}
searchers |= {f"{label('grpo')}, seed {r.seed}": (load_policy(r.path / "model"), final_responses(r)) for r in kept[:1]}
estimates, hits = {}, {}
for name, (searcher, stopped) in searchers.items():
    hits[name] = forced(searcher, problems * 2, few)
    guess = success_within(stopped, few)
    estimates[name, "within, as it stops"] = guess["within"][1:]
    estimates[name, "forced, by Kaplan and Meier"] = guess["forced"][1:]
    estimates[name, "forced, in fact"] = pd.Series({k: (hits[name] <= k).mean() for k in range(1, few + 1)})
(100 * pd.DataFrame(estimates)).round(1)

# %%
for k in (1, few):
    shares = {name: 100 * (first <= k) for name, first in hits.items()}
    text = ", ".join(f"{name} {share.mean():.1f} %" for name, share in shares.items())
    if len(shares) > 1:
        before, after = (share.groupby(share.index % len(problems)).mean() for share in shares.values())
        mean, low, high = mean_interval((after - before).tolist())
        text += f"; after less before {mean:+.1f} points [{low:+.1f}, {high:+.1f}], over {len(problems)} problems"
    say(f"{k} {'attempt' if k == 1 else 'attempts'}, forced: {text}.")

# %% [markdown]
# *What to look at.* Both models make the same number of attempts here. The difference between them is the quality of
# the attempts, and the trained model is clearly ahead. The rest of what it gains when it stops by itself comes from
# going on for longer.

# %% [markdown]
# ## Cause two: who is still wrong
#
# Late in training the easy problems are solved, so the wrong responses belong to other problems than at first. If the
# base wrote longer responses to hard problems, wrong responses would seem to grow although none did. So look at fixed
# problems, sorted by how often the base solves them.

# %%
from rlino_lib.analysis.growth import base_problems, by_rate, paired_lengths

for task_name in present:
    runs = ablation[task_name, "grpo", "per_response"]
    now = pooled(runs)
    print(f"{TASKS[task_name]}: wrong responses under GRPO with 1/|o|, {len(runs)} seeds")
    display(by_rate(now, base_problems(runs[0])).round(2))
    for name, frame in {"base": of_base if task_name == "countdown" else None, "GRPO": now}.items():
        if frame is not None:
            pairs = paired_lengths(frame)
            mean, low, high = mean_interval(pairs.tolist())
            print(
                f"{name}: on {len(pairs)} problems with right and wrong responses, wrong ones are longer by "
                f"{mean:+.1f} tokens [{low:+.1f}, {high:+.1f}]."
            )

# %% [markdown]
# *What to look at.* The columns `base` and `now` compare lengths on the same problems, and `share` says where the
# wrong responses come from. If the column `base` hardly differs from row to row, selection *of problems* cannot
# explain much.

# %%
for task_name in present:
    runs = ablation[task_name, "grpo", "per_response"]
    rows = by_rate(pooled(runs), base_problems(runs[0]))
    grew = rows["now"] - rows["base"]
    say(
        f"{TASKS[task_name]}: between rows the base's wrong responses differ by at most "
        f"{rows['base'].max() - rows['base'].min():.1f} tokens; within rows they grow by {grew.min():.1f} to "
        f"{grew.max():.1f} tokens."
    )

# %% [markdown]
# So on fixed problems the mean length of wrong responses grew too, at every difficulty.
#
# There is another selection, within a problem. The teacher of the word problems sometimes leaves out a step, and so
# does the base. Such a response is short and wrong. Training removes these first, so the wrong responses that remain
# are the long ones, and their mean rises although none has become longer. The table cannot show it. But a step is a
# line, so the length of a recorded response says whether one is missing:

# %%
from rlino_lib.analysis.growth import left_out, of_kind

for n in NORMALISERS:
    runs = ablation["word_problems", "grpo", n]
    of_problems = base_problems(runs[0])
    wrong = of_kind(pooled(runs), "wrong")
    short = left_out(wrong, of_problems)
    say(
        f"Word problems, {NORMALISERS[n]}: a step is left out in "
        f"{100 * of_problems['short'].sum() / of_problems['wrong'].sum():.0f} % of the base's wrong responses "
        f"({of_problems['tokens_short'].sum() / of_problems['short'].sum():.1f} tokens each) and in "
        f"{100 * short.mean():.0f} % of those after GRPO ({wrong.loc[short, 'length'].mean():.1f} tokens; the others "
        f"{wrong.loc[~short, 'length'].mean():.1f})."
    )

# %% [markdown]
# ## Cause three: the cap
#
# A truncated response is wrong and as long as the cap. So a mean over wrong responses contains the cap, and a mean over
# those not truncated leaves out the ones that would have been longest. Neither is the mean length without a cap. Treat
# the cap as censoring instead. A truncated response has grown by more than one can see: under a larger cap the same
# method shows more growth and fewer truncated responses (see the table below the figure). So the part of the growth
# that the ledger calls truncation is real growth of unknown size.

# %%
from rlino_lib.analysis.growth import survival
from rlino_lib.figures.length import survival_figure

caps = list_runs("length-cap")
if late:
    lines = {"base": (survival(of_base["length"], ~of_base["clipped"]), look("base"))}
    for n in NORMALISERS:
        if runs := ablation["countdown", "grpo", n]:
            now = pooled(runs)
            lines[f"GRPO, {NORMALISERS[n]}"] = (survival(now["length"], ~now["clipped"]), NORMALISER_LOOKS[n])
    other_caps = {}
    sizes = sorted({run.config["max_new_tokens"] for run in caps})
    for n in ("per_response", "constant"):
        for cap in sizes:
            if runs := [r for r in caps if r.config["max_new_tokens"] == cap and normaliser_of(r) == n]:
                now = pooled(runs)
                name = f"GRPO, {NORMALISERS[n]}" if cap == sizes[0] else f"_{n} {cap}"  # _: not in the legend again
                other_caps[name] = (survival(now["length"], ~now["clipped"]), NORMALISER_LOOKS[n])
    title = f"caps {', '.join(map(str, sizes))}" if other_caps else "no runs with other caps yet"
    display(survival_figure({"cap 112, three normalisers": lines, title: other_caps}, 112))

# %% [markdown]
# *What to look at.* Where does each curve stand when it reaches the cap? A high value means that the length is not
# known: any mean below it is a statement about the cap. On the right each line ends at its own cap.

# %%
rows = []
for run in [*ablation["countdown", "grpo", "per_response"], *ablation["countdown", "grpo", "constant"], *caps]:
    start = run.metrics.dropna(subset="eval/accuracy").iloc[0]["eval/length/incorrect"]
    key = {"cap": run.config["max_new_tokens"], "normaliser": NORMALISERS[normaliser_of(run)], "seed": run.seed}
    rows.append({**key, **means_of(run), "wrong at the start": start})
by_cap = pd.DataFrame(rows)
if len(by_cap):
    whole = by_cap.groupby(["normaliser", "cap"])
    display(whole.mean().drop(columns="seed").assign(seeds=whole["seed"].count()).round(1))

# %%
for n in ("per_response", "constant"):
    of_caps = by_cap[by_cap["normaliser"] == NORMALISERS[n]].groupby("cap")[["truncated, %", "wrong"]].mean()
    low_cap, high_cap = of_caps.iloc[0], of_caps.iloc[-1]
    say(
        f"{NORMALISERS[n]}: from cap {low_cap.name} to {high_cap.name} the share of truncated responses falls from "
        f"{low_cap['truncated, %']:.0f} % to {high_cap['truncated, %']:.0f} %, and the mean length of wrong responses "
        f"rises from {low_cap['wrong']:.0f} to {high_cap['wrong']:.0f} tokens."
    )

# %% [markdown]
# So with a small cap more than a third of all responses have an unknown length.
#
# Next, the effect of $1/|o|$ at each cap, seed by seed, with growth measured from each run's own evaluation of the
# base. No claim about this was registered beforehand, and at the caps other than 112 the last two seeds were added
# after the first three had been read. Read the intervals as a description, not as a test.

# %%
rows = {}
left = []
for cap, part in by_cap.groupby("cap") if len(by_cap) else ():
    sides = (part[part["normaliser"] == NORMALISERS[n]].set_index("seed") for n in ("per_response", "constant"))
    one, other = common(*sides)
    if len(one):
        gains = [side["wrong"] - side["wrong at the start"] for side in (one, other)]
        left.append(f"{100 * gains[1].mean() / gains[0].mean():.0f} % at cap {cap}")
        less = [in_brackets(one[c] - other[c]) for c in ("wrong", "wrong, not truncated", "right, %")]
        rows[cap] = [len(one), *map(in_brackets, gains), *less]
heads = ["seeds", "growth with 1/|o|", "with a constant",
         "1/|o| less constant: wrong", "wrong, not truncated", "right, points"]  # fmt: skip
display(pd.DataFrame.from_dict(rows, "index", columns=heads).rename_axis("cap"))
say(f"Of the growth with 1/|o|, left with a constant: {', '.join(left)}.")

# %% [markdown]
# *What to look at.* At any cap, is most of the growth gone with a constant? No: at every cap most of it is left. Does
# the difference grow with the room that the cap leaves? From cap 112 on its mean does, but only at cap 152 does its
# interval exclude 0. A small cap can hide an effect of the normaliser, because both runs hit it.
#
# ## A decomposition that adds up
#
# How much of the growth is which? Put something in between: what the *base* would have written on the problems that
# are wrong *now*, each counted as often as it is wrong now. Let $M$ be the mean length of these responses. A share $S$
# of them is truncated at the cap $C$, a share $U$ leaves a step out and has mean length $V$, and the rest has mean
# length $W$. Let $s$, $u$, $v$ and $w$ be the same for what is written now. Then
#
# $$
# \underbrace{\vphantom{(}M - M_0}_{\text{selection of problems}} \;+\;
# \underbrace{(u - U)(V - W)}_{\text{fewer leave a step out}} \;+\;
# \underbrace{(s - S)(C - W)}_{\text{more are truncated}} \;+\;
# \underbrace{(1 - s - u)(w - W) + u(v - V)}_{\text{longer, of the same kind}} \;=\; \text{growth},
# $$
#
# since $M = SC + UV + (1-S-U)W$, and the same holds now. On Countdown no step can be left out, and the second part is
# 0. The normaliser is not a fifth part. Its share is the difference between the bars of two runs that differ in
# nothing else.

# %%
from rlino_lib.analysis.growth import Parts, parts_of
from rlino_lib.figures.length import parts_bars

parts = {}  # of each row of the ablation: the parts of its runs
for task_name in present:
    bars = {}
    worst = 0.0
    for method in ("grpo", "f_isft_posneg", "f_isft_pos"):
        for n in NORMALISERS:
            if runs := ablation[task_name, method, n]:
                own = parts[task_name, method, n] = [parts_of(run) for run in runs]
                worst = max(worst, *(abs(p.total - growth(r, "wrong")) for p, r in zip(own, runs, strict=True)))
                bars[f"{label(method)}, {NORMALISERS[n]}"] = Parts(*map(statistics.mean, zip(*own, strict=True)))
    display(parts_bars(bars, f"wrong responses, {TASKS[task_name]}"))
    print(f"largest gap between a sum of parts and the growth it should be, tokens: {worst:.0e}")

# %% [markdown]
# *What to look at.* In each group of three bars, the first is what the paper's figure shows. Whatever the third bar
# still has is there without $1/|o|$. "Longer, of the same kind" is what no other part explains. The same for GRPO in
# numbers, seed by seed:

# %%
from rlino_lib.analysis.statistics import final_accuracy

sums = {}
for task_name in present:
    sides = []
    for n in ("per_response", "constant"):
        ends_of = {}
        for run, own in zip(ablation[task_name, "grpo", n], parts[task_name, "grpo", n], strict=True):
            ends_of[run.seed] = {
                "wrong ones: selection of problems": own.selection,
                "wrong ones: fewer leave a step out": own.within,
                "wrong ones: more are truncated": own.truncated,
                "wrong ones: longer, of the same kind": own.longer,
                "wrong ones: growth": own.total,
                "right ones: growth": growth(run, "right"),
                "right, %": final_accuracy(run),
            }
        sides.append(pd.DataFrame.from_dict(ends_of, "index"))
    one, other = sums[task_name] = common(*sides)
    print(f"{TASKS[task_name]}, GRPO, {len(one)} seeds of each; tokens, or points in the last row")
    rows = {}
    for name in one:
        sign = "" if "%" in name else "+"
        cells = (one[name], sign), (other[name], sign), (one[name] - other[name], "+")
        rows[name] = [in_brackets(*cell) for cell in cells]
    display(pd.DataFrame.from_dict(rows, "index", columns=["with 1/|o|", "with a constant", "what 1/|o| does"]))

# %% [markdown]
# *What to look at.* The last column, and first its last row. Where $1/|o|$ changes how much is learnt, the other
# rows compare models that are not equally good.

# %%
for task_name, (one, _) in sums.items():
    listed = ", ".join(
        f"{name.partition(': ')[2]} {100 * one[name].mean() / one['wrong ones: growth'].mean():.0f} %"
        for name in one if name.startswith("wrong") and "growth" not in name
    )  # fmt: skip
    say(f"{TASKS[task_name]}, shares of the growth of wrong responses with 1/|o|: {listed}.")

# %% [markdown]
# On the word problems most growth is selection, of problems and within them, and nearly the same with a constant: on
# this task the normaliser has next to nothing left to do. On Countdown nearly all growth of wrong responses is that
# more of them are truncated, and a constant leaves most of it. But with a constant the model is also worse. On
# Countdown more success comes with more attempts. So part of this difference may be there only because the model with
# $1/|o|$ is the better one.
#
# ### Is it the learning rate?
#
# A constant may look worse only because its rate was chosen under $1/|o|$. So GRPO with a constant gets the sweep of
# chapter 07 too, on Countdown, with two seeds. The rule was fixed before the runs: the best rate is the one with the
# highest mean on the validation problems after 100 steps. If it differs from the rate used above, the ablation is
# run again at it.

# %%
from rlino_lib.analysis.statistics import curve

swept = list_runs("length-rates")
with_it = [r for r in list_runs("head-to-head-lr") if (r.method, r.config["task"]) == ("grpo", "countdown")]
rows = [
    (NORMALISERS[normaliser_of(r)], r.config["lr"], r.seed, curve(r)["accuracy"].iloc[-1]) for r in [*with_it, *swept]
]
rates = pd.DataFrame(rows, columns=["normaliser", "rate", "seed", "right, %"])
if swept:
    table = rates.pivot(index=["normaliser", "seed"], columns="rate", values="right, %")
    display(table.rename(columns="{:g}".format).round(1))
    own = rates[rates["normaliser"] == NORMALISERS["constant"]].groupby("rate")["right, %"].mean()
    used = {run.config["lr"] for run in ablation["countdown", "grpo", "constant"]}
    say(
        f"With a constant the best rate is {own.idxmax():g} ({own.max():.1f} % right, the next best "
        f"{own.nlargest(2).min():.1f} %), and the runs above used {', '.join(f'{rate:g}' for rate in used)}: "
        + ("the same. The gap in accuracy is not one of the learning rate, as far as factors of two tell."
           if used == {own.idxmax()} else "another, so that the comparison above is not at its best.")
    )  # fmt: skip
else:
    print("No runs of this sweep are recorded yet.")

# %% [markdown]
# ## Remedies
#
# Five remedies, all on GRPO without KL: Dr. GRPO (no $1/|o|$, no standard deviation, at half the learning rate,
# which suits it: chapter 07); DAPO's soft penalty over the last fifth below the cap; a cost of a quarter of a reward
# at the cap's length and in proportion below it; leaving truncated responses out of the update; and training on the
# four shortest of each eight.

# %%
remedies = {"1/|o|, nothing else": [r for r in list_runs("head-to-head") if r.method == "grpo_no_kl"
                                     and r.config["task"] == "countdown" and r.seed in (5, 6, 7)]}  # fmt: skip
names = {"dr_grpo": "Dr. GRPO", "overlong": "soft penalty near the cap", "length_cost": "cost of length",
         "whole": "without truncated responses", "shortest": "the four shortest"}  # fmt: skip
for run in list_runs("length-remedies"):
    remedies.setdefault(names[run.path.name.rsplit("-", 1)[0]], []).append(run)
rows = {}
for name, runs in remedies.items():
    if kept := [means_of(run) for run in runs if (run.path / "responses.csv.gz").exists()]:
        rows[name] = kept
if rows:
    table = pd.DataFrame({name: pd.DataFrame(means).mean() for name, means in rows.items()}).T
    table = table[["right, %", "length", "right", "wrong", "truncated, %", "attempts"]]
    table = table.rename(columns={"right": "right ones", "wrong": "wrong ones"})
    table.insert(0, "seeds", [len(means) for means in rows.values()])
    display(table.round(1).astype({"seeds": int}))
else:
    print("No runs of the remedies are recorded yet.")

# %% [markdown]
# *What to look at.* Accuracy against length, and the attempts beside them. A remedy that shortens and keeps accuracy
# would have removed length that was worth nothing. If one loses accuracy, has it lost attempts? The two that shorten
# most have. Dr. GRPO and the four shortest have not: they lose accuracy for another reason.

# %%
if rows:
    for name, row in table.iloc[1:].iterrows():
        less = row - table.iloc[0]
        say(f"{name}: {less['right, %']:+.1f} points and {less['length']:+.1f} tokens against no remedy.")

# %% [markdown]
# No remedy removes length and keeps accuracy. The two that shorten responses lose the most.
#
# ## Figure 4, beside ours
#
# The paper's figure, digitised (`data/paper/figure4.csv`, to about ±5), beside our runs. Model, cap and axes differ, so
# compare the shapes and not the levels.

# %%
from rlino_lib.figures.length import figure_four
from rlino_lib.paths import DATA

theirs = pd.read_csv(DATA / "paper" / "figure4.csv")
theirs["share_correct"] = 100 * theirs["n_correct"] / (theirs["n_correct"] + theirs["n_incorrect"])
panels = {"paper: Countdown, 1.5B, GRPO": theirs}
for task_name in TASKS:
    if runs := [r for r in list_runs("head-to-head") if r.method == "grpo" and r.config["task"] == task_name]:
        ours = metrics_frame(runs).dropna(subset=["eval/accuracy"])
        ours = ours.rename(
            columns={"eval/length/correct": "length_correct", "eval/length/incorrect": "length_incorrect"}
        )
        panels[f"ours: {TASKS[task_name]}, GRPO, {len(runs)} seeds"] = ours.assign(
            share_correct=100 * ours["eval/accuracy"]
        )
figure_four(panels)

# %%
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
# In all three, wrong responses grow more than right ones, and most on Countdown. The dip at the start of the paper's
# wrong responses is not in our runs.
#
# ## The ledger

# %%
from rlino_lib.claims.ledger import Records

records = Records(RUNS, ledger)
judged = {c.id: judge(c, records) for c in ledger}
stale = [c.id for c in ledger if c.verdict != judged[c.id].verdict]
if stale:
    say(f"The stored verdicts of {', '.join(stale)} are not those of the records as they are now: see `rlino claims`.")
rows = [(c.id, c.statement, judged[c.id].verdict, judged[c.id].effect, c.standing or "–") for c in ledger]
pd.DataFrame(rows, columns=["", "claim", "verdict", "what was found", "standing"]).set_index("")

# %% [markdown]
# *What to look at.* "Undecided" does not mean no: the interval of the planned seeds leaves both answers open. "Holds
# with conditions" does not mean yes: read which part of the claim was found. Some rows are superseded by another, or
# under revision, with the reason beside them.
#
# ## Exercises
#
# **1. Which way?** `my_drift(weights)`: `weights[n − 1]` takes the place of $1/|o|$ in a response of $n$ tokens. It
# rises, falls or stays constant. Where do *wrong* responses drift: 1 longer, −1 shorter, 0 nowhere?


# %%
from checkers.length import check_drift, check_parts, check_regrade, check_survival


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
# **3. A decomposition that adds up.** `my_parts(start, between, now, cap)`: the parts selection, truncated and longer.
# `start` is the base's mean length of wrong responses. `between` and `now` are pairs: the share that is truncated,
# and the mean length of the rest.


# %%
def my_parts(start, between, now, cap): ...


_ = check_parts(my_parts)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_parts(start, between, now, cap):
#     (S, W), (s, w) = between, now
#     return S * cap + (1 - S) * W - start, (s - S) * (cap - W), (1 - s) * (w - W)
# ```
#
# This is not the only decomposition: with $(s - S)(C - w)$ and $(1 - S)(w - W)$ the sum is the same. A report has to
# say which of the two it uses.
#
# </details>
#
# **4. A budget.** `my_regrade(attempts, target, k)`: is a solver right that checks each attempt itself and is
# stopped after k? An attempt is a pair of its result and the verdict that the response gave it.


# %%
def my_regrade(attempts, target, k): ...


_ = check_regrade(my_regrade)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_regrade(attempts, target, k):
#     return any(result == target for result, verdict in attempts[:k])
# ```
#
# </details>
#
# **5. A question.** A colleague trains with a constant normaliser, sees wrong responses grow as before, and
# concludes that $1/|o|$ has no effect on lengths. What is missing?
#
# <details><summary>Answer</summary>
#
# That growth remains shows that there is another cause. Whether $1/|o|$ has an effect is a *difference* between two
# runs. It can be large while both grow, or hidden where both run into the cap. The answer takes the pair, the same
# seeds, an interval, and a statistic that the cap does not touch. The mean length of responses that were not truncated
# is not one.
#
# </details>
#
# ## Summary
#
# - In expectation $1/|o|$ does what the paper says: wrong responses drift longer and right ones shorter, as far as
#   the policy can tell the two apart. A weight that does not depend on the length of its response gives no drift.
# - A mean length of wrong responses moves for at least four reasons, and the normaliser is one of them. Lengths under
#   several caps, fixed problems and success by attempt help to tell them apart; a mean without truncated responses
#   still depends on the cap. Only a run without the normaliser shows what the normaliser does.
#
# As computed above:

# %%
for task_name, (one, other) in sums.items():
    grew, without = (side["wrong ones: growth"] for side in (one, other))
    names = ("selection of problems", "fewer leave a step out", "more are truncated", "longer, of the same kind")
    shares = "; ".join(f"{name} {in_brackets(one['wrong ones: ' + name])}" for name in names)
    say(
        f"{TASKS[task_name]}: under GRPO wrong responses grow by {in_brackets(grew)} tokens with 1/|o| and by "
        f"{in_brackets(without)} with a constant; the difference, which is what 1/|o| around gain and KL causes, is "
        f"{in_brackets(grew - without)}. Of the growth with 1/|o|: {shares}. "
        f"What 1/|o| does to accuracy: {in_brackets(one['right, %'] - other['right, %'])} points."
    )
tally = pd.Series([evidence.verdict for evidence in judged.values()]).value_counts()
say(f"Of {len(ledger)} claims on length: {', '.join(f'{verdict} {n}' for verdict, n in tally.items())}.")

# %% [markdown]
# Open:
#
# - How long the truncated responses would be: the one conclusion that is still under revision.
# - Whether the proportions are the same in models that can tell better whether they are wrong (chapter 12).
# - Whether credit that knows which tokens mattered makes responses shorter (chapter 10).
