"""`rlino import`: small files of each format become run folders with what is known filled and the rest empty."""

import gzip
import json
import math
import re
import shutil
import string
import sys

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlino_lib.analysis.growth import final_responses, first_responses, of_kind, paired_lengths, parts_of, survival
from rlino_lib.analysis.statistics import first_reaching
from rlino_lib.claims.yours import judge_yours
from rlino_lib.cli import main as cli
from rlino_lib.cli import options
from rlino_lib.errors import RlinoError, RlinoWarning
from rlino_lib.figures.curves import figure_readme, learning_curves, length_curves
from rlino_lib.records.importers import FORMATS, files, import_run
from rlino_lib.records.importers.fields import read_map
from rlino_lib.records.runs import COLUMNS, list_runs, load_run, metrics_frame
from rlino_lib.widgets.inspector import trace_inspector
from rlino_lib.widgets.runs import run_comparer
from rlino_lib.widgets.search import search_view

HOSTILE = "<script>alert(1)</script>\u202e \x00\x1b[31m \ud800 ' \" ‮</pre>=cmd|'/c'!A0"


def jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(json.dumps(row) + "\n" for row in rows).encode())
    return path


def brought(source, out, columns="", **choice):
    sources = source if isinstance(source, list) else [source]
    return import_run(sources, out, columns=read_map([columns] if columns else []), **choice)


def shown(capsys, *argv):
    code = cli.main(["import", *map(str, argv)])
    out, err = capsys.readouterr()
    return code, out, err


# --- TRL -------------------------------------------------------------------------------------------------------------


def trl_run(folder, rewards=("accuracy_reward",), steps=2, weights=(1,), evaluated=()):
    """The files of a run as TRL writes them: two prompts, four responses each, two of which are right at step 2."""
    pytest.importorskip("pyarrow")
    history = []
    (folder / "completions").mkdir(parents=True)
    for step in range(1, steps + 1):
        right = [float(i < step) for i in range(8)]
        means = {f"rewards/{name}/mean": sum(right) / 8 for name in rewards}
        total = sum(w * m for w, m in zip(weights, means.values(), strict=True))
        history.append({"step": step, "reward": total, "learning_rate": 1e-6, "completions/mean_length": 40.5, **means,
                        "kl": math.nan, "clip_ratio/region_mean": 0.25, "num_tokens": 12345678.0})  # fmt: skip
        if step in evaluated:
            history.append({"step": step, "eval_loss": 0.5} | {f"eval_rewards/{n}/mean": 0.75 for n in rewards})
        table = {
            "step": [step] * 8,
            "prompt": ["1 + 1"] * 4 + ["2 + 2"] * 4,
            "completion": [f"x{'y' * i}" for i in range(8)],
        }
        table |= {name: right for name in rewards} | {"advantage": [0.5 - r for r in right]}
        pd.DataFrame(table).to_parquet(folder / "completions" / f"completions_{step:05d}.parquet")
    history.append({"step": steps, "train_runtime": 12.5, "total_flos": 0.0})
    state = folder / f"checkpoint-{steps}" / "trainer_state.json"
    state.parent.mkdir()
    state.write_text(json.dumps({"global_step": steps, "log_history": history}))
    (folder / "checkpoint-1").mkdir(exist_ok=True)
    (folder / "checkpoint-1" / "trainer_state.json").write_text("of an earlier checkpoint, and not read")
    return folder


def test_a_trl_run_keeps_its_log_and_its_responses(tmp_path):
    run, report = brought(trl_run(tmp_path / "trl"), tmp_path / "out", settings={"method": "grpo", "seed": 0})
    assert (report["format"], report["steps"], report["responses"], report["split"]) == ("trl", 2, 16, "train")
    assert report["columns"]["correct"] == report["columns"]["reward"] == "accuracy_reward"
    assert report["unknown"] == ["task", "model", "truncated", "length"]
    assert run.complete and (run.method, run.seed, run.config["task"], run.config["model"]) == (
        "grpo",
        0,
        "unknown",
        "unknown",
    )
    metrics = run.metrics.set_index("step")
    assert metrics["lr"].tolist() == [1e-6] * 2 and metrics["clip_ratio"].tolist() == [0.25] * 2
    assert metrics["accuracy"].tolist() == [0.125, 0.25] == metrics["reward"].tolist()
    assert metrics["num_tokens"].tolist() == [12345678] * 2  # to the last digit
    assert metrics["characters/correct"].tolist() == [1, 1.5] and metrics["characters/incorrect"].tolist() == [5, 5.5]
    assert metrics[["kl", "length/correct", "length/incorrect", "samples", "eval/accuracy"]].isna().all(axis=None)
    assert run.summary["seconds"] == 12.5 and "test" not in run.summary
    rollouts = run.rollouts
    assert rollouts["response"].tolist() == [f"x{'y' * i}" for i in range(8)] * 2
    assert rollouts["group"].tolist() == ([0] * 4 + [1] * 4) * 2 and rollouts["sample"].tolist() == [0, 1, 2, 3] * 4
    assert not {"weights", "entropies", "logprobs", "length", "clipped"} & set(rollouts)
    assert run.responses["clipped"].isna().all() and run.responses["length"].isna().all()
    assert not run.responses["held_out"].any() and run.responses["correct"].sum() == 3
    assert run.responses["problem_id"].tolist() == rollouts["problem_id"].tolist()


def test_the_reward_of_several_functions_is_their_sum_only_where_the_log_shows_it(tmp_path):
    names = ("accuracy_reward", "format_reward")
    run, report = brought(trl_run(tmp_path / "a", names, weights=(1, 1)), tmp_path / "out-a")
    assert run.rollouts["reward"].tolist()[:2] == [2, 0] and report["columns"]["correct"] == "accuracy_reward"
    assert report["columns"]["reward"] == "accuracy_reward + format_reward"
    run, report = brought(trl_run(tmp_path / "b", names, weights=(1, 0.5)), tmp_path / "out-b")
    assert "reward" in report["unknown"] and "reward" not in run.rollouts
    assert run.rollouts["source"][0] == {"format_reward": 1}  # beside its verdict, the other reward
    run, report = brought(trl_run(tmp_path / "c", ("tag_reward", "form"), weights=(1, 1)), tmp_path / "out-c")
    assert "correct" in report["unknown"] and run.metrics["accuracy"].isna().all()  # neither is known to be a verifier
    run, _ = brought(tmp_path / "c", tmp_path / "out-d", "correct=tag_reward")
    assert run.metrics["accuracy"].tolist() == [0.125, 0.25]


