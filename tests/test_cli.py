"""The command line: help, one JSON line on stdout, one line of error, and grids that skip what is complete."""

import json
import subprocess
import sys

import pytest

from rlino_lib import cli
from rlino_lib.grid import command_line, read_grid

COMMANDS = ["pretrain", "train", "evaluate", "grid", "grade", "bench"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(name, capsys):
    with pytest.raises(SystemExit) as e:
        cli.main([name, "--help"])
    out = capsys.readouterr().out
    assert e.value.code == 0 and "examples:" in out and f"rlino {name}" in out


@pytest.mark.parametrize(
    "argv, words",
    [
        (["train"], "--out"),
        (["no-such-command"], "invalid choice"),
        (["train", "--method", "ppo3", "--out", "x"], "unknown method"),
        (["train", "--steps", "many", "--out", "x"], "invalid int"),
        (["train", "--task-set", "template", "--out", "x"], "name=value"),
        (["train", "--task-set", "colour=red", "--out", "x"], "colour"),
        (["train", "--task", "chess", "--out", "x"], "unknown task"),
        (["train", "--model", "no/such-model", "--out", "x"], "cannot load a model"),
        (["train", "--steps", "0", "--out", "x"], "at least 1"),
        (["evaluate", "--problems", "99999", "--out", "x"], "problems"),
        (["grid", "no-such-file.json"], "no grid file"),
        (["grade", "no-such-file.jsonl"], "no-such-file"),
    ],
)
def test_errors_are_one_line_and_exit_2(argv, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(argv) == 2
    found = capsys.readouterr()
    assert words in found.err and found.err.count("\n") == 1 and found.out == ""


def test_evaluate_ends_with_one_json_line_and_refuses_a_used_folder(tmp_path, capsys):
    argv = ["evaluate", "--problems", "4", "--samples", "2", "--max-new-tokens", "40", "--out", str(tmp_path / "e")]
    assert cli.main(argv) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == 4 and found["samples"] == 2
    assert cli.main([*argv, "--seed", "1"]) == 2
    assert "another evaluation" in capsys.readouterr().err


def write_grid(path, **changes):
    base = {"steps": 2, "prompts": 2, "group_size": 2, "eval_every": 0, "max_new_tokens": 40}
    grid = {"base": base, "seeds": [0, 1], "runs": [{"name": "grpo", "method": "grpo"}]} | changes
    path.write_text(json.dumps(grid))
    return path


def test_a_grid_runs_resumes_and_skips(tmp_path):
    file = write_grid(tmp_path / "small.json")
    command = [sys.executable, "-m", "rlino_lib.cli", "grid", str(file), "--jobs", "2"]
    first = subprocess.run(command, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout) == {"runs": 2, "complete": 2}
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "small").rglob("metrics.csv")}
    assert len(stamps) == 2
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0 and stamps == {p: p.stat().st_mtime_ns for p in stamps}


def test_a_failed_run_is_named_and_stops_no_other(tmp_path, capsys):
    runs = [{"name": "bad", "method": "no such"}, {"name": "good", "method": "f_isft_pos"}]
    file = write_grid(tmp_path / "mixed.json", runs=runs, seeds=[0])
    assert cli.main(["grid", str(file), "--jobs", "1"]) == 2
    err = capsys.readouterr().err
    assert "bad-s0" in err and "unknown method" in err and "good" not in err
    assert (tmp_path / "mixed" / "good-s0" / "summary.json").exists()


def test_grid_settings_become_the_printed_command(tmp_path):
    file = write_grid(tmp_path / "g.json", base={"lr": 3e-4, "task_settings": {"n_numbers": 4}}, seeds=[7])
    ((name, settings),) = read_grid(file)
    words = " ".join(command_line(settings, tmp_path / name))
    assert name == "grpo-s7" and "--lr 0.0003" in words and "--task-set n_numbers=4" in words and "--seed 7" in words
