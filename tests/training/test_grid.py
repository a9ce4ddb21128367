"""Grids: what a file says, and many runs that are skipped, resumed, shared between runners, stopped and named."""

import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time

import pandas as pd
import pytest
from filelock import FileLock

from rlino_lib.analysis.statistics import curve
from rlino_lib.claims.length import length_runs
from rlino_lib.cli import main as cli
from rlino_lib.cli.options import train_config
from rlino_lib.errors import RlinoError
from rlino_lib.paths import RUNS
from rlino_lib.records.runs import Run, list_runs
from rlino_lib.records.writer import RunWriter
from rlino_lib.training import grid
from rlino_lib.training.config import TrainConfig, run_settings
from rlino_lib.training.grid import default_jobs, run_grid, seconds_left
from rlino_lib.training.grid_file import OF_COMMAND, command_line, read_grid

BASE = {"steps": 2, "prompts": 2, "group_size": 2, "eval_every": 0, "max_new_tokens": 40}


def write_grid(path, **parts):
    path.write_text(json.dumps({"base": BASE, "seeds": [0, 1], **parts}))
    return path


# --- the file --------------------------------------------------------------------------------------------------------


def test_listed_runs_are_named_and_ordered_by_seed_first(tmp_path):
    runs = [{"name": "a", "method": "grpo"}, {"name": "b", "method": "rloo", "steps": 9}]
    runs_read = read_grid(write_grid(tmp_path / "g.json", runs=runs))
    assert [name for name, _ in runs_read] == ["a-s0", "b-s0", "a-s1", "b-s1"]
    assert runs_read[1][1] == {**BASE, "method": "rloo", "steps": 9, "seed": 0}


def test_axes_cross_and_name_their_runs(tmp_path):
    axes = {"task": ["word_problems", "countdown"], "method": ["grpo", "rloo"], "lr": [1e-4, 0.00005]}
    runs_read = read_grid(write_grid(tmp_path / "g.json", axes=axes, runs=[{"name": "extra", "method": "dapo"}]))
    names = [name for name, _ in runs_read]
    assert len(runs_read) == 2 * (1 + 8) and names[:3] == [
        "extra-s0", "word_problems-grpo-lr0.0001-s0", "word_problems-grpo-lr5e-05-s0"
    ]  # fmt: skip
    assert dict(runs_read)["countdown-rloo-lr5e-05-s1"] == {
        **BASE, "task": "countdown", "method": "rloo", "lr": 5e-5, "seed": 1
    }  # fmt: skip


def test_an_axis_can_name_several_settings_and_set_changes_what_it_matches(tmp_path):
    axes = {
        "task": ["word_problems", "countdown"],
        "method": ["grpo", "rloo"],
        "batch": {"sgd": {"prompts": 8}, "whole": {"prompts": 64, "epochs": 8}},
    }
    rules = [
        {"where": {"method": "grpo", "task": "countdown"}, "lr": 2e-4},
        {"where": {"method": ["grpo", "rloo"], "batch": "whole"}, "steps": 1, "lr": 3e-4},
        {"where": {"seed": 1}, "trace_groups": 0},
        {"where": {"epochs": 1}, "minibatches": 2},  # a default of TrainConfig
    ]
    settings = dict(read_grid(write_grid(tmp_path / "g.json", axes=axes, set=rules)))
    assert len(settings) == 16
    assert settings["countdown-grpo-sgd-s0"]["lr"] == 2e-4 and "lr" not in settings["countdown-rloo-sgd-s0"]
    whole = settings["countdown-grpo-whole-s1"]
    assert (whole["prompts"], whole["epochs"], whole["steps"], whole["lr"]) == (64, 8, 1, 3e-4)  # the last rule counts
    assert whole["trace_groups"] == 0 and "trace_groups" not in settings["countdown-grpo-whole-s0"]
    assert "minibatches" not in whole and settings["word_problems-rloo-sgd-s0"]["minibatches"] == 2


