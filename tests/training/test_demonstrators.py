"""The careless solver, the tokenizer and the base of word problems, and how pretraining reads its sources."""

import json
import random
import re
import statistics
from dataclasses import replace
from hashlib import sha256

import pytest
import torch
from transformers import AutoTokenizer

from rlino_lib.errors import RlinoError
from rlino_lib.paths import BASES, DATA, DEFAULT_BASE, base_of
from rlino_lib.policy.fused import misfit
from rlino_lib.policy.models import count_parameters, load_policy, weights_hash
from rlino_lib.tasks import WordProblems
from rlino_lib.tasks.base import split_of_key
from rlino_lib.tasks.countdown.environment import LOOK, OPENS
from rlino_lib.tasks.countdown.game import reachable
from rlino_lib.tasks.word_problems.task import Line, draw, solve, templates
from rlino_lib.training.config import Recipe, TrainConfig
from rlino_lib.training.pretraining.batches import batches
from rlino_lib.training.pretraining.demonstrators import SOURCES, Solver, WordProblemSource, _without
from rlino_lib.training.pretraining.pretrain import build_tokenizer, pretrain

FOLDER = DATA / "base" / "word_problems"
EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")


def holds(a: str, op: str, b: str, c: str) -> bool:
    a, b, c = int(a), int(b), int(c)
    return {"+": a + b == c, "-": a - b == c, "*": a * b == c, "/": a == b * c}[op]


# --- the solver ------------------------------------------------------------------------------------------------------


def test_the_solver_is_mediocre_and_always_ends_with_an_answer():
    task, rng = WordProblems(), random.Random(0)
    right = {}
    for problem in task.problems("train", 3000):
        grade = task.grade(problem, Solver().response(problem, rng))
        assert grade.format_ok
        right.setdefault(problem.data["template"], []).append(grade.correct)
    shares = [statistics.mean(grades) for grades in right.values() if len(grades) >= 8]
    assert 0.4 < statistics.mean(r for grades in right.values() for r in grades) < 0.6
    assert min(shares) < 0.3 and max(shares) > 0.7  # some templates are harder to it than others


def test_a_careful_solver_makes_no_mistake():
    task, rng = WordProblems(), random.Random(0)
    for problem in task.problems("train", 200):
        assert Solver(careful_from=1, careful_to=1).response(problem, rng) == f" {problem.gold}"


@pytest.mark.parametrize("kind", ["operation", "number", "left_out", "slip"])
def test_each_mistake_is_of_its_kind_and_carried_through(kind):
    shares = {"operation": 0.0, "number": 0.0, "left_out": 0.0} | ({kind: 1.0} if kind != "slip" else {})
    solver, task, rng, changed = Solver(careful_from=0, careful_to=0, **shares), WordProblems(), random.Random(0), 0
    for problem in task.problems("train", 300):
        text = solver.response(problem, rng)
        steps, gold = EQUATION.findall(text), EQUATION.findall(problem.gold)
        assert text.splitlines()[-1] == f"#### {steps[-1][3]}"  # the answer is what the last step says
        wrong_arithmetic = sum(not holds(*e) for e in steps)
        if steps == gold:
            continue  # the only mistakes open led out of range
        changed += 1
        if kind == "slip":
            assert wrong_arithmetic == 1 and len(steps) == len(gold)
        else:
            assert wrong_arithmetic == 0 and len(steps) == len(gold) - (kind == "left_out")
        if kind == "operation":
            assert sum(a[1] != b[1] for a, b in zip(steps, gold, strict=True)) == 1
        if kind == "number":
            assert all(a[1] == b[1] for a, b in zip(steps, gold, strict=True))
    assert changed > 100


def test_a_distractor_is_used_where_there_is_one():
    solver, rng, used = Solver(careful_from=0, careful_to=0, operation=0, number=1, left_out=0), random.Random(0), 0
    for problem in WordProblems(distractors=1.0).problems("train", 300):
        used += str(problem.data["distractor"]) in re.findall(r"\d+", solver.response(problem, rng))
    assert used > 150


def test_a_step_that_is_left_out_passes_its_left_operand_on():
    steps = [Line("", 3, "*", 4, ""), Line("", 20, "+", "s0", ""), Line("", "s1", "-", 5, "")]
    assert solve(steps) == [12, 32, 27]
    assert _without(steps, 0) == [Line("", 20, "+", 3, ""), Line("", "s0", "-", 5, "")]
    assert _without(steps, 1) == [Line("", 3, "*", 4, ""), Line("", 20, "-", 5, "")]
    assert _without(steps, 2) == steps[:2]


