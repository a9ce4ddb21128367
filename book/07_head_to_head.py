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
# # 07 · Head to head
#
# **Does supervised learning do as well as GRPO, and what would it take to say so?**
#
# **The answer.** On the easier task it does, within a margin that was set beforehand. On Countdown the planned seeds
# do not settle it. To say so takes several seeds, a margin before the runs, and a test that can fail. Right answers
# alone end below GRPO on Countdown and above it on the word problems. In the ledger: `posneg-word` holds,
# `posneg-countdown` is undecided, `pos-countdown` holds, `pos-word` does not hold here.
#
# The paper ([arXiv 2505.13697](https://arxiv.org/abs/2505.13697)) finds F-ISFT⁺⁻ "comparable" to GRPO. As far as we
# know, it has one run of each. Two runs of the *same* method with different seeds differ too, so one first has to
# know by how much. Then one has to say how large a difference would matter, *before* looking at the runs. Only then
# is "comparable" a test that can fail.
#
# This chapter compares eight methods on two tasks. The claims, the margin and the number of seeds were in the ledger
# (`data/claims.toml`) before the first of these runs was made. Everything below is computed from the records. Where
# runs are missing, the cell says so.

# %%
import math
import statistics

import pandas as pd
import scipy.stats
from IPython.display import display

from rlino_lib.analysis.growth import base_accuracy
from rlino_lib.analysis.statistics import curve, final_accuracy
from rlino_lib.analysis.tables import span
from rlino_lib.figures.recorded import say
from rlino_lib.figures.seeds import forest_plot
from rlino_lib.figures.style import in_order, label, style
from rlino_lib.records.runs import list_runs

style()
pd.set_option("display.max_colwidth", None)
TASKS = {"countdown": "Countdown", "word_problems": "word problems"}

# %% [markdown]
# ## Five differences, by hand
#
# Suppose that two methods were run with five seeds each, and that one ended above the other by these numbers of
# points (made up):

# %% tags=["nbval-check-output"]
from rlino_lib.claims.ledger import read_ledger

ledger = read_ledger()
duel_claims = [c for c in ledger if c.evidence.startswith("head_to_head.")]
tests = [c for c in duel_claims if c.evidence == "head_to_head.equivalent"]
margin = tests[0].threshold["points"]
alpha = tests[0].threshold["alpha"]
assert all((c.threshold["points"], c.threshold["alpha"]) == (margin, alpha) for c in tests)  # one margin for all
gaps = [1.9, -0.6, 1.1, 2.4, 0.2]
n = len(gaps)
mean = statistics.mean(gaps)
sd = statistics.stdev(gaps)
error = sd / math.sqrt(n)
print(f"mean {mean:+.2f}, standard deviation {sd:.2f}, standard error {error:.2f}; margin ±{margin:g}, α = {alpha:g}")

# %% [markdown]
# The usual test asks whether the mean could be 0. If it does not reject, that is *not* evidence for 0: with few
# seeds a test rarely rejects anything. Our question is whether the true difference is smaller than a margin
# $\delta$, so the roles are exchanged. The hypotheses to be *rejected* are "at or below $-\delta$" and "at or above
# $+\delta$":
#
# $$
# t_{-} = \frac{\bar d + \delta}{s/\sqrt n}, \qquad t_{+} = \frac{\bar d - \delta}{s/\sqrt n}, \qquad
# p = \max\big( \Pr(T_{n-1} > t_{-}),\ \Pr(T_{n-1} < t_{+}) \big) .
# $$
#
# These are two one-sided tests (TOST), together an *equivalence test*. Both have to reject, so the larger $p$ counts.

# %% tags=["nbval-check-output"]
from rlino_lib.analysis.statistics import tost

student = scipy.stats.t(n - 1)
above = student.sf((mean + margin) / error)
below = student.cdf((mean - margin) / error)
print(f"above −{margin:g}: p = {above:.4f}; below +{margin:g}: p = {below:.4f}; TOST: p = {max(above, below):.4f}")
print(f"the library: p = {tost(gaps, margin):.4f}")
assert math.isclose(max(above, below), tost(gaps, margin))
half = student.ppf(1 - alpha) * error
low, high = mean - half, mean + half
print(f"{1 - 2 * alpha:.0%} interval: {low:+.2f} to {high:+.2f}")
print(f"inside the margin: {-margin < low and high < margin}; p < α: {tost(gaps, margin) < alpha}")

# %% [markdown]
# The two values of the last line always agree: TOST at level $\alpha$ succeeds exactly where the interval of level
# $1 - 2\alpha$ lies inside $\pm\delta$. So a picture of that interval *is* the test. Four more made-up comparisons:

# %% alt="Forest plot of four made-up methods: differences to another method with their intervals, against the band of the margin."
from rlino_lib.analysis.statistics import beyond, compare

made_up = {
    "A": [0.4, -0.9, 1.1, 0.2, -0.5],
    "B": [4.1, 5.9, 3.8, 5.2, 6.6],
    "C": [1.3, 0.9, 1.6, 1.1, 1.2],
    "D": [4.0, -3.5, 1.0, 3.2, -2.2],
}
toy = pd.DataFrame([{"task": "made up", "method": k} | vars(compare(v, margin, alpha)) for k, v in made_up.items()])
forest_plot(toy, margin, reference="the other")

# %% tags=["nbval-check-output"]
toy.set_index("method")[["mean", "p_difference", "p_tost", "verdict"]].round(3)

# %% [markdown]
# *What to look at.* The grey band is the margin, the thick line the interval of TOST, the thin line the usual interval.
# Which of the four are equivalent? A and C: their thick lines lie inside the band. A and D both include 0, but D's
# thick line leaves the band. D is what few seeds with large scatter look like, and it is often reported as "no
# difference". C excludes 0 and lies inside the margin: the methods differ, by too little to matter. "Equivalent" is
# always relative to a margin.
#
# B excludes 0 as well. Does it differ by *more* than the margin? That is a third question with a third test:
# one-sided t-tests against $+\delta$ and $-\delta$, the smaller $p$ doubled. Uncorrected, it succeeds where the
# usual interval lies outside the grey band; after Holm's correction the interval has to be wider. A mean beyond the
# margin and a difference that is not 0 are not enough.

# %% tags=["nbval-check-output"]
print("beyond the margin:", ", ".join(f"{name} p = {beyond(values, margin):.3f}" for name, values in made_up.items()))

# %% [markdown]
# ## The design, fixed beforehand
#
# **The unit is a seed.** A seed fixes the order of the problems and the random numbers of the sampling, and is
# shared by all methods. The test split is the same for all runs. More test problems measure one run more precisely.
# They say nothing about how much runs of the same method differ. So $n$ counts seeds.
#
# **Differences are paired**: each is taken within a seed.
#
# **The outcome** is the share right on the whole test split after the last step.
#
# **Learning rates**: each method has its own best, from one small sweep that was the same for all, on the validation
# split. The test split chooses nothing.
#
# **The family.** The more claims are tested, the likelier one of them passes by luck. Holm's correction covers all
# claims with the same kind of evidence, as they were announced; one that cannot be tested yet counts as $p = 1$. The
# announcement left open when a claim *fails*. At first, a test that did not reject could count as a failure, which
# is wrong. So a claim fails only where a separate test finds the contrary, with Holm's correction over these tests.
# What neither test settles is undecided. This rule was corrected after the runs were known; the margin, α and the
# seeds are as announced.
#
# **One look.** Nothing is judged before all planned seeds are there. (Testing after every new seed would find
# equivalence, or a difference, far too often: exercise 6.)
#
# **What was known before**: the runs of chapters 04 and 05, on Countdown at one learning rate with few seeds. They are
# not part of what is tested here, with one exception. Whether F-ISFT⁻ fails on Countdown depends on the rate, and the
# paper used one rate for all. So that claim is also judged at GRPO's rate, in the runs of chapter 05, which have three
# seeds in place of the five that were planned.

