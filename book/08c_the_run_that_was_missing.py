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
# The toy of chapter 08 and the clean room of chapter 08b say what $1/|o|$ can do.

# %%
import math
import statistics
from dataclasses import replace

import pandas as pd
from IPython.display import display

from rlino_lib.analysis.growth import KINDS, final_responses, growth
from rlino_lib.analysis.tables import common, in_brackets, mean_interval, means_of, pooled
from rlino_lib.exact.length_toy import NORMALISERS, LengthToy, drift, variant
from rlino_lib.figures.length import NORMALISER_LOOKS
from rlino_lib.figures.recorded import say
from rlino_lib.figures.style import label, look, style
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.records.runs import list_runs

style()
pd.set_option("display.max_colwidth", None)

# %% [markdown]
# Now the trained model. The paper shows lengths under $1/|o|$ alone, so it cannot say what $1/|o|$ does. Here is the
# ablation: three normalisers under four methods, everything else the same, on the same problems in the same order. One
# caveat: the learning rates are those that suit the methods under $1/|o|$ (chapter 07). They were not chosen anew for
# each normaliser, and a sweep further down asks whether that matters. The ledger said what would count as evidence for
# which cause before these runs were made.
#
# One more thing differs. GRPO's KL term, k3 of every token, stands inside the bracket that the normaliser divides:

# %%
# NBVAL_CHECK_OUTPUT
for normaliser in ("per_response", "constant"):
    print(replace(OBJECTIVES["grpo"], normaliser=normaliser))

# %% [markdown]
# So under GRPO the ablation changes *two* normalisers at once, that of the gain and that of the KL. With $1/|o|$ a
# token of a long response is held to the base less than one of a short response; with a constant it is not. The
# difference between two such runs belongs to both. The F-ISFT rows have no KL term. GRPO without KL under all three
# normalisers separates the two: the grid `giving-up`, which judges two claims of the ledger.
#
# **Some conclusions of this part are superseded or under revision.** The runs and the numbers stand.
#
# - *The statistic that decides `caused`.* The mean length of wrong responses that were not truncated depends on the
#   cap, and over seeds it has two modes. An interval that includes 0 can hide an effect there. The share of failed
#   attempts after which a response gives up does not depend on the cap, and takes its place. At least half of
#   the growth is left without $1/|o|$: this still stands. That $1/|o|$ has no effect does not follow.
# - *The cause of the growth on the word problems.* Selection happens between problems and also *within* a problem: see
#   "Cause two". Counted together they are most of the growth, and the normaliser has next to nothing left to do there.
# - *The meaning of "truncation"* is under revision. Truncation hides growth. It is not an artefact of counting: see
#   "Cause three".

# %%
from rlino_lib.claims.judge import judge
from rlino_lib.claims.ledger import read_ledger
from rlino_lib.claims.length import length_runs, normaliser_of
from rlino_lib.paths import RUNS

ROWS = ("grpo", "f_isft_posneg", "f_isft_pos", "f_isft_neg")
TASKS = {"countdown": "Countdown", "word_problems": "word problems"}
ledger = [c for c in read_ledger() if c.evidence.startswith("length.")]
ablation = {
    (task, method, normaliser): length_runs(task, method, normaliser)
    for task in TASKS for method in ROWS for normaliser in NORMALISERS
}  # fmt: skip
for group in ("length", "length-more", "length-cap", "giving-up", "length-rates", "length-remedies"):
    if (RUNS / f"{group}.json").exists():
        print(f"rlino grid data/runs/{group}.json{' --out data/runs/length' if group == 'length-more' else ''}")
print("(The rows of 1/|o| are those runs of the head-to-head grid that kept a row of every held-out response.)")
counts = pd.Series({key: len(runs) for key, runs in ablation.items()}).unstack()
counts.index = pd.MultiIndex.from_tuples([(TASKS[t], label(m)) for t, m in counts.index], names=["task", "method"])
counts[list(NORMALISERS)].rename(columns=NORMALISERS).rename_axis(columns="seeds")

# %%
plan = pd.DataFrame(
    {"claim": c.statement, "share": c.threshold["share"], "planned seeds": f"{c.threshold['seeds']:.0f}"}
    for c in ledger
)
plan.index = [c.id for c in ledger]
plan

