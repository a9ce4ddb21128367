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
# # 02 · Tasks with verifiers
#
# **What is rewarded, and how much of what is learnt is the grader's doing?**
#
# **The answer.** Whatever the grader accepts is rewarded, and nothing else is. Two graders can disagree about the
# same responses, by the points computed below, so an accuracy means little without its grader. And where the format
# is rewarded too, a group without a single right answer still has a gradient.
#
# Every method in this book gets its signal from one place: a program that reads a response and returns a number.
# Such a program is called a *verifier*, or a *grader*. The paper ([arXiv
# 2505.13697](https://arxiv.org/abs/2505.13697), "the paper" from here on) assumes that it returns 0 or 1, and only
# at the end:
#
# $$ r(q, o) \in \{0, 1\}, \qquad q = \text{the prompt},\quad o = (o_1, \dots, o_{|o|}) = \text{the whole response}. $$
#
# Nothing says which token was good. So a method can only learn what the grader pays for. Where the grader pays for
# something other than the task, the method learns that instead. This chapter
#
# 1. takes one task apart: its problems, its solver, and its split into training and test;
# 2. writes a grader in a few lines, breaks it, and compares it with the library's;
# 3. turns verdicts into rewards, and shows when a reward that is not 0 or 1 changes GRPO's gradient;
# 4. measures how far the choice of grader moves a reported accuracy, on responses sampled here.

# %%
import re

import numpy as np
import pandas as pd
import seaborn as sns
import torch

from rlino_lib.analysis.statistics import bootstrap_interval
from rlino_lib.figures.style import new_figure, style
from rlino_lib.methods.advantages import advantages
from rlino_lib.policy.sampling import sample
from rlino_lib.tasks import get_task
from rlino_lib.tasks.base import REWARD_SCHEMES
from rlino_lib.tasks.countdown import game
from rlino_lib.tasks.countdown.grade import grade_countdown
from rlino_lib.tasks.gsm8k.grade import grade_number

style()


# %% [markdown]
# Responses are text that nobody has checked, so no table here may treat them as HTML. pandas escapes every cell; the
# helper below only sets the text flush left and keeps formulas from being typeset.


# %%
from rlino_lib.widgets.tokens import Html


def table(frame: pd.DataFrame) -> Html:
    """A data frame as a table of escaped text, flush left."""
    with pd.option_context("display.max_colwidth", None):
        page = frame.to_html(index=False, justify="left")
    for cell in ("th", "td"):  # nothing that came from a response holds a bare "<"
        page = page.replace(f"<{cell}>", f'<{cell} style="text-align: left">')
    return Html(f'<div class="mathjax_ignore">{page}</div>')


# %% [markdown]
# ## 1 Countdown
#
# You are given a few numbers and a target. Combine the numbers with +, −, × and ÷ so that the result is the target,
# and use each number exactly once. A `Problem` holds what the grader needs. `prompt` turns it into the text that the
# model continues. `gold` is one solution, for people; the grader never looks at it, because a problem has many.

# %% tags=["nbval-check-output"]
task = get_task("countdown")
problem = task.problems("test", 1)[0]
print("id:    ", problem.id)
print("data:  ", problem.data)
print("prompt:", task.prompt(problem))
print("gold:  ", problem.gold)

# %% [markdown]
# ### A solver
#
# Two numbers allow at most four steps: their sum, their product, their difference and, where it is whole, their
# quotient. The book keeps every intermediate a positive integer, so the larger number stands first.

# %% tags=["nbval-check-output"]
for a, op, b, c in game.steps_from(2, 8):
    print(f"{a} {op} {b} = {c}")

# %% [markdown]
# Replace two of the numbers by the result of a step, and a smaller problem of the same kind is left. So the values
# that a set of numbers can reach are
#
# $$ R(\{n\}) = \{n\}, \qquad R(S) = \bigcup_{\{a, b\} \subset S}\ \bigcup_{c\, \in\, \text{steps}(a, b)}
#    R\bigl(S \setminus \{a, b\} \cup \{c\}\bigr). $$
#
# With three numbers this is small enough to enumerate, and the enumeration is an exact solver.


# %% tags=["nbval-check-output"]
def reach(numbers: tuple[int, ...]) -> set[int]:
    """Every value that uses all of the numbers: the formula above, word for word."""
    if len(numbers) == 1:
        return set(numbers)
    values = set()
    for i in range(len(numbers)):
        for j in range(i + 1, len(numbers)):
            rest = [n for k, n in enumerate(numbers) if k not in (i, j)]
            for *_, c in game.steps_from(numbers[i], numbers[j]):
                values |= reach((*rest, c))
    return values


print(sorted(reach((2, 4, 8))))
print("as the library has it:", reach((2, 4, 8)) == game.reachable((2, 4, 8)))

# %% [markdown]
# The same recursion with the steps kept gives every solution. Different steps may be the same expression up to
# order; the grader accepts all of them.

# %% tags=["nbval-check-output"]
for steps in game.solutions([8, 2, 4], 64):
    print(f"{game.expression(steps):20} = 64      " + ", ".join(f"{a} {o} {b} = {c}" for a, o, b, c in steps))

# %% [markdown]
# ### How many problems are there?
#
# A *problem* is a multiset of numbers together with a target that they reach. A *row* is a problem with its numbers in
# one order, which is what a data set stores. The counts limit what a model could memorise.


# %% tags=["nbval-check-output"]
import math
from collections import Counter
from itertools import combinations_with_replacement


def orders(numbers: tuple[int, ...]) -> int:
    """In how many orders a multiset can be written."""
    return math.factorial(len(numbers)) // math.prod(map(math.factorial, Counter(numbers).values()))


def count(k: int, high: int, low_target: int = 10, high_target: int = 99) -> dict[str, int | str]:
    sets = list(combinations_with_replacement(range(1, high + 1), k))
    hits = [sum(low_target <= t <= high_target for t in game.reachable(s)) for s in sets]
    rows = sum(n * orders(s) for n, s in zip(hits, sets, strict=True))
    share = sum(hits) / len(sets) / (high_target - low_target + 1)
    made = {"numbers": k, "from 1 to": high, "multisets": len(sets), "problems": sum(hits), "rows": rows}
    return made | {"targets 10–99 reached": f"{share:.0%}"}


