"""What `rlino doctor` looks at: whether the book can run here, and what to do where something is off.

Only the standard library is imported before the packages were looked at. Where so much is missing that `rlino` itself
does not start, `python -m rlino_lib.cli.doctor` gives the same report.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from rlino_lib.cli.terminal import run_program
from rlino_lib.paths import BASES, CHAPTER_COSTS, REPO, cache_folder, pyproject

MAIN = ("torch", "transformers", "numpy", "pandas", "matplotlib", "ipywidgets", "jupyterlab")  # named if fine, too
GIB = 2**30
INSTALL = "python -m pip install -r requirements.lock, then python -m pip install --no-deps -e ."
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Check(NamedTuple):
    """One line of the report."""

    name: str
    value: str
    mend: str = ""  # what to do, where something is off
    needed: bool = True  # whether the book cannot run before that is done

    @property
    def fails(self) -> bool:
        """Whether the book cannot run because of it."""
        return bool(self.mend) and self.needed

    def __str__(self) -> str:
        state = "FAILS" if self.fails else "note" if self.mend else "ok"
        return f"{state:5} {self.name:12} {self.value}" + (f": {self.mend}" if self.mend else "")


def main(args: argparse.Namespace) -> int:
    """check that the book can run here: one line per condition, with what to do where something is off

    Exit code 0 when the book can run, though it may be slow, and 2 when it cannot. A line that begins with `note` is
    about something that the book can do without.

    examples:
      rlino doctor
      rlino doctor > doctor.json            # to send to somebody who helps
      python -m rlino_lib.cli.doctor        # where `rlino` itself does not start
    """
    checks = []
    for check in report():
        print(check, file=sys.stderr)
        checks.append(check)
    failed = [check.name for check in checks if check.fails]
    verdict = f"not before this is mended: {', '.join(failed)}" if failed else "yes; next: make book, or make lab"
    print(f"can the book run here? {verdict}", file=sys.stderr)
    print(json.dumps({"runs": not failed, "failed": failed, "checks": {c.name: c.value for c in checks}}))
    return 2 if failed else 0


def report() -> Iterator[Check]:
    """All checks, those first on which the others rest."""
    project = pyproject()["project"]
    yield python(project["requires-python"])
    missing = False
    for check in packages(project["dependencies"]):
        missing |= check.fails
        yield check
    for name, look in {"cores": cores, "bf16 unit": bf16, "memory": memory, "GPU": gpu}.items():
        yield _unless(missing, name, look)
    places = {"this folder": Path.cwd(), "notebooks": REPO / "book", "cache": cache_folder()}  # where the book writes
    yield from (writable(name, folder) for name, folder in places.items())
    yield models()
    yield chromium()


def _unless(missing: bool, name: str, look: Callable[[], Check]) -> Check:
    """A check that needs the packages, or a line that says why there is none."""
    try:
        return look()
    except Exception as e:  # whatever a library that lacks a part of itself may raise
        return Check(name, "unknown", f"install the packages first ({e})" if missing else f"{INSTALL} ({e})")


def python(bound: str) -> Check:
    """The interpreter, against `requires-python`; `bound` is such as ">=3.11"."""
    version = platform.python_version()
    least = tuple(int(part) for part in bound.removeprefix(">=").split("."))
    old = sys.version_info[: len(least)] < least
    return Check("Python", version, f"needs {bound}: make book PYTHON=/path/to/python" if old else "")


def packages(dependencies: list[str]) -> Iterator[Check]:
    """The main packages, and of the others those that are missing or older than pyproject.toml allows."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        yield Check("packages", "none", INSTALL)
        return
    for requirement in map(Requirement, dependencies):
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            version = ""
        if not version or not requirement.specifier.contains(version, prereleases=True):
            yield Check(requirement.name, version or "missing", f"python -m pip install '{requirement}'")
        elif requirement.name in MAIN:
            yield Check(requirement.name, version)


def cores() -> Check:
    """The cores that this process may use; the book's times are those of two."""
    from rlino_lib.training.grid import usable_cores

    count = usable_cores()
    slow = "the book's times are those of two, so expect about twice as long"
    return Check("cores", str(count), slow if count < 2 else "", needed=False)


def bf16() -> Check:
    """Whether the CPU multiplies in bfloat16 itself; `--precision auto` does the right thing in either case."""
    from rlino_lib.policy.device import has_bf16, machine

    products = "bfloat16 where that is faster" if has_bf16("cpu") else "none, so products are in float32"
    return Check("bf16 unit", f"{products} ({machine()})")


def memory() -> Check:
    """Free memory, against the largest chapter's peak."""
    import psutil

    free = psutil.virtual_memory().available / GIB
    chapters = json.loads(CHAPTER_COSTS.read_text(encoding="utf-8"))["chapters"]
    needed = max(row["gib"] for row in chapters.values())
    mend = f"a chapter takes up to {needed:.1f} GiB: close other programs" if free < needed else ""
    return Check("memory", f"{free:.1f} GiB free, {needed:.1f} needed", mend)


def gpu() -> Check:
    """The GPUs that torch sees; the chapters need none."""
    import torch

    from rlino_lib.policy.device import pick_device

    kind = pick_device()
    if kind == "cuda":
        cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        return Check("GPU", ", ".join(f"{card.name} ({card.total_memory / GIB:.0f} GiB)" for card in cards))
    if kind == "mps":
        return Check("GPU", "Apple's, through mps")
    if shutil.which("nvidia-smi"):
        why = "this build of torch is without CUDA" if torch.version.cuda is None else "see nvidia-smi and the driver"
        return Check("GPU", "one that torch does not see", f"{why}; the chapters need none", needed=False)
    return Check("GPU", "none, and the chapters need none")


def writable(name: str, folder: Path) -> Check:
    """Whether a file can be written in a folder, or in the first that there is above it, and how much still fits."""
    there = next((place for place in (folder, *folder.parents) if place.exists()), folder)
    mend = {"cache": "set RLINO_DATA to a folder that you may write"}.get(name, "work in a copy that you may write")
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"x")
    except OSError as e:
        return Check(name, f"{folder} cannot be written ({e.strerror})", mend, needed=name != "cache")
    return Check(name, f"{folder} can be written, {shutil.disk_usage(there).free / GIB:.0f} GiB free")


def models() -> Check:
    """Whether the base models came with the checkout, and whole."""
    weights = {task: Path(base) / "model.safetensors" for task, base in BASES.items()}
    missing = [task for task, path in weights.items() if not path.exists() or path.stat().st_size < 10_000]
    if missing:
        return Check("base models", f"missing or cut short: {', '.join(missing)}", "git checkout -- data/base")
    return Check("base models", ", ".join(weights))


def chromium() -> Check:
    """A browser for the tests of the web pages, the system's or Playwright's own."""
    named = os.environ.get("PLAYWRIGHT_BROWSERS_PATH")
    caches = (named,) if named else ("~/.cache/ms-playwright", "~/Library/Caches/ms-playwright")
    installed = (path for cache in caches for path in Path(os.path.expanduser(cache)).glob("chromium*"))
    browser = next(filter(None, map(shutil.which, BROWSERS)), None) or next(installed, None)
    mend = "" if browser else "tests in a browser are skipped; python -m playwright install chromium gets one"
    return Check("Chromium", str(browser or "none"), mend, needed=False)


if __name__ == "__main__":
    sys.exit(run_program(lambda: main(argparse.Namespace()), "doctor"))
