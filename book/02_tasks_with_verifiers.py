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
# **The answer.** Whatever the grader accepts is rewarded, and nothing else is. Two graders disagree about the same
# responses. Where a model would learn only to write `####`, some graders would report a large gain and others none. So
# an accuracy, or a gain, means little without its grader. And where the format is rewarded too, a group without a
# single right answer still has a gradient.
#
# Nearly every method in this book gets its signal from one place (chapter 11 has the exceptions): a program that reads
# a response and returns a number. Such a program is called a *verifier*, or a *grader*. The paper ([arXiv
# 2505.13697](https://arxiv.org/abs/2505.13697), "the paper" from here on) assumes that it returns 0 or 1, and only at
# the end:
#
# $$ r(q, o) \in \{0, 1\}, \qquad q = \text{the prompt},\quad o = (o_1, \dots, o_{|o|}) = \text{the whole response}. $$
#
# Nothing says which token was good. So a method can only learn what the grader pays for. This chapter
#
# 1. takes one task apart: its problems, its solver, and its split into training and test;
# 2. writes a grader in a few lines, breaks it, and compares it with the library's;
# 3. turns verdicts into rewards, and shows when a reward that is not 0 or 1 changes GRPO's gradient;
# 4. measures how far the choice of grader moves a reported accuracy, and a reported gain.

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

style()
pd.set_option("display.max_colwidth", None, "display.html.use_mathjax", False)

# %% [markdown]
# ## 1 Countdown
#
# You are given a few numbers and a target. Combine the numbers with +, −, × and ÷ so that the result is the target,
# and use each number exactly once. A `Problem` holds what the grader needs. `prompt` turns it into the text that the
# model continues. `gold` is one solution; the grader never looks at it, because a problem has many.

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
# ### A split that cannot leak
#
# A *problem* is a multiset of numbers together with a target that they reach. A *row* of a data set is a problem with
# its numbers in one order, usually a random one. The same problem can then occur twice, and a split by row puts one
# copy into training and the other into test. Here is a careless generator, which writes no row twice, and the effect
# of a split by row on its output.

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
leaks = {}
for n in (500, 2000, 8000, 16000):
    rows = careless_rows(n, 20, random.Random(0))
    cut = n * 9 // 10
    by_key = {split: [row for row in rows if game.split_of(*row) == split] for split in ("train", "test")}
    leaks[n] = {"split by row": leaked(rows[:cut], rows[cut:]), "split by problem": leaked(*by_key.values())}
pd.DataFrame(leaks).T.rename_axis("rows").round(3)

# %% [markdown]
# The table has the share of the test that is also in training. *What to look at.* How does it grow with the rows? The
# largest data set here has most of its test in training, although no row repeats another. `split_of` hashes the
# *sorted* numbers and the target, so all orders of a problem fall on the same side, whatever the seed, the size or the
# ranges.

# %% tags=["nbval-check-output"]
from rlino_lib.tasks.base import SPLITS

for nums in ([8, 2, 4], [2, 4, 8], [4, 8, 2]):
    print(nums, "→ 64 ", game.problem_key(nums, 64), " in", game.split_of(nums, 64))
print("problems of the book's task:", {split: len(task.problems(split)) for split in SPLITS})

# %% [markdown]
# ## 2 A grader
#
# ### A first draft
#
# Take the text between the answer tags, check its numbers, and compute it. Python can parse arithmetic itself: `ast`
# turns the text into a tree, and a few lines walk it. Many training scripts do this.

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
# It gets the plain cases right. Now the difficult ones. A model under training samples millions of responses, so it
# will find whatever a grader overlooks, and what pays is made likelier. Each line holds a response to be graded and
# the verdict it should get.

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
    ("no answer", [8, 2, 4], 64, "8 * 4 = 32, 32 * 2 = 64 yes", False),
    ("an Arabic digit", [8, 2, 4], 64, "<answer> 8 * 4 * ٢ </answer>", False),
    ("a script", [8, 2, 4], 64, "<answer> <script>alert(1)</script> </answer>", False),
    ("10,000 brackets", [8, 2, 4], 64, f"<answer> {'(' * 10_000}8 * 4 * 2{')' * 10_000} </answer>", False),
]


