"""What is in `--out` already: one rule for every command. What a kill or a full disk leaves: nothing that is half."""

import errno
import json
import math
import os
import shutil
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlino_lib import folders
from rlino_lib.cli import main as cli
from rlino_lib.errors import RlinoError
from rlino_lib.evaluation import evaluate as evaluation
from rlino_lib.evaluation import graded
from rlino_lib.evaluation.recorded import measured
from rlino_lib.folders import Kind, append_jsonl, changes, output_folder, read_jsonl, replacing, whole_lines, write_json
from rlino_lib.paths import DATA
from rlino_lib.policy.models import load_policy, save_policy
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.records.runs import PACKED, RUN, Run, list_runs
from rlino_lib.records.writer import RunWriter
from rlino_lib.tasks import Grade, Problem
from rlino_lib.training.config import RUN_DEFAULTS, Recipe, TrainConfig, run_settings
from rlino_lib.training.pretraining.pretrain import pretrain
from rlino_lib.training.run import train
from rlino_lib.training.trainer import Trainer

SMALL = TrainConfig(steps=3, prompts=2, group_size=2, eval_every=0, max_new_tokens=24, checkpoint_every=1)
RECIPE = Recipe(steps=4, batch_size=8, four_numbers=0.0, hidden_size=32, layers=1)
EVALUATE = ["evaluate", "--problems", "4", "--max-new-tokens", "24"]


def snapshot(folder):
    """Every file with its content and the time of its last change."""
    return {p: (p.stat().st_mtime_ns, p.is_file() and p.read_bytes()) for p in [folder, *folder.rglob("*")]}


