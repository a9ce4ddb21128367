"""What a chapter costs to run: seconds, and the peak memory of its kernel, kept in `data/bench/chapters.json`."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from jupyter_client.manager import AsyncKernelManager

from rlino_lib.folders import write_whole
from rlino_lib.paths import CHAPTER_COSTS


@dataclass
class Meter:
    """The peak memory of a kernel in bytes, looked at after each cell; processes that a cell starts are not in it."""

    manager: AsyncKernelManager
    peak: int = 0

    def look(self, **_: Any) -> None:
        """A hook of nbclient's, for `on_cell_executed`."""
        pid = getattr(self.manager.provisioner, "pid", None)
        with suppress(OSError, psutil.Error):  # the kernel has died, which is reported elsewhere
            self.peak = max(self.peak, peak_of(pid) if pid else 0)


def peak_of(pid: int) -> int:
    """The peak memory of a process so far in bytes, or where the system has no record of it, as Linux has, today's."""
    status = Path(f"/proc/{pid}/status")
    recorded = re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(errors="replace"), re.M) if status.exists() else None
    return 1024 * int(recorded[1]) if recorded else psutil.Process(pid).memory_info().rss


def record(number: str, seconds: float, peak: int, path: Path = CHAPTER_COSTS) -> None:
    """Write the cost of one chapter beside those of the others, with the machine that it was measured on."""
    from rlino_lib.policy.device import machine  # takes torch, and seconds
    from rlino_lib.training.grid import usable_cores

    costs = json.loads(path.read_text(encoding="utf-8"))["chapters"] if path.exists() else {}
    row = {"seconds": round(seconds, 1), "gib": round(peak / 2**30, 2), "machine": machine(), "cores": usable_cores()}
    rows = sorted((costs | {number: row}).items())
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in rows)
    write_whole(path, f'{{"bench": "chapters", "chapters": {{\n{lines}\n}}}}\n')