def verdict(grader, *case) -> str:
    """right, wrong, or the fact that the grader raised."""
    try:
        return "right" if grader(*case) else "wrong"
    except Exception:
        return "raises"


# %% tags=["nbval-check-output"]
rows = []
for what, nums, target, response, truth in CASES:
    short = response if len(response) <= 60 else f"{response[:24]} … {response[-24:]}"
    grade = grade_countdown(nums, target, response)
    draft = verdict(first_draft, nums, target, response)
    rows.append(
        (what, short, "right" if truth else "wrong", draft, "right" if grade.correct else "wrong", grade.reason)
    )
graded = pd.DataFrame(rows, columns=["case", "response", "should be", "first draft", "the library", "its reason"])
for name in ("first draft", "the library"):
    print(f"{name}: wrong on {(graded[name] != graded['should be']).sum()} of {len(graded)}")
graded.set_index("case")

# %% [markdown]
# The draft has four kinds of fault, and each has its own effect on training.
#
# - **It pays for wrong answers.** The set of numbers does not say how often each is used. `**` is an operation that
#   the task does not have. `1.5` and `1_9` are one number to Python and two to the regular expression. A method that
#   finds one of these is rewarded without solving anything.
# - **It refuses right answers.** The quotient 9/7 is rounded in floating point, so a right answer misses the target.
#   A tolerance hides that; exact fractions need none.
# - **It picks another answer than the one meant.** The first answer or the last: both are conventions. If the grader
#   is given the prompt as well, the first one is a disaster, since the usual prompt for this task shows an example
#   in answer tags. The book takes the last closed one.
# - **It raises.** A training run has no use for an exception. Every string that a model can write needs a verdict.
#
# The checker that is copied most for this task has a worse one. It calls Python's `eval` behind a filter that lets
# digits, operators, brackets, dots and white space through. With nines among the numbers, such a filter accepts
# `9**9**9`. It is not executed here; its size can be computed without it:

# %% tags=["nbval-check-output"]
import math

digits = math.floor(9**9 * math.log10(9)) + 1
print(f"9**9**9 has {digits:,} digits and would fill {digits * math.log2(10) / 8 / 2**20:,.0f} MB")

# %% [markdown]
# Seven characters stall a training run, and three more would fill any memory. Where the filter lets letters through,
# `eval` runs whatever they spell. A time limit does not help much, since the work happens inside one operation that
# cannot be interrupted. What helps is a grader whose work is bounded by construction. `grade_countdown` does these
# things, in this order:
#
# 1. take the last closed `<answer> … </answer>`, with string searches that are linear in the response;
# 2. refuse more than `MAX_ANSWER` characters, and any token that is no ASCII number, operator or bracket;
# 3. put the tokens into postfix order with a loop and a stack, which brackets cannot overflow;
# 4. compare the numbers used with the numbers given, as multisets;
# 5. only then compute, with exact fractions: by now there are as few numbers as the problem gave.
#
# It returns a `Grade` with a reason in words, the last column above. (You read the script tag there, and nothing ran:
# the table escapes its text.)
#
# ## 3 From verdicts to rewards
#
# A grade holds facts: is it correct, is there an answer at all? A *reward scheme* turns facts into the number that
# training uses. Two schemes are common for Countdown:

# %% tags=["nbval-check-output"]
pd.DataFrame(REWARD_SCHEMES, index=["a right answer", "a wrong answer", "no answer"]).T

# %% [markdown]
# The 0.1 is meant as a first step: a model that knows nothing about the task earns something by writing an answer in
# the right place. It also makes the reward *ternary* (the scheme `format` in tables and figures), and the paper's
# derivation is for a binary one.
#
# GRPO compares the responses of one *group*, the G responses to one prompt (chapter 04 derives it):
#
# $$ \hat A_i = \frac{r_i - \operatorname{mean}(r)}{\operatorname{std}(r) + 10^{-4}}. $$
#
# With binary rewards, a group in which everything is wrong has only advantages of 0, and teaches nothing. The paper
# reads this as a *filter*. Now take a group of four with no right response at all, where two responses end in a wrong
# answer and two in none, and compute both schemes by hand.

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
# Whether that matters depends on how often responses have no answer. A response that is cut off at the length cap
# (truncated) has none either. So the same responses, cut off earlier and earlier, show the effect. Sample them first:
# this is the chapter's live run.

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


