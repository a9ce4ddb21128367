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
# A method can learn only from groups that are partly right, and their share follows from the spread of difficulty,
# not from the mean. Training can make this model search better or search longer, and the second makes responses
# longer for a good reason.
#
# Reinforcement learning starts from a model that can already do something. A method that only reweights what the
# model samples needs samples worth reweighting. So before any method is run, the starting point has to be known,
# number by number. This chapter
#
# 1. shows where the book's base model comes from, down to the traces and the tokens it was made of;
# 2. takes it apart: one next-token distribution, one response sampled by hand, one small model pretrained live;
# 3. measures it: pass@k, the difficulty of each problem, lengths, arithmetic;
# 4. works out from these what a method could learn from it, above all the share of groups that are *mixed*.
#
# The paper trains Qwen-2.5 models of 0.5 and 1.5 billion parameters. The book's base has less than a million, so
# that every claim about a method can be rerun on a laptop. It has the same architecture, and section 7 swaps in the
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
# Which of these weaknesses matters most? Change one at a time and let the demonstrator answer all validation
# problems.


# %% tags=["nbval-check-output"]
from rlino_lib.tasks.arithmetic import count_attempts


def try_out(who: Demonstrator, repeats: int = 4) -> dict[str, float]:
    """Share right and attempts per response, over the validation problems."""
    rng = random.Random(0)
    right, attempts = [], []
    for p in task.problems("validation") * repeats:
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

# %% tags=["nbval-check-output"]
ratio = tried / tried.loc["as it is"]
best = ratio["share right"].idxmax()
print(f"“{best}”: {ratio.loc[best, 'share right']:.1f} times as many right answers", end=" ")
print(f"with {ratio.loc[best, 'attempts']:.1f} times as many attempts")

# %% [markdown]
# Compare the line "as it is" with the ones below it. Giving up is the worst habit, worse than bad luck and far worse
# than overlooked hits. A searcher with the same luck and the same eyes that simply goes on is right much more often.
# So training can raise the accuracy of a model that imitates this program in two ways. It can make it *search
# better*, or it can make it *search longer*. The second makes responses longer for an honest reason, and chapter 08c
# has to separate it from growth that the loss causes.
#
# To write a search out as text, and to train a small model on it from scratch, is the idea of *Stream of Search*
# ([arXiv 2404.03683](https://arxiv.org/abs/2404.03683)), on this same game. Why reinforcement learning after such a
# mixture of short and long traces favours the long ones is worked out in
# [arXiv 2510.11495](https://arxiv.org/abs/2510.11495).
#
# ## 2 Tokens
#
# The tokenizer is Qwen-2's class with a vocabulary of this book's own: one token for each integer to 99, one for
# each sign and word, and the 256 bytes for everything else. A person can read a trace token by token.

# %%
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlino_lib.widgets import tokens_html

tokenizer = AutoTokenizer.from_pretrained(DEFAULT_BASE)
text = task.prompt(problem) + " 8 - 2 = 6, 6 * 4 = 24 no\n 8 * 4 = 32, 32 * 2 = 64 yes </think>"
text += " <answer> ( 8 * 4 ) * 2 </answer>"
ids = tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]
pieces = [tokenizer.decode([i]) for i in ids]
tokens_html(pieces, tips=[f"id {i}" for i in ids], title=f"{len(ids)} tokens; hover for their ids")

# %% tags=["nbval-check-output"]
for written in (" 64", " 154", " 1540", " yes", " hello"):
    pieces = [tokenizer.decode([i]) for i in tokenizer(written)["input_ids"]]
    print(f"{written:8} → {len(pieces)}: {pieces}")
print("text → ids → text gives the same text:", tokenizer.decode(ids[:-1]) == text)

# %% [markdown]
# The spaces belong to the tokens, as in Qwen's own vocabulary. Above 99 a number is spelled with a token for each
# further digit, so its arithmetic is harder to learn; section 5 shows whether it was learned.
#
# ## 3 The model that ships
#
# Hugging Face's own classes load it from a folder.

# %% tags=["nbval-check-output"]
from collections import Counter