def test_responses_that_an_evaluation_may_have_written_over_count_for_neither(tmp_path):
    run, report = brought(trl_run(tmp_path / "trl", evaluated=(2,)), tmp_path / "out")
    assert report["training or held out"] == 8 and run.responses["held_out"].isna().sum() == 8
    metrics = run.metrics.set_index("step")
    assert metrics["eval/accuracy"].tolist()[1:] == [0.75] and metrics["accuracy"].tolist() == [0.125, 0.25]
    assert metrics["characters/correct"].notna().tolist() == [True, False]
    assert len(run.rollouts) == 16


@pytest.mark.parametrize(("reached", "log", "complete"), [
    (2, {}, False), (4, {}, True),  # the last checkpoint is written before the last entry of the log
    (2, {"train_runtime": 9.0}, True),  # a callback ended it
])  # fmt: skip
def test_a_trl_run_that_stopped_before_its_last_step_is_not_complete(tmp_path, capsys, reached, log, complete):
    history = [{"step": 1, "reward": 0.1}, {"step": 2, "reward": 0.2}, {"step": 2} | log]
    state = {"global_step": reached, "max_steps": 4, "log_history": history}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    for _ in range(2):  # the second time as the first
        code, out, err = shown(capsys, tmp_path / "trainer_state.json", "--out", tmp_path / "runs" / "a")
        assert code == 0 and json.loads(out)["complete"] == complete == load_run(tmp_path / "runs" / "a").complete
        assert ("rlino: not complete: the log stops at step 2 of 4; " in err) != complete
    assert len(list_runs(root=tmp_path)) == complete and len(list_runs(root=tmp_path, complete=False)) == 1


def test_parts_of_a_trl_run(tmp_path):
    folder = trl_run(tmp_path / "trl")
    run, report = brought(folder / "checkpoint-2", tmp_path / "log", "correct=accuracy_reward")
    assert report["responses"] == 0 and run.metrics["accuracy"].tolist() == [0.125, 0.25] and run.rollouts.empty
    with pytest.raises(RlinoError, match="missing or empty"):
        _ = run.responses
    run, report = brought(folder / "completions", tmp_path / "texts")
    assert report["columns"]["reward"] == "accuracy_reward" and run.metrics["lr"].isna().all()
    assert run.metrics["reward"].tolist() == [0.125, 0.25] and run.metrics["frac_reward_zero_std"].tolist() == [
        0.5,
        0.5,
    ]
    assert "no recorded rollouts" in trace_inspector(load_run(tmp_path / "log"))


def test_conversations_are_texts(tmp_path):
    pytest.importorskip("pyarrow")
    talk = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "2 + 2?"}]},
    ]
    frame = pd.DataFrame({"step": [1], "prompt": [talk], "completion": [[{"role": "assistant", "content": "4"}]]})
    (tmp_path / "trl").mkdir()
    frame.to_parquet(tmp_path / "trl" / "completions_00001.parquet")
    run, _ = brought(tmp_path / "trl", tmp_path / "out")
    assert run.rollouts["prompt"][0] == "system: Be brief.\nuser: 2 + 2?" and run.rollouts["response"][0] == "4"


# --- verl ------------------------------------------------------------------------------------------------------------

CONSOLE = (
    "Training Progress:   0%|          | 0/2 [00:00<?, ?it/s]\n"
    "\x1b[36m(TaskRunner pid=42)\x1b[0m step:0 - val-core/openai/gsm8k/acc/mean@1:np.float64(0.1)\n"
    "(TaskRunner pid=42) step:1 - actor/entropy:0.614 - critic/score/mean:0.0825 - response_length/mean:86.4 - "
    "critic/rewards/mean:-0.1 - actor/grad_norm:nan - training/global_step:1 - a - b\n"
    "  50%|█████     | 1/2 [01:21<01:21, 81.49s/it]step:2 - actor/entropy:1.2e-1 - critic/score/mean:np.float64(0.5)\n"
    "saved to global_step:2 - done\n"
    "step:2 - val-core/openai/gsm8k/acc/mean@1:0.75 - actor/entropy:0.2\n"
    "step:3 - actor/entropy:0.1"  # and a kill
)


def verl_rollouts(folder, steps=(1, 2), acc=True):
    for step in steps:
        rows = [{"input": f"{q}?", "output": "so " * (i + 1), "gts": "4", "score": float(i < step), "step": step}
                | ({"acc": i < step} if acc else {}) for q in "ab" for i in range(4)]  # fmt: skip
        jsonl(folder / f"{step}.jsonl", rows)
    return folder


def test_the_console_of_verl(tmp_path):
    log = tmp_path / "train.log"
    log.write_text(CONSOLE, encoding="utf-8")
    run, report = brought(log, tmp_path / "out")
    assert report["format"] == "verl" and report["unknown"] == ["method", "task", "model", "seed"]
    metrics = run.metrics.set_index("step")
    assert metrics.index.tolist() == [0, 1, 2]
    assert metrics["entropy"].tolist()[1:] == [0.614, 0.2] and metrics["eval/accuracy"].tolist()[::2] == [0.1, 0.75]
    assert metrics["reward"].tolist()[1:] == [0.0825, 0.5] and metrics.loc[1, "critic/rewards/mean"] == -0.1
    assert metrics.loc[1, "completions/mean_length"] == 86.4 and pd.isna(metrics.loc[1, "grad_norm"])


def test_the_file_logger_and_the_rollouts_of_verl_are_one_run(tmp_path):
    metrics = jsonl(tmp_path / "metrics.jsonl", [
        {"step": 1, "data": {"actor/entropy": 0.5, "step": 99, "response_length/clip_ratio": 0.0, "name": "x"}},
        {"step": 2, "elapsed_seconds": 5.5, "data": {"val-core/a/acc/mean@1": 0.1, "val-core/b/acc/mean@1": 0.2}},
    ])  # fmt: skip
    run, report = brought([metrics, verl_rollouts(tmp_path / "rollouts")], tmp_path / "out")
    assert report["columns"]["correct"] == "acc" and report["responses"] == 16
    assert run.metrics["step"].tolist() == [1, 2] and run.metrics["accuracy"].tolist() == [0.25, 0.5]
    assert run.metrics["completions/clipped_ratio"].tolist()[0] == 0
    assert run.metrics["eval/accuracy"].isna().all()  # of two data sets there is no one accuracy
    assert run.rollouts["gold"].unique().tolist() == ["4"] and run.metrics["n_correct"].tolist() == [2, 4]


