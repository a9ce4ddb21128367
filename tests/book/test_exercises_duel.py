"""Chapter 07's checkers: right answers pass, each typical wrong answer is named, and a lie can be found."""

from __future__ import annotations

import csv
import json
import math
import re
import statistics

import numpy as np
import pytest
import scipy.stats

from checkers import head_to_head as exercises_duel
from checkers.head_to_head import LIES, find_liar, suspects
from rlino_lib.analysis.statistics import compare, difference_power, tost, tost_power
from rlino_lib.errors import RlinoError
from rlino_lib.records.runs import Run

CHECKERS = {name: f for name, f in vars(exercises_duel).items() if name.startswith("check_")}


def verdict_of(capsys, checker, function, *more) -> tuple[bool, str]:
    """What a checker returned, and the one line that it printed."""
    ok = checker(function, *more)
    out, err = capsys.readouterr()
    assert out.endswith("\n") and out.count("\n") == 1 and err == "" and type(ok) is bool
    assert out.startswith("✓ " if ok else "✗ ") and len(out) < 420
    return ok, out.strip()


# --- right answers, by other means than the checkers' ----------------------------------------------------------------


def margin_by_bisection(values, alpha):
    low, high = 1e-9, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if tost(values, middle) < alpha else (middle, high)
    return high


def plan_by_search(sd, margin):
    n = 2
    while tost_power(n, sd, margin) < 0.8:
        n += 1
    return n


def holm_by_hand(p):
    out, highest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
        out[i] = highest
    return out


RIGHT = {
    "check_smallest_margin": margin_by_bisection,
    "check_plan": plan_by_search,
    "check_holm": holm_by_hand,
}


def test_every_checker_is_tested():
    assert {*RIGHT, "check_liar"} == set(CHECKERS) == {name for name, *_ in WRONG} | {"check_liar"}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_pass(capsys, name):
    assert verdict_of(capsys, CHECKERS[name], RIGHT[name])[0]


# --- wrong answers, each with a word that must be in the verdict -----------------------------------------------------


def interval(values, level):
    comparison = compare(values, 3.0, alpha=1 - level)
    return comparison.low, comparison.high


def ranked(p, change):
    out = [0.0] * len(p)
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        out[i] = change(p[i], rank, len(p))
    return out


def from_the_largest(p, factor):
    out, lowest = [0.0] * len(p), 1.0
    for rank, i in sorted(enumerate(sorted(range(len(p)), key=lambda i: p[i])), reverse=True):
        lowest = min(lowest, p[i] * factor(rank, len(p)))
        out[i] = lowest
    return out


def least(power, wanted=0.8):
    return next(n for n in range(2, 5000) if power(n) >= wanted)


def size(pair):
    return max(map(abs, pair))


