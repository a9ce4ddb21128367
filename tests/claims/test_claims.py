"""The ledger: every row can be judged, verdicts follow from the evidence, and a wrong one is found."""

import csv
import json
import tomllib
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from rlino_lib.analysis.statistics import seeds_needed
from rlino_lib.claims import bandit, head_to_head
from rlino_lib.claims.judge import judge, judge_all, ledger_rows
from rlino_lib.claims.ledger import LEDGER, Claim, Records, read_ledger
from rlino_lib.claims.verdicts import CONDITIONS, FAILS, HOLDS, UNDECIDED, VERDICTS, verdict_above_zero, verdict_on_all
from rlino_lib.cli import main as cli
from rlino_lib.errors import RlinoError
from rlino_lib.exact.identities import Identity
from rlino_lib.paths import REPO

# Evidence by the names of the ledger
EQUIVALENT = "head_to_head.equivalent"
BELOW = "head_to_head.below"
COLLAPSES = "head_to_head.below_the_base_at_every_rate"
LIKELIHOOD = "head_to_head.right_answers_likelier_wrong_ones_less"
CLIP_RANGE = "gradient.ratio_stays_in_the_clip_range"
NAME_ONLY = "gradient.grpo_stays_balanced_f_isft"


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
    """Two seeds of both methods, at 1 and at 4 updates per batch; what is given happens at 4."""
    for seed in (0, 1, 2):
        for updates in (1, 4):
            late = updates > 1
            for method, more in (("grpo_no_kl", gap if late else 0.0), ("f_isft_posneg", 0.0)):
                write_run(root, method, updates, seed, clipped, cosine, 0.5 + 0.001 * seed * (more > 0) + more)
    return root


def judged(name, root, **threshold):
    claim = Claim(name, "…", "…", "exact", name, threshold)
    return judge(claim, Records(root))


