"""How long an evaluation's wrong responses are: `python -m tools.lengths FOLDER`, after `rlino evaluate --responses`.

From FOLDER/responses.jsonl it writes FOLDER/wrong_lengths.csv.gz: for each problem and length, how many wrong responses
that were not truncated have that length. A base ships with it where responses may leave a step out (chapter 08).
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from rlino_lib.cli.terminal import run_program
from rlino_lib.errors import RlinoError
from rlino_lib.folders import read_jsonl, replacing


def wrong_lengths(folder: Path) -> pd.DataFrame:
    """The columns id, length and n of an evaluation's wrong, not truncated responses, in the order of its problems.

    Raises RlinoError where the evaluation kept no texts.
    """
    if not (folder / "responses.jsonl").exists():
        raise RlinoError(f"{folder} has no responses.jsonl: evaluate with --responses")
    rows = pd.DataFrame(read_jsonl(folder / "responses.jsonl"))
    rows["id"] = pd.Categorical(rows["id"], rows["id"].unique())  # so that they stay in their order
    wrong = rows[(rows["correct"] == 0) & (rows["clipped"] == 0)]
    return wrong.groupby(["id", "length"], observed=True).size().reset_index(name="n")


def main() -> int:
    """Write the file into each folder that is named. Exit code 2 where there are no texts."""
    return run_program(_write, "lengths")


def _write() -> int:
    for folder in map(Path, sys.argv[1:]):
        table = wrong_lengths(folder)
        with replacing(folder / "wrong_lengths.csv.gz") as part:
            table.to_csv(part, index=False, compression={"method": "gzip", "mtime": 0})
    return 0


if __name__ == "__main__":
    sys.exit(main())
