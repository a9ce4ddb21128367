"""What a policy can do: accuracy, pass@k, lengths by correctness, and intervals (chapters 03 and 07)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor
from tqdm.auto import tqdm

from rlino_lib.analysis.pass_at_k import pass_at_k
from rlino_lib.analysis.statistics import bootstrap_interval
from rlino_lib.errors import RlinoError
from rlino_lib.folders import Kind, append_jsonl, read_json, read_jsonl, replacing
from rlino_lib.policy.models import Policy
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.policy.sampling import sample
from rlino_lib.tasks import Problem, Task

TEST_PROBLEMS = 1024  # of every task's test split but GSM8K's, as in the paper's Countdown


def outcome_metrics(rollouts: Rollouts) -> dict[str, float | int | None]:
    """What graded rollouts look like, under the names of the metrics file; None where a mean has nothing to average."""
    correct = rollouts.correct  # [N]
    truncated = rollouts.truncated  # [N]
    lengths = rollouts.lengths.double()  # [N]
    groups = rollouts.rewards.view(-1, rollouts.group_size)  # [P, G]

    def mean(values, where) -> float | None:
        return values[where].mean().item() if where.any() else None

    tokens = rollouts.mask.sum().item()
    per_row = rollouts.logprobs.double().sum(1)  # [N], log π(o | q)
    return {
        "reward": rollouts.rewards.double().mean().item(),
        "accuracy": correct.double().mean().item(),
        "format_ok": float(np.mean([g.format_ok for g in rollouts.grades])),
        "completions/mean_length": lengths.mean().item(),
        "completions/clipped_ratio": truncated.double().mean().item(),
        "frac_reward_zero_std": (groups == groups[:, :1]).all(1).double().mean().item(),
        "entropy": rollouts.entropies.double().sum().item() / tokens,
        "length/correct": mean(lengths, correct),
        "length/incorrect": mean(lengths, ~correct),
        "length/incorrect_unclipped": mean(lengths, ~correct & ~truncated),
        "n_correct": int(correct.sum()),
        "n_incorrect": int((~correct).sum()),
        "logprob/correct": mean(per_row, correct),
        "logprob/incorrect": mean(per_row, ~correct),
    }


EVAL_COLUMNS = {
    "eval/accuracy": "accuracy",
    "eval/format_ok": "format_ok",
    "eval/mean_length": "completions/mean_length",
    "eval/clipped_ratio": "completions/clipped_ratio",
    "eval/entropy": "entropy",
    "eval/length/correct": "length/correct",
    "eval/length/incorrect": "length/incorrect",
    "eval/length/incorrect_unclipped": "length/incorrect_unclipped",
}


def eval_columns(rollouts: Rollouts) -> dict[str, float | int | None]:
    """The `eval/…` columns of one evaluation, from its graded rollouts."""
    found = outcome_metrics(rollouts)
    return {column: found[name] for column, name in EVAL_COLUMNS.items()}


def base_columns(rollouts: Rollouts, under_base: Tensor, of_base: Rollouts, now: Tensor) -> dict[str, float | None]:
    """What training has done to the base, measured in nats a response.

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


def evaluate(
    policy: Policy,
    task: Task,
    problems: Sequence[Problem],
    *,
    samples: int = 1,
    out: str | Path | None = None,
    progress: bool = False,
    seed: int = 0,
    chunk: int = 64,
    on_rollouts: Callable[[Rollouts], None] | None = None,
    responses: str | Path | None = None,
    **sampling: Any,
) -> pd.DataFrame:
    """One row a problem: n samples, c right, and means over its responses (length, format, step arithmetic…).

    With `out`, rows are appended to that JSONL file as they come, and problems that stand there already are not sampled
    again, so a killed evaluation goes on where it stopped. A problem's samples depend on `seed` and its place alone.
    With `responses` too the texts are appended to that JSONL file, a line each, which `rlino grade` can grade by
    another grader. A task's stop strings end its responses. `on_rollouts` is handed the graded rollouts of each part.
    Raises RlinoError where a file holds another evaluation.
    """
    path, texts = (Path(p) if p else None for p in (out, responses))
    done, said = rows_so_far(path, texts, problems, samples)
    first = len(done) // chunk * chunk  # a half-written chunk is sampled again, so that its draws are the same
    done = done[:first]
    for file, rows in ((path, done), (texts, said[: first * samples])):
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as part:
                append_jsonl(part, rows)
    bar = tqdm(total=len(problems), initial=first, desc="evaluate", unit="problem", disable=not progress)
    for start in range(first, len(problems), chunk):
        part = problems[start : start + chunk]
        prompts = [task.prompt(p) for p in part]
        stop = tuple(getattr(task, "stop", ()))
        rollouts = sample(
            policy, prompts, samples, seed=seed * 1_000_003 + start, **{"stop_strings": stop, **sampling}
        ).grade(task, part)
        rows = [problem_row(rollouts, i, task) for i in range(len(part))]
        done += rows
        if on_rollouts:
            on_rollouts(rollouts)
        for file, rows_of_file in ((texts, _texts(rollouts)), (path, rows)):
            if file:
                append_jsonl(file, rows_of_file)
        bar.update(len(part))
    bar.close()
    return pd.DataFrame(done)


