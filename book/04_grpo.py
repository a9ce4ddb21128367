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
# # 04 · GRPO, from four hand-written rollouts to a training run
#
# **Is GRPO doing anything that a weighted cross-entropy does not?**
#
# **The answer.** With one update per batch it does not: its gradient is that of a weighted cross-entropy on its own
# samples. With rewards of zero or one the advantages depend on the share of right responses alone; the weights depend
# on lengths too. Without its KL term the logged loss is zero from the first step on, and the gradient is not. In the
# ledger: `weighted-sft` holds, `closed-form` holds.
#
# Group relative policy optimisation ([arXiv 2402.03300](https://arxiv.org/abs/2402.03300)) samples $G$ responses
# $o_1 \dots o_G$ to a prompt $q$, has a verifier give each a reward $r_i$, and maximises
#
# $$
# J(\theta) = \mathbb{E}\Big[\, \frac1G \sum_{i=1}^{G} \frac{1}{|o_i|} \sum_{t=1}^{|o_i|}
# \Big\{ \min\big(\rho_{it} \hat A_i,\ \mathrm{clip}(\rho_{it}, 1-\varepsilon, 1+\varepsilon)\, \hat A_i \big)
# - \beta\, \mathrm{k3}_{it} \Big\} \Big],
# \qquad
# \rho_{it} = \frac{\pi_\theta(o_{it} \mid q, o_{i<t})}{\pi_{\text{old}}(o_{it} \mid q, o_{i<t})} .
# $$
#
# A weighted cross-entropy is much plainer: $\sum_i \sum_t w_{it} \log \pi_\theta(o_{it} \mid q, o_{i<t})$, with
# weights that are fixed before the gradient is taken. The paper ([arXiv
# 2505.13697](https://arxiv.org/abs/2505.13697)) says that in the setting where language models are usually trained,
# the first collapses into the second.
#
# Below, four *rollouts* (sampled responses, here written by hand) are graded and turned into advantages, importance
# ratios and a loss, with one line of code beside each piece of the equation. Then the same lines train a small model.

# %%
import dataclasses
import math
from pathlib import Path

import pandas as pd
import torch

from rlino_lib.evaluation.evaluate import evaluate
from rlino_lib.figures.style import axis_label, label, new_figure, style
from rlino_lib.methods.advantages import advantages
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.methods.loss import Batch, policy_loss, token_weights
from rlino_lib.policy.models import load_policy
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.run import train

style()

# %% [markdown]
# ## Four rollouts, written by hand
#
# The task is Countdown (chapter 02). There is one prompt, and a group of $G = 4$ responses in the format of the base of
# chapter 03. The first is right. The second claims a wrong sum. The third tries three times and gives up without an
# answer. The fourth is right at its third attempt.

# %%
from rlino_lib.tasks import Countdown
from rlino_lib.tasks.countdown.game import make_problem

task = Countdown()
problem = make_problem([8, 2, 4], 64)
names = ["right, short", "wrong, bad sum", "wrong, gives up", "right, long"]
responses = [
    " 8 * 4 = 32, 32 * 2 = 64 yes </think> <answer> ( 8 * 4 ) * 2 </answer>",
    " 8 + 2 = 16, 16 * 4 = 64 yes </think> <answer> ( 8 + 2 ) * 4 </answer>",
    " 8 - 2 = 6, 6 * 4 = 24 no\n 8 + 4 = 12, 12 * 2 = 24 no\n 8 + 2 = 10, 10 * 4 = 40 no </think>",
    " 8 - 2 = 6, 6 * 4 = 24 no\n 8 + 4 = 12, 12 * 2 = 24 no\n 8 * 4 = 32, 32 * 2 = 64 yes"
    " </think> <answer> ( 8 * 4 ) * 2 </answer>",
]
print(task.prompt(problem))

# %% tags=["nbval-check-output"]
grades = [task.grade(problem, response) for response in responses]
seen = [(g.reward, g.answer or "none", g.reason) for g in grades]
pd.DataFrame(seen, index=names, columns=["reward", "answer", "the grader says"])

# %% [markdown]
# The reward does not say that the second response went wrong at its first sum, or that the fourth wasted two attempts.
#
# ## Advantages
#
# $$ \hat A_i = \frac{r_i - \mathrm{mean}(r_1 \dots r_G)}{\mathrm{std}(r_1 \dots r_G) + 10^{-4}} $$
#
# The group is its own baseline: a response is judged against the other answers to the same question, and no critic
# is learned. First by hand, with the sample standard deviation (some implementations use the population's):

