"""Tokens, the trace inspector and its static twin: escaping, choosing, and rows that are not as they should be."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from rlino_lib.errors import RlinoError
from rlino_lib.widgets import inspector_html, static_inspector, tokens_html, trace_inspector
from rlino_lib.widgets.tokens import number, plain, token_spans
from rlino_lib.widgets.traces import Traces

HOSTILE = [
    "<script>alert(1)</script>",
    "</div></section></pre>",
    "<img src=x onerror=alert(1)>",
    "\" onmouseover='alert(1)'",
    "a & b &lt; c &#60;",
    "]]> --> <!-- <style>*{display:none}",
    "\x00\x1b[31m\x07\x7f\x85",
    "\u202eevil\u2066\u200f\ufeff\u2028",
    "مرحبا بالعالم",
    "half \ud800 pair",
    "$x^2$ \\(y\\)",
    "{braces} %s %(a)s",
]
VOID = {"img", "br", "hr", "input", "meta"}


class Page(HTMLParser):
    """The elements and text of some HTML; fails where elements do not nest, or an attribute could run a script."""

    def __init__(self, source: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert not any(name.startswith("on") for name, _ in attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data

    def having(self, **attributes) -> list[dict]:
        found = [a for _, a in self.elements]
        return [a for a in found if all(v in a.get(k.rstrip("_"), "").split() for k, v in attributes.items())]


def response(step, group, sample, tokens, correct, group_size=4):
    weight = (1.0 if correct else -1.0) / len(tokens) / group_size
    return {
        "step": step,
        "group": group,
        "sample": sample,
        "problem_id": f"countdown/1-2-{group}={step % 3}",
        "data": {"nums": [1, 2, group], "target": step},
        "gold": f"1 + 2 = {step}",
        "prompt": f"Numbers 1 2 {group} target {step} <think>",
        "response": "".join(tokens),
        "tokens": list(tokens),
        "logprobs": [-0.1 * t for t in range(len(tokens))],
        "entropies": [0.2 * t for t in range(len(tokens))],
        "weights": [weight] * len(tokens),
        "reward": float(correct),
        "advantage": 1.0 if correct else -1.0,
        "correct": bool(correct),
        "format_ok": True,
        "answer": "1 + 2",
        "reason": f"equals {sample}",
        "length": len(tokens),
        "clipped": sample == 3,
    }


def make_run(name="countdown/grpo-s0", method="grpo", seed=0, steps=(1, 2, 10), groups=2, dtype=None, **changes):
    """A stand-in for a recorded run: groups of four, samples 0 and 1 wrong; group 0 is all wrong at every step."""
    rows = [
        response(s, g, i, [" 1", " +", " 2", "\n", f" s{s}g{g}i{i}"], correct=g > 0 and i > 1) | changes
        for s in steps
        for g in range(groups)
        for i in range(4)
    ]
    return SimpleNamespace(name=name, method=method, seed=seed, rollouts=pd.DataFrame(rows, dtype=dtype))


# --- tokens ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_token_is_text(text):
    page = Page(tokens_html([text, "b"], [1.0, -1.0], title=text, label=text))
    assert {tag for tag, _ in page.elements} <= {"style", "figure", "figcaption", "div", "strong", "span", "u", "pre"}
    assert plain(text) in page.text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", page.text)


def test_tokens_keep_line_breaks_and_show_them():
    page = Page(tokens_html([" no\n", " yes"], [0.5, -0.5]))
    assert " no↵\n yes" in page.text
    assert [a["title"] for a in page.having() if "title" in a] == ["“ no↵”\nvalue +0.5", "“ yes”\nvalue −0.5"]


def test_a_negative_value_is_underlined_and_a_zero_is_not_coloured():
    spans, notes = token_spans(["p", "n", "z", "nan"], [2.0, -2.0, 0.0, math.nan])
    assert re.findall(r"<(\w+) ", spans) == ["span", "u", "span", "span"]
    assert ["style" in s for s in spans.split("</")[:4]] == [True, True, False, False]
    assert notes == []


def test_colour_grows_with_the_value_and_stops_at_the_limit():
    def alpha(value, **settings):
        spans, _ = token_spans(["a"], [value], **settings)
        return float(re.search(r",([0-9.]+)\)", spans)[1])

    assert alpha(0.1, limit=1.0) < alpha(0.5, limit=1.0) < alpha(1.0, limit=1.0) == alpha(9.0, limit=1.0)
    assert alpha(math.inf, limit=1.0) == alpha(1.0, limit=1.0)
    assert alpha(-0.7, limit=1.0, scale="sequential") == alpha(0.7, limit=1.0, scale="sequential")


def test_the_legend_says_both_ends_and_what_lies_beyond():
    assert "−0.25" in Page(tokens_html("ab", [0.1, -0.25])).text
    assert "and beyond" in Page(tokens_html("ab", [0.1, 3.0], scale="sequential", limit=1.0)).text
    assert "0 on every token" in Page(tokens_html("ab", [0.0, 0.0])).text
    assert "no finite value" in Page(tokens_html("ab", [math.nan, math.inf])).text


@pytest.mark.parametrize("values", [None, np.array([0.5, math.nan]), [None, -math.inf], ["x", 1]])
def test_tokens_take_any_kind_of_values(values):
    assert "ab" in Page(tokens_html(["a", "b"], values)).text


def test_tokens_without_any_are_an_empty_box():
    assert Page(tokens_html([], [])).having(class_="rlino-trace")


def test_a_long_line_is_shown_whole():
    long = "x" * 100_000
    page = Page(tokens_html([long], [1.0]))
    assert long in page.text and "hortened" not in page.text
    tip = next(a["title"] for a in page.having() if "title" in a)
    assert len(tip) < 200 and "100,000 characters" in tip


def test_what_is_shortened_says_so():
    spans, notes = token_spans(["ab"] * 50, max_coloured=10)
    assert len(re.findall("title=", spans)) == 10 and Page(f"<pre>{spans}</pre>").text == "ab" * 50
    assert notes == ["Only the first 10 of 50 tokens have colours and tooltips."]
    spans, notes = token_spans(["ab"] * 50, max_characters=21)
    assert len(Page(f"<pre>{spans}</pre>").text) == 21 and "first 21 of 100 characters" in notes[-1]


def test_tokens_refuse_what_does_not_fit():
    for arguments in (
        {"values": [1.0]},
        {"values": [1.0, 2.0], "scale": "rainbow"},
        {"limit": 0.0},
        {"limit": math.nan},
        {"tips": ["a"]},
    ):
        with pytest.raises(RlinoError):
            tokens_html(["a", "b"], **arguments)


def test_html_is_the_same_at_every_call_and_shows_itself():
    a, b = (tokens_html([" 1", "<"], [0.1, -0.2], title="t") for _ in range(2))
    assert a == b and a._repr_html_() == a
    assert "id=" not in a and "<script" not in a and repr(a).startswith("<Html, ")


@pytest.mark.parametrize(
    ("value", "text"), [(0.0123456, "+0.0123"), (-2, "−2"), (0, "0"), (None, "–"), (math.inf, "+∞"), (-math.inf, "−∞")]
)
def test_number(value, text):
    assert number(value) == text


# --- one group -------------------------------------------------------------------------------------------------------


def test_the_group_stands_side_by_side_with_its_facts():
    html = inspector_html(make_run(), step=2, group=1)
    page = Page(html)
    assert [a["aria-label"] for t, a in page.elements if t == "article"] == [
        "sample 0, wrong",
        "sample 1, wrong",
        "sample 2, right",
        "sample 3, right",
    ]
    for text in ("Step 2 · 1 2 1 → 2", "1 + 2 = 2", "2 of 4", "right +1, wrong −1", "equals 3", "✓ right", "✗ wrong"):
        assert text in page.text
    assert page.text.count("✂ clipped") == 1
    assert "token 5 · w −0.05 · log p −0.4 · entropy 0.8" in html


def test_the_start_is_the_first_group_with_right_and_wrong():
    assert "Step 1 · 1 2 1" in Page(inspector_html(make_run())).text
    assert "Step 1 · 1 2 0" in Page(inspector_html(make_run(groups=1))).text


@pytest.mark.parametrize(("show", "kept"), [("all", "0123"), ("right", "23"), ("wrong", "01"), ("clipped", "3")])
def test_filters(show, kept):
    text = Page(inspector_html(make_run(), step=1, group=1, show=show)).text
    assert [i for i in "0123" if f"s1g1i{i}" in text] == list(kept)
    assert (f"{len(kept)} of 4 responses" in text) == (show != "all")


def test_a_filter_that_keeps_nothing_says_so():
    assert "0 of 4 responses" in Page(inspector_html(make_run(), step=1, group=0, show="right")).text


def test_sorting():
    def order(sort):
        return re.findall(r"s1g1i(\d)", Page(inspector_html(frame, sort=sort)).text)

    rows = [response(1, 1, i, ["a"] * (9 - i) + [f"s1g1i{i}"], correct=i == 2) for i in range(4)]
    frame = pd.DataFrame(rows)
    assert (order("sample"), order("length")) == (list("0123"), list("3210"))
    assert order("advantage") == list("2013")


@pytest.mark.parametrize("colour", ["weights", "logprobs", "entropies", "none"])
@pytest.mark.parametrize("column", ["weights", "logprobs", "entropies"])
@pytest.mark.parametrize("broken", [None, [], [0.1], [math.nan] * 5, [math.inf, -math.inf, None, 0.0, 1.0]])
def test_a_missing_or_odd_column_falls_back(colour, column, broken):
    run = make_run(**{column: broken})
    text = Page(inspector_html(run, colour=colour)).text
    assert "s1g1i0" in text
    if colour == column and (broken is None or len(broken) != 5):
        assert "the tokens are not coloured" in text


def test_only_some_responses_without_values():
    frame = make_run().rollouts
    frame.at[4, "weights"] = []
    page = Page(inspector_html(frame, step=1, group=1))
    assert page.text.count("No weight recorded for each token of this response.") == 1
    assert "underlined" in page.text


@pytest.mark.parametrize("columns", [["response"], ["tokens"], ["response", "correct", "reward"]])
def test_a_live_frame_may_have_few_columns(columns):
    text = Page(inspector_html(make_run(steps=(1,), groups=1).rollouts[columns])).text
    assert "s1g0i0" in text and "Step 0" in text
    assert ("? not graded" in text) == ("correct" not in columns)


def test_live_groups_come_from_the_problems():
    frame = make_run(steps=(1,)).rollouts.drop(columns=["step", "group", "sample"])
    traces = Traces(frame)
    assert (traces.steps, traces.groups(0), len(traces.rows(0, 1))) == ([0], [0, 1], 4)


def test_missing_values_in_a_row():
    changes = dict.fromkeys(("reward", "advantage", "answer", "reason"), math.nan) | {"correct": None, "data": None}
    page = Page(inspector_html(make_run(**changes)))
    assert "none" in page.text and "? not graded" in page.text and "nan" not in page.text


def test_equal_rewards_teach_nothing():
    assert "learns nothing" in Page(inspector_html(make_run(advantage=0.0))).text


@pytest.mark.parametrize("text", HOSTILE)
def test_every_field_of_a_trace_is_text(text):
    fields = dict.fromkeys(("problem_id", "gold", "prompt", "answer", "reason"), text)
    # objects, since pandas' own strings refuse half a surrogate pair
    run = make_run(name=text, method=text, dtype=object, data={}, tokens=[text, "b"], **fields)
    allowed = {
        "style",
        "section",
        "p",
        "strong",
        "small",
        "dl",
        "div",
        "dt",
        "dd",
        "code",
        "em",
        "span",
        "u",
        "article",
    }
    allowed |= {"header", "pre", "details", "summary"}
    for html in (inspector_html(run), static_inspector(run), trace_inspector(run).view.value):
        page = Page(html)
        assert {tag for tag, _ in page.elements} <= allowed
        assert page.text.count(plain(text)) >= 4
        assert "\x00" not in html and "\u202e" not in html
        html.encode("utf-8")


def test_math_in_a_trace_is_left_alone():
    html = inspector_html(make_run(gold="$5$"))
    assert 'class="rlino-group mathjax_ignore"' in html


def test_a_long_line_in_a_group_is_shown_whole():
    long = "y" * 100_000
    assert long in inspector_html(make_run(tokens=[long], weights=[0.1]))


def test_unknown_choices_and_places_are_refused():
    run = make_run()
    for arguments in ({"colour": "red"}, {"show": "some"}, {"sort": "luck"}, {"step": 3}, {"step": 1, "group": 9}):
        with pytest.raises(RlinoError):
            inspector_html(run, **arguments)
    with pytest.raises(RlinoError, match="steps 1, 2, 10"):
        static_inspector(run, steps=[3])
    with pytest.raises(RlinoError, match="not a list"):
        inspector_html([1, 2])
    with pytest.raises(RlinoError, match="`tokens` or `response`"):
        inspector_html(pd.DataFrame({"reward": [1.0]}))


# --- the static twin -------------------------------------------------------------------------------------------------


def test_the_static_inspector_folds_several_groups():
    html = static_inspector(make_run(), steps=[1, 10], groups=[0, 1])
    page = Page(html)
    folds = [a for t, a in page.elements if t == "details"]
    assert len(folds) == 4 and ["open" in a for a in folds] == [True, False, False, False]
    for title in ("Step 1 · 1 2 0 → 1 · 0 of 4 right", "Step 10 · 1 2 1 → 10 · 2 of 4 right"):
        assert title in page.text
    assert "<script" not in html and "id=" not in html and html == static_inspector(make_run(), [1, 10], [0, 1])


def test_the_static_inspector_takes_first_middle_and_last():
    text = Page(static_inspector(make_run(steps=(1, 2, 3, 4, 5)))).text
    assert re.findall(r"Step (\d)", text) == ["1", "3", "5"]


# --- the widget ------------------------------------------------------------------------------------------------------


def test_the_widget_shows_what_the_static_twin_shows():
    run = make_run()
    w = trace_inspector(run)
    for menu, value in (
        (w.menus["step"], 10),
        (w.menus["group"], 0),
        (w.menus["colour"], "entropies"),
        (w.menus["show"], "wrong"),
        (w.menus["sort"], "length"),
    ):
        menu.value = value
        assert w.view.value == str(inspector_html(run, **w.choice))
    assert w.choice == {"step": 10, "group": 0, "colour": "entropies", "show": "wrong", "sort": "length"}


def test_next_and_previous_stop_at_the_ends():
    w = trace_inspector(make_run())
    assert (w.previous.disabled, w.next.disabled) == (True, False)
    w.next.click()
    w.next.click()
    assert (w.menus["step"].value, w.previous.disabled, w.next.disabled) == (10, False, True)
    w._move(+1)
    assert w.menus["step"].value == 10
    w.previous.click()
    assert w.menus["step"].value == 2


def test_another_run_keeps_the_nearest_step_and_the_problem():
    runs = [make_run(), make_run("countdown/f_isft_pos-s0", "f_isft_pos", steps=(3, 4, 13), groups=3)]
    w = trace_inspector(runs)
    w.menus["step"].value = 10
    w.menus["group"].value = 0
    w.menus["run"].value = 1
    assert w.menus["step"].value == 13  # 10 and 13 leave the same remainder, so the problem of group 0 is the same
    assert w.menus["group"].value == 0 and "s13g0i0" in w.view.value
    w.menus["group"].value = 2
    w.menus["run"].value = 0
    assert w.menus["step"].value == 10 and w.menus["group"].value == 1  # no such problem here: the first mixed group


def test_one_change_draws_once():
    w = trace_inspector([make_run(), make_run("b", "grpo_no_kl")])
    drawn = []
    w.view.observe(lambda change: drawn.append(1), "value")
    w.menus["run"].value = 1
    w.menus["step"].value = 10
    assert len(drawn) == 2


def test_rollouts_are_read_when_they_are_wanted():
    class Lazy(SimpleNamespace):
        @property
        def rollouts(self):
            raise AssertionError("read too early")

    w = trace_inspector([make_run(), Lazy(name="b", method="grpo_no_kl", seed=0)])
    assert w.choice["step"] == 1


def test_menus_name_runs_by_method_and_seed():
    runs = [make_run(), make_run("countdown/f-s1", "f_isft_pos", 1), make_run("lr/grpo-s0")]
    names = [name for name, _ in trace_inspector(runs).menus["run"].options]
    assert names == ["GRPO, seed 0 (countdown/grpo-s0)", "F-ISFT⁺, seed 1", "GRPO, seed 0 (lr/grpo-s0)"]


def test_runs_without_rollouts_say_so():
    class Unreadable(SimpleNamespace):
        @property
        def rollouts(self):
            raise ValueError("a bad <line>")

    empty = SimpleNamespace(name="countdown/empty", method="grpo", seed=1, rollouts=pd.DataFrame())
    w = trace_inspector([make_run(), empty, Unreadable(name="x", method="x", seed=0)])
    w.menus["step"].value = 10
    w.menus["run"].value = 1
    assert "countdown/empty has no recorded rollouts." in w.view.value
    assert w.menus["step"].disabled and w.next.disabled
    w.menus["run"].value = 2
    assert "cannot be read: a bad &lt;line&gt;" in w.view.value
    w.menus["run"].value = 0
    assert (w.menus["step"].value, w.menus["step"].disabled) == (10, False)
    assert "no recorded rollouts" in static_inspector(empty)


def test_a_frame_and_a_starting_place():
    w = trace_inspector(make_run().rollouts, step=9, group=0, colour="none", show="wrong")
    assert w.choice | {"sort": ""} == {"step": 10, "group": 0, "colour": "none", "show": "wrong", "sort": ""}
    assert w.menus["run"] not in w.children[0].children
    for arguments in ({"runs": []}, {"runs": make_run(), "colour": "red"}, {"runs": make_run(), "group": 7}):
        with pytest.raises(RlinoError):
            trace_inspector(**arguments)


def test_the_widget_reads_the_same_in_every_notebook():
    w = trace_inspector([make_run(), make_run("b", "f_isft_neg")])
    bundle = w._repr_mimebundle_()
    assert bundle["text/plain"] == "TraceInspector(2 sources of traces)"
    assert bundle["text/html"] == w.view.value
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_a_thousand_traces_render_one_group_at_a_time():
    run = make_run(steps=tuple(range(1, 126)), groups=2)
    assert len(run.rollouts) == 1000
    w = trace_inspector(run)
    one = trace_inspector(make_run(steps=(1,), groups=2))
    assert len(w.view.value) == len(one.view.value) < 30_000
    assert len(json.dumps(w.get_state(), default=str)) < 30_000


def test_a_huge_group_stays_bounded():
    rows = [response(1, 0, i, [" 77"] * 1024, correct=i % 2, group_size=64) for i in range(64)]
    html = inspector_html(pd.DataFrame(rows))
    assert len(html) < 3_000_000
    assert Page(html).text.count(" 77") == 64 * 1024 and "Only the first 125 of 1,024 tokens" in html
