"""Word problems of two to four steps, put together from sentences: a small stand-in for GSM8K (chapter 02).

Solutions are written as GSM8K's are, a line a step with its equation and `#### N` at the end, and are graded by its
strict grader. Some templates never occur in train, and the numbers of those that do are split as well.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import permutations, product
from typing import Any, NamedTuple

from rlino_lib.errors import RlinoError
from rlino_lib.settings import check, number, one_of, setting, whole
from rlino_lib.tasks.arithmetic import trace_counts
from rlino_lib.tasks.base import END_MARKS, REWARDS, SPLITS, Grade, Problem, up_to_stop
from rlino_lib.tasks.base import Template as Prompt
from rlino_lib.tasks.gsm8k import task as gsm8k
from rlino_lib.tasks.word_problems.templates import DISTRACTORS, FAMILIES, FILLERS, PEOPLE, Piece

# Prompts are data. `compact` is what the shipped base reads, which ends its responses itself, so that sampling need not
# look for a stop string; the others are for hub models.
_STOP = ("\nQuestion:", *END_MARKS)
TEMPLATES = {
    "compact": Prompt("Question: {question}\nSolution:"),
    "zero_shot": Prompt(
        "Solve the problem step by step, one short line a step. End with a line of #### and the final number alone, "
        "for example: #### 42\n\nQuestion: {question}\nSolution:",
        _STOP,
    ),
    "few_shot": Prompt(
        "Question: Ida has 3 trays with 15 plums in each. She eats 7 plums. How many plums does Ida have now?\n"
        "Solution: Ida has 3 * 15 = 45 plums.\nShe has 45 - 7 = 38 plums left.\n#### 38\n\n"
        "Question: Max saves 9 dollars a week for 4 weeks. It is 17 degrees outside. Max wants a coat for 50 dollars. "
        "How many more dollars does he need?\n"
        "Solution: Max saves 9 * 4 = 36 dollars.\nHe needs 50 - 36 = 14 more dollars.\n#### 14\n\n"
        "Question: {question}\nSolution:",
        _STOP,
    ),
}
LARGEST = 200  # of all numbers, and none is below 2: that would need a singular
KEEP = 60  # templates a family
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
    if op == "/":
        result = left // right if right and left % right == 0 else 0
    else:
        result = {"+": left + right, "-": left - right, "*": left * right}[op]
    return result if 2 <= result <= LARGEST else None


def solve(steps: Sequence[Line], slip: tuple[int, int] = (0, 0)) -> list[int] | None:
    """The result of each step; None where one is out of range. `slip`: a step, and by how much its result is off."""
    results: list[int] = []
    for k, step in enumerate(steps):
        x, y = (results[int(v[1:])] if isinstance(v, str) else v for v in (step.left, step.right))
        result = apply(x, step.op, y)
        if result is not None and k == slip[0]:
            result = apply(result, "+", slip[1])
        if result is None:
            return None
        results.append(result)
    return results


def write(steps: Sequence[Line], results: Sequence[int]) -> str:
    """A worked solution, ` Anna has 3 * 4 = 12 apples.\\n…\\n#### 12`, from its steps and what each is said to give."""

    def value(operand: int | str) -> int:
        return results[int(operand[1:])] if isinstance(operand, str) else operand

    lines = [
        f"{s.before}{value(s.left)} {s.op} {value(s.right)} = {result}{s.after}"
        for s, result in zip(steps, results, strict=True)
    ]
    return " " + "\n".join([*lines, f"#### {results[-1]}"])


# --- templates -------------------------------------------------------------------------------------------------------

_LINE = re.compile(r"(.*)\[(\w)=(\w+)([-+*/])(\w+)\](.*)")


class Template(NamedTuple):
    """A path through a family, with the lines of its pieces taken apart."""

    name: str
    pieces: tuple[Piece, ...]
    lines: tuple[tuple[tuple[str, ...], ...], ...]  # of each piece: before, variable, left, op, right, after


def _paths(family: Mapping[str, Mapping[str, Piece]]) -> Iterator[tuple[tuple[str, Piece], ...]]:
    """Every choice of pieces, in order; of `event` none, one, or two different ones."""
    for n_events in range(3 if "event" in family else 1):
        for first, *rest in product(*(group.items() for part, group in family.items() if part != "event")):
            for events in permutations(family.get("event", {}).items(), n_events):
                yield (first, *events, *rest)


@lru_cache(maxsize=1)
def templates() -> dict[str, dict[str, list[Template]]]:
    """The templates, of two to four steps, by split and family: up to `KEEP` a family, in the order of a hash.

    Of each twelve two go to test and one to validation. What those need, train has, in other combinations.
    """
    found: dict[str, dict[str, list[Template]]] = {split: {name: [] for name in FAMILIES} for split in SPLITS}
    for family, parts in FAMILIES.items():
        made = [_template(family, path) for path in _paths(parts)]
        made = sorted((t for t in made if 2 <= sum(map(len, t.lines)) <= 4), key=lambda t: _digest(t.name))
        for place, template in enumerate(made[:KEEP]):
            found[{0: "test", 6: "test", 3: "validation"}.get(place % 12, "train")][family].append(template)
    return found


def vocabulary() -> list[str]:
    """Every piece that the compact prompt and a solution are made of, each to be one token of the shipped base."""
    pieces = [piece for family in FAMILIES.values() for part in family.values() for piece in part.values()]
    text = " ".join([*DISTRACTORS, *(t for piece in pieces for t in (piece.text, *piece.lines))])
    words = re.findall(r"[A-Za-z]+", re.sub(r"\{.*?\}|\[.*?\]", " ", text))
    words += [w for group in FILLERS.values() for w in group] + list(PEOPLE)
    words += [w for pronouns in PEOPLE.values() for p in pronouns for w in (p, p.capitalize())]
    words = sorted(set(words))
    first = [f"\n{w}" for w in words if w[0].isupper()]
    signs = ["Question:", "\nSolution:", "\n####", ".", ",", "?", " =", " +", " -", " *", " /"]
    return [*signs, *(f" {w}" for w in words), *first, *(f" {n}" for n in range(LARGEST + 1))]


def _template(family: str, path: Sequence[tuple[str, Piece]]) -> Template:
    lines = tuple(tuple(_LINE.fullmatch(line).groups() for line in piece.lines) for _, piece in path)
    return Template("-".join([family, *(name for name, _ in path)]), tuple(piece for _, piece in path), lines)


def _digest(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")


def split_of(key: str) -> str:
    """The split of a seen template's numbers, by a hash of `template/numbers`: 10 % to test, 5 % to validation."""
    bucket = _digest(key) % 100
    return "test" if bucket < 10 else "validation" if bucket < 15 else "train"


