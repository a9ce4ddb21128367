"""Why responses grow: sums that close, censoring that is undone, and verdicts that follow from records."""

from __future__ import annotations

import gzip
import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlino_lib.analysis.growth import (
    attempt_counts,
    base_length,
    base_problems,
    by_rate,
    decompose,
    final_responses,
    first_responses,
    growth,
    left_out,
    of_kind,
    paired_lengths,
    success_within,
    survival,
)
from rlino_lib.claims.judge import judge
from rlino_lib.claims.ledger import Claim, Records
from rlino_lib.claims.length import length_runs
from rlino_lib.claims.verdicts import CONDITIONS, FAILS, HOLDS, UNDECIDED, UNTESTED
from rlino_lib.errors import RlinoError
from rlino_lib.records.runs import Run, list_runs

CAP = 100
# Evidence by the names of the ledger
GROWS = "length.responses_grow"
FLAT = "length.responses_do_not_grow"
RIGHT_LITTLE = "length.right_responses_grow_little"
CAUSED = "length.normaliser_causes_growth"
SURVIVES = "length.growth_survives_other_normalisers"
SELECTION = "length.growth_is_selection"
TRUNCATION = "length.growth_is_truncation"
BUYS = "length.longer_responses_buy_accuracy"


def frame(rows, names=("problem_id", "correct", "clipped", "length")) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(names))


def base_of(rows) -> pd.DataFrame:
    """The base's table from (problem, wrong, cut, mean length of the wrong that were not cut), of 10 samples each."""
    table = pd.DataFrame(rows, columns=["id", "wrong", "truncated", "whole"]).set_index("id")
    table["right"], table["rate"], table["attempts"] = 10 - table["wrong"], 1 - table["wrong"] / 10, 2.0
    table["tokens_right"] = 20 * table["right"]
    table["least"], table["short"], table["tokens_short"] = math.nan, 0, 0
    whole = (table["wrong"] - table["truncated"]) * table["whole"].fillna(0)
    return table.assign(length=(whole + CAP * table["truncated"]) / table["wrong"].where(table["wrong"] > 0))


BASE = base_of([("a", 2, 0, 30.0), ("b", 8, 2, 50.0), ("c", 10, 5, 60.0), ("d", 0, 0, math.nan)])


def test_the_bases_lengths_are_means_over_its_responses():
    assert base_length(BASE, "right") == 20
    assert base_length(BASE, "wrong") == pytest.approx((2 * 30 + 6 * 50 + 2 * 100 + 5 * 60 + 5 * 100) / 20)
    assert base_length(BASE, "wrong, not truncated") == pytest.approx((2 * 30 + 6 * 50 + 5 * 60) / 13)


def test_each_part_is_zero_where_nothing_of_its_kind_happened():
    def same(problem):  # as the base answers to it, in tenths
        row = BASE.loc[problem]
        wrong, cut = int(row["wrong"]), int(row["truncated"])
        return [(problem, False, k < cut, CAP if k < cut else row["whole"]) for k in range(wrong)]

    still = frame([r for p in "abc" for r in same(p)])
    assert list(decompose(still, BASE, CAP)) == pytest.approx([0, 0, 0, 0], abs=1e-9)
    hard = decompose(frame(same("c")), BASE, CAP)  # what is left are the hard ones
    assert hard.selection == pytest.approx(80 - 68) and list(hard[1:]) == pytest.approx([0, 0, 0], abs=1e-9)
    longer = still.assign(length=still["length"].where(still["clipped"], still["length"] + 10))
    assert list(decompose(longer, BASE, CAP)) == pytest.approx([0, 0, 0, 10 * 13 / 20])
    # Of those on "a" all are cut, and the rest are as the base's; the base writes 30 tokens there.
    cut = still.assign(clipped=still["clipped"] | (still["problem_id"] == "a"))
    cut["length"] = cut["length"].where(~cut["clipped"], CAP)
    parts = decompose(cut, BASE, CAP)
    assert parts.selection == pytest.approx(0) and parts.truncated > 0 and parts.total == pytest.approx(2 * 70 / 20)


