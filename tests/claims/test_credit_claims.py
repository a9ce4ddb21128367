"""Claims on credit by tokens, on made-up runs: verdicts by test, equal tokens, and the family's correction."""

import json
import re

import pandas as pd
import pytest

from rlino_lib.analysis.credit import (
    accuracy_at,
    best_of_next,
    budget_curve,
    sampled_tokens,
    share_within,
    value_errors,
)
from rlino_lib.claims.judge import judge, judge_all
from rlino_lib.claims.ledger import Claim, Records
from rlino_lib.errors import RlinoError
from rlino_lib.records.runs import load_run

SEEDS = 6


# As the book's grids have them: RLOO and VinePPO differ in credit alone.
ALIKE = {
    "rloo": {"ratio": "token", "kl_in_reward": 0, "normaliser": "token_mean"},
    "vineppo": {"beta": 0, "whiten": False},
}


def write_run(root, task, method, seed, end, value_tokens=0, steps=4, **settings):
    """A run whose accuracy rises in a line from 40 points to `end`, with 64 responses of 10 tokens a step."""
    folder = root / f"credit-{task}" / f"{method}-s{seed}"
    folder.mkdir(parents=True)
    config = {"method": method, "task": task, "seed": seed, "epochs": 1, "minibatches": 1, "steps": steps}
    config |= {"objective_settings": ALIKE.get(method, {})} | settings
    (folder / "config.json").write_text(json.dumps(config))
    test = {"complete": True, "test": {"pass@1": {"value": end / 100}}}
    (folder / "summary.json").write_text(json.dumps(test))
    rows = [
        f"{k},{64 * k},10,{value_tokens if k else ''},{0.4 + (end / 100 - 0.4) * k / steps}" for k in range(steps + 1)
    ]
    head = "step,samples,completions/mean_length,value_tokens,eval/accuracy"
    (folder / "metrics.csv").write_text("\n".join([head, *rows, ""]))
    (folder / "timing.csv").write_text("step,seconds\n" + "".join(f"{k},{k}\n" for k in range(steps + 1)))
    return folder


def records(root, gap, value_tokens=0, task="word_problems"):
    for seed in range(SEEDS):
        write_run(root, task, "rloo", seed, 60 + 0.3 * seed)
        write_run(root, task, "vineppo", seed, 60 + 0.3 * seed + gap + 0.2 * (seed % 3), value_tokens)
    return Records(root)


def claim(name, task="word_problems", method="vineppo", reference="rloo", **threshold):
    about = {"task": task, "method": method, "reference": reference}
    return Claim(
        "c", "…", "…", "statistical", f"credit.{name}", {"alpha": 0.05, "seeds": SEEDS} | threshold, about=about
    )


@pytest.mark.parametrize(("gap", "verdict"), [(2.0, "holds"), (-0.2, "undecided"), (-3.0, "does not hold here")])
def test_above_is_a_test_over_seeds(gap, verdict, tmp_path):
    result = judge(claim("ends_above"), records(tmp_path, gap))
    assert result.verdict == verdict and len(result.runs) == 2 * SEEDS and "after Holm" in result.effect


@pytest.mark.parametrize(("gap", "verdict"), [(0.0, "holds"), (2.9, "undecided"), (6.0, "does not hold here")])
def test_equal_is_a_test_against_a_margin(gap, verdict, tmp_path):
    assert judge(claim("ends_equal", points=3.0), records(tmp_path, gap)).verdict == verdict


def test_equal_tokens_are_where_the_dearer_run_had_sampled_as_many(tmp_path):
    """RLOO samples 640 tokens a step, VinePPO with 640 for values twice as many: its half counts against RLOO's end."""
    run = load_run(write_run(tmp_path, "countdown", "vineppo", 0, 60, value_tokens=640))
    assert sampled_tokens(run).tolist() == [0, 1280, 2560, 3840, 5120]
    assert accuracy_at(run, "tokens", 2560) == pytest.approx(50)
    assert accuracy_at(run, "tokens", 1920) == pytest.approx(47.5)
    with pytest.raises(RlinoError, match="5,120 tokens, not 6,000"):
        accuracy_at(run, "tokens", 6000)
    behind = claim("above_at_equal_tokens", method="rloo", reference="vineppo")
    assert judge(behind, records(tmp_path / "a", gap=1.0, value_tokens=640)).verdict == "holds"
    assert judge(behind, records(tmp_path / "b", gap=30.0, value_tokens=640)).verdict == "does not hold here"


