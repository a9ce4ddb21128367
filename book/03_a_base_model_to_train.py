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
# # 03 · A base model to train
#
# **What can the model do before any training, and what could training do with it?**
#
# **The answer.** The base is right now and then, and one of many samples is right far more often than a single one.
# GRPO can learn only from groups that are partly right, and their share follows from how the difficulty is spread, not
# from the mean alone. Training can make this model search better or search longer, and the second makes responses
# longer for a good reason.
#
# A method that only reweights what the model samples needs samples worth reweighting. So before any method is run, the
# starting point has to be known, number by number. This chapter
#
# 1. shows where the book's base model comes from, down to the traces and the tokens it was made of;
# 2. takes it apart: one next-token distribution, one response sampled by hand, one small model pretrained live;
# 3. measures it: pass@k, the difficulty of each problem, lengths, arithmetic;
# 4. works out from these what a method could learn from it, above all the share of groups that are *mixed*.
#
# The paper trains Qwen-2.5 models of 0.5 and 1.5 billion parameters. The book's base has less than a million, so
# that every claim about a method can be rerun on a laptop. It has the same architecture, and section 8 swaps in the
# large one by one argument.

# %%
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from rlino_lib.analysis.statistics import bootstrap_interval
from rlino_lib.evaluation.evaluate import evaluate
from rlino_lib.figures.style import style
from rlino_lib.paths import DEFAULT_BASE
from rlino_lib.policy.sampling import sample
from rlino_lib.tasks import get_task
from rlino_lib.tasks.countdown.game import make_problem

style()
BASE = Path(DEFAULT_BASE)
task = get_task("countdown")
problem = make_problem([8, 2, 4], 64)

# %% [markdown]
# ## 1 The demonstrator
#
# A base model imitates whatever wrote its training text. Here that is a program, the *demonstrator*, and it is
# mediocre on purpose. It tries steps at random, writes each attempt on a line, judges it, and often gives up:

# %% tags=["nbval-check-output"]
import random

from rlino_lib.training.pretraining.demonstrators import Demonstrator

demonstrator = Demonstrator()
rng = random.Random(2)
for _ in range(3):
    print(task.prompt(problem) + demonstrator.response(problem, rng), end="\n\n")

# %% [markdown]
# Its behaviour is set by a few numbers:

# %% tags=["nbval-check-output"]
import dataclasses

MEANS = {
    "luck": "chance that an attempt follows a solution instead of chance",
    "gives_up": "chance of stopping with a wrong answer after a failed attempt",
    "notices": "chance that a hit is recognised as one",
    "largest": "no product beyond this",
    "max_attempts": "then it stops in any case",
}
for name, value in dataclasses.asdict(demonstrator).items():
    print(f"{name:13} {value:<6} {MEANS[name]}")

# %% [markdown]
# Which of these weaknesses matters most? Change one at a time (in the first line two) and let the demonstrator answer
# all validation problems.


# %% tags=["nbval-check-output"]
from rlino_lib.tasks.arithmetic import count_attempts


def try_out(who: Demonstrator, repeats: int = 4, problems: list | None = None) -> dict[str, float]:
    """Share right and attempts per response, over these problems, or all those of validation."""
    rng = random.Random(0)
    right, attempts = [], []
    for p in (problems or task.problems("validation")) * repeats:
        text = who.response(p, rng)
        right.append(task.grade(p, text).correct)
        attempts.append(count_attempts(text))
    return {"share right": np.mean(right), "attempts": np.mean(attempts)}


changed = {
    "one attempt, no luck": {"luck": 0.0, "gives_up": 1.0},
    "no luck": {"luck": 0.0},
    "as it is": {},
    "notices every hit": {"notices": 1.0},
    "never gives up": {"gives_up": 0.0},
    "twice the luck": {"luck": 2 * demonstrator.luck},
}
tried = pd.DataFrame({name: try_out(dataclasses.replace(demonstrator, **c)) for name, c in changed.items()}).T
tried.round(3)

