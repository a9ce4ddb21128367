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
# # 09b · What the tokens mean
#
# **Do the tokens of a thought mean what they say, and does training change that?**
#
# **The answer.** In part. Answers copy the operations of the last attempt, and do not react to a last result that is
# false by one. After training the cap cuts most thoughts, and an answer to a cut thought copies seldom. Right
# processes go with right answers then, and yet fewer processes are right. At equal numbers of attempts right and
# wrong thoughts have one density and one branching. In the ledger: `follows-last` holds, `follows-as-before` does not
# hold here, `process-pays` holds, `facts-over-plans` is undecided, `equal-attempts` holds, `as-the-cold-base` does
# not hold here, `thinking-pays` holds.
#
# A model that thinks before it answers writes reasons. Nothing in its training says that the reasons have to be true,
# or that the answer has to follow from them: the reward looks at the answer alone. In Countdown every equation and
# every verdict can be checked by a program, and a thought can be edited so that one knows what should follow.
#
# This chapter looks inside the responses of chapter 09's runs. You need chapters 03, 04 and 09.

# %%
import numpy as np
import pandas as pd
from IPython.display import display

from rlino_lib.analysis import chains
from rlino_lib.analysis.tables import clean, mean_interval
from rlino_lib.claims import sharpening
from rlino_lib.claims.ledger import RECORDED
from rlino_lib.figures import chains as figures
from rlino_lib.figures.recorded import say
from rlino_lib.figures.style import intervals, label, look, new_figure, shared_legend, style
from rlino_lib.records.chains import read_chains
from rlino_lib.tasks import Countdown

style()
pd.set_option("display.max_colwidth", None)

# %% [markdown]
# ## A thought that can be checked
#
# Two words have to be kept apart. A **process** is right if every equation holds, takes only numbers that are left,
# and every verdict is true. It says nothing of the answer: an honest search that fails has a right process. A *chain*
# is right if every equation and verdict is true, the answer is right, and the answer is an attempt that the thought
# calls `yes`. Five responses by hand:

# %% tags=["nbval-check-output"]
from rlino_lib.tasks.countdown.trace import chain_is_right, countdown_problem, process_is_right

game = countdown_problem({"nums": [8, 3, 2], "target": 22})
by_hand = {
    "right throughout": " 8 * 3 = 24, 24 - 2 = 22 yes </think> <answer> 8 * 3 - 2 </answer>",
    "a false equation": " 8 * 3 = 24, 24 - 2 = 21 no </think> <answer> 8 * 3 - 2 </answer>",
    "a false verdict": " 8 * 3 = 24, 24 - 2 = 22 no </think> <answer> 8 * 3 - 2 </answer>",
    "a right guess": " 8 + 3 = 11, 11 + 2 = 13 no </think> <answer> 8 * 3 - 2 </answer>",
    "an honest failure": " 8 + 3 = 11, 11 + 2 = 13 no </think> <answer> 8 + 3 + 2 </answer>",
}
checks = (lambda p, text: Countdown().grade(p, text).correct, process_is_right, chain_is_right)
verdicts = {name: [check(game, text) for check in checks] for name, text in by_hand.items()}
pd.DataFrame.from_dict(verdicts, "index", columns=["answer right", "process right", "chain right"])

# %% [markdown]
# ### What is recorded
#
# One command measures all of this chapter for one policy: 32 responses at temperature 1 to each of 128 validation
# problems with four numbers, at most 160 tokens each, and what follows from them.
#
# ```sh
# rlino chains --out data/base/countdown/four/chains
# rlino chains --model data/runs/sharpening/grpo_no_kl-s0/model --out data/runs/sharpening/grpo_no_kl-s0/chains
# ```
#
# It was run on the base and on the five seeds of GRPO without KL that chapter 09 compares. The claims and their
# thresholds were in the ledger before. The trained weights are not shipped, so the live cells use the base.

# %%
runs = sorted((r for r in RECORDED.runs("sharpening") if r.method == "grpo_no_kl"), key=lambda run: run.seed)
before = read_chains(sharpening.BASE / "chains")
after = [read_chains(run.path / "chains") for run in runs]
POLICIES = {"base": [before], "grpo_no_kl": after}


def closed(tables):
    """The share of thoughts with an attempt that end before the cap cuts them."""
    unedited = tables["forced"].query("edit == 'none'")
    return unedited["closed"].sum() / unedited["has_last"].sum()


