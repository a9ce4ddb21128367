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
# # 11 · Preferences and inner rewards
#
# **Are GRPO's relatives RL in name only, too?**
#
# **The answer.** Preferences among a policy's own samples are: their gradient is weighted cross-entropy, and the first
# step of a round of DPO is unit F-ISFT⁺⁻. On as many samples DPO ends below GRPO here; why was not tested. Rewards from
# the model itself read no verdict. Climbed exactly they end in what was likeliest at the start, right or wrong. Coins
# move nothing in the mean at one update a batch; with more, a policy drifts away from its favourite, and the clip takes
# part of that back. In the ledger: `preferences-are-sft` holds, `coins` holds, `dpo-equal` does not hold here,
# `dpo-length` holds.
#
# GRPO's gradient is a cross-entropy on the model's own samples, weighted by verdicts (chapters 05 and 06). Many methods
# have been proposed beside it. Some compare pairs of responses and never form a reward. Some take the reward from the
# model itself, or from a coin. Some add a term for entropy. This chapter puts them into the same frame: *what does one
# token of a response weigh, and what does that weight depend on?* A method is in name only, in form, if the weights of
# its tokens follow from the verdicts of the batch, from lengths and from importance ratios alone. (Chapter 06 asked
# another question, when the updates of a run stop being those of supervised learning.) You need chapters 04 to 06.

# %%
import random

import pandas as pd
import torch
from IPython.display import Markdown, display

from rlino_lib.claims.families import last, runs_named
from rlino_lib.claims.judge import judge_all
from rlino_lib.claims.ledger import RECORDED
from rlino_lib.evaluation.graded import sample_graded
from rlino_lib.exact.identities import first_step_of_dpo, float64_copy, preferences_are_weighted_sft, table
from rlino_lib.figures.curves import line_panels
from rlino_lib.figures.recorded import ends_table, markdown_table, say
from rlino_lib.figures.seeds import measure_panels
from rlino_lib.figures.style import PALETTE, Look, label, look, style
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.methods.preference import Preferred, pairs, response_weights
from rlino_lib.methods.rewards import REWARDS
from rlino_lib.paths import base_of
from rlino_lib.policy.logprobs import response_logprobs
from rlino_lib.policy.models import load_policy
from rlino_lib.records.runs import metrics_frame
from rlino_lib.tasks import get_task

style()
pd.set_option("display.max_colwidth", None)
F64 = torch.float64

# %% [markdown]
# ## Preferences
#
# Direct preference optimisation (DPO, [2305.18290](https://arxiv.org/abs/2305.18290)) takes pairs: a *chosen* response
# $o^+$ and a *rejected* one $o^-$ to the same prompt. Let $\Delta = \sum_t \big(\log \pi(o_t) - \log
# \pi_\text{old}(o_t)\big)$ be how far the policy has moved on a response, in nats. The loss is
#
# $$-\log \sigma\big(\beta\,(\Delta^+ - \Delta^-)\big).$$
#
# *Iterative* DPO ([2503.12854](https://arxiv.org/abs/2503.12854)) makes the pairs from the policy's own samples, with a
# verifier: one that is right, one that is not. After some updates it samples again, and the policy of that moment is
# the new $\pi_\text{old}$, DPO's reference. IPO ([2310.12036](https://arxiv.org/abs/2310.12036)) has a square in place
# of the logarithm. KTO ([2402.01306](https://arxiv.org/abs/2402.01306)) needs no pairs.

# %%
for name in ("iterative_dpo", "ipo", "kto"):
    print(OBJECTIVES[name], "\n")