def test_validation_rollouts_are_held_out(tmp_path):
    run, _ = brought(verl_rollouts(tmp_path / "val", steps=(0, 20)), tmp_path / "out", split="validation")
    assert run.responses["held_out"].all() and not run.responses["final"].any()
    assert run.metrics["eval/accuracy"].tolist() == [0, 1] and run.metrics["accuracy"].isna().all()
    assert len(first_responses(run)) == 8
    run, _ = brought(tmp_path / "val", tmp_path / "test", split="test")
    assert run.summary["test"]["pass@1"] == {"value": 1.0} and run.summary["test"]["samples"] == 4
    assert final_responses(run)["step"].unique().tolist() == [20]


# --- lm-evaluation-harness -------------------------------------------------------------------------------------------

DATE = "2026-01-01T00-00-00.000000"


def lm_eval_samples(folder, filters=("strict-match", "flexible-extract"), resps=None, task="gsm8k", **more):
    rows = []
    for name in filters:
        for k in range(4):
            right = float(k % 2 if name == "strict-match" else k > 0)
            rows.append({
                "doc_id": k, "doc": {"question": f"How many, {k}?", "answer": "#### 4"}, "target": "4",
                "arguments": {"gen_args_0": {"arg_0": f"Question: {k}", "arg_1": {"until": [], "max_gen_toks": 256}}},
                "resps": resps or [[f"It is {'so ' * k}4."]], "filtered_resps": ["4"], "filter": name,
                "metrics": ["exact_match"], "doc_hash": "0", "prompt_hash": "1", "target_hash": "0",
                "exact_match": right,
            } | more)  # fmt: skip
    jsonl(folder / f"samples_{task}_{DATE}.jsonl", rows)
    (folder / f"results_{DATE}.json").write_text(json.dumps({"results": {}, "model_name": "Qwen/Qwen2.5-0.5B"}))
    return folder


def test_samples_of_the_harness_are_a_test(tmp_path):
    run, report = brought(lm_eval_samples(tmp_path / "h"), tmp_path / "out")
    assert report["format"] == "lm-eval" and report["responses"] == 4 and report["split"] == "test"
    assert run.config["task"] == "gsm8k" and run.config["model"] == "Qwen/Qwen2.5-0.5B"
    assert run.config["max_new_tokens"] == 256 and run.config["filter"] == "strict-match"
    assert run.summary["test"]["pass@1"] == {"value": 0.5} and run.summary["test"]["problems"] == 4
    assert run.summary["test"]["mean_length"] is None and run.summary["test"]["characters/correct"] == 14
    assert final_responses(run)["correct"].tolist() == [False, True] * 2 and run.metrics.empty
    assert run.rollouts["problem_id"].tolist() == [f"gsm8k/{k}" for k in range(4)]
    assert run.rollouts["answer"][0] == "4" == run.rollouts["gold"][0]
    assert "How many, 0?" in trace_inspector(run)
    run, _ = brought(tmp_path / "h", tmp_path / "flexible", filter_name="flexible-extract")
    assert run.summary["test"]["pass@1"] == {"value": 0.75}
    with pytest.raises(RlinoError, match="no filter 'none': there are 'strict-match', 'flexible-extract'"):
        brought(tmp_path / "h", tmp_path / "none", filter_name="none")


def test_repeats_have_no_verdict_of_their_own(tmp_path):
    folder = lm_eval_samples(tmp_path / "h", ("maj",), [["4", "5", "4"]])
    run, report = brought(folder, tmp_path / "out")
    assert report["responses"] == 12 and "correct" in report["unknown"] and "test" not in run.summary
    assert run.rollouts["sample"].tolist() == [0, 1, 2] * 4