glance = {"base": chains.totals(before) | {"closed": closed(before)}}
glance |= {f"GRPO, seed {r.seed}": chains.totals(t) | {"closed": closed(t)} for r, t in zip(runs, after, strict=True)}
columns = ["accuracy", "mean_length", "closed", "process_right", "follows_last", "temperature"]
clean(pd.DataFrame(glance).T[columns].astype(float), 3)

# %% [markdown]
# *What to look at.* `accuracy`, `mean_length` and `closed`, the share of thoughts that the cap of 160 tokens leaves
# whole. The other columns are explained where they are used.
#
# *What is seen.* Training makes responses several times as often right, and much longer. So the cap cuts most
# thoughts.
#
# ## Right for the right reasons
#
# pass@k counts a right answer whatever its reasons. *CoT-pass@k* ([2506.14245](https://arxiv.org/abs/2506.14245))
# asks for a right chain too. By this measure a trained model is reported ahead of its base at every k on contest
# problems. Here are both, for the test problems of chapter 09; D(k) is trained less base, in points.

# %%
from rlino_lib.analysis.pass_at_k import estimates, paired_difference

evaluated = {name: sharpening.counts(sharpening.BASE / "t1") for name in ["base"]}
evaluated |= {run.seed: sharpening.counts(run.path / "t1") for run in runs}
for column, words in {"c": "right answers", "cc": "right chains"}.items():
    first, *others = (frame.assign(c=frame[column]) for frame in evaluated.values())
    gaps = paired_difference(others, first, [1, 16, 256]).set_index("k")[["difference", "low", "high"]] * 100
    say(f"{words}: " + "; ".join("D({}) {:+.1f} [{:+.1f}, {:+.1f}]".format(k, *row) for k, row in gaps.T.items()))
pure = [frame["cc"].sum() / frame["c"].sum() for frame in evaluated.values()]
say(f"Right answers that have right chains: {pure[0]:.0%} of the base's, {min(pure[1:]):.0%} to {max(pure[1:]):.0%} of "
    "GRPO's.")  # fmt: skip

# %% [markdown]
# *What is seen.* With right chains required, GRPO is again ahead in one sample, and no gain appears in 256. The loss
# there is smaller than by answers alone. The difference of the two losses is not tested, and over seeds the interval
# of the stricter one includes 0 (chapter 09). Nor is an answer without a right chain always a guess: one false
# equation anywhere suffices.
#
# ### Does the reward pay for a right process?
#
# GRPO never sees whether a process is right. It can still teach right processes, if these lead to right answers more
# often. Let $C$ say that a process is right, $p_c$ be the share of right ones in a group, and $\alpha = \mathrm E[r
# \mid C]$ and $\beta = \mathrm E[r \mid \neg C]$ the mean rewards of both kinds. The group's mean is $\bar r =
# p_c\alpha + (1-p_c)\beta$. Take it off, divide by the standard deviation $\sigma$, and
#
# $$ \mathrm E[A \mid C] = \frac{(1-p_c)(\alpha-\beta)}{\sigma}, \qquad
# \mathrm E[A \mid \neg C] = \frac{-p_c(\alpha-\beta)}{\sigma} . $$
#
# The means are over one group, which needs both kinds and unequal rewards ($0 < p_c < 1$, $\sigma > 0$). That is the
# theorem of the same paper, here for finite groups: right processes gain and wrong ones lose if, and only if,
# $\alpha > \beta$. The sign is also that of a covariance, since $\mathrm{Cov}(C, r) = p_c(1-p_c)(\alpha-\beta)$. So
# the theorem is two lines of algebra, and the content is its *premise*. Held against live rollouts of the base:

# %%
from rlino_lib.evaluation.graded import sample_graded
from rlino_lib.methods.advantages import advantages
from rlino_lib.policy.models import load_policy

TASK = Countdown(n_numbers=4, new_targets=True)
base = load_policy()
problems = TASK.problems("train", 48)
live = sample_graded(base, TASK, problems, 8, seed=3, max_new_tokens=160)
each = [problem for problem in problems for _ in range(8)]
rollouts = pd.DataFrame({"group": np.repeat(np.arange(48), 8), "reward": live.rewards})
rollouts["chain_right"] = [process_is_right(*pair) for pair in zip(each, live.texts, strict=True)]
rollouts["advantage"] = advantages(live.rewards.double(), 8)
by_formula = chains.chain_advantages(rollouts)
for side, right in {"right": True, "wrong": False}.items():
    mean = rollouts[rollouts["chain_right"] == right].groupby("group")["advantage"].mean()
    gap = (by_formula[side].dropna() - mean).abs().max()
    say(f"Processes that are {side}: mean advantage {mean.mean():+.4f} over {len(mean)} groups; the formula differs "
        f"by {gap:.0e} at most.")  # fmt: skip
    assert gap < 1e-12