# %%
plan = pd.DataFrame(
    {
        "claim": c.statement,
        "evidence": c.evidence.removeprefix("head_to_head."),
        "margin, points": f"±{c.threshold['points']:g}" if "points" in c.threshold else "–",
        "α": f"{c.threshold['alpha']:g}" if "alpha" in c.threshold else "–",
        "planned seeds": f"{c.threshold['seeds']:.0f}",
    }
    for c in duel_claims
)
families = plan["evidence"].value_counts()
say(
    f"{len(plan)} claims on these runs. Holm's correction goes over {families['equivalent']} tests of equivalence and, "
    f"apart from them, over {families['below']} that a method ends below GRPO; and in the same way over the tests of "
    "the contrary, that a difference is beyond the margin or that a method ends above. The other claims are judged by "
    "intervals over seeds alone."
)
plan.index = [c.id for c in duel_claims]
plan

# %% [markdown]
# Everything else in this chapter is *descriptive*: the other methods, the curves, and the intervals of single rows,
# which are not corrected for their number. It may suggest what to test next, and settles nothing.
#
# ### What a pair shares, live
#
# Take two methods from the same base with the same seed for a few steps. How many of their samples are still the
# same, token for token?

# %%
from rlino_lib.policy.models import load_policy
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.trainer import Trainer

pair = ("grpo_no_kl", "f_isft_posneg")
seen = {}
for method in pair:
    trainer = Trainer(TrainConfig(method=method, prompts=8, lr=2e-4, eval_every=0), load_policy())
    seen[method] = [trainer.step()[1] for _ in range(4)]
rows = []
for step, (one, other) in enumerate(zip(*seen.values(), strict=True), 1):
    same = sum(a == b for a, b in zip(one.texts, other.texts, strict=True)) / len(one.texts)
    right = {f"right, {label(m)}": r.correct.double().mean().item() for m, r in zip(pair, (one, other), strict=True)}
    rows.append({"step": step, "same problems": one.prompts == other.prompts, "same responses": same} | right)
pd.DataFrame(rows).set_index("step").map(lambda x: f"{x:.0%}" if isinstance(x, float) else "yes" if x else "no")

# %% [markdown]
# *What to look at.* At the first step both policies are the base, and every response is the same. Later the policies
# differ a little. A response changes only at a token where the random number selects different tokens under the two
# policies. So most responses stay the same at first, which is what makes pairing useful. How long this lasts is
# measured further down.
#
# ## What is recorded

# %%
import shlex

from rlino_lib.paths import RUNS

runs = [run for run in list_runs("head-to-head") if run.config["task"] in TASKS]
sweep = [run for run in list_runs("head-to-head-lr") if run.config["task"] in TASKS]
batches = list_runs("sgd-to-batch")
if batches:  # the end at which every batch is new: runs of the large grid with the same seeds and settings
    SIZES = {"prompts", "minibatches", "epochs", "steps", "eval_every", "trace_groups", "method", "seed"}
    alike = {k: v for k, v in batches[0].config.items() if k not in SIZES}
    kinds = {(run.method, run.seed) for run in batches}
    batches += [r for r in runs if (r.method, r.seed) in kinds and all(r.config.get(k) == alike[k] for k in alike)]
of_task = {task: [run for run in runs if run.config["task"] == task] for task in TASKS}
present = [task for task in TASKS if of_task[task]]
for group, recorded in {"head-to-head-lr": sweep, "head-to-head": runs, "sgd-to-batch": batches}.items():
    files = [file for file in (RUNS / f"{group}.json", RUNS / f"{group}-more.json") if file.exists()]
    print(f"{group}: {len(recorded)} complete runs{', made by' if files else ''}")
    for file in files:  # the second has more seeds of some methods, into the same folder
        out = [] if file.stem == group else ["--out", f"data/runs/{group}"]
        print("   ", shlex.join(["rlino", "grid", f"data/runs/{file.name}", *out]))
for task in TASKS:
    if not of_task[task]:
        print(f"No complete runs of {TASKS[task]} yet: what follows is without them.")
counts = pd.DataFrame(
    [(label(r.method), TASKS[r.config["task"]], r.seed) for r in runs], columns=["method", "", "seed"]
)
order = [label(m) for m in in_order(run.method for run in runs)]
counts.groupby(["method", ""])["seed"].count().unstack(fill_value=0).reindex(order)

# %%
for task in present:
    configs = [run.config for run in of_task[task]]
    first = configs[0]
    tested = of_task[task][0].summary["test"]
    free = {"method", "seed", "lr"}
    differ = sorted(k for k in first if k not in free and any(c.get(k) != first[k] for c in configs))
    say(
        f"{TASKS[task]}: {first['steps']} steps of {first['prompts']} problems × {first['group_size']} responses, "
        f"{first['epochs'] * first['minibatches']} update per batch; the test has {tested['problems']:,} problems, "
        f"samples per problem: {tested['samples']}. Settings that differ besides method, seed and learning rate: "
        f"{', '.join(differ) or 'none'}."
    )

# %% [markdown]
# ## The learning rates
#
# A comparison at one learning rate for all is a comparison of step sizes. The methods' weights differ by a factor
# (chapter 06), and Adam removes only part of that. So each method gets its own rate.

# %%
rows = [(r.config["task"], r.method, r.config["lr"], *curve(r)["accuracy"].iloc[[0, -1]]) for r in sweep]
rates = pd.DataFrame(rows, columns=["task", "method", "lr", "start", "accuracy"])
chosen = rates.loc[rates.groupby(["task", "method"])["accuracy"].idxmax()].set_index(["task", "method"])
if sweep:
    settings = sweep[0].config
    size = settings["eval_problems"] * settings["eval_samples"]
    noise = 100 * math.sqrt(0.25 / size)
    say(
        f"Share right on {settings['eval_problems']:,} problems of the {settings['eval_split']} split × "
        f"{settings['eval_samples']} samples after {settings['steps']} steps, one run per cell. A single share has a "
        f"standard error of up to {noise:.1f} points from these samples alone; neighbours that differ by less are a "
        "toss-up."
    )
for task in dict.fromkeys(rates["task"]):
    table = rates[rates["task"] == task].pivot(index="method", columns="lr", values="accuracy")
    table = table.reindex(in_order(table.index))
    table.columns = [f"{lr:g}" for lr in table.columns]
    table["best"] = [f"{chosen.loc[(task, m), 'lr']:g}" for m in table.index]
    table = table.map(lambda x: x if isinstance(x, str) else "–" if math.isnan(x) else f"{x:.1f}")
    display(table.rename(index=label).rename_axis(f"{TASKS[task]}, %"))
if not sweep:
    print("No runs of the sweep are recorded yet.")

# %% alt="A line plot for each task: accuracy against the learning rate on a log scale, one line for each method, with a ring at its best rate."
from rlino_lib.figures.seeds import rates_figure

rates_figure(rates, TASKS) if sweep else None

# %%
ends_of = rates.groupby("task")["lr"].agg(["min", "max"])
edge = [key for key, row in chosen.iterrows() if row["lr"] in tuple(ends_of.loc[key[0]])]
if edge:
    named = ", ".join(f"{label(m)} ({TASKS[t]}, {chosen.loc[(t, m), 'lr']:g})" for t, m in edge)
    say(f"Best at an end of what was tried, so that a rate beyond it might be better still: {named}.")
fell = rates[rates["accuracy"] < rates["start"] / 2]
if len(fell):
    named = [f"{label(r.method)} at {r.lr:g} ({TASKS[r.task]}, {r.accuracy:.1f} %)" for r in fell.itertuples()]
    say(f"Ended with less than half of the base's share right: {', '.join(named)}.")
used = {(run.config["task"], run.method, run.config["lr"]) for run in runs}
other = [(t, m, lr) for t, m, lr in sorted(used) if (t, m) in chosen.index and chosen.loc[(t, m), "lr"] != lr]
for task, method, lr in other:
    best = chosen.loc[(task, method), "lr"]
    print(f"{label(method)} on {TASKS[task]} was run at {lr:g}, where this sweep's last evaluation has {best:g} best.")