lengths = (16, 24, 32, 48, 64, 112)
caps = pd.DataFrame({scheme: [with_gradient(cap, scheme) for cap in lengths] for scheme in REWARD_SCHEMES}, lengths)
caps.rename_axis("cap").T.round(3)

# %% tags=["hide-input"] alt="Line plot: share of groups with a gradient against the length cap in tokens, one line for each reward scheme."
figure, axes = new_figure(size=(6.5, 3.6))
sns.lineplot(caps, markers=True, ax=axes[0, 0])
axes[0, 0].set(xlabel="length cap (tokens)", ylabel="share of groups with a gradient", ylim=(0, 1))
figure

# %% [markdown]
# *What to look at.* The gap between the lines. At the far left no response is finished, so neither scheme pays for
# anything. To the right more and more responses end before the cap, and the lines come closer. In between, the extra
# groups come from the 0.1 alone, and they teach the model to *finish within the cap*: a push towards short responses
# that has nothing to do with right ones. Nearly all runs recorded for this book use the binary reward; chapters 09 to
# 11 name the others.
#
# ## 4 How far the grader moves the number
#
# Now grade the same responses five times. All five graders are plausible, and each has been used in some form. A
# response of the base looks like this:

# %%
print(task.prompt(problems[0]) + rollouts.texts[0])


# %%
from collections import Counter

from rlino_lib.tasks.arithmetic import trace_steps
from rlino_lib.tasks.countdown.grade import BadExpression, evaluate_postfix, extract_answer, to_postfix


def value_only(p, text: str) -> bool:
    """The answer has the right value, whichever numbers it uses."""
    try:
        return evaluate_postfix(to_postfix(extract_answer(text) or "")) == p.data["target"]
    except BadExpression:
        return False


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
    "last answer (the book's)": lambda p, text: task.grade(p, text).correct,
    "answer's value only": value_only,
    "its own verdict": lambda p, text: " yes" in text,
    "mentions = target": lambda p, text: re.search(rf"= {p.data['target']}(?![0-9])", text) is not None,
    "a true line anywhere": true_line,
}

# %% [markdown]
# The last one is the only lenient grader that is right about what it accepts: the solution is there, though perhaps
# not in the answer. The interval is a bootstrap over problems, because the eight responses to one problem are not
# independent.