def _numbers(template: Template, rng: random.Random) -> tuple[list[dict[str, int]], list[Line]] | None:
    """Numbers for each piece, and the steps; None where a result on the way is not an integer in range."""
    drawn, steps, values, operands = [], [], {}, {}
    for piece, lines in zip(template.pieces, template.lines, strict=True):
        own = {slot: rng.randint(lo, hi) for slot, (lo, hi) in piece.ranges.items()}
        drawn.append(own)
        values |= own
        operands |= own
        for before, variable, left, op, right, after in lines:
            x, y = (values[v] if v in values else int(v) for v in (left, right))
            result = apply(x, op, y)
            if result is None:
                return None
            steps.append(Line(before, operands.get(left, x), op, operands.get(right, y), after))
            values[variable], operands[variable] = result, f"s{len(steps) - 1}"
    return drawn, steps


# --- problems --------------------------------------------------------------------------------------------------------


def draw(rng: random.Random, split: str = "train", kind: str = "numbers", distractors: float = 0.3) -> Problem:
    """One random problem. Its `kind`: "numbers", a template of train with numbers of the split, or "template", one that
    train does not have."""
    pool = templates()["train" if kind == "numbers" else split]
    while True:
        template = rng.choice(pool[rng.choice(list(pool))])
        for _ in range(20):  # then another template: one with few numbers may have none in this split
            found = _numbers(template, rng)
            if found is None:
                continue
            drawn, steps = found
            key = f"{template.name}/{'-'.join(str(n) for own in drawn for n in own.values())}"
            if kind == "template" or split_of(key) == split:
                return _problem(rng, key, template, drawn, steps, kind, distractors)


