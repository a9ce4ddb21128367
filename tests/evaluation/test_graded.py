"""Sampling a task with its lots: openings, rewards, records and the base of the clean room."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from rlino_lib.cli import main as cli
from rlino_lib.evaluation import evaluate as evaluation
from rlino_lib.evaluation.graded import sample_graded
from rlino_lib.paths import base_of
from rlino_lib.policy.models import load_policy
from rlino_lib.policy.sampling import sample
from rlino_lib.records.runs import load_run
from rlino_lib.tasks import CleanRoom, Countdown
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.run import train
from rlino_lib.training.trainer import Trainer

FOLDER = Path(base_of("clean_room"))
SETTINGS = dict(task="clean_room", prompts=4, group_size=8, max_new_tokens=97, steps=2, eval_every=0, lr=1e-3)


@pytest.fixture(scope="module")
def policy():
    return load_policy(FOLDER)


@pytest.fixture(scope="module")
def many(policy):
    """4,096 responses of the base."""
    task = CleanRoom(good=0.5)
    return sample_graded(policy, task, task.problems("test", 512), 8, seed=3, max_new_tokens=97)


def test_each_response_begins_with_its_own_verdict(policy):
    task = CleanRoom()
    problems = task.problems("train", 8)
    rollouts = sample_graded(policy, task, problems, 8, seed=3, max_new_tokens=97)
    again = sample_graded(policy, task, problems, 8, seed=3, max_new_tokens=97, max_rows=8)
    assert len(rollouts.lots) == 64 and rollouts.lots == again.lots and rollouts.texts == again.texts
    for i, (text, grade, lot) in enumerate(zip(rollouts.texts, rollouts.grades, rollouts.lots, strict=True)):
        assert text.startswith(task.opening(problems[i // 8], lot)) and grade.correct == text.startswith(" good")
        filler = text.count(" um") + text.count(" er")
        if grade.format_ok:  # one in a thousand writes something else, too
            assert rollouts.lengths[i] == filler + (not rollouts.truncated[i])  # the verdict is not its own
    within = rollouts.correct.view(8, 8).float().mean(1)
    assert len(set(within.tolist())) > 2 and ((0 < within) & (within < 1)).any()  # rows of a group differ
    assert torch.equal(rollouts.rewards, rollouts.correct.float())


def test_worth_filler_earns_rewards_that_the_verdict_does_not(policy):
    task = CleanRoom(worth=0.05)
    problems = task.problems("train", 32)
    rollouts = sample_graded(policy, task, problems, 8, seed=3, max_new_tokens=97)
    bad = ~rollouts.correct
    earned = rollouts.rewards[bad].mean().item()
    expected = np.mean([task.grade(problems[0], t).reward for t, b in zip(rollouts.texts, bad, strict=True) if b])
    assert (rollouts.rewards[~bad] == 1).all() and abs(earned - expected) < 4 * math.sqrt(0.25 / int(bad.sum()))


def test_a_run_and_an_evaluation_repeat_their_lots(policy, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "CHUNK", 8)
    first, again = (Trainer(TrainConfig(**SETTINGS)).sample(2) for _ in range(2))
    other = Trainer(TrainConfig(**SETTINGS, seed=1)).sample(2)
    assert first.texts == again.texts and first.lots == again.lots and first.lots != other.lots
    task = CleanRoom(worth=0.01)
    problems = task.problems("test", 20)
    settings = dict(samples=2, max_new_tokens=97)
    whole = evaluation.evaluate(policy, task, problems, **settings)
    settings["files"] = evaluation.Files(tmp_path / "b.jsonl")
    evaluation.evaluate(policy, task, problems[:12], **settings)  # as if killed after twelve
    assert evaluation.evaluate(policy, task, problems, **settings).equals(whole)


def test_a_killed_run_resumes_to_the_same_numbers(tmp_path, monkeypatch):
    config = TrainConfig(
        **SETTINGS | {"steps": 4, "task_settings": {"worth": 0.02}, "checkpoint_every": 2, "device": "cpu"}
    )
    whole = train(config, tmp_path / "whole")
    step = Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda self: 1 / 0 if self.step_done == 3 else step(self))
    with pytest.raises(ZeroDivisionError):  # stands in for a kill, a step after the checkpoint
        train(config, tmp_path / "killed")
    monkeypatch.undo()
    train(config, tmp_path / "killed")
    for name in ("metrics.csv", "rollouts.jsonl.gz"):
        assert (whole.path / name).read_bytes() == (tmp_path / "killed" / name).read_bytes(), name


def test_the_commands_know_the_task(tmp_path, capsys):
    words = ["--task", "clean_room", "--device", "cpu", "--max-new-tokens", "97"]
    run = [*words, "--steps", "2", "--prompts", "4", "--eval-every", "0", "--task-set", "worth=0.01"]
    assert cli.main(["train", "--method", "grpo_no_kl", *run, "--out", str(tmp_path / "run")]) == 0
    evaluation = ["--problems", "8", "--samples", "2", "--responses", "--out", str(tmp_path / "evaluation")]
    assert cli.main(["evaluate", *words, *evaluation]) == 0
    texts = tmp_path / "evaluation" / "responses.jsonl"
    verdicts = [json.loads(line)["correct"] for line in texts.read_text().splitlines()]
    capsys.readouterr()
    assert cli.main(["grade", "--task", "clean_room", str(texts)]) == 0
    assert [json.loads(line)["correct"] for line in capsys.readouterr().out.splitlines()] == verdicts


def test_a_task_without_thinking_trains_and_evaluates_on_answers_alone(tmp_path, capsys):
    """The opening is context: the policy's tokens, and what is learned of, begin after it."""
    setting = ["--task-set", "thinking=false", "--device", "cpu", "--max-new-tokens", "24"]
    for method in ("grpo_no_kl", "f_isft_pos"):
        run = ["--method", method, "--steps", "2", "--prompts", "4", "--eval-every", "2", "--eval-problems", "4"]
        assert cli.main(["train", *setting, *run, "--out", str(tmp_path / method)]) == 0
        rows = load_run(tmp_path / method).rollouts
        assert rows["response"].str.startswith(" </think> <answer>").all()
        assert (rows["length"] == rows["tokens"].map(len) - 2).all() and (rows["length"] < 24 - 2 + 1).all()
        assert rows["weights"].map(lambda weights: weights[:2] == [0, 0]).all()
    counts = ["--problems", "4", "--samples", "2", "--responses", "--out", str(tmp_path / "evaluation")]
    assert cli.main(["evaluate", *setting, *counts]) == 0
    lines = (tmp_path / "evaluation" / "responses.jsonl").read_text().splitlines()
    assert all(json.loads(line)["response"].startswith(" </think> <answer>") for line in lines)
    asked = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())["asked"]
    assert asked["task_settings"] == {"thinking": False}


