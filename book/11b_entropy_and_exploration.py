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
# # 11b · Entropy and exploration
#
# **Which methods are RL in more than name?**
#
# **The answer.** In form, those that read more than verdicts, lengths and ratios: a KL, an entropy, or values; BARL
# reads a belief. But on the tasks of this chapter nothing writes into the text, so none of them can learn more than a
# response fixed beforehand. A published law ties accuracy to entropy where a policy learns by becoming sure, and fails
# where it learns to search. Where answers have to be tried, ordinary RL fails on a prompt held out, and BARL's
# objective does not. In the ledger: `elimination` holds.
#
# Chapter 11 asked of preferences and of a model's own rewards what a token's weight depends on. Here are the rest:
# terms of entropy, rewards for exploring, an objective that plans to find out, and systems in which the language model
# is not the one that decides. At the end stands a table of every method in this book. You need chapters 04, 06 and 11.

# %%
import pandas as pd
import torch
from IPython.display import Markdown, display

from rlino_lib.analysis.atlas import in_name_only, reads
from rlino_lib.analysis.entropy_law import entropy_law_table
from rlino_lib.claims.judge import judge_all
from rlino_lib.claims.ledger import RECORDED
from rlino_lib.exact import ask_or_skip
from rlino_lib.exact.entropy import entropy_run
from rlino_lib.exact.hypotheses import learn
from rlino_lib.figures.atlas import atlas_table, compared_words, group_words, systems_table
from rlino_lib.figures.curves import line_panels
from rlino_lib.figures.entropy import entropy_law_figure
from rlino_lib.figures.recorded import markdown_table, say
from rlino_lib.figures.style import PALETTE, Look, style
from rlino_lib.methods.catalogue import OBJECTIVES

style()
F64 = torch.float64

# %% [markdown]
# ## Entropy
#
# A policy that is trained on verdicts becomes surer, and what is no longer sampled can no longer be reinforced. On
# large models the two were found to be tied by a law: $R = -a\,e^{H} + b$
# ([2505.22617](https://arxiv.org/abs/2505.22617)). Accuracy $R$ is bought with entropy $H$, and the ceiling is $b - a$,
# at $H = 0$. If the law holds, a few first steps and the entropy at the end tell the accuracy there. Every run of this
# book has both columns on record.

# %% alt="Accuracy of training batches against entropy per token, for four runs. On the two of word problems points run from high entropy and low accuracy to low entropy and high accuracy, and the predicted end lies near the measured one. On the two of Countdown the points rise almost straight up, and the predicted end lies far below."
runs = {(run.config["task"], run.method, run.seed): run for run in RECORDED.runs("head-to-head")}
SHOWN = [(task, method, 0) for task in ("word_problems", "countdown") for method in ("grpo", "f_isft_posneg")]
entropy_law_figure([runs[key] for key in SHOWN])

# %%
laws = entropy_law_table(runs.values())
rows = [["task", "runs", "error at the end, points, median", "largest", "of predicting no change, median"]]
for task, part in laws.groupby("task"):
    errors, gains = part["error"].abs(), part["gain"].abs()
    numbers = (f"{x:.1f}" for x in (errors.median(), errors.max(), gains.median()))
    rows.append([task.replace("_", " "), str(len(part)), *numbers])
display(Markdown(markdown_table(rows)))

# %% [markdown]
# **What to look at.** The line that joins the two large marks of a run: that is the error at its end.
#
# On word problems the law does what it says, mostly within a few points. Entropy falls there as accuracy rises. On
# Countdown it fails: entropy hardly moves while accuracy more than doubles. There the policy learns to go on trying,
# and a search is no surer of its next number than before. So the law is one of policies that learn by becoming sure.
# (Part of the slope is not learning: in a batch of easy problems entropy is low and accuracy high.)
#
# ### Why it falls
#
# For one softmax the change of entropy in a step is, to first order, minus the step size times a covariance: that of
# $\log \pi$ with $\pi A$ for the policy gradient, with $A$ for the natural gradient. Where likely actions are the good
# ones, entropy falls. Where the good action is an unlikely one, it rises first.

