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
# # 10b · An environment that writes
#
# **When is the MDP of a language model no bandit?**
#
# **The answer.** Where something writes into the text what could not be known before. A calculator does not: the best
# response is still fixed beforehand. A look at a hidden target does: the best policy that reads it is far better, until
# nearly all looks are lies. The update stays weighted cross-entropy on the policy's own tokens, and teaches it to ask.
# A loss over all tokens ends lower, and restarts from wrong attempts add nothing that could be told from chance. In the
# ledger: `closed-loop` holds, `trained-closed-loop` holds, `one-stage` holds, `environment-learned` holds,
# `mask-by-writer` holds, `restarts-repair` is undecided.
#
# The paper of this book ([2505.13697](https://arxiv.org/abs/2505.13697)) assumes that a state is the text so far, and
# that it changes by the policy's tokens alone. Then a response is an arm of a bandit. But interpreters, search engines
# and users write into the text as well. Chapter 01 showed that this alone changes little: what a deterministic tool
# writes follows from the prompt and from what was written, so the best response is still an arm. A search engine over
# fixed documents is news to the model, and not to the best arm.
#
# The assumption falls where what is written does *not* follow from the text before it. This chapter takes it away, as
# chapter 10 took away uniform credit. You need chapters 01, 04 and 06.

# %%
from pathlib import Path

import pandas as pd
import torch
from IPython.display import Markdown, display

from rlino_lib.analysis.statistics import final_accuracy, t_interval
from rlino_lib.claims.environment import repair_rate
from rlino_lib.claims.families import runs_named
from rlino_lib.claims.judge import judge_all
from rlino_lib.claims.ledger import RECORDED
from rlino_lib.evaluation.graded import sample_graded
from rlino_lib.exact.hidden_target import optima
from rlino_lib.figures.environment import MASK_LOOKS, START_LOOKS, masks_figure, optima_figure, repair_figure
from rlino_lib.figures.recorded import markdown_table, say
from rlino_lib.figures.style import style
from rlino_lib.folders import read_json
from rlino_lib.paths import base_of
from rlino_lib.policy.models import load_policy
from rlino_lib.tasks import Countdown, HiddenTarget

style()
pd.set_option("display.max_colwidth", None)

# %% [markdown]
# ## A target that has to be asked for
#
# The task is Countdown, and its target is hidden. The prompt has a question mark in its place. The policy may write the
# token `look`. Then the environment writes `<target> 24 </target>` and a line break, and the policy goes on from there.
# The answer is graded against the true target. A look may lie: with probability *s* it names another of the numbers
# that can be made. A second look repeats the first, so asking again does not help.
#
# The base of this task has learned from demonstrations of which a fifth look. Here are eight responses to each of
# eight problems. A frame marks what the environment wrote.

# %%
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.methods.credit import Graded, credit
from rlino_lib.methods.loss import token_weights
from rlino_lib.training.traces import trace_rows
from rlino_lib.widgets import trace_inspector

grpo = OBJECTIVES["grpo_no_kl"]
base = load_policy(base_of("hidden_target"))
task = HiddenTarget(lies=0.2)
batch = sample_graded(base, task, task.problems("train", 8), 8, seed=3, max_new_tokens=64)
graded = Graded(batch.rewards, batch.group_size, batch.mask, batch.logprobs)
advantages = credit(grpo, graded).advantages  # [N]
by_response = {"advantage": advantages, "weights": token_weights(grpo, advantages, batch.mask)}
rows = trace_rows(batch, by_response, step=0, groups=8, tokenizer=base.tokenizer)
looks = (batch.written & ~batch.mask).any(1)  # [N]
seen, unseen = batch.correct[looks], batch.correct[~looks]
say(f"{len(seen)} of {len(looks)} responses look. Of those {seen.sum()} are right, of the others {unseen.sum()}.")
trace_inspector(pd.DataFrame(rows))

# %% [markdown]
# **What to look at.** A response with a frame, and the colours inside it.
#
# The environment's tokens have no weight: they are not the policy's, so there is nothing to make likelier. A response
# that does not look has to guess a target, and says so: `guess 48`. It may be right for all that, since only a few
# targets can be made from its numbers.
#
# ## No response fixed beforehand
#
# What is reading worth? If $R$ targets can be made from a problem's numbers, equally likely, the best response that is
# fixed beforehand names one of them: it is right with probability $1/R$. The best *policy* looks, and answers what it
# has read: it is right with probability $1 - s$. (Where nearly every look is a lie, it rules one target out instead.)
# Both are sums over all targets, with no sampling. Marks are policies that were trained; we come to them below.