WRONG = [
    ("check_smallest_margin", lambda v, a: size(interval(v, 1 - a)), "1 − 2α"),
    ("check_smallest_margin", lambda v, a: interval(v, 1 - 2 * a)[1], "upper end"),
    ("check_smallest_margin", lambda v, a: min(map(abs, interval(v, 1 - 2 * a))), "nearer"),
    (
        "check_smallest_margin",
        lambda v, a: abs(np.mean(v)) + scipy.stats.t.ppf(1 - a, len(v) - 1) * np.std(v) / len(v) ** 0.5,
        "n − 1",
    ),
    (
        "check_smallest_margin",
        lambda v, a: abs(np.mean(v)) + scipy.stats.t.ppf(1 - a, len(v) - 1) * statistics.stdev(v),
        "√n is missing",
    ),
    (
        "check_smallest_margin",
        lambda v, a: abs(np.mean(v)) + scipy.stats.norm.ppf(1 - a) * statistics.stdev(v) / len(v) ** 0.5,
        "Student",
    ),
    ("check_smallest_margin", lambda v, a: abs(statistics.mean(v)), "the mean alone"),
    ("check_smallest_margin", lambda v, a: np.ptp(interval(v, 1 - 2 * a)) / 2, "where it lies"),
    ("check_plan", lambda sd, m: plan_by_search(sd, m) + 1, "one too many"),
    ("check_plan", lambda sd, m: plan_by_search(sd, m) - 1, "one too few"),
    ("check_plan", lambda sd, m: least(lambda n: tost_power(n, sd, m), 0.5), "even chance"),
    ("check_plan", lambda sd, m: least(lambda n: tost_power(n, sd, m), 0.9), "more than was asked for"),
    ("check_plan", lambda sd, m: least(lambda n: tost_power(n, sd, m, alpha=0.025)), "all of α"),
    ("check_plan", lambda sd, m: math.ceil((sd / m * (1.6448536 + 1.2815516)) ** 2), "normal formula"),
    ("check_plan", lambda sd, m: least(lambda n: difference_power(n, sd, m)), "find"),
    ("check_plan", lambda sd, m: least(lambda n: tost_power(n, sd, m, m / 2)), "was to be 0"),
    ("check_plan", lambda sd, m: least(lambda n: tost_power(n, sd * sd, m)), "variance"),
    ("check_holm", lambda p: [min(1, len(p) * x) for x in p], "Bonferroni"),
    ("check_holm", lambda p: ranked(p, lambda x, r, n: min(1, x * (n - r))), "running maximum is missing"),
    ("check_holm", lambda p: ranked(p, lambda x, r, n: x * (n - r)), "and the cap"),
    (
        "check_holm",
        lambda p: ranked(p, lambda x, r, n: max(sorted(p)[k] * (n - k) for k in range(r + 1))),
        "exceed 1",
    ),
    ("check_holm", lambda p: sorted(holm_by_hand(p)), "order of size"),
    ("check_holm", lambda p: from_the_largest(p, lambda r, n: n - r), "Hochberg's"),
    ("check_holm", lambda p: from_the_largest(p, lambda r, n: n / (r + 1)), "Benjamini"),
    (
        "check_holm",
        lambda p: ranked(p, lambda x, r, n: min(1, max(sorted(p)[k] * (k + 1) for k in range(r + 1)))),
        "wrong way round",
    ),
    ("check_holm", lambda p: p, "not corrected"),
]


@pytest.mark.parametrize("name, function, word", WRONG)
def test_wrong_answers_are_named(capsys, name, function, word):
    ok, line = verdict_of(capsys, CHECKERS[name], function)
    assert not ok and "likely: " in line and re.search(word, line.split("likely: ")[1])


NO_ANSWERS = [lambda *a: None, lambda *a: 1 / 0, lambda: 1, "text"]


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("function", NO_ANSWERS)
def test_what_is_no_answer_is_said_and_not_raised(capsys, name, function):
    assert not verdict_of(capsys, CHECKERS[name], function)[0]


# --- the run that lied -----------------------------------------------------------------------------------------------

SIZE = 8  # responses a step