ONE = {"runs": [{"name": "a", "method": "grpo"}]}


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({}, "no runs"),
        ({"axes": {"method": []}}, "no runs"),
        ({**ONE, "seeds": [0, 0]}, "names two runs"),
        ({"runs": [{"name": "a/b", "method": "grpo"}]}, "not a name for a folder"),
        ({"runs": [{"name": "A"}, {"name": "a"}]}, "'A-s0' and 'a-s0' differ in case alone"),
        ({"runs": [{"name": "GRPO"}], "axes": {"method": ["grpo"]}}, "'GRPO-s0' and 'grpo-s0' differ in case alone"),
        ({"axes": {"model": ["Qwen/Qwen2.5"]}}, "not a name for a folder"),
        ({"runs": [{"method": "grpo"}]}, '"name" of a run'),
        ({"runs": [{"name": 3}]}, '"name" of a run'),
        ({"runs": [{"name": "a", "leraning_rate": 1}]}, "leraning_rate"),
        ({"runs": [{"name": "a", "steps": 0}]}, "run a-s0: steps must be .* at least 1, not 0"),
        ({"runs": [{"name": "a", "steps": "many"}]}, "steps must be a whole number"),
        ({"runs": [{"name": "a", "steps": 2.0}]}, "steps must be a whole number"),
        ({"runs": [{"name": "a", "steps": True}]}, "steps must be a whole number"),
        ({"runs": [{"name": "a", "lr": True}]}, "lr must be a number"),
        ({"runs": [{"name": "a", "lr": None}]}, "lr must be a number"),
        ({"runs": [{"name": "a", "model": ""}]}, "model is empty"),
        ({"runs": [{"name": "a", "model": "--save"}]}, "model must be"),
        ({"runs": [{"name": "a", "method": "grpoo"}]}, "unknown method 'grpoo'"),
        ({"runs": [{"name": "a", "threads": "two"}]}, "threads must be a whole number"),
        ({"runs": [{"name": "a", "threads": 0}]}, "threads must be a whole number"),
        ({"runs": [{"name": "a", "save": 1}]}, "save must be true or false"),
        ({"runs": [{"name": "a", "seed": 7}]}, "no setting 'seed'"),
        ({"runs": [{"name": "a", "eval_every": 1, "eval_problems": 10**6}]}, "validation problems, 1000000 were asked"),
        ({"runs": [{"name": "a", "eval_base": 1}]}, "eval_base is measured by evaluations: set eval_every too"),
        ({"runs": [{"name": "a", "test_samples": 1025}]}, "more than 1024 samples .* 1026, not 1025"),
        ({"runs": [{"name": "a", "objective_settings": {"shortest": 3}}]}, "the 3 shortest of groups of 2"),
        ({"runs": [{"name": "a", "task_settings": 3}]}, "task_settings must be a table"),
        ({"runs": [{"name": "a", "task_settings": {"colour": 3}}]}, "colour"),
        ({"runs": [{"name": "a", "objective_settings": {"beta": "x"}}]}, "beta must be a number"),
        ({"runs": [{"name": "a", "objective_settings": {"beta": float("nan")}}]}, "holds NaN"),
        ({"runs": ["grpo"]}, "runs must be a list, each a table"),
        ({"runs": {"name": "a"}}, "runs must be a list"),
        ({"base": [3]}, "base must be a table"),
        ({"axes": [3]}, "axes must be a table"),
        ({"axes": {"method": "grpo"}}, "axis 'method' must be a list"),
        ({"axes": {"method": ["grpo", 3]}}, "axis 'method' must be a list"),
        ({"axes": {"method": [["grpo"]]}}, "axis 'method' must be a list"),
        ({"axes": {"method": ["grpo", "grpo"]}}, "axis 'method' has a value twice"),
        ({"axes": {"lr": [1e-4, "x"]}}, "axis 'lr' must be a list"),
        ({"axes": {"lr": [1, True]}}, "axis 'lr' must be a list"),
        ({"axes": {"lr": None}}, "axis 'lr' must be a list"),
        ({"axes": {"batch": {"small": 3}}}, "axis 'batch' must be a list"),
        ({"axes": {"method": ["grpo"], "how": {"other": {"method": "rloo"}}}}, "change the same setting"),
        ({**ONE, "set": [{"where": {"method": "rloo"}, "lr": 1}]}, "matches no run"),
        ({**ONE, "set": [{"where": {"metod": "grpo"}, "lr": 1}]}, "matches no run"),
        ({**ONE, "set": [{"where": {}, "lr": -1}]}, "lr must be a number above 0"),
        ({**ONE, "set": [{"where": {}, "rl": 1}]}, "no setting 'rl'"),
        ({**ONE, "set": [{"where": "grpo", "lr": 1}]}, '"where" must be a table'),
        ({**ONE, "set": [{"lr": 1}]}, 'no "where"'),
        ({**ONE, "set": [{"where": {}, "seed": 1}]}, "changes seed"),
        ({"axes": {"lr": [1e-4]}, "set": [{"where": {}, "lr": 1}]}, "changes lr"),
        ({**ONE, "axis": {}}, "no setting 'axis'"),
        ({**ONE, "jobs": "2"}, "jobs must be"),
        ({**ONE, "jobs": -1}, "jobs must be"),
        ({**ONE, "jobs": True}, "jobs must be"),
        ({**ONE, "seeds": 3}, "seeds must be a list"),
        ({**ONE, "seeds": []}, "seeds must be a list"),
        ({**ONE, "seeds": [0.5]}, "seeds must be a list"),
        ({**ONE, "seeds": [-1]}, "seeds must be a list"),
        ({**ONE, "seeds": ["0"]}, "seeds must be a list"),
    ],
)
def test_a_file_that_says_nonsense_is_refused(parts, says, tmp_path):
    with pytest.raises(RlinoError, match="is not a grid file.*" + says) as e:
        run_grid(write_grid(tmp_path / "g.json", **parts), ("false",))
    assert "\n" not in str(e.value) and not (tmp_path / "g").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "Expecting value"),
        (b"[1]", "must be a table"),
        (b'{"base": {}}', "seeds must be a list"),
        (b"\xff\xfe", "can't decode"),
        (b"{", "Expecting property name"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"base": {"steps": 1}, "base": {}, "seeds": [0], "axes": {"method": ["grpo"]}}', "key 'base' twice"),
        (b'{"base": {"lr": 1, "lr": 2}, "seeds": [0], "axes": {"method": ["grpo"]}}', "key 'lr' twice"),
        (b'{"base": {"lr": NaN}, "seeds": [0], "axes": {"method": ["grpo"]}}', "holds NaN"),
        (b'{"base": {"lr": 1e999}, "seeds": [0], "axes": {"method": ["grpo"]}}', "holds 1e999"),
        (b'{"seeds": [0], "axes": {"lr": [1e-4, -Infinity]}}', "holds -Infinity"),
        (b'{"base": {"threads": "two"}, "seeds": [0], "axes": {"method": ["grpo"]}}', "threads must be a whole number"),
        (b'{"seeds": [0], "axes": {"method": "grpo"}}', "axis 'method' must be a list"),
    ],
)
def test_a_file_that_is_no_grid_is_refused_in_one_line_before_anything_is_written(content, says, tmp_path, capsys):
    (tmp_path / "g.json").write_bytes(content)
    assert cli.main(["grid", str(tmp_path / "g.json"), "--out", str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "is not a grid file: " in err and says in err
    assert [p.name for p in tmp_path.iterdir()] == ["g.json"]


@pytest.mark.parametrize("argv", [["nowhere.json"], ["."], ["g.json", "--jobs", "-1"], ["g.json", "--out", "g.json"]])
def test_a_grid_that_cannot_be_read_or_written_is_one_line(argv, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_grid(tmp_path / "g.json", **ONE)
    assert cli.main(["grid", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and [p.name for p in tmp_path.iterdir()] == ["g.json"]


def test_the_shipped_grids_can_be_said_as_commands_and_are_those_of_the_records(root):
    parser, files = cli.build_parser(), sorted((root / "data" / "runs").glob("*.json"))
    assert files
    for file in files:
        for name, settings in read_grid(file):
            arguments = parser.parse_args(command_line(settings, file.parent / name))
            config = vars(train_config(arguments))
            own = {k: v for k, v in settings.items() if k not in OF_COMMAND}
            assert {k: config[k] for k in own} == own and arguments.threads == 1
            assert arguments.save == settings.get("save", False)
        if file.stem.endswith("-more"):  # into the folder of the file without it
            continue
        more = file.with_name(f"{file.stem}-more.json")
        settings = dict([*read_grid(file), *(read_grid(more) if more.exists() else [])])
        recorded = {run.path.name: run for run in list_runs(file.stem)}
        assert set(recorded) <= set(settings)
        assert not any(grid._other_settings(recorded[n].path, settings[n]) for n in recorded)


def test_settings_become_the_printed_command(tmp_path):
    file = write_grid(tmp_path / "g.json", **ONE, base={"lr": 3e-4, "task_settings": {"n_numbers": 4}}, seeds=[7])
    ((name, settings),) = read_grid(file)
    words = " ".join(command_line(settings, tmp_path / name))
    assert name == "a-s7" and "--lr 0.0003" in words and "--task-set n_numbers=4" in words and "--seed 7" in words
    assert "--save" not in words and "--save" in command_line({"save": True}, tmp_path)
    assert "--threads 1 --out" in words and "--threads 3" in " ".join(command_line({"threads": 3}, tmp_path))


# --- the machine, and the clock --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cores", "usable", "gib", "gpu", "settings", "jobs"),
    [
        (8, 16, 64, 0, {}, 8),
        (8, 2, 64, 0, {}, 2),
        (None, 4, 64, 0, {}, 4),
        (8, 16, 3.5, 0, {}, 3),
        (8, 16, 0.2, 0, {}, 1),
        (8, 16, 64, 0, {"threads": 4}, 2),
        (8, 16, 64, 0, {"threads": 99}, 1),
        (16, 16, 64, 40, {}, 10),
        (16, 16, 64, 140, {}, 16),
        (16, 16, 64, 140, {"model": "Qwen/Qwen2.5-0.5B"}, 1),
        (16, 16, 64, 8, {"device": "cpu"}, 16),
    ],
)
def test_how_many_runs_fit_a_machine(cores, usable, gib, gpu, settings, jobs, monkeypatch):
    monkeypatch.setattr(grid.psutil, "cpu_count", lambda logical: cores)
    monkeypatch.setattr(grid.os, "sched_getaffinity", lambda pid: set(range(usable)), raising=False)
    monkeypatch.setattr(grid.psutil, "virtual_memory", lambda: type("", (), {"available": gib * 2**30}))
    monkeypatch.setattr(grid, "_gpu_memory", lambda: gpu)
    assert default_jobs([settings]) == jobs
    assert default_jobs([settings, {}]) <= jobs


def record(folder, settings, share=1.0, seconds=100.0):
    """A run of the given settings, so far done, that took so long."""
    config = run_settings(TrainConfig(**settings))
    writer, done = RunWriter(folder, config), int(share * config["steps"])
    writer.metrics({"step": done, "samples": 0, "accuracy": 0.5, "eval/accuracy": 0.25}, seconds=seconds)
    if share == 1:
        writer.finish({"seconds": seconds, "test": {"pass@1": {"value": 0.75}}})


def test_the_clock_goes_by_other_seeds_then_by_samples(tmp_path):
    runs = [{"name": "a", "method": "grpo"}, {"name": "b", "method": "rloo", "steps": 20}, {"name": "c", "steps": 40}]
    file = write_grid(tmp_path / "g.json", runs=runs, base={"steps": 10, "prompts": 2, "group_size": 2})
    grids = dict(read_grid(file))
    left = lambda jobs=1, **more: seconds_left(tmp_path / "g", grids, jobs, **more)  # noqa: E731
    assert left() is None
    record(tmp_path / "g" / "a-s0", grids["a-s0"], seconds=100)
    assert left() == pytest.approx(100 + 2 * 200 + 2 * 400)  # a tenth of the samples, a tenth of the time
    record(tmp_path / "g" / "b-s0", grids["b-s0"], share=0.5, seconds=30)
    rate = (100 + 60) / (40 + 80)  # seconds a sample, b-s0 as it will be
    assert left() == pytest.approx(100 + 30 + 60 + 2 * 160 * rate)
    assert left(failed=["c-s0", "c-s1"]) == pytest.approx(190) and left(jobs=2) == pytest.approx(left() / 2)
    assert left(jobs=100) == pytest.approx(160 * rate)  # no sooner than the longest run


def test_a_dry_run_lists_states_and_starts_nothing(tmp_path, capsys):
    file = write_grid(tmp_path / "g.json", axes={"method": ["grpo", "rloo"]}, jobs=3)
    runs = dict(read_grid(file))
    record(tmp_path / "g" / "grpo-s0", runs["grpo-s0"])
    record(tmp_path / "g" / "rloo-s0", runs["rloo-s0"], share=0.5, seconds=25)
    lock = FileLock(tmp_path / "g" / "rloo-s0" / "run.lock")
    with lock:
        before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
        assert cli.main(["grid", str(file), "--dry-run"]) == 0
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.name != "run.lock"} == {
        p: t for p, t in before.items() if p.name != "run.lock"
    }
    out, err = capsys.readouterr()
    assert json.loads(out) == {"runs": 4, "complete": 1, "seconds_left": 100}  # no sooner than the longest
    rows = [line.split() for line in err.splitlines()]
    assert rows[1:3] == [["grpo-s0", "complete", "0.750", "100"], ["rloo-s0", "running"]]
    assert rows[3:5] == [["grpo-s1", "to", "do"], ["rloo-s1", "to", "do"]]
    assert "3 at a time, about 01:40 left" in err
    assert run_grid(file, ("false",), dry_run=True)["complete"] == 1
    assert ["rloo-s0", "started"] in [line.split() for line in capsys.readouterr().err.splitlines()]


def test_a_complete_run_of_other_settings_is_named(tmp_path, capsys):
    file = write_grid(tmp_path / "g.json", **ONE, seeds=[0])
    record(tmp_path / "g" / "a-s0", {**dict(read_grid(file))["a-s0"], "lr": 0.5, "prompts": 3})
    write_grid(file, runs=[{"name": "a", "method": "grpo", "lr": 0.25}], seeds=[0])
    for more in ([], ["--dry-run"]):
        assert cli.main(["grid", str(file), *more]) == 2
        assert "a-s0 holds another run, complete, with prompts 3, not 2; lr 0.5, not 0.25: choose" in (
            capsys.readouterr().err
        )


def test_a_dry_run_names_what_the_runs_would_refuse_and_makes_nothing(tmp_path, capsys):
    file = write_grid(tmp_path / "g.json", axes={"method": ["grpo", "rloo", "dapo", "kto"]}, seeds=[0])
    runs = dict(read_grid(file))
    record(tmp_path / "g" / "grpo-s0", {**runs["grpo-s0"], "lr": 0.5}, share=0.5)
    (tmp_path / "g" / "rloo-s0").mkdir()
    (tmp_path / "g" / "rloo-s0" / "config.json").write_text("[]")
    (tmp_path / "g" / "dapo-s0").mkdir()
    (tmp_path / "g" / "dapo-s0" / "metrics.csv").write_text("mine")
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert cli.main(["grid", str(file), "--dry-run"]) == 2
    reason = capsys.readouterr().err.splitlines()[-1]
    assert "grpo-s0 holds another run, unfinished, with lr 0.5, not 0.0001" in reason and "kto" not in reason
    assert "rloo-s0/config.json is something else" in reason and "dapo-s0 holds metrics.csv, which belongs" in reason
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


# --- running, with a stand-in for `rlino train` that takes no time --------------------------------------------------

STUB = """
import json, os, sys, time
from pathlib import Path
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
out = Path(sys.argv[-1])
with open(out.parent.parent / "starts", "a") as f:
    f.write(f"{out.name} {os.getpid()}\\n")
while (out.parent.parent / "hold").exists():
    time.sleep(0.05)
from rlino_lib.records.runs import RUN
from rlino_lib.records.writer import RunWriter
from rlino_lib.training.config import RUN_DEFAULTS, TrainConfig, run_settings
from rlino_lib.errors import RlinoError
from rlino_lib.folders import output_folder
if (out / "summary.json").exists():
    sys.exit()
if options["--method"] == "bad":
    print("first line\\nthe reason\\n\\n", file=sys.stderr)
    sys.exit(2)
if options["--method"] == "slow":
    time.sleep(1)
if options["--method"] == "killed":
    os.kill(os.getpid(), 9)
values = {k[2:].replace("-", "_"): int(v) if v.isdigit() else v for k, v in options.items()}
config = run_settings(TrainConfig(**{k: v for k, v in values.items() if k not in ("threads", "out")}))
try:
    with output_folder(out, RUN, config, RUN_DEFAULTS):
        writer = RunWriter(out, config)
        for step in range(1, config["steps"] + 1):
            time.sleep(0.1)
            writer.metrics({"step": step, "samples": step, "eval/accuracy": 0.5}, seconds=step / 10)
        writer.finish({"seconds": config["steps"] / 10})
except RlinoError as e:
    sys.exit(str(e))
"""
RUNNER = """
import signal, sys
from rlino_lib.cli import main as cli
from rlino_lib.methods.catalogue import GRPO, OBJECTIVES
from rlino_lib.training import grid
OBJECTIVES.update(dict.fromkeys(("bad", "slow", "killed"), GRPO))  # what the stand-in knows beside real methods
grid.TICK, grid.LOOK, cli.PROGRAM = 0.1, 0.2, (sys.executable, sys.argv[1])
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests themselves were told to ignore
signal.signal(signal.SIGHUP, signal.SIG_DFL)
sys.exit(cli.main(["grid", *sys.argv[2:]]))
"""


@pytest.fixture
def stub(tmp_path):
    """Start a runner on a grid file, whose runs are the stand-in's; its folder is that of the file."""
    (tmp_path / "stub.py").write_text(STUB)
    begun = []

    def start(file, *more, stderr=subprocess.PIPE):
        command = [sys.executable, "-c", RUNNER, str(tmp_path / "stub.py"), str(file), *more]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True)
        begun.append(process)
        return process

    yield start
    for process in begun:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def starts(folder):
    """Name and process id of each stand-in that was started, in order."""
    path = folder / "starts"
    return [(n, int(pid)) for n, pid in map(str.split, path.read_text().splitlines())] if path.exists() else []


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition, seconds=300):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "nothing happened"
        time.sleep(0.05)


def begun(folder, n):
    return lambda: len(list(folder.glob("*/metrics.csv"))) >= n


def test_failures_are_named_and_stop_no_other(tmp_path, stub):
    file = write_grid(tmp_path / "g.json", axes={"method": ["bad", "killed", "grpo", "rloo"]}, seeds=[0])
    runner = stub(file, "--jobs", "2")
    out, err = runner.communicate(timeout=120)
    assert (runner.returncode, out) == (2, "")
    *lines, table_bad, table_killed, table_grpo, table_rloo, error = err.splitlines()
    assert error == "rlino: bad-s0: the reason; killed-s0: killed by signal 9"
    assert [row.split() for row in (table_bad, table_killed)] == [["bad-s0", "failed"], ["killed-s0", "failed"]]
    assert table_grpo.split() == ["grpo-s0", "complete", "0.500", "0"]
    assert any(line.startswith("4/4") for line in lines) and any("bad-s0 failed: the reason" in line for line in lines)
    assert sorted(p.name for p in (tmp_path / "g").glob("*.log")) == ["bad-s0.log", "killed-s0.log"]  # kept
    assert "first line" in (tmp_path / "g" / "bad-s0.log").read_text()

    write_grid(file, axes={"method": ["grpo", "rloo"]}, seeds=[0, 1])  # more seeds: what is complete is not run again
    again = stub(file)
    out, _ = again.communicate(timeout=120)
    assert json.loads(out) == {"runs": 4, "complete": 4}
    assert sorted(name for name, _ in starts(tmp_path)) == [
        "bad-s0", "grpo-s0", "grpo-s1", "killed-s0", "rloo-s0", "rloo-s1"
    ]  # fmt: skip


@pytest.mark.parametrize("how", ["SIGTERM", "SIGHUP", "Ctrl-C"])
def test_a_runner_that_is_stopped_leaves_no_process_behind(how, tmp_path, stub):
    file = write_grid(tmp_path / "g.json", base=BASE | {"steps": 600}, axes={"method": ["grpo", "rloo"]})
    runner = stub(file, "--jobs", "3")
    wait_for(begun(tmp_path / "g", 3))
    if how == "Ctrl-C":
        os.killpg(runner.pid, signal.SIGINT)  # a terminal tells every process of the group
    else:
        runner.send_signal(signal.Signals[how])
    _, err = runner.communicate(timeout=60)
    assert runner.returncode == 130 and "goes on where it stopped" in err and "failed" not in err
    assert len(starts(tmp_path)) == 3 and not any(alive(pid) for _, pid in starts(tmp_path))
    assert not list((tmp_path / "g").glob("*.log"))
    assert run_grid(file, ("false",), dry_run=True) == {"runs": 4, "complete": 0, "seconds_left": None}


def test_after_a_killed_runner_its_runs_end_and_none_is_made_twice(tmp_path, stub):
    file = write_grid(tmp_path / "g.json", axes={"method": ["grpo", "rloo"]})
    (tmp_path / "hold").touch()
    first = stub(file, "--jobs", "2")
    wait_for(lambda: len(starts(tmp_path)) == 2)  # loading: neither has locked its folder yet
    first.kill()
    first.wait()
    second = stub(file, "--jobs", "4")
    assert all("left for later" in second.stderr.readline() for _ in range(2))
    (tmp_path / "hold").unlink()
    out, err = second.communicate(timeout=120)
    assert second.returncode == 0 and json.loads(out) == {"runs": 4, "complete": 4}, err
    assert "left for later" not in err
    assert sorted(name for name, _ in starts(tmp_path)) == ["grpo-s0", "grpo-s1", "rloo-s0", "rloo-s1"]


def test_two_runners_share_a_grid(tmp_path, stub):
    file = write_grid(tmp_path / "g.json", base=BASE | {"steps": 5}, axes={"method": ["grpo", "rloo", "dapo"]})
    runners = [stub(file, "--jobs", "1") for _ in range(2)]
    outputs = [runner.communicate(timeout=120) for runner in runners]
    assert [json.loads(out) for out, _ in outputs] == 2 * [{"runs": 6, "complete": 6}], outputs
    names = [name for name, _ in starts(tmp_path)]
    assert len(names) == len(set(names)) == 6
    assert not list((tmp_path / "g").glob("*.log")) and not list((tmp_path / "g").rglob("run.lock"))


def test_a_run_that_is_written_by_hand_is_left_for_later(tmp_path, stub):
    file = write_grid(tmp_path / "g.json", axes={"method": ["grpo", "rloo"]}, seeds=[0])
    (tmp_path / "g" / "grpo-s0").mkdir(parents=True)
    with FileLock(tmp_path / "g" / "grpo-s0" / "run.lock"):
        runner = stub(file, "--jobs", "2")
        wait_for(lambda: (tmp_path / "g" / "rloo-s0" / "summary.json").exists())
        assert runner.poll() is None and [name for name, _ in starts(tmp_path)] == ["rloo-s0"]
    out, err = runner.communicate(timeout=120)
    assert json.loads(out) == {"runs": 2, "complete": 2} and err.count("left for later") == 1


def test_a_run_that_is_begun_by_hand_while_it_loads_is_no_failure(tmp_path, stub):
    file = write_grid(tmp_path / "g.json", axes={"method": ["slow"]}, seeds=[0])
    runner = stub(file)
    wait_for(lambda: starts(tmp_path))
    (tmp_path / "g" / "slow-s0").mkdir()
    with FileLock(tmp_path / "g" / "slow-s0" / "run.lock"):
        wait_for(lambda: not alive(starts(tmp_path)[0][1]))
        time.sleep(2)  # for the runner to find out
    out, err = runner.communicate(timeout=120)
    assert json.loads(out) == {"runs": 1, "complete": 1} and "failed" not in err and len(starts(tmp_path)) == 2


def test_signals_are_noted_but_for_those_that_are_ignored():
    before = {s: signal.getsignal(s) for s in (signal.SIGHUP, signal.SIGTERM)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        with grid._interrupts() as noted:
            for s in before:
                os.kill(os.getpid(), s)
        assert noted == [signal.SIGTERM] and signal.getsignal(signal.SIGTERM) == before[signal.SIGTERM]
    finally:
        signal.signal(signal.SIGHUP, before[signal.SIGHUP])


def test_a_terminal_shows_one_bar_over_the_whole_grid(tmp_path, stub):
    file = write_grid(tmp_path / "g.json", base=BASE | {"steps": 15}, axes={"method": ["grpo", "rloo", "bad"]}, jobs=2)
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 160))
    runner = stub(file, stderr=theirs)
    os.close(theirs)
    terminal = b""
    try:
        while piece := os.read(ours, 4096):
            terminal += piece
    except OSError:  # the other end is closed
        pass
    runner.wait(timeout=60)
    terminal = terminal.decode()
    assert "grid:" in terminal and "0/6 runs, 2 at work, time left not known yet" in terminal
    assert "about 00:0" in terminal and "1 failed" in terminal and "bad-s0 failed: the reason" in terminal