# --- tokens and batches ----------------------------------------------------------------------------------------------


def test_the_tokenizer_is_lossless_and_one_token_a_word_and_an_integer():
    tokenizer, source, rng = build_tokenizer("word_problems"), WordProblemSource(Recipe()), random.Random(0)
    assert all(len(tokenizer(word)["input_ids"]) == 1 for word in source.words)
    assert all(len(tokenizer(f" {n}")["input_ids"]) == 1 for n in range(201))
    for _ in range(200):
        prompt, response = source.row(rng)
        ids = tokenizer(prompt + response)["input_ids"]
        assert tokenizer.decode(ids) == prompt + response
        assert ids == tokenizer(prompt)["input_ids"] + tokenizer(response)["input_ids"]
        assert len(ids) == len(re.findall(r"\n?####|\n?[A-Za-z]+:?|\d+|[-+*/=.,?]", prompt + response))
    odd = "héllo <script>☃ 1234 now\t\n"
    assert tokenizer.decode(tokenizer(odd)["input_ids"]) == odd


@pytest.mark.parametrize("task", ["countdown", "word_problems"])
def test_one_vocabulary_for_both_tasks_cuts_neither_finer(task):
    both, own = build_tokenizer("joint"), build_tokenizer(task)
    source, rng = SOURCES[task](Recipe(n_four=20)), random.Random(0)
    for _ in range(100):
        text = "".join(source.row(rng))
        cuts = [[t.decode([i]) for i in t(text)["input_ids"]] for t in (both, own)]
        assert "".join(cuts[0]) == text and len(cuts[0]) <= len(cuts[1])
        whole = {c for c in cuts[0] if c not in cuts[1]}  # numbers that are one token to the other task alone
        assert all(100 <= int(c) <= 200 for c in whole) and (not whole or task == "countdown")


def test_joint_pretraining_draws_from_both():
    source, rng = SOURCES["joint"](Recipe(n_four=20)), random.Random(0)
    prompts = [source.row(rng)[0] for _ in range(400)]
    assert 150 < sum(p.startswith("Numbers") for p in prompts) < 250
    assert all(p.startswith(("Numbers", "Question")) for p in prompts)


def test_the_loss_is_on_the_response_alone():
    recipe = Recipe(task="word_problems", batch_size=16)
    tokenizer = build_tokenizer("word_problems")
    inputs, labels = next(batches(recipe, tokenizer))
    for ids, lab in zip(inputs, labels, strict=True):
        counted = lab != -100
        assert torch.equal(ids[counted], lab[counted])
        assert tokenizer.decode(ids[~counted]).replace("<|pad|>", "").endswith("?\nSolution:")
        assert "####" in tokenizer.decode(ids[counted]) and ids[counted][-1] == tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("task", "digest"),
    [
        ("countdown", "e6f26ea6255a1b69"),
        ("word_problems", "8fd0e34ea6641978"),
        ("clean_room", "f54f3e7d122c4dc1"),
        ("hidden_target", "9591cbdbe3892037"),
    ],
)
def test_the_shipped_bases_data_have_not_changed(task, digest):
    """A change here means that a base can no longer be made again from its recipe."""
    checksum, data = sha256(), batches(Recipe(task=task, batch_size=16, n_four=200), build_tokenizer(task))
    for _ in range(3):
        for tensor in next(data):
            checksum.update(tensor.numpy().tobytes())
    assert checksum.hexdigest()[:16] == digest


def test_what_the_environment_writes_is_read_and_not_learned():
    source, tokenizer = (
        SOURCES["hidden_target"](Recipe(task="hidden_target", four_numbers=0.0)),
        build_tokenizer("hidden_target"),
    )
    rows = [source.row(random.Random(k)) for k in range(2000)]
    looks = [row for row in rows if row[1] == LOOK]
    assert 0.17 < len(looks) / len(rows) < 0.23
    assert all(len(row) == 4 and row[2].startswith(OPENS) for row in looks)
    assert all(row[1].startswith(" guess ") for row in rows if len(row) == 2)
    recipe = Recipe(task="hidden_target", batch_size=64, four_numbers=0.0)
    counted = 0
    for ids, labels in zip(*next(batches(recipe, tokenizer)), strict=True):
        text, own = tokenizer.decode(ids), tokenizer.decode(ids[labels != -100])
        assert OPENS not in own and torch.equal(ids[labels != -100], labels[labels != -100])
        counted += (LOOK in own) and OPENS in text
        assert (LOOK in own) == (OPENS in text)
    assert counted


