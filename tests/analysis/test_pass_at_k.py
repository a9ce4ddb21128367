"""pass@k against its definition: the share of all choices of k samples with a right one among them."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlino_lib.analysis.pass_at_k import pass_at_k
from rlino_lib.errors import RlinoError


@given(st.integers(1, 8), st.data())
def test_it_is_the_share_of_choices_with_a_right_sample(n, data):
    c = data.draw(st.integers(0, n))
    k = data.draw(st.integers(1, n))
    choices = list(combinations(range(n), k))  # samples below c are right
    assert pass_at_k(n, c, k) == pytest.approx(sum(min(choice) < c for choice in choices) / len(choices))


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 0), (4, 2, 5)])
def test_counts_that_cannot_be_are_refused(n, c, k):
    with pytest.raises(RlinoError, match="pass@k needs"):
        pass_at_k(n, c, k)