# %%
TEST = HiddenTarget().problems("test")
LIES = [k / 20 for k in range(21)]
best = optima(TEST, LIES)
MASKS = {mask: words for mask, (words, _) in MASK_LOOKS.items()}
kinds = [(mask, s) for s in (0.0, 0.2) for mask in MASKS]
by_kind = {(mask, s): runs_named("environment", f"{mask}-lies{s:g}", RECORDED) for mask, s in kinds}
trained = {kind: runs for kind, runs in by_kind.items() if len(runs) > 2}  # seeds
ends = pd.DataFrame(
    [
        (mask, s, seed, run.summary["test"]["pass@1"]["value"])
        for (mask, s), by_seed in trained.items()
        for seed, run in by_seed.items()
    ],
    columns=["mask", "lies", "seed", "accuracy"],
)

# %% alt="Share right in percent against the chance s of a lie. The line of the best policy falls from 100 towards 15 percent, that of the best fixed response is level at about 13 percent. Marks at s = 0 and at s = 0.2, one for each of three masks of the loss, are trained policies with their ranges over seeds."
optima_figure(best, ends)

# %%
at = best.set_index(["tool", "lies"])
rows = [["", "the best policy that reads, %", "the best fixed response, %", "gap"]]
for tool, s in (("look", 0.0), ("look", 0.2), ("look", 0.5), ("look", 0.9), ("calculator", 0.0)):
    policy, response, gap = (100 * at.loc[(tool, s), ["policy", "response", "gap"]]).tolist()
    rows.append([f"{tool}, s = {s:g}" if tool == "look" else tool, f"{policy:.1f}", f"{response:.1f}", f"{gap:.1f}"])
display(Markdown(markdown_table(rows)))

# %% [markdown]
# **What to look at.** The gap between the two lines, and the last row of the table.
#
# With honest looks the gap is most of the scale. It shrinks as lies become frequent, and on each problem it is gone at
# $s = 1 - 1/R$. In the last row a *calculator* writes the results of the policy's sums into the same responses. Its gap
# is zero by construction: it writes what the response could have held from the start. It is not the tool that leaves
# the bandit, but the news.
#
# In training each problem has one fixed target, which a model could memorise. Only problems that it has not seen show
# whether it reads.
#
# ## Whose tokens?
#
# Nothing in the derivation of chapter 06 needs the policy to have written every token. The log-probability of a
# trajectory is a sum of $\log \pi$ over the policy's tokens, and of terms of the environment's that have no parameter
# $\theta$ in them. So the identity survives, with a loss mask by *who wrote the token*, which is Search-R1's
# ([2503.09516](https://arxiv.org/abs/2503.09516)). Here it is on a batch of 32 responses, in double precision.

# %%
from rlino_lib.exact.identities import float64_copy, grpo_is_weighted_sft, table

small = sample_graded(base, task, task.problems("train", 4), 8, seed=3, max_new_tokens=48)
exact_model = float64_copy(base.model)
display(table(grpo_is_weighted_sft(exact_model, small)))

# %% [markdown]
# **What to look at.** The gaps: they are rounding errors. The problem is no bandit any more, and yet the update is
# still weighted cross-entropy on the model's own samples.
#
# A mask by who wrote the token has to be carried from the sampler to the loss. It is tempting to look for delimiters in
# the text instead. R1-Searcher's code does ([2503.05592](https://arxiv.org/abs/2503.05592)): everything between two
# delimiters is left out. So whatever the environment writes outside of them stays in the loss. Here that is one token,
# the line break after `</target>`. And what a policy writes inside delimiters of its own would be left out.
#
# What does a token that slips through do? If the environment draws it from $P$, the model predicts $\pi$, and the
# response's mean advantage after it is $A$, the expected gradient in the model's logits there is
#
# $$P \circ A - \pi \; \mathrm{E}_P[A].$$
#
# It vanishes where $\pi$ is already $P$ tilted by the advantage, $\pi = P \circ A / \mathrm{E}_P[A]$. (That is a
# distribution only where $A$ has one sign. Where it has both, the term never vanishes.) Else it makes
# the model write what the environment writes where that goes well, and the opposite where it does not. Those tokens are
# forced, so this alone would do no harm. But all tokens share their parameters.

# %%
from rlino_lib.exact.hidden_target import environment_term, masks_compared
from rlino_lib.training.masks import delimiter_ids

