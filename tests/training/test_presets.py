"""Presets: the paper's facts as they are known, every other value marked as ours, options before presets."""

import json

import pytest

from rlino_lib.cli import main as cli
from rlino_lib.cli.options import train_config
from rlino_lib.errors import RlinoError
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.presets import find_preset, presets


def parsed(*words):
    return train_config(cli.build_parser().parse_args(["train", "--out", "x", *words]))


def test_every_preset_is_a_run_and_says_of_each_value_whose_it_is():
    assert {f"paper-{task}-{size}" for task in ("gsm8k", "countdown") for size in ("0.5b", "1.5b")} == set(presets())
    for name, preset in presets().items():
        config = TrainConfig(**preset.settings)
        assert (config.prompts, config.group_size, config.temperature, config.lr) == (64, 5, 0.6, 1e-6)
        assert (config.max_new_tokens, config.steps, config.eval_every) == (1024, 240, 10)
        assert config.model == f"Qwen/Qwen2.5-{name.rpartition('-')[2].upper()}" and config.task in name
        assert not preset.paper.keys() & preset.ours.keys() and all(why for _, why in preset.ours.values())
        table = preset.table().splitlines()
        assert len(table) == 1 + len(preset.settings)
        assert sum("the paper's" in line for line in table) == len(preset.paper)


def test_options_come_before_the_preset_and_the_preset_before_the_defaults():
    config = parsed("--preset", "paper-gsm8k-0.5b", "--steps", "2", "--task-set", "shots=4", "--lora")
    assert (config.steps, config.prompts, config.lora_rank, config.minibatches) == (2, 64, 16, 1)
    assert config.task_settings == {"template": "boxed", "shots": 4}
    assert parsed("--preset", "paper-gsm8k-0.5b", "--method", "f_isft_pos").temperature == 0.6
    assert parsed("--steps", "200") == parsed() == TrainConfig()
    assert parsed("--lora", "--lora-rank", "4").lora_rank == 4


def test_the_command_shows_them_and_refuses_others(capsys):
    assert cli.main(["presets", "paper-countdown-1.5b"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["paper-countdown-1.5b"]["group_size"] == 5 and "our choice: " in printed.err
    with pytest.raises(RlinoError, match="unknown preset"):
        find_preset("paper-chess")
