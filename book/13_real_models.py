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
# # 13 · Real models
#
# **What do public records of real models say to these claims?**
#
# **The answer.** What can be seen without training agrees with this book: wrong responses are longer, a part of that is
# the difficulty of the problem, and where responses are capped, truncation can account for nearly all of it. What takes
# training stays open: each public record is one run with one seed, and among this book's own runs single seeds
# disagree. On most claims the records are silent; where they say something without settling it, the ledger says what a
# verdict would take. In the ledger: `longer-before` holds, `longer-held` holds with conditions,
# `gains-order` holds, `gains-sides` is undecided, `gains-shape` is undecided.
#
# The models of this book have fewer than a million parameters; one in between has 27 million. Others have published,
# under open licences, what larger models did: responses with verdicts, logs of GRPO, the share right at each visit of a
# prompt. None of these is the paper's experiment. All of them bear on its claims.
#
# ## The records
#
# The tables hold counts, lengths, verdicts and logs. They are chosen from the source files by `tools/real.py`, which
# checks each file's SHA-256. [Their README](../data/real/README.md) says of each what it is **not**.

# %%
import numpy as np
import pandas as pd

from rlino_lib.analysis import real
from rlino_lib.analysis.growth import base_length, base_problems
from rlino_lib.analysis.statistics import differences, outcomes, t_interval
from rlino_lib.analysis.tables import pooled
from rlino_lib.figures import real as figures
from rlino_lib.figures.recorded import say
from rlino_lib.figures.style import style
from rlino_lib.records import list_runs
from rlino_lib.records.real import real_table, sources, visits

style()
own = real.own_runs()
sources()

# %% [markdown]
# ## Wrong is longer, before this training
#
# The paper's Figure 4 has wrong responses longer than right ones, and the gap widens in training. Is there a gap
# before? There are three ways to ask, and they are different questions:
#
# - **Pooled.** The mean length of all wrong responses less that of all right ones. Hard problems need long solutions
#   and are wrong more often, so problems alone can make this difference.
# - **Difficulty held.** With one response per problem, what can be held is what is known of the problem: the steps and
#   the length of the reference solution, and the length of the question. Fit
#
# $$ \text{length} = a + b \cdot \text{wrong} + c^\top \text{difficulty} + \text{noise} $$
#
# by least squares and read $b$. What the three numbers do not tell of difficulty stays in $b$.
#
# - **Within problems.** With several responses per problem, compare wrong and right ones *to the same problem*, and
#   average over the problems that have both. Nothing about the problem is left in it.

# %%
DIFFICULTY = ["gold_steps", "gold_characters", "question_characters"]
PROBLEM = ["task", "problem"]
greedy = real_table("gsm8k")
arithmetic = real_table("arithmetic")
measures = []
for model, frame in greedy.groupby("model", sort=False):
    right = frame.loc[frame["correct"], "characters"].mean()
    measures.append((f"{model}, GSM8K", "pooled", real.length_gap(frame, "characters"), right))
    measures.append((f"{model}, GSM8K", "difficulty held", real.length_gap(frame, "characters", DIFFICULTY), right))
right = arithmetic.loc[arithmetic["correct"], "characters"].mean()
within = real.within_gaps(arithmetic, "characters", PROBLEM)
name = "Qwen2.5-3B-Instruct, arithmetic"
measures.append((name, "pooled", real.clustered_gap(arithmetic, "characters", PROBLEM), right))
measures.append((name, "within problems", real.mean_of(within), right))
gaps = [(name, kind, real.estimate(values), right) for name, kind, values, right in measures]
pd.DataFrame([(n, k, gap.words(), r) for n, k, gap, r in gaps], columns=["", "", "characters", "right"]).round(0)

# %% [markdown]
# Beside these the book's own bases, which have 64 samples per problem. Lengths there are tokens, so the figure shows
# all differences in percent of the mean length of right responses.