# %% [markdown]
# Now the premise. There is a trap in it. Pooled over problems, right processes can go with right answers because easy
# problems have more of both, and an advantage never compares two problems. So the covariance has to be taken *within*
# each problem. From the recorded counts, with the 32 responses to a problem as one group:


# %%
def as_rollouts(process):
    """A row for each response that the counts of a table are of."""
    both, one, other = (process[name] for name in ("both", "process", "correct"))
    kinds = {(1, 1): both, (1, 0): one - both, (0, 1): other - both, (0, 0): process["n"] - one - other + both}
    rows = {"group": np.concatenate([np.repeat(process["problem"], count) for count in kinds.values()])}
    flags = np.repeat(list(kinds), [count.sum() for count in kinds.values()], axis=0)
    return pd.DataFrame(rows).assign(chain_right=flags[:, 0], reward=flags[:, 1])


premise, marks = {}, []
for name, measured in POLICIES.items():
    rows = pd.concat([as_rollouts(t["process"]).assign(seed=seed) for seed, t in enumerate(measured)])
    earned = chains.chain_advantages(rows, ["seed", "group"])
    pooled = rows.groupby("chain_right")["reward"].mean()
    share = {"right": earned["p_c"], "wrong": 1 - earned["p_c"]}
    paid = {f"E[A | {side}]": (earned[side] * w).sum() / w.sum() for side, w in share.items()}
    within = pd.concat([chains.covariances(t["process"]) for t in measured], axis=1)
    row = chains.mean_row(within.mean(axis=1))
    premise[label(name)] = {"p_c": rows["chain_right"].mean(), "α pooled": pooled[1], "β pooled": pooled[0], **paid}
    premise[label(name)] |= {"covariance": row["mean"], "low": row["low"], "high": row["high"]}
    for seed, values in enumerate(within.T.to_numpy()):
        row = chains.mean_row(pd.Series(values))
        words = "base" if name == "base" else f"GRPO, seed {seed}"
        marks.append({"name": words, "kind": name, "value": row["mean"], **row})
display(clean(pd.DataFrame(premise).T, 4))

# %% alt="Dot plot with a row for the base and for each seed of GRPO: the mean covariance of a right process and a right answer within problems, with its interval over problems."
figure, axes = new_figure(size=(7, 2.8))
intervals(axes[0, 0], pd.DataFrame(marks), {name: look(name) for name in POLICIES})
axes[0, 0].set_xlabel("covariance of right process and right answer, 95 % over problems")
figure

# %% [markdown]
# *What to look at.* Is a mark on the right of 0, with its whole bar? (A covariance cannot exceed the share of right
# answers. So how far to the right says little.)

# %%
above = sum(row["low"] > 0 for row in marks[1:])
rows = pd.DataFrame(premise).T
say(f"After GRPO the covariance lies above 0, with its interval, in {above} of {len(after)} seeds; that of the base is "
    f"{rows['covariance'].iloc[0]:+.4f} [{rows['low'].iloc[0]:+.4f}, {rows['high'].iloc[0]:+.4f}].")  # fmt: skip
p_base, p_grpo = rows["p_c"]
lengths = {name: np.mean([chains.totals(t)["mean_length"] for t in measured]) for name, measured in POLICIES.items()}
as_long = p_base ** (lengths["grpo_no_kl"] / lengths["base"])
say(f"Processes are right in {p_base:.0%} of the base's responses and in {p_grpo:.0%} of GRPO's. With as many mistakes "
    f"a token as in the base, responses of GRPO's length would be right in {as_long:.0%}.")  # fmt: skip

