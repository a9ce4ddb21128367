"""The evidence of chapter 09b on measurements whose answer is known."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from rlino_lib.claims import sharpening
from rlino_lib.claims.judge import judge
from rlino_lib.claims.ledger import Claim, Records
from rlino_lib.claims.verdicts import FAILS, HOLDS, UNDECIDED, UNTESTED
from rlino_lib.errors import RlinoError
from rlino_lib.folders import write_json
from rlino_lib.records.chains import TABLES

PROBLEMS, SEEDS = 100, 5
IDS = np.array([f"p{i}" for i in range(PROBLEMS)])
EXPECTED = {
    "none": 0.8, "operation": 0.8, "false": 0.3, "right": 0.3, "fact": 0.5, "plan": 0.4, "density": 0.0,
    "branching": 0.0, "model": -0.2, "base": -0.2, "pays": 0.2,
}  # fmt: skip


def tables(seed, **changes):
    """A measurement with rates as EXPECTED but for `changes`, 200 responses to a problem."""
    rng = np.random.default_rng(seed)
    rates = EXPECTED | changes
    n = 200

    def forced(edit, follows, correct):
        has = np.where(np.arange(PROBLEMS) % 10, n, 0)  # in every tenth problem no response made an attempt
        counts = {"n": n, "correct": rng.binomial(n, correct, PROBLEMS), "follows_last": rng.binomial(has, follows)}
        return pd.DataFrame({"problem": IDS, "edit": edit, **counts, "has_last": has}).assign(
            follows_yes=0, has_yes=0, follows_closed=0, closed=0)  # fmt: skip

    process = rng.binomial(n, 0.5, PROBLEMS)
    both = rng.binomial(process, 0.3 + rates["pays"])
    graphs = pd.DataFrame(
        [(p, 2, c, n, n * (0.2 + c * rates["density"]), n * (0.1 + c * rates["branching"])) for p in IDS[:60]
         for c in (False, True)],
        columns=["problem", "attempts", "correct", "nodes", "density", "branching"],
    )  # fmt: skip
    alone = pd.DataFrame({"problem": IDS[60:], "attempts": 2, "correct": True, "nodes": n, "density": n * 9.0})
    graphs = pd.concat([graphs, alone.assign(branching=n * 9.0)])  # nothing to compare with
    hints = [pd.DataFrame({"problem": IDS, "hint": hint, "n": n, "c": rng.binomial(n, rates[hint], PROBLEMS)})
             for hint in ("plan", "fact")]  # fmt: skip
    noise = rng.normal(0, 0.05, PROBLEMS)
    sides = [pd.DataFrame({"problem": IDS, "side": side, "temperature": 1, "n": n, "tokens": 50 * n,
                           "logprob": 50 * n * (rates[side] + noise)})
             for side in ("model", "base") if rates[side] is not None]  # fmt: skip
    edits = [forced("none", rates["none"], 0.3), forced("operation", rates["operation"], 0.1)]
    columns = {"n": n, "process": process, "correct": both + rng.binomial(n - process, 0.3), "both": both, "tokens": 9}
    return {
        "process": pd.DataFrame({"problem": IDS, **columns}),
        "graphs": graphs.assign(n_nodes=n, n_density=n, n_branching=n),
        "forced": pd.concat([*edits, forced("result", 0.5, rates["false"])]),
        "hints": pd.concat(hints),
        "likelihood": pd.concat(sides),
    }


def write(folder, measured):
    folder.mkdir(parents=True)
    for name in TABLES:
        measured[name].to_csv(folder / f"{name}.csv", index=False)
    write_json(folder / "measurement.json", {"asked": {}, "found": {}})


@pytest.fixture
def records(tmp_path, monkeypatch):
    """Writes the base's measurement and those of five runs, with other rates where they are given."""
    monkeypatch.setattr(sharpening, "BASE", tmp_path / "base")

    def make(claims, **changes):
        write(tmp_path / "base" / "chains", tables(99, base=None))
        runs = []
        for seed in range(SEEDS):
            path = tmp_path / f"own-s{seed}"
            write(path / "chains", tables(seed, **changes))
            runs.append(SimpleNamespace(method="own", seed=seed, path=path, name=path.name))
        return Records(tmp_path, claims, runs)

    return make


