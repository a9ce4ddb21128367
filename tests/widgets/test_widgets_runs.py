"""The run comparer and its static twin: the right pairs, text that is hostile, and choices that fit each other."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest

from rlino_lib.analysis.pairs import most_different, same_start, shared, shared_steps
from rlino_lib.errors import RlinoError
from rlino_lib.records.traces import as_traces
from rlino_lib.widgets import run_comparer
from rlino_lib.widgets.tokens import plain
from tests.widgets.test_widgets import HOSTILE, Explored, response

HEAD = [" 1", " +", " 2"]


def run(method, seed=0, task="countdown", steps=(1, 40, 200), tail=" x", right=(), problems=3, **changes):
    """A stand-in for a recorded run: groups of four that begin alike; `right` are the groups that are all right."""
    rows = [
        response(s, g, i, [*HEAD, f"{tail if s > 1 else ' same'}{i}"], correct=g in right)
        | {"problem_id": f"{task}/{seed}-{s}-{g}"}
        | changes
        for s in steps
        for g in range(problems)
        for i in range(4)
    ]
    found = SimpleNamespace(name=f"g/{method}-s{seed}", method=method, seed=seed, config={"task": task})
    found.rollouts = pd.DataFrame(rows, dtype=object)  # strings may hold half a surrogate pair
    found.metrics = pd.DataFrame({"step": [0, 100, 200], "eval/accuracy": [0.2, None, 0.5]})
    return found


GRPO, NEG = run("grpo", right=(0, 1, 2)), run("f_isft_neg", tail=" y", right=(0, 2))


# --- which problems, which tokens ------------------------------------------------------------------------------------


def test_runs_meet_on_the_problems_that_both_have():
    a, b = as_traces(GRPO), as_traces(NEG)
    assert shared_steps(a, b) == [1, 40, 200] and [s.problem for s in shared(a, b, 40)] == [
        f"countdown/0-40-{g}" for g in range(3)
    ]
    turned = NEG.rollouts.assign(group=2 - NEG.rollouts["group"])  # the same problems in another order
    other = as_traces(turned)
    assert [(s.a, s.b) for s in shared(a, other, 40)] == [(0, 2), (1, 1), (2, 0)]
    assert most_different(a, b, 40) == 1
    assert shared_steps(a, as_traces(run("f_isft_neg", seed=1))) == []
    assert shared_steps(a, as_traces(run("f_isft_neg", steps=(40, 50)))) == [40]


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [(["a", "b"], ["a", "b"], 2), (["a", "b"], ["a", "c"], 1), (["a"], ["a", "b"], 1), (["x"], ["a"], 0)],
)
def test_where_two_responses_part(one, other, agree):
    assert same_start({"tokens": one}, {"tokens": other}) == agree


# --- the page --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found():
    return Explored(run_comparer([GRPO, NEG, run("rloo", tail=" z", right=(1,)), run("grpo", 1)], b="f_isft_neg"))


def test_the_start_is_the_last_common_step_where_they_differ_most(found):
    assert found.controls["step"]["options"] == ["1", "40", "200"]
    assert set(found.controls["a"]["options"]) == {"GRPO", "RLOO", "F-ISFT⁻"}
    text = found.first.text
    assert "countdown, seed 0" in text and "A: GRPO" in text and "B: F-ISFT⁻" in text and "Step 200 · 1 2 1" in text
    assert "4 of 4 right" in text and "0 of 4 right" in text and found.first.count("img") == 1


def test_a_page_has_both_responses_and_the_place_where_they_part(found):
    step = found.option("step", "40")
    problem = next(
        k for k in range(len(found.controls["problem"]["options"])) if found.page("head", step=step, problem=k)
    )
    choice = {"step": step, "problem": problem, "response": 2}
    assert found.tokens(found.page("text_a", **choice)) == [[" 1", " +", " 2", " x2"]]
    assert found.tokens(found.page("text_b", **choice)) == [[" 1", " +", " 2", " y2"]]
    assert 'data-part="3">They agree for 3 tokens' in found.page("start", **choice)
    assert "They are the same, token for token." in found.page("start", **choice | {"b": found.controls["a"]["start"]})
    assert "[✓ 4]" in found.page("text_a", **choice) and "log p</dt><dd>−0.6<" in found.page("text_a", **choice)


def test_the_same_and_different_beginnings_are_said():
    first = Explored(run_comparer([run("grpo"), run("f_isft_neg", tail=" y", steps=(1,))]))
    assert 'data-part="-1">They are the same, token for token.' in first.page("start")
    other = run("f_isft_neg")
    other.rollouts["tokens"] = [["z", *tokens] for tokens in other.rollouts["tokens"]]
    assert 'data-part="-1">They differ from the first token on.' in Explored(run_comparer([GRPO, other])).page("start")


def test_colours_have_one_scale_for_both():
    loud = run("f_isft_neg", tail=" y", right=(0, 2), weights=[4.0] * 4)
    found = Explored(run_comparer([GRPO, loud]))
    assert "+4" in found.first.text
    levels = {trace["levels"]["weights"] for trace in found.data["traces"]}
    assert "8888" in levels and levels & {"1111", "aaaa"}  # the weak ones are not drawn as strong as the strong ones


def test_runs_without_curves_have_none():
    for changed in (NEG.metrics.drop(columns="eval/accuracy"), NEG.metrics[:1]):
        other = SimpleNamespace(**vars(NEG) | {"metrics": changed})
        assert Explored(run_comparer([GRPO, other])).page("curves") == ""
    flat = SimpleNamespace(**vars(NEG) | {"metrics": NEG.metrics.assign(**{"eval/accuracy": 0.0})})
    assert "<svg" in Explored(run_comparer([SimpleNamespace(**vars(flat) | {"method": "grpo"}), flat])).page("curves")


@pytest.mark.parametrize("text", HOSTILE)
def test_every_field_of_a_run_is_text(text):
    fields = {"tokens": [text, "b"], "answer": text, "reason": text, "gold": text, "prompt": text}
    fields |= {"data": {"question": text}, "weights": [1.0, -1.0], "logprobs": None, "entropies": None}
    found = Explored(run_comparer([run("grpo"), run("f_isft_neg", **fields)], a="f_isft_neg", b="grpo"))
    assert plain(text) in found.first.text.replace("⇥", "").replace("↵", "")
    allowed = {"style", "section", "p", "strong", "img", "div", "span", "u", "pre", "code", "script"}
    allowed |= {"article", "header", "dl", "dt", "dd"}
    assert {tag for tag, _ in found.first.elements} <= allowed


def test_the_budget_limits_the_steps():
    runs = [run(m, steps=tuple(range(1, 100)), problems=1) for m in ("grpo", "f_isft_neg")]
    few = Explored(run_comparer(runs, budget=20_000))
    assert {"1", "99"} <= set(few.controls["step"]["options"]) and len(few.controls["step"]["options"]) < 30


def test_methods_and_seeds_that_are_there():
    runs = [GRPO, NEG, run("rloo"), run("grpo", 1), run("f_isft_neg", 1)]
    assert "A: GRPO" in Explored(run_comparer(runs, a="dapo", b="dapo")).first.text
    assert "seed 0" in Explored(run_comparer(runs, a="rloo")).first.text
    assert "seed 1" in Explored(run_comparer(runs, seed=1)).first.text


@pytest.mark.parametrize(
    "given, settings",
    [([], {}), ([GRPO], {}), ([GRPO, run("rloo", 1)], {}), ([GRPO, GRPO, NEG], {}), ([GRPO, NEG], {"seed": 1}),
     ([GRPO, run("f_isft_neg", steps=(2,))], {})],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(given, settings):
    with pytest.raises(RlinoError):
        run_comparer(given, **settings)
