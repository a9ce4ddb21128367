"""The shipped base model, how it was made, and loading models in general."""

import json
import os
import random
import re
import subprocess
import sys
import time
from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Tokenizer

from rlino_lib.errors import RlinoError
from rlino_lib.evaluation.evaluate import evaluate
from rlino_lib.paths import DATA, DEFAULT_BASE
from rlino_lib.policy.models import add_lora, count_parameters, load_policy, weights_hash
from rlino_lib.records.runs import load_run
from rlino_lib.tasks import Countdown
from rlino_lib.tasks.arithmetic import count_attempts, trace_steps
from rlino_lib.training.config import Recipe, TrainConfig
from rlino_lib.training.pretraining import pretrain as pretraining
from rlino_lib.training.pretraining.batches import batches, default_workers
from rlino_lib.training.pretraining.demonstrators import Demonstrator
from rlino_lib.training.pretraining.pretrain import build_tokenizer, learn_tokenizer, pretrain
from rlino_lib.training.run import train
from rlino_lib.training.traces import response_rows

CARD = json.loads((DATA / "base" / "countdown" / "card.json").read_text())


def test_the_base_loads_with_nothing_custom():
    model = AutoModelForCausalLM.from_pretrained(DEFAULT_BASE)
    tokenizer = AutoTokenizer.from_pretrained(DEFAULT_BASE)
    assert model.config.model_type == "qwen2" and model.config.tie_word_embeddings
    assert weights_hash(model) == CARD["weights_sha256_16"] and count_parameters(model) == CARD["parameters"]
    task = Countdown()
    text = task.prompt(task.problems("test", 1)[0]) + " 3 + 19 = 22, 22 * 7 = 154 no\n"
    assert tokenizer(text)["input_ids"] == build_tokenizer()(text)["input_ids"]


def test_the_base_is_small_and_meets_its_targets():
    folder = DATA / "base" / "countdown"
    assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) < 16 * 2**20
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert evaluation["asked"]["weights_sha256_16"] == CARD["weights_sha256_16"]
    assert evaluation["asked"]["split"] == "test" and evaluation["asked"]["temperature"] == 1.0
    numbers = evaluation["found"]
    assert numbers["problems"] == 1024 and numbers["samples"] == 64
    assert numbers["format_ok"] >= 0.95 and numbers["steps_right"] >= 0.97
    assert 0.15 <= numbers["pass@1"]["value"] <= 0.35 and numbers["pass@64"]["value"] >= 0.85


# Those that are part of the book: what a grid keeps for later evaluations has no test on which to hold it.
KEPT = [f for f in sorted((DATA / "runs").glob("*/*/model")) if load_run(f.parent).config["test_samples"]]


@pytest.mark.parametrize("folder", KEPT, ids=lambda f: f.parent.name)
def test_a_kept_model_is_the_one_of_its_run(folder):
    """The first rows of the run's test come out again, but for draws at a near tie; those of the base do not."""
    run, task = load_run(folder.parent), Countdown()
    columns, c = ["correct", "length", "attempts"], run.config
    of_run = run.responses[run.responses["final"]].iloc[:256]
    agree = {}
    for name, policy in {"kept": load_policy(folder), "base": load_policy()}.items():
        rows = []
        evaluate(
            policy, task, task.problems("test", 64), samples=c["test_samples"], seed=c["seed"],
            max_new_tokens=c["max_new_tokens"], temperature=c["temperature"],
            on_rollouts=lambda r, rows=rows: rows.extend(response_rows(r, task, c["steps"], final=True)),
        )  # fmt: skip
        again = pd.DataFrame(rows)[columns].astype(float)
        agree[name] = (again.to_numpy() == of_run[columns].astype(float).to_numpy()).all(1).mean()
    assert agree["kept"] > 0.95 and agree["base"] < 0.5


def test_the_tokenizer_is_lossless_and_one_token_an_integer():
    tokenizer, task, rng = build_tokenizer(), Countdown(), random.Random(0)
    for problem in task.problems("train", 200):
        text = task.prompt(problem) + Demonstrator().response(problem, rng)
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert all(len(tokenizer(f" {n}")["input_ids"]) == 1 for n in range(100))
    odd = "héllo <script>☃ 1234 now\t\n"
    assert tokenizer.decode(tokenizer(odd)["input_ids"]) == odd