# %% [markdown]
# Each of these is a function of the $\Delta$'s: in IPO of those per token, and in KTO also of $z_0$, an estimate of the
# KL to the reference that is read off responses put beside other prompts, and has no gradient. ($\beta$ is a scale
# here, and no weight of a KL term.) So the chain rule gives its gradient at once: a sum over responses of a number
# times $\nabla \log \pi(o)$. It is a weighted cross-entropy again, with the same weight on all tokens of a response.
# For DPO the weight is
#
# $$w^\pm = \pm\,\beta\,\sigma\big(-\beta\,(\Delta^+ - \Delta^-)\big).$$
#
# At the first update of a round the policy is the one that sampled. Then every $\Delta$ is zero and the weight is
# $\pm\beta/2$ for every pair. That is F-ISFT⁺⁻ of chapter 05 with unit weights, on the responses of the pairs, without
# its $1/|o|$. Both can be tested on the base, parameter by parameter in double precision.

# %%
task = get_task("word_problems")
policy = load_policy(base_of("word_problems"))
model = float64_copy(policy.model)
rollouts = sample_graded(policy, task, task.problems("train")[:8], 8, seed=1, max_new_tokens=64)
well_formed = [grade.format_ok for grade in rollouts.grades]
facts = rollouts.correct.tolist(), well_formed, rollouts.truncated.tolist()
rows = pairs(*facts, rollouts.lengths.tolist(), rollouts.group_size, "longest", random.Random(0))
now, mask = response_logprobs(model, rollouts, torch.arange(len(rollouts.ids)))  # [N, T]
moved = now.detach() + 0.3 * torch.sin(torch.arange(now.numel(), dtype=F64)).view(now.shape)  # another reference
say(f"{len(rows.chosen)} pairs of {len(rollouts.prompts)} prompts.")
table([first_step_of_dpo(model, rollouts, rows), *preferences_are_weighted_sft(model, rollouts, rows, moved)])

# %% [markdown]
# **What to look at.** The column of gaps: zero up to rounding, in every row.
#
# The first row is the first step of a round. The others hold wherever the policy stands. What is new in preferences is
# therefore not the gradient's form. It is how the weight changes from one update of a round to the next:

# %%
BETA = 0.1
LOOKS = {"dpo": Look(PALETTE[0], ()), "ipo": Look(PALETTE[1], (5, 1.5)), "kto": Look(PALETTE[2], (1.5, 1.2))}
pair, length = Preferred(torch.tensor([0]), torch.tensor([1])), torch.tensor([40, 40])
deltas = torch.linspace(-40, 40, 81, dtype=F64)
lines = {}
for side, words in enumerate(("chosen", "rejected")):
    own = []
    for name, form in LOOKS.items():
        at_zero = response_weights(name, torch.zeros(2, dtype=F64), length, pair, BETA)[side].abs()
        moved_by = [torch.stack([d, -d]) / 2 for d in deltas]
        weights = [response_weights(name, ratios, length, pair, BETA)[side] / at_zero for ratios in moved_by]
        own.append((name.upper(), form, deltas, torch.stack(weights)))
    lines[f"the {words} response"] = own
# %% alt="Two panels: the weight of the chosen and of the rejected response, over its size at the start of a round, against the difference of log-ratios from minus 40 to 40 nats. DPO falls from almost two to nearly zero as a sigmoid, IPO falls slowly on a straight line, KTO is largest at zero and falls to both sides. The rejected response's weights are the mirror image, below zero."
line_panels(
    lines, guides=(0, 0), line={"marker": ""}, xlabel="Δ⁺ − Δ⁻ (nats)", ylabel="weight, over that at the start",
    sharey=False,
)  # fmt: skip