# %%
from rlino_lib.figures.curves import length_curves
from rlino_lib.records.runs import metrics_frame

present = [task for task in TASKS if all(ablation[task, "grpo", n] for n in NORMALISERS)]
for task in TASKS:
    if task not in present:
        print(f"The ablation of GRPO on {TASKS[task]} is not complete: the cells below go without it.")

for task in present:
    frames = {NORMALISERS[n]: metrics_frame([run for m in ROWS for run in ablation[task, m, n]]) for n in NORMALISERS}
    for name, frame in frames.items():
        figure = length_curves(frame, source="eval", columns=4)
        figure.suptitle(f"{TASKS[task]}, {name}", fontsize=11)
        display(figure)

# %% [markdown]
# *What to look at.* One figure per task and normaliser. Compare the same panel from figure to figure, and the red line,
# which includes truncated responses, with the orange one, which does not.

# %%
for task_name in present:
    for n in NORMALISERS:
        grew = {kind: statistics.mean(growth(run, kind) for run in ablation[task_name, "grpo", n]) for kind in KINDS}
        listed = ", ".join(f"{kind} {tokens:+.1f}" for kind, tokens in grew.items())
        say(f"GRPO on {TASKS[task_name]}, {NORMALISERS[n]}, growth in tokens: {listed}.")

# %% [markdown]
# Wrong responses grow under every normaliser. On Countdown most of that growth disappears once truncated responses
# are left out. On the word problems, where the cap is out of reach, the red and the orange line are one.
#
# ### The difference that the normaliser makes

# %%
from rlino_lib.figures.length import growth_plot

grown = pd.DataFrame(
    (task, kind, method, normaliser, *mean_interval(values), len(values))
    for (task, method, normaliser), runs in ablation.items() if runs
    for kind in KINDS
    if (values := [g for run in runs if not math.isnan(g := growth(run, kind))])
)  # fmt: skip
if len(grown):
    grown.columns = ["task", "panel", "method", "normaliser", "mean", "low", "high", "seeds"]
    for task in present:
        figure = growth_plot(grown[grown["task"] == task], KINDS)
        figure.suptitle(TASKS[task], fontsize=11)
        display(figure)

# %% [markdown]
# *What to look at.* Within a row, the distance between the marks is the effect of the normaliser. The distance of
# all three from 0 is the effect of something else. The paper's claim is about the first. Seed by seed:

# %%
rows = []
for task in present:
    for method in ROWS:
        for kind in KINDS:
            by = {n: pd.Series({r.seed: growth(r, kind) for r in ablation[task, method, n]}) for n in NORMALISERS}
            for n in ("token_mean", "constant"):
                one, other = common(by["per_response"], by[n])
                if len(one) > 1:
                    rows.append((task, method, kind, n, one - other))
gaps = pd.DataFrame(rows, columns=["task", "method", "responses", "1/|o| less", "gaps"])
if len(gaps):
    named = gaps.assign(
        tokens=gaps["gaps"].map(in_brackets), task=gaps["task"].map(TASKS), method=gaps["method"].map(label)
    )
    named["1/|o| less"] = named["1/|o| less"].map(NORMALISERS)
    display(named.pivot(index=["task", "method"], columns=["responses", "1/|o| less"], values="tokens"))

# %%
ends_of_gaps = gaps["gaps"].map(mean_interval)
clear = gaps[ends_of_gaps.map(lambda interval_of: interval_of[1] * interval_of[2] > 0)]
top = gaps.loc[ends_of_gaps.map(lambda interval_of: abs(interval_of[0])).idxmax()]
say(
    f"{len(clear)} of {len(gaps)} differences have an interval that excludes 0. The largest is "
    f"{in_brackets(top['gaps'])} tokens ({label(top['method'])} on {TASKS[top['task']]}, {top['responses']}, "
    f"1/|o| less {NORMALISERS[top['1/|o| less']]})."
)

# %% [markdown]
# The effect of the normaliser is clearest under F-ISFT⁻, the method that only punishes. Under GRPO it is small, in
# these means, beside the growth that all normalisers share.
#
# The toy predicts the sign of some of these differences: of right responses where these are trained on, and of wrong
# ones where they are. Below, its plain form, in which length is worth nothing, is compared with the trained model,
# leaving truncated responses out. (The toy has no KL term. The runs of GRPO have one, whose normaliser changed too.)