# %% tags=["nbval-check-output"]
G = 4
rewards = torch.tensor([g.reward for g in grades])  # [N], N = P·G rows, here P = 1 prompt
by_hand = torch.zeros_like(rewards)  # [N]
for first in range(0, len(rewards), G):
    group = rewards[first : first + G]  # [G]
    by_hand[first : first + G] = (group - group.mean()) / (group.std() + 1e-4)
adv = advantages(rewards, group_size=G)  # [N], as the library has it
print([round(a, 4) for a in by_hand.tolist()], " equal:", torch.equal(adv, by_hand))

# %% [markdown]
# ### A closed form
#
# With binary rewards a group is described by one number, the share $p = k/G$ of right responses. Mean and standard
# deviation are functions of $p$ alone, so the advantages are too:
#
# $$ \hat A^+ = \sqrt{\tfrac{G-1}{G}}\,\sqrt{\tfrac{1-p}{p}}, \qquad
# \hat A^- = -\sqrt{\tfrac{G-1}{G}}\,\sqrt{\tfrac{p}{1-p}} . $$
#
# (The first root comes from the sample standard deviation.) This is where the paper splits GRPO's sum into one over
# right responses, all with the weight $\hat A^+$, and one over wrong ones, all with $\hat A^-$. Checked on every
# mixed group of eight, without the $10^{-4}$:

# %% tags=["nbval-check-output"]
rows = []
for k in range(1, 8):
    r = torch.tensor([1.0] * k + [0.0] * (8 - k), dtype=torch.float64)  # [8]
    a = advantages(r, group_size=8, eps=0.0)  # [8]
    p = k / 8
    closed = (math.sqrt(7 / 8 * (1 - p) / p), -math.sqrt(7 / 8 * p / (1 - p)))
    assert abs(a[0] - closed[0]) < 1e-12 and abs(a[-1] - closed[1]) < 1e-12
    rows.append((p, a[0].item(), a[-1].item(), a[:k].sum().item() / 8))
forms = pd.DataFrame(rows, columns=["p", "right", "wrong", "sum over the right / G"]).set_index("p")
forms.T.round(3)

# %% tags=["hide-input"] alt="Two line plots against the share p of a group that is right. Left: the advantage of one right response falls towards 0 as p grows, and that of one wrong response falls from 0. Right: the pull of a whole group rises to its largest value at p = 1/2 and falls again."
import seaborn as sns

figure, axes = new_figure(1, 2, (8.4, 3.2))
sns.lineplot(forms[["right", "wrong"]], markers=True, ax=axes[0, 0])
sns.lineplot(forms["sum over the right / G"], marker="o", color="0.3", ax=axes[0, 1])
axes[0, 0].set(xlabel="share of the group that is right, p", ylabel="advantage of one response")
axes[0, 1].set(xlabel="share of the group that is right, p", ylabel="push on all right responses", ylim=(0, 0.55))
figure

# %% [markdown]
# *What to look at.* Which response counts most, and which problem? On the left: the rarer the kind of response, the
# larger its advantage. On the right: the push on all right responses together follows $\sqrt{p(1-p)}$. A problem that
# the model solves half the time counts most, and one that it always or never solves counts nothing.

# %% [markdown]
# ## The loss, line by line
#
# The objective asks for the log-probability of every token twice: under the policy being trained (`new`), and under
# the policy that sampled (`old`). To keep the arithmetic in sight, suppose that the four responses had two to four
# tokens, with these made-up log-probabilities. `mask` is true on tokens that belong to a response.

# %%
old = torch.tensor(
    [[-0.5, -1.0, -0.2, 0.0], [-1.7, -1.4, 0.0, 0.0], [-0.3, -0.9, -0.6, -0.1], [-0.8, -0.2, -0.5, -0.4]]
)  # [N, T] = [4, 4], a row for each response
new = torch.tensor(
    [[-0.2, -1.1, -0.2, 0.0], [-2.0, -1.3, 0.0, 0.0], [-0.3, -0.6, -0.7, -0.1], [-0.7, -0.6, -0.8, -0.35]]
)  # [N, T]
mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]).bool()  # [N, T]

# %% [markdown]
# The *importance ratio* of a token says how much likelier it has become since it was sampled:
#
# $$ \rho_{it} = \exp\big( \log\pi_\theta(o_{it}) - \log\pi_{\text{old}}(o_{it}) \big) $$

# %% tags=["nbval-check-output"]
ratio = (new - old).exp()  # [N, T]
places = [f"token {t + 1}" for t in range(4)]
pd.DataFrame(ratio.where(mask, math.nan), index=names, columns=places).round(3)