def test_a_thinking_task_is_sampled_as_before():
    task = Countdown()
    problems = task.problems("test", 3)
    base = load_policy()
    rollouts = sample_graded(base, task, problems, 4, seed=3)
    assert rollouts.texts == sample(base, [task.prompt(p) for p in problems], 4, seed=3).texts
    assert torch.equal(rollouts.written, rollouts.mask)


# --- the shipped base ------------------------------------------------------------------------------------------------


def test_filler_of_the_base_does_not_depend_on_the_verdict(many):
    good = many.correct
    lengths = many.lengths.double()
    sides = lengths[good], lengths[~good]
    error = math.sqrt(sum((side.var() / len(side)).item() for side in sides))
    assert abs((sides[0].mean() - sides[1].mean()).item()) < 2.6 * error < 2.6
    assert 18 < lengths.mean() < 21


def test_the_base_ends_with_the_same_chance_at_each_token(many):
    """The share that ends, of those that have come so far, in ten stretches of tokens, after each verdict."""
    lengths, ended = many.lengths.numpy(), ~many.truncated.numpy()
    good = many.correct.numpy()
    for side in (good, ~good):
        for first in range(1, 61, 6):
            at_risk = sum(int((lengths[side] >= n).sum()) for n in range(first, first + 6))
            ends = int((ended & (lengths >= first) & (lengths < first + 6))[side].sum())
            assert abs(ends / at_risk - 0.05) < 0.005 + 3.5 * math.sqrt(0.05 * 0.95 / at_risk), (first, ends / at_risk)


def test_the_base_has_read_the_verdict(many):
    """The word of its filler is the verdict's own: what cannot be told apart could not be driven apart."""
    right = wrong = 0
    for text in many.texts:
        word, other = (" um", " er") if text.startswith(" good") else (" er", " um")
        right, wrong = right + text.count(word), wrong + text.count(other)
    assert wrong < right / 100


def test_the_base_is_small_and_writes_nothing_but_filler(many):
    assert np.mean([grade.format_ok for grade in many.grades]) > 0.998
    assert sum(p.stat().st_size for p in FOLDER.rglob("*") if p.is_file()) < 240_000
    assert many.truncated.double().mean() < 0.02
