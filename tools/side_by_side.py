"""Commands a few at a time, each a process of its own, whose output is printed whole when it ends."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from subprocess import PIPE, STDOUT


class _Failed(Exception):
    """A command ended with another exit code than 0, which it is made of."""


def run_side_by_side(
    commands: Sequence[Sequence[str]], jobs: int, env: Mapping[str, str], shorten: Callable[[str], str] = str
) -> int:
    """Start the commands in order, `jobs` at a time; the first exit code that is not 0, or 0.

    `shorten` is what is printed of the output of a command that went well. After a failure, Ctrl-C or a kill the others
    are told to end, and waited for. Raises KeyboardInterrupt where it was asked to end.
    """
    try:
        asyncio.run(_all(commands, jobs, dict(env), shorten))
    except ExceptionGroup as failures:
        return next(e.args[0] for e in failures.exceptions if isinstance(e, _Failed))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    return 0


async def _all(
    commands: Sequence[Sequence[str]], jobs: int, env: dict[str, str], shorten: Callable[[str], str]
) -> None:
    gate = asyncio.Semaphore(jobs)
    task = asyncio.current_task()
    with suppress(NotImplementedError):  # Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel if task else sys.exit)
    async with asyncio.TaskGroup() as group:
        for command in commands:
            group.create_task(_one(command, gate, env, shorten))


async def _one(
    command: Sequence[str], gate: asyncio.Semaphore, env: dict[str, str], shorten: Callable[[str], str]
) -> None:
    async with gate:
        process = await asyncio.create_subprocess_exec(*command, env=env, stdout=PIPE, stderr=STDOUT)
        try:
            output, _ = await process.communicate()
        except asyncio.CancelledError:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
            raise
    text = output.decode(errors="replace")
    if process.returncode:
        print(text, end="", flush=True)
        raise _Failed(process.returncode)
    print(shorten(text), end="", flush=True)
