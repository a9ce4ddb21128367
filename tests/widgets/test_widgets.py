"""Tokens, the page that all explorers share, the trace inspector, and rows that are not as they should be."""

from __future__ import annotations

import html
import json
import math
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter

from rlino_lib.errors import RlinoError
from rlino_lib.records.traces import Traces, shorten, spread
from rlino_lib.widgets import tokens_html, trace_inspector
from rlino_lib.widgets.inspector import COLOURS
from rlino_lib.widgets.page import Boxes, Control, Trace, explorer, frame_table, slot, stepped, svg_html
from rlino_lib.widgets.tokens import number, plain, token_spans

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
        self.cells: list[str] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert not any(name.startswith("on") for name, _ in attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["script"]:
            self.scripts.append(data)
        elif self.open[-1:] != ["style"]:
            self.text += data
        if self.open[-1:] == ["td"]:
            self.cells.append(data)

    def having(self, **attributes) -> list[dict]:
        found = [a for _, a in self.elements]
        return [a for a in found if all(v in a.get(k.rstrip("_"), "").split() for k, v in attributes.items())]

    def count(self, tag: str) -> int:
        return sum(t == tag for t, _ in self.elements)


class Explored:
    """An explorer as a test reads it: its first page, its data, and the page of any choice."""

    def __init__(self, html: str):
        self.html = str(html)
        self.first = Page(html)
        assert [a.get("type") for t, a in self.first.elements if t == "script"] == ["application/json", None]
        assert "<" not in self.first.scripts[0] and not set("\u2028\u2029") & set(html)
        self.data = json.loads(self.first.scripts[0])
        self.controls = {control["name"]: control for control in self.data["controls"]}
        for fragment in self.data["fragments"]:
            Page("".join(self.data["parts"][k] for k in fragment))  # nests, and runs nothing

    def start(self) -> dict[str, int]:
        return {name: control["start"] for name, control in self.controls.items()}

    def page(self, slot: str, **choice: int) -> str | None:
        """What a slot shows; choices are numbers of options, those at the start unless given."""
        by, views = self.data["slots"][slot]["by"], self.data["views"][self.data["slots"][slot]["views"]]
        place = 0
        for name in by:
            place = place * len(self.controls[name]["options"]) + (self.start() | choice)[name]
        fragment = views[place] if isinstance(views, list) else views.get(str(place))
        return None if fragment is None else "".join(self.data["parts"][k] for k in self.data["fragments"][fragment])

    def option(self, control: str, text: str) -> int:
        """The number of an option."""
        return self.controls[control]["options"].index(text)

    def tokens(self, page: str) -> list[list[str]]:
        """The tokens that the script writes into a page."""
        return [self.data["traces"][int(k)]["tokens"] for k in re.findall('data-trace="([0-9]+)"', page)]


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
    spans = token_spans(["p", "n", "z", "nan"], [2.0, -2.0, 0.0, math.nan])
    assert re.findall(r"<(\w+) ", spans) == ["span", "u", "span", "span"]
    assert ["style" in s for s in spans.split("</")[:4]] == [True, True, False, False]


def test_colour_grows_with_the_value_and_stops_at_the_limit():
    def alpha(value, **settings):
        spans = token_spans(["a"], [value], **settings)
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
    assert shorten(["a", "b"]) == (["a", "b"], [])
    texts, notes = shorten(["ab"] * 50, max_coloured=10)
    assert texts == ["ab"] * 10 + ["ab" * 40] and notes == ["Only the first 10 of 50 tokens have colours and tooltips."]
    texts, notes = shorten(["ab"] * 50, max_characters=21)
    assert "".join(texts) == "ab" * 10 + "a" and "first 21 of 100 characters" in notes[-1]
    assert token_spans(["ab", "rest"], tips=["first"]).count("first") == 1  # what is joined has no tooltip


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


# --- the page of all explorers ---------------------------------------------------------------------------------------


def small(**settings):
    boxes = Boxes()
    one = Trace(["a", "<b>"], {"w": ([1.0, -0.5], "diverging", 1.0)})
    views = {
        ("x0", "y0"): f"<p>first</p>{boxes.add(one, 'one')}",
        ("x1", "y1"): f"<p>last</p>{boxes.add(Trace(['c']), 'two')}",
    }
    controls = [Control("x", "X", ["x0", "x1"]), Control("y", "Y", ["y0", "y1"])]
    slots = {"page": (("x", "y"), views), "note": (("y",), {("y0",): "<i>n0</i>", ("y1",): "<i>n1</i>"})}
    return explorer("Small", controls, slots, slot("page") + slot("note", "p"), boxes.traces, **settings)


def test_a_page_is_its_first_choice_and_all_others_as_data():
    found = Explored(small())
    assert "first" in found.first.text and "a<b>" in found.first.text and "last" not in found.first.text
    assert "last" in found.page("page", x=1, y=1) and found.page("page", x=1, y=0) is None
    assert found.page("note", y=1) == "<i>n1</i>" and isinstance(found.data["views"][1], list)
    assert found.data["traces"][0] == {"tokens": ["a", "<b>"], "levels": {"w": "8d"}, "values": {"w": "1 -0.5"}}
    assert small() == small() and repr(small()).startswith("<Html, ") and small()._repr_html_() == small()


def test_without_a_script_all_is_written_and_drawings_are_images():
    body = f"<div {stepped(3, {'n1': [(1, 2)], 'n2': [(2, 3)], 'n3': [(4, 4)]})}>"
    body += svg_html('<g data-id="n1"/><g data-id="n2"/>', 10, 10, "alt") + '<p data-id="n3">x</p></div>'
    html = explorer("x", [Control("x", "X", ["0"])], {"s": (("x",), {("0",): body})}, slot("s"))
    twin = html.split("<script")[0]
    assert (
        "<svg" not in twin
        and 'alt="alt"' in twin
        and 'class="rlino-later">x' in twin
        and "<svg" in Explored(html).page("s")
    )


def test_a_table_escapes_every_text_and_names_rows():
    for text in HOSTILE[:6]:
        frame = pd.DataFrame({text: [text]}, index=pd.Index([text], name=text))
        page = Page(frame_table(frame))
        assert {tag for tag, _ in page.elements} == {"div", "table", "thead", "tbody", "tr", "th", "td"}
        assert page.text.count(text) == 4
    frame = pd.DataFrame([["a"], ["b"]], columns=[1], index=["x", "y"])
    assert '<tr data-id="r1"><th scope="row">x' in frame_table(frame, ids=["r1", "r2"])


# --- the trace inspector ---------------------------------------------------------------------------------------------


def test_the_group_stands_side_by_side_with_its_facts():
    found = Explored(trace_inspector(make_run(), step=2, group=1))
    page = found.first
    assert [a["aria-label"] for t, a in page.elements if t == "article"] == [
        "sample 0, wrong", "sample 1, wrong", "sample 2, right", "sample 3, right",
    ]  # fmt: skip
    for text in ("Step 2 · 1 2 1 → 2", "1 + 2 = 2", "2 of 4", "right +1, wrong −1", "equals 3", "✓ right", "✗ wrong"):
        assert text in page.text
    assert page.text.count("✂ truncated") == 1
    assert "token 5 · w −0.05 · log p −0.4 · entropy 0.8" in found.html
    assert "s2g1i3" in page.text and found.tokens(found.page("group"))[3][-1] == " s2g1i3"


def test_tokens_of_an_environment_are_framed():
    foreign = [0, 0, 1, 1, 0]
    found = Explored(trace_inspector(make_run(foreign=foreign), step=2, group=1))
    still = found.html.split("<script")[0]
    assert len(found.first.having(class_="rlino-foreign")) == 4 * sum(foreign) + 1  # and the legend's
    assert "token 3 · not the policy's · w" in html.unescape(still) and "token 2 · w" in still
    assert {trace["foreign"] for trace in found.data["traces"]} == {"00110"}
    broken = (make_run(), make_run(foreign=[1, 1]), make_run(foreign=["a"] * 5), make_run(foreign=[0] * 5))
    for run in broken:  # older runs have none
        page = Explored(trace_inspector(run, step=2, group=1))
        assert "foreign" not in page.data["traces"][0] and not page.first.having(class_="rlino-foreign")


def test_the_page_without_a_script_has_all_that_the_first_choice_shows():
    found = Explored(trace_inspector(make_run()))
    with_script = Page(found.page("group")).text + "".join(map("".join, found.tokens(found.page("group"))))
    words = set(re.findall(r"\w+", with_script))
    assert words <= set(re.findall(r"\w+", found.first.text))
    assert "background-color" in found.html.split("<script")[0] and len(found.first.having(class_="rlino-static")) == 1


def test_every_recorded_group_can_be_chosen():
    runs = [make_run(), make_run("b", "f_isft_pos", steps=(3, 10))]
    found = Explored(trace_inspector(runs))
    assert found.controls["run"]["options"] == ["GRPO, seed 0", "F-ISFT⁺, seed 0"]
    assert found.controls["step"]["options"] == ["1", "2", "3", "10"]
    for r, steps in enumerate(((1, 2, 10), (3, 10))):
        for step in (1, 2, 3, 10):
            pages = [
                found.page("group", run=r, step=found.option("step", str(step)), problem=k)
                for k in range(len(found.controls["problem"]["options"]))
            ]
            pages = [page for page in pages if page is not None]
            assert len(pages) == (2 if step in steps else 0)
            texts = {tokens[-1] for page in pages for tokens in found.tokens(page)}
            assert texts == {f" s{step}g{g}i{i}" for g in (0, 1) for i in range(4) if pages}


def test_two_groups_of_one_name_are_two_options():
    run = make_run(steps=(1,), data={}, problem_id="same", correct=False)
    assert Explored(trace_inspector(run)).controls["problem"]["options"] == [
        "same (group 0) · 0 of 4 right", "same (group 1) · 0 of 4 right",
    ]  # fmt: skip


def test_the_start_is_the_first_group_with_right_and_wrong():
    assert "Step 1 · 1 2 1" in Explored(trace_inspector(make_run())).first.text
    assert "Step 1 · 1 2 0" in Explored(trace_inspector(make_run(groups=1))).first.text
    assert "Step 10 · 1 2 0" in Explored(trace_inspector(make_run(), step=10, group=0)).first.text
    assert "Step 10 · " in Explored(trace_inspector(make_run(), step=9)).first.text  # the nearest


def test_cards_have_what_the_script_filters_and_sorts_by():
    rows = [response(1, 1, i, ["a"] * (9 - i) + [f"s1g1i{i}"], correct=i == 2) for i in range(4)]
    found = Explored(trace_inspector(pd.DataFrame(rows)))
    cards = [a for t, a in found.first.elements if t == "article"]
    kinds = {show: [show in card["data-kind"].split() for card in cards] for show in found.controls["show"]["values"]}
    assert kinds["all"] == [True] * 4 and kinds["right"] == [False, False, True, False]
    assert kinds["wrong"] == [True, True, False, True] and kinds["truncated"] == [False, False, False, True]
    keys = pd.DataFrame([json.loads(card["data-keys"]) for card in cards])
    orders = {sort: keys.sort_values(sort, kind="stable").index.tolist() for sort in found.controls["sort"]["values"]}
    assert orders == {"sample": [0, 1, 2, 3], "length": [3, 2, 1, 0], "advantage": [2, 0, 1, 3]}


@pytest.mark.parametrize("colour", ["weights", "logprobs", "entropies", "none"])
@pytest.mark.parametrize("column", ["weights", "logprobs", "entropies"])
@pytest.mark.parametrize("broken", [None, [], [0.1], [math.nan] * 5, [math.inf, -math.inf, None, 0.0, 1.0]])
def test_a_missing_or_odd_column_falls_back(colour, column, broken):
    run = make_run(**{column: broken}, steps=(1,))
    found = Explored(trace_inspector(run, colour=colour))
    assert "s1g1i0" in found.first.text
    legends = {a["data-legend"]: "hidden" in a for _, a in found.first.elements if "data-legend" in a}
    assert legends == {name: name != colour for name in ("weights", "logprobs", "entropies", "none")}
    if broken is None or len(broken) != 5:
        assert "the tokens are not coloured" in found.first.text
        assert all(column not in trace["levels"] for trace in found.data["traces"])


@pytest.mark.parametrize("column", ["weights", "logprobs", "entropies"])
@pytest.mark.parametrize("broken", [["x"] * 5, [[1]] * 5, [{}] * 5, [10**400] * 5])
def test_texts_among_the_numbers_of_tokens_are_no_colours(column, broken):
    page = Explored(trace_inspector(make_run(**{column: broken}, steps=(1,)), colour=column))
    assert f"No {COLOURS[column].menu} is recorded here" in page.first.text


ODD = ("high", [1.0], {}, "\u202e" * 500, 10**400)


@pytest.mark.parametrize(("column", "value"), [
    *((name, value) for name in ("reward", "advantage", "step", "group", "sample", "length") for value in ODD),
    *((name, value) for name in ("step", "group", "sample") for value in (None, math.nan, math.inf, -1, 0.5, 10**39)),
])  # fmt: skip
def test_what_is_no_number_is_one_line_that_names_run_and_response(column, value):
    run = make_run(steps=(1,))
    rows = run.rollouts.to_dict("records")
    rows[2][column] = value
    for source in (SimpleNamespace(name="countdown/odd", rollouts=pd.DataFrame(rows)), pd.DataFrame(rows)):
        with pytest.raises(RlinoError, match=rf"response 3: {column} is to be a .*number.*, not ") as e:
            trace_inspector(source)
        name = getattr(source, "name", "the frame")
        assert name in str(e.value) and str(e.value).isprintable() and len(str(e.value)) < 200


def test_an_id_may_be_anything_that_json_has():
    rows = [{"response": "a", "problem_id": name} for name in ([], {}, {"a": [1]}, None, 5, "\ud800", [], None)]
    assert Traces(pd.DataFrame(rows)).frame["group"].tolist() == [0, 1, 2, 3, 4, 5, 0, 3]
    assert trace_inspector(pd.DataFrame(rows, dtype=object))


def test_a_frame_with_a_column_twice_is_refused():
    frame = make_run(steps=(1,)).rollouts
    with pytest.raises(RlinoError, match="have a column twice"):
        trace_inspector(pd.concat([frame, frame[["reward"]]], axis=1))


@pytest.mark.parametrize("columns", [["response"], ["tokens"], ["response", "correct", "reward"]])
def test_a_live_frame_may_have_few_columns(columns):
    text = Explored(trace_inspector(make_run(steps=(1,), groups=1).rollouts[columns])).first.text
    assert "s1g0i0" in text and "Step 0" in text
    assert ("? not graded" in text) == ("correct" not in columns)


def test_live_groups_come_from_the_problems():
    frame = make_run(steps=(1,)).rollouts.drop(columns=["step", "group", "sample"])
    traces = Traces(frame)
    assert (traces.steps, traces.groups(0), len(traces.rows(0, 1))) == ([0], [0, 1], 4)


def test_missing_values_in_a_row():
    changes = dict.fromkeys(("reward", "advantage", "answer", "reason"), math.nan) | {"correct": None, "data": None}
    page = Explored(trace_inspector(make_run(**changes))).first
    assert "none" in page.text and "? not graded" in page.text and "nan" not in page.text


def test_equal_rewards_teach_nothing():
    assert "learns nothing" in Explored(trace_inspector(make_run(advantage=0.0))).first.text


@pytest.mark.parametrize("text", HOSTILE)
def test_every_field_of_a_trace_is_text(text):
    fields = dict.fromkeys(("problem_id", "gold", "prompt", "answer", "reason"), text)
    # objects, since pandas' own strings refuse half a surrogate pair
    run = make_run(name=text, method=text, dtype=object, data={}, tokens=[text, "b"], **fields)
    html = trace_inspector([run, run])
    found = Explored(html)
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
    allowed |= {"header", "pre", "details", "summary", "script"}
    assert {tag for tag, _ in found.first.elements} <= allowed
    assert found.first.text.count(plain(text)) >= 4
    assert all(trace["tokens"] == [Page(f"<i>{token_text(text)}</i>").text, "b"] for trace in found.data["traces"])
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200f\u2028-\u202e\u2066-\u2069]", html.split("<script>")[0])
    html.encode("utf-8")