# %%
LIKELY = torch.tensor([2.0, 1, 0, 0, 0, 0, 0, 0], dtype=F64)  # [K]
lines = {"entropy (nats)": [], "change in a step (nats)": []}
for k, (words, good) in enumerate((("the good action is likely", 0), ("it is unlikely", 7))):
    run = entropy_run(LIKELY, torch.nn.functional.one_hot(torch.tensor(good), 8).to(F64), lr=0.5, steps=150)
    lines["entropy (nats)"].append((words, Look(PALETTE[k]), run["step"], run["entropy"]))
    lines["change in a step (nats)"].append((words, Look(PALETTE[k]), run["step"], run["exact"]))
    first = Look("0.1", (1.5, 2))
    lines["change in a step (nats)"].append(("to first order", first, run["step"], run["first_order"]))
# %% alt="Two panels: the entropy of a softmax over eight actions, and its change by step with the first-order term on top of it, against the step. Where the good action is likely entropy falls from the start; where it is unlikely entropy rises first, then falls."
line_panels(lines, legend="", line={"marker": ""}, sharey=False, xlabel="step")

# %% [markdown]
# **What to look at.** On the right, the dotted lines on top of the others. On the left, the line that rises first.
# The term lies on the exact change, and entropy rises first where the good action is unlikely.
#
# Three repairs have been proposed. IBRO ([2507.18391](https://arxiv.org/abs/2507.18391)), from an information
# bottleneck, adds each token's entropy times its advantage: it asks for entropy where things go well. *Clip-Cov* leaves
# a few tokens of high covariance out of the gradient. *KL-Cov* ties the tokens of highest covariance to the policy that
# sampled them (both [2505.22617](https://arxiv.org/abs/2505.22617)).

# %%
for name in ("grpo_entropy", "ibro", "clip_cov", "kl_cov"):
    print(OBJECTIVES[name], "\n")

# %% [markdown]
# An entropy's gradient is no weight of the token that was drawn: it moves all entries of the distribution. So IBRO,
# like an entropy bonus, is more than weighted supervised learning on the samples. Clip-Cov still is one, with a mask
# that reads likelihoods. KL-Cov does nothing at one update a batch: its cost $|\log \rho|$ has a kink at zero, and
# automatic differentiation takes its slope there as zero. Float32 misses that zero by rounding, whose sign would be the
# slope, so here costs below 1e-4 count as zero. Each trains by its name, with more than one update a batch:
#
# ```sh
# rlino train --task word_problems --method kl_cov --minibatches 4 --out runs/kl-cov
# ```

# %% [markdown]
# ## Exploration
#
# RLSP ([2502.06773](https://arxiv.org/abs/2502.06773)) pays for length, $r - c/|o|$, so that a policy keeps trying. The
# bonus is a function of $|o|$, so by itself it leaves a method in name only. (RLSP trains by PPO, whose weights read
# values.) What it does to lengths here is a matter of runs.
#
# BARL ([2505.20561](https://arxiv.org/abs/2505.20561)) is another matter. It weighs an action by its value under
# several hypotheses of what the answer could be, as far as the episode so far has not ruled them out. So a policy is
# paid for finding out. Its example can be computed exactly. A prompt is one of three tokens. A response is right as
# soon as that token stands three times in a row. After 24 tokens it has failed. The policy sees the prompt, its last
# two tokens, and which repeats it has tried. Two prompts are trained, the third is held out. Ordinary RL knows the
# truth of each trained prompt. BARL has three hypotheses for each, or all 27 triples; so what would be right for the
# third prompt is among those that are paid for on the other two.

# %%
PRIORS = ("the truth", "three repeats", "all 27 triples")
learned = pd.concat([learn(prior).assign(prior=prior) for prior in PRIORS])
lines = {}
for title, held_out in (("a trained prompt", False), ("the prompt held out", True)):
    part = learned[learned["held_out"] == held_out].groupby(["prior", "step"])["right"].mean()
    lines[title] = [
        (prior, Look(PALETTE[k], (), "os^"[k]), part[prior].index, part[prior]) for k, prior in enumerate(PRIORS)
    ]
