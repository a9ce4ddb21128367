"""Every explorer in a real browser: each control by keyboard and by mouse, on a page and in JupyterLab."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from rlino_lib.widgets import trace_inspector
from rlino_lib.widgets.tokens import printable

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

SEEN = """section => { const copy = section.cloneNode(true);
  copy.querySelectorAll('.rlino-controls, .rlino-status, script, style').forEach(node => node.remove());
  let hash = 0;
  for (const letter of copy.innerHTML) hash = (31 * hash + letter.codePointAt(0)) | 0;
  return hash; }"""  # a hash: pages can be long
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
                tokens = texts or [" 1", " +", " 2", "\n", f" s{step}g{group}i{sample}"] * (sample % 3 + 1)
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


def run(seed: int, texts: list[str] | None = None, name: str = "countdown/grpo") -> SimpleNamespace:
    """A stand-in for a recorded run."""
    return SimpleNamespace(name=f"{name}-s{seed}", method="grpo", seed=seed, rollouts=rollouts(texts))


EXPLORERS: dict[str, Callable[[], str]] = {
    "trace inspector": lambda: trace_inspector([run(0), run(1)]),
}
HOSTILE_EXPLORERS: dict[str, Callable[[list[str]], str]] = {
    "trace inspector": lambda texts: trace_inspector(
        [run(0, texts, texts[0]), run(1, texts, texts[1])], steps=[1, 2], groups=[0, 1]
    ),
}


# --- driving ---------------------------------------------------------------------------------------------------------


def act(section: Locator, label: str, do: Callable[..., object], *arguments: object, **settings: object) -> int:
    """What is seen after something was done, which the status line has to tell."""
    do(*arguments, **settings)
    section.locator(".rlino-status").filter(has_text=re.compile("^" + re.escape(label))).wait_for()
    return section.evaluate(SEEN)


def controls_of(section: Locator) -> Iterator[tuple[str, Locator, list[Locator]]]:
    """Of each control that is shown: its label, its menu or slider, and its buttons."""
    for box in section.locator(".rlino-control:visible").all():
        field = box.locator("select, input")
        yield (
            field.evaluate("field => field.labels[0].firstChild.textContent.trim()"),
            field,
            box.locator("button").all(),
        )


def has_focus(field: Locator) -> bool:
    return field.evaluate("field => field === document.activeElement")


def by_keyboard(section: Locator, page: Page) -> None:
    """Tab leads to each control in its turn; then the arrow keys choose, and buttons take Enter and Space."""
    fields = [field for _, field, _ in controls_of(section)]
    fields[0].focus()
    for label, field, buttons in controls_of(section):
        assert has_focus(field), f"Tab does not lead to {label}"
        page.keyboard.press("Tab")
        for _ in buttons:
            page.keyboard.press("Tab")
    for label, field, buttons in controls_of(section):
        slider = field.get_attribute("type") == "range"
        back, on = ("ArrowLeft", "ArrowRight") if slider else ("ArrowUp", "ArrowDown")
        place, last = field.evaluate(
            "field => field.options ? [field.selectedIndex, field.options.length - 1] : [field.value, field.max]"
        )
        assert int(last) > 0, f"{label} has one option"
        field.focus()
        seen = {section.evaluate(SEEN)}
        for key in [back] * min(int(place), 2) + [on] * min(int(last), 5):
            seen.add(act(section, label, page.keyboard.press, key))
            assert has_focus(field), f"{label} loses the focus"
        assert len(seen) > 1, f"{label} changes nothing"
        for button, key in zip(buttons, ("Enter", "Space"), strict=False):
            if button.is_enabled():
                before = section.evaluate(SEEN)
                button.focus()
                assert act(section, label, page.keyboard.press, key) != before
                assert has_focus(button), f"a button of {label} loses the focus"


def by_mouse(section: Locator, page: Page) -> None:
    """Each option of a menu, a slider near both ends, and the buttons."""
    for label, field, buttons in controls_of(section):
        seen = {section.evaluate(SEEN)}
        if field.get_attribute("type") == "range":
            size = field.bounding_box()
            for share in (0.1, 0.9):
                at = {"x": share * size["width"], "y": size["height"] / 2}
                seen.add(act(section, label, field.click, position=at))
        else:
            for k in range(min(field.locator("option").count(), 5)):
                seen.add(act(section, label, field.select_option, index=k))
        assert len(seen) > 1, f"{label} changes nothing"
        for button in buttons:
            if button.is_enabled():
                before = section.evaluate(SEEN)
                assert act(section, label, button.click) != before


# --- on a page -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drive", [by_keyboard, by_mouse])
@pytest.mark.parametrize("name", EXPLORERS)
def test_controls_on_a_page(show, name, drive):
    page = show(EXPLORERS[name]())
    drive(page.locator(".rlino-explorer"), page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", EXPLORERS)
def test_axe_on_a_page(show, axe, name, scheme):
    page = show(EXPLORERS[name](), scheme=scheme)
    assert axe(page) == []


def test_two_explorers_on_a_page_do_not_mix(show):
    one, other = show(*[EXPLORERS["trace inspector"]()] * 2).locator(".rlino-explorer").all()
    before = other.evaluate(SEEN)
    act(one, "Step", one.get_by_role("combobox", name="Step", exact=True).select_option, index=2)
    assert other.evaluate(SEEN) == before != one.evaluate(SEEN)


# --- hostile text ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE_EXPLORERS)
def test_hostile_text_is_text(show, name):
    page = show(HOSTILE_EXPLORERS[name]([*HOSTILE, LONG]))
    section = page.locator(".rlino-explorer")
    by_mouse(section, page)
    seen = section.evaluate("node => node.textContent")
    assert [text for text in map(printable, [*HOSTILE, LONG]) if text not in seen] == []
    assert (
        page.locator("img:not([src^='data:image/svg+xml']), iframe, [onfocus], [onmouseover], [onerror]").count() == 0
    )
    assert page.locator("script").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page scrolls sideways"


# --- in JupyterLab ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drive", [by_keyboard, by_mouse])
def test_controls_in_jupyterlab(watch, lab, drive):
    """All explorers in one saved notebook, which has no kernel; the keys stay with the controls."""
    lab.save({name: explorer() for name, explorer in EXPLORERS.items()}, f"explorers-{drive.__name__}")
    with watch(lab.url) as context:
        notebook = lab.open(context, f"explorers-{drive.__name__}")
        notebook.locator(".rlino-controls").last.wait_for()
        cells = notebook.locator(".jp-CodeCell").count()
        for section in notebook.locator(".rlino-explorer").all():
            drive(section, context.pages[0])
        assert notebook.locator(".jp-CodeCell").count() == cells
        assert context.pages[0].locator(".jp-Dialog").count() == 0


def test_the_first_choice_stays_where_scripts_are_stripped(watch, lab):
    lab.save({name: explorer() + "<p>not signed</p>" for name, explorer in EXPLORERS.items()}, "stripped", trust=False)
    with watch(lab.url) as context:
        notebook = lab.open(context, "stripped")
        notebook.get_by_text("not signed").last.wait_for()
        assert notebook.locator(".rlino-controls").count() == 0
        for section in notebook.locator(".rlino-explorer").all():
            assert section.locator("pre, table, img").count() and len(section.inner_text()) > 100
