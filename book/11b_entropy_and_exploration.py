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
# # 11b · Entropy, exploration, and the atlas
#
# **Which of them is RL in more than name?**
#
# **The answer.** ANSWER
#
# Chapter 11 asked of preferences and of a model's own rewards what a token's weight depends on. Here are the rest: terms
# of entropy, rewards for exploring, an objective that plans to find out, and systems in which the language model is not
# the one that decides. At the end stands a table of every method in this book. You need chapters 04, 06 and 11.

# %% [markdown]
# ## Entropy
#
# A policy that is trained on verdicts becomes surer, and what is no longer sampled can no longer be reinforced. On large
# models the two were found to be tied by a law: $R = -a\,e^{H} + b$
# ([2505.22617](https://arxiv.org/abs/2505.22617)). Accuracy $R$ is bought with entropy $H$, and the ceiling is $b - a$, at
# $H = 0$. If the law holds, the first steps of a run tell how it ends. Every run of this book has both columns on record.

# %%

# %% [markdown]
# **What to look at.** How far the dashed part of each line ends from its last mark.
#
# On word problems the law does what it says, within a few points. Entropy falls there as accuracy rises. On Countdown it
# fails: entropy hardly moves while accuracy doubles. There the policy learns to go on trying, and a search is no surer
# of its next number than before. So the law is one of policies that learn by becoming sure. (Part of the slope is not
# learning: in a batch of easy problems entropy is low and accuracy high.)
#
# ### Why it falls
#
# For one softmax the change of entropy in a step is, to first order, minus the step size times a covariance: that of
# $\log \pi$ with $\pi A$ for the policy gradient, with $A$ for the natural gradient. Where likely actions are the good
# ones, entropy falls. Where the good action is an unlikely one, it rises first.

# %%

# %% [markdown]
# Three repairs follow from that. IBRO ([2507.18391](https://arxiv.org/abs/2507.18391)) adds each token's entropy times
# its advantage: it asks for entropy where things go well. *Clip-Cov* takes the gradient from a few tokens of high
# covariance. *KL-Cov* holds the highest of them to the policy that sampled them.

# %%
for name in ("grpo_entropy", "ibro", "clip_cov", "kl_cov"):
    print(OBJECTIVES[name], "\n")

# %% [markdown]
# An entropy's gradient is no weight of the token that was drawn: it moves all entries of the distribution. So IBRO, like
# an entropy bonus, is more than weighted supervised learning. Clip-Cov still is one, with a mask that reads likelihoods.
# KL-Cov does nothing at one update a batch, where $\log \rho = 0$ has no slope: a second update is what it needs.
