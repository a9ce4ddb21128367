# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: -jupytext.text_representation.jupytext_version
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
# # 00 · Start here
#
# **Is it reinforcement learning in more than name when a language model learns from its own graded answers?**
#
# **The answer.** The gradient does not tell the two apart: with one update per batch, that of GRPO is the gradient of a
# weighted cross-entropy on its own samples. By its outcome, supervised learning on such samples is equivalent to GRPO
# on one of two tasks, and on the other the planned seeds do not settle it. That credit spread over the tokens makes
# wrong responses longer is true where nothing else moves lengths, and in a search they grow without it too. In the
# ledger: `weighted-sft` holds, `posneg-word` holds, `posneg-countdown` is undecided, `room-sgd` holds,
# `survives-countdown` holds.

# %% tags=["hide-input", "remove-cell"]
# On Colab this cell gets the book and installs it, in about three minutes. Anywhere else it does nothing.
import sys

ADDRESS = ""  # of the repository, as `[tool.rlino] address` in pyproject.toml
if "google.colab" in sys.modules:
    import os
    import subprocess
    from pathlib import Path

    assert ADDRESS, "This copy of the book does not know its address: clone it by hand, then open it from there."
    folder = Path("rlino").resolve()
    if not folder.exists():
        subprocess.run(["git", "clone", "--depth", "1", ADDRESS, str(folder)], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "-e", str(folder)], check=True)
    os.chdir(folder / "book")
    sys.path[:0] = [str(folder), str(folder / "book")]  # an installed package is seen only from the next session on

# %%
from IPython.display import Markdown, display

from rlino_lib.claims.findings import findings_list, verdict_counts
from rlino_lib.claims.judge import judge_all, ledger_rows

judged = judge_all()  # every claim of the book, from the recorded runs
display(Markdown(f"{findings_list(judged)}\n\n{verdict_counts(judged)}."))

# %% [markdown]
# *Brackets: intervals over seeds, of 95 % or more.*
#
# **Where the question comes from.** A language model that is trained by reinforcement learning samples answers, has
# them graded, and makes the good ones likelier and the bad ones less likely. The paper *RL in Name Only?* ([arXiv
# 2505.13697](https://arxiv.org/abs/2505.13697)), called "the paper" from here on, says that this is reinforcement
# learning in name only. Under two assumptions that are nearly always made, GRPO is supervised learning on the model's
# own graded answers. One is that the state is nothing but the text so far. The other is that a response's credit is
# spread evenly over its tokens. The second, the paper adds, makes wrong answers longer.
#
# **How this book answers it.** Every method here is one update,
#
# $$\nabla J = \sum_i \sum_t w_{it}\, \nabla \log \pi_\theta(o_{it} \mid q, o_{i,<t}),$$
#
# where $o_i$ is the $i$-th of the $N$ sampled responses to prompts $q$, and $o_{it}$ its $t$-th token. A method is a
# rule for the weights $w$. For GRPO with one update per batch, and for *filtered iterative SFT* (F-ISFT), the
# supervised method that the paper compares it with, the rules are these:
#
# | method | weight $w_{it}$ of each token $t$ of response $i$ |
# |:---|:---|
# | GRPO | $\hat A_i / (N\,\lvert o_i\rvert)$, where $\hat A_i$ is the reward, standardised within its group |
# | F-ISFT⁺ | $1/(N\,\lvert o_i\rvert)$ for right responses, 0 for wrong ones |
# | F-ISFT⁻ | 0 for right responses, $-1/(N\,\lvert o_i\rvert)$ for wrong ones |
# | F-ISFT⁺⁻ unit | $\pm 1/(N\,\lvert o_i\rvert)$, plus for right responses, minus for wrong ones |
# | F-ISFT⁺⁻ balanced | the same, but in each group the right ones share one $+1$ and the wrong ones one $-1$ |
#
# (GRPO as published also has a KL term, which pulls towards the model before training. It gives no credit to a
# response, so it is left out of $w$. It can be switched off, and F-ISFT has none.)
#
# So each claim of the paper becomes one of two things. A statement about $w$ is derived by hand and then checked to
# machine precision. A statement about what training does is checked on recorded runs with several seeds. A small
# model that is made in this book, and a game with an exact grader, keep both within reach of a laptop.