def test_what_the_harness_has_beside_responses_is_refused(tmp_path):
    with pytest.raises(RlinoError, match="only tasks that generate"):
        brought(lm_eval_samples(tmp_path / "choice", resps=[[["-3.2", "False"]], [["-1.0", "True"]]]), tmp_path / "out")
    lm_eval_samples(lm_eval_samples(tmp_path / "two"), task="minerva")
    with pytest.raises(RlinoError, match="2 files of samples .* import each into a folder of its own"):
        brought(tmp_path / "two", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- JSONL -----------------------------------------------------------------------------------------------------------


def test_columns_are_named_and_may_be_inside_others(tmp_path):
    rows = [
        {"text": "a b", "meta": {"score": s, "id": k // 2}, "q": "why?", "n": 3 + k}
        for k, s in enumerate((0, 1, 0.4, 2))
    ]
    file = jsonl(tmp_path / "a.jsonl", rows)
    words = "response=text,correct=meta.score>=1,problem_id=meta.id,length=n,question=q"
    run, report = brought(file, tmp_path / "out", words, settings={"task": "mine"})
    assert run.rollouts["correct"].tolist() == [False, True, False, True]
    assert run.rollouts["problem_id"].tolist() == ["0", "0", "1", "1"] == run.responses["problem_id"].tolist()
    assert paired_lengths(run.responses).tolist() == [-1, -1]
    assert run.summary["test"]["length/incorrect"] == 4 and run.summary["test"]["pass@1"]["value"] == 0.5
    assert report["columns"]["correct"] == "meta.score>=1" and report["unknown"] == [
        "method",
        "model",
        "seed",
        "truncated",
        "reward",
    ]
    with pytest.raises(RlinoError, match=re.escape("line 3: correct (meta.score) is to be true or false, 1 or 0")):
        brought(file, tmp_path / "other", "response=text,correct=meta.score")
    with pytest.raises(RlinoError, match="line 1 has no 'txt' for response: its columns are 'text', 'meta', 'q', 'n'"):
        brought(file, tmp_path / "other", "response=txt")
    assert not (tmp_path / "other").exists()


def test_a_list_of_texts_is_that_many_responses(tmp_path):
    file = jsonl(
        tmp_path / "a.jsonl", [{"idx": 7, "code": ["4", "5"], "score": [True, False], "gt": 4, "report": [None, None]}]
    )
    run, _ = brought(file, tmp_path / "out", "response=code,correct=score,gold=gt,problem_id=idx")
    assert run.rollouts["response"].tolist() == ["4", "5"] and run.rollouts["correct"].tolist() == [True, False]
    assert run.rollouts["problem_id"].unique().tolist() == ["7"] and run.rollouts["gold"][0] == "4"


def test_tokens_and_steps_give_all_that_a_run_has(tmp_path):
    rows = [
        {"step": step, "prompt": q, "response": "ab" * n, "tokens": ["ab"] * n, "correct": n % 2 == 0,
         "truncated": n == 5, "logprobs": [-0.5] * n, "reward": float(n % 2 == 0)}
        for step in (1, 2) for q in "pq" for n in (2, 3, 4, 5)
    ]  # fmt: skip
    run, report = brought(jsonl(tmp_path / "a.jsonl", rows), tmp_path / "out", settings={"method": "grpo"})
    assert report["split"] == "train" and "length" not in report["unknown"]
    first = run.metrics.iloc[0]
    assert first[["length/correct", "length/incorrect", "length/incorrect_unclipped"]].tolist() == [3, 4, 3]
    assert first[["completions/mean_length", "completions/clipped_ratio", "frac_reward_zero_std"]].tolist() == [
        3.5,
        0.25,
        0,
    ]
    assert "(tokens per response)" in length_curves(metrics_frame([run])).get_supylabel()
    assert "<strong>5 tokens</strong>" in trace_inspector(run, colour="logprobs")
    assert len(of_kind(run.responses, "wrong, not truncated")) == 4


@pytest.mark.parametrize("name", ["preferences/grpo_no_kl-s70", "environment/all-lies0-s40"])
def test_the_rollouts_of_a_run_folder_are_what_they_are(root, name, tmp_path):
    recorded = load_run(root / "data" / "runs" / name)
    run, report = brought(recorded.path / "rollouts.jsonl.gz", tmp_path / "out")
    assert report["format"] == "jsonl" and report["split"] == "train"
    assert report["responses"] == len(recorded.rollouts) and report["unknown"] == ["method", "task", "model", "seed"]
    pd.testing.assert_frame_equal(run.rollouts[list(recorded.rollouts)], recorded.rollouts)
    assert brought(recorded.path, tmp_path / "folder")[1] == report | {"run": str(tmp_path / "folder")}


def test_problems_are_told_apart_by_id_or_prompt_and_ids_stay_texts(tmp_path):
    ids = ["NA", "nan", "1", "01", "1e5", 7, 7.5, True, "a,b", '"', "\r\n", "", "x" * 500]
    file = jsonl(tmp_path / "a.jsonl", [{"response": "x", "problem_id": name} for name in ids])
    run, _ = brought(file, tmp_path / "out")
    assert run.responses["problem_id"].tolist() == run.rollouts["problem_id"].tolist()
    names = run.rollouts["problem_id"].tolist()
    assert names[:10] == ["NA", "nan", "1", "01", "1e5", "7", "7.5", "true", "a,b", '"'] and len(set(names)) == len(ids)
    rows = [{"response": "x", "prompt": prompt} for prompt in ("p", None, "q", "p", None)]
    run, _ = brought(jsonl(tmp_path / "b.jsonl", rows), tmp_path / "prompts")
    assert run.rollouts["group"].tolist() == [0, 1, 2, 0, 3] and run.rollouts["sample"].tolist() == [0, 0, 0, 1, 0]


def test_lengths_in_some_responses_alone_are_refused(tmp_path):
    file = jsonl(tmp_path / "a.jsonl", [{"response": "a", "length": 1}, {"response": "b", "length": None}])
    with pytest.raises(RlinoError, match="1 of 2 responses have a length in tokens: all of them need one, or none"):
        brought(file, tmp_path / "out")


def test_metrics_of_any_log_come_in_under_the_names_that_are_given(tmp_path):
    rows = [{"step": k, "accuracy": k / 10, "avg_gen_tokens": 400 - k, "reward": None} for k in (10, 20)]
    file = jsonl(tmp_path / "m.jsonl", rows)
    run, report = brought(file, tmp_path / "out", "completions/mean_length=avg_gen_tokens")
    assert run.metrics["completions/mean_length"].tolist() == [390, 380] == run.metrics["avg_gen_tokens"].tolist()
    assert run.metrics["accuracy"].tolist() == [1, 2] and run.metrics["reward"].isna().all()
    assert (report["steps"], report["responses"]) == (2, 0) and run.summary["steps"] == 20
    with pytest.raises(RlinoError, match="no step of the log has 'acc' for eval/accuracy"):
        brought(file, tmp_path / "other", "eval/accuracy=acc")
    texts = jsonl(tmp_path / "t.jsonl", [{"step": 1, "text": "a", "score": 1}])
    with pytest.raises(RlinoError, match="which of its columns is the response"):  # and not metrics without their texts
        brought(texts, tmp_path / "other")
    both, report = brought([file, texts], tmp_path / "both", "response=text,correct=score")
    assert (report["steps"], report["responses"]) == (3, 1)
    (tmp_path / "train.log").write_text(CONSOLE, encoding="utf-8")
    run, _ = brought(tmp_path / "train.log", tmp_path / "verl", "kl=critic/rewards/mean")
    assert run.metrics["kl"].tolist()[1] == -0.1
    with pytest.raises(RlinoError, match="line 2: a line of metrics has a step"):
        brought(jsonl(file, [{"step": 1, "x": 1}, {"x": 2}]), tmp_path / "other")


@pytest.mark.parametrize("kind", ["trl", "jsonl", "verl"])
def test_what_is_no_number_in_a_log_is_empty_and_counted(tmp_path, capsys, kind):
    rewards = ["n/a", "", math.nan, 0.5, None]
    others = {"kl": math.inf, "when": "2026-01-01"}
    rows = [{"reward": r, "own": [0.5, "-"][k % 2]} | others for k, r in enumerate(rewards)]
    if kind == "trl":
        file = tmp_path / "trainer_state.json"
        file.write_text(json.dumps({"log_history": [{"step": k} | row for k, row in enumerate(rows)]}))
    else:  # a log of a JSONL file has no texts but in place of numbers
        lines = [{"step": k, "data": row} if kind == "verl" else {"step": k} | row for k, row in enumerate(rows)]
        for line in lines:
            line.pop("when", None)
        file = jsonl(tmp_path / "log.jsonl", lines)
    code, out, err = shown(capsys, file, "--out", tmp_path / "out")
    assert code == 0 and json.loads(out)["format"] == kind
    assert json.loads(out)["no numbers"] == {"kl": 5, "own": 2, "reward": 3}
    assert "rlino: no numbers, and left empty: 5 of kl, 2 of own, 3 of reward\n" in err
    metrics = load_run(tmp_path / "out").metrics
    assert metrics["reward"].isna().tolist() == [True, True, True, False, True] and metrics["kl"].isna().all()


def test_nan_is_counted_in_the_console_of_verl_and_in_responses(tmp_path):
    (tmp_path / "train.log").write_text("step:1 - critic/score/mean:nan - actor/lr:1e-6\n", encoding="utf-8")
    _, report = brought(tmp_path / "train.log", tmp_path / "verl")
    assert report["no numbers"] == {"critic/score/mean": 1}
    rows = [{"response": "a", "score": math.nan}, {"response": "b", "score": 1.0}, {"response": "c", "score": None}]
    run, report = brought(jsonl(tmp_path / "a.jsonl", rows), tmp_path / "out", "reward=score")
    assert report["no numbers"] == {"score": 1} and run.responses["reward"].isna().tolist() == [True, False, True]


@pytest.mark.parametrize(("method", "near"), [
    ("GRPO", "grpo"), ("dr-grpo", "dr_grpo"), ("Dr. GRPO", "dr_grpo"), ("grpo", ""), ("dpo", ""), ("ppo", ""), ("", ""),
])  # fmt: skip
def test_a_foreign_method_that_is_nearly_one_of_ours_is_taken_with_a_word(tmp_path, capsys, method, near):
    file = jsonl(tmp_path / "a.jsonl", [{"response": "a"}])
    code, out, err = shown(capsys, file, "--out", tmp_path / "out", *(["--method", method] if method else []))
    assert code == 0 and json.loads(out).get("near", "") == near
    assert load_run(tmp_path / "out").method == (method or "unknown")
    assert (f"the method {method!r} is taken as it is" in err and repr(near) in err) == bool(near)


@pytest.mark.parametrize(
    "words", ["response", "response=", "colour=red", "response=a,response=b", "correct=a>=1e", "=x"]
)
def test_a_map_of_another_form_is_refused(words):
    with pytest.raises(RlinoError, match="--map"):
        read_map([words])


# --- files that are something else -----------------------------------------------------------------------------------


def test_a_format_that_is_not_known_is_one_line(tmp_path, capsys):
    file = jsonl(tmp_path / "a.jsonl", [{"text": "a", "score": 1}])
    code, out, err = shown(capsys, file, "--out", tmp_path / "run")
    assert (code, out) == (2, "") and err.count("\n") == 1 and "which of its columns is the response?" in err
    (tmp_path / "b.txt").write_text("nothing of the kind")
    code, out, err = shown(capsys, tmp_path / "b.txt", "--out", tmp_path / "run")
    assert code == 2 and err.count("\n") == 1 and all(word in err for word in ("TRL", "verl", "samples_TASK", "--map"))
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "empty", tmp_path / "not-there"):
        code, _, err = shown(capsys, source, "--out", tmp_path / "run")
        assert code == 2 and err.count("\n") == 1
    code, _, err = shown(capsys, file, "--format", "verl", "--out", tmp_path / "run")
    assert code == 2 and "expected verl's console log" in err and "(its first line has 'text', 'score')" in err
    code, _, err = shown(capsys, file, "--filter", "x", "--map", "response=text", "--out", tmp_path / "run")
    assert code == 2 and "--filter" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("line", "cause"), [
    (b'{"response": "a", "response": "b"}\n', "has the key 'response' twice"),
    (b'{"response": "\xff"}\n', "not UTF-8 at byte 15"), (b'["a"]\n', "not an object"),
    (b'{"response": \n', "Expecting value at character"), (b"[" * 100_000 + b"\n", "not JSON that can be read"),
    (b"\x00\x01\x7fELF\n", "not JSON"),
])  # fmt: skip
def test_why_the_first_line_cannot_be_read_is_in_the_error_without_a_format_too(line, cause, tmp_path, capsys):
    good = jsonl(tmp_path / "good.jsonl", [{"response": "a"}])
    (tmp_path / "a.jsonl").write_bytes(line + b'{"response": "c"}\n')
    for sources in ([tmp_path / "a.jsonl"], [good, tmp_path / "a.jsonl"]):
        code, out, err = shown(capsys, *sources, "--out", tmp_path / "out")
        assert (code, out, err.count("\n")) == (2, "", 1) and "a.jsonl, line 1: not" in err and cause in err
    assert not (tmp_path / "out").exists()


def test_a_device_is_no_source(tmp_path):
    with pytest.raises(RlinoError, match="null is missing, or neither a file nor a folder"):
        brought("/dev/null", tmp_path / "out")


def test_a_step_that_is_no_number_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"response": "a", "step": 1}\n{"response": "b", "step": NaN}\n')
    with pytest.raises(RlinoError, match="line 2: step .* is to be a whole number of 0 or more, not NaN"):
        brought(tmp_path / "a.jsonl", tmp_path / "out")