# %% [markdown]
# *What to look at.* Compare the line "as it is" with the ones below it. To stop giving up more than doubles the share
# right; twice the luck adds much less, and noticing every hit next to nothing. A searcher with the same luck and the
# same eyes that simply goes on is right much more often. So training can raise the accuracy of a model that imitates
# this program in two ways. It can make it *search better*, or it can make it *search longer*. The second makes
# responses longer for an honest reason, and chapter 08c has to separate it from growth that the loss causes.
#
# To write a search out as text, and to train a small model on it from scratch, is the idea of *Stream of Search*
# ([arXiv 2404.03683](https://arxiv.org/abs/2404.03683)), on this same game. Why reinforcement learning after such a
# mixture of short and long traces favours the long ones is worked out in
# [arXiv 2510.11495](https://arxiv.org/abs/2510.11495).
#
# ## 2 Tokens
#
# The tokenizer is Qwen-2's class with a vocabulary of this book's own: one token for each integer to 99, one for
# each sign and word, and the 256 bytes for everything else. Above 99 a number is spelled with a token for each further
# digit.

# %%
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlino_lib.widgets import tokens_html

tokenizer = AutoTokenizer.from_pretrained(DEFAULT_BASE)
text = task.prompt(problem) + " 8 - 2 = 6, 6 * 4 = 24 no\n 8 * 4 = 32, 32 * 2 = 64 yes </think>"
text += " <answer> ( 8 * 4 ) * 2 </answer>"
ids = tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]
pieces = [tokenizer.decode([i]) for i in ids]
tokens_html(pieces, tips=[f"id {i}" for i in ids], title=f"{len(ids)} tokens; hover for their ids")

# %% [markdown]
# ## 3 The model that ships
#
# Hugging Face's own classes load it from a folder. Its card says how it was made; `rlino pretrain --out FOLDER` makes
# it again from the same recipe.

# %%
import json


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


model = AutoModelForCausalLM.from_pretrained(DEFAULT_BASE, dtype=torch.float32).eval()
card = read_json(BASE / "card.json")
print(f"{type(model).__name__}, {sum(p.numel() for p in model.parameters()):,} parameters")
print("recipe:", ", ".join(f"{k} {v}" for k, v in card["recipe"].items()))
print(f"{card['response_tokens'] / 1e6:.0f} million response tokens in {card['seconds'] / 60:.0f} minutes", end=" ")
print(f"on {card['threads']} threads; final loss {card['final_loss']:.3f} nats per token")

# %% [markdown]
# The loss is the mean of $-\log \pi_\theta(o_t \mid q, o_{<t})$ over the tokens of the demonstrator's responses; the
# prompt is not learned. The dotted line is a model that finds all tokens equally likely, $\log V$. The curve cannot
# reach 0: the demonstrator chooses numbers and operations at random, and what is random cannot be predicted.

# %% tags=["hide-input"] alt="Line plot on a log scale: pretraining loss in nats per token against optimiser steps, raw and smoothed, with a dotted line at the loss of a uniform guess."
import math

import seaborn as sns

from rlino_lib.figures.style import new_figure

curve = pd.read_csv(BASE / "loss.csv", index_col="step")
figure, axes = new_figure(size=(6.5, 3.2))
sns.lineplot(curve["loss"], ax=axes[0, 0], alpha=0.3, linewidth=1)
sns.lineplot(curve["loss"].rolling(9, min_periods=1, center=True).mean(), ax=axes[0, 0], color="C0")
axes[0, 0].axhline(math.log(model.config.vocab_size), color="0.4", linestyle=":")
axes[0, 0].set(xlabel="optimiser steps", ylabel="loss (nats per token)", yscale="log")
figure

# %% [markdown]
# The thin line is one batch, the thick one a mean of nine. The curve has two parts: a fast fall while the format and
# the order of the tokens are learned, and a long slow one in which the arithmetic is learned.
#
# ### One next-token distribution
#
# A language model is a conditional distribution over one token. The last layer gives a *logit* $z_v$ for each of the
# $V$ tokens, and
#
# $$ \pi_\theta(o_t = v \mid q, o_{<t}) = \frac{e^{z_v}}{\sum_{u} e^{z_u}}. $$
#
# Ask the model in two places: at the start of its response, where the demonstrator chooses at random, and after an
# equals sign, where there is nothing to choose.


