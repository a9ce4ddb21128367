"""Word problems of two to four steps, put together from sentences: a small stand-in for GSM8K (chapter 02).

Solutions are written as GSM8K's are, one line per step with its equation, and `#### N` at the end, and its strict
grader grades them. Some templates never occur in train, and the numbers of those that do are split as well.
"""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations, product
from typing import Any, NamedTuple

from rlino_lib.settings import number, one_of, setting, whole
from rlino_lib.tasks import base
from rlino_lib.tasks.arithmetic import calculate, trace_steps
from rlino_lib.tasks.gsm8k.grade import grade_number, problem_from_record
from rlino_lib.tasks.word_problems.templates import DISTRACTORS, FAMILIES, FILLERS, PEOPLE, Piece

# Prompts are data. `compact` is what the shipped base reads, which ends its responses itself, so that sampling need not
# look for a stop string; the other is for hub models.
_STOP = ("\nQuestion:", *base.END_MARKS)
TEMPLATES = {
    "compact": base.Template("Question: {question}\nSolution:"),
    "zero_shot": base.Template(
        "Solve the problem step by step, one short line a step. End with a line of #### and the final number alone, "
        "for example: #### 42\n\nQuestion: {question}\nSolution:",
        _STOP,
    ),
}
_TOKENS = re.compile(r"[A-Za-z]+|#+|[0-9]+|[^\sA-Za-z0-9#]")  # of what the base writes
LARGEST = 200  # of all numbers, and none is below 2: that would need a singular
KEEP = 60  # templates per family
SIZES = {"train": 8192, "validation": 1024, "test": 1024}


class Line(NamedTuple):
    """A line of a solution around its equation; an operand is a number, or `s0`, `s1`, … for the result of a step."""

    before: str
    left: int | str
    op: str
    right: int | str
    after: str


def apply(left: int, op: str, right: int) -> int | None:
    """The result of one step; None where it is not an integer from 2 to `LARGEST`."""
    result = calculate(left, op, right)
    return result if result is not None and 2 <= result <= LARGEST else None


def solve(steps: Sequence[Line], slip: tuple[int, int] = (0, 0)) -> list[int] | None:
    """The result of each step; None where one is out of range. `slip` is a step, and by how much its result is off."""
    results: list[int] = []
    for k, step in enumerate(steps):
        result = apply(_value(step.left, results), step.op, _value(step.right, results))
        if result is not None and k == slip[0]:
            result = apply(result, "+", slip[1])
        if result is None:
            return None
        results.append(result)
    return results


def write(steps: Sequence[Line], results: Sequence[int]) -> str:
    """A worked solution, ` Anna has 3 * 4 = 12 apples.\\n…\\n#### 12`, from its steps and their results."""
    lines = [
        f"{s.before}{_value(s.left, results)} {s.op} {_value(s.right, results)} = {result}{s.after}"
        for s, result in zip(steps, results, strict=True)
    ]
    return " " + "\n".join([*lines, f"#### {results[-1]}"])


def _value(operand: int | str, results: Sequence[int]) -> int:
    return results[int(operand[1:])] if isinstance(operand, str) else operand


# --- templates -------------------------------------------------------------------------------------------------------

PARTS = ("open", "event", "second", "third", "ask")  # of a family, in the order of a story


class Template(NamedTuple):
    """A path through a family."""

    name: str
    pieces: tuple[Piece, ...]


def _paths(family: Mapping[str, Mapping[str, Piece]]) -> Iterator[tuple[tuple[str, Piece], ...]]:
    """Every choice of pieces, in order; of `event` none, one, or two different ones."""
    groups = [family[part].items() for part in PARTS if part in family and part != "event"]
    for n_events in range(3 if "event" in family else 1):
        for first, *rest in product(*groups):
            for events in permutations(family.get("event", {}).items(), n_events):
                yield (first, *events, *rest)


@lru_cache(maxsize=1)
def templates() -> dict[str, dict[str, list[Template]]]:
    """The templates, of two to four steps, by split and family: up to `KEEP` per family, in the order of a hash.

    Of each twelve two go to test and one to validation. What those need, train has, in other combinations.
    """
    by_split: dict[str, dict[str, list[Template]]] = {split: {name: [] for name in FAMILIES} for split in base.SPLITS}
    for family, parts in FAMILIES.items():
        named = (tuple(zip(*path, strict=True)) for path in _paths(parts))
        every = [Template("-".join([family, *names]), pieces) for names, pieces in named]
        fitting = [t for t in every if 2 <= sum(len(piece.lines) for piece in t.pieces) <= 4]
        fitting.sort(key=lambda template: base.hash_of(template.name))
        for place, template in enumerate(fitting[:KEEP]):
            by_split[{0: "test", 6: "test", 3: "validation"}.get(place % 12, "train")][family].append(template)
    return by_split