# %% alt="Two panels: the exact chance of success against the step, for three priors. On a trained prompt all rise to one. On the prompt held out the truth alone falls to zero, three repeats rise to one within twenty steps, all 27 triples rise unevenly, with a dip at forty, to nearly one at eighty."
line_panels(lines, xlabel="step", ylabel="chance of success")

# %%
ends = learned[learned["step"] == learned["step"].max()].groupby(["prior", "held_out"])["tokens"].mean().unstack()
display(ends.loc[list(PRIORS)].rename(columns={False: "tokens, trained prompts", True: "tokens, held out"}).round(1))

# %% [markdown]
# **What to look at.** The right panel, then the column of tokens on trained prompts.
#
# Ordinary RL learns by heart what to write for each prompt, and fails on the third: before training it succeeded more
# often there. With three hypotheses the policy learns an order in which to try them, and goes through it whatever the
# prompt is. It pays for that with tokens on the prompts that it could have known. Which comes first is an accident of
# the seed, one of which is shown. With all 27 it gets there later.
#
# Is it RL in more than name? Its weights read a belief that changes along the response, so credit is not uniform. But
# no environment writes here: which triples are ruled out follows from the policy's own tokens. So for each prompt the
# best response is still fixed beforehand. What is new is the objective, which asks for more than one answer to be
# right.
#
# ## What is no language model's MDP
#
# Some systems are named beside these and are none of them. LaGR-SEQ ([2308.13542](https://arxiv.org/abs/2308.13542))
# has a solver that works step by step, and a language model that proposes the rest of a solution. A second learner
# decides when to ask. The language model is never trained. What the second learner learns is a choice of two arms by
# the number of steps done. Here are a hundred such learners, with chances that are assumed:

# %%
chances = ask_or_skip.completion_chances()
best, learners = ask_or_skip.optimum(chances), ask_or_skip.q_learning(chances)
rows = [["steps done", "chance that the model completes it", "best", "learners that ask, %"]]
for b, q in zip(best.itertuples(), learners.itertuples(), strict=True):
    rows.append([str(b.n), f"{b.chance:.2f}", "ask" if b.asks else "skip", f"{100 * q.asks:.0f}"])
display(Markdown(markdown_table(rows)))

# %% [markdown]
# **What to look at.** The row where the chance is one half.
#
# In the rows below it the model is right more often than not, and asking is best; most learners ask, and later nearly
# all. (At one half asking is worth nothing, and few learners ask: one whose estimate has fallen below zero samples it
# less, and seldom learns better.) This is a contextual bandit beside a language model that proposes.
#
# Other systems change what is read or what is measured, and not how a policy is trained: images and videos in place of
# text, or another metric of the same runs. The table has the systems that readers ask about, with what each changes.

# %%
from pathlib import Path  # noqa: E402

display(Markdown(systems_table({path.name.split("_")[0]: path.name for path in Path().glob("*.ipynb")})))

# %% [markdown]
# ## The atlas
#
# Every method of this book in one table, computed from its row: what a token of a right and of a wrong response weighs,
# what else that weight reads, which assumption of the paper it drops, and where its runs ended. The web pages have it
# as a table that can be sorted, with every formula.

# %%
say(group_words())
display(Markdown(atlas_table()))
say(compared_words())

# %% [markdown]
# ### Which of them is RL in more than name?
#
# The criterion has two parts here. A method is RL in more than name if the weights of its tokens do not follow from the
# verdicts, lengths and ratios of its batch alone, or if the best policy that reads what is written beats the best
# response fixed beforehand. The first is a fact about a method's form, and the table has it: GRPO is a "no" there for
# its KL alone. The second is a fact about a task.

# %%
more: dict[str, list[str]] = {}
for key, o in OBJECTIVES.items():
    for what in reads(o):
        more.setdefault(what, []).append(f"`{key}`")