# %%
rows = []
for row in gaps[(gaps["1/|o| less"] == "constant") & (gaps["responses"] != "wrong")].itertuples():
    side = row.responses.split(",")[0]
    method = "grpo_no_kl" if row.method == "grpo" else row.method  # the toy has no base to be held to
    push = drift(LengthToy(), variant(method, "per_response")).table["drift"][side]
    if abs(push) < 1e-12:
        continue
    _, low, high = mean_interval(row.gaps)
    outcome = "open" if low <= 0 <= high else "as predicted" if low * push > 0 else "opposite"
    word = "longer" if push > 0 else "shorter"
    rows.append((TASKS[row.task], label(row.method), row.responses, word, in_brackets(row.gaps), outcome))
heads = ["task", "method", "responses", "1/|o| should make them", "found, tokens", "so"]
toy_signs = pd.DataFrame(rows, columns=heads)
display(toy_signs.set_index(["task", "method"]))
counts = ", ".join(f"{word}: {n}" for word, n in toy_signs["so"].value_counts().items())
say(f"Signs predicted: {len(toy_signs)}; {counts}.")

# %% [markdown]
# ## What the length is made of
#
# A Countdown trace is a list of attempts, so its length can be counted as work. Here is one response of a trained model
# as a search. A node holds the numbers that are left, an edge is an operation, and a path from the left is an attempt.
# Step through it by attempt or by token, or see the whole group on one tree.

# %%
from rlino_lib.widgets import search_view, static_search

late = [run for run in ablation["countdown", "grpo", "per_response"] if len(run.rollouts)]
example = late[0] if late else list_runs("countdown")[0]
steps = sorted(set(example.rollouts["step"]))
search_view(example, step=steps[-1])

# %%
static_search(example, step=steps[-1])

# %% [markdown]
# *What to look at.* Are late attempts new ones, or repetitions? Does the response stop at its first hit? Here are
# the same questions as numbers for all held-out responses: the base, sampled here, against the ends of the recorded
# runs.

# %%
from rlino_lib.analysis.growth import attempt_counts
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
ends = {"base": [of_base]}
for method in ROWS:
    for n in NORMALISERS:
        if runs := ablation["countdown", method, n]:
            ends[f"{label(method)}, {NORMALISERS[n]}"] = [final_responses(run) for run in runs]
means = pd.DataFrame({name: pd.DataFrame(map(attempt_counts, frames)).mean() for name, frames in ends.items()}).T
heads = {
    "attempts": "attempts", "tokens_per_attempt": "tokens per attempt", "repeats_order": "repeated attempts",
    "attempts_after_hit": "attempts after the first hit", "tokens_after_hit": "tokens after it",
    "overlooked": "hits called no", "false_yes": "misses called yes", "filler": "tokens that are no attempt",
}  # fmt: skip
means[list(heads)].rename(columns=heads).round(2)

# %%
if late:
    by_step = []
    for run in late:
        rows = run.responses[~run.responses["final"]]
        for step, part in rows.groupby("step"):
            by_step.append((step, run.seed, len(part), part["attempts"].mean(), part["repeats_order"].mean(),
                            (part["repeats_order"].sum() / part["attempts"].sum())))  # fmt: skip
    trail = pd.DataFrame(by_step, columns=["step", "seed", "n", "attempts", "repeated", "share repeated"])
    first, last = (trail[trail["step"] == end].mean() for end in (trail["step"].min(), trail["step"].max()))
    print(
        f"GRPO, 1/|o|, means over {len(late)} seeds: from {first['attempts']:.1f} to {last['attempts']:.1f} attempts "
        f"per response, of which repeated {first['share repeated']:.0%} and {last['share repeated']:.0%}."
    )

# %%
of_grpo = means.loc[f"{label('grpo')}, {NORMALISERS['per_response']}"]
say(
    f"After GRPO with 1/|o| a response makes {of_grpo['attempts']:.1f} attempts instead of "
    f"{means.loc['base', 'attempts']:.1f}. {of_grpo['repeats_order'] / of_grpo['attempts']:.0%} of them repeat an "
    f"earlier one, and {of_grpo['attempts_after_hit']:.2f} of them come after the first hit."
)

