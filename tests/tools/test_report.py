"""What the repository says of itself: model cards, the front page, the page of claims, the chapters' openings."""

import json
import re
import shlex
import tomllib
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
import yaml
from matplotlib.text import Text

from rlino_lib.claims.findings import findings, findings_list, verdict_counts
from rlino_lib.claims.ledger import read_ledger
from rlino_lib.claims.verdicts import VERDICTS
from rlino_lib.cli import main as cli
from rlino_lib.cli import options
from rlino_lib.errors import RlinoError
from rlino_lib.figures import recorded
from rlino_lib.methods.catalogue import LABELS
from rlino_lib.paths import BASES
from rlino_lib.records.runs import COLUMNS, list_runs, load_run
from rlino_lib.records.writer import RunWriter
from rlino_lib.training.checks import check_run
from rlino_lib.training.config import Recipe
from rlino_lib.training.grid_file import read_grid
from tools import report
from tools.book import chapters

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


def make_run(folder, method, seed, test=None, ends=0.3, lr=2e-4):
    """A run of two evaluations; the second has no right response where it `ends` at 0."""
    config = {"method": method, "seed": seed, "weights_sha256_16": HASH, "temperature": 1.0, "steps": 20}
    config |= {"task": "countdown", "eval_problems": 64, "eval_split": "test", "eval_samples": 1, "lr": lr}
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
def test_a_run_that_was_not_tested_is_named(tmp_path, base):
    runs = [make_run(tmp_path, "grpo", 0, test=summary(0.25)), make_run(tmp_path, "f_isft_neg", 0)]
    with pytest.raises(RlinoError, match="f_isft_neg-s0: no test after training, which --test-samples asks for"):
        recorded.outcomes(runs, base)


def test_with_tests_these_count_and_the_base_has_its_own(tmp_path, base):
    runs = [make_run(tmp_path, "grpo", s, test=summary(0.25 + 0.1 * s)) for s in (0, 1)]
    frame = recorded.outcomes(runs, base)
    assert frame["accuracy"].round(6).tolist() == [0.2, 0.25, 0.35] and frame["length/correct"].tolist() == [30.0] * 3
    table = recorded.results_table(frame).splitlines()
    assert table[2] == "| base model | – | 20.0 | 30.0 | 40.0 | 1.0 |" and len(table) == 4
    assert table[3] == "| GRPO | 2 | 30.0 [25.0, 35.0] | 30.0 [30.0, 30.0] | 40.0 [40.0, 40.0] | 1.0 [1.0, 1.0] |"
    assert "1,024 problems of the test split, samples per problem: 4 (the base: 64)" in recorded.measured(runs, base)
    (base / "evaluation.json").write_text(json.dumps({"asked": {"weights_sha256_16": "other"}, "found": {}}))
    with pytest.raises(RlinoError, match="did not start from the weights"):
        recorded.outcomes(runs, base)


def test_a_run_without_right_responses_has_a_dash(tmp_path, base):
    run = make_run(tmp_path, "f_isft_neg", 0, test=summary(0.0, **{"length/correct": None}))
    table = recorded.results_table(recorded.outcomes([run], base))
    assert table.splitlines()[-1] == "| F-ISFT⁻ | 1 | 0.0 | – | 40.0 | 1.0 |"
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
        report.write_figure(tmp_path / name, runs)
    a, b = ((tmp_path / name).read_bytes() for name in ("a.png", "b.png"))
    assert a == b and a.startswith(b"\x89PNG")


def test_the_figure_shows_every_length(tmp_path):
    runs = [make_run(tmp_path, "grpo", 0), make_run(tmp_path, "f_isft_neg", 0, ends=0.0)]
    figure = recorded.recorded_figure(runs)
    lower = figure.axes[2:4]
    assert all(axis.get_ylim()[0] == 0 and axis.get_ylim()[1] > 115.5 for axis in lower)
    title = "Countdown: 64 problems of the test split, 1 seed a method"
    assert figure.get_suptitle() == f"{title}\nevery method at GRPO's learning rate of 0.0002"
    runs[1] = make_run(tmp_path, "f_isft_pos", 0, lr=1e-4)
    assert recorded.recorded_figure(runs).get_suptitle() == f"{title}\nlearning rates of 0.0001, 0.0002"


