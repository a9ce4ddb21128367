"""Statements of the chapters that had been wrong: each is computed again, by the chapter's own cells."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rlino_lib.analysis.costs import Speed, gpu_hours, hours_column
from rlino_lib.claims.ledger import read_ledger
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.methods.loss import Batch, policy_loss
from tests.book.test_given_cells import BOOK, CHAPTERS, code_cells, run


def after(number: str, words: str) -> dict:
    """The names of a chapter after its one cell with these words, run with the cells that it needs."""
    cells = code_cells(next(BOOK.glob(f"{number}_*.py")))
    (place,) = [k for k, cell in enumerate(cells) if words in cell]
    return run(cells, place)


def test_a_deterministic_tool_costs_an_arm_nothing():
    """Chapter 01 had said that an environment which writes tokens is enough to make the best arm worse."""
    losses = after("01", "worlds = {")["losses"]
    assert (losses["a deterministic tool"] == 0).all() and len(losses["a deterministic tool"]) == 200
    assert losses["a tool that slips"].min() > 0 and losses["one of two tools, unseen"].mean() > 0.01


@pytest.mark.slow
def test_less_noise_is_worth_larger_steps():
    """Chapter 01 had concluded from one small rate that the smaller noise of exact credit bought no speed."""
    best = after("01", "RATES = ")["by_rate"].min(axis=1)
    exact = best["A(s, a) of the token"]
    assert (best.drop("A(s, a) of the token") > 1.3 * exact).all()


@pytest.mark.slow
def test_outcomes_that_are_not_told_apart_are_not_called_equal():
    """Chapter 06: at 8 updates per batch three seeds differ by 5 to 23 points, and their interval holds 0."""
    table = after("06", "ends = where_it_ends")["ends"]
    assert table["accuracy ends"].to_dict() == {1: False, 2: False, 4: False, 8: False, 16: True, 32: False}
    assert set(table.index[table["accuracy open"]]) == {2, 4, 8, 32}
    assert table.loc[8, "GRPO without KL − F-ISFT⁺⁻, points"] > 3 and table.loc[8, "low"] < -3


@pytest.mark.slow
def test_the_cost_of_the_papers_table_is_given_in_gpu_hours():
    names = after("12", "options = speeds")
    dear, cheap = (hours_column(speed) for speed in names["options"])
    hours = names["by_size"]
    assert (hours[cheap] < hours[dear]).all() and hours[dear].is_monotonic_increasing
    settings = {"prompts": 64, "group_size": 5, "steps": 240, "eval_every": 10, "eval_problems": 256}
    settings["gradient_checkpointing"] = 1
    speed = Speed(tokens=300, decode_s=0.01, flops=0.4 * 989e12, parameters=None, source="assumed")
    batches, tokens = 240 + (24 * 256 + 1024) / 320, 240 * 320 * 300
    with_kl, without = (gpu_hours(5e8, settings, kl, speed) for kl in (True, False))
    assert with_kl == pytest.approx((batches * 300 * 0.01 + 2 * 5e8 * 5 * tokens / (0.4 * 989e12)) / 3600)
    assert with_kl > without


def test_the_normaliser_divides_the_kl_term_as_well():
    """Chapter 08 had said that the KL knows no length. With no advantage at all, the KL is all that is left."""
    mask = torch.arange(6) < torch.tensor([[2], [6]])  # [N, T], lengths 2 and 6
    weights = {}
    for normaliser in ("per_response", "constant"):
        new = torch.full((2, 6), -1.0, dtype=torch.float64, requires_grad=True)
        o = replace(OBJECTIVES["grpo"], normaliser=normaliser)
        old, ref, none = new.detach(), new.detach() - 0.5, torch.zeros(2)
        policy_loss(o, Batch(new, none, mask, old, ref, max_response_length=6)).loss.backward()
        weights[normaliser] = (new.grad[0, 0] / new.grad[1, 0]).item()
    assert weights == pytest.approx({"per_response": 3.0, "constant": 1.0})


@pytest.mark.parametrize(
    "refuted",
    [
        "fixed before any result",
        "the KL knows no length",
        "bought no speed",
        "Only under assumption 1",
        "The argument needs the state to be nothing but the policy's own tokens",
        "the difference, which is what 1/|o| causes",
    ],
)
def test_a_statement_that_was_refuted_does_not_come_back(refuted):
    for chapter in CHAPTERS:
        text = " ".join(chapter.read_text(encoding="utf-8").replace("\n# ", " ").split())
        assert refuted not in text, chapter.stem


def test_chapter_08c_says_what_is_under_revision():
    """Claims that are superseded are named where the chapter draws conclusions, and its table shows why."""
    (chapter,) = BOOK.glob("08c_*.py")
    text = chapter.read_text(encoding="utf-8")
    superseded = [c.id for c in read_ledger() if c.superseded_by]
    assert superseded and all(f"`{name}`" in text for name in superseded)
    assert "They keep their verdicts, and are superseded" in text and text.count("under revision") >= 2
    assert "c.standing" in text  # the table of the ledger shows why