P = torch.tensor([0.8, 0.1, 0.1], dtype=torch.float64)  # the true target, and two lies
CASES = {
    "π = P, and what is written makes no difference": (P, [0.5, 0.5, 0.5]),
    "π even, and what is written makes no difference": (torch.full_like(P, 1 / 3), [0.5, 0.5, 0.5]),
    "π = P, and only the truth helps": (P, [0.9, -0.1, -0.1]),
}
rows = [["", "the truth", "a lie", "another"]]
for name, (policy, advantage) in CASES.items():
    term = environment_term(P, policy, torch.tensor(advantage, dtype=torch.float64))
    rows.append([name, *(f"{x:+.2f}" for x in term.tolist())])
display(Markdown(markdown_table(rows)))

compared = masks_compared(exact_model, batch, grpo, delimiter_ids(task, base.tokenizer))
rows = [["loss over", "cosine with the first", "norm, the first = 1", "share of Σ|w| on the environment's tokens, %"]]
for row in compared.itertuples():
    rows.append([MASKS[row.mask], f"{row.cosine:.2f}", f"{row.norm:.2f}", f"{100 * row.foreign:.1f}"])
display(Markdown(markdown_table(rows)))

# %% [markdown]
# **What to look at.** In the first table, the only row of zeros. In the second, the last column beside the first: a
# small share of the weight turns the gradient far. The base was never trained to write any of these tokens, not even
# the line break that is always the same. So each of them has nearly the full gradient $1 - \pi$ in its logits, while
# most of the policy's own tokens are expected, and have little.
#
# ## What training makes of it
#
# GRPO without KL, from this base, under each of the three masks, with honest looks and with a fifth of lies: ten seeds
# of 150 updates each.
#
# ```sh
# rlino grid data/runs/environment.json
# ```

# %%
COLUMNS = {f"eval/{name}": name for name in ("accuracy", "consulted", "environment_logprob")}
frames = []
for (mask, s), by_seed in trained.items():
    for seed, run in by_seed.items():
        evaluations = run.metrics[["step", *COLUMNS]].dropna(subset="eval/accuracy").rename(columns=COLUMNS)
        frames.append(evaluations.assign(mask=mask, lies=s, seed=seed))
curves = pd.concat(frames)
curves["accuracy"] *= 100

# %% alt="Four panels, a column for looks that never lie and one for looks that lie in a fifth of the cases. Above, held-out accuracy against optimiser steps: a loss over the policy's tokens ends some nine and some eight points above one over all tokens, and one over all but what stands between delimiters ends near the first. Below, the log-probability of the environment's tokens: level under the first, rising by five nats under the mask by delimiters and by eleven under the loss over all. Bands are ranges over seeds."
masks_figure(curves)

# %%
last = curves.sort_values("step").groupby(["mask", "lies", "seed"]).last()
right = 100 * ends.set_index(["mask", "lies", "seed"])["accuracy"].sort_index()
of_tokens = "log π of the environment's tokens, nats per token"
head = ["right, test, %", "less the first, points, 95 %", "look, %", of_tokens]
rows = [["s", "loss over", *head]]
for mask, s in trained:
    here, gap = last.loc[mask, s], right.loc[mask, s] - right.loc["policy", s]
    less = "–" if mask == "policy" else "{:+.1f} [{:+.1f}, {:+.1f}]".format(gap.mean(), *t_interval(gap))
    numbers = f"{right.loc[mask, s].mean():.1f}", less, f"{100 * here['consulted'].mean():.1f}"
    rows.append([f"{s:g}", MASKS[mask], *numbers, f"{here['environment_logprob'].mean():.2f}"])
display(Markdown(markdown_table(rows)))
start = curves[(curves["step"] == 0) & (curves["lies"] == 0)][["accuracy", "consulted", "environment_logprob"]].mean()
say(
    f"The base, s = 0: {start['accuracy']:.1f} % right, {start['consulted']:.0%} look, "
    f"{start['environment_logprob']:.2f} nats per token."
)