if used and not other:
    print("Every recorded method was run at the rate that the sweep has best.")

# %% [markdown]
# *What to look at.* How much does a method lose one step to the right of its best rate?

# %%
for task in dict.fromkeys(rates["task"]):
    grid_of = rates[rates["task"] == task].pivot(index="method", columns="lr", values="accuracy")
    best_of = chosen.loc[task, "lr"]
    lost = {m: grid_of.loc[m, lr] - grid_of.loc[m, 2 * lr] for m, lr in best_of.items() if 2 * lr in grid_of}
    least_lost, most_lost = min(lost, key=lost.get), max(lost, key=lost.get)
    say(
        f"{TASKS[task]}: at twice its best rate a method loses between {lost[least_lost]:.1f} points "
        f"({label(least_lost)}) and {lost[most_lost]:.1f} points ({label(most_lost)})."
    )

# %% [markdown]
# On Countdown most methods lose much at only twice the rate that suits them best. One run per cell cannot separate
# neighbouring rates, but a choice by chance between two equally good rates costs little. A method that collapses in a
# published table may have done so because of its rate: a verdict at one rate for all is also a verdict on that rate.
#
# ## The learning curves

# %% alt="For each task, panels with one method each: share right on held-out problems against optimiser steps, with a band over seeds; the other methods' means in grey."
from rlino_lib.figures.seeds import method_panels
from rlino_lib.records.runs import metrics_frame

frames = {task: metrics_frame(of_task[task]) for task in present}
for task in present:
    figure = method_panels(frames[task])
    settings = of_task[task][0].config
    size = f"{settings['eval_problems']:,} problems × {settings['eval_samples']}"
    title = f"{TASKS[task]}: {settings['eval_split']} split, {size}"
    figure.suptitle(title, fontsize=11)
    display(figure)

# %% [markdown]
# *What to look at.* First the width of the bands: that is how much runs of *one* method differ. Then: does a line
# leave the grey ones by more than that, or fall below the dotted line?

# %%
for task in present:
    end_of = pd.DataFrame([(r.method, final_accuracy(r)) for r in of_task[task]], columns=["method", "end"])
    by_method = end_of.groupby("method")["end"]
    width = by_method.max() - by_method.min()
    level_of = by_method.mean()
    say(
        f"{TASKS[task]}: runs of one method end up to {width.max():.1f} points apart ({label(width.idxmax())}). The "
        f"means lie between {level_of.min():.1f} % ({label(level_of.idxmin())}) and {level_of.max():.1f} % "
        f"({label(level_of.idxmax())}); the base has {base_accuracy(of_task[task][0]):.1f} %."
    )

# %% [markdown]
# On Countdown F-ISFT⁻ leaves the others by more than its band; on the word problems F-ISFT⁺ does so above and F-ISFT⁻
# below. Among the rest the seeds of the most scattered method lie further apart than the methods. No mean ends below
# the base.

# %% alt="For each task, panels with one measure each against optimiser steps and a line for each method: among them KL to the base, entropy, the share truncated, the likelihood of the base's own answers, and mean length."
from rlino_lib.figures.seeds import measure_panels

MEASURES = {
    "eval/entropy": "entropy, nats per token",
    "eval/kl_base": "KL to the base, nats per response",
    "eval/clipped_ratio": "share truncated",
    "change/correct": "base's right answers, log-likelihood",
    "change/incorrect": "base's wrong answers, log-likelihood",
    "eval/mean_length": "mean length, tokens",
}
for task, frame in frames.items():
    for side in ("correct", "incorrect"):
        if (column := f"eval/base/{side}") in frame:
            start = frame.dropna(subset=[column]).groupby("run")[column].first()
            frame[f"change/{side}"] = frame[column] - frame["run"].map(start)
    figure = measure_panels(frame, MEASURES, symlog={"eval/kl_base": 10, "change/correct": 10, "change/incorrect": 10})
    figure.suptitle(f"{TASKS[task]}, held out", fontsize=11)
    display(figure)

# %% [markdown]
# *What to look at.* The two panels of likelihoods follow the same responses at every evaluation, right and wrong ones
# that the *base* sampled; they show the change since the start, in nats per response. A method may lower both. Then it
# has moved its probability to answers that the base gives less often. The KL says how far it has moved. (An axis with
# powers of ten is linear near 0.)

# %%
for task, frame in frames.items():
    followed = frame.dropna(subset=["change/correct", "change/incorrect"])
    at_end = followed[followed["step"] == followed["step"].max()].groupby("method")
    change = at_end[["change/correct", "change/incorrect", "eval/kl_base"]].mean()
    lower = [label(m) for m in in_order(change.index) if (change.loc[m].iloc[:2] < 0).all()]
    say(
        f"{TASKS[task]}: GRPO changes the base's right answers by {change.loc['grpo', 'change/correct']:+.1f} nats "
        f"and its wrong ones by {change.loc['grpo', 'change/incorrect']:+.1f}, at a KL of "
        f"{change.loc['grpo', 'eval/kl_base']:.1f}. Methods that lower both: {', '.join(lower) or 'none'}."
    )

# %% [markdown]
# So on Countdown most methods move to answers that the base gives less often, some by very little.

# %% alt="For each task, a line plot for each method: mean length in tokens of right responses, of wrong ones, and of wrong ones that were not truncated, against optimiser steps."
from rlino_lib.figures.curves import length_curves
from rlino_lib.figures.style import LENGTHS

for task, frame in frames.items():
    kinds = [k for k in LENGTHS if frame[f"eval/length/{k}"].notna().any()]
    figure = length_curves(frame, source="eval", columns=4, kinds=kinds)
    figure.suptitle(TASKS[task], fontsize=11)
    display(figure)

# %% [markdown]
# *What to look at.* Do wrong responses still grow when truncated ones are left out?

# %%
for task, frame in frames.items():
    of_grpo = frame[frame["method"] == "grpo"].groupby("step").mean(numeric_only=True)
    listed = []
    for kind, (name, _) in LENGTHS.items():
        line = of_grpo[f"eval/length/{kind}"].dropna()
        listed.append(f"{name} from {line.iloc[0]:.0f} to {line.iloc[-1]:.0f}")
    say(f"{TASKS[task]}, GRPO, mean length in tokens: {'; '.join(listed)}.")

# %% [markdown]
# They do, by far less on Countdown. Chapter 08 asks for the cause.
#
# ## Where the runs ended
#
# On the whole test split, after the last step: the mean over seeds, and the lowest and highest of them.

# %%
from rlino_lib.analysis.tables import spread
from rlino_lib.figures.recorded import outcomes as whole_outcomes
from rlino_lib.paths import REPO

COLUMNS = {
    "accuracy": ("right, %", 100),
    "length/correct": ("length, right", 1),
    "length/incorrect": ("length, wrong", 1),
    "clipped_ratio": ("truncated, %", 100),
    "format_ok": ("in the format, %", 100),
}

ended = {}
for task in present:
    ended[task] = whole_outcomes(of_task[task], REPO / of_task[task][0].config["model"])
    rows = {}
    for method in in_order(ended[task]["method"]):
        own = ended[task][ended[task]["method"] == method]
        cells = {name: spread(by * own[column]) for column, (name, by) in COLUMNS.items()}
        rows[label(method)] = {"seeds": "–" if method == "base" else len(own)} | cells
    display(pd.DataFrame(rows).T.rename_axis(TASKS[task]))

# %%
from rlino_lib.folders import read_json

for task in present:
    by_method = [(run.method, run.summary["test"].get("by_kind")) for run in of_task[task]]
    base = read_json(REPO / of_task[task][0].config["model"] / "evaluation.json")
    by_method.insert(0, ("base", base["found"].get("by_kind")))
    if kinds := [{"method": method} | {k: 100 * v for k, v in by.items()} for method, by in by_method if by]:
        by_kind = pd.DataFrame(kinds).groupby("method").agg(spread)
        by_kind = by_kind.reindex(in_order(by_kind.index))
        print(f"{TASKS[task]}: right, %, by what is new in a test problem")
        display(by_kind.rename(index=label))