model = AutoModelForCausalLM.from_pretrained(DEFAULT_BASE, dtype=torch.float32).eval()
kinds = {"embed": "embedding", "self_attn": "attention", "mlp": "feed-forward", "norm": "norms"}
sizes = Counter()
for name, p in model.named_parameters():
    sizes[next(kind for part, kind in kinds.items() if part in name)] += p.numel()
print(f"{type(model).__name__}, {model.config.num_hidden_layers} layers, width {model.config.hidden_size}")
for kind, size in sizes.most_common():
    print(f"{kind:13}{size:9,}")
print(f"{'total':13}{sizes.total():9,}  (the output layer shares the embedding's weights)")


# %% [markdown]
# Its card says how it was made; `rlino pretrain --out FOLDER` makes it again from the same recipe.


# %%
import json


def read_json(path: Path) -> dict | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


card = read_json(BASE / "card.json")
if card is None:
    print("This copy has no card.json beside the base: `rlino pretrain` writes one.")
else:
    recipe = ", ".join(f"{k} {v}" for k, v in card["recipe"].items())
    print(f"recipe: {recipe}")
    print(f"{card['response_tokens'] / 1e6:.0f} million response tokens in {card['seconds'] / 60:.0f} minutes", end=" ")
    print(f"on {card['threads']} threads; final loss {card['final_loss']:.3f} nats per token")

# %% [markdown]
# The loss is the mean of $-\log \pi_\theta(o_t \mid q, o_{<t})$ over the tokens of the demonstrator's responses; the
# prompt is not learned. The dotted line is a model that finds all tokens equally likely, $\log V$. The curve cannot
# reach 0: the demonstrator chooses numbers and operations at random, and what is random cannot be predicted.

# %% tags=["hide-input"] alt="Line plot on a log scale: pretraining loss in nats per token against optimiser steps, raw and smoothed, with a dotted line at the loss of a uniform guess."
import math

import seaborn as sns
from IPython.display import display

from rlino_lib.figures.style import new_figure

curve_file = BASE / "loss.csv"
if not curve_file.exists():
    print("This copy has no loss.csv beside the base: `rlino pretrain` writes one.")
else:
    curve = pd.read_csv(curve_file)
    figure, axes = new_figure(size=(6.5, 3.2))
    axis = axes[0, 0]
    sns.lineplot(curve, x="step", y="loss", ax=axis, alpha=0.3, linewidth=1)
    sns.lineplot(x=curve["step"], y=curve["loss"].rolling(9, min_periods=1, center=True).mean(), ax=axis)
    axis.axhline(math.log(model.config.vocab_size), color="0.4", linestyle=":")
    axis.set(xlabel="optimiser steps", ylabel="loss (nats per token)", yscale="log")
    axis.set_yticks([0.2, 0.5, 1, 2, 5], ["0.2", "0.5", "1", "2", "5"])
    axis.minorticks_off()
    display(figure)

# %% [markdown]
# The thin line is one batch, the thick one a mean of nine. Batches hold traces of similar length, hence the scatter.
# The curve has two parts: a fast fall while the format and the order of the tokens are learned, and a long slow one
# in which the arithmetic is learned.
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
# smallest of the three is rare). These are decisions. In the second nearly all of the probability is on one token;
# that is arithmetic. A method that gives every token of a response the same credit, as GRPO does, pushes decisions
# and arithmetic alike.
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
# The log-probability of a whole response is a sum over its tokens,
#
# $$ \log \pi_\theta(o \mid q) = \sum_{t=1}^{|o|} \log \pi_\theta(o_t \mid q, o_{<t}), $$
#
# and one forward pass over prompt and response gives all the terms at once. Every method in this book multiplies
# these numbers by a weight. Sampling records them; recompute them here as training will:

# %% tags=["nbval-check-output"]
rollouts = sample(policy, prompts, group_size=4, seed=1)
ids, mask = rollouts.sequences()  # [N, S+T]
positions = (mask.long().cumsum(1) - 1).clamp_min(0)  # prompts are padded on the left
with torch.no_grad():
    logits = policy.model(ids, attention_mask=mask, position_ids=positions).logits  # [N, S+T, V]
start = rollouts.prompt_ids.shape[1]
logp = logits[:, start - 1 : -1].log_softmax(-1).gather(2, rollouts.ids[:, :, None])[:, :, 0]  # [N, T]
print("log-probabilities agree:", torch.allclose(logp * rollouts.mask, rollouts.logprobs, atol=1e-3))

