"""The `rlino` command: one JSON line on stdout at the end; an error is one line on stderr and exit code 2."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlino_lib.cli.options import BenchConfig, EvaluateConfig
from rlino_lib.cli.terminal import Parser, run_program
from rlino_lib.errors import RlinoError, RlinoWarning
from rlino_lib.paths import base_of
from rlino_lib.settings import DEVICE, SEED, THREADS, whole
from rlino_lib.training.config import Recipe, TrainConfig

if TYPE_CHECKING:
    from rlino_lib.records.runs import Run
from rlino_lib.cli.options import A_FILE, A_FOLDER, FOLDER, _add_fields, _fields, _option, task_settings

PROGRAM = (sys.executable, "-m", "rlino_lib.cli")  # this very command line, for the runs of a grid
# torch and transformers take seconds to import, so each command imports what it needs; `--help` needs nothing.

EXAMPLES = {
    "pretrain": "rlino pretrain --out data/base/countdown\n"
    "rlino pretrain --task word_problems --steps 200 --out /tmp/tiny",
    "train": "rlino train --method grpo --save --out runs/grpo-s0\n"
    "rlino train --method f_isft_posneg --seed 1 --out runs/f1\n"
    "rlino train --preset paper-gsm8k-0.5b --method f_isft_pos --out runs/q\n"
    "rlino train --preset paper-countdown-1.5b --lora --lr 1e-5 --micro-batch 2 --save --out runs/q-lora",
    "evaluate": "rlino evaluate --split test --samples 64 --out runs/base-eval\n"
    "rlino evaluate --model runs/grpo-s0/model --samples 4 --out runs/grpo-s0-eval\n"
    "rlino evaluate --model Qwen/Qwen2.5-0.5B --task-set template=r1_zero --samples 1 --out runs/qwen-eval\n"
    "rlino evaluate --task gsm8k --shots 4 --model Qwen/Qwen2.5-0.5B --problems 0 --temperature 0 --max-new-tokens 320 "
    "--precision bf16 --responses --out runs/gsm8k-eval\n"
    "rlino grade --task gsm8k --task-set grader=flexible runs/gsm8k-eval/responses.jsonl > graded.jsonl",
    "presets": "rlino presets\nrlino presets paper-gsm8k-0.5b",
    "grid": "rlino grid data/runs/countdown.json\nrlino grid data/runs/countdown.json --jobs 2 --dry-run\n\n"
    'a file: {"base": {"steps": 100}, "seeds": [0, 1], "axes": {"task": ["countdown"], "method": ["grpo", "rloo"]},\n'
    '         "set": [{"where": {"method": "rloo"}, "lr": 2e-4}]}\n'
    'or, run by run: {"base": {}, "seeds": [0, 1], "runs": [{"name": "mine", "method": "grpo", "lr": 1e-4}]}',
    "grade": "rlino grade --task countdown responses.jsonl > graded.jsonl",
    "fetch": "rlino fetch gsm8k\nrlino fetch gsm8k --from ~/Downloads\n"
    "rlino fetch gsm8k --out /data/gsm8k   # then: --task-set folder=/data/gsm8k",
    "claims": "rlino claims\nrlino claims --out claims.json\nrlino claims --yours runs",
    "bench": "rlino bench rollout\nrlino bench step --repeats 5\nrlino bench memory --repeats 3\n"
    "rlino bench shape-0.5b --repeats 1",
}


def _threads(n: int) -> None:
    if n:
        import torch

        torch.set_num_threads(n)


def _pretrain(args: argparse.Namespace) -> dict[str, Any]:
    from rlino_lib.training.pretraining.pretrain import pretrain

    recipe = Recipe(**_fields(args, Recipe))
    return pretrain(recipe, args.out, device=args.device, progress=sys.stderr.isatty())


def train_config(args: argparse.Namespace) -> TrainConfig:
    """The settings of a run: those that were given, then those of the preset, then the defaults."""
    from rlino_lib.training.presets import find_preset

    given = _fields(args, TrainConfig)
    if args.lora and given.setdefault("lora_rank", 16) == 0:
        raise RlinoError("--lora trains adapters, and --lora-rank 0 has none")
    preset = find_preset(args.preset).settings if args.preset else {}
    together = {**preset.get("task_settings", {}), **task_settings(args.task_set)}
    objective = task_settings(args.objective_set, "--objective-set")
    return TrainConfig(**{**preset, **given, "task_settings": together, "objective_settings": objective})


def _train(args: argparse.Namespace) -> dict[str, Any]:
    from rlino_lib.training.run import train

    config = train_config(args)
    run = train(config, args.out, save=args.save, progress=sys.stderr.isatty())
    return run_result(run)


def run_result(run: Run) -> dict[str, Any]:
    """What a command that trains prints of its run."""
    last = run.metrics.iloc[-1]
    return {"run": str(run.path), **(run.summary or {}), "reward": last["reward"], "accuracy": last["accuracy"]}


def _evaluate(args: argparse.Namespace) -> dict[str, Any]:
    from rlino_lib.evaluation.evaluate import EVALUATION, evaluate, rows_so_far, summarise
    from rlino_lib.folders import begun_precision, output_folder, read_json, refuse_other, write_json
    from rlino_lib.policy.device import pick_device, policy_precision
    from rlino_lib.policy.models import load_policy, weights_hash
    from rlino_lib.tasks import get_task

    settings = task_settings(args.task_set) | ({} if args.shots is None else {"shots": args.shots})
    task, out = get_task(args.task, **settings), Path(args.out)
    problems = task.problems(args.split, args.problems or None)
    sampling = {"max_new_tokens": args.max_new_tokens, "temperature": args.temperature, "top_p": args.top_p}
    asked = {"task": args.task, "task_settings": settings, "split": args.split, "samples": args.samples, **sampling}
    rows, texts = out / "problems.jsonl", out / "responses.jsonl"
    keep = args.responses or texts.exists()
    asked |= {"seed": args.seed, "problems": len(problems), "responses": keep, "precision": args.precision}
    defaults = {"problems": len(problems), "precision": "fp32"}
    with output_folder(out, EVALUATION, asked, defaults) as complete:
        policy = load_policy(args.model or base_of(args.task), device=pick_device(args.device))
        asked["weights_sha256_16"] = weights_hash(policy.model)
        recorded, _ = EVALUATION.read(out)
        asked["precision"] = policy_precision(begun_precision(args.precision, recorded), policy.model)
        if recorded is not None:
            refuse_other(out, EVALUATION, recorded, asked, defaults, complete)
        if complete:
            return read_json(out / "evaluation.json")["found"]
        texts = texts if keep else None
        rows_so_far(rows, texts, problems, args.samples)  # raises before anything is written
        write_json(out / "evaluation.json", {"asked": asked})
        frame = evaluate(
            policy, task, problems, samples=args.samples, out=rows, progress=sys.stderr.isatty(), seed=args.seed,
            responses=texts, precision=asked["precision"], **sampling,
        )  # fmt: skip
        found = summarise(frame)
        write_json(out / "evaluation.json", {"asked": asked, "found": found})
        return found


def _fetch(args: argparse.Namespace) -> dict[str, Any]:
    from rlino_lib.tasks.fetch import fetch

    return fetch(args.what, args.out, args.source, progress=sys.stderr.isatty())


def _grid(args: argparse.Namespace) -> dict[str, Any]:
    from rlino_lib.training.grid import run_grid

    return run_grid(args.file, PROGRAM, jobs=args.jobs, dry_run=args.dry_run, out=args.out)


def _bench(args: argparse.Namespace) -> dict[str, Any]:
    from rlino_lib.cli import bench
    from rlino_lib.policy.device import machine

    return {"machine": machine()} | bench.BENCHES[args.what](repeats=args.repeats, seed=args.seed)


def _presets(args: argparse.Namespace) -> dict[str, Any]:
    from rlino_lib.training.presets import find_preset, presets

    chosen = {args.name: find_preset(args.name)} if args.name else presets()
    print("\n\n".join(preset.table() for preset in chosen.values()), file=sys.stderr)
    return {name: preset.settings for name, preset in chosen.items()}


def _claims(args: argparse.Namespace) -> dict[str, Any]:
    from rlino_lib.claims.judge import judge_all
    from rlino_lib.folders import write_json
    from rlino_lib.paths import RUNS

    for flag, folder in (("--runs", args.runs), ("--yours", args.yours)):
        if folder is not None:
            A_FOLDER.check(flag, folder)
    if args.runs and not any(Path(args.runs).glob("*/*/config.json")):
        raise RlinoError(f"--runs {args.runs} holds no groups of runs")
    if args.yours:
        return _yours(args)
    found = judge_all(root=args.runs or RUNS)
    for row in found.itertuples():
        why = f"; under revision: {row.revision}" if row.revision else ""
        print(f"{row.id:22} {row.found:22} {row.effect}{why}", file=sys.stderr)
    if args.out:
        write_json(Path(args.out), found.to_dict("records"))
    differ = found[found["verdict"] != found["found"]]
    if len(differ):
        said = (
            f"{row.id} (stored: {row.verdict if isinstance(row.verdict, str) else 'none'}, found: {row.found})"
            for row in differ.itertuples()
        )
        raise RlinoError(f"the ledger's verdict is not that of the evidence for {', '.join(said)}")
    return {"claims": len(found), **found["found"].value_counts().to_dict()}


def _yours(args: argparse.Namespace) -> dict[str, Any]:
    from rlino_lib.claims.yours import judge_yours
    from rlino_lib.folders import write_json

    found = judge_yours(args.yours)
    for row in found.itertuples():
        print(f"{row.id:22} {row.model} on {row.task}: {row.verdict}; {row.effect}", file=sys.stderr)
    if args.out:
        write_json(Path(args.out), found.to_dict("records"))
    return {"claims": len(found), **found["verdict"].value_counts().to_dict()}


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    from rlino_lib.cli import grade as grading

    parser = Parser(prog="rlino", description="The commands behind the book RL in Name Only?")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)

    def command(name: str, what: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=what, description=what, epilog="examples:\n" + EXAMPLES[name],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip

    p = command("grade", "grade a JSONL file of responses")
    grading.add_arguments(p)
    for name, what in (
        ("pretrain", "make a small base model"),
        ("train", "train a policy and record the run"),
        ("evaluate", "sample a policy on a split and estimate pass@k"),
    ):
        p = command(name, what)
        p.add_argument(
            "--out", type=FOLDER.parse, required=True,
            help="folder to write; a killed command started again goes on in it",
        )  # fmt: skip
        _option(p, "threads", THREADS, 0, "CPU threads (default: torch's)")
        _ARGUMENTS[name](p)
    p = command("grid", "run many recorded runs from one JSON file; complete ones are skipped, killed ones resumed")
    p.add_argument("file")
    _option(p, "jobs", whole(), 0, "runs at a time (default: what the file says, or the machine)")
    p.add_argument("--out", type=FOLDER.parse, help="folder for the runs (default: beside the file, named like it)")
    p.add_argument("--dry-run", action="store_true", help="list the runs, their state and the time left; start none")
    p = command("fetch", "get a data set, which the book does not hold, from its public home, and check it")
    p.add_argument("what", choices=("gsm8k",))
    p.add_argument("--from", dest="source", metavar="DIR", help="copy the files from here, instead of downloading them")
    home = "$RLINO_DATA/gsm8k, or ~/.cache/rlino/gsm8k"
    p.add_argument("--out", type=FOLDER.parse, help=f"folder for the files (default: {home})")
    p.add_argument("--seed", type=SEED.parse, default=0, help="without effect: fetching draws nothing at random")
    p = command("bench", "measure speed, or memory, on this machine")
    p.add_argument("what", choices=("rollout", "step", "memory", "shape-0.5b", "shape-1.5b"))
    _add_fields(p, BenchConfig, filled=True)
    _option(p, "threads", THREADS, 0, "CPU threads (default: torch's)")
    p = command("presets", "show named settings of `rlino train`: what the paper gives, and what is our choice")
    p.add_argument("name", nargs="?", default="")
    p = command("claims", "judge every claim of the ledger anew; fails where a stored verdict differs")
    p.add_argument("--runs", help="folder of recorded runs (default: data/runs)")
    yours = "judge the runs in a folder of your own in their place, by model"
    p.add_argument("--yours", metavar="DIR", help=yours)
    p.add_argument("--out", type=A_FILE.parse, help="a JSON file for the claims with their evidence")
    return parser


def _pretrain_arguments(p: argparse.ArgumentParser) -> None:
    _add_fields(p, Recipe)
    _option(p, "device", DEVICE, "auto", "cpu, cuda or mps (default: a GPU where there is one)")


def _train_arguments(p: argparse.ArgumentParser) -> None:
    _add_fields(p, TrainConfig, skip=("task_settings", "objective_settings"))
    p.add_argument(
        "--preset", default="", metavar="NAME", help="start from these settings (`rlino presets` lists them)"
    )
    p.add_argument("--lora", action="store_true", help="train adapters alone, of rank 16 unless --lora-rank says")
    p.add_argument("--task-set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the task")
    changes = "a change to the method: normaliser=constant"
    p.add_argument("--objective-set", action="append", default=[], metavar="NAME=VALUE", help=changes)
    p.add_argument("--resume", action="store_true", help="what happens anyway: a killed run goes on")
    p.add_argument("--save", action="store_true", help="keep the trained model, in --out/model")


def _evaluate_arguments(p: argparse.ArgumentParser) -> None:
    _add_fields(p, EvaluateConfig, filled=True)
    p.add_argument("--task-set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the task")
    _option(p, "shots", whole(), None, "worked examples in the prompt, as --task-set shots=N (gsm8k: 0 to 8)")
    p.add_argument("--responses", action="store_true", help="keep the texts too, for `rlino grade`")


_ARGUMENTS = {"pretrain": _pretrain_arguments, "train": _train_arguments, "evaluate": _evaluate_arguments}
_COMMANDS = {"pretrain": _pretrain, "train": _train, "evaluate": _evaluate, "grid": _grid}
GO_ON = ("pretrain", "train", "evaluate", "grid", "fetch")  # what keeps its work where it is interrupted
_COMMANDS |= {"bench": _bench, "claims": _claims, "fetch": _fetch, "presets": _presets}


def _one_line(message: Warning | str, category: type[Warning], *where: Any) -> None:
    """How a warning looks on the command line."""
    print(f"rlino: {' '.join(str(message).split())}", file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft|torch")
        warnings.filterwarnings("always", category=RlinoWarning)
        warnings.showwarning = _one_line
        return run_program(lambda: _run(argv))


def _run(argv: list[str] | None) -> int:
    command = ""
    try:
        args = build_parser().parse_args(argv)
        command = args.command
        if args.command == "grade":
            from rlino_lib.cli import grade as grading

            return grading.main(args)
        _threads(getattr(args, "threads", 0))
        result = _COMMANDS[args.command](args)
    except KeyboardInterrupt:
        goes_on = "; the same command goes on where it stopped" if command in GO_ON else ""
        print(f"rlino: interrupted{goes_on}", file=sys.stderr)
        return 130
    print(json.dumps(result, default=float))
    return 0
