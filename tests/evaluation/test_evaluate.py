"""Intervals, and evaluations that go on where they were killed."""

import json

import pandas as pd
import pytest
import torch

from rlino_lib.analysis.statistics import bootstrap_interval
from rlino_lib.cli import main as cli
from rlino_lib.errors import RlinoError
from rlino_lib.evaluation.evaluate import (
    base_columns,
    eval_columns,
    evaluate,
    outcome_metrics,
    problem_row,
    summarise,
)
from rlino_lib.paths import base_of
from rlino_lib.policy.models import load_policy, save_policy
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.tasks import Countdown, Grade, Problem, WordProblems
from rlino_lib.tasks.fetch import data_folder
from tests.lookalikes import lookalike


def test_the_bootstrap_covers_the_mean_about_as_often_as_it_says():
    rng = torch.Generator().manual_seed(0)
    hits = 0
    for _ in range(200):
        values = (torch.rand(40, generator=rng) < 0.3).double().tolist()
        low, high = bootstrap_interval(values)
        hits += low <= 0.3 <= high
    assert 0.88 <= hits / 200 <= 0.99
    assert bootstrap_interval([2.0, 2.0]) == (2.0, 2.0)


@pytest.fixture
def rollouts():
    """Two groups of two: tokens 2, 4, 3, 4; the first is right, the last truncated; one answer is badly formed."""
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1]]).bool()
    return Rollouts(
        prompts=["a", "b"], prompt_ids=torch.zeros(2, 1), prompt_mask=torch.ones(2, 1).bool(), ids=torch.zeros(4, 4),
        mask=mask, logprobs=-1.0 * mask, entropies=0.5 * mask, truncated=torch.tensor([False, False, False, True]),
        texts=["1 + 1 = 2 yes", "1 + 1 = 3 no", " no 2 * 2 = 4 no", ""], group_size=2,
        problems=[Problem("p", {"kind": "easy"}), Problem("q", {"kind": "hard"})],
        grades=[Grade(1, True, True, "", ""), Grade(0, False, True, "", "")] + [Grade(0, False, False, None, "")] * 2,
    )  # fmt: skip


def test_outcome_metrics_of_rollouts_by_hand(rollouts):
    metrics = outcome_metrics(rollouts)
    assert metrics["accuracy"] == 0.25 and metrics["format_ok"] == 0.5 and metrics["reward"] == 0.25
    assert metrics["completions/mean_length"] == 3.25 and metrics["completions/clipped_ratio"] == 0.25
    assert metrics["frac_reward_zero_std"] == 0.5 and metrics["entropy"] == 0.5
    assert metrics["length/correct"] == 2 and metrics["length/incorrect"] == pytest.approx(11 / 3)
    assert metrics["length/incorrect_unclipped"] == 3.5
    assert (metrics["n_correct"], metrics["n_incorrect"]) == (1, 3)
    assert metrics["logprob/correct"] == -2 and metrics["logprob/incorrect"] == pytest.approx(-11 / 3)
    for column, value in eval_columns(rollouts).items():
        name = column.removeprefix("eval/")
        assert value == metrics[name if name in metrics else f"completions/{name}"], column


def test_rows_of_problems_and_their_summary_by_hand(rollouts):
    rows = [problem_row(rollouts, i, Countdown()) for i in range(2)]
    assert rows[0] == {
        "id": "p", "n": 2, "c": 1, "format_ok": 2, "clipped": 0, "tokens": 6, "tokens_correct": 2,
        "steps": 2, "steps_right": 1, "attempts": 2, "kind": "easy",
    }  # fmt: skip
    assert rows[1] == {
        "id": "q", "n": 2, "c": 0, "format_ok": 0, "clipped": 1, "tokens": 7, "tokens_correct": 0,
        "steps": 1, "steps_right": 1, "attempts": 2, "kind": "hard",
    }  # fmt: skip
    summary = summarise(pd.DataFrame(rows), ks=(1, 2, 4))
    assert list(summary)[:4] == ["problems", "samples", "pass@1", "pass@2"]
    assert (summary["problems"], summary["samples"]) == (2, 2)
    assert summary["pass@1"]["value"] == 0.25 and summary["pass@2"]["value"] == 0.5  # one of two, and none
    assert summary["by_kind"] == {"easy": 0.5, "hard": 0.0}
    assert summary["format_ok"] == 0.5 and summary["clipped_ratio"] == 0.25 and summary["mean_length"] == 13 / 4
    assert summary["length/correct"] == 2 and summary["length/incorrect"] == pytest.approx(11 / 3)
    assert summary["steps_right"] == pytest.approx(2 / 3) and summary["attempts_per_response"] == 1
    none_right = summarise(pd.DataFrame(rows[1:]))
    assert none_right["length/correct"] is None and none_right["length/incorrect"] == 3.5
    all_right = summarise(pd.DataFrame([rows[0] | {"c": 2, "tokens_correct": 6}]))
    assert all_right["length/incorrect"] is None and all_right["length/correct"] == 3
    assert "steps_right" not in summarise(pd.DataFrame([rows[0] | {"steps": 0}]))


