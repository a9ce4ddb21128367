"""The claims from the clean room, on made-up runs: verdicts by interval, and swapped normalisers that change them."""

import json

import pytest

from rlino_lib.claims.clean_room import gaps, room_runs
from rlino_lib.claims.judge import judge
from rlino_lib.claims.ledger import Claim, Records, read_ledger
from rlino_lib.claims.length_answers import answers

NAMES = ("per_response", "token_mean", "constant")


def room(root, gap_of, seeds=5, optimizer="adamw", worths=(0.0,), steps=4):
    """Runs whose gap is `gap_of[normaliser]` tokens, plus what the seed and the worth add."""
    for name, gap in gap_of.items():
        for worth in worths:
            for seed in range(seeds):
                folder = root / "clean-room" / f"{name}-{optimizer}-v{worth:g}-s{seed}"
                folder.mkdir(parents=True)
                config = {"method": "grpo_no_kl", "task": "clean_room", "seed": seed, "steps": steps}
                config |= {"task_settings": {"worth": worth} if worth else {}}
                config |= {"objective_settings": {} if name == "per_response" else {"normaliser": name}}
                config |= {"optimizer": optimizer} if optimizer != "adamw" else {}
                (folder / "config.json").write_text(json.dumps(config))
                (folder / "summary.json").write_text(json.dumps({"complete": True}))
                own = gap + 0.1 * (seed - 2)
                rows = [f"{k},{20 + 3 * k},{20 + 3 * k + own}\n" for k in range(1, steps + 1)]  # with a common drift
                (folder / "metrics.csv").write_text("step,length/correct,length/incorrect\n" + "".join(rows))
    return Records(root)


def claim(evidence, optimizer="adamw", **threshold):
    threshold = {"seeds": 5, "steps": 4} | threshold
    about = {"task": "clean_room", "optimizer": optimizer}
    return Claim("c", "…", "…", "statistical", f"clean_room.{evidence}", threshold, about=about)


def test_the_gap_of_a_run_is_free_of_what_all_its_responses_share(tmp_path):
    table = gaps(room_runs(room(tmp_path, {"constant": 1.5}, worths=(0.0, 0.05))), steps=4)
    assert table["gap"].tolist() == pytest.approx([1.5 + 0.1 * (s - 2) for _ in range(2) for s in range(5)])
    assert set(table["worth"]) == {0.0, 0.05} and set(table["normaliser"]) == {"constant"}


@pytest.mark.parametrize(("gap", "verdict"), [(9.0, "holds"), (5.0, "undecided"), (1.0, "does not hold here")])
def test_the_mechanism_is_judged_by_its_interval(gap, verdict, tmp_path):
    found = judge(claim("mechanism_exists", tokens=5.0), room(tmp_path, {"per_response": gap}))
    assert found.verdict == verdict and len(found.runs) == 5 and "over 5 seeds" in found.effect


@pytest.mark.parametrize(
    ("mean", "constant", "verdict"),
    [
        (0.0, 0.2, "holds"), (0.0, 1.0, "holds with conditions"), (3.0, 3.0, "does not hold here"),
        (1.0, 1.0, "undecided"), (0.0, -3.0, "holds with conditions"),
    ],
)  # fmt: skip
def test_the_controls_are_judged_by_equivalence(mean, constant, verdict, tmp_path):
    records = room(tmp_path, {"token_mean": mean, "constant": constant})
    found = judge(claim("controls_stay", tokens=1.0), records)
    assert found.verdict == verdict and len(found.runs) == 10


def test_two_swapped_normalisers_change_both_verdicts(tmp_path):
    right = room(tmp_path / "right", {"per_response": 9.0, "token_mean": 0.0, "constant": 0.0})
    swapped = room(tmp_path / "swapped", {"per_response": 0.0, "token_mean": 0.0, "constant": 9.0})
    words = [
        [judge(claim(name, tokens=tokens), records).verdict for records in (right, swapped)]
        for name, tokens in (("mechanism_exists", 5.0), ("controls_stay", 1.0))
    ]
    assert words == [["holds", "does not hold here"], ["holds", "holds with conditions"]]


def test_the_dial_compares_seed_by_seed_at_its_own_worth(tmp_path):
    records = room(tmp_path, {"per_response": 10.0, "constant": 6.0}, worths=(0.0, 0.05))
    for share, verdict in ((0.5, "holds"), (0.6, "undecided"), (0.9, "does not hold here")):
        found = judge(claim("worth_hides_the_mechanism", worth=0.05, share=share), records)
        assert found.verdict == verdict and len(found.runs) == 10
    assert judge(claim("worth_hides_the_mechanism", worth=0.3, share=0.5), records).verdict == "not testable here"


def test_optimizers_steps_and_seeds_are_told_apart(tmp_path):
    records = room(tmp_path, dict.fromkeys(NAMES, 9.0), seeds=4)
    assert "planned 5 seeds" in judge(claim("mechanism_exists", tokens=1.0), records).effect
    assert judge(claim("mechanism_exists", tokens=1.0, seeds=4), records).verdict == "holds"
    assert judge(claim("mechanism_exists", "sgd", tokens=1.0, seeds=4), records).verdict == "not testable here"
    assert "ended before" in judge(claim("mechanism_exists", tokens=1.0, seeds=4, steps=9), records).effect


def test_the_answer_on_the_mechanism_follows_from_both_optimizers(tmp_path):
    def answer(folder, **gaps):
        for optimizer in ("sgd", "adamw"):
            room(tmp_path / folder, gaps | {"token_mean": 0.0}, seeds=10, optimizer=optimizer, steps=60)
        return answers(Records(tmp_path / folder, read_ledger()))["Does the mechanism exist?"]

    right = answer("right", per_response=12.0, constant=0.0)
    swapped = answer("swapped", per_response=0.0, constant=12.0)
    assert right.startswith("Yes.") and right.endswith("(within the margin of no difference).")
    assert swapped.startswith("Not as strongly as the ledger asks.") and "no difference" not in swapped
    assert answer("between", per_response=7.0, constant=0.0).startswith("With conditions.")
