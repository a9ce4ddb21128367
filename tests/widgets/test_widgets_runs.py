"""The run comparer and its static twin: the right pairs, text that is hostile, and choices that fit each other."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest

from rlino_lib.errors import RlinoError
from rlino_lib.widgets.runs import (
    as_traces,
    most_different,
    run_comparer,
    run_name,
    runs_html,
    same_start,
    shared,
    shared_steps,
    static_runs,
)
from rlino_lib.widgets.tokens import plain
from tests.widgets.test_widgets import HOSTILE, Page, response

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


def test_a_page_has_both_responses_and_the_place_where_they_part():
    page = Page(runs_html(GRPO, NEG, 40, 1, 2))
    assert len([1 for tag, _ in page.elements if tag == "pre"]) == 2
    assert "1 + 2 x2" in page.text.replace("  ", " ") and " y2" in page.text
    assert "Response 3 of each. They agree for 3 tokens" in page.text and "✓ right" in page.text
    assert "4 of 4" in page.text and "0 of 4" in page.text
    source = str(runs_html(GRPO, NEG, 40, 1, 2))
    assert source.count("<mark") == 2 and "A: GRPO, seed 0" in page.text and "B: F-ISFT⁻, seed 0" in page.text
    first, second = source.split("<mark")[:2]
    assert "“ 2”" in first and "“ x2”" not in first and "“ x2”" in second  # the bar stands before the first difference


def test_the_same_responses_are_said_to_be_the_same():
    text = Page(runs_html(GRPO, NEG, 1, 0)).text
    assert "They are the same, token for token." in text and "double bar" not in text
    other = run("f_isft_neg")
    other.rollouts["tokens"] = [["z", *tokens] for tokens in other.rollouts["tokens"]]
    assert "They differ from the first token on." in Page(runs_html(GRPO, other, 40, 0)).text


def test_the_start_is_the_last_common_step_where_they_differ_most():
    assert str(runs_html(GRPO, NEG)) == str(runs_html(GRPO, NEG, 200, 1, 0, "weights"))


def test_colours_have_one_scale_for_both():
    loud = run("f_isft_neg", tail=" y", right=(0, 2), weights=[4.0] * 4)
    page = Page(runs_html(GRPO, loud, 40, 1))
    assert "+4" in page.text
    quiet = [a["style"] for a in page.having() if "style" in a and "0,114,178" in a["style"]]
    assert len(set(quiet)) > 1  # the weak ones are not drawn as strong as the strong ones


@pytest.mark.parametrize("colour", ["weights", "logprobs", "entropies", "none"])
def test_every_colour_makes_a_page(colour):
    assert ("nats" in Page(runs_html(GRPO, NEG, colour=colour)).text) == (colour in ("logprobs", "entropies"))


def test_frames_have_no_curves_and_runs_have():
    frames = GRPO.rollouts, NEG.rollouts
    assert "<svg" not in str(runs_html(*frames)) and "<svg" in str(runs_html(GRPO, NEG))
    assert run_name(GRPO.rollouts) == "a frame"
    flat = SimpleNamespace(**vars(NEG) | {"metrics": NEG.metrics.assign(**{"eval/accuracy": 0.0})})
    Page(runs_html(flat, flat))  # nothing is ever right: no division by 0


@pytest.mark.parametrize("text", HOSTILE)
def test_every_field_of_a_run_is_text(text):
    fields = {"tokens": [text, "b"], "answer": text, "reason": text, "gold": text, "prompt": text}
    fields |= {"data": {"question": text}, "weights": [1.0, -1.0], "logprobs": None, "entropies": None}
    evil = run(text, **fields)
    for show in (runs_html, static_runs):
        page = Page(show(evil, run("grpo")))
        assert plain(text) in page.text.replace("⇥", "").replace("↵", "")
        allowed = {"style", "section", "p", "strong", "svg", "path", "text", "div", "table", "thead", "tbody", "tr"}
        allowed |= {"th", "td", "span", "u", "mark", "pre", "code", "br", "details", "summary"}
        assert {tag for tag, _ in page.elements} <= allowed


def test_what_two_runs_do_not_share_is_said():
    for b in (run("f_isft_neg", seed=1), run("f_isft_neg", steps=(2,))):
        for show in (runs_html, static_runs):
            assert "no problem in common" in Page(show(GRPO, b)).text
    empty = SimpleNamespace(name="g/empty", method="rloo", seed=0, rollouts=pd.DataFrame())
    assert "no recorded rollouts" in Page(runs_html(GRPO, empty)).text


@pytest.mark.parametrize(
    "choice", [dict(step=2), dict(problem=3), dict(problem=-1), dict(sample=4), dict(sample=-1), dict(colour="pink")]
)
def test_what_cannot_be_shown_is_refused(choice):
    with pytest.raises(RlinoError):
        runs_html(GRPO, NEG, **choice)


def test_the_static_twin_has_a_fold_for_each_step():
    source = str(static_runs(GRPO, NEG))
    assert source.count("<details") == 3 and source.count("<details open>") == 1
    assert all(f"Step {s} · " in source for s in (1, 40, 200))
    section = str(runs_html(GRPO, NEG)).split("</style>")[-1]
    assert section in source
    assert str(static_runs(GRPO, NEG, [1])).count("<details open>") == 1
    with pytest.raises(RlinoError, match="no common problem at step 2"):
        static_runs(GRPO, NEG, [2])


# --- the widget ------------------------------------------------------------------------------------------------------


@pytest.fixture
def runs():
    return [GRPO, NEG, run("rloo", tail=" z", right=(1,)), run("grpo", 1), run("f_isft_neg", 1), run("grpo", 2)]


def test_the_widget_starts_where_the_page_does(runs):
    widget = run_comparer(runs, b="f_isft_neg")
    assert widget.choice == {
        "key": ("countdown", 0), "a": "grpo", "b": "f_isft_neg", "step": 200, "problem": 1, "sample": 0,
        "colour": "weights",
    }  # fmt: skip
    assert widget.view.value == str(runs_html(GRPO, NEG)) and repr(widget) == "RunComparer()"
    assert widget._repr_mimebundle_()["text/html"] == widget.view.value
    assert [value for _, value in widget.menus["key"].options] == [("countdown", 0), ("countdown", 1)]  # 2 is alone


def test_each_choice_fits_the_others(runs):
    widget = run_comparer(runs, b="f_isft_neg")
    menus = widget.menus
    menus["sample"].value = 3
    menus["step"].value = 40
    assert widget.view.value == str(runs_html(GRPO, NEG, 40, 1, 3))
    menus["problem"].value = 2
    menus["b"].value = "rloo"  # the same step and problem
    assert widget.view.value == str(runs_html(GRPO, runs[2], 40, 2, 3))
    menus["colour"].value = "entropies"
    menus["key"].value = ("countdown", 1)  # rloo was not recorded there
    assert [m for _, m in menus["b"].options] == ["grpo", "f_isft_neg"] and menus["b"].value == "grpo"
    assert (menus["step"].value, menus["problem"].value) == (40, 0)
    assert widget.view.value == str(runs_html(runs[3], runs[3], 40, 0, 3, "entropies"))


def test_one_change_draws_once(runs, monkeypatch):
    widget, drawn = run_comparer(runs, b="f_isft_neg"), []
    monkeypatch.setattr(widget, "_page", lambda: drawn.append(1) or "")
    widget.menus["key"].value = ("countdown", 1)
    assert drawn == [1]


def test_runs_that_share_nothing_leave_a_message_and_a_way_back():
    late = run("f_isft_neg", steps=(2,))
    widget = run_comparer([GRPO, late, run("rloo")], b="f_isft_neg")
    assert "no problem in common" in widget.view.value and widget.choice["step"] < 0
    widget.menus["b"].value = "rloo"
    assert widget.choice["step"] == 200 and "Step 200" in widget.view.value


def test_the_widget_keeps_to_methods_that_are_there(runs):
    assert run_comparer(runs, a="dapo", b="dapo").choice["a"] == "grpo"
    assert run_comparer(runs, a="rloo").choice["key"] == ("countdown", 0)
    assert run_comparer(runs, seed=1).choice["key"] == ("countdown", 1)


@pytest.mark.parametrize(
    "given, settings",
    [([], {}), ([GRPO], {}), ([GRPO, run("rloo", 1)], {}), ([GRPO, GRPO, NEG], {}), ([GRPO, NEG], {"seed": 1}),
     ([GRPO, NEG], {"colour": "pink"})],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(given, settings):
    with pytest.raises(RlinoError):
        run_comparer(given, **settings)


def test_rollouts_are_read_when_they_are_wanted(runs):
    class Lazy(SimpleNamespace):
        read = False

        @property
        def rollouts(self):
            type(self).read = True
            return NEG.rollouts

    lazy = Lazy(name="g/rloo-s0", method="rloo", seed=0, config={"task": "countdown"}, metrics=NEG.metrics)
    widget = run_comparer([GRPO, NEG, lazy], b="f_isft_neg")
    assert not Lazy.read
    widget.menus["b"].value = "rloo"
    assert Lazy.read