def claim(function, **threshold):
    return Claim(function, "", "", "statistical", f"chains.{function}", {"seeds": SEEDS, **threshold}, None,
                 {"method": "own"})  # fmt: skip


FOLLOWS = ("answers_follow_the_last_attempt", dict(share=0.9, points=2))
CASES = [
    (*FOLLOWS, {}, HOLDS),
    (*FOLLOWS, dict(operation=0.6), FAILS),  # not followed
    (*FOLLOWS, dict(false=0.2), FAILS),  # the result is read
    (*FOLLOWS, dict(false=0.4), FAILS),
    (*FOLLOWS, dict(operation=0.72), UNDECIDED),
    ("followed_as_before", dict(points=5), {}, HOLDS),
    ("followed_as_before", dict(points=5), dict(none=0.7), FAILS),
    ("followed_as_before", dict(points=5), dict(none=0.9), FAILS),
    ("a_right_process_pays", dict(covariance=0), {}, HOLDS),
    ("a_right_process_pays", dict(covariance=0), dict(pays=-0.2), FAILS),
    ("a_right_process_pays", dict(covariance=0), dict(pays=0), UNDECIDED),
    ("facts_over_plans", dict(points=0), dict(fact=0.6), HOLDS),
    ("facts_over_plans", dict(points=0), dict(plan=0.5), FAILS),
    ("graphs_are_equal_at_equal_attempts", dict(margin=0.02), dict(density=0.01), HOLDS),
    ("graphs_are_equal_at_equal_attempts", dict(margin=0.02), dict(density=0.03), FAILS),
    ("graphs_are_equal_at_equal_attempts", dict(margin=0.02), dict(branching=-0.03), FAILS),
    ("as_likely_as_a_colder_base", dict(nats=0.02), dict(model=-0.21), HOLDS),
    ("as_likely_as_a_colder_base", dict(nats=0.02), dict(model=-0.23), FAILS),
    ("as_likely_as_a_colder_base", dict(nats=0.02), dict(model=-0.17), FAILS),
]


def scattered(values, seed):
    """Seeds differ, as a t-test asks for."""
    return values + np.random.default_rng(1000 + seed).normal(0, 1e-3)


@pytest.mark.parametrize("function, threshold, changes, verdict", CASES)
def test_a_known_answer_is_judged_as_it_is(function, threshold, changes, verdict, records, tmp_path):
    judged = claim(function, **threshold)
    made = records([judged], **changes)
    for run in made.own:
        for name, columns in (("graphs", ["density", "branching"]), ("likelihood", ["logprob"])):
            file = run.path / "chains" / f"{name}.csv"
            frame = pd.read_csv(file)
            side = frame["correct"] if name == "graphs" else frame["side"] == "model"
            size = 200 if name == "graphs" else 10_000
            frame.loc[side, columns] = scattered(frame.loc[side, columns] / size, run.seed) * size
            frame.to_csv(file, index=False)
    result = judge(judged, made)
    assert result.verdict == verdict, result.effect
    assert result.effect.count("seeds") == (2 if function.startswith(("answers", "graphs")) else 1), result.effect
    problems = {"graphs": 60, "answers": 90, "followed": 90}.get(function.partition("_")[0], PROBLEMS)
    assert f"{SEEDS} seeds" in result.effect and f"{problems} problems" in result.effect, result.effect


def test_holm_counts_the_claims_of_this_chapter_alone(records):
    judged = claim("facts_over_plans", points=9)
    made = records([judged], fact=0.6)
    other = Claim("x", "", "", "statistical", "sharpening.curves_cross", {"seeds": 5, "first": 2, "last": 2})
    seven = [judged, *(claim("followed_as_before", points=points) for points in range(1, 7))]
    family = [Claim(**(vars(c) | {"id": str(k)})) for k, c in enumerate(seven)]
    with_another = [judge(family[0], Records(made.root, [*family, *more], made.own)) for more in ([], [other])]
    assert with_another[0].effect == with_another[1].effect
    assert with_another[0].effect != judge(judged, made).effect


