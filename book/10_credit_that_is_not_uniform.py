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
# # 10 · Credit that is not uniform
#
# **What does it buy to credit each step with what it changed?**
#
# **The answer.** With exact values it makes a gradient steadier where much is decided inside a response. With a few
# continuations little of that is left, and they cost more samples than they save. On word problems VinePPO ends where
# RLOO does at equal updates, as far as eight seeds can tell, and is behind at equal tokens. PPO ends below both where
# it trusts its critic's values of later states, of which a critic learns little in so short a run. The runs on
# Countdown are not made yet. In the ledger: `vine-per-update` is undecided, `vine-per-token` holds, `critic-is-poorer`
# holds, `vine-equal-countdown` is not testable here.
#
# The paper of this book ([2505.13697](https://arxiv.org/abs/2505.13697)) assumes that a response's reward is split
# evenly over its tokens. Chapter 01 showed what that costs: the expected update stays as it is, and noise is added.
# Here we ask how much of the noise better credit takes away, and at what price. A step is credited with what it
# changed: the value of the state after it, less the value of the state before it.
#
# What that needs is a value of every state on the way. It can be sampled (VinePPO), learned by a critic (PPO), or, in
# toys, computed exactly. You need chapters 01 and 04.

# %%
from pathlib import Path

import pandas as pd
from IPython.display import Markdown, display

from rlino_lib.analysis.credit import (
    accuracy_at,
    best_of_next,
    budget_curve,
    sampled_tokens,
    sd_ratios,
    share_within,
    value_errors,
)
from rlino_lib.analysis.statistics import final_accuracy
from rlino_lib.claims.credit import credit_runs, is_measured, values_of
from rlino_lib.claims.families import runs_named
from rlino_lib.claims.judge import judge_all
from rlino_lib.claims.ledger import RECORDED
from rlino_lib.claims.verdicts import mean_in_words
from rlino_lib.exact import credit_toy
from rlino_lib.figures.credit import budgets_figure, credit_figure, sd_figure, value_errors_figure
from rlino_lib.figures.recorded import ends_table, markdown_table, say
from rlino_lib.figures.style import label, style
from rlino_lib.folders import read_json
from rlino_lib.methods.catalogue import OBJECTIVES, varied
from rlino_lib.methods.token_credit import CUTS, VALUES
from rlino_lib.paths import DATA, DEFAULT_BASE, base_of

style()
pd.set_option("display.max_colwidth", None)

# %% [markdown]
# ## The credit of a step
#
# Let $s_k$ be the state in which step $k$ begins: the prompt and all that was written before. Its value $V(s_k)$ is the
# chance that the policy, going on from there, ends right. Then
#
# $$A_k = V(s_{k+1}) - V(s_k), \qquad \sum_k A_k = r - V(s_0),$$
#
# with $V(s_n) := r$ after the last step. Every token of a step carries its step's credit. *Uniform* credit in this
# chapter is that of RLOO and GRPO: $r$ less a baseline, about $r - V(s_0)$, on every token. Over steps, credit
# *distributes* that amount: a step that changes nothing gets nothing.
#
# Generalised advantage estimation (GAE, [1506.02438](https://arxiv.org/abs/1506.02438)) interpolates. It credits a step
# with $\sum_l \lambda^l A_{k+l}$: with $\lambda = 0$ that is $A_k$, with $\lambda = 1$ it is $r - V(s_k)$.
#
# Is the gradient still the right one? If $V$ is estimated from fresh continuations of the policy itself, yes, however
# few they are. $\hat V(s_k)$ knows nothing of step $k$, so it is a baseline. $\hat V(s_{k+1})$ has the mean
# $V(s_{k+1})$. (This takes a sum over tokens, and no whitening of advantages. The runs below divide by the tokens of
# their batch, which ties the scale of a step to lengths.) A critic has systematic errors, and with $\lambda < 1$ they
# bias the gradient.
#
# Each method is a row of the same table as those of chapter 04. Two of them have runs below.

# %%
for name, settings in (("vineppo", {"beta": 0.0, "value_samples": 3}), ("vc_ppo", {})):
    print(varied(name, {"whiten": False} | settings), "\n")