def test_the_figure_can_be_read_at_the_width_of_a_page():
    """Text of more than 10 pixels, at the 690 that the front page has room for."""
    figure = recorded.recorded_figure(list_runs(report.GROUP))
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in texts) * 690 / (72 * figure.get_figwidth()) > 10


# ---- what is shipped -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("task", BASES)
def test_the_shipped_card_is_the_one_that_the_records_give(task):
    base = Path(BASES[task])
    assert (base / "README.md").read_text(encoding="utf-8") == report.card_text(base)


def test_the_front_page_and_the_claims_are_what_the_records_give(root, judgement):
    text = (root / "README.md").read_text(encoding="utf-8")
    assert report.readme(text, judgement) == text, "python -m tools.report"
    assert (root / "CLAIMS.md").read_text(encoding="utf-8") == report.claims_page(judgement), "python -m tools.report"
    paper = {"grpo", "grpo_no_kl", *(method for method in LABELS if method.startswith("f_isft"))}
    assert {run.method for run in list_runs(report.GROUP)} == paper
    assert report.FIGURE.exists()


def test_the_front_page_is_short_and_has_five_findings_with_seeds_and_intervals(root, judgement):
    text = (root / "README.md").read_text(encoding="utf-8")
    assert report.words(text) <= 900
    assert report.words("one | two | :--- | – | <!-- not --> 3.5 |o| [a](b)") == 5
    texts = [words for words, _ in findings(judgement)]
    assert len(texts) == 5
    assert all(re.search(r"[+−][\d.]+ \w+ \[[+−][\d.]+, [+−][\d.]+\], \d+ seeds", words) for words in texts)


def test_findings_stop_where_a_verdict_or_a_number_is_another(tmp_path):
    frame = pd.DataFrame(
        {"id": ["a", "b"], "found": ["holds", "undecided"], "superseded_by": ["", "a"], "revision": ["", "why"]}
    )
    frame["effect"] = ["with it -1.5 points [-2.0, -1.0] over 3 seeds", "nothing"]
    page = tmp_path / "findings.toml"
    head = '[[finding]]\nchapters = ["01"]\n'
    page.write_text(head + 'text = "It is {a[0]}."\nverdicts = { a = "holds" }\n', encoding="utf-8")
    assert findings(frame, page) == [("It is −1.5 points [−2.0, −1.0], 3 seeds.", ["01"])]
    page.write_text(head + 'text = "It is."\nverdicts = { b = "holds" }\n', encoding="utf-8")
    with pytest.raises(RlinoError, match="written for b: holds, and it is judged 'undecided'"):
        findings(frame, page)
    for missing in ("{a[1]}", "{b[0]}"):
        verdicts = '{ a = "holds", b = "undecided" }'
        page.write_text(f'{head}text = "It is {missing}."\nverdicts = {verdicts}\n', encoding="utf-8")
        with pytest.raises(RlinoError, match="no such number"):
            findings(frame, page)
    assert verdict_counts(frame) == "Of 2 claims 1 holds and 1 is undecided (of all 2: 1 superseded)"
    assert verdict_counts(frame[:1]) == "Of 1 claims 1 holds"


def test_the_counts_of_verdicts_add_up(judgement):
    words = verdict_counts(judgement)
    total, *counts = map(int, re.findall(r"\d+", words.partition(" (")[0]))
    assert total == sum(counts) == len(read_ledger())
    assert findings_list(judgement).count("\n") == 4
    assert {number for _, numbers in findings(judgement) for number in numbers} <= {c.number for c in report.chapters()}


def test_links_that_need_an_address_are_left_out_without_one(root):
    assert "](http" not in report.links("").replace("](https://arxiv.org/", "") and "badge" not in report.links("")
    line = report.links("https://code.example/a/b")
    assert "[repository](https://code.example/a/b)" in line and "actions/workflows/test.yml/badge.svg" in line
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["rlino"]
    assert settings["address"].rstrip("/") == report.address()


