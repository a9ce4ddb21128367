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
# # 08c · The run that was missing
#
# **How much of the growth of responses does $1/|o|$ cause, and what causes the rest?**
#
# **The answer.** Wrong responses grow under every normaliser, so $1/|o|$ is not the only cause. On Countdown they grow
# because a search that goes on finds more. On the word problems most of the growth is that short wrong responses, which
# leave a step out, are unlearned first. What $1/|o|$ adds on Countdown is judged on new seeds, by how often a search
# gives up: it makes that rarer by a quarter or more, and causes less than half of the fall from the base. In the
# ledger: `lowers-giving-up` holds, `caused-giving-up` does not hold here.
#
# The paper shows lengths under $1/|o|$ alone, so it cannot say what $1/|o|$ does. Chapter 08 derives what it would do
# where length is worth nothing, and chapter 08b sees it there in a model. This chapter makes the run that was missing,
# in two tasks in which length is work.

# %%
import pandas as pd
from IPython.display import display

from rlino_lib.analysis import growth as lengths
from rlino_lib.analysis.tables import common, mean_interval, pooled
from rlino_lib.claims.ledger import RECORDED, Records, read_ledger
from rlino_lib.exact.length_toy import NORMALISERS
from rlino_lib.figures import ablation as tables
from rlino_lib.figures import length as figures
from rlino_lib.figures.recorded import say
from rlino_lib.figures.style import look, style
from rlino_lib.records.runs import list_runs, metrics_frame

style()
pd.set_option("display.max_colwidth", None)

# %% [markdown]
# ## The ablation
#
# Three normalisers under four methods on two tasks: everything else is the same, on the same problems in the same
# order. The learning rates are those that suit the methods under $1/|o|$ (chapter 07); a sweep further down asks
# whether that matters. The ledger said what would count as evidence for which cause before these runs were made.
#
# ```sh
# rlino grid data/runs/length.json
# rlino grid data/runs/length-more.json --out data/runs/length
# rlino grid data/runs/length-cap.json
# rlino grid data/runs/giving-up.json
# rlino grid data/runs/length-rates.json
# rlino grid data/runs/length-remedies.json
# ```
#
# The runs with $1/|o|$ are those of chapter 07's grid that kept a row of every held-out response.

# %%
TASKS = tables.TASKS
ablation = tables.recorded_ablation()
tables.seeds_table(ablation)

# %% [markdown]
# One more thing differs. GRPO's KL term, k3 of every token, stands inside the bracket that the normaliser divides:

# %% tags=["nbval-check-output"]
from dataclasses import replace

from rlino_lib.methods.catalogue import OBJECTIVES

for normaliser in ("per_response", "constant"):
    print(replace(OBJECTIVES["grpo"], normaliser=normaliser))

# %% [markdown]
# So under GRPO the ablation changes *two* normalisers at once, that of the gain and that of the KL. With $1/|o|$ a
# token of a long response is held to the base less than one of a short response; with a constant it is not. The
# difference between two such runs belongs to both. The F-ISFT rows have no KL term. GRPO without KL, in the grid
# `giving-up`, separates the two.

# %% alt="Grid of line plots, a row for each task and a column for each normaliser: mean lengths under GRPO against optimiser steps, of right responses, of wrong ones, and of wrong ones that were not truncated."
panels = {
    text: {NORMALISERS[n]: metrics_frame(ablation[task, "grpo", n]) for n in NORMALISERS}
    for task, text in TASKS.items()
}
figures.growth_curves(panels)

# %% [markdown]
# *What to look at.* Compare the panels of a row: the red line includes truncated responses, the orange one does not.
# (The lower axis does not start at 0.)

# %%
growths = tables.growths(ablation)
of_grpo = growths[growths["method"] == "grpo"].groupby(["task", "normaliser", "responses"])["growth"].mean()
for task, text in TASKS.items():
    for n in NORMALISERS:
        listed = ", ".join(f"{kind} {of_grpo[task, n, kind]:+.1f}" for kind in lengths.KINDS)
        say(f"GRPO on {text}, {NORMALISERS[n]}, growth in tokens: {listed}.")