# %%
@torch.no_grad()
def next_token(text: str, top: int = 5) -> pd.DataFrame:
    """The most likely next tokens, by hand; prints the entropy of the whole distribution."""
    ids = torch.tensor([tokenizer(text)["input_ids"]])  # [1, S]
    logits = model(ids).logits[0, -1]  # [V]
    p = logits.exp() / logits.exp().sum()  # [V]
    print(f"entropy {-(p * p.log()).sum():.2f} nats; the uniform distribution has {math.log(len(p)):.2f}")
    best = p.topk(top)
    return pd.DataFrame({"token": [repr(tokenizer.decode([i])) for i in best.indices.tolist()], "p": best.values})


next_token(task.prompt(problem)).round(3)

# %%
next_token(task.prompt(problem) + " 8 - 2 = 6, 6 * 4 =").round(3)

# %% [markdown]
# In the first place the model chooses among the numbers of the problem (the larger of two stands first, so the
# smallest of the three is rare). In the second nearly all of the probability is on one token. A method that gives every
# token of a response the same credit, as GRPO does, pushes decisions and arithmetic alike.
#
# ### A response, by hand
#
# Sampling repeats this step: sample a token, append it, ask again, until the end-of-text token or the cap. A
# response that reaches the cap is truncated. Temperature $T$ divides the logits; $T = 0$ means the likeliest token
# each time, *greedy*.


