"""The pass@k explorer: its numbers are the library's, its dots stand where they say, and hostile text stays text."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pandas as pd
import pytest

from rlino_lib.analysis.pass_at_k import paired_difference, pass_at_k, pass_at_k_table
from rlino_lib.errors import RlinoError
from rlino_lib.widgets import pass_at_k as module
from rlino_lib.widgets.pass_at_k import pass_at_k_explorer
from tests.widgets.test_widgets import HOSTILE, Explored, Page
from tests.widgets.test_widgets_gradient import read

KS = [1, 2, 4, 8, 16]
COUNTS = {
    "base": [0, 0, 1, 2, 3, 5, 8, 13, 64, 40, 7, 30],
    "grpo": [0, 2, 0, 2, 30, 5, 20, 40, 64, 20, 0, 31],
    "again": [1, 0, 0, 3, 2, 6, 9, 12, 64, 41, 6, 28],
}


def frame_of(counts, n=64):
    return pd.DataFrame({"id": [f"countdown/1-2={i}" for i in range(len(counts))], "n": n, "c": counts})


FRAMES = {name: frame_of(counts) for name, counts in COUNTS.items()}


@pytest.fixture(scope="module")
def explored():
    return Explored(pass_at_k_explorer(FRAMES, floor=[0.01] * 12))


def choose(explored, a, b, k):
    names = list(COUNTS)
    return {"a": names.index(a), "b": names.index(b), "k": KS.index(k)}


@pytest.mark.parametrize("a, b, k", [("base", "grpo", 1), ("grpo", "base", 16), ("again", "grpo", 4)])
def test_the_words_have_the_numbers_of_the_library(explored, a, b, k):
    text = Page(explored.page("words", **choose(explored, a, b, k))).text
    rows = [pass_at_k_table(FRAMES[name], [k]).iloc[0] for name in (a, b)]
    shares = [float(x) / 100 for x in re.findall(r"([\d.]+)%", text)]
    wanted = [row[name] for row in rows for name in ("pass_at_k", "low", "high")]
    assert shares == pytest.approx(wanted, abs=6e-4) and text.count(f"pass@{k} =") == 2
    gap = paired_difference(FRAMES[b], FRAMES[a], [k]).iloc[0]
    points = [read(x) / 100 for x in re.search(r"B − A: (\S+) points \[(\S+), (\S+)\]", text).groups()]
    assert points == pytest.approx([gap["difference"], gap["low"], gap["high"]], abs=2e-3)


def test_the_cells_and_the_marks_count_problems(explored):
    cells = Page(explored.page("words", **choose(explored, "base", "grpo", 1))).text
    assert "Of 12 problems, with 64 samples of each, both solve 8, A alone 2, B alone 1, and neither 1." in cells
    assert "higher on 3 problems (▲) and lower on 2 (▼)" in cells  # 3 → 30, 8 → 20, 13 → 40; 40 → 20, 7 → 0
    assert explored.data["dots"]["moves"][0][1] == "000010110220"
    assert explored.data["dots"]["moves"][1][0] == "000020220110"
    other = Page(explored.page("words", **choose(explored, "grpo", "base", 1))).text
    assert "A alone 1, B alone 2" in other and "higher on 2 problems (▲) and lower on 3 (▼)" in other


def test_dots_are_at_the_estimates_of_each_problem(explored):
    dots = explored.data["dots"]
    for m, counts in enumerate(COUNTS.values()):
        for k, row in zip(KS, dots["chances"][m], strict=True):
            assert row == [round(1000 * pass_at_k(64, c, k)) for c in counts]
    page = explored.page("dots")
    places = re.findall(r'<path transform="translate\(([\d.]+) -([\d.]+)\)"', page)
    k = KS[explored.controls["k"]["start"]]
    chances = [[pass_at_k(64, c, k) for c in COUNTS[name]] for name in ("base", "grpo")]
    for place, *both in zip(places, *chances, strict=True):
        assert [float(x) for x in place] == pytest.approx([dots["width"] * math.sqrt(p) for p in both], abs=0.06)
    assert "countdown/1-2=3" in page and Page(page).count("title") == 12


def test_curves_have_the_means_the_chosen_k_and_a_dotted_floor(explored):
    page = explored.page("curves", **choose(explored, "base", "grpo", 2))
    paths = [attrs for tag, attrs in Page(page).elements if tag == "path"]
    low, top = (float(y) for y in np.array(re.findall(r'd="M60 ([\d.]+)h270"', page))[[0, -1]])
    scale = 1 / (low - top)
    assert ">100%<" in page
    lines = [re.findall(r"[\d.]+ ([\d.]+)", p["d"]) for p in paths if p.get("fill") == "none"]
    floor, *curves = [[scale * (low - float(y)) for y in line] for line in lines]
    for line, name in zip(curves, ("base", "grpo"), strict=True):
        means = pass_at_k_table(FRAMES[name])["pass_at_k"]
        assert line == pytest.approx(means.tolist(), abs=2e-3)
    assert floor == pytest.approx([1 - 0.99**k for k in KS], abs=2e-3)
    (mark,) = [p for p in paths if p.get("stroke-dasharray") == "4 3"]
    assert mark["d"] == "M127.5 284.0L127.5 14.0"  # the second of five places from 60 to 330
    assert "Dotted" in explored.first.text
    assert "Dotted" not in Page(pass_at_k_explorer(FRAMES)).text


def test_a_model_is_compared_with_others_only(explored):
    for name in ("words", "curves"):
        assert explored.page(name, **choose(explored, "grpo", "grpo", 1)) is None
    assert explored.controls["a"]["options"] == ["base model", "GRPO", "again"]
    assert explored.controls["k"]["options"] == [f"k = {k}" for k in KS]  # n ≥ 4k


def test_problems_are_matched_by_id_whatever_their_order():
    shuffled = FRAMES | {"grpo": FRAMES["grpo"].sample(frac=1, random_state=0)}
    assert pass_at_k_explorer(shuffled) == pass_at_k_explorer(FRAMES)


def test_hostile_text_stays_text():
    frames = {f"{text} {k}": frame_of(COUNTS["base"]) for k, text in enumerate(HOSTILE[:2])}
    texts = {f"countdown/1-2={i}": HOSTILE[i] for i in range(12)}
    found = Explored(pass_at_k_explorer(frames, texts))
    page = Page(found.page("dots"))
    assert page.count("script") == 0 and page.count("img") == 0 and page.text.count("alert(1)") == 3
    assert found.data["dots"]["names"][0] == HOSTILE[0] and "‮" not in "".join(found.data["dots"]["names"])
    assert "<script>alert(1)</script>" in found.first.text


@pytest.mark.parametrize(
    "frames, settings, words",
    [
        ({"base": FRAMES["base"]}, {}, "two models"),
        (FRAMES | {"grpo": FRAMES["grpo"].assign(n=128)}, {}, r"one number of samples .* not \[64, 128\]"),
        ({name: frame_of([0, 1], n=3) for name in "ab"}, {}, "4 or more"),
        (FRAMES | {"grpo": FRAMES["grpo"][1:]}, {}, "same problems"),
        ({name: frame_of([]) for name in "ab"}, {}, "4 or more"),
        (FRAMES, {"floor": [0.1]}, "each of the 12 problems"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(frames, settings, words):
    with pytest.raises(RlinoError, match=words) as caught:
        pass_at_k_explorer(frames, **settings)
    assert "\n" not in str(caught.value)


def test_it_stays_small_with_the_book_s_numbers_of_problems():
    many = frame_of([i % 60 for i in range(256)])
    pages = pass_at_k_explorer({name: many.assign(c=many["c"] // (k + 1)) for k, name in enumerate("abc")})
    assert len(pages) < 200_000


def test_a_page_of_any_evaluations_has_all_parts(tmp_path, monkeypatch):
    """Sentences, three figures and the explorer; a folder without an evaluation is one line."""
    rng = np.random.default_rng(0)
    for name in ("base", "again", "mine"):
        (tmp_path / name).mkdir()
        c = rng.binomial(64, np.linspace(0.01, 0.6, 20))
        frame = pd.DataFrame({"id": [f"p{i}" for i in range(20)], "n": 64, "c": c})
        frame.to_json(tmp_path / name / "problems.jsonl", orient="records", lines=True)
        (tmp_path / name / "evaluation.json").write_text('{"asked": {}, "found": {}}')
    parts = []
    monkeypatch.setattr(module, "display", lambda *outputs: parts.extend(outputs))
    module.sharpening_page(tmp_path / "base", tmp_path / "again", {"<b>mine": [tmp_path / "mine"]})
    assert "In one sample &lt;b&gt;mine is right in " in parts[0].data
    assert [type(part).__name__ for part in parts] == ["Markdown", "Figure", "Figure", "Figure", "Html"]
    with pytest.raises(RlinoError, match="no complete evaluation is recorded"):
        module.sharpening_page(tmp_path / "base", tmp_path / "none", {})
    for models in ({"base": [tmp_path / "mine"]}, {"mine": []}):
        with pytest.raises(RlinoError, match="a name of its own"):
            module.sharpening_page(tmp_path / "base", tmp_path / "again", models)
    for name, more in {"base": {"seed": 0}, "again": {"seed": 0}, "mine": {"seed": 0, "temperature": 0.1}}.items():
        asked = {"task": "countdown", "temperature": 1.0} | more
        (tmp_path / name / "evaluation.json").write_text(json.dumps({"asked": asked, "found": {}}))
    with pytest.raises(RlinoError, match="with another seed"):
        module.sharpening_page(tmp_path / "base", tmp_path / "again", {})
    with pytest.raises(RlinoError, match="the same temperature"):
        module.sharpening_page(tmp_path / "base", tmp_path / "again", {"mine": [tmp_path / "mine"]})
    (tmp_path / "base" / "problems.jsonl").write_text('{"id": "p0", "n": 64}\n')
    module.counts.cache_clear()
    with pytest.raises(RlinoError, match="without id, n or c"):
        module.counts(tmp_path / "base")
