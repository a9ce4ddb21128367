"""Hours of one GPU, and their price, for each number of the paper's table (chapter 12).

Sampling is bound by the steps of decoding. A step writes one token of all responses of a batch, and takes about as long
for many responses as for few. The update is bound by products: 2 · parameters for each token and pass. Both speeds are
those that `rlino bench gpu` measured, where a record of it is there, and else assumptions.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from rlino_lib.paths import DATA

CARD = "H100"
PEAK = 989e12  # dense bfloat16 products and sums per second of an H100, by its data sheet
TEST = 1024  # problems of the paper's test
DEAR, CHEAP = 1024, 300  # tokens of a response: each truncated at the paper's cap, or an assumption
ASSUMED = {DEAR: (0.03, 0.2), CHEAP: (0.008, 0.4)}  # seconds per step of decoding, and share of PEAK in an update


class Speed(NamedTuple):
    """How fast a card is, for responses of `tokens` tokens."""

    tokens: int
    decode_s: float  # of a step of decoding, for a model of `parameters`
    flops: float  # products and sums per second of an update
    parameters: float | None  # None: the speed is taken for any model
    source: str  # where the numbers are from

    @property
    def measured(self) -> bool:
        """Whether they are not assumed."""
        return self.parameters is not None


def speeds(records: Sequence[Mapping[str, Any]]) -> list[Speed]:
    """Two speeds, for long responses and for short ones, from the last record of `rlino bench gpu` made on an H100.

    `records` are rows of data/bench; hours of another card are not those of an H100. Without such a record the speeds
    are assumed: of a plain loop for the long responses, of an engine made for it for the short ones.
    """
    on_cards = [r for r in records if r["bench"] == "gpu" and r["device"] != "cpu"]
    made = [r for r in on_cards if CARD in r["machine"] and r["decode_ms"] and r["update_tflops"]]
    if not made:
        return [
            Speed(tokens, decode_s, share * PEAK, None, f"assumed {1e3 * decode_s:.0f} ms and {share:.0%} of the peak")
            for tokens, (decode_s, share) in ASSUMED.items()
        ]
    last = made[-1]
    card = last["machine"].rpartition(", ")[2]
    source = f"computed from the measured {last['decode_ms']:.1f} ms and {last['update_tflops']:.0f} TFLOP/s on {card}"
    numbers = last["decode_ms"] / 1e3, 1e12 * last["update_tflops"], last["parameters"]
    return [Speed(tokens, *numbers, source) for tokens in (DEAR, CHEAP)]


def gpu_hours(parameters: float, settings: Mapping[str, Any], kl: bool, speed: Speed) -> float:
    """Hours of one card for a run: steps of decoding of its batches and evaluations, and products of its updates.

    With gradient checkpointing there are two passes forward and a backward one that counts twice; a KL term adds a pass
    of the reference. A step of decoding of a model larger than the measured one is taken to be longer by as much as it
    is larger.
    """
    responses = settings["prompts"] * settings["group_size"]
    evaluated = settings["steps"] // settings["eval_every"] * settings["eval_problems"] + TEST
    batches = settings["steps"] + evaluated / responses
    larger = max(1.0, parameters / speed.parameters) if speed.parameters else 1.0
    passes = 3 + settings["gradient_checkpointing"] + kl
    products = 2 * parameters * passes * settings["steps"] * responses * speed.tokens
    return (batches * speed.tokens * speed.decode_s * larger + products / speed.flops) / 3600


def cost_table(paper: pd.DataFrame, settings: Mapping[str, Any], options: Sequence[Speed]) -> pd.DataFrame:
    """The paper's cells with the hours of an H100 for each speed, in columns named by the length of a response.

    `paper` has a row per number, with `model` and `method`; column `billions` holds the size in the model's name.
    """
    billions = paper["model"].str.extract(r"(\d+(?:\.\d+)?)B", expand=False).astype(float)
    table = paper.assign(billions=billions)
    for speed in options:
        hours = [gpu_hours(1e9 * r.billions, settings, r.method == "GRPO", speed) for r in table.itertuples()]
        table[hours_column(speed)] = hours
    return table


def hours_column(speed: Speed) -> str:
    """How a table names the hours at a speed."""
    words = "every response truncated" if speed.tokens == DEAR else f"{speed.tokens} tokens a response"
    return f"{words}, hours"


def prices() -> tuple[str, pd.DataFrame]:
    """The date of the assumed prices, and a row per card: its memory in GB, and dollars an hour, `low` to `high`."""
    with (DATA / "prices.toml").open("rb") as f:
        table = tomllib.load(f)
    rows = [(card["name"], card["gb"], *card["dollars"]) for card in table["card"]]
    return table["date"], pd.DataFrame(rows, columns=["card", "GB", "low", "high"]).set_index("card")
