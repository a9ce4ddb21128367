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
# # 05 · Filtered iterative SFT
#
# **Can the same run be supervised learning, and which ± weights keep it from collapsing?**
#
# **The answer.** It can: a data set of graded samples, with a sign and a weight for each response, made anew at each
# iteration. With weights that are balanced within each group, this is GRPO up to a factor for each group. On fresh
# samples these keep it from collapsing, and so do right answers alone. A negative sum of weights does not make a run
# collapse by itself: in a toy it also takes a mean over tokens, and a habit of going on that is learnt faster than
# being right. In the ledger: `balanced` holds.
#
# Chapter 04 ended with a weighted cross-entropy that had GRPO's gradient. Its weights came out of GRPO: rewards,
# advantages, importance ratios. Here we start from the other side and use none of these. Sample some responses, grade
# them, and sort them into accepted and rejected. Train on the accepted ones as on any data set, *untrain* on the
# rejected ones, and begin again with fresh samples. The paper ([arXiv 2505.13697](https://arxiv.org/abs/2505.13697))
# calls this **filtered iterative supervised fine-tuning**, F-ISFT, and compares three variants of it with GRPO:
#
# | variant | data set of an iteration | in the paper |
# |:---|:---|:---|
# | F-ISFT⁺ | the right responses | some points below GRPO on GSM8K; on Countdown above it at 0.5B, far below at 1.5B |
# | F-ISFT⁻ | the wrong responses, to be made less likely | comparable on GSM8K, 0.00 on Countdown |
# | F-ISFT⁺⁻ | both | said to be comparable to GRPO |
#
# One iteration of the first variant is known as *rejection sampling*: sample, and keep only what the verifier accepts.
# To repeat it with the improved policy is *expert iteration*. The loss of an iteration is a signed, weighted
# cross-entropy,
#
# $$
# \mathcal L(\theta) = \frac1N \sum_{i} s_i\, w_i \; \mathrm{CE}_i,
# \qquad
# \mathrm{CE}_i = -\frac{1}{|o_i|} \sum_{t=1}^{|o_i|} \log \pi_\theta(o_{it} \mid q, o_{i<t}),
# \qquad s_i = \pm 1 .
# $$
#
# What we know of the paper leaves the weights $w_i \ge 0$ undefined. Two choices suggest themselves:
#
# - **unit**: $w_i = 1$. Every response counts the same.
# - **balanced**: in a group of $G$ samples of which $k$ are right, $w_i = 1/k$ for the right ones and $1/(G-k)$ for the
#   wrong ones. Each side of a group sums to one. Groups that are all right or all wrong are left out.
#
# This chapter asks whether the choice matters.

# %%
import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from rlino_lib.figures.recorded import say
from rlino_lib.figures.style import in_order, label, look, style
from rlino_lib.methods.advantages import advantages
from rlino_lib.policy.models import load_policy

style()

# %% [markdown]
# ## Four rollouts become a data set
#
# The group of chapter 04, written by hand: two right responses, two wrong ones.

# %% tags=["nbval-check-output"]
from rlino_lib.tasks import Countdown
from rlino_lib.tasks.countdown.game import make_problem

task = Countdown()
problem = make_problem([8, 2, 4], 64)
responses = {
    "right, short": " 8 * 4 = 32, 32 * 2 = 64 yes </think> <answer> ( 8 * 4 ) * 2 </answer>",
    "wrong, bad sum": " 8 + 2 = 16, 16 * 4 = 64 yes </think> <answer> ( 8 + 2 ) * 4 </answer>",
    "wrong, gives up": " 8 - 2 = 6, 6 * 4 = 24 no\n 8 + 4 = 12, 12 * 2 = 24 no\n 8 + 2 = 10, 10 * 4 = 40 no </think>",
    "right, long": " 8 - 2 = 6, 6 * 4 = 24 no\n 8 + 4 = 12, 12 * 2 = 24 no\n 8 * 4 = 32, 32 * 2 = 64 yes"
    " </think> <answer> ( 8 * 4 ) * 2 </answer>",
}
correct = [task.grade(problem, response).correct for response in responses.values()]
signs = [1 if c else -1 for c in correct]
balanced = [1 / correct.count(c) for c in correct]  # each side of the group shares one
pd.DataFrame({"sign": signs, "unit": 1.0, "balanced": balanced}, index=list(responses))

# %% [markdown]
# With the prompt, that is the whole data set of one iteration. It contains no reward and no advantage; the grader's
# verdict has become a sign.
#
# For the model a row is prompt and response in one sequence of tokens. The *labels* are the same tokens with −100 in
# place of the prompt, the number that `cross_entropy` ignores. So the model learns to answer and not to ask. The
# end-of-text token belongs to the response, since when to stop is part of what is learned.

