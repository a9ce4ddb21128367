"""Figures of chapter 10b hold the numbers of their tables."""

import pandas as pd
import pytest

from rlino_lib.exact.hidden_target import optima
from rlino_lib.figures.environment import MASK_LOOKS, START_LOOKS, masks_figure, optima_figure, repair_figure
from rlino_lib.tasks import HiddenTarget
from rlino_lib.training.masks import MASKS


def test_every_mask_has_a_look():
    assert list(MASK_LOOKS) == list(MASKS)


def test_optima_are_lines_and_trained_policies_marks():
    best = optima(HiddenTarget().problems("test", 4), [0.5, 0.0])
    trained = pd.DataFrame([("all", 0.0, 0.5), ("all", 0.0, 0.7)], columns=["mask", "lies", "accuracy"])
    (axis,) = optima_figure(best, trained).axes
    lines = {line.get_label(): line for line in axis.lines}
    look = best[best["tool"] == "look"].sort_values("lies")
    assert lines["the best policy that reads it"].get_ydata().tolist() == pytest.approx((100 * look["policy"]).tolist())
    assert lines["trained, loss over all tokens"].get_ydata().tolist() == pytest.approx([60])


def test_masks_have_a_row_for_accuracy_and_one_for_the_environment():
    rows = [("all", s, seed, step, 10 * step + seed, -step) for s in (0.0, 0.2) for seed in (0, 2) for step in (0, 1)]
    frame = pd.DataFrame(rows, columns=["mask", "lies", "seed", "step", "accuracy", "environment_logprob"])
    axes = masks_figure(frame).axes
    assert len(axes) == 4
    assert axes[0].lines[0].get_ydata().tolist() == [1, 11] and axes[3].lines[0].get_ydata().tolist() == [0, -1]


def test_repairs_are_means_with_intervals_beside_the_base():
    rows = [
        (t, start, seed, 10.0 * k + seed) for k, t in enumerate(START_LOOKS) for start in ("a", "b") for seed in (0, 2)
    ]
    frame = pd.DataFrame(rows, columns=["training", "start", "seed", "accuracy"])
    (axis,) = repair_figure(frame, {"a": 5.0, "b": 6.0}).axes
    marks = [line for line in axis.lines if line.get_marker() not in ("", "None", None)]
    assert sorted(float(line.get_xdata()[0]) for line in marks) == [1, 1, 11, 11, 21, 21]
    assert [line.get_xdata()[0] for line in axis.lines if line.get_label() == "the base"] == [5.0, 6.0]
