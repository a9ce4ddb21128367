"""Memory that runs out: the same work in smaller parts, once, and everything else as it is raised."""

import os

import pytest
import torch

from rlino_lib.errors import RlinoWarning
from rlino_lib.policy.device import within_memory


def fitting(most, error=torch.OutOfMemoryError):
    """Work that fits in parts of at most `most`, and the sizes that it was tried with."""
    tried = []

    def compute(size):
        tried.append(size)
        if size > most:
            raise error("CUDA out of memory" if error is RuntimeError else "no room")
        return f"in parts of {size}"

    return compute, tried


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_the_size_is_halved_until_it_fits_and_what_was_left_behind_is_undone(error):
    compute, tried = fitting(3, error)
    undone = []
    with pytest.warns(RlinoWarning, match="out of memory: from here on") as warned:
        result = within_memory(compute, 10, "a part has {} rows", undo=lambda: undone.append(tried[-1]))
    assert result == ("in parts of 2", 2)
    assert tried == [10, 5, 2] and undone == [10, 5]
    assert [str(w.message).split("from here on ")[1] for w in warned] == ["a part has 5 rows", "a part has 2 rows"]


def test_another_way_to_halve_keeps_whole_groups():
    compute, tried = fitting(4)
    with pytest.warns(RlinoWarning):
        assert within_memory(compute, 12, "{} rows", halve=lambda size: size // 2 // 4 * 4 or size // 2)[1] == 4
    assert tried == [12, 4]


def test_what_does_not_fit_at_all_and_what_is_no_lack_of_memory_is_raised():
    compute, tried = fitting(0)
    with pytest.warns(RlinoWarning), pytest.raises(torch.OutOfMemoryError):
        within_memory(compute, 2, "{} rows")
    assert tried == [2, 1]

    def broken(size):
        raise RuntimeError("shapes do not agree")

    with pytest.raises(RuntimeError, match="shapes"):
        within_memory(broken, 8, "{} rows")


def test_these_tests_and_the_processes_that_they_start_see_no_gpu():
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "" and not torch.cuda.is_available()
