"""How much gradients vary: against formulas, against toys that are enumerated, and against the trainer's own update."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from rlino_lib.analysis import credit as analysis
from rlino_lib.analysis.credit import by_difficulty, difficulty, sd_ratios
from rlino_lib.cli import main as cli
from rlino_lib.errors import RlinoError
from rlino_lib.exact.credit_toy import GROUP, chain, group_sd, search
from rlino_lib.exact.token_mdp import F64
from rlino_lib.methods.catalogue import OBJECTIVES, varied
from rlino_lib.methods.credit import Graded, credit
from rlino_lib.methods.objective import Objective
from rlino_lib.settings import strict_json
from rlino_lib.training import gradients
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.gradients import CREDITS, Moments, group_gradients, measure_gradients
from rlino_lib.training.trainer import Trainer
from rlino_lib.training.values import credited

SMALL = TrainConfig(
    method="grpo_no_kl", task="word_problems", steps=2, prompts=2, group_size=4, eval_every=0, max_new_tokens=64,
    guard="warn",
)  # fmt: skip


# --- moments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_moments_are_those_of_all_vectors_at_once(dtype):
    vectors = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)).to(dtype) + 1000  # [M, P]
    moments = Moments()
    for vector in vectors:
        moments.add(vector)
    whole = vectors.double()
    variance = whole.var(0).sum().item()
    assert moments.variance == pytest.approx(variance, rel=1e-12)
    assert moments.squared_mean == pytest.approx(whole.mean(0).square().sum().item() - variance / 7, rel=1e-12)


def test_both_moments_are_unbiased():
    """Over all samples of three from a distribution of three vectors, each as likely as the others."""
    points = torch.tensor([[0.0, 1.0], [2.0, 0.0], [5.0, 5.0]], dtype=F64)  # [3, P]
    found = []
    for places in torch.cartesian_prod(*[torch.arange(3)] * 3):
        moments = Moments()
        for vector in points[places]:
            moments.add(vector)
        found.append((moments.variance, moments.squared_mean))
    variance, squared_mean = np.mean(found, 0)
    assert variance == pytest.approx(points.var(0, correction=0).sum().item(), rel=1e-12)
    assert squared_mean == pytest.approx(points.mean(0).square().sum().item(), rel=1e-12)


# --- toys ------------------------------------------------------------------------------------------------------------


def simulated(toy, k: int, groups: int, seed: int = 0) -> dict[str, Moments]:
    """Moments of a group's gradient by the credits, as a run computes them, with k continuations of each state."""
    rng = torch.Generator().manual_seed(seed)
    drawn = toy.probs.multinomial(groups * GROUP, replacement=True, generator=rng)  # [N]
    tables = torch.rand(groups, len(toy.values), k, generator=rng, dtype=F64) < toy.values[:, None]  # [M, S, K]
    shared = tables.to(F64).mean(2).repeat_interleave(GROUP, 0)  # [N, S], the same for a group
    values = shared.gather(1, toy.states[drawn])  # [N, T]
    graded = Graded(toy.rewards[drawn], GROUP, toy.mask[drawn], values=values)
    moments = {name: Moments() for name in CREDITS}
    for name, objective in CREDITS.items():
        advantages = credit(objective, graded).advantages  # [N] or [N, T]
        weights = (advantages if advantages.ndim == 2 else advantages[:, None]) * toy.mask[drawn]  # [N, T]
        by_group = torch.einsum("nt,ntp->np", weights, toy.scores[drawn]).view(groups, GROUP, -1).mean(1)  # [M, P]
        for gradient in by_group:
            moments[name].add(gradient)
    return moments


@pytest.mark.parametrize("toy", [chain(3, 0.4), chain(2, 0.75), search(0.3, 0.7, 3, decides=True)])
def test_variances_of_a_groups_gradient_are_those_of_enumeration(toy):
    """Of credits by the trainer's code, against the toy's own account of a group."""
    found = simulated(toy, k=3, groups=8000)
    g2 = toy.gradient.square().sum().item()
    rloo, vine = group_sd(toy, "rloo") ** 2, group_sd(toy, "vine", k=3) ** 2
    assert found["rloo"].variance == pytest.approx(rloo, rel=0.05)
    assert found["vineppo"].variance == pytest.approx(vine, rel=0.05)
    assert abs(vine / rloo - 1) > 0.1  # so that one could not stand for the other
    for moments in found.values():  # both have the mean ∇p
        error = (moments.mean - toy.gradient).square().sum().item()
        assert error < 4 * moments.variance / moments.n
        assert moments.squared_mean == pytest.approx(g2, abs=8 * (g2 * moments.variance / moments.n) ** 0.5)


