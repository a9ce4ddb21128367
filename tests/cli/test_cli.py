"""The command line: help, one JSON line on stdout, one line of error."""

import ast
import dataclasses
import importlib
import inspect
import json
import math
import os
import re
import shlex
import subprocess
import sys

import pytest

from rlino_lib.cli import main as cli
from rlino_lib.cli.bench import BENCHES
from rlino_lib.cli.terminal import run_program
from rlino_lib.errors import RlinoError
from rlino_lib.methods.advantages import ADVANTAGES
from rlino_lib.methods.objective import OPTIONS, Objective
from rlino_lib.policy.sampling import SampleConfig, sample
from rlino_lib.tasks import TASKS
from rlino_lib.training.config import Recipe, TrainConfig
from rlino_lib.training.grid_file import GridFile
from rlino_lib.training.pretraining.demonstrators import SOURCES

SETTINGS_CLASSES = (TrainConfig, Recipe, SampleConfig, GridFile, Objective)
REQUIRED = {(Objective, "name"), (GridFile, "seeds")}  # fields without a default, or with one that is refused
COMMANDS = [
    "pretrain",
    "train",
    "evaluate",
    "chains",
    "values",
    "gradients",
    "grid",
    "grade",
    "import",
    "fetch",
    "claims",
    "bench",
    "presets",
    "doctor",
]


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
        (["train", "--task-set", "template", "--out", "x"], "name=value"),
        (["train", "--task-set", "colour=red", "--out", "x"], "colour"),
        (["train", "--task", "chess", "--out", "x"], "one of countdown"),
        (["train", "--model", "no/such-model", "--out", "x"], "cannot load a model"),
        (["evaluate", "--problems", "99999", "--out", "x"], "problems"),
        (["grid", "no-such-file.json"], "not a grid file"),
        (["grade", "no-such-file.jsonl"], "no-such-file"),
    ],
)
def test_errors_are_one_line_and_exit_2(argv, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(argv, words, capsys, tmp_path)


def refused(argv, words, capsys, folder):
    """The command ends with one line on stderr and leaves the folder, in which it runs, as it was."""
    before = sorted(folder.iterdir())
    assert cli.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and words in err, err
    assert sorted(folder.iterdir()) == before


# --- values ----------------------------------------------------------------------------------------------------------

# A row: a command, an option, and values of it that mean something else or nothing.
WRONG = [
    ("train", "--clip-norm", "-1 0 nan inf x"),
    ("train", "--lr", "0 -0.1 nan inf 1e999 x"),
    ("train", "--temperature", "0 -1 1e-40 1e300 nan inf"),
    ("train", "--warmup", "-5 1.5 x"),
    ("train", "--checkpoint-every", "0 -1"),
    ("train", "--seed", "1e20 99999999999999999999 -1 4294967296 1.0"),
    ("train", "--threads", "-1 100000 two"),
    ("train", "--steps", "0 -1 many 2.0 nan"),
    ("train", "--prompts", "0 -1"),
    ("train", "--group-size", "0 -1"),
    ("train", "--max-new-tokens", "0 -1"),
    ("train", "--epochs", "0"),
    ("train", "--minibatches", "0"),
    ("train", "--micro-batch", "0 -1"),
    ("train", "--lora-rank", "-1"),
    ("train", "--lora-alpha", "0 nan"),
    ("train", "--lora-targets", ", q_proj, q/k"),
    ("train", "--eval-every", "-1"),
    ("train", "--eval-split", "tset"),
    ("train", "--eval-problems", "-1 0"),
    ("train", "--eval-samples", "-1 0"),
    ("train", "--eval-base", "2 -1 yes"),
    ("train", "--trace-every", "-1"),
    ("train", "--trace-groups", "-1"),
    ("train", "--probe-every", "-1"),
    ("train", "--test-samples", "-1"),
    ("train", "--guard", "no"),
    ("train", "--schedule", "cosine"),
    ("train", "--device", "tpu gpu cpu:x cuda:-1"),
    ("train", "--precision", "fp16 half"),
    ("train", "--gradient-checkpointing", "2 -1"),
    ("train", "--task", "chess"),
    ("pretrain", "--steps", "0 -1"),
    ("pretrain", "--batch-size", "0 1000000000"),
    ("pretrain", "--warmup", "0"),
    ("pretrain", "--restart", "0 -1"),
    ("pretrain", "--lr", "0 1e300 nan inf"),
    ("pretrain", "--weight-decay", "-1 nan"),
    ("pretrain", "--four-numbers", "-0.1 1.1 nan"),
    ("pretrain", "--n-four", "0"),
    ("pretrain", "--hidden-size", "0 12"),
    ("pretrain", "--layers", "0"),
    ("pretrain", "--merges", "-1"),
    ("pretrain", "--task", "chess gsm8k"),
    ("pretrain", "--seed", "-1 1e20"),
    ("pretrain", "--device", "tpu"),
    ("pretrain", "--threads", "-1"),
    ("evaluate", "--problems", "-1"),
    ("evaluate", "--samples", "0 -1"),
    ("evaluate", "--max-new-tokens", "0"),
    ("evaluate", "--temperature", "-1 1e-40 1e300 nan inf"),
    ("evaluate", "--top-p", "0 1.5 nan -0.5"),
    ("evaluate", "--seed", "-1 1e20"),
    ("evaluate", "--split", "all"),
    ("evaluate", "--device", "tpu"),
    ("evaluate", "--precision", "fp16"),
    ("evaluate", "--shots", "-1"),
    ("evaluate", "--task", "chess"),
    ("evaluate", "--threads", "-1"),
    ("gradients", "--problems", "0 7 x"),
    ("gradients", "--groups", "1 -1"),
    ("gradients", "--seed", "-1 1e20"),
    ("gradients", "--device", "tpu"),
]


@pytest.mark.parametrize(
    "command, option, value", [(command, option, v) for command, option, values in WRONG for v in values.split()]
)
def test_a_wrong_value_is_refused_in_one_line_that_names_it(command, option, value, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused([command, option, value, "--out", "x"], f"argument {option}: must be ", capsys, tmp_path)


@pytest.mark.parametrize(
    "argv, words",
    [
        (["bench", "rollout", "--repeats", "0"], "--repeats: must be"),
        (["bench", "rollout", "--seed", "-1"], "--seed: must be"),
        (["bench", "rollout", "--threads", "-1"], "--threads: must be"),
        (["fetch", "gsm8k", "--seed", "x"], "--seed: must be"),
        (["grade", "--seed", "x", "f"], "--seed: must be"),
        (["train", "--minibatches", "17", "--prompts", "2", "--out", "x"], "minibatches must be at most the 16"),
        (["train", "--objective-set", "beta=x", "--out", "x"], "beta must be"),
        (["train", "--objective-set", "beta=-1", "--out", "x"], "beta must be"),
        (["train", "--objective-set", "beta=true", "--out", "x"], "beta must be"),
        (["train", "--objective-set", "beta=[0.1]", "--out", "x"], "beta must be"),
        (["train", "--objective-set", "beta=NaN", "--out", "x"], "--objective-set beta holds NaN"),
        (["train", "--objective-set", "beta=1", "--objective-set", "beta=2", "--out", "x"], "sets beta twice"),
        (["evaluate", "--task-set", "restart_held_out=2", "--max-new-tokens", "9", "--out", "x"], "fill the cap of 9"),
        (["train", "--objective-set", "beta=1e999", "--out", "x"], "--objective-set beta holds 1e999"),
        (["train", "--objective-set", "clip_low=-0.2", "--out", "x"], "clip_low must be"),
        (["train", "--objective-set", "clip_low=1.5", "--out", "x"], "clip_low must be"),
        (["train", "--objective-set", "clip_high=-0.2", "--out", "x"], "clip_high must be"),
        (["train", "--objective-set", "delta=0", "--out", "x"], "delta must be"),
        (["train", "--objective-set", "tau=[1]", "--out", "x"], "tau must be"),
        (["train", "--objective-set", "tau=[[1, 2], 3]", "--out", "x"], "tau must be"),
        (["train", "--objective-set", "tau=[1, 0]", "--out", "x"], "tau must be"),
        (["train", "--objective-set", "shortest=1.0", "--out", "x"], "shortest must be"),
        (["train", "--objective-set", "kl_correction=1", "--out", "x"], "kl_correction must be true or false"),
        (["train", "--objective-set", "reward_to_go=yes", "--out", "x"], "reward_to_go must be true or false"),
        (["train", "--objective-set", "overlong=2", "--out", "x"], "overlong must be"),
        (["train", "--objective-set", "filter=some", "--out", "x"], "filter must be one of"),
        (["train", "--objective-set", "kl=k4", "--out", "x"], "kl must be one of"),
        (["train", "--objective-set", "options=[1]", "--out", "x"], "options must be a table"),
        (["train", "--objective-set", 'options={"eps": "x"}', "--out", "x"], "option eps must be"),
        (["train", "--objective-set", 'options={"eps": -1}', "--out", "x"], "option eps must be"),
        (["train", "--objective-set", 'options={"eps": 1, "eps": 2}', "--out", "x"], "the key 'eps' twice"),
        (["train", "--objective-set", "name=mine", "--out", "x"], "no setting 'name'"),
        (["train", "--task-set", "n_numbers=NaN", "--out", "x"], "--task-set n_numbers holds NaN"),
        (["train", "--task-set", "x=" + "9" * 5000, "--out", "x"], "value has 5000 digits"),
        (["train", "--task-set", "x=" + "[" * 100_000, "--out", "x"], "nested too deeply"),
        (["grade", "--task-set", "x=[-Infinity]", "f"], "--task-set x holds -Infinity"),
        (["evaluate", "--task-set", "x=NaN", "--out", "x"], "--task-set x holds NaN"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_written(argv, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(argv, words, capsys, tmp_path)


def test_every_field_of_every_settings_class_says_what_it_may_be_and_has_help():
    for cls in SETTINGS_CLASSES:
        for f in dataclasses.fields(cls):
            allowed, words = f.metadata["allowed"], f.metadata["help"]
            assert words and allowed.words and not any(map(allowed.holds, (math.nan, 10**400, object()))), f.name
            default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
            if (cls, f.name) not in REQUIRED:
                assert allowed.holds(default), f.name
            if isinstance(default, bool):
                assert not allowed.holds(1) and not allowed.holds("true")
            elif isinstance(default, int | float):
                assert not allowed.holds(True) and not allowed.holds("1") and not allowed.holds(float("inf")), f.name
                assert isinstance(default, float) or not allowed.holds(float(default)), f.name
            elif isinstance(default, str):
                assert not allowed.holds(1) and not allowed.holds(None) and not allowed.holds("\udcff"), f.name


def test_no_settings_class_is_left_out():
    """Whatever has a declared field is held to all of them, and `check` runs where it is made."""
    names = ("training.config", "policy.sampling", "methods.objective", "training.grid_file")
    modules = [importlib.import_module(f"rlino_lib.{name}") for name in names]
    own = [c for m in modules for c in vars(m).values() if inspect.isclass(c) and c.__module__ == m.__name__]
    for cls in filter(dataclasses.is_dataclass, own):
        declared = [f.name for f in dataclasses.fields(cls) if f.metadata]
        assert (cls in SETTINGS_CLASSES) == bool(declared) == hasattr(cls, "__post_init__"), cls
    for cls in SETTINGS_CLASSES:
        needed = {"name": "x"} if cls is Objective else {"seeds": [0]} if cls is GridFile else {}
        for f in dataclasses.fields(cls):
            with pytest.raises(RlinoError, match=f.name):
                cls(**{**needed, f.name: object()})


def test_what_a_function_takes_by_default_is_the_default_of_its_settings():
    assert inspect.signature(sample).parameters["group_size"].default == SampleConfig().group_size
    stated = dict(re.findall(r'`(\w+)="?([\w.]+)"?`', sample.__doc__.split("\n\n")[1]))
    assert stated == {f.name: str(f.default) for f in dataclasses.fields(SampleConfig)[1:]}


def test_the_defaults_of_a_bench_are_those_that_its_help_says(capsys):
    with pytest.raises(SystemExit):
        cli.main(["bench", "--help"])
    out = capsys.readouterr().out
    assert "counts (default: 5)" in out and "sampling (default: 0)" in out
    defaults = [[p.default for p in inspect.signature(bench).parameters.values()][-2:] for bench in BENCHES.values()]
    assert all(pair == [5, 0] for pair in defaults)


def test_every_option_of_an_advantage_rule_has_a_range():
    rules = {n for rule in ADVANTAGES.values() for n in list(inspect.signature(rule.of).parameters)[1:]}
    assert rules == set(OPTIONS)


def test_the_tasks_of_a_base_are_those_with_a_demonstrator():
    assert [t for t in SOURCES if not Recipe(task=t)] == []
    for task in set(TASKS) - set(SOURCES):
        with pytest.raises(RlinoError, match="task must be one of"):
            Recipe(task=task)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"steps": 2.0}, "steps must be a whole number of at least 1, not 2.0"),
        ({"steps": True}, "steps must be"),
        ({"steps": "2"}, "steps must be"),
        ({"lr": True}, "lr must be a number above 0 and at most 1000, not True"),
        ({"lr": "1e-4"}, "lr must be"),
        ({"lr": None}, "lr must be"),
        ({"lora_targets": ""}, "lora_targets must be"),
        ({"lora_targets": ["q_proj"]}, "lora_targets must be"),
        ({"task_settings": [1]}, "task_settings must be a table"),
        ({"objective_settings": {1: 2}}, "objective_settings must be a table"),
        ({"model": "a\nb"}, "model must be"),
        ({"seed": 2**32}, "seed must be"),
    ],
)
def test_a_call_from_python_is_held_to_the_same(changes, words):
    with pytest.raises(RlinoError, match=f"^{words}"):
        TrainConfig(**changes)


@pytest.mark.parametrize("command, cls", [("train", TrainConfig), ("pretrain", Recipe)])
def test_the_help_of_an_option_is_that_of_its_field_with_its_default(command, cls, capsys):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    out = " ".join(capsys.readouterr().out.split())
    for f in dataclasses.fields(cls):
        if f.default is not dataclasses.MISSING:
            assert f"--{f.name.replace('_', '-')} {f.name.upper()} {f.metadata['help']}" in out
            assert f.default == "" or f"{f.metadata['help']} (default: {f.default})" in out


# --- streams, files and names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv, words",
    [
        (["train", "--out", ""], "--out is empty"),
        (["train", "--out="], "--out is empty"),
        (["train", "--model", "", "--out", "x"], "--model is empty"),
        (["train", "--preset", " ", "--out", "x"], "--preset is empty"),
        (["evaluate", "--out", ""], "--out is empty"),
        (["grade", ""], "an argument is empty"),
        (["grid", "", "--out", "x"], "an argument is empty"),
        (["presets", ""], "an argument is empty"),
        (["train", "--out", "file"], "--out: must be a folder"),
        (["pretrain", "--out", "file"], "--out: must be a folder"),
        (["evaluate", "--out", "file"], "--out: must be a folder"),
        (["train", "--out", "a\udcff"], "--out: must be a folder"),
        (["train", "--model", "a\udcff", "--out", "x"], "--model: must be a folder or a hub id"),
        (["pretrain", "--out", "file/x"], "Not a directory"),
        (["grade", "folder"], "Is a directory"),
        (["grade", "file", "--out", "folder"], "cannot write folder"),
        (["grade", "file", "--out", "nowhere/x"], "No such file"),
        (["grade", "\udcff"], "No such file"),
        (["grid", "folder"], "Is a directory"),
        (["grid", "file", "--out", "file"], "--out: must be a folder"),
        (["claims", "--runs", "nowhere"], "--runs must be a folder"),
        (["claims", "--yours", "file"], "--yours must be a folder"),
        (["claims", "--runs", "folder"], "holds no groups of runs"),
        (["train", "--lora", "--lora-rank", "0", "--out", "x"], "--lora trains adapters"),
        (["train", "--lora-alpha", "7", "--out", "x"], "need adapters"),
        (["claims", "--out", "folder"], "--out: must be a file"),
        (["claims", "--out", "nowhere/x"], "--out: must be a file"),
        (["fetch", "gsm8k", "--out", "file"], "--out: must be a folder"),
        (["fetch", "gsm8k", "--from", "nowhere", "--out", "x"], "cannot read nowhere"),
    ],
)
def test_names_that_lead_nowhere_are_one_line(argv, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("{}\n")
    (tmp_path / "folder").mkdir()
    refused(argv, words, capsys, tmp_path)


PROGRAMS = {
    "presets": ["-m", "rlino_lib.cli", "presets"],
    "help": ["-m", "rlino_lib.cli", "train", "--help"],
    "book": ["-m", "tools.book", "check"],
}


def shell(program, rest, **env):
    """A program under a shell: exit code, stdout and stderr."""
    words = shlex.join([sys.executable, *PROGRAMS[program]])
    process = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {words} {rest}"], capture_output=True, env={**os.environ, **env}
    )
    return process.returncode, process.stdout, process.stderr


@pytest.mark.parametrize("program, buffered", [("presets", ""), ("presets", "1"), ("help", ""), ("book", "1")])
def test_a_full_or_closed_stdout_is_one_line_and_a_reader_that_left_is_none(program, buffered):
    for rest, why in (("> /dev/full", b"No space left"), (">&-", b"stdout is closed")):
        code, out, err = shell(program, rest, PYTHONUNBUFFERED=buffered)
        last = err.splitlines()[-1]
        assert (code, out) == (2, b"") and why in last and b"Traceback" not in err and b"ignored" not in err
        assert program == "presets" or err.count(b"\n") == 1
    code, _, err = shell(program, "| true", PYTHONUNBUFFERED=buffered)
    assert code == 0 and b"Traceback" not in err and b"ignored" not in err and b"pipe" not in err


def test_a_closed_stderr_sends_no_line_to_stdout():
    assert shell("presets", "nonsense 2>&-") == (2, b"", b"")
    code, out, _ = shell("presets", "paper-gsm8k-0.5b 2>&-")
    assert code == 0 and list(json.loads(out)) == ["paper-gsm8k-0.5b"]


@pytest.mark.parametrize(
    "env", [{"PYTHONIOENCODING": "latin-1"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_text_that_the_output_cannot_hold_comes_out_with_replacements(env):
    code, out, err = shell("help", "", **env)
    assert (code, err) == (0, b"") and b"f_isft_?" in out


def test_no_text_file_is_read_or_written_in_the_encoding_of_the_locale(root):
    left = []
    for path in sorted((root / "rlino_lib").rglob("*.py")):
        for call in (n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            owner = getattr(getattr(call.func, "value", None), "id", "")
            words = [c.value for arg in call.args for c in ast.walk(arg) if isinstance(c, ast.Constant)]
            binary = name == "open" and (owner == "os" or {"rb", "wb", "ab"} & set(words))
            if name in ("open", "read_text", "write_text") and not binary:
                left += [f"{path.name}:{call.lineno}"] * ("encoding" not in [k.arg for k in call.keywords])
    assert not left


def test_a_closed_stdin_is_one_line():
    words = shlex.join([sys.executable, "-m", "rlino_lib.cli", "grade", "-"])
    process = subprocess.run(["bash", "-c", f"{words} <&-"], capture_output=True)
    assert (process.returncode, process.stdout, process.stderr) == (2, b"", b"rlino: cannot read stdin: it is closed\n")


@pytest.mark.parametrize(
    "error, line",
    [
        (RlinoError("two\nlines"), "p: two lines"),
        (OSError(28, "No space left on device"), "p: [Errno 28] No space left on device"),
        (MemoryError("no"), "p: out of memory: no"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes"), "p: out of memory: Default"),
        (UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "surrogates not allowed"), "p: not UTF-8: 'a\\udcff'"),
        (BrokenPipeError(32, "Broken pipe"), "p: [Errno 32] Broken pipe"),  # of the command's own, not of stdout
    ],
)
def test_what_a_program_turns_into_a_line(error, line, capsys):
    def fails():
        raise error

    assert run_program(fails, "p") == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(line) and err.count("\n") == 1
    assert run_program(fails, "p", silent=True) == 2 and capsys.readouterr().err == ""


def test_an_error_of_the_program_keeps_its_traceback():
    for error in (RuntimeError("a shape"), KeyError("x")):

        def fails(error=error):
            raise error

        with pytest.raises(type(error)):
            run_program(fails)


def test_evaluate_ends_with_one_json_line_and_refuses_a_used_folder(tmp_path, capsys):
    argv = ["evaluate", "--problems", "4", "--samples", "2", "--max-new-tokens", "40", "--out", str(tmp_path / "e")]
    assert cli.main(argv) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["problems"] == 4 and summary["samples"] == 2
    assert cli.main([*argv, "--seed", "1"]) == 2
    assert "another evaluation" in capsys.readouterr().err