# %%
bases = {title: base_problems(runs[0]) for title, runs in own.items()}
words = next(run for run in list_runs("head-to-head") if run.config["task"] == "word_problems")
bases = {f"{title}, Countdown": base for title, base in bases.items()} | {
    "the book’s, 0.8 M, word problems": base_problems(words)
}
own_gaps = []
for name, base in bases.items():
    found = real.base_gaps(base)
    own_gaps.append((name, "pooled", found["pooled"], base_length(base, "right")))
    own_gaps.append((name, "within problems", found["within"], base_length(base, "right")))


# %% alt="Two panels of differences with intervals, public records above and the book's bases below. Pooled differences of public records lie between 20 and 40 percent of the length of right responses; with difficulty held, or within problems, they are smaller, and two of five reach 0. The book's Countdown bases have a few percent, and its word problems a negative difference."
def in_percent(rows):
    table = [(name, kind, *gap.over(right / 100)) for name, kind, gap, right in rows]
    return pd.DataFrame(table, columns=["name", "kind", "value", "low", "high"])


figures.gap_figure({"public records": in_percent(gaps), "the book’s bases": in_percent(own_gaps)})

# %% [markdown]
# *What the paper says and what was found.* In the paper's figure wrong responses are longer from the start. So they are
# in every public record, pooled; but with difficulty held less is left, and within 15 arithmetic tasks the interval
# holds 0. The book's word problems show that the sign itself belongs to the task: there wrong responses leave a step
# out, and are shorter. The Qwen models on GSM8K were asked with different prompts, so nothing follows from the
# differences between them. (`rlft` is the instruct model after others fine-tuned it by RL; no claim here rests on it.)
#
# What is left within problems comes from few problems, and its interval is wide. By task, looked at after the fact:

# %%
names = within.index.get_level_values("task")
others = within[names != "prime_factorization"]
say(
    f"Within problems, in characters: all {len(within)} mixed problems {real.estimate(real.mean_of(within)).words()}, "
    f"median {within.median():+.0f}; the {len(within) - len(others)} of prime factorization "
    f"{real.estimate(real.mean_of(within[names == 'prime_factorization'])).words()}; "
    f"without them {real.estimate(real.mean_of(others)).words()}."
)

# %% [markdown]
# ## How much of it is the cap
#
# A response that reaches the cap has not answered, so it is wrong by construction, and it is as long as a response can
# be. Truncation therefore makes wrong responses longer by itself. How much? Let $R$ be the mean length of right
# responses, $W$ that of wrong ones, and $W'$ that of the wrong ones that were not truncated. The share of the gap that
# goes with truncation is
#
# $$ 1 - \frac{W' - R}{W - R} . $$

# %% alt="Three histograms of lengths, right and wrong: Qwen3-0.6B after GRPO on Countdown, the book's model, and the base in between. In all three nearly all wrong responses stand in the last bar, at the cap, and right ones spread over short lengths."
countdown = real_table("countdown").rename(columns={"tokens": "length"})
tested = countdown[countdown["model"] == "GRPO"]
panels = {"Qwen3-0.6B after GRPO": (tested, 1024)}
for title, runs in own.items():
    panels[title] = pooled(runs).rename(columns={"clipped": "truncated"}), runs[0].config["max_new_tokens"]
figures.truncation_figure(panels)

# %%
for title, (frame, _) in panels.items():
    cut = real.truncation(frame["correct"], frame["truncated"], frame["length"])
    say(
        f"{title}: right {cut.right:.0f} tokens, wrong {cut.wrong:.0f}, of which {cut.truncated:,} of {cut.wrongs:,} "
        f"are at the cap and the others have {cut.whole:.0f}. Share of truncation: {100 * cut.share:.0f} %."
    )

# %% [markdown]
# *What the paper says and what was found.* The paper reports 888 tokens for wrong responses under a cap of 1,024, and
# no share that reached it. In a model of 0.6B that was trained on the same task nine tenths of "wrong is longer" go
# with the cap, and nearly the same share in this book's far smaller models.
#
# Two cautions. Truncated responses *are* long: the cap hides by how much, and "goes with truncation" is no argument
# that length does not matter. And in the Rho-1 records nobody wrote down who reached a cap. One can look for responses
# that never announce an answer:

# %%
rows = []
for model, frame in greedy.groupby("model", sort=False):
    ends = frame[frame["answered"]]
    silent = ~frame["answered"]
    plain = real.estimate(real.length_gap(ends, "characters"))
    held = real.estimate(real.length_gap(ends, "characters", DIFFICULTY))
    rows.append((model, 100 * silent[~frame["correct"]].mean(), plain.words(), held.words()))
columns = ["", "wrong without an answer, %", "wrong − right among those with one", "difficulty held"]
pd.DataFrame(rows, columns=columns).set_index("").round(1)

# %% [markdown]
# Among Rho-1's responses that announce an answer, and with difficulty held, wrong ones are *not* longer. That is what
# is left after choosing responses by something that happens at their end; exercise 2 is about what such a choice does.
#
# ## Length against reward under GRPO
#
# The length argument of chapter 08 says that wrong responses drift longer under $1/|o|$. Public logs hold one mean
# length for all responses, so they cannot show that drift. They can show whether length and reward go together.

# %% alt="Eight pairs of curves by step, share right above and mean length below. Countdown with a length penalty: right rises, length falls, in two runs. MATH without KL: after 200 steps right falls while length doubles; with a longer cap the same, to four times the length; with clipping both stay level. MATH with KL: after 70 steps nothing is right and length stays at the cap. The book's runs: right and length rise together, all seeds alike."
logs = pd.concat([
    real_table("countdown_logs").rename(columns={"accuracy": "right"}),
    real_table("math_logs").rename(columns={"reward": "right"}),
])  # fmt: skip
TITLES = {
    "grpo": "Countdown,\nlength penalty", "grpo_trl": "Countdown,\nthe same in TRL", "no_kl": "MATH, no KL",
    "no_kl_long": "MATH, no KL,\nlonger cap", "clip": "MATH, no KL,\nclipped", "kl": "MATH, clipped, KL",
}  # fmt: skip
shown = {title: logs[logs["run"] == run] for run, title in TITLES.items()}
for title, runs in own.items():
    steps = [run.metrics[run.metrics["step"] > 0].assign(seed=run.seed) for run in runs]
    shown[title.replace(", ", ",\n")] = pd.concat(steps).rename(
        columns={"accuracy": "right", "completions/mean_length": "tokens"}
    )
figures.log_figure(shown)

# %%
for run in ("grpo", "grpo_trl"):
    quarters = real.by_quarter(logs[logs["run"] == run], ["right", "tokens"])
    first, last = quarters.iloc[0], quarters.iloc[-1]
    say(
        f"{run}: first to last quarter, share right {first['right']:.2f} to {last['right']:.2f}, tokens "
        f"{first['tokens']:.0f} to {last['tokens']:.0f}."
    )
steps = logs[logs["run"] == "no_kl"].set_index("step")[["right", "tokens", "entropy"]]
early, late = steps.loc[51:100].mean(), steps.loc[201:300].mean()
say(
    f"no_kl: steps 51–100 to 201–300, share right {early['right']:.2f} to {late['right']:.2f}, tokens "
    f"{early['tokens']:.0f} to {late['tokens']:.0f}, entropy {early['entropy']:.2f} to {late['entropy']:.1f} nats."
)
most = logs.loc[logs["run"] == "kl", "entropy"].tail(100).mean()
say(f"kl: entropy {most:.2f} nats at the end, that of a uniform choice among {np.exp(most):,.0f} tokens.")

# %% [markdown]
# *What the paper says and what was found.* The paper sees length grow with accuracy. Public logs show no fixed
# relation: reward rises while length falls (under a length penalty), reward falls while length grows, and part of both
# turns back later (no KL), both rise (a clip alone), and one run collapses to noise, in which length is the cap.
#
# The run with KL collapsed and the run that only clips did not. That is no evidence that KL harms. There is one seed of
# each, with one prompt a step and a summed log-probability, and the collapse ends in a nearly uniform choice among
# all tokens, which no KL term asks for. These runs share code, base and prompts, and end far apart; what would a
# second seed of each have done? **What it would take:** five seeds of each,
# with lengths of right and wrong apart.
#
# ## GRPO beside filtered SFT
#
# One repository has both on Countdown: SFT, RFT (one round of rejection sampling) and GRPO, tested greedily on the same
# 500 problems. Is that the paper's comparison of GRPO with F-ISFT⁺?