# %% [markdown]
# $$ g_{it} = \min\big( \rho_{it} \hat A_i,\ \mathrm{clip}(\rho_{it}, 0.8, 1.2)\, \hat A_i \big) $$

# %% tags=["nbval-check-output"]
unclipped = ratio * adv[:, None]  # [N, T]
clipped = ratio.clamp(0.8, 1.2) * adv[:, None]  # [N, T]
gain = torch.minimum(unclipped, clipped)  # [N, T]
bites = (clipped < unclipped) & mask  # [N, T]
for i, t in bites.nonzero().tolist():
    print(f"the clip bites on token {t + 1} of {names[i]!r}: ratio {ratio[i, t]:.2f}, advantage {adv[i]:+.3f}")

# %% [markdown]
# The minimum is one-sided. A right response gains nothing more from a token that is already 20 % likelier. A wrong
# one loses nothing more by a token that is already 20 % less likely. Tokens that moved the wrong way, such as the
# second one in the last two rows, are outside the band too, and keep their full gradient. Where the clip bites, $g$
# is constant, and the token's gradient is 0.
#
# $$ J = \frac1N \sum_i \frac{1}{|o_i|} \sum_t g_{it}, \qquad \text{loss} = -J $$

# %% tags=["nbval-check-output"]
lengths = mask.sum(1)  # [N]
per_response = (gain * mask).sum(1) / lengths  # [N]
loss_by_hand = -per_response.mean()  # scalar
print("mean gain of each response:", [round(x, 4) for x in per_response.tolist()])
print(f"loss: {loss_by_hand:.4f}")

# %% [markdown]
# This is all of GRPO without its KL term. The library's `policy_loss` has the same lines, for every objective of
# this book:

# %% tags=["nbval-check-output"]
grpo_no_kl = OBJECTIVES["grpo_no_kl"]
result = policy_loss(grpo_no_kl, Batch(new, adv, mask, old))
print(f"loss: {result.loss:.4f}  equal: {torch.allclose(result.loss, loss_by_hand, atol=1e-7)}")
print(f"share of tokens clipped: {result.metrics['clip_ratio']:.4f}, that is {int(bites.sum())} of {int(mask.sum())}")

# %% [markdown]
# ## Why the logged loss is 0
#
# In training the numbers above look different. A batch is sampled, used for one update, and thrown away: training is
# *on-policy*. At the moment of the update `new` *is* `old`, and every ratio is 1. Then each response's mean gain is
# $\hat A_i$. The loss is $-\frac1N \sum_i \hat A_i = 0$, since advantages add up to 0 in every group. It is 0 at the
# first step and at the last, whether or not anything is learned. The gradient is not 0:
#
# $$
# \nabla \rho_{it} = \rho_{it}\, \nabla \log\pi_\theta(o_{it}) = \nabla \log\pi_\theta(o_{it})
# \quad \text{at } \rho_{it} = 1, \qquad\text{so}\qquad
# \frac{\partial J}{\partial \log\pi_\theta(o_{it})} = \frac{\hat A_i}{N\,|o_i|} .
# $$

# %% tags=["nbval-check-output"]
logprobs = old.clone().requires_grad_()  # [N, T], the policy has not moved yet
loss = policy_loss(grpo_no_kl, Batch(logprobs, adv, mask, old)).loss
loss.backward()
print(f"loss: {loss.item():z.6f}   norm of its gradient: {logprobs.grad.norm():.4f}")
assert torch.allclose(logprobs.grad, -adv[:, None] / (4 * lengths[:, None]) * mask)
pd.DataFrame(-logprobs.grad.where(mask, math.nan), index=names, columns=places).round(4)

# %% [markdown]
# So a loss of 0 in a log is no sign of a fault, and a loss that falls is no sign of learning. Watch the reward, the
# gradient's norm, and the held-out accuracy.
#
# The table answers the chapter's question for this case. Take its numbers as fixed weights $w_{it}$, forget
# advantages, ratios and clips, and write down a weighted cross-entropy:

# %% tags=["nbval-check-output"]
weights = -logprobs.grad  # [N, T], numbers from here on
again = old.clone().requires_grad_()  # [N, T]
cross_entropy = -(weights * again).sum()
cross_entropy.backward()
print(f"weighted cross-entropy: {cross_entropy:.4f}   same gradient: {torch.equal(again.grad, logprobs.grad)}")