# %% [markdown]
# ## The chapters
#
# - [01 · Language models as MDPs](01_language_models_as_mdps.ipynb): the token MDP as a tree, small enough to
#   enumerate; why it is a bandit, and for which transitions; what spreading the credit evenly throws away.
# - [02 · Tasks with verifiers](02_tasks_with_verifiers.ipynb): a game whose answers can be graded, a grader that is
#   safe on any text, and what a reward scheme decides.
# - [03 · A base model to train](03_a_base_model_to_train.ipynb): a small model that is right now and then, how it
#   was made, and what it can do before any training.
# - [04 · GRPO](04_grpo.ipynb): every term of the objective as code, from hand-written rollouts to a training run,
#   and why the logged loss is 0.
# - [05 · Filtered iterative SFT](05_filtered_iterative_sft.ipynb): the same loop as supervised learning, and which
#   weights let it ramble.
# - [06 · The same gradient](06_the_same_gradient.ipynb): which methods equal which, to machine precision, and where
#   the equality ends.
# - [07 · Head to head](07_head_to_head.ipynb): the methods over seeds on two tasks; what "comparable" takes, and
#   what was found.
# - [08 · Length](08_length.ipynb): why responses grow: exact drift in a toy, what else looks like it, and lengths
#   that a cap hides.
# - [08b · The clean room](08b_the_clean_room.ipynb): the mechanism of $1/|o|$ where nothing else can move lengths, and
#   a dial back to length that is worth something.
# - [08c · The run that was missing](08c_the_run_that_was_missing.ipynb): the runs without $1/|o|$, how often a search
#   gives up, and a growth taken apart.
# - [09 · Sharpening or discovery](09_sharpening_or_discovery.ipynb): whether training adds solutions or brings out
#   sooner what the base could do: curves of pass@k, with and without a KL term.
# - [09b · What the tokens mean](09b_what_the_tokens_mean.ipynb): whether answers follow their thoughts and right
#   answers come from right ones, before and after training; hints, graphs of traces, and answers without a thought.
# - [10 · Credit that is not uniform](10_credit_that_is_not_uniform.ipynb): what it buys to credit each step with what
#   it changed, by values that are sampled, learned or exact.
# - [10b · An environment that writes](10b_an_environment_that_writes.ipynb): when the MDP of a language model is no
#   bandit; whose tokens the loss should count; restarts from wrong attempts.
# - [11 · Preferences and inner rewards](11_preferences_and_inner_rewards.ipynb): DPO and its
#   relatives, self-certainty, majorities and coins in one frame: what a token weighs, and what that weight depends on.
# - [11b · Entropy and exploration](11b_entropy_and_exploration.ipynb): terms of entropy, objectives that
#   explore, what is no language model's MDP, and every method of the book in one table.
# - [12 · At scale](12_at_scale.ipynb): what the paper's own runs need, which command makes which number, and how the
#   same objectives run on many GPUs.
# - [13 · Real models](13_real_models.ipynb): what public records of real models say to the same claims, and what a
#   verdict would take.
#
# [Notation and glossary](notation.md) lists every symbol with its name in the code and its shape, and the field's
# words with the chapter that introduces each.
#
# **Three routes.**
#
# - *25 minutes:* this chapter, then the answer at the top of each of the others.
# - *2 hours:* this chapter, 04, 06, 07, 08 and 08c: the objective, its gradient, the comparison, and lengths.
# - *All:* in order, with the exercises.
#
# Each chapter asks a question, answers it, puts each equation beside its code, works a toy by hand, trains or samples
# live for less than a minute, reads recorded runs for the long view, and ends with exercises that check themselves.

# %% tags=["hide-input"]
from rlino_lib.figures.chapters import costs_table

display(Markdown(f"What running each chapter takes, with the peak memory of its kernel:\n\n{costs_table()}"))

# %% [markdown]
# ## The two-minute tour
#
# The game is *Countdown*: use every given number exactly once, with + − × ÷, to reach the target. The prompt ends
# with `<think>`, and the model goes on from there.