# %% [markdown]
# So most attempts are new, and a response stops at its first hit. It is longer because it tries more often: an attempt
# takes as many tokens as before.
#
# ## Cause one: length that is worth something
#
# How much of the success needs the length? Count a response as right if there is a hit among its first k attempts. That
# is the success of a solver that checks its own attempts and is stopped after k (thick lines). The thin lines estimate
# the success if no response gave up before k, with giving up and the cap as censoring, in the way of Kaplan and Meier.

# %%
from rlino_lib.analysis.growth import success_within
from rlino_lib.figures.length import budget_figure

BUDGET = 10
curves = {"base": (success_within(of_base, BUDGET), look("base"))}
for n in NORMALISERS:
    if runs := ablation["countdown", "grpo", n]:
        curves[f"GRPO, {NORMALISERS[n]}"] = (success_within(pooled(runs), BUDGET), NORMALISER_LOOKS[n])
budget_figure(curves)

# %%
from rlino_lib.tasks.countdown.trace import success_by_attempt

table = pd.DataFrame({name: 100 * curve["within"] for name, (curve, _) in curves.items()})
rates = {}
for name, frames in {"base": [of_base], **{k: v for k, v in ends.items() if k.startswith("GRPO")}}.items():
    frame = success_by_attempt(pd.concat(frames), BUDGET)
    rates[name] = (100 * frame["rate"]).round(1)
display(table.round(1).rename_axis("hit within so many attempts, %"))
pd.DataFrame(rates).rename_axis("of those that make this attempt without a hit before, % that hit")

# %% [markdown]
# *What to look at.* Success can rise for two reasons: better attempts (the line is steeper from the first attempt
# on) or more attempts (the line is the same, and one follows it further). The lower table separates them: better
# attempts raise the hit rate of each attempt.

# %%
names_of = list(rates)[:2]
listed = " and ".join(f"{name} {rates[name].loc[1]:.1f} % ({table[name].iloc[-1]:.1f} %)" for name in names_of)
say(f"Hit rate of the first attempt, and in brackets of the response within {BUDGET} attempts: {listed}.")

# %% [markdown]
# Both happen. The first attempt becomes better, but most of the gain appears only when several attempts are allowed.
#
# The thin line assumes that responses which give up would have hit as often as those that go on. With a model at
# hand we can test this. Below, the base may not stop: where it would close its thought without a hit, the last
# attempt is followed by a new line in place of the end, up to k attempts.


# %%
from rlino_lib.policy.sampling import sample
from rlino_lib.tasks.countdown.trace import read_search


def forced(policy, problems, attempts: int) -> pd.Series:
    """The attempt that hits first when none may give up before `attempts`; infinite where none of them does."""
    texts = [""] * len(problems)
    hits = [math.inf] * len(problems)
    open_rows = list(range(len(problems)))
    for _ in range(attempts):
        prompts = [task.prompt(problems[i]) + texts[i] for i in open_rows]
        rollouts = sample(policy, prompts, 1, max_new_tokens=64, seed=sum(map(len, texts)))
        left = []
        for i, text in zip(open_rows, rollouts.texts, strict=True):
            whole = read_search(problems[i], texts[i] + text)
            made = [a for a in whole.attempts if a.verdict][:attempts]
            hits[i] = next((k for k, a in enumerate(made, 1) if a.hit is not None), math.inf)
            texts[i] = whole.response[: made[-1].end].rstrip("\n") + "\n" if made else texts[i]
            if hits[i] == math.inf and 0 < len(made) < attempts:
                left.append(i)
        open_rows = left
        if not open_rows:
            break
    return pd.Series(hits)


few = 6
kept = [run for run in late if (run.path / "model").exists()]
searchers = {"base": (policy, of_base)}
searchers |= {f"{label('grpo')}, seed {r.seed}": (load_policy(r.path / "model"), final_responses(r)) for r in kept[:1]}
estimates, hits = {}, {}
for name, (searcher, stopped) in searchers.items():
    hits[name] = forced(searcher, problems * 2, few)
    guess = success_within(stopped, few)
    estimates[name, "within, as it stops"] = guess["within"][1:]
    estimates[name, "forced, by Kaplan and Meier"] = guess["forced"][1:]
    estimates[name, "forced, in fact"] = pd.Series({k: (hits[name] <= k).mean() for k in range(1, few + 1)})
