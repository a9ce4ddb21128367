"""The ledger: every row can be judged, verdicts follow from the evidence, and a wrong one is found."""

import csv
import json

import pytest

from rlino_lib import claims, cli
from rlino_lib.errors import RlinoError


def write_run(root, method, updates, seed, clipped, cosine, accuracy):
    folder = root / "staleness" / f"{method}-u{updates}-s{seed}"
    folder.mkdir(parents=True)
    config = {"method": method, "seed": seed, "epochs": updates, "minibatches": 1}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "summary.json").write_text(json.dumps({"complete": True, "test": {"pass@1": {"value": accuracy}}}))
    with (folder / "probes.csv").open("w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["step", "update", "clip_ratio", "cosine/f_isft"])
        for step in (1, 2):
            writer.writerow([step, 1, 0.0, 1.0])
            if updates > 1:
                writer.writerow([step, updates, clipped, cosine])


def recorded(root, clipped=0.0, cosine=1.0, gap=0.0):
    """Two seeds of both methods, at 1 and at 4 updates a batch; what is given happens at 4."""
    for seed in (0, 1, 2):
        for updates in (1, 4):
            late = updates > 1
            for method, more in (("grpo_no_kl", gap if late else 0.0), ("f_isft_posneg", 0.0)):
                write_run(root, method, updates, seed, clipped, cosine, 0.5 + 0.001 * seed * (more > 0) + more)
    return root


def judged(name, root, **threshold):
    return claims.EVIDENCE[name](threshold, root)


def test_the_shipped_ledger_is_judged_as_it_says(capsys):
    assert cli.main(["claims"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["claims"] == len(claims.read_ledger()) == len(err.splitlines())


@pytest.mark.parametrize(
    ("happens", "verdict"),
    [({}, "holds"), ({"clipped": 0.06}, "holds with conditions"), ({"clipped": 0.04}, "holds")],
)
def test_clipping_is_judged_by_updates_a_batch(happens, verdict, tmp_path):
    found = judged("clip_range", recorded(tmp_path, **happens), clipped=0.05)
    assert found.verdict == verdict and len(found.runs) == 6
    assert ("not at 4 updates" in found.effect) == (verdict != "holds")


@pytest.mark.parametrize(
    ("happens", "verdict", "says"),
    [
        ({}, "holds", "no bound was crossed"),
        ({"cosine": 0.8}, "holds with conditions", "cosine at 4"),
        ({"clipped": 0.2}, "holds with conditions", "clipped at 4"),
        ({"gap": 0.05}, "holds with conditions", "accuracy at 4"),
        ({"gap": 0.02}, "holds", "no bound was crossed"),
    ],
)
def test_any_of_three_bounds_ends_the_equality(happens, verdict, says, tmp_path):
    found = judged("name_only", recorded(tmp_path, **happens), cosine=0.9, clipped=0.05, points=3.0)
    assert (found.verdict, says in found.effect) == (verdict, True)


def test_without_runs_a_claim_on_records_is_not_testable(tmp_path):
    for name, threshold in (("clip_range", {"clipped": 1}), ("name_only", {"cosine": 0, "clipped": 1, "points": 1})):
        assert judged(name, tmp_path, **threshold).verdict == "not testable here"


def test_an_exact_claim_fails_below_its_gap(tmp_path):
    assert judged("weighted_sft", tmp_path, gap=1e-10).verdict == "holds"
    assert judged("uniform_credit", tmp_path, gap=1e-10).verdict == "does not hold here"
    assert judged("uniform_credit", tmp_path, gap=10.0).verdict == "holds"


ROW = """[[claim]]
id = "a"
statement = "s"
paper = "p"
kind = "exact"
evidence = "bandit"
threshold = { gap = 1e-10 }
"""


def test_a_verdict_that_differs_is_an_error(tmp_path, monkeypatch, capsys):
    ledger = tmp_path / "claims.toml"
    for verdict, code in (('verdict = "holds"', 0), ('verdict = "does not hold here"', 2), ("", 2)):
        ledger.write_text(ROW + verdict)
        monkeypatch.setattr(claims.judge_all, "__defaults__", (ledger, *claims.judge_all.__defaults__[1:]))
        assert cli.main(["claims", "--out", str(tmp_path / "found.json")]) == code
        assert (code == 0) or "a (stored: " in capsys.readouterr().err
    assert json.loads((tmp_path / "found.json").read_text())[0]["found"] == "holds"


@pytest.mark.parametrize(
    "broken",
    ["no toml [", "x = 1", ROW + ROW, ROW.replace("bandit", "no such"), ROW + 'verdict = "perhaps"', ROW + "x = 1"],
)
def test_a_broken_ledger_is_named(broken, tmp_path):
    path = tmp_path / "claims.toml"
    path.write_text(broken)
    with pytest.raises(RlinoError, match="claim|ledger"):
        claims.read_ledger(path)