# %% [markdown]
# **What to look at.** The right half of each panel: pairs that the policy already tells apart.
#
# DPO lets go of them. A pair that is told apart by forty nats weighs almost nothing, and one that the policy has turned
# around weighs up to twice as much as at the start. IPO counts by the token and aims at five nats for each: its line
# crosses zero at 200 nats, off the figure, and past that it pulls back. KTO lets go on both sides, so it gives up on
# what is far off. (Here $\Delta$ is split evenly between the two, and $z_0$ is zero.) GRPO has none of this. Within a
# batch its weight changes by the ratio, and the clip stops it (chapter 06).
#
# So the weights of a pair are functions of the verdicts, of $|o|$ and of $\rho$, as GRPO's are. In form DPO and IPO are
# in name only. (KTO reads a little more, its $z_0$.)
#
# ### Which prompts train
#
# A prompt makes a pair of a right and a wrong response if its group has both. With eight responses and a chance $p$ of
# a right one that is likely for all but the hardest and the easiest prompts. GRPO weighs a group by $\sqrt{\hat
# p(1-\hat p)}$, where $\hat p$ is the share that is right (chapter 06). Both are means over groups of eight here.

# %%
p, k = torch.linspace(0.0, 1.0, 201, dtype=F64), torch.arange(9, dtype=F64)  # [P], [9] right of a group of eight
chances = torch.distributions.Binomial(8, p[:, None]).log_prob(k).exp()  # [P, 9]
expected = {"iterative_dpo": ((k > 0) & (k < 8)).to(F64), "grpo_no_kl": (k / 8 * (1 - k / 8)).sqrt()}  # [9] each
curves = []
for name, weight in expected.items():
    mean = chances @ weight  # [P]
    curves.append((label(name), look(name), p, mean / mean.max()))
# %% alt="Expected weight of a prompt, over its largest value, against the chance of a right response. Both rise from zero at 0 and at 1. Iterative DPO rises faster and is flat between a quarter and three quarters; GRPO without KL has a rounder top."
line_panels(
    {"": curves}, size=(6, 3.4), line={"marker": ""}, xlabel="p, the chance of a right response",
    ylabel="weight of a prompt, largest = 1",
)  # fmt: skip

# %% [markdown]
# **What to look at.** The flat top of the one curve, and which is higher at a chance of one in ten.
#
# The two are close. DPO's is flatter, and gives a little more to prompts that are seldom right or seldom wrong. (The
# code of iterative DPO also makes pairs in groups that are wrong throughout, which the curve leaves out: well-formed
# against malformed, or, where all are well formed, the longest against another. The first kind teaches the format, the
# second length.)
#
# Which of several right responses is chosen is a free choice. The code takes the longest. Nothing in the loss asks for
# it, and it is a push on length of its own, beside that of $1/|o|$ in chapter 08.

# %% [markdown]
# ### In a language model
#
# Now runs: GRPO without KL on word problems, and iterative DPO on as many samples of its own, with the longest right
# response chosen and with the shortest. Ten seeds each of 9,600 responses and 150 updates. GRPO samples 64 for each
# update. DPO makes 6 rounds: it samples 200 × 8 responses, makes at most one pair of each group (the rejected one is
# drawn at random), and goes through the pairs once, in 25 updates.
#
# The rate of each is the best of three on validation, after 100 updates of one seed: 1e-4 for GRPO and 5e-5 for DPO.
# DPO's is the lowest that was tried, so a lower one may be better. $\beta$ was not tuned.
#
# ```sh
# rlino grid data/runs/relatives-lr.json
# rlino grid data/runs/preferences.json
# ```

# %%
PREFERENCES = {"GRPO without KL": "grpo_no_kl", "DPO, longest": "dpo-longest", "DPO, shortest": "dpo-shortest"}
preferring = {words: runs_named("preferences", name, RECORDED) for words, name in PREFERENCES.items()}
looks = {words: name if name in OBJECTIVES else words for words, name in PREFERENCES.items()}
frames = [metrics_frame(by_seed.values()).assign(method=looks[words]) for words, by_seed in preferring.items()]
# %% alt="Two panels against samples. Held-out accuracy rises from 42 percent to 65 under GRPO without KL and to 59 under both kinds of DPO, whose curves lie on each other. Mean length rises from 34 to 36 tokens under GRPO and to 35 under both kinds of DPO."
measure_panels(
    pd.concat(frames), {"eval/accuracy": "right, held out", "eval/mean_length": "mean length (tokens)"},
    columns=2, x="samples",
)  # fmt: skip