# %% [markdown]
# *What was seen.* Wrong responses grow under every normaliser. On Countdown most of that growth disappears once
# truncated responses are left out. On the word problems, where the cap is out of reach, the red and the orange line are
# one.
#
# ### The difference that the normaliser makes

# %% alt="Dot plots with intervals, a row of panels for each task and a column for each kind of responses: growth in tokens by method, with a mark for each normaliser."
figures.growth_plot(growths, TASKS)

# %% [markdown]
# *What to look at.* Within a row, the distance between the marks is the effect of the normaliser. The distance of all
# three from 0 is the effect of something else. The paper's claim is about the first. Seed by seed:

# %%
gaps = tables.growth_gaps(growths)
display(tables.gaps_table(gaps))
say(tables.gaps_in_words(gaps))

# %% [markdown]
# *What was seen.* The effect of the normaliser is clearest under F-ISFT⁻, the method that only punishes. Under GRPO it
# is small, in these means, beside the growth that all normalisers share.
#
# The toy of chapter 08 predicts the sign of some of these differences: of right responses where these are trained on,
# and of wrong ones where they are. Below, its plain form, in which length is worth nothing, is compared with the
# trained model, leaving truncated responses out. (The toy has no KL term. The runs of GRPO have one, whose normaliser
# changed too.)

# %%
signs = tables.predicted_signs(gaps)
display(signs)
counts = ", ".join(f"{word}: {n}" for word, n in signs["so"].value_counts().items())
say(f"Signs predicted: {len(signs)}; {counts}.")

# %% [markdown]
# ### At every cap
#
# A small cap can hide an effect, because both runs hit it. So GRPO was also run under other caps, with $1/|o|$ and with
# a constant. Growth is measured from each run's own evaluation of the base. No claim about this was registered
# beforehand, and at the caps other than 112 the last two seeds were added after the first three had been read. Read the
# intervals as a description, not as a test.

# %%
caps = tables.by_cap([
    *ablation["countdown", "grpo", "per_response"], *ablation["countdown", "grpo", "constant"],
    *list_runs("length-cap"),
])  # fmt: skip
effects, left = tables.cap_effects(caps)
display(effects)
say(left)
for (n, cap), part in caps[caps["cap"].isin([112, 304])].groupby(["normaliser", "cap"]):
    say(f"Mean length of wrong responses, seed by seed, {n}, cap {cap}: {', '.join(f'{x:.0f}' for x in part['wrong'])}")

# %% [markdown]
# *What was seen.* At every cap most of the growth is left with a constant. But look at the single seeds. They do not
# scatter around one value: in a row four seeds end close together, and in three of the four rows the fifth ends far
# above. An interval of the mean over such runs is wide, and a 0 inside it says little.
#
# So a mean length is a poor judge here, whether truncated responses are counted or left out. **The claims
# `caused-countdown` and `caused-word` were judged by such a mean. They keep their verdicts, and are superseded.** That
# most of the growth is left without $1/|o|$ still stands. That $1/|o|$ has no effect does not follow. On Countdown a
# statistic that no cap touches takes its place. It needs a look at what the length is made of.
#
# ## What the length is made of
#
# A Countdown trace is a list of attempts, so its length can be counted as work. Here is one response of a trained model
# as a search. A node holds the numbers that are left, an edge is an operation, and a path from the left is an attempt.
# Step through it by attempt or by token, or see the whole group on one tree.

# %%
from rlino_lib.widgets import search_view

late = [run for run in ablation["countdown", "grpo", "per_response"] if len(run.rollouts)]
example = late[0] if late else list_runs("countdown")[0]
steps = sorted(set(example.rollouts["step"]))
search_view(example, step=steps[-1])

# %% [markdown]
# *What to look at.* Are late attempts new ones, or repetitions? Does the response stop at its first hit? Here are the
# same questions as numbers for all held-out responses: the base, sampled here, against the ends of the recorded runs.

# %%
from rlino_lib.evaluation.evaluate import evaluate
from rlino_lib.policy.models import load_policy
from rlino_lib.tasks import get_task
from rlino_lib.training.traces import response_rows

task = get_task("countdown")
policy = load_policy()
problems = task.problems("test", 512)
sampled = []
evaluate(policy, task, problems, samples=4, max_new_tokens=112,
         on_rollouts=lambda r: sampled.extend(response_rows(r, task, 0, final=True)))  # fmt: skip