def test_what_is_not_measured_is_no_test(records, tmp_path):
    judged = claim("facts_over_plans", points=0)
    made = records([judged], base=None)
    colder = claim("as_likely_as_a_colder_base", nats=0.02)
    assert "no temperature" in judge(colder, Records(made.root, [colder], made.own)).effect
    assert judge(judged, Records(made.root, [judged], made.own[1:])).verdict == UNTESTED
    write_json(made.own[0].path / "chains" / "measurement.json", {"asked": {}})
    result = judge(judged, made)
    assert result.verdict == UNTESTED and "planned 5 seeds" in result.effect
    write_json(made.own[0].path / "chains" / "measurement.json", {"asked": {}, "found": {}})
    (tmp_path / "base" / "chains" / "measurement.json").unlink()
    assert judge(judged, made).effect == "the thoughts of the base are not measured"


def test_a_seed_without_a_pair_of_responses_to_compare_is_no_test(records):
    judged = claim("graphs_are_equal_at_equal_attempts", margin=0.02)
    made = records([judged])
    graphs = made.own[0].path / "chains" / "graphs.csv"
    pd.read_csv(graphs).query("correct").to_csv(graphs, index=False)
    result = judge(judged, made)
    assert result.verdict == UNTESTED and "no problem that says anything" in result.effect


def test_other_problems_than_the_bases_are_an_error(records):
    judged = claim("facts_over_plans", points=0)
    made = records([judged])
    file = made.own[0].path / "chains" / "process.csv"
    pd.read_csv(file)[::-1].to_csv(file, index=False)
    with pytest.raises(RlinoError, match="other problems"):
        judge(judged, made)


# --- thinking or not -------------------------------------------------------------------------------------------------


class Runs(Records):
    """Runs of both groups: without thinking at a chance of `direct`, 11 tokens; with it right in half, 70 tokens."""

    def runs(self, group):
        rng = np.random.default_rng(0)
        runs = []
        for seed in range(SEEDS):
            path = self.root / f"{group}-s{seed}"
            metrics = pd.DataFrame({"eval/accuracy": [0.1, 0.5 + 0.01 * seed, np.nan], "eval/mean_length": 70.0})
            config = {"task": "countdown", "task_settings": {"thinking": False} if group == "direct" else {}}
            config |= {"eval_problems": self.own, "eval_split": "test"}
            run = SimpleNamespace(method="own", seed=seed, path=path, name=path.name, config=config, metrics=metrics)
            runs += [run, SimpleNamespace(**vars(run) | {"config": config | {"task": "word_problems"}})]
            if group == "direct" and self.ledger and not path.exists():
                (path / "t1").mkdir(parents=True)
                c = rng.binomial(64, self.ledger[0], PROBLEMS)
                frame = pd.DataFrame({"id": IDS, "n": 64, "c": c, "tokens": 64 * 11})
                frame.to_json(path / "t1" / "problems.jsonl", orient="records", lines=True)
                (path / "t1" / "evaluation.json").write_text('{"asked": {}, "found": {}}')
        return runs


@pytest.mark.parametrize("chance, verdict", [(0.05, HOLDS), (0.12, FAILS), (0.2, FAILS)])
def test_thinking_is_held_against_as_many_samples_as_its_tokens_buy(chance, verdict, tmp_path):
    """Six of 11 tokens: at a chance of .05 they solve .26, of .12 .54, and of .2 .74."""
    judged = claim("thinking_pays", points=5)
    family = Runs(tmp_path, [chance], PROBLEMS)
    family.runs("direct")
    result = judge(judged, Runs(tmp_path, [], PROBLEMS))
    assert result.verdict == verdict, result.effect
    gap = 100 * (0.52 - (1 - (1 - chance) ** 6))
    assert float(result.effect.split()[4]) == pytest.approx(gap, abs=3) and "problems" not in result.effect


def test_thinking_is_no_test_without_runs_and_an_error_on_other_problems(tmp_path):
    judged = claim("thinking_pays", points=5)
    assert judge(judged, Runs(tmp_path, [], PROBLEMS)).verdict == UNTESTED
    Runs(tmp_path, [0.1], PROBLEMS).runs("direct")
    with pytest.raises(RlinoError, match="other problems"):
        judge(judged, Runs(tmp_path, [], PROBLEMS + 1))