def _problem(rng, key, template, drawn, steps, kind, distractors) -> Problem:
    fill = _fill(rng)
    sentences = [piece.text.format_map(fill | own) for piece, own in zip(template.pieces, drawn, strict=True)]
    extra = rng.randint(2, 60) if rng.random() < distractors else None
    if extra is not None:
        sentences.insert(rng.randrange(1, len(sentences)), rng.choice(DISTRACTORS).format_map(fill | {"n": extra}))
    steps = [s._replace(before=s.before.format_map(fill), after=s.after.format_map(fill)) for s in steps]
    results = solve(steps)
    data = {"question": " ".join(sentences), "answer": results[-1], "kind": kind, "template": template.name}
    data |= {"numbers": [n for own in drawn for n in own.values()], "distractor": extra, "steps": steps}
    return Problem(f"word_problems/{key}", data, write(steps, results).strip())


def _fill(rng: random.Random) -> dict[str, str]:
    """Names and objects for one story; no two slots hold the same."""
    n, m, k = rng.sample(list(PEOPLE), 3)
    subject, object_ = PEOPLE[n]
    fill = {"N": n, "M": m, "K": k, "s": subject, "S": subject.capitalize(), "h": object_}
    for slot, words in FILLERS.items():
        fill[slot] = rng.choice([w for w in words if w not in fill.values()])
    return fill


def generate(split: str, n: int | None = None, *, distractors: float = 0.3, seed: int = 0) -> list[Problem]:
    """The first `n` problems of a split (all of them where `n` is None), no template with the same numbers twice.

    Of a held-out split every second problem has an unseen template, so that any prefix holds half of each kind.
    Raises RlinoError for an unknown split, or where it does not hold `n` problems.
    """
    if split not in SPLITS:
        raise RlinoError(f"unknown split {split!r}: one of {', '.join(SPLITS)}")
    n = SIZES[split] if n is None else n
    if not 0 <= n <= SIZES[split]:
        raise RlinoError(f"word_problems has {SIZES[split]} {split} problems, {n} were asked for")
    return list(_split(split, n, distractors, seed))


@lru_cache(maxsize=8)
def _split(split: str, n: int, distractors: float, seed: int) -> tuple[Problem, ...]:
    rng, found = random.Random(f"word-problems-{split}-{seed}"), {}
    while len(found) < n:
        kind = "template" if split != "train" and len(found) % 2 else "numbers"
        problem = draw(rng, split, kind, distractors)
        found.setdefault(problem.id, problem)
    return tuple(found.values())


def problem_from_record(record: Mapping[str, Any]) -> Problem:
    """The problem of one line of `rlino grade`, as GSM8K's are asked; ValueError, in words, where it asks none."""
    text = gsm8k.gold_from_record(record)
    return Problem(id=f"word_problems/gold-{text}", data={"answer": text}, gold=text)


@dataclass(frozen=True)
class WordProblems:
    """The `Task`: settings in, problems, prompts and grades out. `distractors` is the share of problems with one.

    Raises RlinoError for a setting out of range.
    """

    distractors: float = setting(0.3, "share of problems with a sentence that does not matter", number(0, 1))
    template: str = setting("compact", "the form of a prompt", one_of(TEMPLATES))
    rewards: str = setting("binary", "what an answer earns", one_of(REWARDS))
    seed: int = setting(0, "of the order of problems", whole())
    name: str = field(default="word_problems", init=False)

    trace_counts = staticmethod(trace_counts)

    def __post_init__(self) -> None:
        check(self, f"{self.name}: ")

    @property
    def stop(self) -> tuple[str, ...]:
        """The strings before the first of which a response ends."""
        return TEMPLATES[self.template].stop

    def problems(self, split: str, n: int | None = None) -> list[Problem]:
        return generate(split, n, distractors=self.distractors, seed=self.seed)

    def problem_from_record(self, record: Mapping[str, Any]) -> Problem:
        return problem_from_record(record)

    def prompt(self, problem: Problem) -> str:
        return TEMPLATES[self.template].text.format(question=problem.data["question"])

    def grade(self, problem: Problem, response: str) -> Grade:
        # Whatever the template, since all three begin with "Question:", and responses to grade may come from elsewhere.
        return gsm8k.strict(problem.data["answer"], up_to_stop(response, _STOP), self.rewards)