def test_the_times_on_the_front_page_are_those_that_are_recorded(root, tmp_path):
    path = tmp_path / "make.json"
    path.write_text(json.dumps({"cores": 4, "rows": {"a machine": {"site": 59.6, "test": 89}}}), encoding="utf-8")
    assert report.times_table(path).splitlines()[::2] == [
        "| 4 cores | `make site` | `make book` | `make test` |",
        "| a machine | 60 s | – | 1 min |",
    ]
    rows = [line for line in report.times_table().splitlines() if "–" not in line.split("|")[4]]
    assert len(rows) > 2, "somebody measured `make test`"


# ---- chapters --------------------------------------------------------------------------------------------------------
OPENINGS = report.chapters()
# Words that hold a digit and are no number that was measured: code, formulas, chapters, names.
NO_NUMBERS = re.compile(r"`[^`]*`|\$[^$]*\$|chapters? [\d, and]+|arXiv [\d.]+")
VERDICT = re.compile(rf"`([\w-]+)` (?:is )?({'|'.join(sorted(VERDICTS, key=len, reverse=True))})")


@pytest.mark.parametrize("chapter", OPENINGS, ids=lambda chapter: chapter.number)
def test_a_chapter_opens_with_a_question_and_its_answer(chapter):
    assert chapter.question.endswith("?")
    place = chapter.prose[0].index("**The answer.**")
    assert 0 < place - chapter.prose[0].index(chapter.question[:20]) < 400  # the answer comes next
    assert 2 <= len(re.findall(r"\.(?=\s|$)", chapter.answer)) <= 6 and report.words(chapter.answer) <= 110


@pytest.mark.parametrize("chapter", OPENINGS, ids=lambda chapter: chapter.number)
def test_an_answer_says_no_number_and_the_verdicts_of_the_ledger(chapter):
    assert not re.search(r"\d", NO_NUMBERS.sub("", chapter.answer)), "numbers are computed, in the cells below"
    ledger = {claim.id: claim.verdict for claim in read_ledger()}
    _, _, named = chapter.answer.partition("In the ledger: ")
    verdicts = dict(VERDICT.findall(named))
    assert verdicts == {name: ledger.get(name) for name in verdicts}
    assert len(verdicts) == named.count("`") / 2


def test_what_a_chapter_says_of_itself_is_read_from_its_cells(tmp_path):
    text = "# %% [markdown]\n# # 03b · A title, with more\n#\n# **Is\n# it?**\n#\n"
    text += "# **The answer.** It\n# is. So.\n#\n# More.\n"
    script = tmp_path / "03b_name.py"
    script.write_text(text, encoding="utf-8")
    chapter = report.Chapter(script)
    assert (chapter.number, chapter.title, chapter.question) == ("03b", "A title", "Is it?")
    assert (chapter.answer, chapter.minutes) == ("It is. So.", 5)
    script.write_text("# %% [markdown]\n# # 03b · A title\n", encoding="utf-8")
    with pytest.raises(RlinoError, match="03b_name.py: the first cell has no question"):
        _ = report.Chapter(script).question


@pytest.mark.parametrize("name", ["README.md", "book/00_start_here.py"])
def test_a_route_of_two_hours_takes_two_hours(root, name):
    text = " ".join((root / name).read_text(encoding="utf-8").replace("\n#", " ").split())
    numbers = re.findall(r"\d\d[a-z]?", re.search(r"\*2 hours:\*([^.:]*)", text)[1].replace("this chapter", "00"))
    minutes = {chapter.number: chapter.minutes for chapter in OPENINGS}
    assert 90 <= sum(minutes[number] for number in numbers) <= 130
    assert minutes["00"] + len(OPENINGS) / 2 <= 27  # the route of 25 minutes: half a minute for each answer