# %% [markdown]
# ## 4 Pretraining, live
#
# The shipped base took the time that its card states. The same code makes a smaller one in less than half a minute,
# on a plain laptop too: fewer layers, half the width, three-number problems only, 200 steps. Its products are
# computed in bfloat16 where the processor has instructions for that, and in float32 elsewhere. What does it learn in
# this time, and what not?

# %%
import tempfile
import time

from rlino_lib.training.config import Recipe
from rlino_lib.training.pretraining.pretrain import pretrain

tiny = Recipe(steps=200, batch_size=32, lr=4e-3, warmup=20, four_numbers=0.0, hidden_size=64, layers=2)
with tempfile.TemporaryDirectory() as folder:
    started = time.time()
    made = pretrain(tiny, folder, progress=False)
    tiny_curve = pd.read_csv(Path(folder) / "loss.csv")
    tiny_policy = load_policy(folder)
print(f"{made['parameters']:,} parameters, {made['response_tokens'] / 1e6:.1f} million tokens,", end=" ")
print(f"{time.time() - started:.0f} seconds in {made['recipe']['precision']}")
print(tiny_curve.set_index("step")["loss"].round(2).to_dict())

# %%
from rlino_lib.evaluation.evaluate import summarise

few = task.problems("validation", 64)
for name, who in (("tiny", tiny_policy), ("shipped", policy)):
    print(f"{name}:{sample(who, [task.prompt(problem)], 1, seed=3).texts[0]}\n")
compared = {
    name: summarise(evaluate(who, task, few, samples=4), ks=(1, 4))
    for name, who in (("tiny, live", tiny_policy), ("shipped", policy))
}
columns = {"format_ok": "answers", "steps_right": "steps right", "attempts_per_response": "attempts"}
pd.DataFrame(
    {
        name: {"right": summary["pass@1"]["value"], **{c: summary.get(k) for k, c in columns.items()}}
        for name, summary in compared.items()
    }
).T.astype(float).round(3)

# %% [markdown]
# After 200 steps the tiny model has the form of an answer. Its arithmetic is far from that of the shipped one, which
# was trained for much longer. A response is right only if the search finds a solution *and* every step of it is
# true, so weak arithmetic limits what any amount of search can do.
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
bias.set_index("k").round(3)

# %% [markdown]
# The error of the plug-in estimate grows with $k$, just where the question "sharpening or discovery?" (chapter 09) is
# decided.
#
# ### The curve of the base
#
# The recorded evaluation samples the shipped base many times on the test problems; its rows hold $n$ and $c$ for
# each problem. Beside it, a small one runs live.

# %%
live = evaluate(policy, task, task.problems("test", 64), samples=16, seed=1)
path = BASE / "problems.jsonl"
recorded = pd.read_json(path, lines=True) if path.exists() else None
if recorded is None:
    print("This copy has no recorded evaluation (problems.jsonl beside the base).")
    print("The live one stands in for it below; to make it: rlino evaluate --samples 64 --out FOLDER")
evaluated = live if recorded is None else recorded
source = f"{'live' if recorded is None else 'recorded'}, {len(evaluated):,} problems × {evaluated['n'].iloc[0]} samples"
print(source)


# %% alt="Line plot: pass@k of the base against k on a log scale, for the recorded evaluation and for the live one, with 95 % bootstrap bands over problems."
from rlino_lib.figures.curves import pass_at_k_curve


def curve_of(frame: pd.DataFrame, method: str) -> pd.DataFrame:
    """pass@k at powers of two, with an interval over problems."""
    rows = []
    for k in (2**i for i in range(12) if 2**i <= frame["n"].min()):
        values = [pass_at_k(n, c, k) for n, c in zip(frame["n"], frame["c"], strict=True)]
        low, high = bootstrap_interval(values)
        rows.append({"method": method, "k": k, "pass_at_k": np.mean(values), "low": low, "high": high})
    return pd.DataFrame(rows)


curves = [curve_of(live, f"live, {len(live)} problems")]
if recorded is not None:
    curves.insert(0, curve_of(recorded, "base"))
base_curve = curves[0]
pass_at_k_curve(pd.concat(curves, ignore_index=True), interval="95 % bootstrap over problems")