# %% [markdown]
# *What is seen.* In the policy at the end of training, on problems that it did not train on, the premise holds:
# within a problem, right processes go with right answers. In the base, where training began, it hardly does. And yet
# fewer processes are right than before training. There is no contradiction. The theorem compares two kinds of
# responses in one group. It does not say where a policy moves, because other things move with an update. Here
# responses became longer. If mistakes came at a constant rate a token, that alone would explain most of the fall.
# That they do was not tested.
#
# Nor is a covariance a cause. A thought that runs into the cap has no answer and earns nothing. That alone makes
# short responses right in process *and* in answer more often. The premise can hold without a right equation helping
# anybody.
#
# ## Does the answer follow the thought?
#
# Lanham et al. ([2307.13702](https://arxiv.org/abs/2307.13702)) cut thoughts short and put mistakes into them. If the
# answer stays the same, it may not have come from the thought. Here more can be asked. An answer is an expression,
# and so is each attempt. So an answer can be compared with what the *edited* thought says. The thought is edited and
# closed, and the policy writes the answer greedily. One response of the base, live:

# %%
from rlino_lib.evaluation.interventions import forced_answers

texts = live.texts[::8]
forced = forced_answers(base, TASK, problems, texts)
copied = forced.query("edit == 'none' and follows_last")["response"]
example = next(i for i in copied if texts[i].count(" no") == 2 and "</think>" in texts[i])
say(f"Numbers {problems[example].data['nums']}, target {problems[example].data['target']}.")
shown = forced[forced["response"] == example].set_index("edit")[["thought", "answer", "follows_last", "correct"]]
shown.assign(thought=shown["thought"].str.strip().str.replace("\n", " ⏎ "))

# %% [markdown]
# Read the row `operation`: the last step is a true equation of another expression. An answer that copies the last
# attempt has to change with it. Read the row `result`: the last result is false by 1. An answer that *calculates*
# would change or be withdrawn. One that copies does not care. Now all measured responses, two to each problem:

# %% alt="Three panels of dots by edit, of the base and of five seeds of GRPO: how often the answer is the edited thought's last attempt, the same after whole thoughts, and how often the answer is right."
MEASURES = ["follows_last", "correct", "follows_closed"]
edits = pd.concat(
    chains.over_problems(chains.shares(tables["forced"]), MEASURES, "edit").assign(method=name, seed=seed)
    for name, measured in POLICIES.items()
    for seed, tables in enumerate(measured)
)
figures.edits_figure(edits)

# %% [markdown]
# *What to look at.* On the left, compare rows 2 to 4 with the first: an edit that the answer follows leaves the mark
# in its place. On the right, see whether a false last result costs anything. (Cutting the last attempt needs a
# thought with two, which more of GRPO's have.)

# %%
means = 100 * edits.groupby(["method", "measure", "edit"])["mean"].mean()
for name in POLICIES:
    last, whole = means[name, "follows_last"], means[name, "follows_closed"]
    lost = means[name, "correct", "result"] - means[name, "correct", "none"]
    for words, row in {"all thoughts": last, "whole thoughts": whole}.items():
        say(f"{label(name)}, {words}: the answer is the last attempt in {row['none']:.0f} % (unedited), "
            f"{row['operation']:.0f} % (last operation changed), {row['verdicts']:.0f} % (verdicts flipped), "
            f"{row['swapped']:.0f} % (another problem's thought).")  # fmt: skip
    say(f"{label(name)}: a false last result moves accuracy by {lost:+.1f} points.")

# %% [markdown]
# *What is seen.* Another operation in the last step is followed as often as the policy's own, and costs most right
# answers, after training nearly all. So the answer follows the thought. A last result that is false by 1 changes
# neither answer nor accuracy, while the verdict behind it still stands. So it is not checked. Flipped verdicts matter,
# and more after training than before. Another problem's thought is almost never copied, and nothing is right after it.
# Over all thoughts GRPO's answers are the last attempt less often than the base's. After whole thoughts they are not
# less often.
#
# ### A limit that is not small
#
# Answers are forced after *every* thought, also after one that the cap has cut. Such a thought often ends within an
# attempt, which no answer can copy. So the left panel mixes how often a policy copies with how often it was cut. The
# middle panel does not. But it has few of GRPO's thoughts, and a selected kind: a thought that ends has often found
# something.
#
# ## Which skill is missing?
#
# *Beyond Accuracy* ([2506.04723](https://arxiv.org/abs/2506.04723)) gives models parts of a solution, to see which
# part they lack. There plans made the base worse, and facts helped the trained model. Here a hint is how the response
# begins: a first number and its operator (the plan), the whole first equation (the fact), or half of all equations.
# All are of one solution, picked at random.