# %% tags=["nbval-check-output"]
policy = load_policy()
tokenizer = policy.tokenizer
start = tokenizer(task.prompt(problem)).input_ids
ends = [tokenizer(response).input_ids + [tokenizer.eos_token_id] for response in responses.values()]
labels = [[-100] * len(start) + end for end in ends]
table = pd.DataFrame({"input": start + ends[0], "label": labels[0]})
table.insert(0, "token", [tokenizer.decode([t]) for t in table["input"]])
pd.concat([table.head(12), table.tail(2)]).T

# %% [markdown]
# The logits at a position predict the next token, so the labels are shifted by one. The signed cross-entropy is a
# few lines:


# %%
def mean_cross_entropy(row: list[int], label: list[int]) -> torch.Tensor:
    logits = policy.model(input_ids=torch.tensor([row])).logits[0, :-1]  # [L-1, V]
    return F.cross_entropy(logits, torch.tensor(label[1:]), ignore_index=-100)  # a mean over the response's tokens


with torch.no_grad():
    ce = [mean_cross_entropy(start + end, own).item() for end, own in zip(ends, labels, strict=True)]
by_hand = sum(s * w * c for s, w, c in zip(signs, balanced, ce, strict=True))
print("cross-entropy of each response:", [round(x, 3) for x in ce])
print(f"signed and balanced: {by_hand:+.3f}")

# %% [markdown]
# (The factor $1/N$ enters when gradients are added up.) A signed loss may be negative. When it falls, either right
# responses became likelier or wrong ones less likely.
#
# The library's data set is a list of such examples, and `sft_loss` is the signed cross-entropy of a padded batch. It
# shares no code with the losses of chapter 04.

# %% tags=["nbval-check-output"]
from rlino_lib.training import sft

dataset = [sft.Example(tuple(start), tuple(end), s, w) for end, s, w in zip(ends, signs, balanced, strict=True)]
inputs, label_rows, signed_weights = sft.collate(dataset, tokenizer.pad_token_id)  # [B, L], [B, L], [B]
with torch.no_grad():
    loss = sft.sft_loss(policy.model, inputs, label_rows, signed_weights)
print("labels:", all(ours[: len(own)].tolist() == own for ours, own in zip(label_rows, labels, strict=True)))
print("loss:  ", math.isclose(loss, by_hand, abs_tol=1e-5))

# %% [markdown]
# From here on `build_dataset` makes the examples from graded rollouts.
#
# ## What the weights add up to
#
# With two of four right, unit and balanced weights differ only by a factor of 2. In a group of eight with other numbers
# of right responses they differ in more. (The rules of this table, and of all toys below, are those of the library's
# `advantages`, which never sees a data set.)

# %% tags=["nbval-check-output"]
rules = {"unit": "signed", "balanced": "group_balanced", "positives": "positive", "negatives": "negative"}
G = 8
weights = {}
for k in range(G + 1):
    rewards = torch.tensor([1.0] * k + [0.0] * (G - k))  # [8]
    for name in ("unit", "balanced"):
        own = advantages(rewards, G, rules[name])  # [8]
        right, wrong = (own[0].item() if k else math.nan), (own[-1].item() if k < G else math.nan)
        weights.setdefault(k, {}).update(
            {(name, "right"): right, (name, "wrong"): wrong, (name, "sum"): own.sum().item()}
        )
pd.DataFrame.from_dict(weights, "index").rename_axis(f"right of {G}").round(3) + 0.0

# %%
from rlino_lib.figures.recorded import BASE, evaluation_of

evaluation = evaluation_of(BASE)
base_right = evaluation["found"]["pass@1"]["value"]
print(f"The base has {base_right:.1%} right. There the unit weights of a group of {G} sum to", end=" ")
print(f"{G * (2 * base_right - 1):+.1f} on average, and balanced ones to 0.")