# --- the model -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CREDITS)
def test_a_groups_gradient_is_that_of_the_trainers_first_update(name):
    o = CREDITS[name]
    fields = ("ratio", "kl_in_reward", "normaliser", "value_samples", "beta", "whiten")
    row = OBJECTIVES[name]
    settings = {field: getattr(o, field) for field in fields if getattr(o, field) != getattr(row, field)}
    trainer = Trainer(replace(SMALL, method=name, prompts=1, group_size=8, objective_settings=settings))
    assert trainer.objective == o
    rollouts = trainer.sample(1)
    assert 0 < rollouts.rewards.sum() < 8
    advantages, _ = credited(trainer, rollouts, o)
    gradient = group_gradients(trainer, rollouts, 0, {name: o}, {name: advantages})[name]
    taken = []
    trainer._descend = lambda *_: taken.append([p.grad.clone() for p in trainer.model.parameters()]) or 0.0
    trainer.step()
    (parts,) = taken
    torch.testing.assert_close(gradient, -torch.cat([part.flatten() for part in parts]), rtol=1e-4, atol=1e-4)
    assert gradient.norm() > 1


def test_groups_of_a_problem_have_values_of_their_own_and_share_them_within():
    trainer = Trainer(SMALL)
    rollouts = gradients._sample(trainer, trainer.problems[:1], 6)
    assert len(set(rollouts.texts)) > 4 and len({problem.id for problem in rollouts.problems}) == 6
    _, read = credited(trainer, rollouts, CREDITS["vineppo"])
    starts = read.values[:, 0].view(6, 4)
    assert (starts == starts[:, :1]).all() and starts[:, 0].unique().numel() > 1


def test_measured_gradients_repeat_and_say_what_they_are_of():
    trainer = Trainer(SMALL)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    table = measure_gradients(trainer, trainer.problems[:2], groups=3)
    assert list(table.columns) == ["problem", "credit", "groups", "variance", "signal", "bias"]
    assert table["problem"].tolist() == [p.id for p in trainer.problems[:2] for _ in CREDITS]
    assert table["credit"].tolist() == list(CREDITS) * 2 and set(table["groups"]) == {3}
    assert (table["variance"] > 0).all() and (table.loc[table["credit"] == "rloo", "bias"] == 0).all()
    pd.testing.assert_frame_equal(measure_gradients(trainer, trainer.problems[:2], groups=3), table)
    assert trainer.step_done == 0
    assert all(torch.equal(p, b) and p.grad is None for p, b in zip(trainer.model.parameters(), before, strict=True))


@pytest.mark.slow
def test_both_credits_have_the_same_mean_gradient_on_word_problems():
    """Where a credit by position does not."""
    trainer = Trainer(replace(SMALL, group_size=8))
    last = {"advantage": "leave_one_out", "lam": 0.8, "normaliser": "token_sum"}
    table = measure_gradients(trainer, trainer.problems[:6], CREDITS | {"last": varied("grpo_lambda", last)}, 12)
    mean = table.groupby("credit")[["signal", "bias"]].mean()
    assert abs(mean.loc["vineppo", "bias"]) < 0.1 * mean.loc["rloo", "signal"] < mean.loc["last", "bias"] / 2


@pytest.mark.parametrize(
    "objective", [varied("rloo", {}), varied("vineppo", {}), varied("dapo", {}), varied("grpo_entropy", {})]
)
def test_gradients_that_are_not_of_the_credit_alone_are_refused(objective: Objective):
    trainer = Trainer(SMALL)
    with pytest.raises(RlinoError, match="are compared without KL"):
        measure_gradients(trainer, trainer.problems[:1], {"x": objective}, groups=2)
    with pytest.raises(RlinoError, match="at least 2 groups"):
        measure_gradients(trainer, trainer.problems[:1], groups=1)


def test_a_task_without_the_values_of_a_credit_is_refused_before_sampling():
    with pytest.raises(RlinoError, match="draws a lot for each response"):
        measure_gradients(Trainer(replace(SMALL, task="clean_room")), [], groups=2)


# --- the table -------------------------------------------------------------------------------------------------------


def test_problems_are_hard_middle_or_easy():
    shares = (0.0, 0.1, 0.11, 0.49, 0.5, 1.0)
    assert [difficulty(p) for p in shares] == ["hard", "hard", "middle", "middle", "easy", "easy"]
    rows = [{"id": str(i), "n": 20, "c": c} for i, c in enumerate([1] * 9 + [5] * 8 + [15] * 7)]
    chosen = by_difficulty(rows, 8)
    assert chosen["problem"].tolist() == [*map(str, range(8)), *map(str, range(9, 17))]  # of the easy ones are too few
    assert set(chosen["p"]) == {0.05, 0.25} and chosen["difficulty"].value_counts().to_dict() == {
        "hard": 8,
        "middle": 8,
    }
    with pytest.raises(RlinoError, match="fewer than 8"):
        by_difficulty(rows[:5], 8)


def frame(ratio: float, problems: int = 30, seed: int = 0) -> pd.DataFrame:
    """Variances of problems that differ more among themselves than their ratio does."""
    rng = np.random.default_rng(seed)
    base = np.exp(rng.normal(0, 2, problems))
    noise = np.exp(rng.normal(0, 0.1, problems))
    common = {"problem": [str(i) for i in range(problems)], "p": 0.05, "difficulty": "hard"}
    rloo = pd.DataFrame(common | {"credit": "rloo", "variance": base, "signal": base / 4, "bias": 0.0})
    bias = rng.normal(0, 0.02, problems) * base
    vine = {"credit": "vineppo", "variance": ratio**2 * base * noise, "signal": base / 4, "bias": bias}
    return pd.concat([rloo, pd.DataFrame(common | vine)])