# %%
display(Markdown(ends_table(preferring, "GRPO without KL", {"tokens, held out": last("eval/mean_length")})))
for words in ("DPO, longest", "DPO, shortest"):
    rounds = pd.concat([run.metrics.dropna(subset="pairs") for run in preferring[words].values()])
    apart = (rounds["log_ratio/chosen"] - rounds["log_ratio/rejected"]).mean()
    say(f"{words}: {rounds['pairs'].mean():.0f} pairs a round; in its last update Δ⁺ − Δ⁻ is {apart:.2f} nats, mean.")

# %% [markdown]
# **What to look at.** The column of differences, and the lines under the table.
#
# The claim was that DPO ends within three points of GRPO on as many samples. It does not: it ends more than five points
# below, whichever response is chosen. All three are still rising.
#
# Why? Both steps are weighted cross-entropy, so the form of the gradient is not the difference. Nor is it the sigmoid:
# a quarter of a nat is next to nothing on the axis of the first figure above. What is left is which samples are used
# and how old they are. A pair is two of a group's eight responses, where GRPO learns from all eight of a mixed group. A
# round's last pairs were sampled 24 updates ago. And there are the learning rates. No run here separates these.
#
# Choosing the longest instead of the shortest adds a tenth of a token in the end. The claim on it holds, below, but
# that is tiny. Both kinds of DPO lengthen, even where the shortest is chosen, and GRPO lengthens more. So most of the
# growth does not come from this choice.
#
# ## Rewards from the model itself
#
# A verifier costs something: a checker for every task, or an answer for every problem. Can a model do without? Several
# rewards have been proposed that it can compute alone, or that need nothing at all.

# %%
NAMES = ("self_certainty", "base_certainty", "negative_entropy", "log_likelihood", "majority", "format", "random")
rows = [("reward", "of response i"), *((f"`{name}`", REWARDS[name].formula) for name in NAMES)]
display(Markdown(markdown_table(rows, numbers=False)))

# %% [markdown]
# *Self-certainty* (Intuitor, [2505.19590](https://arxiv.org/abs/2505.19590)) is how far the next-token distributions
# are from uniform, $U$. The judge is the current policy, or the base throughout. *Negative entropy* is RENT's reward
# ([2505.22660](https://arxiv.org/abs/2505.22660)), and the *majority* of a group is TTRL's
# ([2504.16084](https://arxiv.org/abs/2504.16084)). The *log-likelihood* is the self-reward of sharpening
# ([2412.01951](https://arxiv.org/abs/2412.01951)), and *format* is a control: it asks for the form of an answer alone.
# *Random* is a fair coin for each response ([2506.10947](https://arxiv.org/abs/2506.10947)). Each trains by one
# argument:
#
# ```sh
# rlino train --task word_problems --method grpo_no_kl --reward self_certainty --out runs/self-certainty
# ```
#
# In this book's frame only the rewards change. The weights are still the advantages of a group, so the gradient is
# still a weighted cross-entropy. What the weights follow is no longer the verifier: *majority* follows the answers of
# the group, *format* the form of a response, *random* nothing, and the other four the model's own probabilities. By the
# letter these four are then more than a name. But each is one number a response, and the criterion was not made for
# them. Self-certainty, negative entropy and log-likelihood look alike. They are not: each pair of responses below is
# ordered one way by one of them, and the other way by another. The vocabulary has four tokens. The first pair are one
# token of $(.5, .5, 0, 0)$, up to a millionth, and one of $(.85, .05, .05, .05)$. The second are an unlikely token of
# the latter, and one of an even distribution. The third are six likely tokens of $(.85, .05, .05, .05)$, and one likely
# token of $(.7, .1, .1, .1)$.