# %%
import pandas as pd
import torch

from rlino_lib.figures import recorded
from rlino_lib.methods.advantages import advantages
from rlino_lib.methods.catalogue import GRPO_NO_KL, LABELS

# %% tags=["nbval-check-output"]
from rlino_lib.tasks import get_task

task = get_task("countdown")
problem = task.problems("validation", 1)[0]
print("prompt:  ", task.prompt(problem))
print("solution:", problem.gold)

# %% [markdown]
# GRPO samples a *group* of responses to the same prompt and compares them with each other. We sample groups of $G =
# 8$ from the base model, which has not been trained by reinforcement yet. A group that is all right or all wrong has
# nothing to compare, and gets no weight. To see much in one look, we take the first group with two to four right
# ones.

# %%
from rlino_lib.policy.models import load_policy
from rlino_lib.policy.sampling import sample

G = 8
base = load_policy()
problems = task.problems("validation", 100)
for problem in problems:
    rollouts = sample(base, [task.prompt(problem)], group_size=G, seed=0).grade(task, [problem])
    if 2 <= rollouts.correct.sum() <= 4:
        break
print(f"group {problems.index(problem) + 1}: {rollouts.correct.sum()} of {G} right")

# %% [markdown]
# Four lines turn these responses into what the optimiser uses. The *advantage* $\hat A_i$ says how far a reward is
# from the mean of its group, in standard deviations. The *weight* spreads it evenly over the tokens of the response.

# %%
from rlino_lib.methods.loss import Batch, policy_loss, token_weights
from rlino_lib.training.traces import trace_rows

adv = advantages(rollouts.rewards, G)  # [G]
weights = token_weights(GRPO_NO_KL, adv, rollouts.mask)  # [G, T]
credit = {"advantage": adv, "weights": weights}
group = pd.DataFrame(trace_rows(rollouts, credit, step=0, groups=1, tokenizer=base.tokenizer))

# %%
from rlino_lib.widgets import trace_inspector

trace_inspector(group)

# %% [markdown]
# *What to look at:* each box is one response, cut into tokens. Blue tokens are made likelier, orange and underlined
# ones less likely. Within a response every token has the same colour: the good steps and the one that spoilt it
# share the blame alike. Among the wrong responses the longer ones are paler, since the same $\hat A_i$ is divided by
# more tokens. The same group in numbers:

# %%
in_numbers = pd.DataFrame(
    {
        "reward": group["reward"],
        "advantage": group["advantage"].round(3),
        "tokens": group["length"],
        "weight of each token": [f"{w[0]:+.5f}" for w in group["weights"]],
        "weight of the response": [f"{sum(w):+.3f}" for w in group["weights"]],
    }
)
in_numbers.sort_values(["reward", "tokens"], ascending=[False, True])

# %% [markdown]
# ### A claim about weights
#
# With a reward of 0 or 1 and $k$ of $G$ responses right, $p = k/G$, the advantages have a closed form:
#
# $$\hat A^+ = \sqrt{\tfrac{1-p}{p}}\,\sqrt{\tfrac{G-1}{G}}, \qquad
#   \hat A^- = -\sqrt{\tfrac{p}{1-p}}\,\sqrt{\tfrac{G-1}{G}}.$$
#
# A right answer to a hard problem counts much, a wrong answer to it little. Only which responses were right, and how
# many, is left of such rewards. So GRPO, which is a cross-entropy with weights whatever the rewards are, has two
# weights in each group, divided by lengths. The check runs over every $k$ (the small constant that keeps the division
# safe is set to 0):

# %% tags=["nbval-check-output"]
import math

gaps = []
print(" k   right    wrong")
for k in range(1, G):
    p = k / G
    shrink = math.sqrt((G - 1) / G)
    right = shrink * math.sqrt((1 - p) / p)
    wrong = -shrink * math.sqrt(p / (1 - p))
    rewards = torch.tensor([1.0] * k + [0.0] * (G - k), dtype=torch.float64)  # [G]
    computed = advantages(rewards, G, eps=0.0)  # [G]
    gaps.append((computed - (right * rewards + wrong * (1 - rewards))).abs().max().item())
    print(f"{k:2} {computed[0]:7.3f} {computed[-1]:8.3f}")
