"""The atlas: weights by hand for the well-known rows, the criterion for every row, and runs that are not mixed."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pandas as pd
import pytest
import torch

from rlino_lib.analysis import atlas as tool
from rlino_lib.errors import RlinoError
from rlino_lib.figures.atlas import atlas_table
from rlino_lib.methods.catalogue import LABELS, OBJECTIVES, varied
from rlino_lib.methods.credit import Graded, credit
from rlino_lib.methods.loss import Batch, policy_loss
from rlino_lib.methods.objective import Objective
from rlino_lib.methods.preference import PREFERENCES
from rlino_lib.records.runs import Run
from rlino_lib.training.config import RUN_DEFAULTS

N, T, L = 8, 40, 80  # responses of a group, tokens of each, the cap
READING_MORE = {
    "grpo", "grpo_entropy", "rloo", "reinforce_pp", "reinforce_pp_baseline", "optimal_baseline", "grpo_lambda", "ppo",
    "vc_ppo", "vineppo", "spo_chain", "step_verifier", "ibro", "clip_cov", "kl_cov", "kto",
}  # fmt: skip
# Those whose verdicts weigh as in a method in name only: what they read more stands in a term beside them.
BESIDE = {"grpo", "grpo_entropy", "rloo", "reinforce_pp", "reinforce_pp_baseline", "ibro", "kl_cov", "kto"}


@pytest.mark.parametrize("k", [1, 3, 7])
def test_weights_by_hand(k):
    """k of N right: what a token of a right and of a wrong response weighs, at ρ = 1."""
    p = k / N
    std = math.sqrt(p * (1 - p) * N / (N - 1)) + 1e-4  # of the sample
    by_hand = {
        "grpo_no_kl": ((1 - p) / std / (N * T), -p / std / (N * T)),
        "dr_grpo": ((1 - p) / (N * L), -p / (N * L)),
        "nft": ((1 - p) / (N * L), -p / (N * L)),
        "f_isft_pos": (1 / (N * T), 0),
        "f_isft_neg": (0, -1 / (N * T)),
        "f_isft_posneg": (1 / k / (N * T), -1 / (N - k) / (N * T)),
        "f_isft_posneg_unit": (1 / (N * T), -1 / (N * T)),
        "nsr": (0, -1 / (N * T)),
        "psr": (1 / (N * T), 0),
        "raft": (1 / (k * T), 0),  # the batch is the right ones
        "iterative_dpo": (0.1 / 2, -0.1 / 2),  # ±β/2 over the one pair
        "ipo": (1 / (0.1 * T), -1 / (0.1 * T)),
        "kto": (0.1 / 4 / N, -0.1 / 4 / N),
    }
    for name, weights in by_hand.items():
        assert tool.method_weights(OBJECTIVES[name], k) == pytest.approx(weights, rel=1e-12, abs=0), name


@pytest.mark.parametrize("ratio", [0.5, 0.9, 1.1, 1.5])
def test_weights_off_policy_by_hand(ratio):
    """A token that gained is not pushed up past the clip, nor a lost one down; a token's own ratio is a factor."""
    right, wrong = tool.method_weights(OBJECTIVES["dr_grpo"], 2, ratio=ratio)
    up, down = ratio * 0.75 / (N * L), -ratio * 0.25 / (N * L)
    assert right == pytest.approx(up if ratio <= 1.2 else 0, rel=1e-12)
    assert wrong == pytest.approx(down if ratio >= 0.8 else 0, rel=1e-12)
    assert tool.method_weights(OBJECTIVES["f_isft_pos"], 2, ratio=ratio) == tool.method_weights(
        OBJECTIVES["f_isft_pos"], 2
    )


def test_a_response_that_is_far_off_moves_no_kto():
    """z₀ is Δ where that is positive, so that a right response weighs what it did; below it counts for less."""
    at = tool.method_weights(OBJECTIVES["kto"], 2)
    ahead, behind = (tool.method_weights(OBJECTIVES["kto"], 2, ratio=ratio) for ratio in (1.5, 1 / 1.5))
    assert ahead == pytest.approx(at)
    assert 0 < behind.right < at.right and -behind.wrong < -at.wrong


def test_every_method_is_in_the_atlas():
    frame = tool.atlas()
    assert set(frame.index) == set(OBJECTIVES) and frame.index.is_unique
    assert [key for key in frame.index if key in LABELS] == list(LABELS)
    weights = frame[["right", "wrong", "right_off", "wrong_off"]]
    weighed = weights.notna().all(axis=1)
    assert (weights.isna().all(axis=1) != weighed).all()
    assert set(frame.index[weighed & ~frame["in_name_only"]]) == BESIDE and weighed[frame["in_name_only"]].all()
    assert (frame.loc["grpo", weights.columns] == frame.loc["grpo_no_kl", weights.columns]).all()
    assert ((frame["reads"] == "") == frame["in_name_only"]).all()
    assert frame.loc["grpo_no_kl", "right"] == pytest.approx(0.75 / (math.sqrt(1.5 / 7) + 1e-4), rel=1e-9)


