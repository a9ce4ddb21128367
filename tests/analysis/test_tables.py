"""Numbers in words, rows in common, and the paper's table under our names."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pandas as pd
import pytest

from rlino_lib.analysis import tables
from rlino_lib.analysis.statistics import differences, t_interval

VALUES = [1.0, 2.0, 4.0]


def scored(**methods) -> pd.DataFrame:
    rows = [(m, "countdown", seed, value) for m, values in methods.items() for seed, value in values.items()]
    return pd.DataFrame(rows, columns=["method", "task", "seed", "value"])


def test_means_come_with_student_s_interval():
    assert tables.mean_interval(VALUES) == (pytest.approx(7 / 3), *t_interval(VALUES))
    assert tables.mean_interval([2.0]) == (2.0, -math.inf, math.inf)


def test_intervals_in_words():
    low, high = t_interval(VALUES)
    assert tables.in_brackets(VALUES) == f"+2.3 [{low:+.1f}, {high:+.1f}]"
    assert tables.in_brackets([9.0, 11.0], "").startswith("10.0 [")
    assert tables.span(-0.25, 2.0) == "-0.2 to +2.0" and tables.span(-math.inf, math.inf) == "–"


def test_a_spread_is_a_mean_and_a_range():
    assert tables.spread(pd.Series([1.0, 3.0, math.nan])) == "2.0 [1.0, 3.0]"
    assert tables.spread(pd.Series([1.5])) == "1.5" and tables.spread(pd.Series([math.nan])) == "–"


def test_common_rows_are_those_of_both():
    one, other = tables.common(pd.Series([1, 2], index=[0, 1]), pd.Series([3, 4], index=[1, 2]))
    assert one.to_dict() == {1: 2} and other.to_dict() == {1: 3}


def test_differences_are_paired_on_the_seeds_of_both():
    frame = scored(grpo={0: 50.0, 1: 52.0}, rloo={1: 51.0, 2: 9.0})
    assert tables.paired_differences(frame, "countdown", "rloo").tolist() == [-1.0]
    assert tables.paired_differences(frame, "countdown", "dapo").empty
    whole = scored(grpo={0: 50.0, 1: 52.0}, rloo={0: 51.0, 1: 9.0})
    paired = tables.paired_differences(whole, "countdown", "grpo", "rloo")
    assert paired.tolist() == differences(whole, "grpo", "rloo").tolist()


def test_cleaning_rounds_and_has_no_minus_zero():
    frame = pd.DataFrame({"a": [1.23456, -1e-15], "b": ["x", "y"]})
    table = tables.clean(frame, 2)
    assert (
        table["a"].tolist() == [1.23, 0.0]
        and math.copysign(1, table["a"][1]) == 1
        and table["b"].tolist() == ["x", "y"]
    )
    assert frame["a"][0] == 1.23456
    assert math.isnan(tables.clean(pd.DataFrame({"a": [math.nan]}))["a"][0])


def test_the_means_of_a_run_are_over_its_test():
    rows = pd.DataFrame(
        {
            "final": [False, True, True, True, True],
            "correct": [True, True, True, False, False],
            "clipped": [False, False, False, True, False],
            "length": [99, 10, 20, 40, 30],
            "attempts": [9, 1, 2, 3, 4],
        }
    )
    run = SimpleNamespace(responses=rows, summary={"test": {"pass@1": {"value": 0.5}}}, name="r")
    means = tables.means_of(run)
    assert (means["right, %"], means["truncated, %"]) == (50, 25)
    assert means["length"] == 25 and means["attempts"] == 2.5
    assert (means["right"], means["wrong"], means["wrong, not truncated"]) == (15, 35, 30)
    assert len(tables.pooled([run, run])) == 8


def test_the_paper_s_table_has_our_names():
    table = tables.paper_results()
    assert set(table.index) == {"grpo", "grpo_no_kl", "f_isft_pos", "f_isft_neg", "f_isft_posneg", "f_isft_posneg_unit"}
    both = table.loc[["f_isft_posneg", "f_isft_posneg_unit"]]
    assert both.iloc[0].equals(both.iloc[1]) and {"countdown", "gsm8k"} <= set(table.columns.get_level_values("task"))