print("closed form within 1e-12:", max(gaps) < 1e-12)

# %% [markdown]
# ### A loss of 0 that trains
#
# People who log GRPO's loss without its KL term are often alarmed: it is 0 from the first step on. With one update per
# batch the importance ratio $\rho_{it} = \pi_\theta/\pi_\text{old}$ is 1 on every token. So the objective's *value* is
# the mean advantage, and that is 0 in every group. Its *gradient* is not:

# %%
from rlino_lib.policy.logprobs import response_logprobs

base.model.zero_grad()
logprobs, mask = response_logprobs(base.model, rollouts, torch.arange(G))  # [G, T]
loss = policy_loss(GRPO_NO_KL, Batch(logprobs, adv, mask, rollouts.logprobs)).loss
loss.backward()
norm = torch.stack([p.grad.norm() for p in base.model.parameters()]).norm().item()
print(f"|loss| = {abs(loss.item()):.1e}, gradient norm = {norm:.3f}")

# %% [markdown]
# That gradient is one step of GRPO on one group. A run here is some two hundred such steps, each on eight groups or
# more.

# %% [markdown]
# ## The recorded runs
#
# The runs below were recorded once, by commands that the chapters print, and are read back from `data/runs`. All
# methods start from the same base, train on the same problems in the same order, and are evaluated on the same
# held-out problems.

# %% alt="Two rows of line plots against optimiser steps, a column for each method. Above: share of right answers on held-out problems, the other methods in grey. Below: mean length of right and of wrong responses, in tokens. Bands run from the lowest to the highest seed."
from rlino_lib.records.runs import list_runs

runs = list_runs("countdown")
recorded.recorded_figure(runs)

# %% [markdown]
# *What to look at:* in the upper row, where does each line end compared with the grey ones, and is its band of seeds
# wider than the gaps between methods? In the lower row, do the two lines move apart? A line that falls in the upper
# row is a method that destroys what the base could do; a line that stops in the lower row has no such responses
# left. Right answers alone suffice on one task: over the ledger's seeds, which are more than these, F-ISFT⁺ ends above
# GRPO on word problems and below it on Countdown (`pos-word`, `pos-countdown`). The seeds of F-ISFT⁻ end far apart.
# Wrong responses grow away from right ones under every method. All methods have the learning rate that suits GRPO
# here, as the paper, too, has one rate for all. At a lower rate F-ISFT⁻ learns: the ledger judges it at both. In
# numbers:

# %% tags=["nbval-check-output"]
ends = recorded.outcomes(runs)
display(Markdown(f"{recorded.results_table(ends)}\n\n{recorded.measured(runs)} Brackets: lowest and highest seed."))

# %% [markdown]
# ## The ledger
#
# A claim is written in the ledger, `data/claims.toml`, with a threshold that was set before the evidence was seen;
# CLAIMS.md names the exceptions. The verdict is computed: for identities from both of their sides, for claims on
# training from the recorded runs. Each row names the chapter that derives it.
#
# There are five verdicts. "Holds" and "does not hold here" each take a test that passes: finding no difference is
# not finding that there is none. "Holds with conditions" means that it holds in part, or under some of the conditions
# that were tried. "Undecided" means that the planned seeds settle it neither way. "Not testable here" means that there
# is no test of it. Some rows are *under revision* or superseded by another: the runs stand, but the conclusion
# does not hold up as it is worded or measured. The row says why.

# %%
display(Markdown(recorded.markdown_table(ledger_rows(judged, {}), numbers=False)))

# %% [markdown]
# ## What the runs show so far
#
# These statements have no threshold set in advance yet, so they describe: what the paper claims, or what one would
# expect from it; where this book examines it; what was found; and a verdict. Verdicts follow from rules in the code
# that the text states, and none is typed in. The first two come from the tour above.

# %%
import re

claims = [("claim", "chapter", "evidence", "verdict")]