def test_the_shipped_ledger_is_judged_as_it_says(capsys):
    assert cli.main(["claims"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["claims"] == len(read_ledger()) == len(err.splitlines())


@pytest.mark.parametrize(
    ("happens", "verdict"),
    [({}, "holds"), ({"clipped": 0.06}, "holds with conditions"), ({"clipped": 0.04}, "holds")],
)
def test_clipping_is_judged_by_updates_a_batch(happens, verdict, tmp_path):
    found = judged(CLIP_RANGE, recorded(tmp_path, **happens), clipped=0.05)
    assert found.verdict == verdict and len(found.runs) == 6
    assert ("it holds at 1 and not at 4 updates" in found.effect) == (verdict != "holds")


@pytest.mark.parametrize(
    ("happens", "verdict", "says"),
    [
        ({}, "holds", "no bound was crossed"),
        ({"gap": 0.02}, "holds", "no bound was crossed"),
        ({"cosine": 0.8}, "holds with conditions", "it holds at 1 and not at 4 updates per batch; the bound was"),
        ({"cosine": 0.8}, "holds with conditions", "by cosine at 4"),
        ({"clipped": 0.2}, "holds with conditions", "clipped at 4"),
        ({"gap": 0.05}, "holds with conditions", "accuracy at 4"),
        ({"gap": 0.0285}, "holds", "accuracy undecided at 4"),
    ],
)
def test_any_of_three_bounds_ends_the_equality(happens, verdict, says, tmp_path):
    found = judged(NAME_ONLY, recorded(tmp_path, **happens), cosine=0.9, clipped=0.05, points=3.0)
    assert (found.verdict, says in found.effect) == (verdict, True)


def test_without_runs_a_claim_on_records_is_not_testable(tmp_path):
    for name, threshold in ((CLIP_RANGE, {"clipped": 1}), (NAME_ONLY, {"cosine": 0, "clipped": 1, "points": 1})):
        assert judged(name, tmp_path, **threshold).verdict == "not testable here"


def duel(root, method, accuracies, right=(-30.0, -20.0), wrong=(-40.0, -60.0), group="head-to-head", lr=1e-4):
    """Runs of a method, a seed each: what they score in the end, and two log-likelihoods before and after."""
    for seed, accuracy in enumerate(accuracies):
        folder = root / group / f"countdown-{method}-{lr:g}-s{seed}"
        folder.mkdir(parents=True)
        config = {"method": method, "task": "countdown", "seed": seed, "model": "data/base/countdown", "lr": lr}
        (folder / "config.json").write_text(json.dumps(config))
        summary = {"complete": True, "test": {"pass@1": {"value": accuracy}}}
        (folder / "summary.json").write_text(json.dumps(summary))
        ends = zip((0, 5, 10), (right[0], "", right[1]), (wrong[0], "", wrong[1] + seed), strict=True)
        text = "".join(f"{step},{r},{w}\n" for step, r, w in ends)
        (folder / "metrics.csv").write_text("step,eval/base/correct,eval/base/incorrect\n" + text)


def family(evidence, methods=("a",), seeds=5):
    threshold = {"points": 3.0, "alpha": 0.05, "seeds": seeds}
    about = [{"task": "countdown", "method": m, "reference": "grpo"} for m in methods]
    return [Claim(m["method"], "…", "…", "statistical", evidence, threshold, about=m) for m in about]


GRPO = (0.50, 0.51, 0.52, 0.53, 0.54)


@pytest.mark.parametrize(
    ("gaps", "evidence", "verdict"),
    [
        ((0.001, -0.001, 0.002, 0.0, -0.002), EQUIVALENT, "holds"),
        ((0.101, 0.099, 0.102, 0.1, 0.098), EQUIVALENT, "does not hold here"),
        ((0.06, -0.06, 0.05, 0.0, -0.05), EQUIVALENT, "undecided"),
        ((0.05, 0.01, 0.06, 0.02, 0.05), EQUIVALENT, "undecided"),  # different from 0, and not from the margin
        ((-0.101, -0.099, -0.102, -0.1, -0.098), BELOW, "holds"),
        ((0.101, 0.099, 0.102, 0.1, 0.098), BELOW, "does not hold here"),
        ((0.06, -0.06, 0.05, 0.0, -0.05), BELOW, "undecided"),
        ((-0.48, -0.49, -0.50, -0.51, -0.52), COLLAPSES, "holds"),
        ((-0.3, -0.3, -0.3, -0.3, -0.3), COLLAPSES, "does not hold here"),
        ((-0.5, -0.2, -0.45, -0.3, -0.4), COLLAPSES, "undecided"),
    ],
)
def test_head_to_head_is_judged_over_seeds(gaps, evidence, verdict, tmp_path):
    duel(tmp_path, "grpo", GRPO)
    duel(tmp_path, "a", [x + gap for x, gap in zip(GRPO, gaps, strict=True)])
    (claim,) = family(evidence)
    found = judge(claim, Records(tmp_path, [claim]))
    assert found.verdict == verdict and len(found.runs) == (5 if evidence == COLLAPSES else 10)
    assert ("seeds would settle it" in found.effect) == ((evidence, verdict) == (EQUIVALENT, "undecided"))


def test_nothing_is_judged_before_the_planned_seeds_are_recorded(tmp_path):
    duel(tmp_path, "grpo", GRPO)
    duel(tmp_path, "a", GRPO[:4])
    for evidence in (EQUIVALENT, BELOW, COLLAPSES):
        (claim,) = family(evidence)
        found = judge(claim, Records(tmp_path, [claim]))
        assert "planned 5 seeds" in found.effect and found.verdict == "not testable here"
    (claim,) = family(EQUIVALENT, seeds=4)
    assert len(judge(claim, Records(tmp_path, [claim])).runs) == 8


def test_a_family_is_corrected_as_announced(tmp_path):
    duel(tmp_path, "grpo", GRPO)
    duel(tmp_path, "a", [x + gap for x, gap in zip(GRPO, (0.02, -0.01, 0.02, 0.01, 0.02), strict=True)])
    alone, pair = family(EQUIVALENT), family(EQUIVALENT, ("a", "missing"))
    p = [float(judge(f[0], Records(tmp_path, f)).effect.split("p = ")[1].split(",")[0]) for f in (alone, pair)]
    assert p[1] == pytest.approx(2 * p[0], rel=0.05)


@pytest.mark.parametrize(
    ("right", "wrong", "verdict"),
    [
        ((-30, -20), (-40, -60), "holds"),
        ((-30, -20), (-60, -40), "holds with conditions"),
        ((-30, -35), (-60, -40), "does not hold here"),
        ((-30, -20), (-40, -42), "holds with conditions"),  # wrong ones moved by −2 to +2: undecided
        ((-30, -35), (-40, -42), "does not hold here"),
    ],
)
def test_likelihoods_are_judged_from_first_to_last(right, wrong, verdict, tmp_path):
    duel(tmp_path, "a", GRPO, right=right, wrong=wrong)
    (claim,) = family(LIKELIHOOD)
    found = judge(claim, Records(tmp_path, [claim]))
    assert found.verdict == verdict and f"right {right[1] - right[0]:+.1f}" in found.effect


def verdict_of(evidence, tmp_path, ledger):
    return judge(ledger[0], Records(tmp_path, ledger))


def test_a_collapse_is_judged_at_every_rate(tmp_path):
    """Above the base at one rate and unclear at another, "every" is refuted; below it at one, there is a condition."""
    duel(tmp_path, "grpo", GRPO, lr=2e-4)
    duel(tmp_path, "a", [0.30, 0.31, 0.32, 0.33, 0.34])
    assert verdict_of(COLLAPSES, tmp_path, family(COLLAPSES)).verdict == FAILS
    duel(tmp_path, "a", [0.1], group="countdown", lr=1e-3)  # one run at a rate is no condition
    assert verdict_of(COLLAPSES, tmp_path, family(COLLAPSES)).verdict == FAILS
    duel(tmp_path, "a", [0.125, 0.208, 0.052], group="countdown", lr=2e-4)
    found = verdict_of(COLLAPSES, tmp_path, family(COLLAPSES))
    assert found.verdict == FAILS and len(found.runs) == 8
    assert "rate of 0.0001 +16.2" in found.effect and "rate of 0.0002, GRPO's own, -3.0" in found.effect
    assert found.effect.endswith("undecided")
    duel(tmp_path, "a", [0.001, 0.002, 0.0015], group="countdown", lr=1e-5)
    assert verdict_of(COLLAPSES, tmp_path, family(COLLAPSES)).verdict == CONDITIONS


def test_a_family_says_how_many_seeds_its_own_level_takes(tmp_path):
    """Two of three tests have not passed, so Holm leaves α/2 to either of them."""
    duel(tmp_path, "grpo", GRPO)
    wide = (0.06, -0.06, 0.05, 0.0, -0.05)
    for name, gaps in (("a", wide), ("b", wide), ("c", (0.001, -0.001, 0.002, 0.0, -0.002))):
        duel(tmp_path, name, [x + gap for x, gap in zip(GRPO, gaps, strict=True)])
    ledger = family(EQUIVALENT, ("a", "b", "c"))
    gaps = 100 * np.array(wide)
    seeds = seeds_needed(gaps.std(ddof=1), 3.0, gaps.mean(), tests=2)
    assert f"about {seeds} seeds" in verdict_of(EQUIVALENT, tmp_path, ledger).effect
    assert seeds > seeds_needed(gaps.std(ddof=1), 3.0, gaps.mean())


def rates_of(verdicts_on, true, *, sd=2.0, seeds=10, size=1, times=400):
    """How often a family of so many claims has each verdict at least once, where all true differences are `true`."""
    rng, counts = np.random.default_rng(int(100 * abs(true)) + size), dict.fromkeys(VERDICTS, 0)
    for _ in range(times):
        for verdict in verdicts_on(rng.normal(true, sd, (size, seeds))):
            counts[verdict] += 1
    return {verdict: n / times for verdict, n in counts.items()}


def family_judge(evidence, monkeypatch, size):
    """From simulated differences [claims, seeds] to the set of verdicts on them."""
    ledger = family(evidence, [f"m{k}" for k in range(size)])

    def verdicts_on(draws):
        gaps = {claim.id: pd.Series(row) for claim, row in zip(ledger, draws, strict=True)}
        with monkeypatch.context() as patched:
            patched.setattr(head_to_head, "paired_gaps", lambda claim, records: (gaps[claim.id], []))
            patched.setattr(head_to_head.stats, "seeds_needed", lambda *args, **kwargs: None)
            records = Records(None, ledger)
            return {judge(claim, records).verdict for claim in ledger}

    return verdicts_on


@pytest.mark.parametrize("size", [1, 3])
def test_a_family_of_claims_errs_as_often_as_alpha_says(size, monkeypatch):
    """On the edge of a hypothesis a family errs in 5 % of the cases or fewer, to four standard errors; and it decides
    where there is something to find."""
    most = 0.05 + 4 * np.sqrt(0.05 * 0.95 / 400)
    equivalent, below = (family_judge(name, monkeypatch, size) for name in (EQUIVALENT, BELOW))
    on_margin, none = rates_of(equivalent, 3.0, size=size), rates_of(below, 0.0, size=size)
    assert on_margin[HOLDS] < most and on_margin[FAILS] < most
    assert none[HOLDS] < most and none[FAILS] < most and none[UNDECIDED] > 0.85
    if size == 1:
        assert rates_of(equivalent, 2.0)[FAILS] < most and rates_of(equivalent, 4.0)[HOLDS] < most
        assert rates_of(equivalent, 0.0, times=100)[HOLDS] > 0.8 and rates_of(equivalent, 7.0, times=100)[FAILS] > 0.8
        assert rates_of(below, -4.0, times=100)[HOLDS] > 0.8 and rates_of(below, 4.0, times=100)[FAILS] > 0.8


def test_a_collapse_is_found_and_denied_by_evidence_alone(monkeypatch):
    (claim,) = family(COLLAPSES)
    monkeypatch.setattr(head_to_head, "base_accuracy", lambda run: 0.0)
    monkeypatch.setattr(head_to_head.stats, "final_accuracy", lambda run: run.gain)

    def verdicts_on(draws):
        config = {"task": "countdown", "lr": 1e-4}
        runs = [SimpleNamespace(path=k, name="", method="a", config=config, gain=x) for k, x in enumerate(draws[0])]
        return {judge(claim, Records(None, [claim], runs)).verdict}

    none = rates_of(verdicts_on, 0.0, seeds=5, times=1000)
    assert none[HOLDS] + none[FAILS] == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 1000))
    assert none[UNDECIDED] > 0.9
    found, denied = (rates_of(verdicts_on, true, seeds=5, times=100) for true in (-6.0, 6.0))
    assert found[HOLDS] > 0.9 and denied[FAILS] > 0.9


