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
# iteration. With weights that are balanced within each group, this is GRPO up to a factor for each group. Weights
# whose sum is negative do not collapse for that reason alone: it takes a mean over tokens as well, and a habit of
# going on that grows faster than the skill. In the ledger: `balanced` holds.
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
# The first variant has older names. One iteration of it is *rejection sampling*: sample, and keep only what the
# verifier accepts. To repeat it with the improved policy is *expert iteration*. The loss of an iteration is a signed,
# weighted cross-entropy,
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
import dataclasses
import itertools
import math
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from rlino_lib.figures.recorded import say
from rlino_lib.figures.style import LENGTHS, label, look, style
from rlino_lib.methods.advantages import advantages
from rlino_lib.policy.models import load_policy
from rlino_lib.tasks import Countdown
from rlino_lib.tasks.countdown.game import make_problem

style()

# %% [markdown]
# ## Four rollouts become a data set
#
# The group of chapter 04, written by hand: two right responses, two wrong ones.

# %% tags=["nbval-check-output"]
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
correct = [task.grade(problem, response).correct for response in responses]
signs = [1 if c else -1 for c in correct]
balanced = [1 / correct.count(c) for c in correct]  # each side of the group shares one
by_hand = pd.DataFrame({"prompt": task.prompt(problem), "sign": signs, "unit": 1.0, "balanced": balanced}, index=names)
by_hand

# %% [markdown]
# That is the whole data set of one iteration: prompt, response, sign, weight. It contains no reward and no
# advantage; the grader's verdict has become a sign.
#
# For the model a row is prompt and response in one sequence of tokens. The *labels* are the same tokens with −100 in
# place of the prompt, the number that `cross_entropy` ignores. So the model learns to answer and not to ask. The
# end-of-text token belongs to the response, since when to stop is part of what is learned.

# %% tags=["nbval-check-output"]
policy = load_policy()
tokenizer = policy.tokenizer
start = tokenizer(task.prompt(problem)).input_ids
rows = [start + tokenizer(response).input_ids + [tokenizer.eos_token_id] for response in responses]
labels = [[-100] * len(start) + row[len(start) :] for row in rows]
table = pd.DataFrame({"token": [tokenizer.decode([t]) for t in rows[0]], "input": rows[0], "label": labels[0]})
pd.concat([table.head(12), table.tail(2)]).T

# %% [markdown]
# The logits at a position predict the next token, so the labels are shifted by one. The signed cross-entropy is a
# few lines:


# %%
import torch.nn.functional as F


def mean_cross_entropy(row: list[int], label: list[int]) -> torch.Tensor:
    logits = policy.model(input_ids=torch.tensor([row])).logits[0, :-1]  # [L-1, V]
    return F.cross_entropy(logits, torch.tensor(label[1:]), ignore_index=-100)  # a mean over the response's tokens


with torch.no_grad():
    ce = torch.stack([mean_cross_entropy(row, label) for row, label in zip(rows, labels, strict=True)])  # [N]
signed = torch.tensor(signs) * torch.tensor(balanced)  # [N]
loss_by_hand = (signed * ce).sum()
print("cross-entropy of each response:", [round(x, 3) for x in ce.tolist()])
print(f"signed and balanced: {loss_by_hand:+.3f}")

# %% [markdown]
# (The factor $1/N$ enters when gradients are added up.) A signed loss may be negative. When it falls, either right
# responses became likelier or wrong ones less likely. It says even less about progress than GRPO's logged loss.
#
# The library does the same in two steps. `build_dataset` makes the examples from graded rollouts, and `sft_loss` is the
# signed cross-entropy of a padded batch. It shares no code with the losses of chapter 04. To feed it, we pack the four
# responses as if they had been sampled:

# %%
from rlino_lib.policy.rollouts import Rollouts

counts = torch.tensor([len(row) - len(start) for row in rows])  # [N], tokens of each response
mask = torch.arange(counts.max()) < counts[:, None]  # [N, T]
ids = torch.zeros(mask.shape, dtype=torch.long)  # [N, T], padded with 0
ids[mask] = torch.tensor([t for row in rows for t in row[len(start) :]])
rollouts = Rollouts(
    prompts=[task.prompt(problem)],
    prompt_ids=torch.tensor([start]),
    prompt_mask=torch.ones(1, len(start)).bool(),
    ids=ids,
    mask=mask,
    logprobs=torch.zeros(mask.shape),  # nothing below reads these three
    entropies=torch.zeros(mask.shape),
    truncated=torch.zeros(len(rows)).bool(),
    texts=responses,
    group_size=4,
).grade(task, [problem])

# %% tags=["nbval-check-output"]
from rlino_lib.training import sft