# %% [markdown]
# Two losses with different values have one gradient. What remains of the objective is the rule that made the weights,
# and that the samples came from the policy itself. Ratio and clip begin to act with the second update on the same
# batch, when it is *off-policy* (chapter 06).
#
# ## What the weights are
#
# Back to the four responses as they are written, in the base model's tokens. `token_weights` gives
# $w_{it} = \partial J / \partial \log \pi_\theta(o_{it})$ at ratio 1. It differentiates `policy_loss`, so a weight in a
# figure of this book is the weight that the optimiser used.

# %% tags=["nbval-check-output"]
from transformers import AutoTokenizer

from rlino_lib.paths import DEFAULT_BASE

tokenizer = AutoTokenizer.from_pretrained(DEFAULT_BASE)
lengths = torch.tensor([len(tokenizer(text).input_ids) + 1 for text in responses])  # [N], with the token that ends it
mask = torch.arange(lengths.max()) < lengths[:, None]  # [N, T]
w = token_weights(grpo_no_kl, adv, mask)  # [N, T]
table = pd.DataFrame({"tokens": lengths, "advantage": adv, "w of a token": w[:, 0], "sum of w": w.sum(1)}, index=names)
table.round({"advantage": 3, "w of a token": 5, "sum of w": 4})

# %% alt="Bars for the tokens of four responses, one row each. Right responses point up and wrong ones down; all tokens of a response have the same height, and longer responses have flatter bars."
from rlino_lib.figures.curves import weights_bars

weights_bars(w, mask, names=names)

# %% [markdown]
# *What to look at.* How is a response's weight spread over its tokens? Evenly: the wrong sum and the right answer
# tag have the same weight, so credit is uniform. The two wrong responses carry the same total, spread over more
# tokens in the long one: the bars have the same area, and the longer ones are flatter.
#
# This is the paper's length argument: under $1/|o_i|$ a long wrong response dilutes its penalty, and a short right
# one concentrates its reward. Whether models grow longer *because* of it is a question about a drift over many
# steps, which chapter 08 asks.
#
# ## The KL term
#
# The last piece is a penalty for leaving the *reference*, the model before training. GRPO estimates it from the
# sampled token alone:
#
# $$ \mathrm{k3}_{it} = e^{d_{it}} - d_{it} - 1, \qquad
# d_{it} = \log\pi_{\text{ref}}(o_{it}) - \log\pi_\theta(o_{it}) . $$
#
# It is never negative, and its mean over samples of $\pi_\theta$ is the KL divergence. By enumeration, for three
# tokens:

# %% tags=["nbval-check-output"]
pi = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)  # [V]
ref = torch.tensor([0.3, 0.3, 0.4], dtype=torch.float64)  # [V]
d = ref.log() - pi.log()  # [V]
k3 = d.exp() - d - 1  # [V]
print("k3 of each token:", [round(x, 4) for x in k3.tolist()])
print(f"mean of k3 under pi: {(pi * k3).sum():.6f}   KL(pi, ref): {(pi * (pi / ref).log()).sum():.6f}")

# %% [markdown]
# (In floating point two numbers near 1 cancel where $d$ is small. So `policy_loss` computes `expm1(d) - d`, which keeps
# the digits. And it limits $d$ to $\pm 20$ inside the exponential: one token far from the reference would make the
# whole loss infinite.)
#
# ## A method is a row of choices
#
# Advantage, ratio, clip, normaliser, KL: an `Objective` names one choice for each, and prints as its formula. Here are
# GRPO, GRPO without KL (the paper's GRPO-wo-KL), and three variations of it in one field each:

# %% tags=["nbval-check-output"]
variants = {
    "GRPO without KL": grpo_no_kl,
    "no clip": dataclasses.replace(grpo_no_kl, name="no_clip", clip_low=None, clip_high=None),
    "token mean": dataclasses.replace(grpo_no_kl, name="token_mean", normaliser="token_mean"),
    "constant": dataclasses.replace(grpo_no_kl, name="constant", normaliser="constant"),
}
for objective in (OBJECTIVES["grpo"], *variants.values()):
    print(objective)

# %% tags=["nbval-check-output"]
zeros = torch.zeros(mask.shape)  # [N, T], any log-probs will do as long as new is old
table = pd.DataFrame(index=[*names, "logged loss"])
for name, o in variants.items():
    weight = token_weights(o, adv, mask, max_response_length=64)[:, 0]  # [N], of the first token
    loss = policy_loss(o, Batch(zeros, adv, mask, zeros, max_response_length=64)).loss
    table[name] = [*weight.tolist(), loss.item()]
