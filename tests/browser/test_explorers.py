"""Every explorer in a real browser: each control by keyboard and by mouse, on a page and in JupyterLab."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from driving import SEEN, act, by_keyboard, by_mouse
from filelock import FileLock

from rlino_lib.evaluation.scores import Scores
from rlino_lib.widgets import credit_explorer, mdp_explorer, run_comparer, search_view, trace_inspector
from rlino_lib.widgets.gradient import gradient_microscope, weights_explorer
from rlino_lib.widgets.length import length_explorer
from rlino_lib.widgets.pass_at_k import pass_at_k_explorer
from rlino_lib.widgets.tokens import printable

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    "<!--<script>",
    "<img src=x onerror=alert(3)>",
    "\" onfocus=alert(4) autofocus x='",
    "' onmouseover='alert(5)",
    "</pre></section></main><iframe srcdoc='<script>alert(6)</script>'>",
    "javascript:alert(7) data:text/html,<script>alert(8)</script>",
    "a & b &lt;b&gt; &#60;i&#62; \\u003cu>",
    "line\u2028separator\u2029paragraph",
    "\u202egnitirw s'tsrif\u2066 \u200f\ufeff",
    "مرحبا بالعالم",
    "nul \x00 escape \x1b[31m half \ud83d pair",
    '{"a": [1, "</script>"]} $x^2$ \\(y\\) `code` ${alert(9)}',
    'data-slot="group"> data-trace="0">',
]
LONG = "W" * 100_000


def rollouts(texts: list[str] | None = None, steps: tuple[int, ...] = (1, 2, 10)) -> pd.DataFrame:
    """Groups of four responses, right and wrong, of different lengths; `texts` stand wherever text can stand."""
    rows = []
    for step in steps:
        for group in range(2):
            for sample in range(4):
                right = (step + group + sample) % 2 == 0
                tokens = [" 1", " +", " 2", "\n", f" s{step}g{group}i{sample}"] * (sample % 3 + 1)
                tokens = [*texts, *[" x"] * (3 - sample)] if texts else tokens
                text = texts[(group + sample) % len(texts)] if texts else ""
                places = range(len(tokens))
                rows.append({
                    "step": step, "group": group, "sample": sample, "problem_id": text or f"{group}",
                    "gold": text or f"1 + 2 = {step}", "prompt": text or f"Numbers 1 2 {group} <think>",
                    "data": {"question": text or f"problem {group}"}, "tokens": list(tokens),
                    "logprobs": [-0.1 * t - 0.01 * sample for t in places], "entropies": [0.2 * t for t in places],
                    "weights": [(0.1 if right else -0.1) / len(tokens)] * len(tokens), "reward": float(right),
                    "advantage": 1.0 if right else -1.0, "correct": right, "answer": text or "1 + 2",
                    "reason": text or f"equals {sample}", "length": len(tokens), "clipped": sample == 3,
                })  # fmt: skip
    return pd.DataFrame(rows)


def run(
    seed: int, texts: list[str] | None = None, name: str = "countdown/grpo", method: str = "grpo"
) -> SimpleNamespace:
    """A stand-in for a recorded run."""
    metrics = pd.DataFrame({"step": [0, 5, 10], "eval/accuracy": [0.2, None, 0.1 * seed + 0.3]})
    frame = rollouts(texts)
    if method != "grpo":
        frame["tokens"] = [[*tokens, f" {method}"] for tokens in frame["tokens"]]
        frame["weights"] = frame["logprobs"] = frame["entropies"] = [[0.5] * len(tokens) for tokens in frame["tokens"]]
    config = {"task": "countdown"}
    return SimpleNamespace(
        name=f"{name}-s{seed}", method=method, seed=seed, rollouts=frame, metrics=metrics, config=config
    )


def searches(text: str = "") -> pd.DataFrame:
    """Groups of Countdown responses that search; `text` is what one of them writes beside."""
    miss, hit = " 8 - 2 = 6, 6 * 4 = 24", " 8 * 4 = 32, 32 * 2 = 64"
    long = f"{miss} no\n{hit} no\n 4 * 8 = 32, 32 / 2 = 16 no\n{hit} yes </think> <answer> ( 8 * 4 ) * 2 </answer>"
    responses = [long, f"{miss} no {text}</think> <answer> ( 8 - 2 ) * 4 </answer>", f"{hit} no\n{miss} no\n 8 * 4 ="]
    frame = pd.DataFrame({"response": responses, "correct": [True, False, False]}, dtype=object).assign(
        group=0, clipped=False
    )
    frame = frame.assign(problem_id="countdown/2-4-8=64", data=[{"nums": [8, 2, 4], "target": 64}] * 3)
    other = frame.iloc[::-1].assign(group=1, problem_id="countdown/8-4-2=64")
    return pd.concat([part.assign(step=step) for step in (1, 2) for part in (frame, other)], ignore_index=True)


def scores(text: str = "") -> Scores:
    """Two groups of four sampled responses with scalar products of their scores."""
    mask = torch.arange(6) < torch.tensor([[2], [3], [4], [5], [6], [2], [3], [4]])
    tokens = [[f" {text or k}"] * int(row.sum()) for k, row in enumerate(mask)]
    lines = torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rewards = torch.tensor([1.0, 0, 0, 1, 0, 0, 1, 0])
    sampled = SimpleNamespace(
        mask=mask, lengths=mask.sum(1), rewards=rewards, correct=rewards > 0, group_size=4, prompts=[text or "1 2"] * 2
    )
    return Scores(sampled, tokens, lines @ lines.T, 8)


def credited(texts: list[str] | None = None) -> list[dict]:
    """Three responses with two credits; `texts` stand wherever text can stand."""
    responses = []
    for k in range(3):
        tokens = texts or [" 1", " +", " 2", "\n", f" = {k}"]
        names = texts[:2] if texts else ["uniform", "exact"]
        rows = [[0.5 - k] * len(tokens), [0.1 * t - 0.2 for t in range(len(tokens))]]
        values = {names[1]: [None, *[0.1 * k] * (len(tokens) - 1)]}
        prompt = texts[k] if texts else f"problem {k}"
        responses.append({
            "prompt": prompt, "tokens": tokens, "reward": float(k > 0), "correct": k > 0,
            "credits": dict(zip(names, rows, strict=True)), "values": values,
        })  # fmt: skip
    return responses


def evaluations() -> dict[str, pd.DataFrame]:
    """Three models on the same sixteen problems."""
    ids = [f"countdown/1-2={k}" for k in range(16)]
    return {m: pd.DataFrame({"id": ids, "n": 64, "c": [k * k % (9 * j) for k in range(16)]})
            for j, m in enumerate(("base", "grpo", "nsr"), 2)}  # fmt: skip


EXPLORERS: dict[str, Callable[[], str]] = {
    "trace inspector": lambda: trace_inspector([run(0), run(1)]),
    "search view": lambda: search_view(searches()),
    "weights explorer": weights_explorer,
    "gradient microscope": lambda: gradient_microscope(scores()),
    "length explorer": length_explorer,
    "pass@k explorer": lambda: pass_at_k_explorer(evaluations(), floor=[0.01] * 16),
    "MDP explorer": mdp_explorer,
    "credit explorer": lambda: credit_explorer(credited()),
    "run comparer": lambda: run_comparer([run(0), run(0, method="f_isft_neg"), run(0, method="dr_grpo")]),
}
HOSTILE_EXPLORERS: dict[str, Callable[[list[str]], str]] = {
    "trace inspector": lambda texts: trace_inspector(
        [run(0, texts, texts[0]), run(1, texts, texts[1])], steps=[1, 2], groups=[0, 1]
    ),
    "search view": lambda texts: search_view(searches(" ".join(texts))),
    "pass@k explorer": lambda texts: pass_at_k_explorer(
        {f"{texts[0]} {name}": frame for name, frame in evaluations().items()},
        dict(zip(evaluations()["base"]["id"], texts, strict=True)),
    ),
    "gradient microscope": lambda texts: gradient_microscope(scores(" ".join(texts))),
    "credit explorer": lambda texts: credit_explorer(credited(texts), budget=10**7),
    "run comparer": lambda texts: run_comparer(
        [run(0, texts, texts[0]), run(0, texts, texts[1], "f_isft_neg")], budget=10**7
    ),
}


@pytest.fixture
def explorer(tmp_path_factory) -> Callable[[str], str]:
    """An explorer by its name, made once for all workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "explorers"
    folder.mkdir(exist_ok=True)

    def make(name: str) -> str:
        path = folder / f"{name}.html"
        with FileLock(f"{path}.lock"):
            if not path.exists():
                path.write_text(EXPLORERS[name](), encoding="utf-8")
        return path.read_text(encoding="utf-8")

    return make