def claim(text: str, chapter: str, evidence: str, verdict: str) -> None:
    claims.append((text, chapter, re.sub(r"-(?=\d)", "−", evidence), verdict))


claim(
    "With a 0/1 reward, GRPO's advantages depend on the share of right responses alone",
    "04",
    f"closed form against code, every k of {G}: largest gap {max(gaps):.0e}",
    "holds" if max(gaps) < 1e-12 else "fails",
)

# %%
logged = pd.concat(run.metrics[["loss", "grad_norm"]] for run in runs if run.method == "grpo_no_kl").dropna()
losses = [abs(loss.item()), logged["loss"].abs().max()]
norms = [norm, logged["grad_norm"].median()]
claim(
    "At one update per batch and without its KL term GRPO's logged loss is 0, and its gradient is not",
    "04",
    f"the group above: |loss| {losses[0]:.0e}, gradient norm {norms[0]:.2f}; "
    f"every step of the recorded runs without KL: |loss| at most {losses[1]:.0e}, median norm {norms[1]:.2f}",
    "holds" if max(losses) < 1e-4 and min(norms) > 1e-2 else "fails",
)

# %% [markdown]
# **Does supervised learning reach what GRPO reaches?** The paper says that the two are comparable. We take F-ISFT⁺⁻
# with balanced weights, which comes closest to GRPO's own, and subtract: the difference of the means over seeds,
# with Welch's 95 % interval. An interval that contains 0 is *not* a proof of equality. That needs a margin that is
# stated beforehand and a test against it, over more seeds than these: chapter 07. Here the verdict only describes.


# %%
import scipy.stats


def final(method: str) -> pd.Series:
    """Final share right of each seed, in percent."""
    return 100 * ends.loc[ends["method"] == method, "accuracy"]


def difference(method: str, other: str) -> tuple[float, float, float]:
    """Difference of means over seeds in points, with Welch's 95 % interval."""
    a, b = final(method), final(other)
    interval = scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    return a.mean() - b.mean(), interval.low, interval.high


evidence, apart = [], []
for other in ("grpo", "grpo_no_kl"):
    gap, low, high = difference("f_isft_posneg", other)
    evidence.append(f"{gap:+.1f} points against {LABELS[other]} (95 % interval {low:+.1f} to {high:+.1f})")
    if not low <= 0 <= high:
        apart.append(LABELS[other])
seeds = len(final("f_isft_posneg"))
claim(
    "F-ISFT⁺⁻ with balanced weights ends where GRPO ends (share right)",
    "05",
    f"{', '.join(evidence)}; {seeds} seeds",
    f"differs from {' and '.join(apart)}" if apart else "no difference seen; equality not tested",
)

# %% [markdown]
# **Do weights of ±1 collapse?** The paper does not say how it weights the responses of F-ISFT⁺⁻. With ±1 and a base
# that is mostly wrong, most of the push is downwards at first, so one may expect the policy to collapse. We call a
# run collapsed if it ends with less than half of the base's share right.

# %%
start = 100 * ends["accuracy"].iloc[0]
collapsed = {m: int((final(m) < start / 2).sum()) for m in ("f_isft_posneg_unit", "f_isft_posneg", "f_isft_neg")}
unit, balanced = collapsed["f_isft_posneg_unit"], collapsed["f_isft_posneg"]
claim(
    "F-ISFT⁺⁻ with weights of ±1 collapses; with balanced weights it does not",
    "05",
    f"runs that collapsed, of {seeds}: " + ", ".join(f"{LABELS[m]} {n}" for m, n in collapsed.items()),
    "holds" if unit == seeds and not balanced else "holds in part" if unit > balanced else "not seen here",
)

# %% [markdown]
# **Do wrong responses grow?** The paper reports that under GRPO and F-ISFT⁺⁻ wrong responses grow strongly, and
# under F-ISFT⁺ they do not. We say that a method's wrong responses grow if their mean length rises by more than a
# tenth in every seed. Two cautions. A response that reaches the cap is *truncated* there and nearly always wrong. So
# the cap both gathers wrong responses and bounds their length: read the growth beside the share of truncated
# responses. And whether the division by $\lvert o_i\rvert$ is the *cause* is another question: the runs that leave
# it out are those of chapter 08c.

