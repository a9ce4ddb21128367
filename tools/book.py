"""The book as a whole: run it, check each script against its notebook, check and renew the pins.

python -m tools.book run      execute every chapter and keep the outputs (make book), two at a time where cores and
                              memory allow; --record keeps what each costs as well, and so runs one at a time
python -m tools.book sync     does each notebook hold its script's cells, executed and free of errors?
python -m tools.book check    do requirements.lock, environment.yml and pyproject.toml agree?
python -m tools.book lock     pin what is installed now (make lock)
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import importlib.metadata
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import jupytext
import nbformat
import psutil
from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from jupytext.combine import combine_inputs_with_outputs
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rlino_lib.cli.terminal import Parser, run_program
from rlino_lib.errors import RlinoError
from rlino_lib.folders import write_whole
from rlino_lib.paths import CHAPTER_COSTS, REPO, pyproject
from tools.costs import Meter, record
from tools.side_by_side import run_side_by_side

CELL_TIMEOUT = 1800  # seconds; live cells take a minute, but a busy machine may take many
CHAPTER_MEMORY = 2**31 + 2**29  # bytes that a chapter may take, the largest with a quarter to spare
NEXT = "Next, read and change them: make lab"
LOCK = "requirements.lock"
ENVIRONMENT = "environment.yml"
EXTRAS = ("test", "site", "browser")  # what `make test` needs beside the dependencies
OURS = f"-e .[{','.join(EXTRAS)}]"
NOTE = "# Written by `make lock` from the environment in use. To move a pin: pip install it there, make lock.\n"
# torch pins its own CUDA packages exactly, and only some builds have them: a lock for every machine leaves them out.
FOLLOW_TORCH = ("nvidia-", "cuda-", "triton")


# ---- chapters --------------------------------------------------------------------------------------------------------
def chapters(book: Path, only: str | None = None) -> list[Path]:
    """The scripts `NN_name.py` and `NNb_name.py` in order, or the one with the number `only`. RlinoError if none."""
    number = re.sub(r"^\d(?!\d)", r"0\g<0>", only) if only else ""
    scripts = sorted(path for path in book.glob("[0-9][0-9]*_*.py") if not only or number_of(path) == number)
    if not scripts:
        raise RlinoError(f"no chapter {number or 'NN'}_*.py in {book}")
    return scripts


def number_of(script: Path) -> str:
    """What stands before a chapter's name: 08, or 08b for one that continues it."""
    return script.stem.partition("_")[0]


def build(script: Path, executed: bool = False) -> NotebookNode:
    """The notebook of a script; cell ids, and outputs of cells that are never executed, come from the one on disk.

    One that is not made yet, or is no notebook (a merge conflict), is made anew; RlinoError where `executed` asks for
    its outputs.
    """
    notebook = _read_script(script)
    path = script.with_suffix(".ipynb")
    existing = _read_notebook(path) if path.exists() else None
    if executed and existing is None:
        raise RlinoError(sync_pair(script)[0])
    notebook = combine_inputs_with_outputs(notebook, existing or NotebookNode(notebook, cells=[]), "py:percent")
    notebook.metadata.pop("widgets", None)
    return notebook


def _read_script(script: Path) -> NotebookNode:
    try:
        return jupytext.read(script)
    except UnicodeDecodeError as e:
        raise RlinoError(f"{script} is not UTF-8: {e}") from e


def _read_notebook(path: Path) -> NotebookNode | None:
    """The notebook in a file, or None where the file holds something else."""
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except OSError:
        raise
    except Exception:  # of JSON, of the schema, or of nbformat's own code on what is no notebook
        return None
    return notebook