dataset = sorted(sft.build_dataset(rollouts, "posneg", "group_balanced"), key=lambda example: example.row)
inputs, label_rows, signed_weights = sft.collate(dataset, tokenizer.pad_token_id)  # [B, L], [B, L], [B]
with torch.no_grad():
    loss = sft.sft_loss(policy.model, inputs, label_rows, signed_weights)
print("sequences:", [list(e.prompt_ids + e.response_ids) for e in dataset] == rows)
print("signs:    ", [e.sign for e in dataset] == signs)
print("weights:  ", [e.weight for e in dataset] == balanced)
print("labels:   ", all(ours[: len(own)].tolist() == own for ours, own in zip(label_rows, labels, strict=True)))
print("loss:     ", torch.isclose(loss, loss_by_hand, atol=1e-5).item())

# %% [markdown]
# Every part is equal. From here on the data sets come from `build_dataset`.
#
# ## What the weights add up to
#
# With two of four right, unit and balanced weights differ only by a factor of 2. In a group of eight with other
# numbers of right responses they differ in more. (The rules of this table, and of all toys below, are those of the
# library's `advantages`, which never sees a data set.)

# %% tags=["nbval-check-output"]
rules = {"unit": "signed", "balanced": "group_balanced", "positives": "positive", "negatives": "negative"}
G = 8
lines = []
for k in range(G + 1):
    rewards = torch.tensor([1.0] * k + [0.0] * (G - k))  # [8]
    w = {name: advantages(rewards, G, rules[name]) for name in ("unit", "balanced")}  # [8] each
    line = {"right of 8": k}
    for name, own in w.items():
        line |= {f"{name}: right": own[0].item() if k else math.nan}  # nan: there is no such response
        line |= {f"{name}: wrong": own[-1].item() if k < G else math.nan}
        line[f"{name}: sum"] = own.sum().item()
    lines.append(line)
weights = pd.DataFrame(lines).set_index("right of 8").round(3) + 0.0
weights

# %% alt="Two line plots, a line for each F-ISFT rule. One shows the weight of a response by how many of its group are right, the other the sum of a group's weights by the share right, with the base's share marked."
from rlino_lib.figures.isft import weights_figure
from rlino_lib.folders import read_json
from rlino_lib.paths import DEFAULT_BASE

evaluation = read_json(Path(DEFAULT_BASE) / "evaluation.json")
base_right = evaluation["found"]["pass@1"]["value"]
p = np.linspace(0, 1, 101)
totals = {"f_isft_posneg_unit": G * (2 * p - 1), "f_isft_posneg": 0 * p, "f_isft_pos": G * p, "f_isft_neg": G * (p - 1)}
weights_figure(weights, p, totals, base_right)

# %%
print(f"The base has {base_right:.1%} right. There the unit weights of a group of {G} sum to", end=" ")
print(f"{G * (2 * base_right - 1):+.1f} on average, and balanced ones to 0.")

# %% [markdown]
# *What to look at.* On the right, where do the lines cross 0? With unit weights and most samples wrong the sum is
# negative: added up over the batch, the log-likelihood of the samples, right and wrong together, is pushed *down*. But
# the policy has to put its probability somewhere. Balanced weights never push the total. Positives alone always push it
# up, negatives alone always down.
#
# Does a negative sum then push the policy away from everything it knows, and collapse it? The next section shows that
# this conclusion would be a mistake.
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
# in expectation, on fresh samples, the sum of the weights is *no* condition at all. Neither F-ISFT⁻ nor unit weights
# can collapse this policy.
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
# *longer*. A negative sum of weights does not push into nowhere; it pushes towards length. Let the third response
# ramble on to the cap, as a sample does that never ends by itself:

# %%
ramble = evaluation["asked"]["max_new_tokens"] / evaluation["found"]["mean_length"]
lengths = torch.tensor([1.0, 1.0, ramble]).double()  # in units of an ordinary response
table = pd.DataFrame({rule: expected_update(pi, lengths, rule) for rule in rules}, index=KINDS).T
print(f"A rambling response is {ramble:.1f} times as long as the base's mean. Push on each logit:")
table.round(4)

# %% [markdown]
# The toy is small enough for a formula. In expectation a response counts by $f(o) = \bar w(o)/|o|$. Here $\bar w(o)$
# is the mean weight of a sample of that kind over the groups in which it can appear. The push on the logit of $o$ is
# $\pi(o)\,\big(f(o) - \sum_{o'} \pi(o') f(o')\big)$. Take a rambling response of probability $\varepsilon$ and
# length $L$ beside ordinary ones of length $\ell$. With unit weights the push on it is up exactly where
#
# $$
# \pi(\text{wrong}) - p \; > \; (1-\varepsilon)\, \frac{\ell}{L} .
# $$
#
# With $L \gg \ell$ this means: where wrong responses outnumber right ones, so where the sum of the weights is
# negative.
#
# With balanced weights the push is *never* up. The weights of the right side sum to $+\Pr(\text{mixed})/G$, and
# those of the wrong side to the negative of it. Rambling responses are wrong, so their part of the negative total is
# divided by a larger length. Hence the mean of $f$ is positive wherever rambling exists. A rambling response has a
# negative $f$, below that mean. So its logit is pushed down.