def token_text(text: str) -> str:
    return re.sub("<[^>]*>", "", token_spans([text]))


def test_math_in_a_trace_is_left_alone():
    assert 'class="rlino-explorer mathjax_ignore"' in trace_inspector(make_run(gold="$5$"))


def test_a_long_line_in_a_group_is_shown_whole():
    long = "y" * 100_000
    found = Explored(trace_inspector(make_run(tokens=[long], weights=[0.1])))
    assert long in found.first.text and found.tokens(found.page("group"))[0] == [long]


def test_unknown_choices_and_places_are_refused():
    run = make_run()
    for arguments in ({"colour": "red"}, {"step": 1, "group": 9}, {"groups": [7]}):
        with pytest.raises(RlinoError):
            trace_inspector(run, **arguments)
    with pytest.raises(RlinoError, match="steps 1, 2, 10"):
        trace_inspector(run, steps=[3])
    with pytest.raises(RlinoError, match="not a int"):
        trace_inspector([1, 2])
    with pytest.raises(RlinoError, match="the list is empty"):
        trace_inspector([])
    with pytest.raises(RlinoError, match="`tokens` or `response`"):
        trace_inspector(pd.DataFrame({"reward": [1.0]}))


def test_given_steps_and_groups_are_there():
    found = Explored(trace_inspector(make_run(), steps=[1, 10], groups=[0, 1], budget=1))
    assert found.controls["step"]["options"] == ["1", "10"] and len(found.data["traces"]) == 16


