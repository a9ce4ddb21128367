"""A real browser for tests: a page from a file, the built site, and a notebook in JupyterLab, each watched.

Whatever a page logs as an error, throws, asks in a dialog or fetches from outside fails its test. Where there is no
browser, all tests here are skipped, with one line that says how to get one.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest
from nbformat.sign import NotebookNotary

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Locator, Page

HERE = Path(__file__).resolve().parent
HOW = "`make browser` installs one, and a chromium or google-chrome on PATH will do"
ON_PATH = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LOCAL = ("file:", "data:", "blob:", "about:")
WIDGETS = "/@jupyter-widgets/jupyterlab-manager/"  # JupyterLab's extension fails where a notebook has no kernel
SETTINGS = {  # of JupyterLab: every cell in the document, nothing saved, no news
    "notebook-extension/tracker": {"windowingMode": "none", "autoStartDefaultKernel": False},
    "docmanager-extension/plugin": {"autosave": False},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is here."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One Chromium per module: Playwright's own, or one on PATH.

    Not per session: while Playwright runs it has an event loop in the main thread, and no other test may start one.
    """
    api = pytest.importorskip("playwright.sync_api", reason=f"no Playwright: {HOW}")
    root = hasattr(os, "geteuid") and os.geteuid() == 0  # for whom Chromium's sandbox does not start
    flags = ["--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-sync"]
    with api.sync_playwright() as playwright:
        reason = "no Chromium"
        for path in (None, *filter(None, map(shutil.which, ON_PATH))):
            try:
                browser = playwright.chromium.launch(executable_path=path, args=flags, chromium_sandbox=not root)
                break
            except api.Error as error:
                if path or "Executable doesn't exist" not in error.message:
                    reason = f"{path or 'Chromium'} does not start ({error.message.splitlines()[0]})"
        else:
            pytest.skip(f"{reason}: {HOW}")
        yield browser
        browser.close()


@contextmanager
def watched(browser: Browser, home: str = "", **settings: object) -> Iterator[BrowserContext]:
    """A context without network, except for addresses that begin with `home`; fails at its end if there was trouble.

    Trouble is an error on the console, one that nothing caught, a dialog, and a request to the outside. Nothing moves
    by itself: the theme's buttons fade from one colour to another, and a test of contrast would see one in between.
    """
    trouble: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce", **settings)

    def watch(page: Page) -> None:
        page.on("pageerror", lambda error: uncaught(error.stack or error.message))
        page.on("console", lambda m: m.type == "error" and trouble.append(f"console: {m.text} {m.location}"))
        page.on("dialog", lambda dialog: (trouble.append(f"dialog: {dialog.message}"), dialog.dismiss()))

    def uncaught(stack: str) -> None:
        if WIDGETS not in stack:
            trouble.append(f"uncaught: {stack}")

    def request(url: str) -> None:
        if not url.startswith((*LOCAL, home or "file:")):
            trouble.append(f"outside: {url[:200]}")

    context.on("page", watch)
    context.on("request", lambda r: request(r.url))
    context.set_default_timeout(15_000)
    context.set_offline(not home)
    try:
        yield context
    finally:
        context.close()
    assert trouble == []


@pytest.fixture
def watch(chromium: Browser) -> Callable[..., AbstractContextManager[BrowserContext]]:
    """`watched` in this worker's browser."""
    return partial(watched, chromium)


@pytest.fixture
def tab(watch) -> Iterator[Page]:
    """An empty page without network."""
    with watch() as context:
        yield context.new_page()


@pytest.fixture
def show(tab: Page, tmp_path: Path) -> Callable[..., Page]:
    """Opens HTML of the library as a page, from a file, as a reader without a server would."""

    def open_page(*parts: str, scheme: str = "light") -> Page:
        dark = "@media (prefers-color-scheme: dark) {html {background: #121212; color: #ececec; color-scheme: dark}}"
        head = f'<meta charset="utf-8"><title>A page</title><style>{dark}</style>'
        body = "\n".join(parts)
        path = tmp_path / "page.html"
        path.write_text(f'<!doctype html><html lang="en">{head}<main><h1>A page</h1>{body}</main></html>', "utf-8")
        tab.emulate_media(color_scheme=scheme)
        tab.goto(path.as_uri())
        return tab

    return open_page