def words_of(config):
    """The options of `rlino train` that say a configuration."""
    given = {k: v for k, v in asdict(config).items() if k not in ("task_settings", "objective_settings")}
    return [w for k, v in given.items() for w in (f"--{k.replace('_', '-')}", str(v))]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One complete folder of each command, by the command that made it."""
    root = tmp_path_factory.mktemp("made")
    commands = {
        "train": ["train", *words_of(SMALL)],
        "pretrain": ["pretrain", "--steps", "4", "--batch-size", "8", "--four-numbers", "0.0", "--hidden-size", "32",
                     "--layers", "1", "--device", "cpu"],
        "evaluate": [*EVALUATE],
        "chains": ["chains", "--problems", "2", "--samples", "2", "--max-new-tokens", "24"],
    }  # fmt: skip
    for name, words in commands.items():
        assert cli.main([*words, "--out", str(root / name)]) == 0
    return {name: ([*words, "--out", str(root / name)], root / name) for name, words in commands.items()}


# --- one rule --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["train", "pretrain", "evaluate", "chains"])
def test_what_is_complete_is_returned_as_it_is(name, made, capsys):
    words, folder = made[name]
    before = snapshot(folder)
    assert not (folder / "run.lock").exists() and not list(folder.glob("*.tmp"))
    assert cli.main(words) == 0
    assert json.loads(capsys.readouterr().out) and snapshot(folder) == before


@pytest.mark.parametrize(
    "name, more, named",
    [
        ("train", ["--method", "rloo", "--model", "/does/not/exist"], ["method grpo, not rloo", "not /does/not/exist"]),
        ("train", ["--method", "nonsense"], ["nonsense"]),
        ("train", ["--seed", "7"], ["seed 0, not 7"]),
        ("train", ["--lr", "2e-4"], ["lr 0.0001, not 0.0002"]),
        ("train", ["--task-set", "n_numbers=4"], ['task_settings {}, not {"n_numbers": 4}']),
        ("train", ["--save"], ["without its model"]),
        ("pretrain", ["--seed", "1"], ["seed 0, not 1"]),
        ("pretrain", ["--steps", "5", "--lr", "0.1"], ["steps 4, not 5; lr 0.002, not 0.1"]),
        ("evaluate", ["--seed", "1", "--model", "/does/not/exist"], ["another evaluation", "seed 0, not 1"]),
        ("evaluate", ["--problems", "8"], ["problems 4, not 8"]),
        ("evaluate", ["--temperature", "0.5"], ["temperature 1.0, not 0.5"]),
        ("evaluate", ["--responses"], ["responses false, not true"]),
        ("chains", ["--seed", "1", "--model", "/does/not/exist"], ["another measurement", "seed 0, not 1"]),
    ],
)
def test_other_settings_are_refused_by_name_before_anything_is_written(name, more, named, made, capsys):
    words, folder = made[name]
    complete = snapshot(folder)
    assert cli.main([*words, *more]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and all(w in err for w in named), err
    assert snapshot(folder) == complete


@pytest.mark.parametrize("name, mark", [("train", "summary.json"), ("pretrain", "card.json"), ("evaluate", None)])
def test_what_is_unfinished_refuses_other_settings_and_goes_on_with_its_own(name, mark, made, tmp_path, capsys):
    words, folder = made[name]
    copy = tmp_path / name
    shutil.copytree(folder, copy)
    words = [*words[:-1], str(copy)]
    if name == "train":
        (copy / mark).unlink()
    else:
        file, key = (copy / mark, "recipe") if mark else (copy / "evaluation.json", "asked")
        write_json(file, {key: json.loads(file.read_text())[key]})
    before = snapshot(copy)
    assert cli.main([*words, "--seed", "9"]) == 2
    err = capsys.readouterr().err
    assert "unfinished, with seed 0, not 9" in err and "choose another --out" in err
    assert {p: v for p, v in snapshot(copy).items() if p != copy} == {p: v for p, v in before.items() if p != copy}
    assert cli.main(words) == 0
    assert json.loads(capsys.readouterr().out) and not (copy / "run.lock").exists()
    for file in ("metrics.csv", "rollouts.jsonl.gz", "model.safetensors", "problems.jsonl", "evaluation.json"):
        if (folder / file).exists():
            assert (copy / file).read_bytes() == (folder / file).read_bytes(), file


@pytest.mark.parametrize("name", ["train", "pretrain", "evaluate", "chains"])
def test_a_folder_that_another_process_writes_is_refused(name, made, tmp_path, capsys):
    words, _ = made[name]
    nothing = Kind("thing", lambda folder: (None, False))
    with output_folder(tmp_path / "busy", nothing, {}):
        assert cli.main([*words[:-1], str(tmp_path / "busy")]) == 2
        assert "another process is writing" in capsys.readouterr().err
        assert [p.name for p in (tmp_path / "busy").iterdir()] == ["run.lock"]
    assert not (tmp_path / "busy").exists()  # made here, and nothing was written to it


@pytest.mark.parametrize(
    "command, name",
    [
        ("train", "metrics.csv"), ("train", "summary.json"), ("train", "model"), ("train", "responses.csv.gz"),
        ("pretrain", "model.safetensors"), ("pretrain", "tokenizer.json"), ("pretrain", "loss.csv"),
        ("evaluate", "problems.jsonl"), ("evaluate", "responses.jsonl"), ("chains", "process.csv"),
    ],
)  # fmt: skip
def test_files_of_somebody_else_are_not_written_over(command, name, tmp_path, capsys):
    (tmp_path / name).write_text("mine", encoding="utf-8")
    assert cli.main([command, "--out", str(tmp_path)]) == 2
    line = capsys.readouterr().err
    assert f"holds {name}, which belongs to no" in line and line.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text(encoding="utf-8") == "mine"


def test_a_refusal_leaves_no_folder_behind_and_keeps_an_empty_one(tmp_path, capsys):
    for out in (tmp_path / "new", tmp_path):
        assert cli.main(["train", "--model", "/does/not/exist", "--out", str(out)]) == 2
    assert list(tmp_path.iterdir()) == [] and "cannot load a model" in capsys.readouterr().err


def test_rows_of_another_evaluation_are_refused_and_no_settings_are_written(made, tmp_path, capsys):
    _, folder = made["evaluate"]
    shutil.copy(folder / "problems.jsonl", tmp_path)
    words = ["evaluate", "--task", "word_problems", "--problems", "4", "--out", str(tmp_path)]
    assert cli.main(words) == 2 and "problems.jsonl, which belongs to no" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["problems.jsonl"]


def test_texts_once_kept_are_kept_on(made, tmp_path, capsys):
    words = [*EVALUATE, "--out", str(tmp_path / "e")]
    assert cli.main([*words, "--responses"]) == 0 and cli.main(words) == 0
    whole = (tmp_path / "e" / "responses.jsonl").read_bytes()
    settings_file = tmp_path / "e" / "evaluation.json"
    write_json(settings_file, {"asked": folders.read_json(settings_file)["asked"]})
    (tmp_path / "e" / "problems.jsonl").unlink()
    assert cli.main(words) == 0 and (tmp_path / "e" / "responses.jsonl").read_bytes() == whole


def test_a_complete_run_is_the_same_on_another_machine_but_an_unfinished_one_does_not_go_on_there(made, tmp_path):
    shutil.copytree(made["train"][1], tmp_path / "run")
    config = folders.read_json(tmp_path / "run" / "config.json")
    elsewhere = config | {"threads": 64, "versions": {"torch": "9"}}
    del elsewhere["eval_base"]  # a field that is younger than the run
    write_json(tmp_path / "run" / "config.json", elsewhere)
    assert train(SMALL, tmp_path / "run").complete
    write_json(tmp_path / "run" / "config.json", elsewhere | {"weights_sha256_16": "0" * 16})
    with pytest.raises(RlinoError, match="weights_sha256_16 0000000000000000, not "):
        train(SMALL, tmp_path / "run")
    write_json(tmp_path / "run" / "config.json", elsewhere)
    (tmp_path / "run" / "summary.json").unlink()
    with pytest.raises(RlinoError, match="unfinished, with threads 64, not .*versions"):
        train(SMALL, tmp_path / "run")


def test_a_complete_run_agrees_with_what_is_left_to_the_machine():
    assert changes({"precision": "bf16", "lr": 1}, {"precision": "auto", "lr": 1}) == ""
    assert changes({"precision": "bf16"}, {"precision": "auto"}, whole=True) == "precision bf16, not auto"
    assert changes({"precision": "bf16"}, {"precision": "fp32"}) == "precision bf16, not fp32"
    assert changes({}, {"a": (1, 2), "b": 0}, {"a": [1, 2], "b": 0}) == ""
    assert changes({"a": "x" * 90}, {"a": "y"}) == "another a"


def test_every_recorded_run_and_evaluation_is_what_its_settings_say(tmp_path, capsys):
    names = set(asdict(TrainConfig()))
    for run in list_runs():
        config = TrainConfig(**{k: v for k, v in run.config.items() if k in names})
        config = replace(config, model=str(DATA.parent / config.model))
        assert changes(run.config, run_settings(config), RUN_DEFAULTS) == "", run
    for task in ("countdown", "word_problems"):
        shutil.copytree(DATA / "base" / task, tmp_path / task)
        before = snapshot(tmp_path / task)
        card = folders.read_json(tmp_path / task / "card.json")
        assert pretrain(Recipe(**card["recipe"]), tmp_path / task, progress=False) == card
        with pytest.raises(RlinoError, match="another base, complete, with seed 0, not 3: choose another --out"):
            pretrain(replace(Recipe(**card["recipe"]), seed=3), tmp_path / task)
        recorded = folders.read_json(tmp_path / task / "evaluation.json")
        words = ["--samples", "64", "--max-new-tokens", str(recorded["asked"]["max_new_tokens"])]
        assert cli.main(["evaluate", "--task", task, *words, "--out", str(tmp_path / task)]) == 0
        assert json.loads(capsys.readouterr().out) == recorded["found"] and snapshot(tmp_path / task) == before
        for weights in ("model.safetensors", "card.json"):
            (tmp_path / task / weights).unlink()
            with pytest.raises(RlinoError, match="without its weights|holds another model"):
                pretrain(Recipe(**card["recipe"]), tmp_path / task)


def test_after_ctrl_c_the_same_command_goes_on(tmp_path, monkeypatch, capsys, made):
    words, step = [*made["train"][0][:-1], str(tmp_path / "run")], Trainer.step

    def interrupted(self):
        if self.step_done == 2:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Trainer, "step", interrupted)
    assert cli.main(words) == 130 and "the same command goes on where it stopped" in capsys.readouterr().err
    monkeypatch.setattr(Trainer, "step", lambda self: taken.append(self.step_done) or step(self))
    taken = []
    assert cli.main(words) == 0 and taken == [2]
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == (made["train"][1] / "metrics.csv").read_bytes()
    bench = cli.COMMANDS["bench"]._replace(run=lambda args: (_ for _ in ()).throw(KeyboardInterrupt))
    bench.run.__doc__ = "stops"
    monkeypatch.setitem(cli.COMMANDS, "bench", bench)
    assert cli.main(["bench", "step"]) == 130 and capsys.readouterr().err == "rlino: interrupted\n"


# --- what a kill leaves ----------------------------------------------------------------------------------------------

ODD = '\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e\r\n \u00e9\U0001f642\ud800"\\'
TEXT = st.text(st.one_of(st.sampled_from(ODD), st.characters()), max_size=12)
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(st.lists(TEXT, max_size=4), st.data())
def test_a_file_of_any_texts_that_is_cut_anywhere_reads_back_what_was_whole(tmp_path, texts, data):
    path, rows = tmp_path / "rows.jsonl", [{"step": k, "response": text} for k, text in enumerate(texts)]
    path.unlink(missing_ok=True)
    append_jsonl(path, rows)
    assert read_jsonl(path) == rows
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    kept = read_jsonl(path)
    assert kept == rows[: whole[:cut].count(b"\n")]
    with replacing(path) as part:
        append_jsonl(part, kept)
    append_jsonl(path, rows[len(kept) :])
    assert path.read_bytes() == whole


def record(writer, steps, texts):
    for step in steps:
        writer.metrics({"step": step, "reward": step / 7, "kl": None}, seconds=step)
        writer.responses([{"step": step, "final": 0, "problem_id": f"é{step}", "correct": 1, "clipped": 0}])
        writer.rollouts([{"step": step, "response": text} for text in texts])


@QUICK
@given(st.lists(TEXT, min_size=1, max_size=3), st.integers(0, 3), st.data())
def test_a_run_of_any_texts_that_is_cut_anywhere_goes_on_to_the_same_files(tmp_path, texts, checkpoint, data):
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    writer = RunWriter(tmp_path / "run", {"method": "grpo", "seed": 0})
    record(writer, range(1, checkpoint + 1), texts)
    names = ("metrics.csv", "timing.csv", "responses.csv", "rollouts.jsonl")
    safe = {name: (tmp_path / "run" / name).stat().st_size if checkpoint else 0 for name in names}
    record(writer, range(checkpoint + 1, 5), texts)
    whole = {name: (tmp_path / "run" / name).read_bytes() for name in names}
    for name in names:
        (tmp_path / "run" / name).write_bytes(whole[name][: data.draw(st.integers(safe[name], len(whole[name])))])
    run = Run(tmp_path / "run")
    assert {*run.rollouts.get("step", [])} <= {1, 2, 3, 4}  # readable as it is
    writer.resume(checkpoint)
    record(writer, range(checkpoint + 1, 5), texts)
    assert {name: (tmp_path / "run" / name).read_bytes() for name in names} == whole


def test_json_has_no_nan(tmp_path):
    value = {"a": [math.nan, {"b": -math.inf}], "c": np.float32("nan"), "d": np.int64(3), "e": (1.5, None, True, "x")}
    folders.write_json(tmp_path / "a.json", value)
    expected = {"a": [None, {"b": None}], "c": None, "d": 3, "e": [1.5, None, True, "x"]}
    assert folders.read_json(tmp_path / "a.json") == expected
    assert "NaN" not in (tmp_path / "a.json").read_text()


def test_what_measures_nothing_leaves_nothing(tmp_path):
    kind = folders.measurement("thing", ("thing.csv",))
    out = tmp_path / "out"

    def measure(policy, precision):
        assert folders.read_json(out / "thing.json")["asked"]["seed"] == 0  # so that a kill leaves what it was of
        raise failure

    asked = {"seed": 0, "precision": "fp32"}
    for failure in (RlinoError("no"), KeyboardInterrupt(), KeyError("x")):
        with pytest.raises(type(failure)):
            measured(out, kind, asked, {}, load_policy, measure)
        assert not out.exists()

    def half(policy, precision):
        (out / "thing.csv").write_text("half")
        raise failure

    with pytest.raises(KeyError):
        measured(out, kind, asked, {}, load_policy, half)
    assert {path.name for path in out.iterdir()} == {"thing.json", "thing.csv"}
    found = {"x": math.nan}
    assert measured(out, kind, asked, {}, load_policy, lambda *_: found) == {"x": None}
    (out / "thing.json").write_text('{"asked": {}, "found": []}')
    with pytest.raises(RlinoError, match="thing.json is something else"):
        kind.read(out)


def test_texts_as_earlier_versions_wrote_them_can_be_read_back(tmp_path):
    writer = RunWriter(tmp_path / "run", {"method": "grpo", "seed": 0})
    lines = [json.dumps({"step": k, "response": "a\u2028b\u2029c\x85"}, ensure_ascii=False) for k in (1, 2)]
    text = "\n".join(lines) + '\n{"step": 3, "data": {"a": 1}'
    (tmp_path / "run" / "rollouts.jsonl").write_text(text, encoding="utf-8")
    writer.resume(1)
    assert Run(tmp_path / "run").rollouts["response"].tolist() == ["a\u2028b\u2029c\x85"]


def test_what_is_damaged_and_not_merely_cut_is_one_line(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n{"a": \n{"a": 3}\n')
    (tmp_path / "b.jsonl").write_bytes(b'{"a": "\xff"}\n')
    (tmp_path / "c.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00nothing")
    (tmp_path / "d.jsonl.gz").write_bytes(b"no gzip")
    (tmp_path / "no-object.jsonl").write_bytes(b'{"a": 1}\n[1]\n')
    (tmp_path / "deep.jsonl").write_bytes(b"[" * 100_000 + b"\n")
    for name in ("a.jsonl", "b.jsonl", "c.jsonl.gz", "d.jsonl.gz", "no-object.jsonl", "deep.jsonl"):
        with pytest.raises(RlinoError, match=f"{name} is damaged"):
            read_jsonl(tmp_path / name)
    for content in (b"\xff", b"[]", b'{"other": 1}', b"{", b"[" * 100_000):
        (tmp_path / "e.json").write_bytes(content)
        with pytest.raises(RlinoError, match="e.json is"):
            folders.read_json(tmp_path / "e.json", needs="asked")
    (tmp_path / "f.csv").write_bytes("a,b\n1,é\n2,é".encode()[:-1])
    assert whole_lines(tmp_path / "f.csv") == ["a,b", "1,é"]


@QUICK
@given(st.lists(TEXT, min_size=6, max_size=6), st.data())
def test_an_evaluation_of_any_texts_that_is_cut_anywhere_goes_on_to_the_same_files(tmp_path, texts, data):
    problems = [Problem(f"p{k}", {"place": k}, "") for k in range(6)]

    class Task:
        prompt = staticmethod(lambda problem: problem.id)
        grade = staticmethod(lambda problem, text: Grade(1.0, True, True, text, ""))

    def sample(policy, prompts, n, **given):
        size = len(prompts)
        return Rollouts(
            prompts=prompts, prompt_ids=torch.zeros(size, 1), prompt_mask=torch.ones(size, 1).bool(),
            ids=torch.zeros(size, 1), mask=torch.ones(size, 1).bool(), logprobs=torch.zeros(size, 1),
            entropies=torch.zeros(size, 1), truncated=torch.zeros(size).bool(),
            texts=[texts[int(p[1:])] for p in prompts], group_size=1,
        )  # fmt: skip

    files = evaluation.Files(tmp_path / "rows.jsonl", tmp_path / "texts.jsonl")
    for file in files:
        file.unlink(missing_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graded, "sample", sample)
        patch.setattr(evaluation, "CHUNK", 2)
        frame = evaluation.evaluate(None, Task(), problems, files=files)
        whole = {file: file.read_bytes() for file in files}
        for file in whole:
            file.write_bytes(whole[file][: data.draw(st.integers(0, len(whole[file])))])
        assert evaluation.evaluate(None, Task(), problems, files=files).equals(frame)
    assert {file: file.read_bytes() for file in whole} == whole


@pytest.mark.parametrize("when", ["before", "amid", "after"])
def test_a_run_that_is_killed_while_its_files_are_packed_loses_nothing(when, made, tmp_path, monkeypatch):
    out, config = tmp_path / "run", replace(SMALL, eval_every=2, eval_problems=4, checkpoint_every=2)
    whole = train(config, tmp_path / "whole")

    class Kill(BaseException):
        pass

    def finish(self, summary):
        for plain in [self.path / name for name in PACKED][: {"before": 0, "amid": 1, "after": 2}[when]]:
            packed = plain.with_name(f"{plain.name}.gz")
            packed.write_bytes((whole.path / packed.name).read_bytes())
            plain.unlink()
        raise Kill

    with monkeypatch.context() as patch, pytest.raises(Kill):
        patch.setattr(RunWriter, "finish", finish)
        train(config, out)
    (out / "checkpoint.pt.tmp").write_bytes(b"half")
    (out / "model.tmp").mkdir()
    assert not Run(out).complete and len(Run(out).rollouts) == len(whole.rollouts)
    train(config, out)
    for name in ("metrics.csv", "rollouts.jsonl.gz", "responses.csv.gz", "config.json"):
        assert (out / name).read_bytes() == (whole.path / name).read_bytes(), name
    assert {p.name for p in out.iterdir()} == {p.name for p in whole.path.iterdir()}


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_a_damaged_checkpoint_is_one_line(damage, tmp_path, monkeypatch):
    for name, make in (("pretrain", lambda out: pretrain(RECIPE, out, device="cpu", progress=False, save_every=2)),
                       ("train", lambda out: train(SMALL, out))):  # fmt: skip
        out = tmp_path / name
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            stop = lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt)  # noqa: E731
            module = "training.pretraining.pretrain._finish" if name == "pretrain" else "training.run.RunWriter.finish"
            patch.setattr(f"rlino_lib.{module}", stop)
            make(out)
        path = out / "checkpoint.pt"
        if damage == "cut":
            path.write_bytes(path.read_bytes()[:1000])
        else:
            torch.save({"step": 1}, path)
        with pytest.raises(RlinoError, match="checkpoint.pt is damaged: delete it"):
            make(out)
        path.unlink()
        make(out)
        assert not path.exists() and not (out / "run.lock").exists()


# --- a full disk -----------------------------------------------------------------------------------------------------


def test_a_full_disk_is_one_line_leaves_nothing_half_and_the_run_goes_on(made, tmp_path, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail(state, file):
        file.write(b"half")
        try:
            raise full
        finally:
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 1 vs 2")

    def fail_model(self, folder, **more):
        Path(folder).mkdir()
        (Path(folder) / "config.json").write_text("{}")
        raise ValueError("Error while serializing: I/O error: No space left on device (os error 28)")

    out = tmp_path / "run"
    for target, broken in (("torch.save", fail), ("transformers.PreTrainedModel.save_pretrained", fail_model)):
        with monkeypatch.context() as patch:
            patch.setattr(target, broken)
            with pytest.raises(RlinoError, match="^the disk of .*run is full: make room, and the same command goes on"):
                train(SMALL, out, save=True)
        assert {p.name for p in out.iterdir()} <= {
            "config.json", "metrics.csv", "timing.csv", "rollouts.jsonl", "checkpoint.pt"
        }  # fmt: skip
    assert train(SMALL, out, save=True).complete
    assert (out / "metrics.csv").read_bytes() == (made["train"][1] / "metrics.csv").read_bytes()
    assert load_policy(out / "model")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 4 MB: room for a run, and for less than its checkpoint or its model twice."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("where", ["checkpoint", "save", "pretrain", "evaluate"])
def test_a_small_disk_is_filled_up_and_then_made_larger(where, small_disk, made, tmp_path, capsys):
    name = where if where in made else "train"
    words, folder = made[name]
    words, out = [*words[:-1], str(small_disk / "out")], small_disk / "out"
    if where == "save":
        words += ["--checkpoint-every", "9", "--save"]
    room = {"checkpoint": 4000, "save": 1000, "pretrain": 100, "evaluate": 0}[where] << 10
    used = shutil.disk_usage(small_disk).free - room
    (small_disk / "other").write_bytes(bytes(used))
    assert cli.main(words) == 2
    printed, err = capsys.readouterr()
    assert printed == "" and err.count("\n") == 1 and "disk" in err and "make room" in err
    left = [p.name for p in out.iterdir()] if out.exists() else []
    assert not {"run.lock", "model", "checkpoint.pt", "model.safetensors"} & {*left}
    assert not list(small_disk.rglob("*.tmp"))
    assert cli.main(words) == 2 and "make room" in capsys.readouterr().err  # as long as there is none
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert cli.main(words) == 0
    for file in ("metrics.csv", "model.safetensors", "problems.jsonl"):
        if (folder / file).exists():
            assert (out / file).read_bytes() == (folder / file).read_bytes()
    assert os.path.exists(out / "model") == (where == "save")


def test_a_model_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    policy = load_policy()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop = lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt)  # noqa: E731
        patch.setattr(type(policy.tokenizer), "save_pretrained", stop)
        save_policy(policy, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.txt").write_text("kept")
    save_policy(policy, tmp_path / "model")
    assert load_policy(tmp_path / "model") and (tmp_path / "model" / "mine.txt").read_text() == "kept"
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_run_is_held_while_it_is_written(tmp_path):
    def busy(step, metrics):
        with pytest.raises(RlinoError, match="another process is writing"):
            train(SMALL, tmp_path / "run")
        with pytest.raises(RlinoError, match="another process is writing"), output_folder(tmp_path / "run", RUN, {}):
            pass

    assert train(SMALL, tmp_path / "run", on_step=busy).complete


def test_a_file_in_place_of_a_folder_is_one_line(tmp_path):
    (tmp_path / "base").write_text("no folder", encoding="utf-8")
    with pytest.raises(RlinoError, match="evaluation.json cannot be read"):
        folders.read_json(tmp_path / "base" / "evaluation.json")