def test_a_guess_is_in_reach_and_what_is_searched_for():
    source = SOURCES["hidden_target"](Recipe(task="hidden_target", four_numbers=0.0))
    for k in range(300):
        prompt, *parts = source.row(random.Random(k))
        nums = [int(n) for n in prompt.split()[1:4]]
        text = "".join(parts)
        goal = int(re.search(r"(?:guess|<target>) (\d+)", text)[1])
        assert goal in reachable(tuple(sorted(nums)))
        assert all(int(result) == goal for result in re.findall(r"= (\d+) yes", text))


def test_a_base_may_start_from_another_with_the_same_first_words(tmp_path):
    recipe = Recipe(
        task="hidden_target", start=DEFAULT_BASE, steps=1, restart=1, batch_size=2, four_numbers=0.0, lr=1e-9
    )  # fmt: skip
    pretrain(recipe, tmp_path / "grown", progress=False)
    grown, known = load_policy(tmp_path / "grown"), load_policy()
    rows = len(known.tokenizer)
    new, old = (policy.model.get_input_embeddings().weight for policy in (grown, known))
    assert len(new) == len(grown.tokenizer) == rows + 5 and torch.allclose(new[:rows], old, atol=1e-6)
    with pytest.raises(RlinoError, match="has another size or other words"):
        pretrain(replace(recipe, layers=2), tmp_path / "smaller", progress=False)
    with pytest.raises(RlinoError, match="has another size or other words"):
        pretrain(replace(recipe, start=BASES["word_problems"]), tmp_path / "other", progress=False)


def test_pretraining_never_sees_a_held_out_problem():
    rng, seen = random.Random(0), {t.name for family in templates()["train"].values() for t in family}
    for _ in range(2000):
        problem = draw(rng)
        assert problem.data["template"] in seen
        assert split_of_key(problem.id.removeprefix("word_problems/")) == "train"


def test_pretraining_on_word_problems_is_reproducible(tmp_path):
    recipe = Recipe(task="word_problems", steps=2, batch_size=8, hidden_size=32, layers=1)
    cards = [pretrain(recipe, tmp_path / name, progress=False) for name in ("a", "b")]
    assert cards[0]["weights_sha256_16"] == cards[1]["weights_sha256_16"]
    assert cards[0]["recipe"]["task"] == "word_problems" and cards[0]["demonstrator"]["careful_to"] == 0.7


def test_a_task_without_a_demonstrator_is_one_clear_line(tmp_path):
    with pytest.raises(RlinoError, match="one of countdown, word_problems"):
        pretrain(Recipe(task="chess"), tmp_path, progress=False)


# --- the shipped base ------------------------------------------------------------------------------------------------


def test_each_task_has_its_base():
    assert set(BASES) == set(SOURCES) - {"joint"} and BASES["countdown"] == DEFAULT_BASE
    assert TrainConfig().model == DEFAULT_BASE
    assert TrainConfig(task="word_problems").model == base_of("word_problems") == str(FOLDER)
    assert TrainConfig(task="word_problems", model="mine").model == "mine"
    with pytest.raises(RlinoError, match="task must be one of countdown"):
        TrainConfig(task="chess")


def test_the_base_is_what_its_card_says_and_meets_its_targets():
    card, policy = json.loads((FOLDER / "card.json").read_text()), load_policy(FOLDER)
    assert weights_hash(policy.model) == card["weights_sha256_16"]
    assert count_parameters(policy.model) == card["parameters"] < 900_000 and not misfit(policy.model)
    assert sum(p.stat().st_size for p in FOLDER.rglob("*") if p.is_file()) < 16 * 2**20
    evaluation = json.loads((FOLDER / "evaluation.json").read_text())
    settings, result = evaluation["asked"], evaluation["found"]
    assert settings["weights_sha256_16"] == card["weights_sha256_16"] and settings["task"] == card["recipe"]["task"]
    assert (settings["split"], result["problems"], result["samples"]) == ("test", 1024, 64)
    assert 0.25 <= result["pass@1"]["value"] <= 0.5 and result["pass@64"]["value"] >= 0.85
    assert set(result["by_kind"]) == {"numbers", "template"}
    assert result["format_ok"] >= 0.95 and result["clipped_ratio"] < 0.01 and 20 <= result["mean_length"] <= 60


def test_the_base_has_the_vocabulary_of_the_library():
    tokenizer, made = AutoTokenizer.from_pretrained(str(FOLDER)), build_tokenizer("word_problems")
    assert tokenizer.get_vocab() == made.get_vocab()
    assert vars(Solver()) == json.loads((FOLDER / "card.json").read_text())["demonstrator"]
