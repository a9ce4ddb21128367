"""A reader's own runs: found wherever they lie, judged as the book's are, model by model."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pandas as pd
import pytest

from rlino_lib.claims.length import normaliser_of
from rlino_lib.claims.yours import AT_SCALE, COLUMNS, beside_the_book, find_runs, judge_yours, paper_model
from rlino_lib.cli import main as cli
from rlino_lib.errors import RlinoError
from rlino_lib.records.runs import UNKNOWN


def make(folder, method, seed, right, task="countdown", model="a/model", complete=True, **settings):
    folder.mkdir(parents=True)
    config = {"method": method, "seed": seed, "task": task, "model": model, "lr": 1e-4} | settings
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.csv").write_text("step,eval/base/correct,eval/base/incorrect\n0,-1,-1\n9,-1,-2\n")
    summary = {"complete": complete, "test": {"pass@1": {"value": right}}}
    (folder / "summary.json").write_text(json.dumps(summary))


def grids(root, task="countdown", model="a/model", seeds=10, gap=0.001, **settings):
    for seed in range(seeds):
        for method, right in (("grpo", 0.5), ("grpo_no_kl", 0.5 + gap + seed / 1e4), ("f_isft_pos", 0.4 + seed / 1e3)):
            folder = root / "-".join([model.replace("/", "-"), task, *settings]) / f"{method}-{seed}"
            make(folder, method, seed, right, task, model, **settings)


def test_runs_are_found_at_any_depth_and_models_are_no_runs(tmp_path):
    make(tmp_path / "one", "grpo", 0, 0.5)
    make(tmp_path / "deep" / "er" / "two", "grpo", 1, 0.5)
    make(tmp_path / "half", "grpo", 2, 0.5, complete=False)
    (tmp_path / "one" / "model").mkdir()
    (tmp_path / "one" / "model" / "config.json").write_text("{}")
    assert [run.path.name for run in find_runs(tmp_path)] == ["two", "one"]
    with pytest.raises(RlinoError, match="no complete run: `rlino train"):
        find_runs(tmp_path / "half")


def test_each_model_is_judged_by_itself(tmp_path):
    grids(tmp_path, model="a/model")
    grids(tmp_path, model="b/model", gap=0.2)
    found = judge_yours(tmp_path).set_index(["id", "model"])
    assert found.loc[("kl-countdown", "a/model"), "verdict"] == "holds"
    assert found.loc[("kl-countdown", "b/model"), "verdict"] == "does not hold here"
    assert "+20." in found.loc[("kl-countdown", "b/model"), "effect"]
    assert found.loc[("pos-countdown", "a/model"), "verdict"] == "holds"
    assert found.loc[("likelihood-countdown", "a/model"), "verdict"] == "holds with conditions"
    assert not {"kl-word", "neg-countdown", "bandit"} & set(found.index.get_level_values("id"))


def test_a_reward_of_another_kind_is_another_question(tmp_path, capsys):
    grids(tmp_path)
    grids(tmp_path, gap=0.3, reward="random")
    found = judge_yours(tmp_path).set_index("id")
    assert found.loc["kl-countdown", "verdict"] == "holds"
    assert cli.main(["claims", "--yours", str(tmp_path)]) == 0
    assert "no claim on a reader's runs is about the reward random" in capsys.readouterr().err


def test_other_task_settings_are_no_seeds_of_one_experiment(tmp_path):
    grids(tmp_path, seeds=5)
    make(tmp_path / "more", "grpo", 9, 0.5, task_settings={"restarts": 0.5})
    found = judge_yours(tmp_path).set_index("id")
    assert found.loc["kl-countdown", "verdict"] == "not testable here"
    assert "have different task settings" in found.loc["kl-countdown", "effect"]


def test_a_test_that_settles_nothing_is_undecided_and_not_untestable(tmp_path):
    for seed in range(10):
        wide = 0.5 + (-1) ** seed * 0.08
        for method, right in (("grpo", 0.5), ("grpo_no_kl", wide), ("f_isft_pos", wide)):
            make(tmp_path / f"{method}-{seed}", method, seed, right)
    found = judge_yours(tmp_path).set_index("id")
    assert found.loc["kl-countdown", "verdict"] == found.loc["pos-countdown", "verdict"] == "undecided"
    assert "seeds would settle it" in found.loc["kl-countdown", "effect"]
    assert "so far" not in found.loc["kl-countdown", "effect"]


def test_gsm8k_is_what_the_word_problems_stand_in_for(tmp_path):
    grids(tmp_path, task="gsm8k")
    found = judge_yours(tmp_path).set_index("id")
    assert found.loc["kl-word", "verdict"] == "holds" and set(found["task"]) == {"gsm8k"}
    assert not [name for name in found.index if name.endswith("countdown")]


def test_too_few_seeds_are_no_verdict_and_say_what_there_is(tmp_path):
    grids(tmp_path, seeds=1)
    found = judge_yours(tmp_path).set_index("id")
    assert found.loc["kl-countdown", "verdict"] == "not testable here"
    assert "so far +0.1 points (seeds: 1)" in found.loc["kl-countdown", "effect"]
    assert "so far nats a response, over 1 seeds: right +0.0" in found.loc["likelihood-countdown", "effect"]
    assert "so far" not in found.loc["grow-grpo-countdown", "effect"]  # these runs kept no responses
    assert found.loc["grow-grpo-countdown", "verdict"] == "not testable here"


def test_runs_without_a_test_evaluation_name_the_option_that_they_need(tmp_path, capsys):
    grids(tmp_path, seeds=3)
    for path in tmp_path.rglob("summary.json"):
        path.write_text('{"complete": true}')
    assert cli.main(["claims", "--yours", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    (row,) = [line for line in err.splitlines() if line.startswith("kl-countdown")]
    assert "not testable here" in row and "--test-samples" in row and json.loads(out)["not testable here"]


@pytest.mark.parametrize(
    "model, task, known",
    [
        ("Qwen/Qwen2.5-0.5B", "gsm8k", "Qwen2.5-0.5B"),
        ("/models/qwen2.5-1.5b/", "countdown", "Qwen2.5-1.5B"),
        ("Qwen/Qwen2.5-0.5B with LoRA", "countdown", "Qwen2.5-0.5B"),
        ("Qwen/Qwen3-8B", "gsm8k", "Qwen3-8B"),
        ("Qwen/Qwen3-8B", "countdown", ""),  # which the paper has not
        ("Qwen/Qwen2.5-0.5B-Instruct", "gsm8k", ""),
        ("Qwen/Qwen2.5-0.5B", "word_problems", ""),
        ("data/base/countdown", "countdown", ""),
    ],
)
def test_the_papers_models_are_known_on_its_tasks_alone(model, task, known):
    assert paper_model(model, task) == known


def test_runs_of_the_papers_models_fill_the_column_at_its_scale(tmp_path, capsys, judgement):
    grids(tmp_path, model="Qwen/Qwen2.5-0.5B")
    grids(tmp_path, model="Qwen/Qwen2.5-0.5B", gap=0.2, lora_rank=16)
    grids(tmp_path, model="Qwen/Qwen2.5-1.5B", task="gsm8k", seeds=2)
    grids(tmp_path, model="a/model")
    yours = judge_yours(tmp_path)
    assert set(yours["paper"]) == {"Qwen2.5-0.5B", "Qwen2.5-1.5B", ""}
    table = beside_the_book(judgement, yours)
    assert list(table.columns) == ["in the paper", "the book", AT_SCALE, "yours: a/model, countdown"]
    statement = judgement.set_index("id")["statement"]
    kl = table.loc[statement["kl-countdown"]]
    assert kl[AT_SCALE] == "Qwen2.5-0.5B: holds; Qwen2.5-0.5B with LoRA: does not hold here"
    assert kl["yours: a/model, countdown"] == "holds"
    assert table.loc[statement["kl-word"], AT_SCALE] == "Qwen2.5-1.5B: not testable here"
    assert table.loc[statement["neg-countdown"], AT_SCALE] == "–"
    about = judgement["about"].astype(bool)
    assert table["the book"].tolist() == judgement.loc[about, "found"].tolist()

    assert cli.main(["claims", "--yours", str(tmp_path), "--out", str(tmp_path / "claims.json")]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("kl-countdown")]
    assert ["Qwen/Qwen2.5-0.5B on countdown, at the paper's scale: holds" in line for line in lines].count(True) == 1
    assert any("a/model on countdown: holds" in line for line in lines)
    rows = json.loads((tmp_path / "claims.json").read_text())
    assert {row["paper"] for row in rows} == {"Qwen2.5-0.5B", "Qwen2.5-1.5B", ""}


def test_without_runs_of_a_reader_the_column_is_empty(judgement):
    table = beside_the_book(judgement, pd.DataFrame(columns=COLUMNS))
    assert len(table) and set(table[AT_SCALE]) == {"–"} and len(table.columns) == 3


def test_a_method_that_nobody_knows_has_no_known_normaliser():
    run = SimpleNamespace(method="mine", config={})
    assert normaliser_of(run) == UNKNOWN