# %%
@torch.no_grad()
def sample_by_hand(prompt: str, temperature: float = 1.0, cap: int = 112, seed: int = 0) -> torch.Tensor:
    """The ids of one response, [T], end-of-text included."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.tensor([tokenizer(prompt)["input_ids"]])  # [1, S]
    start = ids.shape[1]
    while ids.shape[1] < start + cap and (ids.shape[1] == start or ids[0, -1] != tokenizer.eos_token_id):
        logits = model(ids).logits[0, -1]  # [V]
        if temperature == 0:
            token = logits.argmax()
        else:
            token = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[0]
        ids = torch.cat([ids, token.view(1, 1)], 1)
    return ids[0, start:]


for seed in range(3):
    print(f"seed {seed}:", tokenizer.decode(sample_by_hand(task.prompt(problem), seed=seed), skip_special_tokens=True))

# %% [markdown]
# The loop computes the whole text anew for each token. `rlino_lib.policy.sampling.sample` keeps what it has computed
# (the key-value cache) and decodes many responses at once, but it is the same distribution. At temperature 0 there
# is no chance involved, so the texts must be equal:

# %% tags=["nbval-check-output"]
from rlino_lib.policy.models import load_policy

policy = load_policy()
prompts = [task.prompt(p) for p in task.problems("validation", 8)]
greedy = sample(policy, prompts, group_size=1, temperature=0)
by_hand = [tokenizer.decode(sample_by_hand(p, temperature=0), skip_special_tokens=True) for p in prompts]
print("greedy texts equal:", greedy.texts == by_hand)

# %% [markdown]
# ## 4 Pretraining, live
#
# The same code makes a smaller model in less than half a minute, on a plain laptop too: fewer layers, half the width,
# three-number problems only, 200 steps. What does it learn in this time, and what not?

# %%
import tempfile

from rlino_lib.training.config import Recipe
from rlino_lib.training.pretraining.pretrain import pretrain

tiny = Recipe(steps=200, batch_size=32, lr=4e-3, warmup=20, four_numbers=0.0, hidden_size=64, layers=2)
with tempfile.TemporaryDirectory() as folder:
    made = pretrain(tiny, folder, progress=False)
    print(pd.read_csv(Path(folder) / "loss.csv").set_index("step")["loss"].round(2).to_dict())
    tiny_policy = load_policy(folder)
print(f"{made['parameters']:,} parameters, {made['response_tokens'] / 1e6:.1f} million tokens,", end=" ")
print(f"{made['seconds']:.0f} seconds in {made['recipe']['precision']}")

# %%
from rlino_lib.evaluation.evaluate import summarise

rows = {}
for name, who in (("tiny, live", tiny_policy), ("shipped", policy)):
    print(f"{name}:{sample(who, [task.prompt(problem)], 1, seed=3).texts[0]}\n")
    summary = summarise(evaluate(who, task, task.problems("validation", 64), samples=4), ks=(1,))
    rows[name] = {"right": summary["pass@1"]["value"], "in the format": summary["format_ok"]}
    rows[name] |= {"steps right": summary["steps_right"], "attempts": summary["attempts_per_response"]}
pd.DataFrame(rows).T.round(3)

# %% [markdown]
# Most responses of the tiny model have the form of an answer. Its arithmetic is far from that of the shipped one. A
# search finds a solution only by steps that are true, and the grader computes the answer itself. So weak arithmetic
# limits what any amount of search can do.
#
# ## 5 What the base can do
#
# ### pass@k
#
# pass@k is the chance that at least one of $k$ samples is right. With $n \ge k$ samples of a problem, $c$ of them
# right, it is tempting to insert the share $c/n$ into $1 - (1 - p)^k$. It is better to take *all* ways to choose $k$
# of the $n$ samples, and count those that hold a right one.

# %% tags=["nbval-check-output"]
import itertools

from rlino_lib.analysis.pass_at_k import pass_at_k

n, c, k = 5, 2, 3
samples = [True] * c + [False] * (n - c)
subsets = list(itertools.combinations(samples, k))
print(f"{sum(map(any, subsets))} of {len(subsets)} subsets hold a right sample: {np.mean([any(s) for s in subsets])}")
print(f"1 − C(n−c, k)/C(n, k) = {1 - math.comb(n - c, k) / math.comb(n, k)}")
print(f"plugged in: 1 − (1 − c/n)^k = {1 - (1 - c / n) ** k:.3f}")
print(f"the library: {pass_at_k(n, c, k):.3f}")

# %% [markdown]
# The number of subsets without a right sample is $\binom{n-c}{k}$, so
#
# $$ \widehat{\text{pass@}k} = 1 - \binom{n-c}{k} \Big/ \binom{n}{k}. $$
#
# This is unbiased: its expectation over the $n$ samples is exactly $1 - (1-p)^k$. The plug-in value is too low,
# because $1 - (1-x)^k$ is concave in $x$. Both expectations are finite sums over $c$, so no simulation is needed:

# %% tags=["nbval-check-output"]
import scipy.stats

p = 0.05
n = 16
chance = scipy.stats.binom.pmf(np.arange(n + 1), n, p)  # [n+1], of c right samples
bias = pd.DataFrame({"k": [1, 2, 4, 8, 16]})
bias["true"] = [1 - (1 - p) ** k for k in bias["k"]]
bias["unbiased"] = [sum(w * pass_at_k(n, c, k) for c, w in enumerate(chance)) for k in bias["k"]]
bias["plug-in"] = [sum(w * (1 - (1 - c / n) ** k) for c, w in enumerate(chance)) for k in bias["k"]]
bias.set_index("k").round(4)

# %% [markdown]
# The error of the plug-in estimate grows with $k$, just where the question "sharpening or discovery?" (chapter 09) is
# decided.
#
# The recorded evaluation samples the shipped base many times on the test problems; its rows hold $n$ and $c$ for
# each problem.

# %% alt="Line plot: pass@k of the base against k on a log scale, with a 95 % band over problems."
from rlino_lib.analysis.pass_at_k import pass_at_k_table
from rlino_lib.figures.curves import pass_at_k_curve

evaluated = pd.read_json(BASE / "problems.jsonl", lines=True)
base_curve = pass_at_k_table(evaluated, oversampling=1)
pass_at_k_curve(base_curve, interval="95 % over problems")

# %%
first, last = base_curve.iloc[0], base_curve.iloc[-1]
print(f"{len(evaluated):,} problems × {evaluated['n'].min()} samples")
for row in (first, last):
    print(f"pass@{row['k']:.0f}: {row['pass_at_k']:.1%}, 95 % interval {row['low']:.1%} to {row['high']:.1%}")

# %% [markdown]
# *What to look at.* The distance between the left end and the right end. It is the room for *sharpening*: a method
# that only moves probability onto answers that the model already gives now and then could lift the left end towards
# the right one. A right end that rises as well would be *discovery*. Here the right end is close to 1 already, so
# discovery has no room to show on this set; the four-number problems below leave it some.
#
# ### Problems differ
#
# An average of pass@1 could come from problems that are all alike, or from some that are always solved and some that
# never are. For GRPO these two cases differ much, because it learns only from *mixed* groups, with both right and
# wrong responses. For a problem with success rate $p$,
#
# $$ \Pr(\text{a group of } G \text{ is mixed}) = 1 - p^G - (1-p)^G. $$
#
# The share of *subsets* of the $n$ samples is again the unbiased estimate, and the same function computes it: a group
# is mixed unless it holds no right or no wrong sample.


# %%
def mixed_share(frame: pd.DataFrame, group_size: int) -> float:
    """The share of groups, drawn from each problem's n samples with c right ones, that have both kinds."""
    counts = zip(frame["n"], frame["c"], strict=True)
    return float(np.mean([pass_at_k(n, c, group_size) + pass_at_k(n, n - c, group_size) - 1 for n, c in counts]))