# %% [markdown]
# ## The differences, and the margin

# %% alt="Forest plot: differences to GRPO in percentage points with their intervals, a row for each method and panels for each task, against the shaded margin of equivalence."
from rlino_lib.analysis.statistics import outcomes, t_interval
from rlino_lib.figures.seeds import paired_rows

table = outcomes(runs) if runs else pd.DataFrame(columns=["method", "task", "seed", "value"])
paired = {task: set(table.loc[table["task"] == task, "method"]) - {"grpo"} for task in TASKS}
comparable = [task for task in TASKS if paired[task] and "grpo" in set(table.loc[table["task"] == task, "method"])]

planned = {(c.about["task"], c.about["method"]): c.threshold["seeds"] for c in duel_claims}
if comparable:
    forest = paired_rows(table[table["task"].isin(comparable)], "grpo", margin, alpha)
    forest["whole"] = [row["n"] >= planned.get((row["task"], row["method"]), 2) for _, row in forest.iterrows()]
    display(forest_plot(forest, margin, names=TASKS))
else:
    forest = pd.DataFrame(columns=["task", "method", "n", "whole"])
    print("No method has been recorded beside GRPO yet.")

# %% [markdown]
# *What to look at.* The number after a name counts the seeds. The grey band is the margin. Thick: the interval of
# TOST. Thin: the usual interval. Hollow: fewer seeds than planned, so no verdict yet. On the left the whole scale,
# on the right the neighbourhood of 0. A thick line inside the band is a comparison that passes on its own; the
# ledger's verdict also has the correction over its family.

# %%
if len(forest):
    numbers = forest.assign(
        comparison=[f"{TASKS[t]}: {label(m)}" for t, m in zip(forest["task"], forest["method"], strict=True)],
        points=forest["mean"].map("{:+.1f}".format),
        usual=[span(*pair) for pair in zip(forest["low"], forest["high"], strict=True)],
        of_tost=[span(*pair) for pair in zip(forest["tost_low"], forest["tost_high"], strict=True)],
        boot=[span(*pair) for pair in zip(forest["boot_low"], forest["boot_high"], strict=True)],
    )
    heads = {"n": "seeds", "points": "points", "usual": f"{1 - alpha:.0%} interval", "boot": "BCa bootstrap"}
    heads |= {"of_tost": f"{1 - 2 * alpha:.0%} interval", "verdict": "alone, uncorrected"}
    display(numbers.set_index("comparison")[list(heads)].rename(columns=heads))
for task in comparable:
    gain = ended[task].groupby("method")["accuracy"].mean().mul(100)
    gain = gain["grpo"] - gain["base"]
    say(f"{TASKS[task]}: GRPO gains {gain:.1f} points over its base, of which the margin is {margin / gain:.0%}.")

# %%
for task in comparable:
    alone = forest[(forest["task"] == task) & (forest["tost_low"] > -margin) & (forest["tost_high"] < margin)]
    named = ", ".join(label(m) for m in alone["method"])
    say(f"{TASKS[task]}: inside the margin on their own are {len(alone)} of {len(paired[task])}: {named or 'none'}.")

# %% [markdown]
# On the word problems the intervals are narrow, and most methods are inside the margin. On Countdown they are wider,
# and some methods end clearly below GRPO.
#
# ### The ledger
#
# The same runs, judged by their evidence in `rlino_lib/claims/head_to_head.py`, against the threshold of the ledger,
# after Holm's correction, and only where the planned seeds are recorded. Each claim has two $p$ values, one for it and
# one for the contrary. Where neither is below α, it is undecided. Where a claim on all learning rates fails at one of
# them and holds at none, it does not hold here. A rate that has a single run does not count.

# %%
from rlino_lib.claims.judge import judge
from rlino_lib.claims.ledger import Records

records = Records(RUNS, ledger)
judged = {c.id: judge(c, records) for c in duel_claims}
stale = [c.id for c in duel_claims if c.verdict != judged[c.id].verdict]
if stale:
    say(f"The stored verdicts of {', '.join(stale)} are not those of the records as they are now: see `rlino claims`.")
verdicts = [(c.id, c.statement, c.paper, judged[c.id].verdict, judged[c.id].effect) for c in duel_claims]
pd.DataFrame(verdicts, columns=["", "claim", "in the paper", "verdict", "what was found"]).set_index("")

# %% [markdown]
# ### What the pairs were worth
#
# If seeds that are lucky for one method are lucky for the other, differences scatter less than the methods do. Below
# are the correlation of two methods over seeds, and the standard error of their mean difference: paired, and as if
# the seeds had nothing in common.

# %%
rows = []
for _, row in forest.iterrows():
    part = table[table["task"] == row["task"]].pivot(index="seed", columns="method", values="value")
    both = part[[row["method"], "grpo"]].dropna()
    if len(both) > 2 and (both.std() > 0).all():
        gap = both[row["method"]] - both["grpo"]
        apart = math.sqrt(both.var().sum() / len(both))
        name = f"{TASKS[row['task']]}: {label(row['method'])}"
        rows.append((name, len(both), both.corr().iloc[0, 1], gap.std() / math.sqrt(len(both)), apart))
pairing = pd.DataFrame(rows, columns=["comparison with GRPO", "seeds", "correlation", "paired", "unpaired"])
if len(pairing):
    share = (pairing["paired"] < pairing["unpaired"]).mean()
    say(
        f"The correlation is above 0 in {(pairing['correlation'] > 0).mean():.0%} of {len(pairing)} comparisons, and "
        f"pairing made the standard error smaller in {share:.0%}; the median of paired / unpaired is "
        f"{(pairing['paired'] / pairing['unpaired']).median():.2f}."
    )
pairing.set_index("comparison with GRPO").round(2)

# %% [markdown]
# A correlation of a few pairs is a rough number. Pairing costs a little when there is none, and the design has to
# choose before it knows.
#
# ## Equal samples, equal steps, and their cost
#
# Methods that are equal at the end may differ on the way. Here is the difference to GRPO after a quarter and a half
# of the samples, and after all of them, by the evaluations during training (on fewer problems than the test):

# %%
from rlino_lib.analysis.statistics import accuracy_at
from rlino_lib.analysis.tables import paired_differences

SHARES = {"a quarter": 0.25, "a half": 0.5, "all": 1.0}


def at_budget(task: str, axis: str) -> pd.DataFrame:
    """Differences to GRPO at shares of the smallest budget of a task's runs: samples, or updates of the weights."""
    least = min(int(curve(run)[axis].max()) for run in of_task[task])
    cells = {}
    for name, part in SHARES.items():
        budget = int(part * least)
        by_budget = outcomes(of_task[task], lambda run, b=budget: accuracy_at(run, **{axis: b}))
        for method in in_order(paired[task]):
            gap = paired_differences(by_budget, task, method)
            cells.setdefault(f"{name}: {budget:,} {axis}", {})[label(method)] = (
                f"{gap.mean():+.1f} [{span(*t_interval(gap))}]"
            )
    return pd.DataFrame(cells)


for task in comparable:
    ends = {(int(curve(r)["samples"].max()), int(curve(r)["updates"].max())) for r in of_task[task]}
    if len(ends) == 1:
        ((samples, updates),) = ends
        print(f"{TASKS[task]}: all runs end after {samples:,} samples and {updates:,} updates,")
        print("one update per batch of the same size each, so that equal samples are equal optimiser steps:")
        display(at_budget(task, "samples"))
    else:
        print(f"{TASKS[task]}: the runs end after different budgets, so at equal samples and at equal updates:")
        display(at_budget(task, "samples"), at_budget(task, "updates"))

# %% [markdown]
# Conversely: how many samples, and how many seconds, until an evaluation first reaches a goal? The goals are a half,
# three quarters and nine tenths of the way from the base to where GRPO ended. Medians are over the seeds that got
# there, with their number. Seconds are wall clock on one thread of whatever machine made the runs, evaluations
# included, so they allow only a rough comparison.

