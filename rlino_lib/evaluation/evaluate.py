"""What a policy can do: accuracy, pass@k, lengths by correctness, and intervals (chapters 03 and 07)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor
from tqdm.auto import tqdm

from rlino_lib.analysis.pass_at_k import pass_at_k
from rlino_lib.analysis.statistics import bootstrap_interval
from rlino_lib.errors import RlinoError
from rlino_lib.evaluation.graded import sample_graded
from rlino_lib.folders import Kind, append_jsonl, asked_and_found, read_jsonl, replacing
from rlino_lib.policy.models import Policy
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.records.runs import Settings
from rlino_lib.settings import SPLIT, equal_parts
from rlino_lib.tasks import Problem, Task

ROWS = 4096  # responses that are sampled, graded and counted at a time, however many there are of a problem
CHUNK = 64  # problems, at most, whose rows are written together
TEST_PROBLEMS = 1024  # of every task's test split but GSM8K's, as in the paper's Countdown


def mean_entropy(rollouts: Rollouts) -> float:
    """The mean entropy per token of what sampled the rollouts, at its temperature, in nats."""
    return rollouts.entropies.double().sum().item() / rollouts.mask.sum().item()


def outcome_metrics(rollouts: Rollouts) -> dict[str, float | int | None]:
    """Metrics of graded rollouts, under their names in the metrics file; None for a mean over no responses."""
    correct = rollouts.correct  # [N]
    truncated = rollouts.truncated  # [N]
    lengths = rollouts.lengths.double()  # [N]
    groups = rollouts.rewards.view(-1, rollouts.group_size)  # [P, G]

    def mean(values, where) -> float | None:
        return values[where].mean().item() if where.any() else None

    per_row = rollouts.logprobs.double().sum(1)  # [N], log π(o | q)
    return {
        "reward": rollouts.rewards.double().mean().item(),
        "accuracy": correct.double().mean().item(),
        "format_ok": float(np.mean([g.format_ok for g in rollouts.grades])),
        "completions/mean_length": lengths.mean().item(),
        "completions/clipped_ratio": truncated.double().mean().item(),
        "frac_reward_zero_std": (groups == groups[:, :1]).all(1).double().mean().item(),
        "entropy": mean_entropy(rollouts),
        "length/correct": mean(lengths, correct),
        "length/incorrect": mean(lengths, ~correct),
        "length/incorrect_unclipped": mean(lengths, ~correct & ~truncated),
        "n_correct": int(correct.sum()),
        "n_incorrect": int((~correct).sum()),
        "logprob/correct": mean(per_row, correct),
        "logprob/incorrect": mean(per_row, ~correct),
    }


# Of `outcome_metrics`, what an evaluation records.
_EVALUATED = (
    "accuracy", "format_ok", "completions/mean_length", "completions/clipped_ratio", "entropy", "length/correct",
    "length/incorrect", "length/incorrect_unclipped",
)  # fmt: skip


def eval_columns(rollouts: Rollouts) -> dict[str, float | int | None]:
    """The `eval/…` columns of one evaluation, from its graded rollouts."""
    metrics = outcome_metrics(rollouts)
    return {f"eval/{name.removeprefix('completions/')}": metrics[name] for name in _EVALUATED}


def base_columns(rollouts: Rollouts, under_base: Tensor, of_base: Rollouts, now: Tensor) -> dict[str, float | None]:
    """How far training has moved the policy from the base, in nats per response.

    `eval/kl_base`: Σ_t log π − log π_base over rollouts of the policy, mean over responses, which estimates
    KL(π‖π_base) without bias; `under_base` [N, T] holds their log-probs under the base. `eval/base/correct` and
    `eval/base/incorrect`: the mean log-likelihood that the policy gives now (`now`, [M, T]) to the right and the wrong
    responses which the base had sampled (`of_base`), the same ones at every evaluation.
    """
    kl = ((rollouts.logprobs - under_base) * rollouts.mask).double().sum(1)  # [N]
    likelihood = (now * of_base.mask).double().sum(1)  # [M]
    out: dict[str, float | None] = {"eval/kl_base": kl.mean().item()}
    for name, rows in (("correct", of_base.correct), ("incorrect", ~of_base.correct)):
        out[f"eval/base/{name}"] = likelihood[rows].mean().item() if rows.any() else None
    return out


class Files(NamedTuple):
    """The JSONL files into which an evaluation is written as it goes."""

    rows: Path  # a line for each problem
    texts: Path | None = None  # a line for each response, for `rlino grade` to grade with another grader


def evaluate(
    policy: Policy, task: Task, problems: Sequence[Problem], *, samples: int = 1, seed: int = 0,
    files: Files | None = None, on_rollouts: Callable[[Rollouts], None] | None = None, **sampling: Any,
) -> pd.DataFrame:  # fmt: skip
    """One row per problem: n samples, c right, and sums over its responses (length, format, step arithmetic…).

    With `files`, rows are appended as they are made, and problems that are there already are not sampled again, so a
    killed evaluation resumes where it stopped: at the last whole chunk of CHUNK problems, or of as many as have ROWS
    responses. A problem's samples depend only on `seed`, its place and these two. No more than ROWS responses are held
    at a time. `on_rollouts` is called with the graded rollouts each time, and `sampling` goes to `sample_graded`. There
    is a bar on a terminal. Raises RlinoError where a file holds another evaluation, for less than one sample, and where
    many samples do not divide into `equal_parts`.

        evaluate(policy, task, task.problems("test", 64), samples=4, temperature=0.6)
    """
    parts, size = equal_parts(samples)
    at_once = ROWS // size  # parts
    chunk = max(1, min(CHUNK, ROWS // samples))
    rows = _whole_chunks(files, problems, samples, chunk) if files else []
    with tqdm(total=len(problems), initial=len(rows), desc="evaluate", unit="problem", disable=None) as bar:
        for start in range(len(rows), len(problems), chunk):
            some = [problem for problem in problems[start : start + chunk] for _ in range(parts)]
            new: list[dict[str, Any]] = []
            for k in range(0, len(some), at_once):
                seed_of_call = seed * 1_000_003 + start * parts + k
                rollouts = sample_graded(policy, task, some[k : k + at_once], size, seed=seed_of_call, **sampling)
                new += [problem_row(rollouts, i, task) for i in range(len(rollouts.problems))]
                if on_rollouts:
                    on_rollouts(rollouts)
                if files and files.texts:
                    append_jsonl(files.texts, _texts(rollouts, k % parts, parts))
            new = [_added(new[k : k + parts]) for k in range(0, len(new), parts)]
            rows += new
            if files:
                append_jsonl(files.rows, new)
            bar.update(len(new))
    return pd.DataFrame(rows)


def _whole_chunks(files: Files, problems: Sequence[Problem], samples: int, chunk: int) -> list[dict[str, Any]]:
    """The rows of the whole chunks that both files hold; what they hold beyond these is cut off, to be sampled again.

    Raises RlinoError where a file holds another evaluation, or is damaged.
    """
    rows, texts = (read_jsonl(file) if file and file.exists() else [] for file in files)
    ids = [problem.id for problem in problems]
    if files.texts:
        rows = rows[: len(texts) // samples]
        if [line.get("id") for line in texts[::samples]] != ids[: math.ceil(len(texts) / samples)]:
            raise RlinoError(f"{files.texts} holds another evaluation: choose another --out")
    if [row.get("id") for row in rows] != ids[: len(rows)] or any(row.get("n") != samples for row in rows):
        raise RlinoError(f"{files.rows} holds another evaluation: choose another --out")
    whole = len(rows) // chunk * chunk
    for file, lines in zip(files, (rows[:whole], texts[: whole * samples]), strict=True):
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as part:
                append_jsonl(part, lines)
    return rows[:whole]


def read_evaluation(folder: Path) -> tuple[dict[str, Any] | None, bool]:
    """The settings that a folder records of an evaluation, and whether the evaluation is complete."""
    settings, result = asked_and_found(folder / "evaluation.json")
    if settings is None:
        return None, False
    # Older records do not name these settings: whether texts were kept, and how many problems there were.
    implied = {"responses": (folder / "responses.jsonl").exists()}
    implied |= {"problems": result.get("problems")} if result else {}
    return implied | settings, result is not None


def unsolved(problems: Sequence[Problem], folder: Path, seed: int) -> list[Problem]:
    """Those of the problems of which the evaluation in a folder has no right sample, to be sampled from another seed.

    Raises RlinoError where there is no complete evaluation, it has the same seed, whose draws would be the same, or
    none of its failures is among the problems.
    """
    _, rows = complete_evaluation(folder, seed)
    failed = {row["id"] for row in rows if not row["c"]}
    kept = [problem for problem in problems if problem.id in failed]
    if not kept:
        raise RlinoError(f"the evaluation in {folder} leaves none of these problems unsolved")
    return kept


def complete_evaluation(folder: Path, seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The settings and the rows of the evaluation in a folder, whose problems are to be sampled from another seed.

    Raises RlinoError where there is no complete one, it is damaged, or it has the same seed, whose draws would be the
    same; and for a setting that it does not record.
    """
    settings, complete = read_evaluation(folder)
    if settings is None or not complete:
        raise RlinoError(f"{folder} holds no complete evaluation")
    if settings.get("seed") == seed:
        raise RlinoError(f"the evaluation in {folder} has the same seed, whose draws would come again: another --seed")
    SPLIT.check(f"{folder}: split", settings.get("split"))
    file = folder / "problems.jsonl"
    rows = read_jsonl(file)
    if len(rows) != settings["problems"] or not all(map(_counts, rows)):
        raise RlinoError(f"{file} is damaged: it does not have the counts of the {settings['problems']} problems")
    return Settings(settings, f"the evaluation in {folder}"), rows


