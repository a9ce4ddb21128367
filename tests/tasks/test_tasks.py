"""What all tasks share: where a response ends, what a setting may hold, and inputs that were graded wrongly once."""

import json
import math
import random
import re
from dataclasses import fields

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rlino_lib.cli import grade as grading
from rlino_lib.cli import main as cli
from rlino_lib.errors import RlinoError
from rlino_lib.evaluation import evaluate, graded
from rlino_lib.records.runs import list_runs
from rlino_lib.tasks import TASKS, Countdown, Gsm8k, Problem, WordProblems, get_task
from rlino_lib.tasks.base import END_MARKS, up_to_stop
from rlino_lib.tasks.countdown.game import make_problem
from rlino_lib.tasks.countdown.task import TEMPLATES as COUNTDOWN_TEMPLATES
from rlino_lib.tasks.gsm8k.task import TEMPLATES as GSM8K_TEMPLATES
from rlino_lib.tasks.word_problems.task import TEMPLATES as WORD_TEMPLATES
from rlino_lib.training.presets import presets

# --- where a response ends -------------------------------------------------------------------------------------------

STOP = ("\nQuestion:", "</s>")


@pytest.mark.parametrize(
    ("response", "kept"),
    [
        ("72", "72"),
        ("", ""),
        ("72\nQuestion: 5", "72"),
        ("72\n\nQuestion: 5", "72\n"),
        ("72\r\nQuestion: 5", "72\r"),
        ("Question: 5", ""),  # the start of a response is the start of a line
        ("\nQuestion: 5", ""),
        ("the Question: 5\nis 72", "the Question: 5\nis 72"),
        ("72</s>5\nQuestion: 6", "72"),
        ("72\nQuestion: 6</s>", "72"),
        ("</s>72", ""),
        ("72\nQuestion", "72\nQuestion"),
        ("72\u2028Question: 5", "72\u2028Question: 5"),
    ],
)
def test_a_response_ends_before_the_first_stop_string(response, kept):
    assert up_to_stop(response, STOP) == kept
    assert up_to_stop(response, ()) == response


@settings(deadline=None)
@given(st.lists(st.sampled_from(["\n", "Question:", "a", "</s>", "Question", " "]), max_size=12).map("".join))
@example("Question:")
def test_the_first_stop_string_whatever_the_text(response):
    first = re.search(r"(?:\A|\n)Question:|</s>", response)
    assert up_to_stop(response, STOP) == (response[: first.start()] if first else response)


def test_what_begins_a_turn_of_the_prompt_ends_a_response_to_it():
    for templates, mark in ((COUNTDOWN_TEMPLATES, "User:"), (WORD_TEMPLATES, "Question:"), (GSM8K_TEMPLATES, None)):
        for name, template in templates.items():
            if name == "compact":  # of the shipped bases, which end their responses themselves
                assert template.stop == ()
                continue
            first = template.stop[0]
            assert first == (f"\n{mark}" if mark else first) and first.strip() in template.text
            assert set(END_MARKS) & set(template.stop)


@pytest.mark.parametrize(
    "task",
    [Countdown(template="r1_zero"), WordProblems(template="zero_shot"), Countdown()],
)
def test_sampling_is_given_the_stop_strings_that_the_grader_reads_up_to(task, monkeypatch):
    class Sampled(Exception):
        pass

    def spy(policy, prompts, samples, **settings):
        assert settings["stop_strings"] == task.stop
        raise Sampled

    monkeypatch.setattr(graded, "sample", spy)
    with pytest.raises(Sampled):
        evaluate.evaluate(None, task, task.problems("test", 1))
    assert bool(task.stop) == (task.template != "compact")


def test_the_presets_for_hub_models_have_stop_strings():
    chosen = [preset.settings for preset in presets().values()]
    assert {s["task"] for s in chosen} == {"countdown", "gsm8k"}
    assert all(get_task(s["task"], **s["task_settings"]).stop for s in chosen)


@pytest.mark.parametrize(("folder", "task"), [("countdown", "countdown"), ("head-to-head", "word_problems")])
def test_recorded_responses_have_the_grades_that_were_recorded(folder, task):
    runs = [r for r in list_runs(folder) if r.config["task"] == task and not r.config["task_settings"]][:6]
    rows = pd.concat([r.rollouts for r in runs])
    assert len(rows) >= 500
    for row in rows.itertuples():
        problem = Problem(row.problem_id, row.data, row.gold)
        got = get_task(task).grade(problem, row.response)
        assert (got.reward, got.correct, got.format_ok, got.reason) == (
            row.reward, row.correct, row.format_ok, row.reason,
        )  # fmt: skip
        assert got.answer == row.answer or (got.answer is None and pd.isna(row.answer))


# --- inputs that were graded wrongly ---------------------------------------------------------------------------------


def verdicts(task, settings, *records):
    lines = [json.dumps(r).encode() for r in records]
    return [line.correct for line in grading.grade_stream(lines, task, settings=settings)]


