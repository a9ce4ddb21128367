"""What the repository says of its records: the model card, the README's table and figure, and the README's commands."""

import json
import re
import shlex
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from rlino_lib.cli import main as cli
from rlino_lib.errors import RlinoError
from rlino_lib.figures import recorded
from rlino_lib.figures.style import LOOKS
from rlino_lib.paths import BASES, DEFAULT_BASE
from rlino_lib.records.runs import list_runs, load_run
from rlino_lib.records.writer import RunWriter
from rlino_lib.training.config import Recipe
from rlino_lib.training.run import COLUMNS
from tools import report

HASH = "0123456789abcdef"
CARDS = [f"data/base/{task}/README.md" for task in BASES]


def summary(accuracy, samples=4, **changes):
    """What an evaluation writes under "found"."""
    numbers = {"problems": 1024, "samples": samples, "format_ok": 0.98, "clipped_ratio": 0.01, "mean_length": 36.2}
    numbers |= {f"pass@{k}": {"value": accuracy, "low": accuracy - 0.01, "high": accuracy + 0.02} for k in (1, 4)}
    return numbers | {"length/correct": 30.0, "length/incorrect": 40.0, "steps_right": 0.99} | changes


@pytest.fixture
def base(tmp_path):
    """A base folder with made-up records."""
    folder = tmp_path / "base"
    folder.mkdir()
    card = {"recipe": asdict(Recipe(steps=77)), "demonstrator": {"luck": 0.06}, "parameters": 787_328, "threads": 2}
    card |= {"response_tokens": 123_456, "seconds": 600, "final_loss": 0.5, "weights_sha256_16": HASH}
    card |= {"torch": "2.13.0+cpu", "machine": "x86_64"}
    settings = {"task": "countdown", "task_settings": {}, "split": "test", "samples": 64, "max_new_tokens": 112}
    settings |= {"temperature": 1.0, "top_p": 1.0, "seed": 0, "weights_sha256_16": HASH}
    (folder / "card.json").write_text(json.dumps(card))
    (folder / "evaluation.json").write_text(json.dumps({"asked": settings, "found": summary(0.2, samples=64)}))
    (folder / "loss.csv").write_text("step,loss\n" + "".join(f"{50 * k},{4 / (k + 1):.5f}\n" for k in range(20)))
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        (folder / name).write_text(name)
    return folder


def make_run(folder, method, seed, test=None, ends=0.3):
    """A run of two evaluations; the second has no right response where it `ends` at 0."""
    config = {"method": method, "seed": seed, "weights_sha256_16": HASH, "temperature": 1.0, "steps": 20}
    config |= {"eval_problems": 64, "eval_split": "test", "eval_samples": 1}
    writer = RunWriter(folder / f"{method}-s{seed}", config)
    for step, accuracy in ((0, 0.1), (10, None), (20, ends)):
        row = dict.fromkeys(COLUMNS) | {"step": step, "eval/accuracy": accuracy}
        if accuracy is not None:
            row |= {"eval/format_ok": 0.9, "eval/clipped_ratio": 0.02}
            row |= {"eval/length/correct": 31.25 if accuracy else None}
            row |= {"eval/length/incorrect": 35.5 + step * (1 if method == "grpo" else 4)}
        writer.metrics(row, 1.0)
    writer.finish({"steps": 20, **({"test": test} if test else {})})
    return load_run(folder / f"{method}-s{seed}")


# ---- outcomes --------------------------------------------------------------------------------------------------------
def test_without_a_test_the_evaluations_during_training_count(tmp_path, base):
    runs = [make_run(tmp_path, "grpo", 0), make_run(tmp_path, "grpo", 1, ends=0.4), make_run(tmp_path, "f_isft_neg", 0)]
    frame = recorded.outcomes(runs, base)
    assert list(frame["method"]) == ["base", "grpo", "grpo", "f_isft_neg"]
    assert frame["accuracy"].round(6).tolist() == [0.1, 0.3, 0.4, 0.3]
    table = recorded.results_table(frame).splitlines()
    assert table[2] == "| base model | – | 10.0 | 31.2 | 35.5 | 2.0 |"
    assert table[3] == "| GRPO | 2 | 35.0 [30.0, 40.0] | 31.2 [31.2, 31.2] | 55.5 [55.5, 55.5] | 2.0 [2.0, 2.0] |"
    assert table[4].startswith("| F-ISFT⁻ | 1 | 30.0 |") and len(table) == 5
    assert "64 problems of the test split, samples per problem: 1" in recorded.measured(runs, base)


def test_with_tests_these_count_and_the_base_has_its_own(tmp_path, base):
    runs = [make_run(tmp_path, "grpo", s, test=summary(0.25 + 0.1 * s)) for s in (0, 1)]
    frame = recorded.outcomes(runs, base)
    assert frame["accuracy"].round(6).tolist() == [0.2, 0.25, 0.35] and frame["length/correct"].tolist() == [30.0] * 3
    assert "1,024 problems of the test split, samples per problem: 4 (the base: 64)" in recorded.measured(runs, base)
    (base / "evaluation.json").write_text(json.dumps({"asked": {"weights_sha256_16": "other"}, "found": {}}))
    with pytest.raises(RlinoError, match="did not start from the weights"):
        recorded.outcomes(runs, base)


def test_a_run_without_right_responses_has_a_dash(tmp_path, base):
    table = recorded.results_table(recorded.outcomes([make_run(tmp_path, "f_isft_neg", 0, ends=0.0)], base))
    assert table.splitlines()[-1] == "| F-ISFT⁻ | 1 | 0.0 | – | 115.5 | 2.0 |"
    with pytest.raises(RlinoError, match="no recorded runs"):
        recorded.outcomes([])


