"""Hours and dollars of the paper's table: by hand, from a record where there is one, and never from a CPU's."""

import pandas as pd
import pytest

from rlino_lib.analysis.costs import ASSUMED, CHEAP, DEAR, PEAK, cost_table, gpu_hours, hours_column, prices, speeds
from rlino_lib.paths import DATA
from rlino_lib.training.presets import presets

SETTINGS = {"prompts": 10, "group_size": 4, "steps": 100, "eval_every": 50, "eval_problems": 8,
            "gradient_checkpointing": 1}  # fmt: skip
RECORD = {
    "bench": "gpu", "device": "cuda", "machine": "x86_64, AVX2, NVIDIA H100", "decode_ms": 5.0, "update_tflops": 100.0,
    "parameters": 5e8,
}  # fmt: skip


def test_hours_are_steps_of_decoding_and_products():
    for speed in speeds([RECORD]):
        batches = 100 + (2 * 8 + 1024) / 40
        decoding = batches * speed.tokens * 0.005
        update = 2 * 5e8 * 4 * 100 * 40 * speed.tokens / 100e12
        assert gpu_hours(5e8, SETTINGS, False, speed) == pytest.approx((decoding + update) / 3600)
        with_kl = (decoding + update * 5 / 4) / 3600
        assert gpu_hours(5e8, SETTINGS, True, speed) == pytest.approx(with_kl)
        assert gpu_hours(1e9, SETTINGS, False, speed) == pytest.approx(2 * (decoding + update) / 3600)
        light = SETTINGS | {"gradient_checkpointing": 0}
        assert gpu_hours(5e8, light, False, speed) == pytest.approx((decoding + update * 3 / 4) / 3600)


def test_a_measurement_takes_the_place_of_assumptions_and_says_so():
    long, short = speeds([{"bench": "memory"}, RECORD | {"decode_ms": 9.0}, RECORD])
    assert (long.tokens, short.tokens) == (DEAR, CHEAP) and long.decode_s == short.decode_s == 0.005
    assert long.measured and "computed from the measured 5.0 ms and 100 TFLOP/s on NVIDIA H100" == short.source


@pytest.mark.parametrize(
    "change",
    [{"device": "cpu"}, {"machine": "x86_64, A Card"}, {"decode_ms": None}, {"update_tflops": None}, {"bench": "step"}],
)
def test_what_was_not_measured_on_a_card_is_assumed(change):
    found = speeds([RECORD | change])
    assert [(s.tokens, s.decode_s, s.flops / PEAK) for s in found] == [(n, *how) for n, how in ASSUMED.items()]
    assert not any(s.measured for s in found) and all(s.source.startswith("assumed") for s in found)


def test_every_number_of_the_papers_table_has_its_hours():
    paper = pd.read_csv(DATA / "paper" / "results.csv")
    options = speeds([])
    table = cost_table(paper, presets()["paper-gsm8k-0.5b"].settings, options)
    hours = table[[hours_column(s) for s in options]]
    assert len(hours) == len(paper) and (hours > 0).all(axis=None)
    assert (hours.iloc[:, 0] > hours.iloc[:, 1]).all()  # long responses cost more
    grpo, without = (table[(table["model"] == "Qwen2.5-0.5B") & (table["method"] == m)] for m in ("GRPO", "GRPO-wo-KL"))
    assert grpo[hours.columns[0]].iloc[0] > without[hours.columns[0]].iloc[0]


def test_prices_have_a_date_and_a_range():
    date, cards = prices()
    assert date and "H100" in cards.index and (0 < cards["low"]).all() and (cards["low"] <= cards["high"]).all()