# %% alt="Dot plot: points gained by three hints over no hint, of the base and of GRPO, with intervals over problems."
gains = []
for name, measured in POLICIES.items():
    hints = chains.shares(pd.concat(tables["hints"] for tables in measured))
    gains.append(chains.against(hints, "c", "hint", "none").assign(method=name))
    unaided = 100 * hints[hints["hint"] == "none"]["c"].mean()
    fact = 100 * chains.against(hints, "c", "hint", "plan").set_index("hint").loc["fact", ["mean", "low", "high"]]
    say(f"{label(name)}: {unaided:.1f} % right without a hint; fact less plan "
        "{:+.1f} points [{:+.1f}, {:+.1f}].".format(*fact))  # fmt: skip
gains = pd.concat(gains)
figures.hints_figure(gains)

# %% [markdown]
# *What to look at.* In each row, how far apart do the two marks stand? A hint may gain more after training because it
# is used better, or because the policy goes on better from anywhere. The figure does not tell these apart.
#
# *What is seen.* Half of the equations, rounded up, helps most by far, before and after training. That is two of
# three: one operation is left, and a random choice would find it in one of four. A whole first equation helps a
# little more than its operator alone. Whether training adds to that difference is `facts-over-plans`, which stays
# undecided: above 0 over seeds, and not over problems.
#
# The third axis of that paper is whether a policy that fails as a whole can do the parts. Word problems have parts
# with known results. Their base is asked for the next equation, with all the right ones before it given:

# %%
from rlino_lib.evaluation.skills import sub_problems
from rlino_lib.paths import base_of
from rlino_lib.tasks import get_task

stories = get_task("word_problems")
storyteller = load_policy(base_of("word_problems"))
parts = sub_problems(storyteller, stories, stories.problems("validation", 64), 8, seed=1)
whole, steps = 100 * parts[["accuracy", "all_steps"]].mean()
gap = chains.mean_row(100 * (parts["all_steps"] - parts["accuracy"]))
say(f"Right as a whole {whole:.1f} %; every step right, given those before, {steps:.1f} %; difference "
    f"{gap['mean']:+.1f} points [{gap['low']:+.1f}, {gap['high']:+.1f}], {len(parts)} problems.")  # fmt: skip

# %% [markdown]
# *What is seen.* No difference is found, and hardly any could be. By the chain rule the product of the chances of each
# step, given those before, is about the chance to write all of them in one go. Parts asked as questions of their own
# could tell more. The second number is a lower bound: a right solution in another order counts as wrong in its parts.
#
# ## The shape of a thought
#
# *Mapping the Minds* ([2505.13890](https://arxiv.org/abs/2505.13890)) makes a graph of a thought: nodes are steps,
# and an edge says that one step uses another. Density, branching and convergence are reported to be higher in right
# answers. There, other models find the steps and the edges. Here a node is an equation, and an edge is the use of its
# result. A thought by hand:

# %% tags=["nbval-check-output"]
from rlino_lib.analysis.trace_graphs import graph_metrics, matched_gaps, trace_graph
from rlino_lib.tasks.countdown.trace import read_search

search = read_search(game, " 8 * 3 = 24, 24 + 2 = 26 no\n 3 * 8 = 24, 24 - 2 = 22 yes </think>")
nodes, edges = trace_graph(search)
print("nodes:", ["{} {} {} = {}".format(*node) for node in nodes], "edges:", sorted(edges))
both_ways = edges | {(end, start) for start, end in edges}
pd.DataFrame({"forward": graph_metrics(len(nodes), edges), "each edge mirrored": graph_metrics(len(nodes), both_ways)})

# %% [markdown]
# $8 \cdot 3$ is one node, and two attempts go on from it: it branches. The second column is a trap. If each edge is
# counted in both directions, as in code that was released with the paper, branching and convergence become one
# number.
#
# There is a second trap. A longer thought has more nodes, and density divides by their square. A right thought stops
# at its hit, so it is shorter. So right and wrong thoughts are also compared at *equal numbers of attempts*, within a
# problem:

# %% alt="Dot plot: density, branching and convergence of right less wrong thoughts, over all thoughts and at equal numbers of attempts, of the base and of GRPO, with intervals over problems."
marks = []
for measure in ("density", "branching", "convergence"):
    for words, within in {"all": (), "at equal attempts": ("attempts",)}.items():
        for name, measured in POLICIES.items():
            gaps = pd.concat([matched_gaps(t["graphs"], measure, within) for t in measured], axis=1).mean(axis=1)
            row = chains.mean_row(gaps)
            marks.append({"name": f"{measure}, {words}", "kind": label(name), "value": row["mean"], **row})
