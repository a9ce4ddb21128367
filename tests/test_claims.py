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
    claim = claims.Claim(name, "…", "…", "exact", name, threshold)
    return claims.EVIDENCE[name](claim, claims.Records(root))


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


def duel(root, method, accuracies, task="countdown", right=(-30.0, -20.0), wrong=(-40.0, -60.0)):
    """Runs of a method, a seed each: what they score in the end, and two log-likelihoods before and after."""
    for seed, accuracy in enumerate(accuracies):
        folder = root / "head-to-head" / f"{task}-{method}-s{seed}"
        folder.mkdir(parents=True)
        config = {"method": method, "task": task, "seed": seed, "model": "data/base/countdown"}
        (folder / "config.json").write_text(json.dumps(config))
        summary = {"complete": True, "test": {"pass@1": {"value": accuracy}}}
        (folder / "summary.json").write_text(json.dumps(summary))
        ends = zip((0, 5, 10), (right[0], "", right[1]), (wrong[0], "", wrong[1] + seed), strict=True)
        text = "".join(f"{step},{r},{w}\n" for step, r, w in ends)
        (folder / "metrics.csv").write_text("step,eval/base/correct,eval/base/incorrect\n" + text)


def family(evidence, methods=("a",), seeds=5):
    threshold = {"points": 3.0, "alpha": 0.05, "seeds": seeds}
    about = [{"task": "countdown", "method": m, "reference": "grpo"} for m in methods]
    return [claims.Claim(m["method"], "…", "…", "statistical", evidence, threshold, about=m) for m in about]


GRPO = (0.50, 0.51, 0.52, 0.53, 0.54)


@pytest.mark.parametrize(
    ("gaps", "evidence", "verdict"),
    [
        ((0.001, -0.001, 0.002, 0.0, -0.002), "equivalent", "holds"),
        ((0.101, 0.099, 0.102, 0.1, 0.098), "equivalent", "does not hold here"),
        ((0.06, -0.06, 0.05, 0.0, -0.05), "equivalent", "not testable here"),
        ((-0.101, -0.099, -0.102, -0.1, -0.098), "below", "holds"),
        ((0.06, -0.06, 0.05, 0.0, -0.05), "below", "does not hold here"),
        ((-0.48, -0.49, -0.50, -0.51, -0.52), "collapses", "holds"),
        ((-0.3, -0.3, -0.3, -0.3, -0.3), "collapses", "does not hold here"),
    ],
)
def test_head_to_head_is_judged_over_seeds(gaps, evidence, verdict, tmp_path):
    duel(tmp_path, "grpo", GRPO)
    duel(tmp_path, "a", [x + gap for x, gap in zip(GRPO, gaps, strict=True)])
    (claim,) = family(evidence)
    found = claims.EVIDENCE[evidence](claim, claims.Records(tmp_path, [claim]))
    assert found.verdict == verdict and len(found.runs) == (5 if evidence == "collapses" else 10)
    assert ("seeds would settle it" in found.effect) == (verdict == "not testable here")


def test_nothing_is_judged_before_the_planned_seeds_are_recorded(tmp_path):
    duel(tmp_path, "grpo", GRPO)
    duel(tmp_path, "a", GRPO[:4])
    for evidence in ("equivalent", "below", "collapses"):
        (claim,) = family(evidence)
        assert "planned 5 seeds" in claims.EVIDENCE[evidence](claim, claims.Records(tmp_path, [claim])).effect
    (claim,) = family("equivalent", seeds=4)
    assert len(claims.EVIDENCE["equivalent"](claim, claims.Records(tmp_path, [claim])).runs) == 8


def test_a_family_is_corrected_as_announced(tmp_path):
    duel(tmp_path, "grpo", GRPO)
    duel(tmp_path, "a", [x + gap for x, gap in zip(GRPO, (0.02, -0.01, 0.02, 0.01, 0.02), strict=True)])
    alone, pair = family("equivalent"), family("equivalent", ("a", "missing"))
    p = [
        float(claims.EVIDENCE["equivalent"](f[0], claims.Records(tmp_path, f)).effect.split("p = ")[1].split()[0])
        for f in (alone, pair)
    ]
    assert p[1] == pytest.approx(2 * p[0], rel=0.05)


@pytest.mark.parametrize(
    ("right", "wrong", "verdict"),
    [
        ((-30, -20), (-40, -60), "holds"),
        ((-30, -20), (-60, -40), "holds with conditions"),
        ((-30, -35), (-60, -40), "does not hold here"),
    ],
)
def test_likelihoods_are_judged_from_first_to_last(right, wrong, verdict, tmp_path):
    duel(tmp_path, "a", GRPO, right=right, wrong=wrong)
    (claim,) = family("likelihood")
    found = claims.EVIDENCE["likelihood"](claim, claims.Records(tmp_path, [claim]))
    assert found.verdict == verdict and f"right {right[1] - right[0]:+.1f}" in found.effect


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
