"""Run folders: written in order, read back whole, and honest about what is missing."""

import json

import pytest

from rlino_lib.errors import RlinoError
from rlino_lib.folders import output_folder, whole_lines
from rlino_lib.paths import RUNS
from rlino_lib.records.runs import RUN, Run, list_runs, load_run, metrics_frame
from rlino_lib.records.writer import RunWriter
from rlino_lib.widgets.inspector import trace_inspector

CONFIG = {"method": "grpo", "seed": 3, "lr": 1e-4}


def write(folder, steps=4):
    writer = RunWriter(folder, CONFIG)
    for step in range(1, steps + 1):
        writer.metrics({"step": step, "reward": step / 3, "kl": None}, seconds=step * 1.5)
        writer.rollouts([{"step": step, "response": "a\n</div>é", "tokens": ["a"]}])
    return writer


def test_a_run_reads_back_as_written(tmp_path):
    writer = write(tmp_path / "g" / "grpo-s3")
    run = Run(tmp_path / "g" / "grpo-s3")
    assert not run.complete and "not complete" in repr(run)
    assert len(run.rollouts) == 4  # readable while it is not complete
    writer.finish({"steps": 4})
    run = Run(tmp_path / "g" / "grpo-s3")
    assert (run.complete, run.method, run.seed, run.name) == (True, "grpo", 3, "g/grpo-s3")
    assert run.metrics["reward"].tolist() == pytest.approx([1 / 3, 2 / 3, 1, 4 / 3])
    assert run.metrics["kl"].isna().all()
    assert run.timing["seconds"].tolist() == [1.5, 3, 4.5, 6]
    assert run.rollouts["response"][3] == "a\n</div>é"


def test_resume_forgets_what_came_after_the_checkpoint(tmp_path):
    writer = write(tmp_path / "run")
    with (tmp_path / "run" / "metrics.csv").open("a") as f:
        f.write("5,0.1")  # the half line of a kill
    with (tmp_path / "run" / "rollouts.jsonl").open("a") as f:
        f.write('{"step": 5, "resp')
    writer.resume(2)
    run = Run(tmp_path / "run")
    assert run.metrics["step"].tolist() == [1, 2] == run.rollouts["step"].tolist() == run.timing["step"].tolist()


def test_a_record_that_has_lost_rows_is_not_gone_on_with(tmp_path):
    rows = dict(write(tmp_path / "run", steps=2).rows)
    assert rows == {"metrics.csv": 2, "timing.csv": 2, "rollouts.jsonl": 2}
    write(tmp_path / "run", steps=0).resume(2, rows)
    for name in rows:
        lines = (tmp_path / "run" / name).read_bytes().splitlines(keepends=True)
        for kept in (lines[:-1], [*lines[:-1], lines[-1][:3]], [*lines, lines[-1]], []):
            (tmp_path / "run" / name).write_bytes(b"".join(kept))
            with pytest.raises(RlinoError, match=rf"{name} has \d rows up to step 2, not the 2 that it had: "):
                RunWriter(tmp_path / "run", CONFIG).resume(2, rows)
        (tmp_path / "run" / name).unlink()
        with pytest.raises(RlinoError, match=f"{name} has 0 rows"):
            RunWriter(tmp_path / "run", CONFIG).resume(2, rows)
        (tmp_path / "run" / name).write_bytes(b"".join(lines))
    writer = RunWriter(tmp_path / "run", CONFIG)
    writer.resume(2, rows)
    assert writer.rows == rows


def test_another_configuration_is_refused(tmp_path):
    RunWriter(tmp_path / "run", CONFIG)
    with pytest.raises(RlinoError, match="another run, unfinished, with lr 0.0001, not 0.0002: choose another --out"):
        RunWriter(tmp_path / "run", CONFIG | {"lr": 2e-4})