def test_the_demonstrator_is_mediocre_and_its_arithmetic_is_right():
    task, rng, right = Countdown(), random.Random(1), 0
    problems = task.problems("train", 600)
    for problem in problems:
        text = Demonstrator().response(problem, rng)
        steps = trace_steps(text)
        assert all(ok for _, ok in steps) and len(steps) == 2 * count_attempts(text)
        grade = task.grade(problem, text)
        assert grade.format_ok and (" yes" not in text or grade.correct)
        right += grade.correct
    assert 0.2 < right / len(problems) < 0.5


def test_pretraining_never_sees_a_test_problem():
    tokenizer, recipe = build_tokenizer(), Recipe(batch_size=64, n_four=200)
    held_out = {p.id for split in ("test", "validation") for n in (3, 4) for p in
                Countdown(n_numbers=n).problems(split, 400)}  # fmt: skip
    inputs, labels = next(batches(recipe, tokenizer))
    for ids, lab in zip(inputs, labels, strict=True):
        words = tokenizer.decode(ids[lab == -100]).replace("<|pad|>", "").split()
        target = words.index("target")
        key = "-".join(map(str, sorted(map(int, words[1:target])))) + f"={words[target + 1]}"
        assert f"countdown/{key}" not in held_out
        assert words[target + 2] == "<think>" and lab.max() >= 0


def test_pretraining_is_reproducible_and_resumes(tmp_path):
    recipe = Recipe(steps=4, batch_size=8, four_numbers=0.0, hidden_size=32, layers=1)
    whole = pretrain(recipe, tmp_path / "whole", progress=False)
    with pytest.raises(ZeroDivisionError):  # stands in for a kill: the third step's learning rate is never reached
        from rlino_lib.training.pretraining import pretrain as module

        real = module.lr_at
        module.lr_at = lambda step, recipe: real(step, recipe) if step < 2 else 1 / 0
        try:
            pretrain(recipe, tmp_path / "killed", progress=False, save_every=2)
        finally:
            module.lr_at = real
    with pytest.raises(RlinoError, match="another base, unfinished, with steps 4, not 5"):
        pretrain(Recipe(steps=5, batch_size=8, hidden_size=32, layers=1), tmp_path / "killed", progress=False)
    resumed = pretrain(recipe, tmp_path / "killed", progress=False, save_every=2)
    assert resumed["weights_sha256_16"] == whole["weights_sha256_16"]
    assert load_policy(tmp_path / "whole").model.config.num_hidden_layers == 1


@pytest.mark.parametrize("start", [0, 37])
def test_worker_processes_make_the_same_traces_in_the_same_order(start):
    recipe = Recipe(steps=150, batch_size=4, four_numbers=0.3, n_four=50)
    tokenizer = build_tokenizer()
    before = torch.get_rng_state()
    here = list(batches(recipe, tokenizer, start))
    assert len(here) == 160 - start and len({batch.shape for batch in here}) > 20
    for workers in (1, 2):
        theirs = list(batches(recipe, tokenizer, start, workers=workers))
        assert len(theirs) == len(here) and all(map(torch.equal, theirs, here))
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(map(torch.equal, here, batches(replace(recipe, seed=1), tokenizer, start)))


