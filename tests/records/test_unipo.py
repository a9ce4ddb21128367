"""UNIPO's canonical JSON: what is written can be read back, and what is no such file is one line."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pandas as pd
import pytest

from rlino_lib.errors import RlinoError
from rlino_lib.records.runs import list_runs
from rlino_lib.records.unipo import COLUMNS, KEPT, from_unipo, to_unipo

EVIL = ["</script><script>alert(1)</script>", "\u2028", "\u202e", "y" * 100_000, "half \ud800", "\x00"]


@pytest.fixture(scope="module")
def run():
    return next(run for run in list_runs("countdown") if len(run.rollouts))


def test_a_recorded_run_comes_back(run, tmp_path):
    unipo = to_unipo(run, tmp_path / "run.json")
    assert json.loads((tmp_path / "run.json").read_text()) == unipo
    back = from_unipo(tmp_path / "run.json")
    ours = run.rollouts.sort_values(["step", "group"], kind="stable").reset_index(drop=True)
    assert len(back) == len(ours)
    for name in ("step", "group", "sample", "prompt", "response", "tokens", *COLUMNS, *KEPT, "reward", "advantage"):
        assert back[name].tolist() == ours[name].tolist(), name


def test_the_fields_are_those_of_the_schema(run):
    unipo = to_unipo(run)
    assert set(unipo) == {"header", "entries"} and unipo["header"]["algorithm"] == run.method
    entry = unipo["entries"][0]
    assert set(entry) == {"step", "is_first_step_after_rollout_phase", "metrics", "prompts"}
    assert {"policy_objective", "reward"} <= set(entry["metrics"])
    response = entry["prompts"][0]["responses"][0]
    assert {"id", "reward", "advantage", "response_text", "response_length", "tokens"} <= set(response)
    lengths = {len(values) for values in response["tokens"].values()}
    assert lengths == {response["response_length"]} and {"ids", "strings"} <= set(response["tokens"])


def test_jsonl_and_their_own_example_are_read(run, tmp_path):
    unipo = to_unipo(run)
    lines = [unipo["header"], *unipo["entries"]]
    (tmp_path / "run.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert len(from_unipo(tmp_path / "run.jsonl")) == len(run.rollouts)
    tokens = {"ids": [0, 1], "strings": ["The", " answer"], "log_probs": [-0.2, -0.6], "values": [0.4, 0.5]}
    response = {"id": "a", "reward": 0.85, "advantage": 0.35, "response_text": "The answer", "tokens": tokens}
    theirs = {"header": {}, "entries": [{"step": 0, "prompts": [{"prompt": "Compute", "responses": [response]}]}]}
    frame = from_unipo(theirs)
    assert frame["logprobs"][0] == [-0.2, -0.6] and "entropies" not in frame and frame["reward"][0] == 0.85


def test_hostile_text_stays_text(tmp_path):
    row = {"step": 1, "group": 0, "sample": 0, "prompt": EVIL[0], "response": "".join(EVIL), "tokens": EVIL}
    row |= {"reward": math.nan, "advantage": 1.0, "weights": [0.1, math.nan, math.inf, 0, 0, 0]}
    run = SimpleNamespace(method="grpo", config={}, metrics=pd.DataFrame(), rollouts=pd.DataFrame([row], dtype=object))
    to_unipo(run, tmp_path / "evil.json")
    back = from_unipo(tmp_path / "evil.json")
    assert back["tokens"][0][:4] == EVIL[:4] and back["tokens"][0][5] == "\x00"
    assert math.isnan(back["reward"][0]) and back["weights"][0][0] == 0.1 and math.isnan(back["weights"][0][2])


@pytest.mark.parametrize(
    "text",
    ["", "not json", "[]", "3", "{}", '{"entries": 3}', '{"entries": []}', '{"entries": [{"step": "x"}]}', "[" * 99_999]
    + ['{"entries": [{"step": 1, "prompts": [{"prompt": "", "responses": [3]}]}]}', '{"a": 1}\n{"b": 2}'],
)
def test_a_bad_file_is_one_line(text, tmp_path):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(RlinoError) as e:
        from_unipo(path)
    assert "\n" not in str(e.value)


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(RlinoError, match="cannot be read"):
        from_unipo(tmp_path / "none.json")
    with pytest.raises(RlinoError, match="no recorded rollouts"):
        to_unipo(SimpleNamespace(name="x", method="grpo", config={}, metrics=pd.DataFrame(), rollouts=pd.DataFrame()))


def test_half_a_surrogate_pair_is_read_and_what_a_run_lacks_is_said(tmp_path):
    path = tmp_path / "half.json"
    response = {"tokens": {"strings": ["a"]}}
    prompts = [{"prompt": "\ud800", "responses": [response]}]
    path.write_text(json.dumps({"entries": [{"step": 1, "prompts": prompts}]}))
    assert from_unipo(path)["prompt"].tolist() == ["\ud800"]
    rollouts = pd.DataFrame([{"step": 1}])
    run = SimpleNamespace(name="mine", method="grpo", config={}, metrics=pd.DataFrame(), rollouts=rollouts)
    with pytest.raises(RlinoError, match="mine has no tokens and no reward"):
        to_unipo(run)