rows = [["method", "V of a step's start", "a step begins at", "K", "λ"]]
for name in ("vineppo", "spo_chain", "step_verifier", "ppo", "vc_ppo"):
    o = OBJECTIVES[name]
    k = str(o.value_samples) if o.values == "continuations" else "–"
    rows.append([label(name), VALUES[o.values], CUTS[o.cuts], k, f"{o.lam:g}"])
display(Markdown(markdown_table(rows, numbers=False)))

# %% [markdown]
# PPO and VC-PPO differ in the λ of the critic's own target: 0.95 and 1. SPO-chain
# ([2505.23564](https://arxiv.org/abs/2505.23564)) cuts where the policy was unsure. TreeRL
# ([2506.11902](https://arxiv.org/abs/2506.11902)) branches there; its values are shares of right leaves.
#
# ## A chain by hand
#
# Three steps, each right with a chance of 0.4. One mistake is fatal, but the response does not know it and writes on.
# From the start the value is $0.4^3 = 0.064$; after one right step it is 0.16, after two 0.4; after a mistake it is 0.
#
# Take a response that makes its mistake in the second step. What does each step get?

# %%
before = [0.4**3, 0.4**2, 0.0]  # before each step
steps = pd.DataFrame({"V before": before, "V after": [*before[1:], 0.0]}, index=["right", "wrong", "right, too late"])
steps["its own credit"] = steps["V after"] - steps["V before"]
steps["uniform credit"] = 0.0 - before[0]
display(steps.round(3))

# %% [markdown]
# **What to look at.** The columns of credit. The first step is praised. The second is blamed for all that was lost. The
# third gets nothing, since nothing was left to lose. Uniform credit blames all three alike.
#
# ## Does it help?
#
# Both credits have the same expectation: the gradient of the chance of success. They differ in variance, and in price.
# For toys as small as these the variance of a gradient is a sum over all responses, with no sampling. Take a group of
# eight responses to one problem. RLOO takes each one's baseline from the seven others. VinePPO estimates each $V(s_k)$
# from $K$ continuations, once for all responses that pass through $s_k$. That saves samples, and has a price of its
# own: these responses share the error of $\hat V$, which their mean does not average out. (A continuation counts as one
# sampled response.)
#
# There are two kinds of toys. In a *chain* a mistake is fatal. In a *search* an attempt hits with some chance, and
# after a miss the policy may try again. This is Countdown, and the search is fitted to the base's own attempts and
# accuracy. It comes twice. In the first the policy learns only to hit. In the second it also learns whether to try
# again.

# %%
base = read_json(Path(DEFAULT_BASE) / "evaluation.json")["found"]
attempts, p = base["attempts_per_response"], base["pass@1"]["value"]
say(f"The base of Countdown makes {attempts:.2f} attempts a response and is right in {p:.1%} of its responses.")
p_words = read_json(Path(base_of("word_problems")) / "evaluation.json")["found"]["pass@1"]["value"]
say(f"That of word problems is right in {p_words:.0%}: three steps of {p_words ** (1 / 3):.2f}, if it were a chain.")
TOYS = {
    "chain: 3 steps of 0.4": credit_toy.chain(3, 0.4),
    "chain: 3 steps of 0.75": credit_toy.chain(3, 0.75),
    "search: learns to hit": credit_toy.fitted_search(attempts, p),
    "search: decides as well": credit_toy.fitted_search(attempts, p, decides=True),
}
table = credit_toy.credit_table(TOYS)

# %% alt="Four panels, two chains and two searches: the standard deviation of the gradient of a group of eight, RLOO being 1, against the continuations per state, 1, 3 and 9, on logarithmic axes. A line for VinePPO falls towards the level of exact values; a second line, VinePPO at as many sampled responses as RLOO, lies above 1 throughout and rises."
credit_figure(table)