rate = evaluated["c"] / evaluated["n"]
groups = pd.DataFrame({"G": (2, 4, 8, 16, 32, 64)})
groups["measured"] = [mixed_share(evaluated, g) for g in groups["G"]]
groups["if all problems were alike"] = 1 - rate.mean() ** groups["G"] - (1 - rate.mean()) ** groups["G"]

# %% tags=["hide-input"] alt="Left, a histogram: share of problems by the share of their samples that are right. Right, a line plot: share of groups that are mixed against the group size G."
figure, axes = new_figure(1, 2, (9, 3.6))
sns.histplot(rate, bins=np.linspace(0, 1, 21), stat="proportion", ax=axes[0, 0])
axes[0, 0].set(xlabel="share of a problem's samples that are right", ylabel="share of problems")
sns.lineplot(groups.set_index("G"), markers=True, ax=axes[0, 1])
axes[0, 1].set_xscale("log", base=2)
axes[0, 1].set(xlabel="group size G", ylabel="share of groups that are mixed", ylim=(0, 1))
figure

# %% [markdown]
# *What to look at.* On the left, how far do the problems spread around their mean? On the right, the gap between the
# lines is the effect of this spread: problems near 0 and near 1 seldom give mixed groups. In numbers, for the group
# size of the book's runs, and checked on groups that are sampled here:

# %%
G = 8
share = mixed_share(evaluated, G)
never = (evaluated["c"] == 0).mean()
problems = task.problems("validation", 128)
rollouts = sample(policy, [task.prompt(p) for p in problems], group_size=G, seed=2).grade(task, problems)
rates = rollouts.correct.view(-1, G).float().mean(1)  # [P]
mixed = ((rates > 0) & (rates < 1)).float()  # [P]
low, high = bootstrap_interval(mixed.numpy())
print(
    f"mixed groups of {G}, predicted: {share:.1%}; live, of {len(mixed)}: {mixed.mean():.1%} ({low:.1%} to {high:.1%})"
)
print(f"On {never:.1%} of the problems no sample was right: from these nothing is learned until others help.")

# %% [markdown]
# ### Length
#
# The paper's Figure 4 shows how the lengths of right and of wrong responses move apart during training. Where do those
# of this base start?

# %% tags=["hide-input"] alt="Two histograms over each other: lengths in tokens of right and of wrong responses of the base, each as a share of its kind."
responses = pd.DataFrame({"text": rollouts.texts, "length": rollouts.lengths, "truncated": rollouts.truncated})
responses["verdict"] = np.where(rollouts.correct, "right", "wrong")
responses["attempts"] = responses["text"].map(count_attempts)
figure, axes = new_figure(size=(6.5, 3.4))
histogram = {"hue": "verdict", "hue_order": ["right", "wrong"], "stat": "proportion", "common_norm": False}
sns.histplot(responses, x="length", binwidth=6, element="step", ax=axes[0, 0], **histogram)
axes[0, 0].set(xlabel="length of the response (tokens)", ylabel="share of the right, of the wrong")
figure

# %%
responses.groupby("verdict")[["length", "truncated"]].mean().round(2)

# %% [markdown]
# Right and wrong responses start with nearly the same lengths. The long tail to the right comes from the demonstrator:
# after each failed attempt the search may end. The responses at the very right were truncated, and a truncated response
# is wrong by construction. So the mean of the wrong ones depends on the cap.
#
# Does a longer search pay? Count the attempts.

# %%
by_attempts = responses.assign(attempts=responses["attempts"].clip(upper=8), right=responses["verdict"] == "right")
tally = by_attempts.groupby("attempts")["right"].agg(["size", "sum", "mean"])
tally.columns = ["responses", "right", "of these right"]
tally["right so far, of all"] = tally["right"].cumsum() / len(responses)
tally.rename(index={8: "8 or more"}).round(3)