shapes = pd.DataFrame(marks)
figure, axes = new_figure(size=(7.4, 3.8))
intervals(axes[0, 0], shapes, {label(name): look(name) for name in POLICIES})
axes[0, 0].set_xlabel("right less wrong thoughts")
shared_legend(figure, "bar: 95 % over problems")
figure

# %% [markdown]
# *What to look at.* How far does a mark move towards 0 when attempts are held equal?

# %%
for row in shapes.itertuples():
    say(f"{row.name}, {row.kind}: {row.value:+.3f} [{row.low:+.3f}, {row.high:+.3f}], from {row.problems} problems.")

# %% [markdown]
# *What is seen.* Over all thoughts GRPO's right ones are denser and branch less than its wrong ones, as shorter
# thoughts do. At equal attempts density and branching agree. Little else could be expected: an attempt is about three
# equations, so the number of attempts nearly fixes both. And most wrong thoughts have more attempts than any right one,
# and are not compared. Convergence is lower in right thoughts, against the report. At equal attempts that is left in
# the base, barely, and not in GRPO.
#
# ## Would the base have written it?
#
# If training only sharpens, trained responses should look like the base's own. Yue et al.
# ([2504.13837](https://arxiv.org/abs/2504.13837)) find them likely under the base, by the perplexities of two
# problems. But likelier than what? A policy that is merely more certain may also write what is likely. So one
# comparison is the base at a *lower temperature*. Which one? First look at what cooling does, live:

# %%
from rlino_lib.evaluation.under_base import responses_under, support

few = {"group_size": 8, "seed": 5, "max_new_tokens": 160}
cooled = {t: sample_graded(base, TASK, problems[:32], temperature=t, **few) for t in (1.0, 0.3, 0.1)}
scored = {t: responses_under(base, samples) for t, samples in cooled.items()}
rows = {
    f"T = {t}": {
        "% right": 100 * frame["correct"].mean(), "tokens": frame["tokens"].mean(),
        "log p per token": frame["logprob"].sum() / frame["tokens"].sum(),
        "log p per response": frame["logprob"].mean(),
    }
    for t, frame in scored.items()
}  # fmt: skip
clean(pd.DataFrame(rows).T, 3)

# %% [markdown]
# *What to look at.* The tokens, and the log-probability per response and per token.
#
# *What is seen.* Cooling makes responses *longer*, perhaps because after a failed attempt to try again is likelier than
# to give up. So a whole response becomes less likely. Per token hardly anything changes. The temperature is chosen at
# which the base is as *long* as the trained policy, and log-probabilities are compared per token. At low temperatures
# the length hardly changes, and the cap cuts it. So that temperature is known only roughly, and equal means need not be
# equal distributions.

# %% alt="Cumulative curves over problems of the log-probability per token under the base: the base's own responses at temperature 1, at the temperature of equal length, and GRPO's."
sides = [chains.shares(t["likelihood"]).pivot(index="problem", columns="side", values="logprob") for t in after]
matched = [side["base"] for side in sides if "base" in side]
values = {"base": chains.shares(before["likelihood"]).set_index("problem")["logprob"]}
if matched:
    values[figures.COLDER] = pd.concat(matched, axis=1).mean(axis=1)
values["grpo_no_kl"] = pd.concat([side["model"] for side in sides], axis=1).mean(axis=1)
display(figures.likelihood_figure(values))
temperatures = pd.DataFrame(glance).T["temperature"].iloc[1:].dropna().astype(float)
say(f"{len(temperatures)} of {len(after)} seeds have a temperature at which the base is as long"
    + (f": {temperatures.min():.2f} to {temperatures.max():.2f}." if len(temperatures) else "."))  # fmt: skip
for name in values:
    if name != "grpo_no_kl":
        row = chains.mean_row(values["grpo_no_kl"] - values[name])
        say(f"GRPO less the {'base at T 1' if name == 'base' else 'base as long'}: {row['mean']:+.3f} nats per token "
            f"[{row['low']:+.3f}, {row['high']:+.3f}].")  # fmt: skip

# %% [markdown]
# *What to look at.* Which of the two lines of the base does GRPO's line lie on?
#
# *What is seen.* On neither. Under the base, GRPO's tokens are less likely than tokens of the base at temperature 1,
# and also than those of the cooled base of equal length. By this measure GRPO is no cooled base. Which tokens make
# the difference, the average does not say.
#
# ### Support that is kept, and support that is lost
#
# *The Invisible Leash* ([2507.14843](https://arxiv.org/abs/2507.14843)) counts right completions with a probability
# above ε under the base and under the trained model: kept, lost, new. One control is worth adding. A base that is
# merely cooled loses nothing in principle. What does it lose by this count?

