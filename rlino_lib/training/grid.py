"""Many recorded runs from one file: complete ones are skipped, killed ones resumed, failed ones named at the end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import psutil
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from rlino_lib.errors import RlinoError
from rlino_lib.folders import LOCK, changes, whole_lines
from rlino_lib.records.runs import Run
from rlino_lib.training.config import RUN_DEFAULTS, TrainConfig, run_settings
from rlino_lib.training.grid_file import Settings, command_line, read_file, read_grid

TICK, LOOK = 0.5, 10.0  # seconds between looks at the processes, and at what the runs have written
CPU_RUN, GPU_RUN = 1.0, 4.0  # GiB that a run of a small model has room in


# --- the machine -----------------------------------------------------------------------------------------------------


def default_jobs(runs: Iterable[Settings]) -> int:
    """Runs at a time where nobody said: as many as there are physical cores for their threads, and memory.

    On a GPU as many as its free memory holds too, each driven by a core of its own; but one at a time where a run names
    a model, whose size is not known here.
    """
    runs = list(runs)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min(usable, psutil.cpu_count(logical=False) or usable)
    rooms = [cores // max(1, *(s.get("threads", 1) for s in runs)), psutil.virtual_memory().available / 2**30 / CPU_RUN]
    if any(s.get("device", "auto") != "cpu" for s in runs) and (free := _gpu_memory()):
        rooms.append(1 if any(s.get("model") for s in runs) else free / GPU_RUN)
    return max(1, int(min(rooms)))


def _gpu_memory() -> float:
    """Free GiB of the GPU that runs would take, 0 where torch has none. A process of its own asks, and lets it go."""
    if not shutil.which("nvidia-smi"):
        return 0.0
    ask = "import torch; print(torch.cuda.mem_get_info()[0] / 2**30 if torch.cuda.is_available() else 0)"
    found = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True)
    return float(found.stdout) if found.returncode == 0 else 0.0


# --- the state of a run ----------------------------------------------------------------------------------------------


def _load(folder: Path) -> Run | None:
    try:
        return Run(folder)
    except RlinoError:  # nothing there yet, or damaged: then the run itself says how
        return None


def _complete(folder: Path) -> bool:
    run = _load(folder)
    return run is not None and run.complete


def _in_use(folder: Path) -> bool:
    """Whether some process is writing this run."""
    if not (folder / LOCK).exists():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except Timeout:
        return True


def _claim(folder: Path) -> TextIO | None:
    """The log of a run, locked for as long as this process or the run has it open; None where others are at the run.

    The run's own lock would come too late: the run takes it only once Python has started.
    """
    import fcntl  # not on Windows, where chapters still import `command_line` from here

    log = _log(folder).open("a", encoding="utf-8")
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _in_use(folder):
            return log
    except BlockingIOError:
        pass
    log.close()
    return None


def _log(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.log")


def _state(folder: Path) -> str:
    if _complete(folder):
        return "complete"
    if _log(folder).exists():  # then whoever is at the run holds it
        if (log := _claim(folder)) is None:
            return "running"
        log.close()
    elif _in_use(folder):
        return "running"
    return "started" if (folder / "config.json").exists() else "to do"


def _other_settings(folder: Path, settings: Settings) -> str | None:
    """Why a complete run is not the one that the file asks for, if there is one and it is not."""
    run = _load(folder)
    if run is None or not run.complete:
        return None
    config = TrainConfig(**{name: value for name, value in settings.items() if name != "threads"})
    found = changes(run.config, run_settings(config), RUN_DEFAULTS)
    return f"it is complete, with {found}: choose another name" if found else None


def _progress(folder: Path) -> tuple[float, float]:
    """The share of a run that is recorded, and its seconds so far; zeros where nothing can be read yet."""
    run = _load(folder)
    try:
        if run.complete:
            return 1.0, float(run.summary["seconds"])
        step, seconds = whole_lines(folder / "timing.csv")[-1].split(",")
        return int(step) / run.config["steps"], float(seconds)
    except (AttributeError, OSError, ValueError, IndexError, KeyError, RlinoError):
        return 0.0, 0.0


def seconds_left(folder: Path, runs: Mapping[str, Settings], jobs: int, failed: Iterable[str] = ()) -> float | None:
    """What the runs that are not complete and did not fail should take, in seconds; None before any has timings.

    A run is expected to take as long as its own records foretell, else as long as other seeds of it, else as long as
    the others by the number of samples. The test at the end of a run is not among its recorded seconds.
    """
    seen = {name: _progress(folder / name) for name in runs}
    totals = {name: seconds / share for name, (share, seconds) in seen.items() if share > 0.05}
    if not totals:
        return None

    def samples(name: str) -> int:
        s = {**vars(TrainConfig()), **runs[name]}
        return s["steps"] * s["prompts"] * s["group_size"]

    def expected(name: str) -> float:
        seeds = [t for other, t in totals.items() if other.rpartition("-s")[0] == name.rpartition("-s")[0]]
        rate = sum(totals.values()) / sum(map(samples, totals))
        return totals.get(name) or (sum(seeds) / len(seeds) if seeds else rate * samples(name))

    left = [(1 - seen[name][0]) * expected(name) for name in runs if name not in failed]
    return max(sum(left) / jobs, *left, 0.0)


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "time left not known yet"
    return f"about {tqdm.format_interval(seconds)} left" if seconds else "nothing left to do"


def _accuracy(run: Run) -> float | None:
    if test := run.summary.get("test"):
        return test["pass@1"]["value"]
    evaluated = run.metrics["eval/accuracy"].dropna()
    return evaluated.iloc[-1] if len(evaluated) else None


def _table(folder: Path, states: Mapping[str, str]) -> str:
    """A line a run: name, state, accuracy (on the test split, else in the last evaluation), seconds."""
    width = max(map(len, states))
    lines = [f"{'run':{width}} {'state':14} accuracy  seconds"]
    for name, state in states.items():
        run = _load(folder / name)
        found = (_accuracy(run), run.summary.get("seconds")) if run and run.complete else (None, None)
        cells = ["" if x is None else f"{x:.{digits}f}" for x, digits in zip(found, (3, 0), strict=True)]
        lines.append(f"{name:{width}} {state:14} {cells[0]:>8} {cells[1]:>8}".rstrip())
    return "\n".join(lines)


# --- running ---------------------------------------------------------------------------------------------------------


def run_grid(
    file: str | Path,
    program: Sequence[str],
    *,
    jobs: int = 0,
    dry_run: bool = False,
    out: str | Path | None = None,
) -> dict[str, Any]:
    """Run what is not complete, so many at a time (0: what the file says, else `default_jobs`); a table on stderr.

    A run is a process of its own: `program`, such as ("rlino",), with the run's `command_line` after it.
    Runs that another process is writing are left for later. Returns the counts, and in a dry run, which starts nothing,
    the seconds that the rest should take. Raises RlinoError for an unreadable file, and at the end where runs failed or
    complete ones have other settings than the file; KeyboardInterrupt after SIGINT, SIGTERM or SIGHUP, with every
    process ended that was started here. A runner that is killed outright leaves its runs to end by themselves.
    """
    runs, folder = dict(read_grid(file)), Path(out) if out else Path(file).with_suffix("")
    jobs = jobs or read_file(file)["jobs"] or default_jobs(runs.values())
    if jobs < 1:
        raise RlinoError(f"at least one run at a time, not {jobs}")
    other = {name: why for name in runs if (why := _other_settings(folder / name, runs[name]))}
    failed: dict[str, str] = {}
    if not dry_run:
        folder.mkdir(parents=True, exist_ok=True)
        why = _Runner(folder, runs, jobs, program).run()
        failed = {name: why[name] for name in runs if name in why}
    states = {name: _state(folder / name) for name in runs}
    states |= dict.fromkeys(other, "other settings") | dict.fromkeys(failed, "failed")
    print(_table(folder, states), file=sys.stderr)
    found: dict[str, Any] = {"runs": len(runs), "complete": sum(state == "complete" for state in states.values())}
    if dry_run:
        found["seconds_left"] = seconds_left(folder, runs, jobs)
        print(f"{jobs} at a time, {_clock(found['seconds_left'])}", file=sys.stderr)
    if other | failed:
        raise RlinoError("; ".join(f"{name}: {why}" for name, why in (other | failed).items()))
    return found


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Signals to stop are noted, not raised: none can fall between the start of a process and its place in a list."""
    noted: list[int] = []
    asked = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    asked = [s for s in asked if signal.getsignal(s) != signal.SIG_IGN]  # as under nohup
    if threading.current_thread() is not threading.main_thread():
        asked = []  # Python lets the main thread alone set handlers
    before = {s: signal.signal(s, lambda number, frame: noted.append(number)) for s in asked}
    try:
        yield noted
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