# %% [markdown]
# *What to look at.* The two sums. Balanced weights never push the total. With unit weights and most samples wrong the
# sum is negative: over the batch, the log-likelihood of the samples, right and wrong together, is pushed *down*. But
# the policy has to put its probability somewhere. Does a negative sum then push it away from everything it knows, and
# collapse it? The next section shows that this conclusion would be a mistake.
#
# ## When does the sum matter?
#
# ### On average it cancels
#
# A weight that all responses share does nothing in expectation, as long as the responses are *on-policy*: fresh samples
# of the very policy that is updated. The reason is that probabilities sum to one:
#
# $$
# \mathbb{E}_{o\sim\pi}\big[\nabla \log \pi(o)\big] = \sum_o \pi(o)\, \frac{\nabla \pi(o)}{\pi(o)}
# = \nabla \sum_o \pi(o) = 0 .
# $$
#
# Now let each response count by $\log\pi(o)$ as a whole, without the mean over its tokens, and write $p$ for the
# probability of a right response. Adding 1 to all weights of F-ISFT⁻ makes F-ISFT⁺, so on average the two have *the
# same gradient*, $\nabla p$. Unit ± weights are their sum, $2\nabla p$. Balanced weights give
#
# $$
# \frac{\Pr(\text{mixed})}{G}\,\big( \mathbb{E}[\nabla\log\pi \mid \text{right}] -
# \mathbb{E}[\nabla\log\pi \mid \text{wrong}] \big) = \frac{1 - p^G - (1-p)^G}{G\, p(1-p)}\, \nabla p .
# $$
#
# All four climb the same hill; only the length of the step differs. To check this without a model, take a softmax over
# three responses, and every group of four that it can sample, weighted by its chance.

# %%
KINDS = ["right", "wrong", "rambling"]  # the third is wrong as well; it will be the long one


def expected_update(pi: torch.Tensor, length: torch.Tensor, rule: str, size: int = 4) -> torch.Tensor:
    """The gradient for the three logits, [3]: a mean over all groups of `size` samples of pi [3], by enumeration."""
    groups = torch.cartesian_prod(*[torch.arange(3)] * size)  # [81, 4]
    chance = pi[groups].prod(1)  # [81]
    w = advantages((groups == 0).double().flatten(), size, rules[rule]).view(-1, size)  # [81, 4]
    score = torch.eye(3).double()[groups] - pi  # [81, 4, 3], the gradient of log pi(o) for the logits
    return (chance[:, None, None] * (w / length[groups])[:, :, None] * score).sum((0, 1)) / size


# %% tags=["nbval-check-output"]
pi = torch.tensor([0.2, 0.7, 0.1]).double()
grad_p = pi[0] * (torch.eye(3).double()[0] - pi)  # [3], the gradient of the probability of a right response
same = torch.ones(3).double()
step_length = {"unit": 2, "balanced": (1 - 0.2**4 - 0.8**4) / (4 * 0.2 * 0.8), "positives": 1, "negatives": 1}
table = pd.DataFrame({rule: expected_update(pi, same, rule) / grad_p for rule in rules}, index=KINDS).T
table.assign(formula=step_length).round(4)

# %% [markdown]
# Each row is the expected update divided by $\nabla p$, logit by logit, and it is one number, that of the formula. So
# in expectation, on fresh samples, the sum of the weights is *no* condition at all.
#
# ### With a mean over tokens it does not cancel
#
# The loss above has $\mathrm{CE}_i$, the *mean* over a response's tokens, as every SFT code has it and as GRPO has it
# too. Then the shared weight is multiplied by $1/|o|$, which is not shared, and
#
# $$
# \mathbb{E}_{o\sim\pi}\Big[\frac{1}{|o|} \nabla \log \pi(o)\Big]
# = \nabla\, \mathbb{E}_{o\sim\pi}\Big[\frac{1}{|o|}\Big] \neq 0 .
# $$
#
# Training on all of one's own samples, right or wrong, makes them *shorter*. Training against all of them makes them
# *longer*: a negative sum of weights pushes towards length. Let the third response ramble on to the cap, as a sample
# does that never ends by itself:

# %%
ramble = evaluation["asked"]["max_new_tokens"] / evaluation["found"]["mean_length"]
lengths = torch.tensor([1.0, 1.0, ramble]).double()  # in units of an ordinary response
table = pd.DataFrame({rule: expected_update(pi, lengths, rule) for rule in rules}, index=KINDS).T
print(f"A rambling response is {ramble:.1f} times as long as the base's mean. Push on each logit:")
table.round(4)

# %% [markdown]
# The toy is small enough for a formula. In expectation a response counts by $f(o) = \bar w(o)/|o|$, where $\bar w(o)$
# is its mean weight over the groups in which it can appear. The push on its logit is $\pi(o)\,\big(f(o) - \sum_{o'}
# \pi(o') f(o')\big)$. Take a rambling response of probability $\varepsilon$ and length $L$ beside ordinary ones of
# length $\ell$. With unit weights the push on it is up exactly where $\pi(\text{wrong}) - p > (1-\varepsilon)\,
# \ell/L$. With $L \gg \ell$ this means: where wrong responses outnumber right ones, so where the sum of the weights is
# negative.
#
# With balanced weights the push is *never* up: the mean of $f$ is positive, and a rambling response has a negative $f$.


