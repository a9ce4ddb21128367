"""The change of entropy is its covariance to first order, and rises where unlikely actions are the good ones."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlino_lib.exact.entropy import entropy, entropy_run, entropy_step

F64 = torch.float64
numbers = st.lists(st.floats(-2, 2), min_size=4, max_size=4).map(lambda row: torch.tensor(row, dtype=F64))


@settings(deadline=None)
@given(numbers, numbers, st.booleans())
def test_the_covariance_is_the_first_order(logits, advantages, natural):
    """Halving the step quarters what is left, and the gradient of the entropy says the same."""
    steps = [entropy_step(logits, advantages, lr, natural) for lr in (1e-3, 5e-4)]
    left = [abs(step.exact - step.first_order) for step in steps]
    assert left[0] < 1e-4 and left[1] <= left[0] / 3 + 1e-12
    at = logits.clone().requires_grad_()
    (slope,) = torch.autograd.grad(entropy(at), at)
    probs = logits.softmax(-1)
    centred = advantages - probs @ advantages
    push = centred if natural else probs * centred
    assert steps[0].first_order == pytest.approx(1e-3 * (slope @ push).item(), abs=1e-15)


def test_the_sign():
    logits = torch.tensor([2.0, 0, 0], dtype=F64)
    likely_is_good, unlikely_is_good = (torch.tensor(row, dtype=F64) for row in ([1.0, 0, 0], [0.0, 1, 1]))
    assert entropy_step(logits, likely_is_good, 0.1).exact < 0 < entropy_step(logits, unlikely_is_good, 0.1).exact
    assert entropy(torch.zeros(8, dtype=F64)).item() == pytest.approx(torch.tensor(8.0).log().item())


START = torch.tensor([1.5, 1.0, 0.5, 0, 0, -0.5, -1, -1.5], dtype=F64)
RIGHT = torch.eye(8, dtype=F64)


@pytest.mark.parametrize("natural", [False, True])
def test_a_training_adds_up(natural):
    """Changes sum to the whole change; at a small step so do first orders, and the reward rises."""
    table = entropy_run(START, RIGHT[5], 0.01, 400, natural)
    whole = table["entropy"].iloc[-1] + table["exact"].iloc[-1] - entropy(START).item()
    assert table["exact"].sum() == pytest.approx(whole, abs=1e-12)
    assert table["first_order"].sum() == pytest.approx(whole, abs=0.05 * table["exact"].abs().sum())
    assert table["reward"].is_monotonic_increasing
    assert (table["exact"].iloc[:10] > 0).all()  # the right action is an unlikely one at first