def rows_so_far(
    path: Path | None, texts: Path | None, problems: Sequence[Problem], samples: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What files of rows and of texts hold of an evaluation already, as far as they go together.

    Raises RlinoError where a file holds another evaluation, or is damaged.
    """
    done, said = (read_jsonl(file) if file and file.exists() else [] for file in (path, texts))
    if texts:
        done = done[: len(said) // samples]
        if [r.get("id") for r in said[::samples]] != [p.id for p in problems[: math.ceil(len(said) / samples)]]:
            raise RlinoError(f"{texts} holds another evaluation: choose another --out")
    if [d["id"] for d in done] != [p.id for p in problems[: len(done)]] or any(d["n"] != samples for d in done):
        raise RlinoError(f"{path} holds another evaluation: choose another --out")
    return done, said


def read_evaluation(folder: Path) -> tuple[dict[str, Any] | None, bool]:
    """The settings that a folder records of an evaluation, and whether the evaluation is complete."""
    if not (folder / "evaluation.json").exists():
        return None, False
    recorded = read_json(folder / "evaluation.json", needs="asked")
    complete = "found" in recorded
    # Settings that were recorded later on, and are seen otherwise: how many problems, and whether texts were kept.
    seen = {"responses": (folder / "responses.jsonl").exists()}
    seen |= {"problems": recorded["found"]["problems"]} if complete else {}
    return seen | recorded["asked"], complete


EVALUATION = Kind("evaluation", read_evaluation, ("problems.jsonl", "responses.jsonl"))


def test_problems(task: Task) -> list[Problem]:
    """What a trained policy is tested on: the first 1,024 of the test split, of GSM8K all 1,319."""
    return task.problems("test", None if task.name == "gsm8k" else TEST_PROBLEMS)


def _texts(rollouts: Rollouts) -> Iterator[dict[str, Any]]:
    """A line for each response, in the form that `rlino grade` reads."""
    for i, (text, grade) in enumerate(zip(rollouts.texts, rollouts.grades, strict=True)):
        problem, sample = rollouts.problems[i // rollouts.group_size], i % rollouts.group_size
        told = {"length": int(rollouts.lengths[i]), "clipped": bool(rollouts.truncated[i]), "response": text}
        verdict = {"reward": grade.reward, "correct": grade.correct, "reason": grade.reason}
        yield {"id": problem.id, "sample": sample, **problem.data, **told, **verdict}


def problem_row(rollouts: Rollouts, i: int, task: Task) -> dict[str, Any]:
    """The row of problem i in graded rollouts: n samples, c right, and sums over them."""
    rows = slice(i * rollouts.group_size, (i + 1) * rollouts.group_size)
    grades, lengths = rollouts.grades[rows], rollouts.lengths[rows].tolist()
    right = [n for n, g in zip(lengths, grades, strict=True) if g.correct]
    return {
        "id": rollouts.problems[i].id,
        "n": len(grades),
        "c": sum(g.correct for g in grades),
        "format_ok": sum(g.format_ok for g in grades),
        "clipped": int(rollouts.truncated[rows].sum()),
        "tokens": sum(lengths),
        "tokens_correct": sum(right),
        **_trace_counts(task, rollouts.texts[rows]),
        **({"kind": kind} if (kind := rollouts.problems[i].data.get("kind")) else {}),
    }


def summarise(frame: pd.DataFrame, ks: Sequence[int] = (1, 4, 16, 64)) -> dict[str, Any]:
    """The numbers of an evaluation: pass@k with BCa intervals over problems, format, arithmetic and lengths."""
    n = int(frame["n"].iloc[0])
    total, right = int(frame["n"].sum()), int(frame["c"].sum())
    out: dict[str, Any] = {"problems": len(frame), "samples": n}
    for k in (k for k in ks if k <= n):
        values = [pass_at_k(n, c, k) for c in frame["c"]]
        low, high = bootstrap_interval(values)
        out[f"pass@{k}"] = {"value": float(np.mean(values)), "low": low, "high": high}
    if "kind" in frame:  # a task that holds problems out in more than one way
        by = frame.groupby("kind")[["c", "n"]].sum()
        out["by_kind"] = (by["c"] / by["n"]).to_dict()
    out["format_ok"] = float(frame["format_ok"].sum() / total)
    out["clipped_ratio"] = float(frame["clipped"].sum() / total)
    out["mean_length"] = float(frame["tokens"].sum() / total)
    wrong_tokens = frame["tokens"].sum() - frame["tokens_correct"].sum()
    out["length/correct"] = float(frame["tokens_correct"].sum() / right) if right else None
    out["length/incorrect"] = float(wrong_tokens / (total - right)) if total > right else None
    if "steps" in frame and frame["steps"].sum():
        out["steps_right"] = float(frame["steps_right"].sum() / frame["steps"].sum())
        out["attempts_per_response"] = float(frame["attempts"].sum() / total)
    return out


def _trace_counts(task: Task, texts: Sequence[str]) -> dict[str, int]:
    """Sums over texts of what the task counts in a trace, if it counts anything."""
    counts = [task.trace_counts(text) for text in texts] if hasattr(task, "trace_counts") else []
    return {name: sum(c[name] for c in counts) for name in (counts[0] if counts else ())}
