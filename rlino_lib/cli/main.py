"""The `rlino` command: one JSON line on stdout at the end; an error is one line on stderr and exit code 2.

Each command is a row of COMMANDS. The docstring of its function is its help: what it does, and examples.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rlino_lib.cli import doctor, grade, import_, options
from rlino_lib.cli.terminal import Parser, run_program
from rlino_lib.errors import RlinoError, RlinoWarning
from rlino_lib.folders import finite, held_by, replacing, write_json
from rlino_lib.paths import RUNS, base_of
from rlino_lib.settings import equal_parts
from rlino_lib.tasks import get_task
from rlino_lib.tasks.countdown.restarts import check_split
from rlino_lib.training.config import RUN_DEFAULTS, Recipe, TrainConfig, run_settings

if TYPE_CHECKING:
    import pandas as pd

    from rlino_lib.policy.models import Policy
    from rlino_lib.records.runs import Run

PROGRAM = (sys.executable, "-m", "rlino_lib.cli")  # this very command line, for the runs of a grid
# torch and transformers take seconds to import, so each command imports what it needs; `--help` needs nothing.


def _load(name: str | Path, device: str) -> Policy:
    from rlino_lib.policy.device import pick_device
    from rlino_lib.policy.models import load_policy

    return load_policy(name, device=pick_device(device))


def _write_table(table: pd.DataFrame, path: Path) -> None:
    with replacing(path) as part:
        table.to_csv(part, index=False, float_format="%.6g")


# --- the commands ----------------------------------------------------------------------------------------------------


def _pretrain(args: argparse.Namespace) -> dict[str, Any]:
    """make a small base model

    examples:
      rlino pretrain --out data/base/countdown
      rlino pretrain --task word_problems --steps 200 --out /tmp/tiny
    """
    from rlino_lib.training.pretraining.pretrain import pretrain

    recipe = Recipe(**options.fields_of(args, Recipe))
    return pretrain(recipe, args.out, device=args.device, workers=args.workers, progress=sys.stderr.isatty())


def _train(args: argparse.Namespace) -> dict[str, Any]:
    """train a policy and record the run

    examples:
      rlino train --method grpo --save --out runs/grpo-s0
      rlino train --method f_isft_posneg --seed 1 --out runs/f1
      rlino train --preset paper-gsm8k-0.5b --method f_isft_pos --out runs/q
      rlino train --preset paper-countdown-1.5b --lora --lr 1e-5 --save --out runs/q-lora
      rlino train --preset paper-gsm8k-1.5b --dry-run
    """
    config = options.train_config(args)
    if args.dry_run:
        from rlino_lib.cli.rehearsal import rehearse
        from rlino_lib.records.runs import RUN, complete_run

        if args.out and held_by(Path(args.out), RUN, run_settings(config), RUN_DEFAULTS)[1]:
            complete_run(Path(args.out), args.save)
        return rehearse(config)
    if not args.out:
        raise RlinoError("the following arguments are required: --out (see rlino train --help)")
    from rlino_lib.training.run import train

    return run_result(train(config, args.out, save=args.save, progress=sys.stderr.isatty()))


def run_result(run: Run) -> dict[str, Any]:
    """The summary of a run that a training command prints."""
    last = run.metrics.iloc[-1]
    return {"run": str(run.path), **(run.summary or {}), "reward": last["reward"], "accuracy": last["accuracy"]}


def _evaluate(args: argparse.Namespace) -> dict[str, Any]:
    """sample a policy on a split and estimate pass@k

    examples:
      rlino evaluate --split test --samples 64 --out runs/base-eval
      rlino evaluate --model runs/grpo-s0/model --samples 4 --out runs/grpo-s0-eval
      rlino evaluate --model Qwen/Qwen2.5-0.5B --task-set template=r1_zero --samples 1 --out runs/qwen-eval
      rlino evaluate --task gsm8k --shots 4 --model Qwen/Qwen2.5-0.5B --problems 0 --temperature 0 --max-new-tokens 320 --precision bf16 --responses --out runs/gsm8k-eval
      rlino grade --task gsm8k --task-set grader=flexible runs/gsm8k-eval/responses.jsonl > graded.jsonl
      rlino evaluate --samples 3072 --seed 1 --unsolved-by runs/base-eval --out runs/base-eval-more
    """  # noqa: E501
    from rlino_lib.evaluation.evaluate import EVALUATION, Files, evaluate, summarise, unsolved
    from rlino_lib.evaluation.graded import check_openings
    from rlino_lib.evaluation.recorded import measured

    equal_parts(args.samples)  # refuses before the folder is made
    own = options.task_settings(args.task_set) | ({} if args.shots is None else {"shots": args.shots})
    task = get_task(args.task, **own)
    check_split(task, args.split)
    problems = task.problems(args.split, args.problems or None)
    if args.unsolved_by:
        problems = unsolved(problems, Path(args.unsolved_by), args.seed)
    out = Path(args.out)
    texts = out / "responses.jsonl"
    keeps_texts = args.responses or texts.exists()
    sampling = {"max_new_tokens": args.max_new_tokens, "temperature": args.temperature, "top_p": args.top_p}
    settings = {
        "task": args.task, "task_settings": own, "split": args.split, "samples": args.samples, **sampling,
        "seed": args.seed, "problems": len(problems), "responses": keeps_texts, "precision": args.precision,
        "unsolved_by": args.unsolved_by or "",
    }  # fmt: skip
    defaults = {"problems": len(problems), "precision": "fp32", "unsolved_by": ""}

    def load() -> Policy:
        policy = _load(args.model or base_of(args.task), args.device)
        check_openings(policy, task, problems, args.max_new_tokens)
        return policy

    def measure(policy: Policy, precision: str) -> dict[str, Any]:
        files = Files(out / "problems.jsonl", texts if keeps_texts else None)
        settings = {"samples": args.samples, "seed": args.seed, "precision": precision, **sampling}
        return summarise(evaluate(policy, task, problems, files=files, **settings))

    return measured(out, EVALUATION, settings, defaults, load, measure)


def _chains(args: argparse.Namespace) -> dict[str, Any]:
    """measure what a policy's thoughts in Countdown mean: edits, hints, graphs, likelihood under the base

    examples:
      rlino chains --out runs/base-chains
      rlino chains --model data/runs/sharpening/grpo_no_kl-s0/model --out data/runs/sharpening/grpo_no_kl-s0/chains
      rlino chains --task-set n_numbers=3 --split train --problems 16 --samples 4 --out runs/few
    """
    from rlino_lib.evaluation.chains import Subject, base_of_model, measure_chains, same_tokens
    from rlino_lib.evaluation.recorded import measured
    from rlino_lib.policy.models import weights_hash
    from rlino_lib.records.chains import MEASUREMENT

    own = options.FOUR_NUMBERS | options.task_settings(args.task_set)
    task: Any = get_task(args.task, **own)
    if not task.thinking:
        raise RlinoError("--task-set thinking=false leaves no thoughts to measure")
    problems = task.problems(args.split, args.problems)
    out = Path(args.out)
    name = base_of_model(args.model)
    base = _load(name, args.device)
    settings = {
        "task": args.task, "task_settings": own, "split": args.split, "problems": args.problems,
        "samples": args.samples, "max_new_tokens": args.max_new_tokens, "seed": args.seed,
        "precision": args.precision, "base": weights_hash(base.model),
    }  # fmt: skip

    def load() -> Policy:
        return same_tokens(_load(args.model or name, args.device), base, args.model)

    def measure(policy: Policy, precision: str) -> dict[str, Any]:
        sampling = {"max_new_tokens": args.max_new_tokens, "precision": precision}
        subject = Subject(policy, base, task, problems, args.samples, args.seed, sampling)
        return measure_chains(subject, out, progress=sys.stderr.isatty())

    return measured(out, MEASUREMENT, settings, {}, load, measure)


def _values(args: argparse.Namespace) -> dict[str, Any]:
    """measure the values of a trained policy's steps: 256 continuations, few of them, and its critic

    examples:
      rlino train --method ppo --task word_problems --max-new-tokens 64 --save --out runs/ppo
      rlino values runs/ppo
      rlino values runs/ppo --problems 16 --out runs/ppo-few
    """
    from rlino_lib.analysis.credit import estimates, share_within
    from rlino_lib.evaluation.recorded import measured
    from rlino_lib.evaluation.value_errors import VALUES, check_measurable, measure_values
    from rlino_lib.policy.critic import Critic, load_critic
    from rlino_lib.records.runs import CRITIC, load_run

    run = load_run(args.run)
    shared = {name: run.config[name] for name in ("task", "max_new_tokens", "temperature")}
    c = TrainConfig(**shared, task_settings=run.config.get("task_settings", {}))  # raises where one is damaged
    task = get_task(c.task, **c.task_settings)
    check_measurable(run, task)
    problems = task.problems("test", args.problems)
    sampling = {name: c.sampling[name] for name in ("max_new_tokens", "temperature")}
    settings = {"problems": args.problems, "samples": args.samples, "seed": args.seed, "precision": "auto", **sampling}
    out = Path(args.out) if args.out else run.path / "values"

    @cache
    def critic_of(policy: Policy) -> Critic | None:
        return load_critic(run.path / CRITIC, policy.model) if (run.path / CRITIC).exists() else None

    def load() -> Policy:
        policy = _load(run.path / "model", args.device)
        critic_of(policy)  # a damaged one is refused before anything is written
        return policy

    def measure(policy: Policy, precision: str) -> dict[str, Any]:
        how = {**sampling, "precision": precision}
        table = measure_values(policy, critic_of(policy), task, problems, args.samples, args.seed, **how)
        _write_table(table, out / "values.csv")
        return {"states": len(table)} | {f"within/{name}": share_within(table, name) for name in estimates(table)}

    return measured(out, VALUES, settings, {}, load, measure)


def _gradients(args: argparse.Namespace) -> dict[str, Any]:
    """measure how much a gradient varies by RLOO's credit and by VinePPO's, on hard, middle and easy problems

    The evaluation says how hard each problem is to the policy, and how responses are sampled.

    examples:
      rlino gradients data/base/word_problems --out data/base/word_problems/gradients
      rlino evaluate --model runs/ppo/model --task word_problems --samples 64 --max-new-tokens 64 --out runs/ppo-eval
      rlino gradients runs/ppo-eval --model runs/ppo/model --out runs/ppo-gradients
    """
    from rlino_lib.analysis.credit import by_difficulty, sd_ratios
    from rlino_lib.evaluation.evaluate import complete_evaluation
    from rlino_lib.evaluation.recorded import measured
    from rlino_lib.policy.models import weights_hash
    from rlino_lib.training.gradients import CREDITS, GRADIENTS, measure_gradients
    from rlino_lib.training.trainer import Trainer

    recorded, evaluated = complete_evaluation(Path(args.evaluation), args.seed)
    if recorded["top_p"] != 1:
        raise RlinoError(f"the evaluation in {args.evaluation} left out unlikely tokens: a gradient needs top_p = 1")
    chosen = by_difficulty(evaluated, args.problems)
    shared = {key: recorded[key] for key in ("task", "task_settings", "max_new_tokens", "temperature")}
    config = TrainConfig(method="grpo_no_kl", seed=args.seed, eval_every=0, model=args.model, **shared)
    settings = shared | {
        "split": recorded["split"], "problems": args.problems, "groups": args.groups, "group_size": config.group_size,
        "value_samples": CREDITS["vineppo"].value_samples, "seed": args.seed, "precision": config.precision,
    }  # fmt: skip
    out = Path(args.out)
    task = get_task(config.task, **config.task_settings)
    problems = {problem.id: problem for problem in task.problems(recorded["split"])}
    if foreign := [id for id in chosen["problem"] if id not in problems]:
        raise RlinoError(f"the evaluation in {args.evaluation} is of a problem that is not the task's: {foreign[0]}")

    def load() -> Policy:
        policy = _load(config.model, args.device)
        if weights_hash(policy.model) != recorded["weights_sha256_16"]:
            raise RlinoError(f"the evaluation in {args.evaluation} is of other weights than those of {config.model}")
        return policy

    def measure(policy: Policy, precision: str) -> dict[str, Any]:
        trainer = Trainer(replace(config, precision=precision), policy)
        subjects = [problems[id] for id in chosen["problem"]]
        table = measure_gradients(trainer, subjects, groups=args.groups, progress=sys.stderr.isatty())
        table = chosen.merge(table, on="problem")
        _write_table(table, out / "gradients.csv")
        return {"by_difficulty": sd_ratios(table).to_dict("records")}

    return measured(out, GRADIENTS, settings, {}, load, measure)


def _grid(args: argparse.Namespace) -> dict[str, Any]:
    """run many recorded runs from one JSON file; complete ones are skipped, killed ones resumed

    examples:
      rlino grid data/runs/countdown.json
      rlino grid data/runs/countdown.json --jobs 2 --dry-run

    a file: {"base": {"steps": 100}, "seeds": [0, 1], "axes": {"task": ["countdown"], "method": ["grpo", "rloo"]},
             "set": [{"where": {"method": "rloo"}, "lr": 2e-4}]}
    or, run by run: {"base": {}, "seeds": [0, 1], "runs": [{"name": "mine", "method": "grpo", "lr": 1e-4}]}
    """
    from rlino_lib.training.grid import run_grid

    return run_grid(args.file, PROGRAM, jobs=args.jobs, dry_run=args.dry_run, out=args.out)


def _fetch(args: argparse.Namespace) -> dict[str, Any]:
    """get a data set, which the book does not hold, from its public home, and check it

    examples:
      rlino fetch gsm8k
      rlino fetch gsm8k --from ~/Downloads
      rlino fetch gsm8k --out /data/gsm8k   # then: --task-set folder=/data/gsm8k
    """
    from rlino_lib.tasks.fetch import fetch

    return fetch(args.what, args.out, args.source, progress=sys.stderr.isatty())


def _bench(args: argparse.Namespace) -> dict[str, Any]:
    """measure speed, or memory, on this machine

    examples:
      rlino bench rollout
      rlino bench pass-at-k   # a minute
      rlino bench step --repeats 5
      rlino bench credit --repeats 3   # a step of VinePPO beside one of GRPO, and values in bulk
      rlino bench memory --repeats 3
      rlino bench shape-0.5b --repeats 1
      rlino bench gpu > gpu.json   # a minute
    """
    from rlino_lib.cli import bench, bench_gpu
    from rlino_lib.policy.device import machine

    benches = bench.BENCHES | {"gpu": bench_gpu.bench_gpu}
    repeats = {} if args.repeats is None else {"repeats": args.repeats}
    if args.what == "gpu" and repeats:
        raise RlinoError("--repeats: `rlino bench gpu` measures once, within its minute: leave it out")
    return {"machine": machine()} | benches[args.what](seed=args.seed, **repeats)


def _presets(args: argparse.Namespace) -> dict[str, Any]:
    """show named settings of `rlino train`: what the paper gives, and what is our choice

    examples:
      rlino presets
      rlino presets paper-gsm8k-0.5b
    """
    from rlino_lib.training.presets import find_preset, presets

    chosen = {args.name: find_preset(args.name)} if args.name else presets()
    print("\n\n".join(preset.table() for preset in chosen.values()), file=sys.stderr)
    return {name: preset.settings for name, preset in chosen.items()}


def _claims(args: argparse.Namespace) -> dict[str, Any]:
    """judge every claim of the ledger anew; fails where a stored verdict differs

    examples:
      rlino claims
      rlino claims --out claims.json
      rlino claims --yours runs
    """
    from rlino_lib.claims.judge import judge_all
    from rlino_lib.claims.yours import AT_SCALE, judge_yours, silent

    for flag, folder in (("--runs", args.runs), ("--yours", args.yours)):
        if folder is not None:
            options.A_FOLDER.check(flag, folder)
    if args.runs and not any(Path(args.runs).glob("*/*/config.json")):
        raise RlinoError(f"--runs {args.runs} holds no groups of runs")
    judged = judge_yours(args.yours) if args.yours else judge_all(root=args.runs or RUNS)
    verdict = "verdict" if args.yours else "found"  # the column of what the evidence says
    for row in judged.itertuples():
        if args.yours:
            scale = f", {AT_SCALE}" if row.paper else ""
            line = f"{row.model} on {row.task}{scale}: {row.verdict}; {row.effect}"
        else:
            line = f"{row.found:22} {row.effect}" + (f"; {row.standing}" if row.standing else "")
        print(f"{row.id:22} {line}", file=sys.stderr)
    for line in silent(args.yours) if args.yours else ():
        print(f"rlino: {line}", file=sys.stderr)
    if args.out:
        write_json(Path(args.out), judged.to_dict("records"))
    differ = [
        f"{row.id} (stored: {row.verdict if isinstance(row.verdict, str) else 'none'}, found: {row.found})"
        for row in judged[judged["verdict"] != judged[verdict]].itertuples()
    ]
    if differ:
        raise RlinoError(f"the ledger's verdict is not that of the evidence for {', '.join(differ)}")
    return {"claims": len(judged), **judged[verdict].value_counts().to_dict()}


# --- the table -------------------------------------------------------------------------------------------------------


class Command(NamedTuple):
    """A row of COMMANDS."""

    run: Callable[[argparse.Namespace], dict[str, Any] | int]  # the line of JSON; an exit code where it printed itself
    options: tuple[options.Option, ...]
    goes_on: bool = False  # whether the same command goes on where an interrupted one stopped


COMMANDS: dict[str, Command] = {
    "grade": Command(grade.main, options.GRADE),
    "pretrain": Command(_pretrain, options.PRETRAIN, goes_on=True),
    "train": Command(_train, options.TRAIN, goes_on=True),
    "evaluate": Command(_evaluate, options.EVALUATE, goes_on=True),
    "chains": Command(_chains, options.CHAINS, goes_on=True),
    "values": Command(_values, options.VALUES, goes_on=True),
    "gradients": Command(_gradients, options.GRADIENTS),
    "import": Command(import_.main, options.IMPORT, goes_on=True),
    "grid": Command(_grid, options.GRID, goes_on=True),
    "fetch": Command(_fetch, options.FETCH, goes_on=True),
    "bench": Command(_bench, options.BENCH),
    "presets": Command(_presets, options.PRESETS),
    "claims": Command(_claims, options.CLAIMS),
    "doctor": Command(doctor.main, ()),
}


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; the docstring of the function that runs a command is its help."""
    parser = Parser(prog="rlino", description="The commands behind the book RL in Name Only?")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    for name, command in COMMANDS.items():
        summary, _, rest = inspect.getdoc(command.run).partition("\n\n")
        as_written = argparse.RawDescriptionHelpFormatter
        own = commands.add_parser(name, help=summary, description=summary, epilog=rest, formatter_class=as_written)
        options.add_options(own, command.options)
    return parser


def _one_line(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
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
    hint = ""
    try:
        args = build_parser().parse_args(argv)
        command = COMMANDS[args.command]
        hint = "; the same command goes on where it stopped" if command.goes_on else ""
        options.set_threads(getattr(args, "threads", 0))
        result = command.run(args)
    except KeyboardInterrupt:
        print(f"rlino: interrupted{hint}", file=sys.stderr)
        return 130
    if isinstance(result, int):
        return result
    print(json.dumps(finite(result)))
    return 0