# %%
def mean_weights(rule: str, pi: np.ndarray, size: int = G) -> np.ndarray:
    """The mean weight of a sample of each kind, [..., 3], in groups of `size` samples of pi, [..., 3]."""
    right = np.array([1.0, 0.0, 0.0])
    p = pi[..., :1].clip(1e-9, 1 - 1e-9)
    if rule == "balanced":
        mixed = 1 - p**size - (1 - p) ** size
        return mixed / size * (right / p - (1 - right) / (1 - p))
    return {"unit": 2 * right - 1, "positives": right, "negatives": right - 1}[rule] + 0 * p


def push(rule: str, pi: np.ndarray, length: np.ndarray, size: int = G) -> np.ndarray:
    """The expected update of the three logits, [..., 3], in closed form."""
    f = mean_weights(rule, pi, size) / length
    return pi * (f - (pi * f).sum(-1, keepdims=True))


for rule in rules:
    agree = [np.allclose(push(rule, pi.numpy(), n.numpy(), 4), expected_update(pi, n, rule)) for n in (same, lengths)]
    print(f"{rule:9} closed form equals enumeration: {all(agree)}")

# %% alt="Two line plots, for responses of equal length and for longer rambling: the expected push on the logit of rambling against the share right, one line for each F-ISFT rule."
from rlino_lib.figures.curves import line_panels

method_of = {"unit": "f_isft_posneg_unit", "balanced": "f_isft_posneg"}
method_of |= {"positives": "f_isft_pos", "negatives": "f_isft_neg"}
share = np.linspace(0.005, 0.975, 195)
little = 0.02
policies = np.stack([share, 1 - little - share, np.full_like(share, little)], -1)  # [195, 3]
lines = {
    title: [(label(m), look(m), share, push(rule, policies, n.numpy())[:, 2] / little) for rule, m in method_of.items()]
    for title, n in (("all responses equally long", same), ("rambling is longer", lengths))
}
ylabel = "expected push on the logit of rambling,\nper unit of its probability"
line_panels(lines, guides=(base_right, 0), line={"marker": ""}, xlabel="share right, p", ylabel=ylabel)

# %%
turn = (1 - little) * (1 - 1 / ramble) / 2
side = "below" if base_right < turn else "above"
print(f"Unit weights push rambling up where fewer than {turn:.0%} are right;", end=" ")
print(f"the base, with {base_right:.1%}, is {side} that.")

# %% [markdown]
# *What to look at.* The sign. Where all responses are equally long, nothing is ever pushed towards rambling. With the
# mean over tokens, the line of unit weights is above 0 on the left, that of negatives alone up to about two thirds
# right, and the other two nowhere.
#
# ### From a push to a collapse
#
# Rambling may be pushed up while the right response is pushed up faster; then it is a race. To model the race the toy
# needs *generalisation*. Rambling is one and the same habit on thousands of problems. Being right differs from problem
# to problem, and is harder to learn. So give the policy two shared parameters instead of three logits: a habit moves
# the logit of rambling one to one, and a skill moves that of the right response by a factor `ease` ≤ 1. The exact
# expected update is iterated 2,000 times, first from one starting point.


# %%
def iterate(rule: str, start, ease, length: np.ndarray, updates: int = 1, steps: int = 2000) -> np.ndarray:
    """The policies [steps + 1, ..., 3] from a share right `start`; the samples serve `updates` updates each."""
    start, ease = np.broadcast_arrays(start, ease)
    base = np.log(np.stack([start, 1 - little - start, np.full_like(start, little)], -1))
    skill, habit = np.zeros_like(start), np.zeros_like(start)
    path = []
    for step in range(steps + 1):
        pi = np.exp(base + np.stack([ease * skill, np.zeros_like(skill), habit], -1))
        pi /= pi.sum(-1, keepdims=True)
        path.append(pi)
        if step % updates == 0:
            data = pi * mean_weights(rule, pi) / length  # what the samples of this policy weigh, kind by kind
        gradient = data - data.sum(-1, keepdims=True) * pi
        skill = skill + ease * gradient[..., 0]
        habit = habit + gradient[..., 2]
    return np.stack(path)


# %% alt="Two line plots against the iteration on a log scale, one line for each F-ISFT rule: the probability of a right response and that of a rambling one."
begin = 0.03
ease = 0.25
paths = {rule: iterate(rule, np.array(begin), np.array(ease), lengths.numpy()) for rule in rules}
at = np.arange(1, len(paths["unit"]) + 1)
lines = {
    f"probability of {kind}": [(label(m), look(m), at, paths[rule][:, k]) for rule, m in method_of.items()]
    for k, kind in ((0, "right"), (2, "rambling"))
}
ylabel = f"from {begin:.0%} right, ease {ease:g}"
line_panels(lines, line={"marker": ""}, xlabel="iteration", xscale="log", ylabel=ylabel)