# %%
rows = [["sd, RLOO = 1", "exact values", "no baseline", "K = 3", "K = 9", "RLOO with as many samples as K = 9"]]
for toy, part in table.groupby("toy", sort=False):
    ratio = part.set_index(["credit", part["K"].fillna(0)])["ratio"]
    cost = part.set_index(["credit", part["K"].fillna(0)])["cost"]
    numbers = ratio["exact", 0], ratio["reinforce", 0], ratio["vine", 3], ratio["vine", 9], cost["vine", 9] ** -0.5
    rows.append([toy, *(f"{x:.2f}" for x in numbers)])
display(Markdown(markdown_table(rows)))

# %% [markdown]
# **What to look at.** Where the solid line dips below 1. The dashed line with triangles, VinePPO at as many sampled
# responses as RLOO, never does.
#
# With exact values the credit of steps varies less in the hard chain: much is decided in its middle. Three
# continuations give most of that away again. In the easy chain they are worse than RLOO, and even exact values gain
# little. (No baseline at all gains more there. A right step of 0.75 has a small gradient, a wrong one a large one, and
# without a baseline the wrong ones count nothing.) In the search that only learns to hit, exact values do no better
# than RLOO: after a miss the policy stands where it stood before, so there is nothing to assign. Where it also decides
# whether to go on there is something: giving up after a miss throws the value away.
#
# Per *sampled* response RLOO is better everywhere. More responses are the simplest way to a smaller variance, and the
# continuations could have been responses. What is left for VinePPO is where updates are dear and samples are cheap.
#
# What do the toys predict of the runs? The ledger's predictions were written before them: on word problems a gain per
# update, on Countdown none, and a loss per token on both. The first had the hard chain in mind, and single responses,
# which share no error. The base is closer to the easy chain, where three continuations gain nothing.
#
# ### The same, of a model
#
# `rlino gradients` asks it of the two bases, as they are before training. Their test problems are sorted by how many of
# their samples are right. To each of 24 of a class come 12 groups of 8 responses, and every group gives two gradients:
# by RLOO's credit and, from the same responses, by that of VinePPO with three continuations. How much do the gradients
# of one problem vary?

# %% alt="The standard deviation of the gradient under VinePPO over that under RLOO, a row for hard, middle and easy problems, a mark for each task with its 95 percent interval over problems. On Countdown all are below 1; on word problems the middle row is above 1."
measured_sds = [
    sd_ratios(pd.read_csv(Path(base_of(task)) / "credit-sd" / "gradients.csv")).assign(task=task)
    for task in ("word_problems", "countdown")
]
sd_figure(pd.concat(measured_sds))

# %% [markdown]
# **What to look at.** Which marks are left of 1.
#
# On word problems only the hard ones may be, and the middle ones are worse than under RLOO. That is what the chains
# say, with three continuations. On Countdown all are left of 1: there is something to assign in a search after all, as
# in the toy that also decides whether to go on. Whether a gradient that varies by a tenth or two less is worth its
# samples is a question for the runs.
#
# ## One response, four credits
#
# Now single responses, of the base of word problems. A step is a line. We also need a critic: a copy of the model
# with a linear head, which learns from the returns of the base's responses while the base itself stays as it is. Its
# *explained variance* says what share of the spread of returns its values account for.

# %%
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.trainer import Trainer
from rlino_lib.training.values import explained
from rlino_lib.widgets import credit_explorer

WARMUP = 12
config = TrainConfig(
    method="vc_ppo", task="word_problems", steps=WARMUP, critic_warmup=WARMUP, prompts=16, group_size=8,
    max_new_tokens=64, eval_every=0,
)  # fmt: skip
trainer = Trainer(config)
learned = [trainer.step()[0]["critic/explained_variance"] for _ in range(WARMUP)]
say(
    f"The critic explains {learned[0]:.0%} of the variance of returns before it has learned, and "
    f"{sum(learned[-4:]) / 4:.0%} over the last four of {WARMUP} batches of {16 * 8} responses."
)