table.round(5) + 0.0

# %% [markdown]
# - *No clip* changes no weight: at ratio 1 there is nothing to clip.
# - *Token mean*, one mean over all tokens of the batch, and *constant*, a fixed length in place of $|o_i|$, weight a
#   token by $\hat A_i$ alone, however long its response is. A long response then has the larger total. And there is a
#   logged loss: $\sum_i |o_i| \hat A_i$ is 0 only where right and wrong responses are equally long.
#
# The token mean is the default of some frameworks. So a formula with $1/|o_i|$ in a paper and the code beside it may
# be different methods.

# %% [markdown]
# ## A model
#
# Now the same lines with a model that sampled its responses itself: the base of chapter 03, sixteen problems, eight
# responses each. `Trainer` holds the model, the task and the optimiser; `sample` makes and grades one batch.

# %%
import copy

from rlino_lib.policy.models import Policy
from rlino_lib.training.trainer import Trainer

policy = load_policy()
config = TrainConfig(method="grpo_no_kl", prompts=16, steps=1, eval_every=0)
trainer = Trainer(config, Policy(copy.deepcopy(policy.model), policy.tokenizer))  # a copy: this one will be trained
rollouts = trainer.sample(step=1)
print(f"{len(rollouts.prompts)} prompts, {len(rollouts.texts)} responses of up to {rollouts.ids.shape[1]} tokens")
print(rollouts.prompts[0] + rollouts.texts[0])

# %%
right = rollouts.correct.view(-1, config.group_size).sum(1)  # [P]
mixed = (right > 0) & (right < config.group_size)  # [P]
adv = advantages(rollouts.rewards, config.group_size)  # [N]
print("right in each group of 8:", right.tolist())
print(f"{mixed.sum()} of {len(mixed)} groups are mixed; the others have no gradient at all.")

# %% [markdown]
# More samples per problem, or problems of a suitable difficulty, make more groups mixed; DAPO ([arXiv
# 2503.14476](https://arxiv.org/abs/2503.14476)) keeps sampling until all are.
#
# The gradient through the model takes four lines. Log-probs are computed anew by a pass over prompt and response,
# since those of sampling carry no gradient.

# %%
from rlino_lib.policy.logprobs import response_logprobs

logprobs, mask = response_logprobs(policy.model, rollouts, torch.arange(len(adv)))  # [N, T], [N, T]
loss = policy_loss(grpo_no_kl, Batch(logprobs, adv, mask, rollouts.logprobs)).loss
loss.backward()
norm = torch.nn.utils.clip_grad_norm_(policy.model.parameters(), config.clip_norm).item()
gap = (logprobs - rollouts.logprobs).detach().where(mask, 0).abs().max().item()
print(f"loss {loss.item():+.1e}, gradient norm {norm:.3f}, largest gap between new and old log-probs {gap:.0e}")

# %% [markdown]
# The loss is 0 to rounding; the gradient is not. The last number is a test for any such code base: sampler and
# trainer must agree on the log-probs of the same tokens. If they do not (another precision, another kernel, a
# temperature forgotten on one side), every ratio is off from the start.
#
# Next is one step of AdamW on this gradient, against `Trainer.step()` on the copy of the model. The trainer samples
# the same batch from the same seed, leaves out rows whose advantage is 0, and sorts the rest into micro-batches.

# %%
from torch.nn.utils import parameters_to_vector

optimizer = torch.optim.AdamW(policy.model.parameters(), lr=config.lr, betas=(0.9, 0.95), weight_decay=0.0)
start = parameters_to_vector(policy.model.parameters()).detach().clone()  # [number of parameters]
optimizer.step()
metrics, _, _ = trainer.step()
by_hand = parameters_to_vector(policy.model.parameters()).detach() - start
by_trainer = parameters_to_vector(trainer.model.parameters()).detach() - start
agreement = torch.cosine_similarity(by_trainer, by_hand, dim=0).item()
assert math.isclose(norm, metrics["grad_norm"], rel_tol=1e-3) and agreement > 0.99
print(f"gradient norm by hand {norm:.4f}, by Trainer.step {metrics['grad_norm']:.4f}")
print(f"cosine between the two steps: {agreement:.6f}")

# %% [markdown]
# The gradients agree to rounding. The steps agree a little less, because Adam's first step divides every gradient by
# its own size, also one that is 0 up to rounding.
#
# ## Training, live
#
# The loop around this step is short: sample, grade, weight, step, again. The run below is real and small. It is
# measured on problems of the validation split, before and after, with two samples per problem.