(100 * pd.DataFrame(estimates)).round(1)

# %%
for k in (1, few):
    shares = {name: 100 * (first <= k) for name, first in hits.items()}
    text = ", ".join(f"{name} {share.mean():.1f} %" for name, share in shares.items())
    if len(shares) > 1:
        before, after = (share.groupby(share.index % len(problems)).mean() for share in shares.values())
        mean, low, high = mean_interval((after - before).tolist())
        text += f"; after less before {mean:+.1f} points [{low:+.1f}, {high:+.1f}], over {len(problems)} problems"
    say(f"{k} {'attempt' if k == 1 else 'attempts'}, forced: {text}.")

# %% [markdown]
# *What to look at.* Both models make the same number of attempts here. The difference between them is the quality of
# the attempts, and the trained model is clearly ahead. The rest of what it gains when it stops by itself comes from
# going on for longer.

# %% [markdown]
# ## Cause two: who is still wrong
#
# Late in training the easy problems are solved, so the wrong responses belong to other problems than at first. If the
# base wrote longer responses to hard problems, wrong responses would seem to grow although none did. So look at fixed
# problems, sorted by how often the base solves them.

# %%
from rlino_lib.analysis.growth import base_problems, by_rate, paired_lengths

for task_name in present:
    runs = ablation[task_name, "grpo", "per_response"]
    now = pooled(runs)
    print(f"{TASKS[task_name]}: wrong responses under GRPO with 1/|o|, {len(runs)} seeds")
    display(by_rate(now, base_problems(runs[0])).round(2))
    for name, frame in {"base": of_base if task_name == "countdown" else None, "GRPO": now}.items():
        if frame is not None:
            pairs = paired_lengths(frame)
            mean, low, high = mean_interval(pairs.tolist())
            print(
                f"{name}: on {len(pairs)} problems with right and wrong responses, wrong ones are longer by "
                f"{mean:+.1f} tokens [{low:+.1f}, {high:+.1f}]."
            )

# %% [markdown]
# *What to look at.* The columns `base` and `now` compare lengths on the same problems, and `share` says where the
# wrong responses come from. If the column `base` hardly differs from row to row, selection *of problems* cannot
# explain much.

# %%
for task_name in present:
    runs = ablation[task_name, "grpo", "per_response"]
    rows = by_rate(pooled(runs), base_problems(runs[0]))
    grew = rows["now"] - rows["base"]
    say(
        f"{TASKS[task_name]}: between rows the base's wrong responses differ by at most "
        f"{rows['base'].max() - rows['base'].min():.1f} tokens; within rows they grow by {grew.min():.1f} to "
        f"{grew.max():.1f} tokens."
    )

# %% [markdown]
# So on fixed problems the mean length of wrong responses grew too, at every difficulty.
#
# There is another selection, within a problem. The teacher of the word problems sometimes leaves out a step, and so
# does the base. Such a response is short and wrong. Training removes these first, so the wrong responses that remain
# are the long ones, and their mean rises although none has become longer. The table cannot show it. But a step is a
# line, so the length of a recorded response says whether one is missing:

# %%
from rlino_lib.analysis.growth import left_out, of_kind

for n in NORMALISERS:
    runs = ablation["word_problems", "grpo", n]
    of_problems = base_problems(runs[0])
    wrong = of_kind(pooled(runs), "wrong")
    short = left_out(wrong, of_problems)
    say(
        f"Word problems, {NORMALISERS[n]}: a step is left out in "
        f"{100 * of_problems['short'].sum() / of_problems['wrong'].sum():.0f} % of the base's wrong responses "
        f"({of_problems['tokens_short'].sum() / of_problems['short'].sum():.1f} tokens each) and in "
        f"{100 * short.mean():.0f} % of those after GRPO ({wrong.loc[short, 'length'].mean():.1f} tokens; the others "
        f"{wrong.loc[~short, 'length'].mean():.1f})."
    )

# %% [markdown]
# ## The effect at each cap
#
# Next, the effect of $1/|o|$ at each cap, seed by seed, with growth measured from each run's own evaluation of the
# base. No claim about this was registered beforehand, and at the caps other than 112 the last two seeds were added
# after the first three had been read. Read the intervals as a description, not as a test.