# %%
first, last = base_curve.iloc[0], base_curve.iloc[-1]
print(f"One sample is right on {first['pass_at_k']:.1%} of the problems ({first['low']:.1%} to {first['high']:.1%}).")
print(f"Of {last['k']:.0f} samples at least one is right on {last['pass_at_k']:.1%}", end=" ")
print(f"({last['low']:.1%} to {last['high']:.1%}): {last['pass_at_k'] / first['pass_at_k']:.1f} times as many.")

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
# As with pass@k, the share of *subsets* of the $n$ samples is the unbiased estimate, and the same function computes
# it: a group is mixed unless it holds no right or no wrong sample.


# %%
def mixed(n: int, c: int, group_size: int) -> float:
    """The share of the groups that could be drawn from n samples, c of them right, that have both kinds."""
    return pass_at_k(n, c, group_size) + pass_at_k(n, n - c, group_size) - 1


def mixed_share(frame: pd.DataFrame, group_size: int) -> float:
    return float(np.mean([mixed(n, c, group_size) for n, c in zip(frame["n"], frame["c"], strict=True)]))


rate = evaluated["c"] / evaluated["n"]
groups = pd.DataFrame({"G": [g for g in (2, 4, 8, 16, 32, 64) if g <= evaluated["n"].min()]})
groups["measured"] = [mixed_share(evaluated, g) for g in groups["G"]]
groups["if all problems were alike"] = [1 - rate.mean() ** g - (1 - rate.mean()) ** g for g in groups["G"]]
groups.set_index("G").round(3)

# %% tags=["hide-input"] alt="Left, a histogram: share of problems by the share of their samples that are right. Right, a line plot: share of groups that are mixed against the group size G."
figure, axes = new_figure(1, 2, (9, 3.6))
sns.histplot(rate, bins=np.linspace(0, 1, 21), stat="proportion", ax=axes[0, 0])
axes[0, 0].set(xlabel="share of a problem's samples that are right", ylabel="share of problems", title=source)
long = groups.melt("G", var_name="", value_name="share")
sns.lineplot(long, x="G", y="share", hue="", style="", markers=True, ax=axes[0, 1])
axes[0, 1].set_xscale("log", base=2)
axes[0, 1].set_xticks(groups["G"], groups["G"])
axes[0, 1].set(xlabel="group size G", ylabel="share of groups that are mixed", ylim=(0, 1))
figure

# %% [markdown]
# *What to look at.* On the left, how far do the problems spread around their mean? On the right, the gap between the
# lines is the effect of this spread: problems near 0 and near 1 seldom give mixed groups. In numbers, for the group
# size of the book's runs:

# %%
G = 8
PROMPTS = 64
share = mixed_share(evaluated, G)
all_right = float(np.mean([1 - pass_at_k(n, n - c, G) for n, c in zip(evaluated["n"], evaluated["c"], strict=True)]))
print(f"Of groups of {G}, {share:.1%} are mixed, {all_right:.1%} all right, {1 - share - all_right:.1%} all wrong.")
print(f"Of the {PROMPTS} prompts of a training step, about {PROMPTS * share:.0f} teach GRPO something at the start.")
never = (evaluated["c"] == 0).mean()
print(f"On {never:.1%} of the problems no sample was right: from these nothing is learned until others help.")

# %% [markdown]
# Check the prediction on groups that are actually sampled. The same responses serve the rest of the chapter.

# %%
problems = task.problems("validation", 128)
rollouts = sample(policy, [task.prompt(p) for p in problems], group_size=G, seed=2).grade(task, problems)
seen = rollouts.correct.view(-1, G).float().mean(1)  # [P]
mixed_groups = ((seen > 0) & (seen < 1)).float()  # [P]
low, high = bootstrap_interval(mixed_groups.numpy())
print(f"{len(rollouts.texts):,} responses in {len(mixed_groups)} groups")
print(f"mixed: {mixed_groups.mean():.1%} ({low:.1%} to {high:.1%}); predicted: {share:.1%}")

# %% [markdown]
# ### Length
#
# The paper's Figure 4 shows how the lengths of right and of wrong responses move apart during training. They need
# not start equal. Its curves begin here (read off the figure, to about ±5):