# %%
from rlino_lib.analysis.statistics import first_reaching

for task in comparable:
    starts = [curve(run)["accuracy"].iloc[0] for run in of_task[task]]
    ends = [curve(run)["accuracy"].iloc[-1] for run in of_task[task] if run.method == "grpo"]
    begin, end = statistics.mean(starts), statistics.mean(ends)
    goals = [round(begin + part * (end - begin), 1) for part in (0.5, 0.75, 0.9)]
    cells = {}
    for method in in_order(run.method for run in of_task[task]):
        own = [run for run in of_task[task] if run.method == method]
        for goal in goals:
            hits = [hit for run in own if (hit := first_reaching(run, goal))]
            cell = "–"
            if hits:
                samples, seconds = (statistics.median(hit[k] for hit in hits) for k in ("samples", "seconds"))
                cell = f"{samples:,.0f} samples, {seconds:,.0f} s"
            cells.setdefault(f"{goal:g} %", {})[label(method)] = f"{cell} ({len(hits)} of {len(own)})"
    print(f"{TASKS[task]}: from {begin:.1f} % at the start; GRPO ended at {end:.1f} %")
    display(pd.DataFrame(cells))

# %% [markdown]
# *What to look at.* Which method is the fastest in samples, and which in seconds? On neither task does any method need
# clearly fewer samples than GRPO for the first goal. For the last goal on the word problems F-ISFT⁺ needs less than
# half of GRPO's samples. In seconds F-ISFT⁺ is first. It trains on fewer responses, and it needs no second model, which
# GRPO's KL term does at every step. A goal is reached at an evaluation, so the resolution is the distance between two
# of them.
#
# ## How many seeds would settle it?
#
# Before a verdict of "undecided" disappoints, ask whether the experiment could have decided at all. Power is the
# chance that a test succeeds when it should. For TOST it depends on the scatter of the differences, on the margin,
# and on the true difference. Nobody knows the last, so there are three answers for each comparison. Power also
# depends on α, and a test in a family does not have all of it: Holm's correction asks the next of the tests that
# have not passed for $p < \alpha/k$, with $k$ their number.

# %%
from rlino_lib.analysis.statistics import seeds_needed, tost_power

POWER = 0.8  # the chance that one usually asks for
still_open = [max(1, sum(judged[c.id].verdict != word for c in tests)) for word in ("holds", "does not hold here")]
level, level_beyond = (alpha / count for count in still_open)
print(f"Of {len(tests)} tests of equivalence {still_open[0]} have not passed: the next needs p < {level:.4f};")
print(f"of as many tests that a difference is beyond the margin {still_open[1]}: p < {level_beyond:.4f}.")
rows = []
for _, row in forest.iterrows():
    gap = paired_differences(table, row["task"], row["method"])
    if len(gap) > 1 and gap.std() > 0:
        rows.append({
            "task": TASKS[row["task"]], "comparison": f"{TASKS[row['task']]}: {label(row['method'])}",
            "seeds": len(gap), "sd": gap.std(),
            "power now, true difference 0": f"{tost_power(len(gap), gap.std(), margin, alpha=level):.0%}",
            "seeds if 0": seeds_needed(gap.std(), margin, 0.0, POWER, level),
            f"if {margin / 3:g}": seeds_needed(gap.std(), margin, margin / 3, POWER, level),
            "if as measured": seeds_needed(
                gap.std(), margin, gap.mean(), POWER, level if abs(gap.mean()) < margin else level_beyond
            ),
        })  # fmt: skip
power = pd.DataFrame(rows)
if len(power):
    hard = power.loc[power["sd"].idxmax()]
    say(
        f"Seeds for a power of {POWER:.0%} at margin ±{margin:g}. The largest scatter, {hard['sd']:.1f} points, is "
        f"that of {hard['comparison']}: {hard['seeds if 0']:.0f} seeds even if there is no difference at all."
    )
    display(power.drop(columns="task").set_index("comparison").round({"sd": 2}).astype(object))
else:
    print("Power needs at least two seeds of a pair: none is recorded yet.")

# %% [markdown]
# In the last column the test that should succeed is TOST where the measured difference lies inside the margin, and
# the test that it is beyond the margin where it lies outside. A difference close to the margin takes very many seeds
# either way.

# %% tags=["hide-input"] alt="Two line plots of power against the number of seeds. Left: the chance that the test finds equivalence, for three true differences within the margin. Right: the chance that a difference beyond the margin is found. A line marks the power that was aimed at."
from rlino_lib.analysis.statistics import difference_power
from rlino_lib.figures.curves import line_panels
from rlino_lib.figures.style import Look

middles = power.groupby("task")["sd"].median() if len(power) else pd.Series({"made up, until there are records": 1.5})
widest = middles.idxmax()  # the task on which it is hardest
middle = float(middles.max())
seeds = range(2, 21)
dashes = (("", "o"), ((6, 2), "s"), ((1.5, 1.5), "^"))
lines = {"TOST finds equivalence": [], "a difference beyond the margin is found": []}
for share, (dash, mark) in zip((0, 1 / 3, 2 / 3), dashes, strict=True):
    chance = [tost_power(k, middle, margin, share * margin, level) for k in seeds]
    line = (f"true difference {share * margin:.2g}", Look("0.2", dash, mark), seeds, chance)
    lines["TOST finds equivalence"].append(line)
for times, (dash, mark) in zip((2, 1.5, 3), dashes, strict=True):
    chance = [difference_power(k, middle, (times - 1) * margin, level_beyond) for k in seeds]
    line = (f"true difference {times * margin:.2g}", Look("0.2", dash, mark), seeds, chance)
    lines["a difference beyond the margin is found"].append(line)
settings = {"xlabel": "seeds", "ylabel": f"power, sd {middle:.2g}, margin ±{margin:g}", "ylim": (0, 1.02)}
figure = line_panels(lines, guides=(None, POWER), line={"markevery": 3}, xticks=range(2, 21, 3), **settings)
for axis in figure.axes:
    axis.legend(loc="lower right")
figure.suptitle(widest)
figure

# %%
for task, scatter in middles.items():
    print(f"{task}: differences scatter with a standard deviation of {scatter:.2g} points (median of the comparisons).")
    for small in (margin, margin / 3):
        needed = seeds_needed(scatter, small, 0.0, POWER, level)
        print(f"  Margin ±{small:g}: {needed} seeds if the true difference is 0.")

# %% [markdown]
# *What to look at.* On the left, how far from a power of 0.8 is a true difference of two thirds of the margin, at the
# right end? The seeds that it needs are off the figure.

# %%
few_seeds, many_seeds = (seeds_needed(middle, margin, k * margin, POWER, level) for k in (0.0, 2 / 3))
say(f"{widest}: {few_seeds} seeds if the true difference is 0, {many_seeds} if it is two thirds of the margin.")

# %% [markdown]
# Halving a margin quadruples the seeds, once there are more than a few.
#
# ## RL against SFT is SGD against batch
#
# One of the paper's authors puts it in these words: the two differ as stochastic gradient descent differs from batch
# learning. GRPO samples a few problems, makes an update, and samples again: it stays *on-policy*. Fine-tuning takes
# its whole data set at once and goes over it for long. Its samples come from a policy that is no longer there, so it
# is *off-policy*. In between lies an axis: how many samples are drawn before the policy that draws them is replaced.
# At one end a handful, at the other the whole budget, sampled once by the base. All runs below have equally many
# samples in total. They differ in the size of an iteration, and with it in how stale the samples get.


# %%
def shape(run) -> dict:
    """Where a run stands on the axis."""
    c = run.config
    return {
        "method": run.method, "task": c["task"], "seed": run.seed, "problems": c["prompts"],
        "samples per iteration": c["prompts"] * c["group_size"], "iterations": c["steps"], "passes": c["epochs"],
        "updates per iteration": c["epochs"] * c["minibatches"], "updates": c["steps"] * c["epochs"] * c["minibatches"],
        "samples": c["steps"] * c["prompts"] * c["group_size"], "right": final_accuracy(run),
    }  # fmt: skip