# %%
from rlino_lib.analysis.coverage import leash

under_base = pd.concat([scored[1.0], scored[0.1]])
under_cold = pd.concat([responses_under(base, cooled[t], temperature=0.1) for t in (1.0, 0.1)])
counted = pd.DataFrame({f"ε = {e:g}": support(under_base, under_cold, e) for e in (1e-3, 1e-6, 1e-9)}).T
counted.join(leash(counted)[["srr", "ndr"]].round(2)).rename(columns={"model_only": "cold_only"})

# %% [markdown]
# Here `srr` is what is kept as a share of the base's, and `ndr` what is new as a share of the cooled policy's.
#
# *What is seen.* By this count a cooled base "discovers" and "loses" completions, though it has the support of the
# base exactly. (They are few.) So counts of support at one ε say how much a policy is
# concentrated, and not what it can still do.
#
# One more measure needs no ε: how likely the *base's* right responses still are under the trained policy. Runs of
# GRPO without KL on three numbers recorded it:

# %%
thinking = [r for r in RECORDED.runs("head-to-head") if (r.method, r.config["task"]) == ("grpo_no_kl", "countdown")]
thinking = sorted(thinking, key=lambda run: run.seed)[:5]
for kind, words in {"correct": "right", "incorrect": "wrong"}.items():
    ends = [run.metrics[f"eval/base/{kind}"].dropna() for run in thinking]
    fell = [end.iloc[-1] - end.iloc[0] for end in ends]
    say(f"The base's own {words} responses: {np.mean(fell):+.1f} nats per response over training, by seed "
        f"{min(fell):+.1f} to {max(fell):+.1f}.")  # fmt: skip
apart = [run.metrics["eval/kl_base"].dropna().iloc[-1] for run in thinking]
say(f"KL from the base at the end: {np.mean(apart):.1f} nats per response.")

# %% [markdown]
# *What is seen.* What the base did wrong becomes far less likely. The *mean log-probability* of what it did right
# falls too, in every seed. Their total probability may still have risen, since a few can gain what many lose. So
# probability is not raised evenly over right responses. And a response of the trained policy is far likelier under
# itself than under the base: that is what the KL says.
#
# ## Thinking, or not
#
# *NoThinking* ([2504.09858](https://arxiv.org/abs/2504.09858)) fills in a thought of one sentence, which says that
# thinking is over, and lets a model answer. At equal tokens that is reported to beat thinking. *No-Thinking-RL*
# ([2503.16188](https://arxiv.org/abs/2503.16188)) also trains so. Here the thought is left out, on three numbers: the
# base both ways, and GRPO trained both ways, five seeds each.

# %% alt="Accuracy of one sample against its length in tokens, on three numbers: the base and GRPO, each with and without a thought."
from rlino_lib.evaluation.evaluate import evaluate
from rlino_lib.paths import DEFAULT_BASE

direct_runs = sorted(RECORDED.runs("direct"), key=lambda run: run.seed)
direct = [sharpening.counts(run.path / "t1") for run in direct_runs]
SHORT = Countdown(thinking=False)
thoughtless = evaluate(base, SHORT, SHORT.problems("test", 256), samples=16, max_new_tokens=32)
three = pd.read_json(f"{DEFAULT_BASE}/problems.jsonl", lines=True)
three = three[three["id"].isin(direct[0]["id"])]
last = [run.metrics.dropna(subset="eval/accuracy").iloc[-1] for run in thinking]
points = []
for words, frame in {"with a thought": three, "without": thoughtless}.items():
    row = chains.mean_row(frame["c"] / frame["n"])
    points.append({"name": "base", "tokens": frame["tokens"].sum() / frame["n"].sum(), "accuracy": row["mean"]})
    points[-1] |= {"low": row["low"], "high": row["high"], "note": words}
trained = {
    "with a thought": [(row["eval/accuracy"], row["eval/mean_length"]) for row in last],
    "without": [(frame["c"].sum() / frame["n"].sum(), frame["tokens"].sum() / frame["n"].sum()) for frame in direct],
}
for words, seeds in trained.items():
    (mean, low, high), tokens = mean_interval([right for right, _ in seeds]), np.mean([n for _, n in seeds])
    points.append({"name": "grpo_no_kl", "tokens": tokens, "accuracy": mean, "low": low, "high": high, "note": words})