def vocabulary() -> list[str]:
    """Every piece that the compact prompt and a solution are made of, each to be one token of the shipped base."""
    pieces = [piece for family in FAMILIES.values() for part in family.values() for piece in part.values()]
    lines = [before + after for piece in pieces for before, *_, after in piece.lines]
    text = " ".join([*DISTRACTORS, *(piece.text for piece in pieces), *lines])
    words = re.findall(r"[A-Za-z]+", re.sub(r"\{.*?\}", " ", text))
    words += [w for group in FILLERS.values() for w in group] + list(PEOPLE)
    words += [w for pronouns in PEOPLE.values() for p in pronouns for w in (p, p.capitalize())]
    words = sorted(set(words))
    first = [f"\n{w}" for w in words if w[0].isupper()]
    signs = ["Question:", "\nSolution:", "\n####", ".", ",", "?", " =", " +", " -", " *", " /"]
    return [*signs, *(f" {w}" for w in words), *first, *(f" {n}" for n in range(LARGEST + 1))]


def _numbers(template: Template, rng: random.Random) -> tuple[list[dict[str, int]], list[Line]] | None:
    """Numbers for each piece, and the steps; None where a result on the way is not an integer in range."""
    numbers: list[dict[str, int]] = []
    steps: list[Line] = []
    results: list[int] = []
    operands: dict[str, int | str] = {}  # what a line of the solution has for a name
    for piece in template.pieces:
        numbers.append({slot: rng.randint(least, most) for slot, (least, most) in piece.ranges.items()})
        operands |= numbers[-1]
        for before, variable, left, op, right, after in piece.lines:
            x, y = (operands[name] if name in operands else int(name) for name in (left, right))
            result = apply(_value(x, results), op, _value(y, results))
            if result is None:
                return None
            operands[variable] = f"s{len(results)}"
            results.append(result)
            steps.append(Line(before, x, op, y, after))
    return numbers, steps


# --- problems --------------------------------------------------------------------------------------------------------


def draw(rng: random.Random, split: str = "train", kind: str = "numbers", distractors: float = 0.3) -> base.Problem:
    """One random problem. Its `kind`: "numbers", a template of train with numbers of the split, or "template", one that
    train does not have."""
    pool = templates()["train" if kind == "numbers" else split]
    while True:
        template = rng.choice(pool[rng.choice(list(pool))])
        for _ in range(20):  # then another template: one with few numbers may have none in this split
            story = _numbers(template, rng)
            if story and (kind == "template" or base.split_of_key(_key(template, story[0])) == split):
                return _problem(rng, template, *story, kind, distractors)


def _key(template: Template, numbers: Sequence[Mapping[str, int]]) -> str:
    return f"{template.name}/{'-'.join(str(n) for own in numbers for n in own.values())}"


def _problem(
    rng: random.Random, template: Template, numbers: list[dict[str, int]], steps: list[Line], kind: str, share: float
) -> base.Problem:
    """A story with these numbers in words; `share` of all stories have a distractor."""
    fill = _fill(rng)
    sentences = [piece.text.format_map(fill | own) for piece, own in zip(template.pieces, numbers, strict=True)]
    extra = rng.randint(2, 60) if rng.random() < share else None
    if extra is not None:
        sentences.insert(rng.randrange(1, len(sentences)), rng.choice(DISTRACTORS).format_map(fill | {"n": extra}))
    steps = [s._replace(before=s.before.format_map(fill), after=s.after.format_map(fill)) for s in steps]
    results = solve(steps)
    data = {"question": " ".join(sentences), "answer": results[-1], "kind": kind, "template": template.name}
    data |= {"numbers": [n for own in numbers for n in own.values()], "distractor": extra, "steps": steps}
    return base.Problem(f"word_problems/{_key(template, numbers)}", data, write(steps, results).strip())