def test_the_budget_limits_what_is_there():
    run = make_run(steps=tuple(range(1, 64)), groups=2)
    budgets = (10_000, 30_000, 100_000)
    pages = [trace_inspector(run, budget=budget) for budget in budgets]
    rest = len(trace_inspector(make_run(steps=(1,), groups=1)))  # style, script, and one group twice
    assert len(pages[0]) < len(pages[1]) < len(pages[2])
    assert all(len(page) < rest + budget for page, budget in zip(pages, budgets, strict=True))
    assert {"1", "63", "32"} <= set(Explored(pages[1]).controls["step"]["options"])  # spread over training


def test_an_order_whose_every_beginning_is_spread():
    assert list(spread([1, 2, 3, 4, 5])) == [1, 5, 3, 2, 4] and list(spread([7])) == [7] and list(spread([])) == []


def test_a_huge_group_stays_bounded():
    rows = [response(1, 0, i, [" 77"] * 1024, correct=i % 2, group_size=64) for i in range(64)]
    found = Explored(trace_inspector(pd.DataFrame(rows)))
    assert len(found.html) < 3_000_000
    assert found.first.text.count(" 77") == 64 * 1024 and "Only the first 125 of 1,024 tokens" in found.first.text


def test_menus_name_runs_by_method_and_seed():
    runs = [make_run(), make_run("countdown/f-s1", "f_isft_pos", 1), make_run("lr/grpo-s0")]
    names = Explored(trace_inspector(runs)).controls["run"]["options"]
    assert names == ["GRPO, seed 0 (countdown/grpo-s0)", "F-ISFT⁺, seed 1", "GRPO, seed 0 (lr/grpo-s0)"]