def test_a_next_countdown_question_that_the_model_invents_is_not_graded():
    record = {
        "nums": [8, 2, 4],
        "target": 64,
        "response": " 8 * 4 is 32, times 2 is 64. </think>\n<answer> 8 * 4 * 2 </answer>\n\nUser: Using the numbers "
        "[3, 5], create an equation that equals 15.\nAssistant: <think> 3 * 5 </think> <answer> 3 * 5 </answer>",
    }
    assert verdicts("countdown", {"template": "r1_zero"}, record) == [True]
    assert verdicts("countdown", {}, record) == [False]  # the shipped base's responses are read whole, as before


def test_the_last_countdown_answer_before_the_end_counts():
    task, problem = Countdown(template="r1_zero"), make_problem([8, 2, 4], 64)
    for response, correct in (
        ("I return it in <answer> </answer> tags. </think> <answer> 8 * 4 * 2 </answer>", True),
        ("</think> <answer> 8 </answer> no: <answer> 8 * 4 * 2 </answer>", True),
        ("The User: wants 64. </think> <answer> 8 * 4 * 2 </answer>", True),
        ("</think> <answer> 8 * 4 * 2 </answer><|im_end|> <answer> 8 </answer>", True),
        ("</think>\nAssistant: <answer> 8 * 4 * 2 </answer>", False),
    ):
        assert task.grade(problem, response).correct == correct
    searched = " 8 * 4 = 32, 32 * 2 = 64 yes"
    assert task.counts(problem, searched + "\nUser: 8 * 4 = 32 no") == task.counts(problem, searched)


@pytest.mark.parametrize("template", WORD_TEMPLATES)
def test_a_next_word_problem_that_the_model_invents_is_not_graded(template):
    record = {
        "gold": 38,
        "response": " 3 * 15 = 45. 45 - 7 = 38.\n#### 38\n\nQuestion: Tom has 9 pens and buys 5 more. How many?\n"
        "Solution: 9 + 5 = 14\n#### 14",
    }
    assert verdicts("word_problems", {"template": template}, record) == [True]


def test_the_word_question_in_a_sentence_ends_nothing_but_for_the_harness():
    record = {
        "gold": 72,
        "response": "Restating the Question: how many clips in both months?\nApril 48, May 24, so 48 + 24 = 72.\n"
        "#### 72",
    }
    runs_on = {"gold": 72, "response": "#### 72\nQuestion: 2 + 3?\nAnswer: #### 5"}
    for grader, sentence in {
        "strict": True,
        "flexible": True,
        "strict-match": False,
        "flexible-extract": False,
    }.items():
        assert verdicts("gsm8k", {"grader": grader}, record, runs_on) == [sentence, True]
        assert ("Question:" in Gsm8k(grader=grader).stop) != sentence and "\nQuestion:" in Gsm8k(grader=grader).stop


def test_units_and_names_in_a_box():
    records = [
        {"gold": 60, "response": "So the speed is \\boxed{60\\text{ km/h}}."},
        {"gold": 5, "response": "The area is \\boxed{5\\text{ cm}^2}."},
        {"gold": 5, "response": "He has \\boxed{5~\\text{apples}}."},
        {"gold": 72, "response": "Hence \\boxed{x = 72}."},
        {"gold": 5, "response": "They sold \\boxed{5\\text{ million}} copies."},
        {"gold": 5000000, "response": "They sold \\boxed{5\\text{ million}} copies."},
    ]
    assert verdicts("gsm8k", {"grader": "boxed"}, *records) == [True, True, True, True, False, True]


@pytest.mark.parametrize("task", ["gsm8k", "word_problems"])
def test_a_gold_with_spaced_thousands(task):
    records = [
        {"answer": "Il gagne 1 000 euros.\n#### 1 000", "response": "#### 1000"},
        {"answer": "Il gagne 1 000 euros.\n#### 1 000", "response": "#### 1"},
        {"gold": 1000, "response": "#### 1 000"},
    ]
    assert verdicts(task, {}, *records) == [True, False, True]


# --- settings --------------------------------------------------------------------------------------------------------