rows = [("weights that read …", "methods"), *((what, ", ".join(keys)) for what, keys in more.items())]
display(Markdown(markdown_table(rows, numbers=False)))
named = [in_name_only(o) for o in OBJECTIVES.values()]
say(f"Weights that read verdicts, lengths and ratios alone: {sum(named)} of the {len(named)} methods here.")

# %% [markdown]
# **What to look at.** The last line; then the rows of values, and those of the reference and of entropy.
#
# By the first part, more than half of the methods are in name only, DPO and IPO among them, and some that never claimed
# to be more. (The table takes every row with the verifier's reward. As chapter 09 trained SFT on best of group, on
# likelihoods, its weights read these and no verdict.) A KL to a reference, or an entropy in the loss, makes others more
# than that in form: their weights read likelihoods, but nothing about what will come. Only the rows with *values*
# assign credit as RL means it, by what is to be expected from a state. By the second part none of them is, on the tasks
# of this chapter. An environment that writes is what it takes, and that is a matter of the task and not of the method:
# on chapter 10b's, plain GRPO learns to ask.

# %% [markdown]
# ## What was claimed, and what was found

# %%
claims = judge_all(evidence="exploration.")
rows = [["claim", "verdict", "what was found"]]
rows += claims[["statement", "found", "effect"]].itertuples(index=False, name=None)
display(Markdown(markdown_table(rows, numbers=False)))

# %% [markdown]
# ## Exercises
#
# **1. The slope of entropy.** `my_entropy_slope(probs, rewards)`: the chances of a softmax's actions and their rewards
# in; out comes the change of its entropy per unit of a small natural-gradient step, which is $-\mathrm{Cov}(\log \pi,
# r)$ over actions drawn from $\pi$.


# %%
from checkers.relatives import check_entropy_slope, check_hypotheses_value


def my_entropy_slope(probs, rewards): ...


_ = check_entropy_slope(my_entropy_slope)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_entropy_slope(probs, rewards):
#     import math
#
#     def mean(values):
#         return sum(p * value for p, value in zip(probs, values, strict=True))
#
#     logs = [math.log(p) for p in probs]
#     both = mean([log * reward for log, reward in zip(logs, rewards, strict=True)])
#     return mean(logs) * mean(rewards) - both
# ```
#
# It is negative where the likely actions are the good ones.
#
# </details>
#
# **2. Hypotheses.** `my_hypotheses_value(values, priors, observed, predicted, beta)`: BARL's weight of an action. Each
# hypothesis $i$ has the action's value $Q_i$ in `values` and its prior in `priors`. `observed` holds the rewards so
# far, `predicted[i]` those that $i$ would have had. The weight is $\sum_i Q_i \cdot \mathrm{prior}_i \cdot \prod_t
# \exp(-\beta\,|r_t - r_{it}|)$.


# %%
def my_hypotheses_value(values, priors, observed, predicted, beta): ...


_ = check_hypotheses_value(my_hypotheses_value)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_hypotheses_value(values, priors, observed, predicted, beta):
#     import math
#
#     total = 0.0
#     for value, prior, own in zip(values, priors, predicted, strict=True):
#         gap = sum(abs(seen - foreseen) for seen, foreseen in zip(observed, own, strict=True))
#         total += value * prior * math.exp(-beta * gap)
#     return total
# ```
#
# With one hypothesis, the truth, the product is always one, and the weight is ordinary RL's.
#
# </details>
#
# ## Summary
#
# - Entropy falls in a step by the covariance of likelihood and advantage. A law that ties accuracy to it holds where a
#   policy learns by becoming sure, and not where it learns to search.
# - Terms of entropy are no weights of the tokens that were drawn. Clip-Cov's mask is, and reads likelihoods.
# - An objective over several hypotheses teaches to try them in turn. It changes what is asked for, not how the gradient
#   is made.
# - More than half of the methods here are in name only by the form of their weights. More than a method, it takes a
#   task in which something else writes what was not known.
# - **Not settled yet**: whether IBRO, Clip-Cov and KL-Cov keep entropy without loss here, and what a bonus for length
#   buys. They train by `rlino train`; their grids of runs are planned.