table(pd.DataFrame([count(2, 20), count(3, 10), count(3, 20), count(4, 8)]))

# %% [markdown]
# The book trains on the third line: three numbers up to 20. Training visits only a part of these problems.
#
# ### A split that cannot leak
#
# A data set for this task usually gives its numbers in a random order. The same problem can then occur twice, and a
# split by row puts one copy into training and the other into test. The leak grows as the rows fill the space of
# problems. Here is a careless generator, which writes no row twice, and the effect of a split by row on its output.


# %%
import random


def careless_rows(n: int, high: int, rng: random.Random) -> list[tuple[tuple[int, ...], int]]:
    """`n` different rows: three numbers as they fall, and a target they reach."""
    rows = {}
    while len(rows) < n:
        numbers = tuple(rng.randint(1, high) for _ in range(3))
        targets = [t for t in sorted(game.reachable(tuple(sorted(numbers)))) if 10 <= t <= 99]
        if targets:
            rows[numbers, rng.choice(targets)] = None
    return list(rows)


def leaked(train: list, test: list) -> float:
    """The share of test rows whose problem, in any order of its numbers, is a training row too."""
    seen = {game.problem_key(*row) for row in train}
    return sum(game.problem_key(*row) in seen for row in test) / len(test)


# %% tags=["nbval-check-output"]
records = []
for high, sizes in ((20, (500, 1000, 2000, 4000, 8000, 16000)), (50, (500, 1000, 2000, 4000))):
    for n in sizes:
        rows = careless_rows(n, high, random.Random(0))
        cut = n * 9 // 10
        by_key = {split: [row for row in rows if game.split_of(*row) == split] for split in ("train", "test")}
        records.append({"numbers up to": high, "rows": n, "split by row": leaked(rows[:cut], rows[cut:])})
        records[-1]["split by problem"] = leaked(by_key["train"], by_key["test"])
leaks = pd.DataFrame(records)
leaks.round(3)

# %% tags=["hide-input"] alt="Line plot: share of the test problems that are also in training against the rows of the data set, on a log scale; lines for numbers up to 20 and up to 50, split by row and split by problem. Only the split by row leaks."
figure, axes = new_figure(size=(6.5, 3.6))
long = leaks.melt(["numbers up to", "rows"], var_name="how", value_name="leak")
looks = {"hue": "numbers up to", "style": "how", "palette": "colorblind", "markers": True}
sns.lineplot(long, x="rows", y="leak", **looks, ax=axes[0, 0])
axes[0, 0].set(xscale="log", xlabel="rows in the data set", ylabel="share of the test that is in training")
figure

# %% [markdown]
# *What to look at.* The lines of the split by row. With numbers up to 20, the largest data set here has most of its
# test in training, although no row repeats another. The lines of the split by problem stay at 0 by construction.
# `split_of` hashes the *sorted* numbers and the target, so all orders of a problem fall on the same side, whatever
# the seed, the size or the ranges.

# %% tags=["nbval-check-output"]
from rlino_lib.tasks.base import SPLITS

for nums in ([8, 2, 4], [2, 4, 8], [4, 8, 2]):
    print(nums, "→ 64 ", game.problem_key(nums, 64), " in", game.split_of(nums, 64))
sizes = {split: len(task.problems(split)) for split in SPLITS}
print({split: f"{n} ({n / sum(sizes.values()):.1%})" for split, n in sizes.items()})

# %% [markdown]
# ## 2 A grader
#
# ### A first draft
#
# Take the text between the answer tags, check its numbers, and compute it. Python can parse arithmetic itself: `ast`
# turns the text into a tree, and six lines walk it. Many training scripts do this.

# %%
import ast
import operator

OPERATORS = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}  # fmt: skip


def value(node: ast.AST) -> float:
    if isinstance(node, ast.BinOp):
        return OPERATORS[type(node.op)](value(node.left), value(node.right))
    return node.value


def first_draft(nums: list[int], target: int, response: str) -> bool:
    answer = re.search("<answer>(.*?)</answer>", response)[1].strip()
    if not set(map(int, re.findall(r"\d+", answer))) <= set(nums):
        return False
    return value(ast.parse(answer, mode="eval").body) == target


# %% [markdown]
# It gets the plain cases right:

# %% tags=["nbval-check-output"]
for answer in ("( 8 * 4 ) * 2", "8 * 4", "8 * 9 - 8"):
    print(f"{answer:15}", first_draft([8, 2, 4], 64, f"<answer> {answer} </answer>"))

# %% [markdown]
# Now the difficult cases. A model under training samples millions of responses, so it will find whatever a grader
# overlooks, and what pays is made likelier. Each line holds a response to be graded and the verdict it should get.

# %%
CASES = [  # what it is, numbers, target, response, should it be right?
    ("a right answer", [19, 3, 7], 64, "<answer> ( 19 * 3 ) + 7 </answer>", True),
    ("19 used three times, 3 never", [19, 3, 7], 64, "<answer> 19 + 19 + 19 + 7 </answer>", False),
    ("a number left out", [8, 2, 4], 64, "<answer> 8 * 8 </answer>", False),
    ("a power", [8, 2, 4], 64, "<answer> 8 ** ( 4 - 2 ) </answer>", False),
    ("1 and 5 as the number 1.5", [1, 5, 8], 12, "<answer> 1.5 * 8 </answer>", False),
    ("1 and 9 glued together", [1, 9, 3], 22, "<answer> 1_9 + 3 </answer>", False),
    ("a better second answer", [8, 2, 4], 64, "<answer> 8 </answer> no <answer> 8 * 4 * 2 </answer>", True),
    ("a worse second answer", [8, 2, 4], 64, "<answer> 8 * 4 * 2 </answer> no <answer> 8 </answer>", False),
    ("right, by way of a fraction", [18, 9, 7], 14, "<answer> 18 / ( 9 / 7 ) </answer>", True),
    ("a division by zero", [2, 2, 14], 14, "<answer> 14 / ( 2 - 2 ) </answer>", False),
    ("an empty answer", [8, 2, 4], 64, "<answer> </answer>", False),
    ("no answer", [8, 2, 4], 64, "8 * 4 = 32, 32 * 2 = 64 yes", False),
    ("10,000 brackets", [8, 2, 4], 64, f"<answer> {'(' * 10_000}8 * 4 * 2{')' * 10_000} </answer>", False),
]