# %% tags=["nbval-check-output"]
from rlino_lib.paths import DATA

figure4 = pd.read_csv(DATA / "paper" / "figure4.csv")
start = figure4.iloc[0]
right = start["n_correct"] / (start["n_correct"] + start["n_incorrect"])
print(f"step {start['step']:.0f}: {right:.0%} right,", end=" ")
print(f"{start['length_correct']:.0f} tokens when right, {start['length_incorrect']:.0f} when wrong")

# %% [markdown]
# And this is the book's base.

# %% tags=["hide-input"] alt="Two histograms over each other: lengths in tokens of right and of wrong responses of the base, each as a share of its kind."
responses = pd.DataFrame(
    {
        "length": rollouts.lengths.tolist(),
        "verdict": ["right" if g.correct else "wrong" for g in rollouts.grades],
        "attempts": [count_attempts(t) for t in rollouts.texts],
        "clipped": rollouts.truncated.tolist(),
    }
)
figure, axes = new_figure(size=(6.5, 3.4))
histogram = {"hue": "verdict", "hue_order": ["right", "wrong"], "stat": "proportion", "common_norm": False}
sns.histplot(responses, x="length", binwidth=6, element="step", ax=axes[0, 0], **histogram)
axes[0, 0].set(xlabel="length of the response (tokens)", ylabel="share of the right, of the wrong")
figure

# %%
by_verdict = responses.groupby("verdict").agg(
    responses=("length", "size"),
    mean_length=("length", "mean"),
    median=("length", "median"),
    truncated=("clipped", "mean"),
)
by_verdict.round(2)

# %% [markdown]
# Right and wrong responses start with nearly the same lengths. Both curves have a long tail to the right, which
# comes from the demonstrator: an attempt takes about a dozen tokens, and after each failed one the search may end.
# The responses at the very right of the figure were truncated, and a truncated response is wrong by construction. So
# the mean of the wrong ones depends on the cap. Remember this wherever lengths by verdict are compared.
#
# Does a longer search pay? Count the attempts.

# %%
few_attempts = responses.assign(attempts=responses["attempts"].clip(upper=8), right=responses["verdict"] == "right")
tally = few_attempts.groupby("attempts").agg(responses=("right", "size"), right=("right", "sum"))
tally["of these right"] = tally["right"] / tally["responses"]
tally["right so far, of all"] = tally["right"].cumsum() / len(responses)
tally.rename(index={8: "8 or more"}).round(3)

# %% [markdown]
# The last column only rises: a further attempt finds some solutions that fewer attempts had not. This
# is the useful kind of length. How good is one attempt?

# %%
first_hit = tally.loc[:1, "right"].sum() / len(responses)
by_chance = tried.loc["one attempt, no luck", "share right"]
print(f"right at the first attempt: {first_hit:.1%}; one attempt at random: {by_chance:.1%};", end=" ")
print(f"the demonstrator without its luck, all attempts: {tried.loc['no luck', 'share right']:.1%}")

# %% [markdown]
# The demonstrator's luck comes from the exact solver, and a model of this size cannot learn to solve in its head. It
# can inherit the search and its habits.
#
# ### It gives up sooner than it was taught
#
# The demonstrator stops with a fixed chance after each failed attempt. The base should have learned just that. Count
# how often each of them stops once $k$ attempts have failed.


# %%
def stops(frame: pd.DataFrame, weight: pd.Series | None = None) -> dict[str, float]:
    """Of the responses whose first k attempts failed, the (weighted) share that tries no more."""
    shares = {}
    weight = pd.Series(1.0, index=frame.index) if weight is None else weight
    for k in (1, 2, 3):
        failed = (frame["attempts"] > k) | ((frame["attempts"] == k) & ~frame["hit"])
        shares[f"after {k} failed"] = weight[failed & (frame["attempts"] == k)].sum() / weight[failed].sum()
    return shares


rng = random.Random(0)
taught = pd.DataFrame({"text": [demonstrator.response(p, rng) for p in task.problems("validation") * 8]})
taught["length"] = [len(ids) + 1 for ids in tokenizer(taught["text"].tolist())["input_ids"]]  # and the end of text
learned = responses.assign(text=rollouts.texts)
for frame in (taught, learned):
    frame["attempts"] = frame["text"].map(count_attempts)
    frame["hit"] = frame["text"].str.contains(" yes")
