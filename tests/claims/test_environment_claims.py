"""Claims on an environment that writes, and on restarts, on made-up runs: verdicts by test, and what they pair."""

import json

import pytest

from rlino_lib.claims.judge import judge
from rlino_lib.claims.ledger import Claim, Records
from rlino_lib.exact.hidden_target import optima
from rlino_lib.tasks import HiddenTarget

SEEDS = 6
FIXED = 100 * optima(HiddenTarget().problems("test"), [0.0], ["look"])["response"].item()


def write_run(root, group, name, seed, accuracy, consulted=0.9, rise=0.1, repairs=None):
    """A run that ends at `accuracy` points, with shares of responses that look and log-probs of what was written."""
    folder = root / group / f"{name}-s{seed}"
    folder.mkdir(parents=True)
    config = {"method": "grpo_no_kl", "task": "hidden_target", "seed": seed, "epochs": 1, "minibatches": 1, "steps": 2}
    (folder / "config.json").write_text(json.dumps(config))
    summary = {"complete": True, "test": {"pass@1": {"value": accuracy / 100}}}
    (folder / "summary.json").write_text(json.dumps(summary))
    rows = [f"{k},{64 * k},{accuracy / 100},{consulted * k / 2},{-1 + rise * k / 2}" for k in range(3)]
    head = "step,samples,eval/accuracy,eval/consulted,eval/environment_logprob"
    (folder / "metrics.csv").write_text("\n".join([head, *rows, ""]))
    (folder / "timing.csv").write_text("step,seconds\n0,0\n1,1\n2,2\n")
    for attempts, rate in enumerate(repairs or (), 1):
        result = folder / f"repair-{attempts}"
        result.mkdir()
        (result / "evaluation.json").write_text(
            json.dumps({"asked": {}, "found": {"pass@1": {"value": rate / 100}}, "complete": True})
        )
    return folder


def claim(name, about, **threshold):
    return Claim(
        "c", "…", "…", "statistical", f"environment.{name}", {"alpha": 0.05, "seeds": SEEDS} | threshold, about=about
    )


ONE = {"group": "environment", "name": "one"}
PAIR = {"group": "environment", "name": "one", "reference": "other"}


def pair(root, one, other, group="environment"):
    """Two kinds of runs, whose settings are functions of the seed's part of the spread."""
    for seed in range(SEEDS):
        for name, settings in (("one", one), ("other", other)):
            write_run(root, group, name, seed, **settings(0.2 * (seed % 3)))
    return Records(root)


@pytest.mark.parametrize(("gap", "verdict"), [(4.0, "holds"), (-0.1, "undecided"), (-4.0, "does not hold here")])
def test_accuracies_under_two_masks_are_paired_by_seed(gap, verdict, tmp_path):
    records = pair(tmp_path, lambda x: {"accuracy": 50 + gap + x}, lambda x: {"accuracy": 50 + x / 2})
    result = judge(claim("mask_by_writer_ends_above", PAIR), records)
    assert result.verdict == verdict and len(result.runs) == 2 * SEEDS


@pytest.mark.parametrize(("rise", "verdict"), [(0.5, "holds"), (-0.5, "does not hold here")])
def test_how_far_the_environments_tokens_rose(rise, verdict, tmp_path):
    records = pair(tmp_path, lambda x: {"accuracy": 50, "rise": rise + x}, lambda x: {"accuracy": 50, "rise": 0.0})
    result = judge(claim("unmasked_learns_the_environment", PAIR), records)
    assert result.verdict == verdict and "nats per token" in result.effect


@pytest.mark.parametrize(("gap", "verdict"), [(30.0, "holds"), (-5.0, "does not hold here")])
def test_a_trained_policy_against_the_best_fixed_response(gap, verdict, tmp_path):
    for seed in range(SEEDS):
        write_run(tmp_path, "environment", "one", seed, FIXED + gap + seed % 3)
    assert judge(claim("trained_beats_the_fixed", ONE), Records(tmp_path)).verdict == verdict


@pytest.mark.parametrize(("share", "verdict"), [(0.96, "holds"), (0.4, "does not hold here")])
def test_the_share_that_looks_at_the_end(share, verdict, tmp_path):
    for seed in range(SEEDS):
        write_run(tmp_path, "environment", "one", seed, 50, consulted=share + 0.01 * (seed % 3))
    assert judge(claim("learns_to_look", ONE, points=90.0), Records(tmp_path)).verdict == verdict


@pytest.mark.parametrize(("gain", "verdict"), [(6.0, "holds"), (-6.0, "does not hold here")])
def test_repairs_are_rises_above_those_from_scratch(gain, verdict, tmp_path):
    """Accuracy from scratch differs as much as one likes: what counts is the repair rate less that."""
    records = pair(
        tmp_path,
        lambda x: {"accuracy": 50 + x, "repairs": (40 + gain + x, 30 + gain)},
        lambda x: {"accuracy": 30, "repairs": (20, 10)},
        group="restarts",
    )
    about = {"group": "restarts", "name": "one", "reference": "other"}
    result = judge(claim("restarts_repair", about), records)
    assert result.verdict == verdict and f"{gain:+.1f}" in result.effect.replace("−", "-")


def test_without_repairs_or_seeds_nothing_is_judged(tmp_path):
    about = {"group": "restarts", "name": "one", "reference": "other"}
    records = pair(tmp_path, lambda x: {"accuracy": 50}, lambda x: {"accuracy": 50}, group="restarts")
    result = judge(claim("restarts_repair", about), records)
    assert result.verdict == "not testable here" and "repair-1" in result.effect
    few = judge(claim("restarts_repair", about, seeds=SEEDS + 1), records)
    assert few.verdict == "not testable here"


@pytest.mark.parametrize(("points", "verdict"), [(50.0, "holds"), (90.0, "does not hold here")])
def test_optima_are_judged_exactly(points, verdict, tmp_path):
    row = Claim("c", "…", "…", "exact", "environment.closed_loop_is_better", {"lies": 0.2, "points": points})
    assert judge(row, Records(tmp_path)).verdict == verdict