def verdict(grader, *case) -> str:
    """right, wrong, or the fact that the grader raised."""
    try:
        return "right" if grader(*case) else "wrong"
    except Exception:
        return "raises"


# %% tags=["nbval-check-output"]
def shorten(text: str, width: int = 60) -> str:
    return text if len(text) <= width else f"{text[:24]} … {text[-24:]}"


rows = []
for what, nums, target, response, truth in CASES:
    expected = "right" if truth else "wrong"
    draft_verdict = verdict(first_draft, nums, target, response)
    rows.append({"case": what, "numbers": nums, "target": target, "response": shorten(response), "should be": expected})
    rows[-1] |= {"first draft": draft_verdict, "": "" if draft_verdict == expected else "✗"}
drafted = pd.DataFrame(rows)
print(f"the first draft is wrong on {(drafted[''] == '✗').sum()} of {len(drafted)}")
table(drafted)

# %% [markdown]
# There are four kinds of fault, and each has its own effect on training.
#
# - **It pays for wrong answers.** The set of numbers does not say how often each is used. `**` is an operation that
#   the task does not have. `1.5` and `1_9` are one number to Python and two to the regular expression. A method that
#   finds one of these is rewarded without solving anything.
# - **It refuses right answers.** The quotient 9/7 is rounded in floating point, so a right answer misses the target
#   by one part in 10¹⁵. A tolerance hides that; exact fractions need none.
# - **It picks another answer than the one meant.** The first answer or the last: both are conventions. If the grader
#   is given the prompt as well, the first one is a disaster, since the usual prompt for this task shows an example
#   in answer tags. The book takes the last closed one.
# - **It raises.** A training run has no use for an exception at step 140. Every string that a model can write needs
#   a verdict.
#
# ### What must not be run
#
# The checker that is copied most for this task compares the numbers rightly. Then it calls Python's `eval` behind a
# filter that lets digits, operators, brackets, dots and white space through. Such a filter accepts `8 ** ( 4 - 2 )`
# and `1.5 * 8`, and `9**9**9`, too, if the numbers are nines. It is not executed here; its size can be computed
# without it:

# %% tags=["nbval-check-output"]
exponent = 9**9
digits = math.floor(exponent * math.log10(9)) + 1
print(f"9**9**9 = 9**{exponent:,} has {digits:,} digits")
print(f"the integer alone would fill {digits * math.log2(10) / 8 / 2**20:,.0f} MB")

# %% [markdown]
# Seven characters stall a training run, and three more would fill any memory. Where the filter lets letters through,
# `eval` runs whatever they spell, with the rights of whoever trains: reading a file or starting a program is one call
# away. A time limit does not help much, since the work happens inside one operation that cannot be interrupted. What
# helps is a grader whose work is bounded by construction.
#
# ### The library's grader
#
# `grade_countdown` does these things, in this order:
#
# 1. take the last closed `<answer> … </answer>`, with string searches that are linear in the response;
# 2. refuse more than `MAX_ANSWER` characters, and any token that is no ASCII number, operator or bracket;
# 3. put the tokens into postfix order with a loop and a stack, which brackets cannot overflow;
# 4. compare the numbers used with the numbers given, as multisets;
# 5. only then compute, with exact fractions: by now there are as few numbers as the problem gave.
#
# It returns a `Grade` with a reason in words.

# %% tags=["nbval-check-output"]
rows = []
for what, nums, target, response, truth in CASES:
    grade = grade_countdown(nums, target, response)
    draft_verdict = verdict(first_draft, nums, target, response)
    library_verdict = "right" if grade.correct else "wrong"
    rows.append({"case": what, "first draft": draft_verdict, "the library": library_verdict})
    rows[-1] |= {"reason": grade.reason, "": "" if grade.correct == truth else "✗"}
graded = pd.DataFrame(rows)
print(f"the library is wrong on {(graded[''] == '✗').sum()} of {len(graded)}")
table(graded.drop(columns=""))

# %% [markdown]
# Some more strings that a grader has to survive. The last is a million brackets. The work grows in proportion to the
# text and no faster.

# %% tags=["nbval-check-output"]
hostile = ["9**9**9", "__import__('os').getcwd()", "8 * 4 * ٢", "<script>alert(1)</script>", "8 * 4 * 2 #", "-8 * -8"]
hostile += ["0x40", "8 * 4 * 2 ==", "064", "(" * 1_000_000]
rows = []
for answer in hostile:
    grade = grade_countdown([8, 2, 4], 64, f"<answer> {answer} </answer>")
    rows.append({"answer": shorten(answer), "correct": grade.correct, "reason": grade.reason})
table(pd.DataFrame(rows))

# %% [markdown]
# (You read the script tag, and nothing ran: the table escapes its text.)
#
# ## 3 From verdicts to rewards
#
# A grade holds facts: is it correct, is there an answer at all? A *reward scheme* turns facts into the number that
# training uses. Two schemes are common for Countdown. They are data, three numbers each:

# %% tags=["nbval-check-output"]
pd.DataFrame(REWARD_SCHEMES, index=["a right answer", "a wrong answer", "no answer"]).T

# %% [markdown]
# The 0.1 is meant as a first step: a model that knows nothing about the task earns something by writing an answer in
# the right place. It also makes the reward *ternary*, and the paper's derivation is for a binary one.
#
# GRPO compares the responses of one *group*, the G responses to one prompt (chapter 04 derives it):
#
# $$ \hat A_i = \frac{r_i - \operatorname{mean}(r)}{\operatorname{std}(r) + 10^{-4}}. $$
#
# With binary rewards, a group in which everything is wrong has $r_i = 0$ for all $i$. So every advantage is 0 and
# the group teaches nothing. The paper reads this as a *filter*. Now take a group of four with no right response at
# all, where two responses end in a wrong answer and two in none, and compute both schemes by hand.