# --- on a page -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drive", [by_keyboard, by_mouse])
@pytest.mark.parametrize("name", EXPLORERS)
def test_controls_on_a_page(show, explorer, name, drive):
    page = show(explorer(name))
    drive(page.locator(".rlino-explorer"), page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", EXPLORERS)
def test_axe_on_a_page(show, axe, explorer, name, scheme):
    page = show(explorer(name), scheme=scheme)
    assert axe(page) == []


def test_controls_are_large_enough_to_touch(watch, tmp_path):
    """24 pixels for a mouse, 44 for a finger."""
    path = tmp_path / "page.html"
    path.write_text(f"<!doctype html><meta charset=utf-8><title>A page</title>{search_view(searches())}", "utf-8")
    for touch, least in ((False, 24), (True, 44)):
        with watch(has_touch=touch, is_mobile=touch) as context:
            page = context.new_page()
            page.goto(path.as_uri())
            sizes = page.locator(".rlino-control :is(select, button, input)").evaluate_all(
                "fields => fields.map(field => field.getBoundingClientRect()).filter(box => box.width)"
                ".map(box => Math.min(box.width, box.height))"
            )
            assert len(sizes) > 5 and min(sizes) >= least


def test_a_search_opens_at_its_first_attempt(show, explorer):
    page = show(explorer("search view"))
    assert page.locator("tr.rlino-now th").all_inner_texts() == ["1"]
    assert page.locator("svg g.rlino-now").count() > 0


def test_a_dot_is_chosen_by_a_click_and_moves_with_k(show, explorer):
    page = show(explorer("pass@k explorer"))
    dot = page.locator("[data-dots] > g").nth(7)
    before = dot.locator("path").get_attribute("transform")
    act(page.locator(".rlino-explorer"), "Problem: countdown/1-2=7", dot.click)
    assert page.locator("[data-dot]").inner_text() == f"○ {dot.locator('title').text_content()}"
    field = page.get_by_role("slider", name="Samples")
    field.focus()
    act(page.locator(".rlino-explorer"), "Samples", page.keyboard.press, "End")
    assert dot.locator("path").get_attribute("transform") != before
    assert (
        page.locator("[data-ring]").get_attribute("transform").endswith(dot.locator("path").get_attribute("transform"))
    )


def test_two_explorers_on_a_page_do_not_mix(show, explorer):
    one, other = show(*[explorer("trace inspector")] * 2).locator(".rlino-explorer").all()
    before = other.evaluate(SEEN)
    act(one, "Step", one.get_by_role("combobox", name="Step", exact=True).select_option, index=2)
    assert other.evaluate(SEEN) == before != one.evaluate(SEEN)


# --- hostile text ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE_EXPLORERS)
def test_hostile_text_is_text(show, name):
    page = show(HOSTILE_EXPLORERS[name]([*HOSTILE, LONG]))
    section = page.locator(".rlino-explorer")
    by_mouse(section, page, most=1)
    seen = section.evaluate("node => node.textContent")
    assert [text for text in map(printable, [*HOSTILE, LONG]) if text not in seen] == []
    assert (
        page.locator("img:not([src^='data:image/svg+xml']), iframe, [onfocus], [onmouseover], [onerror]").count() == 0
    )
    assert page.locator("script").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page scrolls sideways"


# --- in JupyterLab ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drive", [by_keyboard, by_mouse])
def test_controls_in_jupyterlab(watch, lab, explorer, drive):
    """All explorers in one saved notebook, which has no kernel; the keys stay with the controls."""
    lab.save({name: explorer(name) for name in EXPLORERS}, f"explorers-{drive.__name__}")
    with watch(lab.url) as context:
        notebook = lab.open(context, f"explorers-{drive.__name__}")
        notebook.locator(".rlino-controls").last.wait_for()
        cells = notebook.locator(".jp-CodeCell").count()
        for section in notebook.locator(".rlino-explorer").all():
            drive(section, context.pages[0], most=1)
        assert notebook.locator(".jp-CodeCell").count() == cells
        assert context.pages[0].locator(".jp-Dialog").count() == 0


def test_the_first_choice_stays_where_scripts_are_stripped(watch, lab, explorer):
    lab.save({name: explorer(name) + "<p>not signed</p>" for name in EXPLORERS}, "stripped", trust=False)
    with watch(lab.url) as context:
        notebook = lab.open(context, "stripped")
        notebook.get_by_text("not signed").last.wait_for()
        assert notebook.locator(".rlino-controls").count() == 0
        for section in notebook.locator(".rlino-explorer").all():
            assert section.locator("pre, table, img").count() and len(section.inner_text()) > 100
