"""Makes `data/real/` from the source files that its README names: `python -m tools.real --from DIR`.

DIR holds one folder per source, `OWNER__REPOSITORY`, with its files as they are at the commit that `sources.json`
names. Each file is checked by its SHA-256 before it is read. Texts are left out where no claim needs them.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd

from rlino_lib.cli.terminal import Parser, run_program
from rlino_lib.errors import RlinoError
from rlino_lib.paths import DATA

SOURCES = DATA / "real" / "sources.json"  # folder of a source → its commit, licence and files with their SHA-256
Row = Mapping[str, Any]

RHO = "microsoft__rho"
GYM = "open-thought__reasoning-gym-eval"
COUNTDOWN = "beibeizzz__countdown_post_train"
SCRATCH = "rasbt__reasoning-from-scratch"
ONE_SHOT = "ypwang61__One-Shot-RLVR"

_GYM = "reasoninggym-paper-experiments"
_TEST = "gsm8k/test_{}_-1_seed0_t0.0_s0_e-1.jsonl"
_BY_QWEN = f"{_GYM}/math-evals/Qwen/Qwen2.5-3B-Instruct/math_eval/{_TEST.format('qwen25-math-cot')}"
_TRAINED = f"{_GYM}/math-evals/starzmustdie/Qwen-2.5-3B-rlft/math_eval/{_TEST.format('qwen25-rg-cot')}"
_RHO_ZIP = "rho-1/outputs.zip"
# model → source, file, file in its archive, what announces an answer in a response
GSM8K = {
    "Rho-1 1B": (RHO, _RHO_ZIP, f"outputs/rho-math-1b-v0.1/{_TEST.format('cot')}", "The answer is"),
    "Rho-1 7B": (RHO, _RHO_ZIP, f"outputs/rho-math-7b-v0.1/{_TEST.format('cot')}", "The answer is"),
    "Qwen2.5-3B-Instruct": (GYM, _BY_QWEN, "", r"\boxed"),
    "Qwen-2.5-3B-rlft": (GYM, _TRAINED, "", r"\boxed"),
}
ARITHMETIC = f"{_GYM}/inter-generalisation/inter_original_to_arithmetic/original_to_arithmetic.json"
EVALUATIONS = {"Qwen3-0.6B": "base_0_6b", "SFT": "sft_full", "RFT": "rft", "GRPO": "grpo"}
COUNTDOWN_LOGS = {name: f"post_train/outputs/{name}/metrics.jsonl" for name in ("grpo", "grpo_trl")}
MATH_LOGS = {
    "no_kl_long": "ch06/02_rlvr_grpo_scripts_intro/logs/rlvr_grpo_original_no_kl_metrics.csv",
    "no_kl": "ch07/02_logs/7_3_plus_tracking_metrics.csv",
    "clip": "ch07/02_logs/7_4_plus_clip_ratio_metrics.csv",
    "kl": "ch07/02_logs/7_5_plus_kl_metrics.csv",
    "format": "ch07/02_logs/7_6_plus_format_reward_metrics.csv",
    "format_conditional": "ch07/02_logs/7_6_plus_format_reward_conditional_metrics.csv",
}
VISITS = "data/acc_step_500.json"
_PROMPT = re.compile(r"Using the numbers \[([0-9, ]+)\], create an equation that equals (-?[0-9]+)\.")


class Sources:
    """The files of the sources, read only once their SHA-256 is known to be that of `sources.json`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[str, Any] = json.loads(SOURCES.read_text(encoding="utf-8"))

    def read(self, source: str, file: str) -> bytes:
        """The bytes of a file; raises RlinoError where it is missing or another one."""
        try:
            data = (self.folder / source / file).read_bytes()
        except OSError as e:
            raise RlinoError(f"{self.folder / source} has no {file}: {e.strerror}") from e
        if sha256(data).hexdigest() != self.known[source]["files"].get(file):
            raise RlinoError(f"{source}/{file} is not the file of commit {self.known[source]['commit'][:12]}")
        return data

    def lines(self, source: str, file: str, member: str = "") -> list[dict[str, Any]]:
        """The records of a JSONL file, or of one in a zip archive."""
        data = self.read(source, file)
        if member:
            data = zipfile.ZipFile(io.BytesIO(data)).read(member)
        return [json.loads(line) for line in data.decode("utf-8").splitlines()]


def gsm8k(sources: Sources) -> Iterator[Row]:
    """One greedy response to each of the 1,319 test problems: verdict and lengths in characters, by model."""
    for model, (source, file, member, announces) in GSM8K.items():
        for record in sources.lines(source, file, member):
            (response,) = record["code"]
            yield {
                "model": model, "problem": int(record["idx"]), "correct": int(record["score"][0]),
                "answered": int(announces in response), "characters": len(response),
                "gold_steps": record["gt_cot"].count("<<"), "gold_characters": len(record["gt_cot"]),
                "question_characters": len(record["question"]),
            }  # fmt: skip