# %%
from rlino_lib.exact.certainty import ascend, disagreements  # noqa: E402

disagreements().round(2)

# %% [markdown]
# **What to look at.** In each pair of rows, which of the two has the larger number.
#
# Self-certainty rewards ruling tokens out: its size has no limit as a probability goes to zero. Entropy lies between 0
# and $\log V$, whatever is ruled out. The log-probability reads the token that was drawn, and as a sum it favours short
# responses.
#
# What they share is where they lead. None reads whether the answer is right. Here each is climbed as a function of the
# policy, exactly, on one softmax of four actions. (As rewards of samples, self-certainty and entropy would be equal for
# all actions of one softmax, and move nothing. In a model they act through tokens that lead to surer ones.) Majority is
# that of infinitely many votes.

# %%
START, RIGHT = (0.3, 0.2, 0.25, 0.25), 1
CLIMBS = {
    "truth": Look("0.15", ()),
    "majority": Look(PALETTE[0], (5, 1.5)),
    "self_certainty": Look(PALETTE[1], (1.5, 1.2)),
    "negative_entropy": Look(PALETTE[2], (5, 1.5, 1, 1.5)),
    "log_likelihood": Look(PALETTE[3], (3, 3)),
}
lines = {}
for title, right in (("the right action is the likeliest", 0), ("the right action is another", RIGHT)):
    climbed = {name: ascend(name, START, right) for name in CLIMBS}
    lines[title] = [(name.replace("_", " "), CLIMBS[name], t["step"] + 1, t["right"]) for name, t in climbed.items()]
# %% alt="Two panels: the chance of the right action against the step of an exact ascent, for five rewards. Where the right action is the likeliest all end near one. Where another one is, only the truth does, and the four rewards of the model's own end at zero."
line_panels(
    lines, legend="", line={"marker": ""}, xscale="log", xlabel="step, from 1", ylabel="chance of the right action"
)  # fmt: skip

# %% [markdown]
# **What to look at.** The two panels differ in one thing: which action is right.
#
# All four end in the action that was likeliest at the start. On the left that is the right one, and all look like
# learning; majority is the truth there. On the right all but the truth unlearn it. (Log-likelihood has the line of
# negative entropy: in the mean the two are the same.) These rewards *sharpen*: they make likelier what was likely, in
# the words of chapter 09. Whether accuracy rises or falls says where the base stood.
#
# ## Random rewards
#
# A coin for each response has no information. Yet Qwen2.5-Math is reported to gain 21 points on MATH-500 from it
# ([2506.10947](https://arxiv.org/abs/2506.10947)), and the clip was named as a cause. The argument goes: where $\rho >
# 1 + \varepsilon$ the clip lets only negative advantages through, and where $\rho < 1 - \varepsilon$ only positive
# ones. A token of the old policy above $1/(1+\varepsilon)$ can never reach the upper bound, so its net push is up.
#
# At one update a batch every ratio is one, and the clip does nothing. Then a coin moves nothing in the mean. With more
# updates it may; those experiments had eight. Here are trainings of one softmax of eight actions, many of them side by
# side, each with coins of its own. The likeliest action has a chance of 0.9 at the start.

# %%
from rlino_lib.exact.spurious import coin_trainings  # noqa: E402

objectives = {"no clip": OBJECTIVES["grpo_no_clip"], "clip 0.2": OBJECTIVES["grpo_no_kl"]}
coins = coin_trainings(objectives, 0.9, (1, 8), steps=200, repeats=200, lr=0.2)
lines = {}
for updates, part in coins.groupby("updates"):
    own = [(name, look(name), t["step"], t["top"]) for name, t in part.groupby("objective", sort=False)]
    lines[f"{updates} update{'s' * (updates > 1)} a batch"] = own
# %% alt="Two panels: the mean chance of the top action against the step of a training on coins. At one update a batch both lines stay near 0.9. At eight the line without a clip falls below one half, and the one with a clip to about three quarters."
line_panels(lines, guides=(None, 0.9), xlabel="batches", ylabel="chance of the top action, mean")