def _counts(row: dict[str, Any]) -> bool:
    """Whether a row says of a problem how many of its samples are right."""
    n, c = row.get("n"), row.get("c")
    return isinstance(row.get("id"), str) and type(n) is type(c) is int and 0 <= c <= n > 0


EVALUATION = Kind("evaluation", read_evaluation, ("problems.jsonl", "responses.jsonl"))


def test_problems(task: Task) -> list[Problem]:
    """What a trained policy is tested on: the first 1,024 of the test split, of GSM8K all 1,319."""
    return task.problems("test", None if task.name == "gsm8k" else TEST_PROBLEMS)


def _texts(rollouts: Rollouts, first: int, parts: int) -> Iterator[dict[str, Any]]:
    """A line for each response, in the form that `rlino grade` reads.

    Each problem has `parts` groups; the first group here is number `first` of its problem's.
    """
    for i, (text, grade) in enumerate(zip(rollouts.texts, rollouts.grades, strict=True)):
        group, place = divmod(i, rollouts.group_size)
        problem = rollouts.problems[group]
        sample = (first + group) % parts * rollouts.group_size + place
        facts = {"length": int(rollouts.lengths[i]), "clipped": bool(rollouts.truncated[i]), "response": text}
        verdict = {"reward": grade.reward, "correct": grade.correct, "reason": grade.reason}
        yield {"id": problem.id, "sample": sample, **problem.data, **facts, **verdict}