# %% [markdown]
# **What to look at.** In each column the order of the three curves above, and how far apart they are below.
#
# With a loss over its own tokens the policy learns to ask, and ends far above the best response fixed beforehand. It is
# also far below the best policy: it reads the target, and still has to find the sums. Its predictions of what the
# environment writes stay as bad as they were. With a loss over all tokens it predicts the environment's part far better
# than before, though still badly, and is slower at its own.
#
# The mask by delimiters lies between the two in what it predicts: of the environment's four tokens it trains on one. In
# accuracy it is about level with the first where looks are honest, and a little behind where they lie. No claim was
# stated about it. So a gradient that is turned far at the start need not end far away: by the formula above, the term
# of a token that is always the same goes away once it is predicted. Below, its curve is level after some fifty steps.
#
# A fifth of lies takes a fifth from the best policy, and in proportion more from all of these; nothing was planned on
# that. (The columns *look* and *log π* are of the last
# evaluation in training, *right* is of the test after it. All masks share a learning rate, and the gradient over all
# tokens is the larger one, so part of the difference may be the step.)
#
# ## One stage or two
#
# R1-Searcher trains in two stages: first a reward for calling the tool in the right format, then one for the answer.
# Whether the first is needed is a question about exploration. Here the base looks in some responses before any
# training, so a reward for the answer has something to make likelier. The column *look* says what came of it: nearly
# all responses look in the end. The answer's reward is enough here; two stages were not run.
#
# A base that never looks would be another matter: with nothing to reinforce, a first stage or demonstrations would be
# needed.
#
# ## Restarts
#
# Satori ([2502.02508](https://arxiv.org/abs/2502.02508)) also trains from states in the middle of an earlier solution,
# and gives a bonus for a repair. Here half of the problems in training open with one or two wrong attempts, each
# followed by `no`, which the policy did not write. (In the cell below all do.)
#
# Is this more than a bandit? No. The opening is drawn before the policy acts, so it is context, as the prompt is: a
# contextual bandit over richer contexts. The loss shows it: the opening is outside of the mask, and the identity holds
# as before. (Satori's openings are cut from the policy's own responses, right and wrong, so that its contexts move with
# the policy from one update to the next; and it subtracts as much where a right opening ends wrong.)

# %%
from rlino_lib.methods.advantages import advantages as advantages_of

countdown = load_policy(base_of("countdown"))
restarting = Countdown(restarts=1.0, restart_bonus=0.5)
again = sample_graded(countdown, restarting, restarting.problems("train", 4), 8, seed=0, max_new_tokens=64)
opening = again.problems[0].opening
length = len(countdown.tokenizer(opening, add_special_tokens=False)["input_ids"])
say(f"An opening of {length} tokens: {opening.strip().replace(chr(10), ' / ')}")
say(f"In the loss: {int(again.mask[0, :length].sum())} of them, {int(again.mask[0, length:].sum())} of those after it.")
gap = table(grpo_is_weighted_sft(float64_copy(countdown.model), again))["gap"].max()
say(f"The largest gap of the identities above, on these responses: {gap:.0e}.")
plain = torch.tensor([1.0, 0.0, 0.0, 1.0])
bonus = plain * (1 + restarting.restart_bonus)
rows = [["advantages of a group", "GRPO", "Dr. GRPO"]]
for name, group in (("rewards 1, 0, 0, 1", plain), ("with a bonus: 1.5, 0, 0, 1.5", bonus)):
    cells = [advantages_of(group, 4, OBJECTIVES[m].advantage) for m in ("grpo", "dr_grpo")]
    rows.append([name, *(", ".join(f"{x:+.2f}" for x in cell.tolist()) for cell in cells)])
display(Markdown(markdown_table(rows, numbers=False)))

# %% [markdown]
# **What to look at.** The last table. GRPO divides by the standard deviation of the group, and all responses of a group
# have the same opening. So under GRPO a bonus cancels. Dr. GRPO only centres, and there the bonus is a larger weight on
# restarted problems. That is why the runs use Dr. GRPO.
#
# ```sh
# rlino grid data/runs/restarts.json
# rlino evaluate --task-set restart_held_out=1 --split test --problems 256 --samples 16 \
#     --model RUN/model --out RUN/repair-1     # and the same with 2
# ```
#
# Ten seeds of three kinds of training, each tested from scratch on all 1,024 test problems, four samples each, and from
# held-out openings of one and of two wrong attempts on 256 of them, sixteen each. So compare rows within a column.

# %%
STARTS = {0: "from scratch", 1: "after one wrong attempt", 2: "after two"}
final = {n: f"repair-{n}/evaluation.json" if n else "evaluation.json" for n in STARTS}
untrained = {n: read_json(Path(base_of("countdown")) / path)["found"] for n, path in final.items()}
from_start = {n: 100 * result["pass@1"]["value"] for n, result in untrained.items()}
frame = pd.DataFrame(
    [
        (training, words, seed, repair_rate(run, n) if n else final_accuracy(run))
        for training in START_LOOKS
        for seed, run in runs_named("restarts", training, RECORDED).items()
        for n, words in STARTS.items()
    ],
    columns=["training", "start", "seed", "accuracy"],
)