def test_lists_and_frames(tmp_path):
    for name in ("a-s0", "b-s1"):
        write(tmp_path / "g" / name).finish({})
    write(tmp_path / "g" / "c-s2")
    assert [r.path.name for r in list_runs("g", root=tmp_path)] == ["a-s0", "b-s1"]
    assert len(list_runs("g", root=tmp_path, complete=False)) == 3
    frame = metrics_frame(list_runs("g", root=tmp_path))
    assert len(frame) == 8 and list(frame.columns[:3]) == ["run", "method", "seed"]
    with pytest.raises(RlinoError, match="make runs"):
        metrics_frame([])


def test_what_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(RlinoError, match="neither a run folder"):
        load_run(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RlinoError, match="damaged"):
        load_run(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(RlinoError, match="missing"):
        _ = load_run(tmp_path).metrics
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RlinoError, match=f"{tmp_path.name} does not record method"):
        trace_inspector(load_run(tmp_path))


@pytest.mark.parametrize(
    "file, content, words",
    [
        ("config.json", {**CONFIG, "method": 3}, "config.json is damaged: method is 3"),
        ("config.json", {**CONFIG, "task": ["countdown"]}, r"config.json is damaged: task is \['countdown'\]"),
        ("config.json", {**CONFIG, "seed": "0"}, "config.json is damaged: seed is '0'"),
        ("config.json", {**CONFIG, "task_settings": None}, "config.json is damaged: task_settings is None"),
        ("config.json", [CONFIG], "config.json is something else"),
        ("summary.json", [], "summary.json is something else"),
        ("summary.json", {"complete": True, "test": None}, "summary.json is damaged"),
        ("summary.json", {"complete": True, "test": {"pass@1": [0.5]}}, "summary.json is damaged"),
        ("summary.json", {"complete": True, "seconds": "x"}, "summary.json is damaged"),
        ("metrics.csv", "step,reward\n1,0.5\n2,0.5\n3,0.5\n", "metrics.csv is damaged"),  # without its last step
        ("metrics.csv", "step,reward\n1,0.5\n4,x\n", "metrics.csv is damaged"),
        ("metrics.csv", "reward\n0.5\n", "metrics.csv is damaged"),
        ("metrics.csv", "step,reward\n", "metrics.csv is damaged"),
        ("metrics.csv", '{"a": 1}\n', "metrics.csv is damaged"),
        ("metrics.csv", "", "metrics.csv is missing or empty"),
        ("rollouts.jsonl.gz", "[]", "rollouts.jsonl.gz is damaged"),
    ],
)
def test_a_damaged_record_is_one_line(file, content, words, tmp_path):
    write(tmp_path / "run").finish({"steps": 4})
    (tmp_path / "run" / file).write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(RlinoError, match=words) as e:
        run = Run(tmp_path / "run")
        _ = run.metrics, run.rollouts
    assert "\n" not in str(e.value)


def test_the_shipped_runs_are_complete_and_small():
    runs = list_runs(complete=False)
    assert runs and all(run.complete for run in runs), [r.name for r in runs if not r.complete]
    for run in runs:
        last = whole_lines(run.path / "metrics.csv")[-1]  # read without pandas, which takes its time for hundreds
        assert int(last.split(",")[0]) == run.config["steps"] == run.summary["steps"]
        assert sum(p.stat().st_size for p in run.path.iterdir() if p.is_file()) < 2_000_000
        assert {p.name for p in run.path.iterdir()} <= {
            "config.json", "metrics.csv", "timing.csv", "probes.csv", "rollouts.jsonl.gz", "responses.csv.gz",
            "summary.json", "model", "t1", "t1-cap320", "t0.6", "chains", "values", "repair-1", "repair-2",
        }  # fmt: skip
    text = "".join(p.read_text() for p in RUNS.glob("*/*/config.json"))
    assert '"/' not in text  # no path of the machine that made them


def test_a_folder_in_use_is_refused(tmp_path):
    with output_folder(tmp_path / "run", RUN, CONFIG):
        with pytest.raises(RlinoError, match="another process"), output_folder(tmp_path / "run", RUN, CONFIG):
            pass
        RunWriter(tmp_path / "run", CONFIG).finish({})
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"config.json", "summary.json"}