# %%
live_config = TrainConfig(method="grpo_no_kl", prompts=16, steps=12, lr=3e-4, eval_every=0)
policy = load_policy()
validation = task.problems("validation", 256)
before = evaluate(policy, task, validation, samples=2)

# %%
import tempfile

from rlino_lib.widgets import LivePlot

plot = LivePlot(
    live_config.steps, ("reward", ("length/correct", "length/incorrect"), "entropy"), title="GRPO without KL"
)
plot.show()
with tempfile.TemporaryDirectory() as folder:
    train(live_config, Path(folder) / "live", on_step=plot.update, policy=policy)

# %% [markdown]
# *What to look at.* Does the reward rise? The reward of a step is the share right in one batch, and the next step
# has other problems. So it is noisy, and the measurement below decides.

# %%
from rlino_lib.analysis.statistics import bootstrap_interval

after = evaluate(policy, task, validation, samples=2)
change = after["c"] / after["n"] - before["c"] / before["n"]  # one number per problem
low, high = bootstrap_interval(change)
verdict = "excludes 0" if low > 0 or high < 0 else "contains 0, so that this run alone does not tell"
print(f"right before: {before['c'].sum() / before['n'].sum():.1%}, after: {after['c'].sum() / after['n'].sum():.1%}")
print(f"change: {100 * change.mean():+.1f} points,", end=" ")
print(f"95 % interval {100 * low:+.1f} to {100 * high:+.1f}, which {verdict}.")

# %% [markdown]
# The interval is over problems. It says how well so many problems and samples measure *this* run, and nothing about
# another seed.
#
# ## The recorded runs
#
# The long view is read from `data/runs`: GRPO and GRPO without KL from the same base, with several seeds, evaluated
# as they went. The first command makes one of these runs, the second all that this book records.

# %%
import shlex

from rlino_lib.records.runs import list_runs, metrics_frame
from rlino_lib.training.grid_file import command_line

runs = [run for run in list_runs("countdown") if run.method in ("grpo", "grpo_no_kl")]
defaults = {f.name: f.default for f in dataclasses.fields(TrainConfig)}
settings = {k: v for k, v in runs[0].config.items() if k in defaults and k not in ("model", "task_settings")}
chosen = {k: v for k, v in settings.items() if v != defaults[k] or k in ("method", "seed", "lr", "steps")}
print(shlex.join(["rlino", *command_line(chosen, Path("data/runs") / runs[0].name)]))
print("make runs")

# %% alt="Line plot: share of right answers on held-out problems against optimiser steps, for GRPO with and without its KL term; a mean over seeds with a band."
from rlino_lib.figures.curves import learning_curves, length_curves

frame = metrics_frame(runs)
split = runs[0].config["eval_split"]
learning_curves(frame, "eval/accuracy", title=f"{split} split, {runs[0].config['eval_problems']:,} problems")

# %% [markdown]
# *What to look at.* Step 0 is the base. Do the two lines part by more than the seeds of one method do? They do
# not.

# %% tags=["hide-input"] alt="Four line plots against optimiser steps, for GRPO with and without its KL term: reward, entropy, KL to the reference, and the share of truncated responses."
from rlino_lib.figures.curves import curve_panels