# %%
def mean_weights(rule: str, pi: np.ndarray, size: int = 8) -> np.ndarray:
    """The mean weight of a sample of each kind, [..., 3], in groups of `size` samples of pi, [..., 3]."""
    right = np.array([1.0, 0.0, 0.0])
    p = pi[..., :1].clip(1e-9, 1 - 1e-9)
    if rule == "balanced":
        mixed = 1 - p**size - (1 - p) ** size
        return mixed / size * (right / p - (1 - right) / (1 - p))
    return {"unit": 2 * right - 1, "positives": right, "negatives": right - 1}[rule] + 0 * p


def push(rule: str, pi: np.ndarray, length: np.ndarray, size: int = 8) -> np.ndarray:
    """The expected update of the three logits, [..., 3], in closed form."""
    f = mean_weights(rule, pi, size) / length
    return pi * (f - (pi * f).sum(-1, keepdims=True))


# %% tags=["nbval-check-output"]
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
# A push up is not yet a collapse. Rambling may be pushed up while the right response is pushed up faster; then it is
# a race. To model the race the toy needs *generalisation*. A model answers thousands of different problems. Rambling
# is one and the same habit on all of them. Being right differs from problem to problem, and is harder to learn. So
# give the policy two shared parameters instead of three logits. A habit moves the logit of rambling on all problems
# one to one. A skill moves that of the right response by a factor `ease` ≤ 1. The exact expected update is iterated
# 2,000 times, first from one starting point.


# %%
def iterate(
    rule: str, start: np.ndarray, ease: np.ndarray, length: np.ndarray, updates: int = 1, steps: int = 2000
) -> np.ndarray:
    """The policies [steps + 1, ..., 3] from a share right `start`; the samples serve `updates` updates each."""
    start, ease = np.broadcast_arrays(start, ease)
    base = np.log(np.stack([start, 1 - little - start, np.full_like(start, little)], -1))
    skill = np.zeros_like(start)
    habit = np.zeros_like(start)
    path = []
    for step in range(steps + 1):
        logits = base + np.stack([ease * skill, np.zeros_like(skill), habit], -1)
        pi = np.exp(logits - logits.max(-1, keepdims=True))
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
# *What to look at.* On the left, which lines end near 1, and do the others end near 0? On the right, where did the
# probability go? Balanced weights and positives alone end right. Where a line falls to 0 on the left, the same line
# rises to 1 on the right: all probability went to rambling.
#
# One starting point proves little. Take many: ten shares right and eight degrees of ease; the mean over tokens and the
# sum; fresh samples at each update, and samples that serve fifty. A starting point counts as collapsed where less than
# half of its share right is left at the end.

# %%
starts = np.array([0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.45])
eases = np.array([1, 0.7, 0.5, 0.35, 0.25, 0.17, 0.12, 0.08])
conditions = {
    "mean over tokens": (lengths, 1),
    "mean over tokens, samples serve 50 updates": (lengths, 50),
    "sum over tokens": (same, 1),
    "sum over tokens, samples serve 50 updates": (same, 50),
}
final, collapsed = {}, {}
for (condition, (length, updates)), rule in itertools.product(conditions.items(), rules):
    final[condition, rule] = iterate(rule, starts[:, None], eases, length.numpy(), updates)[-1, ..., 0]  # [10, 8]
    collapsed[condition, rule] = int((final[condition, rule] < starts[:, None] / 2).sum())
counted = pd.Series(collapsed).unstack()[list(rules)].loc[list(conditions)]
print(f"Collapsed, of {starts.size * eases.size} starting points:")
counted

# %% alt="Heat maps, one for each F-ISFT rule: the share right at the end, by the share right at the start and by the ease of the skill."
from rlino_lib.figures.isft import ends_figure

ends_figure({method_of[rule]: final["mean over tokens", rule] for rule in rules}, starts, eases)

# %% [markdown]
# *What to look at.* Down each panel more responses are right to begin with; to the left the skill is easier to move.
# A dark cell has few right responses at the end. Is that collapse, or slow learning?

# %%
for rule in rules:
    grew = final["mean over tokens", rule] / starts[:, None]  # [10, 8]
    print(f"{rule:9} mean over tokens: {int((grew < 1).sum())} end below the start, the lowest {grew.min():.2f} of it")
summed = counted.loc[[c for c in conditions if c.startswith("sum")]].to_numpy().sum()
print(f"with a sum over tokens: {summed} collapses, all rules and starting points together")