@pytest.mark.parametrize(
    ("verdicts", "together"),
    [
        ((HOLDS, HOLDS), HOLDS),
        ((HOLDS, FAILS), CONDITIONS),
        ((UNDECIDED, HOLDS), CONDITIONS),
        ((FAILS, UNDECIDED), FAILS),
        ((UNDECIDED, UNDECIDED), UNDECIDED),
    ],
)
def test_the_verdict_on_all_of_several(verdicts, together):
    assert verdict_on_all(verdicts) == together


def test_an_interval_around_0_is_undecided():
    sides = ([2, 2.5, 3], HOLDS), ([-2, -2.5, -3], FAILS), ([-1, 2, 1], UNDECIDED), ([5], UNDECIDED)
    assert [verdict_above_zero(pd.Series(values)) for values, _ in sides] == [verdict for _, verdict in sides]


def test_not_testable_is_what_has_no_test(judgement):
    """The stored ledger says "not testable here" of nothing that was tested, and thresholds are as they were set."""
    rows = tomllib.loads(LEDGER.read_text(encoding="utf-8"))["claim"]
    judged = {row.id: row for row in judgement.itertuples()}
    assert not [row["id"] for row in rows if row["verdict"] == "not testable here" and judged[row["id"]].runs]
    assert {row["id"] for row in rows if row["verdict"] == "undecided"} == {
        "kl-countdown", "posneg-countdown", "neg-word", "gains-sides", "gains-shape", "curves-cross", "interference",
        "temperature", "right-chains", "nsr-keeps", "same-curve", "facts-over-plans", "vine-per-update",
        "restarts-repair",
    }  # fmt: skip
    assert "about 28 seeds" in judged["kl-countdown"].effect