of_base = pd.DataFrame(sampled).astype({"correct": bool, "clipped": bool, "first_hit": float})
ends = tables.searches(of_base, ablation)
attempts = tables.attempts_table(ends)
display(attempts.round(2))
made, before = attempts.loc["GRPO, 1/|o|"], attempts.loc["base"]
say(
    f"After GRPO with 1/|o| a response makes {made['attempts']:.1f} attempts instead of {before['attempts']:.1f}. "
    f"{made['repeated attempts'] / made['attempts']:.0%} of them repeat an earlier one, and "
    f"{made['attempts after the first hit']:.2f} of them come after the first hit."
)
trail = tables.attempts_by_step(late)
say(f"During training the share that is repeated goes from {trail['repeated'].iloc[0]:.0%} to "
    f"{trail['repeated'].iloc[-1]:.0%} (means over {len(late)} seeds).")  # fmt: skip

# %% [markdown]
# *What was seen.* Most attempts are new, and a response stops at its first hit. It is longer because it tries more
# often: an attempt takes as many tokens as before. So what training changes is a decision. After a failed attempt a
# search can try again or give up, and it gives up less and less often.
#
# ## Giving up
#
# **The rate of giving up is the share of failed attempts after which the response ends instead of trying again.** It is
# counted as in a survival analysis. The *risk set* holds the failed attempts after which one can see what the policy
# did. An attempt after which the cap came leaves the risk set: nobody knows whether another would have followed.
# Attempts after a hit are not at risk. A response that ends because it takes a failed attempt for a hit counts as well:
# it stops a search that has not succeeded. So no cap is in this rate. If it is a constant $g$, a search without a hit
# and without a cap makes $1/g$ attempts on average. Five responses by hand:

# %% tags=["nbval-check-output"]
from rlino_lib.analysis.giving_up import giving_up

by_hand = pd.DataFrame(
    [
        ("fails three times and ends", 3, None, False, False, 0),
        ("fails twice, then hits", 3, 3, True, False, 0),
        ("fails four times, and the cap comes", 4, None, False, True, 0),
        ("fails once, overlooks a hit, fails again and ends", 3, 2, False, False, 0),
        ("fails twice, and calls the second one a hit", 2, None, False, False, 1),
    ],
    columns=["response", "attempts", "first_hit", "correct", "clipped", "false_yes"],
).astype({"first_hit": float})
counted = {row["response"]: giving_up(by_hand.loc[[k]]) for k, row in by_hand.iterrows()}
all_five = giving_up(by_hand)
print(f"together: {all_five.ended} of {all_five.failed} failed attempts ended the response")
pd.DataFrame({name: [c.failed, c.ended] for name, c in counted.items()}, index=["failed, at risk", "ended"]).T

# %% [markdown]
# Rates are compared as a ratio, rate with $1/|o|$ to rate without, within a seed. A ratio of 0.75 means that $1/|o|$
# takes away a quarter of the giving up that is left. The first claim of the ledger is about causes: how much of the
# *fall* from the base's rate is absent with a constant, on the scale of logarithms?
#
# Two rules keep this honest. **All runs above are exploratory here**: their ratios were known when the thresholds were
# set, so they judge nothing. What judges are ten new seeds of GRPO without KL, on which the normaliser is all that
# changes; thresholds and the rule were in the ledger before the first of these runs. And **the median decides**, with
# the interval between two order statistics that belongs to the sign test. It needs no shape of the distribution, and
# two heaps do not mislead it. The mean and Student's interval stand beside it.

# %% alt="Dot plot with a row for each comparison: ratios of how often a search gives up, with 1/|o| over without it, a dot for every seed, with the mean, its interval and the threshold of the ledger."
from rlino_lib.claims.length import giving_up_ratios
from rlino_lib.claims.length_answers import answers, giving_up_in_words

ratios = giving_up_ratios()
figures.ratios_figure(ratios, 0.75)

