"""The lengths of a base's wrong responses: those of its evaluation, and what they say of steps that are left out."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from rlino_lib.analysis.growth import base_problems, final_responses, growth, left_out, parts_of
from rlino_lib.claims.length import length_runs
from rlino_lib.policy.models import load_policy
from rlino_lib.records.runs import list_runs
from rlino_lib.tasks import get_task
from rlino_lib.tasks.base import Problem
from tools import lengths

BASE = "data/base/word_problems"


def test_wrong_responses_are_counted_by_problem_and_length(tmp_path, monkeypatch, capsys):
    names = ["id", "length", "correct", "clipped"]
    rows = [("b", 9, 0, 0), ("b", 7, 0, 0), ("b", 9, 0, 0), ("b", 5, 1, 0), ("a", 64, 0, 1), ("a", 3, 0, 0)]
    monkeypatch.setattr("sys.argv", ["lengths", str(tmp_path)])
    assert lengths.main() == 2 and "--responses" in capsys.readouterr().err
    lines = [json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows]
    (tmp_path / "responses.jsonl").write_text("".join(lines))
    assert lengths.main() == 0
    found = pd.read_csv(tmp_path / "wrong_lengths.csv.gz")
    assert list(found.itertuples(index=False, name=None)) == [("b", 7, 1), ("b", 9, 2), ("a", 3, 1)]


def test_the_shipped_lengths_are_those_of_the_shipped_evaluation(root):
    problems = pd.read_json(root / BASE / "problems.jsonl", lines=True).set_index("id")
    table = pd.read_csv(root / BASE / "wrong_lengths.csv.gz")
    sums = table.assign(tokens=table["length"] * table["n"]).groupby("id")[["n", "tokens"]].sum()
    sums = sums.reindex(problems.index, fill_value=0)
    assert (sums["n"] == problems["n"] - problems["c"] - problems["clipped"]).all() and not problems["clipped"].any()
    assert (sums["tokens"] == problems["tokens"] - problems["tokens_correct"]).all()


def test_a_length_tells_a_step_that_is_left_out():
    """In every kept response of the recorded runs: what is short lacks a line, and what has its lines is not short."""
    task = get_task("word_problems")
    tokenizer = load_policy(BASE).tokenizer
    for problem in task.problems("test", 200):
        texts = f" {problem.gold}".replace("\n", "|\n").split("|")
        *lines, answer = (len(tokenizer.encode(text)) for text in texts)
        assert task.least_length(problem) == sum(lines) + answer + 2 - min(lines), problem.gold
    runs = [*list_runs("head-to-head"), *list_runs("length")]
    kept = pd.concat(run.rollouts for run in runs if run.config["task"] == "word_problems")
    kept = kept.drop_duplicates("response", ignore_index=True)
    least = [task.least_length(Problem("", {}, gold)) for gold in kept["gold"]]
    short = kept["length"] < least
    lacking = kept["response"].str.count("\n") < kept["data"].map(lambda data: len(data["steps"]))  # a line a step
    assert short.sum() > 20 and lacking[short].all()
    assert short[lacking].mean() > 0.97  # the others put two steps into one line


@pytest.mark.parametrize("normaliser", ["per_response", "constant"])
def test_the_parts_of_the_recorded_runs_close_on_growth(normaliser):
    for run in length_runs("word_problems", "grpo", normaliser):
        parts = parts_of(run)
        assert parts.total == pytest.approx(growth(run, "wrong"), abs=1e-9)
        assert parts.within > 0.5 * parts.total and parts.truncated < 0.1
        base = base_problems(run)
        wrong = final_responses(run).query("not correct")
        assert left_out(wrong, base).mean() < 0.5 * base["short"].sum() / base["wrong"].sum()
    for run in length_runs("countdown", "grpo", normaliser):
        assert parts_of(run).within == 0 and parts_of(run).total == pytest.approx(growth(run, "wrong"), abs=1e-9)
