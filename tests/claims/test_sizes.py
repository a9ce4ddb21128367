"""Two sizes side by side: here the runs of a base in between are copies of recorded ones, moved by known amounts."""

from __future__ import annotations

import json
import shutil

import matplotlib

matplotlib.use("Agg")

import pandas as pd
import pytest

from rlino_lib.analysis.giving_up import giving_up
from rlino_lib.analysis.growth import final_responses, growth
from rlino_lib.analysis.statistics import final_accuracy
from rlino_lib.analysis.tables import mean_interval
from rlino_lib.claims import sizes
from rlino_lib.claims.yours import judge_yours
from rlino_lib.errors import RlinoError
from rlino_lib.figures.sizes import curves_by_size, ends_figure
from rlino_lib.figures.style import style
from rlino_lib.paths import DEFAULT_BASE, RUNS
from rlino_lib.records.runs import Run, list_runs, metrics_frame

SMALL, MID = "0.8 million", "24.0 million"
METHODS = ("grpo", "grpo_no_kl", "f_isft_pos", "f_isft_posneg")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Folders of runs with a group `mid` of five seeds: recorded runs of seeds 5 to 9, as seeds 0 to 4."""
    root = tmp_path_factory.mktemp("runs")
    for group in (path for path in RUNS.iterdir() if path.is_dir() and path.name != "mid"):
        (root / group.name).symlink_to(group)
    base = root.parent / "base-in-between"
    shutil.copytree(DEFAULT_BASE, base, ignore=shutil.ignore_patterns("*.safetensors"))
    card = json.loads((base / "card.json").read_text()) | {"parameters": 24_000_000}
    (base / "card.json").write_text(json.dumps(card))
    for seed in range(5):
        for method in METHODS:
            copy_run(RUNS / f"head-to-head/countdown-{method}-s{seed + 5}", root / f"mid/{method}-s{seed}", base, seed)
        copy_run(RUNS / f"length/countdown-constant-grpo-s{seed + 5}", root / f"mid/grpo-constant-s{seed}", base, seed)
    return root


@pytest.fixture(scope="module")
def values(root):
    return sizes.values_by_size(root)


@pytest.fixture(scope="module")
def recorded():
    return sizes.values_by_size()


def copy_run(source, target, base, seed):
    shutil.copytree(source, target)
    config = json.loads((target / "config.json").read_text()) | {"model": str(base), "seed": seed}
    (target / "config.json").write_text(json.dumps(config))


def test_both_sizes_have_the_same_methods_and_seeds_and_no_other_objective(root):
    runs = sizes.runs_by_size(root)
    assert list(runs) == [SMALL, MID]
    kinds = [sorted((run.method, run.seed) for run in own) for own in runs.values()]
    assert kinds[0] == kinds[1] == sorted((m, s) for m in METHODS for s in range(5))
    assert {run.name.split("/")[0] for run in runs[SMALL]} == {"head-to-head"}
    with pytest.raises(RlinoError, match=r"tools/mid\.sh makes them"):
        sizes.runs_by_size(root / "head-to-head")


def test_ends_are_means_over_the_runs_of_each_size(values, root):
    ends = sizes.ends_by_size(values).set_index(["size", "panel", "row"])
    of_mid = [Run(root / f"mid/f_isft_pos-s{seed}") for seed in range(5)]
    row = ends.loc[MID, sizes.ACCURACY, "f_isft_pos"]
    assert row["mean"] == pytest.approx(sum(map(final_accuracy, of_mid)) / 5) and row["seeds"] == 5
    assert row["low"] < row["mean"] < row["high"]
    for name, normaliser in (("grpo", "per_response"), ("grpo-constant", "constant")):
        own = [growth(Run(root / f"mid/{name}-s{seed}"), "wrong") for seed in range(5)]
        assert ends.loc[MID, sizes.GROWTH, normaliser]["mean"] == pytest.approx(sum(own) / 5)
        gave_up = [giving_up(final_responses(Run(root / f"mid/{name}-s{seed}"))).rate for seed in range(5)]
        assert ends.loc[MID, sizes.GIVING_UP, normaliser]["mean"] == pytest.approx(100 * sum(gave_up) / 5)
    assert ends.loc[SMALL, sizes.GROWTH, "constant"]["seeds"] == 5
    base = ends.loc[MID, sizes.ACCURACY, "base"]
    assert base["mean"] == ends.loc[SMALL, sizes.ACCURACY, "base"]["mean"] and base["high"] == float("inf")


def test_gaps_are_paired_by_seed_with_grpo_and_with_its_own_normaliser(values, root):
    gaps = sizes.gaps_by_size(values).set_index(["size", "panel", "row"])
    ends = {(run.method, run.seed): final_accuracy(run) for run in sizes.runs_by_size(root)[MID]}
    by_hand = pd.Series([ends["f_isft_pos", s] - ends["grpo", s] for s in range(5)])
    row = gaps.loc[MID, sizes.ACCURACY, "f_isft_pos"]
    assert (row["mean"], row["low"], row["high"]) == pytest.approx(mean_interval(by_hand)) and row["seeds"] == 5
    grown = [
        growth(Run(root / f"mid/grpo-constant-s{s}"), "wrong") - growth(Run(root / f"mid/grpo-s{s}"), "wrong")
        for s in range(5)
    ]
    assert gaps.loc[(MID, sizes.GROWTH, "constant"), "mean"] == pytest.approx(sum(grown) / 5)
    assert "base" not in gaps.index.get_level_values("row") and len(gaps) == 2 * (3 + 1 + 1)

    of_mid = values[(values["size"] == MID) & (values["panel"] == sizes.ACCURACY)]
    some = of_mid[(of_mid["row"] != "grpo") | (of_mid["seed"] != 2)]
    assert sizes.gaps_by_size(some).set_index("row").loc["f_isft_pos", "seeds"] == 4
    assert sizes.gaps_by_size(some[some["row"] != "grpo"]).empty and sizes.gaps_by_size(of_mid.head(0)).empty


def test_what_the_prose_says_of_the_recorded_runs_of_both_sizes(recorded):
    """Chapter 12, chapter 13 and the README's limits: a method that turns around, and what 1/|o| does at the larger."""
    gaps = sizes.gaps_by_size(recorded).set_index(["panel", "row", "size"]).sort_index()
    behind, above = gaps.loc[sizes.ACCURACY, "f_isft_pos"].to_dict("index").values()
    assert behind["high"] < 0 < above["low"]
    larger = gaps[gaps.index.get_level_values("size") != SMALL].droplevel("size")
    assert (larger.loc[sizes.ACCURACY, "low"] > 0).all() and len(larger.loc[sizes.ACCURACY]) == 3
    assert larger.loc[(sizes.GROWTH, "constant"), "high"] < 0 < larger.loc[(sizes.GIVING_UP, "constant"), "low"]
    smaller = gaps.xs(SMALL, level="size").drop(index=(sizes.ACCURACY, "f_isft_pos"))
    assert ((smaller["low"] < 0) & (smaller["high"] > 0)).all()
    verdicts = sizes.verdicts_by_size()
    tested = verdicts[verdicts.iloc[:, 2] != "not testable here"]
    changed = tested.index[tested.iloc[:, 0] != tested.iloc[:, 2]]
    assert changed.tolist() == ["F-ISFT⁺ ends below GRPO on Countdown."] and len(tested) > 8