def short_of(base, rows) -> pd.DataFrame:
    """The base with short responses: (problem, the least length of those that have all steps, how many, their mean)."""
    base = base.copy()
    for problem, least, short, mean in rows:
        base.loc[problem, ["least", "short", "tokens_short"]] = least, short, short * mean
    return base


# Of the wrong ones on a 2 of 2 have all steps, on b 4 of 8 lack one and 2 are cut, on c 5 of 10 are cut and 2 lack one.
LACKING = short_of(BASE, [("a", 20, 0, 0), ("b", 45, 4, 40.0), ("c", 40, 2, 30.0)])


def test_selection_within_problems_is_told_from_longer_responses():
    """On b the base writes 4 responses of 40 tokens that lack a step, 2 of 70 that lack none, and 2 that are cut."""
    rows = [("b", False, False, 40)] * 4 + [("b", False, False, 70)] * 2 + [("b", False, True, CAP)] * 2
    still = decompose(frame(rows), LACKING, CAP)
    assert list(still[1:]) == pytest.approx([0, 0, 0], abs=1e-9)
    gone = decompose(frame(rows[4:]), LACKING, CAP)  # none of the others got longer, and the share that is cut doubles
    assert gone.within == pytest.approx((0 - 0.5) * (40 - 70)) and gone.longer == pytest.approx(0)
    assert gone.truncated == pytest.approx((0.5 - 0.25) * (CAP - 70))
    as_before = decompose(frame(rows[4:]), BASE, CAP)  # where lengths are not recorded it counts as growth
    assert as_before.within == 0 and as_before.longer > 0 and as_before.total == pytest.approx(gone.total)
    longer = [("b", False, False, 43)] * 4 + [("b", False, False, 75)] * 2 + rows[6:]  # short ones may grow as well
    assert list(decompose(frame(longer), LACKING, CAP)[1:]) == pytest.approx([0, 0, (4 * 3 + 2 * 5) / 8], abs=1e-9)
    fresh = decompose(frame([("a", False, False, 10), ("a", False, False, 30)]), LACKING, CAP)
    assert list(fresh[1:]) == pytest.approx([0.5 * (10 - 30), 0, 0])  # the base has none on a: they take now's length
    assert (
        left_out(frame([("b", False, True, 20), ("x", False, False, 1), ("a", False, False, 20)]), LACKING).sum() == 0
    )


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.booleans(), st.integers(1, CAP)), min_size=1, max_size=40),
    st.sampled_from([BASE, LACKING]),
)
def test_the_parts_add_up_to_the_growth(rows, base):
    responses = frame([(p, False, cut, CAP if cut else n) for p, cut, n in rows])
    rest = ~responses["clipped"] & ~left_out(responses, base)
    if not rest.any() or set(responses["problem_id"]) == {"d"}:
        with pytest.raises(RlinoError, match="decomposition"):
            decompose(responses, base, CAP)
        return
    parts = decompose(responses, base, CAP)
    assert parts.total == pytest.approx(responses["length"].mean() - base_length(base, "wrong"))


def test_a_decomposition_of_nothing_is_refused():
    for rows in ([("a", True, False, 3)], [("a", False, True, CAP)], [("x", False, False, 3)]):
        with pytest.raises(RlinoError, match="decomposition"):
            decompose(frame(rows), BASE, CAP)
    with pytest.raises(RlinoError, match="unknown kind"):
        of_kind(frame([]), "long")


def test_strata_hold_every_problem_and_every_wrong_response():
    responses = frame(
        [("a", False, False, 40), ("b", True, False, 9), ("c", False, True, 100), ("c", False, False, 60)]
    )
    found = by_rate(responses, BASE, bins=2)
    assert found["problems"].sum() == 4 and found["wrong"].sum() == 3 and found["share"].sum() == pytest.approx(1)
    assert found["now"].tolist() == [80, 40] and found["base"].tolist() == pytest.approx([1300 / 18, 30])


