"""`rlino chains`: its tables hold what the functions behind them say, and follow the rule for folders."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from rlino_lib.analysis.chains import against, covariances, over_problems, shares
from rlino_lib.analysis.trace_graphs import graph_frame, graph_sums, matched_gaps
from rlino_lib.cli import main as cli
from rlino_lib.errors import RlinoError
from rlino_lib.evaluation import chains
from rlino_lib.evaluation.graded import sample_graded
from rlino_lib.evaluation.interventions import EDITS, forced_answers
from rlino_lib.evaluation.skills import hint_values
from rlino_lib.evaluation.under_base import responses_under
from rlino_lib.folders import write_json
from rlino_lib.paths import DEFAULT_BASE, base_of
from rlino_lib.policy.models import load_policy, save_policy
from rlino_lib.records.chains import TABLES, read_chains
from rlino_lib.tasks import Countdown
from rlino_lib.tasks.countdown.trace import process_is_right

P, G, CAP = 10, 4, 60
WORDS = ["chains", "--task-set", "n_numbers=3", "--problems", str(P), "--samples", str(G), "--max-new-tokens", str(CAP)]
TASK = Countdown(n_numbers=3, new_targets=True)
PROBLEMS = TASK.problems("validation", P)


@pytest.fixture(scope="module")
def base():
    """The folder of the base's measurement."""
    return load_policy()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chains") / "base"
    assert cli.main([*WORDS, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def rollouts(base):
    return sample_graded(base, TASK, PROBLEMS, G, seed=0, max_new_tokens=CAP)


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    """A run whose model is the base with sharper logits, which writes longer searches."""
    folder = tmp_path_factory.mktemp("run")
    sharper = load_policy()
    sharper.model.model.norm.weight.data *= 2.0
    save_policy(sharper, folder / "model")
    (folder / "metrics.csv").write_text("step\n")
    write_json(folder / "config.json", {"method": "grpo", "task": "countdown", "model": "data/base/countdown"})
    return folder


def test_the_defaults_are_those_of_the_plan(capsys):
    args = cli.build_parser().parse_args(["chains", "--out", "x"])
    assert (args.split, args.problems, args.samples, args.max_new_tokens, args.seed) == ("validation", 128, 32, 160, 0)
    assert (chains.FORCED, chains.HINTED) == (2, 16)


def test_the_tables_are_counts_of_the_same_responses(made, base, rollouts):
    tables = read_chains(made)
    assert [p.id for p in PROBLEMS] == tables["process"]["problem"].tolist()
    problems = [p for p in PROBLEMS for _ in range(G)]
    rows = pd.DataFrame({"problem": [p.id for p in problems], "data": [p.data for p in problems]})
    rows = rows.assign(response=rollouts.texts, correct=rollouts.correct.numpy(), tokens=rollouts.lengths.numpy())
    rows["process"] = [process_is_right(*pair) for pair in zip(problems, rollouts.texts, strict=True)]
    rows["both"] = rows["process"] & rows["correct"]
    process = tables["process"].set_index("problem")
    for name in ("process", "correct", "both", "tokens"):
        assert process[name].tolist() == rows.groupby("problem", sort=False)[name].sum().tolist(), name
    assert process["n"].eq(G).all() and 0 < process["process"].sum() < P * G
    products = rows.groupby("problem", sort=False)[["process", "correct"]].apply(
        lambda f: f.astype(float).cov().iloc[0, 1]
    )
    np.testing.assert_allclose(covariances(tables["process"]), products, atol=1e-12)
    sums = graph_sums(graph_frame(rows))
    for measure in ("nodes", "branching"):
        pd.testing.assert_series_equal(matched_gaps(tables["graphs"], measure), matched_gaps(sums, measure))

    under = responses_under(base, rollouts).groupby("problem", sort=False)["logprob"].sum()
    likelihood = tables["likelihood"]
    assert set(likelihood["side"]) == {"model"} and likelihood["tokens"].tolist() == process["tokens"].tolist()
    np.testing.assert_allclose(likelihood["logprob"], under, rtol=1e-5)


def test_shares_of_the_tables_are_those_of_single_responses(made, base, rollouts):
    tables = read_chains(made)
    first = [k for k in range(P * G) if k % G < chains.FORCED]
    forced = forced_answers(base, TASK, [PROBLEMS[k // G] for k in first], [rollouts.texts[k] for k in first])
    measures = ["correct", "follows_last", "follows_yes"]
    kept = over_problems(shares(tables["forced"]), measures, "edit")
    assert kept["edit"].unique().tolist() == list(EDITS) and kept["mean"].notna().any()
    pd.testing.assert_frame_equal(kept, over_problems(forced, measures, "edit"))
    closed = forced[forced["response"].map(lambda i: "</think>" in rollouts.texts[first[i]])]
    assert 0 < len(closed) < len(forced)
    kept = over_problems(shares(tables["forced"]), ["follows_closed"], "edit").drop(columns="measure")
    expected = over_problems(closed, ["follows_last"], "edit").drop(columns="measure")
    pd.testing.assert_frame_equal(kept, expected)
    values = hint_values(base, TASK, PROBLEMS, chains.HINTED, 0, max_new_tokens=CAP)
    gains = against(shares(tables["hints"]), "c", "hint", "none")
    pd.testing.assert_frame_equal(gains, against(values, "value", "hint", "none"))


def test_a_killed_measurement_goes_on_to_the_same_tables(made, tmp_path, monkeypatch, capsys):
    """A part that is there is not made again, and the rest comes out the same."""
    words = [*WORDS, "--out", str(tmp_path)]

    def killed(subject):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(chains.PARTS, "forced", killed)
        assert cli.main(words) == 130
    assert sorted(p.name for p in tmp_path.iterdir()) == ["graphs.csv", "measurement.json", "process.csv"]
    with pytest.raises(RlinoError, match="no complete measurement"):
        read_chains(tmp_path)
    assert cli.main([*words, "--samples", "5"]) == 2 and "unfinished, with samples 4, not 5" in capsys.readouterr().err
    (tmp_path / "forced.csv.tmp").write_text("half")
    monkeypatch.setitem(chains.PARTS, "process", killed)
    assert cli.main(words) == 0
    for name in ("measurement.json", *(f"{name}.csv" for name in TABLES)):
        assert (tmp_path / name).read_bytes() == (made / name).read_bytes(), name


def test_a_trained_policy_is_held_against_the_base_that_is_as_long(trained, tmp_path, capsys):
    assert cli.main([*WORDS, "--model", str(trained / "model"), "--out", str(tmp_path / "out")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0.05 < found["temperature"] < 0.9
    table = read_chains(tmp_path / "out")["likelihood"]
    sides = table.groupby("side")[["n", "tokens"]].sum()
    lengths = sides["tokens"] / sides["n"]
    assert lengths["base"] == pytest.approx(lengths["model"], rel=0.1)
    assert sides["n"].to_dict() == {"model": P * G, "base": P * chains.MATCHED}
    assert table.groupby("side")["temperature"].first().to_dict() == pytest.approx(
        {"model": 1, "base": found["temperature"]}, rel=1e-6
    )


def test_without_a_temperature_that_is_as_long_the_base_has_no_side(base, tmp_path, monkeypatch):
    def none(*args, **settings):
        raise chains.NoTemperature("none")

    monkeypatch.setattr(chains, "matching_samples", none)
    other = load_policy()
    other.model.model.norm.weight.data *= 1.01
    subject = chains.Subject(other, base, TASK, PROBLEMS[:2], 2, 0, {"max_new_tokens": CAP, "precision": "fp32"})
    found = chains.measure_chains(subject, tmp_path)
    assert found["temperature"] is None and set(pd.read_csv(tmp_path / "likelihood.csv")["side"]) == {"model"}


def test_the_base_is_that_of_the_models_run(trained, tmp_path):
    assert chains.base_of_model("") == chains.base_of_model("some/hub-model") == DEFAULT_BASE
    assert chains.base_of_model(str(trained / "model")) == DEFAULT_BASE
    config = json.loads((trained / "config.json").read_text())
    (tmp_path / "metrics.csv").write_text("step\n")
    write_json(tmp_path / "config.json", config | {"model": "some/base"})
    assert chains.base_of_model(str(tmp_path / "model")) == "some/base"


@pytest.mark.parametrize(
    "words, line",
    [
        (["--task-set", "thinking=false"], "leaves no thoughts"),
        (["--task-set", "grader=boxed"], "grader"),
        (["--problems", "1"], "--problems: must be"),
        (["--problems", "99999999"], "validation problems"),
        (["--task", "gsm8k"], "--task: must be one of countdown"),
        (["--model", base_of("word_problems")], "other tokens than its base"),
    ],
)
def test_what_is_not_countdown_is_one_line_and_writes_nothing(words, line, tmp_path, capsys):
    assert cli.main(["chains", *words, "--out", str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and line in err, err
    assert not (tmp_path / "out").exists()


def test_a_run_of_another_task_is_one_line(trained, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(trained, copy)
    config = json.loads((copy / "config.json").read_text())
    write_json(copy / "config.json", config | {"task": "word_problems"})
    assert cli.main(["chains", "--model", str(copy / "model"), "--out", str(tmp_path / "out")]) == 2
    assert "was trained on word_problems" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_damaged_table_is_one_line(made, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    (copy / "hints.csv").write_text("problem\n")
    with pytest.raises(RlinoError, match="hints.csv is missing or damaged: .*'c'"):
        read_chains(copy)
    (copy / "hints.csv").write_text("")
    with pytest.raises(RlinoError, match="hints.csv is missing or damaged"):
        read_chains(copy)
    rows = (made / "hints.csv").read_text().splitlines()
    (copy / "hints.csv").write_text("\n".join([rows[0], rows[1].rsplit(",", 1)[0] + ","]))
    with pytest.raises(RlinoError, match="numbers are missing"):
        read_chains(copy)
    (copy / "hints.csv").write_text("\n".join(rows[:5]))  # of the first problem alone
    recorded = json.loads((copy / "measurement.json").read_text())
    write_json(copy / "measurement.json", {"asked": recorded["asked"]})
    assert cli.main([*WORDS, "--out", str(copy)]) == 2
    assert "hints.csv is not of these problems" in capsys.readouterr().err