axis_of = pd.DataFrame([shape(run) for run in batches])
if batches:
    cells = axis_of.groupby(["samples per iteration", "passes", "updates per iteration", "iterations", "updates"])
    counted = cells["seed"].count().rename("runs").reset_index()
    totals = sorted(axis_of["samples"].unique())
    total = f"{totals[0]:,}" if len(totals) == 1 else f"{totals[0]:,} to {totals[-1]:,}"
    print(f"{len(batches)} complete runs, samples in total: {total}")
    display(counted.set_index("samples per iteration"))
else:
    print("No runs of this axis are recorded yet.")

# %% alt="Line plots: accuracy against samples per iteration, a panel for each number of passes and a line for each method, with a band over seeds and the base's accuracy dotted."
from rlino_lib.figures.seeds import sizes_figure

if batches:
    start = statistics.mean(base_accuracy(run) for run in batches)
    display(sizes_figure(axis_of, start))

# %% [markdown]
# *What to look at.* Lines connect runs with equally many problems per update. From left to right: how long does a
# line stay level? And do the methods part on the right, where importance ratios and clipping start to act? F-ISFT⁺⁻
# has neither. It goes on pushing down a wrong response long after the policy has left it, and nothing bounds its
# loss from below. The loss of F-ISFT⁺, which has no ratio either, cannot fall below 0.

# %%
if batches:
    by = axis_of.groupby(["method", "samples per iteration", "updates"])["right"].mean()
    for method in in_order(axis_of["method"]):
        best, worst = by[method].idxmax(), by[method].idxmin()
        say(
            f"{label(method)}: best with {best[0]:,} samples per iteration and {best[1]:,} updates in all "
            f"({by[method].max():.1f} %), lowest with {worst[0]:,} and {worst[1]:,} ({by[method].min():.1f} %)."
        )
    for (method, size, count), value in by[by < start].items():
        where = f"{size:,} samples per iteration and {count:,} updates"
        say(f"{label(method)} with {where} ends below the base, which has {start:.1f} %: {value:.1f} %.")
    if {"grpo_no_kl", "f_isft_posneg"} <= set(axis_of["method"]):
        key = ["samples per iteration", "passes", "updates", "seed"]
        wide = axis_of.pivot_table(index=key, columns="method", values="right")
        gap = (wide["f_isft_posneg"] - wide["grpo_no_kl"]).dropna()
        rows = [
            (*where, len(part), f"{part.mean():+.1f}", span(*t_interval(part)))
            for where, part in gap.groupby(level=key[:3])
        ]
        heads = [*key[:3], "seeds", "F-ISFT⁺⁻ − GRPO without KL, points", f"{1 - alpha:.0%} interval"]
        display(pd.DataFrame(rows, columns=heads).set_index(key[0]))
    updates = sorted(axis_of["updates"].unique())
    if len(updates) > 1:
        say(
            "Equal samples are not equal optimiser steps here: the runs make between "
            f"{updates[0]:,} and {updates[-1]:,} updates. A row with fewer updates has done less with its samples."
        )

# %% [markdown]
# So the methods part as samples become off-policy. GRPO without KL, which has a ratio and a clip, stays above the base
# everywhere; balanced F-ISFT⁺⁻, which has neither, collapses; F-ISFT⁺, which has neither but no negatives, stays level.
# (Chapter 06 has the run without the clip.)

# %%
if batches:
    once_drawn = axis_of[(axis_of["method"] == "f_isft_pos") & (axis_of["iterations"] == 1)]
    longest = once_drawn[once_drawn["updates"] == once_drawn["updates"].max()]
    grpo_end = [final_accuracy(r) for r in of_task["countdown"] if r.method == "grpo"]
    say(
        f"The right end of F-ISFT⁺ is rejection sampling: keep the right ones among "
        f"{longest['samples'].iloc[0]:,} samples of the base, and fine-tune on them. After {longest['passes'].iloc[0]} "
        f"passes it ends at {longest['right'].mean():.1f} % (mean of {len(longest)} seeds), GRPO at "
        f"{statistics.mean(grpo_end):.1f} % (of {len(grpo_end)}). This comparison was not announced, and the first has "
        f"{longest['updates'].iloc[0]} updates: it suggests a test, and settles nothing."
    )

# %% [markdown]
# "RL" and "SFT" usually mean the two ends of this axis: "RL" the left end, and "SFT" the right. The gradient of a
# single update does not distinguish them (chapter 06). So the slogan is true of the *data*. It would be as true of
# F-ISFT run at the left end and GRPO at the right.
#
# ## Beside the paper
#
# The paper's accuracies are one number per model, without seeds or intervals, and reached us through summaries
# (`data/paper/README.md` says how sure each is). Its models are far larger, its GSM8K is not our word problems, and
# its Countdown has other prompts and problems. So **levels are not comparable**, and none of its numbers is ever
# averaged or drawn on one axis with ours. What can be compared is each method's distance to GRPO *within* one scale.
# The paper's one F-ISFT⁺⁻ appears in both of our rows, since its weights are not known.

# %%
from rlino_lib.analysis.tables import paper_results

LIKE = {"countdown": "countdown", "word_problems": "gsm8k"}
theirs = paper_results()
their_gap = theirs.sub(theirs.loc["grpo"]).drop(index="grpo")
columns = {}
for task in TASKS:
    if task in present:
        mean = table[table["task"] == task].groupby("method")["value"].mean()
        columns[f"ours: {TASKS[task]}, %", f"{ended[task]['method'].ne('base').sum()} runs"] = mean
    for model in theirs[LIKE[task]]:
        columns[f"paper: {LIKE[task]}, %", model] = theirs[LIKE[task]][model]
beside = pd.DataFrame(columns)
beside = beside.reindex(in_order(beside.index)).rename(index=label)
beside.map(lambda x: "–" if pd.isna(x) else f"{x:.1f}").T

# %% alt="Dot plots of points above or below GRPO, a panel for each source: this book's means over seeds with intervals and the margin, and the paper's single numbers."
from rlino_lib.figures.seeds import beside_figure

sources = {}
for task in TASKS:
    if task in comparable:
        own = forest[forest["task"] == task].set_index("method")
        sources[f"ours: {TASKS[task]}"] = {"ours, mean over seeds": own["mean"]}, own
    sources[f"paper: {LIKE[task]}"] = dict(their_gap[LIKE[task]].items()), None
beside_figure(sources, margin)

# %% [markdown]
# *What to look at.* Is the order of the methods the same in each panel? Only ours has intervals and a margin: the
# paper gives no scatter to judge a distance by. The horizontal scales are separate.

# %%
for task in comparable:
    for _, row in forest[forest["task"] == task].iterrows():
        if row["method"] in their_gap.index:
            by_model = their_gap[LIKE[task]].loc[row["method"]].dropna()
            reported = ", ".join(f"{value:+.1f} with {model}" for model, value in by_model.items()) or "nothing known"
            ours = f"{row['mean']:+.1f} [{span(row['low'], row['high'])}]"
            where = f"on {TASKS[task]}; theirs on {LIKE[task]} {reported}"
            say(f"{label(row['method'])}, points to GRPO: ours {ours} {where}.")

# %% [markdown]
# On Countdown F-ISFT⁻ is far below GRPO in ours and in the paper's runs. F-ISFT⁺ has no common sign: in the paper it
# is above GRPO with one model and below with another, and here it differs between the tasks.
#
# ## What a collapse looks like
#
# A number that has fallen does not say what the model now writes. We call a run *collapsed* if it ends with less than
# half of its base's share right. A method at its best rate should not collapse. So the runs of chapter 05, all at one
# rate, are searched as well.

