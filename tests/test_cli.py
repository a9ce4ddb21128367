"""The command line: help, one JSON line on stdout, one line of error."""

import json

import pytest

from rlino_lib import cli

COMMANDS = ["pretrain", "train", "evaluate", "grid", "grade", "fetch", "claims", "bench", "presets"]


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
