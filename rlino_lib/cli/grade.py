"""`rlino grade`: grade the responses of a JSONL file, one line at a time (chapter 02)."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from tqdm.auto import tqdm

from rlino_lib.cli.options import task_settings
from rlino_lib.errors import RlinoError
from rlino_lib.folders import replacing
from rlino_lib.settings import strict_json
from rlino_lib.tasks import Task, get_task


@dataclass(frozen=True)
class Line:
    """The result for one line: `output` is its graded JSON, or None where `fault` says why it is malformed."""

    number: int
    output: str | None = None
    correct: bool = False
    fault: str | None = None


def grade_stream(
    lines: Iterable[bytes], task_name: str = "countdown", rewards: str = "binary",
    settings: Mapping[str, Any] | None = None,
) -> Iterator[Line]:  # fmt: skip
    """Grade JSONL lines in order, holding one at a time; blank lines yield nothing, but count in the numbering from 1.

    Never raises because of a line. Raises RlinoError for an unknown task, reward scheme or setting.
    """
    scheme = {} if rewards == "binary" else {"rewards": rewards}  # which is every task's default, where it has any
    task = get_task(task_name, **(scheme | dict(settings or {})))
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            output, correct = _grade_line(line, task)
            yield Line(number, output, correct)
        except UnicodeDecodeError as e:
            yield Line(number, fault=f"not UTF-8 at byte {e.start + 1}")
        except json.JSONDecodeError as e:
            yield Line(number, fault=f"not JSON: {e.msg.removesuffix(' at')} at character {e.pos + 1}")
        except ValueError as e:
            yield Line(number, fault=str(e))


def _grade_line(line: bytes, task: Task) -> tuple[str, bool]:
    """The graded line as ASCII JSON, so that lone surrogates survive, and whether the response is right."""
    record = strict_json(line.decode("utf-8-sig"))
    if not isinstance(record, dict):
        raise ValueError("not an object")
    if not isinstance(record.get("response"), str):
        raise ValueError("response is not a string" if "response" in record else "no key 'response'")
    grade = task.grade(task.problem_from_record(record), record["response"])
    record.update(reward=grade.reward, correct=grade.correct, reason=grade.reason)
    return json.dumps(record), grade.correct


# --- the command -----------------------------------------------------------------------------------------------------

MOST_FAULTS = 20  # malformed lines that are named; the rest is counted


def main(args: argparse.Namespace) -> int:
    """grade a JSONL file of responses

    examples:
      rlino grade answers.jsonl
      rlino grade --task countdown --rewards format --out graded.jsonl answers.jsonl
      rlino grade --task gsm8k --task-set grader=flexible-extract answers.jsonl > graded.jsonl
      head -n 100 answers.jsonl | rlino grade - > graded.jsonl

    The graded lines go to stdout and the summary to stderr; with --out stdout holds the summary as one line of JSON.

    A line is an object such as {"nums": [8, 2, 4], "target": 64, "response": "... <answer> ( 8 * 4 ) * 2 </answer>"},
    with 1 to 10 numbers; for gsm8k and word_problems {"gold": 72, "response": "... #### 72"}, or GSM8K's own "answer"
    instead of "gold"; for clean_room the response alone.

    The graders of gsm8k are strict, flexible, boxed, strict-match and flexible-extract. What follows
    a stop string of the task's template is not graded: a next "Question:" at the start of a line, "User:" for countdown
    with --task-set template=r1_zero. The last two graders have the harness's rule, by which "Question:" ends a response
    anywhere. A line comes back with reward, correct and reason added (or replaced), its other keys as they were. Blank
    lines are ignored. A malformed line is reported on stderr and left out; the rest is graded, and the exit code is 2.
    """
    settings = task_settings(args.task_set)
    in_place = args.out is not None and args.file != "-" and args.out.exists() and args.out.samefile(args.file)
    n = right = malformed = 0
    with _reading(args.file) as source, _writing(args.out) as sink:
        for line in grade_stream(_with_progress(source, args.out), args.task, args.rewards, settings):
            if line.fault:
                malformed += 1
                if malformed <= MOST_FAULTS:
                    tqdm.write(f"line {line.number}: {line.fault}", file=sys.stderr)
            else:
                n += 1
                right += line.correct
                sink.write(line.output + "\n")
        if malformed > MOST_FAULTS:
            print(f"… and {malformed - MOST_FAULTS:,} more malformed lines", file=sys.stderr)
        if in_place and malformed:
            raise RlinoError(f"{malformed} malformed lines would be lost: {args.out} is as it was")
    share = right / n if n else None
    if args.out:
        print(json.dumps({"n": n, "right": right, "malformed": malformed, "share": share, "out": str(args.out)}))
    percent = f" ({share:.1%})" if n else ""
    print(f"{n} graded, {right} right{percent}, {malformed} malformed", file=sys.stderr)
    return 2 if malformed else 0


def _with_progress(source: BinaryIO, out: Path | None) -> Iterator[bytes]:
    """The lines, with a bar over bytes on a terminal, unless the terminal is where the graded lines go."""
    hidden = not sys.stderr.isatty() or (out is None and sys.stdout.isatty())
    size = os.fstat(source.fileno()).st_size if not hidden and source.seekable() else None
    with tqdm(total=size, unit="B", unit_scale=True, disable=hidden) as bar:
        for line in source:
            bar.update(len(line))
            yield line


def _reading(path: str) -> AbstractContextManager[BinaryIO]:
    if path == "-" and sys.stdin is None:
        raise RlinoError("cannot read stdin: it is closed")
    return nullcontext(sys.stdin.buffer) if path == "-" else open(path, "rb")


@contextmanager
def _writing(path: Path | None) -> Iterator[TextIO]:
    """stdout, or a file that appears under its name only when all of it is written."""
    if path is None:
        yield sys.stdout
    elif path.exists() and not path.is_file():
        raise RlinoError(f"cannot write {path}: not a regular file")
    else:
        with replacing(path) as part, open(part, "w", encoding="ascii", newline="\n") as sink:
            yield sink