# %% alt="Accuracy from three starts under three kinds of training, with 95 percent intervals over ten seeds. The base's dotted line stands near 16 percent at each start. After training all three kinds are near 47 percent from scratch and after one wrong attempt, and near 44 after two; their intervals overlap at each start."
repair_figure(frame, {words: from_start[n] for n, words in STARTS.items()})

# %%
wide = frame.pivot_table(index=["training", "seed"], columns="start", values="accuracy")
repaired = wide[[STARTS[1], STARTS[2]]].mean(axis=1) - wide[STARTS[0]]
rows = [["training", *(f"{words}, %" for words in STARTS.values()), "repair less scratch, against no restarts, 95 %"]]
rows.append(["none, the base", *(f"{value:.1f}" for value in from_start.values()), "–"])
for training, (words, _) in START_LOOKS.items():
    gap = repaired[training] - repaired["scratch"]
    less = "–" if training == "scratch" else "{:+.1f} [{:+.1f}, {:+.1f}]".format(gap.mean(), *t_interval(gap))
    rows.append([words, *(f"{wide.loc[training, start].mean():.1f}" for start in STARTS.values()), less])
display(Markdown(markdown_table(rows)))
say(f"The base's attempts in a response of its own, from scratch: {untrained[0]['attempts_per_response']:.1f}.")

# %% [markdown]
# **What to look at.** The rows of training, in any one column.
#
# Within a column they differ by less than a point, and their intervals overlap. Training without restarts lifts
# accuracy after a wrong attempt as training with them does, to nearly three times the base's. The last column has the
# claim, without a bonus, and what a bonus makes of it. Ten seeds do not tell either from zero, and equivalence was not
# tested.
#
# A likely reason, not tested: there was no weakness to train away. The openings are drawn as in the demonstrations that
# the base imitates. It is no worse after them than from scratch, and its own responses hold more than one attempt. A
# policy that commits to its first attempt could come out otherwise.
#
# After two attempts all trained rows are lower. Part of that may be room: the opening counts towards the 112 tokens.
# The base, whose responses are shorter, is not lower.

# %% [markdown]
# ## What was claimed, and what was found
#
# The claims were written down before any of the runs.

# %%
claims = judge_all(evidence="environment.")
rows = [["claim", "verdict", "what was found"]]
rows += claims[["statement", "found", "effect"]].itertuples(index=False, name=None)
display(Markdown(markdown_table(rows, numbers=False)))

# %% [markdown]
# ## Exercises
#
# **1. The mask.** `my_loss_mask(writers, ids, opens, closes)`: who wrote each token ("policy" or "environment"), which
# token it is, and the ids of two delimiters in; 1 for each token that the loss should count and 0 for the others out.

# %%
from checkers.environment import check_best_use_of_a_look, check_loss_mask


def my_loss_mask(writers, ids, opens, closes): ...


_ = check_loss_mask(my_loss_mask)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_loss_mask(writers, ids, opens, closes):
#     return [int(writer == "policy") for writer in writers]
# ```
#
# The delimiters are a trap: who wrote a token cannot be read off the text.
#
# </details>
#
# **2. The best use of a look.** `my_best_use_of_a_look(targets, lies)`: one of so many targets is the true one, all
# equally likely. With probability `lies` a look shows one of the others, equally likely too. With what probability is
# the best policy right?


# %%
def my_best_use_of_a_look(targets, lies): ...


_ = check_best_use_of_a_look(my_best_use_of_a_look)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_best_use_of_a_look(targets, lies):
#     return max(1 - lies, lies / (targets - 1))
# ```
#
# Where looks lie nearly always, what they show is the one target not to name.
#
# </details>
#
# ## Summary
#
# - A model's MDP is no bandit where something writes into the text what does not follow from the text before it. A
#   deterministic tool is not enough.
# - The update stays weighted cross-entropy on the policy's own tokens, with a mask by who wrote them. A mask by
#   delimiters leaks, and a few tokens turn a gradient far.
# - Trained on its own tokens, the policy learns to ask from the answer's reward alone. Trained on all, it learns to
#   predict the environment's part as well, and ends lower, whether looks lie or not. The leak of a mask by delimiters
#   costs little here, though it turns the first gradient far.
# - Restarts are a contextual bandit over richer contexts. In a standardised group a bonus for repairs cancels.
# - Whether restarts teach repair better than training without them could not be told: the difference is less than a
#   point. A likely reason is that the policy's own samples already hold wrong attempts.
