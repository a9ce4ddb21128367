"""`rlino import`: logs and responses of other libraries as a run folder (chapter 13)."""

from __future__ import annotations

import argparse
import re
import sys
from difflib import get_close_matches
from typing import Any

STOPPED = "the log stops at step {steps} of {planned_steps}; tables of complete runs omit it"


def main(args: argparse.Namespace) -> dict[str, Any]:
    """make a run folder of another library's logs and responses

    examples:
      rlino import outputs/my-trl-run --method grpo --seed 0 --out runs/mine
      rlino import train.log rollouts/ --format verl --map correct=acc --out runs/verl
      rlino import samples_gsm8k_2026-01-01T00-00-00.jsonl --filter flexible-extract --out runs/base
      rlino import answers.jsonl --map "response=text,correct=score>=1,problem_id=id" --task gsm8k --out runs/answers

    TRL: a run's folder with trainer_state.json or checkpoints, and what log_completions=True wrote. verl: its console,
    its file logger's JSONL, and rollouts N.jsonl. lm-evaluation-harness: samples_TASK_DATE.jsonl of --log_samples. Any
    other JSONL with a response a line, or the metrics of a step: --map names its columns; doc.question is a column
    inside another. A run folder's own rollouts.jsonl.gz needs no --map.

    Fields are response, prompt, question, problem_id, step, gold, answer, reason, reward, advantage, correct,
    truncated, format_ok, length (in tokens), tokens, logprobs, entropies and weights (of tokens), and of a log the
    metrics of any run: --map eval/accuracy=val-core/gsm8k/acc/mean@1.

    What the files do not say stays empty, and so does what is no number; the last lines name both. A run that stopped
    before its last step is marked as not complete. A response is right where its column says true
    or 1; of another score --map says what is right (correct=score>=0.5). Lengths are in tokens where the files have
    them, and else in characters, under another name. `load_run(FOLDER)` reads the folder, as it does any run's.
    """
    from rlino_lib.records.importers import import_run
    from rlino_lib.records.importers.fields import read_map

    known = {name: getattr(args, name) for name in ("method", "task", "model", "seed", "max_new_tokens")}
    run, report = import_run(
        args.sources, args.out, kind=args.format, columns=read_map(args.map), split=args.split, filter_name=args.filter,
        settings=known,
    )  # fmt: skip
    report |= {"near": near} if (near := _near(args.method)) else {}
    notes = {
        "not known, and left empty": ", ".join(report["unknown"]),
        "no numbers, and left empty": ", ".join(f"{count} of {name}" for name, count in report["no numbers"].items()),
        "not complete": "" if report["complete"] else STOPPED.format(**run.summary),
        f"the method {args.method!r} is taken as it is, and no method of rlino; one is": near and repr(near),
    }
    for words, what in notes.items():
        if what:
            print(f"rlino: {words}: {what}", file=sys.stderr)
    return report


def _near(method: str) -> str:
    """The method of rlino's that a foreign name is nearly written like, or nothing."""
    from rlino_lib.methods.catalogue import OBJECTIVES

    plain = re.sub(r"\W+", "_", method.casefold())
    return "" if method in OBJECTIVES else next(iter(get_close_matches(plain, OBJECTIVES, 1, 0.9)), "")