# %% [markdown]
# *What to look at.* On the left, which lines end near 1? On the right, where did the probability go? Balanced weights
# and positives alone end right. Where a line falls to 0 on the left, the same line rises to 1 on the right: all
# probability went to rambling.
#
# One starting point proves little. Take ten shares right and eight degrees of ease; the mean over tokens and the sum;
# fresh samples at each update, and samples that serve fifty. A starting point counts as collapsed where less than half
# of its share right is left at the end.

# %%
starts = np.array([0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.45])
eases = np.array([1, 0.7, 0.5, 0.35, 0.25, 0.17, 0.12, 0.08])
collapsed = {}
for (name, length), updates in itertools.product({"mean": lengths, "sum": same}.items(), (1, 50)):
    for rule in rules:
        final = iterate(rule, starts[:, None], eases, length.numpy(), updates)[-1, ..., 0]  # [10, 8]
        collapsed.setdefault((f"{name} over tokens", updates), {})[rule] = int((final < starts[:, None] / 2).sum())
print(f"Collapsed, of {starts.size * eases.size} starting points:")
pd.DataFrame(collapsed).T.rename_axis(["", "updates on the same samples"])

# %% [markdown]
# *What to look at.* Which rows and columns are 0. In this toy collapse takes two conditions together: weights whose sum
# is negative, and a normaliser $1/|o|$ that turns this into a push towards length. With both, habit and skill race. The
# race is lost where few responses are right to begin with and where the skill is hard to move. Samples that serve many
# updates make more races lost, but only where there is a race.
#
# The toy has exact updates, no small batches and no Adam. It says which conditions suffice, not that there are no
# others.
#
# ## One iteration, with a model
#
# Now the base model of chapter 03. The batch is the first one of chapter 04's live run: the same seed and problems, and
# therefore the same samples, whatever the method.

# %%
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.trainer import Trainer

trainer = Trainer(TrainConfig(method="f_isft_posneg", prompts=16, eval_every=0), load_policy())
batch = trainer.sample(step=1)
model = trainer.model
n, size = len(batch.ids), batch.group_size
groups = batch.correct.view(-1, size).double().mean(1)  # [P], share right of each group
print(f"{n} responses to {len(batch.prompts)} prompts, {int(batch.correct.sum())} right;", end=" ")
print(f"{int(((groups > 0) & (groups < 1)).sum())} groups are mixed")


# %%
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.methods.loss import Batch, policy_loss
from rlino_lib.policy.logprobs import response_logprobs


def flat_gradient() -> torch.Tensor:
    """All parameters' gradients as one vector; the model is left without any."""
    gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    model.zero_grad()
    return gradient


logprobs, mask = response_logprobs(model, batch, torch.arange(n))  # [N, T], [N, T]
adv = advantages(batch.rewards, size)  # [N]
policy_loss(OBJECTIVES["grpo_no_kl"], Batch(logprobs, adv, mask, batch.logprobs)).loss.backward()
of_grpo = flat_gradient()

table = {}
for method in ("f_isft_pos", "f_isft_neg", "f_isft_posneg", "f_isft_posneg_unit"):
    dataset = sft.build_dataset(batch, *sft.DATASETS[OBJECTIVES[method].advantage])
    table[label(method)] = {
        "examples": len(dataset),
        "sum of weights / N": sum(example.sign * example.weight for example in dataset) / n,
        "loss": sft.accumulate_gradients(model, dataset, n, tokenizer.pad_token_id),
        "cosine with GRPO's gradient": torch.cosine_similarity(flat_gradient(), of_grpo, dim=0).item(),
    }
pd.DataFrame(table).T.round(3)

# %% [markdown]
# *What to look at.* The cosines. That of balanced F-ISFT⁺⁻ is closest to 1. The reason is that it has GRPO's signs and,
# within a group, GRPO's proportions. GRPO multiplies each group by a factor of its own, here for groups of eight:

# %% tags=["nbval-check-output"]
factors = {}
for k in range(1, G):
    rewards = torch.tensor([1.0] * k + [0.0] * (G - k)).double()  # [8]
    ratio = advantages(rewards, G, eps=0.0) / advantages(rewards, G, "group_balanced")  # [8]
    assert torch.allclose(ratio, ratio[0])  # one factor for right and wrong
    closed = math.sqrt((G - 1) / G) * G * math.sqrt(k / G * (1 - k / G))
    factors[k] = {"GRPO / balanced": ratio[0].item(), "√((G−1)/G) · G √(p(1−p))": closed}
pd.DataFrame(factors).round(4)