# %%
rollouts = trainer.sample(WARMUP + 1)
plain = {"whiten": False}
CREDITS = {
    "uniform (RLOO)": varied("rloo", {"kl_in_reward": 0.0}),
    "64 continuations": varied("vineppo", plain | {"beta": 0.0, "value_samples": 64}),
    "critic": varied("vc_ppo", plain | {"lam": 0.0}),
    "ideal solver": OBJECTIVES["step_verifier"],
}
responses = explained(trainer, rollouts, CREDITS)
wrong_first = sorted(responses[:64], key=lambda response: response["correct"])
credit_explorer(wrong_first[:12])

# %% [markdown]
# **What to look at.** A wrong response. Which line is blamed?
#
# Uniform credit blames every token. Continuations blame the line in which the mistake was made, often by a single wrong
# number, and leave the lines before it alone. The values of an *ideal solver*, which makes no mistakes from there on,
# agree about the place: one line gets all the blame. (They are computed, and they are not the policy's values: 1 before
# a mistake, 0 after it.) The critic has seen some 1,500 responses and explains nothing yet. It spreads small numbers
# over many tokens, and does not notice the mistake. The rest comes with the last token, where the reward is. (Values
# stand in the tooltips, and are a second colour.)
#
# ## What it bought
#
# The runs: RLOO, VinePPO with three continuations, and PPO with VC-PPO's two values of λ
# ([2503.01491](https://arxiv.org/abs/2503.01491)): 0.95 for the policy, 1 for the critic's target. (Figures and tables
# call it VC-PPO, and the text PPO.) They differ in credit alone, and in the critic's first batches: 150 updates of 8 ×
# 8 responses, a token mean, no KL. The learning rate is the best of three after 100 updates of one seed. VC-PPO's main
# ingredient, a critic trained on far more responses first, is what these runs do not have: here it learns alone for 20
# steps, with the critic's default rate.
#
# ```sh
# rlino grid data/runs/credit-lr.json
# rlino grid data/runs/credit-word_problems.json
# rlino grid data/runs/credit-countdown.json
# ```

# %%
METHODS = ("rloo", "vineppo", "vc_ppo")
by_task = {task: credit_runs(task, RECORDED, *METHODS) for task in ("word_problems", "countdown")}
frames = []
for task, by_method in by_task.items():
    for method, by_seed in by_method.items():
        for seed, run in by_seed.items():
            curve = budget_curve(run)
            curve["updates"] = (curve["updates"] - run.config.get("critic_warmup", 0)).clip(lower=0)
            frames.append(curve.assign(task=task, method=method, seed=seed))
curves = pd.concat(frames)

# %% alt="Accuracy on test problems in percent against updates of the policy and against millions of tokens sampled, for RLOO, VinePPO and VC-PPO, with ranges over seeds; a row of two panels for each task."
budgets_figure(curves)

# %%
TOKENS = {"tokens sampled, millions": lambda run: sampled_tokens(run).iloc[-1] / 1e6}
for task, by_method in by_task.items():
    if runs := {label(method): by_seed for method, by_seed in by_method.items() if by_seed}:
        display(Markdown(f"**{task.replace('_', ' ').capitalize()}**\n\n{ends_table(runs, 'RLOO', TOKENS)}"))
bench = read_json(DATA / "bench" / "credit-avx2.json")
for task, by_method in by_task.items():
    slower = bench[f"{task}_ratio"]
    gaps = []
    for seed in set(by_method["vineppo"]) & set(by_method["rloo"]):
        end = budget_curve(by_method["rloo"][seed]).iloc[-1]
        gaps.append(accuracy_at(by_method["vineppo"][seed], "updates", end["updates"] / slower) - end["accuracy"])
    if len(gaps) > 1:
        say(
            f"{task}: an update of VinePPO takes {slower:.1f} times as long as one of GRPO (idle machine, 32 × 8 "
            f"responses). At equal time by that ratio, VinePPO less RLOO is {mean_in_words(pd.Series(gaps))}."
        )
critics = by_task["word_problems"]["vc_ppo"]


def variance_explained(run):
    """The share of the variance of returns that a critic explains in its last 20 steps; NaN without a critic."""
    columns = run.metrics.filter(items=["critic/explained_variance"])
    return columns.tail(20).mean().get("critic/explained_variance", float("nan"))