BAD = [
    ("countdown", "n_numbers", [1, 5, -3, 3.0, True, "3", None, math.nan]),
    ("countdown", "numbers", [3, (1,), (1, 2, 3), (20, 1), (0, 20), (1, 10**10), (1.0, 2), (True, 5), "ab", None]),
    ("countdown", "targets", [(10,), [10], 10, (0, 5), (math.nan, 5), (9, 5), {"a": 1, "b": 2}]),
    ("countdown", "template", ["x", 3, None, [], ("compact",), {}]),
    ("countdown", "rewards", ["gold", 1, ["binary"]]),
    ("countdown", "seed", [-1, 10**20, 0.5, "0", True, math.inf]),
    ("countdown", "restarts", [-0.1, 1.5, math.nan, True, "0.5", None, (0.5,)]),
    ("countdown", "restart_bonus", [-0.5, 1.5, math.inf, False, "0.5", None]),
    ("countdown", "restart_held_out", [-1, 3, 1.0, True, "1", None]),
    ("word_problems", "distractors", [-0.1, 1.5, math.nan, True, "0.5", None, (0.5,)]),
    ("word_problems", "template", ["r1_zero", False, []]),
    ("word_problems", "rewards", ["x", {}]),
    ("word_problems", "seed", [-1, 10**20, 1.0, "x"]),
    ("clean_room", "good", [-0.1, 1.5, math.nan, True, "0.5", None]),
    ("clean_room", "worth", [-0.1, 1.5, math.nan, False, "0", (0.5,)]),
    ("clean_room", "seed", [-1, 10**20, 1.0, "x"]),
    ("hidden_target", "lies", [-0.1, 1.5, math.nan, True, "0.5", None]),
    ("hidden_target", "n_numbers", [1, 5]),
    ("gsm8k", "template", ["compact", 0, []]),
    ("gsm8k", "shots", [-1, 9, True, "4", 2.0, math.nan]),
    ("gsm8k", "grader", ["loose", 5, ["strict"], None]),
    ("gsm8k", "rewards", ["x", ()]),
    ("gsm8k", "folder", [5, None, ["a"], "a\0b"]),
]


@pytest.mark.parametrize(("task", "name", "value"), [(task, name, v) for task, name, values in BAD for v in values])
def test_a_value_out_of_range_is_one_line_that_names_it(task, name, value):
    with pytest.raises(RlinoError) as e:
        get_task(task, **{name: value})
    assert str(e.value).startswith(f"{task}: {name} must be ") and str(e.value).endswith(f", not {value!r}")
    assert "\n" not in str(e.value)


def test_a_long_value_is_cut_and_a_line_break_is_written_out():
    with pytest.raises(RlinoError) as e:
        Countdown(template="x\n" * 1000)
    assert len(str(e.value)) < 200 and "\n" not in str(e.value)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", ["colour", "name", "stop"])
def test_an_unknown_setting_is_one_line_with_the_known_ones(task, name):
    known = ", ".join(f.name for f in fields(TASKS[task]))
    with pytest.raises(RlinoError, match=f"task {task} has no setting '{name}': one of {known}"):
        get_task(task, **{name: "x"})
    assert get_task(task).name == task


def test_the_ends_of_every_range_work():
    for n in (2, 4):
        assert len(Countdown(n_numbers=n, numbers=(1, 10**9), targets=(1, 10**9)).problems("test", 3)) == 3
    assert len(Countdown(numbers=[5, 25], seed=10**9).problems("train", 2)) == 2  # as JSON has it
    for share in (0, 1, 0.0, 1.0):
        assert len(WordProblems(distractors=share).problems("test", 2)) == 2


def test_ranges_that_no_problem_has_are_one_line():
    task = Countdown(numbers=(1, 2), targets=(90, 99))
    with pytest.raises(RlinoError, match=r"no train problem with n_numbers=3, numbers=\(1, 2\), targets=\(90, 99\)"):
        task.problems("train")
    assert task.problems("train", 0) == []


@pytest.mark.parametrize(
    ("task", "pair", "words"),
    [
        ("countdown", "targets=[10]", "targets must be two whole numbers from 1 to"),
        ("countdown", "numbers=3", "numbers must be two whole numbers"),
        ("countdown", "n_numbers=true", "n_numbers must be a whole number from 2 to 4, not True"),
        ("countdown", "template=NaN", "--task-set template holds NaN, which is no finite number"),
        ("word_problems", "distractors=NaN", "--task-set distractors holds NaN"),
        ("gsm8k", "shots=[1]", "shots must be a whole number from 0 to 8, not (1,)"),
    ],
)
def test_settings_of_the_command_line(task, pair, words, tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text("{}\n", encoding="utf-8")
    argv = ["--task", task, "--task-set", pair]
    for command in (["grade", str(tmp_path / "a.jsonl")], ["evaluate", "--out", str(tmp_path / "out")]):
        assert cli.main([*command, *argv]) == 2
        captured = capsys.readouterr()
        assert words in captured.err and captured.err.count("\n") == 1 and captured.out == ""
    assert not (tmp_path / "out").exists()


@settings(deadline=None)
@given(st.sampled_from(sorted(TASKS)), st.data())
def test_no_value_of_a_setting_is_a_traceback(name, data):
    fields = [key for task, key, _ in BAD if task == name]
    value = data.draw(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
        | st.lists(st.integers() | st.floats() | st.booleans(), max_size=3)
    )  # fmt: skip
    key = data.draw(st.sampled_from(fields))
    try:
        task = get_task(name, **{key: value})
    except RlinoError as e:
        assert f"{name}: {key} must be " in str(e)
    else:
        assert isinstance(task.prompt(sample_problem(name)), str)


def sample_problem(name):
    if name in ("countdown", "hidden_target"):
        return make_problem([random.Random(0).randint(1, 9), 2], 5)
    if name == "clean_room":
        return Problem("x", {"number": 3})
    return Problem("x", {"question": "1 + 1?", "answer": "2"})
