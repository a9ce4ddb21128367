"""Using an explorer as a reader does: every control by keyboard, and every control by mouse."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

SEEN = """section => { const copy = section.cloneNode(true);
  copy.querySelectorAll('.rlino-controls, .rlino-status, script, style').forEach(node => node.remove());
  let hash = 0;
  for (const letter of copy.innerHTML) hash = (31 * hash + letter.codePointAt(0)) | 0;
  return hash; }"""  # a hash: pages can be long


def act(section: Locator, label: str, do: Callable[..., object], *arguments: object, **settings: object) -> int:
    """What is seen after something was done, which the status line has to tell."""
    do(*arguments, **settings)
    section.locator(".rlino-status").filter(has_text=re.compile("^" + re.escape(label))).wait_for()
    return section.evaluate(SEEN)


def controls_of(section: Locator) -> Iterator[tuple[str, Locator, list[Locator]]]:
    """Of each control, its label, its menu or slider, and its buttons; without those that are hidden when it comes."""
    for box in section.locator(".rlino-control").all():
        if box.is_visible():
            field = box.locator("select, input")
            label = field.evaluate("field => field.labels[0].firstChild.textContent.trim()")
            yield label, field, box.locator("button").all()


def has_focus(field: Locator) -> bool:
    return field.evaluate("field => field === document.activeElement")


def by_keyboard(section: Locator, page: Page, most: int = 3) -> None:
    """Tab leads to each control in its turn; then the arrow keys choose, and buttons take Enter and Space.

    `most` is how many options of a control are tried.
    """
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
        for key in [on] * min(int(last) - int(place), most) or [back] * most:
            seen.add(act(section, label, page.keyboard.press, key))
            assert has_focus(field), f"{label} loses the focus"
        assert len(seen) > 1, f"{label} changes nothing"
        for button, key in zip(buttons, ("Enter", "Space"), strict=False):
            if button.is_enabled():
                before = section.evaluate(SEEN)
                button.focus()
                assert act(section, label, page.keyboard.press, key) != before
                assert has_focus(button), f"a button of {label} loses the focus"


def by_mouse(section: Locator, page: Page, most: int = 3) -> None:
    """Up to `most` other options of a menu, a slider near both ends, and the buttons."""
    for label, field, buttons in controls_of(section):
        seen = {section.evaluate(SEEN)}
        if field.get_attribute("type") == "range":
            size = field.bounding_box()
            for share in (0.9, 0.1) if int(field.input_value()) < int(field.get_attribute("max")) / 2 else (0.1, 0.9):
                at = {"x": share * size["width"], "y": size["height"] / 2}
                seen.add(act(section, label, field.click, position=at))
        else:
            now, count = field.evaluate("field => [field.selectedIndex, field.options.length]")
            for k in [k for k in range(count) if k != now][:most]:
                seen.add(act(section, label, field.select_option, index=k))
        assert len(seen) > 1, f"{label} changes nothing"
        for button in buttons:
            if button.is_enabled():
                before = section.evaluate(SEEN)
                assert act(section, label, button.click) != before
