"""Many recorded runs from one file: complete ones are skipped, killed ones resumed, failed ones named at the end."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import psutil
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from rlino_lib.errors import RlinoError
from rlino_lib.folders import LOCK, held_by, whole_lines
from rlino_lib.records.runs import RUN, Run
from rlino_lib.training.config import RUN_DEFAULTS, TrainConfig, run_settings
from rlino_lib.training.grid_file import Settings, command_line, read_file, read_grid, train_config

TICK, LOOK = 0.1, 10.0  # seconds between looks at the processes, and at what the runs have written
CPU_RUN, GPU_RUN = 1.0, 4.0  # GiB that a run of a small model has room in
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


# --- the machine -----------------------------------------------------------------------------------------------------


def usable_cores() -> int:
    """The logical cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_jobs(runs: Iterable[Settings]) -> int:
    """The default number of runs at a time: as many as physical cores, for their threads, and memory allow.

    On a GPU as many as its free memory holds too, each driven by a core of its own; but one at a time where a run names
    a model, whose size is not known here.
    """
    runs = list(runs)
    usable = usable_cores()
    cores = min(usable, psutil.cpu_count(logical=False) or usable)
    limits = [cores // max(s.get("threads", 1) for s in runs), psutil.virtual_memory().available / 2**30 / CPU_RUN]
    if any(s.get("device", "auto") != "cpu" for s in runs) and (free := _gpu_memory()):
        limits.append(1 if any(s.get("model") for s in runs) else free / GPU_RUN)
    return max(1, int(min(limits)))


def _gpu_memory() -> float:
    """Free GiB of the GPU that runs would take, 0 where torch has none. A process of its own asks, and lets it go."""
    if not shutil.which("nvidia-smi"):
        return 0.0
    query = "import torch; print(torch.cuda.mem_get_info()[0] / 2**30 if torch.cuda.is_available() else 0)"
    answer = subprocess.run([sys.executable, "-c", query], capture_output=True, text=True)
    return float(answer.stdout) if answer.returncode == 0 else 0.0


# --- the state of a run ----------------------------------------------------------------------------------------------


def _complete(folder: Path) -> bool:
    try:
        return Run(folder).complete
    except RlinoError:  # nothing there yet, or damaged: then the run itself reports how
        return False


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

    The run's own lock would come too late: the run takes it only once Python has started. And a `FileLock` ends with
    the process that took it, where this one passes to the run with its output.
    """
    import fcntl  # not on Windows

    log = _log(folder).open("a+", encoding="utf-8", errors="replace")
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
    log = _claim(folder) if _log(folder).exists() else None  # which whoever is at the run holds
    if log:
        log.close()
    elif _log(folder).exists() or _in_use(folder):
        return "running"
    return "started" if (folder / "config.json").exists() else "to do"


def _other_settings(folder: Path, settings: Settings) -> str | None:
    """Why a folder cannot hold the run that the file describes, if so: it holds another run, or a damaged one."""
    try:
        held_by(folder, RUN, run_settings(train_config(settings)), RUN_DEFAULTS)
    except RlinoError as e:
        return str(e)
    return None


def _progress(folder: Path) -> tuple[float, float]:
    """The share of a run that is recorded, and its seconds so far; zeros where nothing can be read yet."""
    try:
        run = Run(folder)
        if run.complete:
            return 1.0, float(run.summary["seconds"])
        step, seconds = whole_lines(folder / "timing.csv")[-1].split(",")
        return int(step) / run.config["steps"], float(seconds)
    except (OSError, ValueError, IndexError, KeyError, RlinoError):
        return 0.0, 0.0


def seconds_left(folder: Path, runs: Mapping[str, Settings], jobs: int, failed: Collection[str] = ()) -> float | None:
    """What the runs that are not complete and did not fail should take, in seconds; None before any has timings.

    A run is expected to take as long as its own records foretell, else as long as other seeds of it, else as long as
    the others by the number of samples. The test at the end of a run is not among its recorded seconds.
    """
    progress = {name: _progress(folder / name) for name in runs}
    totals = {name: seconds / share for name, (share, seconds) in progress.items() if share > 0.05}
    if not totals:
        return None

    def samples(name: str) -> int:
        s = {**vars(TrainConfig()), **runs[name]}
        return s["steps"] * s["prompts"] * s["group_size"]

    def expected(name: str) -> float:
        seeds = [t for other, t in totals.items() if other.rpartition("-s")[0] == name.rpartition("-s")[0]]
        rate = sum(totals.values()) / sum(map(samples, totals))
        return totals.get(name) or (sum(seeds) / len(seeds) if seeds else rate * samples(name))

    left = [(1 - progress[name][0]) * expected(name) for name in runs if name not in failed]
    return max(sum(left) / jobs, *left, 0.0)


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "time left not known yet"
    return f"about {tqdm.format_interval(seconds)} left" if seconds else "nothing left to do"


def _accuracy(run: Run) -> float | None:
    """On the test split, else in the last evaluation."""
    if test := run.summary.get("test"):
        return test["pass@1"]["value"]
    evaluated = run.metrics["eval/accuracy"].dropna()
    return evaluated.iloc[-1] if len(evaluated) else None


def _table(folder: Path, states: Mapping[str, str]) -> str:
    """A line per run: name, state, accuracy, seconds."""
    width = max(map(len, states))
    lines = [f"{'run':{width}} {'state':14} accuracy  seconds"]
    for name, state in states.items():
        run = Run(folder / name) if _complete(folder / name) else None
        numbers = (_accuracy(run), run.summary.get("seconds")) if run else (None, None)
        accuracy, seconds = ("" if x is None else f"{x:.{digits}f}" for x, digits in zip(numbers, (3, 0), strict=True))
        lines.append(f"{name:{width}} {state:14} {accuracy:>8} {seconds:>8}".rstrip())
    return "\n".join(lines)


# --- running ---------------------------------------------------------------------------------------------------------


def run_grid(
    file: str | Path, program: Sequence[str], *, jobs: int = 0, dry_run: bool = False, out: str | Path | None = None
) -> dict[str, Any]:
    """Run what is not complete, `jobs` at a time (0: what the file sets, else `default_jobs`); a table on stderr.

    A run is a process of its own: `program`, such as ("rlino",), with the run's `command_line` after it.
    Runs that another process is writing are left for later. Returns the counts, and in a dry run, which starts nothing,
    the seconds that the rest should take. Raises RlinoError for an unreadable file, and at the end where runs failed or
    folders hold other runs than the file's, or damaged ones; KeyboardInterrupt after SIGINT, SIGTERM or SIGHUP, with
    every process ended that was started here. If the runner itself is killed, its runs go on to their end.
    """
    runs = dict(read_grid(file))
    folder = Path(out) if out else Path(file).with_suffix("")
    jobs = jobs or read_file(file)["jobs"] or default_jobs(runs.values())
    if jobs < 1:
        raise RlinoError(f"at least one run at a time, not {jobs}")
    other = {name: why for name in runs if (why := _other_settings(folder / name, runs[name]))}
    failed: dict[str, str] = {}
    if not dry_run:
        folder.mkdir(parents=True, exist_ok=True)
        reasons = _Runner(folder, runs, jobs, program).run()
        failed = {name: reasons[name] for name in runs if name in reasons}
    states = {name: _state(folder / name) for name in runs}
    states |= dict.fromkeys(other, "other settings") | dict.fromkeys(failed, "failed")
    print(_table(folder, states), file=sys.stderr)
    result: dict[str, Any] = {"runs": len(runs), "complete": sum(state == "complete" for state in states.values())}
    if dry_run:
        result["seconds_left"] = seconds_left(folder, runs, jobs)
        print(f"{jobs} at a time, {_clock(result['seconds_left'])}", file=sys.stderr)
    if other | failed:
        raise RlinoError("; ".join(f"{name}: {why}" for name, why in (other | failed).items()))
    return result


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Signals to stop are noted, not raised: none can fall between the start of a process and its place in a table."""
    noted: list[int] = []
    heeded = [s for s in STOP_SIGNALS if signal.getsignal(s) != signal.SIG_IGN]  # ignored under nohup, say
    before = {s: signal.signal(s, lambda number, frame: noted.append(number)) for s in heeded}
    try:
        yield noted
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


class _Job(NamedTuple):
    process: subprocess.Popen
    log: TextIO


class _Runner:
    """The processes of a grid, at most `jobs` at a time."""

    def __init__(self, folder: Path, runs: Mapping[str, Settings], jobs: int, program: Sequence[str]) -> None:
        self.folder, self.runs, self.jobs, self.program = folder, runs, jobs, program
        self.waiting = [name for name in runs if not _complete(folder / name)]
        self.active: dict[str, _Job] = {}
        self.failed: dict[str, str] = {}
        self.left_for_later: set[str] = set()

    def run(self) -> dict[str, str]:
        """Run all; returns why runs failed, by name."""
        form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}{postfix}"
        bar = tqdm(total=len(self.runs), desc="grid", bar_format=form, disable=not sys.stderr.isatty())
        drawn_at = -LOOK
        with _interrupts() as noted, bar:
            try:
                while (self.waiting or self.active) and not noted:
                    self._look()
                    if not bar.disable and time.monotonic() >= drawn_at + LOOK:
                        self._draw(bar)
                        drawn_at = time.monotonic()
                    time.sleep(TICK)
            finally:
                self._stop()
        if noted:
            raise KeyboardInterrupt
        return self.failed

    def _look(self) -> None:
        """Report the processes that have ended, and start others in their place."""
        for name in [name for name, job in self.active.items() if job.process.poll() is not None]:
            self._end(name, self.active.pop(name))
        for name in self.waiting.copy():
            if len(self.active) < self.jobs:
                self._start(name)

    def _start(self, name: str) -> None:
        """Start a run in a process of its own, unless others are at it, or have made it."""
        folder, settings = self.folder / name, self.runs[name]
        if _complete(folder):
            self.waiting.remove(name)
            self._report(name, "complete")
        elif log := _claim(folder):
            self.waiting.remove(name)
            log.truncate(0)
            command = [*self.program, *command_line(settings, folder)]
            env = {**os.environ, "OMP_NUM_THREADS": str(settings.get("threads", 1))}
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
            self.active[name] = _Job(process, log)
        elif name not in self.left_for_later:
            tqdm.write(f"{name} is being written by another process: left for later", file=sys.stderr)
            self.left_for_later.add(name)

    def _end(self, name: str, job: _Job) -> None:
        """Report how a run ended, and keep its log where it failed; it waits again where another process is at it."""
        folder, code = self.folder / name, job.process.returncode
        with job.log as log:
            if _complete(folder):
                _log(folder).unlink(missing_ok=True)
                return self._report(name, "complete")
            if _in_use(folder):  # somebody began it by hand while it was loading here
                return self.waiting.append(name)
            log.seek(0)
            lines = [line.strip() for line in log if line.strip()]
        reason = lines[-1].removeprefix("rlino: ")[-500:] if lines else f"exit code {code}"
        self.failed[name] = reason if code >= 0 else f"killed by signal {-code}"
        self._report(name, f"failed: {self.failed[name]}")

    def _report(self, name: str, outcome: str) -> None:
        place = f"{len(self.runs) - len(self.waiting) - len(self.active)}/{len(self.runs)}"
        tqdm.write(f"{place} {name} {outcome}; {self._time_left()}", file=sys.stderr)

    def _draw(self, bar: tqdm) -> None:
        """Bring the bar up to date with what the runs have written."""
        shares = [_progress(self.folder / name)[0] for name in self.runs]
        failed = f", {len(self.failed)} failed" if self.failed else ""
        counts = f"{shares.count(1)}/{len(shares)} runs, {len(self.active)} at work{failed}"
        bar.n = sum(shares)
        bar.set_postfix_str(f"{counts}, {self._time_left()}")

    def _time_left(self) -> str:
        return _clock(seconds_left(self.folder, self.runs, self.jobs, self.failed))

    def _stop(self) -> None:
        """End what is still at work; it goes on from its last checkpoint another time."""
        for job in self.active.values():
            job.process.terminate()
        for name, job in self.active.items():
            try:
                job.process.wait(10)
            except subprocess.TimeoutExpired:
                job.process.kill()
            _log(self.folder / name).unlink(missing_ok=True)
            job.log.close()