# --- and with `rlino train` itself -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_grid_of_real_runs(tmp_path):
    runs = [{"name": "bad", "model": "no/such-model"}, {"name": "good", "method": "f_isft_pos", "threads": 2}]
    file = write_grid(tmp_path / "mixed.json", runs=runs, seeds=[0])
    command = [sys.executable, "-m", "rlino_lib.cli", "grid", str(file), "--jobs", "2"]
    first = subprocess.run(command, capture_output=True, text=True)
    assert first.returncode == 2 and first.stdout == ""
    error = first.stderr.splitlines()[-1]
    assert "bad-s0" in error and "cannot load a model" in error and "good" not in error
    good = Run(tmp_path / "mixed" / "good-s0")
    assert good.complete and good.config["threads"] == 2
    stamp = (good.path / "metrics.csv").stat().st_mtime_ns
    write_grid(file, runs=runs[1:], seeds=[0])
    again = subprocess.run(command, capture_output=True, text=True)
    assert json.loads(again.stdout) == {"runs": 1, "complete": 1}
    assert stamp == (good.path / "metrics.csv").stat().st_mtime_ns


# --- the recorded grids ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "head-to-head",
        "head-to-head-more",
        "sgd-to-batch",
        "length",
        "length-more",
        "length-cap",
        "length-remedies",
        "giving-up",
    ],  # fmt: skip
)
def test_a_method_runs_at_the_rate_that_is_best_in_the_sweep(name):
    rows = [
        (run.config["task"], run.method, run.config["lr"], curve(run)["accuracy"].iloc[-1])
        for run in list_runs("head-to-head-lr")
    ]
    sweep = pd.DataFrame(rows, columns=["task", "method", "lr", "right"])
    best = sweep.loc[sweep.groupby(["task", "method"])["right"].idxmax()].set_index(["task", "method"])["lr"]
    for _, settings in read_grid(RUNS / f"{name}.json"):
        config = TrainConfig(**settings)
        assert config.lr == best[config.task, config.method], settings
        assert config.eval_split == "test"  # and the sweep was judged on another
    assert {run.config["eval_split"] for run in list_runs("head-to-head-lr")} == {"validation"}


def test_the_constant_runs_at_the_rate_that_is_best_for_it_too():
    swept = list_runs("length-rates")
    assert {run.config["eval_split"] for run in swept} == {"validation"}
    rows = pd.DataFrame((run.config["lr"], curve(run)["accuracy"].iloc[-1]) for run in swept)
    used = {run.config["lr"] for run in length_runs("countdown", "grpo", "constant")}
    assert used == {rows.groupby(0)[1].mean().idxmax()}