def test_what_is_under_revision_says_why(judgement):
    under = judgement[judgement["revision"] != ""]
    superseded = {"caused-countdown", "caused-word"}
    assert set(under["id"]) == superseded | {"cut-countdown", "gains-sides", "discovers", "temperature"}
    head, *rows = ledger_rows(judgement, {})
    shown = {row[0]: row[head.index("what was found")] for row in rows}
    for row in under.itertuples():
        heading = f"Superseded by {row.superseded_by}" if row.superseded_by else "Under revision"
        assert shown[row.statement].endswith(f"*{heading}:* {row.revision}")
    assert sum(":* " in words for words in shown.values()) == len(under)
    verdicts = {row[0]: row[head.index("verdict")] for row in rows}
    marked = {row.statement: f"{row.found}, *{row.standing.partition(':')[0]}*" for row in under.itertuples()}
    assert {words: verdict for words, verdict in verdicts.items() if "," in verdict} == marked
    assert set(judgement["superseded_by"]) == {"", "caused-giving-up", "selection-word"}


def test_what_the_paper_reports_of_positives_alone_is_what_its_table_has():
    table = pd.read_csv(REPO / "data" / "paper" / "results.csv")
    wide = table.pivot_table(index=["task", "model"], columns="method", values="accuracy_percent")
    gap = wide["F-ISFT+"] - wide["GRPO"]
    words = {c.id: c.paper for c in read_ledger()}
    assert f"{-gap['countdown', 'Qwen2.5-1.5B']:.1f} points below" in words["pos-countdown"]
    assert f"{gap['countdown', 'Qwen2.5-0.5B']:.1f} points above" in words["pos-countdown"]
    assert f"{-gap['gsm8k'].max():.1f} to {-gap['gsm8k'].min():.1f} points below" in words["pos-word"]


