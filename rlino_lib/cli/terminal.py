"""What every program of the library shares: the parser of options, and errors that a user can fix as one line."""

from __future__ import annotations

import argparse
import os
import re
import select
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any, NoReturn

from rlino_lib.errors import RlinoError


class Parser(argparse.ArgumentParser):
    """Raises RlinoError for a wrong call, and for an empty argument: a shell's variable that was never set."""

    def error(self, message: str) -> NoReturn:
        raise RlinoError(f"{message} (see {self.prog} --help)")

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        args = sys.argv[1:] if args is None else list(args)
        for before, word in pairwise(["", *args]):
            if not word.strip() or re.fullmatch(r"--[\w-]+=\s*", word):
                name = word if word.strip() else before if before.startswith("-") else "an argument"
                self.error(f"{name.strip().removesuffix('=')} is empty")
        return super().parse_known_args(args, namespace)

    def print_help(self, file: Any = None) -> None:
        print(self.format_help(), end="", file=file)  # argparse's own says nothing where stdout is full


def run_program(command: Callable[[], int], name: str = "rlino", silent: bool = False) -> int:
    """Run a command and return its exit code; 2, after one line on stderr, for an error that the user can fix.

    That is an RlinoError, whatever the system refuses (OSError: a full disk, a file that is not there, stdout full or
    closed), a name that is not UTF-8, and too little memory. Text that stdout's encoding does not have comes out with
    question marks. Where the reader of stdout has gone, such as `head`, the command ends quietly, with 0. `silent`
    leaves the line out.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # or print would take stdout in its place
    if sys.stdout is None:
        return _refused(f"{name}: stdout is closed", silent)
    for stream, errors in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        if hasattr(stream, "reconfigure"):  # not where a notebook or a test stands in for it
            stream.reconfigure(errors=errors)
    try:
        try:
            return command()
        finally:
            sys.stdout.flush()
    except (RlinoError, OSError) as e:
        quiet = isinstance(e, BrokenPipeError) and _reader_is_gone()
        _give_up_stdout()
        if quiet:
            return 0
        return _refused(f"{name}: {e}", silent)
    except UnicodeEncodeError as e:
        return _refused(f"{name}: not UTF-8: {e.object!r}", silent)
    except (MemoryError, RuntimeError) as e:
        if isinstance(e, RuntimeError) and not _out_of_memory(e):
            raise
        return _refused(f"{name}: out of memory: {e}", silent)


def _refused(line: str, silent: bool) -> int:
    with suppress(OSError):
        if not silent:
            print(" ".join(line.split()), file=sys.stderr)
    return 2


def _reader_is_gone() -> bool:
    """Whether it is stdout whose pipe is broken, and not one of the command's own."""
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    with suppress(OSError):
        poll.register(sys.stdout.fileno(), 0)
    return bool(poll.poll(0))


def _give_up_stdout() -> None:
    """Discard what is still to be written to a closed stdout: the interpreter would try again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _out_of_memory(error: RuntimeError) -> bool:
    from rlino_lib.policy.device import is_out_of_memory  # what raised it has imported torch

    return is_out_of_memory(error)
