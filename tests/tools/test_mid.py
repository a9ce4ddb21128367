"""The script of the base in between: rehearsed at a tiny size from end to end, cut off in the middle and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pandas as pd
import pytest
import torch

from rlino_lib.cli import main as cli
from rlino_lib.errors import RlinoError
from rlino_lib.paths import DATA
from rlino_lib.records.runs import list_runs
from rlino_lib.training.config import Recipe
from rlino_lib.training.grid_file import read_grid
from tools import mid

TINY = "--hidden-size 32 --layers 1 --batch-size 4 --steps 320 --restart 320 --four-numbers 0 --device cpu --workers 0"


def grids(folder, base):
    """Tiny grids on the base that a rehearsal makes."""
    run = {"model": str(base), "prompts": 2, "group_size": 2, "max_new_tokens": 12, "device": "cpu", "guard": "warn"}
    run |= {"eval_problems": 4, "steps": 2, "eval_every": 2, "trace_groups": 1}
    sweep = {"base": run, "seeds": [0], "axes": {"lr": [1e-4, 1e-3]}, "jobs": 2}
    grid = {"base": run | {"lr": 5e-5}, "seeds": [0], "runs": [{"name": "grpo", "method": "grpo"}], "jobs": 1}
    folder.mkdir()
    for name, content in (("mid-lr", sweep), ("mid", grid)):
        (folder / f"{name}.json").write_text(json.dumps(content))


def command(root, folder, *more):
    out = folder / "out"
    tiny = ["--recipe", TINY, "--evaluate", "--split test --problems 8 --samples 8 --max-new-tokens 12 --device cpu"]
    words = ["bash", str(root / "tools" / "mid.sh"), "--out", str(out)]
    return [*words, "--grids", str(folder / "grids"), *tiny, *more], os.environ | {"PYTHON": sys.executable}


def records(folder):
    """What must not depend on a cut-off: losses, evaluation and metrics."""
    paths = [folder / "base/mid/loss.csv", folder / "base/mid/problems.jsonl", folder / "runs/mid/grpo-s0/metrics.csv"]
    return [path.read_text() for path in paths]


@pytest.mark.slow
def test_a_rehearsal_that_is_cut_off_goes_on_to_the_numbers_of_the_commands_by_hand(
    tmp_path, root, capsys, monkeypatch, request
):
    grids(tmp_path / "grids", tmp_path / "out" / "base" / "mid")
    words, env = command(root, tmp_path)
    checkpoint = tmp_path / "out" / "base" / "mid" / "checkpoint.pt"
    with subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True) as cut:
        deadline = time.time() + 300
        while not checkpoint.exists():
            assert cut.poll() is None and time.time() < deadline
            time.sleep(0.02)
        cut.send_signal(signal.SIGTERM)
        err = cut.communicate()[1]
    assert cut.returncode == 2 and "goes on where it stopped" in err and checkpoint.exists()

    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(1)  # as the script does
    monkeypatch.setattr(mid, "rlino", lambda *command: cli.main(list(command)))  # in this process: torch is loaded
    assert mid.main(words[words.index("--out") :]) == 0
    out, err = capsys.readouterr()
    assert "pass@64" in err
    rates = {
        run.config["lr"]: run.metrics["eval/accuracy"].iloc[-1] for run in list_runs("mid-lr", tmp_path / "out/runs")
    }
    (run,) = list_runs("mid", tmp_path / "out" / "runs")
    assert len(rates) == 2 and rates[run.config["lr"]] == max(rates.values())
    assert json.loads(out.splitlines()[-1]) == {"lr": run.config["lr"]}
    resumed = records(tmp_path / "out")

    # The same base, never cut off.
    assert cli.main(["pretrain", *TINY.split(), "--out", str(tmp_path / "whole")]) == 0
    assert (tmp_path / "whole" / "loss.csv").read_text() == resumed[0]
    cards = [json.loads((p / "card.json").read_text()) for p in (tmp_path / "whole", tmp_path / "out/base/mid")]
    assert cards[0]["weights_sha256_16"] == cards[1]["weights_sha256_16"]


def test_a_command_that_fails_ends_the_script_in_one_line(tmp_path, capfd):
    words = ["--out", str(tmp_path / "out"), "--recipe", "--steps -1"]
    assert mid.main(words) == 2
    out, err = capfd.readouterr()
    assert out == "" and "--steps: must be" in err
    assert err.splitlines()[-1].startswith("mid: pretrain ended with exit code 2")


def test_a_base_is_checked_against_what_chapter_03_asks(tmp_path):
    shipped = mid.measures(DATA / "base" / "countdown")
    assert 0.5 < shipped["mixed groups of 8"] < 1 and None not in shipped.values()
    found = json.loads((DATA / "base" / "countdown" / "evaluation.json").read_text())
    found["found"]["format_ok"] = 0.94
    del found["found"]["pass@64"]
    (tmp_path / "evaluation.json").write_text(json.dumps(found))
    (tmp_path / "problems.jsonl").write_text((DATA / "base" / "countdown" / "problems.jsonl").read_text())
    table = mid.check_base(tmp_path)
    recorded = json.loads((tmp_path / "check.json").read_text())
    assert {name: row["met"] for name, row in recorded.items()} == {
        "format_ok": False, "steps_right": True, "pass@1": True, "pass@64": False, "mixed groups of 8": None,
        "clipped_ratio": None, "mean_length": None,
    }  # fmt: skip
    assert recorded["format_ok"]["value"] == 0.94
    assert table.loc["steps_right", "value"] == table.loc["steps_right", "shipped"] == shipped["steps_right"]


def make_run(folder, lr=1e-4, accuracy=0.5, complete=True):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"method": "grpo", "seed": 0, "lr": lr}))
    pd.DataFrame({"step": [0, 1], "eval/accuracy": [0.9, accuracy]}).to_csv(folder / "metrics.csv", index=False)
    if complete:
        (folder / "summary.json").write_text('{"complete": true}')


def test_the_rate_is_that_of_the_most_accurate_complete_run_at_its_end(tmp_path):
    for lr, accuracy, complete in ((1e-5, 0.3, True), (2e-5, 0.4, True), (4e-5, 0.5, False)):
        make_run(tmp_path / "sweep" / f"lr{lr}", lr, accuracy, complete)
    out = tmp_path / "mid.json"
    assert mid.choose_rate(tmp_path / "sweep", DATA / "runs" / "mid.json", out) == 2e-5
    planned, chosen = (dict(read_grid(path)) for path in (DATA / "runs" / "mid.json", out))
    assert {name: run | {"lr": 2e-5} for name, run in planned.items()} == chosen
    with pytest.raises(RlinoError, match="no complete run"):
        mid.choose_rate(tmp_path / "nothing", DATA / "runs" / "mid.json", out)


def test_the_plan_is_balanced_after_each_seed_and_of_the_size_that_the_chapter_names():
    runs = dict(read_grid(DATA / "runs" / "mid.json"))
    head_to_head = dict(read_grid(DATA / "runs" / "head-to-head.json"))
    assert len(runs) == 25 and [name[-1] for name in runs] == [c for c in "01234" for _ in range(5)]
    same = ("prompts", "group_size", "max_new_tokens", "steps", "eval_every", "eval_problems", "test_samples", "seed")
    for name in ("grpo-s0", "grpo_no_kl-s1", "f_isft_pos-s2", "f_isft_posneg-s0"):
        assert all(runs[name][k] == head_to_head[f"countdown-{name}"][k] for k in same)
    words = mid.RECIPE.split()
    recipe = {k.removeprefix("--").replace("-", "_"): v for k, v in zip(words[::2], words[1::2], strict=True)}
    recipe = Recipe(**{k: float(v) if k == "lr" else int(v) for k, v in recipe.items()})
    per_layer = recipe.hidden_size**2 * (3 + 3 * 4)  # q, o, half of each for k and v; gate, up, down
    assert 10e6 < recipe.layers * per_layer < 40e6