# --- JupyterLab ------------------------------------------------------------------------------------------------------


class Lab:
    """JupyterLab on a free port, with folders and settings of its own, over notebooks that it trusts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "notebooks"
        self.folder.mkdir()
        self.data = folder / "data"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self.token = secrets.token_hex(16)
        for name, value in SETTINGS.items():
            path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(value))
        env = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
        env |= {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
        env |= {f"JUPYTERLAB_{name}_DIR": str(folder / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
        command = [
            sys.executable, "-m", "jupyterlab", "--allow-root", "--no-browser", "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={self.folder}",
            "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=", "--LabApp.extension_manager=readonly",
        ]  # fmt: skip
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, env=env | {"JUPYTER_TOKEN": self.token}, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT,
            )  # fmt: skip

    def wait(self, seconds: float = 90) -> None:
        """Until the server answers."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            try:
                opener.open(f"{self.url}api?token={self.token}", timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        pytest.fail("JupyterLab does not answer:\n" + self.log.read_text()[-3000:])

    def stop(self) -> None:
        """End the server at once: it has no kernels, and there is nothing to save."""
        self.process.kill()
        self.process.wait()

    def save(self, pages: dict[str, str], name: str, trust: bool = True) -> None:
        """A notebook that was executed: one cell for each page, which is its HTML output."""
        cells = [
            nbformat.v4.new_code_cell(
                f"show({title!r})", execution_count=k,
                outputs=[nbformat.v4.new_output("display_data", {"text/html": str(page), "text/plain": title})],
            )
            for k, (title, page) in enumerate(pages.items(), 1)
        ]  # fmt: skip
        notebook = nbformat.v4.new_notebook(cells=cells)
        nbformat.write(notebook, self.folder / f"{name}.ipynb")
        if trust:
            self.data.mkdir(exist_ok=True)
            notary = NotebookNotary(data_dir=str(self.data))
            notary.sign(nbformat.read(self.folder / f"{name}.ipynb", 4))
            notary.store.close()

    def open(self, context: BrowserContext, name: str) -> Locator:
        """The notebook, in the context's first page, without a kernel and without a question about one."""
        page = context.pages[0] if context.pages else context.new_page()
        if not page.url.startswith(self.url):
            page.goto(f"{self.url}lab?reset&token={self.token}", timeout=60_000)
            page.wait_for_function("window.jupyterapp?.commands.hasCommand('docmanager:open')", timeout=60_000)
        page.evaluate(
            """path => window.jupyterapp.started.then(() => window.jupyterapp.commands.execute('docmanager:open',
               {path, factory: 'Notebook', kernelPreference: {shouldStart: false}}).then(() => true))""",
            f"{name}.ipynb",
        )
        notebook = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
        notebook.locator(".jp-OutputArea-output").first.wait_for()
        return notebook


@pytest.fixture(scope="module")
def lab(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One JupyterLab per module."""
    server = Lab(tmp_path_factory.mktemp("lab"))
    try:
        server.wait()
        yield server
    finally:
        server.stop()


# --- accessibility ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def axe(chromium: Browser) -> Callable[..., list[str]]:
    """Serious and critical findings of axe-core on a page, or on the part of it that a selector names, as lines.

    `leave_out` is a rule that is not tested.
    """
    module = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="no axe-core: pip install axe-playwright-python"
    )

    def findings(page: Page, part: str | None = None, leave_out: str | None = None) -> list[str]:
        # preload fetches style sheets, which a page opened from a file may not do
        options = {"resultTypes": ["violations"], "preload": False}
        options["rules"] = {leave_out: {"enabled": False}} if leave_out else {}
        report = module.Axe().run(page, context=part, options=options).response
        return [
            f"{found['id']} ({found['impact']}): {node['html'][:300]} {node.get('failureSummary', '')}"
            for found in report["violations"]
            if found["impact"] in ("serious", "critical")
            for node in found["nodes"]
        ]

    return findings