# %%
problem_of = [problems[i // 8] for i in range(len(rollouts.texts))]
pairs = list(zip(problem_of, rollouts.texts, strict=True))
accepts = pd.DataFrame({name: [grader(*pair) for pair in pairs] for name, grader in GRADERS.items()})  # [N, graders]
strict = accepts["last answer (the book's)"]
rows = []
for name, paid in accepts.items():
    low, high = bootstrap_interval(paid.to_numpy(float).reshape(-1, 8).mean(1))
    counts = (paid.sum(), (paid & ~strict).sum(), (strict & ~paid).sum())
    rows.append((name, paid.mean(), low, high, *counts, (paid & ~strict).sum() / paid.sum()))
columns = ["accuracy", "low", "high", "paid", "not right", "right, but refused", "share of the paid not right"]
compared = pd.DataFrame(rows, columns=["grader", *columns]).set_index("grader")
compared.round(3)

# %% [markdown]
# *What to look at.* How far apart are five accuracies of the same responses? The intervals overlap, but they say how
# all the numbers would move together with other problems. The differences between graders are not noise: they are
# counts of responses on which two graders disagree. If two papers grade differently, such a difference looks like an
# effect of the method. And the last column is the share of the positive signal that rewards something else.

# %%
most, least = compared["accuracy"].idxmax(), compared["accuracy"].idxmin()
points = compared["accuracy"].max() - compared["accuracy"].min()
print(f"From {least} to {most}: {100 * points:.1f} points on identical responses, {points / strict.mean():.0%} of")
print("the accuracy itself. One trace for each lenient grader that paid where the strict one did not:")
rows = []
for name in list(GRADERS)[1:]:
    for i in np.flatnonzero(accepts[name] & ~strict)[:1]:
        lines = rollouts.texts[i].split("</think>")[0].strip().splitlines()
        paid_for = [line for line in lines if name == "a true line anywhere" and true_line(problem_of[i], line)]
        thinking = " | ".join(paid_for or lines[-2:])
        rows.append(
            (name, problem_of[i].data["target"], thinking, rollouts.grades[i].answer, rollouts.grades[i].reason)
        )
columns = ["paid by", "target", "from its thinking", "answer", "the book's grader"]
pd.DataFrame(rows, columns=columns).set_index("paid by")

# %% [markdown]
# A model that is trained against its own verdict need only write "yes". Against "mentions = target" it need only
# write `= 64`, true or not. Neither needs a better search, and under both the reported accuracy could rise to the top.
# This is *reward hacking*, and no property of the method protects against it: GRPO and filtered SFT receive the same
# verdicts.
#
# The last grader differs. A response with a true line in its thinking and a wrong answer has *found* the solution and
# then not used it. Training could turn these into right answers without improving the search; the table counts them.
#
# ## 5 The same problem elsewhere: GSM8K
#
# The paper's other task is GSM8K, word problems with a whole number as the answer. Its solutions end in `#### 72`.
# Several ways to read a response are in use. The library has two that look where those of a training framework, verl,
# look (`strict`: the last `####`; `flexible`: the last number). Unlike verl's they compare by value, so that `####
# 1072.00` and `#### $1,072` count. It has those of an evaluation harness, lm-eval (`strict-match`: the first `####`;
# `flexible-extract`: the last number; both as text), and one for `\boxed{}`.

# %% tags=["nbval-check-output"]
from rlino_lib.tasks.gsm8k.grade import GRADERS as READERS
from rlino_lib.tasks.gsm8k.grade import grade_number

responses = [
    "Twice 536 is 1072.\n#### 1072",
    "The answer is 1,072.",
    "The answer is $\\boxed{1072}$.",
    "#### $1,072",
    "#### 1072.00",
    "#### 1072\nCheck: 1072 / 2 = 536, which is right.",
    "#### 1072\nQuestion: What is 2 + 3?\nAnswer: 5\n#### 5",
    "It could be 1070, 1071 or 1072",
]
read = pd.DataFrame({r: [grade_number(1072, t, grader=r).correct for t in responses] for r in READERS}, responses)
read.index = read.index.str.replace("\n", " ⏎ ")
print("accuracy:", {name: f"{share:.0%}" for name, share in read.mean().items()})
read.replace({True: "right", False: "–"})

# %% [markdown]
# *What to look at.* Do two readers with the same accuracy agree on the rows? They need not. A base model that runs on
# and asks itself the next question is right for one strict reader and wrong for the other. The last row is a guess
# that the flexible readers should not trust. The strict readers measure the format as much as the arithmetic, so part
# of an early gain under them is the model learning `####`.
#
# So a task needs *stop strings*: sampling ends with the first that is complete, and the grader reads up to it. For
# GSM8K it is what would open a next question: a line break and `Question:`.

# %% [markdown]
# ## 6 A second task: word problems
#
# GSM8K is out of reach for a model of less than a million parameters. The book's second task stands in for it: word
# problems of two to four steps, put together from a stock of sentences, with worked solutions in GSM8K's form. A
# *template* is a path through such sentences. Some have one more sentence that does not matter, a distractor.

# %% tags=["nbval-check-output"]
words = get_task("word_problems")
held_out = words.problems("test")
examples = [(p.data["kind"], p.data["question"], p.gold.replace("\n", " ⏎ ")) for p in held_out[:4]]
pd.DataFrame(examples, columns=["new", "question", "worked solution"]).set_index("new")

# %% [markdown]
# A model could know a template by heart and fail with new numbers, or calculate well and fail at a new story. So half
# of the held-out problems have *numbers* that their template did not have in training, and half have a *template* that
# training did not have at all, though it had each of the sentences.

# %% tags=["nbval-check-output"]
train = words.problems("train")
known = {p.data["template"] for p in train}
assert not {p.id for p in train} & {p.id for p in held_out}  # an id is the template and its numbers
print(f"train: {len(train):,} problems of {len(known)} templates")
facts = [
    (p.data["kind"], p.data["template"] in known, len(p.data["steps"]), bool(p.data["distractor"])) for p in held_out
]
split = pd.DataFrame(facts, columns=["new", "template in training", "steps", "distractor"])
split.groupby("new").mean().assign(problems=split.groupby("new").size()).round(2)

# %% [markdown]
# ### What a grader does to a gain
#
# The base of the word problems and the recorded runs write the same format, so all readers of this format should see
# the same gain. The base answers the problems of the runs' last steps. The other case is made by hand: in every second
# response of the base, `####` is replaced by a sentence. From that to the base is the gain of a model that learns
# `####` and nothing else.

# %%
from rlino_lib.paths import base_of
from rlino_lib.records.runs import list_runs

kept = [run.rollouts for run in list_runs("head-to-head") if run.config["task"] == "word_problems"]
last = pd.concat([part[part["step"] == part["step"].max()] for part in kept], ignore_index=True)
last["gold"] = [str(data["answer"]) for data in last["data"]]
base = last.drop_duplicates("problem_id").loc[lambda rows: rows.index.repeat(8)]
solver = load_policy(base_of("word_problems"))
answers = sample(solver, list(base["prompt"])[::8], 8, max_new_tokens=64, seed=1).texts
half = [text if i % 2 else text.replace("#### ", "The answer is ") for i, text in enumerate(answers)]
frames = {
    "the base": base.assign(response=answers),
    "after training, all methods": last,
    "the base, sentences half of the time": base.assign(response=half),
}
gains = {}
for name, frame in frames.items():
    for reader in READERS:
        right = [
            grade_number(g, t, grader=reader).correct for g, t in zip(frame["gold"], frame["response"], strict=True)
        ]
        gains.setdefault(name, {})[reader] = pd.Series(right).groupby(frame["problem_id"].to_numpy()).mean().mean()
print(f"{base['problem_id'].nunique()} problems, the same ones in each line")
pd.DataFrame(gains).T.map("{:.1%}".format)

# %% [markdown]
# *What to look at.* Compare the first row with the second, and the third with the first. The four readers of this
# format see one gain. From the third row to the first nothing is learned about arithmetic, and two of the graders
# report a gain of the size that papers are written about.
#
# ## 7 Grading a file
#
# `rlino grade` grades responses from anywhere, one JSON object per line: also those to the real GSM8K, after `rlino
# fetch gsm8k`. A line that cannot be graded is reported and left out, and the exit code says so.

# %% tags=["nbval-check-output"]
import subprocess
import sys

lines = """{"nums": [8, 2, 4], "target": 64, "response": "<answer> ( 8 * 4 ) * 2 </answer>"}
{"nums": [8, 2, 4], "target": 64, "response": "<answer> 8 * 8 </answer>", "from": "elsewhere"}
{"nums": [8, 2, 4], "response": "<answer> 8 </answer>"}
"""
command = [sys.executable, "-m", "rlino_lib.cli", "grade", "--rewards", "format", "-"]
done = subprocess.run(command, input=lines, capture_output=True, text=True)
print("stdout:", *done.stdout.splitlines(), sep="\n  ")
print("stderr:", *done.stderr.splitlines(), sep="\n  ")
print("exit code:", done.returncode)

# %% [markdown]
# ## Exercises
#
# Each exercise has a checker that compares your function with a right one and, where it can, names the likely
# mistake.
#
# **1. Exactly once.** The first draft compares sets. Write `uses_numbers(answer, nums)`, which says whether an
# answer uses each given number exactly once. Its value does not matter here.

# %%
from checkers.tasks import check_grader, check_leak


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
# **3. Be the policy.** Find a response, not in the list above, that the first draft pays and the library does not.
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
# **4. The value of trying.** Under the ternary scheme a policy that always answers at random, with a chance $p$ of
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
#   gradient as soon as its format is mixed, which the paper's binary derivation leaves out.
# - **Open**: whether that push towards answering changes the length of responses during training.
#
# Next, chapter 03 looks at the model that wrote these responses.