# %% [markdown]
# So the two differ by a curve over difficulty, $\sqrt{p(1-p)}$, and by nothing else. Chapter 06 makes an equality of
# this, to machine precision, and looks for what breaks it.
#
# ### Does the sum cancel in a real model?
#
# The toy made a prediction that can be tested here. Sample once more, and split all responses into eight batches. Let
# every response count +1, right or wrong. With a *sum* over tokens the expected gradient is 0: the cosine of two
# batches' gradients is as often negative as positive. With a *mean* over tokens there is a part that they all share.

# %%
parts = [(each, rows) for each in (batch, trainer.sample(step=2)) for rows in torch.arange(n).split(n // 4)]
for name in ("sum over tokens", "mean over tokens"):
    gradients = []
    for each, rows in parts:
        logprobs, mask = response_logprobs(model, each, rows)  # [B, T], [B, T]
        tokens = mask.sum(1) if name.startswith("mean") else torch.ones(len(rows))  # [B]
        ((logprobs * mask).sum(1) / tokens).mean().backward()
        gradients.append(flat_gradient())
    own = torch.tensor([torch.cosine_similarity(*pair, dim=0) for pair in itertools.combinations(gradients, 2)])
    print(f"{name}: mean cosine {own.mean():+.2f}, {(own > 0).double().mean():.0%} of {len(own)} pairs above 0")

# %% [markdown]
# *What to look at.* Both numbers of both lines. The sum's cosines are centred near 0 and the mean's are not, as
# predicted.
#
# ## Training, live
#
# The configuration of chapter 04's live run, with one word changed: the method.

# %%
import tempfile

from rlino_lib.analysis.statistics import bootstrap_interval
from rlino_lib.evaluation.evaluate import evaluate
from rlino_lib.training.run import train
from rlino_lib.widgets import LivePlot

live = TrainConfig(method="f_isft_posneg", prompts=16, steps=12, lr=3e-4, eval_every=0)
policy = load_policy()
validation = task.problems("validation", 256)
before = evaluate(policy, task, validation, samples=2)
plot = LivePlot(live.steps, ("reward", ("length/correct", "length/incorrect"), "entropy"), title=label(live.method))
plot.show()
with tempfile.TemporaryDirectory() as folder:
    train(live, Path(folder) / "live", on_step=plot.update, policy=policy)

# %%
after = evaluate(policy, task, validation, samples=2)
change = 100 * (after["c"] / after["n"] - before["c"] / before["n"])  # one number per problem
low, high = bootstrap_interval(change)
print(f"right before: {before['c'].sum() / before['n'].sum():.1%}, after: {after['c'].sum() / after['n'].sum():.1%}")
print(f"change: {change.mean():+.1f} points, 95 % interval over problems {low:+.1f} to {high:+.1f}")

# %% [markdown]
# *What to look at.* Compare chapter 04's figure: can you tell which of the two runs was the supervised one? Nothing
# in the curves gives it away.
#
# ## The recorded runs
#
# All variants beside GRPO, from the same base, with the same problems and sampling seeds, for much longer. `make runs`
# makes them.

# %% alt="Line plot: share of right answers on held-out problems against optimiser steps, one line for each method; a mean over seeds with a band."
from rlino_lib.figures.curves import curve_panels, learning_curves
from rlino_lib.records.runs import list_runs, metrics_frame

runs = list_runs("countdown")
frame = metrics_frame(runs)
settings = runs[0].config
learning_curves(frame, "eval/accuracy", title=f"{settings['eval_split']} split, {settings['eval_problems']:,} problems")

# %% [markdown]
# *What to look at.* Which lines part from GRPO's by more than the seeds of one method part from each other? Does any
# fall below step 0, the base? Only F-ISFT⁻ does both: it rises at first and then falls. F-ISFT⁺ ends a little below
# the bundle.

# %% alt="Two line plots against optimiser steps, one line for each method: the share of truncated responses and the share of well-formed ones."
window = settings["steps"] // 20
curve_panels(frame, {"completions/clipped_ratio": "", "format_ok": ""}, smooth=window)

# %% [markdown]
# *What to look at.* Format and cap together. A truncated response has no answer, so its format is wrong. The two curves
# mirror each other: what spoils the format is rambling, and not bad answers. (Chapter 08 has the lengths.)
#
# ### Against the toy
#
# The toy has a prediction for each rule at the base's share right: is rambling pushed up or down? The records have
# the share of truncated samples.

# %%
when = pd.cut(frame["step"], [0, window, settings["steps"] - window, settings["steps"]], labels=["first", "", "last"])
truncated = frame.groupby([frame["method"], when], observed=True)["completions/clipped_ratio"].mean().unstack()
truncated = truncated.loc[in_order(truncated.index), ["first", "last"]].rename_axis(columns=None)
here = np.array([base_right, 1 - little - base_right, little])  # the toy's policy at the base's share right
toy = {m: "up" if push(rule, here, lengths.numpy())[2] > 0 else "down" for rule, m in method_of.items()}
print(f"Share truncated in the first and the last {window} steps:")
truncated.assign(**{"the toy": truncated.index.map(toy).fillna("")}).rename(index=label).round(3)

# %%
tested = truncated.loc[list(toy)].assign(toy=pd.Series(toy))
wrong_way = tested.index[(tested["last"] > tested["first"]) != (tested["toy"] == "up")]
up, down = (tested.loc[tested["toy"] == way, "last"] for way in ("up", "down"))
say(
    f"Direction: the toy is {'wrong for ' + ', '.join(map(label, wrong_way)) if len(wrong_way) else 'right for all'}. "
    f"Order: the rules that it pushes up are {'all' if up.min() > down.max() else 'not all'} truncated more often than "
    "the rest."
)

# %% [markdown]
# The toy's rambling response never gets anything for its length. In the game, going on is also another attempt, which
# may turn a wrong response into a right one. A rise of the share truncated under *every* method points to that, or to
# other causes of length, which chapter 08c takes one at a time. What the weights add shows in the differences between
# methods.
#
# ### Where the runs ended
#
# The paper's accuracies are one number per model, without seeds or intervals, and reached us through summaries
# (`data/paper/README.md` says how sure each is). Its models, prompts and test problems are others. So do not compare
# levels, but the order, and each method's distance to GRPO. The paper's one F-ISFT⁺⁻ appears in both rows. A difference
# is taken within a seed, and the interval is over seeds. We call a run *collapsed*
# if it ends with less than half of the base's share right.

# %%
from rlino_lib.analysis.tables import in_brackets, paper_results
from rlino_lib.figures.recorded import measured, outcomes

say(measured(runs))
ended = outcomes(runs)
base = 100 * ended.loc[ended["method"] == "base", "accuracy"].item()
right = 100 * ended[ended["method"] != "base"].pivot(index="method", columns="seed", values="accuracy")
right = right.loc[in_order(right.index)]
gap = right.sub(right.loc["grpo"], axis=1).drop(index="grpo")  # points, each seed against GRPO's run of the same seed
theirs = paper_results()["countdown"]
their_gap = theirs.sub(theirs.loc["grpo"]).drop(index="grpo")
print(f"The base has {base:.1f} % right. Points are means with their 95 % interval.")
ends = {"right, %": right.mean(axis=1).map("{:.1f}".format)}
ends["points from the base"] = (right - base).apply(in_brackets, axis=1)
ends["points to GRPO"] = gap.apply(in_brackets, axis=1)
ends["collapsed seeds"] = (right < base / 2).sum(axis=1)
ends |= {f"to GRPO, paper, {model}": values.map("{:+.1f}".format) for model, values in their_gap.items()}
pd.DataFrame(ends).loc[right.index].rename(index=label).replace("+nan", "–").fillna("–")

# %% alt="Points above or below GRPO in percentage points, a row for each method: left the seeds recorded here, right the paper's models."
from rlino_lib.figures.seeds import beside_figure

by_seed = dict(gap.add_prefix("seed ").items())
by_model = dict(their_gap.loc[gap.index].items())
beside_figure({"here": (by_seed, None), "paper: one run a model, weights of ⁺⁻ unknown": (by_model, None)})

# %% [markdown]
# *What to look at.* Is the order of the methods the same in both panels, and how far apart are the seeds of one method
# on the left? It is not: F-ISFT⁺ is below GRPO here, and above it with the paper's smaller model. F-ISFT⁻ is last in
# both. The seeds of the others lie about as far apart as the methods do. Chapter 07 tests
# whether methods are equal.
#
# ### What a failed run looks like
#
# Token by token: the run that ended lowest, at its first recorded step and at its last. Each fold is a whole group,
# and the colours are the weights that the optimiser used.

# %%
from rlino_lib.widgets import trace_inspector

method, seed = right.stack().idxmin()
worst = next(run for run in runs if run.method == method and run.seed == seed)
often = worst.metrics["completions/clipped_ratio"].tail(window).mean()
print(
    f"{label(method)}, seed {seed}: {right.loc[method, seed]:.1f} % right at the end; of the samples of its last",
    end=" ",
)
print(f"{window} steps {often:.0%} were truncated.")
steps = sorted(set(worst.rollouts["step"]))
trace_inspector(worst, steps=[steps[0], steps[-1]])

# %% [markdown]
# *What to look at.* Does a late response fail by saying something else, or by not coming to an end? Most do not end.
#
# ## What the paper says, and what was found here
#
# The paper says that F-ISFT⁺⁻ does as well as GRPO, that F-ISFT⁺ stays below it on Countdown at 1.5B, and that F-ISFT⁻
# fails there altogether. Here, by the intervals over seeds:

# %%
from rlino_lib.claims.verdicts import mean_in_words, verdict_above_zero

WORDS = {"holds": "above", "does not hold here": "below", "undecided": "not told from"}
for method, values in gap.iterrows():
    side = WORDS[verdict_above_zero(values)]
    learned = WORDS[verdict_above_zero(right.loc[method] - base)]
    say(f"{label(method)} ended {side} GRPO ({mean_in_words(values)}), and {learned} the base.")
print("Learning rates of these runs:", ", ".join(sorted({f"{run.config['lr']:g}" for run in runs})))


# %% [markdown]
# All methods had one learning rate here, the one that suits GRPO; chapter 07 gives each method its own.
#
# So, to the question: yes, the run is supervised learning. As to the weights, the usual warning (a negative sum pushes
# everything down) has the sign right. As far as the toy and the cosines can tell, it has the reason wrong: on on-policy
# samples a common weight cancels. What does not cancel is its product with $1/|o|$, and that pushes towards length.
#
# ## Exercises
#
# **1. Balanced weights.** `my_balanced(correct)`: the verdicts of one group in, signed weights out. Each side sums to
# ±1, and a group that is not mixed has weight 0.


# %%
from checkers.isft import check_balanced_weights, check_signed_ce


def my_balanced(correct): ...


_ = check_balanced_weights(my_balanced)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_balanced(correct):
#     k, n = sum(correct), len(correct)
#     if k in (0, n):
#         return [0.0] * n
#     return [1 / k if c else -1 / (n - k) for c in correct]
# ```
#
# </details>
#
# **2. Signed cross-entropy.** `my_signed_ce(logits, labels, signs)`, shapes [B, L, V], [B, L] and [B]: the sum over
# rows of the sign times the mean cross-entropy of the row. The logits at a place already belong to the label at that
# place; labels of −100 count nowhere, not even in the mean.


# %%
def my_signed_ce(logits, labels, signs): ...


_ = check_signed_ce(my_signed_ce)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_signed_ce(logits, labels, signs):
#     ce = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")  # [B, L], 0 where the label is -100
#     return (signs * ce.sum(1) / (labels != -100).sum(1)).sum()
# ```
#
# </details>


# %% [markdown]
# **3. A question.** On fresh samples, and without the mean over tokens, F-ISFT⁺ and F-ISFT⁻ have the same expected
# gradient. Suppose that 1 % of the samples are right. You may draw 1,000 samples and make one update. Which of the
# two would you choose, and why? And at 99 %?
#
# <details><summary>Solution</summary>
#
# The expectation is the same, the noise is not. At 1 % right, F-ISFT⁺ adds about ten terms $\nabla\log\pi(o)$.
# F-ISFT⁻ adds about 990, nearly all of which only cancel each other. If all $\nabla\log\pi(o)$ are about equally
# long, the variance is proportional to the number of terms. So F-ISFT⁻ is about a hundred times noisier: choose
# F-ISFT⁺. At 99 % it is the other way round.
#
# A weight common to all responses changes the noise and not the mean, which is what a *baseline* is. Subtracting the
# share right from the rewards 1 and 0 gives balanced weights up to a factor for each group, and their noise is close to
# the smaller of the two at either end.
#
# </details>
#
# ## Summary
#
# - F-ISFT is supervised learning on the policy's own graded samples. Its weights are part of the method, and the paper,
#   as far as we know it, leaves them open.
#
# Claims settled here:
#
# - **Same hill.** On fresh samples, with a sum over tokens, F-ISFT⁺, F-ISFT⁻ and both kinds of F-ISFT⁺⁻ have
#   expected gradients that are positive multiples of $\nabla p$. *Holds*: by algebra, and by enumeration.
# - **A negative sum means collapse.** *Does not hold* as it stands: in expectation the sum cancels. In the toy it
#   takes a mean over tokens as well, and even then it is a race between a skill and the habit of going on.
# - **Balanced weights are GRPO's up to a factor for each group**, $\sqrt{p(1-p)}$ times a constant. *Holds*, on
#   every mixed group of eight.
#
# Open:
#
# - Whether F-ISFT⁺⁻ and GRPO are *equivalent* on Countdown, within a margin that is set in advance:
#   `posneg-countdown` is undecided (chapter 07).
#
# Answered later:
#
# - What happens when the samples of an iteration serve many updates: chapters 06 and 07. There balanced F-ISFT⁺⁻
#   collapses too, as this toy never does.
# - Whether taking $1/|o_i|$ away stops the drift to length in a real run, as it does in the toy: chapter 08c.