def test_too_few_seeds_are_no_test_and_count_in_the_family(tmp_path):
    both = records(tmp_path, gap=0.0)
    alone = judge(claim("ends_above"), both)
    first = claim("ends_above")
    others = [Claim(f"o{k}", "…", "…", "statistical", "credit.ends_equal", {"points": 3, "alpha": 0.05, "seeds": 99},
                    about=first.about) for k in range(40)]  # fmt: skip
    family = Records(tmp_path, [first, *others])
    assert judge(others[0], family).verdict == "not testable here"
    assert alone.verdict == "holds" and judge(first, family).verdict == "undecided"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"objective_settings": {}}, "differ in more than credit: .*beta 0, not 0.0001"),
        ({"objective_settings": ALIKE["vineppo"] | {"value_samples": 3}}, 'not {.*"value_samples": 3}'),
        ({"lr": 1e-3}, "lr 0.0001, not 0.001"),
        ({"reward": "random"}, "reward verifier, not random"),
        ({"group_size": 4}, "group_size 8, not 4"),
        ({"seed": 0}, "are both vineppo of seed 0"),
    ],
)
def test_runs_that_are_not_one_experiment_are_not_compared(settings, words, tmp_path):
    both = records(tmp_path, gap=2.0)
    folder = write_run(tmp_path, "word_problems", "vineppo", SEEDS, 62)
    config = json.loads((folder / "config.json").read_text()) | settings
    (folder / "config.json").write_text(json.dumps(config))
    result = judge(claim("ends_above"), both)
    assert result.verdict == "not testable here" and re.search(words, result.effect)


def write_values(folder, critic_error):
    rows = []
    for problem in range(20):
        for response in range(2):
            for step in range(2):
                truth = 0.3 + 0.2 * response * step
                rows.append(
                    (f"p{problem}", f"{response * step}", step, 3 * step, truth, truth + 0.05, truth + critic_error)
                )
    (folder / "values").mkdir()
    frame = pd.DataFrame(rows, columns=["problem", "prefix", "step", "tokens", "truth", "k9", "critic"])
    frame.to_csv(folder / "values" / "values.csv", index=False)
    (folder / "values" / "values.json").write_text(json.dumps({"asked": {}, "found": {"states": len(rows)}}))
    return frame


def test_a_critic_is_judged_by_states_within_a_tenth(tmp_path):
    for error, verdict in ((0.3, "holds"), (0.05, "undecided")):
        for seed in range(SEEDS):
            folder = write_run(tmp_path / verdict, "word_problems", "vc_ppo", seed, 60)
            frame = write_values(folder, error if seed else 0.15)
        question = claim("critic_is_poorer", method="vc_ppo", reference="k9")
        assert judge(question, Records(tmp_path / verdict)).verdict == verdict
    assert share_within(frame, "k9") == 100 and best_of_next(frame, "k9") == 100
    assert best_of_next(frame.assign(k9=0.0), "k9") == 50  # a tie is half right
    errors = value_errors(frame).set_index(["estimate", "step"])
    assert errors.loc[("critic", 1), "error"] == pytest.approx(0.05) and errors.loc[("k9", 0), "states"] == 40
    assert judge(question, Records(tmp_path / "nothing")).verdict == "not testable here"


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(RlinoError, match="no claim whose evidence's name begins with 'nonsense.'"):
        judge_all(evidence="nonsense.")
    folder = write_run(tmp_path, "countdown", "rloo", 0, 50)
    metrics = folder / "metrics.csv"
    metrics.write_text("\n".join(line.rpartition(",")[0] + "," for line in metrics.read_text().splitlines()[1:]) + "\n")
    metrics.write_text("step,samples,completions/mean_length,value_tokens,eval/accuracy\n" + metrics.read_text())
    with pytest.raises(RlinoError, match="has no evaluations"):
        budget_curve(load_run(folder))
    table = pd.DataFrame({"problem": ["a"], "prefix": ["x"], "step": [1], "truth": [0.5], "k1": [1.0]})
    for measure in (lambda: share_within(table, "k3"), lambda: best_of_next(table, "critic")):
        with pytest.raises(RlinoError, match="needs the columns"):
            measure()
    with pytest.raises(RlinoError, match="needs the columns truth"):
        value_errors(table.drop(columns="truth"))