def test_the_larger_size_is_judged_on_its_planned_seeds_by_the_ledgers_thresholds(root):
    verdicts = sizes.verdicts_by_size(root)
    ids = judge_yours(root / "mid")["id"].tolist()
    assert len(verdicts) == len(ids) > 8 and "caused-countdown" in ids and "neg-countdown" not in ids
    verdicts.index = ids
    assert "over 5 seeds" in verdicts.loc["pos-countdown", f"{MID}: found"]
    assert "over 10 seeds" in verdicts.loc["pos-countdown", f"{SMALL}: found"]
    no_token_mean = {"survives-countdown", "caused-giving-up", "lowers-giving-up"}
    assert set(verdicts.index[verdicts[MID] == "not testable here"]) == no_token_mean
    assert verdicts.loc["grow-grpo-countdown", MID] == "holds" == verdicts.loc["grow-grpo-countdown", SMALL]
    # With the ledger's own numbers of seeds five are too few for some; GRPO with a constant is no second run of a seed.
    own = judge_yours(root / "mid").set_index("id")["verdict"]
    assert own["pos-countdown"] == "not testable here" != verdicts.loc["pos-countdown", MID]
    assert own["grow-grpo-countdown"] == verdicts.loc["grow-grpo-countdown", MID]
    assert "with 1/|o|" in verdicts.loc["caused-countdown", f"{MID}: found"]


def test_the_figures_show_both_sizes(values, root):
    style()
    runs = sizes.runs_by_size(root)
    figure = curves_by_size({size: metrics_frame(own) for size, own in runs.items()})
    assert [axis.get_title("left") for axis in figure.axes] == [f"{size} parameters" for size in (SMALL, MID)]
    lines = [{line.get_label() for line in axis.lines} for axis in figure.axes]
    assert lines[0] == lines[1] and {"GRPO", "F-ISFT⁺"} <= lines[0]

    ends = sizes.ends_by_size(values)
    ends.loc[(ends["size"] == MID) & (ends["row"] == "grpo"), ["low", "high"]] = -float("inf"), float("inf")
    figure = ends_figure(ends)
    accuracy, grown, _ = figure.axes
    names = [text.get_text() for text in accuracy.get_yticklabels()]
    assert names == ["base model", "GRPO", "GRPO without KL", "F-ISFT⁺", "F-ISFT⁺⁻ balanced"]
    for size in (SMALL, MID):
        own = ends[(ends["size"] == size) & (ends["panel"] == sizes.ACCURACY)]
        marks = [line.get_xdata()[0] for line in accuracy.lines if line.get_label() == f"{size} parameters"]
        assert marks == own["mean"].tolist()
    assert len({line.get_label() for line in grown.lines if line.get_marker() != "None"}) == 2
    assert len(grown.get_yticklabels()) == 2
    assert len(list_runs("mid", root)) == 25
