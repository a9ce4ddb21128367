"""`rlino values`: a critic's values and few continuations beside many, of a run that was kept."""

import json

import pandas as pd
import pytest
import torch

from rlino_lib.cli import main as cli
from rlino_lib.errors import RlinoError
from rlino_lib.evaluation import value_errors
from rlino_lib.policy.critic import Critic, load_critic, save_critic
from rlino_lib.policy.models import load_policy
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.run import train

SMALL = dict(task="word_problems", steps=1, prompts=2, group_size=4, eval_every=0, max_new_tokens=64, guard="warn")


@pytest.mark.parametrize("trunk", ["copy", "policy"])
def test_a_critic_is_kept_with_its_run_and_read_back(trunk, tmp_path):
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


def test_values_are_measured_once_and_recorded_with_their_settings(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(value_errors, "TRUTH", 8)
    run = train(TrainConfig(method="ppo", **SMALL), tmp_path / "run", save=True)
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
