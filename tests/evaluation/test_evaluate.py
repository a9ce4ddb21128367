"""Intervals, and evaluations that go on where they were killed."""

import json
from collections import Counter

import pandas as pd
import pytest
import torch

from rlino_lib import settings
from rlino_lib.analysis.statistics import bootstrap_interval
from rlino_lib.cli import main as cli
from rlino_lib.errors import RlinoError
from rlino_lib.evaluation import evaluate as evaluation
from rlino_lib.evaluation.evaluate import (
    Files,
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
        problems=[Problem(i, {"kind": k, "nums": [1, 1], "target": 2}) for i, k in (("p", "easy"), ("q", "hard"))],
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
        "steps": 2, "steps_right": 1, "attempts": 2, "cc": 0, "kind": "easy",
    }  # fmt: skip
    assert rows[1] == {
        "id": "q", "n": 2, "c": 0, "format_ok": 0, "clipped": 1, "tokens": 7, "tokens_correct": 0,
        "steps": 1, "steps_right": 1, "attempts": 2, "cc": 0, "kind": "hard",
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


def test_a_killed_evaluation_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "CHUNK", 4)
    policy, task = load_policy(), Countdown()
    problems = task.problems("test", 12)
    ask = dict(samples=4, max_new_tokens=60)
    whole = evaluate(policy, task, problems, **ask)
    path = tmp_path / "problems.jsonl"
    evaluate(policy, task, problems, files=Files(path), **ask)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:6]) + '\n{"id": "half')
    resumed = evaluate(policy, task, problems, files=Files(path), **ask)
    assert whole.equals(resumed) and len(path.read_text().splitlines()) == 12
    with pytest.raises(RlinoError, match="another evaluation"):
        evaluate(policy, task, problems, files=Files(path), **(ask | {"samples": 2}))
    found = summarise(whole, ks=(1, 4, 16))
    assert found["pass@1"]["value"] == pytest.approx(whole["c"].sum() / 48) and "pass@16" not in found
    assert found["pass@1"]["low"] <= found["pass@1"]["value"] <= found["pass@1"]["high"]
    assert found["pass@4"]["value"] >= found["pass@1"]["value"]


