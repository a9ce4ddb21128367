"""What the tokens of a thought mean: all that chapter 09b measures of one policy, kept as counts by problem.

Each table of `records.chains.TABLES` is one part, a function of `Subject`. A part is written whole, so that a killed
measurement goes on at the next; the responses, which several parts read, are sampled again to the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from rlino_lib.analysis.chains import totals
from rlino_lib.analysis.trace_graphs import graph_frame, graph_sums
from rlino_lib.errors import RlinoError
from rlino_lib.evaluation.graded import sample_graded
from rlino_lib.evaluation.interventions import forced_answers
from rlino_lib.evaluation.skills import hint_values
from rlino_lib.evaluation.under_base import NoTemperature, matching_samples, responses_under
from rlino_lib.folders import replacing
from rlino_lib.paths import REPO, base_of
from rlino_lib.policy.models import Policy, weights_hash
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.records.chains import TABLES, read_table
from rlino_lib.records.runs import Run
from rlino_lib.tasks import Problem
from rlino_lib.tasks.countdown.trace import process_is_right

FORCED = 2  # responses to a problem after whose edited thoughts an answer is forced
HINTED = 16  # responses to a problem after each hint
MATCHED = 8  # responses of the base to a problem, at each temperature that is tried
COLDER = (0.05, 1.0)  # the temperatures that are tried: above 1 the base's lengths turn, and a match could be missed


def base_of_model(model: str) -> str:
    """The base that a policy of Countdown is held against: of a model in a run's folder the run's own, else the shipped
    one. Raises RlinoError for a run of another task."""
    folder = Path(model).parent
    if not model or not (folder / "metrics.csv").exists():
        return base_of("countdown")
    config = Run(folder).config
    if config["task"] != "countdown":
        raise RlinoError(f"{model} was trained on {config['task']}: these thoughts are read in Countdown alone")
    shipped = REPO / config["model"]
    return str(shipped) if shipped.is_dir() else config["model"]


def same_tokens(policy: Policy, base: Policy, name: str) -> Policy:
    """The policy, if the base can read its tokens; raises RlinoError where their vocabularies differ."""
    if policy.tokenizer.get_vocab() != base.tokenizer.get_vocab():
        raise RlinoError(f"{name or 'the model'} has other tokens than its base: give the model in its run's folder")
    return policy


@dataclass(frozen=True)
class Subject:
    """A policy that is measured, its base, and on what."""

    policy: Policy
    base: Policy
    task: Any  # a `Countdown`
    problems: Sequence[Problem]
    samples: int
    seed: int
    sampling: dict[str, Any]  # the cap, `max_new_tokens`, and the precision

    @cached_property
    def rollouts(self) -> Rollouts:
        """The policy's responses at temperature 1, graded."""
        return sample_graded(self.policy, self.task, self.problems, self.samples, seed=self.seed, **self.sampling)

    @cached_property
    def responses(self) -> pd.DataFrame:
        """A row for each of these: problem, data, response, correct, tokens, and whether the process is right."""
        problems = [problem for problem in self.problems for _ in range(self.samples)]
        texts = self.rollouts.texts
        frame = pd.DataFrame({"problem": [problem.id for problem in problems], "response": texts})
        return frame.assign(
            data=[problem.data for problem in problems],
            correct=self.rollouts.correct.numpy(),
            tokens=self.rollouts.lengths.numpy(),
            process=[process_is_right(*pair) for pair in zip(problems, texts, strict=True)],
        )


def _process(subject: Subject) -> pd.DataFrame:
    frame = subject.responses.assign(n=1, both=lambda f: f["process"] & f["correct"])
    return frame.groupby("problem", sort=False)[list(TABLES["process"][1:])].sum().reset_index()


def _forced(subject: Subject) -> pd.DataFrame:
    some = subject.responses.groupby("problem", sort=False).head(FORCED)
    problems = [subject.problems[row // subject.samples] for row in some.index]
    texts = some["response"].tolist()
    precision = subject.sampling["precision"]
    frame = forced_answers(subject.policy, subject.task, problems, texts, precision=precision)
    frame = frame.assign(n=1, has_last=frame["follows_last"].notna(), has_yes=frame["follows_yes"].notna())
    ended = frame["response"].map(["</think>" in text for text in texts].__getitem__)
    frame["closed"] = frame["has_last"] & ended
    frame["follows_closed"] = frame["follows_last"].fillna(False) & frame["closed"]
    groups = frame.groupby(["problem", "edit"], sort=False)
    return groups[list(TABLES["forced"][2:])].sum().astype(int).reset_index()


def _hints(subject: Subject) -> pd.DataFrame:
    who = subject.policy, subject.task, subject.problems
    values = hint_values(*who, HINTED, subject.seed, **subject.sampling)
    return values[list(TABLES["hints"])]


def _likelihood(subject: Subject) -> pd.DataFrame:
    """Sums under the base at temperature 1, of the policy's responses and of the base's own: those at the temperature
    up to 1 at which they are as long on average. Without these where the policy is the base, or none gives that."""
    sides = {"model": (1.0, subject.rollouts)}
    if weights_hash(subject.policy.model) != weights_hash(subject.base.model):
        settings = {"seed": subject.seed, **subject.sampling}

        def samples_at(temperature: float) -> Rollouts:
            who = subject.base, subject.task, subject.problems
            return sample_graded(*who, MATCHED, temperature=temperature, **settings)

        with suppress(NoTemperature):
            sides["base"] = matching_samples(samples_at, _mean_length, _mean_length(subject.rollouts), COLDER)
    rows = []
    for side, (temperature, rollouts) in sides.items():
        frame = responses_under(subject.base, rollouts).assign(n=1)
        sums = frame.groupby("problem", sort=False)[["n", "tokens", "logprob"]].sum().reset_index()
        rows.append(sums.assign(side=side, temperature=temperature))
    return pd.concat(rows)[list(TABLES["likelihood"])]


def _mean_length(rollouts: Rollouts) -> float:
    return rollouts.lengths.double().mean().item()


PARTS: dict[str, Callable[[Subject], pd.DataFrame]] = {
    "process": _process, "graphs": lambda subject: graph_sums(graph_frame(subject.responses)), "forced": _forced,
    "hints": _hints, "likelihood": _likelihood,
}  # fmt: skip


def measure_chains(subject: Subject, out: str | Path, progress: bool = False) -> dict[str, Any]:
    """Write the tables that `out` lacks; returns their `chains.totals`.

    RlinoError where a hint fills the cap, or a table that is there is damaged or of other problems.
    """
    bar = tqdm(PARTS.items(), desc="chains", unit="part", disable=not progress)
    for name, part in bar:
        bar.set_postfix_str(name)
        file = Path(out) / f"{name}.csv"
        if not file.exists():
            frame = part(subject)
            with replacing(file) as whole:
                frame.to_csv(whole, index=False, float_format="%.7g", lineterminator="\n")
    tables = {name: read_table(Path(out), name) for name in TABLES}
    for name in ("process", "hints"):  # which have rows of every problem
        if set(tables[name]["problem"]) != {problem.id for problem in subject.problems}:
            raise RlinoError(f"{Path(out) / name}.csv is not of these problems: delete it, and it is measured again")
    return totals(tables)