# %% tags=["nbval-check-output"]
group = ["<answer> 8 + 4 + 2 </answer>", "<answer> 8 * 4 - 2 </answer>"]  # wrong answers
group += ["8 + 4 = 12, 12 + 2 = 14 no", "8 - 4 = 4, 4"]  # none
for scheme in REWARD_SCHEMES:
    rewards = [grade_countdown([8, 2, 4], 64, response, scheme).reward for response in group]
    by_hand = [(r - np.mean(rewards)) / (np.std(rewards, ddof=1) + 1e-4) for r in rewards]
    library = advantages(torch.tensor(rewards), group_size=4)
    print(f"{scheme:7} rewards {rewards}   advantages", " ".join(f"{a:+.3f}" for a in by_hand))
    print("        the same as the library's:", np.allclose(by_hand, library, atol=1e-5))

# %% [markdown]
# Under the ternary scheme the group has a gradient, and a large one. The division by the standard deviation undoes
# the smallness of 0.1: the advantages are as large as those of a group that is half right. The update makes
# *answering* likelier, with full force, on a prompt where nothing is right.
#
# Whether that matters depends on how often responses have no answer. With a base model that nearly always answers,
# the 0.1 rarely acts. But a response that is cut off at the length cap (truncated) has no answer either. So the
# same responses, cut off earlier and earlier, show the effect. Sample them first: this is the chapter's live run.

# %%
from rlino_lib.policy.models import load_policy

policy = load_policy()
problems = task.problems("validation", 256)
rollouts = sample(policy, [task.prompt(p) for p in problems], group_size=8, seed=0).grade(task, problems)
print(f"{len(rollouts.texts):,} responses to {len(problems)} problems, {int(rollouts.mask.sum()):,} tokens")
print(f"right: {rollouts.correct.float().mean():.1%};", end=" ")
print(f"with an answer: {np.mean([g.format_ok for g in rollouts.grades]):.1%}")


