"""GSM8K (Cobbe et al. 2021): its problems, prompts and stop strings (chapter 02). The graders are in `gsm8k/grade.py`.

The data are not part of the book: `rlino fetch gsm8k` gets them. Of the 7,473 problems of train 512 are validation, as
many as an evaluation during training takes, which leaves 6,961; the 1,319 of test are untouched.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from rlino_lib.settings import one_of, setting, text, whole
from rlino_lib.tasks import base, fetch
from rlino_lib.tasks.base import END_MARKS, REWARD_SCHEMES, Grade, Problem, SettingsTask, hash_of, how_many, up_to_stop
from rlino_lib.tasks.gsm8k.grade import GRADERS, extract_strict, grade_number, problem_from_record

VALIDATION = 512  # at this size the standard error of an accuracy is at most 2.2 points
MAX_SHOTS = 8


@dataclass(frozen=True)
class Template(base.Template):
    """A prompt as data: `head`, then `text` for each worked example, then `text` up to `{solution}` for the question.

    `final` is how a worked example's last line gives its answer, and `grader` what reads one.
    """

    final: str = "#### {gold}"
    grader: str = "strict"
    head: str = ""


_INSTRUCTION = r"Please reason step by step, and put your final answer within \boxed{}."
_STOP = ("\nQuestion:", *END_MARKS)
_BOXED = {"final": r"The answer is \boxed{{gold}}.", "grader": "boxed"}
TEMPLATES = {
    # lm-evaluation-harness's format: worked examples are GSM8K's own solutions, <<calculator annotations>> and all.
    "plain": Template("Question: {question}\nAnswer: {solution}\n\n", _STOP),
    "boxed": Template("Question: {question}\n" + _INSTRUCTION + "\nAnswer: {solution}\n\n", _STOP, **_BOXED),
    # What the chat template of Qwen-2.5's instruct models makes of a system message and a question. It is written out,
    # since a task knows of no tokenizer; a model of another family needs its own.
    "qwen_chat": Template(
        "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{solution}<|im_end|>\n",
        ("<|im_end|>", "<|im_start|>", "<|endoftext|>"),
        head="<|im_start|>system\n" + _INSTRUCTION + "<|im_end|>\n",
        **_BOXED,
    ),
}


# --- problems --------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _file(folder: Path, file: str) -> tuple[Problem, ...]:
    """All problems of one file, in its order."""
    problems = []
    for place, line in enumerate(fetch.read_file("gsm8k", file, folder).removesuffix(b"\n").split(b"\n")):
        row = json.loads(line)
        data = {"question": row["question"], "answer": extract_strict(row["answer"])}
        problems.append(Problem(f"gsm8k/{file.removesuffix('.jsonl')}/{place}", data, row["answer"]))
    return tuple(problems)


@lru_cache(maxsize=8)
def _carved(folder: Path) -> tuple[tuple[Problem, ...], tuple[Problem, ...]]:
    """Train and validation: the latter are those with the smallest hashes, and none that can be a worked example."""
    every = _file(folder, "train.jsonl")
    held_out = sorted(every[MAX_SHOTS + 1 :], key=lambda problem: hash_of(problem.data["question"]))[:VALIDATION]
    ids = {problem.id for problem in held_out}
    return tuple(problem for problem in every if problem.id not in ids), tuple(held_out)


# --- the task --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gsm8k(SettingsTask):
    """The `Task`: settings in, problems, prompts and grades out.

    `shots` worked examples stand in each prompt: the first problems of train, always the same, never one of test. The
    `grader` is the template's unless named; `folder` holds train.jsonl and test.jsonl (empty: `fetch.data_folder`).
    Raises RlinoError for a setting that does not exist or is out of range.
    """

    template: str = setting("plain", "the form of a prompt", one_of(TEMPLATES))
    shots: int = setting(0, "worked examples in a prompt", whole(0, MAX_SHOTS))
    grader: str = setting("", "empty: the template's", one_of(("", *GRADERS)))
    rewards: str = setting("binary", "what an answer earns", one_of(REWARD_SCHEMES))
    folder: str = setting("", "where the files are", text("a path"))

    name = "gsm8k"
    templates = TEMPLATES
    problem_from_record = staticmethod(problem_from_record)

    @property
    def stop(self) -> tuple[str, ...]:
        """The strings before the first of which a response ends: the template's, and the harness's for its graders."""
        return super().stop + GRADERS[self._grader].stop

    @property
    def _grader(self) -> str:
        return self.grader or TEMPLATES[self.template].grader

    @property
    def _folder(self) -> Path:
        return Path(self.folder).expanduser() if self.folder else fetch.data_folder("gsm8k")

    def problems(self, split: str, n: int | None = None) -> list[Problem]:
        """The first `n` problems of a split, all of them where `n` is None.

        Raises RlinoError for an unknown split, where there are fewer, or where the data are missing or altered.
        """
        pool = _file(self._folder, "test.jsonl") if split == "test" else _carved(self._folder)[split == "validation"]
        return list(pool[: how_many(n, len(pool), split, "gsm8k")])

    def prompt(self, problem: Problem) -> str:
        template = TEMPLATES[self.template]
        before, after = template.text.split("{solution}")
        parts = [template.head]
        for shot in self._shots(problem) if self.shots else ():
            solution = shot.gold.rpartition("#### ")[0] + template.final.replace("{gold}", shot.data["answer"])
            parts.append(before.replace("{question}", shot.data["question"]) + solution + after)
        return "".join(parts) + before.replace("{question}", problem.data["question"]).rstrip(" ")

    def _shots(self, problem: Problem) -> list[Problem]:
        """The first problems of train other than this one, so that no prompt holds its own solution."""
        first = _file(self._folder, "train.jsonl")[: self.shots + 1]
        return [shot for shot in first if shot.id != problem.id][: self.shots]

    def grade(self, problem: Problem, response: str) -> Grade:
        return grade_number(problem.data["answer"], up_to_stop(response, self.stop), self.rewards, self._grader)
