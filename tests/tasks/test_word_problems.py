"""Word problems: templates, splits, solutions, prompts and grading (chapter 02). Exact: integers only."""

import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlino_lib.errors import RlinoError
from rlino_lib.tasks import WordProblems, get_task
from rlino_lib.tasks.base import split_of_key
from rlino_lib.tasks.word_problems.task import (
    KEEP,
    LARGEST,
    SIZES,
    _numbers,
    apply,
    draw,
    problem_from_record,
    solve,
    templates,
    vocabulary,
    write,
)
from rlino_lib.tasks.word_problems.templates import FAMILIES, FILLERS, PEOPLE

EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")


def generate(split, n=None, **settings):
    return WordProblems(**settings).problems(split, n)


TEST = WordProblems().problems("test")


# --- templates -------------------------------------------------------------------------------------------------------


def test_there_are_many_templates_over_many_families():
    for split, least in (("train", 250), ("validation", 25), ("test", 50)):
        pool = templates()[split]
        assert set(pool) == set(FAMILIES) and all(pool.values())
        assert sum(map(len, pool.values())) >= least
    names = [t.name for split in templates().values() for family in split.values() for t in family]
    assert len(set(names)) == len(names) and max(Counter(n.split("-")[0] for n in names).values()) <= KEEP


def test_unseen_templates_are_made_of_pieces_that_train_has():
    def pieces(split):
        return {(f, piece.text, piece.lines) for f, ts in templates()[split].items() for t in ts for piece in t.pieces}

    assert pieces("test") <= pieces("train") and pieces("validation") <= pieces("train")


def test_every_template_has_two_to_four_steps_and_enough_numbers():
    rng = random.Random(0)
    for split in templates().values():
        for template in (t for family in split.values() for t in family):
            stories = [f for f in (_numbers(template, rng) for _ in range(400)) if f]
            assert len(stories) >= 4, template.name
            assert 2 <= len(stories[0][1]) <= 4
            assert len({json.dumps(numbers) for numbers, _ in stories}) >= 4, template.name


# --- problems --------------------------------------------------------------------------------------------------------


def test_the_test_split_is_half_new_numbers_and_half_unseen_templates():
    assert len(TEST) == SIZES["test"] == 1024 and len({p.id for p in TEST}) == 1024
    seen = {t.name for family in templates()["train"].values() for t in family}
    for k, problem in enumerate(TEST):
        assert problem.data["kind"] == ("numbers", "template")[k % 2]
        assert (problem.data["template"] in seen) == (problem.data["kind"] == "numbers")
    assert {len(p.data["steps"]) for p in TEST} == {2, 3, 4}
    assert 0.2 < sum(p.data["distractor"] is not None for p in TEST) / 1024 < 0.4


def test_no_problem_is_in_two_splits():
    def keys(split, seed=0):
        return {p.id for p in generate(split, min(2000, SIZES[split]), seed=seed)}

    train, validation, test = keys("train") | keys("train", 1), keys("validation"), keys("test")
    assert not train & test and not train & validation and not validation & test
    unseen = {split: {t.name for ts in templates()[split].values() for t in ts} for split in SIZES}
    assert not unseen["test"] & unseen["train"] and not unseen["test"] & unseen["validation"]
    assert all(split_of_key(key.removeprefix("word_problems/")) == "train" for key in train)


def test_the_same_numbers_are_in_one_split_whatever_the_names():
    for problem in TEST[:200:2]:
        key = f"{problem.data['template']}/{'-'.join(map(str, problem.data['numbers']))}"
        assert problem.id == f"word_problems/{key}" and split_of_key(key) == "test"


def test_every_number_of_the_question_is_accounted_for():
    for problem in TEST:
        written = Counter(map(int, re.findall(r"\d+", problem.data["question"])))
        known = Counter(problem.data["numbers"])
        known[problem.data["distractor"]] += 1
        known.pop(None, None)
        assert written == known


def test_gold_solutions_hold_in_plain_arithmetic_and_use_what_is_known():
    for problem in TEST:
        *lines, last = problem.gold.splitlines()
        known = {*problem.data["numbers"], 2, 7, 12, 60}  # half and twice, a week, a dozen, an hour
        for line in lines:
            a, op, b, c = re.fullmatch(rf"[^\d]*{EQUATION.pattern}[^\d]*", line).groups()
            a, b, c = int(a), int(b), int(c)
            assert {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[op] == c and 2 <= c <= LARGEST
            assert {a, b} <= known
            known.add(c)
        assert last == f"#### {problem.data['answer']}" == f"#### {c}"
        assert len(lines) == len(problem.data["steps"])
        assert WordProblems().grade(problem, problem.gold).correct


def test_no_sentence_has_an_open_slot_and_no_story_has_a_name_twice_over():
    for problem in generate("train", 3000):
        text = problem.data["question"] + problem.gold
        assert not re.search(r"[{}\[\]]|\b1 ", text), text
        people = set(re.findall("|".join(PEOPLE), text))
        assert len(people) <= 3
    assert all(len(words) == len(set(words)) for words in FILLERS.values())


def test_generation_is_deterministic_and_prefix_stable():
    assert generate("test", 40, seed=3) == generate("test", 100, seed=3)[:40] != generate("test", 40, seed=4)
    assert generate("train", 0) == [] and len(generate("train")) == SIZES["train"]
    code = "from rlino_lib.tasks import WordProblems; [print(p, p.gold) for p in WordProblems().problems('test', 50)]"
    out = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": s}, capture_output=True
        ).stdout
        for s in ("0", "1")
    }
    assert len(out) == 1 and out.pop().count(b"word_problems/") == 50