def test_the_reduction_needs_transitions_that_are_deterministic(tmp_path):
    tool, noise = {"gap": 1e-10, "games": 20}, {"loss": 0.01, "games": 20}
    assert judged("bandit.deterministic_tool_costs_nothing", tmp_path, **tool).verdict == HOLDS
    assert judged("bandit.noise_makes_arms_worse", tmp_path, **noise).verdict == HOLDS
    assert judged("bandit.noise_makes_arms_worse", tmp_path, **noise | {"loss": 0.06}).verdict == FAILS


def test_a_tool_that_errs_would_be_found(tmp_path, monkeypatch):
    honest = bandit.tool_game
    monkeypatch.setattr(bandit, "tool_game", lambda seed: honest(seed, slip=1e-6))
    assert judged("bandit.deterministic_tool_costs_nothing", tmp_path, gap=1e-10, games=20).verdict == FAILS


def test_an_exact_claim_fails_below_its_gap(tmp_path):
    assert judged("gradient.grpo_is_sft_weighted_by_advantage", tmp_path, gap=1e-10).verdict == "holds"
    assert judged("bandit.splitting_keeps_the_gradient", tmp_path, gap=1e-10).verdict == "does not hold here"
    assert judged("bandit.splitting_keeps_the_gradient", tmp_path, gap=10.0).verdict == "holds"