# %% [markdown]
# A further attempt finds some solutions that fewer attempts had not: the last column rises. This is the useful kind of
# length. How good is one attempt?

# %%
first_hit = tally.loc[:1, "right"].sum() / len(responses)
one = {"as it is": {"gives_up": 1.0}, "without its luck": changed["one attempt, no luck"]}
first_of = {
    name: try_out(dataclasses.replace(demonstrator, **c), 16, problems)["share right"] for name, c in one.items()
}
print(f"Right at the first attempt, on these problems: the base in {first_hit:.1%}; the demonstrator in ", end="")
print(", ".join(f"{share:.1%} {name}" for name, share in first_of.items()))

# %% [markdown]
# The demonstrator's luck comes from the exact solver. The base has inherited the search and its habits, and little of
# the luck: its first attempt is hardly better than one at random. Training can change that too (chapter 08c).
#
# ### It gives up sooner than it was taught
#
# The demonstrator stops with a fixed chance after each failed attempt. The base should have learned just that. Count
# how often each of them stops.


# %%
def gives_up(texts: pd.Series, weight: float | pd.Series = 1.0) -> float:
    """Of all failed attempts, the (weighted) share after which the response ends."""
    goes_on = (weight * texts.str.count(" no\n")).sum()
    ends = (weight * texts.str.contains(" no </think>")).sum()
    return ends / (ends + goes_on)


rng = random.Random(0)
taught = pd.Series([demonstrator.response(p, rng) for p in task.problems("validation") * 8])
lengths = taught.map(lambda text: len(tokenizer(text)["input_ids"]) + 1)  # and the end of text
habit = {
    "the demonstrator": gives_up(taught),
    "the demonstrator, traces weighed by 1/|o|": gives_up(taught, 1 / lengths),
    "the base": gives_up(responses["text"]),
}
pd.Series(habit, name="gives up after a failed attempt").round(3).to_frame()

# %% [markdown]
# The second line fits better, and suggests an explanation. For speed, pretraining puts traces of similar length into
# one batch, and the loss is the mean over the tokens of that batch. So a token of a trace of length $|o|$ has a
# weight proportional to $1/|o|$, and short traces, the ones that gave up early, count for more. This is the factor
# $1/|o_i|$ of GRPO's loss, before any reinforcement learning. Here it makes the responses *shorter*, since all its
# examples are imitated. Chapter 08 asks what it does where some are pushed away.
#
# ### Arithmetic
#
# Traces can be checked step by step, which real reasoning rarely allows. And why are wrong responses wrong?

# %%
from rlino_lib.tasks.arithmetic import trace_steps

steps = pd.DataFrame([(op, ok) for t in rollouts.texts for (_, op, _, _), ok in trace_steps(t)], columns=["op", "true"])
print(f"{len(steps):,} steps, {steps['true'].mean():.1%} true:", steps.groupby("op")["true"].mean().round(3).to_dict())
wrong = [grade for grade in rollouts.grades if not grade.correct]
off = np.mean([grade.reason.startswith("equals") for grade in wrong])
print(f"{off:.1%} of the wrong responses use the numbers rightly and have the wrong value")

# %% [markdown]
# Most wrong responses have a wrong value with the right numbers. This is the demonstrator's own way to fail: it gave
# up, and answered with its last attempt. A better or a longer search repairs such failures.
#
# ### A harder set
#
# Four numbers make the same task much harder, and the base has seen few of them. They serve later chapters as
# problems that the model fails nearly always.

# %%
rows = {}
for numbers in (3, 4):
    set_of = get_task("countdown", n_numbers=numbers)
    frame = evaluate(policy, set_of, set_of.problems("validation", 32), samples=16, seed=3)
    summary = summarise(frame, ks=(1, 16))
    rows[f"{numbers} numbers"] = {"pass@1": summary["pass@1"]["value"], "pass@16": summary["pass@16"]["value"]}
    rows[f"{numbers} numbers"] |= {"mixed, G=8": mixed_share(frame, G), "truncated": summary["clipped_ratio"]}
pd.DataFrame(rows).T.round(3)

# %% [markdown]
# ## 6 Read some
#
# Below are whole groups, coloured by the entropy of the next-token distribution: dark is where the model was undecided
# when it sampled the token. Open a group: where is the colour?