# %%
import statistics

wrong_at_start = ends["length/incorrect"].iloc[0]
growth = {}  # method: growth of each seed, as a share of the base's length
for method in ("grpo", "f_isft_posneg", "f_isft_pos"):
    growth[method] = (ends.loc[ends["method"] == method, "length/incorrect"] / wrong_at_start - 1).tolist()
truncated = ends.groupby("method")["clipped_ratio"].mean()
grows = {method: min(values) > 0.1 for method, values in growth.items()}
agree = [grows["grpo"], grows["f_isft_posneg"], not grows["f_isft_pos"]]
claim(
    "Wrong responses grow under GRPO and F-ISFT⁺⁻, not under F-ISFT⁺",
    "04, 08",
    f"from {wrong_at_start:.1f} tokens, mean over seeds: "
    + ", ".join(f"{LABELS[m]} {100 * statistics.mean(v):+.0f} %" for m, v in growth.items())
    + f"; responses truncated at {runs[0].config['max_new_tokens']} tokens: base {100 * truncated['base']:.0f} %, "
    + ", ".join(f"{LABELS[m]} {100 * truncated[m]:.0f} %" for m in growth),
    "holds" if all(agree) else "holds in part" if any(agree[:2]) else "not seen here",
)

# %%
display(Markdown(recorded.markdown_table(claims, numbers=False)))

# %% [markdown]
# These verdicts are about one game, one model of less than a million parameters and one learning rate. What they
# mean for larger models is an open question, and the book names it wherever it arises.

# %% [markdown]
# ## How to use this book
#
# **Read and change it.** `make lab` opens JupyterLab on this page. Run a cell with Shift+Enter, change it, run it
# again; nothing that a chapter does changes the recorded data. Every chapter is also a script, `book/NN_name.py`,
# beside its notebook: the script is the source, and `make book` executes all of them and writes the notebooks anew.
#
# **Train your own.** All that the chapters do can be done from a terminal with `rlino`: `rlino train`, `rlino
# evaluate`, `rlino grid` for many runs at once, `rlino grade` for responses of your own; `rlino train --help` shows
# examples and every setting. From Python, a run is read back with `load_run(path)`, and `trace_inspector(run)` shows
# its responses.
#
# **Read the figures.** A method has the same colour, dash and marker everywhere, so that figures also read in grey.
# A line is a mean over seeds; the figure's legend says what its band is, most often the lowest to the highest seed.
# Accuracies are on held-out problems unless an axis says "training samples". Lengths are in tokens, end-of-text
# included.
#
# **Know where numbers come from.** Numbers in the text are computed by the cell beside them, or read from files
# under `data/`; `data/README.md` has for each of them the command that makes it again. Statements of the paper are
# marked as such; its numbers, and how sure each of them is, are in `data/paper`.
#
# **Know what repeats.** The same configuration gives the same numbers to the last digit on the same kind of machine,
# with the same package versions and the same number of threads; this includes a run that was killed and resumed.
# With another number of threads or another processor, sums are taken in another order and the last digits differ.
# Sooner or later one sampled token differs, and from there the two runs part. Recorded runs used one thread each,
# which their `config.json` says. So do not expect your own run to retrace a recorded one: expect it to end within
# the spread of seeds. Seconds never repeat, and are kept apart, in `timing.csv`.

# %%
print(f"this machine: {torch.get_num_threads()} threads, torch {torch.__version__}")
machines = {(run.config["threads"], run.config["versions"]["torch"]) for run in runs}
print("recorded runs:", "; ".join(f"{threads} thread, torch {version}" for threads, version in sorted(machines)))

# %% [markdown]
# ## Summary
#
# A method is a rule for weights, and the rule can be printed, checked and seen on every token. The claims about
# weights were settled by arithmetic. Those about training are in the ledger with a margin each: chapter 07 tests
# what is "comparable", chapter 08c why responses grow, where some conclusions are superseded. Everything about larger
# models stays open.
#
# Next: [01 · Language models as MDPs](01_language_models_as_mdps.ipynb).