# %% [markdown]
# *What to look at.* Filled marks judge, hollow ones are exploratory. A mark is a seed. Below the marks are the median
# with its interval (thick; five seeds are too few for one) and the mean with Student's (thin). The dashed line is the
# threshold of the second claim: the whole interval of the median has to lie on its left. Look for heaps, and for seeds
# on the other side of 1. F-ISFT⁺ is a control: it gives wrong responses no weight, so the argument predicts no change,
# and both of its medians are near 1.

# %%
from rlino_lib.claims.judge import judge

ledger = [c for c in read_ledger() if c.evidence.startswith("length.")]
records = Records(RECORDED.root, read_ledger())
judged = {c.id: judge(c, records) for c in ledger}
statements = {c.id: c.statement for c in ledger}
for name, sentence in giving_up_in_words(records).items():
    say(f"Claim {name}: {statements[name]}")
    say(f"Verdict: {judged[name].verdict}. {sentence}")
    say(f"Found: {judged[name].effect}.")
    print()
old = ratios[~ratios["judges"]]
medians = old.groupby(["comparison", "normaliser"])["log_ratio"].median()
say(f"Exploratory: in {(medians < 0).sum()} of {len(medians)} comparisons the median ratio is below 1; single seeds: "
    f"{(old['log_ratio'] < 0).sum()} of {len(old)}.")  # fmt: skip

# %% [markdown]
# ## Cause one: length that is worth something
#
# How much of the success needs the length? Count a response as right if there is a hit among its first k attempts. That
# is the success of a solver that checks its own attempts and is stopped after k (thick lines). The thin lines estimate
# the success if no response gave up before k, with giving up and the cap as censoring, in the way of Kaplan and Meier.

# %% alt="Line plot: the share of problems solved within a number of attempts, for the base and for GRPO under three normalisers."
from rlino_lib.tasks.countdown.trace import success_by_attempt

BUDGET = 10
curves = {"base": (lengths.success_within(of_base, BUDGET), look("base"))}
hit_rates = {"base": success_by_attempt(of_base, BUDGET)["rate"]}
for n, text in NORMALISERS.items():
    of_runs = pooled(ablation["countdown", "grpo", n])
    curves[f"GRPO, {text}"] = (lengths.success_within(of_runs, BUDGET), figures.NORMALISER_LOOKS[n])
    hit_rates[f"GRPO, {text}"] = success_by_attempt(of_runs, BUDGET)["rate"]
display(figures.budget_figure(curves))
hit_rates = 100 * pd.DataFrame(hit_rates)
hit_rates.round(1).rename_axis("of those that make this attempt without a hit before, % that hit")

# %% [markdown]
# *What to look at.* Success can rise for two reasons: better attempts (the line is steeper from the first attempt on)
# or more attempts (the line is the same, and one follows it further). The table separates them: better attempts raise
# the hit rate of each attempt.

# %%
listed = " and ".join(
    f"{name} {hit_rates[name].loc[1]:.1f} % ({100 * curves[name][0]['within'].iloc[-1]:.1f} %)"
    for name in ("base", "GRPO, 1/|o|")
)
say(f"Hit rate of the first attempt, and in brackets of the response within {BUDGET} attempts: {listed}.")

# %% [markdown]
# *What was seen.* Both happen. The first attempt becomes better, but most of the gain appears only when several
# attempts are allowed.
#
# The thin line assumes that responses which give up would have hit as often as those that go on. With a model at hand
# we can test this. `forced_hits` does not let it stop: where it would close its thought without a hit, the last attempt
# is followed by a new line in place of the end, up to k attempts.

# %%
from rlino_lib.evaluation.forced import forced_hits

few = 6
trained = next(run for run in late if (run.path / "model").exists())
searchers = {"base": (policy, of_base)}
searchers[f"GRPO, seed {trained.seed}"] = (load_policy(trained.path / "model"), lengths.final_responses(trained))
estimates, hits = {}, {}
for name, (searcher, stopped) in searchers.items():
    hits[name] = forced_hits(searcher, task, problems * 2, few)
    guess = lengths.success_within(stopped, few)
    estimates[name, "within, as it stops"] = guess["within"][1:]
    estimates[name, "forced, by Kaplan and Meier"] = guess["forced"][1:]
    estimates[name, "forced, in fact"] = pd.Series({k: (hits[name] <= k).mean() for k in range(1, few + 1)})