class _ThisInterpreter(KernelSpecManager):
    """Answers every kernel name with the Python that is running, whatever kernels the user has installed."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return self.kernel_spec_class(resource_dir=RESOURCES, **get_kernel_dict())


def execute(notebook: NotebookNode, folder: Path, on_cell_start: Callable[..., None] | None = None) -> int:
    """Run all cells in place, in a fresh kernel started in `folder`, and return its peak memory in bytes.

    Raises nbclient's errors.
    """
    env = dict(os.environ, PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    env.pop("MPLBACKEND", None)  # figures belong in the notebook
    env["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # older kernels warn of modules that no debugger will look at
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=_ThisInterpreter())
    if hasattr(manager, "transport_encryption"):  # in newer jupyter_clients; without it each kernel prints a warning
        manager.transport_encryption = "auto"
    meter = Meter(manager)
    client = NotebookClient(
        notebook, km=manager, on_notebook_start=_end_on_signals, on_cell_start=on_cell_start, timeout=CELL_TIMEOUT,
        on_cell_executed=meter.look, record_timing=False, shutdown_kernel="immediate",
    )  # fmt: skip
    client.execute(cwd=str(folder), env=env, cleanup_kc=True)
    return meter.peak


def _end_on_signals(notebook: NotebookNode) -> None:
    """Let Ctrl-C and a kill end the run itself: nbclient would kill the kernel, and then fail for want of one."""
    with suppress(NotImplementedError):  # Windows
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, signal.default_int_handler, number, None)


def tidy(notebook: NotebookNode, name: str) -> str:
    """The notebook as text, without what differs from run to run: times, versions, the widgets' random ids."""
    notebook.metadata.get("language_info", {}).pop("version", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    widgets = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
    old_ids = enumerate(widgets.get("state", ()))
    ids = {old: hashlib.sha256(f"{name} {i}".encode()).hexdigest()[:32] for i, old in old_ids}
    text = re.sub(r"[0-9a-f]{32}", lambda match: ids.get(match[0], match[0]), nbformat.writes(notebook))
    return nbformat.writes(nbformat.reads(text, as_version=4)) + "\n"  # again, for the order of the new ids


def title(notebook: NotebookNode, script: Path) -> str:
    """`04 GRPO, from four rollouts`: the number of the file and the first heading, or the file's name without one."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    heading = re.search(r"^# +(?:\w+ · )?(.+)", text, re.M)
    return f"{number_of(script)} {heading[1] if heading else script.stem}"


def run(book: Path, only: str | None = None, keep: bool = False, recorded: Path | None = None) -> int:
    """Execute the chapters in order, one line each; write each notebook unless `keep`, and its cost to `recorded`.

    Exit code 1 on a failure.
    """
    started = time.monotonic()
    scripts = chapters(book, only)
    for script in scripts:
        notebook = build(script)
        start = time.monotonic()
        last = {"cell_index": 0, "cell": NotebookNode(source="")}  # what nbclient says of the cell that it starts
        print(f"{title(notebook, script)[:58]} ".ljust(61, "…"), end=" ", flush=True)
        try:
            peak = execute(notebook, book, last.update)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            print(f"{time.monotonic() - start:6.1f} s FAILED in cell {last['cell_index'] + 1}")
            print(f"\n{_failure(error, last['cell'].source)}\n")
            print(f"Nothing was written to {script.stem}.ipynb. Try the cell there: make lab")
            return 1
        if not keep:
            write_whole(script.with_suffix(".ipynb"), tidy(notebook, script.stem))
        seconds = time.monotonic() - start
        if recorded:
            record(number_of(script), seconds, peak, recorded)
        print(f"{peak / 2**30:.1f} GiB {seconds:6.1f} s ok", flush=True)
    count = f"{len(scripts)} chapter{'s' if len(scripts) > 1 else ''}"
    print(f"{count} in {time.monotonic() - started:.0f} s. {NEXT}")
    return 0


def run_all(book: Path, keep: bool, jobs: int = 0) -> int:
    """Execute the chapters `jobs` at a time, which share the cores; notebooks and exit codes as of `run`.

    0 jobs are two where cores and memory allow, and else one. Raises RlinoError for fewer.
    """
    from rlino_lib.training.grid import usable_cores  # takes torch, and seconds

    if jobs < 0:
        raise RlinoError(f"--jobs {jobs}: how many chapters at a time?")
    jobs = jobs or (2 if usable_cores() > 1 and psutil.virtual_memory().available > 2 * CHAPTER_MEMORY else 1)
    started = time.monotonic()
    numbers = [number_of(script) for script in chapters(book)]
    if min(jobs, len(numbers)) == 1:
        return run(book, keep=keep)
    print(f"{len(numbers)} chapters, {jobs} at a time. Each gets a line when it is done.", flush=True)
    command = [sys.executable, "-m", "tools.book", "run", "--book", str(book), *["--keep"] * keep, "--only"]
    env = {"OMP_NUM_THREADS": str(max(1, usable_cores() // jobs))} | os.environ
    code = run_side_by_side([[*command, number] for number in numbers], jobs, env, _without_last_line)
    if not code:
        print(f"{len(numbers)} chapters in {time.monotonic() - started:.0f} s. {NEXT}")
    return code


def _without_last_line(text: str) -> str:
    return "".join(text.splitlines(keepends=True)[:-1])


def _failure(error: Exception, source: str) -> str:
    """The failing cell's source and its error. A cell that raised brings both, coloured; a dead kernel does not."""
    hint = " (killed, or out of memory)" if isinstance(error, DeadKernelError) else ""
    text = str(error) if isinstance(error, CellExecutionError) else f"{source}\n\n{error}{hint}"
    return (text if sys.stdout.isatty() else re.sub(r"\x1b\[[0-9;]*m", "", text)).strip()


# ---- sync: script against notebook -----------------------------------------------------------------------------------
def sync(book: Path, only: str | None = None) -> list[str]:
    """What is wrong with the pairs, one line each. Compares contents, never modification times."""
    scripts = chapters(book, only)
    problems = [problem for script in scripts for problem in sync_pair(script)]
    if not only:
        orphans = {path.stem for path in book.glob("*.ipynb")} - {path.stem for path in scripts}
        problems += [f"{stem}.ipynb has no script {stem}.py" for stem in sorted(orphans)]
    return problems


def sync_pair(script: Path) -> list[str]:
    """The same for one script and the notebook beside it."""
    path = script.with_suffix(".ipynb")
    if not path.exists():
        return [f"{path.name} is missing: make book"]
    if (notebook := _read_notebook(path)) is None:
        return [f"{path.name} is not a notebook (a merge conflict?): make book"]
    ours = _cells(_read_script(script))
    theirs = _cells(notebook)
    if ours != theirs:
        pairs = zip(ours, theirs, strict=False)
        at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))
        return [f"{path.name} differs from {script.name}, from cell {at + 1} on: make book"]
    return [f"{path.name}, cell {i + 1}: {fault}" for i, cell in enumerate(notebook.cells) for fault in _faults(cell)]