# %% [markdown]
# It is collapse under unit weights and under negatives alone; under the other two rules the dark cells are slow. So in
# this toy collapse takes two conditions together: weights whose sum is negative, and a normaliser $1/|o|$ that turns
# this into a push towards length. Without either one it does not happen. With both, habit and skill race. The race is
# lost where few responses are right to begin with and where the skill is hard to move. Samples that serve many updates
# make more races lost, but only where there is a race.
#
# The toy has exact updates, and no small batches, no Adam and no tokens. With these there may be other ways to fall. It
# says which conditions suffice, not that there are no others.
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
pad = tokenizer.pad_token_id
n = len(batch.ids)
size = batch.group_size
mixed = batch.correct.view(-1, size).double().mean(1)  # [P], share right of each group
print(f"{n} responses to {len(batch.prompts)} prompts, {int(batch.correct.sum())} right;", end=" ")
print(f"{int(((mixed > 0) & (mixed < 1)).sum())} groups are mixed")


# %%
from rlino_lib.methods.catalogue import LABELS, OBJECTIVES
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
    loss = sft.accumulate_gradients(model, dataset, n, pad)
    own = flat_gradient()
    accepted = sum(example.sign > 0 for example in dataset)
    table[label(method)] = {
        "accepted": accepted,
        "rejected": len(dataset) - accepted,
        "sum of weights / N": sum(example.sign * example.weight for example in dataset) / n,
        "loss": loss,
        "gradient norm": own.norm().item(),
        "norm / GRPO's": (own.norm() / of_grpo.norm()).item(),
        "cosine with GRPO's": torch.cosine_similarity(own, of_grpo, dim=0).item(),
    }
iteration = pd.DataFrame(table).T.astype({"accepted": int, "rejected": int})
iteration.round(3)

# %%
close = iteration["cosine with GRPO's"]
print(f"On this batch the gradient closest to GRPO's is that of {close.idxmax()} (cosine {close.max():.3f}),")
print(f"the farthest that of {close.idxmin()} (cosine {close.min():.3f}).")

# %% [markdown]
# Two gradients of one batch may differ because the methods differ or because the batch is small. For one pair the
# answer is known: balanced F-ISFT⁺⁻ and GRPO have the same signs and, within a group, the same proportions. GRPO
# multiplies each group by a factor of its own, here for groups of eight:

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
# So the two differ by a curve over difficulty, $\sqrt{p(1-p)}$, and by nothing else. If all mixed groups were
# equally hard, the cosine would be 1. Chapter 06 makes an equality of this, to machine precision, and looks for what
# breaks it.
#
# ### Does the sum cancel in a real model?
#
# The toy made a prediction that can be tested here. Sample once more, and split all responses into eight batches.
# Let every response count +1, right or wrong. With a *sum* over tokens the expected gradient is 0: the gradients of
# the batches are noise, and the cosine of two of them is as often negative as positive. With a *mean* over tokens
# there is a systematic part that they all share.