share = sum(map(variance_explained, critics.values())) / len(critics)
say(f"These critics explain {share:.0%} of the variance of returns in their last 20 updates.")
vine = by_task["word_problems"]["vineppo"]
gaps = pd.Series([final_accuracy(vine[seed]) - final_accuracy(critics[seed]) for seed in set(vine) & set(critics)])
say(f"VinePPO less PPO, word problems: {mean_in_words(gaps)}.")

# %% [markdown]
# **What to look at.** The same curves over two budgets, then the column of differences.
#
# Over updates, VinePPO and RLOO coincide, and PPO ends below them. Against PPO, then, the VinePPO paper's finding is
# seen here, though with a critic that explains next to nothing. Over tokens, VinePPO is stretched to the right, and is
# behind both: its continuations take more tokens than its responses. The seconds of these runs say little, for they
# shared their machine with other work. `rlino bench credit` measures a step of each on an idle one, of 32 × 8
# responses: by that clock, too, VinePPO is behind.
#
# ### Other credits, other critics
#
# The same word problems again, by credits of other kinds. Nothing was claimed of them beforehand, so this table is
# exploratory. The ideal solver's values cannot be had in any real task. *Unlikely tokens alone* is RLOO with
# SPO-chain's mask and nothing else of it. GRPO-λ credits tokens by their place, and knows nothing more than GRPO does.
# PPO is the one above, in which a critic warms up while the policy waits.
#
# ```sh
# rlino grid data/runs/credit-more.json
# ```

# %%
OTHERS = {
    "VinePPO, 9 continuations": "vineppo-k9", "ideal solver's values": "step_verifier",
    "optimal token baseline": "optimal_baseline", "SPO-chain, 3 continuations": "spo_chain",
    "unlikely tokens alone": "rloo-unlikely", "GRPO-λ": "grpo_lambda", "PPO, λ = 1": "ppo-lam1",
    "PPO, no warm-up": "vc_ppo-warmup0", "PPO, warm-up of 50": "vc_ppo-warmup50",
}  # fmt: skip
others = {words: runs_named("credit-more", name, RECORDED) for words, name in OTHERS.items()}
seeds = sorted(set.intersection(*map(set, others.values())))
known = {"RLOO": "rloo", "VinePPO, 3 continuations": "vineppo", "PPO, λ = 0.95, warm-up of 20": "vc_ppo"}
known = {words: {seed: by_task["word_problems"][method][seed] for seed in seeds} for words, method in known.items()}
columns = TOKENS | {"of the returns' variance explained": variance_explained}
display(Markdown(ends_table(known | others, "RLOO", columns)))

# %% [markdown]
# **What to look at.** The column of differences.
#
# Better values buy nothing that five seeds can tell: neither nine continuations nor an ideal solver's values. So it is
# not for want of values that credit by steps brought no gain. PPO with λ = 1 ends where RLOO does. There the critic is
# a baseline and no more; with λ = 0.95 its values stand in for the outcome, and its errors become the policy's. A
# longer warm-up does not mend that.
#
# Above RLOO by an interval without zero are SPO-chain's mask, by little, and the *optimal token baseline*. That has no
# values at all: it is RLOO whose baseline weighs each of the other rewards by the size of that response's gradient so
# far. Of many rows that nobody planned, one or two stand out by chance. This is a hint that asks for seeds of its own.
#
# ## Are the values any good?
#
# A credit is as good as its values. `rlino values RUN` takes the policy at the end of a PPO run and its critic, and
# compares the critic's values with those of 1, 3 and 9 continuations. The truth is 256 other continuations.

# %%
measured = {seed: values_of(run) for seed, run in critics.items() if is_measured(run)}
names = {"chance": "one number for all", "critic": "critic", "k1": "1 continuation", "k3": "3", "k9": "9"}
rows = [["", "within 0.1 of the value, %", "mean error", "finds the best next line, %"]]
for name, words in names.items():
    tables = [v.assign(chance=v["truth"].mean()) for v in measured.values()]
    within, best, error = (
        sum(measure(v, name) for v in tables) / len(tables)
        for measure in (share_within, best_of_next, lambda v, name: (v[name] - v["truth"]).abs().mean())
    )
    rows.append([words, f"{within:.0f}", f"{error:.2f}", f"{best:.0f}"])
