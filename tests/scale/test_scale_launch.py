"""The configurations for accelerate that ship with the book, and the command that takes them."""

import json
import os
import subprocess
import sys

import pytest

from rlino_lib.paths import DATA
from rlino_lib.records.runs import load_run

pytest.importorskip("trl", minversion="1.16")
from accelerate.commands.config.config_args import load_config_from_file  # noqa: E402

FILES = {"one_gpu": (1, 1, "NO"), "eight_gpus_fsdp": (1, 8, "FSDP"), "two_nodes_fsdp": (2, 16, "FSDP")}


@pytest.mark.parametrize("name", FILES)
def test_the_configurations_are_what_their_names_say(name):
    config = load_config_from_file(str(DATA / "accelerate" / f"{name}.yaml"))  # raises for a key that there is not
    settings = (config.num_machines, config.num_processes, config.distributed_type.value)
    assert settings == FILES[name] and config.mixed_precision == "bf16" and not config.use_cpu
    if config.distributed_type.value == "FSDP":
        assert config.fsdp_config["fsdp_version"] == 2
        assert config.fsdp_config["fsdp_state_dict_type"] == "FULL_STATE_DICT"


def test_all_shipped_configurations_are_tested():
    assert {p.stem for p in (DATA / "accelerate").glob("*.yaml")} == set(FILES)


def test_the_command_runs_under_the_launcher_and_ends_with_a_line_of_results(tmp_path):
    words = ["--method", "dr_grpo", "--steps", "1", "--prompts", "4", "--group-size", "4", "--eval-every", "0",
             "--max-new-tokens", "32", "--threads", "1", "--device", "cpu", "--out", str(tmp_path / "run")]  # fmt: skip
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", f"{DATA}/accelerate/one_gpu.yaml"]
    command = [*launch, "-m", "rlino_lib.scale", *words]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    run = load_run(tmp_path / "run")
    assert result["complete"] and result["run"] == str(run.path)
    assert result["accuracy"] == run.metrics["accuracy"].iloc[-1]
    assert run.config["precision"] == "bf16" and run.method == "dr_grpo"  # the launcher's, and recorded