def _cells(notebook: NotebookNode) -> list[tuple]:
    return [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells]


def _faults(cell: NotebookNode) -> list[str]:
    tags = cell.metadata.get("tags", [])
    if cell.cell_type != "code" or not cell.source.strip() or "skip-execution" in tags:
        return []
    faults = [] if cell.execution_count else ["never executed"]
    if "raises-exception" not in tags:
        faults += [f"{out.ename}: {out.evalue}" for out in cell.outputs if out.output_type == "error"]
    return faults


# ---- check and lock: the pins ----------------------------------------------------------------------------------------
def requirements(root: Path) -> list[Requirement]:
    """What pyproject.toml asks for: the dependencies and the extras that the lock pins."""
    project = pyproject(root)["project"]
    try:
        extras = project["optional-dependencies"]
        lines = [*project["dependencies"], *(line for name in EXTRAS for line in extras[name])]
        return [Requirement(line) for line in lines]
    except (KeyError, ValueError) as e:
        raise RlinoError(f"pyproject.toml is damaged: {e}") from e


def read_pins(root: Path) -> tuple[dict[str, str], list[str]]:
    """The pins `name==version` in the lock, and the lines that are none."""
    pins = {}
    others = []
    for line in (root / LOCK).read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.]*)", line):
            pins[canonicalize_name(match[1])] = match[2]
        elif line and not line.startswith("#"):
            others.append(line)
    return pins, others