# %%
from rlino_lib.training.traces import trace_rows
from rlino_lib.widgets import trace_inspector

nothing = {"advantage": torch.zeros(len(rollouts.texts)), "weights": torch.zeros(rollouts.ids.shape)}
traces = pd.DataFrame(trace_rows(rollouts, nothing, step=0, groups=len(problems), tokenizer=policy.tokenizer))
traces = traces.drop(columns=["advantage", "weights"])  # no method has looked at these yet
right = traces.groupby("group")["correct"].sum()
trace_inspector(traces, groups={int((right - goal).abs().idxmin()): None for goal in (4, 1, 0)}, colour="entropies")

# %% [markdown]
# The undecided places are the first number of an attempt, its operation, and the verdict that ends a line with `no`
# and either goes on or gives up. So of the tokens that a uniform credit pushes, few are choices.
#
# ## 7 The other base
#
# The word problems of chapter 02 have a base of their own: the same architecture, another vocabulary, and another
# teacher, a solver who knows the way and makes mistakes on it. Two tasks could also share one base, with a row of
# either teacher by the toss of a coin. Such a *joint* base was made and measured too (`data/README.md` has the
# commands).

# %%
from rlino_lib.paths import DATA, base_of

other = Path(base_of("word_problems"))
measured = {
    ("Countdown", "its own base"): read_json(BASE / "evaluation.json")["found"],
    ("Countdown", "joint"): read_json(DATA / "base" / "joint" / "countdown.json")["found"],
    ("word problems", "its own base"): read_json(other / "evaluation.json")["found"],
    ("word problems", "joint"): read_json(DATA / "base" / "joint" / "word_problems.json")["found"],
}
rows = {}
for name, summary in measured.items():
    rows[name] = {"pass@1": "{value:.1%} [{low:.1%}, {high:.1%}]".format(**summary["pass@1"])}
    rows[name] |= {"pass@16": f"{summary['pass@16']['value']:.1%}", "steps right": f"{summary['steps_right']:.1%}"}
    rows[name] |= {"tokens": f"{summary['mean_length']:.1f}"}
pd.DataFrame(rows).T

# %% [markdown]
# One base would do nearly as well as two. Two ship all the same: a run of one task should not depend on how much of the
# other its base has seen.
#
# A policy is trained by sampling, and pass@1 is its chance of being right when sampled. How much better is the same
# model taken *greedily*?

# %%
greedily = {}
for name, folder, cap in (("countdown", BASE, 112), ("word_problems", other, 64)):
    game = get_task(name)
    its_base = load_policy(folder)
    validation = game.problems("validation", 128)
    for how, temperature in (("greedy", 0.0), ("sampled", 1.0)):
        prompts = [game.prompt(p) for p in validation]
        graded = sample(its_base, prompts, 1, max_new_tokens=cap, temperature=temperature, seed=0)
        greedily.setdefault(name, {})[how] = graded.grade(game, validation).correct.double().mean().item()
pd.DataFrame(greedily).T.map("{:.1%}".format)

# %% [markdown]
# On Countdown even the likeliest tokens leave most problems unsolved: a search has to go on until it hits. On the
# word problems the likeliest solution is mostly right already, and sampling brings the teacher's slips
# back in. Training there can succeed by making the model *surer*, without teaching it anything. Chapter 07 compares
# methods on this task, and chapter 09 asks what training finds.
#
# ## 8 Qwen-2.5 by one argument
#
# Everything above went through `load_policy` and `sample`, which work with any model. A hub id in place of the
# folder gives the paper's model: `load_policy("Qwen/Qwen2.5-0.5B", device="cuda", dtype=torch.bfloat16)`. The prompt
# changes with it: a large model reads instructions, so the task has a second template, the one used with Countdown
# since TinyZero.

# %% tags=["nbval-check-output"]
print(get_task("countdown", template="r1_zero").prompt(problem))

# %% [markdown]
# The whole evaluation, on a GPU:
#
# ```sh
# rlino evaluate --model Qwen/Qwen2.5-0.5B --task-set template=r1_zero --max-new-tokens 512 --problems 128 --out FOLDER
# ```
#
# ## Exercises
#
# **1. pass@k.** Write `estimate(n, c, k)` so that it also works where $\binom{n}{k}$ is too large for a float.

# %%
from checkers.base_model import check_pass_at_k, check_perplexity