def test_a_file_that_is_given_twice_is_refused(tmp_path):
    file = jsonl(tmp_path / "src" / "a.jsonl", [{"response": "a"}])
    (tmp_path / "link.jsonl").symlink_to(file)
    for again in (file, tmp_path / "src" / ".." / "src" / "a.jsonl", file.parent, tmp_path / "link.jsonl"):
        with pytest.raises(RlinoError, match="a.jsonl is given twice"):
            brought([file, again], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_output_is_not_inside_what_is_read(tmp_path, monkeypatch):
    source = jsonl(tmp_path / "so" / "a.jsonl", [{"response": "a"}]).parent
    monkeypatch.chdir(tmp_path)
    for out in ("so", "so/", "so/run/mine", "./other/../so/x", source / "out"):
        with pytest.raises(RlinoError, match="is inside so, which is read: choose another --out"):
            brought("so", out)
    assert [path.name for path in source.iterdir()] == ["a.jsonl"]
    assert brought("so", "so2")[1]["responses"] == 1


def test_a_table_with_a_column_twice_is_refused(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    names = ["step", "prompt", "completion", "completion"]
    table = pa.table([pa.array([1]), pa.array(["p"]), pa.array(["a"]), pa.array(["b"])], names=names)
    pyarrow.parquet.write_table(table, tmp_path / "completions_00001.parquet")
    with pytest.raises(RlinoError, match="completions_00001.parquet has the column 'completion' twice"):
        brought(tmp_path / "completions_00001.parquet", tmp_path / "out")


def test_a_date_beyond_the_calendar_is_one_line(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    table = pa.table({"step": [1], "prompt": ["p"], "completion": ["a"], "at": pa.array([2**62], pa.timestamp("us"))})
    pyarrow.parquet.write_table(table, tmp_path / "completions_00001.parquet")
    with pytest.raises(RlinoError, match="completions_00001.parquet is damaged, or no Parquet"):
        brought(tmp_path / "completions_00001.parquet", tmp_path / "out")


def test_a_folder_of_verl_may_have_a_step_without_samples(tmp_path):
    folder = verl_rollouts(tmp_path / "rollouts")
    (folder / "0.jsonl").write_bytes(b"")
    run, report = brought(folder, tmp_path / "out")
    assert (report["format"], report["responses"]) == ("verl", 16) and run.metrics["step"].tolist() == [1, 2]
    (folder / "0.jsonl").write_bytes(b"{")  # and a damaged one is named
    with pytest.raises(RlinoError, match="0.jsonl, line 1: not JSON"):
        brought(folder, tmp_path / "other")


def test_damaged_files_are_named_and_leave_nothing(tmp_path):
    folder = trl_run(tmp_path / "trl")
    table = folder / "completions" / "completions_00002.parquet"
    table.write_bytes(table.read_bytes()[:-20])
    with pytest.raises(RlinoError, match="completions_00002.parquet is damaged, or no Parquet"):
        brought(folder, tmp_path / "out")
    state = tmp_path / "trainer_state.json"
    whole = (folder / "checkpoint-2" / "trainer_state.json").read_text()
    for text in (
        whole[:-30],
        "[]",
        '{"log_history": 3}',
        '{"log_history": [{"step": "1"}]}',
        "[" * 100_000,
        "",
        "1" * 5000,
    ):
        state.write_text(text)
        with pytest.raises(RlinoError, match="trainer_state.json"):
            brought(state, tmp_path / "out")
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"response": "a"}\n' * 1000)[:-10])
    with pytest.raises(RlinoError, match="a.jsonl.gz is damaged"):
        brought(packed, tmp_path / "out", kind="jsonl")
    for broken in (
        b'{"response": "a"}\n{"response": \n{}\n',
        b'{"response": "a"}\n"b"\n',
        b'{"response": "a"}\n{"response": "\xff"}\n',
        b'{"response": "a"}\n{"response": "a", "response": "b"}\n',
    ):
        (tmp_path / "b.jsonl").write_bytes(broken)
        with pytest.raises(RlinoError, match="b.jsonl, line 2: not"):
            brought(tmp_path / "b.jsonl", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_last_line_that_a_kill_left_is_left_out_with_a_word(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"response": "a"}\n{"response": "b')
    with pytest.warns(RlinoWarning, match="line 2, the last, is incomplete"):
        run, report = brought(tmp_path / "a.jsonl", tmp_path / "out")
    assert report["responses"] == 1


def test_reading_is_bounded(tmp_path, monkeypatch):
    file = jsonl(tmp_path / "a.jsonl", [{"response": "a" * 1000}] * 50)
    packed = tmp_path / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    monkeypatch.setattr(files, "MOST_BYTES", 20_000)
    for source in (file, packed):  # of the second, what it unpacks to
        with pytest.raises(RlinoError, match="more than 0 MiB to read"):
            brought(source, tmp_path / "out")
    monkeypatch.setattr(files, "LONGEST_LINE", 500)
    with pytest.raises(RlinoError, match="line 1 is longer"):
        brought(packed, tmp_path / "out", kind="jsonl") if files.first_record(packed) else next(files.lines(packed))


# --- the folder ------------------------------------------------------------------------------------------------------


def test_an_import_is_repeated_only_where_it_differs(tmp_path):
    file = jsonl(tmp_path / "a.jsonl", [{"response": "a"}])
    brought(file, tmp_path / "out")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    brought(file, tmp_path / "out")
    assert before == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    with pytest.raises(RlinoError, match="another run, complete, with seed null, not 1"):
        brought(file, tmp_path / "out", settings={"seed": 1})
    jsonl(file, [{"response": "b"}])
    with pytest.raises(RlinoError, match="another run, complete, with source_sha256_16"):
        brought(file, tmp_path / "out")


def test_a_killed_import_is_finished(tmp_path):
    source = trl_run(tmp_path / "trl")
    run, _ = brought(source, tmp_path / "out")
    expected = {
        name: (run.path / name).read_bytes() for name in ("metrics.csv", "responses.csv.gz", "rollouts.jsonl.gz")
    }
    (run.path / "summary.json").unlink()
    (run.path / "metrics.csv").write_bytes(expected["metrics.csv"][:300])
    (run.path / "rollouts.jsonl").write_text('{"half')
    run, _ = brought(source, tmp_path / "out")
    assert run.complete and {name: (run.path / name).read_bytes() for name in expected} == expected
    assert not (run.path / "rollouts.jsonl").exists()


def test_the_command_prints_a_line_and_names_what_is_not_known(tmp_path, capsys):
    code, out, err = shown(
        capsys, lm_eval_samples(tmp_path / "h"), "--method", "grpo", "--seed", 3, "--out", tmp_path / "run"
    )
    assert code == 0 and out.count("\n") == 1 and json.loads(out)["unknown"] == ["truncated", "length", "reward"]
    assert err == "rlino: not known, and left empty: truncated, length, reward\n"
    assert load_run(tmp_path / "run").seed == 3
    assert tuple(FORMATS) == options.FORMATS


def test_the_columns_of_metrics_are_those_of_any_run(tmp_path):
    run, _ = brought(trl_run(tmp_path / "trl"), tmp_path / "out")
    assert run.metrics.columns.tolist()[: len(COLUMNS)] == COLUMNS


# --- figures, the inspector, claims ----------------------------------------------------------------------------------


def test_lengths_in_characters_are_drawn_as_such_and_never_with_tokens(tmp_path):
    one, _ = brought(trl_run(tmp_path / "trl"), tmp_path / "one")
    figure = length_curves(metrics_frame([one]), smooth=2)
    assert (
        "(characters per response)" in figure.get_supylabel()
        and "training samples" in figure.legends[0].get_title().get_text()
    )
    lines = {line.get_label(): line.get_ydata().tolist() for line in figure.axes[0].lines}
    assert lines == {"right": [1, 1.25], "wrong": [5, 5.25]}
    rows = [{"step": 1, "response": "a", "length": n, "correct": n == 1} for n in (1, 2)]
    other, _ = brought(jsonl(tmp_path / "a.jsonl", rows), tmp_path / "two")
    with pytest.raises(RlinoError, match="some lengths are in tokens, others in characters"):
        length_curves(metrics_frame([one, other]))
    assert learning_curves(metrics_frame([one]), "accuracy") and learning_curves(
        metrics_frame([one, other]), "accuracy"
    )
    with pytest.raises(RlinoError, match="no rows to draw"):
        learning_curves(metrics_frame([one]))


def test_what_a_figure_lacks_is_one_line(tmp_path):
    run, _ = brought(lm_eval_samples(tmp_path / "h"), tmp_path / "out")
    with pytest.raises(RlinoError, match="not known"):
        of_kind(run.responses, "wrong, not truncated")
    assert len(of_kind(run.responses, "wrong")) == 2
    with pytest.raises(RlinoError, match="lengths in tokens are not known"):
        paired_lengths(run.responses)
    assert paired_lengths(run.responses.assign(length=run.responses["characters"])).empty  # one response each
    with pytest.raises(RlinoError, match="is not known of every response"):
        survival(run.responses["characters"], ~run.responses["clipped"])
    ungraded, _ = brought(jsonl(tmp_path / "a.jsonl", [{"response": "a"}]), tmp_path / "ungraded")
    with pytest.raises(RlinoError, match="which responses are right is not known"):
        of_kind(ungraded.responses, "right")
    asks = (
        first_reaching_half,
        lambda run: figure_readme(metrics_frame([run])),
    )
    for ask in (
        *asks,
        parts_of,
        lambda run: run.config["lr"],
        lambda run: run.timing,
        lambda run: length_curves(run.metrics),
    ):
        with pytest.raises(RlinoError) as e:
            ask(run)
        assert "\n" not in str(e.value)


def first_reaching_half(run):
    return first_reaching(run, 50)


def test_two_imported_runs_are_compared(tmp_path):
    runs = []
    for k, (method, seed) in enumerate((("grpo", None), ("rloo", None), ("grpo", 3), ("rloo", 3))):
        source = trl_run(tmp_path / f"trl-{k}", steps=2 + k % 2)
        runs.append(brought(source, tmp_path / "runs" / str(k), settings={"method": method, "seed": seed})[0])
    page = run_comparer(runs, "grpo", "rloo")
    assert "seed ?" in page and "characters<" in page and "advantage" in page and "truncated; characters." in page
    assert "seed 3" in run_comparer(runs, "grpo", "rloo", seed=3)
    page = trace_inspector(runs)
    assert "GRPO, seed 3" in page and "RLOO, seed 3" in page and "GRPO, seed ?" in page and "None" not in page


def test_parquet_without_pyarrow_says_what_it_needs(tmp_path, monkeypatch):
    folder = trl_run(tmp_path / "trl")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(RlinoError, match="reading it needs pyarrow: pip install pyarrow"):
        brought(folder, tmp_path / "out")


def test_the_inspector_shows_characters_and_escapes_everything(tmp_path):
    rows = [{"response": HOSTILE * k, "prompt": HOSTILE, "gold": HOSTILE, "reason": HOSTILE, "problem_id": HOSTILE,
             "question": HOSTILE, "correct": k == 1} for k in (1, 2)]  # fmt: skip
    run, _ = brought(jsonl(tmp_path / "a.jsonl", rows), tmp_path / "out", settings={"method": HOSTILE[:25]})
    page = trace_inspector(run)
    assert f"<strong>{len(HOSTILE)} characters</strong>" in page and "<script>alert" not in page and "\x00" not in page
    assert not re.search("[\u202e\ud800]", page)
    assert run.rollouts["response"][0] == HOSTILE and trace_inspector([run, run])
    page = trace_inspector(
        brought(jsonl(tmp_path / "b.jsonl", [{"response": "a"}, {"response": "b", "gold": 1}]), tmp_path / "b")[0]
    )
    assert "nan" not in page and "None" not in page


def test_countdown_of_another_library_opens_as_a_tree_of_attempts(tmp_path):
    text = " 8 * 8 = 64, 64 + 4 = 68 no\n 8 * 2 = 16, 16 * 4 = 64 yes </think> <answer> ( 8 * 2 ) * 4 </answer>"
    doc = {"nums": [8, 2, 4], "target": 64}
    run, _ = brought(lm_eval_samples(tmp_path / "h", ("none",), [[text]], "countdown", doc=doc), tmp_path / "out")
    assert "8 2 4 → 64" in trace_inspector(run) and "= 64" in search_view(run)
    hostile = {"nums": [HOSTILE, {}, None], "target": HOSTILE, "question": HOSTILE}
    run, _ = brought(lm_eval_samples(tmp_path / "x", ("none",), doc=hostile), tmp_path / "hostile")
    assert "<script>alert" not in trace_inspector(run)
    with pytest.raises(RlinoError):
        search_view(run)


def test_claims_say_what_an_imported_run_lacks(tmp_path, capsys):
    for method, seed in (("grpo", 0), ("grpo_no_kl", 0), ("unknown", None)):
        samples = lm_eval_samples(tmp_path / "h" / method, resps=[[f"It is 4, says {method}."]])
        brought(samples, tmp_path / "runs" / f"{method}-{seed}", settings={"method": method, "seed": seed})
    assert cli.main(["claims", "--yours", str(tmp_path / "runs")]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1 and json.loads(out)["claims"] > 0
    assert "fewer than the planned" in err and "so far +0.0 points (seeds: 1)" in err
    assert "unknown-None: no claim is about the method unknown on the task gsm8k: `rlino import --method" in err
    brought(trl_run(tmp_path / "trl"), tmp_path / "more" / "a", settings={"method": "grpo", "task": "countdown"})
    assert cli.main(["claims", "--yours", str(tmp_path / "more")]) == 0
    assert "does not say its seed: `rlino import --seed N` does" in capsys.readouterr().err


def test_growth_is_judged_of_imported_runs_whose_base_and_cap_nobody_knows(tmp_path, capsys):
    """Lengths of their own suffice; what compares with the base says that no evaluation of it is recorded."""
    for seed in range(5):
        rows = [
            {"text": f"{seed}-{step}-{k}", "ok": k == 0, "tokens": 10 + k + step, "at": step, "id": f"p{k}"}
            for step in (0, 1) for k in range(4)
        ]  # fmt: skip
        columns = "response=text,correct=ok,length=tokens,step=at,problem_id=id"
        arguments = ["--map", columns, "--method", "grpo", "--task", "countdown", "--model", "me/mine"]
        source = str(jsonl(tmp_path / "src" / f"{seed}.jsonl", rows))
        out = str(tmp_path / "runs" / f"s{seed}")
        more = ["--split", "test", "--seed", str(seed), "--max-new-tokens", "64", "--out", out]
        assert cli.main(["import", source, *arguments, *more]) == 0
        assert load_run(out).config["max_new_tokens"] == 64
    capsys.readouterr()
    assert cli.main(["claims", "--yours", str(tmp_path / "runs")]) == 0
    err = capsys.readouterr().err
    assert "does not record max_new_tokens" not in err and "no evaluation of it is recorded" in err


def test_what_is_empty_or_of_several_formats_is_one_short_line(tmp_path, capsys):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    assert cli.main(["import", str(empty), "--out", str(tmp_path / "o")]) == 2
    assert capsys.readouterr().err == f"rlino: {empty} is empty\n"
    sources = [trl_run(tmp_path / "trl"), lm_eval_samples(tmp_path / "h")]
    assert cli.main(["import", *map(str, sources), "--out", str(tmp_path / "o")]) == 2
    assert "are of different formats: import one run at a time" in capsys.readouterr().err
    with pytest.raises(RlinoError, match="'high' is no number"):
        read_map(["correct=score>=high"])


@pytest.mark.parametrize("task", ["countdown", "gsm8k"])
def test_every_claim_takes_imported_runs_without_a_crash(tmp_path, capsys, task):
    for method in ("grpo", "grpo_no_kl", "f_isft_pos", "f_isft_neg", "f_isft_posneg", "dr_grpo", "rloo"):
        for seed in range(6):
            source = (trl_run if seed % 2 else lm_eval_samples)(tmp_path / "src" / f"{method}-{seed}")
            choice = {"method": method, "seed": seed // 2, "task": task, "model": "m" if seed % 2 else "n"}
            brought(source, tmp_path / "runs" / f"{method}-{seed}", settings=choice)
    assert cli.main(["claims", "--yours", str(tmp_path / "runs")]) == 0
    assert json.loads(capsys.readouterr().out)["claims"] > 0


# --- properties ------------------------------------------------------------------------------------------------------

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
QUIET = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXTS = st.text(st.characters(exclude_categories=()), max_size=20)  # with halves of surrogate pairs


@QUIET
@given(st.lists(st.tuples(TEXTS, TEXTS, st.booleans(), st.integers(0, 3)), min_size=1, max_size=8))
def test_nothing_of_a_response_is_lost(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("run")
    names = ("response", "prompt", "correct", "step")
    run, _ = brought(jsonl(folder / "a.jsonl", [dict(zip(names, row, strict=True)) for row in rows]), folder / "out")
    kept = run.rollouts
    assert [tuple(row) for row in kept[list(names)].to_numpy().tolist()] == rows
    assert run.responses["characters"].tolist() == [len(text) for text, *_ in rows]
    assert run.responses["problem_id"].tolist() == kept["problem_id"].tolist()
    right = kept.groupby("step")["correct"].mean()
    assert run.metrics["accuracy"].tolist() == pytest.approx(
        [float(right[step]) for step in sorted(right.index)], rel=1e-5
    )
    assert trace_inspector(run, step=int(kept["step"].min()))


@QUIET
@given(st.lists(ANY, min_size=1, max_size=4), st.sampled_from(sorted(FORMATS)), st.booleans())
def test_any_lines_make_a_run_or_one_error(tmp_path_factory, lines, kind, clothed):
    folder = tmp_path_factory.mktemp("any")
    if clothed:  # as the format has them, with anything inside
        keys = {
            "verl": ("input", "output", "score", "step"),
            "lm-eval": ("doc_id", "doc", "resps", "arguments", "metrics"),
        }
        lines = [dict.fromkeys(keys.get(kind, ("response", "problem_id", "tokens")), value) for value in lines]
    name = "trainer_state.json" if kind == "trl" else "a.jsonl"
    text = json.dumps({"log_history": lines}) if kind == "trl" and clothed else "\n".join(map(json.dumps, lines)) + "\n"
    (folder / name).write_text(text)
    try:
        run, _ = brought(folder / name, folder / "out", kind=kind)
    except RlinoError as e:
        assert str(folder) in str(e) or "response" in str(e)
        assert not (folder / "out").exists()
    else:
        assert run.complete and len(run.metrics) >= 0
        trace_inspector(run)


@QUIET
@given(
    st.dictionaries(
        st.text(string.printable, min_size=1, max_size=8), st.floats(allow_nan=False) | st.integers(), max_size=6
    )
)
def test_every_logged_number_is_kept_under_its_name(tmp_path_factory, numbers):
    folder = tmp_path_factory.mktemp("log")
    run, _ = brought(jsonl(folder / "m.jsonl", [{"step": 1, "data": {"x": 1} | numbers}]), folder / "out", kind="verl")
    for name, value in numbers.items():
        if abs(value) <= 1e300 and name != "step" and name.isprintable():
            assert run.metrics[name].tolist() == [pytest.approx(float(value), rel=1e-5)]


def test_runs_that_are_no_seeds_of_one_experiment_are_not_judged(tmp_path, capsys):
    """One file under several seeds, and methods that were tested on different problems."""

    def imported(name, method, seed, problems, note=""):
        rows = [{"response": f"{p}{note}", "correct": k % 2 == 0, "problem_id": p} for k, p in enumerate(problems)]
        source = str(jsonl(tmp_path / "src" / f"{name}.jsonl", rows))
        arguments = ["--method", method, "--task", "countdown", "--model", "m", "--seed", str(seed)]
        assert cli.main(["import", source, *arguments, "--out", str(tmp_path / "runs" / name)]) == 0

    def effect():
        capsys.readouterr()
        table = judge_yours(tmp_path / "runs").set_index("id")
        return table.loc["posneg-countdown", ["verdict", "effect"]].tolist()

    for seed in range(10):
        imported(f"a{seed}", "grpo", seed, "xyz", f"a{seed}")
        imported(f"b{seed}", "f_isft_posneg", seed, "xyz", f"b{seed}")
    assert effect()[0] == "holds"
    imported("c", "grpo", 10, "xyw", "c")
    assert effect()[0] == "not testable here" and "were tested on different problems" in effect()[1]
    shutil.rmtree(tmp_path / "runs" / "c")
    imported("d", "grpo", 11, "xyz", "a3")
    assert effect() == ["not testable here", "runs/a3 and runs/d are imports of the same files"]


def test_a_response_among_metrics_and_an_endless_threshold_are_refused(tmp_path):
    rows = [{"step": 1, "loss": 0.1}, {"response": "a", "correct": True}]
    with pytest.raises(RlinoError, match="line 2: a response after a line of metrics"):
        brought(jsonl(tmp_path / "mixed.jsonl", rows), tmp_path / "out")
    for threshold in ("nan", "inf"):
        with pytest.raises(RlinoError, match=f"{threshold!r} is no number"):
            read_map([f"correct=score>={threshold}"])


def test_a_console_of_verl_that_stops_before_its_announced_end_is_not_complete(tmp_path, capsys):
    for steps, complete in ((2, True), (100, False)):
        log = tmp_path / f"{steps}.log"
        log.write_text(f"(TaskRunner pid=1) Total training steps: {steps}\n{CONSOLE}", encoding="utf-8")
        assert cli.main(["import", str(log), "--out", str(tmp_path / str(steps))]) == 0
        assert load_run(tmp_path / str(steps)).complete is complete
    assert "the log stops at step 2 of 100" in capsys.readouterr().err