class Waits(TorchDispatchMode):
    """Notes the operators for which a GPU would have to be waited for: those that make a number of a tensor."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.seen += [str(operator)] if re.search("local_scalar|nonzero", str(operator)) else []
        return operator(*args, **(kwargs or {}))


def test_a_step_of_pretraining_waits_for_no_number():
    recipe, tokenizer = Recipe(steps=1, batch_size=4, four_numbers=0.0, hidden_size=32, layers=2), build_tokenizer()
    model = pretraining._model(recipe, tokenizer, "cpu")
    model.set_attn_implementation("sdpa")  # a GPU's
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    before = weights_hash(model)
    batch = next(batches(recipe, tokenizer))
    with Waits() as waits:
        loss = pretraining._loss(model, batch, "bf16", "cpu")
        pretraining._update(model, optimizer, loss)
    assert waits.seen == [] and weights_hash(model) != before
    with Waits() as waits:
        pretraining._check_finite(loss, 0)
    assert waits.seen
    with pytest.raises(RlinoError, match="the loss is nan at step 7"):
        pretraining._check_finite(loss * float("nan"), 7)


@pytest.mark.parametrize(("cores", "workers"), [(1, 0), (2, 0), (8, 6), (16, 14), (64, 14)])
def test_a_gpu_has_its_traces_made_by_all_cores_but_two(monkeypatch, cores, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert default_workers("cuda") == default_workers("cuda:1") == workers
    assert default_workers("cpu") == default_workers("mps") == 0


def test_a_killed_base_with_workers_goes_on_at_once_to_the_same_weights(tmp_path, root):
    """The processes that make its traces end with it, and do not keep its folder locked."""
    program = (
        "import sys, time\n"
        "from rlino_lib.training.config import Recipe\n"
        "from rlino_lib.training.pretraining import pretrain as module\n"
        "if sys.argv[2] == 'slow':\n"
        "    real = module.lr_at\n"
        "    module.lr_at = lambda step, recipe: real(step, recipe) if step < 36 else time.sleep(600)\n"
        "recipe = Recipe(steps=70, batch_size=4, four_numbers=0.0, hidden_size=32, layers=1)\n"
        "made = module.pretrain(recipe, sys.argv[1], device='cpu', workers=2, progress=False, save_every=5)\n"
        "print(made['weights_sha256_16'])\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "killed")]
    env = os.environ | {"PYTHONPATH": str(root)}
    with subprocess.Popen([*command, "slow"], env=env) as process:
        deadline = time.time() + 60
        while not _saved_step(tmp_path / "killed" / "checkpoint.pt") == 35:
            assert process.poll() is None and time.time() < deadline
            time.sleep(0.1)
        process.kill()
    resumed = subprocess.run([*command, "on"], env=env, capture_output=True, text=True, check=True).stdout.strip()
    recipe = Recipe(steps=70, batch_size=4, four_numbers=0.0, hidden_size=32, layers=1)
    assert pretrain(recipe, tmp_path / "whole", device="cpu", progress=False)["weights_sha256_16"] == resumed


def _saved_step(checkpoint):
    try:
        return torch.load(checkpoint, weights_only=True)["step"]
    except (OSError, RuntimeError):  # not there yet
        return None


def test_a_base_with_learned_byte_pairs_is_made_read_and_trained(tmp_path):
    """The make of a mid-size base, small: digits stay single, as the class has them, and every text comes back."""
    recipe = Recipe(task="joint", merges=60, steps=2, batch_size=8, four_numbers=0.0, hidden_size=32, layers=1)
    pretrain(recipe, tmp_path / "base", device="cpu", progress=False)
    tokenizer = load_policy(tmp_path / "base").tokenizer
    assert type(tokenizer) is Qwen2Tokenizer and tokenizer.padding_side == "left"
    assert len(tokenizer) == len(learn_tokenizer(recipe, rows=200)) == 258 + 60
    for text in ("Numbers 3 17 target 64 <think>", "#### 18", "née \u2212 \U0001f642\x00"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.tokenize(" 154")[-3:] == ["1", "5", "4"]
    config = TrainConfig(model=str(tmp_path / "base"), steps=1, prompts=2, group_size=2, max_new_tokens=8, eval_every=0)
    assert train(config, tmp_path / "run").summary["steps"] == 1
    with pytest.raises(RlinoError, match="no device 'cuda:99'"):
        pretrain(recipe, tmp_path / "elsewhere", device="cuda:99", progress=False)
    assert not (tmp_path / "elsewhere").exists()


def test_models_that_are_not_there_give_one_clear_line(tmp_path):
    for name in (tmp_path / "nothing", "no-such/model-at-all"):
        with pytest.raises(RlinoError, match="cannot load a model") as e:
            load_policy(name)
        assert "\n" not in str(e.value)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RlinoError, match="cannot load a model"):
        load_policy(tmp_path)


def test_lora_is_refused_twice_and_starts_as_the_base():
    policy = load_policy()
    ids = policy.tokenizer("Numbers 3 7 19 target 64 <think>", return_tensors="pt")["input_ids"]
    before = policy.model(ids).logits
    model = add_lora(policy.model)
    assert torch.equal(model(ids).logits, before)
    with pytest.raises(RlinoError, match="already"):
        add_lora(model)