def estimate(n: int, c: int, k: int) -> float:
    """Your code here."""


ok = check_pass_at_k(estimate)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def estimate(n, c, k):
#     if n - c < k:
#         return 1.0
#     return 1 - math.prod(1 - k / i for i in range(n - c + 1, n + 1))
# ```
# $\binom{n-c}{k} / \binom{n}{k}$ is a product of $c$ factors between 0 and 1. Python's integers would also take
# `math.comb` of any size; the product carries over to arrays.
# </details>
#
# **2. Perplexity.** Write `perplexity(logprobs)` for one response: $\exp$ of minus the mean. A perplexity of $m$
# means that the model was as undecided as between $m$ equally likely tokens.


# %%
def perplexity(logprobs: list[float]) -> float:
    """Your code here."""


ok = check_perplexity(perplexity)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def perplexity(logprobs):
#     return math.exp(-sum(logprobs) / len(logprobs))
# ```
# To see whether the base finds its right responses more likely than its wrong ones:
#
# ```python
# traces.assign(perplexity=traces["logprobs"].map(perplexity)).groupby("correct")["perplexity"].median()
# ```
# Chapter 09b asks the same about the responses of *trained* models.
# </details>
#
# **3. A colder sampler.** The paper samples groups of 5 at temperature 0.6. A lower temperature makes the single
# response better. Does it make more groups mixed, or fewer? Set your guess, then run the cell.

# %%
my_guess = None  # "more" or "fewer" groups are mixed at temperature 0.6 than at 1.0

outcome, is_mixed = {}, {}
for temperature in (1.0, 0.6):
    colder = sample(policy, [task.prompt(p) for p in problems], 5, temperature=temperature, seed=4)
    rates = colder.grade(task, problems).correct.view(-1, 5).float().mean(1)  # [P]
    is_mixed[temperature] = ((rates > 0) & (rates < 1)).double().numpy()  # [P]
    outcome[temperature] = {"right": rates.mean().item(), "mixed": is_mixed[temperature].mean()}
change = is_mixed[0.6] - is_mixed[1.0]  # [P], problem by problem
low, high = bootstrap_interval(change)
answer = "more" if low > 0 else "fewer" if high < 0 else "undecided"
verdict = "no guess yet" if my_guess is None else "✓" if my_guess == answer else f"✗ it was {answer}"
print(f"{verdict}; mixed at 0.6 less mixed at 1: {100 * change.mean():+.1f} points,", end=" ")
print(f"95 % interval over problems {100 * low:+.1f} to {100 * high:+.1f}")
pd.DataFrame(outcome).T.rename_axis("temperature").round(3)

# %% [markdown]
# <details><summary>What to make of it</summary>
#
# Where the interval excludes 0, as in the output recorded here: more. Two things pull against each other. A colder
# sampler is right more often on the problems that the model prefers to solve, and while $p$ is below one half that
# makes groups mixed. It also repeats itself: a problem whose likeliest response is wrong becomes wrong every time.
# For this base, which is seldom right, the first wins. For a model that is right most of the time the second would:
# there a colder sampler makes groups all right.
#
# The difference is taken problem by problem, since both samplers had the same problems. Two intervals, one for each
# temperature, would overlap here and hide it.
# </details>
#
# ## Summary

# %%
print(f"The base: pass@1 {first['pass_at_k']:.1%}, pass@{last['k']:.0f} {last['pass_at_k']:.1%}; {share:.1%} of groups")
print(f"of {G} are mixed, and {never:.1%} of the problems were never solved.")

# %% [markdown]
# - The base imitates a searcher that gives up early. Training can make it search better or search longer, and both
#   raise the accuracy; the second makes responses longer for a good reason.
# - pass@k needs its unbiased estimator; the plug-in value is too low, most of all at large k.
# - GRPO learns from mixed groups only, and their share follows from the spread of difficulty, $1 - p^G - (1-p)^G$
#   averaged over problems, not from the average accuracy alone.
# - A truncated response is wrong by construction, so lengths by verdict have to be shown with the share that was
#   truncated.
# - **Settled here**: the starting point of every later claim. **Open**: whether training lifts only the left end of
#   the pass@k curve (chapter 09). Chapter 08c answers which part of the growth in length is search.
#
# Next, chapter 04 turns four responses into a gradient.