def test_runs_without_rollouts_say_so():
    class Unreadable(SimpleNamespace):
        @property
        def rollouts(self):
            raise ValueError("a bad <line>")

    empty = SimpleNamespace(name="countdown/empty", method="grpo", seed=1, rollouts=pd.DataFrame())
    text = Explored(trace_inspector([make_run(), empty, Unreadable(name="x", method="x", seed=0)])).first.text
    assert "countdown/empty has no recorded rollouts." in text and "cannot be read: a bad <line>" in text
    assert "no recorded rollouts" in trace_inspector(empty)


def test_a_notebook_shows_html_and_a_short_line():
    data, _ = DisplayFormatter().format(trace_inspector(make_run()))
    assert set(data) == {"text/html", "text/plain"} and data["text/plain"].startswith("<Html, ")


def test_the_page_reads_the_same_in_every_notebook():
    a, b = (trace_inspector([make_run(), make_run("b", "f_isft_neg")]) for _ in range(2))
    assert a == b and "id=" not in re.sub("data-id=", "", a.split("<script")[0])


def test_an_advantage_without_end_is_no_number_in_the_page():
    ends = (math.inf, -math.inf)
    rows = [response(1, 0, i, ["a"], correct=i) | {"advantage": end} for i, end in enumerate(ends)]
    assert "Infinity" not in trace_inspector(pd.DataFrame(rows))