figures.tokens_figure(pd.DataFrame(points), "bar: 95 %, of the base over problems, of GRPO over seeds")

# %% [markdown]
# One sample against one sample is unfair to the short answers. For the tokens of one thought, several of them can be
# had, and one right answer is enough:

# %%
rows = {}
for run, frame, end in zip(thinking, direct, last, strict=True):
    solved = chains.pass_at_budgets({"direct": frame}, [end["eval/mean_length"]])
    rows[f"seed {run.seed}"] = {
        "tokens of one thought": end["eval/mean_length"], "right with one thought, %": 100 * end["eval/accuracy"],
        "answers without, k": solved["k"].iloc[0], "pass@k without, %": 100 * solved["value"].mean(),
        "pass@1 without, %": 100 * (frame["c"] / frame["n"]).mean(),
        "pass@16 without, %": 100 * estimates(frame["n"], frame["c"], [16]).mean(),
    }  # fmt: skip
equal = pd.DataFrame(rows).T
display(clean(equal, 1))

# %% [markdown]
# *What is seen.* One thought solves a problem far more often than all the short answers that its tokens buy. To buy
# more does not close the gap: without a thought pass@16 is above pass@1 by up to a half, and far below one thought. The
# two arms are not alike in all: 64 prompts a step without a thought and 8 with one, and their bases start at different
# accuracies. The findings that one may skip the thought are on other models and tasks.
#
# ## The claims
#
# Seven claims stood in the ledger, with their thresholds, before any trained policy was measured in this way. A test
# has to hold over seeds *and* over problems (`thinking-pays`: over seeds alone), and Holm's correction is over all
# seven.

# %%
from rlino_lib.claims.judge import judge_all

judged = judge_all(evidence="chains.")
table = judged[["id", "statement", "found", "effect"]].set_axis(["", "claim", "verdict", "what was found"], axis=1)
table.set_index("")

# %% [markdown]
# **Your own model.** One command, and the tables of this chapter follow:
#
# ```sh
# rlino chains --model runs/mine/model --out runs/mine-chains
# ```
#
# ```python
# mine = read_chains("runs/mine-chains")
# chains.over_problems(chains.shares(mine["forced"]), ["follows_last", "correct"], "edit")
# ```
#
# ## Exercises
#
# **1. A mean advantage.** `my_mean_advantage(rewards, process_right)`: the mean advantage of GRPO over the responses of
# a group whose processes are right, with the standard deviation of a sample and nothing added to it. Both are lists of
# 0 and 1.

# %%
from checkers.chains import check_branching, check_mean_advantage


def my_mean_advantage(rewards, process_right): ...


_ = check_mean_advantage(my_mean_advantage)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_mean_advantage(rewards, process_right):
#     rewards, right = np.array(rewards), np.array(process_right, bool)
#     p, gap = right.mean(), rewards[right].mean() - rewards[~right].mean()
#     return (1 - p) * gap / rewards.std(ddof=1)
# ```
#
# The mean of `(rewards - rewards.mean()) / rewards.std(ddof=1)` over the right ones is the same number.
#
# </details>
#
# **2. The mirrored edge.** `my_branching(nodes, edges)`: the share of nodes whose result is used more than once, of a
# list of edges (from, to), each counted forward.


# %%
def my_branching(nodes, edges): ...


_ = check_branching(my_branching)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def my_branching(nodes, edges):
#     starts = [start for start, end in edges]
#     return sum(starts.count(node) > 1 for node in range(nodes)) / nodes
# ```
#
# </details>
#
# ## Summary
#
# - Rewards for answers favour right processes where, within a problem, these go with right answers. The formula is
#   algebra; the premise has to be measured, with a flag that does not ask for the answer. And even where it holds,
#   the share of right processes can fall.
# - To depend on a thought is not to check it. An edit whose effect is known in advance tells the two apart.
# - "Likely under the base" needs a control: the base itself, cooled.
#
# As judged above:

# %%
for row in judged.itertuples():
    say(f"{row.id}: {row.found}. {row.effect}.")

# %% [markdown]
# **Limits.** This is one small base, one method, and one task whose thoughts hold verdicts. The cap of 160 tokens
# cuts most of GRPO's thoughts. A base that is as long as GRPO samples almost greedily, and a policy still longer has
# no match; `as-the-cold-base` could then not be tested. `thinking-pays` uses the last evaluation of each run with a
# thought, one response to each problem.