stopping = pd.DataFrame(
    {
        "the demonstrator": stops(taught),
        "the demonstrator, traces weighed by 1/|o|": stops(taught, 1 / taught["length"]),
        "the base": stops(learned),
    }
).T
stopping.round(3)

# %%
apart = stopping.sub(stopping.loc["the base"]).abs().mean(axis=1)
for name in stopping.index[:2]:
    print(f"mean distance of the base to {name}: {100 * apart[name]:.1f} points")

# %% [markdown]
# The second line fits better, and suggests an explanation. For speed, pretraining puts traces of similar length into
# one batch, and the loss is the mean over the tokens of that batch. So a token of a trace of length $|o|$ has a
# weight proportional to $1/|o|$,
#
# $$ \nabla \mathcal{L} \propto -\sum_o \frac{1}{|o|} \sum_{t=1}^{|o|} \nabla \log \pi_\theta(o_t \mid q, o_{<t}), $$
#
# and short traces, the ones that gave up early, count for more. Weighted maximum likelihood fits the weighted data.
# This is the factor $1/|o_i|$ of GRPO's loss, before any reinforcement learning. Here it makes the responses
# *shorter*, since all its examples are imitated. Chapter 08 asks what it does where some are pushed away.
#
# ### Arithmetic
#
# Traces can be checked step by step, which real reasoning rarely allows. The table sorts all steps by operation and
# by whether the result has its own token.

# %%
from rlino_lib.tasks.arithmetic import trace_steps

steps = pd.DataFrame(
    [{"op": op, "result": c, "true": ok} for t in rollouts.texts for (_, op, _, c), ok in trace_steps(t)]
)
steps["result"] = np.where(steps["result"] > 99, "100 and more", "up to 99")
table = steps.groupby(["op", "result"])["true"].agg(["size", "mean"]).unstack()
table = table.rename(columns={"size": "steps", "mean": "share true"})
print(f"{len(steps):,} steps, {steps['true'].mean():.1%} of them true")
table.round(3)


# %% [markdown]
# And why are wrong responses wrong? The grader's reasons fall into a few kinds.


# %%
def kind(grade) -> str:
    if grade.correct:
        return "right"
    if grade.answer is None:
        return "no closed answer"
    if grade.reason.startswith("equals"):
        return "the numbers are used rightly, the value is wrong"
    return "other numbers than given" if "use" in grade.reason else "not an expression"


pd.Series([kind(g) for g in rollouts.grades]).value_counts(normalize=True).round(3).rename("share").to_frame()

# %% [markdown]
# Most wrong responses have a wrong value with the right numbers. This is the demonstrator's own way to fail: it gave
# up, and answered with its last attempt. These are honest failures of search, the kind that a better or a longer
# search repairs.
#
# ### A harder set
#
# Four numbers make the same task much harder, and the base has seen few of them. They serve later chapters as
# problems that the model fails nearly always.

# %%
four = get_task("countdown", n_numbers=4)
harder = evaluate(policy, four, four.problems("validation", 32), samples=16, seed=3)
easier = evaluate(policy, task, task.problems("validation", 32), samples=16, seed=3)
rows = {}
for name, frame in (("three numbers", easier), ("four numbers", harder)):
    summary = summarise(frame, ks=(1, 16))
    single = summary["pass@1"]
    rows[name] = {"pass@1": single["value"], "low": single["low"], "high": single["high"]}
    rows[name] |= {"pass@16": summary["pass@16"]["value"], "mixed, G=8": mixed_share(frame, G)}
    rows[name] |= {"mean length": summary["mean_length"], "truncated": summary["clipped_ratio"]}
pd.DataFrame(rows).T.round(3)

# %% [markdown]
# ## 6 Read some
#
# Numbers hide what kind of mistakes a model makes. Below are whole groups, coloured by the entropy of the next-token
# distribution: dark is where the model was undecided when it sampled the token. Open a group: where is the colour?

# %%
from rlino_lib.training.traces import trace_rows
from rlino_lib.widgets import trace_inspector