window = max(1, runs[0].config["steps"] // 20)
curve_panels(frame, dict.fromkeys(("reward", "entropy", "kl", "completions/clipped_ratio"), ""), smooth=window)

# %% [markdown]
# *What to look at.* The entropy is what is left to explore with: how much of it goes? Here none: it rises at first,
# then falls, and ends no lower than it began. KL is recorded only where it is part of the objective. And how large does
# the share of truncated responses become? Large: the next table has it. Such a response has no answer, so it is wrong
# whatever it might have become.

# %%
late = frame["step"] > frame["step"].max() - window
parts = frame.assign(steps=late.map({False: f"first {window}", True: f"last {window}"}))
parts = parts[late | frame["step"].between(1, window)].groupby(["method", "steps"])
first = runs[0].config
largest = frame["clip_ratio"].max()
print(f"Updates per batch: {first['epochs'] * first['minibatches']}; largest share of tokens clipped: {largest:.3g}")
parts[["entropy", "completions/clipped_ratio"]].mean().rename(index=label, columns=axis_label).round(2)

# %% alt="A line plot for each method, with and without the KL term: mean length in tokens of right responses, of wrong ones, and of wrong ones that were not truncated, against optimiser steps."
length_curves(frame, columns=2)

# %% [markdown]
# *What to look at.* Compare right and wrong responses, and then wrong ones that were not truncated. Wrong ones grow far
# more than right ones. The gap between the two lines of wrong responses is made of truncated ones, and it is most of
# what the wrong ones grow by. Chapter 08 is about these lines.

# %%
columns = [f"eval/length/{kind}" for kind in ("correct", "incorrect", "incorrect_unclipped")] + ["eval/clipped_ratio"]
at_end = frame.dropna(subset=["eval/accuracy"]).groupby(["method", "seed"])[columns].last().groupby("method").mean()
at_end.rename(index=label, columns=axis_label).round(2)

# %% [markdown]
# ### Where the runs ended

# %%
from rlino_lib.analysis.tables import in_brackets
from rlino_lib.figures.recorded import measured, outcomes

print(measured(runs))
ends = outcomes(runs).set_index(["method", "seed"])["accuracy"]
base = ends["base"].item()
by_seed = (100 * (ends.drop("base") - base)).unstack().rename(index=label, columns="seed {:.0f}".format)
difference = (by_seed.loc["GRPO"] - by_seed.loc["GRPO without KL"]).dropna()
print(f"The base has {base:.1%} right. Points gained on it, with 95 % intervals over seeds:")
for name, gains in by_seed.iterrows():
    print(f"{name}: {in_brackets(gains.dropna())}")
print(f"GRPO over GRPO without KL: {in_brackets(difference)}")
by_seed.round(1)

# %% [markdown]
# With so few seeds the intervals are wide: only a large difference shows. Chapter 07 has all methods in one table, and
# a test of equivalence whose margin was set in advance.
#
# A comparison of methods is worth no more than the care with which each was tuned. Learning rates were compared on
# the validation split, before any run was evaluated on the test split. The share right there, by learning rate.
# (F-ISFT⁺⁻ is the method of chapter 05; it was run at two of the rates.)

# %%
sweep = list_runs("countdown-lr")
tried = [(r.config["lr"], label(r.method), r.metrics["eval/accuracy"].dropna().iloc[-1]) for r in sweep]
print("The recorded runs use", *{run.config["lr"] for run in runs})
pd.DataFrame(tried, columns=["lr", "method", "share right"]).pivot_table("share right", "lr", "method").round(3)

# %% [markdown]
# ### Reading the traces
#
# Curves show that something changed; traces show what. The inspector has whole groups of the recorded runs: the parsed
# answer and the grader's reason, each token with its weight, log-probability or entropy. Choose a run, a step and a
# problem. Is the weight of a right response the same at its wrong turns as at its answer? It is, for every response and
# at every step: credit is uniform.

# %%
from rlino_lib.widgets import trace_inspector

trace_inspector(runs)

# %% [markdown]
# ## Guard rails
#
# It is easy to lose a night to a run that trains nothing: every reward, advantage and gradient is 0, and the log looks
# calm. Here is such a run. The prompt follows a template for large models, which the small base has never seen:

# %% tags=["nbval-check-output"]
from rlino_lib.errors import RlinoError

misfit = TrainConfig(
    method="grpo_no_kl", task_settings={"template": "r1_zero"}, prompts=2, group_size=2, max_new_tokens=64, eval_every=0
)
with tempfile.TemporaryDirectory() as folder:
    try:
        train(misfit, Path(folder) / "misfit")
    except RlinoError as error:
        print(error)

# %% [markdown]
# Two more rules watch for groups without contrast, where the method learns from it, and for responses that never end;
# `--guard warn` goes on regardless.
#
# ## What the paper says, and what was found here
#
# The paper drops the KL term, assumes that ratios stay inside the clip range, and splits the sum by the binary
# reward. It arrives at a supervised loss on the policy's own samples, weighted by group. On the way it runs GRPO
# with and without the KL term. These are its accuracies, one run each, from summaries of the paper
# (`data/paper/README.md` says how sure each number is):

# %%
from rlino_lib.paths import RUNS

paper = pd.read_csv(RUNS.parent / "paper" / "results.csv")
paper = paper[paper["method"].isin(["GRPO", "GRPO-wo-KL"])]
paper = paper.pivot(index=["task", "model"], columns="method", values="accuracy_percent").dropna()
paper.assign(difference=paper["GRPO"] - paper["GRPO-wo-KL"]).round(2)

# %%
print(f"Here, GRPO over GRPO without KL: {in_brackets(difference)} points.")
kl = frame[frame["method"] == "grpo"].groupby("run")["kl"].last()
print(f"KL to the base at the last step of GRPO: {kl.min():.2g} to {kl.max():.2g} nats per token.")
plain = frame[frame["method"] == "grpo_no_kl"].dropna(subset=["loss"])
print(f"GRPO without KL, {len(plain):,} recorded steps: largest |loss| {plain['loss'].abs().max():.0e},", end=" ")
print(f"gradient norm {plain['grad_norm'].min():.2g} to {plain['grad_norm'].max():.2g}.")

# %% [markdown]
# So, to the question: at one update per batch and without the KL term, **no**. The gradient is that of a
# cross-entropy on the sampled responses, with the weight $\hat A_i / (N |o_i|)$ on every token of response $i$. The
# assumption that ratios stay in the clip range holds there by construction.
#
# Two things are not in "weighted cross-entropy". One is where the weights come from: a group's own success rate,
# which filters and balances. The other is that the samples are on-policy, so the data set follows the policy.
#
# ## Exercises
#
# Each checker runs your function on a few inputs, compares, and names the likely mistake.
#
# **1. Advantages.** Write `my_advantages(rewards, group_size)` without a loop: rewards [N] in, advantages [N] out.

# %%
from checkers.grpo import check_advantages, check_clip, check_grpo_loss, check_weights


def my_advantages(rewards, group_size): ...


_ = check_advantages(my_advantages)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_advantages(rewards, group_size):
#     groups = rewards.view(-1, group_size)  # [P, G]
#     centred = groups - groups.mean(1, keepdim=True)  # [P, G]
#     return (centred / (groups.std(1, keepdim=True) + 1e-4)).view(-1)  # [N]
# ```
#
# </details>
#
# **2. The loss.** `my_loss(ratio, advantages, mask)`, shapes [N, T], [N] and [N, T]: the loss without clip and KL.
# Entries where the mask is false may hold anything.


# %%
def my_loss(ratio, advantages, mask): ...


_ = check_grpo_loss(my_loss)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_loss(ratio, advantages, mask):
#     gain = ratio * advantages[:, None] * mask  # [N, T]
#     return -(gain.sum(1) / mask.sum(1)).mean()
# ```
#
# </details>
#
# **3. The clip.** `my_clip(ratio, advantage, eps)`, elementwise: the gain $g$ of the objective. Before you run it: at
# $\hat A < 0$ and ratio 1.5, is there a gradient?


# %%
def my_clip(ratio, advantage, eps): ...


_ = check_clip(my_clip)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_clip(ratio, advantage, eps):
#     return torch.minimum(ratio * advantage, ratio.clamp(1 - eps, 1 + eps) * advantage)
# ```
#
# There is: a wrong response has become likelier, and the minimum takes the unclipped, larger penalty.
#
# </details>
#
# **4. The weights.** `my_weights(advantages, mask)`: the weight of every token, [N, T], from the closed formula and not
# by differentiation; 0 on padding.


# %%
def my_weights(advantages, mask): ...


_ = check_weights(my_weights)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_weights(advantages, mask):
#     return advantages[:, None] * mask / mask.sum(1, keepdim=True) / len(advantages)
# ```
#
# </details>
#
# ## Summary
#
# - GRPO's objective is a few lines: advantages within the group, importance ratios, a one-sided clip, a mean over
#   each response's tokens, a mean over responses, and a penalty for leaving the reference.
# - A method is a rule for the weights $w_{it}$ of $\nabla\log\pi_\theta(o_{it})$. `token_weights` shows those of any
#   objective, and `dataclasses.replace` makes new ones.
#
# Claims settled here:
#
# - **Closed-form advantages** (`closed-form`). With binary rewards, $\hat A^\pm$ is a function of the group's share $p$
#   alone, groups without contrast count nothing, and a group's pull is proportional to $\sqrt{p(1-p)}$. *Holds*: equal
#   on every mixed group of eight.
# - **The logged loss.** At one update per batch and $\beta = 0$, the loss of GRPO is 0 while its gradient is not.
#   *Holds*: shown on the hand-written group, on the base model, and in the recorded runs. It belongs to the
#   $1/|o_i|$ normaliser: under a token mean the loss is not 0.
# - **Weighted cross-entropy** (`weighted-sft`). In the same setting the gradient is that of a weighted cross-entropy.
#   *Holds* here for one batch; chapter 06 goes through all methods, and through what breaks it.
#
# Open: whether the KL term matters for the outcome on Countdown. `kl-countdown` is undecided (chapter 07). Chapters
# 08b and 08c ask whether $1/|o_i|$ makes wrong responses longer, and chapter 10 what uniform credit costs.