# %%
ends = coins[coins["step"] == coins["step"].max()]
rows = [["updates a batch", "clip", "chance of the top action", "its logit, change"]]
for row in ends.itertuples():
    numbers = ((row.top, row.top_se), (row.logit, row.logit_se))
    rows.append([str(row.updates), row.objective, *(f"{mean:.3f} ± {2 * se:.3f}" for mean, se in numbers)])
display(Markdown(markdown_table(rows)))

# %% [markdown]
# **What to look at.** The logit at one update, and which of the two lines is lower at eight.
#
# At one update the mean logit stays where it was, within its error. (The chance itself drifts a little, because it is a
# curve of the logit.) At eight updates the surrogate moves the policy *away* from its favourite. Its later updates act
# on ratios that its own earlier ones have made, and these no longer cancel. In these trainings the clip takes part of
# that back, and neither line ends above the start. So here the clip undoes a drift, and gives no signal. What a
# language model makes of coins, where actions share weights, is a question for runs.
#
# The claim below is judged without draws: for one batch and a policy of two actions, by sums over all coins. There one
# batch moves little. The signs and their order are what the claim is about.

# %% [markdown]
# ## What was claimed, and what was found

# %%
claims = judge_all(evidence="relatives.")
rows = [["claim", "verdict", "what was found"]]
rows += claims[["statement", "found", "effect"]].itertuples(index=False, name=None)
display(Markdown(markdown_table(rows, numbers=False)))

# %% [markdown]
# ## Exercises
#
# **1. A pair's weights.** `my_dpo_weights(chosen, rejected, beta)`: the $\Delta$ of a pair's two responses and $\beta$
# in, the weights of their $\nabla \log \pi$ under DPO out, the chosen one's first.


# %%
from checkers.relatives import check_dpo_weights, check_majority_rewards  # noqa: E402


def my_dpo_weights(chosen, rejected, beta): ...


_ = check_dpo_weights(my_dpo_weights)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_dpo_weights(chosen, rejected, beta):
#     import math
#
#     weight = beta / (1 + math.exp(beta * (chosen - rejected)))
#     return [weight, -weight]
# ```
#
# With both $\Delta$ at zero this is $\pm\beta/2$, the first step of a round.
#
# </details>
#
# **2. A majority.** `my_majority_rewards(answers)`: the answers of a group in, `None` where a response has none; 1 for
# each response that has the most frequent answer and 0 for the others out. Of answers that are equally frequent the
# first wins.


# %%
def my_majority_rewards(answers): ...


_ = check_majority_rewards(my_majority_rewards)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_majority_rewards(answers):
#     votes = [answer for answer in answers if answer is not None]
#     winner = max(votes, key=votes.count, default=None)
#     return [int(answer is not None and answer == winner) for answer in answers]
# ```
#
# No verifier is needed. But a group that agrees on a wrong answer is taught that answer.
#
# </details>
#
# ## Summary
#
# - Losses of preferences have the gradient of weighted cross-entropy, with one weight for all tokens of a response. At
#   the start of a round DPO's is the same for every pair: unit F-ISFT⁺⁻ without $1/|o|$.
# - From the second update on their weights depend on how far the policy has moved, by ratios, as GRPO's do. On as many
#   samples iterative DPO ends below GRPO on word problems, and what makes the difference was not tested.
# - Rewards of the model's own read no verdict. Climbed exactly on one softmax, four of them end in the action that was
#   likeliest.
# - Coins leave a policy where it is at one update a batch. With more the surrogate drifts from its favourite; the clip
#   undoes a part.
# - **Not settled yet**: what rewards of its own and coins do to a language model, where responses share weights, and
#   where IPO and KTO end. They train by `rlino train`; their grids of runs are planned, and so are the claims about
#   them.