# %%
pool = [*runs, *list_runs("countdown")]
facts = [
    (r, r.path.parent.name, r.config["task"], r.method, r.config["lr"], base_accuracy(r), final_accuracy(r))
    for r in pool
]
fates = pd.DataFrame(facts, columns=["run", "group", "task", "method", "lr", "start", "end"])
fates["collapsed"] = fates["end"] < fates["start"] / 2
fates["below"] = fates["end"] < fates["start"]
counted = fates.groupby(["group", "task", "method"]).agg(
    runs=("run", "size"), collapsed=("collapsed", "sum"), below=("below", "sum"), lowest=("end", "min")
)
if not fates["collapsed"].any():
    print("No recorded run collapsed in that sense; below are those that ended lowest.")
below_base = counted[counted["below"] > 0].reset_index()
below_base["method"] = below_base["method"].map(label)
below_base["task"] = below_base["task"].map(TASKS)
below_base.rename(columns={"below": "ended below the base", "lowest": "lowest, %"}).round(1).set_index("group")

# %%
SUSPECTED = ("f_isft_neg", "f_isft_posneg_unit")
lowest = fates[fates["method"].isin(SUSPECTED)].sort_values("end").groupby("method", sort=False).head(1)


def beside_grpo(run):
    """GRPO's run of the same group, task and seed, or None."""
    same = (fates["group"] == run.path.parent.name) & (fates["task"] == run.config["task"])
    return next((r for r in fates.loc[same & (fates["method"] == "grpo"), "run"] if r.seed == run.seed), None)


cases = [(row["run"], beside_grpo(row["run"])) for _, row in lowest.iterrows()]
for _, row in lowest.iterrows():
    say(
        f"{label(row['method'])}: the lowest is {row['run'].name}, at a learning rate of {row['lr']:g}, "
        f"from {row['start']:.1f} % to {row['end']:.1f} %."
    )


def by_step(run) -> pd.DataFrame:
    """What the recorded samples of a run look like at each recorded step."""
    rows = run.rollouts.copy()
    rows["log p per token"] = [statistics.mean(values) for values in rows["logprobs"]]
    rows["entropy"] = [statistics.mean(values) for values in rows["entropies"]]
    means = rows.groupby("step").agg(
        right=("correct", "mean"), truncated=("clipped", "mean"), length=("length", "mean"), entropy=("entropy", "mean")
    )
    return means.assign(**{"log p per token": rows.groupby("step")["log p per token"].mean()})


for run, partner in cases:
    for each in filter(None, (run, partner)):
        print(f"{label(each.method)}, {each.name}: samples of the recorded groups")
        display(by_step(each).round(2))

# %% [markdown]
# *What to look at.* A policy can fail in three ways: responses no longer end (`truncated` goes to 1 and the length
# to the cap); the policy no longer decides (entropy rises); or it is sure of the wrong thing (entropy falls while
# `right` falls). The last column says how likely the policy finds its own tokens.

# %%
if cases:
    sampled_at = by_step(cases[0][0])
    first_row, last_row = sampled_at.iloc[0], sampled_at.iloc[-1]
    say(
        f"{label(cases[0][0].method)}: from the first to the last recorded step the share truncated goes from "
        f"{first_row['truncated']:.0%} to {last_row['truncated']:.0%}, the entropy from {first_row['entropy']:.2f} to "
        f"{last_row['entropy']:.2f}, and the share right from {first_row['right']:.0%} to {last_row['right']:.0%}."
    )

# %% [markdown]
# So this run fails in the first two ways at once: its responses no longer end, and it decides less. Token by token,
# at the first recorded step and the last (the colours are the weights that the optimiser used: orange and underlined
# is pushed down):

# %%
from rlino_lib.widgets import trace_inspector

worst = cases[0][0] if cases else None
steps = sorted(set(worst.rollouts["step"])) if worst else []
trace_inspector(worst, steps=[steps[0], steps[-1]], budget=200_000) if steps else print("No run with rollouts to open.")

# %% [markdown]
# *What to look at.* Where does the late response go wrong: at the first token, or after a beginning that still looks
# like the base's? Are its sums right? Does it ever come to the answer? By the table above, most late responses do
# not. The same for the other case and for GRPO beside them, with log-probabilities or entropies as colours:

# %%
opened = list(dict.fromkeys(run for pair in cases for run in pair if run is not None))
trace_inspector(opened, step=steps[-1], colour="entropies", budget=300_000) if steps else None

# %% [markdown]
# ### Two runs, the same problem
#
# Runs of one seed met the same problems at the same steps, so any two of them can be read side by side. All controls
# take the arrow keys. A double bar marks where two responses part.

# %%
from rlino_lib.analysis.pairs import same_start
from rlino_lib.widgets import run_comparer

group = [run for run in pool if run.path.parent == worst.path.parent] if worst else []
paired_up = len({run.method for run in group}) > 1
(
    run_comparer(group, "grpo", worst.method, worst.seed, budget=250_000)
    if paired_up
    else print("There are no two runs to compare yet.")
)

# %% [markdown]
# *What to try.* Step through one pair from the start. At the first step the responses are the same. Then look for
# the token at which they part: does what follows differ in kind, or only in words? Set B to balanced F-ISFT⁺⁻ and do
# it again.
#
# ### How fast do runs part?
#
# The same as one number per step: the share of recorded responses that are still the same, token for token, as those
# of GRPO with the same seed. It says how far two methods have moved apart as *policies*, which two equal accuracies
# do not.


# %% alt="Two line plots against optimiser steps, a line for each method: the share of responses that are the same as GRPO's, and the share of tokens before the two part."
def agreement(run, other) -> pd.DataFrame:
    """By recorded step: the share of responses that are the same in both runs, and of the tokens before they part."""
    key = ["step", "problem_id", "sample"]
    both = run.rollouts[[*key, "tokens"]].merge(other.rollouts[[*key, "tokens"]], on=key)
    pairs = zip(both["tokens_x"], both["tokens_y"], strict=True)
    both["start"] = [same_start({"tokens": x}, {"tokens": y}) / max(len(x), len(y)) for x, y in pairs]
    both["same"] = both["start"] == 1
    return both.groupby("step")[["same", "start"]].mean().reset_index()


FEW = 3  # seeds: the rollouts of all runs would take long to read
source = of_task[present[0]] if present else list_runs("countdown")
parted = []
for run in source:
    other = next((r for r in source if r.method == "grpo" and r.seed == run.seed), None)
    if run.method != "grpo" and other is not None and run.seed < FEW and len(run.rollouts):
        parted.append(agreement(run, other).assign(method=run.method, seed=run.seed))
if parted:
    frame = pd.concat(parted, ignore_index=True)
    names = {"same": "the same responses, share", "start": "the same from the start, share of tokens"}
    figure = measure_panels(frame, names, columns=2)
    figure.suptitle(f"against GRPO: {TASKS[source[0].config['task']]}, {source[0].path.parent.name}", fontsize=11)
    display(figure)
    last = frame[frame["step"] == frame["step"].max()].groupby("method")["start"].mean()
    say(f"At the last recorded step the policy closest to GRPO's is that of {label(last.idxmax())}.")

# %% [markdown]
# *What to look at.* Which lines fall more slowly? One might expect it of methods whose gradients differ from GRPO's
# only by a weight on each prompt. Early on it is so for GRPO without KL and balanced F-ISFT⁺⁻; by the end it is not.
# (Dr. GRPO also runs at half of GRPO's rate here, so it moves less.) That all lines fall is not by itself a difference
# of methods: small changes grow, since each batch is sampled from the policy that the last one has made.
#
# ## What the paper says, and what was found here

# %%
for c in duel_claims:
    evidence = judged[c.id]
    say(f"{c.statement} {evidence.verdict.capitalize()}: {evidence.effect}.")