# ---- text ------------------------------------------------------------------------------------------------------------
def test_fill_replaces_one_block_and_nothing_else():
    text = "before\n<!-- a -->\nold | \\1\n<!-- /a -->\nafter"
    once = report.fill(text, "a", r"new \1")
    assert once == "before\n<!-- a -->\n\nnew \\1\n\n<!-- /a -->\nafter" and report.fill(once, "a", r"new \1") == once
    for wrong in ("", text + text):
        with pytest.raises(RlinoError, match="there should be one"):
            report.fill(wrong, "a", "new")


def test_the_card_has_all_of_the_records(base):
    text = report.card_text(base)
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == "mit" and front["library_name"] == "transformers"
    assert all(f"| {name} | " in text for name in asdict(Recipe()))
    assert "rlino pretrain --threads 2 --steps 77 --out" in text  # the one setting that is not the default
    for words in ("787,328 parameters", "123,456", "10 minutes", "| pass@4 | 20.0 | 19.0 | 22.0 |", HASH):
        assert words in text, words
    assert "| 0 | 4.0000 |" in text and "| 950 | 0.2000 |" in text
    assert "`model.safetensors` | 17 | `" in text and "{" not in text
    report.write_card(base)
    assert (base / "README.md").read_text(encoding="utf-8") == text


def test_the_card_of_word_problems_speaks_of_them(base):
    evaluation = json.loads((base / "evaluation.json").read_text())
    evaluation["asked"] |= {"task": "word_problems"}
    evaluation["found"] |= {"by_kind": {"numbers": 0.4, "template": 0.3}}
    (base / "evaluation.json").write_text(json.dumps(evaluation))
    card = json.loads((base / "card.json").read_text())
    card["recipe"]["task"] = "word_problems"
    (base / "card.json").write_text(json.dumps(card))
    text = report.card_text(base)
    assert "# A small base model for word problems" in text and "{" not in text
    for words in ("--task word_problems", "seen templates with new numbers, % | 40.0", "unseen templates, % | 30.0"):
        assert words in text, words
    assert "searcher" not in text and "Countdown" not in text


def test_a_card_without_records_is_one_clear_line(tmp_path):
    with pytest.raises(RlinoError, match="card.json is missing"):
        report.card_text(tmp_path)


def test_the_figure_is_reproducible(tmp_path):
    runs = [make_run(tmp_path, method, seed) for method in ("grpo", "f_isft_pos") for seed in (0, 1)]
    for name in ("a.png", "b.png"):
        report.write_figure(tmp_path / "new" / name, runs)
    a, b = ((tmp_path / "new" / name).read_bytes() for name in ("a.png", "b.png"))
    assert a == b and a.startswith(b"\x89PNG")


def test_the_figure_shows_every_length(tmp_path):
    runs = [make_run(tmp_path, "grpo", 0), make_run(tmp_path, "f_isft_neg", 0, ends=0.0)]
    lower = recorded.recorded_figure(runs).axes[2:4]
    assert all(axis.get_ylim()[0] == 0 and axis.get_ylim()[1] > 115.5 for axis in lower)


# ---- what is shipped -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("task", BASES)
def test_the_shipped_card_is_the_one_that_the_records_give(task):
    assert (Path(BASES[task]) / "README.md").read_text(encoding="utf-8") == report.card_text(BASES[task])


def test_the_readmes_table_is_the_one_that_the_records_give(root):
    text = (root / "README.md").read_text(encoding="utf-8")
    assert report.readme(text) == text, "python -m tools.report"
    recorded = set(LOOKS) - {"base", "dr_grpo", "rloo"}
    assert {run.method for run in list_runs(report.GROUP)} == recorded and report.FIGURE.exists()


@pytest.mark.parametrize("name", ["README.md", "data/README.md", "tools/card.md", *CARDS])
def test_every_command_that_is_shown_exists(root, name):
    text = (root / name).read_text(encoding="utf-8")
    text = re.sub(r"\{flags\}|\{words\[flags\]\}", "", text)
    text = re.sub(r"\{asked\[(\w+)\]\}", lambda m: {"split": "test"}.get(m[1], "1"), text)
    text = re.sub(r"\{(card|found)\[\w+\]\}", "1", text)
    commands = re.findall(r"^rlino .*", text.replace("\\\n", " "), re.M)
    assert commands
    for command in commands:
        cli.build_parser().parse_args(shlex.split(command.split(" > ")[0], comments=True)[1:])
    targets = re.findall(r"^([a-z]+):", (root / "Makefile").read_text(), re.M)
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.M)) <= set(targets)


@pytest.mark.parametrize("name", ["README.md", "data/README.md", "book/00_start_here.py"])
def test_links_lead_somewhere(root, name):
    page = root / name
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert targets
    assert [t for t in targets if "://" not in t and not (page.parent / t).exists()] == []


@pytest.mark.parametrize("name", ["README.md", "book/00_start_here.py"])
def test_the_map_has_every_chapter(root, name):
    chapters = set(re.findall(r"\((?:book/)?(\d\d[a-z]?_\w+)\.ipynb\)", (root / name).read_text(encoding="utf-8")))
    assert chapters | {"00_start_here"} == {path.stem for path in (root / "book").glob("[0-9][0-9]*_*.py")}


def test_every_folder_of_data_is_explained(root):
    text = (root / "data" / "README.md").read_text(encoding="utf-8")
    folders = {path.relative_to(root / "data").parts[0] for path in (root / "data").glob("*/**/*") if path.is_file()}
    assert [name for name in sorted(folders) if f"`{name}/" not in text] == []


def test_the_default_base_is_the_one_with_the_card():
    assert str(report.BASE) == DEFAULT_BASE