# %% alt="Five differences of GRPO to another method, in points of accuracy. Over problems: plus 6 to RFT and plus 8 to SFT, intervals above 0. Over seeds: the book's GRPO to F-ISFT plus about 3 with an interval above 0; in between minus 3 with an interval below 0."
models = dict(list(countdown.groupby("model")))
rows = [(f"Qwen3-0.6B: {other}", "problems", *real.paired(models["GRPO"], models[other])) for other in ("RFT", "SFT")]
for title, group in (("the book’s, 0.8 M", "head-to-head"), ("in between, 27 M", "mid")):
    runs = [run for run in list_runs(group) if run.config["task"] == "countdown" and "constant" not in run.name]
    by_seed = -differences(outcomes(runs), "f_isft_pos", "grpo")
    rows.append((f"{title}: F-ISFT⁺, {len(by_seed)} seeds", "seeds", by_seed.mean(), *t_interval(by_seed)))
compared = pd.DataFrame(rows, columns=["name", "over", "value", "low", "high"])
figures.difference_figure(compared)

# %%
accuracy = countdown.groupby("model", sort=False)["correct"].mean()
say("Share right of 500: " + ", ".join(f"{model} {value:.3f}" for model, value in accuracy.items()) + ".")
gap = compared.iloc[0]
say(f"GRPO − RFT {gap['value']:+.1f} points [{gap['low']:+.1f}, {gap['high']:+.1f}] over problems.")

# %% [markdown]
# *What the paper says and what was found.* The paper has F-ISFT⁺ 6.3 points above GRPO at 0.5B and 17.9 below it at
# 1.5B; here one round of filtered SFT ends below GRPO, and F-ISFT⁺ below it in the book's model, above it in between
# (chapter 12). The first is *not the paper's comparison*: the filtered samples are another model's, an 8B teacher's;
# there is one round of them, not one a step; RFT starts from the untouched model and GRPO from the SFT model.
#
# Nor do the intervals of the figure mean the same. The upper ones are over problems: with these very weights, other
# problems would give about this difference. The lower ones are over seeds: another run would give about this one.
# Nothing in an interval over problems knows what a second seed would have done, however many problems there are.
# **What it would take:** on-policy rounds from the same start, and five seeds of each method.
#
# ## Groups without signal
#
# A group in which all rollouts are right, or none, has advantage 0 everywhere. One public run recorded every visit:
# GRPO on Qwen2.5-Math-1.5B, 1,209 prompts, 8 rollouts a visit, 64,000 groups.

# %% alt="Left: bands of groups by visit of Qwen2.5-Math-1.5B; none right shrinks from 36 to 28 percent, all right grows from 8 to 22, mixed goes from 56 to 50. Right: the share without signal over the run: Qwen2.5-Math near one half, Qwen3 on Countdown rising from 0.3 to 0.6, the book's model and the one in between falling from 0.25 to 0.15, the latter rising to 0.2 at the end."
visited = visits()
by_visit = real.signal_by_visit(visited)
without = {"Qwen3-0.6B, Countdown, groups of 5": logs[logs["run"] == "grpo"].set_index("step")["frac_reward_zero_std"]}
for title, runs in own.items():
    steps = pd.concat([run.metrics[run.metrics["step"] > 0] for run in runs])
    without[f"{title}, groups of 8"] = steps.groupby("step")["frac_reward_zero_std"].mean()
figures.signal_figure(by_visit, without)

# %%
by_visit.iloc[[0, -1]].round(3)

