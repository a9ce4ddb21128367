"""Tables of recorded runs in Markdown."""

import json
import math

import pytest

from rlino_lib.claims.families import last
from rlino_lib.figures.recorded import ends_table
from rlino_lib.records.runs import load_run


def write_run(folder, seed, accuracy, length):
    folder.mkdir()
    config = {"method": "grpo", "task": "word_problems", "seed": seed, "epochs": 1, "minibatches": 1, "steps": 1}
    (folder / "config.json").write_text(json.dumps(config))
    summary = {"complete": True, "test": {"pass@1": {"value": accuracy / 100}}}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "metrics.csv").write_text(f"step,samples,eval/mean_length\n0,0,30\n1,64,{length}\n")
    (folder / "timing.csv").write_text("step,seconds\n0,0\n1,1\n")
    return load_run(folder)


def test_ends_of_kinds_of_runs_beside_those_of_a_reference(tmp_path):
    """Means are over all seeds of a kind, differences over those that the reference has as well."""
    plain = {seed: write_run(tmp_path / f"plain-s{seed}", seed, 50 + seed, 31) for seed in (1, 2, 3)}
    other = {seed: write_run(tmp_path / f"other-s{seed}", seed, 52 + seed + gap, 40 + gap) for seed, gap in
             ((2, 0.5), (3, -0.5), (4, 0.0))}  # fmt: skip
    head, _, first, second = ends_table(
        {"plain": plain, "other": other}, "plain", {"tokens": last("eval/mean_length"), "none": lambda run: math.nan}
    ).split("\n")
    assert [cell.strip() for cell in head.split("|")][2:7] == [
        "seeds", "right, test, %", "less plain, points, 95 %", "tokens", "none"
    ]  # fmt: skip
    assert first == "| plain | 3 | 52.0 | – | 31 | – |"
    name, seeds, right, gap, tokens, _ = (cell.strip() for cell in second.strip("|").split("|"))
    assert (name, seeds, right, tokens) == ("other", "3", "55.0", "40")
    mean, low, high = (float(part.strip("[],")) for part in gap.split())
    assert mean == pytest.approx(2.0) and low < mean < high and mean - low == pytest.approx(high - mean, abs=0.11)