def test_one_pair_of_sides_apart_fails_the_claim():
    one = torch.ones(2, dtype=torch.float64)
    sides = [Identity("same", one, one), Identity("apart", one, 2 * one), Identity("same", one, one)]
    claim = Claim("c", "…", "…", "exact", "bandit.same_problem", {"gap": 0.25})
    found = bandit.equal_sides(claim, sides)
    assert found.verdict == FAILS and found.effect == "relative gap 0.5 (apart)"
    assert bandit.equal_sides(claim, sides[:1]).verdict == HOLDS


ROW = """[[claim]]
id = "a"
statement = "s"
paper = "p"
kind = "exact"
evidence = "bandit.same_problem"
threshold = { gap = 1e-10 }
"""


def test_a_verdict_that_differs_is_an_error(tmp_path, monkeypatch, capsys):
    ledger = tmp_path / "claims.toml"
    for verdict, code in (('verdict = "holds"', 0), ('verdict = "does not hold here"', 2), ("", 2)):
        ledger.write_text(ROW + verdict)
        monkeypatch.setattr(judge_all, "__defaults__", (ledger, *judge_all.__defaults__[1:]))
        assert cli.main(["claims", "--out", str(tmp_path / "found.json")]) == code
        assert (code == 0) or "a (stored: " in capsys.readouterr().err
    assert json.loads((tmp_path / "found.json").read_text())[0]["found"] == "holds"


@pytest.mark.parametrize(
    "broken",
    [
        "no toml [",
        "x = 1",
        ROW + ROW,
        *(ROW.replace("bandit.same_problem", name) for name in ("no such", "bandit.toy", "head_to_head.same_problem")),
        ROW + 'verdict = "perhaps"',
        ROW + 'revision = "why"\nsuperseded_by = "b"',  # which is no claim
        ROW + 'superseded_by = "a"',  # without a reason
        ROW + 'real = { says = "no verdict", record = "one run" }',  # without what it takes
        ROW + 'real = { says = "holds", record = "one run" }',
        ROW + "x = 1",
    ],
)
def test_a_broken_ledger_is_named(broken, tmp_path):
    path = tmp_path / "claims.toml"
    path.write_text(broken)
    with pytest.raises(RlinoError, match="claim|ledger"):
        read_ledger(path)


def test_real_models_are_silent_or_say_what_a_verdict_takes(judgement):
    """No verdict on a method where one run with one seed is all there is."""
    ledger = read_ledger()
    assert {c.real_models for c in ledger if not c.real} == {"silent"}
    for claim in ledger:
        if claim.real and "records of" not in claim.statement and not claim.id.startswith("longer-"):
            assert claim.real["says"] == "no verdict"
            assert claim.real_models == f"no verdict ({claim.real['record']}); a verdict takes {claim.real['takes']}"
    head, *rows = ledger_rows(judgement, {})
    place = head.index("real models")
    assert sorted(row[place] for row in rows) == sorted(c.real_models for c in ledger)


def test_the_table_has_verdict_and_chapter_beside_the_claim(root, judgement):
    """Each chapter judges the claims that name it: by their names, or by the module of their evidence."""
    head, *rows = ledger_rows(judgement, {"06": "book/06.ipynb"})
    assert head[:3] == ("claim", "verdict", "chapter") and {row[1].partition(",")[0] for row in rows} <= set(VERDICTS)
    chapters = {"01", "04", "[06](book/06.ipynb)", "07", "08b", "08c", "09", "09b", "10", "10b", "11", "11b", "13"}
    assert {row[2] for row in rows} == chapters
    for claim in read_ledger():
        (script,) = (root / "book").glob(f"{claim.chapter}_*.py")
        module = claim.evidence.partition(".")[0]
        text = script.read_text(encoding="utf-8")
        assert f"`{claim.id}`" in text or f'"{module}."' in text, claim.id