def test_the_criterion_row_by_row():
    assert {name for name, o in OBJECTIVES.items() if not tool.in_name_only(o)} == READING_MORE


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_the_criterion_is_what_the_library_needs(name):
    """Given verdicts, lengths and ρ alone the library has one weight a response, or it asks for more, or has several.

    The criterion is read off the row's fields; this reads it off what credit and loss do.
    """
    o = OBJECTIVES[name]
    if o.preference:
        assert tool.in_name_only(o) == PREFERENCES[o.preference].paired
        return
    mask = torch.ones(N, T, dtype=torch.bool)
    correct = torch.arange(N) < 2
    graded = Graded(correct.double(), N, mask, max_response_length=L, truncated=torch.zeros_like(correct))
    try:
        credited, keep = credit(o, graded)
        logprobs = torch.zeros(N, T, dtype=torch.float64, requires_grad=True)
        batch = Batch(logprobs[keep], credited[keep], mask[keep], max_response_length=L)
        (grad,) = torch.autograd.grad(policy_loss(o, batch).loss, logprobs)
        enough = bool((grad - grad[:, :1]).abs().max() < 1e-15)
    except RlinoError:
        enough = False
    assert enough == tool.in_name_only(o)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"beta": 0.1}, "how likely a reference holds the token"),
        ({"entropy_by_advantage": 0.1}, "the entropy where the token was drawn"),
        ({"unlikely": 0.9}, "how likely the sampler held the token"),
        ({"credit": "decay"}, "the token's place in its response"),
    ],
)
def test_the_criterion_follows_a_choice_and_not_a_name(settings, words):
    changed = varied("grpo_no_kl", settings)
    assert tool.reads(changed) == [words] and tool.method_weights(changed, 2) is None
    plain = replace(OBJECTIVES["vineppo"], beta=0.0, credit="response", values=None, whiten=False)
    assert tool.in_name_only(plain)


def test_the_batch_is_named_where_it_is_read():
    facts = {name: tool.batch_facts(o) for name, o in OBJECTIVES.items()}
    over_batch = {name for name, words in facts.items() if "the verdicts of the other groups" in words}
    assert over_batch == {"reinforce_pp", "reinforce_pp_baseline", "ppo", "vc_ppo", "vineppo", "spo_chain"}
    assert [facts[name] for name in ("grpo", "f_isft_posneg", "nft")] == [[], [], []]
    assert facts["iterative_dpo"] == facts["ipo"] != [] == facts["kto"]


def test_uneven_credit_drops_the_even_split():
    dropping = {name for name, o in OBJECTIVES.items() if tool.drops(o) == tool.EVEN_SPLIT}
    assert dropping == {
        "optimal_baseline", "grpo_lambda", "ppo", "vc_ppo", "vineppo", "spo_chain", "step_verifier", "clip_cov",
    }  # fmt: skip
    assert {tool.drops(o) for o in OBJECTIVES.values()} == {"", tool.EVEN_SPLIT}


@pytest.mark.parametrize("right", [0, 8, 9, -1])
def test_a_group_that_is_not_mixed_is_an_error(right):
    with pytest.raises(RlinoError, match="is not mixed: give 1 to 7"):
        tool.method_weights(OBJECTIVES["dr_grpo"], right)


@pytest.mark.parametrize("wrong", [{"length": 0}, {"length": 81}, {"ratio": 0.0}, {"ratio": math.inf}, {"cap": 39}])
def test_a_length_or_a_ratio_out_of_range_is_an_error(wrong):
    with pytest.raises(RlinoError, match="need 0 < length ≤ cap and a ratio above 0"):
        tool.method_weights(OBJECTIVES["dr_grpo"], 2, **wrong)


# --- where runs ended ------------------------------------------------------------------------------------------------