def problem_row(rollouts: Rollouts, i: int, task: Task) -> dict[str, Any]:
    """The row of group i in graded rollouts: n samples, c right, `cc` of them by a right chain, and sums over them.

    `cc` and the counts of a trace are there where the task says them.
    """
    rows = slice(i * rollouts.group_size, (i + 1) * rollouts.group_size)
    grades = rollouts.grades[rows]
    lengths = rollouts.lengths[rows].tolist()
    problem = rollouts.problems[i]
    row = {
        "id": problem.id,
        "n": len(grades),
        "c": sum(g.correct for g in grades),
        "format_ok": sum(g.format_ok for g in grades),
        "clipped": int(rollouts.truncated[rows].sum()),
        "tokens": sum(lengths),
        "tokens_correct": sum(n for n, g in zip(lengths, grades, strict=True) if g.correct),
    }
    verdicts = Counter(zip(rollouts.texts[rows], (grade.correct for grade in grades), strict=True))  # each text once
    if hasattr(task, "trace_counts"):
        counts: Counter[str] = Counter()
        for (text, _), n in verdicts.items():
            traced = task.trace_counts(text.removeprefix(problem.opening))
            counts.update({name: n * count for name, count in traced.items()})
        row |= counts
    if hasattr(task, "chain_right"):
        row["cc"] = sum(n for (text, right), n in verdicts.items() if right and task.chain_right(problem, text))
    return row | ({"kind": kind} if (kind := problem.data.get("kind")) else {})


def _added(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row of a problem from those of its parts: counts add up, the rest is the same in all."""
    return {name: sum(r[name] for r in rows) if isinstance(v, int) else v for name, v in rows[0].items()}


def summarise(frame: pd.DataFrame, ks: Sequence[int] = (1, 4, 16, 64, 256)) -> dict[str, Any]:
    """The numbers of an evaluation: pass@k with BCa intervals over problems, format, arithmetic and lengths.

    `chain_right` is the share of right answers whose chain is right too, where every row counts them (`cc`).
    """
    n = int(frame["n"].iloc[0])
    sums = frame.sum(numeric_only=True)
    out: dict[str, Any] = {"problems": len(frame), "samples": n}
    for k in (k for k in ks if k <= n):
        values = [pass_at_k(n, c, k) for c in frame["c"]]
        low, high = bootstrap_interval(values)
        out[f"pass@{k}"] = {"value": float(np.mean(values)), "low": low, "high": high}
    if "kind" in frame:  # a task that holds problems out in more than one way
        counts = frame.groupby("kind")[["c", "n"]].sum()
        out["by_kind"] = (counts["c"] / counts["n"]).to_dict()

    def mean(total: float, count: float) -> float | None:
        return float(total / count) if count else None

    for name, column in (("format_ok", "format_ok"), ("clipped_ratio", "clipped"), ("mean_length", "tokens")):
        out[name] = mean(sums[column], sums["n"])
    out["length/correct"] = mean(sums["tokens_correct"], sums["c"])
    out["length/incorrect"] = mean(sums["tokens"] - sums["tokens_correct"], sums["n"] - sums["c"])
    if sums.get("steps"):
        out["steps_right"] = mean(sums["steps_right"], sums["steps"])
        out["attempts_per_response"] = mean(sums["attempts"], sums["n"])
    if "cc" in frame and frame["cc"].notna().all() and sums["c"]:
        out["chain_right"] = mean(sums["cc"], sums["c"])
    return out
