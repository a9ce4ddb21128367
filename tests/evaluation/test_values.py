"""Values of prefixes in bulk: many of many problems in one call, equal ones once."""

import re
from dataclasses import replace

import pandas as pd
import pytest
from scipy.stats import binomtest

from rlino_lib.errors import RlinoError
from rlino_lib.evaluation import graded
from rlino_lib.evaluation.graded import sample_graded
from rlino_lib.evaluation.values import continuation_values, prefix_values, rollout_values, step_ends
from rlino_lib.paths import base_of
from rlino_lib.policy.models import load_policy
from rlino_lib.policy.sampling import sample
from rlino_lib.tasks import Countdown, HiddenTarget
from rlino_lib.tasks.countdown.environment import Calculator

TASK = Countdown()
PROBLEMS = TASK.problems("test", 10)[6:9]


@pytest.fixture(scope="module")
def policy():
    return load_policy()


@pytest.fixture(scope="module")
def rollouts(policy):
    return sample(policy, [TASK.prompt(p) for p in PROBLEMS], 4, seed=0).grade(TASK, PROBLEMS)


def counted(monkeypatch):
    """The calls of `sample` that values make, and their rows."""
    calls = []

    def spy(policy, prompts, *args, **settings):
        calls.append(list(zip(prompts, settings["prefixes"], strict=True)))
        return sample(policy, prompts, *args, **settings)

    monkeypatch.setattr(graded, "sample", spy)
    return calls


def test_many_problems_are_one_call_and_equal_prefixes_are_sampled_once(policy, monkeypatch):
    calls = counted(monkeypatch)
    pairs = [(PROBLEMS[k], prefix) for k in (0, 1, 0, 2, 1) for prefix in ("", " </think>")]
    table = prefix_values(policy, TASK, pairs, samples=8, seed=3)
    assert len(calls) == 1 and calls[0] == list(dict.fromkeys((TASK.prompt(p), prefix) for p, prefix in pairs))
    assert table["problem"].tolist() == [p.id for p, _ in pairs] and table["prefix"].tolist() == [x for _, x in pairs]
    for _, rows in table.groupby(["problem", "prefix"]):
        assert len(rows.drop_duplicates()) == 1
    for row in table.itertuples():
        interval = binomtest(row.c, 8).proportion_ci(0.95, method="exact")
        assert row.value == row.c / 8 and row.n == 8
        assert (row.low, row.high) == pytest.approx((interval.low, interval.high), abs=1e-8)
    assert table["tokens"].tolist() == [0, 1] * 5


def test_one_problem_alone_has_the_values_of_its_rows_in_bulk(policy):
    """The first rows of a call have the same random numbers however many follow."""
    prefixes = ["", " </think>"]
    alone = continuation_values(policy, TASK, PROBLEMS[0], prefixes, samples=8, seed=3)
    pairs = [(p, prefix) for p in PROBLEMS for prefix in prefixes]
    bulk = prefix_values(policy, TASK, pairs, samples=8, seed=3)
    pd.testing.assert_frame_equal(alone, bulk.drop(columns="problem").head(2))