# %%
parts = [(each, rows) for each in (batch, trainer.sample(step=2)) for rows in torch.arange(n).split(n // 4)]
lines = []
for name in ("sum over tokens", "mean over tokens"):
    gradients = []
    for each, rows in parts:
        logprobs, mask = response_logprobs(model, each, rows)  # [B, T], [B, T]
        tokens = mask.sum(1) if name.startswith("mean") else torch.ones(len(rows))  # [B]
        ((logprobs * mask).sum(1) / tokens).mean().backward()
        gradients.append(flat_gradient())
    for one, other in itertools.combinations(gradients, 2):
        lines.append((name, torch.cosine_similarity(one, other, dim=0).item()))
cosines = pd.DataFrame(lines, columns=["each response counts by", "cosine of two batches' gradients"])

# %% alt="Points in two rows, for a sum and for a mean over tokens: cosines of two batches' gradients, from −1 to 1."
from rlino_lib.figures.isft import cosines_figure

cosines_figure(cosines)

# %%
for name, own in cosines.groupby(cosines.columns[0])[cosines.columns[1]]:
    print(f"{name}: mean cosine {own.mean():+.2f}, {(own > 0).mean():.0%} of {len(own)} pairs above 0")

# %% [markdown]
# *What to look at.* Where does each of the two clouds lie? The sum's is centred near 0 and the mean's is not, as
# predicted. (With all responses weighing +1 the shared part is a push towards shorter responses; with all at −1,
# towards longer ones.)
#
# ## Training, live
#
# The configuration of chapter 04's live run, with one word changed: the method. Seed, problems, number of samples
# and optimiser are the same.

# %%
from rlino_lib.analysis.statistics import bootstrap_interval
from rlino_lib.evaluation.evaluate import evaluate

live = TrainConfig(method="f_isft_posneg", prompts=16, steps=12, lr=3e-4, eval_every=0)
policy = load_policy()
validation = task.problems("validation", 256)
before = evaluate(policy, task, validation, samples=2)

# %%
from rlino_lib.training.run import train
from rlino_lib.widgets import LivePlot

panels = ("reward", ("length/correct", "length/incorrect"), "entropy")
plot = LivePlot(live.steps, panels, title=label(live.method))
plot.show()
with tempfile.TemporaryDirectory() as folder:
    train(live, Path(folder) / "live", on_step=plot.update, policy=policy)

# %%
after = evaluate(policy, task, validation, samples=2)
change = after["c"] / after["n"] - before["c"] / before["n"]  # one number per problem
low, high = bootstrap_interval(change)
verdict = "excludes 0" if low > 0 or high < 0 else "contains 0, so that this run alone does not tell"
print(f"right before: {before['c'].sum() / before['n'].sum():.1%}, after: {after['c'].sum() / after['n'].sum():.1%}")
print(f"change: {100 * change.mean():+.1f} points,", end=" ")
print(f"95 % interval over problems {100 * low:+.1f} to {100 * high:+.1f}, which {verdict}.")

# %% [markdown]
# *What to look at.* Compare chapter 04's figure: can you tell which of the two runs was the supervised one? Nothing
# in the curves gives it away.
#
# Now the unit weights, on half as many prompts per step. `guard="warn"` lets the run go on where the guard rails of
# chapter 04 would stop it.

# %%
short = dataclasses.replace(live, method="f_isft_posneg_unit", steps=10, prompts=8, guard="warn")
unit_plot = LivePlot(short.steps, (*panels[:2], "completions/clipped_ratio"), title=label(short.method))
unit_plot.show()
with tempfile.TemporaryDirectory() as folder:
    unit_run = train(short, Path(folder) / "unit", on_step=unit_plot.update)
    warnings = unit_run.summary["warnings"]

# %%
watched = {"accuracy": "right", "completions/clipped_ratio": "truncated", "entropy": "entropy, nats per token"}
ends = {}
for name, history in ((label(live.method), plot.history), (label(short.method), unit_plot.history)):
    for when, part in (("first five steps", history.head(5)), ("last five steps", history.tail(5))):
        ends[name, when] = part[list(watched)].mean()
print("\n".join(warnings) or "No guard rail spoke up.")
pd.DataFrame(ends).T.rename(columns=watched).round(3)

# %% [markdown]
# *What to look at.* Do unit weights send more responses to the cap than balanced ones, with fewer right ones?

# %%
gained = {name: pd.DataFrame(ends).T.loc[name].diff().iloc[-1] for name in (label(live.method), label(short.method))}
for name, more in gained.items():
    say(
        f"{name}: from the first to the last five steps the share truncated changes by "
        f"{100 * more['completions/clipped_ratio']:+.1f} points and the share right by {100 * more['accuracy']:+.1f}."
    )

# %% [markdown]
# A short run of one seed shows what can happen. What does happen is in the records.
#
# ## The recorded runs
#
# All variants beside GRPO, from the same base, with the same problems and sampling seeds, for much longer. The first
# command makes one of the runs, the second all of them.

# %%
import shlex

from rlino_lib.records.runs import list_runs, metrics_frame
from rlino_lib.training.grid_file import command_line

runs = sorted(list_runs("countdown"), key=lambda run: (list(LABELS).index(run.method), run.seed))
example = next(run for run in runs if OBJECTIVES[run.method].update == "supervised")
defaults = {f.name: f.default for f in dataclasses.fields(TrainConfig)}
known = {k: v for k, v in example.config.items() if k in defaults and k not in ("model", "task_settings")}
chosen = {k: v for k, v in known.items() if v != defaults[k] or k in ("method", "seed", "lr", "steps")}
print(shlex.join(["rlino", *command_line(chosen, Path("data/runs") / example.name)]))
print("make runs")

# %% alt="Line plot: share of right answers on held-out problems against optimiser steps, one line for each method; a mean over seeds with a band."
from rlino_lib.figures.curves import curve_panels, learning_curves, length_curves

frame = metrics_frame(runs)
settings = runs[0].config
learning_curves(frame, "eval/accuracy", title=f"{settings['eval_split']} split, {settings['eval_problems']:,} problems")

# %% [markdown]
# *What to look at.* Which lines part from GRPO's by more than the seeds of one method part from each other? Does any
# fall below step 0, the base? Only F-ISFT⁻ does both: it rises at first and then falls. F-ISFT⁺ ends a little below
# the bundle.

# %% alt="Four line plots against optimiser steps, one line for each method: entropy, share of well-formed responses, share of truncated responses, and norm of the gradient."
window = max(1, settings["steps"] // 20)
wanted = ["entropy", "format_ok", "completions/clipped_ratio", "grad_norm"]
curve_panels(frame, dict.fromkeys(wanted, ""), smooth=window)

# %% [markdown]
# *What to look at.* Format and cap together. In this task a truncated response has no answer, so its format is
# wrong. The two curves mirror each other, so what spoils the format is rambling, and not bad answers. The gradient
# norms are those of the losses as they stand; Adam removes most of such a factor.

# %% alt="A line plot for each method: mean length in tokens of right responses, of wrong ones, and of wrong ones that were not truncated, against optimiser steps."
length_curves(frame, source="train", smooth=window)

# %% [markdown]
# *What to look at.* How far do right and wrong responses part?

# %%
for method in ("grpo", "f_isft_pos", "f_isft_neg"):
    of_method = frame[(frame["method"] == method) & (frame["step"] > settings["steps"] - window)]
    sizes = ", ".join(
        f"{name} {of_method[f'length/{kind}'].mean():.0f}" for kind, (name, _) in LENGTHS.items()
    )  # fmt: skip
    say(f"{label(method)}, mean length in the last {window} steps: {sizes}.")

# %% [markdown]
# Wrong responses are far longer than right ones under every method, but most of the distance is truncation: being
# truncated makes a response wrong.
#
# ### Against the toy
#
# The toy has a prediction for each rule at the base's share right: is rambling pushed up or down? The records have
# the share of truncated samples.

# %%
early = frame["step"].between(1, window)
late = frame["step"] > settings["steps"] - window
by_window = pd.DataFrame(
    {
        when: frame[rows].groupby("method")["completions/clipped_ratio"].mean()
        for when, rows in ((f"first {window} steps", early), (f"last {window} steps", late))
    }
)
here = np.array([base_right, 1 - little - base_right, little])  # the toy's policy at the base's share right
by_window["the toy"] = ""
for rule, method in method_of.items():
    if method in by_window.index:
        by_window.loc[method, "the toy"] = "up" if push(rule, here, lengths.numpy())[2] > 0 else "down"
by_window = by_window.loc[[m for m in LABELS if m in by_window.index]]
by_window.rename(index=label).round(3)

# %%
toy = by_window[by_window["the toy"] != ""]
last = f"last {window} steps"
grew = toy[last] > toy.iloc[:, 0]
wrong_way = toy.index[grew != (toy["the toy"] == "up")]
print(
    "Direction: the toy is", "right for all." if wrong_way.empty else f"wrong for {', '.join(map(label, wrong_way))}."
)
up, down = (toy.loc[toy["the toy"] == way, last] for way in ("up", "down"))
print(
    "Order: the rules that it pushes up are",
    "all" if up.min() > down.max() else "not all",
    "truncated more often than the rest.",
)

# %% [markdown]
# The toy's rambling response never gets anything for its length. In the game, going on is also another attempt,
# which may turn a wrong response into a right one. A rise of the share truncated under *every* method points to
# that, or to other causes of length, which chapter 08c takes one at a time. What the weights add shows in the
# differences between methods.

# %% alt="Two line plots against optimiser steps, for right and for wrong responses: the mean log-probability of their tokens in nats, one line for each method."
per_token = {}
for side, kind in (("right", "correct"), ("wrong", "incorrect")):
    column = f"log-probability, {side} (nats per token)"
    frame[column] = frame[f"logprob/{kind}"] / frame[f"length/{kind}"]
    per_token[column] = f"{side} responses"
curve_panels(frame, per_token, smooth=window, size=(4.6, 3.8), sharey=True)

# %% [markdown]
# *What to look at.* These are samples of the policy as it was at each step, so a falling line means that the policy
# has become less sure of what it writes.

# %%
sure = frame.assign(each=frame["logprob/correct"] / frame["length/correct"])
at_start = sure[sure["step"].between(1, window)].groupby("method")["each"].mean()
at_end = sure[sure["step"] > settings["steps"] - window].groupby("method")["each"].mean()
surer = (at_end - at_start).sort_values()
say(
    f"On right responses, from the first {window} steps to the last, {label(surer.index[-1])} changes the most upwards "
    f"({surer.iloc[-1]:+.3f} nats per token), and {label(surer.index[0])} is at the other end ({surer.iloc[0]:+.3f})."
)

# %% [markdown]
# Training on one's own right answers makes a policy surer. Negatives alone do nothing that would.
#
# ### Where the runs ended

# %%
from rlino_lib.analysis.statistics import t_interval
from rlino_lib.analysis.tables import paper_results, span
from rlino_lib.figures.recorded import measured, outcomes

say(measured(runs))
ended = outcomes(runs)
base = ended[ended["method"] == "base"].iloc[0]
ended = ended[ended["method"] != "base"]
right = ended.pivot(index="method", columns="seed", values="accuracy")
right = 100 * right.loc[[m for m in LABELS if m in right.index]]
gap = right.sub(right.loc["grpo"], axis=1).drop(index="grpo")  # points, each seed against GRPO's run of the same seed

spans = {method: t_interval(values.dropna()) for method, values in gap.iterrows()}
table = gap.rename(columns=lambda seed: f"seed {seed}")
table.insert(0, "right, %", right.mean(axis=1))
table["mean"] = gap.mean(axis=1)
table["95 % interval"] = [span(*ends) for ends in spans.values()]
print(f"The base has {base['accuracy']:.1%} right, GRPO {right.loc['grpo'].mean():.1f} % (mean over seeds).")
print("Each method, and its difference to GRPO in percentage points:")
table.rename(index=label).round(1)

# %% [markdown]
# A difference is taken within a seed: both runs saw the same problems in the same order. The interval is over seeds, by
# the t distribution, and with so few of them it is wide. If it contains 0, these runs cannot tell the two methods
# apart. That is less than to say that they are equal: chapter 07 tests for equality, with a margin set in advance.
#
# ### Beside the paper
#
# The paper's accuracies are one number per model, without seeds or intervals, and reached us through summaries
# (`data/paper/README.md` says how sure each is). Its models, prompts and test problems are others. So do not compare
# levels, but the order, and each method's distance to GRPO, on two scales that are never mixed. The paper's one
# F-ISFT⁺⁻ appears in both rows, since its weights are not known.

# %%
theirs = paper_results()["countdown"]
their_gap = theirs.sub(theirs.loc["grpo"]).drop(index="grpo")
beside = pd.concat(
    {
        "here, %": right.mean(axis=1).to_frame("mean"),
        "paper's Countdown, %": theirs,
        "here, points to GRPO": gap.mean(axis=1).to_frame("mean"),
        "paper, points to GRPO": their_gap,
    },
    axis=1,
).loc[right.index]
rounded = beside.rename(index=label).round(1)
rounded.astype(object).where(rounded.notna(), "–")

# %% alt="Points above or below GRPO in percentage points, a row for each method: left the seeds recorded here, right the paper's models."
from rlino_lib.figures.seeds import beside_figure

by_seed = dict(gap.add_prefix("seed ").items())
by_model = dict(their_gap.loc[gap.index].items())
beside_figure({"here": (by_seed, None), "paper: one run a model, weights of ⁺⁻ unknown": (by_model, None)})

# %% [markdown]
# *What to look at.* Is the order of the methods the same in both panels, and how far apart are the seeds of one
# method on the left? F-ISFT⁻ is last in both. The seeds of the others lie about as far apart as the methods do. The
# right panel has no such spread to judge its distances by, and its horizontal scale is its own.
#
# ### What a collapse looks like
#
# We call a run *collapsed* if it ends with less than half of the base's share right.

# %%
fallen = ended[ended["accuracy"] < base["accuracy"] / 2]
worst = ended.sort_values("accuracy").iloc[0]
if len(fallen):
    of_all = ended.groupby("method").size()
    each = ", ".join(f"{label(m)} ({k} of {of_all[m]} seeds)" for m, k in fallen.groupby("method").size().items())
    print(f"{len(fallen)} of {len(ended)} recorded runs collapsed: {each}.")
else:
    print(f"None of the {len(ended)} recorded runs collapsed.")
print(
    f"The lowest, {label(worst['method'])} with seed {worst['seed']}, ended with {worst['accuracy']:.1%} right,",
    end=" ",
)
print(f"where the base has {base['accuracy']:.1%}.")
worst_run = next(run for run in runs if run.method == worst["method"] and run.seed == worst["seed"])
often = worst_run.metrics["completions/clipped_ratio"].tail(window).mean()
print(f"In its last {window} steps {often:.0%} of its training samples were truncated.")
steps = sorted(set(worst_run.rollouts["step"])) if len(worst_run.rollouts) else []

# %% [markdown]
# Token by token: the run that ended lowest, at its first recorded step and at its last. Each fold is a whole group,
# and the colours are the weights that the optimiser used.

# %%
from rlino_lib.widgets import trace_inspector

trace_inspector(worst_run, steps=[steps[0], steps[-1]] if steps else None)

# %% [markdown]
# *What to look at.* Does a late response fail by saying something else, or by not coming to an end? The share
# truncated, printed above, answers for most of them: they do not end. Below is the same for every method, one run
# each; choose a run, a step and a problem. Log-probability and entropy as colours show where a policy is unsure.

# %%
trace_inspector([run for run in runs if run.seed == worst["seed"]], step=steps[-1] if steps else None)

# %% [markdown]
# ## What the paper says, and what was found here
#
# The paper says that F-ISFT⁺⁻ does as well as GRPO, that F-ISFT⁺ stays below it on Countdown at 1.5B, and that
# F-ISFT⁻ fails there altogether. It takes all of them for one kind of method. Here, computed from the records:


# %%
def sentence(method: str) -> str:
    """One method against GRPO, in words, from the records."""
    mean = gap.loc[method].mean()
    count = int(gap.loc[method].notna().sum())
    low, high = spans[method]
    side = "above" if mean >= 0 else "below"
    if count < 2:
        return f"{label(method)} ended {abs(mean):.1f} points {side} GRPO (one seed, so no interval)."
    verdict = "which excludes 0" if low > 0 or high < 0 else "which contains 0: not told apart"
    return (
        f"{label(method)} ended {abs(mean):.1f} points {side} GRPO ({count} seeds, "
        f"95 % interval {low:+.1f} to {high:+.1f}, {verdict})."
    )


for method in gap.index:
    print(sentence(method))
    if method in their_gap.index:
        pairs = ", ".join(f"{value:+.1f} with {m}" for m, value in their_gap.loc[method].dropna().items())
        print(f"    the paper's distance to GRPO, in points: {pairs}")


# %%
from rlino_lib.claims.verdicts import mean_in_words, verdict_above_zero


def state(gains: pd.Series) -> str:
    """A word for where a method ended, against the base, by the 95 % interval over seeds of its gain in points."""
    words = {"holds": "learned", "does not hold here": "fell below the base"}
    return words.get(verdict_above_zero(gains), "is not told from the base by these seeds")


for method in right.index:
    gains = right.loc[method].dropna() - 100 * base["accuracy"]
    often = by_window.loc[method, f"last {window} steps"]
    say(
        f"{label(method)} {state(gains)}: {mean_in_words(gains)} from the base; {often:.0%} of its last samples were "
        "truncated."
    )
rates = sorted({run.config["lr"] for run in runs})
print("Learning rates of these runs:", ", ".join(f"{rate:g}" for rate in rates))

# %% [markdown]
# All methods had one learning rate here, the one that suits GRPO; the paper, too, used one for all. Chapter 07 gives
# each method its own. Statements about F-ISFT⁻ hold for this rate; the ledger's claim that it fails is judged at both.
# Of larger models it has been reported that penalties for wrong responses alone help, at every k of pass@k
# ([arXiv 2506.01347](https://arxiv.org/abs/2506.01347)).
#
# So, to the question. **Yes.** A data set of accepted and rejected samples, −100 labels, a signed cross-entropy and
# fresh samples at each iteration are a training run. It needs no reward, advantage or importance ratio, and with
# balanced weights its gradient on a batch differs from GRPO's by a factor for each group.
#
# As to the weights, the usual warning (a negative sum pushes everything down) has the sign right. As far as the toy and
# the cosines can tell, it has the reason wrong: on on-policy samples a common weight cancels. What does not cancel is
# its product with $1/|o|$, and that pushes towards length. Balanced weights are safe in the toy because both sides of a
# group have the same total weight. Whether unit weights and negatives alone fell here, and how much of the growth in
# length is theirs, the computed sentences say.
#
# ## Exercises
#
# **1. Balanced weights.** `my_balanced(correct)`: the verdicts of one group in, signed weights out. Each side sums to
# ±1, and a group that is not mixed has weight 0.


# %%
from checkers.isft import check_balanced_weights, check_collapse_condition, check_signed_ce


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
#
# **3. The total push.** `my_total(n_right, n_wrong, rule)`: the sum of a group's signed weights under the rules
# `"unit"` and `"group_balanced"`.


# %%
def my_total(n_right, n_wrong, rule): ...


_ = check_collapse_condition(my_total)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_total(n_right, n_wrong, rule):
#     return n_right - n_wrong if rule == "unit" else 0.0
# ```
#
# Balanced weights sum to 0 in every group: +1 − 1 in a mixed one, and nothing at all in the others.
#
# </details>
#
# **4. A question.** On fresh samples, and without the mean over tokens, F-ISFT⁺ and F-ISFT⁻ have the same expected
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
# share right from the rewards 1 and 0 gives weights whose sum is 0. Up to a factor for each group these are balanced
# weights, and their noise is close to the smaller of the two at either end. GRPO's advantage is the same choice once
# more.
#
# </details>
#
# ## Summary
#
# - F-ISFT is supervised learning on the policy's own graded samples: a data set with a sign and a weight for each
#   response, made anew at each iteration. Its weights are part of the method, and the paper, as far as we know it,
#   leaves them open.
# - Two rules for the weights differ in the sum over a group: 0 when balanced, negative with unit weights wherever
#   most samples are wrong.
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
# - Which methods are comparable to GRPO, over more seeds: chapter 07.
# - What happens when the samples of an iteration serve many updates, as in training on a fixed data set: chapter 06.
# - Whether taking $1/|o_i|$ away stops the drift to length in a real run, as it does in the toy: chapter 08c.
