"""The three sentences of chapter 09 on counts whose answer is known: their words change with the numbers."""

import numpy as np
import pandas as pd
import pytest

from rlino_lib.claims.sharpening_answers import answers
from rlino_lib.errors import RlinoError

N = 1024
CHANCES = np.where(np.arange(160) % 4 == 0, 0.0, np.linspace(0.0005, 0.05, 160))


def counts(chances, seed, n=N):
    c = np.random.default_rng(seed).binomial(n, chances)
    return pd.DataFrame({"id": [f"p{i}" for i in range(len(chances))], "n": n, "c": c})


BASE, AGAIN = counts(CHANCES, 0), counts(CHANCES, 1)
MORE = counts(CHANCES, 2, 3 * N)


def tilted(factor):
    odds = factor * CHANCES / (1 - CHANCES)
    return odds / (1 + odds)


def test_sharpening_is_said_as_such():
    first, along, new = answers(BASE, [counts(tilted(5), seed) for seed in (3, 4, 5)], AGAIN, MORE, "GRPO")
    assert first.startswith("In one sample GRPO is right in ") and "training sharpens the base" in first
    assert "160 problems, n = 1,024, 3 seeds" in first
    assert "from k = 1 to " in along and "below" not in along
    assert new.startswith("No discovery is seen") and new.endswith("four times the samples of the base.")
    assert "; 0.0 of 160 problems stay" in new


def test_curves_that_cross_are_said_as_such():
    narrow = np.where(CHANCES > 0.02, 0.9, 0.0)
    _, along, new = answers(BASE, [counts(narrow, 3)], AGAIN)
    above, below = along.split("above the base's"), along.split("below the base's")
    assert len(above) == len(below) == 2 and len(above[0]) < len(below[0])
    assert new.endswith("was not tried.")


def test_discovery_is_said_as_such():
    wide = np.maximum(CHANCES, 0.02)
    first, _, new = answers(BASE, [counts(wide, 3)], AGAIN, MORE)
    assert new.startswith("It discovers: ")
    stay = ((BASE["c"] + MORE["c"] == 0) & (counts(wide, 3)["c"] > 0)).sum()
    assert f"; {stay:.1f} of 160 problems stay" in new and stay >= 40 and "seeds" not in first


def test_nothing_and_less_have_their_words():
    assert "training does not change the base" in answers(BASE, [AGAIN], AGAIN)[0]
    first, _, new = answers(BASE, [counts(CHANCES / 10, 3)], AGAIN)
    assert "training blunts the base" in first and not new.startswith("It discovers")


def test_few_problems_and_other_numbers_of_samples_are_no_discovery():
    """Three problems of 40 that only the model solves are too few for an interval above 0."""
    three = np.where(np.arange(40) < 3, 0.3, 0.0)
    base, again, model = (counts(chances, k)[:40] for k, chances in enumerate((0 * three, 0 * three, three)))
    assert answers(base, [model], again)[2].startswith("No discovery is seen: 7.5 % of the problems")
    with pytest.raises(RlinoError, match="one number of samples"):
        answers(BASE, [AGAIN.assign(n=2 * N)], AGAIN)


def test_where_the_base_solves_everything_there_is_no_room():
    even = counts(np.full(160, 0.02), 0)
    new = answers(even, [counts(np.full(160, 0.5), 1)], counts(np.full(160, 0.02), 2), MORE)[2]
    assert new.startswith("Discovery has no room: sampled twice, the base solves every problem; 0.0 % of the problems")


def test_numbers_are_those_of_the_counts_and_other_problems_are_refused():
    model = counts(tilted(5), 3)
    first = answers(BASE, [model], AGAIN)[0]
    assert f"right in {model['c'].mean() / N:.1%} where the base is in {BASE['c'].mean() / N:.1%}" in first
    assert f"({100 * (model['c'].mean() - BASE['c'].mean()) / N:+.1f} points [" in first
    assert answers(BASE, [model.sample(frac=1, random_state=0)], AGAIN)[0] == first
    with pytest.raises(RlinoError, match="same problems"):
        answers(BASE, [model[1:]], AGAIN)