def arithmetic(sources: Sources) -> Iterator[Row]:
    """Three responses to each of 100 problems of 15 synthetic tasks, of an untrained model."""
    (category,) = json.loads(sources.read(GYM, ARITHMETIC))["categories"]
    for task in category["datasets"]:
        for problem, result in enumerate(task["results"]):
            for sample, response in enumerate(result["completions"]):
                yield {
                    "task": task["name"], "problem": problem, "sample": sample,
                    "correct": int(response["score"] >= 0.99), "characters": len(response["full_model_response"]),
                }  # fmt: skip


def countdown(sources: Sources) -> Iterator[Row]:
    """One greedy response to each of 500 problems: verdict, length, and the text of its answer, by model."""
    for model, folder in EVALUATIONS.items():
        for record in sources.lines(COUNTDOWN, f"post_train/data/eval/{folder}/eval_samples.jsonl"):
            numbers, target = _PROMPT.match(record["prompt"]).groups()
            yield {
                "model": model, "problem": record["id"], "numbers": numbers.replace(",", ""), "target": int(target),
                "correct": int(record["correct"]), "format_ok": int(record["format_ok"]),
                "error": record["error"] or "", "tokens": record["generated_tokens"],
                "truncated": int(record["truncated"]), "answer": record["extracted_expr"] or "",
            }  # fmt: skip


def countdown_logs(sources: Sources) -> Iterator[Row]:
    """The logs of two runs of GRPO on Countdown; entropy is empty where it was not computed."""
    for run, file in COUNTDOWN_LOGS.items():
        for record in sources.lines(COUNTDOWN, file):
            yield {
                "run": run, "step": record["step"], "accuracy": record["accuracy"], "reward": record["mean_reward"],
                "tokens": record["avg_gen_tokens"], "frac_reward_zero_std": record["frac_reward_zero_std"],
                "truncated": record["truncated_count"] / record["rollout_count"],
                "entropy": record["entropy"] if run == "grpo_trl" else "",
            }  # fmt: skip


def math_logs(sources: Sources) -> Iterator[Row]:
    """The logs of six runs of GRPO on MATH, one prompt a step; of a step that stands there twice the later row."""
    for run, file in MATH_LOGS.items():
        records = csv.DictReader(io.StringIO(sources.read(SCRATCH, file).decode("utf-8")))
        for record in {int(record["step"]): record for record in records}.values():
            yield {
                "run": run, "step": int(record["step"]), "reward": float(record["reward_avg"]),
                "tokens": float(record["avg_response_len"]), "entropy": record.get("entropy_avg", ""),
                "eval_accuracy": record.get("eval_acc", ""),
            }  # fmt: skip


def visits(sources: Sources) -> Iterator[Row]:
    """How many of 8 rollouts are right at each visit of a prompt, one digit a visit, in their order."""
    shares = json.loads(sources.read(ONE_SHOT, VISITS))
    for prompt in sorted(shares, key=int):
        yield {"prompt": int(prompt), "right_of_8": "".join(f"{8 * share:.0f}" for share in shares[prompt])}


TABLES: dict[str, Callable[[Sources], Iterable[Row]]] = {
    f.__name__: f for f in (gsm8k, arithmetic, countdown, countdown_logs, math_logs, visits)
}


def make(folder: Path, out: Path) -> list[Path]:
    """Write every table and the licence of every source into `out`; returns the paths."""
    sources = Sources(folder)
    (out / "licenses").mkdir(parents=True, exist_ok=True)
    written = []
    same_bytes = {"method": "gzip", "mtime": 0}  # each time
    for name, rows in TABLES.items():
        written.append(out / f"{name}.csv.gz")
        pd.DataFrame(rows(sources)).to_csv(written[-1], index=False, lineterminator="\n", compression=same_bytes)
    for source in sources.known:
        sources.read(source, "LICENSE")
        written.append(out / "licenses" / f"{source}.txt")
        shutil.copyfile(folder / source / "LICENSE", written[-1])
    return written


def main(argv: list[str] | None = None) -> int:
    """Exit code 2 where a source file is missing or another one."""
    parser = Parser(prog="real", description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="folder", type=Path, required=True, help="the folder of the source files")
    parser.add_argument("--out", type=Path, default=DATA / "real", help="where the tables go")
    args: argparse.Namespace = parser.parse_args(argv)

    def write() -> int:
        for path in make(args.folder, args.out):
            print(f"{path.stat().st_size:9,} {path.name}")
        return 0

    return run_program(write, "real")


if __name__ == "__main__":
    sys.exit(main())