def test_pairs_are_within_a_problem():
    rows = [("a", True, False, 10), ("a", False, False, 30), ("a", False, False, 50), ("b", True, False, 99)]
    assert paired_lengths(frame(rows)).to_dict() == {"a": 30}


# --- censoring -------------------------------------------------------------------------------------------------------


def test_without_censoring_survival_is_the_share_that_is_longer():
    lengths = [3, 5, 5, 8]
    found = survival(lengths, [True] * 4)
    assert found["longer"].to_dict() == {3: 0.75, 5: 0.25, 8: 0.0}


def test_a_censored_length_leaves_the_others_at_risk():
    """Kaplan and Meier by hand: at 2 one of four ends, at 3 one is cut, at 4 one of two ends."""
    found = survival([2, 3, 4, 6], [True, False, True, True])
    assert found["longer"].loc[[2, 4, 6]].tolist() == pytest.approx([3 / 4, 3 / 8, 0])
    assert (found["low"].dropna() <= found["longer"][found["low"].notna()] + 1e-12).all()
    with pytest.raises(RlinoError, match="ended"):
        survival([5, 5], [False, False])


def test_survival_recovers_a_length_that_the_cap_hides():
    rng = np.random.default_rng(0)
    lengths = rng.geometric(1 / 60, 20_000)
    found = survival(np.minimum(lengths, 80), lengths <= 80)
    at = found["longer"].loc[60.0]
    assert at == pytest.approx((lengths > 60).mean(), abs=1e-9)


def searches(rows) -> pd.DataFrame:
    """From (attempts, first hit or None)."""
    table = pd.DataFrame(rows, columns=["attempts", "first_hit"])
    return table.astype({"first_hit": float})


def test_success_within_a_budget_by_hand():
    found = success_within(searches([(1, 1), (3, 3), (2, None), (1, None)]), 4)
    assert found["within"].tolist() == [0, 0.25, 0.25, 0.5, 0.5]
    # 1 of 4 hits at once; of the 2 that make a second attempt none hits; the one that makes a third does
    assert found["forced"].tolist() == pytest.approx([0, 0.25, 0.25, 1, 1])
    none = success_within(searches([(2, None), (1, None)]), 2)
    assert none["within"].tolist() == none["forced"].tolist() == [0, 0, 0]


def test_forcing_independent_attempts_gives_one_minus_the_misses():
    rng = np.random.default_rng(1)
    hit, gives_up = rng.geometric(0.1, 30_000), rng.geometric(0.3, 30_000)
    made = np.minimum(hit, gives_up)
    rows = pd.DataFrame({"attempts": made, "first_hit": np.where(hit <= gives_up, hit, np.nan)})
    found = success_within(rows, 8)
    assert found["forced"].tolist() == pytest.approx([1 - 0.9**k for k in range(9)], abs=0.02)
    assert (found["within"] <= found["forced"] + 1e-12).all() and found["within"].iloc[8] < 0.33


def test_attempts_are_counted_in_the_mean():
    names = ["repeats_order", "attempts_after_hit", "tokens_after_hit", "overlooked", "false_yes", "filler"]
    rows = pd.DataFrame({"attempts": [1, 3], "tokens_attempts": [10, 38]} | {name: [0, 2] for name in names})
    found = attempt_counts(rows)
    assert found["attempts"] == 2 and found["tokens_per_attempt"] == 12 and found["filler"] == 1


# --- the claims ------------------------------------------------------------------------------------------------------