# %%
rows = []
for run in [*ablation["countdown", "grpo", "per_response"], *ablation["countdown", "grpo", "constant"],
            *list_runs("length-cap")]:  # fmt: skip
    start = run.metrics.dropna(subset="eval/accuracy").iloc[0]["eval/length/incorrect"]
    key = {"cap": run.config["max_new_tokens"], "normaliser": NORMALISERS[normaliser_of(run)], "seed": run.seed}
    rows.append({**key, **means_of(run), "wrong at the start": start})
by_cap = pd.DataFrame(rows)
rows = {}
left = []
for cap, part in by_cap.groupby("cap") if len(by_cap) else ():
    sides = (part[part["normaliser"] == NORMALISERS[n]].set_index("seed") for n in ("per_response", "constant"))
    one, other = common(*sides)
    if len(one):
        gains = [side["wrong"] - side["wrong at the start"] for side in (one, other)]
        left.append(f"{100 * gains[1].mean() / gains[0].mean():.0f} % at cap {cap}")
        less = [in_brackets(one[c] - other[c]) for c in ("wrong", "wrong, not truncated", "right, %")]
        rows[cap] = [len(one), *map(in_brackets, gains), *less]
heads = ["seeds", "growth with 1/|o|", "with a constant",
         "1/|o| less constant: wrong", "wrong, not truncated", "right, points"]  # fmt: skip
display(pd.DataFrame.from_dict(rows, "index", columns=heads).rename_axis("cap"))
say(f"Of the growth with 1/|o|, left with a constant: {', '.join(left)}.")

# %% [markdown]
# *What to look at.* At any cap, is most of the growth gone with a constant? No: at every cap most of it is left. Does
# the difference grow with the room that the cap leaves? From cap 112 on its mean does, but only at cap 152 does its
# interval exclude 0. A small cap can hide an effect of the normaliser, because both runs hit it.
#
# ## A decomposition that adds up
#
# How much of the growth is which? Put something in between: what the *base* would have written on the problems that
# are wrong *now*, each counted as often as it is wrong now. Let $M$ be the mean length of these responses. A share $S$
# of them is truncated at the cap $C$, a share $U$ leaves a step out and has mean length $V$, and the rest has mean
# length $W$. Let $s$, $u$, $v$ and $w$ be the same for what is written now. Then
#
# $$
# \underbrace{\vphantom{(}M - M_0}_{\text{selection of problems}} \;+\;
# \underbrace{(u - U)(V - W)}_{\text{fewer leave a step out}} \;+\;
# \underbrace{(s - S)(C - W)}_{\text{more are truncated}} \;+\;
# \underbrace{(1 - s - u)(w - W) + u(v - V)}_{\text{longer, of the same kind}} \;=\; \text{growth},
# $$
#
# since $M = SC + UV + (1-S-U)W$, and the same holds now. On Countdown no step can be left out, and the second part is
# 0. The normaliser is not a fifth part. Its share is the difference between the bars of two runs that differ in
# nothing else.

# %%
from rlino_lib.analysis.growth import Parts, parts_of
from rlino_lib.figures.length import parts_bars

parts = {}  # of each row of the ablation: the parts of its runs
for task_name in present:
    bars = {}
    worst = 0.0
    for method in ("grpo", "f_isft_posneg", "f_isft_pos"):
        for n in NORMALISERS:
            if runs := ablation[task_name, method, n]:
                own = parts[task_name, method, n] = [parts_of(run) for run in runs]
                worst = max(worst, *(abs(p.total - growth(r, "wrong")) for p, r in zip(own, runs, strict=True)))
                bars[f"{label(method)}, {NORMALISERS[n]}"] = Parts(*map(statistics.mean, zip(*own, strict=True)))
    display(parts_bars(bars, f"wrong responses, {TASKS[task_name]}"))
    print(f"largest gap between a sum of parts and the growth it should be, tokens: {worst:.0e}")

# %% [markdown]
# *What to look at.* In each group of three bars, the first is what the paper's figure shows. Whatever the third bar
# still has is there without $1/|o|$. "Longer, of the same kind" is what no other part explains. The same for GRPO in
# numbers, seed by seed:

# %%
from rlino_lib.analysis.statistics import final_accuracy