@dataclass
class _Job:
    process: subprocess.Popen
    log: TextIO


class _Runner:
    """The loop over the processes of a grid."""

    def __init__(self, folder: Path, runs: Mapping[str, Settings], jobs: int, program: Sequence[str]) -> None:
        self.folder, self.runs, self.jobs, self.program = folder, runs, jobs, program
        self.todo = [name for name in runs if not _complete(folder / name)]
        self.active: dict[str, _Job] = {}
        self.failed: dict[str, str] = {}
        self.elsewhere: set[str] = set()
        self.looked = -LOOK

    def run(self) -> dict[str, str]:
        """Run all; returns why runs failed, by name."""
        form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}{postfix}"
        self.bar = tqdm(total=len(self.runs), desc="grid", bar_format=form, disable=not sys.stderr.isatty())
        with _interrupts() as noted, self.bar:
            try:
                while self.todo or self.active:
                    self._fill()
                    time.sleep(TICK)
                    if noted:
                        break
                    self._reap()
                    self._look()
            finally:
                self._stop()
        if noted:
            raise KeyboardInterrupt
        return self.failed

    def _fill(self) -> None:
        for name in list(self.todo):
            if len(self.active) >= self.jobs:
                return
            if _complete(self.folder / name):
                self.todo.remove(name)
                self._done(name, "complete")
                continue
            if (log := _claim(self.folder / name)) is None:
                if name not in self.elsewhere:
                    self._say(f"{name} is being written by another process: left for later")
                self.elsewhere.add(name)
                continue
            self.todo.remove(name)
            log.truncate(0)
            self.active[name] = self._start(name, log)

    def _start(self, name: str, log: TextIO) -> _Job:
        settings = self.runs[name]
        command = [*self.program, *command_line(settings, self.folder / name)]
        env = {**os.environ, "OMP_NUM_THREADS": str(settings.get("threads", 1))}
        return _Job(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env), log)

    def _reap(self) -> None:
        for name, job in list(self.active.items()):
            if (code := job.process.poll()) is None:
                continue
            del self.active[name]
            folder, log = self.folder / name, _log(self.folder / name)
            lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
            if _complete(folder):
                log.unlink(missing_ok=True)
                self._done(name, "complete")
            elif _in_use(folder):  # someone began it by hand while it was loading here
                self.todo.append(name)
            else:
                last = next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {code}")
                self.failed[name] = f"killed by signal {-code}" if code < 0 else last.removeprefix("rlino: ")[-500:]
                self._done(name, f"failed: {self.failed[name]}")
            job.log.close()

    def _done(self, name: str, end: str) -> None:
        done = len(self.runs) - len(self.todo) - len(self.active)
        left = seconds_left(self.folder, self.runs, self.jobs, self.failed)
        self._say(f"{done}/{len(self.runs)} {name} {end}; {_clock(left)}")
        self.looked = -LOOK

    def _look(self) -> None:
        """Bring the bar up to date, now and then."""
        if self.bar.disable or time.monotonic() < self.looked + LOOK:
            return
        self.looked = time.monotonic()
        self.bar.n = sum(_progress(self.folder / name)[0] for name in self.runs)
        left = _clock(seconds_left(self.folder, self.runs, self.jobs, self.failed))
        complete = sum(_complete(self.folder / name) for name in self.runs)
        failed = f", {len(self.failed)} failed" if self.failed else ""
        self.bar.set_postfix_str(f"{complete}/{len(self.runs)} runs, {len(self.active)} at work{failed}, {left}")

    def _say(self, line: str) -> None:
        tqdm.write(line, file=sys.stderr)

    def _stop(self) -> None:
        """End what is still at work; it goes on from its last checkpoint another time."""
        for job in self.active.values():
            job.process.terminate()
        for name, job in self.active.items():
            try:
                job.process.wait(10)
            except subprocess.TimeoutExpired:
                job.process.kill()
                job.process.wait()
            _log(self.folder / name).unlink(missing_ok=True)
            job.log.close()