# %%
tally = pd.Series([judged[c.id].verdict for c in duel_claims]).value_counts()
say("Of these claims: " + "; ".join(f"{verdict}: {count}" for verdict, count in tally.items()) + ".")
key = {c.id: judged[c.id].verdict for c in duel_claims}
answers = {
    "holds": "is equivalent to GRPO within the margin that was set",
    "does not hold here": "is not equivalent to GRPO: the difference is larger than the margin",
    "undecided": "cannot be said, from these runs, to be equivalent to GRPO, nor to differ by more than the margin",
    "not testable here": "has not been run with the planned seeds",
}
for name, task in (("posneg-countdown", "countdown"), ("posneg-word", "word_problems")):
    print(f"{TASKS[task].capitalize()}: balanced F-ISFT⁺⁻ {answers.get(key[name], key[name])}.")

# %% [markdown]
# So, to the question. Balanced F-ISFT⁺⁻ *is* a supervised method, by its code, and its gradient on on-policy samples
# is GRPO's up to a weight on each problem (chapter 06). Algebra cannot tell whether that weight matters for the
# outcome. The lines above are the answer of these runs, for one small model. Two things hold whatever the verdicts
# are. "Comparable" from one run each is not a finding, since two runs of *one* method differ too. And "no
# significant difference" is not "equal", unless a margin was named for it.
#
# ## Exercises
#
# **1. Another margin.** `my_margin(values, alpha)`: the smallest margin with which TOST at level α would find these
# differences equivalent (to be exact, the bound above which it does).


# %%
from checkers.head_to_head import check_holm, check_liar, check_pairing, check_plan, check_smallest_margin, suspects


def my_margin(values, alpha): ...


_ = check_smallest_margin(my_margin)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_margin(values, alpha):
#     low, high = t_interval(values, 1 - 2 * alpha)
#     return max(abs(low), abs(high))
# ```
#
# </details>
#
# With it, a reanalysis of all comparisons at once. The first column is the bound. The others say what TOST finds,
# alone and uncorrected, at the announced margin and at a third of it. (A margin that is chosen after looking at the
# first column is not a margin.)

# %%
rows = []
for _, row in forest[forest["n"] > 1].iterrows():
    bound = max(abs(row["tost_low"]), abs(row["tost_high"]))
    name = f"{TASKS[row['task']]}: {label(row['method'])}"
    rows.append((name, round(bound, 1), *("yes" if bound < m else "–" for m in (margin, margin / 3))))
heads = ["comparison with GRPO", "smallest margin, points", f"±{margin:g}", f"±{margin / 3:g}"]
pd.DataFrame(rows, columns=heads).set_index(heads[0])

# %% [markdown]
# **2. Plan the seeds.** `my_plan(sd, margin)`: the fewest seeds at which TOST at α = 0.05 has a power of at least
# 0.8 if the true difference is 0. `tost_power(n, sd, margin)` is the power with n seeds, two at least. Then call it
# with a margin of one point and the scatter printed above: how long would that grid take?


# %%
def my_plan(sd, margin): ...


_ = check_plan(my_plan)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_plan(sd, margin):
#     n = 2
#     while tost_power(n, sd, margin) < 0.8:
#         n += 1
#     return n
# ```
#
# </details>
#
# **3. The run that lied.** Six recorded runs, in memory. In each of four sets one run has been tampered with, each
# time in another way. Its record cannot be true: it contradicts itself, or it is not an independent run. A
# surprising number proves nothing; a sum that does not add up does. `my_liar(runs)` returns the name of that run. A
# run has `run.name`, `run.config`, `run.summary` (with `"steps"` and `"test"`) and `run.metrics`.

# %%
line_up = [run for run in list_runs("countdown") if run.method in ("grpo", "f_isft_posneg")]
one = suspects(line_up, "test")
pd.DataFrame(
    {
        r.name: {
            "steps": r.summary["steps"],
            "rows of metrics": len(r.metrics),
            "pass@1": r.summary["test"]["pass@1"]["value"],
            **{k: r.summary["test"][k] for k in ("mean_length", "length/correct", "length/incorrect")},
        }
        for r in one
    }
).T.round(4)


# %%
def my_liar(runs): ...


_ = check_liar(my_liar, line_up)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_liar(runs):
#     for k, run in enumerate(runs):
#         steps, test = run.metrics.dropna(subset="accuracy"), run.summary["test"]
#         share = test["pass@1"]["value"]
#         mean = share * test["length/correct"] + (1 - share) * test["length/incorrect"]
#         counted = steps["n_correct"] / (steps["n_correct"] + steps["n_incorrect"])
#         if (
#             abs(mean - test["mean_length"]) > 1e-6 * mean  # the share right and three lengths belong together
#             or (steps["accuracy"] - counted).abs().max() > 1e-6  # and the accuracy of a step and its counts
#             or len(steps) != run.summary["steps"]  # no step is missing
#             or any(run.metrics.equals(other.metrics) for other in runs[:k])  # two seeds are two runs
#         ):
#             return run.name
# ```
#
# The set above has a raised test result. The table shows it: of the share right and the three lengths, any three
# determine the fourth. The last lie is the worst. A copied run is consistent in itself, and each copy makes every
# interval narrower.
#
# </details>
#
# **4. Holm by hand.** `my_holm(p)`: corrected p values in the order of the given ones. The smallest is multiplied by
# their number n, the next by n − 1, and so on. None may end below a smaller one's, nor above 1.


# %%
def my_holm(p): ...


_ = check_holm(my_holm)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_holm(p):
#     corrected, highest = [0.0] * len(p), 0.0
#     for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
#         highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
#         corrected[i] = highest
#     return corrected
# ```
#
# </details>
#
# **5. Paired against unpaired.** `my_errors(a, b)`: two standard errors of mean(a) − mean(b): with a and b paired by
# position, and as if the two lists were unrelated.


# %%
def my_errors(a, b): ...


_ = check_pairing(my_errors)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_errors(a, b):
#     n = len(a)
#     paired = statistics.stdev([x - y for x, y in zip(a, b)]) / math.sqrt(n)
#     return paired, math.sqrt((statistics.variance(a) + statistics.variance(b)) / n)
# ```
#
# In the checker's last case the two lists go against each other, and the paired error is the larger one. It is still
# the right one: the pairs are a fact of the design.
#
# </details>
#
# **6. A question.** Somebody adds one seed at a time and tests after each, and stops as soon as TOST has p < α. How
# often does that find "equivalence" where the true difference is exactly the margin, and should be found with
# probability α at most? Guess first.

# %%
LOOKS = 20
TRIALS = 2000
draws = scipy.stats.norm(margin, 1.5).rvs((LOOKS, TRIALS), random_state=0)  # made-up differences, mean = the margin
by_seed = pd.DataFrame(draws, index=range(1, LOOKS + 1)).expanding(3)
reach = by_seed.sem().mul(scipy.stats.t.ppf(1 - alpha, by_seed.count().sub(1)))  # half of the interval, after each seed
passed = (by_seed.mean() - reach > -margin) & (by_seed.mean() + reach < margin)  # [seeds, trials]
stopped = passed.any()
once = passed.loc[LOOKS]

# %% [markdown]
# <details><summary>Solution</summary>
#
# `stopped.mean()` against `once.mean()`. Looking once keeps to α, looking after every seed does not by far, and with
# more looks the chance goes on rising. That is why the number of seeds is part of the claim.
#
# </details>
#
# ## Summary
#
# - A method's result is a distribution over seeds. A comparison needs its scatter, an interval, and for "the same" a
#   margin that was there first. TOST is the $1 - 2\alpha$ interval inside the margin, and nothing more.
# - Paired seeds share problems, order and random numbers. Recorded rollouts show how long that lasts.
# - "Undecided" is a verdict too, and power says what would change it.
#
# Claims judged here, as the ledger has them:

# %%
pd.DataFrame([(c.statement, judged[c.id].verdict) for c in duel_claims], columns=["claim", "verdict"]).set_index(
    "claim"
)

# %% [markdown]
# Open:
#
# - Whether any of this holds for larger models, where differences between methods may have another size. Chapter 12
#   has first seeds of one.
#
# Chapter 08c answers why wrong responses grow, and how much is the normaliser. Chapter 09 answers whether equal
# accuracy hides unequal coverage.