def _fill(rng: random.Random) -> dict[str, str]:
    """Names and objects for one story; no two slots hold the same."""
    n, m, k = rng.sample(list(PEOPLE), 3)
    subject, object_ = PEOPLE[n]
    fill = {"N": n, "M": m, "K": k, "s": subject, "S": subject.capitalize(), "h": object_}
    for slot, words in FILLERS.items():
        fill[slot] = rng.choice([w for w in words if w not in fill.values()])
    return fill


@lru_cache(maxsize=8)
def _split(split: str, n: int, distractors: float, seed: int) -> tuple[base.Problem, ...]:
    rng = random.Random(f"word-problems-{split}-{seed}")
    problems: dict[str, base.Problem] = {}
    while len(problems) < n:
        kind = "template" if split != "train" and len(problems) % 2 else "numbers"
        problem = draw(rng, split, kind, distractors)
        problems.setdefault(problem.id, problem)
    return tuple(problems.values())


@dataclass(frozen=True)
class WordProblems(base.SettingsTask):
    """The `Task`: settings in, problems, prompts and grades out. `distractors` is the share of problems with one.

    Raises RlinoError for a setting out of range.
    """

    distractors: float = setting(0.3, "share of problems with a sentence that does not matter", number(0, 1))
    template: str = setting("compact", "the form of a prompt", one_of(TEMPLATES))
    rewards: str = setting("binary", "what an answer earns", one_of(base.REWARD_SCHEMES))
    seed: int = setting(0, "of the order of problems", whole())

    name = "word_problems"
    templates = TEMPLATES

    def problems(self, split: str, n: int | None = None) -> list[base.Problem]:
        """The first `n` problems of a split (all of them where `n` is None), no template with the same numbers twice.

        Of a held-out split every second problem has an unseen template, so that any prefix holds half of each kind.
        Raises RlinoError for an unknown split, or where it does not hold `n` problems.
        """
        return list(_split(split, base.how_many(n, SIZES.get(split, 0), split, self.name), self.distractors, self.seed))

    def least_length(self, problem: base.Problem) -> int:
        """How many tokens a response has at least that leaves no step out, its end included, with the shipped base.

        A response that has all steps is as long as the solution, give or take a word; one that lacks a step is shorter
        by a line. A word, a number or a sign is one token.
        """
        *lines, answer = (len(_TOKENS.findall(line)) for line in problem.gold.split("\n"))
        return sum(lines) + answer + 1 - min(lines) + 1  # the end is a token, and what is a line shorter is too short

    def problem_from_record(self, record: Mapping[str, Any]) -> base.Problem:
        return problem_from_record(record, self.name)

    def prompt(self, problem: base.Problem) -> str:
        return TEMPLATES[self.template].text.format(question=problem.data["question"])

    def grade(self, problem: base.Problem, response: str) -> base.Grade:
        # Whatever the template, since both begin with "Question:", and responses to grade may come from elsewhere.
        return grade_number(problem.data["answer"], base.up_to_stop(response, _STOP), self.rewards)

    def chain_right(self, problem: base.Problem, response: str) -> bool:
        """Whether every written step holds, and the last one's result is the answer, which is right (chapter 09)."""
        steps = trace_steps(base.up_to_stop(response, _STOP))
        if not steps or not all(right for _, right in steps):
            return False
        answers = (problem, base.Problem("", {"answer": steps[-1][0][3]}))
        return all(self.grade(p, response).correct for p in answers)

    def step_ends(self, problem: base.Problem, response: str) -> list[int]:
        """Where a response may be split, in characters: its start, and at the end of each line but the last step's.

        The line of the answer belongs to the last step, as VinePPO's code has it (2410.01679). The line break begins
        the next step, as in the base's tokens.
        """
        text = base.up_to_stop(response, _STOP)
        breaks = [match.start() for match in re.finditer("\n", text)]
        return [0, *(end for end in breaks if not text.startswith("#", end + 1))]

    def exact_values(self, problem: base.Problem, response: str) -> list[tuple[int, float]]:
        """1 as long as each step has the result that the worked solution has there, 0 from the first other one on.

        The value under a solver that makes no mistake from there on, and where it stands: the start, and the end of
        each line of a step.
        """
        text = base.up_to_stop(response, _STOP)
        worked = [step[3] for step, _ in trace_steps(problem.gold)]
        values, end, k = [(0, 1.0)], -1, 0
        for line in text.split("\n"):
            end += len(line) + 1
            for step, right in trace_steps(line):
                on_track = right and k < len(worked) and step[3] == worked[k]
                values.append((end, values[-1][1] * on_track))
                k += 1
        return values