# %% [markdown]
# *What was found.* In this run about half of all groups carry no signal from the first visit to the last: as prompts
# become hopeless less often, others become certain. So half of the sampling buys nothing, at every time, which is what
# DAPO's filter is for. In the run of Qwen3-0.6B on Countdown the share doubles in training. In the book's runs the
# share *falls*, in between only at first: their base is rarely certain of anything.
#
# ## Gains by difficulty
#
# Chapter 05: with binary rewards GRPO is balanced F-ISFT⁺⁻ with a weight of $\sqrt{p(1-p)}$ on each prompt. If each
# prompt had a logit $z$ of its own, $p = \sigma(z)$, that weight would be its velocity,
#
# $$ \frac{dz}{dt} = \sqrt{p(1-p)}, \qquad\text{so}\qquad \frac{dp}{dt} = p(1-p)\,\frac{dz}{dt} . $$
#
# It predicts which prompts gain most: those in the middle. But *any* push makes an inverted U of gains in $p$, because
# a share has no room at either end: if all log-odds rise alike, $dz/dt = 1$, gains in $p$ are largest in the middle as
# well. An inverted U is weak evidence. The place to look is log-odds, where "all alike" is a flat line.
#
# **The threshold was set first**: bins, visits and tests stand in `data/claims.toml`, committed before any code had
# looked at a gain. Three bins were known from an earlier look; the comment there says which.
#
# One trap comes first. Sort prompts by what they did on visits 1, 3 and 5. If the start is measured on the *same*
# visits, prompts that were lucky there seem to fall and unlucky ones to rise: regression to the mean. So the start
# is measured on visits 2, 4 and 6.

# %%
early = np.array([v[:6] for v in visited])
chosen = early[:, [0, 2, 4]].mean(axis=1)
end = np.array([np.mean(v[-6:]) for v in visited])
naive = pd.Series(end - chosen).groupby(real.bin_of(chosen)).mean().to_numpy()
run_gains = real.gains_by_visits(visited)
apart = run_gains.table()
pd.DataFrame({
    "prompts": apart["prompts"], "weight": apart["weight"], "start": apart["start"], "end": apart["end"],
    "gain": apart["gain"], "from": apart["low"], "to": apart["high"], "gain, start on the same visits": naive,
}).round(3)  # fmt: skip

# %% [markdown]
# The same for the book's models, where test problems are sorted by one half of the base's 64 samples and measured on
# the other half. Curves are where a push at each rate leads; each has one free number, the time that fits its ends
# best.

# %% alt="Three columns, gains in the share right above and gains in log-odds below, by the share right at the start, with three curves. Qwen2.5-Math-1.5B: gains are an inverted U; log-odds rise by about 0.9 to 1.7 in all seven bins, flat or slightly rising, where the weight's curve falls to 0 at both ends. The book's two models: only bins below one third; log-odds rise from 1.7 to 2.2 with the share, as the weight's curve does."
found = {"Qwen2.5-Math-1.5B, 500 steps": run_gains}
found |= {title: real.own_gains(runs) for title, runs in own.items()}
figures.gains_figure(found)

# %% [markdown]
# *What to look at.* The lower row. A flat line of bins says "all alike", an arch says "as the weights".
#
# The ledger's rows on these records, as judged:

# %%
from rlino_lib.claims.judge import judge
from rlino_lib.claims.ledger import RECORDED, read_ledger

ledger = read_ledger()
mine = [claim for claim in ledger if claim.evidence.startswith("real.")]
judged = {claim.id: judge(claim, RECORDED) for claim in mine}
rows = [(c.id, c.statement, judged[c.id].verdict, judged[c.id].effect) for c in mine]
pd.set_option("display.max_colwidth", None)
pd.DataFrame(rows, columns=["", "claim", "verdict", "what was found"]).set_index("")

# %% [markdown]
# *What was found.* The order of the bins is that of the weights, as predicted. Does that tell the curves apart? Let
# each curve move the bins for the time that fits it best, and take both statistics of where it leads:

# %%
rows = {"measured": (real.rank_correlations(run_gains)[0], real.side_ratios(run_gains)[0])}
for curve in real.CURVES:
    ends = real.along(run_gains, curve)
    rows[f"pushed by {curve}" if curve != real.ALIKE else curve] = (
        real.rank_correlations(ends)[0], real.side_ratios(ends)[0]
    )  # fmt: skip
pd.DataFrame.from_dict(rows, "index", columns=["rank correlation", "gain per weight, hard over easy"]).round(2)