display(Markdown(markdown_table(rows)))
say(f"Means over {len(measured)} seeds, of {sum(map(len, measured.values())) / len(measured):.0f} states each.")

# %% alt="The share of states whose value an estimate hits within 0.1, against the number of steps before the state: lines for 9, 3 and 1 continuations and for the critic, each with the range over seeds."
value_errors_figure(pd.concat([value_errors(v).assign(seed=s) for s, v in measured.items()]))

# %% [markdown]
# **What to look at.** The order of the rows, and the critic's place in it.
#
# A few continuations are noisy: a single one says 0 or 1. Over all states even that is close to the value more often
# than the critic, and nine are so in most. At the prompt itself the critic is better than one or three continuations,
# and worse than nine. Along a response continuations get better and the critic worse: near the end most values are
# close to 0 or 1, where continuations agree, and the critic still says something in between. It picks the best of a
# problem's next lines no more often than one number for all states would, which takes any of them.
#
# The critic has seen ten thousand responses, one batch at a time. Whether a pretrained one would do better is not
# tested here.
#
# ## What the papers say, and what was found
#
# The paper's fourth version has PPO beside GRPO and finds them alike. VinePPO
# ([2410.01679](https://arxiv.org/abs/2410.01679)) reports that critics are poor, that nine continuations are better
# values, and that the policy gets better than PPO's in fewer updates, and in less time. In that paper updates cost much
# more than samples; here they do not. The first two are seen here, and the third against PPO by updates, not against
# RLOO. Time against PPO was not measured. The table is what planned tests say, corrected for their number. The
# sentences under it go by 95 % intervals, uncorrected.

# %%
claims = judge_all(evidence="credit.")
columns = ["statement", "found", "effect"]
rows = [["claim", "verdict", "what was found"], *claims[columns].itertuples(index=False, name=None)]
display(Markdown(markdown_table(rows, numbers=False)))

# %%
from rlino_lib.claims.credit_answers import answers

display(Markdown("\n".join(f"- {sentence}" for sentence in answers(RECORDED))))

# %% [markdown]
# **What to look at.** The three sentences say what this chapter and the next come to: what credit by steps bought, at
# what price, and when the other assumption falls. Their words follow from intervals over the seeds that are recorded.
# An environment that writes into the state is the subject of chapter 10b.
#
# ## Exercises
#
# **1. The credit of a step.** `my_vine_advantages(reward, values)`: the values before each of T steps and the reward
# in, T advantages out.

# %%
from checkers.credit import check_gae, check_vine_advantages


def my_vine_advantages(reward, values): ...


_ = check_vine_advantages(my_vine_advantages)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_vine_advantages(reward, values):
#     return [after - before for before, after in zip(values, [*values[1:], reward])]
# ```
#
# They add up to the reward less the first value.
#
# </details>
#
# **2. Between the two.** `my_gae(reward, values, lam)`: generalised advantages of a response with a reward at its end.


# %%
def my_gae(reward, values, lam): ...


_ = check_gae(my_gae)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_gae(reward, values, lam):
#     advantages, later = [], 0.0
#     for before, after in reversed(list(zip(values, [*values[1:], reward]))):
#         later = after - before + lam * later
#         advantages.insert(0, later)
#     return advantages
# ```
#
# </details>
#
# ## Summary
#
# - Credit by steps distributes what uniform credit gives to every token, $r - V(s_0)$. It creates nothing.
# - It is unbiased with any number of continuations. With good values it varies less where much is decided inside a
#   response; a few continuations give most of that away. In the same number of samples RLOO varies less in every toy.
# - A critic has to learn the values before it can assign anything, and a short run does not teach it.
# - On word problems credit by steps bought nothing per update that eight seeds can tell, and cost more tokens than it
#   was worth. Better values did not help it (exploratory). Whether it is RLOO's equal on Countdown awaits its runs.
# - The other assumption falls in chapter 10b: an environment that writes into the state.
