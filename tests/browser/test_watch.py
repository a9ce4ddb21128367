"""The browser's own fixtures: trouble on a page is noticed, and trusted notebooks run scripts where others do not."""

from __future__ import annotations

import pytest

SCRIPT = "<p id=mark>as saved</p><script>document.getElementById('mark').textContent = 'as run'</script>"


@pytest.mark.parametrize(
    ("part", "trouble"),
    [
        ('<img src="https://example.org/x.png" alt="">', "outside: https://example.org/x.png"),
        ("<script>console.error('gone wrong')</script>", "console: gone wrong"),
        ("<script>nothing()</script>", "uncaught: ReferenceError: nothing is not defined"),
        ("<script>alert('hello')</script>", "dialog: hello"),
    ],
)
def test_trouble_on_a_page_is_noticed(watch, tmp_path, part, trouble):
    path = tmp_path / "page.html"
    path.write_text(f"<!doctype html><title>A page</title>{part}")
    with pytest.raises(AssertionError, match=trouble), watch() as context:
        page = context.new_page()
        page.goto(path.as_uri())
        page.wait_for_timeout(200)


def test_axe_finds_what_is_wrong(show, axe):
    assert axe(show("<h1>Fine</h1>")) == []
    [finding] = axe(show('<h1>Not so</h1><img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">'))
    assert finding.startswith("image-alt (critical)")


def test_scripts_run_in_a_trusted_notebook_only(watch, lab):
    lab.save({"page": SCRIPT}, "trusted")
    lab.save({"page": SCRIPT + "<p>not signed</p>"}, "untrusted", trust=False)  # a signature is of the content
    with watch(lab.url) as context:
        lab.open(context, "trusted").get_by_text("as run", exact=True).wait_for()
        lab.open(context, "untrusted").get_by_text("as saved", exact=True).wait_for()