# %% [markdown]
# The order tells nothing apart: a push that is the same for all has it as well. The second column shows a mistake in
# the plan. The weight is a speed at the start, and equal on both sides. But over 500 steps hard prompts walk *into* the
# middle and easy ones out of it, so that every curve has hard prompts gain about twice as much per weight. The test of
# `gains-sides` asks for what the weights do not predict, and the ledger puts it under revision. And the test that was
# planned between the two curves is undecided. Within a bin prompts differ, too: among those with no success in 24 some
# are hopeless and some are merely hard, and only the latter move.
#
# What would a second seed have said? The book's runs have seeds, so that one can ask each alone:

# %%
rows = []
for title, runs in own.items():
    for run in runs:
        alone = real.own_gains([run]).sample
        miss = {curve: real.fit_times(alone, curve)[1][0] ** 0.5 for curve in (real.WEIGHT, real.ALIKE)}
        rows.append((title, run.seed, *miss.values(), min(miss, key=miss.get)))
seeds = pd.DataFrame(rows, columns=["model", "seed", *miss, "nearer"])
nearer = seeds.groupby("model", sort=False)["nearer"].value_counts().unstack(fill_value=0)
seeds.round(3)

# %%
for title, counts in nearer.iterrows():
    say(f"{title}: nearer in seeds: " + ", ".join(f"{curve} {n}" for curve, n in counts.items()) + ".")

# %% [markdown]
# Not all seeds of one and the same set-up agree. A record with one of them could have said either, so its verdict is on
# the run, and none on the method. **What it would take:** the same record for five seeds under GRPO, and for five under
# Dr. GRPO, whose weight is $p(1-p)$. If weights matter the two sets must part, and "all alike" cannot explain that.
#
# ## Graders on real text
#
# The untouched Qwen3-0.6B has 0 of 500 right on Countdown. Its answers are short equations. Here they are graded again
# by the grader of chapter 02, as they stand and with what follows the first "=" left out.

# %%
from rlino_lib.tasks.countdown.grade import check_answer


def right(row, answer):
    return check_answer(answer, [int(n) for n in row.numbers.split()], row.target)[0]


again = countdown.assign(
    strict=[right(row, row.answer) for row in countdown.itertuples()],
    lenient=[right(row, row.answer.partition("=")[0]) for row in countdown.itertuples()],
)
same = (again["strict"] == again["correct"]).sum()
say(f"The book's grader and the source's agree on {same:,} of {len(again):,} answers.")
again.groupby("model", sort=False)[["strict", "lenient"]].mean().round(3)

# %% [markdown]
# *What was found.* A model that writes "37 + 1 + 30 = 68" where an expression is asked for is wrong by one grader and
# right by the other. The gain from "0" that training then shows is in part the format, as chapter 02 warns.
#
# ## What the records say to the ledger
#
# Every claim has a column "real models": *supports*, *speaks against*, *no verdict* with what one would take, or
# *silent*. A claim about one public run can hold while this column has *no verdict*: the claim is on the prompts of
# that run, and the column asks what holds of the method. These are the claims of which the records say anything:

# %%
rows = [(c.id, c.real["says"], c.real["record"], c.real.get("takes", "")) for c in ledger if c.real]
silent = sum(not claim.real for claim in ledger)
say(f"Silent on {silent} of {len(ledger)} claims.")
pd.DataFrame(rows, columns=["", "real models", "record", "a verdict takes"]).set_index("")

# %% [markdown]
# No record contradicts a claim, and that is no success: a single run could not have.
#
# **Your own logs.** `rlino import` makes a run folder of the logs and responses of TRL, verl or lm-evaluation-harness,
# or of any JSONL whose columns you name. On such a folder the figures of this book, the inspector and `rlino claims
# --yours` work. What the files do not say stays empty.
#
# ```sh
# rlino import outputs/my-trl-run --method grpo --task gsm8k --model Qwen/Qwen2.5-0.5B --seed 0 --out runs/mine
# rlino import --help
# ```
#
# ## Exercises
#
# **1. Regression to the mean.** `my_gain(visits, low, high)`: `visits` has for each prompt its shares right at five
# visits or more. Take the prompts whose mean share on visits 1 and 3 lies from `low` to `high`, both included. Return
# their mean gain from the start to the last visit, measured so that luck in sorting does not count.