def environment(pins: dict[str, str]) -> str:
    """What environment.yml holds: the same pins, as conda reads them."""
    head = "name: rlino\nchannels:\n  - conda-forge\n  - nodefaults\ndependencies:\n  - python=3.11\n  - pip\n"
    return f"{NOTE}{head}  - pip:\n" + "".join(f"      - {line}\n" for line in (*_lines(pins), OURS))


def _lines(pins: dict[str, str]) -> list[str]:
    return [f"{name}=={version}" for name, version in pins.items()]


def check(root: Path = REPO) -> list[str]:
    """Where requirements.lock, environment.yml and pyproject.toml disagree, one line each."""
    pins, others = read_pins(root)
    problems = [f"{LOCK}: not an exact pin: {line}" for line in others]
    if (root / ENVIRONMENT).read_text(encoding="utf-8") != environment(pins):
        problems.append(f"{ENVIRONMENT} has other lines than {LOCK} gives it: make lock")
    for requirement in requirements(root):
        version = pins.get(canonicalize_name(requirement.name))
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            problems.append(f"pyproject.toml asks for {requirement}, {LOCK} has {version or 'none'}")
    return problems


def installed(roots: list[Requirement]) -> dict[str, str]:
    """Name and version of everything that `roots` pull in here. RlinoError where a package is not installed."""
    pins = {}
    seen = set()
    todo = [(requirement, "") for requirement in roots]
    while todo:
        requirement, extra = todo.pop()
        name = canonicalize_name(requirement.name)
        if (requirement.marker and not requirement.marker.evaluate({"extra": extra})) or name.startswith(FOLLOW_TORCH):
            continue
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            raise RlinoError(f"{name} is not installed: make book, then make lock") from None
        pins[name] = package.version.split("+")[0]  # no +cpu: the index decides which build of torch it has
        new = {(name, extra) for extra in ("", *requirement.extras)} - seen
        seen |= new
        todo += [(Requirement(line), extra) for _, extra in new for line in package.requires or []]
    return dict(sorted(pins.items()))


def lock(root: Path = REPO) -> int:
    """Write requirements.lock and environment.yml from what is installed. Returns the number of pins."""
    pins = installed(requirements(root))
    write_whole(root / LOCK, NOTE + "".join(f"{line}\n" for line in _lines(pins)))
    write_whole(root / ENVIRONMENT, environment(pins))
    return len(pins)


# ---- command line ----------------------------------------------------------------------------------------------------
def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m tools.book", description="Run and check the book as a whole.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    run_parser = commands.add_parser("run", help="execute the chapters in order and keep the outputs")
    run_parser.add_argument("--keep", action="store_true", help="keep the notebooks as they are: write no outputs")
    run_parser.add_argument("--record", action="store_true", help="write what each chapter took to data/bench")
    run_parser.add_argument("--jobs", type=int, default=0, metavar="N", help="how many at a time (default: two)")
    for command in (run_parser, commands.add_parser("sync", help="check each script against its notebook")):
        command.add_argument("--book", type=Path, default=REPO / "book", metavar="DIR", help="the chapters' folder")
        command.add_argument("--only", metavar="NN", help="one chapter, by its number")
    commands.add_parser("check", help=f"check that {LOCK}, {ENVIRONMENT} and pyproject.toml agree")
    commands.add_parser("lock", help=f"write {LOCK} and {ENVIRONMENT} from what is installed")
    return parser


def main(argv: list[str] | None = None) -> int:
    """The command line. Exit codes: 0 fine, 1 a chapter failed or something disagrees, 2 a mistake in the call."""
    return run_program(lambda: _run_command(argv), "error")


def _run_command(argv: list[str] | None) -> int:
    args = _parser().parse_args(argv)
    try:
        if args.command == "run":
            if not args.only and not args.record:  # what a chapter takes is measured alone
                return run_all(args.book.resolve(), args.keep, args.jobs)
            return run(args.book.resolve(), args.only, args.keep, CHAPTER_COSTS if args.record else None)
        if args.command == "lock":
            print(f"{lock()} pins in {LOCK} and {ENVIRONMENT}")
            return 0
        problems = sync(args.book.resolve(), args.only) if args.command == "sync" else check()
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    print("\n".join(problems) or f"{args.command}: all agree")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
