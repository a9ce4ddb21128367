"""Claims on the relatives of GRPO, on entropy and on exploration, on made-up runs: what each compares, both ways."""

import json

import pytest

from rlino_lib.claims.judge import judge
from rlino_lib.claims.ledger import Claim, Records

SEEDS = 6
START = 40.0  # points, before the first update


def write_run(root, name, seed, accuracy=START, length=30.0, entropy=0.5):
    """A run from `START` to `accuracy` points, with the length and the entropy of its last evaluation."""
    folder = root / "grid" / f"{name}-s{seed}"
    folder.mkdir(parents=True)
    config = {"method": "grpo", "task": "word_problems", "seed": seed, "epochs": 1, "minibatches": 1, "steps": 2}
    (folder / "config.json").write_text(json.dumps(config))
    summary = {"complete": True, "test": {"pass@1": {"value": accuracy / 100}}}
    (folder / "summary.json").write_text(json.dumps(summary))
    rows = [f"0,0,{START / 100},30,0.5", "1,64,,,", f"2,128,0.9,{length},{entropy}", ""]
    (folder / "metrics.csv").write_text("\n".join(["step,samples,eval/accuracy,eval/mean_length,eval/entropy", *rows]))
    (folder / "timing.csv").write_text("step,seconds\n0,0\n1,1\n2,2\n")


def verdict(root, evidence, ends, reference=None, **threshold):
    """The verdict on runs whose numbers are `ends` (and `reference`'s), with a spread over seeds of their own."""
    for seed in range(SEEDS):
        for name, numbers in (("one", ends), ("other", reference)):
            if numbers is not None:
                by_seed = {key: value + 0.02 * (seed % 3 - 1) * (name == "one") for key, value in numbers.items()}
                write_run(root, name, seed, **by_seed)
    about = {"group": "grid", "name": "one"} | ({"reference": "other"} if reference is not None else {})
    row = Claim("c", "…", "…", "statistical", evidence, {"alpha": 0.05, "seeds": SEEDS} | threshold, about=about)
    result = judge(row, Records(root))
    assert len(result.runs) == SEEDS * (2 if reference is not None else 1)
    return result.verdict


ABOVE = [(1.0, "holds"), (0.0, "undecided"), (-1.0, "does not hold here")]
WITHIN = [(1.0, "holds"), (-3.0, "undecided"), (-5.0, "does not hold here")]


@pytest.mark.parametrize(("gap", "expected"), ABOVE)
@pytest.mark.parametrize(
    ("evidence", "column"),
    [
        ("relatives.ends_above", "accuracy"),
        ("exploration.ends_above", "accuracy"),
        ("relatives.ends_longer", "length"),
        ("exploration.ends_longer", "length"),
        ("exploration.keeps_more_entropy", "entropy"),
    ],
)
def test_more_than_the_reference_of_the_same_seed(evidence, column, gap, expected, tmp_path):
    assert verdict(tmp_path, evidence, {column: 50 + gap}, {column: 50}) == expected


@pytest.mark.parametrize(("gap", "expected"), WITHIN)
@pytest.mark.parametrize("module", ["relatives", "exploration"])
def test_as_accurate_as_the_reference(module, gap, expected, tmp_path):
    ends = {"accuracy": 50 + gap}
    assert verdict(tmp_path, f"{module}.ends_equal", ends, {"accuracy": 50}, points=3) == expected


@pytest.mark.parametrize(("gap", "expected"), ABOVE)
def test_above_or_below_the_base_it_began_as(gap, expected, tmp_path):
    assert verdict(tmp_path / "up", "relatives.rises", {"accuracy": START + gap}) == expected
    assert verdict(tmp_path / "down", "relatives.falls", {"accuracy": START - gap}) == expected


@pytest.mark.parametrize(("gap", "expected"), WITHIN)
def test_where_it_began(gap, expected, tmp_path):
    assert verdict(tmp_path, "relatives.stays", {"accuracy": START + gap}, points=3) == expected