def test_base_columns_by_hand(rollouts):
    """Each token of the policy's is 1 nat less likely under the base; the base's right response gains half a nat."""
    now = torch.full((4, 4), -0.5)  # [M, T], masked entries among them
    columns = base_columns(rollouts, rollouts.logprobs - 1.0, rollouts, now)
    assert columns["eval/kl_base"] == 13 / 4  # the mean of 2, 4, 3 and 4 tokens
    assert columns["eval/base/correct"] == -1 and columns["eval/base/incorrect"] == pytest.approx(-11 / 6)
    rollouts.grades = [Grade(0, False, True, "", "")] * 4
    assert base_columns(rollouts, rollouts.logprobs, rollouts, now)["eval/base/correct"] is None


def test_a_killed_evaluation_goes_on(tmp_path):
    policy, task = load_policy(), Countdown()
    problems = task.problems("test", 12)
    ask = dict(samples=4, chunk=4, max_new_tokens=60)
    whole = evaluate(policy, task, problems, **ask)
    path = tmp_path / "problems.jsonl"
    evaluate(policy, task, problems, out=path, **ask)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:6]) + '\n{"id": "half')
    resumed = evaluate(policy, task, problems, out=path, **ask)
    assert whole.equals(resumed) and len(path.read_text().splitlines()) == 12
    with pytest.raises(RlinoError, match="another evaluation"):
        evaluate(policy, task, problems, out=path, **(ask | {"samples": 2}))
    found = summarise(whole, ks=(1, 4, 16))
    assert found["pass@1"]["value"] == pytest.approx(whole["c"].sum() / 48) and "pass@16" not in found
    assert found["pass@1"]["low"] <= found["pass@1"]["value"] <= found["pass@1"]["high"]
    assert found["pass@4"]["value"] >= found["pass@1"]["value"]


def test_texts_are_kept_survive_a_kill_and_can_be_graded_again(tmp_path, capsys):
    policy, task = load_policy(base_of("word_problems")), WordProblems()
    problems, path, texts = task.problems("test", 6), tmp_path / "problems.jsonl", tmp_path / "responses.jsonl"
    ask = dict(samples=2, chunk=2, max_new_tokens=60, out=path, responses=texts)
    evaluate(policy, task, problems, **ask)
    whole, rows = texts.read_text(), path.read_text()
    texts.write_text("".join(line + "\n" for line in whole.splitlines()[:5]) + '{"id": "half')
    path.write_text("".join(line + "\n" for line in rows.splitlines()[:4]))
    found = evaluate(policy, task, problems, **ask)
    assert texts.read_text() == whole and path.read_text() == rows
    said = [json.loads(line) for line in whole.splitlines()]
    assert [r["id"] for r in said] == [p.id for p in problems for _ in range(2)]
    assert sum(r["correct"] for r in said) == found["c"].sum() > 0
    assert cli.main(["grade", "--task", "word_problems", str(texts)]) == 0
    again = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [r["correct"] for r in again] == [r["correct"] for r in said]
    with pytest.raises(RlinoError, match="responses.jsonl holds another evaluation"):
        evaluate(policy, task, problems[::-1], **(ask | {"out": tmp_path / "other.jsonl"}))


@pytest.mark.skipif(not (data_folder("gsm8k") / "test.jsonl").exists(), reason="`rlino fetch gsm8k` gets the data")
def test_gsm8k_is_evaluated_with_shots_and_graded_by_another_grader(tmp_path, capsys):
    save_policy(lookalike(vocab_size=700), tmp_path / "model")
    out = tmp_path / "e"
    argv = ["evaluate", "--task", "gsm8k", "--shots", "4", "--model", str(tmp_path / "model"), "--problems", "3",
            "--temperature", "0", "--max-new-tokens", "12", "--responses", "--out", str(out)]  # fmt: skip
    assert cli.main(argv) == 0
    assert json.loads(capsys.readouterr().out)["problems"] == 3
    assert len((out / "problems.jsonl").read_text().splitlines()) == 3
    assert cli.main(["grade", "--task", "gsm8k", "--task-set", "grader=flexible", str(out / "responses.jsonl")]) == 0


def test_a_tasks_stop_strings_end_its_responses():
    class Stopping(WordProblems):
        stop = ("####",)

    policy, problems = load_policy(base_of("word_problems")), WordProblems().problems("test", 4)
    seen = []
    evaluate(policy, Stopping(), problems, max_new_tokens=80, on_rollouts=seen.append)
    assert any("####" in text for text in seen[0].texts)
    assert all(text.endswith("####") for text in seen[0].texts if "####" in text)
    evaluate(policy, Stopping(), problems, max_new_tokens=80, stop_strings=(), on_rollouts=seen.append)
    assert any("#### " in text for text in seen[1].texts)