CONFIG = {
    "method": "grpo", "task": "countdown", "task_settings": {}, "model": "data/base/countdown", "seed": 0, "steps": 150,
    "prompts": 8, "group_size": 8, "max_new_tokens": 112, "temperature": 1.0, "lr": 2e-4, "weights_sha256_16": "aa",
    "threads": 2,
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """A run's folder with these changes to its configuration, its share right and its tokens, millions."""
    numbers = iter(range(100))

    def make(right=0.5, tokens=1.0, problems=1024, **changes) -> Run:
        folder = tmp_path / "group" / f"run-{next(numbers)}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(CONFIG | changes))
        test = {"problems": problems, "samples": 4, "pass@1": {"value": right}}
        (folder / "summary.json").write_text(json.dumps({"complete": True, "test": test}))
        (folder / "metrics.csv").write_text(f"step,samples,completions/mean_length\n0,0,\n1,1000,{1000 * tokens}\n")
        return Run(folder)

    return make


def test_runs_of_one_setting_are_a_row_with_its_interval_and_cost(run):
    frame = tool.results([run(0.5), run(0.6, 2.5, seed=1), run(0.7, seed=2, eval_every=50)], RUN_DEFAULTS)
    row = frame.iloc[0]
    assert len(frame) == 1 and row["seeds"] == 3 and row["mean"] == pytest.approx(60)
    half = 4.302652729911275 * 10 / math.sqrt(3)  # Student's t at 97.5 % with two degrees of freedom
    assert (row["low"], row["high"]) == pytest.approx((60 - half, 60 + half))
    assert row["tokens"] == pytest.approx(1.5)
    assert (row["base"], row["batch"], row["settings"]) == ("countdown", "150 × 8 × 8", "")


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        ({"lr": 1e-4}, ""),
        ({"objective_settings": {"beta": 0}}, "beta=0"),
        ({"steps": 170, "critic_warmup": 20}, "steps=170, critic_warmup=20"),
        ({"precision": "bf16"}, "precision=bf16"),
        ({"reward": "majority"}, "reward=majority"),
        ({"threads": 1}, "threads=1"),
        ({"prompts": 200, "steps": 6, "minibatches": 25}, "steps=6, prompts=200, minibatches=25"),  # as many samples
    ],
)
def test_runs_that_differ_in_a_setting_are_not_pooled(run, change, settings):
    frame = tool.results([run(0.5), run(0.7, seed=1, **change)], RUN_DEFAULTS)
    assert list(frame["seeds"]) == [1, 1] and list(frame["mean"]) == [50, 70]
    assert list(frame["settings"]) == ["", settings]


@pytest.mark.parametrize(
    "change",
    [
        {"weights_sha256_16": "bb"}, {"prompts": 16}, {"steps": 170}, {"max_new_tokens": 64}, {"temperature": 0.6},
        {"task_settings": {"restarts": 1.0}}, {"problems": 256},
    ],
)  # fmt: skip
def test_runs_of_another_base_or_other_samples_are_left_out(run, change):
    assert list(tool.results([run(0.5), run(0.7, seed=1, **change)], RUN_DEFAULTS)["mean"]) == [50]


def test_a_setting_that_one_run_alone_records_tells_it_apart(run):
    """As a run at scale has, which records its engine."""
    scale = {"scale": {"engine": "grpo"}}
    for changes, settings in (([{}, scale], ["", "scale={'engine': 'grpo'}"]), ([scale, {}], ["", "scale=None"])):
        frame = tool.results([run(0.5, seed=k, **change) for k, change in enumerate(changes)], RUN_DEFAULTS)
        assert list(frame["settings"]) == settings


def test_a_run_of_unknown_settings_or_of_an_unknown_method_breaks_no_table(run):
    imported, older, foreign = run(0.6, imported_from="verl"), run(0.7, seed=1), run(0.8, seed=2, method="unknown")
    for name in ("steps", "prompts", "weights_sha256_16", "lr"):
        del imported.config[name]
    del older.config["weights_sha256_16"]
    frame = tool.results([imported, run(0.5), older, foreign], RUN_DEFAULTS)
    assert list(frame["method"]) == ["grpo", "unknown"] and list(frame["mean"]) == [50, 80]
    assert "80.0" not in atlas_table(ends=frame)


def test_a_setting_that_is_younger_than_a_run_had_its_default(run):
    frame = tool.results([run(0.5), run(0.7, seed=1, precision="fp32", critic_warmup=0)], RUN_DEFAULTS)
    assert list(frame["seeds"]) == [2]


def test_a_seed_counts_once_and_a_run_without_a_test_not_at_all(run):
    with pytest.raises(RlinoError, match="two runs of one method, task and seed"):
        tool.results([run(0.5), run(0.5)], RUN_DEFAULTS)
    untested = run(0.5)
    untested.summary = {"complete": True}
    assert tool.results([untested], RUN_DEFAULTS).empty


def test_the_recorded_runs_agree_with_those_of_chapter_07():
    """Its groups hold no pilot, and no seed of a grid that is not yet whole."""
    from rlino_lib.analysis.statistics import final_accuracy
    from rlino_lib.records.runs import list_runs

    ends = tool.results(tool.compared_runs(), RUN_DEFAULTS)
    plain = ends[ends["settings"] == ""].set_index(["task", "method"])
    duels = list_runs("head-to-head")
    own = pd.DataFrame([(run.config["task"], run.method, final_accuracy(run)) for run in duels])
    for place, values in own.groupby([0, 1])[2]:
        assert plain.loc[place, "mean"] == pytest.approx(values.mean()) and plain.loc[place, "seeds"] == len(values)
    assert set(ends["method"]) <= set(OBJECTIVES) and isinstance(OBJECTIVES["grpo"], Objective)