sums = {}
for task_name in present:
    sides = []
    for n in ("per_response", "constant"):
        ends_of = {}
        for run, own in zip(ablation[task_name, "grpo", n], parts[task_name, "grpo", n], strict=True):
            ends_of[run.seed] = {
                "wrong ones: selection of problems": own.selection,
                "wrong ones: fewer leave a step out": own.within,
                "wrong ones: more are truncated": own.truncated,
                "wrong ones: longer, of the same kind": own.longer,
                "wrong ones: growth": own.total,
                "right ones: growth": growth(run, "right"),
                "right, %": final_accuracy(run),
            }
        sides.append(pd.DataFrame.from_dict(ends_of, "index"))
    one, other = sums[task_name] = common(*sides)
    print(f"{TASKS[task_name]}, GRPO, {len(one)} seeds of each; tokens, or points in the last row")
    rows = {}
    for name in one:
        sign = "" if "%" in name else "+"
        cells = (one[name], sign), (other[name], sign), (one[name] - other[name], "+")
        rows[name] = [in_brackets(*cell) for cell in cells]
    display(pd.DataFrame.from_dict(rows, "index", columns=["with 1/|o|", "with a constant", "what 1/|o| does"]))

# %% [markdown]
# *What to look at.* The last column, and first its last row. Where $1/|o|$ changes how much is learnt, the other
# rows compare models that are not equally good.

# %%
for task_name, (one, _) in sums.items():
    listed = ", ".join(
        f"{name.partition(': ')[2]} {100 * one[name].mean() / one['wrong ones: growth'].mean():.0f} %"
        for name in one if name.startswith("wrong") and "growth" not in name
    )  # fmt: skip
    say(f"{TASKS[task_name]}, shares of the growth of wrong responses with 1/|o|: {listed}.")

# %% [markdown]
# On the word problems most growth is selection, of problems and within them, and nearly the same with a constant: on
# this task the normaliser has next to nothing left to do. On Countdown nearly all growth of wrong responses is that
# more of them are truncated, and a constant leaves most of it. But with a constant the model is also worse. On
# Countdown more success comes with more attempts. So part of this difference may be there only because the model with
# $1/|o|$ is the better one.
#
# ### Is it the learning rate?
#
# A constant may look worse only because its rate was chosen under $1/|o|$. So GRPO with a constant gets the sweep of
# chapter 07 too, on Countdown, with two seeds. The rule was fixed before the runs: the best rate is the one with the
# highest mean on the validation problems after 100 steps. If it differs from the rate used above, the ablation is
# run again at it.

# %%
from rlino_lib.analysis.statistics import curve

swept = list_runs("length-rates")
with_it = [r for r in list_runs("head-to-head-lr") if (r.method, r.config["task"]) == ("grpo", "countdown")]
rows = [
    (NORMALISERS[normaliser_of(r)], r.config["lr"], r.seed, curve(r)["accuracy"].iloc[-1]) for r in [*with_it, *swept]
]
rates = pd.DataFrame(rows, columns=["normaliser", "rate", "seed", "right, %"])
if swept:
    table = rates.pivot(index=["normaliser", "seed"], columns="rate", values="right, %")
    display(table.rename(columns="{:g}".format).round(1))
    own = rates[rates["normaliser"] == NORMALISERS["constant"]].groupby("rate")["right, %"].mean()
    used = {run.config["lr"] for run in ablation["countdown", "grpo", "constant"]}
    say(
        f"With a constant the best rate is {own.idxmax():g} ({own.max():.1f} % right, the next best "
        f"{own.nlargest(2).min():.1f} %), and the runs above used {', '.join(f'{rate:g}' for rate in used)}: "
        + ("the same. The gap in accuracy is not one of the learning rate, as far as factors of two tell."
           if used == {own.idxmax()} else "another, so that the comparison above is not at its best.")
    )  # fmt: skip
else:
    print("No runs of this sweep are recorded yet.")

# %% [markdown]
# ## Remedies
#
# Five remedies, all on GRPO without KL: Dr. GRPO (no $1/|o|$, no standard deviation, at half the learning rate,
# which suits it: chapter 07); DAPO's soft penalty over the last fifth below the cap; a cost of a quarter of a reward
# at the cap's length and in proportion below it; leaving truncated responses out of the update; and training on the
# four shortest of each eight.

# %%
remedies = {"1/|o|, nothing else": [r for r in list_runs("head-to-head") if r.method == "grpo_no_kl"
                                     and r.config["task"] == "countdown" and r.seed in (5, 6, 7)]}  # fmt: skip