(100 * pd.DataFrame(estimates)).round(1)

# %%
for k in (1, few):
    shares = {name: 100 * (first <= k) for name, first in hits.items()}
    by_problem = [share.groupby(share.index % len(problems)).mean() for share in shares.values()]
    mean, low, high = mean_interval((by_problem[1] - by_problem[0]).tolist())
    listed = ", ".join(f"{name} {share.mean():.1f} %" for name, share in shares.items())
    say(f"{k} {'attempt' if k == 1 else 'attempts'}, forced: {listed}; after less before {mean:+.1f} points "
        f"[{low:+.1f}, {high:+.1f}], over {len(problems)} problems.")  # fmt: skip

# %% [markdown]
# *What was seen.* The estimate by Kaplan and Meier is a little below the forced runs, so its assumption does little
# harm. Both models make the same number of attempts here. The difference between them is the quality of the attempts,
# and the trained model is clearly ahead. The rest of what it gains when it stops by itself comes from going on for
# longer. So on Countdown length is worth something.
#
# ## Cause two: who is still wrong
#
# Late in training the easy problems are solved, so the wrong responses belong to other problems than at first. If the
# base wrote longer responses to hard problems, wrong responses would seem to grow although none did. So look at fixed
# problems, sorted by how often the base solves them.

# %%
for task_name, text in TASKS.items():
    runs = ablation[task_name, "grpo", "per_response"]
    rows = lengths.by_rate(pooled(runs), lengths.base_problems(runs[0]))
    print(f"{text}: wrong responses under GRPO with 1/|o|, {len(runs)} seeds")
    display(rows.round(2))
    grew = rows["now"] - rows["base"]
    say(
        f"Between rows the base's wrong responses differ by at most {rows['base'].max() - rows['base'].min():.1f} "
        f"tokens; within rows they grow by {grew.min():.1f} to {grew.max():.1f} tokens."
    )
    for name, frame in {"the base": of_base if task_name == "countdown" else None, "GRPO": pooled(runs)}.items():
        if frame is not None:
            pairs = lengths.paired_lengths(frame)
            say(f"Under {name}, on {len(pairs)} problems with right and wrong responses, wrong ones are longer by "
                "{:+.1f} tokens [{:+.1f}, {:+.1f}].".format(*mean_interval(pairs.tolist())))  # fmt: skip

# %% [markdown]
# *What to look at.* The columns `base` and `now` compare lengths on the same problems, and `share` says where the wrong
# responses come from. If the column `base` hardly differs from row to row, selection *of problems* cannot explain much.
#
# *What was seen.* On fixed problems the mean length of wrong responses grew too, at every difficulty.
#
# ### The word problems: selection within a problem
#
# The demonstrator of the word problems sometimes leaves out a step, and so does the base. Such a response is short and
# wrong. Training removes these first, so the wrong responses that remain are the long ones, and their mean would rise
# even if none became longer. A step is a line, so the length of a recorded response says whether one is missing:

# %%
for n, text in NORMALISERS.items():
    say(f"Word problems, GRPO, {text}: {tables.left_out_in_words(ablation['word_problems', 'grpo', n])}.")

# %% [markdown]
# *What was seen.* The same under every normaliser. On this task the normaliser has next to nothing left to do, and so
# the claim `caused-word` is superseded by `selection-word`.
#
# ## A decomposition that adds up
#
# How much of the growth is which? Put something in between: what the *base* would have written on the problems that are
# wrong *now*, each counted as often as it is wrong now. Let $M$ be the mean length of these responses, and $M_0$ that
# of the base's own wrong ones. A share $S$ of them is truncated at the cap $C$, a share $U$ leaves a step out and has
# mean length $V$, and the rest has mean length $W$. Let $s$, $u$, $v$ and $w$ be the same for what is written now. Then
#
# $$
# \underbrace{\vphantom{(}M - M_0}_{\text{selection of problems}} \;+\;
# \underbrace{(u - U)(V - W)}_{\text{fewer leave a step out}} \;+\;
# \underbrace{(s - S)(C - W)}_{\text{more are truncated}} \;+\;
# \underbrace{(1 - s - u)(w - W) + u(v - V)}_{\text{longer, of the same kind}} \;=\; \text{growth},
# $$
#
# since $M = SC + UV + (1-S-U)W$, and the same holds now. On Countdown no step can be left out, and the second part
# vanishes. The normaliser is not a fifth part. Its share is the difference between the bars of two runs that differ in
# nothing else. And a truncated response has grown by more than one can see (chapter 08): "more are truncated" is real
# growth of unknown size.