def test_distractors_can_be_left_out_or_always_there():
    assert all(p.data["distractor"] is None for p in generate("test", 60, distractors=0.0))
    always = generate("test", 60, distractors=1.0)
    assert all(re.search(rf"\b{p.data['distractor']}\b", p.data["question"]) for p in always)
    assert WordProblems(distractors=1.0).problems("test", 60) == always


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(["train", "validation", "test"]))
def test_a_drawn_problem_belongs_to_its_split(rng, split):
    problem = draw(rng, split)
    assert split_of_key(problem.id.removeprefix("word_problems/")) == split
    assert problem.data["answer"] == solve(problem.data["steps"])[-1]


@given(st.integers(0, 300), st.sampled_from("+-*/"), st.integers(0, 300))
def test_a_step_gives_an_integer_in_range_or_nothing(a, op, b):
    result = apply(a, op, b)
    if result is not None:
        assert 2 <= result <= LARGEST and {"+": a + b, "-": a - b, "*": a * b, "/": b and a / b}[op] == result


def test_a_slip_is_carried_on():
    steps = next(p for p in TEST if len(p.data["steps"]) > 2 and p.data["steps"][1].left == "s0").data["steps"]
    right, wrong = solve(steps), solve(steps, (0, 1))
    assert wrong is None or (wrong[0] == right[0] + 1 and str(wrong[0]) in write(steps, wrong).splitlines()[1])


@pytest.mark.parametrize("bad", [dict(split="tets"), dict(n=10**6), dict(n=-1)])
def test_unusable_requests_are_one_line(bad):
    with pytest.raises(RlinoError) as e:
        generate(**{"split": "test", **bad})
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("bad", [dict(template="x"), dict(rewards="x"), dict(colour="red"), dict(distractors=2)])
def test_unknown_settings_of_the_task(bad):
    with pytest.raises(RlinoError):
        get_task("word_problems", **bad)


# --- prompts and vocabulary ------------------------------------------------------------------------------------------


def test_prompts_hold_the_question():
    problem = TEST[0]
    assert WordProblems().prompt(problem) == f"Question: {problem.data['question']}\nSolution:"
    text = WordProblems(template="zero_shot").prompt(problem)
    assert text.endswith(f"Question: {problem.data['question']}\nSolution:") and "####" in text


def test_the_vocabulary_spells_every_problem_and_solution():
    words = vocabulary()
    assert len(set(words)) == len(words)
    pattern = re.compile("|".join(map(re.escape, sorted(words, key=len, reverse=True))))
    for problem in TEST:
        text = f"{WordProblems().prompt(problem)} {problem.gold}"
        assert pattern.sub("", text) == ""


# --- grading ---------------------------------------------------------------------------------------------------------


def test_a_record_of_the_grade_command_is_a_problem():
    task = WordProblems()
    for record, right in (
        ({"gold": 72}, "72"), ({"gold": "1,072"}, "1072"), ({"gold": 2.5}, "2.50"),
        ({"answer": "48 / 2 = <<48/2=24>>24 clips.\n#### 24"}, "24"),
    ):  # fmt: skip
        problem = task.problem_from_record(record)
        assert task.grade(problem, f"so\n#### {right}").correct and not task.grade(problem, "#### 3").correct


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        ({}, "no key 'gold' or 'answer'"),
        ({"gold": None}, "gold is not a number or a string"),
        ({"gold": True}, "gold is not a number or a string"),
        ({"gold": [7]}, "gold is not a number or a string"),
        ({"gold": "seven"}, "gold holds no number"),
        ({"answer": ""}, "answer holds no number"),
        ({"gold": "9" * 5000}, "gold holds no number"),
        ({"gold": float("nan")}, "gold holds no number"),
    ],
)
def test_a_bad_record_is_refused_in_words(record, fault):
    with pytest.raises(ValueError, match=re.escape(fault)):
        problem_from_record(record)


def test_rewards():
    problem = TEST[0]
    right = f"#### {problem.data['answer']}"
    for scheme, expected in (("binary", (1.0, 0.0, 0.0)), ("format", (1.0, 0.1, 0.0))):
        task = WordProblems(rewards=scheme)
        assert tuple(task.grade(problem, r).reward for r in (right, "#### 1", "none")) == expected


@settings(deadline=None)
@given(st.text(max_size=60) | st.text(alphabet="#$ -0123456789.,\n", max_size=60))
def test_grading_never_fails(response):
    grade = WordProblems().grade(TEST[0], response)
    assert grade.reason and (grade.format_ok or not grade.correct)


@pytest.mark.parametrize("piece", ["#### ", "#", "#### 1", " ", "#### -", "9", "9,", "#### $", "\ud800"])
def test_a_hostile_megabyte_is_graded_in_milliseconds(piece):
    text = piece * (5_000_000 // len(piece))
    start = time.process_time()
    WordProblems().grade(TEST[0], text)
    assert time.process_time() - start < 0.1


def test_a_right_chain_has_right_steps_and_ends_with_the_answer():
    task = WordProblems()
    for problem in TEST[:50]:
        assert task.chain_right(problem, f" {problem.gold}")
        assert task.chain_right(problem_from_record({"answer": problem.gold}), problem.gold)
        *lines, answer = problem.gold.split("\n")
        assert not task.chain_right(problem, answer)  # no step
        assert not task.chain_right(problem, "\n".join(lines))  # no answer
        assert not task.chain_right(problem, "\n".join([*lines, "So 1 * 1 = 1.", answer]))  # the last step is another
        assert not task.chain_right(problem, "\n".join(["So 1 + 1 = 3.", *lines, answer]))  # a slip on the way
        assert not task.chain_right(problem, "\n".join([*lines, "#### 1"]))