names = {"dr_grpo": "Dr. GRPO", "overlong": "soft penalty near the cap", "length_cost": "cost of length",
         "whole": "without truncated responses", "shortest": "the four shortest"}  # fmt: skip
for run in list_runs("length-remedies"):
    remedies.setdefault(names[run.path.name.rsplit("-", 1)[0]], []).append(run)
rows = {}
for name, runs in remedies.items():
    if kept := [means_of(run) for run in runs if (run.path / "responses.csv.gz").exists()]:
        rows[name] = kept
if rows:
    table = pd.DataFrame({name: pd.DataFrame(means).mean() for name, means in rows.items()}).T
    table = table[["right, %", "length", "right", "wrong", "truncated, %", "attempts"]]
    table = table.rename(columns={"right": "right ones", "wrong": "wrong ones"})
    table.insert(0, "seeds", [len(means) for means in rows.values()])
    display(table.round(1).astype({"seeds": int}))
else:
    print("No runs of the remedies are recorded yet.")

# %% [markdown]
# *What to look at.* Accuracy against length, and the attempts beside them. A remedy that shortens and keeps accuracy
# would have removed length that was worth nothing. If one loses accuracy, has it lost attempts? The two that shorten
# most have. Dr. GRPO and the four shortest have not: they lose accuracy for another reason.

# %%
if rows:
    for name, row in table.iloc[1:].iterrows():
        less = row - table.iloc[0]
        say(f"{name}: {less['right, %']:+.1f} points and {less['length']:+.1f} tokens against no remedy.")

# %% [markdown]
# No remedy removes length and keeps accuracy. The two that shorten responses lose the most.
#
# ## The ledger

# %%
from rlino_lib.claims.ledger import Records

records = Records(RUNS, ledger)
judged = {c.id: judge(c, records) for c in ledger}
stale = [c.id for c in ledger if c.verdict != judged[c.id].verdict]
if stale:
    say(f"The stored verdicts of {', '.join(stale)} are not those of the records as they are now: see `rlino claims`.")
rows = [(c.id, c.statement, judged[c.id].verdict, judged[c.id].effect, c.standing or "–") for c in ledger]
pd.DataFrame(rows, columns=["", "claim", "verdict", "what was found", "standing"]).set_index("")

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
# This is not the only decomposition: with $(s - S)(C - w)$ and $(1 - S)(w - W)$ the sum is the same. A report has to
# say which of the two it uses.
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
# - In expectation $1/|o|$ does what the paper says: wrong responses drift longer and right ones shorter, as far as
#   the policy can tell the two apart. A weight that does not depend on the length of its response gives no drift.
# - A mean length of wrong responses moves for at least four reasons, and the normaliser is one of them. Lengths under
#   several caps, fixed problems and success by attempt help to tell them apart; a mean without truncated responses
#   still depends on the cap. Only a run without the normaliser shows what the normaliser does.
#
# As computed above:

# %%
for task_name, (one, other) in sums.items():
    grew, without = (side["wrong ones: growth"] for side in (one, other))
    names = ("selection of problems", "fewer leave a step out", "more are truncated", "longer, of the same kind")
    shares = "; ".join(f"{name} {in_brackets(one['wrong ones: ' + name])}" for name in names)
    say(
        f"{TASKS[task_name]}: under GRPO wrong responses grow by {in_brackets(grew)} tokens with 1/|o| and by "
        f"{in_brackets(without)} with a constant; the difference, which is what 1/|o| around gain and KL causes, is "
        f"{in_brackets(grew - without)}. Of the growth with 1/|o|: {shares}. "
        f"What 1/|o| does to accuracy: {in_brackets(one['right, %'] - other['right, %'])} points."
    )
tally = pd.Series([evidence.verdict for evidence in judged.values()]).value_counts()
say(f"Of {len(ledger)} claims on length: {', '.join(f'{verdict} {n}' for verdict, n in tally.items())}.")

# %% [markdown]
# Open:
#
# - How long the truncated responses would be: the one conclusion that is still under revision.
# - Whether the proportions are the same in models that can tell better whether they are wrong (chapter 12).
# - Whether credit that knows which tokens mattered makes responses shorter (chapter 10).