# %% alt="Stacked horizontal bars, a panel for each task and a bar for each method and normaliser: the growth of wrong responses divided into its causes; parts below 0 go to the left."
apart = ("grpo", "f_isft_posneg", "f_isft_pos")
display(figures.parts_bars({text: tables.mean_parts(ablation, key, apart) for key, text in TASKS.items()}))
all_runs = [run for (_, method, _), runs in ablation.items() if method in apart for run in runs]
print(f"largest gap between a sum of parts and the growth it should be, tokens: {tables.largest_gap(all_runs):.0e}")

# %% [markdown]
# *What to look at.* In each group of three bars, the first is what the paper's figure shows. Whatever the third bar
# still has is there without $1/|o|$. "Longer, of the same kind" is what no other part explains. The same for GRPO in
# numbers, seed by seed; the last column is what $1/|o|$ does. The last row says how much is learnt. Where $1/|o|$
# changes that, the other rows compare models that are not equally good:

# %%
for key, text in TASKS.items():
    sides = common(*(tables.parts_by_seed(ablation[key, "grpo", n]) for n in ("per_response", "constant")))
    print(f"{text}, GRPO, {len(sides[0])} seeds of each; tokens, or points in the last row")
    display(tables.parts_table(*sides))
    say(f"Shares of the growth of wrong responses with 1/|o|: {tables.parts_in_words(sides[0])}.")

# %% [markdown]
# *What was seen.* On the word problems most growth is selection, of problems and within them, and nearly the same with
# a constant. On Countdown nearly all growth of wrong responses is that more of them are truncated, and a constant
# leaves most of it. But with a constant the model is also worse. On Countdown more success comes with more attempts. So
# part of this difference may be there only because the model with $1/|o|$ is the better one.
#
# ### Is it the learning rate?
#
# A constant may look worse only because its rate was chosen under $1/|o|$. So GRPO with a constant gets the sweep of
# chapter 07 too, on Countdown, with two seeds. The rule was fixed before the runs: the best rate is the one with the
# highest mean on the validation problems after 100 steps. If it differs from the rate used above, the ablation is run
# again at it.

# %%
with_it = [r for r in list_runs("head-to-head-lr") if (r.method, r.config["task"]) == ("grpo", "countdown")]
rates = tables.rates_table([*with_it, *list_runs("length-rates")])
display(rates.rename(columns="{:g}".format).round(1))
own = rates.loc[NORMALISERS["constant"]].mean()
used = {run.config["lr"] for run in ablation["countdown", "grpo", "constant"]}
say(
    f"With a constant the best rate is {own.idxmax():g} ({own.max():.1f} % right, the next best "
    f"{own.nlargest(2).min():.1f} %), and the runs above used {', '.join(f'{rate:g}' for rate in used)}: "
    + ("the same. The gap in accuracy is not one of the learning rate, as far as factors of two tell."
       if used == {own.idxmax()} else "another, so that the comparison above is not at its best.")
)  # fmt: skip

# %% [markdown]
# ## Remedies
#
# Five remedies, all on GRPO without KL: Dr. GRPO (no $1/|o|$, no standard deviation, at half the learning rate, which
# suits it: chapter 07); DAPO's soft penalty over the last fifth below the cap; a cost of a quarter of a reward at the
# cap's length and in proportion below it; leaving truncated responses out of the update; and training on the four
# shortest of each eight.

# %%
remedies = tables.remedies_table()
display(remedies.round(1).astype({"seeds": int}))
for name, row in remedies.drop(tables.NO_REMEDY).iterrows():
    less = row - remedies.loc[tables.NO_REMEDY]
    say(f"{name}: {less['right, %']:+.1f} points and {less['length']:+.1f} tokens against no remedy.")

