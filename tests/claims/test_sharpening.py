"""The evidence of chapter 09 on evaluations whose answer is known."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from rlino_lib.analysis.statistics import bootstrap_p
from rlino_lib.claims import sharpening
from rlino_lib.claims.judge import judge
from rlino_lib.claims.ledger import Claim, Records
from rlino_lib.claims.verdicts import FAILS, HOLDS, UNDECIDED, UNTESTED
from rlino_lib.errors import RlinoError

N, PROBLEMS, SEEDS = 1024, 120, 5


def write(folder, chances, seed, chains=1.0):
    """An evaluation of problems with these chances, of which a share has its chain right too."""
    rng = np.random.default_rng(seed)
    c = rng.binomial(N, chances)
    folder.mkdir(parents=True)
    frame = pd.DataFrame({"id": [f"p{i}" for i in range(len(chances))], "n": N, "c": c, "cc": rng.binomial(c, chains)})
    frame.to_json(folder / "problems.jsonl", orient="records", lines=True)
    (folder / "evaluation.json").write_text('{"asked": {}, "found": {}}')


BASE_CHANCES = np.where(np.arange(PROBLEMS) % 4 == 0, 0.0, np.linspace(0.0005, 0.05, PROBLEMS))


@pytest.fixture
def records(tmp_path, monkeypatch):
    """Writes evaluations of a base and of methods, by name: chances, and the share of right chains."""
    monkeypatch.setattr(sharpening, "BASE", tmp_path / "base")

    def make(claims, base=BASE_CHANCES, **methods):
        for k, name in enumerate(("t1", "t1-again", "t1-unsolved", "cold")):
            write(tmp_path / "base" / name, base, seed=k)
        unsolved = tmp_path / "base" / "t1-unsolved" / "problems.jsonl"
        pd.read_json(unsolved, lines=True).assign(n=4 * N).to_json(unsolved, orient="records", lines=True)
        runs = []
        for name, chances in methods.items():
            for seed in range(SEEDS):
                path = tmp_path / f"{name}-s{seed}"
                write(path / "t1", chances, seed=100 * seed + len(name))
                runs.append(SimpleNamespace(method=name, seed=seed, path=path, name=path.name))
        return Records(tmp_path, claims, runs)

    return make


def claim(function, **threshold):
    about = {"method": "own", "reference": "other"}
    return Claim(function, "", "", "statistical", f"sharpening.{function}", {"seeds": SEEDS, **threshold}, about=about)


def tilt(chances, factor):
    odds = factor * chances / (1 - chances)
    return odds / (1 + odds)


def narrowed(chances):
    """Easy problems are solved always, hard ones no more."""
    return np.where(chances > 0.02, 0.9, 0.0)


CASES = [
    ("curves_cross", dict(first=2, last=2), narrowed(BASE_CHANCES), None, HOLDS),
    ("curves_cross", dict(first=2, last=2), tilt(BASE_CHANCES, 5), None, FAILS),
    ("curves_cross", dict(first=2, last=2), BASE_CHANCES, None, FAILS),
    ("discovers_more_than_chance", dict(share=1), np.maximum(BASE_CHANCES, 0.02), None, HOLDS),
    ("discovers_more_than_chance", dict(share=1), tilt(BASE_CHANCES, 5), None, FAILS),
    ("chances_fall", dict(share=5), narrowed(BASE_CHANCES), None, HOLDS),
    ("chances_fall", dict(share=5), tilt(BASE_CHANCES, 5), None, FAILS),
    ("without_a_verifier", dict(share=0.5), tilt(BASE_CHANCES, 5), tilt(BASE_CHANCES, 6), HOLDS),
    ("without_a_verifier", dict(share=0.5), BASE_CHANCES, tilt(BASE_CHANCES, 6), FAILS),
    ("a_colder_base", dict(share=0.5), BASE_CHANCES, tilt(BASE_CHANCES, 6), FAILS),
    ("keeps_more", dict(points=2), BASE_CHANCES, narrowed(BASE_CHANCES), HOLDS),
    ("keeps_more", dict(points=2), narrowed(BASE_CHANCES), BASE_CHANCES, FAILS),
    ("same_curve", dict(points=3), tilt(BASE_CHANCES, 3), tilt(BASE_CHANCES, 3), HOLDS),
    ("same_curve", dict(points=3), tilt(BASE_CHANCES, 9), BASE_CHANCES, FAILS),
    ("right_chains_part_the_curves", dict(points=1), tilt(BASE_CHANCES, 5), None, FAILS),
]


@pytest.mark.parametrize("function, threshold, own, other, verdict", CASES)
def test_a_known_answer_is_judged_as_it_is(function, threshold, own, other, verdict, records):
    judged = claim(function, **threshold)
    methods = {"own": own} | ({} if other is None else {"other": other})
    result = judge(judged, records([judged], **methods))
    assert result.verdict == verdict, result.effect
    assert f"{SEEDS} seeds" in result.effect and f"{PROBLEMS} problems" in result.effect


def test_chains_that_only_training_makes_right_part_the_curves(records, tmp_path):
    judged = claim("right_chains_part_the_curves", points=1)
    often = np.full(PROBLEMS, 0.03)
    made = records([judged], base=often, own=often)
    base = pd.read_json(tmp_path / "base" / "t1" / "problems.jsonl", lines=True)
    base.assign(cc=0).to_json(tmp_path / "base" / "t1" / "problems.jsonl", orient="records", lines=True)
    assert judge(judged, made).verdict == HOLDS


def test_a_difference_at_the_threshold_is_undecided(records):
    base = np.full(PROBLEMS, 0.1)
    judged = claim("keeps_more", points=0)
    assert judge(judged, records([judged], base=base, own=base, other=base)).verdict == UNDECIDED


def test_holm_counts_every_claim_of_the_family(records):
    judged = claim("curves_cross", first=2, last=2)
    alone = judge(judged, made := records([judged], own=narrowed(BASE_CHANCES)))
    family = [judged, *(claim("keeps_more", points=i) for i in range(7))]
    together = judge(judged, Records(made.root, family, made.own))
    values = [float(result.effect.partition("p = ")[2].partition(",")[0]) for result in (alone, together)]
    assert values[1] == pytest.approx(8 * values[0], rel=0.05)


def test_too_few_seeds_and_other_problems_are_no_test(records):
    judged = claim("curves_cross", first=2, last=2)
    made = records([judged], own=BASE_CHANCES)
    assert judge(judged, Records(made.root, [judged], made.own[1:])).verdict == UNTESTED
    file = made.own[0].path / "t1" / "problems.jsonl"
    pd.read_json(file, lines=True)[::-1].to_json(file, orient="records", lines=True)
    with pytest.raises(RlinoError, match="other problems"):
        judge(judged, made)


def test_the_bootstraps_p_value_is_that_of_the_t_test_for_many_values():
    values = np.random.default_rng(0).normal(0.2, 1, 400)
    assert bootstrap_p(values, 0.0, "greater") < 0.001 < 0.9 < bootstrap_p(values, 0.0, "less")
    assert bootstrap_p(values, values.mean(), "greater") == pytest.approx(0.5, abs=0.03)
    assert bootstrap_p([1.0, 1.0], 0.0, "greater") == pytest.approx(1e-4)