def make_run(
    root, group, method, seed, wrong, right=20, cut=0, normaliser=None, problems=("p",), late=0, before=0, cap=CAP
):
    """A recorded run of 100 test responses: 40 right, 60 wrong of which some are cut."""
    folder = root / group / f"{method}-{normaliser}-s{seed}"
    folder.mkdir(parents=True)
    config = {"method": method, "task": "toy", "seed": seed, "model": str(root / "base"), "max_new_tokens": cap}
    config |= {"objective_settings": {"normaliser": normaliser}} if normaliser else {}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "summary.json").write_text('{"complete": true}')
    rows = [(9, 1, problems[0], 1, 0, right, 5 if k < late else 1) for k in range(40)]
    rows += [(9, 1, problems[k % len(problems)], 0, k < cut, CAP if k < cut else wrong, None) for k in range(60)]
    rows += [(0, 0, problems[0], int(k < 20), 0, 20, 5 if k < before else None) for k in range(100)]
    names = ["step", "final", "problem_id", "correct", "clipped", "length", "first_hit"]
    table = pd.DataFrame(rows, columns=names).astype({"clipped": int})
    with gzip.open(folder / "responses.csv.gz", "wt") as f:
        table.to_csv(f, index=False)


@pytest.fixture
def root(tmp_path):
    """A base that is right on 2 of 10, with 20 tokens where right and 30 where wrong, on p; and 50 on the hard q."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "evaluation.json").write_text(json.dumps({"asked": {"max_new_tokens": CAP, "split": "test"}}))
    rows = [("p", 10, 2, 0, 2 * 20 + 8 * 30, 40, 20), ("q", 10, 2, 0, 2 * 20 + 8 * 50, 40, 20)]
    names = ["id", "n", "c", "clipped", "tokens", "tokens_correct", "attempts"]
    lines = [json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows]
    (base / "problems.jsonl").write_text("".join(lines))
    return tmp_path


def claim(evidence, share=0.1, seeds=3, **about) -> Claim:
    about = {"task": "toy", "method": "grpo", "kind": "wrong"} | about
    return Claim("c", "", "", "statistical", evidence, {"share": share, "seeds": seeds}, None, about)


def judged(evidence, root, **kwargs) -> str:
    return judge(claim(evidence, **kwargs), Records(root)).verdict


def test_growth_is_from_the_base_to_the_test(root):
    make_run(root, "length", "grpo", 0, wrong=55)
    (run,) = list_runs("length", root)
    assert base_length(base_problems(run), "wrong") == 40 and growth(run, "wrong") == 15
    assert growth(run, "right") == 0 and len(final_responses(run)) == 100
    other = Run(run.path)
    other.config["max_new_tokens"] = 64
    with pytest.raises(RlinoError, match="cap of 64"):
        base_problems(other)


def test_claims_of_growth(root):
    for seed, wrong in enumerate((58, 60, 62)):
        make_run(root, "length", "grpo", seed, wrong, right=22 + seed / 10)
        make_run(root, "length", "f_isft_pos", seed, wrong=39 + seed)
        make_run(root, "length", "dr_grpo", seed, wrong=(20, 44, 90)[seed])
    assert judged(GROWS, root) == HOLDS and judged(FLAT, root) == FAILS
    assert judged(GROWS, root, method="f_isft_pos") == FAILS and judged(FLAT, root, method="f_isft_pos") == HOLDS
    assert judged(GROWS, root, seeds=4) == UNTESTED and judged(GROWS, root, method="rloo") == UNTESTED
    assert judged(RIGHT_LITTLE, root, share=0.5) == HOLDS and judged(RIGHT_LITTLE, root, share=0.05) == FAILS
    assert length_runs("toy", "dr_grpo", "constant", Records(root))[0].seed == 0
    assert judged(GROWS, root, method="dr_grpo") == UNTESTED  # its own normaliser is another one


def test_runs_of_another_cap_than_their_bases_do_not_count(root):
    make_run(root, "head-to-head", "grpo", 0, wrong=60, cap=64)
    make_run(root, "length", "grpo", 0, wrong=58)
    for seed in (1, 2):
        make_run(root, "length", "grpo", seed, wrong=60, cap=CAP if seed == 1 else 64)
    assert [run.name.split("/")[0] for run in length_runs("toy", "grpo", records=Records(root))] == ["length"] * 2
    assert judged(GROWS, root, seeds=2) == HOLDS and judged(GROWS, root, seeds=3) == UNTESTED
    own = Records(root, own=[*list_runs("head-to-head", root), *list_runs("length", root)])  # a reader's
    assert [run.seed for run in length_runs("toy", "grpo", records=own)] == [0, 1]


def test_a_seed_without_such_responses_does_not_vanish(root):
    for seed in range(3):
        make_run(root, "length", "grpo", seed, wrong=60, cut=60 if seed == 1 else 0)
    found = judge(claim(GROWS, kind="wrong, not truncated"), Records(root))
    assert found.verdict == UNTESTED and "seed 1" in found.effect


def test_claims_on_the_cause(root):
    for seed in range(3):
        make_run(root, "head-to-head", "grpo", seed, wrong=60 + seed)
        make_run(root, "length", "grpo", seed, wrong=43 + seed, normaliser="constant")
        make_run(root, "length", "grpo", seed, wrong=55 + seed, normaliser="token_mean")
    kind = {"kind": "wrong, not truncated"}
    assert judged(CAUSED, root, share=0.5, **kind) == HOLDS and judged(CAUSED, root, share=0.05, **kind) == FAILS
    assert judged(SURVIVES, root) == CONDITIONS  # a growth of 3 to 5 tokens from 40 leaves both answers open
    assert judged(SURVIVES, root, share=0.02) == HOLDS and judged(SURVIVES, root, share=0.6) == FAILS


def test_swapping_two_normalisers_changes_the_verdict(root):
    for seed in range(3):
        for normaliser, wrong in ((None, 60), ("constant", 43), ("token_mean", 55)):
            make_run(root, "length", "grpo", seed, wrong + seed, normaliser=normaliser)
    kind = {"kind": "wrong, not truncated", "share": 0.5}
    assert judged(CAUSED, root, **kind) == HOLDS
    for seed in range(3):
        pair = [root / "length" / f"grpo-{name}-s{seed}" / "responses.csv.gz" for name in (None, "constant")]
        texts = [path.read_bytes() for path in pair]
        for path, text in zip(pair, reversed(texts), strict=True):
            path.write_bytes(text)
    assert judged(CAUSED, root, **kind) == FAILS


def test_claims_on_the_parts(root):
    for seed in range(3):
        make_run(root, "length", "grpo", seed, wrong=50 + seed / 10, problems=("q",))
        make_run(root, "length", "rloo", seed, wrong=40, cut=30 + seed, problems=("p", "q"))
    assert judged(SELECTION, root, share=0.5) == HOLDS and judged(TRUNCATION, root, share=0.5) == FAILS
    assert judged(SELECTION, root, share=0.5, method="rloo") == FAILS
    assert judged(TRUNCATION, root, share=0.5, method="rloo") == HOLDS


def test_the_claim_that_length_buys_accuracy(root):
    for seed in range(3):
        make_run(root, "length", "grpo", seed, wrong=50, late=10 + seed)  # a gain of 20 points, 10 to 12 of them late
    assert judged(BUYS, root, share=0.25) == HOLDS and judged(BUYS, root, share=0.9) == FAILS
    assert judged(BUYS, root, share=0.55) == UNDECIDED


def test_what_the_base_hits_late_itself_was_not_bought(root):
    """Of 10 to 12 points of late hits the base had 5 already: of the gain of 20, 5 to 7 were bought."""
    for seed in range(3):
        make_run(root, "length", "grpo", seed, wrong=50, late=10 + seed, before=5)
    assert judged(BUYS, root, share=0.15) == HOLDS and judged(BUYS, root, share=0.45) == FAILS
    found = judge(claim(BUYS, share=0.2), Records(root))
    assert found.effect.startswith("+6.0 points") and "than the base's 5.0" in found.effect
    (run, *_) = list_runs("length", root)
    assert len(first_responses(run)) == 100
    with gzip.open(run.path / "responses.csv.gz", "rt") as f:
        rows = pd.read_csv(f)
    with gzip.open(run.path / "responses.csv.gz", "wt") as f:
        rows[rows["step"] > 0].to_csv(f, index=False)
    with pytest.raises(RlinoError, match="responses of its base"):
        first_responses(Run(run.path))