# %% [markdown]
# *What to look at.* Accuracy against length, and the attempts beside them. A remedy that shortens and keeps accuracy
# would have removed length that was worth nothing.
#
# *What was seen.* No remedy removes length and keeps accuracy. The two that shorten responses lose the most, and they
# have lost attempts. Dr. GRPO and the four shortest make as many attempts as before: they lose accuracy for another
# reason.
#
# ## The answers

# %%
for question, answer in answers(records).items():
    say(f"{question} {answer}")
    print()

# %% [markdown]
# These answers are computed from the verdicts and the intervals. They are about one small model, at one learning rate
# for all normalisers. The ledger's rows on length:

# %%
rows = [
    (c.id, c.statement, f"{c.threshold['share']:g}", judged[c.id].verdict, judged[c.id].effect, c.standing or "–")
    for c in ledger
]
pd.DataFrame(rows, columns=["", "claim", "share", "verdict", "what was found", "standing"]).set_index("")

# %% [markdown]
# *What to look at.* "Undecided" does not mean no: the interval of the planned seeds leaves both answers open. "Holds
# with conditions" does not mean yes: read which part of the claim was found. Some rows are superseded by another, or
# under revision, with the reason beside them.
#
# ## Exercises
#
# **1. A decomposition that adds up.** `my_parts(start, between, now, cap)`: the parts selection, truncated and longer.
# `start` is the base's mean length of wrong responses. `between` and `now` are pairs: the share that is truncated,
# and the mean length of the rest.


# %%
from checkers.missing_run import check_parts, check_regrade


def my_parts(start, between, now, cap): ...


_ = check_parts(my_parts)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_parts(start, between, now, cap):
#     (S, W), (s, w) = between, now
#     return S * cap + (1 - S) * W - start, (s - S) * (cap - W), (1 - s) * (w - W)
# ```
#
# This is not the only decomposition: with $(s - S)(C - w)$ and $(1 - S)(w - W)$ the sum is the same.
#
# </details>
#
# **2. A budget.** `my_regrade(attempts, target, k)`: is a solver right that checks each attempt itself and is
# stopped after k? An attempt is a pair of its result and the verdict that the response gave it.


# %%
def my_regrade(attempts, target, k): ...


_ = check_regrade(my_regrade)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_regrade(attempts, target, k):
#     return any(result == target for result, verdict in attempts[:k])
# ```
#
# </details>
#
# **3. A question.** A colleague trains with a constant normaliser, sees wrong responses grow as before, and
# concludes that $1/|o|$ has no effect on lengths. What is missing?
#
# <details><summary>Answer</summary>
#
# That growth remains shows that there is another cause. Whether $1/|o|$ has an effect is a *difference* between two
# runs. It can be large while both grow, or hidden where both run into the cap. The answer takes the pair, the same
# seeds, an interval, and a statistic that the cap does not touch. The mean length of responses that were not truncated
# is not one.
#
# </details>
#
# ## Summary
#
# - Whether $1/|o|$ has an effect is a difference between two runs. Growth that is left without it shows another cause,
#   and says nothing about the effect.
# - A mean length has the cap in it, counted or left out. How often a search gives up after a failed attempt has not:
#   what the cap hides leaves the risk set.
# - Runs can end in two heaps. So show every seed, and let a median and its interval decide.
# - A mean of wrong responses grows without any longer response where short ones are unlearned first. A decomposition
#   whose parts add up says how much of the growth that is.
#
# As judged above:

# %%
tally = pd.Series([evidence.verdict for evidence in judged.values()]).value_counts()
say(f"Of {len(ledger)} claims on length: {', '.join(f'{verdict} {n}' for verdict, n in tally.items())}.")
moved = [f"{c.id} ({judged[c.id].verdict}) by {c.superseded_by}" for c in ledger if c.superseded_by]
say(f"Superseded: {'; '.join(moved)}. Under revision: "
    f"{', '.join(c.id for c in ledger if c.revision and not c.superseded_by)}.")  # fmt: skip

# %% [markdown]
# Open:
#
# - How long the truncated responses would be: the one conclusion that is still under revision.
# - Whether the proportions are the same in models that can tell better whether they are wrong: chapter 12 has first
#   seeds of one that is larger.
# - Whether credit that knows which tokens mattered makes responses shorter (chapter 10 has such runs, not judged by
#   it).