nothing = {"advantage": torch.zeros(len(rollouts.texts)), "weights": torch.zeros(rollouts.ids.shape)}
traces = pd.DataFrame(trace_rows(rollouts, nothing, step=0, groups=len(problems), tokenizer=policy.tokenizer))
traces = traces.drop(columns=["advantage", "weights"])  # no method has looked at these yet
counts = traces.groupby("group")["correct"].sum()
chosen = [int((counts - goal).abs().idxmin()) for goal in (G // 2, 1, 0)]
trace_inspector(traces, groups=dict.fromkeys(chosen), colour="entropies")

# %% [markdown]
# The undecided places are the first number of an attempt, its operation, and the verdict that ends a line with `no`
# and either goes on or gives up. After an equals sign there is little colour. So of the tokens that a uniform credit
# pushes, few are choices.
#
# ## 7 The other base
#
# The word problems of chapter 02 have a base of their own: the same architecture, another vocabulary, and another
# teacher, a solver who knows the way and makes mistakes on it. Its evaluation ships with it.

# %%
from rlino_lib.paths import base_of

other = Path(base_of("word_problems"))
measured = {
    name: read_json(folder / "evaluation.json") for name, folder in (("Countdown", BASE), ("word problems", other))
}
rows = {}
for name, evaluation in measured.items():
    summary = evaluation["found"]
    rows[name] = {f"pass@{k}": f"{summary[f'pass@{k}']['value']:.1%}" for k in (1, 4, 16, 64)}
    rows[name] |= {f"pass@1, new {kind}": f"{share:.1%}" for kind, share in summary.get("by_kind", {}).items()}
    rows[name] |= {"steps calculated right": f"{summary['steps_right']:.1%}", "tokens": f"{summary['mean_length']:.1f}"}
pd.DataFrame(rows).fillna("–")

# %% [markdown]
# Sampling is how a policy is trained, and pass@1 is its chance of being right when sampled. The same model, taken
# *greedily*, always writes the likeliest token. How far the two lie apart says what is left to learn:

# %%
greedy = {}
for name, folder, cap in (("countdown", BASE, 112), ("word_problems", other, 64)):
    game = get_task(name)
    its_base = load_policy(folder)
    validation = game.problems("validation", 128)
    prompts = [game.prompt(p) for p in validation]
    for temperature in (0.0, 1.0):
        graded = sample(its_base, prompts, 1, max_new_tokens=cap, temperature=temperature, seed=0)
        right = graded.grade(game, validation).correct.double().mean().item()
        greedy.setdefault(name, {})["greedy" if not temperature else "sampled"] = right
pd.DataFrame(greedy).T.map("{:.1%}".format)

# %% [markdown]
# On Countdown even the likeliest tokens leave most problems unsolved: a search has to go on until it hits. On the
# word problems the likeliest solution is mostly right already, and sampling loses what the teacher's carelessness
# adds. Training there can succeed by making the model *surer*, without teaching it anything. Chapter 07 compares
# methods on this task, and chapter 09 asks what training finds.
#
# ### One base for both?
#
# Two tasks could share one base, with one vocabulary and, by the toss of a coin, a row of either teacher. It was
# made and measured; `data/README.md` has the commands.

# %%
JOINT = DATA / "base" / "joint"
own_cards = [read_json(f / "card.json") for f in (BASE, other)]
joint_card = read_json(JOINT / "card.json")
cards = {"its own base": own_cards, "joint": [joint_card] * 2}
rows = {}
for k, (name, task_name) in enumerate((("Countdown", "countdown"), ("word problems", "word_problems"))):
    own = measured[name]["found"]
    joint = read_json(JOINT / f"{task_name}.json")["found"]
    for which, summary in (("its own base", own), ("joint", joint)):
        card = cards[which][k]
        seen = card["recipe"]["steps"] * card["recipe"]["batch_size"] / (2 if which == "joint" else 1)
        rows[name, which] = {
            "rows of the task in pretraining": f"{seen:,.0f}", "parameters": f"{card['parameters']:,}",
            "pass@1": "{value:.1%} [{low:.1%}, {high:.1%}]".format(**summary["pass@1"]),
            "pass@16": f"{summary['pass@16']['value']:.1%}",
            "in the format": f"{summary['format_ok']:.1%}", "steps calculated right": f"{summary['steps_right']:.1%}",
        }  # fmt: skip
pd.DataFrame(rows).T

# %% [markdown]
# Where the intervals overlap, one base would do as well as two, as far as these samples can tell. Two ship all the
# same. A run of one task should not depend on how much of the other its base has seen, and each vocabulary is as
# small as its task allows. The joint base's weights are not kept, only its card and its measurements.
#
# ## 8 Qwen-2.5 by one argument
#
# Everything above went through `load_policy` and `sample`, which work with any model. A hub id in place of the
# folder gives the paper's model. The prompt changes with it: a large model reads instructions, so the task has a
# second template, the one used with Countdown since TinyZero.

# %% tags=["nbval-check-output"]
qwen_task = get_task("countdown", template="r1_zero")
print(qwen_task.prompt(problem))

# %% [markdown]
# The next cell runs it where the weights are on this computer already and there is a GPU. It never downloads
# anything; elsewhere it prints the command.

# %%
import html

from huggingface_hub import try_to_load_from_cache

from rlino_lib.widgets.tokens import Html

QWEN = "Qwen/Qwen2.5-0.5B"
files = [try_to_load_from_cache(QWEN, name) for name in ("config.json", "model.safetensors", "tokenizer.json")]
answers = "Not run here: it needs the weights on disk and a GPU."
if all(isinstance(f, str) for f in files) and torch.cuda.is_available():
    qwen = load_policy(Path(files[0]).parent, device="cuda", dtype=torch.bfloat16)
    answers = "\n\n".join(sample(qwen, [qwen_task.prompt(problem)], 2, max_new_tokens=256).texts)
command = f"rlino evaluate --model {QWEN} --task-set template=r1_zero --max-new-tokens 512 --problems 128 --out FOLDER"
Html(f"<pre>{html.escape(answers)}</pre><p>The whole evaluation:</p><pre>{html.escape(command)}</pre>")

# %% [markdown]
# ## Exercises
#
# **1. pass@k.** Write `estimate(n, c, k)` so that it also works where $\binom{n}{k}$ is too large for a float.


# %%
from checkers.base_model import check_mean_logprob, check_pass_at_k, check_perplexity


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
# **2. Mean log-probability.** `rollouts.logprobs` is 0 on padding, so its mean over a row is not the mean over the
# response. Write `mean_logprob(logprobs, mask)` for tensors `[N, T]`, with a result `[N]`. This divides by $|o_i|$,
# as GRPO's loss does.


# %%
def mean_logprob(logprobs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Your code here."""


ok = check_mean_logprob(mean_logprob)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def mean_logprob(logprobs, mask):
#     return (logprobs * mask).sum(1) / mask.sum(1)
# ```
# </details>
#
# **3. Perplexity.** Write `perplexity(logprobs)` for one response: $\exp$ of minus the mean. A perplexity of $m$
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
# Chapter 09 (planned) asks the same about the responses of *trained* models: if the base finds them likely, training
# has selected rather than invented.
# </details>
#
# **4. A colder sampler.** The paper samples groups of 5 at temperature 0.6. A lower temperature makes the single
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
print(f"The base ({source}):")
print(f"  pass@1 {first['pass_at_k']:.1%}, pass@{last['k']:.0f} {last['pass_at_k']:.1%};", end=" ")
print(f"{steps['true'].mean():.1%} of its arithmetic steps are true (live);")
print(f"  {share:.1%} of groups of {G} are mixed, {never:.1%} of the problems were never solved.")

# %% [markdown]
# - The base imitates a searcher that gives up early. Training can make it search better or search longer, and both
#   raise the accuracy; the second makes responses longer for a good reason.
# - pass@k needs its unbiased estimator; the plug-in value is too low, most of all at large k.
# - GRPO learns from mixed groups only, and their share follows from the spread of difficulty, $1 - p^G - (1-p)^G$
#   averaged over problems, not from the average accuracy.
# - A truncated response is wrong by construction, so lengths by verdict have to be shown with the share that was
#   truncated.
# - **Settled here**: the starting point of every later claim. **Open**: whether training lifts only the left end of
#   the pass@k curve (chapter 09). Chapter 08c answers which part of the growth in length is search.
#
# Next, chapter 04 turns four responses into a gradient.