def test_all_attempts_of_a_batch_at_once(policy, rollouts, monkeypatch):
    calls = counted(monkeypatch)
    table = rollout_values(policy, TASK, rollouts, step_ends(TASK, rollouts), samples=4, seed=1)
    assert len(calls) == 1 and len(calls[0]) == len(set(calls[0])) < len(table)
    starts = table[table["end"] == 0]
    assert starts["response"].tolist() == list(range(12)) and (starts.groupby("problem")["c"].nunique() == 1).all()
    for row in table.itertuples():
        assert row.prefix == rollouts.texts[row.response][: row.end] and row.problem == PROBLEMS[row.response // 4].id
        assert row.end == 0 or row.prefix.rstrip().endswith(("no", "yes"))
    steps = [len(ends) for ends in step_ends(TASK, rollouts)]
    assert table.groupby("response").size().tolist() == steps and sum(steps) > 16
    # An attempt that hit has a value near 1, as the base then copies it out.
    ends = [[text.index(" yes") + 4] if " yes" in text else [] for text in rollouts.texts]
    hits = rollout_values(policy, TASK, rollouts, ends, samples=4)
    assert len(hits) and hits["value"].mean() > 0.8 > table["value"].mean()


def test_prefixes_that_fill_the_cap_have_no_continuation(policy, rollouts):
    table = rollout_values(policy, TASK, rollouts, step_ends(TASK, rollouts), samples=1, max_new_tokens=30)
    assert table["tokens"].max() < 30 and set(table["response"]) == set(range(12))
    with pytest.raises(RlinoError, match="leaves nothing to sample"):
        prefix_values(policy, TASK, [(PROBLEMS[0], rollouts.texts[0])], samples=1, max_new_tokens=5)


def test_an_environment_goes_on_where_the_prefix_ends(policy):
    """The value of ` 3 * 7 =` under a calculator is that of the text with the result."""
    a, b = PROBLEMS[0].data["nums"][:2]
    open_step = f" {a} + {b} ="
    pairs = [(PROBLEMS[0], open_step), (PROBLEMS[0], "")]
    table = prefix_values(policy, TASK, pairs, samples=4, environment=Calculator())
    assert table["n"].tolist() == [4, 4]
    assert prefix_values(policy, Countdown(calculator=True), pairs, samples=4).equals(table)  # the task's own
    settings = dict(prefixes=[open_step], environment=Calculator(), seed=1)
    texts = sample(policy, [TASK.prompt(PROBLEMS[0])], 4, **settings).texts
    assert all(text.startswith(f"{open_step} {a + b}") for text in texts)


def test_a_prefix_is_held_against_the_response_that_it_is_cut_from(policy, rollouts):
    pairs = [(PROBLEMS[0], " 1"), (PROBLEMS[0], " 12 + 2")]  # of two responses
    assert len(prefix_values(policy, TASK, pairs, samples=1)) == 2
    with pytest.raises(RlinoError, match="inside a token"):
        continuation_values(policy, TASK, PROBLEMS[0], [prefix for _, prefix in pairs], samples=1)
    table = rollout_values(policy, TASK, rollouts, [[0, 2]] * 12, samples=1)  # some of them would cut a number
    firsts = table[table["end"] > 0]
    assert firsts["tokens"].eq(1).all() and {2, 3} == set(firsts["end"]) and len(firsts) == 12
    assert firsts["prefix"].tolist() == [text[:end] for text, end in zip(rollouts.texts, firsts["end"], strict=True)]
    with pytest.raises(RlinoError, match="at least one prefix"):
        prefix_values(policy, TASK, [])
    with pytest.raises(RlinoError, match="at least one prefix"):
        rollout_values(policy, TASK, rollouts, [[]] * 12)


# --- an environment that knows the problem ---------------------------------------------------------------------------


def test_a_look_in_a_prefix_is_answered_once_and_stands():
    policy, task = load_policy(base_of("hidden_target")), HiddenTarget(lies=1.0)
    problem = task.problems("test", 1)[0]
    lie = next(t for t in task.possible_targets(problem) if t != problem.data["target"])
    solved = f" </think> <answer> {problem.gold.split(' = ')[0]} </answer>"
    seen = f" look <target> {lie} </target>\n"
    table = prefix_values(policy, task, [(problem, p) for p in ("", " look", seen, seen + " look", solved)], samples=8)
    assert table["value"].tolist()[-1] == 1  # graded against the true target
    twins = [problem, replace(problem, id="another", data={**problem.data, "target": lie})]
    table = prefix_values(policy, task, [(p, solved) for p in twins], samples=4)
    assert table["value"].tolist() == [1, 0]  # one prompt, several problems
    prefixes = [" look", seen, seen + " look"]
    rollouts = sample_graded(policy, task, [problem] * 3, 8, prefixes=prefixes)
    for i, text in enumerate(rollouts.texts):
        assert text.startswith(prefixes[i // 8])
        written = re.findall(r" look <target> (\d+) </target>\n", text)
        assert len(written) == text.count(" look") == (1, 1, 2)[i // 8]
        assert int(written[0]) != problem.data["target"] and len(set(written)) == 1
    assert len({text.split()[2] for text in rollouts.texts[:8]}) > 1  # a prefix without an answer: each its own lot
    assert {text.split()[2] for text in rollouts.texts[8:]} == {str(lie)}