# %%
def with_gradient(cap: int, scheme: str) -> float:
    """The share of groups with an advantage other than 0, had the responses been truncated after `cap` tokens."""
    cut = [row[mask][:cap] for row, mask in zip(rollouts.ids, rollouts.mask, strict=True)]
    texts = policy.tokenizer.batch_decode(cut, skip_special_tokens=True)
    data = [problems[i // 8].data for i in range(len(texts))]
    rewards = [
        grade_countdown(d["nums"], d["target"], text, scheme).reward for d, text in zip(data, texts, strict=True)
    ]
    return advantages(torch.tensor(rewards), 8).view(-1, 8).abs().gt(0.01).any(1).float().mean().item()


caps = pd.DataFrame(
    [
        {"cap": cap, "rewards": scheme, "share": with_gradient(cap, scheme)}
        for cap in (16, 24, 32, 48, 64, 112)
        for scheme in REWARD_SCHEMES
    ]
)
caps.pivot(index="rewards", columns="cap", values="share").round(3)

# %% tags=["hide-input"] alt="Line plot: share of groups with a gradient against the length cap in tokens, one line for each reward scheme."
figure, axes = new_figure(size=(6.5, 3.6))
sns.lineplot(caps, x="cap", y="share", hue="rewards", style="rewards", markers=True, ax=axes[0, 0])
axes[0, 0].set(xlabel="length cap (tokens)", ylabel="share of groups with a gradient", ylim=(0, 1))
figure

# %% [markdown]
# *What to look at.* The gap between the lines. At the far left no response is finished, so neither scheme pays for
# anything. To the right more and more responses end before the cap, and the lines come closer. In between, the extra
# groups come from the 0.1 alone, and they teach the model to *finish within the cap*. This is a push towards short
# responses that has nothing to do with right ones. Chapter 08 takes this up, since length is where the paper looks
# for the side effects of GRPO. The runs recorded for this book use the binary reward.
#
# ## 4 How far the grader moves the number
#
# Now grade the same responses five times. All five graders are plausible, and each has been used in some form. A
# response of our base model looks like this:

# %%
import html

Html(f"<pre>{html.escape(task.prompt(problems[0]) + rollouts.texts[0])}</pre>")


# %%
from rlino_lib.tasks.arithmetic import trace_steps
from rlino_lib.tasks.countdown.grade import BadExpression, evaluate_postfix, extract_answer, to_postfix


def last_answer(p, text: str) -> bool:
    """The book's: the last closed answer, each number once, exact value."""
    return task.grade(p, text).correct


def value_only(p, text: str) -> bool:
    """The answer has the right value, whichever numbers it uses."""
    try:
        return evaluate_postfix(to_postfix(extract_answer(text) or "")) == p.data["target"]
    except BadExpression:
        return False


def own_verdict(p, text: str) -> bool:
    """The model says so itself."""
    return " yes" in text


def mentions_target(p, text: str) -> bool:
    """`= target` stands somewhere, in the thinking or in the answer."""
    return re.search(rf"= {p.data['target']}(?![0-9])", text) is not None


def true_line(p, text: str) -> bool:
    """Some line of the thinking reaches the target by true steps that use each number once."""
    for line in text.splitlines():
        steps = trace_steps(line)
        made = Counter(c for (*_, c), _ in steps[:-1])
        used = Counter(n for (a, _, b, _), _ in steps for n in (a, b))
        given = Counter(p.data["nums"])
        if steps and all(ok for _, ok in steps) and steps[-1][0][3] == p.data["target"] and used == given + made:
            return True
    return False


GRADERS = {
    "last answer (the book's)": last_answer,
    "answer's value only": value_only,
    "its own verdict": own_verdict,
    "mentions = target": mentions_target,
    "a true line anywhere": true_line,
}

# %% [markdown]
# `true_line` is the only lenient grader that is right about what it accepts: the solution is there, though perhaps
# not in the answer. The interval is a bootstrap over problems, because the eight responses to one problem are not
# independent.

# %%
problem_of = [problems[i // 8] for i in range(len(rollouts.texts))]
accepts = pd.DataFrame(
    {
        name: [grader(p, text) for p, text in zip(problem_of, rollouts.texts, strict=True)]
        for name, grader in GRADERS.items()
    }
)  # [N, graders] bool
strict = accepts["last answer (the book's)"]
rows = []
for name, accepted in accepts.items():
    low, high = bootstrap_interval(accepted.to_numpy(float).reshape(-1, 8).mean(1))
    rows.append({"grader": name, "accuracy": accepted.mean(), "low": low, "high": high})
    rows[-1] |= {"accepted": accepted.sum(), "not right": (accepted & ~strict).sum()}
    rows[-1] |= {"right, but refused": (strict & ~accepted).sum()}
compared = pd.DataFrame(rows)
compared.set_index("grader").round(3)

# %% tags=["hide-input"] alt="Points with 95 % intervals, a row for each grader: the accuracy that it reports on the same responses."
figure, axes = new_figure(size=(6.5, 3.0))
axis = axes[0, 0]
sns.pointplot(compared, x="accuracy", y="grader", hue="grader", linestyle="none", ax=axis)
for i, row in compared.iterrows():
    axis.plot([row["low"], row["high"]], [i, i], color=sns.color_palette("colorblind")[i])
axis.set(xlabel="accuracy reported, with 95 % interval over problems", ylabel="", xlim=(0, None))
figure

# %% [markdown]
# *What to look at.* Every point is the same model and the same text; only the grader differs. The intervals overlap,
# but they say how the points would move with other problems, all of them together. The differences between graders
# are not noise: they are counts of responses on which two graders disagree. If two papers grade differently, such a
# difference looks like an effect of the method.

# %%
most = compared.loc[compared["accuracy"].idxmax()]
least = compared.loc[compared["accuracy"].idxmin()]
spread = most["accuracy"] - least["accuracy"]
print(f"From {least['accuracy']:.1%} ({least['grader']}) to {most['accuracy']:.1%} ({most['grader']}):")
print(f"{100 * spread:.1f} points on identical responses, {spread / strict.mean():.0%} of the accuracy itself.")

# %% [markdown]
# ### What would be learned from each
#
# An average hides which responses are paid. Under a grader $g$, the share of the paid responses that are not right
# is the share of the positive signal that rewards something else:
#
# $$ \Pr(\text{not right} \mid g \text{ pays}) = \frac{\#\{g = 1,\ \text{right} = 0\}}{\#\{g = 1\}}. $$

# %%
paid = compared.set_index("grader").iloc[1:]
for name, row in paid.iterrows():
    wrong = row["not right"] / max(row["accepted"], 1)
    print(f"{name:22} pays {int(row['accepted']):4} responses, {wrong:6.1%} of them not right")

# %% [markdown]
# Traces behind these numbers, one for each lenient grader that paid where the strict one did not:

# %%
rows = []
for name in list(GRADERS)[1:]:
    for i in np.flatnonzero(accepts[name] & ~strict)[:1]:
        p = problem_of[i]
        thinking = " | ".join(rollouts.texts[i].split("</think>")[0].strip().splitlines()[-2:])
        rows.append({"paid by": name, "problem": f"{p.data['nums']} → {p.data['target']}"})
        rows[-1] |= {"the end of its thinking": thinking, "answer": rollouts.grades[i].answer}
        rows[-1] |= {"the book's grader": rollouts.grades[i].reason}
table(pd.DataFrame(rows, columns=["paid by", "problem", "the end of its thinking", "answer", "the book's grader"]))

# %% [markdown]
# A model that is trained against `own_verdict` need only write "yes". Against `mentions_target` it need only write `=
# 64`, true or not. Neither needs a better search, and under both the reported accuracy could rise to the top. This is
# *reward hacking*, and no property of the method protects against it: GRPO and filtered SFT receive the same verdicts.
#
# The last grader differs. A response with a true line in its thinking and a wrong answer has *found* the solution and
# then not used it. Training could turn these into right answers without improving the search:

# %%
headroom = (accepts["a true line anywhere"] & ~strict).mean()
print(f"right: {strict.mean():.1%}; a solution found, but not the answer: {headroom:.1%}.")
print(f"Accuracy could rise by {100 * headroom:.1f} points by noticing alone.")

# %% [markdown]
# ### After training
#
# The recorded runs were all paid by the strict grader. Groups of responses are kept, so the lenient graders can be
# applied afterwards: how far apart are they at the end of training? A run's first step met other problems than its
# last. So the base answers the problems of the last step here, as often as a method did.


# %%
from rlino_lib.figures.style import label
from rlino_lib.methods.catalogue import LABELS
from rlino_lib.records.runs import list_runs
from rlino_lib.tasks import Problem


def by_every_grader(traces: pd.DataFrame) -> dict[str, float]:
    """Accuracy under each grader, the largest gap to the strict one, and an interval of the strict one."""
    accepts = pd.DataFrame(
        {name: grader(Problem(row.problem_id, row.data, row.gold), row.response) for name, grader in GRADERS.items()}
        for row in traces.itertuples()
    )  # [responses, graders] bool
    strict = accepts["last answer (the book's)"]
    low, high = bootstrap_interval(strict.groupby(traces["problem_id"].to_numpy()).mean().to_numpy())
    shares = accepts.mean()
    gap = (shares - strict.mean()).abs().max()
    return {"responses": len(accepts), **shares, "strict, 95 %": f"{low:.2f} to {high:.2f}", "largest gap": gap}


kept = [run.rollouts.assign(method=run.method) for run in list_runs("countdown") if len(run.rollouts)]
rows = []
if kept:
    last = pd.concat([part[part["step"] == part["step"].max()] for part in kept])
    by_method = {method: last[last["method"] == method] for method in LABELS if method in set(last["method"])}
    given = last.drop_duplicates("problem_id").reset_index(drop=True)
    assert all(set(part["problem_id"]) == set(given["problem_id"]) for part in by_method.values())  # like with like
    answered = sample(policy, list(given["prompt"]), group_size=8, seed=1).texts
    base = given.loc[given.index.repeat(8)].assign(response=answered)
    print(f"{len(given)} problems, the same ones for every line")
    rows = [{"model": label(m), **by_every_grader(part)} for m, part in {"base": base, **by_method}.items()]
after = pd.DataFrame(rows).round(3)
table(after) if rows else "There are no recorded runs here: `make runs` makes them."

# %% [markdown]
# *What to look at.* The last column is the largest difference to the strict grader. Compare each method with the
# base. A smaller gap means that training has made thinking and answer agree. A larger one means that some responses
# please one grader and not another, so that a table of results would depend on which was used.

# %%
if rows:
    trained = after.iloc[1:]["largest gap"]
    base_gap = after["largest gap"].iloc[0]
    print(f"Largest gap: the base {base_gap:.1%}, after training {trained.min():.1%} to {trained.max():.1%}.")

# %% [markdown]
# The problems are few: the interval of the strict accuracy shows how little they settle, and gaps that differ by a
# few points are noise.
#
# ## 5 The same problem elsewhere: GSM8K
#
# The paper's other task is GSM8K, word problems with a whole number as the answer. Its solutions end in `#### 72`.
# Four ways to read a response are in use, two in a training framework (verl) and two in an evaluation harness
# (lm-eval). The next cell has this chapter's own few lines for each.


# %%
def verl_strict(text: str) -> str | None:
    """The last `#### number` in the last 300 characters."""
    matches = re.findall(r"#### (-?[0-9.,]+)", text[-300:])
    return matches[-1].replace(",", "").replace("$", "") if matches else None


def verl_flexible(text: str) -> str | None:
    """The last number."""
    numbers = [n for n in re.findall(r"-?[0-9.,]+", text) if n not in ("", ".")]
    return numbers[-1] if numbers else None


def harness_strict(text: str) -> str | None:
    """The first `#### number`, up to the next question."""
    match = re.search(r"#### (-?[0-9.,]+)", text.split("Question:")[0])
    return re.sub(r"[,$]|\.$", "", match[1]) if match else None


def harness_flexible(text: str) -> str | None:
    """The last thing that looks like a number, up to the next question."""
    numbers = [a or b for a, b in re.findall(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", text.split("Question:")[0])]
    return re.sub(r"[,$]|\.$", "", numbers[-1]) if numbers else None


# %% tags=["nbval-check-output"]
READERS = [verl_strict, verl_flexible, harness_strict, harness_flexible]
gold = "1072"
responses = [
    "Twice 536 is 1072.\n#### 1072",
    "The answer is 1,072.",
    "#### $1,072",
    "#### 1072.",
    "#### 1072.00",
    "#### 1072\nCheck: 1072 / 2 = 536, which is right.",
    "#### 1072\nQuestion: What is 2 + 3?\nAnswer: 5\n#### 5",
    "It could be 1070, 1071 or 1072",
]
rows = [{"response": t.replace("\n", " ⏎ ")} | {f.__name__: f(t) == gold for f in READERS} for t in responses]
read = pd.DataFrame(rows)
table(read.replace({True: "right", False: "–"}))

# %% tags=["nbval-check-output"]
print({name: f"{share:.0%}" for name, share in read[[f.__name__ for f in READERS]].mean().items()})

# %% [markdown]
# The same eight responses have accuracies that differ by a factor of three. Even the two readers with the same accuracy
# do not agree on the rows. Look at two rows. A base model that runs on and asks itself the next question is right for
# one strict reader and wrong for the other. And the last row is a guess that both flexible readers should not trust:
# the last number wins, whatever was said before it. The strict readers measure the format as much as the arithmetic, so
# part of an early gain under them is the model learning `####`.
#
# ### Where a response ends
#
# So a task needs *stop strings*: sampling ends with the first that is complete, and the grader reads up to it. Here,
# what begins a turn of the prompt ends a response, with the line break before it. The harness has the bare word. A
# model that uses the word in a sentence is then cut off before its answer. The two readers that repeat the harness keep
# its rule; the others have the book's.

# %% tags=["nbval-check-output"]
import json

numbered = Problem("an example", {"answer": "72"})
endings = ["#### 72\nQuestion: What is 2 + 3?\nAnswer: 5\n#### 5", "Back to the Question: 48 + 24 = 72.\n#### 72"]
for grader in ("strict", "strict-match"):
    gsm8k = get_task("gsm8k", grader=grader)
    for text in endings:
        print(f"{grader:13}", json.dumps(text), "→", gsm8k.grade(numbered, text).reason)

# %% [markdown]
# The shipped models end their responses themselves. A base model from a hub does not, so the templates for those
# have stop strings in every task: `User:` at the start of a line for Countdown, `Question:` for the word problems.
#
# ## 6 A second task: word problems
#
# GSM8K is out of reach for a model of less than a million parameters. The book's second task stands in for it: word
# problems of two to four steps, put together from a stock of sentences, with worked solutions in GSM8K's form. A
# *template* is a path through such sentences. Some have one more sentence that does not matter.

# %% tags=["nbval-check-output"]
words = get_task("word_problems")
examples = words.problems("test", 4)
solved = [{"question": p.data["question"], "worked solution": p.gold.replace("\n", " ⏎ ")} for p in examples]
table(pd.DataFrame(solved, index=[p.data["kind"] for p in examples]))

# %% [markdown]
# What would a split have to keep apart here? A model could know a template by heart and fail with new numbers, or
# calculate well and fail at a new story. So half of the held-out problems have *numbers* that their template did not
# have in training, and half have a *template* that training did not have at all, though it had each of the
# sentences.

# %% tags=["nbval-check-output"]
train = words.problems("train")
held_out = words.problems("test")
known = {p.data["template"] for p in train}
rows = []
for kind in ("numbers", "template"):
    own = [p for p in held_out if p.data["kind"] == kind]
    rows.append({
        "new": kind, "problems": len(own), "whose template train has": sum(p.data["template"] in known for p in own),
        "steps, mean": sum(len(p.data["steps"]) for p in own) / len(own),
        "with a distractor": sum(p.data["distractor"] is not None for p in own) / len(own),
    })  # fmt: skip
assert not {p.id for p in train} & {p.id for p in held_out}  # an id is the template and its numbers
print(f"train: {len(train):,} problems of {len(known)} templates")
pd.DataFrame(rows).set_index("new").round(2)

# %% [markdown]
# The grader is GSM8K's strict one, by value: the last `####` with a number after it, before a next question begins.

# %% tags=["nbval-check-output"]
problem = examples[0]
right = problem.data["answer"]
tried = [
    problem.gold,
    f"It is {right}.",
    f"#### {right}.0",
    f"#### {right + 1}",
    f"#### {right + 1}\n#### {right}",
    "####",
]
graded = [(text.replace("\n", " ⏎ ")[-60:], words.grade(problem, text)) for text in tried]
table(pd.DataFrame([{"response, its end": t, "reward": g.reward, "reason": g.reason} for t, g in graded]))

# %% [markdown]
# ### Five graders on responses that a model wrote
#
# The library has the four readers of section 5, and one for `\boxed{}`. The harness's two are there to the letter.
# verl's two look where verl's look, but compare by value, and read or refuse what is written as one number: `1 000`
# is 1000, `5 million` is not 5, and `1.000,50` is no number. The base of the word problems answers here, and its
# responses are graded whole, without stop strings. Then the same answers are put into other words, as other models
# would write them: the arithmetic stays, the last line changes.

# %%
from rlino_lib.paths import base_of
from rlino_lib.tasks.gsm8k.grade import GRADERS as NUMBER_GRADERS

solver = load_policy(base_of("word_problems"))
validation = words.problems("validation", 512)
texts = sample(solver, [words.prompt(p) for p in validation], 2, max_new_tokens=64, seed=0).texts
pairs = [(str(validation[i // 2].data["answer"]), text) for i, text in enumerate(texts)]
ENDINGS = {
    "as the model wrote it": "#### {0}",
    "a sentence": "The answer is {0}.",
    "a box": "The answer is $\\boxed{{{0}}}$.",
    "dollars and cents": "#### ${0}.00",
    "runs on": "#### {0}\nQuestion: Anna has 2 bags. How many bags?\nSolution: 2\n#### 2",
    "checks itself": "#### {0}\nCheck: {0} - 0 = {0}, and 3 steps were needed.",
}
shares = {}
for name, ending in ENDINGS.items():
    for grader in NUMBER_GRADERS:
        right = 0
        for gold, text in pairs:
            work, mark, answer = text.rpartition("#### ")
            response = text if name == "as the model wrote it" or not mark else work + ending.format(answer.strip())
            right += grade_number(gold, response, grader=grader).correct
        shares.setdefault(name, {})[grader] = right / len(pairs)
pd.DataFrame(shares).T.rename_axis("the last line").map("{:.1%}".format)

# %% [markdown]
# Down each column the arithmetic is the same. In the first row the four readers of `####` and of plain numbers
# agree: a model that was trained on the format leaves no doubt. In the others an accuracy can lie anywhere between
# all and nothing. The flexible readers look more forgiving, and they are the ones that a closing remark misleads.
#
# What does that do to a *gain*? The base and the recorded runs on word problems write the same format, so all
# readers of this format should see the same gain. The base answers the problems of the runs' last steps, and each
# problem has the same weight. A base that writes sentences half of the time, and learns `####` and nothing else, is
# the other case.

# %%
kept = [run.rollouts for run in list_runs("head-to-head") if run.config["task"] == "word_problems"]
compared_on = {}
if kept:
    last = pd.concat([part[part["step"] == part["step"].max()] for part in kept])
    given = last.drop_duplicates("problem_id").reset_index(drop=True)
    answered = sample(solver, list(given["prompt"]), 8, max_new_tokens=64, seed=1).texts
    compared_on["the base"] = given.loc[given.index.repeat(8)].assign(response=answered)
    compared_on["after training, all methods"] = last
    print(f"{len(given)} problems, the same ones for the base and after training")
gains = {}
for grader in NUMBER_GRADERS:
    for name, part in compared_on.items():
        answers = zip((str(d["answer"]) for d in part["data"]), part["response"], strict=True)
        right = pd.Series([grade_number(gold, text, grader=grader).correct for gold, text in answers])
        gains.setdefault(name, {})[grader] = right.groupby(part["problem_id"].to_numpy()).mean().mean()
    halves = [
        (gold, text if i % 2 else text.replace("#### ", "The answer is "), text) for i, (gold, text) in enumerate(pairs)
    ]
    for name, place in (("sentences half of the time", 1), ("always ####", 2)):
        right = sum(grade_number(row[0], row[place], grader=grader).correct for row in halves)
        gains.setdefault(f"the same answers, {name}", {})[grader] = right / len(halves)
pd.DataFrame(gains).T.map("{:.1%}".format)

# %% [markdown]
# In the last two rows nothing was learned about arithmetic, and two of the graders report a gain of the size that
# papers are written about.
#
# And the real GSM8K? Its own solutions, graded by all five. (It is not part of the repository: `rlino fetch gsm8k`.)

# %%
from pathlib import Path

from IPython.display import display

from rlino_lib.errors import RlinoError

try:
    real = get_task("gsm8k")
    solutions = [p for split in ("train", "validation", "test") for p in real.problems(split)]
except RlinoError as e:
    print(str(e).replace(str(Path.home()), "~"))
else:
    verdicts = {
        grader: pd.Series([grade_number(p.data["answer"], p.gold, grader=grader).correct for p in solutions])
        for grader in NUMBER_GRADERS
    }
    print(f"{len(solutions):,} solutions of GSM8K, graded as responses:")
    display(pd.DataFrame({"right": {name: f"{right.mean():.2%}" for name, right in verdicts.items()}}))
    differ = verdicts["strict"] != verdicts["flexible"]
    apart = [p.gold.splitlines()[-1] for p, other in zip(solutions, differ, strict=True) if other]
    print(f"strict and flexible differ on {len(apart)} of them", *apart[:3], sep="; ")

# %% [markdown]
# ## 7 Grading a file
#
# `rlino grade` grades responses from anywhere, one JSON object per line. A line that cannot be graded is reported
# and left out; it never stops the rest, and the exit code says that something was wrong.

# %% tags=["nbval-check-output"]
import subprocess
import sys
import tempfile

lines = [
    json.dumps({"nums": [8, 2, 4], "target": 64, "response": "<answer> ( 8 * 4 ) * 2 </answer>"}),
    json.dumps({"nums": [8, 2, 4], "target": 64, "response": "<answer> 8 * 8 </answer>", "from": "elsewhere"}),
    '{"nums": [8, 2, 4], "target": 64, "response": "cut off',
    json.dumps({"nums": [8, 2, 4], "response": "<answer> 8 </answer>"}),
    json.dumps({"nums": [8, 2, 4], "target": 64, "response": "8 * 4 = 32, 32 * 2 = 64 yes"}),
]
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "responses.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "rlino_lib.cli", "grade", "--rewards", "format", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
print("stdout:", *done.stdout.splitlines(), sep="\n  ")
print("stderr:", *done.stderr.splitlines(), sep="\n  ")
print("exit code:", done.returncode)

# %% [markdown]
# The graded lines keep their other keys and gain `reward`, `correct` and `reason`. They go to stdout, so that they
# can be piped on; messages for a person go to stderr.
#
# ## Exercises
#
# Each exercise has a checker that compares your function with a right one and, where it can, names the likely
# mistake. The functions below return nothing yet.
#
# **1. Exactly once.** The first draft compares sets. Write `uses_numbers(answer, nums)`, which says whether an
# answer uses each given number exactly once. Its value does not matter here.


# %%
from checkers.tasks import check_grader, check_leak, check_reward


def uses_numbers(answer: str, nums: list[int]) -> bool:
    """Your code here."""


ok = check_grader(uses_numbers)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def uses_numbers(answer, nums):
#     return sorted(map(int, re.findall(r"[0-9]+", answer))) == sorted(nums)
# ```
# Sorting both sides compares them as multisets. `[0-9]` rather than `\d`, because `\d` also matches digits of other
# scripts, which `int` accepts.
# </details>
#
# **2. A key without a leak.** Write `key(nums, target)`: equal for the same problem with its numbers in another
# order, and different for different problems.


# %%
def key(nums: list[int], target: int):
    """Your code here."""


ok = check_leak(key)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def key(nums, target):
#     return (tuple(sorted(nums)), target)
# ```
# A set would forget how often a number is given. A sum or a product would put different problems together: not a
# leak, but problems that share a split for no reason.
# </details>
#
# **3. A ternary reward.** Write `reward(correct, has_answer)`: 1 for a right answer, 0.1 for a wrong one, 0 for
# none.


# %%
def reward(correct: bool, has_answer: bool) -> float:
    """Your code here."""


ok = check_reward(reward)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def reward(correct, has_answer):
#     return 1.0 if correct else 0.1 if has_answer else 0.0
# ```
# Asking for the right answer first matters: a right answer is an answer too.
# </details>
#
# **4. Be the policy.** Find a response, not in the list above, that the first draft pays and the library does not.
# Then ask which rule of the library stops it.

# %%
my_nums, my_target, my_response = [5, 5, 2], 12, "<answer> 5 + 5 + 2 </answer>"  # change these

pays = verdict(first_draft, my_nums, my_target, my_response) == "right"
grade = grade_countdown(my_nums, my_target, my_response)
print("✓ a hole:" if pays and not grade.correct else "✗ not yet:", end=" ")
print(f"the draft {'pays' if pays else 'does not pay'}; the library says “{grade.reason}”")

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# my_nums, my_target, my_response = [5, 5, 2], 50, "<answer> 5 * 5 * 2 </answer> no, <answer> 7 </answer>"
# ```
# The draft stops at the first answer. Another: `[5, 5, 2]`, 25, `<answer> 5 ** 2 </answer>` uses an operation that
# the task does not have and leaves out a 5. The neatest is a comment: `<answer> 5 * 5 # 2 </answer>` for 25 shows
# each number exactly once to the regular expression, and Python never sees the 2.
# </details>
#
# **5. The value of trying.** Under the ternary scheme a policy that always answers at random, with a chance $p$ of
# being right, earns $p + 0.1(1 - p)$ on average; one that never closes an answer earns 0. Yet GRPO does not use
# rewards, only differences within a group. Take $p$ as measured above and 8 responses that all have an answer. In
# what share of groups does the 0.1 change any advantage? Answer before you run the cell.

# %%
answers = torch.tensor([g.format_ok for g in rollouts.grades]).view(-1, 8).all(1)  # [P]
binary = rollouts.rewards.view(-1, 8)[answers]  # [groups that always answer, 8]
ternary = binary + 0.1 * (binary == 0)
change = (advantages(ternary.flatten(), 8) - advantages(binary.flatten(), 8)).abs().max()
print(f"largest change of an advantage in {len(binary)} groups that always answer: {change:.4f}")

# %% [markdown]
# <details><summary>Why</summary>
#
# In none, up to the $10^{-4}$ in the denominator. If all eight answer, the rewards are $0.1 + 0.9\,c_i$ with $c_i$
# in {0, 1}: a shift and a scale of the binary ones, and standardising removes both. The 0.1 acts only where a group
# has responses *with* and *without* an answer.
# </details>
#
# ## Summary
#
# - A method learns what its grader pays for. The grader is part of the experiment, and two graders of the same
#   responses differed by the number of points printed above.
# - A verifier of model output has to be total, bounded and exact: a verdict for every string, work that cannot grow
#   out of hand, and no rounding. `eval` is none of these.
# - Split by problem, not by row: sorted numbers and target.
# - **Settled here**: an all-wrong group is *not* always silent. Under the reward 0 / 0.1 / 1 it has a full-sized
#   gradient as soon as its format is mixed, which the paper's binary derivation leaves out; under the binary reward
#   it has none.
# - **Open**: whether that push towards answering changes the length of responses during training,
#   and how much of a training gain is *noticing* what was found or finding more (chapter 09).
#
# Next, chapter 03 looks at the model that wrote these responses.