def test_ratios_of_sds_pair_problems_and_have_intervals():
    covered = 0
    for seed in range(20):
        (row,) = sd_ratios(frame(0.7, seed=seed)).itertuples()
        assert (row.difficulty, row.problems, row.p) == ("hard", 30, pytest.approx(0.05))
        assert row.ratio == pytest.approx(row.sd / row.reference) and row.high - row.low < 0.1
        assert row.bias_low <= row.bias <= row.bias_high
        covered += row.low <= 0.7 <= row.high
    assert 14 <= covered <= 20
    by_hand = frame(0.7).pivot(index="problem", columns="credit", values="variance").mean() ** 0.5
    assert sd_ratios(frame(0.7))["ratio"].item() == pytest.approx(by_hand["vineppo"] / by_hand["rloo"])
    shuffled = frame(0.7).sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(sd_ratios(shuffled), sd_ratios(frame(0.7)))
    never = frame(0.7).assign(difficulty="easy")
    never.loc[never["credit"] == "rloo", "variance"] = 0.0
    assert sd_ratios(pd.concat([frame(0.7), never]))["difficulty"].tolist() == ["hard"]


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_writes_json_and_leaves_nothing_where_it_fails(tmp_path, monkeypatch, capsys):
    out = tmp_path / "gradients"
    words = ["gradients", "data/base/word_problems", "--problems", "8", "--groups", "2", "--out", str(out)]

    def without_signal(trainer, problems, groups, progress):
        rows = [(p.id, name, groups, 1.0, 0.0, 0.0) for p in problems for name in CREDITS]
        return pd.DataFrame(rows, columns=["problem", "credit", "groups", "variance", "signal", "bias"])

    def failing(*_, **__):
        raise RlinoError("no gradient")

    monkeypatch.setattr(gradients, "measure_gradients", failing)
    assert cli.main(words) == 2 and "no gradient" in capsys.readouterr().err and not out.exists()
    monkeypatch.setattr(gradients, "measure_gradients", without_signal)
    with warnings.catch_warnings(action="ignore"):  # of 0/0
        assert cli.main(words) == 0
    printed = strict_json(capsys.readouterr().out)
    assert printed["by_difficulty"][0]["bias"] is None and printed["by_difficulty"][0]["ratio"] == 1
    assert strict_json((out / "gradients.json").read_text())["found"] == printed


def test_an_evaluation_of_other_problems_is_refused(tmp_path, capsys):
    for file in ("evaluation.json", "problems.jsonl"):
        text = Path("data/base/word_problems", file).read_text(encoding="utf-8")
        (tmp_path / file).write_text(text.replace('"id": "', '"id": "other-'), encoding="utf-8")
    assert cli.main(["gradients", str(tmp_path), "--problems", "8", "--out", str(tmp_path / "x")]) == 2
    assert "is of a problem that is not the task's: other-" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_the_command_measures_once_and_only_what_the_evaluation_is_of(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(analysis, "LEAST", 3)
    evaluation, out = tmp_path / "evaluation", tmp_path / "gradients"
    words = ["--task", "word_problems", "--problems", "10", "--samples", "8", "--max-new-tokens", "64"]
    assert cli.main(["evaluate", *words, "--out", str(evaluation)]) == 0
    words = ["gradients", str(evaluation), "--problems", "8", "--groups", "2", "--out", str(out)]
    capsys.readouterr()
    assert cli.main(words) == 0
    printed = json.loads(capsys.readouterr().out)
    table = pd.read_csv(out / "gradients.csv")
    rows = [json.loads(line) for line in (evaluation / "problems.jsonl").read_text().splitlines()]
    rates = {row["id"]: row["c"] / row["n"] for row in rows}
    assert table["p"].tolist() == [rates[id] for id in table["problem"]]
    assert table["difficulty"].tolist() == [difficulty(p) for p in table["p"]]
    assert {row["difficulty"] for row in printed["by_difficulty"]} == set(table["difficulty"])
    recorded = json.loads((out / "gradients.json").read_text())
    assert recorded["found"] == printed
    expected = {"task": "word_problems", "split": "test", "max_new_tokens": 64, "group_size": 8, "groups": 2, "seed": 1}
    expected["value_samples"] = 3
    assert expected.items() <= recorded["asked"].items()
    before = (out / "gradients.csv").stat().st_mtime_ns
    assert cli.main(words) == 0 and (out / "gradients.csv").stat().st_mtime_ns == before
    other = [*words[:-1], str(tmp_path / "other")]
    for argv, message in (
        ([*words, "--groups", "3"], "groups 2, not 3"),
        ([*other, "--seed", "0"], "has the same seed"),
        ([*other, "--model", "data/base/countdown"], "of other weights"),
        (["gradients", str(tmp_path), "--out", str(tmp_path / "other")], "no complete evaluation"),
    ):
        capsys.readouterr()
        assert cli.main(argv) == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