# %%
from checkers.real import check_bounds, check_gain, check_pooled_and_within


def my_gain(visits, low, high): ...


_ = check_gain(my_gain)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_gain(visits, low, high):
#     taken = [v for v in visits if low <= (v[0] + v[2]) / 2 <= high]
#     return sum(v[-1] - (v[1] + v[3]) / 2 for v in taken) / len(taken)
# ```
#
# Start on visits 2 and 4: any that did not sort. With the start on visits 1 and 3 the lowest bin gains without
# learning.
#
# </details>
#
# **2. Selecting on the outcome.** Somebody drops truncated responses and compares the rest. But who is truncated is an
# outcome: what is left are the wrong responses that happened to end. `my_bounds(lengths, correct, truncated, longest)`
# keeps all of them. A truncated response would have had its recorded length at least, and at most `longest`. Return the
# smallest and the largest value that the mean length of wrong less right responses can have. Truncated ones are wrong.


# %%
def my_bounds(lengths, correct, truncated, longest): ...


_ = check_bounds(my_bounds)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_bounds(lengths, correct, truncated, longest):
#     mean = lambda values: sum(values) / len(values)
#     right = mean([n for n, ok in zip(lengths, correct) if ok])
#     wrong = [(n, cut) for n, ok, cut in zip(lengths, correct, truncated) if not ok]
#     least = mean([n for n, cut in wrong]) - right
#     return least, mean([longest if cut else n for n, cut in wrong]) - right
# ```
#
# The gap among responses that ended lies outside these bounds in the Countdown record: leaving them out is another
# question, about the wrong responses that end.
#
# </details>
#
# **3. Pooled against within.** `my_gaps(responses)`: `responses` are triples (problem, correct, length). Return the
# pooled difference, mean length of wrong less right, and the mean over problems that have both of their own difference.


# %%
def my_gaps(responses): ...


_ = check_pooled_and_within(my_gaps)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_gaps(responses):
#     def gap(rows):
#         sides = [[n for _, ok, n in rows if ok == side] for side in (False, True)]
#         return sum(sides[0]) / len(sides[0]) - sum(sides[1]) / len(sides[1])
#     problems = [[row for row in responses if row[0] == p] for p in {row[0] for row in responses}]
#     mixed = [rows for rows in problems if len({ok for _, ok, _ in rows}) == 2]
#     return gap(responses), sum(map(gap, mixed)) / len(mixed)
# ```
#
# In the second case of the checker the two have opposite signs: the hard problem has long responses and is mostly
# wrong, and in each problem wrong ones are shorter. That is Simpson's paradox.
#
# </details>
#
# **4. A question.** A log shows that mean length grows while reward falls. Does that show the mechanism of $1/|o|$?
#
# <details><summary>Answer</summary>
#
# No. The code of that log has no $1/|o|$: it sums log-probabilities. Its entropy rises to that of noise, and a policy
# that chooses nearly at random does not choose to end either. The mechanism is about a gap between wrong and right at a
# given entropy. A mean over all responses also moves when the *share* of wrong ones does.
#
# </details>
#
# ## Summary
#
# - In models as they were released, wrong responses are longer, pooled over problems, as in the book's Countdown bases.
#   Two of these are bases that saw no RL. With difficulty held less is left, and the sign belongs to the task
#   (`longer-before`, `longer-held`).
# - Where there is a cap, nine tenths of the gap can go with it.
# - Gains by difficulty are an inverted U, in the order of the weights (`gains-order`). So are those of a push that is
#   the same for all, and the record does not tell the two apart (`gains-shape`). One planned test asked for what the
#   weights do not predict (`gains-sides`).
# - An interval over problems is no interval over seeds. What training does to a real model stays open here, and the
#   column "real models" says what it would take.
#
# As judged above:

# %%
for c in mine:
    say(f"{c.id}: {judged[c.id].verdict}. {c.statement} Found: {judged[c.id].effect}.")