def test_texts_are_kept_survive_a_kill_and_can_be_graded_again(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(evaluation, "CHUNK", 2)
    policy, task = load_policy(base_of("word_problems")), WordProblems()
    problems, path, texts = task.problems("test", 6), tmp_path / "problems.jsonl", tmp_path / "responses.jsonl"
    ask = dict(samples=2, max_new_tokens=60, files=Files(path, texts))
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
        evaluate(policy, task, problems[::-1], **(ask | {"files": Files(tmp_path / "other.jsonl", texts)}))


# --- many samples ----------------------------------------------------------------------------------------------------


class Lines:
    """A sampler whose responses say by which call they were drawn, with which seed and in which row."""

    def __init__(self, dies_at=None):
        self.calls = []
        self.dies_at = dies_at

    def __call__(self, policy, task, problems, size, *, seed, **sampling):
        if len(self.calls) == self.dies_at:
            raise InterruptedError
        self.calls.append(([p.id for p in problems], size, seed))
        n = len(problems) * size
        right = [(seed * 7 + row * row) % 3 == 0 for row in range(n)]
        ones = torch.ones(n, 1).bool()
        return Rollouts(
            prompts=["?"] * len(problems), prompt_ids=ones, prompt_mask=ones, ids=ones, mask=ones, logprobs=ones * 0.0,
            entropies=ones * 0.0, truncated=ones[:, 0], group_size=size, problems=list(problems),
            texts=[f"{seed} {row} <answer> {1 if r else 0} </answer>" for row, r in enumerate(right)],
            grades=[Grade(float(r), r, True, "", "") for r in right],
        )  # fmt: skip


def lines_of(monkeypatch, *args, dies_at=None, **keywords):
    sampler = Lines(dies_at)
    monkeypatch.setattr(evaluation, "sample_graded", sampler)
    frame = None
    try:
        frame = evaluate(None, Countdown(), *args, **keywords)
    except InterruptedError:
        assert dies_at is not None
    return frame, sampler.calls


PROBLEMS = [Problem(f"p{k}", {"nums": [1], "target": 1}) for k in range(70)]


def test_few_samples_are_drawn_as_they_always_were(monkeypatch):
    """The recorded evaluations: 64 problems a call, whose first one's place is in the seed."""
    for samples in (1, 16, 64):
        _, calls = lines_of(monkeypatch, PROBLEMS, samples=samples, seed=2)
        first, rest = ([p.id for p in part] for part in (PROBLEMS[:64], PROBLEMS[64:]))
        assert calls == [(first, samples, 2_000_006), (rest, samples, 2_000_070)]


@pytest.mark.parametrize(("samples", "size", "groups"), [(256, 256, 16), (1024, 1024, 4), (3072, 1024, 3),
                                                         (1500, 750, 4), (8192, 1024, 4)])  # fmt: skip
def test_no_more_responses_are_held_than_a_call_may_have(monkeypatch, samples, size, groups):
    frame, calls = lines_of(monkeypatch, PROBLEMS[:5], samples=samples)
    assert all(call_size == size and len(ids) <= groups for ids, call_size, _ in calls) and groups * size <= 4096
    assert len({seed for *_, seed in calls}) == len(calls)
    assert frame["id"].tolist() == [p.id for p in PROBLEMS[:5]] and (frame["n"] == samples).all()
    drawn = [i for ids, *_ in calls for i in ids]
    assert drawn == [p.id for p in PROBLEMS[:5] for _ in range(samples // size)]
    assert frame["c"].sum() > 0 and (frame["tokens"] == samples).all() and (frame["cc"] == 0).all()


def test_samples_that_make_no_equal_parts_are_refused():
    with pytest.raises(RlinoError, match="samples must be a whole number"):
        evaluate(None, None, [], samples=0)
    with pytest.raises(RlinoError, match="more than 1024 samples are drawn in equal parts: 4100, not 4099"):
        evaluate(None, Countdown(), PROBLEMS, samples=4099)


@pytest.mark.parametrize("samples", [8, 6, 4])
@pytest.mark.parametrize("dies_at", [1, 2, 3])
def test_an_evaluation_that_is_killed_amid_a_problem_goes_on_to_the_same_files(tmp_path, monkeypatch, samples, dies_at):
    monkeypatch.setattr(settings, "GROUP", 2)  # so that a problem's samples are spread over calls
    monkeypatch.setattr(evaluation, "ROWS", 4)
    whole, killed = (Files(*(tmp_path / f"{kind}-{name}" for name in Files._fields)) for kind in ("whole", "killed"))
    frame, calls = lines_of(monkeypatch, PROBLEMS[:5], samples=samples, files=whole)
    assert len(calls) > 4
    lines_of(monkeypatch, PROBLEMS[:5], samples=samples, dies_at=dies_at, files=killed)
    resumed, rest = lines_of(monkeypatch, PROBLEMS[:5], samples=samples, files=killed)
    assert resumed.equals(frame) and calls[-len(rest) :] == rest
    assert [file.read_bytes() for file in killed] == [file.read_bytes() for file in whole]
    texts = [json.loads(line) for line in whole.texts.read_text().splitlines()]
    assert [(t["id"], t["sample"]) for t in texts] == [(p.id, i) for p in PROBLEMS[:5] for i in range(samples)]
    assert [sum(t["correct"] for t in texts if t["id"] == p.id) for p in PROBLEMS[:5]] == frame["c"].tolist()


def test_a_text_that_is_sampled_often_is_read_once(rollouts, monkeypatch):
    read = Counter()

    class Counting(Countdown):
        def grade(self, problem, response):
            read["grade", response] += 1
            return super().grade(problem, response)

        def chain_right(self, problem, response):
            read["chain", response] += 1
            return super().chain_right(problem, response)

    text = " 1 + 1 = 2 yes </think> <answer> 1 + 1 </answer>"
    rollouts.texts = [text, text, text, "other"]
    rollouts.grade(Counting(), rollouts.problems)
    rows = [problem_row(rollouts, i, Counting()) for i in range(2)]
    assert [(r["c"], r["cc"], r["steps"]) for r in rows] == [(2, 2, 2), (1, 1, 1)]
    assert read == {("grade", text): 2, ("grade", "other"): 1, ("chain", text): 2}  # once for each problem


def test_chains_are_in_the_summary_where_all_rows_count_them():
    row = {"id": "p", "n": 8, "c": 4, "format_ok": 8, "clipped": 0, "tokens": 80, "tokens_correct": 40}
    assert summarise(pd.DataFrame([row | {"cc": 3}, row | {"cc": 0}]))["chain_right"] == 3 / 8
    for rows in ([row], [row, row | {"cc": 3}], [row | {"c": 0, "cc": 0}]):  # older records have no cc
        assert "chain_right" not in summarise(pd.DataFrame(rows))


def test_problems_that_an_evaluation_left_unsolved_are_sampled_more(tmp_path, capsys):
    words = ["evaluate", "--device", "cpu", "--max-new-tokens", "40", "--problems", "12"]
    base, more = tmp_path / "base", tmp_path / "more"
    assert cli.main([*words, "--samples", "2", "--out", str(base)]) == 0
    rows = [json.loads(line) for line in (base / "problems.jsonl").read_text().splitlines()]
    failed = [row["id"] for row in rows if not row["c"]]
    assert 0 < len(failed) < 12
    again = [*words, "--samples", "4", "--seed", "1", "--unsolved-by", str(base), "--out", str(more)]
    assert cli.main(again) == 0
    first = capsys.readouterr().out.splitlines()[-1]
    assert [json.loads(line)["id"] for line in (more / "problems.jsonl").read_text().splitlines()] == failed
    assert cli.main(again) == 0 and capsys.readouterr().out.splitlines()[-1] == first  # complete
    assert cli.main([*words, "--samples", "4", "--seed", "1", "--out", str(more)]) == 2
    assert cli.main([*words, "--unsolved-by", str(tmp_path), "--out", str(tmp_path / "x")]) == 2
    assert "holds no complete evaluation" in capsys.readouterr().err
    assert (
        cli.main([*words, "--unsolved-by", str(base), "--out", str(tmp_path / "x")]) == 2
    )  # its draws would come again
    assert "the same seed" in capsys.readouterr().err
    assert cli.main([*words, "--samples", "1025", "--out", str(tmp_path / "x")]) == 2
    assert "1026, not 1025" in capsys.readouterr().err and not (tmp_path / "x").exists()
    (base / "problems.jsonl").write_text("".join(json.dumps(row | {"c": 1}) + "\n" for row in rows))
    assert cli.main([*words, "--seed", "1", "--unsolved-by", str(base), "--out", str(tmp_path / "x")]) == 2
    assert "leaves none of these problems unsolved" in capsys.readouterr().err
    for damaged in (rows[:-1], [{"a": 1}] * len(rows), [{**row, "c": "1"} for row in rows]):
        (base / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in damaged))
        for command in ([*words, "--unsolved-by", str(base)], ["gradients", str(base)]):
            assert cli.main([*command, "--seed", "1", "--out", str(tmp_path / "x")]) == 2
            assert "problems.jsonl is damaged" in capsys.readouterr().err and not (tmp_path / "x").exists()


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