def record(root, method, seed, steps=30):
    """A run whose record is in order."""
    folder, rng = root / f"{method}-s{seed}", np.random.default_rng([seed, len(method)])
    folder.mkdir(parents=True)
    right = rng.integers(1, SIZE - 1, steps)
    with (folder / "metrics.csv").open("w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["step", "accuracy", "reward", "n_correct", "n_incorrect"])
        writer.writerow([0, "", "", "", ""])
        writer.writerows([s + 1, k / SIZE, k / SIZE, k, SIZE - k] for s, k in enumerate(right))
    share, lengths = int(rng.integers(200, 800)) / 1024, (40.0 + seed, 60.0 - seed)
    test = {"pass@1": {"value": share}, "length/correct": lengths[0], "length/incorrect": lengths[1]}
    test["mean_length"] = share * lengths[0] + (1 - share) * lengths[1]
    (folder / "summary.json").write_text(json.dumps({"complete": True, "steps": steps, "test": test}))
    (folder / "config.json").write_text(json.dumps({"method": method, "seed": seed}))
    return Run(folder)


@pytest.fixture
def line_up(tmp_path):
    return [record(tmp_path / "g", method, seed) for method in ("grpo", "f_isft_posneg") for seed in (0, 1, 2)]


def test_honest_runs_are_left_alone(line_up):
    assert find_liar(line_up) is None


@pytest.mark.parametrize("lie", LIES)
def test_each_lie_is_found_by_its_own_check_alone(line_up, lie):
    before = [(dict(r.config), dict(r.summary["test"]), r.metrics.copy()) for r in line_up]
    for place in (1, 5):
        line_up_with_a_liar = suspects(line_up, lie, place)
        assert find_liar(line_up_with_a_liar) == find_liar(line_up_with_a_liar, [lie]) == line_up[place].name
        assert find_liar(line_up_with_a_liar, [other for other in LIES if other != lie]) is None
    for run, (config, test, metrics) in zip(line_up, before, strict=True):
        assert run.config == config and run.summary["test"] == test and run.metrics.equals(metrics)
    assert line_up[place].name not in repr(line_up_with_a_liar)


def by_hand(runs):
    """The solution that the chapter gives."""
    for k, run in enumerate(runs):
        steps, test = run.metrics.dropna(subset="accuracy"), run.summary["test"]
        share = test["pass@1"]["value"]
        mean = share * test["length/correct"] + (1 - share) * test["length/incorrect"]
        counted = steps["n_correct"] / (steps["n_correct"] + steps["n_incorrect"])
        if (
            abs(mean - test["mean_length"]) > 1e-6 * mean
            or (steps["accuracy"] - counted).abs().max() > 1e-6
            or len(steps) != run.summary["steps"]
            or any(run.metrics.equals(other.metrics) for other in runs[:k])
        ):
            return run.name
    return None


def test_the_liar_is_named(capsys, line_up):
    assert verdict_of(capsys, CHECKERS["check_liar"], by_hand, line_up)[0]


@pytest.mark.parametrize(
    "function, word",
    [
        (lambda runs: max(runs, key=lambda r: r.summary["test"]["pass@1"]["value"]).name, "best run"),
        (lambda runs: min(runs, key=lambda r: r.summary["test"]["pass@1"]["value"]).name, "worst run"),
        (lambda runs: runs[0].name, "always the first"),
        (lambda runs: runs[-1].name, "always the last"),
        (lambda runs: find_liar(runs, ["step", "dropped", "copy"]), "summary"),
        (lambda runs: find_liar(runs, ["test", "dropped", "copy"]), "counts"),
        (lambda runs: find_liar(runs, ["test", "step", "copy"]), "count the steps"),
        (lambda runs: find_liar(runs, ["test", "step", "dropped"]), "one run at a time"),
    ],
)
def test_wrong_suspicions_are_named(capsys, line_up, function, word):
    ok, line = verdict_of(capsys, CHECKERS["check_liar"], function, line_up)
    assert not ok and re.search(word, line.split("likely: ")[1])


@pytest.mark.parametrize("function", NO_ANSWERS)
def test_no_suspicion_is_said_and_not_raised(capsys, line_up, function):
    assert not verdict_of(capsys, CHECKERS["check_liar"], function, line_up)[0]


def test_a_reader_s_function_cannot_change_the_records(capsys, line_up):
    def vandal(runs):
        for run in runs:
            run.metrics["n_correct"] = 0
            run.summary.clear()

    assert not verdict_of(capsys, CHECKERS["check_liar"], vandal, line_up)[0]
    assert find_liar(line_up) is None and verdict_of(capsys, CHECKERS["check_liar"], by_hand, line_up)[0]


def test_what_cannot_be_told_is_refused(line_up):
    for runs, lie, place in ((line_up, "other", 1), (line_up, "test", 6), ([line_up[0], line_up[3]], "copy", 1)):
        with pytest.raises(RlinoError):
            suspects(runs, lie, place)
