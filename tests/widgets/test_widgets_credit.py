"""The credit explorer: the same tokens in a row for each credit, on one scale, and text that stays text."""

from __future__ import annotations

import pytest

from rlino_lib.errors import RlinoError
from rlino_lib.widgets import credit_explorer
from rlino_lib.widgets.tokens import plain, printable
from tests.widgets.test_widgets import HOSTILE, Explored

TOKENS = [" 8", " −", " 2", "\n", " yes"]


def a_response(tokens=TOKENS, right=True, prompt="Numbers 8 2 target 6", **changes):
    n = len(tokens)
    credits = {"uniform": [0.5 if right else -0.5] * n, "exact": [0.0] * (n - 2) + [-0.25, 1.0]}
    values = {"exact": [0.5] * (n - 2) + [None, 0.25]}
    return {
        "prompt": prompt, "tokens": list(tokens), "reward": float(right), "correct": right, "credits": credits,
        "values": values,
    } | changes  # fmt: skip


def test_the_tokens_stand_once_for_each_credit():
    found = Explored(credit_explorer([a_response(), a_response(right=False, tokens=[" a", " b"])]))
    assert found.tokens(found.page("rows")) == [[printable(t) for t in TOKENS]] * 2
    assert found.tokens(found.page("rows", response=1)) == [[" a", " b"]] * 2
    assert "uniform" in found.first.text and "exact" in found.first.text and "✓ right" in found.first.text
    assert "✗ wrong" in found.page("rows", response=1) and found.controls["response"]["options"][1].startswith("2: wr")


def test_one_scale_holds_for_all_rows_and_responses():
    large = a_response(credits={"exact": [0.0, 0, 0, 0, 2.0]})
    found = Explored(credit_explorer([a_response(), large]))
    uniform, exact, other = (trace["levels"]["credits"] for trace in found.data["traces"])
    assert other == "....8"  # full colour at 2
    assert uniform == "2" * 5  # 0.5 is a quarter of it
    assert exact == "...a4"  # −0.25 below 0, and 1 half way
    assert "+2" in found.first.text  # in the legend of the first page


def test_tooltips_have_the_advantage_and_the_value_before():
    found = Explored(credit_explorer([a_response()]))
    uniform, exact = (trace["values"] for trace in found.data["traces"])
    assert uniform == {"A": "0.5"}
    assert exact == {"A": "0 0 0 -0.25 1", "V before": "0.5 0.5 0.5 – 0.25"}
    titles = [a["title"] for a in found.first.having() if "title" in a]
    assert titles[-1].endswith("token 5 · A 1 · V before 0.25")  # without a script as well


def test_rows_say_their_largest():
    text = Explored(credit_explorer([a_response()])).first.text
    assert "uniform: +0.5 on every token" in text
    assert "exact: largest +1, token 5: yes" in text
    assert "0 on every token" in credit_explorer([a_response(credits={"exact": [0.0] * 5})])
    assert "no advantages" in credit_explorer([a_response(credits={"exact": [None] * 5})])


def test_values_may_be_missing():
    found = Explored(credit_explorer([a_response(values={})]))
    assert "No value before the step is recorded here" in found.html and all(
        "values" not in t["levels"] for t in found.data["traces"]
    )
    bare = a_response()
    del bare["values"]
    assert credit_explorer([bare]) == credit_explorer([a_response(values=None)])


def test_tokens_that_the_policy_did_not_write_are_dashed_and_without_credit():
    credits = {"uniform": [None, None, 0.5, 0.5, 0.5]}
    found = Explored(credit_explorer([a_response(credits=credits, values={}, foreign=[1, 1, 0, 0, 0])]))
    (trace,) = found.data["traces"]
    assert trace["foreign"] == "11000" and trace["tokens"] == [printable(t) for t in TOKENS]
    assert "uniform: +0.5 on every token" in found.first.text and "not written by the policy" in found.first.text
    assert "not written by the policy" not in credit_explorer([a_response()])
    with pytest.raises(RlinoError, match="5 tokens but 1 marks of who wrote them"):
        credit_explorer([a_response(foreign=[1])])


def test_colours_are_a_choice_for_the_keyboard():
    found = Explored(credit_explorer([a_response()]))
    assert found.controls["colour"]["values"] == ["credits", "values"] and found.controls["colour"]["act"] == "colour"
    assert [a["data-legend"] for a in found.first.having() if "data-legend" in a] == ["credits", "values"]
    assert found.controls["response"]["buttons"]


@pytest.mark.parametrize("text", HOSTILE)
def test_every_field_is_text(text):
    html = credit_explorer([
        a_response([text, "b"], prompt=text, credits={text: [1.0, 2.0]}, values={text: [0.1, None]}),
        a_response([text], prompt=text + "\n" + "x" * 100, credits={text: [1.0]}, values={}),
    ])  # fmt: skip
    found = Explored(html)
    allowed = {"style", "section", "p", "strong", "div", "code", "span", "u", "pre", "details", "summary", "script"}
    assert {tag for tag, _ in found.first.elements} <= allowed
    assert found.first.text.count(plain(text)) >= 3
    assert [trace["tokens"] for trace in found.data["traces"]] == [[printable(text), "b"], [printable(text)]]
    html.encode("utf-8")


def test_a_long_page_leaves_responses_out_and_says_so():
    found = Explored(credit_explorer([a_response([" x"] * 500)] * 30, budget=20_000))
    kept = len(found.controls["response"]["options"])
    assert 1 <= kept < 30 and f"{30 - kept} more responses are left out" in found.first.text


@pytest.mark.parametrize(
    "responses, words",
    [
        ([], "empty"),
        ([{"prompt": "a"}], "response 1 has no tokens, reward"),
        ([a_response(), a_response(credits={"a": [1.0]})], "response 2, a: 5 tokens but 1 credits"),
        ([a_response(values={"exact": [1.0]})], "5 tokens but 1 values"),
        ([a_response(credits={"<b>\x00": ["x"] * 5})], "<b>⟨U\\+0000⟩: credits that are no numbers"),
        ([a_response(credits={})], "no credits"),
        ([a_response(credits=[0.5] * 5)], "credits must be a table of names and a number for each token"),
        ([a_response(credits={"a": 0.5})], "response 1, a: credits that are no numbers"),
        ([a_response(values={"critic": [0.5] * 5})], "values of critic, which is none of its credits"),
        ([a_response() | {"tokens": None}], "tokens must be a list"),
    ],
)
def test_what_does_not_fit_is_refused(responses, words):
    with pytest.raises(RlinoError, match=words):
        credit_explorer(responses)
