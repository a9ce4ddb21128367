"""`rlino values`: a critic's values and few continuations beside many, of a run that was kept."""

import json
import shutil

import pandas as pd
import pytest
import torch

from rlino_lib.claims.credit import values_of
from rlino_lib.cli import main as cli
from rlino_lib.errors import RlinoError
from rlino_lib.evaluation import value_errors
from rlino_lib.policy.critic import Critic, load_critic, save_critic
from rlino_lib.policy.models import load_policy
from rlino_lib.records.runs import load_run
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.run import train

SMALL = dict(task="word_problems", steps=1, prompts=2, group_size=4, eval_every=0, max_new_tokens=64, guard="warn")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A run of PPO, with its model and its critic."""
    return train(TrainConfig(method="ppo", **SMALL), tmp_path_factory.mktemp("ppo") / "run", save=True)


@pytest.fixture
def run(kept, tmp_path):
    """A copy of it, to be changed."""
    return load_run(shutil.copytree(kept.path, tmp_path / "run"))


@pytest.mark.parametrize("trunk", ["copy", "policy"])
def test_a_critic_is_kept_with_its_run_and_read_back(trunk, kept, tmp_path):
    run = kept
    if trunk != TrainConfig.critic_trunk:
        run = train(TrainConfig(method="ppo", critic_trunk=trunk, **SMALL), tmp_path / "run", save=True)
    policy = load_policy(run.path / "model")
    critic = load_critic(run.path / "critic.safetensors", policy.model)
    assert critic.head.bias.abs().sum() > 0 and (critic.own is None) == (trunk == "policy")


def test_what_is_no_critic_is_refused_in_one_line(tmp_path):
    model = load_policy().model
    other = Critic(model)
    other.head = torch.nn.Linear(3, 1)
    save_critic(other, tmp_path / "other.safetensors")
    (tmp_path / "noise.safetensors").write_bytes(b"no weights")
    for name in ("other", "noise", "absent"):
        with pytest.raises(RlinoError, match="cannot load a critic") as e:
            load_critic(tmp_path / f"{name}.safetensors", model)
        assert "\n" not in str(e.value)


def test_values_are_measured_once_and_recorded_with_their_settings(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(value_errors, "TRUTH", 8)
    assert cli.main(["values", str(run.path), "--problems", "3", "--samples", "2"]) == 0
    printed = json.loads(capsys.readouterr().out)
    table = pd.read_csv(run.path / "values" / "values.csv")
    assert printed["states"] == len(table) >= 6 and set(table["step"]) >= {0, 1}
    assert set(table) == {"problem", "prefix", "step", "tokens", "truth", "k1", "k3", "k9", "critic"}
    starts = table[table["step"] == 0]
    assert (starts.groupby("problem")["truth"].nunique() == 1).all() and (starts["tokens"] == 0).all()
    assert table[["truth", "k1"]].isin([k / 8 for k in range(9)]).all(axis=None)
    before = (run.path / "values" / "values.csv").stat().st_mtime_ns
    assert cli.main(["values", str(run.path), "--problems", "3", "--samples", "2"]) == 0
    assert (run.path / "values" / "values.csv").stat().st_mtime_ns == before
    assert cli.main(["values", str(run.path), "--problems", "4", "--samples", "2"]) == 2  # other settings
    plain = train(TrainConfig(method="rloo", **SMALL), tmp_path / "plain")
    assert cli.main(["values", str(plain.path)]) == 2


def test_a_run_that_cannot_be_measured_is_refused_and_nothing_is_written(run, tmp_path, capsys):
    critic, model, summary = (run.path / name for name in ("critic.safetensors", "model", "summary.json"))
    room = train(TrainConfig(method="ppo", **SMALL | {"task": "clean_room"}), tmp_path / "room", save=True)

    def refused(path, words):
        assert cli.main(["values", str(path), "--problems", "2", "--samples", "1"]) == 2
        err = capsys.readouterr().err
        assert words in err and err.count("\n") == 1 and not (path / "values").exists()

    refused(room.path, "has no steps")
    weights = critic.read_bytes()
    critic.write_bytes(weights[:100])
    refused(run.path, "cannot load a critic")
    critic.unlink()
    refused(run.path, "has no critic.safetensors")
    critic.write_bytes(weights)
    model.rename(tmp_path / "model")
    refused(run.path, "has no model")
    (tmp_path / "model").rename(model)
    summary.unlink()
    refused(run.path, "is not complete")


def test_values_that_were_cut_short_go_on_and_damaged_ones_are_named(run, monkeypatch, capsys):
    monkeypatch.setattr(value_errors, "TRUTH", 2)
    words = ["values", str(run.path), "--problems", "2", "--samples", "1"]
    assert cli.main(words) == 0
    record, table = run.path / "values" / "values.json", run.path / "values" / "values.csv"
    before, rows = json.loads(record.read_text()), table.read_text()
    record.write_text(json.dumps({"asked": before["asked"]}))  # killed before the end
    table.unlink()
    assert cli.main([*words[:-1], "2"]) == 2 and not table.exists()
    assert "unfinished, with samples 1, not 2" in capsys.readouterr().err
    assert cli.main(words) == 0 and (json.loads(record.read_text()), table.read_text()) == (before, rows)
    table.write_text("problem,prefix\n1,2\n")
    with pytest.raises(RlinoError, match="values.csv is missing or damaged: .* needs the columns step, truth"):
        values_of(run)
    for damage in ('{"asked": 3}', '{"asked"', "[]"):
        record.write_text(damage)
        capsys.readouterr()
        assert cli.main(words) == 2 and capsys.readouterr().err.count("\n") == 1


def test_a_critic_of_another_origin_is_not_overwritten(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "critic.safetensors").write_bytes(b"mine")
    with pytest.raises(RlinoError, match="holds critic.safetensors, which belongs to no run"):
        train(TrainConfig(method="ppo", **SMALL), tmp_path / "run", save=True)
    assert (tmp_path / "run" / "critic.safetensors").read_bytes() == b"mine"