def test_the_chapters_of_come_here_for_exist(root):
    text = (root / "README.md").read_text(encoding="utf-8")
    places = text[text.index("**Come here for**") : text.index("## Your own runs")]
    numbers = set(re.findall(r"\b\d\d[a-z]?\b", places))
    assert numbers and numbers <= {chapter.number for chapter in OPENINGS}


# ---- citation --------------------------------------------------------------------------------------------------------
def test_the_citation_is_of_this_version_by_the_authors_of_the_licence(root):
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["cff-version"] == "1.2.0" and {"message", "title", "authors"} <= citation.keys()
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    (author,) = citation["authors"]
    licence = (root / "LICENSE").read_text(encoding="utf-8")
    assert re.search(r"Copyright \(c\) \d+ (.+)", licence)[1] == author["name"]
    (paper,) = citation["references"]
    assert {"type", "title", "authors"} <= paper.keys() and paper["doi"] == "10.48550/arXiv.2505.13697"
    assert citation.get("repository-code", "") == report.address()
    assert f"\n## {project['version'].removesuffix('.0')}\n" in (root / "CHANGELOG.md").read_text(encoding="utf-8")


def could_be_typed(command):
    """Of a line that shows a command: it parses, a run has a folder and is allowed, the book's grids are there."""
    words = shlex.split(command.split(" > ")[0], comments=True)[1:]
    if "--help" in words:
        words.remove("--help")
        assert words in [[name] for name in cli.COMMANDS]
        return
    args = cli.build_parser().parse_args(words)
    if args.command == "train":
        assert args.out or args.dry_run, command
        check_run(options.train_config(args))
    if args.command == "grid" and args.file.startswith("data/"):
        read_grid(args.file)


def test_every_command_that_a_chapter_prints_could_be_typed(root):
    printed = []
    for script in chapters(root / "book"):
        text = re.sub(r"^# ?", "", script.read_text(encoding="utf-8"), flags=re.M)
        printed += re.findall(r"^(rlino .*)", text.replace("\\\n", " "), re.M)
    assert len(printed) > 20
    for command in printed:
        could_be_typed(command)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "data/README.md", "tools/card.md", *CARDS])
def test_every_command_that_is_shown_exists(root, name):
    text = (root / name).read_text(encoding="utf-8")
    text = re.sub(r"\{flags\}|\{words\[flags\]\}", "", text)
    text = re.sub(r"\{asked\[(\w+)\]\}", lambda m: {"split": "test"}.get(m[1], "1"), text)
    text = re.sub(r"\{(card|found)\[\w+\]\}", "1", text)
    commands = re.findall(r"^(?:\.venv/bin/)?(rlino .*)", text.replace("\\\n", " "), re.M)
    assert commands
    for command in commands:
        could_be_typed(command)
    targets = re.findall(r"^([a-z]+):", (root / "Makefile").read_text(), re.M)
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.M)) <= set(targets)


PAGES = ["README.md", "CLAIMS.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md", "book/00_start_here.py"]


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(root, name):
    """To a file that exists and, after a #, to a heading of it."""
    page = root / name
    targets = re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    assert targets
    for target in targets:
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        file = page.parent / path if path else page
        assert file.exists(), target
        headings = re.findall(r"^#+ (.+)", file.read_text(encoding="utf-8"), re.M) if anchor else []
        anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
        assert not anchor or anchor in anchors, target


@pytest.mark.parametrize("name", ["README.md", "book/00_start_here.py"])
def test_the_map_has_every_chapter(root, name):
    chapters = set(re.findall(r"\((?:book/)?(\d\d[a-z]?_\w+)\.ipynb\)", (root / name).read_text(encoding="utf-8")))
    assert chapters | {"00_start_here"} == {path.stem for path in (root / "book").glob("[0-9][0-9]*_*.py")}


def test_every_folder_of_data_is_explained(root):
    text = (root / "data" / "README.md").read_text(encoding="utf-8")
    folders = {path.relative_to(root / "data").parts[0] for path in (root / "data").glob("*/**/*") if path.is_file()}
    assert [name for name in sorted(folders) if f"`{name}/" not in text] == []
