"""A reader's own runs: found wherever they lie, judged as the book's are, model by model."""

from __future__ import annotations

import json

import pytest

from rlino_lib.claims.yours import find_runs, judge_yours
from rlino_lib.cli import main as cli
from rlino_lib.errors import RlinoError


def make(folder, method, seed, right, task="countdown", model="a/model", complete=True):
    folder.mkdir(parents=True)
    config = {"method": method, "seed": seed, "task": task, "model": model, "lr": 1e-4}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.csv").write_text("step,eval/base/correct,eval/base/incorrect\n0,-1,-1\n9,-1,-2\n")
    summary = {"complete": complete, "test": {"pass@1": {"value": right}}}
    (folder / "summary.json").write_text(json.dumps(summary))


def grids(root, task="countdown", model="a/model", seeds=10, gap=0.001):
    for seed in range(seeds):
        for method, right in (("grpo", 0.5), ("grpo_no_kl", 0.5 + gap + seed / 1e4), ("f_isft_pos", 0.4 + seed / 1e3)):
            make(root / f"{model.replace('/', '-')}-{task}" / f"{method}-{seed}", method, seed, right, task, model)


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
    assert "so far 50.0 % right (seeds: 1)" in found.loc["likelihood-countdown", "effect"]
    assert found.loc["grow-grpo-countdown", "verdict"] == "not testable here"


def test_runs_without_a_test_evaluation_name_the_option_that_they_need(tmp_path, capsys):
    grids(tmp_path, seeds=3)
    for path in tmp_path.rglob("summary.json"):
        path.write_text('{"complete": true}')
    assert cli.main(["claims", "--yours", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    (row,) = [line for line in err.splitlines() if line.startswith("kl-countdown")]
    assert "not testable here" in row and "--test-samples" in row and json.loads(out)["not testable here"]
