"""Chapter 10's three sentences, on made-up runs: their words follow from intervals."""

import pytest

from rlino_lib.claims.credit_answers import answers
from rlino_lib.claims.ledger import Records
from rlino_lib.errors import RlinoError
from tests.claims.test_credit_claims import records


@pytest.mark.parametrize(("gap", "words"), [(3, "above RLOO"), (-3, "below RLOO"), (-0.2, "as far as can be told")])
def test_what_was_bought_follows_from_the_interval(gap, words, tmp_path):
    bought, _, _ = answers(records(tmp_path, gap))
    assert words in bought and "word problems" in bought and "countdown" not in bought


def test_the_price_is_in_tokens_and_at_equal_tokens(tmp_path):
    """With as many tokens for values as for responses VinePPO at half of its way is where RLOO ends."""
    root = records(tmp_path, 0.0, value_tokens=640).root
    records(root, 0.0, value_tokens=640, task="countdown")
    _, price, _ = answers(Records(root))
    assert price.count("2.0 times as many tokens") == 2 and price.count("behind at equal tokens") == 2


def test_a_bandit_is_left_by_what_could_not_be_known(tmp_path):
    *_, bandit = answers(records(tmp_path, 0.0))
    assert "right in 100%, or 80% where 20% of the looks lie" in bandit and "a calculator adds 0 points" in bandit


def test_without_runs_there_is_no_answer(tmp_path):
    with pytest.raises(RlinoError, match="no task has two seeds"):
        answers(Records(tmp_path))
